//! A machine for the tests of the translation process, with an encoder of its own. Its directory
//! is at `DDT` and the first stage at `ROOT`; guest and supervisor addresses of tables are equal.

use tlproof_golden::iommu::{
    AtsFlags, Capabilities, Choices, Completion, Fault, FlatMemory, Outcome, Request, Response,
    TransactionType, Translation, Translator,
};

use super::{A, D, DDT, DID, PSCID, R, ROOT, U, V, W, X, pte};

pub const BASE: u64 = 0x8000_0000;
/// Process directory.
pub const PDT: u64 = BASE + 0x2_0000;
/// Second-stage root.
pub const GUEST: u64 = BASE + 0x4_0000;
pub const MSI_TABLE: u64 = BASE + 0x6_0000;
/// A frame that pages are mapped to.
pub const FRAME: u64 = BASE + 0x20_0000;
pub const PID: u32 = 3;
pub const GSCID: u64 = 9;
pub const IOVA: u64 = 0x12_3456_7000;

pub const SV32: u64 = 1 << 8;
pub const SV32X4: u64 = 1 << 16;
pub const SV39X4: u64 = 1 << 17;
pub const SV48X4: u64 = 1 << 18;
pub const SV57X4: u64 = 1 << 19;
pub const AMO_MRIF: u64 = 1 << 21;
pub const MSI_MRIF: u64 = 1 << 23;
pub const AMO_HWAD: u64 = 1 << 24;
pub const ATS: u64 = 1 << 25;
pub const T2GPA: u64 = 1 << 26;
pub const END: u64 = 1 << 27;
pub const HPM: u64 = 1 << 30;
pub const DBG: u64 = 1 << 31;
pub const PD8: u64 = 1 << 38;
pub const PD17: u64 = 1 << 39;
pub const PD20: u64 = 1 << 40;
pub const QOSID: u64 = 1 << 41;
/// All but the 64-byte context.
pub const ALL: u64 = super::CAPS
    | SV32
    | SV32X4
    | SV39X4
    | SV48X4
    | SV57X4
    | AMO_HWAD
    | ATS
    | T2GPA
    | END
    | 2 << 28
    | HPM
    | DBG
    | PD8
    | PD17
    | PD20
    | QOSID
    | super::NL_S;

/// Bits of `DC.tc`.
pub mod tc {
    pub const V: u64 = 1;
    pub const EN_ATS: u64 = 1 << 1;
    pub const EN_PRI: u64 = 1 << 2;
    pub const T2GPA: u64 = 1 << 3;
    pub const DTF: u64 = 1 << 4;
    pub const PDTV: u64 = 1 << 5;
    pub const PRPR: u64 = 1 << 6;
    pub const GADE: u64 = 1 << 7;
    pub const SADE: u64 = 1 << 8;
    pub const DPE: u64 = 1 << 9;
    pub const SBE: u64 = 1 << 10;
    pub const SXL: u64 = 1 << 11;
}

/// A leaf that allows everything.
pub const RWX: u64 = V | R | W | X | U | A | D;

/// One device with tables.
pub struct Tables {
    pub iommu: Translator,
    pub memory: FlatMemory,
    pub dc: [u64; 8],
    next: u64,
}

impl Tables {
    /// A valid context with both stages Bare.
    pub fn new(caps: u64) -> Self {
        Self::with(caps, Choices::default())
    }

    pub fn with(caps: u64, choices: Choices) -> Self {
        let mut iommu = Translator::new(Capabilities::decode(caps), choices);
        iommu.ddtp = DDT >> 12 << 10 | 2;
        let mut tables = Self {
            iommu,
            memory: FlatMemory::new(BASE, 4 << 20),
            dc: [tc::V, 0, PSCID << 12, 0, 0, 0, 0, 0],
            next: BASE + 0x8_0000,
        };
        tables.store_dc();
        tables
    }

    /// First stage `mode` and second stage `second`, either 0, with the tables of the first mapped
    /// by the second one to one.
    pub fn staged(caps: u64, tc: u64, first: u64, second: u64) -> Self {
        let mut t = Self::new(caps);
        t.dc[0] |= tc;
        if first != 0 {
            t.dc[3] = first << 60 | ROOT >> 12;
        }
        if second != 0 {
            t.dc[1] = second << 60 | GSCID << 44 | GUEST >> 12;
            t.identity();
        }
        t.store_dc();
        t
    }

    /// The second stage maps the first 2 MiB of memory one to one.
    pub fn identity(&mut self) {
        for page in 0..512 {
            let at = BASE + (page << 12);
            let slot = self.guest_slot(at, 0);
            self.put_guest(slot, pte(at, RWX));
        }
    }

    pub fn dc_at(&self) -> u64 {
        DDT + u64::from(DID) * self.iommu.capabilities.dc_size()
    }

    pub fn store_dc(&mut self) {
        let big = self.iommu.fctl & 1 == 1;
        let words = self.iommu.capabilities.dc_size() as usize / 8;
        let at = self.dc_at();
        for (i, w) in self.dc.iter().take(words).enumerate() {
            self.memory
                .set(at + 8 * i as u64, if big { w.swap_bytes() } else { *w });
        }
    }

    pub fn set_tc(&mut self, bits: u64) {
        self.dc[0] |= bits;
        self.store_dc();
    }

