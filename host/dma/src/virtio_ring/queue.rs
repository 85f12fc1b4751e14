//! Adding buffers and taking them back.

use tlproof_pcie::{Direction, DmaAddr};

use super::{
    layout::{DESC_SIZE, Desc, DescFlags, Layout},
    map::{Mapper, Memory},
};
use crate::{
    attrs::Attrs,
    block::{DmaVec, PhysVec},
    device::DeviceId,
    dma::Dma,
    error::MapError,
    iommu::IommuDriver,
    machine::Machine,
    pages::PAGE_SIZE,
};

/// Flag of the used ring: the device wants no notification (`VRING_USED_F_NO_NOTIFY`).
const NO_NOTIFY: u16 = 1;

/// What driver and device have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `VIRTIO_F_ACCESS_PLATFORM`: addresses are those of the platform, so the mapping API makes
    /// them; without it they are physical.
    pub access_platform: bool,
    /// `VIRTIO_F_INDIRECT_DESC`: a chain may stand in a table of its own.
    pub indirect_desc: bool,
}

/// The buffers of one chain: first those that the device reads, then those that it writes.
#[derive(Clone, Copy, Debug)]
pub enum Buffers<'a> {
    /// Memory that the queue maps (`virtqueue_add_sgs`).
    Memory {
        /// Read by the device.
        out: &'a [PhysVec],
        /// Written by the device.
        input: &'a [PhysVec],
    },
    /// Memory to be written of which the CPU has no line that it writes, although its lines are
    /// shared with other memory (`virtqueue_add_inbuf_cache_clean`): mapped with
    /// `DEBUGGING_IGNORE_CACHELINES`.
    CacheClean(&'a [PhysVec]),
    /// Addresses that the driver has mapped and will unmap (`virtqueue_add_*_premapped`).
    Premapped {
        /// Read by the device.
        out: &'a [DmaVec],
        /// Written by the device.
        input: &'a [DmaVec],
    },
}

impl Buffers<'_> {
    const fn count(&self) -> usize {
        match self {
            Self::Memory { out, input } => out.len() + input.len(),
            Self::CacheClean(input) => input.len(),
            Self::Premapped { out, input } => out.len() + input.len(),
        }
    }
}

/// Why buffers cannot be added or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VirtqueueError {
    /// No buffer at all (BUG in the kernel).
    #[error("no buffers")]
    Empty,
    /// Not enough free descriptors (`-ENOSPC`).
    #[error("{0} free descriptors are not enough")]
    Full(u16),
    /// A buffer could not be mapped, or a table not allocated (`-ENOMEM`).
    #[error("mapping: {0}")]
    Map(#[from] MapError),
    /// The device returned a head that no chain has; the queue is broken from now on.
    #[error("id {0} is not a head")]
    BadId(u32),
    /// The queue is broken (`-EIO`).
    #[error("the queue is broken")]
    Broken,
}

/// A chain that the device is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What was passed to [`Virtqueue::add`].
    pub token: u64,
    /// Bytes that the device wrote, by its own account.
    pub len: u32,
}

/// A buffer in a descriptor, with what has to be undone.
#[derive(Clone, Copy, Debug)]
struct Entry {
    addr: DmaAddr,
    len: u32,
    dir: Direction,
    /// Mapped by the queue.
    mapped: bool,
}

/// A chain in the hands of the device.
#[derive(Clone, Debug)]
struct Chain {
    token: u64,
    entries: Vec<Entry>,
    /// The descriptors in the ring, head first.
    slots: Vec<u16>,
    /// The table, and its mapping.
    indirect: Option<(Memory, Entry)>,
}

/// A split virtqueue (`struct vring_virtqueue_split`).
#[derive(Debug)]
pub struct Virtqueue {
    layout: Layout,
    features: Features,
    memory: Memory,
    mapper: Mapper,
    /// Free descriptors, the next one last.
    free: Vec<u16>,
    chains: Vec<Option<Chain>>,
    avail_idx: u16,
    last_used: u16,
    broken: bool,
}

impl Virtqueue {
    /// `vring_create_virtqueue_split`.
    ///
    /// # Errors
    /// No memory, or the mapping API refuses.
    pub fn new<I: IommuDriver>(
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        dev: DeviceId,
        layout: Layout,
        features: Features,
    ) -> Result<Self, MapError> {
        let mapper = Mapper {
            dev,
            use_map_api: features.access_platform,
        };
        let memory = Memory::alloc(dma, m, dev, layout.size(), mapper.use_map_api)?;
        Ok(Self {
            layout,
            features,
            memory,
            mapper,
            free: (0..layout.num()).rev().collect(),
            chains: vec![None; layout.num().into()],
            avail_idx: 0,
            last_used: 0,
            broken: false,
        })
    }

