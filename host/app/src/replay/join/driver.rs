//! Events of the calls that drivers make: the tracepoints of the group `dma`.

use super::{
    call::{Call, Unmapped},
    pending::{At, Pending},
};
use crate::trace::Event;
use tlproof_pcie::DmaAddr;

impl Pending {
    /// The calls of drivers, which bring what happened inside together. Other events are given back.
    pub(super) fn driver_call(
        &mut self,
        here: At,
        event: Event,
        mut emit: impl FnMut(At, Call),
    ) -> Option<Event> {
        match event {
            Event::DmaMapPhys {
                dev,
                dir,
                dma_addr,
                size,
                phys,
                attrs,
            } => {
                let dma = (dma_addr.0 != u64::MAX).then_some(dma_addr);
                let (at, did) = self.mapped(&dev, dma.unwrap_or(DmaAddr(0)), size);
                emit(
                    at.unwrap_or(here),
                    Call::MapPhys {
                        dev,
                        phys,
                        size,
                        dir,
                        attrs,
                        dma,
                        did,
                    },
                );
            }
            Event::DmaUnmapPhys {
                dev,
                dir,
                dma_addr,
                size,
                attrs,
            } => {
                let (at, did) = self.unmapped();
                emit(
                    at.unwrap_or(here),
                    Call::UnmapPhys {
                        dev,
                        dma: dma_addr,
                        size,
                        dir,
                        attrs,
                        did,
                    },
                );
            }
            Event::DmaMapSg {
                dev,
                dir,
                truncated,
                dma_addrs,
                sizes,
                phys,
                attrs,
                ..
            } => {
                let start = dma_addrs.first().copied().unwrap_or(DmaAddr(0));
                let (at, did) = self.mapped(&dev, start, u64::MAX);
                let at = at.unwrap_or(here);
                if truncated {
                    emit(
                        at,
                        Call::Skip {
                            why: "not replayed: a scatterlist longer than its event shows",
                            what: format!("{} of {dev}", phys.len()),
                        },
                    );
                    return None;
                }
                let segments = dma_addrs.into_iter().zip(sizes).collect();
                emit(
                    at,
                    Call::MapSg {
                        dev,
                        dir,
                        attrs,
                        phys,
                        segments,
                        did,
                    },
                );
            }
            Event::DmaUnmapSg {
                dev,
                dir,
                phys,
                attrs,
            } => {
                let _ = self.unmapped();
                let call = Call::UnmapSg {
                    dev,
                    dir,
                    attrs,
                    phys,
                    did: Unmapped::default(),
                };
                self.free = Some((here, call, None));
            }
            Event::DmaAlloc {
                dev,
                dma_addr,
                size,
                attrs,
                ..
            }
            | Event::DmaAllocPages {
                dev,
                dma_addr,
                size,
                attrs,
                ..
            } => {
                let (at, did) = self.mapped(&dev, dma_addr, size);
                emit(
                    at.unwrap_or(here),
                    Call::Alloc {
                        dev,
                        dma: dma_addr,
                        size,
                        attrs,
                        did,
                    },
                );
            }
            Event::DmaFree {
                dev,
                dma_addr,
                size,
                ..
            }
            | Event::DmaFreePages {
                dev,
                dma_addr,
                size,
                ..
            } => {
                // What an unfinished call has left belongs to nobody.
                let _ = self.unmapped();
                let call = Call::Free {
                    dev,
                    dma: dma_addr,
                    size,
                    did: Unmapped::default(),
                };
                self.free = Some((here, call, Some(dma_addr)));
            }
            Event::DmaSyncSingleForCpu {
                dev,
                dir,
                dma_addr,
                size,
            } => emit(
                here,
                Call::Sync {
                    dev,
                    dma: dma_addr,
                    size,
                    dir,
                    for_cpu: true,
                },
            ),
            Event::DmaSyncSingleForDevice {
                dev,
                dir,
                dma_addr,
                size,
            } => emit(
                here,
                Call::Sync {
                    dev,
                    dma: dma_addr,
                    size,
                    dir,
                    for_cpu: false,
                },
            ),
            Event::DmaSyncSgForCpu {
                dev,
                dir,
                dma_addrs,
                ..
            } => {
                let dma = dma_addrs.first().copied().unwrap_or(DmaAddr(0));
                emit(
                    here,
                    Call::SyncSg {
                        dev,
                        dma,
                        dir,
                        for_cpu: true,
                    },
                );
            }
            Event::DmaSyncSgForDevice {
                dev,
                dir,
                dma_addrs,
                ..
            } => {
                let dma = dma_addrs.first().copied().unwrap_or(DmaAddr(0));
                emit(
                    here,
                    Call::SyncSg {
                        dev,
                        dma,
                        dir,
                        for_cpu: false,
                    },
                );
            }
            Event::DmaMapSgErr { dev, err, .. } => emit(
                here,
                Call::Skip {
                    why: "not replayed: dma_map_sg failed in the kernel, which does not say where",
                    what: format!("{dev}, error {err}"),
                },
            ),
            Event::DmaAllocSgt { dev, size, .. } => emit(
                here,
                Call::Skip {
                    why: "not replayed: the event of a non-contiguous allocation has no lengths",
                    what: format!("{dev}, {size} bytes"),
                },
            ),
            Event::DmaAllocSgtErr { dev, size, .. } => emit(
                here,
                Call::Skip {
                    why: "not replayed: a non-contiguous allocation failed in the kernel",
                    what: format!("{dev}, {size} bytes"),
                },
            ),
            Event::DmaFreeSgt { .. } => {
                let _ = self.unmapped();
            }
            other => return Some(other),
        }
        None
    }
}
