//! The interrupt pending register and what it sends (IOMMU §5.18).

use super::queue::{COMMANDS, Condition, DEVICE, FAULTS, PAGE_REQUEST, PAGES, Queue, setup};
use crate::bench::{csr, reg};
use crate::rig::{Request, Rig, Ttyp};

const PMIP: u64 = 4;
const ALL: u64 = 0xf;
const ENABLED: u64 = csr::ENABLE | csr::INTERRUPT;
const QUEUES: [Queue; 3] = [COMMANDS, FAULTS, PAGES];

/// With interrupts of all queues enabled.
fn enabled(condition: Condition) -> Rig {
    let mut rig = condition.setup();
    for queue in QUEUES {
        queue.set(&mut rig, ENABLED);
    }
    rig
}

/// The cycle counter is about to overflow.
fn overflow(rig: &mut Rig) {
    rig.write(reg::IOHPMCYCLES, 8, u64::MAX >> 1);
    rig.run(10);
}

/// Gives each vector a message of its own. Returns address and data of each.
fn vectors(rig: &mut Rig) -> Vec<(u64, u64)> {
    let page = rig.page();
    let rows: Vec<_> = (0..16)
        .map(|row| (page + 0xc4 * row, 0x9abc_de00 | row))
        .collect();
    for (row, &(addr, data)) in (0..).zip(&rows) {
        rig.write(reg::MSI_CFG_TBL + 16 * row, 8, addr);
        rig.write(reg::MSI_CFG_TBL + 16 * row + 8, 8, data);
    }
    rig.accesses.clear();
    rows
}

/// The messages since the last request, after time for them.
fn messages(rig: &mut Rig, vectors: &[(u64, u64)]) -> Vec<(u64, u64)> {
    rig.run(100);
    let page = vectors[0].0;
    let sent = rig.accesses.iter();
    let sent = sent.filter(|a| a.op == 1 && a.addr & !0xfff == page);
    let sent = sent.map(|a| (a.addr, a.data & 0xffff_ffff)).collect();
    rig.accesses.clear();
    sent
}

/// The bit is set by this condition alone, and not without its enable.
fn is_set_by(condition: Condition) {
    let queue = condition.queue();
    for enable in [csr::ENABLE, ENABLED] {
        let mut rig = enabled(condition);
        queue.set(&mut rig, enable);
        assert_eq!(rig.read(reg::IPSR, 4), 0);
        condition.provoke(&mut rig);
        let status = queue.status(&mut rig);
        assert_eq!(status, enable | csr::ON | condition.bit());
        let expected = if enable == ENABLED { queue.pending } else { 0 };
        assert_eq!(rig.read(reg::IPSR, 4), expected);
    }
}

#[test]
fn cip_is_set_by_fence_w_ip() {
    is_set_by(Condition::Fence);
}

#[test]
fn cip_is_set_by_cmd_ill() {
    is_set_by(Condition::Illegal);
}

#[test]
fn cip_is_set_by_cmd_to() {
    is_set_by(Condition::Timeout);
}

#[test]
fn cip_is_set_by_cqmf() {
    is_set_by(Condition::CommandFault);
}

#[test]
fn fip_is_set_by_fqof() {
    is_set_by(Condition::FaultOverflow);
}

#[test]
fn fip_is_set_by_fqmf() {
    is_set_by(Condition::FaultFault);
}

#[test]
fn pip_is_set_by_pqof() {
    is_set_by(Condition::PageOverflow);
}

#[test]
fn pip_is_set_by_pqmf() {
    is_set_by(Condition::PageFault);
}

/// Sets all four bits; nothing that would set one again is left.
fn all_pending() -> Rig {
    let mut rig = enabled(Condition::Illegal);
    Condition::Illegal.provoke(&mut rig);
    COMMANDS.set(&mut rig, ENABLED | csr::ILLEGAL);
    FAULTS.feed(&mut rig);
    PAGES.feed(&mut rig);
    overflow(&mut rig);
    for queue in QUEUES {
        assert_eq!(queue.status(&mut rig), ENABLED | csr::ON);
    }
    rig
}

