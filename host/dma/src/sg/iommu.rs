//! Scatterlists behind an IOMMU: one IOVA range for all, merged.

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::{Failed, Kind, SgEntry};
use crate::{
    attrs::Attrs,
    device::DeviceId,
    dma::Dma,
    error::MapError,
    iommu::{Gather, IommuDriver, Prot},
    iommu_dma::dma_info_to_prot,
    ledger::Segment,
    machine::Machine,
};

impl<I: IommuDriver> Dma<I> {
    /// `iommu_dma_map_sg`: one IOVA range for everything that is translated.
    pub(super) fn iommu_map_sg(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &mut [SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) -> Result<usize, Failed> {
        if sg.iter().any(|e| self.dev_use_swiotlb(dev, e.length, dir)) {
            return self.iommu_map_sg_bounced(m, dev, sg, dir, attrs);
        }
        self.iommu_map_sg_merged(m, dev, sg, dir, attrs)
            .map_err(|cause| Failed {
                // No other error number gets out.
                errno: match cause.errno() {
                    n @ (-12 | -121) => n,
                    _ => -22,
                },
                cause,
            })
    }

    fn iommu_map_sg_merged(
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
        if !attrs.contains(Attrs::SKIP_CPU_SYNC) {
            self.sync_sg(m, dev, sg, dir, true);
        }
        let kinds = self.classify(m, dev, sg, attrs)?;
        let (lens, total) = iova_lengths(sg, &kinds, granule, boundary)?;
        let mut iova = 0;
        if total > 0 {
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
            let unset = mutant!(M20b) && kinds.iter().any(|k| k.is_mmio());
            slot.dma_address = if unset { DmaAddr(0) } else { out.dma };
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
                    let mut gather = Gather::default();
                    self.iommu_unmap_fast(m, index, iova, mapped, &mut gather);
                    self.iotlb_sync(m, index, gather);
                }
                return Err(e.into());
            }
            mapped += len;
        }
        Ok(())
    }

    /// `iommu_dma_map_sg_swiotlb`: entry by entry; Linux does not look for peers here.
    fn iommu_map_sg_bounced(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &mut [SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) -> Result<usize, Failed> {
        let kinds = if self.config.quirks.sg_p2p_cacheable {
            vec![Kind::Mapped(attrs); sg.len()]
        } else {
            self.classify(m, dev, sg, attrs)?
        };
        for (i, kind) in kinds.into_iter().enumerate() {
            let (phys, length) = (sg[i].phys, sg[i].length);
            let mapped = match kind {
                Kind::Bus(dma) => Ok((dma, None)),
                Kind::Mapped(with) => self.iommu_map_phys(m, dev, phys, length, dir, with),
            };
            match mapped {
                Ok((dma, slot)) => {
                    let bus = matches!(kind, Kind::Bus(_));
                    sg[i].dma_address = dma;
                    sg[i].dma_length = length;
                    sg[i].bounced = true;
                    sg[i].bus_address = bus;
                    sg[i].mmio = kind.is_mmio();
                    let segment = self.segment(dev, dma, phys, length, slot, attrs);
                    self.promise_sg(m, dev, vec![segment], dir, attrs, bus);
                }
                Err(cause) => {
                    self.forget_sg(dev, &sg[..i], dir, attrs);
                    self.iommu_unmap_sg(m, dev, &sg[..i], dir, attrs | Attrs::SKIP_CPU_SYNC);
                    sg.iter_mut().for_each(SgEntry::clear);
                    return Err(Failed { errno: -5, cause });
                }
            }
        }
        Ok(sg.len())
    }

    pub(super) fn iommu_unmap_sg(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &[SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) {
        if sg.first().is_some_and(|e| e.bounced) {
            for e in sg.iter().filter(|e| !e.bus_address && e.dma_length > 0) {
                let attrs = e.unmap_attrs(attrs);
                self.iommu_unmap_phys(m, dev, e.dma_address, e.dma_length, dir, attrs);
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

    /// Maintenance of the buffers of a list that is not bounced. In Linux it comes before the
    /// look for peers, whose device memory it therefore takes in.
    pub(super) fn sync_sg(
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
            let peer = self.p2pdma.page_provider(entry.phys, 1).is_some();
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
}

/// Lengths of the entries in the IOVA range, whole granules, and of all; an entry is lengthened
/// when the next one would else cross the segment boundary.
fn iova_lengths(
    sg: &[SgEntry],
    kinds: &[Kind],
    granule: u64,
    boundary: u64,
) -> Result<(Vec<u64>, u64), MapError> {
    let mut lens: Vec<u64> = vec![0; sg.len()];
    let mut total: u64 = 0;
    let mut prev = None;
    for (i, (entry, kind)) in sg.iter().zip(kinds).enumerate() {
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
    Ok((lens, total))
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
