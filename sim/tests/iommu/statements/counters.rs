//! The performance monitor's registers (IOMMU §5.19 to §5.22), and of selectors what does not
//! decide what is counted (§5.23).

use crate::bench::reg;
use crate::rig::{Request, Rig, Ttyp};

/// Event counters of the configuration.
const COUNTERS: u32 = 8;
const OF: u64 = 1 << 63;
const PMIP: u64 = 4;
const UNTRANSLATED: u64 = 1;
/// The last count of `iohpmcycles`, which has 63 bits.
const LAST_CYCLE: u64 = u64::MAX >> 1;

const fn counter(i: u32) -> u32 {
    reg::IOHPMCTR + 8 * (i - 1)
}

const fn selector(i: u32) -> u32 {
    reg::IOHPMEVT + 8 * (i - 1)
}

/// Nothing is translated; each selector counts untranslated requests.
fn setup() -> Rig {
    counting(Rig::new(37))
}

fn counting(mut rig: Rig) -> Rig {
    rig.set_ddtp(1, 0);
    for i in 1..=COUNTERS {
        rig.write(selector(i), 8, UNTRANSLATED);
    }
    rig
}

/// One event.
fn count(rig: &mut Rig) {
    rig.translate(Request::new(Ttyp::UntransRd, 5, 0x1000));
}

fn pending(rig: &mut Rig) -> u64 {
    rig.read(reg::IPSR, 4)
}

#[test]
fn bit_0_of_iocountovf_is_that_of_the_cycles() {
    let mut rig = setup();
    assert_eq!(rig.read(reg::IOCOUNTOVF, 4), 0);
    for (written, bit) in [(OF, 1), (0, 0), (LAST_CYCLE, 1), (0, 0)] {
        rig.write(reg::IOHPMCYCLES, 8, written);
        rig.run(10);
        assert_eq!(rig.read(reg::IOHPMCYCLES, 8) >> 63, bit);
        assert_eq!(rig.read(reg::IOCOUNTOVF, 4), bit);
    }
}

#[test]
fn bit_x_of_iocountovf_is_that_of_selector_x() {
    let mut rig = setup();
    let mut overflowed = 0;
    for i in 1..=COUNTERS {
        rig.write(counter(i), 8, u64::MAX);
        assert_eq!(rig.read(reg::IOCOUNTOVF, 4), overflowed);
        count(&mut rig);
        overflowed |= 1 << i;
        assert_eq!(rig.read(reg::IOCOUNTOVF, 4), overflowed);
    }
    for i in 1..=COUNTERS {
        rig.write(selector(i), 8, UNTRANSLATED);
        overflowed &= !(1 << i);
        assert_eq!(rig.read(reg::IOCOUNTOVF, 4), overflowed);
    }
    for i in 1..=COUNTERS {
        rig.write(selector(i), 8, OF | UNTRANSLATED);
        assert_eq!(rig.read(reg::IOCOUNTOVF, 4), 1 << i);
        rig.write(selector(i), 8, UNTRANSLATED);
    }
}

#[test]
fn iocountovf_is_read_only() {
    let mut rig = setup();
    rig.write(selector(3), 8, OF);
    for written in [0, 0xffff_ffff, 0b1000] {
        rig.write(reg::IOCOUNTOVF, 4, written);
        assert_eq!(rig.read(reg::IOCOUNTOVF, 4), 0b1000);
        for i in 1..=COUNTERS {
            assert_eq!(rig.read(selector(i), 8) & OF == OF, i == 3);
        }
        assert_eq!(rig.read(reg::IOHPMCYCLES, 8) & OF, 0);
    }
}

#[test]
fn bit_x_of_iocountinh_stops_counter_x() {
    let mut rig = setup();
    for inhibited in 0..=COUNTERS {
        rig.write(reg::IOCOUNTINH, 4, 1 << inhibited);
        for i in 1..=COUNTERS {
            rig.write(counter(i), 8, 0x55);
        }
        let cycles = rig.read(reg::IOHPMCYCLES, 8);
        count(&mut rig);
        count(&mut rig);
        assert_eq!(rig.read(reg::IOHPMCYCLES, 8) == cycles, inhibited == 0);
        for i in 1..=COUNTERS {
            let expected = if i == inhibited { 0x55 } else { 0x57 };
            assert_eq!(rig.read(counter(i), 8), expected, "{inhibited}: {i}");
        }
    }
    rig.write(reg::IOCOUNTINH, 4, 0xffff_ffff);
    count(&mut rig);
    assert_eq!(rig.read(counter(1), 8), 0x57);
}

