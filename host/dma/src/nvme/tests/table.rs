//! A12: how requests of an I/O queue are described, SGL capable, threshold 32 KiB.

use super::*;

/// The entries of the PRP list.
fn list(rig: &mut Rig, iod: &Iod, entries: usize) -> Vec<u64> {
    let mut buf = vec![0; entries * 8];
    let block = iod.descriptors()[0];
    block.read(&mut rig.b.m, 0, &mut buf).unwrap();
    let (words, _) = buf.as_chunks();
    words.iter().map(|w| u64::from_le_bytes(*w)).collect()
}

fn prps(iod: &Iod) -> (u64, u64) {
    match iod.cmd.dptr {
        DataPointer::Prp { prp1, prp2 } => (prp1.0, prp2.0),
        sgl => panic!("{sgl:?}"),
    }
}

fn sgl(iod: &Iod) -> (u64, u32, SglType) {
    match iod.cmd.dptr {
        DataPointer::Sgl(d) => (d.addr.0, d.length, d.kind),
        prp => panic!("{prp:?}"),
    }
}

#[test]
fn one_aligned_page() {
    let mut rig = Rig::strict(FAR);
    let req = rig.request(Queue::Io, ReqOp::Read, &[(RAM, 4096)]);
    let iod = rig.prep(Source::IO, &req).unwrap();
    assert_eq!(iod.flags(), IodFlags::SINGLE_SEGMENT);
    assert_eq!(prps(&iod), (0xffff_f000, 0));
    assert_eq!(rig.b.prots(), [(4096, 0x06)]);
    assert_eq!(rig.reached(&req, &iod).unwrap(), bytes([(RAM, 4096)]));
    rig.unmap(&req, iod);
    rig.finish();
}

#[test]
fn two_pages_from_inside_the_first() {
    let mut rig = Rig::strict(FAR);
    let vecs = [(RAM + 0x200, 8192)];
    let req = rig.request(Queue::Io, ReqOp::Read, &vecs);
    let iod = rig.prep(Source::IO, &req).unwrap();
    assert_eq!(iod.flags(), IodFlags::SINGLE_SEGMENT);
    assert_eq!(sgl(&iod), (0xffff_c200, 8192, SglType::Data));
    assert_eq!(rig.reached(&req, &iod).unwrap(), bytes(vecs));
    rig.unmap(&req, iod);
    rig.finish();
}

#[test]
fn two_aligned_pages() {
    let mut rig = Rig::strict(FAR);
    let req = rig.request(Queue::Io, ReqOp::Write, &[(RAM, 8192)]);
    let iod = rig.prep(Source::IO, &req).unwrap();
    assert_eq!(iod.flags(), IodFlags::SINGLE_SEGMENT);
    assert_eq!(prps(&iod), (0xffff_e000, 0xffff_f000));
    assert_eq!(rig.b.prots(), [(8192, 0x05)]);
    rig.unmap(&req, iod);
    rig.finish();
}

#[test]
fn many_segments_without_an_iommu() {
    for coherent in [true, false] {
        let device = Device {
            coherent,
            ..Device::new(FAR)
        };
        let mut rig = Rig::new(device, Attach::Direct, Ctrl::default());
        let vecs = pages(RAM, 32, 8192);
        let req = rig.request(Queue::Io, ReqOp::Read, &vecs);
        let iod = rig.prep(Source::IO, &req).unwrap();
        assert_eq!(iod.flags(), IodFlags::SMALL_DESCRIPTOR);
        assert_eq!(prps(&iod), (RAM, iod.descriptors()[0].dma().0));
        let rest: Vec<_> = vecs[1..].iter().map(|v| v.0).collect();
        assert_eq!(list(&mut rig, &iod, 31), rest);
        // Kept where they have to be unmapped one by one.
        assert_eq!(iod.dma_vecs().len(), if coherent { 0 } else { 32 });
        assert_eq!(rig.reached(&req, &iod).unwrap(), bytes(vecs));
        rig.unmap(&req, iod);
        let live = rig.b.dma.live().filter(|m| m.api == crate::Api::Phys);
        assert_eq!(live.count(), if coherent { 32 } else { 0 });
    }
}

