//! The endpoint at its link: configuration, BARs, DMA engine and MSI-X (`docs/endpoint.md`).

#[macro_use]
mod common;
#[path = "endpoint/bench.rs"]
mod bench;
#[path = "endpoint/host.rs"]
mod host;

use bench::{BAR0, BAR2, Bench, MSI};
use common::{
    Beat, COMPLETION, Checked, NON_POSTED, POSTED, Sink, Tlp, bytes, enables, percent, plain,
};
use host::{Descriptor, LOCAL};
use rand::RngExt;
use tlproof_pcie::{
    Bdf, CplStatus, Head,
    tlp::{AddressType, Pasid},
};

/// Where descriptor `n` of a test has its part of the local memory; accesses through BAR2 under
/// way at the same time stay below.
fn part(n: u32) -> u32 {
    0x4_0000 + n * 0x4000
}

/// A seldom shape of byte enables has to be as likely as the full one.
fn write_enables(b: &mut Bench, offset: u32, len_dw: u16) -> (u8, u8) {
    match len_dw {
        1 => (b.rng.random_range(0..16), 0),
        // Only two DW at an 8-byte boundary may have gaps (PCIe 6.0 §2.2.5).
        2 if offset.is_multiple_of(8) => (b.rng.random_range(1..16), b.rng.random_range(1..16)),
        _ => (
            0xf << b.rng.random_range(0..4) & 0xf,
            0xf >> b.rng.random_range(0..4),
        ),
    }
}

#[test]
fn configuration_space() -> Checked {
    let mut b = Bench::reset(1)?;
    // Until the first configuration write the function does not know its number.
    let bdf = b.limits.bdf;
    b.limits.bdf = Bdf(0);
    let r = b.ask(Tlp::config(false, bdf, 0, 0xf, None))?;
    ensure!(r.data == 0x0e9d_1b36u32.to_le_bytes(), "IDs {:x?}", r.data);
    b.limits.bdf = bdf;
    b.config_write(0x3c, 0x55, 0xf)?;
    ensure!(b.config_read(0x3c)? == 0x55, "Interrupt Line");

    for (register, due) in [
        (0x04, 0x0010_0000),
        (0x08, 0x1200_0001),
        (0x34, 0x40),
        (0x80, 0x0007_0011),
        (0x84, 0x2000),
        (0x88, 0x3000),
        (0x100, 0),
    ] {
        let value = b.config_read(register)?;
        ensure!(
            value == due,
            "register {register:#x}: {value:#x}, not {due:#x}"
        );
    }
    ensure!(
        b.config_read(0x40)? & 0xffff == 0x8010,
        "PCI Express capability"
    );

    for other in [
        Tlp::config(true, bdf, 0, 0xf, None),
        Tlp::config(true, bdf, 4, 0xf, Some(6)),
        Tlp::config(false, Bdf(bdf.0 | 1), 0, 0xf, None),
    ] {
        ensure!(
            b.status(other.clone())? == CplStatus::UnsupportedRequest,
            "{other:x?}"
        );
    }

    // BAR sizing.
    for register in [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30] {
        b.config_write(register, 0xffff_ffff, 0xf)?;
    }
    for (register, due) in [
        (0x10, 0xffff_c004),
        (0x14, 0xffff_ffff),
        (0x18, 0xfff0_000c),
        (0x1c, 0xffff_ffff),
        (0x20, 0),
        (0x24, 0),
        (0x30, 0),
    ] {
        let value = b.config_read(register)?;
        ensure!(
            value == due,
            "size of {register:#x}: {value:#x}, not {due:#x}"
        );
    }
    b.config_write(0x10, BAR0 as u32, 0xf)?;
    b.config_write(0x14, (BAR0 >> 32) as u32, 0xf)?;
    b.config_write(0x10, 0xaa00, 0b0010)?;
    ensure!(
        b.config_read(0x10)? == BAR0 as u32 | 0x8004,
        "byte enables of a BAR"
    );
    b.config_write(0x10, BAR0 as u32, 0xf)?;

    let read = Tlp::read(&plain(false, BAR0, (2, 0xf, 0xf)));
    let status = b.status(read.clone())?;
    ensure!(
        status == CplStatus::UnsupportedRequest,
        "Memory Space Enable clear: {status:?}"
    );
    b.config_write(0x04, 2, 0xf)?;
    ensure!(
        b.status(read)? == CplStatus::Success,
        "Memory Space Enable set"
    );
    Ok(())
}

