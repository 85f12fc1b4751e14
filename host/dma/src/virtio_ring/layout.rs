//! Where the parts of a split virtqueue are (§2.7).

use bitflags::bitflags;
use tlproof_pcie::DmaAddr;

/// Bytes of a descriptor.
pub const DESC_SIZE: u64 = 16;

bitflags! {
    /// Flags of a descriptor (§2.7.5).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct DescFlags: u16 {
        /// Another one follows (`VRING_DESC_F_NEXT`).
        const NEXT = 1;
        /// The device writes the buffer (`VRING_DESC_F_WRITE`).
        const WRITE = 2;
        /// The buffer is a table of descriptors (`VRING_DESC_F_INDIRECT`).
        const INDIRECT = 4;
    }
}

/// A descriptor (`struct vring_desc`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desc {
    /// The buffer as the device sees it.
    pub addr: DmaAddr,
    /// Bytes.
    pub len: u32,
    /// What it is.
    pub flags: DescFlags,
    /// The next one of the chain.
    pub next: u16,
}

impl Desc {
    /// As it is in memory.
    pub fn to_bytes(self) -> [u8; DESC_SIZE as usize] {
        let mut b = [0; DESC_SIZE as usize];
        b[..8].copy_from_slice(&self.addr.0.to_le_bytes());
        b[8..12].copy_from_slice(&self.len.to_le_bytes());
        b[12..14].copy_from_slice(&self.flags.bits().to_le_bytes());
        b[14..].copy_from_slice(&self.next.to_le_bytes());
        b
    }
}

/// Offsets in the memory of a ring of `num` descriptors (`vring_init` with an alignment of a
/// page, as on PCI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    num: u16,
}

impl Layout {
    /// `None` unless `num` is a power of two, at most 32768.
    #[must_use]
    pub const fn new(num: u16) -> Option<Self> {
        if num.is_power_of_two() {
            Some(Self { num })
        } else {
            None
        }
    }

    /// Descriptors.
    #[must_use]
    pub const fn num(self) -> u16 {
        self.num
    }

    /// A descriptor.
    #[must_use]
    pub const fn desc(self, index: u16) -> u64 {
        index as u64 * DESC_SIZE
    }

    /// The available ring: flags, index, heads.
    #[must_use]
    pub const fn avail(self) -> u64 {
        self.num as u64 * DESC_SIZE
    }

    /// Index of the available ring.
    #[must_use]
    pub const fn avail_idx(self) -> u64 {
        self.avail() + 2
    }

    /// A slot of the available ring.
    #[must_use]
    pub const fn avail_slot(self, idx: u16) -> u64 {
        self.avail() + 4 + (idx % self.num) as u64 * 2
    }

    /// The used ring: flags, index, elements of head and length.
    #[must_use]
    pub const fn used(self) -> u64 {
        (self.avail() + 6 + self.num as u64 * 2).next_multiple_of(4096)
    }

    /// Index of the used ring.
    #[must_use]
    pub const fn used_idx(self) -> u64 {
        self.used() + 2
    }

    /// A slot of the used ring.
    #[must_use]
    pub const fn used_slot(self, idx: u16) -> u64 {
        self.used() + 4 + (idx % self.num) as u64 * 8
    }

    /// Bytes of all (`vring_size`).
    #[must_use]
    pub const fn size(self) -> u64 {
        self.used() + 6 + self.num as u64 * 8
    }
}
