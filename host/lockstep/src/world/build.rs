//! From nothing to a machine.

use std::collections::HashMap;

use rand::RngExt;
use tlproof_golden::iommu::FlatMemory;

use super::tables::{Stage, entry, pte, target};
use super::{Device, GUEST_TABLES, Interrupts, Kind, Process, Site, Space, Vm, World};
use crate::memory::{BASE, MESSAGES};

/// Bits of `DC.tc`.
mod tc {
    pub const V: u64 = 1;
    pub const EN_ATS: u64 = 1 << 1;
    pub const EN_PRI: u64 = 1 << 2;
    pub const T2GPA: u64 = 1 << 3;
    pub const DTF: u64 = 1 << 4;
    pub const PDTV: u64 = 1 << 5;
    pub const PRPR: u64 = 1 << 6;
    pub const GADE: u64 = 1 << 7;
    pub const SADE: u64 = 1 << 8;
    pub const DPE: u64 = 1 << 9;
    pub const SBE: u64 = 1 << 10;
    pub const SXL: u64 = 1 << 11;
}

impl World {
    pub(super) fn build(&mut self, ram: &mut FlatMemory) {
        self.fctl = 0;
        let big = if self.caps.end {
            self.chance(30)
        } else {
            self.fixed_big_endian
        };
        self.fctl |= u32::from(big);
        if self.caps.igs == 1 || self.caps.igs == 2 && self.chance(40) {
            self.fctl |= 2;
        }
        if self.gxl_writable && self.chance(20) {
            self.fctl |= 4;
        }
        let levels = self.rng.random_range(1..=self.ddt_levels);
        let mode = match self.rng.random_range(0..100) {
            0..2 => 0,
            2..5 => 1,
            _ => levels + 1,
        };
        let root = self.pages(1);
        self.ddtp = entry(root, mode);
        if self.caps.second_stage() {
            for _ in 0..self.rng.random_range(0..=2) {
                self.add_vm(ram);
            }
        }
        for _ in 0..self.rng.random_range(2..=5) {
            self.add_space(ram);
        }
        for _ in 0..self.rng.random_range(3..=7) {
            self.add_device(ram, root, levels);
        }
        for _ in 0..self.rng.random_range(4..=16) {
            self.add_mapping(ram);
        }
    }

    pub(super) fn site(&mut self, kind: Kind, address: u64, rv32: bool, big: bool) {
        self.sites.push(Site {
            kind,
            address,
            rv32,
            big,
            about: None,
            process: None,
        });
    }

    fn add_vm(&mut self, ram: &mut FlatMemory) {
        let (modes, rv32): (Vec<u64>, bool) = if self.gxl() {
            (if self.caps.sv32x4 { vec![8] } else { vec![] }, true)
        } else {
            let c = &self.caps;
            let modes = [(8, c.sv39x4), (9, c.sv48x4), (10, c.sv57x4)];
            (modes.iter().filter(|m| m.1).map(|m| m.0).collect(), false)
        };
        let Some(mode) = self.pick(&modes) else {
            return;
        };
        let stage = Stage {
            mode,
            rv32,
            second: true,
            big: self.big(),
            root: self.pages(4),
        };
        // That of 0 has the same number as the host.
        let gscid = if self.vms.is_empty() && self.chance(40) {
            self.gscids.push(0);
            0
        } else {
            self.fresh_gscid()
        };
        let mut vm = Vm {
            gscid,
            stage,
            pages: HashMap::new(),
            next_table: GUEST_TABLES,
            window: None,
            targets: Vec::new(),
        };
        // One large page holds the tables of the guest.
        if self.chance(45) {
            let level = self.rng.random_range(1..stage.levels());
            let span = 1 << stage.span_log2(level);
            let gpa = if level == 1 { GUEST_TABLES } else { BASE };
            if let Some(at) = self.second_entry(ram, &stage, gpa, level) {
                let bits = pte::V | pte::R | pte::W | pte::U | pte::A | pte::D;
                stage.put(ram, at, entry(BASE & !(span - 1), bits));
                self.site(Kind::SecondLeaf, at, rv32, stage.big);
                vm.window = Some(gpa);
            }
        }
        self.vms.push(vm);
    }

