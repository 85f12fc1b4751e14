//! Requests as a device finds them.

use proptest::prelude::*;
use tlproof_pcie::{Bdf, Direction, DmaAddr, PhysAddr};

use super::{
    super::{
        testing::{BAR, BAR_BUS, BAR2, BAR2_BUS, Bench, FAR, NEAR, OTHER_BAR, RAM},
        *,
    },
    request, segments,
};
use crate::{
    Attach, Device, Event, IovaState, MapError, Route, WarningKind,
    p2pdma::{HostBridgePolicy, MapType},
    testing::Op,
};

/// Maps the data of a request to the end.
fn map(b: &mut Bench, req: &Request, state: &mut IovaState) -> Result<Vec<(u64, u32)>, BlkStatus> {
    map_iter(b, &mut BlkDmaIter::data(req), state)
}

fn map_iter(
    b: &mut Bench,
    iter: &mut BlkDmaIter<'_>,
    state: &mut IovaState,
) -> Result<Vec<(u64, u32)>, BlkStatus> {
    let mut all = Vec::new();
    let (dma, m, dev) = (&mut b.dma, &mut b.m, b.dev);
    let mut next = dma.blk_rq_dma_map_iter_start(m, dev, state, iter)?;
    while let Some(v) = next {
        all.push((v.addr.0, v.len));
        next = dma.blk_rq_dma_map_iter_next(m, dev, iter)?;
    }
    Ok(all)
}

/// A request without inner gaps is one IOVA range behind an IOMMU: linked, then synced.
#[test]
fn coalesced() {
    for (phys, write, prot) in [
        (RAM + 0x200, false, 0x06),
        (RAM, true, 0x05),
        (BAR, false, 0x12),
        (BAR2 + 0x3000, true, 0x11),
    ] {
        let mut b = Bench::strict(FAR);
        let bio = b.bio(&[
            (phys, 0x1000 - (phys as u32 & 0xfff)),
            (phys / 0x1000 * 0x1000 + 0x8000, 512),
        ]);
        let op = if write { ReqOp::Write } else { ReqOp::Read };
        let req = Request::new(op, vec![bio], &QueueLimits::default()).unwrap();
        let mut state = IovaState::default();
        let mut iter = BlkDmaIter::data(&req);
        let ranges = map_iter(&mut b, &mut iter, &mut state).unwrap();
        assert!(blk_rq_dma_map_coalesce(&state));
        assert_eq!(ranges, [(state.addr().0, req.payload_bytes())]);
        assert_eq!(ranges[0].0 & 0xfff, phys & 0xfff);
        assert_eq!(b.prots(), [(0x1000, prot), (0x1000, prot)]);
        let events: Vec<_> = b.dma.trace.take();
        let at = |f: fn(&Event) -> bool| events.iter().rposition(f).unwrap();
        assert!(
            at(|e| matches!(e, Event::IovaLink { .. }))
                < at(|e| matches!(e, Event::IovaSync { .. }))
        );
        let done = b.dma.blk_rq_dma_unmap(
            &mut b.m,
            b.dev,
            &mut state,
            req.payload_bytes(),
            req.dma_dir(),
            iter.map_type(),
        );
        assert!(done && !state.uses_iova());
        b.assert_clean();
    }
}

