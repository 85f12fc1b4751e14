//! The random campaign keeps all promises, and is the same every time.

use std::{fs, process::Command};

use tempfile::tempdir;

fn tlproof(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_tlproof"))
        .args(args)
        .output()
        .expect("the program starts")
}

#[test]
fn seeds_pass() {
    let dir = tempdir().unwrap();
    for seed in ["1", "2", "3", "4"] {
        let out = dir.path().join(seed);
        let r = tlproof(&[
            "run",
            "--seed",
            seed,
            "--tlps",
            "6000",
            "--out",
            out.to_str().unwrap(),
        ]);
        let text = String::from_utf8_lossy(&r.stdout);
        assert_eq!(
            r.status.code(),
            Some(0),
            "{text}{}",
            String::from_utf8_lossy(&r.stderr)
        );
        assert!(text.contains("PASS"), "{text}");
    }
}

#[test]
fn one_seed_leaves_the_same_bytes() {
    let dir = tempdir().unwrap();
    let mut files = Vec::new();
    for name in ["a", "b"] {
        let out = dir.path().join(name);
        let r = tlproof(&[
            "run",
            "--seed",
            "9",
            "--tlps",
            "4000",
            "--out",
            out.to_str().unwrap(),
        ]);
        assert_eq!(r.status.code(), Some(0));
        let read = |f: &str| fs::read(out.join(f)).expect("the file is there");
        files.push(
            [
                "tlps.csv",
                "checks.csv",
                "summary.json",
                "junit.xml",
                "report.html",
            ]
            .map(read),
        );
    }
    assert!(files[0] == files[1], "the files differ");
    assert!(files[0][0].len() > 100_000);
}

#[test]
fn before_the_series_peers_are_cacheable() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("r");
    let r = tlproof(&[
        "run",
        "--profile",
        "pre-series",
        "--tlps",
        "20000",
        "--out",
        out.to_str().unwrap(),
    ]);
    let text = String::from_utf8_lossy(&r.stdout);
    assert_eq!(
        r.status.code(),
        Some(1),
        "{text}{}",
        String::from_utf8_lossy(&r.stderr)
    );
    assert!(
        text.contains("memory type: expected device, got write-back"),
        "{text}"
    );
    assert!(text.contains("attrs=MMIO"), "{text}");
}
