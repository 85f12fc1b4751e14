//! The whole loop: TLPs a second, and the host efficiency: simulated cycles a second under traffic
//! with all checks on, divided by those of the same model clocked with no host, in the same run.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// TLPs of one measured campaign.
const TLPS: u64 = 20_000;
/// Cycles of one bare measurement.
const CYCLES: u64 = 100_000;
/// Rounds of the efficiency figure; the median of the ratios is printed.
const ROUNDS: usize = 5;

fn whole_loop(c: &mut Criterion) {
    let mut ratios = Vec::new();
    for seed in 0..ROUNDS as u64 {
        let mut campaign = tlproof_bench::campaign(seed, TLPS);
        let before = campaign.bench.sim.cycles();
        let start = Instant::now();
        campaign.run(|_| {}).expect("the campaign runs");
        let loaded = (campaign.bench.sim.cycles() - before) as f64 / start.elapsed().as_secs_f64();
        let start = Instant::now();
        tlproof_bench::bare(CYCLES);
        let bare = CYCLES as f64 / start.elapsed().as_secs_f64();
        println!("seed {seed}: {loaded:.0} cycles/s under traffic, {bare:.0} bare");
        ratios.push(loaded / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "host efficiency: {:.2} (median of {ROUNDS})",
        ratios[ROUNDS / 2]
    );

    let mut group = c.benchmark_group("loop");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(20));
    group.throughput(Throughput::Elements(TLPS));
    group.bench_function("campaign, TLPs", |b| {
        b.iter_batched(
            || tlproof_bench::campaign(1, TLPS),
            |mut c| c.run(|_| {}).expect("the campaign runs"),
            criterion::BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(CYCLES));
    group.bench_function("bare model, cycles", |b| {
        b.iter(|| tlproof_bench::bare(CYCLES))
    });
    group.finish();
}

criterion_group!(benches, whole_loop);
criterion_main!(benches);
