//! The fields of device contexts: IOMMU §2.1.2 and §2.1.3.

use crate::bench::{command, csr, reg};
use crate::rig::{Answer, Context, Message, Mrif, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, SV57, pte, tc};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x3456_7000;
const GPA: u64 = 0x2_7654_3000;
const PAGE: u64 = 0x1_8765_4000;
const EN_ATS: u64 = 1 << 1;
const T2GPA: u64 = 1 << 3;
const GADE: u64 = 1 << 7;
const SADE: u64 = 1 << 8;
const SXL: u64 = 1 << 11;
const GXL: u64 = 1 << 2;
const CLEAN: u64 = pte::ALL & !pte::D;

/// The types of access with their page faults and guest page faults.
const KINDS: [(Ttyp, u64, u64); 3] = [
    (Ttyp::UntransRd, 13, 21),
    (Ttyp::UntransWr, 15, 23),
    (Ttyp::UntransRx, 12, 20),
];

const fn of(ttyp: Ttyp, iova: u64) -> Request {
    Request::new(ttyp, DEVICE, iova)
}

/// A device of which [`IOVA`] is [`PAGE`], by way of [`GPA`] if it has both stages.
struct Setup {
    rig: Rig,
    vm: Vm,
    ddt: u64,
    context: Context,
}

impl Setup {
    fn new(first: u64, second: u64, bits: u64) -> Self {
        Self::with(first, second, 0, bits)
    }

