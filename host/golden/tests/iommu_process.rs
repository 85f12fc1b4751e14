//! Process directories and requests with a `process_id`: one test a rule.

mod iommu_common;

use iommu_common::tables::*;
use iommu_common::*;
use tlproof_golden::iommu::{Injected, Request, WideAddress};

const FSC: u64 = 8 << 60 | ROOT >> 12;
const ENS: u64 = 2;
const SUM: u64 = 4;

fn user(iova: u64) -> Request {
    with_process(read(iova), false)
}

/// A first stage for the process `PID`.
fn machine(tc: u64, ta: u64) -> Tables {
    let mut t = Tables::staged(ALL, tc, 8, 0);
    t.map(IOVA, pte(FRAME, RWX));
    t.process(V | PSCID << 12 | ta, FSC);
    t
}

/// IOMMU §2.2: PD8, PD17 and PD20, indexed by 8, 9 and 3 bits.
#[test]
fn directories_of_each_depth() {
    for (mode, pid) in [(1u64, 0xab), (2, 0x1_5678), (3, 0xd_9abc)] {
        let mut t = Tables::staged(ALL, tc::PDTV, 8, 0);
        t.map(IOVA, pte(FRAME, RWX));
        t.dc[3] = mode << 60 | PDT >> 12;
        t.store_dc();
        let indices = [pid & 0xff, pid >> 8 & 0x1ff, pid >> 17];
        let mut table = PDT;
        for level in (1..mode as usize).rev() {
            t.memory
                .set(table + indices[level] * 8, pte(table + 0x1000, V));
            table += 0x1000;
        }
        t.memory.set(table + indices[0] * 16, V | PSCID << 12);
        t.memory.set(table + indices[0] * 16 + 8, FSC);
        let request = Request {
            process_id: Some(pid as u32),
            ..read(IOVA)
        };
        let response = t.run(&request);
        assert_eq!(t.ok(&request).spa.0, FRAME);
        assert_eq!(response.loads.process_directory, mode as u32);
        assert_eq!(response.pscid, Some(PSCID as u32));
        // One bit more than the mode supports (§2.3 step 7.c).
        if mode < 3 {
            let wide = 1 << if mode == 1 { 8 } else { 17 };
            let request = Request {
                process_id: Some(pid as u32 | wide),
                ..read(IOVA)
            };
            assert_eq!(t.cause(&request), 260);
        }
    }
}

/// IOMMU §2.1.4 item 8: each mode of the process directory has its own capability.
#[test]
fn directory_modes_need_their_capability() {
    for (mode, cap) in [(1, PD8), (2, PD17), (3, PD20)] {
        let mut t = Tables::new(ALL & !cap);
        t.dc[0] |= tc::PDTV;
        t.dc[3] = mode << 60;
        t.store_dc();
        assert_eq!(t.cause(&read(IOVA)), 259);
    }
    for mode in 4..16 {
        let mut t = Tables::new(ALL);
        t.dc[0] |= tc::PDTV;
        t.dc[3] = mode << 60;
        t.store_dc();
        assert_eq!(t.cause(&read(IOVA)), 259);
    }
}

/// IOMMU §2.3 step 7.b: a `process_id` needs PDTV.
#[test]
fn process_id_needs_pdtv() {
    let t = Tables::new(ALL);
    assert_eq!(t.cause(&user(IOVA)), 260);
}

/// IOMMU §2.3 steps 11 and 12: without a `process_id`, DPE decides between process 0 and no first
/// stage; the record has no process (§3.2).
#[test]
fn default_process() {
    let mut t = machine(0, 0);
    assert_eq!(t.ok(&read(IOVA)).spa.0, IOVA, "no DPE: Bare");
    t.set_tc(tc::DPE);
    assert_eq!(t.cause(&read(IOVA)), 266, "process 0 is not valid");
    t.memory.set(PDT, V);
    t.memory.set(PDT + 8, FSC);
    assert_eq!(t.ok(&read(IOVA)).spa.0, FRAME);
    let supervisor = Request {
        privileged: true,
        ..read(IOVA)
    };
    assert_eq!(t.cause(&supervisor), 0, "no process: user privilege");
    let fault = t.fault(&read(IOVA + 0x1000));
    assert_eq!((fault.cause(), fault.record.process_id), (13, None));
    assert!(!fault.record.privileged);
}

