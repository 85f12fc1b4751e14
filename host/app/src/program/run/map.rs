//! Mappings of main memory.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_dma::{Attrs, SgEntry, machine::Machine};
use tlproof_pcie::{Direction, PhysAddr};

use super::{
    super::{
        Id,
        drivers::{Kind, Object, Span},
    },
    PAGE, Runner,
};
use crate::testbench::Error;

impl Runner {
    /// Fresh pages with contents of their own, from the CPU.
    pub(super) fn buffer(
        &mut self,
        id: Id,
        part: usize,
        offset: u64,
        size: u64,
        dir: Direction,
    ) -> Option<Buffer> {
        let seed = self.world.seed ^ u64::from(id) << 16 ^ part as u64;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let pages = (offset + size).div_ceil(PAGE) as usize;
        let base = self.pool.take(&mut rng, pages)?;
        let mut bytes = vec![0; size as usize];
        rng.fill(&mut bytes[..]);
        let phys = base.offset(offset);
        // What the device only writes is memory of the allocator, whose contents are nobody's.
        let (api, sim) = (&mut self.bench.dma, &mut self.bench.sim);
        api.kmsan_poison(phys, size);
        if dir.device_reads() {
            api.cpu_write(sim, phys, &bytes);
        } else {
            sim.mem_write(phys, &bytes);
        }
        Some(Buffer {
            base,
            pages,
            phys,
            bytes,
        })
    }

    pub(super) fn map(
        &mut self,
        id: Id,
        dev: usize,
        offset: u64,
        size: u32,
        dir: Direction,
        skip_sync: bool,
    ) -> Result<(), Error> {
        let (f, size, offset) = (self.device(dev), u64::from(size.max(1)), offset % PAGE);
        if self.objects.contains_key(&id) {
            return Ok(());
        }
        let Some(b) = self.buffer(id, 0, offset, size, dir) else {
            return Ok(());
        };
        let attrs = if skip_sync {
            Attrs::SKIP_CPU_SYNC
        } else {
            Attrs::empty()
        };
        match self.bench.map_phys(f, b.phys, size, dir, attrs) {
            Ok(dma) => {
                if skip_sync {
                    let d = self.bench.functions[f].dev;
                    let (api, sim) = (&mut self.bench.dma, &mut self.bench.sim);
                    api.dma_sync_single_for_device(sim, d, dma, size, dir);
                }
                let object = Object {
                    dev: f,
                    dir,
                    kind: Kind::Phys { attrs },
                    spans: vec![Span { dma, len: size }],
                    runs: vec![(b.phys, size)],
                    pages: vec![(b.base, b.pages)],
                    model: b.bytes,
                    under_way: Vec::new(),
                };
                self.insert(id, object);
            }
            Err(e) => {
                self.pool.give(b.base, b.pages);
                self.refused(f, &e, "dma_map_phys");
            }
        }
        Ok(())
    }

    pub(super) fn map_sg(
        &mut self,
        id: Id,
        dev: usize,
        sizes: &[u32],
        dir: Direction,
    ) -> Result<(), Error> {
        let f = self.device(dev);
        if self.objects.contains_key(&id) {
            return Ok(());
        }
        let buffers = self.buffers(id, 0, sizes, dir);
        if buffers.is_empty() {
            return Ok(());
        }
        let mut list: Vec<_> = buffers
            .iter()
            .map(|b| SgEntry::new(b.phys, b.bytes.len() as u64))
            .collect();
        let attrs = Attrs::empty();
        match self.bench.map_sg(f, &mut list, dir, attrs) {
            Ok(n) => {
                let spans = list[..n]
                    .iter()
                    .map(|s| Span {
                        dma: s.dma_address,
                        len: s.dma_length,
                    })
                    .collect();
                let object = Object::of_buffers(f, dir, Kind::Sg { list, attrs }, spans, buffers);
                self.insert(id, object);
            }
            Err(e) => {
                self.give(&buffers);
                self.refused(f, &e, "dma_map_sg");
            }
        }
        Ok(())
    }

