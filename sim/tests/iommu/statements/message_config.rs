//! `iommu_qosid`, `icvec` and `msi_cfg_tbl`: IOMMU §5.27 to §5.29.

use super::queue::{COMMANDS, DEVICE, FAULTS, PAGES, setup};
use crate::bench::{command, csr, reg};
use crate::rig::{Request, Rig, Ttyp};
use crate::tables::pte;

const ONES: u64 = u64::MAX;
const ENABLED: u64 = csr::ENABLE | csr::INTERRUPT;
/// Bits that an address of a message has.
const ADDR: u64 = (1 << 56) - 4;
/// Where nothing else is.
const MESSAGE: u64 = 0xa5_5a5a_a5a5_5000;

const fn addr(vector: u32) -> u32 {
    reg::MSI_CFG_TBL + 16 * vector
}
const fn data(vector: u32) -> u32 {
    addr(vector) + 8
}
const fn control(vector: u32) -> u32 {
    addr(vector) + 12
}

/// With interrupts of all queues enabled.
fn enabled(wires: bool) -> Rig {
    let mut rig = setup(wires);
    for queue in [COMMANDS, FAULTS, PAGES] {
        queue.set(&mut rig, ENABLED);
    }
    rig
}

/// A new record, which makes an interrupt of the fault queue; the memory accesses that come of it.
fn fault(rig: &mut Rig) -> Vec<(u64, u64)> {
    let tail = rig.read(reg::FQT, 4);
    rig.write(reg::FQH, 4, tail);
    rig.write(reg::IPSR, 4, FAULTS.pending);
    let queue = FAULTS.memory(rig);
    FAULTS.feed(rig);
    assert_eq!(rig.read(reg::IPSR, 4) & FAULTS.pending, FAULTS.pending);
    let messages = rig.accesses.iter();
    let messages = messages.filter(|a| a.op == 1 && a.addr & !0xfff != queue);
    messages.map(|a| (a.addr, a.data & 0xffff_ffff)).collect()
}

/// RCID and MCID are those of the register, whatever they are.
const IDS: [(u64, u64); 3] = [(0xdef, 0xabc), (0x123, 0xed4), (0, 0)];

