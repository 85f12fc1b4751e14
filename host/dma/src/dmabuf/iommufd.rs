//! An importer with its own IOMMU domain: a user's I/O address space (`iommufd`).

use std::collections::{BTreeMap, BTreeSet};

use tlproof_pcie::{Bdf, PhysAddr};

use super::{AttachmentId, DmaBufError, Importer, ImporterOps, VfioDmaBuf};
use crate::{
    device::Backend,
    dma::Dma,
    iommu::{DomainId, Gather, IommuDriver, Prot},
    machine::Machine,
    trace::Event,
};

/// A mapped buffer (`struct iopt_area`).
#[derive(Clone, Copy, Debug)]
struct Area {
    at: AttachmentId,
    phys: PhysAddr,
    len: u64,
    /// In the domain.
    mapped: bool,
    /// The exporter counts it.
    held: bool,
}

/// An I/O address space (IOAS) with one paging domain.
#[derive(Debug)]
pub struct Ioas {
    domain: DomainId,
    functions: BTreeSet<Bdf>,
    areas: BTreeMap<u64, Area>,
}

impl Ioas {
    /// An empty address space.
    ///
    /// # Errors
    /// There is no IOMMU or it has no room.
    pub fn new<I: IommuDriver>(dma: &mut Dma<I>, m: &mut dyn Machine) -> Result<Self, DmaBufError> {
        let iommu = dma.iommu.as_mut().ok_or(DmaBufError::Unsupported)?;
        Ok(Self {
            domain: iommu.domain_alloc(m)?,
            functions: BTreeSet::new(),
            areas: BTreeMap::new(),
        })
    }

    /// The domain, for reports.
    #[must_use]
    pub const fn domain(&self) -> DomainId {
        self.domain
    }

