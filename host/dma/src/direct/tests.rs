//! The decision table of `dma-direct`.

use super::*;
use crate::testing::bench::*;

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

/// Addresses of private memory carry the encryption bit, those of slots and shared memory do not.
#[test]
fn encrypted_memory() {
    const BIT: u64 = 1 << 47;
    let d = |force_bounce| Device {
        memory_encryption: BIT,
        force_bounce,
        ..device()
    };
    let mut b = Bench::new(Config::default(), d(false), Attach::Direct).pool(false);
    assert_eq!(b.map(RAM, 64, FromDevice, NONE), Ok(RAM | BIT));
    assert_eq!(b.map(BAR, 64, FromDevice, Attrs::MMIO), Ok(BAR));
    b.unmap(RAM | BIT, 64, FromDevice, NONE);
    b.unmap(BAR, 64, FromDevice, Attrs::MMIO);
    assert!(b.dma.warnings().is_empty());
    let mut b = Bench::new(Config::default(), d(true), Attach::Direct).pool(false);
    let shared = b.map(RAM, 64, FromDevice, Attrs::CC_SHARED);
    assert_eq!(shared, Ok(RAM));
    assert_eq!(b.map(RAM, 64, FromDevice, NONE), Ok(POOL));
    b.unmap(POOL, 64, FromDevice, NONE);
    assert_eq!(b.dma.swiotlb().unwrap().used(), 0);
}
