//! ATS translation requests and translated requests (IOMMU §2.3, §2.6): one test a rule.

mod iommu_common;

use iommu_common::tables::*;
use iommu_common::*;
use tlproof_golden::iommu::{
    AtsFlags, CleanPage, Completion, Injected, Permissions, Request, Status, TransactionType,
};

const GPA: u64 = 0x40_0000_0000;
const FILE: u64 = 0x1_0000 << 12;
const TRANSLATED: [TransactionType; 3] = [
    TransactionType::TranslatedExecute,
    TransactionType::TranslatedRead,
    TransactionType::TranslatedWrite,
];

fn permissions(c: &Completion) -> [bool; 3] {
    [
        c.permissions.read,
        c.permissions.write,
        c.permissions.execute,
    ]
}

fn nested(tc: u64) -> Tables {
    let mut t = Tables::staged(ALL | MSI_FLAT | MSI_MRIF, tc::EN_ATS | tc, 8, 8);
    t.map(IOVA, pte(GPA, RWX));
    t.map_guest(GPA, pte(FRAME, RWX));
    t
}

/// §2.1.3.1, §2.3 steps 2 and 7.a: neither kind without EN_ATS or in mode Bare.
#[test]
fn ats_must_be_enabled() {
    let mut t = nested(0);
    t.dc[0] &= !tc::EN_ATS;
    t.store_dc();
    for mode in [t.iommu.ddtp, 1] {
        t.iommu.ddtp = mode;
        let mut requests: Vec<_> = TRANSLATED.iter().map(|ttyp| of(*ttyp, IOVA)).collect();
        requests.push(ats(IOVA, false, false));
        for request in requests {
            let fault = t.fault(&request);
            assert_eq!(fault.cause(), 260);
            assert_eq!(fault.status, Status::UnsupportedRequest);
        }
    }
}

/// §2.3 step 8: translated requests pass without T2GPA.
#[test]
fn translated_requests_pass() {
    let t = nested(0);
    for ttyp in TRANSLATED {
        assert_eq!(t.ok(&of(ttyp, 0x1234_5678)).spa.0, 0x1234_5678);
    }
}

/// §2.3 step 9: with T2GPA they carry guest addresses, for the MSI table and the second stage.
#[test]
fn translated_requests_with_t2gpa() {
    let mut t = nested(tc::T2GPA);
    t.interrupts();
    t.msi_pte(1, [pte(0x2800_0000, V | 3 << 1), 0]);
    for ttyp in TRANSLATED {
        let translation = t.ok(&of(ttyp, GPA + 8));
        assert_eq!((translation.spa.0, translation.gpa), (FRAME + 8, GPA + 8));
    }
    for (ttyp, cause) in TRANSLATED.iter().zip([20, 21, 23]) {
        let fault = t.fault(&of(*ttyp, IOVA));
        assert_eq!((fault.cause(), fault.record.ttyp), (cause, *ttyp as u8));
    }
    let msi = t.ok(&of(TransactionType::TranslatedWrite, FILE + 0x1000));
    assert_eq!((msi.spa.0, msi.is_msi), (0x2800_0000, true));
    let fault = t.fault(&of(TransactionType::TranslatedExecute, FILE + 0x1000));
    assert_eq!(fault.cause(), 1);
}

/// §2.1.4 items 3, 6 and 7: what T2GPA needs.
#[test]
fn t2gpa_needs() {
    let mut t = nested(tc::T2GPA);
    assert_eq!(t.cause(&read(IOVA)), 0);
    t.iommu.capabilities.t2gpa = false;
    assert_eq!(t.cause(&read(IOVA)), 259);
    let mut t = Tables::staged(ALL, tc::EN_ATS | tc::T2GPA, 8, 0);
    assert_eq!(t.cause(&read(IOVA)), 259);
    t.dc[0] &= !tc::EN_ATS;
    t.store_dc();
    assert_eq!(t.cause(&read(IOVA)), 259);
}

/// §2.6: the completion has the address and permissions that the tables give.
#[test]
fn success() {
    let t = nested(0);
    let completion = t.completion(&ats(IOVA + 0x123, false, true));
    assert_eq!(
        completion,
        Completion {
            address: FRAME,
            size: 4096,
            permissions: Permissions::ALL,
            privileged: false,
            global: false,
            untranslated_only: false,
            cxl_io: false,
            denied: None,
            qos: completion.qos,
        }
    );
    assert_eq!(completion.encoded_address(), (FRAME, false));
}

/// §2.6: with T2GPA the address is the guest address, and the size that of both stages.
#[test]
fn t2gpa_completion() {
    let t = nested(tc::T2GPA);
    let completion = t.completion(&ats(IOVA, false, false));
    assert_eq!((completion.address, completion.size), (GPA, 4096));
}

