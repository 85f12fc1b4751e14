//! One line of a trace.

use std::fmt;

use super::{
    cursor::{Cursor, Parsed},
    event::Event,
};

/// The five columns between CPU and time, as printed: interrupts off, rescheduling, interrupt
/// context, preemption depth, migration disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flags(pub [u8; 5]);

/// Where the kernel was when an event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Context {
    /// In a task.
    Task,
    /// In a soft interrupt.
    SoftIrq,
    /// In a hardware interrupt, perhaps on top of a soft one.
    HardIrq,
}

impl Flags {
    /// The context, from the third column.
    #[must_use]
    pub const fn context(self) -> Context {
        match self.0[2] {
            b's' => Context::SoftIrq,
            b'h' | b'H' | b'z' | b'Z' => Context::HardIrq,
            _ => Context::Task,
        }
    }
}

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Number of the line in its file, from 1.
    pub number: u64,
    /// Name of the task.
    pub task: Box<str>,
    /// Process ID; 0 is the idle task.
    pub pid: u32,
    /// CPU number.
    pub cpu: u32,
    /// Context columns.
    pub flags: Flags,
    /// Time of the trace clock in microseconds.
    pub time: u64,
    /// What happened.
    pub event: Event,
}

impl fmt::Display for Line {
    /// As the kernel prints it, but for the place in the code that a probe's text starts with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>16}-{:<7} [{:03}] {} {:>5}.{:06}: {}: {}",
            self.task,
            self.pid,
            self.cpu,
            self.flags.0.escape_ascii(),
            self.time / 1_000_000,
            self.time % 1_000_000,
            self.event.name(),
            self.event
        )
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The columns before the event are not those of a trace.
    #[error("expected `task-pid [cpu] flags seconds.micros: event: text`, found `{0}`")]
    Columns(String),
    /// The event is not one of a DMA trace.
    #[error("unknown event `{0}`; record only the dma, iommu and swiotlb events and the probes")]
    UnknownEvent(String),
    /// A field of the event does not parse.
    #[error("event {event}: expected {expected} at `{found}`")]
    Field {
        /// Name of the event.
        event: String,
        /// What should stand there.
        expected: String,
        /// What stands there, cut to a sensible length.
        found: String,
    },
    /// A range that no call can have.
    #[error("event {event}: {what}")]
    Range {
        /// Name of the event.
        event: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The kernel lost events here, so that nothing after it can be trusted.
    #[error("the kernel lost events (`{0}`): record again with a larger trace buffer")]
    Lost(String),
}

fn plain(c: char) -> impl Iterator<Item = char> {
    let (control, other) = if c.is_control() {
        (Some(c.escape_default()), None)
    } else {
        (None, Some(c))
    };
    control.into_iter().flatten().chain(other)
}

/// The start of a text, for an error message.
pub(super) fn excerpt(text: &[u8]) -> String {
    const LEN: usize = 60;
    // What a terminal would obey is shown escaped.
    let shown = String::from_utf8_lossy(text);
    let mut shown: String = shown.chars().take(LEN).flat_map(plain).collect();
    if text.len() > LEN {
        shown.push('…');
    }
    shown
}

/// The columns between the task's name and the event.
struct Columns {
    pid: u32,
    cpu: u32,
    flags: Flags,
    time: u64,
}

/// `pid [cpu] flags seconds.micros: `.
fn columns<'a>(text: &mut Cursor<'a>) -> Parsed<'a, Columns> {
    let pid = text.decimal_as("a process ID")?;
    text.spaces();
    text.tag("[")?;
    let cpu = text.decimal_as("a CPU number")?;
    text.tag("] ")?;
    text.spaces();
    let start = *text;
    let Ok(flags) = text.until(b" ").try_into() else {
        return start.mismatch("five context flags");
    };
    text.tag(" ")?;
    text.spaces();
    let start = *text;
    let seconds = text.decimal()?;
    text.tag(".")?;
    let fraction = *text;
    let micros = text.decimal()?;
    if fraction.0.len() - text.0.len() != 6 {
        return fraction.mismatch("six digits of microseconds");
    }
    text.tag(": ")?;
    let Some(time) = seconds
        .checked_mul(1_000_000)
        .and_then(|t| t.checked_add(micros))
    else {
        return start.mismatch("a time below 2^64 microseconds");
    };
    Ok(Columns {
        pid,
        cpu,
        flags: Flags(flags),
        time,
    })
}

/// Parses one line, without its newline.
///
/// The name of a task may hold `-`, `[`, `:` and spaces: it ends at the first `-` after which the
/// columns follow. It may even be empty.
///
/// # Errors
///
/// Says what was expected and what stands there instead.
pub fn parse_line(number: u64, line: &[u8]) -> Result<Line, LineError> {
    let bad_columns = || {
        if line.starts_with(b"CPU:") && line.windows(5).any(|w| w == b"[LOST") {
            LineError::Lost(excerpt(line))
        } else {
            LineError::Columns(excerpt(line))
        }
    };
    let start = line.iter().take_while(|&&b| b == b' ').count();
    let mut split = None;
    for (i, _) in line.iter().enumerate().filter(|(_, b)| **b == b'-') {
        let mut text = Cursor(&line[i + 1..]);
        if let Ok(columns) = columns(&mut text) {
            split = Some((&line[start..i], columns, text));
            break;
        }
    }
    let (task, columns, mut text) = split.ok_or_else(bad_columns)?;
    let name = text.until(b":");
    // The kernel prints the space even before an empty text, an editor may have taken it away.
    if text.tag(": ").is_err() && !(text.accept(":") && text.0.is_empty()) {
        return Err(bad_columns());
    }
    let event = Event::parse(name, text)
        .ok_or_else(|| LineError::UnknownEvent(excerpt(name)))?
        .map_err(|m| LineError::Field {
            event: String::from_utf8_lossy(name).into_owned(),
            expected: m.expected(),
            found: excerpt(m.rest),
        })?;
    Ok(Line {
        number,
        task: String::from_utf8_lossy(task).into(),
        pid: columns.pid,
        cpu: columns.cpu,
        flags: columns.flags,
        time: columns.time,
        event,
    })
}
