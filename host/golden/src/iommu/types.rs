//! Questions to the judge and its answers.

use std::fmt;
use std::ops::RangeInclusive;

use tlproof_pcie::PhysAddr;

/// Transaction type of a request, with the encoding of a fault record's `TTYP` (IOMMU §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TransactionType {
    /// Untranslated read for execute.
    UntranslatedExecute = 1,
    /// Untranslated read.
    UntranslatedRead = 2,
    /// Untranslated write or atomic operation.
    UntranslatedWrite = 3,
    /// Translated read for execute.
    TranslatedExecute = 5,
    /// Translated read.
    TranslatedRead = 6,
    /// Translated write or atomic operation.
    TranslatedWrite = 7,
    /// PCIe ATS translation request.
    AtsTranslation = 8,
}

impl TransactionType {
    /// Writes and atomic operations.
    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(self, Self::UntranslatedWrite | Self::TranslatedWrite)
    }

    /// Reads for execute.
    #[must_use]
    pub const fn is_execute(self) -> bool {
        matches!(self, Self::UntranslatedExecute | Self::TranslatedExecute)
    }

    /// Requests with translated addresses (AT = 10b).
    #[must_use]
    pub const fn is_translated(self) -> bool {
        matches!(
            self,
            Self::TranslatedExecute | Self::TranslatedRead | Self::TranslatedWrite
        )
    }
}

/// A request as the bridge puts it to the IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Transaction type.
    pub ttyp: TransactionType,
    /// 24-bit `device_id`: segment and Requester ID.
    pub device_id: u32,
    /// 20-bit `process_id` (PASID), if the request has one.
    pub process_id: Option<u32>,
    /// Requests supervisor privilege; only with a `process_id`.
    pub privileged: bool,
    /// I/O virtual address.
    pub iova: u64,
}

impl Request {
    /// An untranslated read or write without a `process_id`.
    #[must_use]
    pub const fn untranslated(device_id: u32, iova: u64, write: bool) -> Self {
        let ttyp = if write {
            TransactionType::UntranslatedWrite
        } else {
            TransactionType::UntranslatedRead
        };
        Self {
            ttyp,
            device_id,
            process_id: None,
            privileged: false,
            iova,
        }
    }
}

/// Page-based memory type of a translation (privileged specification, Svpbmt).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Pbmt {
    /// What the physical memory attributes say.
    Pma = 0,
    /// Non-cacheable, idempotent, weakly ordered main memory.
    Nc = 1,
    /// Non-cacheable, non-idempotent, strongly ordered I/O.
    Io = 2,
}

impl Pbmt {
    /// Decodes the two-bit field; 3 is reserved.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match bits {
            0 => Some(Self::Pma),
            1 => Some(Self::Nc),
            2 => Some(Self::Io),
            _ => None,
        }
    }
}

impl fmt::Display for Pbmt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pma => "PMA",
            Self::Nc => "NC",
            Self::Io => "IO",
        })
    }
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Translated; the bridge goes on with the access.
    Ok,
    /// Unsupported Request; a write is dropped.
    UnsupportedRequest,
    /// Completer Abort; a write is dropped.
    CompleterAbort,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::UnsupportedRequest => "UR",
            Self::CompleterAbort => "CA",
        })
    }
}

/// A successful translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translation {
    /// Supervisor physical address.
    pub spa: PhysAddr,
    /// Memory type.
    pub pbmt: Pbmt,
    /// Bytes that the leaf entry maps; `u64::MAX` where no page table was walked.
    pub page_size: u64,
}

/// A fault, and the record that the IOMMU writes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Cause and the fields of the record.
    pub record: FaultRecord,
    /// A record is written; `DC.tc.DTF` did not suppress it (IOMMU §3.2).
    pub reported: bool,
    /// How the bridge answers, by [`Choices::completer_abort`].
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
}

/// What the architecture demands for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The access goes on with this address and memory type.
    Ok(Translation),
    /// The access is aborted.
    Fault(Fault),
    /// The tables use a feature that this model does not know. Only possible if the capability
    /// that is named is set.
    Unmodelled(&'static str),
}

