//! Device contexts and process contexts with everything in the configuration (IOMMU §2.1, §2.2).

use crate::bench::reg;
use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, implicit, pd};
use crate::tables::{SV39, SV48, SV57, pte, tc};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const ALL: u64 = pte::ALL;
const ENS: u64 = 2;
const SUM: u64 = 4;
const GADE: u64 = 1 << 7;
const SADE: u64 = 1 << 8;

const KINDS: [(Ttyp, u64, u64); 3] = [
    (Ttyp::UntransRd, 13, 21),
    (Ttyp::UntransWr, 15, 23),
    (Ttyp::UntransRx, 12, 20),
];

fn read(iova: u64) -> Request {
    Request::new(Ttyp::UntransRd, DEVICE, iova)
}

/// A device with a process directory and one process whose [`IOVA`] is [`PAGE`].
struct Setup {
    rig: Rig,
    vm: Vm,
    /// Root of the process directory.
    root: u64,
    mode: u64,
    ddt: u64,
    pid: u32,
    entry: u64,
}

impl Setup {
    fn new(second: u64, mode: u64, pid: u32) -> Self {
        Self::with(second, mode, pid, false, false)
    }

    /// Endianness of `DC.tc.SBE` and of `fctl.BE`.
    fn with(second: u64, mode: u64, pid: u32, sbe: bool, be: bool) -> Self {
        let mut rig = Rig::new(8);
        if be {
            rig.write(reg::FCTL, 4, 1);
        }
        let mut vm = Vm::with(&mut rig, SV39, second, false, [sbe, be]);
        let spa = if second == 0 { PAGE } else { GPA };
        vm.map_first(&mut rig, IOVA, 0, pte::at(spa, ALL));
        if second != 0 {
            vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, ALL));
        }
        let root = vm.table(&mut rig);
        let process = Process::of(&vm);
        let entry = rig.set_process(&mut vm, root, mode, pid, process, sbe);
        let mut setup = Self {
            rig,
            vm,
            root,
            mode,
            ddt: 0,
            pid,
            entry,
        };
        let context = setup.context(if sbe { 1 << 10 } else { 0 });
        setup.ddt = setup.rig.directory(&[DEVICE], context);
        setup
    }

    /// The context of the device, with these bits of `tc` beside V and PDTV.
    fn context(&self, bits: u64) -> Context {
        Context {
            fsc: self.mode << 60 | self.root >> 12,
            ..Context::of(&self.vm).tc(tc::PDTV | bits)
        }
    }

    fn process(&mut self, process: Process) {
        let (mode, pid, root) = (self.mode, self.pid, self.root);
        self.rig
            .set_process(&mut self.vm, root, mode, pid, process, false);
        self.rig.forget();
    }
}

#[test]
fn every_directory() {
    for second in [0, SV39, SV48, SV57] {
        for (mode, pid, wide) in [
            (pd::PD8, 0xa5, 0x100),
            (pd::PD17, 0x1_02a5, 0x2_0000),
            (pd::PD20, 0xf_ffff, 0),
        ] {
            for big in [false, true] {
                let mut s = Setup::with(second, mode, pid, big, false);
                let request = read(IOVA + 8).of(pid);
                assert_eq!(s.rig.translate(request).spa, PAGE + 8);
                s.rig.translate(request);
                assert_eq!(s.rig.accesses, [], "held");
                // Another process is not there.
                s.rig.fault(read(IOVA).of(pid ^ 1), 266);
                if wide != 0 {
                    s.rig.fault(read(IOVA).of(pid | wide), 260);
                }
            }
        }
    }
}

/// fctl.BE alone, DC.tc.SBE alone, both.
#[test]
fn endianness() {
    for (sbe, be) in [(true, false), (false, true), (true, true)] {
        let mut s = Setup::with(SV39, pd::PD17, 0x321, sbe, be);
        assert_eq!(s.rig.translate(read(IOVA).of(0x321)).spa, PAGE);
        s.rig.fault(read(IOVA + 0x1000).of(0x321), 13);
    }
}

