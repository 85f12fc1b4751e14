//! Memory as a walk may see it: as it is, or in one of its legal earlier versions.

use tlproof_pcie::PhysAddr;

use super::command::Scope;
use super::context::{DeviceContext, ProcessContext};
use super::history::{History, TablePages};
use super::translator::{Overlay, read};
use super::walk::{Entry, Format, Space, Tables, native};
use super::{MemoryFault, Request, SystemMemory};
use crate::memory::{AccessFault, Memory};

/// Addresses of the contexts that were read last, and whether they are big-endian.
#[derive(Clone, Copy, Default)]
struct Contexts {
    device: Option<(u64, bool)>,
    process: Option<(u64, bool)>,
}

/// Main memory in the eyes of a judge, which changes nothing in it.
pub(super) struct Main<'a, M>(pub &'a M);

impl<M: Memory> SystemMemory for Main<'_, M> {
    fn load(&self, addr: u64) -> Result<u64, MemoryFault> {
        self.0
            .read_u64(PhysAddr(addr))
            .map_err(|AccessFault { .. }| MemoryFault::Access)
    }

    fn store(&mut self, _: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault::Access)
    }
}

/// Memory as it is, noting which pages hold tables.
pub(super) struct Noting<'a, M> {
    overlay: Overlay<'a, Main<'a, M>>,
    tables: &'a mut TablePages,
}

impl<'a, M> Noting<'a, M> {
    pub const fn new(overlay: Overlay<'a, Main<'a, M>>, tables: &'a mut TablePages) -> Self {
        Self { overlay, tables }
    }
}

impl<M: Memory> Tables for Noting<'_, M> {
    fn ddtp(&mut self, request: &Request) -> u64 {
        self.overlay.ddtp(request)
    }

    fn entry<const N: usize>(&mut self, entry: Entry, addr: u64) -> Result<[u64; N], MemoryFault> {
        self.tables.note(addr);
        self.overlay.entry(entry, addr)
    }

    fn update(&mut self, addr: u64, old: u64, new: u64) -> Result<bool, MemoryFault> {
        self.overlay.update(addr, old, new)
    }

    fn first_stage(&mut self, _: Space, fsc: u64) -> u64 {
        fsc
    }

    fn second_stage(&mut self, iohgatp: u64) -> u64 {
        iohgatp
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
    contexts: Contexts,
    /// A pointer was picked that only a global mapping below it keeps alive.
    needs_global: bool,
    /// The leaf that was read last is a global mapping.
    global_leaf: bool,
    /// Since when the first-stage table that is read next is pointed to: what stood in it before
    /// then was never part of this walk.
    reached: u64,
}

/// An entry, since when it stood there (0 if not known), and when it was changed; the current one
/// was not.
struct Version<const N: usize> {
    words: [u64; N],
    from: u64,
    until: Option<u64>,
}

