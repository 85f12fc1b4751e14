//! Executes a program.

mod import;
mod map;
mod peer;
mod probe;
mod removal;
mod request;
mod shared;
#[cfg(test)]
mod tests;
mod touch;
mod transfer;
mod virtio;

use std::collections::{BTreeMap, BTreeSet};

use tlproof_dma::{MapError, debug::Complaint, iommu::IommuError, kmsan::UninitValue, nvme::Nvme};

use crate::{
    buffers::BufferPool,
    output::SharedSink,
    report::ViolationRow,
    testbench::{Error, Testbench},
};

use super::{
    Id, Op, Program,
    drivers::{Object, Span},
    world::World,
};
use virtio::Queue;

const PAGE: u64 = 4096;

/// Where a device keeps what it fetches, above what peers may reach.
const FETCH: u32 = 0xc_0000;

/// Bytes of an endpoint's memory BAR that peers use.
pub(super) const PEER_MEMORY: u32 = FETCH;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Who found it: a judge, or `driver` for what a driver sees of the API.
    pub judge: String,
    /// The field or rule.
    pub field: String,
    /// The TLP, 0 if none is concerned.
    pub tlp: u64,
    /// All of it in a line.
    pub text: String,
}

/// What a program did.
#[derive(Default)]
pub struct Outcome {
    /// Empty when all promises were kept.
    pub failures: Vec<Failure>,
    /// TLPs.
    pub tlps: u64,
    /// Calls that the API refused.
    pub refused: u64,
    /// Transfers of devices.
    pub transfers: u64,
    /// Bytes that the CPU compared.
    pub compared: u64,
}

/// Runs a program to its end; rows go to `sink`.
///
/// # Errors
/// When the machine does not come up or stops: that is a failure of the testbench or of the RTL,
/// not of a promise.
pub fn run(program: &Program, sink: Option<SharedSink>) -> Result<Outcome, Error> {
    run_on(program, sink).map(|(outcome, _)| outcome)
}

/// [`run`] that gives the machine back.
///
/// # Errors
/// As [`run`].
pub fn run_on(program: &Program, sink: Option<SharedSink>) -> Result<(Outcome, Testbench), Error> {
    let mut r = Runner::new(program, sink)?;
    // What the calls did is looked at too.
    r.bench.dma.trace.set_enabled(cfg!(feature = "mutants"));
    for op in &program.ops {
        r.step(op)?;
        if r.bench.sim.checker.failed_enough() {
            break;
        }
    }
    r.finish()?;
    Ok((r.out, r.bench))
}

pub(super) struct Runner {
    pub(super) bench: Testbench,
    world: World,
    /// Drivers of disks, by endpoint.
    disks: [Option<Nvme>; 3],
    /// Virtqueues, made when they are needed.
    queues: [Option<Queue>; 3],
    pool: BufferPool,
    objects: BTreeMap<Id, Object>,
    gone: BTreeMap<Id, (usize, Vec<Span>)>,
    transfer: u16,
    fetches: u32,
    /// Reports of dma-debug that a leak has earned.
    told: BTreeSet<usize>,
    out: Outcome,
}

impl Runner {
    /// Brings the machine of a program up.
    pub(super) fn new(program: &Program, sink: Option<SharedSink>) -> Result<Self, Error> {
        let world = program.world.clone();
        let mut bench = world.bring_up(sink)?;
        let mut disks = [const { None }; 3];
        for (f, disk) in disks.iter_mut().enumerate() {
            *disk = world.nvme(&mut bench, f)?;
        }
        Ok(Self {
            bench,
            pool: BufferPool::new(world.buffers()),
            world,
            disks,
            queues: [const { None }; 3],
            objects: BTreeMap::new(),
            gone: BTreeMap::new(),
            transfer: 0,
            fetches: 0,
            told: BTreeSet::new(),
            out: Outcome::default(),
        })
    }

    /// Waits for all transfers and until nothing is under way.
    pub(super) fn rest(&mut self) -> Result<(), Error> {
        for id in self.objects.keys().copied().collect::<Vec<_>>() {
            self.wait(id, |_| true)?;
        }
        self.bench.sim.settle(4_000_000)?;
        Ok(())
    }

    /// Calls that the API has refused.
    pub(super) const fn refusals(&self) -> u64 {
        self.out.refused
    }

