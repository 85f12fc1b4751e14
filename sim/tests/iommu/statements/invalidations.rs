//! IOTINVAL.VMA and IOTINVAL.GVMA: IOMMU §3.1.1.

use super::commands::is_illegal;
use super::spaces::{
    ALL, AV, FAR, GUESTS, GVMA, IOVA, LEVELS, OTHER, PAGE, SPACES, Setup, Space, VMA, gscid,
    name_a_guest_by_16_bits, one_of_each, page, pscid,
};
use crate::rig::{Context, Request, Rig, Ttyp, Vm};
use crate::tables::{SV57, pte};

/// A page in the same table as [`IOVA`].
const NEAR: u64 = IOVA ^ 0x1000;
/// Non-leaf entries, too (§8.2).
const NL: u64 = 1 << 34;

fn of_host(space: &Space) -> bool {
    space.gscid == 0
}

fn of_guest(space: &Space) -> bool {
    space.gscid == 7
}

#[test]
fn pscv_is_illegal_for_gvma() {
    let mut rig = Rig::new(51);
    for bits in [0, AV, gscid(7), gscid(7) | AV] {
        for id in [0, 5] {
            let second = page(IOVA);
            assert!(is_illegal(&mut rig, [GVMA | bits | pscid(id), second]));
            assert!(!is_illegal(&mut rig, [GVMA | bits, second]));
            assert!(!is_illegal(&mut rig, [VMA | bits | pscid(id), second]));
        }
    }
}

#[test]
fn without_gv_vma_is_of_the_host() {
    let mut s = Setup::new(&SPACES, true);
    let of_host_5 = |s: &Space| of_host(s) && s.pscid == 5;
    s.drops_all_levels([VMA, 0], of_host);
    s.drops_all_levels([VMA | pscid(5), 0], of_host_5);
    s.drops_leaves([VMA | AV, page(IOVA)], of_host);
    s.drops_leaves([VMA | AV | pscid(5), page(IOVA)], of_host_5);
}

/// A GSCID beside a second stage that is Bare makes no guest, and 0 is that of a guest as any other.
#[test]
fn the_host_is_what_has_no_second_stage() {
    let mut rig = Rig::new(52);
    let ddt = rig.directory(&[], Context::default());
    let spaces = [(1, 0, 7), (2, SV57, 0)].map(|(device, second, id)| {
        let mut vm = Vm::new(&mut rig, SV57, second);
        vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, ALL));
        if second != 0 {
            vm.map_second(&mut rig, PAGE, 0, pte::at(PAGE, ALL));
            vm.map_second(&mut rig, OTHER, LEVELS - 1, pte::at(OTHER, ALL));
        }
        let context = Context {
            iohgatp: vm.iohgatp(0) | id << 44,
            ..Context::of(&vm)
        };
        rig.set_context(ddt, device, context);
        Space {
            device,
            gscid: id,
            pscid: 5,
            vm,
        }
    });
    let mut s = Setup {
        rig,
        spaces: spaces.into(),
    };
    let all = [[VMA, 0], [VMA | gscid(0), 0], [GVMA, 0]];
    for level in [0, 2] {
        let changed = OTHER | IOVA & ((1 << (12 + 9 * level)) - 1);
        for (command, named) in [
            (all[0], [true, false]),
            (all[1], [false, true]),
            ([VMA | gscid(7), 0], [false, false]),
        ] {
            for (space, seen) in named.into_iter().enumerate() {
                let entry = s.entry(space, IOVA, level);
                let old = s.rig.load(entry);
                s.rig.sync(&all);
                assert_eq!(s.translate(space, IOVA), PAGE);
                s.rig.store(entry, pte::at(OTHER, ALL));
                s.rig.sync(&[command]);
                let expected = if seen { changed } else { PAGE };
                assert_eq!(s.translate(space, IOVA), expected, "{command:x?}: {space}");
                s.rig.store(entry, old);
            }
        }
    }
    // The second stage of guest 0.
    let entry = s.spaces[1].vm.second_entry(&mut s.rig, PAGE, 0);
    for (command, seen) in [
        ([GVMA, 0], true),
        ([GVMA | gscid(0), 0], true),
        ([GVMA | gscid(0) | AV, page(PAGE)], true),
        ([GVMA | gscid(7), 0], false),
    ] {
        s.rig.store(entry, pte::at(PAGE, ALL));
        s.rig.sync(&all);
        assert_eq!(s.translate(1, IOVA), PAGE);
        s.rig.store(entry, pte::at(OTHER, ALL));
        s.rig.sync(&[command]);
        let expected = if seen { OTHER } else { PAGE };
        assert_eq!(s.translate(1, IOVA), expected, "{command:x?}");
    }
}

