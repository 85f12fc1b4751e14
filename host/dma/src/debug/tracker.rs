//! The tracker: what is noted at a mapping, and what is compared at an unmap and a sync.

use tlproof_pcie::{DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    device::{Device, DeviceId},
};

use super::{
    Area, Areas, Entry, EntryType, Log, MapErr, Options, Report,
    cacheline::{Cachelines, is_clean},
    entry::Table,
};

/// Attributes that map and unmap must agree on (D11).
const MATTER: Attrs = Attrs::NO_KERNEL_MAPPING
    .union(Attrs::FORCE_CONTIGUOUS)
    .union(Attrs::MMIO)
    .union(Attrs::REQUIRE_COHERENT)
    .union(Attrs::PRIVILEGED)
    .union(Attrs::CC_SHARED);

/// What kind of memory a buffer is, beyond its [`Area`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// Main memory.
    Ram,
    /// Pages of a device (`ZONE_DEVICE`), which are all `PageReserved`.
    Device,
    /// None.
    None,
}

/// The table of mappings and its log.
#[derive(Clone, Debug)]
pub struct DmaDebug {
    /// What was reported.
    pub log: Log,
    options: Options,
    table: Table,
    lines: Cachelines,
    /// Entries for which there is memory.
    capacity: usize,
    disabled: bool,
}

