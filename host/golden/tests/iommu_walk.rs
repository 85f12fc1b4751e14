//! The walk against hand-built tables: each check of the specification, failing when it should.

mod iommu_common;

use iommu_common::*;
use proptest::prelude::*;
use tlproof_golden::iommu::{
    Choices, Outcome, Pbmt, Request, Status, TransactionType, WideAddress,
};
use tlproof_pcie::PhysAddr;

const IOVA: u64 = 0x12_3456_7000;

fn translated(outcome: Outcome) -> (u64, Pbmt, u64) {
    match outcome {
        Outcome::Ok(t) => (t.spa.0, t.pbmt, t.page_size),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_of_each_size() {
    let mut m = Machine::new(CAPS);
    m.map(IOVA, pte(0x9000_0000, RW));
    assert_eq!(
        translated(m.read(IOVA + 0x123)),
        (0x9000_0123, Pbmt::Pma, 4096)
    );
    for level in 1..3 {
        let iova = 0x20_0000_0000 + (u64::from(level) << 34);
        let size = 4096 << (9 * level);
        let at = m.slot(3, iova, level);
        m.store(at, pte(0x40_0000_0000, RW));
        let offset = size - 0x10;
        assert_eq!(
            translated(m.read(iova + offset)),
            (0x40_0000_0000 + offset, Pbmt::Pma, size)
        );
        m.store(at, pte(0x40_0000_1000, RW));
        assert_eq!(m.cause(iova, false), 13, "misaligned superpage");
    }
}

#[test]
fn sv48_and_sv57_walk_more_levels_and_want_canonical_addresses() {
    for (mode, levels) in [(8, 3), (9, 4), (10, 5)] {
        let mut m = Machine::new(CAPS);
        m.dc([1, 0, PSCID << 12, mode << 60 | ROOT >> 12]);
        let bits = 12 + 9 * levels;
        let low = (1 << (bits - 1)) - 0x1000;
        let high = u64::MAX << (bits - 1);
        for iova in [low, high] {
            let at = m.slot(levels, iova, 0);
            m.store(at, pte(0x9000_0000, RW));
            assert_eq!(translated(m.read(iova)).0, 0x9000_0000);
        }
        assert_eq!(m.cause(low + 0x1000, false), 13);
        assert_eq!(m.cause(low + 0x1000, true), 15);
        assert_eq!(m.cause(high - 0x1000, false), 13);
    }
}

#[test]
fn leaf_encodings() {
    let mut m = Machine::new(CAPS);
    let page = 0x9000_0000;
    for (flags, read, write) in [
        (RW, 0, 0),
        (RW & !V, 13, 15),
        (RW & !W, 0, 15),
        (RW & !R, 13, 15),
        (V | X | U | A | D, 13, 15),
        (V | W | X | U | A | D, 13, 15),
        (RW & !U, 13, 15),
        (RW & !A, 13, 15),
        (RW & !D, 0, 15),
        (RW | 3 << 61, 13, 15),
        (RW | 1 << 63, 13, 15),
        (RW | 1 << 54, 13, 15),
        (RW | 1 << 59, 13, 15),
        (RW | 1 << 60, 13, 15),
        (RW | 3 << 8, 0, 0),
        (RW | G, 0, 0),
    ] {
        m.map(IOVA, pte(page, flags));
        assert_eq!(m.cause(IOVA, false), read, "{flags:#x}");
        assert_eq!(m.cause(IOVA, true), write, "{flags:#x}");
    }
    for reserved in [A, D, U, 1 << 61, 1 << 62, 1 << 63, 1 << 54] {
        let at = m.slot(3, IOVA, 1);
        let pointer = pte(0x8008_0000, V);
        m.store(0x8008_0000 + (IOVA >> 12 & 511) * 8, pte(page, RW));
        m.store(at, pointer);
        assert_eq!(m.cause(IOVA, false), 0);
        m.store(at, pointer | reserved);
        assert_eq!(m.cause(IOVA, false), 13, "{reserved:#x}");
        m.store(at, pointer);
    }
    m.map(IOVA, pte(0x8008_0000, V));
    assert_eq!(m.cause(IOVA, false), 13, "pointer at level 0");
}

#[test]
fn capabilities_change_what_is_reserved() {
    let mut m = Machine::new(CAPS & !SVPBMT | 1 << 14);
    m.map(IOVA, pte(0x9000_0000, RW | 1 << 61));
    assert_eq!(m.cause(IOVA, false), 13);
    m.map(IOVA, pte(0x9000_0000, RW | 3 << 59));
    assert_eq!(m.cause(IOVA, false), 0, "Svrsw60t59b");
}

#[test]
fn memory_types() {
    let mut m = Machine::new(CAPS);
    for (bits, pbmt) in [(0, Pbmt::Pma), (1, Pbmt::Nc), (2, Pbmt::Io)] {
        m.map(IOVA, pte(0x4000_0000, RW | bits << 61));
        assert_eq!(translated(m.read(IOVA)).1, pbmt);
    }
}

#[test]
fn napot() {
    let mut m = Machine::new(CAPS);
    let iova = IOVA & !0xffff;
    for i in 0..16 {
        m.map(iova + i * 0x1000, pte(0x9000_8000, RW | 1 << 63));
        let offset = i * 0x1000 + 0x18;
        assert_eq!(
            translated(m.read(iova + offset)),
            (0x9000_0000 + offset, Pbmt::Pma, 0x1_0000)
        );
    }
    m.map(iova, pte(0x9000_4000, RW | 1 << 63));
    assert_eq!(m.cause(iova, false), 13);
    let at = m.slot(3, 0x20_0000_0000, 1);
    m.store(at, pte(0x9000_0000, RW | 1 << 63));
    assert_eq!(m.cause(0x20_0000_0000, false), 13, "N above level 0");
}

#[test]
fn table_outside_memory_is_an_access_fault() {
    let mut m = Machine::new(CAPS);
    m.dc([1, 0, PSCID << 12, 8 << 60 | 0x1000]);
    assert_eq!((m.cause(IOVA, false), m.cause(IOVA, true)), (5, 7));
}

#[test]
fn modes_and_directory() {
    let mut m = Machine::new(CAPS);
    m.write(16, 8, 0);
    assert_eq!(m.cause(IOVA, false), 256);
    m.write(16, 8, 1);
    assert_eq!(translated(m.read(IOVA)), (IOVA, Pbmt::Pma, u64::MAX));
    let mut request = Request::untranslated(DID, IOVA, false);
    request.ttyp = TransactionType::TranslatedRead;
    let refused = m.judge.translate(&m.memory, &request);
    assert!(
        matches!(refused, Outcome::Fault(f) if f.cause() == 260 && f.status == Status::UnsupportedRequest)
    );

    let cause = |m: &Machine, did| match m
        .judge
        .translate(&m.memory, &Request::untranslated(did, IOVA, false))
    {
        Outcome::Fault(f) => f.cause(),
        Outcome::Ok(_) => 0,
        Outcome::Completion(c) => panic!("{c:?}"),
    };
    m.map(IOVA, pte(0x9000_0000, RW));
    m.write(16, 8, DDT >> 12 << 10 | 2);
    assert_eq!(cause(&m, DID), 0);
    assert_eq!(cause(&m, 6), 258);
    assert_eq!(cause(&m, 1 << 7), 260);
    // Two and three levels: the old directory is the leaf of DDI 0x100 and of DDI 2.
    const UPPER: u64 = 0x8000_2000;
    const TOP: u64 = 0x8000_3000;
    m.store(UPPER + 0x100 * 8, pte(DDT, V));
    m.store(TOP + 2 * 8, pte(UPPER, V));
    m.write(16, 8, UPPER >> 12 << 10 | 3);
    let did = 0x100 << 7 | DID;
    assert_eq!(cause(&m, did), 0);
    assert_eq!(cause(&m, 1 << 16), 260);
    assert_eq!(cause(&m, DID), 258);
    m.write(16, 8, TOP >> 12 << 10 | 4);
    assert_eq!(cause(&m, did | 2 << 16), 0);
    for reserved in [1 << 1, 1 << 9, 1 << 54, 1 << 63] {
        m.store(TOP + 2 * 8, pte(UPPER, V) | reserved);
        assert_eq!(cause(&m, did | 2 << 16), 259, "{reserved:#x}");
    }
    m.store(TOP + 2 * 8, pte(0, V));
    assert_eq!(cause(&m, did | 2 << 16), 257);
}

#[test]
fn requests_with_process_id_and_translated_requests() {
    let mut m = Machine::new(CAPS);
    m.map(IOVA, pte(0x9000_0000, RW));
    let mut request = Request::untranslated(DID, IOVA, false);
    request.process_id = Some(3);
    request.privileged = true;
    let Outcome::Fault(f) = m.judge.translate(&m.memory, &request) else {
        panic!("accepted")
    };
    assert_eq!(
        (f.cause(), f.record.process_id, f.record.privileged),
        (260, Some(3), true)
    );
    for ttyp in [
        TransactionType::TranslatedWrite,
        TransactionType::AtsTranslation,
    ] {
        let request = Request {
            ttyp,
            ..Request::untranslated(DID, IOVA, false)
        };
        let outcome = m.judge.translate(&m.memory, &request);
        assert!(
            matches!(outcome, Outcome::Fault(f) if f.cause() == 260),
            "{ttyp:?}"
        );
    }
}

#[test]
fn dtf_suppresses_records_of_listed_causes_only() {
    let mut m = Machine::new(CAPS);
    m.dc([1 | 1 << 4, 0, PSCID << 12, 8 << 60 | ROOT >> 12]);
    assert!(matches!(m.read(IOVA), Outcome::Fault(f) if f.cause() == 13 && !f.reported));
    m.dc([1, 0, PSCID << 12, 8 << 60 | ROOT >> 12]);
    assert!(matches!(m.read(IOVA), Outcome::Fault(f) if f.cause() == 13 && f.reported));
    m.dc([1 << 4, 0, 0, 0]);
    assert!(matches!(m.read(IOVA), Outcome::Fault(f) if f.cause() == 258 && f.reported));
}

/// Cause for a device context that differs from a good one in these words.
fn dc_cause(caps: u64, choices: Choices, words: [u64; 4]) -> Result<(u16, &'static str), Outcome> {
    let mut m = Machine::with_choices(caps, choices);
    m.dc(words);
    m.map(IOVA, pte(0x9000_0000, RW));
    match m.read(IOVA) {
        Outcome::Fault(f) => Ok((f.cause(), f.clause)),
        other => Err(other),
    }
}

#[test]
fn each_device_context_check() {
    let good = [1, 0, PSCID << 12, 8 << 60 | ROOT >> 12];
    assert!(matches!(
        dc_cause(CAPS, Choices::default(), good),
        Err(Outcome::Ok(_))
    ));
    // Custom bits of tc are no fault.
    let custom = [1 | 0xff << 24, good[1], good[2], good[3]];
    assert!(matches!(
        dc_cause(CAPS, Choices::default(), custom),
        Err(Outcome::Ok(_))
    ));
    let tc = |bits: u64| [1 | bits, good[1], good[2], good[3]];
    let ats = CAPS | 1 << 25;
    let cases: &[(u64, [u64; 4], &str)] = &[
        (CAPS, tc(1 << 12), "item 1"),
        (CAPS, tc(1 << 23), "item 1"),
        (CAPS, tc(1 << 32), "item 1"),
        (CAPS, tc(1 << 63), "item 1"),
        (CAPS, [1, 0, 1, good[3]], "item 1"),
        (CAPS, [1, 0, 1 << 32, good[3]], "item 1"),
        (CAPS, [1, 0, 1 << 40, good[3]], "item 1"),
        (CAPS, [1, 0, 0, good[3] | 1 << 44], "item 1"),
        (CAPS, tc(1 << 1), "item 2"),
        (CAPS, tc(1 << 2), "item 2"),
        (CAPS, tc(1 << 6), "item 2"),
        (ats, tc(1 << 3), "item 3"),
        (ats, tc(1 << 2), "item 4"),
        (ats, tc(1 << 1 | 1 << 6), "item 5"),
        (ats, tc(1 << 1 | 1 << 3), "item 6"),
        (ats | 1 << 26, tc(1 << 1 | 1 << 3), "item 7"),
        (CAPS, [1 | 1 << 5, 0, 0, 1 << 60], "item 8"),
        (CAPS | 1 << 38, [1 | 1 << 5, 0, 0, 2 << 60], "item 8"),
        (CAPS, [1, 0, 0, 1 << 60], "item 9"),
        (CAPS, [1, 0, 0, 11 << 60], "item 9"),
        (CAPS, [1, 0, 0, 14 << 60], "item 10"),
        (CAPS & !SV48, [1, 0, 0, 9 << 60 | ROOT >> 12], "item 10"),
        (CAPS & !SV57, [1, 0, 0, 10 << 60 | ROOT >> 12], "item 10"),
        (CAPS, tc(1 << 9), "item 12"),
        (CAPS, [1, 1 << 60, 0, good[3]], "item 13"),
        (CAPS, [1, 8 << 60, 0, good[3]], "item 14"),
        (CAPS | 1 << 17, [1, 9 << 60, 0, good[3]], "item 14"),
        (CAPS | 1 << 17, [1, 8 << 60 | 1, 0, good[3]], "item 17"),
        (CAPS, tc(1 << 7), "item 18"),
        (CAPS, tc(1 << 8), "item 18"),
        (CAPS, tc(1 << 10), "item 19"),
        (CAPS | 1 << 8, tc(1 << 11), "item 20"),
    ];
    for (caps, words, item) in cases {
        let (cause, clause) = dc_cause(*caps, Choices::default(), *words).expect(item);
        assert_eq!(cause, 259, "{item}");
        assert!(clause.ends_with(item), "{words:x?}: {clause}, not {item}");
    }
    let writable = Choices {
        gxl_writable: true,
        ..Choices::default()
    };
    let (_, clause) = dc_cause(CAPS, writable, tc(1 << 11)).unwrap();
    assert!(clause.ends_with("item 11"));
    let narrow = Choices {
        qos_id_bits: (4, 4),
        ..Choices::default()
    };
    for ta in [1 << 44, 1 << 56] {
        let words = [1, 0, ta, good[3]];
        let (_, clause) = dc_cause(CAPS | 1 << 41, narrow.clone(), words).unwrap();
        assert!(clause.ends_with("item 22"));
    }
    let wide = Choices {
        wide_address: WideAddress::Misconfigured,
        ..Choices::default()
    };
    let caps = CAPS & !PAS56 | 40 << 32;
    let words = [1, 0, 0, 8 << 60 | 1 << 30];
    assert_eq!(dc_cause(caps, wide, words).unwrap().0, 259);
    assert_eq!(dc_cause(caps, Choices::default(), words).unwrap().0, 5);
}

#[test]
fn extended_device_context() {
    let mut m = Machine::new(CAPS | MSI_FLAT);
    m.map(IOVA, pte(0x9000_0000, RW));
    assert_eq!(m.cause(IOVA, false), 0);
    let at = m.dc_at();
    for (word, bits, clause) in [
        (4, 1 << 44, "item 1"),
        (4, 2 << 60, "item 16"),
        (5, 1 << 52, "item 1"),
        (6, 1 << 52, "item 1"),
        (7, 1, "item 1"),
        (4, 1 << 60, "(MSI page table without second stage)"),
    ] {
        m.store(at + 8 * word, bits);
        match m.read(IOVA) {
            Outcome::Fault(f) => assert!(f.cause() == 259 && f.clause.ends_with(clause)),
            other => panic!("{other:?}"),
        }
        m.store(at + 8 * word, 0);
    }
    let wide = Request::untranslated(1 << 6, IOVA, false);
    assert!(matches!(m.judge.translate(&m.memory, &wide), Outcome::Fault(f) if f.cause() == 260));
}

proptest! {
    /// A page that is mapped translates to its frame, and only its own page does.
    #[test]
    fn random_mappings(
        pages in proptest::collection::btree_map(0u64..1 << 27, (0u64..1 << 44, 0u64..3), 1..20),
        other in 0u64..1 << 27,
        offset in 0u64..4096,
    ) {
        let mut m = Machine::new(CAPS);
        let iova = |page: u64| ((page << 37) as i64 >> 25) as u64;
        for (&page, &(frame, pbmt)) in &pages {
            m.map(iova(page), pte(frame << 12, RW | pbmt << 61));
        }
        for (&page, &(frame, pbmt)) in &pages {
            let (spa, got, size) = translated(m.read(iova(page) + offset));
            prop_assert_eq!((spa, got as u64, size), (frame << 12 | offset, pbmt, 4096));
        }
        if !pages.contains_key(&other) {
            prop_assert_eq!(m.cause(iova(other), false), 13);
        }
    }

    /// No content of a table makes the walker do anything but answer.
    #[test]
    fn random_tables(words in proptest::collection::vec(any::<u64>(), 12), iova: u64, write: bool) {
        let mut m = Machine::new(CAPS);
        let at = m.dc_at();
        for (i, w) in words[..4].iter().enumerate() {
            m.store(at + 8 * i as u64, *w);
        }
        let request = Request::untranslated(DID, iova, write);
        let _ = m.judge.translate(&m.memory, &request);
        m.dc([1, 0, 0, 8 << 60 | ROOT >> 12]);
        for (i, w) in words[4..].iter().enumerate() {
            let table = 0x8000_0000 + (w & 0xf000);
            m.store(ROOT + 8 * ((iova >> 30) & 511), pte(table, *w & 0xff | V));
            m.store(table + 8 * ((iova >> 21) & 511), *w);
            let outcome = m.judge.translate(&m.memory, &request);
            if let Outcome::Ok(t) = outcome {
                prop_assert_eq!(t.spa.0 & 0xfff, iova & 0xfff, "{}", i);
                prop_assert!(t.spa < PhysAddr(1 << 56));
            }
        }
    }
}
