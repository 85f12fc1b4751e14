//! The seeded random campaign: drivers that map memory in every way, devices that use it, and
//! devices that try what they were not promised.

mod jobs;
mod request;

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tlproof_dma::{
    Attrs, IovaState, MapError, Profile, SgEntry, block::Request, machine::Machine, nvme::Nvme,
    riscv::Mode,
};
use tlproof_pcie::{Bdf, Direction, DmaAddr, PhysAddr, Range, tree::Acs};

use crate::{
    buffers::BufferPool,
    checker::{Checker, Rogue},
    endpoint::{Descriptor, QUEUE_DEPTH, pattern_bytes},
    memory_port::Latency,
    simulation,
    testbench::{Error, Setup, Testbench, nvme::NvmeRequest},
};

const PAGE: u64 = 4096;

/// Buffers of the drivers.
const BUFFERS: Range = Range::sized(0x9000_0000, 256 << 20);

/// Size of an endpoint's memory BAR.
const BAR_SIZE: u64 = 1 << 20;

/// What a campaign is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of everything.
    pub seed: u64,
    /// Ends after this many TLPs.
    pub tlps: u64,
    /// Which Linux.
    pub profile: Profile,
    /// The machine's address map.
    pub map: tlproof_pcie::MemoryMap,
    /// Waves to write; the campaign ends with them.
    pub waves: Option<simulation::Waves>,
}

/// The machine that a seed stands for.
#[must_use]
pub fn setup(options: &Options) -> Setup {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ 0x5e7u64);
    let mut s = Setup {
        machine: simulation::Options {
            map: options.map.clone(),
            seed: options.seed,
            waves: options.waves.clone(),
            ..simulation::Options::default()
        },
        profile: options.profile,
        ..Setup::default()
    };
    s.iommu.address_mode = [Some(Mode::Sv39), Some(Mode::Sv48), Some(Mode::Sv57)]
        .choose(&mut rng)
        .copied()
        .flatten();
    s.iommu.ddt_levels = Some(rng.random_range(2..=3));
    let min = rng.random_range(4..24);
    s.machine.latency = Latency {
        min,
        max: min + rng.random_range(1..48),
    };
    s.machine.stall_one_in = [0, 4, 16, 64].choose(&mut rng).copied().unwrap_or(0);
    s.coherent = [true, rng.random_bool(0.7), rng.random_bool(0.7)];
    if rng.random_bool(0.3) {
        // Peers below the switch reach each other directly.
        s.acs = Acs::SV | Acs::UF;
    }
    if options.profile == Profile::Linux72 {
        // What a stock kernel does on this unit is refuse; without Svpbmt it maps.
        s.iommu.svpbmt = false;
    }
    s
}

/// How a job's memory was mapped, as far as the unmap call must know.
enum Mapped {
    Phys {
        attrs: Attrs,
    },
    Sg {
        list: Vec<SgEntry>,
    },
    Iova {
        state: IovaState,
        links: Vec<(u64, u64)>,
        attrs: Attrs,
    },
    Request {
        /// What the device has not been told yet.
        list: Option<Descriptor>,
        request: Request,
        prepared: Box<NvmeRequest>,
    },
    Bus,
}

/// Bytes that follow each other for the device.
#[derive(Clone, Copy)]
struct Span {
    dma: DmaAddr,
    len: u64,
}

/// A transfer under way or done.
struct Transfer {
    dma: DmaAddr,
    len: u32,
    seed: u32,
    write: bool,
}

/// A driver's buffer from map to unmap.
struct Job {
    function: usize,
    dir: Direction,
    mapped: Mapped,
    spans: Vec<Span>,
    /// DRAM pages to give back.
    pages: Vec<(PhysAddr, usize)>,
    /// Physical runs in the order of the spans, for the CPU's comparison; empty for peers.
    runs: Vec<(PhysAddr, u64)>,
    done: Vec<Transfer>,
    waiting: usize,
    todo: usize,
    /// Next unused byte of the spans, so that transfers do not overlap.
    cursor: (usize, u64),
}

/// What happened, for the summary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Mapping jobs completed.
    pub jobs: u64,
    /// Transfers completed.
    pub transfers: u64,
    /// Declared probes outside of mappings.
    pub probes: u64,
    /// Bytes that the CPU compared after unmap.
    pub compared: u64,
    /// Calls that the API refused.
    pub refused: u64,
}

