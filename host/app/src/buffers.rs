//! Buffers in main memory for the drivers of a campaign.

use rand::{Rng, RngExt};
use tlproof_pcie::{PhysAddr, Range};

const PAGE: u64 = 4096;

/// Pages of a DRAM range, handed out at random places so that buffers are seldom neighbours.
pub struct BufferPool {
    range: Range,
    used: Vec<bool>,
}

impl BufferPool {
    /// A pool over whole pages.
    #[must_use]
    pub fn new(range: Range) -> Self {
        Self {
            range,
            used: vec![false; (range.size() / PAGE) as usize],
        }
    }

    /// Takes `pages` contiguous pages, or `None` after some failed attempts.
    pub fn take(&mut self, rng: &mut impl Rng, pages: usize) -> Option<PhysAddr> {
        if pages == 0 || pages > self.used.len() {
            return None;
        }
        for _ in 0..64 {
            let at = rng.random_range(0..=self.used.len() - pages);
            if !self.used[at..at + pages].iter().any(|u| *u) {
                self.used[at..at + pages].fill(true);
                return Some(self.range.base.offset(at as u64 * PAGE));
            }
        }
        None
    }

    /// Gives pages back.
    pub fn give(&mut self, base: PhysAddr, pages: usize) {
        let at = ((base.0 - self.range.base.0) / PAGE) as usize;
        self.used[at..at + pages].fill(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn buffers_do_not_overlap() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut pool = BufferPool::new(Range::sized(0x1_0000, 16 * PAGE));
        let mut taken = Vec::new();
        while let Some(a) = pool.take(&mut rng, 3) {
            assert!(
                taken
                    .iter()
                    .all(|b: &PhysAddr| a.0.abs_diff(b.0) >= 3 * PAGE)
            );
            taken.push(a);
        }
        assert!(!taken.is_empty());
        for a in taken {
            pool.give(a, 3);
        }
        assert_eq!(pool.take(&mut rng, 16), Some(PhysAddr(0x1_0000)));
        assert_eq!(pool.take(&mut rng, 1), None);
    }
}
