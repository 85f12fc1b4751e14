//! Both stages, and how they are combined: one test a rule.

mod iommu_common;

use iommu_common::tables::*;
use iommu_common::*;
use tlproof_golden::iommu::{Choices, Injected, Pbmt, Request};

/// Privileged, two-stage translation: every address of the first stage goes through the second.
#[test]
fn nested_translation() {
    for (first, s1) in [(8, 3u32), (9, 4), (10, 5)] {
        for (second, s2) in [(8, 3u32), (9, 4), (10, 5)] {
            let mut t = Tables::staged(ALL, 0, first, second);
            t.map(IOVA, pte(0x40_0000_0000, RWX));
            t.map_guest(0x40_0000_0000, pte(FRAME, RWX));
            let response = t.run(&read(IOVA + 0x123));
            assert_eq!(t.ok(&read(IOVA + 0x123)).spa.0, FRAME + 0x123);
            assert_eq!(t.ok(&read(IOVA + 0x123)).gpa, 0x40_0000_0123);
            assert_eq!(response.loads.first_stage, s1);
            assert_eq!(response.loads.second_stage, s2 * (s1 + 1));
            assert_eq!(
                (response.gscid, response.pscid),
                (Some(GSCID as u32), Some(PSCID as u32))
            );
        }
    }
}

/// Privileged, two-stage translation: the second stage alone.
#[test]
fn second_stage_alone() {
    for mode in [8, 9, 10] {
        let mut t = Tables::staged(ALL, 0, 0, mode);
        t.map_guest(IOVA, pte(FRAME, RWX));
        let translation = t.ok(&write(IOVA + 8));
        assert_eq!(
            (translation.spa.0, translation.page_size),
            (FRAME + 8, 4096)
        );
    }
}

/// Privileged SvNx4: 41, 50 and 59 bits, all above zero, and no sign extension.
#[test]
fn guest_address_width() {
    for (mode, bits) in [(8, 41), (9, 50), (10, 59)] {
        let mut t = Tables::staged(ALL, 0, 0, mode);
        let last = (1 << bits) - 0x1000;
        t.map_guest(last, pte(FRAME, RWX));
        assert_eq!(t.ok(&read(last)).spa.0, FRAME);
        for (request, cause) in each(1 << bits).iter().zip([20, 21, 23]) {
            let fault = t.fault(request);
            assert_eq!((fault.cause(), fault.record.iotval2), (cause, 1 << bits));
        }
        assert_eq!(t.cause(&read(u64::MAX << (bits - 1))), 21);
    }
}

/// Privileged SvNx4: U must be 1, and the request counts as one of a user (IOMMU §2.3).
#[test]
fn second_stage_pages_are_user_pages() {
    let mut t = Tables::staged(ALL, 0, 0, 8);
    t.process(V | 1 << 1 | 1 << 2, 0);
    t.map_guest(IOVA, pte(FRAME, RWX));
    assert_eq!(t.cause(&with_process(read(IOVA), true)), 0);
    t.map_guest(IOVA, pte(FRAME, RWX & !U));
    assert_eq!(t.cause(&with_process(read(IOVA), true)), 21);
    assert_eq!(t.cause(&with_process(read(IOVA), false)), 21);
}

/// Privileged SvNx4: G is ignored in the second stage.
#[test]
fn second_stage_ignores_g() {
    let mut t = Tables::staged(ALL, 0, 0, 8);
    t.map_guest(IOVA, pte(FRAME, RWX | G));
    assert_eq!(t.cause(&read(IOVA)), 0);
}

