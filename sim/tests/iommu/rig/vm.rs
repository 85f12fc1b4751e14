//! Page tables of both stages, device and process contexts, as software builds them.

use std::collections::HashMap;

use super::Rig;
use crate::bench::command;
use crate::tables::pte;

/// Where guest physical pages of a [`Vm`]'s own tables begin.
const GUEST_TABLES: u64 = 0x1_0000_0000;

/// Page tables of one stage.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// `iosatp.MODE` or `iohgatp.MODE`.
    pub mode: u64,
    /// Sv32 or Sv32x4.
    pub rv32: bool,
    /// Second stage.
    pub second: bool,
    pub big: bool,
    /// Guest address for the first stage of a VM.
    pub root: u64,
}

impl Stage {
    pub fn levels(&self) -> u32 {
        if self.rv32 { 2 } else { self.mode as u32 - 5 }
    }

    fn step(&self) -> u32 {
        if self.rv32 { 10 } else { 9 }
    }

    /// Bytes that a leaf at `level` maps.
    pub fn span(&self, level: u32) -> u64 {
        1 << (12 + self.step() * level)
    }

    fn entry_size(&self) -> u64 {
        if self.rv32 { 4 } else { 8 }
    }

    /// Offset of the entry of `addr` in its table at `level`.
    fn offset(&self, addr: u64, level: u32) -> u64 {
        let root = level + 1 == self.levels();
        let bits = self.step() + if self.second && root { 2 } else { 0 };
        ((addr / self.span(level)) & ((1 << bits) - 1)) * self.entry_size()
    }

    fn put(&self, rig: &mut Rig, at: u64, value: u64) {
        if self.rv32 {
            let value = value as u32;
            rig.store32(at, if self.big { value.swap_bytes() } else { value });
        } else {
            rig.store_as(at, value, self.big);
        }
    }

    fn get(&self, rig: &Rig, at: u64) -> u64 {
        if self.rv32 {
            let value = (rig.load(at & !7) >> (8 * (at & 4))) as u32;
            u64::from(if self.big { value.swap_bytes() } else { value })
        } else {
            rig.load_as(at, self.big)
        }
    }
}

/// A device's address space: one stage, the other, or both.
pub struct Vm {
    pub first: Option<Stage>,
    pub second: Option<Stage>,
    /// System physical pages of the guest pages that hold tables.
    pages: HashMap<u64, u64>,
    next: u64,
    /// Leaf bits of the second stage for those pages.
    pub table_leaf: u64,
}

/// Guest physical address as a record of an implicit access reports it.
pub const fn implicit(gpa: u64, write: bool) -> u64 {
    gpa | 1 | (write as u64) << 1
}

impl Vm {
    /// Modes as in `iosatp` and `iohgatp`, 0 for none.
    pub fn new(rig: &mut Rig, first: u64, second: u64) -> Self {
        Self::with(rig, first, second, false, [false; 2])
    }

    /// With RV32 schemes, and endianness of the two stages.
    pub fn with(rig: &mut Rig, first: u64, second: u64, rv32: bool, big: [bool; 2]) -> Self {
        let mut vm = Self {
            first: None,
            second: None,
            pages: HashMap::new(),
            next: GUEST_TABLES,
            table_leaf: pte::ALL & !pte::X,
        };
        if second != 0 {
            vm.second = Some(Stage {
                mode: second,
                rv32,
                second: true,
                big: big[1],
                root: rig.pages(4),
            });
        }
        if first != 0 {
            vm.first = Some(Stage {
                mode: first,
                rv32,
                second: false,
                big: big[0],
                root: vm.table(rig),
            });
        }
        vm
    }

    /// A page for a table that the first stage or a process directory points to.
    pub fn table(&mut self, rig: &mut Rig) -> u64 {
        let page = rig.page();
        if self.second.is_none() {
            self.pages.insert(page, page);
            return page;
        }
        let guest = self.next;
        self.next += 0x1000;
        self.pages.insert(guest, page);
        self.map_second(rig, guest, 0, pte::at(page, self.table_leaf));
        guest
    }

    /// System physical address of an address in a table.
    pub fn physical(&self, guest: u64) -> u64 {
        self.pages[&(guest & !0xfff)] | guest & 0xfff
    }

    /// System physical address of the second stage's entry.
    pub fn second_entry(&mut self, rig: &mut Rig, gpa: u64, level: u32) -> u64 {
        let stage = self.second.expect("a second stage");
        let mut table = stage.root;
        for at in (level + 1..stage.levels()).rev() {
            let entry = table + stage.offset(gpa, at);
            let old = stage.get(rig, entry);
            table = if old & pte::V == 0 {
                let page = rig.page();
                stage.put(rig, entry, pte::at(page, pte::V));
                page
            } else {
                (old >> 10 & ((1 << 44) - 1)) << 12
            };
        }
        table + stage.offset(gpa, level)
    }

    pub fn map_second(&mut self, rig: &mut Rig, gpa: u64, level: u32, leaf: u64) {
        let stage = self.second.expect("a second stage");
        let entry = self.second_entry(rig, gpa, level);
        stage.put(rig, entry, leaf);
    }

