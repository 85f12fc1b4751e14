use tlproof_pcie::Bdf;

use super::*;
use crate::{
    Attach, Config, Device, Profile, Swiotlb, debug,
    p2pdma::HostBridgePolicy,
    testing::{FakeIommu, FakeMachine, Op, bench::topology, memory_bar},
};

const RAM: u64 = 0x8000_0000;
const BAR: u64 = 0x4000_0000;
const OWNER: Bdf = Bdf::new(3, 0, 0);
const NEAR: Bdf = Bdf::new(4, 0, 0);
const FAR: Bdf = Bdf::new(5, 0, 0);

struct Bench {
    m: FakeMachine,
    dma: Dma<FakeIommu>,
    dev: DeviceId,
    p2p: MapState,
}

impl Bench {
    fn new(device: Device, attach: Attach) -> Self {
        Self::with(Config::new(Profile::Intended), device, attach)
    }

    fn with(config: Config, device: Device, attach: Attach) -> Self {
        let mut m = FakeMachine::default();
        topology(&mut m, 0x0001_1ae0);
        let iommu = FakeIommu::new(&m.log);
        let mut dma = Dma::new(config, Some(iommu));
        let bar = memory_bar(2, BAR, 0x10_0000, BAR - 0x1000_0000);
        dma.p2pdma.add_resource(OWNER, &[bar], 2, 0, 0).unwrap();
        let dev = dma.add_device(&mut m, device, attach).unwrap();
        let p2p = MapState::default();
        Self { m, dma, dev, p2p }
    }

    fn alloc(&mut self, nr: usize) -> HmmDmaMap {
        self.dma.hmm_dma_map_alloc(self.dev, nr, PAGE_SIZE).unwrap()
    }

    fn map(&mut self, map: &mut HmmDmaMap, idx: usize, phys: u64) -> Result<DmaAddr, HmmError> {
        map.range_fault(idx, Some((PhysAddr(phys), true, 0)))?;
        self.dma
            .hmm_dma_map_pfn(&mut self.m, map, idx, &mut self.p2p)
    }

    fn unmap(&mut self, map: &mut HmmDmaMap, idx: usize) -> bool {
        self.dma.hmm_dma_unmap_pfn(&mut self.m, map, idx)
    }

    /// Protection of the one map since the last look.
    fn prot(&self) -> Option<u32> {
        match self.m.take()[..] {
            [Op::Map { prot, .. }] => Some(prot),
            [] => None,
            ref other => panic!("{other:?}"),
        }
    }
}

fn flags(map: &HmmDmaMap, idx: usize) -> HmmFlags {
    map.pfns()[idx].flags()
}

#[test]
fn entries_have_the_kernels_layout() {
    let pfn = HmmPfn::new(PhysAddr(RAM), 9, HmmFlags::VALID | HmmFlags::WRITE);
    assert_eq!(pfn.bits(), 3 << 62 | 9 << 53 | RAM >> 12);
    assert_eq!((pfn.phys(), pfn.order()), (PhysAddr(RAM), 9));
    assert_eq!(HmmFlags::STICKY.bits(), 7 << 58);
    assert_eq!(HmmFlags::ERROR.bits(), 1 << 61);
}

#[test]
fn faults_leave_the_dma_flags_alone() {
    let mut b = Bench::new(Device::new(NEAR), Attach::Strict);
    let mut map = b.alloc(4);
    map.range_fault(0, Some((PhysAddr(RAM), false, 0))).unwrap();
    let first = b
        .dma
        .hmm_dma_map_pfn(&mut b.m, &mut map, 0, &mut b.p2p)
        .unwrap();
    assert_eq!(flags(&map, 0), HmmFlags::VALID | HmmFlags::DMA_MAPPED);
    assert_eq!(b.prot(), Some(0x07));
    // Permission to write comes later; the page is not mapped again.
    assert_eq!(b.map(&mut map, 0, RAM), Ok(first));
    assert_eq!(b.prot(), None);
    assert!(flags(&map, 0).contains(HmmFlags::WRITE | HmmFlags::DMA_MAPPED));
    map.range_fault(0, None).unwrap();
    assert_eq!(flags(&map, 0), HmmFlags::ERROR | HmmFlags::DMA_MAPPED);
    // Not valid: it is neither mapped nor unmapped.
    let again = b.dma.hmm_dma_map_pfn(&mut b.m, &mut map, 0, &mut b.p2p);
    assert_eq!(again, Err(HmmError::NotValid(0)));
    assert!(!b.unmap(&mut map, 0));
}