    fn add_space(&mut self, ram: &mut FlatMemory) {
        let vms: Vec<usize> = (0..self.vms.len()).collect();
        let vm = if self.chance(60) {
            self.pick(&vms)
        } else {
            None
        };
        let caps = &self.caps;
        let sxl = self.gxl() || self.gxl_writable && caps.sv32 && self.chance(20);
        let caps = &self.caps;
        let modes: Vec<u64> = if sxl {
            [(8, caps.sv32)]
                .iter()
                .filter(|m| m.1)
                .map(|m| m.0)
                .collect()
        } else {
            let modes = [(8, caps.sv39), (9, caps.sv48), (10, caps.sv57)];
            modes.iter().filter(|m| m.1).map(|m| m.0).collect()
        };
        let Some(mode) = self.pick(&modes) else {
            return;
        };
        let Some((root, _)) = self.table(ram, vm) else {
            return;
        };
        let big = if self.caps.end {
            self.chance(30)
        } else {
            self.big()
        };
        // Spaces of different guests, or of a guest and the host, may have one number.
        let others = self.spaces.iter().filter(|s| s.vm != vm).map(|s| s.pscid);
        let taken = |id: &u32| self.spaces.iter().any(|s| s.vm == vm && s.pscid == *id);
        let others: Vec<u32> = others.filter(|id| !taken(id)).collect();
        let pscid = match self.pick(&others) {
            Some(id) if self.chance(50) => id,
            _ => self.fresh_id(),
        };
        self.spaces.push(Space {
            pscid,
            stage: Stage {
                mode,
                rv32: sxl,
                second: false,
                big,
                root,
            },
            vm,
            targets: Vec::new(),
        });
    }

    fn random_device_id(&mut self, levels: u64) -> u32 {
        let leaf = if self.caps.msi_flat { 6 } else { 7 };
        let bits = match levels {
            1 => leaf,
            2 => leaf + 9,
            _ => 24,
        };
        let id = self.rng.random_range(0..1u32 << bits);
        // Some share their tables.
        match self.devices.last() {
            Some(last) if self.rng.random_bool(0.5) => last.id & !0x3f | id & 0x3f,
            _ => id,
        }
    }

    fn add_device(&mut self, ram: &mut FlatMemory, root: u64, levels: u64) {
        let id = self.random_device_id(levels);
        if self.devices.iter().any(|d| d.id == id) {
            return;
        }
        let Some(at) = self.context_address(ram, root, levels, id) else {
            return;
        };
        let spaces: Vec<usize> = (0..self.spaces.len()).collect();
        let space = if self.chance(80) {
            self.pick(&spaces)
        } else {
            None
        };
        let vms: Vec<usize> = (0..self.vms.len()).collect();
        let vm = match space {
            Some(space) => self.spaces[space].vm,
            None if self.chance(70) => self.pick(&vms),
            None => None,
        };
        let mut device = Device {
            id,
            vm,
            space,
            processes: Vec::new(),
            interrupts: None,
        };
        let words = self.context(ram, &mut device);
        let big = self.big();
        let index = self.devices.len();
        let size = self.caps.dc_size();
        for (word, value) in words.into_iter().enumerate().take(size as usize / 8) {
            let address = at + 8 * word as u64;
            ram.set(address, if big { value.swap_bytes() } else { value });
            let kind = Kind::Context {
                device: index,
                word,
            };
            self.site(kind, address, false, big);
        }
        self.devices.push(device);
    }

    fn context_address(
        &mut self,
        ram: &mut FlatMemory,
        root: u64,
        levels: u64,
        id: u32,
    ) -> Option<u64> {
        let leaf = if self.caps.msi_flat { 6 } else { 7 };
        let id = u64::from(id);
        let big = self.big();
        let mut table = root;
        for level in (1..levels).rev() {
            let index = if level == 2 {
                id >> (leaf + 9)
            } else {
                id >> leaf & 0x1ff
            };
            let at = table + 8 * index;
            let old = native(ram.get(at), big);
            table = if old & 1 == 0 {
                if !self.room(8) {
                    return None;
                }
                let page = self.pages(1);
                ram.set(at, native(entry(page, 1), big));
                self.site(Kind::DirectoryPointer, at, false, big);
                page
            } else {
                target(old)
            };
        }
        Some(table + (id & ((1 << leaf) - 1)) * self.caps.dc_size())
    }

