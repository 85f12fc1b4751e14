//! Addresses of MSIs (IOMMU §2.3.3).

use tlproof_pcie::PhysAddr;

use super::stages::Leaf;
use super::{Access, Done, Entry, Pbmt, Step, Tables, Walk, fault, merge, native, stop};
use crate::iommu::context::{DeviceContext, root};
use crate::iommu::{MemoryFault, Mrif, Permissions, Translation};

const PPN: u64 = (1 << 44) - 1;

impl<T: Tables> Walk<'_, T> {
    /// Translates `s1.addr`, an address in the page of virtual interrupt file `number`.
    pub(super) fn interrupt_file(
        &mut self,
        dc: &DeviceContext,
        s1: &Leaf,
        number: u64,
    ) -> Step<Done> {
        let at = root(dc.msi[0]) | (number * 16);
        let entry = Entry::Msi {
            gscid: dc.active_gscid(),
            gpa: s1.addr,
            big: self.fctl & 1 == 1,
        };
        self.loads.msi += 1;
        let words = self.load::<2>(entry, at).map_err(|e| match e {
            MemoryFault::Access => stop(261, "IOMMU §2.3.3 step 7"),
            MemoryFault::Poison => stop(270, "IOMMU §2.3.3 step 8"),
        })?;
        let [w0, w1] = words.map(|w| native(w, self.fctl & 1 == 1));
        if w0 & 1 == 0 {
            return fault(262, "IOMMU §2.3.3 step 9");
        }
        // C is for custom use, and this model knows none.
        if w0 >> 63 == 1 {
            return fault(263, "IOMMU §2.3.3 step 10 (custom)");
        }
        let mrif = match w0 >> 1 & 3 {
            3 if w0 & !(PPN << 10 | 7) != 0 => return fault(263, "IOMMU §2.3.3 step 13.a"),
            3 => None,
            1 if !self.caps.msi_mrif => return fault(263, "IOMMU §2.3.3 step 14.a"),
            1 if w0 & !(((1 << 47) - 1) << 7 | 7) != 0
                || w1 & !(1 << 60 | PPN << 10 | 0x3ff) != 0 =>
            {
                return fault(263, "IOMMU §2.3.3 step 14.b");
            }
            1 => Some(Mrif {
                address: PhysAddr((w0 >> 7 & ((1 << 47) - 1)) << 9),
                notice_address: PhysAddr((w1 >> 10 & PPN) << 12),
                notice_id: (w1 & 0x3ff | w1 >> 60 << 10) as u16,
            }),
            _ => return fault(263, "IOMMU §2.3.3 step 12"),
        };
        if self.access == Access::Execute && !self.probe {
            return fault(1, "IOMMU §2.3.3 step 15.a");
        }
        let page = (w0 >> 10 & PPN) << 12 | s1.addr & 0xfff;
        let spa = match mrif {
            Some(mrif) => mrif.address.0,
            None if self.choices.msi_address_clipped => self.caps.clip(page),
            None if !self.caps.addressable(page) => {
                return fault(self.access.access_fault(), "IOMMU §5.3 (PAS)");
            }
            None => page,
        };
        // A regular second-stage entry with R = W = U = 1 and X = 0.
        let granted = Permissions {
            execute: false,
            ..Permissions::ALL
        };
        let s2 = Leaf {
            addr: spa,
            bits: 12,
            pbmt: 0,
            allowed: granted,
            global: false,
        };
        Ok(Done {
            translation: Translation {
                spa: PhysAddr(spa),
                pbmt: if mrif.is_some() {
                    Pbmt::Pma
                } else {
                    merge(s1, &s2)
                },
                page_size: 4096,
                gpa: s1.addr,
                permissions: s1.allowed.and(granted),
                is_msi: true,
                mrif,
                qos: self.qos(),
            },
            global: false,
            bits: Some(12),
            hole: 64,
        })
    }
}
