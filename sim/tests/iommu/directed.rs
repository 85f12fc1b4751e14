//! One property of the translation process at a time.

use tlproof_golden::iommu::{Field, Outcome, Pbmt, Request, Status, TransactionType};
use tlproof_pcie::PhysAddr;

use crate::bench::{Answer, Bench, command, reg};
use crate::tables::{Directory, SV39, SV48, SV57, Space, pte, span, tc};

const DEVICE: u32 = 0x0120;
const IOVA: u64 = 0x12_3456_7000;
const PAGE: u64 = 0x9_8765_4000;

/// An IOMMU in 3LVL mode with one device in an Sv39 space, and a read-write page for it.
pub struct Setup {
    pub bench: Bench,
    pub directory: Directory,
    pub space: Space,
}

impl Setup {
    pub fn new() -> Self {
        Self::with(SV39)
    }

    fn with(mode: u64) -> Self {
        let mut bench = Bench::new(7);
        let mut directory = Directory::new(&mut bench);
        let space = Space::new(&mut bench, 5, mode);
        directory.set(&mut bench, DEVICE, space.context());
        directory.activate(&mut bench, 3);
        space.map(&mut bench, IOVA, 0, pte::at(PAGE, pte::ALL));
        Self {
            bench,
            directory,
            space,
        }
    }

    /// Sets the leaf of [`IOVA`] and makes the IOMMU forget the old one.
    pub fn leaf(&mut self, leaf: u64) {
        self.space.map(&mut self.bench, IOVA, 0, leaf);
        self.forget();
    }

    /// Sets the context of [`DEVICE`] and makes the IOMMU forget the old one.
    fn context(&mut self, context: [u64; 4]) {
        self.directory.set(&mut self.bench, DEVICE, context);
        self.forget();
    }

    fn forget(&mut self) {
        self.bench
            .sync(&[command::iotinval(None, None), command::iodir(None)]);
    }

    pub fn read(&mut self, iova: u64) -> Answer {
        self.bench.translate(read(iova))
    }

    /// The answer must be this fault, with this record or none.
    fn expect(&mut self, request: Request, cause: u16, recorded: bool) {
        let answer = self.bench.translate(request);
        assert_eq!(answer.actual.cause, cause, "{request:x?}");
        assert_eq!(answer.actual.status, Status::UnsupportedRequest);
        let records = self.bench.check_faults();
        assert_eq!(records.len(), usize::from(recorded), "cause {cause}");
        for record in records {
            assert_eq!(record.cause, cause);
            assert_eq!(record.ttyp, request.ttyp as u8);
            assert_eq!(record.device_id, request.device_id);
            assert_eq!(record.process_id, request.process_id);
            assert_eq!(record.iotval, request.iova);
        }
    }
}

fn of(ttyp: TransactionType, iova: u64) -> Request {
    Request {
        ttyp,
        ..Request::untranslated(DEVICE, iova, false)
    }
}

pub fn read(iova: u64) -> Request {
    Request::untranslated(DEVICE, iova, false)
}

/// The three kinds of access with their page faults and access faults.
const KINDS: [(TransactionType, u16, u16); 3] = [
    (TransactionType::UntranslatedRead, 13, 5),
    (TransactionType::UntranslatedWrite, 15, 7),
    (TransactionType::UntranslatedExecute, 12, 1),
];

#[test]
fn every_page_size() {
    for mode in [SV39, SV48, SV57] {
        let mut s = Setup::with(mode);
        let mut iova = 0x11 << 30;
        for level in 0..s.space.levels() {
            for napot in [false, true] {
                if napot && level > 0 {
                    continue;
                }
                // A region of its own at every level.
                iova += (1 << (12 + 9 * level)) + (1 << 16);
                let mut leaf = pte::ALL | 1 << pte::PBMT;
                if napot {
                    leaf |= pte::N | 8 << 10;
                }
                let size = span(level, leaf);
                let first = iova & !(size - 1);
                let spa = (0xab_cdef << 32 | 0x7654_0000) & !(size - 1) & ((1 << 56) - 1);
                s.space.map(&mut s.bench, first, level, pte::at(spa, leaf));
                // A walk, then hits.
                for at in [size / 2, 0, size - 1, 0x1234] {
                    let at = at % size;
                    let answer = s.read(first + at);
                    assert_eq!(answer.actual.spa, PhysAddr(spa + at), "{mode} {level}");
                    assert_eq!(answer.actual.pbmt, 1);
                    let Ok(Outcome::Ok(t)) = answer.verdict else {
                        panic!("{answer:x?}");
                    };
                    assert_eq!(t.page_size, size);
                }
                iova = first + size;
            }
        }
    }
}

