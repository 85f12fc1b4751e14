//! `dma_map_benchmark` on the simulated machine: threads that map, wait and unmap, each on a CPU of
//! its own, and devices that really move the data if asked to.
//!
//! The event loop takes the threads in turn, a call at a time: calls do not overlap, so a latency
//! holds no waiting for another CPU's call.

mod buffer;
mod mapping;
mod report;
mod thread;
mod timed;

use tlproof_dma::{Attach, Profile};
use tlproof_pcie::{Direction, MemoryMap, PhysAddr, Range};

pub use report::{CYCLES_PER_US, Latency, Report};

use crate::{
    checker::Checker,
    endpoint::Completion,
    simulation::{self, Waves},
    testbench::{Error, Setup, Testbench},
};
use buffer::Buffer;
use report::Samples;
use thread::Thread;

const PAGE: u64 = 4096;

/// Memory of the buffers.
const BUFFERS: Range = Range::sized(0x9000_0000, 256 << 20);

/// Size of a peer's memory BAR.
const BAR_SIZE: u64 = 1 << 20;

/// The endpoint with the benchmark's driver, and the peer behind the host bridge.
const DEVICE: usize = 0;
const PEER: usize = 2;

/// Cycles between two looks at completion records.
const POLL: u64 = 64;

/// How memory is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `dma_map_phys` of contiguous pages.
    Single,
    /// `dma_map_sg` of as many entries as there are pages.
    Sg,
    /// `dma_iova_try_alloc`, a link a page, `dma_iova_sync`.
    Iova,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Sg => "sg",
            Self::Iova => "iova",
        }
    }
}

/// What a benchmark does.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the machine.
    pub seed: u64,
    /// Which Linux.
    pub profile: Profile,
    /// Threads.
    pub threads: u32,
    /// Microseconds of simulated time.
    pub microseconds: u64,
    /// NUMA node, for the report: there is one.
    pub node: i32,
    /// Bits of the DMA mask.
    pub mask_bits: u32,
    /// Direction.
    pub dir: Direction,
    /// Nanoseconds between map and unmap.
    pub delay_ns: u32,
    /// Pages of a mapping.
    pub granule: u32,
    /// How memory is mapped.
    pub mode: Mode,
    /// The memory is a peer's BAR.
    pub mmio: bool,
    /// Invalidations are deferred.
    pub lazy: bool,
    /// The device moves the data.
    pub moves: bool,
    /// What it moved is compared.
    pub verify: bool,
    /// Cycles of a CPU access to a line of memory.
    pub access_cycles: u64,
    /// Waves to write; the benchmark ends with them.
    pub waves: Option<Waves>,
}

impl Options {
    /// Whether the machine has the memory.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self) -> Result<(), String> {
        let pages = u64::from(self.granule);
        let all = u64::from(self.threads) * pages;
        if self.mmio && all * PAGE > BAR_SIZE {
            return Err(format!(
                "a peer's BAR has {} pages, {} threads with {pages} each need {all}",
                BAR_SIZE / PAGE,
                self.threads
            ));
        }
        let need = Buffer::memory(self.mode, self.threads, self.granule);
        if !self.mmio && need > BUFFERS.size() {
            return Err(format!(
                "{} threads with {pages} pages each need {} MiB of buffers, there are {}",
                self.threads,
                need >> 20,
                BUFFERS.size() >> 20
            ));
        }
        Ok(())
    }
}

/// What the threads share.
struct Shared {
    bench: Testbench,
    options: Options,
    map: Samples,
    unmap: Samples,
    loops: u64,
    moved: u64,
    compared: u64,
    next_id: u16,
    /// Parts of the device's local memory, and whether a thread uses them.
    slots: [bool; thread::SLOTS],
}

/// A benchmark on a machine that is up.
pub struct Benchmark {
    shared: Shared,
    threads: Vec<Thread>,
}

