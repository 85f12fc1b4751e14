//! Translation requests and their completions: IOMMU §2.6.

use crate::rig::{Ats, Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

const DEVICE: u32 = 5;
/// A process and requests without one see the same space.
const PROCESS: u32 = 0x1a3;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const IMSIC: u64 = 0x2400_0000;
const ALL: u64 = pte::ALL;
const CA: u64 = 2;

/// Bits of `tc`.
const EN_ATS: u64 = 1 << 1;
const T2GPA: u64 = 1 << 3;
const DPE: u64 = 1 << 9;
const SBE: u64 = 1 << 10;
/// Bits of `ta`: ENS and SUM.
const SUPERVISOR: u64 = 2 | 4;

const ATS: Request = Request::new(Ttyp::AtsReq, DEVICE, IOVA);
const READ: Request = Request::new(Ttyp::UntransRd, DEVICE, IOVA);

const fn reading(request: Request) -> Request {
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

/// Translation requests without PASID, for user memory and for privileged memory.
const KINDS: [Request; 3] = [ATS, ATS.of(PROCESS), ATS.of(PROCESS).privileged()];

/// [`IOVA`] is [`GPA`] is [`PAGE`], of a process whose supervisor may access user pages.
struct Setup {
    rig: Rig,
    vm: Vm,
    /// Root of the process directory.
    root: u64,
    /// Address of the process context.
    process: u64,
    ddt: u64,
    context: Context,
}

impl Setup {
    fn new() -> Self {
        let mut rig = Rig::new(40);
        let mut vm = Vm::new(&mut rig, SV39, SV39);
        let root = vm.table(&mut rig);
        let mut process = Process::of(&vm);
        process.ta |= SUPERVISOR;
        let [_, at] =
            [0, PROCESS].map(|id| rig.set_process(&mut vm, root, pd::PD17, id, process, false));
        let context = Context {
            fsc: pd::PD17 << 60 | root >> 12,
            ..Context::of(&vm).tc(tc::PDTV | DPE | EN_ATS)
        };
        let ddt = rig.directory(&[DEVICE], context);
        let mut setup = Self {
            process: vm.physical(at),
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
        self.vm
            .map_first(&mut self.rig, IOVA, 0, pte::at(GPA, first));
        self.vm
            .map_second(&mut self.rig, GPA, 0, pte::at(PAGE, second));
        self.rig.forget();
    }

    fn store(&mut self, at: u64, value: u64) {
        self.rig.store(at, value);
        self.rig.forget();
    }

    fn context(&mut self, context: Context) {
        self.rig.set_context(self.ddt, DEVICE, context);
    }

    /// [`GPA`] becomes an interrupt file with this entry, whose address is returned.
    fn file(&mut self, bits: u64, entry: u64) -> u64 {
        let table = self.rig.page();
        self.rig.store(table, entry);
        let msi = [1 << 60 | table >> 12, 0, GPA >> 12];
        self.context(Context {
            msi,
            ..self.context.tc(bits)
        });
        table
    }

    /// The fields of a success, which leaves no record.
    fn success(&mut self, request: Request) -> Ats {
        let answer = self.rig.translate(request);
        assert_eq!(self.rig.records(), [], "{request:x?}");
        answer.ats
    }

    /// The page is granted as wanted, whoever asks.
    fn grants(&mut self) {
        for request in KINDS {
            let Ats { r, w, .. } = self.success(request);
            assert_eq!([r, w], [true; 2], "{request:x?}");
        }
    }

    /// What is a fault of a read is a success that grants nothing, whatever access is wanted.
    fn grants_nothing(&mut self, cause: u64) {
        let record = self.rig.fault(READ.of(PROCESS), cause);
        assert_eq!(record.cause, cause);
        let user = ATS.of(PROCESS);
        for request in [user, reading(user), executing(user)] {
            let Ats { r, w, x, .. } = self.success(request);
            assert_eq!([r, w, x], [false; 3], "{request:x?}");
        }
    }
}

fn basic(page: u64) -> u64 {
    page >> 12 << 10 | 3 << 1 | 1
}

fn mrif(file: u64) -> u64 {
    file >> 9 << 7 | 1 << 1 | 1
}

/// The configuration with the other choices reports the access that is asked for: `cause` if the
/// page table cannot be read.
fn access_fault(request: Request, cause: u64) {
    let mut rig = Rig::other(41);
    let mut vm = Vm::with(&mut rig, SV39, 0, false, [true; 2]);
    vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, ALL));
    let root = vm.table(&mut rig);
    let process = Process::of(&vm);
    rig.set_process(&mut vm, root, pd::PD17, PROCESS, process, true);
    let context = Context {
        fsc: pd::PD17 << 60 | root >> 12,
        ..Context::of(&vm).tc(tc::PDTV | EN_ATS | SBE)
    };
    rig.directory(&[DEVICE], context);
    assert!(rig.translate(request).ats.r);
    rig.broken.insert(vm.first.expect("a first stage").root);
    rig.forget();
    rig.fault(request, cause);
    let answer = rig.ask(request);
    assert_eq!((answer.status, answer.cause), (CA, cause));
}

#[test]
fn an_instruction_access_fault_aborts() {
    access_fault(executing(reading(ATS.of(PROCESS))), 1);
}

#[test]
fn a_read_access_fault_aborts() {
    access_fault(reading(ATS.of(PROCESS)), 5);
}

#[test]
fn a_write_access_fault_aborts() {
    access_fault(ATS.of(PROCESS), 7);
}

#[test]
fn page_faults_grant_nothing() {
    let mut s = Setup::new();
    s.grants();
    let leaf = pte::at(GPA, ALL);
    for bad in [
        leaf & !pte::V,
        leaf & !pte::R,
        leaf & !pte::A,
        leaf & !pte::U,
        leaf | 1 << 54,
        leaf | 3 << pte::PBMT,
        leaf | pte::N,
    ] {
        s.vm.map_first(&mut s.rig, IOVA, 0, bad);
        s.rig.forget();
        s.grants_nothing(13);
    }
    s.leaves(ALL, ALL);
    for level in [1, 2] {
        let entry = s.vm.first_entry(&mut s.rig, IOVA, level);
        let entry = s.vm.physical(entry);
        let pointer = s.rig.load(entry);
        for bad in [0, pointer | pte::A, pointer | pte::R] {
            s.store(entry, bad);
            s.grants_nothing(13);
        }
        s.store(entry, pointer);
    }
    s.grants();
}

#[test]
fn guest_page_faults_grant_nothing() {
    let mut s = Setup::new();
    s.grants();
    let tables = [0, 1, 2].map(|level| s.vm.first_entry(&mut s.rig, IOVA, level) & !0xfff);
    let spas = tables.map(|page| s.vm.physical(page));
    let guest_pages = [(GPA, PAGE), (s.root, s.vm.physical(s.root))];
    let guest_pages = guest_pages.into_iter().chain(tables.into_iter().zip(spas));
    for (gpa, spa) in guest_pages {
        let leaf = pte::at(spa, ALL);
        for bad in [0, leaf & !pte::U, leaf & !pte::A, leaf | 1 << 54] {
            s.vm.map_second(&mut s.rig, gpa, 0, bad);
            s.rig.forget();
            s.grants_nothing(21);
        }
        s.vm.map_second(&mut s.rig, gpa, 0, leaf);
        s.rig.forget();
        s.grants();
    }
    // A guest physical address wider than the scheme.
    let wide = pte::at(1 << 41 | GPA, ALL);
    s.vm.map_first(&mut s.rig, IOVA, 0, wide);
    s.rig.forget();
    s.grants_nothing(21);
}

#[test]
fn a_process_that_is_not_there_is_granted_nothing() {
    let mut s = Setup::new();
    s.grants();
    // The context, and the entry that points to it.
    let pointer = s.vm.physical(s.root) + 8 * u64::from(PROCESS >> 8);
    for at in [s.process, pointer] {
        let old = s.rig.load(at);
        s.store(at, old & !1);
        s.grants_nothing(266);
        s.store(at, old);
        s.grants();
    }
}

#[test]
fn an_interrupt_file_that_is_not_there_is_granted_nothing() {
    let mut s = Setup::new();
    for bits in [0, T2GPA] {
        let entry = s.file(bits, basic(IMSIC));
        s.grants();
        s.store(entry, basic(IMSIC) & !1);
        s.grants_nothing(262);
    }
}

#[test]
fn user_memory_is_not_granted_with_u_0() {
    let mut s = Setup::new();
    let user = [ATS, ATS.of(PROCESS)];
    for (leaf, expected) in [(ALL, true), (ALL & !pte::U, false)] {
        s.leaves(leaf, ALL);
        for request in user {
            let Ats { r, w, .. } = s.success(request);
            assert_eq!([r, w], [expected; 2], "{request:x?}");
        }
        // Privileged memory it is in either case, as SUM is 1.
        let Ats { r, w, .. } = s.success(ATS.of(PROCESS).privileged());
        assert_eq!([r, w], [true; 2]);
    }
}

#[test]
fn privileged_memory_is_not_granted_with_u_1_without_sum() {
    let mut s = Setup::new();
    let ta = s.rig.load(s.process);
    let request = ATS.of(PROCESS).privileged();
    for (sum, leaf, expected) in [
        (4, ALL, true),
        (0, ALL, false),
        (4, ALL & !pte::U, true),
        (0, ALL & !pte::U, true),
    ] {
        s.rig.store(s.process, ta & !4 | sum);
        s.leaves(leaf, ALL);
        let Ats { r, w, .. } = s.success(request);
        assert_eq!([r, w], [expected; 2], "SUM {sum}, {leaf:#x}");
    }
}

/// The entry of an interrupt file permits reads and writes (§2.3.3). What the first stage denies of them
/// is not granted.
#[test]
fn an_interrupt_file_is_granted_as_the_first_stage_permits() {
    let mut s = Setup::new();
    for bits in [0, T2GPA] {
        s.file(bits, basic(IMSIC));
        for (leaf, expected) in [
            (ALL, [true, true, false]),
            (ALL & !pte::W, [true, false, false]),
            (ALL & !(pte::R | pte::W), [false; 3]),
            (0, [false; 3]),
        ] {
            // The second stage has no say.
            for second in [ALL, 0] {
                s.leaves(leaf, second);
                for request in KINDS {
                    let Ats { r, w, x, .. } = s.success(executing(request));
                    assert_eq!([r, w, x], expected, "{leaf:#x}: {request:x?}");
                }
            }
        }
    }
}

/// Calls `check` where the page is granted, granted in part, not there, device memory, an interrupt
/// file, and one in memory.
fn everywhere(mut check: impl FnMut(&mut Setup)) {
    let mut s = Setup::new();
    for first in [ALL, ALL & !pte::W, ALL | pte::G, ALL | 1 << pte::PBMT, 0] {
        for second in [ALL, ALL & !pte::W, ALL | 2 << pte::PBMT, 0] {
            s.leaves(first, second);
            check(&mut s);
        }
    }
    s.leaves(ALL, ALL);
    let in_memory = mrif(s.rig.page());
    for bits in [0, T2GPA] {
        s.context(s.context.tc(bits));
        check(&mut s);
        for entry in [basic(IMSIC), in_memory] {
            s.file(bits, entry);
            check(&mut s);
        }
    }
}

#[test]
fn priv_is_0_without_pasid() {
    everywhere(|s| {
        for request in [ATS, ATS.privileged()] {
            assert!(!s.success(request).privileged);
        }
        assert!(s.success(ATS.of(PROCESS).privileged()).privileged);
    });
}

#[test]
fn priv_is_the_mode_requested_with_pasid() {
    everywhere(|s| {
        let user = ATS.of(PROCESS);
        for request in [user, reading(user), executing(user)] {
            assert!(!s.success(request).privileged);
            assert!(s.success(request.privileged()).privileged);
        }
    });
}

#[test]
fn n_is_0() {
    everywhere(|s| {
        for request in KINDS {
            for request in [request, reading(request), executing(request)] {
                assert!(!s.success(request).n);
            }
        }
    });
}

/// G of each level of the first stage, and of no other table.
#[test]
fn global_is_that_of_the_first_stage_with_pasid() {
    let mut s = Setup::new();
    let global = |s: &mut Setup, expected: bool, what: &str| {
        for request in [ATS.of(PROCESS), ATS.of(PROCESS).privileged()] {
            for _ in 0..2 {
                assert_eq!(s.success(request).global, expected, "{what}");
            }
        }
    };
    global(&mut s, false, "no G");
    for level in 0..3 {
        let entry = s.vm.first_entry(&mut s.rig, IOVA, level);
        let entry = s.vm.physical(entry);
        let old = s.rig.load(entry);
        s.store(entry, old | pte::G);
        global(&mut s, true, "first stage");
        s.store(entry, old);
    }
    s.leaves(ALL, ALL | pte::G);
    global(&mut s, false, "second stage");
    // And without a first stage.
    s.vm.map_second(&mut s.rig, IOVA, 0, pte::at(PAGE, ALL | pte::G));
    s.store(s.process + 8, 0);
    global(&mut s, false, "second stage alone");
    // Of a translation that does not succeed.
    let mut s = Setup::new();
    s.leaves(ALL | pte::G, 0);
    global(&mut s, false, "no page");
}

#[test]
fn global_is_0_without_pasid() {
    let mut s = Setup::new();
    for level in 0..3 {
        let entry = s.vm.first_entry(&mut s.rig, IOVA, level);
        let entry = s.vm.physical(entry);
        let old = s.rig.load(entry);
        s.store(entry, old | pte::G);
        for _ in 0..2 {
            assert!(!s.success(ATS).global);
            assert!(s.success(ATS.of(PROCESS)).global);
        }
        s.store(entry, old);
    }
}

#[test]
fn global_is_0_for_interrupt_files() {
    let mut s = Setup::new();
    s.leaves(ALL | pte::G, ALL);
    let in_memory = mrif(s.rig.page());
    for bits in [0, T2GPA] {
        s.context(s.context.tc(bits));
        assert!(s.success(ATS.of(PROCESS)).global);
        for entry in [basic(IMSIC), in_memory] {
            s.file(bits, entry);
            assert!(!s.success(ATS.of(PROCESS)).global);
        }
    }
}

/// NC is 1, IO is 2, and the first stage's type comes before the second's. Where the specification
/// leaves it open, it is 0 here (rtl/iommu/README.md).
#[test]
fn cxl_io_is_1_for_memory_of_type_nc_or_io() {
    let mut s = Setup::new();
    for first in 0..3 {
        for second in 0..3 {
            s.leaves(ALL | first << pte::PBMT, ALL | second << pte::PBMT);
            for request in KINDS {
                let expected = first != 0 || second != 0;
                assert_eq!(s.success(request).cxl_io, expected, "{first} {second}");
            }
        }
    }
}

#[test]
fn cxl_io_is_1_for_interrupt_files() {
    let mut s = Setup::new();
    let in_memory = mrif(s.rig.page());
    for request in KINDS {
        s.context(s.context);
        assert!(!s.success(request).cxl_io);
        for entry in [basic(IMSIC), in_memory] {
            s.file(0, entry);
            assert!(s.success(request).cxl_io);
        }
    }
}

#[test]
fn cxl_io_is_1_with_t2gpa() {
    let mut s = Setup::new();
    for (bits, expected) in [(0, false), (T2GPA, true)] {
        s.context(s.context.tc(bits));
        for request in KINDS {
            assert_eq!(s.success(request).cxl_io, expected);
        }
    }
}
