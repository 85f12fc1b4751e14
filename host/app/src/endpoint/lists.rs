//! SGL descriptors as the driver writes them, and what the engine says about bad lists.

use tlproof_pcie::DmaAddr;

/// SGL Descriptor Type that the engine supports, subtype Address (NVM Express 1.4 §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SglKind {
    /// Data; address and length are multiples of 4.
    DataBlock = 0x0,
    /// Data that go nowhere when the device writes memory; nothing when it reads.
    BitBucket = 0x1,
    /// The next segment; another one follows it.
    Segment = 0x2,
    /// The last segment.
    LastSegment = 0x3,
}

/// One SGL descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SglDescriptor {
    /// What it is.
    pub kind: SglKind,
    /// Of the data, or of a segment (a multiple of 8).
    pub addr: DmaAddr,
    /// Bytes of the data, or of a segment (a multiple of 16).
    pub len: u32,
}

impl SglDescriptor {
    /// Bytes of a descriptor.
    pub const SIZE: u64 = 16;

    /// A descriptor of this kind.
    #[must_use]
    pub fn new(kind: SglKind, addr: DmaAddr, len: u32) -> Self {
        Self { kind, addr, len }
    }

    /// The two quad-words that it is in memory.
    #[must_use]
    pub fn to_words(self) -> [u64; 2] {
        [self.addr.0, u64::from(self.len) | (self.kind as u64) << 60]
    }

    /// The 16 bytes that it is in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let [low, high] = self.to_words();
        (u128::from(low) | u128::from(high) << 64).to_le_bytes()
    }
}

/// Why the engine left a list: a generic command status (NVM Express 1.4 §4.6.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A read of the list failed.
    #[error("data transfer error")]
    DataTransfer,
    /// A segment descriptor with a bad address or length, or in the last segment, or none at the
    /// end of another.
    #[error("invalid SGL segment descriptor")]
    SglSegment,
    /// A segment descriptor amid a segment, or too many descriptors.
    #[error("invalid number of SGL descriptors")]
    SglNumber,
    /// The list is longer or shorter than the data.
    #[error("data SGL length invalid")]
    SglLength,
    /// A descriptor of a type or subtype that is not supported.
    #[error("SGL descriptor type invalid")]
    SglType,
    /// A PRP entry with an offset that it must not have.
    #[error("PRP offset invalid")]
    PrpOffset,
    /// A data block that is not of whole DWs.
    #[error("SGL data block granularity invalid")]
    SglGranularity,
    /// A code that the engine does not document.
    #[error("list status {0:#x}")]
    Other(u8),
}

impl ListError {
    /// What the completion record says; `None` if the list was good.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0x00 => return None,
            0x04 => Self::DataTransfer,
            0x0d => Self::SglSegment,
            0x0e => Self::SglNumber,
            0x0f => Self::SglLength,
            0x11 => Self::SglType,
            0x13 => Self::PrpOffset,
            0x1e => Self::SglGranularity,
            other => Self::Other(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_in_memory() {
        let d = SglDescriptor::new(SglKind::LastSegment, DmaAddr(0x1122_3344_5566_7788), 0x30);
        let due = [
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x30, 0, 0, 0, 0, 0, 0, 0x30,
        ];
        assert_eq!(d.to_bytes(), due);
    }

    #[test]
    fn codes_of_the_specification() {
        assert_eq!(ListError::from_code(0), None);
        assert_eq!(ListError::from_code(0x13), Some(ListError::PrpOffset));
        assert_eq!(ListError::from_code(0x99), Some(ListError::Other(0x99)));
    }
}
