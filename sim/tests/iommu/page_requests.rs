//! Page requests and ATS commands (IOMMU §2.7, §3.1.4, §3.3).

use crate::bench::{command, csr, reg};
use crate::rig::{Context, Message, Rig, Sent, Vm};
use crate::tables::tc;

const DEVICE: u32 = 5;
const ADDR: u64 = 0x12_3456_7000;
const EN_ATS: u64 = 2;
const EN_PRI: u64 = 4;
const PRPR: u64 = 1 << 6;
const FAILURE: u64 = 0xf;
const INVALID: u64 = 1;
const SUCCESS: u64 = 0;
const PIP: u64 = 8;
/// Records of the queue, one of which stays free.
const ENTRIES: u64 = 4;

struct Setup {
    rig: Rig,
    ddt: u64,
    queue: u64,
    context: Context,
}

impl Setup {
    fn new() -> Self {
        let mut rig = Rig::new(16);
        let vm = Vm::new(&mut rig, 0, 0);
        let context = Context::of(&vm).tc(EN_ATS | EN_PRI | PRPR);
        let ddt = rig.directory(&[DEVICE], context);
        let queue = rig.page();
        rig.write(
            reg::PQB,
            8,
            queue >> 12 << 10 | u64::from(ENTRIES.ilog2() - 1),
        );
        let mut setup = Self {
            rig,
            ddt,
            queue,
            context,
        };
        setup.enable();
        setup
    }

    fn enable(&mut self) {
        self.rig
            .write(reg::PQCSR, 4, csr::ENABLE | csr::INTERRUPT | 3 << 8);
        while self.rig.read(reg::PQCSR, 4) & csr::ON == 0 {}
    }

    /// A request, and what the IOMMU answers itself.
    fn ask(&mut self, message: Message) -> Vec<Sent> {
        self.rig.message(&message);
        self.rig.sent()
    }

    fn context(&mut self, tc: u64) {
        let context = Context { tc, ..self.context };
        self.rig.set_context(self.ddt, DEVICE, context);
    }
}

fn page(process_id: Option<u32>, rwl: [bool; 3]) -> Message {
    Message::Page {
        device_id: DEVICE,
        process_id,
        privileged: process_id.is_some(),
        exec: process_id.is_some(),
        rwl,
        prgi: 0x1a5,
        addr: ADDR,
    }
}

const READ: [bool; 3] = [true, false, false];
const LAST: [bool; 3] = [true, true, true];
const STOP: [bool; 3] = [false, false, true];

fn response(process_id: Option<u64>, code: u64) -> Sent {
    Sent::Response {
        device_id: DEVICE.into(),
        process_id,
        prgi: 0x1a5,
        code,
    }
}

#[test]
fn requests_are_queued() {
    let mut s = Setup::new();
    let messages = [
        (page(None, READ), 0, ADDR | 0x1a5 << 3 | 1),
        (
            page(Some(0x54321), LAST),
            0x54321 << 12 | 7 << 32,
            ADDR | 0x1a5 << 3 | 7,
        ),
        (
            page(Some(7), STOP),
            7 << 12 | 7 << 32,
            ADDR | 0x1a5 << 3 | 4,
        ),
    ];
    for (i, (message, dw0, dw1)) in messages.into_iter().enumerate() {
        assert_eq!(s.ask(message), []);
        let at = s.queue + 16 * i as u64;
        let expected = [u64::from(DEVICE) << 40 | dw0, dw1];
        assert_eq!([s.rig.load(at), s.rig.load(at + 8)], expected);
        assert_eq!(s.rig.read(reg::PQT, 4), i as u64 + 1);
        assert_eq!(s.rig.read(reg::IPSR, 4), PIP);
        s.rig.write(reg::IPSR, 4, PIP);
        assert_eq!(s.rig.read(reg::IPSR, 4), 0);
    }
    assert_eq!(s.rig.records(), []);
    // Full: it overflows, and later requests are not queued either.
    assert_eq!(s.ask(page(Some(9), LAST)), [response(Some(9), SUCCESS)]);
    assert_eq!(s.rig.read(reg::PQCSR, 4) >> 8 & 3, 2);
    s.rig.write(reg::PQH, 4, 2);
    assert_eq!(s.ask(page(None, LAST)), [response(None, SUCCESS)]);
    assert_eq!(s.ask(page(None, READ)), []);
    assert_eq!(s.ask(page(Some(9), STOP)), []);
    s.rig
        .write(reg::PQCSR, 4, csr::ENABLE | csr::INTERRUPT | 1 << 9);
    assert_eq!(s.ask(page(None, LAST)), []);
    assert_eq!(s.rig.read(reg::PQT, 4), 0, "after the last entry the first");
    assert_eq!(s.rig.records(), []);
}

