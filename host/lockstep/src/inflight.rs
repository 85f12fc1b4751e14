//! Tables that change while requests are under way. What such a request meets is open between the store
//! and the fence behind its invalidation; the architecture judge knows which versions are possible, and
//! that behind the fence nothing old may be seen.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_golden::iommu::{
    Actual, AtsFlags, Capabilities, FlatMemory, Judge, Mismatch, Request, Stamp, Status,
    TransactionType, offset as reg,
};
use tlproof_golden::memory::{AccessFault, Memory};
use tlproof_pcie::PhysAddr;

use crate::bench::{Bench, BenchError, Timing};
use crate::config::Config;
use crate::layout::Answer;
use crate::lockstep::Failure;
use crate::memory::{BASE, SIZE};
use crate::ports::IommuTop;
use crate::world::{Command, World};

const FENCE_CELL: u64 = BASE;
const CQ: u64 = BASE + 0x1000;
const FQ: u64 = BASE + 0x2000;
const TABLES: u64 = BASE + 0x4000;
/// Entries of the command queue and of the fault queue.
const ENTRIES: u64 = 128;
/// Changes of tables in the life of a machine.
const ROUNDS: u32 = 12;
/// Tags of the translation port.
const TAGS: usize = 32;
/// Cycles within which a round ends.
const PATIENCE: u32 = 200_000;

/// What a campaign has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests judged.
    pub requests: u64,
    /// Answers that tables explain which were there no more when the answer came.
    pub of_old_tables: u64,
}

/// Runs machine after machine from `seed` on until `requests` have been judged. With `forget` the IOMMU
/// does not get the invalidations that the judge is told of, which must be noticed.
///
/// # Errors
/// See [`Failure`].
pub fn run<T: IommuTop>(
    config: &Config,
    seed: u64,
    requests: u64,
    forget: bool,
) -> Result<Counts, Failure> {
    let mut counts = Counts::default();
    for machine in seed.. {
        let failure = |error| Failure::Bench { machine, error };
        let mut side = Machine::<T>::new(config, machine).map_err(failure)?;
        side.forget = forget;
        for _ in 0..ROUNDS {
            side.round(&mut counts).map_err(|problem| match problem {
                Problem::Bench(error) => failure(error),
                Problem::Mismatch(what) => Failure::Mismatch {
                    machine,
                    what: format!("{what}\nbefore:\n  {}", side.world.history.join("\n  ")),
                },
            })?;
        }
        if counts.requests >= requests {
            break;
        }
    }
    Ok(counts)
}

enum Problem {
    Bench(BenchError),
    Mismatch(String),
}

impl From<BenchError> for Problem {
    fn from(error: BenchError) -> Self {
        Self::Bench(error)
    }
}

/// Main memory as the judge reads it.
struct View<'a>(&'a FlatMemory);

impl Memory for View<'_> {
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessFault> {
        let end = BASE + SIZE as u64;
        let len = buf.len() as u64;
        if addr.0 < BASE || addr.0 > end - len {
            return Err(AccessFault { addr, len });
        }
        for (at, byte) in (addr.0..).zip(buf) {
            *byte = self.0.get(at & !7).to_le_bytes()[at as usize % 8];
        }
        Ok(())
    }
}

/// Stores of software: doublewords that become visible together.
type Change = Vec<(u64, u64)>;

struct Machine<T: IommuTop> {
    bench: Bench<T>,
    judge: Judge,
    world: World,
    caps: Capabilities,
    rng: ChaCha8Rng,
    tail: u64,
    head: u64,
    forget: bool,
}

