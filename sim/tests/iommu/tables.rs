//! Device directories and page tables, as software builds them.

use std::collections::HashMap;

use crate::bench::{Bench, Format};

/// Bits of a page-table entry.
pub mod pte {
    pub const V: u64 = 1;
    pub const R: u64 = 2;
    pub const W: u64 = 4;
    pub const X: u64 = 8;
    pub const U: u64 = 16;
    pub const G: u64 = 32;
    pub const A: u64 = 64;
    pub const D: u64 = 128;
    pub const PBMT: u32 = 61;
    pub const N: u64 = 1 << 63;
    /// A leaf that permits everything.
    pub const ALL: u64 = V | R | W | X | U | A | D;

    /// An entry for the page at `addr`.
    pub const fn at(addr: u64, bits: u64) -> u64 {
        addr >> 12 << 10 | bits
    }
}

/// Bits of `DC.tc`.
pub mod tc {
    pub const V: u64 = 1;
    pub const DTF: u64 = 1 << 4;
    pub const PDTV: u64 = 1 << 5;
}

/// First-stage schemes as `iosatp.MODE` encodes them.
pub const SV39: u64 = 8;
pub const SV48: u64 = 9;
pub const SV57: u64 = 10;

/// A first-stage address space.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    pub pscid: u32,
    pub mode: u64,
    pub root: u64,
}

impl Space {
    pub fn new(bench: &mut Bench, pscid: u32, mode: u64) -> Self {
        let root = bench.page();
        Self { pscid, mode, root }
    }

    pub fn levels(&self) -> u32 {
        self.mode as u32 - 5
    }

    /// `tc`, `iohgatp`, `ta` and `fsc` of a device in this space.
    pub fn context(&self) -> [u64; 4] {
        let fsc = self.mode << 60 | self.root >> 12;
        [tc::V, 0, u64::from(self.pscid) << 12, fsc]
    }

    /// Address of the entry of `iova` at `level`; makes the tables above it, with `pointer` as
    /// the low bits of new entries.
    pub fn entry(&self, bench: &mut Bench, iova: u64, level: u32, pointer: u64) -> u64 {
        let mut table = self.root;
        for at in (level + 1..self.levels()).rev() {
            let addr = table + 8 * index(iova, at);
            let old = bench.load(addr);
            let next = (old >> 10 & ((1 << 44) - 1)) << 12;
            let ours = old & 0xf == pte::V && bench.is_table(next);
            table = if ours {
                next
            } else {
                let page = bench.page();
                bench.store(addr, pte::at(page, pointer | pte::V));
                page
            };
        }
        table + 8 * index(iova, level)
    }

    /// Maps `iova` with a leaf at `level`. The entries of a NAPOT range are changed together:
    /// software must not let them differ (privileged specification, Svnapot).
    pub fn map(&self, bench: &mut Bench, iova: u64, level: u32, leaf: u64) {
        let addr = self.entry(bench, iova, level, 0);
        let group = addr & !0x7f;
        if level == 0 && leaf & pte::N != 0 {
            for i in 0..16 {
                bench.store(group + 8 * i, leaf);
            }
            return;
        }
        if level == 0 && bench.load(addr) & pte::N != 0 {
            for i in 0..16 {
                bench.store(group + 8 * i, 0);
            }
        }
        bench.store(addr, leaf);
    }
}

fn index(iova: u64, level: u32) -> u64 {
    iova >> (12 + 9 * level) & 0x1ff
}

/// Bytes that a leaf at `level` maps.
pub fn span(level: u32, leaf: u64) -> u64 {
    if level == 0 && leaf & pte::N != 0 {
        1 << 16
    } else {
        1 << (12 + 9 * level)
    }
}

/// A device directory that serves all three modes: the tables of the smaller ones are the first
/// of the larger.
pub struct Directory {
    format: Format,
    /// Roots for 1LVL, 2LVL and 3LVL.
    pub roots: [u64; 3],
    /// Tables by level and the `device_id` bits above them.
    tables: HashMap<(u32, u32), u64>,
    /// Addresses and good values of the non-leaf entries.
    pub pointers: Vec<(u64, u64)>,
}

impl Directory {
    pub fn new(bench: &mut Bench) -> Self {
        let root = bench.page();
        let mut directory = Self {
            format: bench.format,
            roots: [0, 0, root],
            tables: HashMap::from([((2, 0), root)]),
            pointers: Vec::new(),
        };
        directory.roots[0] = directory.table(bench, 0, 0);
        directory.roots[1] = directory.table(bench, 1, 0);
        directory
    }

    /// Bits of `device_id` that index the last table (IOMMU §2.1, figures 7 and 8).
    pub const fn low_bits(&self) -> u32 {
        match self.format {
            Format::Base => 7,
            Format::Extended => 6,
        }
    }

    fn table(&mut self, bench: &mut Bench, level: u32, device_id: u32) -> u64 {
        let low = self.low_bits();
        let key = (level, device_id >> [low, low + 9, 24][level as usize]);
        if let Some(&table) = self.tables.get(&key) {
            return table;
        }
        let above = self.table(bench, level + 1, device_id);
        let index = match level {
            0 => device_id >> low & 0x1ff,
            _ => device_id >> (low + 9),
        };
        let page = bench.page();
        let (addr, entry) = (above + 8 * u64::from(index), pte::at(page, 1));
        bench.store(addr, entry);
        self.pointers.push((addr, entry));
        self.tables.insert(key, page);
        page
    }

    /// Address of the context of a device.
    pub fn context(&mut self, bench: &mut Bench, device_id: u32) -> u64 {
        let index = device_id & ((1 << self.low_bits()) - 1);
        self.table(bench, 0, device_id) + (4096 >> self.low_bits()) * u64::from(index)
    }

    /// `msiptp`, `msi_addr_mask`, `msi_addr_pattern` and the reserved doubleword of a device.
    pub fn set_msi(&mut self, bench: &mut Bench, device_id: u32, words: [u64; 4]) {
        let addr = self.context(bench, device_id) + 32;
        for (i, word) in words.into_iter().enumerate() {
            bench.store(addr + 8 * i as u64, word);
        }
    }

    /// Writes the context of a device, at once.
    pub fn set(&mut self, bench: &mut Bench, device_id: u32, context: [u64; 4]) {
        let addr = self.context(bench, device_id);
        for (i, word) in context.into_iter().enumerate() {
            bench.store(addr + 8 * i as u64, word);
        }
    }

    /// Activates the directory with 1, 2 or 3 levels.
    pub fn activate(&self, bench: &mut Bench, levels: usize) {
        bench.set_ddtp(levels as u64 + 1, self.roots[levels - 1]);
    }
}
