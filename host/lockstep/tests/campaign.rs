//! Short campaigns; `LOCKSTEP_REQUESTS` and `LOCKSTEP_SEED` make them longer or others.

use tlproof_lockstep::{Config, Lockstep};
use tlproof_sim::ports::iommu_formats::IommuFormats;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

fn campaign(config: Config) {
    let seed = number("LOCKSTEP_SEED", 1);
    let mut lockstep = Lockstep::<IommuFormats>::new(config, seed).expect("it starts");
    let requests = number("LOCKSTEP_REQUESTS", 20_000);
    if let Err(failure) = lockstep.run(requests, |_| {}) {
        panic!("{failure}\n{:?}", lockstep.progress);
    }
    println!("{:?}", lockstep.progress);
    let bins = lockstep.coverage.bins().count();
    let missing: Vec<_> = lockstep.coverage.missing().collect();
    println!("{} of {bins} bins not reached", missing.len());
    for (group, bin) in missing {
        println!("  {group}: {bin}");
    }
}

#[test]
fn full() {
    campaign(Config::full());
}

#[test]
fn base() {
    campaign(Config::base());
}

#[test]
fn other() {
    campaign(Config::other());
}

#[test]
fn minimal() {
    campaign(Config::minimal());
}
