//! Tables that change under way, in every configuration; and an IOMMU that is not told of it.

use tlproof_lockstep::{Config, Failure, inflight};
use tlproof_sim::ports::iommu_formats::IommuFormats;

fn requests() -> u64 {
    let said = std::env::var("LOCKSTEP_REQUESTS").ok();
    said.and_then(|v| v.parse().ok()).unwrap_or(20_000)
}

fn campaign(config: &Config) {
    let counts = inflight::run::<IommuFormats>(config, 1, requests(), false);
    let counts = counts.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{counts:?}");
    assert!(counts.of_old_tables > counts.requests / 1000, "{counts:?}");
}

#[test]
fn full() {
    campaign(&Config::full());
}

#[test]
fn minimal() {
    campaign(&Config::minimal());
}

#[test]
fn other() {
    campaign(&Config::other());
}

/// Without its invalidations the IOMMU answers from what it holds, behind the fence too.
#[test]
fn forgotten_invalidations_are_noticed() {
    for config in [Config::full(), Config::minimal()] {
        let result = inflight::run::<IommuFormats>(&config, 1, 20_000, true);
        let Err(Failure::Mismatch { what, .. }) = result else {
            panic!("{result:?}");
        };
        assert!(what.contains("has been invalidated and fenced"), "{what}");
    }
}
