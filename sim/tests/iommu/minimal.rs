//! The least of an IOMMU: Sv39 alone, interrupts by wire. What is left out is not there for software.

use crate::bench::{command, csr, reg};
use crate::rig::{Message, Request, Rig, Sent, Ttyp};
use crate::tables::{SV39, SV48, SV57, pte, tc};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
const PAGE: u64 = 0x9_8765_4000;
const CIP: u64 = 1;
const FIP: u64 = 2;
/// `cqcsr.fence_w_ip`.
const FENCE: u64 = 1 << 11;
const READ: Request = Request::new(Ttyp::UntransRd, DEVICE, IOVA);

struct Setup {
    rig: Rig,
    ddt: u64,
    /// `tc`, `iohgatp`, `ta` and `fsc`.
    context: [u64; 4],
    leaf: u64,
}

impl Setup {
    fn new() -> Self {
        let mut rig = Rig::minimal(21);
        let [ddt, root, middle, last] = [(); 4].map(|()| rig.page());
        let entry = |table, level: u32| table + 8 * (IOVA >> (12 + 9 * level) & 0x1ff);
        rig.store(entry(root, 2), pte::at(middle, pte::V));
        rig.store(entry(middle, 1), pte::at(last, pte::V));
        rig.set_ddtp(2, ddt);
        let mut setup = Self {
            rig,
            ddt,
            context: [tc::V, 0, 9 << 12, SV39 << 60 | root >> 12],
            leaf: entry(last, 0),
        };
        setup.context(setup.context);
        setup.leaf(pte::at(PAGE, pte::ALL));
        setup
    }

    /// Writes the base-format context.
    fn context(&mut self, words: [u64; 4]) {
        for (i, word) in words.into_iter().enumerate() {
            let at = self.ddt + 32 * u64::from(DEVICE) + 8 * i as u64;
            self.rig.store(at, word);
        }
        self.rig.sync(&[command::iodir(None)]);
    }

    fn leaf(&mut self, leaf: u64) {
        self.rig.store(self.leaf, leaf);
        self.rig.sync(&[command::iotinval(None, None)]);
    }
}

#[test]
fn capabilities() {
    let mut rig = Rig::minimal(21);
    // Version 1.0, Sv39, IGS = WSI, 56 bits.
    let expected = 0x10 | 1 << 9 | 1 << 28 | 56 << 32;
    assert_eq!(rig.read(reg::CAPABILITIES, 8), expected);
}

/// Optional registers read 0 and ignore writes; so do reserved ones (IOMMU §5).
#[test]
fn registers_of_what_is_left_out() {
    let mut s = Setup::new();
    let kept: Vec<u32> = (0..56)
        .chain(72..80)
        .chain(84..88)
        .chain(760..764)
        .collect();
    let kept: Vec<u32> = kept.into_iter().step_by(4).filter(|&o| o != 12).collect();
    let before: Vec<u64> = kept.iter().map(|&o| s.rig.read(o, 4)).collect();
    s.rig.accesses.clear();
    for offset in (0..4096).step_by(4).filter(|o| !kept.contains(o)) {
        s.rig.write(offset, 4, 0xffff_ffff);
        assert_eq!(s.rig.read(offset, 4), 0, "{offset}");
        let absent = !kept.contains(&(offset + 4));
        if offset % 8 == 0 && absent {
            s.rig.write(offset, 8, u64::MAX);
            assert_eq!(s.rig.read(offset, 8), 0, "{offset}");
        }
    }
    // Nothing has come of it.
    s.rig.run(200);
    assert_eq!(s.rig.accesses, []);
    assert_eq!(s.rig.wires(), 0);
    let after: Vec<u64> = kept.iter().map(|&o| s.rig.read(o, 4)).collect();
    assert_eq!(before, after);
    assert_eq!(s.rig.translate(READ).spa, PAGE);
}

