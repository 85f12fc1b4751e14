//! Accesses that nothing allows.

use tlproof_pcie::{Bdf, Direction, DmaAddr};

use super::{
    super::{
        Target,
        drivers::{Kind, Span},
    },
    PAGE, Runner,
};
use crate::{checker::Checker, endpoint::Descriptor, testbench::Error};

impl Runner {
    pub(super) fn probe(&mut self, dev: usize, target: Target, write: bool) -> Result<(), Error> {
        if !self.world.blocking() {
            return Ok(());
        }
        let (f, dma, len, write) = match target {
            Target::Nowhere(page) => {
                let dma = DmaAddr(0x1000_0000 + PAGE * u64::from(page % 0x1000));
                (self.device(dev), dma, 64, write)
            }
            Target::Gone(id) => {
                let Some((f, spans)) = self.gone.get(&id) else {
                    return Ok(());
                };
                (*f, spans[0].dma, spans[0].len.min(64), write)
            }
            Target::Against(id) => match self.objects.get(&id) {
                Some(o) if o.dir == Direction::ToDevice && !matches!(o.kind, Kind::Bus) => {
                    (o.dev, o.spans[0].dma, o.spans[0].len.min(64), true)
                }
                _ => return Ok(()),
            },
        };
        // Mapped again by now, or never out of reach.
        let near = |s: &Span| {
            let (a, b) = (dma.0 & !(PAGE - 1), (dma.0 + len).next_multiple_of(PAGE));
            s.dma.0 < b && a < s.dma.0 + s.len
        };
        let taken = self
            .objects
            .values()
            .any(|o| o.dev == f && o.spans.iter().any(near));
        if taken && !matches!(target, Target::Against(_)) {
            return Ok(());
        }
        self.bench.flush();
        let map = self.bench.sim.options().map.clone();
        if map.aperture.contains(map.to_phys(dma.on_bus()), len) {
            return Ok(());
        }
        self.transfer = self.transfer.wrapping_add(1);
        let d = Descriptor::pattern(self.transfer, write, dma, len as u32, 0);
        let bdf: Bdf = self.bench.functions[f].engine.bdf;
        let checker: &mut Checker = &mut self.bench.sim.checker;
        let rogue = checker.expect_rogue(bdf, dma.on_bus(), len, write);
        self.bench.functions[f]
            .engine
            .submit(&mut self.bench.sim, &d)?;
        while self.bench.functions[f].engine.outstanding > 0 {
            self.bench.sim.run(64)?;
            self.poll(f)?;
        }
        self.bench.sim.settle(100_000)?;
        self.bench.sim.checker.rogue_done(rogue);
        Ok(())
    }
}
