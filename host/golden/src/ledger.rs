//! The ledger of mapping calls: what each promised, and whether the promise holds now.
//!
//! The ledger never looks at a page table.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::FxHashMap;
use serde::Serialize;
use tlproof_pcie::{Bdf, BusAddr, Direction, DmaAddr, MemType, PhysAddr};

/// What stands behind a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum MemoryKind {
    /// Main memory.
    Dram,
    /// Registers or memory of a device, interrupt files included.
    Mmio,
}

/// The way that accesses take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Route {
    /// To the memory port, interrupt files included.
    Memory,
    /// To a peer, through the host bridge.
    PeerThroughBridge,
    /// To a peer below the same switch, by its bus address.
    PeerBusAddress,
}

impl Route {
    /// The name that reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::PeerThroughBridge => "peer through the bridge",
            Self::PeerBusAddress => "peer below the switch",
        }
    }
}

/// What a mapping call promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// The device that may access.
    pub device: Bdf,
    /// First byte as the device addresses it.
    pub dma: DmaAddr,
    /// Bytes.
    pub size: u64,
    /// Target bytes in order: start and length.
    pub segments: Vec<(PhysAddr, u64)>,
    /// Direction.
    pub direction: Direction,
    /// What stands behind it.
    pub kind: MemoryKind,
    /// Memory type of the accesses.
    pub expect: MemType,
    /// Accesses that are write-back look into the CPU caches.
    pub snoop: bool,
    /// The way that accesses take.
    pub route: Route,
    /// The mapping is an entry of an IOMMU.
    pub via_iommu: bool,
    /// The mapping call, for reports.
    pub call: String,
}

impl Promise {
    /// Whether the `len` bytes at `addr` are all promised.
    #[must_use]
    pub fn covers(&self, addr: BusAddr, len: u64) -> bool {
        addr.0
            .checked_sub(self.dma.0)
            .is_some_and(|o| o < self.size && len <= self.size - o)
    }

    /// The target of one promised byte.
    #[must_use]
    pub fn target(&self, addr: BusAddr) -> Option<PhysAddr> {
        let mut left = addr.0.checked_sub(self.dma.0)?;
        for (start, len) in &self.segments {
            if left < *len {
                return Some(start.offset(left));
            }
            left -= len;
        }
        None
    }

    fn last(&self) -> u64 {
        self.dma.0.saturating_add(self.size - 1)
    }

    const fn allows(&self, write: bool) -> bool {
        if write {
            self.direction.device_writes()
        } else {
            self.direction.device_reads()
        }
    }
}

/// Names a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PromiseId(u64);

/// Names a declared probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RogueId(u64);

/// Age of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Accesses are promised.
    Live,
    /// Unmap has begun: an access may go either way.
    Ending,
    /// No access may arrive.
    Gone,
}

struct Record {
    promise: Promise,
    state: State,
    serial: u64,
    /// TLPs under way that refer to it, and one for its place in the ledger.
    refs: u32,
}

/// Promises of one device by the logarithm of their size, in order of their first bytes: within a
/// class only few neighbours can cover an address.
#[derive(Default)]
struct Device {
    classes: u64,
    starts: Vec<BTreeSet<(u64, u32)>>,
}

/// A declared probe.
struct Rogue {
    id: RogueId,
    requester: Bdf,
    addr: BusAddr,
    len: u64,
    write: bool,
}

/// Why a request is not promised.
pub(crate) struct Refusal {
    pub field: &'static str,
    pub expected: String,
    pub call: Option<String>,
}

/// Ended promises that are kept to explain late accesses.
const REMEMBERED: usize = 1024;

/// The ledger.
#[derive(Default)]
pub(crate) struct Ledger {
    records: Vec<Record>,
    free: Vec<u32>,
    devices: FxHashMap<Bdf, Device>,
    gone: VecDeque<u32>,
    rogues: Vec<Rogue>,
    serial: u64,
}

impl Ledger {
    pub fn promise(&mut self, mut promise: Promise) -> PromiseId {
        promise.size = promise.size.max(1);
        self.serial += 1;
        let serial = self.serial & 0xffff_ffff;
        let (device, dma, class) = (promise.device, promise.dma.0, class_of(promise.size));
        let record = Record {
            promise,
            state: State::Live,
            serial,
            refs: 1,
        };
        let slot = if let Some(slot) = self.free.pop() {
            self.records[slot as usize] = record;
            slot
        } else {
            self.records.push(record);
            self.records.len() as u32 - 1
        };
        let device = self.devices.entry(device).or_default();
        if device.starts.len() <= class {
            device.starts.resize_with(class + 1, BTreeSet::new);
        }
        device.starts[class].insert((dma, slot));
        device.classes |= 1 << class;
        PromiseId(serial << 32 | u64::from(slot))
    }

    fn slot(&self, id: PromiseId) -> Option<u32> {
        let slot = id.0 as u32;
        let r = self.records.get(slot as usize)?;
        (r.serial == id.0 >> 32 && r.refs != 0).then_some(slot)
    }

    /// Returns whether the promise was live.
    pub fn revoke_begin(&mut self, id: PromiseId) -> bool {
        let Some(slot) = self.slot(id) else {
            return false;
        };
        let r = &mut self.records[slot as usize];
        if r.state != State::Live {
            return false;
        }
        r.state = State::Ending;
        true
    }

