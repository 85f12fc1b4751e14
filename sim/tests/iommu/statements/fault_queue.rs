//! The fault queue: IOMMU §3.2.

mod dtf;

use crate::bench::{csr, reg};
use crate::rig::{Context, Message, Mrif, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, SV57, pte, tc};

const DEVICE: u32 = 5;
const PID: u32 = 3;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
/// An interrupt file: its IOVA and its guest address.
const MSI: u64 = IOVA + 0x1000;
const FILE: u64 = 0x2800_0000;
/// Where messages of the IOMMU go.
const IMSIC: u64 = 0x2400_0000;
const ALL: u64 = pte::ALL;
const EN_ATS: u64 = 1 << 1;
const T2GPA: u64 = 1 << 3;
const FIP: u64 = 2;
const ONES: u64 = u64::MAX;
/// A guest page fault of a read (21) of the device, its first doubleword.
const GUEST_FAULT: u64 = 21 | 2 << 34 | (DEVICE as u64) << 40;

/// A device with everything: both stages, a process, and an interrupt file.
pub(super) struct Setup {
    pub rig: Rig,
    pub vm: Vm,
    /// Root of the process directory, a guest address.
    pub root: u64,
    /// MSI page table.
    pub files: u64,
    pub ddt: u64,
    pub context: Context,
}

impl Setup {
    /// With these bits of `tc` beside V and PDTV.
    pub fn new(bits: u64) -> Self {
        let mut rig = Rig::new(31);
        let mut vm = Vm::new(&mut rig, SV39, SV39);
        vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, ALL));
        vm.map_first(&mut rig, MSI, 0, pte::at(FILE, ALL));
        vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, ALL));
        let root = vm.table(&mut rig);
        let process = Process::of(&vm);
        rig.set_process(&mut vm, root, pd::PD8, PID, process, false);
        let files = rig.page();
        rig.store(files, IMSIC >> 12 << 10 | 3 << 1 | 1);
        let context = Context {
            fsc: pd::PD8 << 60 | root >> 12,
            msi: [1 << 60 | files >> 12, 0, FILE >> 12],
            ..Context::of(&vm).tc(tc::PDTV | bits)
        };
        let ddt = rig.directory(&[DEVICE], context);
        Self {
            rig,
            vm,
            root,
            files,
            ddt,
            context,
        }
    }

    pub fn request(ttyp: Ttyp, iova: u64) -> Request {
        Request::new(ttyp, DEVICE, iova).of(PID)
    }

    /// The table of the first stage with the leaf of [`IOVA`].
    pub fn first_table(&mut self) -> u64 {
        let entry = self.vm.first_entry(&mut self.rig, IOVA, 0);
        self.vm.physical(entry) & !0xfff
    }

    /// Puts the interrupt file into memory and translates a write of 7 to it.
    pub fn file_in_memory(&mut self) -> Mrif {
        let file = self.rig.page();
        self.rig.store(self.files, file >> 9 << 7 | 1 << 1 | 1);
        self.rig.store(self.files + 8, IMSIC >> 12 << 10 | 1);
        let request = Self::request(Ttyp::UntransWr, MSI);
        let answer = self.rig.translate(request);
        assert_eq!((answer.is_mrif, answer.mrif), (true, file));
        Mrif {
            request,
            answer,
            data: 7,
        }
    }
}

/// No device is valid: every request is cause 258.
fn nobody() -> Rig {
    let mut rig = Rig::new(32);
    let root = rig.page();
    rig.set_ddtp(4, root);
    rig
}

/// The last request of a group.
fn page_request(device_id: u32, process_id: Option<u32>) -> Message {
    Message::Page {
        device_id,
        process_id,
        privileged: true,
        exec: true,
        rwl: [true; 3],
        prgi: 0x1a5,
        addr: IOVA,
    }
}

/// A message of the IOMMU that meets an access fault: an interrupt of the command queue.
fn message_that_faults(rig: &mut Rig) {
    rig.broken.insert(IMSIC);
    rig.write(reg::MSI_CFG_TBL, 8, IMSIC | 0x123 << 2);
    rig.write(reg::CQCSR, 4, csr::ENABLE | csr::INTERRUPT);
    rig.hand_over(&[[0, 0]]);
    rig.run(100);
}

