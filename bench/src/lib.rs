//! What the benches share: a campaign of a given size, and the bare model.

pub mod flat;

use tlproof::{
    campaign::{Campaign, Options},
    checker::Checker,
    testbench::Setup,
};
use tlproof_dma::Profile;
use tlproof_pcie::MemoryMap;
use tlproof_sim::{Model, ports::sim_top::SimTop};

/// A campaign on a machine that is up, with all checks on and no result files.
///
/// # Panics
/// When the machine does not come up.
#[must_use]
pub fn campaign(seed: u64, tlps: u64) -> Campaign {
    let options = Options {
        seed,
        tlps,
        profile: Profile::Intended,
        map: MemoryMap::default(),
        waves: None,
    };
    let checker = |s: &Setup| Checker::new(&s.machine, true, None, 1);
    Campaign::new(options, checker).expect("the machine comes up")
}

/// Clocks the model `cycles` times out of reset with no host at all.
///
/// # Panics
/// When the model fails.
pub fn bare(cycles: u64) {
    let mut m = Model::<SimTop>::new().expect("the model is built in");
    m.input.set_rst_ni(true);
    m.clock(cycles).expect("no assertion fails");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_works() {
        let mut c = campaign(1, 2_000);
        c.run(|_| {}).expect("no assertion fails");
        let checker = &c.bench.sim.checker;
        assert!(checker.tlps() >= 2_000);
        assert_eq!(checker.failed(), 0);
        bare(1_000);
    }
}
