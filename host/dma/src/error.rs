//! How a call fails, and what the kernel would warn about.

use std::collections::BTreeMap;

use tlproof_pcie::{Bdf, DmaAddr, PhysAddr};

use crate::iommu::IommuError;

/// Why a mapping or an allocation does not come about.
///
/// The kernel returns `DMA_MAPPING_ERROR` for most of them; [`MapError::errno`] has the number
/// of the calls that return one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// No such device.
    #[error("no such device")]
    NoDevice,
    /// A device with this Requester ID is there (`-EEXIST`).
    #[error("there is a device {0} already")]
    Exists(Bdf),
    /// Size 0.
    #[error("size 0")]
    ZeroSize,
    /// Address and size run past the end of the address space.
    #[error("address range wraps around")]
    Wraps,
    /// The device has no DMA mask.
    #[error("the device has no DMA mask")]
    NoMask,
    /// `REQUIRE_COHERENT` on a device that is not coherent.
    #[error("the device is not coherent")]
    NotCoherent,
    /// `REQUIRE_COHERENT` where a bounce slot would be needed.
    #[error("a bounce slot would be needed but coherence is required")]
    WouldBounce,
    /// `CC_SHARED` where the back end or the device has no use for it.
    #[error("CC_SHARED is not possible here")]
    CcShared,
    /// MMIO on a device whose every mapping is bounced.
    #[error("MMIO cannot be bounced")]
    MmioForceBounce,
    /// The device cannot be told to keep to this mask (`-EIO`).
    #[error("DMA mask {0:#x} does not reach all of main memory")]
    MaskTooSmall(u64),
    /// MMIO passed to the page interface.
    #[error("the page interface does not take MMIO")]
    MmioThroughPage,
    /// Beyond the DMA mask or the bus limit, and no bounce slot helps.
    #[error("DMA address {dma}+{size} overflows (mask {mask:#x}, bus limit {limit:#x})")]
    Overflow {
        /// The address, all ones when outside of every DMA range.
        dma: DmaAddr,
        /// Bytes.
        size: u64,
        /// DMA mask of the device.
        mask: u64,
        /// Limit of the bus, 0 when there is none.
        limit: u64,
    },
    /// Every bounce slot is taken or the mapping is larger than a run of slots.
    #[error("swiotlb buffer is full ({0} bytes)")]
    SwiotlbFull(u64),
    /// A bounce slot is needed and there is no pool.
    #[error("bounce buffers are inactive")]
    SwiotlbInactive,
    /// The device asks for more alignment than the IOMMU granule keeps.
    #[error("unsupported alignment constraint")]
    AlignConstraint,
    /// No IOVA below the limit.
    #[error("no IOVA left")]
    NoIova,
    /// The page table refused.
    #[error("iommu: {0}")]
    Iommu(#[from] IommuError),
    /// A peer that cannot be reached (`-EREMOTEIO`).
    #[error("peer-to-peer transfer not supported between these devices")]
    P2pNotSupported,
    /// Only the first link of a state may start inside a granule (`-EIO`).
    #[error("only the first range may start inside a granule")]
    HeadOffset,
    /// The link would need a bounce slot that MMIO or `REQUIRE_COHERENT` forbid (`-EPERM`).
    #[error("a bounce slot is needed and not permitted")]
    BounceNotPermitted,
    /// A range outside the IOVA state.
    #[error("range outside the IOVA state")]
    OutsideState,
    /// A CPU access outside the memory of an allocation.
    #[error("access outside the allocation")]
    OutsideMemory,
    /// `dma_mapping_error()` of an address that is none.
    #[error("DMA_MAPPING_ERROR")]
    MappingError,
    /// Memory of `vmalloc` passed to `dma_map_single`.
    #[error("memory of vmalloc is not contiguous")]
    Vmalloc,
    /// A page of a device passed to the page interface, which dma-debug refuses.
    #[error("the page interface does not take pages of a device")]
    ZoneDevice,
    /// The CPU accesses memory that was allocated without a mapping for it.
    #[error("allocated without a mapping for the CPU")]
    NoKernelMapping,
    /// No page of memory, or none that the device reaches.
    #[error("out of memory")]
    NoMemory,
}

