use proptest::prelude::*;

use super::*;

proptest! {
    /// Whatever a request is made of, the controller finds its bytes in their order, and unmapping
    /// leaves nothing.
    #[test]
    fn the_controller_finds_every_byte(
        vecs in prop::collection::vec((0_u64..4, 0_u32..64, 1_u32..0xc00), 1..24),
        aligned in any::<bool>(),
        peer in any::<bool>(),
        near in any::<bool>(),
        direct in any::<bool>(),
        coherent in any::<bool>(),
        sgls in any::<bool>(),
        user in any::<bool>(),
        threshold in prop::sample::select(vec![0, 2048, 32 << 10]),
    ) {
        let device = Device { coherent, ..Device::new(if near { NEAR } else { FAR }) };
        let attach = if direct { Attach::Direct } else { Attach::Strict };
        let ctrl = Ctrl { sgls, sgl_threshold: threshold, ..Ctrl::default() };
        let mut rig = Rig::new(device, attach, ctrl);
        let mut at = if peer { BAR } else { RAM };
        let count = vecs.len();
        let list: Vec<_> = vecs
            .iter()
            .enumerate()
            .map(|(i, (skip, offset, len))| {
                // Without SGLs only the first may begin, and only the last end, inside a page.
                let inner = aligned || !sgls;
                let offset = if inner && i > 0 { 0 } else { *offset } * 4;
                let len = if inner && i + 1 < count { 4096 - offset } else { *len };
                let v = (at + u64::from(offset), len);
                at += (skip + 1) << 12;
                v
            })
            .collect();
        let req = rig.request(Queue::Io, ReqOp::Read, &list);
        let source = Source { queue: Queue::Io, user };
        let iod = rig.prep(source, &req).unwrap();
        let on_bus = peer && near;
        let want = list.iter().map(|(a, n)| (if on_bus { a - BAR + BAR_BUS } else { *a }, *n));
        prop_assert_eq!(rig.reached(&req, &iod).unwrap(), bytes(want));
        prop_assert_eq!(iod.total_len(), req.payload_bytes());
        rig.unmap(&req, iod);
        prop_assert_eq!(rig.nvme.descriptors_used(), 0);
        if !direct || !coherent {
            rig.finish();
        }
    }
}
