//! Probes of the two-step interface, `dma_iova_*`.

use super::{
    call::{Call, Mapped, Unmapped},
    pending::{At, Pending},
};
use crate::trace::Event;

impl Pending {
    /// The calls of the two-step interface. Other events are given back.
    pub(super) fn two_step_call(
        &mut self,
        here: At,
        event: Event,
        mut emit: impl FnMut(At, Call),
    ) -> Option<Event> {
        match event {
            Event::IovaTryAlloc {
                dev,
                state,
                phys,
                size,
            } => {
                self.try_alloc = Some((
                    here,
                    Call::TryAlloc {
                        dev,
                        state,
                        phys,
                        size,
                        iova: None,
                        did: Mapped::default(),
                    },
                ));
            }
            Event::IovaTryAllocRet { ret, iova, .. } => {
                let (at, mut call) = self.try_alloc.take()?;
                let alloc = self.alloc.take();
                if let Call::TryAlloc {
                    dev,
                    iova: got,
                    did,
                    ..
                } = &mut call
                {
                    *got = ret.then_some(iova);
                    did.alloc = alloc.as_ref().filter(|a| a.1 == *dev).map(|a| a.2);
                }
                emit(alloc.map_or(at, |a| a.0), call);
            }
            Event::IovaLink {
                dev,
                state,
                phys,
                offset,
                size,
                dir,
                attrs,
                ..
            } => {
                self.link = Some((
                    here,
                    Call::Link {
                        dev,
                        state,
                        phys,
                        offset,
                        size,
                        dir,
                        attrs,
                        ret: 0,
                        did: Mapped::default(),
                    },
                ));
            }
            Event::IovaLinkRet { ret: result, .. } => {
                let (at, mut call) = self.link.take()?;
                if let Call::Link { ret, did, .. } = &mut call {
                    *ret = result;
                    // All entries since the link began, whatever their address.
                    let tables = self.tables.extract_if(.., |(line, _)| *line > at.line());
                    did.tables = tables.map(|(_, t)| t).collect();
                    did.bounces = std::mem::take(&mut self.bounces);
                }
                emit(at, call);
            }
            Event::IovaSync {
                dev,
                state,
                offset,
                size,
                ..
            } => emit(
                here,
                Call::IovaSync {
                    dev,
                    state,
                    offset,
                    size,
                },
            ),
            Event::IovaUnlink {
                dev,
                state,
                offset,
                size,
                dir,
                attrs,
                ..
            } => emit(
                here,
                Call::Unlink {
                    dev,
                    state,
                    offset,
                    size,
                    dir,
                    attrs,
                },
            ),
            Event::IovaFree { dev, state, .. } => emit(here, Call::IovaFree { dev, state }),
            Event::IovaDestroy {
                dev,
                state,
                iova,
                isize,
                mapped_len,
                dir,
                attrs,
            } => {
                // What an unfinished call has left belongs to nobody.
                let _ = self.unmapped();
                let call = Call::Destroy {
                    dev,
                    state,
                    mapped: mapped_len,
                    bounced: isize >> 63 != 0,
                    dir,
                    attrs,
                    did: Unmapped::default(),
                };
                self.destroy = Some((here, call, iova));
            }
            other => return Some(other),
        }
        None
    }
}
