//! What is reported of a mapping: D1, D12 to D15, D22.

use super::*;

#[test]
fn d1_overlapping_lines() {
    let mut b = translated();
    b.mapped(RAM, 64, FromDevice, NONE);
    b.mapped(RAM + 32, 8, Bidirectional, NONE);
    b.expect(&[1]);

    // Another line, a mapping that is only read, one that skips the sync, the line of the last
    // byte, and one mapping after the other.
    let mut b = translated();
    let a = b.mapped(RAM, 128, FromDevice, NONE);
    b.mapped(RAM + 64, 64, FromDevice, NONE);
    b.mapped(RAM, 64, ToDevice, NONE);
    b.mapped(RAM, 64, FromDevice, Attrs::SKIP_CPU_SYNC);
    b.unmap(a, 128, FromDevice, NONE);
    b.expect(&[]);
    let mut b = translated();
    for _ in 0..2 {
        let a = b.mapped(RAM, 64, FromDevice, NONE);
        b.unmap(a, 64, FromDevice, NONE);
    }
    b.expect(&[]);

    // Both have to take it upon themselves.
    let ignore = Attrs::DEBUGGING_IGNORE_CACHELINES;
    for (first, second, numbers) in [
        (ignore, Attrs::REQUIRE_COHERENT, &[][..]),
        (ignore, NONE, &[1]),
        (NONE, ignore, &[1]),
    ] {
        let mut b = translated();
        b.mapped(RAM, 64, FromDevice, first);
        b.mapped(RAM, 64, FromDevice, second);
        b.expect(numbers);
    }

    // Where all is coherent, and where small buffers are bounced.
    let mut b = bench(
        Some(Options {
            cache_alignment: 1,
            ..all()
        }),
        nvme(),
        Attach::Strict,
    );
    b.mapped(RAM, 64, FromDevice, NONE);
    b.mapped(RAM, 64, FromDevice, NONE);
    b.expect(&[]);
    for pool in [false, true] {
        let mut b = translated();
        b.dma.config.kmalloc_minalign = Some(64);
        if pool {
            let pool = Swiotlb::new(PhysAddr(0x9000_0000), 1 << 20, 1, false);
            b.dma.set_swiotlb(pool.unwrap());
        }
        b.mapped(RAM, 4096, FromDevice, NONE);
        b.mapped(RAM, 4096, FromDevice, NONE);
        b.expect(if pool { &[] } else { &[1] });
    }
}

/// MMIO takes part: one line of a BAR mapped twice.
#[test]
fn d1_device_memory() {
    let mut b = translated();
    b.mapped(BAR, 64, FromDevice, Attrs::MMIO);
    b.mapped(BAR, 64, FromDevice, Attrs::MMIO);
    b.expect(&[1]);
}

#[test]
fn overlaps_are_counted_to_seven() {
    let mut b = translated();
    let mut all = vec![b.mapped(RAM, 64, FromDevice, NONE)];
    for _ in 0..7 {
        all.push(b.mapped(RAM, 64, FromDevice, NONE));
    }
    assert_eq!(b.dma.warnings().count(WarningKind::CachelineOverlaps), 0);
    all.push(b.mapped(RAM, 64, FromDevice, NONE));
    assert_eq!(b.dma.warnings().count(WarningKind::CachelineOverlaps), 1);
    assert!(b.dma.warnings().iter().any(|w| {
        w.text
            .contains("exceeded 7 overlapping mappings of cacheline 0x2000000")
    }));
    // The ninth was not counted: eight unmaps make the line free.
    for a in &all[..8] {
        b.unmap(*a, 64, FromDevice, NONE);
    }
    let n = b.reports().len();
    b.mapped(RAM, 64, FromDevice, NONE);
    assert_eq!(b.reports().len(), n);
}

/// Merged: fewer entries than buffers, and all of them go.
#[test]
fn merged_lists_balance() {
    let mut b = bench(
        Some(all()),
        Device {
            max_segment_size: 1 << 20,
            ..nvme()
        },
        Attach::Strict,
    );
    let mut sg = b.map_sg(ToDevice, &[(RAM, 0x1000), (RAM + 0x4000, 0x1000)]);
    assert_eq!(b.debug().len(), 1);
    let entry = b.debug().dump().next().unwrap();
    assert_eq!((entry.sg_call_ents, entry.sg_mapped_ents), (2, 1));
    b.unmap_sg(&mut sg, ToDevice);
    assert!(b.debug().is_empty());
    b.expect(&[]);
}

