//! A driver whose device pages on demand: memory regions of a process that are mapped when the
//! device faults and unmapped when the kernel moves a page, as RDMA drivers do it
//! (`ib_umem_odp`, `mlx5`).
//!
//! The device has a translation of its own in front of the DMA address, the entries of
//! [`OdpRegion::xlt`]; it uses an address only while its entry is there. The order matters:
//!
//! 1. fault: `hmm_range_fault` finds the pages, each is mapped, then its entry is written;
//! 2. invalidate: the entries are zapped and the device has stopped using them, then each page is
//!    unmapped, and only then may the kernel move it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use tlproof_pcie::{DmaAddr, PhysAddr};

use crate::{
    device::DeviceId,
    dma::Dma,
    hmm::{HmmDmaMap, HmmError, HmmFlags, HmmPfn},
    iommu::IommuDriver,
    machine::Machine,
    p2pdma::MapState,
    pages::PAGE_SIZE,
};

/// A page of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserPage {
    /// Where it is: main memory, or a peer's page.
    pub phys: PhysAddr,
    /// The process may write it.
    pub writable: bool,
}

/// The pages of a process by virtual address, as `hmm_range_fault` finds them.
#[derive(Clone, Debug, Default)]
pub struct UserMemory {
    pages: BTreeMap<u64, UserPage>,
}

impl UserMemory {
    /// Puts a page at the virtual address of its first byte. Whoever mapped the one before must
    /// have been invalidated.
    pub fn insert(&mut self, va: u64, page: UserPage) {
        self.pages.insert(va / PAGE_SIZE, page);
    }

    /// Takes a page away.
    pub fn remove(&mut self, va: u64) -> Option<UserPage> {
        self.pages.remove(&(va / PAGE_SIZE))
    }

    /// The page at a virtual address.
    #[must_use]
    pub fn page(&self, va: u64) -> Option<UserPage> {
        self.pages.get(&(va / PAGE_SIZE)).copied()
    }
}

/// Why a fault is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OdpError {
    /// Not inside the region (`-EINVAL`).
    #[error("{len} bytes at {va:#x} are not inside the region")]
    Outside {
        /// First virtual address.
        va: u64,
        /// Bytes.
        len: u64,
    },
    /// The process has no page there, or may not write it (`-EFAULT`).
    #[error("no page at {0:#x} for this access")]
    Fault(u64),
    /// The page cannot be mapped.
    #[error(transparent)]
    Hmm(#[from] HmmError),
}

/// An entry of the device's translation (`mlx5` MTT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XltEntry {
    /// Address for the device.
    pub dma: DmaAddr,
    /// The device may write.
    pub write: bool,
}

/// A memory region (`struct ib_umem_odp`).
#[derive(Debug)]
pub struct OdpRegion {
    /// First virtual address.
    start: u64,
    map: HmmDmaMap,
    xlt: Vec<Option<XltEntry>>,
}

impl OdpRegion {
    /// A region of `pages` pages at `start`; nothing is mapped yet.
    ///
    /// # Errors
    /// The device cannot page on demand, or `start` is not page aligned.
    pub fn new<I: IommuDriver>(
        dma: &mut Dma<I>,
        dev: DeviceId,
        start: u64,
        pages: usize,
    ) -> Result<Self, OdpError> {
        let len = (pages as u64).saturating_mul(PAGE_SIZE);
        if !start.is_multiple_of(PAGE_SIZE) || start.checked_add(len).is_none() {
            return Err(OdpError::Outside { va: start, len });
        }
        Ok(Self {
            start,
            map: dma.hmm_dma_map_alloc(dev, pages, PAGE_SIZE)?,
            xlt: vec![None; pages],
        })
    }

    /// The entries of the region.
    #[must_use]
    pub const fn map(&self) -> &HmmDmaMap {
        &self.map
    }

    /// The entries of the region, to plant a mistake.
    pub const fn map_mut(&mut self) -> &mut HmmDmaMap {
        &mut self.map
    }

    fn index(&self, va: u64) -> Option<usize> {
        usize::try_from(va.checked_sub(self.start)? / PAGE_SIZE).ok()
    }

    /// The device's entry for a virtual address; `None` makes the device fault.
    #[must_use]
    pub fn xlt(&self, va: u64) -> Option<XltEntry> {
        *self.xlt.get(self.index(va)?)?
    }