impl Benchmark {
    /// Brings the machine up.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(options: Options, checker: impl FnOnce(&Setup) -> Checker) -> Result<Self, Error> {
        let attach = if options.lazy {
            Attach::Lazy
        } else {
            Attach::Strict
        };
        let mut setup = Setup {
            machine: simulation::Options {
                map: MemoryMap::default(),
                seed: options.seed,
                waves: options.waves.clone(),
                ..simulation::Options::default()
            },
            profile: options.profile,
            attach: [attach, Attach::Strict, Attach::Strict],
            cpus: options.threads as usize,
            ..Setup::default()
        };
        // A stock kernel refuses a unit with page-based memory types.
        setup.iommu.svpbmt = options.profile != Profile::Linux72;
        let checker = checker(&setup);
        let mut bench = Testbench::new(&setup, checker)?;
        let dev = bench.functions[DEVICE].dev;
        let mask = u64::MAX >> (u64::BITS - options.mask_bits.clamp(1, u64::BITS));
        bench.dma.dma_set_mask(dev, mask)?;
        bench.dma.dma_set_coherent_mask(dev, mask)?;
        let bar = bench.functions[PEER].engine.memory;
        let threads = (0..options.threads)
            .map(|t| Thread::new(t, Buffer::new(&options, t, bar)))
            .collect();
        let shared = Shared {
            bench,
            options,
            map: Samples::default(),
            unmap: Samples::default(),
            loops: 0,
            moved: 0,
            compared: 0,
            next_id: 0,
            slots: [false; thread::SLOTS],
        };
        Ok(Self { shared, threads })
    }

    /// The machine.
    #[must_use]
    pub const fn bench(&self) -> &Testbench {
        &self.shared.bench
    }

    /// The machine.
    pub const fn bench_mut(&mut self) -> &mut Testbench {
        &mut self.shared.bench
    }

    /// Runs to the end; `progress` is called now and then with the simulated microseconds.
    ///
    /// # Errors
    /// See [`Error`]: also when a mapping call fails.
    pub fn run(&mut self, mut progress: impl FnMut(u64)) -> Result<Report, Error> {
        let s = &mut self.shared;
        let start = s.bench.sim.cycles();
        let length = s.options.microseconds * CYCLES_PER_US;
        loop {
            let passed = s.bench.sim.cycles() - start;
            progress(passed / CYCLES_PER_US);
            let stopping = passed >= length
                || s.bench.sim.checker.failed_enough()
                || s.bench.sim.waves_written();
            let mut busy = false;
            let mut wake = u64::MAX;
            for t in &mut self.threads {
                match t.step(s, stopping)? {
                    thread::Step::Done => busy = true,
                    thread::Step::Until(cycle) => wake = wake.min(cycle),
                    thread::Step::Over => {}
                }
            }
            if s.bench.functions[DEVICE].engine.outstanding > 0 {
                wake = wake.min(s.bench.sim.cycles() + POLL);
            }
            if !busy {
                if wake == u64::MAX {
                    break;
                }
                let now = s.bench.sim.cycles();
                s.bench.sim.run(wake.saturating_sub(now).max(1))?;
            }
            while let Some(record) = s.poll()? {
                for t in &mut self.threads {
                    t.completed(s, record)?;
                }
            }
            s.bench.timers();
        }
        s.bench.quiesce()?;
        Ok(self.report())
    }

    fn report(&self) -> Report {
        let (s, o) = (&self.shared, &self.shared.options);
        Report {
            mode: o.mode.name().to_owned(),
            threads: o.threads,
            microseconds: o.microseconds,
            node: o.node,
            direction: o.dir.name().to_owned(),
            granule: o.granule,
            mask_bits: o.mask_bits,
            mmio: o.mmio,
            loops: s.loops,
            map: s.map.latency(),
            unmap: s.unmap.latency(),
            moved: s.moved,
            compared: s.compared,
        }
    }
}

impl Shared {
    fn poll(&mut self) -> Result<Option<Completion>, Error> {
        let Testbench { sim, functions, .. } = &mut self.bench;
        let engine = &mut functions[DEVICE].engine;
        if engine.outstanding == 0 {
            return Ok(None);
        }
        Ok(engine.poll(sim)?)
    }

    /// A CPU address of the device's local memory.
    fn local(&self, offset: u64) -> PhysAddr {
        self.bench.functions[DEVICE].engine.memory.offset(offset)
    }
}

#[cfg(test)]
mod tests;
