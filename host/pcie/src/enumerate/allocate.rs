//! Addresses: bottom up, how much each bridge needs; top down, where it stands.

use super::{EnumerateError, Result, WINDOW_GRANULE};
use crate::{
    BusAddr, MemoryMap,
    tree::{Bar, BarKind, Tree, Window},
};

/// The two kinds of address that are allocated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Below 4 GiB, through the non-prefetchable windows.
    Low,
    /// Anywhere, through the 64-bit prefetchable windows.
    Any,
}

/// What stands in a window: a BAR (function, position in its list), or the window of a bridge
/// below.
#[derive(Clone, Copy)]
enum Owner {
    Bar(usize, usize),
    Bridge(usize),
}

/// An owner with its alignment and bytes.
#[derive(Clone, Copy)]
struct Item {
    owner: Owner,
    align: u64,
    size: u64,
}

pub(super) struct Allocator<'a> {
    tree: &'a mut Tree,
    map: &'a MemoryMap,
    /// Alignment and bytes of each bridge's windows, `Low` and `Any`; 0 bytes is closed.
    windows: Vec<[(u64, u64); 2]>,
}

impl<'a> Allocator<'a> {
    pub(super) fn new(tree: &'a mut Tree, map: &'a MemoryMap) -> Self {
        let windows = vec![[(0, 0); 2]; tree.nodes.len()];
        Self { tree, map, windows }
    }

    pub(super) fn run(mut self) -> Result<()> {
        // Bottom up: a function stands after the bridge above it.
        for i in (0..self.tree.nodes.len()).rev() {
            if self.tree.nodes[i].bridge.is_none() {
                continue;
            }
            for kind in [Kind::Low, Kind::Any] {
                let items = self.items(Some(i), kind);
                let Some(first) = items.first() else {
                    continue;
                };
                let align = first.align.max(WINDOW_GRANULE);
                let size = end_of(&items, 0)
                    .and_then(|end| end.checked_next_multiple_of(WINDOW_GRANULE))
                    .ok_or(no_space(kind, u64::MAX))?;
                self.windows[i][kind as usize] = (align, size);
            }
        }
        self.place_all()
    }

    /// Top down: into the aperture in bus addresses, 32-bit kinds first since they cannot go
    /// elsewhere; 64-bit kinds above 4 GiB if there is room.
    fn place_all(&mut self) -> Result<()> {
        const LOW_END: u64 = 1 << 32;
        let first = self.map.to_bus(self.map.aperture.base).0;
        let last = self.map.to_bus(self.map.aperture.last).0;
        // An aperture that wraps around the end of the bus address space has no usable part.
        let end = if last < first {
            first
        } else {
            last.saturating_add(1)
        };
        let low = self.items(None, Kind::Low);
        let any = self.items(None, Kind::Any);
        let fit = |items: &[Item], base: u64, end: u64| {
            end_of(items, base).filter(|&e| items.is_empty() || e <= end)
        };
        let needed = |items: &[Item]| end_of(items, 0).unwrap_or(u64::MAX);
        let low_end =
            fit(&low, first, end.min(LOW_END)).ok_or_else(|| no_space(Kind::Low, needed(&low)))?;
        let above = first.max(LOW_END);
        let any_base = if fit(&any, above, end).is_some() {
            above
        } else {
            let base = low_end.max(first);
            fit(&any, base, end).ok_or_else(|| no_space(Kind::Any, needed(&any)))?;
            base
        };
        self.place(&low, Kind::Low, first);
        self.place(&any, Kind::Any, any_base);
        Ok(())
    }

    /// What stands directly on the secondary bus of `bridge` (or on bus 0), the most aligned
    /// first, so that packing leaves no holes but at the end of a bridge's window.
    fn items(&self, bridge: Option<usize>, kind: Kind) -> Vec<Item> {
        let mut items = Vec::new();
        for (n, node) in self.tree.nodes.iter().enumerate() {
            if node.parent != bridge {
                continue;
            }
            for (b, bar) in node.bars.iter().enumerate() {
                if self.kind(n, bar) == Some(kind) {
                    items.push(Item {
                        owner: Owner::Bar(n, b),
                        align: bar.size,
                        size: bar.size,
                    });
                }
            }
            let (align, size) = self.windows[n][kind as usize];
            if size != 0 {
                items.push(Item {
                    owner: Owner::Bridge(n),
                    align,
                    size,
                });
            }
        }
        items.sort_by_key(|i| std::cmp::Reverse(i.align));
        items
    }

    /// Which window a BAR needs. A 64-bit address reaches a function behind a bridge only
    /// through prefetchable windows; on bus 0 there is no window.
    fn kind(&self, node: usize, bar: &Bar) -> Option<Kind> {
        let BarKind::Memory { wide, prefetchable } = bar.kind else {
            return None;
        };
        let mut above = self.tree.nodes[node].parent;
        let mut reachable = prefetchable || above.is_none();
        while let Some(i) = above {
            reachable &= self.tree.nodes[i].bridge.is_some_and(|b| b.wide_prefetch);
            above = self.tree.nodes[i].parent;
        }
        Some(if wide && reachable {
            Kind::Any
        } else {
            Kind::Low
        })
    }

    fn place(&mut self, items: &[Item], kind: Kind, base: u64) {
        let mut at = base;
        for item in items {
            // Cannot overflow: `end_of` has walked the same way.
            let start = at.next_multiple_of(item.align);
            at = start + item.size;
            match item.owner {
                Owner::Bar(n, b) => {
                    let bus = BusAddr(start);
                    let bar = &mut self.tree.nodes[n].bars[b];
                    bar.bus = bus;
                    bar.phys = self.map.to_phys(bus);
                }
                Owner::Bridge(n) => {
                    let window = Window {
                        base: BusAddr(start),
                        limit: BusAddr(at - 1),
                    };
                    if let Some(bridge) = &mut self.tree.nodes[n].bridge {
                        match kind {
                            Kind::Low => bridge.memory = Some(window),
                            Kind::Any => bridge.prefetchable = Some(window),
                        }
                    }
                    self.place(&self.items(Some(n), kind), kind, start);
                }
            }
        }
    }
}

/// First address behind `items` when they are placed from `base` on in order.
fn end_of(items: &[Item], base: u64) -> Option<u64> {
    items.iter().try_fold(base, |at, item| {
        at.checked_next_multiple_of(item.align)?
            .checked_add(item.size)
    })
}

fn no_space(kind: Kind, needed: u64) -> EnumerateError {
    EnumerateError::NoApertureSpace {
        needed,
        kind: match kind {
            Kind::Low => "32-bit",
            Kind::Any => "64-bit prefetchable",
        },
    }
}
