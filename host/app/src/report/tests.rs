//! Tests of the result files.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use tlproof_pcie::Bdf;

use super::*;

fn rows() -> [TlpRow<'static>; 3] {
    [
        TlpRow {
            tlp: 0,
            cycle: 12,
            tap: "endpoint 0",
            kind: "MWr",
            requester: Bdf::new(3, 0, 0),
            at: Some("untranslated"),
            pasid: Some(0xf_ffff),
            address: Some(0xffff_f000),
            length: 64,
            ro: true,
            verdict: "ok",
            ..TlpRow::default()
        },
        TlpRow {
            tlp: 0,
            cycle: 40,
            tap: "memory",
            kind: "MWr",
            requester: Bdf::new(3, 31, 7),
            address: Some(u64::MAX),
            length: 64,
            mem_type: Some("device"),
            snoop: Some(false),
            strong_order: Some(true),
            verdict: "memory-type, \"promise\"",
            ..TlpRow::default()
        },
        TlpRow {
            tlp: u64::MAX,
            cycle: 25_000,
            tap: "endpoint 0",
            kind: "CplD",
            requester: Bdf::new(0, 0, 0),
            completer: Some(Bdf::new(0, 1, 0)),
            tag: Some(1023),
            tc: 7,
            address: Some(0),
            ido: true,
            ns: true,
            status: Some("success"),
            verdict: "ok",
            ..TlpRow::default()
        },
    ]
}

fn results() -> Results {
    Results {
        summary: Summary {
            dmabench: None,
            program: "0.1.0".into(),
            verdict: Verdict::Fail,
            seed: 42,
            profile: "pre-series".into(),
            command: "tlproof run --seed 42 --profile pre-series".into(),
            cycles: 1_234_567,
            tlps: 2,
            rows: 3,
            map_calls: 17,
            checked: 120,
            failed: 2,
            traces: vec![
                TraceRow {
                    name: "nvme".into(),
                    events: 10,
                    compared: 8,
                    ..TraceRow::default()
                },
                TraceRow {
                    name: "cut".into(),
                    compared: 8,
                    differed: 1,
                    truncated: Some("line 3 has no newline".into()),
                    ..TraceRow::default()
                },
            ],
        },
        checks: vec![
            Check {
                rule: "memory-type".into(),
                judge: "promise".into(),
                tap: "memory".into(),
                checked: 60,
                failed: 2,
            },
            Check {
                rule: "address".into(),
                judge: "architecture".into(),
                tap: "memory".into(),
                checked: 60,
                failed: 0,
            },
            Check {
                rule: "redirect".into(),
                judge: "architecture".into(),
                tap: "switch".into(),
                checked: 0,
                failed: 0,
            },
        ],
        violations: vec![ViolationRow {
            tlp: 0,
            cycle: 40,
            tap: "memory".into(),
            rule: "memory-type".into(),
            judge: "promise".into(),
            field: "mem_type".into(),
            expected: "device".into(),
            got: "write-back <cached>".into(),
            clause: "IOMMU §3.3".into(),
            story: vec![
                "map_phys 03:00.0 0x4000_0000 MMIO".into(),
                "MWr 0xfffff000".into(),
            ],
        }],
    }
}

fn stats(tlps: &mut TlpWriter<impl Write>) {
    for cycles in [0, 1, 2, 3, 40, 41, 1000] {
        tlps.stats_mut().latency("read", cycles);
        tlps.stats_mut().latency("translation", cycles / 2);
    }
}

fn csv_text() -> String {
    let mut writer = TlpWriter::new(Path::new("tlps.csv"), Vec::new()).unwrap();
    for row in rows() {
        writer.push(&row).unwrap();
    }
    assert_eq!(writer.rows(), 3);
    String::from_utf8(writer.finish().unwrap().0).unwrap()
}

/// Writes a whole directory.
fn write(target: &Path) -> Result<(), Error> {
    let dir = ResultDir::create(target)?;
    let mut tlps = dir.tlps()?;
    for row in rows() {
        tlps.push(&row)?;
    }
    stats(&mut tlps);
    dir.finish(tlps, &results()).map(drop)
}

#[test]
fn tlp_rows_are_csv() {
    let text = csv_text();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let columns = reader.headers().unwrap().len();
    assert_eq!(columns, 20);
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 3);
    assert_eq!(&records[1][columns - 1], "memory-type, \"promise\"");
    assert_eq!(&records[2][0], "18446744073709551615");
    insta::assert_snapshot!(text);
}

#[test]
fn a_run_leaves_all_files_and_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = (temp.path().join("out/a"), temp.path().join("out/b"));
    write(&a).unwrap();
    write(&b).unwrap();
    let mut names: Vec<_> = fs::read_dir(&a)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "checks.csv",
            "junit.xml",
            "report.html",
            "summary.json",
            "tlps.csv"
        ]
    );
    for name in names {
        assert_eq!(
            fs::read(a.join(&name)).unwrap(),
            fs::read(b.join(&name)).unwrap()
        );
    }
    assert!(!temp.path().join("out/a.partial").exists());
    for name in ["checks.csv", "junit.xml", "summary.json"] {
        insta::assert_snapshot!(name, fs::read_to_string(a.join(name)).unwrap());
    }
    let html = fs::read_to_string(a.join("report.html")).unwrap();
    assert!(html.contains("write-back &lt;cached&gt;"));
    assert_eq!(html.matches("<svg").count(), 3);
    assert!(!html.contains("http-equiv") && !html.contains("src="));
}

