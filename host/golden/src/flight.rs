//! TLPs under way and requests that wait for their completions.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use tlproof_pcie::{BusAddr, CplStatus, Head, MemAttr, PhysAddr};

use crate::iommu::Stamp;
use crate::violation::{Tap, TlpId};

/// No entry.
pub(crate) const NONE: u32 = u32::MAX;

/// What the promise judge knows of a TLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Nothing: not a device's request, or one that was already reported.
    None,
    /// A slot of the ledger.
    Promise(u32),
    /// A declared probe, and whether hardware could refuse it when it left.
    Rogue { reachable: bool },
}

/// Where a TLP comes from, for ordering: endpoints by number, then the CPUs, then the fabric.
pub(crate) type Source = u8;
/// The CPUs.
pub(crate) const CPU: Source = 8;
/// Ports and the bridge, for completions.
pub(crate) const FABRIC: Source = 9;
const SOURCES: usize = 10;

/// A TLP under way.
pub(crate) struct Flight {
    pub id: TlpId,
    /// The header with which it must show up next.
    pub head: Head,
    pub source: Source,
    pub grant: Grant,
    /// Address that the device used.
    pub dma: BusAddr,
    /// Where it must land at the memory port.
    pub phys: PhysAddr,
    pub attr: Option<MemAttr>,
    pub through_bridge: bool,
    pub stamp: Stamp,
    /// Payload, if it was seen.
    pub payload: Vec<u8>,
    /// Request that it is, or that it answers.
    pub transaction: u32,
    /// Of a completion: bytes that came before it, and whether it is the last.
    pub before: u32,
    pub last: bool,
}

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Responder {
    /// Not known until the request has got there.
    Pending,
    Endpoint(u8),
    Bridge,
    Switch,
}

/// The status that a request must be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    Success,
    Status(CplStatus),
    /// An access fault behind the memory port: UR or CA.
    Fault,
    Any,
}

/// A non-posted request that waits for completions.
pub(crate) struct Transaction {
    pub head: Head,
    pub id: TlpId,
    pub responder: Responder,
    pub demand: Demand,
    /// Bytes asked for; 0 for a configuration write.
    pub total: u32,
    /// Bytes that completions have carried so far.
    pub sent: u32,
    /// Bytes that have arrived so far.
    pub arrived: u32,
    /// Completions that were seen and have not arrived.
    pub flying: u32,
    /// No further completion may come.
    pub closed: bool,
    /// What the memory answered, from the first DW on.
    pub data: Vec<u8>,
    pub memory: bool,
    next: u32,
}

/// Taps by number: 8 endpoints, then 4 root ports for each of three taps, then the memory port.
const STAGES: usize = 8 + 4 * 3 + 1;

fn stage(tap: Tap) -> usize {
    match tap {
        Tap::EpTx(n) | Tap::EpRx(n) => usize::from(n & 7),
        Tap::RpRx(n) => 8 + usize::from(n & 3),
        Tap::RpTx(n) => 12 + usize::from(n & 3),
        Tap::Translate(n) => 16 + usize::from(n & 3),
        Tap::Memory => 20,
    }
}

fn tap_of(stage: usize) -> Tap {
    let n = stage as u8;
    match stage {
        0..8 => Tap::EpRx(n),
        8..12 => Tap::RpRx(n - 8),
        12..16 => Tap::RpTx(n - 12),
        16..20 => Tap::Translate(n - 16),
        _ => Tap::Memory,
    }
}

/// Numbers of the last TLPs of one source at one tap, which later ones may not have passed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Passed {
    /// Posted without Relaxed Ordering.
    pub posted: u64,
    pub non_posted: u64,
    /// Completions without Relaxed Ordering.
    pub completion: u64,
}

/// Everything under way.
pub(crate) struct Flights {
    slots: Vec<Flight>,
    free: Vec<u32>,
    waiting: [VecDeque<u32>; STAGES],
    passed: [[Passed; SOURCES]; STAGES],
    transactions: Vec<Transaction>,
    free_transactions: Vec<u32>,
    by_tag: FxHashMap<u32, u32>,
}

fn key(head: &Head) -> u32 {
    u32::from(head.requester().0) << 10 | u32::from(head.tag())
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            waiting: Default::default(),
            passed: [[Passed::default(); SOURCES]; STAGES],
            transactions: Vec::new(),
            free_transactions: Vec::new(),
            by_tag: FxHashMap::default(),
        }
    }
}

impl Flights {
    /// A new TLP; buffers of earlier ones are used again.
    pub fn add(&mut self, id: TlpId, head: &Head, source: Source, payload: &[u8]) -> u32 {
        let slot = if let Some(slot) = self.free.pop() {
            slot
        } else {
            self.slots.push(Flight {
                id,
                head: *head,
                source,
                grant: Grant::None,
                dma: BusAddr(0),
                phys: PhysAddr(0),
                attr: None,
                through_bridge: false,
                stamp: Stamp::default(),
                payload: Vec::new(),
                transaction: NONE,
                before: 0,
                last: false,
            });
            self.slots.len() as u32 - 1
        };
        let f = &mut self.slots[slot as usize];
        f.id = id;
        f.head = *head;
        f.source = source;
        f.grant = Grant::None;
        f.dma = if head.is_mem() {
            head.addr()
        } else {
            BusAddr(0)
        };
        f.attr = None;
        f.through_bridge = false;
        f.payload.clear();
        f.payload.extend_from_slice(payload);
        f.transaction = NONE;
        f.before = 0;
        f.last = false;
        slot
    }