/// A campaign under way.
pub struct Campaign {
    /// The machine.
    pub bench: Testbench,
    rng: ChaCha8Rng,
    options: Options,
    pool: BufferPool,
    /// Whether each function's DMA is coherent.
    coherent: [bool; 3],
    /// Drivers of disks, bound when they are needed.
    disks: [Option<Nvme>; 3],
    jobs: Vec<Job>,
    next_id: u16,
    /// Job of each transfer under way, by function and descriptor id; `None` for a probe.
    under_way: Vec<(usize, u16, Option<usize>, Option<Rogue>)>,
    /// What has been done.
    pub counts: Counts,
}

impl Campaign {
    /// Brings a machine up for the campaign.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(options: Options, checker: impl FnOnce(&Setup) -> Checker) -> Result<Self, Error> {
        let setup = setup(&options);
        let checker = checker(&setup);
        let bench = Testbench::new(&setup, checker)?;
        Ok(Self {
            bench,
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            options,
            pool: BufferPool::new(BUFFERS),
            coherent: setup.coherent,
            disks: [const { None }; 3],
            jobs: Vec::new(),
            next_id: 0,
            under_way: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// Runs to the end; `progress` is called now and then with the TLPs so far.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(&mut self, mut progress: impl FnMut(u64)) -> Result<(), Error> {
        const LIVE: usize = 12;
        let mut stopping = false;
        loop {
            let tlps = self.bench.sim.checker.tlps();
            progress(tlps);
            stopping |= tlps >= self.options.tlps || self.bench.sim.checker.failed_enough();
            if self.options.waves.is_some() && self.bench.sim.waves_done() {
                return Ok(());
            }
            if stopping && self.jobs.is_empty() && self.under_way.is_empty() {
                break;
            }
            if !stopping && self.jobs.len() < LIVE {
                self.start_job()?;
            }
            self.submit(stopping)?;
            if !stopping && self.rng.random_bool(0.05) {
                self.probe_somewhere()?;
            }
            let cycles = self.rng.random_range(50..400);
            self.bench.sim.run(cycles)?;
            self.poll()?;
            self.finish_jobs()?;
            self.bench.timers();
        }
        self.remove_disks();
        self.bench.quiesce()
    }

    fn direction(&mut self) -> Direction {
        match self.rng.random_range(0..5) {
            0 | 1 => Direction::ToDevice,
            2 | 3 => Direction::FromDevice,
            _ => Direction::Bidirectional,
        }
    }

    fn start_job(&mut self) -> Result<(), Error> {
        let function = self.rng.random_range(0..self.bench.functions.len());
        let dir = self.direction();
        let kind = self.rng.random_range(0..100);
        let job = match kind {
            0..50 => self.phys_job(function, dir),
            50..65 => self.sg_job(function, dir),
            65..80 => self.iova_job(function, dir),
            80..94 => self.peer_job(function, dir),
            _ => {
                let job = self.request_job(function, dir)?;
                self.jobs.extend(job);
                return Ok(());
            }
        };
        match job {
            Ok(Some(job)) => {
                self.jobs.push(job);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(MapError::Iommu(e)) => Err(e.into()),
            Err(_) => {
                self.counts.refused += 1;
                Ok(())
            }
        }
    }

    /// Size of a buffer: mostly small, sometimes up to 512 KiB.
    fn size(&mut self) -> u64 {
        match self.rng.random_range(0..10) {
            0 => self.rng.random_range(1..64),
            1 | 2 => self.rng.random_range(64..PAGE),
            3..8 => self.rng.random_range(PAGE..64 << 10),
            _ => self.rng.random_range(64 << 10..512 << 10),
        }
    }

    /// Fresh pages with random bytes written by the CPU.
    fn buffer(&mut self, offset: u64, size: u64) -> Option<(PhysAddr, usize)> {
        let pages = ((offset + size).div_ceil(PAGE)) as usize;
        let base = self.pool.take(&mut self.rng, pages)?;
        let mut bytes = vec![0; size as usize];
        self.rng.fill(&mut bytes[..]);
        self.bench.sim.mem_write(base.offset(offset), &bytes);
        Some((base, pages))
    }

    fn job(&mut self, function: usize, dir: Direction, mapped: Mapped, spans: Vec<Span>) -> Job {
        Job {
            function,
            dir,
            mapped,
            spans,
            pages: Vec::new(),
            runs: Vec::new(),
            done: Vec::new(),
            waiting: 0,
            todo: self.rng.random_range(1..6),
            cursor: (0, 0),
        }
    }

    fn next_id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// Queues transfers of jobs that have something left to do.
    fn submit(&mut self, stopping: bool) -> Result<(), Error> {
        for j in 0..self.jobs.len() {
            let job = &mut self.jobs[j];
            if stopping {
                job.todo = 0;
            }
            let f = job.function;
            self.submit_list(j)?;
            while self.jobs[j].todo > 0
                && self.bench.functions[f].engine.outstanding < QUEUE_DEPTH / 2
            {
                let job = &mut self.jobs[j];
                job.todo -= 1;
                let Some(span) = job.spans.get(job.cursor.0).copied() else {
                    break;
                };
                let left = span.len - job.cursor.1;
                if left == 0 {
                    job.cursor = (job.cursor.0 + 1, 0);
                    continue;
                }
                let len = if self.rng.random_bool(0.4) {
                    left
                } else {
                    self.rng.random_range(1..=left)
                };
                let addr = span.dma.offset(job.cursor.1);
                job.cursor.1 += len;
                let write = match job.dir {
                    Direction::ToDevice => false,
                    Direction::FromDevice => true,
                    Direction::Bidirectional => self.rng.random_bool(0.5),
                };
                job.waiting += 1;
                let id = self.next_id();
                let seed = self.rng.random();
                let mut d = Descriptor::pattern(id, write, addr, len as u32, seed);
                d.relaxed = self.rng.random_bool(0.3);
                d.ido = self.rng.random_bool(0.2);
                // A device whose DMA is coherent relies on snooping; memory of others is clean.
                d.no_snoop = !self.coherent[f] && self.rng.random_bool(0.3);
                self.bench.functions[f]
                    .engine
                    .submit(&mut self.bench.sim, &d)?;
                self.under_way.push((f, id, Some(j), None));
                self.jobs[j].done.push(Transfer {
                    dma: addr,
                    len: len as u32,
                    seed,
                    write,
                });
            }
        }
        Ok(())
    }

    /// Tells a disk of its request: all of it is one transfer.
    fn submit_list(&mut self, j: usize) -> Result<(), Error> {
        let job = &mut self.jobs[j];
        let f = job.function;
        let Mapped::Request { list, .. } = &mut job.mapped else {
            return Ok(());
        };
        if self.bench.functions[f].engine.outstanding >= QUEUE_DEPTH / 2 {
            return Ok(());
        }
        job.todo = 0;
        let Some(mut d) = list.take() else {
            return Ok(());
        };
        self.next_id = self.next_id.wrapping_add(1);
        d.id = self.next_id;
        let (seed, write) = (d.pattern.unwrap_or(0), job.dir.device_writes());
        job.done.extend(job.spans.iter().map(|s| Transfer {
            dma: s.dma,
            len: s.len as u32,
            seed,
            write,
        }));
        job.waiting += 1;
        self.bench.functions[f]
            .engine
            .submit(&mut self.bench.sim, &d)?;
        self.under_way.push((f, d.id, Some(j), None));
        Ok(())
    }

    /// Takes completion records.
    fn poll(&mut self) -> Result<(), Error> {
        for f in 0..self.bench.functions.len() {
            while self.bench.functions[f].engine.outstanding > 0 {
                let record = self.bench.functions[f].engine.poll(&mut self.bench.sim)?;
                let Some(record) = record else { break };
                let Some(at) = self
                    .under_way
                    .iter()
                    .position(|u| u.0 == f && u.1 == record.id)
                else {
                    return Err(Error::Machine(format!(
                        "{}: completion record of unknown transfer {}",
                        self.bench.functions[f].engine.bdf, record.id
                    )));
                };
                let (_, _, job, rogue) = self.under_way.remove(at);
                self.counts.transfers += 1;
                if let Some(j) = job {
                    self.jobs[j].waiting -= 1;
                }
                if let Some(rogue) = rogue {
                    self.bench.sim.checker.rogue_done(rogue);
                }
            }
        }
        Ok(())
    }

    /// Unmaps jobs that have nothing left to do, and looks at what the devices wrote.
    fn finish_jobs(&mut self) -> Result<(), Error> {
        let mut j = 0;
        while j < self.jobs.len() {
            if self.jobs[j].todo > 0 || self.jobs[j].waiting > 0 {
                j += 1;
                continue;
            }
            let job = self.jobs.swap_remove(j);
            let moved = self.jobs.len();
            for u in &mut self.under_way {
                if u.2 == Some(moved) {
                    u.2 = Some(j);
                }
            }
            self.finish(job)?;
        }
        Ok(())
    }

    fn finish(&mut self, mut job: Job) -> Result<(), Error> {
        let (f, dir) = (job.function, job.dir);
        // A posted write is visible once a read of the device that wrote it has returned; the
        // completion record was such a read.
        let mapped = std::mem::replace(&mut job.mapped, Mapped::Bus);
        let translated = match mapped {
            Mapped::Bus => false,
            // A peer's memory may be reached without translation.
            Mapped::Request { .. } => !job.runs.is_empty(),
            _ => true,
        };
        match mapped {
            Mapped::Phys { attrs } => {
                let s = job.spans[0];
                self.bench.unmap_phys(f, s.dma, s.len, dir, attrs);
            }
            Mapped::Sg { mut list } => {
                self.bench.unmap_sg(f, &mut list, dir, Attrs::empty());
            }
            Mapped::Iova {
                mut state,
                links,
                attrs,
            } => {
                let mapped = links.iter().map(|(_, s)| s).sum();
                self.bench
                    .iova_destroy(f, &mut state, &links, mapped, (dir, attrs));
            }
            Mapped::Request {
                request, prepared, ..
            } => {
                if let Some(disk) = &mut self.disks[f] {
                    self.bench.nvme_unmap(f, disk, &request, *prepared);
                }
            }
            Mapped::Bus => self
                .bench
                .end_bus_address(f, job.spans[0].dma, job.spans[0].len),
        }
        self.compare(&job);
        self.counts.jobs += 1;
        if translated && self.rng.random_bool(0.15) {
            // The device keeps using the address after the unmap.
            let s = job.spans[0];
            let write = self.rng.random_bool(0.5);
            self.probe(f, s.dma, s.len.min(64) as u32, write, None)?;
        }
        for (base, n) in job.pages {
            self.pool.give(base, n);
        }
        Ok(())
    }

    /// What the device wrote, as the CPU sees it after the unmap.
    fn compare(&mut self, job: &Job) {
        if job.runs.is_empty() || !job.dir.device_writes() {
            return;
        }
        let mut want = Vec::new();
        for t in job.done.iter().filter(|t| t.write) {
            want.resize(t.len as usize, 0);
            pattern_bytes(t.dma, t.seed, &mut want);
            // The transfer's place in the runs is its place in the spans.
            let mut at = 0;
            for s in &job.spans {
                if t.dma.0 >= s.dma.0 && t.dma.0 - s.dma.0 < s.len {
                    at += t.dma.0 - s.dma.0;
                    break;
                }
                at += s.len;
            }
            let mut got = vec![0; want.len()];
            let mut filled = 0;
            for (phys, len) in &job.runs {
                if at >= *len {
                    at -= len;
                    continue;
                }
                let n = ((len - at) as usize).min(want.len() - filled);
                self.bench
                    .sim
                    .mem_read(phys.offset(at), &mut got[filled..filled + n]);
                filled += n;
                at = 0;
                if filled == want.len() {
                    break;
                }
            }
            self.counts.compared += want.len() as u64;
            self.bench.sim.compare_memory(t.dma, &want, &got);
        }
    }

    /// A declared probe: the system must block it.
    fn probe(
        &mut self,
        f: usize,
        addr: DmaAddr,
        len: u32,
        write: bool,
        spoof: Option<Bdf>,
    ) -> Result<(), Error> {
        if self.bench.functions[f].engine.outstanding >= QUEUE_DEPTH / 2 {
            return Ok(());
        }
        let id = self.next_id();
        let mut d = Descriptor::pattern(id, write, addr, len.max(1), self.rng.random());
        d.spoof = spoof;
        let requester = spoof.unwrap_or(self.bench.functions[f].engine.bdf);
        let rogue =
            self.bench
                .sim
                .checker
                .expect_rogue(requester, addr.on_bus(), u64::from(d.len), write);
        self.bench.functions[f]
            .engine
            .submit(&mut self.bench.sim, &d)?;
        self.under_way.push((f, id, None, Some(rogue)));
        self.counts.probes += 1;
        Ok(())
    }

    /// Probes an address that was never mapped, or a live mapping against its direction; now and
    /// then with a Requester ID of a bus that is nowhere, which Source Validation blocks.
    fn probe_somewhere(&mut self) -> Result<(), Error> {
        let f = self.rng.random_range(0..self.bench.functions.len());
        let one_way = self.jobs.iter().find(|j| {
            j.function == f
                && j.dir == Direction::ToDevice
                && matches!(j.mapped, Mapped::Phys { .. })
        });
        if let Some(job) = one_way
            && self.rng.random_bool(0.5)
        {
            let s = job.spans[0];
            return self.probe(f, s.dma, s.len.min(128) as u32, true, None);
        }
        let addr = DmaAddr(0x1000_0000 + PAGE * self.rng.random_range(0..0x1000));
        let write = self.rng.random_bool(0.5);
        let len = self.rng.random_range(1..256);
        // A read would wait for its completion timeout: the answer goes to the false ID.
        let spoof = (write && self.rng.random_bool(0.2)).then(|| Bdf::new(0xf0 + f as u8, 0, 0));
        self.probe(f, addr, len, write, spoof)
    }
}
