//! Executes a program.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_dma::{Attrs, MapError, SgEntry, iommu::IommuError, machine::Machine, p2pdma::MapType};
use tlproof_pcie::{Bdf, Direction, DmaAddr, PhysAddr};

use crate::{
    buffers::BufferPool,
    checker::Checker,
    endpoint::{Descriptor, QUEUE_DEPTH, pattern_bytes},
    output::SharedSink,
    report::ViolationRow,
    testbench::{Error, Testbench},
};

use super::{
    Id, Op, PeerVia, Program, Target,
    drivers::{Kind, Object, Span, UnderWay},
    world::World,
};

const PAGE: u64 = 4096;

/// Where a device keeps what it fetches, above what peers may reach.
const FETCH: u32 = 0xc_0000;
/// Bytes of a fetch at most, and of the memory that each has.
const FETCH_MAX: u64 = 256;
const FETCH_SLOTS: u32 = 64;

/// Bytes of an endpoint's memory BAR that peers use.
pub(super) const PEER_MEMORY: u32 = FETCH;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Who found it: a judge, or `driver` for what a driver sees of the API.
    pub judge: String,
    /// The field or rule.
    pub field: String,
    /// The TLP, 0 if none is concerned.
    pub tlp: u64,
    /// All of it in a line.
    pub text: String,
}

/// What a program did.
#[derive(Default)]
pub struct Outcome {
    /// Empty when all promises were kept.
    pub failures: Vec<Failure>,
    /// TLPs.
    pub tlps: u64,
    /// Calls that the API refused.
    pub refused: u64,
    /// Transfers of devices.
    pub transfers: u64,
    /// Bytes that the CPU compared.
    pub compared: u64,
}

/// Runs a program to its end; rows go to `sink`.
///
/// # Errors
/// When the machine does not come up or stops: that is a failure of the testbench or of the RTL,
/// not of a promise.
pub fn run(program: &Program, sink: Option<SharedSink>) -> Result<Outcome, Error> {
    run_on(program, sink).map(|(outcome, _)| outcome)
}

/// [`run`] that gives the machine back.
///
/// # Errors
/// As [`run`].
pub fn run_on(program: &Program, sink: Option<SharedSink>) -> Result<(Outcome, Testbench), Error> {
    let mut r = Runner {
        bench: program.world.bring_up(sink)?,
        blocking: program.world.blocking(),
        seed: program.world.seed,
        pool: BufferPool::new(World::buffers()),
        objects: BTreeMap::new(),
        gone: BTreeMap::new(),
        transfer: 0,
        fetches: 0,
        out: Outcome::default(),
    };
    // What the calls did is looked at too.
    r.bench.dma.trace.set_enabled(cfg!(feature = "mutants"));
    for op in &program.ops {
        r.step(op)?;
        if r.bench.sim.checker.failed_enough() {
            break;
        }
    }
    r.finish()?;
    Ok((r.out, r.bench))
}

struct Runner {
    bench: Testbench,
    blocking: bool,
    seed: u64,
    pool: BufferPool,
    objects: BTreeMap<Id, Object>,
    gone: BTreeMap<Id, (usize, Vec<Span>)>,
    transfer: u16,
    fetches: u32,
    out: Outcome,
}

