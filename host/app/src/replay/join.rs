//! From events to calls: what happens inside a mapping call is traced by itself, before or after
//! the call's own event, and mixed with what interrupts do on the same CPU.
//!
//! Events are joined by the context they come from (a task, or an interrupt level of a CPU). A call
//! stands where it changes the IOVA allocator or the bounce pool, so that their states follow the
//! kernel's.

use std::collections::HashMap;

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::trace::{Attrs, Device, Event, Line, P2pMap};

const PAGE: u64 = 4096;

/// A range that went into a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableMap {
    /// First IOVA.
    pub iova: DmaAddr,
    /// First physical address.
    pub phys: PhysAddr,
    /// Bytes.
    pub size: u64,
    /// `IOMMU_*` flags; unknown when only the tracepoint was recorded.
    pub prot: Option<u64>,
}

/// A buffer that went through a bounce slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounce {
    /// The buffer.
    pub phys: PhysAddr,
    /// Bytes.
    pub size: u64,
    /// The slot.
    pub tlb: PhysAddr,
}

/// An allocation of IOVA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IovaAlloc {
    /// Bytes, whole granules.
    pub size: u64,
    /// Highest address allowed.
    pub limit: u64,
    /// The range; `None` is a failure.
    pub iova: Option<DmaAddr>,
}

/// What the kernel did inside a call that maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// IOVA it took.
    pub alloc: Option<IovaAlloc>,
    /// Page-table entries it made.
    pub tables: Vec<TableMap>,
    /// Bounce slots it took.
    pub bounces: Vec<Bounce>,
}

/// What the kernel did inside a call that unmaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmapped {
    /// Ranges taken out of the page table: first IOVA and bytes.
    pub tables: Vec<(DmaAddr, u64)>,
    /// Ranges invalidated before the call returned, both ends inclusive.
    pub flushed: Vec<(DmaAddr, DmaAddr)>,
    /// Sizes of the bounce slots released.
    pub bounces: Vec<u64>,
}

