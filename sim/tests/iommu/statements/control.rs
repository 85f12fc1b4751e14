//! Registers that control the queues (IOMMU §5.15 to §5.17).

use super::queue::{
    ACTIVE, BUSY, COMMANDS, Condition, DEVICE, FAULTS, FENCE, FENCE_DONE, INVALIDATE, PAGES, Queue,
    WIRED_FENCE, give, setup,
};
use crate::bench::{command, csr, reg};
use crate::rig::{Message, Rig};

/// Turning the queue on sets its index to 0, nothing else does.
fn turning_on_sets_the_index_to_0(queue: Queue) {
    let mut rig = setup(false);
    queue.stop(&mut rig);
    queue.set(&mut rig, csr::ENABLE);
    for count in 1..4 {
        queue.feed(&mut rig);
        assert_eq!(queue.index(&mut rig), count);
    }
    queue.set(&mut rig, csr::ENABLE | csr::INTERRUPT);
    assert_eq!(queue.index(&mut rig), 3, "from 1 to 1");
    queue.stop(&mut rig);
    assert_eq!(queue.index(&mut rig), 3, "from 1 to 0");
    queue.set(&mut rig, csr::ENABLE);
    assert_eq!(queue.index(&mut rig), 0);
}

#[test]
fn turning_the_command_queue_on_sets_cqh_to_0() {
    turning_on_sets_the_index_to_0(COMMANDS);
}

#[test]
fn turning_the_fault_queue_on_sets_fqt_to_0() {
    turning_on_sets_the_index_to_0(FAULTS);
}

#[test]
fn turning_the_page_request_queue_on_sets_pqt_to_0() {
    turning_on_sets_the_index_to_0(PAGES);
}

/// The bit stands until the queue is turned on again.
fn turning_on_clears(condition: Condition) {
    let mut rig = condition.setup();
    let queue = condition.queue();
    condition.provoke(&mut rig);
    let bit = condition.bit();
    assert_eq!(queue.status(&mut rig), ACTIVE | bit);
    queue.set(&mut rig, csr::ENABLE);
    assert_eq!(queue.status(&mut rig), ACTIVE | bit);
    queue.stop(&mut rig);
    assert_eq!(queue.status(&mut rig), bit);
    queue.set(&mut rig, csr::ENABLE);
    assert_eq!(queue.status(&mut rig), ACTIVE);
}

#[test]
fn turning_the_command_queue_on_clears_cmd_ill() {
    turning_on_clears(Condition::Illegal);
}

#[test]
fn turning_the_command_queue_on_clears_cmd_to() {
    turning_on_clears(Condition::Timeout);
}

#[test]
fn turning_the_command_queue_on_clears_cqmf() {
    turning_on_clears(Condition::CommandFault);
}

#[test]
fn turning_the_command_queue_on_clears_fence_w_ip() {
    turning_on_clears(Condition::Fence);
}

#[test]
fn turning_the_fault_queue_on_clears_fqof() {
    turning_on_clears(Condition::FaultOverflow);
}

#[test]
fn turning_the_fault_queue_on_clears_fqmf() {
    turning_on_clears(Condition::FaultFault);
}

#[test]
fn turning_the_page_request_queue_on_clears_pqmf() {
    turning_on_clears(Condition::PageFault);
}

#[test]
fn turning_the_page_request_queue_on_clears_pqof() {
    turning_on_clears(Condition::PageOverflow);
}

/// After the write that turns it on the queue is busy or active at every time, never neither.
fn busy_until_active(queue: Queue, rig: &mut Rig) {
    loop {
        match queue.status(rig) {
            ACTIVE => break,
            status => assert_eq!(status, csr::ENABLE | BUSY),
        }
    }
    rig.run(100);
    assert_eq!(queue.status(rig), ACTIVE);
}

#[test]
fn the_command_queue_is_busy_until_it_is_active() {
    let mut rig = setup(false);
    COMMANDS.stop(&mut rig);
    rig.write(reg::CQCSR, 4, csr::ENABLE);
    busy_until_active(COMMANDS, &mut rig);
}

