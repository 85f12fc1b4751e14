//! The judge: registers, history, and the verdict on each answer.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;
use tlproof_pcie::PhysAddr;

use super::command::Command;
use super::history::History;
use super::offset;
use super::registers::Registers;
use super::translator::Overlay;
use super::views::Main;
use super::walk::{Walker, native};
use super::{
    Actual, Capabilities, Choices, Fault, FaultRecord, Field, Mismatch, Outcome, Permissions,
    Request, Response, Stamp, Status, Translation,
};
use crate::memory::Memory;

/// Optional records that are remembered.
const OPTIONAL: usize = 1 << 12;

/// Combinations of old and new entries that are tried for one answer.
const COMBINATIONS: usize = 4096;

/// A command that the IOMMU was given and whose completion is not known yet.
#[derive(Clone, Copy)]
struct Pending {
    /// Index in the queue.
    index: u32,
    kind: PendingKind,
}

#[derive(Clone, Copy)]
enum PendingKind {
    /// Its name in the history.
    Invalidation(u64),
    Fence(Option<(u64, u32)>),
    /// A message to a device: nothing that this judge follows.
    Message,
    Illegal,
}

/// A record that an answer demands: one of these, by the versions of the tables that explain it.
type Demand = Vec<FaultRecord>;

/// The architecture judge of one IOMMU. See the [module](super) for its use.
pub struct Judge {
    registers: Registers,
    choices: Choices,
    history: History,
    /// From the last observed `cqh` on.
    commands: VecDeque<Pending>,
    /// Index of the first command that was not decoded yet.
    decoded: u32,
    /// Names of the invalidations that the IOMMU took since the last completed fence.
    unfenced: Vec<u64>,
    predicted: VecDeque<Demand>,
    /// Records that some legal version of the tables reports and another suppresses.
    optional: VecDeque<Demand>,
    recorded: FxHashSet<FaultRecord>,
    overflow: bool,
}

impl Judge {
    /// A judge for an IOMMU after reset whose `capabilities` register reads as given.
    #[must_use]
    pub fn new(capabilities: u64, choices: Choices) -> Self {
        Self {
            registers: Registers::new(Capabilities::decode(capabilities)),
            choices,
            history: History::default(),
            commands: VecDeque::new(),
            decoded: 0,
            unfenced: Vec::new(),
            predicted: VecDeque::new(),
            optional: VecDeque::new(),
            recorded: FxHashSet::default(),
            overflow: false,
        }
    }

    /// The registers as the CPUs know them.
    #[must_use]
    pub const fn registers(&self) -> &Registers {
        &self.registers
    }

    /// The choices of this implementation.
    #[must_use]
    pub const fn choices(&self) -> &Choices {
        &self.choices
    }

    /// The position in the history now. Take one when a request enters the host.
    #[must_use]
    pub const fn stamp(&self) -> Stamp {
        Stamp(self.history.now())
    }

    /// The word of eight bytes at `addr`, a multiple of 8, is about to change from `old`. To be
    /// called for each store into main memory, in order, whoever makes it.
    pub fn memory_changed(&mut self, addr: PhysAddr, old: u64) {
        self.history.memory_changed(addr, old);
    }

    /// A CPU wrote `size` bytes (4 or 8) at `offset` of the register file. Commands that a new
    /// `cqt` hands over are read from `mem`.
    pub fn register_write(&mut self, mem: &impl Memory, offset: u32, size: u8, value: u64) {
        let (ddtp, cqcsr, fqcsr) = (
            self.registers.ddtp(),
            self.registers.cqcsr(),
            self.registers.fqcsr(),
        );
        self.registers.write(offset, size, value);
        let touches = |at: u32| (offset..offset + u32::from(size)).contains(&at);
        if self.registers.ddtp() != ddtp {
            self.history.ddtp_changed(ddtp);
        }
        if touches(offset::CQCSR) {
            let now = self.registers.cqcsr();
            if now & !cqcsr & 1 == 1 {
                self.registers.read_observed(offset::CQH, 4, 0);
                self.restart_queue();
            } else if now & 0xf00 != cqcsr & 0xf00 {
                // What follows the command that stopped the queue may have been rewritten.
                self.restart_queue();
            }
        }
        if touches(offset::FQCSR) && self.registers.fqcsr() & !fqcsr & 1 == 1 {
            self.registers.read_observed(offset::FQT, 4, 0);
        }
        if (touches(offset::CQT) || touches(offset::CQCSR)) && self.registers.cqcsr() & 1 == 1 {
            self.fetch(mem);
        }
    }

