//! Requests of an NVMe disk.

use tlproof_dma::{
    block::{Bio, BioVec, ReqOp, Request},
    nvme::{Command, Queue, Source},
};
use tlproof_pcie::{Direction, PhysAddr};

use super::{
    super::{
        Id,
        drivers::{Kind, Object, Span},
    },
    PAGE, PEER_MEMORY, Runner,
    map::Buffer,
};
use crate::{
    endpoint::{Completion, Descriptor, pattern_bytes},
    testbench::{Error, nvme::data_transfer},
};

/// Bytes of a cache line.
const LINE: u32 = 64;

/// What is asked of a disk.
pub(super) struct What<'a> {
    pub offset: u32,
    pub sizes: &'a [u32],
    pub peer: Option<(usize, u32)>,
    pub metadata: u32,
    pub read: bool,
    pub admin: bool,
    pub bios: u32,
}

/// Address and length of memory.
type Piece = (PhysAddr, u32);

impl Runner {
    /// Maps a request and lets the device follow its list once.
    pub(super) fn request(&mut self, id: Id, dev: usize, what: &What<'_>) -> Result<(), Error> {
        let f = self.device(dev);
        if self.disks[f].is_none() || self.objects.contains_key(&id) {
            return Ok(());
        }
        let (op, dir) = if what.read {
            (ReqOp::Read, Direction::FromDevice)
        } else {
            (ReqOp::Write, Direction::ToDevice)
        };
        let queue = if what.admin { Queue::Admin } else { Queue::Io };
        // The device takes what begins and ends at a multiple of 4.
        let sizes: Vec<u32> = what.sizes.iter().map(|s| (s & !3).max(4)).collect();
        let offset = what.offset & !3 & (PAGE as u32 - 1);
        let mut buffers = Vec::new();
        if what.metadata != 0 {
            buffers.extend(self.buffer(id, 0x1000, 0, u64::from(what.metadata & !3).max(4), dir));
        }
        let metadata = buffers.len();
        let data = match what.peer {
            Some((peer, page)) => self.bar(f, peer, page, offset, &sizes),
            None => {
                let all = self.buffers(id, u64::from(offset), &sizes, dir);
                let vec = |b: &Buffer| (b.phys, b.bytes.len() as u32);
                let vecs = all.iter().map(vec).collect();
                buffers.extend(all);
                vecs
            }
        };
        let meta = buffers[..metadata]
            .first()
            .map(|b| (b.phys, b.bytes.len() as u32));
        let bios = if what.peer.is_some() { 1 } else { what.bios };
        let Some(request) = self.block_request(f, op, queue, (&data, meta), bios) else {
            self.give(&buffers);
            return Ok(());
        };
        let source = Source { queue, user: false };
        let cmd = Command::new(if what.read { 2 } else { 1 }, 1, 1);
        let Some(disk) = &mut self.disks[f] else {
            return Ok(());
        };
        let Ok(prepared) = self.bench.nvme_prep(f, disk, source, &request, cmd) else {
            self.out.refused += 1;
            self.give(&buffers);
            return Ok(());
        };

        self.transfer = self.transfer.wrapping_add(1);
        let seed = u32::from(self.transfer) << 8 ^ id;
        let patterned = |d| Descriptor {
            id: self.transfer,
            pattern: Some(seed),
            ..d
        };
        let bytes = request.payload_bytes();
        let list = patterned(data_transfer(&prepared.iod.cmd, what.read, bytes, 0));
        let bytes = request.integrity_bytes();
        let second = self.bench.metadata_transfer(&prepared, what.read, bytes, 0);
        let second = second.map(|d| patterned(Descriptor { local: 0, ..d }));
        for d in std::iter::once(list).chain(second) {
            let done = self.alone(f, &d)?;
            if !done.is_success() {
                self.fail("request", format!("{done:?}"));
            }
        }

        // Metadata first: it is always in main memory.
        let spans = prepared.spans();
        let mut left = request.payload_bytes().into();
        let split = spans.iter().position(|(_, len)| {
            let end = left == 0;
            left = u64::saturating_sub(left, *len);
            end
        });
        let (data, meta) = spans.split_at(split.unwrap_or(spans.len()));
        let spans = meta.iter().chain(data).map(|(dma, len)| Span {
            dma: *dma,
            len: *len,
        });
        let spans: Vec<_> = spans.collect();
        let mut o = Object::of_buffers(f, dir, Kind::Bus, spans, buffers);
        if what.read {
            let mut at = 0;
            for s in &o.spans {
                let end = at + s.len as usize;
                if let Some(bytes) = o.model.get_mut(at..end) {
                    pattern_bytes(s.dma, seed, bytes);
                }
                at = end;
            }
        }
        let prepared = Box::new(prepared);
        o.kind = Kind::Request { request, prepared };
        self.insert(id, o);
        Ok(())
    }

