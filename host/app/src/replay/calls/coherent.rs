//! `dma_alloc_attrs` and `dma_free_attrs`.

use tlproof_dma::Attrs;
use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::{Memory, PAGE, Replayer, State};
use crate::{
    replay::{
        join::{Mapped, Unmapped},
        machine::Place,
        target::Target,
        traffic::{Runs, Span},
    },
    testbench::Error,
};

impl<T: Target> Replayer<'_, T> {
    pub(super) fn alloc(
        &mut self,
        f: usize,
        kernel: DmaAddr,
        size: u64,
        attrs: Attrs,
        did: &Mapped,
    ) -> Result<Option<Memory>, Error> {
        let translated = self.plan.roles[f].translated();
        let phys = match did.tables.as_slice() {
            [] if translated => {
                self.comparison.note(
                    "not replayed: coherent memory of which the trace does not say where it is",
                    || format!("{size} bytes"),
                );
                return Ok(None);
            }
            [] => PhysAddr(kernel.0),
            [one] => one.phys,
            _ => return self.alloc_pages(f, kernel, attrs, did),
        };
        let pages = size.next_multiple_of(PAGE);
        if !matches!(self.place(phys, pages), Place::Memory(_)) {
            self.comparison.note(
                "not replayed: coherent memory outside of main memory",
                || format!("{size} bytes at {phys:#x}"),
            );
            return Ok(None);
        }
        self.masks(f, did.alloc, true)?;
        let runs = vec![(phys, size)];
        self.traffic.settle(self.target, &[(phys, pages)])?;
        self.traffic.overwritten(&[(phys, pages)], None);
        let dev = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        let result = dma.dma_alloc_at(m, dev, phys, size, attrs);
        let Some(memory) = self.outcome(kernel.0 != 0, result)? else {
            self.events();
            return Ok(None);
        };
        self.counts.replayed += 1;
        let bdf = self.target.bdf(f);
        let call = format!(
            "dma_alloc_attrs({bdf}, size={size}, attrs={attrs}) = {:#x}",
            memory.dma
        );
        self.target.promise(f, memory.dma, call);
        self.compare_mapped(f, did, (phys, phys));
        self.compare_iova(f, kernel, memory.dma);
        self.compare_direct(f, (phys, kernel), (phys, memory.dma), false);
        let job = self.job();
        // The CPU can write at any time; here it has, before the device looks.
        let wish = self.traffic.wish(size, Direction::Bidirectional);
        self.traffic.prepare(self.target, &runs, wish)?;
        let spans = [Span {
            dma: memory.dma,
            len: size,
        }];
        self.traffic
            .start(self.target, (f, job), &spans, &runs, wish, false)?;
        Ok(Some(Memory::One { memory, attrs, job }))
    }

    /// Memory that the kernel put together from pages: contiguous for the device only. Our API has
    /// contiguous memory alone, so the pages are linked into one range.
    pub(super) fn alloc_pages(
        &mut self,
        f: usize,
        kernel: DmaAddr,
        attrs: Attrs,
        did: &Mapped,
    ) -> Result<Option<Memory>, Error> {
        let runs: Runs = did.tables.iter().map(|t| (t.phys, t.size)).collect();
        let total = runs.iter().map(|(_, n)| n).sum();
        self.comparison.note(
            "coherent memory that is not contiguous: its pages are linked into one range",
            || format!("{} runs, {total} bytes", runs.len()),
        );
        let memory = |(p, n): &(PhysAddr, u64)| matches!(self.place(*p, *n), Place::Memory(_));
        if !runs.iter().all(memory) {
            return Ok(None);
        }
        self.masks(f, did.alloc, false)?;
        let id = self.dev(f);
        self.target.called();
        let Some(iova) = self
            .target
            .parts()
            .0
            .dma_iova_try_alloc(id, runs[0].0, total)
        else {
            self.compare_mapped(f, did, (PhysAddr(0), PhysAddr(0)));
            return Ok(None);
        };
        let mut s = State::new(Some(iova), self.job());
        let mut events = self.events();
        let mut at = 0;
        for (phys, size) in runs {
            let how = (Direction::Bidirectional, attrs);
            if !self.link_range(f, &mut s, (phys, at, size), how, true)? {
                break;
            }
            events.append(&mut self.events());
            at += size;
        }
        self.comparison
            .mapped(did, &events, (PhysAddr(0), PhysAddr(0)));
        self.compare_iova(f, kernel, iova.addr());
        self.sync_state(f, &mut s, (0, at))?;
        self.counts.replayed += 1;
        Ok(Some(Memory::Pages(s, at)))
    }

    pub(super) fn free(&mut self, f: usize, memory: Memory, did: &Unmapped) -> Result<(), Error> {
        match memory {
            Memory::Pages(state, mapped) => {
                let how = (Direction::Bidirectional, Attrs::empty());
                self.destroy_state(f, state, (mapped, false), how, did)
            }
            Memory::One { memory, attrs, job } => {
                let span = Span {
                    dma: memory.dma,
                    len: memory.size,
                };
                self.traffic.leave(self.target, (f, job), &[span])?;
                let ending = self.target.revoke_begin(f, memory.dma, memory.size);
                let dev = self.dev(f);
                self.target.called();
                let (dma, m) = self.target.parts();
                dma.dma_free_attrs(m, dev, memory, attrs);
                self.target.revoke_end(ending);
                self.compare_unmapped(f, did);
                self.traffic.look(self.target, job, None);
                self.probe_after(f, memory.dma, memory.size)
            }
        }
    }
}
