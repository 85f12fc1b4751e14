//! dma-debug: every mapping is kept in a table of its own, and every unmap, sync and mapping is
//! compared with it (`CONFIG_DMA_API_DEBUG`).
//!
//! The tracker takes nothing from the ledger of promises and changes nothing in it: the ledger says
//! what the hardware owes, the tracker what the driver owes. It is off unless
//! [`Config::debug`](crate::Config) is set, and costs a test of an `Option` then.
//!
//! Tracked are `dma_map_phys` and its wrappers, scatterlists, coherent and non-coherent
//! allocations. Not tracked, as in the kernel, are `dma_iova_*`, peers reached by their bus address
//! without a mapping call, and the attributes of a sync.
//!
//! # Reports
//!
//! [`Report`] has one variant for each report, D1 to D22. What there is to say beyond it:
//!
//! - **D10** (*failed to check map error*). In C an address has to be passed to
//!   `dma_mapping_error()` before it may be used. Here [`Dma::dma_map_phys`](crate::Dma) returns a
//!   `Result`: there is no address without the check, so it marks its entry as checked at once.
//!   [`Dma::dma_map_phys_raw`](crate::Dma) is the call of C, which returns all ones for a failure;
//!   what it returns is unchecked until [`Dma::dma_mapping_error`](crate::Dma) sees it.
//! - **D12, D13, D14** have to know what memory is used for: [`Areas`], which a machine or a driver
//!   fills. There are no kernel virtual addresses here, so an area is a range of physical addresses
//!   and the texts print those. There is no high memory, as on any 64-bit kernel.
//! - **D14** for memory of `vmalloc` cannot be reached through `dma_map_single`: the wrapper refuses
//!   it before dma-debug is asked, here and in the kernel. [`Report::VmallocArea`] comes of
//!   [`DmaDebug::map_single`] alone.
//! - **D17** (*outside allocated range*): the entry of a sync is one that contains it, so a sync
//!   that runs over the end is D16. D17 is left for a size that wraps around the address space.
//! - *cacheline tracking ENOMEM* and *out of memory*: nothing here runs out of memory; the limit
//!   [`Options::max_entries`] stands in for the second.

mod areas;
mod cacheline;
mod entry;
mod hooks;
mod log;
mod report;
#[cfg(test)]
mod tests;
mod tracker;

pub use areas::{Area, Areas};
pub use cacheline::MAX_OVERLAP;
pub(crate) use hooks::Range;

pub use entry::{Entry, EntryType, MapErr};
pub use log::{Complaint, Log};
pub use report::Report;
pub use tracker::DmaDebug;

/// What the kernel takes from its configuration, its command line and debugfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `num_errors`: so many reports are shown.
    pub num_errors: u64,
    /// `all_errors`: all of them are.
    pub all_errors: bool,
    /// `dma_debug_driver=`, `driver_filter`: only reports on devices of this driver are shown.
    pub driver_filter: Option<String>,
    /// `CONFIG_DMA_API_DEBUG_SG`: the segments of a list are checked against the device's limits.
    pub check_sg: bool,
    /// `dma_debug_entries=`: entries allocated at boot; more are added by as many.
    pub entries: usize,
    /// So many entries fit into memory; the mapping after that turns the tracker off.
    pub max_entries: Option<usize>,
    /// `L1_CACHE_BYTES`, a power of two.
    pub l1_cache_bytes: u64,
    /// `dma_get_cache_alignment()`: below `l1_cache_bytes` (1 where all devices are coherent, as on
    /// x86) two mappings of one line are no error.
    pub cache_alignment: u64,
}

impl Default for Options {
    /// A kernel without options on its command line, on a machine with lines of 64 bytes.
    fn default() -> Self {
        Self {
            num_errors: 1,
            all_errors: false,
            driver_filter: None,
            check_sg: true,
            entries: 65_536,
            max_entries: None,
            l1_cache_bytes: 64,
            cache_alignment: 64,
        }
    }
}