/// Each encoding of a leaf: cause for read for execute, read, write; in both stages.
#[test]
fn leaf_encodings_of_both_stages() {
    let first = [12, 13, 15];
    let second = [20, 21, 23];
    let cases: &[(u64, [bool; 3])] = &[
        (RWX, [true, true, true]),
        (RWX & !X, [false, true, true]),
        (RWX & !W, [true, true, false]),
        (RWX & !W & !R, [true, false, false]),
        (RWX & !W & !X, [false, true, false]),
        (RWX & !V, [false; 3]),
        (RWX & !R & !X, [false; 3]), // shadow stack: reserved for I/O (IOMMU §2.3)
        (RWX & !R, [false; 3]),
        (RWX & !A, [false; 3]),
        (RWX & !D, [true, true, false]),
        (RWX | 1 << 54, [false; 3]),
        (RWX | 1 << 58, [false; 3]),
        (RWX | 1 << 59, [false; 3]),
        (RWX | 1 << 60, [false; 3]),
        (RWX | 3 << 61, [false; 3]),
        (RWX | 1 << 63, [false; 3]),
        (RWX | 3 << 8, [true, true, true]),
    ];
    let mut one = Tables::staged(ALL, 0, 8, 0);
    let mut two = Tables::staged(ALL, 0, 0, 8);
    for (flags, allowed) in cases {
        one.map(IOVA, pte(FRAME, *flags));
        two.map_guest(IOVA, pte(FRAME, *flags));
        for (i, request) in each(IOVA).iter().enumerate() {
            let (c1, c2) = (one.cause(request), two.cause(request));
            let expect = |cause| if allowed[i] { 0 } else { cause };
            assert_eq!(c1, expect(first[i]), "{flags:#x} {request:?}");
            assert_eq!(c2, expect(second[i]), "{flags:#x} {request:?}");
        }
    }
}

/// Privileged §VATP step 4: what is reserved in a pointer, in both stages.
#[test]
fn pointer_encodings_of_both_stages() {
    let caps = ALL | 1 << 14;
    let mut one = Tables::staged(caps, 0, 8, 0);
    let mut two = Tables::staged(caps, 0, 0, 8);
    one.map(IOVA, pte(FRAME, RWX));
    two.map_guest(IOVA, pte(FRAME, RWX));
    let (at, guest) = (one.first_slot(IOVA, 1), two.guest_slot(IOVA, 1));
    let (pointer, guest_pointer) = (one.memory.get(at), two.memory.get(guest));
    for bit in [4, 6, 7, 54, 57, 58, 61, 62, 63] {
        one.memory.set(at, pointer | 1 << bit);
        two.memory.set(guest, guest_pointer | 1 << bit);
        assert_eq!(one.cause(&read(IOVA)), 13, "bit {bit}");
        assert_eq!(two.cause(&read(IOVA)), 21, "bit {bit}");
    }
    // RSW, G, and with Svrsw60t59b bits 60:59, are ignored.
    for bit in [5, 8, 9, 59, 60] {
        one.memory.set(at, pointer | 1 << bit);
        two.memory.set(guest, guest_pointer | 1 << bit);
        assert_eq!(one.cause(&read(IOVA)), 0, "bit {bit}");
        assert_eq!(two.cause(&read(IOVA)), 0, "bit {bit}");
    }
}

/// Privileged §VATP step 4: a pointer at the last level.
#[test]
fn pointer_at_level_0() {
    let mut one = Tables::staged(ALL, 0, 8, 0);
    one.map(IOVA, pte(FRAME, V));
    assert_eq!(one.cause(&read(IOVA)), 13);
    let mut two = Tables::staged(ALL, 0, 0, 8);
    two.map_guest(IOVA, pte(FRAME, V));
    assert_eq!(two.cause(&read(IOVA)), 21);
}

/// Svrsw60t59b: bits 60:59 belong to software in leaves of both stages (IOMMU §5.3).
#[test]
fn svrsw60t59b_in_leaves() {
    for (caps, causes) in [(ALL, (13, 21)), (ALL | 1 << 14, (0, 0))] {
        let mut one = Tables::staged(caps, 0, 8, 0);
        one.map(IOVA, pte(FRAME, RWX | 3 << 59));
        let mut two = Tables::staged(caps, 0, 0, 8);
        two.map_guest(IOVA, pte(FRAME, RWX | 3 << 59));
        assert_eq!((one.cause(&read(IOVA)), two.cause(&read(IOVA))), causes);
    }
}

