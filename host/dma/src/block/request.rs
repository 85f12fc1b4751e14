//! Requests: bios that are adjacent on the disk, under the limits of the device's queue.

use tlproof_pcie::{Direction, PhysAddr};

use super::{
    bio::{Bio, BioVec, Pgmap},
    map_iter::{BlkMapIter, PhysVec},
};
use crate::pages::PAGE_SIZE;

/// What a device takes (`struct queue_limits`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes of a request (`max_hw_sectors`).
    pub max_hw_bytes: u32,
    /// Segments of a request.
    pub max_segments: u32,
    /// Bytes of a segment.
    pub max_segment_size: u32,
    /// Mask that a segment must not cross.
    pub seg_boundary_mask: u64,
    /// Mask of the addresses between segments that must be zero; 0 for none.
    pub virt_boundary_mask: u64,
    /// Mask of the bits that must be zero in the address of a vector.
    pub dma_alignment: u64,
    /// Segments of the integrity payload; 0 for a device without.
    pub max_integrity_segments: u32,
    /// Adjacent vectors become one segment; not so in a KMSAN kernel, nor where the frames of a
    /// Xen guest are not adjacent in machine memory.
    pub merge: bool,
}

impl Default for QueueLimits {
    /// Without limits other than those of the types.
    fn default() -> Self {
        Self {
            max_hw_bytes: u32::MAX,
            max_segments: u32::MAX,
            max_segment_size: u32::MAX,
            seg_boundary_mask: u64::MAX,
            virt_boundary_mask: 0,
            dma_alignment: 0,
            max_integrity_segments: u32::MAX,
            merge: true,
        }
    }
}

impl QueueLimits {
    /// `get_max_segment_size`: bytes of the longest segment that starts at `phys`.
    #[must_use]
    pub fn max_segment(&self, phys: PhysAddr) -> u32 {
        let mask = self.seg_boundary_mask;
        let to_boundary = (mask - (phys.0 & mask)).saturating_add(1);
        let to_boundary = u32::try_from(to_boundary).unwrap_or(u32::MAX);
        self.max_segment_size.min(to_boundary)
    }

    /// What `blk_validate_limits` demands: a page fits into a segment, the masks are masks.
    fn valid(&self) -> bool {
        let mask = |m: u64| m & m.wrapping_add(1) == 0;
        u64::from(self.max_segment_size) >= PAGE_SIZE
            && self.seg_boundary_mask >= PAGE_SIZE - 1
            && mask(self.seg_boundary_mask)
            && mask(self.virt_boundary_mask)
            && mask(self.dma_alignment)
    }
}

/// What a request does (`REQ_OP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReqOp {
    /// From the disk to memory.
    Read,
    /// From memory to the disk.
    Write,
}

/// Why bios do not make a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The limits contradict the block layer's own.
    #[error("invalid queue limits")]
    Limits,
    /// No data.
    #[error("no data")]
    Empty,
    /// More bytes than the device takes.
    #[error("{0} bytes are more than the queue takes")]
    TooLong(u64),
    /// A bio with peer memory is a request of its own.
    #[error("a bio with peer memory was merged")]
    NoMerge,
    /// Some of the bios have metadata and others have not (`blk_integrity_merge_rq`).
    #[error("bios with and without metadata were merged")]
    NotAllWithMetadata,
    /// Metadata of different pgmaps, or of a peer and main memory.
    #[error("metadata of different pgmaps")]
    MixedPages,
    /// A vector at an address that the device does not take.
    #[error("{0} is not aligned as the queue demands")]
    Misaligned(PhysAddr),
    /// Segments with a gap that the device cannot describe.
    #[error("a gap before {0} is not at the queue's virtual boundary")]
    Gap(PhysAddr),
    /// Too many segments.
    #[error("{0} segments are more than the queue takes")]
    Segments(u32),
    /// Too many segments of metadata.
    #[error("{0} integrity segments are more than the queue takes")]
    IntegritySegments(u32),
}

/// A request (`struct request`): checked when it is made, and not changed after.
#[derive(Clone, Debug)]
pub struct Request {
    op: ReqOp,
    bios: Vec<Bio>,
    limits: QueueLimits,
    data: Extent,
    integrity: Extent,
}

/// Numbers of the segments of data or metadata.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    bytes: u32,
    segments: u32,
    gap_mask: u64,
}

