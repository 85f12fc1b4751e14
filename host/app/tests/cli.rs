//! Usage and bad input: a clear message, exit status 2, nothing that looks complete.

use std::{fs, process::Command};

use tempfile::tempdir;

fn tlproof(args: &[&str]) -> (Option<i32>, String, String) {
    let r = Command::new(env!("CARGO_BIN_EXE_tlproof"))
        .args(args)
        .output()
        .expect("it starts");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (r.status.code(), text(&r.stdout), text(&r.stderr))
}

#[track_caller]
fn refused(args: &[&str], says: &str) {
    let (code, out, err) = tlproof(args);
    assert_eq!(code, Some(2), "{args:?}: {out}{err}");
    assert!(err.contains(says), "{args:?}: {err}");
    assert!(!err.contains("panicked"), "{err}");
}

#[test]
fn help_and_version() {
    for command in [
        vec!["--help"],
        vec!["run", "--help"],
        vec!["replay", "--help"],
        vec!["--version"],
    ] {
        let (code, out, _) = tlproof(&command);
        assert_eq!(code, Some(0));
        assert!(out.contains("tlproof"), "{out}");
    }
}

#[test]
fn tree_shows_every_function() {
    let (code, out, err) = tlproof(&["tree"]);
    assert_eq!(code, Some(0), "{err}");
    insta::assert_snapshot!(out);
}

#[test]
fn unknown_options_and_values() {
    refused(&["fly"], "fly");
    refused(&["run", "--speed"], "--speed");
    refused(&["run", "--tlps", "0"], "0");
    refused(&["run", "--seed", "x"], "x");
    refused(&["run", "--profile", "linux-2.4"], "linux-2.4");
    refused(&["replay"], "TRACE");
}

/// A capability file is read before anything runs; one that is not that of the RTL is a violation that
/// names the field.
#[test]
fn capability_files() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("mine.toml");
    let file = path.to_str().expect("UTF-8");
    let run = ["run", "--suite", "iommu", "--requests", "1", "--config"];
    let with_config = |config| [&run[..], &[config]].concat();
    refused(&with_config("nothing.toml"), "nothing.toml: No such file");
    for (text, says) in [
        (
            "[capabilities]\npas = 56\nsv49 = true\n",
            "unknown field `sv49`",
        ),
        (
            "[capabilities]\npas = 56\nsv48 = true\n",
            "sv48 without sv39",
        ),
    ] {
        fs::write(&path, text).expect("a file");
        refused(&with_config(file), says);
    }
    fs::write(&path, "[capabilities]\npas = 56\nsv39 = true\nhpm = true\n").expect("a file");
    let out = dir.path().join("out");
    let out = ["--out", out.to_str().expect("UTF-8")];
    let (code, said, err) = tlproof(&[&with_config(file)[..], &out].concat());
    assert_eq!(code, Some(1), "{said}{err}");
    let expected = "the capability file mine and the RTL disagree: sv48 is 0 in the file, 1 in the \
                    register";
    assert!(said.contains(expected), "{said}");
    assert!(
        said.contains("hpm is 1 in the file, 0 in the register"),
        "{said}"
    );
}

