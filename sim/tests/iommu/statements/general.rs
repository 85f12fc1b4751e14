//! Chapter 1, the debug interface, and what chapters 6 and 7 say.

mod fields;

use super::fault_queue::Setup;
use crate::bench::{csr, reg};
use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, SV57, pte, tc};

const DEVICE: u32 = 5;
const PID: u64 = 3;
const IOVA: u64 = 0x12_3456_7000;
const MSI: u64 = IOVA + 0x1000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const ALL: u64 = pte::ALL;
const EN_ATS: u64 = 1 << 1;
const T2GPA: u64 = 1 << 3;
const DPE: u64 = 1 << 9;
/// `PC.ta`.
const ENS: u64 = 1 << 1;

/// `tr_req_ctl`.
const GO: u64 = 1;
const NW: u64 = 1 << 3;
/// A read of the device by the process of [`Setup`].
const DEBUG_READ: u64 = NW | PID << 12 | 1 << 32 | (DEVICE as u64) << 40;
/// `tr_response` of [`PAGE`].
const RESPONSE: u64 = PAGE >> 12 << 10;

/// Begins a translation through the debug interface.
fn go(rig: &mut Rig, iova: u64) {
    rig.write(reg::TR_REQ_IOVA, 8, iova);
    rig.write(reg::TR_REQ_CTL, 8, DEBUG_READ | GO);
}

fn busy(rig: &mut Rig) -> bool {
    rig.read(reg::TR_REQ_CTL, 8) & GO != 0
}

/// `tr_response` when the translation has ended.
fn debug(rig: &mut Rig, iova: u64) -> u64 {
    go(rig, iova);
    rig.run(500);
    assert!(!busy(rig));
    rig.read(reg::TR_RESPONSE, 8)
}

fn read(iova: u64) -> Request {
    Setup::request(Ttyp::UntransRd, iova)
}

/// Not as a translated or a translation request: those need EN_ATS, and with T2GPA a translated one
/// passes the second stage only.
#[test]
fn a_debug_request_is_an_untranslated_one() {
    let mut s = Setup::new(0);
    for ttyp in [Ttyp::TransRd, Ttyp::AtsReq] {
        s.rig.fault(Setup::request(ttyp, IOVA), 260);
    }
    assert_eq!(debug(&mut s.rig, IOVA), RESPONSE);
    let mut s = Setup::new(EN_ATS | T2GPA);
    s.rig.fault(Setup::request(Ttyp::TransRd, IOVA), 21);
    assert_eq!(debug(&mut s.rig, IOVA), RESPONSE);
}

#[test]
fn a_debug_request_is_counted_as_an_untranslated_one() {
    let mut s = Setup::new(EN_ATS);
    let counts = |rig: &mut Rig| [0, 1, 2].map(|i| rig.read(reg::IOHPMCTR + 8 * i, 8));
    for event in 1..4 {
        s.rig
            .write(reg::IOHPMEVT + 8 * (event - 1), 8, event.into());
    }
    for count in 1..4 {
        debug(&mut s.rig, IOVA);
        assert_eq!(counts(&mut s.rig), [count, 0, 0]);
    }
    s.rig.translate(Setup::request(Ttyp::TransRd, IOVA));
    s.rig.translate(Setup::request(Ttyp::AtsReq, IOVA));
    assert_eq!(counts(&mut s.rig), [3, 1, 1]);
}

/// Neither the address nor the rest of `tr_req_ctl` does.
#[test]
fn setting_go_starts_the_request() {
    let mut s = Setup::new(0);
    s.rig.accesses.clear();
    s.rig.write(reg::TR_REQ_IOVA, 8, IOVA);
    s.rig.write(reg::TR_REQ_CTL, 8, DEBUG_READ);
    s.rig.run(500);
    assert_eq!(s.rig.accesses, []);
    assert_eq!(s.rig.read(reg::TR_RESPONSE, 8), 0);
    s.rig.write(reg::TR_REQ_CTL, 8, DEBUG_READ | GO);
    s.rig.run(500);
    assert_eq!(s.rig.accesses[0].addr, s.ddt + 64 * u64::from(DEVICE));
    assert_eq!(s.rig.read(reg::TR_RESPONSE, 8), RESPONSE);
}

