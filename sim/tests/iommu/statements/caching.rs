//! What the caches hold, and by which tags: IOMMU §2.8.

use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

/// Each index of this device, and of this process, differs from its others.
const DEVICE: u32 = 0x9a_bcd5;
const PROCESS: u32 = 0xa_63c5;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const IMSIC: u64 = 0x2400_0000;

const READ: Request = Request::new(Ttyp::UntransRd, DEVICE, IOVA).of(PROCESS);

/// Addresses of the entries of a device in a directory of three levels, from the root to the
/// context; makes the tables on the way.
pub fn entries(rig: &mut Rig, root: u64, device: u32) -> [u64; 3] {
    let id = u64::from(device);
    let mut table = root;
    let [first, second] = [id >> 15, id >> 6 & 0x1ff].map(|index| {
        let at = table + 8 * index;
        if rig.load(at) & 1 == 0 {
            let page = rig.page();
            rig.store(at, pte::at(page, 1));
        }
        table = rig.load(at) >> 10 << 12;
        at
    });
    [first, second, table + 64 * (id & 0x3f)]
}

pub fn store_context(rig: &mut Rig, at: u64, c: Context) {
    let words = [c.tc, c.iohgatp, c.ta, c.fsc, c.msi[0], c.msi[1], c.msi[2]];
    for (i, word) in words.into_iter().enumerate() {
        rig.store(at + 8 * i as u64, word);
    }
}

/// A device and its process, whose [`IOVA`] is [`PAGE`], by tables of three levels each.
struct Setup {
    rig: Rig,
    vm: Vm,
    /// Roots of the directories.
    devices: u64,
    processes: u64,
    context: Context,
}

impl Setup {
    fn new(second: u64) -> Self {
        let mut rig = Rig::new(43);
        let mut vm = Vm::new(&mut rig, SV39, second);
        let spa = if second == 0 { PAGE } else { GPA };
        vm.map_first(&mut rig, IOVA, 0, pte::at(spa, pte::ALL));
        if second != 0 {
            vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, pte::ALL));
        }
        let processes = vm.table(&mut rig);
        let process = Process::of(&vm);
        rig.set_process(&mut vm, processes, pd::PD20, PROCESS, process, false);
        let context = Context {
            fsc: pd::PD20 << 60 | processes >> 12,
            ..Context::of(&vm).tc(tc::PDTV)
        };
        let devices = rig.page();
        let [.., at] = entries(&mut rig, devices, DEVICE);
        store_context(&mut rig, at, context);
        rig.set_ddtp(4, devices);
        Self {
            rig,
            vm,
            devices,
            processes,
            context,
        }
    }

    /// Addresses of the entries of the process, from the root to the context.
    fn process_entries(&self) -> [u64; 3] {
        let id = u64::from(PROCESS);
        let mut table = self.processes;
        let [first, second] = [id >> 17, id >> 8 & 0x1ff].map(|index| {
            let at = self.vm.physical(table + 8 * index);
            table = self.rig.load(at) >> 10 << 12;
            at
        });
        let context = self.vm.physical(table + 16 * (id & 0xff));
        [first, second, context]
    }

    /// As long as the entry is not valid every request faults; once it is no command is needed.
    /// That it is not valid any more needs one.
    fn is_held_only_if_valid(&mut self, at: u64, cause: u64) {
        let valid = self.rig.load(at);
        assert_eq!(valid & 1, 1);
        self.rig.store(at, valid & !1);
        self.rig.forget();
        for _ in 0..2 {
            self.rig.fault(READ, cause);
        }
        self.rig.store(at, valid);
        assert_eq!(self.rig.translate(READ).spa, PAGE);
        self.rig.store(at, valid & !1);
        assert_eq!(self.rig.translate(READ).spa, PAGE);
        self.rig.store(at, valid);
    }

    /// Both requests keep their answers, from what is held.
    fn are_told_apart(&mut self, requests: [(Request, u64); 2]) {
        self.rig.forget();
        for held in [false, true] {
            for (request, spa) in requests {
                assert_eq!(self.rig.translate(request).spa, spa, "{request:x?}");
                assert!(!held || self.rig.accesses.is_empty());
            }
        }
    }
}

