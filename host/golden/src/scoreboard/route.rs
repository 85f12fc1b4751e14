//! The way from tap to tap: what must show up where, and in which order.

use tlproof_pcie::{Class, CplStatus, Head};

use super::Scoreboard;
use crate::fabric::Hop;
use crate::flight::{Demand, FABRIC, NONE, Responder};
use crate::header;
use crate::violation::{Rule, Tap};

/// Refused requests that are remembered, to explain one that shows up nevertheless.
const REFUSED: usize = 64;

impl Scoreboard {
    /// Sends a TLP on its way.
    pub(super) fn go(&mut self, slot: u32, hop: Hop) {
        self.stats.check(Rule::Route);
        match hop {
            Hop::RootPort(p) => self.flights.wait(slot, Tap::RpRx(p)),
            Hop::Endpoint(e) => self.flights.wait(slot, Tap::EpRx(e)),
            Hop::SwitchFunction => {
                self.answered_by(slot, Responder::Switch, Demand::Any);
                self.finish(slot);
            }
            Hop::Refused(status, clause) => {
                self.refuse(slot, Responder::Switch, status, clause);
            }
        }
    }

    pub(super) fn answered_by(&mut self, slot: u32, responder: Responder, demand: Demand) {
        let f = self.flights.get(slot);
        if f.transaction != NONE && !f.head.is_cpl() {
            let (id, transaction) = (f.id, f.transaction);
            let t = self.flights.transaction(transaction);
            // A wrong completion may have closed the request already.
            if t.id == id && !t.closed {
                t.responder = responder;
                t.demand = demand;
            }
        }
    }

    /// A TLP goes no further here.
    pub(super) fn refuse(
        &mut self,
        slot: u32,
        by: Responder,
        status: CplStatus,
        clause: &'static str,
    ) {
        self.answered_by(slot, by, Demand::Status(status));
        let head = self.flights.get(slot).head;
        if self.refused.len() >= REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back((head, clause));
        self.finish(slot);
    }

    /// Takes the TLP that has this header from those that must show up here. A TLP that differs in
    /// a field, or that was to show up elsewhere, is a violation and goes on as it is seen.
    pub(super) fn take(&mut self, tap: Tap, head: &Head) -> Option<u32> {
        self.stats.check(Rule::Header);
        if let Some(slot) = self.flights.take(tap, |f| f.head == *head) {
            self.now.id = self.flights.get(slot).id;
            self.check_order(tap, slot);
            return Some(slot);
        }
        if let Some((slot, expected)) = self
            .flights
            .take_elsewhere(|t, f| t != Tap::Memory && f.head == *head)
        {
            self.now.id = self.flights.get(slot).id;
            self.violate(
                Rule::Route,
                "route",
                expected.to_string(),
                tap.to_string(),
                "PCIe 6.0 §2.2.4, §6.12",
            );
            return Some(slot);
        }
        let near = self
            .flights
            .take(tap, |f| header::same_tlp(&f.head, head))
            .or_else(|| {
                self.flights
                    .take(tap, |f| header::differences(&f.head, head) == 1)
            });
        let slot = near?;
        let f = self.flights.get_mut(slot);
        let expected = std::mem::replace(&mut f.head, *head);
        self.now.id = f.id;
        if let Some(e) = header::difference(&expected, head) {
            self.report(Rule::Header, e, None);
        }
        Some(slot)
    }

    /// As [`Self::take`], at a tap where order means nothing.
    pub(super) fn take_unordered(&mut self, tap: Tap, head: &Head) -> Option<u32> {
        if let Some(slot) = self.flights.take(tap, |f| f.head == *head) {
            self.stats.check(Rule::Header);
            self.now.id = self.flights.get(slot).id;
            return Some(slot);
        }
        self.take(tap, head)
    }

    /// Nothing like this TLP was sent here.
    pub(super) fn unexpected(&mut self, head: &Head) {
        let refused = self
            .refused
            .iter()
            .rev()
            .find(|(h, _)| h == head)
            .map(|(_, c)| *c);
        let got = header::describe(head);
        if let Some(clause) = refused {
            self.violate(Rule::Route, "route", "refused", got, clause);
        } else {
            self.violate(
                Rule::Arrival,
                "arrival",
                "no such TLP",
                got,
                "PCIe 6.0 §2.2",
            );
        }
    }

    /// The ordering rules, per source and tap (PCIe 6.0 §2.4.1, Table 2-40).
    pub(super) fn check_order(&mut self, tap: Tap, slot: u32) {
        let f = self.flights.get(slot);
        let (id, source, class, relaxed) = (f.id.0, f.source, f.head.class(), f.head.relaxed());
        if source >= FABRIC {
            return;
        }
        self.stats.check(Rule::Order);
        let passed = self.flights.passed(tap, source);
        let by = match class {
            Class::Posted if id < passed.posted => Some(("posted request", passed.posted)),
            Class::Posted if id < passed.non_posted => {
                Some(("non-posted request", passed.non_posted))
            }
            Class::Posted if id < passed.completion => Some(("completion", passed.completion)),
            _ => None,
        };
        match class {
            Class::Posted if !relaxed => passed.posted = passed.posted.max(id),
            Class::NonPosted => passed.non_posted = passed.non_posted.max(id),
            Class::Completion if !relaxed => passed.completion = passed.completion.max(id),
            _ => {}
        }
        if let Some((what, other)) = by {
            self.violate(
                Rule::Order,
                "order",
                "posted requests are not passed",
                format!("{what} {other} came first"),
                "PCIe 6.0 §2.4.1, Table 2-40",
            );
        }
    }
}
