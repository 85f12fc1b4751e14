//! Scatterlists: many buffers, mapped at once and merged where the IOMMU can.

mod direct;
mod iommu;

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    device::{Backend, DeviceId},
    dma::Dma,
    error::{MapError, WarningKind, check_range},
    iommu::IommuDriver,
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
    /// Mapped through the host bridge as device memory, though the caller did not say so.
    mmio: bool,
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
            mmio: false,
            bounced: false,
        }
    }

    /// Whether the segment is a peer's bus address.
    #[must_use]
    pub const fn is_bus_address(&self) -> bool {
        self.bus_address
    }

    /// The attributes that undo what was mapped with `attrs`.
    fn unmap_attrs(&self, attrs: Attrs) -> Attrs {
        if self.mmio {
            attrs | Attrs::MMIO
        } else {
            attrs
        }
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

impl Kind {
    /// Mapped as device memory.
    const fn is_mmio(self) -> bool {
        matches!(self, Self::Mapped(attrs) if attrs.contains(Attrs::MMIO))
    }
}

/// Why a list is not mapped, and the error number that comes out of it: the back ends report
/// fewer than they know.
struct Failed {
    errno: i32,
    cause: MapError,
}

impl From<MapError> for Failed {
    fn from(cause: MapError) -> Self {
        let errno = cause.errno();
        Self { errno, cause }
    }
}

impl<I: IommuDriver> Dma<I> {
    /// `dma_map_sg_attrs`: returns the number of segments.
    ///
    /// # Errors
    /// The cause, as [`MapError`]; the kernel's error number is in the event. Nothing stays mapped.
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
        for entry in sg.iter_mut() {
            check_range(entry.phys, entry.length)?;
            entry.clear();
        }
        let mapped = match backend {
            _ if sg.is_empty() => {
                self.warn(WarningKind::SgErrno, Some(bdf), || {
                    "a list without entries".to_owned()
                });
                Err(Failed {
                    errno: -5,
                    cause: MapError::ZeroSize,
                })
            }
            Backend::Iommu(_) => self.iommu_map_sg(m, dev, sg, dir, attrs),
            _ => self.direct_map_sg(m, dev, sg, dir, attrs),
        };
        self.trace.at(m.now());
        if mapped.is_ok() {
            for entry in sg.iter() {
                self.kmsan_handle_dma(entry.phys, entry.length, dir);
            }
        }
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
                err: e.errno,
                dir,
                attrs,
            }),
        }
        if let Ok(n) = &mapped {
            self.debug_map_sg(dev, sg, *n, dir, attrs);
        }
        mapped.map_err(|e| e.cause)
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
        if !self.is_there(dev) {
            return;
        }
        let Ok(d) = self.device(dev) else { return };
        let (bdf, backend) = (d.bdf, d.backend);
        self.trace.at(m.now());
        self.trace.emit(|| Event::DmaUnmapSg {
            dev: bdf,
            phys: sg.iter().map(|e| e.phys).collect(),
            dir,
            attrs,
        });
        self.debug_unmap_sg(dev, sg, dir, attrs);
        self.forget_sg(dev, sg, dir, attrs);
        match backend {
            Backend::Iommu(_) => self.iommu_unmap_sg(m, dev, sg, dir, attrs),
            _ => self.direct_unmap_sg(m, dev, sg, dir, attrs),
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
                MapType::ThruHostBridge
                    if self.config.quirks.sg_p2p_cacheable || mutant!(M20a | M44) =>
                {
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
        if !self.is_there(dev) {
            return None;
        }
        let d = self.device(dev).ok()?;
        let (bdf, backend) = (d.bdf, d.backend);
        if !d.need_sync() {
            return None;
        }
        let bounced = sg.first().is_some_and(|e| e.bounced);
        if matches!(backend, Backend::Iommu(_)) && !bounced {
            self.sync_sg(m, dev, sg, dir, for_device);
        } else {
            for e in sg
                .iter()
                .filter(|e| !e.bus_address && !e.mmio && e.dma_length > 0)
            {
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

#[cfg(test)]
mod tests;
