//! The IOMMU core's view of an IOMMU driver: domains, mappings, invalidation.

use bitflags::bitflags;
use tlproof_pcie::{Bdf, PhysAddr};

use crate::machine::Machine;

bitflags! {
    /// `IOMMU_*` protection flags of a mapping, with the kernel's values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Prot: u32 {
        /// The device may read.
        const READ = 1;
        /// The device may write.
        const WRITE = 2;
        /// Cacheable: the access snoops the CPU caches.
        const CACHE = 4;
        /// The device may not fetch instructions.
        const NOEXEC = 8;
        /// Device memory: MMIO of a peer or a doorbell.
        const MMIO = 16;
        /// Privileged accesses only.
        const PRIV = 32;
    }
}

/// Names a domain of an [`IommuDriver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainId(pub u32);

/// How an IOMMU operation fails, with the kernel's error numbers in mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IommuError {
    /// `-EINVAL`: bad protection, size 0.
    #[error("invalid argument")]
    Invalid,
    /// `-ENXIO`: address, physical address or size not aligned to the granule.
    #[error("misaligned mapping")]
    Misaligned,
    /// `-ERANGE`: outside the aperture or the physical address width.
    #[error("address out of range")]
    Range,
    /// `-EADDRINUSE`: part of the range is mapped.
    #[error("address already mapped")]
    InUse,
    /// `-ENOMEM`: no page for a table or a queue.
    #[error("out of memory")]
    NoMemory,
    /// `-EOPNOTSUPP`: the hardware or the driver lacks it.
    #[error("not supported")]
    Unsupported,
    /// `-EBUSY`: the unit is in use or does not come ready.
    #[error("busy")]
    Busy,
    /// `-ENODEV`: not a usable unit.
    #[error("no such device")]
    NoDevice,
    /// `-EIO`: the unit reported an error or did not answer an access.
    #[error("input/output error: {0}")]
    Io(&'static str),
    /// `-ETIMEDOUT`: a command did not complete.
    #[error("timed out: {0}")]
    Timeout(&'static str),
}

/// Ranges and tables that wait for an invalidation (`struct iommu_iotlb_gather`).
#[derive(Clone, Debug, Default)]
pub struct Gather {
    /// First and last byte unmapped so far.
    pub range: Option<(u64, u64)>,
    /// Bitmap of levels at which leaves were cleared.
    pub leaf_levels: u8,
    /// Bitmap of levels at which tables were removed.
    pub table_levels: u8,
    /// Table pages to free once the invalidation is complete.
    pub freelist: Vec<PhysAddr>,
}

/// A driver of one IOMMU with paging domains.
pub trait IommuDriver {
    /// Page sizes of a domain, one bit each; the lowest is the granule.
    fn page_sizes(&self, domain: DomainId) -> u64;

    /// First and last IOVA of a domain.
    fn aperture(&self, domain: DomainId) -> (u64, u64);

    /// Makes an empty paging domain.
    ///
    /// # Errors
    /// Out of memory, or the hardware cannot do what the profile asks for.
    fn domain_alloc(&mut self, m: &mut dyn Machine) -> Result<DomainId, IommuError>;

    /// Frees a domain that no device is attached to.
    fn domain_free(&mut self, m: &mut dyn Machine, domain: DomainId);

    /// Puts a device into a paging domain (`Some`) or the identity domain (`None`).
    ///
    /// # Errors
    /// The unit does not complete its commands.
    fn attach(
        &mut self,
        m: &mut dyn Machine,
        device: Bdf,
        domain: Option<DomainId>,
    ) -> Result<(), IommuError>;

    /// Blocks all DMA of a device.
    ///
    /// # Errors
    /// The unit does not complete its commands.
    fn block(&mut self, m: &mut dyn Machine, device: Bdf) -> Result<(), IommuError>;

    /// `iommu_map`: maps `[iova, iova + size)` to `phys`; all granule multiples. On failure
    /// nothing stays mapped.
    ///
    /// # Errors
    /// See [`IommuError`].
    fn map(
        &mut self,
        m: &mut dyn Machine,
        domain: DomainId,
        iova: u64,
        phys: PhysAddr,
        size: u64,
        prot: Prot,
    ) -> Result<(), IommuError>;

    /// `iommu_unmap_fast`: clears the entries and returns the bytes removed, which can be more
    /// than `size` when a large entry ends behind the range and less when there is a hole.
    fn unmap(
        &mut self,
        m: &mut dyn Machine,
        domain: DomainId,
        iova: u64,
        size: u64,
        gather: &mut Gather,
    ) -> u64;

    /// `iommu_iotlb_sync`: invalidates what was gathered, waits for the fence, frees tables.
    ///
    /// # Errors
    /// The unit does not complete its commands.
    fn iotlb_sync(
        &mut self,
        m: &mut dyn Machine,
        domain: DomainId,
        gather: Gather,
    ) -> Result<(), IommuError>;

    /// Invalidates all of a domain and waits for the fence.
    ///
    /// # Errors
    /// The unit does not complete its commands.
    fn flush_all(&mut self, m: &mut dyn Machine, domain: DomainId) -> Result<(), IommuError>;

    /// `iommu_iova_to_phys`.
    fn iova_to_phys(&self, m: &mut dyn Machine, domain: DomainId, iova: u64) -> Option<PhysAddr>;

    /// The leaf entry that translates `iova`, as it stands in memory, for reports.
    fn leaf_entry(&self, m: &mut dyn Machine, domain: DomainId, iova: u64) -> Option<u64>;
}
