//! Makes a trace's calls through our API.

mod checks;
mod coherent;
mod flush;
mod iova;
mod p2p;
mod phys;
mod probes;
mod sg;
mod sync;

use std::collections::{BTreeMap, HashMap};

use tlproof_dma::{Attrs, Coherent, DeviceId, Event, SgEntry};
use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::{
    compare::Comparison,
    join::{Call, IovaAlloc, Operation},
    machine::{ENDPOINTS, Place, Plan},
    target::Target,
    traffic::{Job, Traffic},
};
use crate::{
    testbench::Error,
    trace::{self, Device},
};
use iova::State;

const PAGE: u64 = 4096;

/// One unmap in this many is followed by a probe of its address.
const PROBE_ONE_IN: u32 = 16;

/// IOVA that top-down allocation does not reach.
const NEVER_MAPPED: u64 = 0x1000_0000;

const NO_DOMAIN: &str = "no DMA domain in this profile: the device is in the identity domain";
const LOST: &str = "not replayed: the call belongs to a mapping that the trace does not have";
const SHARED: &str = "not compared: IOVA of devices that share one endpoint here";

/// A live `dma_map_phys`.
#[derive(Clone, Copy)]
struct Phys {
    dma: DmaAddr,
    place: Place,
    size: u64,
    dir: Direction,
    attrs: Attrs,
    bounced: bool,
    job: Job,
}

/// A live `dma_map_sg`.
struct List {
    entries: Vec<SgEntry>,
    dir: Direction,
    bounced: bool,
    job: Job,
    /// Kernel's address of the first segment.
    first: DmaAddr,
}

/// Live coherent memory.
enum Memory {
    One {
        memory: Coherent,
        attrs: Attrs,
        job: Job,
    },
    /// Non-contiguous in the kernel: its pages are linked into one range of IOVA.
    Pages(State, u64),
}

/// Counts for the trace's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Mappings that the kernel made.
    pub mappings: u64,
    /// Those made here too.
    pub replayed: u64,
}

/// A replay under way.
pub struct Replayer<'a, T: Target> {
    target: &'a mut T,
    plan: &'a Plan,
    /// The trace shows when flush queues are emptied.
    follows_flushes: bool,
    /// Unpromised accesses are refused, so that probes can be made.
    blocking: bool,
    /// The kernel's decisions beside ours.
    pub comparison: Comparison,
    /// The devices.
    pub traffic: Traffic<T::Probe>,
    /// What was done.
    pub counts: Counts,
    bars: [PhysAddr; ENDPOINTS],
    /// `None` stands for a mapping that the kernel made and our API did not.
    phys: BTreeMap<(Device, DmaAddr), Vec<Option<Phys>>>,
    lists: HashMap<(Device, Vec<PhysAddr>), Vec<Option<List>>>,
    memory: BTreeMap<(Device, DmaAddr), Vec<Option<Memory>>>,
    states: HashMap<(Device, u64), State>,
    /// Name and attributes of the call under way, until our event of it has been compared.
    attrs: Option<(&'static str, trace::Attrs)>,
    /// Rings that our API found full and emptied, and the trace has not yet.
    full: u64,
    last_job: u64,
}

fn attributes(attrs: trace::Attrs) -> Attrs {
    Attrs::from_bits_truncate(attrs.0 as u32)
}

const fn dram(place: Place, size: u64) -> Option<(PhysAddr, u64)> {
    match place {
        Place::Memory(phys) => Some((phys, size)),
        _ => None,
    }
}

const fn address(place: Place) -> PhysAddr {
    match place {
        Place::Memory(phys) | Place::Peer(_, phys) | Place::Elsewhere(phys) => phys,
        Place::TooLong => PhysAddr(0),
    }
}

impl<'a, T: Target> Replayer<'a, T> {
    /// A replay on `target`, whose API is fresh.
    pub fn new(
        target: &'a mut T,
        plan: &'a Plan,
        operations: &[Operation],
        (seed, blocking): (u64, bool),
    ) -> Self {
        target.parts().0.trace.set_enabled(true);
        let bars = [target.bar(0), target.bar(1), target.bar(2)];
        Self {
            target,
            plan,
            follows_flushes: operations
                .iter()
                .any(|o| matches!(o.call, Call::Flush { .. })),
            blocking,
            comparison: Comparison::default(),
            traffic: Traffic::new(seed),
            counts: Counts::default(),
            bars,
            phys: BTreeMap::new(),
            lists: HashMap::new(),
            memory: BTreeMap::new(),
            states: HashMap::new(),
            attrs: None,
            full: 0,
            last_job: 0,
        }
    }

