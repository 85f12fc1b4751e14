//! Random traffic among all ports.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tlproof_pcie::{Bdf, CplStatus};

use crate::bench::*;
use crate::common::{Checked, Tlp, bytes, percent, plain};
use crate::model::Fabric;

/// A TLP that may come from `port`; `serial` makes it unlike all others.
fn random_tlp(rng: &mut ChaCha8Rng, port: usize, serial: u64) -> Tlp {
    let own = if port == UP { Bdf(0) } else { BELOW[port - 1] };
    let requester = if percent(rng, 10) {
        Bdf(rng.random_range(0..0x500))
    } else {
        own
    };
    let tag = serial as u16 & 0x3ff;
    let block = match rng.random_range(0..6) {
        0 | 1 => ABOVE,
        2 => MEM[0],
        3 => MEM[1],
        4 => PREFETCH[rng.random_range(0..2)],
        _ => MEM[2],
    };
    let dws = rng.random_range(1..=128);
    let last = if dws == 1 { 0 } else { 0xf };
    let addr = block + rng.random_range(0..0xff0) * 256;
    let shape = plain(false, addr, (dws, 0xf, last));
    let mut tlp = match rng.random_range(0..8) {
        0..3 => Tlp::write(&shape, bytes(rng, 4 * usize::from(dws))).with_requester(requester),
        3..6 => Tlp::read(&shape).with_requester(requester),
        6 if port == UP => {
            let value = rng.random::<bool>().then(|| rng.random());
            Tlp::config(true, BELOW[rng.random_range(0..2)], 0x10, 0xf, value)
        }
        _ => {
            let to = [Bdf(0), BELOW[0], BELOW[1]][rng.random_range(0..3)];
            let request = read(addr, to).with_tag(tag).head;
            let data = bytes(rng, 4 * usize::from(dws));
            let left = data.len() as u64;
            return with_attr(
                rng,
                Tlp::completion(&request, own, CplStatus::Success, left, addr, data),
            );
        }
    };
    tlp = tlp.with_tag(tag);
    with_attr(rng, tlp)
}

/// Random Relaxed Ordering and No Snoop; configuration requests have none.
fn with_attr(rng: &mut ChaCha8Rng, mut tlp: Tlp) -> Tlp {
    if !tlp.head.is_cfg() {
        tlp.head.hdr[0] |= rng.random_range(0..4) << 12;
    }
    tlp
}

/// Random traffic among all ports, with the ACS controls in the switch and in the model.
fn traffic(b: &mut Bench, set: [(u32, u32); 2], model: [(u32, u32); 2]) -> Checked {
    for (n, (control, vector)) in set.into_iter().enumerate() {
        b.acs(n, control, vector)?;
    }
    let mut fabric = Fabric::new(model);
    for p in 0..3 {
        b.sources[p].bubbles = b.rng.random_range(0..60);
        for class in 0..3 {
            b.sinks[p].readiness[class] = b.rng.random_range(20..=100);
        }
    }
    let mut serial = 0;
    for _ in 0..4000 {
        for p in 0..3 {
            // Short queues: what is sent and what is due stay near each other.
            let waiting: usize = (0..3).map(|c| b.sources[p].waiting(c)).sum();
            if waiting < 6 && percent(&mut b.rng, 15) {
                let tlp = random_tlp(&mut b.rng, p, serial);
                serial += 1;
                fabric.send(p, &tlp);
                b.sources[p].send(tlp);
            }
        }
        b.step()?;
        for p in 0..3 {
            while let Some(tlp) = b.received[p].pop_front() {
                fabric.receive(p, &tlp)?;
            }
        }
    }
    for p in 0..3 {
        b.sources[p].bubbles = 0;
        b.sinks[p].readiness = [100; 3];
    }
    b.drain()?;
    for p in 0..3 {
        while let Some(tlp) = b.received[p].pop_front() {
            fabric.receive(p, &tlp)?;
        }
    }
    ensure!(fabric.is_empty(), "TLPs were lost");
    ensure!(serial > 500, "only {serial} TLPs: too few to tell");
    Ok(())
}

#[test]
fn random_traffic() -> Checked {
    let mut b = Bench::enumerated(7)?;
    traffic(&mut b, [(0, 0); 2], [(0, 0); 2])?;
    for _ in 0..8 {
        let mut acs = || {
            let control = b.rng.random_range(0..64) & (SV | RR | CR | UF | EC);
            (control, b.rng.random_range(0..4))
        };
        let mut both = [acs(), acs()];
        // A port's own bit does not exist.
        both[0].1 &= !1;
        both[1].1 &= !2;
        traffic(&mut b, both, both)?;
    }
    Ok(())
}

/// The checkers above fail when there is reason to.
mod negative {
    use super::*;

    #[test]
    fn a_route_that_is_not_the_models() -> Checked {
        for (set, model) in [(0, RR), (RR, 0), (CR, 0), (SV, 0), (0, UF)] {
            let mut b = Bench::enumerated(20)?;
            let r = traffic(&mut b, [(set, 0), (0, 0)], [(model, 0), (0, 0)]);
            ensure!(
                r.is_err(),
                "ACS {set:#x} in the switch, {model:#x} in the model: no complaint"
            );
        }
        Ok(())
    }

    #[test]
    fn a_changed_payload_a_lost_tlp_and_a_wrong_order() {
        let (w, r) = (write(ABOVE, BELOW[0], 8), read(ABOVE, BELOW[0]));
        let fabric = || {
            let mut f = Fabric::new([(0, 0); 2]);
            f.send(DN[0], &w);
            f.send(DN[0], &r);
            f
        };
        let mut changed = w.clone();
        changed.data[31] ^= 1;
        assert!(fabric().receive(UP, &changed).is_err(), "payload");
        assert!(
            fabric().receive(UP, &r).is_err(),
            "a read that passed a write"
        );
        assert!(fabric().receive(DN[1], &w).is_err(), "another port");
        let mut f = fabric();
        assert_eq!(
            (f.receive(UP, &w), f.is_empty()),
            (Ok(()), false),
            "a lost read"
        );
        assert_eq!(
            (f.receive(UP, &r), f.is_empty()),
            (Ok(()), true),
            "all there"
        );
    }

    #[test]
    fn a_tlp_that_goes_elsewhere() -> Checked {
        let mut b = Bench::enumerated(21)?;
        let tlp = read(MEM[0], Bdf(0));
        ensure!(b.passes(UP, &tlp, DN[1]).is_err(), "port");
        ensure!(b.refused(UP, &tlp).is_err(), "refusal");
        ensure!(
            b.goes(UP, &tlp, DN[0], &tlp.clone().with_tag(9)).is_err(),
            "content"
        );
        b.passes(UP, &tlp, DN[0])
    }
}
