//! What the scoreboard is told about the machine.

use tlproof_pcie::MemoryMap;

use crate::fabric::Topology;
use crate::iommu;

/// What the scoreboard is told about the machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address map.
    pub map: MemoryMap,
    /// The IOMMU is there.
    pub iommu: bool,
    /// The bridge honours No Snoop.
    pub ns_honour: bool,
    /// The physical memory attributes of the PCIe aperture are those of main memory.
    pub aperture_wb: bool,
    /// The tree of ports and endpoints.
    pub topology: Topology,
    /// The IOMMU's `capabilities` register.
    pub capabilities: u64,
    /// What the IOMMU specification leaves open.
    pub choices: iommu::Choices,
    /// Bytes that an IOMMU entry covers at least; a power of two.
    pub granule: u64,
    /// A device may read what it may write: a RISC-V page-table entry with W and without R is
    /// reserved.
    pub write_implies_read: bool,
    /// Accesses that nobody promised must be refused.
    pub blocking: bool,
}

impl Default for Config {
    /// `sim_top` with its IOMMU: Sv39, Svpbmt, 56-bit physical addresses.
    fn default() -> Self {
        Self {
            map: MemoryMap::default(),
            iommu: true,
            ns_honour: true,
            aperture_wb: false,
            topology: Topology::default(),
            capabilities: 56 << 32 | 1 << 15 | 1 << 9 | 0x10,
            choices: iommu::Choices::default(),
            granule: 4096,
            write_implies_read: true,
            blocking: true,
        }
    }
}
