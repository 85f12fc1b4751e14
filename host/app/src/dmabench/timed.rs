//! A CPU whose accesses to memory take time.

use tlproof_dma::machine::Machine;
use tlproof_pcie::{
    Bdf, MemoryMap, PhysAddr,
    config::{AccessError, ConfigSpace},
};

use crate::simulation::Simulation;

/// Bytes of a cache line.
const LINE: u64 = 64;

/// The simulated machine, on which an access to a line of memory lets `cost` cycles pass. Without
/// it the CPU is infinitely fast but for what waits on a device.
pub(super) struct Timed<'a> {
    pub(super) sim: &'a mut Simulation,
    pub(super) cost: u64,
}

impl Timed<'_> {
    fn pay(&mut self, addr: PhysAddr, len: u64) {
        let lines = (addr.0 % LINE + len).div_ceil(LINE).max(1);
        let cycles = self.cost.saturating_mul(lines);
        if cycles > 0 {
            // A failure shows at the next access.
            let _ = self.sim.run(cycles);
        }
    }
}

impl ConfigSpace for Timed<'_> {
    fn config_read(&mut self, bdf: Bdf, reg: u16, size: u8) -> Result<u32, AccessError> {
        self.sim.config_read(bdf, reg, size)
    }

    fn config_write(
        &mut self,
        bdf: Bdf,
        reg: u16,
        size: u8,
        value: u32,
    ) -> Result<(), AccessError> {
        self.sim.config_write(bdf, reg, size, value)
    }
}

impl Machine for Timed<'_> {
    fn memory_map(&self) -> &MemoryMap {
        self.sim.memory_map()
    }

    fn mmio_read(&mut self, addr: PhysAddr, size: u8) -> Result<u64, AccessError> {
        self.sim.mmio_read(addr, size)
    }

    fn mmio_write(&mut self, addr: PhysAddr, size: u8, value: u64) -> Result<(), AccessError> {
        self.sim.mmio_write(addr, size, value)
    }

    fn mem_read(&mut self, addr: PhysAddr, buf: &mut [u8]) {
        self.sim.mem_read(addr, buf);
        self.pay(addr, buf.len() as u64);
    }

    fn mem_write(&mut self, addr: PhysAddr, data: &[u8]) {
        self.sim.mem_write(addr, data);
        self.pay(addr, data.len() as u64);
    }

    fn read_u64(&mut self, addr: PhysAddr) -> u64 {
        let value = self.sim.read_u64(addr);
        self.pay(addr, 8);
        value
    }

    fn write_u64(&mut self, addr: PhysAddr, value: u64) {
        self.sim.write_u64(addr, value);
        self.pay(addr, 8);
    }

    fn cache_clean(&mut self, addr: PhysAddr, len: u64) {
        self.sim.cache_clean(addr, len);
        self.pay(addr, len);
    }

    fn cache_invalidate(&mut self, addr: PhysAddr, len: u64) {
        self.sim.cache_invalidate(addr, len);
        self.pay(addr, len);
    }

    fn relax(&mut self) {
        self.sim.relax();
    }

    fn now(&self) -> u64 {
        self.sim.now()
    }
}
