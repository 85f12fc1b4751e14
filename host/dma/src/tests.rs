//! The decision tables of the DMA API, row by row, and the order of what happens.

use tlproof_pcie::{
    Bdf,
    Direction::{self, Bidirectional, FromDevice, ToDevice},
    DmaAddr, MemType, PhysAddr, Range,
};

use crate::{
    Api, Attach, Attrs, Config, Device, DeviceId, Dma, DmaRange, Event, MapError, Profile, Route,
    SgEntry, Swiotlb, WarningKind,
    error::check_range,
    iommu::{IommuError, Prot},
    iommu_dma::dma_info_to_prot,
    p2pdma::{HostBridgePolicy, MapType, Provider},
    pages::PagePool,
    testing::{FakeIommu, FakeMachine, Op},
};

const RAM: u64 = 0x8000_0000;
const POOL: u64 = 0x9000_0000;
const BAR: u64 = 0x4000_0000;
const NONE: Attrs = Attrs::empty();

struct Bench {
    m: FakeMachine,
    dma: Dma<FakeIommu>,
    dev: DeviceId,
}

impl Bench {
    fn new(config: Config, device: Device, attach: Attach) -> Self {
        let mut m = FakeMachine::default();
        let iommu = FakeIommu::new(&m.log);
        let mut dma = Dma::new(config, Some(iommu));
        dma.trace.set_enabled(true);
        let dev = dma.add_device(&mut m, device, attach).unwrap();
        Self { m, dma, dev }
    }

    fn pool(mut self, force: bool) -> Self {
        let pool = Swiotlb::new(PhysAddr(POOL), 1 << 20, 1, force).unwrap();
        self.dma.set_swiotlb(pool);
        self
    }

    fn map(&mut self, phys: u64, size: u64, dir: Direction, attrs: Attrs) -> Result<u64, MapError> {
        self.dma
            .dma_map_phys(&mut self.m, self.dev, PhysAddr(phys), size, dir, attrs)
            .map(|a| a.0)
    }

    fn unmap(&mut self, dma: u64, size: u64, dir: Direction, attrs: Attrs) {
        self.dma
            .dma_unmap_phys(&mut self.m, self.dev, DmaAddr(dma), size, dir, attrs);
    }
}

fn device() -> Device {
    Device::new(Bdf::new(1, 0, 0))
}

fn strict(device: Device) -> Bench {
    Bench::new(Config::default(), device, Attach::Strict)
}

/// Cache operations and others in a list, as one letter each.
fn letters(ops: &[Op]) -> String {
    ops.iter()
        .map(|op| match op {
            Op::Clean(..) => 'c',
            Op::Invalidate(..) => 'i',
            Op::CpuWrite(..) => 'w',
            Op::MmioRead(_) | Op::MmioWrite(_) => 'm',
            Op::Map { .. } => 'M',
            Op::Unmap { .. } => 'U',
            Op::Sync => 'S',
            Op::FlushAll => 'F',
        })
        .collect()
}

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
        b.unmap(u64::MAX, 2, ToDevice, NONE);
        b.unmap(RAM, 0, ToDevice, NONE);
        b.unmap(RAM, 4096, ToDevice, NONE);
        assert_eq!(b.dma.warnings().count(WarningKind::FreeUnknown), 3);
        assert_eq!(b.dma.dma_iova_try_alloc(b.dev, PhysAddr(0), 0), None);
        assert_eq!(b.dma.dma_iova_try_alloc(b.dev, PhysAddr(0), 1 << 63), None);
    }
    assert!(check_range(PhysAddr(u64::MAX), 1).is_ok());
}

/// One row of A2.
struct Direct {
    id: &'static str,
    phys: u64,
    size: u64,
    dir: Direction,
    attrs: Attrs,
    force: bool,
    coherent: bool,
    mask: u64,
    pool: bool,
    /// DMA address, or `BOUNCE`, or the error.
    result: Result<u64, &'static str>,
    /// Cache operations at map and unmap, without those of copies.
    ops: (&'static str, &'static str),
}

const BOUNCE: u64 = 1;

