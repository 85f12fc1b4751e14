//! Bios, requests and their segments.

use tlproof_pcie::{PhysAddr, Range};

use super::{
    super::{
        testing::{BAR, BAR2, Bench, FAR, NEAR, RAM},
        *,
    },
    request, segments,
};
use crate::p2pdma::{Provider, ProviderId};

const PAGE: u32 = 4096;

#[test]
fn bios_do_not_mix_pages() {
    let b = Bench::strict(FAR);
    let (ram, peer, peer2) = (b.vec(RAM, 512), b.vec(BAR, 512), b.vec(BAR2, 512));
    for (first, second) in [(ram, peer), (peer, ram), (peer, peer2)] {
        let mut bio = Bio::new([first]).unwrap();
        assert_eq!(bio.add(second), Err(BioError::MixedPages));
        // Metadata is a list of its own.
        bio.add_integrity(second).unwrap();
        assert_eq!(bio.add_integrity(first), Err(BioError::MixedPages));
    }
    let err = |phys, len| b.dma.bio_vec(&b.m, PhysAddr(phys), len).unwrap_err();
    assert_eq!(err(RAM, 0), BioError::Empty);
    for (phys, len) in [
        (BAR + 0xff_f000, 2 * PAGE),
        (0x1000, PAGE),
        (0x7000_0000, PAGE),
        (0xffff_f000, 2 * PAGE),
        (u64::MAX, 2),
    ] {
        let phys_addr = PhysAddr(phys);
        assert_eq!(
            err(phys, len),
            BioError::NoPages {
                phys: phys_addr,
                len
            }
        );
    }
}

#[test]
fn a_provider_without_pages_is_not_for_bios() {
    let mut b = Bench::strict(FAR);
    b.dma.p2pdma.add(Provider {
        owner: NEAR,
        range: Range::sized(0x7000_0000, 0x1000),
        bus_offset: 0,
        pages: false,
    });
    assert!(b.dma.bio_vec(&b.m, PhysAddr(0x7000_0000), PAGE).is_err());
}

#[test]
fn requests_are_checked() {
    let b = Bench::strict(FAR);
    let limits = QueueLimits {
        max_hw_bytes: 4 * PAGE,
        max_segments: 2,
        virt_boundary_mask: 0xfff,
        dma_alignment: 3,
        max_integrity_segments: 1,
        ..QueueLimits::default()
    };
    let new = |bios| Request::new(ReqOp::Write, bios, &limits).map(|r| segments(&r));
    let p = u64::from(PAGE);
    assert_eq!(new(vec![]), Err(RequestError::Empty));
    assert_eq!(new(vec![Bio::default()]), Err(RequestError::Empty));
    assert_eq!(
        new(vec![b.bio(&[(RAM, 5 * PAGE)])]),
        Err(RequestError::TooLong(5 * p))
    );
    assert_eq!(
        new(vec![b.bio(&[
            (RAM, PAGE),
            (RAM + 2 * p, PAGE),
            (RAM + 4 * p, PAGE)
        ])]),
        Err(RequestError::Segments(3))
    );
    assert_eq!(
        new(vec![b.bio(&[(RAM + 2, 4)])]),
        Err(RequestError::Misaligned(PhysAddr(RAM + 2)))
    );
    for (first, second) in [(PAGE - 4, RAM + 2 * p), (PAGE, RAM + 2 * p + 4)] {
        assert_eq!(
            new(vec![b.bio(&[(RAM, first), (second, 512)])]),
            Err(RequestError::Gap(PhysAddr(second)))
        );
    }
    // First and last may be anywhere; what is adjacent has no gap.
    assert_eq!(
        new(vec![
            b.bio(&[(RAM + 0x200, 0x200)]),
            b.bio(&[(RAM + 0x400, 0xc00), (RAM + 2 * p, 512)])
        ]),
        Ok(vec![(RAM + 0x200, 0xe00), (RAM + 2 * p, 512)])
    );
    assert_eq!(
        new(vec![b.bio(&[(BAR, PAGE)]), b.bio(&[(BAR + p, PAGE)])]),
        Err(RequestError::NoMerge)
    );
    let with_meta = |vecs: &[(u64, u32)]| {
        let mut bio = b.bio(&[(RAM, PAGE)]);
        for (phys, len) in vecs {
            bio.add_integrity(b.vec(*phys, *len)).unwrap();
        }
        bio
    };
    // All of the bios have metadata or none has.
    for bios in [[&[][..], &[(RAM, 8)]], [&[(RAM, 8)], &[]]] {
        assert_eq!(
            new(bios.map(with_meta).into()),
            Err(RequestError::NotAllWithMetadata)
        );
    }
    assert_eq!(
        new(vec![with_meta(&[(RAM, 8), (RAM + 64, 8)])]),
        Err(RequestError::IntegritySegments(2))
    );
    assert_eq!(
        new(vec![with_meta(&[(BAR, 8)]), with_meta(&[(RAM, 8)])]),
        Err(RequestError::MixedPages)
    );
    for bad in [
        QueueLimits {
            max_segment_size: 4095,
            ..limits
        },
        QueueLimits {
            seg_boundary_mask: 0x7ff,
            ..limits
        },
        QueueLimits {
            seg_boundary_mask: 0x1_0000_ffff,
            ..limits
        },
        QueueLimits {
            virt_boundary_mask: 0xf0,
            ..limits
        },
    ] {
        let bios = vec![b.bio(&[(RAM, PAGE)])];
        assert!(matches!(
            Request::new(ReqOp::Read, bios, &bad),
            Err(RequestError::Limits)
        ));
    }
}