#[test]
fn d12_d13_what_memory_is_for() {
    let page = |n: u64| Range::sized(RAM + n * 0x1000, 0x1000);
    let mut b = translated();
    b.dma.areas.add(page(1), Area::Stack);
    b.dma.areas.add(page(2), Area::VmapStack);
    b.dma.areas.add(page(3), Area::KernelText);
    b.dma.areas.add(page(4), Area::Rodata);
    for (n, number) in [(1, 12), (2, 12), (3, 13), (4, 13)] {
        let before = b.reports().len();
        b.mapped(page(n).base.0 + 0x100, 64, ToDevice, NONE);
        assert_eq!(b.reports()[before..].len(), 1);
        assert_eq!(b.reports()[before].number(), number);
        b.map_sg(ToDevice, &[(RAM + 0x10_0000, 64), (page(n).base.0, 64)]);
        assert_eq!(b.reports()[before + 1..].len(), 1);
        assert_eq!(b.reports()[before + 1].number(), number);
    }
    // The stack counts by the first byte, text by any; MMIO is never looked up.
    let mut b = translated();
    b.dma.areas.add(page(1), Area::Stack);
    b.dma.areas.add(page(3), Area::KernelText);
    b.mapped(RAM + 0xff0, 64, ToDevice, NONE);
    b.expect(&[]);
    b.mapped(RAM + 0x2ff0, 64, ToDevice, NONE);
    b.expect(&[13]);
    b.dma.areas.add(Range::sized(BAR, 0x1000), Area::KernelText);
    b.mapped(BAR, 64, ToDevice, Attrs::MMIO);
    b.mapped(RAM + 0x5000, 64, ToDevice, NONE);
    b.expect(&[13]);
    b.dma.areas.remove(page(3), Area::KernelText);
    b.mapped(RAM + 0x3000, 64, ToDevice, NONE);
    b.expect(&[13]);
}

#[test]
fn d14_what_a_single_buffer_may_be() {
    let single = |b: &mut Bench, phys| {
        b.dma
            .dma_map_single(&mut b.m, b.dev, PhysAddr(phys), 64, ToDevice, NONE)
    };
    let mut b = translated();
    single(&mut b, RAM).unwrap();
    b.expect(&[]);
    single(&mut b, 0x1000).unwrap();
    b.expect(&[14]);
    // The wrapper refuses vmalloc before the tracker is asked.
    b.dma
        .areas
        .add(Range::sized(RAM + 0x1000, 0x1000), Area::Vmalloc);
    assert_eq!(single(&mut b, RAM + 0x1000), Err(MapError::Vmalloc));
    assert_eq!(b.dma.warnings().count(WarningKind::Vmalloc), 1);
    b.expect(&[14]);
    let Bench { dma, dev, .. } = &mut b;
    let d = dma.device(*dev).unwrap().clone();
    let debug = dma.debug.as_mut().unwrap();
    let at = PhysAddr(RAM + 0x1000);
    debug.map_single(&d, &dma.areas, crate::debug::tracker::Pages::Ram, at, 64);
    b.expect(&[14, 14]);
    assert!(matches!(b.reports()[1], Report::VmallocArea { .. }));
}

#[test]
fn d15_main_memory_as_a_resource() {
    let resource = |b: &mut Bench, phys| {
        b.dma
            .dma_map_resource(&mut b.m, b.dev, PhysAddr(phys), 64, ToDevice, NONE)
            .unwrap()
    };
    let mut b = translated();
    resource(&mut b, RAM);
    b.expect(&[15]);
    // A7.17: the same through dma_map_phys.
    b.mapped(RAM, 64, ToDevice, Attrs::MMIO);
    b.expect(&[15, 15]);
    // A BAR without pages, one with (reserved ones), reserved memory; A7.16: a BAR as RAM.
    b.dma.p2pdma.add(Provider {
        owner: Bdf::new(2, 0, 0),
        range: Range::sized(BAR + 0x10_0000, 0x1000),
        bus_offset: 0,
        pages: true,
    });
    b.dma
        .areas
        .add(Range::sized(RAM + 0x2000, 0x1000), Area::Reserved);
    resource(&mut b, BAR);
    resource(&mut b, BAR + 0x10_0000);
    resource(&mut b, RAM + 0x2000);
    b.mapped(BAR + 0x10_0000, 64, ToDevice, NONE);
    b.expect(&[15, 15]);
}

#[test]
fn d22_segments() {
    let narrow = || Device {
        max_segment_size: 0x1000,
        seg_boundary: 0xffff,
        ..nvme()
    };
    let mut b = bench(Some(all()), narrow(), Attach::Direct);
    b.map_sg(ToDevice, &[(RAM, 0x1000), (RAM + 0xf000, 0x1000)]);
    b.expect(&[]);
    b.map_sg(ToDevice, &[(RAM, 0x1001)]);
    b.expect(&[22]);
    b.map_sg(ToDevice, &[(RAM + 0xf800, 0x1000)]);
    b.expect(&[22, 22]);
    assert!(matches!(b.reports()[0], Report::SgLength { .. }));
    assert!(matches!(b.reports()[1], Report::SgBoundary { .. }));
    let without = Options {
        check_sg: false,
        ..all()
    };
    let mut b = bench(Some(without), narrow(), Attach::Direct);
    b.map_sg(ToDevice, &[(RAM + 0xf800, 0x2000)]);
    b.expect(&[]);
}

/// dma_iova_* is not tracked.
#[test]
fn two_step_mappings_are_not_seen() {
    let mut b = translated();
    let (m, dev) = (&mut b.m, b.dev);
    let mut state = b.dma.dma_iova_try_alloc(dev, PhysAddr(RAM), 4096).unwrap();
    b.dma
        .dma_iova_link(m, dev, &mut state, PhysAddr(RAM), 0, 4096, ToDevice, NONE)
        .unwrap();
    assert!(b.debug().is_empty());
}
