//! TLP headers, encoded as on the neutral TLP port: DW i of the header in `hdr[i]`, with the
//! byte that is first on the link in bits 31:24 (PCIe 6.0 §2.2).

use serde::{Deserialize, Serialize};

use crate::{Bdf, BusAddr};

/// Traffic class of the ordering table (PCIe 6.0 §2.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Memory writes and messages.
    Posted,
    /// Requests that are answered by a completion.
    NonPosted,
    /// Completions.
    Completion,
}

/// Completion Status (PCIe 6.0 §2.2.9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CplStatus {
    /// Successful Completion.
    Success,
    /// Unsupported Request.
    UnsupportedRequest,
    /// Configuration Request Retry Status.
    Retry,
    /// Completer Abort.
    CompleterAbort,
    /// A reserved encoding.
    Reserved(u8),
}

impl CplStatus {
    /// Decodes the three-bit field.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Success,
            1 => Self::UnsupportedRequest,
            2 => Self::Retry,
            4 => Self::CompleterAbort,
            other => Self::Reserved(other),
        }
    }

    /// Encodes the three-bit field.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedRequest => 1,
            Self::Retry => 2,
            Self::CompleterAbort => 4,
            Self::Reserved(b) => b,
        }
    }
}

/// Address Type of a memory request (PCIe 6.0 §2.2.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AddressType {
    /// 00: untranslated (or the host has no ATS).
    Untranslated,
    /// 01: translation request.
    TranslationRequest,
    /// 10: translated.
    Translated,
    /// 11.
    Reserved,
}

/// PASID TLP prefix (PCIe 6.0 §6.20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pasid {
    /// 20-bit PASID.
    pub pasid: u32,
    /// Privileged Mode Requested.
    pub privileged: bool,
    /// Execute Requested.
    pub execute: bool,
}

/// Fields of a memory request, to encode one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemRequest {
    /// Write or read.
    pub write: bool,
    /// Address of the first DW; bits 1:0 are ignored.
    pub addr: BusAddr,
    /// Length in DW, 1 to 1024.
    pub len_dw: u16,
    /// First DW byte enables.
    pub first_be: u8,
    /// Last DW byte enables, 0 for one DW.
    pub last_be: u8,
    /// Requester ID.
    pub requester: Bdf,
    /// 10-bit tag.
    pub tag: u16,
    /// Address Type.
    pub at: AddressType,
    /// No Snoop.
    pub no_snoop: bool,
    /// Relaxed Ordering.
    pub relaxed: bool,
    /// ID-based Ordering.
    pub ido: bool,
    /// Traffic Class, 0 to 7.
    pub tc: u8,
    /// PASID prefix.
    pub pasid: Option<Pasid>,
}

/// Header and prefix of a TLP: what stands beside its first beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Head {
    /// Header DWs; a 3-DW header leaves the fourth 0.
    pub hdr: [u32; 4],
    /// PASID prefix DW, if present.
    pub pfx: Option<u32>,
}

/// Fmt and Type of DW 0 bits 31:24 (PCIe 6.0 Table 2-3).
pub mod fmt_type {
    /// Memory read, 3-DW header.
    pub const MRD32: u8 = 0x00;
    /// Memory read, 4-DW header.
    pub const MRD64: u8 = 0x20;
    /// Memory write, 3-DW header.
    pub const MWR32: u8 = 0x40;
    /// Memory write, 4-DW header.
    pub const MWR64: u8 = 0x60;
    /// Configuration read Type 0.
    pub const CFGRD0: u8 = 0x04;
    /// Configuration write Type 0.
    pub const CFGWR0: u8 = 0x44;
    /// Configuration read Type 1.
    pub const CFGRD1: u8 = 0x05;
    /// Configuration write Type 1.
    pub const CFGWR1: u8 = 0x45;
    /// Completion without data.
    pub const CPL: u8 = 0x0a;
    /// Completion with data.
    pub const CPLD: u8 = 0x4a;
    /// PASID TLP prefix.
    pub const PASID: u8 = 0x91;
}

