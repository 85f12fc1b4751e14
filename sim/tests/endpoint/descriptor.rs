//! Descriptors of the DMA engine as the host gives them (`docs/endpoint.md`).

use tlproof_pcie::{
    Bdf, CplStatus,
    tlp::{AddressType, Pasid},
};

/// How a descriptor leads to its data.
#[derive(Clone, Copy, Debug)]
pub enum Pointer {
    Contiguous,
    /// PRP entry 2.
    Prp(u64),
    /// High half of the SGL descriptor.
    Sgl(u64),
}

/// A descriptor of the DMA engine (`docs/endpoint.md`).
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Of the data, PRP entry 1, or the low half of the SGL descriptor.
    pub addr: u64,
    pub pointer: Pointer,
    pub len: u32,
    pub offset: u32,
    pub write: bool,
    pub pattern: bool,
    pub at: AddressType,
    pub no_snoop: bool,
    pub relaxed: bool,
    pub ido: bool,
    pub tc: u8,
    pub pasid: Option<Pasid>,
    pub requester: Option<Bdf>,
    pub irq: Option<u8>,
    pub seed: u32,
    /// How the host completes its reads of data.
    pub answer: CplStatus,
    /// The read of its list that fails, and how.
    pub list_answer: Option<(usize, CplStatus)>,
}

impl Descriptor {
    pub fn plain(write: bool, addr: u64, len: u32, offset: u32) -> Self {
        Self {
            addr,
            pointer: Pointer::Contiguous,
            len,
            offset,
            write,
            pattern: false,
            at: AddressType::Untranslated,
            no_snoop: false,
            relaxed: false,
            ido: false,
            tc: 0,
            pasid: None,
            requester: None,
            irq: None,
            seed: 0,
            answer: CplStatus::Success,
            list_answer: None,
        }
    }

    /// DESC_ADDR2.
    pub fn addr2(&self) -> u64 {
        match self.pointer {
            Pointer::Contiguous => 0,
            Pointer::Prp(second) => second,
            Pointer::Sgl(high) => high,
        }
    }

    /// DESC_CTRL.
    pub fn ctrl(&self) -> u64 {
        let at = match self.at {
            AddressType::Untranslated => 0,
            AddressType::TranslationRequest => 1,
            AddressType::Translated => 2,
            AddressType::Reserved => 3,
        };
        let pasid = self.pasid.map_or(0, |p| {
            1 << 7
                | u64::from(p.privileged) << 8
                | u64::from(p.execute) << 9
                | u64::from(p.pasid) << 32
        });
        u64::from(self.write)
            | u64::from(self.pattern) << 1
            | at << 2
            | u64::from(self.no_snoop) << 4
            | u64::from(self.relaxed) << 5
            | u64::from(self.ido) << 6
            | pasid
            | u64::from(self.requester.is_some()) << 10
            | self.irq.map_or(0, |v| 1 << 11 | u64::from(v) << 12)
            | u64::from(self.tc) << 16
            | match self.pointer {
                Pointer::Contiguous => 0,
                Pointer::Prp(_) => 1 << 20,
                Pointer::Sgl(_) => 2 << 20,
            }
    }

    /// DESC_AUX.
    pub fn aux(&self) -> u64 {
        u64::from(self.requester.map_or(0, |r| r.0)) | u64::from(self.seed) << 32
    }
}

/// The pattern generator's byte at `addr`.
pub fn pattern(addr: u64, seed: u32) -> u8 {
    let mut x = (addr >> 2) as u32 ^ seed;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    x.to_le_bytes()[(addr % 4) as usize]
}

/// What main memory holds.
pub fn memory(addr: u64) -> u8 {
    (addr.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}
