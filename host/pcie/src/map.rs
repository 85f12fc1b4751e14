//! The physical address map of a machine.

use serde::{Deserialize, Serialize};

use crate::addr::{BusAddr, PhysAddr};

/// A range of physical addresses, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First byte.
    pub base: PhysAddr,
    /// Last byte.
    pub last: PhysAddr,
}

impl Range {
    /// The `size` bytes at `base`; `size` is at least 1 and does not wrap.
    #[must_use]
    pub const fn sized(base: u64, size: u64) -> Self {
        Self {
            base: PhysAddr(base),
            last: PhysAddr(base + size - 1),
        }
    }

    /// Whether all of the `len` bytes at `addr` are inside (`len` 0 counts as 1).
    #[must_use]
    pub fn contains(&self, addr: PhysAddr, len: u64) -> bool {
        addr >= self.base
            && addr
                .0
                .checked_add(len.max(1) - 1)
                .is_some_and(|last| last <= self.last.0)
    }

    /// Number of bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.last.0 - self.base.0 + 1
    }
}

/// Where DRAM, the PCIe aperture and the interrupt files of a machine are.
///
/// At most four DRAM ranges: the PMA table of the host bridge has eight rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryMap {
    /// Main memory, ascending, without overlap.
    pub dram: Vec<Range>,
    /// The PCIe MMIO aperture as the CPUs see it.
    pub aperture: Range,
    /// `CPU physical address - bus address` inside the aperture.
    pub bus_offset: u64,
    /// Interrupt files: a 4-byte write there is an MSI.
    pub msi: Range,
}

impl MemoryMap {
    /// Bus address of a CPU physical address inside the aperture.
    #[must_use]
    pub fn to_bus(&self, phys: PhysAddr) -> BusAddr {
        BusAddr(phys.0.wrapping_sub(self.bus_offset))
    }

    /// CPU physical address of a bus address of the aperture.
    #[must_use]
    pub fn to_phys(&self, bus: BusAddr) -> PhysAddr {
        PhysAddr(bus.0.wrapping_add(self.bus_offset))
    }

    /// Whether all of the `len` bytes at `addr` are main memory.
    #[must_use]
    pub fn is_dram(&self, addr: PhysAddr, len: u64) -> bool {
        self.dram.iter().any(|r| r.contains(addr, len))
    }
}

impl Default for MemoryMap {
    /// DRAM 2 GiB at 0x8000_0000, aperture 0x4000_0000 to 0x7fff_ffff with a bus offset of 0, one
    /// page group of interrupt files at 0x2800_0000.
    fn default() -> Self {
        Self {
            dram: vec![Range::sized(0x8000_0000, 0x8000_0000)],
            aperture: Range::sized(0x4000_0000, 0x4000_0000),
            bus_offset: 0,
            msi: Range::sized(0x2800_0000, 0x1_0000),
        }
    }
}
