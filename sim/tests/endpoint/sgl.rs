//! Transfers whose data a scatter gather list describes (NVM Express 1.4 §4.4).

use rand::RngExt;
use tlproof_pcie::CplStatus;

use crate::{
    bench::Bench,
    common::Checked,
    descriptor::{Descriptor, Pointer},
    lists::{MAX_DESCRIPTORS, PAGE, code},
    part,
    prp::{data_page, generated, good, list_page, transfer},
};

/// A descriptor's two halves.
pub type Sgl = (u64, u64);

pub fn block(addr: u64, len: u32) -> Sgl {
    (addr, u64::from(len))
}

pub fn bucket(b: &mut Bench, len: u32) -> Sgl {
    // The address is reserved.
    (b.rng.random(), 1 << 60 | u64::from(len))
}

pub fn segment(addr: u64, descriptors: usize) -> Sgl {
    (addr, (2 << 60) | (16 * descriptors as u64))
}

pub fn last_segment(addr: u64, descriptors: usize) -> Sgl {
    (addr, (3 << 60) | (16 * descriptors as u64))
}

/// A data block somewhere.
pub fn somewhere(b: &mut Bench, len: u32) -> Sgl {
    let at = b.rng.random_range(0..1024) * 4;
    block(data_page(b) + at, len)
}

/// Puts a segment into memory, at offset `at` of a page.
pub fn put(b: &mut Bench, segment: &[Sgl], at: u64) -> u64 {
    let addr = list_page(b) + at;
    let words = segment.iter().flat_map(|&(low, high)| {
        // Reserved bits are not looked at.
        [low, high | 0xa5_5aff << 32]
    });
    b.dma.lists.extend((addr..).step_by(8).zip(words));
    addr
}

/// The descriptor for a list that begins with `first`.
pub fn sgl(write: bool, (addr, high): Sgl, len: u32, local: u32) -> Descriptor {
    Descriptor {
        pointer: Pointer::Sgl(high),
        ..Descriptor::plain(write, addr, len, local)
    }
}

/// The list of these data descriptors in segments that begin at offset `at` of a page and have at
/// most `most` of them.
pub fn list(b: &mut Bench, data: &[Sgl], most: usize, at: u64) -> Sgl {
    if data.len() <= most {
        let addr = put(b, data, at);
        return last_segment(addr, data.len());
    }
    let (here, rest) = data.split_at(most);
    let next = list(b, rest, most, at);
    let mut all = here.to_vec();
    all.push(next);
    let addr = put(b, &all, at);
    segment(addr, all.len())
}

#[test]
fn one_data_block() -> Checked {
    let mut b = Bench::configured(50)?;
    b.sizes(2, 5)?;
    for write in [true, false] {
        for len in [4, 64, 1000, 4096, 30_000] {
            let first = somewhere(&mut b, len);
            good(&mut b, sgl(write, first, len, part(0)))?;
        }
    }
    let first = somewhere(&mut b, 4 << 20);
    good(&mut b, generated(sgl(true, first, 4 << 20, 0)))
}

#[test]
fn segments() -> Checked {
    let mut b = Bench::configured(51)?;
    b.sizes(1, 3)?;
    for write in [true, false] {
        for (lens, most, at) in [
            (&[100][..], 9, 0),
            (&[4, 8, 4000], 9, 0xff8),
            (&[4000, 4, 300, 12, 8], 2, 8),
            (&[4; 40], 40, 0x38),
            (&[16; 300], 7, 0xf00),
            (&[64; 200], 1, 0),
        ] {
            let data: Vec<_> = lens.iter().map(|&n| somewhere(&mut b, n)).collect();
            let first = list(&mut b, &data, most, at);
            let d = sgl(write, first, lens.iter().sum(), part(0));
            good(&mut b, d)?;
        }
    }
    Ok(())
}

#[test]
fn descriptors_without_data() -> Checked {
    let mut b = Bench::configured(52)?;
    for write in [true, false] {
        // Blocks of no length, aligned or not, at the start, amid and after the data; segments
        // that hold nothing else.
        let data: Vec<_> = [0, 0, 100, 0, 200, 0]
            .map(|n| somewhere(&mut b, n))
            .into_iter()
            .chain([block(3, 0)])
            .collect();
        for most in [1, 2, 7] {
            let first = list(&mut b, &data, most, 0x10);
            good(&mut b, sgl(write, first, 300, part(0)))?;
        }
    }
    // To a device that writes a bit bucket is a part of the data, to one that reads it is nothing.
    for write in [true, false] {
        let (head, tail) = (somewhere(&mut b, 400), somewhere(&mut b, 80));
        let data = [
            bucket(&mut b, 64),
            head,
            bucket(&mut b, 1 << 12),
            tail,
            bucket(&mut b, 4),
        ];
        let first = list(&mut b, &data, 2, 0);
        let len = if write { 480 + 64 + 4096 + 4 } else { 480 };
        good(&mut b, sgl(write, first, len, part(0)))?;
    }
    let all = bucket(&mut b, 5000);
    good(&mut b, sgl(true, all, 5000, part(0)))
}

