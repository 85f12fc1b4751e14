use tlproof_pcie::Bdf;

use super::*;
use crate::{
    Attach, Config, Device, Profile,
    testing::{FakeIommu, FakeMachine, bench::topology, memory_bar},
};

const RAM: u64 = 0x8000_0000;
const BAR: u64 = 0x4000_0000;
const VA: u64 = 0x7f00_0000_0000;

struct Bench {
    m: FakeMachine,
    dma: Dma<FakeIommu>,
    region: OdpRegion,
    user: UserMemory,
}

/// A region of eight pages: memory, a read-only page at 2, a peer's page at 3, none from 6 on.
fn bench() -> Bench {
    let mut m = FakeMachine::default();
    topology(&mut m, 0x0001_1ae0);
    let iommu = FakeIommu::new(&m.log);
    let mut dma = Dma::new(Config::new(Profile::Intended), Some(iommu));
    let bar = memory_bar(2, BAR, 0x10_0000, BAR);
    dma.p2pdma
        .add_resource(Bdf::new(3, 0, 0), &[bar], 2, 0, 0)
        .unwrap();
    let client = Device::new(Bdf::new(5, 0, 0));
    let dev = dma.add_device(&mut m, client, Attach::Strict).unwrap();
    let region = OdpRegion::new(&mut dma, dev, VA, 8).unwrap();
    let mut user = UserMemory::default();
    for i in 0..6 {
        let page = UserPage {
            phys: PhysAddr(if i == 3 { BAR } else { RAM + i * 0x1_0000 }),
            writable: i != 2,
        };
        user.insert(VA + i * PAGE_SIZE, page);
    }
    Bench {
        m,
        dma,
        region,
        user,
    }
}

impl Bench {
    fn fault(&mut self, va: u64, len: u64, write: bool) -> Result<Vec<(u64, XltEntry)>, OdpError> {
        self.region
            .fault(&mut self.dma, &mut self.m, &self.user, va, len, write)
    }

    fn unmap(&mut self, va: u64, len: u64) -> Result<usize, OdpError> {
        self.region.unmap(&mut self.dma, &mut self.m, va, len)
    }

    fn target(&self, dma: DmaAddr) -> Option<PhysAddr> {
        self.dma.live().find_map(|m| m.target(dma))
    }
}

#[test]
fn fault_use_invalidate_fault() {
    let mut b = bench();
    assert_eq!(b.region.xlt(VA), None);
    let ready = b.fault(VA + 0x800, 0x1000, true).unwrap();
    assert_eq!(ready.len(), 2);
    let first = b.region.xlt(VA).unwrap();
    assert_eq!(ready[0], (VA, first));
    assert_eq!(b.target(first.dma), Some(PhysAddr(RAM)));
    // The kernel moves the page: zap, unmap, another page, fault.
    assert_eq!(b.region.zap(VA, 1).unwrap(), [first]);
    assert_eq!(b.unmap(VA, 1), Ok(1));
    assert_eq!(b.target(first.dma), None);
    b.user.insert(
        VA,
        UserPage {
            phys: PhysAddr(RAM + 0x9_0000),
            writable: true,
        },
    );
    let again = b.fault(VA, 1, true).unwrap()[0].1;
    assert_eq!(again.dma, first.dma);
    assert_eq!(b.target(again.dma), Some(PhysAddr(RAM + 0x9_0000)));
    b.region.release(&mut b.dma, &mut b.m).unwrap();
    assert!(b.dma.iommu().unwrap().pages.is_empty());
    assert!(b.dma.warnings().is_empty());
}

#[test]
fn permission_to_write_is_renewed_in_place() {
    let mut b = bench();
    let at = VA + 2 * PAGE_SIZE;
    assert_eq!(b.fault(at, 1, true), Err(OdpError::Fault(at)));
    let read = b.fault(at, 1, false).unwrap()[0].1;
    assert!(!read.write);
    let phys = b.user.page(at).unwrap().phys;
    let writable = UserPage {
        phys,
        writable: true,
    };
    b.user.insert(at, writable);
    let write = b.fault(at, 1, true).unwrap()[0].1;
    assert_eq!((write.dma, write.write), (read.dma, true));
    b.region.release(&mut b.dma, &mut b.m).unwrap();
}

#[test]
fn peers_and_memory_side_by_side() {
    let mut b = bench();
    assert_eq!(b.fault(VA, 6 * PAGE_SIZE, false).unwrap().len(), 6);
    let peer = b.region.xlt(VA + 3 * PAGE_SIZE).unwrap();
    assert_eq!(b.target(peer.dma), Some(PhysAddr(BAR)));
    assert_eq!(b.unmap(VA, 8 * PAGE_SIZE), Ok(6));
    assert_eq!(b.dma.live().count(), 0);
    b.region.release(&mut b.dma, &mut b.m).unwrap();
}

#[test]
fn addresses_that_are_not_there() {
    let mut b = bench();
    let hole = VA + 6 * PAGE_SIZE;
    assert_eq!(
        b.fault(VA, 8 * PAGE_SIZE, false),
        Err(OdpError::Fault(hole))
    );
    for (va, len) in [
        (VA - 1, 1),
        (VA, 8 * PAGE_SIZE + 1),
        (VA + 8 * PAGE_SIZE, 1),
        (VA, u64::MAX),
    ] {
        let outside = OdpError::Outside { va, len };
        assert_eq!(b.fault(va, len, false), Err(outside));
        assert_eq!(b.unmap(va, len), Err(outside));
    }
    b.region.release(&mut b.dma, &mut b.m).unwrap();
}

/// A driver that forgets that the entry is unmapped hands the old page's address out.
#[test]
fn a_flag_that_stays() {
    let mut b = bench();
    b.region.map_mut().defects.mapped_kept_on_unmap = true;
    let first = b.fault(VA, 1, true).unwrap()[0].1;
    b.unmap(VA, 1).unwrap();
    let again = b.fault(VA, 1, true).unwrap()[0].1;
    assert_eq!(again.dma, first.dma);
    assert_eq!(b.target(again.dma), None);
}
