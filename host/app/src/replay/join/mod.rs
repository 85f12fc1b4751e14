//! From events to calls: what happens inside a mapping call is traced by itself, before or after
//! the call's own event, and mixed with what interrupts do on the same CPU.
//!
//! Events are joined by the context they come from (a task, or an interrupt level of a CPU). A call
//! stands where it changes the IOVA allocator or the bounce pool, so that their states follow the
//! kernel's.

pub mod call;
mod driver;
mod flush;
mod inside;
mod lengths;
mod pending;
#[cfg(test)]
mod tests;
mod two_step;

use std::collections::HashMap;

pub use call::{Call, FlushPart, IovaAlloc, Mapped, TableMap, Unmapped};
pub use lengths::sg_lengths;

use crate::trace::{Event, Line};
use flush::Flushes;
use pending::{At, Context, Pending};

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
    flushes: Flushes,
    /// With the keys of their places.
    operations: Vec<(u64, Operation)>,
}

impl Joiner {
    fn emit(operations: &mut Vec<(u64, Operation)>, at: At, call: Call) {
        let (line, cpu) = (at.line(), at.cpu);
        operations.push((at.key, Operation { line, cpu, call }));
    }

    /// Adds the next line.
    pub fn push(&mut self, line: Line) {
        self.flushes.see(&line);
        let context = Context::of(&line);
        let here = At::new(line.number, line.cpu as usize);
        self.interrupt(context, here);
        let p = self.contexts.entry(context).or_default();
        let unmapping = std::mem::take(&mut p.just_freed);
        let operations = &mut self.operations;
        let mut emit = |at: At, call: Call| Self::emit(operations, at, call);
        if !line.event.is_inside_unmap()
            && let Some((at, call)) = p.freed_without_iova()
        {
            emit(at, call);
        }
        // What is left is said by other events again, or is not about a mapping.
        let rest = p
            .driver_call(here, line.event, &mut emit)
            .and_then(|e| p.two_step_call(here, e, &mut emit))
            .and_then(|e| p.inside_call(here, e, &mut emit));
        match rest {
            Some(Event::AddDeviceToGroup { group, dev }) => self.flushes.grouped(dev, group),
            Some(Event::AttachDeviceToDomain { dev }) => self.flushes.attached(dev),
            Some(Event::CacheTagFlushRange { domain_id, .. }) => {
                for (at, call) in self.flushes.calls(here, domain_id, unmapping) {
                    Self::emit(&mut self.operations, at, call);
                }
            }
            _ => {}
        }
    }

    /// Allocations that `context` interrupts. An allocation happens between its two lines: before
    /// what interrupts it, as only the caches of its CPU and the tree have locks, and as late as
    /// that otherwise, as other CPUs may have held the tree.
    fn interrupt(&mut self, context: Context, here: At) {
        for (other, p) in &mut self.contexts {
            if let Some((at, ..)) = &mut p.alloc
                && *other != context
                && at.cpu == here.cpu
                && !p.placed
            {
                *at = At::before(here.line(), at.cpu);
                p.placed = true;
            }
        }
    }

    /// The calls in their order. A call of which the end is missing is left out.
    pub fn finish(mut self) -> Vec<Operation> {
        let operations = &mut self.operations;
        for p in self.contexts.values_mut() {
            if let Some((at, call)) = p.freed_without_iova() {
                Self::emit(operations, at, call);
            }
            // Without an allocation it is not the beginning of a call.
            if p.alloc.is_none() && p.link.is_none() {
                for (line, t) in p.tables.drain(..) {
                    Self::emit(operations, At::new(line, 0), core_map(&t));
                }
            }
        }
        operations.sort_by_key(|(key, _)| *key);
        self.operations.into_iter().map(|(_, o)| o).collect()
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