/// Privileged §VATP step 5: misaligned superpages, in both stages, and sizes of superpages.
#[test]
fn superpages_of_both_stages() {
    for level in 1..3 {
        let size = 4096u64 << (9 * level);
        let mut one = Tables::staged(ALL, 0, 8, 0);
        let at = one.first_slot(0, level);
        one.memory.set(at, pte(0x40_0000_0000, RWX));
        let translation = one.ok(&read(size - 8));
        assert_eq!(
            (translation.spa.0, translation.page_size),
            (0x40_0000_0000 + size - 8, size)
        );
        one.memory.set(at, pte(0x40_0000_0000 + size / 2, RWX));
        assert_eq!(one.cause(&read(0)), 13);

        let mut two = Tables::staged(ALL, 0, 0, 8);
        let at = two.guest_slot(0, level);
        two.memory.set(at, pte(0x40_0000_0000, RWX));
        assert_eq!(two.ok(&read(size - 8)).page_size, size);
        two.memory.set(at, pte(0x40_0000_1000, RWX));
        assert_eq!(two.cause(&read(0)), 21);
    }
}

/// The size of a nested translation is the smaller of the two.
#[test]
fn nested_size_is_the_smaller_one() {
    for (s1, s2) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (1, 2)] {
        let mut t = Tables::staged(ALL, 0, 8, 8);
        let (gpa, spa) = (0x100_0000_0000, 0x40_0000_0000);
        let at = t.first_slot(0x40_0000_0000 >> 1, s1);
        t.memory.set(at, pte(gpa, RWX));
        let at = t.guest_slot(gpa, s2);
        t.memory.set(at, pte(spa, RWX));
        let translation = t.ok(&read(0x20_0000_0008));
        assert_eq!(translation.page_size, 4096 << (9 * s1.min(s2)));
        assert_eq!(translation.spa.0, spa + 8);
    }
}

/// Svnapot: 64 KiB at level 0 is the one legal use of N, in both stages.
#[test]
fn svnapot_of_both_stages() {
    let n = 1 << 63;
    for (target, ok) in [
        (FRAME + 0x8000, true),
        (FRAME + 0x18000, true),
        (FRAME, false),
        (FRAME + 0x1000, false),
        (FRAME + 0x4000, false),
        (FRAME + 0x9000, false),
    ] {
        let mut one = Tables::staged(ALL, 0, 8, 0);
        one.map(IOVA, pte(target, RWX | n));
        let mut two = Tables::staged(ALL, 0, 0, 8);
        two.map_guest(IOVA, pte(target, RWX | n));
        if ok {
            let place = (target & !0xffff) + (IOVA & 0xffff) + 4;
            for t in [&one, &two] {
                let translation = t.ok(&read(IOVA + 4));
                assert_eq!((translation.spa.0, translation.page_size), (place, 1 << 16));
            }
        } else {
            assert_eq!((one.cause(&read(IOVA)), two.cause(&read(IOVA))), (13, 21));
        }
    }
    let mut one = Tables::staged(ALL, 0, 8, 0);
    let at = one.first_slot(IOVA, 1);
    one.memory.set(at, pte(FRAME, RWX | n));
    assert_eq!(one.cause(&read(IOVA)), 13, "N above level 0");
    let mut two = Tables::staged(ALL, 0, 0, 8);
    let at = two.guest_slot(IOVA, 1);
    two.memory.set(at, pte(FRAME, RWX | n));
    assert_eq!(two.cause(&read(IOVA)), 21, "N above level 0");
}