/// A call of the DMA API, with the kernel's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `dma_map_phys`.
    MapPhys {
        dev: Device,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
        dma: Option<DmaAddr>,
        did: Mapped,
    },
    /// `dma_unmap_phys`.
    UnmapPhys {
        dev: Device,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
        did: Unmapped,
    },
    /// `dma_map_sg`: the buffers' addresses, and the segments made of them.
    MapSg {
        dev: Device,
        dir: Direction,
        attrs: Attrs,
        phys: Vec<PhysAddr>,
        segments: Vec<(DmaAddr, u64)>,
        did: Mapped,
    },
    /// `dma_unmap_sg`.
    UnmapSg {
        dev: Device,
        dir: Direction,
        attrs: Attrs,
        phys: Vec<PhysAddr>,
        did: Unmapped,
    },
    /// `dma_alloc_attrs` or `dma_alloc_pages`.
    Alloc {
        dev: Device,
        dma: DmaAddr,
        size: u64,
        attrs: Attrs,
        did: Mapped,
    },
    /// Their counterparts.
    Free {
        dev: Device,
        dma: DmaAddr,
        size: u64,
        did: Unmapped,
    },
    /// `dma_sync_single_for_cpu` or `_for_device`.
    Sync {
        dev: Device,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        for_cpu: bool,
    },
    /// `dma_sync_sg_for_cpu` or `_for_device`; the address of the first segment names the list.
    SyncSg {
        dev: Device,
        dma: DmaAddr,
        dir: Direction,
        for_cpu: bool,
    },
    /// `dma_iova_try_alloc`; `iova` is `None` when it returned false.
    TryAlloc {
        dev: Device,
        state: u64,
        phys: PhysAddr,
        size: u64,
        iova: Option<DmaAddr>,
        did: Mapped,
    },
    /// `dma_iova_link`.
    Link {
        dev: Device,
        state: u64,
        phys: PhysAddr,
        offset: u64,
        size: u64,
        dir: Direction,
        attrs: Attrs,
        ret: i32,
        did: Mapped,
    },
    /// `dma_iova_sync`.
    IovaSync {
        dev: Device,
        state: u64,
        offset: u64,
        size: u64,
    },
    /// `dma_iova_unlink`.
    Unlink {
        dev: Device,
        state: u64,
        offset: u64,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma_iova_free`.
    IovaFree { dev: Device, state: u64 },
    /// `dma_iova_destroy`; `bounced` is bit 63 of the state's size.
    Destroy {
        dev: Device,
        state: u64,
        mapped: u64,
        bounced: bool,
        dir: Direction,
        attrs: Attrs,
        did: Unmapped,
    },
    /// The kernel decided how a peer's page is reached.
    P2p { dev: Device, page: u64, map: P2pMap },
    /// A flush queue was emptied by an invalidation of everything.
    FlushQueue,
    /// Something that is no call of a driver, or that cannot be repeated.
    Skip { why: &'static str, what: String },
}

impl Call {
    /// The device that calls.
    pub const fn dev(&self) -> Option<&Device> {
        match self {
            Self::MapPhys { dev, .. }
            | Self::UnmapPhys { dev, .. }
            | Self::MapSg { dev, .. }
            | Self::UnmapSg { dev, .. }
            | Self::Alloc { dev, .. }
            | Self::Free { dev, .. }
            | Self::Sync { dev, .. }
            | Self::SyncSg { dev, .. }
            | Self::TryAlloc { dev, .. }
            | Self::Link { dev, .. }
            | Self::IovaSync { dev, .. }
            | Self::Unlink { dev, .. }
            | Self::IovaFree { dev, .. }
            | Self::Destroy { dev, .. }
            | Self::P2p { dev, .. } => Some(dev),
            Self::FlushQueue | Self::Skip { .. } => None,
        }
    }

    /// What the kernel did, if the call maps.
    pub const fn mapped(&self) -> Option<&Mapped> {
        match self {
            Self::MapPhys { did, .. }
            | Self::MapSg { did, .. }
            | Self::Alloc { did, .. }
            | Self::TryAlloc { did, .. }
            | Self::Link { did, .. } => Some(did),
            _ => None,
        }
    }

    /// The call that unmaps, with what the kernel did.
    fn with(mut self, done: Unmapped) -> Self {
        if let Self::UnmapPhys { did, .. }
        | Self::UnmapSg { did, .. }
        | Self::Free { did, .. }
        | Self::Destroy { did, .. } = &mut self
        {
            *did = done;
        }
        self
    }

    /// Whether the call makes a mapping.
    pub const fn maps(&self) -> bool {
        matches!(
            self,
            Self::MapPhys { .. } | Self::MapSg { .. } | Self::Alloc { .. } | Self::Link { .. }
        )
    }
}

/// A call and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Line of the trace.
    pub line: u64,
    /// CPU.
    pub cpu: usize,
    /// The call.
    pub call: Call,
}

/// Where the kernel was: what happens inside a call happens in the call's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Context {
    Task(u32),
    Idle(u32),
    SoftIrq(u32),
    HardIrq(u32),
}

impl Context {
    /// A breakpoint probe shows up as NMI (`Z`) whatever the context is; it counts as the task.
    const fn of(line: &Line) -> Self {
        match line.flags.0[2] {
            b's' => Self::SoftIrq(line.cpu),
            b'h' | b'H' => Self::HardIrq(line.cpu),
            _ if line.pid == 0 => Self::Idle(line.cpu),
            _ => Self::Task(line.pid),
        }
    }
}

/// What has been seen in a context and belongs to a call that is not complete.
#[derive(Default)]
struct Pending {
    /// Line and device of the last allocation.
    alloc: Option<(u64, Device, IovaAlloc)>,
    tables: Vec<(u64, TableMap)>,
    bounces: Vec<Bounce>,
    untables: Vec<(u64, DmaAddr, u64)>,
    flushed: Vec<(DmaAddr, DmaAddr)>,
    /// Line at which IOVA was given back.
    freed: Option<u64>,
    /// Line and size of released slots.
    released: Vec<(u64, u64)>,
    try_alloc: Option<(u64, Call)>,
    link: Option<(u64, Call)>,
    destroy: Option<(u64, Call, DmaAddr)>,
    /// `dma_free` and `dma_unmap_sg` are traced before they free; IOVA if it is known.
    free: Option<(u64, Call, Option<DmaAddr>)>,
}

impl Pending {
    /// Takes what a call that mapped `[start, start + len)` did, with the line of its allocation.
    fn mapped(&mut self, dev: &Device, start: DmaAddr, len: u64) -> (Option<u64>, Mapped) {
        let alloc = self.alloc.take_if(|(_, d, _)| d == dev);
        let first = start.align_down(PAGE).0;
        let len = alloc.as_ref().map_or(len, |(_, _, a)| a.size.max(len));
        let last = start.0.saturating_add(len.max(1) - 1);
        let tables = self
            .tables
            .extract_if(.., |(_, t)| (first..=last).contains(&t.iova.0));
        let did = Mapped {
            alloc: alloc.as_ref().map(|(_, _, a)| *a),
            tables: tables.map(|(_, t)| t).collect(),
            bounces: std::mem::take(&mut self.bounces),
        };
        (alloc.map(|(line, _, _)| line), did)
    }

    /// Takes a call that frees something but no IOVA, with the line where that became free.
    fn freed_without_iova(&mut self) -> Option<(u64, Call)> {
        let (line, call, _) = self.free.take()?;
        let (at, did) = self.unmapped();
        Some((at.unwrap_or(line), call.with(did)))
    }

    /// Takes what a call that unmapped did, with the line where its resources became free.
    fn unmapped(&mut self) -> (Option<u64>, Unmapped) {
        let slot = self.released.first().map(|(line, _)| *line);
        let table = self.untables.first().map(|(line, ..)| *line);
        let line = self.freed.take().or(table).or(slot);
        let did = Unmapped {
            tables: std::mem::take(&mut self.untables)
                .into_iter()
                .map(|(_, iova, size)| (iova, size))
                .collect(),
            flushed: std::mem::take(&mut self.flushed),
            bounces: std::mem::take(&mut self.released)
                .into_iter()
                .map(|(_, size)| size)
                .collect(),
        };
        (line, did)
    }
}

/// Joins the lines of a trace.
#[derive(Default)]
pub struct Joiner {
    contexts: HashMap<Context, Pending>,
    operations: Vec<Operation>,
}

impl Joiner {
    /// Adds the next line.
    pub fn push(&mut self, line: Line) {
        let context = Context::of(&line);
        let p = self.contexts.entry(context).or_default();
        let (number, cpu) = (line.number, line.cpu as usize);
        let mut emit = |line: u64, call: Call| {
            self.operations.push(Operation { line, cpu, call });
        };
        if !line.event.is_inside_unmap()
            && let Some((at, call)) = p.freed_without_iova()
        {
            emit(at, call);
        }
        match line.event {
            Event::DmaMapPhys {
                dev,
                dir,
                dma_addr,
                size,
                phys,
                attrs,
            } => {
                let dma = (dma_addr.0 != u64::MAX).then_some(dma_addr);
                let (at, did) = p.mapped(&dev, dma.unwrap_or(DmaAddr(0)), size);
                emit(
                    at.unwrap_or(number),
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
                let (at, did) = p.unmapped();
                emit(
                    at.unwrap_or(number),
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
                let (at, did) = p.mapped(&dev, start, u64::MAX);
                let at = at.unwrap_or(number);
                if truncated {
                    emit(
                        at,
                        Call::Skip {
                            why: "not replayed: a scatterlist longer than its event shows",
                            what: format!("{} of {dev}", phys.len()),
                        },
                    );
                    return;
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
                let _ = p.unmapped();
                let call = Call::UnmapSg {
                    dev,
                    dir,
                    attrs,
                    phys,
                    did: Unmapped::default(),
                };
                p.free = Some((number, call, None));
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
                let (at, did) = p.mapped(&dev, dma_addr, size);
                emit(
                    at.unwrap_or(number),
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
                let _ = p.unmapped();
                let call = Call::Free {
                    dev,
                    dma: dma_addr,
                    size,
                    did: Unmapped::default(),
                };
                p.free = Some((number, call, Some(dma_addr)));
            }
            Event::DmaSyncSingleForCpu {
                dev,
                dir,
                dma_addr,
                size,
            } => emit(
                number,
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
                number,
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
                    number,
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
                    number,
                    Call::SyncSg {
                        dev,
                        dma,
                        dir,
                        for_cpu: false,
                    },
                );
            }
            Event::IovaTryAlloc {
                dev,
                state,
                phys,
                size,
            } => {
                p.try_alloc = Some((
                    number,
                    Call::TryAlloc {
                        dev,
                        state,
                        phys,
                        size,
                        iova: None,
                        did: Mapped::default(),
                    },
                ));
            }
            Event::IovaTryAllocRet { ret, iova, .. } => {
                let Some((at, mut call)) = p.try_alloc.take() else {
                    return;
                };
                let alloc = p.alloc.take();
                if let Call::TryAlloc {
                    dev,
                    iova: got,
                    did,
                    ..
                } = &mut call
                {
                    *got = ret.then_some(iova);
                    did.alloc = alloc.as_ref().filter(|a| a.1 == *dev).map(|a| a.2);
                }
                emit(alloc.map_or(at, |a| a.0), call);
            }
            Event::IovaLink {
                dev,
                state,
                phys,
                offset,
                size,
                dir,
                attrs,
                ..
            } => {
                p.link = Some((
                    number,
                    Call::Link {
                        dev,
                        state,
                        phys,
                        offset,
                        size,
                        dir,
                        attrs,
                        ret: 0,
                        did: Mapped::default(),
                    },
                ));
            }
            Event::IovaLinkRet { ret: result, .. } => {
                let Some((at, mut call)) = p.link.take() else {
                    return;
                };
                if let Call::Link { ret, did, .. } = &mut call {
                    *ret = result;
                    // All entries since the link began, whatever their address.
                    let tables = p.tables.extract_if(.., |(line, _)| *line > at);
                    did.tables = tables.map(|(_, t)| t).collect();
                    did.bounces = std::mem::take(&mut p.bounces);
                }
                emit(at, call);
            }
            Event::IovaSync {
                dev,
                state,
                offset,
                size,
                ..
            } => emit(
                number,
                Call::IovaSync {
                    dev,
                    state,
                    offset,
                    size,
                },
            ),
            Event::IovaUnlink {
                dev,
                state,
                offset,
                size,
                dir,
                attrs,
                ..
            } => emit(
                number,
                Call::Unlink {
                    dev,
                    state,
                    offset,
                    size,
                    dir,
                    attrs,
                },
            ),
            Event::IovaFree { dev, state, .. } => emit(number, Call::IovaFree { dev, state }),
            Event::IovaDestroy {
                dev,
                state,
                iova,
                isize,
                mapped_len,
                dir,
                attrs,
            } => {
                // What an unfinished call has left belongs to nobody.
                let _ = p.unmapped();
                let call = Call::Destroy {
                    dev,
                    state,
                    mapped: mapped_len,
                    bounced: isize >> 63 != 0,
                    dir,
                    attrs,
                    did: Unmapped::default(),
                };
                p.destroy = Some((number, call, iova));
            }
            Event::IovaDofree { iova, .. } => {
                p.freed = Some(number);
                let at = |start: DmaAddr| start.align_down(PAGE) == iova;
                let destroy = p.destroy.take_if(|(.., start)| at(*start)).map(|d| d.1);
                let free = || {
                    p.free
                        .take_if(|(.., start)| start.is_none_or(at))
                        .map(|f| f.1)
                };
                if let Some(call) = destroy.or_else(free) {
                    emit(number, call.with(p.unmapped().1));
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
                for (line, t) in p.tables.drain(..) {
                    emit(line, core_map(&t));
                }
                p.alloc = Some((number, dev, alloc));
            }
            Event::IovaAllocRet { iova } => {
                if let Some((.., alloc)) = &mut p.alloc {
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
                p.tables.push((number, t));
            }
            Event::Map {
                iova, phys, size, ..
            } => {
                // The probe, if there is one, has said the same with the protection.
                if !p
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
                    p.tables.push((number, t));
                }
            }
            Event::Unmap { iova, size, .. } => p.untables.push((number, iova, size)),
            Event::CacheTagFlushRange { start, last, .. } => {
                if start.0 == 0 && last.0 == u64::MAX {
                    emit(number, Call::FlushQueue);
                } else if !p.flushed.contains(&(start, last)) {
                    p.flushed.push((start, last));
                }
            }
            Event::SwiotlbMap {
                phys, size, tlb, ..
            } => {
                if tlb.0 != u64::MAX {
                    p.bounces.push(Bounce { phys, size, tlb });
                }
            }
            Event::SwiotlbUnmap { size, .. } => p.released.push((number, size)),
            Event::P2pState { dev, page, map, .. } => emit(number, Call::P2p { dev, page, map }),
            Event::DmaMapSgErr { dev, err, .. } => emit(
                number,
                Call::Skip {
                    why: "not replayed: dma_map_sg failed in the kernel, which does not say where",
                    what: format!("{dev}, error {err}"),
                },
            ),
            Event::DmaAllocSgt { dev, size, .. } => emit(
                number,
                Call::Skip {
                    why: "not replayed: the event of a non-contiguous allocation has no lengths",
                    what: format!("{dev}, {size} bytes"),
                },
            ),
            Event::DmaAllocSgtErr { dev, size, .. } => emit(
                number,
                Call::Skip {
                    why: "not replayed: a non-contiguous allocation failed in the kernel",
                    what: format!("{dev}, {size} bytes"),
                },
            ),
            Event::DmaFreeSgt { .. } => {
                let _ = p.unmapped();
            }
            Event::IoPageFault { dev, iova, .. } => emit(
                number,
                Call::Skip {
                    why: "not repeated: the recorded machine's IOMMU reported a fault",
                    what: format!("{dev} at {iova:#x}"),
                },
            ),
            // Said by other events again, or not about a mapping.
            Event::SwiotlbBounced { .. }
            | Event::IovaSyncRet { .. }
            | Event::CacheTagFlushRangeNp { .. }
            | Event::QiSubmit { .. }
            | Event::AddDeviceToGroup { .. }
            | Event::RemoveDeviceFromGroup { .. }
            | Event::AttachDeviceToDomain { .. }
            | Event::TracingMarkWrite { .. } => {}
        }
    }

    /// The calls in their order. A call of which the end is missing is left out.
    pub fn finish(mut self) -> Vec<Operation> {
        for p in self.contexts.values_mut() {
            if let Some((line, call)) = p.freed_without_iova() {
                self.operations.push(Operation { line, cpu: 0, call });
            }
            // Without an allocation it is not the beginning of a call.
            if p.alloc.is_none() && p.link.is_none() {
                for (line, t) in p.tables.drain(..) {
                    self.operations.push(Operation {
                        line,
                        cpu: 0,
                        call: core_map(&t),
                    });
                }
            }
        }
        self.operations.sort_by_key(|o| o.line);
        self.operations
    }
}

impl Event {
    /// Whether the event can follow the beginning of a call that unmaps.
    const fn is_inside_unmap(&self) -> bool {
        matches!(
            self,
            Self::Unmap { .. }
                | Self::CacheTagFlushRange { .. }
                | Self::QiSubmit { .. }
                | Self::SwiotlbUnmap { .. }
                | Self::IovaDofree { .. }
        )
    }
}

fn core_map(t: &TableMap) -> Call {
    Call::Skip {
        why: "not replayed: mapped by the IOMMU core itself, not by a driver",
        what: format!("IOVA {:#x}, {} bytes at {:#x}", t.iova, t.size, t.phys),
    }
}

/// Lengths of the buffers of a scatterlist, which the event does not have when entries were merged:
/// from the segments and from where each entry begins in IOVA. `None` when they do not fit.
pub fn sg_lengths(
    phys: &[PhysAddr],
    segments: &[(DmaAddr, u64)],
    tables: &[TableMap],
) -> Option<Vec<u64>> {
    if phys.len() == segments.len() {
        return Some(segments.iter().map(|(_, len)| *len).collect());
    }
    // First IOVA of every entry's first page: entries follow each other inside of a run, and runs
    // follow each other in IOVA.
    let mut starts: Vec<u64> = Vec::with_capacity(phys.len());
    let mut runs = tables.iter().peekable();
    let mut run = *runs.next()?;
    for (i, phys) in phys.iter().enumerate() {
        let page = phys.align_down(PAGE).0;
        let next_run = runs.peek().is_some_and(|r| r.phys.0 == page);
        let follows = starts.last().is_none_or(|last| {
            let at = page.wrapping_sub(run.phys.0);
            at < run.size && run.iova.0 + at > *last
        });
        if i > 0 && (next_run || !follows) {
            run = *runs.next()?;
        }
        let at = page.checked_sub(run.phys.0).filter(|at| *at < run.size)?;
        starts.push(run.iova.0 + at + phys.offset_in(PAGE));
    }
    let end_of = |start: u64| {
        segments
            .iter()
            .find(|(dma, len)| start >= dma.0 && start - dma.0 < *len)
            .map(|(dma, len)| dma.0 + len)
    };
    let mut lengths = Vec::with_capacity(starts.len());
    for (i, start) in starts.iter().enumerate() {
        let end = end_of(*start)?;
        // An entry in the middle of a segment ends where the next one begins.
        let end = starts.get(i + 1).map_or(end, |next| end.min(*next));
        lengths.push(end.checked_sub(*start).filter(|len| *len > 0)?);
    }
    Some(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::parse_line;

    fn join(text: &str) -> Vec<Operation> {
        let mut joiner = Joiner::default();
        for (number, line) in (1..).zip(text.lines()) {
            joiner.push(parse_line(number, line.trim_start().as_bytes()).unwrap());
        }
        joiner.finish()
    }

    #[test]
    fn an_interrupt_inside_a_mapping_call_keeps_its_own_events() {
        let ops = join(
            r#"
            io-157 [000] ...2. 12.000001: iova_alloc: (f+0x0/0x1) domain=0xff00 size=4096 limit=0xffffffffffffffff dev="0000:02:00.0"
            <idle>-0 [000] d.h1. 12.000002: unmap: IOMMU: iova=0x00000000ffffe000 - 0x00000000fffff000 size=4096 unmapped_size=4096
            <idle>-0 [000] d.h1. 12.000003: cache_tag_flush_range: dmar0 dmar0[0] type iotlb did 8 [0xffffe000-0xffffefff] addr 0xffffe000 mask 0x0
            <idle>-0 [000] d.h1. 12.000004: iova_dofree: (f+0x0/0x1) domain=0xff00 iova=0xffffe000 size=4096
            <idle>-0 [000] d.h1. 12.000005: dma_unmap_phys: 0000:02:00.0 dir=TO_DEVICE dma_addr=ffffe010 size=16 attrs=
            io-157 [001] ...1. 12.000006: iova_alloc_ret: (a+0x0/0x1 <- f) iova=4294963200
            io-157 [001] ...1. 12.000007: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0xfffff000 phys=0xf0069000 size=4096 prot=0x11
            io-157 [001] ..... 12.000008: map: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 paddr=0x00000000f0069000 size=4096
            io-157 [001] ..... 12.000009: dma_map_phys: 0000:02:00.0 dir=TO_DEVICE dma_addr=fffff200 size=512 phys_addr=f0069200 attrs=MMIO"#
                .trim_start(),
        );
        assert_eq!(ops.len(), 2);
        assert_eq!((ops[0].line, ops[1].line), (1, 4));
        let Call::MapPhys { did, phys, dma, .. } = &ops[0].call else {
            panic!("{:?}", ops[0])
        };
        assert_eq!(*phys, PhysAddr(0xf006_9200));
        assert_eq!(*dma, Some(DmaAddr(0xffff_f200)));
        assert_eq!(did.alloc.unwrap().iova, Some(DmaAddr(0xffff_f000)));
        assert_eq!(did.tables.len(), 1);
        assert_eq!(did.tables[0].prot, Some(0x11));
        let Call::UnmapPhys { did, .. } = &ops[1].call else {
            panic!("{:?}", ops[1])
        };
        assert_eq!(did.tables, [(DmaAddr(0xffff_e000), 4096)]);
        assert_eq!(did.flushed.len(), 1);
    }

    #[test]
    fn links_and_their_bounce_slots() {
        let ops = join(
            r#"
            io-1 [000] ...2. 1.000001: iova_try_alloc: (f+0x4/0x120) dev="0000:02:00.0" state=0xf0 phys=0x97e8400 size=7168
            io-1 [000] ...2. 1.000002: iova_alloc: (f+0x0/0x1) domain=0xff00 size=8192 limit=0xffffffff dev="0000:02:00.0"
            io-1 [000] ...2. 1.000003: iova_alloc_ret: (a+0x0/0x1 <- f) iova=0xffff0000
            io-1 [000] ...1. 1.000004: iova_try_alloc_ret: (a+0x0/0x1 <- f) dev="0000:02:00.0" state=0xf0 ret=1 iova=0xffff0400 isize=0x1c00
            io-1 [000] ...2. 1.000005: iova_link: (f+0x4/0x350) dev="0000:02:00.0" state=0xf0 iova=0xffff0400 phys=0x97e8400 offset=0x0 size=7168 dir=2 attrs=0x0
            io-1 [000] ...1. 1.000006: swiotlb_map: (a+0x0/0x1 <- f) dev="0000:02:00.0" phys=0x97e8400 size=3072 tlb=0x3abbd400
            io-1 [000] ...1. 1.000007: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0xffff0000 phys=0x3abbd000 size=4096 prot=0x6
            io-1 [000] ...1. 1.000008: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0xffff1000 phys=0x97e9000 size=4096 prot=0x6
            io-1 [000] ...1. 1.000009: iova_link_ret: (a+0x0/0x1 <- f) state=0xf0 ret=0
            io-1 [000] d.h2. 1.000010: iova_destroy: (f+0x4/0x30) dev="0000:02:00.0" state=0xf0 iova=0xffff0400 isize=0x8000000000001c00 mapped_len=7168 dir=2 attrs=0x0
            io-1 [000] d.h2. 1.000011: swiotlb_unmap: (f+0x4/0x60) dev="0000:02:00.0" tlb=0x3abbd400 size=3072 dir=2
            io-1 [000] d.h2. 1.000012: unmap: IOMMU: iova=0x00000000ffff0000 - 0x00000000ffff2000 size=8192 unmapped_size=8192
            io-1 [000] d.h2. 1.000013: iova_dofree: (f+0x0/0x1) domain=0xff00 iova=0xffff0000 size=8192"#
                .trim_start(),
        );
        let lines: Vec<_> = ops.iter().map(|o| o.line).collect();
        assert_eq!(lines, [2, 5, 13]);
        let Call::Link { did, .. } = &ops[1].call else {
            panic!("{:?}", ops[1])
        };
        assert_eq!((did.tables.len(), did.bounces.len()), (2, 1));
        let Call::Destroy { did, bounced, .. } = &ops[2].call else {
            panic!("{:?}", ops[2])
        };
        assert!(bounced);
        assert_eq!(did.bounces, [3072]);
    }

    #[test]
    fn lists_and_coherent_memory_are_traced_before_they_are_freed() {
        let free = |start: &str| {
            format!(
                "ip-2 [001] ..... 1.000002: unmap: IOMMU: iova=0x00000000{start}000 - 0x00000000{start}fff size=4096 unmapped_size=4096\n\
                 ip-2 [001] ..... 1.000003: iova_dofree: (f+0x0/0x1) domain=0xff00 iova=0x{start}000 size=4096\n"
            )
        };
        let ops = join(
            &(String::from(
                "ip-2 [001] ..... 1.000001: dma_unmap_sg: 0000:01:00.0 dir=TO_DEVICE phys_addrs={0x1000} attrs=\n",
            ) + &free("fffff")
                + "ip-2 [001] ..... 1.000004: dma_free: 0000:01:00.0 dir=BIDIRECTIONAL dma_addr=ffffe000 size=64 virt_addr=000000006c544591 attrs=\n"
                + &free("ffffe")
                + "ip-2 [001] ..... 1.000007: dma_free: 0000:01:00.0 dir=BIDIRECTIONAL dma_addr=80aa000 size=8192 virt_addr=000000006c544591 attrs="),
        );
        let lines: Vec<_> = ops.iter().map(|o| o.line).collect();
        assert_eq!(lines, [3, 6, 7]);
        let iova = |o: &Operation| match &o.call {
            Call::UnmapSg { did, .. } | Call::Free { did, .. } => did.tables.first().map(|t| t.0.0),
            _ => panic!("{o:?}"),
        };
        let iovas: Vec<_> = ops.iter().map(iova).collect();
        assert_eq!(iovas, [Some(0xffff_f000), Some(0xffff_e000), None]);
    }

    #[test]
    fn an_identity_mapping_belongs_to_no_driver_and_a_cut_call_is_left_out() {
        let ops = join(
            r#"
            init-1 [001] ..... 1.000001: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0x0 phys=0x0 size=16777216 prot=0x3
            init-1 [001] ..... 1.000002: map: IOMMU: iova=0x0000000000000000 - 0x0000000001000000 paddr=0x0000000000000000 size=16777216
            init-1 [001] ..... 1.000003: iova_alloc: (f+0x0/0x1) domain=0xff00 size=4096 limit=0xffffffff dev="0000:01:00.0""#
                .trim_start(),
        );
        assert_eq!(ops.len(), 1);
        assert!(matches!(ops[0].call, Call::Skip { .. }));
    }

    #[test]
    fn lengths_of_merged_entries() {
        let t = |iova: u64, phys: u64, size| TableMap {
            iova: DmaAddr(iova),
            phys: PhysAddr(phys),
            size,
            prot: Some(7),
        };
        let p = |list: &[u64]| list.iter().map(|p| PhysAddr(*p)).collect::<Vec<_>>();
        // Three entries, the first two adjacent, made one segment.
        let lengths = sg_lengths(
            &p(&[0x1800, 0x2000, 0x9000]),
            &[(DmaAddr(0xf_0800), 0x800 + 0x1000 + 0x234)],
            &[t(0xf_0000, 0x1000, 0x2000), t(0xf_2000, 0x9000, 0x1000)],
        );
        assert_eq!(lengths, Some(vec![0x800, 0x1000, 0x234]));
        // An entry that ends inside a page ends its segment.
        let lengths = sg_lengths(
            &p(&[0x1000, 0x5000, 0x6000]),
            &[(DmaAddr(0xf_0000), 0x100), (DmaAddr(0xf_1000), 0x1200)],
            &[t(0xf_0000, 0x1000, 0x1000), t(0xf_1000, 0x5000, 0x2000)],
        );
        assert_eq!(lengths, Some(vec![0x100, 0x1000, 0x200]));
        assert_eq!(
            sg_lengths(&p(&[0x1000, 0x9000]), &[(DmaAddr(0), 1)], &[]),
            None
        );
    }
}