#[test]
fn many_segments_behind_an_iommu() {
    let mut rig = Rig::strict(FAR);
    let vecs = pages(RAM, 32, 8192);
    let req = rig.request(Queue::Io, ReqOp::Read, &vecs);
    let iod = rig.prep(Source::IO, &req).unwrap();
    assert!(iod.dma_state().uses_iova());
    assert_eq!(iod.flags(), IodFlags::empty());
    assert_eq!(sgl(&iod), (0xfffe_0000, 128 << 10, SglType::Data));
    assert_eq!((iod.dma_vecs().len(), iod.descriptors().len()), (0, 0));
    assert_eq!(rig.reached(&req, &iod).unwrap(), bytes(vecs));
    rig.unmap(&req, iod);
    rig.finish();
}

#[test]
fn many_segments_of_the_admin_queue_or_without_sgls() {
    for (queue, sgls) in [(Queue::Admin, true), (Queue::Io, false)] {
        let ctrl = Ctrl {
            sgls,
            ..Ctrl::default()
        };
        let mut rig = Rig::new(Device::new(FAR), Attach::Strict, ctrl);
        let vecs = pages(RAM, 32, 8192);
        let req = rig.request(queue, ReqOp::Read, &vecs);
        let iod = rig.prep(Source { queue, user: false }, &req).unwrap();
        assert!(iod.dma_state().uses_iova());
        assert_eq!(iod.flags(), IodFlags::SMALL_DESCRIPTOR);
        let (prp1, prp2) = prps(&iod);
        assert_eq!((prp1, prp2), (0xfffe_0000, iod.descriptors()[0].dma().0));
        let rest: Vec<_> = (1..32).map(|i| prp1 + i * 4096).collect();
        assert_eq!(list(&mut rig, &iod, 31), rest);
        assert!(iod.dma_vecs().is_empty());
        assert_eq!(rig.reached(&req, &iod).unwrap(), bytes(vecs));
        rig.unmap(&req, iod);
        rig.finish();
    }
}

#[test]
fn two_segments_with_a_gap() {
    let mut rig = Rig::strict(FAR);
    let vecs = [(RAM, 0x200), (RAM + 0x4000, 0x1000)];
    let req = rig.request(Queue::Io, ReqOp::Write, &vecs);
    let iod = rig.prep(Source::IO, &req).unwrap();
    assert!(!iod.dma_state().uses_iova());
    assert_eq!(iod.flags(), IodFlags::SMALL_DESCRIPTOR);
    let at = iod.descriptors()[0].dma().0;
    assert_eq!(sgl(&iod), (at, 32, SglType::LastSegment));
    // The descriptors tell what to unmap.
    assert!(iod.dma_vecs().is_empty());
    assert_eq!(rig.reached(&req, &iod).unwrap(), bytes(vecs));
    rig.unmap(&req, iod);
    rig.finish();
}

#[test]
fn a_peer_by_bus_address() {
    for (vecs, is_sgl) in [
        (vec![(BAR, 4096)], false),
        (vec![(BAR + 0x200, 0x400), (BAR + 0x8000, 0x200)], true),
        (pages(BAR, 16, 8192), false),
    ] {
        let mut rig = Rig::strict(NEAR);
        let req = rig.request(Queue::Io, ReqOp::Read, &vecs);
        let iod = rig.prep(Source::IO, &req).unwrap();
        let on_bus = vecs.iter().map(|(a, n)| (a - BAR + BAR_BUS, *n));
        assert_eq!(rig.reached(&req, &iod).unwrap(), bytes(on_bus));
        assert!(iod.flags().contains(IodFlags::DATA_P2P));
        assert!(!iod.flags().contains(IodFlags::SINGLE_SEGMENT));
        assert_eq!(matches!(iod.cmd.dptr, DataPointer::Sgl(_)), is_sgl);
        assert!(iod.dma_vecs().is_empty());
        rig.b.dma.trace.take();
        rig.unmap(&req, iod);
        assert_eq!(rig.b.dma.trace.take(), []);
        rig.finish();
    }
}

