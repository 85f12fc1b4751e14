//! What a row states, against what happened.

use std::collections::BTreeSet;

use serde::Deserialize;
use tlproof::simulation::Maintenance;
use tlproof_dma::{Attrs, Event, Swiotlb, machine::Machine, p2pdma::MapType};
use tlproof_pcie::{Bdf, Direction, DmaAddr, MemoryMap, PhysAddr};

use crate::{
    bench::{Bench, CLIENT, Made, POOL, Refused},
    row::{Row, number},
    walk,
};

/// What was noted while a row ran.
pub struct Seen {
    pub target: PhysAddr,
    /// Tail of the command queue before the call.
    pub queue: Option<u64>,
    pub map_ops: Maintenance,
    pub map_events: Vec<Event>,
    pub unmap_ops: Maintenance,
    pub unmap_events: Vec<Event>,
    /// What the device used.
    pub dma: Option<(DmaAddr, u64)>,
}

impl Seen {
    pub fn new(target: PhysAddr, queue: Option<u64>) -> Self {
        Self {
            target,
            queue,
            map_ops: Maintenance::default(),
            map_events: Vec::new(),
            unmap_ops: Maintenance::default(),
            unmap_events: Vec::new(),
            dma: None,
        }
    }
}

/// The columns of `tlps.csv` that are looked at.
#[derive(Debug, Deserialize)]
pub struct Tlp {
    tap: String,
    kind: String,
    requester: String,
    address: Option<String>,
    mem_type: Option<String>,
    snoop: Option<u8>,
    status: Option<String>,
}

/// `dma_mapping_error`, an error number, or success.
pub fn result(row: &Row, error: Option<&Refused>) {
    let got = match error {
        None => "ok".to_owned(),
        Some(e) if row.result.starts_with("E:") => {
            let name = &e.name;
            let end = name
                .find(|c: char| !c.is_alphanumeric())
                .unwrap_or(name.len());
            format!("E:{}", &name[..end])
        }
        Some(e) => match e.errno {
            -1 => "-EPERM".to_owned(),
            -5 => "-EIO".to_owned(),
            -6 => "-ENXIO".to_owned(),
            -95 => "-EOPNOTSUPP".to_owned(),
            -22 => "-EINVAL".to_owned(),
            -98 => "-EADDRINUSE".to_owned(),
            -121 => "-EREMOTEIO".to_owned(),
            n => format!("{n} ({})", e.name),
        },
    };
    let want = match row.result.as_str() {
        "" => "ok",
        // How a peer is reached is compared elsewhere.
        w if w.starts_with("P2P:") => "ok",
        w => w,
    };
    assert_eq!(got, want, "{}: result", row.id);
}

