//! The IOMMU with everything in its configuration, the least, the other choices, or parts, without the judge:
//! what it must do stands in the tests, from the specification's text.

mod layout;
mod memory;
mod vm;

use std::collections::{HashMap, HashSet, VecDeque};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_sim::Model;
use tlproof_sim::ports::iommu_formats::IommuFormats;

use crate::bench::{command, csr, reg};

pub use layout::{Answer, Ats, Message, Mrif, Record, Request, Sent, Ttyp};
pub use memory::{Access, Failure};
pub use vm::{Context, Process, Vm, implicit, pd};

/// Longer than anything may take.
const PATIENCE: u32 = 20_000;
/// Strap of the configuration with MSI page tables, without interrupt files in memory.
const MSI_FLAT: u32 = 1;
/// Strap of the configuration with everything.
const FULL: u32 = 2;
/// Strap of the configuration with the least.
const MINIMAL: u32 = 3;
/// Strap of the configuration with the other choices.
const OTHER: u32 = 4;
/// Strap of the configuration with parts of features.
const PARTIAL: u32 = 5;
const QUEUE_LOG2: u32 = 7;

pub struct Rig {
    model: Model<IommuFormats>,
    rng: ChaCha8Rng,
    words: HashMap<u64, u64>,
    /// Pages that answer with an access fault.
    pub broken: HashSet<u64>,
    /// Pages whose data is corrupt.
    pub corrupt: HashSet<u64>,
    /// Doublewords whose data is corrupt.
    pub poisoned: HashSet<u64>,
    /// How atomics end, instead of being done.
    pub atomics: Option<Failure>,
    /// A store of the CPU right before the next atomic to this address.
    pub race: Option<(u64, u64)>,
    /// Responses from this address are held back.
    pub held: Option<u64>,
    /// The bridge does not acknowledge drains.
    pub undrained: bool,
    /// Memory takes no request.
    pub unready: bool,
    /// Devices take no message.
    pub deaf: bool,
    owed: VecDeque<memory::Owed>,
    /// Memory accesses since the last request began.
    pub accesses: Vec<Access>,
    answers: VecDeque<Answer>,
    response: Option<u64>,
    mrif_done: bool,
    sent: Vec<Sent>,
    now: u64,
    /// A drain is acknowledged in this cycle.
    drained: bool,
    free: u64,
    commands: u64,
    faults: u64,
    tail: u32,
    head: u32,
}

