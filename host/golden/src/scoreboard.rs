//! Follows every TLP from tap to tap and asks the judges at each.

use std::collections::VecDeque;

use tlproof_pcie::{
    Bdf, BusAddr, Class, CplStatus, Head, MemAttr, MemType, MemoryMap, PhysAddr,
    tlp::{AddressType, fmt_type},
};

use crate::fabric::{Answer, Fabric, FabricChoices, Hop, Topology};
use crate::flight::{CPU, Demand, FABRIC, Flights, Grant, NONE, Responder, Source};
use crate::header::{self, Error};
use crate::iommu::{self, Actual, Outcome, Request, Stamp, Status, TransactionType};
use crate::ledger::{Ledger, MemoryKind, Promise, PromiseId, RogueId, Route, State};
use crate::memory::Memory;
use crate::violation::{Rule, Stats, Tap, TlpId, Violation};

/// What the scoreboard is told about the machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address map.
    pub map: MemoryMap,
    /// The IOMMU is there.
    pub iommu: bool,
    /// The bridge honours No Snoop.
    pub ns_honour: bool,
    /// The physical memory attributes of the PCIe aperture are those of main memory.
    pub aperture_wb: bool,
    /// The tree of ports and endpoints.
    pub topology: Topology,
    /// What the fabric's specifications leave open.
    pub fabric: FabricChoices,
    /// The IOMMU's `capabilities` register.
    pub capabilities: u64,
    /// What the IOMMU specification leaves open.
    pub choices: iommu::Choices,
    /// Bytes that an IOMMU entry covers at least; a power of two.
    pub granule: u64,
    /// A device may read what it may write: a RISC-V page-table entry with W and without R is
    /// reserved.
    pub write_implies_read: bool,
    /// Accesses that nobody promised must be refused.
    pub blocking: bool,
}

impl Default for Config {
    /// `sim_top` with its IOMMU: Sv39, Svpbmt, 56-bit physical addresses.
    fn default() -> Self {
        Self {
            map: MemoryMap::default(),
            iommu: true,
            ns_honour: true,
            aperture_wb: false,
            topology: Topology::default(),
            fabric: FabricChoices::default(),
            capabilities: 56 << 32 | 1 << 15 | 1 << 9 | 0x10,
            choices: iommu::Choices::default(),
            granule: 4096,
            write_implies_read: true,
            blocking: true,
        }
    }
}

/// Where the bridge sends a translated request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dest {
    /// To the memory port.
    Memory,
    /// Down a root port.
    Peer(u8),
    /// Nowhere: it is refused.
    None,
}

/// What the translation tap shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// How the IOMMU answered.
    pub status: Status,
    /// Fault cause.
    pub cause: u16,
    /// Page-based memory type, two bits.
    pub pbmt: u8,
    /// Resolved attributes.
    pub attr: MemAttr,
    /// Destination.
    pub dest: Dest,
    /// Supervisor physical address.
    pub spa: PhysAddr,
}

/// A request at the memory port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemRequest {
    /// Write or read.
    pub write: bool,
    /// An implicit access of the IOMMU.
    pub from_iommu: bool,
    /// Address of the first DW.
    pub addr: PhysAddr,
    /// Length in DW.
    pub len_dw: u16,
    /// First DW byte enables.
    pub first_be: u8,
    /// Last DW byte enables.
    pub last_be: u8,
    /// Requester ID.
    pub requester: Bdf,
    /// Tag of the TLP.
    pub tlp_tag: u16,
    /// Tag of a read at this port.
    pub port_tag: u8,
    /// Attributes.
    pub attr: MemAttr,
}

/// A request of a CPU (the CPU port of `docs/rtl-ports.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuRequest {
    /// Write or read.
    pub write: bool,
    /// A configuration access; the address is the ECAM offset.
    pub config: bool,
    /// Byte address.
    pub addr: u64,
    /// Byte enables within the eight bytes around the address.
    pub be: u8,
    /// Data in the lanes of the byte enables.
    pub data: u64,
}

/// A CPU request that must leave a root port.
struct CpuExpected {
    port: u8,
    head: Head,
    payload: [u8; 8],
}

/// An event, for violations and their stories.
#[derive(Clone, Copy)]
struct Event {
    cycle: u64,
    tap: Tap,
    head: Head,
    id: TlpId,
}

