//! `run --suite iommu`: the IOMMU's RTL and the golden model in lock-step, in shards that do not
//! depend on how many run at once.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{IsTerminal, Write},
    path::PathBuf,
    sync::Mutex,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use indicatif::{ProgressBar, ProgressStyle};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use tlproof_lockstep::{Config, Coverage, Failure, Lockstep, Progress, inflight};
use tlproof_sim::ports::iommu_formats::IommuFormats;

use crate::{
    commands::Error,
    report::{self, ResultDir},
};

/// One request under changing tables for so many in lock-step.
const IN_FLIGHT: u64 = 10;

/// Requests of a shard.
const SHARD: u64 = 250_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which IOMMU.
    pub config: Config,
    /// Translation requests.
    pub requests: u64,
    /// Seed of the first shard.
    pub seed: u64,
    /// Directory of the results.
    pub out: Option<PathBuf>,
    /// The summary as JSON on standard output.
    pub json: bool,
}

/// What shards have found so far.
#[derive(Default)]
struct Found {
    coverage: Coverage,
    progress: Progress,
    failures: Vec<String>,
}

/// Runs the suite; `true` if both sides agreed.
///
/// # Errors
/// If results cannot be written.
pub fn run(options: &Options) -> Result<bool, Error> {
    let name = format!("iommu-{}-seed{}", options.config.name, options.seed);
    let target = options
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("out").join(name));
    let dir = ResultDir::create(target)?;
    let found = shards(options);
    let ok = found.failures.is_empty();
    write_results(&dir, options, &found)?;
    let summary = summary(options, &found);
    dir.write("summary.json", &format!("{summary:#}\n"))?;
    let target = dir.close()?;
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{summary:#}")?;
        return Ok(ok);
    }
    for failure in &found.failures {
        writeln!(out, "{failure}")?;
    }
    let p = &found.progress;
    let (reached, bins) = totals(&found.coverage);
    writeln!(
        out,
        "{}: {} requests of {} machines in lock-step, {} commands, {} page requests, {} debug \
         translations, {} writes into interrupt files, {} clock cycles; {} requests while tables changed, \
         {} answered by the old ones; {} of {bins} bins reached; {}",
        options.config.name,
        p.requests,
        p.machines,
        p.commands,
        p.page_requests,
        p.debug,
        p.interrupt_files,
        p.cycles,
        p.in_flight,
        p.of_old_tables,
        reached,
        if ok { "no mismatch" } else { "MISMATCH" }
    )?;
    for (group, bin) in found.coverage.missing() {
        writeln!(out, "  not reached: {group}: {bin}")?;
    }
    writeln!(out, "results: {}", target.display())?;
    Ok(ok)
}

fn shards(options: &Options) -> Found {
    let count = options.requests.div_ceil(SHARD);
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(options.requests)
    } else {
        ProgressBar::hidden()
    };
    let style = "{msg:>24} [{wide_bar}] {human_pos}/{human_len} {elapsed} (left {eta})";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message(format!("lock-step, {}", options.config.name));
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let found = Mutex::new(Vec::new());
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let shard = next.fetch_add(1, Ordering::Relaxed);
                    if shard >= count || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let requests = SHARD.min(options.requests - shard * SHARD);
                    let seed = options.seed.wrapping_add(shard << 32);
                    let result = one(&options.config, seed, requests, &bar);
                    if result.2.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    if let Ok(mut found) = found.lock() {
                        found.push((shard, result));
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut results = found.into_inner().unwrap_or_default();
    results.sort_by_key(|(shard, _)| *shard);
    let mut all = Found::default();
    for (_, (coverage, progress, failure)) in results {
        all.coverage.add(&coverage);
        all.progress.add(&progress);
        all.failures.extend(failure.map(|f| f.to_string()));
    }
    all
}

fn one(
    config: &Config,
    seed: u64,
    requests: u64,
    bar: &ProgressBar,
) -> (Coverage, Progress, Option<Failure>) {
    let mut lockstep = match Lockstep::<IommuFormats>::new(config.clone(), seed) {
        Ok(lockstep) => lockstep,
        Err(failure) => return (Coverage::default(), Progress::default(), Some(failure)),
    };
    let mut before = 0;
    let result = lockstep.run(requests, |p| {
        bar.inc(p.requests - before);
        before = p.requests;
    });
    let mut progress = lockstep.progress;
    let result = result.and_then(|()| {
        let counts = inflight::run::<IommuFormats>(config, seed, requests / IN_FLIGHT, false)?;
        progress.in_flight = counts.requests;
        progress.of_old_tables = counts.of_old_tables;
        Ok(())
    });
    (lockstep.coverage, progress, result.err())
}

/// Bins reached, and all.
fn totals(coverage: &Coverage) -> (usize, usize) {
    let bins = coverage.bins().count();
    (bins - coverage.missing().count(), bins)
}

fn groups(coverage: &Coverage) -> BTreeMap<&'static str, Vec<(&str, u64)>> {
    let mut groups: BTreeMap<&'static str, Vec<(&str, u64)>> = BTreeMap::new();
    for ((group, bin), count) in coverage.bins() {
        groups.entry(group).or_default().push((bin, count));
    }
    groups
}

