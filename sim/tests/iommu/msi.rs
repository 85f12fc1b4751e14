//! MSI page tables beside a second stage, and memory-resident interrupt files (IOMMU §2.3.3, AIA).

use crate::rig::{Context, Mrif, Request, Rig, Ttyp, Vm};
use crate::tables::{SV39, pte, tc};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
/// Interrupt files 0 to 7 of the guest; the files' numbers are bits 14:12 of the address.
const FILES: u64 = 0x2800_0000;
const MASK: u64 = 7;
const IMSIC: u64 = 0x2400_0000;

struct Setup {
    rig: Rig,
    vm: Vm,
    table: u64,
    ddt: u64,
    context: Context,
}

impl Setup {
    fn new(bits: u64) -> Self {
        let mut rig = Rig::new(11);
        let mut vm = Vm::new(&mut rig, SV39, SV39);
        let table = rig.page();
        let context = Context {
            msi: [1 << 60 | table >> 12, MASK, FILES >> 12],
            ..Context::of(&vm).tc(bits)
        };
        for file in 0..8 {
            vm.map_first(
                &mut rig,
                IOVA + (file << 12),
                0,
                pte::at(FILES + (file << 12), pte::ALL),
            );
        }
        let ddt = rig.directory(&[DEVICE], context);
        Self {
            rig,
            vm,
            table,
            ddt,
            context,
        }
    }

    fn entry(&mut self, file: u64, words: [u64; 2]) {
        self.rig.store(self.table + 16 * file, words[0]);
        self.rig.store(self.table + 16 * file + 8, words[1]);
    }
}

fn write(iova: u64) -> Request {
    Request::new(Ttyp::UntransWr, DEVICE, iova)
}

fn basic(page: u64) -> [u64; 2] {
    [page >> 12 << 10 | 3 << 1 | 1, 0]
}

fn mrif(file: u64, notice: u64, id: u64) -> [u64; 2] {
    let id = (id & 0x3ff) | id >> 10 << 60;
    [file >> 9 << 7 | 1 << 1 | 1, notice >> 12 << 10 | id]
}

/// An MSI PTE stands for a second-stage entry without a memory type: that of the first stage holds
/// (Privileged, Svpbmt with two stages).
#[test]
fn memory_type_of_the_first_stage() {
    let mut s = Setup::new(0);
    s.entry(0, basic(IMSIC));
    for pbmt in 0..3 {
        let leaf = pte::at(FILES, pte::ALL | pbmt << pte::PBMT);
        s.vm.map_first(&mut s.rig, IOVA, 0, leaf);
        s.rig.forget();
        for _ in 0..2 {
            let answer = s.rig.translate(write(IOVA));
            assert_eq!((answer.spa, answer.pbmt), (IMSIC, pbmt));
        }
    }
}

#[test]
fn basic_entries_replace_the_second_stage() {
    let mut s = Setup::new(0);
    for file in 0..8 {
        s.entry(file, basic(IMSIC + (file << 12)));
        for _ in 0..2 {
            let answer = s.rig.translate(write(IOVA + (file << 12) + 4));
            assert_eq!(answer.spa, IMSIC + (file << 12) + 4);
            assert!(answer.is_msi && !answer.is_mrif);
            assert_eq!(answer.size, 4096);
        }
    }
    // Beside the files the second stage decides.
    s.vm.map_first(
        &mut s.rig,
        IOVA + 0x8000,
        0,
        pte::at(FILES + 0x8000, pte::ALL),
    );
    s.rig.fault(write(IOVA + 0x8000), 23);
    s.rig.fault(Request::new(Ttyp::UntransRx, DEVICE, IOVA), 1);
}

/// A translation never covers the page of an interrupt file beside its own.
#[test]
fn large_pages_around_interrupt_files() {
    let mut s = Setup::new(0);
    let base = FILES & !0x1f_ffff;
    s.vm.map_first(&mut s.rig, 4 << 30, 1, pte::at(base, pte::ALL));
    s.vm.map_second(&mut s.rig, base, 1, pte::at(0x1_0020_0000, pte::ALL));
    s.entry(0, basic(IMSIC));
    let answer = s.rig.translate(write((4 << 30) + 0x8000));
    assert_eq!((answer.spa, answer.size), (0x1_0020_8000, 0x1000));
    let answer = s.rig.translate(write((4 << 30) + 0x1_0000));
    assert_eq!((answer.spa, answer.size), (0x1_0021_0000, 0x1_0000));
    let answer = s.rig.translate(write(4 << 30));
    assert_eq!((answer.spa, answer.is_msi), (IMSIC, true));
}