#[test]
fn the_fault_queue_is_busy_until_it_is_active() {
    let mut rig = setup(false);
    FAULTS.stop(&mut rig);
    rig.write(reg::FQCSR, 4, csr::ENABLE);
    busy_until_active(FAULTS, &mut rig);
}

/// Also while a message is under way that came when the queue was off.
#[test]
fn the_page_request_queue_is_busy_until_it_is_active() {
    for under_way in [false, true] {
        let mut rig = setup(false);
        PAGES.stop(&mut rig);
        if under_way {
            give(&mut rig, &[command::iodir(None)]);
            rig.run(300);
            let table = rig.read(reg::DDTP, 8) >> 10 << 12;
            rig.held = Some(table + 64 * u64::from(DEVICE));
            PAGES.feed(&mut rig);
        }
        rig.write(reg::PQCSR, 4, csr::ENABLE);
        for _ in 0..20 {
            let status = PAGES.status(&mut rig) & (csr::ON | BUSY);
            assert!(status == csr::ON || status == BUSY, "{status:#x}");
        }
        rig.held = None;
        busy_until_active(PAGES, &mut rig);
    }
}

/// Without `cqon`, `fqon` or `pqon` the queue does nothing with what there is, with it it does.
fn active_with_on_only(queue: Queue) {
    let mut rig = setup(false);
    let before = queue.index(&mut rig);
    queue.stop(&mut rig);
    rig.accesses.clear();
    queue.feed(&mut rig);
    assert!(!queue.accessed(&mut rig));
    assert_eq!(queue.index(&mut rig), before);
    assert_eq!(queue.status(&mut rig), 0);
    queue.stop(&mut rig);
    queue.set(&mut rig, csr::ENABLE);
    assert_eq!(queue.status(&mut rig), ACTIVE);
    queue.feed(&mut rig);
    assert!(queue.accessed(&mut rig));
    assert_eq!(queue.index(&mut rig), 1);
    assert_eq!(queue.status(&mut rig), ACTIVE);
}

#[test]
fn the_command_queue_is_active_with_cqon_only() {
    active_with_on_only(COMMANDS);
}

#[test]
fn the_fault_queue_is_active_with_fqon_only() {
    active_with_on_only(FAULTS);
}

#[test]
fn the_page_request_queue_is_active_with_pqon_only() {
    active_with_on_only(PAGES);
}

/// Turned off while the memory owes a response to `held`, the queue stays active until it comes.
fn active_until_it_has_ended(queue: Queue, rig: &mut Rig, held: u64) {
    rig.run(300);
    for _ in 0..3 {
        assert_eq!(queue.status(rig), ACTIVE);
        rig.run(50);
    }
    rig.write(queue.csr, 4, 0);
    for _ in 0..3 {
        rig.run(100);
        assert_eq!(queue.status(rig), csr::ON | BUSY);
    }
    assert_eq!(rig.held, Some(held));
    rig.held = None;
    rig.run(100);
    assert_eq!(queue.status(rig), 0);
}

#[test]
fn the_command_queue_ends_what_it_has_fetched() {
    // The fetch, and the store of a fence.
    let mut rig = setup(false);
    let held = COMMANDS.memory(&mut rig) + 16 * COMMANDS.index(&mut rig);
    rig.held = Some(held);
    give(&mut rig, &[FENCE]);
    active_until_it_has_ended(COMMANDS, &mut rig, held);
    let mut rig = setup(false);
    let held = rig.page();
    rig.held = Some(held);
    give(&mut rig, &[command::fence(Some((held, 1)), false)]);
    active_until_it_has_ended(COMMANDS, &mut rig, held);
    assert_eq!(rig.load(held), 1);
}

#[test]
fn the_fault_queue_ends_a_record_under_way() {
    let mut rig = setup(false);
    let held = FAULTS.memory(&mut rig);
    rig.held = Some(held);
    FAULTS.feed(&mut rig);
    active_until_it_has_ended(FAULTS, &mut rig, held);
    assert_eq!(FAULTS.index(&mut rig), 1);
    assert_eq!(rig.load(held) & 0xfff, 258);
}

