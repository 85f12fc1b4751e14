//! Physical segments of a request (`blk_map_iter_next`).

use tlproof_pcie::PhysAddr;

use super::{
    bio::{Bio, BioVec},
    request::QueueLimits,
};

/// A physically contiguous piece of a request (`struct phys_vec`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysVec {
    /// First byte.
    pub paddr: PhysAddr,
    /// Bytes.
    pub len: u32,
}

/// The segments of a request's data or metadata: as long as the limits allow, over the ends of
/// vectors and bios (`struct blk_map_iter`).
#[derive(Clone, Debug)]
pub struct BlkMapIter<'a> {
    bios: &'a [Bio],
    limits: &'a QueueLimits,
    integrity: bool,
    /// Vector of the first bio of `bios`.
    vec: usize,
    /// Bytes of that vector that are done.
    done: u32,
}

impl<'a> BlkMapIter<'a> {
    pub(super) const fn new(bios: &'a [Bio], limits: &'a QueueLimits, integrity: bool) -> Self {
        Self {
            bios,
            limits,
            integrity,
            vec: 0,
            done: 0,
        }
    }

    /// What is left of the current vector.
    fn peek(&mut self) -> Option<BioVec> {
        loop {
            let bio = self.bios.first()?;
            let vecs = if self.integrity {
                &bio.integrity
            } else {
                &bio.vecs
            };
            if let Some(vec) = vecs.get(self.vec) {
                return Some(vec.skip(self.done));
            }
            self.bios = &self.bios[1..];
            self.vec = 0;
        }
    }

    /// Goes on by `bytes` of a vector with `left` bytes left.
    const fn advance(&mut self, bytes: u32, left: u32) {
        if bytes == left {
            self.vec += 1;
            self.done = 0;
        } else {
            self.done += bytes;
        }
    }
}

impl Iterator for BlkMapIter<'_> {
    type Item = PhysVec;

    fn next(&mut self) -> Option<PhysVec> {
        let first = self.peek()?;
        let max = self.limits.max_segment(first.phys());
        let mut len = first.len().min(max);
        self.advance(len, first.len());
        // Only from the end of a vector on can the next one be adjacent.
        while self.done == 0 && self.limits.merge {
            let Some(next) = self.peek() else { break };
            let adjacent = first.phys().checked_add(u64::from(len)) == Some(next.phys());
            let fits = len.checked_add(next.len()).filter(|sum| *sum <= max);
            match fits {
                Some(sum) if adjacent && next.pgmap() == first.pgmap() => len = sum,
                _ => break,
            }
            self.advance(next.len(), next.len());
        }
        Some(PhysVec {
            paddr: first.phys(),
            len,
        })
    }
}
