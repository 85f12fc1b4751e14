//! The directory of a run: complete, or named `.partial`.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Error, FORMAT_VERSION, Results, Stats, TlpWriter, html, junit};

/// Marks a directory as results, in `summary.json`.
const FORMAT: &str = "tlproof-results";
/// The file that stands in a directory until it is complete.
const INCOMPLETE: &str = "INCOMPLETE";

/// A directory of results that is being written.
#[derive(Debug)]
pub struct ResultDir {
    target: PathBuf,
    partial: PathBuf,
}

/// `summary.json`.
#[derive(Serialize)]
struct SummaryFile<'a> {
    format: &'static str,
    version: u32,
    #[serde(flatten)]
    results: &'a Results,
}

/// The path with something after its last name.
fn with_suffix(path: &Path, suffix: &str) -> Result<PathBuf, Error> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::BadName { path: path.into() })?;
    let mut name = name.to_owned();
    name.push(suffix);
    Ok(path.with_file_name(name))
}

/// Whether a directory may be replaced: it is empty, unfinished, or holds results.
fn is_ours(dir: &Path) -> Result<bool, Error> {
    if fs::read_dir(dir)
        .map_err(|e| Error::io(dir, e))?
        .next()
        .is_none()
        || dir.join(INCOMPLETE).exists()
    {
        return Ok(true);
    }
    let ours = fs::read(dir.join("summary.json"))
        .ok()
        .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
        .is_some_and(|json| json["format"] == FORMAT);
    Ok(ours)
}

/// Removes a directory of ours; it is no error if there is none.
fn remove(dir: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(dir, e)),
        Ok(meta) if !meta.is_dir() || !is_ours(dir)? => Err(Error::NotResults { path: dir.into() }),
        Ok(_) => fs::remove_dir_all(dir).map_err(|e| Error::io(dir, e)),
    }
}

/// Writes a file whole: to the disk, not only to the operating system.
fn write(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), Error> {
    let finish = || {
        let mut out = BufWriter::new(File::create(path)?);
        fill(&mut out)?;
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()
    };
    finish().map_err(|e| Error::io(path, e))
}

impl ResultDir {
    /// Starts a directory. One that exists is replaced in the end, if it holds results.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or if something else stands in its place.
    pub fn create(target: impl AsRef<Path>) -> Result<Self, Error> {
        // A link stays a link: the directory that it leads to is the one that is replaced.
        let mut target = target.as_ref().to_owned();
        if target.is_symlink() {
            target = fs::canonicalize(&target).map_err(|e| Error::io(&target, e))?;
        }
        let target = target.as_path();
        let partial = with_suffix(target, ".partial")?;
        if target.symlink_metadata().is_ok() && !(target.is_dir() && is_ours(target)?) {
            return Err(Error::NotResults {
                path: target.into(),
            });
        }
        remove(&partial)?;
        fs::create_dir_all(&partial).map_err(|e| Error::io(&partial, e))?;
        write(&partial.join(INCOMPLETE), |out| {
            out.write_all(b"This run has not ended; its files are not complete.\n")
        })?;
        Ok(Self {
            target: target.into(),
            partial,
        })
    }

    /// Where files are until [`ResultDir::finish`]; for files that others write.
    #[must_use]
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Where they are afterwards.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Removes what has been written so far: a run whose input is in error has no results.
    ///
    /// # Errors
    ///
    /// If the system does not let it.
    pub fn discard(&self) -> Result<(), Error> {
        fs::remove_dir_all(&self.partial).map_err(|e| Error::io(&self.partial, e))
    }

    /// Starts `tlps.csv`.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn tlps(&self) -> Result<TlpWriter, Error> {
        let path = self.partial.join("tlps.csv");
        let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        TlpWriter::new(&path, file)
    }

    /// Writes one more file.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        write(&self.partial.join(name), |out| {
            out.write_all(text.as_bytes())
        })
    }

    /// Ends `tlps.csv`, writes the other files and gives the directory its name.
    ///
    /// # Errors
    ///
    /// If a file cannot be written. `NAME.partial` stays then, and results of an earlier run stay
    /// as they were.
    pub fn finish(self, tlps: TlpWriter, results: &Results) -> Result<PathBuf, Error> {
        let tlps_path = self.partial.join("tlps.csv");
        let (file, stats) = tlps.finish()?;
        file.sync_all().map_err(|e| Error::io(&tlps_path, e))?;
        self.write_files(results, &stats)?;
        self.close()
    }

    /// Gives the directory its name; all files have been written.
    ///
    /// # Errors
    ///
    /// As [`ResultDir::finish`].
    pub fn close(self) -> Result<PathBuf, Error> {
        let incomplete = self.partial.join(INCOMPLETE);
        fs::remove_file(&incomplete).map_err(|e| Error::io(&incomplete, e))?;
        let old = with_suffix(&self.target, ".old")?;
        remove(&old)?;
        if self.target.exists() {
            fs::rename(&self.target, &old).map_err(|e| Error::io(&self.target, e))?;
        }
        fs::rename(&self.partial, &self.target).map_err(|e| Error::io(&self.target, e))?;
        remove(&old)?;
        Ok(self.target)
    }

    fn write_files(&self, results: &Results, stats: &Stats) -> Result<(), Error> {
        let file = |name| self.partial.join(name);
        let html = html::page(results, stats)?;
        write(&file("report.html"), |out| out.write_all(html.as_bytes()))?;
        write(&file("junit.xml"), |out| junit::write(results, out))?;
        write(&file("checks.csv"), |out| {
            let mut csv = csv::Writer::from_writer(out);
            if results.checks.is_empty() {
                csv.write_record(["rule", "judge", "tap", "checked", "failed"])?;
            }
            for check in &results.checks {
                csv.serialize(check)?;
            }
            csv.flush()
        })?;
        write(&file("summary.json"), |out| {
            let summary = SummaryFile {
                format: FORMAT,
                version: FORMAT_VERSION,
                results,
            };
            serde_json::to_writer_pretty(&mut *out, &summary)?;
            out.write_all(b"\n")
        })
    }
}
