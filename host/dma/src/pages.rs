//! Page allocator: naturally aligned blocks of 4 KiB × 2^order in a range of main memory.
//!
//! A buddy allocator that always takes the lowest address, so that the same calls give the same
//! addresses on every machine.

use std::collections::{BTreeMap, BTreeSet};

use tlproof_pcie::{PhysAddr, Range};

use crate::machine::Machine;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// Largest order: 4 MiB, as the kernel's page allocator.
pub const MAX_ORDER: u8 = 10;

/// Free and used blocks of a range.
#[derive(Clone, Debug)]
pub struct PagePool {
    free: [BTreeSet<u64>; MAX_ORDER as usize + 1],
    used: BTreeMap<u64, u8>,
}

impl PagePool {
    /// A pool of the whole pages inside `range`.
    #[must_use]
    pub fn new(range: Range) -> Self {
        let mut pool = Self {
            free: Default::default(),
            used: BTreeMap::new(),
        };
        // Counted in pages, so that the end of the address space is a number too.
        let mut at = range.base.0.div_ceil(PAGE_SIZE);
        let end = if range.last.0 == u64::MAX {
            1 << 52
        } else {
            (range.last.0 + 1) / PAGE_SIZE
        };
        while at < end {
            let fit = (end - at).ilog2();
            let order = fit.min(at.trailing_zeros()).min(u32::from(MAX_ORDER));
            pool.free[order as usize].insert(at * PAGE_SIZE);
            at += 1 << order;
        }
        pool
    }

    /// A zeroed block of 2^`order` pages, aligned to its size; `None` when there is none.
    pub fn alloc(&mut self, m: &mut dyn Machine, order: u8) -> Option<PhysAddr> {
        let (from, at) = (order..=MAX_ORDER)
            .filter_map(|o| Some((o, *self.free[usize::from(o)].first()?)))
            .min_by_key(|&(_, at)| at)?;
        self.free[usize::from(from)].remove(&at);
        for half in order..from {
            self.free[usize::from(half)].insert(at + (PAGE_SIZE << half));
        }
        self.used.insert(at, order);
        const ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];
        for page in 0..1 << order {
            m.mem_write(PhysAddr(at + page * PAGE_SIZE), &ZEROS);
        }
        Some(PhysAddr(at))
    }

    /// Gives a block back. An address that [`PagePool::alloc`] did not give is left alone.
    pub fn free(&mut self, block: PhysAddr) {
        let Some(mut order) = self.used.remove(&block.0) else {
            debug_assert!(false, "{block} is not allocated");
            return;
        };
        let mut at = block.0;
        while order < MAX_ORDER {
            let buddy = at ^ (PAGE_SIZE << order);
            if !self.free[usize::from(order)].remove(&buddy) {
                break;
            }
            at = at.min(buddy);
            order += 1;
        }
        self.free[usize::from(order)].insert(at);
    }

    /// Bytes that are allocated.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used.values().map(|&o| PAGE_SIZE << o).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::riscv::fake::FakeMachine;

    proptest! {
        #[test]
        fn blocks_are_aligned_apart_and_come_back(
            base in 0..64_u64,
            pages in 0..600_u64,
            steps in prop::collection::vec((0..5_u8, any::<prop::sample::Index>(), any::<bool>()), 1..100),
        ) {
            let mut m = FakeMachine::new(0);
            let range = Range::sized(0x8000_0000 + base * PAGE_SIZE, pages * PAGE_SIZE + 1);
            let mut pool = PagePool::new(range);
            let fresh = pool.free.clone();
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (order, which, free) in steps {
                if free && !live.is_empty() {
                    pool.free(PhysAddr(live.swap_remove(which.index(live.len())).0));
                } else if let Some(a) = pool.alloc(&mut m, order) {
                    let size = PAGE_SIZE << order;
                    prop_assert_eq!(a.0 % size, 0);
                    prop_assert!(range.contains(a, size));
                    prop_assert!(live.iter().all(|&(b, s)| a.0 + size <= b || b + s <= a.0));
                    live.push((a.0, size));
                }
                prop_assert_eq!(pool.used_bytes(), live.iter().map(|l| l.1).sum::<u64>());
            }
            for (a, _) in live {
                pool.free(PhysAddr(a));
            }
            prop_assert_eq!(pool.free, fresh);
        }
    }

    #[test]
    fn blocks_are_zero() {
        let mut m = FakeMachine::new(0);
        let mut pool = PagePool::new(Range::sized(0x8000_0000, PAGE_SIZE));
        let a = pool.alloc(&mut m, 0).unwrap();
        m.write_u64(a, 7);
        assert_eq!(pool.alloc(&mut m, 0), None);
        pool.free(a);
        let a = pool.alloc(&mut m, 0).unwrap();
        assert_eq!(m.read_u64(a), 0);
    }
}
