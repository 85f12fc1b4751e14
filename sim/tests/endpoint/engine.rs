//! The DMA engine as the host sees it: the descriptors that it gave, the reads that it has to
//! complete, and what each TLP of the engine must therefore look like.

use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, RngExt};
use tlproof_pcie::{Bdf, BusAddr, CplStatus, Head, tlp::MemRequest};

use crate::{
    common::{Checked, Tlp, enables, plain},
    descriptor::{Descriptor, pattern},
    host::RCB,
    lists::{Extent, Memory, Walk, byte, walk},
};

/// Bytes of the local memory.
pub const LOCAL: usize = 1 << 20;
/// Completer ID of main memory.
const HOST: Bdf = Bdf(0);

/// What the endpoint's configuration allows it.
#[derive(Clone, Copy)]
pub struct Limits {
    pub bdf: Bdf,
    pub mps: usize,
    pub mrrs: usize,
    pub bus_master: bool,
}

/// A descriptor as far as its requests were seen.
pub struct Progress {
    pub descriptor: Descriptor,
    /// What its list asks for.
    pub walk: Walk,
    /// Extents that are wholly requested, and bytes of the next.
    at: (usize, u64),
    /// Reads of its list that were seen.
    listed: usize,
    /// Bytes requested.
    pub requested: u32,
    /// Reads without their last completion.
    pub open: u32,
    /// Worst status.
    pub status: u8,
    pub recorded: bool,
}

impl Progress {
    fn new(descriptor: Descriptor, memory: &Memory) -> Self {
        let walk = walk(memory, &descriptor);
        Self {
            descriptor,
            status: walk.status,
            walk,
            at: (0, 0),
            listed: 0,
            requested: 0,
            open: 0,
            recorded: false,
        }
    }

    fn all_requested(&self) -> bool {
        self.at.0 == self.walk.extents.len()
    }

    pub fn list_is_read(&self) -> bool {
        self.listed >= self.walk.needed
    }

    /// What is left of the extent at hand.
    fn rest(&self) -> Option<Extent> {
        let e = self.walk.extents.get(self.at.0)?;
        Some(Extent {
            addr: e.addr + self.at.1,
            len: e.len - self.at.1,
            offset: e.offset + self.at.1,
        })
    }

    fn advance(&mut self, n: u64) {
        self.requested += n as u32;
        self.at.1 += n;
        if self.at.1 == self.walk.extents[self.at.0].len {
            self.at = (self.at.0 + 1, 0);
        }
    }

    /// The request for `n` bytes at `addr` that the descriptor makes.
    fn head(&self, write: bool, addr: u64, n: u64, tag: u16, limits: &Limits) -> Head {
        let d = &self.descriptor;
        Head::mem(&MemRequest {
            addr: BusAddr(addr),
            requester: d.requester.unwrap_or(limits.bdf),
            tag,
            at: d.at,
            no_snoop: d.no_snoop,
            relaxed: d.relaxed,
            ido: d.ido,
            tc: d.tc,
            pasid: d.pasid,
            ..plain(write, addr, enables(addr, n))
        })
    }
}

/// A read in flight.
pub struct Read {
    pub head: Head,
    pub id: u16,
    pub addr: u64,
    pub left: u64,
    /// Where its data go in local memory; `None` for those of a list, with its status.
    target: Result<u64, CplStatus>,
}

/// The DMA engine as the host sees it.
#[derive(Default)]
pub struct Dma {
    pub descriptors: BTreeMap<u16, Progress>,
    /// Lists in main memory.
    pub lists: Memory,
    writes: VecDeque<u16>,
    reads: VecDeque<u16>,
    walks: VecDeque<u16>,
    write_tag: u8,
    pub pending: BTreeMap<u16, Read>,
    pub peak: usize,
}

impl Dma {
    pub fn push(&mut self, id: u16, descriptor: Descriptor) {
        let progress = Progress::new(descriptor, &self.lists);
        if !progress.walk.reads.is_empty() {
            self.walks.push_back(id);
        }
        self.descriptors.insert(id, progress);
        if descriptor.write {
            &mut self.writes
        } else {
            &mut self.reads
        }
        .push_back(id);
    }

