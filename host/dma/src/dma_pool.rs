//! Small blocks of coherent memory (`struct dma_pool`).

use std::collections::BTreeSet;

use tlproof_pcie::{DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs, coherent::Coherent, device::DeviceId, dma::Dma, error::MapError,
    iommu::IommuDriver, machine::Machine, pages::PAGE_SIZE,
};

/// A block of a [`DmaPool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBlock {
    memory: Coherent,
    offset: u64,
    size: u64,
}

impl PoolBlock {
    /// Where the device finds it.
    #[must_use]
    pub const fn dma(&self) -> DmaAddr {
        self.memory.dma.offset(self.offset)
    }

    /// Where the CPU finds it.
    #[must_use]
    pub const fn phys(&self) -> PhysAddr {
        self.memory.phys.offset(self.offset)
    }

    /// Writes `data` at `offset` of the block.
    ///
    /// # Errors
    /// [`MapError::OutsideMemory`] when it does not fit.
    pub fn write(&self, m: &mut dyn Machine, offset: u64, data: &[u8]) -> Result<(), MapError> {
        self.check(offset, data.len())?;
        self.memory.write(m, self.offset + offset, data)
    }

    /// Reads what is at `offset` of the block.
    ///
    /// # Errors
    /// As [`PoolBlock::write`].
    pub fn read(&self, m: &mut dyn Machine, offset: u64, buf: &mut [u8]) -> Result<(), MapError> {
        self.check(offset, buf.len())?;
        self.memory.read(m, self.offset + offset, buf)
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), MapError> {
        offset
            .checked_add(len as u64)
            .filter(|end| *end <= self.size)
            .map(drop)
            .ok_or(MapError::OutsideMemory)
    }
}

/// Blocks of one size, cut out of coherent pages that the pool keeps until it is destroyed.
#[derive(Debug)]
pub struct DmaPool {
    dev: DeviceId,
    size: u64,
    pages: Vec<Coherent>,
    free: BTreeSet<(usize, u64)>,
}

impl DmaPool {
    /// `dma_pool_create`: blocks of `size` bytes, each at a multiple of `align`; none crosses a
    /// page unless it is larger than one. `None` unless `size` is above 0 and `align` a power of
    /// two, at most a page.
    #[must_use]
    pub fn new(dev: DeviceId, size: u64, align: u64) -> Option<Self> {
        if size == 0 || !align.is_power_of_two() || align > PAGE_SIZE {
            return None;
        }
        Some(Self {
            dev,
            size: size.checked_next_multiple_of(align)?,
            pages: Vec::new(),
            free: BTreeSet::new(),
        })
    }

    /// `dma_pool_alloc`: the first free block. Its contents are not defined.
    ///
    /// # Errors
    /// As [`Dma::dma_alloc_coherent`], when a page has to be added.
    pub fn alloc<I: IommuDriver>(
        &mut self,
        dma: &mut Dma<I>,
        m: &mut dyn Machine,
    ) -> Result<PoolBlock, MapError> {
        if self.free.is_empty() {
            let page = dma.dma_alloc_coherent(m, self.dev, self.size.max(PAGE_SIZE))?;
            let index = self.pages.len();
            self.pages.push(page);
            let blocks = page.size / self.size;
            self.free
                .extend((0..blocks).map(|i| (index, i * self.size)));
        }
        let (index, offset) = self.free.pop_first().ok_or(MapError::NoMemory)?;
        Ok(PoolBlock {
            memory: self.pages[index],
            offset,
            size: self.size,
        })
    }

    /// `dma_pool_free`. A block of another pool is left alone.
    pub fn free(&mut self, block: PoolBlock) {
        if let Some(index) = self.pages.iter().position(|p| *p == block.memory) {
            self.free.insert((index, block.offset));
        }
    }

    /// Blocks that are in use.
    #[must_use]
    pub fn used(&self) -> usize {
        let blocks: u64 = self.pages.iter().map(|p| p.size / self.size).sum();
        blocks as usize - self.free.len()
    }

