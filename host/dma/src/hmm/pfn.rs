//! Entries of a range: a page frame number with flags in the high bits.

use bitflags::bitflags;
use tlproof_pcie::PhysAddr;

bitflags! {
    /// `HMM_PFN_*` of a 64-bit kernel.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct HmmFlags: u64 {
        /// There is a page.
        const VALID = 1 << 63;
        /// It may be written.
        const WRITE = 1 << 62;
        /// The address cannot be faulted in.
        const ERROR = 1 << 61;
        /// The entry is mapped for the device.
        const DMA_MAPPED = 1 << 60;
        /// It is a peer's page, mapped through the host bridge.
        const P2PDMA = 1 << 59;
        /// It is a peer's page, reached by its bus address.
        const P2PDMA_BUS = 1 << 58;
        /// What a fault leaves alone.
        const STICKY = Self::DMA_MAPPED.bits() | Self::P2PDMA.bits() | Self::P2PDMA_BUS.bits();
    }
}

/// First bit of the order of the page.
const ORDER_SHIFT: u32 = 53;
const ORDER: u64 = 0x1f << ORDER_SHIFT;
const PFN: u64 = (1 << ORDER_SHIFT) - 1;
const PAGE_SHIFT: u32 = 12;

/// One entry of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HmmPfn(u64);

impl HmmPfn {
    /// An entry for the page at `phys`, one of 2^`order` pages (at most 31).
    #[must_use]
    pub const fn new(phys: PhysAddr, order: u8, flags: HmmFlags) -> Self {
        let order = (order as u64) << ORDER_SHIFT & ORDER;
        Self(phys.0 >> PAGE_SHIFT & PFN | order | flags.bits())
    }

    /// The entry as the kernel holds it.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Its flags.
    #[must_use]
    pub const fn flags(self) -> HmmFlags {
        HmmFlags::from_bits_truncate(self.0)
    }

    /// `hmm_pfn_to_phys`.
    #[must_use]
    pub const fn phys(self) -> PhysAddr {
        PhysAddr((self.0 & PFN) << PAGE_SHIFT)
    }

    /// `hmm_pfn_to_map_order`.
    #[must_use]
    pub const fn order(self) -> u8 {
        ((self.0 & ORDER) >> ORDER_SHIFT) as u8
    }

    pub(super) const fn insert(&mut self, flags: HmmFlags) {
        self.0 |= flags.bits();
    }

    pub(super) const fn remove(&mut self, flags: HmmFlags) {
        self.0 &= !flags.bits();
    }
}
