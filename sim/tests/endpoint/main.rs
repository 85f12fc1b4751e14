//! The endpoint at its link: configuration, BARs, DMA engine and MSI-X (`docs/endpoint.md`).

#[macro_use]
#[path = "../common/mod.rs"]
mod common;
mod bench;
mod descriptor;
mod dma;
mod engine;
mod host;
mod lists;
mod negative;
mod prp;
mod random;
mod sgl;

use bench::{BAR0, BAR2, Bench, MSI};
use common::{COMPLETION, Checked, NON_POSTED, POSTED, Tlp, bytes, percent, plain};
use descriptor::Descriptor;
use rand::RngExt;
use tlproof_pcie::{Bdf, CplStatus, Head};

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
