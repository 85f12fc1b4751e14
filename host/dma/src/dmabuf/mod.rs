//! Peer memory without pages, shared as a DMABUF.
//!
//! An exporter ([`VfioDmaBuf`]) gives ranges of a BAR away. A driver attaches its device and maps
//! them with the DMA API ([`Dma::dma_buf_phys_vec_to_sgt`]); a user's address space ([`Ioas`]) maps
//! them into its IOMMU domain by itself. Both are an [`Importer`]: the exporter takes the memory
//! back whenever it must, and they follow.
//!
//! [`Dma::dma_buf_phys_vec_to_sgt`]: crate::Dma::dma_buf_phys_vec_to_sgt

mod iommufd;
mod phys_vec;
#[cfg(test)]
mod tests;
mod vfio;

pub use iommufd::Ioas;
pub use phys_vec::{DmaSegment, DmaSgt, MAX_SEGMENT, PhysVec};
pub use vfio::{AttachmentId, Importer, ImporterOps, VfioDmaBuf};

use crate::{error::MapError, iommu::IommuError, p2pdma::P2pError};

/// Why a DMABUF is not exported, attached, mapped or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaBufError {
    /// No range, an empty one, one that is not page aligned or not inside the BAR (`-EINVAL`).
    #[error("not a list of page-aligned ranges of the BAR")]
    Range,
    /// The BAR is not provided to peers.
    #[error(transparent)]
    P2p(#[from] P2pError),
    /// The importer cannot use peer memory or cannot give it back when asked, or wants more than
    /// one range where only one is understood (`-EOPNOTSUPP`).
    #[error("the importer cannot use this buffer")]
    Unsupported,
    /// The exporter has taken the memory back (`-ENODEV`).
    #[error("the buffer is revoked")]
    Revoked,
    /// The client does not reach the BAR (`-EINVAL`).
    #[error("the device does not reach the peer")]
    NotReachable,
    /// No such attachment, or nothing mapped there.
    #[error("no such attachment or mapping")]
    NoAttachment,
    /// Neither reading nor writing is asked for, or something else besides (`-EINVAL`).
    #[error("bad protection")]
    Protection,
    /// VFIO does not take devices behind this IOMMU (`-EINVAL`).
    #[error("the IOMMU does not promise cache coherency")]
    NotCoherent,
    /// Accesses of an importer do not come to an end.
    #[error("accesses of an importer do not end")]
    Fence,
    /// An address space that is in use cannot be destroyed.
    #[error("the address space has functions or mappings")]
    Busy,
    /// Importers have kept this many mappings; the kernel waits for them.
    #[error("{0} mappings were not given back")]
    StillMapped(usize),
    /// The mapping call failed.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The IOMMU refused.
    #[error("iommu: {0}")]
    Iommu(#[from] IommuError),
    /// Configuration space does not answer.
    #[error("{0}")]
    Access(#[from] tlproof_pcie::config::AccessError),
}

impl DmaBufError {
    /// The negative error number; waiting for ever counts as `-EBUSY`.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::P2p(e) => e.errno(),
            Self::Unsupported => -95,
            Self::Revoked | Self::Access(_) => -19,
            Self::Fence | Self::StillMapped(_) | Self::Busy => -16,
            Self::Map(e) => e.errno(),
            Self::Iommu(e) => MapError::Iommu(*e).errno(),
            Self::Range
            | Self::NotReachable
            | Self::NoAttachment
            | Self::Protection
            | Self::NotCoherent => -22,
        }
    }
}
