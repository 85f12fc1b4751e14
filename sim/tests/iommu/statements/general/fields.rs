//! Kinds of fields of registers: the glossary, §1.1.

use super::{DEVICE, IOVA, debug};
use crate::bench::{command, csr, reg};
use crate::rig::{Message, Request, Rig, Ttyp};
use crate::statements::fault_queue::Setup;

const ONES: u64 = u64::MAX;
const BUSY: u64 = 1 << 17;
const FENCE_W_IP: u64 = 1 << 11;
/// The fence that sets it.
const FENCE_WSI: [u64; 2] = [2 | 1 << 11, 0];
const PMIP: u64 = 4;
const PIP: u64 = 8;
const OF: u64 = 1 << 63;

fn page_request() -> Message {
    Message::Page {
        device_id: DEVICE,
        process_id: None,
        privileged: false,
        exec: false,
        rwl: [true, false, false],
        prgi: 0,
        addr: IOVA,
    }
}

/// EN_ATS and EN_PRI, with a queue of two records.
fn with_page_requests() -> (Setup, u64) {
    let mut s = Setup::new(6);
    let queue = s.rig.page();
    s.rig.write(reg::PQB, 8, queue >> 12 << 10);
    s.rig.write(reg::PQCSR, 4, csr::ENABLE);
    while s.rig.read(reg::PQCSR, 4) & csr::ON == 0 {}
    (s, queue)
}

/// None of them has its reset value, as far as that can be.
#[test]
fn read_only_fields_keep_their_values() {
    let (mut s, _) = with_page_requests();
    s.rig.message(&page_request());
    s.rig.ask(Setup::request(Ttyp::TransRd, IOVA).of(0x100));
    s.rig.run(100);
    assert_eq!(debug(&mut s.rig, IOVA) & 1, 0);
    s.rig.write(reg::IOHPMEVT, 8, OF);
    let whole = [
        (reg::CAPABILITIES, 8),
        (12, 4),
        (reg::CQH, 4),
        (reg::FQT, 4),
        (reg::PQT, 4),
        (reg::IOCOUNTOVF, 4),
        (reg::TR_RESPONSE, 8),
    ];
    for (offset, size) in whole {
        let before = s.rig.read(offset, size);
        assert_eq!(before == 0, offset == 12, "{offset}");
        for value in [0, ONES, !before] {
            s.rig.write(offset, size, value);
            assert_eq!(s.rig.read(offset, size), before, "{offset}");
        }
    }
    // Beside fields that are written.
    for offset in [reg::CQCSR, reg::FQCSR, reg::PQCSR] {
        for value in [0, csr::ON, BUSY, csr::ON | BUSY] {
            s.rig.write(offset, 4, csr::ENABLE | value);
            assert_eq!(s.rig.read(offset, 4), csr::ENABLE | csr::ON, "{offset}");
        }
    }
    let ddtp = s.rig.read(reg::DDTP, 8);
    s.rig.write(reg::DDTP, 8, ddtp | 1 << 4);
    s.rig.run(100);
    assert_eq!(s.rig.read(reg::DDTP, 8), ddtp);
}

