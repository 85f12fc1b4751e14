//! The DMA engine: contiguous descriptors, reads in flight, what goes wrong with them.

use tlproof_pcie::{Bdf, CplStatus};

use crate::{
    bench::Bench,
    common::{Checked, NON_POSTED, Tlp, plain},
    descriptor::Descriptor,
    engine::LOCAL,
    part,
};

#[test]
fn largest_descriptors() -> Checked {
    let mut b = Bench::configured(5)?;
    b.sizes(2, 5)?;
    b.push(Descriptor::plain(false, 0x2_0000_0000, LOCAL as u32, 0));
    b.record()?;
    b.check_local(0, LOCAL as u32)?;
    b.push(Descriptor::plain(true, 0x2_0000_0001, LOCAL as u32 - 1, 1));
    b.record()?;
    Ok(())
}

#[test]
fn sixty_four_reads_in_flight() -> Checked {
    let mut b = Bench::configured(6)?;
    b.sizes(2, 0)?;
    b.answers = 0;
    b.push(Descriptor::plain(
        false,
        0x100_0003,
        128 * 64 + 500,
        part(0) + 3,
    ));
    b.run(600)?;
    let status = b.get64(0x10)?;
    ensure!(
        b.dma.pending.len() == 64,
        "{} reads in flight",
        b.dma.pending.len()
    );
    ensure!(status >> 16 & 0xff == 64, "STATUS {status:#x}");
    ensure!(b.dma.requested(1) < 128 * 65, "more requests than tags");
    b.answers = 100;
    b.record()?;
    b.check_local(part(0), 128 * 64 + 600)
}

#[test]
fn status_of_failed_reads() -> Checked {
    let mut b = Bench::configured(7)?;
    for answer in [
        CplStatus::UnsupportedRequest,
        CplStatus::CompleterAbort,
        CplStatus::Success,
    ] {
        let d = Descriptor {
            answer,
            ..Descriptor::plain(false, 0x5000, 3000, part(0))
        };
        let id = b.push(d);
        let raw = b.raw_record()?;
        let due = u64::from(answer.bits());
        ensure!(
            raw == 1 << 63 | due << 16 | u64::from(id),
            "record {raw:#x} for {answer:?}"
        );
        b.dma.record(raw)?;
    }
    b.check_local(part(0), 3000)
}

#[test]
fn unexpected_completions() -> Checked {
    let mut b = Bench::configured(8)?;
    let strays = |b: &mut Bench| b.get64(0x18).map(|c| c >> 32);
    let success = CplStatus::Success;
    let nobody = |tag| Tlp::read(&plain(false, 0x1000, (4, 0xf, 0xf))).with_tag(tag);
    let requester = b.limits.bdf;
    for (tag, status, data) in [
        (3, success, vec![1; 16]),
        (300, CplStatus::UnsupportedRequest, vec![]),
    ] {
        let head = nobody(tag).with_requester(requester).head;
        b.source
            .send(Tlp::completion(&head, Bdf(8), status, 16, 0x1000, data));
    }
    b.run(60)?;
    ensure!(strays(&mut b)? == 2, "completions that nobody asked for");

    b.answers = 0;
    b.push(Descriptor::plain(false, 0x5000, 256, part(0)));
    b.until(200, "the read request", |b| b.dma.pending.len() == 1)?;
    let head = b.dma.pending.values().next().ok_or("no read")?.head;
    let other = Tlp { head, data: vec![] }.with_requester(Bdf(0x0501)).head;
    for (head, left, addr, len) in [
        (head, 255, 0x5000, 64),  // byte count
        (head, 256, 0x5004, 64),  // lower address
        (other, 256, 0x5000, 64), // requester
        (head, 256, 0x5000, 60),  // ends off the RCB
        (head, 256, 0x5000, 260), // longer than the read
        (head, 256, 0x5000, 0),   // no data
    ] {
        b.source.send(Tlp::completion(
            &head,
            Bdf(8),
            success,
            left,
            addr,
            vec![9; len],
        ));
    }
    b.drained()?;
    b.run(20)?;
    ensure!(
        strays(&mut b)? == 8,
        "{} malformed completions",
        strays(&mut b)? - 2
    );
    b.check_local(part(0), 256)?;
    b.answers = 100;
    b.record()?;
    b.check_local(part(0), 256)?;

    // Poisoned data do not reach the memory, and the descriptor says so.
    b.answers = 0;
    let id = b.push(Descriptor::plain(false, 0x5000, 64, part(1)));
    b.until(200, "the read request", |b| b.dma.pending.len() == 1)?;
    let head = b.dma.pending.values().next().ok_or("no read")?.head;
    b.source
        .send(Tlp::completion(&head, Bdf(8), success, 64, 0x5000, vec![9; 64]).poisoned());
    let raw = b.raw_record()?;
    ensure!(
        raw == 1 << 63 | 4 << 16 | u64::from(id),
        "record {raw:#x} after poisoned data"
    );
    b.check_local(part(1), 64)
}

