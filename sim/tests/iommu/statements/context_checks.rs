//! What makes a device context misconfigured: IOMMU §2.1.4.

use std::ops::Range;

use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, SV48, SV57, pte, tc};

const DEVICE: u32 = 5;
const PROCESS: u32 = 3;
/// Addresses that RV32 schemes can map, too.
const IOVA: u64 = 0x3456_7000;
const GPA: u64 = 0x2_7654_3000;
const PAGE: u64 = 0x1_8765_4000;
const MISCONFIGURED: Result<u64, u64> = Err(259);

/// Bits of `tc`.
const EN_ATS: u64 = 1 << 1;
const EN_PRI: u64 = 1 << 2;
const T2GPA: u64 = 1 << 3;
const PRPR: u64 = 1 << 6;
const DPE: u64 = 1 << 9;
const SBE: u64 = 1 << 10;
const SXL: u64 = 1 << 11;

/// Bits of `fctl`.
const BE: u64 = 1;
const GXL: u64 = 1 << 2;

/// `msiptp.MODE` Flat.
const FLAT: u64 = 1 << 60;

const READ: Request = Request::new(Ttyp::UntransRd, DEVICE, IOVA);

type Field = fn(&mut Context) -> &mut u64;
const TC: Field = |c| &mut c.tc;
const IOHGATP: Field = |c| &mut c.iohgatp;
const TA: Field = |c| &mut c.ta;
const FSC: Field = |c| &mut c.fsc;
const MSIPTP: Field = |c| &mut c.msi[0];
const MSI_ADDR_MASK: Field = |c| &mut c.msi[1];
const MSI_ADDR_PATTERN: Field = |c| &mut c.msi[2];
const RESERVED: Field = |c| &mut c.reserved;

/// `context` with another value of a field.
fn with(mut context: Context, field: Field, value: u64) -> Context {
    *field(&mut context) = value;
    context
}

/// A device of which [`IOVA`] is [`PAGE`], by way of [`GPA`] if it has both stages.
struct Setup {
    rig: Rig,
    vm: Vm,
    ddt: u64,
    context: Context,
}

impl Setup {
    /// Modes of both stages, 0 for none.
    fn new(first: u64, second: u64) -> Self {
        Self::with(first, second, 0, 0)
    }

    /// With these bits of `fctl`, and of `tc`, which say the formats of the tables.
    fn with(first: u64, second: u64, fctl: u64, bits: u64) -> Self {
        let mut rig = Rig::new(60);
        rig.set_fctl(fctl);
        let big = [bits & SBE != 0, fctl & BE != 0];
        let mut vm = Vm::with(&mut rig, first, second, bits & SXL != 0, big);
        if first != 0 {
            let to = if second == 0 { PAGE } else { GPA };
            vm.map_first(&mut rig, IOVA, 0, pte::at(to, pte::ALL));
        }
        if second != 0 {
            let gpa = if first == 0 { IOVA } else { GPA };
            vm.map_second(&mut rig, gpa, 0, pte::at(PAGE, pte::ALL));
        }
        let context = Context::of(&vm).tc(bits);
        let ddt = rig.directory(&[DEVICE], context);
        Self {
            rig,
            vm,
            ddt,
            context,
        }
    }

    /// The context with its first stage behind [`PROCESS`] of a directory.
    fn process(&mut self) -> Context {
        let root = self.vm.table(&mut self.rig);
        let process = Process::of(&self.vm);
        self.rig
            .set_process(&mut self.vm, root, pd::PD8, PROCESS, process, false);
        Context {
            fsc: pd::PD8 << 60 | root >> 12,
            ..self.context.tc(tc::PDTV)
        }
    }

    /// What `request` becomes under `context`: the page, or the cause of the fault.
    fn expect(&mut self, request: Request, context: Context, outcome: Result<u64, u64>) {
        self.rig.set_context(self.ddt, DEVICE, context);
        self.rig.forget();
        match outcome {
            Ok(page) => assert_eq!(self.rig.translate(request).spa, page, "{context:x?}"),
            Err(cause) => {
                self.rig.fault(request, cause);
            }
        }
    }

    /// `good` translates, `bad` is misconfigured.
    fn contrast(&mut self, good: Context, bad: Context) {
        self.expect(READ, good, Ok(PAGE));
        self.expect(READ, bad, MISCONFIGURED);
        self.expect(READ, good, Ok(PAGE));
    }

    /// Outcomes of inverting each bit of a field, of itself alone.
    fn bits(
        &mut self,
        request: Request,
        context: Context,
        field: Field,
        outcomes: &[(Range<u32>, Result<u64, u64>)],
    ) {
        self.expect(request, context, Ok(PAGE));
        for (bits, outcome) in outcomes {
            for bit in bits.clone() {
                let value = *field(&mut context.clone()) ^ 1 << bit;
                self.expect(request, with(context, field, value), *outcome);
            }
        }
    }

