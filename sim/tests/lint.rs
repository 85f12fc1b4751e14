//! The RTL passes Verilator's lint without a warning, each top for itself.

#[path = "../verilator.rs"]
#[allow(dead_code, reason = "the build script uses the rest")]
mod verilator;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use verilator::Verilator;

const TOPS: [&str; 6] = [
    "iommu",
    "iommu_formats",
    "pcie_switch",
    "endpoint",
    "host_bridge",
    "sim_top",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate stands in the workspace root")
}

/// What Verilator has to say about `top`; empty if nothing.
fn lint(top: &str, sources: &[&str]) -> String {
    let verilator = Verilator::find().unwrap_or_else(|e| panic!("{e}"));
    let [bin, _] = verilator.depends();
    let include = verilator.include();
    let output = Command::new(bin)
        .env(
            "VERILATOR_ROOT",
            include.parent().expect("include/ is below the root"),
        )
        .current_dir(root())
        .args([
            "--lint-only",
            "-Wall",
            "--assert",
            "--top-module",
            top,
            "rtl/lint.vlt",
        ])
        .args(sources)
        .output()
        .expect("Verilator runs");
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && said.is_empty() {
        said = output.status.to_string();
    }
    said
}

#[test]
fn rtl_has_no_warnings() {
    for top in TOPS {
        let said = lint(top, &["-f", "rtl/rtl.f"]);
        assert!(said.is_empty(), "{top}:\n{said}");
    }
}

#[test]
fn neither_has_the_stand_in() {
    let list = fs::read_to_string(root().join("rtl/rtl.f")).expect("the list of files");
    let stand_in = "sim/tests/standin/rtl/iommu/iommu.sv";
    let sources: Vec<&str> = list
        .lines()
        .map(|line| {
            if line == "rtl/iommu/iommu.sv" {
                stand_in
            } else {
                line
            }
        })
        .collect();
    for top in ["iommu", "sim_top"] {
        let said = lint(top, &sources);
        assert!(said.is_empty(), "{top}:\n{said}");
    }
}

#[test]
fn a_warning_is_seen() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("lint_unused.sv");
    let text = "module lint_unused (input logic a_i);\n  logic b;\n  assign b = a_i;\nendmodule\n";
    fs::write(&path, text).expect("a scratch file");
    let said = lint("lint_unused", &[path.to_str().expect("UTF-8")]);
    assert!(said.contains("%Warning-UNUSEDSIGNAL"), "{said}");
}
