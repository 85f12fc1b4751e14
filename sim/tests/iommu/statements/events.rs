//! What the event counters count (IOMMU §5.23).

use crate::bench::{command, reg};
use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

const DEVICE: u32 = 5;
const PID: u32 = 3;
const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
/// Of contexts that [`Context::of`] and [`Process::of`] make.
const GSCID: u64 = 7;
const PSCID: u64 = 5;
const PROCESS_PSCID: u64 = 9;
const EN_ATS: u64 = 2;

const IDT: u64 = 1 << 62;
const DV: u64 = 1 << 61;
const PV: u64 = 1 << 60;
const DMASK: u64 = 1 << 15;
const TLB_MISS: u64 = 4;
const DDT_WALK: u64 = 5;
const PDT_WALK: u64 = 6;
const FIRST_STAGE: u64 = 7;
const SECOND_STAGE: u64 = 8;

/// The field DID_GSCID.
const fn did(id: u64) -> u64 {
    id << 36
}

/// The field PID_PSCID.
const fn pid(id: u64) -> u64 {
    id << 16
}

const READ: Request = Request::new(Ttyp::UntransRd, DEVICE, IOVA);

/// One device, with these stages, and a process directory if it has processes.
struct Setup {
    rig: Rig,
    vm: Vm,
    ddt: u64,
    /// Of the process directory.
    root: u64,
    context: Context,
    request: Request,
}

impl Setup {
    fn new(first: u64, second: u64, processes: bool) -> Self {
        let mut rig = Rig::new(41);
        let mut vm = Vm::new(&mut rig, first, second);
        let mut context = Context::of(&vm).tc(EN_ATS);
        let mut request = READ;
        let root = vm.table(&mut rig);
        if processes {
            let process = Process::of(&vm);
            rig.set_process(&mut vm, root, pd::PD8, PID, process, false);
            context = Context {
                fsc: pd::PD8 << 60 | root >> 12,
                ..context.tc(tc::PDTV)
            };
            request = READ.of(PID);
        }
        let ddt = rig.directory(&[DEVICE], context);
        let mut setup = Self {
            rig,
            vm,
            ddt,
            root,
            context,
            request,
        };
        setup.map(IOVA, GPA, PAGE);
        setup
    }

    fn map(&mut self, iova: u64, gpa: u64, page: u64) {
        let Self { rig, vm, .. } = self;
        if vm.first.is_some() {
            let to = if vm.second.is_some() { gpa } else { page };
            vm.map_first(rig, iova, 0, pte::at(to, pte::ALL));
        }
        if vm.second.is_some() {
            let from = if vm.first.is_some() { gpa } else { iova };
            vm.map_second(rig, from, 0, pte::at(page, pte::ALL));
        }
    }

    /// What the selector counts over requests with nothing held before the first.
    fn cold(&mut self, value: u64, requests: &[Request]) -> u64 {
        self.rig.forget();
        self.warm(value, requests)
    }

    fn warm(&mut self, value: u64, requests: &[Request]) -> u64 {
        self.rig.write(reg::IOHPMEVT, 8, value);
        self.rig.write(reg::IOHPMCTR, 8, 0);
        for &request in requests {
            self.rig.translate(request);
        }
        self.rig.read(reg::IOHPMCTR, 8)
    }

    /// What the event counts over one request; the memory has seen as many reads of these pages.
    fn walks(&mut self, event: u64, pages: &[u64], request: Request) -> u64 {
        let count = self.warm(event, &[request]);
        let accesses = self.rig.accesses.iter();
        let reads = accesses.filter(|a| a.op == 0 && pages.contains(&(a.addr & !0xfff)));
        assert_eq!(count, reads.count() as u64, "event {event}");
        count
    }

    /// Invalidates the second stage of every guest.
    fn forget_second(&mut self) {
        self.rig.sync(&[[1 | 1 << 7, 0]]);
    }
}

