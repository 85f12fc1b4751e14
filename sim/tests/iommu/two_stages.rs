//! Second stage, nested walks, RV32 schemes, and what both stages have in common (IOMMU §2.3 steps
//! 17 and 19, privileged specification "Two-Stage Address Translation").

use crate::bench::reg;
use crate::rig::{Access, Context, Request, Rig, Ttyp, Vm, implicit};
use crate::tables::{SV39, SV48, SV57, pte};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const ALL: u64 = pte::ALL;

fn read(iova: u64) -> Request {
    Request::new(Ttyp::UntransRd, DEVICE, iova)
}

/// Untranslated accesses with their page faults, guest page faults and access faults.
const KINDS: [(Ttyp, u64, u64, u64); 3] = [
    (Ttyp::UntransRd, 13, 21, 5),
    (Ttyp::UntransWr, 15, 23, 7),
    (Ttyp::UntransRx, 12, 20, 1),
];

/// Both stages, [`IOVA`] to [`GPA`] to [`PAGE`].
fn nested(first: u64, second: u64) -> (Rig, Vm) {
    let mut rig = Rig::new(1);
    let mut vm = Vm::new(&mut rig, first, second);
    if first != 0 {
        vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL));
    }
    vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, ALL));
    rig.directory(&[DEVICE], Context::of(&vm));
    (rig, vm)
}

fn reads(rig: &Rig) -> usize {
    rig.accesses.iter().filter(|a| a.op == 0).count()
}

#[test]
fn every_pair_of_schemes() {
    for first in [0, SV39, SV48, SV57] {
        for second in [0, SV39, SV48, SV57] {
            let mut rig = Rig::new(first + 16 * second);
            let mut vm = Vm::new(&mut rig, first, second);
            let gpa = if first == 0 { IOVA } else { GPA };
            let spa = if second == 0 { gpa } else { PAGE };
            if first != 0 {
                vm.map_first(&mut rig, IOVA, 0, pte::at(gpa, ALL));
            }
            if second != 0 {
                vm.map_second(&mut rig, gpa, 0, pte::at(spa, ALL));
            }
            rig.directory(&[DEVICE], Context::of(&vm));
            for (ttyp, ..) in KINDS {
                let answer = rig.translate(Request::new(ttyp, DEVICE, IOVA + 0x123));
                assert_eq!(answer.spa, spa + 0x123);
                let size = if first == 0 && second == 0 {
                    1 << 21
                } else {
                    4096
                };
                assert_eq!(answer.size, size);
            }
            assert_eq!(reads(&rig), 0, "held");
        }
    }
}

/// Entries that are read. Without caches a nested walk reads (levels + 1)^2 - 1; the guest's own
/// tables are in one part of its addresses, whose second-stage tables are found once.
#[test]
fn a_nested_walk_reads_no_more_than_it_must() {
    for (mode, levels) in [(SV39, 3), (SV48, 4), (SV57, 5)] {
        let (mut rig, mut vm) = nested(mode, mode);
        vm.map_first(&mut rig, IOVA + 0x1000, 0, pte::at(GPA + 0x1000, ALL));
        vm.map_second(&mut rig, GPA + 0x1000, 0, pte::at(PAGE + 0x1000, ALL));
        rig.translate(read(IOVA));
        // The device context; the first stage; the tables of the second stage for its root, one
        // entry for each of its other tables, and the way to the page, below what both share.
        assert_eq!(reads(&rig), 1 + levels + levels + (levels - 1) + 3);
        rig.translate(read(IOVA));
        assert_eq!(reads(&rig), 0);
        // The next page: a leaf of each stage.
        assert_eq!(rig.translate(read(IOVA + 0x1000)).spa, PAGE + 0x1000);
        assert_eq!(reads(&rig), 2);
    }
}

#[test]
fn page_sizes_of_both_stages() {
    for first in 0..3 {
        for second in 0..3 {
            let mut rig = Rig::new(2);
            let mut vm = Vm::new(&mut rig, SV39, SV39);
            let sizes = [1 << 12, 1 << 21, 1 << 30];
            let (iova, gpa, spa) = (0x7 << 30, 0xb << 30, 0x1d << 30);
            vm.map_first(&mut rig, iova, first, pte::at(gpa, ALL));
            vm.map_second(&mut rig, gpa, second, pte::at(spa, ALL));
            rig.directory(&[DEVICE], Context::of(&vm));
            let size: u64 = sizes[first.min(second) as usize];
            for at in [0, size - 8, size / 2] {
                let answer = rig.translate(read(iova + at));
                assert_eq!((answer.spa, answer.size), (spa + at, size));
            }
        }
    }
}

