//! Drivers and devices that leave.

use tlproof_dma::{Api, debug::Report};

use super::{super::drivers::Kind, Runner};
use crate::testbench::Error;

impl Runner {
    /// The driver of a device is unbound. One without mistakes has unmapped everything; dma-debug
    /// counts what another has left, and it stays mapped.
    pub(super) fn unbind(&mut self, dev: usize, leak: bool) -> Result<(), Error> {
        let f = self.device(dev);
        if !leak {
            let own = self.objects.iter().filter(|(_, o)| o.dev == f);
            for id in own.map(|(id, _)| *id).collect::<Vec<_>>() {
                self.unmap(id)?;
            }
            self.unprobe(f);
        }
        self.pending(f, |r| {
            r.bench.dma.driver_unbound(r.bench.functions[f].dev);
            Ok(())
        })?;
        self.probe_disk(f)
    }

    /// A device is removed with what its driver has left, and found again in a new domain: nothing
    /// of the old one can be reached any more.
    pub(super) fn remove_device(&mut self, dev: usize) -> Result<(), Error> {
        let f = self.device(dev);
        let own = self.objects.iter().filter(|(_, o)| o.dev == f);
        for id in own.map(|(id, _)| *id).collect::<Vec<_>>() {
            if self.can_be_left(id) {
                self.wait(id, |_| true)?;
                if let Some(o) = self.objects.remove(&id) {
                    // Its pages stay the driver's, and its addresses are those of nobody.
                    self.gone.insert(id, (f, o.spans));
                }
            } else {
                self.unmap(id)?;
            }
        }
        self.unprobe(f);
        self.bench.sim.settle(100_000)?;
        let attach = self.world.setup().attach[f];
        self.pending(f, |r| {
            let (device, _) = r.bench.unplug(f)?;
            Ok(r.bench.plug(f, device, attach)?)
        })?;
        self.world.set_parameters(&mut self.bench, f)?;
        self.probe_disk(f)
    }

    /// What other owners count is not left behind, nor are bounce slots, which all devices share.
    fn can_be_left(&self, id: super::Id) -> bool {
        let Some(o) = self.objects.get(&id) else {
            return false;
        };
        let dev = self.bench.functions[o.dev].dev;
        let mapped = o
            .spans
            .iter()
            .flat_map(|s| self.bench.pieces(dev, s.dma, s.len));
        let mut mapped = mapped.filter_map(|(dma, _)| self.bench.dma.describe(dev, dma));
        let plain = matches!(
            o.kind,
            Kind::Phys { .. }
                | Kind::Sg { .. }
                | Kind::Iova { .. }
                | Kind::Resource
                | Kind::Ring(_)
        );
        plain && mapped.all(|m| m.segments.iter().all(|s| s.bounced.is_none()))
    }

    /// dma-debug says how many mappings the driver of a device has left, and nothing of none.
    fn pending(
        &mut self,
        f: usize,
        leave: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // The tracker does not follow the two-step interface.
        let bdf = self.bench.functions[f].engine.bdf;
        let live = self.bench.dma.live();
        let left = live.filter(|m| m.device == bdf && m.api != Api::Iova);
        let left = left.count();
        let shown = |r: &Self| r.bench.dma.debug().map(|d| d.log.shown().len());
        let before = shown(self);
        leave(self)?;
        let Some((before, now)) = before.zip(shown(self)) else {
            return Ok(());
        };
        let told = self
            .bench
            .dma
            .debug()
            .and_then(|d| d.log.shown().get(before));
        let count = told.map(|c| match c.report {
            Report::PendingAllocations { count, .. } => count,
            _ => usize::MAX,
        });
        if count != (left > 0).then_some(left) || now > before + 1 {
            let text = format!("{left} mappings are left, and dma-debug says {count:?}");
            self.fail("unbind", text);
        }
        self.told.extend(before..now);
        Ok(())
    }

    /// The driver of the disk is bound again.
    fn probe_disk(&mut self, f: usize) -> Result<(), Error> {
        if self.disks[f].is_none() {
            self.disks[f] = self.world.nvme(&mut self.bench, f)?;
        }
        Ok(())
    }
}