impl Runner {
    fn step(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::Map {
                id,
                dev,
                offset,
                size,
                dir,
                skip_sync,
            } => self.map(*id, *dev, u64::from(*offset), *size, *dir, *skip_sync)?,
            Op::MapSg {
                id,
                dev,
                sizes,
                dir,
            } => self.map_sg(*id, *dev, sizes, *dir)?,
            Op::MapIova {
                id,
                dev,
                offset,
                sizes,
                dir,
                destroy,
            } => self.map_iova(*id, *dev, u64::from(*offset), sizes, (*dir, *destroy))?,
            Op::MapPeer {
                id,
                dev,
                peer,
                offset,
                size,
                dir,
                via,
            } => self.map_peer(*id, *dev, *peer, (*offset, *size), *dir, *via)?,
            Op::Ring { id, dev, size } => self.ring(*id, *dev, *size)?,
            Op::Dma {
                id,
                at,
                len,
                write,
                relaxed,
                fetch,
            } => self.dma(*id, (*at, *len), *write, *relaxed, *fetch)?,
            Op::Touch { id, seed } => self.touch(*id, *seed)?,
            Op::Unmap { id } => self.unmap(*id)?,
            Op::Probe { dev, target, write } => self.probe(*dev, *target, *write)?,
            Op::Wait { cycles } => {
                self.bench.sim.run(u64::from(*cycles))?;
                self.bench.timers();
                for f in 0..self.bench.functions.len() {
                    self.poll(f)?;
                }
            }
            Op::Cpu { cpu } => {
                let cpus = self.bench.dma.config().cpus.max(1);
                self.bench.dma.set_cpu(cpu % cpus);
            }
        }
        Ok(())
    }

    fn fail(&mut self, field: &str, text: String) {
        self.out.failures.push(Failure {
            judge: "driver".to_owned(),
            field: field.to_owned(),
            tlp: 0,
            text,
        });
    }

    fn device(&self, dev: usize) -> usize {
        dev % self.bench.functions.len()
    }

    /// A refusal is counted; one that a driver could not expect is a failure.
    fn refused(&mut self, f: usize, e: &MapError, call: &str) {
        self.out.refused += 1;
        // The head of a bounced link keeps its place in the page only by `min_align_mask`.
        let device = self.bench.dma.device(self.bench.functions[f].dev);
        let moved = device.is_ok_and(|d| d.untrusted && d.min_align_mask & 0xfff != 0xfff);
        let expected = moved && *e == MapError::Iommu(IommuError::Misaligned);
        if matches!(e, MapError::Iommu(_)) && !expected {
            self.fail("refused", format!("{call}: {e}"));
        }
    }

    /// Fresh pages with contents of their own, from the CPU.
    fn buffer(&mut self, id: Id, part: usize, offset: u64, size: u64) -> Option<Buffer> {
        let seed = self.seed ^ u64::from(id) << 16 ^ part as u64;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let pages = (offset + size).div_ceil(PAGE) as usize;
        let base = self.pool.take(&mut rng, pages)?;
        let mut bytes = vec![0; size as usize];
        rng.fill(&mut bytes[..]);
        let phys = base.offset(offset);
        self.bench.sim.mem_write(phys, &bytes);
        Some(Buffer {
            base,
            pages,
            phys,
            bytes,
        })
    }

    fn insert(&mut self, id: Id, object: Object) {
        self.objects.insert(id, object);
    }

    fn map(
        &mut self,
        id: Id,
        dev: usize,
        offset: u64,
        size: u32,
        dir: Direction,
        skip_sync: bool,
    ) -> Result<(), Error> {
        let (f, size, offset) = (self.device(dev), u64::from(size.max(1)), offset % PAGE);
        if self.objects.contains_key(&id) {
            return Ok(());
        }
        let Some(b) = self.buffer(id, 0, offset, size) else {
            return Ok(());
        };
        let attrs = if skip_sync {
            Attrs::SKIP_CPU_SYNC
        } else {
            Attrs::empty()
        };
        match self.bench.map_phys(f, b.phys, size, dir, attrs) {
            Ok(dma) => {
                if skip_sync {
                    let d = self.bench.functions[f].dev;
                    let (api, sim) = (&mut self.bench.dma, &mut self.bench.sim);
                    api.dma_sync_single_for_device(sim, d, dma, size, dir);
                }
                let object = Object {
                    dev: f,
                    dir,
                    kind: Kind::Phys { attrs },
                    spans: vec![Span { dma, len: size }],
                    runs: vec![(b.phys, size)],
                    pages: vec![(b.base, b.pages)],
                    model: b.bytes,
                    under_way: Vec::new(),
                };
                self.insert(id, object);
            }
            Err(e) => {
                self.pool.give(b.base, b.pages);
                self.refused(f, &e, "dma_map_phys");
            }
        }
        Ok(())
    }

    fn map_sg(&mut self, id: Id, dev: usize, sizes: &[u32], dir: Direction) -> Result<(), Error> {
        let f = self.device(dev);
        if self.objects.contains_key(&id) {
            return Ok(());
        }
        let buffers = self.buffers(id, 0, sizes);
        if buffers.is_empty() {
            return Ok(());
        }
        let mut list: Vec<_> = buffers
            .iter()
            .map(|b| SgEntry::new(b.phys, b.bytes.len() as u64))
            .collect();
        let attrs = Attrs::empty();
        match self.bench.map_sg(f, &mut list, dir, attrs) {
            Ok(n) => {
                let spans = list[..n]
                    .iter()
                    .map(|s| Span {
                        dma: s.dma_address,
                        len: s.dma_length,
                    })
                    .collect();
                let object = Object::of_buffers(f, dir, Kind::Sg { list, attrs }, spans, buffers);
                self.insert(id, object);
            }
            Err(e) => {
                self.give(&buffers);
                self.refused(f, &e, "dma_map_sg");
            }
        }
        Ok(())
    }

    /// Buffers of these sizes; the first starts at `offset` in its page.
    fn buffers(&mut self, id: Id, offset: u64, sizes: &[u32]) -> Vec<Buffer> {
        let mut buffers = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            let offset = if i == 0 { offset } else { 0 };
            match self.buffer(id, i, offset, u64::from((*size).max(1))) {
                Some(b) => buffers.push(b),
                None => break,
            }
        }
        buffers
    }

    fn give(&mut self, buffers: &[Buffer]) {
        for b in buffers {
            self.pool.give(b.base, b.pages);
        }
    }

    fn map_iova(
        &mut self,
        id: Id,
        dev: usize,
        offset: u64,
        sizes: &[u32],
        (dir, destroy): (Direction, bool),
    ) -> Result<(), Error> {
        let f = self.device(dev);
        if self.objects.contains_key(&id) || sizes.is_empty() {
            return Ok(());
        }
        // All but the last range end on a page boundary.
        let offset = offset % PAGE;
        let last = sizes.len() - 1;
        let sizes: Vec<u32> = sizes
            .iter()
            .enumerate()
            .map(|(i, s)| {
                let head = if i == 0 { offset } else { 0 };
                let end = head + u64::from((*s).max(1));
                let end = if i == last {
                    end
                } else {
                    end.next_multiple_of(PAGE)
                };
                (end - head) as u32
            })
            .collect();
        let buffers = self.buffers(id, offset, &sizes);
        let Some(first) = buffers.first() else {
            return Ok(());
        };
        let total = buffers.iter().map(|b| b.bytes.len() as u64).sum();
        let d = self.bench.functions[f].dev;
        let Some(mut state) = self.bench.dma.dma_iova_try_alloc(d, first.phys, total) else {
            self.out.refused += 1;
            self.give(&buffers);
            return Ok(());
        };
        let attrs = Attrs::empty();
        let (mut links, mut at) = (Vec::new(), 0);
        let mut refusal = None;
        for b in &buffers {
            let size = b.bytes.len() as u64;
            let result = self
                .bench
                .iova_link(f, &mut state, b.phys, at, size, (dir, attrs));
            if let Err(e) = result {
                refusal = Some(e);
                break;
            }
            links.push((at, size));
            at += size;
        }
        if refusal.is_none() {
            refusal = self.bench.dma.dma_iova_sync(d, &state, 0, total).err();
        }
        if let Some(e) = refusal {
            self.bench
                .iova_destroy(f, &mut state, &[], at, (dir, attrs));
            self.give(&buffers);
            self.refused(f, &e, "dma_iova_link");
            return Ok(());
        }
        self.bench.iova_promise(f, &state, &links, attrs);
        let spans = links
            .iter()
            .map(|(o, s)| Span {
                dma: state.addr().offset(*o),
                len: *s,
            })
            .collect();
        let kind = Kind::Iova {
            state,
            links,
            attrs,
            destroy,
        };
        let object = Object::of_buffers(f, dir, kind, spans, buffers);
        self.insert(id, object);
        Ok(())
    }

    fn map_peer(
        &mut self,
        id: Id,
        dev: usize,
        peer: usize,
        (offset, size): (u32, u32),
        dir: Direction,
        via: PeerVia,
    ) -> Result<(), Error> {
        let (f, peer) = (self.device(dev), self.device(peer));
        if self.objects.contains_key(&id) || f == peer {
            return Ok(());
        }
        let offset = u64::from((offset % PEER_MEMORY) & !3);
        let room = u64::from(PEER_MEMORY) - offset;
        let size = (u64::from(size.max(4)) & !3).min(room);
        let phys = self.bench.functions[peer].engine.memory.offset(offset);
        let (kind, spans) = match self.bench.peer_map_type(f, peer) {
            MapType::BusAddr => {
                let dma = self.bench.bus_address(f, phys, size);
                (Kind::Bus, vec![Span { dma, len: size }])
            }
            MapType::ThruHostBridge => match self.map_through(f, phys, size, dir, via) {
                Ok(Some(mapped)) => mapped,
                Ok(None) => return Ok(()),
                Err(e) => {
                    self.refused(f, &e, "peer memory");
                    return Ok(());
                }
            },
            _ => {
                self.out.refused += 1;
                return Ok(());
            }
        };
        let object = Object {
            dev: f,
            dir,
            kind,
            spans,
            runs: Vec::new(),
            pages: Vec::new(),
            model: Vec::new(),
            under_way: Vec::new(),
        };
        self.insert(id, object);
        Ok(())
    }

    /// Peer memory through the host bridge.
    fn map_through(
        &mut self,
        f: usize,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        via: PeerVia,
    ) -> Result<Option<(Kind, Vec<Span>)>, MapError> {
        let attrs = Attrs::MMIO;
        let one = |dma| vec![Span { dma, len: size }];
        Ok(Some(match via {
            PeerVia::Phys => {
                let dma = self.bench.map_phys(f, phys, size, dir, attrs)?;
                (Kind::Phys { attrs }, one(dma))
            }
            PeerVia::Resource => {
                let dma = self.bench.map_resource(f, phys, size, dir)?;
                (Kind::Resource, one(dma))
            }
            PeerVia::Sg => {
                let mut list = vec![SgEntry::new(phys, size)];
                let attrs = Attrs::empty();
                self.bench.map_sg(f, &mut list, dir, attrs)?;
                let dma = list[0].dma_address;
                (Kind::Sg { list, attrs }, one(dma))
            }
            PeerVia::Iova => {
                let d = self.bench.functions[f].dev;
                let Some(mut state) = self.bench.dma.dma_iova_try_alloc(d, phys, size) else {
                    return Ok(None);
                };
                let linked = self
                    .bench
                    .iova_link(f, &mut state, phys, 0, size, (dir, attrs))
                    .and_then(|()| self.bench.dma.dma_iova_sync(d, &state, 0, size));
                if let Err(e) = linked {
                    self.bench.dma.dma_iova_free(d, &mut state);
                    return Err(e);
                }
                let links = vec![(0, size)];
                self.bench.iova_promise(f, &state, &links, attrs);
                let spans = one(state.addr());
                let kind = Kind::Iova {
                    state,
                    links,
                    attrs,
                    destroy: true,
                };
                (kind, spans)
            }
        }))
    }

    fn ring(&mut self, id: Id, dev: usize, size: u32) -> Result<(), Error> {
        let (f, size) = (self.device(dev), u64::from(size.max(1)));
        if self.objects.contains_key(&id) {
            return Ok(());
        }
        match self.bench.alloc_coherent(f, size) {
            Ok(memory) => {
                let object = Object {
                    dev: f,
                    dir: Direction::Bidirectional,
                    spans: vec![Span {
                        dma: memory.dma,
                        len: size,
                    }],
                    runs: vec![(memory.phys, size)],
                    pages: Vec::new(),
                    model: vec![0; size as usize],
                    kind: Kind::Ring(memory),
                    under_way: Vec::new(),
                };
                self.insert(id, object);
            }
            Err(e) => self.refused(f, &e, "dma_alloc_coherent"),
        }
        Ok(())
    }

    fn dma(
        &mut self,
        id: Id,
        (at, len): (u32, u32),
        write: bool,
        relaxed: bool,
        fetch: bool,
    ) -> Result<(), Error> {
        let Some(o) = self.objects.get(&id) else {
            return Ok(());
        };
        let at = u64::from(at) % o.size();
        let Some((dma, room)) = o.locate(at) else {
            return Ok(());
        };
        let f = o.dev;
        let write = match o.dir {
            Direction::ToDevice => false,
            Direction::FromDevice => true,
            Direction::Bidirectional => write,
        };
        let fetch = fetch && !write && !o.runs.is_empty();
        let longest = if fetch { FETCH_MAX } else { 1 << 20 };
        let len = u64::from(len.max(1)).min(room).min(longest);
        // Two transfers of the same bytes would race.
        self.wait(id, |u| u.at < at + len && at < u.at + u.len)?;
        while self.bench.functions[f].engine.outstanding >= QUEUE_DEPTH / 2 {
            self.bench.sim.run(64)?;
            self.poll(f)?;
        }
        self.transfer = self.transfer.wrapping_add(1);
        let transfer = self.transfer;
        let seed = u32::from(transfer) << 8 ^ id;
        let mut d = Descriptor::pattern(transfer, write, dma, len as u32, seed);
        d.relaxed = relaxed;
        let slot = fetch.then(|| {
            self.fetches = (self.fetches + 1) % FETCH_SLOTS;
            FETCH + self.fetches * 2 * FETCH_MAX as u32 + (dma.0 & 3) as u32
        });
        if let Some(slot) = slot {
            d.pattern = None;
            d.local = slot;
        }
        self.bench.functions[f]
            .engine
            .submit(&mut self.bench.sim, &d)?;
        self.out.transfers += 1;
        if let Some(o) = self.objects.get_mut(&id) {
            if write && !o.model.is_empty() {
                pattern_bytes(dma, seed, &mut o.model[at as usize..(at + len) as usize]);
            }
            o.under_way.push(UnderWay {
                transfer,
                at,
                len,
                fetch: slot,
            });
        }
        Ok(())
    }

    /// Waits for the transfers of an object that `which` picks.
    fn wait(&mut self, id: Id, which: impl Fn(&UnderWay) -> bool) -> Result<(), Error> {
        const LIMIT: u64 = 4_000_000;
        let end = self.bench.sim.cycles() + LIMIT;
        loop {
            let Some(o) = self.objects.get(&id) else {
                return Ok(());
            };
            let f = o.dev;
            if !o.under_way.iter().any(&which) {
                return Ok(());
            }
            if self.bench.sim.cycles() >= end {
                return Err(Error::Machine(format!(
                    "{}: a transfer does not end",
                    self.bench.functions[f].engine.bdf
                )));
            }
            self.bench.sim.run(64)?;
            self.poll(f)?;
        }
    }

    /// Takes the completion records of an endpoint.
    fn poll(&mut self, f: usize) -> Result<(), Error> {
        while self.bench.functions[f].engine.outstanding > 0 {
            let record = self.bench.functions[f].engine.poll(&mut self.bench.sim)?;
            let Some(record) = record else { break };
            let found = self.objects.values_mut().find_map(|o| {
                let at = o
                    .under_way
                    .iter()
                    .position(|u| o.dev == f && u.transfer == record.id)?;
                let u = o.under_way.swap_remove(at);
                let want = u
                    .fetch
                    .map(|_| o.model[u.at as usize..(u.at + u.len) as usize].to_vec());
                let dma = o.locate(u.at).map(|(dma, _)| dma);
                Some((u, want, dma))
            });
            if let Some((u, Some(want), Some(dma))) = found {
                self.compare_fetched(f, &u, dma, &want)?;
            }
        }
        Ok(())
    }

    /// What a device read, as the CPU finds it in the device's memory.
    fn compare_fetched(
        &mut self,
        f: usize,
        u: &UnderWay,
        dma: DmaAddr,
        want: &[u8],
    ) -> Result<(), Error> {
        let Some(slot) = u.fetch else { return Ok(()) };
        let first = self.bench.functions[f]
            .engine
            .memory
            .offset(u64::from(slot));
        let mut got = vec![0; want.len()];
        let start = first.align_down(4);
        let end = first.offset(u.len);
        for word in (start.0..end.0).step_by(4) {
            let bytes = (self.bench.sim.mmio_read(PhysAddr(word), 4)? as u32).to_le_bytes();
            for (i, b) in bytes.into_iter().enumerate() {
                let at = (word + i as u64).checked_sub(first.0);
                if let Some(g) = at.and_then(|at| got.get_mut(at as usize)) {
                    *g = b;
                }
            }
        }
        self.out.compared += u.len;
        self.bench.sim.compare_memory(dma, want, &got);
        Ok(())
    }

    /// The CPU compares what it sees of an object with what must be there.
    fn compare(&mut self, o: &Object) {
        let mut at = 0;
        for (i, (phys, len)) in o.runs.iter().enumerate() {
            let mut got = vec![0; *len as usize];
            if matches!(&o.kind, Kind::Ring(m) if m.uncached) {
                self.bench.sim.cache_invalidate(*phys, *len);
            }
            self.bench.sim.mem_read(*phys, &mut got);
            let want = &o.model[at..at + *len as usize];
            at += *len as usize;
            let dma = o.spans.get(i).map_or(DmaAddr(0), |s| s.dma);
            self.out.compared += len;
            self.bench.sim.compare_memory(dma, want, &got);
        }
    }

    fn touch(&mut self, id: Id, seed: u32) -> Result<(), Error> {
        if !self.objects.get(&id).is_some_and(Object::touchable) {
            return Ok(());
        }
        self.wait(id, |_| true)?;
        let Some(mut o) = self.objects.remove(&id) else {
            return Ok(());
        };
        if !o.runs.is_empty() {
            self.sync(&o, true);
            self.compare(&o);
            // What the device only writes is not carried to it.
            if o.dir.device_reads() {
                self.rewrite(&mut o, seed);
            }
            self.sync(&o, false);
        }
        self.objects.insert(id, o);
        Ok(())
    }

    /// New contents from the CPU.
    fn rewrite(&mut self, o: &mut Object, seed: u32) {
        let mut rng = ChaCha8Rng::seed_from_u64(u64::from(seed));
        rng.fill(&mut o.model[..]);
        let mut at = 0;
        for (phys, len) in &o.runs {
            let bytes = &o.model[at..at + *len as usize];
            at += *len as usize;
            self.bench.sim.mem_write(*phys, bytes);
            if matches!(&o.kind, Kind::Ring(m) if m.uncached) {
                self.bench.sim.cache_clean(*phys, *len);
                self.bench.sim.cache_invalidate(*phys, *len);
            }
        }
    }

    fn sync(&mut self, o: &Object, for_cpu: bool) {
        let dev = self.bench.functions[o.dev].dev;
        let (api, sim) = (&mut self.bench.dma, &mut self.bench.sim);
        match &o.kind {
            Kind::Phys { .. } => {
                let s = o.spans[0];
                if for_cpu {
                    api.dma_sync_single_for_cpu(sim, dev, s.dma, s.len, o.dir);
                } else {
                    api.dma_sync_single_for_device(sim, dev, s.dma, s.len, o.dir);
                }
            }
            Kind::Sg { list, .. } => {
                if for_cpu {
                    api.dma_sync_sg_for_cpu(sim, dev, list, o.dir);
                } else {
                    api.dma_sync_sg_for_device(sim, dev, list, o.dir);
                }
            }
            _ => {}
        }
    }

    fn unmap(&mut self, id: Id) -> Result<(), Error> {
        self.wait(id, |_| true)?;
        let Some(mut o) = self.objects.remove(&id) else {
            return Ok(());
        };
        if matches!(&o.kind, Kind::Phys { attrs } if attrs.contains(Attrs::SKIP_CPU_SYNC)) {
            self.sync(&o, true);
        }
        if matches!(o.kind, Kind::Ring(_)) {
            self.compare(&o);
        }
        // Nothing but time orders a posted write to a peer before the end of what is not
        // translated.
        if o.runs.is_empty() && o.dir.device_writes() {
            self.bench.sim.settle(100_000)?;
        }
        let (f, dir) = (o.dev, o.dir);
        match &mut o.kind {
            Kind::Phys { attrs } => {
                let s = o.spans[0];
                self.bench.unmap_phys(f, s.dma, s.len, dir, *attrs);
            }
            Kind::Sg { list, attrs } => self.bench.unmap_sg(f, list, dir, *attrs),
            Kind::Iova {
                state,
                links,
                attrs,
                destroy,
            } => {
                let mapped = links.iter().map(|(_, s)| s).sum();
                if *destroy {
                    self.bench
                        .iova_destroy(f, state, links, mapped, (dir, *attrs));
                } else {
                    self.bench.iova_unlink_free(f, state, links, (dir, *attrs));
                }
            }
            Kind::Resource => {
                let s = o.spans[0];
                self.bench.unmap_resource(f, s.dma, s.len, dir);
            }
            Kind::Bus => {
                let s = o.spans[0];
                self.bench.end_bus_address(f, s.dma, s.len);
            }
            Kind::Ring(memory) => self.bench.free_coherent(f, *memory),
        }
        if !matches!(o.kind, Kind::Ring(_)) {
            self.compare(&o);
        }
        for (base, pages) in &o.pages {
            self.pool.give(*base, *pages);
        }
        self.gone.insert(id, (f, o.spans));
        Ok(())
    }

    fn probe(&mut self, dev: usize, target: Target, write: bool) -> Result<(), Error> {
        if !self.blocking {
            return Ok(());
        }
        let (f, dma, len, write) = match target {
            Target::Nowhere(page) => {
                let dma = DmaAddr(0x1000_0000 + PAGE * u64::from(page % 0x1000));
                (self.device(dev), dma, 64, write)
            }
            Target::Gone(id) => {
                let Some((f, spans)) = self.gone.get(&id) else {
                    return Ok(());
                };
                (*f, spans[0].dma, spans[0].len.min(64), write)
            }
            Target::Against(id) => match self.objects.get(&id) {
                Some(o) if o.dir == Direction::ToDevice && !matches!(o.kind, Kind::Bus) => {
                    (o.dev, o.spans[0].dma, o.spans[0].len.min(64), true)
                }
                _ => return Ok(()),
            },
        };
        // Mapped again by now, or never out of reach.
        let near = |s: &Span| {
            let (a, b) = (dma.0 & !(PAGE - 1), (dma.0 + len).next_multiple_of(PAGE));
            s.dma.0 < b && a < s.dma.0 + s.len
        };
        let taken = self
            .objects
            .values()
            .any(|o| o.dev == f && o.spans.iter().any(near));
        if taken && !matches!(target, Target::Against(_)) {
            return Ok(());
        }
        self.bench.flush();
        let map = self.bench.sim.options().map.clone();
        if map.aperture.contains(map.to_phys(dma.on_bus()), len) {
            return Ok(());
        }
        self.transfer = self.transfer.wrapping_add(1);
        let d = Descriptor::pattern(self.transfer, write, dma, len as u32, 0);
        let bdf: Bdf = self.bench.functions[f].engine.bdf;
        let checker: &mut Checker = &mut self.bench.sim.checker;
        let rogue = checker.expect_rogue(bdf, dma.on_bus(), len, write);
        self.bench.functions[f]
            .engine
            .submit(&mut self.bench.sim, &d)?;
        while self.bench.functions[f].engine.outstanding > 0 {
            self.bench.sim.run(64)?;
            self.poll(f)?;
        }
        self.bench.sim.settle(100_000)?;
        self.bench.sim.checker.rogue_done(rogue);
        Ok(())
    }

    /// Ends everything and collects what was found.
    fn finish(&mut self) -> Result<(), Error> {
        for id in self.objects.keys().copied().collect::<Vec<_>>() {
            self.unmap(id)?;
        }
        self.bench.quiesce()?;
        let live = self.bench.dma.live().count();
        if live != 0 {
            self.fail("leak", format!("{live} mappings are left"));
        }
        let slots = self.bench.dma.swiotlb().map_or(0, |s| s.used());
        if slots != 0 {
            self.fail("leak", format!("{slots} bounce slots are left"));
        }
        let checker = &self.bench.sim.checker;
        self.out.tlps = checker.tlps();
        let found = checker.violation_rows();
        self.out
            .failures
            .splice(0..0, found.iter().map(Failure::from));
        Ok(())
    }
}

