//! Every wrong implementation is noticed, some by the judge that they concern.

use tlproof::mutants::{Row, run};
use tlproof_dma::mutants::Mutant;

/// Random programs for each before the directed workloads.
const PROGRAMS: u64 = 3;

/// Every second one, from `first` on: two tests run at once.
fn noticed(first: usize) {
    let only: Vec<_> = Mutant::ALL.iter().skip(first).step_by(2).copied().collect();
    let survived: Vec<_> = run(&only, PROGRAMS, |_| ())
        .into_iter()
        .filter(|row| row.killed.is_none() && row.exempt.is_none())
        .map(|row| format!("{}: {}", row.mutant, row.what))
        .collect();
    assert_eq!(survived, [""; 0]);
}

#[test]
fn all_are_noticed_even() {
    noticed(0);
}

#[test]
fn all_are_noticed_odd() {
    noticed(1);
}

#[test]
fn the_right_judge_notices() {
    let expected = [
        (Mutant::M1, "promise", "memory type"),
        (Mutant::M2, "events", "protection"),
        (Mutant::M6, "promise", "data"),
        (Mutant::M17, "promise", "route"),
        (Mutant::M20b, "promise", "address"),
        (Mutant::M34, "architecture", "invalidation"),
    ];
    let only = expected.map(|(m, ..)| m);
    // Directed workloads alone: in a random program a device may stop first at a list that is garbage.
    let rows: Vec<Row> = run(&only, 0, |_| ());
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