#[test]
fn registers() -> Checked {
    let mut b = Bench::configured(2)?;
    ensure!(b.get64(0)? == 0x2040_544c_5031, "ID");
    b.set64(8, 0x1122_3344_5566_7788);
    ensure!(b.get64(8)? == 0x1122_3344_5566_7788, "SCRATCH");
    b.set32(12, 0xaabb_ccdd);
    ensure!(b.get64(8)? == 0xaabb_ccdd_5566_7788, "upper half");
    ensure!(
        (b.get32(8)?, b.get32(12)?) == (0x5566_7788, 0xaabb_ccdd),
        "halves"
    );
    ensure!((b.get64(0x20)?, b.get64(0x1ff8)?) == (0, 0), "holes");

    let ur = CplStatus::UnsupportedRequest;
    for (offset, shape, due) in [
        (8, (1, 1, 0), ur),
        (12, (2, 0xf, 0xf), ur),
        (8, (4, 0xf, 0xf), ur),
        (0x8000, (1, 0xf, 0), ur),
        (8, (1, 0, 0), CplStatus::Success),
    ] {
        let status = b.status(Tlp::read(&plain(false, BAR0 + offset, shape)))?;
        ensure!(status == due, "{offset:#x} {shape:?}: {status:?}");
    }
    // I/O read, FetchAdd, MRdLk.
    let io = Head {
        hdr: [0x0200_0001, 0xf, 0, 0],
        pfx: None,
    };
    let atomic = Head {
        hdr: [0x4c00_0008, 0xff, 0, 0],
        pfx: None,
    };
    let mut locked = Tlp::read(&plain(false, BAR2, (1, 0xf, 0)));
    locked.head.hdr[0] |= 1 << 24;
    for tlp in [
        Tlp {
            head: io,
            data: vec![],
        },
        Tlp {
            head: atomic,
            data: vec![1; 32],
        },
        locked,
    ] {
        ensure!(b.status(tlp.clone())? == ur, "{tlp:x?}");
    }

    // Posted requests that are not performed: a part of a register, poisoned, a message.
    let write = |shape| Tlp::write(&plain(true, BAR0 + 8, shape), vec![0xee; 4]);
    b.source.send(write((1, 3, 0)));
    b.source.send(write((1, 0xf, 0)).poisoned());
    b.source.send(Tlp::message(4, Bdf(0), 0x19, Bdf(0)));
    ensure!(
        b.get64(8)? == 0xaabb_ccdd_5566_7788,
        "a write that is not supported"
    );
    Ok(())
}

#[test]
fn local_memory_through_bar2() -> Checked {
    let mut b = Bench::configured(3)?;
    for _ in 0..5 {
        let (mps, mrrs) = (b.rng.random_range(0..3), b.rng.random_range(0..6));
        b.sizes(mps, mrrs)?;
        b.rates();
        for _ in 0..300 {
            let offset = b.rng.random_range(0..0x1000) * 4;
            let room = (4096 - offset % 4096) as u16 / 4;
            let most = if percent(&mut b.rng, 60) { 8 } else { 1024 };
            let len = b.rng.random_range(1..=most.min(room));
            let (first, last) = write_enables(&mut b, offset, len);
            if b.rng.random() {
                let len = len.min(b.limits.mps as u16 / 4);
                let (first, last) = write_enables(&mut b, offset, len);
                let data = bytes(&mut b.rng, 4 * usize::from(len));
                b.local_write(offset, data, first, last);
            } else {
                b.local_read(offset, len, first, last);
            }
            b.until(20_000, "room for requests", |b| {
                b.waiting.len() < 30 && b.source.waiting(POSTED) < 20
            })?;
        }
        b.until(200_000, "the reads end", |b| b.waiting.is_empty())?;
    }
    b.full_rate();
    b.check_local(0, 0x4000)
}

