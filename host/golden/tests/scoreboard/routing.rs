//! The fabric judge: routing and Access Control Services.

use tlproof_golden::{Dest, Judge, Route, Tap, Translated};
use tlproof_pcie::tlp::{self, AddressType};
use tlproof_pcie::{Bdf, BusAddr, Head};

use crate::bench::*;
use crate::streams::*;

#[test]
fn peers_below_the_switch() {
    let r = request(0, true, BAR[1], 4, 1);
    let mut b = Bench::new();
    b.promise(peer(0, 1, Route::PeerBusAddress));
    b.play(&direct(0, 1, &r));
    b.clean();

    let mut b = Bench::new();
    b.acs(DN[0], RR);
    b.promise(peer(0, 1, Route::PeerThroughBridge));
    b.play(&bridged(0, 1, &r));
    b.clean();

    // A switch that ignores the redirect, and one that redirects unasked.
    let mut b = Bench::new();
    b.acs(DN[0], RR);
    b.sb.expect_rogue(EP[0], BusAddr(BAR[1]), 16, true);
    b.play(&direct(0, 1, &r));
    let v = b.verdict();
    assert_eq!(
        v,
        [(Judge::Fabric, "route"), (Judge::Promise, "permission")]
    );

    let mut b = Bench::new();
    b.promise(peer(0, 1, Route::PeerBusAddress));
    b.play(&bridged(0, 1, &r)[..2]);
    assert_eq!(b.sb.violations().len(), 1);
    assert_eq!(b.sb.violations()[0].field, "route");
}

#[test]
fn a_promised_route_is_taken() {
    let r = request(0, true, BAR[1], 4, 1);
    let mut b = Bench::new();
    b.acs(DN[0], RR);
    b.promise(peer(0, 1, Route::PeerBusAddress));
    b.play(&bridged(0, 1, &r));
    let v = b.verdict();
    assert!(
        v.iter().all(|v| *v == (Judge::Promise, "route")) && !v.is_empty(),
        "{v:?}"
    );
}

#[test]
fn peers_through_the_bridge() {
    for (from, to_peer) in [(0, 2), (2, 1)] {
        let mut b = Bench::new();
        b.promise(peer(from, to_peer, Route::PeerThroughBridge));
        b.play(&bridged(
            from,
            to_peer,
            &request(from, true, BAR[to_peer], 4, 1),
        ));
        b.clean();
    }
}

/// Endpoint 0 reads from endpoint 1 below the switch; the completion takes `way`.
fn peer_read(relaxed: bool, redirected: bool) -> Vec<Step> {
    let mut r = request(0, false, BAR[1], 4, 1);
    r.relaxed = relaxed;
    let h = Head::mem(&r);
    let c = completion(EP[1], &h, 0, (0, 16, 16));
    let data = bytes(4, 3);
    let mut steps = vec![
        Step::Tlp(Tap::EpTx(0), h, vec![]),
        Step::Tlp(Tap::EpRx(1), h, vec![]),
        Step::Tlp(Tap::EpTx(1), c, data.clone()),
    ];
    if redirected {
        steps.push(Step::Tlp(Tap::RpRx(0), c, vec![]));
        steps.push(Step::Tlp(Tap::RpTx(0), c, vec![]));
    }
    steps.push(Step::Tlp(Tap::EpRx(0), c, data));
    steps
}

#[test]
fn completion_redirect_is_for_completions_without_relaxed_ordering() {
    for (cr, relaxed, redirected) in [(0, false, false), (CR, false, true), (CR, true, false)] {
        let mut b = Bench::new();
        b.acs(DN[1], cr);
        b.promise(peer(0, 1, Route::PeerBusAddress));
        b.play(&peer_read(relaxed, redirected));
        b.clean();
        let mut b = Bench::new();
        b.acs(DN[1], cr);
        b.promise(peer(0, 1, Route::PeerBusAddress));
        b.play(&peer_read(relaxed, !redirected)[..4]);
        let v: Vec<_> =
            b.sb.violations()
                .iter()
                .map(|v| (v.judge, v.field))
                .collect();
        assert_eq!(v, [(Judge::Fabric, "route")]);
    }
}

