//! Makes a trace's calls through our API.

use std::collections::{BTreeMap, HashMap};

use tlproof_dma::{
    Attrs, Coherent, DeviceId, Event, IovaState, MapError, SgEntry, iommu::IommuError,
    p2pdma::MapType,
};
use tlproof_pcie::{Direction, DmaAddr, PhysAddr, config::ConfigSpace};

use super::{
    compare::Comparison,
    join::{Call, IovaAlloc, Mapped, Operation, Unmapped, sg_lengths},
    machine::{ENDPOINTS, Place, Plan},
    target::Target,
    traffic::{Job, Runs, Span, Traffic, Wish},
};
use crate::{
    testbench::Error,
    trace::{self, Device, P2pMap},
};

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

/// A live two-step mapping.
struct State {
    /// `None`: our API refused and every range is mapped by itself.
    iova: Option<IovaState>,
    /// Linked and not yet promised: offset and size.
    fresh: Vec<(u64, u64)>,
    /// Promised.
    pieces: Vec<(u64, u64)>,
    /// Transfers for when the state is synced.
    wishes: Vec<(Span, Runs, Wish)>,
    /// Ranges mapped by themselves.
    single: Vec<Phys>,
    bounced: bool,
    job: Job,
}

impl State {
    const fn new(iova: Option<IovaState>, job: Job) -> Self {
        Self {
            iova,
            fresh: Vec::new(),
            pieces: Vec::new(),
            wishes: Vec::new(),
            single: Vec::new(),
            bounced: false,
            job,
        }
    }
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
    last_job: u64,
}

fn attributes(attrs: trace::Attrs) -> Attrs {
    Attrs::from_bits_truncate(attrs.0 as u32)
}

fn show_dma(dma: &DmaAddr) -> String {
    format!("{dma:#x}")
}

