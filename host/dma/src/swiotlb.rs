//! The bounce buffer pool (swiotlb): slots of 2 KiB in areas.

use tlproof_pcie::PhysAddr;

/// log2 of a slot in bytes (`IO_TLB_SHIFT`).
const SHIFT: u32 = 11;

/// Slot in bytes.
pub(crate) const SLOT: u64 = 1 << SHIFT;

/// Slots of a segment; no buffer crosses one (`IO_TLB_SEGSIZE`).
const SEGMENT: usize = 128;

/// Longest buffer in bytes.
pub const MAX_BUFFER: u64 = SLOT * SEGMENT as u64;

#[derive(Clone, Debug)]
struct Slot {
    /// Buffer that is bounced through this slot and the ones behind it.
    orig: Option<PhysAddr>,
    /// Bytes of the buffer from this slot on.
    alloc_size: u64,
    /// Free slots from this one to the end of the run, inside of the segment; 0 when taken.
    free_run: usize,
    /// Padding slots before the first slot with data, noted there.
    pad_slots: usize,
}

#[derive(Clone, Debug)]
struct Area {
    next: usize,
    used: usize,
}

/// What a device asks of its slots.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotRule {
    /// Address bits that stay as in the original (`min_align_mask`).
    pub min_align_mask: u64,
    /// Alignment of the whole allocation: granule - 1 behind an IOMMU, else 0.
    pub alloc_align_mask: u64,
    /// Boundary that the allocation does not cross, as a mask.
    pub seg_boundary: u64,
    /// `phys_to_dma` of the pool less its physical address, for that boundary.
    pub dma_offset: u64,
}

/// The pool.
#[derive(Clone, Debug)]
pub struct Swiotlb {
    start: PhysAddr,
    slots: Vec<Slot>,
    areas: Vec<Area>,
    area_slots: usize,
    /// Every streaming mapping of every device is bounced (`swiotlb=force`).
    pub force: bool,
}

/// A copy between a buffer and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// The driver's buffer.
    pub orig: PhysAddr,
    /// The bounce slot.
    pub tlb: PhysAddr,
    /// Bytes.
    pub size: u64,
    /// The caller named more bytes than the slot holds.
    pub clamped: bool,
}

impl Swiotlb {
    /// A pool of `size` bytes at `start` (both multiples of 2 KiB) in `areas` parts. The number of
    /// areas is rounded down so that each has whole segments.
    ///
    /// Returns `None` for a pool of less than one segment (256 KiB) or at a misaligned address.
    #[must_use]
    pub fn new(start: PhysAddr, size: u64, areas: usize, force: bool) -> Option<Self> {
        let count = usize::try_from(size >> SHIFT).ok()? / SEGMENT * SEGMENT;
        if count == 0 || start.offset_in(SLOT) != 0 || start.checked_add(size).is_none() {
            return None;
        }
        let segments = count / SEGMENT;
        let mut areas = areas.clamp(1, segments);
        while !segments.is_multiple_of(areas) {
            areas -= 1;
        }
        let slots = (0..count)
            .map(|i| Slot {
                orig: None,
                alloc_size: 0,
                free_run: SEGMENT - i % SEGMENT,
                pad_slots: 0,
            })
            .collect();
        Some(Self {
            start,
            slots,
            areas: vec![Area { next: 0, used: 0 }; areas],
            area_slots: count / areas,
            force,
        })
    }

    /// Whether an address lies in the pool (`swiotlb_find_pool`).
    #[must_use]
    pub fn contains(&self, phys: PhysAddr) -> bool {
        phys.0
            .checked_sub(self.start.0)
            .is_some_and(|off| off < (self.slots.len() as u64) << SHIFT)
    }

