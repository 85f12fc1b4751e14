//! The random campaign keeps all promises, and is the same every time.

use std::{fs, path::Path, process::Command};

use tempfile::tempdir;
use tlproof::campaign;
use tlproof_dma::Profile;
use tlproof_pcie::MemoryMap;

fn tlproof(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_tlproof"))
        .args(args)
        .output()
        .expect("the program starts")
}

#[test]
fn seeds_pass() {
    let dir = tempdir().unwrap();
    let mut no_snoop = 0;
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
        no_snoop += no_snoop_tlps(&out, seed.parse().unwrap());
    }
    assert!(no_snoop > 0);
}

/// TLPs that endpoints send with No Snoop: only those whose DMA is not coherent may.
fn no_snoop_tlps(out: &Path, seed: u64) -> usize {
    let coherent = campaign::setup(&campaign::Options {
        seed,
        tlps: 0,
        profile: Profile::Intended,
        map: MemoryMap::default(),
        waves: None,
    })
    .coherent;
    let text = fs::read_to_string(out.join("tlps.csv")).unwrap();
    let columns: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    let at = |name| columns.iter().position(|c| *c == name).unwrap();
    let (tap, ns) = (at("tap"), at("ns"));
    let mut sent = 0;
    for line in text.lines().skip(1) {
        let values: Vec<&str> = line.split(',').collect();
        let endpoint = ["ep0.tx", "ep1.tx", "ep2.tx"]
            .iter()
            .position(|t| *t == values[tap]);
        if let Some(n) = endpoint
            && values[ns] == "1"
        {
            assert!(!coherent[n], "seed {seed}: {line}");
            sent += 1;
        }
    }
    sent
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
