//! What every live mapping promises, computed from the arguments of the call that made it.

use std::collections::BTreeMap;

use tlproof_pcie::{Bdf, Direction, DmaAddr, MemType, PhysAddr};

use crate::{attrs::Attrs, device::DeviceId, iommu::DomainId};

/// The interface that made a mapping; the one that undoes it must be its counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// `dma_map_phys` and its wrappers.
    Phys,
    /// `dma_map_sg`.
    Sg,
    /// `dma_iova_link`.
    Iova,
    /// `dma_alloc_attrs`.
    Coherent,
    /// `dma_alloc_pages` and `dma_alloc_noncontiguous`.
    Noncoherent,
}

/// The way of the device's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// To main memory.
    Memory,
    /// To a peer or another device, through the host bridge.
    ThroughBridge,
    /// To a peer by its bus address, below the host bridge.
    BusAddress,
}

/// Bytes that follow each other in DMA and physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address as the device sees it.
    pub dma: DmaAddr,
    /// Where a request ends up: the buffer, or its bounce slot.
    pub target: PhysAddr,
    /// Bytes.
    pub len: u64,
    /// The driver's buffer when `target` is a bounce slot.
    pub bounced: Option<PhysAddr>,
}

/// What a request for the mapped bytes must look like behind the host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// Memory type.
    pub mem_type: MemType,
    /// Whether it looks into the CPU caches; `None` leaves it to the request's No Snoop and to the
    /// bridge (a non-coherent device without translation).
    pub snoop: Option<bool>,
}

/// A live mapping: the promise to the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Requester ID.
    pub device: Bdf,
    /// First address as the device sees it.
    pub dma: DmaAddr,
    /// Bytes.
    pub size: u64,
    /// Who may read and write.
    pub dir: Direction,
    /// Attributes of the call.
    pub attrs: Attrs,
    /// Interface that made it.
    pub api: Api,
    /// IOMMU domain, unless the device is not translated.
    pub domain: Option<DomainId>,
    /// The way of the requests.
    pub route: Route,
    /// Memory type and snooping by the intended rule, whatever the profile does.
    pub expected: Expected,
    /// Where the bytes are, ascending and without a gap.
    pub segments: Vec<Segment>,
    /// Granule of the translation in bytes (1 without one): the device also reaches what shares
    /// the first and last granule.
    pub granule: u64,
}

impl Mapping {
    /// Whether a DMA address is inside.
    #[must_use]
    pub const fn contains(&self, dma: DmaAddr) -> bool {
        dma.0 >= self.dma.0 && dma.0 - self.dma.0 < self.size
    }

    /// The physical address behind a DMA address of the mapping.
    #[must_use]
    pub fn target(&self, dma: DmaAddr) -> Option<PhysAddr> {
        self.segments.iter().find_map(|s| {
            let off = dma.0.checked_sub(s.dma.0)?;
            (off < s.len).then(|| s.target.offset(off))
        })
    }
}

/// Equal mappings of one address, counted: a direct mapping needs no unmap and is often repeated.
#[derive(Clone, Debug)]
struct Entry {
    mapping: Mapping,
    count: u64,
}

/// The live mappings, and those whose translation may still be cached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    live: BTreeMap<(DeviceId, DmaAddr), Vec<Entry>>,
    draining: Vec<Mapping>,
    /// Longest mapping so far: how far back a search for a containing mapping goes.
    longest: u64,
}

impl Ledger {
    pub(crate) fn insert(&mut self, dev: DeviceId, mapping: Mapping) {
        self.longest = self.longest.max(mapping.size);
        let entries = self.live.entry((dev, mapping.dma)).or_default();
        match entries.iter_mut().find(|e| e.mapping == mapping) {
            Some(e) => e.count += 1,
            None => entries.push(Entry { mapping, count: 1 }),
        }
    }

    /// Takes the mapping at `dma` that fits best: size first, then direction and attributes.
    pub(crate) fn remove(
        &mut self,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Option<Mapping> {
        let entries = self.live.get_mut(&(dev, dma))?;
        let best = (0..entries.len()).max_by_key(|i| {
            let m = &entries[*i].mapping;
            // The oldest of equals, as max_by_key takes the last.
            (
                m.size == size,
                m.dir == dir,
                m.attrs == attrs,
                usize::MAX - i,
            )
        })?;
        let entry = &mut entries[best];
        entry.count -= 1;
        if entry.count > 0 {
            return Some(entry.mapping.clone());
        }
        let mapping = entries.remove(best).mapping;
        if entries.is_empty() {
            self.live.remove(&(dev, dma));
        }
        Some(mapping)
    }

    /// Takes all mappings of one interface that start in `[dma, dma + size)`.
    pub(crate) fn remove_range(
        &mut self,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        api: Api,
    ) -> Vec<Mapping> {
        let last = DmaAddr(dma.0.saturating_add(size.saturating_sub(1)));
        let keys: Vec<_> = self
            .live
            .range((dev, dma)..=(dev, last))
            .map(|(k, _)| *k)
            .collect();
        let mut taken = Vec::new();
        for key in keys {
            if let Some(entries) = self.live.get_mut(&key) {
                taken.extend(
                    entries
                        .extract_if(.., |e| e.mapping.api == api)
                        .map(|e| e.mapping),
                );
                if entries.is_empty() {
                    self.live.remove(&key);
                }
            }
        }
        taken
    }

    /// The youngest live mapping that contains an address.
    pub(crate) fn find(&self, dev: DeviceId, dma: DmaAddr) -> Option<&Mapping> {
        let first = DmaAddr(dma.0.saturating_sub(self.longest));
        self.live
            .range((dev, first)..=(dev, dma))
            .rev()
            .flat_map(|(_, entries)| entries.iter().rev())
            .map(|e| &e.mapping)
            .find(|m| m.contains(dma))
    }

    /// Takes everything of a device that is gone, equal mappings once.
    pub(crate) fn remove_device(&mut self, dev: DeviceId, bdf: Bdf) -> Vec<Mapping> {
        self.draining.retain(|m| m.device != bdf);
        let (first, last) = ((dev, DmaAddr(0)), (dev, DmaAddr(u64::MAX)));
        let keys = self.live.range(first..=last).map(|(k, _)| *k);
        let keys: Vec<_> = keys.collect();
        let entries = keys.iter().filter_map(|k| self.live.remove(k)).flatten();
        entries.map(|e| e.mapping).collect()
    }

    /// Keeps a mapping until its domain is flushed.
    pub(crate) fn drain(&mut self, mapping: Mapping) {
        self.draining.push(mapping);
    }

    /// The domain was flushed.
    pub(crate) fn flushed(&mut self, domain: DomainId) {
        self.draining.retain(|m| m.domain != Some(domain));
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Mapping> {
        self.live.values().flatten().map(|e| &e.mapping)
    }

    pub(crate) fn draining(&self) -> &[Mapping] {
        &self.draining
    }
}
