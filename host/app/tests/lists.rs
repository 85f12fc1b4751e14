//! PRP lists and scatter gather lists in DRAM, followed through the IOMMU.

use tlproof::{
    checker::Checker,
    endpoint::{Completion, Descriptor, ListError, Mode, SglDescriptor, SglKind},
    testbench::{Setup, Testbench},
};
use tlproof_dma::{Attrs, machine::Machine};
use tlproof_golden::Judge;
use tlproof_pcie::{CplStatus, Direction, DmaAddr, PhysAddr};

const PAGE: u64 = 4096;
/// Data, every other page from here on.
const DATA: PhysAddr = PhysAddr(0x9000_0000);
/// Lists, every other page from here on.
const LISTS: PhysAddr = PhysAddr(0x9800_0000);

fn bench() -> Testbench {
    let setup = Setup::default();
    let checker = Checker::new(&setup.machine, true, None, 100);
    Testbench::new(&setup, checker).expect("the machine comes up")
}

/// Runs one transfer of endpoint `f` to its end.
fn transfer(b: &mut Testbench, f: usize, d: &Descriptor) -> Completion {
    let engine = &mut b.functions[f].engine;
    engine.submit(&mut b.sim, d).expect("the device answers");
    for _ in 0..2000 {
        b.sim.run(100).expect("no assertion fails");
        let engine = &mut b.functions[f].engine;
        if let Some(c) = engine.poll(&mut b.sim).expect("the device answers") {
            return c;
        }
    }
    panic!("the transfer does not end");
}

/// The judges and fields of all violations.
fn found(b: &Testbench) -> Vec<(Judge, &'static str)> {
    let all = b.sim.checker.violations();
    all.iter().map(|v| (v.judge, v.field)).collect()
}

/// A page that is mapped for endpoint `f`.
#[derive(Clone, Copy)]
struct Mapped {
    phys: PhysAddr,
    dma: DmaAddr,
    dir: Direction,
}

/// Maps `n` pages, each for itself.
fn map(b: &mut Testbench, f: usize, base: PhysAddr, n: u64, dir: Direction) -> Vec<Mapped> {
    let page = |i| base.offset(2 * PAGE * i);
    (0..n)
        .map(|i| Mapped {
            phys: page(i),
            dma: b.map_phys(f, page(i), PAGE, dir, Attrs::empty()).unwrap(),
            dir,
        })
        .collect()
}

fn unmap(b: &mut Testbench, f: usize, pages: &[Mapped]) {
    for p in pages {
        b.unmap_phys(f, p.dma, PAGE, p.dir, Attrs::empty());
    }
}

/// Writes a PRP list for `entries` that begins at offset `at` of the first of these pages and goes
/// on in the others; yields PRP entry 2.
fn write_prp_list(b: &mut Testbench, entries: &[DmaAddr], pages: &[Mapped], at: u64) -> DmaAddr {
    let mut rest = entries;
    let mut at_page = at;
    for (i, page) in pages.iter().enumerate() {
        let slots = ((PAGE - at_page) / 8) as usize;
        let chained = rest.len() > slots;
        let here = if chained { slots - 1 } else { rest.len() };
        let next = chained.then(|| pages[i + 1].dma);
        let words = rest[..here].iter().copied().chain(next);
        let bytes: Vec<u8> = words.flat_map(|d| d.0.to_le_bytes()).collect();
        b.sim.mem_write(page.phys.offset(at_page), &bytes);
        rest = &rest[here..];
        at_page = 0;
    }
    assert!(rest.is_empty(), "too few pages for the list");
    pages[0].dma.offset(at)
}

fn write_segment(b: &mut Testbench, page: Mapped, at: u64, segment: &[SglDescriptor]) {
    let bytes: Vec<u8> = segment.iter().flat_map(|d| d.to_bytes()).collect();
    b.sim.mem_write(page.phys.offset(at), &bytes);
}

fn some_bytes(seed: u64, n: usize) -> Vec<u8> {
    let byte = |i: u64| ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (0..n as u64).map(byte).collect()
}

