//! The DMA API of a machine: its devices, IOMMU domains, bounce pool and peers.

use tlproof_pcie::{Bdf, Direction, DmaAddr, Range};

use crate::{
    attrs::Attrs,
    coherent::PageSource,
    debug::{self, Areas, DmaDebug},
    device::{Attach, Backend, Device, DeviceId},
    error::{MapError, WarningKind, Warnings},
    flush_queue::FlushQueue,
    iommu::{DomainId, IommuDriver},
    iova::IovaDomain,
    kmsan::Kmsan,
    ledger::{Ledger, Mapping},
    machine::Machine,
    p2pdma::P2pdma,
    profile::{Profile, Quirks},
    swiotlb::{SlotRule, Swiotlb},
    trace::Trace,
    xen::FrameMap,
};

/// What is the same for all devices.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which Linux.
    pub quirks: Quirks,
    /// CPUs, each with its own IOVA cache and flush queue.
    pub cpus: usize,
    /// Machine cycles of a millisecond, for the timers.
    pub cycles_per_ms: u64,
    /// `iommu.forcedac`: no attempt below 4 GiB first.
    pub forcedac: bool,
    /// `ARCH_DMA_MINALIGN` of a kernel with `CONFIG_DMA_BOUNCE_UNALIGNED_KMALLOC`: small buffers
    /// that a non-coherent device writes are bounced. `None` without the option.
    pub kmalloc_minalign: Option<u64>,
    /// IOVAs never handed out: the bridge's windows and the IOMMU's reserved regions, inclusive.
    pub reserved: Vec<(u64, u64)>,
    /// `CONFIG_DMA_API_DEBUG`: every call is compared with the mappings there are.
    pub debug: Option<debug::Options>,
    /// `CONFIG_KMSAN`: what a device would read and nobody has written is reported.
    pub kmsan: bool,
}

impl Config {
    /// A profile on two CPUs, 100 000 cycles a millisecond (100 MHz).
    #[must_use]
    pub const fn new(profile: Profile) -> Self {
        Self {
            quirks: profile.quirks(),
            cpus: 2,
            cycles_per_ms: 100_000,
            forcedac: false,
            kmalloc_minalign: None,
            reserved: Vec::new(),
            debug: None,
            kmsan: false,
        }
    }

    /// Also keeps the PCIe window `range`, as bus addresses, out of the IOVA space: no IOVA may be
    /// claimed by a switch as a peer's address.
    #[must_use]
    pub fn reserve_window(mut self, range: Range, bus_offset: u64) -> Self {
        self.reserved.push((
            range.base.0.wrapping_sub(bus_offset),
            range.last.0.wrapping_sub(bus_offset),
        ));
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new(Profile::default())
    }
}

/// A DMA domain: translation, IOVA space and flush queue.
#[derive(Debug)]
pub(crate) struct DmaDomain {
    pub(crate) id: DomainId,
    pub(crate) iova: IovaDomain,
    pub(crate) fq: Option<FlushQueue>,
    /// Last IOVA.
    pub(crate) end: u64,
}

/// The DMA API. Its methods have the kernel's names where the kernel has the function.
pub struct Dma<I> {
    pub(crate) config: Config,
    pub(crate) iommu: Option<I>,
    /// By ID; `None` for one that was removed.
    pub(crate) devices: Vec<Option<Device>>,
    pub(crate) domains: Vec<DmaDomain>,
    pub(crate) swiotlb: Option<Swiotlb>,
    pub(crate) pages: Option<Box<dyn PageSource>>,
    pub(crate) ledger: Ledger,
    pub(crate) warnings: Warnings,
    pub(crate) debug: Option<Box<DmaDebug>>,
    pub(crate) kmsan: Option<Box<Kmsan>>,
    pub(crate) cpu: usize,
    pub(crate) last_trim: u64,
    /// Main memory, known from the first device on.
    pub(crate) ram: Vec<Range>,
    /// Machine frames of a Xen guest.
    pub frames: FrameMap,
    /// Number of the last state of the two-step API.
    pub(crate) last_state: u64,
    /// Providers of peer-to-peer memory.
    pub p2pdma: P2pdma,
    /// What memory is used for, as far as rules ask.
    pub areas: Areas,
    /// Record of events, off at first.
    pub trace: Trace,
}