    /// Segments of a peer's BAR, a page between them.
    fn bar(
        &mut self,
        f: usize,
        peer: usize,
        page: u32,
        offset: u32,
        sizes: &[u32],
    ) -> Vec<(PhysAddr, u32)> {
        let peer = self.device(peer);
        if peer == f {
            return Vec::new();
        }
        let bar = self.bench.functions[peer].engine.memory;
        let mut at = u64::from(page) * PAGE + u64::from(offset);
        let mut vecs = Vec::new();
        for size in sizes {
            let end = at + u64::from(*size);
            if end > u64::from(PEER_MEMORY) {
                break;
            }
            vecs.push((bar.offset(at), *size));
            at = end.next_multiple_of(PAGE) + PAGE;
        }
        vecs
    }

    /// `None` for what the block layer does not let through.
    fn block_request(
        &self,
        f: usize,
        op: ReqOp,
        queue: Queue,
        (data, meta): (&[Piece], Option<Piece>),
        bios: u32,
    ) -> Option<Request> {
        let (api, sim) = (&self.bench.dma, &self.bench.sim);
        let vec = |(phys, len): &(PhysAddr, u32)| api.bio_vec(sim, *phys, *len);
        let vecs: Vec<BioVec> = data.iter().map(vec).collect::<Result<_, _>>().ok()?;
        // As many bios as there is data for, and if there is metadata, a cache line of it for each:
        // two mappings do not share one.
        let most = meta.map_or(u32::MAX, |(_, len)| len / LINE);
        let n = (bios.min(most) as usize).clamp(1, vecs.len().max(1));
        let chunk = vecs.len().div_ceil(n).max(1);
        let mut merged = Vec::new();
        for vecs in vecs.chunks(chunk) {
            merged.push(Bio::new(vecs.iter().copied()).ok()?);
        }
        if let Some((phys, len)) = meta {
            let (count, mut at) = (merged.len() as u32, 0);
            for (i, bio) in (1..).zip(&mut merged) {
                let end = if i == count {
                    len
                } else {
                    len / LINE / count * LINE * i
                };
                let piece = (phys.offset(at.into()), end - at);
                bio.add_integrity(vec(&piece).ok()?).ok()?;
                at = end;
            }
        }
        let limits = self.disks[f].as_ref()?.limits(api, queue);
        Request::new(op, merged, &limits).ok()
    }

    /// Runs one transfer of a device that has no other under way, to its end.
    pub(super) fn alone(&mut self, f: usize, d: &Descriptor) -> Result<Completion, Error> {
        while self.bench.functions[f].engine.outstanding > 0 {
            self.bench.sim.run(64)?;
            self.poll(f)?;
        }
        self.out.transfers += 1;
        let bench = &mut self.bench;
        bench.functions[f].engine.submit(&mut bench.sim, d)?;
        for _ in 0..60_000 {
            bench.sim.run(64)?;
            if let Some(done) = bench.functions[f].engine.poll(&mut bench.sim)? {
                return Ok(done);
            }
        }
        let bdf = bench.functions[f].engine.bdf;
        Err(Error::Machine(format!("{bdf}: a transfer does not end")))
    }

    /// What the drivers of a device keep until they are unbound.
    pub(super) fn unprobe(&mut self, f: usize) {
        if let Some(disk) = self.disks[f].take() {
            self.bench.nvme_remove(f, disk);
        }
        if let Some(queue) = self.queues[f].take() {
            self.bench.virtio_delete(f, queue.virtio);
        }
    }
}
