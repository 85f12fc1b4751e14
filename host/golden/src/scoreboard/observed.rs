//! What the taps inside the bridge and the CPU port show.

use tlproof_pcie::{Bdf, MemAttr, PhysAddr};

use crate::iommu::Status;

/// Where the bridge sends a translated request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dest {
    /// To the memory port.
    Memory,
    /// Down a root port.
    Peer(u8),
    /// Nowhere: it is refused.
    None,
}

/// What the translation tap shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// How the IOMMU answered.
    pub status: Status,
    /// Fault cause.
    pub cause: u16,
    /// Page-based memory type, two bits.
    pub pbmt: u8,
    /// Resolved attributes.
    pub attr: MemAttr,
    /// Destination.
    pub dest: Dest,
    /// Supervisor physical address.
    pub spa: PhysAddr,
}

/// A request at the memory port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemRequest {
    /// Write or read.
    pub write: bool,
    /// An implicit access of the IOMMU.
    pub from_iommu: bool,
    /// Address of the first DW.
    pub addr: PhysAddr,
    /// Length in DW.
    pub len_dw: u16,
    /// First DW byte enables.
    pub first_be: u8,
    /// Last DW byte enables.
    pub last_be: u8,
    /// Requester ID.
    pub requester: Bdf,
    /// Tag of the TLP.
    pub tlp_tag: u16,
    /// Tag of a read at this port.
    pub port_tag: u8,
    /// Attributes.
    pub attr: MemAttr,
}

/// A request of a CPU (the CPU port of `docs/rtl-ports.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuRequest {
    /// Write or read.
    pub write: bool,
    /// A configuration access; the address is the ECAM offset.
    pub config: bool,
    /// Byte address.
    pub addr: u64,
    /// Byte enables within the eight bytes around the address.
    pub be: u8,
    /// Data in the lanes of the byte enables.
    pub data: u64,
}
