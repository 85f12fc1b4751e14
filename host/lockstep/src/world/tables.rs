//! Page tables as software writes them.

use tlproof_golden::iommu::FlatMemory;

/// Bits of a PTE (Privileged specification; Svnapot, Svpbmt).
pub mod pte {
    #![allow(missing_docs, reason = "the specification's names")]
    pub const V: u64 = 1;
    pub const R: u64 = 1 << 1;
    pub const W: u64 = 1 << 2;
    pub const X: u64 = 1 << 3;
    pub const U: u64 = 1 << 4;
    pub const G: u64 = 1 << 5;
    pub const A: u64 = 1 << 6;
    pub const D: u64 = 1 << 7;
    pub const N: u64 = 1 << 63;
    /// Low bit of the memory type.
    pub const PBMT: u32 = 61;
}

/// An entry with this target.
pub const fn entry(target: u64, bits: u64) -> u64 {
    (target >> 12 << 10) | bits
}

/// The target of a PTE or directory entry.
pub const fn target(entry: u64) -> u64 {
    (entry >> 10 & ((1 << 44) - 1)) << 12
}

/// The tables of one stage.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// `iosatp.MODE` or `iohgatp.MODE`.
    pub mode: u64,
    /// Sv32 or Sv32x4: entries of four bytes.
    pub rv32: bool,
    /// Second stage: the root has four pages.
    pub second: bool,
    /// Big-endian.
    pub big: bool,
    /// Root page; a guest address if the stage is a guest's own.
    pub root: u64,
}

impl Stage {
    /// Levels of tables.
    pub const fn levels(&self) -> u32 {
        if self.rv32 { 2 } else { self.mode as u32 - 5 }
    }

    const fn step(&self) -> u32 {
        if self.rv32 { 10 } else { 9 }
    }

    /// Logarithm of the bytes that a leaf at `level` maps.
    pub const fn span_log2(&self, level: u32) -> u32 {
        12 + self.step() * level
    }

    /// Width of addresses.
    pub const fn width(&self) -> u32 {
        12 + self.step() * self.levels() + if self.second { 2 } else { 0 }
    }

    /// Offset of the entry of `address` in its table at `level`.
    pub const fn offset(&self, address: u64, level: u32) -> u64 {
        let root = level + 1 == self.levels();
        let bits = self.step() + if self.second && root { 2 } else { 0 };
        let index = (address >> self.span_log2(level)) & ((1 << bits) - 1);
        index * if self.rv32 { 4 } else { 8 }
    }

    /// Reads an entry at a system physical address.
    pub fn get(&self, ram: &FlatMemory, at: u64) -> u64 {
        let word = ram.get(at & !7);
        if self.rv32 {
            let half = (word >> (8 * (at & 4))) as u32;
            u64::from(if self.big { half.swap_bytes() } else { half })
        } else if self.big {
            word.swap_bytes()
        } else {
            word
        }
    }

    /// Writes one.
    pub fn put(&self, ram: &mut FlatMemory, at: u64, value: u64) {
        if self.rv32 {
            let half = value as u32;
            let half = if self.big { half.swap_bytes() } else { half };
            let shift = 8 * (at & 4);
            let word = ram.get(at & !7) & !(0xffff_ffff << shift) | u64::from(half) << shift;
            ram.set(at & !7, word);
        } else {
            ram.set(at, if self.big { value.swap_bytes() } else { value });
        }
    }
}