#[test]
fn direct_table() {
    const OFF: u64 = 0x1000_0000;
    const ALL: u64 = u64::MAX;
    /// Reaches the pool, not the buffer.
    const LOW: u64 = 0xa100_0000;
    const HIGH: u64 = 0xc000_0000;
    let skip = Attrs::SKIP_CPU_SYNC;
    let row = |id, attrs, force, coherent, mask, pool, result, ops| Direct {
        id,
        phys: if mask == LOW { HIGH } else { RAM },
        size: 4096,
        dir: FromDevice,
        attrs,
        force,
        coherent,
        mask,
        pool,
        result,
        ops,
    };
    let mmio = |id, attrs, force, mask, result| Direct {
        phys: BAR,
        ..row(id, attrs, force, true, mask, true, result, ("", ""))
    };
    let rows = [
        row(
            "A2.1",
            NONE,
            false,
            true,
            ALL,
            true,
            Ok(RAM + OFF),
            ("", ""),
        ),
        row(
            "A2.2",
            NONE,
            false,
            false,
            ALL,
            true,
            Ok(RAM + OFF),
            ("c", "i"),
        ),
        row(
            "A2.3",
            skip,
            false,
            false,
            ALL,
            true,
            Ok(RAM + OFF),
            ("", ""),
        ),
        row(
            "A2.4c",
            NONE,
            false,
            true,
            LOW,
            true,
            Ok(BOUNCE),
            ("w", "w"),
        ),
        row(
            "A2.4n",
            NONE,
            false,
            false,
            LOW,
            true,
            Ok(BOUNCE),
            ("wc", "iw"),
        ),
        row(
            "A2.5",
            NONE,
            false,
            true,
            LOW,
            false,
            Err("overflow"),
            ("", ""),
        ),
        row(
            "A2.6",
            Attrs::REQUIRE_COHERENT,
            false,
            true,
            LOW,
            true,
            Err("overflow"),
            ("", ""),
        ),
        row("A2.7", NONE, true, true, ALL, true, Ok(BOUNCE), ("w", "w")),
        row(
            "A2.8",
            Attrs::CC_SHARED,
            true,
            true,
            ALL,
            true,
            Ok(RAM + OFF),
            ("", ""),
        ),
        row(
            "A2.9",
            Attrs::CC_SHARED,
            false,
            true,
            ALL,
            true,
            Err("CC_SHARED"),
            ("", ""),
        ),
        mmio("A2.10", Attrs::MMIO, false, ALL, Ok(BAR)),
        mmio("A2.11", Attrs::MMIO, false, 0x3fff_ffff, Err("overflow")),
        mmio("A2.12", Attrs::MMIO, true, ALL, Err("bounced")),
        mmio("A2.13", Attrs::MMIO | Attrs::CC_SHARED, true, ALL, Ok(BAR)),
        Direct {
            size: 8,
            ..row(
                "A2.14",
                NONE,
                false,
                false,
                ALL,
                true,
                Ok(BOUNCE),
                ("wc", "iw"),
            )
        },
        Direct {
            size: 8,
            dir: ToDevice,
            ..row(
                "A2.15",
                NONE,
                false,
                false,
                ALL,
                true,
                Ok(RAM + OFF),
                ("c", ""),
            )
        },
        Direct {
            size: 4,
            coherent: false,
            ..mmio("A2.16", Attrs::MMIO, false, ALL, Ok(BAR))
        },
        Direct {
            phys: 0x7000_0000,
            ..row(
                "A2.17",
                NONE,
                false,
                true,
                ALL,
                false,
                Err("overflow"),
                ("", ""),
            )
        },
    ];
    for r in rows {
        let config = Config {
            kmalloc_minalign: Some(64),
            ..Config::default()
        };
        let range = DmaRange {
            cpu_start: PhysAddr(RAM),
            dma_start: DmaAddr(RAM + OFF),
            size: 0x8000_0000,
        };
        let d = Device {
            coherent: r.coherent,
            dma_mask: Some(r.mask),
            force_bounce: r.force,
            dma_ranges: vec![range],
            ..device()
        };
        let mut b = Bench::new(config, d, Attach::Direct);
        if r.pool {
            b = b.pool(false);
        }
        b.m.take();
        let got = b.map(r.phys, r.size, r.dir, r.attrs);
        assert_eq!(letters(&b.m.take()), r.ops.0, "{} map", r.id);
        match (got, r.result) {
            (Ok(a), Ok(BOUNCE)) => assert!(
                (POOL + OFF..POOL + OFF + (1 << 20)).contains(&a),
                "{}",
                r.id
            ),
            (Ok(a), Ok(want)) => assert_eq!(a, want, "{}", r.id),
            (Err(e), Err(text)) => assert!(e.to_string().contains(text), "{}: {e}", r.id),
            (got, want) => panic!("{}: {got:?}, not {want:?}", r.id),
        }
        let overflow = u64::from(r.result == Err("overflow"));
        assert_eq!(
            b.dma.warnings().count(WarningKind::Overflow),
            overflow,
            "{}",
            r.id
        );
        if let Ok(a) = got {
            let bounced = r.result == Ok(BOUNCE);
            let promise = b.dma.describe(b.dev, DmaAddr(a)).unwrap();
            assert_eq!(promise.segments[0].bounced.is_some(), bounced, "{}", r.id);
            b.unmap(a, r.size, r.dir, r.attrs);
            assert_eq!(letters(&b.m.take()), r.ops.1, "{} unmap", r.id);
            assert_eq!(b.dma.swiotlb().map_or(0, Swiotlb::used), 0, "{}", r.id);
            assert_eq!(b.dma.live().count(), 0);
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
    assert_eq!(b.dma.warnings().count(WarningKind::FreeAttrs), 1);

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
    assert_eq!(b.dma.warnings().count(WarningKind::FreeSize), 1);
    assert_eq!(b.dma.warnings().count(WarningKind::FreeDirection), 1);
}

/// B8 and the copy table of swiotlb, with data.
#[test]
fn bounce_moves_data() {
    let d = Device {
        coherent: false,
        ..device()
    };
    for dir in [ToDevice, FromDevice, Bidirectional] {
        let mut b = Bench::new(Config::default(), d.clone(), Attach::Direct).pool(true);
        use crate::machine::Machine;
        b.m.mem_write(PhysAddr(RAM), b"before");
        let a = b.map(RAM, 6, dir, NONE).unwrap();
        assert_eq!(
            b.m.device_read(a, 6),
            b"before",
            "copied in for every direction"
        );
        b.m.mem_write(PhysAddr(RAM), b"cpu---");
        b.dma
            .dma_sync_single_for_device(&mut b.m, b.dev, DmaAddr(a), 6, dir);
        let want: &[u8] = if dir == FromDevice {
            b"before"
        } else {
            b"cpu---"
        };
        assert_eq!(b.m.device_read(a, 6), want);
        b.m.device_write(a, b"device");
        b.dma
            .dma_sync_single_for_cpu(&mut b.m, b.dev, DmaAddr(a), 6, dir);
        let want: &[u8] = if dir == ToDevice {
            b"cpu---"
        } else {
            b"device"
        };
        assert_eq!(b.m.cpu_read(RAM, 6), want);
        b.m.device_write(a, b"second");
        b.unmap(a, 6, dir, NONE);
        let want: &[u8] = if dir == ToDevice {
            b"cpu---"
        } else {
            b"second"
        };
        assert_eq!(b.m.cpu_read(RAM, 6), want);
    }
}

#[test]
fn sync_is_skipped_until_something_is_bounced() {
    let mut b = Bench::new(Config::default(), device(), Attach::Direct);
    let a = b.map(RAM, 64, FromDevice, NONE).unwrap();
    assert!(!b.dma.dma_need_unmap(b.dev));
    b.dma.trace.take();
    b.dma
        .dma_sync_single_for_cpu(&mut b.m, b.dev, DmaAddr(a), 64, FromDevice);
    assert_eq!(b.dma.trace.take(), []);
    b = b.pool(true);
    let a = b.map(RAM, 64, FromDevice, NONE).unwrap();
    assert!(b.dma.dma_need_unmap(b.dev));
    b.dma.trace.take();
    b.dma
        .dma_sync_single_for_cpu(&mut b.m, b.dev, DmaAddr(a), 64, FromDevice);
    assert_eq!(b.dma.trace.take().len(), 1);
    b.dma
        .dma_sync_single_for_cpu(&mut b.m, b.dev, DmaAddr(a), 4096, FromDevice);
    assert_eq!(b.dma.warnings().count(WarningKind::SwiotlbLength), 1);
}

#[test]
fn padding_of_untrusted_devices_is_zero() {
    use crate::machine::Machine;
    let mut b = strict(Device {
        untrusted: true,
        ..device()
    })
    .pool(false);
    b.m.mem_write(PhysAddr(POOL), &[0xee; 8192]);
    b.m.mem_write(PhysAddr(RAM), &[0x11; 4096]);
    b.map(RAM + 0x100, 0x80, ToDevice, NONE).unwrap();
    let page = b.m.cpu_read(POOL, 4096);
    assert_eq!(page.iter().filter(|x| **x == 0x11).count(), 0x80);
    assert_eq!(page.iter().filter(|x| **x == 0).count(), 4096 - 0x80);
}

/// B5: nothing is reused before the flush; the timer, a full ring and a call flush.
#[test]
fn flush_queue() {
    let lazy = || Bench::new(Config::default(), device(), Attach::Lazy);
    let mut b = lazy();
    let a = b.map(RAM, 4096, FromDevice, NONE).unwrap();
    b.m.take();
    b.unmap(a, 4096, FromDevice, NONE);
    assert_eq!(letters(&b.m.take()), "U");
    assert_eq!(b.dma.draining().len(), 1);
    assert_eq!(b.map(RAM, 4096, FromDevice, NONE), Ok(a - 4096));
    b.m.take();
    b.m.time = 999_999;
    b.dma.tick(&mut b.m);
    assert_eq!(b.dma.queued(), 1);
    b.m.time = 1_000_000;
    b.dma.tick(&mut b.m);
    assert_eq!(letters(&b.m.take()), "F");
    assert_eq!((b.dma.queued(), b.dma.draining().len()), (0, 0));
    assert_eq!(b.map(RAM, 4096, FromDevice, NONE), Ok(a));

    let mut b = lazy();
    for i in 0..256 {
        assert_eq!(b.dma.queued(), i);
        let a = b.map(RAM, 4096, FromDevice, NONE).unwrap();
        b.unmap(a, 4096, FromDevice, NONE);
        let full = i == 255;
        assert_eq!(b.m.take().contains(&Op::FlushAll), full);
        if full {
            assert_eq!(b.dma.queued(), 1);
        }
    }
    b.dma.flush_queues(&mut b.m);
    assert_eq!(b.dma.queued(), 0);
    let events = b.dma.trace.take();
    assert!(matches!(events.last(), Some(Event::FlushAll { .. })));
}

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

/// Two endpoints below a switch below root port 00:02.0, and one below root port 00:03.0.
fn topology(m: &mut FakeMachine, id: u32) {
    m.add_bridge(Bdf::new(0, 2, 0), id, 4, (1, 4), Some(0));
    m.add_bridge(Bdf::new(1, 0, 0), 0x1234_1234, 5, (2, 4), None);
    m.add_bridge(Bdf::new(2, 0, 0), 0x1234_1234, 6, (3, 3), Some(0));
    m.add_bridge(Bdf::new(2, 1, 0), 0x1234_1234, 6, (4, 4), Some(0));
    m.add_function(Bdf::new(3, 0, 0), 0x1234_1234, None);
    m.add_function(Bdf::new(4, 0, 0), 0x1234_1234, None);
    m.add_bridge(Bdf::new(0, 3, 0), id, 4, (5, 5), Some(0));
    m.add_function(Bdf::new(5, 0, 0), 0x1234_1234, None);
}

fn peer(pages: bool) -> Provider {
    Provider {
        owner: Bdf::new(3, 0, 0),
        range: Range::sized(BAR, 0x10_0000),
        bus_offset: 0u64.wrapping_sub(0x1000_0000),
        pages,
    }
}

/// A6: how peers reach each other.
#[test]
fn p2p_table() {
    const LISTED: u32 = 0x0001_1ae0;
    const SAME_ONLY: u32 = 0x3c00_8086;
    const OTHER: u32 = 0x0001_1b36;
    let (own, near, far) = (Bdf::new(3, 0, 0), Bdf::new(4, 0, 0), Bdf::new(5, 0, 0));
    let (dsp, usp_root) = (Bdf::new(2, 1, 0), Bdf::new(0, 2, 0));
    use HostBridgePolicy::{AllowList, Any};
    use MapType::{BusAddr, NotSupported, ThruHostBridge};
    for (id, client, acs, bridge, policy, want, distance) in [
        ("A6.1", own, None, OTHER, AllowList, BusAddr, 0),
        ("A6.2", near, None, OTHER, AllowList, BusAddr, 4),
        (
            "A6.3",
            near,
            Some((dsp, 0x04)),
            LISTED,
            AllowList,
            ThruHostBridge,
            4,
        ),
        (
            "A6.3",
            near,
            Some((dsp, 0x08)),
            LISTED,
            AllowList,
            ThruHostBridge,
            4,
        ),
        (
            "A6.3",
            near,
            Some((dsp, 0x20)),
            LISTED,
            AllowList,
            ThruHostBridge,
            4,
        ),
        (
            "A6.4",
            near,
            Some((dsp, 0x04)),
            OTHER,
            AllowList,
            NotSupported,
            4,
        ),
        ("A6.6", far, None, SAME_ONLY, AllowList, ThruHostBridge, 6),
        ("A6.9", far, None, OTHER, Any, ThruHostBridge, 6),
        ("A6.11", far, None, OTHER, AllowList, NotSupported, 6),
        (
            "A6.12",
            near,
            Some((dsp, 0x53)),
            OTHER,
            AllowList,
            BusAddr,
            4,
        ),
        (
            "above",
            near,
            Some((usp_root, 0x04)),
            OTHER,
            AllowList,
            BusAddr,
            4,
        ),
    ] {
        let mut b = Bench::new(Config::default(), device(), Attach::Direct);
        topology(&mut b.m, bridge);
        if let Some((port, control)) = acs {
            b.m.set_acs(port, control);
        }
        b.dma.p2pdma.policy = policy;
        let p = b.dma.p2pdma.add(peer(true));
        let reach = b.dma.p2pdma.distance(&mut b.m, p, client).unwrap();
        assert_eq!((reach.map, reach.distance), (want, distance), "{id}");
        // The type is kept until the distance is asked for again.
        b.m.set_acs(dsp, 0x04);
        assert_eq!(b.dma.p2pdma.map_type(&mut b.m, p, client), want, "{id}");
    }
    // A6.5: redirect on the common upstream port only.
    let mut m = FakeMachine::default();
    topology(&mut m, LISTED);
    m.add_bridge(Bdf::new(1, 0, 0), 0x1234_1234, 5, (2, 4), Some(0x04));
    let mut p2p = crate::p2pdma::P2pdma::default();
    let p = p2p.add(peer(true));
    assert_eq!(p2p.map_type(&mut m, p, near), ThruHostBridge);
    // A6.7, A6.8: two host bridges.
    for (bridge, want) in [(SAME_ONLY, NotSupported), (0x2030_8086, ThruHostBridge)] {
        let mut m = FakeMachine::default();
        topology(&mut m, bridge);
        m.add_bridge(Bdf::new(0x80, 0, 0), bridge, 4, (0x81, 0x81), None);
        m.add_function(Bdf::new(0x81, 0, 0), 0x1234_1234, None);
        let mut p2p = crate::p2pdma::P2pdma::default();
        p2p.root_buses.push(0x80);
        let p = p2p.add(peer(true));
        assert_eq!(p2p.map_type(&mut m, p, Bdf::new(0x81, 0, 0)), want);
    }
    // The first device of the root bus is neither 00.0 nor a root port.
    let mut m = FakeMachine::default();
    topology(&mut m, LISTED);
    m.add_function(Bdf::new(0, 1, 0), LISTED, None);
    let mut p2p = crate::p2pdma::P2pdma::default();
    let p = p2p.add(peer(true));
    assert_eq!(p2p.map_type(&mut m, p, far), NotSupported);
}

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
fn coherent_memory() {
    for (attach, coherent, prot) in [
        (Attach::Direct, true, None),
        (
            Attach::Strict,
            true,
            Some(Prot::READ | Prot::WRITE | Prot::CACHE),
        ),
        (Attach::Lazy, false, Some(Prot::READ | Prot::WRITE)),
    ] {
        let mut b = Bench::new(
            Config::default(),
            Device {
                coherent,
                ..device()
            },
            attach,
        );
        assert_eq!(
            b.dma.dma_alloc_coherent(&mut b.m, b.dev, 100),
            Err(MapError::NoMemory)
        );
        b.dma
            .set_pages(Box::new(PagePool::new(Range::sized(RAM, 0x10_0000))));
        let c = b.dma.dma_alloc_coherent(&mut b.m, b.dev, 6726).unwrap();
        assert_eq!(c.uncached, !coherent);
        if let Some(prot) = prot {
            assert_eq!(c.dma, DmaAddr(0xffff_e000));
            assert_eq!(
                b.dma.iommu().unwrap().pages[&(1, 0xffffe)],
                (c.phys.0, prot)
            );
        }
        assert_eq!(b.dma.describe(b.dev, c.dma).unwrap().api, Api::Coherent);
        b.dma.dma_free_attrs(&mut b.m, b.dev, c, NONE);
        b.dma.dma_free_attrs(&mut b.m, b.dev, c, NONE);
        assert_eq!(b.dma.warnings().count(WarningKind::FreeUnknown), 1);
        assert!(b.dma.iommu().unwrap().pages.is_empty());
        let at = PhysAddr(RAM + 0x50_0000);
        assert_eq!(
            b.dma
                .dma_alloc_at(&mut b.m, b.dev, at, 512, NONE)
                .unwrap()
                .phys,
            at
        );
        assert!(
            b.dma
                .dma_alloc_at(&mut b.m, b.dev, PhysAddr(BAR), 512, NONE)
                .is_err()
        );
    }
}

#[test]
fn limits() {
    let b = strict(device());
    assert_eq!(b.dma.dma_opt_mapping_size(b.dev), 128 << 10);
    assert_eq!(b.dma.dma_get_merge_boundary(b.dev), 4095);
    assert_eq!(b.dma.dma_max_mapping_size(b.dev), u64::MAX);
    let b = strict(Device {
        untrusted: true,
        min_align_mask: 4095,
        ..device()
    });
    assert_eq!(b.dma.dma_max_mapping_size(b.dev), (256 << 10) - 4096);
    let mut b = Bench::new(Config::default(), device(), Attach::Direct).pool(true);
    assert_eq!(b.dma.dma_max_mapping_size(b.dev), 256 << 10);
    assert_eq!(b.dma.dma_get_merge_boundary(b.dev), 0);
    let e = b.map(RAM, (256 << 10) + 1, ToDevice, NONE);
    assert_eq!(e, Err(MapError::SwiotlbFull((256 << 10) + 1)));
    assert_eq!(b.dma.warnings().count(WarningKind::SwiotlbFull), 1);
    b.map(RAM, (256 << 10) + 1, ToDevice, Attrs::NO_WARN)
        .unwrap_err();
    assert_eq!(b.dma.warnings().count(WarningKind::SwiotlbFull), 1);
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

/// Lines as a kernel prints them.
#[test]
fn prints_as_the_kernel() {
    let mut b = strict(device());
    let a = b.map(BAR + 0x69000, 16384, ToDevice, Attrs::MMIO).unwrap();
    b.unmap(a, 16384, ToDevice, Attrs::MMIO);
    let lines: Vec<String> = b.dma.trace.take().iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "iova_alloc: domain=1 size=16384 limit=0xffffffffffffffff dev=\"0000:01:00.0\" iova=0xffffc000",
            "map: IOMMU: iova=0x00000000ffffc000 - 0x0000000100000000 paddr=0x0000000040069000 size=16384 prot=0x11 domain=1",
            "dma_map_phys: 0000:01:00.0 dir=TO_DEVICE dma_addr=ffffc000 size=16384 phys_addr=40069000 attrs=MMIO",
            "unmap: IOMMU: iova=0x00000000ffffc000 - 0x0000000100000000 size=16384 unmapped_size=16384 domain=1",
            "iotlb_sync: domain=1 [0xffffc000-0xffffffff]",
            "iova_dofree: domain=1 iova=0xffffc000 size=16384",
            "dma_unmap_phys: 0000:01:00.0 dir=TO_DEVICE dma_addr=ffffc000 size=16384 attrs=MMIO",
        ]
    );
}
