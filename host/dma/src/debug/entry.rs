//! One entry a mapping, and the rules by which a call finds its entry.

use std::{collections::BTreeMap, fmt};

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::{attrs::Attrs, device::DeviceId};

/// log2 of the addresses that share a bucket of the kernel's hash table. Where several entries
/// contain a range, those of one bucket are judged together.
const HASH_FN_SHIFT: u32 = 13;

/// The interface that made a mapping, by its name in the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryType {
    /// What a sync of one range asks for; no mapping is of this type any more.
    Single,
    /// `dma_map_sg`.
    Sg,
    /// `dma_alloc_attrs`.
    Coherent,
    /// `dma_alloc_pages`.
    Noncoherent,
    /// `dma_map_phys` and its wrappers.
    Phy,
}

impl fmt::Display for EntryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single => "single",
            Self::Sg => "scatter-gather",
            Self::Coherent => "coherent",
            Self::Noncoherent => "noncoherent",
            Self::Phy => "phy",
        })
    }
}

/// Whether the driver looked for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapErr {
    /// Its interface says by other means.
    NotApplicable,
    /// Not yet.
    NotChecked,
    /// It did.
    Checked,
}

/// A mapping as the driver asked for it, or a question for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The device.
    pub dev: DeviceId,
    /// Address as the device sees it.
    pub dma: DmaAddr,
    /// Bytes.
    pub size: u64,
    /// Interface.
    pub kind: EntryType,
    /// Direction.
    pub dir: Direction,
    /// Buffers of the list, 0 without one.
    pub sg_call_ents: usize,
    /// Segments made of them.
    pub sg_mapped_ents: usize,
    /// The buffer.
    pub phys: PhysAddr,
    /// Attributes.
    pub attrs: Attrs,
    /// Whether the driver looked for a failure.
    pub map_err: MapErr,
}

impl Entry {
    /// In how many respects an entry fits a reference, 4 at most.
    fn fit(&self, reference: &Self) -> u8 {
        u8::from(self.size == reference.size)
            + u8::from(self.kind == reference.kind)
            + u8::from(self.dir == reference.dir)
            + u8::from(self.sg_call_ents == reference.sg_call_ents)
    }

    /// Whether the whole of `reference` lies inside; sums wrap as the kernel's do.
    const fn contains(&self, reference: &Self) -> bool {
        self.dma.0 <= reference.dma.0
            && self.dma.0.wrapping_add(self.size) >= reference.dma.0.wrapping_add(reference.size)
    }
}

/// The first that fits in all respects, else the only one: several that fit only in part are as
/// good as none, because a choice between them would be a guess.
fn best<'a, T>(
    reference: &Entry,
    candidates: impl Iterator<Item = (T, &'a Entry)>,
) -> Option<(T, &'a Entry)> {
    let mut only = None;
    let mut several = false;
    for (at, entry) in candidates {
        if entry.fit(reference) == 4 {
            return Some((at, entry));
        }
        several |= only.is_some();
        only = Some((at, entry));
    }
    only.filter(|_| !several)
}

/// All entries, by device and address.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    entries: BTreeMap<(DeviceId, DmaAddr), Vec<Entry>>,
    /// Number of entries.
    pub len: usize,
    /// Longest entry so far: how far back a search for a containing one goes.
    longest: u64,
}

impl Table {
    pub fn add(&mut self, entry: Entry) {
        self.len += 1;
        self.longest = self.longest.max(entry.size);
        let at = (entry.dev, entry.dma);
        self.entries.entry(at).or_default().push(entry);
    }

    /// The entry at exactly the address of `reference` (`bucket_find_exact`).
    pub fn find_exact(&self, reference: &Entry) -> Option<&Entry> {
        let list = self.entries.get(&(reference.dev, reference.dma))?;
        best(reference, list.iter().enumerate()).map(|(_, e)| e)
    }

    /// As [`Table::find_exact`], and takes it out.
    pub fn remove_exact(&mut self, reference: &Entry) -> Option<Entry> {
        let at = (reference.dev, reference.dma);
        let list = self.entries.get_mut(&at)?;
        let (index, _) = best(reference, list.iter().enumerate())?;
        let entry = list.remove(index);
        if list.is_empty() {
            self.entries.remove(&at);
        }
        self.len -= 1;
        Some(entry)
    }

    /// The entry that contains `reference` (`bucket_find_contain`): bucket by bucket downwards, in
    /// each of them by the rule of the best fit.
    pub fn find_containing(&self, reference: &Entry) -> Option<&Entry> {
        let bucket = |at: DmaAddr| at.0 >> HASH_FN_SHIFT;
        let first = DmaAddr(reference.dma.0.saturating_sub(self.longest));
        let range = (reference.dev, first)..=(reference.dev, reference.dma);
        let containing: Vec<&Entry> = (self.entries.range(range))
            .flat_map(|(_, list)| list)
            .filter(|e| e.contains(reference))
            .collect();
        containing
            .chunk_by(|a, b| bucket(a.dma) == bucket(b.dma))
            .rev()
            .find_map(|chunk| best(reference, chunk.iter().map(|e| ((), *e))))
            .map(|(_, e)| e)
    }

    /// The oldest entry at an address that is not checked for failure is checked now.
    pub fn check(&mut self, dev: DeviceId, dma: DmaAddr) {
        let list = self.entries.get_mut(&(dev, dma));
        if let Some(entry) =
            list.and_then(|list| list.iter_mut().find(|e| e.map_err == MapErr::NotChecked))
        {
            entry.map_err = MapErr::Checked;
        }
    }

    /// All entries of all devices.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().flatten()
    }

    pub fn of(&self, dev: DeviceId) -> impl Iterator<Item = &Entry> {
        let range = (dev, DmaAddr(0))..=(dev, DmaAddr(u64::MAX));
        self.entries.range(range).flat_map(|(_, list)| list)
    }
}
