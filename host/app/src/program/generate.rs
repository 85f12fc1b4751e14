//! Programs from a seed.

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tlproof_dma::{Profile, riscv::Mode};
use tlproof_pcie::Direction;

use super::{
    Id, Op, PeerVia, Program, Target,
    run::PEER_MEMORY,
    world::{Attached, Port, World},
};

const PAGE: u32 = 4096;

/// Objects alive at the same time.
const ALIVE: usize = 10;

/// The program of a seed, of about `steps` steps.
#[must_use]
pub fn generate(seed: u64, steps: usize, profile: Profile) -> Program {
    let mut g = Generator {
        rng: ChaCha8Rng::seed_from_u64(seed),
        next: 0,
        alive: Vec::new(),
        gone: Vec::new(),
        shared: Vec::new(),
        ops: Vec::new(),
    };
    let world = g.world(seed, profile);
    while g.ops.len() < steps {
        g.step();
    }
    Program { world, ops: g.ops }
}

struct Generator {
    rng: ChaCha8Rng,
    next: Id,
    alive: Vec<Id>,
    gone: Vec<Id>,
    shared: Vec<Shared>,
    ops: Vec<Op>,
}

/// Objects with something more to them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shared {
    Dmabuf(Id),
    Process(Id),
}

impl Shared {
    const fn id(self) -> Id {
        match self {
            Self::Dmabuf(id) | Self::Process(id) => id,
        }
    }
}