fn random_descriptor(b: &mut Bench, n: u32) -> Descriptor {
    let rng = &mut b.rng;
    let len = match rng.random_range(0..3) {
        0 => rng.random_range(1..=16),
        1 => rng.random_range(1..=600),
        _ => rng.random_range(1..=12_000),
    };
    let mut addr: u64 = if rng.random() {
        rng.random_range(0..1 << 32)
    } else {
        rng.random_range(0..1 << 56)
    };
    if percent(rng, 30) {
        addr = addr & !0xfff | 0xff0 | addr & 0xf;
    }
    let write = rng.random();
    let answer = match rng.random_range(0..16) {
        0 => CplStatus::UnsupportedRequest,
        1 => CplStatus::CompleterAbort,
        _ => CplStatus::Success,
    };
    Descriptor {
        pattern: percent(rng, 25),
        at: [
            AddressType::Untranslated,
            AddressType::TranslationRequest,
            AddressType::Translated,
        ][rng.random_range(0..3)],
        no_snoop: rng.random(),
        relaxed: rng.random(),
        ido: rng.random(),
        tc: rng.random_range(0..8),
        pasid: rng.random::<bool>().then(|| Pasid {
            pasid: rng.random_range(0..1 << 20),
            privileged: rng.random(),
            execute: rng.random(),
        }),
        requester: percent(rng, 25).then(|| Bdf(rng.random())),
        seed: rng.random(),
        answer: if write { CplStatus::Success } else { answer },
        ..Descriptor::plain(
            write,
            addr,
            len,
            part(n) + rng.random_range(0..64) * 4 + addr as u32 % 4,
        )
    }
}

/// One to 32 random descriptors with accesses through BAR2 among them.
fn dma_round(b: &mut Bench) -> Checked {
    let (mps, mrrs) = (b.rng.random_range(0..3), b.rng.random_range(0..6));
    b.sizes(mps, mrrs)?;
    b.rates();
    let count = b.rng.random_range(1..=32);
    for n in 0..count {
        let d = random_descriptor(b, n);
        b.push(d);
        let cycles = b.rng.random_range(0..60);
        b.run(cycles)?;
        if percent(&mut b.rng, 30) {
            let offset = b.rng.random_range(0..0xf00) * 4;
            let len = b
                .rng
                .random_range(1..=20)
                .min((4096 - offset % 4096) as u16 / 4);
            let (first, last) = write_enables(b, offset, len);
            if b.rng.random() {
                let data = bytes(&mut b.rng, 4 * usize::from(len));
                b.local_write(offset, data, first, last);
            } else {
                b.local_read(offset, len, first, last);
            }
        }
    }
    for _ in 0..count {
        b.record()?;
    }
    b.until(100_000, "the reads end", |b| b.waiting.is_empty())?;
    b.full_rate();
    let reads: Vec<_> = b.dma.descriptors.values().map(|p| p.descriptor).collect();
    for d in reads.iter().filter(|d| !d.write) {
        b.check_local(d.offset, d.len)?;
    }
    let status = b.get64(0x10)?;
    ensure!(
        status & 0x80ff_ffff == 0x8000_0000,
        "STATUS {status:#x} after the last record"
    );
    b.dma.forget();
    Ok(())
}

