//! What software maps while a machine runs: leaves, and tables on the way to them.

use rand::RngExt;
use tlproof_golden::iommu::FlatMemory;

use super::tables::{Stage, entry, pte, target};
use super::{Kind, World};
use crate::memory::{BASE, in_ram};

/// Data pages lie beyond main memory: nothing is read there.
const DATA: u64 = 0x9000_0000;

/// Whether a leaf says that it is one of sixteen (Svnapot).
pub(super) const fn is_contiguous(stage: &Stage, leaf: u64) -> bool {
    !stage.rv32 && leaf & pte::N != 0 && leaf >> 10 & 0xf == 8
}

impl World {
    /// Maps something where nothing is: no command is needed.
    pub(super) fn add_mapping(&mut self, ram: &mut FlatMemory) {
        if !self.room(24) {
            return;
        }
        let spaces: Vec<usize> = (0..self.spaces.len()).collect();
        let vms: Vec<usize> = (0..self.vms.len()).collect();
        match self.rng.random_range(0..100) {
            0..75 => {
                if let Some(space) = self.pick(&spaces) {
                    self.map_first(ram, space, None);
                }
            }
            75..90 => {
                if let Some(vm) = self.pick(&vms) {
                    let width = self.vms[vm].stage.width();
                    let gpa = self.rng.random::<u64>() >> (64 - width);
                    self.map_second(ram, vm, gpa);
                }
            }
            _ => self.map_interrupt_file(ram),
        }
    }

    fn map_interrupt_file(&mut self, ram: &mut FlatMemory) {
        let devices: Vec<usize> = (0..self.devices.len())
            .filter(|&d| self.devices[d].interrupts.is_some())
            .collect();
        let Some(device) = self.pick(&devices) else {
            return;
        };
        let device = self.devices[device].clone();
        let Some(files) = device.interrupts else {
            return;
        };
        let page = files.pattern | self.rng.random::<u64>() & files.mask;
        let spaces = device.processes.iter().filter_map(|p| p.space);
        let spaces: Vec<usize> = spaces.chain(device.space).collect();
        if let Some(space) = self.pick(&spaces) {
            self.map_first(ram, space, Some(page << 12));
        }
    }

    fn random_level(&mut self, levels: u32) -> u32 {
        let level = match self.rng.random_range(0..100) {
            0..45 => 0,
            45..65 => 1,
            65..78 => 2,
            78..90 => 3,
            _ => 4,
        };
        level.min(levels - 1)
    }

    /// Maps an address of a first stage, to `to` or somewhere.
    fn map_first(&mut self, ram: &mut FlatMemory, index: usize, to: Option<u64>) {
        let space = self.spaces[index].clone();
        let stage = space.stage;
        let level = self.random_level(stage.levels());
        let span = stage.span_log2(level);
        let width = stage.width();
        let random: u64 = self.rng.random();
        // Near another, or where another address space has something, best one of the same number.
        let twins = (0..self.spaces.len()).filter(|&other| {
            let other = &self.spaces[other];
            other.vm != space.vm && other.pscid == space.pscid && !other.targets.is_empty()
        });
        let twins: Vec<usize> = twins.collect();
        let near = match self.rng.random_range(0..10) {
            _ if !twins.is_empty() && self.chance(50) => {
                let twin = self.pick(&twins).unwrap_or(index);
                let targets = self.spaces[twin].targets.clone();
                self.pick(&targets)
            }
            0..5 => self.pick(&space.targets),
            5..7 => {
                let other = self.rng.random_range(0..self.spaces.len());
                let targets = self.spaces[other].targets.clone();
                self.pick(&targets)
            }
            _ => None,
        };
        let iova = match near {
            Some(near) if self.chance(40) => near,
            Some(near) => near ^ random >> (64 - span.min(21) - 4).max(40),
            None if stage.rv32 => random >> 32,
            None => ((random as i64) >> (64 - width)) as u64,
        };
        let iova = if stage.rv32 {
            iova & 0xffff_ffff
        } else {
            ((iova << (64 - width)) as i64 >> (64 - width)) as u64
        };
        let iova = iova >> span << span;
        let Some(at) = self.first_entry(ram, index, iova, level) else {
            return;
        };
        if stage.get(ram, at) != 0 {
            return;
        }
        let inside = self.rng.random::<u64>() & ((1 << span) - 1) & !0xfff;
        let out_bits = match space.vm {
            Some(vm) => self.vms[vm].stage.width().min(56),
            None if stage.rv32 => 34,
            None => self.physical_width(),
        };
        let out_bits = if stage.rv32 {
            out_bits.min(34)
        } else {
            out_bits
        };
        if span >= out_bits {
            return;
        }
        let base = match to {
            Some(to) => to >> span << span,
            None if space.vm.is_some() => {
                let vm = space.vm.unwrap_or(0);
                let known = self.vms[vm].targets.clone();
                let gpa = match self.pick(&known) {
                    Some(gpa) if self.chance(50) => gpa,
                    _ => self.rng.random::<u64>() >> (64 - out_bits),
                };
                gpa >> span << span
            }
            None => {
                let page = DATA + (self.rng.random::<u64>() >> 36);
                let far = self.rng.random::<u64>() >> (64 - out_bits);
                let page = if self.chance(50) { page } else { far };
                page & ((1 << out_bits) - 1) >> span << span
            }
        };
        let base = base & ((1 << out_bits) - 1);
        if space.vm.is_none() && in_ram(base) {
            return;
        }
        let leaf = self.leaf(base, level, stage.rv32);
        let target = match to {
            Some(to) => iova | to & ((1 << span) - 1),
            None => iova | inside,
        };
        // It is invalidated by another address in it than devices use.
        let other = iova | self.rng.random::<u64>() & ((1 << span) - 1) & !0xfff;
        self.put_leaf(ram, &stage, at, leaf, Kind::FirstLeaf, Some((index, other)));
        self.spaces[index].targets.push(target);
        if let (Some(vm), None) = (space.vm, to) {
            self.map_second(ram, vm, base | inside);
        }
    }

