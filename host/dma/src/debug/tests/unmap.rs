//! What is reported of an unmap: D2 to D11, and table A5.

use super::*;

#[test]
fn d2_driver_gone() {
    let mut b = translated();
    let a = b.mapped(RAM, 4096, ToDevice, NONE);
    b.unmap(a, 4096, ToDevice, NONE);
    b.dma.driver_unbound(b.dev);
    b.expect(&[]);
    b.mapped(RAM, 4096, ToDevice, NONE);
    b.mapped(RAM + 0x1000, 4096, ToDevice, NONE);
    b.dma.driver_unbound(b.dev);
    b.expect(&[2]);
    assert!(matches!(
        b.reports()[0],
        Report::PendingAllocations {
            count: 2,
            kind: EntryType::Phy,
            ..
        }
    ));
    assert_eq!(b.debug().len(), 2);
}

#[test]
fn d3_and_d4_free_what_is_not_there() {
    let mut b = direct();
    b.unmap(u64::MAX, 64, ToDevice, NONE);
    b.expect(&[3]);
    b.unmap(RAM, 64, ToDevice, NONE);
    b.expect(&[3, 4]);
    let a = b.mapped(RAM, 64, ToDevice, NONE);
    b.unmap(a, 64, ToDevice, NONE);
    b.expect(&[3, 4]);
    // Inside of a mapping is not its start; another device's is not this one's.
    let a = b.mapped(RAM, 128, ToDevice, NONE);
    b.unmap(a + 64, 64, ToDevice, NONE);
    b.expect(&[3, 4, 4]);
    let other = Device::new(Bdf::new(2, 0, 0));
    let this = b.dev;
    b.dev = b.dma.add_device(&mut b.m, other, Attach::Direct).unwrap();
    b.unmap(a, 128, ToDevice, NONE);
    b.expect(&[3, 4, 4, 4]);
    b.dev = this;
    b.unmap(a, 128, ToDevice, NONE);
    b.expect(&[3, 4, 4, 4]);
}

#[test]
fn d5_d9_size_and_direction() {
    let mut b = translated();
    let a = b.mapped(RAM, 0x2000, ToDevice, NONE);
    b.unmap(a, 0x1000, FromDevice, NONE);
    b.expect(&[5, 9]);
    let a = b.mapped(RAM, 0x2000, ToDevice, NONE);
    b.unmap(a, 0x2000, ToDevice, NONE);
    b.expect(&[5, 9]);
}

#[test]
fn d6_wrong_function() {
    let mut b = direct();
    let mut sg = b.map_sg(ToDevice, &[(RAM, 64)]);
    b.unmap(RAM, 64, ToDevice, NONE);
    b.expect(&[6]);
    assert!(
        b.debug().log.shown()[0]
            .to_string()
            .ends_with("[mapped as scatter-gather] [unmapped as phy]")
    );
    // A5.6: the other way round; the buffers of a list count only for lists.
    b.mapped(RAM, 64, ToDevice, NONE);
    b.unmap_sg(&mut sg, ToDevice);
    b.expect(&[6, 6, 8]);
    let mut sg = b.map_sg(ToDevice, &[(RAM, 64)]);
    b.unmap_sg(&mut sg, ToDevice);
    let c = b.dma.dma_alloc_coherent(&mut b.m, b.dev, 64).unwrap();
    b.dma.dma_free_attrs(&mut b.m, b.dev, c, NONE);
    b.expect(&[6, 6, 8]);
}

#[test]
fn d7_another_buffer() {
    let mut b = translated();
    let mut c = b.dma.dma_alloc_coherent(&mut b.m, b.dev, 4096).unwrap();
    let right = c.phys;
    c.phys = PhysAddr(right.0 + 0x1000);
    b.dma.dma_free_attrs(&mut b.m, b.dev, c, NONE);
    b.expect(&[7]);
    let c = b.dma.dma_alloc_coherent(&mut b.m, b.dev, 4096).unwrap();
    b.dma.dma_free_attrs(&mut b.m, b.dev, c, NONE);
    b.expect(&[7]);
}

#[test]
fn d10_unchecked() {
    let mut b = translated();
    let a = b.raw(RAM);
    b.unmap(a.0, 64, ToDevice, NONE);
    b.expect(&[10]);
    let a = b.raw(RAM);
    assert_eq!(b.dma.dma_mapping_error(b.dev, a), Ok(()));
    b.unmap(a.0, 64, ToDevice, NONE);
    // A `Result` is a check.
    let a = b.mapped(RAM, 64, ToDevice, NONE);
    b.unmap(a, 64, ToDevice, NONE);
    let a = b
        .dma
        .dma_map_resource(&mut b.m, b.dev, PhysAddr(BAR), 64, ToDevice, NONE)
        .unwrap();
    b.unmap(a.0, 64, ToDevice, Attrs::MMIO);
    b.expect(&[10]);

    // MMIO entries are no exception.
    let a = b
        .dma
        .dma_map_phys_raw(&mut b.m, b.dev, PhysAddr(BAR), 64, ToDevice, Attrs::MMIO);
    b.unmap(a.0, 64, ToDevice, Attrs::MMIO);
    b.expect(&[10, 10]);

    // A failure makes no entry, and is one.
    b.dma.iommu_mut().unwrap().broken = true;
    let a = b.raw(RAM);
    assert_eq!(a, DmaAddr(u64::MAX));
    let checked = b.dma.dma_mapping_error(b.dev, a);
    assert_eq!(checked.unwrap_err().errno(), -12);
    assert!(b.debug().is_empty());
}

