//! Endpoints: what they send and what reaches them.

use tlproof_pcie::{Class, CplStatus, Head};

use super::Scoreboard;
use crate::fabric::Answer;
use crate::flight::{CPU, Demand, Grant, NONE, Responder};
use crate::header;
use crate::ledger::Route;
use crate::violation::{Rule, Tap, TlpId};

impl Scoreboard {
    pub(super) fn leaves_endpoint(&mut self, n: u8, head: &Head, payload: &[u8]) {
        if n >= self.fabric.endpoints() {
            return;
        }
        let id = self.new_id();
        let hop = self.fabric.above_endpoint(n, head);
        if head.is_cpl() {
            let Some(slot) = self.completion(Responder::Endpoint(n), id, head) else {
                return;
            };
            let f = self.flights.get_mut(slot);
            f.source = n;
            f.payload.extend_from_slice(payload);
            self.leaving[usize::from(n & 7)] = if head.has_data() { slot } else { NONE };
            self.go(slot, hop);
            return;
        }
        let slot = self.flights.add(id, head, n, payload);
        self.leaving[usize::from(n & 7)] = if head.has_data() { slot } else { NONE };
        if head.is_mem() {
            self.check_request_header(n, head);
            self.grant(n, slot, head, hop);
        }
        if head.class() == Class::NonPosted {
            self.open_transaction(slot, id, head);
        }
        self.go(slot, hop);
    }

    pub(super) fn check_request_header(&mut self, n: u8, head: &Head) {
        self.stats.check(Rule::RequestHeader);
        let limits = header::Limits {
            max_payload: self.fabric.max_payload(n),
            max_read: self.fabric.max_read(n),
        };
        if let Some(e) = header::check_request(head, &limits) {
            self.report(Rule::RequestHeader, e, None);
        }
    }

    pub(super) fn open_transaction(&mut self, slot: u32, id: TlpId, head: &Head) {
        let (t, in_use) = self.flights.open(id, head);
        self.flights.get_mut(slot).transaction = t;
        let spoofed = matches!(self.flights.get(slot).grant, Grant::Rogue { .. });
        if in_use && !spoofed {
            self.violate(
                Rule::RequestHeader,
                "tag",
                "a tag that is not in use",
                format!("{:#x}", head.tag()),
                "PCIe 6.0 §2.2.6.2",
            );
        }
    }

    pub(super) fn arrives(&mut self, n: u8, head: &Head, payload: &[u8]) {
        let Some(slot) = self.take(Tap::EpRx(n), head) else {
            if head.is_cpl() {
                let id = self.new_id();
                if let Some(slot) = self.completion(Responder::Switch, id, head) {
                    self.deliver(slot, Some(payload));
                }
            } else {
                self.unexpected(head);
            }
            return;
        };
        if head.is_cpl() {
            self.deliver(slot, Some(payload));
            return;
        }
        if head.has_data() {
            self.check_payload(slot, head, payload);
        }
        let answer = self.fabric.endpoint_answer(n, head);
        // What no BAR decodes goes no further: a probe has been stopped.
        let stopped = answer == Answer::Unsupported
            && matches!(self.flights.get(slot).grant, Grant::Rogue { .. });
        if stopped {
            self.stats.check(Rule::PromiseBlocked);
        } else if head.is_mem() && self.flights.get(slot).source < CPU {
            let f = self.flights.get(slot);
            let (route, attr) = if f.through_bridge {
                (Route::PeerThroughBridge, f.attr)
            } else {
                (Route::PeerBusAddress, None)
            };
            let phys = self.config.map.to_phys(head.addr());
            self.check_arrival(slot, phys, attr, route);
        }
        let demand = match answer {
            Answer::Success => Demand::Success,
            Answer::Unsupported => Demand::Status(CplStatus::UnsupportedRequest),
            Answer::Either => Demand::Any,
        };
        self.answered_by(slot, Responder::Endpoint(n), demand);
        self.finish(slot);
    }
}
