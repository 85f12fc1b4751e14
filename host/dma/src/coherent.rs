//! Coherent memory: allocated, mapped and kept.

use tlproof_pcie::{Bdf, Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    debug::{self, EntryType},
    device::{Backend, DeviceId},
    dma::Dma,
    error::{MapError, WarningKind, check_range},
    iommu::IommuDriver,
    iommu_dma::dma_info_to_prot,
    ledger::Api,
    machine::Machine,
    pages::{MAX_ORDER, PAGE_SIZE as PAGE, PagePool},
    trace::Event,
};

/// Where allocations take their memory from.
pub trait PageSource {
    /// Takes `size` contiguous bytes, a multiple of 4096, at a multiple of 4096 and with the last
    /// at most `limit`; `None` when there are none.
    fn take(&mut self, m: &mut dyn Machine, size: u64, limit: PhysAddr) -> Option<PhysAddr>;

    /// Takes back what [`PageSource::take`] gave.
    fn give_back(&mut self, phys: PhysAddr, size: u64);
}

impl PageSource for PagePool {
    fn take(&mut self, m: &mut dyn Machine, size: u64, limit: PhysAddr) -> Option<PhysAddr> {
        let order = size.div_ceil(PAGE).checked_next_power_of_two()?.ilog2();
        let order = u8::try_from(order).ok().filter(|o| *o <= MAX_ORDER)?;
        // The pool gives the lowest address that it has: when that is too high, all are.
        let phys = self.alloc(m, order)?;
        if phys.checked_add(size - 1).is_some_and(|end| end <= limit) {
            return Some(phys);
        }
        self.free(phys);
        None
    }

    fn give_back(&mut self, phys: PhysAddr, _size: u64) {
        self.free(phys);
    }
}

/// How the CPU reaches an allocation (`dma_pgprot`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuMapping {
    /// Through its caches: the device snoops.
    Cached,
    /// Uncached, stores joined (`WRITE_COMBINE` for a device that does not snoop).
    WriteCombine,
    /// Uncached.
    Uncached,
    /// Not at all: what `NO_KERNEL_MAPPING` gives back names the memory and is no address.
    None,
}

/// An allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coherent {
    /// Where the CPU finds it.
    pub phys: PhysAddr,
    /// Where the device finds it.
    pub dma: DmaAddr,
    /// Bytes asked for.
    pub size: u64,
    /// The CPU must access it uncached: the device does not snoop.
    pub uncached: bool,
    /// How the CPU reaches it.
    pub mapping: CpuMapping,
    owned: bool,
}

impl Coherent {
    /// A store of the CPU at `offset`, uncached when the device does not snoop.
    ///
    /// # Errors
    /// [`MapError::OutsideMemory`] when it does not fit, [`MapError::NoKernelMapping`] when the CPU
    /// has no mapping of the memory.
    pub fn write(&self, m: &mut dyn Machine, offset: u64, data: &[u8]) -> Result<(), MapError> {
        let phys = self.at(offset, data.len())?;
        let len = data.len() as u64;
        if self.uncached && len > 0 {
            // The machine has cached stores only: no old line before, none left behind.
            m.cache_invalidate(phys, len);
            m.mem_write(phys, data);
            m.cache_clean(phys, len);
            m.cache_invalidate(phys, len);
        } else {
            m.mem_write(phys, data);
        }
        Ok(())
    }

    /// A load of the CPU at `offset`, uncached when the device does not snoop.
    ///
    /// # Errors
    /// As [`Coherent::write`].
    pub fn read(&self, m: &mut dyn Machine, offset: u64, buf: &mut [u8]) -> Result<(), MapError> {
        let phys = self.at(offset, buf.len())?;
        if self.uncached && !buf.is_empty() {
            m.cache_invalidate(phys, buf.len() as u64);
        }
        m.mem_read(phys, buf);
        Ok(())
    }

