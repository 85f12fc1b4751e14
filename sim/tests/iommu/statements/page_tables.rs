//! What the page tables of the privileged specification demand.

use std::ops::Range;

use crate::bench::command;
use crate::rig::{Answer, Context, Process, Request, Rig, Ttyp, Vm, implicit, pd};
use crate::tables::{SV39, SV48, SV57, pte, tc};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
/// Aligned to the pages of every level.
const PAGE: u64 = 0x12 << 48;
const ALL: u64 = pte::ALL;
const LEAF: u64 = pte::at(PAGE, ALL);

/// A request with its page fault, guest page fault and access fault.
#[derive(Clone, Copy)]
struct Kind {
    ttyp: Ttyp,
    page_fault: u64,
    guest_page_fault: u64,
    access_fault: u64,
}

const READ: Kind = Kind {
    ttyp: Ttyp::UntransRd,
    page_fault: 13,
    guest_page_fault: 21,
    access_fault: 5,
};
const WRITE: Kind = Kind {
    ttyp: Ttyp::UntransWr,
    page_fault: 15,
    guest_page_fault: 23,
    access_fault: 7,
};
const EXECUTE: Kind = Kind {
    ttyp: Ttyp::UntransRx,
    page_fault: 12,
    guest_page_fault: 20,
    access_fault: 1,
};
const KINDS: [Kind; 3] = [READ, WRITE, EXECUTE];

/// A device with one stage, by which [`IOVA`] is in a page at [`PAGE`].
struct Space {
    rig: Rig,
    second: bool,
    /// Address and value of the entry at each level; a pointer above level 0.
    entries: Vec<(u64, u64)>,
}

impl Space {
    fn new(mode: u64, second: bool) -> Self {
        Self::with(Rig::new(40), mode, second)
    }

    fn with(mut rig: Rig, mode: u64, second: bool) -> Self {
        let (first, second_mode) = if second { (0, mode) } else { (mode, 0) };
        let mut vm = Vm::new(&mut rig, first, second_mode);
        let mut entries = Vec::new();
        for level in 0..mode as u32 - 5 {
            let at = match second {
                false => vm.first_entry(&mut rig, IOVA, level),
                true => vm.second_entry(&mut rig, IOVA, level),
            };
            if level == 0 {
                rig.store(at, LEAF);
            }
            entries.push((at, rig.load(at)));
        }
        rig.directory(&[DEVICE], Context::of(&vm));
        Self {
            rig,
            second,
            entries,
        }
    }

    /// Every scheme of both stages.
    fn all() -> impl Iterator<Item = Self> {
        [SV39, SV48, SV57]
            .into_iter()
            .flat_map(|mode| [false, true].map(|second| Self::new(mode, second)))
    }

    fn levels(&self) -> usize {
        self.entries.len()
    }

    /// The pointer at this level.
    fn pointer(&self, level: usize) -> u64 {
        assert_ne!(level, 0);
        self.entries[level].1
    }

    fn ask(&mut self, kind: Kind, level: usize, entry: u64, test: impl Fn(&mut Self, Request)) {
        let (at, good) = self.entries[level];
        self.rig.store(at, entry);
        self.rig.forget();
        test(self, Request::new(kind.ttyp, DEVICE, IOVA));
        self.rig.store(at, good);
    }

    /// With this entry at this level the request is a page fault.
    fn rejects(&mut self, kind: Kind, level: usize, entry: u64) {
        let cause = match self.second {
            false => kind.page_fault,
            true => kind.guest_page_fault,
        };
        self.ask(kind, level, entry, |s, request| {
            s.rig.fault(request, cause);
        });
    }

    /// With this entry at this level [`IOVA`] is in a page of this size at [`PAGE`].
    fn accepts(&mut self, kind: Kind, level: usize, entry: u64, size: u64) {
        self.ask(kind, level, entry, |s, request| {
            let answer = s.rig.translate(request);
            assert_eq!(answer.spa, PAGE | IOVA & (size - 1));
            assert_eq!(answer.pbmt, entry >> pte::PBMT & 3);
        });
    }

    /// As [`Self::accepts`], with a leaf of this level.
    fn accepts_leaf(&mut self, kind: Kind, level: usize, leaf: u64) {
        self.accepts(kind, level, leaf, 1 << (12 + 9 * level));
    }

