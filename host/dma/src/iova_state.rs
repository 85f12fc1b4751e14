//! The two-step API: allocate IOVA once, link ranges into it one by one.

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    device::DeviceId,
    dma::Dma,
    error::{MapError, WarningKind, check_range},
    iommu::{Gather, IommuDriver},
    iommu_dma::dma_info_to_prot,
    ledger::{Api, Segment},
    machine::Machine,
    trace::Event,
};

/// `DMA_IOVA_USE_SWIOTLB`: the bit of the size that says that a range was bounced.
const USE_SWIOTLB: u64 = 1 << 63;

/// `struct dma_iova_state`: an IOVA range that is being filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IovaState {
    addr: DmaAddr,
    size: u64,
    bounced: bool,
    /// Tells states apart in a trace.
    id: u64,
}

impl IovaState {
    /// `dma_use_iova`: the state holds IOVA.
    #[must_use]
    pub const fn uses_iova(&self) -> bool {
        self.size != 0
    }

    /// Address of the first byte.
    #[must_use]
    pub const fn addr(&self) -> DmaAddr {
        self.addr
    }

    /// `dma_iova_size`: bytes, without flags.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Size and flag in one word, as `struct dma_iova_state` holds them.
    #[must_use]
    pub const fn raw_size(&self) -> u64 {
        self.size | if self.bounced { USE_SWIOTLB } else { 0 }
    }
}

impl<I: IommuDriver> Dma<I> {
    /// `dma_iova_try_alloc`: IOVA for `size` bytes, the first at the offset in the granule that
    /// `phys` has. `None` without an IOMMU, or when nothing is left; the caller maps each range by
    /// itself then.
    pub fn dma_iova_try_alloc(
        &mut self,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
    ) -> Option<IovaState> {
        let bdf = self.device(dev).ok()?.bdf;
        self.last_state += 1;
        let id = self.last_state;
        self.trace.emit(|| Event::IovaTryAlloc {
            dev: bdf,
            state: id,
            phys,
            size,
        });
        let state = self.try_alloc(dev, phys, size);
        let state = state.map(|s| IovaState { id, ..s });
        self.trace.emit(|| Event::IovaTryAllocRet {
            dev: bdf,
            state: id,
            iova: state.map(|s| s.addr),
            isize: state.map_or(0, |s| s.raw_size()),
        });
        state
    }

    fn try_alloc(&mut self, dev: DeviceId, phys: PhysAddr, size: u64) -> Option<IovaState> {
        let index = self.domain_index(dev)?;
        if size == 0 || size & USE_SWIOTLB != 0 {
            let bdf = self.device(dev).ok()?.bdf;
            self.warn(WarningKind::IovaSize, Some(bdf), || {
                format!("IOVA for {size:#x} bytes")
            });
            return None;
        }
        let limit = self.device(dev).ok()?.limit();
        let granule = self.domains[index].iova.granule();
        let offset = phys.offset_in(granule);
        let len = (size + offset).checked_next_multiple_of(granule)?;
        let iova = self.alloc_iova(index, dev, len, limit).ok()?;
        Some(IovaState {
            addr: DmaAddr(iova + offset),
            size,
            bounced: false,
            id: 0,
        })
    }