    /// A leaf, mostly a good one.
    fn leaf(&mut self, target: u64, level: u32, rv32: bool) -> u64 {
        let mut leaf = entry(
            target,
            pte::V | pte::R | pte::W | pte::X | pte::U | pte::A | pte::D,
        );
        if self.chance(25) {
            let permissions = [pte::R, pte::X, pte::R | pte::W, pte::R | pte::X];
            leaf &= !(pte::R | pte::W | pte::X);
            leaf |= self.pick(&permissions).unwrap_or(pte::R);
        }
        if self.chance(20) {
            leaf |= pte::G;
        }
        if self.chance(15) {
            leaf &= !pte::U;
        }
        leaf |= self.rng.random_range(0..4) << 8;
        // What a read-only page without D grants is a choice.
        let clean = if leaf & pte::W == 0 { 60 } else { 30 };
        if self.chance(clean) {
            leaf &= !pte::D;
            if self.chance(60) {
                leaf &= !pte::A;
            }
        }
        if !rv32 {
            if self.caps.svpbmt {
                let pbmt = if self.chance(4) {
                    3
                } else {
                    self.rng.random_range(0..3)
                };
                leaf |= pbmt << pte::PBMT;
            }
            if level == 0 && self.chance(20) {
                // A and D of all sixteen at once: which of them a walk sets is open.
                leaf = leaf & !(0xf << 10) | 8 << 10 | pte::N | pte::A | pte::D;
            }
            if level == 0 && self.chance(5) {
                // Contiguous ranges of other sizes are reserved.
                let size = self.pick(&[0, 0, 0, 1, 2, 4, 9, 12]).unwrap_or(0);
                leaf = leaf & !(0xf << 10) | size << 10 | pte::N;
            }
            if self.caps.svrsw60t59b && self.chance(20) {
                leaf |= self.rng.random_range(0..4) << 59;
            }
        }
        if self.chance(4) {
            let bit = if rv32 {
                self.rng.random_range(0..10)
            } else {
                self.leaf_bit()
            };
            leaf ^= 1 << bit;
        }
        if !rv32 && leaf & pte::N != 0 {
            leaf |= pte::A | pte::D;
        }
        leaf
    }

    /// Writes a leaf, sixteen times if it is one of a contiguous range.
    fn put_leaf(
        &mut self,
        ram: &mut FlatMemory,
        stage: &Stage,
        at: u64,
        leaf: u64,
        kind: Kind,
        about: Option<(usize, u64)>,
    ) {
        if is_contiguous(stage, leaf) {
            // All or none: one cached translation serves all of them.
            let entries = (0..16).map(|i| (at & !0x7f) + 8 * i);
            if entries.clone().all(|at| stage.get(ram, at) == 0) {
                entries.for_each(|at| stage.put(ram, at, leaf));
            }
            return;
        }
        stage.put(ram, at, leaf);
        self.site(kind, at, stage.rv32, stage.big);
        if let Some(site) = self.sites.last_mut() {
            site.about = about;
        }
    }

    /// Of physical addresses; at times beyond `PAS`.
    fn physical_width(&mut self) -> u32 {
        if self.chance(90) {
            self.caps.pas.into()
        } else {
            56
        }
    }

    fn map_second(&mut self, ram: &mut FlatMemory, vm: usize, gpa: u64) {
        let stage = self.vms[vm].stage;
        if gpa >> stage.width() != 0 {
            return;
        }
        let level = self.random_level(stage.levels());
        let span = stage.span_log2(level);
        if span >= 50 {
            return;
        }
        let Some(at) = self.second_entry(ram, &stage, gpa, level) else {
            return;
        };
        if stage.get(ram, at) != 0 {
            return;
        }
        let bits = if stage.rv32 {
            34
        } else {
            self.physical_width()
        };
        let page = DATA + (self.rng.random::<u64>() >> 36);
        let far = self.rng.random::<u64>() >> (64 - bits);
        let target = if self.chance(50) { page } else { far };
        let target = (target & ((1 << bits) - 1)) >> span << span;
        if in_ram(target) {
            return;
        }
        let leaf = self.leaf(target, level, stage.rv32) | pte::U;
        self.put_leaf(ram, &stage, at, leaf, Kind::SecondLeaf, None);
        self.vms[vm].targets.push(gpa);
    }