    pub fn get(&self, slot: u32) -> &Flight {
        &self.slots[slot as usize]
    }

    pub fn get_mut(&mut self, slot: u32) -> &mut Flight {
        &mut self.slots[slot as usize]
    }

    pub fn remove(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// The TLP must show up at `tap` next.
    pub fn wait(&mut self, slot: u32, tap: Tap) {
        self.waiting[stage(tap)].push_back(slot);
    }

    /// Takes the first TLP that waits at `tap` and satisfies `f`.
    pub fn take(&mut self, tap: Tap, f: impl Fn(&Flight) -> bool) -> Option<u32> {
        let queue = &mut self.waiting[stage(tap)];
        let at = queue.iter().position(|s| f(&self.slots[*s as usize]))?;
        queue.remove(at)
    }

    /// Takes the first TLP that waits at any other tap and satisfies `f`.
    pub fn take_elsewhere(&mut self, f: impl Fn(Tap, &Flight) -> bool) -> Option<(u32, Tap)> {
        for (n, queue) in self.waiting.iter_mut().enumerate() {
            let tap = tap_of(n);
            let at = queue.iter().position(|s| f(tap, &self.slots[*s as usize]));
            if let Some(slot) = at.and_then(|at| queue.remove(at)) {
                return Some((slot, tap));
            }
        }
        None
    }

    /// Takes any TLP that still waits.
    pub fn drain(&mut self) -> Option<(u32, Tap)> {
        self.take_elsewhere(|_, _| true)
    }

    pub fn passed(&mut self, tap: Tap, source: Source) -> &mut Passed {
        &mut self.passed[stage(tap)][usize::from(source).min(SOURCES - 1)]
    }

    /// A non-posted request was sent. Returns it, and whether its tag was in use.
    pub fn open(&mut self, id: TlpId, head: &Head) -> (u32, bool) {
        let total = if head.is_mem() {
            (head.byte_span().1 as u32).max(1)
        } else if head.has_data() {
            0
        } else {
            4
        };
        let (slot, data) = match self.free_transactions.pop() {
            Some(s) => {
                let mut data = std::mem::take(&mut self.transactions[s as usize].data);
                data.clear();
                (s, data)
            }
            None => (self.transactions.len() as u32, Vec::new()),
        };
        let t = Transaction {
            head: *head,
            id,
            responder: Responder::Pending,
            demand: Demand::Any,
            total,
            sent: 0,
            arrived: 0,
            flying: 0,
            closed: false,
            data,
            memory: false,
            next: NONE,
        };
        if let Some(place) = self.transactions.get_mut(slot as usize) {
            *place = t;
        } else {
            self.transactions.push(t);
        }
        match self.by_tag.entry(key(head)) {
            std::collections::hash_map::Entry::Vacant(v) => {
                v.insert(slot);
                (slot, false)
            }
            std::collections::hash_map::Entry::Occupied(o) => {
                let mut at = *o.get();
                while self.transactions[at as usize].next != NONE {
                    at = self.transactions[at as usize].next;
                }
                self.transactions[at as usize].next = slot;
                (slot, true)
            }
        }
    }

    /// The request that a completion answers.
    pub fn answered(&self, head: &Head) -> Option<u32> {
        self.by_tag.get(&key(head)).copied()
    }

    pub fn transaction(&mut self, slot: u32) -> &mut Transaction {
        &mut self.transactions[slot as usize]
    }

    /// No further completion may come: the tag is free once all have arrived.
    pub fn close(&mut self, slot: u32) {
        self.transactions[slot as usize].closed = true;
        let k = key(&self.transactions[slot as usize].head);
        let next = self.transactions[slot as usize].next;
        match self.by_tag.get(&k).copied() {
            Some(first) if first == slot => {
                if next == NONE {
                    self.by_tag.remove(&k);
                } else {
                    self.by_tag.insert(k, next);
                }
            }
            Some(mut at) => {
                while at != NONE {
                    let after = self.transactions[at as usize].next;
                    if after == slot {
                        self.transactions[at as usize].next = next;
                        break;
                    }
                    at = after;
                }
            }
            None => {}
        }
        self.retire(slot);
    }

    /// Frees the place of a closed request whose completions have all arrived.
    pub fn retire(&mut self, slot: u32) {
        let t = &self.transactions[slot as usize];
        if t.closed && t.flying == 0 {
            self.free_transactions.push(slot);
        }
    }

    /// The first request that still waits for completions.
    pub fn open_transaction(&self) -> Option<u32> {
        self.by_tag.values().copied().min()
    }
}
