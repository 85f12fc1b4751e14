//! The two-step interface, `dma_iova_*`.

use tlproof_dma::{Attrs, IovaState};
use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::{LOST, NO_DOMAIN, Phys, Replayer, address, dram};
use crate::{
    replay::{
        join::{Mapped, Unmapped},
        machine::Place,
        target::Target,
        traffic::{Job, Runs, Span, Wish},
    },
    testbench::Error,
    trace::Device,
};

/// A live two-step mapping.
pub(super) struct State {
    /// `None`: our API refused and every range is mapped by itself.
    pub(super) iova: Option<IovaState>,
    /// Linked and not yet promised: offset and size.
    pub(super) fresh: Vec<(u64, u64)>,
    /// Promised.
    pub(super) pieces: Vec<(u64, u64)>,
    /// Transfers for when the state is synced.
    pub(super) wishes: Vec<(Span, Runs, Wish)>,
    /// Ranges mapped by themselves.
    pub(super) single: Vec<Phys>,
    pub(super) bounced: bool,
    pub(super) job: Job,
}

impl State {
    pub(super) const fn new(iova: Option<IovaState>, job: Job) -> Self {
        Self {
            iova,
            fresh: Vec::new(),
            pieces: Vec::new(),
            wishes: Vec::new(),
            single: Vec::new(),
            bounced: false,
            job,
        }
    }
}

