//! The `iommu` block in lock-step with the architecture judge.
//!
//! Tables, queues and registers are driven as software drives them; the judge derives from the
//! same stores and register accesses what each request must become.

mod ats;
mod bench;
mod campaign;
mod choices;
mod debug;
mod directed;
mod dirty;
mod memory_errors;
mod minimal;
mod monitor;
mod msi;
mod page_requests;
mod processes;
mod queues;
mod registers;
mod rig;
mod statements;
mod tables;
mod tampered;
mod two_stages;
mod watchdog;