    /// `dma_iova_link`: maps `size` bytes at `phys` to `offset` of the state. The device may use
    /// them after [`Dma::dma_iova_sync`].
    ///
    /// # Errors
    /// See [`MapError`].
    #[expect(clippy::too_many_arguments, reason = "the arguments of dma_iova_link")]
    pub fn dma_iova_link(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        state: &mut IovaState,
        phys: PhysAddr,
        offset: u64,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<(), MapError> {
        let bdf = self.device(dev)?.bdf;
        let (id, iova) = (state.id, state.addr);
        self.trace.at(m.now());
        self.trace.emit(|| Event::IovaLink {
            dev: bdf,
            state: id,
            iova,
            phys,
            offset,
            size,
            dir,
            attrs,
        });
        let result = self.link(m, dev, state, phys, offset, size, dir, attrs);
        self.trace.emit(|| Event::IovaLinkRet {
            state: id,
            ret: result.map_or_else(|e| e.errno(), |()| 0),
        });
        result
    }

    #[expect(clippy::too_many_arguments, reason = "the arguments of dma_iova_link")]
    fn link(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        state: &mut IovaState,
        phys: PhysAddr,
        offset: u64,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<(), MapError> {
        let d = self.device(dev)?;
        let (bdf, coherent) = (d.bdf, d.coherent);
        let index = self.domain_index(dev).ok_or(MapError::NoDevice)?;
        check_range(phys, size)?;
        if offset.checked_add(size).is_none_or(|end| end > state.size) {
            return Err(MapError::OutsideState);
        }
        let granule = self.domains[index].iova.granule();
        let head = phys.offset_in(granule);
        if head != 0 && offset > 0 && !mutant!(M26) {
            self.warn(WarningKind::HeadOffset, Some(bdf), || {
                format!("link of {phys} at offset {offset:#x}")
            });
            return Err(MapError::HeadOffset);
        }
        if attrs.contains(Attrs::REQUIRE_COHERENT) {
            if state.bounced {
                self.warn(WarningKind::CoherentAfterBounce, Some(bdf), || {
                    "REQUIRE_COHERENT in a state with bounced ranges".to_owned()
                });
                return Err(MapError::WouldBounce);
            }
            if !coherent {
                return Err(MapError::NotCoherent);
            }
        }
        let effective = self.honoured(attrs);
        let dma = state.addr.offset(offset);
        let unaligned = (phys.0 | size) & (granule - 1) != 0;
        let segments = if unaligned && self.dev_use_swiotlb(dev, size, dir) {
            if effective.intersects(Attrs::MMIO | Attrs::REQUIRE_COHERENT) {
                return Err(MapError::BounceNotPermitted);
            }
            self.link_bounced(m, dev, state, phys, dma, size, dir, effective)?
        } else {
            self.link_plain(m, dev, dma, phys, size, dir, effective)?;
            vec![Segment {
                dma,
                target: phys,
                len: size,
                bounced: None,
            }]
        };
        for segment in segments {
            self.promise(m, dev, vec![segment], dir, attrs, Api::Iova);
        }
        Ok(())
    }

    /// Maps a range rounded out to granules, after its maintenance.
    #[expect(clippy::too_many_arguments, reason = "the arguments of dma_iova_link")]
    fn link_plain(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<(), MapError> {
        let coherent = self.device(dev)?.coherent;
        let index = self.domain_index(dev).ok_or(MapError::NoDevice)?;
        let granule = self.domains[index].iova.granule();
        if !coherent && !attrs.intersects(Attrs::SKIP_CPU_SYNC | Attrs::MMIO)
            || attrs.contains(Attrs::MMIO) && mutant!(M4)
        {
            self.arch_sync_for_device(m, phys, size, dir);
        }
        // The same offset is taken off both sides; when they differ the table refuses.
        let head = phys.offset_in(granule);
        let start = dma.0.wrapping_sub(head);
        let len = (size + head)
            .checked_next_multiple_of(granule)
            .ok_or(MapError::Wraps)?;
        let prot = dma_info_to_prot(dir, coherent, attrs);
        self.iommu_map(m, index, start, phys.align_down(granule), len, prot)?;
        Ok(())
    }

    /// `iommu_dma_iova_link_swiotlb`: a head and a tail that are no whole granule are bounced.
    #[expect(clippy::too_many_arguments, reason = "the arguments of dma_iova_link")]
    fn link_bounced(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        state: &mut IovaState,
        phys: PhysAddr,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<Vec<Segment>, MapError> {
        let index = self.domain_index(dev).ok_or(MapError::NoDevice)?;
        let granule = self.domains[index].iova.granule();
        let start_pad = phys.offset_in(granule);
        let head = if start_pad == 0 {
            0
        } else {
            size.min(granule - start_pad)
        };
        let tail = (size - head) & (granule - 1);
        let middle = size - head - tail;
        let mut done: Vec<Segment> = Vec::new();
        for (at, len, bounce) in [
            (0, head, true),
            (head, middle, false),
            (head + middle, tail, true),
        ] {
            if len == 0 {
                continue;
            }
            let (piece, at_dma) = (phys.offset(at), dma.offset(at));
            let linked = if bounce {
                self.link_slot(m, dev, at_dma, piece, len, dir, attrs)
            } else {
                self.link_plain(m, dev, at_dma, piece, len, dir, attrs)
                    .map(|()| Segment {
                        dma: at_dma,
                        target: piece,
                        len,
                        bounced: None,
                    })
            };
            match linked {
                Ok(segment) => {
                    state.bounced |= segment.bounced.is_some();
                    done.push(segment);
                }
                Err(e) => {
                    let mapped: u64 = done.iter().map(|s| s.len).sum();
                    if mapped > 0 {
                        let skip = attrs | Attrs::SKIP_CPU_SYNC;
                        self.unlink(m, dev, *state, dma, mapped, dir, skip, None);
                    }
                    return Err(e);
                }
            }
        }
        Ok(done)
    }

    #[expect(clippy::too_many_arguments, reason = "the arguments of dma_iova_link")]
    fn link_slot(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        phys: PhysAddr,
        len: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<Segment, MapError> {
        let coherent = self.device(dev)?.coherent;
        let index = self.domain_index(dev).ok_or(MapError::NoDevice)?;
        let granule = self.domains[index].iova.granule();
        let tlb = self.iommu_dma_bounce(m, dev, phys, len, attrs)?;
        if !coherent && !attrs.contains(Attrs::SKIP_CPU_SYNC) {
            self.arch_sync_for_device(m, tlb, len, dir);
        }
        // The slot keeps the offset only under the device's min_align_mask; without, the
        // addresses disagree below the granule and the table refuses.
        let head = phys.offset_in(granule);
        let prot = dma_info_to_prot(dir, coherent, attrs);
        let size = (len + head).next_multiple_of(granule);
        let start = dma.0.wrapping_sub(head);
        let mapped = self.iommu_map(
            m,
            index,
            start,
            PhysAddr(tlb.0.wrapping_sub(head)),
            size,
            prot,
        );
        if let Err(e) = mapped {
            let skip = attrs | Attrs::SKIP_CPU_SYNC;
            self.swiotlb_unmap(m, dev, tlb, len, dir, skip);
            return Err(e.into());
        }
        Ok(Segment {
            dma,
            target: tlb,
            len,
            bounced: Some(phys),
        })
    }

    /// `dma_iova_sync`: after it the device may use what was linked. No back end here has a
    /// deferred map; the event marks the place.
    ///
    /// # Errors
    /// The range is outside of the state.
    pub fn dma_iova_sync(
        &mut self,
        dev: DeviceId,
        state: &IovaState,
        offset: u64,
        size: u64,
    ) -> Result<(), MapError> {
        let bdf = self.device(dev)?.bdf;
        let inside = offset
            .checked_add(size)
            .is_some_and(|end| end <= state.size);
        let result = if inside {
            Ok(())
        } else {
            Err(MapError::OutsideState)
        };
        let (id, iova) = (state.id, state.addr);
        self.trace.emit(|| Event::IovaSync {
            dev: bdf,
            state: id,
            iova,
            offset,
            size,
        });
        self.trace.emit(|| Event::IovaSyncRet {
            ret: result.map_or_else(|e| e.errno(), |()| 0),
        });
        result
    }

    /// `dma_iova_unlink`: takes a range back; its IOVA stays allocated. Always invalidates before
    /// it returns.
    #[expect(
        clippy::too_many_arguments,
        reason = "the arguments of dma_iova_unlink"
    )]
    pub fn dma_iova_unlink(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        state: &IovaState,
        offset: u64,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) {
        if !self.is_there(dev) {
            return;
        }
        let Ok(bdf) = self.device(dev).map(|d| d.bdf) else {
            return;
        };
        let (iova, inside) = (
            state.addr,
            offset
                .checked_add(size)
                .is_some_and(|end| end <= state.size),
        );
        let id = state.id;
        self.trace.at(m.now());
        self.trace.emit(|| Event::IovaUnlink {
            dev: bdf,
            state: id,
            iova,
            offset,
            size,
            dir,
            attrs,
        });
        if size == 0 || !inside {
            self.warn(WarningKind::UnmapSize, Some(bdf), || {
                format!(
                    "unlink of {size} bytes at {offset:#x} of a state of {}",
                    state.size
                )
            });
            return;
        }
        let attrs = self.honoured(attrs);
        let free = mutant!(M27).then_some(size);
        self.unlink(m, dev, *state, iova.offset(offset), size, dir, attrs, free);
    }

    /// `dma_iova_free`: gives the IOVA of a state without ranges back, at once.
    pub fn dma_iova_free(&mut self, dev: DeviceId, state: &mut IovaState) {
        if !self.is_there(dev) {
            return;
        }
        let Ok(bdf) = self.device(dev).map(|d| d.bdf) else {
            return;
        };
        if !state.uses_iova() {
            self.warn(WarningKind::UnmapSize, Some(bdf), || {
                "a state without IOVA is freed".to_owned()
            });
            return;
        }
        let s = *state;
        self.trace.emit(|| Event::IovaFree {
            dev: bdf,
            state: s.id,
            iova: s.addr,
            isize: s.raw_size(),
        });
        self.free_state(dev, state);
    }

    fn free_state(&mut self, dev: DeviceId, state: &mut IovaState) {
        if let Some(index) = self.domain_index(dev) {
            let (start, len) = self.granules(index, state.addr, state.size);
            self.free_iova(index, start, len);
            *state = IovaState::default();
        }
    }

    /// `dma_iova_destroy`: takes the first `mapped_len` bytes back and frees the IOVA.
    pub fn dma_iova_destroy(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        state: &mut IovaState,
        mapped_len: u64,
        dir: Direction,
        attrs: Attrs,
    ) {
        if !self.is_there(dev) {
            return;
        }
        let Ok(bdf) = self.device(dev).map(|d| d.bdf) else {
            return;
        };
        if !state.uses_iova() || mapped_len > state.size {
            let size = state.size;
            self.warn(WarningKind::UnmapSize, Some(bdf), || {
                format!("destruction of {mapped_len} bytes of a state of {size}")
            });
            return;
        }
        let s = *state;
        self.trace.at(m.now());
        self.trace.emit(|| Event::IovaDestroy {
            dev: bdf,
            state: s.id,
            iova: s.addr,
            isize: s.raw_size(),
            mapped_len,
            dir,
            attrs,
        });
        if mapped_len == 0 {
            self.free_state(dev, state);
            return;
        }
        let freed = if self.config.quirks.destroy_frees_mapped_len {
            mapped_len
        } else if mutant!(M29) {
            s.raw_size()
        } else {
            s.size
        };
        let attrs = self.honoured(attrs);
        let freed = (!mutant!(M28)).then_some(freed);
        self.unlink(m, dev, s, s.addr, mapped_len, dir, attrs, freed);
        *state = IovaState::default();
    }

    fn granules(&self, index: usize, dma: DmaAddr, size: u64) -> (u64, u64) {
        let iovad = &self.domains[index].iova;
        let offset = iovad.offset(dma.0);
        (dma.0 - offset, iovad.align(size + offset))
    }

    /// `__iommu_dma_iova_unlink`; with `free`, as many bytes of IOVA are given back, through the
    /// flush queue if there is one.
    #[expect(
        clippy::too_many_arguments,
        reason = "the arguments of dma_iova_unlink and one more"
    )]
    fn unlink(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        state: IovaState,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
        free: Option<u64>,
    ) {
        let (Ok(d), Some(index)) = (self.device(dev), self.domain_index(dev)) else {
            return;
        };
        let (bdf, coherent) = (d.bdf, d.coherent);
        let maintain = !coherent && !attrs.intersects(Attrs::SKIP_CPU_SYNC | Attrs::MMIO);
        // Pieces of one granule, with the physical address behind each.
        let mut pieces = Vec::new();
        if state.bounced || maintain {
            let granule = self.domains[index].iova.granule();
            let mut at = 0;
            while at < size {
                let piece = dma.offset(at);
                let len = (granule - piece.offset_in(granule)).min(size - at);
                let Some(phys) = self.iova_to_phys(m, dev, piece) else {
                    self.warn(WarningKind::NotMapped, Some(bdf), || {
                        format!("unlink of {piece}, which is not mapped")
                    });
                    break;
                };
                if maintain {
                    self.arch_sync_for_cpu(m, phys, len, dir);
                }
                pieces.push((phys, len));
                at += len;
            }
        }
        let early = self.config.quirks.unlink_releases_slots_first;
        if early {
            for (phys, len) in &pieces {
                self.swiotlb_unmap(m, dev, *phys, *len, dir, attrs);
            }
        }
        let taken = self.ledger.remove_range(dev, dma, size, Api::Iova);
        let (start, len) = self.granules(index, dma, size);
        let mut gather = Gather::default();
        self.iommu_unmap_fast(m, index, start, len, &mut gather);
        match free {
            None => self.iotlb_sync(m, index, gather),
            Some(bytes) => {
                let (_, freed) = self.granules(index, state.addr, bytes);
                self.drain(taken);
                self.retire_iova(m, index, start, freed, gather);
            }
        }
        if !early {
            for (phys, len) in pieces {
                self.swiotlb_unmap(m, dev, phys, len, dir, attrs);
            }
        }
    }
}

#[cfg(test)]
mod tests;