    fn new_table(&mut self) -> u64 {
        let at = self.next;
        self.next += 0x1000;
        at
    }

    /// Address of the entry for `addr` at `level` in a table of 8-byte entries.
    fn slot(
        &mut self,
        root: u64,
        levels: u32,
        extra: u32,
        big: bool,
        addr: u64,
        level: u32,
    ) -> u64 {
        let mut table = root;
        for l in (level..levels).rev() {
            let bits = if l == levels - 1 { 9 + extra } else { 9 };
            let at = table + (addr >> (12 + 9 * l) & ((1 << bits) - 1)) * 8;
            if l == level {
                return at;
            }
            let order = |w: u64| if big { w.swap_bytes() } else { w };
            let old = order(self.memory.get(at));
            table = if old & V == 0 {
                let new = self.new_table();
                self.memory.set(at, order(pte(new, V)));
                new
            } else {
                old >> 10 << 12
            };
        }
        table
    }

    fn levels(context: u64) -> u32 {
        (context >> 60) as u32 - 5
    }

    /// Of the first stage, which the device context holds.
    pub fn first_slot(&mut self, iova: u64, level: u32) -> u64 {
        let levels = Self::levels(self.dc[3]);
        let big = self.dc[0] & tc::SBE != 0;
        self.slot(ROOT, levels, 0, big, iova, level)
    }

    /// Of the second stage.
    pub fn guest_slot(&mut self, gpa: u64, level: u32) -> u64 {
        let levels = Self::levels(self.dc[1]);
        let big = self.iommu.fctl & 1 == 1;
        self.slot(GUEST, levels, 2, big, gpa, level)
    }

    pub fn put_guest(&mut self, at: u64, entry: u64) {
        let big = self.iommu.fctl & 1 == 1;
        self.memory
            .set(at, if big { entry.swap_bytes() } else { entry });
    }

    /// Maps a page of the first stage; the result is the address of its PTE.
    pub fn map(&mut self, iova: u64, entry: u64) -> u64 {
        let at = self.first_slot(iova, 0);
        let big = self.dc[0] & tc::SBE != 0;
        self.memory
            .set(at, if big { entry.swap_bytes() } else { entry });
        at
    }

    /// Maps a page of the second stage.
    pub fn map_guest(&mut self, gpa: u64, entry: u64) -> u64 {
        let at = self.guest_slot(gpa, 0);
        self.put_guest(at, entry);
        at
    }

    /// PD8, with a process context at `PID`.
    pub fn process(&mut self, ta: u64, fsc: u64) {
        self.dc[0] |= tc::PDTV;
        self.dc[3] = 1 << 60 | PDT >> 12;
        self.store_dc();
        self.memory.set(PDT + u64::from(PID) * 16, ta);
        self.memory.set(PDT + u64::from(PID) * 16 + 8, fsc);
    }

    /// Switches the MSI table on for guest pages `0x1_0000` to `0x1_0003` and `0x1_0008` to
    /// `0x1_000b`, whose file numbers are 0 to 7.
    pub fn interrupts(&mut self) {
        self.dc[4] = 1 << 60 | MSI_TABLE >> 12;
        self.dc[5] = 0b1011;
        self.dc[6] = 0x1_0000;
        self.store_dc();
    }

    pub fn msi_pte(&mut self, number: u64, words: [u64; 2]) {
        self.memory.set(MSI_TABLE + number * 16, words[0]);
        self.memory.set(MSI_TABLE + number * 16 + 8, words[1]);
    }

    pub fn run(&self, request: &Request) -> Response {
        self.iommu.lookup(&self.memory, request)
    }

    pub fn ok(&self, request: &Request) -> Translation {
        match self.run(request).outcome {
            Outcome::Ok(t) => t,
            other => panic!("{other:x?}"),
        }
    }

    pub fn fault(&self, request: &Request) -> Fault {
        match self.run(request).outcome {
            Outcome::Fault(f) => f,
            other => panic!("{other:x?}"),
        }
    }

    /// The cause, 0 if there is no fault.
    pub fn cause(&self, request: &Request) -> u16 {
        match self.run(request).outcome {
            Outcome::Fault(f) => f.cause(),
            _ => 0,
        }
    }

    pub fn completion(&self, request: &Request) -> Completion {
        match self.run(request).outcome {
            Outcome::Completion(c) => c,
            other => panic!("{other:x?}"),
        }
    }
}

pub fn of(ttyp: TransactionType, iova: u64) -> Request {
    Request {
        ttyp,
        ..Request::untranslated(DID, iova, false)
    }
}

pub fn read(iova: u64) -> Request {
    of(TransactionType::UntranslatedRead, iova)
}

pub fn write(iova: u64) -> Request {
    of(TransactionType::UntranslatedWrite, iova)
}

pub fn execute(iova: u64) -> Request {
    of(TransactionType::UntranslatedExecute, iova)
}

/// The three accesses.
pub fn each(iova: u64) -> [Request; 3] {
    [execute(iova), read(iova), write(iova)]
}

pub fn with_process(request: Request, privileged: bool) -> Request {
    Request {
        process_id: Some(PID),
        privileged,
        ..request
    }
}

pub fn ats(iova: u64, no_write: bool, execute: bool) -> Request {
    Request {
        ats: AtsFlags {
            no_write,
            execute,
            cxl: false,
        },
        ..of(TransactionType::AtsTranslation, iova)
    }
}
