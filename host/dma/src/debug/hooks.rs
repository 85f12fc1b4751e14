//! Where the DMA API calls the tracker. Each of these returns at once when it is off.

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    device::{Device, DeviceId},
    dma::Dma,
    error::{MapError, WarningKind},
    iommu::IommuDriver,
    machine::Machine,
    sg::SgEntry,
};

use super::{Areas, DmaDebug, Entry, EntryType, MapErr, cacheline::MAX_OVERLAP, tracker::Pages};

/// `DMA_MAPPING_ERROR`.
const MAPPING_ERROR: DmaAddr = DmaAddr(u64::MAX);

/// The arguments that most calls share.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub phys: PhysAddr,
    pub dma: DmaAddr,
    pub size: u64,
    pub dir: Direction,
    pub attrs: Attrs,
}

impl Range {
    const fn entry(self, dev: DeviceId, kind: EntryType) -> Entry {
        Entry {
            dev,
            dma: self.dma,
            size: self.size,
            kind,
            dir: self.dir,
            sg_call_ents: 0,
            sg_mapped_ents: 0,
            phys: self.phys,
            attrs: self.attrs,
            map_err: MapErr::NotApplicable,
        }
    }
}

/// The entries of the first `n` entries of a list.
fn entries(dev: DeviceId, sg: &[SgEntry], n: usize, dir: Direction, attrs: Attrs) -> Vec<Entry> {
    let segment = |s: &SgEntry| Entry {
        sg_call_ents: sg.len(),
        sg_mapped_ents: n,
        ..Range {
            phys: s.phys,
            dma: s.dma_address,
            size: s.dma_length,
            dir,
            attrs,
        }
        .entry(dev, EntryType::Sg)
    };
    sg.iter().take(n).map(segment).collect()
}

impl<I: IommuDriver> Dma<I> {
    /// The tracker, if [`Config::debug`](crate::Config) is set.
    #[must_use]
    pub fn debug(&self) -> Option<&DmaDebug> {
        self.debug.as_deref()
    }

    /// The tracker, to change what debugfs changes.
    pub fn debug_mut(&mut self) -> Option<&mut DmaDebug> {
        self.debug.as_deref_mut()
    }

    /// What a tracker needs besides the call itself, if there is one that is on.
    fn tracker(&mut self, dev: DeviceId) -> Option<(&mut DmaDebug, &Device, &Areas)> {
        let debug = self.debug.as_deref_mut()?;
        Some((debug, self.devices.get(dev.0)?.as_ref()?, &self.areas))
    }

    /// `CONFIG_DMA_BOUNCE_UNALIGNED_KMALLOC` with a pool: what overlaps is bounced.
    const fn overlaps_hidden(&self) -> bool {
        self.config.kmalloc_minalign.is_some() && self.swiotlb.is_some()
    }

    fn pages_at(&self, m: &dyn Machine, phys: PhysAddr) -> Pages {
        if m.memory_map().is_dram(phys, 1) {
            Pages::Ram
        } else if self.is_zone_device(phys) {
            Pages::Device
        } else {
            Pages::None
        }
    }

    /// Whether the page is one of a peer's BAR.
    pub(crate) fn is_zone_device(&self, phys: PhysAddr) -> bool {
        let provider = self.p2pdma.find(phys);
        provider.is_some_and(|id| self.p2pdma.get(id).is_some_and(|p| p.pages))
    }

    fn overlaps_exceeded(&mut self, phys: PhysAddr) {
        let Some(bytes) = self.config.debug.as_ref().map(|o| o.l1_cache_bytes.max(1)) else {
            return;
        };
        self.warn(WarningKind::CachelineOverlaps, None, || {
            format!(
                "exceeded {MAX_OVERLAP} overlapping mappings of cacheline {:#x}",
                phys.0 / bytes
            )
        });
    }

    pub(crate) fn debug_map_single(
        &mut self,
        m: &dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
    ) {
        if self.debug.is_none() {
            return;
        }
        let pages = self.pages_at(m, phys);
        if let Some((debug, d, areas)) = self.tracker(dev) {
            debug.map_single(d, areas, pages, phys, size);
        }
    }

