//! What a driver's call has mapped, as its events tell, entered in the ledger.

use tlproof_dma::Event;
use tlproof_pcie::DmaAddr;

use super::Testbench;

impl Testbench {
    /// Enters the coherent memory that a call has allocated, and what it has mapped unless it has
    /// undone that; returns the latter, in its order.
    pub(super) fn enter_mapped(
        &mut self,
        f: usize,
        call: &str,
        events: &[Event],
        stays: bool,
    ) -> Vec<(DmaAddr, u64)> {
        let (dev, bdf) = (self.functions[f].dev, self.functions[f].engine.bdf);
        let mut entered = Vec::new();
        for event in events {
            let (name, dma, size) = match *event {
                Event::DmaAlloc {
                    dma: Some(dma),
                    size,
                    ..
                } => {
                    let text = format!("{call}({bdf}): dma_alloc_coherent = {dma:#x}+{size}");
                    self.promise(dev, dma, text);
                    continue;
                }
                Event::DmaMapPhys {
                    dma: Some(dma),
                    size,
                    ..
                } => ("dma_map_phys", dma, size),
                Event::IovaLink {
                    iova, offset, size, ..
                } => ("dma_iova_link", iova.offset(offset), size),
                _ => continue,
            };
            if stays {
                let text = format!("{call}({bdf}): {name} = {dma:#x}+{size}");
                for (at, len) in self.pieces(dev, dma, size) {
                    self.promise(dev, at, text.clone());
                    entered.push((at, len));
                }
            }
        }
        entered
    }
}
