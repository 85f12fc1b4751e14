//! Wrong implementations against workloads: which of them the testbench notices, and by what.

mod peers;
mod rules;
mod workloads;

use std::{collections::BTreeSet, io::Write};

use serde::Serialize;
use tlproof_dma::{
    Profile,
    mutants::{Mutant, arm},
};

use crate::{
    cli::MutantsArgs,
    commands,
    program::{Failure, generate, run_on},
    testbench::{Error, Testbench},
};

/// Steps of a random program.
const STEPS: usize = 60;

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name.
    pub mutant: String,
    /// What is wrong in it.
    pub what: String,
    /// Who noticed it; `None` when it survived.
    pub killed: Option<Kill>,
    /// Why it need not be noticed.
    pub exempt: Option<&'static str>,
}

/// How a mutant was noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kill {
    /// The judge.
    pub judge: String,
    /// The field or rule.
    pub field: String,
    /// The TLP, 0 if none is concerned.
    pub tlp: u64,
    /// The workload.
    pub workload: String,
    /// All of it in a line.
    pub text: String,
}

/// A workload, and what it finds without a mutant.
struct Workload {
    name: String,
    run: Box<dyn Fn() -> Result<Vec<Failure>, Error>>,
    clean: Option<BTreeSet<(String, String)>>,
}

impl Workload {
    fn random(seed: u64) -> Self {
        Self {
            name: format!("random, seed {seed}"),
            run: Box::new(move || {
                let program = generate(seed, STEPS, Profile::Intended);
                let (out, bench) = run_on(&program, None)?;
                let mut all = out.failures;
                all.extend(looked_at(bench));
                Ok(all)
            }),
            clean: None,
        }
    }

    /// A machine that stops is a failure too.
    fn failures(&self, mutant: Option<Mutant>) -> Vec<Failure> {
        let _guard = arm(mutant);
        (self.run)().unwrap_or_else(|e| {
            vec![Failure {
                judge: "machine".to_owned(),
                field: "stopped".to_owned(),
                tlp: 0,
                text: e.to_string(),
            }]
        })
    }

    /// The first failure that there is not without the mutant.
    fn kills(&mut self, mutant: Mutant) -> Option<Kill> {
        let found = self.failures(Some(mutant));
        if found.is_empty() {
            return None;
        }
        if self.clean.is_none() {
            let clean = self.failures(None);
            self.clean = Some(clean.into_iter().map(|f| (f.judge, f.field)).collect());
        }
        let clean = self.clean.as_ref()?;
        let f = found
            .into_iter()
            .find(|f| !clean.contains(&(f.judge.clone(), f.field.clone())))?;
        Some(Kill {
            judge: f.judge,
            field: f.field,
            tlp: f.tlp,
            workload: self.name.clone(),
            text: f.text,
        })
    }
}

/// What the API warned of, what its events say, and what KMSAN reports.
fn looked_at(mut bench: Testbench) -> Vec<Failure> {
    let mut all = rules::check(&bench.dma.trace.take(), &bench.sim.options().map);
    let mut add = |judge: &str, field: String, text: String| {
        all.push(Failure {
            judge: judge.to_owned(),
            field,
            tlp: 0,
            text,
        });
    };
    for w in bench.dma.warnings().iter() {
        add("kernel warning", format!("{:?}", w.kind), w.text.clone());
    }
    if let Some(debug) = bench.dma.debug() {
        for c in debug.log.shown() {
            let name = format!("{:?}", c.report);
            let name = name.split([' ', '(', '{']).next().unwrap_or_default();
            add("dma-debug", name.to_owned(), c.to_string());
        }
    }
    if let Some(k) = bench.dma.kmsan() {
        for r in k.reports() {
            add("kmsan", "uninitialised".to_owned(), format!("{r:?}"));
        }
    }
    all
}

/// Runs `only`, or all if it is empty; `each` gets a row as soon as it is known.
pub fn run(only: &[Mutant], programs: u64, mut each: impl FnMut(&Row)) -> Vec<Row> {
    let mut workloads: Vec<_> = (1..=programs).map(Workload::random).collect();
    workloads.extend(workloads::all());
    let chosen = if only.is_empty() { Mutant::ALL } else { only };
    let row = |m: &Mutant| {
        let killed = match m.exempt() {
            Some(_) => None,
            None => workloads.iter_mut().find_map(|w| w.kills(*m)),
        };
        let row = Row {
            mutant: m.to_string(),
            what: m.what(),
            killed,
            exempt: m.exempt(),
        };
        each(&row);
        row
    };
    chosen.iter().map(row).collect()
}

/// Runs the subcommand; `true` when none survived that must not.
///
/// # Errors
/// A name that there is not; standard output or the file cannot be written.
pub fn command(args: &MutantsArgs) -> Result<bool, commands::Error> {
    let mut only = Vec::new();
    for name in &args.only {
        only.push(
            name.parse::<Mutant>()
                .map_err(|e| commands::Error::Usage(format!("--only: {e}")))?,
        );
    }
    let mut out = std::io::stdout();
    writeln!(
        out,
        "| mutant | what is wrong | noticed by | TLP | workload |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    let rows = run(&only, args.programs, |row| {
        // A closed pipe shows at the last line.
        let _ = writeln!(out, "{}", line(row));
    });
    let killed = rows.iter().filter(|r| r.killed.is_some()).count();
    let exempt = rows.iter().filter(|r| r.exempt.is_some()).count();
    let survived = rows.len() - killed - exempt;
    writeln!(
        std::io::stdout(),
        "\n{} mutants: {killed} killed, {survived} survived, {exempt} not applicable",
        rows.len()
    )?;
    if let Some(path) = &args.json {
        let file = std::fs::File::create(path)?;
        serde_json::to_writer_pretty(file, &rows).map_err(std::io::Error::from)?;
    }
    Ok(survived == 0)
}

fn line(row: &Row) -> String {
    let (by, tlp, workload) = match (&row.killed, row.exempt) {
        (Some(k), _) => (
            format!("{}: {}", k.judge, k.field),
            match k.tlp {
                0 => String::new(),
                n => n.to_string(),
            },
            k.workload.clone(),
        ),
        (None, Some(why)) => (
            format!("not applicable: {why}"),
            String::new(),
            String::new(),
        ),
        (None, None) => ("**survived**".to_owned(), String::new(), String::new()),
    };
    format!(
        "| {} | {} | {by} | {tlp} | {workload} |",
        row.mutant, row.what
    )
}