fn summary(options: &Options, found: &Found) -> serde_json::Value {
    let (reached, bins) = totals(&found.coverage);
    let missing: Vec<String> = found
        .coverage
        .missing()
        .map(|(group, bin)| format!("{group}: {bin}"))
        .collect();
    let p = &found.progress;
    serde_json::json!({
        "format": "tlproof-results",
        "version": report::FORMAT_VERSION,
        "suite": "iommu",
        "configuration": options.config.name,
        "seed": options.seed,
        "verdict": if found.failures.is_empty() { "pass" } else { "fail" },
        "requests": p.requests,
        "machines": p.machines,
        "commands": p.commands,
        "page_requests": p.page_requests,
        "debug_translations": p.debug,
        "interrupt_file_writes": p.interrupt_files,
        "requests_in_flight": p.in_flight,
        "answers_of_old_tables": p.of_old_tables,
        "cycles": p.cycles,
        "bins": bins,
        "bins_reached": reached,
        "bins_missing": missing,
        "mismatches": found.failures,
    })
}

fn write_results(dir: &ResultDir, options: &Options, found: &Found) -> Result<(), Error> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let row = |e: csv::Error| Error::Usage(e.to_string());
    csv.write_record(["group", "bin", "count"]).map_err(row)?;
    for ((group, bin), count) in found.coverage.bins() {
        csv.write_record([*group, bin, &count.to_string()])
            .map_err(row)?;
    }
    let bytes = csv.into_inner().map_err(|e| Error::Usage(e.to_string()))?;
    dir.write("coverage.csv", &String::from_utf8_lossy(&bytes))?;
    dir.write("junit.xml", &junit(options, found)?)?;
    dir.write("report.html", &html(options, found))?;
    Ok(())
}

fn junit(options: &Options, found: &Found) -> Result<String, Error> {
    let mut suite = TestSuite::new(format!("iommu {}", options.config.name));
    let mut status = TestCaseStatus::success();
    if let Some(first) = found.failures.first() {
        status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message("the two sides differ");
        status.set_description(first.as_str());
    }
    let mut case = TestCase::new("lock-step", status);
    case.set_classname("tlproof.lockstep");
    suite.add_test_case(case);
    for (group, bins) in groups(&found.coverage) {
        let missing = bins.iter().filter(|b| b.1 == 0).count();
        let mut status = TestCaseStatus::success();
        if missing > 0 {
            status = TestCaseStatus::skipped();
            status.set_message(format!("{missing} of {} bins not reached", bins.len()));
        }
        let mut case = TestCase::new(group, status);
        case.set_classname("tlproof.coverage");
        suite.add_test_case(case);
    }
    let mut report = Report::new("tlproof");
    report.add_test_suite(suite);
    report.to_string().map_err(|e| Error::Usage(e.to_string()))
}

fn html(options: &Options, found: &Found) -> String {
    let mut page = report::page_head(&format!("IOMMU in lock-step: {}", options.config.name));
    let p = &found.progress;
    let (reached, bins) = totals(&found.coverage);
    let verdict = if found.failures.is_empty() {
        "<p class=pass>No mismatch.</p>"
    } else {
        "<p class=fail>The two sides differ.</p>"
    };
    page += verdict;
    page += "<div class=facts>";
    for (name, value) in [
        ("requests", p.requests),
        ("machines", p.machines),
        ("commands", p.commands),
        ("page requests", p.page_requests),
        ("debug translations", p.debug),
        ("interrupt file writes", p.interrupt_files),
        ("requests while tables changed", p.in_flight),
        ("answers of old tables", p.of_old_tables),
        ("clock cycles", p.cycles),
        ("bins", bins as u64),
        ("bins reached", reached as u64),
    ] {
        let _ = write!(page, "<div><span>{name}</span><b>{value}</b></div>");
    }
    page += "</div>";
    for failure in &found.failures {
        let _ = write!(page, "<pre>{}</pre>", report::escape(failure));
    }
    for (group, bins) in groups(&found.coverage) {
        let most = bins.iter().map(|b| b.1).max().unwrap_or(1).max(2);
        let _ = write!(
            page,
            "<h2>{}</h2><div class=scroll><table><tr><th>bin<th class=n>count<th>",
            report::escape(group)
        );
        for (bin, count) in bins {
            // Counts differ by orders of magnitude.
            #[expect(clippy::cast_precision_loss, reason = "the length of a bar")]
            let width = 100.0 * ((count + 1) as f64).ln() / ((most + 1) as f64).ln();
            let class = if count == 0 { "n fail" } else { "n" };
            let _ = write!(
                page,
                "<tr><td>{}<td class=\"{class}\">{count}<td><svg width=200 height=10 \
                 role=img aria-label={count}><rect width=\"{:.0}\" height=10 \
                 fill=currentColor opacity=.4 /></svg>",
                report::escape(if bin.is_empty() { "(nothing)" } else { bin }),
                2.0 * width
            );
        }
        page += "</table></div>";
    }
    page
}