/// The address and its translation, while the mapping is there.
pub fn mapped(bench: &mut Bench, row: &Row, dir: Direction, made: &Made, seen: &Seen) {
    let target = bench.target(row);
    let translated = bench.b.dma.domain_of(bench.dev).is_some();
    let slots = bounced(&seen.map_events);
    if let Some(kind) = row.result.strip_prefix("P2P:") {
        peer(bench, row, kind);
    }
    let Some(dma) = made.dma() else { return };
    let behind = slots
        .iter()
        .find(|(phys, _, _)| *phys == target)
        .map_or(target, |(_, _, tlb)| *tlb);
    let mut words = row.address.split(' ');
    let form = words.next().unwrap_or_default();
    let (form, offset) = form.split_once('+').unwrap_or((form, "0"));
    match form {
        "iova" => {
            assert!(translated, "{}: not translated", row.id);
            assert_eq!(dma.0 % 4096, behind.0 % 4096, "{}: offset of {dma}", row.id);
            let leaf = walk::leaf(&mut bench.b.sim, bench.bdf, dma.0);
            let leaf = leaf.unwrap_or_else(|| panic!("{}: no leaf for {dma}", row.id));
            assert_eq!(leaf.phys, behind, "{}: translation of {dma}", row.id);
        }
        "phys" => assert_eq!(dma.0, target.0 + number(offset), "{}", row.id),
        "bus" => assert_eq!(
            dma.0,
            bench.b.sim.options().map.to_bus(target).0,
            "{}",
            row.id
        ),
        "bounce" => {
            let phys = PhysAddr(dma.0);
            assert!(POOL.contains(phys, row.size()), "{}: {dma}", row.id);
            assert_eq!(phys, behind, "{}", row.id);
        }
        "" => {}
        exact => assert_eq!(dma.0, number(exact), "{}: {dma}", row.id),
    }
    for word in words {
        let slot = behind.0;
        match word.split_once('=') {
            Some(("at", at)) => assert_eq!(slot % 4096, number(at), "{}: {word}", row.id),
            Some(("multiple", of)) => assert_eq!(slot % number(of), 0, "{}: {word}", row.id),
            Some(("slots", n)) => {
                let used = bench.b.dma.swiotlb().map_or(0, Swiotlb::used);
                assert_eq!(used as u64, number(n), "{}: {word}", row.id);
            }
            _ => panic!("{}: {word}", row.id),
        }
    }

    let prots: BTreeSet<u32> = seen
        .map_events
        .iter()
        .filter_map(|e| match e {
            Event::IommuMap { prot, .. } => Some(prot.bits()),
            _ => None,
        })
        .collect();
    if !row.call.starts_with("iommu_map") {
        let want: Vec<u32> = match row.prot.as_str() {
            "" => Vec::new(),
            p => {
                let mut prot = number(p) as u32;
                if row.dir == "*" {
                    prot &=
                        !(u32::from(!dir.device_reads()) | u32::from(!dir.device_writes()) << 1);
                }
                vec![prot]
            }
        };
        assert_eq!(
            prots.into_iter().collect::<Vec<_>>(),
            want,
            "{}: prot",
            row.id
        );
    }
    entry(bench, row, dir, dma);
}

/// The leaf as it stands in memory (privileged specification §12.4, Svpbmt §5).
fn entry(bench: &mut Bench, row: &Row, dir: Direction, dma: DmaAddr) {
    if row.pte.is_empty() {
        return;
    }
    if row.pte == "bare" {
        let stage = walk::stage(&mut bench.b.sim, bench.bdf);
        assert!(matches!(stage, walk::Stage::Bare), "{}: {stage:?}", row.id);
        return;
    }
    let leaf = walk::leaf(&mut bench.b.sim, bench.bdf, dma.0);
    let leaf = leaf.unwrap_or_else(|| panic!("{}: no leaf", row.id));
    // V, U, A always; R with W; D with W; X always.
    let low = if dir.device_writes() { 0xdf } else { 0x5b };
    let ppn = leaf.phys.0 >> 12 << 10;
    let want = match row.pte.as_str() {
        "PMA" => low | ppn,
        "NC" => 1 << 61 | low | ppn,
        "IO" => 1 << 62 | low | ppn,
        exact => number(exact),
    };
    assert_eq!(
        leaf.entry, want,
        "{}: leaf {:#x}, not {want:#x}",
        row.id, leaf.entry
    );
    if want >> 63 != 0 {
        for page in 0..16 {
            let at = (dma.0 & !0xffff) + page * 4096;
            let leaf = walk::leaf(&mut bench.b.sim, bench.bdf, at).expect("all slots");
            assert_eq!(leaf.entry, want, "{}: slot {page}", row.id);
        }
    }
}

fn peer(bench: &mut Bench, row: &Row, kind: &str) {
    let provider = match row.target.as_str() {
        "own" => 0,
        "near" => 1,
        _ => 2,
    };
    let want = match kind {
        "BUS_ADDR" => MapType::BusAddr,
        "THRU" => MapType::ThruHostBridge,
        "NOT_SUPPORTED" => MapType::NotSupported,
        other => panic!("{}: {other}", row.id),
    };
    let got = bench.b.peer_map_type(CLIENT, provider);
    assert_eq!(got, want, "{}: peer", row.id);
}