impl Head {
    /// Encodes a memory request; the 3-DW form below 4 GiB, the 4-DW form from there on
    /// (PCIe 6.0 §2.2.4.1).
    #[must_use]
    pub fn mem(r: &MemRequest) -> Self {
        let long = r.addr.0 >> 32 != 0;
        let attr = u32::from(r.no_snoop) | u32::from(r.relaxed) << 1;
        let at = match r.at {
            AddressType::Untranslated => 0,
            AddressType::TranslationRequest => 1,
            AddressType::Translated => 2,
            AddressType::Reserved => 3,
        };
        let tag = u32::from(r.tag);
        let dw0 = u32::from(long) << 29
            | u32::from(r.write) << 30
            | (tag >> 9 & 1) << 23
            | u32::from(r.tc & 7) << 20
            | (tag >> 8 & 1) << 19
            | u32::from(r.ido) << 18
            | attr << 12
            | at << 10
            | u32::from(r.len_dw & 0x3ff);
        let dw1 = u32::from(r.requester.0) << 16
            | (tag & 0xff) << 8
            | u32::from(r.last_be & 15) << 4
            | u32::from(r.first_be & 15);
        let low = r.addr.0 as u32 & !3;
        let hdr = if long {
            [dw0, dw1, (r.addr.0 >> 32) as u32, low]
        } else {
            [dw0, dw1, low, 0]
        };
        let pfx = r.pasid.map(|p| {
            u32::from(fmt_type::PASID) << 24
                | u32::from(p.privileged) << 23
                | u32::from(p.execute) << 22
                | p.pasid & 0xf_ffff
        });
        Self { hdr, pfx }
    }

    /// Fmt and Type, DW 0 bits 31:24.
    #[must_use]
    pub const fn fmt_type(&self) -> u8 {
        (self.hdr[0] >> 24) as u8
    }

    /// Whether the header has four DWs.
    #[must_use]
    pub const fn is_4dw(&self) -> bool {
        self.hdr[0] >> 29 & 1 != 0
    }

    /// Whether a payload follows.
    #[must_use]
    pub const fn has_data(&self) -> bool {
        self.hdr[0] >> 30 & 1 != 0
    }

    const fn typ(&self) -> u32 {
        self.hdr[0] >> 24 & 0x1f
    }

    /// A memory read or write.
    #[must_use]
    pub const fn is_mem(&self) -> bool {
        self.typ() == 0
    }

    /// A memory write.
    #[must_use]
    pub const fn is_mem_write(&self) -> bool {
        self.is_mem() && self.has_data()
    }

    /// A memory read.
    #[must_use]
    pub const fn is_mem_read(&self) -> bool {
        self.is_mem() && !self.has_data()
    }

    /// A configuration request.
    #[must_use]
    pub const fn is_cfg(&self) -> bool {
        self.typ() >> 1 == 0b00010
    }

    /// A message.
    #[must_use]
    pub const fn is_msg(&self) -> bool {
        self.typ() >> 3 == 0b10
    }

    /// A completion.
    #[must_use]
    pub const fn is_cpl(&self) -> bool {
        self.typ() == 0b01010
    }

    /// Ordering class.
    #[must_use]
    pub const fn class(&self) -> Class {
        if self.is_cpl() {
            Class::Completion
        } else if self.is_msg() || self.is_mem_write() {
            Class::Posted
        } else {
            Class::NonPosted
        }
    }

    /// Length in DW, 1 to 1024.
    #[must_use]
    pub const fn len_dw(&self) -> u16 {
        let l = (self.hdr[0] & 0x3ff) as u16;
        if l == 0 { 1024 } else { l }
    }

    /// Traffic Class.
    #[must_use]
    pub const fn tc(&self) -> u8 {
        (self.hdr[0] >> 20 & 7) as u8
    }

    /// No Snoop attribute.
    #[must_use]
    pub const fn no_snoop(&self) -> bool {
        self.hdr[0] >> 12 & 1 != 0
    }

    /// Relaxed Ordering attribute.
    #[must_use]
    pub const fn relaxed(&self) -> bool {
        self.hdr[0] >> 13 & 1 != 0
    }

    /// ID-based Ordering attribute.
    #[must_use]
    pub const fn ido(&self) -> bool {
        self.hdr[0] >> 18 & 1 != 0
    }

    /// Poisoned data.
    #[must_use]
    pub const fn poisoned(&self) -> bool {
        self.hdr[0] >> 14 & 1 != 0
    }

    /// Address Type of a memory request.
    #[must_use]
    pub const fn at(&self) -> AddressType {
        match self.hdr[0] >> 10 & 3 {
            0 => AddressType::Untranslated,
            1 => AddressType::TranslationRequest,
            2 => AddressType::Translated,
            _ => AddressType::Reserved,
        }
    }

