//! A machine with peers, for tests of the block layer and of drivers above it.

use tlproof_pcie::{Bdf, PhysAddr, Range};

use super::{Bio, BioVec};
use crate::{
    Attach, Config, Device, DeviceId, Dma,
    p2pdma::Provider,
    pages::PagePool,
    testing::{FakeIommu, FakeMachine, Op},
};

pub const RAM: u64 = 0x8000_0000;
/// A BAR of 03:00.0 and its bus address.
pub const BAR: u64 = 0x4000_0000;
pub const BAR_BUS: u64 = 0x3000_0000;
/// Another BAR of the same function, at another offset.
pub const BAR2: u64 = 0x5000_0000;
pub const BAR2_BUS: u64 = 0x4800_0000;
/// A BAR of 04:00.0.
pub const OTHER_BAR: u64 = 0x6000_0000;

/// Below the same switch as the peer: by bus address.
pub const NEAR: Bdf = Bdf::new(4, 0, 0);
/// Below another root port: through the host bridge.
pub const FAR: Bdf = Bdf::new(5, 0, 0);

pub struct Bench {
    pub m: FakeMachine,
    pub dma: Dma<FakeIommu>,
    pub dev: DeviceId,
}

impl Bench {
    pub fn new(device: Device, attach: Attach) -> Self {
        let mut m = FakeMachine::default();
        let root = 0x0001_1ae0;
        let other = 0x1234_1234;
        m.add_bridge(Bdf::new(0, 2, 0), root, 4, (1, 4), Some(0));
        m.add_bridge(Bdf::new(1, 0, 0), other, 5, (2, 4), None);
        m.add_bridge(Bdf::new(2, 0, 0), other, 6, (3, 3), Some(0));
        m.add_bridge(Bdf::new(2, 1, 0), other, 6, (4, 4), Some(0));
        m.add_function(Bdf::new(3, 0, 0), other, None);
        m.add_function(NEAR, other, None);
        m.add_bridge(Bdf::new(0, 3, 0), root, 4, (5, 5), Some(0));
        m.add_function(FAR, other, None);
        let iommu = FakeIommu::new(&m.log);
        let mut dma = Dma::new(Config::default(), Some(iommu));
        dma.trace.set_enabled(true);
        for (owner, phys, bus) in [
            (Bdf::new(3, 0, 0), BAR, BAR_BUS),
            (Bdf::new(3, 0, 0), BAR2, BAR2_BUS),
            (NEAR, OTHER_BAR, OTHER_BAR),
        ] {
            dma.p2pdma.add(Provider {
                owner,
                range: Range::sized(phys, 0x100_0000),
                bus_offset: bus.wrapping_sub(phys),
                pages: true,
            });
        }
        dma.set_pages(Box::new(PagePool::new(Range::sized(0xf000_0000, 64 << 12))));
        let dev = dma.add_device(&mut m, device, attach).unwrap();
        m.take();
        Self { m, dma, dev }
    }

    pub fn strict(bdf: Bdf) -> Self {
        Self::new(Device::new(bdf), Attach::Strict)
    }

    pub fn vec(&self, phys: u64, len: u32) -> BioVec {
        self.dma.bio_vec(&self.m, PhysAddr(phys), len).unwrap()
    }

    pub fn bio(&self, vecs: &[(u64, u32)]) -> Bio {
        Bio::new(vecs.iter().map(|(p, l)| self.vec(*p, *l))).unwrap()
    }

    /// The protections of all maps since the last look, with their sizes.
    pub fn prots(&self) -> Vec<(u64, u32)> {
        let maps = self.m.take().into_iter().filter_map(|op| match op {
            Op::Map { size, prot, .. } => Some((size, prot)),
            _ => None,
        });
        maps.collect()
    }

    /// Nothing is mapped, and nothing was wrong.
    pub fn assert_clean(&self) {
        assert_eq!(
            self.dma.live().collect::<Vec<_>>(),
            Vec::<&crate::Mapping>::new()
        );
        assert!(self.dma.iommu().unwrap().pages.is_empty());
        let warnings: Vec<_> = self.dma.warnings().iter().collect();
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}