#[test]
fn memory_types_and_the_reserved_one() {
    let mut s = Setup::new();
    for (bits, expected) in [(0, Pbmt::Pma), (1, Pbmt::Nc), (2, Pbmt::Io)] {
        s.leaf(pte::at(PAGE, pte::ALL | bits << pte::PBMT));
        for _ in 0..2 {
            assert_eq!(s.read(IOVA).actual.pbmt, expected as u8);
        }
    }
    s.leaf(pte::at(PAGE, pte::ALL | 3 << pte::PBMT));
    s.expect(read(IOVA), 13, true);
}

#[test]
fn page_faults() {
    let mut s = Setup::new();
    let all = pte::at(PAGE, pte::ALL);
    let mut bad = vec![
        all & !pte::V,
        all & !pte::U,
        all & !pte::A,
        all & !(pte::R | pte::X),
        all & !(pte::R | pte::W | pte::X),
        all | pte::N,
    ];
    bad.extend((54..61).map(|bit| all | 1 << bit));
    for leaf in bad {
        s.leaf(leaf);
        for (ttyp, page_fault, _) in KINDS {
            s.expect(of(ttyp, IOVA), page_fault, true);
        }
    }
    // Each access needs its own permission, and D for a write.
    let lacks = [(pte::R | pte::W, 0), (pte::W, 1), (pte::X, 2), (pte::D, 1)];
    for (bits, kind) in lacks {
        s.leaf(all & !bits);
        let (ttyp, page_fault, _) = KINDS[kind];
        s.expect(of(ttyp, IOVA), page_fault, true);
    }
    // A misaligned superpage, and an address that is not canonical.
    s.space
        .map(&mut s.bench, IOVA + (1 << 32), 1, all | 1 << 10);
    s.space
        .map(&mut s.bench, IOVA + (2 << 32), 2, all | 1 << 19);
    for (ttyp, page_fault, _) in KINDS {
        s.expect(of(ttyp, IOVA + (1 << 32)), page_fault, true);
        s.expect(of(ttyp, IOVA + (2 << 32)), page_fault, true);
        s.expect(of(ttyp, IOVA | 1 << 45), page_fault, true);
    }
}

/// A cached translation that does not permit the access must not make a fault of a page that has
/// become writable: faults are found in memory only.
#[test]
fn more_permission_needs_no_invalidation() {
    let mut s = Setup::new();
    s.leaf(pte::at(PAGE, pte::ALL & !pte::D));
    s.read(IOVA);
    let write = Request::untranslated(DEVICE, IOVA, true);
    s.expect(write, 15, true);
    s.space.map(&mut s.bench, IOVA, 0, pte::at(PAGE, pte::ALL));
    let answer = s.bench.translate(write);
    assert_eq!(answer.actual.spa, PhysAddr(PAGE));
}

#[test]
fn access_faults() {
    let mut s = Setup::new();
    // A table outside main memory, then a root.
    let entry = s.space.entry(&mut s.bench, IOVA + (1 << 32), 1, 0);
    s.bench.store(entry, pte::at(0x1000_0000, pte::V));
    for (ttyp, _, access_fault) in KINDS {
        s.expect(of(ttyp, IOVA + (1 << 32)), access_fault, true);
    }
    let mut context = s.space.context();
    context[3] = SV39 << 60 | 0x1000_0000 >> 12;
    s.context(context);
    for (ttyp, _, access_fault) in KINDS {
        s.expect(of(ttyp, IOVA), access_fault, true);
    }
    // No first stage, and an address wider than capabilities.PAS.
    context[3] = 0;
    s.context(context);
    for (ttyp, _, access_fault) in KINDS {
        s.expect(of(ttyp, IOVA | 1 << 56), access_fault, true);
        let answer = s.bench.translate(of(ttyp, IOVA | 1 << 55));
        assert_eq!(answer.actual.spa, PhysAddr(IOVA | 1 << 55));
    }
}