/// Buffers and their slots, in the order in which they were found.
fn bounced(events: &[Event]) -> Vec<(PhysAddr, u64, PhysAddr)> {
    events
        .iter()
        .filter_map(|e| match e {
            Event::SwiotlbMap {
                phys, size, tlb, ..
            } => Some((*phys, *size, *tlb)),
            _ => None,
        })
        .collect()
}

/// What is left when the mapping is undone: nothing, unless the row says so.
pub fn undone(bench: &mut Bench, row: &Row, dma: Option<DmaAddr>, dir: Direction) {
    let mut left = Vec::new();
    if let (Some(dma), true) = (dma, bench.b.dma.domain_of(bench.dev).is_some()) {
        let page = dma.0 & !4095;
        for offset in (0..row.size() + dma.0 % 4096).step_by(4096) {
            if walk::leaf(&mut bench.b.sim, bench.bdf, page + offset).is_some() {
                left.push(format!("leaf@{offset:#x}"));
            }
        }
        // The driver of an IOMMU mapping without the mapping API cleans up by itself.
        if row.call.starts_with("iommu_map") {
            left.clear();
        }
        if row.after.contains("iova") {
            // As many whole pages, from elsewhere.
            let size = (row.size() + dma.0 % 4096).next_multiple_of(4096);
            let again = bench
                .b
                .dma
                .dma_map_phys(
                    &mut bench.b.sim,
                    bench.dev,
                    PhysAddr(0x8200_0000),
                    size,
                    dir,
                    Attrs::empty(),
                )
                .expect("IOVA is left");
            left.push(
                if again.0 == page {
                    "iova free"
                } else {
                    "iova held"
                }
                .to_owned(),
            );
        }
    }
    let used = bench.b.dma.swiotlb().map_or(0, Swiotlb::used);
    if used != 0 {
        left.push(format!("slots={used}"));
    }
    assert_eq!(left.join("; "), row.after, "{}: left behind", row.id);
}

/// Cache maintenance, bounces, events, warnings and commands of the calls.
pub fn calls(bench: &mut Bench, row: &Row, dir: Direction, ok: bool, seen: &Seen) {
    let id = &row.id;
    let (map, unmap) = row.sync.split_once('/').unwrap_or(("0", "0"));
    let (map, unmap) = (number(map), number(unmap));
    let count = |events: &[Event]| {
        events
            .iter()
            .filter(|e| {
                matches!(
                    e,
                    Event::ArchSyncForDevice { .. } | Event::ArchSyncForCpu { .. }
                )
            })
            .count() as u64
    };
    let got = (count(&seen.map_events), count(&seen.unmap_events));
    assert_eq!(got, (map, unmap), "{id}: maintenance");
    // On the machine: clean before, invalidate after if the device wrote.
    let invalidates = if dir.device_writes() { unmap } else { 0 };
    let ops = (
        (seen.map_ops.cleans, seen.map_ops.invalidates),
        (seen.unmap_ops.cleans, seen.unmap_ops.invalidates),
    );
    assert_eq!(ops, ((map, 0), (0, invalidates)), "{id}: cache operations");

    let pieces: Vec<String> = bounced(&seen.map_events)
        .iter()
        .map(|(phys, size, _)| format!("{:#x}+{size:#x}", phys.0 - seen.target.0))
        .collect();
    assert_eq!(pieces.join(" "), row.bounce, "{id}: bounced");
    if row.device("untrusted") && ok {
        padding(bench, id, seen);
    }

    let quiet = row.warnings.split(' ').any(|w| w == "quiet");
    if row.call.starts_with("map_") {
        let traced = seen.map_events.iter().any(|e| {
            matches!(
                e,
                Event::DmaMapPhys { .. } | Event::DmaMapSg { .. } | Event::DmaMapSgErr { .. }
            )
        });
        assert_eq!(traced, !quiet, "{id}: event of the call");
    }
    let warned: BTreeSet<String> = bench
        .b
        .dma
        .warnings()
        .iter()
        .map(|w| format!("{:?}", w.kind))
        .chain(
            bench
                .b
                .dma
                .debug()
                .iter()
                .flat_map(|d| d.log.shown())
                .map(|c| format!("D{}", c.report.number())),
        )
        .collect();
    let want: BTreeSet<String> = row
        .warnings
        .split(' ')
        .filter(|w| !w.is_empty() && *w != "quiet")
        .map(str::to_owned)
        .collect();
    assert_eq!(warned, want, "{id}: warnings");

    if !row.commands.is_empty() {
        let from = if row.call == "probe" {
            0
        } else {
            seen.queue.expect("a command queue")
        };
        let mut got = walk::commands(&mut bench.b.sim, from);
        let want: Vec<[u64; 2]> = row
            .commands
            .split(';')
            .map(|c| {
                let (a, b) = c.trim().split_once(',').expect("two doublewords");
                [number(a), number(b)]
            })
            .collect();
        if row.call == "probe" {
            got.truncate(want.len());
        }
        assert_eq!(got, want, "{id}: commands {got:x?}");
    }
}

