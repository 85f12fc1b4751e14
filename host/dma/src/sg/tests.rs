//! Scatterlists with and without peers.

use super::*;
use crate::testing::bench::*;

fn sg_bench(profile: Profile, client: Bdf, coherent: bool) -> Bench {
    let config = Config {
        quirks: crate::Quirks {
            identity_only: false,
            ..profile.quirks()
        },
        ..Config::new(profile)
    };
    let mut b = Bench::new(
        config,
        Device {
            coherent,
            ..Device::new(client)
        },
        Attach::Strict,
    );
    topology(&mut b.m, 0x0001_1ae0);
    b.dma.p2pdma.add(peer(true));
    b
}

/// A7.7 to A7.9 and 5.7: peers in a scatterlist.
#[test]
fn scatterlists_with_peers() {
    for (profile, prot) in [(Profile::Intended, 0x12), (Profile::Linux72, 0x06)] {
        let mut b = sg_bench(profile, Bdf::new(5, 0, 0), true);
        let mut sg = [SgEntry::new(PhysAddr(BAR), 4096)];
        assert_eq!(
            b.dma.dma_map_sg(&mut b.m, b.dev, &mut sg, FromDevice, NONE),
            Ok(1)
        );
        assert!(
            b.m.take()
                .iter()
                .any(|o| matches!(o, Op::Map { prot: p, .. } if *p == prot))
        );
        let promise = b.dma.describe(b.dev, sg[0].dma_address).unwrap();
        assert_eq!(
            (promise.expected.mem_type, promise.route),
            (MemType::Device, Route::ThroughBridge)
        );
        b.dma
            .dma_unmap_sg(&mut b.m, b.dev, &mut sg, FromDevice, NONE);
        assert!(b.dma.iommu().unwrap().pages.is_empty());
    }
    let mut b = sg_bench(Profile::Intended, Bdf::new(4, 0, 0), true);
    let mut sg = [
        SgEntry::new(PhysAddr(RAM), 4096),
        SgEntry::new(PhysAddr(BAR + 0x3000), 4096),
        SgEntry::new(PhysAddr(RAM + 0x8000), 4096),
    ];
    assert_eq!(
        b.dma.dma_map_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE),
        Ok(3)
    );
    assert_eq!(sg[1].dma_address, DmaAddr(BAR + 0x3000 - 0x1000_0000));
    assert!(sg[1].is_bus_address());
    assert_eq!(
        b.dma.describe(b.dev, sg[1].dma_address).unwrap().route,
        Route::BusAddress
    );
    b.dma.dma_unmap_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE);
    assert!(b.dma.iommu().unwrap().pages.is_empty());
    assert_eq!(b.dma.live().count(), 0);
    assert!(b.dma.warnings().is_empty());
    let mut b = sg_bench(Profile::Intended, Bdf::new(5, 0, 0), true);
    b.dma.p2pdma.policy = HostBridgePolicy::Refuse;
    let mut sg = [SgEntry::new(PhysAddr(BAR), 4096)];
    let e = b
        .dma
        .dma_map_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE)
        .unwrap_err();
    assert_eq!(e.errno(), -121);
    assert!(matches!(
        b.dma.trace.take().last(),
        Some(Event::DmaMapSgErr { err: -121, .. })
    ));
}

#[test]
fn scatterlists_merge_and_are_undone() {
    let mut b = strict(device());
    let mut sg = [
        SgEntry::new(PhysAddr(RAM + 0x800), 0x800),
        SgEntry::new(PhysAddr(RAM + 0x5000), 0x1000),
        SgEntry::new(PhysAddr(RAM + 0x6000), 0x200),
        SgEntry::new(PhysAddr(RAM + 0x9000), 0x1000),
    ];
    assert_eq!(
        b.dma.dma_map_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE),
        Ok(2)
    );
    assert_eq!((sg[0].dma_length, sg[1].dma_length), (0x1a00, 0x1000));
    let ops = b.m.take();
    assert_eq!(letters(&ops), "MMM");
    let promise = b.dma.describe(b.dev, sg[0].dma_address).unwrap();
    assert_eq!(promise.api, Api::Sg);
    assert_eq!(
        promise.target(sg[0].dma_address.offset(0x800)),
        Some(PhysAddr(RAM + 0x5000))
    );
    b.dma.dma_unmap_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE);
    assert_eq!(letters(&b.m.take()), "US");
    assert!(b.dma.iommu().unwrap().pages.is_empty());
    assert_eq!(b.dma.live().count(), 0);
    assert!(b.dma.warnings().is_empty());

    let mut b = Bench::new(Config::default(), device(), Attach::Direct);
    let mut sg = [
        SgEntry::new(PhysAddr(RAM), 64),
        SgEntry::new(PhysAddr(RAM + 64), 64),
    ];
    assert_eq!(
        b.dma.dma_map_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE),
        Ok(2)
    );
    assert!(
        b.dma
            .dma_map_sg(&mut b.m, b.dev, &mut [], ToDevice, NONE)
            .is_err()
    );
}

