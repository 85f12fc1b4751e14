//! What software and devices of a machine might be: devices, processes, guests and their tables, with
//! every legal and illegal encoding, and the requests that run into them.

mod build;
mod change;
mod map;
mod request;
pub mod tables;

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_golden::iommu::{Capabilities, Choices, FlatMemory};

use crate::memory::{BASE, SIZE};
use tables::Stage;

/// A command of two doublewords.
pub type Command = [u64; 2];

/// Where guests have the pages of their own tables, unless a superpage maps all of memory.
const GUEST_TABLES: u64 = 0x1_0000_0000;

/// What can be spoiled in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Non-leaf entry of the device directory.
    DirectoryPointer,
    /// Doubleword of a device context.
    Context {
        /// Of this device.
        device: usize,
        /// Its number.
        word: usize,
    },
    /// Non-leaf entry of a process directory.
    ProcessPointer,
    /// First doubleword of a process context.
    ProcessAttributes,
    /// Second.
    ProcessTable,
    /// Non-leaf PTE of a first stage.
    FirstPointer,
    /// Leaf of a first stage.
    FirstLeaf,
    /// Non-leaf PTE of a second stage.
    SecondPointer,
    /// Leaf of a second stage.
    SecondLeaf,
    /// First doubleword of an MSI PTE.
    MsiPte,
    /// Second.
    MsiNotice,
    /// Pending and enable bits of a memory-resident interrupt file.
    InterruptFile,
}

/// An entry in memory.
#[derive(Clone, Copy, Debug)]
struct Site {
    kind: Kind,
    address: u64,
    rv32: bool,
    big: bool,
    /// Of a leaf of a first stage: address space and address.
    about: Option<(usize, u64)>,
    /// Of a process context: `device_id` and `process_id`.
    process: Option<(u32, u32)>,
}

impl Site {
    const fn stage(&self) -> Stage {
        Stage {
            mode: 8,
            rv32: self.rv32,
            second: false,
            big: self.big,
            root: 0,
        }
    }
}

/// A virtual machine.
#[derive(Clone, Debug)]
struct Vm {
    gscid: u32,
    stage: Stage,
    /// System physical pages of the guest's tables.
    pages: HashMap<u64, u64>,
    next_table: u64,
    /// Guest address of main memory, if one superpage maps it.
    window: Option<u64>,
    /// Guest addresses that are mapped.
    targets: Vec<u64>,
}

/// An address space: a first stage.
#[derive(Clone, Debug)]
struct Space {
    pscid: u32,
    stage: Stage,
    vm: Option<usize>,
    targets: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    id: u32,
    space: Option<usize>,
}

/// Interrupt files of a device's guest.
#[derive(Clone, Copy, Debug)]
struct Interrupts {
    mask: u64,
    pattern: u64,
}

#[derive(Clone, Debug)]
struct Device {
    id: u32,
    vm: Option<usize>,
    space: Option<usize>,
    processes: Vec<Process>,
    interrupts: Option<Interrupts>,
}

/// A machine.
pub struct World {
    rng: ChaCha8Rng,
    caps: Capabilities,
    gxl_writable: bool,
    qos_bits: (u8, u8),
    ddt_levels: u64,
    fixed_big_endian: bool,
    /// Free memory.
    free: u64,
    /// Value for `fctl`.
    pub fctl: u32,
    /// Value for `ddtp`.
    pub ddtp: u64,
    vms: Vec<Vm>,
    spaces: Vec<Space>,
    devices: Vec<Device>,
    sites: Vec<Site>,
    /// Spoiled entries and what they were.
    spoiled: Vec<(usize, u64)>,
    next_id: u32,
    /// Guests so far.
    gscids: Vec<u32>,
    /// A device context has other tags for the tables of an address space.
    retagged: bool,
    /// Processes have got other tags since the last look: [`Self::take_renamed_processes`].
    renamed_processes: bool,
    /// A pointer has had the G bit: leaves below it may be held as global, which PSCV keeps.
    global_pointers: bool,
    /// What has changed, in words.
    pub history: Vec<String>,
}

impl World {
    /// A new machine in `ram`, which is zero from `free` on.
    pub fn new(
        seed: u64,
        caps: Capabilities,
        choices: &Choices,
        ram: &mut FlatMemory,
        free: u64,
    ) -> Self {
        let mut world = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            caps,
            gxl_writable: choices.gxl_writable,
            qos_bits: choices.qos_id_bits,
            ddt_levels: choices.ddt_levels.into(),
            fixed_big_endian: choices.fixed_big_endian,
            free,
            fctl: 0,
            ddtp: 0,
            vms: Vec::new(),
            spaces: Vec::new(),
            devices: Vec::new(),
            sites: Vec::new(),
            spoiled: Vec::new(),
            next_id: 1,
            gscids: Vec::new(),
            retagged: false,
            renamed_processes: false,
            global_pointers: false,
            history: Vec::new(),
        };
        world.build(ram);
        world
    }

    fn big(&self) -> bool {
        self.fctl & 1 == 1
    }

    fn gxl(&self) -> bool {
        self.fctl >> 2 & 1 == 1
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            return None;
        }
        Some(from[self.rng.random_range(0..from.len())])
    }

    fn fresh_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    fn fresh_gscid(&mut self) -> u32 {
        let id = self.fresh_id();
        self.gscids.push(id);
        id
    }

    /// Whether there is room for `pages` more pages.
    fn room(&self, pages: u64) -> bool {
        self.free + 4096 * pages <= BASE + SIZE as u64
    }

    /// `count` pages, aligned to their size; the last ones again when memory is used up.
    fn pages(&mut self, count: u64) -> u64 {
        let size = 4096 * count.next_power_of_two();
        let first = self.free.next_multiple_of(size);
        if first + size > BASE + SIZE as u64 {
            return BASE + SIZE as u64 - size;
        }
        self.free = first + size;
        first
    }

    /// Whether address spaces with different tags have tables in common.
    pub const fn shares_tables(&self) -> bool {
        self.retagged
    }

    /// Whether processes have got other tags since the last call, for what their device's context says
    /// now. Until the IOMMU has forgotten both, an old tag may stand for new tables.
    pub const fn take_renamed_processes(&mut self) -> bool {
        std::mem::replace(&mut self.renamed_processes, false)
    }

    /// Commands that make an IOMMU forget all that it may have of this machine.
    pub fn forget_all(&self) -> Vec<Command> {
        let mut commands = vec![[3, 0], [1, 0]];
        if self.caps.second_stage() || self.caps.msi_flat {
            commands.push([1 | 1 << 7, 0]);
        }
        let guests = self.gscids.iter();
        commands.extend(guests.map(|&id| [1 | 1 << 33 | u64::from(id) << 44, 0]));
        commands
    }
}
