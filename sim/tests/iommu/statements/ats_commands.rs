//! ATS.INVAL and ATS.PRGR: IOMMU §3.1.4.

use crate::rig::{Message, Rig, Sent};
use crate::tables::{pte, tc};

const INVAL: u64 = 4;
const PRGR: u64 = 4 | 1 << 7;
const PV: u64 = 1 << 32;
const DSV: u64 = 1 << 33;
/// Bit of `tc`.
const EN_ATS: u64 = 1 << 1;

/// Every device has ATS: all entries of a level are alike.
fn setup(seed: u64) -> Rig {
    let mut rig = Rig::new(seed);
    let [root, middle, last] = [(); 3].map(|()| rig.page());
    for (table, next) in [(root, middle), (middle, last)] {
        for at in (table..table + 4096).step_by(8) {
            rig.store(at, pte::at(next, pte::V));
        }
    }
    for at in (last..last + 4096).step_by(64) {
        rig.store(at, tc::V | EN_ATS);
    }
    rig.set_ddtp(4, root);
    rig
}

/// The message of a command; what is to be invalidated is completed.
fn sends(rig: &mut Rig, command: [u64; 2]) -> Sent {
    rig.submit(&[command]);
    let sent = rig.sent();
    assert_eq!(sent.len(), 1, "{command:x?}");
    if let Sent::Invalidate {
        device_id, itag, ..
    } = sent[0]
    {
        rig.message(&Message::Completion {
            device_id: device_id as u32,
            itags: 1 << itag,
            count: 1,
        });
        rig.run(100);
    }
    sent[0]
}

/// An Invalidate Request; its tag is free.
fn invalidate(device_id: u64, process_id: Option<u64>, body: u64) -> Sent {
    Sent::Invalidate {
        device_id,
        process_id,
        itag: 0,
        body,
    }
}

fn respond(device_id: u64, process_id: Option<u64>, prgi: u64, code: u64) -> Sent {
    Sent::Response {
        device_id,
        process_id,
        prgi,
        code,
    }
}

/// Of a field of this many bits: each bit, none, all.
fn values(bits: u32) -> impl Iterator<Item = u64> {
    (0..bits).map(|bit| 1 << bit).chain([0, !0 >> (64 - bits)])
}

#[test]
fn inval_sends_an_invalidate_request_to_rid() {
    let mut rig = setup(61);
    for rid in values(16) {
        let sent = sends(&mut rig, [INVAL | rid << 40, 0x1000]);
        assert_eq!(sent, invalidate(rid, None, 0x1000));
    }
}

#[test]
fn prgr_sends_a_response_to_rid() {
    let mut rig = setup(62);
    for rid in values(16) {
        let sent = sends(&mut rig, [PRGR | rid << 40, 0]);
        assert_eq!(sent, respond(rid, None, 0, 0));
    }
}

#[test]
fn with_pv_the_message_has_the_pasid_pid() {
    let mut rig = setup(63);
    for pid in values(20) {
        let operands = PV | pid << 12 | 7 << 40;
        let sent = sends(&mut rig, [INVAL | operands, 0]);
        assert_eq!(sent, invalidate(7, Some(pid), 0));
        let sent = sends(&mut rig, [PRGR | operands, 0]);
        assert_eq!(sent, respond(7, Some(pid), 0, 0));
    }
}

#[test]
fn without_pv_pid_is_ignored() {
    let mut rig = setup(64);
    for pid in values(20) {
        let operands = pid << 12 | 7 << 40;
        let sent = sends(&mut rig, [INVAL | operands, 0]);
        assert_eq!(sent, invalidate(7, None, 0));
        let sent = sends(&mut rig, [PRGR | operands, 0]);
        assert_eq!(sent, respond(7, None, 0, 0));
    }
}

#[test]
fn the_payload_of_inval_is_the_body() {
    let mut rig = setup(65);
    for payload in values(64) {
        let sent = sends(&mut rig, [INVAL | 7 << 40, payload]);
        assert_eq!(sent, invalidate(7, None, payload));
    }
}

#[test]
fn the_payload_of_prgr_is_index_and_code() {
    let mut rig = setup(66);
    for index in values(9) {
        let sent = sends(&mut rig, [PRGR | 7 << 40, index << 32]);
        assert_eq!(sent, respond(7, None, index, 0));
    }
    for code in values(4) {
        let sent = sends(&mut rig, [PRGR | 7 << 40, code << 44]);
        assert_eq!(sent, respond(7, None, 0, code));
    }
}

#[test]
fn with_dsv_dseg_is_the_segment() {
    let mut rig = setup(67);
    for segment in values(8) {
        let operands = DSV | segment << 56 | 0x1234 << 40;
        let destination = segment << 16 | 0x1234;
        let sent = sends(&mut rig, [INVAL | operands, 0]);
        assert_eq!(sent, invalidate(destination, None, 0));
        let sent = sends(&mut rig, [PRGR | operands, 0]);
        assert_eq!(sent, respond(destination, None, 0, 0));
    }
}

#[test]
fn without_dsv_dseg_is_ignored() {
    let mut rig = setup(68);
    for segment in values(8) {
        let operands = segment << 56 | 0x1234 << 40;
        let sent = sends(&mut rig, [INVAL | operands, 0]);
        assert_eq!(sent, invalidate(0x1234, None, 0));
        let sent = sends(&mut rig, [PRGR | operands, 0]);
        assert_eq!(sent, respond(0x1234, None, 0, 0));
    }
}
