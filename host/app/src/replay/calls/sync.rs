//! `dma_sync_*`.

use tlproof_pcie::{Direction, DmaAddr};

use super::{LOST, Phys, Replayer, dram};
use crate::{
    replay::{target::Target, traffic::Span},
    testbench::Error,
    trace::Device,
};

impl<T: Target> Replayer<'_, T> {
    pub(super) fn sync(
        &mut self,
        f: usize,
        dev: &Device,
        (dma, size): (DmaAddr, u64),
        dir: Direction,
        for_cpu: bool,
    ) -> Result<(), Error> {
        let found = self
            .phys
            .range((dev.clone(), DmaAddr(0))..=(dev.clone(), dma))
            .rev()
            .take(256)
            .find_map(|((_, start), at)| {
                let offset = dma.0 - start.0;
                let fits = |p: &&Phys| offset < p.size && size <= p.size - offset;
                at.iter().rev().flatten().find(fits).map(|p| (*p, offset))
            });
        let Some((p, offset)) = found else {
            self.comparison.note(LOST, || format!("sync of {dma:#x}"));
            return Ok(());
        };
        let (ours, id) = (p.dma.offset(offset), self.dev(f));
        self.traffic.complete(self.target, p.job)?;
        self.target.called();
        let (api, m) = self.target.parts();
        if for_cpu {
            api.dma_sync_single_for_cpu(m, id, ours, size, dir);
        } else {
            api.dma_sync_single_for_device(m, id, ours, size, dir);
        }
        self.compare_sync();
        if for_cpu {
            if p.bounced
                && dir.device_writes()
                && let Some((phys, _)) = dram(p.place, p.size)
            {
                self.traffic
                    .overwritten(&[(phys.offset(offset), size)], Some(p.job));
            }
            self.traffic.look(self.target, p.job, Some((ours, size)));
        } else if let Some((phys, _)) = dram(p.place, p.size) {
            // The buffer is the device's again, and may be used again.
            let wish = match dir {
                Direction::FromDevice => self.traffic.wish(size, dir),
                _ => None,
            };
            let (spans, runs) = (
                [Span {
                    dma: ours,
                    len: size,
                }],
                [(phys.offset(offset), size)],
            );
            self.traffic
                .start(self.target, (f, p.job), &spans, &runs, wish, p.bounced)?;
        }
        Ok(())
    }

    pub(super) fn sync_sg(
        &mut self,
        f: usize,
        dev: &Device,
        first: DmaAddr,
        dir: Direction,
        for_cpu: bool,
    ) -> Result<(), Error> {
        let found = self
            .lists
            .iter()
            .filter(|((d, _), _)| d == dev)
            .flat_map(|(_, lists)| lists.iter().flatten())
            .find(|l| l.first == first)
            .map(|l| (l.entries.clone(), l.job));
        let Some((entries, job)) = found else {
            self.comparison
                .note(LOST, || format!("sync of the list at {first:#x}"));
            return Ok(());
        };
        self.traffic.complete(self.target, job)?;
        let id = self.dev(f);
        self.target.called();
        let (api, m) = self.target.parts();
        if for_cpu {
            api.dma_sync_sg_for_cpu(m, id, &entries, dir);
        } else {
            api.dma_sync_sg_for_device(m, id, &entries, dir);
        }
        self.compare_sync();
        if for_cpu {
            self.traffic.look(self.target, job, None);
        }
        Ok(())
    }
}