#[test]
fn napot_in_both_stages() {
    let (mut rig, mut vm) = nested(SV39, SV39);
    let (iova, gpa, spa) = (0x3_0000, 0x4_0005_0000, 0x5_0009_0000);
    for i in 0..16 {
        vm.map_first(
            &mut rig,
            iova + (i << 12),
            0,
            pte::at(gpa + 0x8000, ALL | pte::N),
        );
        vm.map_second(
            &mut rig,
            gpa + (i << 12),
            0,
            pte::at(spa + 0x8000, ALL | pte::N),
        );
    }
    for at in [0xf123, 0, 0x8abc] {
        let answer = rig.translate(read(iova + at));
        assert_eq!((answer.spa, answer.size), (spa + at, 1 << 16));
    }
    // Another size than 64 KiB is reserved, in either stage.
    rig.forget();
    vm.map_second(&mut rig, gpa, 0, pte::at(spa + 0x4000, ALL | pte::N));
    assert_eq!(rig.fault(read(iova), 21).iotval2, gpa);
    vm.map_first(&mut rig, iova, 0, pte::at(gpa + 0x4000, ALL | pte::N));
    rig.forget();
    rig.fault(read(iova), 13);
}

/// The first stage's memory type, if it has one, overrides the second's (Svpbmt).
#[test]
fn memory_types_of_both_stages() {
    let (mut rig, mut vm) = nested(SV39, SV39);
    for (first, second, expected) in [
        (0, 0, 0),
        (0, 1, 1),
        (0, 2, 2),
        (1, 0, 1),
        (1, 1, 1),
        (1, 2, 1),
        (2, 0, 2),
        (2, 1, 2),
        (2, 2, 2),
    ] {
        vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL | first << pte::PBMT));
        vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, ALL | second << pte::PBMT));
        rig.forget();
        for _ in 0..2 {
            assert_eq!(rig.translate(read(IOVA)).pbmt, expected);
        }
    }
    vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, ALL | 3 << pte::PBMT));
    rig.forget();
    assert_eq!(rig.fault(read(IOVA), 21).iotval2, GPA);
}

/// An implicit access has the memory type of the page that it is translated by.
#[test]
fn memory_type_of_implicit_accesses() {
    let mut rig = Rig::new(3);
    let mut vm = Vm::new(&mut rig, 0, SV39);
    vm.table_leaf |= 2 << pte::PBMT;
    let mut first = Vm::new(&mut rig, SV39, 0).first.expect("just made");
    first.root = vm.table(&mut rig);
    vm.first = Some(first);
    vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL));
    vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, ALL));
    rig.directory(&[DEVICE], Context::of(&vm));
    rig.translate(read(IOVA));
    let tables: Vec<u64> = (0..3)
        .map(|level| {
            let entry = vm.first_entry(&mut rig, IOVA, level);
            vm.physical(entry)
        })
        .collect();
    let typed = |a: &&Access| a.pbmt != 0;
    let typed: Vec<_> = rig.accesses.iter().filter(typed).collect();
    assert_eq!(typed.len(), 3);
    assert!(
        typed
            .iter()
            .all(|a| a.pbmt == 2 && tables.contains(&a.addr))
    );
}

