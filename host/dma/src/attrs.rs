//! DMA attributes (`DMA_ATTR_*`).

use std::{fmt, str::FromStr};

use bitflags::bitflags;

bitflags! {
    /// Attributes of a mapping or an allocation, with the kernel's values.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Attrs: u32 {
        /// Reads and writes may pass each other; no effect on the back ends modelled here.
        const WEAK_ORDERING = 1 << 1;
        /// Allocation only: the CPU maps the buffer write-combining.
        const WRITE_COMBINE = 1 << 2;
        /// Allocation only: the CPU does not map the buffer.
        const NO_KERNEL_MAPPING = 1 << 4;
        /// No cache maintenance at map and unmap, and no copy out of a bounce slot at unmap.
        const SKIP_CPU_SYNC = 1 << 5;
        /// Allocation only: physically contiguous.
        const FORCE_CONTIGUOUS = 1 << 6;
        /// Allocation only: large pages are not worth an effort.
        const ALLOC_SINGLE_PAGES = 1 << 7;
        /// No warning when memory or bounce slots run out.
        const NO_WARN = 1 << 8;
        /// The device accesses with privilege.
        const PRIVILEGED = 1 << 9;
        /// Device memory: never touched by the CPU, never bounced, never cached.
        const MMIO = 1 << 10;
        /// The caller knows that mappings overlap in cache lines.
        const DEBUGGING_IGNORE_CACHELINES = 1 << 11;
        /// The mapping fails rather than to need cache maintenance or a bounce slot.
        const REQUIRE_COHERENT = 1 << 12;
        /// The buffer is shared with the host (decrypted).
        const CC_SHARED = 1 << 13;
    }
}

/// Names as trace events print them, lowest bit first.
const NAMES: [(Attrs, &str); 12] = [
    (Attrs::WEAK_ORDERING, "WEAK_ORDERING"),
    (Attrs::WRITE_COMBINE, "WRITE_COMBINE"),
    (Attrs::NO_KERNEL_MAPPING, "NO_KERNEL_MAPPING"),
    (Attrs::SKIP_CPU_SYNC, "SKIP_CPU_SYNC"),
    (Attrs::FORCE_CONTIGUOUS, "FORCE_CONTIGUOUS"),
    (Attrs::ALLOC_SINGLE_PAGES, "ALLOC_SINGLE_PAGES"),
    (Attrs::NO_WARN, "NO_WARN"),
    (Attrs::PRIVILEGED, "PRIVILEGED"),
    (Attrs::MMIO, "MMIO"),
    (Attrs::DEBUGGING_IGNORE_CACHELINES, "CACHELINES_OVERLAP"),
    (Attrs::REQUIRE_COHERENT, "REQUIRE_COHERENT"),
    (Attrs::CC_SHARED, "CC_SHARED"),
];

impl fmt::Display for Attrs {
    /// Names joined by `|`, empty without attributes, as the kernel's trace events print them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (_, name) in NAMES.iter().filter(|(bit, _)| self.contains(*bit)) {
            if !first {
                f.write_str("|")?;
            }
            f.write_str(name)?;
            first = false;
        }
        Ok(())
    }
}

/// A name that is no DMA attribute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a DMA attribute")]
pub struct ParseAttrsError(String);

impl FromStr for Attrs {
    type Err = ParseAttrsError;

    /// Reads what [`Display`](fmt::Display) prints; the empty string is no attribute.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.split('|')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .try_fold(Self::empty(), |attrs, name| {
                NAMES
                    .iter()
                    .find(|(_, n)| *n == name)
                    .map(|(bit, _)| attrs | *bit)
                    .ok_or_else(|| ParseAttrsError(name.to_owned()))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_every_name() {
        for (bit, name) in NAMES {
            assert_eq!(bit.to_string(), name);
            assert_eq!(name.parse(), Ok(bit));
        }
        let all = Attrs::all();
        assert_eq!(all.to_string().parse(), Ok(all));
        assert_eq!("".parse(), Ok(Attrs::empty()));
        assert_eq!(Attrs::MMIO.bits(), 0x400);
        assert_eq!(Attrs::CC_SHARED.bits(), 0x2000);
    }

    #[test]
    fn refuses_unknown_names() {
        assert!("MMIO|NOPE".parse::<Attrs>().is_err());
    }
}
