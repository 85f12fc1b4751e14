//! How addresses of interrupt files are translated (IOMMU §2.3.3).

use crate::rig::{Answer, Context, Mrif, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, SV57, pte, tc};

const DEVICE: u32 = 5;
/// Guest page of interrupt file 0.
const FILES: u64 = 0x1_2800_0000;
const IMSIC: u64 = 0x2400_0000;
/// A page by the second stage.
const PAGE: u64 = 0x9_8765_4000;
const EN_ATS: u64 = 1 << 1;
const T2GPA: u64 = 1 << 3;
const ENS: u64 = 1 << 1;

/// `msiptp.MODE` Flat.
const FLAT: u64 = 1 << 60;
/// Bits V and M of an entry.
const BASIC: u64 = 3 << 1 | 1;
const MRIF: u64 = 1 << 1 | 1;

/// A device without a first stage, so that its addresses are guest addresses.
struct Files {
    rig: Rig,
    ddt: u64,
    context: Context,
    table: u64,
}

impl Files {
    /// With this mask, and a second stage in which [`FILES`] is [`PAGE`].
    fn new(mask: u64) -> Self {
        let mut rig = Rig::new(33);
        let mut vm = Vm::new(&mut rig, 0, SV39);
        vm.map_second(&mut rig, FILES, 0, pte::at(PAGE, pte::ALL));
        let table = rig.pages(4);
        let context = Context {
            msi: [FLAT | table >> 12, mask, FILES >> 12],
            ..Context::of(&vm).tc(EN_ATS | T2GPA)
        };
        let ddt = rig.directory(&[DEVICE], context);
        Self {
            rig,
            ddt,
            context,
            table,
        }
    }

    /// Writes the entry of a file.
    fn entry(&mut self, file: u64, words: [u64; 2]) {
        self.rig.store(self.table + 16 * file, words[0]);
        self.rig.store(self.table + 16 * file + 8, words[1]);
    }

    fn ask(&mut self, words: [u64; 2]) -> Answer {
        self.entry(0, words);
        self.rig.forget();
        self.rig.translate(write(FILES))
    }

    /// The page of [`FILES`] as any other: with `msiptp.MODE` Off.
    fn off(&mut self) {
        let context = Context {
            msi: [0; 3],
            ..self.context
        };
        self.rig.set_context(self.ddt, DEVICE, context);
        self.rig.forget();
    }
}

fn write(iova: u64) -> Request {
    Request::new(Ttyp::UntransWr, DEVICE, iova)
}

/// An entry with M = 3.
fn basic(page: u64) -> [u64; 2] {
    [page >> 12 << 10 | BASIC, 0]
}

/// An entry with M = 1.
fn mrif(file: u64, notice: u64, id: u64) -> [u64; 2] {
    let id = (id & 0x3ff) | id >> 10 << 60;
    [file >> 9 << 7 | MRIF, notice >> 12 << 10 | id]
}

/// All values of the bits of `mask`, in their order: that of the files' numbers.
fn values(mask: u64) -> impl Iterator<Item = u64> {
    let next = move |&value: &u64| Some(value.wrapping_sub(mask) & mask).filter(|&v| v != 0);
    std::iter::successors(Some(0), next)
}

#[test]
fn address_of_an_entry() {
    let mut s = Files::new(0x3ff);
    for file in [0, 1, 0x0ff, 0x100, 0x155, 0x2aa, 0x200, 0x3ff] {
        let page = IMSIC + (file << 12);
        s.entry(file, basic(page));
        s.rig.forget();
        let answer = s.rig.translate(write(FILES | file << 12));
        assert_eq!((answer.spa, answer.is_msi), (page, true));
        let reads: Vec<u64> = s.rig.accesses.iter().map(|a| a.addr).collect();
        assert_eq!(reads.last(), Some(&(s.table | (file * 16))), "{file:#x}");
    }
    // ORed, not added: a table that is not aligned to its size. What is there is not specified (AIA).
    let table = s.table + 0x1000;
    let context = Context {
        msi: [FLAT | table >> 12, 0x3ff, FILES >> 12],
        ..s.context
    };
    s.rig.set_context(s.ddt, DEVICE, context);
    for file in [0, 0x0ff, 0x100, 0x1ff, 0x200, 0x3ff] {
        let at = table | (file * 16);
        s.rig.store(at, basic(IMSIC)[0]);
        s.rig.ask(write(FILES | file << 12));
        let reads: Vec<u64> = s.rig.accesses.iter().map(|a| a.addr).collect();
        assert_eq!(reads.last(), Some(&at), "{file:#x}");
    }
}

