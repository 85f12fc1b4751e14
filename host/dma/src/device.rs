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
    /// A Xen guest without an IOMMU of its own.
    Xen,
    /// An IOMMU DMA domain; its index, which is given again when the last device has left.
    Iommu(usize),
}

impl Backend {
    /// `dma_map_direct`: neither an IOMMU domain nor operations of the platform.
    #[must_use]
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::Direct | Self::Identity)
    }
}

/// How a device is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// No IOMMU in the path.
    Direct,
    /// Identity domain.
    Identity,
    /// A Xen guest: no IOMMU, machine addresses ([`FrameMap`](crate::FrameMap)).
    Xen,
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
    /// A PCI function; else a platform device that the IOMMU knows by `bdf`.
    pub pci: bool,
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
    /// Address bits that say that memory is encrypted (`sme_me_mask`), 0 without encryption.
    /// They stand in the address of memory that the CPU keeps private, not in that of bounce
    /// slots and of what is shared.
    pub memory_encryption: u64,
    /// A flush is costly, so a flush queue is one long ring with a slow timer.
    pub shadow_on_flush: bool,
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
            pci: true,
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
            memory_encryption: 0,
            shadow_on_flush: false,
            backend: Backend::Direct,
            skip_sync: false,
            pci_32bit_workaround: true,
        }
    }

    /// The function, of a device that is one.
    #[must_use]
    pub const fn pci_function(&self) -> Option<Bdf> {
        if self.pci { Some(self.bdf) } else { None }
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

    /// `phys_to_dma`: the address of private memory; `None` outside of every DMA range.
    #[must_use]
    pub fn phys_to_dma(&self, phys: PhysAddr) -> Option<DmaAddr> {
        let dma = self.phys_to_dma_unencrypted(phys)?;
        Some(DmaAddr(dma.0 | self.memory_encryption))
    }

    /// `phys_to_dma_unencrypted`: the address of shared memory; `None` outside of every DMA range.
    #[must_use]
    pub fn phys_to_dma_unencrypted(&self, phys: PhysAddr) -> Option<DmaAddr> {
        if self.dma_ranges.is_empty() {
            return Some(DmaAddr(phys.0));
        }
        self.dma_ranges.iter().find_map(|r| {
            let off = phys.0.checked_sub(r.cpu_start.0)?;
            (off < r.size).then(|| r.dma_start.offset(off))
        })
    }

    /// The DMA addresses that no DMA range covers, first and last of each gap. They must not be
    /// IOVAs: the bridge would not let them through.
    pub(crate) fn dma_range_gaps(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<_> = self
            .dma_ranges
            .iter()
            .filter(|r| r.size > 0)
            .map(|r| (r.dma_start.0, r.dma_start.0.saturating_add(r.size - 1)))
            .collect();
        ranges.sort_unstable();
        let mut gaps = Vec::new();
        // The first address that is not covered so far; none behind the end of the space.
        let mut next = (!ranges.is_empty()).then_some(0u64);
        for (first, last) in ranges {
            let Some(n) = next else { break };
            if first > n {
                gaps.push((n, first - 1));
            }
            next = last.checked_add(1).map(|l| l.max(n));
        }
        gaps.extend(next.map(|n| (n, u64::MAX)));
        gaps
    }

    /// `dma_to_phys`; `None` outside of every DMA range.
    #[must_use]
    pub fn dma_to_phys(&self, dma: DmaAddr) -> Option<PhysAddr> {
        let dma = DmaAddr(dma.0 & !self.memory_encryption);
        if self.dma_ranges.is_empty() {
            return Some(PhysAddr(dma.0));
        }
        self.dma_ranges.iter().find_map(|r| {
            let off = dma.0.checked_sub(r.dma_start.0)?;
            (off < r.size).then(|| r.cpu_start.offset(off))
        })
    }
}
