//! What the CPU does with an object: looks, new contents, its end.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_dma::{Attrs, machine::Machine};
use tlproof_pcie::DmaAddr;

use super::{
    super::{
        Id,
        drivers::{Kind, Object},
    },
    Runner,
};
use crate::testbench::Error;

impl Runner {
    /// The CPU compares what it sees of an object with what must be there.
    pub(super) fn compare(&mut self, o: &Object) {
        let mut at = 0;
        for (i, (phys, len)) in o.runs.iter().enumerate() {
            let mut got = vec![0; *len as usize];
            if matches!(&o.kind, Kind::Ring(m) if m.uncached) {
                self.bench.sim.cache_invalidate(*phys, *len);
            }
            self.bench.sim.mem_read(*phys, &mut got);
            let want = &o.model[at..at + *len as usize];
            at += *len as usize;
            let dma = o.spans.get(i).map_or(DmaAddr(0), |s| s.dma);
            self.out.compared += len;
            self.bench.sim.compare_memory(dma, want, &got);
        }
    }

    pub(super) fn touch(&mut self, id: Id, seed: u32) -> Result<(), Error> {
        if !self.objects.get(&id).is_some_and(Object::touchable) {
            return Ok(());
        }
        self.wait(id, |_| true)?;
        let Some(mut o) = self.objects.remove(&id) else {
            return Ok(());
        };
        if !o.runs.is_empty() {
            self.sync(&o, true);
            self.compare(&o);
            // What the device only writes is not carried to it.
            if o.dir.device_reads() {
                self.rewrite(&mut o, seed);
            }
            self.sync(&o, false);
        }
        self.objects.insert(id, o);
        Ok(())
    }

    /// New contents from the CPU.
    pub(super) fn rewrite(&mut self, o: &mut Object, seed: u32) {
        let mut rng = ChaCha8Rng::seed_from_u64(u64::from(seed));
        rng.fill(&mut o.model[..]);
        let mut at = 0;
        for (phys, len) in &o.runs {
            let bytes = &o.model[at..at + *len as usize];
            at += *len as usize;
            let (api, sim) = (&mut self.bench.dma, &mut self.bench.sim);
            api.cpu_write(sim, *phys, bytes);
            if matches!(&o.kind, Kind::Ring(m) if m.uncached) {
                self.bench.sim.cache_clean(*phys, *len);
                self.bench.sim.cache_invalidate(*phys, *len);
            }
        }
    }

    pub(super) fn sync(&mut self, o: &Object, for_cpu: bool) {
        let dev = self.bench.functions[o.dev].dev;
        let (api, sim) = (&mut self.bench.dma, &mut self.bench.sim);
        match &o.kind {
            Kind::Phys { .. } => {
                let s = o.spans[0];
                if for_cpu {
                    api.dma_sync_single_for_cpu(sim, dev, s.dma, s.len, o.dir);
                } else {
                    api.dma_sync_single_for_device(sim, dev, s.dma, s.len, o.dir);
                }
            }
            Kind::Sg { list, .. } => {
                if for_cpu {
                    api.dma_sync_sg_for_cpu(sim, dev, list, o.dir);
                } else {
                    api.dma_sync_sg_for_device(sim, dev, list, o.dir);
                }
            }
            Kind::Pages(p) => {
                if for_cpu {
                    api.dma_sync_single_for_cpu(sim, dev, p.dma, p.size, o.dir);
                } else {
                    api.dma_sync_single_for_device(sim, dev, p.dma, p.size, o.dir);
                }
            }
            Kind::Noncontiguous(memory) => {
                if for_cpu {
                    api.dma_sync_sg_for_cpu(sim, dev, &memory.sg, o.dir);
                } else {
                    api.dma_sync_sg_for_device(sim, dev, &memory.sg, o.dir);
                }
            }
            _ => {}
        }
    }

    pub(super) fn unmap(&mut self, id: Id) -> Result<(), Error> {
        self.wait(id, |_| true)?;
        let Some(mut o) = self.objects.remove(&id) else {
            return Ok(());
        };
        if matches!(&o.kind, Kind::Phys { attrs } if attrs.contains(Attrs::SKIP_CPU_SYNC)) {
            self.sync(&o, true);
        }
        let allocated = o.kind.is_allocated();
        if allocated {
            self.sync(&o, true);
            self.compare(&o);
        }
        // Nothing but time orders a posted write to a peer before the end of what is not
        // translated.
        if o.runs.is_empty() && o.dir.device_writes() {
            self.bench.sim.settle(100_000)?;
        }
        let (f, dir) = (o.dev, o.dir);
        match std::mem::replace(&mut o.kind, Kind::Bus) {
            Kind::Phys { attrs } => {
                let s = o.spans[0];
                self.bench.unmap_phys(f, s.dma, s.len, dir, attrs);
            }
            Kind::Sg { mut list, attrs } => self.bench.unmap_sg(f, &mut list, dir, attrs),
            Kind::Iova {
                mut state,
                links,
                attrs,
                destroy,
            } => {
                let mapped = links.iter().map(|(_, s)| s).sum();
                if destroy {
                    self.bench
                        .iova_destroy(f, &mut state, &links, mapped, (dir, attrs));
                } else {
                    self.bench
                        .iova_unlink_free(f, &mut state, &links, (dir, attrs));
                }
            }
            Kind::Resource => {
                let s = o.spans[0];
                self.bench.unmap_resource(f, s.dma, s.len, dir);
            }
            Kind::Bus => {
                let s = o.spans[0];
                self.bench.end_bus_address(f, s.dma, s.len);
            }
            Kind::Ring(memory) => self.bench.free_coherent(f, memory),
            Kind::Pages(pages) => self.bench.free_pages(f, pages),
            Kind::Noncontiguous(memory) => self.bench.free_noncontiguous(f, memory),
            Kind::Dmabuf { mut buf, at, sgt } => {
                if let Err(e) = self.bench.unmap_dmabuf(f, &mut buf, at, sgt) {
                    self.fail("unmap", format!("DMABUF: {e}"));
                }
            }
            Kind::Request { request, prepared } => {
                if let Some(nvme) = &mut self.disks[f] {
                    self.bench.nvme_unmap(f, nvme, &request, *prepared);
                }
            }
            Kind::Odp { region, .. } => self.release(f, region),
        }
        if !allocated {
            self.compare(&o);
        }
        for (base, pages) in &o.pages {
            self.pool.give(*base, *pages);
        }
        self.gone.insert(id, (f, o.spans));
        Ok(())
    }
}
