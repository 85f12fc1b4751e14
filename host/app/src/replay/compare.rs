//! The kernel's decisions beside ours, differences grouped by their reason.

use tlproof_dma::{Event, iommu::Prot};
use tlproof_pcie::PhysAddr;

use super::{
    decisions::{Row, SharedDecisions},
    join::{Mapped, Unmapped},
};
use crate::report::Share;

const PAGE: u64 = 4096;

pub use crate::report::Difference;

/// Comparisons that are counted by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `IOMMU_*` flags of a page-table entry.
    Prot,
    /// `DMA_ATTR_*` of a call, as the API's own event shows them.
    Attrs,
    /// An IOVA.
    Iova,
    /// Everything else.
    Other,
}

impl Kind {
    /// What is compared: its own name, or else what the comparison says of itself.
    const fn name(self, other: &str) -> &str {
        match self {
            Self::Prot => "prot",
            Self::Attrs => "attrs",
            Self::Iova => "IOVA",
            Self::Other => other,
        }
    }
}

/// Comparisons so far.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Decisions compared.
    pub compared: u64,
    /// Those that differ.
    pub differed: u64,
    /// Protections compared.
    pub prot: Share,
    /// Attributes compared.
    pub attrs: Share,
    /// IOVAs compared.
    pub iova: Share,
    /// Line of the operation that is being compared.
    pub line: u64,
    /// Its name.
    pub call: &'static str,
    /// Name of the trace, and where its rows go.
    pub rows: Option<(String, SharedDecisions)>,
    reasons: Vec<Difference>,
    notes: Vec<Difference>,
}

fn count(list: &mut Vec<Difference>, reason: &str, first: impl FnOnce() -> String) {
    match list.iter_mut().find(|d| d.reason == reason) {
        Some(d) => d.count += 1,
        None => list.push(Difference {
            reason: reason.to_owned(),
            count: 1,
            first: first(),
        }),
    }
}

impl Comparison {
    /// Compares one decision; `reason` says what it means when they differ.
    pub fn check<T: PartialEq>(
        &mut self,
        kernel: &T,
        ours: &T,
        reason: &str,
        show: impl Fn(&T) -> String,
    ) -> bool {
        self.check_kind(Kind::Other, kernel, ours, reason, show)
    }

    /// The same for a decision that is counted by itself.
    pub fn check_kind<T: PartialEq>(
        &mut self,
        kind: Kind,
        kernel: &T,
        ours: &T,
        reason: &str,
        show: impl Fn(&T) -> String,
    ) -> bool {
        self.compared += 1;
        let share = match kind {
            Kind::Prot => Some(&mut self.prot),
            Kind::Attrs => Some(&mut self.attrs),
            Kind::Iova => Some(&mut self.iova),
            Kind::Other => None,
        };
        if let Some(share) = share {
            share.compared += 1;
            share.agreed += u64::from(kernel == ours);
        }
        if let Some((trace, rows)) = &self.rows {
            let equal = kernel == ours;
            rows.borrow_mut().row(&Row {
                trace,
                line: self.line,
                call: self.call,
                what: kind.name(reason),
                kernel: &show(kernel),
                ours: &show(ours),
                equal,
                reason: if equal { "" } else { reason },
            });
        }
        if kernel == ours {
            return true;
        }
        self.differed += 1;
        let line = self.line;
        count(&mut self.reasons, reason, || {
            format!("line {line}: kernel {}, here {}", show(kernel), show(ours))
        });
        false
    }

    /// Something that is not compared or not replayed, and why.
    pub fn note(&mut self, why: &str, what: impl FnOnce() -> String) {
        let line = self.line;
        count(&mut self.notes, why, || match what() {
            what if what.is_empty() => format!("line {line}"),
            what => format!("line {line}: {what}"),
        });
    }

    /// Differences, most frequent first, then what was not compared.
    pub fn into_differences(mut self) -> Vec<Difference> {
        for list in [&mut self.reasons, &mut self.notes] {
            list.sort_by_key(|d| std::cmp::Reverse(d.count));
        }
        self.reasons.append(&mut self.notes);
        self.reasons
    }

