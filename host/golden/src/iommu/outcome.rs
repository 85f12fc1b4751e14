//! What becomes of a request.

use tlproof_pcie::PhysAddr;

use super::{Pbmt, Status};

/// What may be done through a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// Reads.
    pub read: bool,
    /// Writes and atomic operations. Never granted by an entry whose D bit is 0.
    pub write: bool,
    /// Reads for execute.
    pub execute: bool,
}

impl Permissions {
    /// Everything: a stage without a page table.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        execute: true,
    };

    /// Nothing.
    pub const NONE: Self = Self {
        read: false,
        write: false,
        execute: false,
    };

    /// What both stages allow.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            write: self.write && other.write,
            execute: self.execute && other.execute,
        }
    }
}

/// Quality-of-service identifiers of an access (IOMMU §2.1.3.3, §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Qos {
    /// `RCID`.
    pub rcid: u16,
    /// `MCID`.
    pub mcid: u16,
}

/// A memory-resident interrupt file and its notice, from an MSI PTE in MRIF mode (AIA §9.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mrif {
    /// The file, at a multiple of 512.
    pub address: PhysAddr,
    /// Where the notice MSI is stored.
    pub notice_address: PhysAddr,
    /// Its 11-bit value.
    pub notice_id: u16,
}

/// A successful translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translation {
    /// Supervisor physical address; of the interrupt file if there is an `mrif`.
    pub spa: PhysAddr,
    /// Memory type.
    pub pbmt: Pbmt,
    /// Bytes around the address for which the translation holds: the smaller of what the leaf
    /// entries of the two stages map, without a page of the MSI table in it; `u64::MAX` where no
    /// page table was walked.
    pub page_size: u64,
    /// Guest physical address that the first stage gave.
    pub gpa: u64,
    /// What both stages allow; of a request that is not one for an ATS translation, at least the
    /// access itself.
    pub permissions: Permissions,
    /// The MSI page table gave the translation (IOMMU §2.3 step 18).
    pub is_msi: bool,
    /// The access goes to this interrupt file instead of memory; see [`Mrif::access`].
    pub mrif: Option<Mrif>,
    /// Identifiers for the access itself.
    pub qos: Qos,
}

/// A Success completion of an ATS translation request (IOMMU §2.6). Its N and AMA fields are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Completion {
    /// First byte of the translated range: a guest address if `DC.tc.T2GPA`; 0 without access.
    pub address: u64,
    /// Bytes in the range, a power of two of at least 4096.
    pub size: u64,
    /// R, W and Exe.
    pub permissions: Permissions,
    /// Priv: the privilege of the request.
    pub privileged: bool,
    /// Global.
    pub global: bool,
    /// U: only untranslated requests may access the range.
    pub untranslated_only: bool,
    /// CXL.io.
    pub cxl_io: bool,
    /// The fault that took all access away; it is not reported.
    pub denied: Option<u16>,
    /// Identifiers for the accesses of the request.
    pub qos: Qos,
}

impl Completion {
    /// The address with the size encoded in its low bits, and the S bit (PCIe 6.0 §10.2.3.2): the
    /// lowest 0 bit from bit 12 on stands at half the size.
    #[must_use]
    pub const fn encoded_address(&self) -> (u64, bool) {
        let s = self.size > 4096;
        let low = if s { self.size / 2 - 4096 } else { 0 };
        (self.address | low, s)
    }
}

/// A fault, and the record that the IOMMU writes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Cause and the fields of the record.
    pub record: FaultRecord,
    /// A record is written; `DC.tc.DTF` did not suppress it (IOMMU §3.2).
    pub reported: bool,
    /// How the bridge answers: by [`Choices::completer_abort`](super::Choices::completer_abort),
    /// and for ATS translation requests by IOMMU §2.6.
    pub status: Status,
    /// The paragraph that demands the fault.
    pub clause: &'static str,
}

impl Fault {
    /// The cause, as numbered by IOMMU §3.2.
    #[must_use]
    pub const fn cause(&self) -> u16 {
        self.record.cause
    }
}