#[test]
fn a_pending_bit_stays_until_1_is_written() {
    let mut rig = all_pending();
    assert_eq!(rig.read(reg::IPSR, 4), ALL);
    // Neither time, nor 0, nor an end of the enable clears it.
    rig.run(1000);
    rig.write(reg::IPSR, 4, 0);
    for queue in QUEUES {
        queue.set(&mut rig, csr::ENABLE);
    }
    let mut left = ALL;
    for bit in [1, 8, 2, 4] {
        assert_eq!(rig.read(reg::IPSR, 4), left);
        rig.write(reg::IPSR, 4, bit);
        left &= !bit;
    }
    rig.run(100);
    assert_eq!(rig.read(reg::IPSR, 4), 0);
}

#[test]
fn reserved_bits_of_ipsr_read_0() {
    let mut rig = all_pending();
    rig.write(reg::IPSR, 4, 0xffff_ffff & !ALL);
    assert_eq!(rig.read(reg::IPSR, 4), ALL);
    rig.write(reg::IPSR, 4, 0xffff_ffff);
    assert_eq!(rig.read(reg::IPSR, 4), 0);
}

#[test]
fn a_message_is_that_of_the_vector() {
    for icvec in [0x3210_u64, 0xc5e9, 0x7777] {
        let mut rig = enabled(Condition::Illegal);
        let rows = vectors(&mut rig);
        rig.write(reg::ICVEC, 8, icvec);
        let mut check = |source: usize, cause: &dyn Fn(&mut Rig)| {
            cause(&mut rig);
            let row = (icvec >> (4 * source) & 0xf) as usize;
            assert_eq!(messages(&mut rig, &rows), [rows[row]], "{source}");
        };
        check(0, &|rig| Condition::Illegal.provoke(rig));
        check(1, &|rig| FAULTS.feed(rig));
        check(2, &|rig| overflow(rig));
        check(3, &|rig| PAGES.feed(rig));
        assert_eq!(rig.read(reg::IPSR, 4), ALL);
    }
}

/// The bit of `ipsr` does not wait for it.
#[test]
fn a_message_of_each_cause_waits_for_its_mask() {
    const ICVEC: u64 = 0xc5e9;
    let row = |source: usize| (ICVEC >> (4 * source) & 0xf) as usize;
    let causes: [fn(&mut Rig); 4] = [
        |rig| Condition::Illegal.provoke(rig),
        |rig| FAULTS.feed(rig),
        overflow,
        |rig| PAGES.feed(rig),
    ];
    for masked in 0..causes.len() {
        let mut rig = enabled(Condition::Illegal);
        let rows = vectors(&mut rig);
        rig.write(reg::ICVEC, 8, ICVEC);
        let mask = reg::MSI_CFG_TBL + 16 * row(masked) as u32 + 12;
        rig.write(mask, 4, 1);
        for (source, cause) in causes.into_iter().enumerate() {
            cause(&mut rig);
            let expected = if source == masked {
                vec![]
            } else {
                vec![rows[row(source)]]
            };
            assert_eq!(messages(&mut rig, &rows), expected, "{source} {masked}");
        }
        assert_eq!(rig.read(reg::IPSR, 4), ALL);
        rig.write(mask, 4, 0);
        assert_eq!(messages(&mut rig, &rows), [rows[row(masked)]]);
    }
}

