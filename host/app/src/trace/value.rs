//! The values that stand in trace text, more than plain numbers.

use std::fmt;

use tlproof_pcie::Bdf;

/// A device by its kernel name (`dev_name`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// A PCI function, printed `ssss:bb:dd.f`.
    Pci {
        /// PCI segment (the kernel's "domain").
        segment: u32,
        /// Bus, device, function.
        bdf: Bdf,
    },
    /// A device of another bus, by name.
    Other(Box<str>),
}

impl Device {
    /// A PCI function of segment 0.
    #[must_use]
    pub const fn pci(bdf: Bdf) -> Self {
        Self::Pci { segment: 0, bdf }
    }

    /// The PCI function, if it is one of segment 0.
    #[must_use]
    pub const fn bdf(&self) -> Option<Bdf> {
        match self {
            Self::Pci { segment: 0, bdf } => Some(*bdf),
            _ => None,
        }
    }

    /// From a name; a name that is not exactly a PCI function's is another device's.
    pub(super) fn from_name(name: &[u8]) -> Self {
        pci_name(name).unwrap_or_else(|| Self::Other(String::from_utf8_lossy(name).into()))
    }
}

/// `ssss:bb:dd.f` with the kernel's widths (`%04x:%02x:%02x.%d`).
fn pci_name(name: &[u8]) -> Option<Device> {
    let hex = |digits: &[u8]| {
        digits.iter().try_fold(0_u32, |value, &b| {
            let digit = match b {
                b'0'..=b'9' => b - b'0',
                b'a'..=b'f' => b - b'a' + 10,
                _ => return None,
            };
            (value < 1 << 28).then_some(value << 4 | u32::from(digit))
        })
    };
    let split = name.len().checked_sub(8)?;
    let (segment, place) = name.split_at(split);
    let [b':', b1, b2, b':', d1, d2, b'.', f] = *place else {
        return None;
    };
    let padded = segment.len() == 4 || (segment.len() > 4 && segment[0] != b'0');
    let (device, function) = (hex(&[d1, d2])?, hex(&[f])?);
    (padded && device < 32 && function < 8).then_some(())?;
    Some(Device::Pci {
        segment: hex(segment)?,
        bdf: Bdf::new(hex(&[b1, b2])? as u8, device as u8, function as u8),
    })
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci { segment, bdf } => write!(f, "{segment:04x}:{bdf}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// `DMA_ATTR_*` bits of a mapping (Linux 7.2, `include/linux/dma-mapping.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Attrs(pub u64);

impl Attrs {
    /// `DMA_ATTR_SKIP_CPU_SYNC`.
    pub const SKIP_CPU_SYNC: Self = Self(1 << 5);
    /// `DMA_ATTR_MMIO`: the physical range is MMIO, without struct pages.
    pub const MMIO: Self = Self(1 << 10);

    /// The names, in the order in which the kernel prints them.
    const NAMES: [(u64, &'static str); 12] = [
        (1 << 1, "WEAK_ORDERING"),
        (1 << 2, "WRITE_COMBINE"),
        (1 << 4, "NO_KERNEL_MAPPING"),
        (1 << 5, "SKIP_CPU_SYNC"),
        (1 << 6, "FORCE_CONTIGUOUS"),
        (1 << 7, "ALLOC_SINGLE_PAGES"),
        (1 << 8, "NO_WARN"),
        (1 << 9, "PRIVILEGED"),
        (1 << 10, "MMIO"),
        (1 << 11, "CACHELINES_OVERLAP"),
        (1 << 12, "REQUIRE_COHERENT"),
        (1 << 13, "CC_SHARED"),
    ];

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bit of one name.
    pub(super) fn named(name: &[u8]) -> Option<u64> {
        Self::NAMES
            .iter()
            .find(|(_, n)| n.as_bytes() == name)
            .map(|(bit, _)| *bit)
    }
}

impl fmt::Display for Attrs {
    /// As the kernel's flag printer: names joined by `|`, what has no name as one number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut separator = "";
        for (bit, name) in Self::NAMES {
            if self.0 & bit != 0 {
                write!(f, "{separator}{name}")?;
                separator = "|";
                rest &= !bit;
            }
        }
        if rest != 0 {
            write!(f, "{separator}{rest:#x}")?;
        }
        Ok(())
    }
}

/// A kernel pointer as `%p` prints it: hashed, so good for telling two apart and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pointer {
    /// The hash.
    Hashed(u64),
    /// `(null)`.
    Null,
    /// `(____ptrval____)`: printed before the kernel had entropy for hashing.
    Unhashed,
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hashed(hash) => write!(f, "{hash:016x}"),
            Self::Null => f.write_str("(null)"),
            Self::Unhashed => f.write_str("(____ptrval____)"),
        }
    }
}

/// Entries of a scatterlist: how many the event lists and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Count {
    /// Listed in the event, 128 at most.
    pub listed: u32,
    /// In the list.
    pub full: u32,
}

/// What `__pci_p2pdma_update_state` decided about a pair of devices
/// (`enum pci_p2pdma_map_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum P2pMap {
    /// Not yet known (0).
    Unknown,
    /// The page is no peer-to-peer memory (1).
    None,
    /// No path between the two (2).
    NotSupported,
    /// Below one switch: bus addresses, no mapping (3).
    BusAddr,
    /// Through the host bridge: mapped as MMIO (4).
    ThruHostBridge,
}

impl P2pMap {
    /// All, at their number.
    const ALL: [Self; 5] = [
        Self::Unknown,
        Self::None,
        Self::NotSupported,
        Self::BusAddr,
        Self::ThruHostBridge,
    ];

    /// From the kernel's number.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }
}
