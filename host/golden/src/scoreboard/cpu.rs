//! Requests of the CPUs.

use tlproof_pcie::{
    Bdf, Class, Head, PhysAddr,
    tlp::{AddressType, fmt_type},
};

use super::{CpuRequest, Scoreboard};
use crate::flight::CPU;
use crate::header;
use crate::violation::Rule;

/// A CPU request that must leave a root port.
pub(super) struct CpuExpected {
    pub(super) port: u8,
    pub(super) head: Head,
    pub(super) payload: [u8; 8],
}

impl Scoreboard {
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

    pub(super) fn cpu_head(&self, r: &CpuRequest) -> Option<(u8, Head)> {
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

    pub(super) fn cpu_tlp(&mut self, port: u8, head: &Head) -> Option<u32> {
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
    pub(super) fn upper_half(&self, c: &CpuExpected) -> bool {
        if c.head.is_cfg() {
            c.head.register() & 4 != 0
        } else {
            c.head.addr().0 & 4 != 0
        }
    }
}