impl<T: Target> Replayer<'_, T> {
    pub(super) fn try_alloc(
        &mut self,
        f: usize,
        (dev, state): (&Device, u64),
        (phys, size): (PhysAddr, u64),
        kernel: Option<DmaAddr>,
        did: &Mapped,
    ) -> Result<(), Error> {
        self.masks(f, did.alloc, false)?;
        // The address counts for its offset in the granule only.
        let here = match self.place(phys, 1) {
            Place::TooLong => phys,
            place => address(place),
        };
        let id = self.dev(f);
        self.target.called();
        let ours = self.target.parts().0.dma_iova_try_alloc(id, here, size);
        let reason = if self.identity_here(f) {
            NO_DOMAIN
        } else {
            "whether the two-step interface can be used"
        };
        self.comparison
            .check(&kernel.is_some(), &ours.is_some(), reason, |used| {
                if *used { "two steps" } else { "range by range" }.to_owned()
            });
        let events = self.events();
        if let (Some(kernel), Some(ours)) = (kernel, ours) {
            let alloc = Mapped {
                tables: Vec::new(),
                bounces: Vec::new(),
                ..did.clone()
            };
            self.comparison.mapped(&alloc, &events, (phys, here));
            self.compare_iova(f, kernel, ours.addr());
        }
        match (kernel, ours) {
            (None, Some(mut s)) => {
                self.target.parts().0.dma_iova_free(id, &mut s);
                self.events();
            }
            (None, None) => {}
            (Some(_), iova) => {
                let made = State::new(iova, self.job());
                self.states.insert((dev.clone(), state), made);
            }
        }
        Ok(())
    }

    pub(super) fn link(
        &mut self,
        f: usize,
        (dev, state): (&Device, u64),
        (phys, offset, size): (PhysAddr, u64, u64),
        (dir, attrs): (Direction, Attrs),
        ret: i32,
        did: &Mapped,
    ) -> Result<(), Error> {
        let key = (dev.clone(), state);
        let Some(mut s) = self.states.remove(&key) else {
            self.comparison
                .note(LOST, || format!("dma_iova_link of state {state:#x}"));
            return Ok(());
        };
        let result = self.link_into(f, &mut s, (phys, offset, size), (dir, attrs), ret, did);
        self.states.insert(key, s);
        result
    }

    pub(super) fn link_into(
        &mut self,
        f: usize,
        s: &mut State,
        (phys, offset, size): (PhysAddr, u64, u64),
        (dir, attrs): (Direction, Attrs),
        ret: i32,
        did: &Mapped,
    ) -> Result<(), Error> {
        if s.iova.is_none() {
            // As a driver does where dma_iova_try_alloc() says no.
            let result = (ret == 0, None);
            let made = self.map_phys(f, (phys, size), dir, attrs, result, &Mapped::default());
            s.single.extend(made?);
            return Ok(());
        }
        let here = self.place(phys, size);
        let here = if here == Place::TooLong {
            phys
        } else {
            address(here)
        };
        if self.link_range(f, s, (phys, offset, size), (dir, attrs), ret == 0)? {
            self.counts.replayed += 1;
            self.compare_mapped(f, did, (phys, here));
        } else {
            self.events();
        }
        Ok(())
    }

    /// Links a range; whether that was possible. Its events are left to the caller.
    pub(super) fn link_range(
        &mut self,
        f: usize,
        s: &mut State,
        (phys, offset, size): (PhysAddr, u64, u64),
        (dir, attrs): (Direction, Attrs),
        kernel: bool,
    ) -> Result<bool, Error> {
        let Some(mut iova) = s.iova else {
            return Ok(false);
        };
        let Some(place) = self.usable(f, phys, size) else {
            return Ok(false);
        };
        let (here, runs) = (address(place), Vec::from_iter(dram(place, size)));
        let wish = match place {
            Place::Elsewhere(_) => None,
            _ => self.traffic.wish(size, dir),
        };
        self.traffic.prepare(self.target, &runs, wish)?;
        let id = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        let result = dma.dma_iova_link(m, id, &mut iova, here, offset, size, dir, attrs);
        s.iova = Some(iova);
        if self.outcome(kernel, result)?.is_none() {
            return Ok(false);
        }
        // Bounced ends are mappings of their own.
        let mut at = offset;
        while at < offset + size {
            let mapping = self.target.parts().0.describe(id, iova.addr().offset(at));
            let Some(mapping) = mapping.filter(|m| m.size > 0) else {
                break;
            };
            s.bounced |= mapping.segments.iter().any(|s| s.bounced.is_some());
            s.fresh.push((at, mapping.size));
            at += mapping.size;
        }
        if let Some(wish) = wish {
            let span = Span {
                dma: iova.addr().offset(offset),
                len: size,
            };
            s.wishes.push((span, runs, wish));
        }
        Ok(true)
    }

    pub(super) fn iova_sync(
        &mut self,
        f: usize,
        (dev, state): (&Device, u64),
        offset: u64,
        size: u64,
    ) -> Result<(), Error> {
        let key = (dev.clone(), state);
        let Some(mut s) = self.states.remove(&key) else {
            self.comparison
                .note(LOST, || format!("dma_iova_sync of state {state:#x}"));
            return Ok(());
        };
        let result = self.sync_state(f, &mut s, (offset, size));
        self.states.insert(key, s);
        result
    }

    pub(super) fn sync_state(
        &mut self,
        f: usize,
        s: &mut State,
        (offset, size): (u64, u64),
    ) -> Result<(), Error> {
        let Some(iova) = s.iova else { return Ok(()) };
        let (id, bdf) = (self.dev(f), self.target.bdf(f));
        self.target.called();
        let result = self.target.parts().0.dma_iova_sync(id, &iova, offset, size);
        self.events();
        self.outcome(true, result)?;
        for (offset, size) in s.fresh.drain(..) {
            let dma = iova.addr().offset(offset);
            let call = format!(
                "dma_iova_link({bdf}, iova={:#x}, offset={offset:#x}, size={size})",
                iova.addr()
            );
            self.target.promise(f, dma, call);
            s.pieces.push((offset, size));
        }
        for (span, runs, wish) in s.wishes.drain(..) {
            let who = (f, s.job);
            self.traffic
                .start(self.target, who, &[span], &runs, Some(wish), s.bounced)?;
        }
        Ok(())
    }

    pub(super) fn unlink(
        &mut self,
        f: usize,
        (dev, state): (&Device, u64),
        (offset, size): (u64, u64),
        (dir, attrs): (Direction, Attrs),
    ) -> Result<(), Error> {
        let key = (dev.clone(), state);
        let Some(mut s) = self.states.remove(&key) else {
            self.comparison
                .note(LOST, || format!("dma_iova_unlink of state {state:#x}"));
            return Ok(());
        };
        self.traffic.complete(self.target, s.job)?;
        for p in std::mem::take(&mut s.single) {
            self.unmap_phys(f, p, p.attrs, None)?;
        }
        if let Some(iova) = s.iova {
            let inside = |p: &mut (u64, u64)| p.0 >= offset && p.0 + p.1 <= offset + size;
            let gone: Vec<_> = s.pieces.extract_if(.., inside).collect();
            let endings = self.begin(f, &iova, &gone);
            let id = self.dev(f);
            self.target.called();
            let (dma, m) = self.target.parts();
            dma.dma_iova_unlink(m, id, &iova, offset, size, dir, attrs);
            for ending in endings {
                self.target.revoke_end(ending);
            }
            self.events();
            let within = (iova.addr().offset(offset), size);
            self.traffic.look(self.target, s.job, Some(within));
        }
        self.states.insert(key, s);
        Ok(())
    }

    pub(super) fn begin(
        &mut self,
        f: usize,
        iova: &IovaState,
        pieces: &[(u64, u64)],
    ) -> Vec<T::Ending> {
        pieces
            .iter()
            .map(|(o, n)| self.target.revoke_begin(f, iova.addr().offset(*o), *n))
            .collect()
    }

    pub(super) fn destroy(
        &mut self,
        f: usize,
        (dev, state): (&Device, u64),
        (mapped, bounced): (u64, bool),
        (dir, attrs): (Direction, Attrs),
        did: &Unmapped,
    ) -> Result<(), Error> {
        match self.states.remove(&(dev.clone(), state)) {
            Some(s) => self.destroy_state(f, s, (mapped, bounced), (dir, attrs), did),
            None => {
                self.comparison
                    .note(LOST, || format!("dma_iova_destroy of state {state:#x}"));
                Ok(())
            }
        }
    }

    pub(super) fn destroy_state(
        &mut self,
        f: usize,
        mut s: State,
        (mapped, bounced): (u64, bool),
        (dir, attrs): (Direction, Attrs),
        did: &Unmapped,
    ) -> Result<(), Error> {
        self.traffic.complete(self.target, s.job)?;
        for p in s.single {
            self.unmap_phys(f, p, p.attrs, None)?;
        }
        let Some(iova) = &mut s.iova else {
            return Ok(());
        };
        let ours = iova.raw_size() >> 63 != 0;
        self.comparison.check(
            &bounced,
            &ours,
            "whether a two-step mapping is bounced",
            |b| if *b { "bounced" } else { "not bounced" }.to_owned(),
        );
        let first = iova.addr();
        let endings = self.begin(f, iova, &s.pieces);
        let id = self.dev(f);
        self.target.called();
        let (dma, m) = self.target.parts();
        dma.dma_iova_destroy(m, id, iova, mapped, dir, attrs);
        for ending in endings {
            self.target.revoke_end(ending);
        }
        self.compare_unmapped(f, did);
        self.returned(s.job, &[], dir, attrs, s.bounced);
        self.probe_after(f, first, mapped)
    }
}