/// Every kind of request, and how many of the first three events it is.
const KINDS: [(Ttyp, [u64; 3]); 7] = [
    (Ttyp::UntransRx, [1, 0, 0]),
    (Ttyp::UntransRd, [1, 0, 0]),
    (Ttyp::UntransWr, [1, 0, 0]),
    (Ttyp::TransRx, [0, 1, 0]),
    (Ttyp::TransRd, [0, 1, 0]),
    (Ttyp::TransWr, [0, 1, 0]),
    (Ttyp::AtsReq, [0, 0, 1]),
];

/// The event counts requests of its kind, whether anything is held or not.
fn counts_requests(event: u64) {
    let mut s = Setup::new(SV39, 0, false);
    for (ttyp, counts) in KINDS {
        let request = Request { ttyp, ..READ };
        let expected = counts[event as usize - 1];
        assert_eq!(s.cold(event, &[request]), expected, "{ttyp:?}");
        assert_eq!(s.warm(event, &[request; 3]), 3 * expected, "{ttyp:?}");
    }
}

#[test]
fn event_1_is_an_untranslated_request() {
    counts_requests(1);
}

#[test]
fn event_2_is_a_translated_request() {
    counts_requests(2);
}

#[test]
fn event_3_is_a_translation_request() {
    counts_requests(3);
}

#[test]
fn event_4_is_a_miss_of_the_tlb() {
    for (first, second) in [(SV39, 0), (0, SV39), (SV39, SV39)] {
        let mut s = Setup::new(first, second, false);
        let other = Request::new(Ttyp::UntransRd, DEVICE, IOVA + 0x1000);
        s.map(IOVA + 0x1000, GPA + 0x1000, PAGE + 0x1000);
        assert_eq!(s.cold(TLB_MISS, &[READ]), 1);
        assert_eq!(s.warm(TLB_MISS, &[READ; 5]), 0);
        assert_eq!(s.warm(TLB_MISS, &[other, READ, other]), 1);
        assert_eq!(s.cold(TLB_MISS, &[READ, other, READ]), 2);
    }
}

#[test]
fn event_5_is_a_walk_of_the_device_directory() {
    let mut s = Setup::new(SV39, 0, false);
    let pages = [s.ddt];
    s.rig.set_context(s.ddt, DEVICE + 1, s.context);
    let other = Request::new(Ttyp::UntransRd, DEVICE + 1, IOVA);
    for request in [READ, other] {
        assert_eq!(s.walks(DDT_WALK, &pages, request), 1);
        assert_eq!(s.walks(DDT_WALK, &pages, request), 0, "held");
    }
    s.rig.sync(&[command::iodir(Some(DEVICE))]);
    assert_eq!(s.walks(DDT_WALK, &pages, other), 0);
    assert_eq!(s.walks(DDT_WALK, &pages, READ), 1);
}

#[test]
fn event_6_is_a_walk_of_the_process_directory() {
    for second in [0, SV39] {
        let mut s = Setup::new(SV39, second, true);
        let root = s.root;
        let process = Process::of(&s.vm);
        s.rig
            .set_process(&mut s.vm, root, pd::PD8, PID + 1, process, false);
        let pages = [s.vm.physical(root)];
        for request in [READ.of(PID), READ.of(PID + 1)] {
            assert_eq!(s.walks(PDT_WALK, &pages, request), 1);
            assert_eq!(s.walks(PDT_WALK, &pages, request), 0, "held");
        }
    }
    // Without a process directory there are none.
    let mut s = Setup::new(SV39, SV39, false);
    assert_eq!(s.cold(PDT_WALK, &[READ]), 0);
}

#[test]
fn event_7_is_a_walk_of_the_first_stage() {
    for second in [0, SV39] {
        let mut s = Setup::new(SV39, second, false);
        let leaf = s.vm.first_entry(&mut s.rig, IOVA, 0);
        let pages = [s.vm.physical(leaf) & !0xfff];
        assert_eq!(s.walks(FIRST_STAGE, &pages, READ), 1);
        assert_eq!(s.walks(FIRST_STAGE, &pages, READ), 0, "held");
        s.rig.forget();
        assert_eq!(s.walks(FIRST_STAGE, &pages, READ), 1);
    }
    let mut s = Setup::new(0, SV39, false);
    assert_eq!(s.cold(FIRST_STAGE, &[READ]), 0);
}

