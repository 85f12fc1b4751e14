//! The process to translate an IOVA (IOMMU §2.3), over any view of the tables.

mod ats;
mod directory;
mod msi;
mod pte;
mod stages;

pub(super) use pte::{Format, native};

use tlproof_pcie::PhysAddr;

use super::context::DeviceContext;
use super::{
    Capabilities, Choices, Fault, FaultRecord, Loads, MemoryFault, Outcome, Pbmt, Permissions, Qos,
    Request, Response, StageLeaf, Status, TransactionType, Translation, Update,
};
use stages::{FirstStage, Leaf};

/// The address space that a first-stage entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// `None`: the second stage is Bare.
    pub gscid: Option<u32>,
    pub pscid: u32,
}

/// What an entry is: decides what may cache it and which commands drop it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    /// Non-leaf device-directory entry.
    Directory { big: bool },
    /// Device context of this `device_id`.
    Context { device_id: u32, big: bool },
    /// Non-leaf process-directory entry.
    ProcessDirectory { device_id: u32, big: bool },
    /// Process context.
    ProcessContext {
        device_id: u32,
        process_id: u32,
        big: bool,
    },
    /// First-stage page-table entry.
    FirstStage {
        space: Space,
        iova: u64,
        /// 0 is the level of 4 KiB pages.
        level: u32,
        /// An entry above it has the G bit.
        global: bool,
        format: Format,
    },
    /// Second-stage page-table entry.
    SecondStage {
        gscid: u32,
        gpa: u64,
        level: u32,
        format: Format,
        /// The address came from a directory entry of this device, which may be cached after its
        /// translation (IOMMU §3.1.3, note).
        directory_of: Option<u32>,
    },
    /// MSI page-table entry.
    Msi {
        gscid: Option<u32>,
        gpa: u64,
        big: bool,
    },
}

/// Where the walker reads tables: memory as it is, or one of its legal earlier versions.
pub(super) trait Tables {
    /// The `ddtp` register.
    fn ddtp(&mut self, request: &Request) -> u64;
    /// An entry of `N` doublewords, as little-endian numbers.
    fn entry<const N: usize>(&mut self, entry: Entry, addr: u64) -> Result<[u64; N], MemoryFault>;
    /// Replaces the doubleword that holds a PTE if it still is `old`.
    fn update(&mut self, addr: u64, old: u64, new: u64) -> Result<bool, MemoryFault>;
    /// The first-stage context that an address space is walked with; `fsc` is that of its process
    /// context, or of its device context.
    fn first_stage(&mut self, space: Space, fsc: u64) -> u64;
    /// The second-stage context that a virtual machine is walked with.
    fn second_stage(&mut self, iohgatp: u64) -> u64;
}

/// The constants of a translation.
#[derive(Clone, Copy)]
pub(super) struct Walker<'a> {
    pub caps: &'a Capabilities,
    pub choices: &'a Choices,
    /// Value of `fctl`.
    pub fctl: u32,
    /// Value of `iommu_qosid`.
    pub qosid: u32,
}

/// Why a walk ends early.
#[derive(Clone, Copy)]
struct Stop {
    cause: u16,
    clause: &'static str,
    iotval2: u64,
}

type Step<T> = Result<T, Stop>;

const fn stop(cause: u16, clause: &'static str) -> Stop {
    Stop {
        cause,
        clause,
        iotval2: 0,
    }
}

fn fault<T>(cause: u16, clause: &'static str) -> Step<T> {
    Err(stop(cause, clause))
}

/// The original access: decides the causes of faults.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Execute,
    Read,
    Write,
}

impl Access {
    fn of(request: &Request, choices: &Choices) -> Self {
        match request.ttyp {
            TransactionType::AtsTranslation if choices.ats_access_by_request => {
                if !request.ats.no_write {
                    Self::Write
                } else if request.ats.execute {
                    Self::Execute
                } else {
                    Self::Read
                }
            }
            t if t.is_write() => Self::Write,
            t if t.is_execute() => Self::Execute,
            _ => Self::Read,
        }
    }

    const fn pick(self, execute: u16, read: u16, write: u16) -> u16 {
        match self {
            Self::Execute => execute,
            Self::Read => read,
            Self::Write => write,
        }
    }

    const fn access_fault(self) -> u16 {
        self.pick(1, 5, 7)
    }

    const fn page_fault(self) -> u16 {
        self.pick(12, 13, 15)
    }

    const fn guest_page_fault(self) -> u16 {
        self.pick(20, 21, 23)
    }
}

/// One translation under way.
struct Walk<'a, T> {
    caps: &'a Capabilities,
    choices: &'a Choices,
    fctl: u32,
    qosid: u32,
    tables: &'a mut T,
    request: &'a Request,
    access: Access,
    /// An ATS translation request, which asks for permissions instead of making an access.
    probe: bool,
    dc: Option<DeviceContext>,
    updates: Vec<Update>,
    loads: Loads,
    pscid: Option<u32>,
    /// Logarithm of the largest block without a page of an interrupt file, of which the translation is
    /// a part.
    hole: u32,
    first_leaf: Option<StageLeaf>,
    second_leaf: Option<StageLeaf>,
}

