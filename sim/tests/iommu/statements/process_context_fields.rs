//! The process directory, the fields of a process context and their checks: IOMMU §2.2.

use crate::bench::command;
use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, implicit, pd};
use crate::tables::{SV39, SV48, SV57, pte, tc};

const DEVICE: u32 = 5;
/// Each index of this process differs from its others.
const PROCESS: u32 = 0xa_63c5;
/// Addresses that Sv32 can map, too.
const IOVA: u64 = 0x3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x1_8765_4000;
const OTHER_PAGE: u64 = 0x1_2345_6000;
const ALL: u64 = pte::ALL;
const INVALID: u64 = 266;
const MISCONFIGURED: u64 = 267;

/// Bits of `tc`.
const EN_ATS: u64 = 1 << 1;
const SBE: u64 = 1 << 10;
const SXL: u64 = 1 << 11;
/// Bits of `PC.ta`.
const ENS: u64 = 1 << 1;
const SUM: u64 = 1 << 2;

const READ: Request = Request::new(Ttyp::UntransRd, DEVICE, IOVA).of(PROCESS);
/// Untranslated requests and their page faults.
const KINDS: [(Ttyp, u64); 3] = [
    (Ttyp::UntransRd, 13),
    (Ttyp::UntransWr, 15),
    (Ttyp::UntransRx, 12),
];

const fn user(ttyp: Ttyp) -> Request {
    Request::new(ttyp, DEVICE, IOVA).of(PROCESS)
}

const fn supervisor(ttyp: Ttyp) -> Request {
    user(ttyp).privileged()
}

/// A process of which [`IOVA`] is [`PAGE`], in a directory of three levels.
struct Setup {
    rig: Rig,
    vm: Vm,
    /// Root of the process directory.
    root: u64,
    process: Process,
    sbe: bool,
}

impl Setup {
    /// With both stages or the first alone, and bits of `tc`.
    fn new(first: u64, second: u64, bits: u64) -> Self {
        let mut rig = Rig::new(61);
        let sbe = bits & SBE != 0;
        let mut vm = Vm::with(&mut rig, first, second, bits & SXL != 0, [sbe, false]);
        if first != 0 {
            let to = if second == 0 { PAGE } else { GPA };
            vm.map_first(&mut rig, IOVA, 0, pte::at(to, ALL));
        }
        if second != 0 {
            vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, ALL));
        }
        let root = vm.table(&mut rig);
        let context = Context {
            fsc: pd::PD20 << 60 | root >> 12,
            ..Context::of(&vm).tc(tc::PDTV | bits)
        };
        rig.directory(&[DEVICE], context);
        let process = Process::of(&vm);
        let mut setup = Self {
            rig,
            vm,
            root,
            process,
            sbe,
        };
        setup.set(process);
        setup
    }

    /// Writes the context of the process and forgets what was. Returns where it is in memory.
    fn set(&mut self, process: Process) -> u64 {
        let (root, sbe) = (self.root, self.sbe);
        let at = self
            .rig
            .set_process(&mut self.vm, root, pd::PD20, PROCESS, process, sbe);
        self.rig.forget();
        self.vm.physical(at)
    }

    /// With these bits of `PC.ta` beside V.
    fn ta(&mut self, bits: u64) {
        self.set(Process {
            ta: self.process.ta | bits,
            ..self.process
        });
    }

    /// The leaf of [`IOVA`].
    fn leaf(&mut self, bits: u64) {
        self.vm
            .map_first(&mut self.rig, IOVA, 0, pte::at(PAGE, bits));
        self.rig.forget();
    }

    fn translates(&mut self) {
        assert_eq!(self.rig.translate(READ).spa, PAGE);
    }

    /// Each of these contexts is misconfigured, and the good one is not.
    fn misconfigured(&mut self, bad: impl Iterator<Item = Process>) {
        for process in bad {
            self.set(process);
            self.rig.fault(READ, MISCONFIGURED);
        }
        self.set(self.process);
        self.translates();
    }

    /// Each of these modes over an empty root is misconfigured, Bare is not, and the others map
    /// nothing.
    fn modes(&mut self, schemes: &[u64]) {
        let empty = self.vm.table(&mut self.rig) >> 12;
        for mode in 0..16 {
            self.set(Process {
                fsc: mode << 60 | empty,
                ..self.process
            });
            if mode == 0 {
                assert_eq!(self.rig.translate(READ).spa, IOVA);
            } else if schemes.contains(&mode) {
                self.rig.fault(READ, 13);
            } else {
                self.rig.fault(READ, MISCONFIGURED);
            }
        }
    }
}

