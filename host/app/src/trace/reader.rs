//! A trace file as a stream of lines.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use super::{
    Error,
    cursor::Cursor,
    line::{Line, LineError, parse_line},
};

/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// Lines of a trace, in file order. An iterator: an error ends it; a file that ends too early ends
/// it too, with [`Trace::truncated`] saying how.
pub struct Trace {
    path: PathBuf,
    source: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    events: u64,
    announced: Option<u64>,
    truncated: Option<String>,
    done: bool,
}

impl Trace {
    /// Opens a trace, plain or compressed with gzip (told by its first bytes).
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is empty.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        Self::from_reader(path, file)
    }

    /// Reads a trace from anywhere; `path` names it in errors.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is empty.
    pub fn from_reader(path: impl AsRef<Path>, source: impl Read + 'static) -> Result<Self, Error> {
        let path = path.as_ref();
        let mut source = BufReader::with_capacity(BUFFER, source);
        let start = source.fill_buf().map_err(|e| Error::io(path, e))?;
        if start.is_empty() {
            return Err(Error::Empty { path: path.into() });
        }
        let source: Box<dyn BufRead> = if start.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::with_capacity(
                BUFFER,
                MultiGzDecoder::new(source),
            ))
        } else {
            Box::new(source)
        };
        Ok(Self {
            path: path.into(),
            source,
            line: Vec::with_capacity(1024),
            number: 0,
            events: 0,
            announced: None,
            truncated: None,
            done: false,
        })
    }

    /// Why the trace ends before its end, known once the iterator has ended. The lines that it
    /// gave are good.
    #[must_use]
    pub fn truncated(&self) -> Option<&str> {
        self.truncated.as_deref()
    }

    /// Lines given so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Ends the stream because the file ends too early.
    fn cut(&mut self, reason: String) -> Option<Result<Line, Error>> {
        self.truncated = Some(reason);
        self.finish()
    }

    /// Ends the stream; a trace without any event is an error.
    fn finish(&mut self) -> Option<Result<Line, Error>> {
        self.done = true;
        (self.events == 0).then(|| {
            Err(Error::Empty {
                path: self.path.clone(),
            })
        })
    }

    /// Ends the stream with an error.
    fn fail(&mut self, error: Error) -> Option<Result<Line, Error>> {
        self.done = true;
        Some(Err(error))
    }
}

/// The counts of the header `# entries-in-buffer/entries-written: 10/12   #P:2`.
fn header_counts(line: &[u8]) -> Option<(u64, u64)> {
    let mut text = Cursor(line);
    text.tag("# entries-in-buffer/entries-written: ").ok()?;
    let kept = text.decimal().ok()?;
    text.tag("/").ok()?;
    Some((kept, text.decimal().ok()?))
}

impl Iterator for Trace {
    type Item = Result<Line, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            self.line.clear();
            match self.source.read_until(b'\n', &mut self.line) {
                Ok(0) => {
                    return match self.announced {
                        Some(n) if n > self.events => self.cut(format!(
                            "the header announces {n} events, the file holds {}",
                            self.events
                        )),
                        _ => self.finish(),
                    };
                }
                Ok(_) => self.number += 1,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.cut(format!(
                        "the compressed data end in the middle, after line {}",
                        self.number
                    ));
                }
                Err(e) => {
                    let error = Error::io(&self.path, e);
                    return self.fail(error);
                }
            }
            if self.line.pop_if(|b| *b == b'\n').is_none() {
                // Even if it parses: a number may have lost its last digits.
                return self.cut(format!("line {} has no newline", self.number));
            }
            self.line.pop_if(|b| *b == b'\r');
            if self.line.starts_with(b"#") {
                if let Some((kept, written)) = header_counts(&self.line) {
                    if written > kept {
                        let error = Error::Overwritten {
                            path: self.path.clone(),
                            kept,
                            written,
                        };
                        return self.fail(error);
                    }
                    self.announced = Some(kept);
                }
                continue;
            }
            if self.line.is_empty() {
                continue;
            }
            let parsed = parse_line(self.number, &self.line).and_then(|line| {
                match line.event.impossible() {
                    None => Ok(line),
                    Some(what) => Err(LineError::Range {
                        event: line.event.name(),
                        what,
                    }),
                }
            });
            return match parsed {
                Ok(line) => {
                    self.events += 1;
                    Some(Ok(line))
                }
                Err(source) => {
                    let error = Error::Line {
                        path: self.path.clone(),
                        number: self.number,
                        source,
                    };
                    self.fail(error)
                }
            };
        }
        None
    }
}