    /// A CPU read `value` from the `size` bytes (4 or 8) at `offset`.
    pub fn register_read(&mut self, offset: u32, size: u8, value: u64) {
        // `ddtp.busy` is not part of what was written.
        let ddtp = self.registers.ddtp();
        self.registers.read_observed(offset, size, value);
        let touches = |at: u32| (offset..offset + u32::from(size)).contains(&at);
        if touches(offset::DDTP) {
            let busy = value >> 4 & 1 == 1;
            if busy {
                self.registers.write(offset::DDTP, 8, ddtp);
            } else {
                self.history.ddtp_settled();
            }
        }
        if touches(offset::CQH) {
            self.head_moved();
        }
        if touches(offset::FQCSR) {
            self.overflow |= self.registers.fqcsr() & 0x300 != 0;
        }
    }

    /// A CPU saw the store of an IOFENCE.C with `AV` in memory, which completes that fence.
    pub fn fence_store_observed(&mut self, addr: PhysAddr, data: u32) {
        let fence =
            |p: &Pending| matches!(p.kind, PendingKind::Fence(Some(s)) if s == (addr.0, data));
        if let Some(at) = self.commands.iter().position(fence) {
            self.retire(at + 1);
        }
    }

    fn queue_mask(&self) -> u32 {
        let log2 = (self.registers.cqb() & 0x1f) + 1;
        ((1u64 << log2) - 1) as u32
    }

    fn restart_queue(&mut self) {
        self.commands.clear();
        self.decoded = self.registers.cqh() & self.queue_mask();
    }

    /// Decodes the commands up to `cqt`.
    fn fetch(&mut self, mem: &impl Memory) {
        let mask = self.queue_mask();
        let base = (self.registers.cqb() >> 10 & ((1 << 44) - 1)) << 12;
        let fctl = self.registers.fctl();
        let caps = self.registers.capabilities;
        let tail = self.registers.cqt() & mask;
        while self.decoded != tail {
            let index = self.decoded;
            self.decoded = (index + 1) & mask;
            let at = base + u64::from(index) * 16;
            let words = [mem.read_u64(PhysAddr(at)), mem.read_u64(PhysAddr(at + 8))];
            let command = match words {
                [Ok(w0), Ok(w1)] => {
                    let words = [w0, w1].map(|w| native(w, fctl & 1 == 1));
                    let ddtp = self.registers.ddtp();
                    Command::decode(words, &caps, &self.choices, fctl, ddtp)
                }
                _ => Command::Illegal,
            };
            let kind = match command {
                Command::Invalidate(scope) => {
                    PendingKind::Invalidation(self.history.submitted(scope))
                }
                Command::Fence { store, .. } => PendingKind::Fence(store),
                Command::AtsInvalidate(_) | Command::AtsGroupResponse(_) => PendingKind::Message,
                Command::Illegal => PendingKind::Illegal,
            };
            self.commands.push_back(Pending { index, kind });
        }
    }

    /// `cqh` was read: a fence in front of it is completed (IOMMU §3.1.2).
    fn head_moved(&mut self) {
        let mask = self.queue_mask();
        let head = self.registers.cqh() & mask;
        let Some(first) = self.commands.front() else {
            return;
        };
        let passed = head.wrapping_sub(first.index) & mask;
        if passed as usize <= self.commands.len() {
            self.retire(passed as usize);
        }
    }