    /// Returns whether the promise was not yet gone.
    pub fn revoke_end(&mut self, id: PromiseId) -> bool {
        let Some(slot) = self.slot(id) else {
            return false;
        };
        let r = &mut self.records[slot as usize];
        if r.state == State::Gone {
            return false;
        }
        r.state = State::Gone;
        let class = class_of(r.promise.size);
        if let Some(d) = self.devices.get_mut(&r.promise.device) {
            d.starts[class].remove(&(r.promise.dma.0, slot));
            if d.starts[class].is_empty() {
                d.classes &= !(1 << class);
            }
        }
        self.gone.push_back(slot);
        if self.gone.len() > REMEMBERED
            && let Some(old) = self.gone.pop_front()
        {
            self.release(old);
        }
        true
    }

    /// A TLP under way refers to the promise.
    pub fn hold(&mut self, slot: u32) {
        self.records[slot as usize].refs += 1;
    }

    /// It no longer does.
    pub fn release(&mut self, slot: u32) {
        let r = &mut self.records[slot as usize];
        r.refs -= 1;
        if r.refs == 0 {
            self.free.push(slot);
        }
    }

    pub fn get(&self, slot: u32) -> &Promise {
        &self.records[slot as usize].promise
    }

    pub fn state(&self, slot: u32) -> State {
        self.records[slot as usize].state
    }

    /// Calls `f` for every promise of `device` that is not gone and overlaps the range, until it
    /// returns true.
    fn overlapping(
        &self,
        device: Bdf,
        addr: u64,
        len: u64,
        mut f: impl FnMut(u32, &Record) -> bool,
    ) {
        let Some(d) = self.devices.get(&device) else {
            return;
        };
        let last = addr.saturating_add(len.max(1) - 1);
        let mut classes = d.classes;
        while classes != 0 {
            let class = classes.trailing_zeros() as usize;
            classes &= classes - 1;
            let from = addr.saturating_sub(u64::MAX >> (63 - class));
            for (_, slot) in d.starts[class].range((from, 0)..=(last, u32::MAX)).rev() {
                let r = &self.records[*slot as usize];
                if r.promise.last() >= addr && f(*slot, r) {
                    return;
                }
            }
        }
    }

    /// The promise that allows a request: live ones before ending ones.
    pub fn find(&self, device: Bdf, addr: BusAddr, len: u64, write: bool) -> Option<u32> {
        let mut found = None;
        self.overlapping(device, addr.0, len, |slot, r| {
            if r.promise.covers(addr, len) && r.promise.allows(write) {
                found = Some(slot);
                return r.state == State::Live;
            }
            false
        });
        found
    }

    /// Why [`Ledger::find`] found nothing.
    pub fn explain(&self, device: Bdf, addr: BusAddr, len: u64) -> Refusal {
        let mut refusal = None;
        self.overlapping(device, addr.0, len, |_, r| {
            let p = &r.promise;
            let covers = p.covers(addr, len);
            let (field, expected) = if covers {
                ("direction", format!("{} only", p.direction.name()))
            } else {
                let within = format!("within {} to {:#x}", p.dma, p.last());
                ("address", within)
            };
            refusal = Some(Refusal {
                field,
                expected,
                call: Some(p.call.clone()),
            });
            covers
        });
        let ended = || {
            let gone = self.gone.iter().rev().map(|s| self.get(*s));
            let p = gone
                .into_iter()
                .find(|p| p.device == device && p.covers(addr, len))?;
            Some(Refusal {
                field: "state",
                expected: "no access after unmap".to_owned(),
                call: Some(p.call.clone()),
            })
        };
        refusal.or_else(ended).unwrap_or_else(|| Refusal {
            field: "address",
            expected: format!("an address mapped for {device}"),
            call: None,
        })
    }

    /// Whether the IOMMU entry of a mapping that is not gone lets the device reach the granules of
    /// an access.
    pub fn granule_reachable(
        &self,
        device: Bdf,
        (addr, len): (BusAddr, u64),
        granule: u64,
        write: bool,
        write_implies_read: bool,
    ) -> bool {
        let first = addr.0 & !(granule - 1);
        let last = addr.0.saturating_add(len.max(1) - 1) | (granule - 1);
        let mut found = false;
        self.overlapping(device, first, (last - first).saturating_add(1), |_, r| {
            let p = &r.promise;
            let entry =
                p.allows(write) || (!write && write_implies_read && p.direction.device_writes());
            found = p.via_iommu && entry;
            found
        });
        found
    }

    pub fn expect_rogue(
        &mut self,
        requester: Bdf,
        addr: BusAddr,
        len: u64,
        write: bool,
    ) -> RogueId {
        self.serial += 1;
        let id = RogueId(self.serial);
        self.rogues.push(Rogue {
            id,
            requester,
            addr,
            len,
            write,
        });
        id
    }

    pub fn rogue_done(&mut self, id: RogueId) {
        self.rogues.retain(|r| r.id != id);
    }

    pub fn is_rogue(&self, requester: Bdf, addr: BusAddr, len: u64, write: bool) -> bool {
        self.rogues.iter().any(|r| {
            let within = |o: u64| o < r.len && len <= r.len - o;
            r.requester == requester
                && r.write == write
                && addr.0.checked_sub(r.addr.0).is_some_and(within)
        })
    }
}

const fn class_of(size: u64) -> usize {
    size.ilog2() as usize
}

#[cfg(test)]
mod tests;
