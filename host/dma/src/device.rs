//! A device as the DMA API sees it.

use tlproof_pcie::{Bdf, DmaAddr, PhysAddr};

/// Names a device of a [`Dma`](crate::Dma).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub(crate) usize);

/// One row of `dev->dma_range_map`: CPU addresses seen at other bus addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaRange {
    /// First CPU address.
    pub cpu_start: PhysAddr,
    /// The bus address of that byte.
    pub dma_start: DmaAddr,
    /// Bytes.
    pub size: u64,
}

/// What is below the API for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// No IOMMU.
    Direct,
    /// An IOMMU in the identity domain: the same addresses as without one.
    Identity,
    /// An IOMMU DMA domain; the index of the domain in the order of creation.
    Iommu(usize),
}

/// How a device is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// No IOMMU in the path.
    Direct,
    /// Identity domain.
    Identity,
    /// An own DMA domain, every unmap invalidates before it returns.
    Strict,
    /// An own DMA domain with a flush queue.
    Lazy,
    /// The DMA domain of another device (the same IOMMU group).
    With(DeviceId),
}

/// A device and its DMA parameters (`struct device`, `dma_parms`).
#[derive(Clone, Debug)]
pub struct Device {
    /// Requester ID.
    pub bdf: Bdf,
    /// Name of its driver, for messages; empty without one.
    pub driver: String,
    /// `*dev->dma_mask`, `None` when the pointer is NULL.
    pub dma_mask: Option<u64>,
    /// `dev->coherent_dma_mask`, for allocations.
    pub coherent_dma_mask: u64,
    /// Highest address that the bus carries, 0 when it carries all.
    pub bus_dma_limit: u64,
    /// The device snoops the CPU caches.
    pub coherent: bool,
    /// Unaligned buffers are bounced so that it sees no neighbours.
    pub untrusted: bool,
    /// Address bits that a bounce slot must keep.
    pub min_align_mask: u64,
    /// Longest scatterlist segment in bytes.
    pub max_segment_size: u64,
    /// Mask that a segment must not cross.
    pub seg_boundary: u64,
    /// Every mapping is bounced (restricted pool); `swiotlb=force` does it for all devices.
    pub force_bounce: bool,
    /// `dma_range_map`, empty for CPU addresses as they are.
    pub dma_ranges: Vec<DmaRange>,
    pub(crate) backend: Backend,
    pub(crate) skip_sync: bool,
    pub(crate) pci_32bit_workaround: bool,
}

impl Device {
    /// A coherent, trusted device with a 64-bit mask and the kernel's default parameters.
    #[must_use]
    pub const fn new(bdf: Bdf) -> Self {
        Self {
            bdf,
            driver: String::new(),
            dma_mask: Some(u64::MAX),
            coherent_dma_mask: u64::MAX,
            bus_dma_limit: 0,
            coherent: true,
            untrusted: false,
            min_align_mask: 0,
            max_segment_size: 0x1_0000,
            seg_boundary: 0xffff_ffff,
            force_bounce: false,
            dma_ranges: Vec::new(),
            backend: Backend::Direct,
            skip_sync: false,
            pci_32bit_workaround: true,
        }
    }

    /// What is below the API.
    #[must_use]
    pub const fn backend(&self) -> Backend {
        self.backend
    }

    /// Whether `dma_sync_*` does anything (`dma_dev_need_sync`).
    #[must_use]
    pub const fn need_sync(&self) -> bool {
        !self.skip_sync
    }

    /// `min_not_zero(*dma_mask, bus_dma_limit)`.
    #[must_use]
    pub fn limit(&self) -> u64 {
        Self::min_not_zero(self.dma_mask.unwrap_or(0), self.bus_dma_limit)
    }

    /// The limit of allocations.
    #[must_use]
    pub fn coherent_limit(&self) -> u64 {
        Self::min_not_zero(self.coherent_dma_mask, self.bus_dma_limit)
    }

    fn min_not_zero(a: u64, b: u64) -> u64 {
        match (a, b) {
            (0, x) | (x, 0) => x,
            (a, b) => a.min(b),
        }
    }

    /// Whether the device can put out every address of the range.
    #[must_use]
    pub fn capable(&self, dma: DmaAddr, size: u64) -> bool {
        dma.0
            .checked_add(size.max(1) - 1)
            .is_some_and(|end| dma.0 != u64::MAX && end <= self.limit())
    }

    /// `phys_to_dma`; `None` outside of every DMA range.
    #[must_use]
    pub fn phys_to_dma(&self, phys: PhysAddr) -> Option<DmaAddr> {
        if self.dma_ranges.is_empty() {
            return Some(DmaAddr(phys.0));
        }
        self.dma_ranges.iter().find_map(|r| {
            let off = phys.0.checked_sub(r.cpu_start.0)?;
            (off < r.size).then(|| r.dma_start.offset(off))
        })
    }

    /// `dma_to_phys`; `None` outside of every DMA range.
    #[must_use]
    pub fn dma_to_phys(&self, dma: DmaAddr) -> Option<PhysAddr> {
        if self.dma_ranges.is_empty() {
            return Some(PhysAddr(dma.0));
        }
        self.dma_ranges.iter().find_map(|r| {
            let off = dma.0.checked_sub(r.dma_start.0)?;
            (off < r.size).then(|| r.cpu_start.offset(off))
        })
    }
}
