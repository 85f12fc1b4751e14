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
