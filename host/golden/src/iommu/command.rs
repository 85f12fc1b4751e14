//! Commands as they stand in queue memory (IOMMU §3.1).

use super::{Capabilities, Choices};

/// What a command makes the IOMMU forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// First-stage translations.
    FirstStage {
        /// Of this virtual machine; `None`: those without a second stage.
        gscid: Option<u32>,
        /// Only this address space, and of it only what is not global.
        pscid: Option<u32>,
        /// Only what overlaps these bytes of IOVA, both ends inclusive.
        range: Option<(u64, u64)>,
        /// With a range: non-leaf entries too.
        non_leaf: bool,
    },
    /// Second-stage translations and MSI page tables.
    SecondStage {
        /// Of this virtual machine; `None`: of all.
        gscid: Option<u32>,
        /// Only what overlaps these guest addresses, both ends inclusive.
        range: Option<(u64, u64)>,
        /// With a range: non-leaf entries too.
        non_leaf: bool,
    },
    /// The context of one device and all of its process directory, or all directory entries.
    Directory(Option<u32>),
    /// One process context.
    Process {
        /// Of this device.
        device_id: u32,
        /// With this `process_id`.
        process_id: u32,
    },
}

/// A decoded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// IOTINVAL or IODIR.
    Invalidate(Scope),
    /// IOFENCE.C.
    Fence {
        /// Address and data of its store.
        store: Option<(u64, u32)>,
        /// `WSI`: completion raises an interrupt on a wire.
        interrupt: bool,
        /// `PR`.
        previous_reads: bool,
        /// `PW`.
        previous_writes: bool,
    },
    /// ATS.INVAL.
    AtsInvalidate(AtsTarget),
    /// ATS.PRGR.
    AtsGroupResponse(AtsTarget),
    /// Illegal or unsupported: the queue stops here.
    Illegal,
}

/// The operands of the ATS commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AtsTarget {
    /// `RID`: the PCIe function.
    pub requester_id: u16,
    /// `DSEG`, if `DSV`.
    pub segment: Option<u8>,
    /// `PID`, if `PV`.
    pub process_id: Option<u32>,
    /// The body of the message.
    pub payload: u64,
}

impl Command {
    /// Decodes the two doublewords of a command. `fctl` and `ddtp` are the values of those
    /// registers.
    #[must_use]
    pub fn decode(
        [w0, w1]: [u64; 2],
        caps: &Capabilities,
        choices: &Choices,
        fctl: u32,
        ddtp: u64,
    ) -> Self {
        let absent = match (w0 & 0x7f, w0 >> 7 & 7) {
            (1, 1) => !caps.second_stage() && !caps.msi_flat,
            (3, 1) => !caps.pd8 && !caps.pd17 && !caps.pd20,
            _ => false,
        };
        match (w0 & 0x7f, w0 >> 7 & 7) {
            _ if absent && choices.absent_cache_command_illegal => Self::Illegal,
            (1, func3 @ (0 | 1)) => tables(w0, w1, func3 == 1, caps),
            (2, 0) => fence(w0, w1, fctl >> 1 & 1 == 1),
            (3, func3 @ (0 | 1)) => {
                let legal = !choices.wide_operand_illegal || directory_fits(w0, func3, caps, ddtp);
                if legal {
                    directory(w0, w1, func3)
                } else {
                    Self::Illegal
                }
            }
            (4, func3 @ (0 | 1)) if caps.ats => ats(w0, w1, func3),
            _ => Self::Illegal,
        }
    }
}

const fn bit(word: u64, n: u32) -> bool {
    word >> n & 1 == 1
}

