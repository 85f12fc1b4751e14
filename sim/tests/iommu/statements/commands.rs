//! The command queue: IOMMU §3.1.

use super::queue::{ACTIVE, COMMANDS, FENCE, give, setup};
use crate::bench::{command, csr, reg};
use crate::rig::Rig;

/// IODIR.INVAL_DDT, whose end nothing delays.
const HARMLESS: [u64; 2] = [3, 0];

/// Whether the command is illegal: then the queue stops at it, and goes on once it is mended.
pub fn is_illegal(rig: &mut Rig, command: [u64; 2]) -> bool {
    let (slot, head) = (rig.next_command(), rig.read(reg::CQH, 4));
    rig.hand_over(&[command]);
    rig.run(100);
    let illegal = rig.read(reg::CQCSR, 4) & csr::ILLEGAL != 0;
    if illegal {
        assert_eq!(rig.read(reg::CQH, 4), head, "{command:x?}");
        rig.store(slot, HARMLESS[0]);
        rig.store(slot + 8, HARMLESS[1]);
        rig.write(reg::CQCSR, 4, csr::ENABLE | csr::ILLEGAL);
    }
    rig.submit(&[]);
    illegal
}

/// Addresses of reads in the queue's page since [`Rig::accesses`] was cleared.
fn fetches(rig: &mut Rig) -> Vec<u64> {
    let page = COMMANDS.memory(rig);
    let reads = rig.accesses.iter().filter(|a| a.op == 0);
    let addrs = reads.map(|a| a.addr);
    addrs.filter(|addr| addr & !0xfff == page).collect()
}

/// The first doubleword has the opcode and DATA, the second ADDR.
#[test]
fn a_command_has_16_bytes() {
    let mut rig = setup(false);
    let (queue, page) = (COMMANDS.memory(&mut rig), rig.page());
    let start = COMMANDS.index(&mut rig);
    let first = queue + 16 * start;
    for i in 0..3 {
        rig.store(first + 16 * i, 2 | 1 << 10 | (0x70 + i) << 32);
        rig.store(first + 16 * i + 8, (page + 64 * i) >> 2);
    }
    rig.accesses.clear();
    rig.write(reg::CQT, 4, start + 3);
    rig.run(300);
    assert_eq!(fetches(&mut rig), [first, first + 16, first + 32]);
    let stored = [0, 1, 2].map(|i| rig.load(page + 64 * i));
    assert_eq!(stored, [0x70, 0x71, 0x72]);
    assert_eq!(COMMANDS.index(&mut rig), start + 3);
}

/// The queue is where `cqb` says, and after as many commands as it says the first entry is next.
#[test]
fn base_and_size_are_those_of_cqb() {
    for (base, log2) in [
        (0xa5_5aa5_5aa5_a000, 1),
        (0x5a_a55a_a55a_5000, 2),
        (0x12_3456_7800_0000, 8),
        (0x12_3456_7800_2000, 9),
    ] {
        let mut rig = setup(false);
        let flag = rig.page();
        COMMANDS.stop(&mut rig);
        rig.write(reg::CQB, 8, base >> 12 << 10 | (log2 - 1));
        COMMANDS.set(&mut rig, csr::ENABLE);
        for i in 0..(1 << log2) + 1 {
            let index = i % (1 << log2);
            let [first, second] = command::fence(Some((flag, i as u32 + 1)), false);
            rig.store(base + 16 * index, first);
            rig.store(base + 16 * index + 8, second);
            rig.accesses.clear();
            let next = (index + 1) % (1 << log2);
            rig.write(reg::CQT, 4, next);
            rig.run(60);
            let accesses: Vec<u64> = rig.accesses.iter().map(|a| a.addr).collect();
            assert_eq!(accesses, [base + 16 * index, flag]);
            assert_eq!(rig.load(flag), i + 1);
            assert_eq!(COMMANDS.index(&mut rig), next);
        }
    }
}

/// While a command is executed `cqh` is its index; after it, the next one.
#[test]
fn the_command_at_cqh_is_next() {
    let mut rig = setup(false);
    let (queue, start) = (COMMANDS.memory(&mut rig), COMMANDS.index(&mut rig));
    let pages = [(); 4].map(|()| rig.page());
    let fences = pages.map(|page| command::fence(Some((page, 1)), false));
    rig.held = Some(pages[0]);
    rig.accesses.clear();
    give(&mut rig, &fences);
    for (i, page) in (0..).zip(pages) {
        rig.run(200);
        assert_eq!(COMMANDS.index(&mut rig), start + i);
        let expected: Vec<u64> = (0..=i).map(|n| queue + 16 * (start + n)).collect();
        assert_eq!(fetches(&mut rig), expected);
        assert_eq!(rig.load(page), 1);
        rig.held = pages.get(i as usize + 1).copied();
    }
    rig.run(200);
    assert_eq!(COMMANDS.index(&mut rig), start + 4);
}

