//! The subcommands: from arguments to verdict, results and exit status.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    rc::Rc,
};

use indicatif::{ProgressBar, ProgressStyle};
use tlproof_pcie::tree::Acs;

use crate::{
    campaign::{self, Campaign},
    checker::Checker,
    cli::{
        CheckArgs, Cli, Command, Common, CompareArgs, DmabenchArgs, FuzzArgs, MachineArgs,
        MutantsArgs, ProfileArg, ReplayArgs, RunArgs, SuiteArg, TreeArgs,
    },
    dmabench::{self, Benchmark},
    iommu_suite,
    output::{SharedSink, Sink, Tally},
    program,
    recording::Recording,
    replay,
    report::{self, ResultDir, Results, Summary, TraceRow, Verdict, ViolationRow},
    rtl_mutants,
    simulation::{self, Simulation, Waves},
    testbench::{self, Setup},
    trace,
};

/// Violations that end a campaign, so that a broken machine does not fill the disk.
const ENOUGH: usize = 200;

/// Cycles of waves before the first violation, and in all.
const WAVES_BEFORE: u64 = 2_000;
const WAVES_LENGTH: u64 = 4_000;

/// More than the waves of [`WAVES_LENGTH`] cycles and their temporary files take.
const WAVES_SPACE: usize = 8 << 20;

/// TLPs of the campaign of `tlproof check`.
const CHECK_TLPS: u64 = 100_000;