    /// Bytes that the descriptor has requested.
    pub fn requested(&self, id: u16) -> u32 {
        self.descriptors.get(&id).map_or(0, |p| p.requested)
    }

    /// A request of the endpoint: must be the next of its direction or of a list.
    pub fn accept(&mut self, tlp: &Tlp, limits: &Limits, local: &[u8]) -> Checked {
        let h = &tlp.head;
        ensure!(h.is_mem(), "no request of the DMA engine: {h:x?}");
        ensure!(
            limits.bus_master,
            "request without Bus Master Enable: {h:x?}"
        );
        match self.list_due(h.addr().0) {
            Some(id) if h.is_mem_read() => self.accept_list_read(id, h, limits),
            _ => self.accept_data(tlp, limits, local),
        }
    }

    /// Whose list is to be read next, if that is at `addr`: lists are read in the order of their
    /// descriptors, each from its start; one that is wrong further on may be left early.
    fn list_due(&mut self, addr: u64) -> Option<u16> {
        let due = |p: &Progress| p.walk.reads.get(p.listed).is_some_and(|r| r.0 == addr);
        while let Some(p) = self.walks.front().map(|id| &self.descriptors[id])
            && p.list_is_read()
            && !due(p)
        {
            // A read of data may come before the rest of the list.
            let later = |id: &u16| due(&self.descriptors[id]);
            if !self.walks.iter().skip(1).any(later) {
                return None;
            }
            self.walks.pop_front();
        }
        let id = *self.walks.front()?;
        due(&self.descriptors[&id]).then_some(id)
    }

    fn accept_list_read(&mut self, id: u16, h: &Head, limits: &Limits) -> Checked {
        let progress = self.descriptors.get_mut(&id).ok_or("unknown descriptor")?;
        let (addr, n) = progress.walk.reads[progress.listed];
        let due = progress.head(false, addr, n, h.tag(), limits);
        ensure!(*h == due, "list of {id} at {addr:#x}: {h:x?}, not {due:x?}");
        let status = match progress.descriptor.list_answer {
            Some((nth, status)) if nth == progress.listed => status,
            _ => CplStatus::Success,
        };
        progress.listed += 1;
        progress.open += 1;
        self.read(h, id, addr, n, Err(status))
    }

    fn read(
        &mut self,
        head: &Head,
        id: u16,
        addr: u64,
        left: u64,
        target: Result<u64, CplStatus>,
    ) -> Checked {
        let tag = head.tag();
        ensure!(tag < 64, "tag {tag}");
        let read = Read {
            head: *head,
            id,
            addr,
            left,
            target,
        };
        ensure!(self.pending.insert(tag, read).is_none(), "tag {tag} in use");
        self.peak = self.peak.max(self.pending.len());
        Ok(())
    }

    fn accept_data(&mut self, tlp: &Tlp, limits: &Limits, local: &[u8]) -> Checked {
        let h = &tlp.head;
        let queue = if h.has_data() {
            &mut self.writes
        } else {
            &mut self.reads
        };
        while queue
            .front()
            .is_some_and(|id| self.descriptors[id].all_requested())
        {
            queue.pop_front();
        }
        let id = *queue
            .front()
            .ok_or_else(|| format!("no descriptor asks for {h:x?}"))?;
        let progress = self.descriptors.get_mut(&id).ok_or("unknown descriptor")?;
        let d = progress.descriptor;

        let Extent {
            addr,
            len: left,
            offset,
        } = progress.rest().ok_or("nothing is left")?;
        let (_, n) = h.byte_span();
        let limit = if d.write { limits.mps } else { limits.mrrs } as u64;
        ensure!(n > 0 && n <= left, "{n} bytes of {left} left");
        ensure!(
            u64::from(h.len_dw()) * 4 <= limit,
            "{} DW, limit {limit}",
            h.len_dw()
        );
        ensure!(
            addr % 4096 + n <= 4096,
            "{n} bytes at {addr:#x} cross 4 KiB"
        );
        ensure!(
            n == left || (addr + n).is_multiple_of(limit),
            "split at {:#x}",
            addr + n
        );
        let tag = if d.write {
            u16::from(self.write_tag)
        } else {
            h.tag()
        };
        let due = progress.head(d.write, addr, n, tag, limits);
        ensure!(
            *h == due,
            "descriptor {id} at {addr:#x}: {h:x?}, not {due:x?}"
        );
        progress.advance(n);

        if !d.write {
            progress.open += 1;
            return self.read(h, id, addr, n, Ok(offset));
        }
        self.write_tag = self.write_tag.wrapping_add(1);
        for i in 0..n {
            let seen = tlp.data[(addr % 4 + i) as usize];
            let due = if d.pattern {
                pattern(addr + i, d.seed)
            } else {
                local[(offset + i) as usize % LOCAL]
            };
            ensure!(
                seen == due,
                "descriptor {id} byte at {:#x}: {seen:#x}, not {due:#x}",
                addr + i
            );
        }
        Ok(())
    }

