//! Driver of the RISC-V IOMMU (specification v1.0), one stage of translation.

pub mod command;
pub mod directory;
pub mod driver;
pub mod pgtable;
pub mod queue;
pub mod regs;

#[cfg(test)]
pub(crate) mod fake;

pub use driver::{Defects, MsiTarget, Options, RiscvIommu};
pub use pgtable::Mode;