impl Walker<'_> {
    fn walk<'a, T: Tables>(&'a self, tables: &'a mut T, request: &'a Request) -> Walk<'a, T> {
        Walk {
            caps: self.caps,
            choices: self.choices,
            fctl: self.fctl,
            qosid: self.qosid,
            tables,
            request,
            access: Access::of(request, self.choices),
            probe: request.ttyp == TransactionType::AtsTranslation,
            dc: None,
            updates: Vec::new(),
            loads: Loads::default(),
            pscid: None,
            hole: 64,
            first_leaf: None,
            second_leaf: None,
        }
    }

    /// Translates a request.
    pub fn translate(&self, tables: &mut impl Tables, request: &Request) -> Response {
        let mut walk = self.walk(tables, request);
        let result = walk.steps();
        let outcome = match result {
            Ok(done) if walk.probe => Outcome::Completion(walk.completion(&done)),
            Ok(done) => Outcome::Ok(done.translation),
            Err(stop) => walk.failure(stop),
        };
        Response {
            outcome,
            updates: walk.updates,
            loads: walk.loads,
            gscid: walk.dc.and_then(|dc| dc.active_gscid()),
            pscid: walk.pscid,
            dtf: walk.dc.is_some_and(|dc| dc.dtf()),
            beside_interrupt_files: walk.hole < 64,
            first_leaf: walk.first_leaf,
            second_leaf: walk.second_leaf,
        }
    }

    /// The context of a device, or none in mode Bare; a cause otherwise (IOMMU §2.3 steps 1 to 6).
    pub fn device_context(
        &self,
        tables: &mut impl Tables,
        request: &Request,
    ) -> Result<Option<DeviceContext>, u16> {
        let mut walk = self.walk(tables, request);
        walk.device().map_err(|stop| stop.cause)
    }

    /// Only the outcome.
    pub fn outcome(&self, tables: &mut impl Tables, request: &Request) -> Outcome {
        self.translate(tables, request).outcome
    }
}

/// What steps 1 to 20 found.
struct Done {
    translation: Translation,
    /// The G bit of the first stage.
    global: bool,
    /// Logarithm of the size, if a table gave it.
    bits: Option<u32>,
    /// Logarithm of the largest block that holds no page of an interrupt file.
    hole: u32,
}

