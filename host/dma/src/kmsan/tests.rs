use super::*;
use crate::{SgEntry, pages::PagePool, testing::bench::*};

fn bench(device: Device, attach: Attach) -> Bench {
    let config = Config {
        kmsan: true,
        ..Config::default()
    };
    Bench::new(config, device, attach)
}

fn translated() -> Bench {
    bench(device(), Attach::Strict)
}

impl Bench {
    fn poison(&mut self, phys: u64, size: u64) {
        self.dma.kmsan_poison(PhysAddr(phys), size);
    }

    /// Whether a byte is uninitialised.
    fn holes(&self, phys: u64, size: u64) -> Vec<(u64, u64)> {
        let kmsan = self.dma.kmsan().unwrap();
        kmsan.runs(phys, phys + size - 1).collect()
    }

    fn count(&self) -> u64 {
        self.dma.kmsan().unwrap().count()
    }
}

#[test]
fn directions() {
    for (dir, reports, holes) in [
        (ToDevice, 1, &[(RAM + 0x10, RAM + 0x1f)][..]),
        (FromDevice, 0, &[]),
        (Bidirectional, 1, &[]),
    ] {
        for attach in [Attach::Direct, Attach::Strict] {
            let mut b = bench(device(), attach);
            b.poison(RAM + 0x10, 0x10);
            b.map(RAM, 64, dir, NONE).unwrap();
            assert_eq!(b.count(), reports);
            assert_eq!(b.holes(RAM, 64), holes);
        }
    }
}

#[test]
fn only_what_is_mapped_counts() {
    let mut b = translated();
    b.poison(RAM, 0x100);
    // Before, behind, and after the driver has written.
    b.map(RAM - 64, 64, ToDevice, NONE).unwrap_or(0);
    b.map(RAM + 0x100, 64, ToDevice, NONE).unwrap();
    b.dma.cpu_write(&mut b.m, PhysAddr(RAM), &[7; 64]);
    b.map(RAM, 64, ToDevice, NONE).unwrap();
    assert_eq!(b.count(), 0);
    assert_eq!(b.m.cpu_read(RAM, 2), [7, 7]);
    // One byte too many.
    b.map(RAM, 65, ToDevice, NONE).unwrap();
    assert_eq!(b.count(), 1);
    // What the device wrote may go out again.
    b.map(RAM, 0x100, FromDevice, NONE).unwrap();
    b.map(RAM, 0x100, ToDevice, NONE).unwrap();
    assert_eq!(b.count(), 1);
}

#[test]
fn a_report_a_run_and_page() {
    let mut b = translated();
    b.poison(RAM + 0xff0, 0x20);
    b.poison(RAM + 0x1020, 1);
    b.map(RAM + 0xf00, 0x200, ToDevice, NONE).unwrap();
    let at = |start, size, first, last| UninitValue {
        start: PhysAddr(start),
        size,
        first,
        last,
    };
    assert_eq!(
        b.dma.kmsan().unwrap().reports(),
        [
            at(RAM + 0xf00, 0x100, 0xf0, 0xff),
            at(RAM + 0x1000, 0x100, 0, 15),
            at(RAM + 0x1000, 0x100, 32, 32),
        ]
    );
    assert_eq!(
        b.dma.kmsan().unwrap().reports()[0].to_string(),
        "BUG: KMSAN: uninit-value in kmsan_handle_dma: bytes 240-255 of 256 are uninitialized, \
         memory access of size 256 starts at 0x80000f00"
    );
}

#[test]
fn device_memory_is_never_touched() {
    let mut b = translated();
    b.poison(BAR, 0x1000);
    let whole = [(BAR, BAR + 0xfff)];
    for dir in [ToDevice, FromDevice, Bidirectional] {
        b.map(BAR, 0x1000, dir, Attrs::MMIO).unwrap();
        b.dma
            .dma_map_resource(&mut b.m, b.dev, PhysAddr(BAR), 0x1000, dir, NONE)
            .unwrap();
    }
    assert_eq!((b.count(), b.holes(BAR, 0x1000)), (0, whole.to_vec()));
    b.map(BAR, 0x1000, ToDevice, NONE).unwrap();
    assert_eq!(b.count(), 1);
}

/// Step 5 comes although the mapping failed; what is refused before never gets there.
#[test]
fn failed_mappings() {
    let mut b = translated();
    b.poison(RAM, 64);
    b.dma.iommu_mut().unwrap().broken = true;
    assert!(b.map(RAM, 64, Bidirectional, NONE).is_err());
    assert_eq!((b.count(), b.holes(RAM, 64).len()), (1, 0));

    let mut b = translated();
    b.poison(RAM, 64);
    assert!(b.map(RAM, 64, Bidirectional, Attrs::CC_SHARED).is_err());
    assert_eq!((b.count(), b.holes(RAM, 64).len()), (0, 1));
}

/// A list: every buffer, a peer's as well, and only when the mapping came about.
#[test]
fn lists() {
    for broken in [false, true] {
        let mut b = translated();
        topology(&mut b.m, 0x1ae0_1ae0);
        b.dma.p2pdma.add(peer(true));
        b.poison(RAM, 64);
        b.poison(RAM + 0x4000, 64);
        b.poison(BAR, 64);
        b.dma.iommu_mut().unwrap().broken = broken;
        let buffers = [RAM, RAM + 0x4000, BAR];
        let mut sg = buffers.map(|p| SgEntry::new(PhysAddr(p), 64));
        let d = Device::new(Bdf::new(5, 0, 0));
        let dev = b.dma.add_device(&mut b.m, d, Attach::Strict).unwrap();
        let mapped = b
            .dma
            .dma_map_sg(&mut b.m, dev, &mut sg, Bidirectional, NONE);
        assert_eq!(mapped.is_err(), broken, "{mapped:?}");
        assert_eq!(b.count(), if broken { 0 } else { 3 });
        assert_eq!(b.holes(RAM, 64).is_empty(), !broken);
    }
}

