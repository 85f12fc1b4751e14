//! What happens inside of calls: IOVA, page tables, invalidations, bounce slots.

use super::{
    PAGE,
    call::{Bounce, Call, IovaAlloc, TableMap},
    core_map,
    pending::{At, Pending},
};
use crate::trace::Event;
use tlproof_pcie::DmaAddr;

impl Pending {
    /// What is kept for the call that it belongs to. Other events are given back.
    pub(super) fn inside_call(
        &mut self,
        here: At,
        event: Event,
        mut emit: impl FnMut(At, Call),
    ) -> Option<Event> {
        match event {
            Event::IovaDofree { iova, .. } => {
                self.freed = Some(here);
                self.just_freed = true;
                let at = |start: DmaAddr| start.align_down(PAGE) == iova;
                let destroy = self.destroy.take_if(|(.., start)| at(*start)).map(|d| d.1);
                let free = || {
                    self.free
                        .take_if(|(.., start)| start.is_none_or(at))
                        .map(|f| f.1)
                };
                if let Some(call) = destroy.or_else(free) {
                    emit(here, call.with(self.unmapped().1));
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
                    emit(At::new(line, here.cpu), core_map(&t));
                }
                self.alloc = Some((here, dev, alloc));
                self.placed = false;
            }
            Event::IovaAllocRet { iova } => {
                let iova = (iova.0 != 0).then_some(iova);
                match &mut self.alloc {
                    Some((at, _, alloc)) => {
                        alloc.iova = iova;
                        if !std::mem::replace(&mut self.placed, true) {
                            // The caches are those of the CPU that it began on.
                            *at = At {
                                cpu: at.cpu,
                                ..here
                            };
                        }
                    }
                    // A probe can miss the entry and see the return.
                    None => self.returned = iova.map(|iova| (here, iova)),
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
                self.tables.push((here.line(), t));
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
                    self.tables.push((here.line(), t));
                }
            }
            Event::Unmap { iova, size, .. } => {
                self.untables.push((here, iova, size));
                self.just_freed = true;
            }
            // All of a domain is a flush queue's business.
            Event::CacheTagFlushRange { start, last, .. } if start.0 != 0 || last.0 != u64::MAX => {
                if !self.flushed.contains(&(start, last)) {
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
            Event::SwiotlbUnmap { size, .. } => self.released.push((here, size)),
            Event::P2pState { dev, page, map, .. } => emit(here, Call::P2p { dev, page, map }),
            Event::IoPageFault { dev, iova, .. } => emit(
                here,
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