impl<T: Tables> Walk<'_, T> {
    fn failure(&self, stop: Stop) -> Outcome {
        let Stop {
            cause,
            clause,
            iotval2,
        } = stop;
        if self.probe && ats::is_success(cause) {
            return Outcome::Completion(self.no_access(cause));
        }
        let request = self.request;
        let dtf = self.dc.is_some_and(|dc| dc.dtf());
        let status = if self.probe {
            ats::status(cause, self.choices)
        } else if self.choices.completer_abort.contains(&cause) {
            Status::CompleterAbort
        } else {
            Status::UnsupportedRequest
        };
        Outcome::Fault(Fault {
            record: FaultRecord {
                cause,
                ttyp: request.ttyp as u8,
                device_id: request.device_id,
                process_id: request.process_id,
                privileged: request.supervisor(),
                iotval: request.iova & !self.choices.unreported_offset(),
                iotval2,
            },
            reported: reported(cause, dtf),
            status,
            clause,
        })
    }

    /// Steps 1 to 6: the device context, or none in mode Bare.
    fn device(&mut self) -> Step<Option<DeviceContext>> {
        let ddtp = self.tables.ddtp(self.request);
        let levels = match ddtp & 0xf {
            0 => return fault(256, "IOMMU §2.3 step 1"),
            1 => return Ok(None),
            mode => mode as u32 - 1,
        };
        let dc = self.device_context(ddtp, levels)?;
        self.dc = Some(dc);
        Ok(Some(dc))
    }

    /// The numbered steps of IOMMU §2.3.
    fn steps(&mut self) -> Step<Done> {
        let request = self.request;
        let ats = request.ttyp.is_translated() || self.probe;
        let Some(dc) = self.device()? else {
            if ats {
                return fault(260, "IOMMU §2.3 step 2");
            }
            return self.pass_through(request.iova);
        };
        if ats && !dc.en_ats() {
            return fault(260, "IOMMU §2.3 step 7.a");
        }
        if let Some(process_id) = request.process_id {
            if !dc.pdtv() {
                return fault(260, "IOMMU §2.3 step 7.b");
            }
            let bits = match dc.fsc_mode() {
                1 => 8,
                2 => 17,
                _ => 20,
            };
            if process_id >> bits != 0 {
                return fault(260, "IOMMU §2.3 step 7.c");
            }
        }
        if request.ttyp.is_translated() {
            if !dc.t2gpa() {
                return self.pass_through(request.iova);
            }
            return self.two_stages(&dc, FirstStage::BARE);
        }
        if !dc.pdtv() {
            let first = FirstStage {
                fsc: dc.fsc,
                pscid: dc.pscid(),
                supervisor: false,
                sum: false,
            };
            return self.two_stages(&dc, first);
        }
        // Steps 11 to 13: without a process there is no first stage.
        let process_id = match request.process_id {
            Some(process_id) => process_id,
            None if dc.dpe() => 0,
            None => return self.two_stages(&dc, FirstStage::BARE),
        };
        if dc.fsc_mode() == 0 {
            return self.two_stages(&dc, FirstStage::BARE);
        }
        let pc = self.process_context(&dc, process_id)?;
        let supervisor = request.supervisor();
        if supervisor && !pc.ens() {
            return fault(260, "IOMMU §2.3 step 15");
        }
        let first = FirstStage {
            fsc: pc.fsc,
            pscid: pc.pscid(),
            supervisor,
            sum: pc.sum(),
        };
        self.two_stages(&dc, first)
    }

    /// Steps 17 to 20.
    fn two_stages(&mut self, dc: &DeviceContext, first: FirstStage) -> Step<Done> {
        let s1 = self.first_stage(dc, &first, self.request.iova)?;
        self.first_leaf = s1.stage();
        let mut hole = 64;
        if dc.msiptp_mode() != 0 {
            match dc.interrupt_page(self.caps, self.choices, s1.addr) {
                Ok(number) => return self.interrupt_file(dc, &s1, number),
                Err(bits) => hole = bits,
            }
        }
        self.hole = hole;
        let s2 = self.second_stage(
            dc,
            s1.addr,
            stages::Purpose::Access {
                writable: s1.allowed.write,
            },
        )?;
        self.second_leaf = s2.stage();
        if s1.is_identity() && s2.is_identity() {
            let mut done = self.pass_through(s2.addr)?;
            if hole < 64 {
                done.translation.page_size = 1 << hole;
                done.hole = hole;
            }
            return Ok(done);
        }
        if !self.caps.addressable(s2.addr) {
            return fault(self.access.access_fault(), "IOMMU §5.3 (PAS)");
        }
        let bits = s1.bits.min(s2.bits).min(hole);
        Ok(Done {
            translation: Translation {
                spa: PhysAddr(s2.addr),
                pbmt: merge(&s1, &s2),
                page_size: 1 << bits,
                gpa: s1.addr,
                permissions: s1.allowed.and(s2.allowed),
                is_msi: false,
                mrif: None,
                qos: self.qos(),
            },
            global: s1.global,
            bits: Some(bits),
            hole,
        })
    }

    /// The address is not translated.
    fn pass_through(&self, addr: u64) -> Step<Done> {
        if self.choices.wide_pass_through_faults && !self.caps.addressable(addr) {
            return fault(self.access.access_fault(), "IOMMU §5.3 (PAS)");
        }
        Ok(Done {
            translation: Translation {
                spa: PhysAddr(addr),
                pbmt: Pbmt::Pma,
                page_size: u64::MAX,
                gpa: addr,
                permissions: Permissions::ALL,
                is_msi: false,
                mrif: None,
                qos: self.qos(),
            },
            global: false,
            bits: None,
            hole: 64,
        })
    }

    /// Identifiers for the access of the device (IOMMU §2.1.3.3, §5.25).
    fn qos(&self) -> Qos {
        match self.dc {
            _ if !self.caps.qosid => Qos::default(),
            Some(dc) => dc.qos(),
            None => Qos {
                rcid: (self.qosid & 0xfff) as u16,
                mcid: (self.qosid >> 16 & 0xfff) as u16,
            },
        }
    }

    /// Reads an entry. Nothing is beyond `PAS` (IOMMU §5.3).
    fn load<const N: usize>(&mut self, entry: Entry, addr: u64) -> Result<[u64; N], MemoryFault> {
        if !self.caps.addressable(addr) {
            return Err(MemoryFault::Access);
        }
        self.tables.entry(entry, addr)
    }
}

/// A first-stage type overrides that of the second (Privileged, Svpbmt with two stages).
fn merge(s1: &Leaf, s2: &Leaf) -> Pbmt {
    let bits = if s1.pbmt == 0 { s2.pbmt } else { s1.pbmt };
    // Value 3 was refused as reserved.
    Pbmt::from_bits(bits).unwrap_or(Pbmt::Pma)
}

/// Whether a fault is reported (IOMMU §3.2, `CAUSE`).
pub(super) const fn reported(cause: u16, dtf: bool) -> bool {
    !dtf || matches!(cause, 256..=259 | 268 | 272 | 273)
}
