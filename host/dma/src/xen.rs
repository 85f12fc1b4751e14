//! Back end of a Xen guest (`swiotlb-xen`): what the guest takes for a physical frame is another
//! frame of the machine, so neighbours need not be neighbours for a device.

use std::collections::BTreeMap;

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    device::DeviceId,
    dma::Dma,
    error::{MapError, WarningKind},
    iommu::IommuDriver,
    machine::Machine,
    trace::Event,
};

const PAGE: u64 = 4096;

/// Frames of the guest (pfn) and of the machine (bfn): a permutation, the identity at first.
///
/// The [`Machine`] shows memory as the guest's CPUs see it; the map says where devices find it.
#[derive(Clone, Debug, Default)]
pub struct FrameMap {
    machine: BTreeMap<u64, u64>,
    guest: BTreeMap<u64, u64>,
}

impl FrameMap {
    /// Lets two guest frames exchange their machine frames.
    pub fn exchange(&mut self, a: PhysAddr, b: PhysAddr) {
        let (a, b) = (a.0 / PAGE, b.0 / PAGE);
        let (to_a, to_b) = (self.bfn(a), self.bfn(b));
        for (pfn, bfn) in [(a, to_b), (b, to_a)] {
            if pfn == bfn {
                self.machine.remove(&pfn);
                self.guest.remove(&bfn);
            } else {
                self.machine.insert(pfn, bfn);
                self.guest.insert(bfn, pfn);
            }
        }
    }

    fn bfn(&self, pfn: u64) -> u64 {
        self.machine.get(&pfn).copied().unwrap_or(pfn)
    }

    /// Machine address of a guest address (`pfn_to_bfn`).
    #[must_use]
    pub fn to_machine(&self, phys: PhysAddr) -> PhysAddr {
        PhysAddr(self.bfn(phys.0 / PAGE) * PAGE + phys.offset_in(PAGE))
    }

    /// Guest address of a machine address (`bfn_to_local_pfn`).
    #[must_use]
    pub fn to_guest(&self, machine: PhysAddr) -> PhysAddr {
        let bfn = machine.0 / PAGE;
        let pfn = self.guest.get(&bfn).copied().unwrap_or(bfn);
        PhysAddr(pfn * PAGE + machine.offset_in(PAGE))
    }

    /// Whether all of a range follows each other in machine addresses
    /// (not `range_straddles_page_boundary`). The range does not wrap.
    #[must_use]
    pub fn contiguous(&self, phys: PhysAddr, size: u64) -> bool {
        let (first, last) = (phys.0 / PAGE, (phys.0 + (size.max(1) - 1)) / PAGE);
        let delta = self.bfn(first).wrapping_sub(first);
        let mut moved = 0;
        for (pfn, bfn) in self.machine.range(first..=last) {
            if bfn.wrapping_sub(*pfn) != delta {
                return false;
            }
            moved += 1;
        }
        delta == 0 || moved == last - first + 1
    }
}

impl<I: IommuDriver> Dma<I> {
    /// `xen_phys_to_dma`; `None` outside of every DMA range.
    fn xen_phys_to_dma(&self, dev: DeviceId, phys: PhysAddr) -> Option<DmaAddr> {
        self.device(dev)
            .ok()?
            .phys_to_dma(self.frames.to_machine(phys))
    }

    /// `xen_dma_to_phys`.
    pub(crate) fn xen_dma_to_phys(&self, dev: DeviceId, dma: DmaAddr) -> Option<PhysAddr> {
        let machine = self.device(dev).ok()?.dma_to_phys(dma)?;
        Some(self.frames.to_guest(machine))
    }

    /// `xen_swiotlb_map_phys`. The second value is the bounce slot, if there is one.
    pub(crate) fn xen_map(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<(DmaAddr, Option<PhysAddr>), MapError> {
        let d = self.device(dev)?;
        let coherent = d.coherent;
        if attrs.contains(Attrs::MMIO) {
            // As it is: frames of device memory are not the guest's.
            let dma = DmaAddr(phys.0);
            if d.capable(dma, size) {
                return Ok((dma, None));
            }
            return Err(self.overflow(dev, dma, size, WarningKind::Overflow, "DMA addr"));
        }
        let direct = self
            .xen_phys_to_dma(dev, phys)
            .filter(|dma| d.capable(*dma, size))
            .filter(|_| self.frames.contiguous(phys, size) && !self.force_bounce(d))
            .filter(|_| !self.kmalloc_needs_bounce(dev, size, dir));
        let (dma, slot) = match direct {
            Some(dma) => (dma, None),
            None => {
                // `REQUIRE_COHERENT` is not asked for here.
                let tlb = self.swiotlb_map(m, dev, phys, size, 0, attrs)?;
                let dma = self.xen_phys_to_dma(dev, tlb);
                let fits = dma.filter(|dma| {
                    self.device(dev).is_ok_and(|d| d.capable(*dma, size))
                        && self.frames.contiguous(tlb, size)
                });
                let Some(dma) = fits else {
                    self.swiotlb_unmap(m, dev, tlb, size, dir, attrs | Attrs::SKIP_CPU_SYNC);
                    let dma = dma.unwrap_or(DmaAddr(u64::MAX));
                    return Err(self.overflow(
                        dev,
                        dma,
                        size,
                        WarningKind::SwiotlbOverflow,
                        "swiotlb addr",
                    ));
                };
                (dma, Some(tlb))
            }
        };
        if !coherent && !attrs.contains(Attrs::SKIP_CPU_SYNC) {
            self.arch_sync_for_device(m, slot.unwrap_or(phys), size, dir);
        }
        Ok((dma, slot))
    }

    /// `xen_swiotlb_unmap_phys`. Linux 7.2 does not look for MMIO here, and has the hypervisor
    /// invalidate cache lines of device memory for a non-coherent device.
    pub(crate) fn xen_unmap(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) {
        if attrs.contains(Attrs::MMIO) && !self.config.quirks.xen_unmap_syncs_mmio {
            return;
        }
        let Ok(d) = self.device(dev) else { return };
        let coherent = d.coherent;
        let Some(phys) = self.xen_dma_to_phys(dev, dma) else {
            return;
        };
        if !coherent && !attrs.contains(Attrs::SKIP_CPU_SYNC) {
            if m.memory_map().is_dram(phys, size) {
                self.arch_sync_for_cpu(m, phys, size, dir);
            } else {
                self.xen_sync_for_cpu(m, dma, size, dir);
            }
        }
        self.swiotlb_unmap(m, dev, phys, size, dir, attrs);
    }

    /// `xen_dma_sync_for_cpu`: the hypervisor does the maintenance, by machine address.
    fn xen_sync_for_cpu(&mut self, m: &mut dyn Machine, dma: DmaAddr, size: u64, dir: Direction) {
        let phys = PhysAddr(dma.0);
        self.trace
            .emit(|| Event::ArchSyncForCpu { phys, size, dir });
        if dir.device_writes() {
            m.cache_invalidate(phys, size);
        }
    }
}

#[cfg(test)]
mod tests;
