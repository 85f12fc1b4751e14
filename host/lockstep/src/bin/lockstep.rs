//! `lockstep CONFIG REQUESTS SEED`: a campaign of one shard. Exit status 0 if both sides agree, 1 if
//! not, 2 for bad usage. `tlproof run --suite iommu` is the tool for users; this one needs no model but
//! `iommu_formats`.

use std::process::ExitCode;

use tlproof_lockstep::{Config, Lockstep};
use tlproof_sim::ports::iommu_formats::IommuFormats;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [config, requests, seed] = &args[..] else {
        eprintln!("usage: lockstep full|minimal|base|other|FILE.toml REQUESTS SEED");
        return ExitCode::from(2);
    };
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(e) => {
            eprintln!("lockstep: {e}");
            return ExitCode::from(2);
        }
    };
    let (Ok(requests), Ok(seed)) = (requests.parse(), seed.parse()) else {
        eprintln!("lockstep: REQUESTS and SEED are numbers");
        return ExitCode::from(2);
    };
    let mut lockstep = match Lockstep::<IommuFormats>::new(config, seed) {
        Ok(lockstep) => lockstep,
        Err(failure) => {
            println!("after 0 requests: {failure}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(failure) = lockstep.run(requests, |_| {}) {
        println!("after {} requests: {failure}", lockstep.progress.requests);
        return ExitCode::FAILURE;
    }
    println!("{} requests, no mismatch", lockstep.progress.requests);
    ExitCode::SUCCESS
}
