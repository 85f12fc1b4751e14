//! The register file as the CPUs know it: what they wrote and what they read.

use super::{Capabilities, offset};

const BYTES: usize = 1024;

/// A shadow of the registers: the last value that a CPU wrote to or read from each.
#[derive(Clone)]
pub struct Registers {
    /// The decoded `capabilities` register.
    pub capabilities: Capabilities,
    bytes: Box<[u8; BYTES]>,
}

impl Registers {
    /// The registers after reset, of an IOMMU with these capabilities.
    #[must_use]
    pub fn new(capabilities: Capabilities) -> Self {
        Self {
            capabilities,
            bytes: Box::new([0; BYTES]),
        }
    }

    /// A CPU wrote `size` bytes (4 or 8) at `offset`.
    pub fn write(&mut self, offset: u32, size: u8, value: u64) {
        for (at, value) in words(offset, size, value) {
            let keep = match at {
                0..8 | offset::CQH | offset::FQT => continue, // read-only
                // The error bits are RW1C, `on` and `busy` read-only; enabling clears the former.
                offset::CQCSR | offset::FQCSR => {
                    let old = self.u32(at);
                    let enabled = value & !old & 1 == 1;
                    let errors = if enabled { 0 } else { old & 0xf00 & !value };
                    value & 3 | errors | old & 0x3_0000
                }
                _ => value,
            };
            self.store(at, keep);
        }
    }

    /// A CPU read `value` from the `size` bytes (4 or 8) at `offset`.
    pub fn read_observed(&mut self, offset: u32, size: u8, value: u64) {
        for (at, value) in words(offset, size, value) {
            if at >= 8 {
                self.store(at, value);
            }
        }
    }

    /// `fctl`.
    #[must_use]
    pub fn fctl(&self) -> u32 {
        self.u32(offset::FCTL)
    }

    /// `ddtp`.
    #[must_use]
    pub fn ddtp(&self) -> u64 {
        self.u64(offset::DDTP)
    }

    /// `cqb`.
    #[must_use]
    pub fn cqb(&self) -> u64 {
        self.u64(offset::CQB)
    }

    /// `cqh`.
    #[must_use]
    pub fn cqh(&self) -> u32 {
        self.u32(offset::CQH)
    }

    /// `cqt`.
    #[must_use]
    pub fn cqt(&self) -> u32 {
        self.u32(offset::CQT)
    }

    /// `cqcsr`.
    #[must_use]
    pub fn cqcsr(&self) -> u32 {
        self.u32(offset::CQCSR)
    }

    /// `fqb`.
    #[must_use]
    pub fn fqb(&self) -> u64 {
        self.u64(offset::FQB)
    }

    /// `fqh`.
    #[must_use]
    pub fn fqh(&self) -> u32 {
        self.u32(offset::FQH)
    }

    /// `fqt`.
    #[must_use]
    pub fn fqt(&self) -> u32 {
        self.u32(offset::FQT)
    }

    /// `fqcsr`.
    #[must_use]
    pub fn fqcsr(&self) -> u32 {
        self.u32(offset::FQCSR)
    }

    /// `iommu_qosid`.
    #[must_use]
    pub fn qosid(&self) -> u32 {
        self.u32(offset::QOSID)
    }

    /// `icvec`.
    #[must_use]
    pub fn icvec(&self) -> u64 {
        self.u64(offset::ICVEC)
    }

    /// Address, data and vector control of entry `index` (0 to 15) of `msi_cfg_tbl`.
    #[must_use]
    pub fn msi(&self, index: u8) -> (u64, u32, u32) {
        let at = offset::MSI_CFG_TBL + 16 * u32::from(index & 15);
        (self.u64(at), self.u32(at + 8), self.u32(at + 12))
    }

    fn store(&mut self, at: u32, value: u32) {
        if let Some(bytes) = self.bytes.get_mut(at as usize..at as usize + 4) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn u32(&self, at: u32) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[at as usize..at as usize + 4]);
        u32::from_le_bytes(word)
    }

    fn u64(&self, at: u32) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }
}

/// The four-byte registers that an access touches, in ascending order; accesses of other sizes or
/// alignments are unspecified (IOMMU §5) and touch none.
fn words(offset: u32, size: u8, value: u64) -> impl Iterator<Item = (u32, u32)> {
    let count = match size {
        4 | 8 if offset.is_multiple_of(u32::from(size)) => u32::from(size) / 4,
        _ => 0,
    };
    (0..count).map(move |i| (offset.wrapping_add(4 * i), (value >> (32 * i)) as u32))
}
