//! Transfers whose data PRP entries point at (NVM Express 1.4 §4.3).

use rand::RngExt;
use tlproof_pcie::{Bdf, CplStatus, tlp::Pasid};

use crate::{
    bench::Bench,
    common::{Checked, POSTED, percent},
    descriptor::{Descriptor, Pointer},
    lists::{PAGE, code},
    part,
};

/// A page of data.
pub fn data_page(b: &mut Bench) -> u64 {
    b.rng.random_range(0..1u64 << 36) * PAGE
}

/// A page that holds lists only.
pub fn list_page(b: &mut Bench) -> u64 {
    (1 << 52) | (b.rng.random_range(0..1u64 << 36) * PAGE)
}

/// A list of these entries from offset `at` of a page on, chained where a page ends; yields its
/// address.
fn list(b: &mut Bench, entries: &[u64], at: u64) -> u64 {
    let slots = ((PAGE - at) / 8) as usize;
    let page = list_page(b);
    let (here, rest) = if entries.len() <= slots {
        (entries.to_vec(), &[][..])
    } else {
        (entries[..slots - 1].to_vec(), &entries[slots - 1..])
    };
    let addresses = (page + at..).step_by(8);
    let chain = (!rest.is_empty()).then(|| list(b, rest, 0));
    b.dma
        .lists
        .extend(addresses.zip(here.into_iter().chain(chain)));
    page + at
}

/// A transfer of `len` bytes from offset `first` of its first page on, with its list at offset
/// `at` of a page.
pub fn prp(
    b: &mut Bench,
    write: bool,
    (first, len): (u64, u32),
    at: u64,
    local: u32,
) -> Descriptor {
    let first = data_page(b) + first;
    let rest = u64::from(len).saturating_sub(PAGE - first % PAGE);
    let pages: Vec<_> = (0..rest.div_ceil(PAGE)).map(|_| data_page(b)).collect();
    let second = match pages[..] {
        [] => b.rng.random(), // reserved
        [second] => second,
        _ => list(b, &pages, at),
    };
    Descriptor {
        pointer: Pointer::Prp(second),
        ..Descriptor::plain(write, first, len, local)
    }
}

/// The generator's data, for transfers larger than local memory.
pub fn generated(d: Descriptor) -> Descriptor {
    Descriptor {
        pattern: true,
        seed: 0x5eed,
        ..d
    }
}

/// Runs a descriptor to its end; yields status and list code.
pub fn transfer(b: &mut Bench, d: Descriptor) -> Checked<(u8, u8)> {
    b.push(d);
    let raw = b.raw_record()?;
    b.dma.record(raw)?;
    b.dma.forget();
    Ok(((raw >> 16 & 7) as u8, (raw >> 24) as u8))
}

/// Runs a good descriptor.
pub fn good(b: &mut Bench, d: Descriptor) -> Checked {
    let end = transfer(b, d)?;
    ensure!(end == (0, 0), "{d:x?} ends with {end:x?}");
    if !d.write && !d.pattern {
        b.check_local(d.offset, d.len)?;
    }
    Ok(())
}

#[test]
fn one_page() -> Checked {
    let mut b = Bench::configured(30)?;
    for write in [true, false] {
        for (first, len) in [
            (0, 1),
            (0, 4096),
            (4, 4092),
            (0x7fc, 1000),
            (0xffc, 4),
            (0xffc, 1),
        ] {
            let d = prp(&mut b, write, (first, len), 0, part(0));
            good(&mut b, d)?;
        }
    }
    Ok(())
}

#[test]
fn two_pages() -> Checked {
    let mut b = Bench::configured(31)?;
    b.sizes(1, 4)?;
    for write in [true, false] {
        for (first, len) in [(0, 4097), (0, 8192), (0xffc, 5), (0xffc, 4100), (4, 8188)] {
            let d = prp(&mut b, write, (first, len), 0, part(0));
            good(&mut b, d)?;
        }
    }
    Ok(())
}