#[test]
fn without_gv_gscid_is_ignored() {
    let mut spaces = Setup::new(&SPACES, true);
    let mut guests = Setup::new(&GUESTS, false);
    for id in [7, 8, 0xffff] {
        let id = id << 44;
        spaces.drops_all_levels([VMA | id, 0], of_host);
        spaces.drops_leaves([VMA | AV | id, page(IOVA)], of_host);
        guests.drops_all_levels([GVMA | id, 0], |_| true);
    }
    spaces.drops_all_levels([VMA | gscid(7), 0], of_guest);
    guests.drops_all_levels([GVMA | gscid(7), 0], of_guest);
}

#[test]
fn without_av_addr_is_ignored() {
    let mut spaces = Setup::new(&SPACES, true);
    let mut guests = Setup::new(&GUESTS, false);
    for second in [page(IOVA), page(FAR), page(!0)] {
        spaces.drops_all_levels([VMA, second], of_host);
        spaces.drops_all_levels([VMA | gscid(7), second], of_guest);
        guests.drops_all_levels([GVMA | gscid(7), second], of_guest);
    }
    spaces.drops_leaves([VMA | AV, page(FAR)], |_| false);
    guests.drops_leaves([GVMA | gscid(7) | AV, page(FAR)], |_| false);
}

#[test]
fn without_pscv_pscid_is_ignored() {
    let mut spaces = Setup::new(&SPACES, true);
    let mut guests = Setup::new(&GUESTS, false);
    for id in [5, 6, 0xf_ffff] {
        let id = id << 12;
        spaces.drops_all_levels([VMA | id, 0], of_host);
        spaces.drops_leaves([VMA | AV | id, page(IOVA)], of_host);
        spaces.drops_all_levels([VMA | gscid(7) | id, 0], of_guest);
        guests.drops_all_levels([GVMA | gscid(7) | id, 0], of_guest);
    }
    spaces.drops_all_levels([VMA | pscid(6), 0], |s| of_host(s) && s.pscid == 6);
}

/// IOTINVAL.VMA with GV, AV and PSCV names the spaces of guest 7 or of the host, of all processes or
/// of process 5. Of them it drops everything or, with an address, leaves; what is global too, unless
/// it names a process.
fn vma(gv: bool, av: bool, pscv: bool) {
    let operand = |used, bits| if used { bits } else { 0 };
    let first = VMA | operand(gv, gscid(7)) | operand(av, AV) | operand(pscv, pscid(5));
    let guest = operand(gv, 7);
    let named = |s: &Space| s.gscid == guest && (!pscv || s.pscid == 5);
    let mut s = Setup::new(&SPACES, true);
    for global in [false, true] {
        if global && pscv {
            break;
        }
        if global {
            s.make_global();
        }
        if av {
            s.drops_leaves([first, page(IOVA)], named);
            s.drops_leaves([first, page(NEAR)], |_| false);
            s.drops_leaves([first, page(FAR)], |_| false);
        } else {
            s.drops_all_levels([first, 0], named);
        }
    }
}

#[test]
fn vma_of_all_of_the_host() {
    vma(false, false, false);
}

#[test]
fn vma_of_a_host_space() {
    vma(false, false, true);
}

#[test]
fn vma_of_an_address_in_all_host_spaces() {
    vma(false, true, false);
}

