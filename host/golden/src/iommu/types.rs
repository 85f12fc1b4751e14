//! Questions to the judge and its answers.

use std::fmt;

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
    /// What an ATS translation request asks for; not looked at in other requests.
    pub ats: AtsFlags,
}

/// The flags of an ATS translation request (PCIe 6.0 §10.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct AtsFlags {
    /// No Write: the function does not ask for write permission.
    pub no_write: bool,
    /// Execute Requested, of the PASID prefix.
    pub execute: bool,
    /// The requester is a CXL type 1 or type 2 device (IOMMU §2.6).
    pub cxl: bool,
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
            ats: AtsFlags {
                no_write: false,
                execute: false,
                cxl: false,
            },
        }
    }

    /// Whether the request asks for supervisor privilege, which only one with a `process_id` can.
    #[must_use]
    pub const fn supervisor(&self) -> bool {
        self.privileged && self.process_id.is_some()
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

/// A position in the history of stores and register accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub(crate) u64);
