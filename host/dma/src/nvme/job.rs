//! What mapping data and mapping metadata have in common.

use tlproof_pcie::DmaAddr;

use super::{CTRL_PAGE, Nvme, SglDescriptor, SglType, command::SGL_DESCRIPTOR};
use crate::{
    attrs::Attrs,
    block::{BlkDmaIter, BlkStatus, DmaVec, Request},
    dma::Dma,
    dma_pool::PoolBlock,
    iommu::IommuDriver,
    iova_state::IovaState,
    machine::Machine,
    p2pdma::MapType,
};

/// A request in the hands of the driver.
pub(super) struct Job<'a, I> {
    pub nvme: &'a mut Nvme,
    pub dma: &'a mut Dma<I>,
    pub m: &'a mut dyn Machine,
    pub req: &'a Request,
}

impl<I: IommuDriver> Job<'_, I> {
    /// Maps everything of an iterator. The segments that were mapped before an error are pushed too.
    pub(super) fn map_all(
        &mut self,
        iter: &mut BlkDmaIter<'_>,
        state: &mut IovaState,
        vecs: &mut Vec<DmaVec>,
    ) -> Result<(), BlkStatus> {
        let dev = self.nvme.dev;
        let mut next = self
            .dma
            .blk_rq_dma_map_iter_start(self.m, dev, state, iter)?;
        while let Some(v) = next {
            vecs.push(v);
            next = self.dma.blk_rq_dma_map_iter_next(self.m, dev, iter)?;
        }
        Ok(())
    }

    /// Takes a mapping back: the IOVA range as a whole, or every segment.
    pub(super) fn unmap_all(
        &mut self,
        state: &mut IovaState,
        map: MapType,
        vecs: &[DmaVec],
        total: u32,
    ) {
        let (dev, dir) = (self.nvme.dev, self.req.dma_dir());
        let map = if self.nvme.defects.unmap_without_mmio && map == MapType::ThruHostBridge {
            MapType::None
        } else {
            map
        };
        if self
            .dma
            .blk_rq_dma_unmap(self.m, dev, state, total, dir, map)
        {
            return;
        }
        let attrs = if map == MapType::ThruHostBridge {
            Attrs::MMIO
        } else {
            Attrs::empty()
        };
        for v in vecs {
            self.dma
                .dma_unmap_phys(self.m, dev, v.addr, v.len.into(), dir, attrs);
        }
    }

    /// The data descriptors of an SGL segment, from the memory where the controller reads them.
    pub(super) fn read_sgl(&mut self, block: &PoolBlock, offset: u64, bytes: u32) -> Vec<DmaVec> {
        let mut list = vec![0; bytes as usize];
        if block.read(self.m, offset, &mut list).is_err() {
            return Vec::new();
        }
        let (entries, _) = list.as_chunks();
        entries
            .iter()
            .filter_map(SglDescriptor::from_bytes)
            .map(|d| DmaVec {
                addr: d.addr,
                len: if self.nvme.defects.sgl_lengths_lost || mutant!(M40c) {
                    CTRL_PAGE as u32
                } else {
                    d.length
                },
            })
            .collect()
    }

    pub(super) fn dma_pool_alloc(&mut self, small: bool) -> Result<PoolBlock, BlkStatus> {
        let pool = if small {
            &mut self.nvme.small
        } else {
            &mut self.nvme.large
        };
        pool.alloc(self.dma, self.m)
            .map_err(|_| BlkStatus::Resource)
    }
}

/// The SGL of `vecs`, as it is in memory.
pub(super) fn sgl_bytes(vecs: &[DmaVec]) -> Vec<u8> {
    vecs.iter().flat_map(|v| sgl_data(*v).to_bytes()).collect()
}

/// `nvme_pci_sgl_set_data`.
pub(super) const fn sgl_data(v: DmaVec) -> SglDescriptor {
    SglDescriptor {
        addr: v.addr,
        length: v.len,
        kind: SglType::Data,
    }
}

/// `nvme_pci_sgl_set_seg`.
pub(super) const fn sgl_last_segment(addr: DmaAddr, entries: usize) -> SglDescriptor {
    SglDescriptor {
        addr,
        length: (entries * SGL_DESCRIPTOR) as u32,
        kind: SglType::LastSegment,
    }
}
