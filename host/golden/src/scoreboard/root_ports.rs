//! Root ports.

use tlproof_pcie::{Bdf, Head};

use super::Scoreboard;
use crate::fabric::Hop;
use crate::flight::{Demand, Responder};
use crate::violation::Tap;

impl Scoreboard {
    pub(super) fn enters_root_port(&mut self, port: u8, head: &Head) {
        let tap = Tap::RpRx(port);
        let Some(slot) = self.take(tap, head) else {
            if head.is_cpl() {
                let id = self.new_id();
                if let Some(slot) = self.completion(Responder::Switch, id, head) {
                    self.completion_at_root(slot, head);
                }
            } else {
                self.unexpected(head);
            }
            return;
        };
        if head.is_cpl() {
            self.completion_at_root(slot, head);
            return;
        }
        let stamp = self.judge.stamp();
        let f = self.flights.get_mut(slot);
        f.stamp = stamp;
        f.through_bridge = true;
        if let Some(Hop::Refused(status, clause)) = self.fabric.at_root_port(port, head) {
            self.check_permission(slot, Some(clause));
            self.refuse(slot, Responder::Bridge, status, clause);
        } else if head.is_mem() {
            self.flights.wait(slot, Tap::Translate(port));
        } else {
            self.answered_by(slot, Responder::Bridge, Demand::Any);
            self.finish(slot);
        }
    }

    /// A completion entered a root port: it answers the CPUs, or a peer.
    pub(super) fn completion_at_root(&mut self, slot: u32, head: &Head) {
        let bus = head.requester().bus();
        match self.fabric.root_port_for_bus(bus) {
            Some((port, _)) if bus != 0 => self.flights.wait(slot, Tap::RpTx(port)),
            _ => self.deliver(slot, None),
        }
    }

    pub(super) fn leaves_root_port(&mut self, port: u8, head: &Head) {
        let tap = Tap::RpTx(port);
        let slot = if !head.is_cpl() && head.requester() == Bdf(0) {
            self.cpu_tlp(port, head)
        } else if let Some(slot) = self.take(tap, head) {
            Some(slot)
        } else if head.is_cpl() {
            let id = self.new_id();
            self.completion(Responder::Bridge, id, head)
        } else {
            self.unexpected(head);
            None
        };
        let Some(slot) = slot else { return };
        let (hop, arrived) = self.fabric.below_root_port(port, head);
        self.flights.get_mut(slot).head = arrived;
        self.go(slot, hop);
    }
}
