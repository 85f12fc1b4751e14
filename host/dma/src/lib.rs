//! A Linux-style DMA mapping API by physical address, and the drivers below it.
//!
//! The names are the kernel's where the kernel names the thing. The crate reaches a machine only
//! through the traits of [`machine`]; it knows no simulator.
//!
//! [`Dma`] is the API. [`Dma::describe`] says what a live mapping promises; [`trace`] records the
//! events that a kernel would trace.

/// Whether one of these wrong implementations is armed; `false` without the feature `mutants`.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($($name:ident)|+) => {
        $($crate::mutants::armed($crate::mutants::Mutant::$name))||+
    };
}
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($($name:ident)|+) => {
        false
    };
}

#[cfg(test)]
mod any_arguments;
pub mod attrs;
pub mod block;
mod bounce;
pub mod coherent;
pub mod debug;
pub mod device;
mod direct;
pub mod dma;
pub mod dma_pool;
pub mod dmabuf;
pub mod error;
mod flush_queue;
pub mod hmm;
pub mod iommu;
pub mod iommu_dma;
pub mod iova;
pub mod iova_state;
pub mod kmsan;
pub mod ledger;
pub mod machine;
mod mapping;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod noncoherent;
pub mod nvme;
pub mod odp;
#[cfg(test)]
mod order;
pub mod p2pdma;
pub mod pages;
pub mod profile;
mod removal;
pub mod riscv;
pub mod sg;
pub mod swiotlb;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod virtio_ring;
pub mod xen;

pub use attrs::Attrs;
pub use coherent::{Coherent, CpuMapping, PageSource};
pub use device::{Attach, Backend, Device, DeviceId, DmaRange};
pub use dma::{Config, Dma};
pub use dma_pool::{DmaPool, PoolBlock};
pub use error::{MapError, Warning, WarningKind};
pub use iova_state::IovaState;
pub use ledger::{Api, Expected, Mapping, Route, Segment};
pub use profile::{Profile, Quirks};
pub use sg::SgEntry;
pub use swiotlb::Swiotlb;
pub use trace::{Event, KernelTrace, Record};
pub use xen::FrameMap;