/// With a gap, or without an IOMMU, each segment is mapped by itself.
#[test]
fn segment_by_segment() {
    let gap = [(RAM, 0x200), (RAM + 0x4000, 0x1000)];
    let plain = [(RAM, 0x1000), (RAM + 0x4000, 0x1000)];
    let peers = [(BAR, 0x1000), (BAR + 0x4000, 0x1000)];
    for (attach, vecs, coherent, prots, unmaps) in [
        (
            Attach::Strict,
            gap,
            true,
            vec![(0x1000, 0x06), (0x1000, 0x06)],
            false,
        ),
        (Attach::Direct, plain, true, vec![], true),
        (Attach::Direct, plain, false, vec![], false),
        (Attach::Direct, peers, true, vec![], true),
    ] {
        let device = Device {
            coherent,
            ..Device::new(FAR)
        };
        let mut b = Bench::new(device, attach);
        let req = request(vec![b.bio(&vecs)]);
        // What was in the state before does not matter.
        let mut state = b
            .dma
            .dma_iova_try_alloc(b.dev, PhysAddr(0), 1)
            .unwrap_or_default();
        b.dma.dma_iova_free(b.dev, &mut state.clone());
        let ranges = map(&mut b, &req, &mut state).unwrap();
        assert!(!state.uses_iova());
        assert_eq!(b.prots(), prots);
        if attach == Attach::Direct {
            assert_eq!(ranges, vecs);
        }
        for (addr, len) in &ranges {
            let promise = b.dma.describe(b.dev, DmaAddr(*addr)).unwrap();
            assert_eq!(promise.size, u64::from(*len));
            assert_eq!(promise.attrs.contains(crate::Attrs::MMIO), vecs == peers);
        }
        let map_type = if vecs == peers {
            MapType::ThruHostBridge
        } else {
            MapType::None
        };
        let (dma, m) = (&mut b.dma, &mut b.m);
        let done = dma.blk_rq_dma_unmap(m, b.dev, &mut state, 0, req.dma_dir(), map_type);
        assert_eq!(done, unmaps, "{attach:?}");
    }
}

/// M16, M18: the bus address comes from the provider of the request's own memory, whatever
/// request was mapped before, and no mapping call is made.
#[test]
fn bus_addresses() {
    let mut b = Bench::strict(NEAR);
    let mut stale = None;
    for (phys, bus) in [
        (BAR, BAR_BUS),
        (BAR2, BAR2_BUS),
        (OTHER_BAR, OTHER_BAR),
        (BAR + 0x5000, BAR_BUS + 0x5000),
    ] {
        let req = request(vec![b.bio(&[(phys, 0x1000), (phys + 0x3000, 0x200)])]);
        let mut state = IovaState::default();
        let mut iter = BlkDmaIter::data(&req);
        if let Some(stale) = stale {
            iter.p2pdma = stale;
        }
        let ranges = map_iter(&mut b, &mut iter, &mut state).unwrap();
        assert_eq!(ranges, [(bus, 0x1000), (bus + 0x3000, 0x200)]);
        assert_eq!(iter.map_type(), MapType::BusAddr);
        stale = Some(iter.p2pdma);
        let (dma, m) = (&mut b.dma, &mut b.m);
        assert!(dma.blk_rq_dma_unmap(
            m,
            b.dev,
            &mut state,
            0x1200,
            Direction::FromDevice,
            MapType::BusAddr
        ));
    }
    assert_eq!(b.m.take(), []);
    let only_states = |e: &Event| matches!(e, Event::P2pState { .. });
    assert!(b.dma.trace.take().iter().all(only_states));
    b.assert_clean();
}

