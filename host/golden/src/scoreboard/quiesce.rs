//! The end: nothing is under way any more.

use super::Scoreboard;
use crate::flight::NONE;
use crate::header;
use crate::memory::Memory;
use crate::violation::{Rule, Tap};

impl Scoreboard {
    /// Nothing is under way any more. `fault_queue` holds the records that the CPU has taken from
    /// the fault queue since the last call.
    pub fn quiesce<M: Memory>(&mut self, _mem: &M, fault_queue: &[[u64; 4]]) {
        while let Some((slot, tap)) = self.flights.drain() {
            let f = self.flights.get(slot);
            (self.now.id, self.now.head, self.now.tap) = (f.id, f.head, tap);
            let expected = header::describe(&f.head);
            self.violate(
                Rule::Arrival,
                "arrival",
                expected,
                "nothing",
                "PCIe 6.0 §2.2",
            );
            if self.flights.get(slot).head.is_cpl() {
                let t = self.flights.get(slot).transaction;
                self.flights.transaction(t).flying -= 1;
                self.flights.retire(t);
            } else {
                self.abandon(slot);
            }
            self.finish(slot);
        }
        while let Some(slot) = self.flights.open_transaction() {
            let t = self.flights.transaction(slot);
            let (id, head, sent, total) = (t.id, t.head, t.sent, t.total);
            (self.now.id, self.now.head) = (id, head);
            self.violate(
                Rule::Arrival,
                "completion",
                format!("{total} bytes for {}", header::describe(&head)),
                format!("{sent} bytes"),
                "PCIe 6.0 §2.3.1: every non-posted request is completed",
            );
            self.flights.close(slot);
        }
        while let Some(c) = self.cpu.pop_front() {
            (self.now.head, self.now.tap) = (c.head, Tap::RpTx(c.port));
            let expected = header::describe(&c.head);
            self.violate(
                Rule::Arrival,
                "arrival",
                expected,
                "nothing",
                "PCIe 6.0 §2.2.4",
            );
        }
        self.reads = [NONE; 256];
        self.leaving = [NONE; 8];
        self.refused.clear();
        if self.config.iommu {
            for _ in fault_queue {
                self.stats.check(Rule::FaultRecord);
            }
            let mut wrong = self.judge.compare_fault_queue(fault_queue);
            wrong.extend(self.judge.missing_fault_records());
            for m in wrong {
                self.violate(
                    Rule::FaultRecord,
                    m.field.name(),
                    m.expected,
                    m.got,
                    m.clause,
                );
            }
        }
    }

    /// Expects no completion of a request that never arrived.
    pub(super) fn abandon(&mut self, slot: u32) {
        let f = self.flights.get(slot);
        let (id, transaction) = (f.id, f.transaction);
        if transaction != NONE {
            let t = self.flights.transaction(transaction);
            if t.id == id && !t.closed {
                self.flights.close(transaction);
            }
        }
    }
}
