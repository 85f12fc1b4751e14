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