/// §2.6: a permission that either stage denies is cleared, and only that; Exe is granted with R
/// and if asked for.
#[test]
fn denied_permissions_are_cleared() {
    for (flags, asks, result) in [
        (RWX, true, [true, true, true]),
        (RWX, false, [true, true, false]),
        (RWX & !W, true, [true, false, true]),
        (RWX & !X, true, [true, true, false]),
        (RWX & !W & !X, true, [true, false, false]),
        (RWX & !R & !W, true, [false, false, false]),
    ] {
        for second in [false, true] {
            let mut t = nested(0);
            if second {
                t.map_guest(GPA, pte(FRAME, flags));
            } else {
                t.map(IOVA, pte(GPA, flags));
            }
            let completion = t.completion(&ats(IOVA, false, asks));
            assert_eq!(permissions(&completion), result, "{flags:#x} {second}");
            assert_eq!(completion.denied, None);
        }
    }
}

/// §2.6: page faults, and entries of the process directory and the MSI table that are not valid,
/// are completed without access and without a record.
#[test]
fn faults_that_complete_without_access() {
    let mut t = nested(0);
    let none = |t: &Tables, request: &Request, cause| {
        let completion = t.completion(request);
        assert_eq!(permissions(&completion), [false; 3]);
        assert_eq!(completion.denied, Some(cause));
    };
    t.map(IOVA, 0);
    none(&t, &ats(IOVA, true, false), 13);
    none(&t, &ats(IOVA, false, false), 15);
    none(&t, &ats(IOVA, true, true), 12);
    t.map(IOVA, pte(GPA, RWX));
    t.map_guest(GPA, 0);
    none(&t, &ats(IOVA, true, false), 21);
    none(&t, &ats(IOVA, false, false), 23);
    none(&t, &ats(IOVA, true, true), 20);
    t.interrupts();
    t.map(IOVA, pte(FILE, RWX));
    none(&t, &ats(IOVA, true, false), 262);
    t.process(0, 0);
    none(&t, &with_process(ats(IOVA, true, false), false), 266);
}

/// §2.6: configuration errors complete with CA, permanent ones with UR, and both are reported.
#[test]
fn faults_that_complete_with_an_error() {
    let request = ats(IOVA, true, false);
    let expect = |t: &Tables, request: &Request, cause: u16, status| {
        let fault = t.fault(request);
        assert_eq!((fault.cause(), fault.status), (cause, status));
        assert_eq!(fault.record.ttyp, 8);
        assert!(fault.reported);
    };
    let (ca, ur) = (Status::CompleterAbort, Status::UnsupportedRequest);
    let mut t = nested(0);
    let slot = t.first_slot(IOVA, 0);
    t.memory.inject(slot, Injected::AccessFault);
    expect(&t, &request, 5, ca);
    expect(&t, &ats(IOVA, true, true), 1, ca);
    expect(&t, &ats(IOVA, false, true), 7, ca);
    t.iommu.choices.ats_access_by_request = false;
    expect(&t, &ats(IOVA, false, true), 5, ca);
    t.memory.inject(slot, Injected::Poison);
    expect(&t, &request, 274, ca);
    t.iommu.choices.ats_corruption_aborts = false;
    expect(&t, &request, 274, ur);
    t.memory.heal();

    t.interrupts();
    t.map(IOVA, pte(FILE, RWX));
    t.msi_pte(0, [V, 0]);
    expect(&t, &request, 263, ca);
    t.memory.inject(MSI_TABLE, Injected::AccessFault);
    expect(&t, &request, 261, ca);

    t.process(V | 1 << 3, 0);
    expect(&t, &with_process(request, false), 267, ca);
    t.memory
        .inject(PDT + u64::from(PID) * 16, Injected::AccessFault);
    expect(&t, &with_process(request, false), 265, ca);

    t.dc[0] |= 1 << 12;
    t.store_dc();
    expect(&t, &request, 259, ur);
    t.dc[0] = 0;
    t.store_dc();
    expect(&t, &request, 258, ur);
    t.memory.inject(t.dc_at(), Injected::AccessFault);
    expect(&t, &request, 257, ur);
    t.iommu.ddtp = 0;
    expect(&t, &request, 256, ur);
}

/// §3.2: DTF suppresses the records of ATS faults as those of others.
#[test]
fn dtf_and_ats() {
    let mut t = nested(tc::DTF);
    let slot = t.first_slot(IOVA, 0);
    t.memory.inject(slot, Injected::AccessFault);
    let fault = t.fault(&ats(IOVA, true, false));
    assert_eq!((fault.cause(), fault.reported), (5, false));
}

