//! Random drivers: short programs of mapping calls and DMA on random machines, shrunk when they
//! fail.
//!
//! A [`Program`] is a [`World`] (the machine) and a list of [`Op`]s (what drivers and devices do
//! there). Objects have numbers; an operation whose object is not there does nothing, so that every
//! part of a program is a program. [`generate`] makes one from a seed, [`run`] executes it,
//! [`shrink`] makes it short, and its [`Display`](std::fmt::Display) is Rust that runs it again.

pub mod compare;
mod drivers;
mod generate;
mod run;
mod shrink;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;

use tlproof_pcie::Direction;

pub use generate::generate;
pub use run::{Failure, Outcome, run, run_on};
pub use shrink::{fails_with, shrink};
pub use world::{Attached, Port, World};

/// Names an object of a program: a mapping, a ring, a request.
pub type Id = u32;

/// How peer memory is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerVia {
    /// `dma_map_phys` with `DMA_ATTR_MMIO`.
    Phys,
    /// The two-step API with `DMA_ATTR_MMIO`.
    Iova,
    /// `dma_map_resource`.
    Resource,
    /// `dma_map_sg` of P2PDMA pages.
    Sg,
}

/// What a probe aims at; the machine has to block it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A page that is never mapped.
    Nowhere(u32),
    /// The addresses of an object that is gone.
    Gone(Id),
    /// A live object, against its direction.
    Against(Id),
}

/// One step of a program. Sizes and offsets are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A streaming mapping of main memory; `skip_sync` leaves cache maintenance to explicit syncs.
    Map {
        /// The new object.
        id: Id,
        /// Endpoint.
        dev: usize,
        /// Offset of the buffer in its first page.
        offset: u32,
        /// Size of the buffer.
        size: u32,
        /// Direction.
        dir: Direction,
        /// `DMA_ATTR_SKIP_CPU_SYNC`.
        skip_sync: bool,
    },
    /// A scatterlist of main memory, an entry a size.
    MapSg {
        /// The new object.
        id: Id,
        /// Endpoint.
        dev: usize,
        /// Sizes of the entries.
        sizes: Vec<u32>,
        /// Direction.
        dir: Direction,
    },
    /// A two-step mapping of main memory, a link a size.
    MapIova {
        /// The new object.
        id: Id,
        /// Endpoint.
        dev: usize,
        /// Offset of the first range in its first page.
        offset: u32,
        /// Sizes of the ranges; all but the last end on a page boundary.
        sizes: Vec<u32>,
        /// Direction.
        dir: Direction,
        /// Torn down by `dma_iova_destroy` instead of `dma_iova_unlink` and `dma_iova_free`.
        destroy: bool,
    },
    /// The memory BAR of another endpoint, by what the topology says.
    MapPeer {
        /// The new object.
        id: Id,
        /// Endpoint.
        dev: usize,
        /// The endpoint whose BAR it is.
        peer: usize,
        /// Offset in the BAR.
        offset: u32,
        /// Size.
        size: u32,
        /// Direction.
        dir: Direction,
        /// The call.
        via: PeerVia,
    },
    /// A ring: coherent memory that lives long.
    Ring {
        /// The new object.
        id: Id,
        /// Endpoint.
        dev: usize,
        /// Size.
        size: u32,
    },
    /// Pages from the API that the CPU and the device hand to each other by syncs.
    Pages {
        /// The new object.
        id: Id,
        /// Endpoint.
        dev: usize,
        /// Size.
        size: u32,
        /// Direction.
        dir: Direction,
        /// `dma_alloc_noncontiguous` in place of `dma_alloc_pages`.
        scattered: bool,
    },
    /// A request of an NVMe disk, whose list the device follows; nothing on a port without one.
    Request {
        /// The new object.
        id: Id,
        /// Endpoint.
        dev: usize,
        /// Offset of the first segment in its page.
        offset: u32,
        /// Sizes of the segments, which are no neighbours.
        sizes: Vec<u32>,
        /// An endpoint and a page of its BAR in place of main memory.
        peer: Option<(usize, u32)>,
        /// Bytes of metadata in main memory.
        metadata: u32,
        /// A read of the disk: the device writes.
        read: bool,
        /// On the admin queue, which knows PRPs only.
        admin: bool,
        /// Bios that it was merged from; one with peer memory is never merged.
        bios: u32,
    },
    /// A chain of buffers through a virtqueue; the device reads ring, table and buffers, answers
    /// and returns it.
    Virtio {
        /// Endpoint.
        dev: usize,
        /// Sizes of the buffers that the device reads.
        out: Vec<u32>,
        /// Sizes of the buffers that the device writes.
        input: Vec<u32>,
    },
    /// Ranges of the memory BAR of another endpoint as a DMABUF, attached and mapped.
    Dmabuf {
        /// The new object.
        id: Id,
        /// Endpoint.
        dev: usize,
        /// The endpoint whose BAR it is.
        peer: usize,
        /// First page and number of pages of each range.
        ranges: Vec<(u32, u32)>,
        /// Direction.
        dir: Direction,
    },
    /// An address space of a user (iommufd) takes a device over: pages of a peer's BAR are imported
    /// as a DMABUF and used; then the device is given back.
    Import {
        /// Endpoint.
        dev: usize,
        /// The endpoint whose BAR it is.
        peer: usize,
        /// First page and number of pages.
        pages: (u32, u32),
        /// What the user asks for.
        dir: Direction,
        /// Taken back by its owner instead of unmapped by the user.
        revoke: bool,
    },
    /// The owner of a DMABUF takes it back, with transfers under way.
    Revoke {
        /// The object.
        id: Id,
    },
    /// Pages of a process, faulted in by the device (HMM).
    Odp {
        /// The new object.
        id: Id,
        /// Endpoint.
        dev: usize,
        /// Pages of main memory, at most 16.
        pages: u32,
        /// An endpoint and a page of its BAR, after the others.
        peer: Option<(usize, u32)>,
    },
    /// The kernel moves a page of a process.
    Migrate {
        /// The object.
        id: Id,
        /// Which page of main memory, modulo their number.
        page: u32,
    },
    /// A driver is unbound from its device.
    Unbind {
        /// Endpoint.
        dev: usize,
        /// It leaves its mappings behind: they stay, and dma-debug has to say so.
        leak: bool,
    },
    /// A device is removed with mappings that its driver has left, and is found again: what was
    /// promised to it is over, and dma-debug has to say what was left.
    Remove {
        /// Endpoint.
        dev: usize,
    },
    /// The device transfers inside an object, in a direction that it allows.
    Dma {
        /// The object.
        id: Id,
        /// Where, modulo the object's size.
        at: u32,
        /// Bytes, cut at the end of the object's segment.
        len: u32,
        /// The device writes, if the object lets it.
        write: bool,
        /// Relaxed Ordering.
        relaxed: bool,
        /// The device keeps what it reads and the CPU looks at it there.
        fetch: bool,
    },
    /// The CPU takes an object for a while: sync, compare, new contents, sync.
    Touch {
        /// The object.
        id: Id,
        /// Seed of the new contents.
        seed: u32,
    },
    /// A mapping ends.
    Unmap {
        /// The object.
        id: Id,
    },
    /// A device tries what it may not.
    Probe {
        /// Endpoint.
        dev: usize,
        /// Where.
        target: Target,
        /// A write.
        write: bool,
    },
    /// Time passes.
    Wait {
        /// Clock cycles.
        cycles: u32,
    },
    /// The following calls run on another CPU.
    Cpu {
        /// Its number.
        cpu: usize,
    },
}