/// One after the other is set, left alone by a 0, and cleared by a 1.
#[test]
fn writing_0_does_not_change_a_write_1_to_clear_bit() {
    let check = |rig: &mut Rig, offset, bits: u64, rest: u64| {
        for _ in 0..2 {
            assert_eq!(rig.read(offset, 4) & bits, bits, "{offset} {bits:#x}");
            rig.write(offset, 4, rest);
        }
        assert_eq!(rig.read(offset, 4) & bits, bits, "{offset} {bits:#x}");
        rig.write(offset, 4, rest | bits);
        assert_eq!(rig.read(offset, 4) & bits, 0, "{offset} {bits:#x}");
    };
    let on = csr::ENABLE | csr::INTERRUPT;

    // The command queue, with wires for fence_w_ip.
    let mut rig = Rig::new(39);
    rig.set_fctl(2);
    rig.write(reg::CQCSR, 4, on);
    rig.submit(&[FENCE_WSI]);
    check(&mut rig, reg::CQCSR, FENCE_W_IP, on);
    check(&mut rig, reg::IPSR, 1, 0);
    let at = rig.next_command();
    rig.hand_over(&[[0, 0]]);
    rig.run(100);
    rig.store(at, command::fence(None, false)[0]);
    check(&mut rig, reg::CQCSR, csr::ILLEGAL, on);
    rig.broken.insert(at & !0xfff);
    rig.hand_over(&[command::fence(None, false)]);
    rig.run(100);
    rig.broken.clear();
    check(&mut rig, reg::CQCSR, csr::MEMORY_FAULT, on);
    // An invalidation that nobody answers.
    rig.hand_over(&[[4, 0], command::fence(None, false)]);
    rig.run(12_000);
    check(&mut rig, reg::CQCSR, csr::TIMEOUT, on);
    rig.submit(&[]);

    // The fault queue.
    let fault = Request::new(Ttyp::TransRd, 1, 0);
    rig.write(reg::FQCSR, 4, on);
    rig.ask(fault);
    rig.run(100);
    check(&mut rig, reg::IPSR, 2, 0);
    let queue = rig.fault_queue();
    rig.broken.insert(queue);
    rig.ask(fault);
    rig.run(100);
    rig.broken.clear();
    check(&mut rig, reg::FQCSR, csr::MEMORY_FAULT, on);
    rig.write(reg::FQH, 4, 2);
    rig.ask(fault);
    rig.run(100);
    check(&mut rig, reg::FQCSR, csr::OVERFLOW, on);

    // The performance monitor.
    rig.write(reg::IOHPMCYCLES, 8, ONES >> 1);
    rig.run(10);
    check(&mut rig, reg::IPSR, PMIP, 0);

    // The page-request queue.
    let (mut s, queue) = with_page_requests();
    s.rig.write(reg::PQCSR, 4, on);
    s.rig.message(&page_request());
    s.rig.run(100);
    check(&mut s.rig, reg::IPSR, PIP, 0);
    s.rig.message(&page_request());
    s.rig.run(100);
    check(&mut s.rig, reg::PQCSR, csr::OVERFLOW, on);
    s.rig.write(reg::PQH, 4, 1);
    s.rig.broken.insert(queue);
    s.rig.message(&page_request());
    s.rig.run(100);
    check(&mut s.rig, reg::PQCSR, csr::MEMORY_FAULT, on);
}

/// By nothing: neither by writing nor by what sets it elsewhere.
#[test]
fn a_write_1_to_clear_bit_of_a_feature_that_is_not_there_reads_0() {
    let pq = csr::OVERFLOW | csr::MEMORY_FAULT;
    // Neither ATS nor a performance monitor; without wires no fence_w_ip.
    let minimal = [(reg::PQCSR, pq), (reg::IPSR, PMIP | PIP)];
    let no_wires = [(reg::CQCSR, FENCE_W_IP)];
    let both = [minimal.as_slice(), &no_wires].concat();
    for (mut rig, bits) in [
        (Rig::minimal(40), minimal.as_slice()),
        (Rig::msi_flat(40), &both),
        (Rig::other(40), &no_wires),
    ] {
        for value in [ONES, 0] {
            for &(offset, bits) in bits {
                rig.write(offset, 4, value & bits | csr::ENABLE);
                assert_eq!(rig.read(offset, 4) & bits, 0, "{offset}");
            }
        }
        rig.write(reg::PQCSR, 4, csr::ENABLE | csr::INTERRUPT);
        rig.message(&page_request());
        rig.write(reg::IOHPMCYCLES, 8, ONES >> 1);
        rig.hand_over(&[FENCE_WSI]);
        rig.run(200);
        for &(offset, bits) in bits {
            assert_eq!(rig.read(offset, 4) & bits, 0, "{offset}");
        }
    }
}

/// A field that is written and read with nothing else of its register.
struct Warl {
    offset: u32,
    lsb: u32,
    width: u32,
    /// Legal values.
    legal: fn(u64) -> bool,
}