#[test]
fn number_of_a_file() {
    // The example of the text, x = a b c d e f g h and y = 1 0 1 0 0 1 1 0; one bit; bits far apart.
    for mask in [0xa6, 1, 0x80, 0x8_8421, 0x7f8] {
        let mut s = Files::new(mask);
        let example = [(0x80, 8), (0x20, 4), (0x04, 2), (0x02, 1), (0xa2, 13)];
        for (file, bits) in values(mask).enumerate() {
            let file = file as u64;
            if mask == 0xa6 {
                let known = example.iter().find(|(x, _)| *x == bits);
                assert!(known.is_none_or(|(_, number)| *number == file));
            }
            s.entry(file, basic(IMSIC + (file << 12)));
            // Of the pattern, only the bits beside the mask count.
            let page = (FILES >> 12) & !mask | bits;
            let answer = s.rig.translate(write(page << 12));
            assert_eq!(answer.spa, IMSIC + (file << 12), "{mask:#x} {bits:#x}");
        }
    }
}

/// Each bit of a guest page's address in the mask, beside the lowest.
#[test]
fn number_of_a_file_by_each_bit() {
    let mut s = Files::new(0);
    let vm = Vm::new(&mut s.rig, 0, SV57);
    for bit in 1..47 {
        let mask = 1 << bit | 1;
        let context = Context {
            iohgatp: vm.iohgatp(7),
            msi: [FLAT | s.table >> 12, mask, FILES >> 12],
            ..s.context
        };
        s.rig.set_context(s.ddt, DEVICE, context);
        for (file, bits) in (0..).zip(values(mask)) {
            s.entry(file, basic(IMSIC + (file << 12)));
            let page = (FILES >> 12) & !mask | bits;
            let answer = s.rig.translate(write(page << 12));
            assert_eq!(answer.spa, IMSIC + (file << 12), "{bit} {bits:#x}");
        }
    }
}

/// Each of the 16 bytes counts, and corrupt data has nothing to say, not even that it is not valid.
#[test]
fn corrupt_entries() {
    let mut s = Files::new(0);
    let file = s.rig.page();
    for words in [basic(IMSIC), mrif(file, IMSIC, 5), [0; 2]] {
        s.entry(0, words);
        for at in [s.table, s.table + 8] {
            s.rig.poisoned.insert(at);
            s.rig.fault(write(FILES), 270);
            s.rig.poisoned.clear();
        }
    }
    assert!(s.ask(basic(IMSIC)).is_msi);
}

/// With V = 0 nothing else in an entry matters (AIA, "MSI page tables").
#[test]
fn invalid_entries() {
    let mut s = Files::new(0);
    let file = s.rig.page();
    for words in [[!0; 2], [0; 2], basic(IMSIC), mrif(file, IMSIC, 5)] {
        s.entry(0, [words[0] & !1, words[1]]);
        for ttyp in [Ttyp::UntransWr, Ttyp::UntransRd, Ttyp::UntransRx] {
            s.rig.fault(Request::new(ttyp, DEVICE, FILES), 262);
        }
    }
    // All bits but C: in a valid entry they are reserved.
    s.entry(0, [!0 >> 1, 0]);
    s.rig.fault(write(FILES), 263);
}

/// AIA, "MSI PTE, basic translate mode".
#[test]
fn the_second_doubleword_of_a_basic_entry_is_ignored() {
    let mut s = Files::new(0);
    for second in (0..64).map(|bit| 1 << bit).chain([!0]) {
        let answer = s.ask([basic(IMSIC)[0], second]);
        assert_eq!((answer.spa, answer.is_mrif), (IMSIC, false), "{second:#x}");
    }
}

#[test]
fn basic_entries_keep_the_offset() {
    let mut s = Files::new(0);
    for bit in 0..44 {
        let page = 1 << (12 + bit);
        for offset in [0, 4, 0x123, 0xfff] {
            s.entry(0, basic(page));
            s.rig.forget();
            let answer = s.rig.translate(write(FILES + offset));
            assert_eq!((answer.spa, answer.is_mrif), (page + offset, false));
        }
    }
}

/// The same entries with the capability and without.
#[test]
fn entries_for_files_in_memory_need_the_capability() {
    let mut rig = Rig::msi_flat(34);
    let table = rig.page();
    let context = Context {
        tc: tc::V,
        msi: [FLAT | table >> 12, 0, FILES >> 12],
        ..Context::default()
    };
    rig.directory(&[DEVICE], context);
    let words = mrif(0x8_0000_0200, IMSIC, 5);
    for (i, word) in words.into_iter().enumerate() {
        rig.store(table + 8 * i as u64, word);
    }
    rig.fault(write(FILES), 263);
    rig.store(table, basic(IMSIC)[0]);
    rig.store(table + 8, 0);
    assert_eq!(rig.translate(write(FILES)).spa, IMSIC);
    assert!(Files::new(0).ask(words).is_mrif);
}