/// §2.6: the U bit of the page and the privilege of the request.
#[test]
fn privilege() {
    let mut t = Tables::staged(ALL, tc::EN_ATS, 8, 0);
    for (sum, flags, supervisor, result) in [
        (0, RWX, false, [true, true, true]),
        (0, RWX & !U, false, [false; 3]),
        (0, RWX, true, [false; 3]),
        (4, RWX, true, [true, true, false]), // never executes from pages of a user
        (0, RWX & !U, true, [true, true, true]),
    ] {
        t.dc[3] = 8 << 60;
        t.map(IOVA, pte(FRAME, flags));
        t.process(V | 2 | sum, 8 << 60 | ROOT >> 12);
        let completion = t.completion(&with_process(ats(IOVA, false, true), supervisor));
        assert_eq!(permissions(&completion), result);
        assert_eq!(completion.privileged, supervisor);
    }
    t.process(V, 8 << 60 | ROOT >> 12);
    let fault = t.fault(&with_process(ats(IOVA, false, true), true));
    assert_eq!(
        (fault.cause(), fault.status),
        (260, Status::UnsupportedRequest),
        "ENS"
    );
}

/// §2.6: Priv is 0 without a PASID.
#[test]
fn privileged_without_process() {
    let t = nested(0);
    let request = Request {
        privileged: true,
        ..ats(IOVA, false, false)
    };
    assert!(!t.completion(&request).privileged);
}

/// §2.6: Global is that of the first stage, at any level, with a PASID, and never for MSIs.
#[test]
fn global() {
    let mut t = nested(0);
    t.map(IOVA, pte(GPA, RWX | G));
    assert!(!t.completion(&ats(IOVA, false, false)).global, "no PASID");
    t.process(V, 8 << 60 | ROOT >> 12);
    let request = with_process(ats(IOVA, false, false), false);
    assert!(t.completion(&request).global);
    t.dc[3] = 8 << 60;
    t.map(IOVA, pte(GPA, RWX));
    let pointer = t.first_slot(IOVA, 1);
    t.process(V, 8 << 60 | ROOT >> 12);
    assert!(!t.completion(&request).global);
    t.memory.set(pointer, t.memory.get(pointer) | G);
    assert!(t.completion(&request).global);
    t.interrupts();
    t.dc[3] = 8 << 60;
    t.map(IOVA, pte(FILE, RWX | G));
    t.process(V, 8 << 60 | ROOT >> 12);
    t.msi_pte(0, [pte(0x2800_0000, V | 3 << 1), 0]);
    assert!(!t.completion(&request).global);
    // A second-stage G bit means nothing.
    t.dc[3] = 8 << 60;
    t.memory.set(pointer, t.memory.get(pointer) & !G);
    t.map(IOVA, pte(GPA, RWX));
    t.map_guest(GPA, pte(FRAME, RWX | G));
    t.process(V, 8 << 60 | ROOT >> 12);
    assert!(!t.completion(&request).global);
}

/// §2.6: CXL.io for CXL devices only: MSIs, T2GPA, NC and IO, and PMA by choice.
#[test]
fn cxl_io() {
    let cxl = |t: &Tables, cxl| {
        let request = Request {
            ats: AtsFlags {
                cxl,
                ..AtsFlags::default()
            },
            ..ats(IOVA, false, false)
        };
        t.completion(&request).cxl_io
    };
    let mut t = nested(0);
    assert!(!cxl(&t, true));
    t.iommu.choices.cxl_io_for_pma = true;
    assert!(cxl(&t, true) && !cxl(&t, false));
    t.iommu.choices.cxl_io_for_pma = false;
    for pbmt in [1, 2] {
        t.map(IOVA, pte(GPA, RWX | pbmt << 61));
        assert!(cxl(&t, true) && !cxl(&t, false));
    }
    assert!(cxl(&nested(tc::T2GPA), true));
    t.interrupts();
    t.map(IOVA, pte(FILE, RWX));
    t.msi_pte(0, [pte(0x2800_0000, V | 3 << 1), 0]);
    assert!(cxl(&t, true));
}

/// §2.6: a page in MRIF mode gives R, W and U; one in basic mode R and W.
#[test]
fn interrupt_files() {
    let mut t = nested(0);
    t.interrupts();
    t.map(IOVA, pte(FILE, RWX));
    t.msi_pte(0, [V | 1 << 1 | FRAME >> 9 << 7, 0]);
    let completion = t.completion(&ats(IOVA, false, true));
    assert_eq!(permissions(&completion), [true, true, false]);
    assert!(completion.untranslated_only);
    t.msi_pte(0, [pte(0x2800_0000, V | 3 << 1), 0]);
    let completion = t.completion(&ats(IOVA, false, true));
    assert_eq!(permissions(&completion), [true, true, false]);
    assert!(!completion.untranslated_only);
    assert_eq!((completion.address, completion.size), (0x2800_0000, 4096));
}

