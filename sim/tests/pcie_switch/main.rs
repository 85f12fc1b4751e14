//! The switch between its three links: configuration, routing, Access Control Services, ordering.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;
mod bench;
mod model;
mod traffic;

use tlproof_pcie::{Bdf, CplStatus};

use bench::*;
use common::{COMPLETION, Checked, NON_POSTED, POSTED, Tlp};

#[test]
fn enumeration() -> Checked {
    let mut b = Bench::reset(1)?;
    for (register, due) in [
        (0, 0x000d_1b36),
        (8, 0x0604_0000),
        (0x40, 0x0052_0010),
        (0x100, 0),
    ] {
        let value = b.get(UP_FN, register)?;
        ensure!(
            value == due,
            "upstream port {register:#x}: {value:#x}, not {due:#x}"
        );
    }
    // Nothing is below before the bus numbers are written.
    let cpl = b.config(DN_FN[0], 0, 0xf, None)?;
    ensure!(
        cpl.head.status() == CplStatus::UnsupportedRequest,
        "{:x?}",
        cpl.head
    );
    b.set(UP_FN, 0x18, 0x04_02_01)?;
    for (register, due) in [
        (0, 0x000d_1b36),
        (0x40, 0x0062_0010),
        (0x100, 0x0001_000d),
        (0x104, 0x0000_023d),
    ] {
        for function in DN_FN {
            let value = b.get(function, register)?;
            ensure!(
                value == due,
                "{function} {register:#x}: {value:#x}, not {due:#x}"
            );
        }
    }
    let cpl = b.config(Bdf(0x0210), 0, 0xf, None)?;
    ensure!(
        cpl.head.status() == CplStatus::UnsupportedRequest,
        "device 2: {:x?}",
        cpl.head
    );
    ensure!(
        cpl.head.completer() == UP_FN,
        "completer {}",
        cpl.head.completer()
    );
    // A write of single bytes, and the read-only bits of a window.
    b.set(DN_FN[1], 0x24, 0x0010_0010)?;
    ensure!(
        b.get(DN_FN[1], 0x24)? == 0x0011_0011,
        "prefetchable window is 64-bit"
    );
    b.config(DN_FN[1], 0x24, 0b0100, Some(0xffff_ffff))?;
    ensure!(b.get(DN_FN[1], 0x24)? == 0x00f1_0011, "byte enables");
    // A port's own bit of its egress control vector is not there.
    b.set(DN_FN[1], 0x108, 0xffff_ffff)?;
    ensure!(b.get(DN_FN[1], 0x108)? == 1, "egress control vector");
    Ok(())
}

#[test]
fn configuration_requests_below() -> Checked {
    let mut b = Bench::enumerated(2)?;
    for value in [None, Some(0x1234_5678)] {
        // Type 1 becomes Type 0 on the last bus (PCIe 6.0 §7.3.3).
        for n in 0..2 {
            let above = Tlp::config(true, BELOW[n], 0x10, 0xf, value);
            let below = Tlp::config(false, BELOW[n], 0x10, 0xf, value);
            b.goes(UP, &above, DN[n], &below)?;
        }
        // A link has one device; there is no bus 7.
        b.refused(
            UP,
            &Tlp::config(true, Bdf(BELOW[0].0 | 8), 0x10, 0xf, value),
        )?;
        b.refused(UP, &Tlp::config(true, Bdf(0x0700), 0x10, 0xf, value))?;
        b.refused(UP, &Tlp::config(false, Bdf(UP_FN.0 | 1), 0x10, 0xf, value))?;
    }
    // Further down it stays Type 1, inside the upstream port's buses only.
    let further = Tlp::config(true, Bdf(0x0508), 0x10, 0xf, None);
    b.set(DN_FN[1], 0x18, 0x05_04_02)?;
    b.refused(UP, &further)?;
    b.set(UP_FN, 0x18, 0x05_02_01)?;
    b.passes(UP, &further, DN[1])?;
    // Configuration requests go down only.
    b.refused(
        DN[0],
        &Tlp::config(false, UP_FN, 0, 0xf, None).with_requester(BELOW[0]),
    )
}

