//! Which causes DTF suppresses: last column of the table of CAUSE.

use super::{DEVICE, GPA, IMSIC, IOVA, MSI, Setup, message_that_faults, page_request};
use crate::rig::{Context, Process, Request, Ttyp, pd};
use crate::tables::tc;

/// The causes that are reported when `provoke` has happened to a device of which a request has been
/// translated, so that the value of its DTF is known.
fn reported(dtf: u64, provoke: impl Fn(&mut Setup)) -> Vec<u64> {
    let mut s = Setup::new(dtf);
    s.rig.translate(Setup::request(Ttyp::UntransRd, IOVA));
    provoke(&mut s);
    s.rig.records().iter().map(|record| record.cause).collect()
}

fn suppressed(cause: u64, provoke: impl Fn(&mut Setup)) {
    assert_eq!(reported(0, &provoke), [cause]);
    assert_eq!(reported(tc::DTF, &provoke), []);
}

fn not_suppressed(cause: u64, provoke: impl Fn(&mut Setup)) {
    assert_eq!(reported(0, &provoke), [cause]);
    assert_eq!(reported(tc::DTF, &provoke), [cause]);
}

impl Setup {
    /// The request meets this cause, reported or not, and gets an error.
    fn meets(&mut self, request: Request, cause: u64) {
        let answer = self.rig.ask(request);
        assert_eq!(answer.cause, cause);
        assert_ne!(answer.status, 0, "cause {cause}");
    }

    fn reads(&mut self, cause: u64) {
        self.meets(Setup::request(Ttyp::UntransRd, IOVA), cause);
    }

    fn writes_msi(&mut self, cause: u64) {
        self.meets(Setup::request(Ttyp::UntransWr, MSI), cause);
    }

    /// A page of tables is not there any more.
    fn break_page(&mut self, page: u64) {
        self.rig.broken.insert(page);
        self.rig.forget();
    }

    fn corrupt_page(&mut self, page: u64) {
        self.rig.corrupt.insert(page);
        self.rig.forget();
    }

    fn set_tc(&mut self, tc: u64) {
        let context = Context { tc, ..self.context };
        self.rig.set_context(self.ddt, DEVICE, context);
    }
}

fn access_fault(kind: Ttyp, cause: u64) {
    suppressed(cause, |s| {
        let table = s.first_table();
        s.break_page(table);
        s.meets(Setup::request(kind, IOVA), cause);
    });
}

#[test]
fn cause_1_is_suppressed() {
    access_fault(Ttyp::UntransRx, 1);
}

#[test]
fn cause_5_is_suppressed() {
    access_fault(Ttyp::UntransRd, 5);
}

#[test]
fn cause_7_is_suppressed() {
    access_fault(Ttyp::UntransWr, 7);
}

fn page_fault(kind: Ttyp, cause: u64) {
    suppressed(cause, |s| {
        s.vm.map_first(&mut s.rig, IOVA, 0, 0);
        s.rig.forget();
        s.meets(Setup::request(kind, IOVA), cause);
    });
}

#[test]
fn cause_12_is_suppressed() {
    page_fault(Ttyp::UntransRx, 12);
}

#[test]
fn cause_13_is_suppressed() {
    page_fault(Ttyp::UntransRd, 13);
}

#[test]
fn cause_15_is_suppressed() {
    page_fault(Ttyp::UntransWr, 15);
}

fn guest_page_fault(kind: Ttyp, cause: u64) {
    suppressed(cause, |s| {
        s.vm.map_second(&mut s.rig, GPA, 0, 0);
        s.rig.forget();
        s.meets(Setup::request(kind, IOVA), cause);
    });
}

#[test]
fn cause_20_is_suppressed() {
    guest_page_fault(Ttyp::UntransRx, 20);
}

#[test]
fn cause_21_is_suppressed() {
    guest_page_fault(Ttyp::UntransRd, 21);
}

#[test]
fn cause_23_is_suppressed() {
    guest_page_fault(Ttyp::UntransWr, 23);
}

/// A context with DTF that is held is of no use in mode Off.
#[test]
fn cause_256_is_not_suppressed() {
    not_suppressed(256, |s| {
        s.rig.set_ddtp(0, 0);
        s.reads(256);
    });
}

#[test]
fn cause_257_is_not_suppressed() {
    not_suppressed(257, |s| {
        s.break_page(s.ddt);
        s.reads(257);
    });
}

#[test]
fn cause_258_is_not_suppressed() {
    not_suppressed(258, |s| {
        s.set_tc(s.context.tc & !tc::V);
        s.reads(258);
    });
}

