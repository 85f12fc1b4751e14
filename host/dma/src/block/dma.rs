//! Mapping a request (`blk_rq_dma_map_iter_*`).

use tlproof_pcie::{Direction, DmaAddr};

use super::{
    map_iter::{BlkMapIter, PhysVec},
    request::Request,
    status::BlkStatus,
};
use crate::{
    attrs::Attrs,
    device::DeviceId,
    dma::Dma,
    iommu::IommuDriver,
    iova_state::IovaState,
    machine::Machine,
    p2pdma::{MapState, MapType, bus_as_dma},
};

/// Bytes that a device finds at consecutive addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaVec {
    /// First address as the device sees it.
    pub addr: DmaAddr,
    /// Bytes.
    pub len: u32,
}

/// Where the mapping of a request's data or metadata stands (`struct blk_dma_iter`).
///
/// The kernel's `addr` and `len` are the [`DmaVec`] that a call returns, its `status` the error.
#[derive(Clone, Debug)]
pub struct BlkDmaIter<'a> {
    /// Provider and type of peer memory. The first segment decides for all.
    pub p2pdma: MapState,
    iter: BlkMapIter<'a>,
    dir: Direction,
    total: u32,
    gap_mask: u64,
}

impl<'a> BlkDmaIter<'a> {
    /// For the data of a request.
    #[must_use]
    pub fn data(req: &'a Request) -> Self {
        Self {
            p2pdma: MapState::default(),
            iter: req.segments(),
            dir: req.dma_dir(),
            total: req.payload_bytes(),
            gap_mask: req.phys_gap_mask(),
        }
    }

    /// For its metadata (`blk_rq_integrity_dma_map_iter_*`).
    #[must_use]
    pub fn integrity(req: &'a Request) -> Self {
        Self {
            p2pdma: MapState::default(),
            iter: req.integrity_segments(),
            dir: req.dma_dir(),
            total: req.integrity_bytes(),
            gap_mask: req.integrity_gap_mask(),
        }
    }

    /// `p2pdma.map`: how the device reaches the memory.
    #[must_use]
    pub fn map_type(&self) -> MapType {
        self.p2pdma.map.unwrap_or(MapType::None)
    }
}

/// The attributes of memory that is reached like this, at map and unmap.
#[must_use]
pub(crate) const fn attrs_of(map: MapType) -> Attrs {
    match map {
        MapType::ThruHostBridge => Attrs::MMIO,
        _ => Attrs::empty(),
    }
}

/// The request was mapped as one IOVA range.
#[must_use]
pub const fn blk_rq_dma_map_coalesce(state: &IovaState) -> bool {
    state.uses_iova()
}

impl<I: IommuDriver> Dma<I> {
    /// `blk_rq_dma_map_iter_start`: maps the first segment, or all of them as one IOVA range when
    /// the device is behind an IOMMU and no segment begins or ends inside a granule. `None` when
    /// there is nothing to map.
    ///
    /// `state` holds the IOVA range afterwards, or nothing: [`blk_rq_dma_map_coalesce`] tells.
    ///
    /// # Errors
    /// [`BlkStatus::Inval`] for peer memory out of reach, [`BlkStatus::Resource`] for a segment
    /// that cannot be mapped, and what became of the IOVA range. Nothing stays mapped.
    pub fn blk_rq_dma_map_iter_start(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        state: &mut IovaState,
        iter: &mut BlkDmaIter<'_>,
    ) -> Result<Option<DmaVec>, BlkStatus> {
        *state = IovaState::default();
        iter.p2pdma = MapState::default();
        let Some(first) = iter.iter.next() else {
            return Ok(None);
        };
        match self.pci_p2pdma_state(m, &mut iter.p2pdma, dev, first.paddr)? {
            MapType::BusAddr => return self.blk_dma_map_bus(iter, first).map(Some),
            MapType::ThruHostBridge | MapType::None => {}
            MapType::NotSupported | MapType::Unknown => return Err(BlkStatus::Inval),
        }
        let total = u64::from(iter.total);
        if iter.gap_mask & self.dma_get_merge_boundary(dev) == 0
            && let Some(range) = self.dma_iova_try_alloc(dev, first.paddr, total)
        {
            *state = range;
            return self
                .blk_rq_dma_map_iova(m, dev, state, iter, first)
                .map(Some);
        }
        self.blk_dma_map_direct(m, dev, iter, first).map(Some)
    }

    /// `blk_rq_dma_map_iter_next`: maps the next segment; `None` behind the last.
    ///
    /// # Errors
    /// As [`Dma::blk_rq_dma_map_iter_start`]; what was mapped before stays mapped.
    pub fn blk_rq_dma_map_iter_next(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        iter: &mut BlkDmaIter<'_>,
    ) -> Result<Option<DmaVec>, BlkStatus> {
        let Some(segment) = iter.iter.next() else {
            return Ok(None);
        };
        match iter.map_type() {
            MapType::BusAddr => self.blk_dma_map_bus(iter, segment),
            _ => self.blk_dma_map_direct(m, dev, iter, segment),
        }
        .map(Some)
    }

    /// `blk_rq_dma_unmap`: takes `mapped_len` bytes back. False when the driver has to unmap every
    /// segment by itself, with the attributes that go with `map`.
    pub fn blk_rq_dma_unmap(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        state: &mut IovaState,
        mapped_len: u32,
        dir: Direction,
        map: MapType,
    ) -> bool {
        if map == MapType::BusAddr {
            return true;
        }
        if state.uses_iova() {
            self.dma_iova_destroy(m, dev, state, mapped_len.into(), dir, attrs_of(map));
            return true;
        }
        !self.dma_need_unmap(dev)
    }

    fn blk_dma_map_bus(
        &self,
        iter: &BlkDmaIter<'_>,
        segment: PhysVec,
    ) -> Result<DmaVec, BlkStatus> {
        let provider = iter.p2pdma.provider.and_then(|id| self.p2pdma.get(id));
        let provider = provider.ok_or(BlkStatus::Inval)?;
        Ok(DmaVec {
            addr: bus_as_dma(provider.bus_addr_map(segment.paddr)),
            len: segment.len,
        })
    }

    fn blk_dma_map_direct(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        iter: &BlkDmaIter<'_>,
        PhysVec { paddr, len }: PhysVec,
    ) -> Result<DmaVec, BlkStatus> {
        let attrs = attrs_of(iter.map_type());
        let addr = self
            .dma_map_phys(m, dev, paddr, len.into(), iter.dir, attrs)
            .map_err(|_| BlkStatus::Resource)?;
        Ok(DmaVec { addr, len })
    }

    /// Links all segments and makes them visible; without success nothing stays.
    fn blk_rq_dma_map_iova(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        state: &mut IovaState,
        iter: &mut BlkDmaIter<'_>,
        first: PhysVec,
    ) -> Result<DmaVec, BlkStatus> {
        let (dir, attrs) = (iter.dir, attrs_of(iter.map_type()));
        let mut mapped = 0;
        let mut linked = Ok(());
        let mut next = Some(first);
        while let Some(PhysVec { paddr, len }) = next {
            let len = u64::from(len);
            linked = self.dma_iova_link(m, dev, state, paddr, mapped, len, dir, attrs);
            if linked.is_err() {
                break;
            }
            mapped += len;
            next = iter.iter.next();
        }
        if let Err(e) = linked.and_then(|()| self.dma_iova_sync(dev, state, 0, mapped)) {
            self.dma_iova_destroy(m, dev, state, mapped, dir, attrs);
            return Err(e.into());
        }
        Ok(DmaVec {
            addr: state.addr(),
            len: iter.total,
        })
    }
}