/// Go/Busy is a write-1-to-set bit: writing 0 to it has no effect.
#[test]
fn go_is_not_cleared_by_writing() {
    let mut s = Setup::new(0);
    s.rig.held = Some(s.ddt + 64 * u64::from(DEVICE));
    go(&mut s.rig, IOVA);
    for _ in 0..3 {
        s.rig.write(reg::TR_REQ_CTL, 8, DEBUG_READ);
        assert!(busy(&mut s.rig));
        s.rig.write(reg::TR_REQ_CTL, 4, DEBUG_READ & 0xffff_ffff);
        assert!(busy(&mut s.rig));
    }
    s.rig.held = None;
    s.rig.run(500);
    assert!(!busy(&mut s.rig));
    assert_eq!(s.rig.read(reg::TR_RESPONSE, 8), RESPONSE);
}

/// Not before, and with a fault too.
#[test]
fn busy_reads_0_when_the_process_has_ended() {
    for (iova, response) in [(IOVA, RESPONSE), (IOVA + 0x8_0000, 1)] {
        let mut s = Setup::new(0);
        s.rig.held = Some(s.ddt + 64 * u64::from(DEVICE));
        go(&mut s.rig, iova);
        s.rig.run(1000);
        assert!(busy(&mut s.rig));
        s.rig.held = None;
        s.rig.run(500);
        assert!(!busy(&mut s.rig));
        assert_eq!(s.rig.read(reg::TR_RESPONSE, 8), response);
    }
}

/// The device asks without a gap, for what is held, and for what faults and is walked each time.
#[test]
fn a_debug_request_ends_beside_requests_of_devices() {
    const OTHER: u64 = IOVA + 0x2000;
    for (iova, cause) in [(IOVA, 0), (IOVA + 0x8_0000, 13)] {
        let mut s = Setup::new(tc::DTF);
        s.vm.map_first(&mut s.rig, OTHER, 0, pte::at(GPA, ALL));
        assert_eq!(s.rig.ask(read(iova)).cause, cause);
        let response = s.rig.beside(read(iova), |rig| {
            rig.run(100);
            debug(rig, OTHER)
        });
        assert_eq!(response, RESPONSE);
    }
}

/// Writing 0xF to a field shows its writable bits; the last of the vectors that they can name sends
/// its message or drives its wire.
#[test]
fn icvec_shows_how_many_vectors_there_are() {
    const MESSAGE: u64 = 0x2400_0000;
    for (mut rig, bits, wired) in [
        (Rig::new(35), 4, false),
        (Rig::minimal(35), 4, true),
        (Rig::other(35), 1, false),
    ] {
        let last = (1 << bits) - 1;
        for field in 0..4 {
            // Without ATS and without HPM there is no cause for the last two.
            if wired && field > 1 {
                continue;
            }
            rig.write(reg::ICVEC, 8, 0xf << (4 * field));
            assert_eq!(rig.read(reg::ICVEC, 8), last << (4 * field));
        }
        // The fault queue's.
        rig.write(reg::ICVEC, 8, 0xf0);
        let row = reg::MSI_CFG_TBL + 16 * last as u32;
        rig.write(row, 8, MESSAGE);
        rig.write(row + 8, 8, 0x77);
        rig.write(reg::FQCSR, 4, csr::ENABLE | csr::INTERRUPT);
        rig.accesses.clear();
        let translated = Request::new(Ttyp::TransRd, 1, 0);
        assert_ne!(rig.ask(translated).cause, 0);
        rig.run(200);
        let wires = if wired { 1 << last } else { 0 };
        assert_eq!(u64::from(rig.wires()), wires);
        let messages = rig.accesses.iter().filter(|a| a.addr == MESSAGE);
        let messages: Vec<(u64, u64)> = messages.map(|a| (a.op, a.data)).collect();
        assert_eq!(messages, if wired { vec![] } else { vec![(1, 0x77)] });
    }
}

