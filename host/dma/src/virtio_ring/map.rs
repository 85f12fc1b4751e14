//! The ring's memory and the buffers, with the mapping API or past it.

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs, coherent::Coherent, device::DeviceId, dma::Dma, error::MapError,
    iommu::IommuDriver, machine::Machine, pages::PAGE_SIZE,
};

/// Memory of a ring or of a table of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// Coherent memory of the mapping API.
    Coherent(Coherent),
    /// Pages whose physical address the device uses.
    Pages {
        /// First byte.
        phys: PhysAddr,
        /// Bytes that were taken.
        len: u64,
    },
}

impl Memory {
    /// `vring_alloc_queue`.
    pub(super) fn alloc<I: IommuDriver>(
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        dev: DeviceId,
        size: u64,
        use_map_api: bool,
    ) -> Result<Self, MapError> {
        if use_map_api {
            return Ok(Self::Coherent(dma.dma_alloc_coherent(m, dev, size)?));
        }
        Self::pages(dma, m, size)
    }

    /// Zeroed pages (`alloc_pages_exact`, `kmalloc`).
    pub(super) fn pages<I: IommuDriver>(
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        size: u64,
    ) -> Result<Self, MapError> {
        let len = size.next_multiple_of(PAGE_SIZE);
        let pages = dma.pages.as_mut().ok_or(MapError::NoMemory)?;
        let phys = pages
            .take(m, len, PhysAddr(u64::MAX))
            .ok_or(MapError::NoMemory)?;
        Ok(Self::Pages { phys, len })
    }

    /// Gives it back.
    pub(super) fn free<I: IommuDriver>(self, dma: &mut Dma<I>, m: &mut dyn Machine, dev: DeviceId) {
        match self {
            Self::Coherent(c) => dma.dma_free_attrs(m, dev, c, Attrs::empty()),
            Self::Pages { phys, len } => {
                if let Some(pages) = dma.pages.as_mut() {
                    pages.give_back(phys, len);
                }
            }
        }
    }

    /// Where the CPU finds it.
    pub(super) const fn phys(&self) -> PhysAddr {
        match self {
            Self::Coherent(c) => c.phys,
            Self::Pages { phys, .. } => *phys,
        }
    }

    /// Where the device finds the ring.
    pub(super) const fn dma(&self) -> DmaAddr {
        match self {
            Self::Coherent(c) => c.dma,
            Self::Pages { phys, .. } => DmaAddr(phys.0),
        }
    }

    /// A store of the CPU; offsets are those of a layout or a table, which fit.
    pub(super) fn write(&self, m: &mut dyn Machine, offset: u64, data: &[u8]) {
        match self {
            Self::Coherent(c) => {
                let fits = c.write(m, offset, data);
                debug_assert_eq!(fits, Ok(()));
            }
            Self::Pages { phys, .. } => m.mem_write(phys.offset(offset), data),
        }
    }

    /// A load of the CPU.
    pub(super) fn read<const N: usize>(&self, m: &mut dyn Machine, offset: u64) -> [u8; N] {
        let mut buf = [0; N];
        match self {
            Self::Coherent(c) => {
                let fits = c.read(m, offset, &mut buf);
                debug_assert_eq!(fits, Ok(()));
            }
            Self::Pages { phys, .. } => m.mem_read(phys.offset(offset), &mut buf),
        }
        buf
    }
}

/// Who maps buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapper {
    pub dev: DeviceId,
    /// `use_map_api`.
    pub use_map_api: bool,
}

impl Mapper {
    /// `vring_map_one_sg`: the address that the device uses.
    pub(super) fn map_one<I: IommuDriver>(
        self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        phys: PhysAddr,
        len: u32,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<DmaAddr, MapError> {
        if !self.use_map_api {
            // No call of the mapping API tells the sanitizer, so it is told by hand.
            dma.kmsan_handle_dma(phys, len.into(), dir);
            return Ok(DmaAddr(phys.0));
        }
        dma.dma_map_page(m, self.dev, phys, len.into(), dir, attrs)
    }

    /// `vring_unmap_one_split`: always without attributes; `DEBUGGING_IGNORE_CACHELINES` need not
    /// agree.
    pub(super) fn unmap_one<I: IommuDriver>(
        self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        addr: DmaAddr,
        len: u32,
        dir: Direction,
    ) {
        if self.use_map_api {
            dma.dma_unmap_page(m, self.dev, addr, len.into(), dir, Attrs::empty());
        }
    }
}