impl Request {
    /// A request of bios in their order on the disk.
    ///
    /// # Errors
    /// See [`RequestError`]; the kernel would split or refuse the bios.
    pub fn new(op: ReqOp, bios: Vec<Bio>, limits: &QueueLimits) -> Result<Self, RequestError> {
        if !limits.valid() {
            return Err(RequestError::Limits);
        }
        if bios.len() > 1 && bios.iter().any(Bio::no_merge) {
            return Err(RequestError::NoMerge);
        }
        let with = bios.iter().filter(|b| !b.integrity.is_empty()).count();
        if with != 0 && with != bios.len() {
            return Err(RequestError::NotAllWithMetadata);
        }
        let mut metadata = bios.iter().flat_map(|b| &b.integrity).map(BioVec::pgmap);
        if let Some(first) = metadata.next()
            && metadata.any(|other| other != first)
        {
            return Err(RequestError::MixedPages);
        }
        let mut all = bios.iter().flat_map(|b| b.vecs.iter().chain(&b.integrity));
        if let Some(v) = all.find(|v| v.phys().0 & limits.dma_alignment != 0) {
            return Err(RequestError::Misaligned(v.phys()));
        }
        let data = extent(BlkMapIter::new(&bios, limits, false))?;
        let integrity = extent(BlkMapIter::new(&bios, limits, true))?;
        if data.bytes == 0 {
            return Err(RequestError::Empty);
        }
        if data.bytes > limits.max_hw_bytes {
            return Err(RequestError::TooLong(data.bytes.into()));
        }
        if data.segments > limits.max_segments {
            return Err(RequestError::Segments(data.segments));
        }
        if integrity.segments > limits.max_integrity_segments {
            return Err(RequestError::IntegritySegments(integrity.segments));
        }
        let mut last = None;
        for s in BlkMapIter::new(&bios, limits, false) {
            if last.is_some_and(|end| (end | s.paddr.0) & limits.virt_boundary_mask != 0) {
                return Err(RequestError::Gap(s.paddr));
            }
            last = Some(end(s));
        }
        Ok(Self {
            op,
            bios,
            limits: *limits,
            data,
            integrity,
        })
    }

    /// What it does.
    #[must_use]
    pub const fn op(&self) -> ReqOp {
        self.op
    }

    /// `rq_dma_dir`.
    #[must_use]
    pub const fn dma_dir(&self) -> Direction {
        match self.op {
            ReqOp::Read => Direction::FromDevice,
            ReqOp::Write => Direction::ToDevice,
        }
    }

    /// Its physical segments.
    #[must_use]
    pub fn segments(&self) -> BlkMapIter<'_> {
        BlkMapIter::new(&self.bios, &self.limits, false)
    }

    /// The physical segments of its metadata.
    #[must_use]
    pub fn integrity_segments(&self) -> BlkMapIter<'_> {
        BlkMapIter::new(&self.bios, &self.limits, true)
    }

    /// `blk_rq_payload_bytes`.
    #[must_use]
    pub const fn payload_bytes(&self) -> u32 {
        self.data.bytes
    }

    /// Bytes of the metadata.
    #[must_use]
    pub const fn integrity_bytes(&self) -> u32 {
        self.integrity.bytes
    }

    /// `blk_rq_nr_phys_segments`.
    #[must_use]
    pub const fn nr_phys_segments(&self) -> u32 {
        self.data.segments
    }

    /// `nr_integrity_segments`.
    #[must_use]
    pub const fn nr_integrity_segments(&self) -> u32 {
        self.integrity.segments
    }

    /// `req_phys_gap_mask`: every bit from the lowest one on that is set in an address between two
    /// segments; 0 without any.
    #[must_use]
    pub const fn phys_gap_mask(&self) -> u64 {
        self.data.gap_mask
    }

    /// The same of the metadata.
    #[must_use]
    pub const fn integrity_gap_mask(&self) -> u64 {
        self.integrity.gap_mask
    }

    /// What the data is.
    #[must_use]
    pub fn pgmap(&self) -> Pgmap {
        pgmap(self.bios.iter().flat_map(|b| &b.vecs))
    }

    /// What the metadata is.
    #[must_use]
    pub fn integrity_pgmap(&self) -> Pgmap {
        pgmap(self.bios.iter().flat_map(|b| &b.integrity))
    }
}

fn pgmap<'a>(mut vecs: impl Iterator<Item = &'a BioVec>) -> Pgmap {
    vecs.next().map_or(Pgmap::Ram, BioVec::pgmap)
}

/// The address behind a segment; all segments are memory, which ends below 2^64.
const fn end(s: PhysVec) -> u64 {
    s.paddr.0.wrapping_add(s.len as u64)
}

fn extent(segments: BlkMapIter<'_>) -> Result<Extent, RequestError> {
    let (mut bytes, mut count, mut gaps, mut last) = (0_u64, 0_u32, 0, None);
    for s in segments {
        bytes += u64::from(s.len);
        count = count.saturating_add(1);
        gaps |= last.map_or(0, |end| end | s.paddr.0);
        last = Some(end(s));
    }
    let lowest = gaps & gaps.wrapping_neg();
    Ok(Extent {
        bytes: u32::try_from(bytes).map_err(|_| RequestError::TooLong(bytes))?,
        segments: count,
        gap_mask: lowest.wrapping_neg(),
    })
}
