//! Commands (IOMMU §4.1).

/// A command as it stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command(pub [u64; 2]);

const IOTINVAL: u64 = 1;
const IOFENCE: u64 = 2;
const IODIR: u64 = 3;
const AV: u64 = 1 << 10;
const PR: u64 = 1 << 12;
const PW: u64 = 1 << 13;
const PSCV: u64 = 1 << 32;
const DV: u64 = 1 << 33;
const NL: u64 = 1 << 34;
/// In the second doubleword.
const S: u64 = 1 << 9;

impl Command {
    /// `IOTINVAL.VMA` of everything on the host.
    #[must_use]
    pub const fn inval_all() -> Self {
        Self([IOTINVAL, 0])
    }

    /// `IOTINVAL.VMA` of all that carries `pscid`.
    #[must_use]
    pub const fn inval_pscid(pscid: u32) -> Self {
        Self([IOTINVAL | PSCV | (pscid as u64 & 0xf_ffff) << 12, 0])
    }

    /// `IOTINVAL.VMA` of the leaf that holds `iova`; with `non_leaf` also of the tables on the
    /// way to it.
    #[must_use]
    pub const fn inval_page(pscid: u32, iova: u64, non_leaf: bool) -> Self {
        let Self([dw0, _]) = Self::inval_pscid(pscid);
        let nl = if non_leaf { NL } else { 0 };
        Self([dw0 | AV | nl, iova >> 12 << 10])
    }

    /// As [`Command::inval_page`], for the 2^`log2` bytes at `iova`, aligned to as many; `log2`
    /// is at least 13 (capabilities.S, IOMMU §4.1.1).
    #[must_use]
    pub const fn inval_range(pscid: u32, iova: u64, log2: u32, non_leaf: bool) -> Self {
        let Self([dw0, _]) = Self::inval_page(pscid, 0, non_leaf);
        let pfn = iova >> 12 | ((1 << (log2 - 13)) - 1);
        Self([dw0, pfn << 10 | S])
    }

    /// `IOFENCE.C` that also orders the reads and writes of devices.
    #[must_use]
    pub const fn fence() -> Self {
        Self([IOFENCE | PR | PW, 0])
    }

    /// `IODIR.INVAL_DDT` of all device contexts.
    #[must_use]
    pub const fn inval_ddt() -> Self {
        Self([IODIR, 0])
    }

    /// `IODIR.INVAL_DDT` of one device.
    #[must_use]
    pub const fn inval_device(device_id: u32) -> Self {
        Self([IODIR | DV | (device_id as u64 & 0xff_ffff) << 40, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        for (command, dwords) in [
            (Command::inval_ddt(), [3, 0]),
            (Command::inval_all(), [1, 0]),
            (Command::fence(), [0x3002, 0]),
            (Command::inval_device(8), [0x0000_0802_0000_0003, 0]),
            (Command::inval_pscid(1), [0x1_0000_1001, 0]),
            (
                Command::inval_page(1, 0xffff_f000, false),
                [0x1_0000_1401, 0x3fff_fc00],
            ),
            (
                Command::inval_range(1, 0xffff_0000, 16, false),
                [0x1_0000_1401, 0x3fff_de00],
            ),
            (
                Command::inval_range(1, 0x2000, 13, true),
                [0x5_0000_1401, 0xa00],
            ),
        ] {
            assert_eq!(command.0, dwords, "{command:x?}");
        }
    }
}