#[test]
fn malformed_lists() -> Checked {
    let mut b = Bench::configured(53)?;
    let a = somewhere(&mut b, 64);
    let z = somewhere(&mut b, 32);
    let nothing = put(&mut b, &[a, z], 0);
    let inner = last_segment(nothing, 2);
    // A list of 96 bytes, and how it ends.
    let mut cases = vec![
        (a, code::SGL_LENGTH, "shorter than the data"),
        (block(a.0, 100), code::SGL_LENGTH, "longer than the data"),
        (block(a.0, 0), code::SGL_LENGTH, "empty"),
        (
            block(a.0 + 2, 96),
            code::SGL_GRANULARITY,
            "address of a block",
        ),
        (block(a.0, 98), code::SGL_GRANULARITY, "length of a block"),
        ((a.0, 4 << 60 | 96), code::SGL_TYPE, "keyed data block"),
        ((a.0, 5 << 60 | 96), code::SGL_TYPE, "transport data block"),
        ((a.0, 0xf << 60 | 96), code::SGL_TYPE, "vendor specific"),
        ((a.0, 1 << 56 | 96), code::SGL_TYPE, "subtype of a block"),
        (
            (nothing, 0x31 << 56 | 32),
            code::SGL_TYPE,
            "subtype of a segment",
        ),
        (
            (nothing, 3 << 60),
            code::SGL_SEGMENT,
            "segment of no length",
        ),
        (
            (nothing, 3 << 60 | 24),
            code::SGL_SEGMENT,
            "segment of 24 bytes",
        ),
        (
            (nothing + 4, 3 << 60 | 32),
            code::SGL_SEGMENT,
            "address of a segment",
        ),
        (
            (nothing, 2 << 60 | 32),
            code::SGL_SEGMENT,
            "segment without a next one",
        ),
    ];
    let mut add = |b: &mut Bench, list: &[Sgl], last: bool, due, about| {
        let addr = put(b, list, 0x20);
        let first = if last { last_segment } else { segment }(addr, list.len());
        cases.push((first, due, about));
    };
    add(
        &mut b,
        &[a, inner],
        true,
        code::SGL_SEGMENT,
        "segment in the last one",
    );
    add(
        &mut b,
        &[inner, a],
        true,
        code::SGL_SEGMENT,
        "segment at the start of the last one",
    );
    add(
        &mut b,
        &[inner, a],
        false,
        code::SGL_NUMBER,
        "segment amid a segment",
    );
    add(
        &mut b,
        &[a, inner, inner],
        false,
        code::SGL_NUMBER,
        "two segments in a segment",
    );
    add(
        &mut b,
        &[a, a],
        true,
        code::SGL_LENGTH,
        "longer than the data, in a segment",
    );
    add(
        &mut b,
        &[a],
        true,
        code::SGL_LENGTH,
        "shorter than the data, in a segment",
    );
    add(
        &mut b,
        &[a, z, z],
        true,
        code::SGL_LENGTH,
        "data after the end",
    );
    add(
        &mut b,
        &[a, (z.0, 7 << 60 | 32)],
        true,
        code::SGL_TYPE,
        "type in a segment",
    );
    add(
        &mut b,
        &[a, block(z.0, 30)],
        true,
        code::SGL_GRANULARITY,
        "length in a segment",
    );
    add(
        &mut b,
        &[a, block(z.0 + 1, 32)],
        true,
        code::SGL_GRANULARITY,
        "address in a segment",
    );
    for (first, due, about) in cases {
        for write in [true, false] {
            let end = transfer(&mut b, sgl(write, first, 96, part(0)))?;
            ensure!(end == (0, due), "{about}: {end:x?}, not {due:#x}");
            good(&mut b, sgl(write, inner, 96, part(1)))?;
        }
    }
    Ok(())
}

#[test]
fn a_list_without_end() -> Checked {
    let mut b = Bench::configured(54)?;
    let page = list_page(&mut b);
    let round: Vec<_> = (0..63).map(|_| block(0, 0)).collect();
    let words = round.iter().copied().chain([segment(page, 64)]);
    let words = words.flat_map(|(low, high)| [low, high]);
    b.dma.lists.extend((page..).step_by(8).zip(words));
    let d = sgl(true, segment(page, 64), 96, part(0));
    let reads = crate::lists::walk(&b.dma.lists, &d).needed;
    ensure!(reads * 8 >= MAX_DESCRIPTORS, "{reads} reads of the list");
    let end = transfer(&mut b, d)?;
    ensure!(end == (0, code::SGL_NUMBER), "a list without end: {end:x?}");
    good(&mut b, sgl(false, block(PAGE, 96), 96, part(1)))
}

#[test]
fn segments_that_cannot_be_read() -> Checked {
    let mut b = Bench::configured(55)?;
    for (status, bits) in [
        (CplStatus::UnsupportedRequest, 1),
        (CplStatus::CompleterAbort, 4),
    ] {
        for (n, most, nth) in [(1, 1, 0), (60, 60, 3), (60, 10, 2), (60, 60, 7), (7, 3, 1)] {
            let data: Vec<_> = (0..n).map(|_| somewhere(&mut b, 200)).collect();
            let first = list(&mut b, &data, most, 0);
            for write in [true, false] {
                let d = Descriptor {
                    list_answer: Some((nth, status)),
                    ..sgl(write, first, 200 * n, part(0))
                };
                let end = transfer(&mut b, d)?;
                ensure!(
                    end == (bits, code::DATA_TRANSFER_ERROR),
                    "read {nth} of a list of {n}: {end:x?}"
                );
                good(&mut b, sgl(write, first, 200 * n, part(0)))?;
            }
        }
    }
    Ok(())
}