#[test]
fn entries_are_checked() {
    let mut s = Setup::new(0);
    let good = basic(IMSIC);
    let file = mrif(0x8_0000_0200, IMSIC, 5);
    s.entry(0, [good[0] & !1, 0]);
    s.rig.fault(write(IOVA), 262);
    let mut bad = vec![
        [good[0] & !6, 0],
        [good[0] & !6 | 4, 0],
        [good[0] | 1 << 63, 0],
        [file[0] | 1 << 63, file[1]],
    ];
    bad.extend((3..10).chain(54..63).map(|bit| [good[0] | 1 << bit, 0]));
    bad.extend(
        (3..7)
            .chain(54..63)
            .map(|bit| [file[0] | 1 << bit, file[1]]),
    );
    bad.extend(
        (54..60)
            .chain(61..64)
            .map(|bit| [file[0], file[1] | 1 << bit]),
    );
    for words in bad {
        s.entry(0, words);
        s.rig.fault(write(IOVA), 263);
    }
    s.entry(0, good);
    s.rig.broken.insert(s.table);
    s.rig.fault(write(IOVA), 261);
    s.rig.broken.clear();
    s.rig.corrupt.insert(s.table);
    s.rig.fault(write(IOVA), 270);
}

#[test]
fn memory_resident_files() {
    let mut s = Setup::new(0);
    let file = s.rig.page() + 0x200;
    s.entry(3, mrif(file, IMSIC + 0x5000, 0x7a5));
    let request = write(IOVA + 0x3000);
    let answer = s.rig.translate(request);
    assert!(answer.is_mrif && answer.is_msi);
    assert_eq!(
        (answer.mrif, answer.notice, answer.notice_id),
        (file, IMSIC + 0x5000, 0x7a5)
    );
    for identity in [0, 1, 63, 64, 1000, 2047] {
        let msi = Mrif {
            request,
            answer,
            data: identity,
        };
        let at = file + u64::from(identity / 64) * 16;
        let old = s.rig.load(at);
        s.rig.store_msi(&msi);
        assert_eq!(s.rig.load(at), old | 1 << (identity % 64));
        let ops: Vec<(u64, u64, u64)> = s
            .rig
            .accesses
            .iter()
            .map(|a| (a.op, a.addr, a.data))
            .collect();
        assert_eq!(
            ops,
            [(3, at, 1 << (identity % 64)), (1, IMSIC + 0x5000, 0x7a5)]
        );
        // The same in the big-endian register.
        let swapped = Mrif {
            request: write(IOVA + 0x3004),
            data: identity.swap_bytes(),
            ..msi
        };
        s.rig.store(at, 0);
        s.rig.store_msi(&swapped);
        assert_eq!(s.rig.load(at), 1 << (identity % 64));
    }
    // Not an identity, not a register for MSIs: accepted and discarded.
    for (offset, data) in [(0, 2048), (0, 1 << 31), (8, 1), (0x800, 1), (4, 1)] {
        s.rig.store_msi(&Mrif {
            request: write(IOVA + 0x3000 + offset),
            answer,
            data,
        });
        assert_eq!(s.rig.accesses, []);
    }
    assert_eq!(s.rig.records(), []);
}

#[test]
fn faults_of_memory_resident_files() {
    let mut s = Setup::new(0);
    let file = s.rig.page();
    s.entry(0, mrif(file, IMSIC, 1));
    let request = write(IOVA);
    let answer = s.rig.translate(request);
    let msi = Mrif {
        request,
        answer,
        data: 7,
    };
    s.rig.broken.insert(file);
    s.rig.store_msi(&msi);
    assert_eq!(s.rig.accesses.len(), 1, "no notice");
    let record = s.rig.records()[0];
    assert_eq!((record.cause, record.ttyp, record.iotval), (264, 3, IOVA));
    s.rig.broken.clear();
    s.rig.corrupt.insert(file);
    s.rig.store_msi(&msi);
    assert_eq!(s.rig.records()[0].cause, 271);
    s.rig.corrupt.clear();
    s.rig.broken.insert(IMSIC);
    s.rig.store_msi(&msi);
    let record = s.rig.records()[0];
    assert_eq!((record.cause, record.ttyp, record.iotval), (273, 0, IMSIC));
    // DTF hides the first.
    s.rig.broken.insert(file);
    let context = s.context.tc(tc::DTF);
    s.rig.set_context(s.ddt, DEVICE, context);
    let answer = s.rig.translate(request);
    assert!(answer.dtf);
    s.rig.store_msi(&Mrif { answer, ..msi });
    assert_eq!(s.rig.records(), []);
}