#[test]
fn cause_259_is_not_suppressed() {
    not_suppressed(259, |s| {
        s.set_tc(s.context.tc | 1 << 40);
        s.reads(259);
    });
}

#[test]
fn cause_260_is_suppressed() {
    for request in [
        Setup::request(Ttyp::TransRd, IOVA),
        Setup::request(Ttyp::AtsReq, IOVA),
        Setup::request(Ttyp::UntransRd, IOVA).of(0x100),
        Setup::request(Ttyp::UntransRd, IOVA).privileged(),
    ] {
        suppressed(260, |s| s.meets(request, 260));
    }
}

#[test]
fn cause_261_is_suppressed() {
    suppressed(261, |s| {
        s.break_page(s.files);
        s.writes_msi(261);
    });
}

#[test]
fn cause_262_is_suppressed() {
    suppressed(262, |s| {
        s.rig.store(s.files, 0);
        s.writes_msi(262);
    });
}

#[test]
fn cause_263_is_suppressed() {
    suppressed(263, |s| {
        s.rig.store(s.files, 1);
        s.writes_msi(263);
    });
}

#[test]
fn cause_264_is_suppressed() {
    suppressed(264, |s| {
        let msi = s.file_in_memory();
        s.rig.broken.insert(msi.answer.mrif);
        s.rig.store_msi(&msi);
        assert_eq!(s.rig.accesses.len(), 1, "no notice");
    });
}

#[test]
fn cause_265_is_suppressed() {
    suppressed(265, |s| {
        s.break_page(s.vm.physical(s.root));
        s.reads(265);
    });
}

#[test]
fn cause_266_is_suppressed() {
    suppressed(266, |s| {
        s.meets(Setup::request(Ttyp::UntransRd, IOVA).of(4), 266);
    });
}

#[test]
fn cause_267_is_suppressed() {
    suppressed(267, |s| {
        let mut process = Process::of(&s.vm);
        process.ta |= 1 << 40;
        s.rig
            .set_process(&mut s.vm, s.root, pd::PD8, 4, process, false);
        s.meets(Setup::request(Ttyp::UntransRd, IOVA).of(4), 267);
    });
}

#[test]
fn cause_268_is_not_suppressed() {
    not_suppressed(268, |s| {
        s.corrupt_page(s.ddt);
        s.reads(268);
    });
}

#[test]
fn cause_269_is_suppressed() {
    suppressed(269, |s| {
        s.corrupt_page(s.vm.physical(s.root));
        s.reads(269);
    });
}

#[test]
fn cause_270_is_suppressed() {
    suppressed(270, |s| {
        s.corrupt_page(s.files);
        s.writes_msi(270);
    });
}

#[test]
fn cause_271_is_suppressed() {
    suppressed(271, |s| {
        let msi = s.file_in_memory();
        s.rig.corrupt.insert(msi.answer.mrif);
        s.rig.store_msi(&msi);
        assert_eq!(s.rig.accesses.len(), 1, "no notice");
    });
}

/// Neither for a message of the IOMMU itself nor for the notice of an interrupt file.
#[test]
fn cause_273_is_not_suppressed() {
    not_suppressed(273, |s| message_that_faults(&mut s.rig));
    not_suppressed(273, |s| {
        let msi = s.file_in_memory();
        s.rig.broken.insert(IMSIC);
        s.rig.store_msi(&msi);
    });
}

#[test]
fn cause_274_is_suppressed() {
    suppressed(274, |s| {
        let table = s.first_table();
        s.corrupt_page(table);
        s.reads(274);
    });
    suppressed(274, |s| {
        let table = s.vm.second_entry(&mut s.rig, GPA, 0) & !0xfff;
        s.corrupt_page(table);
        s.reads(274);
    });
}

/// Of a device whose context is located it suppresses that page requests are not for the queue; not
/// why no context is located, whatever the one in memory or held says.
#[test]
fn messages_without_a_located_context_are_reported() {
    let message = |s: &mut Setup| s.rig.message(&page_request(DEVICE, None));
    suppressed(260, message);
    not_suppressed(256, |s| {
        s.rig.set_ddtp(0, 0);
        message(s);
    });
    not_suppressed(257, |s| {
        s.break_page(s.ddt);
        message(s);
    });
    not_suppressed(258, |s| {
        s.set_tc(s.context.tc & !tc::V);
        message(s);
    });
    not_suppressed(259, |s| {
        s.set_tc(s.context.tc | 1 << 40);
        message(s);
    });
    not_suppressed(260, |s| {
        s.rig.set_ddtp(1, 0);
        message(s);
    });
}