    pub(super) fn step(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::Map {
                id,
                dev,
                offset,
                size,
                dir,
                skip_sync,
            } => self.map(*id, *dev, u64::from(*offset), *size, *dir, *skip_sync)?,
            Op::MapSg {
                id,
                dev,
                sizes,
                dir,
            } => self.map_sg(*id, *dev, sizes, *dir)?,
            Op::MapIova {
                id,
                dev,
                offset,
                sizes,
                dir,
                destroy,
            } => self.map_iova(*id, *dev, u64::from(*offset), sizes, (*dir, *destroy))?,
            Op::MapPeer {
                id,
                dev,
                peer,
                offset,
                size,
                dir,
                via,
            } => self.map_peer(*id, *dev, *peer, (*offset, *size), *dir, *via)?,
            Op::Ring { id, dev, size } => self.ring(*id, *dev, *size)?,
            Op::Pages {
                id,
                dev,
                size,
                dir,
                scattered,
            } => self.pages(*id, *dev, *size, *dir, *scattered)?,
            Op::Request {
                id,
                dev,
                offset,
                sizes,
                peer,
                metadata,
                read,
                admin,
                bios,
            } => {
                let what = request::What {
                    offset: *offset,
                    sizes,
                    peer: *peer,
                    metadata: *metadata,
                    read: *read,
                    admin: *admin,
                    bios: *bios,
                };
                self.request(*id, *dev, &what)?;
            }
            Op::Virtio { dev, out, input } => self.virtio(*dev, out, input)?,
            Op::Dmabuf {
                id,
                dev,
                peer,
                ranges,
                dir,
            } => self.dmabuf(*id, *dev, *peer, ranges, *dir)?,
            Op::Import {
                dev,
                peer,
                pages,
                dir,
                revoke,
            } => self.import((*dev, *peer), *pages, *dir, *revoke)?,
            Op::Revoke { id } => self.revoke(*id)?,
            Op::Odp {
                id,
                dev,
                pages,
                peer,
            } => self.odp(*id, *dev, *pages, *peer)?,
            Op::Migrate { id, page } => self.migrate(*id, *page)?,
            Op::Unbind { dev, leak } => self.unbind(*dev, *leak)?,
            Op::Remove { dev } => self.remove_device(*dev)?,
            Op::Dma {
                id,
                at,
                len,
                write,
                relaxed,
                fetch,
            } => self.dma(*id, (*at, *len), *write, *relaxed, *fetch)?,
            Op::Touch { id, seed } => self.touch(*id, *seed)?,
            Op::Unmap { id } => self.unmap(*id)?,
            Op::Probe { dev, target, write } => self.probe(*dev, *target, *write)?,
            Op::Wait { cycles } => {
                self.bench.sim.run(u64::from(*cycles))?;
                self.bench.timers();
                for f in 0..self.bench.functions.len() {
                    self.poll(f)?;
                }
            }
            Op::Cpu { cpu } => {
                let cpus = self.bench.dma.config().cpus.max(1);
                self.bench.dma.set_cpu(cpu % cpus);
            }
        }
        Ok(())
    }

    fn fail(&mut self, field: &str, text: String) {
        self.out.failures.push(Failure {
            judge: "driver".to_owned(),
            field: field.to_owned(),
            tlp: 0,
            text,
        });
    }

    fn device(&self, dev: usize) -> usize {
        dev % self.bench.functions.len()
    }

    /// A refusal is counted; one that a driver could not expect is a failure.
    fn refused(&mut self, f: usize, e: &MapError, call: &str) {
        self.out.refused += 1;
        // The head of a bounced link keeps its place in the page only by `min_align_mask`.
        let device = self.bench.dma.device(self.bench.functions[f].dev);
        let moved = device.is_ok_and(|d| d.untrusted && d.min_align_mask & 0xfff != 0xfff);
        let expected = moved && *e == MapError::Iommu(IommuError::Misaligned);
        if matches!(e, MapError::Iommu(_)) && !expected {
            self.fail("refused", format!("{call}: {e}"));
        }
    }

    fn insert(&mut self, id: Id, object: Object) {
        self.objects.insert(id, object);
    }

    /// What dma-debug and KMSAN say: nothing, of drivers that make no mistakes.
    fn reports(&mut self) {
        for f in 0..self.bench.functions.len() {
            let dev = self.bench.functions[f].dev;
            self.bench.dma.driver_unbound(dev);
        }
        let mut found = Vec::new();
        if let Some(debug) = self.bench.dma.debug() {
            let text = |c: &Complaint| ("dma-debug", c.to_string());
            let shown = debug.log.shown().iter().enumerate();
            let unearned = shown.filter(|(i, _)| !self.told.contains(i));
            found.extend(unearned.map(|(_, c)| text(c)));
        }
        if let Some(kmsan) = self.bench.dma.kmsan() {
            let text = |r: &UninitValue| ("kmsan", r.to_string());
            found.extend(kmsan.reports().iter().map(text));
        }
        for (judge, text) in found {
            self.out.failures.push(Failure {
                judge: judge.to_owned(),
                field: "report".to_owned(),
                tlp: 0,
                text,
            });
        }
    }

    /// Ends everything and collects what was found.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        for id in self.objects.keys().copied().collect::<Vec<_>>() {
            self.unmap(id)?;
        }
        for f in 0..self.bench.functions.len() {
            self.unprobe(f);
        }
        self.bench.quiesce()?;
        let live = self.bench.dma.live().count();
        if live != 0 {
            self.fail("leak", format!("{live} mappings are left"));
        }
        let slots = self.bench.dma.swiotlb().map_or(0, |s| s.used());
        if slots != 0 {
            self.fail("leak", format!("{slots} bounce slots are left"));
        }
        self.reports();
        let checker = &self.bench.sim.checker;
        self.out.tlps = checker.tlps();
        let found = checker.violation_rows();
        self.out
            .failures
            .splice(0..0, found.iter().map(Failure::from));
        Ok(())
    }
}

impl From<&ViolationRow> for Failure {
    fn from(v: &ViolationRow) -> Self {
        Self {
            judge: v.judge.clone(),
            field: v.field.clone(),
            tlp: v.tlp,
            text: format!(
                "cycle {} at {}: {}: expected {}, got {}{}",
                v.cycle,
                v.tap,
                v.field,
                v.expected,
                v.got,
                v.story
                    .iter()
                    .find(|s| s.starts_with("mapping:"))
                    .map_or(String::new(), |s| format!("; {s}"))
            ),
        }
    }
}
