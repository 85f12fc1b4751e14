//! A machine for tests: sparse memory, and the registers of an IOMMU that takes commands from its
//! queue and remembers them. It translates nothing.

use std::collections::HashMap;

use tlproof_pcie::{
    Bdf, MemoryMap, PhysAddr,
    config::{AccessError, ConfigSpace},
};

use super::regs::offset;
use crate::machine::Machine;

/// Where the fake's registers are.
pub(crate) const BAR0: PhysAddr = PhysAddr(0x4000_0000);

/// What happened, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A 64-bit aligned write to main memory.
    Write(u64, u64),
    /// A command was taken.
    Command([u64; 2]),
    /// A register was written.
    Register(u64, u64),
}

pub(crate) struct FakeMachine {
    map: MemoryMap,
    pages: HashMap<u64, Box<[u8; 4096]>>,
    regs: HashMap<u64, u64>,
    now: u64,
    pub(crate) events: Vec<Event>,
    /// Largest directory mode that sticks.
    pub(crate) max_ddtp_mode: u64,
    /// log2 - 1 of the largest queue.
    pub(crate) max_log2sz: u64,
    /// Takes no commands any more.
    pub(crate) stuck: bool,
    /// Opcodes that it refuses.
    pub(crate) illegal_opcode: Option<u64>,
    /// Remember writes to main memory too.
    pub(crate) log_memory: bool,
}

impl FakeMachine {
    pub(crate) fn new(capabilities: u64) -> Self {
        Self {
            map: MemoryMap::default(),
            pages: HashMap::new(),
            regs: HashMap::from([(offset::CAPABILITIES, capabilities)]),
            now: 0,
            events: Vec::new(),
            max_ddtp_mode: 4,
            max_log2sz: 31,
            stuck: false,
            illegal_opcode: None,
            log_memory: false,
        }
    }

    pub(crate) fn reg(&self, at: u64) -> u64 {
        self.regs.get(&at).copied().unwrap_or(0)
    }

    pub(crate) fn set_reg(&mut self, at: u64, value: u64) {
        self.regs.insert(at, value);
    }

    /// The commands since the last call.
    pub(crate) fn take_commands(&mut self) -> Vec<[u64; 2]> {
        self.events
            .drain(..)
            .filter_map(|e| match e {
                Event::Command(c) => Some(c),
                _ => None,
            })
            .collect()
    }

    /// Appends a fault record as the unit would.
    pub(crate) fn fault(&mut self, record: [u64; 4]) {
        let fqb = self.reg(offset::FQB);
        let tail = self.reg(offset::FQT);
        let base = (fqb >> 10) << 12;
        for (i, dword) in record.iter().enumerate() {
            self.write_u64(PhysAddr(base + tail * 32 + 8 * i as u64), *dword);
        }
        self.set_reg(offset::FQT, (tail + 1) % (2 << (fqb & 31)));
    }

    /// Takes one command.
    fn step(&mut self) {
        let (head, tail) = (self.reg(offset::CQH), self.reg(offset::CQT));
        let csr = self.reg(offset::CQCSR);
        if self.stuck || head == tail || csr & 1 == 0 || csr & 0x700 != 0 {
            return;
        }
        let cqb = self.reg(offset::CQB);
        let at = PhysAddr(((cqb >> 10) << 12) + head * 16);
        let command = [self.read_u64(at), self.read_u64(at.offset(8))];
        if self.illegal_opcode == Some(command[0] & 0x7f) {
            self.set_reg(offset::CQCSR, csr | 1 << 10);
            return;
        }
        self.events.push(Event::Command(command));
        self.set_reg(offset::CQH, (head + 1) % (2 << (cqb & 31)));
    }
}

impl ConfigSpace for FakeMachine {
    fn config_read(&mut self, _: Bdf, _: u16, _: u8) -> Result<u32, AccessError> {
        Err(AccessError::Unsupported)
    }

    fn config_write(&mut self, _: Bdf, _: u16, _: u8, _: u32) -> Result<(), AccessError> {
        Err(AccessError::Unsupported)
    }
}

impl Machine for FakeMachine {
    fn memory_map(&self) -> &MemoryMap {
        &self.map
    }

    fn mmio_read(&mut self, addr: PhysAddr, size: u8) -> Result<u64, AccessError> {
        let at = addr.0.wrapping_sub(BAR0.0);
        if at >= 4096 || !at.is_multiple_of(u64::from(size)) {
            return Err(AccessError::Unsupported);
        }
        self.now += 1;
        Ok(self.reg(at))
    }

    fn mmio_write(&mut self, addr: PhysAddr, size: u8, value: u64) -> Result<(), AccessError> {
        let at = addr.0.wrapping_sub(BAR0.0);
        if at >= 4096 || !at.is_multiple_of(u64::from(size)) {
            return Err(AccessError::Unsupported);
        }
        self.now += 1;
        self.events.push(Event::Register(at, value));
        let old = self.reg(at);
        let value = match at {
            offset::CAPABILITIES | offset::CQH | offset::FQT => old,
            offset::IPSR => old & !value,
            offset::CQB | offset::FQB => value & !31 | (value & 31).min(self.max_log2sz),
            offset::DDTP if value & 15 > self.max_ddtp_mode => old,
            offset::CQCSR | offset::FQCSR => {
                if value & 1 != 0 && old & 1 == 0 {
                    let index = if at == offset::CQCSR {
                        offset::CQH
                    } else {
                        offset::FQT
                    };
                    self.set_reg(index, 0);
                }
                value & 3 | (value & 1) << 16 | old & !value & 0xf00
            }
            _ => value,
        };
        self.set_reg(at, value);
        Ok(())
    }

    /// Memory that was never written reads as a pattern.
    fn mem_read(&mut self, addr: PhysAddr, buf: &mut [u8]) {
        let mut at = addr.0;
        let mut buf = buf;
        while !buf.is_empty() {
            let offset = (at & 0xfff) as usize;
            let len = buf.len().min(4096 - offset);
            let (piece, rest) = buf.split_at_mut(len);
            match self.pages.get(&(at >> 12)) {
                Some(page) => piece.copy_from_slice(&page[offset..offset + piece.len()]),
                None => piece.fill(0xee),
            }
            at += len as u64;
            buf = rest;
        }
    }

    fn mem_write(&mut self, addr: PhysAddr, data: &[u8]) {
        if self.log_memory
            && let Ok(bytes) = data.try_into()
        {
            let value = u64::from_le_bytes(bytes);
            self.events.push(Event::Write(addr.0, value));
        }
        let mut data = data;
        let mut at = addr.0;
        while !data.is_empty() {
            let offset = (at & 0xfff) as usize;
            let (piece, rest) = data.split_at(data.len().min(4096 - offset));
            let page = self
                .pages
                .entry(at >> 12)
                .or_insert_with(|| Box::new([0xee; 4096]));
            page[offset..offset + piece.len()].copy_from_slice(piece);
            at += piece.len() as u64;
            data = rest;
        }
    }

    fn cache_clean(&mut self, _: PhysAddr, _: u64) {}

    fn cache_invalidate(&mut self, _: PhysAddr, _: u64) {}

    fn relax(&mut self) {
        self.now += 10;
        self.step();
    }

    fn now(&self) -> u64 {
        self.now
    }
}
