//! Memory that answers with access faults or corrupt data, and tables that point at themselves: each
//! has its cause, and nothing stands still (IOMMU §3.2, §7.4).

use crate::bench::{command, csr, reg};
use crate::rig::{Context, Failure, Request, Rig, Ttyp, Vm, implicit, pd};
use crate::tables::{SV39, SV48, SV57, pte, tc};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const SADE: u64 = 1 << 8;
const GADE: u64 = 1 << 7;

const fn read(iova: u64) -> Request {
    Request::new(Ttyp::UntransRd, DEVICE, iova)
}

/// A device with both stages.
fn setup(bits: u64) -> (Rig, Vm, u64) {
    let mut rig = Rig::new(23);
    let mut vm = Vm::new(&mut rig, SV39, SV39);
    vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, pte::ALL));
    vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, pte::ALL));
    let ddt = rig.directory(&[DEVICE], Context::of(&vm).tc(bits));
    (rig, vm, ddt)
}

#[test]
fn a_device_directory_that_points_at_itself() {
    for levels in [2, 3] {
        let mut rig = Rig::new(23);
        let root = rig.pages(4);
        rig.store(root, pte::at(root, pte::V));
        rig.set_ddtp(levels + 1, root);
        // The context of device 0 is the pointer itself, with address bit 14 in a reserved bit of
        // `tc`.
        for (device, cause) in [(0, 259), (DEVICE, 258)] {
            rig.fault(Request::new(Ttyp::UntransRd, device, IOVA), cause);
            let reads = rig.accesses.iter().filter(|a| a.op == 0).count();
            assert_eq!(reads, levels as usize);
        }
    }
}

#[test]
fn a_process_directory_that_points_at_itself() {
    for mode in [pd::PD17, pd::PD20] {
        let mut rig = Rig::new(23);
        let root = rig.page();
        rig.store(root, pte::at(root, 1));
        let context = Context {
            tc: tc::V | tc::PDTV,
            fsc: mode << 60 | root >> 12,
            ..Context::default()
        };
        rig.directory(&[DEVICE], context);
        rig.fault(read(IOVA).of(0), 267);
        rig.fault(read(IOVA).of(3), 266);
    }
}

#[test]
fn page_tables_that_point_at_themselves() {
    for mode in [SV39, SV48, SV57] {
        for (first, second, cause) in [(mode, 0, 13), (0, mode, 21)] {
            let mut rig = Rig::new(23);
            let vm = Vm::new(&mut rig, first, second);
            let root = vm.first.or(vm.second).expect("one stage").root;
            rig.store(root, pte::at(root, pte::V));
            rig.directory(&[DEVICE], Context::of(&vm));
            rig.fault(read(0x123), cause);
        }
    }
    // A table of the first stage that is the second stage's root.
    let mut rig = Rig::new(23);
    let mut vm = Vm::new(&mut rig, SV39, SV39);
    let table = vm.first.expect("a first stage").root;
    let root = vm.second.expect("a second stage").root;
    vm.map_second(&mut rig, table, 0, pte::at(root, pte::ALL));
    rig.store(root, pte::at(root, pte::V));
    rig.directory(&[DEVICE], Context::of(&vm));
    let record = rig.fault(read(0), 21);
    assert_eq!(record.iotval2, implicit(root, false));
}

/// Each half of an extended-format context comes in a beat of its own.
#[test]
fn a_context_is_corrupt_in_either_beat() {
    let (mut rig, _, ddt) = setup(0);
    for doubleword in 0..8 {
        rig.sync(&[command::iodir(None)]);
        rig.poisoned
            .insert(ddt + 64 * u64::from(DEVICE) + 8 * doubleword);
        rig.fault(read(IOVA), 268);
        rig.poisoned.clear();
        assert_eq!(rig.translate(read(IOVA)).spa, PAGE);
    }
}

