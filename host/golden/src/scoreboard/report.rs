//! What is wrong, with the story of the TLP and of those around it.

use tlproof_pcie::Head;

use super::Scoreboard;
use crate::flight::Grant;
use crate::header::{self, Error};
use crate::violation::{Rule, Tap, TlpId, Violation};

/// An event, for violations and their stories.
#[derive(Clone, Copy)]
pub(super) struct Event {
    pub(super) cycle: u64,
    pub(super) tap: Tap,
    pub(super) head: Head,
    pub(super) id: TlpId,
    /// The IOMMU's own access to its tables and queues, which is no TLP.
    pub(super) implicit: bool,
}

impl Event {
    fn what(&self) -> String {
        match (self.implicit, self.id) {
            (true, _) => "IOMMU".to_owned(),
            (_, TlpId(0)) => "unknown TLP".to_owned(),
            (_, TlpId(n)) => format!("TLP {n}"),
        }
    }
}

/// Violations that are kept; all are counted.
const KEPT: usize = 1000;
/// Events that are remembered, so that a TLP's earlier taps are still known at its last.
pub(super) const REMEMBERED: usize = 512;
/// Events of a story before the one that is wrong: of the same TLP, and of others.
const SAME: usize = 8;
const NEIGHBOURS: usize = 6;

impl Scoreboard {
    pub(super) fn report(&mut self, rule: Rule, e: Error, call: Option<String>) {
        self.stats.fail(rule);
        if self.violations.len() >= KEPT {
            return;
        }
        let story = self.tell();
        self.violations.push(Violation {
            cycle: self.now.cycle,
            judge: rule.judge(),
            rule,
            tap: self.now.tap,
            tlp: self.now.id,
            head: self.now.head,
            field: e.field,
            expected: e.expected,
            got: e.got,
            clause: e.clause,
            call,
            story,
        });
    }

    /// The TLP where it is wrong, its way there, and what was seen last beside it.
    fn tell(&self) -> Vec<String> {
        let now = &self.now;
        let mut lines = vec![format!(
            "{}: {} at {}, cycle {}",
            now.what(),
            header::describe(&now.head),
            now.tap,
            now.cycle
        )];
        let same = |e: &&Event| e.id == now.id && e.id != TlpId(0);
        for (title, of_it, most) in [("its way", true, SAME), ("around it", false, NEIGHBOURS)] {
            let latest: Vec<&Event> = self
                .story
                .iter()
                .rev()
                .filter(|e| same(e) == of_it)
                .take(most)
                .collect();
            lines.extend(latest.iter().rev().map(|e| {
                format!(
                    "{title}: cycle {}: {} at {}: {}",
                    e.cycle,
                    e.what(),
                    e.tap,
                    header::describe(&e.head)
                )
            }));
        }
        lines
    }

    pub(super) fn violate(
        &mut self,
        rule: Rule,
        field: &'static str,
        expected: impl Into<String>,
        got: impl Into<String>,
        clause: &str,
    ) {
        self.report(rule, Error::new(field, expected, got, clause), None);
    }

    /// The same, with the mapping call that is concerned.
    pub(super) fn violate_promise(
        &mut self,
        rule: Rule,
        field: &'static str,
        expected: impl Into<String>,
        got: impl Into<String>,
        clause: &str,
        call: Option<String>,
    ) {
        self.report(rule, Error::new(field, expected, got, clause), call);
    }

    /// The call that granted a TLP.
    pub(super) fn call_of(&self, grant: Grant) -> Option<String> {
        match grant {
            Grant::Promise(slot) => Some(self.ledger.get(slot).call.clone()),
            _ => None,
        }
    }
}
