//! Directions and memory attributes.

use serde::{Deserialize, Serialize};

/// Direction of a mapping, `enum dma_data_direction` of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// The device reads and writes (`DMA_BIDIRECTIONAL`, 0).
    Bidirectional,
    /// The device reads (`DMA_TO_DEVICE`, 1).
    ToDevice,
    /// The device writes (`DMA_FROM_DEVICE`, 2).
    FromDevice,
}

impl Direction {
    /// Whether the device was promised that it may read.
    #[must_use]
    pub const fn device_reads(self) -> bool {
        !matches!(self, Self::FromDevice)
    }

    /// Whether the device was promised that it may write.
    #[must_use]
    pub const fn device_writes(self) -> bool {
        !matches!(self, Self::ToDevice)
    }

    /// The kernel's name, as trace events print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bidirectional => "BIDIRECTIONAL",
            Self::ToDevice => "TO_DEVICE",
            Self::FromDevice => "FROM_DEVICE",
        }
    }
}

/// Memory type of an access after attribute resolution, `mem_type_e` of the memory port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MemType {
    /// Cacheable write-back main memory.
    WriteBack,
    /// Non-cacheable, idempotent, weakly ordered (Svpbmt NC).
    NonCacheable,
    /// Device memory: non-cacheable, non-idempotent, strongly ordered (Svpbmt IO).
    Device,
}

impl MemType {
    /// Decodes the two-bit field of the memory port.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Self::WriteBack),
            1 => Some(Self::NonCacheable),
            2 => Some(Self::Device),
            _ => None,
        }
    }

    /// The name that reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WriteBack => "write-back",
            Self::NonCacheable => "non-cacheable",
            Self::Device => "device",
        }
    }
}

/// Attributes with which a request leaves the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemAttr {
    /// Memory type.
    pub mem_type: MemType,
    /// The access looks into the CPU caches.
    pub snoop: bool,
    /// No merge, no prefetch, in order.
    pub strong_order: bool,
}