    /// The page of a virtual address, with its flags.
    #[must_use]
    pub fn pfn(&self, va: u64) -> Option<HmmPfn> {
        self.map.pfns().get(self.index(va)?).copied()
    }

    /// The virtual address and entry of every page that the device can use.
    pub fn present(&self) -> impl Iterator<Item = (u64, XltEntry)> {
        let entries = self.xlt.iter().enumerate();
        entries.filter_map(|(i, e)| Some((self.start + i as u64 * PAGE_SIZE, (*e)?)))
    }

    /// The entries that `len` bytes at `va` touch.
    fn entries(&self, va: u64, len: u64) -> Result<std::ops::Range<usize>, OdpError> {
        let outside = OdpError::Outside { va, len };
        let first = va.checked_sub(self.start).ok_or(outside)?;
        let end = first.checked_add(len.max(1)).ok_or(outside)?;
        let (first, end) = (first / PAGE_SIZE, end.div_ceil(PAGE_SIZE));
        if end > self.xlt.len() as u64 {
            return Err(outside);
        }
        Ok(first as usize..end as usize)
    }

    /// Serves a page fault of the device (`ib_umem_odp_map_dma_and_lock` and the update of the
    /// device's translation). Returns the virtual address and entry of every page that the device
    /// can use now, the ones that were mapped before included: their permission is renewed without
    /// a new mapping.
    ///
    /// # Errors
    /// The first page that is not there or cannot be mapped; pages before it are mapped.
    pub fn fault<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        user: &UserMemory,
        va: u64,
        len: u64,
        write: bool,
    ) -> Result<Vec<(u64, XltEntry)>, OdpError> {
        let range = self.entries(va, len)?;
        let at = |idx: usize| self.start + idx as u64 * PAGE_SIZE;
        for idx in range.clone() {
            let page = user.page(at(idx)).filter(|p| p.writable || !write);
            self.map
                .range_fault(idx, page.map(|p| (p.phys, p.writable, 0)))?;
            if page.is_none() {
                return Err(OdpError::Fault(at(idx)));
            }
        }
        let mut p2p = MapState::default();
        let mut ready = Vec::new();
        for idx in range {
            let address = dma.hmm_dma_map_pfn(m, &mut self.map, idx, &mut p2p)?;
            let entry = XltEntry {
                dma: address,
                write: self.map.pfns()[idx].flags().contains(HmmFlags::WRITE),
            };
            self.xlt[idx] = Some(entry);
            ready.push((self.start + idx as u64 * PAGE_SIZE, entry));
        }
        Ok(ready)
    }

    /// First half of an invalidation: zaps the device's entries. Accesses that the device had
    /// begun must end before [`OdpRegion::unmap`]. Returns what was zapped.
    ///
    /// # Errors
    /// Not inside the region.
    pub fn zap(&mut self, va: u64, len: u64) -> Result<Vec<XltEntry>, OdpError> {
        let range = self.entries(va, len)?;
        Ok(self.xlt[range]
            .iter_mut()
            .filter_map(Option::take)
            .collect())
    }

    /// Second half (`ib_umem_odp_unmap_dma_pages`): unmaps the pages and forgets them. Returns how
    /// many were mapped. What is not zapped yet is zapped.
    ///
    /// # Errors
    /// Not inside the region.
    pub fn unmap<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        va: u64,
        len: u64,
    ) -> Result<usize, OdpError> {
        self.zap(va, len)?;
        let mut unmapped = 0;
        for idx in self.entries(va, len)? {
            unmapped += usize::from(dma.hmm_dma_unmap_pfn(m, &mut self.map, idx));
            self.map.clear(idx)?;
        }
        Ok(unmapped)
    }

    /// Ends the region (`ib_umem_odp_release`).
    ///
    /// # Errors
    /// Entries that cannot be unmapped; the kernel would leak them.
    pub fn release<I: IommuDriver>(
        mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
    ) -> Result<(), OdpError> {
        let len = self.xlt.len() as u64 * PAGE_SIZE;
        self.unmap(dma, m, self.start, len)?;
        Ok(dma.hmm_dma_map_free(self.map)?)
    }
}