/// What becomes one segment: adjacent, of one pgmap, inside the boundary, not too long.
#[test]
fn segments_merge() {
    let mut b = Bench::strict(FAR);
    let p = u64::from(PAGE);
    let segs = |b: &Bench, vecs: &[(u64, u32)], limits: &QueueLimits| {
        segments(&Request::new(ReqOp::Read, vec![b.bio(vecs)], limits).unwrap())
    };
    let all = QueueLimits::default();
    let adjacent = [(RAM, PAGE), (RAM + p, PAGE), (RAM + 3 * p, 512)];
    assert_eq!(
        segs(&b, &adjacent, &all),
        [(RAM, 2 * PAGE), (RAM + 3 * p, 512)]
    );
    assert_eq!(
        segs(
            &b,
            &adjacent,
            &QueueLimits {
                merge: false,
                ..all
            }
        ),
        adjacent
    );
    // Over the end of a bio.
    let req = request(vec![b.bio(&[(RAM, 512)]), b.bio(&[(RAM + 512, 512)])]);
    assert_eq!(segments(&req), [(RAM, 1024)]);
    // Not against the order.
    let down = [(RAM + p, PAGE), (RAM, PAGE)];
    assert_eq!(segs(&b, &down, &all), down);

    let limits = QueueLimits {
        max_segment_size: PAGE,
        ..all
    };
    assert_eq!(
        segs(
            &b,
            &[(RAM + 0x800, 2 * PAGE + 8), (RAM + 0x2808, 8)],
            &limits
        ),
        [
            (RAM + 0x800, PAGE),
            (RAM + 0x1800, PAGE),
            (RAM + 0x2800, 16)
        ]
    );
    let limits = QueueLimits {
        seg_boundary_mask: 0xffff,
        ..all
    };
    assert_eq!(
        segs(&b, &[(RAM + 0xf000, PAGE), (RAM + 0x1_0000, PAGE)], &limits),
        [(RAM + 0xf000, PAGE), (RAM + 0x1_0000, PAGE)]
    );
    assert_eq!(
        segs(&b, &[(RAM + 0xe000, 4 * PAGE)], &limits),
        [(RAM + 0xe000, 2 * PAGE), (RAM + 0x1_0000, 2 * PAGE)]
    );

    // Two BARs next to each other are two pgmaps; metadata shows it, as a bio cannot.
    b.dma.p2pdma.add(Provider {
        owner: NEAR,
        range: Range::sized(BAR + 0x100_0000, 0x1000),
        bus_offset: 0,
        pages: true,
    });
    let last = b.vec(BAR + 0xff_f000, PAGE);
    assert_eq!(last.pgmap(), Pgmap::P2p(ProviderId(0)));
    assert_eq!(
        b.vec(BAR + 0x100_0000, PAGE).pgmap(),
        Pgmap::P2p(ProviderId(3))
    );
    assert_eq!(
        segs(
            &b,
            &[(BAR + 0xff_e000, PAGE), (BAR + 0xff_f000, PAGE)],
            &all
        )
        .len(),
        1
    );
}

#[test]
fn gaps_are_tracked() {
    let b = Bench::strict(FAR);
    for (vecs, mask) in [
        (vec![(RAM + 0x123, 0x45)], 0),
        // Only what lies between segments counts.
        (vec![(RAM + 0x200, 0xe00), (RAM + 0x4000, 0x100)], !0xfff),
        (vec![(RAM, 0x200), (RAM + 0x4000, 0x1000)], !0x1ff),
        (vec![(RAM, 0x1000), (RAM + 0x4080, 0x1000)], !0x7f),
        (
            vec![(RAM, 0x200), (RAM + 0x200, 0xe00), (RAM + 0x1000, 1)],
            0,
        ),
        (vec![(RAM, 0x2000), (RAM + 0x1_0000, 0x1000)], !0x1fff),
    ] {
        let req = request(vec![b.bio(&vecs)]);
        assert_eq!(req.phys_gap_mask(), mask, "{vecs:x?}");
        assert_eq!(req.integrity_gap_mask(), 0);
    }
}