#[test]
fn guest_page_faults() {
    let (mut rig, mut vm) = nested(SV39, SV39);
    let all = pte::at(PAGE, ALL);
    let mut bad = vec![
        all & !pte::V,
        all & !pte::U,
        all & !pte::A,
        all & !(pte::R | pte::X),
        all & !(pte::R | pte::W | pte::X),
        all | pte::N,
    ];
    bad.extend((54..59).map(|bit| all | 1 << bit));
    for leaf in bad {
        vm.map_second(&mut rig, GPA, 0, leaf);
        rig.forget();
        for (ttyp, _, cause, _) in KINDS {
            let record = rig.fault(Request::new(ttyp, DEVICE, IOVA + 0x128), cause);
            assert_eq!(record.iotval2, GPA + 0x128);
        }
    }
    for (lacks, kind) in [(pte::R | pte::W, 0), (pte::W, 1), (pte::X, 2), (pte::D, 1)] {
        vm.map_second(&mut rig, GPA, 0, all & !lacks);
        rig.forget();
        let (ttyp, _, cause, _) = KINDS[kind];
        rig.fault(Request::new(ttyp, DEVICE, IOVA), cause);
    }
    // Svrsw60t59b: bits 60:59 are software's, in both stages, in leaves and pointers.
    vm.map_second(&mut rig, GPA, 0, all | 3 << 59);
    vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL) | 3 << 59);
    let pointer = vm.first_entry(&mut rig, IOVA, 1);
    let pointer = vm.physical(pointer);
    let old = rig.load(pointer);
    rig.store(pointer, old | 3 << 59);
    rig.forget();
    assert_eq!(rig.translate(read(IOVA)).spa, PAGE);
}

/// Implicit accesses fault by the original access type; iotval2 says which entry it was.
#[test]
fn guest_page_faults_of_implicit_accesses() {
    let (mut rig, mut vm) = nested(SV39, SV39);
    for level in 0..3 {
        let entry = vm.first_entry(&mut rig, IOVA, level);
        let spa = vm.physical(entry) & !0xfff;
        let good = pte::at(spa, ALL);
        for bad in [
            0,
            good & !pte::U,
            good & !pte::A,
            pte::at(spa, ALL & !(pte::R | pte::W)),
        ] {
            vm.map_second(&mut rig, entry & !0xfff, 0, bad);
            rig.forget();
            for (ttyp, _, cause, _) in KINDS {
                let record = rig.fault(Request::new(ttyp, DEVICE, IOVA), cause);
                assert_eq!(record.iotval2, implicit(entry, false), "level {level}");
            }
        }
        // Only reading is needed, whatever the access.
        vm.map_second(
            &mut rig,
            entry & !0xfff,
            0,
            pte::at(spa, pte::V | pte::R | pte::U | pte::A),
        );
        rig.forget();
        for (ttyp, ..) in KINDS {
            rig.translate(Request::new(ttyp, DEVICE, IOVA));
        }
    }
}

#[test]
fn first_stage_faults_come_first() {
    let (mut rig, mut vm) = nested(SV39, SV39);
    vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL & !pte::W));
    vm.map_second(&mut rig, GPA, 0, 0);
    assert_eq!(
        rig.fault(Request::new(Ttyp::UntransWr, DEVICE, IOVA), 15)
            .iotval2,
        0
    );
    rig.fault(read(IOVA), 21);
}

/// Guest physical addresses wider than the scheme.
#[test]
fn wide_guest_addresses() {
    for (second, width) in [(SV39, 41), (SV48, 50), (SV57, 59)] {
        let (mut rig, mut vm) = nested(0, second);
        let top = 1 << (width - 1) | 0x5000;
        vm.map_second(&mut rig, top, 0, pte::at(PAGE, ALL));
        assert_eq!(rig.translate(read(top + 8)).spa, PAGE + 8);
        for bit in width..64 {
            let iova = top | 1 << bit;
            assert_eq!(rig.fault(read(iova), 21).iotval2, iova);
        }
    }
}

#[test]
fn access_faults_and_corrupt_data() {
    let (mut rig, mut vm) = nested(SV39, SV39);
    let final_entry = vm.second_entry(&mut rig, GPA, 0);
    let first_entry = vm.first_entry(&mut rig, IOVA, 0);
    let table_entry = vm.second_entry(&mut rig, first_entry & !0xfff, 0);
    for at in [final_entry, vm.physical(first_entry), table_entry] {
        rig.broken.insert(at & !0xfff);
        rig.forget();
        for (ttyp, _, _, cause) in KINDS {
            assert_eq!(
                rig.fault(Request::new(ttyp, DEVICE, IOVA), cause).iotval2,
                0
            );
        }
        rig.broken.clear();
        rig.corrupt.insert(at & !0xfff);
        assert_eq!(rig.ask(read(IOVA)).status, 2);
        rig.corrupt.clear();
        assert_eq!(rig.records()[0].cause, 274);
    }
}

