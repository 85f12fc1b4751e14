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
        b.dma.dma_free_attrs(&mut b.m, b.dev, c, NONE);
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