/// IOMMU §2.3 step 13: `pdtp.MODE` Bare, any `process_id`, no first stage, no ENS check.
#[test]
fn bare_process_directory() {
    let mut t = Tables::new(ALL);
    t.set_tc(tc::PDTV | tc::DPE);
    for pid in [None, Some(0), Some(0xf_ffff)] {
        let request = Request {
            process_id: pid,
            privileged: true,
            ..write(IOVA)
        };
        assert_eq!(t.ok(&request).spa.0, IOVA);
    }
}

/// IOMMU §2.3.2 steps 4 to 7 and 9 to 11: the order of the checks of each entry.
#[test]
fn entries_of_the_directory() {
    let mut t = machine(0, 0);
    t.dc[3] = 2 << 60 | PDT >> 12;
    t.store_dc();
    let (leaf, at) = (PDT + 0x1000, PDT + 0x1000 + u64::from(PID) * 16);
    t.memory.set(at, V | PSCID << 12);
    t.memory.set(at + 8, FSC);
    t.memory.set(PDT, pte(leaf, V));
    assert_eq!(t.cause(&user(IOVA)), 0);
    for bit in [1, 9, 54, 63] {
        t.memory.set(PDT, pte(leaf, V) | 1 << bit);
        assert_eq!(t.cause(&user(IOVA)), 267, "bit {bit}");
        t.memory.set(PDT, pte(leaf, 0) | 1 << bit);
        assert_eq!(t.cause(&user(IOVA)), 266, "V first");
    }
    t.memory.set(PDT, pte(leaf, V));
    for bit in [3, 11, 32, 63] {
        t.memory.set(at, V | 1 << bit);
        assert_eq!(t.cause(&user(IOVA)), 267, "ta bit {bit}");
        t.memory.set(at, 1 << bit);
        assert_eq!(t.cause(&user(IOVA)), 266, "V first");
    }
    t.memory.set(at, V | PSCID << 12);
    for bit in [44, 59] {
        t.memory.set(at + 8, FSC | 1 << bit);
        assert_eq!(t.cause(&user(IOVA)), 267, "fsc bit {bit}");
    }
    t.memory.set(at + 8, FSC);
    for place in [PDT, at] {
        t.memory.inject(place, Injected::AccessFault);
        assert_eq!(t.cause(&user(IOVA)), 265);
        t.memory.inject(place, Injected::Poison);
        assert_eq!(t.cause(&user(IOVA)), 269);
        t.memory.heal();
    }
    t.memory.set(PDT, pte(0, V));
    assert_eq!(t.cause(&user(IOVA)), 265, "no memory there");
}

/// IOMMU §2.2.4 items 2 to 4: `fsc.MODE` by SXL and the capabilities.
#[test]
fn modes_of_a_process_context() {
    for mode in 0..16u64 {
        let mut t = machine(0, 0);
        t.process(V, mode << 60);
        let cause = t.cause(&user(IOVA));
        let legal = matches!(mode, 0 | 8..=10);
        assert_eq!(cause == 267, !legal, "mode {mode}: {cause}");
    }
    for (mode, cap) in [(8, SV39), (9, SV48), (10, SV57)] {
        let mut t = Tables::new(ALL & !cap);
        t.process(V, mode << 60);
        assert_eq!(t.cause(&user(IOVA)), 267);
    }
    for (caps, mode, legal) in [(ALL, 8, true), (ALL, 9, false), (ALL & !SV32, 8, false)] {
        let mut t = Tables::new(caps);
        t.iommu.choices.gxl_writable = true;
        t.dc[0] |= tc::SXL;
        t.process(V, mode << 60 | ROOT >> 12);
        assert_eq!(t.cause(&user(0)), if legal { 13 } else { 267 });
    }
}

