//! Updates of the A and D bits (IOMMU §2.4): one test a rule.

mod iommu_common;

use iommu_common::tables::*;
use iommu_common::*;
use tlproof_golden::iommu::{Injected, Outcome, Request};

const GPA: u64 = 0x40_0000_0000;

/// Runs a request on memory itself: the cause, 0 for success.
fn run(t: &mut Tables, request: &Request) -> u16 {
    match t.iommu.translate(&mut t.memory, request).outcome {
        Outcome::Fault(f) => f.cause(),
        _ => 0,
    }
}

fn nested(tc: u64) -> Tables {
    let mut t = Tables::staged(ALL, tc, 8, 8);
    t.map(IOVA, pte(GPA, RWX));
    t.map_guest(GPA, pte(FRAME, RWX));
    t
}

/// §2.1.3.1: without SADE, A = 0 or a store with D = 0 is a page fault.
#[test]
fn without_sade() {
    let mut t = nested(tc::GADE);
    for (flags, causes) in [(RWX & !A, [12, 13, 15]), (RWX & !D, [0, 0, 15])] {
        let at = t.map(IOVA, pte(GPA, flags));
        for (request, cause) in each(IOVA).iter().zip(causes) {
            assert_eq!(run(&mut t, request), cause);
            assert_eq!(t.memory.get(at), pte(GPA, flags), "unchanged");
        }
    }
}

/// §2.1.3.1: without GADE, A = 0 or a store with D = 0 is a guest page fault.
#[test]
fn without_gade() {
    let mut t = nested(tc::SADE);
    for (flags, causes) in [(RWX & !A, [20, 21, 23]), (RWX & !D, [0, 0, 23])] {
        let at = t.map_guest(GPA, pte(FRAME, flags));
        for (request, cause) in each(IOVA).iter().zip(causes) {
            assert_eq!(run(&mut t, request), cause);
            assert_eq!(t.memory.get(at), pte(FRAME, flags), "unchanged");
        }
    }
}

/// §2.4: a read sets A in both stages, a write A and D, and nothing else changes.
#[test]
fn both_stages_are_updated() {
    for (request, set) in each(IOVA).iter().zip([A, A, A | D]) {
        let mut t = nested(tc::SADE | tc::GADE);
        let clean = RWX & !A & !D;
        let first = t.map(IOVA, pte(GPA, clean | 3 << 8));
        let second = t.map_guest(GPA, pte(FRAME, clean));
        let before = t.memory.get(first);
        let response = t.iommu.translate(&mut t.memory, request);
        assert!(matches!(response.outcome, Outcome::Ok(_)));
        assert_eq!(t.memory.get(first), before | set);
        assert_eq!(t.memory.get(second), pte(FRAME, clean | set));
        let order: Vec<_> = response.updates.iter().map(|u| u.addr.0).collect();
        assert_eq!(order, [first, second], "the first stage comes first");
        // Again: nothing is left to do.
        assert_eq!(t.iommu.translate(&mut t.memory, request).updates, []);
    }
}

/// §2.4: a lookup tells the updates and changes nothing.
#[test]
fn lookup_changes_nothing() {
    let mut t = nested(tc::SADE | tc::GADE);
    let first = t.map(IOVA, pte(GPA, RWX & !A & !D));
    let response = t.run(&write(IOVA));
    assert_eq!(t.memory.get(first), pte(GPA, RWX & !A & !D));
    assert_eq!(response.updates.len(), 1);
    assert_eq!(
        (response.updates[0].old, response.updates[0].new),
        (pte(GPA, RWX & !A & !D), pte(GPA, RWX))
    );
    let changed = t.iommu.translate(&mut t.memory, &write(IOVA));
    assert_eq!(changed, response);
}

/// Privileged §VATP steps 3 to 9: every other fault comes before an update.
#[test]
fn faults_come_before_updates() {
    let mut t = nested(tc::SADE | tc::GADE);
    let clean = RWX & !A & !D;
    for (target, flags) in [
        (GPA, clean & !W),
        (GPA, clean & !U),
        (GPA, clean | 1 << 63),
        (GPA, clean | 3 << 61),
    ] {
        let at = t.map(IOVA, pte(target, flags));
        let response = t.iommu.translate(&mut t.memory, &write(IOVA));
        assert!(matches!(response.outcome, Outcome::Fault(f) if f.cause() == 15));
        assert_eq!(response.updates, []);
        assert_eq!(t.memory.get(at), pte(target, flags));
    }
    let at = t.first_slot(IOVA, 1);
    t.memory.set(at, pte(FRAME + 0x1000, clean));
    assert_eq!(t.run(&write(IOVA)).updates, [], "misaligned superpage");
}

/// Privileged, two-stage translation: the update of a first-stage PTE is a write in the second
/// stage, which needs W and sets D there.
#[test]
fn first_stage_update_writes_through_the_second() {
    let mut t = nested(tc::SADE | tc::GADE);
    let first = t.map(IOVA, pte(GPA, RWX & !A));
    let guest = t.map_guest(first, pte(first, RWX & !A & !D));
    let response = t.iommu.translate(&mut t.memory, &read(IOVA));
    let order: Vec<_> = response.updates.iter().map(|u| (u.addr.0, u.new)).collect();
    assert_eq!(
        order,
        [
            (guest, pte(first, RWX & !D)), // the PTE is read
            (guest, pte(first, RWX)),      // and is about to be written
            (first, pte(GPA, RWX)),
        ]
    );
}

