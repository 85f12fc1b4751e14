//! The results of a run, as plain data.

use crate::dmabench;
use serde::Serialize;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every check held.
    Pass,
    /// A check failed.
    Fail,
    /// The run ended before its end; what was checked until then held.
    Incomplete,
}

impl Verdict {
    /// The word in the files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Incomplete => "incomplete",
        }
    }
}

/// A run in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Version of the program.
    pub program: String,
    /// How it ended.
    pub verdict: Verdict,
    /// The seed that decides everything.
    pub seed: u64,
    /// Which Linux the mapping API behaves as.
    pub profile: String,
    /// The command that repeats the run.
    pub command: String,
    /// Simulated clock cycles.
    pub cycles: u64,
    /// TLPs, each counted once.
    pub tlps: u64,
    /// Rows of `tlps.csv`: one a TLP and tap.
    pub rows: u64,
    /// Calls of the mapping API.
    pub map_calls: u64,
    /// Comparisons made.
    pub checked: u64,
    /// Comparisons that failed.
    pub failed: u64,
    /// Replayed traces.
    pub traces: Vec<TraceRow>,
    /// Result of the mapping benchmark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dmabench: Option<dmabench::Report>,
}

/// Comparisons of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// All of them.
    pub compared: u64,
    /// Those that agree.
    pub agreed: u64,
}

impl std::fmt::Display for Share {
    /// In per cent, rounded down, so that 100 means all; a dash for none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.agreed * 10_000).checked_div(self.compared) {
            Some(share) => f.pad(&format!("{}.{:02}%", share / 100, share % 100)),
            None => f.pad("-"),
        }
    }
}

/// A replayed trace against what the kernel did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TraceRow {
    /// Name of the capture.
    pub name: String,
    /// Events read.
    pub events: u64,
    /// Mappings that the kernel made.
    pub mappings: u64,
    /// Mappings replayed here.
    pub replayed: u64,
    /// Comparisons between the two (address kind, size, permission, cacheability …).
    pub compared: u64,
    /// Comparisons that differ.
    pub differed: u64,
    /// Of these the protections of page-table entries.
    pub prot: Share,
    /// Of these the attributes of calls.
    pub attrs: Share,
    /// Of these the IOVAs.
    pub iova: Share,
    /// TLPs sent into the mappings.
    pub tlps: u64,
    /// Comparisons with the judges that failed.
    pub failed: u64,
    /// Why the trace ended too early, if it did.
    pub truncated: Option<String>,
    /// Where the decisions differ from the kernel's, and what was not compared.
    pub differences: Vec<Difference>,
}

/// Decisions that differ from the kernel's for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What differs and why.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// The first one.
    pub first: String,
}

/// A rule of one judge at one tap, and how often it was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name of the rule.
    pub rule: String,
    /// Who checks it: `architecture`, `promise`, `data` ….
    pub judge: String,
    /// Where.
    pub tap: String,
    /// Times checked. A rule that was never checked proves nothing.
    pub checked: u64,
    /// Times failed.
    pub failed: u64,
}

/// A check that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ViolationRow {
    /// Number of the TLP, as in `tlps.csv`.
    pub tlp: u64,
    /// Cycle in which it was seen.
    pub cycle: u64,
    /// Where.
    pub tap: String,
    /// Name of the rule.
    pub rule: String,
    /// Who says so.
    pub judge: String,
    /// The one field that differs.
    pub field: String,
    /// Its value as it must be.
    pub expected: String,
    /// Its value as it was.
    pub got: String,
    /// Clause of the specification.
    pub clause: String,
    /// The TLPs and calls around it, one a line.
    pub story: Vec<String>,
}

/// All results of a run but the TLPs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Results {
    /// The run in numbers.
    pub summary: Summary,
    /// The rules.
    pub checks: Vec<Check>,
    /// The failures, in the order in which they were found; the caller bounds their number.
    pub violations: Vec<ViolationRow>,
}