/// Data go into the device by a chained PRP list and out of it by an SGL of two segments.
#[test]
fn lists_in_memory_are_followed() {
    for f in 0..3 {
        let mut b = bench();
        let source = map(&mut b, f, DATA, 16, Direction::ToDevice);
        let sink = map(&mut b, f, DATA.offset(PAGE), 20, Direction::FromDevice);
        let lists = map(&mut b, f, LISTS, 4, Direction::ToDevice);

        // 60000 bytes from offset 0x200 of the first page on; the list's first page has room for
        // seven entries and the pointer to its second.
        let len = 60_000;
        let data = some_bytes(f as u64, len);
        let mut at = 0;
        for (i, page) in source.iter().enumerate() {
            let skip = if i == 0 { 0x200 } else { 0 };
            let n = (PAGE as usize - skip).min(len - at);
            let place = page.phys.offset(skip as u64);
            b.sim.mem_write(place, &data[at..at + n]);
            at += n;
        }
        assert_eq!(at, len);
        let first = source[0].dma.offset(0x200);
        let entries: Vec<_> = source[1..15].iter().map(|p| p.dma).collect();
        let second = write_prp_list(&mut b, &entries, &lists[..2], PAGE - 64);
        let d = Descriptor::prp(1, false, [first, second], len as u32, 0);
        assert!(transfer(&mut b, f, &d).is_success(), "endpoint {f}");

        // Blocks of 3000 bytes, each at offset 0x100 of a page, in two segments.
        let block = |p: &Mapped| SglDescriptor::new(SglKind::DataBlock, p.dma.offset(0x100), 3000);
        let mut segment: Vec<_> = sink[..12].iter().map(block).collect();
        let rest: Vec<_> = sink[12..].iter().map(block).collect();
        let bytes = |n: usize| n as u32 * SglDescriptor::SIZE as u32;
        segment.push(SglDescriptor::new(
            SglKind::LastSegment,
            lists[3].dma.offset(8),
            bytes(rest.len()),
        ));
        write_segment(&mut b, lists[3], 8, &rest);
        write_segment(&mut b, lists[2], 0x7f8, &segment);
        let head = SglDescriptor::new(
            SglKind::Segment,
            lists[2].dma.offset(0x7f8),
            bytes(segment.len()),
        );
        let d = Descriptor::sgl(2, true, head, len as u32, 0);
        assert!(transfer(&mut b, f, &d).is_success(), "endpoint {f}");

        for pages in [&source, &sink, &lists] {
            unmap(&mut b, f, pages);
        }
        b.quiesce().unwrap();
        for (page, due) in sink.iter().zip(data.chunks(3000)) {
            let mut seen = vec![0; 3000];
            b.sim.mem_read(page.phys.offset(0x100), &mut seen);
            assert!(seen == due, "endpoint {f}: data at {:#x}", page.phys);
        }
        assert_eq!(found(&b), []);
    }
}

/// Endpoint 0 writes where a list of seven pages says, after a change to its entries or to PRP
/// entry 2.
fn follow(b: &mut Testbench, change: impl FnOnce(&mut [DmaAddr], &mut DmaAddr)) -> Completion {
    let data = map(b, 0, DATA, 8, Direction::FromDevice);
    let lists = map(b, 0, LISTS, 1, Direction::ToDevice);
    let mut entries: Vec<_> = data[1..].iter().map(|p| p.dma).collect();
    let mut second = lists[0].dma;
    change(&mut entries, &mut second);
    write_prp_list(b, &entries, &lists, 0);
    let d = Descriptor {
        pattern: Some(7),
        ..Descriptor::prp(1, true, [data[0].dma, second], 8 * PAGE as u32, 0)
    };
    let c = transfer(b, 0, &d);
    b.quiesce().unwrap();
    c
}

#[test]
fn a_good_list_breaks_no_promise() {
    let mut b = bench();
    assert!(follow(&mut b, |_, _| ()).is_success());
    assert_eq!(found(&b), []);
}

#[test]
fn an_entry_outside_the_promise() {
    let mut b = bench();
    // A posted write: the device does not learn that it was refused.
    let mut outside = DmaAddr(0);
    let c = follow(&mut b, |entries, _| {
        entries[3].0 -= 0x10_0000;
        outside = entries[3];
    });
    assert!(c.is_success(), "{c:?}");
    let all = found(&b);
    assert!(all.contains(&(Judge::Promise, "address")), "{all:?}");
    let first = &b.sim.checker.violations()[0];
    assert_eq!(first.head.addr(), outside.on_bus(), "{first}");
}

#[test]
fn a_list_outside_the_promise() {
    let mut b = bench();
    let c = follow(&mut b, |_, second| second.0 -= 0x10_0000);
    // The IOMMU refuses the read of the list, and the device says so.
    assert_eq!(c.list, Some(ListError::DataTransfer));
    assert_ne!(c.status, Some(CplStatus::Success));
    let all = found(&b);
    assert!(all.contains(&(Judge::Promise, "address")), "{all:?}");
}

#[test]
fn a_malformed_list_ends_the_transfer() {
    let mut b = bench();
    let c = follow(&mut b, |entries, _| entries[3].0 += 8);
    assert_eq!(c.list, Some(ListError::PrpOffset));
    assert_eq!(c.status, Some(CplStatus::Success));
    assert_eq!(found(&b), []);
}

/// The engine says the mode that it was given, whatever its lists.
#[test]
fn modes_follow_each_other() {
    let mut b = bench();
    let data = map(&mut b, 0, DATA, 1, Direction::Bidirectional);
    let dma = data[0].dma;
    let block = SglDescriptor::new(SglKind::DataBlock, dma, 512);
    for (id, d) in [
        Descriptor::contiguous(0, true, dma, 512, 0),
        Descriptor::sgl(0, true, block, 512, 0),
        Descriptor::prp(0, true, [dma, DmaAddr(0)], 512, 0),
        Descriptor::contiguous(0, false, dma, 512, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let id = id as u16;
        let contiguous = d.mode == Mode::Contiguous;
        let c = transfer(&mut b, 0, &Descriptor { id, ..d });
        assert!(
            c.is_success() && c.id == id,
            "{c:?}, contiguous: {contiguous}"
        );
    }
    unmap(&mut b, 0, &data);
    b.quiesce().unwrap();
    assert_eq!(found(&b), []);
}