    /// What a call that maps did inside. `phys` is the buffer's address in the capture and here.
    /// `mode` explains why there may be no translation here.
    pub fn mapped(&mut self, kernel: &Mapped, events: &[Event], phys: (PhysAddr, PhysAddr)) {
        let bounced: Vec<u64> = events
            .iter()
            .filter_map(|e| match e {
                Event::SwiotlbMap { size, .. } => Some(*size),
                _ => None,
            })
            .collect();
        let theirs: Vec<u64> = kernel.bounces.iter().map(|b| b.size).collect();
        self.check(
            &theirs,
            &bounced,
            "which parts of a buffer are bounced",
            |v| format!("{v:?}"),
        );

        let allocated = events.iter().find_map(|e| match e {
            Event::IovaAlloc { size, .. } => Some(*size),
            _ => None,
        });
        if let Some(alloc) = kernel.alloc {
            self.check(&Some(alloc.size), &allocated, "IOVA taken, in bytes", |v| {
                v.map_or("none".to_owned(), |v| v.to_string())
            });
        }

        let tables: Vec<_> = events
            .iter()
            .filter_map(|e| match e {
                Event::IommuMap {
                    iova,
                    phys,
                    size,
                    prot,
                    ok: true,
                    ..
                } => Some((*iova, *phys, *size, *prot)),
                _ => None,
            })
            .collect();
        if kernel.alloc.is_none() && kernel.tables.is_empty() && !tables.is_empty() {
            self.note(
                "not compared: the trace has no IOMMU events for a call",
                String::new,
            );
            return;
        }
        let sizes = |list: &[u64]| format!("{list:?}");
        let (theirs, ours): (Vec<u64>, Vec<u64>) = (
            kernel.tables.iter().map(|t| t.size).collect(),
            tables.iter().map(|t| t.2).collect(),
        );
        if !self.check(&theirs, &ours, "ranges put into the page table", |v| {
            sizes(v)
        }) {
            return;
        }
        for (t, (iova, at, _, prot)) in kernel.tables.iter().zip(&tables) {
            if let Some(theirs) = t.prot {
                let reason = prot_reason(theirs, prot.bits().into());
                let ours = u64::from(prot.bits());
                self.check_kind(Kind::Prot, &theirs, &ours, reason, |p| show_prot(*p));
            }
            let relative = |base: u64, a: u64| a.wrapping_sub(base);
            self.check(
                &relative(kernel.tables[0].iova.0, t.iova.0),
                &relative(tables[0].0, *iova),
                "place of a range in its IOVA",
                |v| format!("{v:#x}"),
            );
            // Slots are wherever there is room.
            let slot = kernel
                .bounces
                .iter()
                .any(|b| b.tlb.align_down(PAGE) == t.phys.align_down(PAGE));
            if !slot {
                self.check(
                    &relative(phys.0.align_down(PAGE).0, t.phys.0),
                    &relative(phys.1.align_down(PAGE).0, at.0),
                    "physical address put into the page table",
                    |v| format!("buffer + {:#x}", *v as i64),
                );
            }
        }
    }

    /// What a call that unmaps did inside. `strict` says that invalidation is compared.
    pub fn unmapped(&mut self, kernel: &Unmapped, events: &[Event], strict: bool) {
        let released: u64 = events
            .iter()
            .map(|e| match e {
                Event::SwiotlbUnmap { size, .. } => *size,
                _ => 0,
            })
            .sum();
        self.check(
            &kernel.bounces.iter().sum(),
            &released,
            "bytes of bounce slots released",
            u64::to_string,
        );
        let tables: Vec<_> = events
            .iter()
            .filter_map(|e| match e {
                Event::IommuUnmap { iova, size, .. } => Some((*iova, *size)),
                _ => None,
            })
            .collect();
        if kernel.tables.is_empty() && !tables.is_empty() {
            self.note(
                "not compared: the trace has no IOMMU events for a call",
                String::new,
            );
            return;
        }
        let theirs: Vec<u64> = kernel.tables.iter().map(|t| t.1).collect();
        let ours: Vec<u64> = tables.iter().map(|t| t.1).collect();
        self.check(&theirs, &ours, "ranges taken out of the page table", |v| {
            format!("{v:?}")
        });
        let syncs: Vec<_> = events
            .iter()
            .filter_map(|e| match e {
                Event::IotlbSync {
                    range: Some((first, last)),
                    ..
                } => Some((*first, *last)),
                _ => None,
            })
            .collect();
        if !strict || theirs.is_empty() {
            return;
        }
        // Without VT-d's event there is nothing to compare with.
        if kernel.flushed.is_empty() && !syncs.is_empty() {
            self.note(
                "not compared: the trace has no invalidation events",
                String::new,
            );
            return;
        }
        let lengths = |l: &[(u64, u64)]| l.iter().map(|(a, b)| b - a + 1).collect::<Vec<_>>();
        let flushed: Vec<_> = kernel.flushed.iter().map(|(a, b)| (a.0, b.0)).collect();
        self.check(
            &lengths(&flushed),
            &lengths(&syncs),
            "ranges invalidated before the unmap returns",
            |v| format!("{v:?}"),
        );
    }
}

/// Why protections differ.
fn prot_reason(kernel: u64, ours: u64) -> &'static str {
    let changed = |flag: Prot| (kernel ^ ours) & u64::from(flag.bits()) != 0;
    if changed(Prot::MMIO) {
        "memory type of a page-table entry: one of the two takes a peer's BAR for memory"
    } else if changed(Prot::CACHE) {
        "cacheability of a page-table entry"
    } else {
        "permissions of a page-table entry"
    }
}

