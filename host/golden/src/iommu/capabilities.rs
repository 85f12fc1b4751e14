//! The `capabilities` register, decoded (IOMMU §5.3).

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// What an IOMMU implements, decoded from the value of its `capabilities` register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one field per bit of the register"
)]
pub struct Capabilities {
    /// The register's value.
    pub bits: u64,
    /// First-stage Sv32.
    pub sv32: bool,
    /// First-stage Sv39.
    pub sv39: bool,
    /// First-stage Sv48.
    pub sv48: bool,
    /// First-stage Sv57.
    pub sv57: bool,
    /// PTE bits 60:59 belong to software.
    pub svrsw60t59b: bool,
    /// Page-based memory types.
    pub svpbmt: bool,
    /// Second-stage Sv32x4.
    pub sv32x4: bool,
    /// Second-stage Sv39x4.
    pub sv39x4: bool,
    /// Second-stage Sv48x4.
    pub sv48x4: bool,
    /// Second-stage Sv57x4.
    pub sv57x4: bool,
    /// Flat MSI page tables; selects the 64-byte device context.
    pub msi_flat: bool,
    /// MSI PTEs may name memory-resident interrupt files.
    pub msi_mrif: bool,
    /// Atomic updates of memory-resident interrupt files.
    pub amo_mrif: bool,
    /// Hardware updates of the A and D bits.
    pub amo_hwad: bool,
    /// PCIe ATS and PRI.
    pub ats: bool,
    /// ATS completions may hold guest physical addresses.
    pub t2gpa: bool,
    /// Both endiannesses.
    pub end: bool,
    /// Interrupt generation: 0 MSI, 1 wires, 2 both.
    pub igs: u8,
    /// Performance monitor.
    pub hpm: bool,
    /// Translation requests through registers.
    pub dbg: bool,
    /// Width of physical addresses in bits.
    pub pas: u8,
    /// One-level process directory.
    pub pd8: bool,
    /// Two-level process directory.
    pub pd17: bool,
    /// Three-level process directory.
    pub pd20: bool,
    /// Quality-of-service identifiers.
    pub qosid: bool,
    /// Invalidation of non-leaf entries by address.
    pub nl: bool,
    /// Invalidation of address ranges.
    pub s: bool,
}

