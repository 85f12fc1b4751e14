//! The testbench: a simulated machine, drivers that make and use DMA mappings on it, and the checker
//! that looks at every TLP.

mod bits;
pub mod buffers;
pub mod campaign;
pub mod checker;
pub mod cli;
pub mod commands;
pub mod dmabench;
pub mod endpoint;
pub mod iommu_suite;
pub mod memory_port;
pub mod msix;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod output;
pub mod pcapng;
pub mod program;
pub mod recording;
pub mod replay;
pub mod report;
pub mod rtl_mutants;
pub mod simulation;
mod taps;
pub mod testbench;
pub mod trace;