#[test]
fn lists_of_one_page() -> Checked {
    let mut b = Bench::configured(32)?;
    b.sizes(2, 5)?;
    // Entries beyond PRP entry 1, and where the list begins.
    for (n, first, at) in [
        (2, 0, 0),
        (2, 0xffc, 0xff0),
        (3, 4, 8),
        (16, 0x800, 0x78),
        (17, 0, 0xf78),
        (64, 0, 0),
        (250, 0x10, 0x40),
        (512, 0xe00, 0),
        (511, 0, 8),
    ] {
        for write in [true, false] {
            let len = 4096 - first as u32 + n * 4096 - 4 * (n % 3);
            let d = prp(&mut b, write, (first, len), at, 0);
            let d = if len > 1 << 20 { generated(d) } else { d };
            good(&mut b, d)?;
        }
    }
    Ok(())
}

#[test]
fn chained_lists() -> Checked {
    let mut b = Bench::configured(33)?;
    b.sizes(2, 5)?;
    for (n, first, at, pages) in [
        (2, 0, 0xff8, 2),
        (3, 0xffc, 0xff0, 2),
        (40, 0, 0xfc0, 2),
        (513, 0x400, 0, 2),
        (514, 0, 0xff8, 3),
        (1023, 0, 0, 2),
        (1023, 0, 8, 3),
        (1024, 0xffc, 0, 3),
    ] {
        let len = 4096 - first as u32 + n * 4096 - 100;
        let d = prp(&mut b, n % 2 == 0, (first, len), at, 0);
        let d = if len > 1 << 20 { generated(d) } else { d };
        let Pointer::Prp(second) = d.pointer else {
            return Err("not a PRP".into());
        };
        let walk = crate::lists::walk(&b.dma.lists, &d);
        let mut seen: Vec<_> = walk.reads.iter().map(|(a, _)| a / PAGE).collect();
        seen.dedup();
        ensure!(seen.len() == pages, "{n} entries at {second:#x}: {seen:x?}");
        good(&mut b, d)?;
    }
    Ok(())
}

#[test]
fn list_reads_carry_the_attributes() -> Checked {
    let mut b = Bench::configured(34)?;
    for n in 0..20u16 {
        let d = prp(&mut b, n % 2 == 0, (0, 5 * 4096), 0xff0, part(0));
        let d = Descriptor {
            no_snoop: b.rng.random(),
            relaxed: b.rng.random(),
            ido: b.rng.random(),
            tc: b.rng.random_range(0..8),
            pasid: b.rng.random::<bool>().then(|| Pasid {
                pasid: b.rng.random_range(0..1 << 20),
                privileged: b.rng.random(),
                execute: b.rng.random(),
            }),
            requester: percent(&mut b.rng, 30).then(|| Bdf(b.rng.random())),
            ..d
        };
        good(&mut b, d)?;
    }
    Ok(())
}

#[test]
fn lists_are_read_ahead() -> Checked {
    let mut b = Bench::configured(35)?;
    b.answers = 0;
    let d = generated(prp(&mut b, true, (0, 200 * 4096), 0x48, 0));
    b.push(d);
    b.until(300, "eight reads of the list", |b| b.dma.pending.len() == 8)?;
    b.run(200)?;
    ensure!(
        b.dma.pending.len() == 8,
        "{} reads of the list",
        b.dma.pending.len()
    );
    b.answers = 100;
    b.record()?;

    // The list of the next descriptor is read while data of the first move.
    let d = prp(&mut b, true, (0, 12 * 4096), 0, part(0));
    let first = b.push(d);
    let d = prp(&mut b, true, (0, 4 * 4096), 0, part(4));
    let next = b.push(d);
    b.until(2000, "the list of the next descriptor is read", |b| {
        let p = &b.dma.descriptors[&next];
        p.list_is_read() && p.open == 0
    })?;
    let moved = b.dma.requested(first);
    ensure!(
        moved < 6 * 4096,
        "{moved} bytes of the first were moved by then"
    );
    b.record()?;
    b.record()?;
    Ok(())
}

/// A descriptor of `n` pages beyond the first, with a list, and the place of its entries.
fn with_list(b: &mut Bench, n: u64, at: u64) -> (Descriptor, Vec<u64>) {
    let len = (n as u32 + 1) * 4096;
    let d = generated(prp(b, n.is_multiple_of(2), (0, len), at, 0));
    let walk = crate::lists::walk(&b.dma.lists, &d);
    let places = walk
        .reads
        .iter()
        .flat_map(|&(addr, n)| (addr..addr + n).step_by(8))
        .collect();
    (d, places)
}

