//! Byte order of the data structures: IOMMU §2.10.

use crate::bench::reg;
use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

const DEVICE: u32 = 5;
const PROCESS: u32 = 0x1a3;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
/// An interrupt file, whose IOVA is the page after [`IOVA`].
const FILE: u64 = 0x2800_0000;
const IMSIC: u64 = 0x2400_0000;
const SBE: u64 = 1 << 10;

const READ: Request = Request::new(Ttyp::UntransRd, DEVICE, IOVA).of(PROCESS);
const MSI: Request = Request::new(Ttyp::UntransWr, DEVICE, IOVA + 0x1000).of(PROCESS);

/// Directories of two levels and both stages, each in its byte order.
struct Setup {
    rig: Rig,
    vm: Vm,
    /// fctl.BE.
    be: bool,
    /// Addresses of the entries of the device, of the process, and of the interrupt file.
    device: [u64; 2],
    process: [u64; 2],
    file: u64,
}

impl Setup {
    fn new(be: bool, sbe: bool) -> Self {
        let mut rig = Rig::new(44);
        rig.write(reg::FCTL, 4, be.into());
        let mut vm = Vm::with(&mut rig, SV39, SV39, false, [sbe, be]);
        for (iova, gpa) in [(IOVA, GPA), (IOVA + 0x1000, FILE)] {
            vm.map_first(&mut rig, iova, 0, pte::at(gpa, pte::ALL));
        }
        vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, pte::ALL));
        let processes = vm.table(&mut rig);
        let process = Process::of(&vm);
        let at = rig.set_process(&mut vm, processes, pd::PD17, PROCESS, process, sbe);
        let process = [processes + 8 * u64::from(PROCESS >> 8), at].map(|at| vm.physical(at));
        let file = rig.page();
        rig.store_as(file, IMSIC >> 12 << 10 | 3 << 1 | 1, be);
        let context = Context {
            fsc: pd::PD17 << 60 | processes >> 12,
            msi: [1 << 60 | file >> 12, 0, FILE >> 12],
            ..Context::of(&vm).tc(tc::PDTV | if sbe { SBE } else { 0 })
        };
        let table = rig.directory(&[DEVICE], context);
        let root = rig.page();
        rig.store_as(root, pte::at(table, 1), be);
        rig.set_ddtp(3, root);
        Self {
            rig,
            vm,
            be,
            device: [root, table + 64 * u64::from(DEVICE)],
            process,
            file,
        }
    }

    fn translates(&mut self) {
        self.rig.forget();
        assert_eq!(self.rig.translate(READ).spa, PAGE);
        assert_eq!(self.rig.translate(MSI).spa, IMSIC);
    }

    fn swap(&mut self, at: u64) {
        let value = self.rig.load(at);
        self.rig.store(at, value.swap_bytes());
    }
}

/// In each byte order of fctl.BE and SBE: of the two orders that an entry can have, one is right.
fn follows(entries: impl Fn(&mut Setup) -> Vec<u64>, request: Request, cause: u64) {
    for be in [false, true] {
        for sbe in [false, true] {
            let mut s = Setup::new(be, sbe);
            for at in entries(&mut s) {
                s.translates();
                s.swap(at);
                s.rig.forget();
                s.rig.fault(request, cause);
                s.swap(at);
            }
            s.translates();
        }
    }
}

#[test]
fn device_directory() {
    follows(|s| s.device.to_vec(), READ, 258);
}

#[test]
fn process_directory() {
    follows(|s| s.process.to_vec(), READ, 266);
}

#[test]
fn first_stage() {
    follows(
        |s| {
            let entry = |level| s.vm.first_entry(&mut s.rig, IOVA, level);
            let entries: Vec<u64> = (0..3).map(entry).collect();
            entries.iter().map(|&at| s.vm.physical(at)).collect()
        },
        READ,
        13,
    );
}

/// Where A and D are set, the entry keeps its order; those of RV32 schemes have four bytes.
#[test]
fn entries_are_updated_in_their_byte_order() {
    const CLEAN: u64 = pte::ALL & !(pte::A | pte::D);
    const GADE_SADE: u64 = 3 << 7;
    let (iova, gpa, page) = (0x3456_7000, 0x2_7654_3000, 0x1_8765_4000);
    for be in [false, true] {
        for sbe in [false, true] {
            for (rv32, gxl, sxl) in [(false, 0, 0), (true, 1 << 2, 1 << 11)] {
                let mut rig = Rig::new(44);
                rig.set_fctl(gxl | u64::from(be));
                let mut vm = Vm::with(&mut rig, SV39, SV39, rv32, [sbe, be]);
                vm.map_first(&mut rig, iova, 0, pte::at(gpa, CLEAN));
                vm.map_second(&mut rig, gpa, 0, pte::at(page, CLEAN));
                let bits = sxl | GADE_SADE | if sbe { SBE } else { 0 };
                rig.directory(&[DEVICE], Context::of(&vm).tc(bits));
                let write = Request::new(Ttyp::UntransWr, DEVICE, iova);
                assert_eq!(rig.translate(write).spa, page);
                let first = vm.first_value(&mut rig, iova, 0);
                assert_eq!(first, pte::at(gpa, pte::ALL));
                let second = vm.second_value(&mut rig, gpa, 0);
                assert_eq!(second, pte::at(page, pte::ALL));
            }
        }
    }
}

/// On the way to the page, and to a table of the first stage.
#[test]
fn second_stage() {
    follows(
        |s| {
            let table = s.vm.first_entry(&mut s.rig, IOVA, 0);
            [GPA, table]
                .into_iter()
                .flat_map(|gpa| [0, 1, 2].map(|level| s.vm.second_entry(&mut s.rig, gpa, level)))
                .collect()
        },
        READ,
        21,
    );
}

#[test]
fn msi_page_table() {
    follows(|s| vec![s.file], MSI, 262);
    // The second doubleword: a file in memory, whose notice it says.
    for sbe in [false, true] {
        for be in [false, true] {
            let mut s = Setup::new(be, sbe);
            let memory = s.rig.page();
            s.rig.store_as(s.file, memory >> 9 << 7 | 1 << 1 | 1, s.be);
            s.rig.store_as(s.file + 8, IMSIC >> 12 << 10 | 0x2a5, s.be);
            let answer = s.rig.translate(MSI);
            assert!(answer.is_mrif);
            assert_eq!(
                (answer.mrif, answer.notice, answer.notice_id),
                (memory, IMSIC, 0x2a5)
            );
        }
    }
}
