//! A virtqueue and the device at its other end (Virtual I/O Device Specification 1.2 §2.7).
//!
//! The device's firmware is played here: it moves ring, tables and buffers by its DMA engine, and
//! looks at them in its own memory.

use tlproof_dma::{
    block::PhysVec,
    machine::Machine,
    virtio_ring::{Buffers, DescFlags, Layout, VirtqueueError},
};
use tlproof_pcie::{Direction, DmaAddr};

use super::{FETCH, Runner, map::Buffer};
use crate::{
    endpoint::{Descriptor, pattern_bytes},
    testbench::{Error, virtio::Virtio},
};

/// Descriptors of a queue.
const NUM: u16 = 8;

/// Where the firmware works, behind what transfers fetch.
const WORK: u32 = FETCH + 0x1_0000;

/// Bytes of a buffer that the firmware looks at.
const LOOK: u32 = 256;

/// Numbers of buffers start here, away from those of objects.
const BUFFERS: u32 = 0x8000_0000;

/// A queue, and how far the device has come.
pub(super) struct Queue {
    pub virtio: Virtio,
    layout: Layout,
    next: u16,
}

#[cfg(test)]
impl Queue {
    /// The device believes that it has served one chain more.
    pub fn lose_place(&mut self) {
        self.next = self.next.wrapping_add(1);
    }
}

impl Runner {
    /// Sends a chain through the queue of a device and takes it back.
    pub(super) fn virtio(&mut self, dev: usize, out: &[u32], input: &[u32]) -> Result<(), Error> {
        let f = self.device(dev);
        let Some(layout) = Layout::new(NUM) else {
            return Ok(());
        };
        let mut queue = match self.queues[f].take() {
            Some(queue) => queue,
            None => match self
                .bench
                .virtio_new(f, layout, self.world.ports[f].indirect)
            {
                Ok(virtio) => Queue {
                    virtio,
                    layout,
                    next: 0,
                },
                Err(e) => {
                    self.refused(f, &e, "vring_create_virtqueue");
                    return Ok(());
                }
            },
        };
        let id = BUFFERS + self.out.transfers as u32;
        let reads = self.buffers(id, 0x10, out, Direction::ToDevice);
        let writes = self.buffers(id ^ 0x4000_0000, 0x20, input, Direction::FromDevice);
        let vec = |b: &Buffer| PhysVec {
            paddr: b.phys,
            len: b.bytes.len() as u32,
        };
        let out: Vec<_> = reads.iter().map(vec).collect();
        let input: Vec<_> = writes.iter().map(vec).collect();
        let buffers = Buffers::Memory {
            out: &out,
            input: &input,
        };
        let token = self.out.transfers;
        match self.bench.virtio_add(f, &mut queue.virtio, buffers, token) {
            Ok(()) => {
                let written = self.serve(f, &mut queue, &reads)?;
                let used = self.bench.virtio_get(f, &mut queue.virtio, token);
                let right = used.as_ref().is_ok_and(|u| {
                    u.is_some_and(|u| {
                        u.token == token && u.len == input.iter().map(|v| v.len).sum::<u32>()
                    })
                });
                if !right {
                    self.fail("virtio", format!("the chain comes back as {used:?}"));
                }
                for ((dma, want), b) in written.iter().zip(&writes) {
                    let mut got = vec![0; want.len()];
                    self.bench.sim.mem_read(b.phys, &mut got);
                    self.out.compared += want.len() as u64;
                    self.bench.sim.compare_memory(*dma, want, &got);
                }
            }
            Err(VirtqueueError::Map(e)) => self.refused(f, &e, "virtqueue_add"),
            Err(VirtqueueError::Empty | VirtqueueError::Full(_)) => self.out.refused += 1,
            Err(e) => self.fail("virtio", e.to_string()),
        }
        self.give(&reads);
        self.give(&writes);
        self.queues[f] = Some(queue);
        Ok(())
    }