impl MapError {
    /// The negative error number of calls that return one; what only yields
    /// `DMA_MAPPING_ERROR` counts as `-ENOMEM`, as `dma_mapping_error()` says.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::NoDevice => -19,
            Self::Exists(_) => -17,
            Self::NoKernelMapping
            | Self::ZeroSize
            | Self::Wraps
            | Self::OutsideState
            | Self::OutsideMemory => -22,
            Self::NotCoherent | Self::WouldBounce => -95,
            Self::P2pNotSupported => -121,
            Self::HeadOffset | Self::MaskTooSmall(_) => -5,
            Self::BounceNotPermitted => -1,
            Self::Iommu(e) => match e {
                IommuError::Invalid => -22,
                IommuError::Misaligned => -6,
                IommuError::Range => -34,
                IommuError::InUse => -98,
                IommuError::NoMemory => -12,
                IommuError::Unsupported => -95,
                IommuError::Busy => -16,
                IommuError::NoDevice => -19,
                IommuError::Io(_) => -5,
                IommuError::Timeout(_) => -110,
            },
            _ => -12,
        }
    }
}

/// Kinds of warnings; each kind is one place in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WarningKind {
    /// A call for a device that is not there, or is gone, which has no error to return.
    NoDevice,
    /// A device without DMA mask.
    NoMask,
    /// `DMA addr … overflow`.
    Overflow,
    /// `swiotlb addr … overflow`.
    SwiotlbOverflow,
    /// `swiotlb buffer is full`.
    SwiotlbFull,
    /// `Buffer overflow detected`: a sync or unmap longer than the slot.
    SwiotlbLength,
    /// Bounce buffers are inactive.
    SwiotlbInactive,
    /// `Unsupported alignment constraint`.
    AlignConstraint,
    /// An unmap that does not find its translation.
    NotMapped,
    /// An unmap that removed another number of bytes than asked, or is not about as many.
    UnmapSize,
    /// IOVA asked for no bytes, or for so many that their number covers the flags of a state.
    IovaSize,
    /// A link that starts inside a granule behind offset 0.
    HeadOffset,
    /// `REQUIRE_COHERENT` after a bounced range of the same state.
    CoherentAfterBounce,
    /// `dma_map_sg` failed with an error that it may not return.
    SgErrno,
    /// The device left the 32-bit window.
    Dac,
    /// The IOMMU did not complete an invalidation.
    Iommu,
    /// A segment that PRP entries cannot describe (nvme).
    PrpSegment,
    /// More mappings of one cache line than dma-debug can count.
    CachelineOverlaps,
    /// `rejecting DMA map of vmalloc memory`.
    Vmalloc,
    /// A page of a device passed to the page interface of a kernel with dma-debug.
    ZoneDevice,
}

/// A warning, kept once for each kind and device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What happened.
    pub kind: WarningKind,
    /// The device, unless it is about none.
    pub device: Option<Bdf>,
    /// Text of the first occurrence.
    pub text: String,
    /// Number of occurrences.
    pub count: u64,
}

/// The log of warnings.
#[derive(Clone, Debug, Default)]
pub struct Warnings(BTreeMap<(WarningKind, Option<Bdf>), Warning>);

impl Warnings {
    /// Notes a warning; `text` is built for the first of its kind and device only.
    pub(crate) fn warn(
        &mut self,
        kind: WarningKind,
        device: Option<Bdf>,
        text: impl FnOnce() -> String,
    ) {
        self.0
            .entry((kind, device))
            .and_modify(|w| w.count += 1)
            .or_insert_with(|| Warning {
                kind,
                device,
                text: text(),
                count: 1,
            });
    }

    /// All warnings, by kind and device.
    pub fn iter(&self) -> impl Iterator<Item = &Warning> {
        self.0.values()
    }

    /// Occurrences of a kind over all devices.
    #[must_use]
    pub fn count(&self, kind: WarningKind) -> u64 {
        self.iter()
            .filter(|w| w.kind == kind)
            .map(|w| w.count)
            .sum()
    }

    /// Whether nothing was warned about.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks what no call takes: size 0 and a range that wraps around.
pub(crate) fn check_range(phys: PhysAddr, size: u64) -> Result<(), MapError> {
    if size == 0 {
        return Err(MapError::ZeroSize);
    }
    match phys.0.checked_add(size - 1) {
        Some(_) => Ok(()),
        None => Err(MapError::Wraps),
    }
}
