//! Flush queues are emptied where the kernel did.

use tlproof_dma::Attach;

use super::Replayer;
use crate::{
    replay::{join::FlushPart, machine::ENDPOINTS, target::Target},
    trace::Device,
};

const FULL: &str = "whether a ring of a flush queue is full";

impl<T: Target> Replayer<'_, T> {
    /// Repeats a flush of the domain of `devices`, or of all domains if it is not known whose.
    pub(super) fn flush(&mut self, devices: &[Device], part: FlushPart) {
        if part == FlushPart::Full {
            // The unmap before has done it, if our ring was as full.
            let ours = self.full > 0;
            self.full = self.full.saturating_sub(1);
            self.comparison.check(&true, &ours, FULL, show_full);
            if ours {
                return;
            }
        }
        for f in 0..ENDPOINTS {
            let here = |d: &Device| self.plan.endpoints.get(d) == Some(&f);
            if self.plan.roles[f].attach != Attach::Lazy
                || !(devices.is_empty() || devices.iter().any(here))
            {
                continue;
            }
            if part != FlushPart::End {
                self.target.flush_begin(f);
            }
            if part != FlushPart::Begin {
                self.target.flush_end(f);
            }
        }
        // These are not full rings.
        self.target.parts().0.trace.take();
    }

    /// Rings that were full here alone.
    pub(super) fn compare_full_rings(&mut self) {
        for _ in 0..std::mem::take(&mut self.full) {
            self.comparison.check(&false, &true, FULL, show_full);
        }
    }
}

fn show_full(full: &bool) -> String {
    if *full { "full" } else { "not full" }.to_owned()
}