    /// Each of these bits is a page fault in leaves of every size and in pointers.
    fn rejects_bits(&mut self, bits: Range<u32>) {
        for level in 0..self.levels() {
            self.accepts_leaf(READ, level, LEAF);
            for bit in bits.clone() {
                for kind in KINDS {
                    self.rejects(kind, level, LEAF | 1 << bit);
                    if level > 0 {
                        self.rejects(kind, level, self.pointer(level) | 1 << bit);
                    }
                }
            }
        }
    }

    fn accepts_pointer(&mut self, level: usize) {
        self.accepts(READ, level, self.pointer(level), 1 << 12);
    }
}

/// Both halves of each scheme's addresses, and what is between them.
#[test]
fn iovas_are_sign_extended() {
    for (mode, width) in [(SV39, 39), (SV48, 48), (SV57, 57)] {
        let mut rig = Rig::new(41);
        let mut vm = Vm::new(&mut rig, mode, 0);
        rig.directory(&[DEVICE], Context::of(&vm));
        let upper = !0 << (width - 1);
        for iova in [!upper & !0x2fff, upper | 0x5000] {
            vm.map_first(&mut rig, iova, 0, LEAF);
            for kind in KINDS {
                let answer = rig.translate(Request::new(kind.ttyp, DEVICE, iova | 8));
                assert_eq!(answer.spa, PAGE | 8);
                // One bit, then all above the highest.
                let bits = (width..64).map(|bit| 1 << bit).chain([upper << 1]);
                for bits in bits {
                    let request = Request::new(kind.ttyp, DEVICE, iova ^ bits);
                    assert_eq!(rig.ask(request).cause, kind.page_fault, "{request:x?}");
                }
            }
        }
    }
}

#[test]
fn entries_are_valid() {
    for mut s in Space::all() {
        for level in 0..s.levels() {
            for kind in KINDS {
                s.rejects(kind, level, LEAF & !pte::V);
                s.accepts_leaf(kind, level, LEAF);
                if level > 0 {
                    s.rejects(kind, level, s.pointer(level) & !pte::V);
                    s.accepts_pointer(level);
                }
            }
        }
    }
}

/// Whether X is set or not.
#[test]
fn what_can_be_written_can_be_read() {
    for mut s in Space::all() {
        for level in 0..s.levels() {
            for kind in KINDS {
                s.rejects(kind, level, LEAF & !(pte::R | pte::X));
                s.rejects(kind, level, LEAF & !pte::R);
                s.accepts_leaf(kind, level, LEAF);
            }
        }
    }
}

/// A pointer to a table full of leaves.
#[test]
fn the_last_level_has_no_pointers() {
    for mut s in Space::all() {
        let table = s.rig.page();
        for i in 0..512 {
            s.rig.store(table + 8 * i, LEAF);
        }
        let pointer = pte::at(table, pte::V);
        for kind in KINDS {
            s.rejects(kind, 0, pointer);
            s.accepts(kind, 1, pointer, 1 << 12);
        }
    }
}

/// These bits make a pointer a page fault.
fn reserved_in_pointers(bits: &[u64]) {
    for mut s in Space::all() {
        for level in 1..s.levels() {
            s.accepts_pointer(level);
            for bits in bits {
                for kind in KINDS {
                    s.rejects(kind, level, s.pointer(level) | bits);
                }
            }
        }
    }
}

#[test]
fn pointers_have_no_a_d_and_u() {
    reserved_in_pointers(&[pte::A, pte::D, pte::U]);
}

#[test]
fn bits_58_to_54_are_reserved() {
    for mut s in Space::all() {
        s.rejects_bits(54..59);
    }
}

#[test]
fn bits_60_and_59_are_reserved_without_svrsw60t59b() {
    for second in [false, true] {
        let mut s = Space::with(Rig::partial(40), SV39, second);
        s.rejects_bits(54..61);
    }
}

/// Each of these bits, in leaves of every size and in pointers.
fn are_softwares(bits: Range<u32>) {
    for mut s in Space::all() {
        for level in 0..s.levels() {
            for bit in bits.clone() {
                for kind in KINDS {
                    s.accepts_leaf(kind, level, LEAF | 1 << bit);
                    if level > 0 {
                        let pointer = s.pointer(level) | 1 << bit;
                        s.accepts(kind, level, pointer, 1 << 12);
                    }
                }
            }
        }
    }
}

