//! A program of random drivers.
#![allow(unused_imports, reason = "a short program needs few")]

use tlproof::program::{Attached::*, Op::*, PeerVia::*, Target::*, *};
use tlproof_dma::{Profile::*, riscv::Mode::*};
use tlproof_pcie::Direction::*;

#[test]
#[rustfmt::skip]
fn shrunk() {
    let world = World {
        profile: Intended,
        seed: 1,
        latency: (
            8,
            40,
        ),
        stall_one_in: 0,
        iommu: true,
        mode: Some(
            Sv39,
        ),
        ddt_levels: 3,
        aperture: 1073741824,
        bus_offset: 0,
        redirect: true,
        bridge: true,
        swiotlb: Some(
            false,
        ),
        high: false,
        debug: false,
        kmsan: false,
        ports: [
            Port {
                attached: Strict,
                coherent: true,
                untrusted: false,
                mask_bits: 64,
                min_align_mask: 0,
                nvme: true,
                indirect: true,
            },
            Port {
                attached: Strict,
                coherent: true,
                untrusted: false,
                mask_bits: 64,
                min_align_mask: 0,
                nvme: false,
                indirect: true,
            },
            Port {
                attached: Strict,
                coherent: true,
                untrusted: false,
                mask_bits: 64,
                min_align_mask: 0,
                nvme: false,
                indirect: true,
            },
        ],
    };
    let ops = vec![
        Map { id: 0, dev: 0, offset: 4, size: 4096, dir: Bidirectional, skip_sync: true },
        MapSg { id: 1, dev: 0, sizes: vec![4096, 512], dir: Bidirectional },
        MapIova { id: 2, dev: 0, offset: 0, sizes: vec![4096, 512], dir: FromDevice, destroy: true },
        MapPeer { id: 3, dev: 0, peer: 2, offset: 0, size: 4096, dir: Bidirectional, via: Phys },
        MapPeer { id: 4, dev: 0, peer: 2, offset: 0, size: 4096, dir: Bidirectional, via: Iova },
        MapPeer { id: 5, dev: 0, peer: 2, offset: 0, size: 4096, dir: Bidirectional, via: Resource },
        MapPeer { id: 6, dev: 0, peer: 2, offset: 0, size: 4096, dir: Bidirectional, via: Sg },
        Ring { id: 7, dev: 0, size: 4096 },
        Pages { id: 8, dev: 0, size: 4096, dir: ToDevice, scattered: true },
        Dmabuf { id: 9, dev: 0, peer: 2, ranges: vec![(1, 1), (4, 2)], dir: Bidirectional },
        Odp { id: 10, dev: 0, pages: 2, peer: Some((2, 5)) },
        Request { id: 11, dev: 0, offset: 4, sizes: vec![4096, 512], peer: Some((2, 1)), metadata: 128, read: true, admin: false, bios: 2 },
        Virtio { dev: 0, out: vec![16], input: vec![512] },
        Dma { id: 0, at: 8, len: 100, write: true, relaxed: false, fetch: true },
        Dma { id: 1, at: 8, len: 100, write: false, relaxed: false, fetch: true },
        Dma { id: 2, at: 8, len: 100, write: true, relaxed: false, fetch: true },
        Dma { id: 3, at: 8, len: 100, write: false, relaxed: false, fetch: true },
        Dma { id: 4, at: 8, len: 100, write: true, relaxed: false, fetch: true },
        Dma { id: 5, at: 8, len: 100, write: false, relaxed: false, fetch: true },
        Dma { id: 6, at: 8, len: 100, write: true, relaxed: false, fetch: true },
        Dma { id: 7, at: 8, len: 100, write: false, relaxed: false, fetch: true },
        Dma { id: 8, at: 8, len: 100, write: true, relaxed: false, fetch: true },
        Dma { id: 9, at: 8, len: 100, write: false, relaxed: false, fetch: true },
        Dma { id: 10, at: 8, len: 100, write: true, relaxed: false, fetch: true },
        Dma { id: 11, at: 8, len: 100, write: false, relaxed: false, fetch: true },
        Touch { id: 0, seed: 1 },
        Migrate { id: 10, page: 1 },
        Revoke { id: 9 },
        Probe { dev: 0, target: Nowhere(3), write: true },
        Probe { dev: 0, target: Gone(9), write: true },
        Probe { dev: 0, target: Against(8), write: true },
        Wait { cycles: 100 },
        Cpu { cpu: 1 },
        Unbind { dev: 0, leak: true },
        Import { dev: 0, peer: 2, pages: (3, 2), dir: Bidirectional, revoke: true },
        Remove { dev: 0 },
        Unmap { id: 0 },
    ];
    let outcome = run(&Program { world, ops }, None).unwrap();
    assert_eq!(outcome.failures, []);
}
