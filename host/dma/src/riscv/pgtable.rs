//! First-stage page tables: Sv39, Sv48 and Sv57 with Svnapot and, if enabled, Svpbmt
//! (RISC-V privileged specification, chapter 12).

use tlproof_pcie::PhysAddr;

use super::regs::{ppn_field, ppn_page};
use crate::{
    iommu::{Gather, IommuError, Prot},
    machine::Machine,
    pages::{PAGE_SIZE, PagePool},
};

const V: u64 = 1 << 0;
const R: u64 = 1 << 1;
const W: u64 = 1 << 2;
const X: u64 = 1 << 3;
const U: u64 = 1 << 4;
const A: u64 = 1 << 6;
const D: u64 = 1 << 7;
const PBMT: u64 = 3 << 61;
const PBMT_NC: u64 = 1 << 61;
const PBMT_IO: u64 = 2 << 61;
const N: u64 = 1 << 63;
/// `PPN[3:0]` of a 64 KiB page, in place.
const NAPOT_64K: u64 = 0b1000 << 10;

/// Pages of a NAPOT entry.
const NAPOT_PAGES: u64 = 16;
/// Physical addresses have 56 bits.
const PHYS_LIMIT: u64 = 1 << 56;

/// Virtual address width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// 39 bits, 3 levels.
    Sv39,
    /// 48 bits, 4 levels.
    Sv48,
    /// 57 bits, 5 levels.
    Sv57,
}

impl Mode {
    /// Number of table levels.
    #[must_use]
    pub const fn levels(self) -> u8 {
        self as u8 + 3
    }

    /// Bits of a virtual address.
    #[must_use]
    pub const fn va_bits(self) -> u32 {
        12 + 9 * self.levels() as u32
    }

    /// Value of `iosatp.MODE`.
    #[must_use]
    pub const fn field(self) -> u64 {
        self as u64 + 8
    }
}

/// Low bits of a leaf entry: everything but the page number and the size.
///
/// # Errors
/// No permission at all.
pub fn leaf_bits(prot: Prot, svpbmt: bool) -> Result<u64, IommuError> {
    let mut bits = V | U | A;
    if mutant!(M36a) {
        bits &= !U;
    }
    if mutant!(M36b) {
        bits &= !A;
    }
    if prot.contains(Prot::WRITE) {
        // Write-only is a reserved encoding.
        bits |= R | W | D;
        if mutant!(M36c) {
            bits &= !D;
        }
        if mutant!(M36d) && !prot.contains(Prot::READ) {
            bits &= !R;
        }
    }
    if prot.contains(Prot::READ) {
        bits |= R;
    }
    if !prot.contains(Prot::NOEXEC) {
        bits |= X;
    }
    if bits & (R | W | X) == 0 {
        return Err(IommuError::Unsupported);
    }
    if svpbmt {
        if prot.contains(Prot::MMIO) {
            bits |= PBMT_IO;
        } else if !prot.contains(Prot::CACHE) {
            bits |= PBMT_NC;
        }
    }
    Ok(bits)
}

/// The same entry with a memory type that it must not have; without Svpbmt, the same entry.
pub(crate) fn corrupt_pbmt(bits: u64, svpbmt: bool) -> u64 {
    match (svpbmt, bits & PBMT) {
        (false, _) => bits,
        (true, 0) => bits | PBMT_IO,
        (true, _) => bits & !PBMT,
    }
}

/// What an entry is.
enum Entry {
    Empty,
    Table(PhysAddr),
    /// A leaf and its size in bytes.
    Leaf(u64),
}

/// Bytes that an entry at `level` spans, 0 being the lowest level.
const fn span(level: u8) -> u64 {
    PAGE_SIZE << (9 * level)
}

const fn index(iova: u64, level: u8) -> u64 {
    iova / span(level) % 512
}

fn decode(entry: u64, level: u8) -> Entry {
    if entry & V == 0 {
        Entry::Empty
    } else if entry & (R | W | X) == 0 {
        Entry::Table(ppn_page(entry))
    } else if entry & N != 0 {
        Entry::Leaf(NAPOT_PAGES * PAGE_SIZE)
    } else {
        Entry::Leaf(span(level))
    }
}

/// A leaf that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The entry.
    pub entry: u64,
    /// Where the address that was looked up goes.
    pub phys: PhysAddr,
}

/// A tree of tables.
#[derive(Clone, Debug)]
pub struct PageTable {
    mode: Mode,
    root: PhysAddr,
}

impl PageTable {
    /// An empty tree.
    ///
    /// # Errors
    /// No memory.
    pub fn new(m: &mut dyn Machine, pool: &mut PagePool, mode: Mode) -> Result<Self, IommuError> {
        let root = pool.alloc(m, 0).ok_or(IommuError::NoMemory)?;
        Ok(Self { mode, root })
    }