#[test]
fn rv32_schemes() {
    for (first, second) in [(0, 8), (8, 0), (8, 8)] {
        let mut rig = Rig::new(4);
        if second != 0 {
            rig.write(reg::FCTL, 4, 4); // GXL
        }
        let mut vm = Vm::with(&mut rig, first, second, true, [false; 2]);
        // A page and a 4 MiB page, at both ends of the addresses.
        for (iova, level, gpa, spa) in [
            (0x0123_4000, 0, 0x3_ffff_f000, 0x2_1234_5000),
            (0xffc0_0000, 1, 0x3_0040_0000, 0x1_0040_0000),
        ] {
            let gpa = if first == 0 { iova } else { gpa };
            let spa = if second == 0 { gpa } else { spa };
            if first != 0 {
                vm.map_first(&mut rig, iova, level, pte::at(gpa, ALL));
            }
            if second != 0 {
                vm.map_second(&mut rig, gpa, level, pte::at(spa, ALL));
            }
        }
        let table = rig.directory(&[DEVICE], Context::of(&vm).tc(1 << 11));
        let small = rig.translate(read(0x0123_4567)).spa;
        let large = rig.translate(read(0xffc5_4321));
        let expected = match (first, second) {
            (8, 8) | (0, 8) => (0x2_1234_5567, 0x1_0045_4321),
            _ => (0x3_ffff_f567, 0x3_0045_4321),
        };
        assert_eq!((small, large.spa), expected);
        assert_eq!(large.size, 1 << 22);
        rig.translate(read(0xffc0_0000));
        // Bits above the scheme's.
        let wide = if first == 0 {
            0x4_0123_4000
        } else {
            0x1_0123_4000
        };
        rig.fault(read(wide), if first == 0 { 21 } else { 13 });
        // Misaligned.
        if first != 0 {
            vm.map_first(&mut rig, 0xffc0_0000, 1, pte::at(0x1000, ALL));
            rig.forget();
            rig.fault(read(0xffc0_0000), 13);
        }
        // With GXL = 1, SXL must be 1.
        if second != 0 {
            rig.set_context(table, DEVICE, Context::of(&vm));
            rig.fault(read(0x0123_4000), 259);
        }
    }
}

/// SXL = 1 limits guest physical addresses to 34 bits under any scheme.
#[test]
fn rv32_first_stage_under_sv39x4() {
    let mut rig = Rig::new(5);
    let mut vm = Vm::new(&mut rig, 0, SV39);
    vm.map_second(&mut rig, 0x3_ffff_f000, 0, pte::at(PAGE, ALL));
    vm.map_second(&mut rig, 0x4_0000_0000, 0, pte::at(PAGE, ALL));
    rig.directory(&[DEVICE], Context::of(&vm).tc(1 << 11));
    assert_eq!(rig.translate(read(0x3_ffff_f008)).spa, PAGE + 8);
    assert_eq!(rig.fault(read(0x4_0000_0000), 21).iotval2, 0x4_0000_0000);
}

const VMA: u64 = 1;
const GVMA: u64 = 1 | 1 << 7;
const AV: u64 = 1 << 10;
const PSCV: u64 = 1 << 32;
const GV: u64 = 1 << 33;
const NL: u64 = 1 << 34;
const S: u64 = 1 << 9;

const fn pscid(id: u64) -> u64 {
    PSCV | id << 12
}
const fn gscid(id: u64) -> u64 {
    GV | id << 44
}
const fn page(addr: u64) -> u64 {
    addr >> 12 << 10
}
/// A range of 2^(`log2`) bytes for the extension S.
const fn range(addr: u64, log2: u32) -> u64 {
    page(addr & !((1 << log2) - 1) | ((1 << (log2 - 1)) - 1) & !0xfff) | S
}

