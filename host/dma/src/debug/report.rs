//! The reports, D1 to D22.

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::attrs::Attrs;

use super::EntryType;

/// What dma-debug has to say. `dma` is the address as the device sees it, sizes are in bytes; where
/// there are two of a kind, the first is the mapping's and the second the call's.
#[expect(missing_docs, reason = "the fields are described together")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Report {
    /// D1: a second mapping through which the device writes begins in a line that has one.
    #[error("cacheline tracking EEXIST, overlapping mappings aren't supported")]
    CachelineOverlap { phys: PhysAddr },
    /// D2: the driver is gone and its mappings are not.
    #[error(
        "device driver has pending DMA allocations while released from device [count={count}]\n\
         One of leaked entries details: [device address={:#018x}] [size={size} bytes] \
         [mapped with DMA_{}] [mapped as {kind}]",
        dma.0, dir.name()
    )]
    PendingAllocations {
        count: usize,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        kind: EntryType,
    },
    /// D3: an unmap of `DMA_MAPPING_ERROR`.
    #[error("device driver tries to free an invalid DMA memory address")]
    FreeInvalid,
    /// D4: an unmap of what is not mapped.
    #[error(
        "device driver tries to free DMA memory it has not allocated \
         [device address={:#018x}] [size={size} bytes]",
        dma.0
    )]
    FreeNotAllocated { dma: DmaAddr, size: u64 },
    /// D5.
    #[error(
        "device driver frees DMA memory with different size \
         [device address={:#018x}] [map size={mapped} bytes] [unmap size={unmapped} bytes]",
        dma.0
    )]
    FreeSize {
        dma: DmaAddr,
        mapped: u64,
        unmapped: u64,
    },
    /// D6.
    #[error(
        "device driver frees DMA memory with wrong function \
         [device address={:#018x}] [size={size} bytes] [mapped as {mapped}] [unmapped as {unmapped}]",
        dma.0
    )]
    FreeFunction {
        dma: DmaAddr,
        size: u64,
        mapped: EntryType,
        unmapped: EntryType,
    },
    /// D7: the memory of an allocation is not the one that was given.
    #[error(
        "device driver frees DMA memory with different CPU address \
         [device address={:#018x}] [size={size} bytes] \
         [cpu alloc address={:#018x}] [cpu free address={:#018x}]",
        dma.0, mapped.0, unmapped.0
    )]
    FreeCpuAddress {
        dma: DmaAddr,
        size: u64,
        mapped: PhysAddr,
        unmapped: PhysAddr,
    },
    /// D8.
    #[error(
        "device driver frees DMA sg list with different entry count \
         [map count={mapped}] [unmap count={unmapped}]"
    )]
    FreeSgCount { mapped: usize, unmapped: usize },
    /// D9.
    #[error(
        "device driver frees DMA memory with different direction \
         [device address={:#018x}] [size={size} bytes] \
         [mapped with DMA_{}] [unmapped with DMA_{}]",
        dma.0, mapped.name(), unmapped.name()
    )]
    FreeDirection {
        dma: DmaAddr,
        size: u64,
        mapped: Direction,
        unmapped: Direction,
    },
    /// D10: an address that was never passed to `dma_mapping_error()`.
    #[error(
        "device driver failed to check map error \
         [device address={:#018x}] [size={size} bytes] [mapped as {kind}]",
        dma.0
    )]
    MapErrorNotChecked {
        dma: DmaAddr,
        size: u64,
        kind: EntryType,
    },
    /// D11: of the attributes, those that map and unmap must agree on.
    #[error(
        "device driver frees DMA memory with different attributes \
         [device address={:#018x}] [size={size} bytes] \
         [mapped with {:#x}] [unmapped with {:#x}]",
        dma.0, mapped.bits(), unmapped.bits()
    )]
    FreeAttrs {
        dma: DmaAddr,
        size: u64,
        mapped: Attrs,
        unmapped: Attrs,
    },
    /// D12, the stack in the direct map.
    #[error("device driver maps memory from stack [addr={:#x}]", phys.0)]
    Stack { phys: PhysAddr },
    /// D12, the stack of pages mapped one by one.
    #[error("device driver maps memory from stack [probable addr={:#x}]", phys.0)]
    VmapStack { phys: PhysAddr },
    /// D13.
    #[error(
        "device driver maps memory from kernel text or rodata [addr={:#x}] [len={size}]",
        phys.0
    )]
    KernelText { phys: PhysAddr, size: u64 },
    /// D14: neither main memory nor a page of a device.
    #[error(
        "device driver maps memory from invalid area [addr={:#x}] [len={size}]",
        phys.0
    )]
    InvalidArea { phys: PhysAddr, size: u64 },
    /// D14.
    #[error(
        "device driver maps memory from vmalloc area [addr={:#x}] [len={size}]",
        phys.0
    )]
    VmallocArea { phys: PhysAddr, size: u64 },
    /// D15: MMIO was said of main memory.
    #[error("dma_map_resource called for RAM address {:#018x}", phys.0)]
    ResourceIsRam { phys: PhysAddr },
    /// D16.
    #[error(
        "device driver tries to sync DMA memory it has not allocated \
         [device address={:#018x}] [size={size} bytes]",
        dma.0
    )]
    SyncNotAllocated { dma: DmaAddr, size: u64 },
    /// D17.
    #[error(
        "device driver syncs DMA memory outside allocated range \
         [device address={:#018x}] [allocation size={mapped} bytes] [sync size={synced} bytes]",
        dma.0
    )]
    SyncRange {
        dma: DmaAddr,
        mapped: u64,
        synced: u64,
    },
    /// D18.
    #[error(
        "device driver syncs DMA memory with different direction \
         [device address={:#018x}] [size={size} bytes] \
         [mapped with DMA_{}] [synced with DMA_{}]",
        dma.0, mapped.name(), synced.name()
    )]
    SyncDirection {
        dma: DmaAddr,
        size: u64,
        mapped: Direction,
        synced: Direction,
    },
    /// D19: nothing comes from the device through this mapping.
    #[error(
        "device driver syncs device read-only DMA memory for cpu \
         [device address={:#018x}] [size={size} bytes] \
         [mapped with DMA_{}] [synced with DMA_{}]",
        dma.0, mapped.name(), synced.name()
    )]
    SyncReadOnly {
        dma: DmaAddr,
        size: u64,
        mapped: Direction,
        synced: Direction,
    },
    /// D20: nothing goes to the device through this mapping.
    #[error(
        "device driver syncs device write-only DMA memory to device \
         [device address={:#018x}] [size={size} bytes] \
         [mapped with DMA_{}] [synced with DMA_{}]",
        dma.0, mapped.name(), synced.name()
    )]
    SyncWriteOnly {
        dma: DmaAddr,
        size: u64,
        mapped: Direction,
        synced: Direction,
    },
    /// D21.
    #[error(
        "device driver syncs DMA sg list with different entry count \
         [map count={mapped}] [sync count={synced}]"
    )]
    SyncSgCount { mapped: usize, synced: usize },
    /// D22: a buffer longer than `max_segment_size`.
    #[error("mapping sg segment longer than device claims to support [len={len}] [max={max}]")]
    SgLength { len: u64, max: u64 },
    /// D22: a segment across `seg_boundary`.
    #[error(
        "mapping sg segment across boundary \
         [start={:#018x}] [end={:#018x}] [boundary={boundary:#018x}]",
        start.0, end.0
    )]
    SgBoundary {
        start: DmaAddr,
        end: DmaAddr,
        boundary: u64,
    },
}