#[test]
fn vma_of_an_address_in_a_host_space() {
    vma(false, true, true);
}

#[test]
fn vma_of_all_of_a_guest() {
    vma(true, false, false);
}

#[test]
fn vma_of_a_space_of_a_guest() {
    vma(true, false, true);
}

#[test]
fn vma_of_an_address_in_all_spaces_of_a_guest() {
    vma(true, true, false);
}

#[test]
fn vma_of_an_address_in_a_space_of_a_guest() {
    vma(true, true, true);
}

#[test]
fn vma_names_a_guest_by_16_bits() {
    let all = [[VMA, 0], [VMA | pscid(5), 0]];
    let leaves = all.map(|[operands, _]| [operands | AV, page(IOVA)]);
    name_a_guest_by_16_bits(true, 0, &[all, leaves].concat());
    name_a_guest_by_16_bits(true, 2, &all);
}

/// Of two pages whose addresses differ in one bit, or in those of the sign, that which is named.
#[test]
fn an_address_is_named_by_all_of_its_bits() {
    let negative = vec![IOVA | !0 << 56];
    let beyond_sv57 = (56..59).map(|bit| IOVA ^ 1 << bit).collect();
    for ((mut s, kind), high) in one_of_each().into_iter().zip([negative, beyond_sv57]) {
        let low = (12..56).map(|bit| IOVA ^ 1 << bit);
        for other in low.chain(high) {
            for pages in [[IOVA, other], [other, IOVA]] {
                let seen = s.seen(0, &pages, [kind | AV, page(pages[0])]);
                assert_eq!(seen, [pages[0]], "{pages:x?}");
            }
        }
    }
}

/// Both ends of a page, NAPOT at level 0, are one translation; what is beside it is another.
#[test]
fn an_address_in_a_large_page_names_all_of_it() {
    const BEFORE: u64 = 1 << 54;
    for (mut s, kind) in one_of_each() {
        for level in 0..LEVELS {
            let size = if level == 0 {
                1 << 16
            } else {
                1 << (12 + 9 * level)
            };
            let [first, last] = [IOVA & !(size - 1), IOVA | (size - 0x1000)];
            let leaf = |to| match level {
                0 => pte::at(to + size / 2, pte::ALL | pte::N),
                _ => pte::at(to, pte::ALL),
            };
            let entry = s.entry(0, first, level);
            let entries = if level == 0 { 16 } else { 1 };
            let set = |rig: &mut Rig, to| {
                for i in 0..entries {
                    rig.store(entry + 8 * i, leaf(to));
                }
            };
            let old: Vec<u64> = (0..entries).map(|i| s.rig.load(entry + 8 * i)).collect();
            for (held, named) in [(first, last), (last, first), (first, first), (last, last)] {
                let offset = held & (size - 1);
                set(&mut s.rig, BEFORE);
                s.rig.forget();
                assert_eq!(s.translate(0, held), BEFORE | offset);
                set(&mut s.rig, OTHER);
                s.rig.sync(&[[kind | AV, page(named ^ size)]]);
                assert_eq!(s.translate(0, held), BEFORE | offset, "level {level}");
                s.rig.sync(&[[kind | AV, page(named)]]);
                assert_eq!(s.translate(0, held), OTHER | offset, "level {level}");
            }
            for (i, value) in (0..).zip(old) {
                s.rig.store(entry + 8 * i, value);
            }
        }
    }
}