#[test]
fn malformed_entries() -> Checked {
    let mut b = Bench::configured(36)?;
    b.sizes(2, 5)?;
    let due = (0, code::PRP_OFFSET);
    for wrong in [1, 2, 3] {
        let mut d = prp(&mut b, true, (0, 100), 0, part(0));
        d.addr += wrong;
        let end = transfer(&mut b, d)?;
        ensure!(end == due, "PRP entry 1 at {:#x}: {end:x?}", d.addr);
    }
    for (len, wrong) in [
        (8192, 4),
        (8192, 1),
        (8192, 0x800),
        (12288, 4),
        (12288, 1),
        (12288, 0x802),
    ] {
        let mut d = prp(&mut b, false, (0, len), 0, part(0));
        if let Pointer::Prp(second) = &mut d.pointer {
            *second |= wrong;
        }
        let id = b.push(d);
        let raw = b.raw_record()?;
        ensure!(
            raw == 1 << 63 | u64::from(code::PRP_OFFSET) << 24 | u64::from(id),
            "{len} bytes, PRP entry 2 off by {wrong:#x}: {raw:#x}"
        );
        b.dma.record(raw)?;
        ensure!(b.dma.requested(id) == 0, "something was moved");
        b.dma.forget();
    }
    // Entries of a list: the first, one amid a block, the last, pointers to the next page.
    for (n, at, nth, wrong) in [
        (2, 0, 0, 8),
        (2, 0, 1, 4),
        (40, 0, 23, 0x800),
        (40, 0xfc0, 7, 8),
        (40, 0xfc0, 8, 1),
        (600, 0, 511, 16),
        (600, 0, 600, 2),
    ] {
        let (d, places) = with_list(&mut b, n, at);
        *b.dma.lists.get_mut(&places[nth]).ok_or("no entry")? |= wrong;
        let end = transfer(&mut b, d)?;
        ensure!(end == due, "entry {nth} of {n} off by {wrong:#x}: {end:x?}");
        // The engine goes on.
        let d = prp(&mut b, false, (0x10, 13000), 0xff0, part(1));
        good(&mut b, d)?;
    }
    Ok(())
}

#[test]
fn list_reads_that_fail() -> Checked {
    let mut b = Bench::configured(37)?;
    b.sizes(2, 5)?;
    for (status, bits) in [
        (CplStatus::UnsupportedRequest, 1),
        (CplStatus::CompleterAbort, 4),
    ] {
        for (n, at, nth) in [
            (2, 0, 0),
            (200, 0x40, 0),
            (200, 0, 5),
            (40, 0xfc0, 1),
            (200, 0, 12),
        ] {
            let (d, _) = with_list(&mut b, n, at);
            let list_answer = Some((nth, status));
            let end = transfer(&mut b, Descriptor { list_answer, ..d })?;
            ensure!(
                end == (bits, code::DATA_TRANSFER_ERROR),
                "read {nth} of a list of {n}: {end:x?}"
            );
            let d = prp(&mut b, false, (0x10, 13000), 0xff0, part(1));
            good(&mut b, d)?;
        }
    }
    // The data fail, the list does not.
    let answer = CplStatus::UnsupportedRequest;
    let d = prp(&mut b, false, (0, 13000), 0, part(0));
    let end = transfer(&mut b, Descriptor { answer, ..d })?;
    ensure!(end == (1, 0), "failed data: {end:x?}");
    Ok(())
}

#[test]
fn poisoned_list() -> Checked {
    let mut b = Bench::configured(38)?;
    b.answers = 0;
    let d = prp(&mut b, true, (0, 13000), 0, part(0));
    let id = b.push(d);
    b.until(400, "the read of the list", |b| b.dma.pending.len() == 1)?;
    b.until(400, "the first page", |b| b.dma.requested(id) == 4096)?;
    let (_, read) = b.dma.pending.pop_first().ok_or("no read")?;
    let data = vec![0; read.left as usize];
    let success = CplStatus::Success;
    let cpl =
        crate::common::Tlp::completion(&read.head, Bdf(8), success, read.left, read.addr, data);
    b.source.send(cpl.poisoned());
    let raw = b.raw_record()?;
    let due = 1 << 63 | u64::from(code::DATA_TRANSFER_ERROR) << 24 | 4 << 16 | u64::from(id);
    ensure!(raw == due, "record {raw:#x} after a poisoned list");
    Ok(())
}