#[test]
fn bits_9_and_8_are_softwares() {
    are_softwares(8..10);
}

#[test]
fn bits_60_and_59_are_softwares_with_svrsw60t59b() {
    are_softwares(59..61);
}

/// 4 MiB, so ten bits, in either stage.
#[test]
fn large_pages_of_sv32_are_aligned() {
    const SXL: u64 = 1 << 11;
    const GXL: u64 = 1 << 2;
    const SV32: u64 = 8;
    const LARGE: u64 = 0x1_0080_0000;
    const OFFSET: u64 = 0x12_3456;
    for [first, second] in [[SV32, 0], [0, SV32]] {
        let mut rig = Rig::new(44);
        if second != 0 {
            rig.set_fctl(GXL);
        }
        let mut vm = Vm::with(&mut rig, first, second, true, [false; 2]);
        rig.directory(&[DEVICE], Context::of(&vm).tc(SXL));
        let iova = 0x0340_0000;
        for bit in 0..11 {
            let page = LARGE | 1 << (12 + bit);
            if second == 0 {
                vm.map_first(&mut rig, iova, 1, pte::at(page, ALL));
            } else {
                vm.map_second(&mut rig, iova, 1, pte::at(page, ALL));
            }
            rig.forget();
            for kind in KINDS {
                let request = Request::new(kind.ttyp, DEVICE, iova | OFFSET);
                if bit == 10 {
                    assert_eq!(rig.translate(request).spa, page | OFFSET);
                } else if second == 0 {
                    rig.fault(request, kind.page_fault);
                } else {
                    rig.fault(request, kind.guest_page_fault);
                }
            }
        }
    }
}

#[test]
fn large_pages_are_aligned() {
    for mut s in Space::all() {
        for level in 1..s.levels() {
            s.accepts_leaf(READ, level, LEAF);
            for bit in 0..9 * level {
                s.rejects(KINDS[bit % 3], level, LEAF | 1 << (10 + bit));
            }
        }
    }
}

/// Without these bits a leaf of any level does not permit one kind, but the others.
fn needed(bits: u64, denied: Kind, permitted: &[Kind]) {
    for mut s in Space::all() {
        for level in 0..s.levels() {
            s.accepts_leaf(denied, level, LEAF);
            s.rejects(denied, level, LEAF & !bits);
            for &kind in permitted {
                s.accepts_leaf(kind, level, LEAF & !bits);
            }
        }
    }
}

/// W without R is reserved.
#[test]
fn reads_need_r() {
    needed(pte::R | pte::W, READ, &[EXECUTE]);
}

#[test]
fn writes_need_w() {
    needed(pte::W, WRITE, &[READ, EXECUTE]);
}

#[test]
fn execution_needs_x() {
    needed(pte::X, EXECUTE, &[READ, WRITE]);
}

#[test]
fn access_faults_are_of_the_original_type() {
    for mut s in Space::all() {
        for level in 0..s.levels() {
            let (at, good) = s.entries[level];
            for kind in KINDS {
                s.rig.broken.insert(at & !0xfff);
                s.ask(kind, level, good, |s, request| {
                    s.rig.fault(request, kind.access_fault);
                });
                s.rig.broken.clear();
                s.accepts(kind, level, good, 1 << 12);
            }
        }
    }
}

