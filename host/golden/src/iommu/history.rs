//! What memory and `ddtp` were, and which invalidations have been completed since.
//!
//! Time is a counter of events: each change of a word, each register access that matters and each
//! completion has a number of its own.

use rustc_hash::{FxHashMap, FxHashSet};
use tlproof_pcie::PhysAddr;

use super::Request;
use super::command::Scope;
use super::context::DeviceContext;
use super::walk::{Entry, Pte, Tables};
use crate::memory::{AccessFault, Memory};

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
struct OldDdtp {
    value: u64,
    replaced: u64,
    /// When a read first showed the write to be done.
    settled: Option<u64>,
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
    ddtp: Vec<OldDdtp>,
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
    fn dropped(&self, obsolete: u64, since: u64, covers: impl Fn(&Scope) -> bool) -> bool {
        self.invalidations
            .iter()
            .rev()
            .take_while(|i| i.submitted > obsolete)
            .any(|i| i.completed.is_some_and(|c| c < since) && covers(&i.scope))
    }

    /// A view of memory as it is, which notes the pages that are walked.
    pub fn current<'a, M>(&'a mut self, mem: &'a M, ddtp: u64) -> Noting<'a, M> {
        Noting {
            direct: Direct { mem, ddtp },
            tables: &mut self.tables,
        }
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
        Versions {
            history: self,
            mem,
            ddtp,
            since,
            forget_invalidations,
            picks: Vec::new(),
            at: 0,
            context: None,
            needs_global: false,
            global_leaf: false,
            reached: 0,
        }
    }
}

/// An entry, since when it stood there (0 if not known), and when it was changed; the current one
/// was not.
struct Version<const N: usize> {
    words: [u64; N],
    from: u64,
    until: Option<u64>,
}

/// Pages in which a walk has read. The small array keeps repeated reads out of the set.
struct TablePages {
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
    fn note(&mut self, addr: u64) {
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

fn read<const N: usize>(mem: &impl Memory, addr: u64) -> Result<[u64; N], AccessFault> {
    let mut words = [0; N];
    for (word, at) in words.iter_mut().zip((addr..).step_by(8)) {
        *word = mem.read_u64(PhysAddr(at))?;
    }
    Ok(words)
}

/// Memory as it is.
pub(super) struct Direct<'a, M> {
    pub mem: &'a M,
    pub ddtp: u64,
}

impl<M: Memory> Tables for Direct<'_, M> {
    fn ddtp(&mut self, _: &Request) -> u64 {
        self.ddtp
    }

    fn entry<const N: usize>(&mut self, _: Entry, addr: u64) -> Result<[u64; N], AccessFault> {
        read(self.mem, addr)
    }

    fn first_stage(&mut self, dc: &DeviceContext) -> u64 {
        dc.fsc
    }
}

/// Memory as it is, noting which pages hold tables.
pub(super) struct Noting<'a, M> {
    direct: Direct<'a, M>,
    tables: &'a mut TablePages,
}

impl<M: Memory> Tables for Noting<'_, M> {
    fn ddtp(&mut self, request: &Request) -> u64 {
        self.direct.ddtp(request)
    }

    fn entry<const N: usize>(&mut self, entry: Entry, addr: u64) -> Result<[u64; N], AccessFault> {
        self.tables.note(addr);
        self.direct.entry(entry, addr)
    }

    fn first_stage(&mut self, dc: &DeviceContext) -> u64 {
        dc.fsc
    }
}

/// A non-deterministic view: each read picks one of the legal versions of its entry, and
/// [`Self::next`] moves on to the next combination.
///
/// Entries are picked one by one because the caches of an IOMMU may hold them one by one
/// (IOMMU §2.8); each is old or new as a whole (IOMMU §2.9).
pub(super) struct Versions<'a, M> {
    history: &'a mut History,
    mem: &'a M,
    ddtp: u64,
    since: u64,
    forget_invalidations: bool,
    /// Choice and number of choices of each read that had more than one.
    picks: Vec<(usize, usize)>,
    at: usize,
    /// Address and `device_id` of the device context that was read last.
    context: Option<(u64, u32)>,
    /// A pointer was picked that only a global mapping below it keeps alive.
    needs_global: bool,
    /// The leaf that was read last is a global mapping.
    global_leaf: bool,
    /// Since when the table that is read next is pointed to: what stood in it before then was
    /// never part of this walk.
    reached: u64,
}