#[test]
fn the_page_request_queue_ends_a_message_under_way() {
    let mut rig = setup(false);
    let held = PAGES.memory(&mut rig);
    rig.held = Some(held);
    PAGES.feed(&mut rig);
    active_until_it_has_ended(PAGES, &mut rig, held);
    assert_eq!(PAGES.index(&mut rig), 1);
    assert_eq!(rig.load(held), u64::from(DEVICE) << 40);
}

/// Each condition makes an interrupt with `cie`, `fie` or `pie`, and none without.
fn interrupts_are_enabled(queue: Queue, conditions: &[Condition]) {
    for condition in conditions {
        let mut rig = condition.setup();
        condition.provoke(&mut rig);
        assert_eq!(rig.read(reg::IPSR, 4), 0, "{condition:?}");
        queue.set(&mut rig, csr::ENABLE | csr::INTERRUPT);
        assert_eq!(rig.read(reg::IPSR, 4), queue.pending, "{condition:?}");
    }
}

#[test]
fn cie_enables_interrupts() {
    use Condition::{CommandFault, Fence, Illegal, Timeout};
    interrupts_are_enabled(COMMANDS, &[CommandFault, Fence, Illegal, Timeout]);
}

/// A new record, or a new message, is an interrupt only if it comes with interrupts enabled.
fn news_are_enabled(queue: Queue) {
    let mut rig = setup(false);
    queue.feed(&mut rig);
    queue.set(&mut rig, csr::ENABLE | csr::INTERRUPT);
    rig.run(100);
    assert_eq!(rig.read(reg::IPSR, 4), 0);
    queue.feed(&mut rig);
    assert_eq!(rig.read(reg::IPSR, 4), queue.pending);
    assert_eq!(queue.index(&mut rig), 2);
}

#[test]
fn fie_enables_interrupts() {
    use Condition::{FaultFault, FaultOverflow};
    interrupts_are_enabled(FAULTS, &[FaultFault, FaultOverflow]);
    news_are_enabled(FAULTS);
}

#[test]
fn pie_enables_interrupts() {
    use Condition::{PageFault, PageOverflow};
    interrupts_are_enabled(PAGES, &[PageFault, PageOverflow]);
    news_are_enabled(PAGES);
}

#[test]
fn a_fault_of_an_access_of_a_command_stops_the_queue() {
    let mut rig = setup(false);
    let start = COMMANDS.index(&mut rig);
    let [bad, good] = [(); 2].map(|()| rig.page());
    rig.broken.insert(bad);
    let fences = [(bad, 1), (good, 2)].map(|store| command::fence(Some(store), false));
    give(&mut rig, &fences);
    for _ in 0..2 {
        rig.run(300);
        let status = COMMANDS.status(&mut rig);
        assert_eq!(status, ACTIVE | csr::MEMORY_FAULT);
        assert_eq!(COMMANDS.index(&mut rig), start);
        assert_eq!(rig.load(good), 0);
        rig.broken.clear();
    }
    COMMANDS.set(&mut rig, csr::ENABLE | csr::MEMORY_FAULT);
    rig.run(300);
    assert_eq!(COMMANDS.status(&mut rig), ACTIVE);
    assert_eq!(COMMANDS.index(&mut rig), start + 2);
    assert_eq!([bad, good].map(|at| rig.load(at)), [1, 2]);
}

/// The command would do no harm any more, and the next waits. Nothing but a 1 to the bit lets them be
/// executed.
fn the_queue_stops_until_1_is_written(condition: Condition) {
    let mut rig = condition.setup();
    condition.provoke(&mut rig);
    let at = rig.page();
    give(&mut rig, &[command::fence(Some((at, 1)), false)]);
    let head = COMMANDS.index(&mut rig);
    let all = csr::MEMORY_FAULT | csr::TIMEOUT | csr::ILLEGAL | FENCE_DONE;
    for written in [0, all & !condition.bit()] {
        COMMANDS.set(&mut rig, csr::ENABLE | written);
        rig.run(300);
        assert_eq!(COMMANDS.status(&mut rig), ACTIVE | condition.bit());
        assert_eq!(COMMANDS.index(&mut rig), head);
        assert_eq!(rig.load(at), 0);
    }
    COMMANDS.set(&mut rig, csr::ENABLE | condition.bit());
    rig.run(300);
    assert_eq!(COMMANDS.status(&mut rig), ACTIVE);
    assert_eq!(COMMANDS.index(&mut rig), rig.read(reg::CQT, 4));
    assert_eq!(rig.load(at), 1);
}

