//! How a machine changes while it runs, and which commands the change demands.

use std::mem::{Discriminant, discriminant};

use rand::RngExt;
use tlproof_golden::iommu::{FlatMemory, Injected};

use super::map::is_contiguous;
use super::tables::{Stage, pte, target};
use super::{Command, Kind, Site, World};
use crate::memory::in_ram;

/// IOTINVAL.VMA of a guest or the host.
fn vma(gscid: Option<u32>, pscid: Option<u32>, iova: Option<u64>) -> Command {
    let mut word = 1;
    word |= gscid.map_or(0, |g| 1 << 33 | u64::from(g) << 44);
    word |= pscid.map_or(0, |p| 1 << 32 | u64::from(p) << 12);
    let (av, address) = iova.map_or((0, 0), |a| (1 << 10, a >> 12 << 10));
    [word | av, address]
}

/// IODIR.INVAL_DDT.
fn iodir(device_id: Option<u32>) -> Command {
    [3 | device_id.map_or(0, |d| 1 << 33 | u64::from(d) << 40), 0]
}

impl World {
    /// Changes some entries. The result is a list of commands after which nothing old may be seen;
    /// at times more than what changed.
    pub fn change(&mut self, ram: &mut FlatMemory) -> Vec<Command> {
        ram.heal();
        let mut commands = Vec::new();
        for _ in 0..self.rng.random_range(1..=6) {
            match self.rng.random_range(0..100) {
                0..35 => self.add_mapping(ram),
                35..70 => commands.extend(self.spoil(ram)),
                70..85 => commands.extend(self.mend(ram)),
                85..90 => commands.extend(self.clear_dirty(ram)),
                _ => {
                    self.fault(ram);
                    commands.extend(self.forget_all());
                }
            }
        }
        if self.chance(20) {
            commands = self.forget_all();
        }
        self.history.push(format!("commands {commands:x?}"));
        commands
    }

    /// Flips a bit or more of an entry.
    fn spoil(&mut self, ram: &mut FlatMemory) -> Vec<Command> {
        let Some(index) = self.random_site() else {
            return Vec::new();
        };
        let site = self.sites[index];
        let stage = site.stage();
        let old = stage.get(ram, site.address);
        let bit = match site.kind {
            Kind::DirectoryPointer | Kind::ProcessPointer => self.pointer_bit(false),
            Kind::FirstPointer | Kind::SecondPointer => self.pointer_bit(site.rv32),
            Kind::FirstLeaf | Kind::SecondLeaf if site.rv32 => self.rng.random_range(0..10),
            Kind::FirstLeaf | Kind::SecondLeaf => self.leaf_bit(),
            Kind::Context { word, .. } => self.context_bit(word),
            Kind::ProcessAttributes => self.pick(&[0, 1, 2, 3, 11, 32, 63]).unwrap_or(0),
            Kind::ProcessTable => self.pick(&[30, 43, 44, 59, 60, 61, 62, 63]).unwrap_or(0),
            Kind::MsiPte | Kind::MsiNotice => self.rng.random_range(0..64),
            Kind::InterruptFile => return Vec::new(),
        };
        let mut new = old ^ 1 << bit;
        if site.kind == Kind::SecondLeaf
            && in_ram(target(old))
            && in_ram(target(new))
            && target(old) != target(new)
        {
            // A table of the guest would become another one's.
            return Vec::new();
        }
        if site.kind == Kind::FirstPointer && (1 << bit) & pte::G != 0 {
            self.global_pointers = true;
        }
        // Address spaces and guests have one root each: another one gets a tag of its own.
        match site.kind {
            Kind::Context { device, .. } => self.new_tags(ram, device),
            Kind::ProcessTable => {
                self.new_process_tag(ram, &site);
            }
            _ => {}
        }
        if matches!(site.kind, Kind::Context { word: 1 | 2, .. }) {
            new = stage.get(ram, site.address) ^ 1 << bit;
        }
        let leaf = matches!(site.kind, Kind::FirstLeaf | Kind::SecondLeaf);
        if leaf && is_contiguous(&stage, new) {
            // It would have to be changed sixteen times.
            return Vec::new();
        }
        self.history.push(format!(
            "{:?} at {:#x}: {old:#x} becomes {new:#x}",
            site.kind, site.address
        ));
        self.spoiled.push((index, old));
        stage.put(ram, site.address, new);
        self.commands_for(index, old | new)
    }

    fn random_site(&mut self) -> Option<usize> {
        let contexts = discriminant(&Kind::Context { device: 0, word: 0 });
        let kind = if self.chance(20) {
            contexts
        } else {
            self.random_kind()?
        };
        let mut sites = self.sites_of(kind);
        // The first word of a context has most of its rules.
        if self.chance(35) {
            let word = |i: &usize| !matches!(self.sites[*i].kind, Kind::Context { word: 1.., .. });
            sites.retain(word);
        }
        self.pick(&sites)
    }