impl Op {
    /// The object that it makes.
    #[must_use]
    pub const fn makes(&self) -> Option<Id> {
        match self {
            Self::Map { id, .. }
            | Self::MapSg { id, .. }
            | Self::MapIova { id, .. }
            | Self::MapPeer { id, .. }
            | Self::Ring { id, .. }
            | Self::Pages { id, .. }
            | Self::Request { id, .. }
            | Self::Dmabuf { id, .. }
            | Self::Odp { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The object that it is about.
    #[must_use]
    pub const fn object(&self) -> Option<Id> {
        match self {
            Self::Dma { id, .. }
            | Self::Touch { id, .. }
            | Self::Unmap { id }
            | Self::Revoke { id }
            | Self::Migrate { id, .. } => Some(*id),
            Self::Probe {
                target: Target::Gone(id) | Target::Against(id),
                ..
            } => Some(*id),
            _ => self.makes(),
        }
    }
}

/// A machine and what happens on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The machine.
    pub world: World,
    /// The steps.
    pub ops: Vec<Op>,
}

impl fmt::Display for Program {
    /// A Rust test that runs the program.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "//! A program of random drivers.\n#![allow(unused_imports, reason = \"a short program needs few\")]\n\n\
             use tlproof::program::{{Attached::*, Op::*, PeerVia::*, Target::*, *}};"
        )?;
        writeln!(f, "use tlproof_dma::{{Profile::*, riscv::Mode::*}};")?;
        writeln!(f, "use tlproof_pcie::Direction::*;\n")?;
        writeln!(f, "#[test]\n#[rustfmt::skip]\nfn shrunk() {{")?;
        let world = format!("{:#?}", self.world).replace('\n', "\n    ");
        writeln!(f, "    let world = {world};")?;
        writeln!(f, "    let ops = vec![")?;
        for op in &self.ops {
            let op = format!("{op:?}")
                .replace("sizes: [", "sizes: vec![")
                .replace("out: [", "out: vec![")
                .replace("input: [", "input: vec![")
                .replace("ranges: [", "ranges: vec![");
            writeln!(f, "        {op},")?;
        }
        writeln!(f, "    ];")?;
        writeln!(
            f,
            "    let outcome = run(&Program {{ world, ops }}, None).unwrap();"
        )?;
        writeln!(f, "    assert_eq!(outcome.failures, []);\n}}")
    }
}