    /// Slots in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.areas.iter().map(|a| a.used).sum()
    }

    /// Longest mapping of a device (`swiotlb_max_mapping_size`).
    #[must_use]
    pub const fn max_mapping_size(min_align_mask: u64) -> u64 {
        match min_align_mask.checked_next_multiple_of(SLOT) {
            Some(head) => MAX_BUFFER.saturating_sub(head),
            None => 0,
        }
    }

    /// Finds slots for `len` bytes of `orig` and returns the bounce address.
    pub(crate) fn map(
        &mut self,
        cpu: usize,
        orig: PhysAddr,
        len: u64,
        rule: SlotRule,
    ) -> Option<PhysAddr> {
        let offset = align_offset(rule, rule.alloc_align_mask, orig);
        let size = len
            .checked_add(offset)?
            .checked_next_multiple_of(rule.alloc_align_mask + 1)?;
        let first = self.find(cpu, orig, size, rule)?;
        let pad = (offset >> SHIFT) as usize;
        let count = slots_of(size);
        let index = first + pad;
        self.slots[index].pad_slots = pad;
        for i in 0..count - pad {
            self.slots[index + i].orig = Some(orig.offset((i as u64) << SHIFT));
        }
        Some(PhysAddr(
            self.start.0 + ((index as u64) << SHIFT) + (offset & (SLOT - 1)),
        ))
    }

    fn find(&mut self, cpu: usize, orig: PhysAddr, size: u64, rule: SlotRule) -> Option<usize> {
        let areas = self.areas.len();
        (0..areas).find_map(|i| self.find_in((cpu + i) % areas, orig, size, rule))
    }

    fn find_in(&mut self, area: usize, orig: PhysAddr, size: u64, rule: SlotRule) -> Option<usize> {
        let count = slots_of(size);
        if count > SEGMENT || count > self.area_slots - self.areas[area].used {
            return None;
        }
        let mut alloc_mask = rule.alloc_align_mask;
        // Without any rule, buffers of a page and more start at a page.
        if alloc_mask == 0 && rule.min_align_mask == 0 && size >= 4096 {
            alloc_mask = 4095;
        }
        alloc_mask |= SLOT - 1;
        let keep = rule.min_align_mask & !alloc_mask;
        let stride = slots_of(alloc_mask.max(keep).saturating_add(1)).max(1);
        let base = area * self.area_slots;
        let tbl = self.start.0.wrapping_add(rule.dma_offset) & rule.seg_boundary;
        let boundary_slots = rule.seg_boundary.saturating_add(1) >> SHIFT;
        let offset = align_offset(rule, 0, orig);

        let mut index = self.areas[area].next;
        let mut checked = 0;
        while checked < self.area_slots {
            let slot = base + index;
            let addr = tbl.wrapping_add((slot as u64) << SHIFT);
            if addr & alloc_mask != 0 || addr & keep != orig.0 & keep {
                index = (index + 1) % self.area_slots;
                checked += 1;
                continue;
            }
            let in_boundary = ((tbl >> SHIFT) + slot as u64) & boundary_slots.wrapping_sub(1);
            let spans = boundary_slots != 0
                && boundary_slots.is_power_of_two()
                && in_boundary + count as u64 > boundary_slots;
            if !spans && self.slots[slot].free_run >= count {
                self.take(area, slot, count, size, offset);
                return Some(slot);
            }
            index = (index + stride) % self.area_slots;
            checked += stride;
        }
        None
    }

    fn take(&mut self, area: usize, first: usize, count: usize, size: u64, offset: u64) {
        for i in 0..count {
            let slot = &mut self.slots[first + i];
            slot.free_run = 0;
            slot.alloc_size = size.wrapping_sub(offset + ((i as u64) << SHIFT));
        }
        self.renumber_before(first, 0);
        let a = &mut self.areas[area];
        a.next = (first % self.area_slots + count) % self.area_slots;
        a.used += count;
    }

    /// Counts the free slots of the segment before `first` anew, `run` being free from it on.
    fn renumber_before(&mut self, first: usize, mut run: usize) {
        for i in (first / SEGMENT * SEGMENT..first).rev() {
            if self.slots[i].free_run == 0 {
                break;
            }
            run += 1;
            self.slots[i].free_run = run;
        }
    }

    fn index(&self, tlb: PhysAddr) -> Option<usize> {
        self.contains(tlb)
            .then(|| ((tlb.0 - self.start.0) >> SHIFT) as usize)
    }

    /// What to copy for `size` bytes at bounce address `tlb`; `None` when nothing is bounced there.
    pub(crate) fn copy(&self, tlb: PhysAddr, size: u64, rule: SlotRule) -> Option<Copy> {
        let slot = &self.slots[self.index(tlb)?];
        let start = slot.orig?;
        // Negative when the buffer starts in this slot and the copy at an earlier byte of it.
        let delta = (tlb.0 & (SLOT - 1)).wrapping_sub(align_offset(rule, 0, start));
        let room = slot.alloc_size.wrapping_sub(delta);
        Some(Copy {
            orig: start.offset(delta),
            tlb,
            size: size.min(room),
            clamped: size > room,
        })
    }

    /// Releases the slots of the buffer at `tlb`; whether there was one.
    pub(crate) fn release(&mut self, tlb: PhysAddr, rule: SlotRule) -> bool {
        let offset = align_offset(rule, 0, tlb);
        let Some(index) = self.index(PhysAddr(tlb.0.wrapping_sub(offset))) else {
            return false;
        };
        if self.slots[index].orig.is_none() {
            return false;
        }
        let first = index - self.slots[index].pad_slots;
        let count = slots_of(self.slots[first].alloc_size + offset);
        let end = first + count;
        let mut run = if end.is_multiple_of(SEGMENT) {
            0
        } else {
            self.slots[end].free_run
        };
        for i in (first..end).rev() {
            run += 1;
            self.slots[i] = Slot {
                orig: None,
                alloc_size: 0,
                free_run: run,
                pad_slots: 0,
            };
        }
        self.renumber_before(first, run);
        self.areas[first / self.area_slots].used -= count;
        true
    }
}

