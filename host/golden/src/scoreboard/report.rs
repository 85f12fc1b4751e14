//! What is wrong, with the story of the TLPs before it.

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
}

/// Violations that are kept; all are counted.
const KEPT: usize = 1000;
/// Events of a story.
pub(super) const STORY: usize = 12;

impl Scoreboard {
    pub(super) fn report(&mut self, rule: Rule, e: Error, call: Option<String>) {
        self.stats.fail(rule);
        if self.violations.len() >= KEPT {
            return;
        }
        let story = (0..STORY)
            .filter_map(|i| self.story[(self.story_at + i) % STORY])
            .map(|e| {
                format!(
                    "cycle {}: TLP {} at {}: {}",
                    e.cycle,
                    e.id.0,
                    e.tap,
                    header::describe(&e.head)
                )
            })
            .collect();
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
