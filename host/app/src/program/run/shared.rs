//! Peer memory that its owner can take back, pages of a process, memory from the API.

use tlproof_dma::{
    dmabuf::{DmaBufError, ImporterOps},
    hmm::HmmError,
    machine::Machine,
    odp::{OdpError, OdpRegion, UserMemory, UserPage},
};
use tlproof_pcie::{Direction, PhysAddr};

use super::{
    super::{
        Id,
        drivers::{Kind, Object, Span},
        world::MAX_SEGMENT,
    },
    PAGE, PEER_MEMORY, Runner,
};
use crate::testbench::Error;

/// Virtual address of the first page of a process.
const VA: u64 = 0x7f12_3456_7000;

impl Runner {
    /// Pages that the CPU and the device hand to each other.
    pub(super) fn pages(
        &mut self,
        id: Id,
        dev: usize,
        size: u32,
        dir: Direction,
        scattered: bool,
    ) -> Result<(), Error> {
        let (f, size) = (self.device(dev), u64::from(size.max(1)));
        if self.objects.contains_key(&id) {
            return Ok(());
        }
        // Scattered pages are one segment for the device, which may not be longer than it claims.
        let size = if scattered {
            size.min(MAX_SEGMENT)
        } else {
            size
        };
        let made = if scattered {
            self.bench.alloc_noncontiguous(f, size, dir).map(|memory| {
                let mut left = size;
                let runs = memory.sg.iter().map(|s| {
                    let n = s.length.min(left);
                    left -= n;
                    (s.phys, n)
                });
                (memory.dma(), runs.collect(), Kind::Noncontiguous(memory))
            })
        } else {
            let pages = self.bench.alloc_pages(f, size, dir);
            pages.map(|p| (p.dma, vec![(p.phys, size)], Kind::Pages(p)))
        };
        match made {
            Ok((dma, runs, kind)) => {
                let object = Object {
                    dev: f,
                    dir,
                    kind,
                    spans: vec![Span { dma, len: size }],
                    runs,
                    pages: Vec::new(),
                    model: vec![0; size as usize],
                    under_way: Vec::new(),
                };
                // The zeros are in the CPU's caches.
                self.sync(&object, false);
                self.insert(id, object);
            }
            Err(e) => self.refused(f, &e, "dma_alloc_pages"),
        }
        Ok(())
    }

    /// A part of a peer's BAR as a DMABUF, attached and mapped.
    pub(super) fn dmabuf(
        &mut self,
        id: Id,
        dev: usize,
        peer: usize,
        ranges: &[(u32, u32)],
        dir: Direction,
    ) -> Result<(), Error> {
        let (f, peer) = (self.device(dev), self.device(peer));
        if self.objects.contains_key(&id) || f == peer {
            return Ok(());
        }
        let all = u64::from(PEER_MEMORY) / PAGE;
        let ranges: Vec<(u64, u64)> = ranges
            .iter()
            .map(|(page, n)| {
                let page = u64::from(*page) % all;
                let n = u64::from(*n).clamp(1, all - page);
                (page * PAGE, n * PAGE)
            })
            .collect();
        let mapped = self.bench.export_dmabuf(peer, &ranges).and_then(|mut buf| {
            let at = buf.attach(Some(self.bench.functions[f].dev), ImporterOps::PEER)?;
            let sgt = self.bench.map_dmabuf(f, &mut buf, at, dir)?;
            Ok((buf, at, sgt))
        });
        match mapped {
            Ok((buf, at, sgt)) => {
                let span = |s: &tlproof_dma::dmabuf::DmaSegment| Span {
                    dma: s.dma,
                    len: s.len,
                };
                let spans = sgt.segments().iter().map(span).collect();
                let kind = Kind::Dmabuf { buf, at, sgt };
                self.insert(id, Object::of_peer(f, dir, kind, spans));
            }
            Err(DmaBufError::Map(e)) => self.refused(f, &e, "dma_buf_map_attachment"),
            Err(DmaBufError::NotReachable | DmaBufError::Range) => self.out.refused += 1,
            Err(e) => self.fail("refused", format!("DMABUF: {e}")),
        }
        Ok(())
    }

    /// The owner of a DMABUF takes it back while transfers are under way, and stops to decode.
    pub(super) fn revoke(&mut self, id: Id) -> Result<(), Error> {
        if !matches!(self.objects.get(&id), Some(o) if matches!(o.kind, Kind::Dmabuf { .. })) {
            return Ok(());
        }
        // Nobody else may be on his way to a function that does not decode.
        for other in self.objects.keys().copied().collect::<Vec<_>>() {
            if other != id {
                self.wait(other, |_| true)?;
            }
        }
        let Some(o) = self.objects.remove(&id) else {
            return Ok(());
        };
        // Where nothing may be read, nothing pushes the writes.
        if !o.dir.device_reads() {
            self.objects.insert(id, o);
            self.wait(id, |_| true)?;
            self.bench.sim.settle(100_000)?;
            return match self.objects.remove(&id) {
                Some(o) => self.take_back(id, o),
                None => Ok(()),
            };
        }
        self.take_back(id, o)
    }

    fn take_back(&mut self, id: Id, o: Object) -> Result<(), Error> {
        let Kind::Dmabuf { mut buf, at, sgt } = o.kind else {
            return Ok(());
        };
        if let Err(e) = self.bench.revoke_dmabuf(o.dev, &mut buf, at, sgt) {
            self.fail("revoke", e.to_string());
        }
        self.bench.sim.settle(100_000)?;
        if let Err(e) = buf.restore(&mut self.bench.sim) {
            self.fail("revoke", e.to_string());
        }
        self.gone.insert(id, (o.dev, o.spans));
        Ok(())
    }

