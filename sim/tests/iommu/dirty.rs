//! Updates of the bits A and D (IOMMU §2.5, privileged specification).

use crate::rig::{Access, Context, Request, Rig, Ttyp, Vm, implicit};
use crate::tables::{SV39, pte};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const CLEAN: u64 = pte::ALL & !(pte::A | pte::D);
const GADE: u64 = 1 << 7;
const SADE: u64 = 1 << 8;

const KINDS: [(Ttyp, u64, u64); 3] = [
    (Ttyp::UntransRd, 13, 21),
    (Ttyp::UntransWr, 15, 23),
    (Ttyp::UntransRx, 12, 20),
];

/// What an access sets.
fn set_by(ttyp: Ttyp) -> u64 {
    if ttyp == Ttyp::UntransWr {
        pte::A | pte::D
    } else {
        pte::A
    }
}

struct Setup {
    rig: Rig,
    vm: Vm,
}

impl Setup {
    fn new(first: u64, second: u64, bits: u64) -> Self {
        Self::with(first, second, bits, false, [false; 2])
    }

    /// With RV32 schemes, and endianness of the two stages.
    fn with(first: u64, second: u64, bits: u64, rv32: bool, big: [bool; 2]) -> Self {
        let mut rig = Rig::new(10);
        let [sbe, be] = big.map(u64::from);
        let sxl = u64::from(rv32);
        rig.set_fctl(sxl << 2 | be);
        let mut vm = Vm::with(&mut rig, first, second, rv32, big);
        let context = Context::of(&vm).tc(bits | sbe << 10 | sxl << 11);
        rig.directory(&[DEVICE], context);
        if second != 0 {
            vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, pte::ALL));
        }
        Self { rig, vm }
    }

    fn updates(&self) -> Vec<Access> {
        let atomic = |a: &Access| a.op > 1;
        self.rig.accesses.iter().copied().filter(atomic).collect()
    }
}

fn ask(ttyp: Ttyp) -> Request {
    Request::new(ttyp, DEVICE, IOVA)
}

#[test]
fn first_stage() {
    for second in [0, SV39] {
        let mut s = Setup::new(SV39, second, SADE);
        for (ttyp, ..) in KINDS {
            s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, CLEAN));
            s.rig.forget();
            s.rig.translate(ask(ttyp));
            let set = set_by(ttyp);
            assert_eq!(
                s.vm.first_value(&mut s.rig, IOVA, 0),
                pte::at(GPA, CLEAN | set)
            );
            let updates = s.updates();
            assert_eq!(updates.len(), 1);
            assert_eq!(updates[0].op, 2, "compare and set");
            // Nothing to do the next time.
            s.rig.translate(ask(ttyp));
            assert_eq!(s.rig.accesses, []);
            // A write to what was only read sets D.
            s.rig.translate(ask(Ttyp::UntransWr));
            let all = pte::at(GPA, pte::ALL);
            assert_eq!(s.vm.first_value(&mut s.rig, IOVA, 0), all);
        }
    }
}

#[test]
fn second_stage() {
    for first in [0, SV39] {
        let mut s = Setup::new(first, SV39, GADE);
        if first != 0 {
            s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, pte::ALL));
        }
        let gpa = if first == 0 { IOVA } else { GPA };
        for (ttyp, ..) in KINDS {
            s.vm.map_second(&mut s.rig, gpa, 0, pte::at(PAGE, CLEAN));
            s.rig.forget();
            assert_eq!(s.rig.translate(ask(ttyp)).spa, PAGE);
            let set = set_by(ttyp);
            assert_eq!(
                s.vm.second_value(&mut s.rig, gpa, 0),
                pte::at(PAGE, CLEAN | set)
            );
            let updates = s.updates();
            assert_eq!(updates.len(), 1);
            assert_eq!(updates[0].op, 2, "compare and set");
            // Nothing to do the next time.
            s.rig.translate(ask(ttyp));
            assert_eq!(s.rig.accesses, []);
            // A write to what was only read sets D.
            s.rig.translate(ask(Ttyp::UntransWr));
            let all = pte::at(PAGE, pte::ALL);
            assert_eq!(s.vm.second_value(&mut s.rig, gpa, 0), all);
        }
    }
}

