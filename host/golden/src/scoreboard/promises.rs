//! The promise judge: where a request begins, and where it arrives.

use tlproof_pcie::{Bdf, BusAddr, Head, MemAttr, MemType, PhysAddr};

use super::Scoreboard;
use crate::fabric::Hop;
use crate::flight::Grant;
use crate::ledger::{MemoryKind, Route, State};
use crate::violation::Rule;

impl Scoreboard {
    /// What the ledger says to a device's request.
    pub(super) fn grant(&mut self, n: u8, slot: u32, head: &Head, hop: Hop) {
        let (skip, len) = head.byte_span();
        let (first, len) = (head.addr().0 + skip, len.max(1));
        let addr = BusAddr(first);
        let requester = head.requester();
        let write = head.has_data();
        let own = self.fabric.requester(n);
        self.stats.check(Rule::PromiseRequest);
        self.stats.check(Rule::PromiseRequester);
        if let Some(own) = own
            && own == requester
            && let Some(p) = self.ledger.find(own, addr, len, write)
        {
            self.ledger.hold(p);
            self.flights.get_mut(slot).grant = Grant::Promise(p);
            self.check_route(p, hop);
            return;
        }
        if self.ledger.is_rogue(requester, addr, len, write) {
            self.stats.rogue_tlps += 1;
            let reachable = own == Some(requester) && self.reachable(requester, addr, len, write);
            self.flights.get_mut(slot).grant = Grant::Rogue { reachable };
            return;
        }
        if own != Some(requester) {
            let own = own.map_or_else(|| "no bus number yet".to_owned(), |o| o.to_string());
            self.violate_promise(
                Rule::PromiseRequester,
                "requester",
                own,
                requester.to_string(),
                "PCIe 6.0 §2.2.6.2",
                None,
            );
            return;
        }
        let why = self.ledger.explain(requester, addr, len);
        let kind = if write { "write" } else { "read" };
        let got = format!("{kind} of {first:#x} (+{len} bytes)");
        self.violate_promise(
            Rule::PromiseRequest,
            if why.call.is_none() && self.fabric.is_peer_bar(n, first) {
                "peer"
            } else {
                why.field
            },
            why.expected,
            got,
            "the device may use what is mapped for it, while it is mapped",
            why.call,
        );
    }

    pub(super) fn reachable(&self, device: Bdf, addr: BusAddr, len: u64, write: bool) -> bool {
        let c = &self.config;
        self.ledger
            .granule_reachable(device, (addr, len), c.granule, write, c.write_implies_read)
    }

    /// The first step of a promised access.
    pub(super) fn check_route(&mut self, promise: u32, hop: Hop) {
        self.stats.check(Rule::PromiseRoute);
        let p = self.ledger.get(promise);
        let live = self.ledger.state(promise) == State::Live;
        let direct = p.route == Route::PeerBusAddress;
        let right = match hop {
            Hop::Endpoint(_) => direct,
            Hop::RootPort(_) => !direct,
            Hop::SwitchFunction | Hop::Refused(..) => false,
        };
        if right || !live {
            return;
        }
        let (expected, call) = (p.route.name(), p.call.clone());
        let got = match hop {
            Hop::Endpoint(e) => format!("straight to endpoint {e}"),
            Hop::RootPort(r) => format!("up to root port {r}"),
            Hop::SwitchFunction => "a function of the switch".to_owned(),
            Hop::Refused(status, clause) => format!("{status:?} ({clause})"),
        };
        self.violate_promise(
            Rule::PromiseRoute,
            "route",
            expected,
            got,
            "the mapping's route",
            Some(call),
        );
    }

    /// What is promised must not be refused; `refused` says how it was.
    pub(super) fn check_permission(&mut self, slot: u32, refused: Option<&str>) {
        match (self.flights.get(slot).grant, refused) {
            (Grant::Promise(p), refused) => {
                self.stats.check(Rule::PromisePermission);
                if let Some(got) = refused
                    && self.ledger.state(p) == State::Live
                {
                    let call = self.call_of(Grant::Promise(p));
                    self.violate_promise(
                        Rule::PromisePermission,
                        "permission",
                        "allowed",
                        got,
                        "a live mapping",
                        call,
                    );
                }
            }
            // A probe that gets through is counted where it arrives.
            (Grant::Rogue { .. }, Some(_)) => self.stats.check(Rule::PromiseBlocked),
            (Grant::Rogue { .. }, None) | (Grant::None, _) => {}
        }
    }

