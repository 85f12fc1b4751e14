//! `dma_map_phys` and `dma_unmap_phys`.

use tlproof_dma::Attrs;
use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::{Phys, Replayer, address, dram};
use crate::{
    replay::{
        join::{Mapped, Unmapped},
        machine::Place,
        target::Target,
        traffic::Span,
    },
    testbench::Error,
    trace::Device,
};

impl<T: Target> Replayer<'_, T> {
    pub(super) fn map_phys(
        &mut self,
        f: usize,
        (phys, size): (PhysAddr, u64),
        dir: Direction,
        attrs: Attrs,
        // Whether it succeeded, and the address if there was such a call.
        (succeeds, kernel): (bool, Option<DmaAddr>),
        did: &Mapped,
    ) -> Result<Option<Phys>, Error> {
        let Some(place) = self.usable(f, phys, size) else {
            return Ok(None);
        };
        self.masks(f, did.alloc, false)?;
        let (here, runs) = (address(place), Vec::from_iter(dram(place, size)));
        let wish = match place {
            Place::Elsewhere(_) => None,
            _ => self.traffic.wish(size, dir),
        };
        self.traffic.prepare(self.target, &runs, wish)?;
        let dev = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        let result = dma.dma_map_phys(m, dev, here, size, dir, attrs);
        let Some(dma) = self.outcome(succeeds, result)? else {
            self.events();
            return Ok(None);
        };
        self.counts.replayed += 1;
        let bdf = self.target.bdf(f);
        self.target.promise(
            f,
            dma,
            format!(
                "dma_map_phys({bdf}, phys={here:#x}, size={size}, dir={}, attrs={attrs}) = {dma:#x}",
                dir.name()
            ),
        );
        self.compare_mapped(f, did, (phys, here));
        let bounced = self.is_bounced(f, dma);
        if let Some(kernel) = kernel {
            self.compare_iova(f, kernel, dma);
            self.compare_direct(f, (phys, kernel), (here, dma), bounced);
        }
        let job = self.job();
        let spans = [Span { dma, len: size }];
        self.traffic
            .start(self.target, (f, job), &spans, &runs, wish, bounced)?;
        // Against the direction: behind an IOMMU the table says no.
        if self.blocking && dir == Direction::ToDevice && self.traffic.one_in(128) {
            self.traffic.probe(self.target, f, dma, size, true)?;
        }
        Ok(Some(Phys {
            dma,
            place,
            size,
            dir,
            attrs,
            bounced,
            job,
        }))
    }

    /// Ends what is still mapped at an address that is mapped again: without translation and bounce
    /// slot drivers need not unmap, and some do not.
    pub(super) fn end_forgotten(&mut self, f: usize, key: &(Device, DmaAddr)) -> Result<(), Error> {
        if self.translated(f) {
            return Ok(());
        }
        let Some(at) = self.phys.get_mut(key) else {
            return Ok(());
        };
        // An unmap may follow yet: nothing is left for it to do.
        let forgotten = |p: &mut Option<Phys>| p.take_if(|p| !p.bounced);
        for p in at.iter_mut().filter_map(forgotten).collect::<Vec<_>>() {
            self.comparison.note(
                "mapped again without unmap, which needs none: the older mapping is ended first",
                || format!("{} bytes at {:#x}", p.size, p.dma),
            );
            self.unmap_phys(f, p, p.attrs, None)?;
        }
        Ok(())
    }

    /// The mapping that an unmap is for: of those at the address the youngest that fits best, as
    /// older ones may be mappings that need no unmap and got none.
    pub(super) fn take_phys(
        &mut self,
        dev: &Device,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    ) -> Option<Option<Phys>> {
        let key = (dev.clone(), dma);
        let at = self.phys.get_mut(&key)?;
        let best = (0..at.len()).max_by_key(|i| match &at[*i] {
            Some(p) => (p.size == size && p.dir == dir, *i),
            None => (false, *i),
        })?;
        let found = at.remove(best);
        if at.is_empty() {
            self.phys.remove(&key);
        }
        Some(found)
    }

    pub(super) fn unmap_phys(
        &mut self,
        f: usize,
        p: Phys,
        attrs: Attrs,
        did: Option<&Unmapped>,
    ) -> Result<(), Error> {
        let span = Span {
            dma: p.dma,
            len: p.size,
        };
        self.traffic.leave(self.target, (f, p.job), &[span])?;
        // Nothing orders a posted write to a peer before the end of a mapping that is not
        // translated, but for the time that the device's interrupt takes.
        if matches!(p.place, Place::Peer(..)) && p.dir.device_writes() && !self.translated(f) {
            self.target.settle()?;
        }
        let dev = self.dev(f);
        let ending = self.target.revoke_begin(f, p.dma, p.size);
        self.target.called();
        let (dma, m) = self.target.parts();
        dma.dma_unmap_phys(m, dev, p.dma, p.size, p.dir, attrs);
        self.target.revoke_end(ending);
        match did {
            Some(did) => self.compare_unmapped(f, did),
            None => drop(self.events()),
        }
        let runs = Vec::from_iter(dram(p.place, p.size));
        self.returned(p.job, &runs, p.dir, attrs, p.bounced);
        self.probe_after(f, p.dma, p.size)
    }
}