/// The trace that `tlproof check` replays: peer-to-peer through the host bridge behind an IOMMU.
const CHECK_TRACE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/traces/nvme-p2p-bridge-iommu.trace.gz"
);

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option's value does not fit.
    #[error("{0}")]
    Usage(String),
    /// A trace cannot be read.
    #[error(transparent)]
    Trace(#[from] trace::Error),
    /// A trace cannot be replayed.
    #[error(transparent)]
    Replay(#[from] replay::Error),
    /// Results cannot be written.
    #[error("results: {0}")]
    Report(#[from] report::Error),
    /// The machine does not come up or stops.
    #[error("{error}\n  repeat: {command}")]
    Machine {
        /// What happened.
        error: testbench::Error,
        /// The command that repeats it.
        command: String,
    },
    /// Standard output is closed.
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs a command line; `true` when all promises were kept.
///
/// # Errors
/// See [`Error`]: bad usage or input.
pub fn run(cli: Cli) -> Result<bool, Error> {
    match cli.command {
        Some(Command::Run(args)) => run_campaign(&args),
        Some(Command::Replay(args)) => run_replay(&args),
        Some(Command::Fuzz(args)) => fuzz(&args),
        Some(Command::Compare(args)) => compare(&args),
        Some(Command::Dmabench(args)) => dmabench(&args),
        Some(Command::Mutants(args)) => mutants(&args),
        Some(Command::Tree(args)) => tree(&args),
        Some(Command::Check(args)) => check(&args),
        None => check(&CheckArgs::default()),
    }
}

fn mutants(args: &MutantsArgs) -> Result<bool, Error> {
    if args.rtl {
        return rtl_mutants::command(args);
    }
    #[cfg(feature = "mutants")]
    return crate::mutants::command(args);
    #[cfg(not(feature = "mutants"))]
    Err(Error::Usage(
        "this program has no wrong mapping APIs in it: cargo run --release --features mutants -- \
         mutants, or mutants --rtl for defects of the RTL"
            .to_owned(),
    ))
}

/// A bar on a terminal; nothing elsewhere.
pub(crate) fn progress(len: u64, what: &str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(len)
    } else {
        ProgressBar::hidden()
    };
    let style = "{msg:>24} [{wide_bar}] {human_pos}/{human_len} {elapsed} (left {eta})";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// A job: its results, and everything that adds up over its machines.
struct Job {
    dir: ResultDir,
    sink: SharedSink,
    tally: Tally,
    traces: Vec<TraceRow>,
    dmabench: Option<dmabench::Report>,
    decisions: Option<replay::SharedDecisions>,
    seed: u64,
    profile: ProfileArg,
    command: String,
}

impl Job {
    fn new(common: &Common, name: &str, seed: u64, command: String) -> Result<Self, Error> {
        let target = common
            .out
            .clone()
            .unwrap_or_else(|| PathBuf::from("out").join(name));
        let dir = ResultDir::create(target)?;
        let sink = Sink::create(&dir, common.trace)?;
        Ok(Self {
            dir,
            sink,
            tally: Tally::default(),
            traces: Vec::new(),
            dmabench: None,
            decisions: None,
            seed,
            profile: common.profile,
            command,
        })
    }

    fn machine_error(&self, error: testbench::Error) -> Error {
        Error::Machine {
            error,
            command: self.command.clone(),
        }
    }

    /// Runs a campaign; `record` names its recording, if there is to be one.
    fn campaign(
        &mut self,
        options: &campaign::Options,
        waves: bool,
        record: Option<&str>,
    ) -> Result<(), Error> {
        let bar = progress(options.tlps, &format!("campaign, seed {}", options.seed));
        let sink = Rc::clone(&self.sink);
        let checker = |s: &Setup| Checker::new(&s.machine, true, Some(sink), ENOUGH);
        let mut c = Campaign::new(options.clone(), checker).map_err(|e| self.machine_error(e))?;
        let recording = record.map(|name| (name, Recording::start(&mut c.bench)));
        let result = c.run(|tlps| bar.set_position(tlps.min(options.tlps)));
        bar.finish_and_clear();
        result.map_err(|e| self.machine_error(e))?;
        if let Some((name, recording)) = recording {
            let dir = self.dir.partial();
            let written = recording.write(&c.bench, &campaign::setup(options), dir, name);
            written.map_err(|e| report::Error::io(dir, e))?;
        }
        let checker = &c.bench.sim.checker;
        checker.tally(&mut self.tally, c.bench.sim.cycles(), c.bench.calls);
        if waves {
            let first = checker.first_violation();
            self.waves(options, first)?;
        }
        Ok(())
    }

    /// The window of the waves for a first violation in this cycle.
    fn window(&self, first: Option<u64>) -> Result<Waves, Error> {
        let from = first.map_or(0, |c| c.saturating_sub(WAVES_BEFORE));
        let path = self.dir.partial().join("waves.fst");
        make_room(&path, WAVES_SPACE)?;
        Ok(Waves {
            path,
            from,
            until: from + WAVES_LENGTH,
        })
    }

    /// Repeats the campaign, which is the same to the cycle, and writes waves around the first
    /// violation, or of the first cycles.
    fn waves(&self, options: &campaign::Options, first: Option<u64>) -> Result<(), Error> {
        let window = self.window(first)?;
        let bar = progress(window.until, "waves");
        let checker = |s: &Setup| Checker::new(&s.machine, true, None, ENOUGH);
        let options = campaign::Options {
            waves: Some(window),
            ..options.clone()
        };
        let mut c = Campaign::new(options, checker).map_err(|e| self.machine_error(e))?;
        let result = c.run(|_| bar.tick());
        bar.finish_and_clear();
        c.bench.sim.close_waves();
        result.map_err(|e| self.machine_error(e))
    }

    /// Runs programs from `seed` on; the first that fails, shrunk, and why.
    fn fuzz(&mut self, args: &FuzzArgs) -> Result<Option<Shrunk>, Error> {
        let bar = progress(args.programs, &format!("programs from seed {}", args.seed));
        for seed in args.seed..args.seed.saturating_add(args.programs) {
            let profile = self.profile.profile();
            let program = program::generate(seed, args.steps as usize, profile);
            let (outcome, bench) = program::run_on(&program, Some(Rc::clone(&self.sink)))
                .map_err(|e| self.machine_error(e))?;
            let checker = &bench.sim.checker;
            checker.tally(&mut self.tally, bench.sim.cycles(), bench.calls);
            bar.inc(1);
            let Some(first) = outcome.failures.first() else {
                continue;
            };
            self.tally.failed += outcome.failures.len() as u64 - checker.failed();
            bar.set_message(format!("shrinking seed {seed}"));
            let short = program::shrink(
                &program,
                |p| program::fails_with(p, &first.judge, &first.field),
                |_, _| bar.tick(),
            );
            bar.finish_and_clear();
            return Ok(Some(Shrunk {
                seed,
                steps: program.ops.len(),
                failure: first.clone(),
                program: short,
            }));
        }
        bar.finish_and_clear();
        Ok(None)
    }

    fn replay_options(&self) -> replay::Options {
        replay::Options {
            seed: self.seed,
            profile: self.profile.profile(),
            waves: None,
            decisions: self.decisions.clone(),
        }
    }

    /// Replays a trace; returns the cycle of the first violation.
    fn replay(&mut self, path: &Path) -> Result<Option<u64>, Error> {
        if self.decisions.is_none() {
            self.decisions = Some(replay::Decisions::create(self.dir.partial())?);
        }
        let bar = progress(0, &format!("replay {}", stem(path)));
        let sink = Rc::clone(&self.sink);
        let checker =
            move |s: &Setup, blocking: bool| Checker::new(&s.machine, blocking, Some(sink), ENOUGH);
        let outcome = replay::replay(path, &self.replay_options(), checker, |n| {
            bar.set_position(n);
        });
        bar.finish_and_clear();
        if let Err(e) = &outcome
            && !matches!(e, replay::Error::Machine { .. })
        {
            self.dir.discard()?;
        }
        let outcome = outcome?;
        let (cycles, calls) = (outcome.bench.sim.cycles(), outcome.bench.calls);
        let first = outcome.bench.sim.checker.first_violation();
        outcome
            .bench
            .sim
            .checker
            .tally(&mut self.tally, cycles, calls);
        self.traces.push(outcome.row);
        Ok(first)
    }

    /// Repeats a replay, which is the same to the cycle, and writes waves around its first
    /// violation, or of the first cycles.
    fn replay_waves(&self, path: &Path, first: Option<u64>) -> Result<(), Error> {
        let options = replay::Options {
            waves: Some(self.window(first)?),
            decisions: None,
            ..self.replay_options()
        };
        let bar = progress(0, "waves");
        let checker = |s: &Setup, blocking: bool| Checker::new(&s.machine, blocking, None, ENOUGH);
        let outcome = replay::replay(path, &options, checker, |_| bar.tick());
        bar.finish_and_clear();
        outcome?.bench.sim.close_waves();
        Ok(())
    }

    fn dmabench(&mut self, options: &dmabench::Options, waves: bool) -> Result<(), Error> {
        let bar = progress(options.microseconds, "dmabench, us");
        let sink = Rc::clone(&self.sink);
        let checker = |s: &Setup| Checker::new(&s.machine, true, Some(sink), ENOUGH);
        let mut b = Benchmark::new(options.clone(), checker).map_err(|e| self.machine_error(e))?;
        let result = b.run(|us| bar.set_position(us));
        bar.finish_and_clear();
        self.dmabench = Some(result.map_err(|e| self.machine_error(e))?);
        let checker = &b.bench().sim.checker;
        checker.tally(&mut self.tally, b.bench().sim.cycles(), b.bench().calls);
        if waves {
            // Once more, the same to the cycle.
            let options = dmabench::Options {
                waves: Some(self.window(checker.first_violation())?),
                ..options.clone()
            };
            let checker = |s: &Setup| Checker::new(&s.machine, true, None, ENOUGH);
            let mut b = Benchmark::new(options, checker).map_err(|e| self.machine_error(e))?;
            b.run(|_| {}).map_err(|e| self.machine_error(e))?;
            b.bench_mut().sim.close_waves();
        }
        Ok(())
    }

    /// Writes the results and says the verdict.
    fn finish(self, json: bool) -> Result<bool, Error> {
        let t = &self.tally;
        let pass = t.failed == 0;
        let results = Results {
            summary: Summary {
                program: format!("tlproof {}", env!("CARGO_PKG_VERSION")),
                verdict: if pass { Verdict::Pass } else { Verdict::Fail },
                seed: self.seed,
                profile: self.profile.name().to_owned(),
                command: self.command.clone(),
                cycles: t.cycles,
                tlps: t.tlps,
                rows: t.rows,
                map_calls: t.map_calls,
                checked: t.checks.values().map(|c| c.0).sum(),
                failed: t.failed,
                traces: self.traces.clone(),
                dmabench: self.dmabench.clone(),
            },
            checks: t.rows(),
            violations: t.violations.clone(),
        };
        let sink = Rc::try_unwrap(self.sink)
            .map_err(|_| Error::Usage("results are still being written".to_owned()))?
            .into_inner();
        if let Some(d) = &self.decisions {
            d.borrow_mut().finish()?;
        }
        let dir = self.dir.finish(sink.finish()?, &results)?;
        let mut out = std::io::stdout().lock();
        if json {
            let text = serde_json::to_string_pretty(&results.summary)
                .map_err(|e| Error::Usage(e.to_string()))?;
            writeln!(out, "{text}")?;
            return Ok(pass);
        }
        if let Some(report) = &self.dmabench {
            writeln!(out, "{report}")?;
        }
        print_traces(&mut out, &self.traces)?;
        print_summary(&mut out, &results, &dir)?;
        Ok(pass)
    }
}

/// Finds out whether the disk takes `bytes` more. The writer of waves maps its files into memory:
/// where there is no room it would end in a bus error, not in an error that can be reported.
fn make_room(path: &Path, bytes: usize) -> Result<(), Error> {
    let io = |source| report::Error::Io {
        path: path.to_owned(),
        source,
    };
    let written = std::fs::File::create(path).and_then(|file| fill(file, bytes));
    let removed = std::fs::remove_file(path);
    written.and(removed).map_err(io)?;
    Ok(())
}

/// Writes zeros, to the disk and not only to the operating system.
fn fill(mut file: std::fs::File, bytes: usize) -> std::io::Result<()> {
    file.write_all(&vec![0; bytes])?;
    file.sync_all()
}

fn print_traces(out: &mut impl Write, traces: &[TraceRow]) -> Result<(), Error> {
    if traces.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "{:<24} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10}",
        "trace",
        "events",
        "mappings",
        "compared",
        "differ",
        "prot",
        "attrs",
        "IOVA",
        "TLPs",
        "violations"
    )?;
    for t in traces {
        writeln!(
            out,
            "{:<24} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10}",
            t.name,
            t.events,
            t.mappings,
            t.compared,
            t.differed,
            t.prot,
            t.attrs,
            t.iova,
            t.tlps,
            t.failed
        )?;
        if let Some(why) = &t.truncated {
            writeln!(out, "  truncated: {why}; replayed as far as it goes")?;
        }
    }
    for t in traces.iter().filter(|t| !t.differences.is_empty()) {
        writeln!(
            out,
            "{}: differences from the kernel's decisions, then what was not replayed or compared",
            t.name
        )?;
        for d in &t.differences {
            writeln!(out, "  {:>6}  {}; first: {}", d.count, d.reason, d.first)?;
        }
    }
    writeln!(out)?;
    Ok(())
}

fn print_summary(out: &mut impl Write, results: &Results, dir: &Path) -> Result<(), Error> {
    let s = &results.summary;
    // One of each kind, the first of it.
    let mut kinds: Vec<(&ViolationRow, usize)> = Vec::new();
    for v in &results.violations {
        let same = |k: &&mut (&ViolationRow, usize)| {
            (&k.0.judge, &k.0.field, &k.0.tap) == (&v.judge, &v.field, &v.tap)
        };
        match kinds.iter_mut().find(same) {
            Some(kind) => kind.1 += 1,
            None => kinds.push((v, 1)),
        }
    }
    const SHOWN: usize = 8;
    for (v, count) in kinds.iter().take(SHOWN) {
        writeln!(
            out,
            "VIOLATION, {count} times, first in cycle {} at {}: {} judge",
            v.cycle, v.tap, v.judge
        )?;
        writeln!(out, "  {}: expected {}, got {}", v.field, v.expected, v.got)?;
        writeln!(out, "  rule: {}", v.clause)?;
        for line in &v.story {
            writeln!(out, "  {line}")?;
        }
    }
    if kinds.len() > SHOWN {
        writeln!(
            out,
            "… and {} more kinds, see report.html",
            kinds.len() - SHOWN
        )?;
    }
    for (name, value) in [
        ("TLPs", s.tlps),
        ("TLPs at taps", s.rows),
        ("mapping calls", s.map_calls),
        ("checks", s.checked),
        ("violations", s.failed),
        ("cycles", s.cycles),
    ] {
        writeln!(out, "{name:<16} {value:>12}")?;
    }
    writeln!(out, "results          {}", dir.display())?;
    if s.failed == 0 {
        writeln!(
            out,
            "PASS: all promises kept (seed {}, profile {})",
            s.seed, s.profile
        )?;
    } else {
        writeln!(out, "FAIL: {} violations; repeat: {}", s.failed, s.command)?;
    }
    Ok(())
}

fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.strip_suffix(".trace").unwrap_or(name).to_owned()
}

fn campaign_options(args: &RunArgs) -> Result<campaign::Options, Error> {
    Ok(campaign::Options {
        seed: args.seed,
        tlps: args.tlps,
        profile: args.common.profile.profile(),
        map: args.machine.memory_map().map_err(Error::Usage)?,
        waves: None,
    })
}

/// A failing program, made short.
struct Shrunk {
    seed: u64,
    steps: usize,
    failure: program::Failure,
    program: program::Program,
}

fn fuzz(args: &FuzzArgs) -> Result<bool, Error> {
    if args.common.waves {
        return Err(Error::Usage(
            "--waves is for `run` and `replay`: run the shrunk program to see its waves".to_owned(),
        ));
    }
    let profile = args.common.profile.name();
    let command = format!(
        "tlproof fuzz --seed {} --programs {} --steps {} --profile {profile}",
        args.seed, args.programs, args.steps
    );
    let name = format!("fuzz-seed{}-{profile}", args.seed);
    let mut job = Job::new(&args.common, &name, args.seed, command)?;
    let failed = job.fuzz(args)?;
    if let Some(s) = &failed {
        let text = format!(
            "// Seed {}, {} of {} steps; {} judge: {}\n\n{}",
            s.seed,
            s.program.ops.len(),
            s.steps,
            s.failure.judge,
            s.failure.text,
            s.program
        );
        job.dir.write("shrunk.rs", &text)?;
        if !args.common.json {
            writeln!(std::io::stdout().lock(), "{text}")?;
        }
    }
    job.finish(args.common.json)
}

/// Prints what differs between two profiles; that something does is no violation.
fn compare(args: &CompareArgs) -> Result<bool, Error> {
    let [a, b] = args.profile[..] else {
        return Err(Error::Usage(
            "--profile is wanted twice: what to compare with what".to_owned(),
        ));
    };
    let program = program::generate(args.seed, args.steps as usize, a.profile());
    let profiles = [a, b].map(|p| (p.name(), p.profile()));
    let compared = program::compare::compare(&program, args.seed, profiles);
    let compared = compared.map_err(|error| Error::Machine {
        error,
        command: format!(
            "tlproof compare --profile {} --profile {} --seed {} --steps {}",
            a.name(),
            b.name(),
            args.seed,
            args.steps
        ),
    })?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let text =
            serde_json::to_string_pretty(&compared).map_err(|e| Error::Usage(e.to_string()))?;
        writeln!(out, "{text}")?;
    } else {
        write!(out, "{compared}")?;
    }
    Ok(true)
}

