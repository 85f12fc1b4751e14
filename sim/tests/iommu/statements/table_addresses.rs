//! Where tables are: page numbers of 44 bits, of physical pages or guest pages, and the index into the
//! root of the second stage (IOMMU §2.1.3, §2.2.3).

use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, SV48, SV57, pte, tc};

const DEVICE: u32 = 5;
const PROCESS: u32 = 3;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const IMSIC: u64 = 0x2400_0000;
const SXL: u64 = 1 << 11;
/// `fctl.GXL`.
const GXL: u64 = 1 << 2;
/// Upper bits of addresses: each is 1 in one of them.
const FAR: [u64; 2] = [0x5a_5a5a << 32, 0xa5_a5a5 << 32];

const READ: Request = Request::new(Ttyp::UntransRd, DEVICE, IOVA);

/// [`IOVA`] is [`PAGE`], by way of [`GPA`] if there are both stages.
fn setup(first: u64, second: u64) -> (Rig, Vm) {
    let mut rig = Rig::new(83);
    let mut vm = Vm::new(&mut rig, first, second);
    if first != 0 {
        let to = if second == 0 { PAGE } else { GPA };
        vm.map_first(&mut rig, IOVA, 0, pte::at(to, pte::ALL));
    }
    if second != 0 {
        let gpa = if first == 0 { IOVA } else { GPA };
        vm.map_second(&mut rig, gpa, 0, pte::at(PAGE, pte::ALL));
    }
    (rig, vm)
}

/// The context with its first stage behind [`PROCESS`] of a directory, whose root is returned, too.
fn behind_a_process(rig: &mut Rig, vm: &mut Vm, process: Process) -> (Context, u64) {
    let root = vm.table(rig);
    rig.set_process(vm, root, pd::PD8, PROCESS, process, false);
    let context = Context {
        fsc: pd::PD8 << 60 | root >> 12,
        ..Context::of(vm).tc(tc::PDTV)
    };
    (context, root)
}

/// `iosatp`, `pdtp` or `iohgatp` with these upper bits of the address.
const fn at(far: u64, pointer: u64) -> u64 {
    pointer | far >> 12
}

/// Moves a table to an address with these upper bits. Nothing stays where it was.
fn move_table(rig: &mut Rig, table: u64, pages: u64, far: u64) {
    for word in (table..table + 4096 * pages).step_by(8) {
        let value = rig.load(word);
        rig.store(word | far, value);
        rig.store(word, 0);
    }
}

/// The same of a guest page: what it is in memory stays there.
fn move_guest_page(rig: &mut Rig, vm: &mut Vm, page: u64, far: u64) {
    let leaf = pte::at(vm.physical(page), pte::ALL);
    vm.map_second(rig, page, 0, 0);
    vm.map_second(rig, page | far, 0, leaf);
}

#[test]
fn root_of_the_first_stage() {
    for far in FAR {
        let (mut rig, vm) = setup(SV39, 0);
        let context = Context::of(&vm);
        move_table(&mut rig, context.fsc << 12, 1, far);
        let fsc = at(far, context.fsc);
        rig.directory(&[DEVICE], Context { fsc, ..context });
        assert_eq!(rig.translate(READ).spa, PAGE);
    }
}

#[test]
fn root_of_the_second_stage() {
    for far in FAR {
        let (mut rig, vm) = setup(0, SV39);
        let context = Context::of(&vm);
        let root = vm.second.expect("a second stage").root;
        move_table(&mut rig, root, 4, far);
        let iohgatp = at(far, context.iohgatp);
        rig.directory(&[DEVICE], Context { iohgatp, ..context });
        assert_eq!(rig.translate(READ).spa, PAGE);
    }
}

#[test]
fn root_of_the_process_directory() {
    for far in FAR {
        let (mut rig, mut vm) = setup(SV39, 0);
        let process = Process::of(&vm);
        let (context, root) = behind_a_process(&mut rig, &mut vm, process);
        move_table(&mut rig, root, 1, far);
        let fsc = at(far, context.fsc);
        rig.directory(&[DEVICE], Context { fsc, ..context });
        assert_eq!(rig.translate(READ.of(PROCESS)).spa, PAGE);
    }
}