    /// A completion of any read in flight, of any length that PCIe 6.0 §2.3.1.1 lets. What it
    /// carries goes into `local`.
    pub fn answer(&mut self, rng: &mut impl Rng, mps: usize, local: &mut [u8]) -> Option<Tlp> {
        let nth = rng.random_range(0..self.pending.len().max(1));
        let (&tag, read) = self.pending.iter().nth(nth)?;
        let d = self.descriptors.get(&read.id)?.descriptor;
        let mut n = read.left;
        let mut status = read.target.err().unwrap_or(d.answer);
        let size = rng.random_range(1..=mps as u64 / RCB) * RCB;
        let whole = read.addr % 4 + read.left <= size;
        if !whole || rng.random() {
            let end = ((read.addr + size) & !(RCB - 1)).max(read.addr / RCB * RCB + RCB);
            n = n.min(end - read.addr);
        }
        // A part may succeed before the failure.
        if n < read.left && status != CplStatus::Success && rng.random() {
            status = CplStatus::Success;
        }
        let mut data = Vec::new();
        if status == CplStatus::Success {
            let lead = read.addr % 4;
            data.extend((0..(lead + n).div_ceil(4) * 4).map(|_| rng.random::<u8>()));
            for i in 0..n {
                let byte = byte(&self.lists, read.addr + i);
                data[(lead + i) as usize] = byte;
                if let Ok(offset) = read.target
                    && !d.pattern
                {
                    local[(offset + i) as usize % LOCAL] = byte;
                }
            }
        } else {
            n = read.left;
        }
        let tlp = Tlp::completion(&read.head, HOST, status, read.left, read.addr, data);
        let progress = self.descriptors.get_mut(&read.id)?;
        if read.target.is_ok() {
            progress.status = progress.status.max(status.bits());
        }
        let read = self.pending.get_mut(&tag)?;
        read.addr += n;
        read.left -= n;
        if let Ok(offset) = &mut read.target {
            *offset += n;
        }
        if read.left == 0 {
            progress.open -= 1;
            self.pending.remove(&tag);
        }
        Some(tlp)
    }

    /// A completion record.
    pub fn record(&mut self, value: u64) -> Checked<u16> {
        let (id, status) = (value as u16, (value >> 16 & 7) as u8);
        let code = (value >> 24) as u8;
        ensure!(
            value & !(1 << 63 | 0xff07_ffff) == 0,
            "reserved bits of record {value:#x}"
        );
        let p = self
            .descriptors
            .get_mut(&id)
            .ok_or_else(|| format!("record {value:#x}"))?;
        ensure!(!p.recorded, "second record of {id}");
        ensure!(
            p.all_requested() && p.list_is_read() && p.open == 0,
            "record of {id} before its end"
        );
        ensure!(
            status == p.status,
            "descriptor {id}: status {status}, not {}",
            p.status
        );
        ensure!(
            code == p.walk.code,
            "descriptor {id}: list code {code:#x}, not {:#x}",
            p.walk.code
        );
        p.recorded = true;
        Ok(id)
    }

    /// Forgets descriptors that have their record.
    pub fn forget(&mut self) {
        let kept = |id: &u16, all: &BTreeMap<u16, Progress>| !all[id].recorded;
        self.writes.retain(|id| kept(id, &self.descriptors));
        self.reads.retain(|id| kept(id, &self.descriptors));
        self.walks.retain(|id| kept(id, &self.descriptors));
        self.descriptors.retain(|_, p| !p.recorded);
    }
}
