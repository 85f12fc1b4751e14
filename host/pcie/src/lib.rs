//! The vocabulary that the host code and the golden model share: address spaces, Requester IDs,
//! TLPs, memory attributes, configuration space and its enumeration.
//!
//! Nothing here encodes or decodes a page table, an IOMMU directory entry, a command or a fault
//! record: those exist once in the driver and once in the golden model, so that the same bug
//! cannot stand on both sides.

pub mod addr;
pub mod attr;
pub mod bdf;
pub mod config;
pub mod enumerate;
pub mod map;
pub mod tlp;
pub mod tree;

pub use addr::{BusAddr, DmaAddr, PhysAddr};
pub use attr::{Direction, MemAttr, MemType};
pub use bdf::Bdf;
pub use enumerate::enumerate;
pub use map::{MemoryMap, Range};
pub use tlp::{Class, CplStatus, Head};
pub use tree::Tree;
