//! Golden model of tlproof: judges that know nothing of each other look at every TLP.
//!
//! - the promise judge ([`ledger`]) holds what mapping calls promised and never looks at a page
//!   table;
//! - the architecture judge ([`iommu`]) walks the tables in memory by the specification;
//! - the fabric judge ([`fabric`]) routes by what software wrote into configuration space.
//!
//! [`Scoreboard`] follows every TLP from tap to tap and asks them.

pub mod fabric;
mod flight;
mod header;
pub mod iommu;
pub mod ledger;
pub mod memory;
pub mod scoreboard;
pub mod violation;

pub use fabric::{EndpointPlace, EndpointPort, Topology};
pub use ledger::{MemoryKind, Promise, PromiseId, RogueId, Route};
pub use scoreboard::{Config, CpuRequest, Dest, MemRequest, Scoreboard, Translated};
pub use violation::{Judge, Rule, Stats, Tap, TlpId, Violation};

/// The program in the user's documentation is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/golden-iommu.md")]
mod documentation {}
