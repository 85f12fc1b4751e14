//! Random descriptors of all modes, with accesses through BAR2 among them.

use rand::RngExt;
use tlproof_pcie::{
    Bdf, CplStatus,
    tlp::{AddressType, Pasid},
};

use crate::{
    bench::Bench,
    common::{Checked, bytes, percent},
    descriptor::Descriptor,
    lists, part, prp, sgl, write_enables,
};

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
    let offset = part(n) + rng.random_range(0..64) * 4;
    let d = Descriptor {
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
        ..Descriptor::plain(write, addr, len, offset + addr as u32 % 4)
    };
    let shape = match b.rng.random_range(0..3) {
        0 => return d,
        1 => random_prp(b, &d, offset),
        _ => random_sgl(b, &d, offset),
    };
    if percent(&mut b.rng, 10) {
        damage(b, &shape);
    }
    let nth = percent(&mut b.rng, 10).then(|| b.rng.random_range(0..4));
    let status = if b.rng.random() {
        CplStatus::UnsupportedRequest
    } else {
        CplStatus::CompleterAbort
    };
    Descriptor {
        addr: shape.addr,
        pointer: shape.pointer,
        len: shape.len,
        offset,
        list_answer: nth.map(|nth| (nth, status)),
        ..d
    }
}

fn random_prp(b: &mut Bench, d: &Descriptor, offset: u32) -> Descriptor {
    let first = b.rng.random_range(0..1024) * 4;
    // Half of the lists are at the end of a page.
    let slot = if b.rng.random() { 508..512 } else { 0..508 };
    let at = b.rng.random_range(slot) * 8;
    prp::prp(b, d.write, (first, d.len), at, offset)
}

fn random_sgl(b: &mut Bench, d: &Descriptor, offset: u32) -> Descriptor {
    let mut data = Vec::new();
    let mut total = 0;
    let largest = [8, 64, 1000, 12_000][b.rng.random_range(0..4)];
    while total < d.len && data.len() < 60 {
        let len = b.rng.random_range(0..=largest.min(d.len - total)) & !3;
        if percent(&mut b.rng, 15) {
            data.push(sgl::bucket(b, len));
            total += if d.write { len } else { 0 };
        } else {
            data.push(sgl::somewhere(b, len));
            total += len;
        }
    }
    if total == 0 {
        total = 4;
        data.push(sgl::somewhere(b, 4));
    }
    let most = b.rng.random_range(1..=data.len());
    let at = b.rng.random_range(0..512) * 8;
    let first = sgl::list(b, &data, most, at);
    sgl::sgl(d.write, first, total, offset)
}

/// Changes a bit of the descriptor's list.
fn damage(b: &mut Bench, d: &Descriptor) {
    let reads = lists::walk(&b.dma.lists, d).reads;
    if reads.is_empty() {
        return;
    }
    let (addr, n) = reads[b.rng.random_range(0..reads.len())];
    let place = addr + b.rng.random_range(0..n / 8) * 8;
    // Not the upper bits of a pointer or length: those lead where nothing is.
    let bit = [0, 1, 2, 3, 7, 11, 56, 60, 61][b.rng.random_range(0..9)];
    if let Some(word) = b.dma.lists.get_mut(&place) {
        *word ^= 1 << bit;
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