#[test]
fn directory_faults() {
    let mut s = Setup::new();
    for (addr, good) in s.directory.pointers.clone() {
        // The entries on the way to the device's context.
        let ours = addr == s.directory.roots[2] || addr == s.directory.roots[1] + 16;
        if !ours {
            continue;
        }
        let bad = [
            (good & !1, 258),
            (good | 2, 259),
            (good | 1 << 9, 259),
            (good | 1 << 54, 259),
            (good | 1 << 63, 259),
            (pte::at(0x1000_0000, 1), 257),
        ];
        for (entry, cause) in bad {
            s.bench.store(addr, entry);
            s.forget();
            s.expect(read(IOVA), cause, true);
        }
        s.bench.store(addr, good);
        s.forget();
        s.read(IOVA);
    }
}

#[test]
fn device_contexts() {
    let mut s = Setup::new();
    let good = s.space.context();
    let mut bad = Vec::new();
    for bit in [1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 23, 32, 63] {
        bad.push((0, 1u64 << bit));
    }
    // PDTV makes the mode that of a process directory, of which there is none.
    bad.push((0, tc::PDTV));
    for mode in [8, 9, 10, 1, 15] {
        bad.push((1, mode << 60));
    }
    for bit in [0, 11, 32, 40, 63] {
        bad.push((2, 1 << bit));
    }
    for bit in [44, 59, 60 + 2] {
        bad.push((3, 1 << bit));
    }
    for (word, bits) in bad {
        // DTF does not hide what is wrong with the context itself.
        for dtf in [0, tc::DTF] {
            let mut context = good;
            context[word] ^= bits;
            context[0] |= dtf;
            s.context(context);
            s.expect(read(IOVA), 259, true);
        }
    }
    s.context([good[0] & !tc::V, good[1], good[2], good[3]]);
    s.expect(read(IOVA), 258, true);
    // Custom bits, and what Bare ignores.
    s.context([good[0] | 0xff << 24, 0xfff, good[2], good[3]]);
    s.read(IOVA);
    // DTF hides what is found after the context.
    s.context([good[0] | tc::DTF, 0, good[2], good[3]]);
    s.expect(read(IOVA + 0x1000), 13, false);
    s.expect(of(TransactionType::TranslatedRead, IOVA), 260, false);
}

#[test]
fn transaction_types() {
    use TransactionType as T;
    let mut s = Setup::new();
    for ttyp in [
        T::TranslatedExecute,
        T::TranslatedRead,
        T::TranslatedWrite,
        T::AtsTranslation,
    ] {
        s.expect(of(ttyp, IOVA), 260, true);
    }
    for privileged in [false, true] {
        let request = Request {
            process_id: Some(0xabcde),
            privileged,
            ..read(IOVA)
        };
        s.expect(request, 260, true);
    }
    // PDTV with pdtp.MODE Bare: any process_id, no first stage.
    s.context([tc::V | tc::PDTV, 0, 0, 0]);
    let answer = s.bench.translate(Request {
        process_id: Some(0xf_ffff),
        ..read(IOVA)
    });
    assert_eq!(answer.actual.spa, PhysAddr(IOVA));
}