#[test]
fn reserved_bits_of_non_leaf_entries() {
    let mut s = Setup::new(SV39, SV39, 0);
    let root = s.vm.physical(s.root) + 8 * u64::from(PROCESS >> 17);
    let next = s.vm.physical(s.rig.load(root) >> 10 << 12);
    let next = next + 8 * u64::from(PROCESS >> 8 & 0x1ff);
    for at in [root, next] {
        let good = s.rig.load(at);
        s.translates();
        for bit in (1..10).chain(54..64) {
            s.rig.store(at, good | 1 << bit);
            s.rig.forget();
            s.rig.fault(READ, MISCONFIGURED);
        }
        // Those of an entry that is not valid are not.
        s.rig.store(at, good & !1 | 0x3fe | 0x3ff << 54);
        s.rig.forget();
        s.rig.fault(READ, INVALID);
        // The highest bits of the PPN are none: a guest page beyond the second stage.
        for bit in 50..54 {
            s.rig.store(at, good | 1 << bit);
            s.rig.forget();
            s.rig.fault(READ, 21);
        }
        s.rig.store(at, good);
        s.rig.forget();
    }
    s.translates();
}

/// The contexts of neighbours do not overlap: each has a page of its own.
#[test]
fn contexts_have_16_bytes() {
    let mut s = Setup::new(SV39, 0, 0);
    let table = s.set(s.process) & !0xfff;
    let ids = [0, 1, 2, 3, 4, 8, 16, 32, 64, 127, 128, 254, 255];
    for (index, page) in ids.into_iter().zip((OTHER_PAGE..).step_by(4096)) {
        let vm = &mut Vm::new(&mut s.rig, SV39, 0);
        vm.map_first(&mut s.rig, IOVA, 0, pte::at(page, ALL));
        s.rig.store(table + 16 * index, (100 + index) << 12 | 1);
        s.rig.store(table + 16 * index + 8, vm.iosatp());
    }
    for (index, page) in ids.into_iter().zip((OTHER_PAGE..).step_by(4096)) {
        let request = READ.of(PROCESS & !0xff | index as u32);
        assert_eq!(s.rig.translate(request).spa, page, "{index}");
    }
    s.translates();
}

/// Either doubleword in the other order: V is 0, or reserved bits of fsc are not.
#[test]
fn byte_order_of_the_doublewords() {
    for bits in [0, SBE] {
        for second in [0, SV39] {
            let mut s = Setup::new(SV39, second, bits);
            let at = s.set(s.process);
            for (at, cause) in [(at, INVALID), (at + 8, MISCONFIGURED)] {
                s.translates();
                let good = s.rig.load(at);
                s.rig.store(at, good.swap_bytes());
                s.rig.forget();
                s.rig.fault(READ, cause);
                s.rig.store(at, good);
                s.rig.forget();
            }
            s.translates();
        }
    }
}

#[test]
fn nothing_matters_without_v() {
    let mut s = Setup::new(SV39, SV39, 0);
    for fsc in [0, s.process.fsc, !0, 0xffff << 44, 7 << 60] {
        for ta in [0, s.process.ta, !0, 0x1ff << 3, 0xffff_ffff << 32, ENS, SUM] {
            s.set(Process { ta: ta & !1, fsc });
            for request in [READ, READ.privileged()] {
                s.rig.fault(request, INVALID);
            }
        }
    }
    // With V they do.
    s.set(Process {
        ta: s.process.ta,
        fsc: !0,
    });
    s.rig.fault(READ, MISCONFIGURED);
    s.set(s.process);
    s.translates();
}

