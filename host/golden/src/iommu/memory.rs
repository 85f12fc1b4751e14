//! The memory system as an IOMMU sees it.

use rustc_hash::FxHashMap;

/// Why an access got no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MemoryFault {
    /// The access violates a PMA or PMP check.
    #[error("access fault")]
    Access,
    /// The data is corrupt (IOMMU §7.4).
    #[error("poisoned data")]
    Poison,
}

/// The implicit accesses of an IOMMU. Addresses of doublewords are multiples of 8, and numbers are
/// little-endian; the model swaps bytes where a structure is big-endian.
pub trait SystemMemory {
    /// Reads a doubleword.
    ///
    /// # Errors
    /// The access is refused, or the data is corrupt.
    fn load(&self, addr: u64) -> Result<u64, MemoryFault>;

    /// Stores bytes: at most 64, within a naturally aligned block of that size.
    ///
    /// # Errors
    /// The access is refused.
    fn store(&mut self, addr: u64, bytes: &[u8]) -> Result<(), MemoryFault>;

    /// Atomically replaces a doubleword that is `old` by `new`, and tells whether it was. Repeated
    /// by the model until it succeeds or the entry needs no change any more.
    ///
    /// # Errors
    /// A store is refused, or the data is corrupt.
    fn compare_and_set(&mut self, addr: u64, old: u64, new: u64) -> Result<bool, MemoryFault> {
        let equal = self.load(addr)? == old;
        if equal {
            self.store(addr, &new.to_le_bytes())?;
        }
        Ok(equal)
    }

    /// Atomically sets bits of a doubleword; the result is what it was.
    ///
    /// # Errors
    /// A store is refused, or the data is corrupt.
    fn or(&mut self, addr: u64, bits: u64) -> Result<u64, MemoryFault> {
        let old = self.load(addr)?;
        self.store(addr, &(old | bits).to_le_bytes())?;
        Ok(old)
    }
}

/// What [`FlatMemory`] answers for a doubleword.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Injected {
    /// All accesses are refused.
    AccessFault,
    /// Stores are refused.
    ReadOnly,
    /// Loads find corrupt data.
    Poison,
}

/// Contiguous memory with faults where a test wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatMemory {
    base: u64,
    words: Vec<u64>,
    injected: FxHashMap<u64, Injected>,
    /// A doubleword that another agent changes before the next compare-and-set of it.
    interference: Option<(u64, u64)>,
}

impl FlatMemory {
    /// `bytes` bytes of zeros from `base` on, both multiples of 8.
    #[must_use]
    pub fn new(base: u64, bytes: usize) -> Self {
        Self {
            base,
            words: vec![0; bytes / 8],
            injected: FxHashMap::default(),
            interference: None,
        }
    }

    /// Answers accesses to the doubleword at `addr` with a fault from now on.
    pub fn inject(&mut self, addr: u64, fault: Injected) {
        self.injected.insert(addr & !7, fault);
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.injected.clear();
    }

    /// The doubleword at `addr` becomes `value` just before the next compare-and-set of it.
    pub fn interfere(&mut self, addr: u64, value: u64) {
        self.interference = Some((addr, value));
    }

    /// Writes a doubleword; outside the memory nothing happens.
    pub fn set(&mut self, addr: u64, value: u64) {
        if let Some(word) = self.index(addr).and_then(|i| self.words.get_mut(i)) {
            *word = value;
        }
    }

    /// The doubleword at `addr`, whatever fault is injected there; 0 outside the memory.
    #[must_use]
    pub fn get(&self, addr: u64) -> u64 {
        self.index(addr)
            .and_then(|i| self.words.get(i))
            .copied()
            .unwrap_or(0)
    }

    /// Doublewords in which another memory of the same place differs: address, here, there.
    pub fn differences(&self, other: &Self) -> impl Iterator<Item = (u64, u64, u64)> {
        let pairs = self.words.iter().zip(&other.words);
        (self.base..)
            .step_by(8)
            .zip(pairs)
            .filter_map(|(at, (a, b))| (a != b).then_some((at, *a, *b)))
    }

    fn index(&self, addr: u64) -> Option<usize> {
        usize::try_from(addr.checked_sub(self.base)? / 8).ok()
    }

    fn injected(&self, addr: u64) -> Option<Injected> {
        if self.injected.is_empty() {
            return None;
        }
        self.injected.get(&(addr & !7)).copied()
    }
}

impl SystemMemory for FlatMemory {
    fn load(&self, addr: u64) -> Result<u64, MemoryFault> {
        match self.injected(addr) {
            Some(Injected::AccessFault) => Err(MemoryFault::Access),
            Some(Injected::Poison) => Err(MemoryFault::Poison),
            Some(Injected::ReadOnly) | None => self
                .index(addr)
                .and_then(|i| self.words.get(i))
                .copied()
                .ok_or(MemoryFault::Access),
        }
    }

    fn store(&mut self, addr: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        for (at, byte) in (addr..).zip(bytes) {
            let fault = self.injected(at);
            if matches!(fault, Some(Injected::AccessFault | Injected::ReadOnly)) {
                return Err(MemoryFault::Access);
            }
            let word = self
                .index(at)
                .and_then(|i| self.words.get_mut(i))
                .ok_or(MemoryFault::Access)?;
            let shift = at % 8 * 8;
            *word = *word & !(0xff << shift) | u64::from(*byte) << shift;
        }
        Ok(())
    }

    fn compare_and_set(&mut self, addr: u64, old: u64, new: u64) -> Result<bool, MemoryFault> {
        if self.interference.is_some_and(|(at, _)| at == addr)
            && let Some((_, value)) = self.interference.take()
        {
            self.set(addr, value);
        }
        // A doubleword that refuses stores refuses the whole operation.
        if matches!(self.injected(addr), Some(Injected::ReadOnly)) {
            return Err(MemoryFault::Access);
        }
        let equal = self.load(addr)? == old;
        if equal {
            self.store(addr, &new.to_le_bytes())?;
        }
        Ok(equal)
    }
}
