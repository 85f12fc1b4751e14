//! From events to calls: what happens inside a mapping call is traced by itself, before or after
//! the call's own event, and mixed with what interrupts do on the same CPU.
//!
//! Events are joined by the context they come from (a task, or an interrupt level of a CPU). A call
//! stands where it changes the IOVA allocator or the bounce pool, so that their states follow the
//! kernel's.

pub mod call;
mod driver;
mod inside;
mod lengths;
mod pending;
#[cfg(test)]
mod tests;
mod two_step;

use std::collections::HashMap;

pub use call::{Call, IovaAlloc, Mapped, TableMap, Unmapped};
pub use lengths::sg_lengths;

use crate::trace::{Event, Line};
use pending::{Context, Pending};

const PAGE: u64 = 4096;

/// A call and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Line of the trace.
    pub line: u64,
    /// CPU.
    pub cpu: usize,
    /// The call.
    pub call: Call,
}

/// Joins the lines of a trace.
#[derive(Default)]
pub struct Joiner {
    contexts: HashMap<Context, Pending>,
    operations: Vec<Operation>,
}

impl Joiner {
    /// Adds the next line.
    pub fn push(&mut self, line: Line) {
        let context = Context::of(&line);
        let p = self.contexts.entry(context).or_default();
        let (number, cpu) = (line.number, line.cpu as usize);
        let mut emit = |line: u64, call: Call| {
            self.operations.push(Operation { line, cpu, call });
        };
        if !line.event.is_inside_unmap()
            && let Some((at, call)) = p.freed_without_iova()
        {
            emit(at, call);
        }
        // What is left is said by other events again, or is not about a mapping.
        p.driver_call(number, line.event, &mut emit)
            .and_then(|e| p.two_step_call(number, e, &mut emit))
            .and_then(|e| p.inside_call(number, e, &mut emit));
    }

    /// The calls in their order. A call of which the end is missing is left out.
    pub fn finish(mut self) -> Vec<Operation> {
        for p in self.contexts.values_mut() {
            if let Some((line, call)) = p.freed_without_iova() {
                self.operations.push(Operation { line, cpu: 0, call });
            }
            // Without an allocation it is not the beginning of a call.
            if p.alloc.is_none() && p.link.is_none() {
                for (line, t) in p.tables.drain(..) {
                    self.operations.push(Operation {
                        line,
                        cpu: 0,
                        call: core_map(&t),
                    });
                }
            }
        }
        self.operations.sort_by_key(|o| o.line);
        self.operations
    }
}

impl Event {
    /// Whether the event can follow the beginning of a call that unmaps.
    const fn is_inside_unmap(&self) -> bool {
        matches!(
            self,
            Self::Unmap { .. }
                | Self::CacheTagFlushRange { .. }
                | Self::QiSubmit { .. }
                | Self::SwiotlbUnmap { .. }
                | Self::IovaDofree { .. }
        )
    }
}

fn core_map(t: &TableMap) -> Call {
    Call::Skip {
        why: "not replayed: mapped by the IOMMU core itself, not by a driver",
        what: format!("IOVA {:#x}, {} bytes at {:#x}", t.iova, t.size, t.phys),
    }
}
