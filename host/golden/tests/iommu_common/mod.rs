//! A machine for the tests of the judge, with an encoder of its own for all tables.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod tables;

use tlproof_golden::iommu::{Actual, Choices, Judge, Mismatch, Outcome, Request, Stamp, Status};
use tlproof_golden::memory::{CachedMemory, Memory};
use tlproof_pcie::{MemoryMap, PhysAddr};

pub const SV39: u64 = 1 << 9;
pub const SV48: u64 = 1 << 10;
pub const SV57: u64 = 1 << 11;
pub const SVPBMT: u64 = 1 << 15;
pub const MSI_FLAT: u64 = 1 << 22;
pub const PAS56: u64 = 56 << 32;
pub const NL_S: u64 = 3 << 42;
pub const CAPS: u64 = SV39 | SV48 | SV57 | SVPBMT | PAS56;

pub const DDT: u64 = 0x8000_1000;
pub const ROOT: u64 = 0x8001_0000;
pub const CQ: u64 = 0x8000_8000;
pub const DID: u32 = 5;
pub const PSCID: u64 = 7;

pub const V: u64 = 1;
pub const R: u64 = 2;
pub const W: u64 = 4;
pub const X: u64 = 8;
pub const U: u64 = 16;
pub const G: u64 = 32;
pub const A: u64 = 64;
pub const D: u64 = 128;
pub const RW: u64 = V | R | W | U | A | D;

pub fn pte(target: u64, flags: u64) -> u64 {
    target >> 12 << 10 | flags
}

pub struct Machine {
    pub memory: CachedMemory,
    pub judge: Judge,
    tail: u32,
    next_table: u64,
    caps: u64,
}

impl Machine {
    /// One-level directory, device `DID` with an Sv39 table at `ROOT`, queues on.
    pub fn new(caps: u64) -> Self {
        Self::with_choices(caps, Choices::default())
    }

    pub fn with_choices(caps: u64, choices: Choices) -> Self {
        let mut m = Self {
            memory: CachedMemory::new(&MemoryMap::default()),
            judge: Judge::new(caps, choices),
            tail: 0,
            next_table: ROOT + 0x1000,
            caps,
        };
        m.write(24, 8, CQ >> 12 << 10 | 5); // 64 commands
        m.write(72, 4, 1);
        m.write(76, 4, 1);
        m.dc([1, 0, PSCID << 12, 8 << 60 | ROOT >> 12]);
        m.write(16, 8, DDT >> 12 << 10 | 2);
        m.judge.register_read(16, 8, DDT >> 12 << 10 | 2);
        m
    }

    pub fn write(&mut self, offset: u32, size: u8, value: u64) {
        self.judge.register_write(&self.memory, offset, size, value);
    }

    pub fn store(&mut self, addr: u64, value: u64) {
        let at = PhysAddr(addr);
        let old = self.memory.read_u64(at).unwrap();
        if old != value {
            self.judge.memory_changed(at, old);
            self.memory.cpu_write(at, &value.to_le_bytes()).unwrap();
        }
    }

    pub fn dc_at(&self) -> u64 {
        let size = if self.caps & MSI_FLAT != 0 { 64 } else { 32 };
        DDT + u64::from(DID) * size
    }

    pub fn dc(&mut self, words: [u64; 4]) {
        let at = self.dc_at();
        for (i, w) in words.into_iter().enumerate() {
            self.store(at + 8 * i as u64, w);
        }
    }

    /// Where the entry of `iova` at `level` stands; pointers on the way are made.
    pub fn slot(&mut self, levels: u32, iova: u64, level: u32) -> u64 {
        let mut table = ROOT;
        for l in (level + 1..levels).rev() {
            let at = table + (iova >> (12 + 9 * l) & 511) * 8;
            let old = self.memory.read_u64(PhysAddr(at)).unwrap();
            table = if old & V == 0 {
                let new = self.next_table;
                self.next_table += 0x1000;
                self.store(at, pte(new, V));
                new
            } else {
                old >> 10 << 12
            };
        }
        table + (iova >> (12 + 9 * level) & 511) * 8
    }

    pub fn map(&mut self, iova: u64, entry: u64) -> u64 {
        let at = self.slot(3, iova, 0);
        self.store(at, entry);
        at
    }

    pub fn command(&mut self, w0: u64, w1: u64) {
        let at = CQ + u64::from(self.tail) * 16;
        self.store(at, w0);
        self.store(at + 8, w1);
        self.tail = (self.tail + 1) % 64;
        self.write(36, 4, self.tail.into());
    }

    pub fn fence(&mut self) {
        self.command(2 | 3 << 12, 0);
        self.judge.register_read(32, 4, self.tail.into());
    }

    pub fn read(&self, iova: u64) -> Outcome {
        self.judge
            .translate(&self.memory, &Request::untranslated(DID, iova, false))
    }

    pub fn cause(&self, iova: u64, write: bool) -> u16 {
        match self
            .judge
            .translate(&self.memory, &Request::untranslated(DID, iova, write))
        {
            Outcome::Fault(f) => f.cause(),
            Outcome::Ok(_) => 0,
            Outcome::Completion(c) => panic!("{c:?}"),
        }
    }

    pub fn check(&mut self, iova: u64, since: Stamp, actual: Actual) -> Result<Outcome, Mismatch> {
        let request = Request::untranslated(DID, iova, false);
        self.judge.check(&self.memory, &request, since, &actual)
    }
}

pub fn ok(spa: u64, pbmt: u8) -> Actual {
    Actual {
        status: Status::Ok,
        cause: 0,
        spa: PhysAddr(spa),
        pbmt,
    }
}

pub fn ur(cause: u16) -> Actual {
    Actual {
        status: Status::UnsupportedRequest,
        cause,
        spa: PhysAddr(0),
        pbmt: 0,
    }
}
