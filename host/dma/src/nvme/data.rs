//! The data of a request.

use tlproof_pcie::DmaAddr;

use super::{
    CTRL_PAGE, DataPointer, Iod, IodFlags, Job, Queue, SMALL_DESCRIPTOR, Source,
    job::{sgl_bytes, sgl_data, sgl_last_segment},
    prp,
};
use crate::{
    attrs::Attrs,
    block::{BlkDmaIter, BlkStatus, DmaVec, Pgmap},
    error::WarningKind,
    iommu::IommuDriver,
    p2pdma::MapType,
};

/// Whether SGLs may or must be used (`enum nvme_use_sgl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UseSgl {
    Unsupported,
    Supported,
    Forced,
}

impl<I: IommuDriver> Job<'_, I> {
    /// `nvme_pci_use_sgls`.
    fn use_sgls(&self, source: Source) -> UseSgl {
        if source.queue == Queue::Admin || !self.nvme.ctrl.sgls {
            return UseSgl::Unsupported;
        }
        let gap = self.req.phys_gap_mask() & (CTRL_PAGE - 1) != 0;
        if gap || source.user || self.req.nr_integrity_segments() > 1 {
            UseSgl::Forced
        } else {
            UseSgl::Supported
        }
    }

    /// `nvme_map_data`.
    pub(super) fn map_data(&mut self, source: Source, iod: &mut Iod) -> Result<(), BlkStatus> {
        let sgl = self.use_sgls(source);
        if self.req.nr_phys_segments() == 1 && self.setup_data_simple(sgl, iod)? {
            return Ok(());
        }
        let mut iter = BlkDmaIter::data(self.req);
        let mut vecs = Vec::new();
        let mapped = self.map_all(&mut iter, &mut iod.dma_state, &mut vecs);
        let map = iter.map_type();
        iod.flags |= IodFlags::of(map) & IodFlags::DATA;
        iod.total_len = vecs.iter().map(|v| v.len).sum();

        // Coalesced, the average is that of one segment.
        let average = iod.total_len.div_ceil(vecs.len().max(1) as u32);
        let threshold = self.nvme.ctrl.sgl_threshold;
        let as_sgl = match sgl {
            UseSgl::Unsupported => false,
            UseSgl::Supported => threshold != 0 && average >= threshold,
            UseSgl::Forced => true,
        };
        let done = mapped.and_then(|()| {
            if as_sgl {
                self.setup_data_sgl(&vecs, iod)
            } else {
                self.setup_data_prp(&vecs, iod)
            }
        });
        if done.is_err() {
            self.unmap_all(&mut iod.dma_state, map, &vecs, iod.total_len);
            self.free_descriptors(iod);
        } else if !as_sgl
            && !iod.dma_state.uses_iova()
            && map != MapType::BusAddr
            && self.dma.dma_need_unmap(self.nvme.dev)
        {
            // A PRP list does not tell where a segment ends.
            iod.dma_vecs = vecs;
        }
        done
    }

    /// `nvme_pci_setup_data_simple`: one segment of main memory, without an iterator. False when it
    /// takes one.
    fn setup_data_simple(&mut self, sgl: UseSgl, iod: &mut Iod) -> Result<bool, BlkStatus> {
        let Some(segment) = self.req.segments().next() else {
            return Ok(false);
        };
        let offset = segment.paddr.offset_in(CTRL_PAGE);
        let len = u64::from(segment.len);
        let prp_possible = offset + len <= 2 * CTRL_PAGE;
        if self.req.pgmap() != Pgmap::Ram || (sgl == UseSgl::Unsupported && !prp_possible) {
            return Ok(false);
        }
        let (dev, dir) = (self.nvme.dev, self.req.dma_dir());
        let addr = self
            .dma
            .dma_map_page(self.m, dev, segment.paddr, len, dir, Attrs::empty())
            .map_err(|_| BlkStatus::Resource)?;
        iod.total_len = segment.len;
        iod.flags |= IodFlags::SINGLE_SEGMENT;
        iod.cmd.dptr = if sgl == UseSgl::Forced || !prp_possible {
            DataPointer::Sgl(sgl_data(DmaVec {
                addr,
                len: segment.len,
            }))
        } else {
            let first = CTRL_PAGE - offset;
            DataPointer::Prp {
                prp1: addr,
                prp2: if len > first {
                    addr.offset(first)
                } else {
                    DmaAddr(0)
                },
            }
        };
        Ok(true)
    }

    /// `nvme_pci_setup_data_sgl`: a descriptor in the command, or a list of them.
    fn setup_data_sgl(&mut self, vecs: &[DmaVec], iod: &mut Iod) -> Result<(), BlkStatus> {
        if let [one] = vecs {
            iod.cmd.dptr = DataPointer::Sgl(sgl_data(*one));
            return Ok(());
        }
        let bytes = sgl_bytes(vecs);
        let small = bytes.len() as u64 <= SMALL_DESCRIPTOR;
        iod.flags.set(IodFlags::SMALL_DESCRIPTOR, small);
        let list = self.dma_pool_alloc(small)?;
        iod.descriptors.push(list);
        list.write(self.m, 0, &bytes)?;
        iod.cmd.dptr = DataPointer::Sgl(sgl_last_segment(list.dma(), vecs.len()));
        Ok(())
    }

    /// `nvme_pci_setup_data_prp`.
    fn setup_data_prp(&mut self, vecs: &[DmaVec], iod: &mut Iod) -> Result<(), BlkStatus> {
        let entries = prp::entries(vecs);
        let Some((prp1, rest)) = entries.as_deref().and_then(<[_]>::split_first) else {
            let (payload, nents) = (self.req.payload_bytes(), self.req.nr_phys_segments());
            let bdf = self.dma.device(self.nvme.dev).map(|d| d.bdf).ok();
            self.dma.warn(WarningKind::PrpSegment, bdf, || {
                format!("Invalid SGL for payload:{payload} nents:{nents}")
            });
            return Err(BlkStatus::IoErr);
        };
        let defects = self.nvme.defects;
        let prp2 = match rest {
            [] => DmaAddr(0),
            [page, others @ ..]
                if (others.is_empty() && !defects.prp2_is_list)
                    || defects.prp2_is_data
                    || mutant!(M40b) =>
            {
                *page
            }
            _ => self.write_prp_lists(rest, iod)?,
        };
        iod.cmd.dptr = DataPointer::Prp { prp1: *prp1, prp2 };
        Ok(())
    }

    /// Writes the list pages; returns the address of the first.
    fn write_prp_lists(&mut self, rest: &[DmaAddr], iod: &mut Iod) -> Result<DmaAddr, BlkStatus> {
        let small = rest.len() as u64 * 8 <= SMALL_DESCRIPTOR;
        iod.flags.set(IodFlags::SMALL_DESCRIPTOR, small);
        let mut lists = prp::lists(rest);
        if self.nvme.defects.chain_entry_lost || mutant!(M40a) {
            for list in lists.iter_mut().skip(1) {
                *list = &list[1..];
            }
        }
        for _ in &lists {
            let block = self.dma_pool_alloc(small)?;
            iod.descriptors.push(block);
        }
        for (i, (list, block)) in lists.iter().zip(&iod.descriptors).enumerate() {
            let next = iod.descriptors.get(i + 1).map(|b| b.dma());
            let bytes: Vec<u8> = list
                .iter()
                .chain(&next)
                .flat_map(|a| a.0.to_le_bytes())
                .collect();
            block.write(self.m, 0, &bytes)?;
        }
        Ok(iod.descriptors[0].dma())
    }

    /// `nvme_unmap_data`.
    pub(super) fn unmap_data(&mut self, iod: &mut Iod) {
        if iod.flags.contains(IodFlags::SINGLE_SEGMENT) {
            let addr = match iod.cmd.dptr {
                DataPointer::Prp { prp1, .. } => prp1,
                DataPointer::Sgl(d) => d.addr,
            };
            let (dev, dir, len) = (self.nvme.dev, self.req.dma_dir(), iod.total_len.into());
            self.dma
                .dma_unmap_page(self.m, dev, addr, len, dir, Attrs::empty());
            return;
        }
        let vecs = match iod.cmd.dptr {
            DataPointer::Prp { .. } => std::mem::take(&mut iod.dma_vecs),
            DataPointer::Sgl(d) => match iod.descriptors.first().copied() {
                Some(list) => self.read_sgl(&list, 0, d.length),
                None => vec![DmaVec {
                    addr: d.addr,
                    len: d.length,
                }],
            },
        };
        let map = iod.flags.map_type(IodFlags::DATA);
        self.unmap_all(&mut iod.dma_state, map, &vecs, iod.total_len);
        self.free_descriptors(iod);
    }

    /// `nvme_free_descriptors`.
    fn free_descriptors(&mut self, iod: &mut Iod) {
        let small = iod.flags.contains(IodFlags::SMALL_DESCRIPTOR);
        for block in iod.descriptors.drain(..) {
            if small {
                self.nvme.small.free(block);
            } else {
                self.nvme.large.free(block);
            }
        }
    }
}
