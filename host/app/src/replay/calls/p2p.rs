//! How peers are reached.

use tlproof_dma::p2pdma::MapType;
use tlproof_pcie::{Direction, config::ConfigSpace};

use super::{PAGE, Replayer};
use crate::{
    replay::{machine::Place, target::Target, traffic::Span},
    testbench::Error,
    trace::P2pMap,
};

impl<T: Target> Replayer<'_, T> {
    pub(super) fn p2p(&mut self, f: usize, page: u64, kernel: P2pMap) -> Result<(), Error> {
        let Some((phys, owner)) = self.plan.page(page) else {
            self.comparison.note(
                "not compared: a peer's page that is not in the array without KASLR",
                || format!("{page:#x}"),
            );
            return Ok(());
        };
        let Some(peer) = self.plan.endpoints.get(&owner).copied() else {
            return Ok(());
        };
        let provider = self.target.provider(peer);
        let client = self.target.bdf(f);
        let (dma, m) = self.target.parts();
        let config: &mut dyn ConfigSpace = m;
        let ours = dma.p2pdma.map_type(config, provider, client);
        self.comparison.check(
            &kernel.number(),
            &u32::from(ours as u8),
            "how a peer is reached",
            |n| {
                match n {
                    2 => "not at all",
                    3 => "by its bus address",
                    4 => "through the host bridge",
                    _ => "unknown",
                }
                .to_owned()
            },
        );
        // No function reaches itself over the bus.
        if ours == MapType::BusAddr && peer != f && self.traffic.one_in(4) {
            let Place::Peer(_, here) = self.place(phys, PAGE) else {
                return Ok(());
            };
            let dma = self.target.bus_address(f, here, PAGE);
            let job = self.job();
            let wish = self.traffic.wish(PAGE, Direction::Bidirectional);
            let spans = [Span { dma, len: PAGE }];
            self.traffic
                .start(self.target, (f, job), &spans, &[], wish, false)?;
            self.traffic.leave(self.target, (f, job), &spans)?;
            self.target.settle()?;
            self.target.end_bus_address(f, dma, PAGE);
        }
        Ok(())
    }
}