/// Svpbmt with two stages: a first-stage type overrides that of the second.
#[test]
fn pbmt_combination() {
    use Pbmt::{Io, Nc, Pma};
    for (first, second, result) in [
        (0, 0, Pma),
        (0, 1, Nc),
        (0, 2, Io),
        (1, 0, Nc),
        (1, 1, Nc),
        (1, 2, Nc),
        (2, 0, Io),
        (2, 1, Io),
        (2, 2, Io),
    ] {
        let mut t = Tables::staged(ALL, 0, 8, 8);
        t.map(IOVA, pte(0x40_0000_0000, RWX | first << 61));
        t.map_guest(0x40_0000_0000, pte(FRAME, RWX | second << 61));
        assert_eq!(t.ok(&read(IOVA)).pbmt, result, "{first} {second}");
    }
}

/// Svpbmt: 3 is reserved, and without the capability every other value than 0; in both stages.
#[test]
fn pbmt_reserved_values() {
    for (caps, value, legal) in [
        (ALL, 1, true),
        (ALL, 2, true),
        (ALL, 3, false),
        (ALL & !SVPBMT, 1, false),
        (ALL & !SVPBMT, 2, false),
    ] {
        let mut one = Tables::staged(caps, 0, 8, 0);
        one.map(IOVA, pte(FRAME, RWX | value << 61));
        let mut two = Tables::staged(caps, 0, 0, 8);
        two.map_guest(IOVA, pte(FRAME, RWX | value << 61));
        let causes = if legal { (0, 0) } else { (13, 21) };
        assert_eq!((one.cause(&read(IOVA)), two.cause(&read(IOVA))), causes);
    }
}

/// IOMMU §2.1.3.1: with SXL an IOVA beyond bit 31 is a page fault; Sv32 entries, both halves of a
/// doubleword, superpages of 4 MiB.
#[test]
fn sv32_first_stage() {
    let choices = Choices {
        gxl_writable: true,
        ..Choices::default()
    };
    let mut t = Tables::with(ALL, choices);
    t.dc[0] |= tc::SXL;
    t.dc[3] = 8 << 60 | ROOT >> 12;
    t.store_dc();
    let pte32 = |target: u64, flags: u64| target >> 12 << 10 | flags;
    let iova = 0xc040_3000;
    let leaf = BASE + 0x5000;
    // Entry 0x301 of the root and 3 of the leaf table: the high halves.
    let root_word = ROOT + 0x300 * 4;
    t.memory.set(root_word, pte32(leaf, V) << 32);
    t.memory
        .set(leaf + 8, pte32(FRAME, RWX) << 32 | 0xffff_fc00);
    let translation = t.ok(&read(iova + 0x10));
    assert_eq!(
        (translation.spa.0, translation.page_size),
        (FRAME + 0x10, 4096)
    );
    assert_eq!(
        t.cause(&read(iova - 0x1000)),
        13,
        "the low half is not valid"
    );
    for (request, cause) in each(iova | 1 << 32).iter().zip([12, 13, 15]) {
        assert_eq!(t.cause(request), cause);
    }
    assert_eq!(
        t.cause(&read(iova | 0xffff_ffff << 32)),
        13,
        "no sign extension"
    );
    // 34 bits of physical address, superpages of 4 MiB.
    t.memory.set(root_word, pte32(0x3_0040_0000, RWX) << 32);
    let translation = t.ok(&read(iova + 0x10));
    assert_eq!(
        (translation.spa.0, translation.page_size),
        (0x3_0040_3010, 4 << 20)
    );
    t.memory.set(root_word, pte32(0x3_0040_1000, RWX) << 32);
    assert_eq!(t.cause(&read(iova)), 13, "misaligned");
    // Big-endian: the four bytes of each entry are swapped.
    t.set_tc(tc::SBE);
    t.memory.set(
        root_word,
        u64::from((pte32(0x3_0040_0000, RWX) as u32).swap_bytes()) << 32,
    );
    assert_eq!(t.ok(&read(iova)).spa.0, 0x3_0040_3000);
}