    fn job(&mut self) -> Job {
        self.last_job += 1;
        Job(self.last_job)
    }

    fn dev(&self, f: usize) -> DeviceId {
        self.target.dev(f)
    }

    /// Whether the capture's device and ours both have a DMA domain.
    fn translated(&mut self, f: usize) -> bool {
        let dev = self.target.dev(f);
        self.plan.roles[f].translated() && self.target.parts().0.domain_of(dev).is_some()
    }

    /// Whether only the kernel's device has a DMA domain.
    fn identity_here(&mut self, f: usize) -> bool {
        self.plan.roles[f].translated() && !self.translated(f)
    }

    fn place(&self, phys: PhysAddr, size: u64) -> Place {
        self.plan.place(&self.bars, phys, size)
    }

    /// A place that calls can be made with, or `None` with a note.
    fn usable(&mut self, f: usize, phys: PhysAddr, size: u64) -> Option<Place> {
        let place = self.place(phys, size);
        match place {
            Place::Memory(_) | Place::Peer(..) => Some(place),
            Place::TooLong => {
                self.comparison.note(
                    "not replayed: peer memory longer than an endpoint's BAR",
                    || format!("{size} bytes at {phys:#x}"),
                );
                None
            }
            Place::Elsewhere(_) => {
                let role = self.plan.roles[f];
                if role.untrusted || self.plan.pool.is_some_and(|p| p.force) {
                    self.comparison.note(
                        "not replayed: would copy from neither memory nor a BAR",
                        || format!("{size} bytes at {phys:#x}"),
                    );
                    return None;
                }
                self.comparison.note(
                    "mapped without DMA: neither main memory nor a BAR of the capture",
                    || format!("{size} bytes at {phys:#x}"),
                );
                Some(place)
            }
        }
    }

    /// The DMA masks at the time of the call, as far as the trace shows them.
    fn masks(&mut self, f: usize, alloc: Option<IovaAlloc>, coherent: bool) -> Result<(), Error> {
        let Some(limit) = alloc.map(|a| a.limit).filter(|l| *l != 0) else {
            return Ok(());
        };
        let dev = self.dev(f);
        let dma = self.target.parts().0;
        let device = dma.device(dev)?;
        if coherent && device.coherent_dma_mask != limit {
            dma.dma_set_coherent_mask(dev, limit)?;
        } else if !coherent && device.dma_mask != Some(limit) {
            dma.dma_set_mask(dev, limit)?;
        }
        Ok(())
    }

    fn events(&mut self) -> Vec<Event> {
        let events = self.target.parts().0.trace.take();
        if self.follows_flushes {
            let full = |e: &&Event| matches!(e, Event::FlushAll { .. });
            self.full += events.iter().filter(full).count() as u64;
        }
        for e in &events {
            self.compare_attrs(e);
        }
        events
    }

    fn is_bounced(&mut self, f: usize, dma: DmaAddr) -> bool {
        let dev = self.dev(f);
        let mapping = self.target.parts().0.describe(dev, dma);
        mapping.is_some_and(|m| m.segments.iter().any(|s| s.bounced.is_some()))
    }

