//! Deferred invalidation: unmapped ranges wait until the whole domain is invalidated.

use std::collections::VecDeque;

use tlproof_pcie::PhysAddr;

/// Entries of the ring of a CPU, one of which stays free, and milliseconds from the first queued
/// range to the flush (`IOVA_DEFAULT_FQ_SIZE`, `IOVA_DEFAULT_FQ_TIMEOUT`).
const PER_CPU: (usize, u64) = (256, 10);

/// The same for one ring of all CPUs (`IOVA_SINGLE_FQ_SIZE`, `IOVA_SINGLE_FQ_TIMEOUT`).
const SINGLE: (usize, u64) = (32768, 1000);

/// A range that was unmapped and may still be in an IOTLB.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// First granule.
    pub pfn: u64,
    /// Granules.
    pub pages: u64,
    /// Table pages to free.
    pub freelist: Vec<PhysAddr>,
    /// Flushes that had begun when it was queued; a later one that has finished covers it.
    started: u64,
}

/// The rings of a domain: one for each CPU, or one for all where a flush is costly.
#[derive(Clone, Debug)]
pub(crate) struct FlushQueue {
    rings: Vec<VecDeque<Pending>>,
    size: usize,
    started: u64,
    finished: u64,
    deadline: Option<u64>,
    timeout: u64,
}

impl FlushQueue {
    /// A ring for each CPU.
    pub(crate) fn per_cpu(cpus: usize, cycles_per_ms: u64) -> Self {
        Self::new(cpus, PER_CPU, cycles_per_ms)
    }

    /// One ring.
    pub(crate) fn single(cycles_per_ms: u64) -> Self {
        Self::new(1, SINGLE, cycles_per_ms)
    }

    fn new(rings: usize, (size, timeout_ms): (usize, u64), cycles_per_ms: u64) -> Self {
        Self {
            rings: vec![VecDeque::new(); rings.max(1)],
            size,
            started: 0,
            finished: 0,
            deadline: None,
            timeout: timeout_ms.saturating_mul(cycles_per_ms),
        }
    }

    /// Whether the ring of this CPU takes no more.
    pub(crate) fn full(&self, cpu: usize) -> bool {
        self.rings[cpu % self.rings.len()].len() >= self.size - 1
    }

    /// Ranges in all rings.
    pub(crate) fn pending(&self) -> usize {
        self.rings.iter().map(VecDeque::len).sum()
    }

    pub(crate) fn push(
        &mut self,
        cpu: usize,
        now: u64,
        pfn: u64,
        pages: u64,
        freelist: Vec<PhysAddr>,
    ) {
        let started = self.started;
        let ring = cpu % self.rings.len();
        self.rings[ring].push_back(Pending {
            pfn,
            pages,
            freelist,
            started,
        });
        self.deadline
            .get_or_insert(now.saturating_add(self.timeout));
    }

    /// Counts a flush that begins.
    pub(crate) const fn begin(&mut self) {
        self.started += 1;
    }

    /// Counts a flush whose fence is complete.
    pub(crate) const fn finish(&mut self) {
        self.finished += 1;
    }

    /// Whether the timer has run out; it is stopped then.
    pub(crate) fn expired(&mut self, now: u64) -> bool {
        let expired = self.deadline.is_some_and(|t| now >= t);
        if expired {
            self.deadline = None;
        }
        expired
    }

    /// Takes the ranges of one ring that a finished flush covers.
    pub(crate) fn take_flushed(&mut self, cpu: usize) -> Vec<Pending> {
        let finished = self.finished;
        let ring = cpu % self.rings.len();
        let n = self.rings[ring]
            .iter()
            .take_while(|p| p.started < finished)
            .count();
        self.rings[ring].drain(..n).collect()
    }

    /// The table pages of all that waits; the domain is gone.
    pub(crate) fn into_freelist(self) -> Vec<PhysAddr> {
        let pending = self.rings.into_iter().flatten();
        pending.flat_map(|p| p.freelist).collect()
    }

    /// Number of rings.
    pub(crate) fn cpus(&self) -> usize {
        self.rings.len()
    }
}

#[cfg(test)]
mod tests;
