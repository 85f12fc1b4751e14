//! Our results beside the kernel's.

use tlproof_dma::{Attrs, Event, MapError, iommu::IommuError};
use tlproof_pcie::{DmaAddr, PhysAddr};

use super::{NO_DOMAIN, Replayer, SHARED};
use crate::{
    replay::{
        compare::Kind,
        join::{Mapped, Unmapped},
        target::Target,
    },
    testbench::Error,
    trace,
};

fn show_dma(dma: &DmaAddr) -> String {
    format!("{dma:#x}")
}

/// Whether an error says that the machine, not the caller, is at fault.
const fn is_hardware(e: &MapError) -> bool {
    matches!(
        e,
        MapError::Iommu(IommuError::Io(_) | IommuError::Timeout(_) | IommuError::Busy)
    )
}

impl<T: Target> Replayer<'_, T> {
    /// Compares whether a call that maps succeeded; the value, if both did.
    pub(super) fn outcome<V>(
        &mut self,
        kernel: bool,
        ours: Result<V, MapError>,
    ) -> Result<Option<V>, Error> {
        match ours {
            Ok(v) => {
                self.comparison.check(
                    &kernel,
                    &true,
                    "a call that failed in the kernel succeeds here",
                    |ok| if *ok { "succeeds" } else { "fails" }.to_owned(),
                );
                Ok(Some(v))
            }
            Err(e) if is_hardware(&e) => Err(e.into()),
            Err(e) => {
                let reason = format!("the call is refused here: {e}");
                self.comparison.check(&kernel, &false, &reason, |ok| {
                    if *ok { "succeeds" } else { "fails" }.to_owned()
                });
                Ok(None)
            }
        }
    }

    /// Compares what a call that maps did inside.
    pub(super) fn compare_mapped(&mut self, f: usize, kernel: &Mapped, phys: (PhysAddr, PhysAddr)) {
        let events = self.events();
        if self.identity_here(f) {
            self.comparison
                .check(&true, &false, NO_DOMAIN, |translated| {
                    if *translated {
                        "translated"
                    } else {
                        "not translated"
                    }
                    .to_owned()
                });
            return;
        }
        self.comparison.mapped(kernel, &events, phys);
    }

    /// Compares an IOVA, if the two allocators have seen the same requests.
    pub(super) fn compare_iova(&mut self, f: usize, kernel: DmaAddr, ours: DmaAddr) {
        if !self.translated(f) {
            return;
        }
        if self.plan.roles[f].devices > 1 {
            let devices = self.plan.roles[f].devices;
            self.comparison
                .note(SHARED, || format!("{devices} devices on endpoint {f}"));
            return;
        }
        let reason = "IOVA: another free range is taken";
        self.comparison
            .check_kind(Kind::Iova, &kernel, &ours, reason, show_dma);
    }

    pub(super) fn compare_unmapped(&mut self, f: usize, kernel: &Unmapped) {
        let events = self.events();
        if self.identity_here(f) {
            return;
        }
        let strict = self.plan.roles[f].attach == tlproof_dma::Attach::Strict
            || self.plan.roles[f].untrusted;
        self.comparison.unmapped(kernel, &events, strict);
    }

    /// Whether an address without translation is the buffer's.
    pub(super) fn compare_direct(
        &mut self,
        f: usize,
        kernel: (PhysAddr, DmaAddr),
        ours: (PhysAddr, DmaAddr),
        bounced: bool,
    ) {
        if self.plan.roles[f].translated() || bounced {
            return;
        }
        self.comparison.check(
            &kernel.1.0.wrapping_sub(kernel.0.0),
            &ours.1.0.wrapping_sub(ours.0.0),
            "DMA address without translation",
            |v| format!("physical address + {v:#x}"),
        );
    }

    /// The kernel does not trace a sync that it skips.
    pub(super) fn compare_sync(&mut self) {
        let events = self.events();
        let done = events.iter().any(|e| {
            matches!(
                e,
                Event::SyncSingleForCpu { .. }
                    | Event::SyncSingleForDevice { .. }
                    | Event::SyncSgForCpu { .. }
                    | Event::SyncSgForDevice { .. }
            )
        });
        self.comparison
            .check(&true, &done, "whether a sync can be skipped", |done| {
                if *done { "done" } else { "skipped" }.to_owned()
            });
    }

    /// Compares the attributes that our event shows with those of the kernel's event.
    pub(super) fn compare_attrs(&mut self, event: &Event) {
        if let Some((call, ours)) = traced_attrs(event)
            && let Some((_, theirs)) = self.attrs.take_if(|(name, _)| *name == call)
        {
            let ours = trace::Attrs(ours.bits().into());
            self.comparison
                .check_kind(Kind::Attrs, &theirs, &ours, "attributes of a call", |a| {
                    format!("{call} with {:#x} ({a})", a.0)
                });
        }
    }
}

/// Name and attributes of the call that an event of ours is about.
const fn traced_attrs(event: &Event) -> Option<(&'static str, Attrs)> {
    match event {
        Event::DmaMapPhys { attrs, .. } => Some(("dma_map_phys", *attrs)),
        Event::DmaUnmapPhys { attrs, .. } => Some(("dma_unmap_phys", *attrs)),
        Event::DmaMapSg { attrs, .. } => Some(("dma_map_sg", *attrs)),
        Event::DmaUnmapSg { attrs, .. } => Some(("dma_unmap_sg", *attrs)),
        Event::DmaAlloc { attrs, .. } => Some(("dma_alloc", *attrs)),
        Event::IovaLink { attrs, .. } => Some(("dma_iova_link", *attrs)),
        Event::IovaUnlink { attrs, .. } => Some(("dma_iova_unlink", *attrs)),
        Event::IovaDestroy { attrs, .. } => Some(("dma_iova_destroy", *attrs)),
        _ => None,
    }
}
