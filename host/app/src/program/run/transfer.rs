//! Transfers of devices.

use tlproof_dma::machine::Machine;
use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::{
    super::{Id, drivers::UnderWay},
    FETCH, Runner,
};
use crate::{
    endpoint::{Descriptor, QUEUE_DEPTH, pattern_bytes},
    testbench::Error,
};

/// Bytes of a fetch at most, and of the memory that each has.
const FETCH_MAX: u64 = 256;
const FETCH_SLOTS: u32 = 64;

impl Runner {
    pub(super) fn dma(
        &mut self,
        id: Id,
        (at, len): (u32, u32),
        write: bool,
        relaxed: bool,
        fetch: bool,
    ) -> Result<(), Error> {
        let Some(o) = self.objects.get(&id) else {
            return Ok(());
        };
        let at = u64::from(at) % o.size();
        let Some((dma, room)) = o.locate(at) else {
            return Ok(());
        };
        let f = o.dev;
        let write = match o.dir {
            Direction::ToDevice => false,
            Direction::FromDevice => true,
            Direction::Bidirectional => write,
        };
        let fetch = fetch && !write && at < o.model.len() as u64;
        let longest = if fetch { FETCH_MAX } else { 1 << 20 };
        let len = u64::from(len.max(1)).min(room).min(longest);
        // Two transfers of the same bytes would race.
        self.wait(id, |u| u.at < at + len && at < u.at + u.len)?;
        while self.bench.functions[f].engine.outstanding >= QUEUE_DEPTH / 2 {
            self.bench.sim.run(64)?;
            self.poll(f)?;
        }
        self.transfer = self.transfer.wrapping_add(1);
        let transfer = self.transfer;
        let seed = u32::from(transfer) << 8 ^ id;
        let mut d = Descriptor::pattern(transfer, write, dma, len as u32, seed);
        d.relaxed = relaxed;
        let slot = fetch.then(|| {
            self.fetches = (self.fetches + 1) % FETCH_SLOTS;
            FETCH + self.fetches * 2 * FETCH_MAX as u32 + (dma.0 & 3) as u32
        });
        if let Some(slot) = slot {
            d.pattern = None;
            d.local = slot;
        }
        self.bench.functions[f]
            .engine
            .submit(&mut self.bench.sim, &d)?;
        self.out.transfers += 1;
        if let Some(o) = self.objects.get_mut(&id) {
            // A peer's memory has no model.
            if write && let Some(bytes) = o.model.get_mut(at as usize..(at + len) as usize) {
                pattern_bytes(dma, seed, bytes);
            }
            o.under_way.push(UnderWay {
                transfer,
                at,
                len,
                fetch: slot,
            });
        }
        Ok(())
    }

    /// Waits for the transfers of an object that `which` picks.
    pub(super) fn wait(&mut self, id: Id, which: impl Fn(&UnderWay) -> bool) -> Result<(), Error> {
        const LIMIT: u64 = 4_000_000;
        let end = self.bench.sim.cycles() + LIMIT;
        loop {
            let Some(o) = self.objects.get(&id) else {
                return Ok(());
            };
            let f = o.dev;
            if !o.under_way.iter().any(&which) {
                return Ok(());
            }
            if self.bench.sim.cycles() >= end {
                return Err(Error::Machine(format!(
                    "{}: a transfer does not end",
                    self.bench.functions[f].engine.bdf
                )));
            }
            self.bench.sim.run(64)?;
            self.poll(f)?;
        }
    }

    /// Takes the completion records of an endpoint.
    pub(super) fn poll(&mut self, f: usize) -> Result<(), Error> {
        while self.bench.functions[f].engine.outstanding > 0 {
            let record = self.bench.functions[f].engine.poll(&mut self.bench.sim)?;
            let Some(record) = record else { break };
            let found = self.objects.values_mut().find_map(|o| {
                let at = o
                    .under_way
                    .iter()
                    .position(|u| o.dev == f && u.transfer == record.id)?;
                let u = o.under_way.swap_remove(at);
                let want = u
                    .fetch
                    .map(|_| o.model[u.at as usize..(u.at + u.len) as usize].to_vec());
                let dma = o.locate(u.at).map(|(dma, _)| dma);
                Some((u, want, dma))
            });
            if let Some((u, Some(want), Some(dma))) = found {
                self.compare_fetched(f, &u, dma, &want)?;
            }
        }
        Ok(())
    }

    /// What a device read, as the CPU finds it in the device's memory.
    pub(super) fn compare_fetched(
        &mut self,
        f: usize,
        u: &UnderWay,
        dma: DmaAddr,
        want: &[u8],
    ) -> Result<(), Error> {
        let Some(slot) = u.fetch else { return Ok(()) };
        let first = self.bench.functions[f]
            .engine
            .memory
            .offset(u64::from(slot));
        let mut got = vec![0; want.len()];
        let start = first.align_down(4);
        let end = first.offset(u.len);
        for word in (start.0..end.0).step_by(4) {
            let bytes = (self.bench.sim.mmio_read(PhysAddr(word), 4)? as u32).to_le_bytes();
            for (i, b) in bytes.into_iter().enumerate() {
                let at = (word + i as u64).checked_sub(first.0);
                if let Some(g) = at.and_then(|at| got.get_mut(at as usize)) {
                    *g = b;
                }
            }
        }
        self.out.compared += u.len;
        self.bench.sim.compare_memory(dma, want, &got);
        Ok(())
    }
}