/// M19: data and metadata have a type each.
#[test]
fn metadata_is_independent() {
    const META: u64 = RAM + 0x10_0000;
    for (client, data, meta, types, prots) in [
        (
            FAR,
            RAM,
            BAR,
            (MapType::None, MapType::ThruHostBridge),
            [0x06, 0x12],
        ),
        (
            FAR,
            BAR,
            META,
            (MapType::ThruHostBridge, MapType::None),
            [0x12, 0x06],
        ),
        (FAR, RAM, META, (MapType::None, MapType::None), [0x06, 0x06]),
        (
            NEAR,
            BAR,
            META,
            (MapType::BusAddr, MapType::None),
            [0x06, 0],
        ),
        (
            NEAR,
            RAM,
            BAR2,
            (MapType::None, MapType::BusAddr),
            [0x06, 0],
        ),
    ] {
        let mut b = Bench::strict(client);
        let mut bio = b.bio(&[(data, 0x1000)]);
        bio.add_integrity(b.vec(meta, 64)).unwrap();
        let req = request(vec![bio]);
        let (mut data_state, mut meta_state) = (IovaState::default(), IovaState::default());
        let mut iter = BlkDmaIter::data(&req);
        let mut integrity = BlkDmaIter::integrity(&req);
        let d = map_iter(&mut b, &mut iter, &mut data_state).unwrap();
        let i = map_iter(&mut b, &mut integrity, &mut meta_state).unwrap();
        assert_eq!((d[0].1, i[0].1), (0x1000, 64));
        assert_eq!((iter.map_type(), integrity.map_type()), types);
        let mut got = b.prots().into_iter().map(|(_, p)| p);
        let got: [u32; 2] = std::array::from_fn(|_| got.next().unwrap_or(0));
        assert_eq!(got, prots);
        let dir = req.dma_dir();
        for (state, len, map) in [
            (&mut data_state, 0x1000, types.0),
            (&mut meta_state, 64, types.1),
        ] {
            assert!(
                b.dma
                    .blk_rq_dma_unmap(&mut b.m, b.dev, state, len, dir, map)
            );
        }
        b.assert_clean();
    }
}

#[test]
fn failures_leave_nothing() {
    // Out of reach.
    let mut b = Bench::strict(FAR);
    b.dma.p2pdma.policy = HostBridgePolicy::Refuse;
    let req = request(vec![b.bio(&[(BAR, 0x1000)])]);
    let mut state = IovaState::default();
    assert_eq!(map(&mut b, &req, &mut state), Err(BlkStatus::Inval));
    b.assert_clean();
    // The page table refuses.
    let mut b = Bench::strict(FAR);
    let two = request(vec![b.bio(&[(RAM, 0x1000), (RAM + 0x4000, 0x1000)])]);
    let gap = request(vec![b.bio(&[(RAM, 0x200), (RAM + 0x4000, 0x1000)])]);
    b.dma.iommu_mut().unwrap().broken = true;
    for req in [&two, &gap] {
        assert_eq!(map(&mut b, req, &mut state), Err(BlkStatus::Resource));
        assert!(!state.uses_iova());
    }
    b.dma.iommu_mut().unwrap().broken = false;
    b.assert_clean();
    assert_eq!(map(&mut b, &two, &mut state).unwrap()[0].0, 0xffff_e000);
    // A device that must not be bounced: the link says EPERM.
    let mut b = Bench::new(
        Device {
            untrusted: true,
            ..Device::new(FAR)
        },
        Attach::Strict,
    );
    let req = request(vec![b.bio(&[(BAR + 0x200, 0x200)])]);
    assert_eq!(map(&mut b, &req, &mut state), Err(BlkStatus::IoErr));
    b.assert_clean();
    // The second of three segments cannot be reached; the first stays for the driver to unmap.
    let mut b = Bench::new(
        Device {
            dma_mask: Some(0x8fff_ffff),
            ..Device::new(FAR)
        },
        Attach::Direct,
    );
    let req = request(vec![b.bio(&[(RAM, 512), (0x9000_0000, 512)])]);
    assert_eq!(map(&mut b, &req, &mut state), Err(BlkStatus::Resource));
    assert_eq!(b.dma.live().count(), 1);
    assert_eq!(b.dma.warnings().count(WarningKind::Overflow), 1);
}

/// M20: peer memory through the host bridge has an address, and is never memory to the IOMMU, to
/// the caches or to the bounce pool.
#[test]
fn peers_through_the_bridge() {
    for attach in [Attach::Strict, Attach::Direct] {
        let device = Device {
            coherent: false,
            ..Device::new(FAR)
        };
        let mut b = Bench::new(device, attach);
        let req = request(vec![
            b.bio(&[(BAR + 0x1000, 0x1000), (BAR + 0x4000, 0x1000)]),
        ]);
        let mut state = IovaState::default();
        let ranges = map(&mut b, &req, &mut state).unwrap();
        assert!(
            b.m.take()
                .iter()
                .all(|op| matches!(op, Op::Map { prot: 0x12, .. }))
        );
        for (addr, _) in ranges {
            let promise = b.dma.describe(b.dev, DmaAddr(addr)).unwrap();
            assert_eq!(promise.route, Route::ThroughBridge);
            assert_eq!(promise.expected.mem_type, tlproof_pcie::MemType::Device);
        }
    }
}