impl Report {
    /// The number in the list of the reports, 1 to 22.
    #[must_use]
    pub const fn number(&self) -> u8 {
        match self {
            Self::CachelineOverlap { .. } => 1,
            Self::PendingAllocations { .. } => 2,
            Self::FreeInvalid => 3,
            Self::FreeNotAllocated { .. } => 4,
            Self::FreeSize { .. } => 5,
            Self::FreeFunction { .. } => 6,
            Self::FreeCpuAddress { .. } => 7,
            Self::FreeSgCount { .. } => 8,
            Self::FreeDirection { .. } => 9,
            Self::MapErrorNotChecked { .. } => 10,
            Self::FreeAttrs { .. } => 11,
            Self::Stack { .. } | Self::VmapStack { .. } => 12,
            Self::KernelText { .. } => 13,
            Self::InvalidArea { .. } | Self::VmallocArea { .. } => 14,
            Self::ResourceIsRam { .. } => 15,
            Self::SyncNotAllocated { .. } => 16,
            Self::SyncRange { .. } => 17,
            Self::SyncDirection { .. } => 18,
            Self::SyncReadOnly { .. } => 19,
            Self::SyncWriteOnly { .. } => 20,
            Self::SyncSgCount { .. } => 21,
            Self::SgLength { .. } | Self::SgBoundary { .. } => 22,
        }
    }
}