/// The number in the event is that of the back end, whatever the cause.
#[test]
fn error_numbers() {
    let err = |b: &mut Bench, sg: &mut [SgEntry]| {
        let cause = b.dma.dma_map_sg(&mut b.m, b.dev, sg, ToDevice, NONE);
        match b.dma.trace.take().last() {
            Some(Event::DmaMapSgErr { err, .. }) => (cause.unwrap_err(), *err),
            other => panic!("{other:?}"),
        }
    };
    let two = || {
        [
            SgEntry::new(PhysAddr(RAM), 64),
            SgEntry::new(PhysAddr(RAM + 0x8000), 64),
        ]
    };
    // The second one is out of reach: the first is undone.
    let narrow = Device {
        bus_dma_limit: RAM + 0xfff,
        ..device()
    };
    let mut b = Bench::new(Config::default(), narrow, Attach::Direct);
    let (cause, err_direct) = err(&mut b, &mut two());
    assert!(matches!(cause, MapError::Overflow { .. }));
    assert_eq!((err_direct, b.dma.live().count()), (-5, 0));
    assert_eq!(err(&mut b, &mut []), (MapError::ZeroSize, -5));
    assert_eq!(b.dma.warnings().count(WarningKind::SgErrno), 1);

    let full = Config {
        reserved: vec![(0, u64::MAX)],
        ..Config::default()
    };
    let mut b = Bench::new(full, device(), Attach::Strict);
    assert_eq!(err(&mut b, &mut two()), (MapError::NoIova, -12));
    let mut b = strict(Device {
        untrusted: true,
        ..device()
    });
    assert_eq!(err(&mut b, &mut two()), (MapError::SwiotlbInactive, -5));
}

/// A peer through the host bridge is never maintained, bounced or moved by DMA ranges, unless the
/// list is that of Linux.
#[test]
fn peers_without_translation() {
    let far = |profile, attach| {
        let d = Device {
            coherent: false,
            dma_ranges: vec![DmaRange {
                cpu_start: PhysAddr(0),
                dma_start: DmaAddr(0x1_0000_0000),
                size: 1 << 32,
            }],
            ..Device::new(Bdf::new(5, 0, 0))
        };
        let mut b = Bench::new(Config::new(profile), d, attach);
        topology(&mut b.m, 0x0001_1ae0);
        b.dma.p2pdma.add(peer(true));
        b
    };
    for (profile, dma, ops) in [
        (Profile::Intended, BAR, ("", "")),
        (Profile::Linux72, BAR + 0x1_0000_0000, ("c", "i")),
    ] {
        let mut b = far(profile, Attach::Direct);
        let mut sg = [SgEntry::new(PhysAddr(BAR), 64)];
        let n = b.dma.dma_map_sg(&mut b.m, b.dev, &mut sg, FromDevice, NONE);
        assert_eq!((n, sg[0].dma_address), (Ok(1), DmaAddr(dma)));
        assert_eq!(letters(&b.m.take()), ops.0, "{profile:?}");
        b.dma
            .dma_unmap_sg(&mut b.m, b.dev, &mut sg, FromDevice, NONE);
        assert_eq!(letters(&b.m.take()), ops.1, "{profile:?}");
        assert!(b.dma.warnings().is_empty());
    }
    // Under Xen nobody looks for peers.
    let mut b = far(Profile::Intended, Attach::Xen);
    let mut sg = [SgEntry::new(PhysAddr(BAR), 64)];
    b.dma
        .dma_map_sg(&mut b.m, b.dev, &mut sg, FromDevice, NONE)
        .unwrap();
    assert_eq!(sg[0].dma_address, DmaAddr(BAR + 0x1_0000_0000));
}

/// A list that is mapped entry by entry: Linux takes a peer for memory, which it bounces.
#[test]
fn peers_of_an_untrusted_device() {
    for (profile, bounced) in [(Profile::Intended, false), (Profile::Linux72, true)] {
        let mut b = sg_bench(profile, Bdf::new(5, 0, 0), true).pool(false);
        b.dma.device_mut(b.dev).unwrap().untrusted = true;
        let mut sg = [
            SgEntry::new(PhysAddr(BAR + 0x100), 64),
            SgEntry::new(PhysAddr(RAM + 0x100), 64),
        ];
        let n = b.dma.dma_map_sg(&mut b.m, b.dev, &mut sg, FromDevice, NONE);
        assert_eq!(n, Ok(2));
        let promise = b.dma.describe(b.dev, sg[0].dma_address).unwrap();
        assert_eq!(promise.segments[0].bounced.is_some(), bounced);
        let ops = b.m.take();
        assert_eq!(ops.iter().any(|o| matches!(o, Op::MmioRead(_))), bounced);
        b.dma
            .dma_unmap_sg(&mut b.m, b.dev, &mut sg, FromDevice, NONE);
        assert_eq!(b.dma.swiotlb().unwrap().used(), 0);
        assert!(b.dma.iommu().unwrap().pages.is_empty());
        assert!(b.dma.warnings().is_empty());
    }
}

/// Segments end at the boundary and at the longest length, and bus addresses stand for themselves.
#[test]
fn segments_keep_to_the_limits_of_the_device() {
    let pages = |n: u64| -> Vec<SgEntry> {
        (0..n)
            .map(|i| SgEntry::new(PhysAddr(RAM + 0x2000 * i), 0x1000))
            .collect()
    };
    let lengths = |d: Device| {
        let mut b = strict(d);
        let mut sg = pages(8);
        let n = b.dma.dma_map_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE);
        let lens: Vec<u64> = sg[..n.unwrap()].iter().map(|e| e.dma_length).collect();
        (lens, sg[0].dma_address.0)
    };
    assert_eq!(lengths(device()).0, [0x8000]);
    let short = Device {
        max_segment_size: 0x3000,
        ..device()
    };
    assert_eq!(lengths(short).0, [0x3000, 0x3000, 0x2000]);
    let bounded = Device {
        seg_boundary: 0x1fff,
        ..device()
    };
    let (lens, first) = lengths(bounded);
    assert_eq!((lens, first % 0x2000), (vec![0x2000; 4], 0));
}