#[test]
fn a_peer_through_the_bridge_behind_an_iommu() {
    let mut rig = Rig::strict(FAR);
    let vecs = pages(BAR, 16, 8192);
    let req = rig.request(Queue::Io, ReqOp::Read, &vecs);
    let iod = rig.prep(Source::IO, &req).unwrap();
    assert_eq!(iod.flags(), IodFlags::DATA_MMIO);
    assert_eq!(sgl(&iod), (0xffff_0000, 64 << 10, SglType::Data));
    assert_eq!(rig.b.prots(), [(4096, 0x12); 16]);
    assert_eq!(rig.reached(&req, &iod).unwrap(), bytes(vecs));
    rig.b.dma.trace.take();
    rig.unmap(&req, iod);
    let destroyed = rig.b.dma.trace.take();
    assert!(destroyed.iter().any(|e| matches!(
        e,
        Event::IovaDestroy {
            mapped_len: 0x1_0000,
            attrs: Attrs::MMIO,
            ..
        }
    )));
    rig.finish();
}

#[test]
fn a_peer_through_the_bridge_without_an_iommu() {
    // A device that does not snoop has to unmap, as every device has with dma-debug.
    let device = Device {
        coherent: false,
        ..Device::new(FAR)
    };
    for (vecs, list_entries) in [
        (pages(BAR, 3, 8192), 2),
        (vec![(BAR, 0x200), (BAR + 0x4000, 0x1000)], 0),
        (vec![(BAR, 4096)], 0),
    ] {
        let mut rig = Rig::new(device.clone(), Attach::Direct, Ctrl::default());
        let req = rig.request(Queue::Io, ReqOp::Read, &vecs);
        let iod = rig.prep(Source::IO, &req).unwrap();
        assert!(iod.flags().contains(IodFlags::DATA_MMIO));
        assert_eq!(rig.reached(&req, &iod).unwrap(), bytes(vecs.clone()));
        if list_entries > 0 {
            let rest: Vec<_> = vecs[1..].iter().map(|v| v.0).collect();
            assert_eq!(list(&mut rig, &iod, list_entries), rest);
        }
        rig.b.dma.trace.take();
        rig.b.m.take();
        rig.unmap(&req, iod);
        let unmaps: Vec<_> = rig
            .b
            .dma
            .trace
            .take()
            .into_iter()
            .map(|e| match e {
                Event::DmaUnmapPhys {
                    dma, size, attrs, ..
                } => (dma.0, size as u32, attrs),
                other => panic!("{other:?}"),
            })
            .collect();
        let want: Vec<_> = vecs.iter().map(|(a, n)| (*a, *n, Attrs::MMIO)).collect();
        assert_eq!(unmaps, want);
        // No cache line of the peer is touched; reading the list back is not one.
        assert!(!rig.b.m.take().iter().any(|op| matches!(
            op,
            Op::Clean(a, _) | Op::Invalidate(a, _) if (BAR..BAR + 0x100_0000).contains(a)
        )));
        rig.finish();
    }
}

#[test]
fn user_commands_use_sgls() {
    let mut rig = Rig::strict(FAR);
    let source = Source {
        queue: Queue::Io,
        user: true,
    };
    let req = rig.request(Queue::Io, ReqOp::Read, &[(RAM, 4096)]);
    let iod = rig.prep(source, &req).unwrap();
    assert_eq!(sgl(&iod), (0xffff_f000, 4096, SglType::Data));
    rig.unmap(&req, iod);
    // Except on the admin queue, which has none.
    let source = Source {
        queue: Queue::Admin,
        user: true,
    };
    let iod = rig.prep(source, &req).unwrap();
    assert_eq!(prps(&iod), (0xffff_f000, 0));
    rig.unmap(&req, iod);
    rig.finish();
}

