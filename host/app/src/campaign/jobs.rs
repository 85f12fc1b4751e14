//! Buffers of drivers, mapped in every way.

use rand::RngExt;
use tlproof_dma::{Attrs, MapError, SgEntry, p2pdma::MapType};
use tlproof_pcie::Direction;

use super::{BAR_SIZE, Campaign, Job, Mapped, PAGE, Span};

impl Campaign {
    pub(super) fn phys_job(&mut self, f: usize, dir: Direction) -> Result<Option<Job>, MapError> {
        let size = self.size();
        let offset = if self.rng.random_bool(0.5) {
            0
        } else {
            self.rng.random_range(0..PAGE)
        };
        let Some((base, pages)) = self.buffer(offset, size) else {
            return Ok(None);
        };
        let phys = base.offset(offset);
        let attrs = Attrs::empty();
        let dma = match self.bench.map_phys(f, phys, size, dir, attrs) {
            Ok(dma) => dma,
            Err(e) => {
                self.pool.give(base, pages);
                return Err(e);
            }
        };
        let mut job = self.job(
            f,
            dir,
            Mapped::Phys { attrs },
            vec![Span { dma, len: size }],
        );
        job.pages.push((base, pages));
        job.runs.push((phys, size));
        Ok(Some(job))
    }

    pub(super) fn sg_job(&mut self, f: usize, dir: Direction) -> Result<Option<Job>, MapError> {
        let mut list = Vec::new();
        let mut pages = Vec::new();
        for _ in 0..self.rng.random_range(1..8) {
            let size = PAGE * self.rng.random_range(1..8);
            let Some((base, n)) = self.buffer(0, size) else {
                break;
            };
            pages.push((base, n));
            list.push(SgEntry::new(base, size));
        }
        if list.is_empty() {
            return Ok(None);
        }
        let n = match self.bench.map_sg(f, &mut list, dir, Attrs::empty()) {
            Ok(n) => n,
            Err(e) => {
                for (base, n) in pages {
                    self.pool.give(base, n);
                }
                return Err(e);
            }
        };
        let spans = list[..n]
            .iter()
            .map(|s| Span {
                dma: s.dma_address,
                len: s.dma_length,
            })
            .collect();
        let runs = list.iter().map(|s| (s.phys, s.length)).collect();
        let mut job = self.job(f, dir, Mapped::Sg { list }, spans);
        job.pages = pages;
        job.runs = runs;
        Ok(Some(job))
    }

    pub(super) fn iova_job(&mut self, f: usize, dir: Direction) -> Result<Option<Job>, MapError> {
        let dev = self.bench.functions[f].dev;
        let mut runs = Vec::new();
        let mut pages = Vec::new();
        let offset = if self.rng.random_bool(0.7) {
            0
        } else {
            self.rng.random_range(0..PAGE)
        };
        for i in 0..self.rng.random_range(1..6) {
            let off = if i == 0 { offset } else { 0 };
            let size = PAGE * self.rng.random_range(1..8) - off;
            let Some((base, n)) = self.buffer(off, size) else {
                break;
            };
            pages.push((base, n));
            runs.push((base.offset(off), size));
        }
        let Some((first, _)) = runs.first().copied() else {
            return Ok(None);
        };
        let total = runs.iter().map(|(_, s)| s).sum();
        let attrs = Attrs::empty();
        let Some(mut state) = self.bench.dma.dma_iova_try_alloc(dev, first, total) else {
            for (base, n) in pages {
                self.pool.give(base, n);
            }
            return Ok(None);
        };
        let mut links = Vec::new();
        let mut at = 0;
        for (phys, size) in &runs {
            self.bench
                .iova_link(f, &mut state, *phys, at, *size, (dir, attrs))?;
            links.push((at, *size));
            at += size;
        }
        self.bench.dma.dma_iova_sync(dev, &state, 0, total)?;
        self.bench.iova_promise(f, &state, &links, attrs);
        let spans = links
            .iter()
            .map(|(o, s)| Span {
                dma: state.addr().offset(*o),
                len: *s,
            })
            .collect();
        let mut job = self.job(
            f,
            dir,
            Mapped::Iova {
                state,
                links,
                attrs,
            },
            spans,
        );
        job.pages = pages;
        job.runs = runs;
        Ok(Some(job))
    }

    pub(super) fn peer_job(&mut self, f: usize, dir: Direction) -> Result<Option<Job>, MapError> {
        let peer = (f + self.rng.random_range(1..self.bench.functions.len())) % 3;
        let size = self.rng.random_range(4..32 << 10) & !3;
        let offset = self.rng.random_range(0..BAR_SIZE - size) & !3;
        let phys = self.bench.functions[peer].engine.memory.offset(offset);
        match self.bench.peer_map_type(f, peer) {
            MapType::BusAddr => {
                let dma = self.bench.bus_address(f, phys, size);
                Ok(Some(self.job(
                    f,
                    dir,
                    Mapped::Bus,
                    vec![Span { dma, len: size }],
                )))
            }
            MapType::ThruHostBridge => {
                let attrs = Attrs::MMIO;
                let dma = self.bench.map_phys(f, phys, size, dir, attrs)?;
                Ok(Some(self.job(
                    f,
                    dir,
                    Mapped::Phys { attrs },
                    vec![Span { dma, len: size }],
                )))
            }
            _ => Ok(None),
        }
    }
}
