//! Page requests that cannot be queued: IOMMU §2.7.

use crate::bench::{csr, reg};
use crate::rig::{Context, Message, Rig, Sent};
use crate::tables::tc;

const DEVICE: u32 = 5;
const PROCESS: u32 = 0x5_4321;
const PRGI: u64 = 0x1a5;

/// Bits of `tc`.
const EN_ATS: u64 = 1 << 1;
const EN_PRI: u64 = 1 << 2;
const PRPR: u64 = 1 << 6;

/// Response codes of PCIe.
const SUCCESS: u64 = 0;
const INVALID: u64 = 1;
const FAILURE: u64 = 15;

const PQMF: u64 = 1 << 8;
const PQOF: u64 = 1 << 9;
/// Entries of the queue, one of which stays free.
const ENTRIES: u64 = 4;

/// R, W and L.
const READ: [bool; 3] = [true, false, false];
const LAST: [bool; 3] = [true, true, true];
const STOP: [bool; 3] = [false, false, true];

/// Why a page request cannot be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    Nothing,
    Off,
    DirectoryAccessFault,
    InvalidContext,
    MisconfiguredContext,
    QueueOff,
    QueueFault,
    Bare,
    PriDisabled,
    AtsDisabled,
    Full,
    Overflowed,
}
use Obstacle::*;

/// With the code of the response and the cause of the record.
const OBSTACLES: [(Obstacle, u64, Option<u64>); 11] = [
    (Off, FAILURE, Some(256)),
    (DirectoryAccessFault, FAILURE, Some(257)),
    (InvalidContext, FAILURE, Some(258)),
    (MisconfiguredContext, FAILURE, Some(259)),
    (QueueOff, FAILURE, None),
    (QueueFault, FAILURE, None),
    (Bare, INVALID, Some(260)),
    (PriDisabled, INVALID, Some(260)),
    (AtsDisabled, INVALID, Some(260)),
    (Full, SUCCESS, None),
    (Overflowed, SUCCESS, None),
];

struct Setup {
    rig: Rig,
    ddt: u64,
    queue: u64,
}

impl Setup {
    fn new(obstacle: Obstacle, prpr: bool) -> Self {
        let mut rig = Rig::new(42);
        let queue = rig.page();
        let size = u64::from(ENTRIES.ilog2() - 1);
        rig.write(reg::PQB, 8, queue >> 12 << 10 | size);
        rig.write(reg::PQCSR, 4, csr::ENABLE);
        while rig.read(reg::PQCSR, 4) & csr::ON == 0 {}
        let bits = match obstacle {
            InvalidContext => 0,
            MisconfiguredContext => tc::V | EN_ATS | EN_PRI | PRPR | 1 << 40,
            PriDisabled => tc::V | EN_ATS,
            AtsDisabled => tc::V,
            _ if prpr => tc::V | EN_ATS | EN_PRI | PRPR,
            _ => tc::V | EN_ATS | EN_PRI,
        };
        let context = Context {
            tc: bits,
            ..Context::default()
        };
        let ddt = rig.directory(&[DEVICE], context);
        let mut setup = Self { rig, ddt, queue };
        match obstacle {
            Off | Bare => {
                // The context has been located before.
                setup.ask(READ, None);
                setup.rig.set_ddtp(u64::from(obstacle == Bare), ddt);
            }
            DirectoryAccessFault => {
                setup.rig.broken.insert(ddt);
            }
            QueueOff => {
                setup.rig.write(reg::PQCSR, 4, 0);
                while setup.rig.read(reg::PQCSR, 4) & csr::ON != 0 {}
            }
            QueueFault => {
                setup.rig.broken.insert(queue);
                setup.ask(READ, None);
                setup.rig.broken.clear();
                assert_eq!(setup.rig.read(reg::PQCSR, 4) & (PQMF | PQOF), PQMF);
            }
            Full | Overflowed => {
                for _ in 1..ENTRIES {
                    setup.ask(READ, None);
                }
                assert_eq!(setup.rig.read(reg::PQCSR, 4) & (PQMF | PQOF), 0);
            }
            _ => {}
        }
        if obstacle == Overflowed {
            // The queue is empty again, but the request that did not fit has set pqof.
            setup.ask(READ, None);
            setup.rig.write(reg::PQH, 4, ENTRIES - 1);
            assert_eq!(setup.rig.read(reg::PQCSR, 4) & (PQMF | PQOF), PQOF);
        }
        setup
    }