#[test]
fn requests_without_a_process() {
    // Without DPE: no first stage.
    let mut s = Setup::new(0, pd::PD8, 0);
    assert_eq!(s.rig.translate(read(IOVA)).spa, IOVA);
    // With DPE: process 0 with user privilege; the record has no process_id.
    let context = s.context(1 << 9);
    s.rig.set_context(s.ddt, DEVICE, context);
    assert_eq!(s.rig.translate(read(IOVA)).spa, PAGE);
    let record = s.rig.fault(read(IOVA + 0x1000), 13);
    assert_eq!(record.process_id, None);
    // pdtp.MODE Bare: no first stage, whatever the process.
    let bare = Context { fsc: 0, ..context };
    s.rig.set_context(s.ddt, DEVICE, bare);
    assert_eq!(s.rig.translate(read(IOVA).of(0xf_ffff)).spa, IOVA);
    // No directory: no process.
    let context = Context::of(&s.vm);
    s.rig.set_context(s.ddt, DEVICE, context);
    assert_eq!(s.rig.translate(read(IOVA)).spa, PAGE);
    s.rig.fault(read(IOVA).of(0), 260);
}

#[test]
fn process_contexts_are_checked() {
    let mut s = Setup::new(0, pd::PD17, 0x2345);
    let good = Process::of(&s.vm);
    let request = read(IOVA).of(0x2345);
    s.process(Process {
        ta: good.ta & !1,
        ..good
    });
    s.rig.fault(request, 266);
    let mut bad: Vec<Process> = (3..12)
        .chain(32..64)
        .map(|bit| Process {
            ta: good.ta | 1 << bit,
            ..good
        })
        .collect();
    bad.extend((44..60).map(|bit| Process {
        fsc: good.fsc | 1 << bit,
        ..good
    }));
    for mode in (1..8).chain(11..16) {
        bad.push(Process {
            fsc: good.fsc & !(15 << 60) | mode << 60,
            ..good
        });
    }
    for process in bad {
        s.process(process);
        s.rig.fault(request, 267);
    }
    s.process(good);
    s.rig.translate(request);
    // The non-leaf entry.
    let entry = s.vm.physical(s.root) + 8 * 0x23;
    let old = s.rig.load(entry);
    for bit in (1..10).chain(54..64) {
        s.rig.store(entry, old | 1 << bit);
        s.rig.forget();
        s.rig.fault(request, 267);
    }
    s.rig.store(entry, old & !1);
    s.rig.forget();
    s.rig.fault(request, 266);
    s.rig.store(entry, old);
    for at in [entry, s.entry] {
        s.rig.broken.insert(at & !0xfff);
        s.rig.forget();
        s.rig.fault(request, 265);
        s.rig.broken.clear();
        s.rig.corrupt.insert(at & !0xfff);
        assert_eq!(s.rig.fault(request, 269).iotval2, 0);
        s.rig.corrupt.clear();
    }
}

#[test]
fn privilege() {
    let pid = 3;
    let mut s = Setup::new(0, pd::PD8, pid);
    let good = Process::of(&s.vm);
    let user = |ttyp| Request::new(ttyp, DEVICE, IOVA).of(pid);
    let supervisor = |ttyp| user(ttyp).privileged();
    // No supervisor access without ENS.
    for (ttyp, ..) in KINDS {
        assert!(s.rig.fault(supervisor(ttyp), 260).privileged);
        s.rig.translate(user(ttyp));
    }
    // A user page: with SUM, and never to fetch code.
    s.process(Process {
        ta: good.ta | ENS,
        ..good
    });
    for (ttyp, cause, _) in KINDS {
        s.rig.translate(user(ttyp));
        s.rig.fault(supervisor(ttyp), cause);
    }
    s.process(Process {
        ta: good.ta | ENS | SUM,
        ..good
    });
    for (ttyp, cause, _) in KINDS {
        s.rig.translate(user(ttyp));
        if ttyp == Ttyp::UntransRx {
            s.rig.fault(supervisor(ttyp), cause);
        } else {
            s.rig.translate(supervisor(ttyp));
        }
    }
    // A supervisor page.
    s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(PAGE, ALL & !pte::U));
    s.rig.forget();
    for (ttyp, cause, _) in KINDS {
        s.rig.translate(supervisor(ttyp));
        s.rig.fault(user(ttyp), cause);
    }
}

