//! The page-request queue: IOMMU §3.3.

use super::queue::PAGES;
use crate::bench::{csr, reg};
use crate::rig::{Context, Message, Rig, Sent, Vm};
use crate::tables::pte;

const DEVICE: u32 = 0xa5_5a3c;
const ADDR: u64 = 0x12_3456_7000;
const EN_ATS: u64 = 1 << 1;
const EN_PRI: u64 = 1 << 2;
const PIP: u64 = 8;
/// Response codes (PCIe 6.0 §10.4.2.1).
const SUCCESS: u64 = 0;
const FAILURE: u64 = 0xf;
const ONES: u64 = u64::MAX;

const READ: [bool; 3] = [true, false, false];
const LAST: [bool; 3] = [true, true, true];
const STOP: [bool; 3] = [false, false, true];

/// Every device may make page requests.
struct Setup {
    rig: Rig,
    queue: u64,
    next: u64,
}

impl Setup {
    /// A queue of 2 to the power of `log2` records, all bits of which are 1.
    fn new(log2: u64) -> Self {
        let mut rig = Rig::new(34);
        let vm = Vm::new(&mut rig, 0, 0);
        // All entries of a directory point to one page of contexts.
        let [root, middle] = [(); 2].map(|()| rig.page());
        let contexts = rig.page();
        for device in 0..64 {
            rig.set_context(contexts, device, Context::of(&vm).tc(EN_ATS | EN_PRI));
        }
        for entry in 0..512 {
            rig.store(root + 8 * entry, pte::at(middle, pte::V));
            rig.store(middle + 8 * entry, pte::at(contexts, pte::V));
        }
        rig.set_ddtp(4, root);
        let queue = rig.page();
        for at in (queue..queue + 4096).step_by(8) {
            rig.store(at, ONES);
        }
        rig.write(reg::PQB, 8, queue >> 12 << 10 | (log2 - 1));
        rig.write(reg::PQCSR, 4, csr::ENABLE);
        while rig.read(reg::PQCSR, 4) & csr::ON == 0 {}
        let next = 0;
        Self { rig, queue, next }
    }

    fn load(&self, index: u64) -> [u64; 2] {
        [0, 8].map(|i| self.rig.load(self.queue + 16 * index + i))
    }

    /// The record that a message leaves.
    fn record(&mut self, message: Message) -> [u64; 2] {
        self.rig.message(&message);
        self.rig.run(100);
        self.next += 1;
        assert_eq!(self.rig.read(reg::PQT, 4), self.next);
        self.load(self.next - 1)
    }

    /// What the IOMMU answers a message itself.
    fn answers(&mut self, message: Message) -> Vec<Sent> {
        self.rig.message(&message);
        self.rig.sent()
    }

    fn errors(&mut self) -> u64 {
        self.rig.read(reg::PQCSR, 4) & (csr::OVERFLOW | csr::MEMORY_FAULT)
    }

    /// With a queue of 2 records: the next message sets `pqof` or `pqmf`. The tail is 1 in the first
    /// case and 0 in the second.
    fn before(error: u64) -> Self {
        let mut s = Self::new(1);
        if error == csr::OVERFLOW {
            s.record(page(None, READ));
        } else {
            s.rig.broken.insert(s.queue);
        }
        assert_eq!(s.errors(), 0);
        s
    }

    /// There is room again, and memory.
    fn mend(&mut self) {
        let tail = self.rig.read(reg::PQT, 4);
        self.rig.write(reg::PQH, 4, tail);
        self.rig.broken.clear();
    }
}

const ERRORS: [u64; 2] = [csr::OVERFLOW, csr::MEMORY_FAULT];

fn page(process_id: Option<u32>, rwl: [bool; 3]) -> Message {
    Message::Page {
        device_id: DEVICE,
        process_id,
        privileged: false,
        exec: false,
        rwl,
        prgi: 0x1a5,
        addr: ADDR,
    }
}

/// The queue is where `pqb` says, and after as many records as it says the first entry is next.
#[test]
fn base_and_size_are_those_of_pqb() {
    for (base, log2) in [
        (0xa5_5aa5_5aa5_a000, 1),
        (0x5a_a55a_a55a_5000, 2),
        (0x12_3456_7800_0000, 8),
        (0x12_3456_7800_2000, 9),
    ] {
        let mut s = Setup::new(1);
        PAGES.stop(&mut s.rig);
        s.rig.write(reg::PQB, 8, base >> 12 << 10 | (log2 - 1));
        PAGES.set(&mut s.rig, csr::ENABLE);
        for i in 0..(1 << log2) + 1 {
            let [index, next] = [i, i + 1].map(|i| i % (1 << log2));
            // Software takes it out at once.
            s.rig.write(reg::PQH, 4, index);
            s.rig.accesses.clear();
            s.rig.message(&page(None, READ));
            s.rig.run(60);
            let stores = s.rig.accesses.iter().filter(|a| a.op == 1);
            let stores: Vec<u64> = stores.map(|a| a.addr).collect();
            assert_eq!(stores, [base + 16 * index]);
            assert_eq!(s.rig.load(base + 16 * index) >> 40, DEVICE.into());
            assert_eq!(PAGES.index(&mut s.rig), next);
        }
    }
}

