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
