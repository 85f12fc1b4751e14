//! The process to translate an IOVA: IOMMU §2.3 and §2.4.

mod directories;
mod msi_tables;

use crate::bench::command;
use crate::rig::{Context, Process, Record, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const IMSIC: u64 = 0x2400_0000;
const ALL: u64 = pte::ALL;
const CLEAN: u64 = ALL & !(pte::A | pte::D);

/// Bits of `tc`.
const EN_ATS: u64 = 1 << 1;
const T2GPA: u64 = 1 << 3;
const GADE: u64 = 1 << 7;
const SADE: u64 = 1 << 8;
const DPE: u64 = 1 << 9;

const UNTRANSLATED: [Ttyp; 3] = [Ttyp::UntransRd, Ttyp::UntransWr, Ttyp::UntransRx];
const TRANSLATED: [Ttyp; 3] = [Ttyp::TransRd, Ttyp::TransWr, Ttyp::TransRx];
const OF_ATS: [Ttyp; 4] = [Ttyp::AtsReq, Ttyp::TransRd, Ttyp::TransWr, Ttyp::TransRx];
const ALL_TYPES: [Ttyp; 7] = [
    Ttyp::UntransRd,
    Ttyp::UntransWr,
    Ttyp::UntransRx,
    Ttyp::TransRd,
    Ttyp::TransWr,
    Ttyp::TransRx,
    Ttyp::AtsReq,
];

const fn of(ttyp: Ttyp, iova: u64) -> Request {
    Request::new(ttyp, DEVICE, iova)
}

const fn read(iova: u64) -> Request {
    of(Ttyp::UntransRd, iova)
}

/// A device of which [`IOVA`] is [`PAGE`], by way of [`GPA`] if it has both stages.
struct Setup {
    rig: Rig,
    vm: Vm,
    ddt: u64,
    context: Context,
}

impl Setup {
    /// Modes of both stages, 0 for none, and bits of `tc`.
    fn new(first: u64, second: u64, bits: u64) -> Self {
        let mut rig = Rig::new(30);
        let mut vm = Vm::new(&mut rig, first, second);
        let gpa = if first == 0 { IOVA } else { GPA };
        if first != 0 {
            let spa = if second == 0 { PAGE } else { GPA };
            vm.map_first(&mut rig, IOVA, 0, pte::at(spa, ALL));
        }
        if second != 0 {
            vm.map_second(&mut rig, gpa, 0, pte::at(PAGE, ALL));
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

    fn context(&mut self, context: Context) {
        self.rig.set_context(self.ddt, DEVICE, context);
    }

    /// The context with the first stage behind process `pid` of a directory.
    fn process(&mut self, pid: u32, bits: u64) -> Context {
        let root = self.vm.table(&mut self.rig);
        let process = Process::of(&self.vm);
        self.rig
            .set_process(&mut self.vm, root, pd::PD8, pid, process, false);
        Context {
            fsc: pd::PD8 << 60 | root >> 12,
            ..self.context.tc(tc::PDTV | bits)
        }
    }

    /// The context with an interrupt file at `page`, and the address of its entry.
    fn file(&mut self, page: u64) -> (Context, u64) {
        let table = self.rig.page();
        self.rig.store(table, IMSIC >> 12 << 10 | 3 << 1 | 1);
        let msi = [1 << 60 | table >> 12, 0, page >> 12];
        (
            Context {
                msi,
                ..self.context
            },
            table,
        )
    }

    /// Address of the entry that maps [`IOVA`] below an Sv39 root.
    fn leaf(&self, root: u64) -> u64 {
        let entry = |table, level: u32| table + 8 * (IOVA >> (12 + 9 * level) & 0x1ff);
        let below = |at| self.rig.load(at) >> 10 << 12;
        entry(below(entry(below(entry(root, 2)), 1)), 0)
    }

    /// Pages of which something has been read since the last request began.
    fn read_pages(&self) -> Vec<u64> {
        let reads = self.rig.accesses.iter().filter(|a| a.op == 0);
        reads.map(|a| a.addr & !0xfff).collect()
    }
}

#[test]
fn off_ends_every_request() {
    let mut s = Setup::new(0, 0, EN_ATS | tc::PDTV);
    for ttyp in ALL_TYPES {
        let request = of(ttyp, IOVA);
        for request in [request, request.of(1), request.of(1).privileged()] {
            s.rig.translate(request);
            s.rig.set_ddtp(0, s.ddt);
            s.rig.fault(request, 256);
            assert_eq!(s.read_pages(), []);
            s.rig.set_ddtp(2, s.ddt);
        }
    }
}

/// The requests end with cause 260 in mode Bare, but not with a directory.
fn refused_in_bare(types: &[Ttyp]) {
    let mut s = Setup::new(0, 0, EN_ATS | tc::PDTV);
    for &ttyp in types {
        for request in [of(ttyp, IOVA), of(ttyp, IOVA).of(1)] {
            s.rig.set_ddtp(1, s.ddt);
            s.rig.fault(request, 260);
            s.rig.set_ddtp(2, s.ddt);
            s.rig.translate(request);
        }
    }
}

#[test]
fn bare_refuses_translated_requests() {
    refused_in_bare(&TRANSLATED);
}

#[test]
fn bare_refuses_translation_requests() {
    refused_in_bare(&[Ttyp::AtsReq]);
}

#[test]
fn bare_keeps_untranslated_addresses() {
    let mut s = Setup::new(SV39, SV39, 0);
    for ttyp in UNTRANSLATED {
        s.rig.set_ddtp(2, s.ddt);
        assert_eq!(s.rig.translate(of(ttyp, IOVA + 4)).spa, PAGE + 4);
        s.rig.set_ddtp(1, s.ddt);
        for iova in [0, 0xfff, IOVA + 4, (1 << 56) - 1] {
            for request in [of(ttyp, iova), of(ttyp, iova).of(1).privileged()] {
                assert_eq!(s.rig.translate(request).spa, iova);
                assert_eq!(s.rig.accesses, []);
            }
        }
    }
}

/// One bit of a `device_id` at a time, with an empty directory: cause 260 where no directory of the
/// mode has a place for it. Extended format and base format.
fn width_of_device_ids(levels: u64) {
    for (mut rig, low) in [(Rig::new(30), 6), (Rig::minimal(30), 7)] {
        let table = rig.page();
        rig.set_ddtp(levels + 1, table);
        let width = if levels == 1 { low } else { low + 9 };
        for bit in 0..24 {
            let cause = if bit < width { 258 } else { 260 };
            rig.fault(Request::new(Ttyp::UntransRd, 1 << bit, IOVA), cause);
        }
    }
}

#[test]
fn device_ids_in_2lvl_have_no_ddi_2() {
    width_of_device_ids(2);
}

#[test]
fn device_ids_in_1lvl_have_no_ddi_1_and_2() {
    width_of_device_ids(1);
}

/// What is wrong with the context is found before a type that it does not permit.
#[test]
fn the_context_is_located_before_the_type_is_checked() {
    let mut s = Setup::new(0, 0, 0);
    let good = s.context;
    let kinds = OF_ATS.map(|ttyp| of(ttyp, IOVA)).into_iter();
    for request in kinds.chain([read(IOVA).of(1)]) {
        s.context(Context { tc: 0, ..good });
        s.rig.fault(request, 258);
        s.context(good.tc(1 << 12));
        s.rig.fault(request, 259);
        s.rig.broken.insert(s.ddt);
        s.rig.fault(request, 257);
        s.rig.broken.clear();
        s.context(good);
        s.rig.fault(request, 260);
    }
}

#[test]
fn requests_of_ats_need_en_ats() {
    let mut s = Setup::new(0, 0, 0);
    let without = s.context;
    for ttyp in OF_ATS {
        s.context(without);
        s.rig.fault(of(ttyp, IOVA), 260);
        s.rig.translate(read(IOVA));
        s.context(without.tc(EN_ATS));
        assert_eq!(s.rig.translate(of(ttyp, IOVA)).spa, IOVA);
    }
}

#[test]
fn a_process_id_needs_pdtv() {
    for first in [0, SV39] {
        let mut s = Setup::new(first, 0, EN_ATS);
        let without = s.context;
        let with = s.process(3, 0);
        for ttyp in ALL_TYPES {
            for pid in [0, 3, 0xf_ffff] {
                s.context(without);
                s.rig.fault(of(ttyp, IOVA).of(pid), 260);
                s.rig.translate(of(ttyp, IOVA));
            }
            s.context(with);
            s.rig.translate(of(ttyp, IOVA).of(3));
        }
    }
}

/// One bit of a `process_id` at a time, with an empty directory: untranslated requests miss the process
/// there, to requests of ATS that is no fault.
#[test]
fn width_of_process_ids() {
    let mut s = Setup::new(0, 0, EN_ATS);
    let root = s.rig.page();
    for (mode, width) in [(pd::PD8, 8), (pd::PD17, 17), (pd::PD20, 20)] {
        let fsc = mode << 60 | root >> 12;
        let context = Context { fsc, ..s.context };
        s.context(context.tc(tc::PDTV));
        for bit in 0..20 {
            for ttyp in ALL_TYPES {
                let request = of(ttyp, IOVA).of(1 << bit);
                if bit >= width {
                    s.rig.fault(request, 260);
                } else if UNTRANSLATED.contains(&ttyp) {
                    s.rig.fault(request, 266);
                } else {
                    s.rig.translate(request);
                }
            }
        }
    }
}

/// A reserved encoding of TTYP, and requests of ATS where there is none.
#[test]
fn unsupported_types() {
    let mut s = Setup::new(0, 0, EN_ATS);
    s.rig.fault(of(Ttyp::Reserved, IOVA), 260);
    for ttyp in ALL_TYPES {
        s.rig.translate(of(ttyp, IOVA));
    }
    let mut rig = Rig::minimal(30);
    let table = rig.page();
    rig.store(table + 32 * u64::from(DEVICE), tc::V);
    rig.set_ddtp(2, table);
    for ttyp in OF_ATS {
        rig.fault(of(ttyp, IOVA), 260);
    }
    for ttyp in UNTRANSLATED {
        assert_eq!(rig.translate(of(ttyp, IOVA)).spa, IOVA);
    }
}

/// Neither stage, nor the interrupt file that its page is, has anything to say.
#[test]
fn translated_requests_are_complete() {
    let mut s = Setup::new(SV39, SV39, EN_ATS);
    let (context, _) = s.file(GPA);
    s.context(context);
    assert_eq!(s.rig.translate(read(IOVA)).spa, IMSIC);
    for ttyp in TRANSLATED {
        for address in [IOVA, GPA, 0x77_1234_5678] {
            let answer = s.rig.translate(of(ttyp, address));
            assert_eq!((answer.spa, answer.is_msi), (address, false));
            assert_eq!(s.rig.accesses, []);
        }
    }
    s.context(s.context.tc(T2GPA));
    for ttyp in TRANSLATED {
        assert_eq!(s.rig.translate(of(ttyp, GPA)).spa, PAGE);
    }
}

#[test]
fn translated_requests_with_guest_addresses_skip_the_first_stage() {
    let mut s = Setup::new(SV39, SV39, EN_ATS | T2GPA);
    let other = 0x1000;
    s.vm.map_first(&mut s.rig, GPA, 0, pte::at(GPA + other, ALL));
    s.vm.map_second(&mut s.rig, GPA + other, 0, pte::at(PAGE + other, ALL));
    for (translated, untranslated) in TRANSLATED.into_iter().zip(UNTRANSLATED) {
        assert_eq!(s.rig.translate(of(translated, GPA)).spa, PAGE);
        assert_eq!(s.rig.translate(of(untranslated, GPA)).spa, PAGE + other);
    }
    // Whose process it is has no effect, be it there or not, nor the privilege that it does not allow.
    let context = s.process(3, 0);
    s.context(context);
    for (translated, untranslated) in TRANSLATED.into_iter().zip(UNTRANSLATED) {
        let request = of(translated, GPA);
        for request in [request, request.of(3).privileged(), request.of(4)] {
            assert_eq!(s.rig.translate(request).spa, PAGE);
        }
        let request = of(untranslated, GPA).of(3);
        assert_eq!(s.rig.translate(request).spa, PAGE + other);
        s.rig.fault(request.privileged(), 260);
    }
}

#[test]
fn translated_requests_with_guest_addresses_find_interrupt_files() {
    let mut s = Setup::new(SV39, SV39, EN_ATS | T2GPA);
    let with = s.file(GPA).0;
    for ttyp in [Ttyp::TransRd, Ttyp::TransWr] {
        s.context(with);
        let answer = s.rig.translate(of(ttyp, GPA + 4));
        assert_eq!((answer.spa, answer.is_msi), (IMSIC + 4, true));
        s.context(s.context);
        let answer = s.rig.translate(of(ttyp, GPA + 4));
        assert_eq!((answer.spa, answer.is_msi), (PAGE + 4, false));
    }
}

/// A directory in which [`IOVA`] is another page for each of processes 0 and 1.
fn two_processes(bits: u64) -> Setup {
    let mut s = Setup::new(SV39, 0, 0);
    let context = s.process(0, bits);
    let root = context.fsc << 12;
    let mut other = Vm::new(&mut s.rig, SV39, 0);
    other.map_first(&mut s.rig, IOVA, 0, pte::at(PAGE + 0x1000, ALL));
    let process = Process {
        ta: 10 << 12 | 1,
        ..Process::of(&other)
    };
    s.rig
        .set_process(&mut s.vm, root, pd::PD8, 1, process, false);
    s.context = context;
    s.context(context);
    s
}

#[test]
fn with_dpe_a_request_without_process_is_of_process_0() {
    let mut s = two_processes(DPE);
    for ttyp in UNTRANSLATED {
        assert_eq!(s.rig.translate(of(ttyp, IOVA)).spa, PAGE);
        assert_eq!(s.rig.translate(of(ttyp, IOVA).of(0)).spa, PAGE);
        assert_eq!(s.rig.translate(of(ttyp, IOVA).of(1)).spa, PAGE + 0x1000);
    }
}

#[test]
fn without_dpe_a_request_without_process_has_no_first_stage() {
    let mut s = two_processes(0);
    for ttyp in UNTRANSLATED {
        assert_eq!(s.rig.translate(of(ttyp, IOVA)).spa, IOVA);
        assert_eq!(s.rig.translate(of(ttyp, IOVA).of(0)).spa, PAGE);
    }
}

#[test]
fn without_dpe_a_request_without_process_has_the_second_stage() {
    let mut s = Setup::new(SV39, SV39, 0);
    let context = s.process(0, 0);
    s.context(context);
    for (ttyp, cause) in UNTRANSLATED.into_iter().zip([21, 23, 20]) {
        assert_eq!(s.rig.translate(of(ttyp, GPA + 4)).spa, PAGE + 4);
        // As a guest address this one is none.
        assert_eq!(s.rig.fault(of(ttyp, IOVA), cause).iotval2, IOVA);
        assert_eq!(s.rig.translate(of(ttyp, IOVA).of(0)).spa, PAGE);
    }
}

#[test]
fn with_pdtp_bare_a_request_has_no_first_stage() {
    for (second, spa) in [(0, IOVA), (SV39, PAGE)] {
        // With DPE a request without a process is one of process 0.
        for dpe in [0, DPE] {
            let mut s = Setup::new(0, second, tc::PDTV | dpe);
            for ttyp in UNTRANSLATED {
                assert_eq!(s.rig.translate(of(ttyp, IOVA)).spa, spa);
                for pid in [0, 0xf_ffff] {
                    let request = of(ttyp, IOVA).of(pid);
                    assert_eq!(s.rig.translate(request).spa, spa);
                    // There is no context to forbid it.
                    assert_eq!(s.rig.translate(request.privileged()).spa, spa);
                }
            }
        }
    }
}

/// The PSCID is seen by what IOTINVAL.VMA forgets: 9 and 10 are the processes', 5 is the device's.
#[test]
fn the_first_stage_is_that_of_the_process() {
    let mut s = two_processes(0);
    let requests = [read(IOVA).of(0), read(IOVA).of(1)];
    let pages = [PAGE, PAGE + 0x1000];
    let roots = [0, 1].map(|pid| {
        let process = (s.context.fsc << 12) + 16 * pid;
        s.rig.load(process + 8) << 20 >> 8
    });
    for (pid, pscid) in [9, 10].into_iter().enumerate() {
        let entry = s.leaf(roots[pid]);
        assert_eq!(s.rig.translate(requests[pid]).spa, pages[pid]);
        s.rig.store(entry, pte::at(GPA, ALL));
        for other in [5, 19 - pscid] {
            s.rig.sync(&[command::iotinval(Some(other), None)]);
            assert_eq!(s.rig.translate(requests[pid]).spa, pages[pid], "{other}");
        }
        s.rig.sync(&[command::iotinval(Some(pscid), None)]);
        assert_eq!(s.rig.translate(requests[pid]).spa, GPA);
    }
}

/// A write that the first stage does not permit, to an interrupt file and to a page, neither of
/// which is there.
#[test]
fn a_fault_of_the_first_stage_is_the_last() {
    let mut s = Setup::new(SV39, SV39, 0);
    let (context, entry) = s.file(GPA);
    let write = of(Ttyp::UntransWr, IOVA);
    s.rig.store(entry, 0);
    let leaf = s.vm.second_entry(&mut s.rig, GPA, 0);
    s.rig.store(leaf, 0);
    for (context, table, cause) in [(context, entry, 262), (s.context, leaf & !0xfff, 23)] {
        s.context(context);
        for (permitted, cause) in [(ALL & !pte::W, 15), (ALL, cause)] {
            s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, permitted));
            s.rig.forget();
            s.rig.fault(write, cause);
            assert_eq!(s.read_pages().contains(&table), cause != 15);
        }
    }
}

/// Each bit of an address beside the mask decides whether it is an interrupt file's.
#[test]
fn pages_beside_interrupt_files_go_through_the_second_stage() {
    let mut s = Setup::new(0, SV39, 0);
    let (mut context, table) = s.file(IOVA);
    let mask = 0x5;
    context.msi[1] = mask;
    for file in 0..4 {
        s.rig
            .store(table + 16 * file, IMSIC >> 12 << 10 | 3 << 1 | 1);
    }
    s.context(context);
    for bit in 12..41 {
        let page = IOVA ^ 1 << bit;
        s.vm.map_second(&mut s.rig, page, 0, pte::at(PAGE + 0x1000, ALL));
        let answer = s.rig.translate(of(Ttyp::UntransWr, page));
        let is_file = mask << 12 & 1 << bit != 0;
        let spa = if is_file { IMSIC } else { PAGE + 0x1000 };
        assert_eq!((answer.spa, answer.is_msi), (spa, is_file), "bit {bit}");
    }
}

/// No shadow stacks: an entry with W alone permits nothing, not even writes.
#[test]
fn an_entry_with_only_w_stays_reserved() {
    for second in [0, SV39] {
        let mut s = Setup::new(SV39, second, EN_ATS);
        let spa = if second == 0 { PAGE } else { GPA };
        for (ttyp, cause) in UNTRANSLATED.into_iter().zip([13, 15, 12]) {
            s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(spa, ALL & !(pte::R | pte::X)));
            s.rig.forget();
            s.rig.fault(of(ttyp, IOVA), cause);
            let ats = s.rig.translate(of(Ttyp::AtsReq, IOVA)).ats;
            assert_eq!([ats.r, ats.w, ats.x], [false; 3]);
            s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(spa, ALL));
            s.rig.forget();
            assert_eq!(s.rig.translate(of(ttyp, IOVA)).spa, PAGE);
        }
    }
}