#[test]
fn a_full_queue_sets_pqof() {
    let mut s = Setup::new(2);
    for _ in 0..3 {
        s.record(page(None, READ));
        assert_eq!(s.errors(), 0);
    }
    s.rig.message(&page(None, READ));
    s.rig.run(100);
    assert_eq!(s.errors(), csr::OVERFLOW);
}

#[test]
fn a_fault_of_the_queues_memory_sets_pqmf() {
    let mut s = Setup::new(2);
    s.record(page(None, READ));
    assert_eq!(s.errors(), 0);
    s.rig.broken.insert(s.queue);
    s.rig.message(&page(None, READ));
    s.rig.run(100);
    assert_eq!(s.errors(), csr::MEMORY_FAULT);
}

/// That which sets the bit and those after it, also when there is room again, until it is cleared.
#[test]
fn messages_are_discarded_from_an_error_on() {
    for error in ERRORS {
        let mut s = Setup::before(error);
        let tail = s.rig.read(reg::PQT, 4);
        for _ in 0..2 {
            for rwl in [READ, LAST, STOP] {
                s.rig.message(&page(Some(7), rwl));
                s.rig.run(100);
                assert_eq!(s.errors(), error);
                assert_eq!(s.rig.read(reg::PQT, 4), tail);
                assert_eq!(s.load(tail), [ONES; 2]);
            }
            s.mend();
        }
        s.rig.write(reg::PQCSR, 4, csr::ENABLE | error);
        s.rig.message(&page(None, READ));
        s.rig.run(100);
        assert_eq!(s.errors(), 0);
        assert_eq!(s.rig.read(reg::PQT, 4), (tail + 1) % 2);
        assert_ne!(s.load(tail), [ONES; 2]);
    }
}

/// Neither answered nor reported; a last request is answered.
#[test]
fn what_needs_no_response_is_discarded_silently() {
    for error in ERRORS {
        for first in [page(None, READ), page(Some(7), READ), page(Some(7), STOP)] {
            let mut s = Setup::before(error);
            for message in [first, page(Some(7), STOP), page(Some(7), READ), first] {
                assert_eq!(s.answers(message), []);
                assert_eq!(s.errors(), error);
            }
            assert_eq!(s.answers(page(None, LAST)).len(), 1);
            assert_eq!(s.rig.records(), []);
        }
    }
}

/// As §2.7 says: Success if there is no room, Response Failure if there is no memory.
#[test]
fn a_discarded_last_request_is_answered() {
    for (error, code) in [(csr::OVERFLOW, SUCCESS), (csr::MEMORY_FAULT, FAILURE)] {
        let mut s = Setup::before(error);
        for rwl in [LAST, [true, false, true], [false, true, true]] {
            let response = Sent::Response {
                device_id: DEVICE.into(),
                process_id: None,
                prgi: 0x1a5,
                code,
            };
            assert_eq!(s.answers(page(None, rwl)), [response]);
            assert_eq!(s.errors(), error);
            s.mend();
        }
        // Software answers what is queued.
        s.rig.write(reg::PQCSR, 4, csr::ENABLE | error);
        assert_eq!(s.answers(page(None, LAST)), []);
    }
}

/// Either of them, and as long as it stands.
#[test]
fn an_error_bit_sets_pip_if_pie_is_1() {
    for error in ERRORS {
        let mut s = Setup::before(error);
        s.rig.message(&page(None, READ));
        s.rig.run(100);
        assert_eq!(s.errors(), error);
        assert_eq!(s.rig.read(reg::IPSR, 4), 0, "not enabled");
        s.rig.write(reg::PQCSR, 4, csr::ENABLE | csr::INTERRUPT);
        assert_eq!(s.rig.read(reg::IPSR, 4), PIP);
        s.rig.write(reg::IPSR, 4, PIP);
        assert_eq!(s.rig.read(reg::IPSR, 4), PIP);
        s.rig
            .write(reg::PQCSR, 4, csr::ENABLE | csr::INTERRUPT | error);
        s.rig.write(reg::IPSR, 4, PIP);
        assert_eq!(s.rig.read(reg::IPSR, 4), 0);
    }
}