/// A mode that is supported is read back, another is not.
#[test]
fn ddtp_shows_which_modes_are_supported() {
    for (mut rig, last) in [
        (Rig::new(36), 4),
        (Rig::minimal(36), 4),
        (Rig::other(36), 3),
    ] {
        let root = rig.page();
        for mode in 0..16 {
            rig.set_ddtp(0, root);
            rig.set_ddtp(mode, root);
            let read_back = rig.read(reg::DDTP, 8) & 0xf;
            assert_eq!(read_back == mode, mode <= last, "{mode}: {read_back}");
        }
    }
}

/// Corrupt data of this page is this cause, answered with CA (2), with a record; an access fault has
/// another cause. Mended, the IOMMU goes on.
fn corrupt(page: fn(&mut Setup) -> u64, request: Request, cause: u64, access_fault: u64) {
    let mut s = Setup::new(0);
    let page = page(&mut s);
    let spa = s.rig.translate(request).spa;
    s.rig.forget();
    s.rig.corrupt.insert(page);
    let answer = s.rig.ask(request);
    assert_eq!((answer.cause, answer.status), (cause, 2));
    let records: Vec<u64> = s.rig.records().iter().map(|r| r.cause).collect();
    assert_eq!(records, [cause]);
    s.rig.corrupt.clear();
    s.rig.broken.insert(page);
    s.rig.fault(request, access_fault);
    s.rig.broken.clear();
    assert_eq!(s.rig.translate(request).spa, spa);
}

#[test]
fn corrupt_data_of_the_device_directory() {
    corrupt(|s| s.ddt, read(IOVA), 268, 257);
}

#[test]
fn corrupt_data_of_the_process_directory() {
    corrupt(|s| s.vm.physical(s.root), read(IOVA), 269, 265);
}

#[test]
fn corrupt_data_of_the_msi_page_table() {
    let request = Setup::request(Ttyp::UntransWr, MSI);
    corrupt(|s| s.files, request, 270, 261);
}

#[test]
fn corrupt_data_of_a_page_table() {
    corrupt(Setup::first_table, read(IOVA), 274, 5);
    let second = |s: &mut Setup| s.vm.second_entry(&mut s.rig, GPA, 0) & !0xfff;
    corrupt(second, read(IOVA), 274, 5);
}

/// Reads need R, reads-for-execute X; X in a completion needs the attribute, which a PASID carries.
#[test]
fn without_an_execute_attribute_a_request_is_not_for_execution() {
    let mut s = Setup::new(EN_ATS | DPE);
    let process = Process::of(&s.vm);
    s.rig
        .set_process(&mut s.vm, s.root, pd::PD8, 0, process, false);
    let fetch = Setup::request(Ttyp::UntransRx, IOVA);
    for (bits, readable, executable) in [(pte::R, true, false), (pte::X, false, true)] {
        let leaf = ALL & !(pte::R | pte::W | pte::X) | bits;
        s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, leaf));
        s.rig.forget();
        for (request, permitted, cause) in [(read(IOVA), readable, 13), (fetch, executable, 12)] {
            if permitted {
                s.rig.translate(request);
            } else {
                s.rig.fault(request, cause);
            }
        }
    }
    s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, ALL));
    s.rig.forget();
    let with_pasid = Setup::request(Ttyp::AtsReq, IOVA);
    let without = Request::new(Ttyp::AtsReq, DEVICE, IOVA);
    for (request, ats_exec, expected) in [
        (with_pasid, false, false),
        (with_pasid, true, true),
        (without, false, false),
        (without, true, false),
    ] {
        let request = Request {
            ats_exec,
            ..request
        };
        let ats = s.rig.translate(request).ats;
        assert_eq!((ats.r, ats.x), (true, expected), "{request:x?}");
    }
}

