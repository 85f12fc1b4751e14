//! `mutants --rtl`: defects of the IOMMU's RTL, one a patch in `rtl/mutants`, and whether the lock-step
//! with the golden model notices them.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Serialize;

use crate::{
    cli::MutantsArgs,
    commands::{self, Error},
};

/// A defect.
#[derive(Clone, Debug)]
pub struct Defect {
    /// Name of its patch.
    pub name: String,
    /// What is wrong: the first line of the patch.
    pub what: String,
    patch: String,
}

/// What became of a defect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Name of the defect.
    pub mutant: String,
    /// What is wrong.
    pub what: String,
    /// After how many requests it was noticed; `None` if it was not.
    pub noticed: Option<u64>,
    /// The first difference, or why there is no verdict.
    pub text: String,
}

/// The checkout that this program was built from.
fn checkout() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(path: &Path) -> Result<String, Error> {
    let said = |e: io::Error| {
        Error::Usage(format!(
            "{}: {e}; `mutants --rtl` builds the checkout that this program comes from",
            path.display()
        ))
    };
    fs::read_to_string(path).map_err(said)
}

/// The defects of `rtl/mutants`, in order of their names.
///
/// # Errors
/// The folder or a patch cannot be read.
pub fn defects() -> Result<Vec<Defect>, Error> {
    let folder = checkout().join("rtl/mutants");
    let entries =
        fs::read_dir(&folder).map_err(|e| Error::Usage(format!("{}: {e}", folder.display())))?;
    let mut all = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "patch") {
            continue;
        }
        let patch = read(&path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        all.push(Defect {
            name: name.into_owned(),
            what: patch.lines().next().unwrap_or_default().to_owned(),
            patch,
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

impl Defect {
    /// The file that it changes, from the root of the checkout, and what it becomes.
    ///
    /// # Errors
    /// The patch does not fit the RTL any more.
    pub fn apply(&self) -> Result<(PathBuf, String), Error> {
        let bad = |why: String| Error::Usage(format!("rtl/mutants/{}.patch: {why}", self.name));
        let start = self
            .patch
            .find("--- a/")
            .ok_or_else(|| bad("no header".to_owned()))?;
        let patch = diffy::Patch::from_str(&self.patch[start..]).map_err(|e| bad(e.to_string()))?;
        let file = patch.modified().unwrap_or_default();
        let file = PathBuf::from(file.strip_prefix("b/").unwrap_or(file));
        let source = read(&checkout().join(&file))?;
        let changed = diffy::apply(&source, &patch).map_err(|e| bad(e.to_string()))?;
        Ok((file, changed))
    }

    fn run(&self, tree: &Path, requests: u64) -> Result<Row, Error> {
        let row = |noticed, text: String| Row {
            mutant: self.name.clone(),
            what: self.what.clone(),
            noticed,
            text,
        };
        let (file, changed) = self.apply()?;
        // The build takes a file from this tree rather than from the checkout.
        let rtl = tree.join("rtl");
        if rtl.exists() {
            fs::remove_dir_all(&rtl)?;
        }
        let target = tree.join(file);
        fs::create_dir_all(target.parent().unwrap_or(&rtl))?;
        fs::write(target, changed)?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .current_dir(checkout())
            .env("TLPROOF_ROOT", tree.canonicalize()?)
            .env("TLPROOF_TOPS", "iommu_formats")
            // Only that of `full`.
            .env("TLPROOF_CONFIGS", "4")
            .args(["build", "--release", "--quiet", "-p", "tlproof-lockstep"])
            .args(["--bin", "lockstep", "--target-dir"])
            .arg(tree.join("target"))
            .output()?;
        if !built.status.success() {
            let text = String::from_utf8_lossy(&built.stderr).into_owned();
            return Ok(row(None, format!("it does not build:\n{text}")));
        }
        let run = Command::new(tree.join("target/release/lockstep"))
            .args(["full", &requests.to_string(), "1"])
            .output()?;
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        let first = said.lines().next().unwrap_or_default().to_owned();
        // "after N requests: what differs"
        let after = first
            .strip_prefix("after ")
            .and_then(|rest| rest.split_once(" requests: "))
            .and_then(|(n, text)| Some((n.parse().ok()?, text.to_owned())));
        Ok(match (run.status.code(), after) {
            (Some(0), _) => row(None, format!("survived {requests} requests")),
            (Some(1), Some((n, text))) => row(Some(n), text),
            (code, _) => row(
                None,
                format!("the campaign itself failed: {code:?} {first}"),
            ),
        })
    }
}

/// Runs the subcommand; `true` when all were noticed.
///
/// # Errors
/// A name that there is not, a patch that does not fit, or files that cannot be written.
pub fn command(options: &MutantsArgs) -> Result<bool, Error> {
    let mut chosen = defects()?;
    if !options.only.is_empty() {
        for name in &options.only {
            if !chosen.iter().any(|d| d.name == *name) {
                return Err(Error::Usage(format!(
                    "rtl/mutants has no {name}: the names are those of its patches"
                )));
            }
        }
        chosen.retain(|d| options.only.contains(&d.name));
    }
    let tree = checkout().join("target/rtl-mutants");
    fs::create_dir_all(&tree)?;
    let mut out = io::stdout();
    writeln!(
        out,
        "| defect | what is wrong | requests | first difference |"
    )?;
    writeln!(out, "|---|---|---|---|")?;
    let bar = commands::progress(chosen.len() as u64, "defects of the RTL");
    let mut rows = Vec::new();
    for defect in &chosen {
        let row = defect.run(&tree, options.requests)?;
        bar.suspend(|| writeln!(out, "{}", line(&row)))?;
        bar.inc(1);
        rows.push(row);
    }
    bar.finish_and_clear();
    let noticed = rows.iter().filter(|r| r.noticed.is_some()).count();
    writeln!(
        out,
        "\n{} defects: {noticed} noticed within {} requests, {} not",
        rows.len(),
        options.requests,
        rows.len() - noticed
    )?;
    if let Some(path) = &options.json {
        serde_json::to_writer_pretty(fs::File::create(path)?, &rows).map_err(io::Error::from)?;
    }
    Ok(noticed == rows.len())
}

fn line(row: &Row) -> String {
    let (after, mut text) = match row.noticed {
        Some(n) => (n.to_string(), row.text.clone()),
        None => ("NOT NOTICED".to_owned(), row.text.clone()),
    };
    if let Some((at, _)) = text
        .char_indices()
        .nth(100)
        .filter(|_| row.noticed.is_some())
    {
        text.truncate(at);
        text.push('…');
    }
    format!(
        "| {} | {} | {after} | {} |",
        row.mutant,
        row.what,
        text.replace('|', "\\|")
    )
}