    /// System physical address of an entry of a first stage; tables on the way are made.
    fn first_entry(
        &mut self,
        ram: &mut FlatMemory,
        index: usize,
        iova: u64,
        level: u32,
    ) -> Option<u64> {
        let (stage, vm) = (self.spaces[index].stage, self.spaces[index].vm);
        let mut table = stage.root;
        for at in (level + 1..stage.levels()).rev() {
            let address = self.physical(vm, table + stage.offset(iova, at))?;
            let old = stage.get(ram, address);
            table = if old & pte::V == 0 {
                let (page, _) = self.table(ram, vm)?;
                let mut bits = pte::V;
                if self.chance(8) {
                    bits |= pte::G;
                    self.global_pointers = true;
                }
                stage.put(ram, address, entry(page, bits));
                self.pointer(Kind::FirstPointer, address, &stage);
                page
            } else if old & (pte::R | pte::X) != 0 {
                return None;
            } else {
                target(old)
            };
        }
        self.physical(vm, table + stage.offset(iova, level))
    }

    /// System physical address of an entry of a second stage; tables on the way are made. None if a
    /// leaf is in the way.
    pub(super) fn second_entry(
        &mut self,
        ram: &mut FlatMemory,
        stage: &Stage,
        gpa: u64,
        level: u32,
    ) -> Option<u64> {
        let mut table = stage.root;
        for at in (level + 1..stage.levels()).rev() {
            let address = table + stage.offset(gpa, at);
            let old = stage.get(ram, address);
            table = if old & pte::V == 0 {
                if !self.room(2) {
                    return None;
                }
                let page = self.pages(1);
                stage.put(ram, address, entry(page, pte::V));
                self.pointer(Kind::SecondPointer, address, stage);
                page
            } else if old & (pte::R | pte::X) != 0 || !in_ram(target(old)) {
                return None;
            } else {
                target(old)
            };
        }
        Some(table + stage.offset(gpa, level))
    }

    /// A page for a table of a guest or the host: its address for who points to it, and the system
    /// physical one.
    pub(super) fn table(&mut self, ram: &mut FlatMemory, vm: Option<usize>) -> Option<(u64, u64)> {
        if !self.room(8) {
            return None;
        }
        let page = self.pages(1);
        let Some(index) = vm else {
            return Some((page, page));
        };
        if let Some(window) = self.vms[index].window {
            let gpa = window + (page - BASE);
            self.vms[index].pages.insert(gpa, page);
            return Some((gpa, page));
        }
        let stage = self.vms[index].stage;
        let gpa = self.vms[index].next_table;
        self.vms[index].next_table += 4096;
        let at = self.second_entry(ram, &stage, gpa, 0)?;
        let bits = pte::V | pte::R | pte::W | pte::U | pte::A | pte::D;
        let mut leaf = entry(page, bits);
        if self.chance(6) {
            // Tables that cannot be updated.
            leaf &= !pte::W;
        }
        if self.caps.svpbmt && !stage.rv32 && self.chance(20) {
            leaf |= 1 << pte::PBMT;
        }
        stage.put(ram, at, leaf);
        self.site(Kind::SecondLeaf, at, stage.rv32, stage.big);
        self.vms[index].pages.insert(gpa, page);
        Some((gpa, page))
    }

    /// System physical address of an address in a table.
    pub(super) fn physical(&self, vm: Option<usize>, address: u64) -> Option<u64> {
        match vm {
            None => in_ram(address).then_some(address),
            Some(index) => {
                let page = self.vms[index].pages.get(&(address & !0xfff))?;
                Some(page | address & 0xfff)
            }
        }
    }

    /// An entry leads to a table now. An invalid leaf that it was is no leaf any more: the address of
    /// that leaf would not be enough to invalidate what the table maps.
    pub(super) fn pointer(&mut self, kind: Kind, address: u64, stage: &Stage) {
        match self.sites.iter_mut().find(|s| s.address == address) {
            Some(site) => {
                site.kind = kind;
                site.about = None;
            }
            None => self.site(kind, address, stage.rv32, stage.big),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::config::Config;
    use crate::memory::{BASE, SystemRam};
    use crate::world::World;

    /// What an entry is says which commands a change of it demands.
    #[test]
    fn an_entry_is_of_one_kind() {
        let config = Config::full();
        for seed in 0..300 {
            let mut ram = SystemRam::default().ram;
            let (caps, choices) = (config.capabilities, &config.choices);
            let mut world = World::new(seed, caps, choices, &mut ram, BASE + 0x4000);
            for _ in 0..20 {
                world.change(&mut ram);
            }
            let mut seen = HashSet::new();
            for site in &world.sites {
                assert!(seen.insert(site.address), "machine {seed}: {site:?}");
            }
        }
    }
}
