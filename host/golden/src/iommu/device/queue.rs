//! What the three queues in memory have in common (IOMMU §3, §5.6 to §5.17).

use crate::iommu::{MemoryFault, SystemMemory};

/// Enable, and interrupt enable, of a queue's CSR.
const ENABLE: u32 = 1;
const INTERRUPT: u32 = 1 << 1;
/// A memory fault: `cqmf`, `fqmf`, `pqmf`.
pub(super) const MEMORY_FAULT: u32 = 1 << 8;
/// `fqof`, `pqof`.
pub(super) const OVERFLOW: u32 = 1 << 9;
const ON: u32 = 1 << 16;

/// A ring in memory with its registers. The index of software is `cqt`, `fqh` or `pqh`, that of the
/// IOMMU `cqh`, `fqt` or `pqt`.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    /// Bytes of an entry.
    entry: u64,
    /// Error bits of the CSR.
    errors: u32,
    /// Largest `LOG2SZ`.
    log2_max: u8,
    pub base: u64,
    pub software: u32,
    pub hardware: u32,
    csr: u32,
}

impl Queue {
    pub fn new(entry: u64, errors: u32, log2_max: u8) -> Self {
        Self {
            entry,
            errors,
            log2_max: log2_max.clamp(1, 32),
            base: 0,
            software: 0,
            hardware: 0,
            csr: 0,
        }
    }

    /// Largest index.
    fn mask(&self) -> u32 {
        u32::MAX >> (31 - (self.base & 0x1f))
    }

    /// A write of half of the base register; the index keeps its bits below `LOG2SZ`.
    pub fn write_base(&mut self, high: bool, value: u32) {
        let value = u64::from(value);
        self.base = if high {
            self.base & 0xffff_ffff | (value & 0x3f_ffff) << 32
        } else {
            let size = (value & 0x1f).min(u64::from(self.log2_max) - 1);
            self.base >> 32 << 32 | value & 0xffff_fc00 | size
        };
        self.software &= self.mask();
    }

    pub fn write_index(&mut self, value: u32) {
        self.software = value & self.mask();
    }

    /// A write of the CSR. An enabled queue is on at once. Error bits are cleared by 1.
    pub fn write_csr(&mut self, value: u32) {
        let enabled = self.csr & ENABLE == 0 && value & ENABLE != 0;
        let mut errors = self.csr & self.errors & !value;
        if enabled {
            self.hardware = 0;
            errors = 0;
        }
        let on = if value & ENABLE != 0 { ON } else { 0 };
        self.csr = value & (ENABLE | INTERRUPT) | errors | on;
    }

    pub const fn csr(&self) -> u32 {
        self.csr
    }

    pub const fn is_on(&self) -> bool {
        self.csr & ON != 0
    }

    pub const fn has(&self, error: u32) -> bool {
        self.csr & error != 0
    }

    pub const fn failed(&self) -> bool {
        self.has(self.errors)
    }

    pub fn set(&mut self, error: u32) {
        self.csr |= error;
    }

    pub fn clear(&mut self, error: u32) {
        self.csr &= !error;
    }

    /// Whether what is wrong is to raise an interrupt.
    pub const fn interrupts(&self) -> bool {
        self.csr & INTERRUPT != 0
    }

    pub const fn is_empty(&self) -> bool {
        self.software == self.hardware
    }

    fn is_full(&self) -> bool {
        self.next() == self.software
    }

    fn next(&self) -> u32 {
        self.hardware.wrapping_add(1) & self.mask()
    }

    /// Address of the entry at the IOMMU's index.
    pub fn address(&self) -> u64 {
        (self.base >> 10 << 12) + self.entry * u64::from(self.hardware)
    }

    pub fn advance(&mut self) {
        self.hardware = self.next();
    }

    /// Stores a record behind the last. Tells whether it was; an error bit is set otherwise.
    pub fn push<M: SystemMemory>(
        &mut self,
        memory: &mut M,
        words: &[u64],
        big: bool,
        addressable: impl Fn(u64) -> bool,
    ) -> bool {
        if self.is_full() {
            self.set(OVERFLOW);
            return false;
        }
        let mut bytes = Vec::with_capacity(32);
        for word in words {
            bytes.extend(if big {
                word.to_be_bytes()
            } else {
                word.to_le_bytes()
            });
        }
        let at = self.address();
        let stored = if addressable(at) {
            memory.store(at, &bytes)
        } else {
            Err(MemoryFault::Access)
        };
        if stored.is_err() {
            self.set(MEMORY_FAULT);
            return false;
        }
        self.advance();
        true
    }
}
