//! The two-step API.

use super::*;
use crate::testing::bench::*;

/// A4: dma_iova_link.
#[test]
fn link_table() {
    let untrusted = |min_align_mask| Device {
        untrusted: true,
        min_align_mask,
        ..device()
    };
    let run = |d: Device, minalign, phys: u64, offset, size, attrs| {
        let config = Config {
            kmalloc_minalign: minalign,
            ..Config::default()
        };
        let mut b = Bench::new(config, d, Attach::Strict).pool(false);
        let mut s = b
            .dma
            .dma_iova_try_alloc(b.dev, PhysAddr(phys % 4096), 0x4000)
            .unwrap();
        b.m.take();
        let r = b.dma.dma_iova_link(
            &mut b.m,
            b.dev,
            &mut s,
            PhysAddr(phys),
            offset,
            size,
            Bidirectional,
            attrs,
        );
        (b, s, r)
    };
    let (b, s, r) = run(device(), None, RAM, 0, 0x1000, NONE);
    assert_eq!((r, letters(&b.m.take()).as_str()), (Ok(()), "M"), "A4.1");
    assert_eq!(s.addr().0 % 4096, 0);
    let (b, s, r) = run(device(), None, RAM + 0x200, 0, 0x1000, NONE);
    assert_eq!(r, Ok(()), "A4.2");
    assert_eq!(s.addr().0 % 4096, 0x200);
    assert!(matches!(
        b.m.take()[..],
        [Op::Map {
            phys: RAM,
            size: 0x2000,
            prot: 7,
            ..
        }]
    ));
    let (b, _, r) = run(device(), None, RAM + 0x200, 0x1000, 0x1000, NONE);
    assert_eq!(r, Err(MapError::HeadOffset), "A4.3");
    assert_eq!(b.dma.warnings().count(WarningKind::HeadOffset), 1);
    let (mut b, mut s, r) = run(untrusted(0xfff), None, RAM + 0x200, 0, 0x2000, NONE);
    assert_eq!((r, s.raw_size()), (Ok(()), 1 << 63 | 0x4000), "A4.4");
    let maps =
        b.m.take()
            .iter()
            .filter(|o| matches!(o, Op::Map { .. }))
            .count();
    assert_eq!(maps, 3);
    assert_eq!(
        b.dma
            .live()
            .filter(|p| p.segments[0].bounced.is_some())
            .count(),
        2
    );
    let second = b.dma.dma_iova_link(
        &mut b.m,
        b.dev,
        &mut s,
        PhysAddr(RAM),
        0x3e00,
        0x200,
        Bidirectional,
        Attrs::REQUIRE_COHERENT,
    );
    assert_eq!(second, Err(MapError::WouldBounce), "A4.11");
    b.m.take();
    b.dma
        .dma_iova_destroy(&mut b.m, b.dev, &mut s, 0x2000, Bidirectional, NONE);
    assert_eq!(letters(&b.m.take()), "USww");
    assert_eq!(
        (b.dma.swiotlb().unwrap().used(), b.dma.live().count()),
        (0, 0)
    );
    assert!(!s.uses_iova());
    let (b, _, r) = run(untrusted(0), None, RAM + 0x200, 0, 0x1000, NONE);
    assert_eq!(r, Err(MapError::Iommu(IommuError::Misaligned)), "A4.5");
    assert_eq!(b.dma.swiotlb().unwrap().used(), 0);
    let (b, _, r) = run(untrusted(0), None, RAM, 0, 0x1200, NONE);
    assert_eq!(r, Ok(()), "A4.6");
    assert_eq!(
        b.dma
            .live()
            .filter(|p| p.segments[0].bounced.is_some())
            .count(),
        1
    );
    let (_, _, r) = run(untrusted(0), None, BAR + 0x200, 0, 0x1000, Attrs::MMIO);
    assert_eq!(r, Err(MapError::BounceNotPermitted), "A4.7");
    let nc = Device {
        coherent: false,
        ..device()
    };
    let (b, _, r) = run(nc.clone(), None, BAR + 0x200, 0, 0x1000, Attrs::MMIO);
    assert_eq!(r, Ok(()), "A4.8");
    assert!(matches!(b.m.take()[..], [Op::Map { prot: 0x13, .. }]));
    let (_, _, r) = run(untrusted(0), None, BAR, 0, 0x1000, Attrs::MMIO);
    assert_eq!(r, Ok(()), "A4.9");
    let (_, _, r) = run(nc.clone(), None, RAM, 0, 0x1000, Attrs::REQUIRE_COHERENT);
    assert_eq!(r.unwrap_err().errno(), -95, "A4.10");
    let (mut b, mut s, _) = run(device(), None, RAM, 0, 0x1000, NONE);
    let again = b.dma.dma_iova_link(
        &mut b.m,
        b.dev,
        &mut s,
        PhysAddr(RAM),
        0,
        0x1000,
        ToDevice,
        NONE,
    );
    assert_eq!(again.unwrap_err().errno(), -98, "A4.12");
    let (_, _, r) = run(nc, Some(64), BAR + 0x200, 0, 8, Attrs::MMIO);
    assert_eq!(r, Err(MapError::BounceNotPermitted), "A4.13");
    let (_, _, r) = run(device(), None, RAM, 0x4000, 0x1000, NONE);
    assert_eq!(r, Err(MapError::OutsideState));
}

