//! Accesses that must be refused, and buffers that go back to the CPU.

use tlproof_dma::Attrs;
use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::{NEVER_MAPPED, PAGE, PROBE_ONE_IN, Replayer};
use crate::{
    replay::{target::Target, traffic::Job},
    testbench::Error,
};

impl<T: Target> Replayer<'_, T> {
    /// The buffer belongs to the CPU again.
    pub(super) fn returned(
        &mut self,
        job: Job,
        runs: &[(PhysAddr, u64)],
        dir: Direction,
        attrs: Attrs,
        bounced: bool,
    ) {
        if bounced {
            if attrs.contains(Attrs::SKIP_CPU_SYNC) {
                self.traffic.forget(job);
                return;
            }
            if dir.device_writes() {
                // The whole slot was copied out.
                self.traffic.overwritten(runs, Some(job));
            }
        }
        self.traffic.look(self.target, job, None);
    }

    /// The device goes on to use an address after its unmap, where that must be refused.
    pub(super) fn probe_after(&mut self, f: usize, dma: DmaAddr, size: u64) -> Result<(), Error> {
        let strict = self.plan.roles[f].attach == tlproof_dma::Attach::Strict;
        if self.blocking && strict && self.traffic.one_in(PROBE_ONE_IN) {
            let write = self.traffic.coin();
            self.traffic.probe(self.target, f, dma, size, write)?;
        }
        Ok(())
    }

    pub(super) fn probe_nowhere(&mut self, f: usize) -> Result<(), Error> {
        let addr = DmaAddr(NEVER_MAPPED + PAGE * self.traffic.below(0x1000));
        let (write, len) = (self.traffic.coin(), 1 + self.traffic.below(64));
        self.traffic.probe(self.target, f, addr, len, write)
    }
}
