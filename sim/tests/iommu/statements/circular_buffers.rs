//! Queues as circular buffers: IOMMU §3.

use super::queue::{ACTIVE, COMMANDS, ENTRIES, FAULTS, FENCE, PAGES, Queue, give, setup};
use crate::bench::{csr, reg};

/// Queues that the IOMMU fills, and the size of a record.
const FILLED: [(Queue, u64); 2] = [(FAULTS, 32), (PAGES, 16)];

/// Wherever that is: the command queue has nothing to fetch, the others have room.
#[test]
fn a_queue_is_empty_if_head_and_tail_are_equal() {
    let mut rig = setup(false);
    for index in 0..ENTRIES {
        rig.accesses.clear();
        rig.run(50);
        assert_eq!(rig.accesses, [], "{index}");
        for queue in [COMMANDS, FAULTS, PAGES] {
            let before = queue.index(&mut rig);
            assert_eq!(rig.read(queue.software, 4), before);
            queue.feed(&mut rig);
            let after = queue.index(&mut rig);
            assert_eq!(after, (before + 1) % ENTRIES);
            assert_eq!(queue.status(&mut rig), ACTIVE);
            rig.write(queue.software, 4, after);
        }
    }
}

/// Wherever that is: the IOMMU adds nothing. One less is not full.
#[test]
fn a_queue_is_full_if_the_tail_is_the_head_less_one() {
    let mut rig = setup(false);
    for (queue, _) in FILLED {
        for tail in 0..ENTRIES {
            rig.write(queue.software, 4, (tail + 1) % ENTRIES);
            rig.accesses.clear();
            queue.feed(&mut rig);
            assert_eq!(queue.status(&mut rig), ACTIVE | csr::OVERFLOW);
            assert_eq!(queue.index(&mut rig), tail);
            assert!(!queue.accessed(&mut rig));
            queue.set(&mut rig, csr::ENABLE | csr::OVERFLOW);
            rig.write(queue.software, 4, (tail + 2) % ENTRIES);
            queue.feed(&mut rig);
            assert_eq!(queue.status(&mut rig), ACTIVE);
            assert_eq!(queue.index(&mut rig), (tail + 1) % ENTRIES);
        }
    }
    // A full command queue has one command less than entries.
    let head = COMMANDS.index(&mut rig);
    for n in 1..4 {
        give(&mut rig, &[FENCE; ENTRIES as usize - 1]);
        rig.run(20_000);
        assert_eq!(
            COMMANDS.index(&mut rig),
            (head + n * (ENTRIES - 1)) % ENTRIES
        );
    }
}

#[test]
fn head_and_tail_wrap_at_the_end() {
    let mut rig = setup(false);
    for (queue, size) in [(COMMANDS, 16), FILLED[0], FILLED[1]] {
        let memory = queue.memory(&mut rig);
        let first = queue.index(&mut rig);
        for index in (first..=ENTRIES).map(|i| i % ENTRIES) {
            assert_eq!(queue.index(&mut rig), index);
            rig.accesses.clear();
            queue.feed(&mut rig);
            let touched = rig.accesses.iter().map(|a| a.addr);
            let touched: Vec<u64> = touched.filter(|at| at & !0xfff == memory).collect();
            assert_eq!(touched, [memory + size * index]);
            let next = queue.index(&mut rig);
            rig.write(queue.software, 4, next);
        }
        assert_eq!(queue.index(&mut rig), 1);
    }
}

#[test]
fn a_record_is_written_before_the_tail_says_so() {
    let mut rig = setup(false);
    for (queue, size) in FILLED {
        for index in 0..4 {
            let at = queue.memory(&mut rig) + size * index;
            rig.held = Some(at);
            queue.feed(&mut rig);
            assert_eq!(queue.index(&mut rig), index, "not yet written");
            rig.held = None;
            rig.run(100);
            assert_eq!(queue.index(&mut rig), index + 1);
            assert_ne!(rig.load(at), 0);
        }
    }
}

/// The interrupt for a record or a message (§3.2, §3.3) comes once that is written, too.
#[test]
fn an_interrupt_for_a_record_comes_after_it() {
    for (queue, size) in FILLED {
        let mut rig = setup(false);
        queue.set(&mut rig, csr::ENABLE | csr::INTERRUPT);
        for index in 0..3 {
            rig.held = Some(queue.memory(&mut rig) + size * index);
            queue.feed(&mut rig);
            assert_eq!(rig.read(reg::IPSR, 4), 0, "not yet written");
            rig.held = None;
            rig.run(100);
            assert_eq!(rig.read(reg::IPSR, 4), queue.pending);
            rig.write(reg::IPSR, 4, queue.pending);
            assert_eq!(rig.read(reg::IPSR, 4), 0);
        }
    }
}