    /// `iosatp` for this tree.
    #[must_use]
    pub const fn iosatp(&self) -> u64 {
        self.mode.field() << 60 | self.root.0 >> 12
    }

    /// Sizes of leaves, one bit each.
    #[must_use]
    pub fn page_sizes(&self) -> u64 {
        (0..self.mode.levels()).fold(NAPOT_PAGES * PAGE_SIZE, |sizes, l| sizes | span(l))
    }

    /// Last address: only the lower half is used, the upper one needs sign extension.
    #[must_use]
    pub const fn last(&self) -> u64 {
        (1 << (self.mode.va_bits() - 1)) - 1
    }

    /// Level and size of the largest leaf that fits at the front of a mapping.
    fn choose(&self, iova: u64, phys: u64, left: u64) -> (u8, u64) {
        let aligned = (iova | phys).trailing_zeros();
        let fits = |size: u64| size <= left && size.trailing_zeros() <= aligned;
        for level in (1..self.mode.levels()).rev() {
            let careless = mutant!(M39) && level == 1 && span(level) <= left;
            if fits(span(level)) || careless {
                return (level, span(level));
            }
        }
        let napot = NAPOT_PAGES * PAGE_SIZE;
        let careless = mutant!(M38b) && napot <= left && iova % span(1) <= span(1) - napot;
        let size = if fits(napot) || careless {
            napot
        } else {
            PAGE_SIZE
        };
        (0, size)
    }

    /// Maps `[iova, iova + size)` to `phys` with the low bits `bits` of [`leaf_bits`]. What
    /// `gather` then holds must be invalidated, and after a failure nothing stays mapped.
    ///
    /// # Errors
    /// See [`IommuError`].
    #[expect(clippy::too_many_arguments, reason = "the arguments of iommu_map")]
    pub fn map(
        &self,
        m: &mut dyn Machine,
        pool: &mut PagePool,
        iova: u64,
        phys: PhysAddr,
        size: u64,
        bits: u64,
        gather: &mut Gather,
    ) -> Result<(), IommuError> {
        if size == 0 {
            return Err(IommuError::Invalid);
        }
        if !(iova | phys.0 | size).is_multiple_of(PAGE_SIZE) {
            return Err(IommuError::Misaligned);
        }
        let inside = |at: u64, last: u64| at.checked_add(size - 1).is_some_and(|end| end <= last);
        if !inside(iova, self.last()) || !inside(phys.0, PHYS_LIMIT - 1) {
            return Err(IommuError::Range);
        }
        let mut done = 0;
        // The table that took the last leaf most often takes the next one too.
        let mut recent: Option<(u8, u64, PhysAddr)> = None;
        while done < size {
            let (at, to) = (iova + done, phys.0 + done);
            let (level, bytes) = self.choose(at, to, size - done);
            let region = at / span(level) / 512;
            let table = match recent {
                Some((l, r, table)) if l == level && r == region => Ok(table),
                _ => self.table(m, pool, at, level),
            };
            let installed = table.and_then(|table| {
                recent = Some((level, region, table));
                install(
                    m,
                    table,
                    at,
                    level,
                    bytes,
                    ppn_field(PhysAddr(to)) | bits,
                    gather,
                )
            });
            if let Err(e) = installed {
                self.unmap(m, iova, done, gather);
                return Err(e);
            }
            done += bytes;
        }
        Ok(())
    }

    /// The table at `level` for `iova`, made if it is not there.
    fn table(
        &self,
        m: &mut dyn Machine,
        pool: &mut PagePool,
        iova: u64,
        level: u8,
    ) -> Result<PhysAddr, IommuError> {
        let mut table = self.root;
        for l in (level + 1..self.mode.levels()).rev() {
            let at = table.offset(index(iova, l) * 8);
            table = match decode(m.read_u64(at), l) {
                Entry::Table(next) => next,
                Entry::Leaf(_) => return Err(IommuError::InUse),
                Entry::Empty => {
                    let page = pool.alloc(m, 0).ok_or(IommuError::NoMemory)?;
                    m.write_u64(at, ppn_field(page) | V);
                    page
                }
            };
        }
        Ok(table)
    }

    /// Clears leaves from `iova` on, up to the first hole, a leaf that begins before, or the end
    /// of the range; returns the bytes cleared. A leaf that holds the end of the range goes as
    /// a whole, and so do tables that are wholly inside.
    pub fn unmap(&self, m: &mut dyn Machine, iova: u64, size: u64, gather: &mut Gather) -> u64 {
        let end = iova.saturating_add(size).min(self.last() + 1);
        if size == 0 || iova >= end {
            return 0;
        }
        let top = self.mode.levels() - 1;
        clear(m, self.root, top, iova, end, gather) - iova
    }