/// The record that `index` is of in the queue at `base`.
fn load(rig: &Rig, base: u64, index: u64) -> [u64; 4] {
    [0, 8, 16, 24].map(|i| rig.load(base + 32 * index + i))
}

/// The one record that `act` leaves, in the rig's own queue.
fn record(rig: &mut Rig, act: impl FnOnce(&mut Rig)) -> [u64; 4] {
    let index = rig.read(reg::FQT, 4);
    act(rig);
    rig.run(100);
    assert_eq!(rig.read(reg::FQT, 4), index + 1);
    load(rig, rig.fault_queue(), index)
}

/// The record of a request that faults.
fn record_of(rig: &mut Rig, request: Request) -> [u64; 4] {
    record(rig, |rig| assert_ne!(rig.ask(request).cause, 0))
}

/// Turns the queue off, and on at `base` with 2 to the power of `log2` records.
fn set_queue(rig: &mut Rig, base: u64, log2: u64) {
    rig.write(reg::FQCSR, 4, 0);
    while rig.read(reg::FQCSR, 4) & csr::ON != 0 {}
    rig.write(reg::FQB, 8, base >> 12 << 10 | (log2 - 1));
    rig.write(reg::FQH, 4, 0);
    rig.write(reg::FQCSR, 4, csr::ENABLE);
    while rig.read(reg::FQCSR, 4) & csr::ON == 0 {}
}

/// A device with a second stage in which nothing is mapped.
fn guest(second: u64, big: bool) -> Rig {
    let mut rig = Rig::new(33);
    rig.set_fctl(big.into());
    let vm = Vm::new(&mut rig, 0, second);
    rig.directory(&[DEVICE], Context::of(&vm));
    rig
}

const fn read(device: u32, iova: u64) -> Request {
    Request::new(Ttyp::UntransRd, device, iova)
}

#[test]
fn a_record_has_32_bytes() {
    let mut rig = guest(SV39, false);
    let base = rig.fault_queue();
    for at in (base..base + 4 * 32).step_by(8) {
        rig.store(at, ONES);
    }
    for index in 0..3 {
        rig.ask(read(DEVICE, GPA + (index << 12)));
        rig.run(100);
        for i in 0..4 {
            let gpa = GPA + (i << 12);
            let expected = match i <= index {
                true => [GUEST_FAULT, 0, gpa, gpa],
                false => [ONES; 4],
            };
            assert_eq!(load(&rig, base, i), expected, "{i} after {index}");
        }
    }
}

/// The queue is where `fqb` says, and after as many records as it says the first is written again.
#[test]
fn base_and_size_are_those_of_fqb() {
    for (base, log2) in [
        (0xa5_5aa5_5aa5_a000, 1),
        (0x5a_a55a_a55a_5000, 2),
        (0x12_3456_7800_0000, 8),
    ] {
        let mut rig = nobody();
        set_queue(&mut rig, base, log2);
        for i in 0..(1 << log2) + 1 {
            let index = i % (1 << log2);
            rig.ask(read(i as u32, 0));
            rig.run(20);
            let stores = rig.accesses.iter().filter(|a| a.op == 1);
            let stores: Vec<u64> = stores.map(|a| a.addr).collect();
            assert_eq!(stores, [base + 32 * index]);
            assert_eq!(load(&rig, base, index)[0], 258 | 2 << 34 | i << 40);
            let tail = (index + 1) % (1 << log2);
            assert_eq!(rig.read(reg::FQT, 4), tail);
            rig.write(reg::FQH, 4, tail);
        }
    }
}

/// By one for each record, and not before the record is in memory.
#[test]
fn fqt_advances_by_1_after_each_record() {
    let mut rig = nobody();
    for index in 0..5 {
        assert_eq!(rig.read(reg::FQT, 4), index);
        rig.held = Some(rig.fault_queue() + 32 * index);
        rig.ask(read(1, 0));
        rig.run(100);
        assert_eq!(rig.read(reg::FQT, 4), index, "not yet written");
        rig.held = None;
        rig.run(20);
        assert_eq!(rig.read(reg::FQT, 4), index + 1);
    }
}