#[test]
fn root_of_a_process() {
    for far in FAR {
        let (mut rig, mut vm) = setup(SV39, 0);
        let process = Process::of(&vm);
        move_table(&mut rig, process.fsc << 12, 1, far);
        let fsc = at(far, process.fsc);
        let process = Process { fsc, ..process };
        let (context, _) = behind_a_process(&mut rig, &mut vm, process);
        rig.directory(&[DEVICE], context);
        assert_eq!(rig.translate(READ.of(PROCESS)).spa, PAGE);
    }
}

#[test]
fn msi_page_table() {
    for far in FAR {
        let (mut rig, vm) = setup(0, SV39);
        let table = rig.page() | far;
        rig.store(table, IMSIC >> 12 << 10 | 3 << 1 | 1);
        let msi = [1 << 60 | table >> 12, 0, IOVA >> 12];
        rig.directory(
            &[DEVICE],
            Context {
                msi,
                ..Context::of(&vm)
            },
        );
        let write = Request::new(Ttyp::UntransWr, DEVICE, IOVA);
        assert_eq!(rig.translate(write).spa, IMSIC);
    }
}

/// With a second stage the other roots are at guest addresses, of 59 bits with Sv57x4.
#[test]
fn roots_are_guest_pages() {
    for far in FAR {
        let (mut rig, mut vm) = setup(SV39, SV57);
        let context = Context::of(&vm);
        move_guest_page(&mut rig, &mut vm, context.fsc << 12, far);
        let fsc = at(far, context.fsc);
        rig.directory(&[DEVICE], Context { fsc, ..context });
        assert_eq!(rig.translate(READ).spa, PAGE);

        let (mut rig, mut vm) = setup(SV39, SV57);
        let process = Process::of(&vm);
        let (context, root) = behind_a_process(&mut rig, &mut vm, process);
        move_guest_page(&mut rig, &mut vm, root, far);
        let fsc = at(far, context.fsc);
        rig.directory(&[DEVICE], Context { fsc, ..context });
        assert_eq!(rig.translate(READ.of(PROCESS)).spa, PAGE);

        let (mut rig, mut vm) = setup(SV39, SV57);
        let process = Process::of(&vm);
        move_guest_page(&mut rig, &mut vm, process.fsc << 12, far);
        let fsc = at(far, process.fsc);
        let process = Process { fsc, ..process };
        let (context, _) = behind_a_process(&mut rig, &mut vm, process);
        rig.directory(&[DEVICE], context);
        assert_eq!(rig.translate(READ.of(PROCESS)).spa, PAGE);
    }
}

/// Two more bits than other tables of the scheme have: each page has its own entry in each quarter.
#[test]
fn the_second_stages_root_has_four_pages() {
    for (mode, width, fctl, bits) in [
        (SV39, 41, 0, 0),
        (SV48, 50, 0, 0),
        (SV57, 59, 0, 0),
        (SV39, 34, GXL, SXL), // Sv32x4
    ] {
        let mut rig = Rig::new(83);
        rig.set_fctl(fctl);
        let mut vm = Vm::with(&mut rig, 0, mode, fctl != 0, [false; 2]);
        let quarters: [u64; 4] = [0, 1, 2, 3];
        let gpa = |quarter: u64| quarter << (width - 2) | 0x5000;
        let page = |quarter: u64| 0x1_8765_4000 + (quarter << 12);
        for quarter in quarters {
            let leaf = pte::at(page(quarter), pte::ALL);
            vm.map_second(&mut rig, gpa(quarter), 0, leaf);
        }
        rig.directory(&[DEVICE], Context::of(&vm).tc(bits));
        for quarter in quarters {
            let read = Request::new(Ttyp::UntransRd, DEVICE, gpa(quarter));
            assert_eq!(rig.translate(read).spa, page(quarter));
        }
    }
}