/// The second stage checks user privilege only.
#[test]
fn privilege_ends_at_the_second_stage() {
    let mut s = Setup::new(SV39, pd::PD8, 1);
    let good = Process::of(&s.vm);
    s.process(Process {
        ta: good.ta | ENS,
        ..good
    });
    s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, ALL & !pte::U));
    s.rig.forget();
    for (ttyp, _, guest_cause) in KINDS {
        let request = Request::new(ttyp, DEVICE, IOVA).of(1).privileged();
        s.rig.translate(request);
        s.vm.map_second(&mut s.rig, GPA, 0, pte::at(PAGE, ALL & !pte::U));
        s.rig.forget();
        s.rig.fault(request, guest_cause);
        s.vm.map_second(&mut s.rig, GPA, 0, pte::at(PAGE, ALL));
        s.rig.forget();
    }
}

/// Directories are read through the second stage, as implicit reads.
#[test]
fn guest_page_faults_of_the_directory() {
    let mut s = Setup::new(SV39, pd::PD17, 0x1234);
    for page in [s.root, s.entry & !0xfff] {
        let spa = s.vm.physical(page);
        for bad in [0, pte::at(spa, ALL & !pte::A), pte::at(spa, ALL & !pte::U)] {
            s.vm.map_second(&mut s.rig, page, 0, bad);
            s.rig.forget();
            for (ttyp, _, cause) in KINDS {
                let request = Request::new(ttyp, DEVICE, IOVA).of(0x1234);
                assert_eq!(s.rig.fault(request, cause).iotval2, implicit(page, false));
            }
        }
        let table = s.vm.second_entry(&mut s.rig, page, 0) & !0xfff;
        s.vm.map_second(
            &mut s.rig,
            page,
            0,
            pte::at(spa, pte::V | pte::R | pte::U | pte::A),
        );
        s.rig.broken.insert(table);
        s.rig.forget();
        assert_eq!(s.rig.fault(read(IOVA).of(0x1234), 265).iotval2, 0);
        s.rig.broken.clear();
        s.rig.corrupt.insert(table);
        s.rig.fault(read(IOVA).of(0x1234), 269);
        s.rig.corrupt.clear();
        s.rig.translate(read(IOVA).of(0x1234));
    }
}

/// Whatever the request is, R is all that its directory needs, and X is not enough.
#[test]
fn the_directory_is_read_whatever_the_access() {
    let mut s = Setup::new(SV39, pd::PD17, 0x1234);
    let execute = ALL & !(pte::R | pte::W);
    let read = pte::V | pte::R | pte::U | pte::A;
    for page in [s.root, s.entry & !0xfff] {
        let spa = s.vm.physical(page);
        for (ttyp, _, cause) in KINDS {
            let request = Request::new(ttyp, DEVICE, IOVA).of(0x1234);
            s.vm.map_second(&mut s.rig, page, 0, pte::at(spa, execute));
            s.rig.forget();
            assert_eq!(s.rig.fault(request, cause).iotval2, implicit(page, false));
            s.vm.map_second(&mut s.rig, page, 0, pte::at(spa, read));
            s.rig.forget();
            assert_eq!(s.rig.translate(request).spa, PAGE);
        }
    }
}