#[test]
fn completion_timeout() -> Checked {
    let timeout = 1 << 20;
    let mut b = Bench::configured(15)?;
    b.answers = 0;
    let id = b.push(Descriptor::plain(false, 0x5000, 700, part(0)));
    b.until(200, "the read requests", |b| b.dma.pending.len() == 2)?;
    b.run(timeout - 100)?;
    ensure!(b.get64(0x128)? == 0, "a record before the timeout");
    b.run(300)?;
    let raw = b.get64(0x128)?;
    ensure!(
        raw == 1 << 63 | 7 << 16 | u64::from(id),
        "record {raw:#x} after the timeout"
    );
    let status = b.get64(0x10)?;
    ensure!(
        status & 0x80ff_ffff == 0x8000_0000,
        "STATUS {status:#x}: tags are not free"
    );
    // What comes later is unexpected.
    b.answers = 100;
    b.until(2000, "late completions", |b| b.dma.pending.is_empty())?;
    b.drained()?;
    ensure!(b.get64(0x18)? >> 32 > 0, "a late completion was taken");
    Ok(())
}

#[test]
fn bus_master_enable_stops_the_engine() -> Checked {
    let mut b = Bench::configured(9)?;
    b.bus_master(false)?;
    let id = b.push(Descriptor::plain(true, 0x1000, 1000, part(0)));
    b.run(400)?;
    let status = b.get64(0x10)?;
    ensure!(
        status & 0x8000_00ff == 1,
        "STATUS {status:#x} with a descriptor that waits"
    );
    b.bus_master(true)?;
    ensure!(b.record()? == id, "record");

    // In the midst of a descriptor; the checker refuses every request until it is set again.
    let d = Descriptor {
        pattern: true,
        seed: 7,
        ..Descriptor::plain(true, 0x6000, 100_000, 0)
    };
    let id = b.push(d);
    b.push(Descriptor::plain(false, 0x5000, 3000, part(1)));
    b.run(300)?;
    b.bus_master(false)?;
    let stopped = b.dma.requested(id);
    ensure!(stopped > 0 && stopped < 100_000, "stopped at {stopped}");
    b.run(2000)?;
    ensure!(b.dma.requested(id) == stopped, "requests while stopped");
    b.bus_master(true)?;
    b.record()?;
    b.record()?;
    b.check_local(part(1), 3000)
}

#[test]
fn requester_id_override() -> Checked {
    let mut b = Bench::configured(10)?;
    for write in [true, false] {
        for requester in [Some(Bdf(0x1234)), None] {
            let d = Descriptor::plain(write, 0x9_0000_0040, 700, part(0));
            b.push(Descriptor { requester, ..d });
            b.record()?;
        }
    }
    b.check_local(part(0), 700)
}

#[test]
fn descriptors_that_cannot_be_queued() -> Checked {
    let mut b = Bench::configured(11)?;
    for (len, ctrl) in [(0, 0), (0x40_0001, 0), (16, 3 << 20)] {
        b.set64(0x108, len);
        b.set64(0x110, ctrl);
        b.set32(0x120, 5);
    }
    ensure!(
        b.get64(0x18)? >> 32 == 3,
        "lengths out of range, reserved mode"
    );
    ensure!(
        b.get64(0x128)? == 0,
        "a record of a descriptor that was refused"
    );

    b.bus_master(false)?;
    b.set64(0x100, 0x1000);
    b.set64(0x108, 16);
    b.set64(0x110, 1);
    let rung = 150;
    for id in 0..rung {
        b.set32(0x120, id);
    }
    let lost = (b.get64(0x18)? >> 32) - 3;
    let kept = b.get64(0x10)? & 0xff;
    ensure!(
        lost > 0 && kept >= 33 && kept + lost == u64::from(rung),
        "{kept} kept, {lost} lost"
    );
    for id in 0..kept as u16 {
        b.dma.push(id, Descriptor::plain(true, 0x1000, 16, 0));
    }
    b.bus_master(true)?;
    for id in 0..kept as u16 {
        ensure!(b.record()? == id, "order of records");
    }
    Ok(())
}

#[test]
fn posted_passes_blocked_read() -> Checked {
    let mut b = Bench::configured(14)?;
    b.sink.readiness[NON_POSTED] = 0;
    b.push(Descriptor::plain(false, 0x5000, 64, part(0)));
    let write = b.push(Descriptor::plain(true, 0x6000, 4000, part(1)));
    b.until(2000, "writes pass a blocked read", |b| {
        b.dma.requested(write) == 4000
    })?;
    ensure!(b.dma.pending.is_empty(), "the read has left");
    b.sink.readiness[NON_POSTED] = 100;
    ensure!(b.record()? == write, "the write is complete first");
    b.record()?;
    b.check_local(part(0), 64)
}
