//! The IOMMU with everything around it: a memory of random latency, a bridge that sends requests
//! and drains, a CPU that reaches the registers. The judge is told what the CPU does and asked
//! about every answer.

mod cpu;
mod ports;
mod registers;

use std::collections::{HashMap, HashSet, VecDeque};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_golden::iommu::{
    Actual, Choices, Judge, Mismatch, Outcome, Request, Stamp, WideMsiMask,
};
use tlproof_golden::memory::{CachedMemory, Memory};
use tlproof_pcie::{MemoryMap, PhysAddr};
use tlproof_sim::Model;
use tlproof_sim::ports::iommu_formats::IommuFormats;

pub use registers::{command, csr, reg};

const TAGS: usize = 32;
/// Longer than any access may take.
const PATIENCE: usize = 20_000;
/// Tags at the memory port.
const TAG_CQ: u64 = 6;

/// Entries of the queues.
pub const CQ_ENTRIES: u32 = 128;
pub const FQ_ENTRIES: u32 = 512;

/// A request that the IOMMU has taken.
#[derive(Clone, Copy)]
struct Flight {
    request: Request,
    since: Stamp,
    number: u64,
}

/// An answer and what the judge says of it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub request: Request,
    pub since: Stamp,
    pub actual: Actual,
    pub verdict: Result<Outcome, Mismatch>,
}

/// A response that the memory port owes.
struct Owed {
    due: u64,
    addr: u64,
    tag: u64,
    beats: VecDeque<Beat>,
}

/// One beat of a response.
#[derive(Clone, Copy)]
struct Beat {
    data: [u64; 4],
    error: bool,
    poison: bool,
}

/// A fence with a store that has not come yet.
struct Fence {
    addr: u64,
    data: u32,
    /// Numbers of the requests that were under way when it was submitted.
    before: HashSet<u64>,
    global: bool,
    drains: u64,
}

#[derive(Clone, Copy)]
struct Access {
    write: bool,
    addr: u32,
    enables: u32,
    data: u64,
}

/// Format of the device contexts (IOMMU §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 32 bytes.
    Base,
    /// 64 bytes, with capabilities.MSI_FLAT.
    Extended,
}

pub struct Bench {
    model: Model<IommuFormats>,
    /// Format of the device contexts.
    pub format: Format,
    pub memory: CachedMemory,
    pub judge: Judge,
    pub rng: ChaCha8Rng,
    /// Requests that the bridge will offer.
    pub requests: VecDeque<Request>,
    offered: Option<(Request, u8)>,
    flights: [Option<Flight>; TAGS],
    accepted: u64,
    answered: u64,
    pub answers: Vec<Answer>,
    owed: Vec<Owed>,
    memory_ready: bool,
    /// Doublewords that read as poisoned.
    pub poisoned: HashSet<u64>,
    /// What the IOMMU reads in place of the 16 bytes that memory holds.
    pub forged: HashMap<u64, [u64; 2]>,
    /// Responses to reads of this address are held back.
    pub held: Option<u64>,
    /// 4-byte stores outside main memory: address and data.
    pub messages: Vec<(u64, u32)>,
    access: Option<Access>,
    response: Option<u64>,
    /// Cycles until a drain is acknowledged, at most.
    pub drain_latency: u64,
    /// Latency of the memory, at most.
    pub memory_latency: u64,
    drain_due: Option<u64>,
    pub drains: u64,
    fences: Vec<Fence>,
    now: u64,
    /// First free page for tables.
    free: u64,
    pub command_queue: u64,
    pub fault_queue: u64,
    pub tail: u32,
    pub head: u32,
    fence_cells: u64,
    fence_count: u32,
    /// What happened last, for reports.
    log: VecDeque<String>,
}

/// Bits `lsb` and up of a packed struct.
pub fn get(words: &[u32], lsb: usize, width: usize) -> u64 {
    (0..width).fold(0, |value, i| {
        let at = lsb + i;
        value | u64::from(words[at / 32] >> (at % 32) & 1) << i
    })
}

pub fn put(words: &mut [u32], lsb: usize, width: usize, value: u64) {
    for i in 0..width {
        let at = lsb + i;
        let bit = (value >> i & 1) as u32;
        words[at / 32] = words[at / 32] & !(1 << (at % 32)) | bit << (at % 32);
    }
}

/// What this IOMMU chose where the specification is open: the table in `rtl/iommu/README.md`.
fn choices() -> Choices {
    Choices {
        wide_pass_through_faults: true,
        wide_msi_mask: WideMsiMask::Used,
        msi_needs_second_stage: false,
        ..Choices::default()
    }
}

impl Bench {
    /// An IOMMU out of reset, with both queues off.
    pub fn reset(seed: u64) -> Self {
        Self::reset_with(seed, Format::Base)
    }