#[test]
fn big_endian_records() {
    let mut s = Setup::new();
    s.rig.write(reg::FCTL, 4, 1);
    let context = s.context;
    s.context(context.tc);
    assert_eq!(s.ask(page(Some(3), READ)), []);
    let dw0 = u64::from(DEVICE) << 40 | 3 << 12 | 7 << 32;
    let dw1 = ADDR | 0x1a5 << 3 | 1;
    let record = [0, 8].map(|i| s.rig.load(s.queue + i));
    assert_eq!(record, [dw0, dw1].map(u64::swap_bytes));
}

/// What the IOMMU answers itself, with or without the PASID, and whether it reports a fault.
#[test]
fn requests_that_are_refused() {
    let mut s = Setup::new();
    let tc = s.context.tc;
    let refused = |s: &mut Setup, code, pasid: bool, cause| {
        assert_eq!(s.ask(page(None, READ)), []);
        assert_eq!(s.ask(page(Some(9), STOP)), []);
        s.rig.records();
        let expected = response(pasid.then_some(9), code);
        assert_eq!(s.ask(page(Some(9), LAST)), [expected]);
        let records = s.rig.records();
        assert_eq!(records.first().map(|r| r.cause), cause);
        if let Some(record) = records.first() {
            assert_eq!((record.ttyp, record.iotval), (9, 4));
            assert_eq!(record.process_id, Some(9));
            assert_eq!(record.device_id, DEVICE.into());
        }
        // Never a PASID that the request had not.
        assert_eq!(s.ask(page(None, LAST)), [response(None, code)]);
        s.rig.records();
    };
    for (bits, code, pasid, cause) in [
        (0, FAILURE, true, Some(258)),
        (tc | 1 << 40, FAILURE, true, Some(259)),
        (tc & !(EN_PRI | PRPR), INVALID, false, Some(260)),
        (tc & !(EN_PRI | PRPR) | tc::DTF, INVALID, false, None),
    ] {
        s.context(bits);
        refused(&mut s, code, pasid, cause);
    }
    s.context(tc);
    s.rig.broken.insert(s.ddt);
    s.rig.sync(&[command::iodir(None)]);
    refused(&mut s, FAILURE, true, Some(257));
    s.rig.broken.clear();
    let ddt = s.ddt;
    s.rig.set_ddtp(1, 0);
    refused(&mut s, INVALID, false, Some(260));
    s.rig.set_ddtp(0, 0);
    refused(&mut s, FAILURE, true, Some(256));
    s.rig.set_ddtp(2, ddt);
    // The queue is off, or has met an access fault.
    s.rig.write(reg::PQCSR, 4, 0);
    refused(&mut s, FAILURE, true, None);
    s.enable();
    s.rig.broken.insert(s.queue);
    refused(&mut s, FAILURE, true, None);
    assert_eq!(s.rig.read(reg::PQCSR, 4) >> 8 & 3, 1);
    s.rig.broken.clear();
    refused(&mut s, FAILURE, true, None);
    // PRPR decides about the PASID of what is not a failure.
    s.enable();
    for bits in [tc, tc & !PRPR] {
        s.context(bits);
        for _ in 0..ENTRIES {
            s.ask(page(None, READ));
        }
        refused(&mut s, SUCCESS, bits == tc, None);
    }
}

const INVAL: u64 = 4;
const PRGR: u64 = 4 | 1 << 7;
const PV: u64 = 1 << 32;
const DSV: u64 = 1 << 33;

fn invalidate(device_id: u64, process_id: Option<u64>, itag: u64, body: u64) -> Sent {
    Sent::Invalidate {
        device_id,
        process_id,
        itag,
        body,
    }
}

fn completion(device_id: u32, itags: u64, count: u64) -> Message {
    Message::Completion {
        device_id,
        itags,
        count,
    }
}

impl Setup {
    /// Whether a fence that has been handed over waits.
    fn waits(&mut self) -> bool {
        self.rig.run(300);
        self.rig.read(reg::CQH, 4) != self.rig.read(reg::CQT, 4)
    }
}

#[test]
fn messages_of_ats_commands() {
    let mut s = Setup::new();
    let body = ADDR | 1 << 11 | 1;
    let rid = 0x1234 << 40;
    s.rig.submit(&[
        [INVAL | rid, body],
        [INVAL | rid | PV | 0x54321 << 12, body],
        [INVAL | rid | DSV | 0xab << 56, body],
        [PRGR | rid | 0xab << 56, 0x1a5 << 32 | 1 << 44],
        [
            PRGR | rid | PV | 0x54321 << 12 | DSV | 0xab << 56,
            0xf << 44,
        ],
    ]);
    let answer = |device_id, process_id, prgi, code| Sent::Response {
        device_id,
        process_id,
        prgi,
        code,
    };
    let expected = [
        invalidate(0x1234, None, 0, body),
        invalidate(0x1234, Some(0x54321), 1, body),
        invalidate(0xab_1234, None, 2, body),
        answer(0x1234, None, 0x1a5, 1),
        answer(0xab_1234, Some(0x54321), 0, 0xf),
    ];
    assert_eq!(s.rig.sent(), expected);
}

