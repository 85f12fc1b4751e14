//! Replay of DMA traces: the kernel's mapping calls through our API, on a machine like the
//! recorded one, with devices that use the mappings.

mod calls;
mod compare;
mod decisions;
mod join;
mod machine;
mod target;
#[cfg(test)]
mod tests;
mod traffic;

use std::path::{Path, PathBuf};

use tlproof_dma::Profile;

pub use compare::Difference;
pub use decisions::{Decisions, SharedDecisions};

use crate::{
    checker::Checker,
    report::TraceRow,
    simulation::Waves,
    testbench::{self, Setup, Testbench},
    trace::{self, Capture},
};
use calls::Replayer;
use join::{Joiner, Operation};
use machine::Plan;

/// Calls between two reports of progress.
const PROGRESS: usize = 64;

/// Why a trace is not replayed to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The trace or a file beside it cannot be read.
    #[error(transparent)]
    Trace(#[from] trace::Error),
    /// The capture's memory leaves no place for IOMMU tables.
    #[error("{0}: no room in the memory map for the tables of this machine")]
    NoRoom(String),
    /// A mapping of a PCI function that the file `.pci` does not list.
    #[error(
        "{}:{line}: device {device} is not in the .pci file beside the trace: take both from one \
         machine",
        path.display()
    )]
    UnknownDevice {
        /// The trace.
        path: PathBuf,
        /// The line.
        line: u64,
        /// The function.
        device: String,
    },
    /// The machine does not come up or stops.
    #[error("{name}: {error}")]
    Machine {
        /// Name of the capture.
        name: String,
        /// What happened.
        error: testbench::Error,
    },
}

/// What is chosen about a replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the devices' traffic and of the machine.
    pub seed: u64,
    /// Which Linux.
    pub profile: Profile,
    /// Waves to write; the replay ends with them.
    pub waves: Option<Waves>,
    /// Where every comparison with the kernel goes.
    pub decisions: Option<SharedDecisions>,
}

/// A replayed trace.
pub struct Outcome {
    /// The machine, at rest, with its checker.
    pub bench: Testbench,
    /// The trace in numbers.
    pub row: TraceRow,
}

/// Reads a trace to its end.
fn read(capture: &mut Capture) -> Result<Vec<Operation>, trace::Error> {
    let mut joiner = Joiner::default();
    for line in &mut capture.trace {
        joiner.push(line?);
    }
    Ok(joiner.finish())
}

/// Every PCI function that a mapping names must be in the list of functions.
fn check_devices(path: &Path, capture: &Capture, operations: &[Operation]) -> Result<(), Error> {
    for o in operations {
        if let Some(dev) = o.call.dev()
            && let Some(bdf) = dev.bdf()
            && capture.pci.get(bdf).is_none()
        {
            return Err(Error::UnknownDevice {
                path: path.to_owned(),
                line: o.line,
                device: dev.to_string(),
            });
        }
    }
    Ok(())
}

/// Replays the trace at `path`. The checker is built from the machine and from whether accesses
/// without a promise must be refused; `progress` is called now and then with the trace lines done.
///
/// # Errors
/// See [`Error`].
pub fn replay(
    path: &Path,
    options: &Options,
    checker: impl FnOnce(&Setup, bool) -> Checker,
    progress: impl FnMut(u64),
) -> Result<Outcome, Error> {
    replay_with(path, options, checker, |_| (), progress)
}

/// [`replay`] with something to be done to the machine before the first call.
///
/// # Errors
/// See [`Error`].
pub fn replay_with(
    path: &Path,
    options: &Options,
    checker: impl FnOnce(&Setup, bool) -> Checker,
    prepare: impl FnOnce(&mut Testbench),
    mut progress: impl FnMut(u64),
) -> Result<Outcome, Error> {
    let mut capture = Capture::open(path)?;
    let operations = read(&mut capture)?;
    check_devices(path, &capture, &operations)?;
    let plan = Plan::new(&capture, &operations)?;
    let machine = |error| Error::Machine {
        name: capture.name.clone(),
        error,
    };
    let Options { seed, profile, .. } = *options;
    let mut setup = plan.setup(seed, profile);
    setup.machine.waves.clone_from(&options.waves);
    let blocking = plan.blocking(profile);
    let checker = checker(&setup, blocking);
    let mut bench = Testbench::new(&setup, checker).map_err(machine)?;
    target::attach(&mut bench, &plan).map_err(machine)?;
    prepare(&mut bench);

    let mut replayer = Replayer::new(&mut bench, &plan, &operations, (seed, blocking));
    let rows = options.decisions.clone();
    replayer.comparison.rows = rows.map(|rows| (capture.name.clone(), rows));
    let stopped = run(&mut replayer, &operations, &mut progress).map_err(machine)?;
    let (counts, mut comparison) = (replayer.counts, std::mem::take(&mut replayer.comparison));
    bench.quiesce().map_err(machine)?;
    if stopped {
        comparison.note(
            "not replayed: the rest, after too many violations",
            String::new,
        );
    }

    let row = TraceRow {
        name: capture.name.clone(),
        events: capture.trace.events(),
        mappings: counts.mappings,
        replayed: counts.replayed,
        compared: comparison.compared,
        differed: comparison.differed,
        prot: comparison.prot,
        attrs: comparison.attrs,
        iova: comparison.iova,
        tlps: bench.sim.checker.tlps(),
        failed: bench.sim.checker.failed(),
        truncated: capture.trace.truncated().map(str::to_owned),
        differences: comparison.into_differences(),
    };
    Ok(Outcome { bench, row })
}

/// Makes all calls; whether it stopped before the end.
fn run<T: target::Target>(
    replayer: &mut Replayer<'_, T>,
    operations: &[Operation],
    mut progress: impl FnMut(u64),
) -> Result<bool, testbench::Error> {
    for (i, o) in operations.iter().enumerate() {
        if i % PROGRESS == 0 {
            progress(o.line);
            if replayer.stop() {
                replayer.finish()?;
                return Ok(true);
            }
        }
        replayer.step(o)?;
    }
    replayer.finish()?;
    Ok(false)
}
