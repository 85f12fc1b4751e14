//! The IOMMU with everything around it: a memory of random latency, a bridge that sends requests
//! and drains, a CPU that reaches the registers. The judge is told what the CPU does and asked
//! about every answer.

use std::collections::{HashMap, HashSet, VecDeque};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_golden::iommu::{
    Actual, Choices, FaultRecord, Judge, Mismatch, Outcome, Request, Stamp, Status,
};
use tlproof_golden::memory::{CachedMemory, Memory};
use tlproof_pcie::{MemoryMap, PhysAddr};
use tlproof_sim::Model;
use tlproof_sim::ports::iommu::Iommu;

/// Offsets of registers (IOMMU §5.2).
pub mod reg {
    pub const CAPABILITIES: u32 = 0;
    pub const FCTL: u32 = 8;
    pub const DDTP: u32 = 16;
    pub const CQB: u32 = 24;
    pub const CQH: u32 = 32;
    pub const CQT: u32 = 36;
    pub const FQB: u32 = 40;
    pub const FQH: u32 = 48;
    pub const FQT: u32 = 52;
    pub const CQCSR: u32 = 72;
    pub const FQCSR: u32 = 76;
    pub const IPSR: u32 = 84;
    pub const ICVEC: u32 = 760;
    pub const MSI_CFG_TBL: u32 = 768;
}

/// `cqcsr` and `fqcsr`.
pub mod csr {
    pub const ENABLE: u64 = 1;
    pub const INTERRUPT: u64 = 2;
    pub const MEMORY_FAULT: u64 = 1 << 8;
    pub const OVERFLOW: u64 = 1 << 9;
    pub const ILLEGAL: u64 = 1 << 10;
    pub const ON: u64 = 1 << 16;
}

const TAGS: usize = 32;
/// Longer than any access may take.
const PATIENCE: usize = 20_000;
/// Tags at the memory port.
const TAG_CQ: u64 = 3;

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

pub struct Bench {
    model: Model<Iommu>,
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
fn get(words: &[u32], lsb: usize, width: usize) -> u64 {
    (0..width).fold(0, |value, i| {
        let at = lsb + i;
        value | u64::from(words[at / 32] >> (at % 32) & 1) << i
    })
}

fn put(words: &mut [u32], lsb: usize, width: usize, value: u64) {
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
        ..Choices::default()
    }
}

