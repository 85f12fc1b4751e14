//! The campaign: one machine after another, each step on both sides.

mod checkpoint;
mod steps;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_golden::iommu::{Iommu, offset as reg};

use crate::bench::{Bench, BenchError, Timing};
use crate::config::{Config, disagreements};
use crate::coverage::Coverage;
use crate::memory::{BASE, MESSAGES, SystemRam};
use crate::ports::IommuTop;
use crate::world::{Command, World};

const ENABLE: u64 = 1;
const BUSY: u64 = 1 << 17;
/// Where fences store.
const FENCE_CELLS: u64 = BASE;
const CQ: u64 = BASE + 0x1000;
const FQ: u64 = BASE + 0x2000;
const PQ: u64 = BASE + 0x3000;
/// First page for tables.
const TABLES: u64 = BASE + 0x4000;

/// What went wrong, with what is needed to see it again.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The device under test stopped or hangs.
    #[error("machine {machine}: {error}")]
    Bench {
        /// Seed of the machine.
        machine: u64,
        /// Why.
        error: BenchError,
    },
    /// The register `capabilities` is not what the capability file says.
    #[error("the capability file {file} and the RTL disagree: {}", fields.join("; "))]
    Capabilities {
        /// Name of the configuration.
        file: String,
        /// The fields.
        fields: Vec<String>,
    },
    /// The two sides differ.
    #[error("machine {machine}: {what}")]
    Mismatch {
        /// Seed of the machine.
        machine: u64,
        /// In what.
        what: String,
    },
}

/// How far a campaign is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Translation requests compared.
    pub requests: u64,
    /// Machines.
    pub machines: u64,
    /// Commands.
    pub commands: u64,
    /// Page requests.
    pub page_requests: u64,
    /// Translations through the debug interface.
    pub debug: u64,
    /// Writes into interrupt files.
    pub interrupt_files: u64,
    /// Clock cycles.
    pub cycles: u64,
    /// Requests while tables changed ([`crate::inflight`]), which `requests` does not count.
    pub in_flight: u64,
    /// Those of them that were answered by tables that were no more.
    pub of_old_tables: u64,
}

impl Progress {
    /// Adds what another campaign has done.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.machines += other.machines;
        self.commands += other.commands;
        self.page_requests += other.page_requests;
        self.debug += other.debug;
        self.interrupt_files += other.interrupt_files;
        self.cycles += other.cycles;
        self.in_flight += other.in_flight;
        self.of_old_tables += other.of_old_tables;
    }
}

/// A device under test and the golden model.
pub struct Lockstep<T: IommuTop> {
    bench: Bench<T>,
    iommu: Iommu<SystemRam>,
    world: World,
    config: Config,
    rng: ChaCha8Rng,
    machine: u64,
    queue_log2: [u32; 3],
    /// What it has seen.
    pub coverage: Coverage,
    /// How far it is.
    pub progress: Progress,
}

type Result<R> = std::result::Result<R, Failure>;

