//! Devices that leave and come back.

use tlproof_dma::{Attach, Device, MapError};
use tlproof_golden::PromiseId;

use super::Testbench;

impl Testbench {
    /// The device of function `f` is removed with what its driver has left, which ends the
    /// promises to it. Returns its parameters and how many mappings were left.
    ///
    /// # Errors
    /// As `remove_device`.
    pub fn unplug(&mut self, f: usize) -> Result<(Device, usize), MapError> {
        let old = self.functions[f].dev;
        let device = self.dma.device(old)?.clone();
        let first = (old, 0, 0);
        let last = (old, u64::MAX, u64::MAX);
        let given = self.promises.range(first..=last).map(|(key, _)| *key);
        let given: Vec<_> = given.collect();
        let ids = given.iter().filter_map(|key| self.promises.remove(key));
        let ending: Vec<PromiseId> = ids.flatten().collect();
        for id in &ending {
            self.sim.checker.revoke_begin(*id);
        }
        let left = self.dma.remove_device(&mut self.sim, old)?;
        for id in ending {
            self.sim.checker.revoke_end(id);
        }
        self.end_drained();
        Ok((device, left.len()))
    }

    /// A device is found at function `f` after [`Testbench::unplug`].
    ///
    /// # Errors
    /// As `add_device`.
    pub fn plug(&mut self, f: usize, device: Device, attach: Attach) -> Result<(), MapError> {
        self.functions[f].dev = self.dma.add_device(&mut self.sim, device, attach)?;
        Ok(())
    }
}