    /// The leaf that translates `iova`.
    #[must_use]
    pub fn lookup(&self, m: &mut dyn Machine, iova: u64) -> Option<Leaf> {
        if iova > self.last() {
            return None;
        }
        let mut table = self.root;
        for level in (0..self.mode.levels()).rev() {
            let entry = m.read_u64(table.offset(index(iova, level) * 8));
            match decode(entry, level) {
                Entry::Empty => return None,
                Entry::Table(next) => table = next,
                Entry::Leaf(size) => {
                    let page = ppn_page(entry).align_down(size);
                    let phys = page.offset(iova % size);
                    return Some(Leaf { entry, phys });
                }
            }
        }
        None
    }

    /// Gives all tables back to the pool.
    pub fn free(self, m: &mut dyn Machine, pool: &mut PagePool) {
        let mut tables = vec![self.root];
        tables_below(m, self.root, self.mode.levels() - 1, &mut tables);
        for table in tables {
            pool.free(table);
        }
    }
}

/// Writes a leaf of `bytes` bytes into `table`.
fn install(
    m: &mut dyn Machine,
    table: PhysAddr,
    iova: u64,
    level: u8,
    bytes: u64,
    leaf: u64,
    gather: &mut Gather,
) -> Result<(), IommuError> {
    let first = table.offset(index(iova, level) * 8);
    let slots = bytes / span(level);
    for i in 0..slots {
        match decode(m.read_u64(first.offset(8 * i)), level) {
            Entry::Empty => {}
            Entry::Leaf(_) => return Err(IommuError::InUse),
            Entry::Table(below) => {
                // An empty table may stand in the way; the unit may have cached the pointer.
                let mut tables = vec![below];
                if !tables_below(m, below, level - 1, &mut tables) {
                    return Err(IommuError::InUse);
                }
                extend(gather, iova, bytes);
                gather.table_levels |= 1 << level;
                gather.freelist.extend(tables);
            }
        }
    }
    let leaf = if slots > 1 {
        leaf | N | NAPOT_64K
    } else {
        leaf
    };
    let slots = if mutant!(M38a) { 1 } else { slots };
    for i in 0..slots {
        m.write_u64(first.offset(8 * i), leaf);
    }
    Ok(())
}

/// Adds the tables below `table` to `tables`; says whether there is no leaf among them.
fn tables_below(
    m: &mut dyn Machine,
    table: PhysAddr,
    level: u8,
    tables: &mut Vec<PhysAddr>,
) -> bool {
    let mut empty = true;
    for i in 0..512 {
        match decode(m.read_u64(table.offset(8 * i)), level) {
            Entry::Empty => {}
            Entry::Leaf(_) => empty = false,
            Entry::Table(below) if level > 0 => {
                tables.push(below);
                empty &= tables_below(m, below, level - 1, tables);
            }
            Entry::Table(_) => {}
        }
    }
    empty
}

/// Clears `table` from `at` up to `end` and returns how far it came.
fn clear(
    m: &mut dyn Machine,
    table: PhysAddr,
    level: u8,
    mut at: u64,
    end: u64,
    gather: &mut Gather,
) -> u64 {
    // Behind the last entry of this table.
    let table_end = (at / span(level) / 512 + 1) * 512 * span(level);
    while at < end.min(table_end) {
        let slot = table.offset(index(at, level) * 8);
        match decode(m.read_u64(slot), level) {
            Entry::Empty => break,
            Entry::Leaf(size) => {
                if !at.is_multiple_of(size) {
                    break;
                }
                for i in 0..(size / span(level)).max(1) {
                    m.write_u64(slot.offset(8 * i), 0);
                }
                extend(gather, at, size);
                gather.leaf_levels |= 1 << level;
                at += size;
            }
            Entry::Table(_) if level == 0 => break,
            Entry::Table(below) => {
                let entry_end = (at / span(level) + 1) * span(level);
                let covered = at.is_multiple_of(span(level)) && entry_end <= end;
                at = clear(m, below, level - 1, at, end, gather);
                if at < entry_end {
                    break;
                }
                if covered {
                    m.write_u64(slot, 0);
                    gather.table_levels |= 1 << level;
                    gather.freelist.push(below);
                }
            }
        }
    }
    at
}

/// Widens the gathered range by `size` bytes at `iova`.
fn extend(gather: &mut Gather, iova: u64, size: u64) {
    let last = iova + (size - 1);
    gather.range = Some(match gather.range {
        None => (iova, last),
        Some((a, b)) => (a.min(iova), b.max(last)),
    });
}

#[cfg(test)]
mod tests;