    /// Requester ID, of a request or of the request that a completion answers.
    #[must_use]
    pub const fn requester(&self) -> Bdf {
        if self.is_cpl() {
            Bdf((self.hdr[2] >> 16) as u16)
        } else {
            Bdf((self.hdr[1] >> 16) as u16)
        }
    }

    /// 10-bit tag, of a request or of the request that a completion answers.
    #[must_use]
    pub const fn tag(&self) -> u16 {
        let low = if self.is_cpl() {
            self.hdr[2] >> 8
        } else {
            self.hdr[1] >> 8
        };
        (low & 0xff | (self.hdr[0] >> 19 & 1) << 8 | (self.hdr[0] >> 23 & 1) << 9) as u16
    }

    /// First DW byte enables of a request.
    #[must_use]
    pub const fn first_be(&self) -> u8 {
        (self.hdr[1] & 15) as u8
    }

    /// Last DW byte enables of a request.
    #[must_use]
    pub const fn last_be(&self) -> u8 {
        (self.hdr[1] >> 4 & 15) as u8
    }

    /// Address of the first DW of a memory request.
    #[must_use]
    pub const fn addr(&self) -> BusAddr {
        BusAddr(if self.is_4dw() {
            (self.hdr[2] as u64) << 32 | (self.hdr[3] & !3) as u64
        } else {
            (self.hdr[2] & !3) as u64
        })
    }

    /// The same memory request at another address, in the form that the address asks for.
    #[must_use]
    pub const fn with_addr(&self, addr: BusAddr) -> Self {
        let low = addr.0 as u32 & !3;
        let high = (addr.0 >> 32) as u32;
        let dw0 = self.hdr[0] & !(1 << 29) | ((high != 0) as u32) << 29;
        let hdr = if high != 0 {
            [dw0, self.hdr[1], high, low]
        } else {
            [dw0, self.hdr[1], low, 0]
        };
        Self { hdr, pfx: self.pfx }
    }

    /// Offset of the first enabled byte from [`Head::addr`] and number of bytes from it to the
    /// last enabled one (PCIe 6.0 §2.2.5); `(0, 0)` for a request that enables none.
    #[must_use]
    pub const fn byte_span(&self) -> (u64, u64) {
        let (fbe, lbe) = (self.first_be(), self.last_be());
        if lbe == 0 {
            if fbe == 0 {
                return (0, 0);
            }
            let first = fbe.trailing_zeros() as u64;
            return (first, 8 - fbe.leading_zeros() as u64 - first);
        }
        let first = if fbe == 0 {
            4
        } else {
            fbe.trailing_zeros() as u64
        };
        let tail = 4 - (8 - lbe.leading_zeros() as u64);
        (first, self.len_dw() as u64 * 4 - first - tail)
    }

    /// Target of a configuration request or of a message routed by ID.
    #[must_use]
    pub const fn target(&self) -> Bdf {
        Bdf((self.hdr[2] >> 16) as u16)
    }

    /// Byte offset of the register that a configuration request names.
    #[must_use]
    pub const fn register(&self) -> u16 {
        (self.hdr[2] & 0xffc) as u16
    }

    /// Completer ID of a completion.
    #[must_use]
    pub const fn completer(&self) -> Bdf {
        Bdf((self.hdr[1] >> 16) as u16)
    }

    /// Status of a completion.
    #[must_use]
    pub const fn status(&self) -> CplStatus {
        CplStatus::from_bits((self.hdr[1] >> 13 & 7) as u8)
    }

    /// Bytes that remain, this completion included: 1 to 4096.
    #[must_use]
    pub const fn byte_count(&self) -> u16 {
        let n = (self.hdr[1] & 0xfff) as u16;
        if n == 0 { 4096 } else { n }
    }

    /// Lower seven address bits of the first byte that a completion carries.
    #[must_use]
    pub const fn lower_addr(&self) -> u8 {
        (self.hdr[2] & 0x7f) as u8
    }

    /// The PASID prefix.
    #[must_use]
    pub const fn pasid(&self) -> Option<Pasid> {
        match self.pfx {
            None => None,
            Some(p) => Some(Pasid {
                pasid: p & 0xf_ffff,
                privileged: p >> 23 & 1 != 0,
                execute: p >> 22 & 1 != 0,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