fn show_prot(bits: u64) -> String {
    let known = Prot::from_bits_truncate(bits as u32);
    let names: Vec<&str> = known.iter_names().map(|(name, _)| name).collect();
    format!("{bits:#x} ({})", names.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::join::{TableMap, call::Bounce};
    use tlproof_dma::iommu::DomainId;
    use tlproof_pcie::{Bdf, DmaAddr};

    fn kernel(prot: u64) -> Mapped {
        Mapped {
            alloc: None,
            tables: vec![TableMap {
                iova: DmaAddr(0xffff_f000),
                phys: PhysAddr(0xf006_9000),
                size: 4096,
                prot: Some(prot),
            }],
            bounces: Vec::new(),
        }
    }

    fn ours(prot: Prot, phys: u64) -> Event {
        Event::IommuMap {
            domain: DomainId(1),
            iova: 0xfff0_0000,
            phys: PhysAddr(phys),
            size: 4096,
            prot,
            ok: true,
        }
    }

    const BUFFER: (PhysAddr, PhysAddr) = (PhysAddr(0xf006_9200), PhysAddr(0x4006_9200));

    #[test]
    fn equal_decisions_at_another_iova_and_bar() {
        let mut c = Comparison::default();
        let prot = Prot::READ | Prot::MMIO;
        c.mapped(&kernel(0x11), &[ours(prot, 0x4006_9000)], BUFFER);
        assert_eq!((c.compared > 3, c.differed), (true, 0));
        assert!(c.into_differences().is_empty());
    }

    #[test]
    fn every_kind_of_difference_is_seen() {
        let prot = Prot::READ | Prot::MMIO;
        let differed = |kernel: &Mapped, events: &[Event]| {
            let mut c = Comparison::default();
            c.mapped(kernel, events, BUFFER);
            c.differed
        };
        assert_eq!(differed(&kernel(0x5), &[ours(prot, 0x4006_9000)]), 1);
        assert_eq!(differed(&kernel(0x15), &[ours(prot, 0x4006_9000)]), 1);
        assert_eq!(differed(&kernel(0x13), &[ours(prot, 0x4006_9000)]), 1);
        assert_eq!(differed(&kernel(0x11), &[ours(prot, 0x4006_a000)]), 1);
        assert_eq!(differed(&kernel(0x11), &[]), 1);
        let bounced = Mapped {
            bounces: vec![Bounce {
                phys: PhysAddr(1),
                size: 8,
                tlb: PhysAddr(2),
            }],
            ..Mapped::default()
        };
        assert_eq!(differed(&bounced, &[]), 1);
        let slot = Event::SwiotlbMap {
            dev: Bdf(0),
            phys: PhysAddr(1),
            size: 8,
            tlb: PhysAddr(0x800),
        };
        assert_eq!(differed(&bounced, &[slot]), 0);
    }

    #[test]
    fn unmap_is_compared_by_length() {
        let kernel = Unmapped {
            tables: vec![(DmaAddr(0xffff_e000), 0x2000)],
            flushed: vec![(DmaAddr(0xffff_e000), DmaAddr(0xffff_ffff))],
            bounces: vec![512],
        };
        let events = |size: u64, last: u64| {
            vec![
                Event::IommuUnmap {
                    domain: DomainId(1),
                    iova: 0x1000,
                    size,
                    unmapped: size,
                },
                Event::IotlbSync {
                    domain: DomainId(1),
                    range: Some((0x1000, last)),
                },
                Event::SwiotlbUnmap {
                    dev: Bdf(0),
                    tlb: PhysAddr(0),
                    size: 512,
                    dir: tlproof_pcie::Direction::FromDevice,
                },
            ]
        };
        for (size, last, want) in [
            (0x2000, 0x2fff, 0),
            (0x1000, 0x2fff, 1),
            (0x2000, 0x1fff, 1),
        ] {
            let mut c = Comparison::default();
            c.unmapped(&kernel, &events(size, last), true);
            assert_eq!(c.differed, want, "{size:#x} {last:#x}");
        }
    }

    #[test]
    fn reasons_are_counted_and_keep_their_first_example() {
        let mut c = Comparison {
            line: 7,
            ..Comparison::default()
        };
        c.check(&1, &2, "a", i32::to_string);
        c.line = 8;
        c.check(&1, &3, "a", i32::to_string);
        c.note("n", || "w".to_owned());
        let mut bare = Comparison {
            line: 20,
            ..Comparison::default()
        };
        bare.note("n", String::new);
        assert_eq!(bare.into_differences()[0].first, "line 20");
        let d = c.into_differences();
        assert_eq!(
            (d[0].count, d[0].first.as_str()),
            (2, "line 7: kernel 1, here 2")
        );
        assert_eq!(d[1].first, "line 8: w");
    }
}
