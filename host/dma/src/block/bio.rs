//! Bios: the vectors of memory that one submission transfers.

use tlproof_pcie::PhysAddr;

use crate::{dma::Dma, iommu::IommuDriver, machine::Machine, p2pdma::ProviderId};

/// What the pages of a vector are (`page_pgmap`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pgmap {
    /// Main memory.
    Ram,
    /// Pages of a peer's BAR.
    P2p(ProviderId),
}

/// Physically contiguous memory with struct pages (`struct bio_vec`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BioVec {
    phys: PhysAddr,
    len: u32,
    pgmap: Pgmap,
}

impl BioVec {
    /// First byte.
    #[must_use]
    pub const fn phys(&self) -> PhysAddr {
        self.phys
    }

    /// Bytes, at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// What the pages are.
    #[must_use]
    pub const fn pgmap(&self) -> Pgmap {
        self.pgmap
    }

    /// The vector without its first `bytes`, which must be less than all.
    pub(super) const fn skip(self, bytes: u32) -> Self {
        Self {
            phys: self.phys.offset(bytes as u64),
            len: self.len - bytes,
            pgmap: self.pgmap,
        }
    }
}

/// Why memory cannot stand in a bio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BioError {
    /// A vector of no bytes.
    #[error("empty vector")]
    Empty,
    /// Neither main memory nor a peer's BAR that has struct pages, as a whole.
    #[error("{phys}+{len} has no struct pages")]
    NoPages {
        /// First byte.
        phys: PhysAddr,
        /// Bytes.
        len: u32,
    },
    /// Pages of another kind or provider than those before (`zone_device_pages_compatible`).
    #[error("pages of another pgmap than the bio's")]
    MixedPages,
}

impl<I: IommuDriver> Dma<I> {
    /// A vector of `len` bytes at `phys`, with what its pages are.
    ///
    /// # Errors
    /// [`BioError::Empty`] and [`BioError::NoPages`].
    pub fn bio_vec(&self, m: &dyn Machine, phys: PhysAddr, len: u32) -> Result<BioVec, BioError> {
        let bytes = u64::from(len);
        if len == 0 {
            return Err(BioError::Empty);
        }
        let pgmap = match self.p2pdma.page_provider(phys, bytes) {
            Some(id) => Some(Pgmap::P2p(id)),
            None => m.memory_map().is_dram(phys, bytes).then_some(Pgmap::Ram),
        };
        match pgmap {
            Some(pgmap) => Ok(BioVec { phys, len, pgmap }),
            None => Err(BioError::NoPages { phys, len }),
        }
    }
}

/// The vectors of one submission, and those of its integrity payload (`struct bio`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bio {
    pub(super) vecs: Vec<BioVec>,
    pub(super) integrity: Vec<BioVec>,
}

impl Bio {
    /// A bio of data vectors.
    ///
    /// # Errors
    /// As [`Bio::add`].
    pub fn new(vecs: impl IntoIterator<Item = BioVec>) -> Result<Self, BioError> {
        let mut bio = Self::default();
        for vec in vecs {
            bio.add(vec)?;
        }
        Ok(bio)
    }

    /// `bio_add_page`: appends data.
    ///
    /// # Errors
    /// [`BioError::MixedPages`]: a bio never mixes pgmaps, nor peer memory with main memory.
    pub fn add(&mut self, vec: BioVec) -> Result<(), BioError> {
        append(&mut self.vecs, vec)
    }

    /// `bio_integrity_add_page`: appends metadata, which may be of another kind than the data.
    ///
    /// # Errors
    /// As [`Bio::add`].
    pub fn add_integrity(&mut self, vec: BioVec) -> Result<(), BioError> {
        append(&mut self.integrity, vec)
    }

    /// `REQ_NOMERGE`: the bio is a request of its own, as one with peer memory always is.
    #[must_use]
    pub fn no_merge(&self) -> bool {
        self.vecs.iter().any(|v| v.pgmap != Pgmap::Ram)
    }
}

fn append(vecs: &mut Vec<BioVec>, vec: BioVec) -> Result<(), BioError> {
    if vecs.last().is_some_and(|last| last.pgmap != vec.pgmap) {
        return Err(BioError::MixedPages);
    }
    vecs.push(vec);
    Ok(())
}