#[test]
fn memory_requests() -> Checked {
    let mut b = Bench::enumerated(3)?;
    for n in 0..2 {
        let (peer, own) = (1 - n, BELOW[n]);
        for base in [MEM, PREFETCH] {
            for offset in [0, 0xf_fff0] {
                b.passes(UP, &read(base[n] + offset, Bdf(0)), DN[n])?;
                b.passes(UP, &write(base[n] + offset, Bdf(0), 4), DN[n])?;
                b.passes(DN[n], &read(base[peer] + offset, own), DN[peer])?;
                b.passes(DN[n], &write(base[peer] + offset, own, 3), DN[peer])?;
            }
            // In the upstream port's window and in no other: nobody's; in the own one as well.
            for addr in [base[2], base[n]] {
                b.refused(DN[n], &read(addr, own))?;
                b.refused(DN[n], &write(addr, own, 2))?;
            }
            b.refused(UP, &read(base[2], Bdf(0)))?;
            b.refused(UP, &write(base[2], Bdf(0), 2))?;
        }
        b.passes(DN[n], &read(ABOVE, own), UP)?;
        b.passes(DN[n], &write(ABOVE, own, 128), UP)?;
    }
    b.refused(UP, &read(ABOVE, Bdf(0)))?;
    b.refused(UP, &write(ABOVE, Bdf(0), 1))?;

    // Command: Memory Space Enable towards below, Bus Master Enable towards above.
    b.set(DN_FN[0], 0x04, 4)?;
    b.refused(UP, &read(MEM[0], Bdf(0)))?;
    b.passes(UP, &read(MEM[1], Bdf(0)), DN[1])?;
    b.set(DN_FN[0], 0x04, 2)?;
    b.passes(UP, &read(MEM[0], Bdf(0)), DN[0])?;
    b.refused(DN[0], &read(ABOVE, BELOW[0]))?;
    b.refused(DN[0], &write(ABOVE, BELOW[0], 1))?;
    b.set(DN_FN[0], 0x04, 6)?;
    b.set(UP_FN, 0x04, 2)?;
    b.refused(DN[0], &read(ABOVE, BELOW[0]))?;
    b.passes(DN[0], &read(MEM[1], BELOW[0]), DN[1])?;
    b.set(UP_FN, 0x04, 4)?;
    b.refused(UP, &read(MEM[0], Bdf(0)))
}

#[test]
fn completions_and_messages() -> Checked {
    let mut b = Bench::enumerated(4)?;
    for n in 0..2 {
        b.passes(UP, &completion(Bdf(0), BELOW[n], false), DN[n])?;
        b.passes(DN[n], &completion(BELOW[n], Bdf(0), false), UP)?;
        b.passes(DN[n], &completion(BELOW[n], BELOW[1 - n], false), DN[1 - n])?;
        b.refused(DN[n], &completion(BELOW[n], BELOW[n], false))?;
        // Routed to the root, and by ID (PCIe 6.0 Table 2-20).
        b.passes(DN[n], &Tlp::message(0, BELOW[n], 0x20, Bdf(0)), UP)?;
        b.passes(UP, &Tlp::message(2, Bdf(0), 0x7f, BELOW[n]), DN[n])?;
        b.refused(DN[n], &Tlp::message(3, BELOW[n], 0x19, Bdf(0)))?;
    }
    b.refused(UP, &completion(Bdf(0), Bdf(0x0700), false))?;
    b.refused(UP, &Tlp::message(4, Bdf(0), 0x14, Bdf(0)))?;
    let broadcast = Tlp::message(3, Bdf(0), 0x19, Bdf(0));
    let out = b.send(UP, broadcast.clone())?;
    ensure!(
        out == [(DN[0], broadcast.clone()), (DN[1], broadcast)],
        "broadcast: {out:x?}"
    );
    Ok(())
}