/// To every level of it.
#[test]
fn accesses_to_the_device_directory_carry_the_ids() {
    let mut rig = setup(false);
    let contexts = rig.read(reg::DDTP, 8) >> 10 << 12;
    let [root, middle] = [(); 2].map(|()| rig.page());
    rig.store(root, pte::at(middle, 1));
    rig.store(middle, pte::at(contexts, 1));
    rig.set_ddtp(0, 0);
    rig.set_ddtp(4, root);
    for ids in IDS {
        rig.write(reg::QOSID, 4, ids.1 << 16 | ids.0);
        rig.sync(&[command::iodir(None)]);
        rig.translate(Request::new(Ttyp::UntransRd, DEVICE, 0x1000));
        let reads = rig.accesses.iter();
        let reads = reads.map(|a| (a.addr & !0xfff, (a.rcid, a.mcid)));
        let expected = [root, middle, contexts].map(|page| (page, ids));
        assert_eq!(reads.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn accesses_to_the_page_request_queue_carry_the_ids() {
    let mut rig = setup(false);
    let queue = PAGES.memory(&mut rig);
    for ids in IDS {
        rig.write(reg::QOSID, 4, ids.1 << 16 | ids.0);
        rig.accesses.clear();
        PAGES.feed(&mut rig);
        let stores = rig.accesses.iter().filter(|a| a.addr & !0xfff == queue);
        let stores: Vec<_> = stores.map(|a| (a.op, (a.rcid, a.mcid))).collect();
        assert_eq!(stores, [(1, ids)]);
    }
}

#[test]
fn messages_carry_the_ids() {
    let mut rig = enabled(false);
    rig.write(addr(0), 8, MESSAGE);
    for ids in IDS {
        rig.write(reg::QOSID, 4, ids.1 << 16 | ids.0);
        fault(&mut rig);
        let messages = rig.accesses.iter().filter(|a| a.addr == MESSAGE);
        let messages: Vec<_> = messages.map(|a| (a.op, (a.rcid, a.mcid))).collect();
        assert_eq!(messages, [(1, ids)]);
    }
}

/// What is writable follows from the number of vectors: 16, 16 and 2.
#[test]
fn bits_of_icvec_beside_the_vectors_read_0() {
    for (mut rig, vectors) in [
        (Rig::new(81), 0xffff),
        (Rig::msi_flat(81), 0xffff),
        (Rig::other(81), 0x1111),
    ] {
        rig.write(reg::ICVEC, 8, ONES);
        assert_eq!(rig.read(reg::ICVEC, 8), vectors);
        rig.write(reg::ICVEC, 8, !0xffff);
        assert_eq!(rig.read(reg::ICVEC, 8), 0);
    }
    let mut rig = Rig::minimal(81);
    rig.write(reg::ICVEC, 8, ONES);
    // There is no cause for the upper two.
    assert_eq!(rig.read(reg::ICVEC, 8) & !0xff00, 0xff);
}

#[test]
fn with_wires_the_vector_selects_the_wire() {
    for icvec in [0x3210_u64, 0xc5e9, 0x7777, 0xfedc] {
        let mut rig = enabled(true);
        rig.write(reg::ICVEC, 8, icvec);
        assert_eq!(rig.wires(), 0);
        let mut expected = 0;
        let mut check = |source: u32, cause: fn(&mut Rig)| {
            cause(&mut rig);
            expected |= 1 << (icvec >> (4 * source) & 0xf);
            assert_eq!(rig.wires(), expected, "{icvec:#x} {source}");
        };
        // An illegal command.
        check(0, |rig| {
            let at = COMMANDS.memory(rig) + 16 * COMMANDS.index(rig);
            rig.store(at, 0);
            let tail = rig.read(reg::CQT, 4);
            rig.write(reg::CQT, 4, tail + 1);
            rig.run(100);
        });
        check(1, |rig| FAULTS.feed(rig));
        check(2, |rig| {
            rig.write(reg::IOHPMCYCLES, 8, ONES >> 1);
            rig.run(10);
        });
        check(3, |rig| PAGES.feed(rig));
        assert_eq!(rig.read(reg::IPSR, 4), 0xf);
        rig.write(reg::IPSR, 4, 0xe);
        assert_eq!(rig.wires(), 1 << (icvec & 0xf), "the illegal command");
    }
}

#[test]
fn msi_addr_is_bits_55_to_2() {
    let mut rig = enabled(false);
    for vector in 0..16 {
        rig.write(addr(vector), 8, ONES);
        assert_eq!(rig.read(addr(vector), 8), ADDR);
        rig.write(addr(vector), 8, !ADDR);
        assert_eq!(rig.read(addr(vector), 8), 0);
    }
    // The message goes there.
    for bit in 0..64 {
        let value = MESSAGE ^ 1 << bit;
        rig.write(addr(0), 8, value);
        assert_eq!(rig.read(addr(0), 8), value & ADDR);
        assert_eq!(fault(&mut rig), [(value & ADDR, 0)]);
    }
}

#[test]
fn msi_data_has_32_bits() {
    let mut rig = enabled(false);
    rig.write(addr(0), 8, MESSAGE);
    for vector in 0..16 {
        for value in (0..32).map(|bit| 1 << bit).chain([0xffff_ffff, 0]) {
            rig.write(data(vector), 4, value);
            assert_eq!(rig.read(data(vector), 4), value);
            if vector == 0 {
                assert_eq!(fault(&mut rig), [(MESSAGE, value)]);
            }
        }
    }
}

#[test]
fn msi_vec_ctl_is_m_alone() {
    let mut rig = Rig::new(82);
    for vector in 0..16 {
        for (written, read) in [(ONES, 1), (0, 0), (1, 1), (!1, 0)] {
            rig.write(control(vector), 4, written);
            assert_eq!(rig.read(control(vector), 4), read);
        }
    }
}

/// Its address, its data, and its mask.
#[test]
fn each_vector_has_its_entry() {
    let mut rig = enabled(false);
    let message = |vector: u32| {
        (
            MESSAGE + 0xc4 * u64::from(vector),
            0xda7a + u64::from(vector),
        )
    };
    for vector in 0..16 {
        let (to, what) = message(vector);
        rig.write(addr(vector), 8, to);
        rig.write(data(vector), 4, what);
    }
    for vector in 0..16 {
        let (to, what) = message(vector);
        assert_eq!(rig.read(addr(vector), 8), to);
        assert_eq!(rig.read(data(vector), 8), what);
    }
    for masked in 0..16 {
        rig.write(control(masked), 4, 1);
        for vector in 0..16 {
            rig.write(reg::ICVEC, 8, u64::from(vector) << 4);
            let expected = if vector == masked {
                vec![]
            } else {
                vec![message(vector)]
            };
            assert_eq!(fault(&mut rig), expected, "{vector} {masked}");
        }
        // What is pending is sent now.
        rig.accesses.clear();
        rig.write(control(masked), 4, 0);
        rig.run(100);
        let sent: Vec<u64> = rig.accesses.iter().map(|a| a.addr).collect();
        assert_eq!(sent, [message(masked).0]);
    }
}

/// In either half of a doubleword; what is beside it stays.
#[test]
fn a_message_is_a_store_of_4_bytes() {
    let mut rig = enabled(false);
    for to in (MESSAGE..MESSAGE + 64).step_by(4) {
        for at in (MESSAGE - 8..MESSAGE + 72).step_by(8) {
            rig.store(at, 0x1111_1111_1111_1111);
        }
        rig.write(addr(0), 8, to);
        rig.write(data(0), 4, 0x89ab_cdef);
        assert_eq!(fault(&mut rig), [(to, 0x89ab_cdef)]);
        for at in (MESSAGE - 8..MESSAGE + 72).step_by(4) {
            let word = rig.load(at & !7) >> (8 * (at & 4)) & 0xffff_ffff;
            let expected = if at == to { 0x89ab_cdef } else { 0x1111_1111 };
            assert_eq!(word, expected, "{at:#x} {to:#x}");
        }
    }
}

/// Of an address, and of another that has all of its other bits.
#[test]
fn a_message_that_faults_reports_its_whole_address() {
    let mut rig = enabled(false);
    for to in [MESSAGE + 4, ADDR & !(MESSAGE + 4)] {
        rig.broken.insert(to & !0xfff);
        rig.write(addr(0), 8, to);
        FAULTS.feed(&mut rig);
        let records = rig.records();
        assert_eq!(records.len(), 2, "{records:x?}");
        let record = records[1];
        assert_eq!((record.cause, record.ttyp, record.iotval), (273, 0, to));
        rig.write(reg::IPSR, 4, FAULTS.pending);
    }
}
