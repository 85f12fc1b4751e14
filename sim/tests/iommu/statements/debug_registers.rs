//! `tr_req_iova`, `tr_req_ctl` and `tr_response`: IOMMU §5.24 to §5.26.

use crate::bench::reg;
use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

const DEVICE: u32 = 5;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const ALL: u64 = pte::ALL;
const ONES: u64 = u64::MAX;
/// The last page of the physical address space.
const LAST_PAGE: u64 = (1 << 56) - (1 << 12);

/// `tr_req_ctl`.
const GO: u64 = 1;
const EXE: u64 = 1 << 2;
const NW: u64 = 1 << 3;
const PV: u64 = 1 << 32;
const fn pid(id: u64) -> u64 {
    id << 12
}

/// `tr_response`.
const FAULT: u64 = 1;
const S: u64 = 1 << 9;
const fn ppn(page: u64) -> u64 {
    page >> 12 << 10
}

fn ask(rig: &mut Rig, device: u32, iova: u64, bits: u64) -> u64 {
    ask_writing(rig, device, iova, NW | bits)
}

/// As [`ask`], and without NW among the bits for a write, too.
fn ask_writing(rig: &mut Rig, device: u32, iova: u64, bits: u64) -> u64 {
    rig.write(reg::TR_REQ_IOVA, 8, iova);
    let device = u64::from(device) << 40;
    rig.write(reg::TR_REQ_CTL, 8, device | bits | GO);
    response(rig)
}

/// What the translation under way finds.
fn response(rig: &mut Rig) -> u64 {
    while rig.read(reg::TR_REQ_CTL, 4) & GO != 0 {}
    rig.read(reg::TR_RESPONSE, 8)
}

/// [`DEVICE`] with these stages.
fn device(first: u64, second: u64) -> (Rig, Vm) {
    let mut rig = Rig::new(71);
    let vm = Vm::new(&mut rig, first, second);
    rig.directory(&[DEVICE], Context::of(&vm));
    (rig, vm)
}

#[test]
fn vpn_is_bits_63_to_12() {
    let mut rig = Rig::new(72);
    rig.write(reg::TR_REQ_IOVA, 8, ONES);
    assert_eq!(rig.read(reg::TR_REQ_IOVA, 8), !0xfff);
    rig.write(reg::TR_REQ_IOVA, 8, 0xfff);
    assert_eq!(rig.read(reg::TR_REQ_IOVA, 8), 0);
    // Off: each request leaves a record.
    for bit in 0..64 {
        let iova = 1 << bit;
        assert_eq!(ask(&mut rig, DEVICE, iova, 0) & FAULT, FAULT);
        let expected = iova & !0xfff;
        assert_eq!(rig.read(reg::TR_REQ_IOVA, 8), expected);
        let records = rig.records();
        assert_eq!(
            records.iter().map(|r| r.iotval).collect::<Vec<_>>(),
            [expected]
        );
    }
}

/// Without a process the first stage of a device with processes is Bare, and PID says nothing.
#[test]
fn without_pv_pid_is_not_used() {
    let (mut rig, mut vm) = device(SV39, 0);
    vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, ALL));
    let root = vm.table(&mut rig);
    let process = Process::of(&vm);
    for id in [0, 3] {
        rig.set_process(&mut vm, root, pd::PD8, id, process, false);
    }
    let context = Context {
        fsc: pd::PD8 << 60 | root >> 12,
        ..Context::of(&vm).tc(tc::PDTV)
    };
    let ddt = rig.read(reg::DDTP, 8) >> 10 << 12;
    rig.set_context(ddt, DEVICE, context);
    for id in [0, 3, 4, 0xf_ffff] {
        // A range about the address itself.
        let bare = ask(&mut rig, DEVICE, IOVA, pid(id));
        assert_eq!(bare & FAULT, 0);
        assert_eq!(bare >> 20, IOVA >> 22, "{bare:#x}");
        assert_eq!(rig.records(), []);
        let of_process = ask(&mut rig, DEVICE, IOVA, pid(id) | PV);
        if [0, 3].contains(&id) {
            assert_eq!(of_process, ppn(PAGE));
            assert_eq!(rig.records(), []);
        } else {
            assert_eq!(of_process & FAULT, FAULT);
            assert_eq!(rig.records()[0].process_id, Some(id));
        }
    }
    // Nor in a record.
    rig.set_ddtp(0, ddt);
    for (bits, process_id) in [(0, None), (PV, Some(0xa_5a5a))] {
        ask(&mut rig, DEVICE, IOVA, pid(0xa_5a5a) | bits);
        assert_eq!(rig.records()[0].process_id, process_id);
    }
}

#[test]
fn did_is_the_device_id() {
    let (mut rig, mut vm) = device(SV39, 0);
    vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, ALL));
    assert_eq!(ask(&mut rig, DEVICE, IOVA, 0), ppn(PAGE));
    let root = rig.page();
    rig.set_ddtp(0, root);
    rig.set_ddtp(4, root);
    for id in (0..24).map(|bit| 1 << bit).chain([0, 0xff_ffff]) {
        assert_eq!(ask(&mut rig, id, IOVA, 0) & FAULT, FAULT);
        let records = rig.records();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].device_id, u64::from(id));
        assert_eq!(records[0].cause, 258);
    }
}