impl Generator {
    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.choose(&mut self.rng).copied()
    }

    fn world(&mut self, seed: u64, profile: Profile) -> World {
        let iommu = self.rng.random_bool(0.85);
        let swiotlb = match self.rng.random_range(0..10) {
            0..5 => None,
            5..8 => Some(false),
            _ => Some(true),
        };
        let min = self.rng.random_range(4..24);
        let window = self.rng.random_range(0..3);
        let mut world = World {
            profile,
            seed,
            latency: (min, min + self.rng.random_range(1..48)),
            stall_one_in: self.pick(&[0, 4, 16, 64]).unwrap_or(0),
            iommu,
            mode: self.pick(&[Mode::Sv39, Mode::Sv48, Mode::Sv57]),
            ddt_levels: self.rng.random_range(2..=3),
            aperture: 0x4000_0000,
            bus_offset: window * 0x1000_0000,
            redirect: self.rng.random_bool(0.7),
            bridge: self.rng.random_bool(0.9),
            swiotlb,
            high: self.rng.random_bool(0.3),
            debug: self.rng.random_bool(0.3),
            kmsan: self.rng.random_bool(0.3),
            ports: Default::default(),
        };
        let identity = self.rng.random_bool(0.2);
        for i in 0..world.ports.len() {
            world.ports[i] = self.port(iommu, identity, swiotlb);
        }
        world
    }

    fn port(&mut self, iommu: bool, identity: bool, swiotlb: Option<bool>) -> Port {
        let attached = match self.rng.random_range(0..10) {
            0..5 => Attached::Strict,
            5..8 => Attached::Lazy,
            _ if identity => Attached::Identity,
            _ => Attached::Strict,
        };
        let translated = iommu && attached != Attached::Identity;
        Port {
            attached,
            coherent: self.rng.random_bool(0.6),
            untrusted: translated && swiotlb.is_some() && self.rng.random_bool(0.4),
            mask_bits: self.pick(&[64, 64, 48, 40, 32]).unwrap_or(64),
            min_align_mask: self.pick(&[0, 0, 0xfff]).unwrap_or(0),
            nvme: self.rng.random_bool(0.5),
            indirect: self.rng.random_bool(0.5),
        }
    }

    fn step(&mut self) {
        let create =
            self.alive.len() < 2 || (self.alive.len() < ALIVE && self.rng.random_bool(0.3));
        if create {
            self.create();
            return;
        }
        let Some(id) = self.pick(&self.alive.clone()) else {
            return;
        };
        let op = match self.rng.random_range(0..100) {
            0..55 => Op::Dma {
                id,
                at: self.rng.random(),
                len: self.length(),
                write: self.rng.random(),
                relaxed: self.rng.random_bool(0.3),
                fetch: self.rng.random_bool(0.3),
            },
            55..65 => Op::Touch {
                id,
                seed: self.rng.random(),
            },
            65..85 => {
                self.alive.retain(|a| *a != id);
                self.shared.retain(|s| s.id() != id);
                self.gone.push(id);
                Op::Unmap { id }
            }
            85..92 => self.probe(id),
            92..95 => Op::Wait {
                cycles: self.rng.random_range(50..2000),
            },
            95 => self.leave(),
            96..98 => match self.special() {
                Some(op) => op,
                None => return,
            },
            98 if self.rng.random_bool(0.3) => self.import(),
            98 => self.virtio(),
            _ => Op::Cpu {
                cpu: self.rng.random_range(0..2),
            },
        };
        self.ops.push(op);
    }

    /// What only some objects know.
    fn special(&mut self) -> Option<Op> {
        let which = self.pick(&self.shared.clone())?;
        Some(match which {
            Shared::Dmabuf(id) => {
                self.shared.retain(|s| *s != which);
                self.alive.retain(|a| *a != id);
                self.gone.push(id);
                Op::Revoke { id }
            }
            Shared::Process(id) => Op::Migrate {
                id,
                page: self.rng.random_range(0..16),
            },
        })
    }

    /// Mostly small, sometimes up to 128 KiB.
    fn length(&mut self) -> u32 {
        match self.rng.random_range(0..10) {
            0..3 => self.rng.random_range(1..64),
            3..6 => self.rng.random_range(64..PAGE),
            6..9 => self.rng.random_range(PAGE..16 * PAGE),
            _ => self.rng.random_range(16 * PAGE..32 * PAGE),
        }
    }

    fn offset(&mut self) -> u32 {
        if self.rng.random_bool(0.5) {
            0
        } else {
            self.rng.random_range(0..PAGE)
        }
    }

    fn direction(&mut self) -> Direction {
        match self.rng.random_range(0..5) {
            0 | 1 => Direction::ToDevice,
            2 | 3 => Direction::FromDevice,
            _ => Direction::Bidirectional,
        }
    }

    fn sizes(&mut self, whole: bool) -> Vec<u32> {
        let n = self.rng.random_range(1..6);
        (0..n)
            .map(|_| {
                if whole {
                    PAGE * self.rng.random_range(1..6)
                } else {
                    self.length().min(8 * PAGE)
                }
            })
            .collect()
    }

    /// A driver or a device goes away.
    fn leave(&mut self) -> Op {
        let dev = self.rng.random_range(0..3);
        match self.rng.random_range(0..10) {
            0..3 => Op::Remove { dev },
            n => Op::Unbind { dev, leak: n < 8 },
        }
    }

    /// A user takes a device over.
    fn import(&mut self) -> Op {
        let dev = self.rng.random_range(0..3);
        Op::Import {
            dev,
            peer: (dev + self.rng.random_range(1..3)) % 3,
            pages: (self.rng.random_range(0..180), self.rng.random_range(1..5)),
            dir: self.direction(),
            revoke: self.rng.random(),
        }
    }

    /// A chain through a virtqueue.
    fn virtio(&mut self) -> Op {
        let n = self.rng.random_range(1..5);
        let sizes: Vec<u32> = (0..n).map(|_| self.length().min(2 * PAGE)).collect();
        let (out, input) = sizes.split_at(self.rng.random_range(0..=sizes.len()));
        Op::Virtio {
            dev: self.rng.random_range(0..3),
            out: out.to_vec(),
            input: input.to_vec(),
        }
    }

    /// A request of a disk: whole pages, or segments of anything else.
    fn request(&mut self, id: Id, dev: usize) -> Op {
        let whole = self.rng.random_bool(0.6);
        let n = self.rng.random_range(1..if whole { 24 } else { 8 });
        let size = |g: &mut Self| match whole {
            true => PAGE,
            false => 4 * g.rng.random_range(1..PAGE / 2),
        };
        let peer = (dev + self.rng.random_range(1..3)) % 3;
        let page = self.rng.random_range(0..64);
        Op::Request {
            id,
            dev,
            offset: if self.rng.random_bool(0.7) {
                0
            } else {
                4 * self.rng.random_range(0..PAGE / 4)
            },
            sizes: (0..n).map(|_| size(self)).collect(),
            peer: self.rng.random_bool(0.3).then_some((peer, page)),
            metadata: if self.rng.random_bool(0.3) {
                32 * self.rng.random_range(1..9)
            } else {
                0
            },
            read: self.rng.random(),
            admin: self.rng.random_bool(0.2),
            bios: self.rng.random_range(1..4),
        }
    }

    /// Ranges of a BAR, in pages.
    fn ranges(&mut self) -> Vec<(u32, u32)> {
        let n = self.rng.random_range(1..4);
        let range = |g: &mut Self| (g.rng.random_range(0..180), g.rng.random_range(1..5));
        (0..n).map(|_| range(self)).collect()
    }

    fn create(&mut self) {
        let id = self.next;
        self.next += 1;
        let dev = self.rng.random_range(0..3);
        let dir = self.direction();
        let op = match self.rng.random_range(0..100) {
            0..10 => self.request(id, dev),
            10..35 => Op::Map {
                id,
                dev,
                offset: self.offset(),
                size: self.length(),
                dir,
                skip_sync: self.rng.random_bool(0.15),
            },
            35..50 => {
                let whole = self.rng.random_bool(0.6);
                Op::MapSg {
                    id,
                    dev,
                    sizes: self.sizes(whole),
                    dir,
                }
            }
            50..65 => Op::MapIova {
                id,
                dev,
                offset: self.offset(),
                sizes: self.sizes(false),
                dir,
                destroy: self.rng.random_bool(0.6),
            },
            82..87 => Op::Pages {
                id,
                dev,
                size: self.length(),
                dir,
                scattered: self.rng.random(),
            },
            87..91 => {
                self.shared.push(Shared::Dmabuf(id));
                Op::Dmabuf {
                    id,
                    dev,
                    peer: (dev + self.rng.random_range(1..3)) % 3,
                    ranges: self.ranges(),
                    dir,
                }
            }
            91..95 => {
                self.shared.push(Shared::Process(id));
                let peer = (dev + self.rng.random_range(1..3)) % 3;
                let page = self.rng.random_range(0..64);
                Op::Odp {
                    id,
                    dev,
                    pages: self.rng.random_range(1..8),
                    peer: self.rng.random_bool(0.4).then_some((peer, page)),
                }
            }
            65..82 => Op::MapPeer {
                id,
                dev,
                peer: (dev + self.rng.random_range(1..3)) % 3,
                offset: self.rng.random_range(0..PEER_MEMORY),
                size: self.rng.random_range(4..8 * PAGE),
                dir,
                via: self
                    .pick(&[PeerVia::Phys, PeerVia::Iova, PeerVia::Resource, PeerVia::Sg])
                    .unwrap_or(PeerVia::Phys),
            },
            _ => Op::Ring {
                id,
                dev,
                size: self.length(),
            },
        };
        self.alive.push(id);
        self.ops.push(op);
    }

    fn probe(&mut self, id: Id) -> Op {
        let target = match self.rng.random_range(0..3) {
            0 => Target::Nowhere(self.rng.random_range(0..0x1000)),
            1 => Target::Against(id),
            _ => match self.gone.last() {
                Some(gone) => Target::Gone(*gone),
                None => Target::Nowhere(0),
            },
        };
        Op::Probe {
            dev: self.rng.random_range(0..3),
            target,
            write: self.rng.random(),
        }
    }
}
