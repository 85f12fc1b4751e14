//! `junit.xml`: a test case for every rule of a judge at a tap, and one for every replayed trace.

use std::io::{self, Write};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::results::{Check, Results, TraceRow, ViolationRow};

/// A failed test case with a message and a longer description.
fn failure(message: String, description: String) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(message);
    if !description.is_empty() {
        status.set_description(description);
    }
    status
}

/// A violation in full.
fn describe(v: &ViolationRow) -> String {
    let mut text = format!(
        "TLP {} in cycle {}: {} is {}, expected {} ({})\n",
        v.tlp, v.cycle, v.field, v.got, v.expected, v.clause
    );
    for line in &v.story {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A rule that nothing was checked against is skipped, not passed.
fn check(check: &Check, violations: &[ViolationRow]) -> TestCase {
    let status = if check.failed > 0 {
        let first = violations.iter().find(|v| {
            let at = check.tap == "all" || v.tap == check.tap;
            v.rule == check.rule && v.judge == check.judge && at
        });
        failure(
            format!("{} of {} checks failed", check.failed, check.checked),
            first.map(describe).unwrap_or_default(),
        )
    } else if check.checked == 0 {
        let mut status = TestCaseStatus::skipped();
        status.set_message("nothing to check");
        status
    } else {
        TestCaseStatus::success()
    };
    let mut case = TestCase::new(format!("{} at {}", check.rule, check.tap), status);
    case.set_classname(format!("tlproof.{}", check.judge));
    case.set_assertions(usize::try_from(check.checked).unwrap_or(usize::MAX));
    case
}

/// A trace passes if no check failed, as the exit status says. Where the decisions differ from the
/// kernel's, and where the trace ends too early, is said beside the verdict.
fn trace(row: &TraceRow) -> TestCase {
    let status = if row.failed == 0 {
        TestCaseStatus::success()
    } else {
        failure(format!("{} checks failed", row.failed), String::new())
    };
    let mut case = TestCase::new(row.name.clone(), status);
    case.set_classname("tlproof.trace");
    let mut notes = Vec::new();
    if let Some(reason) = &row.truncated {
        notes.push(format!("the trace ends too early: {reason}"));
    }
    if row.differed > 0 {
        notes.push(format!(
            "{} of {} comparisons with the kernel differ",
            row.differed, row.compared
        ));
    }
    let differences = row.differences.iter();
    notes.extend(differences.map(|d| format!("{}  {}; first: {}", d.count, d.reason, d.first)));
    if !notes.is_empty() {
        case.set_system_out(notes.join("\n"));
    }
    case.set_assertions(usize::try_from(row.compared).unwrap_or(usize::MAX));
    case
}

/// Writes the file.
pub(super) fn write(results: &Results, out: &mut impl Write) -> io::Result<()> {
    let mut report = Report::new("tlproof");
    let mut checks = TestSuite::new("checks");
    checks.add_test_cases(results.checks.iter().map(|c| check(c, &results.violations)));
    report.add_test_suite(checks);
    if !results.summary.traces.is_empty() {
        let mut traces = TestSuite::new("traces");
        traces.add_test_cases(results.summary.traces.iter().map(trace));
        report.add_test_suite(traces);
    }
    report.serialize(out).map_err(io::Error::other)
}
