use tlproof_dma::{Profile, riscv::Mode};
use tlproof_pcie::Direction;

use super::{Op, PeerVia, Port, Program, Target, World, generate, run, shrink, shrink::fails_with};

#[test]
fn random_programs_keep_their_promises() {
    for seed in 0..40 {
        let program = generate(seed, 60, Profile::Intended);
        let outcome = run(&program, None).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{program}"));
        assert_eq!(outcome.failures, [], "seed {seed}\n{program}");
    }
}

#[test]
fn the_same_seed_is_the_same_program() {
    let a = generate(7, 60, Profile::Intended);
    assert_eq!(a, generate(7, 60, Profile::Intended));
    assert_ne!(a, generate(8, 60, Profile::Intended));
    let (x, y) = (run(&a, None).unwrap(), run(&a, None).unwrap());
    assert_eq!((x.tlps, x.compared), (y.tlps, y.compared));
    assert!(x.tlps > 0);
}

#[test]
fn every_part_of_a_program_is_a_program() {
    let whole = generate(3, 40, Profile::Intended);
    for skip in 0..whole.ops.len() {
        let mut part = whole.clone();
        part.ops.remove(skip);
        let outcome = run(&part, None).unwrap();
        assert_eq!(outcome.failures, [], "without step {skip}\n{part}");
    }
}

#[test]
fn a_failure_shrinks_to_the_steps_that_make_it() {
    let mut program = generate(5, 60, Profile::PreSeries);
    program.world = World {
        profile: Profile::PreSeries,
        ..World::default()
    };
    let id = 1000;
    program.ops.insert(
        30,
        Op::MapPeer {
            id,
            dev: 0,
            peer: 2,
            offset: 0x1230,
            size: 0x3000,
            dir: Direction::FromDevice,
            via: PeerVia::Phys,
        },
    );
    program.ops.insert(
        40,
        Op::Dma {
            id,
            at: 0,
            len: 512,
            write: true,
            relaxed: false,
            fetch: false,
        },
    );
    let fails = |p: &Program| fails_with(p, "promise", "memory type");
    assert!(fails(&program));
    let short = shrink(&program, fails, |_, _| {});
    assert_eq!(short.ops.len(), 2, "{short}");
    assert!(matches!(short.ops[0], Op::MapPeer { .. }), "{short}");
    assert!(matches!(short.ops[1], Op::Dma { .. }), "{short}");
}

/// A link of an untrusted device is several mappings: its bounced head, its middle, its bounced tail.
#[test]
fn a_link_that_bounces_at_its_ends() {
    let mut world = World {
        swiotlb: Some(true),
        ..World::default()
    };
    world.ports[1].untrusted = true;
    world.ports[1].min_align_mask = 0xfff;
    let ops = vec![
        Op::MapIova {
            id: 19,
            dev: 1,
            offset: 2742,
            sizes: vec![32768, 1, 57],
            dir: Direction::FromDevice,
            destroy: true,
        },
        Op::Dma {
            id: 19,
            at: 0,
            len: 0x8000,
            write: true,
            relaxed: true,
            fetch: false,
        },
    ];
    let outcome = run(&Program { world, ops }, None).unwrap();
    assert_eq!(outcome.failures, []);
    assert!(outcome.compared > 0x8000);
}

/// What is printed is a test file that compiles: `tests/printed.rs` is one, and runs.
#[test]
fn what_is_printed_is_a_test() {
    let disk = Port {
        nvme: true,
        ..Port::default()
    };
    let program = Program {
        world: World {
            swiotlb: Some(false),
            mode: Some(Mode::Sv39),
            ports: [disk, Port::default(), Port::default()],
            ..World::default()
        },
        ops: every_step(),
    };
    let kept = include_str!("../../tests/printed.rs");
    assert_eq!(program.to_string(), kept);
}

/// Each kind of step, with its objects.
fn every_step() -> Vec<Op> {
    let (id, dev, peer) = (0, 0, 2);
    let (dir, size) = (Direction::Bidirectional, 0x1000);
    let mut ops = vec![
        Op::Map {
            id,
            dev,
            offset: 4,
            size,
            dir,
            skip_sync: true,
        },
        Op::MapSg {
            id: 1,
            dev,
            sizes: vec![0x1000, 0x200],
            dir,
        },
        Op::MapIova {
            id: 2,
            dev,
            offset: 0,
            sizes: vec![0x1000, 0x200],
            dir: Direction::FromDevice,
            destroy: true,
        },
    ];
    let vias = [PeerVia::Phys, PeerVia::Iova, PeerVia::Resource, PeerVia::Sg];
    ops.extend((3..).zip(vias).map(|(id, via)| Op::MapPeer {
        id,
        dev,
        peer,
        offset: 0,
        size,
        dir,
        via,
    }));
    ops.extend([
        Op::Ring { id: 7, dev, size },
        Op::Pages {
            id: 8,
            dev,
            size,
            dir: Direction::ToDevice,
            scattered: true,
        },
        Op::Dmabuf {
            id: 9,
            dev,
            peer,
            ranges: vec![(1, 1), (4, 2)],
            dir,
        },
        Op::Odp {
            id: 10,
            dev,
            pages: 2,
            peer: Some((2, 5)),
        },
    ]);
    ops.extend([
        Op::Request {
            id: 11,
            dev,
            offset: 4,
            sizes: vec![0x1000, 0x200],
            peer: Some((2, 1)),
            metadata: 128,
            read: true,
            admin: false,
            bios: 2,
        },
        Op::Virtio {
            dev,
            out: vec![16],
            input: vec![512],
        },
    ]);
    ops.extend((0..12).map(|id| Op::Dma {
        id,
        at: 8,
        len: 100,
        write: id % 2 == 0,
        relaxed: false,
        fetch: true,
    }));
    let probe = |target| Op::Probe {
        dev,
        target,
        write: true,
    };
    ops.extend([
        Op::Touch { id, seed: 1 },
        Op::Migrate { id: 10, page: 1 },
        Op::Revoke { id: 9 },
        probe(Target::Nowhere(3)),
        probe(Target::Gone(9)),
        probe(Target::Against(8)),
        Op::Wait { cycles: 100 },
        Op::Cpu { cpu: 1 },
        Op::Unbind { dev, leak: true },
        Op::Import {
            dev,
            peer,
            pages: (3, 2),
            dir,
            revoke: true,
        },
        Op::Remove { dev },
        Op::Unmap { id },
    ]);
    ops
}
