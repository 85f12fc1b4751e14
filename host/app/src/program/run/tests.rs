use tlproof_dma::{Attrs, Profile};
use tlproof_pcie::{Direction, PhysAddr};

use super::{Runner, run};
use crate::program::{Attached, Op, Port, Program, Target, World};

fn world() -> World {
    World {
        debug: true,
        kmsan: true,
        high: true,
        swiotlb: Some(false),
        ..World::default()
    }
}

#[track_caller]
fn runs(world: World, ops: Vec<Op>) {
    let program = Program { world, ops };
    let outcome = run(&program, None).unwrap();
    assert_eq!(outcome.failures, [], "{program}");
    assert_eq!(outcome.refused, 0, "{program}");
}

fn map(id: u32, dir: Direction) -> Op {
    Op::Map {
        id,
        dev: 0,
        offset: 0,
        size: 0x1800,
        dir,
        skip_sync: false,
    }
}

fn dma(id: u32, at: u32, write: bool) -> Op {
    Op::Dma {
        id,
        at,
        len: 4096,
        write,
        relaxed: false,
        fetch: true,
    }
}

/// A bounced head and tail are mappings of their own: all of a link is promised.
#[test]
fn a_link_that_is_bounced_in_part() {
    let mut world = world();
    world.ports[0] = Port {
        untrusted: true,
        min_align_mask: 0xfff,
        ..Port::default()
    };
    for destroy in [true, false] {
        let ops = vec![
            Op::MapIova {
                id: 1,
                dev: 0,
                offset: 2391,
                sizes: vec![32768],
                dir: Direction::FromDevice,
                destroy,
            },
            dma(1, 0, true),
            dma(1, 3000, true),
            Op::Unmap { id: 1 },
        ];
        runs(world.clone(), ops);
    }
}

/// Main memory above 4 GiB is bounced for a device that reaches 32 bits and is not translated.
#[test]
fn a_device_that_does_not_reach_its_buffer() {
    let mut world = world();
    world.iommu = false;
    world.ports[0].mask_bits = 32;
    let both = Direction::Bidirectional;
    let ops = vec![map(1, both), dma(1, 0, true), dma(1, 8, false)];
    let program = Program { world, ops };
    let mut r = Runner::new(&program, None).unwrap();
    r.step(&program.ops[0]).unwrap();
    assert!(r.bench.dma.swiotlb().unwrap().used() > 0);
    r.step(&program.ops[1]).unwrap();
    r.step(&program.ops[2]).unwrap();
    r.finish().unwrap();
    assert_eq!(r.out.failures, []);
}

#[test]
fn memory_that_the_api_allocates() {
    for (coherent, iommu) in [(true, true), (false, true), (false, false)] {
        for scattered in [false, true] {
            let mut world = world();
            world.iommu = iommu;
            world.ports[0].coherent = coherent;
            let pages = Op::Pages {
                id: 1,
                dev: 0,
                size: 0x2345,
                dir: Direction::Bidirectional,
                scattered,
            };
            let touch = Op::Touch { id: 1, seed: 9 };
            let ops = vec![
                pages,
                dma(1, 0, false),
                dma(1, 64, true),
                touch,
                dma(1, 1, false),
            ];
            runs(world, ops);
        }
    }
    // One segment for the device, and no report that it is longer than the device takes.
    let long = Op::Pages {
        id: 1,
        dev: 0,
        size: 96218,
        dir: Direction::ToDevice,
        scattered: true,
    };
    runs(world(), vec![long, dma(1, 0, false)]);
}

#[test]
fn a_buffer_of_a_peer_is_taken_back_under_way() {
    for (redirect, peer) in [(true, 2), (true, 1), (false, 1)] {
        for dir in [Direction::Bidirectional, Direction::FromDevice] {
            let mut world = world();
            world.redirect = redirect;
            let buffer = Op::Dmabuf {
                id: 1,
                dev: 0,
                peer,
                ranges: vec![(4, 2), (1, 1)],
                dir,
            };
            let other = Op::Dmabuf {
                id: 2,
                dev: 0,
                peer,
                ranges: vec![(8, 1)],
                dir,
            };
            let ops = vec![
                buffer,
                other,
                dma(1, 0, true),
                Op::Revoke { id: 1 },
                dma(2, 0, true),
            ];
            runs(world, ops);
        }
    }
}