impl From<&ViolationRow> for Failure {
    fn from(v: &ViolationRow) -> Self {
        Self {
            judge: v.judge.clone(),
            field: v.field.clone(),
            tlp: v.tlp,
            text: format!(
                "cycle {} at {}: {}: expected {}, got {}{}",
                v.cycle,
                v.tap,
                v.field,
                v.expected,
                v.got,
                v.story
                    .iter()
                    .find(|s| s.starts_with("mapping:"))
                    .map_or(String::new(), |s| format!("; {s}"))
            ),
        }
    }
}

/// Main memory with contents of its own.
pub(super) struct Buffer {
    base: PhysAddr,
    pages: usize,
    phys: PhysAddr,
    bytes: Vec<u8>,
}

impl Object {
    fn of_buffers(
        dev: usize,
        dir: Direction,
        kind: Kind,
        spans: Vec<Span>,
        buffers: Vec<Buffer>,
    ) -> Self {
        Self {
            dev,
            dir,
            kind,
            spans,
            runs: buffers
                .iter()
                .map(|b| (b.phys, b.bytes.len() as u64))
                .collect(),
            pages: buffers.iter().map(|b| (b.base, b.pages)).collect(),
            model: buffers.into_iter().flat_map(|b| b.bytes).collect(),
            under_way: Vec::new(),
        }
    }
}