/// Of every type that looks for the process, SUM or not.
#[test]
fn supervisor_requests_without_ens_are_unsupported() {
    let mut s = Setup::new(SV39, 0, EN_ATS);
    let types = [
        Ttyp::UntransRd,
        Ttyp::UntransWr,
        Ttyp::UntransRx,
        Ttyp::AtsReq,
    ];
    s.leaf(ALL & !pte::U);
    for sum in [0, SUM] {
        for ttyp in types {
            s.ta(sum);
            let answer = s.rig.ask(supervisor(ttyp));
            assert_eq!((answer.status, answer.cause), (1, 260), "{ttyp:?}");
            s.rig.records();
            s.ta(sum | ENS);
            assert_eq!(s.rig.translate(supervisor(ttyp)).spa, PAGE);
        }
    }
    // User requests need no ENS.
    s.leaf(ALL);
    for bits in [0, ENS] {
        s.ta(bits);
        for ttyp in types {
            assert_eq!(s.rig.translate(user(ttyp)).spa, PAGE);
        }
    }
}

#[test]
fn without_sum_supervisors_do_not_reach_user_pages() {
    let mut s = Setup::new(SV39, 0, 0);
    s.ta(ENS);
    for (ttyp, cause) in KINDS {
        s.leaf(ALL);
        s.rig.fault(supervisor(ttyp), cause);
        assert_eq!(s.rig.translate(user(ttyp)).spa, PAGE);
        s.rig.fault(supervisor(ttyp), cause);
        s.leaf(ALL & !pte::U);
        assert_eq!(s.rig.translate(supervisor(ttyp)).spa, PAGE);
    }
}

#[test]
fn with_sum_supervisors_read_and_write_user_pages() {
    let mut s = Setup::new(SV39, 0, 0);
    for (ttyp, cause) in [(Ttyp::UntransRd, 13), (Ttyp::UntransWr, 15)] {
        for leaf in [ALL, ALL & !pte::U] {
            s.leaf(leaf);
            s.ta(ENS | SUM);
            assert_eq!(s.rig.translate(supervisor(ttyp)).spa, PAGE);
        }
        // What the page does not permit SUM does not, either.
        s.leaf(pte::V | pte::X | pte::U | pte::A | pte::D);
        s.rig.fault(supervisor(ttyp), cause);
        s.leaf(ALL);
        s.ta(ENS);
        s.rig.fault(supervisor(ttyp), cause);
    }
}

#[test]
fn supervisors_never_execute_user_pages() {
    let mut s = Setup::new(SV39, 0, 0);
    let fetch = supervisor(Ttyp::UntransRx);
    for sum in [0, SUM] {
        s.ta(ENS | sum);
        s.leaf(ALL);
        s.rig.fault(fetch, 12);
        assert_eq!(s.rig.translate(user(Ttyp::UntransRx)).spa, PAGE);
        s.rig.fault(fetch, 12);
        s.leaf(ALL & !pte::U);
        assert_eq!(s.rig.translate(fetch).spa, PAGE);
    }
}

/// Only what names PSCID of the process makes a change of its tables seen, with an address and
/// without; DC.ta.PSCID is 5.
#[test]
fn pscid_is_the_address_space() {
    for (second, guest) in [(0, 0), (SV39, 1 << 33 | 7 << 44)] {
        let mut s = Setup::new(SV39, second, 0);
        let at = s.vm.first_entry(&mut s.rig, IOVA, 0);
        let at = s.vm.physical(at);
        let good = s.rig.load(at);
        let invalidate = |s: &mut Setup, pscid, iova| {
            let [first, last] = command::iotinval(Some(pscid), iova);
            s.rig.sync(&[[first | guest, last]]);
        };
        for bit in 0..20 {
            let pscid = 1 << bit;
            s.set(Process {
                ta: u64::from(pscid) << 12 | 1,
                ..s.process
            });
            for iova in [None, Some(IOVA)] {
                s.translates();
                s.rig.store(at, 0);
                for other in [0, 5, pscid | 1 << ((bit + 1) % 20)] {
                    invalidate(&mut s, other, iova);
                    s.translates();
                }
                invalidate(&mut s, pscid, iova);
                s.rig.fault(READ, 13);
                s.rig.store(at, good);
            }
        }
    }
}