/// A page has become larger, and a part of it was held before (§3.1.1, last note): that is as it was or
/// as it is, address and memory type, until it is named. An answer has nothing of both.
#[test]
fn a_page_that_has_grown_is_the_old_or_the_new_one() {
    for (mut s, kind) in one_of_each() {
        let [small, large] = [0, 1].map(|level| s.entry(0, IOVA, level));
        let read = |rig: &mut Rig, at: u64| {
            let answer = rig.translate(Request::new(Ttyp::UntransRd, 1, at));
            (answer.spa, answer.pbmt)
        };
        let new = |at: u64| (OTHER | at & 0x1f_ffff, 2);
        s.rig.store(small, pte::at(PAGE, ALL | 1 << pte::PBMT));
        s.rig.forget();
        assert_eq!(read(&mut s.rig, IOVA), (PAGE, 1));
        s.rig.store(large, pte::at(OTHER, ALL | 2 << pte::PBMT));
        // The table goes, and the large page is held beside its part.
        s.rig.sync(&[[kind | AV | NL, page(NEAR)]]);
        assert_eq!(read(&mut s.rig, NEAR), new(NEAR));
        for _ in 0..2 {
            let answer = read(&mut s.rig, IOVA);
            assert!([(PAGE, 1), new(IOVA)].contains(&answer), "{answer:x?}");
        }
        s.rig.sync(&[[kind | AV, page(IOVA)]]);
        for at in [IOVA, NEAR] {
            assert_eq!(read(&mut s.rig, at), new(at));
        }
    }
}

#[test]
fn gvma_of_a_guest_address() {
    let named = GVMA | gscid(7) | AV;
    let mut s = Setup::new(&GUESTS, false);
    s.drops_leaves([named, page(IOVA)], of_guest);
    s.drops_leaves([named, page(NEAR)], |_| false);
    s.drops_leaves([named, page(FAR)], |_| false);
    // With a first stage: its result, not what the device has asked for.
    let mut s = Setup::new(&[(7, 5)], true);
    let vm = &mut s.spaces[0].vm;
    let entry = vm.second_entry(&mut s.rig, PAGE, 0);
    for (command, seen) in [
        ([named, page(PAGE)], true),
        ([named, page(IOVA)], false),
        ([GVMA | gscid(8) | AV, page(PAGE)], false),
    ] {
        s.rig.store(entry, pte::at(PAGE, pte::ALL));
        s.rig.forget();
        assert_eq!(s.translate(0, IOVA), PAGE);
        s.rig.store(entry, pte::at(OTHER, pte::ALL));
        s.rig.sync(&[command]);
        assert_eq!(s.translate(0, IOVA), if seen { OTHER } else { PAGE });
    }
}

/// The second stage is used for the tables of the first, too: by their guest addresses they are named.
#[test]
fn gvma_of_a_table_of_the_first_stage() {
    let mut s = Setup::new(&[(7, 5)], true);
    let guest = GVMA | gscid(7);
    for level in 0..LEVELS {
        let vm = &mut s.spaces[0].vm;
        let at = vm.first_entry(&mut s.rig, IOVA, level);
        let table = at & !0xfff;
        let old = vm.physical(table);
        let entry = vm.second_entry(&mut s.rig, table, 0);
        // In the new page the entry is a leaf.
        let new = s.rig.page();
        s.rig.store(new | at & 0xfff, pte::at(OTHER, ALL));
        let changed = OTHER | IOVA & ((1 << (12 + 9 * level)) - 1);
        for (command, seen) in [
            ([guest | AV, page(table)], true),
            ([guest, 0], true),
            ([GVMA, 0], true),
            ([guest | AV, page(IOVA)], false),
            ([GVMA | gscid(8) | AV, page(table)], false),
        ] {
            s.rig.store(entry, pte::at(old, ALL));
            s.rig.forget();
            assert_eq!(s.translate(0, IOVA), PAGE);
            s.rig.store(entry, pte::at(new, ALL));
            // The entries of the first stage must go in any case.
            s.rig.sync(&[command, [VMA | gscid(7), 0]]);
            let expected = if seen { changed } else { PAGE };
            assert_eq!(s.translate(0, IOVA), expected, "{command:x?}, {level}");
        }
        s.rig.store(entry, pte::at(old, ALL));
    }
}

#[test]
fn gvma_names_a_guest_by_16_bits() {
    name_a_guest_by_16_bits(false, 0, &[[GVMA, 0], [GVMA | AV, page(IOVA)]]);
    name_a_guest_by_16_bits(false, 2, &[[GVMA, 0]]);
}
