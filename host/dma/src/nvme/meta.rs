//! The metadata of a request.

use super::{
    DataPointer, Iod, IodFlags, Job, MetadataPointer, SglDescriptor, SglType, Source,
    command::SGL_DESCRIPTOR,
    job::{sgl_bytes, sgl_last_segment},
};
use crate::{
    attrs::Attrs,
    block::{BlkDmaIter, BlkStatus, DmaVec, Pgmap},
    dma_pool::PoolBlock,
    iommu::IommuDriver,
};

impl<I: IommuDriver> Job<'_, I> {
    /// `nvme_map_metadata`.
    pub(super) fn map_metadata(&mut self, source: Source, iod: &mut Iod) -> Result<(), BlkStatus> {
        let sgl = self.takes_meta_sgl(iod) && (source.user || self.req.nr_integrity_segments() > 1);
        if self.nvme.defects.meta_as_data || mutant!(M19) {
            self.setup_meta_as_data(iod)
        } else if !sgl && self.req.integrity_pgmap() == Pgmap::Ram {
            self.setup_meta_mptr(iod)
        } else {
            self.setup_meta_iter(source, iod)
        }
    }

    /// An SGL of the metadata goes with one of the data.
    const fn takes_meta_sgl(&self, iod: &Iod) -> bool {
        self.nvme.ctrl.meta_sgls && matches!(iod.cmd.dptr, DataPointer::Sgl(_))
    }

    /// [`Defects::meta_as_data`](super::Defects::meta_as_data): no type of its own.
    fn setup_meta_as_data(&mut self, iod: &mut Iod) -> Result<(), BlkStatus> {
        let segment = self.req.integrity_segments().next();
        let segment = segment.ok_or(BlkStatus::Inval)?;
        let (dev, dir, len) = (self.nvme.dev, self.req.dma_dir(), segment.len);
        let attrs = if iod.flags.contains(IodFlags::DATA_MMIO) {
            iod.flags |= IodFlags::META_MMIO;
            Attrs::MMIO
        } else {
            Attrs::empty()
        };
        let addr = self
            .dma
            .dma_map_phys(self.m, dev, segment.paddr, len.into(), dir, attrs)
            .map_err(|_| BlkStatus::IoErr)?;
        iod.cmd.mptr = MetadataPointer::Buffer(addr);
        iod.meta_total_len = len;
        Ok(())
    }

    /// `nvme_pci_setup_meta_mptr`: one segment of main memory, without an iterator.
    fn setup_meta_mptr(&mut self, iod: &mut Iod) -> Result<(), BlkStatus> {
        let mut segments = self.req.integrity_segments();
        let (Some(segment), None) = (segments.next(), segments.next()) else {
            // More than the queue's limits allow.
            return Err(BlkStatus::Inval);
        };
        let (dev, dir, len) = (self.nvme.dev, self.req.dma_dir(), segment.len);
        let addr = self
            .dma
            .dma_map_page(self.m, dev, segment.paddr, len.into(), dir, Attrs::empty())
            .map_err(|_| BlkStatus::IoErr)?;
        iod.cmd.mptr = MetadataPointer::Buffer(addr);
        iod.meta_total_len = len;
        iod.flags |= IodFlags::SINGLE_META_SEGMENT;
        Ok(())
    }

    /// `nvme_pci_setup_meta_iter`: peer memory, or more than one segment.
    fn setup_meta_iter(&mut self, source: Source, iod: &mut Iod) -> Result<(), BlkStatus> {
        let mut iter = BlkDmaIter::integrity(self.req);
        let mut vecs = Vec::new();
        let mapped = self.map_all(&mut iter, &mut iod.meta_dma_state, &mut vecs);
        let map = iter.map_type();
        iod.flags |= IodFlags::of(map) & IodFlags::META;
        iod.meta_total_len = vecs.iter().map(|v| v.len).sum();
        let sgl = self.takes_meta_sgl(iod);
        let done = mapped.and_then(|()| {
            // The length of a buffer is known from the format; a user's is not to be trusted.
            if let [one] = vecs[..]
                && !(source.user && sgl)
            {
                iod.cmd.mptr = MetadataPointer::Buffer(one.addr);
                return Ok(());
            }
            if !sgl {
                return Err(BlkStatus::Inval);
            }
            let block = self.dma_pool_alloc(true)?;
            iod.meta_descriptor = Some(block);
            let mut bytes = sgl_bytes(&vecs);
            if vecs.len() > 1 {
                let list = block.dma().offset(SGL_DESCRIPTOR as u64);
                bytes.splice(..0, sgl_last_segment(list, vecs.len()).to_bytes());
            }
            block.write(self.m, 0, &bytes)?;
            iod.cmd.mptr = MetadataPointer::Segment(block.dma());
            Ok(())
        });
        if done.is_err() {
            self.unmap_all(&mut iod.meta_dma_state, map, &vecs, iod.meta_total_len);
            self.free_meta_descriptor(iod);
        }
        done
    }

    /// `nvme_unmap_metadata`.
    pub(super) fn unmap_metadata(&mut self, iod: &mut Iod) {
        let total = iod.meta_total_len;
        let vecs = match (iod.cmd.mptr, iod.meta_descriptor) {
            (MetadataPointer::Buffer(addr), _) => vec![DmaVec { addr, len: total }],
            (_, Some(block)) => self.read_meta_sgl(&block),
            _ => Vec::new(),
        };
        if iod.flags.contains(IodFlags::SINGLE_META_SEGMENT) {
            let (dev, dir) = (self.nvme.dev, self.req.dma_dir());
            for v in vecs {
                self.dma
                    .dma_unmap_page(self.m, dev, v.addr, v.len.into(), dir, Attrs::empty());
            }
            return;
        }
        let map = iod.flags.map_type(IodFlags::META);
        self.unmap_all(&mut iod.meta_dma_state, map, &vecs, total);
        self.free_meta_descriptor(iod);
    }

    /// The descriptor that MPTR points to, or those behind it if it is a segment.
    fn read_meta_sgl(&mut self, block: &PoolBlock) -> Vec<DmaVec> {
        let mut first = [0; SGL_DESCRIPTOR];
        if block.read(self.m, 0, &mut first).is_err() {
            return Vec::new();
        }
        match SglDescriptor::from_bytes(&first) {
            Some(d) if d.kind == SglType::LastSegment => {
                self.read_sgl(block, SGL_DESCRIPTOR as u64, d.length)
            }
            _ => self.read_sgl(block, 0, SGL_DESCRIPTOR as u32),
        }
    }

    fn free_meta_descriptor(&mut self, iod: &mut Iod) {
        if let Some(block) = iod.meta_descriptor.take() {
            self.nvme.small.free(block);
        }
    }
}