/// IOMMU §2.2.4, note: a wide address may make the process context misconfigured.
#[test]
fn wide_address_in_a_process_context() {
    let caps = ALL & !PAS56 | 40 << 32;
    let mut t = Tables::new(caps);
    t.process(V, 8 << 60 | 1 << 28);
    assert_eq!(t.cause(&user(0)), 5);
    t.iommu.choices.wide_address = WideAddress::Misconfigured;
    assert_eq!(t.cause(&user(0)), 267);
}

/// IOMMU §2.3 step 15 and §2.2.3.1: ENS.
#[test]
fn supervisor_requests_need_ens() {
    let t = machine(0, 0);
    let fault = t.fault(&with_process(read(IOVA), true));
    assert_eq!((fault.cause(), fault.record.process_id), (260, Some(PID)));
    assert!(fault.record.privileged);
    assert_eq!(
        machine(0, ENS | SUM).cause(&with_process(read(IOVA), true)),
        0
    );
}

/// IOMMU §2.2.3.1: U and SUM for each privilege and access.
#[test]
fn user_pages_and_sum() {
    let causes = |t: &Tables, privileged| {
        each(IOVA).map(|request| t.cause(&with_process(request, privileged)))
    };
    for (sum, supervisor) in [(0, [12, 13, 15]), (SUM, [12, 0, 0])] {
        let mut t = machine(0, ENS | sum);
        assert_eq!(causes(&t, true), supervisor, "user page");
        assert_eq!(causes(&t, false), [0; 3]);
        t.dc[3] = 8 << 60;
        t.map(IOVA, pte(FRAME, RWX & !U));
        assert_eq!(causes(&t, true), [0; 3], "supervisor page");
        assert_eq!(causes(&t, false), [12, 13, 15]);
    }
}

/// IOMMU §2.3.2 and §3.2: the directory is read through the second stage, and faults of that are
/// by the original access, with `iotval2` bit 0.
#[test]
fn directory_behind_the_second_stage() {
    let mut t = Tables::staged(ALL, 0, 8, 8);
    t.map(IOVA, pte(0x40_0000_0000, RWX));
    t.map_guest(0x40_0000_0000, pte(FRAME, RWX));
    t.process(V | PSCID << 12, FSC);
    assert_eq!(t.ok(&user(IOVA)).spa.0, FRAME);
    let entry = PDT + u64::from(PID) * 16;
    for flags in [0, RWX & !U, RWX & !R & !W, RWX & !A] {
        t.map_guest(PDT, pte(PDT, flags));
        for (request, cause) in each(IOVA).iter().zip([20, 21, 23]) {
            let fault = t.fault(&with_process(*request, false));
            assert_eq!((fault.cause(), fault.record.iotval2), (cause, entry | 1));
        }
    }
    t.iommu.choices.pdt_offset_in_iotval2 = false;
    assert_eq!(t.fault(&user(IOVA)).record.iotval2, PDT | 1);
    t.map_guest(PDT, pte(PDT, V | R | U | A));
    assert_eq!(t.cause(&with_process(write(IOVA), false)), 0, "a read");
    // Elsewhere in guest memory.
    t.map_guest(PDT, pte(FRAME, RWX));
    assert_eq!(t.cause(&user(IOVA)), 266);
    let slot = t.guest_slot(PDT, 0);
    t.memory.inject(slot, Injected::AccessFault);
    assert_eq!(t.cause(&user(IOVA)), 265);
    t.memory.inject(slot, Injected::Poison);
    assert_eq!(t.cause(&user(IOVA)), 269);
}

/// IOMMU §2.8: the process directory is big-endian by SBE.
#[test]
fn big_endian_directory() {
    let mut t = machine(tc::SBE, 0);
    let at = PDT + u64::from(PID) * 16;
    for (place, word) in [(at, V | ENS), (at + 8, FSC)] {
        t.memory.set(place, word.swap_bytes());
    }
    assert_eq!(t.ok(&user(IOVA)).spa.0, FRAME);
}

/// IOMMU §2.1.3.3: PSCID of the device context is not used with a process directory.
#[test]
fn address_space_of_the_process() {
    let mut t = machine(0, 0);
    t.process(V | 0x55 << 12, FSC);
    assert_eq!(t.run(&user(IOVA)).pscid, Some(0x55));
    assert_eq!(t.run(&read(IOVA)).pscid, None, "Bare has none");
}
