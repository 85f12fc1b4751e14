//! Commands and their pointers, as the controller reads them (NVM Express Base Specification 2.0
//! §3.3.3.1, §4.3.1, §4.3.2).

use tlproof_pcie::DmaAddr;

/// Bytes of an SGL descriptor.
pub const SGL_DESCRIPTOR: usize = 16;

/// Type of an SGL descriptor; the subtype is always 0, an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SglType {
    /// Data (`NVME_SGL_FMT_DATA_DESC`).
    Data = 0,
    /// Another segment, not the last (`NVME_SGL_FMT_SEG_DESC`).
    Segment = 2,
    /// The last segment: only data descriptors (`NVME_SGL_FMT_LAST_SEG_DESC`).
    LastSegment = 3,
}

/// An SGL descriptor (`struct nvme_sgl_desc`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SglDescriptor {
    /// Data or descriptors.
    pub addr: DmaAddr,
    /// Bytes there.
    pub length: u32,
    /// Which of both.
    pub kind: SglType,
}

impl SglDescriptor {
    /// As it is in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; SGL_DESCRIPTOR] {
        let mut b = [0; SGL_DESCRIPTOR];
        b[..8].copy_from_slice(&self.addr.0.to_le_bytes());
        b[8..12].copy_from_slice(&self.length.to_le_bytes());
        b[15] = (self.kind as u8) << 4;
        b
    }

    /// `None` for a type or subtype that is not used here.
    #[must_use]
    pub fn from_bytes(b: &[u8; SGL_DESCRIPTOR]) -> Option<Self> {
        let kind = match b[15] {
            0x00 => SglType::Data,
            0x20 => SglType::Segment,
            0x30 => SglType::LastSegment,
            _ => return None,
        };
        Some(Self {
            addr: DmaAddr(u64::from_le_bytes(*b.first_chunk()?)),
            length: u32::from_le_bytes(*b[8..].first_chunk()?),
            kind,
        })
    }
}

/// Where the data is (DPTR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPointer {
    /// Physical region pages.
    Prp {
        /// The first page; the only one that may be entered in the middle.
        prp1: DmaAddr,
        /// 0, the second page, or the list of the pages from the second on.
        prp2: DmaAddr,
    },
    /// A descriptor: the data, or the segment that lists it.
    Sgl(SglDescriptor),
}

/// Where the metadata is (MPTR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataPointer {
    /// No separate metadata.
    None,
    /// A contiguous buffer, its length known from the format.
    Buffer(DmaAddr),
    /// An SGL segment of one descriptor; only together with an SGL for the data.
    Segment(DmaAddr),
}

/// A submission queue entry without its command-specific fields' meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Opcode.
    pub opcode: u8,
    /// Command identifier.
    pub cid: u16,
    /// Namespace.
    pub nsid: u32,
    /// Metadata.
    pub mptr: MetadataPointer,
    /// Data.
    pub dptr: DataPointer,
    /// Command dwords 10 to 15.
    pub cdw10: [u32; 6],
}

impl Command {
    /// A command whose pointers are still to be set.
    #[must_use]
    pub const fn new(opcode: u8, cid: u16, nsid: u32) -> Self {
        Self {
            opcode,
            cid,
            nsid,
            mptr: MetadataPointer::None,
            dptr: DataPointer::Prp {
                prp1: DmaAddr(0),
                prp2: DmaAddr(0),
            },
            cdw10: [0; 6],
        }
    }

    /// PSDT: 0 for PRPs, 1 for an SGL and a metadata buffer (`NVME_CMD_SGL_METABUF`), 2 for SGLs
    /// of both (`NVME_CMD_SGL_METASEG`).
    #[must_use]
    pub const fn psdt(&self) -> u8 {
        match (self.dptr, self.mptr) {
            (DataPointer::Prp { .. }, _) => 0,
            (DataPointer::Sgl(_), MetadataPointer::Segment(_)) => 2,
            (DataPointer::Sgl(_), _) => 1,
        }
    }

    /// As it is in the submission queue.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut b = [0; 64];
        b[0] = self.opcode;
        b[1] = self.psdt() << 6;
        b[2..4].copy_from_slice(&self.cid.to_le_bytes());
        b[4..8].copy_from_slice(&self.nsid.to_le_bytes());
        let mptr = match self.mptr {
            MetadataPointer::None => 0,
            MetadataPointer::Buffer(a) | MetadataPointer::Segment(a) => a.0,
        };
        b[16..24].copy_from_slice(&mptr.to_le_bytes());
        match self.dptr {
            DataPointer::Prp { prp1, prp2 } => {
                b[24..32].copy_from_slice(&prp1.0.to_le_bytes());
                b[32..40].copy_from_slice(&prp2.0.to_le_bytes());
            }
            DataPointer::Sgl(d) => b[24..40].copy_from_slice(&d.to_bytes()),
        }
        for (word, at) in self.cdw10.iter().zip((40..).step_by(4)) {
            b[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_command() {
        let mut c = Command::new(2, 0x1234, 7);
        c.cdw10[2] = 0xaabb_ccdd;
        c.mptr = MetadataPointer::Buffer(DmaAddr(0x1_0000_0040));
        c.dptr = DataPointer::Prp {
            prp1: DmaAddr(0x1122_3344_5566_7788),
            prp2: DmaAddr(0x1000),
        };
        let b = c.to_bytes();
        assert_eq!(b[..8], [2, 0, 0x34, 0x12, 7, 0, 0, 0]);
        assert_eq!(b[16..24], [0x40, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(b[24..32], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!(b[32..40], [0, 0x10, 0, 0, 0, 0, 0, 0]);
        assert_eq!(b[48..52], [0xdd, 0xcc, 0xbb, 0xaa]);
        let d = SglDescriptor {
            addr: DmaAddr(0xff),
            length: 48,
            kind: SglType::LastSegment,
        };
        c.dptr = DataPointer::Sgl(d);
        let b = c.to_bytes();
        assert_eq!(b[1], 0x40);
        assert_eq!(
            b[24..40],
            [0xff, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 0, 0, 0, 0, 0x30]
        );
        c.mptr = MetadataPointer::Segment(DmaAddr(0x100));
        assert_eq!(c.to_bytes()[1], 0x80);
    }

    #[test]
    fn descriptors_are_read_back() {
        for kind in [SglType::Data, SglType::Segment, SglType::LastSegment] {
            let d = SglDescriptor {
                addr: DmaAddr(0x1234_5678_9abc_def0),
                length: 0xffff_fff1,
                kind,
            };
            assert_eq!(SglDescriptor::from_bytes(&d.to_bytes()), Some(d));
        }
        let mut bad = [0; 16];
        for byte in [0x01, 0x10, 0x40, 0xf0] {
            bad[15] = byte;
            assert_eq!(SglDescriptor::from_bytes(&bad), None);
        }
    }
}
