//! Commands as the judge reads them from queue memory (IOMMU §3.1).

use super::Capabilities;

/// What a command makes the IOMMU forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// First-stage translations without a second stage.
    FirstStage {
        /// Only this address space, and of it only what is not global.
        pscid: Option<u32>,
        /// Only what overlaps these bytes of IOVA, both ends inclusive.
        range: Option<(u64, u64)>,
        /// With a range: non-leaf entries too.
        non_leaf: bool,
    },
    /// Device contexts: of one device, or all directory entries.
    Directory(Option<u32>),
    /// Nothing that this model caches.
    Nothing,
}

/// A decoded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// IOTINVAL or IODIR.
    Invalidate(Scope),
    /// IOFENCE.C, with the address and data of its store.
    Fence(Option<(u64, u32)>),
    /// Illegal or unsupported: the queue stops here.
    Illegal,
}

impl Command {
    /// Decodes the two doublewords of a command. `wsi` is `fctl.WSI`.
    pub fn decode([w0, w1]: [u64; 2], caps: &Capabilities, wsi: bool) -> Self {
        let bit = |n: u32| w0 >> n & 1 == 1;
        match (w0 & 0x7f, w0 >> 7 & 7) {
            (1, func3 @ (0 | 1)) => {
                let (nl, s) = (bit(34), w1 >> 9 & 1 == 1);
                // Bits 34 and 73 belong to the extensions NL and S (IOMMU §8).
                let reserved = bit(11)
                    || w0 & (0x1ff << 35 | 0xf << 60) != 0
                    || w1 & (0x1ff | 0x3 << 62) != 0
                    || nl && !caps.nl
                    || s && !caps.s;
                if reserved || func3 == 1 && bit(32) {
                    return Self::Illegal;
                }
                if func3 == 1 || bit(33) {
                    return Self::Invalidate(Scope::Nothing);
                }
                let range = bit(10).then(|| range(w1 >> 10 << 12, s));
                Self::Invalidate(Scope::FirstStage {
                    pscid: bit(32).then_some((w0 >> 12 & 0xf_ffff) as u32),
                    range,
                    non_leaf: nl,
                })
            }
            (2, 0) => {
                let reserved = w0 & 0x3_ffff << 14 != 0 || w1 >> 62 != 0 || bit(11) && !wsi;
                if reserved {
                    return Self::Illegal;
                }
                Self::Fence(bit(10).then_some((w1 << 2, (w0 >> 32) as u32)))
            }
            (3, func3 @ (0 | 1)) => {
                let reserved = w0 & (0b11 << 10 | 1 << 32 | 0x3f << 34) != 0 || w1 != 0;
                let operands = match func3 {
                    0 => w0 >> 12 & 0xf_ffff == 0,
                    _ => bit(33),
                };
                if reserved || !operands {
                    return Self::Illegal;
                }
                Self::Invalidate(match (func3, bit(33)) {
                    (1, _) => Scope::Nothing,
                    (_, true) => Scope::Directory(Some((w0 >> 40) as u32)),
                    (_, false) => Scope::Directory(None),
                })
            }
            (4, 0 | 1) if caps.ats => Self::Invalidate(Scope::Nothing),
            _ => Self::Illegal,
        }
    }
}

/// The bytes that `ADDR` names: a page, or with `s` the naturally aligned range that the lowest 0
/// bit of the page number encodes (IOMMU §8, address range invalidation).
fn range(addr: u64, s: bool) -> (u64, u64) {
    let bits = if s {
        (addr >> 12).trailing_ones() + 13
    } else {
        12
    };
    let mask = if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    };
    (addr & !mask, addr | mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(w: [u64; 2], caps: u64) -> Command {
        Command::decode(w, &Capabilities::decode(caps), false)
    }

    #[test]
    fn reserved_bits_are_illegal() {
        let legal = [
            [1, 0],
            [1 | 1 << 10 | 5 << 12 | 1 << 32, 0x1234 << 10],
            [1 | 1 << 7, 0],
            [2 | 1 << 10 | 3 << 12 | 0xffff_ffff << 32, 0x100],
            [3 | 1 << 33 | 0xff_ffff << 40, 0],
            [3, 0],
        ];
        for w in legal {
            assert_ne!(decode(w, 0), Command::Illegal, "{w:x?}");
        }
        let illegal = [
            [0, 0],
            [1 | 1 << 11, 0],
            [1 | 1 << 34, 0],
            [1, 1 << 9],
            [1, 1],
            [1 | 1 << 7 | 1 << 32, 0],
            [1 | 2 << 7, 0],
            [2 | 1 << 11, 0],
            [2 | 1 << 14, 0],
            [2, 1 << 62],
            [3 | 1 << 12, 0],
            [3 | 1 << 7, 0],
            [3 | 2 << 7, 0],
            [3, 1],
            [4, 0],
            [5, 0],
        ];
        for w in illegal {
            assert_eq!(decode(w, 0), Command::Illegal, "{w:x?}");
        }
        assert_ne!(decode([1 | 1 << 34, 1 << 9], 3 << 42), Command::Illegal);
    }

    #[test]
    fn address_ranges() {
        assert_eq!(range(0x5000, false), (0x5000, 0x5fff));
        assert_eq!(range(0x4000, true), (0x4000, 0x5fff));
        assert_eq!(range(0x5000, true), (0x4000, 0x7fff));
        assert_eq!(range(0x7fff_ffff_ffff_f000, true), (0, u64::MAX));
    }
}
