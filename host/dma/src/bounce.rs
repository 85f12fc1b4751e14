//! Cache maintenance and the copies of the bounce pool.

use tlproof_pcie::{Direction, PhysAddr};

use crate::{
    attrs::Attrs,
    device::DeviceId,
    dma::Dma,
    error::{MapError, WarningKind},
    iommu::IommuDriver,
    machine::Machine,
    swiotlb::Swiotlb,
    trace::Event,
};

impl<I: IommuDriver> Dma<I> {
    /// `arch_sync_dma_for_device`: what the CPU wrote becomes visible to memory.
    pub(crate) fn arch_sync_for_device(
        &mut self,
        m: &mut dyn Machine,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
    ) {
        self.trace.at(m.now());
        self.trace
            .emit(|| Event::ArchSyncForDevice { phys, size, dir });
        if !mutant!(M6) {
            m.cache_clean(phys, size);
        }
    }

    /// `arch_sync_dma_for_cpu`: the CPU forgets what it read before the device wrote.
    pub(crate) fn arch_sync_for_cpu(
        &mut self,
        m: &mut dyn Machine,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
    ) {
        self.trace.at(m.now());
        self.trace
            .emit(|| Event::ArchSyncForCpu { phys, size, dir });
        if dir.device_writes() {
            m.cache_invalidate(phys, size);
        }
    }

    /// Whether `phys` is a bounce slot.
    pub(crate) fn is_slot(&self, phys: PhysAddr) -> bool {
        self.swiotlb.as_ref().is_some_and(|s| s.contains(phys))
    }

    /// `swiotlb_tbl_map_single`: finds slots, and copies in whatever the direction, so that a
    /// device which writes only a part does not destroy the rest.
    pub(crate) fn swiotlb_map(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        alloc_align_mask: u64,
        attrs: Attrs,
    ) -> Result<PhysAddr, MapError> {
        let d = self.device(dev)?;
        let (bdf, mask, force) = (d.bdf, d.dma_mask.unwrap_or(0), self.force_bounce(d));
        let rule = self.slot_rule(d, alloc_align_mask);
        self.trace.at(m.now());
        self.trace.emit(|| Event::SwiotlbBounced {
            dev: bdf,
            dma_mask: mask,
            phys,
            size,
            force,
        });
        let cpu = self.cpu;
        let pool = self.swiotlb.as_mut().ok_or(MapError::SwiotlbInactive)?;
        let Some(tlb) = pool.map(cpu, phys, size, rule) else {
            let used = pool.used();
            if !attrs.contains(Attrs::NO_WARN) {
                self.warn(WarningKind::SwiotlbFull, Some(bdf), || {
                    format!("swiotlb buffer is full (sz: {size} bytes), used {used} (slots)")
                });
            }
            return Err(MapError::SwiotlbFull(size));
        };
        self.device_mut(dev)?.skip_sync = false;
        self.trace.emit(|| Event::SwiotlbMap {
            dev: bdf,
            phys,
            size,
            tlb,
        });
        copy(m, phys, tlb, size);
        self.kmsan_copy(phys, tlb, size);
        Ok(tlb)
    }

    /// Zeroes the rest of the granules around a bounced buffer, for devices that are not trusted
    /// with what an earlier user left there.
    pub(crate) fn swiotlb_zero_padding(
        &mut self,
        m: &mut dyn Machine,
        tlb: PhysAddr,
        size: u64,
        granule: u64,
    ) {
        let start = tlb.align_down(granule);
        let end = tlb.offset(size);
        let padded_end = PhysAddr(end.0.next_multiple_of(granule));
        zero(m, start, tlb.0 - start.0);
        zero(m, end, padded_end.0 - end.0);
        self.kmsan_unpoison(start, tlb.0 - start.0);
        self.kmsan_unpoison(end, padded_end.0 - end.0);
    }

