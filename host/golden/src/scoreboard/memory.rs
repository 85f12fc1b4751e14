//! The memory port.

use tlproof_pcie::{Head, MemAttr, MemType};

use super::{MemRequest, Scoreboard};
use crate::flight::{Demand, NONE};
use crate::header;
use crate::ledger::Route;
use crate::violation::{Rule, Tap, TlpId};

impl Scoreboard {
    /// A request was taken at the memory port, `data` with all its beats.
    pub fn memory_request(&mut self, cycle: u64, req: &MemRequest, data: &[u8]) -> TlpId {
        let head = header::of_memory_request(req);
        self.begin(cycle, Tap::Memory, &head);
        if !req.write {
            self.reads[usize::from(req.port_tag)] = NONE;
        }
        if req.from_iommu {
            self.now.implicit = true;
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

    pub(super) fn iommu_request(&mut self, req: &MemRequest, data: &[u8]) {
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

    pub(super) fn at_memory(&mut self, slot: u32, req: &MemRequest, head: &Head, data: &[u8]) {
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
}