impl<T: IommuTop> Machine<T> {
    fn new(config: &Config, seed: u64) -> Result<Self, BenchError> {
        let mut bench = Bench::<T>::new(config.strap, seed)?;
        let capabilities = bench.read(reg::CAPABILITIES, 8)?;
        let caps = Capabilities::decode(capabilities);
        let ram = &mut bench.memory.ram;
        let world = World::new(seed, caps, &config.choices, ram, TABLES);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        bench.timing = Timing {
            memory_latency: [0, 5, 40][rng.random_range(0..3)],
            reorder: rng.random_bool(0.7),
            memory_ready: [100, 50][rng.random_range(0..2)],
            outstanding: TAGS,
            drain_latency: rng.random_range(0..40),
        };
        let mut machine = Self {
            bench,
            judge: Judge::new(capabilities, config.choices.clone()),
            world,
            caps,
            rng,
            tail: 0,
            head: 0,
            forget: false,
        };
        let size = u64::from(ENTRIES.ilog2() - 1);
        machine.write(reg::FCTL, 4, machine.world.fctl.into())?;
        for (base, register) in [(CQ, reg::CQB), (FQ, reg::FQB)] {
            machine.write(register, 8, base >> 12 << 10 | size)?;
        }
        for register in [reg::CQCSR, reg::FQCSR] {
            machine.write(register, 4, 1)?;
            machine.bench.poll(register, |v| v & 1 << 16 != 0)?;
        }
        machine.write(reg::DDTP, 8, machine.world.ddtp)?;
        machine.bench.poll(reg::DDTP, |v| v & 1 << 4 == 0)?;
        let ddtp = machine.bench.read(reg::DDTP, 8)?;
        machine.judge.register_read(reg::DDTP, 8, ddtp);
        Ok(machine)
    }

    fn write(&mut self, offset: u32, size: u8, value: u64) -> Result<(), BenchError> {
        let ram = &self.bench.memory.ram;
        self.judge.register_write(&View(ram), offset, size, value);
        self.bench.write(offset, size, value)
    }

    /// What software does to its tables, in an order of its own, and the commands that belong to it.
    fn change(&mut self) -> (Vec<Change>, Vec<Command>) {
        let mut image = self.bench.memory.ram.clone();
        let mut commands = self.world.change(&mut image);
        image.heal();
        // The entries of a contiguous range change together (privileged specification, Svnapot).
        let mut changes: Vec<Change> = Vec::new();
        for (at, new, _) in image.differences(&self.bench.memory.ram) {
            match changes.last_mut() {
                Some(last) if last[0].0 & !0x7f == at & !0x7f => last.push((at, new)),
                _ => changes.push(vec![(at, new)]),
            }
        }
        if commands.len() as u64 > ENTRIES - 2 {
            commands = self.world.forget_all();
        }
        (changes, commands)
    }

    fn request(&mut self) -> Request {
        let request = self.world.request();
        if self.caps.ats || request.ttyp != TransactionType::AtsTranslation {
            return request;
        }
        Request {
            ttyp: TransactionType::UntranslatedRead,
            ats: AtsFlags::default(),
            ..request
        }
    }

    /// Requests, and in their midst changes, commands and a fence.
    fn round(&mut self, counts: &mut Counts) -> Result<(), Problem> {
        let (changes, mut commands) = self.change();
        // Software stops a device whose processes it renames.
        let quiet = self.world.take_renamed_processes();
        if quiet {
            commands = self.world.forget_all();
        }
        let count = self.rng.random_range(20..100);
        let requests: Vec<Request> = (0..count).map(|_| self.request()).collect();
        let span = if quiet { 1 } else { count / 2 };
        let mut schedule: Vec<(usize, Change)> = changes
            .into_iter()
            .map(|change| (self.rng.random_range(0..span), change))
            .collect();
        schedule.sort_by_key(|(at, _)| *at);
        schedule.reverse();
        let last = if quiet { 0 } else { count * 3 / 4 };
        let hand_over = self.rng.random_range(span.min(last)..=last);
        let mut commands = Some(commands);
        let mut fence = None;
        let mut flights: [Option<(Request, Stamp)>; TAGS] = [None; TAGS];
        let (mut next, mut open, mut tag) = (0, 0, None);
        for _ in 0..PATIENCE {
            if next == count && open == 0 && commands.is_none() && fence.is_none() {
                return self.end();
            }
            while let Some((_, change)) = schedule.pop_if(|(at, _)| *at <= next) {
                self.store(&change);
            }
            let mut write = None;
            if schedule.is_empty()
                && next >= hand_over
                && let Some(commands) = commands.take()
            {
                let data = self.rng.random();
                self.submit(&commands, data);
                fence = Some(data);
                write = Some((reg::CQT, self.tail));
            }
            let may_go = !quiet || (commands.is_none() && fence.is_none());
            if may_go && tag.is_none() && next < count && self.rng.random_bool(0.8) {
                tag = flights.iter().position(Option::is_none);
            }
            let offer = tag.map(|t| (t as u64, &requests[next]));
            let step = self.bench.step(offer, write)?;
            for (at, old) in step.stores {
                self.judge.memory_changed(PhysAddr(at), old);
                if at == FENCE_CELL & !7
                    && let Some(data) = fence.take()
                {
                    self.judge.fence_store_observed(PhysAddr(FENCE_CELL), data);
                }
            }
            for answer in step.answers {
                let Some((request, since)) = flights[answer.tag as usize].take() else {
                    return Err(Problem::Mismatch(
                        "an answer that nobody waits for".to_owned(),
                    ));
                };
                self.check(&request, since, &answer, counts)?;
                open -= 1;
            }
            if step.taken
                && let Some(t) = tag.take()
            {
                flights[t] = Some((requests[next], self.judge.stamp()));
                next += 1;
                open += 1;
            }
        }
        Err(Problem::Mismatch(format!(
            "a round does not end: {open} requests, fence {fence:?}"
        )))
    }

