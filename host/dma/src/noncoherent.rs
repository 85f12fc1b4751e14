//! Memory that is allocated and mapped and is not kept coherent: whoever hands it over calls
//! `dma_sync_*`, as for a streaming mapping.

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    coherent::page_len,
    debug::{self, EntryType},
    device::{Backend, DeviceId},
    dma::Dma,
    error::MapError,
    iommu::{Gather, IommuDriver},
    iommu_dma::dma_info_to_prot,
    ledger::{Api, Segment},
    machine::Machine,
    pages::PAGE_SIZE as PAGE,
    sg::SgEntry,
    trace::Event,
};

/// What [`Dma::dma_alloc_pages`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Where the CPU finds it.
    pub phys: PhysAddr,
    /// Where the device finds it.
    pub dma: DmaAddr,
    /// Bytes asked for.
    pub size: u64,
    /// Who reads and writes.
    pub dir: Direction,
}

/// What [`Dma::dma_alloc_noncontiguous`] gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noncontiguous {
    /// The list: buffers of whole pages, and one segment for the device in the first entry.
    pub sg: Vec<SgEntry>,
    /// Bytes asked for.
    pub size: u64,
    /// Who reads and writes.
    pub dir: Direction,
    attrs: Attrs,
    /// Blocks as the page source gave them.
    blocks: Vec<(PhysAddr, u64)>,
}

impl Noncontiguous {
    /// Where the device finds all of it.
    #[must_use]
    pub fn dma(&self) -> DmaAddr {
        self.sg.first().map_or(DmaAddr(u64::MAX), |s| s.dma_address)
    }
}

impl<I: IommuDriver> Dma<I> {
    /// `dma_alloc_pages`: zeroed, contiguous pages. The zeros are the CPU's until a
    /// `dma_sync_single_for_device`.
    ///
    /// # Errors
    /// No memory that the device reaches, no IOVA, or a refusal of the page table.
    pub fn dma_alloc_pages(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        size: u64,
        dir: Direction,
    ) -> Result<Pages, MapError> {
        let bdf = self.device(dev)?.bdf;
        let result = self.alloc_pages(m, dev, size, dir);
        let (phys, dma) = result.map_or((None, None), |p| (Some(p.phys), Some(p.dma)));
        let attrs = Attrs::empty();
        self.trace.emit(|| Event::DmaAllocPages {
            dev: bdf,
            phys,
            dma,
            size,
            dir,
            attrs,
        });
        let pages = result?;
        self.debug_alloc(dev, EntryType::Noncoherent, range(&pages));
        Ok(pages)
    }

    fn alloc_pages(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        size: u64,
        dir: Direction,
    ) -> Result<Pages, MapError> {
        let len = page_len(size)?;
        let d = self.device(dev)?;
        let (backend, limit) = (d.backend, d.coherent_limit());
        let reach = match backend {
            Backend::Iommu(_) => u64::MAX,
            _ => limit,
        };
        let phys = self.take_zeroed(m, len, reach)?;
        let dma = match backend {
            Backend::Iommu(_) => {
                let skip = Attrs::SKIP_CPU_SYNC;
                let mapped = self.iommu_map_phys(m, dev, phys, len, dir, skip);
                mapped.map(|(dma, _)| dma)
            }
            _ => {
                let d = self.device(dev)?;
                d.phys_to_dma(phys)
                    .filter(|dma| dma.checked_add(len - 1).is_some_and(|end| end.0 <= limit))
                    .ok_or(MapError::NoMemory)
            }
        };
        let dma = match dma {
            Ok(dma) => dma,
            Err(e) => {
                self.give_back(phys, len);
                return Err(e);
            }
        };
        let segment = Segment {
            dma,
            target: phys,
            len: size,
            bounced: None,
        };
        let api = Api::Noncoherent;
        self.promise(m, dev, vec![segment], dir, Attrs::empty(), api);
        Ok(Pages {
            phys,
            dma,
            size,
            dir,
        })
    }

    /// `dma_free_pages`.
    pub fn dma_free_pages(&mut self, m: &mut dyn Machine, dev: DeviceId, pages: Pages) {
        if !self.is_there(dev) {
            return;
        }
        let Ok(d) = self.device(dev) else { return };
        let (bdf, backend) = (d.bdf, d.backend);
        let Pages {
            phys,
            dma,
            size,
            dir,
        } = pages;
        let Ok(len) = page_len(size) else { return };
        let attrs = Attrs::empty();
        self.trace.emit(|| Event::DmaFreePages {
            dev: bdf,
            phys,
            dma,
            size,
            dir,
            attrs,
        });
        self.debug_unmap(dev, EntryType::Noncoherent, range(&pages));
        let Some(found) = self.ledger.remove(dev, dma, size, dir, attrs) else {
            self.warn_not_allocated(bdf, dma);
            return;
        };
        self.drain([found]);
        if matches!(backend, Backend::Iommu(_)) {
            self.iommu_dma_unmap_range(m, dev, dma, len);
        }
        self.give_back(phys, len);
    }