    /// What the IOMMU sends for one message to it.
    fn ask(&mut self, rwl: [bool; 3], process_id: Option<u32>) -> Vec<Sent> {
        self.rig.accesses.clear();
        self.rig.message(&Message::Page {
            device_id: DEVICE,
            process_id,
            privileged: false,
            exec: false,
            rwl,
            prgi: PRGI,
            addr: 0x12_3456_7000,
        });
        self.rig.sent()
    }

    /// Whether the last message went into the queue.
    fn queued(&self) -> bool {
        let queue = self.queue;
        let into = |addr: u64| addr & !0xfff == queue;
        self.rig.accesses.iter().any(|a| a.op == 1 && into(a.addr))
    }

    fn causes(&mut self) -> Vec<u64> {
        self.rig.records().iter().map(|r| r.cause).collect()
    }
}

fn response(process_id: Option<u32>, code: u64) -> Sent {
    Sent::Response {
        device_id: DEVICE.into(),
        process_id: process_id.map(u64::from),
        prgi: PRGI,
        code,
    }
}

/// The message is queued if nothing is in the way, and otherwise neither queued nor answered.
fn is_discarded(rwl: [bool; 3], process_id: Option<u32>) {
    for obstacle in [Nothing].into_iter().chain(OBSTACLES.map(|(o, ..)| o)) {
        let mut s = Setup::new(obstacle, true);
        let tail = s.rig.read(reg::PQT, 4);
        assert_eq!(s.ask(rwl, process_id), [], "{obstacle:?}");
        let queued = obstacle == Nothing;
        assert_eq!(s.queued(), queued, "{obstacle:?}");
        let moved = s.rig.read(reg::PQT, 4) != tail;
        assert_eq!(moved, queued, "{obstacle:?}");
        // The last of a group would be answered.
        let answers = s.ask(LAST, process_id).len();
        assert_eq!(answers, usize::from(!queued), "{obstacle:?}");
    }
}

#[test]
fn a_request_that_is_not_the_last_is_discarded() {
    for process_id in [None, Some(PROCESS)] {
        is_discarded(READ, process_id);
    }
}

#[test]
fn a_stop_marker_is_discarded() {
    is_discarded(STOP, Some(PROCESS));
}

/// The response to the last request of a group.
fn answer(obstacle: Obstacle, prpr: bool, process_id: Option<u32>) -> Sent {
    let mut s = Setup::new(obstacle, prpr);
    let sent = s.ask(LAST, process_id);
    assert_eq!(sent.len(), 1, "{obstacle:?}");
    assert!(!s.queued());
    sent[0]
}

/// Without PASID: it is the code alone that the obstacles differ in.
fn code(obstacle: Obstacle, code: u64) {
    assert_eq!(answer(obstacle, true, None), response(None, code));
}

#[test]
fn mode_off_is_a_response_failure() {
    code(Off, FAILURE);
}

#[test]
fn an_access_fault_of_the_device_directory_is_a_response_failure() {
    code(DirectoryAccessFault, FAILURE);
}

#[test]
fn a_misconfigured_device_context_is_a_response_failure() {
    code(MisconfiguredContext, FAILURE);
}

#[test]
fn an_invalid_device_context_is_a_response_failure() {
    code(InvalidContext, FAILURE);
}

#[test]
fn a_queue_that_is_off_is_a_response_failure() {
    code(QueueOff, FAILURE);
}

#[test]
fn a_queue_that_met_an_access_fault_is_a_response_failure() {
    code(QueueFault, FAILURE);
}

#[test]
fn mode_bare_is_an_invalid_request() {
    code(Bare, INVALID);
}

#[test]
fn a_device_without_pri_is_an_invalid_request() {
    code(PriDisabled, INVALID);
    code(AtsDisabled, INVALID);
}

#[test]
fn a_full_queue_is_a_success() {
    code(Full, SUCCESS);
}

#[test]
fn a_queue_that_has_overflowed_is_a_success() {
    code(Overflowed, SUCCESS);
}

