//! The process to translate an IOVA (IOMMU §2.3), over any view of the tables.

use tlproof_pcie::PhysAddr;

use super::context::{DeviceContext, root};
use super::{
    Capabilities, Choices, Fault, FaultRecord, Outcome, Pbmt, Request, Status, TransactionType,
    Translation, WideAddress,
};
use crate::memory::AccessFault;

/// What an entry is: decides what may cache it and which commands drop it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    /// Non-leaf device-directory entry.
    Directory,
    /// Device context of this `device_id`.
    Context { device_id: u32 },
    /// First-stage page-table entry.
    Pte {
        pscid: u32,
        iova: u64,
        /// 0 is the level of 4 KiB pages.
        level: u32,
        /// An entry above it has the G bit.
        global: bool,
        /// Entries are big-endian.
        big: bool,
    },
}

/// Where the walker reads tables: memory as it is, or one of its legal earlier versions.
pub(super) trait Tables {
    /// The `ddtp` register.
    fn ddtp(&mut self, request: &Request) -> u64;
    /// An entry of `N` doublewords, as little-endian numbers.
    fn entry<const N: usize>(&mut self, entry: Entry, addr: u64) -> Result<[u64; N], AccessFault>;
    /// The first-stage context that an address space is walked with.
    fn first_stage(&mut self, dc: &DeviceContext) -> u64;
}

/// The constants of a translation.
#[derive(Clone, Copy)]
pub(super) struct Walker<'a> {
    pub caps: &'a Capabilities,
    pub choices: &'a Choices,
    /// Value of `fctl`.
    pub fctl: u32,
}