    /// Where the device finds the ring: descriptors, available ring, used ring.
    #[must_use]
    pub const fn addresses(&self) -> [DmaAddr; 3] {
        let base = self.memory.dma();
        [
            base,
            base.offset(self.layout.avail()),
            base.offset(self.layout.used()),
        ]
    }

    /// Free descriptors.
    #[must_use]
    pub const fn num_free(&self) -> u16 {
        self.free.len() as u16
    }

    /// `virtqueue_add_*`: maps the buffers and makes the chain available. `token` comes back with
    /// [`Virtqueue::get_buf`].
    ///
    /// # Errors
    /// See [`VirtqueueError`]. Nothing stays mapped.
    pub fn add<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        buffers: Buffers<'_>,
        token: u64,
    ) -> Result<(), VirtqueueError> {
        if self.broken {
            return Err(VirtqueueError::Broken);
        }
        let count = buffers.count();
        if count == 0 {
            return Err(VirtqueueError::Empty);
        }
        // A table may not be longer than the queue either (§2.7.5.3.1).
        if count > usize::from(self.layout.num()) {
            return Err(VirtqueueError::Full(self.num_free()));
        }
        let as_table = self.features.indirect_desc && count > 1 && !self.free.is_empty();
        let needed = if as_table { 1 } else { count };
        if self.free.len() < needed {
            return Err(VirtqueueError::Full(self.num_free()));
        }
        let entries = self.map(dma, m, buffers)?;
        let indirect = match as_table.then(|| self.write_table(dma, m, &entries)) {
            Some(Ok(table)) => Some(table),
            Some(Err(e)) => {
                self.unmap(dma, m, &entries);
                return Err(e.into());
            }
            None => None,
        };
        let slots: Vec<u16> = self.free.drain(self.free.len() - needed..).rev().collect();
        match &indirect {
            Some((_, table)) => {
                let desc = desc(table, DescFlags::INDIRECT, 0);
                self.memory
                    .write(m, self.layout.desc(slots[0]), &desc.to_bytes());
            }
            None => {
                for (i, entry) in entries.iter().enumerate() {
                    let next = slots.get(i + 1).copied();
                    let flags = next.map_or(DescFlags::empty(), |_| DescFlags::NEXT);
                    let desc = desc(entry, flags, next.unwrap_or(0));
                    self.memory
                        .write(m, self.layout.desc(slots[i]), &desc.to_bytes());
                }
            }
        }
        let head = slots[0];
        self.chains[usize::from(head)] = Some(Chain {
            token,
            entries,
            slots,
            indirect,
        });
        // The device looks at the slot only after the index has moved on.
        let slot = self.layout.avail_slot(self.avail_idx);
        self.memory.write(m, slot, &head.to_le_bytes());
        self.avail_idx = self.avail_idx.wrapping_add(1);
        let idx = self.avail_idx.to_le_bytes();
        self.memory.write(m, self.layout.avail_idx(), &idx);
        Ok(())
    }

    /// `virtqueue_kick_prepare`: whether the device wants to be notified.
    pub fn kick_prepare(&self, m: &mut dyn Machine) -> bool {
        let flags = u16::from_le_bytes(self.memory.read(m, self.layout.used()));
        flags & NO_NOTIFY == 0
    }

    /// `virtqueue_get_buf`: the next chain that the device is done with, unmapped.
    ///
    /// # Errors
    /// [`VirtqueueError::BadId`] and [`VirtqueueError::Broken`].
    pub fn get_buf<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
    ) -> Result<Option<Used>, VirtqueueError> {
        if self.broken {
            return Err(VirtqueueError::Broken);
        }
        let idx = u16::from_le_bytes(self.memory.read(m, self.layout.used_idx()));
        if idx == self.last_used {
            return Ok(None);
        }
        let slot = self.layout.used_slot(self.last_used);
        let id = u32::from_le_bytes(self.memory.read(m, slot));
        let len = u32::from_le_bytes(self.memory.read(m, slot + 4));
        let chain = self.chains.get_mut(id as usize).and_then(Option::take);
        let Some(chain) = chain else {
            self.broken = true;
            return Err(VirtqueueError::BadId(id));
        };
        self.last_used = self.last_used.wrapping_add(1);
        let token = self.detach(dma, m, chain);
        Ok(Some(Used { token, len }))
    }

    /// `virtqueue_detach_unused_buf`: takes a chain back that the device will not use any more,
    /// because it was reset.
    pub fn detach_unused_buf<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
    ) -> Option<u64> {
        let chain = self.chains.iter_mut().find_map(Option::take)?;
        self.avail_idx = self.avail_idx.wrapping_sub(1);
        let idx = self.avail_idx.to_le_bytes();
        self.memory.write(m, self.layout.avail_idx(), &idx);
        Some(self.detach(dma, m, chain))
    }

    /// `vring_del_virtqueue`: gives the ring back, after all chains.
    pub fn delete<I: IommuDriver>(mut self, dma: &mut Dma<I>, m: &mut dyn Machine) {
        while self.detach_unused_buf(dma, m).is_some() {}
        self.memory.free(dma, m, self.mapper.dev);
    }

    /// `detach_buf_split`: unmaps a chain and frees its descriptors; returns its token.
    fn detach<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        chain: Chain,
    ) -> u64 {
        if let Some((memory, table)) = chain.indirect {
            self.unmap(dma, m, &[table]);
            memory.free(dma, m, self.mapper.dev);
        }
        self.unmap(dma, m, &chain.entries);
        self.free.extend(chain.slots.iter().rev());
        chain.token
    }

    fn map<I: IommuDriver>(
        &self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        buffers: Buffers<'_>,
    ) -> Result<Vec<Entry>, MapError> {
        let (out, input, attrs): (&[PhysVec], &[PhysVec], _) = match buffers {
            Buffers::Memory { out, input } => (out, input, Attrs::empty()),
            Buffers::CacheClean(input) => (&[], input, Attrs::DEBUGGING_IGNORE_CACHELINES),
            Buffers::Premapped { out, input } => {
                let entry = |v: &DmaVec, dir| Entry {
                    addr: v.addr,
                    len: v.len,
                    dir,
                    mapped: false,
                };
                let out = out.iter().map(|v| entry(v, Direction::ToDevice));
                let input = input.iter().map(|v| entry(v, Direction::FromDevice));
                return Ok(out.chain(input).collect());
            }
        };
        let out = out.iter().map(|v| (v, Direction::ToDevice));
        let input = input.iter().map(|v| (v, Direction::FromDevice));
        let mut entries = Vec::new();
        for (v, dir) in out.chain(input) {
            match self.mapper.map_one(dma, m, v.paddr, v.len, dir, attrs) {
                Ok(addr) => entries.push(Entry {
                    addr,
                    len: v.len,
                    dir,
                    mapped: true,
                }),
                Err(e) => {
                    self.unmap(dma, m, &entries);
                    return Err(e);
                }
            }
        }
        Ok(entries)
    }

    fn unmap<I: IommuDriver>(&self, dma: &mut Dma<I>, m: &mut dyn Machine, entries: &[Entry]) {
        for e in entries.iter().filter(|e| e.mapped) {
            self.mapper.unmap_one(dma, m, e.addr, e.len, e.dir);
        }
    }

    /// `alloc_indirect_split`: the chain in a table of its own, mapped for the device to read.
    fn write_table<I: IommuDriver>(
        &self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        entries: &[Entry],
    ) -> Result<(Memory, Entry), MapError> {
        let len = entries.len() as u64 * DESC_SIZE;
        let memory = Memory::pages(dma, m, len.max(PAGE_SIZE))?;
        let last = entries.len() - 1;
        for (i, entry) in entries.iter().enumerate() {
            let (flags, next) = if i < last {
                (DescFlags::NEXT, i as u16 + 1)
            } else {
                (DescFlags::empty(), 0)
            };
            let desc = desc(entry, flags, next);
            memory.write(m, i as u64 * DESC_SIZE, &desc.to_bytes());
        }
        let (dir, len) = (Direction::ToDevice, len as u32);
        let mapped = self
            .mapper
            .map_one(dma, m, memory.phys(), len, dir, Attrs::empty());
        match mapped {
            Ok(addr) => Ok((
                memory,
                Entry {
                    addr,
                    len,
                    dir,
                    mapped: true,
                },
            )),
            Err(e) => {
                memory.free(dma, m, self.mapper.dev);
                Err(e)
            }
        }
    }
}

fn desc(entry: &Entry, mut flags: DescFlags, next: u16) -> Desc {
    flags.set(DescFlags::WRITE, entry.dir == Direction::FromDevice);
    Desc {
        addr: entry.addr,
        len: entry.len,
        flags,
        next,
    }
}
