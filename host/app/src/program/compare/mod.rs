//! One program on two Linuxes: which of its calls look different on the bus.
//!
//! Everything comes to rest after each step, so that a TLP belongs to the step in which it was
//! seen, and a step to the call that made its object.

mod print;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use tlproof_dma::Profile;

use crate::testbench::Error;

use super::{Id, Program, run::Runner};

pub use seen::Seen;

/// What one side has of a step and the other has not, or not as often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// How TLPs look.
    #[serde(flatten)]
    pub seen: Seen,
    /// So many under each profile. The completions of a read are as many as they happen to be:
    /// they count as one.
    pub count: [u64; 2],
}

/// A step whose TLPs differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its place in the program, from 0.
    pub step: usize,
    /// The step, as Rust.
    pub op: String,
    /// What differs.
    pub lines: Vec<Line>,
}

/// A call whose TLPs differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Its place in the program, from 0.
    pub step: usize,
    /// The call, as Rust.
    pub op: String,
    /// Where it differs.
    pub steps: Vec<Step>,
}

/// Two runs of one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The profiles.
    pub profiles: [String; 2],
    /// Seed of the program.
    pub seed: u64,
    /// Steps of the program.
    pub steps: usize,
    /// Steps with TLPs under either profile.
    pub steps_with_tlps: usize,
    /// Calls that the API refused under each profile.
    pub refused: [u64; 2],
    /// Calls that differ.
    pub calls: Vec<Call>,
}

/// TLPs of a step.
type Counts = BTreeMap<Seen, u64>;

/// Runs a program under two profiles; `seed` is what it was made from.
///
/// # Errors
/// When a machine does not come up or stops.
pub fn compare(
    program: &Program,
    seed: u64,
    profiles: [(&str, Profile); 2],
) -> Result<Comparison, Error> {
    let [(first, a), (second, b)] = profiles;
    let (a, b) = (steps(program, a)?, steps(program, b)?);
    let mut calls: BTreeMap<usize, Call> = BTreeMap::new();
    let mut made: BTreeMap<Id, usize> = BTreeMap::new();
    let mut steps_with_tlps = 0;
    for (i, op) in program.ops.iter().enumerate() {
        if let Some(id) = op.makes() {
            made.insert(id, i);
        }
        let (x, y) = (&a.0[i], &b.0[i]);
        steps_with_tlps += usize::from(!x.is_empty() || !y.is_empty());
        let lines = differences(x, y);
        if lines.is_empty() {
            continue;
        }
        let call = op.object().and_then(|id| made.get(&id)).unwrap_or(&i);
        let entry = calls.entry(*call).or_insert_with(|| Call {
            step: *call,
            op: format!("{:?}", program.ops[*call]),
            steps: Vec::new(),
        });
        entry.steps.push(Step {
            step: i,
            op: format!("{op:?}"),
            lines,
        });
    }
    Ok(Comparison {
        profiles: [first.to_owned(), second.to_owned()],
        seed,
        steps: program.ops.len(),
        steps_with_tlps,
        refused: [a.1, b.1],
        calls: calls.into_values().collect(),
    })
}

fn differences(x: &Counts, y: &Counts) -> Vec<Line> {
    let all: std::collections::BTreeSet<&Seen> = x.keys().chain(y.keys()).collect();
    let count = |c: &Counts, s: &Seen| c.get(s).copied().unwrap_or(0);
    all.into_iter()
        .map(|s| Line {
            seen: *s,
            count: [count(x, s), count(y, s)],
        })
        .filter(|l| l.count[0] != l.count[1])
        .collect()
}

/// What was seen in each step, and the refusals.
fn steps(program: &Program, profile: Profile) -> Result<(Vec<Counts>, u64), Error> {
    let mut program = program.clone();
    program.world.profile = profile;
    let mut r = Runner::new(&program, None)?;
    r.bench.sim.checker.watch();
    let mut all = Vec::new();
    for op in &program.ops {
        r.step(op)?;
        r.rest()?;
        let mut counts = Counts::new();
        for tlp in r.bench.sim.checker.take_watched() {
            if let Some(seen) = Seen::new(&tlp, &r.bench, &program.world) {
                let n = counts.entry(seen).or_default();
                *n = if seen.is_completion() { 1 } else { *n + 1 };
            }
        }
        all.push(counts);
    }
    Ok((all, r.refusals()))
}