    fn at(&self, offset: u64, len: usize) -> Result<PhysAddr, MapError> {
        if self.mapping == CpuMapping::None {
            return Err(MapError::NoKernelMapping);
        }
        offset
            .checked_add(len as u64)
            .filter(|end| *end <= self.size)
            .map(|_| self.phys.offset(offset))
            .ok_or(MapError::OutsideMemory)
    }
}

impl<I: IommuDriver> Dma<I> {
    /// `dma_alloc_coherent`: zeroed memory that CPU and device share.
    ///
    /// # Errors
    /// No memory, no IOVA, or a refusal of the page table.
    pub fn dma_alloc_coherent(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        size: u64,
    ) -> Result<Coherent, MapError> {
        self.dma_alloc_attrs(m, dev, size, Attrs::empty())
    }

    /// `dma_alloc_attrs`; the memory is contiguous with and without `FORCE_CONTIGUOUS`.
    ///
    /// # Errors
    /// As [`Dma::dma_alloc_coherent`].
    pub fn dma_alloc_attrs(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        size: u64,
        attrs: Attrs,
    ) -> Result<Coherent, MapError> {
        let d = self.device(dev)?;
        let limit = match d.backend {
            Backend::Iommu(_) => u64::MAX,
            _ => d.coherent_limit(),
        };
        let len = page_len(size)?;
        let pages = self.pages.as_mut();
        let phys = pages.and_then(|p| p.take(m, len, PhysAddr(limit)));
        let result = match phys {
            Some(phys) => self.alloc_at(m, dev, phys, size, attrs, true),
            None => Err(MapError::NoMemory),
        };
        if let (Err(_), Some(phys), Some(pages)) = (&result, phys, self.pages.as_mut()) {
            pages.give_back(phys, len);
        }
        self.trace_alloc(dev, size, attrs, &result);
        result
    }

    /// [`Dma::dma_alloc_attrs`] with the memory that the caller names, for the replay of a trace.
    ///
    /// # Errors
    /// As [`Dma::dma_alloc_coherent`]; the address must be a multiple of 4096 in main memory.
    pub fn dma_alloc_at(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        attrs: Attrs,
    ) -> Result<Coherent, MapError> {
        let result = self.alloc_at(m, dev, phys, size, attrs, false);
        self.trace_alloc(dev, size, attrs, &result);
        result
    }

    fn trace_alloc(
        &mut self,
        dev: DeviceId,
        size: u64,
        attrs: Attrs,
        result: &Result<Coherent, MapError>,
    ) {
        let Ok(bdf) = self.device(dev).map(|d| d.bdf) else {
            return;
        };
        let ok = result.as_ref().ok();
        self.trace.emit(|| Event::DmaAlloc {
            dev: bdf,
            phys: ok.map(|c| c.phys),
            dma: ok.map(|c| c.dma),
            size,
            dir: Direction::Bidirectional,
            attrs,
        });
        if let Some(c) = ok {
            let range = debug::Range {
                phys: c.phys,
                dma: c.dma,
                size,
                dir: Direction::Bidirectional,
                attrs,
            };
            self.debug_alloc(dev, EntryType::Coherent, range);
        }
    }

    fn alloc_at(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        attrs: Attrs,
        owned: bool,
    ) -> Result<Coherent, MapError> {
        let d = self.device(dev)?;
        let (coherent, backend, limit) = (d.coherent, d.backend, d.coherent_limit());
        let len = page_len(size)?;
        check_range(phys, len)?;
        if phys.offset_in(PAGE) != 0 || !m.memory_map().is_dram(phys, len) {
            return Err(MapError::NoMemory);
        }
        self.cpu_write(m, phys, &vec![0; len as usize]);
        if !coherent {
            // Written back and forgotten: from here on the CPU accesses it uncached.
            m.cache_clean(phys, len);
            m.cache_invalidate(phys, len);
        }
        let dma = match backend {
            Backend::Iommu(_) => {
                let prot = dma_info_to_prot(Direction::Bidirectional, coherent, attrs);
                self.iommu_dma_map_range(m, dev, phys, len, prot, limit)?
            }
            _ => self
                .coherent_dma(dev, phys, len)
                .filter(|dma| dma.0.checked_add(len - 1).is_some_and(|end| end <= limit))
                .ok_or(MapError::NoMemory)?,
        };
        let segment = self.segment(dev, dma, phys, size, None, attrs);
        let dir = Direction::Bidirectional;
        self.promise(m, dev, vec![segment], dir, attrs, Api::Coherent);
        Ok(Coherent {
            phys,
            dma,
            size,
            uncached: !coherent,
            mapping: self.cpu_mapping(dev, attrs),
            owned,
        })
    }

