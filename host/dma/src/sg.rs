//! Scatterlists: many buffers, mapped at once and merged where the IOMMU can.

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    device::{Backend, DeviceId},
    dma::Dma,
    error::{MapError, WarningKind, check_range},
    iommu::{IommuDriver, Prot},
    iommu_dma::dma_info_to_prot,
    ledger::{Api, Mapping, Route, Segment},
    machine::Machine,
    p2pdma::{MapState, MapType, bus_as_dma},
    trace::Event,
};

/// An entry of a scatterlist (`struct scatterlist`). The buffer belongs to the entry; the DMA
/// fields of the first entries hold the segments that mapping made of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SgEntry {
    /// The buffer.
    pub phys: PhysAddr,
    /// Bytes of the buffer.
    pub length: u64,
    /// `sg_dma_address`.
    pub dma_address: DmaAddr,
    /// `sg_dma_len`, 0 behind the last segment.
    pub dma_length: u64,
    bus_address: bool,
    bounced: bool,
}

impl SgEntry {
    /// An entry that is not mapped.
    #[must_use]
    pub const fn new(phys: PhysAddr, length: u64) -> Self {
        Self {
            phys,
            length,
            dma_address: DmaAddr(u64::MAX),
            dma_length: 0,
            bus_address: false,
            bounced: false,
        }
    }

    /// Whether the segment is a peer's bus address.
    #[must_use]
    pub const fn is_bus_address(&self) -> bool {
        self.bus_address
    }

    fn clear(&mut self) {
        *self = Self::new(self.phys, self.length);
    }
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Mapped with these attributes.
    Mapped(Attrs),
    /// A peer's bus address.
    Bus(DmaAddr),
}

