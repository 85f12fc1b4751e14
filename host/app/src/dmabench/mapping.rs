//! The calls that are measured.

use tlproof_dma::{Attrs, IovaState, MapError, SgEntry};
use tlproof_pcie::{Direction, DmaAddr};

use super::{DEVICE, Mode, PAGE, Shared, buffer::Buffer, timed::Timed};
use crate::testbench::Error;

/// Bytes that follow each other for the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub dma: DmaAddr,
    pub len: u64,
}

/// A mapping, as far as the call that undoes it must know.
pub(super) enum Mapping {
    Phys(DmaAddr),
    List(Vec<SgEntry>),
    State(IovaState),
}

impl Shared {
    /// Attributes of the calls: a list says by its pages what it is.
    const fn attrs(&self) -> Attrs {
        if self.options.mmio && !matches!(self.options.mode, Mode::Sg) {
            Attrs::MMIO
        } else {
            Attrs::empty()
        }
    }

    /// Maps a buffer, and enters the promise.
    pub(super) fn map(&mut self, cpu: usize, b: &Buffer) -> Result<(Mapping, Vec<Span>), Error> {
        let (attrs, dir) = (self.attrs(), self.options.dir);
        let function = &self.bench.functions[DEVICE];
        let (dev, bdf) = (function.dev, function.engine.bdf);
        self.bench.dma.set_cpu(cpu);
        let start = self.bench.sim.cycles();
        let made = self.call_map(b, dir, attrs);
        let took = self.bench.sim.cycles() - start;
        let mapping = made?;
        self.map.add(took);
        let (spans, name) = match &mapping {
            Mapping::Phys(dma) => (
                vec![Span {
                    dma: *dma,
                    len: b.size(),
                }],
                "dma_map_phys",
            ),
            Mapping::List(list) => {
                let used = list.iter().take_while(|e| e.dma_length != 0);
                let spans = used.map(|e| Span {
                    dma: e.dma_address,
                    len: e.dma_length,
                });
                (spans.collect(), "dma_map_sg")
            }
            Mapping::State(state) => {
                let page = |i: u64| Span {
                    dma: state.addr().offset(i * PAGE),
                    len: PAGE,
                };
                (
                    (0..b.pages.len() as u64).map(page).collect(),
                    "dma_iova_link",
                )
            }
        };
        for span in &spans {
            let call = format!(
                "{name}({bdf}, dir={}, attrs={attrs}): {:#x}+{}",
                dir.name(),
                span.dma,
                span.len
            );
            self.bench.promise(dev, span.dma, call);
        }
        Ok((mapping, spans))
    }

    fn call_map(&mut self, b: &Buffer, dir: Direction, attrs: Attrs) -> Result<Mapping, MapError> {
        let dev = self.bench.functions[DEVICE].dev;
        let dma = &mut self.bench.dma;
        let cost = self.options.access_cycles;
        let mut m = Timed {
            sim: &mut self.bench.sim,
            cost,
        };
        self.bench.calls += 1;
        match self.options.mode {
            Mode::Single => {
                let at = dma.dma_map_phys(&mut m, dev, b.pages[0], b.size(), dir, attrs)?;
                Ok(Mapping::Phys(at))
            }
            Mode::Sg => {
                let entry = |p: &tlproof_pcie::PhysAddr| SgEntry::new(*p, PAGE);
                let mut list: Vec<_> = b.pages.iter().map(entry).collect();
                dma.dma_map_sg(&mut m, dev, &mut list, dir, attrs)?;
                Ok(Mapping::List(list))
            }
            Mode::Iova => {
                let mut state = dma
                    .dma_iova_try_alloc(dev, b.pages[0], b.size())
                    .ok_or(MapError::NoIova)?;
                for (i, page) in b.pages.iter().enumerate() {
                    let offset = i as u64 * PAGE;
                    dma.dma_iova_link(&mut m, dev, &mut state, *page, offset, PAGE, dir, attrs)?;
                }
                dma.dma_iova_sync(dev, &state, 0, b.size())?;
                Ok(Mapping::State(state))
            }
        }
    }

    /// Undoes it.
    pub(super) fn unmap(&mut self, cpu: usize, mapping: Mapping, spans: &[Span], size: u64) {
        let (attrs, dir) = (self.attrs(), self.options.dir);
        let dev = self.bench.functions[DEVICE].dev;
        let mut endings = Vec::new();
        for s in spans {
            endings.extend(self.bench.revoke_begin(dev, s.dma, s.len));
        }
        self.bench.calls += 1;
        let dma = &mut self.bench.dma;
        dma.set_cpu(cpu);
        let start = self.bench.sim.cycles();
        let cost = self.options.access_cycles;
        let mut m = Timed {
            sim: &mut self.bench.sim,
            cost,
        };
        match mapping {
            Mapping::Phys(at) => dma.dma_unmap_phys(&mut m, dev, at, size, dir, attrs),
            Mapping::List(mut list) => dma.dma_unmap_sg(&mut m, dev, &mut list, dir, attrs),
            Mapping::State(mut state) => {
                dma.dma_iova_destroy(&mut m, dev, &mut state, size, dir, attrs);
            }
        }
        let took = self.bench.sim.cycles() - start;
        self.unmap.add(took);
        self.bench.revoke_end(endings);
    }
}