    fn store(&mut self, change: &Change) {
        for &(at, new) in change {
            let old = self.bench.memory.ram.get(at);
            self.judge.memory_changed(PhysAddr(at), old);
            self.bench.memory.ram.set(at, new);
        }
    }

    /// Puts commands and a fence into the queue; the judge knows of them.
    fn submit(&mut self, commands: &[Command], data: u32) {
        let big = self.world.fctl & 1 == 1;
        let fence = [2 | 1 << 10 | u64::from(data) << 32, FENCE_CELL >> 2];
        // A store that changes nothing would not be seen.
        self.bench
            .memory
            .ram
            .set(FENCE_CELL, u64::from(!data) << 32 | u64::from(!data));
        let order = |word: u64| if big { word.swap_bytes() } else { word };
        let first = self.tail;
        for words in commands.iter().chain([&fence]) {
            for (i, word) in (0..).zip(words) {
                let at = CQ + 16 * self.tail + 8 * i;
                self.bench.memory.ram.set(at, order(*word));
            }
            self.tail = (self.tail + 1) % ENTRIES;
        }
        let ram = &self.bench.memory.ram;
        self.judge
            .register_write(&View(ram), reg::CQT, 4, self.tail);
        if self.forget {
            // Of an address space that there is not.
            for i in 0..commands.len() as u64 {
                let at = CQ + 16 * ((first + i) % ENTRIES);
                self.bench
                    .memory
                    .ram
                    .set(at, order(1 | 1 << 32 | 0xf_ffff << 12));
                self.bench.memory.ram.set(at + 8, 0);
            }
        }
    }

    fn check(
        &mut self,
        request: &Request,
        since: Stamp,
        answer: &Answer,
        counts: &mut Counts,
    ) -> Result<(), Problem> {
        let actual = Actual {
            status: match answer.status {
                0 => Status::Ok,
                1 => Status::UnsupportedRequest,
                _ => Status::CompleterAbort,
            },
            cause: answer.cause as u16,
            spa: PhysAddr(if answer.is_mrif {
                answer.mrif
            } else {
                answer.address
            }),
            pbmt: answer.pbmt as u8,
        };
        let view = View(&self.bench.memory.ram);
        let now = self.judge.translate(&view, request);
        let verdict = self.judge.check(&view, request, since, &actual);
        let outcome = verdict.map_err(|m| {
            Problem::Mismatch(format!("{m}\n{request:x?}\n{answer:x?}\nnow: {now:x?}"))
        })?;
        counts.requests += 1;
        counts.of_old_tables += u64::from(outcome != now);
        Ok(())
    }

    /// Nothing is under way: the fault queue must hold what the answers demand.
    fn end(&mut self) -> Result<(), Problem> {
        self.bench.settle()?;
        let csr = self.bench.read(reg::FQCSR, 4)?;
        self.judge.register_read(reg::FQCSR, 4, csr);
        let csr = self.bench.read(reg::CQCSR, 4)?;
        if csr & 0x700 != 0 {
            return Err(Problem::Mismatch(format!("cqcsr {csr:#x}")));
        }
        let tail = self.bench.read(reg::FQT, 4)?;
        let mut records = Vec::new();
        while self.head != tail {
            let at = FQ + 32 * self.head;
            records.push([0, 8, 16, 24].map(|i| self.bench.memory.ram.get(at + i)));
            self.head = (self.head + 1) % ENTRIES;
        }
        self.bench.write(reg::FQH, 4, self.head)?;
        let mut wrong: Vec<Mismatch> = self.judge.compare_fault_queue(&records);
        wrong.extend(self.judge.missing_fault_records());
        match wrong.first() {
            None => Ok(()),
            Some(m) => Err(Problem::Mismatch(m.to_string())),
        }
    }
}