/// "If no other faults were encountered": of the directory, the context, or the queue itself.
#[test]
fn a_full_queue_is_a_success_only_without_another_fault() {
    let refuses = |s: &mut Setup, code, what: &str| {
        assert_eq!(s.ask(LAST, None), [response(None, code)], "{what}");
    };
    for obstacle in [Full, Overflowed] {
        for (mode, code) in [(0, FAILURE), (1, INVALID)] {
            let mut s = Setup::new(obstacle, true);
            s.rig.set_ddtp(mode, s.ddt);
            refuses(&mut s, code, "mode");
        }
        for (tc, code) in [
            (0, FAILURE),
            (tc::V | EN_ATS | EN_PRI | 1 << 40, FAILURE),
            (tc::V | EN_ATS, INVALID),
        ] {
            let mut s = Setup::new(obstacle, true);
            let context = Context {
                tc,
                ..Context::default()
            };
            s.rig.set_context(s.ddt, DEVICE, context);
            refuses(&mut s, code, "context");
        }
        let mut s = Setup::new(obstacle, true);
        s.rig.write(reg::PQCSR, 4, 0);
        while s.rig.read(reg::PQCSR, 4) & csr::ON != 0 {}
        refuses(&mut s, FAILURE, "off");
    }
    let mut s = Setup::new(QueueFault, true);
    // The next record would have been the first.
    s.rig.write(reg::PQH, 4, 1);
    refuses(&mut s, FAILURE, "full after an access fault");
}

/// The device wants the PASID, as its context in memory says; in mode Bare nobody reads that.
#[test]
fn prpr_is_0_without_a_device_context() {
    let with_pasid = Some(PROCESS);
    assert_eq!(answer(Bare, true, with_pasid), response(None, INVALID));
    assert_eq!(
        answer(Full, true, with_pasid),
        response(with_pasid, SUCCESS)
    );
}

#[test]
fn with_prpr_the_pasid_is_repeated() {
    for obstacle in [Full, Overflowed] {
        let answer = answer(obstacle, true, Some(PROCESS));
        assert_eq!(answer, response(Some(PROCESS), SUCCESS));
    }
}

/// EN_PRI = 0 with PRPR = 1 is misconfigured (§2.1.4).
#[test]
fn without_prpr_the_pasid_is_not_repeated() {
    for (obstacle, code) in [
        (Full, SUCCESS),
        (Overflowed, SUCCESS),
        (PriDisabled, INVALID),
    ] {
        let answer = answer(obstacle, false, Some(PROCESS));
        assert_eq!(answer, response(None, code));
    }
}

#[test]
fn a_response_failure_repeats_the_pasid() {
    for (obstacle, code, _) in OBSTACLES {
        for prpr in [false, true] {
            let repeated = code == FAILURE || prpr && code == SUCCESS;
            let expected = response(repeated.then_some(PROCESS), code);
            assert_eq!(answer(obstacle, prpr, Some(PROCESS)), expected);
        }
    }
}

#[test]
fn a_response_has_no_pasid_that_the_request_had_not() {
    for (obstacle, code, _) in OBSTACLES {
        for prpr in [false, true] {
            let expected = response(None, code);
            assert_eq!(answer(obstacle, prpr, None), expected);
        }
    }
}

/// One record if a fault is what is in the way, and none if it is the queue.
fn logs(obstacle: Obstacle) {
    let (.., expected) = OBSTACLES
        .into_iter()
        .find(|(o, ..)| *o == obstacle)
        .expect("listed");
    let mut s = Setup::new(obstacle, true);
    for rwl in [READ, STOP, LAST] {
        s.ask(rwl, Some(PROCESS));
        let causes: Vec<u64> = expected.into_iter().collect();
        assert_eq!(s.causes(), causes, "{obstacle:?}, {rwl:?}");
    }
}

#[test]
fn a_queue_that_is_off_is_not_logged() {
    logs(QueueOff);
    logs(Off);
}

#[test]
fn a_queue_that_met_an_access_fault_is_not_logged() {
    logs(QueueFault);
    logs(DirectoryAccessFault);
}

#[test]
fn a_queue_that_is_full_is_not_logged() {
    logs(Full);
    logs(Overflowed);
    logs(PriDisabled);
}