impl<I: IommuDriver> Dma<I> {
    /// An API without devices; `iommu` is the driver of the unit that they are behind.
    #[must_use]
    pub fn new(config: Config, iommu: Option<I>) -> Self {
        let debug = config.debug.clone().map(|o| Box::new(DmaDebug::new(o)));
        let kmsan = config.kmsan.then(Box::default);
        Self {
            config,
            iommu,
            devices: Vec::new(),
            domains: Vec::new(),
            swiotlb: None,
            pages: None,
            ledger: Ledger::default(),
            warnings: Warnings::default(),
            debug,
            kmsan,
            cpu: 0,
            last_trim: 0,
            ram: Vec::new(),
            frames: FrameMap::default(),
            last_state: 0,
            p2pdma: P2pdma::default(),
            areas: Areas::default(),
            trace: Trace::default(),
        }
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The IOMMU driver.
    pub const fn iommu_mut(&mut self) -> Option<&mut I> {
        self.iommu.as_mut()
    }

    /// The IOMMU driver.
    #[must_use]
    pub const fn iommu(&self) -> Option<&I> {
        self.iommu.as_ref()
    }

    /// Gives the API a bounce pool.
    pub fn set_swiotlb(&mut self, pool: Swiotlb) {
        self.swiotlb = Some(pool);
    }

    /// The bounce pool.
    #[must_use]
    pub const fn swiotlb(&self) -> Option<&Swiotlb> {
        self.swiotlb.as_ref()
    }

    /// Gives the API pages for [`Dma::dma_alloc_attrs`].
    pub fn set_pages(&mut self, pages: Box<dyn PageSource>) {
        self.pages = Some(pages);
    }

    /// Says on which CPU the following calls run.
    pub const fn set_cpu(&mut self, cpu: usize) {
        self.cpu = cpu;
        self.trace.on_cpu(cpu);
    }

    /// Warnings so far.
    #[must_use]
    pub const fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// Adds a device and attaches it; [`Dma::remove_device`] is the way back.
    ///
    /// # Errors
    /// [`MapError::Exists`] for a Requester ID that a device has; the IOMMU refuses or there is
    /// none.
    pub fn add_device(
        &mut self,
        m: &mut dyn Machine,
        mut device: Device,
        attach: Attach,
    ) -> Result<DeviceId, MapError> {
        if self.find_device(device.bdf).is_some() {
            return Err(MapError::Exists(device.bdf));
        }
        let attach = match attach {
            Attach::Strict | Attach::Lazy if self.config.quirks.identity_only => Attach::Identity,
            other => other,
        };
        device.backend = match attach {
            Attach::Direct => Backend::Direct,
            Attach::Xen => Backend::Xen,
            Attach::Identity => {
                let iommu = self.iommu.as_mut().ok_or(MapError::NoDevice)?;
                iommu.attach(m, device.bdf, None)?;
                Backend::Identity
            }
            Attach::Strict | Attach::Lazy => {
                // Deferred invalidation would let an untrusted device keep its access.
                let lazy = attach == Attach::Lazy && !device.untrusted;
                let index = self.domain_alloc(m, lazy, &device)?;
                self.domain_attach(m, device.bdf, index)?;
                Backend::Iommu(index)
            }
            Attach::With(other) => {
                let backend = self.device(other)?.backend;
                match backend {
                    Backend::Iommu(index) => self.domain_attach(m, device.bdf, index)?,
                    Backend::Identity => {
                        let iommu = self.iommu.as_mut().ok_or(MapError::NoDevice)?;
                        iommu.attach(m, device.bdf, None)?;
                    }
                    Backend::Direct | Backend::Xen => {}
                }
                backend
            }
        };
        device.skip_sync = self.may_skip_sync(&device);
        device.pci_32bit_workaround = true;
        self.ram.clone_from(&m.memory_map().dram);
        self.devices.push(Some(device));
        Ok(DeviceId(self.devices.len() - 1))
    }

    /// `dma_setup_need_sync`: whether syncs can be skipped, until something is bounced.
    fn may_skip_sync(&self, device: &Device) -> bool {
        device.coherent && device.backend != Backend::Xen && self.config.debug.is_none()
    }

    fn domain_alloc(
        &mut self,
        m: &mut dyn Machine,
        lazy: bool,
        device: &Device,
    ) -> Result<usize, MapError> {
        let iommu = self.iommu.as_mut().ok_or(MapError::NoDevice)?;
        let id = iommu.domain_alloc(m)?;
        let (start, end) = iommu.aperture(id);
        let shift = iommu.page_sizes(id).trailing_zeros();
        if shift > 31 {
            iommu.domain_free(m, id);
            return Err(MapError::AlignConstraint);
        }
        let mut iova = IovaDomain::new(shift, start >> shift, self.config.cpus);
        for (first, last) in &self.config.reserved {
            iova.reserve(*first, *last);
        }
        for (first, last) in device.dma_range_gaps() {
            iova.reserve(first, last);
        }
        let (cpus, ms) = (self.config.cpus, self.config.cycles_per_ms);
        let fq = lazy.then(|| match device.shadow_on_flush {
            true => FlushQueue::single(ms),
            false => FlushQueue::per_cpu(cpus, ms),
        });
        let domain = DmaDomain { id, iova, fq, end };
        // One that its last device has left makes room.
        if let Some(index) = (0..self.domains.len()).find(|i| !self.is_used(*i)) {
            self.domains[index] = domain;
            return Ok(index);
        }
        self.domains.push(domain);
        Ok(self.domains.len() - 1)
    }

    fn domain_attach(
        &mut self,
        m: &mut dyn Machine,
        bdf: Bdf,
        index: usize,
    ) -> Result<(), MapError> {
        let id = self.domains[index].id;
        let iommu = self.iommu.as_mut().ok_or(MapError::NoDevice)?;
        Ok(iommu.attach(m, bdf, Some(id))?)
    }

    /// A device.
    ///
    /// # Errors
    /// [`MapError::NoDevice`] for an ID of another [`Dma`] or of a device that was removed.
    pub fn device(&self, dev: DeviceId) -> Result<&Device, MapError> {
        let device = self.devices.get(dev.0).and_then(Option::as_ref);
        device.ok_or(MapError::NoDevice)
    }

    /// Whether there is the device of a call that has no error to return; if not, that is warned
    /// about and the call does nothing.
    pub(crate) fn is_there(&mut self, dev: DeviceId) -> bool {
        let there = self.device(dev).is_ok();
        if !there {
            self.warn(WarningKind::NoDevice, None, || {
                format!("a call for device {}, which is not there", dev.0)
            });
        }
        there
    }

    pub(crate) fn device_mut(&mut self, dev: DeviceId) -> Result<&mut Device, MapError> {
        let device = self.devices.get_mut(dev.0).and_then(Option::as_mut);
        device.ok_or(MapError::NoDevice)
    }

    /// The device with a Requester ID.
    #[must_use]
    pub fn find_device(&self, bdf: Bdf) -> Option<DeviceId> {
        let is_it = |d: &Option<Device>| d.as_ref().is_some_and(|d| d.bdf == bdf);
        self.devices.iter().position(is_it).map(DeviceId)
    }

    /// The domain that a device is attached to, `None` when it is not translated.
    #[must_use]
    pub fn domain_of(&self, dev: DeviceId) -> Option<DomainId> {
        match self.device(dev).ok()?.backend {
            Backend::Iommu(i) => self.domains.get(i).map(|d| d.id),
            _ => None,
        }
    }

    /// `dma_set_mask`: also decides anew whether syncs can be skipped.
    ///
    /// # Errors
    /// [`MapError::NoMask`] for a device without one, [`MapError::MaskTooSmall`] as for
    /// [`Dma::dma_set_coherent_mask`].
    pub fn dma_set_mask(&mut self, dev: DeviceId, mask: u64) -> Result<(), MapError> {
        if self.device(dev)?.dma_mask.is_none() {
            return Err(MapError::NoMask);
        }
        self.dma_supported(dev, mask)?;
        let skip = self.may_skip_sync(self.device(dev)?);
        let d = self.device_mut(dev)?;
        d.dma_mask = Some(mask);
        d.skip_sync = skip;
        Ok(())
    }

    /// `dma_set_coherent_mask`.
    ///
    /// # Errors
    /// [`MapError::MaskTooSmall`] for a mask of less than 32 bits that does not reach all of main
    /// memory, when no IOMMU helps.
    pub fn dma_set_coherent_mask(&mut self, dev: DeviceId, mask: u64) -> Result<(), MapError> {
        self.dma_supported(dev, mask)?;
        let d = self.device_mut(dev)?;
        d.coherent_dma_mask = mask;
        Ok(())
    }

    /// `dma_supported`: with 32 bits a device is always served, from low memory or by bouncing.
    fn dma_supported(&self, dev: DeviceId, mask: u64) -> Result<(), MapError> {
        let d = self.device(dev)?;
        let translated = matches!(d.backend, Backend::Iommu(_));
        if translated || mask >= 0xffff_ffff || self.last_ram(d).is_some_and(|a| mask >= a) {
            Ok(())
        } else {
            Err(MapError::MaskTooSmall(mask))
        }
    }

    /// DMA address of the last byte of main memory; `None` when it is outside of every DMA range.
    fn last_ram(&self, d: &Device) -> Option<u64> {
        let last = self.ram.iter().map(|r| r.last).max()?;
        Some(d.phys_to_dma_unencrypted(last)?.0)
    }

    /// `dma_addressing_limited`: whether the device does not reach all of main memory.
    #[must_use]
    pub fn dma_addressing_limited(&self, dev: DeviceId) -> bool {
        let Ok(d) = self.device(dev) else { return true };
        match d.backend {
            // Translated addresses need 32 bits.
            Backend::Iommu(_) => d.limit() < 0xffff_ffff,
            _ => self.ram.iter().any(|r| {
                [r.base, r.last]
                    .into_iter()
                    .any(|phys| d.phys_to_dma(phys).is_none_or(|dma| dma.0 > d.limit()))
            }),
        }
    }

    /// `dma_set_min_align_mask`.
    ///
    /// # Errors
    /// No such device.
    pub fn dma_set_min_align_mask(&mut self, dev: DeviceId, mask: u64) -> Result<(), MapError> {
        let d = self.device_mut(dev)?;
        d.min_align_mask = mask;
        Ok(())
    }

    /// `dma_set_max_seg_size` in bytes.
    ///
    /// # Errors
    /// No such device.
    pub fn dma_set_max_seg_size(&mut self, dev: DeviceId, size: u64) -> Result<(), MapError> {
        let d = self.device_mut(dev)?;
        d.max_segment_size = size;
        Ok(())
    }

    /// `dma_need_unmap`: whether the driver must unmap at all.
    #[must_use]
    pub fn dma_need_unmap(&self, dev: DeviceId) -> bool {
        self.device(dev)
            .is_ok_and(|d| !d.backend.is_direct() || d.need_sync() || self.config.debug.is_some())
    }

    /// A driver is done with the mapping at `dma` and makes no call, as it may where
    /// [`Dma::dma_need_unmap`] is false: only the record of the mapping goes. Elsewhere nothing
    /// happens and the result is false.
    pub fn dma_unmap_not_needed(
        &mut self,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    ) -> bool {
        !self.dma_need_unmap(dev)
            && self
                .ledger
                .remove(dev, dma, size, dir, Attrs::empty())
                .is_some()
    }

    /// `dma_get_merge_boundary`: granule less 1 behind an IOMMU, 0 without merging.
    #[must_use]
    pub fn dma_get_merge_boundary(&self, dev: DeviceId) -> u64 {
        self.domain_index(dev)
            .map_or(0, |i| self.domains[i].iova.granule() - 1)
    }

    /// `dma_max_mapping_size` in bytes.
    #[must_use]
    pub fn dma_max_mapping_size(&self, dev: DeviceId) -> u64 {
        let Ok(d) = self.device(dev) else { return 0 };
        let bounces = match d.backend {
            Backend::Iommu(_) => d.untrusted,
            Backend::Xen => self.swiotlb.is_some(),
            _ => {
                self.swiotlb.is_some() && (self.dma_addressing_limited(dev) || self.force_bounce(d))
            }
        };
        if bounces {
            Swiotlb::max_mapping_size(d.min_align_mask)
        } else {
            u64::MAX
        }
    }

    /// `dma_opt_mapping_size` in bytes: what the IOVA caches hold.
    #[must_use]
    pub fn dma_opt_mapping_size(&self, dev: DeviceId) -> u64 {
        let max = self.dma_max_mapping_size(dev);
        self.domain_index(dev)
            .map_or(max, |i| max.min(self.domains[i].iova.granule() << 5))
    }

    pub(crate) fn domain_index(&self, dev: DeviceId) -> Option<usize> {
        match self.device(dev).ok()?.backend {
            Backend::Iommu(i) => Some(i),
            _ => None,
        }
    }

    /// `is_swiotlb_force_bounce`.
    pub(crate) fn force_bounce(&self, d: &Device) -> bool {
        d.force_bounce || self.swiotlb.as_ref().is_some_and(|s| s.force)
    }

    pub(crate) fn slot_rule(&self, d: &Device, alloc_align_mask: u64) -> SlotRule {
        SlotRule {
            min_align_mask: d.min_align_mask,
            alloc_align_mask,
            seg_boundary: d.seg_boundary,
            dma_offset: d
                .dma_ranges
                .first()
                .map_or(0, |r| r.dma_start.0.wrapping_sub(r.cpu_start.0)),
        }
    }

    /// The promise that a live mapping made about the byte at `dma`.
    #[must_use]
    pub fn describe(&self, dev: DeviceId, dma: DmaAddr) -> Option<Mapping> {
        self.ledger.find(dev, dma).cloned()
    }

    /// All live mappings, by device and address; equal ones once.
    pub fn live(&self) -> impl Iterator<Item = &Mapping> {
        self.ledger.live()
    }

    /// Mappings whose translation is gone from the table and not yet flushed from the caches.
    #[must_use]
    pub fn draining(&self) -> &[Mapping] {
        self.ledger.draining()
    }

    /// Lets the timers run: flushes queues whose 10 ms are over and, every 100 ms, trims the IOVA
    /// depots. The API never looks at the time by itself.
    pub fn tick(&mut self, m: &mut dyn Machine) {
        let now = m.now();
        for i in 0..self.domains.len() {
            let expired = self.domains[i]
                .fq
                .as_mut()
                .is_some_and(|fq| fq.expired(now));
            if expired {
                self.flush_domain(m, i);
            }
        }
        if now.saturating_sub(self.last_trim) >= self.config.cycles_per_ms.saturating_mul(100) {
            self.last_trim = now;
            for d in &mut self.domains {
                d.iova.trim_depots();
            }
        }
    }

    /// The flush queue timer of a device's domain has run out: what is queued from here on waits
    /// for the next flush. [`Dma::flush_end`] follows.
    pub fn flush_begin(&mut self, dev: DeviceId) {
        if let Some(i) = self.domain_index(dev)
            && let Some(fq) = &mut self.domains[i].fq
        {
            fq.begin();
        }
    }

    /// The flush that [`Dma::flush_begin`] began: the domain is invalidated, and this CPU frees
    /// what had been queued on any.
    pub fn flush_end(&mut self, m: &mut dyn Machine, dev: DeviceId) {
        if let Some(i) = self.domain_index(dev)
            && self.domains[i].fq.is_some()
        {
            self.flush_begun(m, i);
        }
    }

    /// Flushes every queue now.
    pub fn flush_queues(&mut self, m: &mut dyn Machine) {
        for i in 0..self.domains.len() {
            if self.domains[i].fq.is_some() {
                self.flush_domain(m, i);
            }
        }
    }

    /// Unmapped ranges that wait for a flush, over all domains.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.domains
            .iter()
            .filter_map(|d| d.fq.as_ref())
            .map(FlushQueue::pending)
            .sum()
    }

    pub(crate) fn warn(
        &mut self,
        kind: WarningKind,
        device: Option<Bdf>,
        text: impl FnOnce() -> String,
    ) {
        self.warnings.warn(kind, device, text);
    }
}

#[cfg(test)]
mod tests;
