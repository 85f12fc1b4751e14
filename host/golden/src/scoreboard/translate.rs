//! The translation stage: the architecture judge, destination and attributes.

use tlproof_pcie::{CplStatus, Head, MemAttr, MemType, PhysAddr, tlp::AddressType};

use super::{Dest, Scoreboard, Translated};
use crate::flight::{Demand, Grant, Responder};
use crate::iommu::{Actual, AtsFlags, Request, Stamp, Status, TransactionType};
use crate::memory::Memory;
use crate::violation::{Rule, Tap, TlpId};

impl Scoreboard {
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

    pub(super) fn check_translation<M: Memory>(
        &mut self,
        mem: &M,
        slot: u32,
        port: u8,
        head: &Head,
        actual: &Translated,
    ) {
        let stamp = self.flights.get(slot).stamp;
        let probe = self.flights.get(slot).grant == Grant::Rogue { reachable: false };
        let status = self.ask_iommu(mem, head, stamp, actual, probe);
        if actual.status != Status::Ok {
            let got = format!("refused with cause {}", actual.cause);
            self.check_permission(slot, Some(&got));
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
        let (dest, attr) = self.resolve(head, actual);
        let blocked = matches!(dest, Dest::Peer(p) if self.fabric.root_port_blocks(port, p));
        let dest = if blocked { Dest::None } else { dest };
        let (refusal, clause) = if blocked {
            (
                CplStatus::CompleterAbort,
                "PCIe 6.0 §6.12.1.1, ACS P2P Egress Control",
            )
        } else {
            (
                CplStatus::UnsupportedRequest,
                "nothing is at the translated address",
            )
        };
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
        let refused = (dest == Dest::None).then_some(clause);
        self.check_permission(slot, refused);
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
            Dest::None => self.refuse(slot, Responder::Bridge, refusal, clause),
        }
    }

    pub(super) fn ask_iommu<M: Memory>(
        &mut self,
        mem: &M,
        head: &Head,
        stamp: Stamp,
        actual: &Translated,
        probe: bool,
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
            ats: AtsFlags::default(),
        };
        let answer = Actual {
            status: actual.status,
            cause: actual.cause,
            spa: actual.spa,
            pbmt: actual.pbmt,
        };
        match self.judge.check(mem, &request, stamp, &answer) {
            Ok(outcome) => {
                if probe && outcome.status() != Status::Ok {
                    self.check_exposure(mem, &request, stamp);
                }
                Some(outcome.status())
            }
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

    /// This IOMMU refuses what nobody promised; so must one that keeps all that was not invalidated.
    fn check_exposure<M: Memory>(&mut self, mem: &M, request: &Request, stamp: Stamp) {
        self.stats.check(Rule::Exposure);
        if let Some(t) = self.judge.exposed(mem, request, stamp) {
            self.violate(
                Rule::Exposure,
                "invalidation",
                "no cache of an IOMMU translates it",
                format!("{}, {}", t.spa, t.pbmt),
                "IOMMU §6.2, §3.1.1",
            );
        }
    }

    /// Destination and attributes of a translated request (`docs/rtl-ports.md`).
    pub(super) fn resolve(&self, head: &Head, t: &Translated) -> (Dest, Option<MemAttr>) {
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

    pub(super) fn check_attr(&mut self, expected: MemAttr, got: MemAttr) {
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
}
