//! Address spaces, and what of them an IOTINVAL makes the IOMMU forget: for the tests of IOMMU
//! §3.1.1 and §8.
//!
//! The specification permits that more is forgotten than a command names. This IOMMU forgets no more
//! (rtl/iommu/README.md), which shows that it was held.

use crate::rig::{Context, Request, Rig, Ttyp, Vm};
use crate::tables::{SV57, pte};

pub const IOVA: u64 = 0x12_3456_7000;
pub const PAGE: u64 = 0x9_8765_4000;
/// Where a changed entry leads; aligned to the largest page.
pub const OTHER: u64 = 1 << 55;
/// An address that shares no table but the root with [`IOVA`].
pub const FAR: u64 = 0x35_2345_6789_8000;
pub const ALL: u64 = pte::ALL;
pub const LEVELS: u32 = 5;

pub const VMA: u64 = 1;
pub const GVMA: u64 = 1 | 1 << 7;
pub const AV: u64 = 1 << 10;

pub const fn pscid(id: u64) -> u64 {
    1 << 32 | id << 12
}
pub const fn gscid(id: u64) -> u64 {
    1 << 33 | id << 44
}
pub const fn page(addr: u64) -> u64 {
    addr >> 12 << 10
}

/// An address space with one stage or both, in which [`IOVA`] is [`PAGE`].
pub struct Space {
    pub device: u32,
    /// 0: of the host.
    pub gscid: u64,
    pub pscid: u64,
    pub vm: Vm,
}

/// GSCID and PSCID of spaces with a first stage.
pub const SPACES: [(u64, u64); 5] = [(0, 5), (0, 6), (7, 5), (7, 6), (8, 5)];
/// Guests without a first stage.
pub const GUESTS: [(u64, u64); 2] = [(7, 0), (8, 0)];

pub struct Setup {
    pub rig: Rig,
    pub spaces: Vec<Space>,
}