impl<M: Memory> Versions<'_, M> {
    /// Whether the versions that were picked can have been used together. An invalidation by PSCID
    /// spares global mappings (IOMMU §3.1.1): a cached translation of a global leaf outlives the
    /// pointers through which it was found, where one of another leaf does not.
    pub const fn consistent(&self) -> bool {
        !self.needs_global || self.global_leaf
    }

    /// Moves on to the next combination; false if there is none.
    pub fn next(&mut self) -> bool {
        self.at = 0;
        self.context = None;
        self.needs_global = false;
        self.global_leaf = false;
        self.reached = 0;
        while let Some((pick, count)) = self.picks.pop() {
            if pick + 1 < count {
                self.picks.push((pick + 1, count));
                return true;
            }
        }
        false
    }

    fn pick(&mut self, count: usize) -> usize {
        if count <= 1 {
            return 0;
        }
        if self.at == self.picks.len() {
            self.picks.push((0, count));
        }
        let pick = self.picks[self.at].0;
        self.at += 1;
        pick
    }

    /// The entry now and before each of its changes, newest first, with the time of that change.
    fn all<const N: usize>(&self, addr: u64) -> Result<Vec<Version<N>>, AccessFault> {
        let current = read::<N>(self.mem, addr)?;
        let mut changes: Vec<(u64, usize, u64)> = Vec::new();
        for word in 0..N {
            if let Some(log) = self.history.index.get(&(addr + 8 * word as u64)) {
                changes.extend(log.iter().map(|&(at, old)| (at, word, old)));
            }
        }
        changes.sort_unstable_by_key(|c| std::cmp::Reverse(c.0));
        let (mut words, mut until) = (current, None);
        let mut versions = Vec::with_capacity(changes.len() + 1);
        for (from, word, old) in changes {
            versions.push(Version { words, from, until });
            words[word] = old;
            until = Some(from);
        }
        let from = 0;
        versions.push(Version { words, from, until });
        Ok(versions)
    }

    /// The versions that a walk may use, each with the time since when it stood there.
    fn legal<const N: usize>(
        &self,
        addr: u64,
        cacheable: impl Fn(&[u64; N]) -> bool,
        covers: impl Fn(&[u64; N], &Scope) -> bool,
    ) -> Result<Vec<([u64; N], u64)>, AccessFault> {
        let mut legal: Vec<([u64; N], u64)> = Vec::new();
        for Version { words, from, until } in self.all::<N>(addr)? {
            let usable = match until {
                None => true,
                // The change came while the request was under way.
                Some(at) if at >= self.since => true,
                Some(at) => {
                    cacheable(&words)
                        && at > self.reached
                        && (self.forget_invalidations
                            || !self
                                .history
                                .dropped(at, self.since, |scope| covers(&words, scope)))
                }
            };
            match legal.iter_mut().find(|l| l.0 == words) {
                // The more lenient of two equal ones.
                Some(l) if usable => l.1 = l.1.min(from),
                None if usable => legal.push((words, from)),
                _ => {}
            }
        }
        Ok(legal)
    }

    fn context_versions<const N: usize>(
        &self,
        addr: u64,
        device_id: u32,
    ) -> Result<Vec<([u64; N], u64)>, AccessFault> {
        self.legal(
            addr,
            |words| words[0] & 1 == 1,
            |_, scope| drops_context(scope, device_id),
        )
    }
}

fn drops_context(scope: &Scope, device_id: u32) -> bool {
    match scope {
        Scope::Directory(device) => device.is_none_or(|d| d == device_id),
        _ => false,
    }
}

/// Whether a command names an address space, and so spares global mappings.
const fn by_pscid(scope: &Scope) -> bool {
    matches!(scope, Scope::FirstStage { pscid: Some(_), .. })
}

