//! Bases and indexes of the queues: IOMMU §5.6 to §5.14.

use super::queue::{DEVICE, FAULTS, PAGE_REQUEST, PAGES, setup};
use crate::bench::{command, csr, reg};
use crate::rig::{Request, Rig, Ttyp};

const ONES: u64 = u64::MAX;
const PPN: u64 = (1 << 44) - 1;

/// The registers of a queue that software writes.
#[derive(Clone, Copy)]
struct Queue {
    csr: u32,
    base: u32,
    index: u32,
}

const COMMANDS: Queue = Queue {
    csr: reg::CQCSR,
    base: reg::CQB,
    index: reg::CQT,
};
const RECORDS: Queue = Queue {
    csr: reg::FQCSR,
    base: reg::FQB,
    index: reg::FQH,
};
const REQUESTS: Queue = Queue {
    csr: reg::PQCSR,
    base: reg::PQB,
    index: reg::PQH,
};

impl Queue {
    /// Off: nothing else may be written to the base.
    fn off(self) -> Rig {
        let mut rig = Rig::new(61);
        self.turn_off(&mut rig);
        rig
    }

    fn turn_off(self, rig: &mut Rig) {
        rig.write(self.csr, 4, 0);
        while rig.read(self.csr, 4) & csr::ON != 0 {}
    }

    /// At `base` with 2 to the power of `log2` entries, empty.
    fn turn_on(self, rig: &mut Rig, base: u64, log2: u64) {
        self.turn_off(rig);
        rig.write(self.base, 8, base >> 12 << 10 | (log2 - 1));
        rig.write(self.index, 4, 0);
        rig.write(self.csr, 4, csr::ENABLE);
        while rig.read(self.csr, 4) & csr::ON == 0 {}
    }

    /// Each PPN with each size, as far as a bit may stick to another.
    fn base_holds_size_and_ppn(self) {
        let mut rig = self.off();
        let sizes = (0..32).map(|size| (0xa5a_5a5a_5a5a, size));
        let ppns = (0..44).flat_map(|bit| [(1 << bit, 0), (PPN ^ 1 << bit, 31)]);
        for (ppn, size) in sizes.chain(ppns) {
            rig.write(self.base, 8, ppn << 10 | size);
            assert_eq!(rig.read(self.base, 8), ppn << 10 | size);
        }
    }

    fn reserved_bits_of_base_read_0(self) {
        let mut rig = self.off();
        rig.write(self.base, 8, ONES);
        assert_eq!(rig.read(self.base, 8), PPN << 10 | 0x1f);
        rig.write(self.base, 8, !(PPN << 10 | 0x1f));
        assert_eq!(rig.read(self.base, 8), 0);
    }

    /// IOMMU §5: a register of 8 bytes may be accessed in two halves.
    fn halves_of_base_are_written_alone(self) {
        let mut rig = self.off();
        let low = 0xffff_ffff;
        let a = 0xa5a_5a5a_5a5a << 10 | 0x0a;
        let b = PPN << 10 & !a | 0x15;
        for [old, new] in [[a, b], [b, a]] {
            rig.write(self.base, 8, old);
            rig.write(self.base, 4, new & low);
            assert_eq!(rig.read(self.base, 8), old & !low | new & low);
            rig.write(self.base, 8, old);
            rig.write(self.base + 4, 4, new >> 32);
            assert_eq!(rig.read(self.base, 8), new & !low | old & low);
            assert_eq!(rig.read(self.base, 4), old & low);
            assert_eq!(rig.read(self.base + 4, 4), new >> 32);
        }
    }

    /// A write of the base to a smaller queue; of the low half, too.
    fn base_clears_high_bits_of_index(self) {
        let mut rig = self.off();
        for log2 in 1..=32 {
            for size in [8, 4] {
                rig.write(self.base, 8, 31);
                rig.write(self.index, 4, ONES);
                assert_eq!(rig.read(self.index, 4), 0xffff_ffff);
                rig.write(self.base, size, log2 - 1);
                assert_eq!(rig.read(self.index, 4) >> log2, 0, "{log2}");
            }
        }
    }

    fn only_bits_of_the_size_are_writable(self) {
        let mut rig = self.off();
        for log2 in 1..=32 {
            rig.write(self.base, 8, log2 - 1);
            let mask = (1 << log2) - 1;
            for value in (0..32).map(|bit| 1 << bit).chain([0x5a5a_a5a5, ONES, 0]) {
                rig.write(self.index, 4, value);
                assert_eq!(rig.read(self.index, 4), value & mask, "{log2} {value:#x}");
            }
        }
    }
}

#[test]
fn halves_of_cqb_are_written_alone() {
    COMMANDS.halves_of_base_are_written_alone();
}

#[test]
fn halves_of_fqb_are_written_alone() {
    RECORDS.halves_of_base_are_written_alone();
}

