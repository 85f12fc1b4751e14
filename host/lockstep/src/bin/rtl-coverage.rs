//! `rtl-coverage DIRECTORY`: line coverage of `rtl/iommu` from what models have left in DIRECTORY,
//! against `rtl/iommu/coverage.csv`, which lists the lines that no campaign reaches, with reasons. Run
//! by `rtl/coverage.sh`. Exit status 0 if each other line is covered, 1 if not, 2 for bad usage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use serde::Deserialize;

const BLOCK: &str = "rtl/iommu/";
const WAIVERS: &str = "rtl/iommu/coverage.csv";

type Line = (String, u32);

/// Counts of a piece of code over all instances.
#[derive(Default)]
struct Points {
    counts: BTreeMap<(String, String, String), u64>,
    lines: BTreeMap<Line, BTreeSet<(String, String, String)>>,
}

#[derive(Deserialize)]
struct Waiver {
    file: String,
    line: u32,
    text: String,
    reason: String,
}

impl Points {
    /// Adds a file of Verilator: a line a point, fields between control characters, a count at the end.
    fn read(&mut self, path: &Path) -> io::Result<()> {
        let bytes = fs::read(path)?;
        for record in String::from_utf8_lossy(&bytes).lines() {
            let Some((fields, count)) = record.rsplit_once("' ") else {
                continue;
            };
            let field = |name: &str| {
                fields
                    .trim_start_matches("C '")
                    .split('\u{1}')
                    .filter_map(|f| f.split_once('\u{2}'))
                    .find(|f| f.0 == name)
                    .map(|f| f.1.to_owned())
                    .unwrap_or_default()
            };
            let file = field("f");
            if !file.starts_with(BLOCK) || !field("page").starts_with("v_line") {
                continue;
            }
            let point = (
                file.clone(),
                format!("{}.{}", field("l"), field("n")),
                field("o"),
            );
            *self.counts.entry(point.clone()).or_default() += count.parse::<u64>().unwrap_or(0);
            for range in field("S").split(',') {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (Ok(first), Ok(last)) = (first.parse(), last.parse::<u32>()) else {
                    continue;
                };
                for line in first..=last {
                    let points = self.lines.entry((file.clone(), line)).or_default();
                    points.insert(point.clone());
                }
            }
        }
        Ok(())
    }

    /// A line is covered if all that begins on it has been executed.
    fn is_covered(&self, line: &Line) -> bool {
        self.lines[line].iter().all(|point| self.counts[point] > 0)
    }
}

fn text(sources: &mut BTreeMap<String, Vec<String>>, line: &Line) -> String {
    let source = sources.entry(line.0.clone()).or_insert_with(|| {
        let text = fs::read_to_string(&line.0).unwrap_or_default();
        text.lines().map(|l| l.trim().to_owned()).collect()
    });
    source.get(line.1 as usize - 1).cloned().unwrap_or_default()
}

fn report(directory: &Path) -> Result<bool, Box<dyn std::error::Error>> {
    let mut points = Points::default();
    for entry in fs::read_dir(directory)? {
        points.read(&entry?.path())?;
    }
    if points.lines.is_empty() {
        return Err(format!("{}: nothing about {BLOCK}", directory.display()).into());
    }
    let mut sources = BTreeMap::new();
    let mut waived = BTreeSet::new();
    let mut good = true;
    for waiver in csv::Reader::from_path(WAIVERS)?.deserialize() {
        let waiver: Waiver = waiver?;
        let line = (format!("{BLOCK}{}", waiver.file), waiver.line);
        let wrong = if !points.lines.contains_key(&line) {
            Some("is no line of code")
        } else if text(&mut sources, &line) != waiver.text {
            Some("reads otherwise now")
        } else if points.is_covered(&line) {
            Some("is covered")
        } else if waiver.reason.is_empty() {
            Some("has no reason")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            println!("{WAIVERS}: {}:{} {wrong}", line.0, line.1);
            good = false;
        }
        waived.insert(line);
    }
    let mut files: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for line in points.lines.keys() {
        let (covered, all) = files.entry(&line.0).or_default();
        *all += 1;
        if points.is_covered(line) {
            *covered += 1;
        } else if !waived.contains(line) {
            println!(
                "{}:{} not covered: {}",
                line.0,
                line.1,
                text(&mut sources, line)
            );
            good = false;
        }
    }
    let (mut covered, mut all) = (0, 0);
    for (file, (c, a)) in files {
        println!("{file}: {c} of {a}");
        covered += c;
        all += a;
    }
    let percent = 100.0 * f64::from(covered) / f64::from(all);
    println!(
        "{covered} of {all} lines covered ({percent:.2} %), {} waived",
        waived.len()
    );
    Ok(good)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [directory] = &arguments[..] else {
        eprintln!("usage: rtl-coverage DIRECTORY");
        return ExitCode::from(2);
    };
    match report(Path::new(directory)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("rtl-coverage: {e}");
            ExitCode::from(2)
        }
    }
}
