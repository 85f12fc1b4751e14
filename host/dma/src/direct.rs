//! Back end without translation (`dma_direct_*`).

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    device::DeviceId,
    dma::Dma,
    error::{MapError, WarningKind},
    iommu::IommuDriver,
    machine::Machine,
};

impl<I: IommuDriver> Dma<I> {
    /// `dma_direct_map_phys`. The second value is the bounce slot, if there is one.
    pub(crate) fn direct_map(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<(DmaAddr, Option<PhysAddr>), MapError> {
        let force = self.force_bounce(self.device(dev)?);
        let mmio = attrs.contains(Attrs::MMIO);
        let shared = attrs.contains(Attrs::CC_SHARED);
        if force && !shared {
            if mmio && !mutant!(M23) {
                return Err(MapError::MmioForceBounce);
            }
            if attrs.contains(Attrs::REQUIRE_COHERENT) && !mutant!(M24) {
                return Err(MapError::WouldBounce);
            }
            return self.direct_bounce(m, dev, phys, size, dir, attrs);
        }
        if shared && !force {
            return Err(MapError::CcShared);
        }
        let d = self.device(dev)?;
        // DMA ranges are for memory; device memory keeps its CPU address.
        let dma = if mmio && !mutant!(M21) {
            Some(DmaAddr(phys.0))
        } else if shared {
            d.phys_to_dma_unencrypted(phys)
        } else {
            d.phys_to_dma(phys)
        };
        let capable = dma.filter(|a| d.capable(*a, size) || mmio && mutant!(M22));
        let coherent = d.coherent;
        let may_bounce = !mmio && !shared;
        let small = may_bounce && self.kmalloc_needs_bounce(dev, size, dir);
        let dma = match capable {
            Some(dma) if !small => dma,
            _ if may_bounce
                && self.swiotlb.is_some()
                && !attrs.contains(Attrs::REQUIRE_COHERENT) =>
            {
                return self.direct_bounce(m, dev, phys, size, dir, attrs);
            }
            _ => {
                let dma = dma.unwrap_or(DmaAddr(u64::MAX));
                return Err(self.overflow(dev, dma, size, WarningKind::Overflow, "DMA addr"));
            }
        };
        if !coherent && !mmio && !attrs.contains(Attrs::SKIP_CPU_SYNC) {
            self.arch_sync_for_device(m, phys, size, dir);
        }
        Ok((dma, None))
    }

    /// `swiotlb_map`: bounces, and checks that the device reaches the slot.
    fn direct_bounce(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<(DmaAddr, Option<PhysAddr>), MapError> {
        let tlb = self.swiotlb_map(m, dev, phys, size, 0, attrs)?;
        let d = self.device(dev)?;
        let coherent = d.coherent;
        let dma = d.phys_to_dma_unencrypted(tlb);
        let Some(dma) = dma.filter(|a| d.capable(*a, size)) else {
            let skip = attrs | Attrs::SKIP_CPU_SYNC;
            self.swiotlb_unmap(m, dev, tlb, size, dir, skip);
            let dma = dma.unwrap_or(DmaAddr(u64::MAX));
            return Err(self.overflow(
                dev,
                dma,
                size,
                WarningKind::SwiotlbOverflow,
                "swiotlb addr",
            ));
        };
        if !coherent && !attrs.contains(Attrs::SKIP_CPU_SYNC) {
            self.arch_sync_for_device(m, tlb, size, dir);
        }
        Ok((dma, Some(tlb)))
    }

    pub(crate) fn overflow(
        &mut self,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        kind: WarningKind,
        what: &str,
    ) -> MapError {
        let (bdf, mask, limit) = self.device(dev).map_or((None, 0, 0), |d| {
            (Some(d.bdf), d.dma_mask.unwrap_or(0), d.bus_dma_limit)
        });
        self.warn(kind, bdf, || {
            format!(
                "{what} {:#018x}+{size} overflow (mask {mask:x}, bus limit {limit:x}).",
                dma.0
            )
        });
        MapError::Overflow {
            dma,
            size,
            mask,
            limit,
        }
    }

    /// `dma_direct_unmap_phys`.
    pub(crate) fn direct_unmap(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) {
        if attrs.intersects(Attrs::MMIO | Attrs::REQUIRE_COHERENT) {
            return;
        }
        let Ok(d) = self.device(dev) else { return };
        let (coherent, phys) = (d.coherent, d.dma_to_phys(dma));
        let Some(phys) = phys else { return };
        if !coherent && !attrs.contains(Attrs::SKIP_CPU_SYNC) {
            self.arch_sync_for_cpu(m, phys, size, dir);
        }
        self.swiotlb_unmap(m, dev, phys, size, dir, attrs);
    }
}

#[cfg(test)]
mod tests;