#[test]
fn an_empty_queue_is_not_fetched_from() {
    let mut rig = setup(false);
    let queue = COMMANDS.memory(&mut rig);
    for _ in 0..5 {
        let head = COMMANDS.index(&mut rig);
        assert_eq!(rig.read(reg::CQT, 4), head);
        rig.accesses.clear();
        rig.run(500);
        assert_eq!(rig.accesses, []);
        give(&mut rig, &[FENCE]);
        rig.run(100);
        assert_eq!(fetches(&mut rig), [queue + 16 * head]);
        assert_eq!(COMMANDS.index(&mut rig), head + 1);
    }
}

/// Each doubleword by itself. In the other order the first has opcode 0, the second a reserved bit.
#[test]
fn commands_have_the_byte_order_of_fctl_be() {
    for be in [false, true] {
        for [first, second] in [[false, false], [false, true], [true, false], [true, true]] {
            let mut rig = Rig::new(52);
            rig.set_fctl(be.into());
            let flag = rig.page() + 0x300;
            let words = command::fence(Some((flag, 0x00_3456)), false);
            assert_eq!((words[0] >> 56, words[1] & 0xff), (0, 0xc0));
            let slot = rig.next_command();
            rig.store_as(slot, words[0], first);
            rig.store_as(slot + 8, words[1], second);
            rig.write(reg::CQT, 4, 1);
            rig.run(200);
            let right = first == be && second == be;
            let error = if right { 0 } else { csr::ILLEGAL };
            assert_eq!(rig.read(reg::CQCSR, 4), ACTIVE | error);
            assert_eq!(rig.load(flag) != 0, right);
        }
    }
}

#[test]
fn reserved_opcodes_are_illegal() {
    let mut rig = Rig::new(53);
    for opcode in (0..1).chain(5..64) {
        assert!(is_illegal(&mut rig, [opcode, 0]), "{opcode}");
    }
    for opcode in 1..5 {
        assert!(!is_illegal(&mut rig, [opcode, 0]), "{opcode}");
    }
}

#[test]
fn reserved_functions_are_illegal() {
    let mut rig = Rig::new(54);
    // Opcode and operands, and how many functions there are.
    for (base, functions) in [(1, 2), (2, 1), (3 | 1 << 33, 2), (4, 2)] {
        for function in 0..8 {
            let illegal = is_illegal(&mut rig, [base | function << 7, 0]);
            assert_eq!(illegal, function >= functions, "{base:#x} {function}");
        }
    }
}

/// This IOMMU has no custom command.
#[test]
fn custom_opcodes_are_illegal() {
    let mut rig = Rig::new(55);
    for opcode in 64..128 {
        for function in [0, 1, 7] {
            assert!(is_illegal(&mut rig, [opcode | function << 7, 0]));
        }
        // Without its highest bit it may be a command.
        let illegal = is_illegal(&mut rig, [opcode & 63, 0]);
        assert_eq!(illegal, !(65..69).contains(&opcode));
    }
}

/// Bits `high:low`.
const fn bits(high: u32, low: u32) -> u64 {
    (!0 >> (63 - high)) & (!0 << low)
}

/// Of every function: a command whose operands are all ones, where those are valid, and its reserved
/// bits. Bit 34 of IOTINVAL and bit 9 of its second doubleword are operands of extensions.
#[test]
fn reserved_bits_are_illegal() {
    let iotinval = [1 << 11 | bits(43, 35) | bits(63, 60), bits(8, 0) | 3 << 62];
    let iodir = [3 << 10 | 1 << 32 | bits(39, 34), !0];
    let ats = [3 << 10 | bits(39, 34), 0];
    let commands = [
        ([1, 0], iotinval, [0, 0]),
        ([1 | 1 << 7, 0], iotinval, [1 << 32, 0]),
        // Neither AV, as there may be no such address, nor WSI without wires.
        ([2, 0], [bits(31, 14), 3 << 62], [3 << 10, 0]),
        ([3, 0], iodir, [bits(31, 12), 0]),
        ([3 | 1 << 7 | 1 << 33, 0], iodir, [0, 0]),
        ([4, 0], ats, [0, 0]),
        ([4 | 1 << 7, 0], ats, [0, 0]),
    ];
    let mut rig = Rig::new(56);
    let directory = rig.page();
    rig.set_ddtp(4, directory);
    for (least, reserved, others) in commands {
        let most: [u64; 2] = std::array::from_fn(|i| {
            let operands = if i == 0 { bits(63, 10) } else { !0 };
            least[i] | operands & !reserved[i] & !others[i]
        });
        for command in [least, most] {
            assert!(!is_illegal(&mut rig, command), "{command:x?}");
            for bit in 0..128 {
                let (word, bit) = (bit / 64, 1 << (bit % 64));
                if reserved[word] & bit != 0 {
                    let mut bad = command;
                    bad[word] |= bit;
                    assert!(is_illegal(&mut rig, bad), "{bad:x?}");
                }
            }
        }
    }
}
