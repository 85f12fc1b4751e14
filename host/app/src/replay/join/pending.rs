//! What has been seen in a context and is not yet a call.

use tlproof_pcie::DmaAddr;

use super::{
    PAGE,
    call::{Bounce, Call, IovaAlloc, Mapped, TableMap, Unmapped},
};
use crate::trace::{Device, Line};

/// Where the kernel was: what happens inside a call happens in the call's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Context {
    Task(u32),
    Idle(u32),
    SoftIrq(u32),
    HardIrq(u32),
}

impl Context {
    /// A breakpoint probe shows up as NMI (`Z`) whatever the context is; it counts as the task.
    pub(super) const fn of(line: &Line) -> Self {
        match line.flags.0[2] {
            b's' => Self::SoftIrq(line.cpu),
            b'h' | b'H' => Self::HardIrq(line.cpu),
            _ if line.pid == 0 => Self::Idle(line.cpu),
            _ => Self::Task(line.pid),
        }
    }
}

/// Where a call stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// Twice the number of a line, and one more for what the line says itself.
    pub(super) key: u64,
    pub(super) cpu: usize,
}

impl At {
    /// At a line.
    pub(super) const fn new(line: u64, cpu: usize) -> Self {
        let key = line * 2 + 1;
        Self { key, cpu }
    }

    /// Right before a line.
    pub(super) const fn before(line: u64, cpu: usize) -> Self {
        let key = line * 2;
        Self { key, cpu }
    }

    /// The line.
    pub(super) const fn line(self) -> u64 {
        self.key / 2
    }
}

/// What has been seen in a context and belongs to a call that is not complete.
#[derive(Default)]
pub(super) struct Pending {
    /// Place and device of the last allocation.
    pub(super) alloc: Option<(At, Device, IovaAlloc)>,
    /// Its place is settled.
    pub(super) placed: bool,
    /// An allocation of which only the return was seen.
    pub(super) returned: Option<(At, DmaAddr)>,
    pub(super) tables: Vec<(u64, TableMap)>,
    pub(super) bounces: Vec<Bounce>,
    pub(super) untables: Vec<(At, DmaAddr, u64)>,
    pub(super) flushed: Vec<(DmaAddr, DmaAddr)>,
    /// Where IOVA was given back.
    pub(super) freed: Option<At>,
    /// Place and size of released slots.
    pub(super) released: Vec<(At, u64)>,
    pub(super) try_alloc: Option<(At, Call)>,
    pub(super) link: Option<(At, Call)>,
    pub(super) destroy: Option<(At, Call, DmaAddr)>,
    /// The event before was an unmap or gave IOVA back.
    pub(super) just_freed: bool,
    /// `dma_free` and `dma_unmap_sg` are traced before they free; IOVA if it is known.
    pub(super) free: Option<(At, Call, Option<DmaAddr>)>,
}

impl Pending {
    /// Takes what a call that mapped `[start, start + len)` did, with the place of its allocation.
    pub(super) fn mapped(
        &mut self,
        dev: &Device,
        start: DmaAddr,
        len: u64,
    ) -> (Option<At>, Mapped) {
        let alloc = self.alloc.take_if(|(_, d, _)| d == dev);
        let first = start.align_down(PAGE).0;
        let returned = self.returned.take_if(|(_, iova)| iova.0 == first);
        let len = alloc.as_ref().map_or(len, |(_, _, a)| a.size.max(len));
        let last = start.0.saturating_add(len.max(1) - 1);
        let tables = self
            .tables
            .extract_if(.., |(_, t)| (first..=last).contains(&t.iova.0));
        let did = Mapped {
            alloc: alloc.as_ref().map(|(_, _, a)| *a),
            tables: tables.map(|(_, t)| t).collect(),
            bounces: std::mem::take(&mut self.bounces),
        };
        let at = alloc.map(|(at, ..)| at).or(returned.map(|(at, _)| at));
        (at, did)
    }

    /// Takes a call that frees something but no IOVA, with the place where that became free.
    pub(super) fn freed_without_iova(&mut self) -> Option<(At, Call)> {
        let (begun, call, _) = self.free.take()?;
        let (at, did) = self.unmapped();
        Some((at.unwrap_or(begun), call.with(did)))
    }

    /// Takes what a call that unmapped did, with the place where its resources became free.
    pub(super) fn unmapped(&mut self) -> (Option<At>, Unmapped) {
        let slot = self.released.first().map(|(at, _)| *at);
        let table = self.untables.first().map(|(at, ..)| *at);
        let at = self.freed.take().or(table).or(slot);
        let did = Unmapped {
            tables: std::mem::take(&mut self.untables)
                .into_iter()
                .map(|(_, iova, size)| (iova, size))
                .collect(),
            flushed: std::mem::take(&mut self.flushed),
            bounces: std::mem::take(&mut self.released)
                .into_iter()
                .map(|(_, size)| size)
                .collect(),
        };
        (at, did)
    }
}