#[test]
fn cqb_holds_size_and_ppn() {
    COMMANDS.base_holds_size_and_ppn();
}

#[test]
fn fqb_holds_size_and_ppn() {
    RECORDS.base_holds_size_and_ppn();
}

#[test]
fn pqb_holds_size_and_ppn() {
    REQUESTS.base_holds_size_and_ppn();
}

#[test]
fn reserved_bits_of_cqb_read_0() {
    COMMANDS.reserved_bits_of_base_read_0();
}

#[test]
fn reserved_bits_of_fqb_read_0() {
    RECORDS.reserved_bits_of_base_read_0();
}

#[test]
fn reserved_bits_of_pqb_read_0() {
    REQUESTS.reserved_bits_of_base_read_0();
}

#[test]
fn a_write_of_cqb_clears_high_bits_of_cqt() {
    COMMANDS.base_clears_high_bits_of_index();
}

#[test]
fn a_write_of_fqb_clears_high_bits_of_fqh() {
    RECORDS.base_clears_high_bits_of_index();
}

#[test]
fn a_write_of_pqb_clears_high_bits_of_pqh() {
    REQUESTS.base_clears_high_bits_of_index();
}

#[test]
fn only_bits_of_the_size_of_cqt_are_writable() {
    COMMANDS.only_bits_of_the_size_are_writable();
}

#[test]
fn only_bits_of_the_size_of_fqh_are_writable() {
    RECORDS.only_bits_of_the_size_are_writable();
}

#[test]
fn only_bits_of_the_size_of_pqh_are_writable() {
    REQUESTS.only_bits_of_the_size_are_writable();
}

/// Fences in every entry, in a queue of its own.
fn commands(base: u64, log2: u64) -> Rig {
    let mut rig = Rig::new(62);
    let [first, second] = command::fence(None, false);
    for i in 0..1 << log2 {
        rig.store(base + 16 * i, first);
        rig.store(base + 16 * i + 8, second);
    }
    COMMANDS.turn_on(&mut rig, base, log2);
    rig.accesses.clear();
    rig
}

/// The addresses that have been accessed since the last time.
fn accessed(rig: &mut Rig) -> Vec<u64> {
    rig.run(200);
    rig.accesses.drain(..).map(|a| a.addr).collect()
}

/// After the second command the first is next; of a queue of 4 only after the fourth.
#[test]
fn a_command_queue_of_size_0_has_2_entries() {
    for log2 in [1, 2] {
        let base = 0xa5_5aa5_5aa5_a000;
        let mut rig = commands(base, log2);
        for i in 0..10 {
            let [index, next] = [i, i + 1].map(|i| i % (1 << log2));
            rig.write(reg::CQT, 4, next);
            assert_eq!(accessed(&mut rig), [base + 16 * index]);
            assert_eq!(rig.read(reg::CQH, 4), next);
        }
    }
}

/// It has several pages one after the other, at a base that is aligned to all of them.
#[test]
fn a_command_queue_of_more_than_256_entries_is_aligned_to_its_size() {
    for log2 in [8, 9, 10] {
        let base = 0x12_3456_0000_0000 | 16 << log2;
        let last = (1 << log2) - 1;
        let mut rig = commands(base, log2);
        rig.write(reg::CQT, 4, last);
        while rig.read(reg::CQH, 4) != last {}
        let expected: Vec<u64> = (0..last).map(|i| base + 16 * i).collect();
        assert_eq!(accessed(&mut rig), expected);
        rig.write(reg::CQT, 4, 1);
        assert_eq!(accessed(&mut rig), [base + 16 * last, base]);
        assert_eq!(rig.read(reg::CQH, 4), 1);
    }
}

/// Before it is fetched, while it is fetched, and when it was the last one.
#[test]
fn cqh_is_the_index_of_the_next_command() {
    let base = 0xa5_5aa5_5aa5_a000;
    let mut rig = commands(base, 3);
    for i in 0..20 {
        let [index, next] = [i, i + 1].map(|i| i % 8);
        assert_eq!(rig.read(reg::CQH, 4), index);
        rig.held = Some(base + 16 * index);
        rig.write(reg::CQT, 4, next);
        assert_eq!(accessed(&mut rig), [base + 16 * index]);
        assert_eq!(rig.read(reg::CQH, 4), index);
        rig.held = None;
        assert_eq!(accessed(&mut rig), []);
        assert_eq!(rig.read(reg::CQH, 4), next);
    }
}