    /// Outcomes of every mode of a field whose PPN is that of an empty table.
    fn modes(&mut self, context: Context, field: Field, outcome: impl Fn(u64) -> Result<u64, u64>) {
        let empty = self.rig.pages(4) >> 12;
        for mode in 0..16 {
            let context = with(context, field, mode << 60 | empty);
            self.expect(READ, context, outcome(mode));
        }
    }
}

#[test]
fn reserved_bits_of_tc() {
    let mut s = Setup::new(SV39, SV39);
    // DTF, GADE and SADE are not reserved.
    let outcomes = [
        (4..5, Ok(PAGE)),
        (7..9, Ok(PAGE)),
        (12..24, MISCONFIGURED),
        (32..64, MISCONFIGURED),
    ];
    s.bits(READ, s.context, TC, &outcomes);
}

#[test]
fn custom_bits_of_tc() {
    let mut s = Setup::new(SV39, SV39);
    let neighbours = [
        (23..24, MISCONFIGURED),
        (24..32, Ok(PAGE)),
        (32..33, MISCONFIGURED),
    ];
    s.bits(READ, s.context, TC, &neighbours);
    s.expect(READ, s.context.tc(0xff << 24), Ok(PAGE));
}

#[test]
fn reserved_bits_of_ta() {
    let mut s = Setup::new(SV39, SV39);
    let outcomes = [
        (0..12, MISCONFIGURED),
        (12..32, Ok(PAGE)), // PSCID
        (32..40, MISCONFIGURED),
        (40..64, Ok(PAGE)), // RCID, MCID
    ];
    s.bits(READ, s.context, TA, &outcomes);
    // PDTV only makes PSCID ignored.
    let process = s.process();
    s.bits(READ.of(PROCESS), process, TA, &outcomes);
}

#[test]
fn reserved_bits_of_iosatp() {
    let mut s = Setup::new(SV39, 0);
    // Bits 43:40 are of the PPN, and nothing is there.
    let outcomes = [(40..44, Err(13)), (44..60, MISCONFIGURED)];
    s.bits(READ, s.context, FSC, &outcomes);
    // Bare does not use the PPN, but its reserved bits remain.
    let mut s = Setup::new(0, SV39);
    let outcomes = [(0..44, Ok(PAGE)), (44..60, MISCONFIGURED)];
    s.bits(READ, s.context, FSC, &outcomes);
}

#[test]
fn reserved_bits_of_pdtp() {
    let mut s = Setup::new(SV39, 0);
    let process = s.process();
    let outcomes = [(40..44, Err(266)), (44..60, MISCONFIGURED)];
    s.bits(READ.of(PROCESS), process, FSC, &outcomes);
    let mut s = Setup::new(0, SV39);
    let bare = with(s.context.tc(tc::PDTV), FSC, 0);
    let outcomes = [(0..44, Ok(PAGE)), (44..60, MISCONFIGURED)];
    s.bits(READ, bare, FSC, &outcomes);
}

/// A field of the MSI page table, with recognition of interrupt files off and on.
fn reserved_bits_of_msi(field: Field, first: u32, last: u32) {
    let mut s = Setup::new(SV39, SV39);
    for mode in [0, FLAT] {
        // No pattern that differs from this in one bit is that of GPA.
        let context = Context {
            msi: [mode, 0, 0],
            ..s.context
        };
        let outcomes = [(0..first, Ok(PAGE)), (first..last, MISCONFIGURED)];
        s.bits(READ, context, field, &outcomes);
    }
}

#[test]
fn reserved_bits_of_msiptp() {
    reserved_bits_of_msi(MSIPTP, 44, 60);
}

#[test]
fn reserved_bits_of_msi_addr_mask() {
    reserved_bits_of_msi(MSI_ADDR_MASK, 52, 64);
}

#[test]
fn reserved_bits_of_msi_addr_pattern() {
    reserved_bits_of_msi(MSI_ADDR_PATTERN, 52, 64);
}

#[test]
fn the_last_doubleword() {
    reserved_bits_of_msi(RESERVED, 0, 64);
}

#[test]
fn t2gpa_without_ats() {
    let mut s = Setup::new(SV39, SV39);
    s.contrast(s.context.tc(EN_ATS | T2GPA), s.context.tc(T2GPA));
    s.contrast(s.context.tc(EN_ATS), s.context.tc(T2GPA));
}

#[test]
fn pri_without_ats() {
    let mut s = Setup::new(SV39, 0);
    s.contrast(s.context.tc(EN_ATS | EN_PRI), s.context.tc(EN_PRI));
    s.contrast(s.context.tc(EN_ATS), s.context.tc(EN_PRI));
}

#[test]
fn prpr_without_pri() {
    let mut s = Setup::new(SV39, 0);
    let good = s.context.tc(EN_ATS | EN_PRI | PRPR);
    s.contrast(good, s.context.tc(EN_ATS | PRPR));
    s.contrast(s.context.tc(EN_ATS), s.context.tc(EN_ATS | PRPR));
}

