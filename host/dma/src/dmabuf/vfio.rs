//! The exporter: VFIO gives ranges of a function's BAR away and takes them back when the function
//! is reset, loses its power or its memory decoding, or is closed.

use tlproof_pcie::{
    Bdf, Direction,
    config::{ConfigSpace, command, reg},
};

use super::{DmaBufError, DmaSgt, PhysVec};
use crate::{
    device::DeviceId,
    dma::Dma,
    iommu::IommuDriver,
    machine::Machine,
    p2pdma::{P2pdma, ProviderId},
    pages::PAGE_SIZE,
};

/// Names an attachment of one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId {
    buf: u64,
    index: usize,
}

/// What an importer says about itself (`struct dma_buf_attach_ops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImporterOps {
    /// It takes addresses of peers, without pages behind them.
    pub allow_peer2peer: bool,
    /// It stops for good when the exporter says so, without asking for the memory again.
    pub revocable: bool,
}

impl ImporterOps {
    /// Peer memory, revocable.
    pub const PEER: Self = Self {
        allow_peer2peer: true,
        revocable: true,
    };
}

/// What an importer does when the exporter takes its memory back.
pub trait Importer<I> {
    /// `invalidate_mappings`: starts no access to `buf` any more.
    fn invalidate_mappings(&mut self, dma: &mut Dma<I>, m: &mut dyn Machine, buf: &VfioDmaBuf);

    /// Waits until the accesses under way have ended; false when they do not. An importer whose
    /// accesses have ended with the invalidation has nothing to do.
    fn wait_fences(&mut self, _m: &mut dyn Machine) -> bool {
        true
    }

    /// Gives every mapping of `buf` back with [`VfioDmaBuf::unmap`].
    fn unmap(&mut self, dma: &mut Dma<I>, m: &mut dyn Machine, buf: &mut VfioDmaBuf);
}

#[derive(Clone, Copy, Debug)]
struct Attachment {
    /// `None` for an importer that does not map through the DMA API.
    dev: Option<DeviceId>,
    mappings: usize,
}

/// An exported buffer (`struct vfio_pci_dma_buf`).
#[derive(Clone, Debug)]
pub struct VfioDmaBuf {
    id: u64,
    owner: Bdf,
    provider: ProviderId,
    ranges: Vec<PhysVec>,
    revoked: bool,
    /// By the index of their [`AttachmentId`].
    attachments: Vec<Option<Attachment>>,
}

impl VfioDmaBuf {
    /// Exports ranges of a BAR, each an offset and a length. A function that does not decode
    /// memory exports a revoked buffer.
    ///
    /// # Errors
    /// The BAR is not provided, or a range is not page aligned or not inside it.
    pub fn export(
        p2pdma: &mut P2pdma,
        config: &mut dyn ConfigSpace,
        owner: Bdf,
        bar: u8,
        ranges: &[(u64, u64)],
    ) -> Result<Self, DmaBufError> {
        let id = p2pdma.provider(owner, bar)?;
        let provider = *p2pdma.get(id).ok_or(DmaBufError::Range)?;
        let vecs: Option<Vec<PhysVec>> = ranges
            .iter()
            .map(|(offset, len)| {
                let aligned = *len > 0 && (offset | len).is_multiple_of(PAGE_SIZE);
                let end = offset.checked_add(*len)?;
                (aligned && end <= provider.range.size()).then(|| PhysVec {
                    phys: provider.range.base.offset(*offset),
                    len: *len,
                })
            })
            .collect();
        let vecs = vecs.filter(|v| !v.is_empty()).ok_or(DmaBufError::Range)?;
        let enabled = config.config_read(owner, reg::COMMAND, 2)?;
        p2pdma.exports += 1;
        Ok(Self {
            id: p2pdma.exports,
            owner,
            provider: id,
            ranges: vecs,
            revoked: enabled & u32::from(command::MEMORY_SPACE) == 0,
            attachments: Vec::new(),
        })
    }

    /// The ranges, in the order of the buffer.
    #[must_use]
    pub fn ranges(&self) -> &[PhysVec] {
        &self.ranges
    }

    /// Whether the memory is taken back.
    #[must_use]
    pub const fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// Whether an attachment is one of this buffer.
    #[must_use]
    pub const fn owns(&self, at: AttachmentId) -> bool {
        at.buf == self.id
    }

