//! The IOMMU's tables as they stand in memory, read by the specification and without the driver.

use tlproof::{simulation::Simulation, testbench::IOMMU};
use tlproof_dma::machine::Machine;
use tlproof_golden::memory::Memory;
use tlproof_pcie::{Bdf, PhysAddr, config::ConfigSpace};

/// Registers (IOMMU §6).
pub const DDTP: u64 = 0x10;
pub const CQB: u64 = 0x18;
pub const CQT: u64 = 0x24;

/// A leaf of the page table.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    pub entry: u64,
    pub phys: PhysAddr,
}

/// What a device's requests are translated with.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// The device may not access anything.
    Blocked,
    /// Addresses go through as they are.
    Bare,
    /// Page tables: the root and the number of levels.
    Tables(PhysAddr, u32),
}

fn word(sim: &Simulation, addr: u64) -> u64 {
    sim.memory
        .read_u64(PhysAddr(addr))
        .expect("tables are in main memory")
}

const fn page(entry: u64) -> u64 {
    (entry >> 10 & ((1 << 44) - 1)) << 12
}

/// Where the registers are, by the IOMMU's own BAR.
pub fn registers(sim: &mut Simulation) -> PhysAddr {
    let low = sim.config_read(IOMMU, 0x10, 4).expect("the IOMMU answers");
    let high = sim.config_read(IOMMU, 0x14, 4).expect("the IOMMU answers");
    let bus = u64::from(high) << 32 | u64::from(low & !15);
    sim.options().map.to_phys(tlproof_pcie::BusAddr(bus))
}

pub fn register(sim: &mut Simulation, offset: u64, size: u8) -> u64 {
    let at = registers(sim).offset(offset);
    sim.mmio_read(at, size).expect("the IOMMU answers")
}

/// The device context (IOMMU §2.1, base format: 32 bytes, 7, 9 and 8 bits of the device ID).
pub fn stage(sim: &mut Simulation, bdf: Bdf) -> Stage {
    let ddtp = register(sim, DDTP, 8);
    let levels = (ddtp & 15).saturating_sub(1);
    assert!((1..=3).contains(&levels), "ddtp {ddtp:#x}");
    let id = u64::from(bdf.0);
    let mut table = page(ddtp);
    for level in (1..levels).rev() {
        let index = if level == 2 { id >> 16 } else { id >> 7 & 511 };
        let entry = word(sim, table + index * 8);
        if entry & 1 == 0 {
            return Stage::Blocked;
        }
        table = page(entry);
    }
    let context = table + (id & 127) * 32;
    if word(sim, context) & 1 == 0 {
        return Stage::Blocked;
    }
    let fsc = word(sim, context + 24);
    match fsc >> 60 {
        0 => Stage::Bare,
        mode @ 8..=10 => Stage::Tables(PhysAddr((fsc & ((1 << 44) - 1)) << 12), mode as u32 - 5),
        other => panic!("iosatp mode {other}"),
    }
}

/// The leaf that translates `iova` (privileged specification §12.3.2).
pub fn leaf(sim: &mut Simulation, bdf: Bdf, iova: u64) -> Option<Leaf> {
    let Stage::Tables(root, levels) = stage(sim, bdf) else {
        return None;
    };
    let mut table = root.0;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let entry = word(sim, table + (iova >> shift & 511) * 8);
        if entry & 1 == 0 {
            return None;
        }
        if entry & 0xe == 0 {
            table = page(entry);
            continue;
        }
        // A 64 KiB page has N set and 1000 in the low bits of its page number.
        let size = if entry >> 63 != 0 {
            1 << 16
        } else {
            1 << shift
        };
        let base = page(entry) & !(size - 1);
        return Some(Leaf {
            entry,
            phys: PhysAddr(base + (iova & (size - 1))),
        });
    }
    None
}

/// The commands in the queue from index `from` on, up to the tail.
pub fn commands(sim: &mut Simulation, from: u64) -> Vec<[u64; 2]> {
    let cqb = register(sim, CQB, 8);
    let entries = 2 << (cqb & 31);
    let tail = register(sim, CQT, 4);
    let mut at = from;
    let mut list = Vec::new();
    while at != tail {
        let addr = page(cqb) + at * 16;
        list.push([word(sim, addr), word(sim, addr + 8)]);
        at = (at + 1) % entries;
    }
    list
}