/// §2.6 and §2.4: A and D are set for the permissions that are given; W is never given with D 0.
#[test]
fn accessed_and_dirty() {
    let clean = RWX & !A & !D;
    for (no_write, flags, after, result) in [
        (false, clean, RWX, [true, true, false]),
        (true, clean, clean | A, [true, false, false]),
        (true, RWX, RWX, [true, true, false]), // given though not asked for
        (false, clean & !W, clean & !W | A, [true, false, false]),
    ] {
        let mut t = nested(tc::SADE | tc::GADE);
        let first = t.map(IOVA, pte(GPA, flags));
        let second = t.map_guest(GPA, pte(FRAME, flags));
        let request = ats(IOVA, no_write, false);
        assert_eq!(permissions(&t.completion(&request)), result);
        t.iommu.translate(&mut t.memory, &request);
        assert_eq!(t.memory.get(first), pte(GPA, after));
        assert_eq!(t.memory.get(second), pte(FRAME, after));
    }
}

/// §2.4: a page that the first stage does not let write is not made dirty in the second.
#[test]
fn no_dirty_page_without_permission() {
    let clean = RWX & !D;
    let mut t = nested(tc::SADE | tc::GADE);
    t.map(IOVA, pte(GPA, RWX & !W));
    let second = t.map_guest(GPA, pte(FRAME, clean));
    t.iommu.translate(&mut t.memory, &ats(IOVA, false, false));
    assert_eq!(t.memory.get(second), pte(FRAME, clean));
}

/// §2.6 and §2.1.3.1: where hardware does not set them, a clear A, or a clear D that a write needs,
/// leaves no access.
#[test]
fn accessed_and_dirty_without_updates() {
    for second in [false, true] {
        for (no_write, flags, result) in [
            (true, RWX & !A, [false; 3]),
            (false, RWX & !D, [false; 3]),
            (true, RWX & !D, [true, false, false]),
            (false, RWX & !D & !W, [true, false, false]),
        ] {
            let mut t = nested(0);
            if second {
                t.map_guest(GPA, pte(FRAME, flags));
            } else {
                t.map(IOVA, pte(GPA, flags));
            }
            let request = ats(IOVA, no_write, false);
            assert_eq!(permissions(&t.completion(&request)), result, "{flags:#x}");
            t.iommu.choices.ats_clean_page = CleanPage::NoAccess;
            if flags & W == 0 {
                assert_eq!(permissions(&t.completion(&request)), [false; 3]);
            }
            t.iommu.choices.ats_clean_page = CleanPage::ReadOnly;
            if flags & A != 0 {
                let read_only = [true, false, false];
                assert_eq!(permissions(&t.completion(&request)), read_only);
            }
        }
    }
}

/// Sizes of completions: superpages, Svnapot, none at all, and bounds by interrupt files.
#[test]
fn sizes() {
    let mut t = Tables::staged(ALL | MSI_FLAT, tc::EN_ATS, 8, 0);
    let at = t.first_slot(0x4000_0000, 1);
    t.memory.set(at, pte(0x8000_0000, RWX));
    let completion = t.completion(&ats(0x4012_3000, false, false));
    assert_eq!(
        (completion.address, completion.size),
        (0x8000_0000, 2 << 20)
    );
    assert_eq!(completion.encoded_address(), (0x800f_f000, true));
    t.map(IOVA, pte(FRAME + 0x8000, RWX | 1 << 63));
    let completion = t.completion(&ats(IOVA, false, false));
    assert_eq!((completion.address, completion.size), (FRAME, 1 << 16));
    assert_eq!(completion.encoded_address(), (FRAME | 0x7000, true));

    let mut t = Tables::new(ALL | MSI_FLAT);
    t.iommu.choices.msi_needs_second_stage = false;
    t.iommu.choices.bare_size_log2 = 21;
    t.set_tc(tc::EN_ATS);
    let completion = t.completion(&ats(FILE + 0x1_2345, false, false));
    assert_eq!((completion.address, completion.size), (FILE, 2 << 20));
    t.interrupts();
    let completion = t.completion(&ats(FILE + 0x1_2345, false, false));
    assert_eq!(
        (completion.address, completion.size),
        (FILE + 0x1_0000, 1 << 16)
    );
}