#[test]
fn reserved_bits_of_tr_req_ctl_read_0() {
    let mut rig = Rig::new(73);
    let fields = 0xe | 0xf_ffff << 12 | PV | 0xff_ffff << 40;
    rig.write(reg::TR_REQ_CTL, 8, ONES & !GO);
    assert_eq!(rig.read(reg::TR_REQ_CTL, 8), fields);
    rig.write(reg::TR_REQ_CTL, 8, !fields & !GO);
    assert_eq!(rig.read(reg::TR_REQ_CTL, 8), 0);
}

/// The first stage's if it says one, else the second's (privileged specification, Svpbmt).
#[test]
fn pbmt_is_the_memory_type_of_both_stages() {
    for (stages, of_first, of_second) in [
        ((SV39, SV39), 0..3, 0..3),
        ((SV39, 0), 0..3, 0..1),
        ((0, SV39), 0..1, 0..3),
    ] {
        for first in of_first {
            for second in of_second.clone() {
                let (mut rig, mut vm) = device(stages.0, stages.1);
                let gpa = if stages.0 == 0 { IOVA } else { GPA };
                if stages.0 != 0 {
                    let page = if stages.1 == 0 { PAGE } else { GPA };
                    let leaf = pte::at(page, ALL | first << pte::PBMT);
                    vm.map_first(&mut rig, IOVA, 0, leaf);
                }
                if stages.1 != 0 {
                    let leaf = pte::at(PAGE, ALL | second << pte::PBMT);
                    vm.map_second(&mut rig, gpa, 0, leaf);
                }
                let pbmt = if first != 0 { first } else { second };
                let response = ask(&mut rig, DEVICE, IOVA, 0);
                assert_eq!(response, ppn(PAGE) | pbmt << 7, "{first} {second}");
            }
        }
    }
}

/// Not what the pages beside it are; and its PPN is no code of a size.
#[test]
fn with_s_0_the_translation_is_one_page() {
    let pages = [0xf_ffff_f000, 0x1_2345_6000, 0x7_7777_7000];
    for (first, second) in [(SV39, 0), (0, SV39)] {
        let (mut rig, mut vm) = device(first, second);
        let mut map = |rig: &mut Rig, iova, level, leaf| {
            if first != 0 {
                vm.map_first(rig, iova, level, leaf);
            } else {
                vm.map_second(rig, iova, level, leaf);
            }
        };
        for (iova, page) in (IOVA..).step_by(4096).zip(pages) {
            map(&mut rig, iova, 0, pte::at(page, ALL));
        }
        for (iova, page) in (IOVA..).step_by(4096).zip(pages) {
            assert_eq!(ask(&mut rig, DEVICE, iova, 0), ppn(page));
            let answer = rig.translate(Request::new(Ttyp::UntransRd, DEVICE, iova));
            assert_eq!((answer.spa, answer.size), (page, 4096));
        }
        // 2 MiB.
        let iova = 0x13_4560_0000;
        map(&mut rig, iova, 1, pte::at(0xf_ffe0_0000, ALL));
        let response = ask(&mut rig, DEVICE, iova + 0x7000, 0);
        assert_eq!(response, S | ppn(0xf_ffe0_0000) | 0xff << 10);
    }
}

#[test]
fn ppn_is_the_page_of_the_result() {
    for (first, second) in [(SV39, 0), (0, SV39)] {
        let (mut rig, mut vm) = device(first, second);
        let pages = (12..56).flat_map(|bit| [1 << bit, LAST_PAGE ^ (1 << bit)]);
        for (n, page) in (0..).zip(pages) {
            let iova = n << 12;
            if first != 0 {
                vm.map_first(&mut rig, iova, 0, pte::at(page, ALL));
            } else {
                vm.map_second(&mut rig, iova, 0, pte::at(page, ALL));
            }
            assert_eq!(ask(&mut rig, DEVICE, iova, 0), ppn(page));
        }
    }
}

/// Whatever has been found; each of the others is 1 once.
#[test]
fn reserved_bits_of_tr_response_are_0() {
    let (mut rig, mut vm) = device(SV39, 0);
    let large = (1 << 56) - (1 << 21);
    vm.map_first(&mut rig, IOVA, 0, pte::at(LAST_PAGE, ALL | 1 << pte::PBMT));
    vm.map_first(&mut rig, 0, 0, pte::at(LAST_PAGE, ALL | 2 << pte::PBMT));
    vm.map_first(&mut rig, 1 << 30, 1, pte::at(large, ALL));
    let [page, other, superpage] = [IOVA, 0, 1 << 30].map(|iova| ask(&mut rig, DEVICE, iova, 0));
    let fault = ask(&mut rig, DEVICE, 2 << 30, 0);
    let responses = [page, other, superpage, fault];
    assert_eq!(responses.map(|r| r & FAULT), [0, 0, 0, FAULT]);
    let reserved = 0x3f << 1 | 0x3ff << 54;
    assert_eq!(responses.map(|r| r & reserved), [0; 4]);
    assert_eq!(responses.iter().fold(0, |all, r| all | r), !reserved);
}

