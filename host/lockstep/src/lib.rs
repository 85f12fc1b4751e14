//! An IOMMU's RTL and the golden model in lock-step: random machines, changes and requests; after
//! each step both must have given the same answers and have the same registers and memory.

pub mod bench;
pub mod compare;
pub mod config;
pub mod coverage;
pub mod inflight;
pub mod layout;
pub mod lockstep;
pub mod memory;
pub mod suspects;
pub mod world;

pub use config::{Config, ConfigError};
pub use coverage::Coverage;
pub use lockstep::{Failure, Lockstep, Progress};
pub use tlproof_sim::iommu as ports;