    /// With a value of `fctl`.
    fn with(first: u64, second: u64, fctl: u64, bits: u64) -> Self {
        let mut rig = Rig::new(61);
        rig.set_fctl(fctl);
        let mut vm = Vm::with(
            &mut rig,
            first,
            second,
            bits & SXL != 0,
            [false, fctl & 1 == 1],
        );
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

    fn set(&mut self, context: Context) {
        self.rig.set_context(self.ddt, DEVICE, context);
    }

    /// The leaf of the first stage.
    fn first(&mut self, leaf: u64) {
        let to = if self.vm.second.is_some() { GPA } else { PAGE };
        self.vm.map_first(&mut self.rig, IOVA, 0, pte::at(to, leaf));
        self.rig.forget();
    }

    /// The leaf of the second stage.
    fn second(&mut self, leaf: u64) {
        self.vm
            .map_second(&mut self.rig, GPA, 0, pte::at(PAGE, leaf));
        self.rig.forget();
    }
}

#[test]
fn doublewords_have_the_byte_order_of_fctl_be() {
    for be in [0, 1] {
        let mut s = Setup::with(SV39, SV39, be, 0);
        s.set(Context {
            ta: 0x8_0005 << 12,
            msi: [1 << 60 | 0x777, 0x770, 0x777],
            ..s.context
        });
        assert_eq!(s.rig.translate(of(Ttyp::UntransRd, IOVA)).spa, PAGE);
        // In the other order V is 0, the second stage Bare or unknown, or reserved bits are 1.
        for word in 0..7 {
            let at = s.ddt + 64 * u64::from(DEVICE) + 8 * word;
            let old = s.rig.load(at);
            s.rig.store(at, old.swap_bytes());
            s.rig.sync(&[command::iodir(None)]);
            let answer = s.rig.ask(of(Ttyp::UntransRd, IOVA));
            match word {
                0 => assert_eq!(answer.cause, 258),
                1 => assert_ne!(answer.cause, 0),
                _ => assert_eq!(answer.cause, 259, "doubleword {word}"),
            }
            s.rig.store(at, old);
        }
        s.rig.sync(&[command::iodir(None)]);
        s.rig.translate(of(Ttyp::UntransRd, IOVA));
    }
}

#[test]
fn with_v_0_nothing_else_matters() {
    let mut s = Setup::new(SV39, 0, 0);
    let garbage = Context {
        tc: !0,
        iohgatp: !0,
        ta: !0,
        fsc: !0,
        msi: [!0; 3],
        reserved: !0,
    };
    s.set(garbage);
    s.rig.fault(of(Ttyp::UntransRd, IOVA), 259);
    s.set(Context { tc: !1, ..garbage });
    s.rig.fault(of(Ttyp::UntransRd, IOVA), 258);
    s.set(Context { tc: 0, ..s.context });
    s.rig.fault(of(Ttyp::UntransRd, IOVA), 258);
}

/// Supported with EN_ATS, and cause 260 without.
fn needs_en_ats(ttyp: Ttyp) -> Answer {
    let mut s = Setup::new(SV39, 0, 0);
    s.rig.fault(of(ttyp, IOVA), 260);
    s.set(s.context.tc(EN_ATS));
    s.rig.translate(of(ttyp, IOVA))
}

#[test]
fn translated_reads_are_supported() {
    assert_eq!(needs_en_ats(Ttyp::TransRd).spa, IOVA);
}

#[test]
fn translated_writes_are_supported() {
    assert_eq!(needs_en_ats(Ttyp::TransWr).spa, IOVA);
}

#[test]
fn translated_reads_for_execute_are_supported() {
    assert_eq!(needs_en_ats(Ttyp::TransRx).spa, IOVA);
}

#[test]
fn translation_requests_are_supported() {
    let answer = needs_en_ats(Ttyp::AtsReq);
    assert_eq!(answer.spa, PAGE);
    assert!(answer.ats.r && answer.ats.w);
}

/// Of a valid context with EN_ATS; without one, at the time of the completion, it completes nothing,
/// leaves no record, and the fence behind it times out.
#[test]
fn invalidate_completions_are_supported() {
    const RESERVED: u64 = 1 << 40;
    let [off, bare] = [0, 1].map(Some);
    for (bits, mode, supported) in [
        (EN_ATS, None, true),
        (0, None, false),
        (EN_ATS | RESERVED, None, false),
        (EN_ATS, off, false),
        (EN_ATS, bare, false),
    ] {
        let mut s = Setup::new(SV39, 0, bits);
        // A valid context is held.
        s.rig.ask(of(Ttyp::UntransRd, IOVA));
        s.rig.records();
        let fence = command::fence(None, false);
        s.rig.hand_over(&[[4 | u64::from(DEVICE) << 40, 0], fence]);
        s.rig.run(300);
        if let Some(mode) = mode {
            s.rig.set_ddtp(mode, s.ddt);
        }
        for device_id in [DEVICE + 1, DEVICE] {
            assert_ne!(s.rig.read(reg::CQH, 4), s.rig.read(reg::CQT, 4));
            s.rig.message(&Message::Completion {
                device_id,
                itags: 1,
                count: 1,
            });
            s.rig.run(300);
        }
        let done = s.rig.read(reg::CQH, 4) == s.rig.read(reg::CQT, 4);
        assert_eq!(done, supported);
        s.rig.run(10_000);
        let late = s.rig.read(reg::CQCSR, 4) & csr::TIMEOUT != 0;
        assert_eq!(late, !supported);
        assert_eq!(s.rig.records(), []);
    }
}

/// Whether it has EN_ATS is known when its context has been read.
#[test]
fn a_fence_waits_for_the_context_of_a_completion() {
    let mut s = Setup::new(SV39, 0, EN_ATS);
    s.rig.translate(of(Ttyp::UntransRd, IOVA));
    let context = s.ddt + 64 * u64::from(DEVICE);
    s.rig.hand_over(&[
        command::iodir(None),
        [4 | u64::from(DEVICE) << 40, 0],
        command::fence(None, false),
    ]);
    s.rig.run(300);
    s.rig.held = Some(context);
    s.rig.message(&Message::Completion {
        device_id: DEVICE,
        itags: 1,
        count: 1,
    });
    for _ in 0..3 {
        s.rig.run(500);
        assert_eq!(s.rig.accesses.last().map(|a| a.addr), Some(context));
        assert_ne!(s.rig.read(reg::CQH, 4), s.rig.read(reg::CQT, 4));
    }
    s.rig.held = None;
    s.rig.run(300);
    assert_eq!(s.rig.read(reg::CQH, 4), s.rig.read(reg::CQT, 4));
    assert_eq!(s.rig.read(reg::CQCSR, 4) & csr::TIMEOUT, 0);
}

#[test]
fn without_en_ats_they_are_unsupported_requests() {
    for ttyp in [Ttyp::TransRd, Ttyp::TransWr, Ttyp::TransRx, Ttyp::AtsReq] {
        let mut s = Setup::new(SV39, 0, 0);
        let answer = s.rig.ask(of(ttyp, IOVA));
        assert_eq!((answer.status, answer.cause), (1, 260), "{ttyp:?}");
        assert_eq!(s.rig.translate(of(Ttyp::UntransRd, IOVA)).spa, PAGE);
    }
}

#[test]
fn with_t2gpa_both_stages_decide() {
    let ask = of(Ttyp::AtsReq, IOVA);
    let mut s = Setup::new(SV39, SV39, EN_ATS | T2GPA);
    let whole = s.rig.translate(ask);
    assert_eq!((whole.spa, whole.size, whole.is_gpa), (GPA, 4096, true));
    assert!(whole.ats.r && whole.ats.w);
    s.first(pte::ALL & !pte::W);
    let answer = s.rig.translate(ask);
    assert!(answer.ats.r && !answer.ats.w);
    s.first(pte::ALL);
    s.second(pte::ALL & !pte::W);
    let answer = s.rig.translate(ask);
    assert!(answer.ats.r && !answer.ats.w);
    // A page of 2 MiB in the first stage, in the second, in both.
    let large = 1 << 21;
    let (iova, gpa, page) = (0x4000_0000, 0x1_4000_0000, 0x2_4000_0000);
    for (first, second, size) in [(1, 0, 4096), (0, 1, 4096), (1, 1, large)] {
        let mut s = Setup::new(SV39, SV39, EN_ATS | T2GPA);
        s.vm.map_first(&mut s.rig, iova, first, pte::at(gpa, pte::ALL));
        s.vm.map_second(&mut s.rig, gpa, second, pte::at(page, pte::ALL));
        let answer = s.rig.translate(of(Ttyp::AtsReq, iova));
        assert_eq!((answer.spa, answer.size), (gpa, size), "{first} {second}");
    }
}

#[test]
fn with_dtf_a_faulting_request_gets_its_error() {
    for (bits, records) in [(0, 1), (tc::DTF, 0)] {
        let mut s = Setup::new(SV39, 0, bits);
        let answer = s.rig.ask(of(Ttyp::UntransRd, IOVA + 0x1000));
        assert_eq!((answer.status, answer.cause), (1, 13));
        assert_eq!(s.rig.records().len(), records);
    }
}

#[test]
fn without_gade_a_clean_page_of_the_second_stage_refuses_writes() {
    for first in [0, SV39] {
        let mut s = Setup::new(first, SV39, SADE);
        let gpa = if first == 0 { IOVA } else { GPA };
        s.vm.map_second(&mut s.rig, gpa, 0, pte::at(PAGE, CLEAN));
        s.rig.forget();
        s.rig.translate(of(Ttyp::UntransRd, IOVA));
        s.rig.translate(of(Ttyp::UntransRx, IOVA));
        assert_eq!(s.rig.fault(of(Ttyp::UntransWr, IOVA), 23).iotval2, gpa);
        s.set(s.context.tc(GADE));
        s.rig.translate(of(Ttyp::UntransWr, IOVA));
    }
}

#[test]
fn without_sade_a_clean_page_of_the_first_stage_refuses_writes() {
    for second in [0, SV39] {
        let mut s = Setup::new(SV39, second, GADE);
        s.first(CLEAN);
        s.rig.translate(of(Ttyp::UntransRd, IOVA));
        s.rig.translate(of(Ttyp::UntransRx, IOVA));
        s.rig.fault(of(Ttyp::UntransWr, IOVA), 15);
        s.set(s.context.tc(SADE));
        s.rig.translate(of(Ttyp::UntransWr, IOVA));
    }
}

/// Both values with fctl.GXL = 0 where it can be written, 0 alone where it cannot.
#[test]
fn sxl_is_0_or_1_where_gxl_is_writable() {
    for bits in [0, SXL] {
        let mut s = Setup::new(8, 0, bits);
        assert_eq!(s.rig.translate(of(Ttyp::UntransRd, IOVA)).spa, PAGE);
    }
    for (bits, cause) in [(0, 0), (SXL, 259)] {
        let mut rig = Rig::other(61);
        let big = 1 << 10;
        rig.directory(&[DEVICE], Context::default().tc(tc::V | big | bits));
        let answer = rig.ask(of(Ttyp::UntransRd, IOVA));
        assert_eq!(answer.cause, cause, "SXL {bits:#x}");
    }
}

#[test]
fn with_sxl_an_iova_has_32_bits() {
    for (ttyp, cause, _) in KINDS {
        let mut s = Setup::new(8, 0, SXL);
        s.rig.translate(of(ttyp, IOVA));
        for bit in 32..64 {
            s.rig.fault(of(ttyp, IOVA | 1 << bit), cause);
        }
        // Without a first stage there is no such bound.
        let mut s = Setup::new(0, 0, SXL);
        s.rig.translate(of(ttyp, IOVA | 1 << 32));
    }
}

#[test]
fn with_sxl_a_guest_address_has_34_bits() {
    for (ttyp, _, cause) in KINDS {
        for (second, width, bits, fctl) in [
            (SV39, 41, 0, 0),
            (SV39, 41, SXL, 0),
            (SV57, 59, 0, 0),
            (SV57, 59, SXL, 0),
            (SV39, 34, SXL, GXL), // Sv32x4
        ] {
            let mut rig = Rig::new(61);
            rig.set_fctl(fctl);
            let mut vm = Vm::with(&mut rig, 0, second, fctl != 0, [false; 2]);
            let inside = 1 << 33 | IOVA;
            vm.map_second(&mut rig, inside, 0, pte::at(PAGE, pte::ALL));
            for bit in 34..width {
                vm.map_second(&mut rig, 1 << bit | IOVA, 0, pte::at(PAGE, pte::ALL));
            }
            rig.directory(&[DEVICE], Context::of(&vm).tc(bits));
            rig.translate(of(ttyp, inside));
            for bit in 34..64 {
                let beyond = of(ttyp, 1 << bit | IOVA);
                if bits == 0 && bit < width {
                    rig.translate(beyond);
                } else {
                    assert_eq!(rig.fault(beyond, cause).iotval2, 1 << bit | IOVA);
                }
            }
        }
    }
}

/// IOTINVAL.VMA of an address space.
fn forget(rig: &mut Rig, pscid: u32) {
    rig.sync(&[command::iotinval(Some(pscid), None)]);
}

#[test]
fn pscid_of_the_context_is_the_address_space() {
    let mut s = Setup::new(SV39, 0, 0);
    for bit in 0..20 {
        let pscid: u32 = 1 << bit;
        s.set(Context {
            ta: u64::from(pscid) << 12,
            ..s.context
        });
        s.first(pte::ALL);
        s.rig.translate(of(Ttyp::UntransRd, IOVA));
        s.vm.map_first(&mut s.rig, IOVA, 0, 0);
        for other in [0, pscid | 1 << ((bit + 1) % 20)] {
            forget(&mut s.rig, other);
            s.rig.translate(of(Ttyp::UntransRd, IOVA));
        }
        forget(&mut s.rig, pscid);
        s.rig.fault(of(Ttyp::UntransRd, IOVA), 13);
    }
}

#[test]
fn with_pdtv_pscid_of_the_context_is_ignored() {
    let mut s = Setup::new(SV39, 0, 0);
    let root = s.vm.table(&mut s.rig);
    let process = Process::of(&s.vm);
    s.rig
        .set_process(&mut s.vm, root, pd::PD8, 3, process, false);
    s.set(Context {
        fsc: pd::PD8 << 60 | root >> 12,
        ..s.context.tc(tc::PDTV)
    });
    let ask = of(Ttyp::UntransRd, IOVA).of(3);
    s.rig.translate(ask);
    s.vm.map_first(&mut s.rig, IOVA, 0, 0);
    forget(&mut s.rig, 5);
    s.rig.translate(ask);
    forget(&mut s.rig, 9);
    s.rig.fault(ask, 13);
}

const RCID: u64 = 0x123;
const MCID: u64 = 0x456;

/// A device whose context has QoS IDs, one page of which is an interrupt file with this entry.
fn with_ids(words: impl FnOnce(&mut Rig) -> [u64; 2]) -> (Setup, u64) {
    let mut s = Setup::new(SV39, SV39, 0);
    let table = s.rig.page();
    let [low, high] = words(&mut s.rig);
    s.rig.store(table, low);
    s.rig.store(table + 8, high);
    s.context = Context {
        ta: s.context.ta | RCID << 40 | MCID << 52,
        msi: [1 << 60 | table >> 12, 0, GPA >> 12],
        ..s.context
    };
    s.set(s.context);
    (s, table)
}

fn carry_the_ids(s: &Setup, page: u64) {
    let mut accesses = s
        .rig
        .accesses
        .iter()
        .filter(|a| a.addr & !0xfff == page)
        .peekable();
    assert!(accesses.peek().is_some());
    assert!(accesses.all(|a| (a.rcid, a.mcid) == (RCID, MCID)));
}

#[test]
fn msi_page_tables_are_read_with_the_ids_of_the_context() {
    let (mut s, table) = with_ids(|_| [PAGE >> 12 << 10 | 3 << 1 | 1, 0]);
    assert_eq!(s.rig.translate(of(Ttyp::UntransWr, IOVA)).spa, PAGE);
    carry_the_ids(&s, table);
}

/// The notice is a message of the IOMMU itself (IOMMU §5.27).
#[test]
fn interrupt_files_have_the_ids_of_the_context_and_notices_those_of_the_iommu() {
    let (mut file, mut notice) = (0, 0);
    let (mut s, _) = with_ids(|rig| {
        (file, notice) = (rig.page(), rig.page());
        [file >> 9 << 7 | 1 << 1 | 1, notice >> 12 << 10]
    });
    let (rcid, mcid) = (0xabc, 0xdef);
    s.rig.write(reg::QOSID, 4, mcid << 16 | rcid);
    let request = of(Ttyp::UntransWr, IOVA);
    let answer = s.rig.translate(request);
    assert!(answer.is_mrif);
    s.rig.store_msi(&Mrif {
        request,
        answer,
        data: 3,
    });
    carry_the_ids(&s, file);
    let notices = s.rig.accesses.iter().filter(|a| a.addr == notice);
    let notices: Vec<_> = notices.map(|a| (a.rcid, a.mcid)).collect();
    assert_eq!(notices, [(rcid, mcid)]);
}

/// Of both stages, of the second alone, and of none, from memory and from what is held.
#[test]
fn every_successful_answer_has_the_ids_of_the_context() {
    let (mut s, _) = with_ids(|_| [PAGE >> 12 << 10 | 3 << 1 | 1, 0]);
    let (iova, gpa) = (IOVA + 0x1000, GPA + 0x1000);
    s.vm.map_first(&mut s.rig, iova, 0, pte::at(gpa, pte::ALL));
    s.vm.map_second(&mut s.rig, gpa, 0, pte::at(PAGE, pte::ALL));
    let both = s.context;
    let second = Context { fsc: 0, ..both };
    let none = Context {
        iohgatp: 0,
        msi: [0; 3],
        ..second
    };
    for (context, request) in [
        (both, of(Ttyp::UntransWr, IOVA)), // an interrupt file
        (both, of(Ttyp::UntransWr, iova)),
        (both.tc(EN_ATS), of(Ttyp::AtsReq, iova)),
        (both.tc(EN_ATS), of(Ttyp::TransRd, PAGE)),
        (both.tc(EN_ATS | T2GPA), of(Ttyp::AtsReq, iova)),
        (both.tc(EN_ATS | T2GPA), of(Ttyp::TransRd, gpa)),
        (second, of(Ttyp::UntransRd, gpa)),
        (none, of(Ttyp::UntransRd, IOVA)),
    ] {
        s.set(context);
        for _ in 0..2 {
            let answer = s.rig.translate(request);
            assert_eq!((answer.rcid, answer.mcid), (RCID, MCID), "{request:x?}");
        }
    }
}

/// A page of the first stage leads to this guest address; is it that of an interrupt file? Guest
/// addresses beyond what it can lead to have none.
fn is_interrupt_file(mode: u64, mask: u64, pattern: u64, page: u64) -> bool {
    let (first, iova) = match page >> 44 {
        0 => (SV39, IOVA),
        _ => (0, page << 12),
    };
    let mut s = Setup::new(first, SV57, 0);
    if first != 0 {
        s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(page << 12, pte::ALL));
    }
    s.vm.map_second(&mut s.rig, page << 12, 0, pte::at(PAGE, pte::ALL));
    let table = s.rig.pages(16);
    let context = Context {
        msi: [mode << 60 | table >> 12, mask, pattern],
        ..s.context
    };
    s.set(context);
    let answer = s.rig.ask(of(Ttyp::UntransWr, iova));
    // The table is empty.
    match answer.cause {
        0 => assert_eq!(answer.spa, PAGE),
        cause => assert_eq!(cause, 262),
    }
    answer.cause != 0
}

