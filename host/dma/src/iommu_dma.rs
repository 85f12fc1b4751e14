//! Back end with a translation (`dma-iommu`).

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    device::DeviceId,
    dma::Dma,
    error::{MapError, WarningKind},
    iommu::{Gather, IommuDriver, IommuError, Prot},
    machine::Machine,
    trace::Event,
};

/// `dma_info_to_prot`: never `NOEXEC`, never `CACHE` together with `MMIO`.
#[must_use]
pub fn dma_info_to_prot(dir: Direction, coherent: bool, attrs: Attrs) -> Prot {
    let mmio = attrs.contains(Attrs::MMIO);
    let mut prot = Prot::empty();
    let cache = if mmio { mutant!(M1 | M2) } else { coherent };
    prot.set(Prot::MMIO, mmio && !mutant!(M1 | M3));
    prot.set(Prot::CACHE, cache);
    prot.set(Prot::PRIV, attrs.contains(Attrs::PRIVILEGED));
    prot.set(Prot::READ, dir.device_reads());
    prot.set(Prot::WRITE, dir.device_writes() || mutant!(M37));
    prot
}

impl<I: IommuDriver> Dma<I> {
    /// `iommu_map`, with its event.
    pub(crate) fn iommu_map(
        &mut self,
        m: &mut dyn Machine,
        index: usize,
        iova: u64,
        phys: PhysAddr,
        size: u64,
        prot: Prot,
    ) -> Result<(), IommuError> {
        let domain = self.domains[index].id;
        let iommu = self.iommu.as_mut().ok_or(IommuError::NoDevice)?;
        let result = iommu.map(m, domain, iova, phys, size, prot);
        self.trace.at(m.now());
        self.trace.emit(|| Event::IommuMap {
            domain,
            iova,
            phys,
            size,
            prot,
            ok: result.is_ok(),
        });
        result
    }

    /// `iommu_unmap_fast`, with its event and the check of what was removed.
    pub(crate) fn iommu_unmap_fast(
        &mut self,
        m: &mut dyn Machine,
        index: usize,
        iova: u64,
        size: u64,
        gather: &mut Gather,
    ) {
        let domain = self.domains[index].id;
        let Some(iommu) = self.iommu.as_mut() else {
            return;
        };
        let unmapped = iommu.unmap(m, domain, iova, size, gather);
        self.trace.at(m.now());
        self.trace.emit(|| Event::IommuUnmap {
            domain,
            iova,
            size,
            unmapped,
        });
        if unmapped != size {
            self.warn(WarningKind::UnmapSize, None, || {
                format!("unmapped {unmapped} bytes of {size} at IOVA {iova:#x}")
            });
        }
    }

    /// `iommu_iotlb_sync`: when it returns, the fence is complete.
    pub(crate) fn iotlb_sync(&mut self, m: &mut dyn Machine, index: usize, gather: Gather) {
        let domain = self.domains[index].id;
        let range = gather.range;
        let Some(iommu) = self.iommu.as_mut() else {
            return;
        };
        if let Err(e) = iommu.iotlb_sync(m, domain, gather) {
            self.warn(WarningKind::Iommu, None, || format!("iotlb_sync: {e}"));
        }
        self.trace.at(m.now());
        self.trace.emit(|| Event::IotlbSync { domain, range });
    }