    /// `dma_alloc_noncontiguous`: zeroed pages from anywhere that follow each other for the device.
    /// Without an IOMMU they are contiguous.
    ///
    /// # Errors
    /// As [`Dma::dma_alloc_pages`].
    pub fn dma_alloc_noncontiguous(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<Noncontiguous, MapError> {
        let bdf = self.device(dev)?.bdf;
        let memory = match self.alloc_noncontiguous(m, dev, size, dir, attrs) {
            Ok(memory) => memory,
            Err(e) => {
                self.trace.emit(|| Event::DmaAllocSgtErr {
                    dev: bdf,
                    size,
                    dir,
                    attrs,
                });
                return Err(e);
            }
        };
        self.trace.emit(|| Event::DmaAllocSgt {
            dev: bdf,
            phys: memory.sg.iter().map(|s| s.phys).collect(),
            dma: memory.dma(),
            size,
            dir,
            attrs,
        });
        self.debug_map_sg(dev, &memory.sg, 1, dir, attrs);
        Ok(memory)
    }

    fn alloc_noncontiguous(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<Noncontiguous, MapError> {
        let len = page_len(size)?;
        let Some(index) = self.domain_index(dev) else {
            let pages = self.alloc_pages(m, dev, size, dir)?;
            return Ok(noncontiguous(
                vec![(pages.phys, len)],
                pages.dma,
                size,
                (dir, attrs),
            ));
        };
        let mut blocks = Vec::new();
        let iova = self.map_blocks(m, dev, index, len, (dir, attrs), &mut blocks);
        let iova = match iova {
            Ok(iova) => iova,
            Err(e) => {
                for (phys, len) in blocks {
                    self.give_back(phys, len);
                }
                return Err(e);
            }
        };
        let memory = noncontiguous(blocks, DmaAddr(iova), size, (dir, attrs));
        let mut at = 0;
        let segments = memory.sg.iter().map(|s| {
            let segment = Segment {
                dma: DmaAddr(iova + at),
                target: s.phys,
                len: s.length.min(size - at),
                bounced: None,
            };
            at += s.length;
            segment
        });
        let segments = segments.collect();
        self.promise(m, dev, segments, dir, attrs, Api::Noncoherent);
        Ok(memory)
    }

    /// Takes pages one by one and maps each; notes what there is to give back on a failure, and
    /// takes the translation back itself.
    fn map_blocks(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        index: usize,
        len: u64,
        (dir, attrs): (Direction, Attrs),
        blocks: &mut Vec<(PhysAddr, u64)>,
    ) -> Result<u64, MapError> {
        let d = self.device(dev)?;
        let (coherent, limit) = (d.coherent, d.coherent_limit());
        let prot = dma_info_to_prot(dir, coherent, attrs);
        for _ in 0..len / PAGE {
            blocks.push((self.take_zeroed(m, PAGE, u64::MAX)?, PAGE));
        }
        let iova = self.alloc_iova(index, dev, len, limit)?;
        let mut mapped = 0;
        for (phys, size) in runs(blocks) {
            if let Err(e) = self.iommu_map(m, index, iova + mapped, phys, size, prot) {
                if mapped > 0 {
                    let mut gather = Gather::default();
                    self.iommu_unmap_fast(m, index, iova, mapped, &mut gather);
                    self.iotlb_sync(m, index, gather);
                }
                self.free_iova(index, iova, len);
                return Err(e.into());
            }
            mapped += size;
        }
        Ok(iova)
    }

    /// `dma_free_noncontiguous`.
    pub fn dma_free_noncontiguous(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        memory: Noncontiguous,
    ) {
        if !self.is_there(dev) {
            return;
        }
        let Ok(bdf) = self.device(dev).map(|d| d.bdf) else {
            return;
        };
        let (dma, size, dir) = (memory.dma(), memory.size, memory.dir);
        let Ok(len) = page_len(size) else { return };
        self.trace.emit(|| Event::DmaFreeSgt {
            dev: bdf,
            phys: memory.sg.iter().map(|s| s.phys).collect(),
            dma,
            size,
            dir,
        });
        self.debug_unmap_sg(dev, &memory.sg, dir, memory.attrs);
        let Some(found) = self.ledger.remove(dev, dma, size, dir, memory.attrs) else {
            self.warn_not_allocated(bdf, dma);
            return;
        };
        self.drain([found]);
        if self.domain_index(dev).is_some() {
            self.iommu_dma_unmap_range(m, dev, dma, len);
        }
        for (phys, len) in memory.blocks {
            self.give_back(phys, len);
        }
    }

    fn take_zeroed(
        &mut self,
        m: &mut dyn Machine,
        len: u64,
        limit: u64,
    ) -> Result<PhysAddr, MapError> {
        let pages = self.pages.as_mut();
        let phys = pages
            .and_then(|p| p.take(m, len, PhysAddr(limit)))
            .ok_or(MapError::NoMemory)?;
        self.cpu_write(m, phys, &vec![0; len as usize]);
        Ok(phys)
    }

    fn give_back(&mut self, phys: PhysAddr, len: u64) {
        if let Some(pages) = self.pages.as_mut() {
            pages.give_back(phys, len);
        }
    }
}

const fn range(p: &Pages) -> debug::Range {
    debug::Range {
        phys: p.phys,
        dma: p.dma,
        size: p.size,
        dir: p.dir,
        attrs: Attrs::empty(),
    }
}

/// Blocks that follow each other, joined (`sg_alloc_table_from_pages`).
fn runs(blocks: &[(PhysAddr, u64)]) -> Vec<(PhysAddr, u64)> {
    let mut runs: Vec<(PhysAddr, u64)> = Vec::new();
    for (phys, len) in blocks {
        match runs.last_mut() {
            Some((start, size)) if start.0 + *size == phys.0 => *size += len,
            _ => runs.push((*phys, *len)),
        }
    }
    runs
}

fn noncontiguous(
    blocks: Vec<(PhysAddr, u64)>,
    dma: DmaAddr,
    size: u64,
    (dir, attrs): (Direction, Attrs),
) -> Noncontiguous {
    let buffers = runs(&blocks).into_iter();
    let mut sg: Vec<_> = buffers.map(|(p, len)| SgEntry::new(p, len)).collect();
    if let Some(first) = sg.first_mut() {
        first.dma_address = dma;
        first.dma_length = size;
    }
    Noncontiguous {
        sg,
        size,
        dir,
        attrs,
        blocks,
    }
}

#[cfg(test)]
mod tests;
