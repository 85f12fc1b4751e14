//! Metadata, with a type of its own.

use super::*;

const META: u64 = RAM + 0x100_0000;
const META_BAR: u64 = BAR + 0x8_0000;

fn request(rig: &Rig, data: &[(u64, u32)], meta: &[(u64, u32)]) -> Request {
    let limits = rig.nvme.limits(&rig.b.dma, Queue::Io);
    let mut bio: Bio = rig.b.bio(data);
    for (phys, len) in meta {
        bio.add_integrity(rig.b.vec(*phys, *len)).unwrap();
    }
    Request::new(ReqOp::Write, vec![bio], &limits).unwrap()
}

/// M19: every pair of kinds, and the protection of each.
#[test]
fn data_and_metadata_are_independent() {
    use IodFlags as F;
    let (simple, simple_meta) = (F::SINGLE_SEGMENT, F::SINGLE_META_SEGMENT);
    for (client, data, meta, flags, prots) in [
        (FAR, RAM, META, simple | simple_meta, vec![0x05, 0x05]),
        (FAR, RAM, META_BAR, simple | F::META_MMIO, vec![0x05, 0x11]),
        (FAR, BAR, META, F::DATA_MMIO | simple_meta, vec![0x11, 0x05]),
        (
            FAR,
            BAR,
            META_BAR,
            F::DATA_MMIO | F::META_MMIO,
            vec![0x11, 0x11],
        ),
        (NEAR, RAM, META_BAR, simple | F::META_P2P, vec![0x05]),
        (NEAR, BAR, META, F::DATA_P2P | simple_meta, vec![0x05]),
        (NEAR, BAR, META_BAR, F::DATA_P2P | F::META_P2P, vec![]),
    ] {
        let mut rig = Rig::strict(client);
        let req = request(&rig, &[(data, 4096)], &[(meta, 64)]);
        let iod = rig.prep(Source::IO, &req).unwrap();
        assert_eq!(iod.flags(), flags);
        let got: Vec<_> = rig.b.prots().into_iter().map(|(_, p)| p).collect();
        assert_eq!(got, prots);
        let at = |phys: u64| {
            if client == NEAR && phys < RAM {
                phys - BAR + BAR_BUS
            } else {
                phys
            }
        };
        assert_eq!(rig.reached(&req, &iod).unwrap(), bytes([(at(data), 4096)]));
        assert_eq!(
            rig.meta_reached(&req, &iod).unwrap(),
            bytes([(at(meta), 64)])
        );
        rig.unmap(&req, iod);
        rig.finish();
    }
}

#[test]
fn a_list_of_metadata_takes_an_sgl_for_the_data_too() {
    for (attach, meta) in [
        // A gap, so that not even an IOMMU makes one range of it.
        (
            Attach::Strict,
            vec![(META, 8), (META + 64, 8), (META + 128, 8)],
        ),
        (
            Attach::Direct,
            (0..15).map(|i| (META + i * 64, 8)).collect(),
        ),
    ] {
        let mut rig = Rig::new(Device::new(FAR), attach, Ctrl::default());
        let req = request(&rig, &[(RAM, 4096)], &meta);
        let iod = rig.prep(Source::IO, &req).unwrap();
        assert!(matches!(iod.cmd.dptr, DataPointer::Sgl(_)));
        let block = *iod.meta_descriptor().unwrap();
        assert_eq!(iod.cmd.mptr, MetadataPointer::Segment(block.dma()));
        assert_eq!(iod.cmd.psdt(), 2);
        let mut first = [0; 16];
        block.read(&mut rig.b.m, 0, &mut first).unwrap();
        let first = SglDescriptor::from_bytes(&first).unwrap();
        assert_eq!(first.addr, block.dma().offset(16));
        assert_eq!(
            (first.length, first.kind),
            (meta.len() as u32 * 16, SglType::LastSegment)
        );
        assert_eq!(rig.meta_reached(&req, &iod).unwrap(), bytes(meta));
        rig.unmap(&req, iod);
        assert_eq!(rig.nvme.descriptors_used(), 0);
        if attach == Attach::Strict {
            rig.finish();
        }
    }
}

#[test]
fn metadata_pages_are_coalesced() {
    let mut rig = Rig::strict(FAR);
    let meta = [(META, 4096), (META + 0x8000, 64)];
    let req = request(&rig, &[(RAM, 4096)], &meta);
    let iod = rig.prep(Source::IO, &req).unwrap();
    assert!(matches!(iod.cmd.mptr, MetadataPointer::Buffer(_)));
    assert_eq!((iod.cmd.psdt(), iod.meta_descriptor()), (1, None));
    assert_eq!(rig.meta_reached(&req, &iod).unwrap(), bytes(meta));
    rig.unmap(&req, iod);
    rig.finish();
}

#[test]
fn the_lengths_of_a_users_metadata_are_told() {
    let mut rig = Rig::strict(FAR);
    let source = Source {
        queue: Queue::Io,
        user: true,
    };
    for meta in [META, META_BAR] {
        let req = request(&rig, &[(RAM, 4096)], &[(meta, 64)]);
        let iod = rig.prep(source, &req).unwrap();
        assert_eq!(iod.cmd.psdt(), 2);
        assert_eq!(rig.meta_reached(&req, &iod).unwrap(), bytes([(meta, 64)]));
        rig.unmap(&req, iod);
    }
    rig.finish();
    // The admin queue has PRPs, so the metadata is a buffer.
    let mut rig = Rig::strict(FAR);
    let admin = Source {
        queue: Queue::Admin,
        user: true,
    };
    for meta in [META, META_BAR] {
        let req = request(&rig, &[(RAM, 4096)], &[(meta, 64)]);
        let iod = rig.prep(admin, &req).unwrap();
        assert_eq!(iod.cmd.psdt(), 0);
        assert_eq!(rig.meta_reached(&req, &iod).unwrap(), bytes([(meta, 64)]));
        rig.unmap(&req, iod);
    }
    rig.finish();
    // A controller without metadata SGLs gets the buffer.
    let ctrl = Ctrl {
        meta_sgls: false,
        ..Ctrl::default()
    };
    let mut rig = Rig::new(Device::new(FAR), Attach::Strict, ctrl);
    let req = request(&rig, &[(RAM, 4096)], &[(META, 64)]);
    let iod = rig.prep(source, &req).unwrap();
    assert_eq!(iod.cmd.psdt(), 1);
    rig.unmap(&req, iod);
    rig.finish();
}

/// More segments than the limits of the queue allow are refused, not cut off.
#[test]
fn a_request_under_other_limits() {
    let ctrl = Ctrl {
        meta_sgls: false,
        ..Ctrl::default()
    };
    let mut rig = Rig::new(Device::new(FAR), Attach::Strict, ctrl);
    let mut bio = rig.b.bio(&[(RAM, 4096)]);
    for i in 0..2 {
        bio.add_integrity(rig.b.vec(META + 64 * i, 8)).unwrap();
    }
    let req = Request::new(ReqOp::Read, vec![bio], &QueueLimits::default()).unwrap();
    assert_eq!(rig.prep(Source::IO, &req).err(), Some(BlkStatus::Inval));
    // More descriptors than a list page holds.
    let vecs: Vec<_> = (0..257).map(|i| (RAM + i * 0x2000, 64)).collect();
    let bio = rig.b.bio(&vecs);
    let req = Request::new(ReqOp::Read, vec![bio], &QueueLimits::default()).unwrap();
    assert_eq!(rig.prep(Source::IO, &req).err(), Some(BlkStatus::Inval));
    rig.finish();
}
