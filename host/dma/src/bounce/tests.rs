//! What is copied when, and what is zeroed.

use super::*;
use crate::testing::bench::*;

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
