//! The Verilated models of tlproof behind one safe type.
//!
//! [`Model`] is one instance of a top module with a context of its own: many can live side by
//! side and be moved between threads. One call is one clock cycle: all inputs in, all outputs out
//! as they stood before the rising edge, so that a `valid` and a `ready` that are both seen set
//! mean a transfer. [`Model::run_idle`] stays in C++ while nothing happens.

// The build script's own module: `verilator.rs` beside it finds and runs Verilator.

pub mod iommu;

use std::path::Path;

use cxx::UniquePtr;
// The FST writer of the Verilator runtime calls zlib.
use libz_sys as _;

#[cxx::bridge(namespace = "tlproof")]
#[allow(unsafe_code, reason = "the bridge to C++")]
mod ffi {
    unsafe extern "C++" {
        include!("model.h");
        type Model;
        fn new_model(name: &str) -> Result<UniquePtr<Model>>;
        fn cycle(self: Pin<&mut Model>, input: &[u32], output: &mut [u32]) -> Result<()>;
        fn run_idle(
            self: Pin<&mut Model>,
            input: &[u32],
            output: &mut [u32],
            max: u64,
        ) -> Result<u64>;
        fn clock(self: Pin<&mut Model>, input: &[u32], cycles: u64) -> Result<()>;
        fn trace_open(self: Pin<&mut Model>, path: &str) -> Result<()>;
        fn trace_close(self: Pin<&mut Model>);
    }
}

/// The simulation stopped: an assertion of the RTL failed, or waves could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("simulation stopped in cycle {cycle}: {message}")]
pub struct SimError {
    /// Clock cycle of the model.
    pub cycle: u64,
    /// What the RTL or the runtime said, with file and line.
    pub message: String,
}

/// A fixed number of 32-bit words that a model's ports are laid out in.
pub trait Words: Default {
    /// The words.
    fn words(&self) -> &[u32];
    /// The words, to write.
    fn words_mut(&mut self) -> &mut [u32];
}

/// A top module that has been made a model.
pub trait Top {
    /// Name of the generated class.
    const PREFIX: &'static str;
    /// Its inputs, the clock aside.
    type In: Words;
    /// Its outputs.
    type Out: Words;
}

/// Port structs generated from the models' port lists.
#[allow(
    clippy::derivable_impls,
    reason = "generated; arrays of over 32 words have no Default"
)]
pub mod ports {
    include!(concat!(env!("OUT_DIR"), "/ports.rs"));
}

/// One instance of the top module `T`.
pub struct Model<T: Top> {
    /// Values that the next cycle drives.
    pub input: T::In,
    /// Values sampled in the last cycle, before its rising edge.
    pub output: T::Out,
    model: UniquePtr<ffi::Model>,
    cycles: u64,
}

// SAFETY: a model owns its context and everything reachable from it; the shim makes that context
// the thread's current one at every entry, and the one process-wide call (opening a trace file) is
// behind a mutex. It is not Sync: a call needs `&mut self`.
#[allow(unsafe_code, reason = "a model may move between threads, see SAFETY")]
unsafe impl<T: Top> Send for Model<T>
where
    T::In: Send,
    T::Out: Send,
{
}

impl<T: Top> Model<T> {
    /// Makes an instance with all inputs 0.
    ///
    /// # Errors
    /// When the model was not compiled in.
    pub fn new() -> Result<Self, SimError> {
        let model = ffi::new_model(T::PREFIX).map_err(|e| SimError {
            cycle: 0,
            message: e.what().to_owned(),
        })?;
        Ok(Self {
            input: T::In::default(),
            output: T::Out::default(),
            model,
            cycles: 0,
        })
    }

    /// Clock cycles run so far.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.cycles
    }

    /// Runs one cycle.
    ///
    /// # Errors
    /// When an assertion of the RTL fails; the model must not be used further then.
    pub fn cycle(&mut self) -> Result<(), SimError> {
        let r = self
            .model
            .pin_mut()
            .cycle(self.input.words(), self.output.words_mut());
        self.cycles += 1;
        r.map_err(|e| self.error(&e))
    }

    /// Runs up to `max` cycles with the inputs as they are and stops after the first in which the
    /// top's `activity_o` is set. Returns the number of cycles run.
    ///
    /// # Errors
    /// As [`Model::cycle`].
    pub fn run_idle(&mut self, max: u64) -> Result<u64, SimError> {
        let r = self
            .model
            .pin_mut()
            .run_idle(self.input.words(), self.output.words_mut(), max);
        match r {
            Ok(n) => {
                self.cycles += n;
                Ok(n)
            }
            Err(e) => Err(self.error(&e)),
        }
    }

    /// Runs `cycles` cycles with the inputs as they are, without sampling the outputs: the bare
    /// speed of the model.
    ///
    /// # Errors
    /// As [`Model::cycle`].
    pub fn clock(&mut self, cycles: u64) -> Result<(), SimError> {
        let r = self.model.pin_mut().clock(self.input.words(), cycles);
        self.cycles += cycles;
        r.map_err(|e| self.error(&e))
    }

    /// Starts to write waves (FST) to `path`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn trace_open(&mut self, path: &Path) -> Result<(), SimError> {
        let path = path.to_string_lossy();
        let r = self.model.pin_mut().trace_open(&path);
        r.map_err(|e| self.error(&e))
    }

    /// Ends the waves; a no-op when none are being written.
    pub fn trace_close(&mut self) {
        self.model.pin_mut().trace_close();
    }

    fn error(&self, e: &cxx::Exception) -> SimError {
        SimError {
            cycle: self.cycles,
            message: e.what().to_owned(),
        }
    }
}
