//! Device and process directories (IOMMU §2.3.1, §2.3.2).

use super::stages::Purpose;
use super::{Entry, Step, Tables, Walk, fault, native, stop};
use crate::iommu::MemoryFault;
use crate::iommu::context::{DeviceContext, ProcessContext, root};

/// Reserved bits of a non-leaf entry of either directory.
const RESERVED: u64 = 0xffc0_0000_0000_03fe;

/// Address of the next table.
const fn next(entry: u64) -> u64 {
    (entry >> 10 & ((1 << 44) - 1)) << 12
}

impl<T: Tables> Walk<'_, T> {
    /// IOMMU §2.3 steps 3 to 6 and §2.3.1.
    pub(super) fn device_context(&mut self, ddtp: u64, levels: u32) -> Step<DeviceContext> {
        let device_id = self.request.device_id;
        let leaf_bits = if self.caps.msi_flat { 6 } else { 7 };
        let did = u64::from(device_id);
        let ddi = [
            did & ((1 << leaf_bits) - 1),
            did >> leaf_bits & 0x1ff,
            did >> (leaf_bits + 9),
        ];
        if levels < 3 && ddi[2] != 0 {
            return fault(260, "IOMMU §2.3 step 5.a");
        }
        if levels < 2 && ddi[1] != 0 {
            return fault(260, "IOMMU §2.3 step 5.b");
        }
        let big = self.fctl & 1 == 1;
        let mut table = next(ddtp);
        for level in (1..levels as usize).rev() {
            self.loads.device_directory += 1;
            let [ddte] = self
                .load::<1>(Entry::Directory { big }, table + ddi[level] * 8)
                .map_err(|e| match e {
                    MemoryFault::Access => stop(257, "IOMMU §2.3.1 step 3"),
                    MemoryFault::Poison => stop(268, "IOMMU §2.3.1 step 4"),
                })?;
            let ddte = native(ddte, big);
            if ddte & 1 == 0 {
                return fault(258, "IOMMU §2.3.1 step 5");
            }
            if ddte & RESERVED != 0 {
                return fault(259, "IOMMU §2.3.1 step 6");
            }
            table = next(ddte);
        }
        let at = table + ddi[0] * self.caps.dc_size();
        let entry = Entry::Context { device_id, big };
        self.loads.device_directory += 1;
        let mut words = [0; 8];
        let read = if self.caps.msi_flat {
            self.load::<8>(entry, at).map(|w| words = w)
        } else {
            self.load::<4>(entry, at)
                .map(|w| words[..4].copy_from_slice(&w))
        };
        read.map_err(|e| match e {
            MemoryFault::Access => stop(257, "IOMMU §2.3.1 step 8"),
            MemoryFault::Poison => stop(268, "IOMMU §2.3.1 step 8"),
        })?;
        let dc = DeviceContext::new(&words.map(|w| native(w, big)));
        if !dc.v() {
            return fault(258, "IOMMU §2.3.1 step 9");
        }
        match dc.misconfigured(self.caps, self.choices, self.fctl) {
            Some(clause) => fault(259, clause),
            None => Ok(dc),
        }
    }

    /// IOMMU §2.3.2.
    pub(super) fn process_context(
        &mut self,
        dc: &DeviceContext,
        process_id: u32,
    ) -> Step<ProcessContext> {
        let device_id = self.request.device_id;
        let pid = u64::from(process_id);
        let pdi = [pid & 0xff, pid >> 8 & 0x1ff, pid >> 17 & 7];
        let big = dc.sbe();
        let mut table = root(dc.fsc);
        for level in (1..dc.fsc_mode() as usize).rev() {
            let at = self.directory_address(dc, table, pdi[level] * 8)?;
            self.loads.process_directory += 1;
            let [pdte] = self
                .load::<1>(Entry::ProcessDirectory { device_id, big }, at)
                .map_err(|e| match e {
                    MemoryFault::Access => stop(265, "IOMMU §2.3.2 step 4"),
                    MemoryFault::Poison => stop(269, "IOMMU §2.3.2 step 5"),
                })?;
            let pdte = native(pdte, big);
            if pdte & 1 == 0 {
                return fault(266, "IOMMU §2.3.2 step 6");
            }
            if pdte & RESERVED != 0 {
                return fault(267, "IOMMU §2.3.2 step 7");
            }
            table = next(pdte);
        }
        let at = self.directory_address(dc, table, pdi[0] * 16)?;
        let entry = Entry::ProcessContext {
            device_id,
            process_id,
            big,
        };
        self.loads.process_directory += 1;
        let words = self.load::<2>(entry, at).map_err(|e| match e {
            MemoryFault::Access => stop(265, "IOMMU §2.3.2 step 9"),
            MemoryFault::Poison => stop(269, "IOMMU §2.3.2 step 9"),
        })?;
        let pc = ProcessContext::new(&words.map(|w| native(w, big)));
        if !pc.v() {
            return fault(266, "IOMMU §2.3.2 step 10");
        }
        match pc.misconfigured(dc, self.caps, self.choices) {
            Some(clause) => fault(267, clause),
            None => Ok(pc),
        }
    }

    /// Physical address of an entry of a process directory. An access fault or corruption that the
    /// second stage meets on the way is one of the directory.
    fn directory_address(&mut self, dc: &DeviceContext, table: u64, offset: u64) -> Step<u64> {
        let (before, after) = if self.choices.pdt_offset_in_iotval2 {
            (offset, 0)
        } else {
            (0, offset)
        };
        match self.second_stage(dc, table + before, Purpose::Directory) {
            Ok(leaf) => Ok(leaf.addr + after),
            Err(s) if matches!(s.cause, 1 | 5 | 7) => fault(265, "IOMMU §2.3.2 step 2"),
            Err(s) if s.cause == 274 => fault(269, "IOMMU §2.3.2 step 2"),
            Err(s) => Err(s),
        }
    }
}