/// To read a directory sets A of its pages, and never D.
#[test]
fn a_directory_that_is_read_becomes_accessed() {
    let mut s = Setup::new(SV39, pd::PD17, 0x1234);
    let context = s.context(1 << 7); // GADE
    s.rig.set_context(s.ddt, DEVICE, context);
    for page in [s.root, s.entry & !0xfff] {
        let spa = s.vm.physical(page);
        for (ttyp, ..) in KINDS {
            let clean = pte::at(spa, ALL & !(pte::A | pte::D));
            s.vm.map_second(&mut s.rig, page, 0, clean);
            s.rig.forget();
            let request = Request::new(ttyp, DEVICE, IOVA).of(0x1234);
            assert_eq!(s.rig.translate(request).spa, PAGE);
            let leaf = s.vm.second_value(&mut s.rig, page, 0);
            assert_eq!(leaf, clean | pte::A, "{ttyp:?}");
        }
    }
}

#[test]
fn what_directory_invalidations_cover() {
    let mut s = Setup::new(0, pd::PD8, 7);
    let device = u64::from(DEVICE) << 40 | 1 << 33;
    let other = device + (1 << 40);
    let pdt = 3 | 1 << 7;
    for (command, seen) in [
        ([pdt | device | 7 << 12, 0], true),
        ([3 | device, 0], true),
        ([3, 0], true),
        ([pdt | device | 8 << 12, 0], false),
        ([pdt | other | 7 << 12, 0], false),
        ([3 | other, 0], false),
        ([1, 0], false),
    ] {
        let good = Process::of(&s.vm);
        s.process(good);
        s.rig.translate(read(IOVA).of(7));
        let at = s.vm.physical(s.entry);
        s.rig.store(at, 0);
        s.rig.sync(&[command]);
        if seen {
            s.rig.fault(read(IOVA).of(7), 266);
        } else {
            s.rig.translate(read(IOVA).of(7));
        }
    }
}

/// IOMMU §2.1.4, with what this configuration supports.
#[test]
fn device_contexts_are_checked() {
    let mut rig = Rig::new(9);
    let vm = Vm::new(&mut rig, SV39, SV39);
    let host = Vm::new(&mut rig, SV39, 0);
    let nested = Context::of(&vm);
    let plain = Context::of(&host);
    let table = rig.directory(&[DEVICE], nested);
    let tc = |bits| nested.tc(bits);
    const EN_ATS: u64 = 2;
    const EN_PRI: u64 = 4;
    const T2GPA: u64 = 8;
    let mut bad = vec![
        tc(T2GPA),
        tc(EN_PRI),
        tc(EN_ATS | 1 << 6),
        plain.tc(EN_ATS | T2GPA),
        tc(1 << 9), // DPE without PDTV
        Context {
            iohgatp: nested.iohgatp | 1,
            ..nested
        },
        Context {
            iohgatp: nested.iohgatp | 2,
            ..nested
        },
        Context {
            msi: [2 << 60, 0, 0],
            ..nested
        },
        Context {
            reserved: 1 << 17,
            ..nested
        },
    ];
    bad.extend((12..24).chain(32..64).map(|bit| tc(1 << bit)));
    bad.extend((0..12).chain(32..40).map(|bit| Context {
        ta: nested.ta | 1 << bit,
        ..nested
    }));
    bad.extend((44..60).map(|bit| Context {
        fsc: nested.fsc | 1 << bit,
        ..nested
    }));
    bad.extend((44..60).map(|bit| Context {
        msi: [1 << bit, 0, 0],
        ..nested
    }));
    bad.extend((52..64).map(|bit| Context {
        msi: [1 << 60, 1 << bit, 0],
        ..nested
    }));
    bad.extend((52..64).map(|bit| Context {
        msi: [1 << 60, 0, 1 << bit],
        ..nested
    }));
    for mode in (1..8).chain(11..16) {
        bad.push(Context {
            fsc: mode << 60,
            ..nested
        });
        bad.push(Context {
            iohgatp: mode << 60,
            ..nested
        });
    }
    for mode in 4..16 {
        bad.push(Context {
            fsc: mode << 60,
            ..tc(tc::PDTV)
        });
    }
    for mode in [9, 10] {
        bad.push(Context {
            fsc: mode << 60,
            ..tc(1 << 11)
        }); // SXL: Sv32 only
    }
    for context in bad {
        rig.set_context(table, DEVICE, context);
        rig.fault(read(IOVA), 259);
    }
    let good = [
        tc(EN_ATS | EN_PRI | 1 << 6 | T2GPA),
        tc(3 << 7),     // GADE, SADE
        tc(1 << 10),    // SBE
        tc(0xff << 24), // custom
        Context {
            ta: nested.ta | 0xff_ffff << 40,
            ..nested
        }, // RCID, MCID
        Context {
            msi: [1 << 60, 0, !0 >> 12],
            ..nested
        },
        Context {
            fsc: 8 << 60,
            ..tc(1 << 11)
        },
    ];
    for context in good {
        rig.set_context(table, DEVICE, context);
        let answer = rig.ask(read(IOVA));
        assert!(matches!(answer.cause, 13 | 21), "{context:x?}: {answer:x?}");
        rig.records();
    }
}

