//! Map and unmap in host code alone, in nanoseconds a pair, over the number of live mappings.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tlproof_bench::flat::{Flat, api};
use tlproof_dma::{Attrs, DeviceId, Dma, IovaState, riscv::RiscvIommu};
use tlproof_pcie::{Direction, PhysAddr};

const PAGE: u64 = 4096;
/// Bytes of a two-step mapping, which is linked page by page.
const LARGE: u64 = 128 << 10;
const BUFFERS: u64 = 0x9000_0000;
/// Buffers of the live mappings, used again and again.
const DISTINCT: u64 = 1 << 14;

const DIR: Direction = Direction::Bidirectional;
const ATTRS: Attrs = Attrs::empty();

fn buffer(i: u64) -> PhysAddr {
    PhysAddr(BUFFERS + i % DISTINCT * PAGE)
}

fn map_large(m: &mut Flat, dma: &mut Dma<RiscvIommu>, dev: DeviceId, i: u64) -> IovaState {
    let mut state = dma
        .dma_iova_try_alloc(dev, buffer(i), LARGE)
        .expect("there is IOVA");
    for at in (0..LARGE).step_by(PAGE as usize) {
        // No neighbours in physical memory, as in a request of scattered pages.
        let phys = buffer(i + 7 * (at / PAGE));
        dma.dma_iova_link(m, dev, &mut state, phys, at, PAGE, DIR, ATTRS)
            .expect("it can be linked");
    }
    dma.dma_iova_sync(dev, &state, 0, LARGE).expect("it syncs");
    state
}

fn pairs(c: &mut Criterion) {
    let mut group = c.benchmark_group("map and unmap");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for live in [1u64, 100, 10_000, 100_000, 1_000_000] {
        let (mut m, mut dma, dev) = api();
        for i in 0..live {
            dma.dma_map_phys(&mut m, dev, buffer(i), PAGE, DIR, ATTRS)
                .expect("it can be mapped");
        }
        group.bench_with_input(
            BenchmarkId::new("dma_map_phys, 4 KiB", live),
            &live,
            |b, _| {
                let mut i = 0;
                b.iter(|| {
                    i += 1;
                    let at = dma
                        .dma_map_phys(&mut m, dev, buffer(i), PAGE, DIR, ATTRS)
                        .expect("it can be mapped");
                    dma.dma_unmap_phys(&mut m, dev, black_box(at), PAGE, DIR, ATTRS);
                });
            },
        );
        assert!(live > 700_000 || dma.warnings().is_empty());
    }
    for live in [1u64, 100, 10_000, 100_000] {
        let (mut m, mut dma, dev) = api();
        let states: Vec<_> = (0..live)
            .map(|i| map_large(&mut m, &mut dma, dev, i))
            .collect();
        group.bench_with_input(
            BenchmarkId::new("dma_iova_*, 128 KiB", live),
            &live,
            |b, _| {
                let mut i = 0;
                b.iter(|| {
                    i += 1;
                    let mut state = map_large(&mut m, &mut dma, dev, i);
                    dma.dma_iova_destroy(&mut m, dev, black_box(&mut state), LARGE, DIR, ATTRS);
                });
            },
        );
        drop(states);
    }
    group.finish();
}

criterion_group!(benches, pairs);
criterion_main!(benches);
