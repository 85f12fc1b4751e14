//! Translation requests and translated requests (IOMMU §2.3, §2.6).

use crate::rig::{Answer, Ats, Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const ALL: u64 = pte::ALL;
const EN_ATS: u64 = 2;
const T2GPA: u64 = 8;
const GADE: u64 = 1 << 7;
const SADE: u64 = 1 << 8;
const UR: u64 = 1;
const CA: u64 = 2;

const fn ats(iova: u64) -> Request {
    Request::new(Ttyp::AtsReq, DEVICE, iova)
}

const fn read_only(request: Request) -> Request {
    Request {
        no_write: true,
        ..request
    }
}

const fn executing(request: Request) -> Request {
    Request {
        ats_exec: true,
        ..request
    }
}

/// Process 1 and requests without a process, which are of process 0, see the same space.
struct Setup {
    rig: Rig,
    vm: Vm,
    root: u64,
    ddt: u64,
    context: Context,
}

impl Setup {
    fn new(second: u64, bits: u64) -> Self {
        let mut rig = Rig::new(12);
        let mut vm = Vm::new(&mut rig, SV39, second);
        let root = vm.table(&mut rig);
        let process = Process::of(&vm);
        for pid in [0, 1] {
            rig.set_process(&mut vm, root, pd::PD8, pid, process, false);
        }
        let context = Context {
            fsc: pd::PD8 << 60 | root >> 12,
            ..Context::of(&vm).tc(tc::PDTV | 1 << 9 | EN_ATS | bits)
        };
        let ddt = rig.directory(&[DEVICE], context);
        let mut setup = Self {
            rig,
            vm,
            root,
            ddt,
            context,
        };
        setup.leaves(ALL, ALL);
        setup
    }

    fn leaves(&mut self, first: u64, second: u64) {
        if self.vm.second.is_some() {
            self.vm
                .map_first(&mut self.rig, IOVA, 0, pte::at(GPA, first));
            self.vm
                .map_second(&mut self.rig, GPA, 0, pte::at(PAGE, second));
        } else {
            self.vm
                .map_first(&mut self.rig, IOVA, 0, pte::at(PAGE, first));
        }
        self.rig.forget();
    }

    /// What is granted: a completion, and never a record.
    fn grant(&mut self, request: Request) -> Answer {
        let answer = self.rig.translate(request);
        assert_eq!(self.rig.records(), []);
        answer
    }

    fn rwx(&mut self, request: Request) -> [bool; 3] {
        let Ats { r, w, x, .. } = self.grant(request).ats;
        [r, w, x]
    }

    /// An error completion, and a record.
    fn refuse(&mut self, request: Request, status: u64, cause: u64) {
        self.rig.fault(request, cause);
        assert_eq!(self.rig.ask(request).status, status, "cause {cause}");
        self.rig.records();
    }
}

#[test]
fn only_with_en_ats_and_a_directory() {
    let mut s = Setup::new(0, 0);
    let kinds = [Ttyp::AtsReq, Ttyp::TransRd, Ttyp::TransWr, Ttyp::TransRx];
    let mut context = s.context;
    context.tc &= !EN_ATS;
    s.rig.set_context(s.ddt, DEVICE, context);
    for ttyp in kinds {
        s.refuse(Request::new(ttyp, DEVICE, IOVA), UR, 260);
    }
    s.rig.set_ddtp(1, 0);
    for ttyp in kinds {
        s.refuse(Request::new(ttyp, DEVICE, IOVA), UR, 260);
    }
    s.rig.set_ddtp(0, 0);
    for ttyp in kinds {
        s.refuse(Request::new(ttyp, DEVICE, IOVA), UR, 256);
    }
}

/// A permission is granted if both stages have it; each that is denied is denied alone.
#[test]
fn permissions() {
    let leaves = [
        (ALL, [true, true, true]),
        (ALL & !pte::X, [true, true, false]),
        (ALL & !pte::W, [true, false, true]),
        (ALL & !(pte::W | pte::X), [true, false, false]),
        (ALL & !(pte::R | pte::W), [false, false, false]), // no execution without reading
        (ALL & !pte::D, [true, false, true]),
        (ALL & !pte::A, [false; 3]),
        (ALL & !pte::U, [false; 3]),
        (0, [false; 3]),
    ];
    for (second, bits) in [(0, 0), (SV39, 0), (SV39, T2GPA)] {
        let mut s = Setup::new(second, bits);
        for (first, a) in leaves {
            for (other, b) in leaves {
                if second == 0 && other != ALL {
                    continue;
                }
                s.leaves(first, other);
                let both: [bool; 3] = std::array::from_fn(|i| a[i] && b[i]);
                let readable = |rwx: [bool; 3]| rwx.map(|p| p && rwx[0]);
                let request = executing(ats(IOVA).of(1));
                for _ in 0..2 {
                    assert_eq!(s.rwx(request), readable(both), "{first:#x} {other:#x}");
                    // Execution is only granted when it is asked for.
                    let [r, w, _] = readable(both);
                    assert_eq!(s.rwx(ats(IOVA).of(1)), [r, w, false]);
                    assert_eq!(s.rwx(ats(IOVA)), [r, w, false]);
                }
            }
        }
    }
}

#[test]
fn fields_of_a_completion() {
    let mut s = Setup::new(SV39, 0);
    s.leaves(ALL | pte::G, ALL);
    let answer = s.grant(ats(IOVA).of(1));
    assert_eq!((answer.spa, answer.size), (PAGE, 4096));
    assert!(!answer.is_gpa);
    let expected = Ats {
        r: true,
        w: true,
        global: true,
        ..Ats::default()
    };
    assert_eq!(answer.ats, expected);
    // Global and Priv need a PASID.
    let expected = Ats {
        global: false,
        ..expected
    };
    assert_eq!(s.grant(ats(IOVA)).ats, expected);
    // CXL.io for device memory.
    for pbmt in [1, 2] {
        s.leaves(ALL, ALL | pbmt << pte::PBMT);
        assert!(s.grant(ats(IOVA)).ats.cxl_io);
    }
    // Large pages.
    s.vm.map_first(&mut s.rig, 4 << 30, 2, pte::at(8 << 30, ALL));
    s.vm.map_second(&mut s.rig, 8 << 30, 1, pte::at(0x1_4020_0000, ALL));
    let answer = s.grant(ats((4 << 30) + 0x3000));
    assert_eq!(
        (answer.spa & !0x1f_ffff, answer.size),
        (0x1_4020_0000, 1 << 21)
    );
}

#[test]
fn privileged_requests() {
    let mut s = Setup::new(0, 0);
    let request = executing(ats(IOVA).of(1).privileged());
    s.refuse(request, UR, 260); // ENS
    for (ta, leaf, expected) in [
        (2, ALL, [false; 3]),              // a user page without SUM
        (2 | 4, ALL, [true, true, false]), // and with it: no execution
        (2, ALL & !pte::U, [true; 3]),
    ] {
        let mut process = Process::of(&s.vm);
        process.ta |= ta;
        s.rig
            .set_process(&mut s.vm, s.root, pd::PD8, 1, process, false);
        s.leaves(leaf, ALL);
        let answer = s.grant(request);
        let Ats { r, w, x, .. } = answer.ats;
        assert_eq!([r, w, x], expected);
        assert!(answer.ats.privileged);
    }
    assert!(!s.grant(ats(IOVA).of(1)).ats.privileged);
}

/// Which faults are which response.
#[test]
fn responses_to_faults() {
    let mut s = Setup::new(SV39, 0);
    // Nothing granted, no record: page faults, guest page faults, a process that is not there.
    for request in [ats(IOVA + 0x1000), ats(IOVA | 1 << 45), ats(IOVA).of(2)] {
        let answer = s.grant(request);
        assert_eq!(answer.ats, Ats::default());
    }
    let process = Process::of(&s.vm);
    let bad = Process {
        ta: process.ta | 1 << 40,
        ..process
    };
    let at = s.rig.set_process(&mut s.vm, s.root, pd::PD8, 3, bad, false);
    s.refuse(ats(IOVA).of(3), CA, 267);
    let page = s.vm.physical(at) & !0xfff;
    s.rig.broken.insert(page);
    s.refuse(ats(IOVA).of(4), CA, 265);
    s.rig.broken.clear();
    s.rig.corrupt.insert(page);
    s.refuse(ats(IOVA).of(4), CA, 269);
    s.rig.corrupt.clear();
    let table = s.vm.second_entry(&mut s.rig, GPA, 0) & !0xfff;
    s.rig.broken.insert(table);
    s.rig.forget();
    s.refuse(ats(IOVA), CA, 5);
    s.rig.broken.clear();
    let context = s.context;
    for (tc, cause) in [(0, 258), (context.tc | 1 << 40, 259)] {
        s.rig.set_context(s.ddt, DEVICE, Context { tc, ..context });
        s.refuse(ats(IOVA), UR, cause);
    }
    s.rig.broken.insert(s.ddt);
    s.refuse(ats(IOVA), UR, 257);
    s.rig.broken.clear();
    s.rig.corrupt.insert(s.ddt);
    s.refuse(ats(IOVA), CA, 268);
}

/// A request that may write sets D, one that may not does not; W is never granted with D = 0.
#[test]
fn dirty_bits() {
    for (second, bits) in [(0, SADE), (SV39, SADE | GADE)] {
        let mut s = Setup::new(second, bits);
        let clean = ALL & !(pte::A | pte::D);
        let first = if second == 0 { PAGE } else { GPA };
        s.leaves(clean, clean);
        assert_eq!(s.rwx(read_only(ats(IOVA))), [true, false, false]);
        assert_eq!(
            s.vm.first_value(&mut s.rig, IOVA, 0),
            pte::at(first, ALL & !pte::D)
        );
        if second != 0 {
            let value = s.vm.second_value(&mut s.rig, GPA, 0);
            assert_eq!(value, pte::at(PAGE, ALL & !pte::D));
        }
        assert_eq!(s.rwx(ats(IOVA)), [true, true, false]);
        assert_eq!(s.vm.first_value(&mut s.rig, IOVA, 0), pte::at(first, ALL));
        if second != 0 {
            assert_eq!(s.vm.second_value(&mut s.rig, GPA, 0), pte::at(PAGE, ALL));
            // The second stage is not made dirty for a page that the first does not let write.
            s.leaves(ALL & !pte::W, clean);
            assert_eq!(s.rwx(ats(IOVA)), [true, false, false]);
            let value = s.vm.second_value(&mut s.rig, GPA, 0);
            assert_eq!(value, pte::at(PAGE, ALL & !pte::D));
        }
    }
}

#[test]
fn translated_requests() {
    // With a physical address there is nothing to translate or to check, beside its width.
    let mut s = Setup::new(SV39, 0);
    for ttyp in [Ttyp::TransRd, Ttyp::TransWr, Ttyp::TransRx] {
        let request = Request::new(ttyp, DEVICE, 0x77_1234_5678);
        assert_eq!(s.rig.translate(request).spa, 0x77_1234_5678);
        assert_eq!(
            s.rig.translate(request.of(1).privileged()).spa,
            0x77_1234_5678
        );
    }
    s.rig.fault(Request::new(Ttyp::TransWr, DEVICE, 1 << 56), 7);
    // With T2GPA the second stage translates and checks.
    let context = s.context.tc(T2GPA);
    s.rig.set_context(s.ddt, DEVICE, context);
    s.leaves(0, ALL & !pte::X);
    for ttyp in [Ttyp::TransRd, Ttyp::TransWr] {
        let request = Request::new(ttyp, DEVICE, GPA + 8);
        assert_eq!(s.rig.translate(request).spa, PAGE + 8);
    }
    for (ttyp, cause) in [
        (Ttyp::TransRd, 21),
        (Ttyp::TransWr, 23),
        (Ttyp::TransRx, 20),
    ] {
        let at = if ttyp == Ttyp::TransRx { GPA } else { IOVA };
        let record = s.rig.fault(Request::new(ttyp, DEVICE, at), cause);
        assert_eq!(record.iotval2, at);
    }
}

#[test]
fn guest_addresses_for_the_device() {
    let mut s = Setup::new(SV39, T2GPA);
    s.leaves(ALL, ALL & !pte::W);
    let answer = s.grant(ats(IOVA).of(1));
    assert_eq!((answer.spa, answer.size, answer.is_gpa), (GPA, 4096, true));
    let expected = Ats {
        r: true,
        cxl_io: true,
        ..Ats::default()
    };
    assert_eq!(answer.ats, expected);
    // And again from what is held.
    assert_eq!(s.grant(ats(IOVA).of(1)).spa, GPA);
    let translated = Request::new(Ttyp::TransRd, DEVICE, answer.spa);
    assert_eq!(s.rig.translate(translated).spa, PAGE);
}

#[test]
fn interrupt_files() {
    let mut s = Setup::new(SV39, 0);
    let table = s.rig.page();
    let file = s.rig.page();
    for bits in [0, T2GPA] {
        let context = Context {
            msi: [1 << 60 | table >> 12, 0, GPA >> 12],
            ..s.context.tc(bits)
        };
        s.rig.set_context(s.ddt, DEVICE, context);
        s.leaves(ALL | pte::G, 0);
        s.rig.store(table, PAGE >> 12 << 10 | 3 << 1 | 1);
        let answer = s.grant(executing(ats(IOVA).of(1)));
        assert_eq!(answer.is_gpa, bits != 0);
        assert_eq!(answer.spa, if bits == 0 { PAGE } else { GPA });
        let expected = Ats {
            r: true,
            w: true,
            cxl_io: true,
            ..Ats::default()
        };
        assert_eq!((answer.ats, answer.size), (expected, 4096));
        // In memory: for untranslated requests only.
        s.rig.store(table, file >> 9 << 7 | 1 << 1 | 1);
        let answer = s.grant(ats(IOVA).of(1));
        let expected = Ats {
            u: true,
            ..expected
        };
        assert_eq!(answer.ats, expected);
        s.rig.store(table, 0);
        assert_eq!(s.rwx(ats(IOVA)), [false; 3]);
        s.rig.store(table, 1);
        s.refuse(ats(IOVA), CA, 263);
        s.rig.broken.insert(table);
        s.refuse(ats(IOVA), CA, 261);
        s.rig.broken.clear();
    }
}