/// Requests of a device with both stages, with the page fault of an address that is not there. To
/// translated requests it is a guest address.
const FAULTS: [(Ttyp, u64); 6] = [
    (Ttyp::UntransRd, 13),
    (Ttyp::UntransWr, 15),
    (Ttyp::UntransRx, 12),
    (Ttyp::TransRd, 21),
    (Ttyp::TransWr, 23),
    (Ttyp::TransRx, 20),
];

#[test]
fn a_request_that_faults_is_aborted() {
    let mut s = Setup::new(SV39, SV39, EN_ATS | T2GPA);
    for (ttyp, cause) in FAULTS {
        let good = if cause < 20 { IOVA } else { GPA };
        assert_eq!(s.rig.translate(of(ttyp, good)).spa, PAGE);
        // Unsupported Request; Completer Abort for corrupt data.
        let answer = s.rig.ask(of(ttyp, good + 0x1000));
        assert_eq!((answer.status, answer.cause), (1, cause));
        s.rig.sync(&[command::iodir(None)]);
        s.rig.corrupt.insert(s.ddt);
        let answer = s.rig.ask(of(ttyp, good));
        assert_eq!((answer.status, answer.cause), (2, 268));
        s.rig.corrupt.clear();
    }
}

#[test]
fn a_fault_is_reported() {
    let mut s = Setup::new(SV39, SV39, EN_ATS | T2GPA);
    for (ttyp, cause) in FAULTS {
        let guest = cause >= 20;
        let good = if guest { GPA } else { IOVA };
        let bad = good + 0x1008;
        s.rig.translate(of(ttyp, good));
        assert_eq!(s.rig.records(), []);
        s.rig.ask(of(ttyp, bad));
        let expected = Record {
            cause,
            ttyp: ttyp as u64,
            device_id: DEVICE.into(),
            process_id: None,
            privileged: false,
            iotval: bad,
            iotval2: if guest { bad } else { 0 },
        };
        assert_eq!(s.rig.records(), [expected]);
    }
}