/// Each cause comes again while the bit of its queue, or of the counters, is 1; without wires there are
/// none.
#[test]
fn no_further_message_is_sent_while_the_bit_is_1() {
    let mut rig = enabled(Condition::Illegal);
    let rows = vectors(&mut rig);
    rig.write(reg::ICVEC, 8, 0x3210);
    let causes: [fn(&mut Rig); 4] = [
        |rig| {
            Condition::Illegal.provoke(rig);
            COMMANDS.set(rig, ENABLED | csr::ILLEGAL);
        },
        |rig| FAULTS.feed(rig),
        overflow,
        |rig| PAGES.feed(rig),
    ];
    for (bit, cause) in causes.into_iter().enumerate() {
        cause(&mut rig);
        assert_eq!(messages(&mut rig, &rows), [rows[bit]]);
        for _ in 0..3 {
            cause(&mut rig);
            assert_eq!(messages(&mut rig, &rows), [], "{bit}");
            assert_eq!(rig.wires(), 0);
        }
        // Only this one is sent again.
        rig.write(reg::IPSR, 4, 1 << bit);
        cause(&mut rig);
        assert_eq!(messages(&mut rig, &rows), [rows[bit]]);
    }
    assert_eq!(rig.read(reg::IPSR, 4), ALL);
}

/// The bit goes from 0 to 1 again, which is a message again. An overflow or a new record does not
/// stand.
#[test]
fn a_condition_that_stands_sets_its_bit_again() {
    for condition in Condition::ALL {
        let mut rig = enabled(condition);
        let rows = vectors(&mut rig);
        let wires = rig.read(reg::FCTL, 4) != 0;
        let queue = condition.queue();
        condition.provoke(&mut rig);
        let message = if wires { vec![] } else { vec![rows[0]] };
        for _ in 0..3 {
            assert_eq!(messages(&mut rig, &rows), message, "{condition:?}");
            assert_eq!(rig.read(reg::IPSR, 4), queue.pending, "{condition:?}");
            rig.write(reg::IPSR, 4, queue.pending);
        }
        messages(&mut rig, &rows);
        queue.set(&mut rig, ENABLED | condition.bit());
        rig.write(reg::IPSR, 4, queue.pending);
        assert_eq!(messages(&mut rig, &rows), [], "{condition:?}");
        assert_eq!(rig.read(reg::IPSR, 4), 0, "{condition:?}");
        condition.provoke(&mut rig);
        assert_eq!(rig.read(reg::IPSR, 4), queue.pending, "{condition:?}");
    }
    let mut rig = setup(false);
    FAULTS.set(&mut rig, ENABLED);
    FAULTS.feed(&mut rig);
    overflow(&mut rig);
    assert_eq!(rig.read(reg::IPSR, 4), FAULTS.pending | PMIP);
    rig.write(reg::IPSR, 4, ALL);
    rig.run(100);
    assert_eq!(rig.read(reg::IPSR, 4), 0);
}

/// A 1 that is written while the bit is still 0 clears nothing: what happens in that cycle, or later, sets
/// the bit. What was there before is cleared.
#[test]
fn what_happens_when_a_bit_is_cleared_sets_it() {
    let causes: [fn(&mut Rig); 3] = [
        |rig| {
            rig.begin(Request::new(Ttyp::UntransRd, DEVICE + 1, 0));
        },
        |rig| rig.write(reg::IOHPMCYCLES, 8, (u64::MAX >> 1) - 30),
        |rig| rig.message(&PAGE_REQUEST),
    ];
    for (bit, cause) in [FAULTS.pending, PMIP, PAGES.pending]
        .into_iter()
        .zip(causes)
    {
        let begun = |wait| {
            let mut rig = enabled(Condition::Illegal);
            cause(&mut rig);
            rig.run(wait);
            rig
        };
        let mut seen = Vec::new();
        for wait in 0..120 {
            // What the write would find, if it were a read.
            let pending = begun(wait).read(reg::IPSR, 4);
            let mut rig = begun(wait);
            rig.write(reg::IPSR, 4, bit);
            rig.run(300);
            assert_eq!(rig.read(reg::IPSR, 4), bit & !pending, "{bit} {wait}");
            seen.push(pending);
        }
        assert_eq!([seen[0], seen[119]], [0, bit]);
    }
}
