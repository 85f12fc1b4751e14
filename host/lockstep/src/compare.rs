//! An answer of the device under test against the outcome that the golden model computes.

use tlproof_golden::iommu::{Completion, Outcome, Request, Response, Status, Translation};

use crate::layout::Answer;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub field: &'static str,
    /// What the golden model says.
    pub expected: String,
    /// What the device under test says.
    pub got: String,
}

struct Differences(Vec<Difference>);

impl Differences {
    fn field(&mut self, field: &'static str, expected: u64, got: u64) {
        if expected != got {
            self.0.push(Difference {
                field,
                expected: format!("{expected:#x}"),
                got: format!("{got:#x}"),
            });
        }
    }

    fn size(&mut self, expected: u64, response: &Response, answer: &Answer) {
        let (expected, got) = (expected.ilog2().into(), answer.size_log2);
        if !response.beside_interrupt_files || !(12..=expected).contains(&got) {
            self.field("size", expected, got);
        }
    }
}

const fn status(status: Status) -> u64 {
    match status {
        Status::Ok => 0,
        Status::UnsupportedRequest => 1,
        Status::CompleterAbort => 2,
    }
}

/// All fields in which they differ. `bare_size_log2` is the size where neither stage has a page
/// table; `shared` says that address spaces with different tags have tables in common, so that D may
/// have become 1 after an IOMMU has cached it.
#[must_use]
pub fn compare(
    request: &Request,
    response: &Response,
    answer: &Answer,
    bare_size_log2: u8,
    shared: bool,
) -> Vec<Difference> {
    let mut all = Differences(Vec::new());
    let expected = response.outcome.status();
    all.field("status", status(expected), answer.status);
    match &response.outcome {
        _ if !all.0.is_empty() => {
            let cause = match &response.outcome {
                Outcome::Fault(fault) => fault.cause().into(),
                _ => 0,
            };
            all.field("cause", cause, answer.cause);
        }
        Outcome::Fault(fault) => all.field("cause", fault.cause().into(), answer.cause),
        Outcome::Ok(t) => {
            translation(&mut all, t, response.dtf, answer);
            if t.mrif.is_none() {
                let size = response.size(t, bare_size_log2);
                all.size(size, response, answer);
            }
        }
        Outcome::Completion(c) => completion(&mut all, request, response, c, answer, shared),
    }
    all.0
}

fn translation(all: &mut Differences, t: &Translation, dtf: bool, answer: &Answer) {
    all.field("cause", 0, answer.cause);
    all.field("is_msi", t.is_msi.into(), answer.is_msi.into());
    all.field("is_mrif", t.mrif.is_some().into(), answer.is_mrif.into());
    all.field("RCID", t.qos.rcid.into(), answer.rcid);
    all.field("MCID", t.qos.mcid.into(), answer.mcid);
    if let Some(mrif) = t.mrif {
        all.field("interrupt file", mrif.address.0, answer.mrif);
        all.field("notice address", mrif.notice_address.0, answer.notice);
        all.field("notice", mrif.notice_id.into(), answer.notice_id);
        all.field("DTF", dtf.into(), answer.dtf.into());
        return;
    }
    all.field("address", t.spa.0, answer.address);
    all.field("memory type", t.pbmt as u64, answer.pbmt);
}

fn completion(
    all: &mut Differences,
    request: &Request,
    response: &Response,
    c: &Completion,
    answer: &Answer,
    shared: bool,
) {
    let p = c.permissions;
    all.field("R", p.read.into(), answer.ats.read.into());
    // Another address space with the same tables may have made the page dirty since.
    if answer.ats.write || !shared {
        all.field("W", p.write.into(), answer.ats.write.into());
    }
    all.field("N", 0, answer.ats.no_snoop.into());
    all.field("Priv", c.privileged.into(), answer.ats.privileged.into());
    all.field("RCID", c.qos.rcid.into(), answer.rcid);
    all.field("MCID", c.qos.mcid.into(), answer.mcid);
    all.field("Exe", p.execute.into(), answer.ats.execute.into());
    if !p.read && !p.write {
        // Exe needs R (IOMMU §2.6). Without access the other fields say nothing (PCIe 6.0 §10.2.3.2).
        return;
    }
    all.field(
        "U",
        c.untranslated_only.into(),
        answer.ats.untranslated_only.into(),
    );
    all.field("Global", c.global.into(), answer.ats.global.into());
    if request.ats.cxl {
        all.field("CXL.io", c.cxl_io.into(), answer.ats.cxl_io.into());
    }
    all.size(c.size, response, answer);
    if !c.untranslated_only {
        let page = answer.address & !(c.size - 1);
        all.field("address", c.address, page);
    }
}
