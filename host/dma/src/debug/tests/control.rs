//! What is shown, and what the tracker changes by being there.

use super::*;

#[test]
fn what_is_shown() {
    // One error, and all are counted.
    let mut b = bench(Some(Options::default()), nvme(), Attach::Direct);
    b.unmap(RAM, 64, ToDevice, NONE);
    b.unmap(RAM + 64, 64, ToDevice, NONE);
    b.expect(&[4]);
    assert_eq!(b.debug().log.error_count, 2);
    assert_eq!(
        b.debug().log.shown()[0].to_string(),
        "DMA-API: nvme 0000:01:00.0: device driver tries to free DMA memory it has not allocated \
         [device address=0x0000000080000000] [size=64 bytes]"
    );
    b.dma.debug_mut().unwrap().log.num_errors = 2;
    b.unmap(RAM, 64, ToDevice, NONE);
    b.dma.debug_mut().unwrap().log.all_errors = true;
    for _ in 0..3 {
        b.unmap(RAM, 64, ToDevice, NONE);
    }
    b.expect(&[4; 5]);

    // The filter; what it holds back is counted, and uses up the limit.
    for (driver, shown) in [("nvme", 1), ("e1000e", 0)] {
        let options = Options {
            driver_filter: Some(driver.into()),
            ..Options::default()
        };
        let mut b = bench(Some(options), nvme(), Attach::Direct);
        b.unmap(RAM, 64, ToDevice, NONE);
        let log = &b.debug().log;
        assert_eq!((log.shown().len(), log.error_count), (shown, 1));
        assert_eq!(log.num_errors, 0);
    }
}

#[test]
fn entries_grow_until_memory_is_out() {
    let options = Options {
        entries: 2,
        max_entries: Some(5),
        ..all()
    };
    let mut b = bench(Some(options), nvme(), Attach::Direct);
    for i in 0..5 {
        b.mapped(RAM + i * 0x1000, 64, ToDevice, NONE);
    }
    assert_eq!((b.debug().len(), b.debug().capacity()), (5, 6));
    assert!(!b.debug().disabled());
    b.mapped(RAM + 0x9000, 64, ToDevice, NONE);
    assert!(b.debug().disabled());
    b.unmap(RAM + 0xa000, 64, ToDevice, NONE);
    b.for_cpu(RAM + 0xa000, 64, ToDevice);
    b.map_sg(ToDevice, &[(RAM, 1 << 30)]);
    b.dma.driver_unbound(b.dev);
    b.expect(&[]);
}

/// What the tracker changes by being there.
#[test]
fn side_effects() {
    let bar = BAR + 0x10_0000;
    for on in [false, true] {
        let mut b = bench(on.then(all), nvme(), Attach::Direct);
        assert_eq!(b.dma.dma_need_unmap(b.dev), on);
        b.dma.trace.set_enabled(true);
        let a = b.mapped(RAM, 64, FromDevice, NONE);
        b.dma.trace.take();
        b.for_cpu(a, 64, FromDevice);
        assert_eq!(b.dma.trace.take().len(), usize::from(on));
        b.dma.dma_set_mask(b.dev, u64::MAX).unwrap();
        assert_eq!(b.dma.dma_need_unmap(b.dev), on);
        // A1.9 and A1.10.
        b.dma.p2pdma.add(Provider {
            owner: Bdf::new(2, 0, 0),
            range: Range::sized(bar, 0x1000),
            bus_offset: 0,
            pages: true,
        });
        let page = b
            .dma
            .dma_map_page(&mut b.m, b.dev, PhysAddr(bar), 64, ToDevice, NONE);
        assert_eq!(page.err(), on.then_some(MapError::ZoneDevice));
        let warned = b.dma.warnings().count(WarningKind::ZoneDevice);
        assert_eq!(warned, u64::from(on));
        assert_eq!(b.dma.debug().is_some(), on);
        // No such device: nothing happens.
        b.dma.driver_unbound(DeviceId(9));
    }
}

proptest::proptest! {
    /// Whatever a driver does, nothing panics, and what it undoes as it did it is no report.
    #[test]
    fn balanced_drivers_are_silent(
        calls in proptest::collection::vec((0u64..32, 1u64..0x3000, 0usize..3, 0usize..3), 1..60),
        strict in proptest::bool::ANY,
    ) {
        let attach = if strict { Attach::Strict } else { Attach::Direct };
        let options = Options { cache_alignment: 1, ..all() };
        let mut b = bench(Some(options), nvme(), attach);
        let dirs = [Bidirectional, ToDevice, FromDevice];
        let mut live = Vec::new();
        for (at, size, dir, what) in calls {
            let dir = dirs[dir];
            match (what, live.pop()) {
                (0, Some((a, size, dir))) => b.unmap(a, size, dir, NONE),
                (_, rest) => {
                    live.extend(rest);
                    let a = b.mapped(RAM + at * 0x1000, size, dir, NONE);
                    live.push((a, size, dir));
                }
            }
        }
        for (a, size, dir) in live {
            b.unmap(a, size, dir, NONE);
        }
        proptest::prop_assert!(b.debug().is_empty());
        proptest::prop_assert_eq!(b.reports(), []);
    }
}
