//! The checks can fail: an answer or a record with one field changed is reported, and by the
//! name of that field.

use tlproof_golden::iommu::{Actual, Field, Status};
use tlproof_pcie::PhysAddr;

use crate::directed::{Setup, read};
use crate::tables::pte;

const IOVA: u64 = 0x12_3456_7000;

/// What the judge says of the answer to a read of [`IOVA`] after `change`.
fn verdict(s: &mut Setup, change: impl Fn(&mut Actual)) -> Option<(Field, String, String)> {
    let answer = s.read(IOVA);
    let mut actual = answer.actual;
    change(&mut actual);
    let (judge, memory) = (&mut s.bench.judge, &s.bench.memory);
    let verdict = judge.check(memory, &answer.request, answer.since, &actual);
    verdict.err().map(|m| (m.field, m.expected, m.got))
}

#[test]
fn translations() {
    let mut s = Setup::new();
    assert_eq!(verdict(&mut s, |_| {}), None);
    for bit in 0..56 {
        let (field, expected, got) =
            verdict(&mut s, |a| a.spa = PhysAddr(a.spa.0 ^ 1 << bit)).expect("a mismatch");
        assert_eq!(field, Field::Address, "bit {bit}");
        assert_ne!(expected, got);
    }
    for pbmt in 1..4 {
        let wrong = verdict(&mut s, |a| a.pbmt = pbmt).expect("a mismatch");
        assert_eq!(wrong.0, Field::MemoryType);
        assert_eq!(wrong.1, "PMA");
    }
    let wrong = verdict(&mut s, |a| {
        a.status = Status::UnsupportedRequest;
        a.cause = 13;
    });
    assert_eq!(wrong.expect("a mismatch").0, Field::Status);
}

#[test]
fn faults() {
    let mut s = Setup::new();
    s.leaf(pte::at(0x8_0000_0000, pte::ALL & !pte::A));
    assert_eq!(verdict(&mut s, |_| {}), None);
    for cause in [1, 5, 7, 12, 15, 256, 257, 258, 259, 260] {
        let wrong = verdict(&mut s, |a| a.cause = cause).expect("a mismatch");
        let expected = (Field::Cause, "13".to_owned(), cause.to_string());
        assert_eq!(wrong, expected);
    }
    let wrong = verdict(&mut s, |a| a.status = Status::CompleterAbort);
    assert_eq!(wrong.expect("a mismatch").0, Field::Status);
    let wrong = verdict(&mut s, |a| {
        a.status = Status::Ok;
        a.cause = 0;
    });
    assert_eq!(wrong.expect("a mismatch").0, Field::Status);
}

#[test]
fn records() {
    // CAUSE, PV, PRIV, TTYP, iotval, iotval2.
    let fields = [
        (0, 0, "CAUSE"),
        (0, 32, "PV"),
        (0, 33, "PRIV"),
        (0, 34, "TTYP"),
        (2, 5, "iotval"),
        (3, 0, "iotval2"),
    ];
    for (word, bit, name) in fields {
        let mut s = Setup::new();
        s.read(IOVA + 0x1000);
        s.bench.run(100);
        let mut records = s.bench.take_faults();
        assert_eq!(records.len(), 1);
        records[0][word] ^= 1 << bit;
        let wrong = s.bench.judge.compare_fault_queue(&records);
        assert_eq!(wrong.len(), 1, "{name}");
        assert_eq!(wrong[0].field, Field::FaultRecord);
        assert!(wrong[0].expected.starts_with(name), "{}", wrong[0]);
    }
    // A record too many, and one that is missing.
    let mut s = Setup::new();
    s.read(IOVA + 0x1000);
    s.bench.run(100);
    let record = s.bench.take_faults()[0];
    let wrong = s.bench.judge.compare_fault_queue(&[record, record]);
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].expected, "no record");
    s.bench.translate(read(IOVA + 0x2000));
    let missing = s.bench.judge.missing_fault_records();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].got, "no record");
}
