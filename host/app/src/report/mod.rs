//! What a run leaves: `summary.json`, `tlps.csv`, `checks.csv`, `junit.xml` and `report.html` in a
//! directory of its own.
//!
//! The files hold no wall-clock time and no machine name, so that the same seed gives the same
//! bytes. They are written into `NAME.partial`, which becomes `NAME` when all of them are complete:
//! a disk that fills up, or an interrupted run, leaves nothing that looks finished.
//!
//! The structs here are independent of the checker, the formats are described in
//! `docs/results.md`.

use std::{
    io,
    path::{Path, PathBuf},
};

mod dir;
mod html;
mod junit;
mod plot;
mod results;
mod stats;
#[cfg(test)]
mod tests;
mod tlps;

pub use dir::ResultDir;
pub use html::{escape, page_head};
pub use results::{Check, Difference, Results, Share, Summary, TraceRow, Verdict, ViolationRow};
pub use stats::{Histogram, Stats, THROUGHPUT_BUCKET};
pub use tlps::{TlpRow, TlpWriter};

/// Version of the formats; it changes when a column changes its meaning, its name or its place.
pub const FORMAT_VERSION: u32 = 1;

/// Why results cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system says so.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// The directory exists and holds something else.
    #[error(
        "{}: exists and holds no results of an earlier run, so it is not replaced",
        path.display()
    )]
    NotResults {
        /// The directory.
        path: PathBuf,
    },
    /// The path names no directory that could be made.
    #[error("{}: not a name for a result directory", path.display())]
    BadName {
        /// The path.
        path: PathBuf,
    },
    /// A plot could not be drawn.
    #[error("plot {name}: {reason}")]
    Plot {
        /// Which.
        name: &'static str,
        /// What the plotter says.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            path: path.into(),
            source: source.into(),
        }
    }
}