impl Setup {
    /// Of these spaces, which have a first stage or not.
    pub fn new(ids: &[(u64, u64)], first: bool) -> Self {
        let mut rig = Rig::new(45);
        let ddt = rig.directory(&[], Context::default());
        let mut spaces = Vec::new();
        for (device, &(gscid, pscid)) in (1..).zip(ids) {
            let mode = |used| if used { SV57 } else { 0 };
            let mut vm = Vm::new(&mut rig, mode(first), mode(gscid != 0));
            if first {
                vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, ALL));
            } else {
                vm.map_second(&mut rig, IOVA, 0, pte::at(PAGE, ALL));
            }
            if first && gscid != 0 {
                vm.map_second(&mut rig, PAGE, 0, pte::at(PAGE, ALL));
                vm.map_second(&mut rig, OTHER, LEVELS - 1, pte::at(OTHER, ALL));
            }
            let context = Context {
                iohgatp: vm.iohgatp(gscid),
                ta: pscid << 12,
                ..Context::of(&vm)
            };
            rig.set_context(ddt, device, context);
            spaces.push(Space {
                device,
                gscid,
                pscid,
                vm,
            });
        }
        Self { rig, spaces }
    }

    /// Address of an entry of a space: of its first stage, or the second if it has no other.
    pub fn entry(&mut self, space: usize, iova: u64, level: u32) -> u64 {
        let vm = &mut self.spaces[space].vm;
        if vm.first.is_none() {
            return vm.second_entry(&mut self.rig, iova, level);
        }
        let entry = vm.first_entry(&mut self.rig, iova, level);
        vm.physical(entry)
    }

    pub fn translate(&mut self, space: usize, iova: u64) -> u64 {
        let device = self.spaces[space].device;
        let request = Request::new(Ttyp::UntransRd, device, iova);
        self.rig.translate(request).spa
    }

    /// Makes all mappings of the first stages global.
    pub fn make_global(&mut self) {
        for space in 0..self.spaces.len() {
            for level in 0..LEVELS {
                let entry = self.entry(space, IOVA, level);
                let old = self.rig.load(entry);
                self.rig.store(entry, old | pte::G);
            }
        }
    }

    /// Whether an entry on the way to [`IOVA`] that becomes a leaf is seen after the command.
    pub fn sees(&mut self, space: usize, level: u32, command: [u64; 2]) -> bool {
        let entry = self.entry(space, IOVA, level);
        let old = self.rig.load(entry);
        self.rig.forget();
        assert_eq!(self.translate(space, IOVA), PAGE);
        self.rig.store(entry, pte::at(OTHER, ALL));
        self.rig.sync(&[command]);
        let spa = self.translate(space, IOVA);
        self.rig.store(entry, old);
        let changed = OTHER | IOVA & ((1 << (12 + 9 * level)) - 1);
        assert!([PAGE, changed].contains(&spa), "{spa:#x}");
        spa == changed
    }

    /// In the spaces that are named all levels are dropped, in the others none.
    pub fn drops_all_levels(&mut self, command: [u64; 2], named: impl Fn(&Space) -> bool) {
        for space in 0..self.spaces.len() {
            let expected = named(&self.spaces[space]);
            for level in 0..LEVELS {
                let seen = self.sees(space, level, command);
                assert_eq!(seen, expected, "{command:x?}: {space}, level {level}");
            }
        }
    }

    /// In the spaces that are named leaves alone are dropped.
    pub fn drops_leaves(&mut self, command: [u64; 2], named: impl Fn(&Space) -> bool) {
        for space in 0..self.spaces.len() {
            let expected = named(&self.spaces[space]);
            for level in 0..LEVELS {
                let seen = self.sees(space, level, command);
                assert_eq!(seen, expected && level == 0, "{command:x?}: {space}");
            }
        }
    }

    /// Of pages that change, those that are seen after the command.
    pub fn seen(&mut self, space: usize, pages: &[u64], command: [u64; 2]) -> Vec<u64> {
        let entries: Vec<u64> = pages.iter().map(|&p| self.entry(space, p, 0)).collect();
        for &entry in &entries {
            self.rig.store(entry, pte::at(PAGE, ALL));
        }
        self.rig.forget();
        for &page in pages {
            assert_eq!(self.translate(space, page), PAGE);
        }
        for &entry in &entries {
            self.rig.store(entry, pte::at(OTHER, ALL));
        }
        self.rig.sync(&[command]);
        let spas: Vec<u64> = pages.iter().map(|&p| self.translate(space, p)).collect();
        assert!(spas.iter().all(|spa| [PAGE, OTHER].contains(spa)));
        let seen = pages.iter().zip(spas).filter(|(_, spa)| *spa == OTHER);
        seen.map(|(&page, _)| page).collect()
    }
}

/// A host's space for IOTINVAL.VMA, and a guest for GVMA, with the command that names each.
pub fn one_of_each() -> [(Setup, u64); 2] {
    [
        (Setup::new(&SPACES[..1], true), VMA),
        (Setup::new(&GUESTS[..1], false), GVMA | gscid(7)),
    ]
}

/// The commands, whose GSCID is still to come, make the IOMMU forget an entry on the way to [`IOVA`]
/// of a guest whose GSCID has one bit, whichever that is; not if their GSCID differs in a bit.
pub fn name_a_guest_by_16_bits(first: bool, level: u32, commands: &[[u64; 2]]) {
    let changed = OTHER | IOVA & ((1 << (12 + 9 * level)) - 1);
    for bit in 0..16 {
        let id = 1 << bit;
        let mut s = Setup::new(&[(id, 5)], first);
        let entry = s.entry(0, IOVA, level);
        let old = s.rig.load(entry);
        for &[operands, addr] in commands {
            let of = |id| [operands | gscid(id), addr];
            s.rig.store(entry, old);
            s.rig.sync(&[[VMA | gscid(id), 0], [GVMA, 0]]);
            assert_eq!(s.translate(0, IOVA), PAGE);
            s.rig.store(entry, pte::at(OTHER, ALL));
            let others: Vec<[u64; 2]> = (0..16).map(|other| of(id ^ 1 << other)).collect();
            s.rig.sync(&others);
            assert_eq!(s.translate(0, IOVA), PAGE, "{operands:#x}: {bit}");
            s.rig.sync(&[of(id)]);
            assert_eq!(s.translate(0, IOVA), changed, "{operands:#x}: {bit}");
        }
    }
}
