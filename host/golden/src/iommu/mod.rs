//! The architecture judge of a RISC-V IOMMU.

mod capabilities;
mod types;

pub use capabilities::Capabilities;
pub use types::{
    Actual, Choices, Fault, FaultRecord, Field, Mismatch, Outcome, Pbmt, Request, Stamp, Status,
    TransactionType, Translation, WideAddress,
};
