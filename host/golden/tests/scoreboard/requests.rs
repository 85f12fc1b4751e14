//! The fabric judge: requests.

use tlproof_golden::{Judge, MemRequest, Promise, Tap};
use tlproof_pcie::tlp::{self};
use tlproof_pcie::{Head, PhysAddr};

use crate::bench::*;
use crate::streams::*;

#[test]
fn header_rules() {
    type Tamper = fn(&mut tlp::MemRequest);
    let cases: [(Tamper, &str); 8] = [
        (|r| r.last_be = 1, "byte enables"),
        (|r| (r.len_dw, r.last_be) = (2, 0), "byte enables"),
        (
            |r| (r.len_dw, r.first_be, r.last_be) = (3, 0b1010, 15),
            "byte enables",
        ),
        (
            |r| (r.len_dw, r.first_be, r.last_be) = (3, 15, 0b1110),
            "byte enables",
        ),
        (
            |r| {
                (r.len_dw, r.last_be) = (2, 15);
                r.addr.0 = BUFFER + 4;
                r.first_be = 0b0111;
            },
            "byte enables",
        ),
        (|r| (r.len_dw, r.last_be) = (65, 15), "max payload size"),
        (
            |r| {
                (r.write, r.len_dw, r.last_be) = (false, 129, 15);
            },
            "max read request size",
        ),
        (
            |r| {
                r.addr.0 = 0x8000_0ffc;
                (r.len_dw, r.last_be) = (2, 15);
            },
            "4 KiB boundary",
        ),
    ];
    for (tamper, field) in cases {
        let mut b = Bench::new();
        b.promise(Promise {
            size: 0x2000,
            segments: vec![(PhysAddr(BUFFER), 0x2000)],
            ..dram(0)
        });
        let mut r = request(0, true, BUFFER, 1, 1);
        tamper(&mut r);
        let h = Head::mem(&r);
        b.play(&[Step::Tlp(Tap::EpTx(0), h, vec![])]);
        let v: Vec<_> =
            b.sb.violations()
                .iter()
                .map(|v| (v.judge, v.field))
                .collect();
        assert_eq!(v, [(Judge::Fabric, field)]);
    }
    // Holes are legal in an aligned quad word.
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut r = request(0, true, BUFFER, 2, 1);
    (r.first_be, r.last_be) = (0b1010, 0b0101);
    b.play(&write(0, &r));
    b.clean();
}

#[test]
fn four_dw_header_below_four_gib() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut h = Head::mem(&request(0, true, BUFFER, 1, 1));
    h.hdr[0] |= 1 << 29;
    (h.hdr[2], h.hdr[3]) = (0, BUFFER as u32);
    b.play(&[Step::Tlp(Tap::EpTx(0), h, vec![])]);
    assert_eq!(b.sb.violations()[0].field, "address format");
}

#[test]
fn tag_in_use() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let steps = read(0, &request(0, false, BUFFER, 1, 1), &[4]);
    b.play(&steps[..1]);
    b.play(&steps[..1]);
    assert_eq!(b.sb.violations()[0].field, "tag");
    assert_eq!(b.sb.violations().len(), 1);
}

#[test]
fn headers_are_kept() {
    type Tamper = fn(&mut Head);
    let cases: [(Tamper, &str); 8] = [
        (|h| h.hdr[1] ^= 1 << 16, "requester"),
        (|h| h.hdr[1] ^= 1 << 8, "tag"),
        (|h| h.hdr[0] ^= 2, "length"),
        (|h| h.hdr[0] ^= 1 << 12, "attributes"),
        (|h| h.hdr[0] ^= 1 << 20, "traffic class"),
        (|h| h.hdr[1] ^= 1, "byte enables"),
        (|h| h.hdr[2] ^= 0x100, "address"),
        (|h| h.pfx = Some(0x9100_0001), "prefix"),
    ];
    for (tamper, field) in cases {
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut steps = write(0, &request(0, true, BUFFER, 4, 1));
        tamper(head(&mut steps[1]));
        b.play(&steps[..2]);
        let v: Vec<_> =
            b.sb.violations()
                .iter()
                .map(|v| (v.judge, v.field))
                .collect();
        assert_eq!(v, [(Judge::Fabric, field)]);
    }
}

#[test]
fn memory_port_shows_the_tlp() {
    type Tamper = fn(&mut MemRequest);
    let cases: [(Tamper, &str); 4] = [
        (|r| r.len_dw = 3, "length"),
        (|r| r.first_be = 7, "byte enables"),
        (|r| r.requester = EP[1], "requester"),
        (|r| r.tlp_tag = 9, "tag"),
    ];
    for (tamper, field) in cases {
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut steps = write(0, &request(0, true, BUFFER, 4, 1));
        tamper(memory(&mut steps[4]));
        b.play(&steps);
        b.only(Judge::Fabric, field);
    }
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut steps = write(0, &request(0, true, BUFFER, 4, 1));
    memory(&mut steps[4]).addr.0 += 8;
    b.play(&steps);
    let v = b.verdict();
    assert_eq!(v, [(Judge::Fabric, "address"), (Judge::Promise, "address")]);
}

#[test]
fn nothing_is_lost_doubled_or_invented() {
    let steps = write(0, &request(0, true, BUFFER, 4, 1));
    for kept in 1..4 {
        let mut b = Bench::new();
        b.promise(dram(0));
        b.play(&steps[..kept]);
        b.only(Judge::Fabric, "arrival");
    }
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&steps);
    b.play(&steps[4..]);
    b.only(Judge::Fabric, "arrival");

    let mut b = Bench::new();
    b.play(&steps[1..2]);
    b.only(Judge::Fabric, "arrival");
}

#[test]
fn order_of_posted_requests() {
    let first = write(0, &request(0, true, BUFFER, 1, 1));
    let second = |relaxed| {
        let mut r = request(0, true, BUFFER + 0x40, 1, 2);
        r.relaxed = relaxed;
        write(0, &r)
    };
    for relaxed in [false, true] {
        let mut b = Bench::new();
        b.promise(dram(0));
        let second = second(relaxed);
        b.play(&first[..1]);
        b.play(&[Step::Payload(0, bytes(1, 1))]);
        b.play(&second);
        b.play(&first[1..3]);
        b.play(&first[4..]);
        if relaxed {
            b.clean();
        } else {
            let v = b.verdict();
            assert_eq!(v, [(Judge::Fabric, "order"); 2]);
        }
    }
}

#[test]
fn reads_do_not_pass_writes() {
    let first = write(0, &request(0, true, BUFFER, 1, 1));
    let second = read(0, &request(0, false, BUFFER, 1, 2), &[4]);
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&first[..2]);
    b.play(&[Step::Payload(0, bytes(1, 1))]);
    b.play(&second);
    b.play(&first[2..3]);
    b.play(&first[4..]);
    b.only(Judge::Fabric, "order");
    // Writes may pass reads.
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&second[..1]);
    b.play(&first);
    b.play(&second[1..]);
    b.clean();
}