/// DTF hides what it may hide (IOMMU §3.2).
#[test]
fn reports_that_dtf_suppresses() {
    let mut s = Setup::new(SV39, pd::PD8, 7);
    let context = s.context(tc::DTF);
    s.rig.set_context(s.ddt, DEVICE, context);
    s.rig.silent_fault(read(IOVA).of(8), 266);
    s.rig.silent_fault(read(IOVA).of(0x100), 260);
    s.rig.silent_fault(read(IOVA + 0x1000).of(7), 13);
    s.vm.map_second(&mut s.rig, GPA, 0, 0);
    s.rig.forget();
    s.rig.silent_fault(read(IOVA).of(7), 21);
    s.rig
        .set_context(s.ddt, DEVICE, Context { tc: 0, ..context });
    s.rig.fault(read(IOVA).of(7), 258);
}

/// Implicit accesses carry the IDs of the context, those to the device directory and the queues the
/// IOMMU's own; the answer carries the context's, or the IOMMU's where none applies.
#[test]
fn qos_ids() {
    let mut s = Setup::new(SV39, pd::PD8, 7);
    let context = s.context(GADE | SADE);
    s.rig.write(reg::QOSID, 4, 0xfabc_fdef);
    assert_eq!(s.rig.read(reg::QOSID, 4), 0x0abc_0def);
    let own = (0xdef, 0xabc);
    for ids in [(0x123, 0x456), (0xedc, 0xba9)] {
        // A is to be set in both stages.
        let leaf = |page| pte::at(page, ALL & !pte::A);
        s.vm.map_first(&mut s.rig, IOVA, 0, leaf(GPA));
        s.vm.map_second(&mut s.rig, GPA, 0, leaf(PAGE));
        s.rig.accesses.clear();
        let context = Context {
            ta: context.ta | ids.0 << 40 | ids.1 << 52,
            ..context
        };
        s.rig.set_context(s.ddt, DEVICE, context);
        assert!(!s.rig.accesses.is_empty(), "commands");
        assert!(s.rig.accesses.iter().all(|a| (a.rcid, a.mcid) == own));
        s.rig.forget();
        let answer = s.rig.translate(read(IOVA).of(7));
        assert_eq!((answer.rcid, answer.mcid), ids);
        assert!(s.rig.accesses.len() > 8);
        assert_eq!(s.rig.accesses.iter().filter(|a| a.op == 2).count(), 2);
        for access in &s.rig.accesses {
            let expected = match access.addr & !0xfff == s.ddt {
                true => own,
                false => ids,
            };
            assert_eq!((access.rcid, access.mcid), expected, "{access:x?}");
        }
        // A record.
        s.rig.fault(read(IOVA + 0x1000).of(7), 13);
        let record = s.rig.accesses.iter().find(|a| a.op == 1);
        assert_eq!(record.map(|a| (a.rcid, a.mcid)), Some(own));
    }
    s.rig.set_ddtp(1, 0);
    let answer = s.rig.translate(read(IOVA));
    assert_eq!((answer.rcid, answer.mcid), own);
}
