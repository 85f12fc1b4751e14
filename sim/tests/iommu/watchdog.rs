//! An answer that never comes from around the IOMMU ends the simulation, with the name of the block
//! that waits for it: of all that stand still, the innermost.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::bench::{command, csr, reg};
use crate::rig::{Context, Message, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const MSI_CFG_TBL: u32 = 768;
const READ: Request = Request::new(Ttyp::UntransRd, DEVICE, IOVA);

/// The simulation ends in `act`, or 20,000 cycles later.
pub fn names(block: &str, rig: &mut Rig, act: impl FnOnce(&mut Rig)) {
    let end = catch_unwind(AssertUnwindSafe(|| {
        act(rig);
        rig.run(20_000);
    }))
    .expect_err("something stands still");
    let text = end.downcast_ref::<String>().expect("a formatted message");
    let expected = format!("{block}.u_watchdog: stuck in state ");
    assert!(text.contains(&expected), "{text}");
}

/// A device of which [`IOVA`] is [`PAGE`] by way of [`GPA`]: the entries of its context, and of the
/// last level of each stage.
fn setup() -> (Rig, [u64; 3]) {
    let mut rig = Rig::new(71);
    let mut vm = Vm::new(&mut rig, SV39, SV39);
    vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, pte::ALL));
    vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, pte::ALL));
    let ddt = rig.directory(&[DEVICE], Context::of(&vm));
    let first = vm.first_entry(&mut rig, IOVA, 0);
    let first = vm.physical(first);
    let second = vm.second_entry(&mut rig, GPA, 0);
    rig.translate(READ);
    rig.forget();
    (rig, [ddt + 64 * u64::from(DEVICE), first, second])
}

#[test]
fn the_walker_that_waits_for_memory() {
    for (entry, block) in [
        "u_directory.u_ddt_walker",
        "u_s1_walker",
        "u_s2.gen_s2.u_walker",
    ]
    .into_iter()
    .enumerate()
    {
        let (mut rig, entries) = setup();
        rig.held = Some(entries[entry]);
        names(block, &mut rig, |rig| rig.begin(READ));
    }
}

/// The front, the fence and the command queue wait too.
#[test]
fn the_walker_behind_a_fence() {
    let (mut rig, entries) = setup();
    rig.held = Some(entries[2]);
    names("u_s2.gen_s2.u_walker", &mut rig, |rig| {
        rig.begin(READ);
        rig.hand_over(&[command::fence(None, true)]);
    });
}

#[test]
fn the_walker_of_a_process_directory() {
    let mut rig = Rig::new(71);
    let mut vm = Vm::new(&mut rig, SV39, 0);
    let root = vm.table(&mut rig);
    let process = Process::of(&vm);
    rig.set_process(&mut vm, root, pd::PD8, 3, process, false);
    let context = Context {
        tc: tc::V | tc::PDTV,
        fsc: pd::PD8 << 60 | root >> 12,
        ..Context::default()
    };
    rig.directory(&[DEVICE], context);
    rig.held = Some(root + 16 * 3);
    names("gen_pdt.u_pdt_walker", &mut rig, |rig| {
        rig.begin(READ.of(3));
    });
}

#[test]
fn the_walker_of_an_msi_page_table() {
    let (mut rig, [context, ..]) = setup();
    let table = rig.page();
    for (i, word) in [1 << 60 | table >> 12, 0, GPA >> 12]
        .into_iter()
        .enumerate()
    {
        rig.store(context + 32 + 8 * i as u64, word);
    }
    rig.forget();
    rig.held = Some(table);
    names("u_msi_walker", &mut rig, |rig| {
        rig.begin(Request::new(Ttyp::UntransWr, DEVICE, IOVA));
    });
}

#[test]
fn a_queue_that_waits_for_memory() {
    let (mut rig, _) = setup();
    rig.held = Some(rig.next_command());
    names("u_cq", &mut rig, |rig| {
        rig.hand_over(&[command::iodir(None)]);
    });

    let (mut rig, _) = setup();
    rig.held = Some(rig.fault_queue());
    names("u_fq", &mut rig, |rig| {
        rig.begin(Request::new(Ttyp::UntransRd, DEVICE + 1, IOVA));
    });

    let mut rig = Rig::new(71);
    let vm = Vm::new(&mut rig, 0, 0);
    rig.directory(&[DEVICE], Context::of(&vm).tc(1 << 1 | 1 << 2));
    let queue = rig.page();
    rig.write(reg::PQB, 8, queue >> 12 << 10 | 1);
    rig.write(reg::PQCSR, 4, csr::ENABLE);
    while rig.read(reg::PQCSR, 4) & csr::ON == 0 {}
    rig.held = Some(queue);
    names("u_messages.gen_ats.u_pq", &mut rig, |rig| {
        rig.message(&Message::Page {
            device_id: DEVICE,
            process_id: None,
            privileged: false,
            exec: false,
            rwl: [true, false, true],
            prgi: 0,
            addr: IOVA,
        });
    });
}

/// An interrupt of the fault queue.
#[test]
fn a_message_that_is_not_written() {
    let (mut rig, _) = setup();
    let target = rig.page();
    rig.write(MSI_CFG_TBL, 8, target);
    rig.write(MSI_CFG_TBL + 8, 8, 0);
    rig.write(reg::FQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    rig.held = Some(target);
    names("u_msi", &mut rig, |rig| {
        rig.begin(Request::new(Ttyp::UntransRd, DEVICE + 1, IOVA));
    });
}

#[test]
fn a_drain_without_its_acknowledgement() {
    let (mut rig, _) = setup();
    rig.undrained = true;
    names("u_drain", &mut rig, |rig| {
        rig.hand_over(&[[2 | 1 << 12, 0]]);
    });
}

#[test]
fn a_memory_port_that_is_never_ready() {
    let (mut rig, _) = setup();
    rig.unready = true;
    names("u_mem_arb", &mut rig, |rig| rig.begin(READ));
}