#[test]
fn cmd_ill_stops_the_queue_until_1_is_written() {
    the_queue_stops_until_1_is_written(Condition::Illegal);
}

#[test]
fn cmd_to_stops_the_queue_until_1_is_written() {
    the_queue_stops_until_1_is_written(Condition::Timeout);
}

#[test]
fn cqmf_stops_the_queue_until_1_is_written() {
    the_queue_stops_until_1_is_written(Condition::CommandFault);
}

#[test]
fn a_fence_with_wsi_sets_fence_w_ip_when_it_completes() {
    let mut rig = setup(true);
    give(&mut rig, &[FENCE]);
    rig.run(300);
    assert_eq!(COMMANDS.status(&mut rig), ACTIVE);
    give(&mut rig, &[INVALIDATE, WIRED_FENCE]);
    rig.run(300);
    assert_eq!(COMMANDS.status(&mut rig), ACTIVE, "it waits");
    rig.message(&Message::Completion {
        device_id: DEVICE,
        itags: 1,
        count: 1,
    });
    rig.run(300);
    let status = COMMANDS.status(&mut rig);
    assert_eq!(status, ACTIVE | FENCE_DONE);
}

/// A fence whose store has not ended, or has faulted, has not completed.
#[test]
fn fence_w_ip_is_set_after_the_store_of_the_fence() {
    let mut rig = setup(true);
    let [good, broken] = [(); 2].map(|()| rig.page());
    rig.broken.insert(broken);
    let fence = |at| {
        let [first, second] = command::fence(Some((at, 1)), false);
        [first | WIRED_FENCE[0], second]
    };
    rig.held = Some(good);
    give(&mut rig, &[fence(good)]);
    for _ in 0..3 {
        rig.run(300);
        assert_eq!(COMMANDS.status(&mut rig), ACTIVE);
    }
    rig.held = None;
    rig.run(100);
    assert_eq!(COMMANDS.status(&mut rig), ACTIVE | FENCE_DONE);
    assert_eq!(rig.load(good), 1);
    COMMANDS.set(&mut rig, csr::ENABLE | FENCE_DONE);
    give(&mut rig, &[fence(broken)]);
    rig.run(300);
    let status = COMMANDS.status(&mut rig);
    assert_eq!(status, ACTIVE | csr::MEMORY_FAULT);
    rig.broken.clear();
    COMMANDS.set(&mut rig, csr::ENABLE | csr::MEMORY_FAULT);
    rig.run(300);
    assert_eq!(COMMANDS.status(&mut rig), ACTIVE | FENCE_DONE);
    assert_eq!(rig.load(broken), 1);
}

#[test]
fn fence_w_ip_does_not_stop_the_queue() {
    let mut rig = setup(true);
    let at = rig.page();
    let start = COMMANDS.index(&mut rig);
    give(
        &mut rig,
        &[WIRED_FENCE, command::fence(Some((at, 7)), false)],
    );
    rig.run(300);
    let status = COMMANDS.status(&mut rig);
    assert_eq!(status, ACTIVE | FENCE_DONE);
    assert_eq!(COMMANDS.index(&mut rig), start + 2);
    assert_eq!(rig.load(at), 7);
}

#[test]
fn writing_1_to_fence_w_ip_clears_it() {
    let mut rig = setup(true);
    give(&mut rig, &[WIRED_FENCE]);
    rig.run(300);
    let others = csr::MEMORY_FAULT | csr::TIMEOUT | csr::ILLEGAL;
    for (written, left) in [(0, FENCE_DONE), (others, FENCE_DONE), (FENCE_DONE, 0)] {
        COMMANDS.set(&mut rig, csr::ENABLE | written);
        assert_eq!(COMMANDS.status(&mut rig), ACTIVE | left);
    }
}

