//! From ranges of a BAR to what a device is given (`dma_buf_phys_vec_to_sgt`).

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::DmaBufError;
use crate::{
    attrs::Attrs,
    device::DeviceId,
    dma::Dma,
    error::{MapError, check_range},
    iommu::IommuDriver,
    iova_state::IovaState,
    machine::Machine,
    p2pdma::{MapType, ProviderId, bus_as_dma},
    pages::PAGE_SIZE,
};

/// Longest segment in bytes: the length of an entry has 32 bits.
pub const MAX_SEGMENT: u64 = 0xffff_ffff & !(PAGE_SIZE - 1);

/// A range of a BAR (`struct dma_buf_phys_vec`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysVec {
    /// First byte.
    pub phys: PhysAddr,
    /// Bytes.
    pub len: u64,
}

/// A segment as the device gets it. There is no page behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaSegment {
    /// `sg_dma_address`.
    pub dma: DmaAddr,
    /// `sg_dma_len`.
    pub len: u64,
}

/// How the ranges are mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mapped {
    /// By bus address: no call.
    Bus,
    /// All in one IOVA range.
    Iova(IovaState),
    /// Each by itself.
    Each(Vec<DmaAddr>),
}

/// A mapped buffer (`struct sg_table` of an attachment). It goes back with
/// [`Dma::dma_buf_free_sgt`].
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmaSgt {
    segments: Vec<DmaSegment>,
    ranges: Vec<PhysVec>,
    dir: Direction,
    mapped: Mapped,
}

impl DmaSgt {
    /// What the device is given, in the order of the buffer.
    #[must_use]
    pub fn segments(&self) -> &[DmaSegment] {
        &self.segments
    }

    /// The ranges of the BAR that were mapped, in the order of the buffer.
    #[must_use]
    pub fn ranges(&self) -> &[PhysVec] {
        &self.ranges
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.ranges.iter().map(|r| r.len).sum()
    }

    /// Direction of the mapping.
    #[must_use]
    pub const fn dir(&self) -> Direction {
        self.dir
    }

    /// Whether the segments are bus addresses.
    #[must_use]
    pub const fn is_bus_address(&self) -> bool {
        matches!(self.mapped, Mapped::Bus)
    }
}

/// Appends a range in pieces that fit an entry.
fn fill(segments: &mut Vec<DmaSegment>, dma: DmaAddr, len: u64) {
    let mut at = 0;
    while at < len {
        let piece = (len - at).min(MAX_SEGMENT);
        segments.push(DmaSegment {
            dma: dma.offset(at),
            len: piece,
        });
        at += piece;
    }
}

impl<I: IommuDriver> Dma<I> {
    /// `dma_buf_phys_vec_to_sgt`: maps ranges of one BAR for a device, as device memory. By bus
    /// address nothing is called; through the host bridge all ranges go into one IOVA range, or,
    /// where there is no IOVA, each is mapped by itself.
    ///
    /// # Errors
    /// [`DmaBufError::NotReachable`], or why a range cannot be mapped; nothing stays mapped.
    pub fn dma_buf_phys_vec_to_sgt(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        provider: ProviderId,
        ranges: &[PhysVec],
        dir: Direction,
    ) -> Result<DmaSgt, DmaBufError> {
        let client = self.device(dev)?.pci_function();
        let mut size: u64 = 0;
        for r in ranges {
            check_range(r.phys, r.len)?;
            size = size.checked_add(r.len).ok_or(MapError::Wraps)?;
        }
        if size == 0 {
            return Err(DmaBufError::Range);
        }
        let mut segments = Vec::new();
        let mapped = match self.p2pdma.map_type(m, provider, client) {
            MapType::BusAddr => {
                let p = self.p2pdma.get(provider);
                let p = p.ok_or(DmaBufError::NotReachable)?;
                for r in ranges {
                    fill(&mut segments, bus_as_dma(p.bus_addr_map(r.phys)), r.len);
                }
                Mapped::Bus
            }
            MapType::ThruHostBridge => match self.dma_iova_try_alloc(dev, PhysAddr(0), size) {
                Some(mut state) => {
                    self.link_ranges(m, dev, &mut state, ranges, dir)?;
                    fill(&mut segments, state.addr(), size);
                    Mapped::Iova(state)
                }
                None => {
                    let each = self.map_ranges(m, dev, ranges, dir)?;
                    for (dma, r) in each.iter().zip(ranges) {
                        fill(&mut segments, *dma, r.len);
                    }
                    Mapped::Each(each)
                }
            },
            MapType::Unknown | MapType::None | MapType::NotSupported => {
                return Err(DmaBufError::NotReachable);
            }
        };
        Ok(DmaSgt {
            segments,
            ranges: ranges.to_vec(),
            dir,
            mapped,
        })
    }

