//! When an old answer is right, and from when on only the new one is.

mod iommu_common;

use iommu_common::*;
use tlproof_golden::iommu::{Actual, Choices, Field, Outcome, Request, Status};
use tlproof_pcie::PhysAddr;

const IOVA: u64 = 0x12_3456_7000;
const OLD: u64 = 0x9000_0000;
const NEW: u64 = 0x9000_5000;

const VMA: u64 = 1;
const AV: u64 = 1 << 10;
const PSCV: u64 = 1 << 32;

fn page(addr: u64) -> u64 {
    addr >> 12 << 10
}

/// A mapping to `OLD` that was changed to `NEW` without an invalidation.
fn changed(caps: u64) -> Machine {
    let mut m = Machine::new(caps);
    m.map(IOVA, pte(OLD, RW | 1 << 61));
    m.map(IOVA, pte(NEW, RW));
    m
}

fn old_is_legal(m: &mut Machine) -> bool {
    let since = m.judge.stamp();
    assert!(m.check(IOVA, since, ok(NEW, 0)).is_ok());
    m.check(IOVA, since, ok(OLD, 1)).is_ok()
}

#[test]
fn old_and_new_before_the_fence_only_new_after() {
    let mut m = changed(CAPS);
    assert!(old_is_legal(&mut m));
    m.command(VMA, 0);
    assert!(old_is_legal(&mut m), "no fence yet");
    let before = m.judge.stamp();
    m.fence();
    assert!(!old_is_legal(&mut m));
    assert!(
        m.check(IOVA, before, ok(OLD, 1)).is_ok(),
        "entered before the fence"
    );
    let since = m.judge.stamp();
    let mismatch = m.check(IOVA, since, ok(OLD, 1)).unwrap_err();
    assert_eq!(mismatch.field, Field::Address);
    assert!(mismatch.clause.contains("invalidated"), "{mismatch}");
}

#[test]
fn a_mix_of_old_and_new_is_never_legal() {
    let mut m = changed(CAPS);
    let since = m.judge.stamp();
    assert_eq!(
        m.check(IOVA, since, ok(OLD, 0)).unwrap_err().field,
        Field::Address
    );
    let mismatch = m.check(IOVA, since, ok(NEW, 1)).unwrap_err();
    assert_eq!(mismatch.field, Field::MemoryType);
    assert_eq!(
        (mismatch.expected.as_str(), mismatch.got.as_str()),
        ("PMA", "NC")
    );
}

#[test]
fn a_fence_without_the_invalidation_changes_nothing() {
    let mut m = changed(CAPS);
    m.fence();
    assert!(old_is_legal(&mut m));
    m.command(3, 0);
    m.fence();
    assert!(old_is_legal(&mut m), "IODIR does not drop translations");
}

#[test]
fn an_invalidation_before_the_change_covers_nothing() {
    let mut m = Machine::new(CAPS);
    m.map(IOVA, pte(OLD, RW | 1 << 61));
    m.command(VMA, 0);
    m.map(IOVA, pte(NEW, RW));
    m.fence();
    assert!(old_is_legal(&mut m));
}

#[test]
fn operands_decide_what_is_covered() {
    let own = PSCID << 12 | PSCV;
    let cases = [
        (0, 0, true),
        (own, 0, true),
        (8 << 12 | PSCV, 0, false),
        (1 << 33, 0, false),
        (AV, page(IOVA), true),
        (AV, page(IOVA + 0x1000), false),
        (AV | own, page(IOVA), true),
        (AV | 8 << 12 | PSCV, page(IOVA), false),
        // Ranges of the extension S.
        (AV, page(IOVA & !0x1_ffff | 0xf000) | 1 << 9, true),
        (
            AV,
            page((IOVA + 0x10_0000) & !0x1_ffff | 0xf000) | 1 << 9,
            false,
        ),
    ];
    for (w0, w1, covered) in cases {
        let mut m = changed(CAPS | NL_S);
        m.command(VMA | w0, w1);
        m.fence();
        assert_eq!(!old_is_legal(&mut m), covered, "{w0:#x} {w1:#x}");
    }
}

#[test]
fn commands_with_a_process_id_leave_global_entries() {
    for (operands, covered) in [(PSCID << 12 | PSCV, false), (0, true)] {
        let mut m = Machine::new(CAPS);
        m.map(IOVA, pte(OLD, RW | G | 1 << 61));
        m.map(IOVA, pte(NEW, RW));
        m.command(VMA | operands, 0);
        m.fence();
        assert_eq!(!old_is_legal(&mut m), covered);
    }
}