/// Neither endianness, messages nor GXL can be chosen (IOMMU §5.4).
#[test]
fn features_are_hardwired() {
    let mut s = Setup::new();
    for value in [0, 0xffff_ffff, 5] {
        s.rig.write(reg::FCTL, 4, value);
        assert_eq!(s.rig.read(reg::FCTL, 4), 2, "WSI");
    }
    assert_eq!(s.rig.translate(READ).spa, PAGE);
}

#[test]
fn interrupts_are_wires() {
    let mut s = Setup::new();
    for (command, fault) in [(3, 12), (0, 15), (7, 7)] {
        s.rig.write(reg::ICVEC, 8, fault << 4 | command);
        s.rig.write(reg::CQCSR, 4, csr::ENABLE | csr::INTERRUPT);
        s.rig.write(reg::FQCSR, 4, csr::ENABLE | csr::INTERRUPT);
        assert_eq!(s.rig.wires(), 0);
        s.rig
            .fault(Request::new(Ttyp::UntransRd, DEVICE + 1, 0), 258);
        assert_eq!(s.rig.wires(), 1 << fault);
        assert_eq!(s.rig.read(reg::IPSR, 4), FIP);
        // The record is the only store: there is no message.
        let stores = s.rig.accesses.iter().filter(|a| a.op != 0).count();
        assert_eq!(stores, 1);
        s.rig.submit(&[[2 | 1 << 11, 0]]);
        assert_eq!(s.rig.read(reg::CQCSR, 4) & FENCE, FENCE);
        assert_eq!(s.rig.wires(), 1 << fault | 1 << command);
        s.rig.write(reg::IPSR, 4, FIP);
        assert_eq!(s.rig.wires(), 1 << command);
        s.rig
            .write(reg::CQCSR, 4, csr::ENABLE | csr::INTERRUPT | FENCE);
        s.rig.write(reg::IPSR, 4, CIP);
        assert_eq!(s.rig.wires(), 0);
    }
}