#[test]
fn did_is_the_requester() {
    let mut s = Setup::new(5);
    for device in (0..24).map(|bit| 1 << bit).chain([0, 0xff_ffff]) {
        let message = Message::Page {
            device_id: device,
            process_id: None,
            privileged: false,
            exec: false,
            rwl: READ,
            prgi: 0,
            addr: 0,
        };
        assert_eq!(s.record(message)[0] >> 40, device.into());
    }
}

/// The first doubleword without DID.
fn of_process(s: &mut Setup, process_id: Option<u32>, privileged: bool, exec: bool) -> u64 {
    let message = Message::Page {
        device_id: DEVICE,
        process_id,
        privileged,
        exec,
        rwl: READ,
        prgi: 0x1ff,
        addr: ADDR,
    };
    s.record(message)[0] & !(0xff_ffff << 40)
}

const PV: u64 = 1 << 32;
const PRIV: u64 = 1 << 33;
const EXEC: u64 = 1 << 34;

#[test]
fn pv_and_pid_are_the_pasid() {
    let mut s = Setup::new(5);
    for pasid in (0..20).map(|bit| 1 << bit).chain([0, 0xf_ffff]) {
        let word = of_process(&mut s, Some(pasid), false, false);
        assert_eq!(word, PV | u64::from(pasid) << 12);
    }
    assert_eq!(of_process(&mut s, None, false, false), 0);
}

#[test]
fn priv_is_privileged_mode_requested_and_0_without_pasid() {
    let mut s = Setup::new(5);
    assert_eq!(of_process(&mut s, Some(0), true, false), PV | PRIV);
    assert_eq!(of_process(&mut s, Some(0), false, true), PV | EXEC);
    assert_eq!(of_process(&mut s, None, true, false), 0);
}

#[test]
fn exec_is_execute_requested_and_0_without_pasid() {
    let mut s = Setup::new(5);
    assert_eq!(of_process(&mut s, Some(0), false, true), PV | EXEC);
    assert_eq!(of_process(&mut s, Some(0), true, false), PV | PRIV);
    assert_eq!(of_process(&mut s, None, false, true), 0);
}

/// With 1 in all bits of the message, and in memory before.
#[test]
fn all_other_bits_of_the_first_doubleword_are_0() {
    let mut s = Setup::new(5);
    let message = Message::Page {
        device_id: 0xff_ffff,
        process_id: Some(0xf_ffff),
        privileged: true,
        exec: true,
        rwl: LAST,
        prgi: 0x1ff,
        addr: ONES,
    };
    let reserved = 0xfff | 0x1f << 35;
    assert_eq!(s.record(message), [!reserved, ONES]);
}

#[test]
fn payload_has_r_w_l_group_index_and_page_address() {
    let mut s = Setup::new(7);
    let mut payload = |rwl, prgi, addr| {
        let message = Message::Page {
            device_id: DEVICE,
            process_id: Some(7),
            privileged: true,
            exec: true,
            rwl,
            prgi,
            addr,
        };
        s.record(message)[1]
    };
    for bits in 1..8 {
        let rwl = [0, 1, 2].map(|i| bits >> i & 1 == 1);
        assert_eq!(payload(rwl, 0, 0), bits);
    }
    for bit in 0..9 {
        assert_eq!(payload(READ, 1 << bit, 0), 1 | 1 << (3 + bit));
    }
    for bit in 12..64 {
        assert_eq!(payload(READ, 0, 1 << bit), 1 | 1 << bit);
    }
}

/// `fctl` is written while nothing is on (§5.4).
#[test]
fn records_have_the_byte_order_of_fctl_be() {
    const DEVICE: u32 = 5;
    for big in [false, true] {
        let mut rig = Rig::new(35);
        rig.set_fctl(big.into());
        let vm = Vm::new(&mut rig, 0, 0);
        rig.directory(&[DEVICE], Context::of(&vm).tc(EN_ATS | EN_PRI));
        let queue = rig.page();
        rig.write(reg::PQB, 8, queue >> 12 << 10 | 1);
        PAGES.set(&mut rig, csr::ENABLE);
        rig.message(&Message::Page {
            device_id: DEVICE,
            process_id: Some(0x5_4321),
            privileged: true,
            exec: false,
            rwl: READ,
            prgi: 0x1a5,
            addr: ADDR,
        });
        rig.run(100);
        let first = u64::from(DEVICE) << 40 | PV | PRIV | 0x5_4321 << 12;
        let expected = [first, ADDR | 0x1a5 << 3 | 1];
        assert_eq!([0, 8].map(|i| rig.load_as(queue + i, big)), expected);
        assert_eq!(rig.read(reg::PQT, 4), 1);
    }
}
