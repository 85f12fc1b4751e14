//! Translates the RTL with Verilator and compiles the models behind one C++ interface.

mod glue;
mod verilator;

use std::{env, error::Error, fs, path::Path, path::PathBuf, process::ExitCode};

use verilator::{Job, Verilator};

/// Top modules that become models: the whole machine, and the blocks with tests of their own.
const TOPS: [&str; 4] = ["sim_top", "iommu_formats", "pcie_switch", "endpoint"];
/// The IOMMU of another make, in `tests/standin`: the name of its model.
const STAND_IN: &str = "iommu_standin";

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

/// Trees of the same layout, one over the other: a file is the first one of its name.
struct Layers<'a>(Vec<&'a Path>);

impl Layers<'_> {
    fn find(&self, name: &str) -> Result<PathBuf, Box<dyn Error>> {
        let mut found = self.0.iter().map(|tree| tree.join(name));
        let found = found.find(|path| path.is_file());
        let trees: Vec<_> = self.0.iter().map(|t| t.display().to_string()).collect();
        found.ok_or_else(|| format!("there is no {name} in {}", trees.join(", ")).into())
    }

    /// Writes the list of files with their places, relative to the last tree. Options and comments
    /// stay as they are.
    fn resolve(&self, list: &str, to: &Path) -> Result<(), Box<dyn Error>> {
        let path = self.find(list)?;
        let text = fs::read_to_string(&path)?;
        let mut lines = String::new();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            if line.starts_with(['+', '-', '/']) {
                lines += line;
            } else {
                let file = self
                    .find(line)
                    .map_err(|e| format!("{}: {e}", path.display()))?;
                let last = self.0.last().and_then(|tree| file.strip_prefix(tree).ok());
                lines += &last.unwrap_or(&file).display().to_string();
            }
            lines.push('\n');
        }
        fs::write(to, lines)?;
        Ok(())
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = here
        .parent()
        .ok_or("the crate stands in the workspace root")?;
    // Other RTL over that of the workspace, and fewer models.
    let other = env::var_os("TLPROOF_ROOT").map(|tree| workspace.join(tree));
    if let Some(other) = other.as_ref().filter(|tree| !tree.join("rtl").is_dir()) {
        return Err(format!(
            "TLPROOF_ROOT: there is no folder rtl in {}",
            other.display()
        )
        .into());
    }
    let stand_in = here.join("tests/standin");
    let layers = Layers(
        other
            .iter()
            .map(PathBuf::as_path)
            .chain([workspace])
            .collect(),
    );
    let stand_in_layers = Layers(vec![&stand_in, workspace]);
    // Straps of iommu_formats that are there, as a mask.
    let configs = env::var("TLPROOF_CONFIGS").ok();
    let configs = configs.map(|mask| format!("Present={mask}"));
    let only = env::var("TLPROOF_TOPS").unwrap_or_default();
    // Name, top module and sources of each model.
    let models: Vec<(&str, &str, &Layers<'_>)> = TOPS
        .into_iter()
        .map(|top| (top, top, &layers))
        .chain([(STAND_IN, "iommu", &stand_in_layers)])
        .filter(|model| only.is_empty() || only.split(',').any(|name| name == model.0))
        .collect();
    for name in [
        "VERILATOR_BIN",
        "VERILATOR_ROOT",
        "CXX",
        "TLPROOF_ROOT",
        "TLPROOF_TOPS",
        "TLPROOF_CONFIGS",
    ] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for path in ["build.rs", "glue.rs", "verilator.rs", "src/lib.rs", "cpp"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for tree in layers.0.iter().chain(&stand_in_layers.0) {
        println!("cargo::rerun-if-changed={}", tree.join("rtl").display());
    }

    let verilator = Verilator::find().map_err(|e| e.to_string())?;
    for path in verilator.depends() {
        println!("cargo::rerun-if-changed={}", path.display());
    }

    let coverage = env::var_os("CARGO_FEATURE_COVERAGE").is_some();
    let mut cc = cxx_build::bridge("src/lib.rs");
    let mut includes = Vec::new();
    let mut hot = Vec::new();
    let mut cold = Vec::new();
    let mut rust = String::new();
    let mut prefixes = Vec::new();
    let mut runtime_sources = Vec::new();
    for (name, top, layers) in models {
        let prefix = format!("V{name}");
        let parameters: Vec<&str> = match &configs {
            Some(parameter) if top == "iommu_formats" => vec![parameter],
            _ => Vec::new(),
        };
        let file_list = out.join(format!("{name}.f"));
        layers.resolve("rtl/rtl.f", &file_list)?;
        let waivers = layers.find("rtl/lint.vlt")?;
        let job = Job {
            top,
            prefix: &prefix,
            file_list: &file_list,
            waivers: &waivers,
            base: workspace,
            out: &out.join(name),
            parameters: &parameters,
            coverage,
        };
        verilator.translate(&job).map_err(|e| e.to_string())?;
        let ports = verilator.ports(&job).map_err(|e| e.to_string())?;
        let (model, runtime) = verilator.sources(&job).map_err(|e| e.to_string())?;
        let glue = job.out.join(format!("{prefix}_glue.cpp"));
        fs::write(&glue, glue::cpp(&prefix, &ports))?;
        rust += &glue::rust(name, &prefix, &ports);
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
            ("VM_COVERAGE", if coverage { "1" } else { "0" }),
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
            .flag("-include")
            .flag(here.join("cpp/print.h"))
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