    /// `iommu_dma_alloc_iova`: a PCI device stays below 4 GiB until that fails once.
    pub(crate) fn alloc_iova(
        &mut self,
        index: usize,
        dev: DeviceId,
        size: u64,
        limit: u64,
    ) -> Result<u64, MapError> {
        const MASK32: u64 = 0xffff_ffff;
        let d = self.device(dev)?;
        let (bdf, workaround) = (
            d.bdf,
            d.pci && d.pci_32bit_workaround && !self.config.forcedac,
        );
        let cpu = self.cpu;
        let domain = &mut self.domains[index];
        let id = domain.id;
        let granule = domain.iova.granule();
        let shift = granule.trailing_zeros();
        let top = match (limit, domain.end) {
            (0, end) => end,
            (limit, end) => limit.min(end),
        };
        let count = size >> shift;
        let mut pfn = None;
        let mut left_32bit = false;
        if top > MASK32 && workaround {
            pfn = domain.iova.alloc_fast(cpu, count, MASK32 >> shift, false);
            left_32bit = pfn.is_none();
        }
        if pfn.is_none() {
            pfn = domain.iova.alloc_fast(cpu, count, top >> shift, true);
        }
        let iova = pfn.map(|p| p << shift);
        if left_32bit {
            self.device_mut(dev)?.pci_32bit_workaround = false;
            self.warn(WarningKind::Dac, Some(bdf), || {
                format!(
                    "Using {}-bit DMA addresses",
                    u64::BITS - limit.leading_zeros()
                )
            });
        }
        self.trace.emit(|| Event::IovaAlloc {
            domain: id,
            dev: bdf,
            size,
            limit,
            iova,
        });
        iova.ok_or(MapError::NoIova)
    }

    /// `iommu_dma_free_iova` without a flush queue: the range can be reused at once.
    pub(crate) fn free_iova(&mut self, index: usize, iova: u64, size: u64) {
        let cpu = self.cpu;
        let domain = &mut self.domains[index];
        let id = domain.id;
        let shift = domain.iova.granule().trailing_zeros();
        domain.iova.free_fast(cpu, iova >> shift, size >> shift);
        self.trace.emit(|| Event::IovaDofree {
            domain: id,
            iova,
            size,
        });
    }

    /// `queue_iova`: the range waits for a flush of the domain.
    fn queue_iova(
        &mut self,
        m: &mut dyn Machine,
        index: usize,
        iova: u64,
        size: u64,
        gather: Gather,
    ) {
        let cpu = self.cpu;
        if mutant!(M32) {
            return self.free_iova(index, iova, size);
        }
        self.trace_dofree(index, iova, size);
        self.release_flushed(m, index, cpu);
        if self.domains[index]
            .fq
            .as_ref()
            .is_some_and(|fq| fq.full(cpu))
        {
            self.flush_iotlb_all(m, index);
            self.release_flushed(m, index, cpu);
        }
        let now = m.now();
        let domain = &mut self.domains[index];
        let shift = domain.iova.granule().trailing_zeros();
        if let Some(fq) = &mut domain.fq {
            fq.push(cpu, now, iova >> shift, size >> shift, gather.freelist);
        }
    }

    fn trace_dofree(&mut self, index: usize, iova: u64, size: u64) {
        let domain = self.domains[index].id;
        self.trace.emit(|| Event::IovaDofree { domain, iova, size });
    }

    fn flush_iotlb_all(&mut self, m: &mut dyn Machine, index: usize) {
        if let Some(fq) = &mut self.domains[index].fq {
            fq.begin();
        }
        self.invalidate_all(m, index);
    }

    /// The second half of `fq_flush_iotlb`.
    fn invalidate_all(&mut self, m: &mut dyn Machine, index: usize) {
        let id = self.domains[index].id;
        let Some(iommu) = self.iommu.as_mut() else {
            return;
        };
        match iommu.flush_all(m, id) {
            Ok(()) => {
                if let Some(fq) = &mut self.domains[index].fq {
                    fq.finish();
                }
                self.ledger.flushed(id);
                self.trace.emit(|| Event::FlushAll { domain: id });
            }
            // Not flushed: nothing that waits may be reused.
            Err(e) => self.warn(WarningKind::Iommu, None, || format!("flush_iotlb_all: {e}")),
        }
    }

    /// Frees what a finished flush covers in the ring of one CPU.
    fn release_flushed(&mut self, m: &mut dyn Machine, index: usize, cpu: usize) {
        let Some(fq) = &mut self.domains[index].fq else {
            return;
        };
        let flushed = fq.take_flushed(cpu);
        let id = self.domains[index].id;
        let here = self.cpu;
        for p in flushed {
            if !p.freelist.is_empty()
                && let Some(iommu) = self.iommu.as_mut()
            {
                // Nothing is left to invalidate; the driver takes its table pages back.
                let gather = Gather {
                    freelist: p.freelist,
                    ..Gather::default()
                };
                if let Err(e) = iommu.iotlb_sync(m, id, gather) {
                    self.warn(WarningKind::Iommu, None, || format!("iotlb_sync: {e}"));
                }
            }
            self.domains[index].iova.free_fast(here, p.pfn, p.pages);
        }
    }

