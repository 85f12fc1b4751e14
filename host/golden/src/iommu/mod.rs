//! The architecture judge of a RISC-V IOMMU: says what each request must become, by the tables in
//! memory and the RISC-V IOMMU Architecture Specification v1.0 alone.
//!
//! [`Judge`] follows what software does: the harness tells it every register access and every
//! change of a word of main memory, in program order, and asks it about every answer of the
//! device under test. Commands are read from queue memory by the judge itself.
//!
//! # Old and new answers
//!
//! An IOMMU may cache (IOMMU §2.8), so more than one answer can be right. An entry (a device
//! context, a page-table entry) may be used in a version that
//! - stands in memory now, or stood there at any time since the request entered the host, or
//! - is older, valid (`V` = 1), and was not covered by an invalidation that software submitted
//!   after the entry changed and whose fence was seen to be completed before the request entered.
//!
//! A fence is complete when software has read a `cqh` beyond it, or has seen its store
//! ([`Judge::fence_store_observed`]). Each entry is old or new as a whole; an answer that mixes
//! fields is a [`Mismatch`]. The last 2^18 changes of words are kept at least in part: words of
//! pages that hold tables outlive others. An answer from a version that was forgotten is judged
//! wrong.
//!
//! # What is modelled
//!
//! The translation process of the specification with all of its ratified extensions: both formats
//! of the device directory, process directories, both stages with Sv32 to Sv57, Svnapot, Svpbmt
//! and Svrsw60t59b, both endiannesses, updates of the A and D bits, MSI page tables, ATS.
//!
//! ```
//! use tlproof_golden::iommu::{Actual, Choices, Judge, Outcome, Request, Status};
//! use tlproof_golden::memory::CachedMemory;
//! use tlproof_pcie::{MemoryMap, PhysAddr};
//!
//! let memory = CachedMemory::new(&MemoryMap::default());
//! let mut judge = Judge::new(56 << 32 | 1 << 15 | 1 << 9, Choices::default());
//! judge.register_write(&memory, 16, 8, 1); // ddtp: Bare
//! judge.register_read(16, 8, 1);
//!
//! let request = Request::untranslated(0x100, 0x8000_1000, false);
//! let since = judge.stamp();
//! let answer = Actual { status: Status::Ok, cause: 0, spa: PhysAddr(0x8000_1000), pbmt: 0 };
//! assert!(matches!(judge.check(&memory, &request, since, &answer), Ok(Outcome::Ok(_))));
//!
//! let wrong = Actual { spa: PhysAddr(0x8000_2000), ..answer };
//! let mismatch = judge.check(&memory, &request, since, &wrong).unwrap_err();
//! assert_eq!(
//!     mismatch.to_string(),
//!     "address: expected 0x80001000, got 0x80002000 (IOMMU §2.3 step 17)"
//! );
//! ```

mod capabilities;
mod choices;
mod command;
mod context;
mod device;
mod history;
mod judge;
mod memory;
mod mrif;
pub mod offset;
mod outcome;
mod registers;
mod translator;
mod types;
mod views;
mod walk;

pub use capabilities::Capabilities;
pub use choices::{Choices, CleanPage, WalkEvents, WideAddress, WideMsiMask};
pub use command::{AtsTarget, Command, Scope};
pub use device::{AtsMessage, Iommu, PageRequest};
pub use judge::Judge;
pub use memory::{FlatMemory, Injected, MemoryFault, SystemMemory};
pub use mrif::{MrifEffect, MrifRequest};
pub use outcome::{
    Completion, Fault, FaultRecord, Loads, Mrif, Outcome, Permissions, Qos, Response, StageLeaf,
    Translation, Update,
};
pub use registers::Registers;
pub use translator::Translator;
pub use types::{Actual, AtsFlags, Field, Mismatch, Pbmt, Request, Stamp, Status, TransactionType};