#[test]
fn with_msiptp_off_there_are_no_interrupt_files() {
    assert!(is_interrupt_file(1, 0, 0x1_2345, 0x1_2345));
    assert!(!is_interrupt_file(0, 0, 0x1_2345, 0x1_2345));
    assert!(!is_interrupt_file(0, 0x7f, 0x1_2345, 0x1_2345));
}

#[test]
fn bits_that_the_mask_lacks_must_equal_the_pattern() {
    for bit in 0..47 {
        let mask = 0x2400_0000_0028;
        let equal = mask >> bit & 1 == 1;
        let page = 0x1_2345 ^ 1 << bit;
        assert_eq!(
            is_interrupt_file(1, mask, 0x1_2345, page),
            equal,
            "bit {bit}"
        );
    }
}

#[test]
fn bits_of_the_mask_are_not_compared() {
    for pattern in [0x1_2340, 0x1_2347, 0x1_2345] {
        for low in 0..8 {
            assert!(is_interrupt_file(1, 7, pattern, 0x1_2340 | low));
        }
        assert!(!is_interrupt_file(1, 7, pattern, 0x1_2348));
    }
    for bit in 0..47 {
        assert!(is_interrupt_file(
            1,
            1 << bit,
            0x1_2345,
            0x1_2345 ^ 1 << bit
        ));
    }
}