    fn context(&mut self, ram: &mut FlatMemory, device: &mut Device) -> [u64; 8] {
        let caps = self.caps;
        let mut tc = tc::V;
        if caps.ats && self.chance(60) {
            tc |= tc::EN_ATS;
            if self.chance(70) {
                tc |= tc::EN_PRI;
                if self.chance(50) {
                    tc |= tc::PRPR;
                }
            }
            if caps.t2gpa && device.vm.is_some() && self.chance(50) {
                tc |= tc::T2GPA;
            }
        }
        if self.chance(10) {
            tc |= tc::DTF;
        }
        if caps.amo_hwad {
            for bit in [tc::GADE, tc::SADE] {
                if self.chance(50) {
                    tc |= bit;
                }
            }
        }
        if self.chance(10) {
            // For custom use.
            tc |= 0xa5 << 24;
        }
        let space = device.space.map(|s| self.spaces[s].clone());
        let (sbe, sxl) = match &space {
            Some(space) => (space.stage.big, space.stage.rv32),
            None => {
                let big = if caps.end {
                    self.chance(30)
                } else {
                    self.big()
                };
                (big, self.gxl())
            }
        };
        if sbe {
            tc |= tc::SBE;
        }
        if sxl {
            tc |= tc::SXL;
        }
        let mut iohgatp = device.vm.map_or(0, |vm| {
            let vm = &self.vms[vm];
            vm.stage.mode << 60 | u64::from(vm.gscid) << 44 | vm.stage.root >> 12
        });
        let directories: Vec<u64> = [(1, caps.pd8), (2, caps.pd17), (3, caps.pd20)]
            .iter()
            .filter(|d| d.1)
            .map(|d| d.0)
            .collect();
        let mut fsc = space
            .as_ref()
            .map_or(0, |s| s.stage.mode << 60 | s.stage.root >> 12);
        let mut pscid = space.as_ref().map_or(0, |s| s.pscid);
        if !directories.is_empty() && self.chance(50) {
            tc |= tc::PDTV;
            if self.chance(50) {
                tc |= tc::DPE;
            }
            fsc = 0;
            pscid = 0;
            if self.chance(95)
                && let Some(mode) = self.pick(&directories)
                && let Some(root) = self.process_directory(ram, device, mode, sbe, sxl)
            {
                fsc = mode << 60 | root >> 12;
            }
        }
        let mut ta = u64::from(pscid) << 12;
        if caps.qosid {
            let (rcid, mcid) = self.qos_bits;
            ta |= self.rng.random_range(0..1u64 << rcid) << 40;
            ta |= self.rng.random_range(0..1u64 << mcid) << 52;
        }
        let msi = self.interrupt_files(ram, device);
        let mut flipped = None;
        if self.chance(12) {
            let word = self.pick(&[0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7]).unwrap_or(0);
            flipped = Some((word, self.context_bit(word)));
            // The same tables may be read otherwise now: other tags.
            self.retagged = true;
            ta = ta & !(0xf_ffff << 12) | u64::from(self.fresh_id()) << 12;
            // Of a guest too that the flip makes.
            if self.caps.second_stage() {
                let gscid = u64::from(self.fresh_gscid());
                iohgatp = iohgatp & !(0xffff << 44) | gscid << 44;
            }
            self.new_process_tags(ram, device.id);
        }
        let mut words = [tc, iohgatp, ta, fsc, msi[0], msi[1], msi[2], 0];
        if let Some((word, bit)) = flipped {
            words[word] ^= 1 << bit;
        }
        words
    }

    /// Builds a process directory and returns its root, as the device sees it.
    fn process_directory(
        &mut self,
        ram: &mut FlatMemory,
        device: &mut Device,
        mode: u64,
        big: bool,
        sxl: bool,
    ) -> Option<u64> {
        let (root, _) = self.table(ram, device.vm)?;
        let bits = [8, 17, 20][mode as usize - 1];
        // All address spaces of the same guest and width.
        let spaces: Vec<usize> = (0..self.spaces.len())
            .filter(|&s| {
                let space = &self.spaces[s];
                space.vm == device.vm && space.stage.rv32 == sxl && space.stage.big == big
            })
            .collect();
        for number in 0..self.rng.random_range(1..=4) {
            let id = match number {
                0 => 0,
                _ => self.rng.random_range(0..1u32 << bits),
            };
            let space = if self.chance(85) {
                self.pick(&spaces)
            } else {
                None
            };
            if let Some(at) = self.process_address(ram, device, root, mode, id, big) {
                let mut attributes = 1;
                if self.chance(50) {
                    attributes |= 2;
                }
                if self.chance(50) {
                    attributes |= 4;
                }
                let (pscid, fsc) = space.map_or((0, 0), |s| {
                    let s = &self.spaces[s];
                    (s.pscid, s.stage.mode << 60 | s.stage.root >> 12)
                });
                attributes |= u64::from(pscid) << 12;
                ram.set(at, native(attributes, big));
                ram.set(at + 8, native(fsc, big));
                for (kind, at) in [(Kind::ProcessAttributes, at), (Kind::ProcessTable, at + 8)] {
                    self.site(kind, at, false, big);
                    if let Some(site) = self.sites.last_mut() {
                        site.process = Some((device.id, id));
                    }
                }
                device.processes.push(Process { id, space });
            }
        }
        Some(root)
    }

