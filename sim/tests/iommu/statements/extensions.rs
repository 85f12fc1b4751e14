//! Invalidation of non-leaf entries (NL) and of ranges (S): IOMMU §8.2, §8.3.
//!
//! The extensions permit that more is forgotten than a command names. This IOMMU forgets no more
//! (rtl/iommu/README.md), which shows that it was held.

use crate::bench::reg;
use crate::rig::{Context, Request, Rig, Ttyp, Vm};
use crate::tables::{SV57, pte};

const IOVA: u64 = 0x12_3456_7000;
const PAGE: u64 = 0x9_8765_4000;
/// Where a changed entry leads; aligned to the largest page.
const OTHER: u64 = 1 << 55;
/// An address that shares no table but the root with [`IOVA`].
const FAR: u64 = 0x35_2345_6789_8000;
const ALL: u64 = pte::ALL;
const LEVELS: u32 = 5;

const VMA: u64 = 1;
const GVMA: u64 = 1 | 1 << 7;
const AV: u64 = 1 << 10;
const NL: u64 = 1 << 34;
/// In the second doubleword.
const S: u64 = 1 << 9;

const fn pscid(id: u64) -> u64 {
    1 << 32 | id << 12
}
const fn gscid(id: u64) -> u64 {
    1 << 33 | id << 44
}
const fn page(addr: u64) -> u64 {
    addr >> 12 << 10
}
/// The range of 2^(X + 1) pages at `addr`.
const fn range(addr: u64, x: u32) -> u64 {
    (addr >> 12 | ((1 << x) - 1)) << 10 | S
}

/// An address space with one stage or both, in which [`IOVA`] is [`PAGE`].
struct Space {
    device: u32,
    /// 0: of the host.
    gscid: u64,
    pscid: u64,
    vm: Vm,
}

/// GSCID and PSCID of spaces with a first stage.
const SPACES: [(u64, u64); 5] = [(0, 5), (0, 6), (7, 5), (7, 6), (8, 5)];
/// Guests without a first stage.
const GUESTS: [(u64, u64); 2] = [(7, 0), (8, 0)];

struct Setup {
    rig: Rig,
    spaces: Vec<Space>,
}