#[test]
fn a_fence_waits_for_invalidations() {
    let mut s = Setup::new();
    let device = u64::from(DEVICE) << 40;
    let fence = command::fence(None, false);
    s.rig
        .hand_over(&[[INVAL | device, 0], [INVAL | device, 0], fence]);
    assert!(s.waits());
    // Another device does not complete them; then one of them, twice as it says.
    s.rig.message(&completion(DEVICE + 1, 3, 1));
    assert!(s.waits());
    s.rig.message(&completion(DEVICE, 1, 2));
    s.rig.message(&completion(DEVICE, 2, 1));
    assert!(s.waits());
    s.rig.message(&completion(DEVICE, 1, 2));
    assert!(!s.waits());
    // A count of 0 is 8.
    s.rig.hand_over(&[[INVAL | device, 0], fence]);
    assert!(s.waits());
    for _ in 0..7 {
        s.rig.message(&completion(DEVICE, 1, 0));
        assert!(s.waits());
    }
    s.rig.message(&completion(DEVICE, 1, 0));
    assert!(!s.waits());
    assert_eq!(s.rig.read(reg::CQCSR, 4) & (csr::TIMEOUT | csr::ILLEGAL), 0);
}

/// A device that takes no message until its completions are taken: the IOMMU's own response waits, and
/// no fence for it.
#[test]
fn a_response_does_not_hold_back_completions() {
    let mut s = Setup::new();
    let fence = command::fence(None, false);
    s.rig
        .hand_over(&[[INVAL | u64::from(DEVICE) << 40, 0], fence]);
    assert!(s.waits());
    s.rig.write(reg::PQCSR, 4, 0);
    s.rig.deaf = true;
    s.rig.message(&page(None, [true; 3]));
    s.rig.message(&completion(DEVICE, 1, 1));
    assert!(!s.waits());
    s.rig.deaf = false;
    let sent = s.rig.sent();
    assert_eq!(sent.len(), 2, "the invalidation, and a failure");
    assert!(matches!(sent[1], Sent::Response { code: FAILURE, .. }));
}

/// There are 32 tags; a command waits for one of them.
#[test]
fn tags_of_invalidations() {
    let mut s = Setup::new();
    let device = u64::from(DEVICE) << 40;
    s.rig.hand_over(&[[INVAL | device, 0]; 34]);
    s.rig.run(2000);
    let sent = s.rig.sent();
    assert_eq!(sent.len(), 32);
    for (i, message) in sent.into_iter().enumerate() {
        assert_eq!(message, invalidate(DEVICE.into(), None, i as u64, 0));
    }
    s.rig.message(&completion(DEVICE, 1 << 9 | 1 << 30, 1));
    let tags = [9, 30].map(|tag| invalidate(DEVICE.into(), None, tag, 0));
    assert_eq!(s.rig.sent(), tags);
}

/// One at a time, a half of them in each of two runs, so that none times out.
#[test]
fn each_tag_is_completed_by_its_bit() {
    let device = u64::from(DEVICE) << 40;
    for tags in [0..16, 16..32] {
        let mut s = Setup::new();
        s.rig.hand_over(&[[INVAL | device, 0]; 48]);
        s.rig.run(1000);
        assert_eq!(s.rig.sent().len(), 32);
        for tag in tags {
            s.rig.message(&completion(DEVICE, 1 << tag, 1));
            let next = invalidate(DEVICE.into(), None, tag, 0);
            assert_eq!(s.rig.sent(), [next]);
        }
    }
}

#[test]
fn a_timeout_is_reported_by_the_next_fence() {
    let mut s = Setup::new();
    let device = u64::from(DEVICE) << 40;
    s.rig.submit(&[[INVAL | device, 0]]);
    let fence_at = s.rig.read(reg::CQT, 4);
    s.rig.hand_over(&[command::fence(None, false), [1, 0]]);
    s.rig.run(7000);
    assert_eq!(s.rig.read(reg::CQCSR, 4) & csr::TIMEOUT, 0);
    s.rig.run(3000);
    assert_ne!(s.rig.read(reg::CQCSR, 4) & csr::TIMEOUT, 0);
    assert_eq!(s.rig.read(reg::CQH, 4), fence_at);
    assert!(s.waits());
    // The fence is executed again.
    s.rig.write(reg::CQCSR, 4, csr::ENABLE | csr::TIMEOUT);
    assert!(!s.waits());
    assert_eq!(s.rig.read(reg::CQCSR, 4) & csr::TIMEOUT, 0);
    // A late completion is of nothing.
    s.rig.message(&completion(DEVICE, 1, 1));
    s.rig.sync(&[]);
}
