//! Performance monitor (IOMMU §5.19 to §5.23) and wired interrupts (§5.18).

use crate::bench::{csr, reg};
use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

const DEVICE: u32 = 5;
const PID: u32 = 3;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const COUNTERS: u32 = 8;
const OF: u64 = 1 << 63;
const IDT: u64 = 1 << 62;
const DV: u64 = 1 << 61;
const PV: u64 = 1 << 60;
const DMASK: u64 = 1 << 15;
const PMIP: u64 = 4;
const EN_ATS: u64 = 2;

const fn counter(i: u32) -> u32 {
    96 + 8 * i
}
const fn selector(i: u32) -> u32 {
    344 + 8 * i
}
const fn did(id: u64) -> u64 {
    id << 36
}
const fn pid(id: u64) -> u64 {
    id << 16
}

fn request(ttyp: Ttyp) -> Request {
    Request::new(ttyp, DEVICE, IOVA).of(PID)
}

/// A device of GSCID 7 with a process of PSCID 9.
fn setup() -> Rig {
    let mut rig = Rig::new(15);
    let mut vm = Vm::new(&mut rig, SV39, SV39);
    vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, pte::ALL));
    vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, pte::ALL));
    let root = vm.table(&mut rig);
    let process = Process::of(&vm);
    rig.set_process(&mut vm, root, pd::PD8, PID, process, false);
    let context = Context {
        fsc: pd::PD8 << 60 | root >> 12,
        ..Context::of(&vm).tc(tc::PDTV | EN_ATS)
    };
    rig.directory(&[DEVICE], context);
    rig
}

impl Rig {
    /// Counts of one selector over requests with nothing held before the first.
    fn counted(&mut self, value: u64, requests: &[Request]) -> u64 {
        self.forget();
        self.write(selector(1), 8, value);
        self.write(counter(1), 8, 0);
        for &request in requests {
            self.ask(request);
        }
        self.read(counter(1), 8)
    }
}

#[test]
fn every_event() {
    let mut rig = setup();
    let read = request(Ttyp::UntransRd);
    let cold = [read, read, request(Ttyp::UntransWr)];
    // One table of each directory and of the first stage; of the second one for the process
    // directory, three for the first stage's tables, and one for the page.
    for (event, count) in [
        (0, 0),
        (1, 3),
        (2, 0),
        (3, 0),
        (4, 1),
        (5, 1),
        (6, 1),
        (7, 1),
        (8, 5),
    ] {
        assert_eq!(rig.counted(event, &cold), count, "event {event}");
    }
    let ats = request(Ttyp::AtsReq);
    let translated = request(Ttyp::TransRd);
    assert_eq!(rig.counted(2, &[ats, translated, read, translated]), 2);
    assert_eq!(rig.counted(3, &[ats, translated, read]), 1);
    // Faults are requests too.
    let faulting = Request::new(Ttyp::UntransRd, DEVICE + 1, 0);
    assert_eq!(rig.counted(1, &[faulting, read]), 2);
    // Not an event.
    rig.write(selector(1), 8, 9);
    assert_eq!(rig.read(selector(1), 8), 0);
}

#[test]
fn filters() {
    let mut rig = setup();
    let read = request(Ttyp::UntransRd);
    let bare = Request {
        process_id: None,
        ..read
    };
    for (value, count) in [
        (1 | DV | did(5), 2),
        (1 | DV | did(4), 0),
        (1 | DV | did(0b011) | DMASK, 2), // devices 0 to 7
        (1 | DV | did(0b1011) | DMASK, 0),
        (1 | PV | pid(3), 1), // only requests with a process
        (1 | PV | pid(0), 0),
        // What stands at the port in place of a process_id that there is not.
        (1 | PV | pid(0xa_5a5a), 0),
        (4 | PV | pid(0xa_5a5a), 0),
        // DMASK is of DID_GSCID alone: in PID_PSCID it would ignore the bits that differ.
        (1 | PV | pid(3) | DMASK, 1),
        (1 | PV | pid(0b01) | DMASK, 0),
        (1 | PV | pid(0b10) | DMASK, 0),
        (7 | IDT | PV | pid(9) | DMASK, 1),
        (7 | IDT | PV | pid(0b1011) | DMASK, 0),
        (1 | DV | PV | did(5) | pid(3), 1),
        (1 | DV | PV | did(6) | pid(3), 0),
        (7 | IDT | PV | pid(9), 1),
        (7 | IDT | PV | pid(3), 0),
        (8 | IDT | DV | did(7), 6),
        (8 | IDT | DV | did(5), 0),
        (4 | IDT | DV | PV | did(7) | pid(9), 1),
        (4 | IDT | DV | PV | did(8) | pid(9), 0),
        (7 | IDT, 1),
        (1 | IDT, 0), // requests know no GSCID
    ] {
        assert_eq!(rig.counted(value, &[read, bare]), count, "{value:#x}");
    }
}

