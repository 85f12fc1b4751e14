//! What ranges of memory are used for, as far as the rules of the DMA API ask.

use tlproof_pcie::{PhysAddr, Range};

/// A use of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// The stack of the running task, in the direct map.
    Stack,
    /// The stack of the running task, of pages mapped one by one (`CONFIG_VMAP_STACK`).
    VmapStack,
    /// `_stext` to `_etext`.
    KernelText,
    /// `__start_rodata` to `__end_rodata`.
    Rodata,
    /// Pages that the CPU reaches through `vmalloc` only.
    Vmalloc,
    /// Main memory of which the pages are `PageReserved` (firmware, carve-outs).
    Reserved,
}

/// The areas of a machine.
#[derive(Clone, Debug, Default)]
pub struct Areas(Vec<(Range, Area)>);

impl Areas {
    /// Says what a range is used for. Areas may overlap.
    pub fn add(&mut self, range: Range, area: Area) {
        self.0.push((range, area));
    }

    /// Takes back what [`Areas::add`] said, when a task ends or memory is freed.
    pub fn remove(&mut self, range: Range, area: Area) {
        self.0.retain(|a| *a != (range, area));
    }

    /// Whether the byte at `phys` is in an area of this kind.
    #[must_use]
    pub fn is(&self, area: Area, phys: PhysAddr) -> bool {
        self.overlaps(area, phys, 1)
    }

    /// Whether one of `len` bytes at `phys` is in an area of this kind.
    #[must_use]
    pub fn overlaps(&self, area: Area, phys: PhysAddr, len: u64) -> bool {
        let last = phys.0.saturating_add(len.max(1) - 1);
        (self.0.iter()).any(|(r, a)| *a == area && r.base <= PhysAddr(last) && phys <= r.last)
    }
}