#[test]
fn non_leaf_entries_need_all_addresses_or_nl() {
    for (w0, covered) in [(AV, false), (AV | 1 << 34, true), (0, true)] {
        let mut m = Machine::new(CAPS | NL_S);
        m.map(IOVA, pte(OLD, RW | 1 << 61));
        // Another leaf table takes the place of the first.
        m.store(0x8008_0000 + (IOVA >> 12 & 511) * 8, pte(NEW, RW));
        let at = m.slot(3, IOVA, 1);
        m.store(at, pte(0x8008_0000, V));
        m.command(VMA | w0, page(IOVA));
        m.fence();
        assert_eq!(!old_is_legal(&mut m), covered, "{w0:#x}");
    }
}

#[test]
fn any_address_in_a_large_page_drops_it() {
    let mut m = Machine::new(CAPS);
    let base = IOVA & !0x1f_ffff;
    let at = m.slot(3, base, 1);
    m.store(at, pte(0x9020_0000, RW));
    m.store(at, 0);
    let since = m.judge.stamp();
    assert!(m.check(base, since, ok(0x9020_0000, 0)).is_ok());
    m.command(VMA | AV, page(base + 0x5000));
    m.fence();
    let since = m.judge.stamp();
    assert!(m.check(base, since, ok(0x9020_0000, 0)).is_err());
}

#[test]
fn invalid_entries_are_never_cached() {
    let mut m = Machine::new(CAPS);
    m.slot(3, IOVA, 0);
    let early = m.judge.stamp();
    m.map(IOVA, pte(NEW, RW));
    let since = m.judge.stamp();
    assert!(
        m.check(IOVA, early, ur(13)).is_ok(),
        "under way when it was mapped"
    );
    let mismatch = m.check(IOVA, since, ur(13)).unwrap_err();
    assert_eq!(mismatch.field, Field::Status);
    assert!(mismatch.got.contains("13"));
}

#[test]
fn unmapped_page_may_be_reached_until_the_fence() {
    let mut m = Machine::new(CAPS);
    m.map(IOVA, pte(OLD, RW));
    m.map(IOVA, 0);
    let since = m.judge.stamp();
    assert!(m.check(IOVA, since, ok(OLD, 0)).is_ok());
    assert!(m.check(IOVA, since, ur(13)).is_ok());
    m.command(VMA | AV | PSCID << 12 | PSCV, page(IOVA));
    m.fence();
    let since = m.judge.stamp();
    assert!(m.check(IOVA, since, ok(OLD, 0)).is_err());
    assert!(m.check(IOVA, since, ur(13)).is_ok());
}

#[test]
fn device_contexts_live_until_iodir() {
    for (w0, covered) in [
        (3, true),
        (3 | 1 << 33 | u64::from(DID) << 40, true),
        (3 | 1 << 33 | 6 << 40, false),
        (VMA, false),
    ] {
        let mut m = Machine::new(CAPS);
        m.map(IOVA, pte(OLD, RW));
        m.dc([0, 0, 0, 0]);
        m.command(w0, 0);
        m.fence();
        let since = m.judge.stamp();
        assert!(m.check(IOVA, since, ur(258)).is_ok());
        assert_eq!(
            m.check(IOVA, since, ok(OLD, 0)).is_err(),
            covered,
            "{w0:#x}"
        );
    }
}

#[test]
fn a_new_root_of_the_same_address_space_needs_iotinval() {
    for (pscid, w0, covered) in [(PSCID, 3, false), (PSCID, VMA, true), (PSCID + 1, 3, true)] {
        let mut m = Machine::new(CAPS);
        m.map(IOVA, pte(OLD, RW));
        // V is 0 while fields that belong together change (IOMMU §2.9).
        m.dc([0, 0, pscid << 12, 8 << 60 | 0x8009_0000 >> 12]);
        let at = m.dc_at();
        m.store(at, 1);
        m.command(w0, 0);
        m.command(3, 0);
        m.fence();
        let since = m.judge.stamp();
        assert!(m.check(IOVA, since, ur(13)).is_ok());
        assert_eq!(m.check(IOVA, since, ok(OLD, 0)).is_err(), covered);
    }
}

#[test]
fn ddtp_takes_effect_when_it_is_read_back() {
    let mut m = Machine::new(CAPS);
    m.map(IOVA, pte(OLD, RW));
    m.write(16, 8, 0);
    let since = m.judge.stamp();
    assert!(m.check(IOVA, since, ok(OLD, 0)).is_ok());
    assert!(m.check(IOVA, since, ur(256)).is_ok());
    m.judge.register_read(16, 8, 0);
    let since = m.judge.stamp();
    assert!(m.check(IOVA, since, ok(OLD, 0)).is_err());
    assert!(m.check(IOVA, since, ur(256)).is_ok());
}