fn machine_options(args: &MachineArgs) -> String {
    let default = tlproof_pcie::MemoryMap::default();
    let mut s = String::new();
    if args.aperture != default.aperture {
        s += &format!(
            " --aperture {:#x}+{:#x}",
            args.aperture.base,
            args.aperture.size()
        );
    }
    if args.bus_offset != 0 {
        s += &format!(" --bus-offset {:#x}", args.bus_offset);
    }
    s
}

fn run_campaign(args: &RunArgs) -> Result<bool, Error> {
    if args.suite == SuiteArg::Iommu {
        return iommu_suite::run(&iommu_suite::Options {
            config: args.config.clone(),
            requests: args.requests,
            seed: args.seed,
            out: args.common.out.clone(),
            json: args.common.json,
        });
    }
    let options = campaign_options(args)?;
    let profile = args.common.profile.name();
    let command = format!(
        "tlproof run --seed {} --tlps {} --profile {profile}{}{}",
        args.seed,
        args.tlps,
        if args.kernel_trace {
            " --kernel-trace"
        } else {
            ""
        },
        machine_options(&args.machine)
    );
    let name = format!("run-seed{}-{profile}", args.seed);
    let mut job = Job::new(&args.common, &name, args.seed, command)?;
    let record = args.kernel_trace.then_some(name.as_str());
    job.campaign(&options, args.common.waves, record)?;
    job.finish(args.common.json)
}