    /// The first `count` pending commands are over; what stands before the last fence among them
    /// is completed.
    fn retire(&mut self, count: usize) {
        for _ in 0..count {
            match self.commands.front().map(|p| p.kind) {
                Some(PendingKind::Invalidation(name)) => self.unfenced.push(name),
                Some(PendingKind::Fence(_)) => {
                    self.history.completed(&self.unfenced);
                    self.unfenced.clear();
                }
                Some(PendingKind::Message) => {}
                Some(PendingKind::Illegal) | None => return,
            }
            self.commands.pop_front();
        }
    }

    fn walker(&self) -> Walker<'_> {
        Walker {
            caps: &self.registers.capabilities,
            choices: &self.choices,
            fctl: self.registers.fctl(),
            qosid: self.registers.qosid(),
        }
    }

    /// What the tables demand as they stand now.
    #[must_use]
    pub fn translate<M: Memory>(&self, mem: &M, request: &Request) -> Outcome {
        self.response(mem, request).outcome
    }

    /// The same, with what else a translation does: nothing is changed in `mem`.
    #[must_use]
    pub fn response<M: Memory>(&self, mem: &M, request: &Request) -> Response {
        let main = Main(mem);
        let mut tables = Overlay::new(&main, self.registers.ddtp());
        self.walker().translate(&mut tables, request)
    }

    /// Judges an answer. `since` is the stamp of the time at which the request entered the host.
    ///
    /// # Errors
    /// No version of the tables that the request may have met explains the answer; the mismatch
    /// names the first field that differs from what the tables demand now.
    pub fn check<M: Memory>(
        &mut self,
        mem: &M,
        request: &Request,
        since: Stamp,
        actual: &Actual,
    ) -> Result<Outcome, Mismatch> {
        let walker = Walker {
            caps: &self.registers.capabilities,
            choices: &self.choices,
            fctl: self.registers.fctl(),
            qosid: self.registers.qosid(),
        };
        let ddtp = self.registers.ddtp();
        let now = walker.outcome(&mut self.history.current(&Main(mem), ddtp), request);
        let mut explained = None;
        let mut records = Vec::new();
        let mut mismatch = match compare(&now, actual) {
            Ok(()) if !may_be_suppressed(&now) => {
                self.predict(records_of(&now), false);
                return Ok(now);
            }
            Ok(()) => {
                explained = Some(now);
                records = records_of(&now);
                None
            }
            Err(mismatch) => Some(mismatch),
        };
        for forget_invalidations in [false, true] {
            let mut ambiguous = false;
            let mut versions = self
                .history
                .versions(mem, ddtp, since.0, forget_invalidations);
            for _ in 0..COMBINATIONS {
                let outcome = walker.outcome(&mut versions, request);
                if versions.consistent() && compare(&outcome, actual).is_ok() {
                    let first = *explained.get_or_insert(outcome);
                    ambiguous |= reported(&first) != reported(&outcome);
                    for record in records_of(&outcome) {
                        if !records.contains(&record) {
                            records.push(record);
                        }
                    }
                    if !may_be_suppressed(&first) {
                        break;
                    }
                }
                if !versions.next() {
                    break;
                }
            }
            match (explained, mismatch.as_mut()) {
                (None, _) => {}
                (Some(_), Some(mismatch)) if forget_invalidations => mismatch.clause = STALE,
                (Some(outcome), _) => {
                    self.predict(records, ambiguous || !reported(&outcome));
                    return Ok(outcome);
                }
            }
        }
        mismatch.map_or(Ok(now), Err)
    }

    /// What an IOMMU may still make of a request out of its caches although the tables refuse it:
    /// a translation that no completed invalidation has dropped. For software under test: after
    /// unmap there must be none, whatever this IOMMU caches (IOMMU §6.2).
    #[must_use]
    pub fn exposed<M: Memory>(
        &mut self,
        mem: &M,
        request: &Request,
        since: Stamp,
    ) -> Option<Translation> {
        let ddtp = self.registers.ddtp();
        let walker = Walker {
            caps: &self.registers.capabilities,
            choices: &self.choices,
            fctl: self.registers.fctl(),
            qosid: self.registers.qosid(),
        };
        let mut versions = self.history.versions(mem, ddtp, since.0, false);
        for _ in 0..COMBINATIONS {
            let outcome = walker.outcome(&mut versions, request);
            if let Outcome::Ok(t) = outcome
                && versions.consistent()
            {
                return Some(t);
            }
            if !versions.next() {
                break;
            }
        }
        None
    }

    fn predict(&mut self, records: Demand, optional: bool) {
        if records.is_empty() || self.registers.fqcsr() & 1 == 0 {
            return;
        }
        if !optional {
            self.predicted.push_back(records);
            return;
        }
        if self.optional.len() == OPTIONAL {
            self.optional.pop_front();
        }
        self.optional.push_back(records);
    }

    /// The records that the answers judged so far demand and that were not seen yet, in the order
    /// of the answers.
    pub fn fault_records(&self) -> impl Iterator<Item = &FaultRecord> {
        self.predicted.iter().map(|demand| &demand[0])
    }

    /// Compares records that a CPU took from the fault queue, as doublewords of the queue's
    /// endianness, with those that are demanded. Records of one requester may come in any order:
    /// the specification does not tie it to that of the answers.
    pub fn compare_fault_queue(&mut self, entries: &[[u64; 4]]) -> Vec<Mismatch> {
        let big = self.registers.fctl() & 1 == 1;
        let mut mismatches = Vec::new();
        for entry in entries {
            let entry = if big {
                entry.map(u64::swap_bytes)
            } else {
                *entry
            };
            let record = FaultRecord::decode(&entry);
            if let Some(at) = self.predicted.iter().position(|p| p.contains(&record)) {
                self.predicted.remove(at);
                self.recorded.insert(record);
                continue;
            }
            if let Some(at) = self.optional.iter().position(|p| p.contains(&record)) {
                self.optional.remove(at);
                continue;
            }
            let nearest = self
                .predicted
                .iter()
                .position(|p| p[0].device_id == record.device_id);
            let expected = nearest.and_then(|at| self.predicted.remove(at));
            let expected = expected.as_ref().map(|demand| &demand[0]);
            mismatches.push(record_mismatch(expected, &record));
        }
        mismatches
    }

    /// Records that are demanded and did not come, to be called when nothing is under way any
    /// more and the queue has been emptied. Identical faults may share a record, and a queue that
    /// overflowed or faulted drops records (IOMMU §3.2); those are not missing.
    pub fn missing_fault_records(&mut self) -> Vec<Mismatch> {
        let overflow = std::mem::take(&mut self.overflow);
        let recorded = std::mem::take(&mut self.recorded);
        self.optional.clear();
        self.predicted
            .drain(..)
            .filter(|p| !overflow && !p.iter().any(|record| recorded.contains(record)))
            .map(|p| Mismatch {
                field: Field::FaultRecord,
                expected: format!("{:x?}", p[0]),
                got: "no record".to_owned(),
                clause: "IOMMU §3.2",
            })
            .collect()
    }
}