#[test]
fn random_dma() -> Checked {
    let mut b = Bench::configured(4)?;
    for _ in 0..10 {
        dma_round(&mut b)?;
    }
    let counts = b.get64(0x18)?;
    ensure!(
        counts >> 32 == 0,
        "COUNTS {counts:#x}: completions called unexpected"
    );
    Ok(())
}

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
    for len in [0, 0x10_0001] {
        b.set64(0x108, len);
        b.set32(0x120, 5);
    }
    ensure!(b.get64(0x18)? >> 32 == 2, "lengths out of range");
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
    let lost = (b.get64(0x18)? >> 32) - 2;
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
fn message_signalled_interrupts() -> Checked {
    let mut b = Bench::configured(12)?;
    ensure!(
        b.get64(0x2008)? == 1 << 32,
        "vectors are masked after reset"
    );
    for v in 0..8 {
        b.set64(0x2000 + 16 * v, MSI + 0x100 * v);
        b.set64(0x2008 + 16 * v, 0x1000 + v);
    }
    ensure!(
        b.get64(0x2030)? == MSI + 0x300 && b.get64(0x2038)? == 0x1003,
        "the table"
    );
    let fire = |b: &mut Bench, vector: u8| -> Checked<Vec<(u64, u32)>> {
        let d = Descriptor::plain(true, 0x7000, 300, 0);
        b.push(Descriptor {
            irq: Some(vector),
            ..d
        });
        b.record()?;
        b.run(50)?;
        Ok(std::mem::take(&mut b.messages))
    };
    let due = |v: u64| (MSI + 0x100 * v, 0x1000 + v as u32);

    ensure!(
        fire(&mut b, 1)?.is_empty() && b.get64(0x3000)? == 0,
        "MSI-X disabled"
    );
    b.config_write(0x80, 1 << 31, 0xf)?;
    let sent = fire(&mut b, 2)?;
    ensure!(sent == [due(2)], "{sent:x?}");

    b.set32(0x203c, 1);
    let sent = fire(&mut b, 3)?;
    ensure!(
        sent.is_empty() && b.get64(0x3000)? == 1 << 3,
        "masked vector: {sent:x?}"
    );
    b.set32(0x203c, 0);
    b.drained()?;
    b.run(50)?;
    let sent = std::mem::take(&mut b.messages);
    ensure!(
        sent == [due(3)] && b.get64(0x3000)? == 0,
        "unmasked vector: {sent:x?}"
    );

    b.config_write(0x80, 3 << 30, 0xf)?;
    ensure!(
        fire(&mut b, 7)?.is_empty() && fire(&mut b, 5)?.is_empty(),
        "Function Mask"
    );
    ensure!(b.get64(0x3000)? == 0xa0, "pending bits");
    b.config_write(0x80, 1 << 31, 0xf)?;
    b.run(50)?;
    b.messages.sort_unstable();
    ensure!(b.messages == [due(5), due(7)], "{:x?}", b.messages);

    // A message is a request too: it waits for Bus Master Enable.
    b.messages.clear();
    b.config_write(0x80, 3 << 30, 0xf)?;
    fire(&mut b, 1)?;
    b.bus_master(false)?;
    b.config_write(0x80, 1 << 31, 0xf)?;
    b.run(50)?;
    ensure!(
        b.messages.is_empty() && b.get64(0x3000)? == 2,
        "Bus Master Enable clear"
    );
    b.bus_master(true)?;
    b.run(50)?;
    ensure!(b.messages == [due(1)], "{:x?}", b.messages);
    Ok(())
}

