//! A recording as tracefs shows it: the file `trace`.

use std::{fmt::Write as _, io};

use tlproof_pcie::{PhysAddr, Range};

use super::Record;

/// The legend that tracefs puts above the lines.
const LEGEND: &str = "\
#
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
";

/// The task that makes all calls.
const TASK: &str = "tlproof";
const PID: u32 = 1;

/// Address of the first `struct p2pdma_provider`, and their distance.
const PROVIDERS: u64 = 0xffff_8880_0742_0000;
const PROVIDER: u64 = 0x40;

/// Writes events as a kernel's trace. All calls come from one task, and none from an interrupt.
#[derive(Clone, Debug)]
pub struct KernelTrace {
    cpus: usize,
    cycles_per_ms: u64,
    providers: Vec<Range>,
    lines: String,
    count: u64,
    last: u64,
}

impl KernelTrace {
    /// A trace of a machine with so many CPUs and so many cycles a millisecond.
    #[must_use]
    pub const fn new(cpus: usize, cycles_per_ms: u64) -> Self {
        Self {
            cpus,
            cycles_per_ms: if cycles_per_ms == 0 { 1 } else { cycles_per_ms },
            providers: Vec::new(),
            lines: String::new(),
            count: 0,
            last: 0,
        }
    }

    /// Peer memory, so that its provider has an address in the trace.
    pub fn provider(&mut self, range: Range) {
        self.providers.push(range);
    }

    /// Adds an event. Times never go backwards.
    pub fn push(&mut self, record: &Record) {
        let micros = u128::from(record.cycles) * 1000 / u128::from(self.cycles_per_ms);
        self.last = self.last.max(u64::try_from(micros).unwrap_or(u64::MAX));
        let (time, cpu) = (self.last, record.cpu);
        let Self {
            providers,
            lines,
            count,
            ..
        } = self;
        let provider = |phys: PhysAddr| {
            let index = providers.iter().position(|r| r.contains(phys, 1));
            index.map_or(0, |i| PROVIDERS + i as u64 * PROVIDER)
        };
        record.event.kernel_lines(&provider, &mut |name, text| {
            // Into a string nothing fails.
            let _ = writeln!(
                lines,
                "{TASK:>16}-{PID:<7} [{cpu:03}] ..... {:>5}.{:06}: {name}: {text}",
                time / 1_000_000,
                time % 1_000_000
            );
            *count += 1;
        });
    }

    /// Lines so far.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Writes the file.
    ///
    /// # Errors
    /// As `out`.
    pub fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        let n = self.count;
        writeln!(out, "# tracer: nop\n#")?;
        writeln!(
            out,
            "# entries-in-buffer/entries-written: {n}/{n}   #P:{}",
            self.cpus
        )?;
        out.write_all(LEGEND.as_bytes())?;
        out.write_all(self.lines.as_bytes())
    }
}
