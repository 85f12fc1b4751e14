//! The device under test with what surrounds it: a memory of random latency and order, a bridge that
//! offers requests and drains, a CPU at the registers, devices that send and take messages.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_golden::iommu::{AtsMessage, Request};
use tlproof_sim::{Model, SimError};

use crate::layout::{
    self, Answer, Beat, MemoryOp, MemoryRequest, MessageIn, decode_message, drive_message,
    drive_request,
};
use crate::memory::SystemRam;
use crate::ports::{Inputs, IommuTop, Outputs};

/// Cycles within which anything must get on.
const PATIENCE: u32 = 50_000;
/// Tags of the translation port.
const TAGS: usize = 32;
/// Cycles without any sign of life after which nothing is under way any more.
const QUIET: u32 = 40;

/// Why the bench cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BenchError {
    /// An assertion of the RTL failed.
    #[error(transparent)]
    Simulation(#[from] SimError),
    /// Nothing happens any more.
    #[error("no progress within {PATIENCE} cycles: {waiting}; memory requests open: {open}")]
    Stuck {
        /// What is waited for.
        waiting: String,
        /// Tags and addresses at the memory port that have no answer.
        open: String,
    },
    /// The device under test does what its ports do not allow.
    #[error("protocol: {0}")]
    Protocol(String),
}

/// How the surroundings behave.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Cycles until a memory response, at most.
    pub memory_latency: u32,
    /// Responses with different tags may overtake each other.
    pub reorder: bool,
    /// Chance in percent that the memory port takes a request.
    pub memory_ready: u32,
    /// Requests offered before the earlier ones have been answered, at most.
    pub outstanding: usize,
    /// Cycles until a drain is acknowledged, at most.
    pub drain_latency: u32,
}

/// A response that the memory owes.
struct Owed {
    due: u64,
    tag: u64,
    address: u64,
    beats: VecDeque<Beat>,
}

/// A device under test in its surroundings.
pub struct Bench<T: IommuTop> {
    model: Model<T>,
    rng: ChaCha8Rng,
    /// Its memory.
    pub memory: SystemRam,
    /// How the surroundings behave from now on.
    pub timing: Timing,
    owed: Vec<Owed>,
    ready: bool,
    offered: Option<usize>,
    drain_due: Option<u64>,
    now: u64,
    /// Cycles without a sign of life.
    quiet: u32,
    sent: Vec<AtsMessage>,
    answers: Vec<Answer>,
    response: Option<u64>,
    mrif_done: bool,
    /// Address of a store that is waited for, and the cycle in which it came.
    watched: Option<(u64, Option<u64>)>,
    /// Drains acknowledged so far.
    drains: u64,
    /// Doublewords that the device under test has changed, and what they were, if somebody asks.
    stores: Option<Vec<(u64, u64)>>,
}

/// What a clock cycle brought.
#[derive(Debug, Default)]
pub struct Step {
    /// The request that was offered is taken.
    pub taken: bool,
    /// Answers.
    pub answers: Vec<Answer>,
    /// Doublewords that the device under test has changed: address, and what they were.
    pub stores: Vec<(u64, u64)>,
}

/// A fence that is handed over while requests are under way.
#[derive(Clone, Copy, Debug)]
pub struct Fence {
    /// The write of `cqt` follows this many requests.
    pub behind: usize,
    /// Offset and value of the write.
    pub tail: (u32, u64),
    /// Address of the fence's store.
    pub cell: u64,
    /// PR or PW.
    pub global: bool,
}