#[test]
fn records_have_the_byte_order_of_fctl_be() {
    for big in [false, true] {
        let mut rig = guest(SV39, big);
        let words = record_of(&mut rig, read(DEVICE, GPA | 0x678));
        let expected = [GUEST_FAULT, 0, GPA | 0x678, GPA | 0x678];
        let order = |word: u64| if big { word.swap_bytes() } else { word };
        assert_eq!(words, expected.map(order));
    }
}

/// Whatever the memory had before, and whoever has caused the fault.
#[test]
fn reserved_bits_of_a_record_are_0() {
    let mut rig = guest(SV39, false);
    let base = rig.fault_queue();
    for at in (base..base + 4096).step_by(8) {
        rig.store(at, ONES);
    }
    let records = [
        record_of(&mut rig, read(DEVICE, GPA)),
        record_of(&mut rig, read(0x3f, ONES).of(0xf_ffff).privileged()),
        record(&mut rig, |rig| {
            rig.message(&page_request(0x3f, Some(0xf_ffff)));
        }),
        record(&mut rig, message_that_faults),
    ];
    let causes = records.map(|words| words[0] & 0xfff);
    assert_eq!(causes, [21, 258, 258, 273]);
    for words in records {
        assert_eq!(words[1] >> 32, 0);
    }
}

const fn ttyp(words: [u64; 4]) -> u64 {
    words[0] >> 34 & 0x3f
}

/// TTYP, where the cause says as well what the transaction was. Nothing is mapped by either stage;
/// translated requests have guest addresses.
fn ttyp_of(request: Ttyp, cause: u64) -> u64 {
    let mut s = Setup::new(EN_ATS | T2GPA);
    let mut request = Request::new(request, DEVICE, IOVA + 0x8_0000);
    if matches!(
        request.ttyp,
        Ttyp::UntransRx | Ttyp::UntransRd | Ttyp::UntransWr
    ) {
        request = request.of(PID);
    }
    let words = record_of(&mut s.rig, request);
    assert_eq!(words[0] & 0xfff, cause);
    ttyp(words)
}

#[test]
fn ttyp_0_is_a_fault_that_no_transaction_has_caused() {
    let mut rig = nobody();
    assert_eq!(ttyp(record_of(&mut rig, read(1, 0))), 2);
    let words = record(&mut rig, message_that_faults);
    assert_eq!((words[0] & 0xfff, ttyp(words)), (273, 0));
}

#[test]
fn ttyp_1_is_an_untranslated_read_for_execute() {
    assert_eq!(ttyp_of(Ttyp::UntransRx, 12), 1);
}

#[test]
fn ttyp_2_is_an_untranslated_read() {
    assert_eq!(ttyp_of(Ttyp::UntransRd, 13), 2);
}

#[test]
fn ttyp_3_is_an_untranslated_write() {
    assert_eq!(ttyp_of(Ttyp::UntransWr, 15), 3);
}

#[test]
fn ttyp_5_is_a_translated_read_for_execute() {
    assert_eq!(ttyp_of(Ttyp::TransRx, 20), 5);
}

#[test]
fn ttyp_6_is_a_translated_read() {
    assert_eq!(ttyp_of(Ttyp::TransRd, 21), 6);
}

#[test]
fn ttyp_7_is_a_translated_write() {
    assert_eq!(ttyp_of(Ttyp::TransWr, 23), 7);
}

/// Without EN_ATS, as a fault of a page is none of a translation request.
#[test]
fn ttyp_8_is_a_translation_request() {
    let mut s = Setup::new(0);
    let words = record_of(&mut s.rig, Request::new(Ttyp::AtsReq, DEVICE, IOVA));
    assert_eq!((words[0] & 0xfff, ttyp(words)), (260, 8));
}

#[test]
fn ttyp_9_is_a_message() {
    let mut s = Setup::new(EN_ATS);
    let words = record(&mut s.rig, |rig| {
        rig.message(&page_request(DEVICE, None));
    });
    assert_eq!((words[0] & 0xfff, ttyp(words)), (260, 9));
}

/// All of it, as the device has sent it.
#[test]
fn iotval_of_a_transaction_is_its_iova() {
    let mut rig = nobody();
    for kind in [
        Ttyp::UntransRx,
        Ttyp::UntransRd,
        Ttyp::UntransWr,
        Ttyp::TransRx,
        Ttyp::TransRd,
        Ttyp::TransWr,
        Ttyp::AtsReq,
    ] {
        for iova in [0xa5c3_9687_f00f_5a3c, 0x5a3c_6978_0ff0_a5c3] {
            let words = record_of(&mut rig, Request::new(kind, 1, iova));
            assert_eq!((words[0] & 0xfff, words[2]), (258, iova));
        }
    }
}

