//! Everything as it should be.

use tlproof_golden::{Rule, Tap};
use tlproof_pcie::{Bdf, BusAddr, Head};

use crate::bench::*;
use crate::streams::*;

/// What is granted and what is refused is counted where it is decided, not only where it fails.
#[test]
fn permission_refusal_and_arrival_are_counted() {
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&write(0, &request(0, true, BUFFER, 8, 1)));
    b.play(&read(0, &request(0, false, BUFFER, 1, 2), &[4]));
    b.clean();
    let checked = |b: &Bench, rule| b.sb.stats().count(rule);
    assert_eq!(checked(&b, Rule::PromisePermission), 2);
    assert_eq!(checked(&b, Rule::PromiseBlocked), 0);
    assert_eq!(checked(&b, Rule::Arrival), b.sb.stats().tlps);

    let mut b = Bench::off();
    let id = b.sb.expect_rogue(EP[0], BusAddr(0x9000_0000), 4, false);
    b.play(&refused_read(0, &request(0, false, 0x9000_0000, 1, 1)));
    b.sb.rogue_done(id);
    b.clean();
    assert_eq!(checked(&b, Rule::PromisePermission), 0);
    assert_eq!(checked(&b, Rule::PromiseBlocked), 1);
}

#[test]
fn reads_and_writes_of_every_endpoint_are_followed() {
    for n in 0..3 {
        let mut b = Bench::new();
        b.promise(dram(n));
        b.play(&write(n, &request(n, true, BUFFER, 8, 1)));
        b.play(&read(
            n,
            &request(n, false, BUFFER + 4, 32, 2),
            &[60, 64, 4],
        ));
        b.clean();
        let s = b.sb.stats();
        assert_eq!(s.tlps, 5);
        assert_eq!(s.rows, [2, 3, 2, 3, 2, 2]);
        for rule in [
            Rule::PromiseRequest,
            Rule::PromiseRequester,
            Rule::PromiseAddress,
            Rule::PromiseMemoryType,
            Rule::PromiseState,
            Rule::PromiseRoute,
            Rule::Payload,
            Rule::Translation,
            Rule::Attributes,
            Rule::Destination,
            Rule::RequestHeader,
            Rule::Route,
            Rule::Header,
            Rule::Order,
            Rule::Completion,
            Rule::Arrival,
        ] {
            assert!(s.count(rule) > 0, "{}", rule.name());
            assert_eq!(s.failures(rule), 0);
        }
    }
}

#[test]
fn partial_byte_enables_and_zero_length_reads() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut r = request(0, true, BUFFER, 1, 1);
    r.first_be = 0b0110;
    let mut steps = write(0, &r);
    // A byte that is not enabled carries nothing.
    payload(&mut steps[4])[0] ^= 0xff;
    b.play(&steps);
    let mut r = request(0, false, BUFFER, 3, 2);
    (r.first_be, r.last_be) = (0b1000, 0b0011);
    b.play(&read(0, &r, &[7]));
    let mut r = request(0, false, BUFFER, 1, 3);
    r.first_be = 0;
    let h = Head::mem(&r);
    let c = completion(Bdf(0), &h, 0, (0, 1, 1));
    let mut steps = read(0, &r, &[]);
    steps.push(Step::Tlp(Tap::RpTx(0), c, vec![]));
    steps.push(Step::Tlp(Tap::EpRx(0), c, vec![9; 4]));
    b.play(&steps);
    b.clean();
}

#[test]
fn completions_of_two_reads_may_interleave_and_reads_may_be_answered_in_any_order() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let first = read(0, &request(0, false, BUFFER, 32, 1), &[64, 64]);
    let mut second = read(0, &request(0, false, BUFFER + 0x200, 16, 2), &[64]);
    memory(&mut second[3]).port_tag = 8;
    if let Step::Response(tag, ..) = &mut second[4] {
        *tag = 8;
    }
    b.play(&first[..4]);
    b.play(&second[..4]);
    b.play(&second[4..]);
    b.play(&first[4..]);
    b.clean();
}
