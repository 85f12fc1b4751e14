//! Reset: IOMMU §5.2.

use super::*;
use crate::statements::queue::{ACTIVE, BUSY, COMMANDS, FAULTS, PAGES, Queue, setup};

/// Of `cqcsr`, `fqcsr` and `pqcsr`.
const CONTROL: u64 = csr::ENABLE | csr::INTERRUPT | csr::ON | BUSY;
const ALL_PENDING: u64 = 0xf;

/// While it is active, and while it is busy with an entry of this size.
fn queue_is_off(queue: Queue, entry: u64) {
    let mut rig = setup(false);
    queue.set(&mut rig, csr::ENABLE | csr::INTERRUPT);
    assert_eq!(queue.status(&mut rig), ACTIVE | csr::INTERRUPT);
    rig.reset();
    assert_eq!(queue.status(&mut rig) & CONTROL, 0);

    let mut rig = setup(false);
    rig.held = Some(queue.memory(&mut rig) + entry * queue.index(&mut rig));
    queue.feed(&mut rig);
    rig.write(queue.csr, 4, csr::INTERRUPT);
    let status = queue.status(&mut rig);
    assert_eq!(status, csr::INTERRUPT | csr::ON | BUSY);
    rig.reset();
    assert_eq!(queue.status(&mut rig) & CONTROL, 0);
}

#[test]
fn the_command_queue_is_off_after_reset() {
    queue_is_off(COMMANDS, 16);
}

#[test]
fn the_fault_queue_is_off_after_reset() {
    queue_is_off(FAULTS, 32);
}

#[test]
fn the_page_request_queue_is_off_after_reset() {
    queue_is_off(PAGES, 16);
}

#[test]
fn go_is_0_after_reset() {
    let mut s = Setup::new(0);
    s.rig.held = Some(s.ddt + 64 * u64::from(DEVICE));
    s.rig.write(reg::TR_REQ_CTL, 8, u64::from(DEVICE) << 40 | 1);
    s.rig.run(100);
    assert_eq!(s.rig.read(reg::TR_REQ_CTL, 4) & 1, 1);
    s.rig.reset();
    assert_eq!(s.rig.read(reg::TR_REQ_CTL, 4) & 1, 0);
}

#[test]
fn ddtp_is_not_busy_after_reset() {
    let mut s = under_way();
    s.rig.write(reg::DDTP, 8, 0);
    assert!(busy(&mut s.rig));
    s.rig.reset();
    assert!(!busy(&mut s.rig));
}

#[test]
fn ipsr_is_0_after_reset() {
    let mut rig = setup(false);
    for queue in [COMMANDS, FAULTS, PAGES] {
        queue.set(&mut rig, csr::ENABLE | csr::INTERRUPT);
    }
    rig.hand_over(&[[0, 0]]);
    FAULTS.feed(&mut rig);
    PAGES.feed(&mut rig);
    rig.write(reg::IOHPMCYCLES, 8, ONES >> 1);
    rig.run(10);
    assert_eq!(rig.read(reg::IPSR, 4), ALL_PENDING);
    rig.reset();
    assert_eq!(rig.read(reg::IPSR, 4), 0);
    rig.run(100);
    assert_eq!(rig.read(reg::IPSR, 4), 0);
}

/// Bare is the other choice.
#[test]
fn the_mode_is_off_or_bare_after_reset() {
    let modes = [OFF, OFF, OFF, BARE];
    for (mut rig, mode) in configurations().into_iter().zip(modes) {
        for before in [OFF, BARE, 2, 3] {
            rig.set_ddtp(OFF, 0);
            rig.set_ddtp(before, 0);
            rig.reset();
            assert_eq!(rig.read(reg::DDTP, 8) & 0xf, mode);
            let answer = rig.ask(READ);
            let expected = if mode == OFF { (1, 256) } else { (0, 0) };
            assert_eq!((answer.status, answer.cause), expected);
        }
    }
}

/// Addresses of entries that caches hold of a request, and the cause if they are not valid: of the
/// device, of the process, and of each level of both stages.
fn cached(s: &mut Setup) -> Vec<(u64, u64)> {
    let mut entries = vec![
        (s.ddt + 64 * u64::from(DEVICE), 258),
        (s.vm.physical(s.root + 16 * 3), 266),
    ];
    let gpa = s.vm.first_value(&mut s.rig, IOVA, 0) >> 10 << 12;
    for level in 0..3 {
        let first = s.vm.first_entry(&mut s.rig, IOVA, level);
        entries.push((s.vm.physical(first), 13));
        entries.push((s.vm.second_entry(&mut s.rig, gpa, level), 21));
    }
    entries
}

/// Each of the caches in turn has what memory has no more, until a reset.
#[test]
fn caches_are_empty_after_reset() {
    let request = Setup::request(Ttyp::UntransRd, IOVA);
    for i in 0..cached(&mut Setup::new(0)).len() {
        let mut s = Setup::new(0);
        assert_eq!(s.rig.translate(request).spa, PAGE);
        let (at, cause) = cached(&mut s)[i];
        let entry = s.rig.load(at);
        s.rig.store(at, entry & !1);
        assert_eq!(s.rig.translate(request).spa, PAGE, "held");
        assert_eq!(s.rig.accesses, []);
        s.rig.reset();
        s.rig.set_ddtp(2, s.ddt);
        assert_eq!(s.rig.ask(request).cause, cause, "{i}");
    }
}