#[test]
fn address_of_a_file_in_memory() {
    let mut s = Files::new(0);
    for bit in 9..56 {
        // Address bits 55:9 are bits 53:7 of the entry.
        let answer = s.ask([1 << (bit - 2) | MRIF, 0]);
        assert!(answer.is_mrif);
        assert_eq!(answer.mrif, 1 << bit);
    }
}

/// What is stored for an MSI to a file in memory, beside the file.
fn notice(s: &mut Files, answer: Answer, file: u64) -> (u64, u64) {
    s.rig.store(file, 0);
    s.rig.store_msi(&Mrif {
        request: write(FILES),
        answer,
        data: 7,
    });
    assert_eq!(s.rig.load(file), 1 << 7);
    let stores: Vec<(u64, u64)> = s
        .rig
        .accesses
        .iter()
        .filter(|a| a.op == 1)
        .map(|a| (a.addr, a.data))
        .collect();
    assert_eq!(stores.len(), 1);
    stores[0]
}

#[test]
fn page_of_the_notice() {
    let mut s = Files::new(0);
    let file = s.rig.page();
    for bit in 12..56 {
        let page = 1 << bit;
        let answer = s.ask([mrif(file, 0, 0)[0], 1 << (bit - 2)]);
        assert_eq!((answer.notice, answer.notice_id), (page, 0));
        assert_eq!(notice(&mut s, answer, file), (page, 0));
    }
}

#[test]
fn data_of_the_notice() {
    let mut s = Files::new(0);
    let file = s.rig.page();
    let bits = (0..11).map(|bit| 1 << bit);
    for id in [0, 0x7ff, 0x3ff, 0x555].into_iter().chain(bits) {
        let answer = s.ask(mrif(file, IMSIC, id));
        assert_eq!((answer.notice, answer.notice_id), (IMSIC, id));
        s.rig.store(IMSIC, !0);
        assert_eq!(notice(&mut s, answer, file), (IMSIC, id));
        // 4 bytes.
        assert_eq!(s.rig.load(IMSIC), !0 << 32 | id);
    }
}

#[test]
fn entries_permit_user_reads_and_writes() {
    let mut rig = Rig::new(35);
    let mut vm = Vm::new(&mut rig, 0, SV39);
    let processes = vm.table(&mut rig);
    let process = Process {
        ta: 1 | ENS,
        fsc: 0,
    };
    rig.set_process(&mut vm, processes, pd::PD8, 3, process, false);
    let table = rig.page();
    let file = rig.page();
    let context = Context {
        fsc: pd::PD8 << 60 | processes >> 12,
        msi: [FLAT | table >> 12, 0, FILES >> 12],
        ..Context::of(&vm).tc(tc::PDTV)
    };
    rig.directory(&[DEVICE], context);
    for words in [basic(IMSIC), mrif(file, IMSIC, 0)] {
        rig.store(table, words[0]);
        rig.store(table + 8, words[1]);
        rig.forget();
        for (ttyp, permitted) in [
            (Ttyp::UntransRd, true),
            (Ttyp::UntransWr, true),
            (Ttyp::UntransRx, false),
        ] {
            let request = Request::new(ttyp, DEVICE, FILES);
            // As in the second stage, a supervisor is a user.
            for request in [request, request.of(3), request.of(3).privileged()] {
                if permitted {
                    let answer = rig.translate(request);
                    assert!(answer.is_msi);
                    assert_eq!(answer.is_mrif, words[0] & 6 == 2);
                } else {
                    rig.fault(request, 1);
                }
            }
        }
    }
}

/// A read-for-execute of an interrupt file is an instruction access fault, one of the page that the
/// second stage has there is none.
fn execution(ttyp: Ttyp, read: Ttyp) {
    let mut s = Files::new(0);
    let file = s.rig.page();
    for words in [basic(IMSIC), mrif(file, IMSIC, 0)] {
        s.ask(words);
        s.rig.translate(Request::new(read, DEVICE, FILES));
        s.rig.fault(Request::new(ttyp, DEVICE, FILES), 1);
    }
    s.off();
    let answer = s.rig.translate(Request::new(ttyp, DEVICE, FILES));
    assert_eq!((answer.spa, answer.is_msi), (PAGE, false));
}

#[test]
fn untranslated_execution_of_an_interrupt_file() {
    execution(Ttyp::UntransRx, Ttyp::UntransRd);
}

#[test]
fn translated_execution_of_an_interrupt_file() {
    execution(Ttyp::TransRx, Ttyp::TransRd);
}
