//! A Linux-style DMA mapping API by physical address, and the drivers below it.
//!
//! The names are the kernel's where the kernel names the thing. The crate reaches a machine only
//! through the traits of [`machine`]; it knows no simulator.

pub mod iommu;
pub mod machine;