fn run_replay(args: &ReplayArgs) -> Result<bool, Error> {
    let profile = args.common.profile.name();
    let names: Vec<String> = args
        .traces
        .iter()
        .map(|p| p.display().to_string())
        .collect();
    let command = format!(
        "tlproof replay --seed {} --profile {profile} {}",
        args.seed,
        names.join(" ")
    );
    let name = match args.traces.as_slice() {
        [one] => format!("replay-{}-{profile}", stem(one)),
        many => format!("replay-{}-traces-{profile}", many.len()),
    };
    // Every input is looked at before the first is replayed.
    for path in &args.traces {
        trace::Capture::open(path)?;
    }
    let mut job = Job::new(&args.common, &name, args.seed, command)?;
    // Waves of the first trace with a violation, or else of the first.
    let mut shown: Option<(&Path, Option<u64>)> = None;
    for path in &args.traces {
        let first = job.replay(path)?;
        if shown.is_none_or(|(_, seen)| seen.is_none() && first.is_some()) {
            shown = Some((path, first));
        }
    }
    if args.common.waves
        && let Some((path, first)) = shown
    {
        job.replay_waves(path, first)?;
    }
    job.finish(args.common.json)
}

fn check(args: &CheckArgs) -> Result<bool, Error> {
    let profile = args.common.profile.name();
    let command = format!("tlproof check --seed {} --profile {profile}", args.seed);
    let name = format!("check-seed{}-{profile}", args.seed);
    let mut job = Job::new(&args.common, &name, args.seed, command)?;
    let first = job.replay(Path::new(CHECK_TRACE))?;
    let options = campaign::Options {
        seed: args.seed,
        tlps: CHECK_TLPS,
        profile: args.common.profile.profile(),
        map: tlproof_pcie::MemoryMap::default(),
        waves: None,
    };
    // One file of waves: of the replay, if that is where a promise was broken.
    let replay_waves = args.common.waves && first.is_some();
    job.campaign(&options, args.common.waves && !replay_waves, None)?;
    if replay_waves {
        job.replay_waves(Path::new(CHECK_TRACE), first)?;
    }
    job.finish(args.common.json)
}

