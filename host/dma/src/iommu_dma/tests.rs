//! Protection, IOVA and bounce of `dma-iommu`.

use super::*;
use crate::testing::bench::*;

#[test]
fn prot_table() {
    for (attrs, coherent, bidi, to, from) in [
        (NONE, true, 0x07, 0x05, 0x06),
        (NONE, false, 0x03, 0x01, 0x02),
        (Attrs::MMIO, true, 0x13, 0x11, 0x12),
        (Attrs::MMIO, false, 0x13, 0x11, 0x12),
        (Attrs::PRIVILEGED, true, 0x27, 0x25, 0x26),
        (Attrs::PRIVILEGED, false, 0x23, 0x21, 0x22),
        (Attrs::MMIO | Attrs::PRIVILEGED, true, 0x33, 0x31, 0x32),
    ] {
        for (dir, prot) in [(Bidirectional, bidi), (ToDevice, to), (FromDevice, from)] {
            assert_eq!(
                dma_info_to_prot(dir, coherent, attrs).bits(),
                prot,
                "{attrs} {dir:?}"
            );
        }
    }
}

/// A3: attributes, untrusted, coherent, address; protection, operations at map and unmap.
#[test]
fn iommu_table() {
    let req = Attrs::REQUIRE_COHERENT;
    let mmio = Attrs::MMIO;
    type Row = (
        &'static str,
        Attrs,
        bool,
        bool,
        u64,
        Result<u32, &'static str>,
        &'static str,
        &'static str,
    );
    let rows: [Row; 13] = [
        ("A3.1", NONE, false, true, RAM + 0x200, Ok(0x07), "M", "US"),
        (
            "A3.2",
            NONE,
            false,
            false,
            RAM + 0x200,
            Ok(0x03),
            "cM",
            "iUS",
        ),
        (
            "A3.3",
            Attrs::SKIP_CPU_SYNC,
            false,
            false,
            RAM,
            Ok(0x03),
            "M",
            "US",
        ),
        ("A3.4", NONE, true, true, RAM, Ok(0x07), "M", "US"),
        (
            "A3.5",
            NONE,
            true,
            true,
            RAM + 0x200,
            Ok(0x07),
            "wwwM",
            "USw",
        ),
        (
            "A3.6",
            NONE,
            true,
            false,
            RAM + 0x200,
            Ok(0x03),
            "wwwcM",
            "iUSw",
        ),
        ("A3.7", req, true, true, RAM + 0x200, Err("bounce"), "", ""),
        ("A3.9", mmio, false, true, BAR + 0x200, Ok(0x13), "M", "US"),
        (
            "A3.10",
            mmio,
            false,
            false,
            BAR + 0x200,
            Ok(0x13),
            "M",
            "US",
        ),
        ("A3.11", mmio, true, true, BAR + 0x200, Ok(0x13), "M", "US"),
        ("A3.12", mmio | req, false, true, BAR, Ok(0x13), "M", "US"),
        (
            "A3.13",
            mmio | req,
            false,
            false,
            BAR,
            Err("coherent"),
            "",
            "",
        ),
        (
            "priv",
            Attrs::PRIVILEGED,
            false,
            true,
            RAM,
            Ok(0x27),
            "M",
            "US",
        ),
    ];
    for (id, attrs, untrusted, coherent, phys, want, map_ops, unmap_ops) in rows {
        let d = Device {
            untrusted,
            coherent,
            min_align_mask: 0xfff,
            ..device()
        };
        let mut b = strict(d).pool(false);
        let got = b.map(phys, 0x1000, Bidirectional, attrs);
        let ops = b.m.take();
        assert_eq!(letters(&ops), map_ops, "{id}");
        match (got, want) {
            (Ok(a), Ok(prot)) => {
                let page = b.dma.iommu().unwrap().pages[&(1, a >> 12)];
                assert_eq!(page.1.bits(), prot, "{id}");
                assert_eq!(a % 4096, phys % 4096, "{id}");
                let promise = b.dma.describe(b.dev, DmaAddr(a)).unwrap();
                let target = promise.target(DmaAddr(a)).unwrap();
                assert_eq!(target.0 >> 12, page.0 >> 12, "{id}");
                let mem_type = match (attrs.contains(Attrs::MMIO), coherent) {
                    (true, _) => MemType::Device,
                    (_, true) => MemType::WriteBack,
                    (_, false) => MemType::NonCacheable,
                };
                assert_eq!(promise.expected.mem_type, mem_type, "{id}");
                b.unmap(a, 0x1000, Bidirectional, attrs);
                assert_eq!(letters(&b.m.take()), unmap_ops, "{id}");
                assert!(b.dma.iommu().unwrap().pages.is_empty(), "{id}");
            }
            (Err(e), Err(text)) => assert!(e.to_string().contains(text), "{id}: {e}"),
            other => panic!("{id}: {other:?}"),
        }
        assert_eq!(b.dma.swiotlb().unwrap().used(), 0, "{id}");
        assert!(b.dma.warnings().is_empty(), "{id}");
    }
    // A3.8 and A3.14.
    let mut b = strict(Device {
        untrusted: true,
        ..device()
    });
    assert_eq!(
        b.map(RAM + 1, 1, ToDevice, NONE),
        Err(MapError::SwiotlbInactive)
    );
    let mut b = strict(Device {
        min_align_mask: 0xffff,
        ..device()
    });
    assert_eq!(
        b.map(RAM, 4096, ToDevice, NONE),
        Err(MapError::AlignConstraint)
    );
    assert_eq!(b.dma.warnings().count(WarningKind::AlignConstraint), 1);
}

