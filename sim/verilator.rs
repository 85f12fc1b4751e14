//! Finding and running Verilator: the part that a `verilator` crate would play.
//!
//! The binary is taken from `VERILATOR_BIN`, else `$VERILATOR_ROOT/bin/verilator_bin`, else `PATH`.
//! It is called directly, without the Perl wrapper and without make; the compiler is driven by the
//! build script.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest version whose language subset and generated files are known to work.
pub const FLOOR: (u32, u32) = (5, 6);

/// Why no usable Verilator was found, or why it failed. The text says what to do.
#[derive(Debug)]
pub enum Error {
    NotFound,
    TooOld { found: String, bin: PathBuf },
    NoRoot(PathBuf),
    Io(PathBuf, io::Error),
    Failed(String),
    Output(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => write!(
                f,
                "verilator was not found: run ./tlproof.sh setup, or install it (Debian, Ubuntu: \
                 apt-get install verilator), or set VERILATOR_BIN or VERILATOR_ROOT"
            ),
            Self::TooOld { found, bin } => write!(
                f,
                "verilator {found} at {} is older than {}.{:03}: install a newer one and set \
                 VERILATOR_BIN to its verilator_bin",
                bin.display(),
                FLOOR.0,
                FLOOR.1
            ),
            Self::NoRoot(bin) => write!(
                f,
                "{} does not tell its VERILATOR_ROOT: set VERILATOR_ROOT to the directory that \
                 holds include/verilated.h",
                bin.display()
            ),
            Self::Io(path, e) => write!(f, "{}: {e}", path.display()),
            Self::Failed(text) => write!(f, "verilator failed:\n{text}"),
            Self::Output(text) => write!(f, "unexpected output of verilator: {text}"),
        }
    }
}

/// An installed Verilator.
pub struct Verilator {
    bin: PathBuf,
    root: PathBuf,
}

/// What to make of which sources.
pub struct Job<'a> {
    pub top: &'a str,
    pub prefix: &'a str,
    pub file_list: &'a Path,
    pub waivers: &'a Path,
    /// Directory that the paths in the file list are relative to.
    pub base: &'a Path,
    pub out: &'a Path,
    /// Parameters of the top module, `NAME=VALUE`.
    pub parameters: &'a [&'a str],
    /// Count how often each line is executed.
    pub coverage: bool,
}

/// Direction and width of a port of the generated model.
pub struct Port {
    pub name: String,
    pub input: bool,
    /// Width in bits.
    pub width: usize,
}

impl Verilator {
    /// Finds an installation of at least [`FLOOR`].
    pub fn find() -> Result<Self, Error> {
        let bin = match (env::var_os("VERILATOR_BIN"), env::var_os("VERILATOR_ROOT")) {
            (Some(bin), _) => PathBuf::from(bin),
            (None, Some(root)) => Path::new(&root).join("bin/verilator_bin"),
            (None, None) => env::split_paths(&env::var_os("PATH").unwrap_or_default())
                .map(|dir| dir.join("verilator_bin"))
                .find(|p| p.is_file())
                .ok_or(Error::NotFound)?,
        };
        let answer = Command::new(&bin)
            .args(["--getenv", "VERILATOR_ROOT"])
            .output()
            .map_err(|_| Error::NotFound)?;
        let root = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
        if !root.join("include/verilated.h").is_file() {
            return Err(Error::NoRoot(bin));
        }
        let found = Self { bin, root };
        let version = found.version()?;
        let mut numbers = version
            .split(|c: char| !c.is_ascii_digit())
            .map(|n| n.parse::<u32>().unwrap_or(0));
        let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if number < FLOOR {
            return Err(Error::TooOld {
                found: version,
                bin: found.bin,
            });
        }
        Ok(found)
    }

    /// The runtime's include directory.
    pub fn include(&self) -> PathBuf {
        self.root.join("include")
    }