/// Each stage has its own enable.
#[test]
fn without_its_enable_a_stage_faults() {
    // A = 0 is enough, whatever D is.
    for leaf in [CLEAN, CLEAN | pte::D] {
        let mut s = Setup::new(SV39, SV39, GADE);
        s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, leaf));
        for (ttyp, cause, _) in KINDS {
            s.rig.fault(ask(ttyp), cause);
            assert_eq!(s.updates().len(), 0);
        }
        let mut s = Setup::new(SV39, SV39, SADE);
        s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, pte::ALL));
        s.vm.map_second(&mut s.rig, GPA, 0, pte::at(PAGE, leaf));
        for (ttyp, _, cause) in KINDS {
            s.rig.forget();
            assert_eq!(s.rig.fault(ask(ttyp), cause).iotval2, GPA);
            assert_eq!(s.updates().len(), 0);
        }
    }
}

/// The entry of the first stage is written through the second: that needs W there and sets D.
#[test]
fn an_update_through_the_second_stage() {
    let mut s = Setup::new(SV39, SV39, GADE | SADE);
    s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, CLEAN));
    let entry = s.vm.first_entry(&mut s.rig, IOVA, 0);
    let page = entry & !0xfff;
    let spa = s.vm.physical(page);
    s.vm.map_second(&mut s.rig, page, 0, pte::at(spa, CLEAN));
    s.rig.forget();
    s.rig.translate(ask(Ttyp::UntransRd));
    assert_eq!(
        s.vm.second_value(&mut s.rig, page, 0),
        pte::at(spa, pte::ALL)
    );
    assert_eq!(
        s.vm.first_value(&mut s.rig, IOVA, 0),
        pte::at(GPA, CLEAN | pte::A)
    );
    // Read-only: a guest page fault by the original type, of an implicit write.
    s.vm.map_second(&mut s.rig, page, 0, pte::at(spa, pte::ALL & !pte::W));
    s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, CLEAN));
    for (ttyp, _, cause) in KINDS {
        s.rig.forget();
        assert_eq!(s.rig.fault(ask(ttyp), cause).iotval2, implicit(entry, true));
        assert_eq!(s.vm.first_value(&mut s.rig, IOVA, 0), pte::at(GPA, CLEAN));
    }
    // Clean without GADE is the same.
    let mut s = Setup::new(SV39, SV39, SADE);
    s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, CLEAN));
    s.vm.map_second(&mut s.rig, page, 0, pte::at(spa, pte::ALL & !pte::D));
    assert_eq!(
        s.rig.fault(ask(Ttyp::UntransRd), 21).iotval2,
        implicit(entry, true)
    );
}

/// An entry that changes between its reading and its update is read again.
#[test]
fn a_race_with_software() {
    let mut s = Setup::new(SV39, 0, SADE);
    s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, CLEAN));
    let entry = s.vm.first_entry(&mut s.rig, IOVA, 0);
    // To another page: that one is updated.
    s.rig.race = Some((entry, pte::at(PAGE, CLEAN)));
    assert_eq!(s.rig.translate(ask(Ttyp::UntransWr)).spa, PAGE);
    assert_eq!(s.rig.load(entry), pte::at(PAGE, pte::ALL));
    // To nothing.
    s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, CLEAN));
    s.rig.forget();
    s.rig.race = Some((entry, 0));
    s.rig.fault(ask(Ttyp::UntransWr), 15);
    assert_eq!(s.rig.load(entry), 0);
    // The same of the second stage.
    let mut s = Setup::new(SV39, SV39, GADE);
    let other = PAGE + 0x1000;
    s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, pte::ALL));
    let entry = s.vm.second_entry(&mut s.rig, GPA, 0);
    for (new, outcome) in [(pte::at(other, CLEAN), Some(other)), (0, None)] {
        s.rig.store(entry, pte::at(PAGE, CLEAN));
        s.rig.forget();
        s.rig.race = Some((entry, new));
        match outcome {
            Some(page) => {
                assert_eq!(s.rig.translate(ask(Ttyp::UntransWr)).spa, page);
                assert_eq!(s.rig.load(entry), pte::at(page, pte::ALL));
            }
            None => {
                s.rig.fault(ask(Ttyp::UntransWr), 23);
                assert_eq!(s.rig.load(entry), 0);
            }
        }
    }
}

