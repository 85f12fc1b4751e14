//! DMA of pages that a process owns and the kernel may move: `hmm_dma_map_*` (`mm/hmm.c`).
//!
//! A [`HmmDmaMap`] has an entry for every page of a range of virtual addresses. A fault fills
//! entries in ([`HmmDmaMap::range_fault`]), the driver maps them one by one when its device needs
//! them, and unmaps them when the page is about to move.

mod pfn;
#[cfg(test)]
mod tests;

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

pub use pfn::{HmmFlags, HmmPfn};

use crate::{
    attrs::Attrs,
    device::{Backend, DeviceId},
    dma::Dma,
    error::MapError,
    iommu::IommuDriver,
    iova_state::IovaState,
    machine::Machine,
    p2pdma::{MapState, MapType, bus_as_dma},
    pages::PAGE_SIZE,
};

/// Why an entry is not mapped. The kernel returns `DMA_MAPPING_ERROR` for all of
/// [`Dma::hmm_dma_map_pfn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HmmError {
    /// No entry at all, or no number of bytes that makes sense (`-EINVAL` and a warning).
    #[error("no entries")]
    Empty,
    /// The device needs cache maintenance or bounce slots, or does not reach all memory
    /// (`-EOPNOTSUPP`).
    #[error("the device cannot share pages with a process")]
    Unsupported,
    /// No such entry.
    #[error("no entry {0}")]
    NoEntry(usize),
    /// The entry holds no page.
    #[error("entry {0} is not faulted in")]
    NotValid(usize),
    /// Freed with this many entries mapped; their translations stay behind.
    #[error("{0} entries are still mapped")]
    StillMapped(usize),
    /// The page belongs to a peer that the device does not reach.
    #[error("the device does not reach the peer")]
    NotReachable,
    /// The mapping call failed.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Mistakes of a driver that are made on request, to show that a checker sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HmmDefects {
    /// A peer's page through the host bridge is not marked: it is mapped and unmapped as memory.
    pub p2pdma_not_carried: bool,
    /// The mark of a peer's page stays when the mapping fails.
    pub p2pdma_kept_on_error: bool,
    /// An unmapped entry stays marked as mapped.
    pub mapped_kept_on_unmap: bool,
}

/// Pages of a range and how they are mapped (`struct hmm_dma_map`).
#[derive(Clone, Debug)]
pub struct HmmDmaMap {
    dev: DeviceId,
    pfns: Vec<HmmPfn>,
    state: Option<IovaState>,
    /// Addresses, where there is no IOVA and the device's mappings must be undone.
    addrs: Vec<DmaAddr>,
    entry_size: u64,
    /// Deliberate mistakes.
    pub defects: HmmDefects,
}

impl HmmDmaMap {
    /// The entries.
    #[must_use]
    pub fn pfns(&self) -> &[HmmPfn] {
        &self.pfns
    }

    /// Bytes that an entry maps.
    #[must_use]
    pub const fn entry_size(&self) -> u64 {
        self.entry_size
    }

    /// Whether all entries lie in one IOVA range.
    #[must_use]
    pub const fn uses_iova(&self) -> bool {
        self.state.is_some()
    }

    fn pfn(&mut self, idx: usize) -> Result<&mut HmmPfn, HmmError> {
        self.pfns.get_mut(idx).ok_or(HmmError::NoEntry(idx))
    }

    /// What `hmm_range_fault` writes into an entry: a page of 2^`order` pages that may be written
    /// or not, or `None` for an address that cannot be faulted in. The DMA flags stay.
    ///
    /// # Errors
    /// No such entry.
    pub fn range_fault(
        &mut self,
        idx: usize,
        page: Option<(PhysAddr, bool, u8)>,
    ) -> Result<(), HmmError> {
        let pfn = self.pfn(idx)?;
        let sticky = pfn.flags() & HmmFlags::STICKY;
        *pfn = match page {
            Some((phys, write, order)) => {
                let write = if write {
                    HmmFlags::WRITE
                } else {
                    HmmFlags::empty()
                };
                HmmPfn::new(phys, order, HmmFlags::VALID | write | sticky)
            }
            None => HmmPfn::new(PhysAddr(0), 0, HmmFlags::ERROR | sticky),
        };
        Ok(())
    }