/// Violations that are kept; all are counted.
const KEPT: usize = 1000;
/// Events of a story.
const STORY: usize = 12;
/// Refused requests that are remembered, to explain one that shows up nevertheless.
const REFUSED: usize = 64;

/// Follows every TLP and holds the judges.
pub struct Scoreboard {
    config: Config,
    fabric: Fabric,
    ledger: Ledger,
    judge: iommu::Judge,
    flights: Flights,
    cpu: VecDeque<CpuExpected>,
    /// Requests behind the tags of the memory port.
    reads: [u32; 256],
    /// The last TLP that each endpoint sent, for its payload.
    leaving: [u32; 8],
    /// Endpoints that have received a configuration write (PCIe 6.0 §2.2.6.2).
    captured: [bool; 8],
    refused: VecDeque<(Head, &'static str)>,
    next_id: u64,
    now: Event,
    story: [Option<Event>; STORY],
    story_at: usize,
    stats: Stats,
    violations: Vec<Violation>,
}

impl Scoreboard {
    /// A scoreboard for a machine after reset.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            fabric: Fabric::new(config.topology.clone(), config.fabric),
            judge: iommu::Judge::new(config.capabilities, config.choices.clone()),
            config,
            ledger: Ledger::default(),
            flights: Flights::default(),
            cpu: VecDeque::new(),
            reads: [NONE; 256],
            leaving: [NONE; 8],
            captured: [false; 8],
            refused: VecDeque::new(),
            next_id: 0,
            now: Event {
                cycle: 0,
                tap: Tap::Memory,
                head: Head::default(),
                id: TlpId(0),
            },
            story: [None; STORY],
            story_at: 0,
            stats: Stats::default(),
            violations: Vec::new(),
        }
    }

    /// The violations found, the first [`Stats::violations`] of them up to a limit.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How much was looked at.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The architecture judge of the IOMMU.
    #[must_use]
    pub fn iommu(&self) -> &iommu::Judge {
        &self.judge
    }

    /// A CPU wrote `size` bytes of configuration space and the write has completed.
    pub fn config_written(&mut self, bdf: Bdf, reg: u16, size: u8, value: u32) {
        self.fabric.config_written(bdf, reg, size, value);
    }

    /// A CPU is about to write a register of the IOMMU.
    pub fn register_written<M: Memory>(&mut self, mem: &M, offset: u16, size: u8, value: u64) {
        self.judge
            .register_write(mem, u32::from(offset), size, value);
    }

    /// A CPU read a register of the IOMMU.
    pub fn register_read(&mut self, offset: u16, size: u8, value: u64) {
        self.judge.register_read(u32::from(offset), size, value);
    }

    /// The eight bytes at `addr` are about to change from `old`.
    pub fn memory_changed(&mut self, addr: PhysAddr, old: u64) {
        self.judge.memory_changed(addr, old);
    }

    /// A mapping call made a promise.
    pub fn promise(&mut self, p: Promise) -> PromiseId {
        self.stats.promises += 1;
        self.ledger.promise(p)
    }

    /// An unmap call has begun: accesses may go either way. Unknown or ended promises are ignored.
    pub fn revoke_begin(&mut self, id: PromiseId) {
        self.ledger.revoke_begin(id);
    }

    /// The promise has ended: no access may arrive any more.
    pub fn revoke_end(&mut self, id: PromiseId) {
        self.ledger.revoke_end(id);
    }

    /// A device is told to do what nobody promised it; the system must refuse it.
    pub fn expect_rogue(
        &mut self,
        requester: Bdf,
        addr: BusAddr,
        len: u64,
        write: bool,
    ) -> RogueId {
        self.stats.rogues += 1;
        self.ledger.expect_rogue(requester, addr, len, write)
    }

    /// The probe is over.
    pub fn rogue_done(&mut self, id: RogueId) {
        self.ledger.rogue_done(id);
    }

    /// A TLP at [`Tap::EpTx`], [`Tap::EpRx`], [`Tap::RpRx`] or [`Tap::RpTx`]; the payload is whole
    /// at [`Tap::EpRx`], and at [`Tap::EpTx`] whole or still to come ([`Scoreboard::payload`]).
    pub fn tlp<M: Memory>(
        &mut self,
        _mem: &M,
        cycle: u64,
        tap: Tap,
        head: &Head,
        payload: &[u8],
    ) -> TlpId {
        self.begin(cycle, tap, head);
        match tap {
            Tap::EpTx(n) => self.leaves_endpoint(n, head, payload),
            Tap::RpRx(n) => self.enters_root_port(n, head),
            Tap::RpTx(n) => self.leaves_root_port(n, head),
            Tap::EpRx(n) => {
                if head.fmt_type() == fmt_type::CFGWR0 {
                    self.captured[usize::from(n & 7)] = true;
                }
                self.arrives(n, head, payload);
            }
            Tap::Translate(_) | Tap::Memory => {}
        }
        self.end()
    }

    /// The payload of the TLP that endpoint `n` began to send last, once its last beat has left: a
    /// switch that cuts through shows the header at later taps before.
    pub fn payload(&mut self, n: u8, payload: &[u8]) {
        let slot = std::mem::replace(&mut self.leaving[usize::from(n & 7)], NONE);
        if slot != NONE {
            let f = self.flights.get_mut(slot);
            f.payload.clear();
            f.payload.extend_from_slice(payload);
        }
    }

    fn begin(&mut self, cycle: u64, tap: Tap, head: &Head) {
        self.stats.row(tap);
        self.now = Event {
            cycle,
            tap,
            head: *head,
            id: TlpId(0),
        };
    }

    fn end(&mut self) -> TlpId {
        self.story[self.story_at] = Some(self.now);
        self.story_at = (self.story_at + 1) % STORY;
        self.now.id
    }

    fn new_id(&mut self) -> TlpId {
        self.next_id += 1;
        self.stats.tlps += 1;
        self.now.id = TlpId(self.next_id);
        self.now.id
    }

    fn report(&mut self, rule: Rule, e: Error, call: Option<String>) {
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

    fn violate(
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
    fn violate_promise(
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
    fn call_of(&self, grant: Grant) -> Option<String> {
        match grant {
            Grant::Promise(slot) => Some(self.ledger.get(slot).call.clone()),
            _ => None,
        }
    }

    /// A TLP has ended its way.
    fn finish(&mut self, slot: u32) {
        if let Grant::Promise(p) = self.flights.get(slot).grant {
            self.ledger.release(p);
        }
        for l in &mut self.leaving {
            if *l == slot {
                *l = NONE;
            }
        }
        self.flights.remove(slot);
    }

    // Endpoint, transmit side.

    fn leaves_endpoint(&mut self, n: u8, head: &Head, payload: &[u8]) {
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

    fn check_request_header(&mut self, n: u8, head: &Head) {
        self.stats.check(Rule::RequestHeader);
        let limits = header::Limits {
            max_payload: self.fabric.max_payload(n),
            max_read: self.fabric.max_read(n),
        };
        if let Some(e) = header::check_request(head, &limits) {
            self.report(Rule::RequestHeader, e, None);
        }
    }

    /// What the ledger says to a device's request.
    fn grant(&mut self, n: u8, slot: u32, head: &Head, hop: Hop) {
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

    fn reachable(&self, device: Bdf, addr: BusAddr, len: u64, write: bool) -> bool {
        let c = &self.config;
        self.ledger
            .granule_reachable(device, (addr, len), c.granule, write, c.write_implies_read)
    }

    /// The first step of a promised access.
    fn check_route(&mut self, promise: u32, hop: Hop) {
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

    fn open_transaction(&mut self, slot: u32, id: TlpId, head: &Head) {
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

    /// Sends a TLP on its way.
    fn go(&mut self, slot: u32, hop: Hop) {
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

    fn answered_by(&mut self, slot: u32, responder: Responder, demand: Demand) {
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
    fn refuse(&mut self, slot: u32, by: Responder, status: CplStatus, clause: &'static str) {
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
    fn take(&mut self, tap: Tap, head: &Head) -> Option<u32> {
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

    /// Nothing like this TLP was sent here.
    fn unexpected(&mut self, head: &Head) {
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
    fn check_order(&mut self, tap: Tap, slot: u32) {
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

    // Root ports.

    fn enters_root_port(&mut self, port: u8, head: &Head) {
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
            self.check_permission(slot, clause);
            self.refuse(slot, Responder::Bridge, status, clause);
        } else if head.is_mem() {
            self.flights.wait(slot, Tap::Translate(port));
        } else {
            self.answered_by(slot, Responder::Bridge, Demand::Any);
            self.finish(slot);
        }
    }

    /// A completion entered a root port: it answers the CPUs, or a peer.
    fn completion_at_root(&mut self, slot: u32, head: &Head) {
        let bus = head.requester().bus();
        match self.fabric.root_port_for_bus(bus) {
            Some((port, _)) if bus != 0 => self.flights.wait(slot, Tap::RpTx(port)),
            _ => self.deliver(slot, None),
        }
    }

    /// What is promised must not be refused.
    fn check_permission(&mut self, slot: u32, got: &str) {
        if let Grant::Promise(p) = self.flights.get(slot).grant {
            self.stats.check(Rule::PromisePermission);
            if self.ledger.state(p) == State::Live {
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
    }

    fn leaves_root_port(&mut self, port: u8, head: &Head) {
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

    // CPUs.

    /// A CPU asks; the TLP that this makes is expected at its root port.
    pub fn cpu_request(&mut self, _cycle: u64, r: &CpuRequest) {
        if let Some((port, head)) = self.cpu_head(r) {
            self.cpu.push_back(CpuExpected {
                port,
                head,
                payload: r.data.to_le_bytes(),
            });
        }
    }

    fn cpu_head(&self, r: &CpuRequest) -> Option<(u8, Head)> {
        let (low, high) = (r.be & 15, r.be >> 4);
        let addr = (r.addr & !7) + if low == 0 { 4 } else { 0 };
        let both = low != 0 && high != 0;
        let first = if low == 0 { high } else { low };
        if r.config {
            let bus = (addr >> 20) as u8;
            let (port, own) = self.fabric.root_port_for_bus(bus).filter(|_| bus != 0)?;
            let fmt = match (r.write, own) {
                (false, true) => fmt_type::CFGRD0,
                (true, true) => fmt_type::CFGWR0,
                (false, false) => fmt_type::CFGRD1,
                (true, false) => fmt_type::CFGWR1,
            };
            let target = (addr >> 12 & 0xffff) as u32;
            // On a link only device 0 exists: the root port answers for the others (PCIe 6.0
            // §7.3.1).
            if own && target >> 3 & 31 != 0 {
                return None;
            }
            let hdr = [
                u32::from(fmt) << 24 | 1,
                u32::from(first),
                target << 16 | (addr & 0xffc) as u32,
                0,
            ];
            return Some((port, Head { hdr, pfx: None }));
        }
        let map = &self.config.map;
        if self.fabric.iommu_registers(map.to_bus(PhysAddr(addr)).0)
            || !map.aperture.contains(PhysAddr(addr), 4)
        {
            return None;
        }
        let bus = map.to_bus(PhysAddr(addr));
        let port = self.fabric.root_port_for(bus.0)?;
        let head = Head::mem(&tlproof_pcie::tlp::MemRequest {
            write: r.write,
            addr: bus,
            len_dw: 1 + u16::from(both),
            first_be: first,
            last_be: if both { high } else { 0 },
            requester: Bdf(0),
            tag: 0,
            at: AddressType::Untranslated,
            no_snoop: false,
            relaxed: false,
            ido: false,
            tc: 0,
            pasid: None,
        });
        Some((port, head))
    }

    fn cpu_tlp(&mut self, port: u8, head: &Head) -> Option<u32> {
        let id = self.new_id();
        self.stats.check(Rule::Header);
        let Some(at) = self.cpu.iter().position(|c| c.port == port) else {
            self.unexpected(head);
            return None;
        };
        let expected = self.cpu.remove(at)?;
        if let Some(e) = header::difference(&expected.head, &header::without_tag(head)) {
            self.report(Rule::Header, e, None);
        }
        let len = usize::from(head.len_dw()) * 4;
        let skip = if len == 4 && expected.head.first_be() != 0 && self.upper_half(&expected) {
            4
        } else {
            0
        };
        let end = (skip + len).min(8);
        let payload = if head.has_data() {
            &expected.payload[skip..end]
        } else {
            &[]
        };
        let slot = self.flights.add(id, head, CPU, payload);
        if head.class() == Class::NonPosted {
            self.open_transaction(slot, id, head);
        }
        Some(slot)
    }

    /// Whether a request of one DW is the upper half of its eight bytes.
    fn upper_half(&self, c: &CpuExpected) -> bool {
        if c.head.is_cfg() {
            c.head.register() & 4 != 0
        } else {
            c.head.addr().0 & 4 != 0
        }
    }

    // Translation.

    /// A request leaves the translation stage.
    pub fn translated<M: Memory>(
        &mut self,
        mem: &M,
        cycle: u64,
        port: u8,
        head: &Head,
        actual: &Translated,
    ) -> TlpId {
        let tap = Tap::Translate(port);
        self.begin(cycle, tap, head);
        if let Some(slot) = self.take_unordered(tap, head) {
            self.check_translation(mem, slot, port, head, actual);
        } else {
            self.unexpected(head);
        }
        self.end()
    }

    /// As [`Self::take`], at a tap where order means nothing.
    fn take_unordered(&mut self, tap: Tap, head: &Head) -> Option<u32> {
        if let Some(slot) = self.flights.take(tap, |f| f.head == *head) {
            self.stats.check(Rule::Header);
            self.now.id = self.flights.get(slot).id;
            return Some(slot);
        }
        self.take(tap, head)
    }

    fn check_translation<M: Memory>(
        &mut self,
        mem: &M,
        slot: u32,
        port: u8,
        head: &Head,
        actual: &Translated,
    ) {
        let stamp = self.flights.get(slot).stamp;
        let status = self.ask_iommu(mem, head, stamp, actual);
        if actual.status != Status::Ok {
            let got = format!("refused with cause {}", actual.cause);
            self.check_permission(slot, &got);
            if actual.dest != Dest::None {
                self.violate(
                    Rule::Destination,
                    "destination",
                    "none",
                    format!("{:?}", actual.dest),
                    "IOMMU §7.3",
                );
            }
            let status = match status.unwrap_or(actual.status) {
                Status::CompleterAbort => CplStatus::CompleterAbort,
                _ => CplStatus::UnsupportedRequest,
            };
            self.refuse(slot, Responder::Bridge, status, "IOMMU §7.3");
            return;
        }
        let (dest, attr) = self.resolve(port, head, actual);
        self.stats.check(Rule::Destination);
        if dest != actual.dest {
            self.violate(
                Rule::Destination,
                "destination",
                format!("{dest:?}"),
                format!("{:?}", actual.dest),
                "the PMA table and the root ports' windows",
            );
        }
        if let Some(attr) = attr.filter(|_| dest != Dest::None) {
            self.check_attr(attr, actual.attr);
        }
        if dest == Dest::None {
            self.check_permission(slot, "nothing is at the translated address");
        }
        let f = self.flights.get_mut(slot);
        f.attr = Some(actual.attr);
        f.phys = PhysAddr(actual.spa.0 & !3);
        match actual.dest {
            Dest::Memory => {
                self.answered_by(slot, Responder::Bridge, Demand::Success);
                self.flights.wait(slot, Tap::Memory);
            }
            Dest::Peer(p) => {
                let bus = self.config.map.to_bus(PhysAddr(actual.spa.0 & !3));
                f.head = head.with_addr(bus);
                self.flights.wait(slot, Tap::RpTx(p));
            }
            Dest::None => self.refuse(
                slot,
                Responder::Bridge,
                CplStatus::UnsupportedRequest,
                "nothing is at the translated address",
            ),
        }
    }

    fn ask_iommu<M: Memory>(
        &mut self,
        mem: &M,
        head: &Head,
        stamp: Stamp,
        actual: &Translated,
    ) -> Option<Status> {
        self.stats.check(Rule::Translation);
        if !self.config.iommu {
            let right = actual.status == Status::Ok
                && actual.spa.0 & !3 == head.addr().0
                && actual.pbmt == 0;
            if !right {
                self.violate(
                    Rule::Translation,
                    "address",
                    format!("{} untranslated", head.addr()),
                    format!("{}, {}, pbmt {}", actual.status, actual.spa, actual.pbmt),
                    "no IOMMU",
                );
            }
            return None;
        }
        let write = head.has_data();
        let pasid = head.pasid();
        let execute = !write && pasid.is_some_and(|p| p.execute);
        let ttyp = match (head.at(), write, execute) {
            (AddressType::Untranslated, true, _) => TransactionType::UntranslatedWrite,
            (AddressType::Untranslated, _, true) => TransactionType::UntranslatedExecute,
            (AddressType::Untranslated, ..) => TransactionType::UntranslatedRead,
            (AddressType::TranslationRequest, ..) => TransactionType::AtsTranslation,
            (_, true, _) => TransactionType::TranslatedWrite,
            (_, _, true) => TransactionType::TranslatedExecute,
            _ => TransactionType::TranslatedRead,
        };
        let request = Request {
            ttyp,
            device_id: u32::from(head.requester().0),
            process_id: pasid.map(|p| p.pasid),
            privileged: pasid.is_some_and(|p| p.privileged),
            iova: head.addr().0,
        };
        let answer = Actual {
            status: actual.status,
            cause: actual.cause,
            spa: actual.spa,
            pbmt: actual.pbmt,
        };
        match self.judge.check(mem, &request, stamp, &answer) {
            Ok(Outcome::Unmodelled(_)) => None,
            Ok(outcome) => outcome.status(),
            Err(m) => {
                self.violate(
                    Rule::Translation,
                    m.field.name(),
                    m.expected,
                    m.got,
                    m.clause,
                );
                None
            }
        }
    }

    /// Destination and attributes of a translated request (`docs/rtl-ports.md`).
    fn resolve(&self, _port: u8, head: &Head, t: &Translated) -> (Dest, Option<MemAttr>) {
        let map = &self.config.map;
        let addr = PhysAddr(t.spa.0 & !3);
        let (dest, pma) = if map.is_dram(addr, 1) {
            (Dest::Memory, MemType::WriteBack)
        } else if map.msi.contains(addr, 1) {
            (Dest::Memory, MemType::Device)
        } else if map.aperture.contains(addr, 1) {
            let port = self.fabric.root_port_for(map.to_bus(addr).0);
            let pma = if self.config.aperture_wb {
                MemType::WriteBack
            } else {
                MemType::Device
            };
            (port.map_or(Dest::None, Dest::Peer), pma)
        } else {
            return (Dest::None, None);
        };
        let mem_type = match t.pbmt {
            1 => MemType::NonCacheable,
            2 => MemType::Device,
            _ => pma,
        };
        let cacheable = mem_type == MemType::WriteBack;
        let attr = MemAttr {
            mem_type,
            snoop: cacheable && !(head.no_snoop() && self.config.ns_honour),
            strong_order: mem_type == MemType::Device || (head.has_data() && !head.relaxed()),
        };
        (dest, Some(attr))
    }

    fn check_attr(&mut self, expected: MemAttr, got: MemAttr) {
        const CLAUSE: &str = "attr = PBMT != 0 ? PBMT : PMA";
        self.stats.check(Rule::Attributes);
        if expected.mem_type != got.mem_type {
            self.violate(
                Rule::Attributes,
                "memory type",
                expected.mem_type.name(),
                got.mem_type.name(),
                CLAUSE,
            );
        } else if expected.snoop != got.snoop {
            let name = |s| if s { "snooped" } else { "not snooped" };
            self.violate(
                Rule::Attributes,
                "snoop",
                name(expected.snoop),
                name(got.snoop),
                CLAUSE,
            );
        } else if expected.strong_order != got.strong_order {
            let name = |s| if s { "strong" } else { "relaxed" };
            self.violate(
                Rule::Attributes,
                "order attribute",
                name(expected.strong_order),
                name(got.strong_order),
                CLAUSE,
            );
        }
    }

    // Memory port.

    /// A request was taken at the memory port, `data` with all its beats.
    pub fn memory_request(&mut self, cycle: u64, req: &MemRequest, data: &[u8]) -> TlpId {
        let head = header::of_memory_request(req);
        self.begin(cycle, Tap::Memory, &head);
        if !req.write {
            self.reads[usize::from(req.port_tag)] = NONE;
        }
        if req.from_iommu {
            self.iommu_request(req, data);
            return self.end();
        }
        self.stats.check(Rule::Header);
        let this = |f: &crate::flight::Flight| {
            f.head.requester() == req.requester
                && f.head.tag() == req.tlp_tag
                && f.head.has_data() == req.write
        };
        let found = self
            .flights
            .take(Tap::Memory, |f| this(f) && f.phys == req.addr)
            .or_else(|| self.flights.take(Tap::Memory, this))
            .or_else(|| {
                self.flights.take(Tap::Memory, |f| {
                    f.phys == req.addr && f.head.has_data() == req.write
                })
            });
        if let Some(slot) = found {
            self.now.id = self.flights.get(slot).id;
            self.at_memory(slot, req, &head, data);
            self.finish(slot);
        } else {
            self.unexpected(&head);
        }
        self.end()
    }

    fn iommu_request(&mut self, req: &MemRequest, data: &[u8]) {
        self.stats.iommu_requests += 1;
        if req.write
            && let Ok(word) = <[u8; 4]>::try_from(data)
        {
            self.judge
                .fence_store_observed(req.addr, u32::from_le_bytes(word));
        }
        if self.config.map.is_dram(req.addr, 1) {
            let expected = MemAttr {
                mem_type: MemType::WriteBack,
                snoop: true,
                strong_order: req.attr.strong_order,
            };
            self.check_attr(expected, req.attr);
        }
    }

    fn at_memory(&mut self, slot: u32, req: &MemRequest, head: &Head, data: &[u8]) {
        self.check_order(Tap::Memory, slot);
        let f = self.flights.get(slot);
        let expected = header::at_memory(&f.head, f.phys);
        let attr = f.attr;
        let transaction = f.transaction;
        if let Some(e) = header::difference(&expected, head) {
            self.report(Rule::Header, e, None);
        }
        if let Some(attr) = attr {
            self.check_attr(attr, req.attr);
        }
        if req.write {
            self.check_payload(slot, head, data);
        } else if transaction != NONE {
            self.flights.transaction(transaction).memory = true;
            self.reads[usize::from(req.port_tag)] = transaction;
        }
        self.check_arrival(slot, req.addr, Some(req.attr), Route::Memory);
    }

    /// The memory answered part of a read.
    pub fn memory_response(
        &mut self,
        _cycle: u64,
        port_tag: u8,
        data: &[u8],
        error: bool,
        last: bool,
    ) {
        let slot = self.reads[usize::from(port_tag)];
        if slot == NONE {
            return;
        }
        let t = self.flights.transaction(slot);
        t.data.extend_from_slice(data);
        if error {
            t.demand = Demand::Fault;
        }
        if last {
            self.reads[usize::from(port_tag)] = NONE;
        }
    }

    /// Data at the end of the way is the data of its beginning.
    fn check_payload(&mut self, slot: u32, head: &Head, data: &[u8]) {
        self.stats.check(Rule::Payload);
        let sent = &self.flights.get(slot).payload;
        if sent == data {
            return;
        }
        let enabled = header::enabled_bytes(head);
        let wrong =
            (0..sent.len().max(data.len())).find(|i| enabled(*i) && sent.get(*i) != data.get(*i));
        let Some(at) = wrong else { return };
        let (expected, got) = (byte(sent, at), byte(data, at));
        let call = self.call_of(self.flights.get(slot).grant);
        self.violate_promise(
            Rule::Payload,
            "payload",
            format!("byte {at}: {expected}"),
            got,
            "PCIe 6.0 §2.2.2: data is carried unchanged",
            call,
        );
    }

    /// The promise judge, where an access arrives.
    fn check_arrival(&mut self, slot: u32, phys: PhysAddr, attr: Option<MemAttr>, at: Route) {
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

    fn check_promise(
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

    // Endpoint, receive side.

    fn arrives(&mut self, n: u8, head: &Head, payload: &[u8]) {
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
        if head.is_mem() && self.flights.get(slot).source < CPU {
            let f = self.flights.get(slot);
            let (route, attr) = if f.through_bridge {
                (Route::PeerThroughBridge, f.attr)
            } else {
                (Route::PeerBusAddress, None)
            };
            let phys = self.config.map.to_phys(head.addr());
            self.check_arrival(slot, phys, attr, route);
        }
        let demand = match self.fabric.endpoint_answer(n, head) {
            Answer::Success => Demand::Success,
            Answer::Unsupported => Demand::Status(CplStatus::UnsupportedRequest),
            Answer::Either => Demand::Any,
        };
        self.answered_by(slot, Responder::Endpoint(n), demand);
        self.finish(slot);
    }

    // Completions.

    /// A completion is seen for the first time, at its completer.
    fn completion(&mut self, by: Responder, id: TlpId, head: &Head) -> Option<u32> {
        self.stats.check(Rule::Completion);
        let source: Source = FABRIC;
        let Some(slot) = self.flights.answered(head) else {
            self.violate(
                Rule::Completion,
                "arrival",
                "no completion: no request is outstanding",
                header::describe(head),
                "PCIe 6.0 §2.3.2",
            );
            return None;
        };
        let limit = match by {
            Responder::Endpoint(n) => self.fabric.max_payload(n),
            _ => match self.now.tap {
                Tap::RpTx(p) => self.fabric.root_max_payload(p),
                _ => 4096,
            },
        };
        let completer_ok = match by {
            // Bus and Device Number are 0 until the first configuration write gives them.
            Responder::Endpoint(n) => {
                let own = self.fabric.requester(n);
                own == Some(head.completer())
                    || !self.captured[usize::from(n & 7)] && head.completer() == Bdf(0)
            }
            Responder::Bridge => head.completer().bus() == 0,
            _ => self.fabric.is_port(head.completer()),
        };
        let t = self.flights.transaction(slot);
        let error = if t.responder != by {
            Some(Error::new(
                "completer",
                format!("{:?}", t.responder),
                format!("{by:?}"),
                "PCIe 6.0 §2.2.9, §2.3.1",
            ))
        } else if !completer_ok {
            Some(Error::new(
                "completer",
                "the completer's own ID",
                head.completer().to_string(),
                "PCIe 6.0 §2.2.9",
            ))
        } else {
            header::check_completion(t, head, limit)
        };
        // The completion is followed as it is, so that one wrong field is one violation.
        let bytes = header::completion_bytes(&t.head, head);
        let before = t.sent;
        t.sent += bytes;
        let last = head.status() != CplStatus::Success || t.sent >= t.total;
        t.flying += 1;
        if last {
            self.flights.close(slot);
        }
        if let Some(e) = error {
            self.report(Rule::Completion, e, None);
        }
        let f = self.flights.add(id, head, source, &[]);
        let flight = self.flights.get_mut(f);
        flight.transaction = slot;
        flight.before = before;
        flight.last = last;
        Some(f)
    }

    /// A completion has come back to its requester.
    fn deliver(&mut self, slot: u32, payload: Option<&[u8]>) {
        let f = self.flights.get(slot);
        let (transaction, before, head) = (f.transaction, f.before, f.head);
        let from_endpoint = f.source < CPU;
        if let Some(payload) = payload.filter(|_| head.has_data()) {
            if from_endpoint {
                self.check_payload(slot, &head, payload);
            } else {
                self.check_read_data(transaction, before, &head, payload);
            }
        }
        let t = self.flights.transaction(transaction);
        let arrived = t.arrived;
        t.arrived += header::completion_bytes(&t.head, &head);
        t.flying -= 1;
        self.flights.retire(transaction);
        if arrived != before {
            self.violate(
                Rule::Completion,
                "order",
                format!("{before} bytes before it"),
                format!("{arrived} bytes"),
                "PCIe 6.0 §2.3.1.1",
            );
        }
        self.finish(slot);
    }

    /// What a device reads is what the memory answered.
    fn check_read_data(&mut self, transaction: u32, before: u32, head: &Head, payload: &[u8]) {
        let t = self.flights.transaction(transaction);
        if !t.memory {
            return;
        }
        let skip = t.head.byte_span().0 as usize;
        let from = skip + before as usize;
        let len = header::completion_bytes(&t.head, head) as usize;
        // The payload begins with the DW that holds the first byte.
        let lead = from & 3;
        let zero_length = t.head.byte_span().1 == 0;
        let answered = t.data.get(from..from + len);
        let got = payload.get(lead..lead + len);
        let wrong = if zero_length || (answered.is_some() && answered == got) {
            None
        } else {
            let at = (0..len)
                .find(|i| t.data.get(from + i) != payload.get(lead + i))
                .unwrap_or(0);
            Some((at, byte(&t.data, from + at), byte(payload, lead + at)))
        };
        self.stats.check(Rule::Payload);
        if let Some((at, expected, got)) = wrong {
            self.violate_promise(
                Rule::Payload,
                "payload",
                format!("byte {at}: {expected}"),
                got,
                "PCIe 6.0 §2.2.9: the completion carries what the memory answered",
                None,
            );
        }
    }

    // The end.

    /// Expects no completion of a request that never arrived.
    fn abandon(&mut self, slot: u32) {
        let f = self.flights.get(slot);
        let (id, transaction) = (f.id, f.transaction);
        if transaction != NONE {
            let t = self.flights.transaction(transaction);
            if t.id == id && !t.closed {
                self.flights.close(transaction);
            }
        }
    }

    /// Nothing is under way any more. `fault_queue` holds the records that the CPU has taken from
    /// the fault queue since the last call.
    pub fn quiesce<M: Memory>(&mut self, _mem: &M, fault_queue: &[[u64; 4]]) {
        self.stats.check(Rule::Arrival);
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
            self.stats.check(Rule::FaultRecord);
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
}

fn byte(data: &[u8], at: usize) -> String {
    data.get(at)
        .map_or_else(|| "no byte".to_owned(), |b| format!("{b:#04x}"))
}