impl DmaDebug {
    /// A tracker without entries.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            log: Log::new(&options),
            table: Table::default(),
            lines: Cachelines::default(),
            capacity: options.entries,
            disabled: false,
            options,
        }
    }

    /// `dma-api/disabled`: the tracker has given up.
    #[must_use]
    pub const fn disabled(&self) -> bool {
        self.disabled
    }

    /// `dma-api/dump`: the live entries, by device and address.
    pub fn dump(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter()
    }

    /// Number of live entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.table.len == 0
    }

    /// Entries allocated; grows by [`Options::entries`] at a time.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// `add_dma_entry`. `hidden` says that overlaps are hidden by bouncing. True when a line has
    /// more overlaps than can be counted.
    pub(super) fn add(&mut self, d: &Device, entry: Entry, hidden: bool) -> bool {
        if self.options.max_entries == Some(self.table.len) {
            self.disabled = true;
            return false;
        }
        if self.table.len == self.capacity {
            self.capacity += self.options.entries.max(1);
        }
        let found = self
            .lines
            .insert(&entry, self.options.l1_cache_bytes.max(1));
        let (phys, attrs) = (entry.phys, entry.attrs);
        self.table.add(entry);
        let Some(found) = found else { return false };
        let allowed = attrs.contains(Attrs::SKIP_CPU_SYNC)
            || (found.first_is_clean && is_clean(attrs))
            || self.options.cache_alignment < self.options.l1_cache_bytes
            || hidden;
        if !allowed {
            self.log.report(d, Report::CachelineOverlap { phys });
        }
        found.exceeded
    }

    /// `debug_dma_map_single`, before the page is mapped.
    pub(super) fn map_single(
        &mut self,
        d: &Device,
        areas: &Areas,
        pages: Pages,
        phys: PhysAddr,
        size: u64,
    ) {
        if self.disabled {
            return;
        }
        if pages == Pages::None {
            self.log.report(d, Report::InvalidArea { phys, size });
        }
        if areas.is(Area::Vmalloc, phys) {
            self.log.report(d, Report::VmallocArea { phys, size });
        }
    }

    /// `check_for_stack` and `check_for_illegal_area`.
    fn check_memory(&mut self, d: &Device, areas: &Areas, phys: PhysAddr, size: u64) {
        if areas.is(Area::Stack, phys) {
            self.log.report(d, Report::Stack { phys });
        }
        if areas.is(Area::VmapStack, phys) {
            self.log.report(d, Report::VmapStack { phys });
        }
        if [Area::KernelText, Area::Rodata]
            .iter()
            .any(|a| areas.overlaps(*a, phys, size))
        {
            self.log.report(d, Report::KernelText { phys, size });
        }
    }

    /// `debug_dma_map_phys` of a mapping that came about; the result as of [`DmaDebug::add`].
    pub(super) fn map_phys(
        &mut self,
        d: &Device,
        areas: &Areas,
        pages: Pages,
        entry: Entry,
        hidden: bool,
    ) -> bool {
        if self.disabled {
            return false;
        }
        // The kernel asks its own dma_mapping_error() whether the mapping came about.
        self.mapping_error(entry.dev, entry.dma);
        let phys = entry.phys;
        if !entry.attrs.contains(Attrs::MMIO) {
            self.check_memory(d, areas, phys, entry.size);
        } else if pages == Pages::Ram && !areas.is(Area::Reserved, phys) {
            self.log.report(d, Report::ResourceIsRam { phys });
        }
        self.add(d, entry, hidden)
    }

    /// `debug_dma_map_sg`: all buffers with their lengths, and one entry a segment; the result as
    /// of [`DmaDebug::add`].
    pub(super) fn map_sg(
        &mut self,
        d: &Device,
        areas: &Areas,
        buffers: &[(PhysAddr, u64)],
        segments: Vec<Entry>,
        hidden: bool,
    ) -> bool {
        if self.disabled {
            return false;
        }
        for (phys, length) in buffers {
            self.check_memory(d, areas, *phys, *length);
        }
        let mut exceeded = false;
        for (entry, (_, length)) in segments.into_iter().zip(buffers) {
            if self.options.check_sg {
                self.check_sg_segment(d, *length, entry.dma, entry.size);
            }
            exceeded |= self.add(d, entry, hidden);
        }
        exceeded
    }

    fn check_sg_segment(&mut self, d: &Device, len: u64, start: DmaAddr, size: u64) {
        let (max, boundary) = (d.max_segment_size, d.seg_boundary);
        if len > max {
            self.log.report(d, Report::SgLength { len, max });
        }
        let end = start.offset(size.wrapping_sub(1));
        if (start.0 ^ end.0) & !boundary != 0 {
            self.log.report(
                d,
                Report::SgBoundary {
                    start,
                    end,
                    boundary,
                },
            );
        }
    }

    /// `debug_dma_alloc_coherent`, `debug_dma_alloc_pages`; the result as of [`DmaDebug::add`].
    pub(super) fn alloc(&mut self, d: &Device, entry: Entry, hidden: bool) -> bool {
        !self.disabled && self.add(d, entry, hidden)
    }

    /// `debug_dma_mapping_error`.
    pub(super) fn mapping_error(&mut self, dev: DeviceId, dma: DmaAddr) {
        if !self.disabled {
            self.table.check(dev, dma);
        }
    }

    /// `check_unmap`.
    pub(super) fn unmap(&mut self, d: &Device, r: &Entry) {
        if self.disabled {
            return;
        }
        let (dma, size) = (r.dma, r.size);
        let Some(e) = self.table.remove_exact(r) else {
            let report = if dma.0 == u64::MAX {
                Report::FreeInvalid
            } else {
                // The kernel asks dma_mapping_error() which of the two it is.
                self.mapping_error(r.dev, dma);
                Report::FreeNotAllocated { dma, size }
            };
            self.log.report(d, report);
            return;
        };
        self.lines.remove(&e, self.options.l1_cache_bytes.max(1));
        let log = &mut self.log;
        if e.size != size {
            log.report(
                d,
                Report::FreeSize {
                    dma,
                    mapped: e.size,
                    unmapped: size,
                },
            );
        }
        if e.kind != r.kind {
            log.report(
                d,
                Report::FreeFunction {
                    dma,
                    size,
                    mapped: e.kind,
                    unmapped: r.kind,
                },
            );
        } else if matches!(e.kind, EntryType::Coherent | EntryType::Noncoherent) && e.phys != r.phys
        {
            log.report(
                d,
                Report::FreeCpuAddress {
                    dma,
                    size,
                    mapped: e.phys,
                    unmapped: r.phys,
                },
            );
        }
        if r.kind == EntryType::Sg && r.sg_call_ents != 0 && r.sg_call_ents != e.sg_call_ents {
            log.report(
                d,
                Report::FreeSgCount {
                    mapped: e.sg_call_ents,
                    unmapped: r.sg_call_ents,
                },
            );
        }
        if e.dir != r.dir {
            log.report(
                d,
                Report::FreeDirection {
                    dma,
                    size,
                    mapped: e.dir,
                    unmapped: r.dir,
                },
            );
        }
        if e.map_err == MapErr::NotChecked {
            let kind = e.kind;
            log.report(d, Report::MapErrorNotChecked { dma, size, kind });
        }
        if (e.attrs ^ r.attrs).intersects(MATTER) {
            log.report(
                d,
                Report::FreeAttrs {
                    dma,
                    size,
                    mapped: e.attrs,
                    unmapped: r.attrs,
                },
            );
        }
    }

    /// `get_nr_mapped_entries`: segments of the list that begins with `first`; 0 when there is none.
    fn mapped_entries(&self, first: &Entry) -> usize {
        self.table.find_exact(first).map_or(0, |e| e.sg_mapped_ents)
    }

    /// `debug_dma_unmap_sg`: the entries of the call, one for each of the list.
    pub(super) fn unmap_sg(&mut self, d: &Device, list: &[Entry]) {
        if self.disabled {
            return;
        }
        let Some(first) = list.first() else { return };
        // An unknown list is looked up entry by entry, to its end.
        let n = match self.mapped_entries(first) {
            0 => list.len(),
            n => n,
        };
        for r in list.iter().take(n) {
            self.unmap(d, r);
        }
    }

    /// `debug_dma_sync_sg_for_cpu` and `_for_device`: an unknown list is no error.
    pub(super) fn sync_sg(&mut self, d: &Device, list: &[Entry], to_cpu: bool) {
        let n = list.first().map_or(0, |first| self.mapped_entries(first));
        for r in list.iter().take(n) {
            self.sync(d, r, to_cpu);
        }
    }

    /// `check_sync`.
    pub(super) fn sync(&mut self, d: &Device, r: &Entry, to_cpu: bool) {
        if self.disabled {
            return;
        }
        let (dma, size) = (r.dma, r.size);
        let Some(e) = self.table.find_containing(r) else {
            self.log.report(d, Report::SyncNotAllocated { dma, size });
            return;
        };
        let (mapped, synced) = (e.dir, r.dir);
        let counts = (e.sg_call_ents, r.sg_call_ents);
        let log = &mut self.log;
        if size > e.size {
            log.report(
                d,
                Report::SyncRange {
                    dma,
                    mapped: e.size,
                    synced: size,
                },
            );
        }
        if mapped.device_reads() && mapped.device_writes() {
            return;
        }
        if synced != mapped {
            log.report(
                d,
                Report::SyncDirection {
                    dma,
                    size,
                    mapped,
                    synced,
                },
            );
        }
        if to_cpu && !mapped.device_writes() && synced.device_writes() {
            log.report(
                d,
                Report::SyncReadOnly {
                    dma,
                    size,
                    mapped,
                    synced,
                },
            );
        }
        if !to_cpu && !mapped.device_reads() && synced.device_reads() {
            log.report(
                d,
                Report::SyncWriteOnly {
                    dma,
                    size,
                    mapped,
                    synced,
                },
            );
        }
        if r.kind == EntryType::Sg && counts.1 != 0 && counts.0 != counts.1 {
            log.report(
                d,
                Report::SyncSgCount {
                    mapped: counts.0,
                    synced: counts.1,
                },
            );
        }
    }

    /// `dma_debug_device_change`: the driver of a device is unbound.
    pub(super) fn unbound(&mut self, dev: DeviceId, d: &Device) {
        if self.disabled {
            return;
        }
        let count = self.table.of(dev).count();
        if let Some(e) = self.table.of(dev).last() {
            let report = Report::PendingAllocations {
                count,
                dma: e.dma,
                size: e.size,
                dir: e.dir,
                kind: e.kind,
            };
            self.log.report(d, report);
        }
    }
}
