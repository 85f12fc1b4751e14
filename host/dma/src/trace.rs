//! Events of the DMA API and of what it calls, with the fields of the kernel's trace events.

mod kernel;
mod text;

use tlproof_pcie::{Bdf, Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    iommu::{DomainId, Prot},
    p2pdma::MapType,
};

pub use kernel::KernelTrace;
pub use text::MAX_ENTRIES;

/// One event. Order and fields are those of the kernel's tracepoints and of the functions that a
/// probe would catch, so that a replay can be compared line by line.
///
/// `dev` is the Requester ID; addresses and sizes are in bytes; `phys` is a CPU physical address,
/// `dma` what the device sees, `iova` an address of a `domain`, `tlb` a bounce slot; `state` tells
/// states of the two-step API apart; `ret` and `err` are 0 or a negative error number.
#[expect(missing_docs, reason = "the fields are described together")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `dma:dma_map_phys`, also when the mapping failed (`dma` is `None`).
    DmaMapPhys {
        dev: Bdf,
        phys: PhysAddr,
        dma: Option<DmaAddr>,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_unmap_phys`.
    DmaUnmapPhys {
        dev: Bdf,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_map_sg`: all physical addresses, the merged segments.
    DmaMapSg {
        dev: Bdf,
        phys: Vec<PhysAddr>,
        dma: Vec<DmaAddr>,
        sizes: Vec<u64>,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_map_sg_err`.
    DmaMapSgErr {
        dev: Bdf,
        phys: Vec<PhysAddr>,
        err: i32,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_unmap_sg`.
    DmaUnmapSg {
        dev: Bdf,
        phys: Vec<PhysAddr>,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_alloc`; `phys` and `dma` are `None` when it failed.
    DmaAlloc {
        dev: Bdf,
        phys: Option<PhysAddr>,
        dma: Option<DmaAddr>,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_free`.
    DmaFree {
        dev: Bdf,
        phys: PhysAddr,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_alloc_pages`, as `dma_alloc`.
    DmaAllocPages {
        dev: Bdf,
        phys: Option<PhysAddr>,
        dma: Option<DmaAddr>,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_free_pages`.
    DmaFreePages {
        dev: Bdf,
        phys: PhysAddr,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_alloc_sgt`: the buffers of a non-contiguous allocation.
    DmaAllocSgt {
        dev: Bdf,
        phys: Vec<PhysAddr>,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_alloc_sgt_err`.
    DmaAllocSgtErr {
        dev: Bdf,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_free_sgt`.
    DmaFreeSgt {
        dev: Bdf,
        phys: Vec<PhysAddr>,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    },
    /// `dma:dma_sync_single_for_cpu`.
    SyncSingleForCpu {
        dev: Bdf,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    },
    /// `dma:dma_sync_single_for_device`.
    SyncSingleForDevice {
        dev: Bdf,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    },
    /// `dma:dma_sync_sg_for_cpu`.
    SyncSgForCpu {
        dev: Bdf,
        dma: Vec<DmaAddr>,
        sizes: Vec<u64>,
        dir: Direction,
    },
    /// `dma:dma_sync_sg_for_device`.
    SyncSgForDevice {
        dev: Bdf,
        dma: Vec<DmaAddr>,
        sizes: Vec<u64>,
        dir: Direction,
    },
    /// `dma_iova_try_alloc` begins.
    IovaTryAlloc {
        dev: Bdf,
        state: u64,
        phys: PhysAddr,
        size: u64,
    },
    /// Its result, `None` for false; `isize` is size and flag of the state in one word.
    IovaTryAllocRet {
        dev: Bdf,
        state: u64,
        iova: Option<DmaAddr>,
        isize: u64,
    },
    /// `dma_iova_link` begins.
    IovaLink {
        dev: Bdf,
        state: u64,
        iova: DmaAddr,
        phys: PhysAddr,
        offset: u64,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// Its return value, after the maps that it does.
    IovaLinkRet { state: u64, ret: i32 },
    /// `dma_iova_sync` begins.
    IovaSync {
        dev: Bdf,
        state: u64,
        iova: DmaAddr,
        offset: u64,
        size: u64,
    },
    /// Its return value.
    IovaSyncRet { ret: i32 },
    /// `dma_iova_unlink`.
    IovaUnlink {
        dev: Bdf,
        state: u64,
        iova: DmaAddr,
        offset: u64,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma_iova_free`.
    IovaFree {
        dev: Bdf,
        state: u64,
        iova: DmaAddr,
        isize: u64,
    },
    /// `dma_iova_destroy`, before what it undoes; bit 63 of `isize` says that a part was bounced.
    IovaDestroy {
        dev: Bdf,
        state: u64,
        iova: DmaAddr,
        isize: u64,
        mapped_len: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `iommu_dma_alloc_iova` and its result.
    IovaAlloc {
        domain: DomainId,
        dev: Bdf,
        size: u64,
        limit: u64,
        iova: Option<u64>,
    },
    /// `iommu_dma_free_iova`: given back; with a flush queue reusable after the next flush.
    IovaDofree {
        domain: DomainId,
        iova: u64,
        size: u64,
    },
    /// `iommu:map` with the protection; `ok` is false when the driver refused.
    IommuMap {
        domain: DomainId,
        iova: u64,
        phys: PhysAddr,
        size: u64,
        prot: Prot,
        ok: bool,
    },
    /// `iommu:unmap`.
    IommuUnmap {
        domain: DomainId,
        iova: u64,
        size: u64,
        unmapped: u64,
    },
    /// An invalidation of a range (both ends inclusive) and its fence are complete.
    IotlbSync {
        domain: DomainId,
        range: Option<(u64, u64)>,
    },
    /// An invalidation of the whole domain and its fence are complete.
    FlushAll { domain: DomainId },
    /// `swiotlb:swiotlb_bounced`; `phys` is the original buffer.
    SwiotlbBounced {
        dev: Bdf,
        dma_mask: u64,
        phys: PhysAddr,
        size: u64,
        force: bool,
    },
    /// `swiotlb_tbl_map_single` and the slot that it found.
    SwiotlbMap {
        dev: Bdf,
        phys: PhysAddr,
        size: u64,
        tlb: PhysAddr,
    },
    /// `__swiotlb_tbl_unmap_single`.
    SwiotlbUnmap {
        dev: Bdf,
        tlb: PhysAddr,
        size: u64,
        dir: Direction,
    },
    /// `arch_sync_dma_for_device`.
    ArchSyncForDevice {
        phys: PhysAddr,
        size: u64,
        dir: Direction,
    },
    /// `arch_sync_dma_for_cpu`.
    ArchSyncForCpu {
        phys: PhysAddr,
        size: u64,
        dir: Direction,
    },
    /// `pci_p2pdma_state` found a segment of another provider than the one before.
    P2pState {
        dev: Bdf,
        phys: PhysAddr,
        map: MapType,
    },
}

/// An event, when and where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Time in clock cycles of the machine.
    pub cycles: u64,
    /// CPU of the call.
    pub cpu: usize,
    /// What happened.
    pub event: Event,
}

/// Whoever wants to see events as they happen.
type Sink = Box<dyn FnMut(&Record)>;

/// A place in what is recorded, of [`Trace::mark`].
#[derive(Debug)]
#[must_use]
pub struct Mark {
    at: usize,
    on: bool,
}

/// Where events go: nowhere until somebody switches it on.
#[derive(Default)]
pub struct Trace {
    on: bool,
    events: Vec<Event>,
    sink: Option<Sink>,
    cycles: u64,
    cpu: usize,
}

impl Trace {
    /// Starts or stops to record.
    pub fn set_enabled(&mut self, on: bool) {
        self.on = on;
    }

    /// Hands over what was recorded since the last call.
    pub fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Records from now on until [`Trace::since`].
    pub fn mark(&mut self) -> Mark {
        let mark = Mark {
            at: self.events.len(),
            on: self.on,
        };
        self.on = true;
        mark
    }

    /// What was recorded since the mark; it stays recorded if recording was on before.
    pub fn since(&mut self, mark: Mark) -> Vec<Event> {
        self.on = mark.on;
        let at = mark.at.min(self.events.len());
        if mark.on {
            self.events[at..].to_vec()
        } else {
            self.events.split_off(at)
        }
    }

    /// Also shows every event to `sink`, recording or not.
    pub fn set_sink(&mut self, sink: impl FnMut(&Record) + 'static) {
        self.sink = Some(Box::new(sink));
    }

    /// The following events happen at this time.
    pub(crate) const fn at(&mut self, cycles: u64) {
        self.cycles = cycles;
    }

    /// The following events happen on this CPU.
    pub(crate) const fn on_cpu(&mut self, cpu: usize) {
        self.cpu = cpu;
    }

    /// Records the event that `event` makes, if anybody wants it.
    pub(crate) fn emit(&mut self, event: impl FnOnce() -> Event) {
        if !self.on && self.sink.is_none() {
            return;
        }
        let record = Record {
            cycles: self.cycles,
            cpu: self.cpu,
            event: event(),
        };
        if let Some(sink) = &mut self.sink {
            sink(&record);
        }
        if self.on {
            self.events.push(record.event);
        }
    }
}

#[cfg(test)]
mod tests;
