//! What happens inside of calls: IOVA, page tables, invalidations, bounce slots.

use super::{
    PAGE,
    call::{Bounce, Call, IovaAlloc, TableMap},
    core_map,
    pending::Pending,
};
use crate::trace::Event;
use tlproof_pcie::DmaAddr;

impl Pending {
    /// What is kept for the call that it belongs to. Other events are given back.
    pub(super) fn inside_call(
        &mut self,
        number: u64,
        event: Event,
        mut emit: impl FnMut(u64, Call),
    ) -> Option<Event> {
        match event {
            Event::IovaDofree { iova, .. } => {
                self.freed = Some(number);
                let at = |start: DmaAddr| start.align_down(PAGE) == iova;
                let destroy = self.destroy.take_if(|(.., start)| at(*start)).map(|d| d.1);
                let free = || {
                    self.free
                        .take_if(|(.., start)| start.is_none_or(at))
                        .map(|f| f.1)
                };
                if let Some(call) = destroy.or_else(free) {
                    emit(number, call.with(self.unmapped().1));
                }
            }
            Event::IovaAlloc {
                size, limit, dev, ..
            } => {
                let alloc = IovaAlloc {
                    size,
                    limit,
                    iova: None,
                };
                for (line, t) in self.tables.drain(..) {
                    emit(line, core_map(&t));
                }
                self.alloc = Some((number, dev, alloc));
            }
            Event::IovaAllocRet { iova } => {
                if let Some((.., alloc)) = &mut self.alloc {
                    alloc.iova = (iova.0 != 0).then_some(iova);
                }
            }
            Event::IommuMapProt {
                iova,
                phys,
                size,
                prot,
                ..
            } => {
                let prot = Some(prot);
                let t = TableMap {
                    iova,
                    phys,
                    size,
                    prot,
                };
                self.tables.push((number, t));
            }
            Event::Map {
                iova, phys, size, ..
            } => {
                // The probe, if there is one, has said the same with the protection.
                if !self
                    .tables
                    .iter()
                    .any(|(_, t)| t.iova == iova && t.size == size)
                {
                    let prot = None;
                    let t = TableMap {
                        iova,
                        phys,
                        size,
                        prot,
                    };
                    self.tables.push((number, t));
                }
            }
            Event::Unmap { iova, size, .. } => self.untables.push((number, iova, size)),
            Event::CacheTagFlushRange { start, last, .. } => {
                if start.0 == 0 && last.0 == u64::MAX {
                    emit(number, Call::FlushQueue);
                } else if !self.flushed.contains(&(start, last)) {
                    self.flushed.push((start, last));
                }
            }
            Event::SwiotlbMap {
                phys, size, tlb, ..
            } => {
                if tlb.0 != u64::MAX {
                    self.bounces.push(Bounce { phys, size, tlb });
                }
            }
            Event::SwiotlbUnmap { size, .. } => self.released.push((number, size)),
            Event::P2pState { dev, page, map, .. } => emit(number, Call::P2p { dev, page, map }),
            Event::IoPageFault { dev, iova, .. } => emit(
                number,
                Call::Skip {
                    why: "not repeated: the recorded machine's IOMMU reported a fault",
                    what: format!("{dev} at {iova:#x}"),
                },
            ),
            other => return Some(other),
        }
        None
    }
}
