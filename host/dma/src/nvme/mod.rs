//! How `nvme-pci` maps a request: PRPs or SGLs, in lists that the controller reads from host memory.
//!
//! [`Nvme::prep_rq`] maps data and metadata and fills in a [`Command`]; [`Nvme::unmap_rq`] undoes
//! it from what the [`Iod`] noted. The queues and the controller itself are not here.

mod command;
mod data;
mod iod;
mod job;
mod meta;
mod prp;
#[cfg(test)]
mod tests;

pub use command::{Command, DataPointer, MetadataPointer, SglDescriptor, SglType};
pub use iod::{Iod, IodFlags};
use job::Job;

use crate::{
    block::{BlkStatus, QueueLimits, Request},
    coherent::Coherent,
    device::DeviceId,
    dma::Dma,
    dma_pool::DmaPool,
    error::MapError,
    iommu::IommuDriver,
    machine::Machine,
};

/// `NVME_CTRL_PAGE_SIZE`: the controller's page, whatever the kernel's is.
pub const CTRL_PAGE: u64 = 4096;

/// `NVME_SMALL_POOL_SIZE`: bytes of a small descriptor.
pub const SMALL_DESCRIPTOR: u64 = 256;

/// `NVME_MAX_BYTES`: bytes of a request.
const MAX_BYTES: u64 = 8 << 20;

/// `NVME_MAX_SEGS`: SGL descriptors of a list page.
const MAX_SEGMENTS: u32 = 256;

/// `NVME_MAX_META_SEGS`: a small descriptor less the one that points to the others.
const MAX_META_SEGMENTS: u32 = SMALL_DESCRIPTOR as u32 / 16 - 1;

/// What the driver knows of its controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ctrl {
    /// The controller takes SGLs for data (`nvme_ctrl_sgl_supported`).
    pub sgls: bool,
    /// It takes an SGL segment for metadata (`nvme_ctrl_meta_sgl_supported`).
    pub meta_sgls: bool,
    /// `sgl_threshold`: average bytes of a segment from which on SGLs are used; 0 for never.
    pub sgl_threshold: u32,
    /// `NVME_QUIRK_DMA_ADDRESS_BITS_48`.
    pub dma_48_bits: bool,
}

impl Default for Ctrl {
    /// A controller that takes SGLs, and the driver's default threshold of 32 KiB.
    fn default() -> Self {
        Self {
            sgls: true,
            meta_sgls: true,
            sgl_threshold: 32 << 10,
            dma_48_bits: false,
        }
    }
}

/// The queue of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// The admin queue: PRPs only.
    Admin,
    /// An I/O queue.
    Io,
}

/// Where a command comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its queue.
    pub queue: Queue,
    /// `NVME_REQ_USERCMD`: passed through from a user, so the device shall check the lengths.
    pub user: bool,
}

impl Source {
    /// A read or write of the block layer.
    pub const IO: Self = Self {
        queue: Queue::Io,
        user: false,
    };
}

/// Mistakes that the driver makes when told to, to show that they are caught.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defects {
    /// The entry that makes room for the address of the next list page is lost.
    pub chain_entry_lost: bool,
    /// PRP2 is the second page even when there are more.
    pub prp2_is_data: bool,
    /// PRP2 is a list even when it is of one page.
    pub prp2_is_list: bool,
    /// One flag for both: the metadata is mapped as the data is.
    pub meta_as_data: bool,
    /// SGL entries are unmapped with the length of a page.
    pub sgl_lengths_lost: bool,
    /// Peer memory is unmapped as if it was main memory.
    pub unmap_without_mmio: bool,
}

/// The driver of one controller (`struct nvme_dev`).
#[derive(Debug)]
pub struct Nvme {
    dev: DeviceId,
    ctrl: Ctrl,
    large: DmaPool,
    small: DmaPool,
    /// Mistakes to make.
    pub defects: Defects,
}