    /// Buffers of these sizes; the first starts at `offset` in its page.
    pub(super) fn buffers(
        &mut self,
        id: Id,
        offset: u64,
        sizes: &[u32],
        dir: Direction,
    ) -> Vec<Buffer> {
        let mut buffers = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            let offset = if i == 0 { offset } else { 0 };
            match self.buffer(id, i, offset, u64::from((*size).max(1)), dir) {
                Some(b) => buffers.push(b),
                None => break,
            }
        }
        buffers
    }

    pub(super) fn give(&mut self, buffers: &[Buffer]) {
        for b in buffers {
            self.pool.give(b.base, b.pages);
        }
    }

    pub(super) fn map_iova(
        &mut self,
        id: Id,
        dev: usize,
        offset: u64,
        sizes: &[u32],
        (dir, destroy): (Direction, bool),
    ) -> Result<(), Error> {
        let f = self.device(dev);
        if self.objects.contains_key(&id) || sizes.is_empty() {
            return Ok(());
        }
        // All but the last range end on a page boundary.
        let offset = offset % PAGE;
        let last = sizes.len() - 1;
        let sizes: Vec<u32> = sizes
            .iter()
            .enumerate()
            .map(|(i, s)| {
                let head = if i == 0 { offset } else { 0 };
                let end = head + u64::from((*s).max(1));
                let end = if i == last {
                    end
                } else {
                    end.next_multiple_of(PAGE)
                };
                (end - head) as u32
            })
            .collect();
        let buffers = self.buffers(id, offset, &sizes, dir);
        let Some(first) = buffers.first() else {
            return Ok(());
        };
        let total = buffers.iter().map(|b| b.bytes.len() as u64).sum();
        let d = self.bench.functions[f].dev;
        let Some(mut state) = self.bench.dma.dma_iova_try_alloc(d, first.phys, total) else {
            self.out.refused += 1;
            self.give(&buffers);
            return Ok(());
        };
        let attrs = Attrs::empty();
        let (mut links, mut at) = (Vec::new(), 0);
        let mut refusal = None;
        for b in &buffers {
            let size = b.bytes.len() as u64;
            let result = self
                .bench
                .iova_link(f, &mut state, b.phys, at, size, (dir, attrs));
            if let Err(e) = result {
                refusal = Some(e);
                break;
            }
            links.push((at, size));
            at += size;
        }
        if refusal.is_none() {
            refusal = self.bench.dma.dma_iova_sync(d, &state, 0, total).err();
        }
        if let Some(e) = refusal {
            self.bench
                .iova_destroy(f, &mut state, &[], at, (dir, attrs));
            self.give(&buffers);
            self.refused(f, &e, "dma_iova_link");
            return Ok(());
        }
        self.bench.iova_promise(f, &state, &links, attrs);
        let spans = links
            .iter()
            .map(|(o, s)| Span {
                dma: state.addr().offset(*o),
                len: *s,
            })
            .collect();
        let kind = Kind::Iova {
            state,
            links,
            attrs,
            destroy,
        };
        let object = Object::of_buffers(f, dir, kind, spans, buffers);
        self.insert(id, object);
        Ok(())
    }

    pub(super) fn ring(&mut self, id: Id, dev: usize, size: u32) -> Result<(), Error> {
        let (f, size) = (self.device(dev), u64::from(size.max(1)));
        if self.objects.contains_key(&id) {
            return Ok(());
        }
        match self.bench.alloc_coherent(f, size) {
            Ok(memory) => {
                let object = Object {
                    dev: f,
                    dir: Direction::Bidirectional,
                    spans: vec![Span {
                        dma: memory.dma,
                        len: size,
                    }],
                    runs: vec![(memory.phys, size)],
                    pages: Vec::new(),
                    model: vec![0; size as usize],
                    kind: Kind::Ring(memory),
                    under_way: Vec::new(),
                };
                self.insert(id, object);
            }
            Err(e) => self.refused(f, &e, "dma_alloc_coherent"),
        }
        Ok(())
    }
}

/// Main memory with contents of its own.
pub(super) struct Buffer {
    pub base: PhysAddr,
    pub pages: usize,
    pub phys: PhysAddr,
    pub bytes: Vec<u8>,
}

impl Object {
    pub(super) fn of_buffers(
        dev: usize,
        dir: Direction,
        kind: Kind,
        spans: Vec<Span>,
        buffers: Vec<Buffer>,
    ) -> Self {
        Self {
            dev,
            dir,
            kind,
            spans,
            runs: buffers
                .iter()
                .map(|b| (b.phys, b.bytes.len() as u64))
                .collect(),
            pages: buffers.iter().map(|b| (b.base, b.pages)).collect(),
            model: buffers.into_iter().flat_map(|b| b.bytes).collect(),
            under_way: Vec::new(),
        }
    }
}