#[test]
fn invalid_first_stage_entries_are_not_held() {
    for second in [0, SV39] {
        let mut s = Setup::new(second);
        for level in 0..3 {
            let entry = s.vm.first_entry(&mut s.rig, IOVA, level);
            s.is_held_only_if_valid(s.vm.physical(entry), 13);
        }
    }
}

/// For the page, and for a table of the first stage.
#[test]
fn invalid_second_stage_entries_are_not_held() {
    let mut s = Setup::new(SV39);
    let table = s.vm.first_entry(&mut s.rig, IOVA, 0) & !0xfff;
    for gpa in [GPA, table] {
        for level in 0..3 {
            let entry = s.vm.second_entry(&mut s.rig, gpa, level);
            s.is_held_only_if_valid(entry, 21);
        }
    }
}

#[test]
fn invalid_device_directory_pointers_are_not_held() {
    let mut s = Setup::new(0);
    let [first, second, _] = entries(&mut s.rig, s.devices, DEVICE);
    s.is_held_only_if_valid(first, 258);
    s.is_held_only_if_valid(second, 258);
}

#[test]
fn invalid_device_contexts_are_not_held() {
    let mut s = Setup::new(0);
    let [.., context] = entries(&mut s.rig, s.devices, DEVICE);
    s.is_held_only_if_valid(context, 258);
}

#[test]
fn invalid_process_directory_pointers_are_not_held() {
    for second in [0, SV39] {
        let mut s = Setup::new(second);
        let [first, second, _] = s.process_entries();
        s.is_held_only_if_valid(first, 266);
        s.is_held_only_if_valid(second, 266);
    }
}

#[test]
fn invalid_process_contexts_are_not_held() {
    for second in [0, SV39] {
        let mut s = Setup::new(second);
        let [.., context] = s.process_entries();
        s.is_held_only_if_valid(context, 266);
    }
}

/// Valid ones are not held here either.
#[test]
fn invalid_entries_of_interrupt_files_are_not_held() {
    let mut s = Setup::new(SV39);
    let table = s.rig.page();
    let [.., at] = entries(&mut s.rig, s.devices, DEVICE);
    let context = Context {
        msi: [1 << 60 | table >> 12, 0, GPA >> 12],
        ..s.context
    };
    store_context(&mut s.rig, at, context);
    s.rig.forget();
    let file = s.rig.page();
    for valid in [IMSIC >> 12 << 10 | 3 << 1 | 1, file >> 9 << 7 | 1 << 1 | 1] {
        s.rig.store(table, valid & !1);
        for _ in 0..2 {
            s.rig.fault(READ, 262);
        }
        s.rig.store(table, valid);
        assert!(s.rig.translate(READ).is_msi);
    }
}

/// Every bit of the ID counts.
#[test]
fn device_contexts_are_tagged_by_device() {
    let mut s = Setup::new(0);
    for bit in 0..24 {
        let other = DEVICE ^ 1 << bit;
        let [.., at] = entries(&mut s.rig, s.devices, other);
        let bare = Context {
            tc: tc::V,
            ..Context::default()
        };
        store_context(&mut s.rig, at, bare);
        let other = Request::new(Ttyp::UntransRd, other, IOVA);
        s.are_told_apart([(READ, PAGE), (other, IOVA)]);
        s.are_told_apart([(other, IOVA), (READ, PAGE)]);
    }
}

#[test]
fn process_contexts_are_tagged_by_process() {
    let mut s = Setup::new(0);
    for bit in 0..20 {
        let other = PROCESS ^ 1 << bit;
        let bare = Process { ta: 1, fsc: 0 };
        s.rig
            .set_process(&mut s.vm, s.processes, pd::PD20, other, bare, false);
        s.are_told_apart([(READ, PAGE), (READ.of(other), IOVA)]);
        s.are_told_apart([(READ.of(other), IOVA), (READ, PAGE)]);
    }
}