/// 0x04 is a Page Request (PCIe 6.0 §10.4.1), with or without PASID.
#[test]
fn iotval_of_a_message_is_its_code() {
    let mut rig = nobody();
    for pasid in [None, Some(7)] {
        let words = record(&mut rig, |rig| rig.message(&page_request(1, pasid)));
        assert_eq!((ttyp(words), words[2]), (9, 4));
    }
}

#[test]
fn did_is_the_device_id_of_the_transaction() {
    let mut rig = nobody();
    for device in (0..24).map(|bit| 1 << bit).chain([0, 0xff_ffff]) {
        let words = record_of(&mut rig, read(device, ONES));
        assert_eq!(words[0] >> 40, device.into());
        let words = record(&mut rig, |rig| {
            rig.message(&page_request(device, None));
        });
        assert_eq!((ttyp(words), words[0] >> 40), (9, device.into()));
    }
}

/// PV, PRIV and PID.
const fn process(words: [u64; 4]) -> (u64, u64, u64) {
    (
        words[0] >> 32 & 1,
        words[0] >> 33 & 1,
        words[0] >> 12 & 0xf_ffff,
    )
}

/// Also if the device has asked for privilege, and also with DPE, which makes it process 0.
#[test]
fn without_process_id_pv_pid_and_priv_are_0() {
    let mut rig = nobody();
    let request = read(1, 0);
    let words = record_of(&mut rig, request.of(0xf_ffff).privileged());
    assert_eq!(process(words), (1, 1, 0xf_ffff));
    assert_eq!(
        process(record_of(&mut rig, request.privileged())),
        (0, 0, 0)
    );
    let pasid = |pasid| move |rig: &mut Rig| rig.message(&page_request(1, pasid));
    let words = record(&mut rig, pasid(Some(0xf_ffff)));
    assert_eq!(process(words), (1, 1, 0xf_ffff));
    assert_eq!(process(record(&mut rig, pasid(None))), (0, 0, 0));
    let mut s = Setup::new(1 << 9);
    let words = record_of(&mut s.rig, read(DEVICE, IOVA).privileged());
    assert_eq!((words[0] & 0xfff, process(words)), (266, (0, 0, 0)));
}

#[test]
fn with_a_process_id_pv_is_1_and_pid_is_it() {
    let mut rig = nobody();
    for pid in (0..20).map(|bit| 1 << bit).chain([0, 0xf_ffff]) {
        let words = record_of(&mut rig, read(0xff_ffff, ONES).of(pid));
        assert_eq!(process(words), (1, 0, pid.into()));
        let words = record(&mut rig, |rig| {
            rig.message(&page_request(0, Some(pid)));
        });
        assert_eq!(process(words), (1, 1, pid.into()));
    }
}

#[test]
fn priv_is_1_if_the_transaction_had_supervisor_privilege() {
    let mut rig = nobody();
    for kind in [
        Ttyp::UntransRx,
        Ttyp::UntransRd,
        Ttyp::UntransWr,
        Ttyp::AtsReq,
    ] {
        let request = Request::new(kind, 1, 0).of(0);
        assert_eq!(process(record_of(&mut rig, request)), (1, 0, 0));
        let words = record_of(&mut rig, request.privileged());
        assert_eq!(process(words), (1, 1, 0));
    }
}

/// A message of the IOMMU, and the notice of an interrupt file, which a process of a device has
/// caused.
#[test]
fn with_ttyp_0_did_pv_pid_and_priv_are_0() {
    let mut rig = nobody();
    let request = read(0xff_ffff, ONES).of(0xf_ffff).privileged();
    assert_eq!(
        record_of(&mut rig, request)[0] >> 12,
        ONES >> 12 & !(0x3d << 22)
    );
    let words = record(&mut rig, message_that_faults);
    assert_eq!([words[0], words[2]], [273, IMSIC | 0x123 << 2]);
    let mut s = Setup::new(0);
    let msi = s.file_in_memory();
    s.rig.broken.insert(IMSIC);
    let words = record(&mut s.rig, |rig| rig.store_msi(&msi));
    assert_eq!([words[0], words[2]], [273, IMSIC]);
}

