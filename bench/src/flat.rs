//! A machine of host memory alone: page tables in an array, and an IOMMU that is past every
//! command at once. What is left of a mapping call is the host's own work.

use tlproof_dma::{
    Attach, Config, Device, DeviceId, Dma, Profile,
    machine::Machine,
    pages::PagePool,
    riscv::{Options, RiscvIommu, regs::offset},
};
use tlproof_pcie::{
    Bdf, MemoryMap, PhysAddr, Range,
    config::{AccessError, ConfigSpace},
};

/// Registers of the IOMMU.
const REGISTERS: PhysAddr = PhysAddr(0x4000_0000);

/// Memory for tables and queues.
const TABLES: Range = Range::sized(0x8000_0000, 128 << 20);

/// Sv39 to Sv57, Svpbmt, 56-bit addresses, MSI.
const CAPABILITIES: u64 = 0x10 | 7 << 9 | 1 << 15 | 56 << 32;

/// The machine.
pub struct Flat {
    map: MemoryMap,
    memory: Vec<u8>,
    registers: Vec<u64>,
    now: u64,
}

impl Default for Flat {
    fn default() -> Self {
        let mut registers = vec![0; 1024];
        registers[offset::CAPABILITIES as usize] = CAPABILITIES;
        Self {
            map: MemoryMap::default(),
            memory: vec![0; TABLES.size() as usize],
            registers,
            now: 0,
        }
    }
}

impl Flat {
    fn at(&self, addr: PhysAddr) -> usize {
        (addr.0 - TABLES.base.0) as usize
    }

    fn register(addr: PhysAddr) -> Result<usize, AccessError> {
        match addr.0.wrapping_sub(REGISTERS.0) {
            at @ 0..1024 => Ok(at as usize),
            _ => Err(AccessError::Unsupported),
        }
    }
}

impl ConfigSpace for Flat {
    fn config_read(&mut self, _: Bdf, _: u16, _: u8) -> Result<u32, AccessError> {
        Err(AccessError::Unsupported)
    }

    fn config_write(&mut self, _: Bdf, _: u16, _: u8, _: u32) -> Result<(), AccessError> {
        Err(AccessError::Unsupported)
    }
}

impl Machine for Flat {
    fn memory_map(&self) -> &MemoryMap {
        &self.map
    }

    fn mmio_read(&mut self, addr: PhysAddr, _: u8) -> Result<u64, AccessError> {
        Ok(self.registers[Self::register(addr)?])
    }

    fn mmio_write(&mut self, addr: PhysAddr, _: u8, value: u64) -> Result<(), AccessError> {
        let at = Self::register(addr)?;
        self.registers[at] = match at as u64 {
            offset::CAPABILITIES | offset::CQH | offset::FQT | offset::IPSR => return Ok(()),
            // On as soon as it is asked for.
            offset::CQCSR | offset::FQCSR => value & 3 | (value & 1) << 16,
            _ => value,
        };
        if at as u64 == offset::CQT {
            self.registers[offset::CQH as usize] = value;
        }
        Ok(())
    }

    fn mem_read(&mut self, addr: PhysAddr, buf: &mut [u8]) {
        let at = self.at(addr);
        buf.copy_from_slice(&self.memory[at..at + buf.len()]);
    }

    fn mem_write(&mut self, addr: PhysAddr, data: &[u8]) {
        let at = self.at(addr);
        self.memory[at..at + data.len()].copy_from_slice(data);
    }

    fn cache_clean(&mut self, _: PhysAddr, _: u64) {}

    fn cache_invalidate(&mut self, _: PhysAddr, _: u64) {}

    fn relax(&mut self) {
        self.now += 1;
    }

    fn now(&self) -> u64 {
        self.now
    }
}

/// The mapping API on a flat machine, with one device in strict mode.
///
/// # Panics
/// When the driver refuses the machine.
#[must_use]
pub fn api() -> (Flat, Dma<RiscvIommu>, DeviceId) {
    let mut m = Flat::default();
    let pool = PagePool::new(TABLES);
    let iommu = RiscvIommu::probe(&mut m, REGISTERS, pool, &Options::default())
        .expect("the driver takes the machine");
    let mut dma = Dma::new(Config::new(Profile::Intended), Some(iommu));
    let mut device = Device::new(Bdf::new(3, 0, 0));
    device.dma_mask = Some(u64::MAX);
    let dev = dma
        .add_device(&mut m, device, Attach::Strict)
        .expect("the device is attached");
    (m, dma, dev)
}
