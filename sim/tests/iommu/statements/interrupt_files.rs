//! Memory-resident interrupt files: AIA §9.3.

use crate::rig::{Answer, Context, Mrif, Request, Rig, Ttyp, Vm};
use crate::tables::SV39;
use crate::watchdog;

const DEVICE: u32 = 5;
/// Page of the guest's interrupt file.
const PAGE: u64 = 0x2800_0000;
/// Where the notice goes, and what it says.
const NOTICE: u64 = 0x2400_5000;
const ID: u64 = 0x7a5;
/// Offset of `seteipnum_be`; that of `seteipnum_le` is 0.
const BIG: u64 = 4;
/// Atomic OR, as the memory port encodes it.
const OR: u64 = 3;

/// A guest's interrupt file in memory.
struct Setup {
    rig: Rig,
    file: u64,
    answer: Answer,
}

impl Setup {
    /// With `fctl.BE`.
    fn new(be: bool) -> Self {
        Self::with_notice(be, NOTICE)
    }

    /// With the page of the notice.
    fn with_notice(be: bool, page: u64) -> Self {
        let mut rig = Rig::new(81);
        rig.set_fctl(be.into());
        let vm = Vm::with(&mut rig, 0, SV39, false, [be; 2]);
        let table = rig.page();
        let file = rig.page() + 0x600;
        rig.store_as(table, file >> 9 << 7 | 1 << 1 | 1, be);
        let notice = page >> 12 << 10 | ID & 0x3ff | ID >> 10 << 60;
        rig.store_as(table + 8, notice, be);
        let context = Context {
            msi: [1 << 60 | table >> 12, 0, PAGE >> 12],
            ..Context::of(&vm)
        };
        rig.directory(&[DEVICE], context);
        let answer = rig.translate(Self::request(0));
        assert!(answer.is_mrif);
        Self { rig, file, answer }
    }

    fn request(offset: u64) -> Request {
        Request::new(Ttyp::UntransWr, DEVICE, PAGE + offset)
    }

    fn write(&self, offset: u64, data: u32) -> Mrif {
        Mrif {
            request: Self::request(offset),
            answer: self.answer,
            data,
        }
    }

    fn store(&mut self, offset: u64, data: u32) {
        let write = self.write(offset, data);
        self.rig.store_msi(&write);
    }

    /// Doublewords of the file, and those beside it.
    fn memory(&self) -> Vec<u64> {
        let all = self.file - 0x200..self.file + 0x400;
        all.step_by(8).map(|at| self.rig.load(at)).collect()
    }

    /// Address of the doubleword with the pending bit of an identity.
    fn pending(&self, identity: u32) -> u64 {
        self.file + 16 * u64::from(identity / 64)
    }

    /// The write has no effect: no access, no fault.
    fn is_discarded(&mut self, offset: u64, data: u32) {
        let before = self.memory();
        self.store(offset, data);
        assert_eq!(self.rig.accesses, [], "{offset:#x} {data:#x}");
        assert_eq!(self.memory(), before);
    }

    /// The write is an MSI of this identity.
    fn is_msi(&mut self, offset: u64, data: u32, identity: u32) {
        let at = self.pending(identity);
        self.rig.store(at, 0);
        let mut expected = self.memory();
        expected[((at - (self.file - 0x200)) / 8) as usize] = 1 << (identity % 64);
        self.rig.store(NOTICE, 0);
        self.store(offset, data);
        assert_eq!(self.memory(), expected, "{offset:#x} {data:#x}");
        assert_eq!(self.rig.load(NOTICE), ID);
    }
}

/// The same data, in little-endian and in big-endian.
#[test]
fn a_store_to_seteipnum_be_is_big_endian() {
    let mut s = Setup::new(false);
    for identity in (0..11).map(|bit| 1 << bit).chain([0, 0x2a5, 0x7ff]) {
        s.is_msi(0, identity, identity);
        s.is_msi(BIG, identity.swap_bytes(), identity);
        // In the other order it is beyond the identities, but 0.
        if identity.swap_bytes() > 2047 {
            s.is_discarded(0, identity.swap_bytes());
            s.is_discarded(BIG, identity);
        }
    }
}

#[test]
fn other_stores_to_the_page_have_no_effect() {
    let mut s = Setup::new(false);
    for offset in (8..4096).step_by(4) {
        s.is_discarded(offset, 7);
        s.is_discarded(offset, 7 << 24);
    }
    s.is_msi(0, 7, 7);
    s.is_msi(BIG, 7 << 24, 7);
    assert_eq!(s.rig.records(), []);
}

#[test]
fn data_that_is_no_identity_has_no_effect() {
    let mut s = Setup::new(false);
    for bit in 11..32 {
        for low in [0, 7, 0x7ff] {
            let data: u32 = 1 << bit | low;
            s.is_discarded(0, data);
            s.is_discarded(BIG, data.swap_bytes());
        }
    }
    s.is_discarded(0, u32::MAX);
    s.is_msi(0, 0x7ff, 0x7ff);
    assert_eq!(s.rig.records(), []);
}