/// What is reserved reads 0 and causes nothing, also if it was 1 with wires.
#[test]
fn fence_w_ip_is_reserved_without_wires() {
    let mut rig = setup(true);
    give(&mut rig, &[WIRED_FENCE]);
    rig.run(300);
    for queue in [FAULTS, PAGES] {
        queue.stop(&mut rig);
    }
    rig.set_ddtp(0, 0);
    COMMANDS.set(&mut rig, 0);
    assert_eq!(COMMANDS.status(&mut rig), FENCE_DONE);
    rig.write(reg::FCTL, 4, 0);
    assert_eq!(COMMANDS.status(&mut rig), 0);
    COMMANDS.set(&mut rig, csr::INTERRUPT);
    rig.run(100);
    assert_eq!(rig.read(reg::IPSR, 4), 0);
}

/// All ones, with the queue on and off, and with every other bit 1.
fn reserved_bits_read_0(queue: Queue, conditions: &[Condition]) {
    let both = csr::ENABLE | csr::INTERRUPT;
    let mut rig = setup(false);
    queue.set(&mut rig, 0xffff_ffff);
    assert_eq!(queue.status(&mut rig), both | csr::ON);
    queue.set(&mut rig, 0xffff_ffff & !csr::ENABLE);
    assert_eq!(queue.status(&mut rig), csr::INTERRUPT);
    for condition in conditions {
        let mut rig = condition.setup();
        condition.provoke(&mut rig);
        queue.set(&mut rig, 0xffff_ffff & !condition.bit());
        let status = queue.status(&mut rig);
        assert_eq!(status, both | csr::ON | condition.bit(), "{condition:?}");
    }
}

#[test]
fn reserved_bits_of_cqcsr_read_0() {
    use Condition::{CommandFault, Fence, Illegal, Timeout};
    reserved_bits_read_0(COMMANDS, &[CommandFault, Fence, Illegal, Timeout]);
}

#[test]
fn reserved_bits_of_fqcsr_read_0() {
    use Condition::{FaultFault, FaultOverflow};
    reserved_bits_read_0(FAULTS, &[FaultFault, FaultOverflow]);
}

#[test]
fn reserved_bits_of_pqcsr_read_0() {
    use Condition::{PageFault, PageOverflow};
    reserved_bits_read_0(PAGES, &[PageFault, PageOverflow]);
}

/// A message that meets the error, and the next, are lost; after a 1 is written one is not.
fn messages_are_discarded(condition: Condition) {
    let mut rig = setup(false);
    let page = PAGES.memory(&mut rig);
    condition.provoke(&mut rig);
    let status = ACTIVE | condition.bit();
    assert_eq!(PAGES.status(&mut rig), status);
    rig.write(reg::PQH, 4, 0);
    rig.accesses.clear();
    let other = csr::MEMORY_FAULT | csr::OVERFLOW;
    for written in [0, other & !condition.bit()] {
        PAGES.set(&mut rig, csr::ENABLE | written);
        PAGES.feed(&mut rig);
        assert_eq!(PAGES.status(&mut rig), status);
        assert_eq!(PAGES.index(&mut rig), 0);
        assert!(!PAGES.accessed(&mut rig));
    }
    PAGES.set(&mut rig, csr::ENABLE | condition.bit());
    PAGES.feed(&mut rig);
    assert_eq!(PAGES.status(&mut rig), ACTIVE);
    assert_eq!(PAGES.index(&mut rig), 1);
    assert_eq!(rig.load(page), u64::from(DEVICE) << 40);
}

#[test]
fn pqmf_discards_messages_until_it_is_cleared() {
    messages_are_discarded(Condition::PageFault);
}

#[test]
fn a_message_for_a_full_queue_sets_pqof() {
    messages_are_discarded(Condition::PageOverflow);
}