impl<'a, M> Versions<'a, M> {
    pub fn new(
        history: &'a mut History,
        mem: &'a M,
        ddtp: u64,
        since: u64,
        forget_invalidations: bool,
    ) -> Self {
        Self {
            history,
            mem,
            ddtp,
            since,
            forget_invalidations,
            picks: Vec::new(),
            at: 0,
            contexts: Contexts::default(),
            needs_global: false,
            global_leaf: false,
            reached: 0,
        }
    }
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
        self.contexts = Contexts::default();
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
    fn all<const N: usize>(&self, addr: u64) -> Result<Vec<Version<N>>, MemoryFault> {
        let current = read::<N>(&Main(self.mem), addr)?;
        let mut changes: Vec<(u64, usize, u64)> = Vec::new();
        for word in 0..N {
            let log = self.history.changes(addr + 8 * word as u64);
            changes.extend(log.iter().map(|&(at, old)| (at, word, old)));
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

    /// The versions that a walk may use.
    fn legal<const N: usize>(
        &self,
        addr: u64,
        cacheable: impl Fn(&[u64; N]) -> bool,
        covers: impl Fn(&[u64; N], &Scope) -> bool,
    ) -> Result<Vec<[u64; N]>, MemoryFault> {
        let legal = self.legal_after(0, addr, cacheable, covers)?;
        Ok(legal.into_iter().map(|(words, _)| words).collect())
    }

    /// Those of them that stood there after `reached`, each with the time since when it did.
    fn legal_after<const N: usize>(
        &self,
        reached: u64,
        addr: u64,
        cacheable: impl Fn(&[u64; N]) -> bool,
        covers: impl Fn(&[u64; N], &Scope) -> bool,
    ) -> Result<Vec<([u64; N], u64)>, MemoryFault> {
        let mut legal: Vec<([u64; N], u64)> = Vec::new();
        for Version { words, from, until } in self.all::<N>(addr)? {
            let usable = match until {
                None => true,
                // The change came while the request was under way.
                Some(at) if at >= self.since => true,
                Some(at) => {
                    cacheable(&words)
                        && at >= reached
                        && !self.dropped(at, |scope| covers(&words, scope))
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

    fn dropped(&self, obsolete: u64, covers: impl Fn(&Scope) -> bool) -> bool {
        !self.forget_invalidations && self.history.dropped(obsolete, self.since, covers)
    }

    /// A first-stage entry: with the global ones that only a leaf below them keeps alive.
    fn pick_first_stage<const N: usize>(
        &mut self,
        entry: &Entry,
        format: Format,
        global: bool,
        addr: u64,
    ) -> Result<[u64; N], MemoryFault> {
        let valid = |words: &[u64; N]| format.decode(words[0]).valid();
        let drops = |words: &[u64; N], scope: &Scope| drops_pte(scope, entry, words[0]);
        let mut legal = self.legal_after(self.reached, addr, valid, drops)?;
        let certain = legal.len();
        let spared = self.legal_after(self.reached, addr, valid, |words, scope| {
            !by_pscid(scope) && drops(words, scope)
        })?;
        for (words, from) in spared {
            let known = legal.iter().any(|l| l.0 == words);
            if !format.decode(words[0]).is_leaf() && !known {
                legal.push((words, from));
            }
        }
        let pick = self.pick(legal.len());
        let (words, from) = legal[pick];
        let pte = format.decode(words[0]);
        self.needs_global |= pick >= certain;
        self.global_leaf = pte.is_leaf() && (global || pte.global());
        self.reached = self.reached.max(from);
        Ok(words)
    }

    /// Earlier device contexts at the place of the one in use, with the time of their end.
    fn device_contexts(&self) -> Vec<(DeviceContext, u64)> {
        let Some((addr, big)) = self.contexts.device else {
            return Vec::new();
        };
        // Doublewords 0 to 3 are the same in either format.
        let all = self.all::<4>(addr).unwrap_or_default();
        all.into_iter()
            .filter_map(|v| {
                let [tc, iohgatp, ta, fsc] = v.words.map(|w| native(w, big));
                let dc = DeviceContext::new(&[tc, iohgatp, ta, fsc, 0, 0, 0, 0]);
                Some((dc, v.until?))
            })
            .filter(|(dc, _)| dc.v())
            .collect()
    }

    /// `PSCID` and `fsc` of earlier contexts of the address space's owner.
    fn address_spaces(&self) -> Vec<(u32, u64, u64)> {
        if let Some((addr, big)) = self.contexts.process {
            let all = self.all::<2>(addr).unwrap_or_default();
            return all
                .into_iter()
                .filter_map(|v| {
                    let pc = ProcessContext::new(&v.words.map(|w| native(w, big)));
                    Some((pc, v.until?))
                })
                .filter(|(pc, _)| pc.v())
                .map(|(pc, at)| (pc.pscid(), pc.fsc, at))
                .collect();
        }
        self.device_contexts()
            .into_iter()
            .filter(|(dc, _)| !dc.pdtv())
            .map(|(dc, at)| (dc.pscid(), dc.fsc, at))
            .collect()
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

/// Whether a command with this range drops an entry for `addr`, a leaf or not, of `span` bytes.
fn overlaps(range: Option<(u64, u64)>, non_leaf: bool, leaf: bool, addr: u64, span: u64) -> bool {
    range.is_none_or(|(first, last)| {
        let mask = span - 1;
        (leaf || non_leaf) && first <= addr | mask && last >= addr & !mask
    })
}

/// Whether a command drops what stands for a page-table entry (IOMMU §3.1.1).
fn drops_pte(scope: &Scope, entry: &Entry, word: u64) -> bool {
    match (*scope, entry) {
        (
            Scope::FirstStage {
                gscid,
                pscid,
                range,
                non_leaf,
            },
            Entry::FirstStage {
                space,
                iova,
                level,
                global,
                format,
            },
        ) => {
            let pte = format.decode(word);
            gscid == space.gscid
                && pscid.is_none_or(|p| p == space.pscid && !global && !pte.global())
                && overlaps(range, non_leaf, pte.is_leaf(), *iova, pte.span(*level))
        }
        (
            Scope::SecondStage {
                gscid,
                range,
                non_leaf,
            },
            Entry::SecondStage {
                gscid: own,
                gpa,
                level,
                format,
                ..
            },
        ) => {
            let pte = format.decode(word);
            gscid.is_none_or(|g| g == *own)
                && overlaps(range, non_leaf, pte.is_leaf(), *gpa, pte.span(*level))
        }
        (
            Scope::SecondStage { gscid, range, .. },
            Entry::Msi {
                gscid: own, gpa, ..
            },
        ) => {
            // Without a virtual machine there is no tag, and all of them are meant.
            (gscid.is_none() || gscid == *own) && overlaps(range, false, true, *gpa, 4096)
        }
        _ => false,
    }
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

    fn entry<const N: usize>(&mut self, entry: Entry, addr: u64) -> Result<[u64; N], MemoryFault> {
        let big_valid = |big: bool| move |words: &[u64; N]| native(words[0], big) & 1 == 1;
        let legal = match entry {
            Entry::Directory { big } => self.legal::<N>(addr, big_valid(big), |_, scope| {
                matches!(scope, Scope::Directory(None))
            })?,
            Entry::Context { device_id, big } => {
                self.contexts.device = Some((addr, big));
                self.legal::<N>(addr, big_valid(big), |_, scope| {
                    drops_context(scope, device_id)
                })?
            }
            Entry::ProcessDirectory { device_id, big } => {
                self.legal::<N>(addr, big_valid(big), |_, scope| {
                    drops_context(scope, device_id)
                })?
            }
            Entry::ProcessContext {
                device_id,
                process_id,
                big,
            } => {
                self.contexts.process = Some((addr, big));
                self.legal::<N>(addr, big_valid(big), |_, scope| {
                    drops_context(scope, device_id)
                        || *scope
                            == Scope::Process {
                                device_id,
                                process_id,
                            }
                })?
            }
            Entry::FirstStage { format, global, .. } => {
                return self.pick_first_stage(&entry, format, global, addr);
            }
            Entry::SecondStage {
                format,
                directory_of,
                ..
            } => {
                let valid = |words: &[u64; N]| format.decode(words[0]).valid();
                let mut legal = self.legal::<N>(addr, valid, |words, scope| {
                    drops_pte(scope, &entry, words[0])
                })?;
                if let Some(device_id) = directory_of {
                    // What a directory entry points to may be cached after its translation.
                    let cached = self.legal::<N>(addr, valid, |_, scope| {
                        drops_context(scope, device_id)
                            || matches!(scope, Scope::Process { device_id: d, .. } if *d == device_id)
                    })?;
                    for words in cached {
                        if !legal.contains(&words) {
                            legal.push(words);
                        }
                    }
                }
                legal
            }
            Entry::Msi { big, .. } => self.legal::<N>(addr, big_valid(big), |words, scope| {
                drops_pte(scope, &entry, words[0])
            })?,
        };
        let pick = self.pick(legal.len());
        Ok(legal[pick])
    }

    /// The IOMMU has made its changes already when its answer is judged.
    fn update(&mut self, _: u64, _: u64, _: u64) -> Result<bool, MemoryFault> {
        Ok(true)
    }

    /// Translations are tagged with the PSCID, not with the root (IOMMU §2.8): those of an earlier
    /// root of the same address space live until IOTINVAL.VMA, whatever became of the context.
    fn first_stage(&mut self, space: Space, fsc: u64) -> u64 {
        let mut legal = vec![(fsc, false)];
        for (pscid, old, at) in self.address_spaces() {
            if pscid != space.pscid || old >> 60 != fsc >> 60 {
                continue;
            }
            let dropped = |spare_global: bool| {
                self.dropped(at, |scope| {
                    matches!(scope, Scope::FirstStage { gscid, pscid, range: None, .. }
                        if *gscid == space.gscid
                            && pscid.is_none_or(|p| p == space.pscid && !spare_global))
                })
            };
            if !dropped(true) && !legal.iter().any(|l| l.0 == old) {
                legal.push((old, dropped(false)));
            }
        }
        let pick = self.pick(legal.len());
        self.needs_global |= legal[pick].1;
        legal[pick].0
    }

    /// The same for the GSCID and IOTINVAL.GVMA.
    fn second_stage(&mut self, iohgatp: u64) -> u64 {
        let mut legal = vec![iohgatp];
        for (dc, at) in self.device_contexts() {
            let same = dc.iohgatp >> 44 == iohgatp >> 44;
            let dropped = self.dropped(at, |scope| {
                matches!(scope, Scope::SecondStage { gscid, range: None, .. }
                    if gscid.is_none_or(|g| g == dc.gscid()))
            });
            if same && !dropped && !legal.contains(&dc.iohgatp) {
                legal.push(dc.iohgatp);
            }
        }
        let pick = self.pick(legal.len());
        legal[pick]
    }
}