/// Cycles that a read sees between a write of `value` and itself, with `cycles` in between.
fn cycles_after(rig: &mut Rig, value: u64, cycles: u64) -> u64 {
    rig.write(reg::IOHPMCYCLES, 8, value);
    rig.run(cycles);
    rig.read(reg::IOHPMCYCLES, 8)
}

#[test]
fn iohpmcycles_counts_clock_cycles() {
    let mut rig = setup();
    let access = cycles_after(&mut rig, 0, 0);
    for cycles in [1, 10, 1000, 12_345] {
        assert_eq!(cycles_after(&mut rig, 0, cycles), access + cycles);
    }
    // Beyond 32 bits.
    let low = 0xffff_ffff;
    assert_eq!(cycles_after(&mut rig, low, 10), low + access + 10);
}

#[test]
fn iohpmcycles_can_be_written() {
    let mut rig = setup();
    rig.write(reg::IOCOUNTINH, 4, 1);
    for bit in 0..64 {
        for value in [1 << bit, !(1 << bit)] {
            assert_eq!(cycles_after(&mut rig, value, 10), value);
        }
    }
    rig.write(reg::IOCOUNTINH, 4, 0);
    let access = cycles_after(&mut rig, 0, 10);
    let value = 0x1234_5678_9abc_def0;
    assert_eq!(cycles_after(&mut rig, value, 10), value + access);
}

#[test]
fn of_of_iohpmcycles_stays_until_software_clears_it() {
    let mut rig = setup();
    let access = cycles_after(&mut rig, 0, 10);
    assert_eq!(cycles_after(&mut rig, LAST_CYCLE, 10), OF | (access - 1));
    // Neither time, the end of the interrupt, the other half nor another overflow clears it.
    rig.run(1000);
    rig.write(reg::IPSR, 4, PMIP);
    rig.write(reg::IOHPMCYCLES, 4, 0);
    assert_eq!(rig.read(reg::IOHPMCYCLES + 4, 4), 1 << 31);
    assert_eq!(cycles_after(&mut rig, u64::MAX, 10), OF | (access - 1));
    assert_eq!(rig.read(reg::IOCOUNTOVF, 4), 1);
    rig.write(reg::IOHPMCYCLES + 4, 4, 0);
    assert_eq!(rig.read(reg::IOHPMCYCLES + 4, 4), 0);
    assert_eq!(rig.read(reg::IOCOUNTOVF, 4), 0);
}

#[test]
fn iohpmcycles_goes_on_from_0() {
    for (mut rig, last) in [
        (setup(), LAST_CYCLE),
        (counting(Rig::other(37)), (1 << 40) - 1),
    ] {
        let access = cycles_after(&mut rig, 0, 0);
        let value = cycles_after(&mut rig, last, 1000);
        assert_eq!(value, OF | (access + 1000 - 1));
        assert_eq!(pending(&mut rig), PMIP);
    }
}

#[test]
fn an_overflow_of_iohpmcycles_with_of_sets_no_pmip() {
    let mut rig = setup();
    for (value, expected) in [(u64::MAX, 0), (LAST_CYCLE, PMIP), (u64::MAX, 0)] {
        let after = cycles_after(&mut rig, value, 100);
        assert_eq!(after >> 12, OF >> 12, "an overflow, and OF");
        assert_eq!(pending(&mut rig), expected);
        rig.write(reg::IPSR, 4, PMIP);
    }
}

/// What is written is read, and each carry goes through.
#[test]
fn event_counters_have_64_bits() {
    let mut rig = setup();
    let carries = (0..64).map(|bit| (1 << bit) - 1);
    for value in carries.chain([0x0123_4567_89ab_cdef, u64::MAX - 1]) {
        // Each differs from its neighbours.
        let written = |i: u32| if i.is_multiple_of(2) { value } else { !value };
        for i in 1..=COUNTERS {
            rig.write(counter(i), 8, written(i));
        }
        for i in 1..=COUNTERS {
            assert_eq!(rig.read(counter(i), 8), written(i), "{i}");
        }
        count(&mut rig);
        for i in 1..=COUNTERS {
            assert_eq!(rig.read(counter(i), 8), written(i).wrapping_add(1), "{i}");
        }
    }
}