/// IOTINVAL.VMA and .GVMA (IOMMU §3.1.1, §8).
fn tables(w0: u64, w1: u64, second: bool, caps: &Capabilities) -> Command {
    let (nl, s) = (bit(w0, 34), bit(w1, 9));
    // Bits 34 and 73 belong to the extensions NL and S (IOMMU §8).
    let reserved = bit(w0, 11)
        || w0 & (0x1ff << 35 | 0xf << 60) != 0
        || w1 & (0x1ff | 0x3 << 62) != 0
        || nl && !caps.nl
        || s && !caps.s;
    if reserved || second && bit(w0, 32) {
        return Command::Illegal;
    }
    let gscid = bit(w0, 33).then_some((w0 >> 44 & 0xffff) as u32);
    let range = bit(w0, 10).then(|| range(w1 >> 10 << 12, s));
    Command::Invalidate(if second {
        // Without a virtual machine the address is ignored.
        Scope::SecondStage {
            gscid,
            range: range.filter(|_| gscid.is_some()),
            non_leaf: nl,
        }
    } else {
        Scope::FirstStage {
            gscid,
            pscid: bit(w0, 32).then_some((w0 >> 12 & 0xf_ffff) as u32),
            range,
            non_leaf: nl,
        }
    })
}

/// IOFENCE.C (IOMMU §3.1.2).
fn fence(w0: u64, w1: u64, wires: bool) -> Command {
    if w0 & 0x3_ffff << 14 != 0 || w1 >> 62 != 0 || bit(w0, 11) && !wires {
        return Command::Illegal;
    }
    Command::Fence {
        store: bit(w0, 10).then_some((w1 << 2, (w0 >> 32) as u32)),
        interrupt: bit(w0, 11),
        previous_reads: bit(w0, 12),
        previous_writes: bit(w0, 13),
    }
}

/// IODIR.INVAL_DDT and _PDT (IOMMU §3.1.3).
fn directory(w0: u64, w1: u64, func3: u64) -> Command {
    let reserved = w0 & (0b11 << 10 | 1 << 32 | 0x3f << 34) != 0 || w1 != 0;
    let process_id = (w0 >> 12 & 0xf_ffff) as u32;
    let device_id = bit(w0, 33).then_some((w0 >> 40) as u32);
    match (func3, device_id) {
        _ if reserved => Command::Illegal,
        (0, device) if process_id == 0 => Command::Invalidate(Scope::Directory(device)),
        (1, Some(device_id)) => Command::Invalidate(Scope::Process {
            device_id,
            process_id,
        }),
        _ => Command::Illegal,
    }
}

/// Whether `DID` and `PID` are no wider than the mode and the capabilities support.
const fn directory_fits(w0: u64, func3: u64, caps: &Capabilities, ddtp: u64) -> bool {
    let leaf = if caps.msi_flat { 6 } else { 7 };
    let device_bits = match ddtp & 0xf {
        2 => leaf,
        3 => leaf + 9,
        _ => 24,
    };
    let process_bits = if caps.pd20 {
        20
    } else if caps.pd17 {
        17
    } else if caps.pd8 {
        8
    } else {
        0
    };
    let device = !bit(w0, 33) || (w0 >> 40) >> device_bits == 0;
    let process = func3 == 0 || (w0 >> 12 & 0xf_ffff) >> process_bits == 0;
    device && process
}

/// ATS.INVAL and .PRGR (IOMMU §3.1.4).
fn ats(w0: u64, w1: u64, func3: u64) -> Command {
    let zeros = match func3 {
        0 => 0x7fe,
        _ => 0xffff_0e00_ffff_ffff,
    };
    if w0 & (0b11 << 10 | 0x3f << 34) != 0 || w1 & zeros != 0 {
        return Command::Illegal;
    }
    let target = AtsTarget {
        requester_id: (w0 >> 40 & 0xffff) as u16,
        segment: bit(w0, 33).then_some((w0 >> 56) as u8),
        process_id: bit(w0, 32).then_some((w0 >> 12 & 0xf_ffff) as u32),
        payload: w1,
    };
    match func3 {
        0 => Command::AtsInvalidate(target),
        _ => Command::AtsGroupResponse(target),
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
        Command::decode(w, &Capabilities::decode(caps), &Choices::default(), 0, 0)
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