/// The same profile twice differs nowhere; before the series a peer behind the host bridge was
/// cacheable memory.
#[test]
fn profiles_compared() {
    let compare = |a, b, more: &[&str]| {
        let args = ["compare", "--profile", a, "--profile", b, "--steps", "40"];
        let (code, out, err) = tlproof(&[&args[..], more].concat());
        assert_eq!(code, Some(0), "{out}{err}");
        out
    };
    let seed = ["--seed", "8"];
    let out = compare("intended", "intended", &seed);
    assert!(out.contains("no call looks different"), "{out}");
    let out = compare("intended", "pre-series", &seed);
    assert!(out.contains("MapPeer"), "{out}");
    let json = compare("intended", "pre-series", &["--seed", "8", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let steps = value["calls"].as_array().unwrap().iter();
    let steps = steps.flat_map(|c| c["steps"].as_array().unwrap());
    let count = |step: &serde_json::Value, memory_type: &str| {
        let mut lines = step["lines"].as_array().unwrap().iter();
        let line = lines.find(|l| l["memory_type"] == memory_type);
        line.map(|l| (l["count"][0].as_u64(), l["count"][1].as_u64()))
    };
    // As many that were device memory are cacheable.
    let swapped = |step| match (count(step, "device"), count(step, "write-back")) {
        (Some((n, Some(0))), Some((Some(0), m))) => n == m && n > Some(0),
        _ => false,
    };
    assert!(steps.into_iter().any(swapped), "{json}");

    refused(&["compare"], "--profile");
    refused(&["compare", "--profile", "intended"], "twice");
    refused(
        &["compare", "--profile", "x", "--profile", "y"],
        "linux-7.2",
    );
}

#[test]
fn impossible_topologies() {
    refused(&["tree", "--aperture", "0x40000000+0x100000"], "aperture");
    refused(&["tree", "--aperture", "0x80000000+0x10000000"], "overlaps");
    refused(&["tree", "--aperture", "0x40000000+0"], "size is 0");
    refused(
        &["tree", "--aperture", "0xffffffffffffffff+0x100000"],
        "56-bit",
    );
    refused(&["tree", "--aperture", "0x40000400+0x100000"], "1 MiB");
    refused(&["tree", "--bus-offset", "0x50000000"], "--bus-offset");
}

#[test]
fn unreadable_traces() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.trace");
    let name = path.to_str().unwrap();
    refused(&["replay", name], "x.trace");
    fs::write(&path, "").unwrap();
    refused(&["replay", name], "no events");
    refused(
        &["replay", dir.path().to_str().unwrap()],
        dir.path().to_str().unwrap(),
    );
}

#[test]
fn results_that_cannot_be_written() {
    refused(
        &["run", "--tlps", "10", "--out", "/proc/no/such"],
        "/proc/no",
    );
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("mine.txt"), "keep me").unwrap();
    refused(
        &["run", "--tlps", "10", "--out", dir.path().to_str().unwrap()],
        "holds no results",
    );
    assert_eq!(
        fs::read_to_string(dir.path().join("mine.txt")).unwrap(),
        "keep me"
    );
}

#[test]
fn dmabench_reports_and_repeats() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("a");
    let args = |out: &std::path::Path, more: &[&str]| -> Vec<String> {
        let mut args: Vec<_> = ["dmabench", "-s", "1", "-x", "1000", "--out"]
            .map(str::to_owned)
            .into();
        args.push(out.to_str().unwrap().to_owned());
        args.extend(more.iter().map(|s| (*s).to_owned()));
        args
    };
    let run = |args: Vec<String>| tlproof(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let more = ["-t", "2", "-g", "2", "-m", "1", "--move", "--verify"];
    let (code, text, err) = run(args(&out, &more));
    assert_eq!(code, Some(0), "{text}{err}");
    let title = "dma mapping benchmark(sg): threads:2 milliseconds:1 node:-1 \
                 dir:BIDIRECTIONAL sg_nents: 2";
    for says in [
        title,
        "average map latency(us):",
        "average unmap latency(us):",
        "PASS",
    ] {
        assert!(text.contains(says), "{text}");
    }
    let json = [&more[..], &["--json"]].concat();
    let (code, first, _) = run(args(&out, &json));
    assert_eq!(code, Some(0));
    let value: serde_json::Value = serde_json::from_str(&first).unwrap();
    let report = &value["dmabench"];
    assert!(report["loops"].as_u64().unwrap() > 0);
    assert!(report["unmap"]["average_ns"].as_u64().unwrap() > 0);
    assert_eq!(report["compared"], report["moved"]);
    let (_, second, _) = run(args(&out, &json));
    assert_eq!(first, second);
}

#[test]
fn dmabench_finds_a_bar_mapped_as_memory() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("b");
    let out = out.to_str().unwrap();
    let (code, text, err) = tlproof(&[
        "dmabench",
        "-s",
        "1",
        "--mmio",
        "--move",
        "--profile",
        "pre-series",
        "--waves",
        "--out",
        out,
    ]);
    assert_eq!(code, Some(1), "{text}{err}");
    assert!(text.contains("memory type"), "{text}");
    assert!(fs::metadata(format!("{out}/waves.fst")).unwrap().len() > 1000);
}

