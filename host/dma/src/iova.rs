//! The IOVA allocator: top-down, naturally aligned, 32-bit space first, with per-CPU caches.

use std::collections::BTreeMap;

/// Page frame number of the node that stands above all others.
const ANCHOR: u64 = u64::MAX;

/// Sizes of 2^0 to 2^5 granules are cached (`IOVA_RANGE_CACHE_MAX_SIZE`).
const CACHED_ORDERS: usize = 6;

/// Entries of a magazine (`IOVA_MAG_SIZE`).
const MAGAZINE: usize = 127;

/// A stack of freed ranges of one size.
type Magazine = Vec<u64>;

/// The two magazines of a CPU.
#[derive(Clone, Debug, Default)]
struct CpuCache {
    loaded: Magazine,
    prev: Magazine,
}

/// Freed ranges of one size.
#[derive(Clone, Debug, Default)]
struct Rcache {
    cpus: Vec<CpuCache>,
    depot: Vec<Magazine>,
}

impl Rcache {
    fn insert(&mut self, cpu: usize, pfn: u64) {
        let c = &mut self.cpus[cpu];
        if c.loaded.len() == MAGAZINE {
            if c.prev.len() == MAGAZINE {
                self.depot.push(std::mem::take(&mut c.loaded));
            } else {
                std::mem::swap(&mut c.loaded, &mut c.prev);
            }
        }
        c.loaded.push(pfn);
    }

    /// Takes the youngest entry that is at most `limit`.
    fn get(&mut self, cpu: usize, limit: u64) -> Option<u64> {
        let c = &mut self.cpus[cpu];
        if c.loaded.is_empty() {
            if c.prev.is_empty() {
                c.loaded = self.depot.pop()?;
            } else {
                std::mem::swap(&mut c.loaded, &mut c.prev);
            }
        }
        let i = c.loaded.iter().rposition(|pfn| *pfn <= limit)?;
        Some(c.loaded.swap_remove(i))
    }
}

/// IOVA space of a domain, in granules ("page frames").
#[derive(Clone, Debug)]
pub struct IovaDomain {
    shift: u32,
    start_pfn: u64,
    /// First page frame beyond 32 bits.
    pfn_32bit: u64,
    /// Allocated and reserved ranges, first to last page frame; disjoint.
    nodes: BTreeMap<u64, u64>,
    /// Where the next search below 4 GiB and in all of the space starts: the first page frame of
    /// a node, or the anchor.
    cached32: u64,
    cached: u64,
    /// A request of this size or more below 4 GiB failed and nothing was freed there since.
    max32_alloc_size: u64,
    rcaches: Vec<Rcache>,
}

impl IovaDomain {
    /// An empty space of granules of `1 << shift` bytes (`shift` at most 31) whose first usable
    /// granule is `start_pfn`, at least 1: address 0 means failure.
    #[must_use]
    pub fn new(shift: u32, start_pfn: u64, cpus: usize) -> Self {
        let pfn_32bit = 1 << (32 - shift.min(31));
        let rcache = Rcache {
            cpus: vec![CpuCache::default(); cpus.max(1)],
            depot: Vec::new(),
        };
        Self {
            shift,
            start_pfn: start_pfn.max(1),
            pfn_32bit,
            nodes: BTreeMap::new(),
            cached32: ANCHOR,
            cached: ANCHOR,
            max32_alloc_size: pfn_32bit,
            rcaches: vec![rcache; CACHED_ORDERS],
        }
    }

    /// Granule in bytes.
    #[must_use]
    pub const fn granule(&self) -> u64 {
        1 << self.shift
    }

    /// Part of an address below the granule.
    #[must_use]
    pub const fn offset(&self, addr: u64) -> u64 {
        addr & (self.granule() - 1)
    }

    /// Rounded up to the granule.
    #[must_use]
    pub const fn align(&self, size: u64) -> u64 {
        size.wrapping_add(self.granule() - 1) & !(self.granule() - 1)
    }

    /// Takes `[first, last]` (addresses) out of use, merging with what is taken already.
    pub fn reserve(&mut self, first: u64, last: u64) {
        let (mut lo, mut hi) = (first >> self.shift, last >> self.shift);
        let touching: Vec<u64> = self
            .nodes
            .range(..=hi)
            .rev()
            .take_while(|(_, h)| **h >= lo)
            .map(|(l, _)| *l)
            .collect();
        for l in touching {
            if let Some(h) = self.nodes.remove(&l) {
                lo = lo.min(l);
                hi = hi.max(h);
                // A cached node that was merged away is found under its new first page frame.
                for cached in [&mut self.cached32, &mut self.cached] {
                    if *cached == l {
                        *cached = ANCHOR;
                    }
                }
            }
        }
        self.nodes.insert(lo, hi);
    }