/// Of each stage's change: which commands make it seen, which leave the old translation. The
/// specification permits more to be forgotten than a command names; this IOMMU forgets no more.
#[test]
fn what_invalidations_cover() {
    let (mut rig, mut vm) = nested(SV39, SV39);
    let other = 0xa_bcde_f000;
    let first = [
        ([VMA | gscid(7), 0], true),
        ([VMA | gscid(7) | pscid(5), 0], true),
        ([VMA | gscid(7) | AV, page(IOVA)], true),
        ([VMA | gscid(7) | pscid(5) | AV, page(IOVA)], true),
        ([VMA | gscid(7) | AV | NL, page(IOVA)], true),
        ([VMA | gscid(7) | AV, range(IOVA, 16)], true),
        ([VMA | gscid(7) | AV, range(0, 63)], true),
        ([VMA | gscid(7) | AV, range(IOVA + 0x1_0000, 16)], false),
        ([VMA | gscid(7) | AV, page(IOVA + 0x1000)], false),
        ([VMA | gscid(8), 0], false),
        ([VMA | gscid(7) | pscid(6), 0], false),
        ([VMA, 0], false),
        ([VMA | pscid(5), 0], false),
        ([GVMA, 0], false),
    ];
    for (command, seen) in first {
        vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL));
        rig.forget();
        assert_eq!(rig.translate(read(IOVA)).spa, PAGE);
        vm.map_first(&mut rig, IOVA, 0, pte::at(GPA + 0x1000, ALL));
        vm.map_second(&mut rig, GPA + 0x1000, 0, pte::at(other, ALL));
        rig.sync(&[command]);
        let expected = if seen { other } else { PAGE };
        assert_eq!(rig.translate(read(IOVA)).spa, expected, "{command:x?}");
    }
    let second = [
        ([GVMA, 0], true),
        ([GVMA | AV, page(GPA + 0x1000)], true), // AV without GV is ignored
        ([GVMA | gscid(7), 0], true),
        ([GVMA | gscid(7) | AV, page(GPA)], true),
        ([GVMA | gscid(7) | AV | NL, page(GPA)], true),
        ([GVMA | gscid(7) | AV, range(GPA, 20)], true),
        ([GVMA | gscid(7) | AV, page(GPA + 0x1000)], false),
        ([GVMA | gscid(7) | AV, range(GPA + 0x10_0000, 20)], false),
        ([GVMA | gscid(8), 0], false),
        ([VMA | gscid(7), 0], false),
    ];
    vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL));
    for (command, seen) in second {
        vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, ALL));
        rig.forget();
        assert_eq!(rig.translate(read(IOVA)).spa, PAGE);
        vm.map_second(&mut rig, GPA, 0, pte::at(other, ALL));
        rig.sync(&[command]);
        let expected = if seen { other } else { PAGE };
        assert_eq!(rig.translate(read(IOVA)).spa, expected, "{command:x?}");
    }
}

/// The same IOVA and PSCID in two guests and in the host.
#[test]
fn address_spaces_do_not_mix() {
    let mut rig = Rig::new(6);
    let mut table = 0;
    for (device, gscid) in [(1, 0), (2, 7), (3, 8)] {
        let mode = if gscid == 0 { 0 } else { SV39 };
        let mut vm = Vm::new(&mut rig, SV39, mode);
        vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL));
        if gscid != 0 {
            vm.map_second(&mut rig, GPA, 0, pte::at(PAGE + (gscid << 12), ALL));
        }
        let context = Context {
            iohgatp: vm.iohgatp(gscid),
            ..Context::of(&vm)
        };
        if table == 0 {
            table = rig.directory(&[device], context);
        } else {
            rig.set_context(table, device, context);
        }
    }
    for _ in 0..2 {
        for (device, spa) in [(1, GPA), (2, PAGE + 0x7000), (3, PAGE + 0x8000)] {
            let answer = rig.translate(Request::new(Ttyp::UntransRd, device, IOVA));
            assert_eq!(answer.spa, spa);
        }
    }
}

/// Both stages held: a request a cycle, each answered three cycles after it was taken.
#[test]
fn hits_of_both_stages_are_as_fast_as_of_one() {
    for second in [0, SV39] {
        let mut rig = Rig::new(13);
        let mut vm = Vm::new(&mut rig, SV39, second);
        let mut requests = Vec::new();
        for i in 0..16 {
            let (iova, gpa) = (IOVA + (i << 12), GPA + (i << 12));
            vm.map_first(&mut rig, iova, 0, pte::at(gpa, ALL));
            if second != 0 {
                vm.map_second(&mut rig, gpa, 0, pte::at(PAGE + (i << 12), ALL));
            }
            requests.push(read(iova));
        }
        rig.directory(&[DEVICE], Context::of(&vm));
        rig.stream(&requests);
        let times = rig.stream(&requests);
        for pair in times.windows(2) {
            assert_eq!(pair[1].0 - pair[0].0, 1, "taken");
        }
        for (taken, answered) in times {
            assert_eq!(answered - taken, 3);
        }
    }
}