/// Whether a command drops what stands for a first-stage entry (IOMMU §3.1.1).
fn drops_pte(scope: &Scope, entry: &Entry, word: u64) -> bool {
    let (
        Scope::FirstStage {
            pscid,
            range,
            non_leaf,
        },
        &Entry::Pte {
            pscid: own,
            iova,
            level,
            global,
            big,
        },
    ) = (scope, entry)
    else {
        return false;
    };
    let pte = Pte::new(word, big);
    let space = pscid.is_none_or(|p| p == own && !global && !pte.global());
    let place = range.is_none_or(|(first, last)| {
        let mask = pte.span(level) - 1;
        (pte.is_leaf() || *non_leaf) && first <= iova | mask && last >= iova & !mask
    });
    space && place
}

impl<M: Memory> Tables for Versions<'_, M> {
    fn ddtp(&mut self, request: &Request) -> u64 {
        let directory = |ddtp: u64| (2..=4).contains(&(ddtp & 0xf));
        let mut legal = vec![self.ddtp];
        for old in self.history.ddtp.iter().rev() {
            let under_way =
                old.replaced >= self.since || old.settled.is_none_or(|at| at >= self.since);
            // Contexts found through the old directory may live on in the cache.
            let cached = directory(self.ddtp)
                && directory(old.value)
                && (self.forget_invalidations
                    || !self.history.dropped(old.replaced, self.since, |scope| {
                        drops_context(scope, request.device_id)
                    }));
            if (under_way || cached) && !legal.contains(&old.value) {
                legal.push(old.value);
            }
        }
        let pick = self.pick(legal.len());
        legal[pick]
    }

    fn entry<const N: usize>(&mut self, entry: Entry, addr: u64) -> Result<[u64; N], AccessFault> {
        let legal = match entry {
            Entry::Directory => self.legal::<N>(
                addr,
                |words| words[0] & 1 == 1,
                |_, scope| matches!(scope, Scope::Directory(None)),
            )?,
            Entry::Context { device_id } => {
                self.context = Some((addr, device_id));
                self.context_versions(addr, device_id)?
            }
            Entry::Pte { big, global, .. } => {
                let valid = |words: &[u64; N]| Pte::new(words[0], big).valid();
                let drops = |words: &[u64; N], scope: &Scope| drops_pte(scope, &entry, words[0]);
                let mut legal = self.legal(addr, valid, drops)?;
                let certain = legal.len();
                let spared = self.legal(addr, valid, |words, scope| {
                    !by_pscid(scope) && drops(words, scope)
                })?;
                for (words, from) in spared {
                    let known = legal.iter().any(|l| l.0 == words);
                    if !Pte::new(words[0], big).is_leaf() && !known {
                        legal.push((words, from));
                    }
                }
                let pick = self.pick(legal.len());
                let (words, from) = legal[pick];
                let pte = Pte::new(words[0], big);
                self.needs_global |= pick >= certain;
                self.global_leaf = pte.is_leaf() && (global || pte.global());
                self.reached = self.reached.max(from);
                return Ok(words);
            }
        };
        let pick = self.pick(legal.len());
        Ok(legal[pick].0)
    }

    /// Translations are tagged with the PSCID, not with the root (IOMMU §2.8): those of an earlier
    /// root of the same address space live until IOTINVAL.VMA, whatever became of the context.
    fn first_stage(&mut self, dc: &DeviceContext) -> u64 {
        let Some((addr, _)) = self.context else {
            return dc.fsc;
        };
        let mut legal = vec![(dc.fsc, false)];
        // `ta` and `fsc` are doublewords 2 and 3 of either format.
        for Version { words, until, .. } in self.all::<4>(addr).unwrap_or_default() {
            let old = DeviceContext::new(&[words[0], words[1], words[2], words[3], 0, 0, 0, 0]);
            let Some(at) = until else { continue };
            let dropped = |spare_global: bool| {
                !self.forget_invalidations
                    && self.history.dropped(at, self.since, |scope| {
                        matches!(scope, Scope::FirstStage { pscid, range: None, .. }
                            if pscid.is_none_or(|p| p == old.pscid() && !spare_global))
                    })
            };
            let cached = old.v()
                && !old.pdtv()
                && old.fsc >> 60 != 0
                && old.fsc_mode() == dc.fsc_mode()
                && old.pscid() == dc.pscid()
                && !dropped(true);
            if cached && !legal.iter().any(|l| l.0 == old.fsc) {
                legal.push((old.fsc, dropped(false)));
            }
        }
        let pick = self.pick(legal.len());
        self.needs_global |= legal[pick].1;
        legal[pick].0
    }
}
