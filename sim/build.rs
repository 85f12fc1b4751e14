//! Translates the RTL with Verilator and compiles the models behind one C++ interface.

mod glue;
mod verilator;

use std::{env, error::Error, fs, path::Path, path::PathBuf, process::ExitCode};

use verilator::{Job, Verilator};

/// Top modules that become models: the whole machine, and the blocks with tests of their own.
const TOPS: [&str; 4] = ["sim_top", "iommu_formats", "pcie_switch", "endpoint"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!(
                "cargo::error={}",
                e.to_string().replace('\n', "\ncargo::error=")
            );
            ExitCode::FAILURE
        }
    }
}

/// Whether a source of a model is not part of what runs every cycle.
fn is_cold(source: &Path) -> bool {
    let name = source.file_stem().unwrap_or_default().to_string_lossy();
    ["__Slow", "__Trace", "__Syms", "__ConstPool"]
        .iter()
        .any(|part| name.contains(part))
}

fn build() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    // Other RTL than that of the workspace, and fewer models: for defects put in on purpose.
    let other = env::var_os("TLPROOF_ROOT").map(PathBuf::from);
    let root = match &other {
        Some(other) => other,
        None => here
            .parent()
            .ok_or("the crate stands in the workspace root")?,
    };
    let only = env::var("TLPROOF_TOPS").unwrap_or_default();
    let tops: Vec<&str> = TOPS
        .into_iter()
        .filter(|top| only.is_empty() || only.split(',').any(|name| name == *top))
        .collect();
    for name in [
        "VERILATOR_BIN",
        "VERILATOR_ROOT",
        "CXX",
        "TLPROOF_ROOT",
        "TLPROOF_TOPS",
    ] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for path in ["build.rs", "glue.rs", "verilator.rs", "src/lib.rs", "cpp"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-changed={}", root.join("rtl").display());

    let verilator = Verilator::find().map_err(|e| e.to_string())?;
    for path in verilator.depends() {
        println!("cargo::rerun-if-changed={}", path.display());
    }

    let mut cc = cxx_build::bridge("src/lib.rs");
    let mut includes = Vec::new();
    let mut hot = Vec::new();
    let mut cold = Vec::new();
    let mut rust = String::new();
    let mut prefixes = Vec::new();
    let mut runtime_sources = Vec::new();
    for top in tops {
        let prefix = format!("V{top}");
        let job = Job {
            top,
            prefix: &prefix,
            file_list: Path::new("rtl/rtl.f"),
            waivers: Path::new("rtl/lint.vlt"),
            base: root,
            out: &out.join(top),
        };
        verilator.translate(&job).map_err(|e| e.to_string())?;
        let ports = verilator.ports(&job).map_err(|e| e.to_string())?;
        let (model, runtime) = verilator.sources(&job).map_err(|e| e.to_string())?;
        let glue = job.out.join(format!("{prefix}_glue.cpp"));
        fs::write(&glue, glue::cpp(&prefix, &ports))?;
        rust += &glue::rust(top, &prefix, &ports);
        let (slow, fast): (Vec<_>, Vec<_>) = model.into_iter().partition(|f| is_cold(f));
        cold.extend(slow);
        hot.extend(fast);
        hot.push(glue);
        includes.push(job.out.to_owned());
        for source in runtime {
            if !runtime_sources.contains(&source) {
                runtime_sources.push(source);
            }
        }
        prefixes.push(prefix);
    }
    let factory = out.join("factory.cpp");
    fs::write(&factory, glue::factory(&prefixes))?;
    fs::write(out.join("ports.rs"), rust)?;

    // Clippy links nothing.
    let wrapper = env::var_os("RUSTC_WORKSPACE_WRAPPER").unwrap_or_default();
    if wrapper.to_string_lossy().contains("clippy") {
        return Ok(());
    }

    let include = verilator.include();
    includes.extend([here.join("cpp"), include.clone(), include.join("vltstd")]);
    includes.extend(env::var_os("DEP_Z_INCLUDE").map(PathBuf::from));
    let configure = |cc: &mut cc::Build, level| {
        for (name, value) in [
            ("VERILATOR", "1"),
            ("VM_COVERAGE", "0"),
            ("VM_SC", "0"),
            ("VM_TRACE", "1"),
            ("VM_TRACE_FST", "1"),
            ("VM_TRACE_VCD", "0"),
            ("VM_TIMING", "0"),
            ("VL_USER_FINISH", "1"),
            ("VL_USER_STOP", "1"),
            ("VL_USER_FATAL", "1"),
        ] {
            cc.define(name, value);
        }
        cc.includes(&includes)
            .std("c++17")
            .warnings(false)
            .debug(false)
            .opt_level(level);
    };
    // What runs once, or only for waves, compiles in half the time without optimisation.
    let mut slow = cc::Build::new();
    configure(&mut slow, 0);
    let slow = slow.cpp(true).files(cold).try_compile_intermediates()?;
    // The debug profile too: an unoptimised model is more than ten times slower.
    configure(&mut cc, 2);
    cc.files(hot)
        .file(factory)
        .file("cpp/hooks.cpp")
        .files(runtime_sources)
        .objects(slow);
    cc.try_compile("tlproof_models")?;
    if include.join("fstcpp").is_dir() {
        println!("cargo::rustc-link-lib=lz4");
    }
    println!("cargo::rustc-link-lib=pthread");
    println!("cargo::rustc-link-lib=atomic");
    Ok(())
}
