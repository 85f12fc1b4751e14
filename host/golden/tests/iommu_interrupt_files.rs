//! MSI page tables and memory-resident interrupt files: one test a rule.

mod iommu_common;

use iommu_common::tables::*;
use iommu_common::*;
use tlproof_golden::iommu::{
    Injected, Mrif, MrifEffect, MrifRequest, Pbmt, SystemMemory, WideMsiMask,
};
use tlproof_pcie::PhysAddr;

const CAPS: u64 = ALL | MSI_FLAT | MSI_MRIF | AMO_MRIF;
/// The page of file 0.
const FILE: u64 = 0x1_0000 << 12;
const FILES: [u64; 8] = [0, 1, 2, 3, 8, 9, 10, 11];
const BASIC: u64 = V | 3 << 1;
const IMSIC: u64 = 0x2800_0000;

fn machine() -> Tables {
    let mut t = Tables::staged(CAPS, 0, 0, 8);
    t.interrupts();
    for number in 0..8 {
        t.msi_pte(number, [pte(IMSIC + (number << 12), BASIC), u64::MAX]);
    }
    t
}

/// §2.1.3.6, §2.3.3 steps 3 to 7 and 13: matching pages, file numbers, the address; the second
/// doubleword of a basic PTE is ignored.
#[test]
fn basic_translation() {
    let t = machine();
    for (number, page) in (0..).zip(FILES) {
        let translation = t.ok(&write(FILE + (page << 12) + 4));
        assert_eq!(translation.spa.0, IMSIC + (number << 12) + 4);
        assert_eq!(translation.page_size, 4096);
        assert!(translation.is_msi && translation.mrif.is_none());
        assert_eq!(translation.pbmt, Pbmt::Pma);
        assert_eq!(t.cause(&read(FILE + (page << 12))), 0, "reads too");
    }
    for page in [4, 7, 12, 16] {
        let fault = t.fault(&write(FILE + (page << 12)));
        assert_eq!(fault.cause(), 23, "no match: the second stage");
    }
}

/// §2.1.3.5: msiptp.MODE Off does not look for interrupt files.
#[test]
fn off() {
    let mut t = machine();
    t.dc[4] = MSI_TABLE >> 12;
    t.store_dc();
    assert_eq!(t.cause(&write(FILE)), 23);
}

/// §2.3 step 18: the guest address is that of the first stage.
#[test]
fn behind_the_first_stage() {
    let mut t = Tables::staged(CAPS, 0, 8, 8);
    t.interrupts();
    t.msi_pte(0, [pte(IMSIC, BASIC), 0]);
    t.map(IOVA, pte(FILE, RWX | 2 << 61));
    let translation = t.ok(&write(IOVA + 8));
    assert_eq!((translation.spa.0, translation.pbmt), (IMSIC + 8, Pbmt::Io));
    t.map(IOVA, pte(FILE, RWX & !W));
    assert_eq!(t.cause(&write(IOVA)), 15, "the first stage is asked first");
}

/// §2.3.3 steps 7 to 14: the checks of an MSI PTE in their order.
#[test]
fn checks_of_the_entry() {
    let good = pte(IMSIC, BASIC);
    let mrif = V | 1 << 1 | FRAME >> 9 << 7;
    let notice = IMSIC >> 12 << 10 | 5;
    let cases: &[([u64; 2], u16)] = &[
        ([good, 0], 0),
        ([good & !V, 0], 262),
        ([0, 0], 262),
        ([(good & !V) | 1 << 54, 0], 262),
        ([good | 1 << 63, 0], 263),
        ([V, 0], 263),
        ([V | 2 << 1, 0], 263),
        ([good | 1 << 3, 0], 263),
        ([good | 1 << 9, 0], 263),
        ([good | 1 << 54, 0], 263),
        ([good | 1 << 62, 0], 263),
        ([mrif, notice], 0),
        ([mrif | 1 << 3, notice], 263),
        ([mrif | 1 << 6, notice], 263),
        ([mrif | 1 << 54, notice], 263),
        ([mrif, notice | 1 << 54], 263),
        ([mrif, notice | 1 << 59], 263),
        ([mrif, notice | 1 << 60], 0),
        ([mrif, notice | 1 << 61], 263),
        ([mrif, notice | 1 << 63], 263),
    ];
    let mut t = machine();
    for (words, cause) in cases {
        t.msi_pte(0, *words);
        assert_eq!(t.cause(&write(FILE)), *cause, "{words:x?}");
    }
    t.iommu.capabilities.msi_mrif = false;
    t.msi_pte(0, [mrif, notice]);
    assert_eq!(t.cause(&write(FILE)), 263, "MRIF needs its capability");
    t.memory.inject(MSI_TABLE + 8, Injected::AccessFault);
    assert_eq!(t.cause(&write(FILE)), 261);
    t.memory.inject(MSI_TABLE + 8, Injected::Poison);
    assert_eq!(t.cause(&write(FILE)), 270);
}