#[test]
fn access_control_services() -> Checked {
    let mut b = Bench::enumerated(5)?;
    let own = BELOW[0];
    let from = DN[0];
    let (to_peer, posted_to_peer) = (read(MEM[1], own), write(PREFETCH[1], own, 2));

    // Source Validation: bus numbers from elsewhere (§6.12.1.1).
    b.acs(0, SV, 0)?;
    for wrong in [BELOW[1], Bdf(0), DN_FN[0]] {
        b.violates(from, &read(ABOVE, wrong).with_tag(0x2a))?;
        b.violates(from, &write(ABOVE, wrong, 2))?;
        b.violates(from, &write(MEM[1], wrong, 2))?;
    }
    b.passes(from, &read(ABOVE, own), UP)?;
    b.passes(from, &write(ABOVE, own, 2), UP)?;
    // What nobody claims is no violation.
    b.refused(from, &read(MEM[2], own))?;
    ensure!(b.get(DN_FN[0], 0x1c)? == 0, "Secondary Status after UR");
    b.acs(0, 0, 0)?;
    b.passes(from, &write(ABOVE, BELOW[1], 2), UP)?;

    // Request Redirect, at the port that has it only.
    b.acs(0, RR, 0)?;
    b.passes(from, &to_peer, UP)?;
    b.passes(from, &posted_to_peer, UP)?;
    b.passes(DN[1], &read(MEM[0], BELOW[1]), DN[0])?;
    b.passes(from, &completion(own, BELOW[1], false), DN[1])?;

    // Egress Control alone blocks; with Request Redirect it says what is redirected (§6.12.3).
    for (control, vector, port) in [
        (EC, 0, Some(DN[1])),
        (EC, 2, None),
        (EC | RR, 0, Some(DN[1])),
        (EC | RR, 2, Some(UP)),
    ] {
        b.acs(0, control, vector)?;
        for tlp in [&to_peer, &posted_to_peer] {
            match port {
                Some(port) => b.passes(from, tlp, port)?,
                None => b.violates(from, &tlp.clone().with_tag(0x15))?,
            }
        }
    }

    // Completion Redirect spares Relaxed Ordering (§6.12.1.1).
    b.acs(0, CR, 0)?;
    b.passes(from, &completion(own, BELOW[1], false), UP)?;
    b.passes(from, &completion(own, BELOW[1], true), DN[1])?;
    b.passes(from, &to_peer, DN[1])?;

    // Upstream Forwarding: what is for the own side of the link goes up all the same.
    b.acs(0, UF, 0)?;
    b.passes(from, &read(MEM[0], own), UP)
}

#[test]
fn order_of_classes() -> Checked {
    let mut b = Bench::enumerated(6)?;
    // A posted request passes reads that are not taken (PCIe 6.0 §2.4.1, Table 2-41).
    b.sinks[UP].readiness[NON_POSTED] = 0;
    for tag in 0..40 {
        b.sources[DN[0]].send(read(ABOVE, BELOW[0]).with_tag(tag));
    }
    b.run(200)?;
    ensure!(b.received[UP].is_empty(), "a read through a closed door");
    ensure!(
        b.sources[DN[0]].waiting(NON_POSTED) > 0,
        "the buffer took everything"
    );
    b.sources[DN[0]].send(write(ABOVE, BELOW[0], 64));
    b.sources[DN[0]].send(completion(BELOW[0], Bdf(0), false));
    b.run(200)?;
    let classes: Vec<_> = b.received[UP].iter().map(Tlp::class).collect();
    ensure!(
        classes == [POSTED, COMPLETION],
        "{classes:?} passed blocked reads"
    );
    b.sinks[UP].readiness[NON_POSTED] = 100;
    b.drain()?;
    let tags: Vec<_> = b.received[UP]
        .drain(..)
        .skip(2)
        .map(|t| t.head.tag())
        .collect();
    ensure!(
        tags == (0..40).collect::<Vec<_>>(),
        "order of reads: {tags:?}"
    );

    // Neither a read nor a completion passes a posted request.
    b.sinks[UP].readiness[POSTED] = 0;
    b.sources[DN[0]].send(write(ABOVE, BELOW[0], 64));
    b.sources[DN[0]].send(read(ABOVE, BELOW[0]));
    b.sources[DN[0]].send(completion(BELOW[0], Bdf(0), false));
    b.run(200)?;
    ensure!(
        b.received[UP].is_empty(),
        "{:x?} passed a write",
        b.received[UP]
    );
    ensure!(
        b.sources[DN[0]].is_empty(),
        "the switch did not take the read"
    );
    // From the other port there is no order.
    b.sources[DN[1]].send(read(ABOVE, BELOW[1]));
    b.run(200)?;
    ensure!(
        b.received[UP].len() == 1,
        "the other port's read is held up"
    );
    b.sinks[UP].readiness[POSTED] = 100;
    b.drain()?;
    ensure!(b.received[UP].len() == 4, "{} TLPs", b.received[UP].len());
    ensure!(
        b.received[UP][1].class() == POSTED,
        "the write is not first"
    );
    Ok(())
}