#[test]
fn inhibition_and_what_there_is() {
    let mut rig = setup();
    let read = request(Ttyp::UntransRd);
    for i in 1..32 {
        rig.write(selector(i), 8, 1);
        let exists = i <= COUNTERS;
        assert_eq!(rig.read(selector(i), 8), u64::from(exists), "{i}");
        rig.write(counter(i), 8, u64::MAX);
        let expected = if exists { u64::MAX } else { 0 };
        assert_eq!(rig.read(counter(i), 8), expected, "{i}");
        rig.write(counter(i), 8, 0);
        assert_eq!(rig.read(counter(i), 8), 0, "{i}");
    }
    rig.write(reg::IOCOUNTINH, 4, 0b101);
    assert_eq!(rig.read(reg::IOCOUNTINH, 4), 0b101);
    let cycles = rig.read(counter(0), 8);
    rig.ask(read);
    assert_eq!(rig.read(counter(0), 8), cycles);
    let counts: Vec<u64> = (1..=COUNTERS).map(|i| rig.read(counter(i), 8)).collect();
    assert_eq!(counts, [1, 0, 1, 1, 1, 1, 1, 1]);
    rig.write(reg::IOCOUNTINH, 4, 0);
    let cycles = rig.read(counter(0), 8);
    assert!(rig.read(counter(0), 8) > cycles);
}

#[test]
fn overflow() {
    let mut rig = setup();
    let read = request(Ttyp::UntransRd);
    rig.write(selector(2), 8, 1);
    rig.write(counter(2), 8, u64::MAX);
    assert_eq!(rig.read(reg::IPSR, 4), 0);
    rig.ask(read);
    assert_eq!(rig.read(counter(2), 8), 0);
    assert_eq!(rig.read(selector(2), 8), OF | 1);
    assert_eq!(rig.read(reg::IOCOUNTOVF, 4), 1 << 2);
    assert_eq!(rig.read(reg::IPSR, 4), PMIP);
    rig.write(reg::IPSR, 4, PMIP);
    assert_eq!(rig.read(reg::IPSR, 4), 0, "an edge");
    // With OF set there is no interrupt.
    rig.write(counter(2), 8, u64::MAX);
    rig.ask(read);
    assert_eq!(rig.read(reg::IPSR, 4), 0);
    // The cycle counter has 63 bits.
    rig.write(counter(0), 8, u64::MAX >> 1);
    assert_eq!(rig.read(counter(0), 8) >> 63, 1);
    assert_eq!(rig.read(reg::IOCOUNTOVF, 4), 0b101);
    assert_eq!(rig.read(reg::IPSR, 4), PMIP);
}

#[test]
fn wires() {
    let mut rig = setup();
    rig.write(reg::FCTL, 4, 2); // WSI
    rig.write(reg::ICVEC, 8, 0x3921);
    rig.write(reg::CQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    rig.write(reg::FQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    assert_eq!(rig.wires(), 0);
    // A record.
    rig.accesses.clear();
    rig.fault(Request::new(Ttyp::UntransRd, DEVICE + 1, 0), 258);
    assert_eq!(rig.wires(), 1 << 2);
    let writes = rig.accesses.iter().filter(|a| a.op == 1).count();
    assert_eq!(writes, 1, "no message");
    rig.write(reg::IPSR, 4, 2);
    assert_eq!(rig.wires(), 0);
    // A fence.
    rig.submit(&[[2 | 1 << 11, 0]]);
    assert_eq!(rig.read(reg::CQCSR, 4) >> 11 & 1, 1);
    assert_eq!(rig.wires(), 1 << 1);
    rig.write(reg::IPSR, 4, 1);
    assert_eq!(rig.wires(), 1 << 1, "the condition stands");
    rig.write(reg::CQCSR, 4, csr::ENABLE | csr::INTERRUPT | 1 << 11);
    rig.write(reg::IPSR, 4, 1);
    assert_eq!(rig.wires(), 0);
    // A counter.
    rig.write(counter(0), 8, u64::MAX >> 1);
    rig.read(reg::IPSR, 4);
    assert_eq!(rig.wires(), 1 << 9);
}
