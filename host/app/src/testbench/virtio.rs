//! Split virtqueues, ring and buffers entered in the ledger.

use std::collections::BTreeMap;

use tlproof_dma::virtio_ring::{Buffers, Features, Layout, Used, Virtqueue, VirtqueueError};
use tlproof_dma::{Event, MapError};
use tlproof_pcie::DmaAddr;

use super::Testbench;

/// A queue of a device that goes through the mapping API.
pub struct Virtio {
    /// The driver's side.
    pub queue: Virtqueue,
    ring: Vec<(DmaAddr, u64)>,
    chains: BTreeMap<u64, Vec<(DmaAddr, u64)>>,
}

impl Testbench {
    /// `vring_create_virtqueue_split` with `VIRTIO_F_ACCESS_PLATFORM`.
    ///
    /// # Errors
    /// As the call.
    pub fn virtio_new(
        &mut self,
        f: usize,
        layout: Layout,
        indirect_desc: bool,
    ) -> Result<Virtio, MapError> {
        let dev = self.functions[f].dev;
        let features = Features {
            access_platform: true,
            indirect_desc,
        };
        self.calls += 1;
        let mark = self.dma.trace.mark();
        let queue = Virtqueue::new(&mut self.dma, &mut self.sim, dev, layout, features);
        let events = self.dma.trace.since(mark);
        self.enter_mapped(f, "vring_create_virtqueue", &events, queue.is_ok());
        let allocated = events.iter().filter_map(|e| match *e {
            Event::DmaAlloc {
                dma: Some(dma),
                size,
                ..
            } => Some((dma, size)),
            _ => None,
        });
        Ok(Virtio {
            queue: queue?,
            ring: allocated.collect(),
            chains: BTreeMap::new(),
        })
    }

    /// `virtqueue_add_sgs`: a chain of buffers for the device, named `token`.
    ///
    /// # Errors
    /// As the call.
    pub fn virtio_add(
        &mut self,
        f: usize,
        v: &mut Virtio,
        buffers: Buffers<'_>,
        token: u64,
    ) -> Result<(), VirtqueueError> {
        self.calls += 1;
        let mark = self.dma.trace.mark();
        let added = v.queue.add(&mut self.dma, &mut self.sim, buffers, token);
        let events = self.dma.trace.since(mark);
        let entered = self.enter_mapped(f, "virtqueue_add", &events, added.is_ok());
        v.chains.insert(token, entered);
        added
    }

    /// `virtqueue_get_buf`, the device being done with the chain `token`.
    ///
    /// # Errors
    /// As the call.
    pub fn virtio_get(
        &mut self,
        f: usize,
        v: &mut Virtio,
        token: u64,
    ) -> Result<Option<Used>, VirtqueueError> {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let mut ending = Vec::new();
        for (dma, size) in v.chains.remove(&token).unwrap_or_default() {
            ending.extend(self.revoke_begin(dev, dma, size));
        }
        let used = v.queue.get_buf(&mut self.dma, &mut self.sim);
        self.revoke_end(ending);
        used
    }

    /// `vring_del_virtqueue`.
    pub fn virtio_delete(&mut self, f: usize, v: Virtio) {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let mut ending = Vec::new();
        for (dma, size) in v.chains.into_values().flatten().chain(v.ring) {
            ending.extend(self.revoke_begin(dev, dma, size));
        }
        v.queue.delete(&mut self.dma, &mut self.sim);
        self.revoke_end(ending);
    }
}