    /// Address of an allocation that is not translated: a machine address under Xen; memory is
    /// decrypted for a device whose every mapping is bounced (`force_dma_unencrypted`).
    fn coherent_dma(&self, dev: DeviceId, phys: PhysAddr, len: u64) -> Option<DmaAddr> {
        let d = self.device(dev).ok()?;
        match d.backend {
            Backend::Xen if !self.frames.contiguous(phys, len) => None,
            Backend::Xen => d.phys_to_dma(self.frames.to_machine(phys)),
            _ if self.force_bounce(d) => d.phys_to_dma_unencrypted(phys),
            _ => d.phys_to_dma(phys),
        }
    }

    fn cpu_mapping(&self, dev: DeviceId, attrs: Attrs) -> CpuMapping {
        let Ok(d) = self.device(dev) else {
            return CpuMapping::None;
        };
        if attrs.contains(Attrs::NO_KERNEL_MAPPING)
            && d.backend.is_direct()
            && !self.force_bounce(d)
        {
            CpuMapping::None
        } else if d.coherent {
            CpuMapping::Cached
        } else if attrs.contains(Attrs::WRITE_COMBINE) {
            CpuMapping::WriteCombine
        } else {
            CpuMapping::Uncached
        }
    }

    /// What is freed is not there; its pages are not given back a second time.
    pub(crate) fn warn_not_allocated(&mut self, bdf: Bdf, dma: DmaAddr) {
        self.warn(WarningKind::NotMapped, Some(bdf), || {
            format!("free of {dma}, where nothing is allocated")
        });
    }

    /// `dma_free_attrs`.
    pub fn dma_free_attrs(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        memory: Coherent,
        attrs: Attrs,
    ) {
        if !self.is_there(dev) {
            return;
        }
        let Ok(d) = self.device(dev) else { return };
        let (bdf, backend) = (d.bdf, d.backend);
        let (dma, size) = (memory.dma, memory.size);
        let Ok(len) = page_len(size) else { return };
        let (phys, dir) = (memory.phys, Direction::Bidirectional);
        self.trace.at(m.now());
        self.trace.emit(|| Event::DmaFree {
            dev: bdf,
            phys,
            dma,
            size,
            dir,
            attrs,
        });
        let range = debug::Range {
            phys,
            dma,
            size,
            dir,
            attrs,
        };
        self.debug_unmap(dev, EntryType::Coherent, range);
        let found = self.ledger.remove(dev, dma, size, dir, attrs);
        if found.is_none() {
            self.warn_not_allocated(bdf, dma);
            return;
        }
        self.drain(found);
        if matches!(backend, Backend::Iommu(_)) {
            self.iommu_dma_unmap_range(m, dev, dma, len);
        }
        if memory.owned
            && let Some(pages) = self.pages.as_mut()
        {
            pages.give_back(memory.phys, len);
        }
    }
}

pub(crate) fn page_len(size: u64) -> Result<u64, MapError> {
    if size == 0 {
        return Err(MapError::ZeroSize);
    }
    size.checked_next_multiple_of(PAGE).ok_or(MapError::Wraps)
}

#[cfg(test)]
mod tests;