    fn process_address(
        &mut self,
        ram: &mut FlatMemory,
        device: &Device,
        root: u64,
        mode: u64,
        id: u32,
        big: bool,
    ) -> Option<u64> {
        let id = u64::from(id);
        let mut table = root;
        for level in (1..mode).rev() {
            let index = if level == 2 {
                id >> 17
            } else {
                id >> 8 & 0x1ff
            };
            let at = self.physical(device.vm, table + 8 * index)?;
            let old = native(ram.get(at), big);
            table = if old & 1 == 0 {
                let (page, _) = self.table(ram, device.vm)?;
                ram.set(at, native(entry(page, 1), big));
                self.site(Kind::ProcessPointer, at, false, big);
                page
            } else {
                target(old)
            };
        }
        self.physical(device.vm, table + 16 * (id & 0xff))
    }

    /// An MSI page table, and the three words of the context.
    fn interrupt_files(&mut self, ram: &mut FlatMemory, device: &mut Device) -> [u64; 3] {
        if !self.caps.msi_flat || !self.chance(50) || !self.room(4) {
            return [0; 3];
        }
        let width = device.vm.map_or(56, |vm| self.vms[vm].stage.width());
        // At times wider than the widest guest address.
        let known = self.caps.msi_mask_bits().count_ones();
        let page_bits = (width.min(52) - 12).min(if self.chance(80) { known } else { 40 });
        let mut mask = 0u64;
        let files = self.rng.random_range(0..=5);
        for _ in 0..files {
            mask |= 1 << self.rng.random_range(0..page_bits.min(24));
        }
        let pattern = self.rng.random_range(0..1u64 << page_bits) & !mask;
        let table = self.pages(1);
        let big = self.big();
        for number in 0..1u64 << mask.count_ones() {
            let at = table + 16 * number;
            let [w0, w1] = self.msi_pte();
            ram.set(at, native(w0, big));
            ram.set(at + 8, native(w1, big));
            self.site(Kind::MsiPte, at, false, big);
            self.site(Kind::MsiNotice, at + 8, false, big);
        }
        device.interrupts = Some(Interrupts { mask, pattern });
        [1 << 60 | table >> 12, mask, pattern]
    }

    fn msi_pte(&mut self) -> [u64; 2] {
        let page = self.rng.random::<u64>() >> 20;
        match self.rng.random_range(0..100) {
            0..60 => [page << 10 | 3 << 1 | 1, self.rng.random()],
            60..85 if self.caps.msi_mrif => {
                let file = self.pages(1) + 512 * self.rng.random_range(0..8);
                for at in (file..file + 512).step_by(16) {
                    self.site(Kind::InterruptFile, at, false, false);
                }
                // At times where nothing takes it.
                let notice = if self.chance(10) {
                    0x3_0000
                } else {
                    MESSAGES >> 12
                };
                let id = self.rng.random_range(0..2048u64);
                let low = id & 0x3ff | (id >> 10) << 60;
                [(file >> 9) << 7 | 1 << 1 | 1, notice << 10 | low]
            }
            85..90 => [page << 10 | 3 << 1, 0],
            90..94 => [page << 10 | self.rng.random_range(0..4) << 1 | 1, 0],
            94..97 => [page << 10 | 3 << 1 | 1 | 1 << 63, 0],
            _ => [
                page << 10 | 3 << 1 | 1 | 1 << self.rng.random_range(54..63),
                0,
            ],
        }
    }
}

pub(super) const fn native(word: u64, big: bool) -> u64 {
    if big { word.swap_bytes() } else { word }
}