/// Updates of A and D that fail are faults of the entry, which stays as it is.
#[test]
fn updates_that_fail() {
    let clean = pte::ALL & !(pte::A | pte::D);
    let kinds = [
        (Ttyp::UntransRd, 5),
        (Ttyp::UntransWr, 7),
        (Ttyp::UntransRx, 1),
    ];
    for stage in [1, 2] {
        let (mut rig, mut vm, _) = setup(SADE | GADE);
        if stage == 1 {
            vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, clean));
        } else {
            vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, clean));
        }
        for (ttyp, access_fault) in kinds {
            let request = Request::new(ttyp, DEVICE, IOVA);
            for (failure, cause) in [
                (Failure::AccessFault, access_fault),
                (Failure::Corrupt, 274),
            ] {
                rig.atomics = Some(failure);
                rig.fault(request, cause);
                assert!(rig.accesses.iter().any(|a| a.op == 2), "an update");
            }
        }
        rig.atomics = None;
        assert_eq!(rig.translate(read(IOVA)).spa, PAGE);
    }
}

/// A command that cannot be fetched stops the queue, and nothing else (IOMMU §5.15).
#[test]
fn a_command_that_cannot_be_fetched() {
    for poison in [true, false] {
        let (mut rig, ..) = setup(0);
        let at = rig.next_command();
        let head = rig.read(reg::CQH, 4);
        if poison {
            rig.poisoned.insert(at + 8);
        } else {
            rig.broken.insert(at & !0xfff);
        }
        rig.hand_over(&[command::iotinval(None, None), command::fence(None, true)]);
        rig.run(200);
        assert_eq!(
            rig.read(reg::CQCSR, 4) & (csr::MEMORY_FAULT | csr::ILLEGAL),
            csr::MEMORY_FAULT
        );
        assert_eq!(rig.read(reg::CQH, 4), head);
        assert_eq!(rig.translate(read(IOVA)).spa, PAGE);
        rig.poisoned.clear();
        rig.broken.clear();
        rig.run(200);
        assert_eq!(rig.read(reg::CQH, 4), head, "until the bit is cleared");
        rig.write(reg::CQCSR, 4, csr::ENABLE | csr::MEMORY_FAULT);
        rig.submit(&[]);
    }
}

/// Records that cannot be stored are lost, and requests are answered as before (IOMMU §5.16).
#[test]
fn records_that_cannot_be_stored() {
    let (mut rig, ..) = setup(0);
    let queue = rig.fault_queue();
    let bad = Request::new(Ttyp::UntransRd, DEVICE + 1, 0);
    rig.broken.insert(queue);
    for _ in 0..20 {
        assert_eq!(rig.ask(bad).cause, 258);
        assert_eq!(rig.translate(read(IOVA)).spa, PAGE);
    }
    assert_eq!(rig.records(), []);
    assert_ne!(rig.read(reg::FQCSR, 4) & csr::MEMORY_FAULT, 0);
    rig.broken.clear();
    rig.silent_fault(bad, 258);
    rig.write(reg::FQCSR, 4, csr::ENABLE | csr::MEMORY_FAULT);
    rig.fault(bad, 258);
}

/// Everything is broken at once: table, both queues and the messages that would say so.
#[test]
fn nothing_answers() {
    let (mut rig, _, ddt) = setup(0);
    let message = rig.page();
    for row in 0..16 {
        rig.write(reg::MSI_CFG_TBL + 16 * row, 8, message);
        rig.write(reg::MSI_CFG_TBL + 16 * row + 8, 8, 1);
    }
    rig.write(reg::CQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    rig.write(reg::FQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    rig.sync(&[command::iodir(None)]);
    let queues = [rig.fault_queue(), rig.next_command() & !0xfff];
    rig.broken.extend([ddt, message]);
    rig.broken.extend(queues);
    rig.hand_over(&[command::fence(None, true)]);
    for _ in 0..20 {
        assert_eq!(rig.ask(read(IOVA)).cause, 257);
    }
    rig.run(200);
    assert_ne!(rig.read(reg::CQCSR, 4) & csr::MEMORY_FAULT, 0);
    assert_ne!(rig.read(reg::FQCSR, 4) & csr::MEMORY_FAULT, 0);
    rig.broken.clear();
    rig.write(reg::CQCSR, 4, csr::ENABLE | csr::MEMORY_FAULT);
    rig.submit(&[]);
    assert_eq!(rig.translate(read(IOVA)).spa, PAGE);
}