#[test]
fn a_peer_completion_keeps_its_data() {
    let mut b = Bench::new();
    b.promise(peer(0, 1, Route::PeerBusAddress));
    let mut steps = peer_read(false, false);
    payload(&mut steps[3])[5] ^= 1;
    b.play(&steps);
    b.only(Judge::Promise, "payload");
}

/// A read of endpoint 0 that the switch refuses with `status`.
fn switch_refuses(r: &tlp::MemRequest, status: u32) -> Vec<Step> {
    let h = Head::mem(r);
    let c = completion(DN[0], &h, status, (0, 0, 4));
    vec![
        Step::Tlp(Tap::EpTx(0), h, vec![]),
        Step::Tlp(Tap::EpRx(0), c, vec![]),
    ]
}

#[test]
fn source_validation() {
    let mut r = request(0, false, BUFFER, 1, 1);
    r.requester = Bdf::new(3, 1, 0);
    // Another function of the bus passes.
    let mut b = Bench::off();
    b.acs(DN[0], SV);
    b.sb.expect_rogue(r.requester, BusAddr(BUFFER), 4, false);
    b.play(&refused_read(0, &r)[..3]);
    assert_eq!(b.sb.violations(), []);
    // Another bus does not.
    let mut r = request(0, true, BUFFER, 1, 1);
    r.requester = EP[1];
    let mut b = Bench::off();
    b.acs(DN[0], SV);
    b.sb.expect_rogue(EP[1], BusAddr(BUFFER), 4, true);
    let steps = write(0, &r);
    b.play(&steps[..1]);
    b.clean();
    b.play(&steps[..2]);
    b.only(Judge::Fabric, "route");
    assert!(b.sb.violations()[0].clause.contains("Source Validation"));
}

#[test]
fn a_violation_is_answered_with_ca() {
    // Another bus number under Source Validation; a forbidden peer under Egress Control.
    let mut spoofed = request(0, false, BUFFER, 1, 1);
    spoofed.requester = EP[1];
    let forbidden = request(0, false, BAR[1], 1, 1);
    for (r, bits) in [(spoofed, SV), (forbidden, EC)] {
        for (status, caught) in [(4, false), (1, true)] {
            let mut b = Bench::off();
            b.acs(DN[0], bits);
            b.sb.config_written(DN[0], 0x108, 4, 2);
            b.sb.expect_rogue(r.requester, r.addr, 4, false);
            b.play(&switch_refuses(&r, status));
            if caught {
                b.only(Judge::Fabric, "status");
            } else {
                b.clean();
            }
        }
    }
}

#[test]
fn egress_control_between_root_ports() {
    let r = request(2, false, BAR[1], 1, 1);
    let h = Head::mem(&r);
    let nowhere = Translated {
        dest: Dest::None,
        ..to(Dest::Peer(0), &r)
    };
    // (ACS, egress control vector of root port 1, destination, status) and what is wrong with it.
    for (bits, vector, t, status, wrong) in [
        (EC, 1, nowhere, 4, None),
        (EC, 1, nowhere, 1, Some("status")),
        (EC, 1, to(Dest::Peer(0), &r), 0, Some("destination")),
        (EC | RR, 1, nowhere, 1, Some("destination")),
        (EC, 2, nowhere, 1, Some("destination")),
    ] {
        let mut b = Bench::new();
        b.acs(RP[1], bits);
        b.sb.config_written(RP[1], 0x108, 4, vector);
        b.sb.expect_rogue(EP[2], r.addr, 4, false);
        b.play(&[
            Step::Tlp(Tap::EpTx(2), h, vec![]),
            Step::Tlp(Tap::RpRx(1), h, vec![]),
            Step::Translated(1, h, t),
        ]);
        if status != 0 {
            let c = completion(Bdf(0), &h, status, (0, 0, 4));
            b.play(&[
                Step::Tlp(Tap::RpTx(1), c, vec![]),
                Step::Tlp(Tap::EpRx(2), c, vec![]),
            ]);
        }
        let first = b.sb.violations().first().map(|v| v.field);
        assert_eq!(first, wrong, "ACS {bits:#x}, vector {vector}");
    }
}

