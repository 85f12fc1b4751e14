//! IOTINVAL.VMA and IOTINVAL.GVMA: IOMMU §3.1.1.

use super::commands::is_illegal;
use super::spaces::{
    AV, FAR, GUESTS, GVMA, IOVA, LEVELS, OTHER, PAGE, SPACES, Setup, Space, VMA, gscid,
    name_a_guest_by_16_bits, one_of_each, page, pscid,
};
use crate::rig::Rig;
use crate::tables::pte;

/// A page in the same table as [`IOVA`].
const NEAR: u64 = IOVA ^ 0x1000;

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

#[test]
fn gvma_names_a_guest_by_16_bits() {
    name_a_guest_by_16_bits(false, 0, &[[GVMA, 0], [GVMA | AV, page(IOVA)]]);
    name_a_guest_by_16_bits(false, 2, &[[GVMA, 0]]);
}
