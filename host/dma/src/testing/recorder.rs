//! A machine with the registers of an IOMMU that writes down what is done to it, in one list with
//! the events of the mapping API.

use std::{cell::RefCell, rc::Rc};

use tlproof_pcie::{
    Bdf, MemoryMap, PhysAddr, Range,
    config::{AccessError, ConfigSpace},
};

use crate::{
    machine::Machine,
    riscv::{fake, regs::offset},
};

/// What happened, one line each.
pub type Lines = Rc<RefCell<Vec<String>>>;

/// Pages of the IOMMU's tables and queues.
pub const TABLES: Range = Range {
    base: PhysAddr(0x8800_0000),
    last: PhysAddr(0x883f_ffff),
};

/// The machine.
pub struct Recorder {
    pub unit: fake::FakeMachine,
    /// Functions and bridges.
    pub config: super::FakeMachine,
    pub lines: Lines,
    /// A page of device contexts.
    pub contexts: Option<u64>,
}

impl Recorder {
    pub fn new(capabilities: u64) -> Self {
        Self {
            unit: fake::FakeMachine::new(capabilities),
            config: super::FakeMachine::default(),
            lines: Lines::default(),
            contexts: None,
        }
    }

    fn line(&self, text: String) {
        self.lines.borrow_mut().push(text);
    }

    /// Memory of a queue, by its base register.
    fn queue(&self, base: u64, entry: u64) -> (u64, u64) {
        let value = self.unit.reg(base);
        ((value >> 10) << 12, entry * (2 << (value & 31)))
    }

    /// What a doubleword in the tables is.
    fn table_word(&self, addr: u64, value: u64) -> Option<String> {
        let (start, size) = self.queue(offset::CQB, 16);
        if (start..start + size).contains(&addr) {
            // Commands are shown when they are handed over.
            return None;
        }
        if self.contexts == Some(addr >> 12) {
            return Some(format!("context {addr:#x} = {value:#x}"));
        }
        Some(match value & 0xf {
            0 => format!("clear {addr:#x}"),
            1 => format!("table {addr:#x} = {value:#x}"),
            _ => format!("leaf {addr:#x} = {value:#x}"),
        })
    }
}

impl ConfigSpace for Recorder {
    fn config_read(&mut self, bdf: Bdf, reg: u16, size: u8) -> Result<u32, AccessError> {
        self.config.config_read(bdf, reg, size)
    }

    fn config_write(&mut self, bdf: Bdf, reg: u16, size: u8, v: u32) -> Result<(), AccessError> {
        self.line(format!("config {bdf} {reg:#x} = {v:#x}"));
        self.config.config_write(bdf, reg, size, v)
    }
}

impl Machine for Recorder {
    fn memory_map(&self) -> &MemoryMap {
        self.unit.memory_map()
    }

    fn mmio_read(&mut self, addr: PhysAddr, size: u8) -> Result<u64, AccessError> {
        self.unit.mmio_read(addr, size)
    }

    fn mmio_write(&mut self, addr: PhysAddr, size: u8, value: u64) -> Result<(), AccessError> {
        if addr.0.wrapping_sub(fake::BAR0.0) == offset::CQT {
            let (start, size) = self.queue(offset::CQB, 16);
            let mut at = self.unit.reg(offset::CQT) * 16;
            while at != value * 16 {
                let slot = PhysAddr(start + at);
                let (a, b) = (self.unit.read_u64(slot), self.unit.read_u64(slot.offset(8)));
                self.line(format!("command {a:#x},{b:#x}"));
                at = (at + 16) % size;
            }
        }
        self.unit.mmio_write(addr, size, value)
    }

    fn mem_read(&mut self, addr: PhysAddr, buf: &mut [u8]) {
        if !TABLES.contains(addr, 1) {
            self.line(format!("cpu read {addr:#x}+{:#x}", buf.len()));
        }
        self.unit.mem_read(addr, buf);
    }

    fn mem_write(&mut self, addr: PhysAddr, data: &[u8]) {
        if !TABLES.contains(addr, 1) {
            self.line(format!("cpu write {addr:#x}+{:#x}", data.len()));
        }
        self.unit.mem_write(addr, data);
    }

    fn write_u64(&mut self, addr: PhysAddr, value: u64) {
        if let Some(line) = self.table_word(addr.0, value) {
            self.line(line);
        }
        self.unit.write_u64(addr, value);
    }

    fn cache_clean(&mut self, addr: PhysAddr, len: u64) {
        self.line(format!("clean {addr:#x}+{len:#x}"));
    }

    fn cache_invalidate(&mut self, addr: PhysAddr, len: u64) {
        self.line(format!("invalidate {addr:#x}+{len:#x}"));
    }

    fn relax(&mut self) {
        self.unit.relax();
    }

    fn now(&self) -> u64 {
        self.unit.now()
    }
}
