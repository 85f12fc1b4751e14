//! Requests of NVMe disks, whose lists the devices follow.

use rand::RngExt;
use tlproof_dma::{
    MapError,
    block::{Bio, ReqOp, Request},
    nvme::{Command, Ctrl, Nvme, Queue, Source},
    p2pdma::MapType,
};
use tlproof_pcie::{Direction, PhysAddr};

use super::{BAR_SIZE, Campaign, Job, Mapped, PAGE, Span};
use crate::{
    endpoint::Descriptor,
    testbench::{Error, Testbench, nvme::data_transfer},
};

/// The driver of the disk at function `f`; segments stay as long as those of the others.
fn probe(bench: &mut Testbench, f: usize) -> Result<Nvme, MapError> {
    let dev = bench.functions[f].dev;
    let longest = bench.dma.device(dev)?.max_segment_size;
    let nvme = Nvme::new(&mut bench.dma, dev, Ctrl::default())?;
    bench.dma.dma_set_max_seg_size(dev, longest)?;
    Ok(nvme)
}

impl Campaign {
    /// A request: pages that are no neighbours, or pages of a peer's BAR.
    pub(super) fn request_job(&mut self, f: usize, dir: Direction) -> Result<Option<Job>, Error> {
        let read = dir.device_writes();
        let dir = if read {
            Direction::FromDevice
        } else {
            Direction::ToDevice
        };
        let mut disk = match self.disks[f].take() {
            Some(disk) => disk,
            None => probe(&mut self.bench, f)?,
        };
        let n = self.rng.random_range(1..40);
        let admin = self.rng.random_bool(0.2);
        let peer = (f + self.rng.random_range(1..3)) % 3;
        let peers = self.rng.random_bool(0.2)
            && matches!(
                self.bench.peer_map_type(f, peer),
                MapType::BusAddr | MapType::ThruHostBridge
            );
        let mut runs: Vec<(PhysAddr, u64)> = Vec::new();
        let mut pages = Vec::new();
        if peers {
            let first = PAGE * self.rng.random_range(0..BAR_SIZE / PAGE - 2 * n);
            let bar = self.bench.functions[peer].engine.memory.offset(first);
            runs.extend((0..n).map(|i| (bar.offset(2 * i * PAGE), PAGE)));
        } else {
            for _ in 0..n {
                let Some((base, n)) = self.buffer(0, PAGE) else {
                    break;
                };
                pages.push((base, n));
                runs.push((base, PAGE));
            }
        }
        let queue = if admin { Queue::Admin } else { Queue::Io };
        let op = if read { ReqOp::Read } else { ReqOp::Write };
        let bench = &mut self.bench;
        let request = runs
            .iter()
            .map(|(phys, len)| bench.dma.bio_vec(&bench.sim, *phys, *len as u32).ok())
            .collect::<Option<Vec<_>>>()
            .and_then(|vecs| Bio::new(vecs).ok())
            .and_then(|bio| {
                let limits = disk.limits(&bench.dma, queue);
                Request::new(op, vec![bio], &limits).ok()
            });
        let source = Source { queue, user: false };
        let cmd = Command::new(if read { 2 } else { 1 }, 1, 1);
        let prepared = request.and_then(|request| {
            let prepared = bench.nvme_prep(f, &mut disk, source, &request, cmd);
            Some((request, prepared.ok()?))
        });
        self.disks[f] = Some(disk);
        let Some((request, prepared)) = prepared else {
            self.counts.refused += 1;
            for (base, n) in pages {
                self.pool.give(base, n);
            }
            return Ok(None);
        };
        let spans = prepared.spans().iter();
        let spans = spans.map(|(dma, len)| Span {
            dma: *dma,
            len: *len,
        });
        let spans = spans.collect();
        let list = data_transfer(&prepared.iod.cmd, read, request.payload_bytes(), 0);
        let list = Descriptor {
            pattern: Some(self.rng.random()),
            ..list
        };
        let mapped = Mapped::Request {
            list: Some(list),
            request,
            prepared: Box::new(prepared),
        };
        let mut job = self.job(f, dir, mapped, spans);
        job.todo = 1;
        job.pages = pages;
        if !peers {
            job.runs = runs;
        }
        Ok(Some(job))
    }

    /// The drivers of the disks are unbound.
    pub(super) fn remove_disks(&mut self) {
        for f in 0..self.disks.len() {
            if let Some(disk) = self.disks[f].take() {
                self.bench.nvme_remove(f, disk);
            }
        }
    }
}