/// IOMMU §3.2: a guest page fault of that write is by the original access, with both low bits of
/// `iotval2`.
#[test]
fn update_refused_by_the_second_stage() {
    for (tc, flags) in [
        (tc::SADE | tc::GADE, RWX & !W),
        (tc::SADE | tc::GADE, V | R | U | A),
        (tc::SADE, RWX & !D),
    ] {
        let mut t = nested(tc);
        let first = t.map(IOVA, pte(GPA, RWX & !A));
        t.map_guest(first, pte(first, flags));
        for (request, cause) in each(IOVA).iter().zip([20, 21, 23]) {
            let fault = t.fault(request);
            assert_eq!(
                (fault.cause(), fault.record.iotval2),
                (cause, first | 3),
                "{flags:#x}"
            );
        }
        t.map(IOVA, pte(GPA, RWX));
        assert_eq!(t.cause(&read(IOVA)), 0, "no update, no write");
    }
}

/// Privileged §VATP step 9: a store to the PTE that violates a check is an access fault.
#[test]
fn update_of_a_read_only_table() {
    let mut t = nested(tc::SADE | tc::GADE);
    let first = t.map(IOVA, pte(GPA, RWX & !A));
    let second = t.map_guest(GPA, pte(FRAME, RWX & !D));
    t.memory.inject(first, Injected::ReadOnly);
    for (request, cause) in each(IOVA).iter().zip([1, 5, 7]) {
        assert_eq!(run(&mut t, request), cause);
    }
    t.memory.heal();
    t.map(IOVA, pte(GPA, RWX));
    t.memory.inject(second, Injected::ReadOnly);
    assert_eq!(run(&mut t, &read(IOVA)), 0);
    assert_eq!(run(&mut t, &write(IOVA)), 7);
}

/// Privileged §VATP step 9: if the PTE changed, the step starts again with the new one.
#[test]
fn a_changed_pte_is_read_again() {
    let mut t = nested(tc::SADE | tc::GADE);
    let clean = pte(GPA, RWX & !A & !D);
    let first = t.map(IOVA, clean);
    t.map_guest(GPA + 0x1000, pte(FRAME + 0x1000, RWX));
    // Another page by the time of the update.
    let moved = pte(GPA + 0x1000, RWX & !A & !D);
    t.memory.interfere(first, moved);
    let response = t.iommu.translate(&mut t.memory, &write(IOVA));
    let Outcome::Ok(translation) = response.outcome else {
        panic!("{response:?}")
    };
    assert_eq!(translation.spa.0, FRAME + 0x1000);
    assert_eq!(t.memory.get(first), moved | A | D);
    // Not valid any more.
    t.memory.set(first, clean);
    t.memory.interfere(first, 0);
    assert_eq!(run(&mut t, &write(IOVA)), 15);
    assert_eq!(t.memory.get(first), 0);
    // The same in the second stage, whose entry is made read-only.
    t.memory.set(first, pte(GPA, RWX));
    let second = t.map_guest(GPA, pte(FRAME, RWX & !D));
    t.memory.interfere(second, pte(FRAME, RWX & !D & !W));
    assert_eq!(run(&mut t, &write(IOVA)), 23);
}

/// §2.4: an update is not taken back by a fault that comes after.
#[test]
fn updates_stay_after_a_fault() {
    let mut t = nested(tc::SADE | tc::GADE);
    let first = t.map(IOVA, pte(GPA, RWX & !A & !D));
    t.map_guest(GPA, 0);
    assert_eq!(run(&mut t, &write(IOVA)), 23);
    assert_eq!(t.memory.get(first), pte(GPA, RWX));
}

/// §2.4 and §2.8: updates of big-endian PTEs, and of either half of a doubleword in Sv32.
#[test]
fn updates_keep_format() {
    let mut t = Tables::staged(ALL, tc::SADE | tc::SBE, 8, 0);
    let at = t.map(IOVA, pte(FRAME, RWX & !A & !D));
    assert_eq!(run(&mut t, &write(IOVA)), 0);
    assert_eq!(t.memory.get(at), pte(FRAME, RWX).swap_bytes());

    let mut t = Tables::new(ALL);
    t.iommu.choices.gxl_writable = true;
    t.dc[3] = 8 << 60 | ROOT >> 12;
    t.set_tc(tc::SXL | tc::SADE);
    let low = pte(0x4000_0000, RWX & !A & !D);
    let high = pte(0x8000_0000, RWX & !A & !D);
    t.memory.set(ROOT, high << 32 | low);
    assert_eq!(run(&mut t, &write(4 << 20)), 0);
    assert_eq!(t.memory.get(ROOT), (high | A | D) << 32 | low);
    assert_eq!(run(&mut t, &read(0)), 0);
    assert_eq!(t.memory.get(ROOT), (high | A | D) << 32 | low | A);
}

/// §2.1.4 item 18: SADE and GADE need AMO_HWAD.
#[test]
fn updates_need_the_capability() {
    for bit in [tc::SADE, tc::GADE] {
        let mut t = Tables::new(ALL & !AMO_HWAD);
        t.set_tc(bit);
        assert_eq!(t.cause(&read(IOVA)), 259);
    }
}
