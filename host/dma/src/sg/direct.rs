//! Scatterlists without translation, and those of a Xen guest: one segment an entry.

use tlproof_pcie::Direction;

use super::{Failed, Kind, SgEntry};
use crate::{
    attrs::Attrs,
    device::{Backend, DeviceId},
    dma::Dma,
    error::MapError,
    iommu::IommuDriver,
    machine::Machine,
};

impl<I: IommuDriver> Dma<I> {
    /// `dma_direct_map_sg` and `xen_swiotlb_map_sg`. Any failure but that to reach a peer is
    /// `-EIO`.
    pub(super) fn direct_map_sg(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &mut [SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) -> Result<usize, Failed> {
        // Devices with operations of the platform know no peers.
        let kinds = if self.device(dev)?.backend == Backend::Xen {
            vec![Kind::Mapped(attrs); sg.len()]
        } else {
            self.classify(m, dev, sg, attrs)?
        };
        for (i, kind) in kinds.into_iter().enumerate() {
            if let Err(cause) = self.direct_map_entry(m, dev, &mut sg[i], kind, dir, attrs) {
                let mapped = &sg[..i];
                self.forget_sg(dev, mapped, dir, attrs);
                self.direct_unmap_sg(m, dev, mapped, dir, attrs | Attrs::SKIP_CPU_SYNC);
                sg.iter_mut().for_each(SgEntry::clear);
                return Err(Failed { errno: -5, cause });
            }
        }
        Ok(sg.len())
    }

    fn direct_map_entry(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        entry: &mut SgEntry,
        kind: Kind,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<(), MapError> {
        let (phys, length) = (entry.phys, entry.length);
        let with = match kind {
            Kind::Mapped(attrs) => attrs,
            Kind::Bus(_) => attrs,
        };
        let (dma, slot) = match kind {
            Kind::Bus(dma) => (dma, None),
            Kind::Mapped(_) if self.device(dev)?.backend == Backend::Xen => {
                self.xen_map(m, dev, phys, length, dir, with)?
            }
            Kind::Mapped(_) => self.direct_map(m, dev, phys, length, dir, with)?,
        };
        entry.bus_address = matches!(kind, Kind::Bus(_));
        entry.mmio = kind.is_mmio();
        entry.dma_address = dma;
        entry.dma_length = length;
        let segment = self.segment(dev, dma, phys, length, slot, with);
        self.promise_sg(m, dev, vec![segment], dir, attrs, entry.bus_address);
        Ok(())
    }

    pub(super) fn direct_unmap_sg(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        sg: &[SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) {
        let xen = self.device(dev).is_ok_and(|d| d.backend == Backend::Xen);
        for e in sg.iter().filter(|e| !e.bus_address && e.dma_length > 0) {
            let attrs = e.unmap_attrs(attrs);
            if xen {
                self.xen_unmap(m, dev, e.dma_address, e.dma_length, dir, attrs);
            } else {
                self.direct_unmap(m, dev, e.dma_address, e.dma_length, dir, attrs);
            }
        }
    }
}