const fn warl(offset: u32, lsb: u32, width: u32, legal: fn(u64) -> bool) -> Warl {
    Warl {
        offset,
        lsb,
        width,
        legal,
    }
}

impl Warl {
    /// Each value, or of a wide field each bit and both ends.
    fn check(&self, rig: &mut Rig) {
        let mask = ONES >> (64 - self.width);
        let values: Vec<u64> = if self.width <= 15 {
            (0..=mask).collect()
        } else {
            (0..self.width)
                .flat_map(|bit| [1 << bit, mask >> bit])
                .collect()
        };
        for value in values {
            rig.write(self.offset, 8, value << self.lsb);
            let read = rig.read(self.offset, 8) >> self.lsb & mask;
            assert!((self.legal)(read), "{} {value:#x}: {read:#x}", self.offset);
            if (self.legal)(value) {
                assert_eq!(read, value, "{}", self.offset);
            }
        }
    }
}

/// A legal value is taken.
#[test]
fn a_warl_field_reads_a_legal_value() {
    let fctl = |rig: &mut Rig, expected: fn(u64) -> u64| {
        for value in 0..8 {
            rig.set_fctl(value);
            assert_eq!(rig.read(reg::FCTL, 4), expected(value));
        }
        rig.set_fctl(0);
        for register in [reg::CQCSR, reg::FQCSR] {
            rig.write(register, 4, 0);
            while rig.read(register, 4) & csr::ON != 0 {}
        }
        rig.write(reg::IOCOUNTINH, 4, ONES);
    };
    let ddtp = |rig: &mut Rig, last: u64| {
        for mode in 0..16 {
            rig.set_ddtp(1, 0);
            rig.set_ddtp(mode, 0);
            let read = rig.read(reg::DDTP, 8) & 0xf;
            assert!(read <= last && (mode > last || read == mode), "{mode}");
        }
    };
    let sizes =
        |legal: fn(u64) -> bool| [reg::CQB, reg::FQB, reg::PQB].map(|r| warl(r, 0, 5, legal));
    let vectors = |legal: fn(u64) -> bool| [0, 4, 8, 12].map(|lsb| warl(reg::ICVEC, lsb, 4, legal));

    let mut rig = Rig::new(41);
    fctl(&mut rig, |value| value);
    ddtp(&mut rig, 4);
    let fields = [
        warl(reg::IOHPMEVT, 0, 15, |event| event <= 8),
        warl(reg::IOHPMCTR, 0, 64, |_| true),
        warl(reg::QOSID, 0, 12, |_| true),
        warl(reg::QOSID, 16, 12, |_| true),
        warl(reg::TR_REQ_IOVA, 12, 52, |_| true),
        warl(reg::MSI_CFG_TBL, 0, 64, |addr| addr & (0xff << 56 | 3) == 0),
    ];
    for field in fields
        .iter()
        .chain(&sizes(|_| true))
        .chain(&vectors(|_| true))
    {
        field.check(&mut rig);
    }

    let mut rig = Rig::other(41);
    fctl(&mut rig, |_| 1);
    ddtp(&mut rig, 3);
    let fields = [
        warl(reg::IOHPMEVT, 0, 15, |event| event <= 8),
        warl(reg::IOHPMCTR, 0, 64, |count| count >> 40 == 0),
        warl(reg::QOSID, 0, 12, |rcid| rcid < 1 << 7),
        warl(reg::QOSID, 16, 12, |mcid| mcid < 1 << 5),
    ];
    for field in fields
        .iter()
        .chain(&sizes(|m1| m1 < 9))
        .chain(&vectors(|v| v < 2))
    {
        field.check(&mut rig);
    }

    let mut rig = Rig::minimal(41);
    fctl(&mut rig, |_| 2);
    ddtp(&mut rig, 4);
    for field in sizes(|_| true)
        .iter()
        .take(2)
        .chain(&vectors(|_| true)[..2])
    {
        field.check(&mut rig);
    }
}
