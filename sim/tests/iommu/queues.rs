//! Queues, fences, interrupts and registers.

use tlproof_golden::iommu::{Request, TransactionType};

use crate::bench::{Bench, CQ_ENTRIES, FQ_ENTRIES, command, csr, reg};

const MESSAGE: u64 = 0x2800_1000;
const CIP: u64 = 1;
const FIP: u64 = 2;

/// Sets a vector's message; bit 0 of `control` masks it (IOMMU §5.29).
fn set_vector(bench: &mut Bench, vector: u32, addr: u64, data: u64, control: u64) {
    let row = reg::MSI_CFG_TBL + 16 * vector;
    bench.write(row, 8, addr);
    bench.write(row + 8, 4, data);
    bench.write(row + 12, 4, control);
}

/// Vector 1 for the command queue, 2 for the fault queue, and both interrupts enabled.
fn with_interrupts() -> Bench {
    let mut bench = Bench::new(3);
    bench.write(reg::ICVEC, 8, 0x21);
    set_vector(&mut bench, 1, MESSAGE, 0x11, 0);
    set_vector(&mut bench, 2, MESSAGE + 0x1000, 0x22, 0);
    bench.write(reg::CQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    bench.write(reg::FQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    bench
}

fn messages(bench: &mut Bench) -> Vec<(u64, u32)> {
    bench.run(4 * bench.memory_latency + 40);
    std::mem::take(&mut bench.messages)
}

/// A request that faults, as ddtp is Off.
const FAULTING: Request = Request::untranslated(9, 0x5000, true);

#[test]
fn registers_after_reset() {
    let mut bench = Bench::reset(1);
    let capabilities = bench.read(reg::CAPABILITIES, 8);
    // Version 1.0, Sv39, Sv48, Sv57, Svpbmt, interrupts by MSI, 56 bits.
    let expected = 0x10 | 0b111 << 9 | 1 << 15 | 56 << 32;
    assert_eq!(capabilities, expected, "{capabilities:#x}");
    let zero = [
        (reg::FCTL, 4),
        (reg::DDTP, 8),
        (reg::CQCSR, 4),
        (reg::FQCSR, 4),
        (reg::CQH, 4),
        (reg::FQT, 4),
        (reg::IPSR, 4),
    ];
    for (offset, size) in zero {
        assert_eq!(bench.read(offset, size), 0, "register {offset}");
    }
    // Neither endianness, wires nor GXL can be chosen.
    bench.write(reg::FCTL, 4, 7);
    assert_eq!(bench.read(reg::FCTL, 4), 0);
    bench.write(reg::CAPABILITIES, 8, 0);
    assert_eq!(bench.read(reg::CAPABILITIES, 8), capabilities);
}

#[test]
fn a_fault_sends_a_message() {
    let mut bench = with_interrupts();
    bench.translate(FAULTING);
    assert_eq!(messages(&mut bench), [(MESSAGE + 0x1000, 0x22)]);
    assert_eq!(bench.read(reg::IPSR, 4), FIP);
    // Pending: no second one.
    bench.translate(FAULTING);
    assert_eq!(messages(&mut bench), []);
    bench.write(reg::IPSR, 4, FIP);
    assert_eq!(bench.read(reg::IPSR, 4), 0);
    bench.translate(FAULTING);
    assert_eq!(messages(&mut bench), [(MESSAGE + 0x1000, 0x22)]);
    bench.write(reg::IPSR, 4, FIP);
    // Masked: sent when unmasked, once.
    set_vector(&mut bench, 2, MESSAGE, 0x33, 1);
    bench.translate(FAULTING);
    assert_eq!(messages(&mut bench), []);
    set_vector(&mut bench, 2, MESSAGE, 0x33, 0);
    assert_eq!(messages(&mut bench), [(MESSAGE, 0x33)]);
    bench.check_faults();
}

/// The message's own access fault is an event with cause 273 (IOMMU §3.2, §5.29).
#[test]
fn a_message_that_faults() {
    let mut bench = with_interrupts();
    set_vector(&mut bench, 2, 0x1000_0000, 1, 0);
    bench.translate(FAULTING);
    bench.run(200);
    let records = bench.take_faults();
    assert_eq!(records.len(), 2);
    assert_eq!(records[1], [273, 0, 0x1000_0000, 0]);
    let wrong = bench.judge.compare_fault_queue(&records[..1]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_fence_stores_where_it_is_told() {
    let mut bench = Bench::new(4);
    let (fence, addr, data) = bench.fence(false);
    bench.store(addr, 0xaaaa_bbbb_cccc_dddd);
    assert!(!bench.fence_seen(addr, data));
    bench.submit(&[fence]);
    bench.poll_head();
    assert!(bench.fence_seen(addr, data));
    // Four bytes, no more.
    assert_eq!(bench.load(addr), 0xaaaa_bbbb_0000_0000 | u64::from(data));
    // To an interrupt file it is a message.
    bench.expect_fence(MESSAGE, 0x77);
    bench.submit(&[command::fence(Some((MESSAGE, 0x77)), true)]);
    bench.poll_head();
    assert_eq!(messages(&mut bench), [(MESSAGE, 0x77)]);
}

/// With PR or PW a fence waits for the bridge; without, it does not ask it.
#[test]
fn a_fence_drains_the_bridge() {
    let mut bench = Bench::new(5);
    bench.sync(&[]);
    assert_eq!(bench.drains, 1);
    bench.submit(&[command::fence(None, false)]);
    bench.poll_head();
    assert_eq!(bench.drains, 1);
    for one in [1 << 12, 1 << 13] {
        let drains = bench.drains;
        bench.submit(&[[2 | one, 0]]);
        bench.poll_head();
        assert_eq!(bench.drains, drains + 1);
    }
    // As does a write of ddtp (IOMMU §5.5).
    let drains = bench.drains;
    bench.set_ddtp(1, 0);
    assert_eq!(bench.drains, drains + 1);
}

#[test]
fn illegal_commands_stop_the_queue() {
    let illegal = [
        [0, 0],
        [1 | 1 << 11, 0],
        [1 | 1 << 34, 0],
        [1, 1 << 9],
        [1, 1],
        [1 | 1 << 7 | 1 << 32, 0],
        [1 | 2 << 7, 0],
        [2 | 1 << 7, 0],
        [2 | 1 << 11, 0],
        [2 | 1 << 14, 0],
        [2, 1 << 62],
        [3 | 1 << 7, 0],
        [3 | 1 << 12, 0],
        [3 | 1 << 32, 0],
        [3, 1],
        [4, 0],
        [5, 0],
        [64, 0],
    ];
    let mut bench = with_interrupts();
    for (i, bad) in illegal.into_iter().enumerate() {
        let at = bench.tail;
        bench.submit(&[command::iodir(None), bad, command::fence(None, false)]);
        bench.poll(reg::CQCSR, |v| v & csr::ILLEGAL != 0);
        assert_eq!(
            bench.read(reg::CQH, 4),
            u64::from((at + 1) % CQ_ENTRIES),
            "{bad:x?}"
        );
        assert_eq!(messages(&mut bench), [(MESSAGE, 0x11)], "{i}");
        assert_eq!(bench.read(reg::IPSR, 4), CIP);
        // Mended, the queue goes on at the offender.
        let slot = bench.command_queue + 16 * u64::from((at + 1) % CQ_ENTRIES);
        let [w0, w1] = command::iotinval(None, None);
        bench.store(slot, w0);
        bench.store(slot + 8, w1);
        bench.write(reg::CQCSR, 4, csr::ENABLE | csr::INTERRUPT | csr::ILLEGAL);
        bench.write(reg::IPSR, 4, CIP);
        bench.poll_head();
        assert_eq!(bench.read(reg::CQCSR, 4) & csr::ILLEGAL, 0);
        assert_eq!(messages(&mut bench), []);
    }
}

#[test]
fn command_queue_memory_faults() {
    let mut bench = with_interrupts();
    // A store of a fence that nobody takes.
    bench.expect_fence(0x1000_0000, 5);
    bench.submit(&[command::fence(Some((0x1000_0000, 5)), false)]);
    bench.poll(reg::CQCSR, |v| v & csr::MEMORY_FAULT != 0);
    assert_eq!(bench.read(reg::CQH, 4), 0);
    assert_eq!(messages(&mut bench), [(MESSAGE, 0x11)]);
    // A queue outside main memory. Turning the queue on clears the error.
    bench.write(reg::CQCSR, 4, 0);
    bench.poll(reg::CQCSR, |v| v & csr::ON == 0);
    bench.write(reg::IPSR, 4, CIP);
    bench.write(reg::CQB, 8, 0x1000_0000 >> 12 << 10 | 4);
    bench.write(reg::CQT, 4, 0);
    bench.write(reg::CQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    let csr = bench.poll(reg::CQCSR, |v| v & csr::ON != 0);
    assert_eq!(csr & csr::MEMORY_FAULT, 0);
    assert_eq!(messages(&mut bench), []);
    bench.write(reg::CQT, 4, 1);
    bench.poll(reg::CQCSR, |v| v & csr::MEMORY_FAULT != 0);
    assert_eq!(messages(&mut bench), [(MESSAGE, 0x11)]);
}

#[test]
fn the_fault_queue_overflows() {
    let mut bench = with_interrupts();
    for _ in 0..FQ_ENTRIES + 9 {
        bench.translate(FAULTING);
    }
    bench.run(200);
    // One entry stays free.
    assert_eq!(bench.read(reg::FQT, 4), u64::from(FQ_ENTRIES - 1));
    assert_ne!(bench.read(reg::FQCSR, 4) & csr::OVERFLOW, 0);
    let records = bench.take_faults();
    assert_eq!(records.len(), FQ_ENTRIES as usize - 1);
    let wrong = bench.judge.compare_fault_queue(&records);
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(bench.judge.missing_fault_records(), []);
    // Nothing until the bit is cleared.
    bench.translate(FAULTING);
    bench.run(100);
    assert!(bench.take_faults().is_empty());
    bench.judge.missing_fault_records();
    bench.write(reg::FQCSR, 4, csr::ENABLE | csr::OVERFLOW);
    bench.translate(Request {
        ttyp: TransactionType::UntranslatedRead,
        ..FAULTING
    });
    assert_eq!(bench.check_faults().len(), 1);
}

#[test]
fn fault_queue_memory_faults() {
    let mut bench = with_interrupts();
    bench.write(reg::FQCSR, 4, 0);
    bench.poll(reg::FQCSR, |v| v & csr::ON == 0);
    bench.write(reg::FQB, 8, 0x1000_0000 >> 12 << 10 | 4);
    bench.write(reg::FQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    bench.poll(reg::FQCSR, |v| v & csr::ON != 0);
    bench.translate(FAULTING);
    bench.poll(reg::FQCSR, |v| v & csr::MEMORY_FAULT != 0);
    assert_eq!(bench.read(reg::FQT, 4), 0);
    assert_eq!(messages(&mut bench), [(MESSAGE + 0x1000, 0x22)]);
    // Turning the queue on clears the error, with no message for it.
    bench.write(reg::FQCSR, 4, 0);
    bench.poll(reg::FQCSR, |v| v & csr::ON == 0);
    bench.write(reg::IPSR, 4, FIP);
    bench.write(reg::FQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    let csr = bench.poll(reg::FQCSR, |v| v & csr::ON != 0);
    assert_eq!(csr & csr::MEMORY_FAULT, 0);
    assert_eq!(messages(&mut bench), []);
}