    /// `alloc_iova_fast`: `size` granules whose last is at most `limit_pfn`; with `flush_rcache`
    /// the caches are emptied before the request fails.
    pub fn alloc_fast(
        &mut self,
        cpu: usize,
        size: u64,
        limit_pfn: u64,
        flush_rcache: bool,
    ) -> Option<u64> {
        if size == 0 || limit_pfn == u64::MAX {
            return None;
        }
        let size = if size < 1 << (CACHED_ORDERS - 1) {
            size.next_power_of_two()
        } else {
            size
        };
        let end = limit_pfn + 1;
        if let Some(order) = cached_order(size)
            && let Some(limit) = end.checked_sub(size)
            && let Some(pfn) = self.rcache_get(order, cpu, limit)
        {
            return Some(pfn);
        }
        self.alloc(size, end).or_else(|| {
            if !flush_rcache {
                return None;
            }
            self.flush_rcaches();
            self.alloc(size, end)
        })
    }

    fn rcache_get(&mut self, order: usize, cpu: usize, limit: u64) -> Option<u64> {
        let cpus = self.rcaches[order].cpus.len();
        self.rcaches[order].get(cpu % cpus, limit)
    }

    /// `free_iova_fast`: into the cache of this CPU when the size is cached.
    pub fn free_fast(&mut self, cpu: usize, pfn: u64, size: u64) {
        match cached_order(size) {
            Some(order) => {
                let rcache = &mut self.rcaches[order];
                let cpu = cpu % rcache.cpus.len();
                rcache.insert(cpu, pfn);
            }
            None => self.free(pfn),
        }
    }

    /// Gives one magazine of every depot that is deeper than there are CPUs back to the tree; the
    /// kernel does so every 100 ms.
    pub fn trim_depots(&mut self) {
        for order in 0..CACHED_ORDERS {
            let rcache = &mut self.rcaches[order];
            if rcache.depot.len() > rcache.cpus.len()
                && let Some(magazine) = rcache.depot.pop()
            {
                for pfn in magazine {
                    self.free(pfn);
                }
            }
        }
    }

    /// Number of ranges in the tree, those in the caches included.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.nodes.len()
    }

    fn flush_rcaches(&mut self) {
        let mut freed = Vec::new();
        for rcache in &mut self.rcaches {
            for cpu in &mut rcache.cpus {
                freed.append(&mut cpu.loaded);
                freed.append(&mut cpu.prev);
            }
            freed.extend(rcache.depot.drain(..).flatten());
        }
        for pfn in freed {
            self.free(pfn);
        }
    }

    /// Finds `size` granules below `end`, the highest place first, from the cached node
    /// downwards, and then once more from the top if the search did not start there.
    fn alloc(&mut self, size: u64, end: u64) -> Option<u64> {
        let in_32bit = end <= self.pfn_32bit;
        if in_32bit && size >= self.max32_alloc_size {
            return None;
        }
        let mask = u64::MAX << (u64::BITS - (size - 1).leading_zeros()).min(63);
        let start = if in_32bit { self.cached32 } else { self.cached };
        let start_hi = self.last_of(start);
        let found = self
            .search(start, size, mask, end, self.start_pfn)
            .or_else(|| {
                if start_hi >= end {
                    return None;
                }
                let top = if in_32bit {
                    self.first_at_or_above(end)
                } else {
                    ANCHOR
                };
                self.search(top, size, mask, end, start_hi + 1)
            });
        let Some(pfn) = found else {
            self.max32_alloc_size = size;
            return None;
        };
        let last = pfn + size - 1;
        self.nodes.insert(pfn, last);
        if last < self.pfn_32bit {
            self.cached32 = pfn;
        } else {
            self.cached = pfn;
        }
        Some(pfn)
    }

    /// Highest aligned gap below `high` and below node `from`, at or above `low`.
    fn search(&self, from: u64, size: u64, mask: u64, high: u64, low: u64) -> Option<u64> {
        let mut high = high.min(from);
        let mut below = self.nodes.range(..from).rev();
        loop {
            let pfn = high.wrapping_sub(size) & mask;
            let fits = high >= size && pfn >= low;
            match below.next() {
                Some((lo, hi)) if pfn <= *hi && pfn >= low => high = high.min(*lo),
                _ => return fits.then_some(pfn),
            }
        }
    }

    fn free(&mut self, pfn: u64) {
        let Some((lo, hi)) = self
            .nodes
            .range(..=pfn)
            .next_back()
            .map(|(lo, hi)| (*lo, *hi))
            .filter(|(_, hi)| *hi >= pfn)
        else {
            return;
        };
        let next = self
            .nodes
            .range(lo + 1..)
            .next()
            .map_or(ANCHOR, |(l, _)| *l);
        if lo == self.cached32 || (hi < self.pfn_32bit && lo >= self.cached32) {
            self.cached32 = next;
        }
        if lo < self.pfn_32bit {
            self.max32_alloc_size = self.pfn_32bit;
        }
        if lo >= self.cached {
            self.cached = next;
        }
        self.nodes.remove(&lo);
    }

    fn last_of(&self, first: u64) -> u64 {
        self.nodes.get(&first).copied().unwrap_or(ANCHOR)
    }

    fn first_at_or_above(&self, pfn: u64) -> u64 {
        self.nodes.range(pfn..).next().map_or(ANCHOR, |(l, _)| *l)
    }
}