    /// The coherent pages that it keeps.
    pub fn pages(&self) -> impl Iterator<Item = &Coherent> {
        self.pages.iter()
    }

    /// `dma_pool_destroy`: gives all pages back, whatever is in use.
    pub fn destroy<I: IommuDriver>(&mut self, dma: &mut Dma<I>, m: &mut dyn Machine) {
        self.free.clear();
        for page in self.pages.drain(..) {
            dma.dma_free_attrs(m, self.dev, page, Attrs::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use tlproof_pcie::{Bdf, Range};

    use super::*;
    use crate::{
        Attach, Config, Device,
        pages::PagePool,
        testing::{FakeIommu, FakeMachine},
    };

    fn dma(m: &mut FakeMachine, coherent: bool, pages: u64) -> (Dma<FakeIommu>, DeviceId) {
        let iommu = FakeIommu::new(&m.log);
        let mut dma = Dma::new(Config::default(), Some(iommu));
        let range = Range::sized(0x8800_0000, pages * PAGE_SIZE);
        dma.set_pages(Box::new(PagePool::new(range)));
        let device = Device {
            coherent,
            ..Device::new(Bdf::new(1, 0, 0))
        };
        let dev = dma.add_device(m, device, Attach::Strict).unwrap();
        (dma, dev)
    }

    #[test]
    fn blocks_do_not_overlap_and_are_used_again() {
        let mut m = FakeMachine::default();
        let (mut dma, dev) = dma(&mut m, true, 2);
        let mut pool = DmaPool::new(dev, 200, 256).unwrap();
        let blocks: Vec<_> = (0..32)
            .map(|_| pool.alloc(&mut dma, &mut m).unwrap())
            .collect();
        for (i, b) in blocks.iter().enumerate() {
            assert_eq!(b.dma().offset_in(256), 0);
            assert!(blocks[..i].iter().all(|c| c.dma() != b.dma()));
            b.write(&mut m, 0, &[i as u8; 256]).unwrap();
        }
        assert_eq!(pool.alloc(&mut dma, &mut m), Err(MapError::NoMemory));
        for (i, b) in blocks.iter().enumerate() {
            let mut buf = [0; 256];
            b.read(&mut m, 0, &mut buf).unwrap();
            assert_eq!(buf, [i as u8; 256]);
            assert_eq!(b.write(&mut m, 1, &[0; 256]), Err(MapError::OutsideMemory));
            assert_eq!(
                b.read(&mut m, u64::MAX, &mut buf),
                Err(MapError::OutsideMemory)
            );
        }
        assert_eq!(pool.used(), 32);
        pool.free(blocks[7]);
        assert_eq!(pool.alloc(&mut dma, &mut m), Ok(blocks[7]));
        pool.destroy(&mut dma, &mut m);
        assert_eq!(dma.live().count(), 0);
        assert!(dma.warnings().is_empty());
    }

    #[test]
    fn a_device_that_does_not_snoop_sees_what_is_written_and_is_seen() {
        let mut m = FakeMachine::default();
        let (mut dma, dev) = dma(&mut m, false, 1);
        let mut pool = DmaPool::new(dev, 4096, 4096).unwrap();
        let b = pool.alloc(&mut dma, &mut m).unwrap();
        b.write(&mut m, 8, &[1, 2, 3]).unwrap();
        assert_eq!(m.device_read(b.phys().0 + 8, 3), [1, 2, 3]);
        // In the line that the CPU has just written and writes again.
        m.device_write(b.phys().0 + 16, &[9]);
        b.write(&mut m, 11, &[4]).unwrap();
        let mut buf = [0; 9];
        b.read(&mut m, 8, &mut buf).unwrap();
        assert_eq!(buf, [1, 2, 3, 4, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn impossible_pools() {
        let mut m = FakeMachine::default();
        let (_, dev) = dma(&mut m, true, 1);
        for (size, align) in [(0, 8), (8, 0), (8, 3), (8, 8192), (u64::MAX, 4096)] {
            assert!(DmaPool::new(dev, size, align).is_none());
        }
    }
}