#[test]
fn failed_map_leaves_nothing() {
    let mut b = strict(Device {
        untrusted: true,
        ..device()
    })
    .pool(false);
    b.dma.iommu_mut().unwrap().broken = true;
    let e = b.map(RAM + 4, 8, ToDevice, NONE);
    assert_eq!(e, Err(MapError::Iommu(IommuError::NoMemory)));
    assert_eq!(b.dma.swiotlb().unwrap().used(), 0);
    assert!(matches!(
        b.dma.trace.take().last(),
        Some(Event::DmaMapPhys { dma: None, .. })
    ));
    b.dma.iommu_mut().unwrap().broken = false;
    let a = b.map(RAM, 4096, ToDevice, NONE);
    assert_eq!(a, Ok(0xffff_f000));
}

/// A10, through the API.
#[test]
fn iova_vectors() {
    let mut b = strict(device());
    assert_eq!(b.map(RAM, 4096, ToDevice, NONE), Ok(0xffff_f000));
    assert_eq!(b.map(RAM, 4096, ToDevice, NONE), Ok(0xffff_e000));
    b.unmap(0xffff_e000, 4096, ToDevice, NONE);
    assert_eq!(b.map(RAM, 4096, ToDevice, NONE), Ok(0xffff_e000));
    assert_eq!(
        strict(device()).map(RAM, 0x3000, ToDevice, NONE),
        Ok(0xffff_c000)
    );
    assert_eq!(
        strict(device()).map(RAM, 33 * 4096, ToDevice, NONE),
        Ok(0xfffc_0000)
    );
    let mut narrow = strict(Device {
        dma_mask: Some((1 << 30) - 1),
        ..device()
    });
    assert_eq!(narrow.map(RAM, 4096, ToDevice, NONE), Ok(0x3fff_f000));
    let config = Config {
        forcedac: true,
        ..Config::default()
    };
    let mut m = FakeMachine::default();
    let mut iommu = FakeIommu::new(&m.log);
    iommu.last = (1 << 38) - 1;
    let mut dma = Dma::new(config, Some(iommu));
    let dev = dma.add_device(&mut m, device(), Attach::Strict).unwrap();
    let a = dma.dma_map_phys(&mut m, dev, PhysAddr(RAM), 4096, ToDevice, NONE);
    assert_eq!(a, Ok(DmaAddr(0x3f_ffff_f000)));
}

#[test]
fn leaves_32_bits_once_they_are_full() {
    let config = Config {
        reserved: vec![(0x1000, 0xffff_ffff)],
        ..Config::default()
    };
    let mut b = Bench::new(config, device(), Attach::Strict);
    assert_eq!(b.map(RAM, 4096, ToDevice, NONE), Ok((1 << 47) - 4096));
    assert_eq!(b.dma.warnings().count(WarningKind::Dac), 1);
    assert_eq!(b.map(RAM, 4096, ToDevice, NONE), Ok((1 << 47) - 8192));
    assert_eq!(b.dma.warnings().count(WarningKind::Dac), 1);
}