#[test]
fn two_step_mappings_are_not_checked() {
    let mut b = translated();
    b.poison(RAM, 4096);
    let (m, dev) = (&mut b.m, b.dev);
    let mut state = b.dma.dma_iova_try_alloc(dev, PhysAddr(RAM), 4096).unwrap();
    b.dma
        .dma_iova_link(
            m,
            dev,
            &mut state,
            PhysAddr(RAM),
            0,
            4096,
            Bidirectional,
            NONE,
        )
        .unwrap();
    assert_eq!((b.count(), b.holes(RAM, 4096).len()), (0, 1));
    // Nor is what a driver does that bypasses the API, unless it says so.
    b.dma.kmsan_handle_dma(PhysAddr(RAM), 4096, Bidirectional);
    assert_eq!((b.count(), b.holes(RAM, 4096).len()), (1, 0));
}

/// The shadow goes through the bounce slot: in with the copy, out as written by the device.
#[test]
fn bounced() {
    let slot = |b: &mut Bench, dir| {
        b.poison(RAM + 0x10, 0x10);
        let a = b.map(RAM, 64, dir, NONE).unwrap();
        let holes = b.holes(a, 64);
        assert_eq!(holes, [(a + 0x10, a + 0x1f)]);
        a
    };
    let mut b = bench(device(), Attach::Direct).pool(true);
    let a = slot(&mut b, ToDevice);
    b.unmap(a, 64, ToDevice, NONE);
    assert_eq!((b.count(), b.holes(RAM, 64).len()), (1, 1));
    // The slot is used again, by initialised bytes.
    b.dma.cpu_write(&mut b.m, PhysAddr(RAM), &[1; 64]);
    let a = b.map(RAM, 64, ToDevice, NONE).unwrap();
    assert_eq!((b.count(), b.holes(a, 64).len()), (1, 0));
    b.unmap(a, 64, ToDevice, NONE);

    let mut b = bench(device(), Attach::Direct).pool(true);
    let a = slot(&mut b, FromDevice);
    assert_eq!(b.holes(RAM, 64), []);
    b.unmap(a, 64, FromDevice, NONE);
    assert_eq!((b.count(), b.holes(RAM, 64).len()), (0, 0));

    // Through a link nothing is checked, and the copy out initialises.
    let d = Device {
        untrusted: true,
        min_align_mask: 0xfff,
        ..device()
    };
    let mut b = bench(d, Attach::Strict).pool(false);
    b.poison(RAM + 0x200, 0x100);
    let (m, dev, phys) = (&mut b.m, b.dev, PhysAddr(RAM + 0x200));
    let mut state = b.dma.dma_iova_try_alloc(dev, phys, 0x100).unwrap();
    b.dma
        .dma_iova_link(m, dev, &mut state, phys, 0, 0x100, FromDevice, NONE)
        .unwrap();
    assert_eq!((b.count(), b.holes(RAM + 0x200, 0x100).len()), (0, 1));
    b.dma
        .dma_iova_destroy(&mut b.m, dev, &mut state, 0x100, FromDevice, NONE);
    assert_eq!((b.count(), b.holes(RAM + 0x200, 0x100).len()), (0, 0));
}

/// An untrusted device gets zeros around its slot.
#[test]
fn padding_is_initialised() {
    let d = Device {
        untrusted: true,
        ..device()
    };
    let mut b = bench(d, Attach::Strict).pool(false);
    b.poison(POOL, 1 << 20);
    b.map(RAM + 0x200, 64, ToDevice, NONE).unwrap();
    let slot = b
        .dma
        .live()
        .find_map(|l| l.segments.first().map(|s| s.target.0))
        .unwrap();
    assert_eq!(b.holes(slot & !0xfff, 0x1000), []);
    assert!(!b.holes(POOL, 1 << 20).is_empty());
}

#[test]
fn coherent_memory_is_zeroed() {
    let mut b = translated();
    b.poison(RAM, 0x1000);
    b.dma
        .set_pages(Box::new(PagePool::new(Range::sized(RAM, 0x1000))));
    b.dma.dma_alloc_coherent(&mut b.m, b.dev, 100).unwrap();
    assert_eq!(b.holes(RAM, 0x1000), []);
}

#[test]
fn off_by_default() {
    let mut b = strict(device());
    b.poison(RAM, 64);
    b.map(RAM, 64, ToDevice, NONE).unwrap();
    assert!(b.dma.kmsan().is_none());
}

proptest::proptest! {
    /// The runs say of every byte what a plain list of bytes says.
    #[test]
    fn runs_are_bytes(ops in proptest::collection::vec((0u64..40, 0u64..40, 0u8..3, 0u64..40), 0..60)) {
        let mut b = translated();
        let mut bytes = [false; 128];
        for (first, len, what, to) in ops {
            let (f, l) = (first as usize, len as usize);
            match what {
                0 => {
                    b.dma.kmsan_poison(PhysAddr(first), len);
                    bytes[f..f + l].fill(true);
                }
                1 => {
                    b.dma.kmsan_unpoison(PhysAddr(first), len);
                    bytes[f..f + l].fill(false);
                }
                _ => {
                    b.dma.kmsan_copy(PhysAddr(first), PhysAddr(to), len);
                    bytes.copy_within(f..f + l, to as usize);
                }
            }
            for (i, poisoned) in bytes.iter().enumerate() {
                proptest::prop_assert_eq!(!b.holes(i as u64, 1).is_empty(), *poisoned, "{}", i);
            }
        }
    }
}