#[test]
fn the_store_of_a_fence_completes_it() {
    let mut m = changed(CAPS);
    m.command(VMA, 0);
    m.command(2 | AV | 0xabcd << 32, 0x8000_0100 >> 2);
    m.judge.fence_store_observed(PhysAddr(0x8000_0100), 0xabce);
    assert!(old_is_legal(&mut m), "another value");
    m.judge.fence_store_observed(PhysAddr(0x8000_0100), 0xabcd);
    assert!(!old_is_legal(&mut m));
}

#[test]
fn an_illegal_command_stops_the_queue() {
    let mut m = changed(CAPS);
    m.command(5, 0);
    m.command(VMA, 0);
    m.fence();
    assert!(old_is_legal(&mut m));
}

#[test]
fn the_queue_wraps() {
    let mut m = Machine::new(CAPS);
    for i in 0..200 {
        let (old, new) = (OLD + i * 0x1000, OLD + (i + 1) * 0x1000);
        m.map(IOVA, pte(old, RW));
        m.map(IOVA, pte(new, RW));
        m.command(VMA, 0);
        m.fence();
        let since = m.judge.stamp();
        assert!(m.check(IOVA, since, ok(old, 0)).is_err(), "{i}");
        assert!(m.check(IOVA, since, ok(new, 0)).is_ok(), "{i}");
    }
}

#[test]
fn table_words_outlive_a_flood_of_data() {
    let mut m = changed(CAPS);
    assert!(old_is_legal(&mut m));
    for i in 0..1_200_000 {
        m.judge.memory_changed(PhysAddr(0xa000_0000 + 8 * i), 0);
    }
    assert!(old_is_legal(&mut m));
}

#[test]
fn answers_of_faults() {
    let mut m = Machine::new(CAPS);
    let since = m.judge.stamp();
    assert!(m.check(IOVA, since, ur(13)).is_ok());
    assert_eq!(m.check(IOVA, since, ur(5)).unwrap_err().field, Field::Cause);
    assert_eq!(
        m.check(IOVA, since, ok(OLD, 0)).unwrap_err().field,
        Field::Status
    );
    let abort = Actual {
        status: Status::CompleterAbort,
        ..ur(13)
    };
    assert_eq!(
        m.check(IOVA, since, abort).unwrap_err().field,
        Field::Status
    );
    let mut m = Machine::with_choices(
        CAPS,
        Choices {
            completer_abort: 13..=13,
            ..Choices::default()
        },
    );
    assert!(m.check(IOVA, since, abort).is_ok());
}

fn record(cause: u64, iova: u64) -> [u64; 4] {
    [cause | 2 << 34 | u64::from(DID) << 40, 0, iova, 0]
}

#[test]
fn fault_records() {
    let mut m = Machine::new(CAPS);
    for i in 0..4 {
        let since = m.judge.stamp();
        assert!(m.check(IOVA + i * 0x1000, since, ur(13)).is_ok());
    }
    assert_eq!(m.judge.fault_records().count(), 4);
    let good = [record(13, IOVA + 0x1000), record(13, IOVA)];
    assert!(m.judge.compare_fault_queue(&good).is_empty());
    let wrong = m.judge.compare_fault_queue(&[record(15, IOVA + 0x2000)]);
    assert_eq!(wrong.len(), 1);
    assert_eq!(
        (wrong[0].expected.as_str(), wrong[0].got.as_str()),
        ("CAUSE 0xd", "CAUSE 0xf")
    );
    assert_eq!(m.judge.missing_fault_records().len(), 1);
    assert_eq!(
        m.judge.compare_fault_queue(&[record(13, IOVA)]).len(),
        1,
        "nothing demanded"
    );
}

#[test]
fn records_may_be_merged_or_lost_on_overflow() {
    let mut m = Machine::new(CAPS);
    let since = m.judge.stamp();
    for _ in 0..2 {
        assert!(m.check(IOVA, since, ur(13)).is_ok());
    }
    assert!(m.judge.compare_fault_queue(&[record(13, IOVA)]).is_empty());
    assert!(m.judge.missing_fault_records().is_empty());
    assert!(m.check(IOVA, since, ur(13)).is_ok());
    m.judge.register_read(76, 4, 1 | 1 << 9 | 1 << 16);
    assert!(m.judge.missing_fault_records().is_empty());
    m.write(76, 4, 1 | 1 << 9);
    assert!(m.check(IOVA, since, ur(13)).is_ok());
    assert_eq!(m.judge.missing_fault_records().len(), 1);
}

#[test]
fn a_bare_device_under_change_is_judged_as_a_whole() {
    let mut m = Machine::new(CAPS);
    m.dc([1, 0, 0, 0]);
    let since = m.judge.stamp();
    let outcome = m.check(IOVA, since, ok(IOVA, 0));
    assert!(matches!(outcome, Ok(Outcome::Ok(t)) if t.spa.0 == IOVA));
    let write = Request::untranslated(DID, IOVA, true);
    assert!(
        m.judge
            .check(&m.memory, &write, since, &ok(IOVA, 2))
            .is_err()
    );
}