/// Commands and operands of what is left out stop the queue as illegal ones do (IOMMU §3.1).
#[test]
fn commands_of_what_is_left_out() {
    let left_out = [
        [1 | 1 << 7, 0],            // IOTINVAL.GVMA
        [1 | 1 << 10 | 1 << 34, 0], // NL
        [1 | 1 << 10, 1 << 9],      // S
        [3 | 1 << 7 | 1 << 33, 0],  // IODIR.INVAL_PDT
        [4, 0],                     // ATS.INVAL
        [4 | 1 << 7, 0],            // ATS.PRGR
    ];
    let mut s = Setup::new();
    s.rig.write(reg::CQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    for bad in left_out {
        let slot = s.rig.next_command();
        let head = s.rig.read(reg::CQH, 4);
        s.rig.hand_over(&[bad, command::fence(None, true)]);
        s.rig.run(200);
        assert_ne!(s.rig.read(reg::CQCSR, 4) & csr::ILLEGAL, 0, "{bad:x?}");
        assert_eq!(s.rig.read(reg::CQH, 4), head, "{bad:x?}");
        assert_eq!(s.rig.wires(), 1);
        assert_eq!(s.rig.sent(), []);
        // Mended, the queue goes on at the offender.
        s.rig.store(slot, 2);
        s.rig.store(slot + 8, 0);
        s.rig
            .write(reg::CQCSR, 4, csr::ENABLE | csr::INTERRUPT | csr::ILLEGAL);
        s.rig.write(reg::IPSR, 4, CIP);
        s.rig.submit(&[]);
        assert_eq!(s.rig.wires(), 0);
    }
    // What there is, and a guest's address space, which holds nothing.
    s.rig.submit(&[
        command::iotinval(Some(9), Some(IOVA)),
        [1 | 1 << 33, 0],
        command::iodir(Some(DEVICE)),
        command::fence(None, true),
    ]);
}

/// Fields of a context for what is left out make it misconfigured (IOMMU §2.1.4).
#[test]
fn contexts_with_what_is_left_out() {
    let mut s = Setup::new();
    let good = s.context;
    let with_tc = |bits| [good[0] | bits, good[1], good[2], good[3]];
    let with_fsc = |mode: u64| [good[0], 0, good[2], good[3] & !(0xf << 60) | mode << 60];
    let mut bad = vec![
        with_tc(1 << 1),          // EN_ATS
        with_tc(1 << 1 | 1 << 2), // EN_PRI
        with_tc(1 << 2),
        with_tc(1 << 3),  // T2GPA
        with_tc(1 << 6),  // PRPR
        with_tc(1 << 7),  // GADE
        with_tc(1 << 8),  // SADE
        with_tc(1 << 9),  // DPE
        with_tc(1 << 10), // SBE
        with_tc(1 << 11), // SXL
        with_fsc(SV48),
        with_fsc(SV57),
    ];
    // Second stages, process directories, QoS IDs.
    bad.extend([SV39, SV48, SV57].map(|mode| [good[0], mode << 60, good[2], good[3]]));
    bad.extend((1..4).map(|mode| {
        let mut words = with_fsc(mode);
        words[0] |= tc::PDTV;
        words
    }));
    bad.extend((40..64).map(|bit| [good[0], 0, good[2] | 1 << bit, good[3]]));
    for words in bad {
        s.context(words);
        s.rig.fault(READ, 259);
    }
    // DTF and the custom bits remain, and a context without translation.
    for bits in [tc::DTF, 0xff << 24] {
        s.context(with_tc(bits));
        assert_eq!(s.rig.translate(READ).spa, PAGE, "{bits:#x}");
    }
    s.context(with_fsc(0));
    assert_eq!(s.rig.translate(READ).spa, IOVA);
}

/// Without a process directory, ATS or PRI nothing but untranslated requests of the device passes.
#[test]
fn requests_of_what_is_left_out() {
    let mut s = Setup::new();
    for request in [
        READ.of(1),
        Request::new(Ttyp::AtsReq, DEVICE, IOVA),
        Request::new(Ttyp::TransRd, DEVICE, PAGE),
        Request::new(Ttyp::TransWr, DEVICE, PAGE),
    ] {
        s.rig.fault(request, 260);
    }
    let nobody: [Sent; 0] = [];
    for message in [
        Message::Page {
            device_id: DEVICE,
            process_id: None,
            privileged: false,
            exec: false,
            rwl: [true; 3],
            prgi: 1,
            addr: IOVA,
        },
        Message::Completion {
            device_id: DEVICE,
            itags: 1,
            count: 1,
        },
    ] {
        s.rig.accesses.clear();
        s.rig.message(&message);
        assert_eq!(s.rig.sent(), nobody);
        assert_eq!(s.rig.accesses, []);
    }
    assert_eq!(s.rig.records(), []);
    assert_eq!(s.rig.translate(READ).spa, PAGE);
}

/// Bits of an entry that belong to what is left out are reserved; Svnapot is always there.
#[test]
fn page_table_entries() {
    let mut s = Setup::new();
    let good = pte::at(PAGE, pte::ALL);
    let cases = [
        good & !pte::A,
        good | 1 << 54,
        good | 1 << 59,
        good | 1 << 60,
        good | 1 << pte::PBMT,
        good | 2 << pte::PBMT,
        good & !pte::U,
    ];
    for leaf in cases {
        s.leaf(leaf);
        s.rig.fault(READ, 13);
        assert_eq!(s.rig.load(s.leaf), leaf, "not updated");
    }
    let write = Request::new(Ttyp::UntransWr, DEVICE, IOVA);
    s.leaf(good & !pte::D);
    assert_eq!(s.rig.translate(READ).spa, PAGE);
    s.rig.fault(write, 15);
    s.leaf(pte::at(PAGE & !0xffff | 0x8000, pte::ALL | pte::N));
    let answer = s.rig.translate(write);
    assert_eq!(answer.spa, PAGE & !0xffff | IOVA & 0xffff);
    assert_eq!(answer.pbmt, 0);
    // Beyond 39 bits.
    s.rig
        .fault(Request::new(Ttyp::UntransRd, DEVICE, 1 << 39 | IOVA), 13);
}
