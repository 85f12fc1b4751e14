//! `decisions.csv`: a row for every decision of the kernel that was compared with ours.

use std::{
    cell::RefCell,
    fs::File,
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::report::Error;

const COLUMNS: [&str; 8] = [
    "trace", "line", "call", "what", "kernel", "ours", "equal", "reason",
];

/// The file being written. A failure is kept until [`Decisions::finish`].
#[derive(Debug)]
pub struct Decisions {
    path: PathBuf,
    out: csv::Writer<File>,
    error: Option<Error>,
}

/// The file that the traces of a job share.
pub type SharedDecisions = Rc<RefCell<Decisions>>;

/// A comparison.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub trace: &'a str,
    pub line: u64,
    pub call: &'a str,
    pub what: &'a str,
    pub kernel: &'a str,
    pub ours: &'a str,
    pub equal: bool,
    pub reason: &'a str,
}

impl Decisions {
    /// Starts the file in a directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(dir: &Path) -> Result<SharedDecisions, Error> {
        let path = dir.join("decisions.csv");
        let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        let mut out = csv::Writer::from_writer(file);
        out.write_record(COLUMNS).map_err(|e| Error::io(&path, e))?;
        Ok(Rc::new(RefCell::new(Self {
            path,
            out,
            error: None,
        })))
    }

    pub(super) fn row(&mut self, r: &Row<'_>) {
        if self.error.is_some() {
            return;
        }
        let line = r.line.to_string();
        let equal = if r.equal { "1" } else { "0" };
        let record = [
            r.trace, &line, r.call, r.what, r.kernel, r.ours, equal, r.reason,
        ];
        if let Err(e) = self.out.write_record(record) {
            self.error = Some(Error::io(&self.path, e));
        }
    }

    /// Brings all rows to the disk.
    ///
    /// # Errors
    /// The first failure to write.
    pub fn finish(&mut self) -> Result<(), Error> {
        if let Some(e) = self.error.take() {
            return Err(e);
        }
        let flushed = self
            .out
            .flush()
            .and_then(|()| self.out.get_ref().sync_all());
        flushed.map_err(|e| Error::io(&self.path, e))
    }
}