    /// Links every range behind the ones before it.
    fn link_ranges(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        state: &mut IovaState,
        ranges: &[PhysVec],
        dir: Direction,
    ) -> Result<(), MapError> {
        let mut mapped = 0;
        for r in ranges {
            let offset = if self.config.quirks.dmabuf_links_at_zero || mutant!(M30) {
                0
            } else {
                mapped
            };
            let linked = self.dma_iova_link(m, dev, state, r.phys, offset, r.len, dir, Attrs::MMIO);
            if let Err(e) = linked {
                self.dma_iova_destroy(m, dev, state, mapped, dir, Attrs::MMIO);
                return Err(e);
            }
            mapped += r.len;
        }
        let synced = self.dma_iova_sync(dev, state, 0, mapped);
        if synced.is_err() {
            self.dma_iova_destroy(m, dev, state, mapped, dir, Attrs::MMIO);
        }
        synced
    }

    /// Maps every range by itself.
    fn map_ranges(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        ranges: &[PhysVec],
        dir: Direction,
    ) -> Result<Vec<DmaAddr>, MapError> {
        let mut each = Vec::with_capacity(ranges.len());
        for r in ranges {
            match self.dma_map_phys(m, dev, r.phys, r.len, dir, Attrs::MMIO) {
                Ok(dma) => each.push(dma),
                Err(e) => {
                    self.unmap_ranges(m, dev, &each, ranges, dir);
                    if self.config.quirks.dmabuf_unwinds_all_entries {
                        // The entries of the ranges that were not mapped are still zero.
                        let unfilled = &ranges[each.len()..];
                        let entries = unfilled.iter().map(|r| r.len.div_ceil(MAX_SEGMENT));
                        for _ in 0..entries.sum() {
                            self.dma_unmap_phys(m, dev, DmaAddr(0), 0, dir, Attrs::MMIO);
                        }
                    }
                    return Err(e);
                }
            }
        }
        Ok(each)
    }

    /// Unmaps what [`Self::map_ranges`] mapped. Linux 7.2 walks the entries instead, which are
    /// pieces of a range that is longer than an entry.
    fn unmap_ranges(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        each: &[DmaAddr],
        ranges: &[PhysVec],
        dir: Direction,
    ) {
        for (dma, r) in each.iter().zip(ranges) {
            let mut pieces = Vec::new();
            if self.config.quirks.dmabuf_unmaps_by_entry {
                fill(&mut pieces, *dma, r.len);
            } else {
                pieces.push(DmaSegment {
                    dma: *dma,
                    len: r.len,
                });
            }
            for p in pieces {
                self.dma_unmap_phys(m, dev, p.dma, p.len, dir, Attrs::MMIO);
            }
        }
    }

    /// `dma_buf_free_sgt`: undoes [`Dma::dma_buf_phys_vec_to_sgt`].
    pub fn dma_buf_free_sgt(&mut self, m: &mut dyn Machine, dev: DeviceId, sgt: DmaSgt) {
        let (size, dir) = (sgt.size(), sgt.dir);
        match sgt.mapped {
            Mapped::Bus => {}
            Mapped::Iova(mut state) => {
                self.dma_iova_destroy(m, dev, &mut state, size, dir, Attrs::MMIO);
            }
            Mapped::Each(each) => self.unmap_ranges(m, dev, &each, &sgt.ranges, dir),
        }
    }
}