/// Whatever else it says: not with a first stage of the device, not as process 0.
#[test]
fn without_process_id_a_request_has_user_privilege() {
    let mut s = Setup::new(DPE | EN_ATS);
    let mut process = Process::of(&s.vm);
    process.ta |= ENS;
    for pid in [0, PID as u32] {
        s.rig
            .set_process(&mut s.vm, s.root, pd::PD8, pid, process, false);
    }
    let supervisor = pte::at(GPA, ALL & !pte::U);
    s.vm.map_first(&mut s.rig, IOVA, 0, supervisor);
    s.rig.forget();
    for ttyp in [Ttyp::UntransRd, Ttyp::AtsReq] {
        let request = Request::new(ttyp, DEVICE, IOVA).privileged();
        let answers = [request.of(0), request].map(|r| s.rig.ask(r));
        if ttyp == Ttyp::AtsReq {
            let granted = answers.map(|a| (a.ats.r, a.ats.privileged));
            assert_eq!(granted, [(true, true), (false, false)]);
        } else {
            assert_eq!(answers.map(|a| a.cause), [0, 13]);
        }
    }
    s.rig.records();
    let context = Context {
        tc: tc::V,
        fsc: s.vm.iosatp(),
        ..s.context
    };
    s.rig.set_context(s.ddt, DEVICE, context);
    let request = Request::new(Ttyp::UntransRd, DEVICE, IOVA).privileged();
    s.rig.fault(request, 13);
    s.vm.map_first(&mut s.rig, IOVA, 0, pte::at(GPA, ALL));
    s.rig.forget();
    s.rig.translate(request);
}

/// Two devices that differ in one of the bits.
#[test]
fn device_id_has_24_bits() {
    let device = 0xa5_5a3c;
    let mut rig = Rig::new(37);
    let [root, middle, contexts] = [(); 3].map(|()| rig.page());
    rig.store(root + 8 * (u64::from(device) >> 15), pte::at(middle, 1));
    rig.store(
        middle + 8 * (u64::from(device) >> 6 & 0x1ff),
        pte::at(contexts, 1),
    );
    let bare = Context {
        tc: tc::V,
        ..Context::default()
    };
    rig.set_context(contexts, device & 0x3f, bare);
    rig.set_ddtp(4, root);
    for bit in 0..24 {
        let of = |device| Request::new(Ttyp::UntransRd, device, IOVA);
        assert_eq!(rig.translate(of(device)).spa, IOVA);
        rig.fault(of(device ^ 1 << bit), 258);
    }
}

/// Two devices of which `context` makes different address spaces: with what is held of both, each has
/// its own pages.
fn apart(mut rig: Rig, modes: [u64; 2], context: impl Fn(Context, u32) -> Context, bits: u32) {
    let mut vms = [(); 2].map(|()| Vm::new(&mut rig, modes[0], modes[1]));
    for (vm, page) in vms.iter_mut().zip([PAGE, PAGE + 0x1000]) {
        let leaf = pte::at(page, ALL);
        if modes[0] != 0 {
            vm.map_first(&mut rig, IOVA, 0, leaf);
        } else {
            vm.map_second(&mut rig, IOVA, 0, leaf);
        }
    }
    let table = rig.directory(&[], Context::default());
    for bit in 0..bits {
        let base = 0xa_5a3c & ((1 << bits) - 1);
        for (device, id) in [(1, base), (2, base ^ 1 << bit)] {
            let vm = &vms[device as usize - 1];
            rig.set_context(table, device, context(Context::of(vm), id));
        }
        rig.forget();
        for held in [false, true] {
            for device in [1, 2] {
                let request = Request::new(Ttyp::UntransRd, device, IOVA);
                let page = PAGE + 0x1000 * (u64::from(device) - 1);
                assert_eq!(rig.translate(request).spa, page, "bit {bit}");
                assert_eq!(rig.accesses.is_empty(), held);
            }
        }
        rig.sync(&[[1, 0], [1 | 1 << 7, 0]]);
    }
}