/// An invalidation by PSCID spares global mappings (IOMMU §3.1.1), and with them what a cached
/// translation remembers of the pointers above.
#[test]
fn a_global_mapping_outlives_its_pointer() {
    for (flags, legal) in [(G, true), (0, false)] {
        let mut m = Machine::new(CAPS);
        m.map(IOVA, pte(OLD, RW | flags));
        let pointer = m.slot(3, IOVA, 1);
        m.store(pointer, 0);
        m.command(VMA | PSCV | PSCID << 12, 0);
        m.fence();
        let since = m.judge.stamp();
        assert_eq!(m.check(IOVA, since, ok(OLD, 0)).is_ok(), legal);
        // One that names all address spaces spares nothing.
        m.command(VMA, 0);
        m.fence();
        let since = m.judge.stamp();
        assert!(m.check(IOVA, since, ok(OLD, 0)).is_err());
    }
}

/// Where one legal context reports a fault and another suppresses it (`DC.tc.DTF`), a record may
/// come and may be missing.
#[test]
fn a_record_is_optional_while_dtf_is_old_or_new() {
    let context = |dtf: u64| [1 | dtf << 4, 0, PSCID << 12, 8 << 60 | ROOT >> 12];
    let record = [u64::from(DID) << 40 | 2 << 34 | 13, 0, IOVA, 0];
    for dtf in [0, 1] {
        for came in [false, true] {
            let mut m = Machine::new(CAPS);
            m.dc(context(1 - dtf));
            m.dc(context(dtf));
            let since = m.judge.stamp();
            assert!(m.check(IOVA, since, ur(13)).is_ok());
            if came {
                assert_eq!(m.judge.compare_fault_queue(&[record]), []);
            }
            assert_eq!(m.judge.missing_fault_records(), []);
            // After IODIR and a fence only the new context counts.
            m.command(3, 0);
            m.fence();
            let since = m.judge.stamp();
            assert!(m.check(IOVA, since, ur(13)).is_ok());
            let wrong = if came {
                m.judge.compare_fault_queue(&[record])
            } else {
                m.judge.missing_fault_records()
            };
            assert_eq!(wrong.len(), usize::from(came == (dtf == 1)), "{dtf} {came}");
        }
    }
}

/// An address with leaf tables of its own.
const OTHER: u64 = 0x34_3456_7000;

#[test]
fn what_stood_in_a_table_before_it_was_pointed_to_is_no_version() {
    let mut m = Machine::new(CAPS);
    let leaf = m.map(IOVA, pte(OLD, RW));
    m.store(leaf, 0);
    // Its own address is invalidated, which is not that of the walk below.
    m.command(VMA | AV, page(IOVA));
    m.fence();
    // The table comes back for another address.
    let (table, pointer) = (leaf & !0xfff, m.slot(3, OTHER, 1));
    m.store(pointer, pte(table, V));
    let since = m.judge.stamp();
    let mismatch = m.check(OTHER, since, ok(OLD, 0)).unwrap_err();
    assert_eq!(mismatch.field, Field::Status);
    assert!(m.check(OTHER, since, ur(13)).is_ok());
    // What changes afterwards is.
    m.store(leaf, pte(OLD, RW));
    m.store(leaf, 0);
    let since = m.judge.stamp();
    assert!(m.check(OTHER, since, ok(OLD, 0)).is_ok());
}

#[test]
fn a_pointer_that_nothing_dropped_exposes_the_table_that_it_pointed_to() {
    for (operands, exposed) in [(AV, true), (0, false), (AV | 1 << 34, false)] {
        let mut m = Machine::new(CAPS | NL_S);
        // The context as it was while it was written.
        m.command(3, 0);
        let leaf = m.map(IOVA, pte(OLD, RW));
        let pointer = m.slot(3, IOVA, 1);
        m.store(leaf, 0);
        m.store(pointer, 0);
        m.command(VMA | operands, if operands == 0 { 0 } else { page(IOVA) });
        m.fence();
        let request = Request::untranslated(DID, IOVA, false);
        let since = m.judge.stamp();
        assert_eq!(
            m.judge.exposed(&m.memory, &request, since),
            None,
            "{operands:#x}"
        );
        // The table's page is used for something that looks like an entry.
        m.store(leaf, pte(NEW, RW));
        let since = m.judge.stamp();
        assert_eq!(m.cause(IOVA, false), 13);
        let found = m.judge.exposed(&m.memory, &request, since);
        assert_eq!(
            found.map(|t| t.spa.0),
            exposed.then_some(NEW),
            "{operands:#x}"
        );
    }
}