/// Those of a page, of each table and of the root, with a bit beyond the second stage's scheme.
#[test]
fn guest_addresses_of_the_first_stage_fit_the_second() {
    for (second, width) in [(SV39, 41), (SV48, 50)] {
        let mut rig = Rig::new(45);
        let mut vm = Vm::new(&mut rig, SV39, second);
        vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL));
        vm.map_second(&mut rig, GPA, 0, LEAF);
        let context = Context::of(&vm);
        let ddt = rig.directory(&[DEVICE], context);
        let entries = [0, 1, 2].map(|level| vm.first_entry(&mut rig, IOVA, level));
        for bit in width..56 {
            let wide: u64 = 1 << bit;
            for kind in KINDS {
                let request = Request::new(kind.ttyp, DEVICE, IOVA);
                let refuses = |rig: &mut Rig, gpa: u64| {
                    rig.forget();
                    let record = rig.fault(request, kind.guest_page_fault);
                    assert_eq!(record.iotval2, gpa, "{bit}");
                };
                for (level, entry) in entries.into_iter().enumerate() {
                    let at = vm.physical(entry);
                    let good = rig.load(at);
                    rig.store(at, good | pte::at(wide, 0));
                    match level {
                        0 => refuses(&mut rig, GPA | wide),
                        _ => refuses(&mut rig, implicit(entries[level - 1] | wide, false)),
                    }
                    rig.store(at, good);
                }
                let fsc = context.fsc | wide >> 12;
                rig.set_context(ddt, DEVICE, Context { fsc, ..context });
                refuses(&mut rig, implicit(entries[2] | wide, false));
                rig.set_context(ddt, DEVICE, context);
                rig.forget();
                assert_eq!(rig.translate(request).spa, PAGE);
            }
        }
    }
}

/// `ppn[3:0]` of a range of 64 KiB is 8.
#[test]
fn ranges_have_one_size() {
    for mut s in Space::all() {
        for low in 0..16 {
            let leaf = LEAF | pte::N | low << 10;
            for kind in KINDS {
                match low {
                    8 => s.accepts(kind, 0, leaf, 1 << 16),
                    _ => s.rejects(kind, 0, leaf),
                }
            }
        }
    }
}

#[test]
fn ranges_are_of_the_last_level() {
    for mut s in Space::all() {
        for level in 1..s.levels() {
            for kind in KINDS {
                s.accepts_leaf(kind, level, LEAF);
                s.rejects(kind, level, LEAF | pte::N);
                s.rejects(kind, level, LEAF | pte::N | 8 << 10);
            }
        }
    }
}

#[test]
fn pointers_have_no_n() {
    reserved_in_pointers(&[pte::N]);
}

#[test]
fn memory_type_3_is_reserved() {
    for mut s in Space::all() {
        for level in 0..s.levels() {
            for kind in KINDS {
                s.rejects(kind, level, LEAF | 3 << pte::PBMT);
            }
            for pbmt in 0..3 {
                s.accepts_leaf(READ, level, LEAF | pbmt << pte::PBMT);
            }
        }
    }
}

#[test]
fn pointers_have_no_memory_type() {
    reserved_in_pointers(&[1, 2, 3].map(|pbmt| pbmt << pte::PBMT));
}

/// Process 1 of a device, with PSCID 9, whose [`IOVA`] is [`GPA`] and that [`PAGE`] if there is a
/// second stage.
fn process(second: u64) -> (Rig, Vm) {
    let mut rig = Rig::new(42);
    let mut vm = Vm::new(&mut rig, SV39, second);
    vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL));
    if second != 0 {
        vm.map_second(&mut rig, GPA, 0, LEAF);
    }
    let root = vm.table(&mut rig);
    let first_stage = Process::of(&vm);
    rig.set_process(&mut vm, root, pd::PD8, 1, first_stage, false);
    let en_ats = 1 << 1;
    let context = Context {
        fsc: pd::PD8 << 60 | root >> 12,
        ..Context::of(&vm).tc(tc::PDTV | en_ats)
    };
    rig.directory(&[DEVICE], context);
    (rig, vm)
}

fn of_process(rig: &mut Rig, ttyp: Ttyp) -> Answer {
    rig.translate(Request::new(ttyp, DEVICE, IOVA).of(1))
}

