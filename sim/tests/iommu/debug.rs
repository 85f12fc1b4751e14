//! Translations that software asks for through registers (IOMMU §4).

use crate::bench::reg;
use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const ALL: u64 = pte::ALL;
const PRIV: u64 = 2;
const EXE: u64 = 4;
const NW: u64 = 8;
const PV: u64 = 1 << 32;

impl Rig {
    /// `tr_response` to a request with these bits of `tr_req_ctl`.
    fn debug(&mut self, iova: u64, bits: u64) -> u64 {
        self.write(reg::TR_REQ_IOVA, 8, iova);
        self.write(reg::TR_REQ_CTL, 8, u64::from(DEVICE) << 40 | bits | 1);
        while self.read(reg::TR_REQ_CTL, 4) & 1 == 1 {}
        self.read(reg::TR_RESPONSE, 8)
    }

    /// It must be a fault, with this record.
    fn debug_fault(&mut self, iova: u64, bits: u64, cause: u64, ttyp: Ttyp) {
        assert_eq!(self.debug(iova, bits) & 1, 1);
        let records = self.records();
        assert_eq!(records.len(), 1);
        let record = records[0];
        assert_eq!((record.cause, record.ttyp), (cause, ttyp as u64));
        assert_eq!((record.iotval, record.device_id), (iova, DEVICE.into()));
    }
}

fn nested() -> (Rig, Vm, u64) {
    let mut rig = Rig::new(14);
    let mut vm = Vm::new(&mut rig, SV39, SV39);
    vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL));
    vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, ALL | 2 << pte::PBMT));
    let ddt = rig.directory(&[DEVICE], Context::of(&vm));
    (rig, vm, ddt)
}

#[test]
fn translations() {
    let (mut rig, mut vm, _) = nested();
    for bits in [0, NW, EXE, EXE | NW] {
        assert_eq!(rig.debug(IOVA, bits), PAGE >> 12 << 10 | 2 << 7);
    }
    // A range has the size in its address.
    for (level, ones) in [(1, 0xff), (2, 0x1_ffff)] {
        let iova = (8 + u64::from(level)) << 30;
        vm.map_first(&mut rig, iova, 2, pte::at(iova, ALL));
        vm.map_second(&mut rig, iova, level, pte::at(iova << 1, ALL));
        let ppn = iova << 1 >> 12 | ones;
        assert_eq!(rig.debug(iova + 0x5000, NW), ppn << 10 | 1 << 9);
    }
    assert_eq!(rig.records(), []);
}

/// The smaller of the two pages, wherever in it the address is: 4 KiB, 64 KiB, 2 MiB, 1 GiB.
#[test]
fn sizes_of_both_stages() {
    const PAGES: [(u64, u32); 4] = [(1 << 12, 0), (1 << 16, 0), (1 << 21, 1), (1 << 30, 2)];
    let (iova, gpa, spa) = (0x7 << 30, 0xb << 30, 0x1d << 30);
    let leaf = |to: u64, size: u64| match size {
        0x1_0000 => pte::at(to + 0x8000, ALL | pte::N),
        _ => pte::at(to, ALL),
    };
    for (first_size, first_level) in PAGES {
        for (second_size, second_level) in PAGES {
            let mut rig = Rig::new(14);
            let mut vm = Vm::new(&mut rig, SV39, SV39);
            let size = first_size.min(second_size);
            let at = (size / 2) & !0xfff;
            vm.map_first(&mut rig, iova + at, first_level, leaf(gpa, first_size));
            vm.map_second(&mut rig, gpa + at, second_level, leaf(spa, second_size));
            rig.directory(&[DEVICE], Context::of(&vm));
            let (large, ones) = if size > 4096 {
                (1 << 9, size / 8192 - 1)
            } else {
                (0, 0)
            };
            let expected = (spa >> 12 | ones) << 10 | large;
            assert_eq!(
                rig.debug(iova + at, NW),
                expected,
                "{first_size:#x} {second_size:#x}"
            );
        }
    }
}

#[test]
fn faults() {
    let (mut rig, mut vm, _) = nested();
    vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL & !(pte::W | pte::X)));
    assert_eq!(rig.debug(IOVA, NW) & 1, 0);
    rig.debug_fault(IOVA, 0, 15, Ttyp::UntransWr);
    rig.debug_fault(IOVA, EXE, 12, Ttyp::UntransRx);
    rig.debug_fault(IOVA + 0x1000, NW, 13, Ttyp::UntransRd);
    rig.debug_fault(IOVA, PV | NW, 260, Ttyp::UntransRd);
    rig.set_ddtp(0, 0);
    rig.debug_fault(IOVA, NW, 256, Ttyp::UntransRd);
}

#[test]
fn processes() {
    let (mut rig, mut vm, ddt) = nested();
    let root = vm.table(&mut rig);
    let process = Process::of(&vm);
    rig.set_process(&mut vm, root, pd::PD8, 3, process, false);
    let context = Context {
        fsc: pd::PD8 << 60 | root >> 12,
        ..Context::of(&vm).tc(tc::PDTV)
    };
    rig.set_context(ddt, DEVICE, context);
    let pid = |pid: u64| PV | pid << 12 | NW;
    assert_eq!(rig.debug(IOVA, pid(3)) & 1, 0);
    rig.debug_fault(IOVA, pid(4), 266, Ttyp::UntransRd);
    rig.debug_fault(IOVA, pid(3) | PRIV, 260, Ttyp::UntransRd);
}

/// There is nothing to report of an interrupt file in memory.
#[test]
fn memory_resident_files() {
    let (mut rig, vm, ddt) = nested();
    let table = rig.page();
    let context = Context {
        msi: [1 << 60 | table >> 12, 0, GPA >> 12],
        ..Context::of(&vm)
    };
    rig.set_context(ddt, DEVICE, context);
    rig.store(table, PAGE >> 12 << 10 | 3 << 1 | 1);
    assert_eq!(rig.debug(IOVA, 0), PAGE >> 12 << 10);
    rig.store(table, PAGE >> 9 << 7 | 1 << 1 | 1);
    rig.debug_fault(IOVA, 0, 260, Ttyp::UntransWr);
    rig.debug_fault(IOVA, NW, 260, Ttyp::UntransRd);
    // Not so for the device.
    assert!(
        rig.translate(Request::new(Ttyp::UntransWr, DEVICE, IOVA))
            .is_mrif
    );
}
