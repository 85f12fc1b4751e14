use super::*;

const DEV: Bdf = Bdf::new(1, 0, 0);

fn promise(dma: u64, size: u64, direction: Direction) -> Promise {
    Promise {
        device: DEV,
        dma: DmaAddr(dma),
        size,
        segments: vec![
            (PhysAddr(0x8000_0000), 16),
            (PhysAddr(0x9000_0000), size - 16),
        ],
        direction,
        kind: MemoryKind::Dram,
        expect: MemType::WriteBack,
        snoop: true,
        route: Route::Memory,
        via_iommu: true,
        call: "dma_map_phys".to_owned(),
    }
}

#[test]
fn every_size_is_found_and_ends() {
    let mut l = Ledger::default();
    for shift in [5u32, 6, 12, 21, 30, 40] {
        let base = 1 << 50 | 1 << (shift + 1);
        let size = (1u64 << shift) + 7;
        let id = l.promise(promise(base, size, Direction::ToDevice));
        assert!(l.find(DEV, BusAddr(base), 1, false).is_some());
        assert!(l.find(DEV, BusAddr(base + size - 4), 4, false).is_some());
        assert!(l.find(DEV, BusAddr(base + size - 4), 5, false).is_none());
        assert!(l.find(DEV, BusAddr(base - 1), 1, false).is_none());
        assert!(l.find(DEV, BusAddr(base), 1, true).is_none());
        assert_eq!(l.explain(DEV, BusAddr(base), 1).field, "direction");
        assert_eq!(l.explain(DEV, BusAddr(base - 1), 4).field, "address");
        assert!(l.revoke_begin(id));
        assert!(!l.revoke_begin(id));
        assert!(l.find(DEV, BusAddr(base), 1, false).is_some());
        assert!(l.revoke_end(id));
        assert!(!l.revoke_end(id));
        assert!(l.find(DEV, BusAddr(base), 1, false).is_none());
        assert_eq!(l.explain(DEV, BusAddr(base), 1).field, "state");
    }
}

#[test]
fn live_promises_come_before_ending_ones() {
    let mut l = Ledger::default();
    let old = l.promise(promise(0x1000, 64, Direction::Bidirectional));
    let new = l.promise(promise(0x1000, 64, Direction::Bidirectional));
    l.revoke_begin(new);
    let found = l.find(DEV, BusAddr(0x1000), 4, true);
    assert_eq!(found, l.slot(old));
}

#[test]
fn ended_promises_are_recycled_once_forgotten() {
    let mut l = Ledger::default();
    let mut first = None;
    for i in 0..3000u64 {
        let id = l.promise(promise(i << 12, 64, Direction::Bidirectional));
        first.get_or_insert(id);
        l.revoke_end(id);
    }
    assert!(l.records.len() <= REMEMBERED + 2);
    assert!(!l.revoke_end(first.unwrap()));
}

#[test]
fn targets_follow_segments() {
    let p = promise(0x1000, 64, Direction::Bidirectional);
    assert_eq!(p.target(BusAddr(0x100f)), Some(PhysAddr(0x8000_000f)));
    assert_eq!(p.target(BusAddr(0x1010)), Some(PhysAddr(0x9000_0000)));
    assert_eq!(p.target(BusAddr(0x1040)), None);
    assert_eq!(p.target(BusAddr(0xfff)), None);
}

#[test]
fn granules_and_probes() {
    let mut l = Ledger::default();
    l.promise(promise(0x1100, 64, Direction::FromDevice));
    let reach =
        |l: &Ledger, at, write, wr| l.granule_reachable(DEV, (BusAddr(at), 4), 4096, write, wr);
    assert!(reach(&l, 0x1ffc, true, true));
    assert!(!reach(&l, 0x2000, true, true));
    assert!(reach(&l, 0x1000, false, true));
    assert!(!reach(&l, 0x1000, false, false));
    let id = l.expect_rogue(DEV, BusAddr(0x5000), 8, false);
    assert!(l.is_rogue(DEV, BusAddr(0x5004), 4, false));
    assert!(!l.is_rogue(DEV, BusAddr(0x5004), 8, false));
    assert!(!l.is_rogue(DEV, BusAddr(0x5004), 4, true));
    l.rogue_done(id);
    assert!(!l.is_rogue(DEV, BusAddr(0x5004), 4, false));
}