#[test]
fn event_8_is_a_walk_of_the_second_stage() {
    // One for the page, with a first stage one more for each of its three tables, with a process
    // directory one more for its table.
    for (first, processes, expected) in [(0, false, 1), (SV39, false, 4), (SV39, true, 5)] {
        let mut s = Setup::new(first, SV39, processes);
        let tables = if first == 0 { IOVA } else { GPA };
        let mut leaves = vec![s.vm.second_entry(&mut s.rig, tables, 0)];
        leaves.push(s.vm.second_entry(&mut s.rig, s.root, 0));
        let pages: Vec<u64> = leaves.into_iter().map(|at| at & !0xfff).collect();
        let request = s.request;
        assert_eq!(s.walks(SECOND_STAGE, &pages, request), expected);
        assert_eq!(s.walks(SECOND_STAGE, &pages, request), 0, "held");
        s.rig.forget();
        assert_eq!(s.walks(SECOND_STAGE, &pages, request), expected);
    }
    let mut s = Setup::new(SV39, 0, true);
    let request = s.request;
    assert_eq!(s.cold(SECOND_STAGE, &[request]), 0);
}

#[test]
fn dmask_ignores_the_bits_up_to_the_lowest_0() {
    let mut rig = Rig::new(41);
    rig.set_ddtp(1, 0);
    let id = 0xab_cde0_u32;
    // Ones at the bottom, and so many bits that are not compared.
    for ones in 0..24 {
        let field = id >> (ones + 1) << (ones + 1) | ((1 << ones) - 1);
        for dmask in [0, DMASK] {
            rig.write(reg::IOHPMEVT, 8, 1 | DV | dmask | did(field.into()));
            for bit in 0..24 {
                rig.write(reg::IOHPMCTR, 8, 0);
                let device = field ^ 1 << bit;
                rig.translate(Request::new(Ttyp::UntransRd, device, IOVA));
                let expected = u64::from(dmask != 0 && bit <= ones);
                assert_eq!(rig.read(reg::IOHPMCTR, 8), expected, "{ones} {bit}");
            }
            rig.translate(Request::new(Ttyp::UntransRd, field, IOVA));
            let count = rig.read(reg::IOHPMCTR, 8);
            rig.translate(Request::new(Ttyp::UntransRd, field, IOVA));
            assert_eq!(rig.read(reg::IOHPMCTR, 8), count + 1, "{ones}");
        }
    }
}

#[test]
fn dmask_applies_to_gscids() {
    let mut s = Setup::new(0, SV39, false);
    for (gscid, range) in [
        (0x40, true),
        (0x43, true),
        (0x45, true),
        (0x47, true),
        (0x48, false),
        (0x3f, false),
        (0x143, false),
        (0x8043, false),
    ] {
        let iohgatp = s.vm.iohgatp(gscid);
        let context = Context {
            iohgatp,
            ..s.context
        };
        s.rig.set_context(s.ddt, DEVICE, context);
        let filter = SECOND_STAGE | IDT | DV | did(0x43);
        for (value, counts) in [(filter, gscid == 0x43), (filter | DMASK, range)] {
            s.forget_second();
            assert_eq!(s.warm(value, &[READ]), counts.into(), "{gscid:#x}");
        }
    }
}

