//! Limits and masks.

use super::*;
use crate::testing::bench::*;

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

/// Without an IOMMU a mask below 32 bits must reach all of main memory.
#[test]
fn masks() {
    for (attach, narrow) in [(Attach::Direct, false), (Attach::Strict, true)] {
        let mut b = Bench::new(Config::default(), device(), attach);
        let dev = b.dev;
        for set in [Dma::dma_set_mask, Dma::dma_set_coherent_mask] {
            assert_eq!(set(&mut b.dma, dev, 0xffff_ffff), Ok(()));
            let low = set(&mut b.dma, dev, 0x3fff_ffff);
            assert_eq!(low.is_ok(), narrow);
            if let Err(e) = low {
                assert_eq!((e, e.errno()), (MapError::MaskTooSmall(0x3fff_ffff), -5));
            }
        }
        assert!(!b.dma.dma_addressing_limited(dev) || narrow);
        b.dma.device_mut(b.dev).unwrap().bus_dma_limit = 0xbfff_ffff;
        assert!(b.dma.dma_addressing_limited(dev));
        b.dma.device_mut(b.dev).unwrap().dma_mask = None;
        assert_eq!(b.dma.dma_set_mask(dev, u64::MAX), Err(MapError::NoMask));
    }
    let mut b = Bench::new(Config::default(), device(), Attach::Direct).pool(false);
    assert_eq!(b.dma.dma_max_mapping_size(b.dev), u64::MAX);
    b.dma.device_mut(b.dev).unwrap().bus_dma_limit = 0xbfff_ffff;
    assert_eq!(b.dma.dma_max_mapping_size(b.dev), 256 << 10);
    let b = Bench::new(Config::default(), device(), Attach::Xen).pool(false);
    assert_eq!(b.dma.dma_max_mapping_size(b.dev), 256 << 10);
}

/// What the bridge does not let in must not be an IOVA.
#[test]
fn gaps_of_dma_ranges_are_reserved() {
    let range = |dma, size| DmaRange {
        cpu_start: PhysAddr(dma),
        dma_start: DmaAddr(dma),
        size,
    };
    let d = Device {
        dma_ranges: vec![range(0x9000_0000, 0x2000), range(0x8000_0000, 0x1000)],
        ..device()
    };
    assert_eq!(
        d.dma_range_gaps(),
        [
            (0, 0x7fff_ffff),
            (0x8000_1000, 0x8fff_ffff),
            (0x9000_2000, u64::MAX)
        ]
    );
    assert_eq!(device().dma_range_gaps(), []);
    let mut b = strict(d);
    assert_eq!(b.map(RAM, 4096, ToDevice, NONE), Ok(0x9000_1000));
    assert_eq!(b.map(RAM, 4096, ToDevice, NONE), Ok(0x9000_0000));
    assert_eq!(b.map(RAM, 4096, ToDevice, NONE), Ok(0x8000_0000));
    assert_eq!(b.map(RAM, 4096, ToDevice, NONE), Err(MapError::NoIova));
}

/// The record of a mapping goes without a call where none is needed, and only there.
#[test]
fn what_needs_no_unmap() {
    for (attach, coherent, gone) in [
        (Attach::Direct, true, true),
        (Attach::Direct, false, false),
        (Attach::Strict, true, false),
    ] {
        let device = Device {
            coherent,
            ..device()
        };
        let mut b = Bench::new(Config::default(), device, attach);
        let dma = DmaAddr(b.map(RAM, 64, ToDevice, NONE).unwrap());
        assert_eq!(b.dma.dma_unmap_not_needed(b.dev, dma, 64, ToDevice), gone);
        assert_eq!(b.dma.live().count(), usize::from(!gone));
        assert!(!gone || !b.dma.dma_unmap_not_needed(b.dev, dma, 64, ToDevice));
    }
}
