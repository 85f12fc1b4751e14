//! Memory from the API that the CPU and the device hand to each other by syncs, entered in the
//! ledger.

use tlproof_dma::{
    Attrs, MapError,
    noncoherent::{Noncontiguous, Pages},
};
use tlproof_pcie::Direction;

use super::Testbench;

impl Testbench {
    /// `dma_alloc_pages`, entered in the ledger.
    ///
    /// # Errors
    /// As the call.
    pub fn alloc_pages(&mut self, f: usize, size: u64, dir: Direction) -> Result<Pages, MapError> {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let pages = self.dma.dma_alloc_pages(&mut self.sim, dev, size, dir)?;
        let call = format!(
            "dma_alloc_pages({}, size={size}, dir={}) = {:#x}",
            self.functions[f].engine.bdf,
            dir.name(),
            pages.dma
        );
        self.promise(dev, pages.dma, call);
        Ok(pages)
    }

    /// `dma_free_pages`.
    pub fn free_pages(&mut self, f: usize, pages: Pages) {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let ending = self.revoke_begin(dev, pages.dma, pages.size);
        self.dma.dma_free_pages(&mut self.sim, dev, pages);
        self.revoke_end(ending);
    }

    /// `dma_alloc_noncontiguous`, entered in the ledger.
    ///
    /// # Errors
    /// As the call.
    pub fn alloc_noncontiguous(
        &mut self,
        f: usize,
        size: u64,
        dir: Direction,
    ) -> Result<Noncontiguous, MapError> {
        let (dev, none) = (self.functions[f].dev, Attrs::empty());
        self.calls += 1;
        let memory = self
            .dma
            .dma_alloc_noncontiguous(&mut self.sim, dev, size, dir, none)?;
        let call = format!(
            "dma_alloc_noncontiguous({}, size={size}, dir={}) = {:#x}",
            self.functions[f].engine.bdf,
            dir.name(),
            memory.dma()
        );
        self.promise(dev, memory.dma(), call);
        Ok(memory)
    }

    /// `dma_free_noncontiguous`.
    pub fn free_noncontiguous(&mut self, f: usize, memory: Noncontiguous) {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let ending = self.revoke_begin(dev, memory.dma(), memory.size);
        self.dma.dma_free_noncontiguous(&mut self.sim, dev, memory);
        self.revoke_end(ending);
    }
}
