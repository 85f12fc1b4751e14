//! The ledger of what the IOMMU specification demands: `docs/ledger`. Reads files, simulates nothing.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

const HEADER: [&str; 6] = ["id", "section", "statement", "status", "test", "reason"];

/// A row, and the file where it stands.
struct Row {
    file: String,
    id: String,
    section: String,
    statement: String,
    status: String,
    tests: Vec<String>,
    reason: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate stands in the workspace root")
        .to_owned()
}

/// The fields of a line; a field in quotes may hold commas and doubled quotes.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let last = fields.last_mut().expect("there is one");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                last.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => last.push(c),
        }
    }
    fields
}

/// The rows of a chapter, or what is wrong with its lines.
fn rows(file: &str, text: &str) -> Result<Vec<Row>, String> {
    let mut lines = text.lines();
    if fields(lines.next().unwrap_or_default()) != HEADER {
        return Err(format!("{file}: the header is not {HEADER:?}"));
    }
    let parse = |line: &str| {
        let fields: [String; 6] = fields(line)
            .try_into()
            .map_err(|f| format!("{file}: {} fields in {line}", Vec::len(&f)))?;
        let [id, section, statement, status, tests, reason] = fields;
        Ok(Row {
            file: file.to_owned(),
            id,
            section,
            statement,
            status,
            tests: tests.split_whitespace().map(str::to_owned).collect(),
            reason,
        })
    };
    lines.map(parse).collect()
}

/// Names of the functions with `#[test]` in a source.
fn tests_in(source: &str) -> HashSet<&str> {
    let mut names = HashSet::new();
    let mut is_test = false;
    for line in source.lines() {
        let line = line.trim();
        if line == "#[test]" {
            is_test = true;
        } else if let Some(name) = line.strip_prefix("fn ").filter(|_| is_test) {
            names.extend(name.split('(').next());
            is_test = false;
        } else if !line.starts_with("#[") {
            is_test = false;
        }
    }
    names
}

/// What is wrong with the rows. `source` is the text of a file of the workspace.
fn problems(rows: &[Row], source: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut ids = HashSet::new();
    for row in rows {
        let mut wrong = |what: &str| problems.push(format!("{}: {}: {what}", row.file, row.id));
        if row.id.is_empty() || !ids.insert(&row.id) {
            wrong("the id is empty or repeats");
        }
        if row.section.is_empty() || row.statement.is_empty() {
            wrong("no section or no statement");
        }
        match row.status.as_str() {
            "covered" if row.tests.is_empty() => wrong("covered without a test"),
            "waived" if row.reason.is_empty() => wrong("waived without a reason"),
            "missing" => wrong("no test covers it"),
            "covered" | "waived" => {}
            _ => wrong("the status is none"),
        }
        if row.status != "covered" && !row.tests.is_empty() {
            wrong("a test, but not covered");
        }
        for test in &row.tests {
            let Some((file, name)) = test.split_once("::") else {
                wrong(&format!("{test} is not FILE::FUNCTION"));
                continue;
            };
            match source(file) {
                None => wrong(&format!("there is no {file}")),
                Some(text) if !tests_in(&text).contains(name) => {
                    wrong(&format!("there is no test {name} in {file}"));
                }
                Some(_) => {}
            }
        }
    }
    problems
}

/// Every row of every chapter.
fn ledger() -> Vec<Row> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root().join("docs/ledger")).expect("docs/ledger is there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "csv") {
            let file = path.file_name().expect("a file").to_string_lossy();
            let text = fs::read_to_string(&path).expect("text");
            all.extend(rows(&file, &text).unwrap_or_else(|e| panic!("{e}")));
        }
    }
    all
}

#[test]
fn rows_name_tests_and_reasons() {
    let all = ledger();
    assert!(all.len() > 300, "{} rows", all.len());
    let problems = problems(&all, |file| fs::read_to_string(root().join(file)).ok());
    assert_eq!(problems, [""; 0]);
}

/// The table of the README has the counts of the files.
#[test]
fn the_readme_counts_the_rows() {
    let mut counts: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    for row in ledger() {
        let status = ["covered", "waived", "missing"];
        let status = status.iter().position(|s| *s == row.status);
        for name in [format!("[`{0}`]({0})", row.file), "all".to_owned()] {
            let count = counts.entry(name).or_default();
            count[0] += 1;
            count[1 + status.expect("a status")] += 1;
        }
    }
    let readme = fs::read_to_string(root().join("docs/ledger/README.md")).expect("a README");
    for (name, [rows, covered, waived, missing]) in counts {
        let line = format!("| {name} | {rows} | {covered} | {waived} | {missing} |");
        assert!(
            readme.lines().any(|l| l == line),
            "not in README.md: {line}"
        );
    }
}

/// What the check says of a row that is wrong.
#[test]
fn wrong_rows_are_found() {
    let source = |file: &str| {
        (file == "a.rs").then(|| "#[test]\n#[ignore]\nfn good() {}\nfn helper() {}\n".to_owned())
    };
    let check = |lines: &str| {
        let text = format!("{}\n{lines}", HEADER.join(","));
        match rows("x.csv", &text) {
            Ok(rows) => problems(&rows, source),
            Err(e) => vec![e],
        }
    };
    let good = "A-1,1,\"One, \"\"two\"\".\",covered,a.rs::good,";
    assert_eq!(check(good), [""; 0]);
    assert_eq!(check("A-1,1,One.,waived,,software"), [""; 0]);
    for bad in [
        &format!("{good}\n{good}"),
        ",1,One.,covered,a.rs::good,",
        "A-1,,One.,covered,a.rs::good,",
        "A-1,1,,covered,a.rs::good,",
        "A-1,1,One.,covered,,",
        "A-1,1,One.,covered,a.rs::good a.rs::helper,",
        "A-1,1,One.,covered,a.rs::absent,",
        "A-1,1,One.,covered,b.rs::good,",
        "A-1,1,One.,covered,good,",
        "A-1,1,One.,waived,,",
        "A-1,1,One.,waived,a.rs::good,software",
        "A-1,1,One.,missing,,",
        "A-1,1,One.,done,,",
        "A-1,1,One, two.,covered,a.rs::good,",
    ] {
        assert_eq!(check(bad).len(), 1, "{bad}: {:?}", check(bad));
    }
}