#[test]
fn t2gpa_without_a_second_stage() {
    let bits = EN_ATS | T2GPA;
    let mut s = Setup::new(SV39, 0);
    s.contrast(s.context.tc(EN_ATS), s.context.tc(bits));
    for second in [SV39, SV48, SV57] {
        let mut s = Setup::new(SV39, second);
        s.expect(READ, s.context.tc(bits), Ok(PAGE));
    }
}

#[test]
fn dpe_without_a_directory() {
    let mut s = Setup::new(SV39, SV39);
    s.contrast(s.context, s.context.tc(DPE));
    // With one, process 0 is not there; without DPE nothing looks for it.
    let process = s.process();
    s.expect(READ, process.tc(DPE), Err(266));
    s.expect(READ.of(PROCESS), process.tc(DPE), Ok(PAGE));
    s.expect(READ.of(PROCESS), process, Ok(PAGE));
}

/// Requests without a process need no more than a good context.
#[test]
fn modes_of_pdtp() {
    let mut s = Setup::new(0, SV39);
    let context = s.context.tc(tc::PDTV);
    s.modes(context, FSC, |mode| match mode {
        0..=3 => Ok(PAGE),
        _ => MISCONFIGURED,
    });
}

#[test]
fn modes_of_iosatp() {
    let mut s = Setup::new(0, 0);
    s.modes(s.context, FSC, |mode| match mode {
        0 => Ok(IOVA),
        SV39 | SV48 | SV57 => Err(13),
        _ => MISCONFIGURED,
    });
}

#[test]
fn modes_of_iosatp_with_sxl() {
    for fctl in [0, GXL] {
        let mut s = Setup::with(0, 0, fctl, SXL);
        s.modes(s.context, FSC, |mode| match mode {
            0 => Ok(IOVA),
            8 => Err(13),
            _ => MISCONFIGURED,
        });
    }
}

/// SXL = 1 does not limit the second stage, GXL does.
#[test]
fn modes_of_iohgatp() {
    for bits in [0, SXL] {
        let mut s = Setup::with(0, 0, 0, bits);
        s.modes(s.context, IOHGATP, |mode| match mode {
            0 => Ok(IOVA),
            SV39 | SV48 | SV57 => Err(21),
            _ => MISCONFIGURED,
        });
    }
}

#[test]
fn modes_of_iohgatp_with_gxl() {
    let mut s = Setup::with(0, 0, GXL, SXL);
    s.modes(s.context, IOHGATP, |mode| match mode {
        0 => Ok(IOVA),
        8 => Err(21),
        _ => MISCONFIGURED,
    });
}

#[test]
fn modes_of_msiptp() {
    let mut s = Setup::new(SV39, SV39);
    s.modes(s.context, MSIPTP, |mode| match mode {
        0 | 1 => Ok(PAGE),
        _ => MISCONFIGURED,
    });
}

#[test]
fn alignment_of_the_second_stages_root() {
    let schemes = [(SV39, 0, 0), (SV48, 0, 0), (SV57, 0, 0), (8, GXL, SXL)];
    for (mode, fctl, bits) in schemes {
        let mut s = Setup::with(0, mode, fctl, bits);
        let root = s.context.iohgatp;
        for low in 1..4 {
            s.contrast(s.context, with(s.context, IOHGATP, root | low));
        }
        // Bit 14 of the address is free: an empty root.
        let empty = s.rig.pages(8) >> 12;
        let elsewhere = root >> 44 << 44 | empty | 4;
        s.expect(READ, with(s.context, IOHGATP, elsewhere), Err(21));
    }
}

#[test]
fn bare_needs_no_alignment() {
    let mut s = Setup::new(SV39, 0);
    s.bits(READ, s.context, IOHGATP, &[(0..44, Ok(PAGE))]);
    let second = with(s.context, IOHGATP, SV39 << 60 | 1);
    s.contrast(with(s.context, IOHGATP, 1), second);
}

#[test]
fn gxl_needs_sxl() {
    for (fctl, without_sxl) in [(0, Ok(IOVA)), (GXL, MISCONFIGURED)] {
        // Without tables, then with those that SXL = 1 has.
        let mut s = Setup::with(0, 0, fctl, 0);
        s.expect(READ, s.context, without_sxl);
        s.expect(READ, s.context.tc(SXL), Ok(IOVA));
        s.expect(READ, s.context, without_sxl);
        let mut s = Setup::with(8, 0, fctl, SXL);
        s.expect(READ, s.context, Ok(PAGE));
    }
}

/// Neither value of SBE is refused, and each is what the first stage is read by.
#[test]
fn sbe_is_free_of_be() {
    for fctl in [0, BE] {
        for bits in [0, SBE] {
            for second in [0, SV39] {
                let mut s = Setup::with(SV39, second, fctl, bits);
                s.expect(READ, s.context, Ok(PAGE));
                let other = with(s.context, TC, s.context.tc ^ SBE);
                s.expect(READ, other, Err(13));
            }
        }
    }
}