/// Filters with IDs that match in one way of reading them only, for events that support both.
fn filters_by(idt: u64, device: u64, process: u64) {
    let mut s = Setup::new(SV39, SV39, true);
    let requests = [READ.of(PID)];
    for event in [TLB_MISS, FIRST_STAGE] {
        for (filter, expected) in [
            (DV | did(device), 1),
            (PV | pid(process), 1),
            (DV | PV | did(device) | pid(process), 1),
            (DV | did(device ^ 2), 0),
            (PV | pid(process ^ 10), 0),
            (DV | PV | did(device ^ 2) | pid(process), 0),
            (DV | PV | did(device) | pid(process ^ 10), 0),
        ] {
            let value = event | idt | filter;
            assert_eq!(s.cold(value, &requests), expected, "{value:#x}");
        }
    }
    assert_eq!(s.cold(SECOND_STAGE | idt | DV | did(device), &requests), 5);
    let other = SECOND_STAGE | idt | DV | did(device ^ 2);
    assert_eq!(s.cold(other, &requests), 0);
}

/// `^ 2` and `^ 10` turn these IDs into those of the other kind.
#[test]
fn idt_0_filters_by_device_id_and_process_id() {
    assert_eq!(u64::from(PID) ^ 10, PROCESS_PSCID);
    filters_by(0, DEVICE.into(), PID.into());
}

#[test]
fn idt_1_filters_by_gscid_and_pscid() {
    assert_eq!(u64::from(DEVICE) ^ 2, GSCID);
    filters_by(IDT, GSCID, PROCESS_PSCID);
}

#[test]
fn without_dv_and_pv_every_transaction_counts() {
    for (first, second, processes) in [
        (SV39, SV39, true),
        (SV39, SV39, false),
        (SV39, 0, false),
        (0, SV39, false),
    ] {
        let mut s = Setup::new(first, second, processes);
        let requests = [s.request; 2];
        let tables = 3 * u64::from(first != 0) + u64::from(processes);
        for (event, expected, idts) in [
            (1, 2, 1),
            (TLB_MISS, 1, 2),
            (DDT_WALK, 1, 1),
            (PDT_WALK, processes.into(), 1),
            (FIRST_STAGE, (first != 0).into(), 2),
            (SECOND_STAGE, u64::from(second != 0) * (tables + 1), 2),
        ] {
            for idt in 0..idts {
                for ids in [0, did(0x12_3456) | pid(0x6_5432), DMASK] {
                    let value = event | idt << 62 | ids;
                    assert_eq!(s.cold(value, &requests), expected, "{value:#x}");
                }
            }
        }
    }
}

/// PSCID identifies nothing if the first stage is Bare (IOMMU §2.1.3).
#[test]
fn pscv_counts_no_transaction_without_pscid() {
    let mut s = Setup::new(0, SV39, false);
    assert_eq!(s.context.ta, PSCID << 12);
    for event in [TLB_MISS, SECOND_STAGE] {
        assert_eq!(s.cold(event | IDT, &[READ]), 1);
        for id in [0, PSCID] {
            assert_eq!(s.cold(event | IDT | PV | pid(id), &[READ]), 0);
        }
    }
    let mut s = Setup::new(SV39, SV39, false);
    for (event, expected) in [(TLB_MISS, 1), (SECOND_STAGE, 4)] {
        let value = event | IDT | PV | pid(PSCID);
        assert_eq!(s.cold(value, &[READ]), expected);
    }
}

#[test]
fn gscv_counts_no_transaction_without_gscid() {
    for (second, expected) in [(0, 0), (SV39, 1)] {
        let mut s = Setup::new(SV39, second, false);
        let context = Context {
            iohgatp: s.vm.iohgatp(0),
            ..s.context
        };
        s.rig.set_context(s.ddt, DEVICE, context);
        for event in [TLB_MISS, FIRST_STAGE] {
            for (filter, counts) in [(0, 1), (DV | did(0), expected), (DV | did(1), 0)] {
                // IOTINVAL.VMA of the guest with GSCID 0, and all else.
                s.rig.sync(&[[1 | 1 << 33, 0]]);
                let count = s.cold(event | IDT | filter, &[READ]);
                assert_eq!(count, counts, "{event} {filter:#x}");
            }
        }
    }
}

