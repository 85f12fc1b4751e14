//! Frames that are not where the guest thinks, and what is unmapped without a look at MMIO.

use super::*;
use crate::{testing::bench::*, xen::FrameMap};

fn guest(profile: Profile, coherent: bool) -> Bench {
    let device = Device {
        coherent,
        ..device()
    };
    Bench::new(Config::new(profile), device, Attach::Xen).pool(false)
}

#[test]
fn frames_are_a_permutation() {
    let mut f = FrameMap::default();
    let page = |n: u64| PhysAddr(RAM + n * PAGE);
    assert!(f.contiguous(page(0), 1 << 40));
    f.exchange(page(1), page(5));
    f.exchange(page(2), page(6));
    assert_eq!(f.to_machine(PhysAddr(RAM + 0x1234)), PhysAddr(RAM + 0x5234));
    assert_eq!(f.to_guest(PhysAddr(RAM + 0x5234)), PhysAddr(RAM + 0x1234));
    assert!(f.contiguous(page(1), 2 * PAGE), "moved together");
    assert!(!f.contiguous(page(0), 2 * PAGE));
    assert!(!f.contiguous(page(2), 2 * PAGE));
    assert!(f.contiguous(page(2), PAGE));
    f.exchange(page(1), page(5));
    assert_eq!(f.to_machine(page(1)), page(1));
    assert!(f.contiguous(page(0), 2 * PAGE));
}

#[test]
fn mapped_by_machine_address_if_contiguous_else_bounced() {
    let mut b = guest(Profile::Intended, false);
    b.dma.frames.exchange(PhysAddr(RAM), PhysAddr(RAM + 0x9000));
    assert_eq!(b.map(RAM + 8, 64, FromDevice, NONE), Ok(RAM + 0x9008));
    let promise = b.dma.describe(b.dev, DmaAddr(RAM + 0x9008)).unwrap();
    assert_eq!(promise.segments[0].target, PhysAddr(RAM + 0x9008));
    assert_eq!(letters(&b.m.take()), "c");
    b.unmap(RAM + 0x9008, 64, FromDevice, NONE);
    assert_eq!(b.m.take(), [Op::Invalidate(RAM + 8, 64)]);

    let a = b.map(RAM, 0x2000, FromDevice, NONE).unwrap();
    assert_eq!(a, POOL);
    assert_eq!(letters(&b.m.take()), "wc");
    assert!(b.dma.dma_need_unmap(b.dev));
    b.unmap(a, 0x2000, FromDevice, NONE);
    assert_eq!(letters(&b.m.take()), "iw");
    assert_eq!(b.dma.swiotlb().unwrap().used(), 0);
    assert!(b.dma.warnings().is_empty());
}

/// REQUIRE_COHERENT does not keep a coherent device from the pool here.
#[test]
fn what_is_asked_before_and_what_is_not() {
    let mut b = guest(Profile::Intended, true);
    b.dma.frames.exchange(PhysAddr(RAM), PhysAddr(RAM + 0x9000));
    let a = b.map(RAM, 0x2000, FromDevice, Attrs::REQUIRE_COHERENT);
    assert_eq!(a, Ok(POOL));
    assert_eq!(
        b.map(RAM, 64, ToDevice, Attrs::CC_SHARED),
        Err(MapError::CcShared)
    );
    b.dma.device_mut(b.dev).unwrap().dma_mask = Some(0x3fff_ffff);
    assert!(matches!(
        b.map(BAR, 64, ToDevice, Attrs::MMIO),
        Err(MapError::Overflow { .. })
    ));
    assert!(matches!(
        b.map(RAM, 64, ToDevice, NONE),
        Err(MapError::Overflow { .. })
    ));
    assert_eq!(b.dma.warnings().count(WarningKind::SwiotlbOverflow), 1);
}

#[test]
fn linux_72_invalidates_device_memory() {
    for (profile, ops) in [(Profile::Intended, ""), (Profile::Linux72, "i")] {
        let mut b = guest(profile, false);
        let a = b.map(BAR, 64, FromDevice, Attrs::MMIO).unwrap();
        assert_eq!((a, letters(&b.m.take()).as_str()), (BAR, ""));
        b.unmap(a, 64, FromDevice, Attrs::MMIO);
        assert_eq!(letters(&b.m.take()), ops, "{profile:?}");
    }
}