/// The update of each stage has been acknowledged by memory before the request is answered.
fn updates_come_before_the_answer(types: &[Ttyp]) {
    for &ttyp in types {
        for stage in [1, 2] {
            let mut s = Setup::new(SV39, SV39, EN_ATS | SADE | GADE);
            let entry = if stage == 1 {
                s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, CLEAN));
                let entry = s.vm.first_entry(&mut s.rig, IOVA, 0);
                s.vm.physical(entry)
            } else {
                s.vm.map_second(&mut s.rig, GPA, 0, pte::at(PAGE, CLEAN));
                s.vm.second_entry(&mut s.rig, GPA, 0)
            };
            s.rig.begin(of(ttyp, IOVA));
            let update = |rig: &Rig| rig.accesses.iter().any(|a| (a.op, a.addr) == (2, entry));
            let cycles = (0..1000).find(|_| {
                s.rig.run(1);
                update(&s.rig)
            });
            assert!(cycles.is_some(), "an update");
            s.rig.held = Some(entry);
            s.rig.run(500);
            assert!(!s.rig.answered(), "{ttyp:?}, stage {stage}");
            s.rig.held = None;
            assert_eq!(s.rig.finish().spa, PAGE);
            // With nothing to update nothing is waited for.
            s.rig.held = Some(entry);
            s.rig.begin(of(ttyp, IOVA));
            s.rig.run(500);
            assert!(s.rig.answered());
        }
    }
}

#[test]
fn updates_come_before_the_access() {
    updates_come_before_the_answer(&UNTRANSLATED);
}

#[test]
fn updates_come_before_the_completion() {
    updates_come_before_the_answer(&[Ttyp::AtsReq]);
}
