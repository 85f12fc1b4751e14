//! Calls of the DMA API, and what the kernel did inside of them.

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::trace::{Attrs, Device, P2pMap};

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

/// Part of emptying a flush queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushPart {
    /// The timer has run out: what is queued from here on waits for the next flush.
    Begin,
    /// The timer's invalidation is over, and what waited is free.
    End,
    /// The call before found its ring full, and has emptied it.
    Full,
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
    /// The flush queue of the domain of these devices is emptied by an invalidation of everything;
    /// without devices it is not known whose.
    Flush {
        devices: Vec<Device>,
        part: FlushPart,
    },
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
            Self::Flush { .. } | Self::Skip { .. } => None,
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

    /// The kernel's function, or what it is if it is none.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MapPhys { .. } => "dma_map_phys",
            Self::UnmapPhys { .. } => "dma_unmap_phys",
            Self::MapSg { .. } => "dma_map_sg",
            Self::UnmapSg { .. } => "dma_unmap_sg",
            Self::Alloc { .. } => "dma_alloc",
            Self::Free { .. } => "dma_free",
            Self::Sync { .. } => "dma_sync_single",
            Self::SyncSg { .. } => "dma_sync_sg",
            Self::TryAlloc { .. } => "dma_iova_try_alloc",
            Self::Link { .. } => "dma_iova_link",
            Self::IovaSync { .. } => "dma_iova_sync",
            Self::Unlink { .. } => "dma_iova_unlink",
            Self::IovaFree { .. } => "dma_iova_free",
            Self::Destroy { .. } => "dma_iova_destroy",
            Self::P2p { .. } => "pci_p2pdma_map_type",
            Self::Flush { .. } => "flush queue",
            Self::Skip { .. } => "other",
        }
    }

    /// Name and attributes of a call that has some.
    pub const fn attrs(&self) -> Option<(&'static str, Attrs)> {
        match self {
            Self::MapPhys { attrs, .. }
            | Self::UnmapPhys { attrs, .. }
            | Self::MapSg { attrs, .. }
            | Self::UnmapSg { attrs, .. }
            | Self::Alloc { attrs, .. }
            | Self::Link { attrs, .. }
            | Self::Unlink { attrs, .. }
            | Self::Destroy { attrs, .. } => Some((self.name(), *attrs)),
            _ => None,
        }
    }

    /// The call that unmaps, with what the kernel did.
    pub(super) fn with(mut self, done: Unmapped) -> Self {
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
