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

/// What has been seen in a context and belongs to a call that is not complete.
#[derive(Default)]
pub(super) struct Pending {
    /// Line and device of the last allocation.
    pub(super) alloc: Option<(u64, Device, IovaAlloc)>,
    pub(super) tables: Vec<(u64, TableMap)>,
    pub(super) bounces: Vec<Bounce>,
    pub(super) untables: Vec<(u64, DmaAddr, u64)>,
    pub(super) flushed: Vec<(DmaAddr, DmaAddr)>,
    /// Line at which IOVA was given back.
    pub(super) freed: Option<u64>,
    /// Line and size of released slots.
    pub(super) released: Vec<(u64, u64)>,
    pub(super) try_alloc: Option<(u64, Call)>,
    pub(super) link: Option<(u64, Call)>,
    pub(super) destroy: Option<(u64, Call, DmaAddr)>,
    /// `dma_free` and `dma_unmap_sg` are traced before they free; IOVA if it is known.
    pub(super) free: Option<(u64, Call, Option<DmaAddr>)>,
}

impl Pending {
    /// Takes what a call that mapped `[start, start + len)` did, with the line of its allocation.
    pub(super) fn mapped(
        &mut self,
        dev: &Device,
        start: DmaAddr,
        len: u64,
    ) -> (Option<u64>, Mapped) {
        let alloc = self.alloc.take_if(|(_, d, _)| d == dev);
        let first = start.align_down(PAGE).0;
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
        (alloc.map(|(line, _, _)| line), did)
    }

    /// Takes a call that frees something but no IOVA, with the line where that became free.
    pub(super) fn freed_without_iova(&mut self) -> Option<(u64, Call)> {
        let (line, call, _) = self.free.take()?;
        let (at, did) = self.unmapped();
        Some((at.unwrap_or(line), call.with(did)))
    }

    /// Takes what a call that unmapped did, with the line where its resources became free.
    pub(super) fn unmapped(&mut self) -> (Option<u64>, Unmapped) {
        let slot = self.released.first().map(|(line, _)| *line);
        let table = self.untables.first().map(|(line, ..)| *line);
        let line = self.freed.take().or(table).or(slot);
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
        (line, did)
    }
}