#[test]
fn pages_of_a_process_move() {
    // Without dma-debug, a device that is not translated is not asked to unmap.
    for (iommu, debug) in [(true, true), (false, true), (false, false)] {
        let mut world = world();
        (world.iommu, world.debug) = (iommu, debug);
        let region = Op::Odp {
            id: 1,
            dev: 0,
            pages: 3,
            peer: Some((2, 5)),
        };
        let ops = vec![
            region,
            dma(1, 4096, true),
            Op::Migrate { id: 1, page: 1 },
            dma(1, 4096, false),
            dma(1, 3 * 4096, true),
        ];
        runs(world, ops);
    }
}

/// dma-debug says how much a driver leaves behind, and nothing when it leaves nothing.
#[test]
fn a_driver_is_unbound() {
    for leak in [true, false] {
        let ops = vec![
            map(1, Direction::ToDevice),
            map(2, Direction::FromDevice),
            Op::Unbind { dev: 0, leak },
            dma(1, 0, false),
        ];
        runs(world(), ops);
    }
}

/// What was promised to a device that is gone is over: the IOMMU refuses it, the new device begins
/// with an empty domain, and dma-debug counts what was left.
#[test]
fn a_device_is_removed() {
    for attached in [Attached::Strict, Attached::Lazy] {
        let mut world = world();
        world.ports[0].attached = attached;
        let probe = |write| Op::Probe {
            dev: 0,
            target: Target::Gone(1),
            write,
        };
        let iova = Op::MapIova {
            id: 2,
            dev: 0,
            offset: 0,
            sizes: vec![4096, 4096],
            dir: Direction::Bidirectional,
            destroy: true,
        };
        let ops = vec![
            map(1, Direction::Bidirectional),
            iova,
            Op::Ring {
                id: 3,
                dev: 0,
                size: 4096,
            },
            map(4, Direction::FromDevice),
            Op::Unmap { id: 4 },
            dma(1, 0, true),
            dma(1, 0, false),
            Op::Remove { dev: 0 },
            probe(true),
            probe(false),
            map(5, Direction::ToDevice),
            dma(5, 0, false),
        ];
        let program = Program { world, ops };
        let mut r = Runner::new(&program, None).unwrap();
        for op in &program.ops {
            r.step(op).unwrap();
        }
        // The ring and the first buffer; the two-step interface is not followed.
        let shown = r.bench.dma.debug().unwrap().log.shown();
        let shown: Vec<_> = shown.iter().map(|c| c.to_string()).collect();
        assert_eq!(shown.len(), 1);
        assert!(shown[0].contains("[count=2]"), "{shown:?}");
        r.finish().unwrap();
        assert_eq!(r.out.failures, []);
        assert_eq!(r.out.transfers, 3);
    }
}

/// An access that comes after the removal as if nothing had happened is found.
#[test]
fn a_device_that_goes_on_is_found() {
    let program = Program {
        world: world(),
        ops: vec![map(1, Direction::Bidirectional), Op::Remove { dev: 0 }],
    };
    let mut r = Runner::new(&program, None).unwrap();
    for op in &program.ops {
        r.step(op).unwrap();
    }
    let dma = r.gone[&1].1[0].dma;
    let d = crate::endpoint::Descriptor::pattern(77, true, dma, 64, 1);
    r.alone(0, &d).unwrap();
    assert!(judges(r).contains(&"promise".to_owned()));
}

#[test]
fn a_user_takes_a_device_over() {
    for revoke in [false, true] {
        for (dir, peer) in [
            (Direction::Bidirectional, 2),
            (Direction::ToDevice, 1),
            (Direction::FromDevice, 2),
        ] {
            let import = Op::Import {
                dev: 0,
                peer,
                pages: (3, 2),
                dir,
                revoke,
            };
            let ops = vec![
                map(1, Direction::Bidirectional),
                dma(1, 0, true),
                import.clone(),
                dma(1, 0, false),
                import,
                dma(1, 64, true),
            ];
            runs(world(), ops);
        }
    }
}