    /// Empties an entry that is not mapped.
    ///
    /// # Errors
    /// No such entry.
    pub fn clear(&mut self, idx: usize) -> Result<(), HmmError> {
        let kept = self.defects.mapped_kept_on_unmap;
        let pfn = self.pfn(idx)?;
        let sticky = pfn.flags() & HmmFlags::STICKY;
        *pfn = HmmPfn::default();
        if kept {
            pfn.insert(sticky);
        }
        Ok(())
    }
}

impl<I: IommuDriver> Dma<I> {
    /// `hmm_dma_map_alloc`: entries for `nr` pages, `entry_size` bytes each, and IOVA for all of
    /// them if the device has an IOMMU.
    ///
    /// # Errors
    /// [`HmmError::Empty`], or [`HmmError::Unsupported`] for a device that needs maintenance.
    pub fn hmm_dma_map_alloc(
        &mut self,
        dev: DeviceId,
        nr: usize,
        entry_size: u64,
    ) -> Result<HmmDmaMap, HmmError> {
        let bytes = (nr as u64).checked_mul(PAGE_SIZE).ok_or(HmmError::Empty)?;
        if bytes.checked_div(entry_size).unwrap_or(0) == 0 {
            return Err(HmmError::Empty);
        }
        let d = self.device(dev)?;
        // dma-debug lets no device skip its syncs, so that they say nothing about this one.
        let syncs = match d.backend() {
            Backend::Direct | Backend::Identity | Backend::Iommu(_)
                if self.config.debug.is_some() =>
            {
                !d.coherent
            }
            _ => d.need_sync(),
        };
        if syncs || self.dma_addressing_limited(dev) {
            return Err(HmmError::Unsupported);
        }
        let state = self.dma_iova_try_alloc(dev, PhysAddr(0), bytes);
        let listed = state.is_none() && self.dma_need_unmap(dev);
        Ok(HmmDmaMap {
            dev,
            pfns: vec![HmmPfn::default(); nr],
            state,
            addrs: vec![DmaAddr(u64::MAX); if listed { nr } else { 0 }],
            entry_size,
            defects: HmmDefects::default(),
        })
    }

    /// `hmm_dma_map_free`: gives the IOVA back.
    ///
    /// # Errors
    /// [`HmmError::StillMapped`]: the IOVA is free all the same and its translations are still
    /// there, as in the kernel; the next user of the IOVA will meet them.
    pub fn hmm_dma_map_free(&mut self, map: HmmDmaMap) -> Result<(), HmmError> {
        let mapped = |p: &&HmmPfn| {
            let f = p.flags();
            f.contains(HmmFlags::DMA_MAPPED) && !f.contains(HmmFlags::P2PDMA_BUS)
        };
        let left = map.pfns.iter().filter(mapped).count();
        if let Some(mut state) = map.state {
            self.dma_iova_free(map.dev, &mut state);
        }
        match left {
            0 => Ok(()),
            n => Err(HmmError::StillMapped(n)),
        }
    }