/// Those of fewer bits hold 0 above them.
#[test]
fn event_counters_hold_the_bits_that_they_have() {
    let mut rig = Rig::other(37);
    for i in 1..=3 {
        rig.write(counter(i), 8, u64::MAX);
        assert_eq!(rig.read(counter(i), 8), (1 << 40) - 1, "{i}");
    }
}

#[test]
fn a_change_of_event_id_leaves_the_count() {
    let mut rig = setup();
    for i in 1..=COUNTERS {
        let value = 0xfedc_0000_0000_0000 + u64::from(i);
        rig.write(counter(i), 8, value);
        for event in [0, 2, 8, 0x7fff, 0, 1] {
            rig.write(selector(i), 8, event);
            assert_eq!(rig.read(counter(i), 8), value);
        }
        for event in [0, 4, 1] {
            rig.write(selector(i), 4, event);
            assert_eq!(rig.read(counter(i), 8), value);
        }
        count(&mut rig);
        assert_eq!(rig.read(counter(i), 8), value + 1, "it counts again");
    }
}

#[test]
fn of_of_a_selector_stays_until_software_clears_it() {
    let mut rig = setup();
    for i in 1..=COUNTERS {
        rig.write(counter(i), 8, u64::MAX - 1);
        count(&mut rig);
        assert_eq!(rig.read(selector(i), 8), UNTRANSLATED, "not yet");
        count(&mut rig);
        assert_eq!(rig.read(selector(i), 8), OF | UNTRANSLATED);
        // Neither an event, the end of the interrupt, the other half, the counter nor another
        // overflow clears it.
        count(&mut rig);
        rig.write(reg::IPSR, 4, PMIP);
        rig.write(selector(i), 4, UNTRANSLATED);
        assert_eq!(rig.read(selector(i), 8), OF | UNTRANSLATED);
        rig.write(counter(i), 8, u64::MAX);
        count(&mut rig);
        assert_eq!(rig.read(counter(i), 8), 0);
        assert_eq!(rig.read(selector(i), 8), OF | UNTRANSLATED);
        rig.write(selector(i) + 4, 4, 0);
        assert_eq!(rig.read(selector(i), 8), UNTRANSLATED);
    }
}

/// Every field by itself and all others, and each event that there is.
#[test]
fn fields_of_selectors_can_be_written() {
    let mut rig = Rig::new(37);
    let events = 0x7fff;
    for i in 1..=COUNTERS {
        for bit in 15..64 {
            for value in [1 << bit, !(1 << bit) & !events] {
                rig.write(selector(i), 8, value);
                assert_eq!(rig.read(selector(i), 8), value);
            }
        }
        for event in 1..=8 {
            for others in [0, !events] {
                rig.write(selector(i), 8, others | event);
                assert_eq!(rig.read(selector(i), 8), others | event);
            }
        }
        rig.write(selector(i), 8, 0xa_5a5a_0000 | u64::from(i));
    }
    for i in 1..=COUNTERS {
        assert_eq!(rig.read(selector(i), 8), 0xa_5a5a_0000 | u64::from(i));
    }
}

/// Whatever OF of the others is.
#[test]
fn an_overflow_of_each_counter_sets_pmip_unless_of_is_1() {
    for (mut rig, counters, last) in [
        (setup(), COUNTERS, u64::MAX),
        (counting(Rig::other(37)), 3, (1 << 40) - 1),
    ] {
        for i in (1..=counters).rev() {
            for expected in [PMIP, 0] {
                rig.write(counter(i), 8, last);
                assert_eq!(pending(&mut rig), 0, "{i}");
                count(&mut rig);
                assert_eq!(rig.read(counter(i), 8), 0);
                assert_eq!(rig.read(selector(i), 8), OF | UNTRANSLATED);
                assert_eq!(pending(&mut rig), expected, "{i}");
                rig.write(reg::IPSR, 4, PMIP);
            }
        }
    }
}