/// What a walk read before an invalidation must not be held after it, in either stage.
#[test]
fn walks_that_an_invalidation_overtakes_fill_nothing() {
    let (mut rig, mut vm) = nested(SV39, SV39);
    let other = 0xa_bcde_f000;
    let first = vm.first_entry(&mut rig, IOVA, 0);
    let first = vm.physical(first);
    let second = vm.second_entry(&mut rig, GPA, 0);
    for (entry, command) in [
        (first, [VMA | gscid(7) | AV, page(IOVA)]),
        (second, [GVMA | gscid(7) | AV, page(GPA)]),
    ] {
        let old = rig.load(entry);
        rig.forget();
        rig.held = Some(entry);
        rig.begin(read(IOVA));
        for _ in 0..100 {
            rig.read(reg::CQH, 4);
        }
        let last = rig.accesses.last().map(|a| a.addr);
        assert_eq!(last, Some(entry), "the walk is there");
        if entry == first {
            vm.map_second(&mut rig, GPA + 0x1000, 0, pte::at(other, ALL));
            rig.store(entry, pte::at(GPA + 0x1000, ALL));
        } else {
            rig.store(entry, pte::at(other, ALL));
        }
        rig.submit(&[command]);
        rig.held = None;
        assert_eq!(rig.finish().spa, PAGE, "read before");
        rig.sync(&[]);
        assert_eq!(rig.translate(read(IOVA)).spa, other);
        rig.store(entry, old);
    }
}

/// Pointers are held too: an address alone names leaves, with NL all entries on the way to it.
#[test]
fn what_invalidations_cover_of_pointers() {
    let (mut rig, mut vm) = nested(SV39, SV39);
    let other = 0xa_bcde_f000;
    // Another table of the last level for each stage, in which everything is `other`.
    let first_table = vm.table(&mut rig);
    let second_table = rig.page();
    let tables = [vm.physical(first_table), second_table];
    for i in 0..512 {
        rig.store(tables[0] + 8 * i, pte::at(GPA + 0x1000, ALL));
        rig.store(tables[1] + 8 * i, pte::at(other, ALL));
    }
    vm.map_second(&mut rig, GPA + 0x1000, 0, pte::at(other, ALL));
    let first = vm.first_entry(&mut rig, IOVA, 1);
    let first = vm.physical(first);
    let second = vm.second_entry(&mut rig, GPA, 1);
    let near = 0x10_0000; // in the same table of the last level
    let far = 1 << 21;
    for (entry, new, kind, addr) in [
        (first, pte::at(first_table, pte::V), VMA, IOVA),
        (second, pte::at(second_table, pte::V), GVMA, GPA),
    ] {
        let old = rig.load(entry);
        let kind = kind | gscid(7);
        for (command, seen) in [
            ([kind, 0], true),
            ([kind | AV | NL, page(addr)], true),
            ([kind | AV | NL, range(addr, 21)], true),
            ([kind | AV, page(addr)], false),
            ([kind | AV | NL, page(addr ^ far)], false),
            ([kind | AV | NL, range(addr ^ far, 21)], false),
            ([kind | AV | NL, page(addr ^ near)], true),
            ([kind ^ 1 << 44 | NL, 0], false), // another guest
        ] {
            rig.store(entry, old);
            rig.forget();
            assert_eq!(rig.translate(read(IOVA)).spa, PAGE);
            rig.store(entry, new);
            // The leaf must go in any case.
            rig.sync(&[command, [kind | AV, page(addr)]]);
            let expected = if seen { other } else { PAGE };
            assert_eq!(rig.translate(read(IOVA)).spa, expected, "{command:x?}");
        }
        rig.store(entry, old);
        rig.forget();
    }
}