/// Of a process with ENS = 1 and SUM = 0: supervisor pages alone, and without Priv user pages alone.
#[test]
fn priv_is_supervisor_privilege() {
    const PRIV: u64 = 1 << 1;
    const ENS: u64 = 1 << 1;
    let (mut rig, mut vm) = device(SV39, 0);
    let supervisor = IOVA + 0x1000;
    vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, ALL));
    vm.map_first(&mut rig, supervisor, 0, pte::at(PAGE, ALL & !pte::U));
    let root = vm.table(&mut rig);
    let mut process = Process::of(&vm);
    process.ta |= ENS;
    rig.set_process(&mut vm, root, pd::PD8, 3, process, false);
    let context = Context {
        fsc: pd::PD8 << 60 | root >> 12,
        ..Context::of(&vm).tc(tc::PDTV)
    };
    let ddt = rig.read(reg::DDTP, 8) >> 10 << 12;
    rig.set_context(ddt, DEVICE, context);
    for (iova, bits, allowed) in [
        (IOVA, 0, true),
        (IOVA, PRIV, false),
        (supervisor, 0, false),
        (supervisor, PRIV, true),
    ] {
        let answer = ask(&mut rig, DEVICE, iova, pid(3) | PV | bits);
        if allowed {
            assert_eq!(answer, ppn(PAGE));
            assert_eq!(rig.records(), []);
        } else {
            assert_eq!(answer & FAULT, FAULT);
            let records = rig.records();
            assert_eq!((records[0].cause, records[0].privileged), (13, bits != 0));
        }
    }
}

/// With NW, so that no write is asked for: X is needed then, and R alone otherwise.
#[test]
fn exe_is_execution() {
    let (mut rig, mut vm) = device(SV39, 0);
    for (permissions, reads, executes) in [
        (pte::R, true, false),
        (pte::X, false, true),
        (pte::R | pte::X, true, true),
    ] {
        let leaf = ALL & !(pte::R | pte::W | pte::X) | permissions;
        vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, leaf));
        rig.forget();
        for (bits, allowed, cause) in [(0, reads, 13), (EXE, executes, 12)] {
            let answer = ask(&mut rig, DEVICE, IOVA, bits);
            let records = rig.records();
            if allowed {
                assert_eq!((answer, records.len()), (ppn(PAGE), 0));
            } else {
                assert_eq!((answer & FAULT, records[0].cause), (FAULT, cause));
            }
        }
    }
}

/// A choice, `debug_execute_wins` in rtl/iommu/README.md: execution alone, or the write alone.
#[test]
fn exe_without_nw_is_execution_or_a_write() {
    const SBE: u64 = 1 << 10;
    for (mut rig, sbe, wanted, cause) in [
        (Rig::new(74), 0, pte::X, 12),
        (Rig::other(74), SBE, pte::W, 15),
    ] {
        let mut vm = Vm::with(&mut rig, SV39, 0, false, [sbe != 0; 2]);
        rig.directory(&[DEVICE], Context::of(&vm).tc(sbe));
        for permission in [pte::X, pte::W] {
            let leaf = ALL & !(pte::W | pte::X) | permission;
            vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, leaf));
            rig.forget();
            let answer = ask_writing(&mut rig, DEVICE, IOVA, EXE);
            let causes: Vec<u64> = rig.records().iter().map(|r| r.cause).collect();
            if permission == wanted {
                assert_eq!((answer, causes), (ppn(PAGE), vec![]));
            } else {
                assert_eq!((answer & FAULT, causes), (FAULT, vec![cause]));
            }
        }
    }
}

/// The high half first, which begins nothing, then the low half with Go (IOMMU §5).
#[test]
fn a_request_can_be_written_in_halves() {
    let (mut rig, mut vm) = device(SV39, 0);
    vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, ALL));
    rig.write(reg::TR_REQ_IOVA + 4, 4, IOVA >> 32);
    rig.write(reg::TR_REQ_IOVA, 4, IOVA & 0xffff_ffff);
    let mut low = 0;
    for (id, expected) in [(DEVICE + 1, FAULT), (DEVICE, ppn(PAGE))] {
        let high = u64::from(id) << 40;
        rig.write(reg::TR_REQ_CTL + 4, 4, high >> 32);
        rig.run(200);
        assert_eq!(rig.read(reg::TR_REQ_CTL, 8), high | low);
        assert_eq!(rig.records(), []);
        low = NW | pid(0xa_5a5a);
        rig.write(reg::TR_REQ_CTL, 4, low | GO);
        assert_eq!(response(&mut rig), expected);
        assert_eq!(rig.read(reg::TR_REQ_CTL, 8), high | low);
        let records = rig.records();
        assert_eq!(records.len() as u64, expected & FAULT);
        for record in records {
            assert_eq!((record.cause, record.device_id), (258, id.into()));
        }
    }
}