/// A step about an object that is not there, or is of another kind, does nothing.
#[test]
fn steps_without_their_objects() {
    let about = |id| {
        [
            Op::Revoke { id },
            Op::Migrate { id, page: 1 },
            Op::Touch { id, seed: 1 },
            dma(id, 1, true),
        ]
    };
    let mut ops: Vec<Op> = about(7).into();
    ops.push(map(1, Direction::ToDevice));
    ops.extend(about(1));
    ops.push(Op::Unmap { id: 7 });
    runs(world(), ops);
}

fn judges(mut r: Runner) -> Vec<String> {
    r.finish().unwrap();
    r.out.failures.into_iter().map(|f| f.judge).collect()
}

fn started() -> Runner {
    let program = Program {
        world: world(),
        ops: Vec::new(),
    };
    Runner::new(&program, None).unwrap()
}

/// A mapping that nobody ends is a report of dma-debug, besides the leak.
#[test]
fn a_leak_is_reported() {
    let mut r = started();
    let phys = r.pool_for_test();
    let (dir, none) = (Direction::FromDevice, Attrs::empty());
    r.bench.map_phys(0, phys, 64, dir, none).unwrap();
    let found = judges(r);
    assert!(found.contains(&"dma-debug".to_owned()), "{found:?}");
    assert!(found.contains(&"driver".to_owned()), "{found:?}");
}

/// A device that may read what nobody wrote is a report of KMSAN.
#[test]
fn uninitialised_memory_is_reported() {
    let mut r = started();
    let phys = r.pool_for_test();
    r.bench.dma.kmsan_poison(phys, 64);
    let (dir, none) = (Direction::ToDevice, Attrs::empty());
    let dma = r.bench.map_phys(0, phys, 64, dir, none).unwrap();
    r.bench.unmap_phys(0, dma, 64, dir, none);
    assert_eq!(judges(r), ["kmsan"]);
}

/// The older Linuxes run the new steps too, whatever their promises come to.
#[test]
fn other_profiles_run_all_steps() {
    for profile in [Profile::Linux72, Profile::PreSeries] {
        let mut world = world();
        world.profile = profile;
        world.ports[0].attached = Attached::Lazy;
        let ops = vec![
            Op::Dmabuf {
                id: 1,
                dev: 0,
                peer: 2,
                ranges: vec![(4, 2), (1, 1)],
                dir: Direction::Bidirectional,
            },
            dma(1, 0, true),
            Op::Revoke { id: 1 },
        ];
        run(&Program { world, ops }, None).unwrap();
    }
}

impl Runner {
    fn pool_for_test(&mut self) -> PhysAddr {
        let buffer = self.buffer(0, 0, 0, 4096, Direction::FromDevice);
        buffer.expect("memory").phys
    }
}

fn request(sizes: &[u32], peer: Option<(usize, u32)>, metadata: u32, read: bool) -> Op {
    Op::Request {
        id: 1,
        dev: 0,
        offset: 0,
        sizes: sizes.to_vec(),
        peer,
        metadata,
        read,
        admin: false,
        bios: 3,
    }
}

fn disk(coherent: bool) -> World {
    let mut world = world();
    world.ports[0].nvme = true;
    world.ports[0].coherent = coherent;
    world
}

#[test]
fn requests_of_a_disk() {
    for (coherent, iommu) in [(true, true), (false, true), (true, false), (false, false)] {
        for read in [false, true] {
            for (sizes, peer, metadata) in [
                (&[4096; 20][..], None, 0),
                (&[4096; 20], None, 200),
                (&[4100, 64, 2048], None, 8),
                (&[4096; 3], Some((2, 5)), 64),
                (&[512, 4], Some((1, 0)), 0),
            ] {
                let mut world = disk(coherent);
                world.iommu = iommu;
                let ops = vec![
                    request(sizes, peer, metadata, read),
                    dma(1, 100, read),
                    Op::Unbind { dev: 1, leak: true },
                    Op::Unmap { id: 1 },
                    request(sizes, peer, metadata, !read),
                    Op::Unbind {
                        dev: 0,
                        leak: false,
                    },
                    request(sizes, peer, metadata, read),
                ];
                runs(world, ops);
            }
        }
    }
}