/// A field of the register: its name in small letters, its lowest bit, its width.
type RegisterField = (&'static str, u32, u32);

impl Capabilities {
    /// The fields of the register.
    pub const FIELDS: [RegisterField; 29] = [
        ("version", 0, 8),
        ("sv32", 8, 1),
        ("sv39", 9, 1),
        ("sv48", 10, 1),
        ("sv57", 11, 1),
        ("svrsw60t59b", 14, 1),
        ("svpbmt", 15, 1),
        ("sv32x4", 16, 1),
        ("sv39x4", 17, 1),
        ("sv48x4", 18, 1),
        ("sv57x4", 19, 1),
        ("amo_mrif", 21, 1),
        ("msi_flat", 22, 1),
        ("msi_mrif", 23, 1),
        ("amo_hwad", 24, 1),
        ("ats", 25, 1),
        ("t2gpa", 26, 1),
        ("end", 27, 1),
        ("igs", 28, 2),
        ("hpm", 30, 1),
        ("dbg", 31, 1),
        ("pas", 32, 6),
        ("pd8", 38, 1),
        ("pd17", 39, 1),
        ("pd20", 40, 1),
        ("qosid", 41, 1),
        ("nl", 42, 1),
        ("s", 43, 1),
        ("custom", 56, 8),
    ];

    /// Names and values of the fields.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let bits = self.bits;
        let value =
            move |(name, low, width): RegisterField| (name, bits >> low & ((1 << width) - 1));
        Self::FIELDS.into_iter().map(value)
    }

    /// Decodes the register.
    #[must_use]
    pub const fn decode(bits: u64) -> Self {
        const fn bit(bits: u64, n: u32) -> bool {
            bits >> n & 1 == 1
        }
        Self {
            bits,
            sv32: bit(bits, 8),
            sv39: bit(bits, 9),
            sv48: bit(bits, 10),
            sv57: bit(bits, 11),
            svrsw60t59b: bit(bits, 14),
            svpbmt: bit(bits, 15),
            sv32x4: bit(bits, 16),
            sv39x4: bit(bits, 17),
            sv48x4: bit(bits, 18),
            sv57x4: bit(bits, 19),
            msi_flat: bit(bits, 22),
            msi_mrif: bit(bits, 23),
            amo_mrif: bit(bits, 21),
            amo_hwad: bit(bits, 24),
            ats: bit(bits, 25),
            t2gpa: bit(bits, 26),
            end: bit(bits, 27),
            igs: (bits >> 28 & 3) as u8,
            hpm: bit(bits, 30),
            dbg: bit(bits, 31),
            pas: (bits >> 32 & 0x3f) as u8,
            pd8: bit(bits, 38),
            pd17: bit(bits, 39),
            pd20: bit(bits, 40),
            qosid: bit(bits, 41),
            nl: bit(bits, 42),
            s: bit(bits, 43),
        }
    }

    /// Whether any second-stage scheme exists.
    #[must_use]
    pub const fn second_stage(&self) -> bool {
        self.sv32x4 || self.sv39x4 || self.sv48x4 || self.sv57x4
    }

    /// Bytes in a device context (IOMMU §2.1).
    #[must_use]
    pub const fn dc_size(&self) -> u64 {
        if self.msi_flat { 64 } else { 32 }
    }

    /// The bits of an MSI address mask that stand for guest addresses: the widest that any
    /// second stage knows, or physical ones without one (IOMMU §2.1.3.6).
    #[must_use]
    pub const fn msi_mask_bits(&self) -> u64 {
        let width = if self.sv57x4 {
            59
        } else if self.sv48x4 {
            50
        } else if self.sv39x4 {
            41
        } else if self.sv32x4 {
            34
        } else {
            self.pas
        };
        if width <= 12 {
            0
        } else {
            (1 << (width - 12)) - 1
        }
    }

    /// An address without the bits beyond `PAS`.
    #[must_use]
    pub const fn clip(&self, addr: u64) -> u64 {
        if self.pas >= 64 {
            addr
        } else {
            addr & ((1 << self.pas) - 1)
        }
    }

    /// Whether a physical address is within `PAS` bits.
    #[must_use]
    pub const fn addressable(&self, addr: u64) -> bool {
        self.pas >= 64 || addr >> self.pas == 0
    }
}

/// From a map of the register's fields: those of one bit are booleans, the others numbers. `version` is
/// 1.0 if it is not there, all others 0.
impl<'de> Deserialize<'de> for Capabilities {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Capabilities;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields of the capabilities register")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Capabilities, A::Error> {
        let mut bits = 0x10;
        while let Some(Key((name, low, width))) = map.next_key()? {
            let largest = (1 << width) - 1;
            let value = if width == 1 {
                map.next_value::<bool>()?.into()
            } else {
                map.next_value::<u64>()?
            };
            if value > largest {
                let text = format!("{name} = {value}: it has {width} bits, at most {largest}");
                return Err(de::Error::custom(text));
            }
            bits = bits & !(largest << low) | value << low;
        }
        Ok(Capabilities::decode(bits))
    }
}

/// The name of a field.
struct Key(RegisterField);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        const NAMES: [&str; Capabilities::FIELDS.len()] = {
            let mut names = [""; Capabilities::FIELDS.len()];
            let mut i = 0;
            while i < names.len() {
                names[i] = Capabilities::FIELDS[i].0;
                i += 1;
            }
            names
        };
        let key = String::deserialize(from)?;
        let mut fields = Capabilities::FIELDS.into_iter();
        let field = fields.find(|field| field.0 == key);
        field
            .map(Self)
            .ok_or_else(|| de::Error::unknown_field(&key, &NAMES))
    }
}
