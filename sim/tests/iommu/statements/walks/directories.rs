//! How the contexts of a device and of a process are located (IOMMU §2.3.1, §2.3.2).

use crate::bench::command;
use crate::rig::{Context, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

const IOVA: u64 = 0x12_3456_7000;
/// Each index of this device, and of this process, differs from its others.
const DEVICE: u32 = 0x9a_bcd5;
const PROCESS: u32 = 0xa_63c5;

/// Causes of faults of a directory.
struct Causes {
    access_fault: u64,
    invalid: u64,
    misconfigured: u64,
    corrupt: u64,
}

const DDT: Causes = Causes {
    access_fault: 257,
    invalid: 258,
    misconfigured: 259,
    corrupt: 268,
};
const PDT: Causes = Causes {
    access_fault: 265,
    invalid: 266,
    misconfigured: 267,
    corrupt: 269,
};

/// A new page with bits above the lower 32 of its address; each of its bits is inverted in the address of
/// the inverted one.
fn far_page(rig: &mut Rig, inverted: bool) -> u64 {
    let all = if inverted { 0xff_ffff_ffff_f000 } else { 0 };
    rig.page() ^ 0x5a_5a5a_0000_0000 ^ all
}

/// A directory with one valid context, by which [`IOVA`] keeps its address.
struct Directory {
    rig: Rig,
    /// Addresses of the entries on the way, from the root.
    pointers: Vec<u64>,
    context: u64,
    request: Request,
}

impl Directory {
    /// Of devices, in extended format or in base format.
    fn of_devices(extended: bool, levels: usize) -> Self {
        Self::of_device(extended, levels, false)
    }

    /// With the bits of the device's number and of its tables' addresses inverted, or not.
    fn of_device(extended: bool, levels: usize, inverted: bool) -> Self {
        let (mut rig, low, size) = match extended {
            true => (Rig::new(31), 6, 64),
            false => (Rig::minimal(31), 7, 32),
        };
        // The bits that the mode can have.
        let number = if inverted { !DEVICE } else { DEVICE };
        let device = number & ((1 << [low, low + 9, 24][levels - 1]) - 1);
        let id = u64::from(device);
        let index = [id & ((1 << low) - 1), id >> low & 0x1ff, id >> (low + 9)];
        let tables: Vec<u64> = (0..levels).map(|_| far_page(&mut rig, inverted)).collect();
        let mut pointers = Vec::new();
        for level in (1..levels).rev() {
            let at = tables[level] + 8 * index[level];
            rig.store(at, pte::at(tables[level - 1], 1));
            pointers.push(at);
        }
        let context = tables[0] + size * index[0];
        rig.store(context, tc::V);
        rig.set_ddtp(levels as u64 + 1, tables[levels - 1]);
        Self {
            rig,
            pointers,
            context,
            request: Request::new(Ttyp::UntransRd, device, IOVA),
        }
    }

    /// Of processes, behind a second stage or none.
    fn of_processes(second: u64, mode: u64) -> Self {
        Self::of_process(second, mode, false)
    }

    /// As [`Self::of_device`]; of guest addresses nothing is inverted.
    fn of_process(second: u64, mode: u64, inverted: bool) -> Self {
        let mut rig = Rig::new(32);
        let mut vm = Vm::new(&mut rig, 0, second);
        if second != 0 {
            vm.map_second(&mut rig, IOVA, 0, pte::at(IOVA, pte::ALL));
        }
        let levels = mode as usize;
        let number = if inverted { !PROCESS } else { PROCESS };
        let process = number & ((1 << [8, 17, 20][levels - 1]) - 1);
        let id = u64::from(process);
        let index = [id & 0xff, id >> 8 & 0x1ff, id >> 17];
        let tables: Vec<u64> = (0..levels)
            .map(|_| match second {
                0 => far_page(&mut rig, inverted),
                _ => vm.table(&mut rig),
            })
            .collect();
        let physical = |at| if second == 0 { at } else { vm.physical(at) };
        let mut pointers = Vec::new();
        for level in (1..levels).rev() {
            let at = physical(tables[level] + 8 * index[level]);
            rig.store(at, pte::at(tables[level - 1], 1));
            pointers.push(at);
        }
        let context = physical(tables[0] + 16 * index[0]);
        rig.store(context, 1);
        let device = 5;
        rig.directory(
            &[device],
            Context {
                tc: tc::V | tc::PDTV,
                iohgatp: vm.iohgatp(7),
                fsc: mode << 60 | tables[levels - 1] >> 12,
                ..Context::default()
            },
        );
        Self {
            rig,
            pointers,
            context,
            request: Request::new(Ttyp::UntransRd, device, IOVA).of(process),
        }
    }

    fn all_of_devices() -> impl Iterator<Item = Self> {
        [
            (true, 1),
            (true, 2),
            (true, 3),
            (false, 1),
            (false, 2),
            (false, 3),
        ]
        .into_iter()
        .map(|(extended, levels)| Self::of_devices(extended, levels))
    }

    fn all_of_processes() -> impl Iterator<Item = Self> {
        [0, SV39].into_iter().flat_map(|second| {
            [pd::PD8, pd::PD17, pd::PD20].map(|mode| Self::of_processes(second, mode))
        })
    }

    fn passes(&mut self) {
        self.rig.sync(&[command::iodir(None)]);
        assert_eq!(self.rig.translate(self.request).spa, IOVA);
    }

    fn faults(&mut self, cause: u64) {
        self.rig.sync(&[command::iodir(None)]);
        self.rig.fault(self.request, cause);
    }

    /// The fault of another value at `at`, and none with the old one.
    fn faults_with(&mut self, at: u64, value: u64, cause: u64) {
        let old = self.rig.load(at);
        self.rig.store(at, value);
        self.faults(cause);
        self.rig.store(at, old);
        self.passes();
    }

    /// The entries on the way and the context are read in their order, and nothing else of the pages
    /// in which they are.
    fn reads_each_level_once(&mut self) {
        self.passes();
        let expected: Vec<u64> = self
            .pointers
            .iter()
            .copied()
            .chain([self.context])
            .collect();
        let pages: Vec<u64> = expected.iter().map(|at| at >> 12).collect();
        let reads: Vec<u64> = self
            .rig
            .accesses
            .iter()
            .map(|a| a.addr)
            .filter(|at| pages.contains(&(at >> 12)))
            .collect();
        assert_eq!(reads, expected);
    }

    fn access_fault(&mut self, at: u64, cause: u64) {
        self.passes();
        self.rig.broken.insert(at & !0xfff);
        self.faults(cause);
        self.rig.broken.clear();
        self.passes();
    }

    fn corrupt(&mut self, at: u64, cause: u64) {
        self.passes();
        self.rig.poisoned.insert(at);
        self.faults(cause);
        // Corrupt data has nothing to say, not even that it is not valid.
        let old = self.rig.load(at);
        self.rig.store(at, 0);
        self.faults(cause);
        self.rig.store(at, old);
        self.rig.poisoned.clear();
        self.passes();
    }
}

/// Bits 9:1 and 63:54 (IOMMU §2.1.1, §2.2.1).
fn reserved() -> impl Iterator<Item = u64> {
    (1..10).chain(54..64).map(|bit| 1 << bit)
}

fn access_faults_of_pointers(directories: impl Iterator<Item = Directory>, causes: &Causes) {
    for mut d in directories {
        for at in d.pointers.clone() {
            d.access_fault(at, causes.access_fault);
        }
    }
}

fn corrupt_pointers(directories: impl Iterator<Item = Directory>, causes: &Causes) {
    for mut d in directories {
        for at in d.pointers.clone() {
            d.corrupt(at, causes.corrupt);
        }
    }
}

fn invalid_pointers(directories: impl Iterator<Item = Directory>, causes: &Causes) {
    for mut d in directories {
        for at in d.pointers.clone() {
            let good = d.rig.load(at);
            d.faults_with(at, good & !1, causes.invalid);
        }
    }
}

fn reserved_bits_of_pointers(directories: impl Iterator<Item = Directory>, causes: &Causes) {
    for mut d in directories {
        for at in d.pointers.clone() {
            let good = d.rig.load(at);
            for bit in reserved() {
                d.faults_with(at, good | bit, causes.misconfigured);
            }
        }
    }
}

fn access_faults_of_contexts(directories: impl Iterator<Item = Directory>, causes: &Causes) {
    for mut d in directories {
        d.access_fault(d.context, causes.access_fault);
    }
}

/// Each of the `size` bytes of a context counts.
fn corrupt_contexts(directory: Directory, size: u64, causes: &Causes) {
    let mut d = directory;
    for at in (d.context..d.context + size).step_by(8) {
        d.corrupt(at, causes.corrupt);
    }
}

/// Whatever else is in a context that is not valid.
fn invalid_contexts(directory: Directory, size: u64, causes: &Causes) {
    let mut d = directory;
    let at = d.context;
    d.faults_with(at, 0, causes.invalid);
    let rest = (at + 8..at + size).step_by(8);
    for word in rest.clone() {
        d.rig.store(word, !0);
    }
    d.rig.store(at, !0);
    d.faults(causes.misconfigured);
    d.rig.store(at, !1);
    d.faults(causes.invalid);
    for word in rest {
        d.rig.store(word, 0);
    }
    d.rig.store(at, 1);
    d.passes();
}

#[test]
fn levels_of_the_device_directory() {
    for extended in [true, false] {
        for levels in 1..4 {
            for inverted in [false, true] {
                let mut d = Directory::of_device(extended, levels, inverted);
                assert_eq!(d.pointers.len() + 1, levels);
                d.reads_each_level_once();
            }
        }
    }
}

#[test]
fn access_faults_of_device_directory_pointers() {
    access_faults_of_pointers(Directory::all_of_devices(), &DDT);
}

#[test]
fn corrupt_device_directory_pointers() {
    corrupt_pointers(Directory::all_of_devices(), &DDT);
}

#[test]
fn invalid_device_directory_pointers() {
    invalid_pointers(Directory::all_of_devices(), &DDT);
}

#[test]
fn an_invalid_device_directory_pointer_has_no_reserved_bits() {
    for mut d in Directory::all_of_devices() {
        for at in d.pointers.clone() {
            let good = d.rig.load(at);
            let all = reserved().fold(good, |entry, bit| entry | bit);
            d.faults_with(at, all, DDT.misconfigured);
            d.faults_with(at, all & !1, DDT.invalid);
            for bit in reserved() {
                d.faults_with(at, (good | bit) & !1, DDT.invalid);
            }
        }
    }
}

#[test]
fn reserved_bits_of_device_directory_pointers() {
    reserved_bits_of_pointers(Directory::all_of_devices(), &DDT);
}

#[test]
fn access_faults_of_device_contexts() {
    access_faults_of_contexts(Directory::all_of_devices(), &DDT);
}

#[test]
fn corrupt_device_contexts() {
    for levels in 1..4 {
        corrupt_contexts(Directory::of_devices(true, levels), 64, &DDT);
        corrupt_contexts(Directory::of_devices(false, levels), 32, &DDT);
    }
}

#[test]
fn invalid_device_contexts() {
    for levels in 1..4 {
        invalid_contexts(Directory::of_devices(true, levels), 64, &DDT);
        invalid_contexts(Directory::of_devices(false, levels), 32, &DDT);
    }
}

#[test]
fn levels_of_the_process_directory() {
    for second in [0, SV39] {
        for (levels, mode) in [(1, pd::PD8), (2, pd::PD17), (3, pd::PD20)] {
            for inverted in [false, true] {
                let mut d = Directory::of_process(second, mode, inverted);
                assert_eq!(d.pointers.len() + 1, levels);
                d.reads_each_level_once();
            }
        }
    }
}

#[test]
fn access_faults_of_process_directory_pointers() {
    access_faults_of_pointers(Directory::all_of_processes(), &PDT);
}

#[test]
fn corrupt_process_directory_pointers() {
    corrupt_pointers(Directory::all_of_processes(), &PDT);
}

#[test]
fn invalid_process_directory_pointers() {
    invalid_pointers(Directory::all_of_processes(), &PDT);
}

#[test]
fn reserved_bits_of_process_directory_pointers() {
    reserved_bits_of_pointers(Directory::all_of_processes(), &PDT);
}

#[test]
fn access_faults_of_process_contexts() {
    access_faults_of_contexts(Directory::all_of_processes(), &PDT);
}

#[test]
fn corrupt_process_contexts() {
    for d in Directory::all_of_processes() {
        corrupt_contexts(d, 16, &PDT);
    }
}

#[test]
fn invalid_process_contexts() {
    for d in Directory::all_of_processes() {
        invalid_contexts(d, 16, &PDT);
    }
}
