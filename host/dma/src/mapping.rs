//! `dma_map_phys` and its wrappers.

use tlproof_pcie::{Direction, DmaAddr, MemType, PhysAddr};

use crate::{
    attrs::Attrs,
    debug::{self, Area, EntryType},
    device::{Backend, DeviceId},
    dma::Dma,
    error::{MapError, WarningKind, check_range},
    iommu::IommuDriver,
    ledger::{Api, Expected, Mapping, Route, Segment},
    machine::Machine,
    trace::Event,
};

impl<I: IommuDriver> Dma<I> {
    /// `dma_map_phys`: makes `size` bytes at `phys` accessible to a device.
    ///
    /// # Errors
    /// See [`MapError`]; the kernel returns `DMA_MAPPING_ERROR` for all of them.
    pub fn dma_map_phys(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<DmaAddr, MapError> {
        let dma = self.map_unchecked(m, dev, phys, size, dir, attrs)?;
        self.debug_mapping_error(dev, dma);
        Ok(dma)
    }

    /// [`Dma::dma_map_phys`] for callers of whom it is not known whether they look at the result.
    pub(crate) fn map_unchecked(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<DmaAddr, MapError> {
        let effective = self.honoured(attrs);
        self.map(m, dev, phys, size, dir, attrs, effective)
    }

    /// `dma_unmap_phys`: takes the access back. Direction and attributes are those of the map.
    pub fn dma_unmap_phys(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) {
        let effective = self.honoured(attrs);
        self.unmap(m, dev, dma, size, dir, attrs, effective);
    }

    /// `dma_map_page_attrs`: memory only.
    ///
    /// # Errors
    /// [`MapError::MmioThroughPage`] for MMIO, else as [`Dma::dma_map_phys`].
    pub fn dma_map_page(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        page: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<DmaAddr, MapError> {
        if attrs.contains(Attrs::MMIO) {
            return Err(MapError::MmioThroughPage);
        }
        if self.config.debug.is_some() && self.is_zone_device(page) {
            let bdf = self.device(dev)?.bdf;
            self.warn(WarningKind::ZoneDevice, Some(bdf), || {
                format!("page of a device at {page} in dma_map_page")
            });
            return Err(MapError::ZoneDevice);
        }
        self.dma_map_phys(m, dev, page, size, dir, attrs)
    }

    /// `dma_map_single_attrs`: memory of the direct map; undone by [`Dma::dma_unmap_page`].
    ///
    /// # Errors
    /// [`MapError::Vmalloc`] for memory that the CPU reaches through `vmalloc`, else as
    /// [`Dma::dma_map_page`].
    pub fn dma_map_single(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        buffer: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<DmaAddr, MapError> {
        if self.areas.is(Area::Vmalloc, buffer) {
            let bdf = self.device(dev)?.bdf;
            self.warn(WarningKind::Vmalloc, Some(bdf), || {
                "rejecting DMA map of vmalloc memory".to_owned()
            });
            return Err(MapError::Vmalloc);
        }
        self.debug_map_single(m, dev, buffer, size);
        self.dma_map_page(m, dev, buffer, size, dir, attrs)
    }

    /// `dma_unmap_page_attrs`: does nothing with MMIO, so that the mapping leaks.
    pub fn dma_unmap_page(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) {
        if !attrs.contains(Attrs::MMIO) {
            self.dma_unmap_phys(m, dev, dma, size, dir, attrs);
        }
    }

    /// `dma_map_resource`: device memory, without asking whether the device reaches it.
    ///
    /// # Errors
    /// As [`Dma::dma_map_phys`].
    pub fn dma_map_resource(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<DmaAddr, MapError> {
        let attrs = attrs | Attrs::MMIO;
        let dma = self.map(m, dev, phys, size, dir, attrs, attrs)?;
        self.debug_mapping_error(dev, dma);
        Ok(dma)
    }

    /// `dma_unmap_resource`.
    pub fn dma_unmap_resource(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) {
        let attrs = attrs | Attrs::MMIO;
        self.unmap(m, dev, dma, size, dir, attrs, attrs);
    }

    /// The attributes that the back ends get to see.
    pub(crate) fn honoured(&self, attrs: Attrs) -> Attrs {
        if self.config.quirks.mmio_ignored {
            attrs - Attrs::MMIO
        } else {
            attrs
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the arguments of dma_map_phys and one more"
    )]
    fn map(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
        effective: Attrs,
    ) -> Result<DmaAddr, MapError> {
        let d = self.device(dev)?;
        let (bdf, backend) = (d.bdf, d.backend);
        check_range(phys, size)?;
        if d.dma_mask.is_none() {
            self.warn(WarningKind::NoMask, Some(bdf), || "no DMA mask".to_owned());
            return Err(MapError::NoMask);
        }
        if attrs.contains(Attrs::REQUIRE_COHERENT) && !d.coherent {
            if mutant!(M43b) {
                let dma = None;
                self.trace.emit(|| Event::DmaMapPhys {
                    dev: bdf,
                    phys,
                    dma,
                    size,
                    dir,
                    attrs,
                });
            }
            return Err(MapError::NotCoherent);
        }
        let result = match backend {
            Backend::Direct | Backend::Identity => {
                self.direct_map(m, dev, phys, size, dir, effective)
            }
            _ if attrs.contains(Attrs::CC_SHARED) => return Err(MapError::CcShared),
            Backend::Xen => self.xen_map(m, dev, phys, size, dir, effective),
            Backend::Iommu(_) => self.iommu_map_phys(m, dev, phys, size, dir, effective),
        };
        if !effective.contains(Attrs::MMIO) {
            self.kmsan_handle_dma(phys, size, dir);
        }
        self.trace.at(m.now());
        if result.is_ok() || !mutant!(M43a) {
            self.trace.emit(|| Event::DmaMapPhys {
                dev: bdf,
                phys,
                dma: result.as_ref().ok().map(|(dma, _)| *dma),
                size,
                dir,
                attrs,
            });
        }
        let (dma, slot) = result?;
        let range = debug::Range {
            phys,
            dma,
            size,
            dir,
            attrs,
        };
        self.debug_map_phys(m, dev, range);
        let segment = self.segment(dev, dma, phys, size, slot, effective);
        self.promise(m, dev, vec![segment], dir, attrs, Api::Phys);
        Ok(dma)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the arguments of dma_unmap_phys and one more"
    )]
    fn unmap(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
        effective: Attrs,
    ) {
        if !self.is_there(dev) {
            return;
        }
        let Ok(d) = self.device(dev) else { return };
        let (bdf, backend) = (d.bdf, d.backend);
        self.trace.at(m.now());
        let range = debug::Range {
            phys: PhysAddr(0),
            dma,
            size,
            dir,
            attrs,
        };
        if size == 0 || dma.checked_add(size - 1).is_none() {
            self.warn(WarningKind::UnmapSize, Some(bdf), || {
                format!("unmap of {size} bytes at {dma}")
            });
            self.debug_unmap(dev, EntryType::Phy, range);
            return;
        }
        let found = self.ledger.remove(dev, dma, size, dir, attrs);
        // Until the flush of the queue the device may still get through.
        self.drain(found);
        match backend {
            Backend::Direct | Backend::Identity => {
                self.direct_unmap(m, dev, dma, size, dir, effective);
            }
            _ if attrs.contains(Attrs::CC_SHARED) => return,
            Backend::Xen => self.xen_unmap(m, dev, dma, size, dir, effective),
            Backend::Iommu(_) => self.iommu_unmap_phys(m, dev, dma, size, dir, effective),
        }
        self.trace.emit(|| Event::DmaUnmapPhys {
            dev: bdf,
            dma,
            size,
            dir,
            attrs,
        });
        self.debug_unmap(dev, EntryType::Phy, range);
    }

    /// Keeps what was unmapped in mind until its domain is flushed, if it has a flush queue.
    pub(crate) fn drain(&mut self, mappings: impl IntoIterator<Item = Mapping>) {
        for mapping in mappings {
            let queued = self
                .domains
                .iter()
                .any(|d| Some(d.id) == mapping.domain && d.fq.is_some());
            if queued && mapping.route != Route::BusAddress {
                self.ledger.drain(mapping);
            }
        }
    }

    /// One piece of a mapping: where requests for it end up.
    pub(crate) fn segment(
        &self,
        dev: DeviceId,
        dma: DmaAddr,
        phys: PhysAddr,
        len: u64,
        slot: Option<PhysAddr>,
        attrs: Attrs,
    ) -> Segment {
        let target = slot.unwrap_or(phys);
        let xen = self.device(dev).is_ok_and(|d| d.backend == Backend::Xen);
        Segment {
            dma,
            target: if xen && !attrs.contains(Attrs::MMIO) {
                self.frames.to_machine(target)
            } else {
                target
            },
            len,
            bounced: slot.map(|_| phys),
        }
    }

    /// Notes what a mapping promises. Nothing here depends on quirks: this is what the hardware
    /// has to do, not what the API told it.
    pub(crate) fn promise(
        &mut self,
        m: &dyn Machine,
        dev: DeviceId,
        segments: Vec<Segment>,
        dir: Direction,
        attrs: Attrs,
        api: Api,
    ) {
        let Some(first) = segments.first().copied() else {
            return;
        };
        let Ok(d) = self.device(dev) else { return };
        let index = self.domain_index(dev);
        let buffer = first.bounced.unwrap_or(first.target);
        let device_memory =
            attrs.contains(Attrs::MMIO) || !m.memory_map().is_dram(buffer, first.len);
        let mapping = Mapping {
            device: d.bdf,
            dma: first.dma,
            size: segments.iter().map(|s| s.len).sum(),
            dir,
            attrs,
            api,
            domain: index.map(|i| self.domains[i].id),
            route: if m.memory_map().is_dram(buffer, first.len) {
                Route::Memory
            } else {
                Route::ThroughBridge
            },
            expected: expected(device_memory, index.is_some(), d.coherent),
            segments,
            granule: index.map_or(1, |i| self.domains[i].iova.granule()),
        };
        self.ledger.insert(dev, mapping);
    }

    /// `dma_sync_single_for_cpu`: the CPU will read what the device wrote.
    pub fn dma_sync_single_for_cpu(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    ) {
        if !self.is_there(dev) {
            return;
        }
        let Ok(d) = self.device(dev) else { return };
        let bdf = d.bdf;
        if !d.need_sync() {
            return;
        }
        self.sync_for_cpu(m, dev, dma, size, dir);
        self.trace.at(m.now());
        self.trace.emit(|| Event::SyncSingleForCpu {
            dev: bdf,
            dma,
            size,
            dir,
        });
        self.debug_sync(dev, dma, size, dir, true);
    }

    /// `dma_sync_single_for_device`: the device will access what the CPU wrote.
    pub fn dma_sync_single_for_device(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    ) {
        if !self.is_there(dev) {
            return;
        }
        let Ok(d) = self.device(dev) else { return };
        let bdf = d.bdf;
        if !d.need_sync() {
            return;
        }
        self.sync_for_device(m, dev, dma, size, dir);
        self.trace.at(m.now());
        self.trace.emit(|| Event::SyncSingleForDevice {
            dev: bdf,
            dma,
            size,
            dir,
        });
        self.debug_sync(dev, dma, size, dir, false);
    }

    /// The physical address behind a DMA address, and whether caches need maintenance; `None`
    /// when there is nothing to do.
    fn sync_target(
        &self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    ) -> Option<(PhysAddr, bool)> {
        let d = self.device(dev).ok()?;
        let phys = match d.backend {
            Backend::Iommu(_) => {
                if d.coherent && !self.dev_use_swiotlb(dev, size, dir) {
                    return None;
                }
                self.iova_to_phys(m, dev, dma)?
            }
            Backend::Xen => self.xen_dma_to_phys(dev, dma)?,
            _ => d.dma_to_phys(dma)?,
        };
        (size > 0 && phys.checked_add(size - 1).is_some()).then_some((phys, !d.coherent))
    }

    pub(crate) fn sync_for_cpu(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    ) {
        if let Some((phys, maintain)) = self.sync_target(m, dev, dma, size, dir) {
            if maintain {
                self.arch_sync_for_cpu(m, phys, size, dir);
            }
            if dir.device_writes() {
                self.swiotlb_sync(m, dev, phys, size, false);
            }
        }
    }

    pub(crate) fn sync_for_device(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    ) {
        if let Some((phys, maintain)) = self.sync_target(m, dev, dma, size, dir) {
            if mutant!(M7b) && maintain {
                self.arch_sync_for_device(m, phys, size, dir);
            }
            if dir.device_reads() {
                self.swiotlb_sync(m, dev, phys, size, true);
            }
            if maintain && !mutant!(M7b) {
                self.arch_sync_for_device(m, phys, size, dir);
            }
        }
    }
}

/// The intended memory type. Without translation nothing but the address says what a request is
/// for, so a non-coherent device's snooping is the bridge's choice.
const fn expected(device_memory: bool, translated: bool, coherent: bool) -> Expected {
    match (device_memory, translated, coherent) {
        (true, _, _) => Expected {
            mem_type: MemType::Device,
            snoop: Some(false),
        },
        (false, true, false) => Expected {
            mem_type: MemType::NonCacheable,
            snoop: Some(false),
        },
        (false, _, true) => Expected {
            mem_type: MemType::WriteBack,
            snoop: Some(true),
        },
        (false, false, false) => Expected {
            mem_type: MemType::WriteBack,
            snoop: None,
        },
    }
}

#[cfg(test)]
mod tests;