/// Global says a translation completion; IOTINVAL.VMA with a PSCID spares what is global.
#[test]
fn what_is_below_a_global_pointer_is_global() {
    let (mut rig, mut vm) = process(0);
    let other = GPA + 0x1000;
    // None, a pointer of either level, the leaf.
    for global in [None, Some(2), Some(1), Some(0)] {
        vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL));
        let entry = global.map(|level| vm.first_entry(&mut rig, IOVA, level));
        if let Some(entry) = entry {
            let old = rig.load(entry);
            rig.store(entry, old | pte::G);
        }
        rig.forget();
        let answer = of_process(&mut rig, Ttyp::AtsReq);
        assert_eq!((answer.spa, answer.ats.global), (GPA, global.is_some()));
        assert_eq!(of_process(&mut rig, Ttyp::UntransRd).spa, GPA);
        let leaf = vm.first_entry(&mut rig, IOVA, 0);
        rig.store(leaf, pte::at(other, ALL));
        rig.sync(&[command::iotinval(Some(9), None)]);
        let spared = if global.is_some() { GPA } else { other };
        assert_eq!(of_process(&mut rig, Ttyp::UntransRd).spa, spared);
        rig.sync(&[command::iotinval(None, None)]);
        assert_eq!(of_process(&mut rig, Ttyp::UntransRd).spa, other);
        if let Some(entry) = entry {
            let old = rig.load(entry);
            rig.store(entry, old & !pte::G);
        }
    }
}

/// Nothing of a guest is global by its second stage: see the test before this one.
#[test]
fn second_stages_have_no_global_mappings() {
    let (mut rig, mut vm) = process(SV39);
    let guest = 1 << 33 | 7 << 44;
    let (by_process, by_guest) = ([1 | guest | 1 << 32 | 9 << 12, 0], [1 | 1 << 7 | guest, 0]);
    let other = GPA + 0x1000;
    let other_page = PAGE + 0x1000;
    for level in 0..3 {
        vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL));
        vm.map_second(&mut rig, GPA, 0, LEAF);
        vm.map_second(&mut rig, other, 0, LEAF + (1 << 10));
        for page in [GPA, other] {
            let entry = vm.second_entry(&mut rig, page, level);
            let old = rig.load(entry);
            rig.store(entry, old | pte::G);
        }
        rig.forget();
        let answer = of_process(&mut rig, Ttyp::AtsReq);
        assert_eq!((answer.spa, answer.ats.global), (PAGE, false));
        // Another page of the guest, then another page for it.
        vm.map_first(&mut rig, IOVA, 0, pte::at(other, ALL));
        rig.sync(&[by_process]);
        assert_eq!(of_process(&mut rig, Ttyp::UntransRd).spa, other_page);
        vm.map_second(&mut rig, other, 0, LEAF);
        rig.sync(&[by_guest]);
        assert_eq!(of_process(&mut rig, Ttyp::UntransRd).spa, PAGE);
    }
}

/// Reads of a process directory and of the first stage, and the update of A and D.
#[test]
fn implicit_accesses_have_the_memory_type_of_the_second_stage() {
    const PROCESS: u32 = 0x1a3;
    const SADE: u64 = 1 << 8;
    for pbmt in [1, 2] {
        let mut rig = Rig::new(43);
        let mut vm = Vm::new(&mut rig, 0, SV39);
        vm.table_leaf |= pbmt << pte::PBMT;
        let mut first = Vm::new(&mut rig, SV39, 0).first.expect("just made");
        first.root = vm.table(&mut rig);
        vm.first = Some(first);
        vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL & !(pte::A | pte::D)));
        vm.map_second(&mut rig, GPA, 0, LEAF);
        let root = vm.table(&mut rig);
        let process = Process::of(&vm);
        let context = rig.set_process(&mut vm, root, pd::PD17, PROCESS, process, false);
        rig.directory(
            &[DEVICE],
            Context {
                fsc: pd::PD17 << 60 | root >> 12,
                ..Context::of(&vm).tc(tc::PDTV | SADE)
            },
        );
        rig.translate(Request::new(Ttyp::UntransWr, DEVICE, IOVA).of(PROCESS));
        let entries = [2, 1, 0].map(|level| vm.first_entry(&mut rig, IOVA, level));
        let pointer = root + 8 * u64::from(PROCESS >> 8);
        let mut expected: Vec<(u64, u64)> = [pointer, context]
            .into_iter()
            .chain(entries)
            .map(|at| (0, vm.physical(at)))
            .collect();
        expected.push((2, vm.physical(entries[2])));
        let typed = rig.accesses.iter().filter(|a| a.pbmt == pbmt);
        let typed: Vec<(u64, u64)> = typed.map(|a| (a.op, a.addr)).collect();
        assert_eq!(typed, expected);
        assert!(rig.accesses.iter().all(|a| [0, pbmt].contains(&a.pbmt)));
    }
}
