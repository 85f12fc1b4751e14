//! `dma_map_sg` and `dma_unmap_sg`.

use tlproof_dma::{Attrs, SgEntry};
use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::{List, Replayer, address, dram};
use crate::{
    replay::{
        join::{Mapped, Unmapped, sg_lengths},
        machine::Place,
        target::Target,
        traffic::{Runs, Span},
    },
    testbench::Error,
};

impl<T: Target> Replayer<'_, T> {
    pub(super) fn map_sg(
        &mut self,
        f: usize,
        dir: Direction,
        attrs: Attrs,
        phys: &[PhysAddr],
        segments: &[(DmaAddr, u64)],
        did: &Mapped,
    ) -> Result<Option<List>, Error> {
        let Some(lengths) = sg_lengths(phys, segments, &did.tables) else {
            self.comparison.note(
                "not replayed: lengths of a scatterlist cannot be told from its events",
                || format!("{} entries", phys.len()),
            );
            return Ok(None);
        };
        let mut entries = Vec::with_capacity(phys.len());
        let mut runs = Runs::new();
        let mut memory = true;
        for (phys, len) in phys.iter().zip(lengths) {
            let Some(place) = self.usable(f, *phys, len) else {
                return Ok(None);
            };
            entries.push(SgEntry::new(address(place), len));
            runs.extend(dram(place, len));
            memory &= matches!(place, Place::Memory(_));
        }
        let list = self.map_list(f, (dir, attrs), entries, runs, memory, did)?;
        let Some((list, n)) = list else {
            return Ok(None);
        };
        let segment = |first: DmaAddr, dma: DmaAddr, len: u64| (dma.0.wrapping_sub(first.0), len);
        if self.plan.roles[f].translated() {
            let ours = &list.entries[..n];
            let first = ours[0].dma_address;
            let theirs: Vec<_> = segments
                .iter()
                .map(|(d, l)| segment(segments[0].0, *d, *l))
                .collect();
            let ours: Vec<_> = ours
                .iter()
                .map(|e| segment(first, e.dma_address, e.dma_length))
                .collect();
            if !self.identity_here(f) {
                self.comparison
                    .check(&theirs, &ours, "segments of a scatterlist", |v| {
                        format!("{v:x?}")
                    });
            }
            self.compare_iova(f, segments[0].0, first);
        } else {
            for i in 0..n.min(segments.len()) {
                let e = list.entries[i];
                let (kernel, ours) = ((phys[i], segments[i].0), (e.phys, e.dma_address));
                self.compare_direct(f, kernel, ours, list.bounced);
            }
            let theirs: Vec<u64> = segments.iter().map(|s| s.1).collect();
            let ours: Vec<u64> = list.entries[..n].iter().map(|e| e.dma_length).collect();
            self.comparison
                .check(&theirs, &ours, "segments of a scatterlist", |v| {
                    format!("{v:?}")
                });
        }
        Ok(Some(List {
            first: segments[0].0,
            ..list
        }))
    }

    /// Maps a list and lets the device use it; also returns the number of segments.
    pub(super) fn map_list(
        &mut self,
        f: usize,
        (dir, attrs): (Direction, Attrs),
        mut entries: Vec<SgEntry>,
        runs: Runs,
        memory: bool,
        did: &Mapped,
    ) -> Result<Option<(List, usize)>, Error> {
        self.masks(f, did.alloc, false)?;
        let total = entries.iter().map(|e| e.length).sum();
        let wish = if memory {
            self.traffic.wish(total, dir)
        } else {
            None
        };
        self.traffic.prepare(self.target, &runs, wish)?;
        let dev = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        let result = dma.dma_map_sg(m, dev, &mut entries, dir, attrs);
        let Some(n) = self.outcome(true, result)? else {
            self.events();
            return Ok(None);
        };
        self.counts.replayed += 1;
        self.compare_mapped(f, did, (PhysAddr(0), PhysAddr(0)));
        let bdf = self.target.bdf(f);
        let segments: Vec<_> = entries[..n]
            .iter()
            .map(|e| Span {
                dma: e.dma_address,
                len: e.dma_length,
            })
            .collect();
        for (i, s) in segments.iter().enumerate() {
            let call = format!(
                "dma_map_sg({bdf}, {} entries, dir={}, attrs={attrs}), segment {i}: {:#x}+{}",
                entries.len(),
                dir.name(),
                s.dma,
                s.len
            );
            self.target.promise(f, s.dma, call);
        }
        let bounced = self.is_bounced(f, segments.first().map_or(DmaAddr(0), |s| s.dma));
        let job = self.job();
        self.traffic
            .start(self.target, (f, job), &segments, &runs, wish, bounced)?;
        let first = DmaAddr(0);
        Ok(Some((
            List {
                entries,
                dir,
                bounced,
                job,
                first,
            },
            n,
        )))
    }

    pub(super) fn unmap_sg(
        &mut self,
        f: usize,
        mut list: List,
        attrs: Attrs,
        did: &Unmapped,
    ) -> Result<(), Error> {
        let runs: Runs = list.entries.iter().map(|e| (e.phys, e.length)).collect();
        let segments: Vec<_> = list
            .entries
            .iter()
            .take_while(|e| e.dma_length != 0)
            .map(|e| (e.dma_address, e.dma_length))
            .collect();
        let spans: Vec<_> = segments
            .iter()
            .map(|(dma, len)| Span {
                dma: *dma,
                len: *len,
            })
            .collect();
        self.traffic.leave(self.target, (f, list.job), &spans)?;
        let endings: Vec<_> = segments
            .iter()
            .map(|(dma, len)| self.target.revoke_begin(f, *dma, *len))
            .collect();
        let dev = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        dma.dma_unmap_sg(m, dev, &mut list.entries, list.dir, attrs);
        for ending in endings {
            self.target.revoke_end(ending);
        }
        self.compare_unmapped(f, did);
        self.returned(list.job, &runs, list.dir, attrs, list.bounced);
        match segments.first() {
            Some((dma, len)) => self.probe_after(f, *dma, *len),
            None => Ok(()),
        }
    }
}
