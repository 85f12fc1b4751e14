//! IOFENCE.C: IOMMU §3.1.2.

use super::commands::is_illegal;
use super::queue::{
    ACTIVE, COMMANDS, DEVICE, FENCE, FENCE_DONE, INVALIDATE, TIMEOUT_CYCLES, WIRED_FENCE, give,
    setup,
};
use crate::bench::{command, csr, reg};
use crate::rig::{Context, Message, Request, Rig, Sent, Ttyp, Vm};
use crate::tables::{SV39, pte};

const IOVA: u64 = 0x12_3456_7000;
const PAGE: u64 = 0x9_8765_4000;
const OTHER: u64 = 0xa_bcde_f000;
const AV: u64 = 1 << 10;
const PR: u64 = 1 << 12;
const PW: u64 = 1 << 13;

/// A store of an earlier fence that has not ended, an invalidation that the device has not completed.
#[test]
fn a_fence_completes_after_all_commands_before_it() {
    let mut rig = setup(false);
    let [slow, flag] = [(); 2].map(|()| rig.page());
    let last = command::fence(Some((flag, 1)), false);
    let completion = Message::Completion {
        device_id: DEVICE,
        itags: 1,
        count: 1,
    };
    for first in [command::fence(Some((slow, 1)), false), INVALIDATE] {
        let start = COMMANDS.index(&mut rig);
        rig.store(flag, 0);
        rig.held = Some(slow);
        give(&mut rig, &[first, last]);
        for _ in 0..3 {
            rig.run(500);
            assert!(COMMANDS.index(&mut rig) < start + 2);
            assert_eq!(rig.load(flag), 0);
        }
        rig.held = None;
        if first == INVALIDATE {
            rig.message(&completion);
        }
        rig.run(200);
        assert_eq!(COMMANDS.index(&mut rig), start + 2);
        assert_eq!(rig.load(flag), 1);
    }
}

/// A response that the device has not taken has not been sent.
#[test]
fn a_fence_completes_after_the_messages_before_it() {
    let mut rig = setup(false);
    let start = COMMANDS.index(&mut rig);
    let flag = rig.page();
    let response = [4 | 1 << 7 | u64::from(DEVICE) << 40, 0];
    rig.deaf = true;
    give(
        &mut rig,
        &[response, command::fence(Some((flag, 1)), false)],
    );
    for _ in 0..3 {
        rig.run(500);
        assert!(COMMANDS.index(&mut rig) < start + 2);
        assert_eq!(rig.load(flag), 0);
    }
    rig.deaf = false;
    assert_eq!(rig.sent().len(), 1);
    assert_eq!(COMMANDS.index(&mut rig), start + 2);
    assert_eq!(rig.load(flag), 1);
}

/// A request that still reads what an invalidation before the fence is about may use the old entry;
/// after the fence nothing does (§3.1.1, §3.1.3).
#[test]
fn a_fence_waits_for_requests_under_way() {
    const GPA: u64 = 0x6_7654_3000;
    const GUEST: u64 = 1 << 33 | 7 << 44;
    let mut rig = Rig::new(59);
    let mut vm = Vm::new(&mut rig, SV39, SV39);
    vm.map_first(&mut rig, IOVA, 0, pte::at(GPA, pte::ALL));
    vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, pte::ALL));
    let context = rig.directory(&[DEVICE], Context::of(&vm)) + 64 * u64::from(DEVICE);
    let first = vm.first_entry(&mut rig, IOVA, 0);
    let first = vm.physical(first);
    let second = vm.second_entry(&mut rig, GPA, 0);
    let flag = rig.page();
    for (entry, invalidation) in [
        (first, [1 | GUEST, 0]),
        (second, [1 | 1 << 7 | GUEST, 0]),
        (context, command::iodir(Some(DEVICE))),
    ] {
        for bits in [0, PR, PW] {
            rig.forget();
            rig.store(flag, 0);
            let start = COMMANDS.index(&mut rig);
            rig.held = Some(entry);
            rig.begin(Request::new(Ttyp::UntransRd, DEVICE, IOVA));
            rig.run(300);
            assert_eq!(rig.accesses.last().map(|a| a.addr), Some(entry));
            let [fence, addr] = command::fence(Some((flag, 1)), false);
            rig.hand_over(&[invalidation, [fence | bits, addr]]);
            for _ in 0..3 {
                rig.run(500);
                assert!(!rig.answered());
                assert!(COMMANDS.index(&mut rig) < start + 2);
                assert_eq!(rig.load(flag), 0);
            }
            rig.held = None;
            assert_eq!(rig.finish().spa, PAGE);
            rig.run(200);
            assert_eq!(COMMANDS.index(&mut rig), start + 2);
            assert_eq!(rig.load(flag), 1);
        }
    }
}

