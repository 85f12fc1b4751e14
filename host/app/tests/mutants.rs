//! A few wrong implementations, each noticed by the judge that it concerns.

use tlproof::mutants::run;
use tlproof_dma::mutants::Mutant;

#[test]
fn the_right_judge_notices() {
    let expected = [
        (Mutant::M1, "promise", "memory type"),
        (Mutant::M2, "events", "protection"),
        (Mutant::M6, "promise", "data"),
        (Mutant::M17, "promise", "route"),
        (Mutant::M20b, "promise", "address"),
    ];
    let only = expected.map(|(m, ..)| m);
    let rows = run(&only, 8, |_| ());
    for ((m, judge, field), row) in expected.into_iter().zip(rows) {
        let kill = row.killed.unwrap_or_else(|| panic!("{m} survived"));
        assert_eq!(
            (&*kill.judge, &*kill.field),
            (judge, field),
            "{m}: {}",
            kill.text
        );
    }
}