    fn reset_with(seed: u64, format: Format) -> Self {
        let mut bench = Self {
            model: Model::new().expect("the model is compiled in"),
            format,
            memory: CachedMemory::new(&MemoryMap::default()),
            judge: Judge::new(0, choices()),
            rng: ChaCha8Rng::seed_from_u64(seed),
            requests: VecDeque::new(),
            offered: None,
            flights: [None; TAGS],
            accepted: 0,
            answered: 0,
            answers: Vec::new(),
            owed: Vec::new(),
            memory_ready: false,
            poisoned: HashSet::new(),
            forged: HashMap::new(),
            held: None,
            messages: Vec::new(),
            access: None,
            response: None,
            drain_latency: 30,
            memory_latency: 20,
            drain_due: None,
            drains: 0,
            fences: Vec::new(),
            now: 0,
            free: 0x8000_0000,
            command_queue: 0,
            fault_queue: 0,
            tail: 0,
            head: 0,
            fence_cells: 0,
            fence_count: 0,
            log: VecDeque::new(),
        };
        bench
            .model
            .input
            .set_config_i((format == Format::Extended).into());
        for _ in 0..3 {
            bench.clock();
        }
        bench.model.input.set_rst_ni(true);
        bench.cycle();
        let capabilities = bench.raw_read(reg::CAPABILITIES, 8);
        bench.judge = Judge::new(capabilities, choices());
        // Queues are aligned to their sizes (IOMMU §5.6, §5.9): the larger one first.
        bench.fault_queue = bench.free;
        bench.free += 32 * u64::from(FQ_ENTRIES);
        bench.command_queue = bench.page();
        bench.fence_cells = bench.page();
        bench
    }

    /// An IOMMU with both queues on and `ddtp` Off.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Format::Base)
    }

    /// As [`Self::new`], with device contexts of this format.
    pub fn with(seed: u64, format: Format) -> Self {
        let mut bench = Self::reset_with(seed, format);
        let cqb = bench.command_queue >> 12 << 10 | u64::from(CQ_ENTRIES.ilog2() - 1);
        let fqb = bench.fault_queue >> 12 << 10 | u64::from(FQ_ENTRIES.ilog2() - 1);
        bench.write(reg::CQB, 8, cqb);
        bench.write(reg::FQB, 8, fqb);
        bench.enable(reg::CQCSR);
        bench.enable(reg::FQCSR);
        bench
    }

    /// Turns a queue on.
    pub fn enable(&mut self, register: u32) {
        self.write(register, 4, csr::ENABLE);
        self.poll(register, |v| v & csr::ON != 0);
        match register {
            reg::CQCSR => self.tail = 0,
            _ => self.head = 0,
        }
    }

    fn note(&mut self, event: String) {
        if self.log.len() == 2000 {
            self.log.pop_front();
        }
        self.log.push_back(format!("{:7} {event}", self.now));
    }

    /// Panics with the events that led here.
    pub fn fail(&self, why: &str) -> ! {
        for event in &self.log {
            println!("{event}");
        }
        panic!("{why}");
    }

    /// A new page for tables, zero.
    pub fn page(&mut self) -> u64 {
        self.free += 4096;
        self.free - 4096
    }

    /// Whether [`Self::page`] has handed out the page at `addr`.
    pub fn is_table(&self, addr: u64) -> bool {
        (self.fence_cells + 4096..self.free).contains(&addr)
    }

    /// A store by the CPU.
    pub fn store(&mut self, addr: u64, value: u64) {
        let old = self.load(addr);
        if old != value {
            self.note(format!("CPU store {addr:#x}: {old:#x} -> {value:#x}"));
            self.judge.memory_changed(PhysAddr(addr), old);
            self.memory
                .cpu_write(PhysAddr(addr), &value.to_le_bytes())
                .expect("main memory");
        }
    }

    pub fn load(&self, addr: u64) -> u64 {
        self.memory.read_u64(PhysAddr(addr)).expect("main memory")
    }

    /// Offers `request` to the judge-watched IOMMU when its turn comes.
    pub fn send(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    /// Sends one request and waits for its answer.
    pub fn ask(&mut self, request: Request) -> Answer {
        self.settle();
        self.send(request);
        self.settle();
        self.answers.pop().expect("an answer")
    }

    /// As [`Self::ask`]; the judge must agree.
    pub fn translate(&mut self, request: Request) -> Answer {
        let answer = self.ask(request);
        if let Err(mismatch) = &answer.verdict {
            panic!("{request:x?}: {mismatch}");
        }
        answer
    }

    /// Runs until all requests have been answered.
    pub fn settle(&mut self) {
        for _ in 0..PATIENCE {
            if self.requests.is_empty() && self.offered.is_none() && self.in_flight() == 0 {
                return;
            }
            self.cycle();
        }
        panic!("requests without an answer");
    }

    pub fn in_flight(&self) -> usize {
        self.flights.iter().flatten().count()
    }

    /// Runs `cycles` clock cycles.
    pub fn run(&mut self, cycles: u64) {
        for _ in 0..cycles {
            self.cycle();
        }
    }

    fn clock(&mut self) {
        if let Err(e) = self.model.cycle() {
            panic!("{e}");
        }
        self.now += 1;
    }

    /// One clock cycle: drives what the surroundings have to say, then takes what the IOMMU says.
    pub fn cycle(&mut self) {
        self.drive_request();
        self.drive_memory();
        let due = self.drain_due.is_some_and(|due| due <= self.now);
        self.model.input.set_drain_ack_i(due);
        let access = self.access.take();
        let input = &mut self.model.input;
        input.set_reg_req_valid_i(access.is_some());
        if let Some(a) = access {
            input.set_reg_req_write_i(a.write);
            input.set_reg_req_addr_i(a.addr);
            input.set_reg_req_be_i(a.enables);
            input.set_reg_req_wdata_i(a.data);
        }
        self.clock();
        if due {
            self.drain_due = None;
            self.drains += 1;
        } else if self.model.output.drain_req_o() && self.drain_due.is_none() {
            self.drain_due = Some(self.now + self.rng.random_range(0..=self.drain_latency));
        }
        if self.model.output.reg_rsp_valid_o() {
            self.response = Some(self.model.output.reg_rsp_rdata_o());
        }
        if self.model.output.tr_rsp_valid_o() {
            self.take_answer();
        }
        self.take_request();
        self.take_memory_request();
    }
}