/// IOMMU §2.1.3.1: with SXL a guest address beyond bit 33 is a guest page fault, whatever the
/// second stage; Sv32x4.
#[test]
fn sv32x4_and_sxl() {
    let mut t = Tables::new(ALL);
    t.iommu.fctl = 4;
    t.dc[0] |= tc::SXL;
    t.dc[1] = 8 << 60 | GSCID << 44 | GUEST >> 12;
    t.store_dc();
    let gpa = 0x3_ffc0_0000u64;
    // The root has 4096 entries.
    let at = GUEST + (gpa >> 22) * 4;
    t.memory
        .set(at & !7, (0x1_0040_0000 >> 12 << 10 | RWX) << 32);
    let translation = t.ok(&read(gpa + 0x1234));
    assert_eq!(
        (translation.spa.0, translation.page_size),
        (0x1_0040_1234, 4 << 20)
    );
    let fault = t.fault(&write(1 << 34));
    assert_eq!((fault.cause(), fault.record.iotval2), (23, 1 << 34));

    let choices = Choices {
        gxl_writable: true,
        ..Choices::default()
    };
    let mut wide = Tables::with(ALL, choices);
    wide.dc[0] |= tc::SXL;
    wide.dc[1] = 8 << 60 | GUEST >> 12;
    wide.store_dc();
    wide.map_guest(1 << 33, pte(FRAME, RWX));
    wide.map_guest(1 << 34, pte(FRAME, RWX));
    assert_eq!(wide.cause(&read(1 << 33)), 0);
    assert_eq!(wide.cause(&read(1 << 34)), 21, "within Sv39x4, beyond SXL");
}

/// IOMMU §3.2: causes by the original access, and `iotval2` of implicit reads of PTEs.
#[test]
fn implicit_reads_fault_by_the_original_access() {
    let mut t = Tables::staged(ALL, 0, 8, 8);
    let at = t.map(IOVA, pte(0x40_0000_0000, RWX));
    t.map_guest(at, pte(at, RWX & !R & !W));
    for (request, cause) in each(IOVA).iter().zip([20, 21, 23]) {
        let fault = t.fault(request);
        assert_eq!(fault.cause(), cause, "a PTE is read: X is not enough");
        assert_eq!(fault.record.iotval2, at | 1);
        assert_eq!(fault.record.iotval, IOVA);
    }
    t.map_guest(at, pte(at, V | R | U | A));
    t.map_guest(0x40_0000_0000, pte(FRAME, RWX));
    assert_eq!(t.cause(&write(IOVA)), 0, "R is enough for a PTE, without D");
    t.map_guest(0x40_0000_0000, 0);
    let fault = t.fault(&write(IOVA + 0x7f));
    assert_eq!(
        (fault.cause(), fault.record.iotval2),
        (23, 0x40_0000_007c),
        "explicit: bits 63:2 of the address"
    );
}

/// IOMMU §3.2, note: page offsets may be reported as 0.
#[test]
fn page_offsets_are_a_choice() {
    let choices = Choices {
        iotval_page_offset: false,
        iotval2_page_offset: false,
        ..Choices::default()
    };
    let mut t = Tables::with(ALL, choices);
    t.dc[1] = 8 << 60 | GUEST >> 12;
    t.store_dc();
    let fault = t.fault(&read(IOVA + 0x7f8));
    assert_eq!((fault.record.iotval, fault.record.iotval2), (IOVA, IOVA));
}

