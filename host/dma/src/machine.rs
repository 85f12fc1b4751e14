//! What a driver needs of the machine it runs on.

use tlproof_pcie::{
    MemoryMap, PhysAddr,
    config::{AccessError, ConfigSpace},
};

/// A machine: configuration space, MMIO, cached memory, cache maintenance and time.
///
/// Implemented by the simulation and, on a board, on top of VFIO.
pub trait Machine: ConfigSpace {
    /// Where DRAM, the PCIe aperture and the interrupt files are.
    fn memory_map(&self) -> &MemoryMap;

    /// Reads `size` (1, 2, 4 or 8) naturally aligned bytes of device memory, uncached.
    ///
    /// # Errors
    /// When no device answers, the device aborts, or the completion does not come in time.
    fn mmio_read(&mut self, addr: PhysAddr, size: u8) -> Result<u64, AccessError>;

    /// Writes the low `size` bytes of `value` to device memory, uncached, in program order.
    ///
    /// # Errors
    /// When no device claims the address.
    fn mmio_write(&mut self, addr: PhysAddr, size: u8, value: u64) -> Result<(), AccessError>;

    /// Reads main memory through the CPU caches.
    fn mem_read(&mut self, addr: PhysAddr, buf: &mut [u8]);

    /// Writes main memory through the CPU caches (write-back: a non-snooping device does not see
    /// the bytes before [`Machine::cache_clean`]).
    fn mem_write(&mut self, addr: PhysAddr, data: &[u8]);

    /// Single-copy atomic little-endian 64-bit read of main memory; `addr` is a multiple of 8.
    fn read_u64(&mut self, addr: PhysAddr) -> u64 {
        let mut b = [0; 8];
        self.mem_read(addr, &mut b);
        u64::from_le_bytes(b)
    }

    /// Single-copy atomic little-endian 64-bit write of main memory; `addr` is a multiple of 8.
    fn write_u64(&mut self, addr: PhysAddr, value: u64) {
        self.mem_write(addr, &value.to_le_bytes());
    }

    /// Writes dirty lines of `[addr, addr + len)` back (Zicbom `cbo.clean`, whole lines).
    fn cache_clean(&mut self, addr: PhysAddr, len: u64);

    /// Drops the lines of `[addr, addr + len)` without writing them back (Zicbom `cbo.inval`,
    /// whole lines).
    fn cache_invalidate(&mut self, addr: PhysAddr, len: u64);

    /// Lets a little time pass in a polling loop.
    fn relax(&mut self);

    /// Time in clock cycles of the machine.
    fn now(&self) -> u64;
}