/// No update of an entry that does not permit the access or is malformed.
#[test]
fn nothing_else_is_updated() {
    for (first, second) in [(SV39, 0), (0, SV39)] {
        let mut s = Setup::new(first, second, GADE | SADE);
        // By level and kind of access. The last is a large page that is not aligned.
        for (leaf, level, kind) in [
            (CLEAN & !(pte::R | pte::W), 0, 0),
            (CLEAN & !pte::W, 0, 1),
            (CLEAN & !pte::X, 0, 2),
            (CLEAN & !pte::U, 0, 0),
            (CLEAN | pte::N, 0, 0),
            (CLEAN | 1 << 54, 0, 0),
            (CLEAN & !pte::V, 0, 0),
            (CLEAN, 1, 0),
        ] {
            let entry = match first {
                0 => s.vm.second_entry(&mut s.rig, IOVA, level),
                _ => s.vm.first_entry(&mut s.rig, IOVA, level),
            };
            s.rig.store(entry, pte::at(GPA, leaf));
            s.rig.forget();
            let (ttyp, page_fault, guest_page_fault) = KINDS[kind];
            let cause = if first == 0 {
                guest_page_fault
            } else {
                page_fault
            };
            s.rig.fault(ask(ttyp), cause);
            assert_eq!(s.updates(), []);
            assert_eq!(s.rig.load(entry), pte::at(GPA, leaf));
        }
    }
}

/// Neither bit, nor those that are software's, whichever of them is to be set.
#[test]
fn no_bit_is_cleared() {
    let mut s = Setup::new(SV39, SV39, SADE | GADE);
    let software: u64 = 3 << 8 | 3 << 59;
    for lacks in [0, pte::A, pte::D, pte::A | pte::D] {
        for (ttyp, ..) in KINDS {
            let old = pte::ALL & !lacks | software;
            s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, old));
            s.vm.map_second(&mut s.rig, GPA, 0, pte::at(PAGE, old));
            s.rig.forget();
            assert_eq!(s.rig.translate(ask(ttyp)).spa, PAGE);
            let set = set_by(ttyp);
            let first = s.vm.first_value(&mut s.rig, IOVA, 0);
            assert_eq!(first, pte::at(GPA, old | set), "{ttyp:?} {lacks:#x}");
            let second = s.vm.second_value(&mut s.rig, GPA, 0);
            assert_eq!(second, pte::at(PAGE, old | set), "{ttyp:?} {lacks:#x}");
        }
    }
}

/// Entries of 8 and of 4 bytes are updated in the byte order in which they are read (IOMMU §2.10).
#[test]
fn updates_keep_the_byte_order() {
    let (iova, gpa, spa) = (0x0123_4000, 0x3_4567_8000, 0x1_2345_6000);
    for big in [[false, true], [true, false], [true, true]] {
        for rv32 in [false, true] {
            // Modes Sv39 and Sv32 have the same number.
            let mut s = Setup::with(SV39, SV39, SADE | GADE, rv32, big);
            for ttyp in [Ttyp::UntransRd, Ttyp::UntransWr] {
                let set = set_by(ttyp);
                s.vm.map_first(&mut s.rig, iova, 0, pte::at(gpa, CLEAN));
                s.vm.map_second(&mut s.rig, gpa, 0, pte::at(spa, CLEAN));
                s.rig.forget();
                let answer = s.rig.translate(Request::new(ttyp, DEVICE, iova));
                assert_eq!(answer.spa, spa, "{big:?} {rv32}");
                let first = s.vm.first_value(&mut s.rig, iova, 0);
                assert_eq!(first, pte::at(gpa, CLEAN | set), "{big:?} {rv32}");
                let second = s.vm.second_value(&mut s.rig, gpa, 0);
                assert_eq!(second, pte::at(spa, CLEAN | set), "{big:?} {rv32}");
            }
        }
    }
}

#[test]
fn rv32_entries_are_updated_alone() {
    let mut s = Setup::with(8, 8, SADE | GADE, true, [false; 2]);
    let iova = 0x0123_4000;
    s.vm.map_first(&mut s.rig, iova, 0, pte::at(0x3_4567_8000, CLEAN));
    s.vm.map_first(&mut s.rig, iova + 0x1000, 0, pte::at(0x3_4567_9000, CLEAN));
    s.vm.map_second(&mut s.rig, 0x3_4567_8000, 0, pte::at(0x1_2345_6000, CLEAN));
    let answer = s.rig.translate(Request::new(Ttyp::UntransWr, DEVICE, iova));
    assert_eq!(answer.spa, 0x1_2345_6000);
    let all = pte::at(0x3_4567_8000, pte::ALL);
    assert_eq!(s.vm.first_value(&mut s.rig, iova, 0), all);
    let neighbour = pte::at(0x3_4567_9000, CLEAN);
    assert_eq!(s.vm.first_value(&mut s.rig, iova + 0x1000, 0), neighbour);
    let all = pte::at(0x1_2345_6000, pte::ALL);
    assert_eq!(s.vm.second_value(&mut s.rig, 0x3_4567_8000, 0), all);
}