#[test]
fn two_step_frees_what_it_took() {
    let mut b = Bench::new(Config::default(), device(), Attach::Direct);
    assert_eq!(b.dma.dma_iova_try_alloc(b.dev, PhysAddr(0), 4096), None);
    for profile in [Profile::Intended, Profile::PreSeries] {
        let mut b = Bench::new(Config::new(profile), device(), Attach::Strict);
        let mut s = b
            .dma
            .dma_iova_try_alloc(b.dev, PhysAddr(0), 0x4000)
            .unwrap();
        let first = s.addr();
        for i in 0..2 {
            b.dma
                .dma_iova_link(
                    &mut b.m,
                    b.dev,
                    &mut s,
                    PhysAddr(RAM + i * 0x3000),
                    i * 0x1000,
                    0x1000,
                    ToDevice,
                    NONE,
                )
                .unwrap();
        }
        b.dma.dma_iova_sync(b.dev, &s, 0, 0x2000).unwrap();
        assert_eq!(
            b.dma
                .describe(b.dev, first.offset(0x1800))
                .unwrap()
                .target(first.offset(0x1800)),
            Some(PhysAddr(RAM + 0x3800))
        );
        b.dma
            .dma_iova_unlink(&mut b.m, b.dev, &s, 0x1000, 0x1000, ToDevice, NONE);
        assert_eq!(b.dma.live().count(), 1);
        b.dma
            .dma_iova_destroy(&mut b.m, b.dev, &mut s, 0x1000, ToDevice, NONE);
        let s = b
            .dma
            .dma_iova_try_alloc(b.dev, PhysAddr(0), 0x4000)
            .unwrap();
        // Before: the range went back under a smaller size and is not found again.
        assert_eq!(s.addr() == first, profile == Profile::Intended);
    }
}

#[test]
fn sizes_that_no_state_can_hold() {
    let mut b = strict(device());
    for size in [0, 1 << 63] {
        assert_eq!(b.dma.dma_iova_try_alloc(b.dev, PhysAddr(0), size), None);
    }
    assert_eq!(b.dma.warnings().count(WarningKind::IovaSize), 2);
}

/// A head that cannot be bounced leaves no flag behind, a tail that cannot leaves nothing mapped.
#[test]
fn a_failed_bounce_is_undone() {
    let d = Device {
        untrusted: true,
        min_align_mask: 0xfff,
        ..device()
    };
    for (phys, flag) in [(RAM + 0x200, 1 << 63), (RAM, 0)] {
        let mut b = strict(d.clone());
        let pool = Swiotlb::new(PhysAddr(POOL), 0x4_0000, 1, false).unwrap();
        b.dma.set_swiotlb(pool);
        let mut s = b
            .dma
            .dma_iova_try_alloc(b.dev, PhysAddr(phys % 4096), 0x4000)
            .unwrap();
        // One page is left of the pool: enough for a head, not for head and tail.
        let hold = if flag == 0 { 0x4_0000 } else { 0x3_f000 };
        let rule = b.dma.slot_rule(b.dma.device(b.dev).unwrap(), 0xfff);
        b.dma
            .swiotlb
            .as_mut()
            .unwrap()
            .map(0, PhysAddr(RAM + 0x10_0000), hold, rule)
            .unwrap();
        let used = b.dma.swiotlb().unwrap().used();
        let r = b.dma.dma_iova_link(
            &mut b.m,
            b.dev,
            &mut s,
            PhysAddr(phys),
            0,
            0x2100,
            FromDevice,
            NONE,
        );
        assert!(matches!(r, Err(MapError::SwiotlbFull(_))), "{r:?}");
        assert_eq!(s.raw_size(), 0x4000 | flag);
        assert!(b.dma.iommu().unwrap().pages.is_empty());
        assert_eq!(b.dma.swiotlb().unwrap().used(), used);
        assert_eq!(b.dma.live().count(), 0);
    }
}

/// Calls without an error to return say what they did not do.
#[test]
fn misuse_is_warned_about() {
    let mut b = strict(device());
    let (dev, both) = (b.dev, Bidirectional);
    let (dma, m) = (&mut b.dma, &mut b.m);
    let mut s = dma.dma_iova_try_alloc(dev, PhysAddr(0), 0x2000).unwrap();
    dma.dma_iova_link(m, dev, &mut s, PhysAddr(RAM), 0, 0x2000, both, NONE)
        .unwrap();
    let mut warned = 0;
    let mut more = |dma: &Dma<FakeIommu>| {
        let before = std::mem::replace(&mut warned, dma.warnings().count(WarningKind::UnmapSize));
        warned - before
    };
    dma.dma_iova_unlink(m, dev, &s, 0x1000, 0x2000, both, NONE);
    assert_eq!(more(dma), 1);
    dma.dma_iova_unlink(m, dev, &s, 0, 0, both, NONE);
    assert_eq!(more(dma), 1);
    dma.dma_iova_destroy(m, dev, &mut s, 0x3000, both, NONE);
    assert_eq!(more(dma), 1);
    assert_eq!(dma.iommu().unwrap().pages.len(), 2);
    dma.dma_iova_destroy(m, dev, &mut s, 0x2000, both, NONE);
    assert_eq!(more(dma), 0);
    dma.dma_iova_destroy(m, dev, &mut s, 0x2000, both, NONE);
    dma.dma_iova_free(dev, &mut s);
    assert_eq!(more(dma), 2);

    let mut s = dma.dma_iova_try_alloc(dev, PhysAddr(0), 0x2000).unwrap();
    dma.remove_device(m, dev).unwrap();
    dma.dma_iova_unlink(m, dev, &s, 0, 0x1000, both, NONE);
    dma.dma_iova_destroy(m, dev, &mut s, 0x1000, both, NONE);
    dma.dma_iova_free(dev, &mut s);
    assert_eq!(dma.warnings().count(WarningKind::NoDevice), 3);
}