    /// The promise judge, where an access arrives.
    pub(super) fn check_arrival(
        &mut self,
        slot: u32,
        phys: PhysAddr,
        attr: Option<MemAttr>,
        at: Route,
    ) {
        let f = self.flights.get(slot);
        let (skip, len) = f.head.byte_span();
        let len = len.max(1);
        let first = f.dma.offset(skip);
        let no_snoop = f.head.no_snoop() && self.config.ns_honour;
        let write = f.head.has_data();
        let requester = f.head.requester();
        match f.grant {
            Grant::None => {}
            Grant::Rogue { reachable } => {
                self.stats.check(Rule::PromiseBlocked);
                if reachable || self.reachable(requester, first, len, write) {
                    self.stats.granule_reachable += 1;
                } else if self.config.blocking {
                    let got = format!("reached {}", phys.offset(skip));
                    self.violate_promise(
                        Rule::PromiseBlocked,
                        "permission",
                        "blocked",
                        got,
                        "nobody mapped it for the device",
                        None,
                    );
                }
            }
            Grant::Promise(slot) => {
                let span = (first, len);
                self.check_promise(slot, span, phys.offset(skip), attr, no_snoop, at);
            }
        }
    }

    pub(super) fn check_promise(
        &mut self,
        slot: u32,
        (first, len): (BusAddr, u64),
        phys: PhysAddr,
        attr: Option<MemAttr>,
        no_snoop: bool,
        at: Route,
    ) {
        self.stats.check(Rule::PromiseState);
        self.stats.check(Rule::PromiseAddress);
        self.stats.check(Rule::PromiseRoute);
        let gone = self.ledger.state(slot) == State::Gone;
        let p = self.ledger.get(slot);
        let target = p.target(first);
        let end = p.target(first.offset(len - 1));
        let (expect, snoop, route, kind) = (p.expect, p.snoop, p.route, p.kind);
        let call = Some(p.call.clone());
        let found = if gone {
            let expected = "no access after unmap".to_owned();
            Some((
                Rule::PromiseState,
                "state",
                expected,
                format!("access to {phys}"),
            ))
        } else if route != at {
            let expected = route.name().to_owned();
            Some((Rule::PromiseRoute, "route", expected, at.name().to_owned()))
        } else {
            let last = phys.offset(len - 1);
            [(target, phys), (end, last)]
                .into_iter()
                .find(|(expected, got)| *expected != Some(*got))
                .map(|(expected, got)| {
                    let none = || "no target".to_owned();
                    let expected = expected.map_or_else(none, |t| t.to_string());
                    (Rule::PromiseAddress, "address", expected, got.to_string())
                })
        };
        if let Some((rule, field, expected, got)) = found {
            self.violate_promise(rule, field, expected, got, "the mapping", call);
            return;
        }
        let Some(attr) = attr else { return };
        self.stats.check(Rule::PromiseMemoryType);
        let snoop = snoop && expect == MemType::WriteBack && !no_snoop;
        if attr.mem_type != expect {
            let clause = match kind {
                MemoryKind::Mmio => "MMIO is accessed as device memory",
                MemoryKind::Dram => "the mapping's memory type",
            };
            self.violate_promise(
                Rule::PromiseMemoryType,
                "memory type",
                expect.name(),
                attr.mem_type.name(),
                clause,
                call,
            );
        } else if attr.snoop != snoop {
            let name = |s| if s { "snooped" } else { "not snooped" };
            self.violate_promise(
                Rule::PromiseMemoryType,
                "snoop",
                name(snoop),
                name(attr.snoop),
                "the mapping's coherence",
                call,
            );
        }
    }
}