#[test]
fn all_entries_in_one_iova_range() {
    let mut b = Bench::new(Device::new(NEAR), Attach::Strict);
    let mut map = b.alloc(8);
    assert!(map.uses_iova());
    let at: Vec<u64> = [3, 0, 7]
        .into_iter()
        .map(|i| b.map(&mut map, i, RAM + 0x10_0000 * i as u64).unwrap().0)
        .collect();
    assert_eq!((at[0] - at[1], at[2] - at[1]), (0x3000, 0x7000));
    b.m.take();
    assert!(b.unmap(&mut map, 3));
    assert!(matches!(
        b.m.take()[..],
        [Op::Unmap { size: 4096, .. }, Op::Sync]
    ));
    assert!(!b.unmap(&mut map, 3));
    assert_eq!(flags(&map, 3), HmmFlags::VALID | HmmFlags::WRITE);
    // Another page at the same place gets the same address.
    assert_eq!(b.map(&mut map, 3, RAM + 0x5000), Ok(DmaAddr(at[0])));
    for i in [0, 3, 7] {
        assert!(b.unmap(&mut map, i));
    }
    b.dma.hmm_dma_map_free(map).unwrap();
    assert!(b.dma.iommu().unwrap().pages.is_empty());
    assert_eq!(b.dma.live().count(), 0);
    assert!(b.dma.warnings().is_empty());
}

#[test]
fn peers_through_the_bridge() {
    let mut b = Bench::new(Device::new(FAR), Attach::Strict);
    let mut map = b.alloc(2);
    b.map(&mut map, 0, BAR + 0x3000).unwrap();
    assert_eq!(b.prot(), Some(0x13));
    assert!(flags(&map, 0).contains(HmmFlags::P2PDMA | HmmFlags::DMA_MAPPED));
    b.map(&mut map, 1, RAM).unwrap();
    assert_eq!(b.prot(), Some(0x07));
    assert!(!flags(&map, 1).contains(HmmFlags::P2PDMA));
    assert!(b.unmap(&mut map, 0) && b.unmap(&mut map, 1));
    assert!(!flags(&map, 0).intersects(HmmFlags::STICKY));
    b.dma.hmm_dma_map_free(map).unwrap();
}

#[test]
fn peers_by_bus_address() {
    let mut b = Bench::new(Device::new(NEAR), Attach::Strict);
    let mut map = b.alloc(2);
    let bus = DmaAddr(BAR + 0x3000 - 0x1000_0000);
    assert_eq!(b.map(&mut map, 1, BAR + 0x3000), Ok(bus));
    assert!(flags(&map, 1).contains(HmmFlags::P2PDMA_BUS | HmmFlags::DMA_MAPPED));
    assert_eq!(b.map(&mut map, 1, BAR + 0x3000), Ok(bus));
    assert!(b.unmap(&mut map, 1));
    assert_eq!(b.m.take(), []);
    assert!(!flags(&map, 1).intersects(HmmFlags::STICKY));
    b.dma.hmm_dma_map_free(map).unwrap();
}

#[test]
fn a_peer_out_of_reach() {
    let mut b = Bench::new(Device::new(FAR), Attach::Strict);
    b.dma.p2pdma.policy = HostBridgePolicy::Refuse;
    let mut map = b.alloc(1);
    assert_eq!(b.map(&mut map, 0, BAR), Err(HmmError::NotReachable));
    assert!(!flags(&map, 0).intersects(HmmFlags::STICKY));
}

/// An error takes the mark back; M41: without it, memory that comes next is unmapped as MMIO.
#[test]
fn a_failed_mapping_leaves_no_mark() {
    for (kept, reports) in [(false, &[][..]), (true, &[11])] {
        let config = Config {
            debug: Some(debug::Options::default()),
            ..Config::new(Profile::Intended)
        };
        let mut b = Bench::with(config, Device::new(FAR), Attach::Strict);
        // No IOVA for all, so that every page is mapped by itself and dma-debug looks on.
        b.dma.iommu_mut().unwrap().last = 0x2fff;
        b.dma.remove_device(&mut b.m, b.dev).unwrap();
        b.dev = b
            .dma
            .add_device(&mut b.m, Device::new(FAR), Attach::Strict)
            .unwrap();
        let mut map = b.alloc(4);
        assert!(!map.uses_iova());
        map.defects.p2pdma_kept_on_error = kept;
        b.dma.iommu_mut().unwrap().broken = true;
        let failed = b.map(&mut map, 0, BAR);
        assert!(matches!(failed, Err(HmmError::Map(_))), "{failed:?}");
        assert_eq!(flags(&map, 0).contains(HmmFlags::P2PDMA), kept);
        b.dma.iommu_mut().unwrap().broken = false;
        b.map(&mut map, 0, RAM).unwrap();
        assert!(b.unmap(&mut map, 0));
        let shown = b.dma.debug().unwrap().log.shown();
        let numbers: Vec<u8> = shown.iter().map(|c| c.report.number()).collect();
        assert_eq!(numbers, reports);
    }
}

/// M41: the mark is not set, so the peer is mapped and unmapped as memory.
#[test]
fn a_mark_that_is_not_carried() {
    let mut b = Bench::new(Device::new(FAR), Attach::Strict);
    let mut map = b.alloc(1);
    map.defects.p2pdma_not_carried = true;
    b.map(&mut map, 0, BAR).unwrap();
    assert_eq!(b.prot(), Some(0x07));
}