    /// `hmm_dma_map_pfn`: maps one entry in both directions. An entry that is mapped is left as it
    /// is, so that permissions can be renewed without a gap.
    ///
    /// # Errors
    /// See [`HmmError`]; the entry is not mapped then.
    pub fn hmm_dma_map_pfn(
        &mut self,
        m: &mut dyn Machine,
        map: &mut HmmDmaMap,
        idx: usize,
        p2p: &mut MapState,
    ) -> Result<DmaAddr, HmmError> {
        let dev = map.dev;
        let need_unmap = self.dma_need_unmap(dev);
        let offset = (idx as u64)
            .checked_mul(map.entry_size)
            .ok_or(HmmError::NoEntry(idx))?;
        let pfn = *map.pfn(idx)?;
        if !pfn.flags().contains(HmmFlags::VALID) {
            return Err(HmmError::NotValid(idx));
        }
        if pfn.flags() & (HmmFlags::DMA_MAPPED | HmmFlags::P2PDMA_BUS) == HmmFlags::DMA_MAPPED {
            if let Some(state) = map.state {
                return Ok(state.addr().offset(offset));
            }
            if need_unmap && let Some(dma) = map.addrs.get(idx) {
                return Ok(*dma);
            }
            // A mapping that leaves no trace is made again.
        }
        let mut attrs = Attrs::REQUIRE_COHERENT;
        match self.pci_p2pdma_state(m, p2p, dev, pfn.phys())? {
            MapType::None => {}
            MapType::ThruHostBridge if map.defects.p2pdma_not_carried || mutant!(M41) => {}
            MapType::ThruHostBridge => {
                attrs |= Attrs::MMIO;
                map.pfns[idx].insert(HmmFlags::P2PDMA);
            }
            MapType::BusAddr => {
                let provider = p2p.provider.and_then(|id| self.p2pdma.get(id));
                let provider = provider.ok_or(HmmError::NotReachable)?;
                map.pfns[idx].insert(HmmFlags::P2PDMA_BUS | HmmFlags::DMA_MAPPED);
                return Ok(bus_as_dma(provider.bus_addr_map(pfn.phys())));
            }
            MapType::Unknown | MapType::NotSupported => return Err(HmmError::NotReachable),
        }
        match self.hmm_map_entry(m, map, pfn.phys(), offset, attrs) {
            Ok(dma) => {
                if need_unmap && let Some(slot) = map.addrs.get_mut(idx) {
                    *slot = dma;
                }
                map.pfns[idx].insert(HmmFlags::DMA_MAPPED);
                Ok(dma)
            }
            Err(e) => {
                if !map.defects.p2pdma_kept_on_error {
                    map.pfns[idx].remove(HmmFlags::P2PDMA);
                }
                Err(e.into())
            }
        }
    }

    fn hmm_map_entry(
        &mut self,
        m: &mut dyn Machine,
        map: &mut HmmDmaMap,
        phys: PhysAddr,
        offset: u64,
        attrs: Attrs,
    ) -> Result<DmaAddr, MapError> {
        const DIR: Direction = Direction::Bidirectional;
        let (dev, size) = (map.dev, map.entry_size);
        let Some(state) = &mut map.state else {
            return self.dma_map_phys(m, dev, phys, size, DIR, attrs);
        };
        self.dma_iova_link(m, dev, state, phys, offset, size, DIR, attrs)?;
        if let Err(e) = self.dma_iova_sync(dev, state, offset, size) {
            self.dma_iova_unlink(m, dev, state, offset, size, DIR, attrs);
            return Err(e);
        }
        Ok(state.addr().offset(offset))
    }

    /// `hmm_dma_unmap_pfn`: takes one entry back; when it returns, the device does not reach the
    /// page any more. False when the entry is not mapped.
    pub fn hmm_dma_unmap_pfn(
        &mut self,
        m: &mut dyn Machine,
        map: &mut HmmDmaMap,
        idx: usize,
    ) -> bool {
        const DIR: Direction = Direction::Bidirectional;
        let (dev, size) = (map.dev, map.entry_size);
        let Some(flags) = map.pfns.get(idx).map(|p| p.flags()) else {
            return false;
        };
        if !flags.contains(HmmFlags::VALID | HmmFlags::DMA_MAPPED) {
            return false;
        }
        let mut attrs = Attrs::REQUIRE_COHERENT;
        attrs.set(Attrs::MMIO, flags.contains(HmmFlags::P2PDMA));
        if flags.contains(HmmFlags::P2PDMA_BUS) {
            // Nothing was mapped.
        } else if let Some(state) = &map.state {
            self.dma_iova_unlink(m, dev, state, idx as u64 * size, size, DIR, attrs);
        } else if self.dma_need_unmap(dev)
            && let Some(dma) = map.addrs.get(idx)
        {
            self.dma_unmap_phys(m, dev, *dma, size, DIR, attrs);
        } else if let Some(dma) = self.direct_address(dev, map.pfns[idx].phys()) {
            // No call is needed; the promise ends all the same.
            self.ledger.remove(dev, dma, size, DIR, attrs);
        }
        if !map.defects.mapped_kept_on_unmap {
            map.pfns[idx].remove(HmmFlags::STICKY);
        }
        true
    }

    /// The address of memory for a device that is not translated.
    fn direct_address(&self, dev: DeviceId, phys: PhysAddr) -> Option<DmaAddr> {
        self.device(dev).ok()?.phys_to_dma(phys)
    }
}
