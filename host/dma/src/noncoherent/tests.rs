use super::*;
use crate::{debug::Options, testing::bench::*};

fn bench(device: Device, attach: Attach, pages: u64) -> Bench {
    let config = Config {
        debug: Some(Options {
            all_errors: true,
            ..Options::default()
        }),
        ..Config::default()
    };
    let mut b = Bench::new(config, device, attach);
    let pool = crate::pages::PagePool::new(Range::sized(RAM, pages * PAGE));
    b.dma.set_pages(Box::new(pool));
    b
}

impl Bench {
    fn complaints(&self) -> Vec<u8> {
        let log = &self.dma.debug().unwrap().log;
        log.shown().iter().map(|c| c.report.number()).collect()
    }
}

#[test]
fn pages() {
    for attach in [Attach::Direct, Attach::Strict] {
        for (coherent, prot) in [(true, 0x07), (false, 0x03)] {
            let d = Device {
                coherent,
                ..device()
            };
            let mut b = bench(d, attach, 4);
            let p = b
                .dma
                .dma_alloc_pages(&mut b.m, b.dev, 5000, Bidirectional)
                .unwrap();
            assert_eq!(b.m.cpu_read(p.phys.0, 5000), vec![0; 5000]);
            // The zeros are the CPU's.
            assert!(!letters(&b.m.take()).contains('c'));
            if attach == Attach::Strict {
                let tables = &b.dma.iommu().unwrap().pages;
                let entry = tables[&(1, p.dma.0 >> 12)];
                assert_eq!((entry.0, entry.1.bits()), (p.phys.0, prot));
                assert_eq!(tables.len(), 2);
            } else {
                assert_eq!(p.dma.0, p.phys.0);
            }
            assert_eq!(b.dma.describe(b.dev, p.dma).unwrap().size, 5000);
            b.dma
                .dma_sync_single_for_device(&mut b.m, b.dev, p.dma, 5000, Bidirectional);
            b.dma.dma_free_pages(&mut b.m, b.dev, p);
            assert_eq!(b.complaints(), []);
            assert!(b.dma.iommu().unwrap().pages.is_empty());
            // All four pages are there again.
            let all = b
                .dma
                .dma_alloc_pages(&mut b.m, b.dev, 4 * PAGE, ToDevice)
                .unwrap();
            // Twice is D4, as coherent memory D6.
            b.dma.dma_free_pages(&mut b.m, b.dev, all);
            b.dma.dma_free_pages(&mut b.m, b.dev, all);
            assert_eq!(b.complaints(), [4]);
            let p = b
                .dma
                .dma_alloc_pages(&mut b.m, b.dev, 64, Bidirectional)
                .unwrap();
            b.unmap(p.dma.0, 64, Bidirectional, NONE);
            assert_eq!(b.complaints(), [4, 6]);
        }
    }
}

#[test]
fn failures_leave_nothing_behind() {
    let mut b = bench(device(), Attach::Strict, 4);
    let (m, dev) = (&mut b.m, b.dev);
    let none = b.dma.dma_alloc_pages(m, dev, 0, ToDevice);
    assert_eq!(none, Err(MapError::ZeroSize));
    let none = b.dma.dma_alloc_pages(m, dev, 5 * PAGE, ToDevice);
    assert_eq!(none, Err(MapError::NoMemory));
    let none = b
        .dma
        .dma_alloc_noncontiguous(m, dev, 5 * PAGE, ToDevice, NONE);
    assert_eq!(none, Err(MapError::NoMemory));
    b.dma.iommu_mut().unwrap().broken = true;
    assert!(b.dma.dma_alloc_pages(m, dev, 4 * PAGE, ToDevice).is_err());
    assert!(
        b.dma
            .dma_alloc_noncontiguous(m, dev, 4 * PAGE, ToDevice, NONE)
            .is_err()
    );
    b.dma.iommu_mut().unwrap().broken = false;
    assert_eq!(b.dma.live().count(), 0);
    assert!(b.dma.dma_alloc_pages(m, dev, 4 * PAGE, ToDevice).is_ok());

    // Beyond the mask there is nothing.
    let d = Device {
        coherent_dma_mask: 0xffff_ffff >> 1,
        ..device()
    };
    let mut b = bench(d, Attach::Direct, 4);
    let none = b.dma.dma_alloc_pages(&mut b.m, b.dev, PAGE, ToDevice);
    assert_eq!(none, Err(MapError::NoMemory));
}

/// Pages from anywhere are one range for the device.
#[test]
fn noncontiguous_memory() {
    let mut b = bench(device(), Attach::Strict, 4);
    let (m, dev) = (&mut b.m, b.dev);
    // Pages 0 and 2 are left.
    let p: Vec<_> = (0..4)
        .map(|_| b.dma.dma_alloc_pages(m, dev, PAGE, ToDevice).unwrap())
        .collect();
    b.dma.dma_free_pages(m, dev, p[0]);
    b.dma.dma_free_pages(m, dev, p[2]);
    let c = b
        .dma
        .dma_alloc_noncontiguous(m, dev, 5000, FromDevice, NONE)
        .unwrap();
    let buffers: Vec<_> = c.sg.iter().map(|s| (s.phys.0, s.length)).collect();
    assert_eq!(buffers, [(RAM, PAGE), (RAM + 0x2000, PAGE)]);
    let at = c.dma().0 >> 12;
    let tables = &b.dma.iommu().unwrap().pages;
    assert_eq!(tables[&(1, at)].0, RAM);
    assert_eq!(tables[&(1, at + 1)].0, RAM + 0x2000);
    assert_eq!(tables[&(1, at)].1.bits(), 0x06);
    let promise = b.dma.describe(dev, c.dma()).unwrap();
    assert_eq!(promise.size, 5000);
    let inside = c.dma().offset(4999);
    assert_eq!(promise.target(inside), Some(PhysAddr(RAM + 0x2000 + 903)));
    assert_eq!(b.dma.debug().unwrap().len(), 3);
    b.dma.dma_free_noncontiguous(m, dev, c);
    assert_eq!(b.dma.debug().unwrap().len(), 2);
    assert_eq!(b.dma.iommu().unwrap().pages.len(), 2);
    assert_eq!(b.complaints(), []);

    // Without an IOMMU it is one block.
    let mut b = bench(device(), Attach::Direct, 4);
    let (m, dev) = (&mut b.m, b.dev);
    let c = b
        .dma
        .dma_alloc_noncontiguous(m, dev, 3 * PAGE, FromDevice, NONE)
        .unwrap();
    assert_eq!((c.sg.len(), c.dma().0), (1, RAM));
    b.dma.dma_free_noncontiguous(m, dev, c);
    assert!(b.dma.debug().unwrap().is_empty());
    assert_eq!(b.complaints(), []);
}