#[test]
fn addresses_are_listed_without_iova() {
    let mut b = Bench::new(Device::new(FAR), Attach::Strict);
    b.dma.iommu_mut().unwrap().last = 0x4fff;
    b.dma.remove_device(&mut b.m, b.dev).unwrap();
    b.dev = b
        .dma
        .add_device(&mut b.m, Device::new(FAR), Attach::Strict)
        .unwrap();
    let mut map = b.alloc(8);
    assert!(!map.uses_iova());
    let ram = b.map(&mut map, 5, RAM).unwrap();
    assert_eq!(b.map(&mut map, 5, RAM), Ok(ram));
    b.m.take();
    let peer = b.map(&mut map, 6, BAR).unwrap();
    assert_eq!(b.prot(), Some(0x13));
    assert_ne!(ram, peer);
    assert!(b.unmap(&mut map, 5) && b.unmap(&mut map, 6));
    assert!(b.dma.iommu().unwrap().pages.is_empty());
    assert_eq!(b.dma.live().count(), 0);
    b.dma.hmm_dma_map_free(map).unwrap();
    assert!(b.dma.warnings().is_empty());
}

#[test]
fn a_mapping_without_trace_is_made_again() {
    let mut b = Bench::new(Device::new(FAR), Attach::Identity);
    let mut map = b.alloc(2);
    assert!(!map.uses_iova() && !b.dma.dma_need_unmap(b.dev));
    assert_eq!(b.map(&mut map, 0, RAM), Ok(DmaAddr(RAM)));
    assert_eq!(b.map(&mut map, 0, RAM), Ok(DmaAddr(RAM)));
    assert_eq!(b.map(&mut map, 1, BAR), Ok(DmaAddr(BAR)));
    assert!(flags(&map, 1).contains(HmmFlags::P2PDMA));
    assert!(b.unmap(&mut map, 0) && b.unmap(&mut map, 1));
    assert_eq!(b.m.take(), []);
    b.dma.hmm_dma_map_free(map).unwrap();
}

#[test]
fn devices_that_cannot_share_pages() {
    let refused = |device: Device, attach| {
        let mut b = Bench::new(device, attach);
        b.dma.hmm_dma_map_alloc(b.dev, 1, PAGE_SIZE).err()
    };
    let near = || Device::new(NEAR);
    let incoherent = Device {
        coherent: false,
        ..near()
    };
    let narrow = Device {
        dma_mask: Some(0xffff_ffff),
        ..near()
    };
    let narrower = Device {
        dma_mask: Some(0x7fff_ffff),
        ..near()
    };
    assert_eq!(refused(near(), Attach::Strict), None);
    assert_eq!(refused(narrow.clone(), Attach::Strict), None);
    // Memory ends at 4 GiB.
    assert_eq!(refused(narrow, Attach::Direct), None);
    let no = Some(HmmError::Unsupported);
    assert_eq!(refused(narrower.clone(), Attach::Direct), no);
    assert_eq!(refused(narrower, Attach::Strict), no);
    assert_eq!(refused(incoherent, Attach::Strict), no);
    // Once something was bounced, syncs are needed.
    let mut b = Bench::new(
        Device {
            untrusted: true,
            ..near()
        },
        Attach::Strict,
    );
    let pool = Swiotlb::new(PhysAddr(0x9000_0000), 1 << 20, 1, false).unwrap();
    b.dma.set_swiotlb(pool);
    b.dma
        .dma_map_phys(
            &mut b.m,
            b.dev,
            PhysAddr(RAM + 4),
            64,
            Direction::ToDevice,
            Attrs::empty(),
        )
        .unwrap();
    let again = b.dma.hmm_dma_map_alloc(b.dev, 1, PAGE_SIZE);
    assert_eq!(again.err(), no);
}

#[test]
fn bad_arguments_are_errors() {
    let mut b = Bench::new(Device::new(NEAR), Attach::Strict);
    for (nr, size) in [(0, PAGE_SIZE), (1, 0), (1, PAGE_SIZE * 2), (usize::MAX, 1)] {
        let map = b.dma.hmm_dma_map_alloc(b.dev, nr, size);
        assert_eq!(map.err(), Some(HmmError::Empty), "{nr} {size}");
    }
    let mut map = b.alloc(2);
    assert_eq!(b.map(&mut map, 2, RAM), Err(HmmError::NoEntry(2)));
    assert!(!b.unmap(&mut map, 2));
    b.map(&mut map, 1, RAM).unwrap();
    let left = b.dma.hmm_dma_map_free(map);
    assert_eq!(left, Err(HmmError::StillMapped(1)));
}

#[test]
fn entries_larger_than_a_page() {
    let mut b = Bench::new(Device::new(NEAR), Attach::Strict);
    let mut map = b.dma.hmm_dma_map_alloc(b.dev, 1024, 2 << 20).unwrap();
    let first = b.map(&mut map, 0, RAM).unwrap();
    let second = b.map(&mut map, 1, RAM + (4 << 20)).unwrap();
    assert_eq!(second.0 - first.0, 2 << 20);
    // 1024 pages are two of these entries.
    assert!(b.map(&mut map, 2, RAM + (8 << 20)).is_err());
    assert!(b.unmap(&mut map, 0) && b.unmap(&mut map, 1));
    b.dma.hmm_dma_map_free(map).unwrap();
}