/// Why a walk ends early.
enum Stop {
    Fault { cause: u16, clause: &'static str },
    Unmodelled(&'static str),
}

type Step<T> = Result<T, Stop>;

fn fault<T>(cause: u16, clause: &'static str) -> Step<T> {
    Err(Stop::Fault { cause, clause })
}

const NO_PAGE: u64 = u64::MAX;

impl Walker<'_> {
    pub fn translate(&self, tables: &mut impl Tables, request: &Request) -> Outcome {
        let mut dtf = false;
        match self.steps(tables, request, &mut dtf) {
            Ok(translation) => Outcome::Ok(translation),
            Err(Stop::Unmodelled(what)) => Outcome::Unmodelled(what),
            Err(Stop::Fault { cause, clause }) => {
                Outcome::Fault(self.record(request, cause, clause, dtf))
            }
        }
    }

    fn record(&self, request: &Request, cause: u16, clause: &'static str, dtf: bool) -> Fault {
        let offset = if self.choices.iotval_page_offset {
            0
        } else {
            0xfff
        };
        Fault {
            record: FaultRecord {
                cause,
                ttyp: request.ttyp as u8,
                device_id: request.device_id,
                process_id: request.process_id,
                privileged: request.privileged && request.process_id.is_some(),
                iotval: request.iova & !offset,
                iotval2: 0,
            },
            reported: !dtf || matches!(cause, 256..=259 | 268 | 272 | 273),
            status: if self.choices.completer_abort.contains(&cause) {
                Status::CompleterAbort
            } else {
                Status::UnsupportedRequest
            },
            clause,
        }
    }

    /// The numbered steps of IOMMU §2.3.
    fn steps(
        &self,
        tables: &mut impl Tables,
        request: &Request,
        dtf: &mut bool,
    ) -> Step<Translation> {
        let ats = request.ttyp.is_translated() || request.ttyp == TransactionType::AtsTranslation;
        let ddtp = tables.ddtp(request);
        let levels = match ddtp & 0xf {
            0 => return fault(256, "IOMMU §2.3 step 1"),
            1 if ats => return fault(260, "IOMMU §2.3 step 2"),
            1 => return self.pass_through(request),
            mode => mode as u32 - 1,
        };
        let dc = self.device_context(tables, ddtp, levels, request.device_id)?;
        *dtf = dc.dtf();

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
        if request.ttyp == TransactionType::AtsTranslation {
            return Err(Stop::Unmodelled("ATS"));
        }
        if request.ttyp.is_translated() {
            if dc.t2gpa() {
                return Err(Stop::Unmodelled("T2GPA"));
            }
            return self.pass_through(request);
        }
        if dc.iohgatp_mode() != 0 {
            return Err(Stop::Unmodelled("second stage"));
        }
        if dc.msiptp_mode() != 0 {
            return Err(Stop::Unmodelled("MSI_FLAT"));
        }
        if dc.pdtv() {
            let without = request.process_id.is_none() && !dc.dpe();
            if without || dc.fsc_mode() == 0 {
                return self.pass_through(request);
            }
            return Err(Stop::Unmodelled("process directory"));
        }
        if dc.fsc_mode() == 0 {
            return self.pass_through(request);
        }
        if dc.sxl() {
            return Err(Stop::Unmodelled("Sv32"));
        }
        let fsc = tables.first_stage(&dc);
        if fsc >> 60 == 0 {
            return self.pass_through(request);
        }
        self.first_stage(tables, request, &dc, fsc)
    }

    fn pass_through(&self, request: &Request) -> Step<Translation> {
        if self.choices.wide_pass_through_faults && !self.caps.addressable(request.iova) {
            return fault(access_fault(request.ttyp), "IOMMU §5.3 (PAS)");
        }
        Ok(Translation {
            spa: PhysAddr(request.iova),
            pbmt: Pbmt::Pma,
            page_size: NO_PAGE,
        })
    }

    /// IOMMU §2.3 steps 3 to 6 and §2.3.1.
    fn device_context(
        &self,
        tables: &mut impl Tables,
        ddtp: u64,
        levels: u32,
        device_id: u32,
    ) -> Step<DeviceContext> {
        let leaf_bits = if self.caps.msi_flat { 6 } else { 7 };
        let did = u64::from(device_id);
        let ddi = [
            did & ((1 << leaf_bits) - 1),
            did >> leaf_bits & 0x1ff,
            did >> (leaf_bits + 9),
        ];
        if levels < 3 && ddi[2] != 0 {
            return fault(260, "IOMMU §2.3 step 5.a");
        }
        if levels < 2 && ddi[1] != 0 {
            return fault(260, "IOMMU §2.3 step 5.b");
        }
        let big = self.fctl & 1 == 1;
        let mut table = (ddtp >> 10 & ((1 << 44) - 1)) << 12;
        for level in (1..levels as usize).rev() {
            let [ddte] = tables
                .entry::<1>(Entry::Directory, table + ddi[level] * 8)
                .or_else(|_| fault(257, "IOMMU §2.3.1 step 3"))?;
            let ddte = native(ddte, big);
            if ddte & 1 == 0 {
                return fault(258, "IOMMU §2.3.1 step 5");
            }
            if ddte & 0xffc0_0000_0000_03fe != 0 {
                return fault(259, "IOMMU §2.3.1 step 6");
            }
            table = (ddte >> 10 & ((1 << 44) - 1)) << 12;
            if self.choices.wide_address == WideAddress::Misconfigured
                && !self.caps.addressable(table)
            {
                return fault(259, "IOMMU §2.1.4 note (address width)");
            }
        }
        let at = table + ddi[0] * self.caps.dc_size();
        let entry = Entry::Context { device_id };
        let mut words = [0; 8];
        let read = if self.caps.msi_flat {
            tables.entry::<8>(entry, at).map(|w| words = w)
        } else {
            tables
                .entry::<4>(entry, at)
                .map(|w| words[..4].copy_from_slice(&w))
        };
        if read.is_err() {
            return fault(257, "IOMMU §2.3.1 step 8");
        }
        let dc = DeviceContext::new(&words.map(|w| native(w, big)));
        if !dc.v() {
            return fault(258, "IOMMU §2.3.1 step 9");
        }
        match dc.misconfigured(self.caps, self.choices, self.fctl) {
            Some(clause) => fault(259, clause),
            None => Ok(dc),
        }
    }

    /// Sv39, Sv48 and Sv57 (privileged specification, "Virtual Address Translation Process").
    /// The request has user privilege: it has no `process_id` (IOMMU §2.3 step 10).
    fn first_stage(
        &self,
        tables: &mut impl Tables,
        request: &Request,
        dc: &DeviceContext,
        fsc: u64,
    ) -> Step<Translation> {
        let page_fault = match request.ttyp {
            t if t.is_write() => 15,
            t if t.is_execute() => 12,
            _ => 13,
        };
        let levels = (fsc >> 60) as u32 - 5;
        let iova = request.iova;
        let unused = 64 - (12 + 9 * levels);
        if ((iova << unused) as i64 >> unused) as u64 != iova {
            return fault(page_fault, "Privileged Sv39/48/57: non-canonical address");
        }
        let mut table = root(fsc);
        let mut global = false;
        for level in (0..levels).rev() {
            let vpn = iova >> (12 + 9 * level) & 0x1ff;
            let entry = Entry::Pte {
                pscid: dc.pscid(),
                iova,
                level,
                global,
                big: dc.sbe(),
            };
            let [raw] = tables
                .entry::<1>(entry, table + vpn * 8)
                .or_else(|_| fault(access_fault(request.ttyp), "Privileged §VATP step 2"))?;
            let pte = Pte(native(raw, dc.sbe()));
            if let Some(clause) = pte.invalid(self.caps) {
                return fault(page_fault, clause);
            }
            if pte.is_leaf() {
                return self.leaf(request, dc, pte, level, page_fault);
            }
            if pte.bad_pointer() {
                return fault(
                    page_fault,
                    "Privileged §VATP step 4 (reserved in a pointer)",
                );
            }
            global |= pte.global();
            table = pte.ppn() << 12;
        }
        fault(page_fault, "Privileged §VATP step 4 (no leaf)")
    }

    fn leaf(
        &self,
        request: &Request,
        dc: &DeviceContext,
        pte: Pte,
        level: u32,
        page_fault: u16,
    ) -> Step<Translation> {
        let (allowed, clause) = match request.ttyp {
            t if t.is_write() => (pte.bit(2), "Privileged §VATP: W"),
            t if t.is_execute() => (pte.bit(3), "Privileged §VATP: X"),
            _ => (pte.bit(1), "Privileged §VATP: R"),
        };
        if !pte.bit(4) {
            return fault(page_fault, "Privileged §VATP: U");
        }
        if !allowed {
            return fault(page_fault, clause);
        }
        let mut bits = 12 + 9 * level;
        if pte.bit(63) {
            if level != 0 || pte.ppn() & 0xf != 0b1000 {
                return fault(page_fault, "Privileged Svnapot: reserved encoding");
            }
            bits = 16;
        } else if pte.ppn() << 12 & ((1 << bits) - 1) != 0 {
            return fault(page_fault, "Privileged §VATP: misaligned superpage");
        }
        if !pte.bit(6) || request.ttyp.is_write() && !pte.bit(7) {
            if dc.sade() {
                return Err(Stop::Unmodelled("AMO_HWAD"));
            }
            return fault(page_fault, "IOMMU §2.1.3.1 (SADE is 0)");
        }
        let offset = (1u64 << bits) - 1;
        let spa = pte.ppn() << 12 & !offset | request.iova & offset;
        if !self.caps.addressable(spa) {
            return fault(access_fault(request.ttyp), "IOMMU §5.3 (PAS)");
        }
        // Value 3 was refused as reserved.
        let pbmt = Pbmt::from_bits(pte.0 >> 61 & 3).unwrap_or(Pbmt::Pma);
        Ok(Translation {
            spa: PhysAddr(spa),
            pbmt,
            page_size: offset + 1,
        })
    }
}

const fn access_fault(ttyp: TransactionType) -> u16 {
    if ttyp.is_write() {
        7
    } else if ttyp.is_execute() {
        1
    } else {
        5
    }
}

const fn native(word: u64, big: bool) -> u64 {
    if big { word.swap_bytes() } else { word }
}

/// A page-table entry of eight bytes.
#[derive(Clone, Copy)]
pub(super) struct Pte(u64);

impl Pte {
    /// From the doubleword in memory, read as little-endian.
    pub const fn new(raw: u64, big: bool) -> Self {
        Self(native(raw, big))
    }

