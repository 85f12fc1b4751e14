//! Deferred invalidation through the API.

use crate::testing::bench::*;

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

/// Where a flush is costly, all CPUs share one long ring with a slow timer.
#[test]
fn one_ring_for_all_cpus() {
    let d = Device {
        shadow_on_flush: true,
        ..device()
    };
    let mut b = Bench::new(Config::default(), d, Attach::Lazy);
    for cpu in 0..2 {
        b.dma.set_cpu(cpu);
        for _ in 0..300 {
            let a = b.map(RAM, 4096, FromDevice, NONE).unwrap();
            b.unmap(a, 4096, FromDevice, NONE);
        }
    }
    assert_eq!(b.dma.queued(), 600);
    b.m.time = 99_999_999;
    b.dma.tick(&mut b.m);
    assert_eq!(b.dma.queued(), 600);
    b.m.time = 100_000_000;
    b.dma.tick(&mut b.m);
    assert_eq!(b.dma.queued(), 0);
}