    pub(crate) fn debug_map_phys(&mut self, m: &dyn Machine, dev: DeviceId, r: Range) {
        if self.debug.is_none() {
            return;
        }
        let (pages, hidden) = (self.pages_at(m, r.phys), self.overlaps_hidden());
        let entry = Entry {
            map_err: MapErr::NotChecked,
            attrs: if mutant!(M42) {
                Attrs::empty()
            } else {
                r.attrs
            },
            ..r.entry(dev, EntryType::Phy)
        };
        if let Some((debug, d, areas)) = self.tracker(dev)
            && debug.map_phys(d, areas, pages, entry, hidden)
        {
            self.overlaps_exceeded(r.phys);
        }
    }

    pub(crate) fn debug_unmap(&mut self, dev: DeviceId, kind: EntryType, r: Range) {
        if let Some((debug, d, _)) = self.tracker(dev) {
            debug.unmap(d, &r.entry(dev, kind));
        }
    }

    pub(crate) fn debug_alloc(&mut self, dev: DeviceId, kind: EntryType, r: Range) {
        let hidden = self.overlaps_hidden();
        if let Some((debug, d, _)) = self.tracker(dev)
            && debug.alloc(d, r.entry(dev, kind), hidden)
        {
            self.overlaps_exceeded(r.phys);
        }
    }

    /// A list of which the first `n` entries hold segments.
    pub(crate) fn debug_map_sg(
        &mut self,
        dev: DeviceId,
        sg: &[SgEntry],
        n: usize,
        dir: Direction,
        attrs: Attrs,
    ) {
        let hidden = self.overlaps_hidden();
        let Some((debug, d, areas)) = self.tracker(dev) else {
            return;
        };
        let buffers: Vec<_> = sg.iter().map(|s| (s.phys, s.length)).collect();
        let segments = entries(dev, sg, n, dir, attrs);
        if debug.map_sg(d, areas, &buffers, segments, hidden)
            && let Some(first) = sg.first()
        {
            self.overlaps_exceeded(first.phys);
        }
    }

    pub(crate) fn debug_unmap_sg(
        &mut self,
        dev: DeviceId,
        sg: &[SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) {
        if let Some((debug, d, _)) = self.tracker(dev) {
            debug.unmap_sg(d, &entries(dev, sg, sg.len(), dir, attrs));
        }
    }

    pub(crate) fn debug_sync(
        &mut self,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        to_cpu: bool,
    ) {
        if let Some((debug, d, _)) = self.tracker(dev) {
            let r = Range {
                phys: PhysAddr(0),
                dma,
                size,
                dir,
                attrs: Attrs::empty(),
            };
            debug.sync(d, &r.entry(dev, EntryType::Single), to_cpu);
        }
    }

    pub(crate) fn debug_sync_sg(
        &mut self,
        dev: DeviceId,
        sg: &[SgEntry],
        dir: Direction,
        to_cpu: bool,
    ) {
        if let Some((debug, d, _)) = self.tracker(dev) {
            let list = entries(dev, sg, sg.len(), dir, Attrs::empty());
            debug.sync_sg(d, &list, to_cpu);
        }
    }

    /// The driver of a device is unbound (`BUS_NOTIFY_UNBOUND_DRIVER`): what it has not unmapped is
    /// reported, and stays mapped.
    pub fn driver_unbound(&mut self, dev: DeviceId) {
        if let Some((debug, d, _)) = self.tracker(dev) {
            debug.unbound(dev, d);
        }
    }

    /// [`Dma::dma_map_phys`] as a driver in C sees it: all ones for a failure, and an address that
    /// has to be passed to [`Dma::dma_mapping_error`] before its unmap.
    pub fn dma_map_phys_raw(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> DmaAddr {
        self.map_unchecked(m, dev, phys, size, dir, attrs)
            .unwrap_or(MAPPING_ERROR)
    }

    /// `dma_mapping_error`.
    ///
    /// # Errors
    /// [`MapError::MappingError`] (`-ENOMEM`) for `DMA_MAPPING_ERROR`.
    pub fn dma_mapping_error(&mut self, dev: DeviceId, dma: DmaAddr) -> Result<(), MapError> {
        self.debug_mapping_error(dev, dma);
        if dma == MAPPING_ERROR {
            return Err(MapError::MappingError);
        }
        Ok(())
    }

    pub(crate) fn debug_mapping_error(&mut self, dev: DeviceId, dma: DmaAddr) {
        if let Some(debug) = self.debug.as_deref_mut() {
            debug.mapping_error(dev, dma);
        }
    }
}