    const fn bit(self, n: u32) -> bool {
        self.0 >> n & 1 == 1
    }

    pub const fn valid(self) -> bool {
        self.bit(0)
    }

    /// R or X.
    pub const fn is_leaf(self) -> bool {
        self.0 & 0b1010 != 0
    }

    pub const fn global(self) -> bool {
        self.bit(5)
    }

    const fn ppn(self) -> u64 {
        self.0 >> 10 & ((1 << 44) - 1)
    }

    /// Bytes of IOVA that the entry stands for at `level`.
    pub const fn span(self, level: u32) -> u64 {
        if level == 0 && self.is_leaf() && self.bit(63) {
            1 << 16
        } else {
            1 << (12 + 9 * level)
        }
    }

    /// Not valid, or an encoding that is reserved in every entry.
    fn invalid(self, caps: &Capabilities) -> Option<&'static str> {
        let reserved = if caps.svrsw60t59b {
            0x1f << 54
        } else {
            0x7f << 54
        };
        let pbmt = self.0 >> 61 & 3;
        if !self.valid() {
            Some("Privileged §VATP step 3: V")
        } else if self.0 & 0b110 == 0b100 {
            Some("Privileged §VATP step 3: W without R; IOMMU §2.3 (xwr=010)")
        } else if self.0 & reserved != 0 {
            Some("Privileged §VATP step 3: reserved bits")
        } else if pbmt == 3 || !caps.svpbmt && pbmt != 0 {
            Some("Privileged Svpbmt: reserved encoding")
        } else {
            None
        }
    }

    /// D, A, U, N and PBMT are reserved in a pointer to the next level.
    const fn bad_pointer(self) -> bool {
        self.0 & (0xd0 | 0b111 << 61) != 0
    }
}
