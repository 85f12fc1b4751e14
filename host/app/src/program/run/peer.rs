//! Mappings of the memory of peers.

use tlproof_dma::{Attrs, MapError, SgEntry, p2pdma::MapType};
use tlproof_pcie::{Direction, PhysAddr};

use super::{
    super::{
        Id, PeerVia,
        drivers::{Kind, Object, Span},
    },
    PEER_MEMORY, Runner,
};
use crate::testbench::Error;

impl Runner {
    pub(super) fn map_peer(
        &mut self,
        id: Id,
        dev: usize,
        peer: usize,
        (offset, size): (u32, u32),
        dir: Direction,
        via: PeerVia,
    ) -> Result<(), Error> {
        let (f, peer) = (self.device(dev), self.device(peer));
        if self.objects.contains_key(&id) || f == peer {
            return Ok(());
        }
        let offset = u64::from((offset % PEER_MEMORY) & !3);
        let room = u64::from(PEER_MEMORY) - offset;
        let size = (u64::from(size.max(4)) & !3).min(room);
        let phys = self.bench.functions[peer].engine.memory.offset(offset);
        let (kind, spans) = match self.bench.peer_map_type(f, peer) {
            MapType::BusAddr => {
                let dma = self.bench.bus_address(f, phys, size);
                (Kind::Bus, vec![Span { dma, len: size }])
            }
            MapType::ThruHostBridge => match self.map_through(f, phys, size, dir, via) {
                Ok(Some(mapped)) => mapped,
                Ok(None) => return Ok(()),
                Err(e) => {
                    self.refused(f, &e, "peer memory");
                    return Ok(());
                }
            },
            _ => {
                self.out.refused += 1;
                return Ok(());
            }
        };
        self.insert(id, Object::of_peer(f, dir, kind, spans));
        Ok(())
    }

    /// Peer memory through the host bridge.
    pub(super) fn map_through(
        &mut self,
        f: usize,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        via: PeerVia,
    ) -> Result<Option<(Kind, Vec<Span>)>, MapError> {
        let attrs = Attrs::MMIO;
        let one = |dma| vec![Span { dma, len: size }];
        Ok(Some(match via {
            PeerVia::Phys => {
                let dma = self.bench.map_phys(f, phys, size, dir, attrs)?;
                (Kind::Phys { attrs }, one(dma))
            }
            PeerVia::Resource => {
                let dma = self.bench.map_resource(f, phys, size, dir)?;
                (Kind::Resource, one(dma))
            }
            PeerVia::Sg => {
                let mut list = vec![SgEntry::new(phys, size)];
                let attrs = Attrs::empty();
                self.bench.map_sg(f, &mut list, dir, attrs)?;
                let dma = list[0].dma_address;
                (Kind::Sg { list, attrs }, one(dma))
            }
            PeerVia::Iova => {
                let d = self.bench.functions[f].dev;
                let Some(mut state) = self.bench.dma.dma_iova_try_alloc(d, phys, size) else {
                    return Ok(None);
                };
                let linked = self
                    .bench
                    .iova_link(f, &mut state, phys, 0, size, (dir, attrs))
                    .and_then(|()| self.bench.dma.dma_iova_sync(d, &state, 0, size));
                if let Err(e) = linked {
                    self.bench.dma.dma_iova_free(d, &mut state);
                    return Err(e);
                }
                let links = vec![(0, size)];
                self.bench.iova_promise(f, &state, &links, attrs);
                let spans = one(state.addr());
                let kind = Kind::Iova {
                    state,
                    links,
                    attrs,
                    destroy: true,
                };
                (kind, spans)
            }
        }))
    }
}