#[test]
fn a_fault_queue_of_size_0_has_2_entries() {
    for log2 in [1, 2] {
        let mut rig = setup(false);
        let base = rig.page();
        RECORDS.turn_on(&mut rig, base, log2);
        for i in 0..10 {
            let [index, next] = [i, i + 1].map(|i| i % (1 << log2));
            // Software takes it out at once.
            rig.write(reg::FQH, 4, index);
            FAULTS.feed(&mut rig);
            let stores = rig.accesses.iter().filter(|a| a.op == 1);
            let stores: Vec<u64> = stores.map(|a| a.addr).collect();
            assert_eq!(stores, [base + 32 * index]);
            assert_eq!(rig.read(reg::FQT, 4), next);
        }
        // All but one of the entries can be filled.
        let tail = rig.read(reg::FQT, 4);
        rig.write(reg::FQH, 4, tail);
        for i in 0..1 << log2 {
            assert_eq!(rig.read(reg::FQCSR, 4) & csr::OVERFLOW, 0, "{i}");
            rig.ask(Request::new(Ttyp::UntransRd, DEVICE + 1, 0));
            rig.run(100);
        }
        assert_eq!(rig.read(reg::FQCSR, 4) & csr::OVERFLOW, csr::OVERFLOW);
    }
}

#[test]
fn a_page_request_queue_of_size_0_has_2_entries() {
    for log2 in [1, 2] {
        let mut rig = setup(false);
        let base = rig.page();
        REQUESTS.turn_on(&mut rig, base, log2);
        for i in 0..10 {
            let [index, next] = [i, i + 1].map(|i| i % (1 << log2));
            rig.write(reg::PQH, 4, index);
            rig.accesses.clear();
            PAGES.feed(&mut rig);
            let stores = rig.accesses.iter().filter(|a| a.op == 1);
            let stores: Vec<u64> = stores.map(|a| a.addr).collect();
            assert_eq!(stores, [base + 16 * index]);
            assert_eq!(rig.read(reg::PQT, 4), next);
        }
        let tail = rig.read(reg::PQT, 4);
        rig.write(reg::PQH, 4, tail);
        for i in 0..1 << log2 {
            assert_eq!(rig.read(reg::PQCSR, 4) & csr::OVERFLOW, 0, "{i}");
            PAGES.feed(&mut rig);
        }
        assert_eq!(rig.read(reg::PQCSR, 4) & csr::OVERFLOW, csr::OVERFLOW);
    }
}

/// The base is aligned to no more than that. Each record is in its entry, and beyond them is none.
#[test]
fn a_fault_queue_of_more_than_128_records_is_aligned_to_its_size() {
    for log2 in [7, 8, 9, 10] {
        let base = 0x12_3456_0000_0000 | 32 << log2;
        let last = (1 << log2) - 1;
        let mut rig = setup(false);
        RECORDS.turn_on(&mut rig, base, log2);
        let record = |rig: &mut Rig, number: u64| {
            let iova = (number + 1) << 12;
            rig.ask(Request::new(Ttyp::UntransRd, DEVICE + 1, iova));
        };
        let iotval = |rig: &Rig, index: u64| rig.load(base + 32 * index + 16);
        for number in 0..last {
            record(&mut rig, number);
        }
        rig.run(200);
        assert_eq!(rig.read(reg::FQT, 4), last);
        for index in 0..last {
            assert_eq!(iotval(&rig, index), (index + 1) << 12, "{log2}");
        }
        assert_eq!([last, last + 1].map(|index| iotval(&rig, index)), [0, 0]);
        rig.write(reg::FQH, 4, last);
        record(&mut rig, last);
        record(&mut rig, last + 1);
        rig.run(200);
        assert_eq!(rig.read(reg::FQT, 4), 1);
        let expected = [last + 1, last + 2].map(|number| number << 12);
        assert_eq!([last, 0].map(|index| iotval(&rig, index)), expected);
        assert_eq!(iotval(&rig, last + 1), 0);
    }
}

/// As a command queue.
#[test]
fn a_page_request_queue_of_more_than_256_entries_is_aligned_to_its_size() {
    for log2 in [8, 9, 10] {
        let base = 0x12_3456_0000_0000 | 16 << log2;
        let last = (1 << log2) - 1;
        let mut rig = setup(false);
        REQUESTS.turn_on(&mut rig, base, log2);
        let stores = |rig: &mut Rig, count| {
            rig.accesses.clear();
            for _ in 0..count {
                rig.message(&PAGE_REQUEST);
            }
            rig.run(200);
            let stores = rig.accesses.iter().filter(|a| a.op == 1);
            stores.map(|a| a.addr).collect::<Vec<u64>>()
        };
        let expected: Vec<u64> = (0..last).map(|i| base + 16 * i).collect();
        assert_eq!(stores(&mut rig, last), expected);
        assert_eq!(rig.read(reg::PQT, 4), last);
        rig.write(reg::PQH, 4, last);
        assert_eq!(stores(&mut rig, 2), [base + 16 * last, base]);
        assert_eq!(rig.read(reg::PQT, 4), 1);
    }
}