/// The defined fields of a fault-queue record (IOMMU §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultRecord {
    /// `CAUSE`.
    pub cause: u16,
    /// `TTYP`.
    pub ttyp: u8,
    /// `DID`.
    pub device_id: u32,
    /// `PV` and `PID`.
    pub process_id: Option<u32>,
    /// `PRIV`.
    pub privileged: bool,
    /// `iotval`.
    pub iotval: u64,
    /// `iotval2`.
    pub iotval2: u64,
}

impl FaultRecord {
    /// Decodes the four little-endian doublewords of a record. The custom and reserved bits of
    /// the second are ignored.
    #[must_use]
    pub const fn decode(entry: &[u64; 4]) -> Self {
        let word = entry[0];
        let process_id = if word >> 32 & 1 == 1 {
            Some((word >> 12 & 0xf_ffff) as u32)
        } else {
            None
        };
        Self {
            cause: (word & 0xfff) as u16,
            ttyp: (word >> 34 & 0x3f) as u8,
            device_id: (word >> 40) as u32,
            process_id,
            privileged: word >> 33 & 1 == 1,
            iotval: entry[2],
            iotval2: entry[3],
        }
    }

    /// The four doublewords of the record.
    #[must_use]
    pub fn encode(&self) -> [u64; 4] {
        let pid = self
            .process_id
            .map_or(0, |pid| 1 << 32 | u64::from(pid & 0xf_ffff) << 12);
        let word = u64::from(self.cause & 0xfff)
            | pid
            | u64::from(self.privileged) << 33
            | u64::from(self.ttyp & 0x3f) << 34
            | u64::from(self.device_id & 0xff_ffff) << 40;
        [word, 0, self.iotval, self.iotval2]
    }
}

/// What the architecture demands for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The access goes on with this address and memory type.
    Ok(Translation),
    /// The ATS translation request completes with Success.
    Completion(Completion),
    /// The access is aborted, or the ATS translation request completes with UR or CA.
    Fault(Fault),
}

impl Outcome {
    /// The status that the bridge sees.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Ok(_) | Self::Completion(_) => Status::Ok,
            Self::Fault(fault) => fault.status,
        }
    }
}

/// A change that the walk made to an entry: the A and D bits of a PTE (IOMMU §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Update {
    /// The doubleword that holds the entry.
    pub addr: PhysAddr,
    /// What it was, read as little-endian.
    pub old: u64,
    /// What it is now.
    pub new: u64,
}

/// How many entries a walk without caches loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Loads {
    /// Entries of the device directory.
    pub device_directory: u32,
    /// Entries of the process directory.
    pub process_directory: u32,
    /// First-stage PTEs.
    pub first_stage: u32,
    /// Second-stage PTEs.
    pub second_stage: u32,
    /// Second-stage walks: translations of one guest address each.
    pub second_stage_walks: u32,
    /// MSI PTEs.
    pub msi: u32,
}

/// The leaf entry of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StageLeaf {
    /// Logarithm of the bytes of its page.
    pub size_log2: u32,
    /// Its own memory type.
    pub pbmt: u64,
}

/// An outcome, and what else the translation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The outcome.
    pub outcome: Outcome,
    /// Entries that were changed, in order; a fault that comes after does not take them back.
    pub updates: Vec<Update>,
    /// Loads of a walk without caches.
    pub loads: Loads,
    /// `GSCID` of the context, where a second stage is active.
    pub gscid: Option<u32>,
    /// `PSCID`, where a first stage is active.
    pub pscid: Option<u32>,
    /// `DC.tc.DTF` of the context, if one was found.
    pub dtf: bool,
    /// The size of the translation may be bounded by a page of an interrupt file; an IOMMU may then
    /// give any smaller one.
    pub beside_interrupt_files: bool,
    /// Leaf of the first stage, if it has a page table and was walked to its end.
    pub first_leaf: Option<StageLeaf>,
    /// Leaf of the second stage for the access itself.
    pub second_leaf: Option<StageLeaf>,
}

impl Response {
    /// Bytes for which the translation holds, a power of two; at most `2^bare_size_log2` where
    /// neither stage has a page table.
    #[must_use]
    pub fn size(&self, translation: &Translation, bare_size_log2: u8) -> u64 {
        let bare = self.loads.first_stage == 0 && self.loads.second_stage == 0;
        if bare {
            translation.page_size.min(1 << bare_size_log2.clamp(12, 63))
        } else {
            translation.page_size
        }
    }
}
