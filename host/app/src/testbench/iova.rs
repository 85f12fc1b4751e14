//! The two-step interface, link by link in the promise ledger.

use tlproof_dma::{Attrs, DeviceId, IovaState, MapError, Mapping};
use tlproof_golden::PromiseId;
use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::Testbench;

impl Testbench {
    /// `dma_iova_link` of one range after `dma_iova_try_alloc`; enter it with
    /// [`Testbench::iova_promise`] once synced.
    ///
    /// # Errors
    /// As the call.
    pub fn iova_link(
        &mut self,
        f: usize,
        state: &mut IovaState,
        phys: PhysAddr,
        offset: u64,
        size: u64,
        (dir, attrs): (Direction, Attrs),
    ) -> Result<(), MapError> {
        let dev = self.functions[f].dev;
        self.calls += 1;
        self.dma
            .dma_iova_link(&mut self.sim, dev, state, phys, offset, size, dir, attrs)
    }

    /// The mappings that make up a range: several where some of it was bounced.
    pub(crate) fn pieces(&self, dev: DeviceId, dma: DmaAddr, size: u64) -> Vec<(DmaAddr, u64)> {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < size {
            let at = dma.offset(done);
            let Some(m) = self.dma.describe(dev, at).filter(|m| m.dma == at) else {
                break;
            };
            pieces.push((at, m.size));
            done += m.size;
        }
        pieces
    }

    /// [`Testbench::revoke_begin`] of all mappings of a range.
    fn revoke_range(
        &mut self,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
    ) -> Vec<(Option<Mapping>, PromiseId)> {
        self.pieces(dev, dma, size)
            .into_iter()
            .flat_map(|(dma, size)| self.revoke_begin(dev, dma, size))
            .collect()
    }

    /// Enters the linked ranges of a state in the ledger.
    pub fn iova_promise(
        &mut self,
        f: usize,
        state: &IovaState,
        links: &[(u64, u64)],
        attrs: Attrs,
    ) {
        let dev = self.functions[f].dev;
        for (offset, size) in links {
            let call = format!(
                "dma_iova_link({}, iova={:#x}, offset={offset:#x}, size={size}, attrs={attrs})",
                self.functions[f].engine.bdf,
                state.addr()
            );
            for (dma, _) in self.pieces(dev, state.addr().offset(*offset), *size) {
                self.promise(dev, dma, call.clone());
            }
        }
    }

    /// `dma_iova_destroy`.
    pub fn iova_destroy(
        &mut self,
        f: usize,
        state: &mut IovaState,
        links: &[(u64, u64)],
        mapped: u64,
        (dir, attrs): (Direction, Attrs),
    ) {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let mut ending = Vec::new();
        for (offset, size) in links {
            ending.extend(self.revoke_range(dev, state.addr().offset(*offset), *size));
        }
        self.dma
            .dma_iova_destroy(&mut self.sim, dev, state, mapped, dir, attrs);
        self.revoke_end(ending);
    }

    /// `dma_iova_unlink` of each link, then `dma_iova_free`.
    pub fn iova_unlink_free(
        &mut self,
        f: usize,
        state: &mut IovaState,
        links: &[(u64, u64)],
        (dir, attrs): (Direction, Attrs),
    ) {
        let dev = self.functions[f].dev;
        for (offset, size) in links {
            self.calls += 1;
            let ending = self.revoke_range(dev, state.addr().offset(*offset), *size);
            self.dma
                .dma_iova_unlink(&mut self.sim, dev, state, *offset, *size, dir, attrs);
            self.revoke_end(ending);
        }
        self.dma.dma_iova_free(dev, state);
    }
}