impl Outcome {
    /// The status that the bridge sees; an unmodelled feature has none.
    #[must_use]
    pub const fn status(&self) -> Option<Status> {
        match self {
            Self::Ok(_) => Some(Status::Ok),
            Self::Fault(fault) => Some(fault.status),
            Self::Unmodelled(_) => None,
        }
    }
}

/// What the device under test answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actual {
    /// Status.
    pub status: Status,
    /// Fault cause; only looked at if `status` is not [`Status::Ok`].
    pub cause: u16,
    /// Address; only looked at if `status` is [`Status::Ok`].
    pub spa: PhysAddr,
    /// The two-bit memory type; only looked at if `status` is [`Status::Ok`].
    pub pbmt: u8,
}

/// The field in which an answer is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Translated or not, UR or CA.
    Status,
    /// Fault cause.
    Cause,
    /// Supervisor physical address.
    Address,
    /// Memory type.
    MemoryType,
    /// A fault record that should not be there, or a field of one.
    FaultRecord,
    /// The judge cannot tell: see [`Outcome::Unmodelled`].
    Unmodelled,
}

impl Field {
    /// The name that reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Cause => "cause",
            Self::Address => "address",
            Self::MemoryType => "memory type",
            Self::FaultRecord => "fault record",
            Self::Unmodelled => "unmodelled feature",
        }
    }
}

/// One field that differs from everything that the specification allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: expected {expected}, got {got} ({clause})", field.name())]
pub struct Mismatch {
    /// The field.
    pub field: Field,
    /// The value by the tables as they stand.
    pub expected: String,
    /// The value seen.
    pub got: String,
    /// The paragraph of the specification.
    pub clause: &'static str,
}

/// What becomes of an address in a device directory that is wider than `capabilities.PAS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WideAddress {
    /// The access that uses it faults.
    AccessFault,
    /// The entry that holds it is misconfigured.
    Misconfigured,
}

/// The choices that the specification leaves to an implementation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// Causes that the bridge answers with CA; it answers all others with UR. IOMMU §7.3
    /// ("Aborting transactions") leaves the status to the bridge, and §7.4 calls CA appropriate
    /// for what detected corruption.
    pub completer_abort: RangeInclusive<u16>,
    /// Whether `iotval` holds the offset in the page; the note in IOMMU §3.2 on partitioned IOVAs
    /// allows 0 in its place.
    pub iotval_page_offset: bool,
    /// When addresses beyond `PAS` in a device context are found out (IOMMU §2.1.4, note).
    pub wide_address: WideAddress,
    /// `fctl.GXL` is writable, which makes both values of `DC.tc.SXL` legal (IOMMU §2.1.4, §5.4).
    pub gxl_writable: bool,
    /// A device context with `msiptp.MODE` not Off while `iohgatp.MODE` is Bare is misconfigured;
    /// IOMMU §2.1.4 only recommends it.
    pub msi_needs_second_stage: bool,
    /// An address beyond `PAS` that no page table translates is an access fault of the IOMMU
    /// (IOMMU §5.3, `PAS`); otherwise the bridge's attribute check finds it (IOMMU §7.2).
    pub wide_pass_through_faults: bool,
    /// Bits of `RCID` and `MCID` that are supported (IOMMU §2.1.4: wider values are misconfigured).
    pub qos_id_bits: (u8, u8),
}

impl Default for Choices {
    /// CA for the causes that report corruption and internal errors (268 to 274), the full IOVA in
    /// `iotval`, access faults for wide addresses, `GXL` fixed, MSI tables only with a second
    /// stage, 12-bit QoS IDs.
    fn default() -> Self {
        Self {
            completer_abort: 268..=274,
            iotval_page_offset: true,
            wide_address: WideAddress::AccessFault,
            gxl_writable: false,
            msi_needs_second_stage: true,
            wide_pass_through_faults: false,
            qos_id_bits: (12, 12),
        }
    }
}

/// A position in the history of stores and register accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub(crate) u64);