/// Privileged §VATP step 2 and IOMMU §7.4: access faults and corruption of PTEs.
#[test]
fn pte_access_faults_and_corruption() {
    let mut t = Tables::staged(ALL, 0, 8, 8);
    let at = t.map(IOVA, pte(0x40_0000_0000, RWX));
    t.map_guest(0x40_0000_0000, pte(FRAME, RWX));
    let guest = t.guest_slot(0x40_0000_0000, 1);
    let implicit = t.guest_slot(at, 0);
    for place in [at, guest, implicit] {
        t.memory.inject(place, Injected::AccessFault);
        for (request, cause) in each(IOVA).iter().zip([1, 5, 7]) {
            let fault = t.fault(request);
            assert_eq!((fault.cause(), fault.record.iotval2), (cause, 0));
        }
        t.memory.inject(place, Injected::Poison);
        assert_eq!(t.cause(&read(IOVA)), 274);
        t.memory.heal();
    }
    assert_eq!(t.cause(&read(IOVA)), 0);
}

/// IOMMU §5.3 (PAS): addresses beyond the physical address space are access faults.
#[test]
fn beyond_the_physical_address_space() {
    let caps = ALL & !PAS56 | 40 << 32;
    let mut t = Tables::staged(caps, 0, 8, 0);
    t.map(IOVA, pte(1 << 40, RWX));
    assert_eq!(t.cause(&write(IOVA)), 7);
    t.map(IOVA, pte((1 << 40) - 0x1000, RWX));
    assert_eq!(t.cause(&write(IOVA)), 0);
}

/// IOMMU §2.8: PTEs of the first stage by SBE, of the second by fctl.BE.
#[test]
fn endianness_of_each_stage() {
    for (be, sbe) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut t = Tables::new(ALL);
        t.iommu.fctl = be;
        t.dc[0] |= if sbe == 1 { tc::SBE } else { 0 };
        t.dc[1] = 8 << 60 | GUEST >> 12;
        t.dc[3] = 8 << 60 | ROOT >> 12;
        t.store_dc();
        t.identity();
        t.map(IOVA, pte(0x40_0000_0000, RWX));
        t.map_guest(0x40_0000_0000, pte(FRAME, RWX));
        assert_eq!(t.ok(&read(IOVA)).spa.0, FRAME, "BE {be} SBE {sbe}");
    }
}

/// A read for execute may ask for R too.
#[test]
fn execute_and_read_permission() {
    for (needs, cause) in [(false, 0), (true, 12)] {
        let choices = Choices {
            execute_needs_read: needs,
            ..Choices::default()
        };
        let mut t = Tables::with(ALL, choices);
        t.dc[3] = 8 << 60 | ROOT >> 12;
        t.store_dc();
        t.map(IOVA, pte(FRAME, RWX & !R & !W));
        assert_eq!(t.cause(&execute(IOVA)), cause);
    }
}

/// IOMMU §2.1.3.3, §5.25: RCID and MCID of the context, or of the register in mode Bare.
#[test]
fn qos_identifiers() {
    let mut t = Tables::staged(ALL, 0, 8, 0);
    t.map(IOVA, pte(FRAME, RWX));
    t.dc[2] |= 0x123 << 40 | 0x456 << 52;
    t.store_dc();
    t.iommu.qosid = 0x789 << 16 | 0xabc;
    let qos = t.ok(&read(IOVA)).qos;
    assert_eq!((qos.rcid, qos.mcid), (0x123, 0x456));
    t.iommu.ddtp = 1;
    let qos = t.ok(&read(IOVA)).qos;
    assert_eq!((qos.rcid, qos.mcid), (0xabc, 0x789));
    t.iommu.capabilities.qosid = false;
    assert_eq!(t.ok(&read(IOVA)).qos.rcid, 0);
}

/// IOMMU §2.3 step 2: no translation in mode Bare, and only of untranslated requests.
#[test]
fn bare_mode() {
    let mut t = Tables::new(ALL);
    t.iommu.ddtp = 1;
    let translation = t.ok(&write(0x1234_5678));
    assert_eq!(
        (translation.spa.0, translation.pbmt),
        (0x1234_5678, Pbmt::Pma)
    );
    let request = Request {
        process_id: Some(1),
        ..read(8)
    };
    assert_eq!(t.cause(&request), 0);
}