#[test]
fn status_of_errors() {
    for (e, status) in [
        (MapError::NoMemory, BlkStatus::Resource),
        (MapError::NoIova, BlkStatus::Resource),
        (MapError::P2pNotSupported, BlkStatus::Target),
        (MapError::NotCoherent, BlkStatus::NotSupp),
        (MapError::ZeroSize, BlkStatus::Inval),
        (MapError::HeadOffset, BlkStatus::IoErr),
        (MapError::BounceNotPermitted, BlkStatus::IoErr),
    ] {
        assert_eq!(BlkStatus::from(e), status, "{e}");
    }
    assert_eq!((BlkStatus::Resource as u8, BlkStatus::Inval as u8), (9, 19));
    let req = request(vec![Bench::strict(FAR).bio(&[(RAM, 1)])]);
    let mut b = Bench::strict(Bdf::new(4, 0, 0));
    let mut state = IovaState::default();
    let none = map_iter(&mut b, &mut BlkDmaIter::integrity(&req), &mut state);
    assert_eq!(none, Ok(vec![]));
}

proptest! {
    /// Segments cover the vectors' bytes in order, keep to the limits, and are as long as they may.
    #[test]
    fn segments_cover_the_vectors(
        vecs in prop::collection::vec((0_u64..64, 1_u32..0x3000), 1..12),
        max in 4096_u32..0x6000,
        boundary in 12..17_u32,
        split in any::<prop::sample::Index>(),
        adjacent in any::<u16>(),
    ) {
        let b = Bench::strict(FAR);
        let mut at = RAM;
        let mut list = Vec::new();
        for (i, (skip, len)) in vecs.iter().enumerate() {
            if adjacent >> i & 1 == 0 {
                at += skip * 0x404;
            }
            list.push((at, *len));
            at += u64::from(*len);
        }
        let limits = QueueLimits {
            max_segment_size: max,
            seg_boundary_mask: (1 << boundary) - 1,
            ..QueueLimits::default()
        };
        let (left, right) = list.split_at(split.index(list.len()));
        let bios = vec![b.bio(left), b.bio(right)];
        let req = Request::new(ReqOp::Read, bios, &limits).unwrap();
        let segs = segments(&req);
        let bytes = |l: &[(u64, u32)]| -> Vec<u64> {
            l.iter().flat_map(|(a, n)| *a..*a + u64::from(*n)).collect()
        };
        prop_assert_eq!(bytes(&segs), bytes(&list));
        prop_assert_eq!(segs.len() as u32, req.nr_phys_segments());
        for s in &segs {
            prop_assert!(s.1 <= max && s.1 > 0);
            prop_assert_eq!(s.0 >> boundary, (s.0 + u64::from(s.1) - 1) >> boundary);
        }
        let gaps = segs.windows(2).fold(0, |g, w| g | (w[0].0 + u64::from(w[0].1)) | w[1].0);
        prop_assert_eq!(req.phys_gap_mask() & 0xfff == 0, gaps & 0xfff == 0);
        // Behind an IOMMU, what has no gap is one range, and reaches the same bytes.
        let mut b = b;
        let mut state = IovaState::default();
        let ranges = map(&mut b, &req, &mut state).unwrap();
        prop_assert_eq!(state.uses_iova(), gaps & 0xfff == 0);
        let mut reached = Vec::new();
        for (addr, len) in &ranges {
            for a in *addr..*addr + u64::from(*len) {
                let promise = b.dma.describe(b.dev, DmaAddr(a)).unwrap();
                reached.push(promise.target(DmaAddr(a)).unwrap().0);
            }
        }
        prop_assert_eq!(reached, bytes(&list));
    }
}