impl<T: IommuTop> Lockstep<T> {
    /// A device under test out of reset, with the first machine of `seed`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn new(config: Config, seed: u64) -> Result<Self> {
        let failure = |error| Failure::Bench {
            machine: seed,
            error,
        };
        let mut bench = Bench::new(config.strap, seed).map_err(failure)?;
        let register = bench.read(reg::CAPABILITIES, 8).map_err(failure)?;
        let caps = config.capabilities;
        let fields = disagreements(&caps, register);
        if !fields.is_empty() {
            return Err(Failure::Capabilities {
                file: config.name,
                fields,
            });
        }
        let mut iommu = Iommu::new(caps, config.choices.clone(), SystemRam::default());
        let world = World::new(seed, caps, &config.choices, &mut iommu.memory.ram, TABLES);
        let mut lockstep = Self {
            bench,
            iommu,
            world,
            coverage: Coverage::new(&caps, &config.choices),
            config,
            rng: ChaCha8Rng::seed_from_u64(seed),
            machine: seed,
            queue_log2: [7; 3],
            progress: Progress::default(),
        };
        lockstep.probe()?;
        lockstep.start(Vec::new())?;
        Ok(lockstep)
    }

    /// Runs machine after machine until `requests` requests have been compared.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn run(&mut self, requests: u64, mut progress: impl FnMut(&Progress)) -> Result<()> {
        while self.progress.requests < requests {
            let epochs = self.rng.random_range(4..16);
            for _ in 0..epochs {
                self.epoch()?;
                self.progress.cycles = self.bench.cycles();
                progress(&self.progress);
                if self.progress.requests >= requests {
                    return Ok(());
                }
            }
            self.next_machine(self.machine + 1)?;
        }
        Ok(())
    }

    fn mismatch(&self, what: String) -> Failure {
        let history = &self.world.history;
        let last = history.len().saturating_sub(20);
        Failure::Mismatch {
            machine: self.machine,
            what: format!("{what}\nbefore:\n  {}", history[last..].join("\n  ")),
        }
    }

    fn dut<R>(&self, result: std::result::Result<R, BenchError>) -> Result<R> {
        result.map_err(|error| Failure::Bench {
            machine: self.machine,
            error,
        })
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    /// A register write on both sides.
    fn write(&mut self, offset: u32, size: u8, value: u64) -> Result<()> {
        let done = self.bench.write(offset, size, value);
        self.dut(done)?;
        self.iommu.write(offset, size, value);
        Ok(())
    }

    /// A write of a CSR, until it is no longer busy.
    fn write_csr(&mut self, offset: u32, value: u64) -> Result<()> {
        self.write(offset, 4, value)?;
        let done = self.bench.poll(offset, |v| v & BUSY == 0);
        self.dut(done)
    }

    fn write_ddtp(&mut self, value: u64) -> Result<()> {
        self.write(reg::DDTP, 8, value)?;
        let done = self.bench.poll(reg::DDTP, |v| v & 1 << 4 == 0);
        self.dut(done)
    }

    /// Both sides' memories become what software has made of them.
    fn publish(&mut self) {
        self.bench.memory.ram.clone_from(&self.iommu.memory.ram);
    }

    /// Ends this machine and sets another one up.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn next_machine(&mut self, seed: u64) -> Result<()> {
        self.write_ddtp(0)?;
        for csr in [reg::CQCSR, reg::FQCSR, reg::PQCSR] {
            self.write_csr(csr, 0xf00)?;
        }
        self.write(reg::IPSR, 4, 0xf)?;
        self.checkpoint("end of a machine")?;
        self.machine = seed;
        self.rng = ChaCha8Rng::seed_from_u64(seed);
        self.progress.machines += 1;
        self.iommu.memory = SystemRam::default();
        self.bench.memory.messages.clear();
        let caps = *self.iommu.capabilities();
        let ram = &mut self.iommu.memory.ram;
        // Its GSCIDs come again.
        let forget = self.world.forget_all();
        self.world = World::new(seed, caps, &self.config.choices, ram, TABLES);
        self.start(forget)
    }

    /// Out of reset: the value of every register, and what each takes of ones.
    fn probe(&mut self) -> Result<()> {
        self.compare_all("reset")?;
        for mode in (0..16).rev() {
            self.write_ddtp(u64::MAX << 10 | mode)?;
            self.compare_register("a mode", reg::DDTP)?;
        }
        self.write(reg::IOCOUNTINH, 4, u32::MAX.into())?;
        let skipped = [
            reg::DDTP,
            reg::DDTP + 4,
            reg::CQCSR,
            reg::FQCSR,
            reg::PQCSR,
            reg::IPSR,
            reg::IOCOUNTINH,
            reg::TR_REQ_CTL,
        ];
        for value in [u32::MAX, 0] {
            for offset in (0..4096).step_by(4).filter(|o| !skipped.contains(o)) {
                self.write(offset, 4, value.into())?;
            }
            self.compare_all("writes of ones or zeros")?;
        }
        Ok(())
    }

    /// Sets the machine up on an IOMMU that has to `forget` another one.
    fn start(&mut self, mut forget: Vec<Command>) -> Result<()> {
        self.bench.timing = Timing {
            memory_latency: [0, 3, 20, 60][self.rng.random_range(0..4)],
            reorder: self.rng.random_bool(0.7),
            memory_ready: [100, 90, 40][self.rng.random_range(0..3)],
            outstanding: [1, 4, 32][self.rng.random_range(0..3)],
            drain_latency: self.rng.random_range(0..60),
        };
        self.publish();
        let caps = *self.iommu.capabilities();
        self.write(reg::FCTL, 4, self.world.fctl.into())?;
        let qosid = u64::from(self.rng.random::<u32>());
        self.write(reg::QOSID, 4, qosid)?;
        let icvec = u64::from(self.rng.random::<u16>());
        self.write(reg::ICVEC, 8, icvec)?;
        for vector in 0..16 {
            let at = reg::MSI_CFG_TBL + 16 * vector;
            let address = MESSAGES + 0x1000 + 4 * u64::from(vector);
            self.write(at, 8, address)?;
            let data = u64::from(self.rng.random::<u32>());
            self.write(at + 8, 4, data)?;
            let masked = self.chance(20).into();
            self.write(at + 12, 4, masked)?;
        }
        for (i, (base, register)) in [(CQ, reg::CQB), (FQ, reg::FQB), (PQ, reg::PQB)]
            .into_iter()
            .enumerate()
        {
            // At most a page of faults; the queue of page requests is often full.
            let largest = if register == reg::PQB { 3 } else { 7 };
            let largest = largest.min(self.config.choices.queue_log2_max.into());
            let log2 = self.rng.random_range(2.min(largest)..=largest);
            self.queue_log2[i] = log2;
            self.write(register, 8, base >> 12 << 10 | u64::from(log2 - 1))?;
        }
        for index in [reg::CQT, reg::FQH, reg::PQH] {
            self.write(index, 4, 0)?;
        }
        for csr in [reg::CQCSR, reg::FQCSR, reg::PQCSR] {
            let interrupt = u64::from(self.chance(70)) << 1;
            let enable = csr == reg::CQCSR || self.chance(95);
            self.write_csr(csr, interrupt | u64::from(enable))?;
        }
        if caps.hpm {
            self.start_monitor()?;
        }
        forget.extend(self.world.forget_all());
        let ddtp = self.world.ddtp;
        self.submit(&forget)?;
        self.write_ddtp(ddtp)?;
        self.checkpoint("start of a machine")
    }

    fn start_monitor(&mut self) -> Result<()> {
        self.write(reg::IOCOUNTINH, 4, u32::MAX.into())?;
        self.write(reg::IOHPMCYCLES, 8, 0)?;
        for counter in 0..31 {
            let event = u64::from(self.rng.random_range(0..9u32));
            let exact = matches!(event, 1..=3);
            let ids = self.rng.random::<u64>() & 0x0fff_ffff_ffff_0000;
            let filters = match self.rng.random_range(0..4) {
                0 => {
                    ids & !(0xff_ffff << 36)
                        | u64::from(self.world.device_id()) << 36
                        | 1 << 61
                        | u64::from(self.rng.random_bool(0.5)) << 15
                }
                1 => 1 << 60,
                _ => 0,
            };
            // Near its end, if its value can be known.
            let value = if exact && self.chance(30) {
                u64::MAX - self.rng.random_range(0..40)
            } else {
                0
            };
            self.write(reg::IOHPMCTR + 8 * counter, 8, value)?;
            self.write(reg::IOHPMEVT + 8 * counter, 8, event | filters)?;
        }
        let inhibited = u64::from(self.rng.random::<u32>() & self.rng.random::<u32>());
        self.write(reg::IOCOUNTINH, 4, inhibited)
    }
}
