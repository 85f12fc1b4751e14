//! Follows every TLP from tap to tap and asks the judges at each.

mod completions;
mod config;
mod cpu;
mod memory;
mod observed;
mod promises;
mod quiesce;
mod report;
mod requests;
mod root_ports;
mod route;
mod translate;

pub use config::Config;
use cpu::CpuExpected;
pub use observed::{CpuRequest, Dest, MemRequest, Translated};
use report::{Event, REMEMBERED};

use std::collections::VecDeque;

use tlproof_pcie::{Bdf, BusAddr, Head, PhysAddr, tlp::fmt_type};

use crate::fabric::Fabric;
use crate::flight::{Flights, Grant, NONE};
use crate::iommu;
use crate::ledger::{Ledger, Promise, PromiseId, RogueId};
use crate::memory::Memory;
use crate::violation::{Rule, Stats, Tap, TlpId, Violation};

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
    /// The last events, oldest first.
    story: VecDeque<Event>,
    stats: Stats,
    violations: Vec<Violation>,
}

impl Scoreboard {
    /// A scoreboard for a machine after reset.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            fabric: Fabric::new(config.topology.clone()),
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
                implicit: false,
            },
            story: VecDeque::with_capacity(REMEMBERED),
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

    pub(super) fn begin(&mut self, cycle: u64, tap: Tap, head: &Head) {
        self.stats.row(tap);
        self.now = Event {
            cycle,
            tap,
            head: *head,
            id: TlpId(0),
            implicit: false,
        };
    }

    pub(super) fn end(&mut self) -> TlpId {
        if self.story.len() == REMEMBERED {
            self.story.pop_front();
        }
        self.story.push_back(self.now);
        self.now.id
    }

    pub(super) fn new_id(&mut self) -> TlpId {
        self.next_id += 1;
        self.stats.tlps += 1;
        self.now.id = TlpId(self.next_id);
        self.now.id
    }

    /// A TLP has ended its way.
    pub(super) fn finish(&mut self, slot: u32) {
        self.stats.check(Rule::Arrival);
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
}