#[test]
fn posted_passes_blocked_completion() -> Checked {
    let mut b = Bench::configured(13)?;
    b.sink.readiness[COMPLETION] = 0;
    for _ in 0..20 {
        b.local_read(0x100, 64, 0xf, 0xf);
    }
    b.run(200)?;
    ensure!(
        b.source.waiting(NON_POSTED) > 0,
        "all reads were taken: nothing is blocked"
    );
    for i in 0..300 {
        let data = bytes(&mut b.rng, 64);
        b.local_write(0x8000 + 64 * (i % 64), data, 0xf, 0xf);
    }
    b.until(5000, "writes pass blocked completions", |b| {
        b.source.waiting(POSTED) == 0
    })?;
    ensure!(b.waiting.len() == 20, "a completion passed the closed door");
    b.sink.readiness[COMPLETION] = 100;
    b.check_local(0x8000, 4096)
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

/// The checkers above fail when there is reason to.
mod negative {
    use super::*;

    fn complaint<T>(r: Checked<T>, about: &str) {
        let e = r.err().unwrap_or_else(|| panic!("not noticed: {about}"));
        assert!(e.contains(about), "`{e}` is not about `{about}`");
    }

    #[test]
    fn a_wrong_byte_of_a_completion() -> Checked {
        let mut b = Bench::configured(20)?;
        let tag = b.local_read(0x40, 32, 0xf, 0xf);
        let r = b.waiting.get_mut(&tag).ok_or("no request")?;
        r.expected[77] = r.expected[77].map(|v| v ^ 1);
        complaint(b.run(200), "byte 77 at 0x7f00000040");
        Ok(())
    }

    #[test]
    fn a_wrong_byte_of_a_write() -> Checked {
        let mut b = Bench::configured(21)?;
        b.local[part(0) as usize + 999] ^= 0x80;
        b.push(Descriptor::plain(true, 0x1000, 1000, part(0)));
        complaint(b.run(400), "byte at 0x13e7");
        Ok(())
    }

    #[test]
    fn a_wrong_byte_of_a_dma_read() -> Checked {
        let mut b = Bench::configured(22)?;
        b.push(Descriptor::plain(false, 0x1000, 1000, part(0)));
        b.record()?;
        b.local[part(0) as usize + 5] ^= 1;
        complaint(b.check_local(part(0), 1000), "byte 5 at");
        Ok(())
    }

    #[test]
    fn requests_beyond_the_limits() -> Checked {
        for (write, about) in [(true, "32 DW, limit 64"), (false, "128 DW, limit 256")] {
            let mut b = Bench::configured(23)?;
            b.limits.mps /= 2;
            b.limits.mrrs /= 2;
            b.dma
                .push(1, Descriptor::plain(write, 0x1000, 1000, part(0)));
            b.push(Descriptor::plain(write, 0x1000, 1000, part(0)));
            complaint(b.run(400), about);
        }
        Ok(())
    }

    #[test]
    fn a_request_from_elsewhere() -> Checked {
        let mut b = Bench::configured(24)?;
        b.limits.bdf = Bdf(0x0508);
        b.push(Descriptor::plain(true, 0x1000, 8, part(0)));
        complaint(b.run(400), "descriptor 1 at 0x1000");
        Ok(())
    }

    #[test]
    fn a_request_without_bus_master_enable() -> Checked {
        let mut b = Bench::configured(25)?;
        b.limits.bus_master = false;
        b.push(Descriptor::plain(true, 0x1000, 8, part(0)));
        complaint(b.run(400), "Bus Master Enable");
        Ok(())
    }

    #[test]
    fn a_wrong_status() -> Checked {
        let mut b = Bench::configured(26)?;
        let answer = CplStatus::UnsupportedRequest;
        let d = Descriptor::plain(false, 0x1000, 8, part(0));
        let id = b.push(Descriptor { answer, ..d });
        let raw = b.raw_record()?;
        let p = b.dma.descriptors.get_mut(&id).ok_or("no descriptor")?;
        p.status = 0;
        complaint(b.dma.record(raw), "status 1, not 0");
        Ok(())
    }

    #[test]
    fn beats_out_of_order() {
        let (len_dw, first_be, last_be) = enables(0x1000, 64);
        let tlp = Tlp::write(
            &plain(true, 0x1000, (len_dw, first_be, last_be)),
            vec![0; 64],
        );
        let beat = Beat {
            sop: true,
            eop: false,
            head: tlp.head,
            data: [0; 32],
        };
        let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(0);
        for (beats, about) in [
            (vec![beat, beat], "sop"),
            (vec![Beat { sop: false, ..beat }], "sop"),
            (vec![Beat { eop: true, ..beat }], "eop"),
            (vec![beat, Beat { sop: false, ..beat }], "eop"),
        ] {
            let mut sink = Sink::default();
            let r = beats.into_iter().try_for_each(|b| {
                sink.ready(&mut rng);
                sink.accept(Some(b)).map(|_| ())
            });
            complaint(r, about);
        }
    }

    #[test]
    fn an_assertion_of_the_rtl() -> Checked {
        let mut b = Bench::reset(27)?;
        b.step()?;
        let beat = Beat {
            sop: false,
            eop: true,
            ..Beat::default()
        };
        complaint((0..2).try_for_each(|_| b.force(&beat)), "assertion failed");
        Ok(())
    }
}