#[test]
fn dmabench_refuses_what_the_kernels_tool_refuses() {
    for (option, bad) in [
        ("-t", "0"),
        ("-t", "1025"),
        ("-s", "0"),
        ("-s", "301"),
        ("-n", "1"),
        ("-n", "-2"),
        ("-b", "19"),
        ("-b", "65"),
        ("-d", "3"),
        ("-x", "10000001"),
        ("-g", "0"),
        ("-g", "1025"),
        ("-m", "2"),
        ("--access-cycles", "1001"),
    ] {
        refused(&["dmabench", option, bad], bad);
    }
    refused(&["dmabench", "--verify"], "--move");
    refused(&["dmabench", "-g", "128", "-t", "3", "--mmio"], "256 pages");
    refused(&["dmabench", "-g", "1024", "-t", "1024"], "4096 MiB");
    let dir = tempdir().unwrap();
    let out = dir.path().join("c");
    let out = out.to_str().unwrap();
    refused(
        &["dmabench", "-b", "20", "-g", "1024", "--out", out],
        "IOVA",
    );
    assert!(!fs::exists(out).unwrap());
}

/// The beginning of a bundled capture, as a capture of its own.
fn cut(dir: &std::path::Path, lines: usize) -> String {
    use std::io::{BufRead, BufReader};
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/nvme-p2p-bridge-iommu");
    for end in ["iomem", "pci", "info"] {
        fs::copy(format!("{from}.{end}"), dir.join(format!("cut.{end}"))).unwrap();
    }
    let file = fs::File::open(format!("{from}.trace.gz")).unwrap();
    let text = BufReader::new(flate2::read::GzDecoder::new(file));
    let text: String = text
        .lines()
        .take(lines)
        .map(|l| l.unwrap() + "\n")
        .collect();
    let path = dir.join("cut.trace");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// An error of input that only the reader of the whole trace finds: no results, not even begun ones.
#[test]
fn a_corrupt_line_leaves_nothing() {
    let dir = tempdir().unwrap();
    let trace = cut(dir.path(), 500);
    let mut text = fs::read_to_string(&trace).unwrap();
    text += "io-1 [000] ..... 1.000001: dma_map_phys: 0000:02:00.0 dir=UP size=x\n";
    text += "io-1 [000] ..... 1.000002: something\n";
    fs::write(&trace, text).unwrap();
    let out = dir.path().join("r");
    refused(
        &["replay", &trace, "--out", out.to_str().unwrap()],
        "cut.trace:501:",
    );
    assert!(!out.exists() && !dir.path().join("r.partial").exists());
}

#[test]
fn waves_of_a_replay() {
    let dir = tempdir().unwrap();
    // As far as the first transfers to the peer.
    let trace = cut(dir.path(), 1500);
    for (profile, status) in [("intended", 0), ("pre-series", 1)] {
        let out = dir.path().join(profile);
        let out = out.to_str().unwrap();
        let (code, text, err) = tlproof(&[
            "replay",
            "--waves",
            "--profile",
            profile,
            "--out",
            out,
            &trace,
        ]);
        assert_eq!(code, Some(status), "{text}{err}");
        let waves = fs::read(format!("{out}/waves.fst")).unwrap();
        assert!(waves.len() > 1000, "{}", waves.len());
        // The header block of an FST file: its type, its length, first and last time.
        let time = |at: usize| u64::from_be_bytes(waves[at..at + 8].try_into().unwrap());
        assert_eq!(waves[0], 0);
        let (start, end) = (time(9), time(17));
        assert!(start < end);
        assert_eq!(start > 10_000, status == 1, "{start}");
        // A row for each comparison with the kernel, and a reason where the two differ.
        let summary = fs::read(format!("{out}/summary.json")).unwrap();
        let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
        let row = &summary["summary"]["traces"][0];
        let mut rows = csv::Reader::from_path(format!("{out}/decisions.csv")).unwrap();
        let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
        assert_eq!(row["compared"], rows.len());
        let differ = rows.iter().filter(|r| &r[6] == "0").count();
        assert_eq!(row["differed"], differ);
        assert_eq!(differ > 0, status == 1);
        for r in rows {
            assert_eq!(
                (r[4] == r[5], r[7].is_empty()),
                (&r[6] == "1", &r[6] == "1"),
                "{r:?}"
            );
            assert_eq!(&r[0], "cut");
        }
    }
}

/// What a wrong implementation is called stands in the program only when it was built for them.
#[test]
fn the_normal_build_has_no_mutants() {
    let program = fs::read(env!("CARGO_BIN_EXE_tlproof")).expect("it is there");
    let name = b"Cached pointers to freed tables are not invalidated.";
    let found = program.windows(name.len()).any(|w| w == name);
    assert_eq!(found, cfg!(feature = "mutants"));
    if !found {
        refused(&["mutants"], "--features mutants");
    }
}