#[test]
fn process_contexts_are_tagged_by_device() {
    let mut s = Setup::new(0);
    let processes = s.vm.table(&mut s.rig);
    let bare = Process { ta: 1, fsc: 0 };
    s.rig
        .set_process(&mut s.vm, processes, pd::PD20, PROCESS, bare, false);
    let context = Context {
        fsc: pd::PD20 << 60 | processes >> 12,
        ..s.context
    };
    for bit in 0..24 {
        let other = DEVICE ^ 1 << bit;
        let [.., at] = entries(&mut s.rig, s.devices, other);
        store_context(&mut s.rig, at, context);
        let other = Request::new(Ttyp::UntransRd, other, IOVA).of(PROCESS);
        s.are_told_apart([(READ, PAGE), (other, IOVA)]);
        s.are_told_apart([(other, IOVA), (READ, PAGE)]);
    }
}

/// Every bit of both IDs counts: two devices whose spaces differ in one of them, with a second stage in
/// common.
#[test]
fn first_stages_of_guests_are_tagged_by_gscid_and_pscid() {
    const GSCID: u64 = 0x5a3c;
    const PSCID: u64 = 0xa_5a3c;
    let mut rig = Rig::new(43);
    let mut vm = Vm::new(&mut rig, SV39, SV39);
    let mut first = vm.first.expect("a first stage");
    let pages = [PAGE, PAGE + 0x1000];
    let contexts = pages.map(|page| {
        first.root = vm.table(&mut rig);
        vm.first = Some(first);
        vm.map_first(&mut rig, IOVA, 0, pte::at(page, pte::ALL));
        vm.map_second(&mut rig, page, 0, pte::at(page, pte::ALL));
        Context::of(&vm)
    });
    let table = rig.directory(&[], Context::default());
    let guests = (0..16).map(|bit| (GSCID ^ 1 << bit, PSCID));
    let spaces = (0..20).map(|bit| (GSCID, PSCID ^ 1 << bit));
    for other in guests.chain(spaces) {
        let ids = [(GSCID, PSCID), other];
        for ((device, context), (gscid, pscid)) in (0..).zip(contexts).zip(ids) {
            let context = Context {
                iohgatp: vm.iohgatp(gscid),
                ta: pscid << 12,
                ..context
            };
            rig.set_context(table, device, context);
        }
        for held in [false, true] {
            for (device, page) in (0..).zip(pages) {
                let request = Request::new(Ttyp::UntransRd, device, IOVA);
                assert_eq!(rig.translate(request).spa, page, "{other:x?}");
                assert_eq!(rig.accesses.is_empty(), held, "{other:x?}");
            }
        }
    }
}

/// IOTINVAL.GVMA of the address, of the guest, and of all guests: to another page, and into memory.
#[test]
fn entries_of_interrupt_files_are_forgotten_by_gvma() {
    const GVMA: u64 = 1 | 1 << 7;
    const GUEST: u64 = 1 << 33 | 7 << 44;
    const AV: u64 = 1 << 10;
    let mut s = Setup::new(SV39);
    let [table, file] = [(); 2].map(|()| s.rig.page());
    let [.., at] = entries(&mut s.rig, s.devices, DEVICE);
    let context = Context {
        msi: [1 << 60 | table >> 12, 0, GPA >> 12],
        ..s.context
    };
    store_context(&mut s.rig, at, context);
    let basic = |page: u64| page >> 12 << 10 | 3 << 1 | 1;
    let write = Request {
        ttyp: Ttyp::UntransWr,
        ..READ
    };
    for command in [
        [GVMA | GUEST | AV, GPA >> 12 << 10],
        [GVMA | GUEST, 0],
        [GVMA, 0],
    ] {
        s.rig.store(table, basic(IMSIC));
        s.rig.forget();
        assert_eq!(s.rig.translate(write).spa, IMSIC);
        s.rig.store(table, basic(IMSIC + 0x1000));
        s.rig.sync(&[command]);
        assert_eq!(s.rig.translate(write).spa, IMSIC + 0x1000);
        s.rig.store(table, file >> 9 << 7 | 1 << 1 | 1);
        s.rig.sync(&[command]);
        let answer = s.rig.translate(write);
        assert_eq!((answer.is_mrif, answer.mrif), (true, file));
    }
}