impl Nvme {
    /// `nvme_pci_alloc_dev`: sets the DMA parameters of the device and makes the pools.
    ///
    /// # Errors
    /// No such device.
    pub fn new<I: IommuDriver>(
        dma: &mut Dma<I>,
        dev: DeviceId,
        ctrl: Ctrl,
    ) -> Result<Self, MapError> {
        let mask = if ctrl.dma_48_bits {
            (1 << 48) - 1
        } else {
            u64::MAX
        };
        dma.dma_set_mask(dev, mask)?;
        dma.dma_set_coherent_mask(dev, mask)?;
        dma.dma_set_min_align_mask(dev, CTRL_PAGE - 1)?;
        dma.dma_set_max_seg_size(dev, u32::MAX.into())?;
        let pool = |size| DmaPool::new(dev, size, size).ok_or(MapError::AlignConstraint);
        Ok(Self {
            dev,
            ctrl,
            large: pool(CTRL_PAGE)?,
            small: pool(SMALL_DESCRIPTOR)?,
            defects: Defects::default(),
        })
    }

    /// `nvme_set_ctrl_limits`: what a request of a queue may be.
    #[must_use]
    pub fn limits<I: IommuDriver>(&self, dma: &Dma<I>, queue: Queue) -> QueueLimits {
        let bytes = MAX_BYTES.min(dma.dma_opt_mapping_size(self.dev)) as u32;
        QueueLimits {
            max_hw_bytes: bytes,
            max_segments: MAX_SEGMENTS.min(bytes / CTRL_PAGE as u32 + 1),
            max_segment_size: u32::MAX,
            seg_boundary_mask: 0xffff_ffff,
            virt_boundary_mask: if self.takes_sgls(queue) {
                0
            } else {
                CTRL_PAGE - 1
            },
            dma_alignment: 3,
            max_integrity_segments: if self.takes_sgls(queue) && self.ctrl.meta_sgls {
                MAX_META_SEGMENTS
            } else {
                1
            },
            merge: !dma.config().kmsan,
        }
    }

    fn takes_sgls(&self, queue: Queue) -> bool {
        queue == Queue::Io && self.ctrl.sgls
    }

    /// Descriptors in use, of both pools.
    #[must_use]
    pub fn descriptors_used(&self) -> usize {
        self.large.used() + self.small.used()
    }

    /// The coherent pages of both pools.
    pub fn pool_pages(&self) -> impl Iterator<Item = &Coherent> {
        self.large.pages().chain(self.small.pages())
    }

    /// `nvme_prep_rq`: maps a request and points the command to it.
    ///
    /// # Errors
    /// See [`Dma::blk_rq_dma_map_iter_start`]; [`BlkStatus::Resource`] without a descriptor, and
    /// [`BlkStatus::IoErr`] for segments that a PRP list cannot describe. Nothing stays mapped.
    pub fn prep_rq<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        source: Source,
        req: &Request,
        cmd: Command,
    ) -> Result<Iod, BlkStatus> {
        let mut iod = Iod::new(cmd);
        let mut job = Job {
            nvme: self,
            dma,
            m,
            req,
        };
        job.map_data(source, &mut iod)?;
        if req.integrity_bytes() > 0
            && let Err(e) = job.map_metadata(source, &mut iod)
        {
            job.unmap_data(&mut iod);
            return Err(e);
        }
        Ok(iod)
    }

    /// `nvme_pci_unmap_rq`: undoes [`Nvme::prep_rq`], the controller being done with the request.
    pub fn unmap_rq<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        req: &Request,
        mut iod: Iod,
    ) {
        let mut job = Job {
            nvme: self,
            dma,
            m,
            req,
        };
        if req.integrity_bytes() > 0 {
            job.unmap_metadata(&mut iod);
        }
        job.unmap_data(&mut iod);
    }

    /// `nvme_release_descriptor_pools`: gives the pools' memory back, whatever is in use.
    pub fn remove<I: IommuDriver>(mut self, dma: &mut Dma<I>, m: &mut dyn Machine) {
        self.large.destroy(dma, m);
        self.small.destroy(dma, m);
    }
}