#[test]
fn timeout_of_a_list() -> Checked {
    let mut b = Bench::configured(39)?;
    b.answers = 0;
    let d = prp(&mut b, true, (0, 13000), 0xff0, part(0));
    let id = b.push(d);
    b.until(400, "the read of the list", |b| b.dma.pending.len() == 1)?;
    b.run(1 << 20)?;
    b.run(300)?;
    let raw = b.get64(0x128)?;
    let due = 1 << 63 | u64::from(code::DATA_TRANSFER_ERROR) << 24 | 7 << 16 | u64::from(id);
    ensure!(raw == due, "record {raw:#x} after the timeout");
    let status = b.get64(0x10)?;
    ensure!(status & 0x80ff_ffff == 0x8000_0000, "STATUS {status:#x}");
    // What comes later is unexpected, and the engine goes on.
    b.answers = 100;
    b.until(2000, "late completions", |b| b.dma.pending.is_empty())?;
    b.drained()?;
    ensure!(b.get64(0x18)? >> 32 > 0, "a late completion was taken");
    if let Some(p) = b.dma.descriptors.get_mut(&id) {
        p.recorded = true;
    }
    b.dma.forget();
    let d = prp(&mut b, false, (0x10, 13000), 0xff0, part(1));
    good(&mut b, d)
}

/// What ended one descriptor says nothing about those that come after it.
#[test]
fn good_descriptors_among_bad_ones() -> Checked {
    let mut b = Bench::configured(40)?;
    for _ in 0..20 {
        // The queues fill up, and then all slots are taken and given back in a row.
        b.sink.readiness[POSTED] = 0;
        for n in 0..40 {
            let mut d = Descriptor::plain(true, 0x1000, 600, part(n % 32));
            if percent(&mut b.rng, 40) {
                d = prp(&mut b, true, (0x10, 16), 0, part(n % 32));
                d.addr |= 1;
            }
            b.push(d);
        }
        b.drained()?;
        b.sink.readiness[POSTED] = 100;
        for _ in 0..40 {
            b.record()?;
        }
        b.dma.forget();
    }
    Ok(())
}

/// The checkers of lists fail when there is reason to.
mod negative {
    use super::*;
    use crate::negative::complaint;

    /// A transfer of 40 pages whose expectation is then changed.
    fn changed(seed: u64, change: impl Fn(&mut crate::lists::Walk), about: &str) -> Checked {
        let mut b = Bench::configured(seed)?;
        let (d, _) = with_list(&mut b, 40, 0x40);
        let id = b.push(d);
        let p = b.dma.descriptors.get_mut(&id).ok_or("no descriptor")?;
        change(&mut p.walk);
        complaint(b.record(), about);
        Ok(())
    }

    #[test]
    fn a_list_read_of_another_length() -> Checked {
        changed(41, |w| w.reads[1].1 -= 8, "list of 1 at")
    }

    #[test]
    fn a_list_read_elsewhere() -> Checked {
        changed(42, |w| w.reads[1].0 += 128, "no descriptor asks for")
    }

    #[test]
    fn data_elsewhere() -> Checked {
        changed(43, |w| w.extents[17].addr ^= PAGE, "descriptor 1 at")
    }

    #[test]
    fn an_early_record() -> Checked {
        changed(44, |w| w.needed += 1, "before its end")
    }

    #[test]
    fn another_code() -> Checked {
        changed(45, |w| w.code = code::PRP_OFFSET, "list code 0x0, not 0x13")
    }

    #[test]
    fn an_entry_that_changes() -> Checked {
        let mut b = Bench::configured(46)?;
        let (d, places) = with_list(&mut b, 40, 0x40);
        b.push(d);
        *b.dma.lists.get_mut(&places[30]).ok_or("no entry")? ^= PAGE;
        complaint(b.record(), "descriptor 1 at");
        Ok(())
    }
}
