//! A12: requests of `nvme-pci`, how they are mapped, described, fetched by the device and undone.

use tlproof::testbench::nvme::data_transfer;
use tlproof_dma::{
    Event,
    block::{Bio, ReqOp, Request},
    nvme::{Command, Ctrl, DataPointer, Iod, IodFlags, Nvme, Queue, SglType, Source},
};
use tlproof_pcie::{Direction, PhysAddr};

use crate::{
    bench::{Bench, CLIENT},
    checks,
    row::{Row, number},
};

/// The words of the call: `n` segments of `size` bytes, one `every` so many, of a queue.
struct Call {
    segments: Vec<(PhysAddr, u64)>,
    queue: Queue,
    sgls: bool,
}

impl Call {
    fn new(bench: &Bench, row: &Row) -> Self {
        let word = |key: &str| {
            let mut words = row.call.split(' ');
            words.find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
        };
        let (first, size) = (bench.target(row), row.size());
        let every = word("every").map_or(size, number);
        let n = word("n").map_or(1, number);
        Self {
            segments: (0..n).map(|i| (first.offset(i * every), size)).collect(),
            queue: match word("queue") {
                Some("admin") => Queue::Admin,
                None => Queue::Io,
                Some(other) => panic!("{}: queue {other}", row.id),
            },
            sgls: !row.call.split(' ').any(|w| w == "no-sgls"),
        }
    }
}

/// Runs a row.
pub fn run(row: &Row, dir: Direction) {
    let mut bench = Bench::new(row);
    let call = Call::new(&bench, row);
    let op = match dir {
        Direction::ToDevice => ReqOp::Write,
        Direction::FromDevice => ReqOp::Read,
        other => panic!("{}: no request is {other:?}", row.id),
    };
    let ctrl = Ctrl {
        sgls: call.sgls,
        ..Ctrl::default()
    };
    let mut nvme = Nvme::new(&mut bench.b.dma, bench.dev, ctrl).expect("a driver");
    let vec = |(phys, len): &(PhysAddr, u64)| {
        let vec = bench.b.dma.bio_vec(&bench.b.sim, *phys, *len as u32);
        vec.expect("pages")
    };
    let bio = Bio::new(call.segments.iter().map(vec)).expect("segments");
    let limits = nvme.limits(&bench.b.dma, call.queue);
    let req = Request::new(op, vec![bio], &limits).expect("a request");
    let source = Source {
        queue: call.queue,
        user: false,
    };
    let cmd = Command::new(if op == ReqOp::Read { 2 } else { 1 }, 1, 1);
    let r = bench.b.nvme_prep(CLIENT, &mut nvme, source, &req, cmd);
    let r = r.unwrap_or_else(|e| panic!("{}: {e:?}", row.id));
    let made = format(&r.iod);
    let d = data_transfer(&r.iod.cmd, op == ReqOp::Read, req.payload_bytes(), 0);
    bench.transfer(&d);
    bench.b.dma.trace.set_enabled(true);
    bench.b.dma.trace.take();
    bench.b.nvme_unmap(CLIENT, &mut nvme, &req, r);
    let undone = undone(&bench.b.dma.trace.take());
    assert_eq!(made, row.address, "{}: description", row.id);
    assert_eq!(undone, row.unmap, "{}: undone", row.id);

    bench.b.nvme_remove(CLIENT, nvme);
    bench.b.quiesce().expect("the machine comes to rest");
    checks::caught(&bench, row);
    let map = bench.b.sim.options().map.clone();
    let bdf = bench.bdf;
    let tlps = bench.tlps();
    checks::ends(row, &map, bdf, dir, &call.segments, &tlps);
}

/// How the data is described, and by what kind of page if by a list.
fn format(iod: &Iod) -> String {
    let small = iod.flags().contains(IodFlags::SMALL_DESCRIPTOR);
    let pages = iod.descriptors().len();
    let list = match (pages, small) {
        (0, _) => String::new(),
        (1, true) => " in a small list".to_owned(),
        (n, _) => format!(" in {n} list pages"),
    };
    match iod.cmd.dptr {
        DataPointer::Prp { prp2, .. } if pages == 0 && prp2.0 == 0 => "PRP1".to_owned(),
        DataPointer::Prp { .. } if pages == 0 => "PRP1 PRP2".to_owned(),
        DataPointer::Prp { .. } => format!("PRPs{list}"),
        DataPointer::Sgl(d) if d.kind == SglType::Data => "SGL data".to_owned(),
        DataPointer::Sgl(d) => format!("{} SGL entries{list}", d.length / 16),
    }
}

/// The mapping calls that undid it.
fn undone(events: &[Event]) -> String {
    let mut calls: Vec<(String, usize)> = Vec::new();
    for e in events {
        let call = match e {
            Event::DmaUnmapPhys { attrs, .. } => format!("unmap_phys {attrs}"),
            Event::IovaDestroy { attrs, .. } => format!("destroy {attrs}"),
            Event::IovaUnlink { attrs, .. } => format!("unlink {attrs}"),
            _ => continue,
        };
        let call = call.trim_end().to_owned();
        match calls.iter_mut().find(|c| c.0 == call) {
            Some(c) => c.1 += 1,
            None => calls.push((call, 1)),
        }
    }
    let calls: Vec<_> = calls.iter().map(|(c, n)| format!("{n} {c}")).collect();
    if calls.is_empty() {
        "nothing".to_owned()
    } else {
        calls.join("; ")
    }
}