    /// Moves a function into the address space. It must not use the DMA API meanwhile.
    ///
    /// # Errors
    /// VFIO refuses the IOMMU (in the profile that does), or the IOMMU fails.
    pub fn attach<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        function: Bdf,
    ) -> Result<(), DmaBufError> {
        if dma.config.quirks.no_coherency_capability {
            return Err(DmaBufError::NotCoherent);
        }
        let iommu = dma.iommu.as_mut().ok_or(DmaBufError::Unsupported)?;
        iommu.attach(m, function, Some(self.domain))?;
        self.functions.insert(function);
        Ok(())
    }

    /// Gives a function back to the DMA API: it is in the domain of its device again, or blocked
    /// if it has no device that the IOMMU serves.
    ///
    /// # Errors
    /// [`DmaBufError::NoAttachment`], or the IOMMU fails.
    pub fn detach<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        function: Bdf,
    ) -> Result<(), DmaBufError> {
        if !self.functions.contains(&function) {
            return Err(DmaBufError::NoAttachment);
        }
        let dev = dma.find_device(function);
        let domain = dev.and_then(|dev| dma.domain_of(dev));
        let identity = dev.is_some_and(|d| {
            dma.device(d)
                .is_ok_and(|d| d.backend() == Backend::Identity)
        });
        let iommu = dma.iommu.as_mut().ok_or(DmaBufError::Unsupported)?;
        if domain.is_some() || identity {
            iommu.attach(m, function, domain)?;
        } else {
            iommu.block(m, function)?;
        }
        self.functions.remove(&function);
        Ok(())
    }

    /// `IOMMU_DESTROY`.
    ///
    /// # Errors
    /// [`DmaBufError::Busy`] with the address space, while it has functions or mapped buffers.
    pub fn destroy<I: IommuDriver>(
        self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
    ) -> Result<(), (Self, DmaBufError)> {
        if !self.functions.is_empty() || !self.areas.is_empty() {
            return Err((self, DmaBufError::Busy));
        }
        match dma.iommu.as_mut() {
            Some(iommu) => iommu.domain_free(m, self.domain),
            None => return Err((self, DmaBufError::Unsupported)),
        }
        Ok(())
    }

    /// `IOMMU_IOAS_MAP_FILE` of a DMABUF at an IOVA of the user's choice: what the user asks for,
    /// as device memory, through `iommu_map` and not the DMA API. Returns the length.
    ///
    /// # Errors
    /// `prot` is not READ, WRITE or both; the buffer is revoked or has several ranges; the page
    /// table refuses.
    pub fn map_dmabuf<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        buf: &mut VfioDmaBuf,
        iova: u64,
        prot: Prot,
    ) -> Result<u64, DmaBufError> {
        if prot.is_empty() || !(Prot::READ | Prot::WRITE).contains(prot) {
            return Err(DmaBufError::Protection);
        }
        let at = buf.attach(None, ImporterOps::PEER)?;
        let range = match buf.import(at) {
            Ok(range) => range,
            Err(e) => {
                buf.detach(at)?;
                return Err(e);
            }
        };
        let (phys, len, prot) = (range.phys, range.len, prot | Prot::MMIO);
        let domain = self.domain;
        let mapped = match dma.iommu.as_mut() {
            Some(iommu) => iommu
                .map(m, domain, iova, phys, len, prot)
                .map_err(DmaBufError::from),
            None => Err(DmaBufError::Unsupported),
        };
        dma.trace.emit(|| Event::IommuMap {
            domain,
            iova,
            phys,
            size: len,
            prot,
            ok: mapped.is_ok(),
        });
        if let Err(e) = mapped {
            buf.release(at)?;
            buf.detach(at)?;
            return Err(e);
        }
        let area = Area {
            at,
            phys,
            len,
            mapped: true,
            held: true,
        };
        self.areas.insert(iova, area);
        Ok(len)
    }

    /// The physical range behind a mapped IOVA, unless it is revoked.
    #[must_use]
    pub fn area(&self, iova: u64) -> Option<(PhysAddr, u64)> {
        let a = self.areas.get(&iova).filter(|a| a.mapped)?;
        Some((a.phys, a.len))
    }

    /// `IOMMU_IOAS_UNMAP` of what one [`Ioas::map_dmabuf`] mapped.
    ///
    /// # Errors
    /// Nothing is mapped at `iova`.
    pub fn unmap_dmabuf<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
        buf: &mut VfioDmaBuf,
        iova: u64,
    ) -> Result<(), DmaBufError> {
        let area = self
            .areas
            .get_mut(&iova)
            .filter(|a| buf.owns(a.at))
            .ok_or(DmaBufError::NoAttachment)?;
        if area.mapped {
            clear(dma, m, self.domain, iova, area.len)?;
            area.mapped = false;
        }
        let Area { at, held, .. } = *area;
        self.areas.remove(&iova);
        if held {
            buf.release(at)?;
        }
        buf.detach(at)
    }
}

/// Takes a range out of the domain and waits for the invalidation.
fn clear<I: IommuDriver>(
    dma: &mut Dma<I>,
    m: &mut dyn Machine,
    domain: DomainId,
    iova: u64,
    size: u64,
) -> Result<(), DmaBufError> {
    let iommu = dma.iommu.as_mut().ok_or(DmaBufError::Unsupported)?;
    let mut gather = Gather::default();
    let unmapped = iommu.unmap(m, domain, iova, size, &mut gather);
    let range = gather.range;
    iommu.iotlb_sync(m, domain, gather)?;
    dma.trace.emit(|| Event::IommuUnmap {
        domain,
        iova,
        size,
        unmapped,
    });
    dma.trace.emit(|| Event::IotlbSync { domain, range });
    Ok(())
}

impl<I: IommuDriver> Importer<I> for Ioas {
    /// `iopt_revoke_notify`: the IOMMU itself ends all accesses. What it does not end stays
    /// mapped, and the exporter hears of it.
    fn invalidate_mappings(&mut self, dma: &mut Dma<I>, m: &mut dyn Machine, buf: &VfioDmaBuf) {
        for (iova, a) in &mut self.areas {
            if a.mapped && buf.owns(a.at) {
                a.mapped = clear(dma, m, self.domain, *iova, a.len).is_err();
            }
        }
    }

    fn unmap(&mut self, _: &mut Dma<I>, _: &mut dyn Machine, buf: &mut VfioDmaBuf) {
        for a in self.areas.values_mut() {
            if a.held && !a.mapped && buf.owns(a.at) {
                a.held = buf.release(a.at).is_err();
            }
        }
    }
}