    /// The device takes the next chain, reads and writes its buffers, and returns it. Gives back
    /// where it wrote and what.
    pub(super) fn serve(
        &mut self,
        f: usize,
        queue: &mut Queue,
        reads: &[Buffer],
    ) -> Result<Vec<(DmaAddr, Vec<u8>)>, Error> {
        let [desc, avail, used] = queue.virtio.queue.addresses();
        let slot = queue.layout.avail_slot(queue.next) - queue.layout.avail();
        let idx = self.look(f, avail.offset(2), 2)?;
        if idx != queue.next.wrapping_add(1).to_le_bytes() {
            self.fail(
                "virtio",
                format!("avail.idx is {idx:?} after {}", queue.next),
            );
        }
        let head = self.look(f, avail.offset(slot), 2)?;
        let head = u16::from_le_bytes([head[0], head[1]]);
        let (mut table, mut next) = (desc, Some(head));
        let (mut written, mut seen, mut len) = (Vec::new(), reads.iter(), 0);
        // A chain is not longer than the queue.
        for _ in 0..=NUM {
            let Some(index) = next else { break };
            let d = self.look(f, table.offset(u64::from(index) * 16), 16)?;
            let word = |at: usize, n: usize| {
                let bytes = d[at..at + n].iter().rev();
                bytes.fold(0_u64, |word, b| word << 8 | u64::from(*b))
            };
            let (addr, bytes) = (DmaAddr(word(0, 8)), word(8, 4) as u32);
            let flags = DescFlags::from_bits_truncate(word(12, 2) as u16);
            if flags.contains(DescFlags::INDIRECT) {
                (table, next) = (addr, Some(0));
                continue;
            }
            if flags.contains(DescFlags::WRITE) {
                let seed = self.seed();
                let d = Descriptor::pattern(self.transfer, true, addr, bytes, seed);
                self.firmware(f, &d)?;
                let mut want = vec![0; bytes as usize];
                pattern_bytes(addr, seed, &mut want);
                written.push((addr, want));
                len += bytes;
            } else {
                let d = Descriptor::pattern(self.transfer, false, addr, bytes, 0);
                self.firmware(f, &d)?;
                let got = self.look(f, addr, bytes.min(LOOK))?;
                match seen.next() {
                    Some(b) if b.bytes.len() == bytes as usize => {
                        let want = &b.bytes[..got.len()];
                        self.out.compared += want.len() as u64;
                        self.bench.sim.compare_memory(addr, want, &got);
                    }
                    other => {
                        let driver = other.map(|b| b.bytes.len());
                        let text = format!("{bytes} bytes to read, of the driver's {driver:?}");
                        self.fail("virtio", text);
                    }
                }
            }
            next = flags
                .contains(DescFlags::NEXT)
                .then_some(word(14, 2) as u16);
        }
        let unseen = seen.count();
        if unseen != 0 {
            self.fail("virtio", format!("{unseen} buffers are not in the chain"));
        }
        let element = queue.layout.used_slot(queue.next) - queue.layout.used();
        let id = u32::from(head).to_le_bytes();
        self.put(f, used.offset(element), &[id, len.to_le_bytes()].concat())?;
        queue.next = queue.next.wrapping_add(1);
        self.put(f, used.offset(2), &queue.next.to_le_bytes())?;
        Ok(written)
    }

    fn seed(&mut self) -> u32 {
        self.transfer = self.transfer.wrapping_add(1);
        u32::from(self.transfer) << 8
    }

    fn firmware(&mut self, f: usize, d: &Descriptor) -> Result<(), Error> {
        let done = self.alone(f, d)?;
        if !done.is_success() {
            self.fail("virtio", format!("{done:?}"));
        }
        Ok(())
    }

    /// Bytes of host memory, as the device has read them.
    fn look(&mut self, f: usize, dma: DmaAddr, len: u32) -> Result<Vec<u8>, Error> {
        self.seed();
        let local = WORK + (dma.0 as u32 & 3);
        let d = Descriptor::contiguous(self.transfer, false, dma, len, local);
        self.firmware(f, &d)?;
        let first = self.bench.functions[f].engine.memory;
        let mut bytes = Vec::new();
        for word in (WORK..local + len).step_by(4) {
            let word = self.bench.sim.mmio_read(first.offset(word.into()), 4)?;
            bytes.extend((word as u32).to_le_bytes());
        }
        let skip = (local - WORK) as usize;
        Ok(bytes[skip..skip + len as usize].to_vec())
    }

    /// The device writes bytes of its own to host memory.
    fn put(&mut self, f: usize, dma: DmaAddr, bytes: &[u8]) -> Result<(), Error> {
        self.seed();
        let skip = (dma.0 & 3) as usize;
        let first = self.bench.functions[f].engine.memory;
        let mut all = vec![0; skip];
        all.extend(bytes);
        all.resize(all.len().next_multiple_of(4), 0);
        for (i, word) in all.chunks(4).enumerate() {
            let at = u64::from(WORK) + 4 * i as u64;
            let value = word.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b));
            self.bench.sim.mmio_write(first.offset(at), 4, value)?;
        }
        let local = WORK + skip as u32;
        let d = Descriptor::contiguous(self.transfer, true, dma, bytes.len() as u32, local);
        self.firmware(f, &d)
    }
}