    /// Replays one call.
    ///
    /// # Errors
    /// When the machine fails; what the API refuses is a difference.
    pub fn step(&mut self, o: &Operation) -> Result<(), Error> {
        self.comparison.line = o.line;
        self.comparison.call = o.call.name();
        self.attrs = o.call.attrs();
        self.counts.mappings += u64::from(o.call.maps());
        self.target.parts().0.set_cpu(o.cpu);
        let f = match o.call.dev() {
            Some(dev) => match self.plan.endpoints.get(dev) {
                Some(f) => *f,
                None => return Ok(()),
            },
            None => 0,
        };
        match &o.call {
            Call::MapPhys {
                dev,
                phys,
                size,
                dir,
                attrs,
                dma,
                did,
            } => {
                let key = dma.map(|d| (dev.clone(), d));
                if let Some(key) = &key {
                    self.end_forgotten(f, key)?;
                }
                let result = (dma.is_some(), *dma);
                let made =
                    self.map_phys(f, (*phys, *size), *dir, attributes(*attrs), result, did)?;
                match key {
                    Some(key) => self.phys.entry(key).or_default().push(made),
                    // The driver believes that there is no mapping.
                    None => {
                        if let Some(p) = made {
                            self.unmap_phys(f, p, p.attrs, None)?;
                        }
                    }
                }
            }
            Call::UnmapPhys {
                dev,
                dma,
                size,
                dir,
                attrs,
                did,
            } => {
                let attrs = attributes(*attrs);
                match self.take_phys(dev, *dma, *size, *dir) {
                    Some(Some(p)) => self.unmap_phys(f, p, attrs, Some(did))?,
                    Some(None) => {}
                    None => self
                        .comparison
                        .note(LOST, || format!("dma_unmap_phys {dma:#x}")),
                }
            }
            Call::MapSg {
                dev,
                dir,
                attrs,
                phys,
                segments,
                did,
            } => {
                let made = self.map_sg(f, *dir, attributes(*attrs), phys, segments, did)?;
                self.lists
                    .entry((dev.clone(), phys.clone()))
                    .or_default()
                    .push(made);
            }
            Call::UnmapSg {
                dev,
                attrs,
                phys,
                did,
                ..
            } => {
                let found = self
                    .lists
                    .get_mut(&(dev.clone(), phys.clone()))
                    .and_then(Vec::pop);
                match found {
                    Some(Some(list)) => self.unmap_sg(f, list, attributes(*attrs), did)?,
                    Some(None) => {}
                    None => self.comparison.note(LOST, || "dma_unmap_sg".to_owned()),
                }
            }
            Call::Alloc {
                dev,
                dma,
                size,
                attrs,
                did,
            } => {
                let made = self.alloc(f, *dma, *size, attributes(*attrs), did)?;
                self.memory
                    .entry((dev.clone(), *dma))
                    .or_default()
                    .push(made);
            }
            Call::Free { dev, dma, did, .. } => {
                let found = self.memory.get_mut(&(dev.clone(), *dma)).and_then(Vec::pop);
                match found {
                    Some(Some(memory)) => self.free(f, memory, did)?,
                    Some(None) => {}
                    None => self.comparison.note(LOST, || format!("dma_free {dma:#x}")),
                }
            }
            Call::Sync {
                dev,
                dma,
                size,
                dir,
                for_cpu,
            } => {
                self.sync(f, dev, (*dma, *size), *dir, *for_cpu)?;
            }
            Call::SyncSg {
                dev,
                dma,
                dir,
                for_cpu,
            } => {
                self.sync_sg(f, dev, *dma, *dir, *for_cpu)?;
            }
            Call::TryAlloc {
                dev,
                state,
                phys,
                size,
                iova,
                did,
            } => {
                self.try_alloc(f, (dev, *state), (*phys, *size), *iova, did)?;
            }
            Call::Link {
                dev,
                state,
                phys,
                offset,
                size,
                dir,
                attrs,
                ret,
                did,
            } => {
                let range = (*phys, *offset, *size);
                self.link(
                    f,
                    (dev, *state),
                    range,
                    (*dir, attributes(*attrs)),
                    *ret,
                    did,
                )?;
            }
            Call::IovaSync {
                dev,
                state,
                offset,
                size,
            } => {
                self.iova_sync(f, (dev, *state), *offset, *size)?;
            }
            Call::Unlink {
                dev,
                state,
                offset,
                size,
                dir,
                attrs,
            } => {
                let range = (*offset, *size);
                self.unlink(f, (dev, *state), range, (*dir, attributes(*attrs)))?;
            }
            Call::IovaFree { dev, state } => {
                if let Some(s) = self.states.remove(&(dev.clone(), *state))
                    && let Some(mut iova) = s.iova
                {
                    let dev = self.dev(f);
                    self.target.called();
                    self.target.parts().0.dma_iova_free(dev, &mut iova);
                    self.events();
                }
            }
            Call::Destroy {
                dev,
                state,
                mapped,
                bounced,
                dir,
                attrs,
                did,
            } => {
                let how = (*dir, attributes(*attrs));
                self.destroy(f, (dev, *state), (*mapped, *bounced), how, did)?;
            }
            Call::P2p { page, map, .. } => self.p2p(f, *page, *map)?,
            Call::Flush { devices, part } => self.flush(devices, *part),
            Call::Skip { why, what } => self.comparison.note(why, || what.clone()),
        }
        if !self.follows_flushes {
            self.target.timers();
            self.events();
        }
        if self.blocking && self.traffic.one_in(256) {
            self.probe_nowhere(f)?;
        }
        self.traffic.breathe(self.target)
    }

    /// Whether so much failed that the rest is pointless.
    pub fn stop(&self) -> bool {
        self.target.stop()
    }

    /// Waits for everything and looks at what is left.
    ///
    /// # Errors
    /// When the machine fails.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.traffic.finish(self.target)?;
        self.compare_full_rings();
        self.target.parts().0.trace.set_enabled(false);
        self.events();
        Ok(())
    }
}