    /// Address of the first stage's entry; guest physical if there is a second one.
    pub fn first_entry(&mut self, rig: &mut Rig, iova: u64, level: u32) -> u64 {
        let stage = self.first.expect("a first stage");
        let mut table = stage.root;
        for at in (level + 1..stage.levels()).rev() {
            let entry = self.physical(table + stage.offset(iova, at));
            let old = stage.get(rig, entry);
            table = if old & pte::V == 0 {
                let page = self.table(rig);
                stage.put(rig, entry, pte::at(page, pte::V));
                page
            } else {
                (old >> 10 & ((1 << 44) - 1)) << 12
            };
        }
        table + stage.offset(iova, level)
    }

    pub fn map_first(&mut self, rig: &mut Rig, iova: u64, level: u32, leaf: u64) {
        let stage = self.first.expect("a first stage");
        let entry = self.first_entry(rig, iova, level);
        let at = self.physical(entry);
        stage.put(rig, at, leaf);
    }

    /// The value of the first stage's entry.
    pub fn first_value(&mut self, rig: &mut Rig, iova: u64, level: u32) -> u64 {
        let stage = self.first.expect("a first stage");
        let entry = self.first_entry(rig, iova, level);
        stage.get(rig, self.physical(entry))
    }

    pub fn second_value(&mut self, rig: &mut Rig, gpa: u64, level: u32) -> u64 {
        let stage = self.second.expect("a second stage");
        let entry = self.second_entry(rig, gpa, level);
        stage.get(rig, entry)
    }

    /// `iohgatp` with this GSCID.
    pub fn iohgatp(&self, gscid: u64) -> u64 {
        self.second
            .map_or(0, |s| s.mode << 60 | gscid << 44 | s.root >> 12)
    }

    /// `iosatp`.
    pub fn iosatp(&self) -> u64 {
        self.first.map_or(0, |s| s.mode << 60 | s.root >> 12)
    }
}

/// An extended-format device context, doubleword by doubleword.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    pub tc: u64,
    pub iohgatp: u64,
    pub ta: u64,
    pub fsc: u64,
    pub msi: [u64; 3],
    pub reserved: u64,
}

impl Context {
    /// A valid context of `vm` with GSCID 7 and PSCID 5.
    pub fn of(vm: &Vm) -> Self {
        Self {
            tc: 1,
            iohgatp: vm.iohgatp(7),
            ta: 5 << 12,
            fsc: vm.iosatp(),
            ..Self::default()
        }
    }

    /// With these bits of `tc`.
    pub fn tc(self, bits: u64) -> Self {
        Self {
            tc: self.tc | bits,
            ..self
        }
    }
}

/// `pdtp.MODE`.
pub mod pd {
    pub const PD8: u64 = 1;
    pub const PD17: u64 = 2;
    pub const PD20: u64 = 3;
}

/// A process context.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub ta: u64,
    pub fsc: u64,
}

impl Process {
    /// A valid context of `vm`'s first stage with PSCID 9.
    pub fn of(vm: &Vm) -> Self {
        Self {
            ta: 9 << 12 | 1,
            fsc: vm.iosatp(),
        }
    }
}

impl Rig {
    /// A directory of one level with `context` for each of `devices`, in use.
    pub fn directory(&mut self, devices: &[u32], context: Context) -> u64 {
        let table = self.page();
        for &device in devices {
            self.set_context(table, device, context);
        }
        self.set_ddtp(2, table);
        table
    }

    /// Writes a context and makes the IOMMU forget what it has of the device.
    pub fn set_context(&mut self, table: u64, device: u32, c: Context) {
        let big = self.read(crate::bench::reg::FCTL, 4) & 1 == 1;
        let words = [
            c.tc, c.iohgatp, c.ta, c.fsc, c.msi[0], c.msi[1], c.msi[2], c.reserved,
        ];
        for (i, word) in words.into_iter().enumerate() {
            self.store_as(table + 64 * u64::from(device) + 8 * i as u64, word, big);
        }
        self.sync(&[command::iodir(None)]);
    }

    /// Forgets all translations.
    pub fn forget(&mut self) {
        // IOTINVAL.VMA of the host and of all guests that the tests use, IOTINVAL.GVMA.
        let guest = |gscid: u64| [1 | 1 << 33 | gscid << 44, 0];
        self.sync(&[
            command::iotinval(None, None),
            guest(7),
            guest(8),
            [1 | 1 << 7, 0],
            command::iodir(None),
        ]);
    }

    /// Puts a process context into the directory at `root` of a device of `vm`.
    pub fn set_process(
        &mut self,
        vm: &mut Vm,
        root: u64,
        mode: u64,
        process_id: u32,
        process: Process,
        big: bool,
    ) -> u64 {
        let pid = u64::from(process_id);
        let mut table = root;
        for level in (1..mode).rev() {
            let index = if level == 2 {
                pid >> 17
            } else {
                pid >> 8 & 0x1ff
            };
            let at = vm.physical(table + 8 * index);
            let old = self.load_as(at, big);
            table = if old & 1 == 0 {
                let page = vm.table(self);
                self.store_as(at, pte::at(page, 1), big);
                page
            } else {
                (old >> 10) << 12
            };
        }
        let entry = table + 16 * (pid & 0xff);
        let at = vm.physical(entry);
        self.store_as(at, process.ta, big);
        self.store_as(at + 8, process.fsc, big);
        entry
    }
}
