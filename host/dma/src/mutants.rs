//! Wrong implementations that are put into the mapping API and its drivers on purpose, to show that
//! the testbench notices each of them.
//!
//! Only with the feature `mutants`; without it `mutant!` is `false` and nothing of this is compiled.
//! At most one is armed, for the thread that armed it.

use std::cell::Cell;

macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A wrong implementation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// What is wrong.
            #[must_use]
            pub fn what(self) -> String {
                let lines: &[&str] = match self {
                    $(Self::$name => &[$($doc),+],)+
                };
                lines.iter().map(|l| l.trim()).collect::<Vec<_>>().join(" ")
            }
        }
    };
}

mutants! {
    /// Device memory is mapped cacheable.
    M1,
    /// Device memory is mapped cacheable and as device memory at once.
    M2,
    /// Device memory is mapped as non-cacheable memory.
    M3,
    /// Device memory is cleaned from the caches at map.
    M4,
    /// Device memory is invalidated in the caches at unmap.
    M5,
    /// Memory of a non-coherent device is not cleaned.
    M6,
    /// The copy out of the bounce slot comes before the slot is invalidated.
    M7a,
    /// The copy into the bounce slot comes after the slot was cleaned.
    M7b,
    /// Device memory is bounced.
    M8,
    /// An unaligned buffer of an untrusted device is not bounced.
    M9,
    /// The padding around a bounced buffer is not zeroed.
    M10,
    /// A driver unmaps device memory as if it was main memory.
    M11,
    /// A driver unmaps bounced memory as device memory.
    M12,
    /// A driver unmaps device memory with the page interface.
    M13,
    /// A driver unmaps less than it mapped.
    M14,
    /// A driver maps a peer that it cannot reach as a resource.
    M15,
    /// The CPU's address of a peer stands in for its bus address.
    M16,
    /// A bus address is used where the switch redirects.
    M17,
    /// The reach of one peer is taken for that of the next.
    M18,
    /// Metadata is mapped as the data is.
    M19,
    /// A peer in a scatterlist is mapped as main memory.
    M20a,
    /// A peer behind the host bridge has no DMA address in a scatterlist.
    M20b,
    /// DMA ranges are applied to device memory.
    M21,
    /// The DMA mask is not checked for device memory.
    M22,
    /// Device memory is accepted where everything is bounced.
    M23,
    /// What must be coherent is bounced.
    M24,
    /// A linked range is in use before its sync, on a unit that caches invalid entries.
    M25,
    /// A link in the middle of a state may begin inside a page.
    M26,
    /// Unlink frees the IOVA.
    M27,
    /// Destroy does not free the IOVA.
    M28,
    /// The mark of a bounced state counts as part of its size.
    M29,
    /// All ranges of a DMABUF are linked at the front.
    M30,
    /// Unmap does not wait for the invalidation's fence.
    M31,
    /// The flush queue gives IOVA back before the flush.
    M32,
    /// An invalidation names another address space.
    M33a,
    /// An invalidation names the page behind.
    M33b,
    /// An invalidated range is half as long as what was unmapped.
    M33c,
    /// Cached pointers to freed tables are not invalidated.
    M34,
    /// A device context is changed without an invalidation.
    M35a,
    /// A device context is valid before it has its page table.
    M35b,
    /// Leaf entries are not for user accesses.
    M36a,
    /// Leaf entries are not marked as accessed.
    M36b,
    /// Leaf entries that can be written are not marked as dirty.
    M36c,
    /// Leaf entries can be written and not read.
    M36d,
    /// What a device may only read it may write.
    M37,
    /// A 64 KiB entry stands in one of its 16 places.
    M38a,
    /// A 64 KiB entry is used for addresses that are not aligned to it.
    M38b,
    /// A large page is used for addresses that are not aligned to it.
    M39,
    /// The entry that a PRP list's chain displaces is lost.
    M40a,
    /// PRP entry 2 is a page where it has to be a list.
    M40b,
    /// Segments of an SGL are unmapped with the wrong length.
    M40c,
    /// The mark of a peer's page is lost, so that it is mapped as main memory.
    M41,
    /// An entry of dma-debug forgets its attributes.
    M42,
    /// A map that fails is not traced.
    M43a,
    /// A map that is rejected before it begins is traced.
    M43b,
    /// A BAR is mapped through one call as main memory, through another as device memory.
    M44,
}

impl Mutant {
    /// Why it cannot be seen here, if so.
    #[must_use]
    pub const fn exempt(self) -> Option<&'static str> {
        match self {
            Self::M25 => Some(
                "RISC-V IOMMUs cache no invalid entries, and no back end here defers a map: sync has nothing to do",
            ),
            Self::M35b => Some(
                "the host's stores take no simulated time: no walk of the unit comes between those of a context",
            ),
            _ => None,
        }
    }
}

impl std::fmt::Display for Mutant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{self:?}"))
    }
}

impl std::str::FromStr for Mutant {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let found = Self::ALL
            .iter()
            .find(|m| format!("{m:?}").eq_ignore_ascii_case(s));
        found.copied().ok_or_else(|| format!("no mutant {s}"))
    }
}

thread_local! {
    static ARMED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Whether this one is armed.
#[must_use]
pub fn armed(mutant: Mutant) -> bool {
    ARMED.get() == Some(mutant)
}

/// Disarms when it goes out of scope.
#[must_use]
pub struct Guard(Option<Mutant>);

impl Drop for Guard {
    fn drop(&mut self) {
        ARMED.set(self.0);
    }
}

/// Arms one, or none, for this thread.
pub fn arm(mutant: Option<Mutant>) -> Guard {
    Guard(ARMED.replace(mutant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_armed_as_long_as_its_guard_lives() {
        assert!(!mutant!(M1));
        {
            let _guard = arm(Some(Mutant::M1));
            assert!(mutant!(M1) && !mutant!(M2));
            std::thread::scope(|s| assert!(!s.spawn(|| mutant!(M1)).join().unwrap()));
        }
        assert!(!mutant!(M1));
    }

    #[test]
    fn names_are_read_back() {
        for m in Mutant::ALL {
            assert_eq!(m.to_string().parse(), Ok(*m));
        }
        assert!("M45".parse::<Mutant>().is_err());
    }
}