#[test]
fn an_idt_that_the_event_does_not_support_counts_nothing() {
    let mut s = Setup::new(SV39, SV39, true);
    let request = READ.of(PID);
    let kinds = [Ttyp::UntransRd, Ttyp::TransRd, Ttyp::AtsReq];
    let requests = kinds.map(|ttyp| Request { ttyp, ..request });
    let ids = DV | PV | did(GSCID) | pid(PROCESS_PSCID);
    for (event, supported) in [
        (1, false),
        (2, false),
        (3, false),
        (TLB_MISS, true),
        (DDT_WALK, false),
        (PDT_WALK, false),
        (FIRST_STAGE, true),
    ] {
        assert_eq!(s.cold(event, &requests), 1, "{event}");
        let expected = u64::from(supported);
        assert_eq!(s.cold(event | IDT, &requests), expected, "{event}");
        assert_eq!(s.cold(event | IDT | ids, &requests), expected, "{event}");
    }
}

/// By events of the request and of what it misses.
#[test]
fn filters_compare_all_20_bits_of_pid_pscid() {
    let mut s = Setup::new(SV39, SV39, true);
    let root = s.vm.table(&mut s.rig);
    let fsc = pd::PD20 << 60 | root >> 12;
    s.rig
        .set_context(s.ddt, DEVICE, Context { fsc, ..s.context });
    // Each bit is 0 and 1.
    for process_id in [0xa_5a5a, 0x5_a5a5] {
        let pscid = u64::from(process_id) ^ 0xf_ffff;
        let process = Process {
            ta: pscid << 12 | 1,
            ..Process::of(&s.vm)
        };
        s.rig
            .set_process(&mut s.vm, root, pd::PD20, process_id, process, false);
        let requests = [READ.of(process_id)];
        for (idt, id, events) in [
            (
                0,
                process_id.into(),
                [1, TLB_MISS, PDT_WALK, FIRST_STAGE].as_slice(),
            ),
            (IDT, pscid, &[TLB_MISS, FIRST_STAGE, SECOND_STAGE]),
        ] {
            for event in events {
                let filter = event | idt | PV;
                assert_ne!(s.cold(filter | pid(id), &requests), 0, "{event}");
                for bit in 0..20 {
                    let other = filter | pid(id ^ 1 << bit);
                    assert_eq!(s.cold(other, &requests), 0, "{event} {bit}");
                }
            }
        }
    }
}

/// Of each event: a transaction counts by its own IDs, and not if either differs in a bit.
#[test]
fn every_event_is_filtered_by_device_id_and_process_id() {
    let mut s = Setup::new(SV39, SV39, true);
    let kinds = [Ttyp::UntransRd, Ttyp::TransRd, Ttyp::AtsReq];
    let requests = kinds.map(|ttyp| Request {
        ttyp,
        ..READ.of(PID)
    });
    let ids = DV | PV | did(DEVICE.into()) | pid(PID.into());
    for event in 1..=SECOND_STAGE {
        let all = s.cold(event, &requests);
        assert_ne!(all, 0, "{event}");
        assert_eq!(s.cold(event | ids, &requests), all, "{event}");
        for others in [ids ^ did(1), ids ^ pid(1)] {
            assert_eq!(s.cold(event | others, &requests), 0, "{event}");
        }
    }
}

/// With DPE it is of process 0, of which it has the PSCID, but not the process_id.
#[test]
fn pv_counts_no_transaction_that_is_of_process_0_by_default() {
    const DPE: u64 = 1 << 9;
    let mut s = Setup::new(SV39, 0, true);
    let process = Process::of(&s.vm);
    s.rig
        .set_process(&mut s.vm, s.root, pd::PD8, 0, process, false);
    s.rig.set_context(s.ddt, DEVICE, s.context.tc(DPE));
    for event in [TLB_MISS, FIRST_STAGE] {
        let by_process_id = event | PV | pid(0);
        assert_eq!(s.cold(by_process_id, &[READ]), 0);
        assert_eq!(s.cold(by_process_id, &[READ.of(0)]), 1);
        let by_pscid = event | IDT | PV | pid(PROCESS_PSCID);
        assert_eq!(s.cold(by_pscid, &[READ]), 1);
    }
}
