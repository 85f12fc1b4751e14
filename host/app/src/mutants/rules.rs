//! What the events of the mapping API must show whatever the workload: rules of the order and of the
//! objects of calls that leave no trace on the bus.

use std::collections::BTreeMap;

use tlproof_dma::{Event, iommu::Prot};
use tlproof_pcie::MemoryMap;

use crate::program::Failure;

/// Checks a whole record.
pub(super) fn check(events: &[Event], map: &MemoryMap) -> Vec<Failure> {
    let mut out = Vec::new();
    let mut fail = |field: &str, text: String| {
        out.push(Failure {
            judge: "events".to_owned(),
            field: field.to_owned(),
            tlp: 0,
            text,
        });
    };
    // IOVA that is allocated.
    let mut iovas = BTreeMap::new();
    for (i, e) in events.iter().enumerate() {
        match e {
            Event::ArchSyncForDevice { phys, size, .. }
            | Event::ArchSyncForCpu { phys, size, .. }
                if !map.is_dram(*phys, *size) =>
            {
                fail("maintenance of device memory", format!("{e:?}"));
            }
            Event::SwiotlbBounced { phys, size, .. } if !map.is_dram(*phys, *size) => {
                fail("bounced device memory", format!("{e:?}"));
            }
            Event::IommuMap { prot, .. } if prot.contains(Prot::CACHE | Prot::MMIO) => {
                fail("protection", format!("{e:?}"));
            }
            Event::SwiotlbUnmap { tlb, dir, .. } if dir.device_writes() => {
                // Maintenance of a slot comes before the copy out of it.
                let late = events[i..]
                    .iter()
                    .take_while(|e| !matches!(e, Event::DmaUnmapPhys { .. }))
                    .any(|e| matches!(e, Event::ArchSyncForCpu { phys, .. } if phys == tlb));
                if late {
                    fail("copy before maintenance", format!("{e:?}"));
                }
            }
            Event::IovaAlloc {
                domain,
                iova: Some(iova),
                size,
                ..
            } => {
                iovas.insert((*domain, *iova), *size);
            }
            Event::IovaDofree { domain, iova, size } => match iovas.remove(&(*domain, *iova)) {
                Some(n) if n == *size => {}
                Some(n) => fail("size of IOVA", format!("{n:#x} allocated; {e:?}")),
                None => fail("IOVA freed twice", format!("{e:?}")),
            },
            _ => {}
        }
    }
    for ((_, iova), size) in iovas {
        fail("leak of IOVA", format!("{iova:#x}+{size:#x}"));
    }
    out
}