/// Whether an error says that the machine, not the caller, is at fault.
const fn is_hardware(e: &MapError) -> bool {
    matches!(
        e,
        MapError::Iommu(IommuError::Io(_) | IommuError::Timeout(_) | IommuError::Busy)
    )
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
                .any(|o| matches!(o.call, Call::FlushQueue)),
            blocking,
            comparison: Comparison::default(),
            traffic: Traffic::new(seed),
            counts: Counts::default(),
            bars,
            phys: BTreeMap::new(),
            lists: HashMap::new(),
            memory: BTreeMap::new(),
            states: HashMap::new(),
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
        self.target.parts().0.trace.take()
    }

    /// Compares whether a call that maps succeeded; the value, if both did.
    fn outcome<V>(&mut self, kernel: bool, ours: Result<V, MapError>) -> Result<Option<V>, Error> {
        match ours {
            Ok(v) => {
                self.comparison.check(
                    &kernel,
                    &true,
                    "a call that failed in the kernel succeeds here",
                    |ok| if *ok { "succeeds" } else { "fails" }.to_owned(),
                );
                Ok(Some(v))
            }
            Err(e) if is_hardware(&e) => Err(e.into()),
            Err(e) => {
                let reason = format!("the call is refused here: {e}");
                self.comparison.check(&kernel, &false, &reason, |ok| {
                    if *ok { "succeeds" } else { "fails" }.to_owned()
                });
                Ok(None)
            }
        }
    }

    /// Compares what a call that maps did inside.
    fn compare_mapped(&mut self, f: usize, kernel: &Mapped, phys: (PhysAddr, PhysAddr)) {
        let events = self.events();
        if self.identity_here(f) {
            self.comparison
                .check(&true, &false, NO_DOMAIN, |translated| {
                    if *translated {
                        "translated"
                    } else {
                        "not translated"
                    }
                    .to_owned()
                });
            return;
        }
        self.comparison.mapped(kernel, &events, phys);
    }

    /// Compares an IOVA, if the two allocators have seen the same requests.
    fn compare_iova(&mut self, f: usize, kernel: DmaAddr, ours: DmaAddr) {
        if !self.translated(f) {
            return;
        }
        if self.plan.roles[f].devices > 1 {
            let devices = self.plan.roles[f].devices;
            self.comparison
                .note(SHARED, || format!("{devices} devices on endpoint {f}"));
            return;
        }
        let reason = if self.plan.roles[f].attach == tlproof_dma::Attach::Lazy {
            "IOVA: freed ranges come back in another order, all flush queues are emptied at once"
        } else {
            "IOVA: another free range is taken, caches of free ranges are trimmed by a timer"
        };
        self.comparison.check(&kernel, &ours, reason, show_dma);
    }

    fn compare_unmapped(&mut self, f: usize, kernel: &Unmapped) {
        let events = self.events();
        if self.identity_here(f) {
            return;
        }
        let strict = self.plan.roles[f].attach == tlproof_dma::Attach::Strict
            || self.plan.roles[f].untrusted;
        self.comparison.unmapped(kernel, &events, strict);
    }

    /// Whether an address without translation is the buffer's.
    fn compare_direct(
        &mut self,
        f: usize,
        kernel: (PhysAddr, DmaAddr),
        ours: (PhysAddr, DmaAddr),
        bounced: bool,
    ) {
        if self.plan.roles[f].translated() || bounced {
            return;
        }
        self.comparison.check(
            &kernel.1.0.wrapping_sub(kernel.0.0),
            &ours.1.0.wrapping_sub(ours.0.0),
            "DMA address without translation",
            |v| format!("physical address + {v:#x}"),
        );
    }

    /// Replays one call.
    ///
    /// # Errors
    /// When the machine fails; what the API refuses is a difference.
    pub fn step(&mut self, o: &Operation) -> Result<(), Error> {
        self.comparison.line = o.line;
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
            Call::FlushQueue => {
                self.target.flush();
                self.events();
            }
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
        self.target.parts().0.trace.set_enabled(false);
        self.events();
        Ok(())
    }

    fn map_phys(
        &mut self,
        f: usize,
        (phys, size): (PhysAddr, u64),
        dir: Direction,
        attrs: Attrs,
        // Whether it succeeded, and the address if there was such a call.
        (succeeds, kernel): (bool, Option<DmaAddr>),
        did: &Mapped,
    ) -> Result<Option<Phys>, Error> {
        let Some(place) = self.usable(f, phys, size) else {
            return Ok(None);
        };
        self.masks(f, did.alloc, false)?;
        let (here, runs) = (address(place), Vec::from_iter(dram(place, size)));
        let wish = match place {
            Place::Elsewhere(_) => None,
            _ => self.traffic.wish(size, dir),
        };
        self.traffic.prepare(self.target, &runs, wish)?;
        let dev = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        let result = dma.dma_map_phys(m, dev, here, size, dir, attrs);
        let Some(dma) = self.outcome(succeeds, result)? else {
            self.events();
            return Ok(None);
        };
        self.counts.replayed += 1;
        let bdf = self.target.bdf(f);
        self.target.promise(
            f,
            dma,
            format!(
                "dma_map_phys({bdf}, phys={here:#x}, size={size}, dir={}, attrs={attrs}) = {dma:#x}",
                dir.name()
            ),
        );
        self.compare_mapped(f, did, (phys, here));
        let bounced = self.is_bounced(f, dma);
        if let Some(kernel) = kernel {
            self.compare_iova(f, kernel, dma);
            self.compare_direct(f, (phys, kernel), (here, dma), bounced);
        }
        let job = self.job();
        let spans = [Span { dma, len: size }];
        self.traffic
            .start(self.target, (f, job), &spans, &runs, wish, bounced)?;
        // Against the direction: behind an IOMMU the table says no.
        if self.blocking && dir == Direction::ToDevice && self.traffic.one_in(128) {
            self.traffic.probe(self.target, f, dma, size, true)?;
        }
        Ok(Some(Phys {
            dma,
            place,
            size,
            dir,
            attrs,
            bounced,
            job,
        }))
    }

    /// Ends what is still mapped at an address that is mapped again: without translation and bounce
    /// slot drivers need not unmap, and some do not.
    fn end_forgotten(&mut self, f: usize, key: &(Device, DmaAddr)) -> Result<(), Error> {
        if self.translated(f) {
            return Ok(());
        }
        let Some(at) = self.phys.get_mut(key) else {
            return Ok(());
        };
        // An unmap may follow yet: nothing is left for it to do.
        let forgotten = |p: &mut Option<Phys>| p.take_if(|p| !p.bounced);
        for p in at.iter_mut().filter_map(forgotten).collect::<Vec<_>>() {
            self.comparison.note(
                "mapped again without unmap, which needs none: the older mapping is ended first",
                || format!("{} bytes at {:#x}", p.size, p.dma),
            );
            self.unmap_phys(f, p, p.attrs, None)?;
        }
        Ok(())
    }

    fn is_bounced(&mut self, f: usize, dma: DmaAddr) -> bool {
        let dev = self.dev(f);
        let mapping = self.target.parts().0.describe(dev, dma);
        mapping.is_some_and(|m| m.segments.iter().any(|s| s.bounced.is_some()))
    }

    /// The mapping that an unmap is for: of those at the address the youngest that fits best, as
    /// older ones may be mappings that need no unmap and got none.
    fn take_phys(
        &mut self,
        dev: &Device,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    ) -> Option<Option<Phys>> {
        let key = (dev.clone(), dma);
        let at = self.phys.get_mut(&key)?;
        let best = (0..at.len()).max_by_key(|i| match &at[*i] {
            Some(p) => (p.size == size && p.dir == dir, *i),
            None => (false, *i),
        })?;
        let found = at.remove(best);
        if at.is_empty() {
            self.phys.remove(&key);
        }
        Some(found)
    }

    fn unmap_phys(
        &mut self,
        f: usize,
        p: Phys,
        attrs: Attrs,
        did: Option<&Unmapped>,
    ) -> Result<(), Error> {
        let span = Span {
            dma: p.dma,
            len: p.size,
        };
        self.traffic.leave(self.target, (f, p.job), &[span])?;
        // Nothing orders a posted write to a peer before the end of a mapping that is not
        // translated, but for the time that the device's interrupt takes.
        if matches!(p.place, Place::Peer(..)) && p.dir.device_writes() && !self.translated(f) {
            self.target.settle()?;
        }
        let dev = self.dev(f);
        let ending = self.target.revoke_begin(f, p.dma, p.size);
        self.target.called();
        let (dma, m) = self.target.parts();
        dma.dma_unmap_phys(m, dev, p.dma, p.size, p.dir, attrs);
        self.target.revoke_end(ending);
        match did {
            Some(did) => self.compare_unmapped(f, did),
            None => drop(self.events()),
        }
        let runs = Vec::from_iter(dram(p.place, p.size));
        self.returned(p.job, &runs, p.dir, attrs, p.bounced);
        self.probe_after(f, p.dma, p.size)
    }

    /// The buffer belongs to the CPU again.
    fn returned(
        &mut self,
        job: Job,
        runs: &[(PhysAddr, u64)],
        dir: Direction,
        attrs: Attrs,
        bounced: bool,
    ) {
        if bounced {
            if attrs.contains(Attrs::SKIP_CPU_SYNC) {
                self.traffic.forget(job);
                return;
            }
            if dir.device_writes() {
                // The whole slot was copied out.
                self.traffic.overwritten(runs, Some(job));
            }
        }
        self.traffic.look(self.target, job, None);
    }

    /// The device goes on to use an address after its unmap, where that must be refused.
    fn probe_after(&mut self, f: usize, dma: DmaAddr, size: u64) -> Result<(), Error> {
        let strict = self.plan.roles[f].attach == tlproof_dma::Attach::Strict;
        if self.blocking && strict && self.traffic.one_in(PROBE_ONE_IN) {
            let write = self.traffic.coin();
            self.traffic.probe(self.target, f, dma, size, write)?;
        }
        Ok(())
    }

    fn probe_nowhere(&mut self, f: usize) -> Result<(), Error> {
        let addr = DmaAddr(NEVER_MAPPED + PAGE * self.traffic.below(0x1000));
        let (write, len) = (self.traffic.coin(), 1 + self.traffic.below(64));
        self.traffic.probe(self.target, f, addr, len, write)
    }

    fn map_sg(
        &mut self,
        f: usize,
        dir: Direction,
        attrs: Attrs,
        phys: &[PhysAddr],
        segments: &[(DmaAddr, u64)],
        did: &Mapped,
    ) -> Result<Option<List>, Error> {
        let Some(lengths) = sg_lengths(phys, segments, &did.tables) else {
            self.comparison.note(
                "not replayed: lengths of a scatterlist cannot be told from its events",
                || format!("{} entries", phys.len()),
            );
            return Ok(None);
        };
        let mut entries = Vec::with_capacity(phys.len());
        let mut runs = Runs::new();
        let mut memory = true;
        for (phys, len) in phys.iter().zip(lengths) {
            let Some(place) = self.usable(f, *phys, len) else {
                return Ok(None);
            };
            entries.push(SgEntry::new(address(place), len));
            runs.extend(dram(place, len));
            memory &= matches!(place, Place::Memory(_));
        }
        let list = self.map_list(f, (dir, attrs), entries, runs, memory, did)?;
        let Some((list, n)) = list else {
            return Ok(None);
        };
        let segment = |first: DmaAddr, dma: DmaAddr, len: u64| (dma.0.wrapping_sub(first.0), len);
        if self.plan.roles[f].translated() {
            let ours = &list.entries[..n];
            let first = ours[0].dma_address;
            let theirs: Vec<_> = segments
                .iter()
                .map(|(d, l)| segment(segments[0].0, *d, *l))
                .collect();
            let ours: Vec<_> = ours
                .iter()
                .map(|e| segment(first, e.dma_address, e.dma_length))
                .collect();
            if !self.identity_here(f) {
                self.comparison
                    .check(&theirs, &ours, "segments of a scatterlist", |v| {
                        format!("{v:x?}")
                    });
            }
            self.compare_iova(f, segments[0].0, first);
        } else {
            for i in 0..n.min(segments.len()) {
                let e = list.entries[i];
                let (kernel, ours) = ((phys[i], segments[i].0), (e.phys, e.dma_address));
                self.compare_direct(f, kernel, ours, list.bounced);
            }
            let theirs: Vec<u64> = segments.iter().map(|s| s.1).collect();
            let ours: Vec<u64> = list.entries[..n].iter().map(|e| e.dma_length).collect();
            self.comparison
                .check(&theirs, &ours, "segments of a scatterlist", |v| {
                    format!("{v:?}")
                });
        }
        Ok(Some(List {
            first: segments[0].0,
            ..list
        }))
    }

    /// Maps a list and lets the device use it; also returns the number of segments.
    fn map_list(
        &mut self,
        f: usize,
        (dir, attrs): (Direction, Attrs),
        mut entries: Vec<SgEntry>,
        runs: Runs,
        memory: bool,
        did: &Mapped,
    ) -> Result<Option<(List, usize)>, Error> {
        self.masks(f, did.alloc, false)?;
        let total = entries.iter().map(|e| e.length).sum();
        let wish = if memory {
            self.traffic.wish(total, dir)
        } else {
            None
        };
        self.traffic.prepare(self.target, &runs, wish)?;
        let dev = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        let result = dma.dma_map_sg(m, dev, &mut entries, dir, attrs);
        let Some(n) = self.outcome(true, result)? else {
            self.events();
            return Ok(None);
        };
        self.counts.replayed += 1;
        self.compare_mapped(f, did, (PhysAddr(0), PhysAddr(0)));
        let bdf = self.target.bdf(f);
        let segments: Vec<_> = entries[..n]
            .iter()
            .map(|e| Span {
                dma: e.dma_address,
                len: e.dma_length,
            })
            .collect();
        for (i, s) in segments.iter().enumerate() {
            let call = format!(
                "dma_map_sg({bdf}, {} entries, dir={}, attrs={attrs}), segment {i}: {:#x}+{}",
                entries.len(),
                dir.name(),
                s.dma,
                s.len
            );
            self.target.promise(f, s.dma, call);
        }
        let bounced = self.is_bounced(f, segments.first().map_or(DmaAddr(0), |s| s.dma));
        let job = self.job();
        self.traffic
            .start(self.target, (f, job), &segments, &runs, wish, bounced)?;
        let first = DmaAddr(0);
        Ok(Some((
            List {
                entries,
                dir,
                bounced,
                job,
                first,
            },
            n,
        )))
    }

    fn unmap_sg(
        &mut self,
        f: usize,
        mut list: List,
        attrs: Attrs,
        did: &Unmapped,
    ) -> Result<(), Error> {
        let runs: Runs = list.entries.iter().map(|e| (e.phys, e.length)).collect();
        let segments: Vec<_> = list
            .entries
            .iter()
            .take_while(|e| e.dma_length != 0)
            .map(|e| (e.dma_address, e.dma_length))
            .collect();
        let spans: Vec<_> = segments
            .iter()
            .map(|(dma, len)| Span {
                dma: *dma,
                len: *len,
            })
            .collect();
        self.traffic.leave(self.target, (f, list.job), &spans)?;
        let endings: Vec<_> = segments
            .iter()
            .map(|(dma, len)| self.target.revoke_begin(f, *dma, *len))
            .collect();
        let dev = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        dma.dma_unmap_sg(m, dev, &mut list.entries, list.dir, attrs);
        for ending in endings {
            self.target.revoke_end(ending);
        }
        self.compare_unmapped(f, did);
        self.returned(list.job, &runs, list.dir, attrs, list.bounced);
        match segments.first() {
            Some((dma, len)) => self.probe_after(f, *dma, *len),
            None => Ok(()),
        }
    }

    fn alloc(
        &mut self,
        f: usize,
        kernel: DmaAddr,
        size: u64,
        attrs: Attrs,
        did: &Mapped,
    ) -> Result<Option<Memory>, Error> {
        let translated = self.plan.roles[f].translated();
        let phys = match did.tables.as_slice() {
            [] if translated => {
                self.comparison.note(
                    "not replayed: coherent memory of which the trace does not say where it is",
                    || format!("{size} bytes"),
                );
                return Ok(None);
            }
            [] => PhysAddr(kernel.0),
            [one] => one.phys,
            _ => return self.alloc_pages(f, kernel, attrs, did),
        };
        let pages = size.next_multiple_of(PAGE);
        if !matches!(self.place(phys, pages), Place::Memory(_)) {
            self.comparison.note(
                "not replayed: coherent memory outside of main memory",
                || format!("{size} bytes at {phys:#x}"),
            );
            return Ok(None);
        }
        self.masks(f, did.alloc, true)?;
        let runs = vec![(phys, size)];
        self.traffic.settle(self.target, &[(phys, pages)])?;
        self.traffic.overwritten(&[(phys, pages)], None);
        let dev = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        let result = dma.dma_alloc_at(m, dev, phys, size, attrs);
        let Some(memory) = self.outcome(kernel.0 != 0, result)? else {
            self.events();
            return Ok(None);
        };
        self.counts.replayed += 1;
        let bdf = self.target.bdf(f);
        let call = format!(
            "dma_alloc_attrs({bdf}, size={size}, attrs={attrs}) = {:#x}",
            memory.dma
        );
        self.target.promise(f, memory.dma, call);
        self.compare_mapped(f, did, (phys, phys));
        self.compare_iova(f, kernel, memory.dma);
        self.compare_direct(f, (phys, kernel), (phys, memory.dma), false);
        let job = self.job();
        // The CPU can write at any time; here it has, before the device looks.
        let wish = self.traffic.wish(size, Direction::Bidirectional);
        self.traffic.prepare(self.target, &runs, wish)?;
        let spans = [Span {
            dma: memory.dma,
            len: size,
        }];
        self.traffic
            .start(self.target, (f, job), &spans, &runs, wish, false)?;
        Ok(Some(Memory::One { memory, attrs, job }))
    }

    /// Memory that the kernel put together from pages: contiguous for the device only. Our API has
    /// contiguous memory alone, so the pages are linked into one range.
    fn alloc_pages(
        &mut self,
        f: usize,
        kernel: DmaAddr,
        attrs: Attrs,
        did: &Mapped,
    ) -> Result<Option<Memory>, Error> {
        let runs: Runs = did.tables.iter().map(|t| (t.phys, t.size)).collect();
        let total = runs.iter().map(|(_, n)| n).sum();
        self.comparison.note(
            "coherent memory that is not contiguous: its pages are linked into one range",
            || format!("{} runs, {total} bytes", runs.len()),
        );
        let memory = |(p, n): &(PhysAddr, u64)| matches!(self.place(*p, *n), Place::Memory(_));
        if !runs.iter().all(memory) {
            return Ok(None);
        }
        self.masks(f, did.alloc, false)?;
        let id = self.dev(f);
        self.target.called();
        let Some(iova) = self
            .target
            .parts()
            .0
            .dma_iova_try_alloc(id, runs[0].0, total)
        else {
            self.compare_mapped(f, did, (PhysAddr(0), PhysAddr(0)));
            return Ok(None);
        };
        let mut s = State::new(Some(iova), self.job());
        let mut events = self.events();
        let mut at = 0;
        for (phys, size) in runs {
            let how = (Direction::Bidirectional, attrs);
            if !self.link_range(f, &mut s, (phys, at, size), how, true)? {
                break;
            }
            events.append(&mut self.events());
            at += size;
        }
        self.comparison
            .mapped(did, &events, (PhysAddr(0), PhysAddr(0)));
        self.compare_iova(f, kernel, iova.addr());
        self.sync_state(f, &mut s, (0, at))?;
        self.counts.replayed += 1;
        Ok(Some(Memory::Pages(s, at)))
    }

    fn free(&mut self, f: usize, memory: Memory, did: &Unmapped) -> Result<(), Error> {
        match memory {
            Memory::Pages(state, mapped) => {
                let how = (Direction::Bidirectional, Attrs::empty());
                self.destroy_state(f, state, (mapped, false), how, did)
            }
            Memory::One { memory, attrs, job } => {
                let span = Span {
                    dma: memory.dma,
                    len: memory.size,
                };
                self.traffic.leave(self.target, (f, job), &[span])?;
                let ending = self.target.revoke_begin(f, memory.dma, memory.size);
                let dev = self.dev(f);
                self.target.called();
                let (dma, m) = self.target.parts();
                dma.dma_free_attrs(m, dev, memory, attrs);
                self.target.revoke_end(ending);
                self.compare_unmapped(f, did);
                self.traffic.look(self.target, job, None);
                self.probe_after(f, memory.dma, memory.size)
            }
        }
    }

    fn sync(
        &mut self,
        f: usize,
        dev: &Device,
        (dma, size): (DmaAddr, u64),
        dir: Direction,
        for_cpu: bool,
    ) -> Result<(), Error> {
        let found = self
            .phys
            .range((dev.clone(), DmaAddr(0))..=(dev.clone(), dma))
            .rev()
            .take(256)
            .find_map(|((_, start), at)| {
                let offset = dma.0 - start.0;
                let fits = |p: &&Phys| offset < p.size && size <= p.size - offset;
                at.iter().rev().flatten().find(fits).map(|p| (*p, offset))
            });
        let Some((p, offset)) = found else {
            self.comparison.note(LOST, || format!("sync of {dma:#x}"));
            return Ok(());
        };
        let (ours, id) = (p.dma.offset(offset), self.dev(f));
        self.traffic.complete(self.target, p.job)?;
        self.target.called();
        let (api, m) = self.target.parts();
        if for_cpu {
            api.dma_sync_single_for_cpu(m, id, ours, size, dir);
        } else {
            api.dma_sync_single_for_device(m, id, ours, size, dir);
        }
        self.compare_sync();
        if for_cpu {
            if p.bounced
                && dir.device_writes()
                && let Some((phys, _)) = dram(p.place, p.size)
            {
                self.traffic
                    .overwritten(&[(phys.offset(offset), size)], Some(p.job));
            }
            self.traffic.look(self.target, p.job, Some((ours, size)));
        } else if let Some((phys, _)) = dram(p.place, p.size) {
            // The buffer is the device's again, and may be used again.
            let wish = match dir {
                Direction::FromDevice => self.traffic.wish(size, dir),
                _ => None,
            };
            let (spans, runs) = (
                [Span {
                    dma: ours,
                    len: size,
                }],
                [(phys.offset(offset), size)],
            );
            self.traffic
                .start(self.target, (f, p.job), &spans, &runs, wish, p.bounced)?;
        }
        Ok(())
    }

    /// The kernel does not trace a sync that it skips.
    fn compare_sync(&mut self) {
        let events = self.events();
        let done = events.iter().any(|e| {
            matches!(
                e,
                Event::SyncSingleForCpu { .. }
                    | Event::SyncSingleForDevice { .. }
                    | Event::SyncSgForCpu { .. }
                    | Event::SyncSgForDevice { .. }
            )
        });
        self.comparison
            .check(&true, &done, "whether a sync can be skipped", |done| {
                if *done { "done" } else { "skipped" }.to_owned()
            });
    }

    fn sync_sg(
        &mut self,
        f: usize,
        dev: &Device,
        first: DmaAddr,
        dir: Direction,
        for_cpu: bool,
    ) -> Result<(), Error> {
        let found = self
            .lists
            .iter()
            .filter(|((d, _), _)| d == dev)
            .flat_map(|(_, lists)| lists.iter().flatten())
            .find(|l| l.first == first)
            .map(|l| (l.entries.clone(), l.job));
        let Some((entries, job)) = found else {
            self.comparison
                .note(LOST, || format!("sync of the list at {first:#x}"));
            return Ok(());
        };
        self.traffic.complete(self.target, job)?;
        let id = self.dev(f);
        self.target.called();
        let (api, m) = self.target.parts();
        if for_cpu {
            api.dma_sync_sg_for_cpu(m, id, &entries, dir);
        } else {
            api.dma_sync_sg_for_device(m, id, &entries, dir);
        }
        self.compare_sync();
        if for_cpu {
            self.traffic.look(self.target, job, None);
        }
        Ok(())
    }

    fn try_alloc(
        &mut self,
        f: usize,
        (dev, state): (&Device, u64),
        (phys, size): (PhysAddr, u64),
        kernel: Option<DmaAddr>,
        did: &Mapped,
    ) -> Result<(), Error> {
        self.masks(f, did.alloc, false)?;
        // The address counts for its offset in the granule only.
        let here = match self.place(phys, 1) {
            Place::TooLong => phys,
            place => address(place),
        };
        let id = self.dev(f);
        self.target.called();
        let ours = self.target.parts().0.dma_iova_try_alloc(id, here, size);
        let reason = if self.identity_here(f) {
            NO_DOMAIN
        } else {
            "whether the two-step interface can be used"
        };
        self.comparison
            .check(&kernel.is_some(), &ours.is_some(), reason, |used| {
                if *used { "two steps" } else { "range by range" }.to_owned()
            });
        let events = self.events();
        if let (Some(kernel), Some(ours)) = (kernel, ours) {
            let alloc = Mapped {
                tables: Vec::new(),
                bounces: Vec::new(),
                ..did.clone()
            };
            self.comparison.mapped(&alloc, &events, (phys, here));
            self.compare_iova(f, kernel, ours.addr());
        }
        match (kernel, ours) {
            (None, Some(mut s)) => {
                self.target.parts().0.dma_iova_free(id, &mut s);
                self.events();
            }
            (None, None) => {}
            (Some(_), iova) => {
                let made = State::new(iova, self.job());
                self.states.insert((dev.clone(), state), made);
            }
        }
        Ok(())
    }

    fn link(
        &mut self,
        f: usize,
        (dev, state): (&Device, u64),
        (phys, offset, size): (PhysAddr, u64, u64),
        (dir, attrs): (Direction, Attrs),
        ret: i32,
        did: &Mapped,
    ) -> Result<(), Error> {
        let key = (dev.clone(), state);
        let Some(mut s) = self.states.remove(&key) else {
            self.comparison
                .note(LOST, || format!("dma_iova_link of state {state:#x}"));
            return Ok(());
        };
        let result = self.link_into(f, &mut s, (phys, offset, size), (dir, attrs), ret, did);
        self.states.insert(key, s);
        result
    }

    fn link_into(
        &mut self,
        f: usize,
        s: &mut State,
        (phys, offset, size): (PhysAddr, u64, u64),
        (dir, attrs): (Direction, Attrs),
        ret: i32,
        did: &Mapped,
    ) -> Result<(), Error> {
        if s.iova.is_none() {
            // As a driver does where dma_iova_try_alloc() says no.
            let result = (ret == 0, None);
            let made = self.map_phys(f, (phys, size), dir, attrs, result, &Mapped::default());
            s.single.extend(made?);
            return Ok(());
        }
        let here = self.place(phys, size);
        let here = if here == Place::TooLong {
            phys
        } else {
            address(here)
        };
        if self.link_range(f, s, (phys, offset, size), (dir, attrs), ret == 0)? {
            self.counts.replayed += 1;
            self.compare_mapped(f, did, (phys, here));
        } else {
            self.events();
        }
        Ok(())
    }

    /// Links a range; whether that was possible. Its events are left to the caller.
    fn link_range(
        &mut self,
        f: usize,
        s: &mut State,
        (phys, offset, size): (PhysAddr, u64, u64),
        (dir, attrs): (Direction, Attrs),
        kernel: bool,
    ) -> Result<bool, Error> {
        let Some(mut iova) = s.iova else {
            return Ok(false);
        };
        let Some(place) = self.usable(f, phys, size) else {
            return Ok(false);
        };
        let (here, runs) = (address(place), Vec::from_iter(dram(place, size)));
        let wish = match place {
            Place::Elsewhere(_) => None,
            _ => self.traffic.wish(size, dir),
        };
        self.traffic.prepare(self.target, &runs, wish)?;
        let id = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        let result = dma.dma_iova_link(m, id, &mut iova, here, offset, size, dir, attrs);
        s.iova = Some(iova);
        if self.outcome(kernel, result)?.is_none() {
            return Ok(false);
        }
        // Bounced ends are mappings of their own.
        let mut at = offset;
        while at < offset + size {
            let mapping = self.target.parts().0.describe(id, iova.addr().offset(at));
            let Some(mapping) = mapping.filter(|m| m.size > 0) else {
                break;
            };
            s.bounced |= mapping.segments.iter().any(|s| s.bounced.is_some());
            s.fresh.push((at, mapping.size));
            at += mapping.size;
        }
        if let Some(wish) = wish {
            let span = Span {
                dma: iova.addr().offset(offset),
                len: size,
            };
            s.wishes.push((span, runs, wish));
        }
        Ok(true)
    }

    fn iova_sync(
        &mut self,
        f: usize,
        (dev, state): (&Device, u64),
        offset: u64,
        size: u64,
    ) -> Result<(), Error> {
        let key = (dev.clone(), state);
        let Some(mut s) = self.states.remove(&key) else {
            self.comparison
                .note(LOST, || format!("dma_iova_sync of state {state:#x}"));
            return Ok(());
        };
        let result = self.sync_state(f, &mut s, (offset, size));
        self.states.insert(key, s);
        result
    }

    fn sync_state(
        &mut self,
        f: usize,
        s: &mut State,
        (offset, size): (u64, u64),
    ) -> Result<(), Error> {
        let Some(iova) = s.iova else { return Ok(()) };
        let (id, bdf) = (self.dev(f), self.target.bdf(f));
        self.target.called();
        let result = self.target.parts().0.dma_iova_sync(id, &iova, offset, size);
        self.events();
        self.outcome(true, result)?;
        for (offset, size) in s.fresh.drain(..) {
            let dma = iova.addr().offset(offset);
            let call = format!(
                "dma_iova_link({bdf}, iova={:#x}, offset={offset:#x}, size={size})",
                iova.addr()
            );
            self.target.promise(f, dma, call);
            s.pieces.push((offset, size));
        }
        for (span, runs, wish) in s.wishes.drain(..) {
            let who = (f, s.job);
            self.traffic
                .start(self.target, who, &[span], &runs, Some(wish), s.bounced)?;
        }
        Ok(())
    }

    fn unlink(
        &mut self,
        f: usize,
        (dev, state): (&Device, u64),
        (offset, size): (u64, u64),
        (dir, attrs): (Direction, Attrs),
    ) -> Result<(), Error> {
        let key = (dev.clone(), state);
        let Some(mut s) = self.states.remove(&key) else {
            self.comparison
                .note(LOST, || format!("dma_iova_unlink of state {state:#x}"));
            return Ok(());
        };
        self.traffic.complete(self.target, s.job)?;
        for p in std::mem::take(&mut s.single) {
            self.unmap_phys(f, p, p.attrs, None)?;
        }
        if let Some(iova) = s.iova {
            let inside = |p: &mut (u64, u64)| p.0 >= offset && p.0 + p.1 <= offset + size;
            let gone: Vec<_> = s.pieces.extract_if(.., inside).collect();
            let endings = self.begin(f, &iova, &gone);
            let id = self.dev(f);
            self.target.called();
            let (dma, m) = self.target.parts();
            dma.dma_iova_unlink(m, id, &iova, offset, size, dir, attrs);
            for ending in endings {
                self.target.revoke_end(ending);
            }
            self.events();
            let within = (iova.addr().offset(offset), size);
            self.traffic.look(self.target, s.job, Some(within));
        }
        self.states.insert(key, s);
        Ok(())
    }

    fn begin(&mut self, f: usize, iova: &IovaState, pieces: &[(u64, u64)]) -> Vec<T::Ending> {
        pieces
            .iter()
            .map(|(o, n)| self.target.revoke_begin(f, iova.addr().offset(*o), *n))
            .collect()
    }

    fn destroy(
        &mut self,
        f: usize,
        (dev, state): (&Device, u64),
        (mapped, bounced): (u64, bool),
        (dir, attrs): (Direction, Attrs),
        did: &Unmapped,
    ) -> Result<(), Error> {
        match self.states.remove(&(dev.clone(), state)) {
            Some(s) => self.destroy_state(f, s, (mapped, bounced), (dir, attrs), did),
            None => {
                self.comparison
                    .note(LOST, || format!("dma_iova_destroy of state {state:#x}"));
                Ok(())
            }
        }
    }

    fn destroy_state(
        &mut self,
        f: usize,
        mut s: State,
        (mapped, bounced): (u64, bool),
        (dir, attrs): (Direction, Attrs),
        did: &Unmapped,
    ) -> Result<(), Error> {
        self.traffic.complete(self.target, s.job)?;
        for p in s.single {
            self.unmap_phys(f, p, p.attrs, None)?;
        }
        let Some(iova) = &mut s.iova else {
            return Ok(());
        };
        let ours = iova.raw_size() >> 63 != 0;
        self.comparison.check(
            &bounced,
            &ours,
            "whether a two-step mapping is bounced",
            |b| if *b { "bounced" } else { "not bounced" }.to_owned(),
        );
        let first = iova.addr();
        let endings = self.begin(f, iova, &s.pieces);
        let id = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        dma.dma_iova_destroy(m, id, iova, mapped, dir, attrs);
        for ending in endings {
            self.target.revoke_end(ending);
        }
        self.compare_unmapped(f, did);
        self.returned(s.job, &[], dir, attrs, s.bounced);
        self.probe_after(f, first, mapped)
    }

    fn p2p(&mut self, f: usize, page: u64, kernel: P2pMap) -> Result<(), Error> {
        let Some((phys, owner)) = self.plan.page(page) else {
            self.comparison.note(
                "not compared: a peer's page that is not in the array without KASLR",
                || format!("{page:#x}"),
            );
            return Ok(());
        };
        let Some(peer) = self.plan.endpoints.get(&owner).copied() else {
            return Ok(());
        };
        let provider = self.target.provider(peer);
        let client = self.target.bdf(f);
        let (dma, m) = self.target.parts();
        let config: &mut dyn ConfigSpace = m;
        let ours = dma.p2pdma.map_type(config, provider, client);
        self.comparison.check(
            &kernel.number(),
            &u32::from(ours as u8),
            "how a peer is reached",
            |n| {
                match n {
                    2 => "not at all",
                    3 => "by its bus address",
                    4 => "through the host bridge",
                    _ => "unknown",
                }
                .to_owned()
            },
        );
        // No function reaches itself over the bus.
        if ours == MapType::BusAddr && peer != f && self.traffic.one_in(4) {
            let Place::Peer(_, here) = self.place(phys, PAGE) else {
                return Ok(());
            };
            let dma = self.target.bus_address(f, here, PAGE);
            let job = self.job();
            let wish = self.traffic.wish(PAGE, Direction::Bidirectional);
            let spans = [Span { dma, len: PAGE }];
            self.traffic
                .start(self.target, (f, job), &spans, &[], wish, false)?;
            self.traffic.leave(self.target, (f, job), &spans)?;
            self.target.settle()?;
            self.target.end_bus_address(f, dma, PAGE);
        }
        Ok(())
    }
}
