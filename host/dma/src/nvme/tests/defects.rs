//! What goes wrong, by mistake or by bad luck.

use super::*;
use crate::{
    WarningKind,
    debug::{DmaDebug, Options},
    p2pdma::HostBridgePolicy,
    pages::PagePool,
};
use tlproof_pcie::Range;

type Mistake = fn(&mut Defects);

/// M40: a controller that follows the pointers does not find the data.
#[test]
fn mistakes_in_the_lists_are_seen_by_the_controller() {
    let prp_only = Ctrl {
        sgls: false,
        ..Ctrl::default()
    };
    let cases: [(u64, Mistake); 3] = [
        (600, |d| d.chain_entry_lost = true),
        (3, |d| d.prp2_is_data = true),
        (2, |d| d.prp2_is_list = true),
    ];
    for (count, defect) in cases {
        for wrong in [false, true] {
            let mut rig = Rig::new(Device::new(FAR), Attach::Direct, prp_only);
            let limits = QueueLimits::default();
            let vecs = pages(RAM, count, 8192);
            let req = Request::new(ReqOp::Read, vec![rig.b.bio(&vecs)], &limits).unwrap();
            if wrong {
                defect(&mut rig.nvme.defects);
            }
            let iod = rig.prep(Source::IO, &req).unwrap();
            let reached = rig.reached(&req, &iod);
            assert_eq!(reached != Ok(bytes(vecs)), wrong, "{count} {reached:?}");
            rig.unmap(&req, iod);
        }
    }
}

/// M40, M11: what was mapped is unmapped with its length and its attributes.
#[test]
fn mistakes_at_unmap_are_warned_about() {
    let gap = [(BAR, 0x200), (BAR + 0x4000, 0x800)];
    let cases: [(Mistake, u8); 2] = [
        (|d| d.sgl_lengths_lost = true, 5),
        (|d| d.unmap_without_mmio = true, 11),
    ];
    for (defect, number) in cases {
        let mut rig = Rig::strict(FAR);
        let options = Options {
            all_errors: true,
            ..Options::default()
        };
        rig.b.dma.debug = Some(Box::new(DmaDebug::new(options)));
        let req = rig.request(Queue::Io, ReqOp::Read, &gap);
        let iod = rig.prep(Source::IO, &req).unwrap();
        defect(&mut rig.nvme.defects);
        rig.unmap(&req, iod);
        let shown = rig.b.dma.debug().unwrap().log.shown();
        let reports: Vec<u8> = shown.iter().map(|c| c.report.number()).collect();
        assert_eq!(reports, [number; 2]);
    }
}

/// M19: one flag for both maps a peer's metadata as main memory, or main memory as a peer's.
#[test]
fn one_flag_for_data_and_metadata() {
    for (data, meta, right, wrong) in [
        (RAM, BAR, [0x06, 0x12], [0x06, 0x06]),
        (BAR, RAM, [0x12, 0x06], [0x12, 0x12]),
    ] {
        for defect in [false, true] {
            let mut rig = Rig::strict(FAR);
            let mut bio = rig.b.bio(&[(data, 4096)]);
            bio.add_integrity(rig.b.vec(meta, 64)).unwrap();
            let req = Request::new(ReqOp::Read, vec![bio], &QueueLimits::default()).unwrap();
            rig.nvme.defects.meta_as_data = defect;
            let iod = rig.prep(Source::IO, &req).unwrap();
            let got: Vec<_> = rig.b.prots().into_iter().map(|(_, p)| p).collect();
            assert_eq!(got, if defect { wrong } else { right });
            rig.unmap(&req, iod);
            rig.finish();
        }
    }
}

/// A segment in the middle of a page reaches a PRP list only under the wrong limits.
#[test]
fn a_gap_in_a_prp_list() {
    let mut rig = Rig::strict(FAR);
    let vecs = [(RAM, 0x200), (RAM + 0x4000, 0x1000)];
    let bio = rig.b.bio(&vecs);
    let req = Request::new(ReqOp::Read, vec![bio], &QueueLimits::default()).unwrap();
    let source = Source {
        queue: Queue::Admin,
        user: false,
    };
    assert_eq!(rig.prep(source, &req).err(), Some(BlkStatus::IoErr));
    assert_eq!(rig.b.dma.warnings().count(WarningKind::PrpSegment), 1);
    assert_eq!(rig.b.dma.live().count(), 0);
    assert!(rig.b.dma.iommu().unwrap().pages.is_empty());
}

/// Whatever runs out in the middle, nothing stays mapped.
#[test]
fn partial_setup_is_undone() {
    let prp_only = Ctrl {
        sgls: false,
        ..Ctrl::default()
    };
    // No page for a descriptor, at first or for the second list page.
    for (have, count, ctrl) in [
        (0, 3, prp_only),
        (1, 600, prp_only),
        (0, 17, Ctrl::default()),
    ] {
        for base in [RAM, BAR] {
            for attach in [Attach::Strict, Attach::Direct] {
                let device = Device {
                    coherent: false,
                    ..Device::new(FAR)
                };
                let mut rig = Rig::new(device, attach, ctrl);
                let pool = Range::sized(0xf800_0000, (have << 12) + 1);
                rig.b.dma.set_pages(Box::new(PagePool::new(pool)));
                // Gaps where SGLs can be used, so that they must be.
                let len = if ctrl.sgls { 64 } else { 4096 };
                let vecs: Vec<_> = (0..count).map(|i| (base + i * 4096, len)).collect();
                let limits = QueueLimits {
                    merge: false,
                    ..QueueLimits::default()
                };
                let req = Request::new(ReqOp::Read, vec![rig.b.bio(&vecs)], &limits).unwrap();
                assert_eq!(rig.prep(Source::IO, &req).err(), Some(BlkStatus::Resource));
                rig.finish();
            }
        }
    }
    // Metadata out of reach: the data is unmapped again.
    let mut rig = Rig::strict(FAR);
    rig.b.dma.p2pdma.policy = HostBridgePolicy::Refuse;
    let mut bio = rig.b.bio(&[(RAM, 4096), (RAM + 0x8000, 4096)]);
    bio.add_integrity(rig.b.vec(BAR, 64)).unwrap();
    let req = Request::new(ReqOp::Read, vec![bio], &QueueLimits::default()).unwrap();
    assert_eq!(rig.prep(Source::IO, &req).err(), Some(BlkStatus::Inval));
    rig.finish();
    // The page table refuses.
    let mut rig = Rig::strict(FAR);
    let req = rig.request(Queue::Io, ReqOp::Read, &[(RAM, 4096), (RAM + 0x8000, 4096)]);
    let one = rig.request(Queue::Io, ReqOp::Read, &[(RAM, 4096)]);
    rig.b.dma.iommu_mut().unwrap().broken = true;
    for req in [&req, &one] {
        assert_eq!(rig.prep(Source::IO, req).err(), Some(BlkStatus::Resource));
    }
    rig.finish();
}