    /// Copies between the buffer and its slot if there is one at `phys`: in before the device
    /// reads, out after it wrote.
    pub(crate) fn swiotlb_sync(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        to_slot: bool,
    ) {
        let Ok(d) = self.device(dev) else { return };
        let bdf = d.bdf;
        let rule = self.slot_rule(d, 0);
        let Some(c) = self
            .swiotlb
            .as_ref()
            .and_then(|s: &Swiotlb| s.copy(phys, size, rule))
        else {
            return;
        };
        if c.clamped {
            self.warn(WarningKind::SwiotlbLength, Some(bdf), || {
                format!(
                    "Buffer overflow detected. Allocation size: {}. Mapping size: {size}.",
                    c.size
                )
            });
        }
        if to_slot {
            copy(m, c.orig, c.tlb, c.size);
            self.kmsan_copy(c.orig, c.tlb, c.size);
        } else {
            // The device wrote it.
            self.kmsan_unpoison(c.tlb, c.size);
            copy(m, c.tlb, c.orig, c.size);
            self.kmsan_copy(c.tlb, c.orig, c.size);
        }
    }

    /// `swiotlb_tbl_unmap_single`: copies out what the device wrote and releases the slots, if
    /// `phys` is a slot.
    pub(crate) fn swiotlb_unmap(
        &mut self,
        m: &mut dyn Machine,
        dev: DeviceId,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) {
        if !self.is_slot(phys) {
            return;
        }
        let Ok(d) = self.device(dev) else { return };
        let bdf = d.bdf;
        let rule = self.slot_rule(d, 0);
        self.trace.at(m.now());
        self.trace.emit(|| Event::SwiotlbUnmap {
            dev: bdf,
            tlb: phys,
            size,
            dir,
        });
        if dir.device_writes() && !attrs.contains(Attrs::SKIP_CPU_SYNC) {
            self.swiotlb_sync(m, dev, phys, size, false);
        }
        if let Some(pool) = self.swiotlb.as_mut() {
            pool.release(phys, rule);
        }
    }

    /// `dma_kmalloc_needs_bounce`: a small buffer that may share cache lines with others and that
    /// a non-coherent device writes. Only the size counts.
    pub(crate) fn kmalloc_needs_bounce(&self, dev: DeviceId, size: u64, dir: Direction) -> bool {
        let Some(minalign) = self.config.kmalloc_minalign else {
            return false;
        };
        let coherent = self.device(dev).is_ok_and(|d| d.coherent);
        if coherent || !dir.device_writes() || size >= 2 * minalign {
            return false;
        }
        // A bucket that is a multiple of the cache alignment shares no line.
        !kmalloc_bucket(size).is_multiple_of(minalign.max(1))
    }
}

/// Size of the `kmalloc` bucket for a request: powers of two from 8, 96 and 192.
const fn kmalloc_bucket(size: u64) -> u64 {
    match size {
        0..=8 => 8,
        65..=96 => 96,
        129..=192 => 192,
        _ => size.next_power_of_two(),
    }
}

/// Copies with CPU accesses: through the caches in main memory, byte by byte elsewhere, as a CPU
/// does that was led to device memory.
fn copy(m: &mut dyn Machine, from: PhysAddr, to: PhysAddr, size: u64) {
    /// Bytes at a time, to bound the buffer.
    const CHUNK: u64 = 64 * 1024;
    let mut at = 0;
    while at < size {
        let n = CHUNK.min(size - at);
        let mut buf = vec![0; n as usize];
        read(m, from.offset(at), &mut buf);
        write(m, to.offset(at), &buf);
        at += n;
    }
}

fn zero(m: &mut dyn Machine, at: PhysAddr, size: u64) {
    if size > 0 {
        m.mem_write(at, &vec![0; size as usize]);
    }
}

fn read(m: &mut dyn Machine, from: PhysAddr, buf: &mut [u8]) {
    if m.memory_map().is_dram(from, buf.len() as u64) {
        m.mem_read(from, buf);
        return;
    }
    for (i, byte) in buf.iter_mut().enumerate() {
        // An aborted read of PCIe memory yields all ones.
        *byte = m
            .mmio_read(from.offset(i as u64), 1)
            .map_or(0xff, |v| v as u8);
    }
}

fn write(m: &mut dyn Machine, to: PhysAddr, buf: &[u8]) {
    if m.memory_map().is_dram(to, buf.len() as u64) {
        m.mem_write(to, buf);
        return;
    }
    for (i, byte) in buf.iter().enumerate() {
        // Posted: nobody tells the CPU that a write to device memory was dropped.
        let _ = m.mmio_write(to.offset(i as u64), 1, u64::from(*byte));
    }
}

#[cfg(test)]
mod tests;
