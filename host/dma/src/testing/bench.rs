//! One device on the machine in memory.

// What the tests of the modules use.
pub use tlproof_pcie::{
    Bdf,
    Direction::{self, Bidirectional, FromDevice, ToDevice},
    DmaAddr, MemType, PhysAddr, Range,
};

pub use super::{FakeIommu, FakeMachine, Op};
pub use crate::{
    Attach, Attrs, Config, Device, DeviceId, Dma, DmaRange, Event, MapError, Profile, Swiotlb,
    WarningKind,
    iommu::{IommuError, Prot},
    p2pdma::{HostBridgePolicy, Provider},
};

pub const RAM: u64 = 0x8000_0000;

pub const POOL: u64 = 0x9000_0000;

pub const BAR: u64 = 0x4000_0000;

pub const NONE: Attrs = Attrs::empty();

pub struct Bench {
    pub m: FakeMachine,
    pub dma: Dma<FakeIommu>,
    pub dev: DeviceId,
}

impl Bench {
    pub fn new(config: Config, device: Device, attach: Attach) -> Self {
        let mut m = FakeMachine::default();
        let iommu = FakeIommu::new(&m.log);
        let mut dma = Dma::new(config, Some(iommu));
        dma.trace.set_enabled(true);
        let dev = dma.add_device(&mut m, device, attach).unwrap();
        Self { m, dma, dev }
    }

    pub fn pool(mut self, force: bool) -> Self {
        let pool = Swiotlb::new(PhysAddr(POOL), 1 << 20, 1, force).unwrap();
        self.dma.set_swiotlb(pool);
        self
    }

    pub fn map(
        &mut self,
        phys: u64,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<u64, MapError> {
        self.dma
            .dma_map_phys(&mut self.m, self.dev, PhysAddr(phys), size, dir, attrs)
            .map(|a| a.0)
    }

    pub fn unmap(&mut self, dma: u64, size: u64, dir: Direction, attrs: Attrs) {
        self.dma
            .dma_unmap_phys(&mut self.m, self.dev, DmaAddr(dma), size, dir, attrs);
    }
}

pub fn device() -> Device {
    Device::new(Bdf::new(1, 0, 0))
}

pub fn strict(device: Device) -> Bench {
    Bench::new(Config::default(), device, Attach::Strict)
}

/// Cache operations and others in a list, as one letter each.
pub fn letters(ops: &[Op]) -> String {
    ops.iter()
        .map(|op| match op {
            Op::Clean(..) => 'c',
            Op::Invalidate(..) => 'i',
            Op::CpuWrite(..) => 'w',
            Op::MmioRead(_) | Op::MmioWrite(_) => 'm',
            Op::Map { .. } => 'M',
            Op::Unmap { .. } => 'U',
            Op::Sync => 'S',
            Op::FlushAll => 'F',
            Op::ConfigWrite(..) => 'C',
        })
        .collect()
}

/// Two endpoints below a switch below root port 00:02.0, and one below root port 00:03.0.
pub fn topology(m: &mut FakeMachine, id: u32) {
    m.add_bridge(Bdf::new(0, 2, 0), id, 4, (1, 4), Some(0));
    m.add_bridge(Bdf::new(1, 0, 0), 0x1234_1234, 5, (2, 4), None);
    m.add_bridge(Bdf::new(2, 0, 0), 0x1234_1234, 6, (3, 3), Some(0));
    m.add_bridge(Bdf::new(2, 1, 0), 0x1234_1234, 6, (4, 4), Some(0));
    m.add_function(Bdf::new(3, 0, 0), 0x1234_1234, None);
    m.add_function(Bdf::new(4, 0, 0), 0x1234_1234, None);
    m.add_bridge(Bdf::new(0, 3, 0), id, 4, (5, 5), Some(0));
    m.add_function(Bdf::new(5, 0, 0), 0x1234_1234, None);
}

pub fn peer(pages: bool) -> Provider {
    Provider {
        owner: Bdf::new(3, 0, 0),
        range: Range::sized(BAR, 0x10_0000),
        bus_offset: 0u64.wrapping_sub(0x1000_0000),
        pages,
    }
}
