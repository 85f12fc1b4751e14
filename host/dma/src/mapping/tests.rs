//! Dispatch, arguments and mismatched unmaps.

use super::*;
use crate::testing::bench::*;

/// A1: what is refused before a back end is asked leaves no trace.
#[test]
fn dispatch() {
    let mut b = strict(device());
    assert_eq!(
        b.map(RAM, 4096, Bidirectional, Attrs::CC_SHARED),
        Err(MapError::CcShared)
    );
    assert!(
        !b.dma
            .trace
            .take()
            .iter()
            .any(|e| matches!(e, Event::DmaMapPhys { .. }))
    );
    for attach in [Attach::Direct, Attach::Identity, Attach::Strict] {
        let mut b = Bench::new(
            Config::default(),
            Device {
                coherent: false,
                ..device()
            },
            attach,
        );
        assert_eq!(
            b.map(RAM, 4096, ToDevice, Attrs::REQUIRE_COHERENT),
            Err(MapError::NotCoherent)
        );
        assert_eq!(b.dma.trace.take(), []);
        let mut b = Bench::new(
            Config::default(),
            Device {
                dma_mask: None,
                ..device()
            },
            attach,
        );
        assert_eq!(b.map(RAM, 4096, ToDevice, NONE), Err(MapError::NoMask));
        assert_eq!(b.dma.warnings().count(WarningKind::NoMask), 1);
        let page = b
            .dma
            .dma_map_page(&mut b.m, b.dev, PhysAddr(BAR), 8, ToDevice, Attrs::MMIO);
        assert_eq!(page, Err(MapError::MmioThroughPage));
    }
    let mut b = Bench::new(Config::default(), device(), Attach::Identity);
    assert_eq!(b.map(RAM, 4096, ToDevice, NONE), Ok(RAM));
}

#[test]
fn bad_arguments_are_errors() {
    for attach in [Attach::Direct, Attach::Strict] {
        let mut b = Bench::new(Config::default(), device(), attach).pool(false);
        assert_eq!(b.map(RAM, 0, ToDevice, NONE), Err(MapError::ZeroSize));
        assert_eq!(b.map(u64::MAX, 2, ToDevice, NONE), Err(MapError::Wraps));
        // Nothing but the mask limits a mapping without translation.
        let huge = b.map(RAM, u64::MAX - RAM, ToDevice, NONE);
        assert_eq!(huge.is_ok(), attach == Attach::Direct);
        if huge.is_ok() {
            b.unmap(RAM, u64::MAX - RAM, ToDevice, NONE);
        }
        let warned = |b: &Bench, kind| b.dma.warnings().count(kind);
        assert_eq!(warned(&b, WarningKind::UnmapSize), 0);
        b.unmap(u64::MAX, 2, ToDevice, NONE);
        b.unmap(RAM, 0, ToDevice, NONE);
        assert_eq!(warned(&b, WarningKind::UnmapSize), 2);
        b.unmap(RAM, 4096, ToDevice, NONE);
        // Without translation only dma-debug knows what is mapped.
        let translated = u64::from(attach == Attach::Strict);
        assert_eq!(warned(&b, WarningKind::NotMapped), translated);
        assert_eq!(b.dma.dma_iova_try_alloc(b.dev, PhysAddr(0), 0), None);
        assert_eq!(b.dma.dma_iova_try_alloc(b.dev, PhysAddr(0), 1 << 63), None);
    }
    assert!(check_range(PhysAddr(u64::MAX), 1).is_ok());
}

/// A5: what a wrong unmap does, and that it is noticed.
#[test]
fn mismatched_unmaps() {
    let nc = || Device {
        coherent: false,
        ..device()
    };
    let mut b = strict(nc());
    let a = b.map(BAR, 4096, FromDevice, Attrs::MMIO).unwrap();
    b.m.take();
    b.unmap(a, 4096, FromDevice, NONE);
    assert_eq!(letters(&b.m.take()), "iUS");

    let mut b = strict(nc());
    let a = b.map(RAM, 4096, FromDevice, NONE).unwrap();
    b.m.take();
    b.unmap(a, 4096, FromDevice, Attrs::MMIO);
    assert_eq!(letters(&b.m.take()), "US");

    for (attrs, used) in [(Attrs::MMIO, 1), (Attrs::SKIP_CPU_SYNC, 0)] {
        let mut b = Bench::new(Config::default(), device(), Attach::Direct).pool(true);
        let a = b.map(RAM, 64, FromDevice, NONE).unwrap();
        b.m.take();
        b.unmap(a, 64, FromDevice, attrs);
        assert_eq!(letters(&b.m.take()), "");
        assert_eq!(b.dma.swiotlb().unwrap().used(), used);
    }

    let mut b = strict(device());
    let a = b.map(BAR, 4096, FromDevice, Attrs::MMIO).unwrap();
    b.dma
        .dma_unmap_page(&mut b.m, b.dev, DmaAddr(a), 4096, FromDevice, Attrs::MMIO);
    assert_eq!(b.dma.live().count(), 1);

    let mut b = strict(device());
    let a = b.map(RAM, 0x2000, ToDevice, NONE).unwrap();
    b.unmap(a, 0x1000, FromDevice, NONE);
    assert_eq!(b.dma.iommu().unwrap().pages.len(), 1);
}

/// Before the series, a peer was mapped as memory; a resource was not.
#[test]
fn pre_series_ignores_mmio() {
    let mut b = Bench::new(
        Config::new(Profile::PreSeries),
        Device {
            coherent: false,
            ..device()
        },
        Attach::Strict,
    );
    let a = b.map(BAR, 4096, FromDevice, Attrs::MMIO).unwrap();
    assert!(matches!(
        b.m.take()[..],
        [Op::Clean(..), Op::Map { prot: 0x02, .. }]
    ));
    assert_eq!(
        b.dma.describe(b.dev, DmaAddr(a)).unwrap().expected.mem_type,
        MemType::Device
    );
    b.dma
        .dma_map_resource(&mut b.m, b.dev, PhysAddr(BAR), 4096, FromDevice, NONE)
        .unwrap();
    assert!(matches!(b.m.take()[..], [Op::Map { prot: 0x12, .. }]));
    let mut b = Bench::new(Config::new(Profile::PreSeries), device(), Attach::Strict);
    b.map(BAR, 4096, FromDevice, Attrs::MMIO).unwrap();
    assert!(matches!(b.m.take()[..], [Op::Map { prot: 0x06, .. }]));
    let b = Bench::new(Config::new(Profile::Linux72), device(), Attach::Strict);
    assert_eq!(b.dma.domain_of(b.dev), None);
}

#[test]
fn repeated_direct_mappings_are_counted() {
    let mut b = Bench::new(Config::default(), device(), Attach::Direct);
    for _ in 0..3 {
        b.map(RAM, 64, ToDevice, NONE).unwrap();
    }
    assert_eq!(b.dma.live().count(), 1);
    for _ in 0..3 {
        assert!(b.dma.describe(b.dev, DmaAddr(RAM + 63)).is_some());
        b.unmap(RAM, 64, ToDevice, NONE);
    }
    assert!(b.dma.describe(b.dev, DmaAddr(RAM)).is_none());
}
