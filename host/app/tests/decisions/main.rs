//! The decision tables of the DMA API, row by row, on the simulated machine.
//!
//! `decisions.csv` has the rows; `docs/decisions.md` describes its columns. A row is a test of its
//! own (one for each direction if it is about all of them): the call is made, the device uses the
//! mapping, the mapping is undone, and everything that the row states is compared.

mod bench;
mod checks;
mod nvme;
mod row;
mod walk;

use std::panic::{AssertUnwindSafe, catch_unwind};

use libtest_mimic::{Arguments, Trial};
use row::Row;

/// The tables, and how many rows each has.
const TABLES: [(&str, usize); 11] = [
    ("A1", 10),
    ("A2", 17),
    ("A3", 14),
    ("A4", 13),
    ("A5", 7),
    ("A6", 12),
    ("A7", 18),
    ("A8", 8),
    ("A9", 8),
    ("A10", 7),
    ("A12", 10),
];

fn main() {
    let args = Arguments::from_args();
    let rows = row::read();
    let mut trials = vec![
        Trial::test("every row of the tables is here once", {
            let rows = rows.clone();
            move || complete(&rows).map_err(Into::into)
        }),
        Trial::test("a row that states something else fails", {
            let rows = rows.clone();
            move || sensitive(&rows).map_err(Into::into)
        }),
    ];
    for row in rows {
        for dir in row.directions() {
            let name = match row.dir.as_str() {
                "*" => format!("{} {}", row.id, dir.name()),
                _ => row.id.clone(),
            };
            let ignored = row.ignored.clone();
            let row = row.clone();
            let trial = Trial::test(name, move || {
                row.run(dir);
                Ok(())
            });
            trials.push(if ignored.is_empty() {
                trial
            } else {
                trial.with_kind(ignored).with_ignored_flag(true)
            });
        }
    }
    libtest_mimic::run(&args, trials).exit();
}

/// Every row of every table has a test or a reason why it has none; rows with a letter behind the
/// number are variants.
fn complete(rows: &[Row]) -> Result<(), String> {
    let mut ids: Vec<&str> = rows.iter().map(|r| r.id.as_str()).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|w| w[0] == w[1]) {
        return Err(format!("{} stands there twice", twice[0]));
    }
    let number = |id: &str| {
        id.trim_end_matches(|c: char| c.is_ascii_lowercase())
            .to_owned()
    };
    let have: std::collections::BTreeSet<String> = ids.iter().map(|id| number(id)).collect();
    let mut want: std::collections::BTreeSet<String> = TABLES
        .iter()
        .flat_map(|(table, n)| (1..=*n).map(move |i| format!("{table}.{i}")))
        .collect();
    want.extend((1..=5).map(|i| format!("A11.{i}")));
    if have == want {
        Ok(())
    } else {
        let difference: Vec<_> = have.symmetric_difference(&want).collect();
        Err(format!(
            "rows of the tables and of the file differ in {difference:?}"
        ))
    }
}

/// Each column that states a result is compared: with another statement the row fails.
fn sensitive(rows: &[Row]) -> Result<(), String> {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut deaf = Vec::new();
    for (id, column, value) in row::WRONG {
        let mut row = rows
            .iter()
            .find(|r| r.id == id)
            .ok_or_else(|| format!("no row {id}"))?
            .clone();
        *row.column(column) = value.to_owned();
        let dir = row.directions()[0];
        if catch_unwind(AssertUnwindSafe(|| row.run(dir))).is_ok() {
            deaf.push(format!("{id} with {column} {value:?}"));
        }
    }
    std::panic::set_hook(quiet);
    if deaf.is_empty() {
        Ok(())
    } else {
        Err(format!("passes: {}", deaf.join("; ")))
    }
}