/// Whether `DC.tc.DTF` decides if there is a record (IOMMU §3.2).
fn may_be_suppressed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Fault(fault) if !matches!(fault.cause(), 256..=259))
}

/// The record that an outcome demands, if it does.
fn records_of(outcome: &Outcome) -> Demand {
    match outcome {
        Outcome::Fault(fault) if fault.reported => vec![fault.record],
        _ => Vec::new(),
    }
}

fn reported(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Fault(fault) if fault.reported)
}

const STALE: &str = "IOMMU §2.8, §3.1: what it was cached from has been invalidated and fenced";

fn record_mismatch(expected: Option<&FaultRecord>, got: &FaultRecord) -> Mismatch {
    let (expected, got) = match expected {
        None => ("no record".to_owned(), format!("{got:x?}")),
        Some(e) => {
            let fields = [
                ("CAUSE", u64::from(e.cause), u64::from(got.cause)),
                ("TTYP", e.ttyp.into(), got.ttyp.into()),
                (
                    "PV",
                    e.process_id.is_some().into(),
                    got.process_id.is_some().into(),
                ),
                (
                    "PID",
                    e.process_id.unwrap_or(0).into(),
                    got.process_id.unwrap_or(0).into(),
                ),
                ("PRIV", e.privileged.into(), got.privileged.into()),
                ("iotval", e.iotval, got.iotval),
                ("iotval2", e.iotval2, got.iotval2),
            ];
            fields
                .iter()
                .find(|(_, e, g)| e != g)
                .map(|(name, e, g)| (format!("{name} {e:#x}"), format!("{name} {g:#x}")))
                .unwrap_or_default()
        }
    };
    Mismatch {
        field: Field::FaultRecord,
        expected,
        got,
        clause: "IOMMU §3.2",
    }
}