#[test]
fn at_a_timeout_commands_without_timeout_are_complete() {
    let mut rig = Rig::new(57);
    let mut vm = Vm::new(&mut rig, SV39, 0);
    vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, pte::ALL));
    let directory = rig.directory(&[1, 2], Context::of(&vm));
    let read = |device| Request::new(Ttyp::UntransRd, device, IOVA);
    let spas = |rig: &mut Rig| [1, 2].map(|device| rig.translate(read(device)).spa);
    assert_eq!(spas(&mut rig), [PAGE, PAGE]);
    // Another leaf for both devices, and no translation for the second.
    vm.map_first(&mut rig, IOVA, 0, pte::at(OTHER, pte::ALL));
    rig.store(directory + 64 * 2 + 24, 0);
    assert_eq!(spas(&mut rig), [PAGE, PAGE], "held");
    let fence_at = COMMANDS.index(&mut rig) + 5;
    let flag = rig.page();
    rig.hand_over(&[
        INVALIDATE,
        command::iotinval(None, None),
        command::iodir(Some(2)),
        [4 | 1 << 7 | 3 << 40, 0x55 << 32],
        INVALIDATE,
        command::fence(Some((flag, 1)), true),
    ]);
    rig.run(TIMEOUT_CYCLES);
    assert_eq!(COMMANDS.status(&mut rig), ACTIVE | csr::TIMEOUT);
    assert_eq!(COMMANDS.index(&mut rig), fence_at);
    assert_eq!(rig.load(flag), 0);
    assert_eq!(spas(&mut rig), [OTHER, IOVA]);
    let response = Sent::Response {
        device_id: 3,
        process_id: None,
        prgi: 0x55,
        code: 0,
    };
    assert_eq!(rig.sent()[1], response);
}

/// Neither its store nor its interrupt is to be seen, also if it comes after the timeout (§3.1.4).
#[test]
fn a_fence_that_finds_a_timeout_has_not_completed() {
    for late in [false, true] {
        let mut rig = setup(true);
        let start = COMMANDS.index(&mut rig);
        let flag = rig.page();
        let [first, second] = command::fence(Some((flag, 1)), true);
        give(&mut rig, &[INVALIDATE]);
        if late {
            rig.run(TIMEOUT_CYCLES);
            assert_eq!(COMMANDS.status(&mut rig), ACTIVE);
            assert_eq!(COMMANDS.index(&mut rig), start + 1);
        }
        give(&mut rig, &[[first | WIRED_FENCE[0], second]]);
        rig.run(if late { 300 } else { TIMEOUT_CYCLES });
        for _ in 0..2 {
            assert_eq!(COMMANDS.status(&mut rig), ACTIVE | csr::TIMEOUT);
            assert_eq!(COMMANDS.index(&mut rig), start + 1);
            assert_eq!(rig.load(flag), 0);
            rig.run(300);
        }
        COMMANDS.set(&mut rig, csr::ENABLE | csr::TIMEOUT);
        rig.run(300);
        assert_eq!(COMMANDS.status(&mut rig), ACTIVE | FENCE_DONE);
        assert_eq!(COMMANDS.index(&mut rig), start + 2);
        assert_eq!(rig.load(flag), 1);
    }
}

/// With the bit the bridge must have committed what it has; with neither it is not asked.
fn waits_for_the_bridge(bit: u64) {
    for (bits, waits) in [(bit, true), (PR | PW, true), (0, false)] {
        let mut rig = setup(false);
        let start = COMMANDS.index(&mut rig);
        let flag = rig.page();
        let [first, second] = command::fence(Some((flag, 1)), false);
        rig.undrained = true;
        give(&mut rig, &[[first | bits, second]]);
        for _ in 0..3 {
            rig.run(500);
            assert_eq!(COMMANDS.index(&mut rig) == start, waits);
            assert_eq!(rig.load(flag) == 0, waits);
        }
        rig.undrained = false;
        rig.run(100);
        assert_eq!(COMMANDS.index(&mut rig), start + 1);
        assert_eq!(rig.load(flag), 1);
    }
}

#[test]
fn with_pr_reads_are_committed_before_completion() {
    waits_for_the_bridge(PR);
}

#[test]
fn with_pw_writes_are_committed_before_completion() {
    waits_for_the_bridge(PW);
}

