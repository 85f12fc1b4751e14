//! The promise judge.

use tlproof_golden::{Config, Judge, Promise, Route, Rule};
use tlproof_pcie::{BusAddr, Direction, DmaAddr, MemType, PhysAddr};

use crate::bench::*;
use crate::streams::*;

#[test]
fn outside_the_mapping() {
    for (addr, len) in [(BUFFER - 4, 2), (BUFFER + 0xefc, 2), (0x9000_0000, 1)] {
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut r = request(0, true, addr, len, 1);
        if addr & 0xfff == 0xffc {
            // Do not cross 4 KiB as well.
            r = request(0, true, BUFFER + 0xefc + 4, 1, 1);
        }
        b.play(&write(0, &r));
        b.only(Judge::Promise, "address");
    }
}

#[test]
fn one_disabled_byte_decides() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut r = request(0, true, BUFFER - 4, 2, 1);
    r.first_be = 0b1000;
    b.play(&write(0, &r));
    b.only(Judge::Promise, "address");
    let mut b = Bench::new();
    let mut p = dram(0);
    (p.dma, p.segments[0].0) = (DmaAddr(BUFFER - 1), PhysAddr(BUFFER - 1));
    b.promise(p);
    b.play(&write(0, &r));
    b.clean();
}

#[test]
fn wrong_direction() {
    for (direction, is_write) in [(Direction::ToDevice, true), (Direction::FromDevice, false)] {
        let mut b = Bench::new();
        b.promise(Promise {
            direction,
            ..dram(0)
        });
        let r = request(0, is_write, BUFFER, 1, 1);
        let steps = if is_write {
            write(0, &r)
        } else {
            read(0, &r, &[4])
        };
        b.play(&steps);
        b.only(Judge::Promise, "direction");
        assert_eq!(b.sb.stats().failures(Rule::PromiseRequest), 1);
    }
}

#[test]
fn after_unmap() {
    let mut b = Bench::new();
    let p = b.promise(dram(0));
    b.play(&[Step::Begin(p), Step::End(p)]);
    b.play(&write(0, &request(0, true, BUFFER, 1, 1)));
    b.only(Judge::Promise, "state");
    assert_eq!(
        b.sb.violations()[0].call.as_deref(),
        Some("dma_map_phys(buffer)")
    );
}

#[test]
fn unmap_while_a_tlp_is_under_way() {
    let steps = write(0, &request(0, true, BUFFER, 1, 1));
    // Between the beginning and the end of unmap it may arrive.
    let mut b = Bench::new();
    let p = b.promise(dram(0));
    b.play(&steps[..2]);
    b.play(&[Step::Begin(p)]);
    b.play(&steps[2..]);
    b.play(&[Step::End(p)]);
    b.clean();
    // After the end it may not.
    let mut b = Bench::new();
    let p = b.promise(dram(0));
    b.play(&steps[..4]);
    b.play(&[Step::Begin(p), Step::End(p)]);
    b.play(&steps[4..]);
    b.only(Judge::Promise, "state");
}

#[test]
fn refused_during_unmap_or_while_mapped() {
    let steps = refused_read(0, &request(0, false, BUFFER, 1, 1));
    let mut b = Bench::off();
    let p = b.promise(dram(0));
    b.play(&steps[..1]);
    b.play(&[Step::Begin(p)]);
    b.play(&steps[1..]);
    b.clean();
    let mut b = Bench::off();
    b.promise(dram(0));
    b.play(&steps);
    b.only(Judge::Promise, "permission");
}

#[test]
fn somebody_elses_requester_id() {
    let mut b = Bench::new();
    b.promise(dram(0));
    b.promise(dram(1));
    let mut r = request(0, true, BUFFER, 1, 1);
    r.requester = EP[1];
    b.play(&write(0, &r));
    b.only(Judge::Promise, "requester");
}

#[test]
fn lands_elsewhere() {
    // The mapping promised another page; the tables lead here.
    let mut b = Bench::new();
    let mut p = dram(0);
    p.segments[0].0 = PhysAddr(0x8800_0100);
    b.promise(p);
    b.play(&write(0, &request(0, true, BUFFER, 1, 1)));
    b.only(Judge::Promise, "address");
}

#[test]
fn only_the_last_byte_lands_elsewhere() {
    let mut b = Bench::new();
    let mut p = dram(0);
    p.segments = vec![(PhysAddr(BUFFER), 8), (PhysAddr(0x9000_0000), 0xef8)];
    b.promise(p);
    b.play(&write(0, &request(0, true, BUFFER, 2, 1)));
    b.play(&write(0, &request(0, true, BUFFER, 4, 1)));
    b.only(Judge::Promise, "address");
}