/// A fault of an interrupt file in memory is one of the write to it.
#[test]
fn a_fault_of_an_interrupt_file_is_of_its_transaction() {
    for (access, cause) in [(true, 264), (false, 271)] {
        let mut s = Setup::new(0);
        let mut msi = s.file_in_memory();
        let page = msi.answer.mrif;
        if access {
            s.rig.broken.insert(page);
        } else {
            s.rig.corrupt.insert(page);
        }
        let of_process = Request::new(Ttyp::UntransWr, 0xa5_5a3c, MSI).of(0xa_63c5);
        for (request, who) in [
            (of_process, (1, 0, 0xa_63c5)),
            (of_process.privileged(), (1, 1, 0xa_63c5)),
            (Request::new(Ttyp::UntransWr, 0x5a_a5c3, MSI), (0, 0, 0)),
        ] {
            msi.request = request;
            let words = record(&mut s.rig, |rig| rig.store_msi(&msi));
            assert_eq!((words[0] & 0xfff, ttyp(words)), (cause, 3));
            assert_eq!(words[0] >> 40, request.device_id.into());
            assert_eq!(process(words), who);
            assert_eq!(words[2], MSI);
        }
    }
}

/// With all 59 bits of the widest scheme, and those beyond, for which there is no page.
#[test]
fn iotval2_of_a_guest_page_fault_is_the_guest_address() {
    let mut rig = guest(SV57, false);
    for gpa in [
        0x5a3_5a3c_6978_a5c3,
        0x7ff_ffff_ffff_ffff,
        0xa5c3_9687_f00f_5a3c,
    ] {
        let words = record_of(&mut rig, read(DEVICE, gpa));
        assert_eq!((words[0], words[3]), (GUEST_FAULT, gpa & !3));
    }
    // Behind a first stage it is not the IOVA.
    let mut s = Setup::new(0);
    s.vm.map_second(&mut s.rig, GPA, 0, 0);
    for (kind, cause) in [
        (Ttyp::UntransRx, 20),
        (Ttyp::UntransRd, 21),
        (Ttyp::UntransWr, 23),
    ] {
        let words = record_of(&mut s.rig, Setup::request(kind, IOVA | 0xabd));
        assert_eq!(words[0] & 0xfff, cause);
        assert_eq!(words[2..], [IOVA | 0xabd, GPA | 0xabc]);
    }
    // That of a translated request is a guest address.
    let mut s = Setup::new(EN_ATS | T2GPA);
    let gpa = GPA + 0x8_0abd;
    for (kind, cause) in [
        (Ttyp::TransRx, 20),
        (Ttyp::TransRd, 21),
        (Ttyp::TransWr, 23),
    ] {
        let words = record_of(&mut s.rig, Request::new(kind, DEVICE, gpa));
        assert_eq!(words[0] & 0xfff, cause);
        assert_eq!(words[2..], [gpa, gpa & !3]);
    }
}

/// Either of them, and as long as it stands.
#[test]
fn an_error_bit_sets_fip_if_fie_is_1() {
    for (bit, overflow) in [(csr::OVERFLOW, true), (csr::MEMORY_FAULT, false)] {
        let mut rig = nobody();
        let base = rig.page();
        set_queue(&mut rig, base, 1);
        if overflow {
            rig.ask(read(1, 0));
        } else {
            rig.broken.insert(base);
        }
        rig.ask(read(1, 0));
        rig.run(100);
        let errors = csr::OVERFLOW | csr::MEMORY_FAULT;
        assert_eq!(rig.read(reg::FQCSR, 4) & errors, bit);
        assert_eq!(rig.read(reg::IPSR, 4), 0, "not enabled");
        rig.write(reg::FQCSR, 4, csr::ENABLE | csr::INTERRUPT);
        assert_eq!(rig.read(reg::IPSR, 4), FIP);
        rig.write(reg::IPSR, 4, FIP);
        assert_eq!(rig.read(reg::IPSR, 4), FIP);
        rig.write(reg::FQCSR, 4, csr::ENABLE | csr::INTERRUPT | bit);
        rig.write(reg::IPSR, 4, FIP);
        assert_eq!(rig.read(reg::IPSR, 4), 0);
    }
}
