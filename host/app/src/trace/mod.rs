//! DMA traces of Linux: the text of tracefs `trace`, and the files that describe the machine on
//! which it was recorded.
//!
//! A capture `NAME` is `NAME.trace` or `NAME.trace.gz` with, beside it, `NAME.iomem`
//! (`/proc/iomem`), `NAME.pci` (PCI functions and their resources) and optionally `NAME.info`.
//! [`Capture::open`] reads them; [`Trace`] alone reads a trace as a stream of [`Line`]s.
//!
//! Nothing is skipped: an event that is not known, or a field that does not parse, is an error with
//! file, line and what was expected.

use std::{
    io,
    path::{Path, PathBuf},
};

mod capture;
mod codec;
mod cursor;
mod event;
mod info;
mod iomem;
mod line;
mod pci;
mod reader;
#[cfg(test)]
mod tests;
mod value;

pub use capture::{Capture, IommuMode};
pub use event::Event;
pub use info::{Group, Info, Reserved};
pub use iomem::{IoMem, Resource};
pub use line::{Context, Flags, Line, LineError, parse_line};
pub use pci::{Bar, GroupType, P2pMem, Pci, PciDevice};
pub use reader::Trace;
pub use value::{Attrs, Count, Device, P2pMap, Pointer};

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system says so.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// No file stands beside the trace where one must.
    #[error(
        "{}: missing; a capture needs its memory map (.iomem) and its PCI devices (.pci) beside \
         the trace",
        path.display()
    )]
    MissingSidecar {
        /// The file that is missing.
        path: PathBuf,
    },
    /// The trace holds no event.
    #[error("{}: no events", path.display())]
    Empty {
        /// The trace.
        path: PathBuf,
    },
    /// The trace buffer was too small, the first events are gone.
    #[error(
        "{}: only {kept} of {written} events were kept: record again with a larger trace buffer",
        path.display()
    )]
    Overwritten {
        /// The trace.
        path: PathBuf,
        /// Events in the file.
        kept: u64,
        /// Events that happened.
        written: u64,
    },
    /// A line of the trace does not parse.
    #[error("{}:{number}: {source}", path.display())]
    Line {
        /// The trace.
        path: PathBuf,
        /// Number of the line, from 1.
        number: u64,
        /// What is wrong.
        source: LineError,
    },
    /// A line of another file of the capture does not parse.
    #[error("{}:{number}: expected {expected}, found `{found}`", path.display())]
    Sidecar {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        number: u64,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The files parse but describe no machine that can be built.
    #[error("{}: {reason}", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl Error {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }
}

/// Parses a sidecar line by line. The parser gets each line without its newline and says what it
/// expected and what it found.
fn each_line<'a>(
    path: &Path,
    text: &'a str,
    mut parse: impl FnMut(&'a str) -> Result<(), cursor::Mismatch<'a>>,
) -> Result<(), Error> {
    for (number, line) in (1..).zip(text.lines()) {
        parse(line).map_err(|m| Error::Sidecar {
            path: path.into(),
            number,
            expected: m.expected(),
            found: line::excerpt(m.rest),
        })?;
    }
    Ok(())
}