    /// `fq_flush_timeout`: flushes a domain and frees what all CPUs queued.
    pub(crate) fn flush_domain(&mut self, m: &mut dyn Machine, index: usize) {
        if let Some(fq) = &mut self.domains[index].fq {
            fq.begin();
        }
        self.flush_begun(m, index);
    }

    /// The same for a flush that has been counted as begun.
    pub(crate) fn flush_begun(&mut self, m: &mut dyn Machine, index: usize) {
        self.invalidate_all(m, index);
        let cpus = self.domains[index].fq.as_ref().map_or(0, |fq| fq.cpus());
        for cpu in 0..cpus {
            self.release_flushed(m, index, cpu);
        }
    }

    /// `__iommu_dma_map`: the offset in the granule is kept, so the granule's neighbours become
    /// visible to the device.
    pub(crate) fn iommu_dma_map_range(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        prot: Prot,
        limit: u64,
    ) -> Result<DmaAddr, MapError> {
        let index = self.domain_index(dev).ok_or(MapError::NoDevice)?;
        let d = self.device(dev)?;
        let (bdf, min_align_mask) = (d.bdf, d.min_align_mask);
        let iovad = &self.domains[index].iova;
        let granule = iovad.granule();
        if min_align_mask > granule - 1 {
            self.warn(WarningKind::AlignConstraint, Some(bdf), || {
                "Unsupported alignment constraint".to_owned()
            });
            return Err(MapError::AlignConstraint);
        }
        let offset = phys.offset_in(granule);
        let len = size
            .checked_add(offset)
            .and_then(|n| n.checked_next_multiple_of(granule))
            .ok_or(MapError::Wraps)?;
        let iova = self.alloc_iova(index, dev, len, limit)?;
        if let Err(e) = self.iommu_map(m, index, iova, phys.align_down(granule), len, prot) {
            self.free_iova(index, iova, len);
            return Err(e.into());
        }
        Ok(DmaAddr(iova + offset))
    }

    /// `__iommu_dma_unmap`.
    pub(crate) fn iommu_dma_unmap_range(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
    ) {
        let Some(index) = self.domain_index(dev) else {
            return;
        };
        let iovad = &self.domains[index].iova;
        let offset = iovad.offset(dma.0);
        let iova = dma.0 - offset;
        let Some(len) = size
            .checked_add(offset)
            .and_then(|n| n.checked_next_multiple_of(iovad.granule()))
        else {
            return;
        };
        let mut gather = Gather::default();
        self.iommu_unmap_fast(m, index, iova, len, &mut gather);
        self.retire_iova(m, index, iova, len, gather);
    }

    /// Gives unmapped IOVA back: after an invalidation, or through the flush queue.
    pub(crate) fn retire_iova(
        &mut self,
        m: &mut dyn Machine,
        index: usize,
        iova: u64,
        len: u64,
        gather: Gather,
    ) {
        if self.domains[index].fq.is_some() {
            self.queue_iova(m, index, iova, len, gather);
        } else {
            self.iotlb_sync(m, index, gather);
            self.free_iova(index, iova, len);
        }
    }

    /// `dev_use_swiotlb`: whether unaligned buffers of this size are bounced.
    pub(crate) fn dev_use_swiotlb(&self, dev: DeviceId, size: u64, dir: Direction) -> bool {
        self.device(dev).is_ok_and(|d| d.untrusted) || self.kmalloc_needs_bounce(dev, size, dir)
    }

