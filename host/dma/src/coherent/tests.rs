//! Coherent memory.

use super::*;
use crate::testing::bench::*;

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
        assert!(b.dma.warnings().is_empty());
        b.dma.dma_free_attrs(&mut b.m, b.dev, c, NONE);
        assert_eq!(b.dma.warnings().count(WarningKind::NotMapped), 1);
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

/// Hints of an allocation, which is one run of memory whatever they say.
#[test]
fn hints() {
    for attrs in [
        Attrs::FORCE_CONTIGUOUS,
        Attrs::ALLOC_SINGLE_PAGES,
        Attrs::NO_WARN,
        Attrs::WEAK_ORDERING,
    ] {
        let mut b = strict(device());
        let pages = PagePool::new(Range::sized(RAM, 0x10_0000));
        b.dma.set_pages(Box::new(pages));
        let c = b.dma.dma_alloc_attrs(&mut b.m, b.dev, 0x3000, attrs);
        let c = c.unwrap();
        let promise = b.dma.describe(b.dev, c.dma).unwrap();
        assert_eq!(promise.segments.len(), 1, "{attrs}");
        let prots = b.dma.iommu().unwrap().pages.values();
        let prots: Vec<_> = prots.map(|(_, prot)| prot.bits()).collect();
        assert_eq!(prots, [7; 3], "{attrs}");
        b.dma.dma_free_attrs(&mut b.m, b.dev, c, attrs);
        assert_eq!(b.dma.live().count(), 0);
        assert!(b.dma.warnings().is_empty(), "{attrs}");
    }
}

/// What the CPU gets, by the attributes; the cookie of `NO_KERNEL_MAPPING` is no address.
#[test]
fn cpu_mappings() {
    use CpuMapping::{Cached, None as NoMapping, Uncached, WriteCombine};
    let (wc, nomap) = (Attrs::WRITE_COMBINE, Attrs::NO_KERNEL_MAPPING);
    for (attach, coherent, force, attrs, want) in [
        (Attach::Direct, true, false, NONE, Cached),
        (Attach::Direct, true, false, wc, Cached),
        (Attach::Strict, false, false, NONE, Uncached),
        (Attach::Strict, false, false, wc, WriteCombine),
        (Attach::Direct, true, false, nomap, NoMapping),
        (Attach::Direct, true, true, nomap, Cached),
        (Attach::Strict, true, false, nomap, Cached),
    ] {
        let d = Device {
            coherent,
            force_bounce: force,
            ..device()
        };
        let mut b = Bench::new(Config::default(), d, attach);
        let pages = PagePool::new(Range::sized(RAM, 0x10_0000));
        b.dma.set_pages(Box::new(pages));
        let c = b.dma.dma_alloc_attrs(&mut b.m, b.dev, 64, attrs).unwrap();
        assert_eq!(c.mapping, want, "{attach:?} {attrs}");
        let written = c.write(&mut b.m, 0, &[1]);
        let refused = (want == NoMapping).then_some(MapError::NoKernelMapping);
        assert_eq!(written.err(), refused);
        b.dma.dma_free_attrs(&mut b.m, b.dev, c, attrs);
        assert_eq!(b.dma.live().count(), 0);
    }
}

/// Allocations are decrypted where everything is bounced, and contiguous for the machine in a guest.
#[test]
fn addresses_without_translation() {
    const BIT: u64 = 1 << 47;
    for (force_bounce, want) in [(false, RAM | BIT), (true, RAM)] {
        let d = Device {
            memory_encryption: BIT,
            force_bounce,
            ..device()
        };
        let mut b = Bench::new(Config::default(), d, Attach::Direct);
        let at = b.dma.dma_alloc_at(&mut b.m, b.dev, PhysAddr(RAM), 64, NONE);
        assert_eq!(at.unwrap().dma, DmaAddr(want));
    }
    let mut b = Bench::new(Config::default(), device(), Attach::Xen);
    b.dma.frames.exchange(PhysAddr(RAM), PhysAddr(RAM + 0x9000));
    let at = b.dma.dma_alloc_at(&mut b.m, b.dev, PhysAddr(RAM), 64, NONE);
    let at = at.unwrap();
    assert_eq!(at.dma, DmaAddr(RAM + 0x9000));
    let promise = b.dma.describe(b.dev, at.dma).unwrap();
    assert_eq!(promise.segments[0].target, PhysAddr(RAM + 0x9000));
    let two = b
        .dma
        .dma_alloc_at(&mut b.m, b.dev, PhysAddr(RAM), 8192, NONE);
    assert_eq!(two, Err(MapError::NoMemory));
}