    /// Every kind as often as any other.
    fn random_kind(&mut self) -> Option<Discriminant<Kind>> {
        let mut kinds = Vec::new();
        for site in &self.sites {
            let kind = discriminant(&site.kind);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        self.pick(&kinds)
    }

    fn sites_of(&self, kind: Discriminant<Kind>) -> Vec<usize> {
        (0..self.sites.len())
            .filter(|&i| discriminant(&self.sites[i].kind) == kind)
            .collect()
    }

    /// Not one that leads to another table: it would be of two kinds.
    fn pointer_bit(&mut self, rv32: bool) -> u32 {
        let top = if rv32 { 32 } else { 64 };
        match self.rng.random_range(0..3) {
            0 => 0,
            1 => self.rng.random_range(1..10),
            _ => self.rng.random_range(24..top),
        }
    }

    pub(super) fn leaf_bit(&mut self) -> u32 {
        match self.rng.random_range(0..10) {
            0..6 => self.rng.random_range(0..10),
            6..8 => self.rng.random_range(54..64),
            _ => self.rng.random_range(10..54),
        }
    }

    pub(super) fn context_bit(&mut self, word: usize) -> u32 {
        match word {
            0 => match self.rng.random_range(0..10) {
                0..7 => self.rng.random_range(0..12),
                _ => self.rng.random_range(12..64),
            },
            1 => self.pick(&[0, 1, 30, 43, 60, 61, 62, 63]).unwrap_or(0),
            2 => self.pick(&[0, 11, 32, 39, 40, 51, 52, 63]).unwrap_or(0),
            3 | 4 => self.pick(&[30, 43, 44, 59, 60, 61, 62, 63]).unwrap_or(0),
            5 | 6 => match self.rng.random_range(0..4) {
                0 => self.rng.random_range(52..64),
                _ => self.rng.random_range(0..52),
            },
            _ => self.rng.random_range(0..64),
        }
    }

    /// A PSCID and, with a second stage, a GSCID that nobody else has.
    fn new_tags(&mut self, ram: &mut FlatMemory, device: usize) {
        let stage = self.word_stage(self.big());
        let find = |word| {
            self.sites
                .iter()
                .find(|s| s.kind == Kind::Context { device, word })
                .map(|s| s.address)
        };
        let (Some(iohgatp), Some(ta)) = (find(1), find(2)) else {
            return;
        };
        self.retagged = true;
        let (gscid, pscid) = (self.fresh_gscid(), self.fresh_id());
        let old = stage.get(ram, iohgatp);
        if self.caps.second_stage() {
            let new = old & !(0xffff << 44) | u64::from(gscid) << 44;
            stage.put(ram, iohgatp, new);
        }
        let new = stage.get(ram, ta) & !(0xf_ffff << 12) | u64::from(pscid) << 12;
        stage.put(ram, ta, new);
        self.new_process_tags(ram, self.devices[device].id);
    }

    /// The same for all processes of a device: by another SXL, or without a guest, their tables are others.
    pub(super) fn new_process_tags(&mut self, ram: &mut FlatMemory, device: u32) {
        let of_device = |s: &&Site| {
            s.kind == Kind::ProcessTable && s.process.is_some_and(|(id, _)| id == device)
        };
        let sites: Vec<Site> = self.sites.iter().filter(of_device).copied().collect();
        self.renamed_processes |= !sites.is_empty();
        for site in sites {
            self.new_process_tag(ram, &site);
        }
    }

    /// The same for a process, whose table is at `site`.
    fn new_process_tag(&mut self, ram: &mut FlatMemory, site: &Site) {
        self.retagged = true;
        let stage = site.stage();
        let id = self.fresh_id();
        let at = site.address - 8;
        let attributes = stage.get(ram, at) & !(0xf_ffff << 12);
        stage.put(ram, at, attributes | u64::from(id) << 12);
    }

    const fn word_stage(&self, big: bool) -> Stage {
        Stage {
            mode: 8,
            rv32: false,
            second: false,
            big,
            root: 0,
        }
    }

    /// Makes a spoiled entry what it was.
    fn mend(&mut self, ram: &mut FlatMemory) -> Vec<Command> {
        let Some((index, old)) = self.spoiled.pop() else {
            return Vec::new();
        };
        let site = self.sites[index];
        let stage = site.stage();
        let now = stage.get(ram, site.address);
        let mut value = old;
        // The tags stay new ones.
        match site.kind {
            Kind::Context { word: 1, .. } => value = old & !(0xffff << 44) | now & 0xffff << 44,
            Kind::Context { word: 2, .. } | Kind::ProcessAttributes => {
                value = old & !(0xf_ffff << 12) | now & 0xf_ffff << 12;
            }
            _ => {}
        }
        if let Kind::Context { device, .. } = site.kind {
            self.new_tags(ram, device);
            if matches!(site.kind, Kind::Context { word: 1 | 2, .. }) {
                let tags = stage.get(ram, site.address);
                value = match site.kind {
                    Kind::Context { word: 1, .. } => value & !(0xffff << 44) | tags & 0xffff << 44,
                    _ => value & !(0xf_ffff << 12) | tags & 0xf_ffff << 12,
                };
            }
        }
        if site.kind == Kind::ProcessTable {
            self.new_process_tag(ram, &site);
        }
        self.history.push(format!(
            "{:?} at {:#x}: mended, {value:#x}",
            site.kind, site.address
        ));
        stage.put(ram, site.address, value);
        self.commands_for(index, value | now)
    }

    /// Clears A, D or both of a leaf.
    fn clear_dirty(&mut self, ram: &mut FlatMemory) -> Vec<Command> {
        let leaves: Vec<usize> = (0..self.sites.len())
            .filter(|&i| matches!(self.sites[i].kind, Kind::FirstLeaf | Kind::SecondLeaf))
            .collect();
        let Some(index) = self.pick(&leaves) else {
            return Vec::new();
        };
        let bits = self
            .pick(&[pte::A, pte::D, pte::A | pte::D])
            .unwrap_or(pte::D);
        let site = self.sites[index];
        let stage = site.stage();
        let old = stage.get(ram, site.address);
        self.history.push(format!(
            "{:?} {:x?} at {:#x}: {old:#x} without {bits:#x}",
            site.kind, site.about, site.address
        ));
        stage.put(ram, site.address, old & !bits);
        self.commands_for(index, old)
    }

    /// Lets accesses to entries of one kind fail until the next change.
    fn fault(&mut self, ram: &mut FlatMemory) {
        let faults = [Injected::AccessFault, Injected::Poison, Injected::ReadOnly];
        let (Some(kind), Some(fault)) = (self.random_kind(), self.pick(&faults)) else {
            return;
        };
        // Few requests end in an interrupt file.
        let share = if kind == discriminant(&Kind::InterruptFile) {
            100
        } else {
            self.pick(&[5, 40]).unwrap_or(5)
        };
        for index in self.sites_of(kind) {
            if self.chance(share) {
                let site = self.sites[index];
                self.history
                    .push(format!("{:?} at {:#x}: {fault:?}", site.kind, site.address));
                ram.inject(site.address, fault);
            }
        }
    }

    /// What makes an IOMMU forget an entry that was or is `bits`.
    fn commands_for(&mut self, index: usize, bits: u64) -> Vec<Command> {
        let site = self.sites[index];
        let guests: Vec<u32> = self.gscids.clone();
        let first = |iova| {
            let mut commands = vec![vma(None, None, iova)];
            commands.extend(guests.iter().map(|&g| vma(Some(g), None, iova)));
            commands
        };
        let all_first = || first(None);
        match site.kind {
            Kind::Context { device, .. } if self.chance(50) => {
                vec![iodir(Some(self.devices[device].id))]
            }
            Kind::ProcessAttributes | Kind::ProcessTable if self.chance(70) => {
                let (device, process) = site.process.unwrap_or_default();
                let device = u64::from(device) << 40 | 1 << 33;
                if self.chance(50) {
                    vec![[3 | device, 0]]
                } else {
                    vec![[3 | 1 << 7 | device | u64::from(process) << 12, 0]]
                }
            }
            Kind::DirectoryPointer
            | Kind::Context { .. }
            | Kind::ProcessPointer
            | Kind::ProcessAttributes
            | Kind::ProcessTable => vec![iodir(None)],
            Kind::FirstLeaf if self.chance(60) => match site.about {
                Some((space, iova)) => {
                    let space = &self.spaces[space];
                    let gscid = space.vm.map(|vm| self.vms[vm].gscid);
                    let global = bits & pte::G != 0 || self.global_pointers;
                    let pscid = (!global).then_some(space.pscid);
                    // A device context that was spoiled has tags of its own for the same tables.
                    if self.retagged {
                        return first(Some(iova));
                    }
                    vec![vma(gscid, pscid, Some(iova))]
                }
                None => all_first(),
            },
            Kind::FirstLeaf | Kind::FirstPointer => all_first(),
            Kind::SecondPointer | Kind::SecondLeaf => self.forget_all(),
            Kind::MsiPte | Kind::MsiNotice | Kind::InterruptFile => vec![[1 | 1 << 7, 0]],
        }
    }
}