    /// The version in the runtime's configuration header; `--version` is empty in some builds.
    pub fn version(&self) -> Result<String, Error> {
        let path = self.include().join("verilated_config.h");
        let text = fs::read_to_string(&path).map_err(|e| Error::Io(path.clone(), e))?;
        text.lines()
            .find_map(|l| l.trim().strip_prefix("#define VERILATOR_VERSION"))
            .and_then(|rest| rest.split('"').nth(1).map(str::to_owned))
            .ok_or_else(|| Error::Output(format!("no version in {}", path.display())))
    }

    /// Files whose change asks for a new build.
    pub fn depends(&self) -> [PathBuf; 2] {
        [self.bin.clone(), self.include().join("verilated_config.h")]
    }

    /// Translates a top module to C++.
    pub fn translate(&self, job: &Job<'_>) -> Result<(), Error> {
        fs::create_dir_all(job.out).map_err(|e| Error::Io(job.out.to_owned(), e))?;
        let output = Command::new(&self.bin)
            .env("VERILATOR_ROOT", &self.root)
            .current_dir(job.base)
            .args([
                "--cc",
                "-O3",
                "--x-assign",
                "fast",
                "--x-initial",
                "fast",
                "--assert",
            ])
            .args([
                "--trace-fst",
                "--trace-structs",
                "-Wno-fatal",
                "--top-module",
                job.top,
            ])
            .args(job.parameters.iter().map(|p| format!("-G{p}")))
            .args(job.coverage.then_some("--coverage-line"))
            .args(["--prefix", job.prefix, "-Mdir"])
            .arg(job.out)
            .arg(job.waivers)
            .arg("-f")
            .arg(job.file_list)
            .output()
            .map_err(|e| Error::Io(self.bin.clone(), e))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(Error::Failed(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ))
        }
    }

    /// C++ sources of a translated model, and those of the runtime that it needs.
    pub fn sources(&self, job: &Job<'_>) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
        let path = job.out.join(format!("{}_classes.mk", job.prefix));
        let text = fs::read_to_string(&path).map_err(|e| Error::Io(path.clone(), e))?;
        let (mut model, mut runtime) = (Vec::new(), Vec::new());
        let mut list = None;
        for line in text.lines() {
            if let Some((name, _)) = line.split_once("+=") {
                list = Some(name.trim().to_owned());
                continue;
            }
            let stem = line.trim().trim_end_matches('\\').trim();
            match list.as_deref() {
                Some(l) if !stem.is_empty() && !stem.starts_with('#') => {
                    if l.starts_with("VM_GLOBAL") {
                        runtime.push(self.include().join(format!("{stem}.cpp")));
                    } else if l.starts_with("VM_CLASSES") || l.starts_with("VM_SUPPORT") {
                        model.push(job.out.join(format!("{stem}.cpp")));
                    }
                }
                _ => {}
            }
            if !line.trim_end().ends_with('\\') {
                list = None;
            }
        }
        if model.is_empty() || runtime.is_empty() {
            return Err(Error::Output(format!("no sources in {}", path.display())));
        }
        Ok((model, runtime))
    }

    /// The ports of a translated model, from its header.
    pub fn ports(&self, job: &Job<'_>) -> Result<Vec<Port>, Error> {
        let path = job.out.join(format!("{}.h", job.prefix));
        let text = fs::read_to_string(&path).map_err(|e| Error::Io(path.clone(), e))?;
        let mut ports = Vec::new();
        for line in text.lines() {
            let line = line.trim();
            let input = line.starts_with("VL_IN");
            if !input && !line.starts_with("VL_OUT") {
                continue;
            }
            let bad = || Error::Output(format!("port declaration `{line}`"));
            let inner = line.split_once('(').ok_or_else(bad)?.1;
            let inner = inner.rsplit_once(')').ok_or_else(bad)?.0;
            let mut parts = inner.split(',').map(str::trim);
            let name = parts.next().ok_or_else(bad)?;
            let name = name
                .trim_matches(|c| matches!(c, '(' | ')' | '&'))
                .to_owned();
            let mut number = || {
                parts
                    .next()
                    .and_then(|s| s.parse::<usize>().ok())
                    .ok_or_else(bad)
            };
            let (msb, lsb) = (number()?, number()?);
            ports.push(Port {
                name,
                input,
                width: msb + 1 - lsb,
            });
        }
        Ok(ports)
    }
}
