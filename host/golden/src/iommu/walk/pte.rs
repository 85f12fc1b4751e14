//! Page-table entries of both widths.

use crate::iommu::{Capabilities, Permissions};

/// How an entry stands in its doubleword.
#[derive(Clone, Copy, Debug)]
pub(in crate::iommu) struct Format {
    /// Four bytes instead of eight (Sv32, Sv32x4).
    pub sv32: bool,
    /// Big-endian.
    pub big: bool,
    /// The entry is the second of the two in the doubleword.
    pub high: bool,
}

impl Format {
    /// The entry at an address.
    pub const fn at(sv32: bool, big: bool, addr: u64) -> Self {
        Self {
            sv32,
            big,
            high: sv32 && addr & 4 != 0,
        }
    }

    /// Takes the entry out of the doubleword, which was read as little-endian.
    pub const fn decode(self, word: u64) -> Pte {
        let value = if self.sv32 {
            let half = (word >> if self.high { 32 } else { 0 }) as u32;
            (if self.big { half.swap_bytes() } else { half }) as u64
        } else {
            native(word, self.big)
        };
        Pte {
            value,
            sv32: self.sv32,
        }
    }

    /// The doubleword with another entry in the place of this one.
    pub const fn replace(self, word: u64, pte: Pte) -> u64 {
        if !self.sv32 {
            return native(pte.value, self.big);
        }
        let half = pte.value as u32;
        let half = (if self.big { half.swap_bytes() } else { half }) as u64;
        if self.high {
            word & 0xffff_ffff | half << 32
        } else {
            word & !0xffff_ffff | half
        }
    }
}

/// A doubleword in the machine's order.
pub(in crate::iommu) const fn native(word: u64, big: bool) -> u64 {
    if big { word.swap_bytes() } else { word }
}

/// A page-table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::iommu) struct Pte {
    value: u64,
    sv32: bool,
}

impl Pte {
    const fn bit(self, n: u32) -> bool {
        self.value >> n & 1 == 1
    }

    pub const fn valid(self) -> bool {
        self.bit(0)
    }

    /// R or X.
    pub const fn is_leaf(self) -> bool {
        self.value & 0b1010 != 0
    }

    pub const fn global(self) -> bool {
        self.bit(5)
    }

    pub const fn user(self) -> bool {
        self.bit(4)
    }

    pub const fn accessed(self) -> bool {
        self.bit(6)
    }

    pub const fn dirty(self) -> bool {
        self.bit(7)
    }

    /// With A set, and D too if `dirty`.
    pub const fn touched(self, dirty: bool) -> Self {
        Self {
            value: self.value | 1 << 6 | (dirty as u64) << 7,
            sv32: self.sv32,
        }
    }

    pub const fn permissions(self) -> Permissions {
        Permissions {
            read: self.bit(1),
            write: self.bit(2),
            execute: self.bit(3),
        }
    }

    /// Physical address of the page or table that the entry names.
    pub const fn target(self) -> u64 {
        let bits = if self.sv32 { 22 } else { 44 };
        (self.value >> 10 & ((1 << bits) - 1)) << 12
    }

    pub const fn pbmt(self) -> u64 {
        if self.sv32 { 0 } else { self.value >> 61 & 3 }
    }

    const fn napot(self) -> bool {
        !self.sv32 && self.bit(63)
    }

    const fn level_bits(self, level: u32) -> u32 {
        12 + level * if self.sv32 { 10 } else { 9 }
    }

    /// Bytes of address that the entry stands for at `level`.
    pub const fn span(self, level: u32) -> u64 {
        if level == 0 && self.is_leaf() && self.napot() {
            1 << 16
        } else {
            1 << self.level_bits(level)
        }
    }

    /// Logarithm of the size of a leaf, or why its address is none.
    pub const fn leaf_bits(self, level: u32) -> Result<u32, &'static str> {
        if self.napot() {
            // 64 KiB is the one size that Svnapot defines.
            return if level == 0 && self.target() >> 12 & 0xf == 0b1000 {
                Ok(16)
            } else {
                Err("Privileged Svnapot: reserved encoding")
            };
        }
        let bits = self.level_bits(level);
        if self.target() & ((1 << bits) - 1) == 0 {
            Ok(bits)
        } else {
            Err("Privileged §VATP step 5: misaligned superpage")
        }
    }

    /// Not valid, or an encoding that is reserved in every entry.
    pub fn invalid(self, caps: &Capabilities) -> Option<&'static str> {
        let reserved = match (self.sv32, caps.svrsw60t59b) {
            (true, _) => 0,
            (false, true) => 0x1f << 54,
            (false, false) => 0x7f << 54,
        };
        let pbmt = self.pbmt();
        if !self.valid() {
            Some("Privileged §VATP step 3: V")
        } else if self.value & 0b110 == 0b100 {
            Some("Privileged §VATP step 3: W without R; IOMMU §2.3 (xwr=010)")
        } else if self.value & reserved != 0 {
            Some("Privileged §VATP step 3: reserved bits")
        } else if pbmt == 3 || !caps.svpbmt && pbmt != 0 {
            Some("Privileged Svpbmt: reserved encoding")
        } else {
            None
        }
    }

    /// D, A, U, N and PBMT are reserved in a pointer to the next level.
    pub const fn bad_pointer(self) -> bool {
        self.value & (0xd0 | 0b111 << 61) != 0
    }
}