#[test]
fn thresholds() {
    // 0 switches SGLs off where nothing forces them.
    for (threshold, is_sgl) in [(0, false), (4096, true), (4097, false)] {
        let ctrl = Ctrl {
            sgl_threshold: threshold,
            ..Ctrl::default()
        };
        let mut rig = Rig::new(Device::new(FAR), Attach::Direct, ctrl);
        let req = rig.request(Queue::Io, ReqOp::Read, &pages(RAM, 17, 8192));
        let iod = rig.prep(Source::IO, &req).unwrap();
        assert_eq!(matches!(iod.cmd.dptr, DataPointer::Sgl(_)), is_sgl);
        // 17 descriptors do not fit into a small one, 16 entries do.
        assert_eq!(iod.flags().contains(IodFlags::SMALL_DESCRIPTOR), !is_sgl);
        rig.unmap(&req, iod);
        assert_eq!(rig.nvme.descriptors_used(), 0);
    }
}

#[test]
fn chained_list_pages() {
    let ctrl = Ctrl {
        sgls: false,
        ..Ctrl::default()
    };
    for (count, lists) in [(33, 1), (34, 1), (513, 1), (514, 2), (1024, 2), (2048, 5)] {
        let mut rig = Rig::new(Device::new(FAR), Attach::Direct, ctrl);
        let mut limits = rig.nvme.limits(&rig.b.dma, Queue::Io);
        assert_eq!((limits.max_hw_bytes, limits.max_segments), (8 << 20, 256));
        limits.max_segments = u32::MAX;
        // The full length that begins and ends inside a page.
        let mut vecs = pages(RAM, count, 8192);
        if count == 2048 {
            vecs[0] = (RAM + 0x800, 0x800);
            vecs.push((RAM + 0x200_0000, 0x800));
        }
        let req = Request::new(ReqOp::Read, vec![rig.b.bio(&vecs)], &limits).unwrap();
        let iod = rig.prep(Source::IO, &req).unwrap();
        assert_eq!(iod.descriptors().len(), lists, "{count}");
        let small = iod.flags().contains(IodFlags::SMALL_DESCRIPTOR);
        assert_eq!(small, count == 33);
        assert_eq!(rig.reached(&req, &iod).unwrap(), bytes(vecs), "{count}");
        rig.unmap(&req, iod);
        assert_eq!(rig.nvme.descriptors_used(), 0);
    }
}

#[test]
fn limits() {
    let rig = Rig::strict(FAR);
    let io = rig.nvme.limits(&rig.b.dma, Queue::Io);
    assert_eq!((io.max_hw_bytes, io.max_segments), (128 << 10, 33));
    assert_eq!((io.virt_boundary_mask, io.dma_alignment), (0, 3));
    assert_eq!(io.max_integrity_segments, 15);
    let admin = rig.nvme.limits(&rig.b.dma, Queue::Admin);
    assert_eq!(admin.virt_boundary_mask, 4095);
    assert_eq!(admin.max_integrity_segments, 1);
    let d = rig.b.dma.device(rig.b.dev).unwrap();
    assert_eq!((d.dma_mask, d.min_align_mask), (Some(u64::MAX), 4095));
    assert_eq!(d.max_segment_size, 0xffff_ffff);
    let ctrl = Ctrl {
        dma_48_bits: true,
        ..Ctrl::default()
    };
    let rig = Rig::new(Device::new(FAR), Attach::Strict, ctrl);
    let d = rig.b.dma.device(rig.b.dev).unwrap();
    assert_eq!(d.dma_mask, Some((1 << 48) - 1));
}
