//! The campaign: one machine after another, each step on both sides.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_golden::iommu::{
    self as golden, Capabilities, Iommu, Request, Response, TransactionType,
};

use crate::bench::{Bench, BenchError, Timing};
use crate::compare::compare;
use crate::config::Config;
use crate::coverage::Coverage;
use crate::layout::{Answer, MessageIn};
use crate::memory::{BASE, MESSAGES, SystemRam, Watched};
use crate::ports::IommuTop;
use crate::world::{Command, World};

/// Offsets of registers (IOMMU §5.2).
mod reg {
    pub const CAPABILITIES: u32 = 0;
    pub const FCTL: u32 = 8;
    pub const DDTP: u32 = 16;
    pub const CQB: u32 = 24;
    pub const CQH: u32 = 32;
    pub const CQT: u32 = 36;
    pub const FQB: u32 = 40;
    pub const FQH: u32 = 48;
    pub const FQT: u32 = 52;
    pub const PQB: u32 = 56;
    pub const PQH: u32 = 64;
    pub const PQT: u32 = 68;
    pub const CQCSR: u32 = 72;
    pub const FQCSR: u32 = 76;
    pub const PQCSR: u32 = 80;
    pub const IPSR: u32 = 84;
    pub const IOCOUNTINH: u32 = 92;
    pub const IOHPMCYCLES: u32 = 96;
    pub const IOHPMCTR: u32 = 104;
    pub const IOHPMEVT: u32 = 352;
    pub const TR_REQ_IOVA: u32 = 600;
    pub const TR_REQ_CTL: u32 = 608;
    pub const TR_RESPONSE: u32 = 616;
    pub const QOSID: u32 = 624;
    pub const ICVEC: u32 = 760;
    pub const MSI_CFG_TBL: u32 = 768;
}

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
        let capabilities = bench.read(reg::CAPABILITIES, 8).map_err(failure)?;
        let caps = Capabilities::decode(capabilities);
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
        lockstep.start()?;
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
        self.world = World::new(seed, caps, &self.config.choices, ram, TABLES);
        self.start()
    }

    /// Registers for a new machine.
    fn start(&mut self) -> Result<()> {
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
            let log2 = self.rng.random_range(2..=largest);
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
        let forget = self.world.forget_all();
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

    /// One change and what devices do after it.
    fn epoch(&mut self) -> Result<()> {
        let commands = self.world.change(&mut self.iommu.memory.ram);
        self.publish();
        self.submit(&commands)?;
        self.checkpoint("commands")?;
        let count = self.rng.random_range(1..200);
        self.translate(count)?;
        for _ in 0..self.rng.random_range(0..4) {
            match self.rng.random_range(0..10) {
                0..4 => {
                    for _ in 0..self.rng.random_range(1..6) {
                        self.page_request()?;
                    }
                }
                4..6 => self.debug()?,
                6..8 => self.random_command()?,
                8 => self.ats_commands()?,
                _ => self.software()?,
            }
        }
        Ok(())
    }

    /// Requests as fast as they go.
    fn translate(&mut self, count: usize) -> Result<()> {
        let requests: Vec<Request> = (0..count).map(|_| self.legal_request()).collect();
        let answers = self.bench.translate(&requests);
        let answers = self.dut(answers)?;
        let mut writes = Vec::new();
        for (request, answer) in requests.iter().zip(&answers) {
            let response = self.iommu.translate(request);
            self.check(request, &response, answer)?;
            self.coverage.request(request, &response, answer.is_gpa);
            if answer.is_mrif && request.ttyp.is_write() && request.iova & 3 == 0 {
                writes.push((*request, *answer, response));
            }
        }
        self.progress.requests += count as u64;
        self.checkpoint("translations")?;
        for (request, answer, response) in writes.into_iter().take(6) {
            let data = match self.rng.random_range(0..8) {
                0 => self.rng.random(),
                1 => self.rng.random_range(0..2048u32).swap_bytes(),
                _ => self.rng.random_range(0..2048u32),
            };
            let done = self.bench.write_interrupt_file(&request, &answer, data);
            self.dut(done)?;
            self.iommu.write_interrupt_file(&request, &response, data);
            self.progress.interrupt_files += 1;
            self.checkpoint("a write into an interrupt file")?;
        }
        self.drain_queues()
    }

    fn legal_request(&mut self) -> Request {
        let request = self.world.request();
        if self.iommu.capabilities().ats || request.ttyp != TransactionType::AtsTranslation {
            return request;
        }
        Request {
            ttyp: TransactionType::UntranslatedRead,
            ats: tlproof_golden::iommu::AtsFlags::default(),
            ..request
        }
    }

    fn check(&self, request: &Request, response: &Response, answer: &Answer) -> Result<()> {
        let choices = &self.config.choices;
        let differences = compare(
            request,
            response,
            answer,
            choices.bare_size_log2,
            self.world.shares_tables(),
        );
        if differences.is_empty() {
            return Ok(());
        }
        let fields: Vec<String> = differences
            .iter()
            .map(|d| format!("{}: expected {}, got {}", d.field, d.expected, d.got))
            .collect();
        let watched = Watched::new(&self.iommu.memory);
        self.iommu.translator().lookup(&watched, request);
        let walk: Vec<String> = watched
            .into_loads()
            .into_iter()
            .map(|(at, value)| match value {
                Ok(value) => format!("{at:#x}: {value:#x}"),
                Err(fault) => format!("{at:#x}: {fault}"),
            })
            .collect();
        Err(self.mismatch(format!(
            "{}\n{request:x?}\nexpected {response:x?}\ngot {answer:x?}\nwalk of the tables now: {}",
            fields.join("; "),
            walk.join("; ")
        )))
    }

    /// Puts commands into the queue, in as many goes as it takes, with a fence at the end.
    fn submit(&mut self, commands: &[Command]) -> Result<()> {
        let fence = self.fence();
        let entries = 1u64 << self.queue_log2[0];
        let all: Vec<Command> = commands.iter().copied().chain([fence]).collect();
        for part in all.chunks(entries as usize - 1) {
            self.hand_over(part)?;
            let tail = self.iommu.read(reg::CQT, 4);
            let done = self.bench.poll(reg::CQH, |head| head == tail);
            self.dut(done)?;
        }
        Ok(())
    }

    /// A fence with a store.
    fn fence(&mut self) -> Command {
        let data = u64::from(self.rng.random::<u32>());
        let cell = FENCE_CELLS + 4 * self.rng.random_range(0..1024);
        let order = self.rng.random_range(0..4u64) << 12;
        [2 | 1 << 10 | order | data << 32, cell >> 2]
    }

    fn hand_over(&mut self, commands: &[Command]) -> Result<()> {
        let big = self.world.fctl & 1 == 1;
        let entries = 1u64 << self.queue_log2[0];
        let mut tail = self.iommu.read(reg::CQT, 4);
        let translator = self.iommu.translator();
        let (caps, choices) = (&translator.capabilities, &translator.choices);
        for words in commands {
            let (fctl, ddtp) = (translator.fctl, translator.ddtp);
            let command = golden::Command::decode(*words, caps, choices, fctl, ddtp);
            self.coverage.command(&command, *words);
        }
        for words in commands {
            for (i, word) in words.iter().enumerate() {
                let at = CQ + 16 * tail + 8 * i as u64;
                let word = if big { word.swap_bytes() } else { *word };
                self.iommu.memory.ram.set(at, word);
                self.bench.memory.ram.set(at, word);
            }
            tail = (tail + 1) % entries;
        }
        self.progress.commands += commands.len() as u64;
        self.write(reg::CQT, 4, tail)
    }

    /// One command of any kind, legal or not, and what software does if the queue stops.
    fn random_command(&mut self) -> Result<()> {
        let mut word = match self.rng.random_range(0..10) {
            0..4 => 1 | self.rng.random_range(0..2) << 7 | self.rng.random::<u64>() & !0x3ff,
            4..6 => 2 | self.rng.random_range(0..4) << 12 | self.rng.random_range(0..2) << 11,
            6..8 => 3 | self.rng.random_range(0..2) << 7 | self.rng.random::<u64>() & !0x3ff,
            _ => self.rng.random::<u64>() & !0x7f | self.rng.random_range(0..8),
        };
        if word & 0x7f == 4 {
            // Those send messages.
            word &= !0x7f;
        }
        let mut second = self.rng.random::<u64>();
        if self.chance(80) {
            // Reserved bits are 0.
            let (w, s) = match word & 0x3ff {
                0x01 => (
                    0xffff_f7ff_ffff_ffff & !(0x1ff << 35 | 0xf << 60),
                    !(0x1ff | 3 << 62),
                ),
                0x81 => (
                    0xffff_f7fe_ffff_f7ff & !(0x1ff << 35 | 0xf << 60),
                    !(0x1ff | 3 << 62),
                ),
                2 => (0xffff_ffff_0000_3bff, 0),
                3 => (0xffff_ff02_0000_03ff, 0),
                0x83 => (0xffff_ff02_ffff_f3ff, 0),
                _ => (u64::MAX, 0),
            };
            word &= w;
            second &= s;
        }
        if word & 0x7f == 2 {
            word &= !(1 << 10);
        }
        self.hand_over(&[[word, second]])?;
        let settled = self.bench.settle();
        self.dut(settled)?;
        self.checkpoint("a random command")?;
        self.recover_commands()
    }

    /// If the queue has stopped, makes it go on behind the command that stopped it.
    fn recover_commands(&mut self) -> Result<()> {
        let csr = self.iommu.read(reg::CQCSR, 4);
        if csr & 0x700 != 0 {
            let big = self.world.fctl & 1 == 1;
            let at = CQ + 16 * self.iommu.read(reg::CQH, 4);
            let word: u64 = if big { 1u64.swap_bytes() } else { 1 };
            for (at, word) in [(at, word), (at + 8, 0)] {
                self.iommu.memory.ram.set(at, word);
                self.bench.memory.ram.set(at, word);
            }
        }
        self.write_csr(reg::CQCSR, csr & 3 | 0xf00)?;
        self.checkpoint("recovery of the command queue")
    }

    /// ATS commands, and devices that answer or do not.
    fn ats_commands(&mut self) -> Result<()> {
        if !self.iommu.capabilities().ats {
            return Ok(());
        }
        let count = self
            .rng
            .random_range(1..=3.min((1 << self.queue_log2[0]) - 2));
        let mut commands = Vec::new();
        let mut invalidated = Vec::new();
        for _ in 0..count {
            let device = u64::from(self.world.device_id());
            let mut word = 4 | (device & 0xffff) << 40;
            if self.chance(50) {
                word |= 1 << 33 | (device >> 16) << 56;
            }
            if self.chance(50) {
                word |= 1 << 32 | self.rng.random_range(0..1u64 << 20) << 12;
            }
            if self.chance(40) {
                let group = self.rng.random_range(0..512u64);
                let code = self.rng.random_range(0..16u64);
                commands.push([word | 1 << 7, group << 32 | code << 44]);
            } else {
                let segment = if word >> 33 & 1 == 1 { word >> 56 } else { 0 };
                invalidated.push((segment << 16 | word >> 40 & 0xffff) as u32);
                commands.push([word, self.rng.random::<u64>() & !0x7fe]);
            }
        }
        self.hand_over(&commands)?;
        self.checkpoint("ATS commands")?;
        let fence = self.fence();
        self.hand_over(&[fence])?;
        if self.chance(3) {
            let run = self.bench.run(self.config.ats_timeout);
            self.dut(run)?;
            self.iommu.expire_invalidations();
        } else {
            for (tag, device_id) in invalidated.into_iter().enumerate() {
                let count = self.rng.random_range(0..8u8);
                let needed = if count == 0 { 8 } else { count };
                for _ in 0..needed {
                    let tags = 1 << tag;
                    let message = MessageIn::Completion {
                        device_id,
                        tags,
                        count,
                    };
                    let done = self.bench.message(&message);
                    self.dut(done)?;
                    self.iommu.invalidate_completion(device_id, tags, count);
                }
            }
        }
        self.checkpoint("ATS commands and their fence")?;
        self.recover_commands()
    }

    fn page_request(&mut self) -> Result<()> {
        if !self.iommu.capabilities().ats {
            return Ok(());
        }
        let request = self.world.page_request();
        let done = self.bench.message(&MessageIn::PageRequest(request));
        self.dut(done)?;
        self.iommu.page_request(&request);
        self.coverage.page_request(&request, self.iommu.messages());
        self.progress.page_requests += 1;
        self.checkpoint(&format!("{request:x?}"))
    }

    fn debug(&mut self) -> Result<()> {
        if !self.iommu.capabilities().dbg {
            return Ok(());
        }
        let request = self.world.request();
        let mut control = u64::from(request.device_id) << 40 | 1;
        control |= self.rng.random_range(0..8) << 1;
        if let Some(process_id) = request.process_id {
            control |= 1 << 32 | u64::from(process_id) << 12;
        }
        self.write(reg::TR_REQ_IOVA, 8, request.iova)?;
        self.write(reg::TR_REQ_CTL, 8, control)?;
        let done = self.bench.poll(reg::TR_REQ_CTL, |v| v & 1 == 0);
        self.dut(done)?;
        let got = self.bench.read(reg::TR_RESPONSE, 8);
        let got = self.dut(got)?;
        let expected = self.iommu.read(reg::TR_RESPONSE, 8);
        if !same_response(expected, got) {
            return Err(self.mismatch(format!(
                "tr_response: expected {expected:#x}, got {got:#x}; tr_req_ctl {control:#x}, \
                 tr_req_iova {:#x}",
                request.iova
            )));
        }
        self.progress.debug += 1;
        self.checkpoint("a debug translation")
    }

    /// What software does between: masks, vectors, pending bits, queues.
    fn software(&mut self) -> Result<()> {
        match self.rng.random_range(0..5) {
            0 => {
                let value = self.rng.random_range(0..16);
                self.write(reg::IPSR, 4, value)?;
            }
            1 => {
                let vector = self.rng.random_range(0..16);
                let masked = self.rng.random_range(0..2);
                self.write(reg::MSI_CFG_TBL + 16 * vector + 12, 4, masked)?;
            }
            2 => {
                let csr = [reg::FQCSR, reg::PQCSR][self.rng.random_range(0..2)];
                let value = self.rng.random_range(0..4u64) | self.rng.random_range(0..4u64) << 8;
                self.write_csr(csr, value | ENABLE)?;
            }
            3 => {
                let inhibited = u64::from(self.rng.random::<u32>());
                self.write(reg::IOCOUNTINH, 4, inhibited)?;
            }
            _ => {
                let value = u64::from(self.rng.random::<u32>());
                let index = [reg::FQH, reg::PQH][self.rng.random_range(0..2)];
                self.write(index, 4, value)?;
            }
        }
        self.checkpoint("a register write")
    }

    /// Records of messages and of writes into interrupt files.
    fn look_at_records(&mut self) {
        let big = self.world.fctl & 1 == 1;
        let entries = 1u64 << self.queue_log2[1];
        let (mut head, tail) = (self.iommu.read(reg::FQH, 4), self.iommu.read(reg::FQT, 4));
        // A queue that is off has the tail of an earlier one.
        while head != tail && tail < entries {
            let words = [0, 8, 16, 24].map(|i| {
                let word = self.iommu.memory.ram.get(FQ + 32 * head + i);
                if big { word.swap_bytes() } else { word }
            });
            self.coverage.record(&golden::FaultRecord::decode(&words));
            head = (head + 1) % entries;
        }
    }

    /// Software takes what is in the queues, and at times clears errors.
    fn drain_queues(&mut self) -> Result<()> {
        self.look_at_records();
        for (head, tail, csr) in [
            (reg::FQH, reg::FQT, reg::FQCSR),
            (reg::PQH, reg::PQT, reg::PQCSR),
        ] {
            if self.chance(60) {
                let tail = self.iommu.read(tail, 4);
                self.write(head, 4, tail)?;
                let value = self.iommu.read(csr, 4);
                self.write_csr(csr, value & 3 | 0x300)?;
            }
        }
        if self.chance(60) {
            self.write(reg::IPSR, 4, 0xf)?;
        }
        Ok(())
    }

    /// Nothing is under way: registers, memory, messages and wires must agree.
    fn checkpoint(&mut self, after: &str) -> Result<()> {
        let settled = self.bench.settle();
        self.dut(settled)?;
        self.compare_messages(after)?;
        self.compare_registers(after)?;
        self.compare_memory(after)
    }

    fn compare_messages(&mut self, after: &str) -> Result<()> {
        let expected = self.iommu.take_messages();
        let got = self.bench.take_messages();
        if expected != got {
            return Err(self.mismatch(format!(
                "messages after {after}: expected {expected:x?}, got {got:x?}"
            )));
        }
        // Rises of a cause that come together may become one message.
        let mut expected = std::mem::take(&mut self.iommu.memory.messages);
        let mut got = std::mem::take(&mut self.bench.memory.messages);
        let (wanted, sent) = (expected.len(), got.len());
        for list in [&mut expected, &mut got] {
            list.sort_unstable();
            list.dedup();
        }
        if expected != got || sent > wanted {
            return Err(self.mismatch(format!(
                "MSIs after {after}: expected {expected:x?}, got {got:x?} ({sent} for {wanted})"
            )));
        }
        let (expected, got) = (self.iommu.wires(), self.bench.wires());
        if expected != got {
            return Err(self.mismatch(format!(
                "wires after {after}: expected {expected:#x}, got {got:#x}"
            )));
        }
        Ok(())
    }

    fn compare_registers(&mut self, after: &str) -> Result<()> {
        let registers = (reg::FCTL..reg::IOHPMCYCLES)
            .step_by(4)
            .chain([reg::QOSID, reg::ICVEC]);
        for offset in registers {
            self.compare_register(after, offset)?;
        }
        if self.iommu.capabilities().hpm {
            for counter in 0..u32::from(self.config.choices.event_counters) {
                let selector = self.iommu.read(reg::IOHPMEVT + 8 * counter, 8);
                // How often an IOMMU misses and walks is its own affair.
                if matches!(selector & 0x7fff, 0..=3) {
                    for half in [0, 4] {
                        self.compare_register(after, reg::IOHPMCTR + 8 * counter + half)?;
                        self.compare_register(after, reg::IOHPMEVT + 8 * counter + half)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn compare_register(&mut self, after: &str, offset: u32) -> Result<()> {
        let got = self.bench.read(offset, 4);
        let got = self.dut(got)?;
        let expected = self.iommu.read(offset, 4);
        if got == expected {
            return Ok(());
        }
        Err(self.mismatch(format!(
            "register {offset} after {after}: expected {expected:#x}, got {got:#x}"
        )))
    }

    fn compare_memory(&mut self, after: &str) -> Result<()> {
        if self.bench.memory.ram == self.iommu.memory.ram {
            return Ok(());
        }
        let differences: Vec<String> = self
            .iommu
            .memory
            .ram
            .differences(&self.bench.memory.ram)
            .map(|(at, expected, got)| format!("{at:#x}: {expected:#x}, got {got:#x}"))
            .collect();
        let text = differences.join("; ");
        Err(self.mismatch(format!("memory after {after}: expected {text}")))
    }
}

/// Whether two values of `tr_response` say the same. With a fault the other fields are unspecified,
/// and a part of the range may be reported instead of it (IOMMU §5.26).
fn same_response(expected: u64, got: u64) -> bool {
    if (expected | got) & 1 == 1 {
        return expected & got & 1 == 1;
    }
    let range = |value: u64| {
        let ppn = value >> 10 & ((1 << 44) - 1);
        let pages = if value >> 9 & 1 == 1 {
            2u64 << ppn.trailing_ones()
        } else {
            1
        };
        (ppn & !(pages - 1), pages)
    };
    let ((first, pages), (got_first, got_pages)) = (range(expected), range(got));
    let rest = !(0x3ff << 44 | (1 << 44) - 1 << 10 | 1 << 9);
    expected & rest == got & rest && got_first >= first && got_first + got_pages <= first + pages
}
