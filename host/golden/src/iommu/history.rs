//! What memory and `ddtp` were, and which invalidations have been completed since.
//!
//! Time is a counter of events: each change of a word, each register access that matters and each
//! completion has a number of its own.

use rustc_hash::{FxHashMap, FxHashSet};
use tlproof_pcie::PhysAddr;

use super::command::Scope;
use super::translator::Overlay;
use super::views::{Main, Noting, Versions};

/// Changes of words that are kept. When twice as many have come together, those of pages that
/// were never walked are dropped first, then the oldest.
pub(super) const CHANGES: usize = 1 << 18;

/// Invalidations that are kept; forgetting the oldest makes the judge lenient, never unjust.
const INVALIDATIONS: usize = 1 << 16;

#[derive(Clone, Copy)]
struct Change {
    at: u64,
    addr: u64,
    old: u64,
}

#[derive(Clone, Copy)]
struct Invalidation {
    submitted: u64,
    completed: Option<u64>,
    scope: Scope,
}

/// An earlier value of `ddtp`.
#[derive(Clone, Copy)]
pub(super) struct OldDdtp {
    pub value: u64,
    pub replaced: u64,
    /// When a read first showed the write to be done.
    pub settled: Option<u64>,
}

/// The undo log and the invalidations.
#[derive(Default)]
pub(super) struct History {
    now: u64,
    changes: Vec<Change>,
    /// For the first `indexed` changes: by address, time and old value, ascending.
    index: FxHashMap<u64, Vec<(u64, u64)>>,
    indexed: usize,
    invalidations: Vec<Invalidation>,
    pub(super) ddtp: Vec<OldDdtp>,
    tables: TablePages,
}

impl History {
    /// The number that the next event gets.
    pub const fn now(&self) -> u64 {
        self.now
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now - 1
    }

    pub fn memory_changed(&mut self, addr: PhysAddr, old: u64) {
        let at = self.tick();
        self.changes.push(Change {
            at,
            addr: addr.0,
            old,
        });
        if self.changes.len() >= 2 * CHANGES {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let recent = self.changes[self.changes.len() - CHANGES / 2].at;
        let tables = &self.tables;
        self.changes
            .retain(|c| c.at >= recent || tables.contains(c.addr));
        let excess = self.changes.len().saturating_sub(CHANGES);
        self.changes.drain(..excess);
        self.index.clear();
        self.indexed = 0;
    }

    /// Changes of the word at `addr`: time and old value, ascending.
    pub fn changes(&self, addr: u64) -> &[(u64, u64)] {
        self.index.get(&addr).map_or(&[], Vec::as_slice)
    }

    fn build_index(&mut self) {
        for change in &self.changes[self.indexed..] {
            self.index
                .entry(change.addr)
                .or_default()
                .push((change.at, change.old));
        }
        self.indexed = self.changes.len();
    }

    pub fn ddtp_changed(&mut self, old: u64) {
        let replaced = self.tick();
        self.ddtp.push(OldDdtp {
            value: old,
            replaced,
            settled: None,
        });
        if self.ddtp.len() > 64 {
            self.ddtp.remove(0);
        }
    }

    /// A read of `ddtp` returned `busy` = 0.
    pub fn ddtp_settled(&mut self) {
        let now = self.tick();
        for old in &mut self.ddtp {
            old.settled.get_or_insert(now);
        }
    }

    /// An invalidation was put into the queue; the result names it to [`Self::completed`].
    pub fn submitted(&mut self, scope: Scope) -> u64 {
        let submitted = self.tick();
        if self.invalidations.len() >= 2 * INVALIDATIONS {
            self.invalidations.drain(..INVALIDATIONS);
        }
        self.invalidations.push(Invalidation {
            submitted,
            completed: None,
            scope,
        });
        submitted
    }

    /// A fence that came after these invalidations was seen to be completed.
    pub fn completed(&mut self, names: &[u64]) {
        let now = self.tick();
        for name in names {
            if let Ok(i) = self
                .invalidations
                .binary_search_by_key(name, |i| i.submitted)
            {
                self.invalidations[i].completed.get_or_insert(now);
            }
        }
    }

    /// Whether a completed invalidation stands between the time at which a version became
    /// obsolete and a request.
    pub fn dropped(&self, obsolete: u64, since: u64, covers: impl Fn(&Scope) -> bool) -> bool {
        self.invalidations
            .iter()
            .rev()
            .take_while(|i| i.submitted > obsolete)
            .any(|i| i.completed.is_some_and(|c| c < since) && covers(&i.scope))
    }

    /// A view of memory as it is, which notes the pages that are walked.
    pub fn current<'a, M>(&'a mut self, mem: &'a Main<'a, M>, ddtp: u64) -> Noting<'a, M> {
        Noting::new(Overlay::new(mem, ddtp), &mut self.tables)
    }

    /// All combinations of versions that a request of `since` may have met, one view at a time.
    pub fn versions<'a, M>(
        &'a mut self,
        mem: &'a M,
        ddtp: u64,
        since: u64,
        forget_invalidations: bool,
    ) -> Versions<'a, M> {
        self.build_index();
        Versions::new(self, mem, ddtp, since, forget_invalidations)
    }
}

/// Pages in which a walk has read. The small array keeps repeated reads out of the set.
pub(super) struct TablePages {
    last: [u64; 64],
    all: FxHashSet<u64>,
}

impl Default for TablePages {
    fn default() -> Self {
        Self {
            last: [u64::MAX; 64],
            all: FxHashSet::default(),
        }
    }
}

impl TablePages {
    pub fn note(&mut self, addr: u64) {
        let page = addr >> 12;
        let slot = &mut self.last[page as usize % 64];
        if *slot != page {
            *slot = page;
            self.all.insert(page);
        }
    }

    fn contains(&self, addr: u64) -> bool {
        self.all.contains(&(addr >> 12))
    }
}