impl Rig {
    /// Out of reset, both queues on, `ddtp` Off.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, FULL)
    }

    /// [`Self::new`] of the configuration with the least.
    pub fn minimal(seed: u64) -> Self {
        Self::with(seed, MINIMAL)
    }

    /// [`Self::new`] of the configuration with MSI page tables, without interrupt files in memory.
    pub fn msi_flat(seed: u64) -> Self {
        Self::with(seed, MSI_FLAT)
    }

    /// [`Self::new`] of the configuration with the other choices; its tables are big-endian.
    pub fn other(seed: u64) -> Self {
        Self::with(seed, OTHER)
    }

    /// [`Self::new`] of the configuration with parts of features.
    pub fn partial(seed: u64) -> Self {
        Self::with(seed, PARTIAL)
    }

    fn with(seed: u64, config: u32) -> Self {
        let mut rig = Self {
            model: Model::new().expect("the model is compiled in"),
            rng: ChaCha8Rng::seed_from_u64(seed),
            words: HashMap::new(),
            broken: HashSet::new(),
            corrupt: HashSet::new(),
            poisoned: HashSet::new(),
            atomics: None,
            race: None,
            held: None,
            undrained: false,
            unready: false,
            deaf: false,
            owed: VecDeque::new(),
            now: 0,
            accesses: Vec::new(),
            answers: VecDeque::new(),
            response: None,
            mrif_done: false,
            sent: Vec::new(),
            drained: false,
            free: 0x8000_0000,
            commands: 0,
            faults: 0,
            tail: 0,
            head: 0,
        };
        rig.model.input.set_config_i(config);
        for _ in 0..3 {
            rig.model.cycle().expect("no assertion fails");
        }
        rig.model.input.set_rst_ni(true);
        rig.commands = rig.page();
        rig.faults = rig.page();
        rig.queues();
        rig
    }

    /// A reset, whatever is under way. Nothing is set up after it.
    pub fn reset(&mut self) {
        self.owed.clear();
        self.answers.clear();
        self.model.input.set_mem_rsp_valid_i(false);
        self.model.input.set_rst_ni(false);
        for _ in 0..3 {
            self.model.cycle().expect("no assertion fails");
        }
        self.model.input.set_rst_ni(true);
    }

    /// Sets both queues up and turns them on.
    fn queues(&mut self) {
        let size = u64::from(QUEUE_LOG2 - 1);
        self.write(reg::CQB, 8, self.commands >> 12 << 10 | size);
        self.write(reg::FQB, 8, self.faults >> 12 << 10 | size);
        for register in [reg::CQCSR, reg::FQCSR] {
            self.write(register, 4, csr::ENABLE);
            while self.read(register, 4) & csr::ON == 0 {}
        }
        (self.head, self.tail) = (0, 0);
    }

    /// Writes `fctl` while nothing is on (IOMMU §5.4), then turns both queues on again, empty.
    pub fn set_fctl(&mut self, value: u64) {
        for register in [reg::CQCSR, reg::FQCSR] {
            self.write(register, 4, 0);
            while self.read(register, 4) & csr::ON != 0 {}
        }
        self.write(reg::FCTL, 4, value);
        self.write(reg::CQT, 4, 0);
        self.write(reg::FQH, 4, 0);
        self.queues();
    }

    /// A new page, zero.
    pub fn page(&mut self) -> u64 {
        self.pages(1)
    }

    /// `count` new pages, aligned to their size.
    pub fn pages(&mut self, count: u64) -> u64 {
        let size = 4096 * count.next_power_of_two();
        let first = self.free.next_multiple_of(size);
        self.free = first + size;
        first
    }

    /// One request and its answer.
    pub fn ask(&mut self, request: Request) -> Answer {
        self.accesses.clear();
        let tag = self.rng.random_range(0..32);
        request.drive(tag, self.model.input.tr_req_i());
        self.model.input.set_tr_req_valid_i(true);
        self.until(|rig| rig.model.output.tr_req_ready_o());
        self.model.input.set_tr_req_valid_i(false);
        for _ in 0..PATIENCE {
            if let Some(answer) = self.answers.pop_front() {
                assert_eq!(answer.tag, tag);
                return answer;
            }
            self.cycle();
        }
        panic!("no answer to {request:x?}");
    }

    /// A write into a memory-resident interrupt file.
    pub fn store_msi(&mut self, mrif: &Mrif) {
        self.begin_msi(mrif);
        for _ in 0..PATIENCE {
            if self.mrif_done {
                return;
            }
            self.cycle();
        }
        panic!("no end of {mrif:x?}");
    }

    /// As [`Self::store_msi`], without waiting for the end.
    pub fn begin_msi(&mut self, mrif: &Mrif) {
        self.accesses.clear();
        mrif.drive(self.model.input.mrif_req_i());
        self.model.input.set_mrif_req_valid_i(true);
        self.mrif_done = false;
        self.until(|rig| rig.model.output.mrif_req_ready_o());
        self.model.input.set_mrif_req_valid_i(false);
    }

    /// Begins a request whose answer is for [`Self::finish`].
    pub fn begin(&mut self, request: Request) {
        self.accesses.clear();
        request.drive(0, self.model.input.tr_req_i());
        self.model.input.set_tr_req_valid_i(true);
        self.until(|rig| rig.model.output.tr_req_ready_o());
        self.model.input.set_tr_req_valid_i(false);
    }

    /// The answer to the request that was begun.
    pub fn finish(&mut self) -> Answer {
        self.until(|rig| !rig.answers.is_empty());
        self.answers.pop_front().expect("just seen")
    }

    /// Whether the request that was begun has been answered.
    pub fn answered(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Does `act` while `request` is offered again and again.
    pub fn beside<T>(&mut self, request: Request, act: impl FnOnce(&mut Self) -> T) -> T {
        request.drive(0, self.model.input.tr_req_i());
        self.model.input.set_tr_req_valid_i(true);
        let result = act(self);
        self.until(|rig| rig.model.output.tr_req_ready_o());
        self.model.input.set_tr_req_valid_i(false);
        self.run(500);
        self.answers.clear();
        result
    }

    /// Offers requests as fast as they are taken. Returns, for each, the cycles in which it was
    /// taken and answered.
    pub fn stream(&mut self, requests: &[Request]) -> Vec<(u64, u64)> {
        let mut taken = Vec::new();
        let mut answered = Vec::new();
        while answered.len() < requests.len() {
            let next = requests.get(taken.len());
            self.model.input.set_tr_req_valid_i(next.is_some());
            if let Some(request) = next {
                let tag = taken.len() as u64 % 32;
                request.drive(tag, self.model.input.tr_req_i());
            }
            self.cycle();
            if next.is_some() && self.model.output.tr_req_ready_o() {
                taken.push(self.now);
            }
            while let Some(answer) = self.answers.pop_front() {
                assert_eq!(answer.tag, answered.len() as u64 % 32);
                assert_eq!(answer.status, 0);
                answered.push(self.now);
            }
        }
        taken.into_iter().zip(answered).collect()
    }

    /// Executes commands and a fence.
    pub fn sync(&mut self, commands: &[[u64; 2]]) {
        let fence = [command::fence(None, true)];
        self.submit(&[commands, &fence].concat());
    }

    /// Executes commands.
    pub fn submit(&mut self, commands: &[[u64; 2]]) {
        self.hand_over(commands);
        for _ in 0..PATIENCE {
            let status = self.read(reg::CQCSR, 4);
            let errors = csr::ILLEGAL | csr::MEMORY_FAULT | csr::TIMEOUT;
            assert_eq!(status & errors, 0, "{status:#x}");
            if self.read(reg::CQH, 4) == u64::from(self.tail) {
                return;
            }
        }
        panic!("the command queue stands still");
    }

    /// Where the next command goes.
    pub fn next_command(&self) -> u64 {
        self.commands + 16 * u64::from(self.tail)
    }

    /// The page of the fault queue.
    pub fn fault_queue(&self) -> u64 {
        self.faults
    }

    /// Hands commands over.
    pub fn hand_over(&mut self, commands: &[[u64; 2]]) {
        let big = self.read(reg::FCTL, 4) & 1 == 1;
        for words in commands {
            let at = self.next_command();
            self.store_as(at, words[0], big);
            self.store_as(at + 8, words[1], big);
            self.tail = (self.tail + 1) % (1 << QUEUE_LOG2);
        }
        self.write(reg::CQT, 4, self.tail.into());
    }

    /// The new records of the fault queue.
    pub fn records(&mut self) -> Vec<Record> {
        for _ in 0..200 {
            self.cycle();
        }
        let big = self.read(reg::FCTL, 4) & 1 == 1;
        let tail = self.read(reg::FQT, 4) as u32;
        let mut records = Vec::new();
        while self.head != tail {
            let at = self.faults + 32 * u64::from(self.head);
            records.push(Record::decode(
                [0, 8, 16, 24].map(|i| self.load_as(at + i, big)),
            ));
            self.head = (self.head + 1) % (1 << QUEUE_LOG2);
        }
        self.write(reg::FQH, 4, self.head.into());
        records
    }

    /// The request must end in this fault, with one record. Returns it.
    pub fn fault(&mut self, request: Request, cause: u64) -> Record {
        let answer = self.ask(request);
        assert_eq!(answer.cause, cause, "{request:x?}: {answer:x?}");
        assert_ne!(answer.status, 0);
        let records = self.records();
        assert_eq!(records.len(), 1, "{records:x?}");
        let record = records[0];
        assert_eq!(record.cause, cause);
        assert_eq!(record.ttyp, request.ttyp as u64);
        assert_eq!(record.device_id, u64::from(request.device_id));
        assert_eq!(record.iotval, request.iova);
        assert_eq!(record.process_id, request.process_id.map(u64::from));
        record
    }

    /// As [`Self::fault`], with no record.
    pub fn silent_fault(&mut self, request: Request, cause: u64) {
        let answer = self.ask(request);
        assert_eq!(answer.cause, cause, "{request:x?}: {answer:x?}");
        assert_eq!(self.records(), []);
    }

    /// The request must be translated. Returns the answer.
    pub fn translate(&mut self, request: Request) -> Answer {
        let answer = self.ask(request);
        assert_eq!(
            (answer.status, answer.cause),
            (0, 0),
            "{request:x?}: {answer:x?}"
        );
        answer
    }

    /// A register access with any byte enables of the doubleword at `offset`.
    pub fn access(&mut self, write: bool, offset: u32, enables: u32, value: u64) -> u64 {
        let input = &mut self.model.input;
        input.set_reg_req_valid_i(true);
        input.set_reg_req_write_i(write);
        input.set_reg_req_addr_i(offset);
        input.set_reg_req_be_i(enables);
        input.set_reg_req_wdata_i(value);
        self.response = None;
        self.cycle();
        self.model.input.set_reg_req_valid_i(false);
        for _ in 0..PATIENCE {
            if let Some(value) = self.response.take() {
                return value;
            }
            self.cycle();
        }
        panic!("no response to a register access");
    }

    pub fn write(&mut self, offset: u32, size: u8, value: u64) {
        match (size, offset % 8) {
            (8, _) => self.access(true, offset, 0xff, value),
            (_, 0) => self.access(true, offset, 0x0f, value),
            _ => self.access(true, offset, 0xf0, value << 32),
        };
    }

    pub fn read(&mut self, offset: u32, size: u8) -> u64 {
        match (size, offset % 8) {
            (8, _) => self.access(false, offset, 0xff, 0),
            (_, 0) => self.access(false, offset, 0x0f, 0) & 0xffff_ffff,
            _ => self.access(false, offset, 0xf0, 0) >> 32,
        }
    }

    /// A PCIe message for the IOMMU, until it is taken.
    pub fn message(&mut self, message: &Message) {
        message.drive(self.model.input.msg_in_i());
        self.model.input.set_msg_in_valid_i(true);
        self.until(|rig| rig.model.output.msg_in_ready_o());
        self.model.input.set_msg_in_valid_i(false);
    }

    /// The messages that the IOMMU has sent, after time for more.
    pub fn sent(&mut self) -> Vec<Sent> {
        for _ in 0..200 {
            self.cycle();
        }
        std::mem::take(&mut self.sent)
    }

    /// Runs `cycles` clock cycles.
    pub fn run(&mut self, cycles: u64) {
        for _ in 0..cycles {
            self.cycle();
        }
    }

    /// The wired interrupts.
    pub fn wires(&mut self) -> u32 {
        self.cycle();
        self.model.output.wsi_o()
    }

    /// Writes `ddtp` and waits until it has taken effect.
    pub fn set_ddtp(&mut self, mode: u64, table: u64) {
        self.write(reg::DDTP, 8, table >> 12 << 10 | mode);
        while self.read(reg::DDTP, 4) & 1 << 4 != 0 {}
    }

    /// Runs at least one cycle, the last of them the first in which `done`.
    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..PATIENCE {
            self.cycle();
            if done(self) {
                return;
            }
        }
        panic!("not within {PATIENCE} cycles");
    }

    fn cycle(&mut self) {
        self.drive_memory();
        self.drained = self.model.output.drain_req_o() && !self.drained && !self.undrained;
        self.model.input.set_drain_ack_i(self.drained);
        let ready = self.rng.random_bool(0.5) && !self.deaf;
        self.model.input.set_msg_out_ready_i(ready);
        if let Err(e) = self.model.cycle() {
            panic!("{e}");
        }
        self.now += 1;
        let output = &self.model.output;
        if output.reg_rsp_valid_o() {
            self.response = Some(output.reg_rsp_rdata_o());
        }
        if output.tr_rsp_valid_o() {
            self.answers.push_back(Answer::decode(output.tr_rsp_o()));
        }
        self.mrif_done |= output.mrif_done_o();
        if ready && output.msg_out_valid_o() {
            self.sent.push(Sent::decode(output.msg_out_o()));
        }
        self.take_memory();
    }
}