/// What the bridge has committed before a request is answered says nothing about that request.
#[test]
fn the_bridge_is_asked_after_requests_under_way() {
    for bits in [PR, PW, PR | PW] {
        let mut rig = Rig::new(60);
        let mut vm = Vm::new(&mut rig, SV39, 0);
        vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, pte::ALL));
        rig.directory(&[DEVICE], Context::of(&vm));
        let start = COMMANDS.index(&mut rig);
        let flag = rig.page();
        rig.held = Some(vm.first_entry(&mut rig, IOVA, 0));
        rig.begin(Request::new(Ttyp::UntransWr, DEVICE, IOVA));
        rig.run(300);
        assert_eq!(rig.accesses.last().map(|a| a.addr), rig.held);
        let [first, second] = command::fence(Some((flag, 1)), false);
        rig.hand_over(&[[first | bits, second]]);
        // Until now it would have drained at once.
        rig.run(500);
        rig.undrained = true;
        rig.held = None;
        assert_eq!(rig.finish().spa, PAGE);
        for _ in 0..3 {
            rig.run(500);
            assert_eq!(COMMANDS.index(&mut rig), start);
            assert_eq!(rig.load(flag), 0);
        }
        rig.undrained = false;
        rig.run(100);
        assert_eq!(COMMANDS.index(&mut rig), start + 1);
        assert_eq!(rig.load(flag), 1);
    }
}

#[test]
fn wsi_is_reserved_without_wires() {
    let mut rig = Rig::new(58);
    assert!(is_illegal(&mut rig, WIRED_FENCE));
    assert!(!is_illegal(&mut rig, FENCE));
    rig.set_fctl(2);
    assert!(!is_illegal(&mut rig, WIRED_FENCE));
}

/// In either half of a doubleword, whose other half stays, and at each bit of the address.
#[test]
fn with_av_data_is_stored_with_4_bytes_at_addr() {
    const OLD: u64 = 0x1111_2222_3333_4444;
    const DATA: u32 = 0x89ab_cdef;
    let mut rig = setup(false);
    let page = rig.page();
    let low = (2..12).map(|bit| page + (1 << bit));
    let high = (12..31).chain(32..56);
    for addr in low.chain(high.map(|bit| 1 << bit)) {
        let doubleword = addr & !7;
        rig.store(doubleword, OLD);
        rig.accesses.clear();
        give(&mut rig, &[command::fence(Some((addr, DATA)), false)]);
        rig.run(200);
        let stores = rig.accesses.iter().filter(|a| a.op != 0);
        let stores: Vec<u64> = stores.map(|a| a.addr).collect();
        assert_eq!(stores, [addr]);
        let shift = 8 * (addr & 4);
        let new = OLD & !(0xffff_ffff << shift) | u64::from(DATA) << shift;
        assert_eq!(rig.load(doubleword), new, "{addr:#x}");
    }
}

/// Also where no memory is.
#[test]
fn without_av_addr_and_data_are_ignored() {
    let mut rig = setup(false);
    let flag = rig.page();
    let [broken, last] = [(); 2].map(|()| rig.page());
    rig.broken.insert(broken);
    let most = (1 << 62) - 1;
    for (data, addr) in [(0x1234_5678, flag >> 2), (!0 >> 32, broken >> 2), (1, most)] {
        let start = COMMANDS.index(&mut rig);
        let fence = [2 | data << 32, addr];
        rig.accesses.clear();
        give(&mut rig, &[fence, command::fence(Some((last, 1)), false)]);
        rig.run(300);
        assert_eq!(COMMANDS.status(&mut rig), ACTIVE);
        assert_eq!(COMMANDS.index(&mut rig), start + 2);
        let stores = rig.accesses.iter().filter(|a| a.op != 0);
        let stores: Vec<u64> = stores.map(|a| a.addr).collect();
        assert_eq!(stores, [last]);
    }
    give(&mut rig, &[[2 | AV | 0x1234_5678 << 32, flag >> 2]]);
    rig.run(300);
    assert_eq!(rig.load(flag), 0x1234_5678);
}

/// An access fault, or an address beyond the widest; the commands after it are not executed.
#[test]
fn a_store_that_faults_sets_cqmf_at_the_fence() {
    let mut rig = setup(false);
    let [good, broken, last] = [(); 3].map(|()| rig.page());
    rig.broken.insert(broken);
    let fence = |addr: u64| [2 | AV | 1 << 32, addr >> 2];
    for bad in [broken, broken + 0xffc, 1 << 56, 1 << 63] {
        let start = COMMANDS.index(&mut rig);
        rig.store(good, 0);
        rig.store(last, 0);
        give(&mut rig, &[fence(good), fence(bad), fence(last)]);
        rig.run(500);
        let status = COMMANDS.status(&mut rig);
        assert_eq!(status, ACTIVE | csr::MEMORY_FAULT, "{bad:#x}");
        assert_eq!(COMMANDS.index(&mut rig), start + 1);
        assert_eq!([good, last].map(|at| rig.load(at)), [1, 0]);
        // Mended.
        let slot = COMMANDS.memory(&mut rig) + 16 * (start + 1);
        rig.store(slot, FENCE[0]);
        rig.write(reg::CQCSR, 4, csr::ENABLE | csr::MEMORY_FAULT);
        rig.run(300);
        assert_eq!(COMMANDS.status(&mut rig), ACTIVE);
        assert_eq!(rig.load(last), 1);
    }
}
