//! Cache lines that a device may write: two mappings of one line at a time would let the CPU's
//! maintenance for one destroy what the device wrote for the other.

use std::collections::BTreeMap;

use crate::attrs::Attrs;

use super::Entry;

/// Overlaps that can be counted (three tag bits).
pub const MAX_OVERLAP: u8 = 7;

/// What insertion of a mapping found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The line is tracked already, by a mapping that is clean.
    pub first_is_clean: bool,
    /// The counter is exhausted.
    pub exceeded: bool,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    /// The attributes of the first mapping, kept until no mapping is left.
    clean: bool,
    overlap: u8,
}

/// The lines, by number. Only the first line of a mapping counts, and only of mappings through
/// which the device writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Cachelines(BTreeMap<u64, Line>);

/// Whether the caller takes the overlap upon itself.
pub(super) const fn is_clean(attrs: Attrs) -> bool {
    attrs.intersects(Attrs::DEBUGGING_IGNORE_CACHELINES.union(Attrs::REQUIRE_COHERENT))
}

impl Cachelines {
    /// Tracks the first line of a mapping; something if the line was tracked before.
    pub fn insert(&mut self, entry: &Entry, line_bytes: u64) -> Option<Found> {
        if !entry.dir.device_writes() {
            return None;
        }
        let number = entry.phys.0 / line_bytes;
        let Some(line) = self.0.get_mut(&number) else {
            let clean = is_clean(entry.attrs);
            self.0.insert(number, Line { clean, overlap: 0 });
            return None;
        };
        let exceeded = line.overlap == MAX_OVERLAP;
        line.overlap = MAX_OVERLAP.min(line.overlap + 1);
        Some(Found {
            first_is_clean: line.clean,
            exceeded,
        })
    }

    pub fn remove(&mut self, entry: &Entry, line_bytes: u64) {
        if !entry.dir.device_writes() {
            return;
        }
        let number = entry.phys.0 / line_bytes;
        if let Some(line) = self.0.get_mut(&number) {
            match line.overlap.checked_sub(1) {
                Some(overlap) => line.overlap = overlap,
                None => {
                    self.0.remove(&number);
                }
            }
        }
    }
}