#[test]
fn memory_type_and_snoop() {
    let mut b = Bench::new();
    b.promise(Promise {
        expect: MemType::NonCacheable,
        snoop: false,
        ..dram(0)
    });
    b.play(&write(0, &request(0, true, BUFFER, 1, 1)));
    b.only(Judge::Promise, "memory type");

    let mut b = Bench::new();
    b.promise(Promise {
        snoop: false,
        ..dram(0)
    });
    b.play(&write(0, &request(0, true, BUFFER, 1, 1)));
    b.only(Judge::Promise, "snoop");

    // No Snoop is honoured.
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut r = request(0, true, BUFFER, 1, 1);
    r.no_snoop = true;
    b.play(&write(0, &r));
    b.clean();
}

#[test]
fn peer_mapped_cacheable() {
    let mut b = Bench::new();
    let p = peer(0, 2, Route::PeerThroughBridge);
    b.promise(Promise {
        expect: MemType::WriteBack,
        ..p
    });
    b.play(&bridged(0, 2, &request(0, true, BAR[2], 4, 1)));
    b.only(Judge::Promise, "memory type");
}

#[test]
fn probes_are_refused_or_found() {
    let r = request(0, false, 0x9000_0000, 1, 1);
    let mut b = Bench::off();
    let id = b.sb.expect_rogue(EP[0], BusAddr(0x9000_0000), 4, false);
    b.play(&refused_read(0, &r));
    b.sb.rogue_done(id);
    b.clean();
    assert_eq!(b.sb.stats().rogue_tlps, 1);

    let mut b = Bench::new();
    b.sb.expect_rogue(EP[0], BusAddr(0x9000_0000), 4, false);
    b.play(&read(0, &r, &[4]));
    b.only(Judge::Promise, "permission");

    // On a machine that does not block, nothing is demanded.
    let mut b = Bench::with(Config {
        blocking: false,
        iommu: false,
        ..Config::default()
    });
    b.sb.expect_rogue(EP[0], BusAddr(0x9000_0000), 4, false);
    b.play(&read(0, &r, &[4]));
    b.clean();
}

#[test]
fn probes_that_no_bar_decodes_are_stopped() {
    let r = request(0, true, BAR[1], 4, 1);
    for (command, found) in [(6, true), (4, false)] {
        let mut b = Bench::new();
        b.sb.config_written(EP[1], 0x04, 2, command);
        b.sb.expect_rogue(EP[0], BusAddr(BAR[1]), 16, true);
        b.play(&direct(0, 1, &r));
        let v = b.verdict();
        let want = [(Judge::Promise, "permission")];
        assert_eq!(v, want[..usize::from(found)]);
    }
}

#[test]
fn probes_of_a_mapped_granule_may_get_through() {
    let below = request(0, true, BUFFER - 4, 1, 1);
    let mut b = Bench::new();
    b.promise(dram(0));
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER - 4), 4, true);
    b.play(&write(0, &below));
    b.clean();
    assert_eq!(b.sb.stats().granule_reachable, 1);

    // Only as the direction permits.
    let mut b = Bench::new();
    b.promise(Promise {
        direction: Direction::ToDevice,
        ..dram(0)
    });
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER - 4), 4, true);
    b.play(&write(0, &below));
    b.only(Judge::Promise, "permission");

    // W implies R in a RISC-V page-table entry.
    let mut b = Bench::new();
    b.promise(Promise {
        direction: Direction::FromDevice,
        ..dram(0)
    });
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    b.play(&read(0, &request(0, false, BUFFER, 1, 1), &[4]));
    b.clean();
}

#[test]
fn corrupted_payload() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut steps = write(0, &request(0, true, BUFFER, 8, 1));
    payload(&mut steps[4])[17] ^= 1;
    b.play(&steps);
    b.only(Judge::Promise, "payload");

    let mut b = Bench::new();
    b.promise(dram(0));
    let mut steps = read(0, &request(0, false, BUFFER, 32, 1), &[64, 64]);
    payload(&mut steps[8])[3] ^= 1;
    b.play(&steps);
    b.only(Judge::Promise, "payload");

    let mut b = Bench::new();
    b.promise(peer(0, 1, Route::PeerBusAddress));
    let mut steps = direct(0, 1, &request(0, true, BAR[1], 4, 1));
    payload(&mut steps[1])[0] ^= 1;
    b.play(&steps);
    b.only(Judge::Promise, "payload");
}