#[test]
fn gscid_has_16_bits() {
    let context = |c: Context, id| Context {
        iohgatp: c.iohgatp & !(0xffff << 44) | u64::from(id) << 44,
        ..c
    };
    apart(Rig::new(38), [0, SV39], context, 16);
}

#[test]
fn pscid_has_20_bits() {
    let context = |c: Context, id| Context {
        ta: u64::from(id) << 12,
        ..c
    };
    apart(Rig::new(38), [SV39, 0], context, 20);
}

/// Two addresses of a device that differ in `bits`: with what is held of both, each has its own page.
fn pages_apart(modes: [u64; 2], bits: impl Iterator<Item = u64>) {
    let mut rig = Rig::new(39);
    let mut vm = Vm::new(&mut rig, modes[0], modes[1]);
    rig.directory(&[DEVICE], Context::of(&vm));
    for bits in bits {
        let pages = [(IOVA, PAGE), (IOVA ^ bits, PAGE + 0x1000)];
        for (iova, page) in pages {
            if modes[0] != 0 {
                vm.map_first(&mut rig, iova, 0, pte::at(page, ALL));
            } else {
                vm.map_second(&mut rig, iova, 0, pte::at(page, ALL));
            }
        }
        rig.forget();
        for held in [false, true] {
            for (iova, page) in pages {
                let request = Request::new(Ttyp::UntransRd, DEVICE, iova);
                assert_eq!(rig.translate(request).spa, page, "{bits:#x}");
                assert_eq!(rig.accesses.is_empty(), held, "{bits:#x}");
            }
        }
    }
}

/// The highest one is extended.
#[test]
fn iovas_have_57_bits() {
    let bits = (12..56).map(|bit| 1 << bit);
    pages_apart([SV57, 0], bits.chain([!0 << 56]));
}

#[test]
fn guest_addresses_have_59_bits() {
    pages_apart([0, SV57], (12..59).map(|bit| 1 << bit));
}

/// The tables of either stage and the device directory, with each of the higher bits in their addresses.
#[test]
fn tables_are_reached_by_56_bits() {
    for modes in [[SV39, 0], [0, SV39]] {
        let mut rig = Rig::new(39);
        let mut vm = Vm::new(&mut rig, modes[0], modes[1]);
        let entries = [2, 1, 0].map(|level| match modes[1] {
            0 => vm.first_entry(&mut rig, IOVA, level),
            _ => vm.second_entry(&mut rig, IOVA, level),
        });
        let ddt = rig.page();
        for bit in 32..56 {
            let far = 1 << bit;
            for pointer in [entries[0], entries[1]] {
                let near = rig.load(pointer);
                rig.store(pointer | far, near | pte::at(far, 0));
            }
            rig.store(entries[2] | far, pte::at(PAGE, ALL));
            let mut context = Context::of(&vm);
            match modes[1] {
                0 => context.fsc |= far >> 12,
                _ => context.iohgatp |= far >> 12,
            }
            rig.set_context(ddt | far, DEVICE, context);
            rig.set_ddtp(0, 0);
            rig.set_ddtp(2, ddt | far);
            rig.forget();
            let request = Request::new(Ttyp::UntransRd, DEVICE, IOVA);
            assert_eq!(rig.translate(request).spa, PAGE, "{bit}");
            let addrs: Vec<u64> = rig.accesses.iter().map(|a| a.addr).collect();
            let context = (ddt | far) + 64 * u64::from(DEVICE);
            let tables = entries.map(|entry| entry | far);
            assert_eq!(addrs, [&[context][..], &tables].concat());
        }
    }
}
