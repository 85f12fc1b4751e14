//! The fabric judge: completions.

use tlproof_golden::{Judge, Tap};
use tlproof_pcie::{Bdf, BusAddr, Head};

use crate::bench::*;
use crate::streams::*;

#[test]
fn completions_answer_the_request() {
    type Tamper = fn(&mut Head);
    let cases: [(Tamper, &str); 8] = [
        (|h| h.hdr[1] ^= 1, "byte count"),
        (|h| h.hdr[2] ^= 4, "lower address"),
        (|h| h.hdr[1] |= 1 << 13, "status"),
        (|h| h.hdr[1] |= 9 << 24, "completer"),
        (|h| h.hdr[0] ^= 1 << 13, "attributes"),
        (|h| h.hdr[0] = h.hdr[0] & !0x3ff | 8, "completion boundary"),
        (|h| h.hdr[0] = h.hdr[0] & !0x3ff | 40, "length"),
        (|h| h.hdr[2] ^= 1 << 8, "arrival"),
    ];
    for (tamper, field) in cases {
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut steps = read(0, &request(0, false, BUFFER, 32, 1), &[64, 64]);
        tamper(head(&mut steps[5]));
        b.play(&steps[..6]);
        let v: Vec<_> =
            b.sb.violations()
                .iter()
                .map(|v| (v.judge, v.field))
                .collect();
        assert_eq!(v, [(Judge::Fabric, field)]);
    }
}

#[test]
fn every_byte_comes_once() {
    let steps = read(0, &request(0, false, BUFFER, 32, 1), &[64, 64]);
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&steps[..7]);
    b.only(Judge::Fabric, "completion");

    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&steps);
    b.play(&steps[7..8]);
    b.only(Judge::Fabric, "arrival");

    // Seen at the root port, lost below it.
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&steps[..8]);
    b.only(Judge::Fabric, "arrival");

    // The second half first.
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&steps[..6]);
    b.play(&steps[7..]);
    b.play(&steps[6..7]);
    let v = b.verdict();
    assert!(v.contains(&(Judge::Fabric, "order")), "{v:?}");
}

#[test]
fn access_faults_behind_the_memory_port() {
    let r = request(0, false, BUFFER, 16, 1);
    let h = Head::mem(&r);
    for (status, right) in [(1, true), (4, true), (0, false)] {
        let mut b = Bench::new();
        b.promise(dram(0));
        b.play(&read(0, &r, &[])[..4]);
        b.play(&[Step::Response(7, vec![], true, true)]);
        let c = completion(Bdf(0), &h, status, (0, 64, 64));
        b.play(&[Step::Tlp(Tap::RpTx(0), c, vec![])]);
        let fields: Vec<_> = b.sb.violations().iter().map(|v| v.field).collect();
        assert_eq!(fields, if right { vec![] } else { vec!["status"] });
    }
}

#[test]
fn a_refusal_has_the_status_of_the_iommu() {
    let mut b = Bench::off();
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    let mut steps = refused_read(0, &request(0, false, BUFFER, 1, 1));
    for s in &mut steps[3..] {
        head(s).hdr[1] ^= 5 << 13;
    }
    b.play(&steps);
    b.only(Judge::Fabric, "status");
}
