//! Cold translations a second of the golden model: no cache, each walks all of its tables.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tlproof_golden::iommu::{Capabilities, Choices, FlatMemory, Outcome, Request, Translator};

const BASE: u64 = 0x8000_0000;
const DIRECTORY: u64 = BASE + 0x1000;
/// Four pages, the root of the second stage.
const GUEST_ROOT: u64 = BASE + 0x4000;
const GUEST_TABLES: u64 = BASE + 0x8000;
/// Tables of the first stage, at the same guest addresses.
const ROOT: u64 = BASE + 0x10_0000;
const PAGES: u64 = 256;
const IOVA: u64 = 0x12_3440_0000;
const DEVICE: u32 = 5;

const POINTER: u64 = 1;
const LEAF: u64 = 0xd7; // V R W U A D

fn pte(target: u64, flags: u64) -> u64 {
    target >> 12 << 10 | flags
}

/// Sv39 on Sv39x4, 4 KiB pages in both; with `first` or `second` off that stage is Bare.
fn machine(first: bool, second: bool) -> (Translator, FlatMemory) {
    let mut memory = FlatMemory::new(BASE, 4 << 20);
    let at = DIRECTORY + u64::from(DEVICE) * 32;
    memory.set(at, 1);
    if second {
        memory.set(at + 8, 8 << 60 | 7 << 44 | GUEST_ROOT >> 12);
        memory.set(GUEST_ROOT + (BASE >> 30) * 8, pte(GUEST_TABLES, POINTER));
        for i in 0..2 {
            let table = GUEST_TABLES + 0x1000 + i * 0x1000;
            memory.set(GUEST_TABLES + i * 8, pte(table, POINTER));
            for page in 0..512 {
                memory.set(table + page * 8, pte(BASE + (i << 21) + (page << 12), LEAF));
            }
        }
    }
    if first {
        memory.set(at + 24, 8 << 60 | ROOT >> 12);
        memory.set(ROOT + (IOVA >> 30) * 8, pte(ROOT + 0x1000, POINTER));
        memory.set(
            ROOT + 0x1000 + (IOVA >> 21 & 511) * 8,
            pte(ROOT + 0x2000, POINTER),
        );
        for page in 0..PAGES {
            // No neighbours in guest memory.
            let guest = BASE + 0x20_0000 + ((page * 37 % PAGES) << 12);
            memory.set(ROOT + 0x2000 + page * 8, pte(guest, LEAF));
        }
    }
    let capabilities = 56 << 32 | 1 << 17 | 1 << 15 | 1 << 9;
    let mut iommu = Translator::new(Capabilities::decode(capabilities), Choices::default());
    iommu.ddtp = DIRECTORY >> 12 << 10 | 2;
    (iommu, memory)
}

fn translations(c: &mut Criterion) {
    let mut group = c.benchmark_group("golden model, cold");
    group
        .sample_size(20)
        .throughput(Throughput::Elements(1))
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (name, first, second, loads) in [
        ("Sv39", true, false, 3),
        ("Sv39x4", false, true, 3),
        ("Sv39 on Sv39x4", true, true, 15),
    ] {
        let (iommu, memory) = machine(first, second);
        let base = if first { IOVA } else { BASE + 0x20_0000 };
        let mut i = 0u64;
        let mut translate = || {
            i += 1;
            let iova = base + ((i * 11 % PAGES) << 12) + (i & 0xfc0);
            let request = Request::untranslated(DEVICE, iova, i & 1 == 0);
            iommu.lookup(black_box(&memory), black_box(&request))
        };
        let response = translate();
        assert!(matches!(response.outcome, Outcome::Ok(_)), "{response:?}");
        assert_eq!(
            response.loads.first_stage + response.loads.second_stage,
            loads
        );
        group.bench_function(name, |b| b.iter(&mut translate));
    }
    group.finish();
}

criterion_group!(benches, translations);
criterion_main!(benches);