/// Of the granules of a slot, an untrusted device sees nothing but the buffer.
fn padding(bench: &mut Bench, id: &str, seen: &Seen) {
    for (_, size, tlb) in bounced(&seen.map_events) {
        let start = tlb.align_down(4096);
        let end = (tlb.0 + size).next_multiple_of(4096);
        let mut granules = vec![0; (end - start.0) as usize];
        bench.b.sim.mem_read(start, &mut granules);
        let buffer = (tlb.0 - start.0) as usize..(tlb.0 + size - start.0) as usize;
        granules[buffer].fill(0);
        assert!(granules.iter().all(|b| *b == 0), "{id}: padding of {tlb}");
    }
}

/// Violations: those that the row states, and no other.
pub fn caught(bench: &Bench, row: &Row) {
    let checker = &bench.b.sim.checker;
    let got: BTreeSet<&str> = checker
        .violations()
        .iter()
        .map(|v| v.field)
        .chain(checker.memory_violations().iter().map(|v| v.rule.as_str()))
        .collect();
    let want: BTreeSet<&str> = row
        .caught
        .split(';')
        .map(str::trim)
        .filter(|w| !w.is_empty())
        .collect();
    let first = checker.violations().first();
    assert_eq!(got, want, "{}: violations, first {first:?}", row.id);
}

/// The TLPs of the transfers at every tap on their way.
pub fn taps(row: &Row, map: &MemoryMap, bdf: Bdf, seen: &Seen, tlps: &[Tlp]) {
    let id = &row.id;
    let requester = bdf.to_string();
    let at = |tap: &str| -> Vec<&Tlp> {
        tlps.iter()
            .filter(|t| t.requester == requester && matches!(&*t.kind, "MRd" | "MWr"))
            .filter(|t| t.tap == tap)
            .collect()
    };
    let sent = at("ep0.tx");
    let Some((dma, len)) = seen.dma else {
        assert!(matches!(row.taps.as_str(), "" | "-"), "{id}: no transfer");
        assert!(sent.is_empty(), "{id}: {sent:?}");
        return;
    };
    let (place, mem_type) = row.taps.split_once(' ').unwrap_or((&row.taps, ""));
    assert!(!sent.is_empty(), "{id}: nothing was sent");
    for t in &sent {
        assert!((dma.0..dma.0 + len).contains(&t.address()), "{id}: {t:?}");
    }
    let addresses = |list: &[&Tlp]| list.iter().map(|t| t.address()).collect::<Vec<_>>();
    let (entered, translated) = (at("rp0.rx"), at("rp0.translate"));
    let there = match place {
        "memory" => at("memory"),
        "ep1" => at("ep1.rx"),
        _ => at("ep2.rx"),
    };
    assert!(!there.is_empty(), "{id}: nothing came to {place}");
    for (other, tap) in [("memory", "memory"), ("ep1", "ep1.rx"), ("ep2", "ep2.rx")] {
        assert!(other == place || at(tap).is_empty(), "{id}: also at {tap}");
    }
    if mem_type == "switch" {
        assert!(entered.is_empty(), "{id}: reached the root complex");
        assert_eq!(addresses(&there), addresses(&sent), "{id}: routed as sent");
        return;
    }
    // Up to the root port as sent.
    assert_eq!(
        addresses(&entered),
        addresses(&sent),
        "{id}: at the root port"
    );
    let snoop = u8::from(mem_type == "write-back");
    for t in translated
        .iter()
        .chain(if place == "memory" { &there[..] } else { &[] })
    {
        assert_eq!(t.mem_type.as_deref(), Some(mem_type), "{id}: {t:?}");
        assert_eq!(t.snoop, Some(snoop), "{id}: {t:?}");
        assert!(t.status.as_deref().is_none_or(|s| s == "OK"), "{id}: {t:?}");
    }
    assert_eq!(translated.len(), sent.len(), "{id}: translations");
    let last = if place == "memory" {
        addresses(&there)
    } else {
        let down = if place == "ep1" { "rp0.tx" } else { "rp1.tx" };
        assert_eq!(
            addresses(&at(down)),
            addresses(&there),
            "{id}: on the way down"
        );
        addresses(&there)
            .into_iter()
            .map(|bus| map.to_phys(tlproof_pcie::BusAddr(bus)).0)
            .collect()
    };
    // Reads of memory may be answered in parts and a bounced piece is elsewhere: the first byte
    // of each request is where the translation said.
    let mut spa: Vec<u64> = addresses(&translated);
    spa.sort_unstable();
    let mut last = last;
    last.sort_unstable();
    assert_eq!(last, spa, "{id}: where they ended up");
}