impl<T: IommuTop> Bench<T> {
    /// Out of reset.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn new(config: u32, seed: u64) -> Result<Self, BenchError> {
        let mut model = Model::<T>::new()?;
        model.input.set_config_i(config);
        let mut bench = Self {
            model,
            rng: ChaCha8Rng::seed_from_u64(seed),
            memory: SystemRam::default(),
            timing: Timing {
                memory_latency: 4,
                reorder: true,
                memory_ready: 90,
                outstanding: 8,
                drain_latency: 10,
            },
            owed: Vec::new(),
            ready: false,
            offered: None,
            drain_due: None,
            now: 0,
            quiet: 0,
            sent: Vec::new(),
            answers: Vec::new(),
            response: None,
            mrif_done: false,
            watched: None,
            drains: 0,
            stores: None,
        };
        for _ in 0..3 {
            bench.model.cycle()?;
        }
        bench.model.input.set_rst_ni(true);
        bench.cycle()?;
        Ok(bench)
    }

    /// Clock cycles so far.
    #[must_use]
    pub const fn cycles(&self) -> u64 {
        self.now
    }

    /// Offers the requests as fast as [`Timing`] allows. The result is in their order.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn translate(&mut self, requests: &[Request]) -> Result<Vec<Answer>, BenchError> {
        self.translate_around(requests, None)
    }

    /// The same with a fence in the middle. It must not complete before the requests that were taken
    /// before it have been answered, nor without a drain if it is to order them (IOMMU §3.1.2).
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn translate_around(
        &mut self,
        requests: &[Request],
        fence: Option<Fence>,
    ) -> Result<Vec<Answer>, BenchError> {
        let mut fence = fence;
        // The requests before it, and drains until then.
        let mut before: Option<(usize, u64, Fence)> = None;
        let mut last_before = 0;
        let mut answers: Vec<Option<Answer>> = vec![None; requests.len()];
        let mut tags: [Option<usize>; TAGS] = [None; TAGS];
        let (mut next, mut open, mut waited) = (0, 0, 0);
        self.answers.clear();
        while next < requests.len() || open > 0 {
            if self.offered.is_none()
                && let Some(request) = requests.get(next)
                && open < self.timing.outstanding.min(TAGS)
                && let Some(tag) = tags.iter().position(Option::is_none)
            {
                drive_request(self.model.input.tr_req_i(), tag as u64, request);
                self.offered = Some(tag);
            }
            self.model.input.set_tr_req_valid_i(self.offered.is_some());
            let due = fence.take_if(|f| next >= f.behind);
            let write = due.map(|f| (true, f.tail.0, 0xf0, f.tail.1 << 32));
            self.model.input.set_reg_req(write);
            if let Some(f) = due {
                self.watched = Some((f.cell, None));
                before = Some((next, self.drains, f));
            }
            self.cycle()?;
            if let Some(tag) = self.offered
                && self.model.output.tr_req_ready_o()
            {
                tags[tag] = Some(next);
                next += 1;
                open += 1;
                self.offered = None;
            }
            for answer in std::mem::take(&mut self.answers) {
                let slot = &mut tags[answer.tag as usize];
                let Some(number) = slot.take() else {
                    let text = format!("an answer for tag {}, which is free", answer.tag);
                    return Err(BenchError::Protocol(text));
                };
                if before.is_some_and(|(count, ..)| number < count) {
                    last_before = self.now;
                }
                answers[number] = Some(answer);
                open -= 1;
                waited = 0;
            }
            waited += 1;
            if waited > PATIENCE {
                return Err(self.stuck(format!("{open} translations, {next} taken")));
            }
        }
        self.model.input.set_tr_req_valid_i(false);
        if let Some((_, drains, f)) = before {
            self.model.input.set_reg_req(None);
            self.until("the store of a fence", |b| {
                b.watched.is_none_or(|(_, seen)| seen.is_some())
            })?;
            let seen = self.watched.take().and_then(|(_, seen)| seen).unwrap_or(0);
            if seen < last_before {
                let text = format!(
                    "a fence completed in cycle {seen}, a request before it was answered in \
                     cycle {last_before}"
                );
                return Err(BenchError::Protocol(text));
            }
            if f.global && self.drains == drains {
                let text = "a fence with PR or PW completed without a drain".to_owned();
                return Err(BenchError::Protocol(text));
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// One clock cycle, in which a request with its tag is offered, the same one until it is taken, and
    /// the upper half of a doubleword of registers is written.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn step(
        &mut self,
        offer: Option<(u64, &Request)>,
        write: Option<(u32, u64)>,
    ) -> Result<Step, BenchError> {
        if let Some((tag, request)) = offer {
            drive_request(self.model.input.tr_req_i(), tag, request);
        }
        self.model.input.set_tr_req_valid_i(offer.is_some());
        let access = write.map(|(offset, value)| (true, offset, 0xf0, value << 32));
        self.model.input.set_reg_req(access);
        self.answers.clear();
        self.stores = Some(Vec::new());
        self.cycle()?;
        let taken = offer.is_some() && self.model.output.tr_req_ready_o();
        self.model.input.set_tr_req_valid_i(false);
        self.model.input.set_reg_req(None);
        Ok(Step {
            taken,
            answers: std::mem::take(&mut self.answers),
            stores: self.stores.take().unwrap_or_default(),
        })
    }

    /// A write into an interrupt file.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn write_interrupt_file(
        &mut self,
        request: &Request,
        answer: &Answer,
        data: u32,
    ) -> Result<(), BenchError> {
        layout::drive_mrif(self.model.input.mrif_req_i(), request, answer, data);
        self.model.input.set_mrif_req_valid_i(true);
        self.mrif_done = false;
        self.until("a write into an interrupt file to be taken", |b| {
            b.model.output.mrif_req_ready_o()
        })?;
        self.model.input.set_mrif_req_valid_i(false);
        self.until("the end of a write into an interrupt file", |b| b.mrif_done)
    }

    /// A PCIe message for the IOMMU.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn message(&mut self, message: &MessageIn) -> Result<(), BenchError> {
        drive_message(self.model.input.msg_in_i(), message);
        self.model.input.set_msg_in_valid_i(true);
        self.until("a message to be taken", |b| b.model.output.msg_in_ready_o())?;
        self.model.input.set_msg_in_valid_i(false);
        Ok(())
    }

    /// The messages of the IOMMU since the last call.
    pub fn take_messages(&mut self) -> Vec<AtsMessage> {
        std::mem::take(&mut self.sent)
    }

    /// The wired interrupts.
    pub fn wires(&self) -> u16 {
        self.model.output.wsi_o() as u16
    }

    /// A register read of 4 or 8 bytes.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn read(&mut self, offset: u32, size: u8) -> Result<u64, BenchError> {
        self.access(false, offset, size, 0)
    }

    /// A register write of 4 or 8 bytes.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn write(&mut self, offset: u32, size: u8, value: u64) -> Result<(), BenchError> {
        self.access(true, offset, size, value).map(drop)
    }

    fn access(
        &mut self,
        write: bool,
        offset: u32,
        size: u8,
        value: u64,
    ) -> Result<u64, BenchError> {
        let high = offset % 8 == 4;
        let (enables, shift) = match (size, high) {
            (8, _) => (0xff, 0),
            (_, true) => (0xf0, 32),
            _ => (0x0f, 0),
        };
        let request = (write, offset, enables, value << shift);
        self.model.input.set_reg_req(Some(request));
        self.response = None;
        self.cycle()?;
        self.model.input.set_reg_req(None);
        self.until("the response to a register access", |b| {
            b.response.is_some()
        })?;
        let value = self.response.take().unwrap_or(0) >> shift;
        Ok(if size == 8 {
            value
        } else {
            value & 0xffff_ffff
        })
    }

    /// Reads a register of 4 bytes until `done`.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn poll(&mut self, offset: u32, done: impl Fn(u64) -> bool) -> Result<(), BenchError> {
        for _ in 0..PATIENCE / 4 {
            if done(self.read(offset, 4)?) {
                return Ok(());
            }
        }
        Err(self.stuck(format!("register {offset} does not change")))
    }

    /// Runs until nothing has happened for a while.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn settle(&mut self) -> Result<(), BenchError> {
        self.quiet = 0;
        for _ in 0..PATIENCE {
            if self.quiet >= QUIET {
                return Ok(());
            }
            self.cycle()?;
        }
        Err(self.stuck("the IOMMU does not come to rest".to_owned()))
    }

    /// Runs `cycles` clock cycles.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn run(&mut self, cycles: u32) -> Result<(), BenchError> {
        for _ in 0..cycles {
            self.cycle()?;
        }
        Ok(())
    }

    /// Runs at least one cycle, the last of them the first in which `done`.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), BenchError> {
        for _ in 0..PATIENCE {
            self.cycle()?;
            if done(self) {
                return Ok(());
            }
        }
        Err(self.stuck(what.to_owned()))
    }

    fn stuck(&self, waiting: String) -> BenchError {
        let open = self.owed.iter();
        let open: Vec<String> = open
            .map(|o| format!("{} at {:#x}", o.tag, o.address))
            .collect();
        BenchError::Stuck {
            waiting,
            open: if open.is_empty() {
                "none".to_owned()
            } else {
                open.join(", ")
            },
        }
    }

    fn cycle(&mut self) -> Result<(), BenchError> {
        self.drive_memory();
        let drained = self.drain_due.is_some_and(|due| due <= self.now);
        self.model.input.set_drain_ack_i(drained);
        let take_message = self.rng.random_bool(0.7);
        self.model.input.set_msg_out_ready_i(take_message);
        self.model.cycle()?;
        self.now += 1;
        self.quiet += 1;
        if drained {
            self.drain_due = None;
            self.drains += 1;
        } else if self.model.output.drain_req_o() {
            self.quiet = 0;
            if self.drain_due.is_none() {
                let wait = self.rng.random_range(0..=self.timing.drain_latency);
                self.drain_due = Some(self.now + u64::from(wait));
            }
        }
        if let Some(value) = self.model.output.reg_rsp() {
            self.response = Some(value);
        }
        if let Some(words) = self.model.output.tr_rsp() {
            self.answers.push(Answer::decode(words));
            self.quiet = 0;
        }
        self.mrif_done |= self.model.output.mrif_done_o();
        if let Some(words) = self.model.output.msg_out() {
            self.quiet = 0;
            if take_message {
                self.sent.push(decode_message(words));
            }
        }
        self.take_memory()
    }

    fn drive_memory(&mut self) {
        self.ready = self
            .rng
            .random_ratio(self.timing.memory_ready.clamp(1, 100), 100);
        let input = &mut self.model.input;
        input.set_mem_req_ready_i(self.ready);
        let now = self.now;
        let next = if self.timing.reorder {
            self.owed.iter().position(|o| o.due <= now)
        } else {
            self.owed.first().filter(|o| o.due <= now).map(|_| 0)
        };
        input.set_mem_rsp_valid_i(next.is_some());
        let Some(next) = next else {
            return;
        };
        let owed = &mut self.owed[next];
        let beat = owed.beats.pop_front().unwrap_or_default();
        let last = owed.beats.is_empty();
        beat.drive(input.mem_rsp_i(), owed.tag, last);
        if last {
            self.owed.remove(next);
        }
    }

    fn take_memory(&mut self) -> Result<(), BenchError> {
        let Some(words) = self.model.output.mem_req() else {
            if !self.owed.is_empty() {
                self.quiet = 0;
            }
            return Ok(());
        };
        self.quiet = 0;
        if !self.ready {
            return Ok(());
        }
        let request = MemoryRequest::decode(words);
        let (at, length) = (request.address, request.length);
        if at % 4 != 0 || at % 64 + length > 64 || length == 0 {
            let text = format!("a memory request of {length} bytes at {at:#x}");
            return Err(BenchError::Protocol(text));
        }
        if self.owed.iter().any(|o| o.tag == request.tag) {
            let text = format!("a second memory request with tag {}", request.tag);
            return Err(BenchError::Protocol(text));
        }
        if let Some((cell, seen @ None)) = &mut self.watched
            && *cell == at
            && request.op == MemoryOp::Write
        {
            *seen = Some(self.now);
        }
        let words = (at & !7..at + length).step_by(8);
        let before: Vec<u64> = match (&self.stores, request.op) {
            (None, _) | (_, MemoryOp::Read) => Vec::new(),
            _ => words.clone().map(|at| self.memory.ram.get(at)).collect(),
        };
        let beats = self.memory.serve(&request).into();
        if let Some(stores) = &mut self.stores {
            let changed = words.zip(before);
            stores.extend(changed.filter(|(at, old)| self.memory.ram.get(*at) != *old));
        }
        let wait = self.rng.random_range(0..=self.timing.memory_latency);
        self.owed.push(Owed {
            due: self.now + u64::from(wait),
            tag: request.tag,
            address: at,
            beats,
        });
        Ok(())
    }
}