#[test]
fn modes_of_the_directory() {
    let mut s = Setup::new();
    s.directory.set(&mut s.bench, 0x31, s.space.context());
    s.directory.set(&mut s.bench, 0x45_0031, s.space.context());
    let from = |device_id| Request {
        device_id,
        ..read(IOVA)
    };
    for (levels, device, ok) in [
        (1, 0x31, true),
        (1, DEVICE, false),
        (1, 0x45_0031, false),
        (2, 0x31, true),
        (2, DEVICE, true),
        (2, 0x45_0031, false),
        (3, 0x31, true),
        (3, DEVICE, true),
        (3, 0x45_0031, true),
    ] {
        s.directory.activate(&mut s.bench, levels);
        // The context may stand in the cache from the mode before: it must not be used, and its
        // DTF must not hide the fault.
        if ok {
            s.bench.translate(from(device));
        } else {
            s.expect(from(device), 260, true);
        }
    }
    s.bench.set_ddtp(0, 0);
    s.expect(read(IOVA), 256, true);
    s.bench.set_ddtp(1, 0);
    assert_eq!(s.read(IOVA).actual.spa, PhysAddr(IOVA));
    s.expect(of(TransactionType::TranslatedRead, IOVA), 260, true);
    s.expect(read(IOVA | 1 << 60), 5, true);
    // A reserved mode is not taken (IOMMU §5.5, WARL).
    s.bench.set_ddtp(9, 0);
    assert_eq!(s.bench.read(reg::DDTP, 8) & 0xf, 1);
}

/// A context that the cache holds has no say where no context is located (IOMMU §2.3).
#[test]
fn no_dtf_of_a_context_that_is_not_located() {
    let mut s = Setup::new();
    let mut context = s.space.context();
    context[0] |= tc::DTF;
    s.context(context);
    s.read(IOVA);
    s.bench.set_ddtp(1, 0);
    s.expect(read(IOVA | 1 << 60), 5, true);
    s.directory.activate(&mut s.bench, 1);
    s.expect(read(IOVA), 260, true);
}

/// A request walks with mode and root of one value of ddtp, also if it changes meanwhile.
#[test]
fn ddtp_is_used_as_a_whole() {
    let mut s = Setup::new();
    for _ in 0..30 {
        for levels in [2, 3] {
            s.bench.submit(&[command::iodir(None)]);
            for _ in 0..8 {
                s.bench.send(read(IOVA));
            }
            let cycles = rand::RngExt::random_range(&mut s.bench.rng, 0..60);
            s.bench.run(cycles);
            s.directory.activate(&mut s.bench, levels);
            s.bench.settle();
            for answer in std::mem::take(&mut s.bench.answers) {
                assert_eq!(answer.actual.spa, PhysAddr(PAGE), "{answer:x?}");
            }
        }
    }
}

/// Corrupt data (IOMMU §7.4); the judge knows no poison.
#[test]
fn poisoned_tables() {
    let mut s = Setup::new();
    let context = s.directory.context(&mut s.bench, DEVICE);
    let leaf = s.space.entry(&mut s.bench, IOVA, 0, 0);
    let root = s.directory.roots[2];
    for (addr, cause) in [(root, 268), (context + 24, 268), (leaf, 274)] {
        s.forget();
        s.bench.poisoned.insert(addr);
        let answer = s.bench.ask(read(IOVA));
        assert_eq!(answer.actual.cause, cause);
        assert_eq!(answer.actual.status, Status::CompleterAbort);
        assert!(answer.verdict.is_err());
        s.bench.poisoned.clear();
        s.bench.run(60);
        let records = s.bench.take_faults();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0][0] & 0xfff, cause.into());
        s.read(IOVA);
    }
}

/// Until a fence old answers are right; after it only new ones.
#[test]
fn an_invalidation_takes_effect_by_its_fence() {
    let commands: [fn(u32) -> command::Command; 4] = [
        |_| command::iotinval(None, None),
        |pscid| command::iotinval(Some(pscid), None),
        |_| command::iotinval(None, Some(IOVA)),
        |pscid| command::iotinval(Some(pscid), Some(IOVA)),
    ];
    for invalidate in commands {
        let mut s = Setup::new();
        s.read(IOVA);
        s.space
            .map(&mut s.bench, IOVA, 0, pte::at(PAGE + 0x1000, pte::ALL));
        assert_eq!(s.read(IOVA).actual.spa, PhysAddr(PAGE), "cached");
        s.bench.sync(&[]);
        assert_eq!(s.read(IOVA).actual.spa, PhysAddr(PAGE), "not covered");
        s.bench.sync(&[invalidate(s.space.pscid)]);
        assert_eq!(s.read(IOVA).actual.spa, PhysAddr(PAGE + 0x1000));
    }
}