impl<I: IommuDriver> Dma<I> {
    /// `dma_map_sg_attrs`: returns the number of segments.
    ///
    /// # Errors
    /// See [`MapError`]. Nothing stays mapped.
    pub fn dma_map_sg(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &mut [SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) -> Result<usize, MapError> {
        let d = self.device(dev)?;
        let (bdf, backend) = (d.bdf, d.backend);
        if d.dma_mask.is_none() {
            self.warn(WarningKind::NoMask, Some(bdf), || "no DMA mask".to_owned());
            return Err(MapError::NoMask);
        }
        if attrs.contains(Attrs::REQUIRE_COHERENT) && !d.coherent {
            return Err(MapError::NotCoherent);
        }
        if sg.is_empty() {
            return Err(MapError::ZeroSize);
        }
        for entry in sg.iter_mut() {
            check_range(entry.phys, entry.length)?;
            entry.clear();
        }
        let mapped = match backend {
            Backend::Direct | Backend::Identity => self.direct_map_sg(m, dev, sg, dir, attrs),
            Backend::Iommu(_) => self.iommu_map_sg(m, dev, sg, dir, attrs),
        };
        let phys = |sg: &[SgEntry]| sg.iter().map(|e| e.phys).collect();
        match &mapped {
            Ok(n) => self.trace.emit(|| Event::DmaMapSg {
                dev: bdf,
                phys: phys(sg),
                dma: sg[..*n].iter().map(|e| e.dma_address).collect(),
                sizes: sg[..*n].iter().map(|e| e.dma_length).collect(),
                dir,
                attrs,
            }),
            Err(e) => self.trace.emit(|| Event::DmaMapSgErr {
                dev: bdf,
                phys: phys(sg),
                err: sg_errno(e),
                dir,
                attrs,
            }),
        }
        if let Ok(n) = mapped {
            self.debug_map_sg(dev, sg, n, dir, attrs);
        }
        mapped
    }

    /// `dma_unmap_sg_attrs`: all entries as they were passed to [`Dma::dma_map_sg`].
    pub fn dma_unmap_sg(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &mut [SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) {
        let Ok(d) = self.device(dev) else { return };
        let (bdf, backend) = (d.bdf, d.backend);
        self.trace.emit(|| Event::DmaUnmapSg {
            dev: bdf,
            phys: sg.iter().map(|e| e.phys).collect(),
            dir,
            attrs,
        });
        self.debug_unmap_sg(dev, sg, dir, attrs);
        self.forget_sg(dev, sg, dir, attrs);
        match backend {
            Backend::Direct | Backend::Identity => {
                for entry in sg.iter().filter(|e| !e.bus_address && e.dma_length > 0) {
                    self.direct_unmap(m, dev, entry.dma_address, entry.dma_length, dir, attrs);
                }
            }
            Backend::Iommu(_) => self.iommu_unmap_sg(m, dev, sg, dir, attrs),
        }
        for entry in sg {
            entry.clear();
        }
    }

    fn forget_sg(&mut self, dev: DeviceId, sg: &[SgEntry], dir: Direction, attrs: Attrs) {
        for entry in sg.iter().take_while(|e| e.dma_length > 0) {
            let (dma, size) = (entry.dma_address, entry.dma_length);
            let found = self.ledger.remove(dev, dma, size, dir, attrs);
            self.drain(found);
        }
    }

    /// What each entry is, by `pci_p2pdma_state`.
    fn classify(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &[SgEntry],
        attrs: Attrs,
    ) -> Result<Vec<Kind>, MapError> {
        let mut state = MapState::default();
        let mut kinds = Vec::with_capacity(sg.len());
        for entry in sg {
            let map = self.pci_p2pdma_state(m, &mut state, dev, entry.phys)?;
            kinds.push(match map {
                MapType::None => Kind::Mapped(attrs),
                MapType::ThruHostBridge if self.config.quirks.sg_p2p_cacheable => {
                    Kind::Mapped(attrs)
                }
                MapType::ThruHostBridge => Kind::Mapped(attrs | Attrs::MMIO),
                MapType::BusAddr => {
                    let provider = state.provider.and_then(|id| self.p2pdma.get(id));
                    let provider = provider.ok_or(MapError::P2pNotSupported)?;
                    Kind::Bus(bus_as_dma(provider.bus_addr_map(entry.phys)))
                }
                MapType::NotSupported | MapType::Unknown => return Err(MapError::P2pNotSupported),
            });
        }
        Ok(kinds)
    }

    /// `dma_direct_map_sg`: one segment an entry.
    fn direct_map_sg(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &mut [SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) -> Result<usize, MapError> {
        let kinds = self.classify(m, dev, sg, attrs)?;
        for (i, kind) in kinds.iter().enumerate() {
            let (phys, length) = (sg[i].phys, sg[i].length);
            let (dma, slot) = match kind {
                Kind::Bus(dma) => {
                    sg[i].bus_address = true;
                    (*dma, None)
                }
                Kind::Mapped(attrs) => match self.direct_map(m, dev, phys, length, dir, *attrs) {
                    Ok(mapped) => mapped,
                    Err(e) => {
                        let skip = *attrs | Attrs::SKIP_CPU_SYNC;
                        for (entry, kind) in sg[..i].iter().zip(&kinds) {
                            if matches!(kind, Kind::Mapped(_)) {
                                let (dma, len) = (entry.dma_address, entry.dma_length);
                                self.direct_unmap(m, dev, dma, len, dir, skip);
                            }
                        }
                        self.forget_sg(dev, &sg[..i], dir, *attrs);
                        sg.iter_mut().for_each(SgEntry::clear);
                        return Err(e);
                    }
                },
            };
            sg[i].dma_address = dma;
            sg[i].dma_length = length;
            let segment = Segment {
                dma,
                target: slot.unwrap_or(phys),
                len: length,
                bounced: slot.map(|_| phys),
            };
            self.promise_sg(m, dev, vec![segment], dir, attrs, sg[i].bus_address);
        }
        Ok(sg.len())
    }

    /// The promise of one segment.
    fn promise_sg(
        &mut self,
        m: &dyn Machine,
        dev: DeviceId,
        segments: Vec<Segment>,
        dir: Direction,
        attrs: Attrs,
        bus_address: bool,
    ) {
        let Some(first) = segments.first().copied() else {
            return;
        };
        self.promise(m, dev, segments, dir, attrs, Api::Sg);
        if bus_address
            && let Some(found) = self.ledger.remove(dev, first.dma, first.len, dir, attrs)
        {
            self.ledger.insert(
                dev,
                Mapping {
                    route: Route::BusAddress,
                    domain: None,
                    granule: 1,
                    ..found
                },
            );
        }
    }

    /// `iommu_dma_map_sg`: one IOVA range for everything that is translated.
    fn iommu_map_sg(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &mut [SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) -> Result<usize, MapError> {
        let d = self.device(dev)?;
        let (coherent, limit) = (d.coherent, d.limit());
        let (boundary, max_segment) = (d.seg_boundary, d.max_segment_size);
        let index = self.domain_index(dev).ok_or(MapError::NoDevice)?;
        let granule = self.domains[index].iova.granule();
        if sg.iter().any(|e| self.dev_use_swiotlb(dev, e.length, dir)) {
            return self.iommu_map_sg_bounced(m, dev, sg, dir, attrs);
        }
        let kinds = self.classify(m, dev, sg, attrs)?;
        for (entry, kind) in sg.iter().zip(&kinds) {
            // Classification comes after maintenance in the kernel, which then cleans lines of
            // device memory as well; with the attribute set there is nothing to clean.
            let skip = match kind {
                Kind::Mapped(a) => a.intersects(Attrs::SKIP_CPU_SYNC | Attrs::MMIO),
                Kind::Bus(_) => !self.config.quirks.sg_p2p_cacheable,
            };
            if !coherent && !skip {
                self.arch_sync_for_device(m, entry.phys, entry.length, dir);
            }
        }

        // Lengths in the IOVA range, whole granules; an entry is lengthened when the next one
        // would else cross the segment boundary.
        let mut lens = vec![0; sg.len()];
        let mut total: u64 = 0;
        let mut prev = None;
        for (i, (entry, kind)) in sg.iter().zip(&kinds).enumerate() {
            if matches!(kind, Kind::Bus(_)) {
                continue;
            }
            let len = entry
                .length
                .checked_add(entry.phys.offset_in(granule))
                .and_then(|n| n.checked_next_multiple_of(granule))
                .ok_or(MapError::Wraps)?;
            let pad = boundary.wrapping_sub(total).wrapping_add(1) & boundary;
            if pad > 0
                && pad < len - 1
                && let Some(prev) = prev
            {
                let lengthened: &mut u64 = &mut lens[prev];
                *lengthened = lengthened.checked_add(pad).ok_or(MapError::Wraps)?;
                total = total.checked_add(pad).ok_or(MapError::Wraps)?;
            }
            lens[i] = len;
            total = total.checked_add(len).ok_or(MapError::Wraps)?;
            prev = Some(i);
        }

        let mut iova = 0;
        if total > 0 {
            let min_align = self.device(dev)?.min_align_mask;
            if min_align > granule - 1 {
                return Err(MapError::AlignConstraint);
            }
            iova = self.alloc_iova(index, dev, total, limit)?;
            let prots: Vec<Option<Prot>> = kinds
                .iter()
                .map(|k| match k {
                    Kind::Mapped(a) => Some(dma_info_to_prot(dir, coherent, *a)),
                    Kind::Bus(_) => None,
                })
                .collect();
            if let Err(e) = self.map_runs(m, index, iova, sg, &lens, &prots) {
                self.free_iova(index, iova, total);
                return Err(e);
            }
        }
        let outputs = merge(sg, &kinds, &lens, iova, granule, boundary, max_segment);
        let n = outputs.len();
        for (slot, out) in sg.iter_mut().zip(&outputs) {
            slot.dma_address = out.dma;
            slot.dma_length = out.len;
            slot.bus_address = out.bus;
        }
        for out in outputs {
            self.promise_sg(m, dev, out.segments, dir, attrs, out.bus);
        }
        Ok(n)
    }

    /// `iommu_map_sg`: one map for each run of adjacent entries of the same protection.
    fn map_runs(
        &mut self,
        m: &mut dyn Machine,
        index: usize,
        iova: u64,
        sg: &[SgEntry],
        lens: &[u64],
        prots: &[Option<Prot>],
    ) -> Result<(), MapError> {
        let granule = self.domains[index].iova.granule();
        let mut runs: Vec<(PhysAddr, u64, Prot)> = Vec::new();
        let mut broken = true;
        for ((entry, len), prot) in sg.iter().zip(lens).zip(prots) {
            let Some(prot) = prot else {
                broken = true;
                continue;
            };
            let start = entry.phys.align_down(granule);
            match runs.last_mut() {
                Some((s, l, p)) if !broken && s.0.wrapping_add(*l) == start.0 && p == prot => {
                    *l += len;
                }
                _ => runs.push((start, *len, *prot)),
            }
            broken = false;
        }
        let mut mapped = 0;
        for (start, len, prot) in runs {
            if let Err(e) = self.iommu_map(m, index, iova + mapped, start, len, prot) {
                if mapped > 0 {
                    let mut gather = crate::iommu::Gather::default();
                    self.iommu_unmap_fast(m, index, iova, mapped, &mut gather);
                    self.iotlb_sync(m, index, gather);
                }
                return Err(e.into());
            }
            mapped += len;
        }
        Ok(())
    }

    /// `iommu_dma_map_sg_swiotlb`: entry by entry, peer memory not looked at.
    fn iommu_map_sg_bounced(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &mut [SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) -> Result<usize, MapError> {
        for i in 0..sg.len() {
            let (phys, length) = (sg[i].phys, sg[i].length);
            match self.iommu_map_phys(m, dev, phys, length, dir, attrs) {
                Ok((dma, slot)) => {
                    sg[i].dma_address = dma;
                    sg[i].dma_length = length;
                    sg[i].bounced = true;
                    let segment = Segment {
                        dma,
                        target: slot.unwrap_or(phys),
                        len: length,
                        bounced: slot.map(|_| phys),
                    };
                    self.promise(m, dev, vec![segment], dir, attrs, Api::Sg);
                }
                Err(e) => {
                    self.forget_sg(dev, &sg[..i], dir, attrs);
                    for entry in &sg[..i] {
                        let (dma, len) = (entry.dma_address, entry.dma_length);
                        let skip = attrs | Attrs::SKIP_CPU_SYNC;
                        self.iommu_unmap_phys(m, dev, dma, len, dir, skip);
                    }
                    sg.iter_mut().for_each(SgEntry::clear);
                    return Err(e);
                }
            }
        }
        Ok(sg.len())
    }

    fn iommu_unmap_sg(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &[SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) {
        if sg.first().is_some_and(|e| e.bounced) {
            for entry in sg {
                let (dma, len) = (entry.dma_address, entry.dma_length);
                self.iommu_unmap_phys(m, dev, dma, len, dir, attrs);
            }
            return;
        }
        if !attrs.contains(Attrs::SKIP_CPU_SYNC) {
            self.sync_sg(m, dev, sg, dir, false);
        }
        let mut translated = sg
            .iter()
            .take_while(|e| e.dma_length > 0)
            .filter(|e| !e.bus_address);
        if let Some(first) = translated.next() {
            let start = first.dma_address;
            let last = translated.last().unwrap_or(first);
            let end = last.dma_address.0 + last.dma_length;
            self.iommu_dma_unmap_range(m, dev, start, end - start.0);
        }
    }

    /// Maintenance of the buffers of a list that is not bounced.
    fn sync_sg(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &[SgEntry],
        dir: Direction,
        for_device: bool,
    ) {
        if self.device(dev).is_ok_and(|d| d.coherent) {
            return;
        }
        for entry in sg {
            let peer = self
                .p2pdma
                .find(entry.phys)
                .is_some_and(|id| self.p2pdma.get(id).is_some_and(|p| p.pages));
            if peer && !self.config.quirks.sg_p2p_cacheable {
                continue;
            }
            if for_device {
                self.arch_sync_for_device(m, entry.phys, entry.length, dir);
            } else {
                self.arch_sync_for_cpu(m, entry.phys, entry.length, dir);
            }
        }
    }

    /// `dma_sync_sg_for_cpu`.
    pub fn dma_sync_sg_for_cpu(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &[SgEntry],
        dir: Direction,
    ) {
        if let Some((bdf, dma, sizes)) = self.dma_sync_sg(m, dev, sg, dir, false) {
            self.trace.emit(|| Event::SyncSgForCpu {
                dev: bdf,
                dma,
                sizes,
                dir,
            });
            self.debug_sync_sg(dev, sg, dir, true);
        }
    }

    /// `dma_sync_sg_for_device`.
    pub fn dma_sync_sg_for_device(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &[SgEntry],
        dir: Direction,
    ) {
        if let Some((bdf, dma, sizes)) = self.dma_sync_sg(m, dev, sg, dir, true) {
            self.trace.emit(|| Event::SyncSgForDevice {
                dev: bdf,
                dma,
                sizes,
                dir,
            });
            self.debug_sync_sg(dev, sg, dir, false);
        }
    }

    fn dma_sync_sg(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &[SgEntry],
        dir: Direction,
        for_device: bool,
    ) -> Option<(tlproof_pcie::Bdf, Vec<DmaAddr>, Vec<u64>)> {
        let d = self.device(dev).ok()?;
        let (bdf, backend) = (d.bdf, d.backend);
        if !d.need_sync() {
            return None;
        }
        let bounced = sg.first().is_some_and(|e| e.bounced);
        if matches!(backend, Backend::Iommu(_)) && !bounced {
            self.sync_sg(m, dev, sg, dir, for_device);
        } else {
            for e in sg.iter().filter(|e| !e.bus_address && e.dma_length > 0) {
                if for_device {
                    self.sync_for_device(m, dev, e.dma_address, e.dma_length, dir);
                } else {
                    self.sync_for_cpu(m, dev, e.dma_address, e.dma_length, dir);
                }
            }
        }
        let segments = || sg.iter().take_while(|e| e.dma_length > 0);
        Some((
            bdf,
            segments().map(|e| e.dma_address).collect(),
            segments().map(|e| e.dma_length).collect(),
        ))
    }
}

/// A segment as the device gets it.
struct Output {
    dma: DmaAddr,
    len: u64,
    bus: bool,
    segments: Vec<Segment>,
}

/// `__finalise_sg`: joins entries whose IOVAs follow each other without a gap, as far as segment
/// boundary and segment size allow.
fn merge(
    sg: &[SgEntry],
    kinds: &[Kind],
    lens: &[u64],
    iova: u64,
    granule: u64,
    boundary: u64,
    max_segment: u64,
) -> Vec<Output> {
    let mut outputs: Vec<Output> = Vec::new();
    let mut at = iova;
    // Length of the segment that the next entry may join, 0 when it may not.
    let mut open: u64 = 0;
    let mut before = None;
    for ((entry, kind), iova_len) in sg.iter().zip(kinds).zip(lens) {
        if let Kind::Bus(dma) = kind {
            outputs.push(Output {
                dma: *dma,
                len: entry.length,
                bus: true,
                segments: vec![Segment {
                    dma: *dma,
                    target: entry.phys,
                    len: entry.length,
                    bounced: None,
                }],
            });
            open = 0;
            continue;
        }
        let offset = entry.phys.offset_in(granule);
        let dma = DmaAddr(at + offset);
        let segment = Segment {
            dma,
            target: entry.phys,
            len: entry.length,
            bounced: None,
        };
        // What is mapped differently is promised differently.
        let joins = open > 0
            && before == Some(*kind)
            && offset == 0
            && at & boundary != 0
            && max_segment.saturating_sub(open) >= entry.length;
        match outputs.last_mut().filter(|_| joins) {
            Some(out) => {
                out.len += entry.length;
                out.segments.push(segment);
                open += entry.length;
            }
            None => {
                outputs.push(Output {
                    dma,
                    len: entry.length,
                    bus: false,
                    segments: vec![segment],
                });
                open = entry.length;
            }
        }
        before = Some(*kind);
        at += iova_len;
        if entry.length + offset < *iova_len {
            open = 0;
        }
    }
    outputs
}

/// The error numbers that `dma_map_sg` may return.
const fn sg_errno(e: &MapError) -> i32 {
    match e.errno() {
        n @ (-12 | -5 | -121 | -95) => n,
        _ => -22,
    }
}

#[cfg(test)]
mod tests;