    /// Pages of a process that the device has faulted in, the last one a peer's if there is one.
    pub(super) fn odp(
        &mut self,
        id: Id,
        dev: usize,
        pages: u32,
        peer: Option<(usize, u32)>,
    ) -> Result<(), Error> {
        let (f, n) = (self.device(dev), pages.clamp(1, 16) as usize);
        if self.objects.contains_key(&id) {
            return Ok(());
        }
        let peer = peer.filter(|(p, _)| self.device(*p) != f).map(|(p, page)| {
            let page = u64::from(page) % (u64::from(PEER_MEMORY) / PAGE);
            let owner = &self.bench.functions[self.device(p)].engine;
            owner.memory.offset(page * PAGE)
        });
        let sizes = vec![PAGE as u32; n];
        let buffers = self.buffers(id, 0, &sizes, Direction::Bidirectional);
        let mut user = UserMemory::default();
        let physes = buffers.iter().map(|b| b.phys).chain(peer);
        let physes: Vec<PhysAddr> = physes.collect();
        for (i, phys) in physes.iter().enumerate() {
            user.insert(VA + i as u64 * PAGE, page(*phys));
        }
        let mut region = match self.bench.odp_region(f, VA, physes.len()) {
            Ok(region) => region,
            Err(e) => {
                self.give(&buffers);
                self.odp_refused(f, &e);
                return Ok(());
            }
        };
        let mut spans = Vec::new();
        for i in 0..physes.len() as u64 {
            // Page by page: what cannot be had does not take the others along.
            let at = (VA + i * PAGE, PAGE);
            match self.bench.odp_fault(f, &mut region, &user, at, true) {
                Ok(ready) => spans.extend(ready.iter().map(|(_, e)| Span {
                    dma: e.dma,
                    len: PAGE,
                })),
                Err(e) => {
                    self.odp_refused(f, &e);
                    break;
                }
            }
        }
        let usable = spans.len().min(buffers.len());
        let kind = Kind::Odp { region, user };
        let mut object = Object::of_buffers(f, Direction::Bidirectional, kind, spans, buffers);
        object.runs.truncate(usable);
        object.model.truncate(usable * PAGE as usize);
        if object.spans.is_empty() {
            let Kind::Odp { region, .. } = object.kind else {
                return Ok(());
            };
            self.release(f, region);
            for (base, pages) in &object.pages {
                self.pool.give(*base, *pages);
            }
            return Ok(());
        }
        self.insert(id, object);
        Ok(())
    }

    fn odp_refused(&mut self, f: usize, e: &OdpError) {
        match e {
            OdpError::Hmm(HmmError::Map(e)) => self.refused(f, e, "hmm_dma_map_pfn"),
            OdpError::Hmm(HmmError::Unsupported | HmmError::NotReachable) => self.out.refused += 1,
            e => self.fail("refused", format!("paging: {e}")),
        }
    }

    /// All pages of a process are unmapped.
    pub(super) fn release(&mut self, f: usize, mut region: OdpRegion) {
        let present: Vec<u64> = region.present().map(|(va, _)| va).collect();
        for va in present {
            if let Err(e) = self.bench.odp_invalidate(f, &mut region, va, PAGE) {
                self.fail("paging", e.to_string());
            }
        }
        if let Err(e) = region.release(&mut self.bench.dma, &mut self.bench.sim) {
            self.fail("paging", e.to_string());
        }
    }

    /// The kernel moves a page of a process to another place; the device faults it in again.
    pub(super) fn migrate(&mut self, id: Id, which: u32) -> Result<(), Error> {
        self.wait(id, |_| true)?;
        let Some(mut o) = self.objects.remove(&id) else {
            return Ok(());
        };
        if matches!(o.kind, Kind::Odp { .. }) && !o.runs.is_empty() {
            let i = which as usize % o.runs.len();
            self.move_page(id, &mut o, i)?;
        }
        self.objects.insert(id, o);
        Ok(())
    }

    fn move_page(&mut self, id: Id, o: &mut Object, i: usize) -> Result<(), Error> {
        let f = o.dev;
        let part = 0x100 + self.out.transfers as usize;
        let both = Direction::Bidirectional;
        let Some(new) = self.buffer(id, part, 0, PAGE, both) else {
            return Ok(());
        };
        let Kind::Odp { region, user } = &mut o.kind else {
            return Ok(());
        };
        let va = VA + i as u64 * PAGE;
        let ended = self.bench.odp_invalidate(f, region, va, PAGE);
        let at = i * PAGE as usize;
        let mut bytes = vec![0; PAGE as usize];
        self.bench.sim.mem_read(o.runs[i].0, &mut bytes);
        let want = o.model[at..at + bytes.len()].to_vec();
        let old = o.spans[i].dma;
        self.out.compared += PAGE;
        self.bench.sim.compare_memory(old, &want, &bytes);
        let (api, sim) = (&mut self.bench.dma, &mut self.bench.sim);
        api.cpu_write(sim, new.phys, &want);
        user.insert(va, page(new.phys));
        let ready = self.bench.odp_fault(f, region, user, (va, PAGE), true);
        match (ended, ready) {
            (Ok(1), Ok(ready)) if ready.len() == 1 => o.spans[i].dma = ready[0].1.dma,
            (ended, ready) => self.fail("paging", format!("a page moves: {ended:?}, {ready:?}")),
        }
        let (base, pages) = std::mem::replace(&mut o.pages[i], (new.base, new.pages));
        self.pool.give(base, pages);
        o.runs[i].0 = new.phys;
        Ok(())
    }
}

const fn page(phys: PhysAddr) -> UserPage {
    UserPage {
        phys,
        writable: true,
    }
}