/// The cache that holds ranges of `size` granules.
fn cached_order(size: u64) -> Option<usize> {
    let order = size.checked_next_power_of_two()?.trailing_zeros() as usize;
    (size > 0 && order < CACHED_ORDERS).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT32: u64 = 0xffff_ffff >> 12;

    fn domain() -> IovaDomain {
        IovaDomain::new(12, 1, 2)
    }

    #[test]
    fn top_down_and_aligned() {
        let mut d = domain();
        assert_eq!(d.alloc_fast(0, 1, LIMIT32, false), Some(0xfffff));
        assert_eq!(d.alloc_fast(0, 1, LIMIT32, false), Some(0xffffe));
        assert_eq!(domain().alloc_fast(0, 3, LIMIT32, false), Some(0xffffc));
        assert_eq!(domain().alloc_fast(0, 33, LIMIT32, false), Some(0xfffc0));
        assert_eq!(
            domain().alloc_fast(0, 1, 0x3fff_ffff >> 12, false),
            Some(0x3ffff)
        );
        assert_eq!(
            domain().alloc_fast(0, 1, 0x3f_ffff_ffff >> 12, false),
            Some(0x3ff_ffff)
        );
    }

    #[test]
    fn same_cpu_gets_the_freed_range_back_and_another_does_not() {
        let mut d = domain();
        let a = d.alloc_fast(0, 1, LIMIT32, false).unwrap();
        d.free_fast(0, a, 1);
        assert_eq!(d.alloc_fast(1, 1, LIMIT32, false), Some(a - 1));
        assert_eq!(d.alloc_fast(0, 1, LIMIT32, false), Some(a));
    }

    #[test]
    fn cache_respects_the_limit() {
        let mut d = domain();
        let a = d.alloc_fast(0, 1, LIMIT32, false).unwrap();
        d.free_fast(0, a, 1);
        assert_eq!(d.alloc_fast(0, 1, 0xfff, false), Some(0xfff));
    }

    #[test]
    fn reserved_windows_are_left_out() {
        let mut d = domain();
        d.reserve(0xe000_0000, 0xffff_ffff);
        d.reserve(0xd000_0000, 0xe000_0000);
        assert_eq!(d.ranges(), 1);
        assert_eq!(d.alloc_fast(0, 1, LIMIT32, false), Some(0xcffff));
    }

    #[test]
    fn full_space_fails_until_something_is_freed() {
        let mut d = IovaDomain::new(12, 1, 1);
        let all: Vec<u64> = std::iter::from_fn(|| d.alloc_fast(0, 64, 0xfff, false)).collect();
        assert_eq!(all.len(), 63);
        assert_eq!(d.alloc_fast(0, 64, 0xfff, true), None);
        d.free_fast(0, all[10], 64);
        assert_eq!(d.alloc_fast(0, 64, 0xfff, false), Some(all[10]));
    }

    #[test]
    fn magazines_overflow_into_the_depot_and_come_back() {
        let mut d = IovaDomain::new(12, 1, 1);
        let all: Vec<u64> = (0..600)
            .map(|_| d.alloc_fast(0, 1, LIMIT32, false).unwrap())
            .collect();
        for pfn in &all {
            d.free_fast(0, *pfn, 1);
        }
        assert_eq!(d.ranges(), 600);
        let before = d.ranges();
        d.trim_depots();
        assert_eq!(d.ranges(), before - MAGAZINE);
        let mut again: Vec<u64> = (0..600)
            .map(|_| d.alloc_fast(0, 1, LIMIT32, false).unwrap())
            .collect();
        again.sort_unstable();
        again.dedup();
        assert_eq!(again.len(), 600);
    }

    proptest::proptest! {
        /// No two live ranges overlap, all are aligned and below the limit.
        #[test]
        fn never_overlaps(ops in proptest::collection::vec((0u8..3, 1u64..80, 0usize..2), 1..300)) {
            let mut d = domain();
            let mut live: BTreeMap<u64, u64> = BTreeMap::new();
            for (op, size, cpu) in ops {
                if op < 2 {
                    let pfn = d.alloc_fast(cpu, size, LIMIT32, true).unwrap();
                    proptest::prop_assert_eq!(pfn % size.next_power_of_two(), 0);
                    proptest::prop_assert!(pfn + size - 1 <= LIMIT32);
                    proptest::prop_assert!(live.range(..pfn + size).next_back().is_none_or(|(l, s)| l + s <= pfn));
                    live.insert(pfn, size);
                } else if let Some((pfn, size)) = live.pop_first() {
                    d.free_fast(cpu, pfn, size);
                }
            }
        }
    }
}