#[test]
fn earlier_results_are_replaced_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("run");
    write(&target).unwrap();
    fs::write(target.join("waves.fst"), "old").unwrap();
    write(&target).unwrap();
    assert!(!target.join("waves.fst").exists());
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);

    for (name, text) in [("notes.txt", "mine"), ("summary.json", "{\"format\":1}")] {
        let foreign = temp.path().join(name.replace('.', "-"));
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join(name), text).unwrap();
        assert!(matches!(write(&foreign), Err(Error::NotResults { .. })));
        assert_eq!(fs::read_to_string(foreign.join(name)).unwrap(), text);
    }
    let file = temp.path().join("file");
    fs::write(&file, "mine").unwrap();
    assert!(matches!(write(&file), Err(Error::NotResults { .. })));
}

#[test]
fn a_link_leads_to_the_directory_that_is_written() {
    let temp = tempfile::tempdir().unwrap();
    let (real, link) = (temp.path().join("real"), temp.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink("real", &link).unwrap();
    for _ in 0..2 {
        write(&link).unwrap();
        assert!(link.is_symlink() && real.join("summary.json").exists());
    }
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
    let dangling = temp.path().join("dangling");
    std::os::unix::fs::symlink("none", &dangling).unwrap();
    let e = write(&dangling).unwrap_err();
    assert!(e.to_string().contains("dangling: No such file"), "{e}");
}

#[test]
fn a_discarded_run_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = ResultDir::create(temp.path().join("run")).unwrap();
    let tlps = dir.tlps().unwrap();
    dir.discard().unwrap();
    drop(tlps);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn an_interrupted_run_leaves_the_earlier_results() {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("run");
    write(&target).unwrap();
    let before = fs::read(target.join("summary.json")).unwrap();
    let dir = ResultDir::create(&target).unwrap();
    drop(dir.tlps().unwrap());
    drop(dir);
    assert!(temp.path().join("run.partial/INCOMPLETE").exists());
    assert_eq!(fs::read(target.join("summary.json")).unwrap(), before);
    write(&target).unwrap();
    assert!(!temp.path().join("run.partial").exists());
}

/// Takes some bytes, then has no space left.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.0);
        if n == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0 -= n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_with_a_path() {
    let push_all = |out: Disk| {
        let mut tlps = TlpWriter::new(Path::new("full.csv"), out)?;
        for _ in 0..100_000 {
            tlps.push(&rows()[1])?;
        }
        tlps.finish().map(drop)
    };
    for space in [0, 10, 100_000, 3 << 20] {
        match push_all(Disk(space)) {
            Err(Error::Io { path, source }) => {
                assert_eq!(path, Path::new("full.csv"));
                assert_eq!(source.kind(), io::ErrorKind::StorageFull);
            }
            other => panic!("{other:?}"),
        }
    }
    push_all(Disk(usize::MAX)).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_leaves_no_results() {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("run");
    let dir = ResultDir::create(&target).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut tlps = TlpWriter::new(&dir.partial().join("tlps.csv"), full).unwrap();
    tlps.push(&rows()[0]).unwrap();
    let error = dir.finish(tlps, &results()).unwrap_err();
    assert!(
        error.to_string().contains("run.partial/tlps.csv"),
        "{error}"
    );
    assert!(!target.exists());
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    let error = write(&file.join("run")).unwrap_err();
    assert!(error.to_string().contains("file/run"), "{error}");
    assert!(matches!(write(Path::new("/")), Err(Error::BadName { .. })));
}

#[test]
fn an_empty_run_has_a_report() {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("run");
    let dir = ResultDir::create(&target).unwrap();
    let tlps = dir.tlps().unwrap();
    let empty = Results {
        summary: Summary {
            dmabench: None,
            verdict: Verdict::Incomplete,
            traces: Vec::new(),
            ..results().summary
        },
        checks: Vec::new(),
        violations: Vec::new(),
    };
    dir.finish(tlps, &empty).unwrap();
    assert_eq!(
        fs::read_to_string(target.join("checks.csv")).unwrap(),
        "rule,judge,tap,checked,failed\n"
    );
}

/// Plots of next to nothing, and of runs longer than a plot is wide.
#[test]
fn odd_runs_have_plots() {
    let temp = tempfile::tempdir().unwrap();
    for (n, step) in [(1, 0), (2, 0), (5000, THROUGHPUT_BUCKET)] {
        let target = temp.path().join(n.to_string());
        let dir = ResultDir::create(&target).unwrap();
        let mut tlps = dir.tlps().unwrap();
        for i in 0..n {
            tlps.push(&TlpRow {
                cycle: i * step,
                ..rows()[0]
            })
            .unwrap();
        }
        tlps.stats_mut().latency("read", u64::MAX);
        dir.finish(tlps, &results()).unwrap();
        let html = fs::read_to_string(target.join("report.html")).unwrap();
        assert_eq!(html.matches("<svg").count(), 3);
        assert!(html.len() < 100_000);
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }
}

#[test]
fn histograms_count_by_magnitude() {
    let mut h = Histogram::default();
    for value in [0, 1, 2, 3, 4, u64::MAX] {
        h.record(value);
    }
    assert_eq!(h.buckets[..4], [1, 1, 2, 1]);
    assert_eq!(h.buckets[64], 1);
    assert_eq!((h.count, h.max), (6, u64::MAX));
    assert_eq!(Histogram::lower(64), 1 << 63);
    assert_eq!((Histogram::lower(0), Histogram::lower(1)), (0, 1));
}
