//! A thread of the benchmark: fill, map, wait, unmap, and again.

use tlproof_pcie::Direction;

use super::{
    CYCLES_PER_US, DEVICE, Shared,
    buffer::{Buffer, contents, device_read},
    mapping::{Mapping, Span},
};
use crate::{
    endpoint::{Completion, Descriptor, pattern_bytes},
    testbench::{Error, Testbench},
};

/// Parts of the device's local memory, which are also the transfers under way at most.
pub(super) const SLOTS: usize = 16;

/// Bytes of a part, and so of a transfer.
const PIECE: u64 = (1 << 20) / SLOTS as u64;

/// What came of a turn.
pub(super) enum Step {
    /// Something was done.
    Done,
    /// There is nothing to do before this cycle, or before a completion (the last cycle there is).
    Until(u64),
    /// The thread has ended.
    Over,
}

/// A transfer under way.
struct Transfer {
    id: u16,
    slot: usize,
    offset: u64,
    span: Span,
    write: bool,
}

struct Mapped {
    mapping: Mapping,
    spans: Vec<Span>,
    until: u64,
    /// Directions that are still to be moved; the last is under way.
    todo: Vec<bool>,
    /// Bytes of that direction that are done or under way.
    at: u64,
    transfer: Option<Transfer>,
    /// What the device wrote: offset in the buffer and span.
    written: Vec<(u64, Span)>,
}

/// A thread.
pub(super) struct Thread {
    cpu: usize,
    buffer: Buffer,
    round: u64,
    mapped: Option<Mapped>,
}

impl Thread {
    pub(super) const fn new(number: u32, buffer: Buffer) -> Self {
        Self {
            cpu: number as usize,
            buffer,
            round: 0,
            mapped: None,
        }
    }

    /// Seed of what the device writes in this round.
    const fn seed(&self) -> u32 {
        (self.cpu as u32) << 20 ^ self.round as u32
    }

    /// A turn.
    pub(super) fn step(&mut self, s: &mut Shared, stopping: bool) -> Result<Step, Error> {
        let Some(m) = &mut self.mapped else {
            if stopping {
                return Ok(Step::Over);
            }
            self.map(s)?;
            return Ok(Step::Done);
        };
        if m.transfer.is_some() {
            return Ok(Step::Until(u64::MAX));
        }
        if let Some(write) = m.todo.last().copied() {
            return self.submit(s, write);
        }
        if s.bench.sim.cycles() < m.until {
            return Ok(Step::Until(m.until));
        }
        if let Some(m) = self.mapped.take() {
            s.unmap(self.cpu, m.mapping, &m.spans, self.buffer.size());
            self.look(s, &m.written)?;
            s.loops += 1;
            // The loop itself.
            s.bench.sim.run(1)?;
        }
        Ok(Step::Done)
    }

    fn map(&mut self, s: &mut Shared) -> Result<(), Error> {
        self.round += 1;
        let dir = s.options.dir;
        if s.options.moves && dir.device_reads() {
            self.buffer.write(&mut s.bench.sim, self.round)?;
        } else if dir != Direction::FromDevice {
            self.buffer.fill(&mut s.bench.sim);
        }
        let (mapping, spans) = s.map(self.cpu, &self.buffer)?;
        // The device reads before it writes.
        let directions = [(true, dir.device_writes()), (false, dir.device_reads())];
        let wanted = directions.iter().filter(|d| s.options.moves && d.1);
        let delay = u64::from(s.options.delay_ns) * CYCLES_PER_US / 1000;
        self.mapped = Some(Mapped {
            mapping,
            spans,
            until: s.bench.sim.cycles() + delay,
            todo: wanted.map(|d| d.0).collect(),
            at: 0,
            transfer: None,
            written: Vec::new(),
        });
        Ok(())
    }

    /// The next transfer, if there is a place for it.
    fn submit(&mut self, s: &mut Shared, write: bool) -> Result<Step, Error> {
        let seed = self.seed();
        let Some(m) = &mut self.mapped else {
            return Ok(Step::Done);
        };
        let Some(slot) = s.slots.iter().position(|used| !used) else {
            return Ok(Step::Until(u64::MAX));
        };
        let mut offset = m.at;
        let span = m.spans.iter().find_map(|span| {
            let inside = offset < span.len;
            let part = Span {
                dma: span.dma.offset(offset),
                len: span.len.saturating_sub(offset).min(PIECE),
            };
            offset = offset.saturating_sub(span.len);
            inside.then_some(part)
        });
        let Some(span) = span else {
            m.todo.pop();
            m.at = 0;
            return Ok(Step::Done);
        };
        s.next_id = s.next_id.wrapping_add(1);
        let mut d = Descriptor::pattern(s.next_id, write, span.dma, span.len as u32, seed);
        if !write {
            d.pattern = None;
            d.local = (slot as u64 * PIECE) as u32;
        }
        let Testbench { sim, functions, .. } = &mut s.bench;
        functions[DEVICE].engine.submit(sim, &d)?;
        s.slots[slot] = true;
        m.transfer = Some(Transfer {
            id: s.next_id,
            slot,
            offset: m.at,
            span,
            write,
        });
        m.at += span.len;
        Ok(Step::Done)
    }

    /// Looks whether a completion record is this thread's.
    pub(super) fn completed(&mut self, s: &mut Shared, record: Completion) -> Result<(), Error> {
        let Some(m) = &mut self.mapped else {
            return Ok(());
        };
        let Some(t) = m.transfer.take_if(|t| t.id == record.id) else {
            return Ok(());
        };
        s.moved += t.span.len;
        if t.write {
            m.written.push((t.offset, t.span));
        } else if s.options.verify {
            let mut got = vec![0; t.span.len as usize];
            let local = s.local(t.slot as u64 * PIECE);
            device_read(&mut s.bench.sim, local, &mut got)?;
            let mut want = vec![0; t.span.len as usize];
            contents(t.offset, self.round, &mut want);
            s.compared += t.span.len;
            s.bench.sim.compare_memory(t.span.dma, &want, &got);
        }
        s.slots[t.slot] = false;
        Ok(())
    }

    /// The CPU looks at what the device wrote.
    fn look(&self, s: &mut Shared, written: &[(u64, Span)]) -> Result<(), Error> {
        if !s.options.verify {
            return Ok(());
        }
        for (offset, span) in written {
            let got = self.buffer.read(&mut s.bench.sim, *offset, span.len)?;
            let mut want = vec![0; span.len as usize];
            pattern_bytes(span.dma, self.seed(), &mut want);
            s.compared += span.len;
            s.bench.sim.compare_memory(span.dma, &want, &got);
        }
        Ok(())
    }
}