/// §2.3.3 step 15: no execution, in either mode, whatever the second stage is.
#[test]
fn execution_is_an_access_fault() {
    let mut t = machine();
    assert_eq!(t.fault(&execute(FILE)).cause(), 1);
    t.msi_pte(0, [V | 1 << 1, 0]);
    assert_eq!(t.fault(&execute(FILE)).cause(), 1);
    t.msi_pte(0, [0, 0]);
    assert_eq!(
        t.fault(&execute(FILE)).cause(),
        262,
        "after the other checks"
    );
}

/// §2.3.3 step 7: the table's address and the index are joined by OR.
#[test]
fn index_is_joined_by_or() {
    let mut t = machine();
    t.dc[4] = 1 << 60 | (MSI_TABLE + 0x1000) >> 12;
    t.dc[5] = 0x1ff;
    t.dc[6] = 0x1_0000;
    t.store_dc();
    t.memory.set(MSI_TABLE + 0x1000, pte(IMSIC, BASIC));
    // File 0x100 of a table that is not aligned to its size.
    assert_eq!(t.ok(&write(FILE + (0x100 << 12))).spa.0, IMSIC);
}

/// §2.1.3.6: bits of mask and pattern beyond the width of guest addresses.
#[test]
fn wide_mask() {
    for (choice, read_cause) in [
        (WideMsiMask::Misconfigured, 259),
        (WideMsiMask::Masked, 0),
        (WideMsiMask::Used, 23),
    ] {
        let mut t = machine();
        t.iommu.choices.wide_msi_mask = choice;
        t.dc[6] |= 1 << 47;
        t.store_dc();
        assert_eq!(t.cause(&write(FILE)), read_cause, "{choice:?}");
    }
    let mut t = machine();
    t.dc[6] |= 1 << 46;
    t.store_dc();
    assert_eq!(t.cause(&write(FILE)), 23, "within Sv57x4");
}

/// §2.1.4: a table without a second stage is refused, or used, by choice.
#[test]
fn without_a_second_stage() {
    let mut t = Tables::new(CAPS);
    t.interrupts();
    t.msi_pte(0, [pte(IMSIC, BASIC), 0]);
    assert_eq!(t.cause(&write(FILE)), 259);
    t.iommu.choices.msi_needs_second_stage = false;
    assert_eq!(t.ok(&write(FILE)).spa.0, IMSIC);
    assert_eq!(t.ok(&write(FILE + 0x4000)).spa.0, FILE + 0x4000);
}

/// AIA §9.5.1: the address is clipped to the physical address space, or faults.
#[test]
fn wide_page() {
    let mut t = machine();
    t.iommu.capabilities.pas = 40;
    t.msi_pte(0, [pte(1 << 45 | IMSIC, BASIC), 0]);
    assert_eq!(t.ok(&write(FILE)).spa.0, IMSIC);
    t.iommu.choices.msi_address_clipped = false;
    assert_eq!(t.cause(&write(FILE)), 7);
}

/// The size of a translation holds no page of an interrupt file.
#[test]
fn size_is_bounded_by_interrupt_files() {
    let mut t = machine();
    let at = t.guest_slot(FILE, 2);
    t.memory.set(at, pte(0x4000_0000, RWX));
    for (page, size) in [
        (4, 4u64),
        (7, 4),
        (12, 4),
        (16, 16),
        (0x40, 0x40),
        (0x3000, 0x2000),
    ] {
        let translation = t.ok(&read(FILE + (page << 12)));
        assert_eq!(translation.page_size, size << 12, "page {page:#x}");
        let first = ((FILE >> 12) + page) & !(size - 1);
        for p in first..first + size {
            assert!(!t.ok(&read(p << 12)).is_msi);
        }
        // No larger block would do.
        let first = first & !(2 * size - 1);
        let mut pages = first..first + 2 * size;
        let is_file = |p: u64| FILES.contains(&p.wrapping_sub(FILE >> 12));
        assert!(pages.any(is_file), "page {page:#x}");
    }
}

/// §2.8: MSI page tables are of the order of fctl.BE.
#[test]
fn big_endian_table() {
    let mut t = Tables::new(CAPS);
    t.iommu.fctl = 1;
    t.dc[0] |= tc::SBE;
    t.dc[1] = 8 << 60 | GUEST >> 12;
    t.interrupts();
    t.msi_pte(0, [pte(IMSIC, BASIC).swap_bytes(), 0]);
    assert_eq!(t.ok(&write(FILE)).spa.0, IMSIC);
}

/// §2.3.3 step 14: the file, the address of the notice and its value.
#[test]
fn mrif_mode() {
    let mut t = machine();
    let file = FRAME + 0x600;
    t.msi_pte(
        3,
        [
            V | 1 << 1 | file >> 9 << 7,
            IMSIC >> 12 << 10 | 1 << 60 | 0x155,
        ],
    );
    let translation = t.ok(&write(FILE + 0x3000));
    assert!(translation.is_msi);
    assert_eq!(
        translation.mrif,
        Some(Mrif {
            address: PhysAddr(file),
            notice_address: PhysAddr(IMSIC),
            notice_id: 0x555,
        })
    );
    assert_eq!(translation.spa.0, file);
}

