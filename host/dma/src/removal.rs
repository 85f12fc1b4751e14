//! A device leaves: its driver is unbound, the IOMMU blocks it, its group's domain goes with the
//! last device (`device_del`, `iommu_release_device`).

use tlproof_pcie::Bdf;

use crate::{
    device::{Backend, DeviceId},
    dma::Dma,
    error::{MapError, WarningKind},
    iommu::{Gather, IommuDriver},
    ledger::Mapping,
    machine::Machine,
};

impl<I: IommuDriver> Dma<I> {
    /// Removes a device and returns the mappings that its driver has left, which are promises no
    /// more: behind an IOMMU nothing of the device passes from here on. As with a driver that is
    /// unbound, dma-debug reports them; their bounce slots stay taken. In a domain that others
    /// share their IOVAs stay taken too. The ID names no device any more.
    ///
    /// # Errors
    /// No such device; or the IOMMU does not complete its commands, and the device stays as it is.
    pub fn remove_device(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
    ) -> Result<Vec<Mapping>, MapError> {
        let (bdf, backend) = (self.device(dev)?.bdf, self.device(dev)?.backend);
        self.driver_unbound(dev);
        if matches!(backend, Backend::Iommu(_) | Backend::Identity) {
            let iommu = self.iommu.as_mut().ok_or(MapError::NoDevice)?;
            iommu.block(m, bdf)?;
        }
        self.devices[dev.0] = None;
        let left = self.ledger.remove_device(dev, bdf);
        if let Backend::Iommu(index) = backend
            && !self.is_used(index)
        {
            self.domain_release(m, index, bdf);
        }
        Ok(left)
    }

    /// Whether a device is attached to a domain.
    pub(crate) fn is_used(&self, index: usize) -> bool {
        let mut devices = self.devices.iter().flatten();
        devices.any(|d| d.backend == Backend::Iommu(index))
    }

    /// `iommu_put_dma_cookie` and `iommu_domain_free`. The unit has dropped all translations of a
    /// domain whose last device was blocked, so table pages that waited for a flush are free.
    fn domain_release(&mut self, m: &mut dyn Machine, index: usize, bdf: Bdf) {
        let id = self.domains[index].id;
        let Some(iommu) = self.iommu.as_mut() else {
            return;
        };
        let queue = self.domains[index].fq.take();
        let freelist = queue.map_or_else(Vec::new, |fq| fq.into_freelist());
        if !freelist.is_empty() {
            let gather = Gather {
                freelist,
                ..Gather::default()
            };
            if let Err(e) = iommu.iotlb_sync(m, id, gather) {
                self.warnings
                    .warn(WarningKind::Iommu, Some(bdf), || format!("release: {e}"));
            }
        }
        iommu.domain_free(m, id);
        self.ledger.flushed(id);
    }
}

#[cfg(test)]
mod tests;