/// Whether an answer is what an outcome demands; if not, the first field that differs.
fn compare(outcome: &Outcome, actual: &Actual) -> Result<(), Mismatch> {
    let mismatch = |field, expected: String, got: String, clause| {
        Err(Mismatch {
            field,
            expected,
            got,
            clause,
        })
    };
    let describe = |status: Status, cause: u16| match status {
        Status::Ok => status.to_string(),
        _ => format!("{status} (cause {cause})"),
    };
    let answered = describe(actual.status, actual.cause);
    match outcome {
        Outcome::Completion(completion) => {
            let granted = completion.permissions != Permissions::NONE;
            if actual.status != Status::Ok {
                mismatch(Field::Status, "Success".to_owned(), answered, "IOMMU §2.6")
            } else if granted
                && !completion.untranslated_only
                && actual.spa.0 & !(completion.size - 1) != completion.address
            {
                let expected = PhysAddr(completion.address).to_string();
                let got = actual.spa.to_string();
                mismatch(Field::Address, expected, got, "IOMMU §2.6")
            } else {
                Ok(())
            }
        }
        Outcome::Ok(translation) => {
            let Translation { spa, pbmt, .. } = translation;
            if actual.status != Status::Ok {
                mismatch(
                    Field::Status,
                    format!("OK, {spa} {pbmt}"),
                    answered,
                    "IOMMU §2.3 step 20",
                )
            } else if actual.spa != *spa {
                let got = actual.spa.to_string();
                mismatch(Field::Address, spa.to_string(), got, "IOMMU §2.3 step 17")
            } else if actual.pbmt != *pbmt as u8 {
                let got = super::Pbmt::from_bits(actual.pbmt.into())
                    .map_or_else(|| format!("reserved {}", actual.pbmt), |p| p.to_string());
                mismatch(
                    Field::MemoryType,
                    pbmt.to_string(),
                    got,
                    "Privileged Svpbmt",
                )
            } else {
                Ok(())
            }
        }
        Outcome::Fault(fault) => {
            let Fault { status, clause, .. } = *fault;
            let expected = describe(status, fault.cause());
            if actual.status == Status::Ok {
                mismatch(
                    Field::Status,
                    expected,
                    format!("OK, {}", actual.spa),
                    clause,
                )
            } else if actual.cause != fault.cause() {
                let got = actual.cause.to_string();
                mismatch(Field::Cause, fault.cause().to_string(), got, clause)
            } else if actual.status != status {
                mismatch(Field::Status, expected, answered, "IOMMU §7.3")
            } else {
                Ok(())
            }
        }
    }
}