/// Slots that `size` bytes take.
const fn slots_of(size: u64) -> usize {
    size.div_ceil(SLOT) as usize
}

/// `swiotlb_align_offset`: the low bits of `addr` that a bounce address keeps.
const fn align_offset(rule: SlotRule, alloc_align_mask: u64, addr: PhysAddr) -> u64 {
    addr.0 & rule.min_align_mask & (alloc_align_mask | (SLOT - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Swiotlb {
        Swiotlb::new(PhysAddr(0x9000_0000), 1 << 20, 1, false).unwrap()
    }

    fn rule(min_align_mask: u64, alloc_align_mask: u64) -> SlotRule {
        SlotRule {
            min_align_mask,
            alloc_align_mask,
            seg_boundary: 0xffff_ffff,
            dma_offset: 0,
        }
    }

    /// Reference A11: original, length, masks, offset in the page, slots used.
    #[test]
    fn alignment_vectors() {
        for (orig, len, min, alloc, offset, slots) in [
            (0x1a34, 0x100, 0xfff, 0, 0xa34, 1),
            (0x1a34, 0x100, 0, 0xfff, 0, 2),
            (0x1a34, 0x100, 0xfff, 0xfff, 0xa34, 2),
        ] {
            let mut p = pool();
            let r = rule(min, alloc);
            let tlb = p.map(0, PhysAddr(orig), len, r).unwrap();
            assert_eq!(tlb.offset_in(4096), offset, "{orig:#x} {min:#x} {alloc:#x}");
            assert_eq!(p.used(), slots);
            let copy = p.copy(tlb, len, r).unwrap();
            assert_eq!((copy.orig, copy.size), (PhysAddr(orig), len));
            assert!(p.release(tlb, r));
            assert!(!p.release(tlb, r));
            assert_eq!(p.used(), 0);
        }
        let mut p = pool();
        let tlb = p.map(0, PhysAddr(0x1200), 0x100, rule(0, 0)).unwrap();
        assert_eq!(tlb.offset_in(SLOT), 0);
        assert_eq!(p.used(), 1);
    }

    #[test]
    fn a_segment_is_the_most() {
        let mut p = pool();
        assert!(
            p.map(0, PhysAddr(0x1000), MAX_BUFFER + 1, rule(0, 0))
                .is_none()
        );
        assert!(p.map(0, PhysAddr(0x1000), MAX_BUFFER, rule(0, 0)).is_some());
        assert_eq!(Swiotlb::max_mapping_size(0), MAX_BUFFER);
        assert_eq!(Swiotlb::max_mapping_size(4095), MAX_BUFFER - 4096);
    }

    #[test]
    fn copies_inside_of_a_buffer() {
        let mut p = pool();
        let r = rule(0xfff, 0);
        let tlb = p.map(0, PhysAddr(0x1a34), 0x2000, r).unwrap();
        let c = p.copy(tlb.offset(0x1800), 0x100, r).unwrap();
        assert_eq!((c.orig, c.clamped), (PhysAddr(0x3234), false));
        let c = p.copy(tlb.offset(0x1f00), 0x200, r).unwrap();
        assert_eq!((c.orig, c.size, c.clamped), (PhysAddr(0x3934), 0x100, true));
    }

    proptest::proptest! {
        /// Buffers never overlap, keep their address bits, and all slots come back.
        #[test]
        fn slots_are_exclusive(
            ops in proptest::collection::vec((0u64..0x8000, 1u64..0x6000, 0usize..3, proptest::bool::ANY), 1..120),
        ) {
            let rules = [rule(0, 0), rule(0xfff, 0), rule(0xfff, 0xfff)];
            let mut p = Swiotlb::new(PhysAddr(0x9000_0000), 1 << 20, 2, false).unwrap();
            let mut live: Vec<(PhysAddr, u64, usize)> = Vec::new();
            for (orig, len, kind, release) in ops {
                if release && !live.is_empty() {
                    let (tlb, _, kind) = live.swap_remove(0);
                    proptest::prop_assert!(p.release(tlb, rules[kind]));
                } else if let Some(tlb) = p.map(kind, PhysAddr(0x8000_0000 + orig), len, rules[kind]) {
                    proptest::prop_assert_eq!((tlb.0 ^ orig) & rules[kind].min_align_mask, 0);
                    for (t, l, _) in &live {
                        proptest::prop_assert!(tlb.0 + len <= t.0 || t.0 + l <= tlb.0);
                    }
                    live.push((tlb, len, kind));
                }
            }
            for (tlb, _, kind) in live {
                proptest::prop_assert!(p.release(tlb, rules[kind]));
            }
            proptest::prop_assert_eq!(p.used(), 0);
            proptest::prop_assert!(p.slots.iter().enumerate().all(|(i, s)| s.free_run == SEGMENT - i % SEGMENT));
        }
    }
}