    /// `iommu_dma_map_swiotlb`: bounces into whole granules.
    pub(crate) fn iommu_dma_bounce(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        attrs: Attrs,
    ) -> Result<PhysAddr, MapError> {
        let index = self.domain_index(dev).ok_or(MapError::NoDevice)?;
        let d = self.device(dev)?;
        let (bdf, untrusted) = (d.bdf, d.untrusted);
        if self.swiotlb.is_none() {
            self.warn(WarningKind::SwiotlbInactive, Some(bdf), || {
                "DMA bounce buffers are inactive, unable to map unaligned transaction.".to_owned()
            });
            return Err(MapError::SwiotlbInactive);
        }
        let granule = self.domains[index].iova.granule();
        let tlb = self.swiotlb_map(m, dev, phys, size, granule - 1, attrs)?;
        if untrusted && !mutant!(M10) {
            self.swiotlb_zero_padding(m, tlb, size, granule);
        }
        Ok(tlb)
    }

    /// `iommu_dma_map_phys`. The second value is the bounce slot, if there is one.
    pub(crate) fn iommu_map_phys(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<(DmaAddr, Option<PhysAddr>), MapError> {
        let index = self.domain_index(dev).ok_or(MapError::NoDevice)?;
        let d = self.device(dev)?;
        let (coherent, limit) = (d.coherent, d.limit());
        let mmio = attrs.contains(Attrs::MMIO);
        let unaligned = self.domains[index].iova.offset(phys.0 | size) != 0;
        let mut slot = None;
        let device_memory = mmio && !mutant!(M8);
        if !device_memory && unaligned && self.dev_use_swiotlb(dev, size, dir) && !mutant!(M9) {
            if attrs.contains(Attrs::REQUIRE_COHERENT) && !mutant!(M24) {
                return Err(MapError::WouldBounce);
            }
            slot = Some(self.iommu_dma_bounce(m, dev, phys, size, attrs)?);
        }
        let target = slot.unwrap_or(phys);
        if !coherent && !attrs.intersects(Attrs::SKIP_CPU_SYNC | Attrs::MMIO) || mmio && mutant!(M4)
        {
            self.arch_sync_for_device(m, target, size, dir);
        }
        let prot = dma_info_to_prot(dir, coherent, attrs);
        match self.iommu_dma_map_range(m, dev, target, size, prot, limit) {
            Ok(dma) => Ok((dma, slot)),
            Err(e) => {
                if let Some(tlb) = slot {
                    self.swiotlb_unmap(m, dev, tlb, size, dir, attrs);
                }
                Err(e)
            }
        }
    }

    /// `iommu_iova_to_phys` for a device.
    pub(crate) fn iova_to_phys(
        &self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
    ) -> Option<PhysAddr> {
        let index = self.domain_index(dev)?;
        self.iommu
            .as_ref()?
            .iova_to_phys(m, self.domains[index].id, dma.0)
    }

    /// `iommu_dma_unmap_phys`: cache, translation, invalidation, and only then the copy out.
    pub(crate) fn iommu_unmap_phys(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) {
        if attrs.intersects(Attrs::MMIO | Attrs::REQUIRE_COHERENT) {
            if mutant!(M5)
                && let Some(phys) = self.iova_to_phys(m, dev, dma)
            {
                self.arch_sync_for_cpu(m, phys, size, dir);
            }
            self.iommu_dma_unmap_range(m, dev, dma, size);
            return;
        }
        let Ok(d) = self.device(dev) else { return };
        let (bdf, coherent) = (d.bdf, d.coherent);
        let Some(phys) = self.iova_to_phys(m, dev, dma) else {
            self.warn(WarningKind::NotMapped, Some(bdf), || {
                format!("unmap of {dma}, which is not mapped")
            });
            return;
        };
        if mutant!(M7a) {
            self.swiotlb_unmap(m, dev, phys, size, dir, attrs);
        }
        if !coherent && !attrs.contains(Attrs::SKIP_CPU_SYNC) {
            self.arch_sync_for_cpu(m, phys, size, dir);
        }
        self.iommu_dma_unmap_range(m, dev, dma, size);
        if !mutant!(M7a) {
            self.swiotlb_unmap(m, dev, phys, size, dir, attrs);
        }
    }
}

#[cfg(test)]
mod tests;