/// What the device makes of a list is judged, not what the driver meant.
#[test]
fn lists_with_mistakes() {
    let program = Program {
        world: disk(true),
        ops: vec![request(&[4096; 3], None, 64, true)],
    };
    let mistakes: [fn(&mut tlproof_dma::nvme::Defects); 3] = [
        |_| (),
        |d| d.prp2_is_data = true,
        |d| d.sgl_lengths_lost = true,
    ];
    for (i, mistake) in mistakes.into_iter().enumerate() {
        let mut program = program.clone();
        if i == 1 {
            program.world.iommu = false;
        } else {
            program.ops = vec![request(&[4100, 64], None, 0, true)];
        }
        let mut r = Runner::new(&program, None).unwrap();
        mistake(&mut r.disks[0].as_mut().unwrap().defects);
        r.step(&program.ops[0]).unwrap();
        r.finish().unwrap();
        assert_eq!(r.out.failures.is_empty(), i == 0, "{:?}", r.out.failures);
    }
}

#[test]
fn chains_through_a_virtqueue() {
    for (coherent, iommu, indirect) in [
        (true, true, true),
        (true, true, false),
        (false, true, true),
        (false, false, false),
    ] {
        let mut world = world();
        world.iommu = iommu;
        world.ports[0].coherent = coherent;
        world.ports[0].indirect = indirect;
        let chain = |out: &[u32], input: &[u32]| Op::Virtio {
            dev: 0,
            out: out.to_vec(),
            input: input.to_vec(),
        };
        // More chains than the ring has slots.
        let mut ops = vec![chain(&[64, 300], &[5000]); 9];
        ops.push(chain(&[7], &[]));
        ops.push(chain(&[], &[1, 2, 3]));
        runs(world, ops);
    }
}

/// A device that has lost its place in the ring finds another index than it expects.
#[test]
fn a_ring_that_is_out_of_step() {
    let program = Program {
        world: world(),
        ops: vec![
            Op::Virtio {
                dev: 0,
                out: vec![64],
                input: vec![64],
            };
            2
        ],
    };
    let mut r = Runner::new(&program, None).unwrap();
    r.step(&program.ops[0]).unwrap();
    assert_eq!(r.out.failures, []);
    r.queues[0].as_mut().unwrap().lose_place();
    r.step(&program.ops[1]).unwrap();
    assert!(r.out.failures.iter().any(|f| f.field == "virtio"));
}

/// A device that finds less in a chain than the driver has put into it.
#[test]
fn a_chain_that_lacks_a_buffer() {
    let program = Program {
        world: world(),
        ops: vec![Op::Virtio {
            dev: 0,
            out: vec![64],
            input: vec![],
        }],
    };
    let mut r = Runner::new(&program, None).unwrap();
    r.step(&program.ops[0]).unwrap();
    assert_eq!(r.out.failures, []);
    let mut queue = r.queues[0].take().unwrap();
    let buffers = r.buffers(7, 0, &[64, 64], Direction::ToDevice);
    let out = [tlproof_dma::block::PhysVec {
        paddr: buffers[0].phys,
        len: 64,
    }];
    let one = tlproof_dma::virtio_ring::Buffers::Memory {
        out: &out,
        input: &[],
    };
    let virtio = &mut queue.virtio;
    r.bench.virtio_add(0, virtio, one, 99).unwrap();
    r.serve(0, &mut queue, &buffers).unwrap();
    let text: Vec<_> = r.out.failures.iter().map(|f| f.text.as_str()).collect();
    assert_eq!(text, ["1 buffers are not in the chain"]);
}