#[test]
fn what_an_invalidation_does_not_name_stays() {
    let mut s = Setup::new();
    s.leaf(pte::at(PAGE, pte::ALL | pte::G));
    s.read(IOVA);
    s.space
        .map(&mut s.bench, IOVA, 0, pte::at(PAGE + 0x1000, pte::ALL));
    let pscid = s.space.pscid;
    // By PSCID, which spares global mappings; another address space; another page; a guest.
    s.bench.sync(&[
        command::iotinval(Some(pscid), None),
        command::iotinval(Some(pscid), Some(IOVA)),
        command::iotinval(Some(pscid + 1), None),
        command::iotinval(None, Some(IOVA + 0x1000)),
        [1 | 1 << 33, 0],
    ]);
    assert_eq!(s.read(IOVA).actual.spa, PhysAddr(PAGE));
    let mut context = s.space.context();
    context[3] = 0;
    s.directory.set(&mut s.bench, DEVICE, context);
    s.bench.sync(&[command::iodir(Some(DEVICE + 1))]);
    assert_eq!(s.read(IOVA).actual.spa, PhysAddr(PAGE));
    s.bench.sync(&[command::iodir(Some(DEVICE))]);
    assert_eq!(s.read(IOVA).actual.spa, PhysAddr(IOVA));
}

/// An IOMMU that loses an invalidation: right until the fence, and found out after it.
#[test]
fn a_lost_invalidation_is_found() {
    let mut s = Setup::new();
    s.read(IOVA);
    s.space
        .map(&mut s.bench, IOVA, 0, pte::at(PAGE + 0x1000, pte::ALL));
    let at = s.bench.command_queue + 16 * u64::from(s.bench.tail);
    let other = command::iotinval(Some(s.space.pscid + 1), None);
    s.bench.forged.insert(at, other);
    s.bench
        .submit(&[command::iotinval(Some(s.space.pscid), None)]);
    assert_eq!(s.read(IOVA).actual.spa, PhysAddr(PAGE));
    s.bench.sync(&[]);
    let answer = s.bench.ask(read(IOVA));
    assert_eq!(answer.actual.spa, PhysAddr(PAGE));
    let mismatch = answer.verdict.expect_err("stale");
    assert_eq!(mismatch.field, Field::Address);
    assert!(
        mismatch.clause.contains("invalidated and fenced"),
        "{mismatch}"
    );
}

/// What a walk read before an invalidation must not enter a cache after it.
#[test]
fn a_walk_that_an_invalidation_overtakes_fills_nothing() {
    let mut s = Setup::new();
    let leaf = s.space.entry(&mut s.bench, IOVA, 0, 0);
    let context = s.directory.context(&mut s.bench, DEVICE);
    let bare = [tc::V, 0, 0, 0];
    for held in [leaf, context] {
        s.bench.held = Some(held);
        s.bench.send(read(IOVA));
        s.bench.run(400);
        assert_eq!(s.bench.in_flight(), 1, "waits for {held:#x}");
        let expected = if held == leaf {
            let new = pte::at(PAGE + 0x1000, pte::ALL);
            s.space.map(&mut s.bench, IOVA, 0, new);
            PAGE + 0x1000
        } else {
            s.directory.set(&mut s.bench, DEVICE, bare);
            IOVA
        };
        s.bench
            .submit(&[command::iotinval(None, None), command::iodir(None)]);
        s.bench.poll_head();
        s.bench.held = None;
        s.bench.settle();
        let answer = s.bench.answers.pop().expect("an answer");
        assert!(answer.verdict.is_ok());
        s.bench.sync(&[]);
        assert_eq!(s.read(IOVA).actual.spa, PhysAddr(expected));
        s.forget();
    }
}