/// Its own and no other, in little-endian doublewords, whatever fctl.BE.
#[test]
fn an_msi_sets_the_pending_bit_of_its_identity() {
    for be in [false, true] {
        let mut s = Setup::new(be);
        for identity in 0..2048 {
            s.is_msi(0, identity, identity);
        }
        // What is pending stays so.
        let at = s.pending(100);
        s.rig.store(at, 0x8000_0000_0000_0001);
        s.store(0, 100);
        assert_eq!(s.rig.load(at), 0x8000_0000_0000_0001 | 1 << 36);
    }
}

/// What a hart stores right before is not lost, be it a bit that it sets or that it clears.
#[test]
fn the_bit_is_set_by_an_atomic_or() {
    let mut s = Setup::new(false);
    let at = s.pending(70);
    for other in [0xf0, 0] {
        s.rig.store(at, 0xff00);
        s.rig.race = Some((at, other));
        s.store(0, 70);
        assert_eq!(s.rig.race, None);
        assert_eq!(s.rig.load(at), other | 1 << 6);
        let kinds: Vec<(u64, u64)> = s.rig.accesses.iter().map(|a| (a.op, a.addr)).collect();
        assert_eq!(kinds, [(OR, at), (1, NOTICE)]);
    }
}

#[test]
fn the_notice_is_sent_after_the_bit_whether_enabled_or_not() {
    let mut s = Setup::new(false);
    let at = s.pending(70);
    for enable in [0, 1 << 6, !0] {
        s.rig.store(at, 0);
        s.rig.store(at + 8, enable);
        s.rig.store(NOTICE, 0);
        s.rig.held = Some(at);
        let write = s.write(0, 70);
        s.rig.begin_msi(&write);
        s.rig.run(500);
        assert_eq!(s.rig.accesses.len(), 1);
        assert_eq!((s.rig.load(at), s.rig.load(NOTICE)), (1 << 6, 0));
        s.rig.held = None;
        s.rig.run(100);
        assert_eq!(s.rig.accesses.len(), 2);
        assert_eq!(s.rig.load(NOTICE), ID);
        assert_eq!(s.rig.load(at + 8), enable);
        // Also if it is pending already.
        s.rig.store(NOTICE, 0);
        s.store(0, 70);
        assert_eq!(s.rig.load(NOTICE), ID);
    }
}

#[test]
fn a_file_that_does_not_answer_ends_the_simulation() {
    let mut s = Setup::new(false);
    s.rig.held = Some(s.pending(70));
    let write = s.write(0, 70);
    watchdog::names("gen_mrif.u_mrif", &mut s.rig, |rig| rig.begin_msi(&write));
}

/// Whatever fctl.BE, and whatever the byte order of the MSI.
#[test]
fn the_notice_is_a_little_endian_store_of_4_bytes() {
    for be in [false, true] {
        let mut s = Setup::new(be);
        for (offset, data) in [(0, 7), (BIG, 7 << 24)] {
            for at in [NOTICE - 8, NOTICE, NOTICE + 8] {
                s.rig.store(at, !0);
            }
            s.store(offset, data);
            let words = [NOTICE - 8, NOTICE, NOTICE + 8].map(|at| s.rig.load(at));
            assert_eq!(words, [!0, !0 << 32 | ID, !0]);
        }
    }
}

/// Of the request that was to be stored; there is no notice.
#[test]
fn an_access_fault_of_the_file_is_cause_264() {
    let mut s = Setup::new(false);
    s.store(0, 70);
    assert_eq!(s.rig.records(), []);
    s.rig.store(NOTICE, 0);
    s.rig.broken.insert(s.file & !0xfff);
    for (offset, data) in [(0, 70), (BIG, 70 << 24)] {
        s.store(offset, data);
        assert_eq!(s.rig.accesses.len(), 1);
        let records = s.rig.records();
        assert_eq!(records.len(), 1);
        let record = records[0];
        assert_eq!((record.cause, record.ttyp), (264, Ttyp::UntransWr as u64));
        assert_eq!(record.device_id, u64::from(DEVICE));
        assert_eq!((record.iotval, record.process_id), (PAGE + offset, None));
    }
    assert_eq!(s.rig.load(NOTICE), 0);
    s.rig.broken.clear();
    s.store(0, 71);
    assert_eq!(s.rig.records(), []);
}

/// As a message of the IOMMU (IOMMU §5.29), with the whole address of its page.
#[test]
fn an_access_fault_of_the_notice_is_cause_273() {
    for page in [0xa5_5a5a_a5a5_5000, 0x5a_a5a5_5a5a_a000] {
        let mut s = Setup::with_notice(false, page);
        s.rig.broken.insert(page);
        s.store(0, 70);
        assert_eq!(s.rig.load(s.pending(70)), 1 << 6);
        let records = s.rig.records();
        assert_eq!(records.len(), 1);
        let record = records[0];
        assert_eq!((record.cause, record.ttyp, record.iotval), (273, 0, page));
    }
}