fn store(t: &mut Tables, gpa: u64, request: MrifRequest) -> MrifEffect {
    let mrif = Mrif {
        address: PhysAddr(FRAME),
        notice_address: PhysAddr(FRAME + 0x1000),
        notice_id: 0x7ff,
    };
    let (caps, choices) = (t.iommu.capabilities, t.iommu.choices.clone());
    mrif.access(&mut t.memory, &caps, &choices, gpa, request)
}

/// AIA §9.3.1, §9.5.2: identities 0 to 2047, their pending bits, and a notice for each, whether
/// enabled or not.
#[test]
fn stores_to_an_interrupt_file() {
    for atomic in [true, false] {
        for id in [0u32, 1, 63, 64, 130, 2047] {
            let mut t = Tables::new(CAPS);
            t.iommu.capabilities.amo_mrif = atomic;
            let word = FRAME + u64::from(id / 64) * 16;
            t.memory.set(word, 1 << 5);
            t.memory.set(word + 8, 0x1234); // the enable bits
            t.memory.set(FRAME + 0x1000, u64::MAX);
            let effect = store(&mut t, FILE, MrifRequest::Write(&id.to_le_bytes()));
            assert_eq!(
                effect,
                MrifEffect::Recorded {
                    pending: word,
                    mask: 1 << (id % 64),
                    notice: (FRAME + 0x1000, 0x7ff),
                }
            );
            assert_eq!(t.memory.get(word), 1 << 5 | 1 << (id % 64));
            assert_eq!(t.memory.get(word + 8), 0x1234);
            assert_eq!(
                t.memory.get(FRAME + 0x1000),
                0xffff_ffff_0000_07ff,
                "four bytes, little-endian"
            );
        }
    }
}

/// AIA §9.5.2: bit 2 of the address tells the byte order.
#[test]
fn big_endian_msis() {
    let mut t = Tables::new(CAPS);
    let effect = store(&mut t, FILE + 4, MrifRequest::Write(&[0, 0, 0, 9]));
    assert!(matches!(effect, MrifEffect::Recorded { mask: 0x200, .. }));
    assert_eq!(
        store(&mut t, FILE, MrifRequest::Write(&[0, 0, 0, 9])),
        MrifEffect::Discarded
    );
    t.iommu.choices.mrif_big_endian = false;
    assert_eq!(
        store(&mut t, FILE + 4, MrifRequest::Write(&[0, 0, 0, 9])),
        MrifEffect::Discarded
    );
}

/// AIA §9.5.2: other accesses are discarded, answered by 0 or aborted.
#[test]
fn other_accesses_to_an_interrupt_file() {
    let id = 9u32.to_le_bytes();
    let mut t = Tables::new(CAPS);
    for (gpa, request, effect) in [
        (FILE + 8, MrifRequest::Write(&id), MrifEffect::Discarded),
        (FILE + 0xffc, MrifRequest::Write(&id), MrifEffect::Discarded),
        (
            FILE,
            MrifRequest::Write(&2048u32.to_le_bytes()),
            MrifEffect::Discarded,
        ),
        (FILE + 2, MrifRequest::Write(&id), MrifEffect::Aborted),
        (FILE, MrifRequest::Write(&id[..2]), MrifEffect::Aborted),
        (FILE, MrifRequest::Write(&[0; 8]), MrifEffect::Aborted),
        (FILE, MrifRequest::Read(4), MrifEffect::Zero),
        (FILE + 0xffc, MrifRequest::Read(4), MrifEffect::Zero),
        (FILE + 1, MrifRequest::Read(4), MrifEffect::Aborted),
        (FILE, MrifRequest::Read(8), MrifEffect::Aborted),
        (FILE, MrifRequest::Other, MrifEffect::Aborted),
    ] {
        assert_eq!(store(&mut t, gpa, request), effect, "{gpa:#x} {request:?}");
    }
    assert_eq!((t.memory.get(FRAME), t.memory.get(FRAME + 0x1000)), (0, 0));
    t.iommu.choices.mrif_read_returns_zero = false;
    assert_eq!(
        store(&mut t, FILE, MrifRequest::Read(4)),
        MrifEffect::Aborted
    );
}

/// §3.2: causes 264, 271 and, for the notice, 273.
#[test]
fn faults_of_an_interrupt_file() {
    let id = 9u32.to_le_bytes();
    let mut t = Tables::new(CAPS);
    t.memory.inject(FRAME, Injected::AccessFault);
    assert_eq!(
        store(&mut t, FILE, MrifRequest::Write(&id)),
        MrifEffect::Fault(264)
    );
    t.memory.inject(FRAME, Injected::Poison);
    assert_eq!(
        store(&mut t, FILE, MrifRequest::Write(&id)),
        MrifEffect::Fault(271)
    );
    t.memory.heal();
    assert_eq!(t.memory.load(FRAME + 0x1000), Ok(0), "no notice then");
    t.memory.inject(FRAME + 0x1000, Injected::AccessFault);
    assert_eq!(
        store(&mut t, FILE, MrifRequest::Write(&id)),
        MrifEffect::NoticeFault(FRAME + 0x1000)
    );
    assert_eq!(t.memory.get(FRAME), 1 << 9, "the interrupt stays pending");
}