/// The kernel's own check of a new mapping marks an older one at the same address.
#[test]
fn d10_is_hidden_by_a_second_mapping() {
    let mut b = direct();
    b.raw(RAM);
    assert!(b.debug().dump().all(|e| e.map_err == MapErr::NotChecked));
    b.raw(RAM);
    let checks: Vec<_> = b.debug().dump().map(|e| e.map_err).collect();
    assert_eq!(checks, [MapErr::Checked, MapErr::NotChecked]);
}

#[test]
fn d11_attributes() {
    for attrs in [Attrs::MMIO, Attrs::REQUIRE_COHERENT, Attrs::PRIVILEGED] {
        for (map, unmap) in [(attrs, NONE), (NONE, attrs)] {
            let mut b = translated();
            let phys = if map == Attrs::MMIO { BAR } else { RAM };
            let a = b.mapped(phys, 4096, FromDevice, map);
            b.unmap(a, 4096, FromDevice, unmap);
            b.expect(&[11]);
        }
    }
    for attrs in [Attrs::NO_KERNEL_MAPPING, Attrs::FORCE_CONTIGUOUS] {
        let mut b = translated();
        let c = b.dma.dma_alloc_coherent(&mut b.m, b.dev, 64).unwrap();
        b.dma.dma_free_attrs(&mut b.m, b.dev, c, attrs);
        b.expect(&[11]);
    }
    // CC_SHARED is for devices of which every mapping is bounced.
    let forced = Device {
        force_bounce: true,
        ..nvme()
    };
    let mut b = bench(Some(all()), forced, Attach::Direct);
    let a = b.mapped(RAM, 64, ToDevice, Attrs::CC_SHARED);
    b.unmap(a, 64, ToDevice, NONE);
    b.expect(&[11]);

    // The others may differ.
    for attrs in [
        Attrs::SKIP_CPU_SYNC,
        Attrs::WEAK_ORDERING,
        Attrs::NO_WARN,
        Attrs::DEBUGGING_IGNORE_CACHELINES,
    ] {
        let mut b = translated();
        let a = b.mapped(RAM, 4096, FromDevice, attrs);
        b.unmap(a, 4096, FromDevice, NONE);
        let a = b.mapped(RAM, 4096, FromDevice, NONE);
        b.unmap(a, 4096, FromDevice, attrs);
        b.expect(&[]);
    }
}

#[test]
fn an_unmap_takes_the_entry_that_fits() {
    let mut b = direct();
    b.mapped(RAM, 64, ToDevice, NONE);
    b.mapped(RAM, 128, ToDevice, NONE);
    b.unmap(RAM, 128, ToDevice, NONE);
    b.expect(&[]);
    assert_eq!(b.debug().dump().next().unwrap().size, 64);
    // Several that fit in part only are as good as none, and stay.
    b.mapped(RAM, 128, ToDevice, NONE);
    b.unmap(RAM, 256, ToDevice, NONE);
    b.expect(&[4]);
    assert_eq!(b.debug().len(), 2);
    // The attributes do not count.
    b.unmap(RAM, 64, ToDevice, Attrs::SKIP_CPU_SYNC);
    b.unmap(RAM, 128, FromDevice, NONE);
    b.expect(&[4, 9]);
}

/// M42: nothing of an entry is left for the next at its address.
#[test]
fn an_entry_keeps_nothing_of_the_one_before() {
    let mut b = direct();
    let mut sg = b.map_sg(Bidirectional, &[(RAM, 4096)]);
    b.unmap_sg(&mut sg, Bidirectional);
    let a = b.mapped(RAM, 64, ToDevice, Attrs::PRIVILEGED);
    b.unmap(a, 64, ToDevice, Attrs::PRIVILEGED);
    let a = b.mapped(RAM, 64, ToDevice, NONE);
    b.unmap(a, 64, ToDevice, NONE);
    b.expect(&[]);
}

/// A5, the column of dma-debug.
#[test]
fn mismatched_unmaps() {
    let mmio = Attrs::MMIO;
    let forced = || Device {
        force_bounce: true,
        ..nvme()
    };
    for (id, bounced, phys, map, unmap, numbers) in [
        ("A5.1", false, BAR, mmio, NONE, &[11][..]),
        ("A5.2", false, RAM, NONE, mmio, &[11]),
        ("A5.3", true, RAM, NONE, mmio, &[11]),
        ("A5.4", true, RAM, NONE, Attrs::SKIP_CPU_SYNC, &[]),
    ] {
        for attach in [Attach::Direct, Attach::Strict] {
            let d = if bounced { forced() } else { nvme() };
            let mut b = bench(Some(all()), d, attach);
            let pool = Swiotlb::new(PhysAddr(0x9000_0000), 1 << 20, 1, false);
            b.dma.set_swiotlb(pool.unwrap());
            let a = b.mapped(phys, 64, FromDevice, map);
            b.unmap(a, 64, FromDevice, unmap);
            let got: Vec<_> = b.reports().iter().map(Report::number).collect();
            assert_eq!(got, numbers, "{id} {attach:?}");
        }
    }
    // A5.5: the page interface does nothing, which shows when the driver goes.
    let mut b = translated();
    let a = b.mapped(BAR, 64, FromDevice, mmio);
    b.dma
        .dma_unmap_page(&mut b.m, b.dev, DmaAddr(a), 64, FromDevice, mmio);
    b.expect(&[]);
    b.dma.driver_unbound(b.dev);
    b.expect(&[2]);
    // A5.6 is in d6_wrong_function, A5.7:
    let mut b = translated();
    let a = b.mapped(RAM, 0x2000, ToDevice, NONE);
    b.unmap(a, 0x1000, ToDevice, NONE);
    b.expect(&[5]);
}
