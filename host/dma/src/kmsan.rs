//! Uninitialised memory that a device would read (`kmsan_handle_dma`).
//!
//! A shadow says of every byte of main memory whether it holds something. Memory counts as
//! initialised until somebody poisons it, so only what a driver takes from an allocator has to be
//! told: [`Dma::kmsan_poison`](crate::Dma). Then
//!
//! - [`Dma::cpu_write`](crate::Dma) and [`Dma::kmsan_unpoison`](crate::Dma) initialise, and so does
//!   a coherent allocation, which is zeroed;
//! - a mapping through which the device reads reports what is not initialised; one through which it
//!   writes initialises all of it; one for both first reports and then initialises;
//! - copies into bounce slots carry the shadow along. A copy out of a slot was written by the
//!   device: without that, the poison that went in at the mapping would come back.
//!
//! The check is made by `dma_map_phys` without MMIO, whether the mapping came about or not, by
//! `dma_map_sg` for every buffer if it did, never by `dma_iova_link`, and by a driver that bypasses
//! the DMA API (virtio) by hand: [`Dma::kmsan_handle_dma`](crate::Dma).

use std::{collections::BTreeMap, fmt};

use tlproof_pcie::{Direction, PhysAddr};

use crate::{dma::Dma, iommu::IommuDriver, machine::Machine, pages::PAGE_SIZE as PAGE};

/// Reports that are kept; all are counted.
const KEPT: usize = 256;

/// A run of uninitialised bytes that a device may read. The check goes page by page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UninitValue {
    /// First byte that was checked: the buffer's part of one page.
    pub start: PhysAddr,
    /// Bytes that were checked.
    pub size: u64,
    /// First byte of the run, from `start`.
    pub first: u64,
    /// Last byte of the run, from `start`.
    pub last: u64,
}

impl fmt::Display for UninitValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "BUG: KMSAN: uninit-value in kmsan_handle_dma: bytes {}-{} of {} are uninitialized, \
             memory access of size {} starts at {:#x}",
            self.first, self.last, self.size, self.size, self.start
        )
    }
}

/// The shadow and what it found.
#[derive(Clone, Debug, Default)]
pub struct Kmsan {
    /// Uninitialised runs, first byte to last, apart from each other.
    poison: BTreeMap<u64, u64>,
    reports: Vec<UninitValue>,
    count: u64,
}

impl Kmsan {
    /// The first reports.
    #[must_use]
    pub fn reports(&self) -> &[UninitValue] {
        &self.reports
    }

    /// All reports.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Uninitialised runs in `[first, last]`, ascending.
    fn runs(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> {
        // The run before may reach in.
        let before = self.poison.range(..first).next_back();
        let inside = self.poison.range(first..=last);
        (before.into_iter().chain(inside))
            .filter(move |(_, end)| **end >= first)
            .map(move |(start, end)| ((*start).max(first), (*end).min(last)))
    }

    fn first_poison(&self, first: u64, last: u64) -> Option<u64> {
        self.runs(first, last).next().map(|(start, _)| start)
    }

    fn unpoison(&mut self, first: u64, last: u64) {
        let runs: Vec<(u64, u64)> = self.runs(first, last).collect();
        for (start, end) in runs {
            let Some((begin, stop)) = self.poison.range(..=start).next_back() else {
                continue;
            };
            let (begin, stop) = (*begin, *stop);
            self.poison.remove(&begin);
            if begin < start {
                self.poison.insert(begin, start - 1);
            }
            if stop > end {
                self.poison.insert(end + 1, stop);
            }
        }
    }

    fn poison(&mut self, first: u64, last: u64) {
        self.unpoison(first, last);
        self.poison.insert(first, last);
    }

    /// `kmsan_handle_dma_page`.
    fn page(&mut self, first: u64, last: u64, dir: Direction) {
        if dir.device_reads() {
            let found = self.runs(first, last).map(|(start, end)| UninitValue {
                start: PhysAddr(first),
                size: last - first + 1,
                first: start - first,
                last: end - first,
            });
            let found: Vec<_> = found.collect();
            self.count += found.len() as u64;
            let room = KEPT.saturating_sub(self.reports.len());
            self.reports.extend(found.into_iter().take(room));
        }
        if dir.device_writes() {
            self.unpoison(first, last);
        }
    }
}

/// First and last byte; `None` without any.
fn ends(phys: PhysAddr, size: u64) -> Option<(u64, u64)> {
    let last = phys.0.saturating_add(size.checked_sub(1)?);
    Some((phys.0, last))
}

impl<I: IommuDriver> Dma<I> {
    /// The shadow, if [`Config::kmsan`](crate::Config) is set.
    #[must_use]
    pub fn kmsan(&self) -> Option<&Kmsan> {
        self.kmsan.as_deref()
    }

    /// The bytes were allocated and hold nothing.
    pub fn kmsan_poison(&mut self, phys: PhysAddr, size: u64) {
        if let (Some(kmsan), Some((first, last))) = (&mut self.kmsan, ends(phys, size)) {
            kmsan.poison(first, last);
        }
    }

    /// The bytes were written.
    pub fn kmsan_unpoison(&mut self, phys: PhysAddr, size: u64) {
        if let (Some(kmsan), Some((first, last))) = (&mut self.kmsan, ends(phys, size)) {
            kmsan.unpoison(first, last);
        }
    }

    /// A driver writes a buffer through the CPU caches.
    pub fn cpu_write(&mut self, m: &mut dyn Machine, phys: PhysAddr, data: &[u8]) {
        m.mem_write(phys, data);
        self.kmsan_unpoison(phys, data.len() as u64);
    }

    /// `kmsan_handle_dma`: page by page, what the device may read is checked and what it may write
    /// is initialised from here on.
    pub fn kmsan_handle_dma(&mut self, phys: PhysAddr, size: u64, dir: Direction) {
        let (Some(kmsan), Some((mut first, last))) = (&mut self.kmsan, ends(phys, size)) else {
            return;
        };
        // In a page without an uninitialised byte there is nothing to do.
        while let Some(found) = kmsan.first_poison(first, last) {
            let end = last.min(found | (PAGE - 1));
            kmsan.page(first.max(found & !(PAGE - 1)), end, dir);
            if end == last {
                return;
            }
            first = end + 1;
        }
    }

    /// A copy by the CPU: what is not initialised in the source is not in the target.
    pub(crate) fn kmsan_copy(&mut self, from: PhysAddr, to: PhysAddr, size: u64) {
        let Some(kmsan) = &mut self.kmsan else { return };
        let (Some((first, last)), Some((start, end))) = (ends(from, size), ends(to, size)) else {
            return;
        };
        let runs: Vec<_> = kmsan.runs(first, last).collect();
        kmsan.unpoison(start, end);
        for (a, b) in runs {
            kmsan.poison(start + (a - first), start + (b - first));
        }
    }
}

#[cfg(test)]
mod tests;