impl Bench {
    /// An IOMMU out of reset, with both queues off.
    pub fn reset(seed: u64) -> Self {
        let mut bench = Self {
            model: Model::new().expect("the model is compiled in"),
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
        let mut bench = Self::reset(seed);
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

    fn drive_request(&mut self) {
        if self.offered.is_none() && !self.requests.is_empty() && self.rng.random_bool(0.7) {
            let free: Vec<usize> = (0..TAGS).filter(|&t| self.flights[t].is_none()).collect();
            if !free.is_empty() {
                let tag = free[self.rng.random_range(0..free.len())];
                let request = self.requests.pop_front().expect("not empty");
                self.offered = Some((request, tag as u8));
            }
        }
        let input = &mut self.model.input;
        input.set_tr_req_valid_i(self.offered.is_some());
        if let Some((request, tag)) = self.offered {
            let words = input.tr_req_i();
            put(words, 0, 5, tag.into());
            put(words, 5, 64, request.iova);
            put(words, 69, 1, request.privileged.into());
            put(words, 70, 20, request.process_id.unwrap_or(0).into());
            put(words, 90, 1, request.process_id.is_some().into());
            put(words, 91, 24, request.device_id.into());
            put(words, 115, 6, request.ttyp as u64);
        }
    }

    fn take_request(&mut self) {
        if !self.model.output.tr_req_ready_o() {
            return;
        }
        if let Some((request, tag)) = self.offered.take() {
            self.note(format!("request {tag}: {request:x?}"));
            self.flights[usize::from(tag)] = Some(Flight {
                request,
                since: self.judge.stamp(),
                number: self.accepted,
            });
            self.accepted += 1;
        }
    }

    fn take_answer(&mut self) {
        let words = self.model.output.tr_rsp_o();
        let tag = get(words, 72, 5) as usize;
        let status = match get(words, 70, 2) {
            0 => Status::Ok,
            1 => Status::UnsupportedRequest,
            2 => Status::CompleterAbort,
            other => panic!("status {other}"),
        };
        let actual = Actual {
            status,
            cause: get(words, 58, 12) as u16,
            spa: PhysAddr(get(words, 0, 56)),
            pbmt: get(words, 56, 2) as u8,
        };
        assert_eq!(
            status == Status::Ok,
            actual.cause == 0,
            "a cause if and only if the request is aborted: {actual:x?}"
        );
        let flight = self.flights[tag].take().expect("a request with this tag");
        assert_eq!(
            flight.number, self.answered,
            "answers in the order of requests"
        );
        self.answered += 1;
        self.note(format!("answer {tag}: {actual:x?}"));
        let Flight { request, since, .. } = flight;
        let verdict = self.judge.check(&self.memory, &request, since, &actual);
        self.answers.push(Answer {
            request,
            since,
            actual,
            verdict,
        });
    }

    fn drive_memory(&mut self) {
        let due: Vec<usize> = (0..self.owed.len())
            .filter(|&i| self.owed[i].due <= self.now && Some(self.owed[i].addr) != self.held)
            .collect();
        let input = &mut self.model.input;
        input.set_mem_rsp_valid_i(!due.is_empty());
        if !due.is_empty() {
            let pick = due[self.rng.random_range(0..due.len())];
            let owed = self.owed.swap_remove(pick);
            let words = input.mem_rsp_i();
            for (i, data) in owed.data.iter().enumerate() {
                put(words, 64 * i, 64, *data);
            }
            put(words, 256, 4, owed.tag);
            put(words, 260, 1, owed.poison.into());
            put(words, 261, 1, owed.error.into());
            put(words, 262, 1, 1);
        }
        self.memory_ready = self.rng.random_bool(0.7);
        input.set_mem_req_ready_i(self.memory_ready);
    }

    fn take_memory_request(&mut self) {
        let output = &self.model.output;
        if !output.mem_req_valid_o() || !self.memory_ready {
            return;
        }
        let words = output.mem_req_o();
        let tag = get(words, 317, 4);
        let addr = get(words, 261, 56);
        let len = 4 * get(words, 256, 5) as usize;
        let write = get(words, 321, 1) == 1;
        let mut data = [0; 4];
        for (i, word) in data.iter_mut().enumerate() {
            *word = get(words, 64 * i, 64);
        }
        assert!((4..=32).contains(&len), "length {len}");
        assert!(
            addr.is_multiple_of(4) && addr % 64 + len as u64 <= 64,
            "{addr:#x} {len}"
        );
        assert!(
            self.owed.iter().all(|o| o.tag != tag),
            "one at a time a tag"
        );
        let (error, poison) = if write {
            (self.write_memory(tag, addr, &data, len), false)
        } else {
            let mut bytes = [0; 32];
            let error = self.memory.read(PhysAddr(addr), &mut bytes[..len]).is_err();
            for (word, chunk) in data.iter_mut().zip(bytes.chunks(8)) {
                *word = u64::from_le_bytes(chunk.try_into().expect("8 bytes"));
            }
            if let Some(forged) = self.forged.get(&addr) {
                data[..2].copy_from_slice(forged);
            }
            let mut doublewords = (addr..addr + len as u64).step_by(8);
            (error, doublewords.any(|a| self.poisoned.contains(&a)))
        };
        let kind = if write { "write" } else { "read" };
        self.note(format!("memory {kind} {tag}: {addr:#x} {data:x?}"));
        let due = self.now + self.rng.random_range(0..=self.memory_latency);
        self.owed.push(Owed {
            due,
            addr,
            tag,
            data,
            error,
            poison,
        });
    }

    /// A store of the IOMMU. Returns whether it met an access fault.
    fn write_memory(&mut self, tag: u64, addr: u64, data: &[u64; 4], len: usize) -> bool {
        if tag == TAG_CQ {
            self.fence_stored(addr, data[0] as u32);
        }
        if MemoryMap::default()
            .msi
            .contains(PhysAddr(addr), len as u64)
        {
            assert_eq!(len, 4, "messages have 4 bytes");
            self.messages.push((addr, data[0] as u32));
            return false;
        }
        if !self.memory.is_dram(PhysAddr(addr), len as u64) {
            return true;
        }
        for word in (addr & !7..addr + len as u64).step_by(8) {
            self.judge.memory_changed(PhysAddr(word), self.load(word));
        }
        let bytes: Vec<u8> = data.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.memory
            .device_write(PhysAddr(addr), &bytes[..len], None, true)
            .is_err()
    }

    /// IOMMU §3.1.2: nothing that was accepted before the fence is under way any more, and if the
    /// fence asked for it, the bridge was drained.
    fn fence_stored(&mut self, addr: u64, data: u32) {
        let at = self
            .fences
            .iter()
            .position(|f| (f.addr, f.data) == (addr, data));
        let fence = self
            .fences
            .swap_remove(at.expect("a fence with this store"));
        let passed = self
            .flights
            .iter()
            .flatten()
            .find(|f| fence.before.contains(&f.number));
        if let Some(flight) = passed {
            panic!("the fence has passed {:x?}", flight.request);
        }
        assert!(
            !fence.global || self.drains > fence.drains,
            "a fence with PR or PW without a drain"
        );
    }

    fn accessed(&mut self, write: bool, offset: u32, size: u8, value: u64) -> u64 {
        let high = offset % 8 == 4;
        self.access = Some(Access {
            write,
            addr: offset,
            enables: match (size, high) {
                (8, _) => 0xff,
                (_, true) => 0xf0,
                _ => 0x0f,
            },
            data: if high { value << 32 } else { value },
        });
        self.response = None;
        for _ in 0..PATIENCE {
            self.cycle();
            if let Some(value) = self.response.take() {
                return match (size, high) {
                    (8, _) => value,
                    (_, true) => value >> 32,
                    _ => value & 0xffff_ffff,
                };
            }
        }
        panic!("no response to a register access");
    }

    fn raw_read(&mut self, offset: u32, size: u8) -> u64 {
        self.accessed(false, offset, size, 0)
    }

    /// A register write by the CPU.
    pub fn write(&mut self, offset: u32, size: u8, value: u64) {
        self.note(format!("CPU writes register {offset}: {value:#x}"));
        self.judge.register_write(&self.memory, offset, size, value);
        self.accessed(true, offset, size, value);
    }

    /// A register read by the CPU.
    pub fn read(&mut self, offset: u32, size: u8) -> u64 {
        let value = self.raw_read(offset, size);
        self.note(format!("CPU reads register {offset}: {value:#x}"));
        self.judge.register_read(offset, size, value);
        value
    }

    /// Reads a register of 4 bytes until `done`.
    pub fn poll(&mut self, offset: u32, done: impl Fn(u64) -> bool) -> u64 {
        for _ in 0..PATIENCE / 4 {
            let value = self.read(offset, 4);
            if done(value) {
                return value;
            }
        }
        panic!("register {offset} did not change");
    }

    /// Writes `ddtp` and waits until it has taken effect.
    pub fn set_ddtp(&mut self, mode: u64, table: u64) {
        self.write(reg::DDTP, 8, table >> 12 << 10 | mode);
        self.poll(reg::DDTP, |v| v & 1 << 4 == 0);
        // The judge takes the whole register.
        self.read(reg::DDTP, 8);
    }

    /// Puts commands into the queue and hands them over.
    pub fn submit(&mut self, commands: &[[u64; 2]]) {
        for command in commands {
            let at = self.command_queue + 16 * u64::from(self.tail);
            self.store(at, command[0]);
            self.store(at + 8, command[1]);
            self.tail = (self.tail + 1) % CQ_ENTRIES;
        }
        self.write(reg::CQT, 4, self.tail.into());
    }

    /// A fence with a store of its own, which the bench checks when it comes; hand it over at
    /// once.
    pub fn fence(&mut self, global: bool) -> ([u64; 2], u64, u32) {
        self.fence_count += 1;
        let data = 0xf00d_0000 + self.fence_count;
        let addr = self.fence_cells + 8 * u64::from(self.fence_count % 512);
        self.fences.push(Fence {
            addr,
            data,
            before: self.flights.iter().flatten().map(|f| f.number).collect(),
            global,
            drains: self.drains,
        });
        (command::fence(Some((addr, data)), global), addr, data)
    }

    /// Expects the store of a fence made without [`Self::fence`].
    pub fn expect_fence(&mut self, addr: u64, data: u32) {
        self.fences.push(Fence {
            addr,
            data,
            before: HashSet::new(),
            global: false,
            drains: 0,
        });
    }

    /// Whether the CPU sees the store of a fence; tells the judge if so.
    pub fn fence_seen(&mut self, addr: u64, data: u32) -> bool {
        let seen = self.load(addr) as u32 == data;
        if seen {
            self.judge.fence_store_observed(PhysAddr(addr), data);
        }
        seen
    }

    /// Hands over commands and a fence, and waits for the fence.
    pub fn sync(&mut self, commands: &[[u64; 2]]) {
        self.submit(commands);
        self.submit(&[command::fence(None, true)]);
        self.poll_head();
    }

    /// Waits until the command queue is empty.
    pub fn poll_head(&mut self) {
        let tail = u64::from(self.tail);
        self.poll(reg::CQH, |v| v == tail);
    }

    /// Takes the records from the fault queue.
    pub fn take_faults(&mut self) -> Vec<[u64; 4]> {
        let tail = self.read(reg::FQT, 4) as u32;
        let mut records = Vec::new();
        while self.head != tail {
            let at = self.fault_queue + 32 * u64::from(self.head);
            records.push([0, 8, 16, 24].map(|i| self.load(at + i)));
            self.head = (self.head + 1) % FQ_ENTRIES;
        }
        self.write(reg::FQH, 4, self.head.into());
        records
    }

    /// The fault queue must hold what the judge expects, all of it, and nothing else.
    pub fn check_faults(&mut self) -> Vec<FaultRecord> {
        self.settle();
        self.run(4 * self.memory_latency + 40);
        let records = self.take_faults();
        let wrong = self.judge.compare_fault_queue(&records);
        assert!(wrong.is_empty(), "{wrong:#?}");
        let missing = self.judge.missing_fault_records();
        assert!(missing.is_empty(), "{missing:#?}");
        records.iter().map(FaultRecord::decode).collect()
    }
}

/// Commands (IOMMU §3.1).
pub mod command {
    /// Command of two doublewords.
    pub type Command = [u64; 2];

    /// IOTINVAL.VMA for an address space or all, and a page or all.
    pub fn iotinval(pscid: Option<u32>, iova: Option<u64>) -> Command {
        let pscv = pscid.map_or(0, |p| 1 << 32 | u64::from(p) << 12);
        let (av, addr) = iova.map_or((0, 0), |a| (1 << 10, a >> 12 << 10));
        [1 | av | pscv, addr]
    }

    /// IODIR.INVAL_DDT for a device or all.
    pub fn iodir(device_id: Option<u32>) -> Command {
        [3 | device_id.map_or(0, |d| 1 << 33 | u64::from(d) << 40), 0]
    }

    /// IOFENCE.C with an optional store, and PR and PW if `global`.
    pub fn fence(store: Option<(u64, u32)>, global: bool) -> Command {
        let pr_pw = if global { 3 << 12 } else { 0 };
        let (av, addr) = store.map_or((0, 0), |(a, d)| (1 << 10 | u64::from(d) << 32, a >> 2));
        [2 | av | pr_pw, addr]
    }
}