impl Setup {
    /// Of these spaces, which have a first stage or not.
    fn new(ids: &[(u64, u64)], first: bool) -> Self {
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
    fn entry(&mut self, space: usize, iova: u64, level: u32) -> u64 {
        let vm = &mut self.spaces[space].vm;
        if vm.first.is_none() {
            return vm.second_entry(&mut self.rig, iova, level);
        }
        let entry = vm.first_entry(&mut self.rig, iova, level);
        vm.physical(entry)
    }

    fn translate(&mut self, space: usize, iova: u64) -> u64 {
        let device = self.spaces[space].device;
        let request = Request::new(Ttyp::UntransRd, device, iova);
        self.rig.translate(request).spa
    }

    /// Whether an entry on the way to [`IOVA`] that becomes a leaf is seen after the command.
    fn sees(&mut self, space: usize, level: u32, command: [u64; 2]) -> bool {
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
    fn drops_all_levels(&mut self, command: [u64; 2], named: impl Fn(&Space) -> bool) {
        for space in 0..self.spaces.len() {
            let expected = named(&self.spaces[space]);
            for level in 0..LEVELS {
                let seen = self.sees(space, level, command);
                assert_eq!(seen, expected, "{command:x?}: {space}, level {level}");
            }
        }
    }

    /// In the spaces that are named leaves alone are dropped.
    fn drops_leaves(&mut self, command: [u64; 2], named: impl Fn(&Space) -> bool) {
        for space in 0..self.spaces.len() {
            let expected = named(&self.spaces[space]);
            for level in 0..LEVELS {
                let seen = self.sees(space, level, command);
                assert_eq!(seen, expected && level == 0, "{command:x?}: {space}");
            }
        }
    }

    /// Of pages that change, those that are seen after the command.
    fn seen(&mut self, space: usize, pages: &[u64], command: [u64; 2]) -> Vec<u64> {
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
fn one_of_each() -> [(Setup, u64); 2] {
    [
        (Setup::new(&SPACES[..1], true), VMA),
        (Setup::new(&GUESTS[..1], false), GVMA | gscid(7)),
    ]
}

#[test]
fn nl_is_bit_34_if_capable() {
    for (mut s, kind) in one_of_each() {
        assert_eq!(s.rig.read(reg::CAPABILITIES, 8) >> 42 & 1, 1);
        s.drops_all_levels([kind | AV | 1 << 34, page(IOVA)], |_| true);
        s.drops_leaves([kind | AV, page(IOVA)], |_| true);
    }
    assert_eq!(Rig::minimal(45).read(reg::CAPABILITIES, 8) >> 42 & 1, 0);
}

#[test]
fn vma_without_av_ignores_nl() {
    let mut s = Setup::new(&SPACES, true);
    let of_host = |s: &Space| s.gscid == 0;
    let of_guest = |s: &Space| s.gscid == 7;
    for second in [page(IOVA), page(FAR)] {
        for nl in [0, NL] {
            s.drops_all_levels([VMA | nl, second], of_host);
            s.drops_all_levels([VMA | nl | pscid(5), second], |s| {
                of_host(s) && s.pscid == 5
            });
            s.drops_all_levels([VMA | nl | gscid(7), second], of_guest);
            s.drops_all_levels([VMA | nl | gscid(7) | pscid(5), second], |s| {
                of_guest(s) && s.pscid == 5
            });
        }
    }
}

/// Entries of global mappings too.
#[test]
fn vma_with_nl_of_the_host() {
    let mut s = Setup::new(&SPACES, true);
    let of_host = |s: &Space| s.gscid == 0;
    for global in [0, pte::G] {
        for space in 0..SPACES.len() {
            for level in 0..LEVELS {
                let entry = s.entry(space, IOVA, level);
                let old = s.rig.load(entry);
                s.rig.store(entry, old | global);
            }
        }
        s.drops_all_levels([VMA | AV | NL, page(IOVA)], of_host);
        s.drops_leaves([VMA | AV, page(IOVA)], of_host);
        s.drops_leaves([VMA | AV | NL, page(FAR)], |_| false);
    }
}

#[test]
fn vma_with_nl_of_one_host_space() {
    let mut s = Setup::new(&SPACES, true);
    let named = |s: &Space| (s.gscid, s.pscid) == (0, 5);
    s.drops_all_levels([VMA | AV | NL | pscid(5), page(IOVA)], named);
    s.drops_leaves([VMA | AV | pscid(5), page(IOVA)], named);
    s.drops_leaves([VMA | AV | NL | pscid(5), page(FAR)], |_| false);
}

#[test]
fn vma_with_nl_of_one_guest_space() {
    let mut s = Setup::new(&SPACES, true);
    let named = |s: &Space| (s.gscid, s.pscid) == (7, 5);
    let kind = VMA | AV | gscid(7) | pscid(5);
    s.drops_all_levels([kind | NL, page(IOVA)], named);
    s.drops_leaves([kind, page(IOVA)], named);
    s.drops_leaves([kind | NL, page(FAR)], |_| false);
}

#[test]
fn gvma_of_all_guests_ignores_av_and_nl() {
    let mut s = Setup::new(&GUESTS, false);
    for second in [page(IOVA), page(FAR)] {
        for bits in [0, AV, NL, AV | NL] {
            s.drops_all_levels([GVMA | bits, second], |_| true);
        }
    }
    // Of one guest they count.
    s.drops_leaves([GVMA | gscid(7) | AV | NL, page(FAR)], |_| false);
}

#[test]
fn gvma_without_av_ignores_nl() {
    let mut s = Setup::new(&GUESTS, false);
    for second in [page(IOVA), page(FAR)] {
        for nl in [0, NL] {
            s.drops_all_levels([GVMA | gscid(7) | nl, second], |s| s.gscid == 7);
        }
    }
}

#[test]
fn s_is_bit_73_if_capable() {
    for (mut s, kind) in one_of_each() {
        assert_eq!(s.rig.read(reg::CAPABILITIES, 8) >> 43 & 1, 1);
        // ADDR is the fourth page of eight.
        let pages = [0, 3, 7].map(|n| 0x5_0000 + (n << 12));
        let addr = page(pages[1]);
        assert_eq!(s.seen(0, &pages, [kind | AV, addr | 1 << 9]), pages);
        assert_eq!(s.seen(0, &pages, [kind | AV, addr]), [pages[1]]);
    }
    assert_eq!(Rig::minimal(45).read(reg::CAPABILITIES, 8) >> 43 & 1, 0);
}

#[test]
fn gvma_of_all_guests_ignores_av_and_s() {
    let mut s = Setup::new(&GUESTS, false);
    for second in [page(FAR), range(FAR, 0), range(FAR, 1)] {
        for av in [0, AV] {
            s.drops_all_levels([GVMA | av, second], |_| true);
        }
    }
    s.drops_leaves([GVMA | gscid(7) | AV, range(FAR, 1)], |_| false);
}

#[test]
fn without_av_s_is_ignored() {
    for (mut s, kind) in one_of_each() {
        for second in [page(FAR), range(FAR, 0), range(FAR, 1)] {
            s.drops_all_levels([kind, second], |_| true);
            s.drops_leaves([kind | AV, second], |_| false);
        }
    }
}

/// The first and the last page of the range, and the pages beside them.
fn range_of(x: u32) {
    for (mut s, kind) in one_of_each() {
        let size = 0x2000 << x;
        let [before, first, last, after] = [size - 0x1000, size, 2 * size - 0x1000, 2 * size];
        let pages = [before, first, last, after];
        let seen = s.seen(0, &pages, [kind | AV, range(first, x)]);
        assert_eq!(seen, [first, last], "X {x}");
    }
}

#[test]
fn the_lowest_0_of_addr_says_the_size() {
    for x in 1..42 {
        range_of(x);
    }
}

#[test]
fn the_smallest_range_has_8_kib() {
    range_of(0);
}

#[test]
fn the_largest_range_is_everything() {
    let addr = (1 << 51) - 1;
    let low = [0x1000, IOVA, FAR, 1 << 55];
    // The highest addresses: negative ones of Sv57, 59 bits of Sv57x4.
    for ((mut s, kind), high) in one_of_each().into_iter().zip([!0xfff, (1 << 59) - 0x1000]) {
        let pages = [&low[..], &[high]].concat();
        assert_eq!(s.seen(0, &pages, [kind | AV, addr << 10 | S]), pages);
        assert_eq!(s.seen(0, &low, [kind | AV, addr << 10]), []);
    }
}