fn dmabench(args: &DmabenchArgs) -> Result<bool, Error> {
    let options = args.options().map_err(Error::Usage)?;
    let name = format!("dmabench-seed{}-{}", args.seed, args.common.profile.name());
    let mut job = Job::new(&args.common, &name, args.seed, args.command())?;
    job.dmabench(&options, args.common.waves)?;
    job.finish(args.common.json)
}

fn tree(args: &TreeArgs) -> Result<bool, Error> {
    let map = args.machine.memory_map().map_err(Error::Usage)?;
    let command = format!("tlproof tree{}", machine_options(&args.machine));
    let fail = |error: testbench::Error| Error::Machine {
        error,
        command: command.clone(),
    };
    let options = simulation::Options {
        map,
        ..simulation::Options::default()
    };
    let checker = Checker::new(&options, true, None, ENOUGH);
    let mut sim = Simulation::new(options, checker).map_err(|e| fail(e.into()))?;
    let tree = testbench::bring_up_tree(&mut sim, Acs::STANDARD).map_err(fail)?;
    let mut out = std::io::stdout().lock();
    if args.verbose {
        write!(out, "{tree}")?;
    } else {
        write!(out, "{}", tree.diagram())?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_waves_is_tried_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("waves.fst");
        make_room(&path, 4096).unwrap();
        assert!(!path.exists());
        let missing = dir.path().join("none/waves.fst");
        let e = make_room(&missing, 4096).unwrap_err();
        assert!(e.to_string().contains("none/waves.fst"), "{e}");
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let e = fill(full, WAVES_SPACE).unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::StorageFull);
    }
}
