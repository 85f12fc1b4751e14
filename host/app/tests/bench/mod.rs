//! A machine that is up, single transfers, and what the judges found.

use tlproof::{
    checker::Checker,
    endpoint::{Completion, Descriptor},
    testbench::{Setup, Testbench},
};
use tlproof_golden::Judge;

pub fn bench(setup: &Setup) -> Testbench {
    let checker = Checker::new(&setup.machine, true, None, 100);
    Testbench::new(setup, checker).expect("the machine comes up")
}

/// Runs one transfer of endpoint `f` to its end.
pub fn transfer(b: &mut Testbench, f: usize, d: &Descriptor) -> Completion {
    b.functions[f]
        .engine
        .submit(&mut b.sim, d)
        .expect("the device answers");
    for _ in 0..1000 {
        b.sim.run(100).expect("no assertion fails");
        let done = b.functions[f]
            .engine
            .poll(&mut b.sim)
            .expect("the device answers");
        if let Some(done) = done {
            b.quiesce().expect("the machine comes to rest");
            return done;
        }
    }
    panic!("the transfer does not end");
}

/// The judges and fields of all violations.
pub fn found(b: &Testbench) -> Vec<(Judge, &'static str)> {
    b.sim
        .checker
        .violations()
        .iter()
        .map(|v| (v.judge, v.field))
        .collect()
}

#[track_caller]
pub fn assert_found(b: &Testbench, judge: Judge, field: &str) {
    let all = found(b);
    assert!(
        all.iter().any(|(j, f)| *j == judge && *f == field),
        "expected {judge:?} `{field}`, found {all:?}"
    );
}
