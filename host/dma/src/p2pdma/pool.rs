//! Peer memory with struct pages, and its allocator (`gen_pool` with pages as its unit).

use std::collections::BTreeMap;

use tlproof_pcie::PhysAddr;

use super::{P2pError, ProviderId};
use crate::pages::PAGE_SIZE;

/// The pages of one function.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    chunks: Vec<Chunk>,
}

/// One `pci_p2pdma_add_resource`.
#[derive(Clone, Debug)]
struct Chunk {
    start: u64,
    /// First byte behind.
    end: u64,
    provider: ProviderId,
    /// Start and length of what is allocated.
    used: BTreeMap<u64, u64>,
}

impl Pool {
    /// Adds pages. The caller has seen that they are inside a BAR.
    pub fn add(
        &mut self,
        start: PhysAddr,
        size: u64,
        provider: ProviderId,
    ) -> Result<(), P2pError> {
        if !(start.0 | size).is_multiple_of(PAGE_SIZE) {
            return Err(P2pError::Misaligned);
        }
        let end = start.0.checked_add(size).ok_or(P2pError::OutsideBar)?;
        if self.chunks.iter().any(|c| start.0 < c.end && c.start < end) {
            return Err(P2pError::Busy);
        }
        self.chunks.push(Chunk {
            start: start.0,
            end,
            provider,
            used: BTreeMap::new(),
        });
        Ok(())
    }

    /// The provider of bytes that all have pages.
    pub fn page(&self, phys: PhysAddr, len: u64) -> Option<ProviderId> {
        let end = phys.0.checked_add(len.max(1))?;
        self.chunks
            .iter()
            .find(|c| c.start <= phys.0 && end <= c.end)
            .map(|c| c.provider)
    }

    /// Bytes allocated.
    pub fn used(&self) -> u64 {
        self.chunks.iter().flat_map(|c| c.used.values()).sum()
    }

    /// The first run of free pages that is long enough.
    pub fn alloc(&mut self, size: u64) -> Option<PhysAddr> {
        let size = size.max(1).checked_next_multiple_of(PAGE_SIZE)?;
        self.chunks.iter_mut().find_map(|c| {
            let mut at = c.start;
            for (start, len) in &c.used {
                if start - at >= size {
                    break;
                }
                at = start + len;
            }
            (c.end - at >= size).then(|| {
                c.used.insert(at, size);
                PhysAddr(at)
            })
        })
    }

    /// Gives an allocation back as a whole.
    pub fn free(&mut self, phys: PhysAddr, size: u64) -> Result<(), P2pError> {
        let whole = size.max(1).checked_next_multiple_of(PAGE_SIZE);
        self.chunks
            .iter_mut()
            .find(|c| whole.is_some() && c.used.get(&phys.0).copied() == whole)
            .and_then(|c| c.used.remove(&phys.0))
            .map(|_| ())
            .ok_or(P2pError::NotAllocated { phys, size })
    }
}
