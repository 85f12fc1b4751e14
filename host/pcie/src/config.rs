//! Access to configuration space.

use crate::Bdf;

/// How a configuration or MMIO access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Nobody claimed the request, or it completed with Unsupported Request.
    #[error("unsupported request")]
    Unsupported,
    /// The completer aborted.
    #[error("completer abort")]
    Abort,
    /// No completion arrived in time.
    #[error("completion timeout")]
    Timeout,
}

/// Configuration space as a CPU reaches it. Registers are byte offsets, 0 to 0xfff; a `size` is
/// 1, 2 or 4 bytes and the access is naturally aligned.
pub trait ConfigSpace {
    /// Reads `size` bytes at `reg` of function `bdf`, zero extended.
    ///
    /// # Errors
    /// [`AccessError::Unsupported`] when no such function answers.
    fn config_read(&mut self, bdf: Bdf, reg: u16, size: u8) -> Result<u32, AccessError>;

    /// Writes the low `size` bytes of `value` at `reg` of function `bdf`.
    ///
    /// # Errors
    /// As [`ConfigSpace::config_read`].
    fn config_write(&mut self, bdf: Bdf, reg: u16, size: u8, value: u32)
    -> Result<(), AccessError>;
}

/// Register offsets of a configuration header (PCI 3.0 §6.1, PCIe 6.0 §7.5.1).
pub mod reg {
    /// Vendor ID, 16 bits.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command, 16 bits.
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u16 = 0x06;
    /// Revision ID (bits 7:0) and Class Code (bits 31:8).
    pub const CLASS_REVISION: u16 = 0x08;
    /// Header Type, 8 bits.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First Base Address Register.
    pub const BAR0: u16 = 0x10;
    /// Type 1: Primary Bus Number; the secondary, the subordinate and the latency timer follow.
    pub const BUS_NUMBERS: u16 = 0x18;
    /// Type 1: I/O Base and Limit, 8 bits each.
    pub const IO_WINDOW: u16 = 0x1c;
    /// Type 1: Memory Base (bits 15:0) and Limit (bits 31:16).
    pub const MEMORY_WINDOW: u16 = 0x20;
    /// Type 1: Prefetchable Memory Base (bits 15:0) and Limit (bits 31:16).
    pub const PREFETCH_WINDOW: u16 = 0x24;
    /// Type 1: Prefetchable Base Upper 32 Bits.
    pub const PREFETCH_BASE_UPPER: u16 = 0x28;
    /// Type 1: Prefetchable Limit Upper 32 Bits.
    pub const PREFETCH_LIMIT_UPPER: u16 = 0x2c;
    /// Capabilities Pointer, 8 bits.
    pub const CAPABILITIES: u16 = 0x34;
    /// First extended capability.
    pub const EXTENDED_CAPABILITIES: u16 = 0x100;
}

/// Bits of the Command register.
pub mod command {
    /// I/O Space Enable.
    pub const IO_SPACE: u16 = 1 << 0;
    /// Memory Space Enable.
    pub const MEMORY_SPACE: u16 = 1 << 1;
    /// Bus Master Enable.
    pub const BUS_MASTER: u16 = 1 << 2;
}

/// Status register: the function has a capability list.
pub const STATUS_CAPABILITIES_LIST: u16 = 1 << 4;

/// Header Type: the device has more functions than function 0.
pub const HEADER_MULTI_FUNCTION: u8 = 1 << 7;

/// Capability IDs.
pub mod cap_id {
    /// Power Management.
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// MSI.
    pub const MSI: u8 = 0x05;
    /// PCI Express.
    pub const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSI_X: u8 = 0x11;
}

/// Extended capability IDs.
pub mod ext_cap_id {
    /// Advanced Error Reporting.
    pub const AER: u16 = 0x0001;
    /// Access Control Services.
    pub const ACS: u16 = 0x000d;
    /// Address Translation Services.
    pub const ATS: u16 = 0x000f;
    /// Page Request Interface.
    pub const PRI: u16 = 0x0013;
    /// PASID.
    pub const PASID: u16 = 0x001b;
}

/// Offsets inside the PCI Express capability (PCIe 6.0 §7.5.3).
pub mod pcie_cap {
    /// PCI Express Capabilities, 16 bits; Device/Port Type in bits 7:4.
    pub const CAPABILITIES: u16 = 0x02;
    /// Device Capabilities; Max_Payload_Size Supported in bits 2:0.
    pub const DEVICE_CAPABILITIES: u16 = 0x04;
    /// Device Control, 16 bits; Max_Payload_Size in 7:5, Max_Read_Request_Size in 14:12.
    pub const DEVICE_CONTROL: u16 = 0x08;
}

/// Offsets inside the MSI-X capability (PCIe 6.0 §7.7.2).
pub mod msix_cap {
    /// Message Control, 16 bits: Table Size minus 1 in 10:0, Function Mask 14, Enable 15.
    pub const CONTROL: u16 = 0x02;
    /// Table BIR (bits 2:0) and offset.
    pub const TABLE: u16 = 0x04;
    /// PBA BIR (bits 2:0) and offset.
    pub const PBA: u16 = 0x08;
}

/// Offsets inside the ACS extended capability (PCIe 6.0 §7.7.11).
pub mod acs_cap {
    /// ACS Capability, 16 bits.
    pub const CAPABILITY: u16 = 0x04;
    /// ACS Control, 16 bits.
    pub const CONTROL: u16 = 0x06;
}