#[test]
fn translation_blocking_and_direct_translated() {
    let mut r = request(0, false, BAR[1], 1, 1);
    r.at = AddressType::Translated;
    let setup = |bits| {
        let mut b = Bench::new();
        b.acs(DN[0], bits);
        b.promise(peer(0, 1, Route::PeerBusAddress));
        b
    };
    let mut b = setup(TB);
    b.sb.expect_rogue(EP[0], BusAddr(BAR[1]), 4, false);
    b.play(&switch_refuses(&r, 4));
    let v = b.verdict();
    // The mapping is live, so the promise judge has a word too.
    assert_eq!(v, [(Judge::Promise, "route")]);
    let mut b = setup(TB);
    b.play(&switch_refuses(&r, 1));
    let v = b.verdict();
    assert_eq!(v, [(Judge::Promise, "route"), (Judge::Fabric, "status")]);
    let mut b = setup(RR | DT);
    let h = Head::mem(&r);
    let c = completion(EP[1], &h, 0, (0, 4, 4));
    b.play(&[
        Step::Tlp(Tap::EpTx(0), h, vec![]),
        Step::Tlp(Tap::EpRx(1), h, vec![]),
        Step::Tlp(Tap::EpTx(1), c, vec![1; 4]),
        Step::Tlp(Tap::EpRx(0), c, vec![1; 4]),
    ]);
    b.clean();
}

#[test]
fn egress_control() {
    let r = request(0, true, BAR[1], 1, 1);
    // (ACS, vector) -> blocked, redirected, direct.
    for (bits, vector, way) in [
        (EC, 0, 'd'),
        (EC, 2, 'b'),
        (EC | RR, 0, 'd'),
        (EC | RR, 2, 'r'),
        (RR, 2, 'r'),
    ] {
        let mut b = Bench::off();
        b.acs(DN[0], bits);
        b.sb.config_written(DN[0], 0x108, 4, vector);
        b.sb.expect_rogue(EP[0], BusAddr(BAR[1]), 4, true);
        match way {
            'd' => {
                b.play(&direct(0, 1, &r));
                b.only(Judge::Promise, "permission");
            }
            'b' => {
                b.play(&direct(0, 1, &r)[..1]);
                b.clean();
                b.play(&direct(0, 1, &r));
                b.only(Judge::Fabric, "route");
            }
            _ => {
                let mut steps = bridged(0, 1, &r);
                *translated(&mut steps[2]) = refused();
                b.play(&steps[..3]);
                b.clean();
            }
        }
    }
}

#[test]
fn upstream_forwarding_and_windows() {
    // Its own window.
    let r = request(0, false, BAR[0], 1, 1);
    let mut b = Bench::off();
    b.sb.expect_rogue(EP[0], BusAddr(BAR[0]), 4, false);
    b.play(&switch_refuses(&r, 1));
    b.clean();
    let mut b = Bench::off();
    b.acs(DN[0], UF);
    b.sb.expect_rogue(EP[0], BusAddr(BAR[0]), 4, false);
    b.play(&refused_read(0, &r));
    b.clean();
    // Memory space of the peer's port disabled: nobody's.
    let r = request(0, false, BAR[1], 1, 1);
    let mut b = Bench::off();
    b.sb.config_written(DN[1], 4, 2, 4);
    b.sb.expect_rogue(EP[0], BusAddr(BAR[1]), 4, false);
    b.play(&switch_refuses(&r, 1));
    b.clean();
    // Bus mastering disabled at the port.
    let r = request(0, false, BUFFER, 1, 1);
    let mut b = Bench::off();
    b.sb.config_written(DN[0], 4, 2, 2);
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    b.play(&switch_refuses(&r, 1));
    b.clean();
    let mut b = Bench::off();
    b.sb.config_written(DN[0], 4, 2, 2);
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    b.play(&refused_read(0, &r)[..2]);
    assert_eq!(b.sb.violations()[0].field, "route");
}