/// Where the requests of a list's segments end up, and with which memory type.
pub fn ends(
    row: &Row,
    map: &MemoryMap,
    bdf: Bdf,
    dir: Direction,
    segments: &[(PhysAddr, u64)],
    tlps: &[Tlp],
) {
    let id = &row.id;
    let (place, mem_type) = row.taps.split_once(' ').unwrap_or((&row.taps, ""));
    let kind = if dir.device_writes() { "MWr" } else { "MRd" };
    let (requester, tap) = (
        bdf.to_string(),
        match place {
            "memory" => "memory",
            "ep1" => "ep1.rx",
            _ => "ep2.rx",
        },
    );
    let sent = |tap: &str| -> Vec<&Tlp> {
        let own = |t: &&Tlp| t.requester == requester && t.kind == kind && t.tap == tap;
        tlps.iter().filter(own).collect()
    };
    let phys = |t: &Tlp| match place {
        "memory" => PhysAddr(t.address()),
        _ => map.to_phys(tlproof_pcie::BusAddr(t.address())),
    };
    let inside = |at: PhysAddr| segments.iter().any(|(s, n)| s.0 <= at.0 && at.0 < s.0 + n);
    let there: Vec<_> = sent(tap).into_iter().filter(|t| inside(phys(t))).collect();
    for (first, _) in segments {
        assert!(
            there.iter().any(|t| phys(t) == *first),
            "{id}: nothing came to {first}"
        );
    }
    if dir.device_writes() {
        // What the device reads besides is the list.
        for t in sent(tap) {
            assert!(inside(phys(t)), "{id}: {t:?}");
        }
        for other in ["memory", "ep1.rx", "ep2.rx"] {
            assert!(
                other == tap || sent(other).is_empty(),
                "{id}: also at {other}"
            );
        }
    }
    if mem_type == "switch" {
        let entered = sent("rp0.rx")
            .into_iter()
            .filter(|t| inside(map.to_phys(tlproof_pcie::BusAddr(t.address()))));
        assert_eq!(entered.count(), 0, "{id}: reached the root complex");
        return;
    }
    let translated = sent("rp0.translate");
    let data = translated.iter().filter(|t| inside(PhysAddr(t.address())));
    for t in data.clone() {
        assert_eq!(t.mem_type.as_deref(), Some(mem_type), "{id}: {t:?}");
    }
    assert_eq!(data.count(), there.len(), "{id}: translations");
}

impl Tlp {
    fn address(&self) -> u64 {
        number(self.address.as_deref().expect("an address"))
    }
}