#[test]
fn mode_selects_the_scheme() {
    let schemes = [
        (SV39, 0, 30),
        (SV48, 0, 39),
        (SV57, 0, 48),
        (8, SXL, 22), // Sv32
    ];
    for (mode, bits, top) in schemes {
        let mut s = Setup::new(mode, 0, bits);
        s.translates();
        // Another entry of the root, and so a table of every level: the scheme has this many.
        let far = Request {
            iova: IOVA ^ 1 << top,
            ..READ
        };
        let to = pte::at(OTHER_PAGE, ALL);
        s.vm.map_first(&mut s.rig, far.iova, 0, to);
        s.rig.forget();
        assert_eq!(s.rig.translate(far).spa, OTHER_PAGE);
        s.translates();
        // Bits beyond those that the root is indexed by.
        let indexed = if bits == SXL { 10 } else { 9 };
        let wide = Request {
            iova: IOVA | 1 << (top + indexed),
            ..READ
        };
        s.rig.fault(wide, 13);
        // Bare, in the same context.
        s.set(Process {
            fsc: 0,
            ..s.process
        });
        assert_eq!(s.rig.translate(READ).spa, IOVA);
        assert_eq!(s.rig.translate(far).spa, far.iova);
    }
}

#[test]
fn with_a_second_stage_the_root_is_a_guest_page() {
    for second in [SV39, SV48, SV57] {
        let mut s = Setup::new(SV39, second, 0);
        s.translates();
        let root = (s.process.fsc & ((1 << 44) - 1)) << 12;
        assert!(s.rig.accesses.iter().all(|a| a.addr & !0xfff != root));
        // The guest page becomes another root, of another first stage.
        let old = s.vm.second_value(&mut s.rig, root, 0);
        let [new, middle, last] = [(); 3].map(|()| s.vm.table(&mut s.rig));
        let entry = |table, level: u32| table + 8 * (IOVA >> (12 + 9 * level) & 0x1ff);
        for (table, level, value) in [
            (new, 2, pte::at(middle, pte::V)),
            (middle, 1, pte::at(last, pte::V)),
            (last, 0, pte::at(GPA + 0x1000, ALL)),
        ] {
            let at = s.vm.physical(entry(table, level));
            s.rig.store(at, value);
        }
        let other = pte::at(OTHER_PAGE, ALL);
        s.vm.map_second(&mut s.rig, GPA + 0x1000, 0, other);
        let moved = pte::at(s.vm.physical(new), ALL);
        s.vm.map_second(&mut s.rig, root, 0, moved);
        s.rig.forget();
        assert_eq!(s.rig.translate(READ).spa, OTHER_PAGE);
        // Without it there is no root.
        s.vm.map_second(&mut s.rig, root, 0, 0);
        s.rig.forget();
        let record = s.rig.fault(READ, 21);
        assert_eq!(record.iotval2, implicit(entry(root, 2), false));
        s.vm.map_second(&mut s.rig, root, 0, old);
        s.rig.forget();
        s.translates();
    }
}

#[test]
fn reserved_bits_of_ta() {
    let mut s = Setup::new(SV39, 0, 0);
    let good = s.process;
    let flip = |bit: u32| Process {
        ta: good.ta ^ 1 << bit,
        ..good
    };
    s.misconfigured((3..12).chain(32..64).map(flip));
    // ENS, SUM and PSCID.
    for bit in (1..3).chain(12..32) {
        s.set(flip(bit));
        s.translates();
    }
}

#[test]
fn reserved_bits_of_fsc() {
    let mut s = Setup::new(SV39, 0, 0);
    let good = s.process;
    // Bare as well.
    for fsc in [good.fsc, 0] {
        s.misconfigured((44..60).map(|bit| Process {
            fsc: fsc | 1 << bit,
            ..good
        }));
    }
    // The PPN: nothing is there, or it is not used.
    for bit in 40..44 {
        s.set(Process {
            fsc: good.fsc | 1 << bit,
            ..good
        });
        s.rig.fault(READ, 13);
        s.set(Process {
            fsc: 1 << bit,
            ..good
        });
        assert_eq!(s.rig.translate(READ).spa, IOVA);
    }
}

#[test]
fn reserved_modes() {
    Setup::new(SV39, 0, 0).modes(&[SV39, SV48, SV57]);
}

#[test]
fn modes_with_sxl() {
    Setup::new(8, 0, SXL).modes(&[8]);
}