    /// Mappings that importers have not given back.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.attachments.iter().flatten().map(|a| a.mappings).sum()
    }

    /// `dma_buf_dynamic_attach`. `dev` is the device that will map through the DMA API, if one
    /// will.
    ///
    /// # Errors
    /// The importer cannot use peer memory or cannot be revoked, or the buffer is revoked now.
    pub fn attach(
        &mut self,
        dev: Option<DeviceId>,
        ops: ImporterOps,
    ) -> Result<AttachmentId, DmaBufError> {
        if !ops.allow_peer2peer || !ops.revocable {
            return Err(DmaBufError::Unsupported);
        }
        if self.revoked {
            return Err(DmaBufError::Revoked);
        }
        self.attachments.push(Some(Attachment { dev, mappings: 0 }));
        Ok(AttachmentId {
            buf: self.id,
            index: self.attachments.len() - 1,
        })
    }

    /// `dma_buf_detach`.
    ///
    /// # Errors
    /// No such attachment, or it has mappings.
    pub fn detach(&mut self, at: AttachmentId) -> Result<(), DmaBufError> {
        match self.attachment(at)?.mappings {
            0 => {
                self.attachments[at.index] = None;
                Ok(())
            }
            n => Err(DmaBufError::StillMapped(n)),
        }
    }

    fn attachment(&mut self, at: AttachmentId) -> Result<&mut Attachment, DmaBufError> {
        self.attachments
            .get_mut(at.index)
            .filter(|_| at.buf == self.id)
            .and_then(Option::as_mut)
            .ok_or(DmaBufError::NoAttachment)
    }

    /// `dma_buf_map_attachment`.
    ///
    /// # Errors
    /// Revoked, out of reach, or as the mapping calls.
    pub fn map<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        at: AttachmentId,
        dir: Direction,
    ) -> Result<DmaSgt, DmaBufError> {
        let dev = self.attachment(at)?.dev.ok_or(DmaBufError::NoAttachment)?;
        if self.revoked {
            return Err(DmaBufError::Revoked);
        }
        let sgt = dma.dma_buf_phys_vec_to_sgt(m, dev, self.provider, &self.ranges, dir)?;
        self.attachment(at)?.mappings += 1;
        Ok(sgt)
    }

    /// `dma_buf_unmap_attachment`.
    ///
    /// # Errors
    /// No such attachment, or nothing is mapped there; the mapping stays then.
    pub fn unmap<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        at: AttachmentId,
        sgt: DmaSgt,
    ) -> Result<(), DmaBufError> {
        let a = self.attachment(at)?;
        let dev = a.dev.filter(|_| a.mappings > 0);
        let dev = dev.ok_or(DmaBufError::NoAttachment)?;
        a.mappings -= 1;
        dma.dma_buf_free_sgt(m, dev, sgt);
        Ok(())
    }

    /// `vfio_pci_dma_buf_iommufd_map`: the physical range, for an importer with its own domain.
    ///
    /// # Errors
    /// Revoked, or more than one range.
    pub(super) fn import(&mut self, at: AttachmentId) -> Result<PhysVec, DmaBufError> {
        self.attachment(at)?;
        if self.revoked {
            return Err(DmaBufError::Revoked);
        }
        match self.ranges[..] {
            [one] => {
                self.attachment(at)?.mappings += 1;
                Ok(one)
            }
            _ => Err(DmaBufError::Unsupported),
        }
    }

    /// The counterpart of [`Self::import`].
    pub(super) fn release(&mut self, at: AttachmentId) -> Result<(), DmaBufError> {
        let a = self.attachment(at)?;
        a.mappings = a.mappings.checked_sub(1).ok_or(DmaBufError::NoAttachment)?;
        Ok(())
    }

    /// Takes the memory back: no new mapping, importers invalidated, their accesses ended, their
    /// mappings destroyed, and only then memory decoding of the function switched off.
    ///
    /// # Errors
    /// An importer does not end its accesses or keeps a mapping, for which the kernel would wait.
    /// The buffer stays revoked and the function goes on decoding.
    pub fn revoke<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        importers: &mut [&mut dyn Importer<I>],
    ) -> Result<(), DmaBufError> {
        self.revoked = true;
        for importer in importers.iter_mut() {
            importer.invalidate_mappings(dma, m, self);
        }
        for importer in importers.iter_mut() {
            if !importer.wait_fences(m) {
                return Err(DmaBufError::Fence);
            }
        }
        for importer in importers.iter_mut() {
            importer.unmap(dma, m, self);
        }
        match self.mappings() {
            0 => self.decode(m, false),
            n => Err(DmaBufError::StillMapped(n)),
        }
    }

    /// Gives the memory back to importers once the function decodes memory again. Nothing is
    /// mapped by it: they have to map anew.
    ///
    /// # Errors
    /// Configuration space does not answer.
    pub fn restore(&mut self, m: &mut dyn Machine) -> Result<(), DmaBufError> {
        self.decode(m, true)?;
        self.revoked = false;
        Ok(())
    }

    /// Memory Space Enable of the function.
    fn decode(&self, m: &mut dyn Machine, on: bool) -> Result<(), DmaBufError> {
        let bit = u32::from(command::MEMORY_SPACE);
        let old = m.config_read(self.owner, reg::COMMAND, 2)?;
        let new = if on { old | bit } else { old & !bit };
        m.config_write(self.owner, reg::COMMAND, 2, new)?;
        Ok(())
    }
}
