//! Where the checker's rows go while a job runs, and what the job's machines add up to.

use std::{cell::RefCell, collections::BTreeMap, fs::File, io::BufWriter, rc::Rc};

use tlproof_golden::Tap;
use tlproof_pcie::{Class, CplStatus, Head, MemAttr, tlp::AddressType};

use crate::{
    pcapng,
    report::{self, Check, ResultDir, TlpRow, TlpWriter, ViolationRow},
};

/// Names of the taps, which are also the interfaces of the capture.
const TAPS: [&str; 13] = [
    "ep0.tx",
    "ep1.tx",
    "ep2.tx",
    "ep0.rx",
    "ep1.rx",
    "ep2.rx",
    "rp0.rx",
    "rp1.rx",
    "rp0.tx",
    "rp1.tx",
    "rp0.translate",
    "rp1.translate",
    "memory",
];

fn tap_index(tap: Tap) -> usize {
    match tap {
        Tap::EpTx(n) => usize::from(n.min(2)),
        Tap::EpRx(n) => 3 + usize::from(n.min(2)),
        Tap::RpRx(n) => 6 + usize::from(n.min(1)),
        Tap::RpTx(n) => 8 + usize::from(n.min(1)),
        Tap::Translate(n) => 10 + usize::from(n.min(1)),
        Tap::Memory => 12,
    }
}

/// The name of a tap in all results.
#[must_use]
pub fn tap_name(tap: Tap) -> &'static str {
    TAPS[tap_index(tap)]
}

/// The kind of a TLP.
#[must_use]
pub fn kind(h: &Head) -> &'static str {
    match (h.class(), h.has_data()) {
        (Class::Completion, true) => "CplD",
        (Class::Completion, false) => "Cpl",
        _ if h.is_mem() && h.has_data() => "MWr",
        _ if h.is_mem() => "MRd",
        _ if h.is_cfg() && h.has_data() => "CfgWr",
        _ if h.is_cfg() => "CfgRd",
        _ if h.is_msg() => "Msg",
        _ => "other",
    }
}

fn at(h: &Head) -> Option<&'static str> {
    match h.at() {
        AddressType::Untranslated => Some("untranslated"),
        AddressType::TranslationRequest => Some("request"),
        AddressType::Translated => Some("translated"),
        AddressType::Reserved => Some("reserved"),
    }
}

fn status_name(s: CplStatus) -> &'static str {
    match s {
        CplStatus::Success => "SC",
        CplStatus::UnsupportedRequest => "UR",
        CplStatus::Retry => "RRS",
        CplStatus::CompleterAbort => "CA",
        CplStatus::Reserved(_) => "reserved",
    }
}

/// What a row says beside the header.
#[derive(Clone, Copy, Default)]
pub struct Extra {
    /// Address, where the header's is not the one at this tap.
    pub address: Option<u64>,
    /// Resolved attributes.
    pub attr: Option<MemAttr>,
    /// Translation status.
    pub status: Option<&'static str>,
}

/// Rows of TLPs, and the capture if one is asked for.
pub struct Sink {
    tlps: TlpWriter,
    capture: Option<pcapng::Writer<BufWriter<File>>>,
    /// Added to the TLP numbers and cycles of the machine at work.
    base: (u64, u64),
    last: (u64, u64),
    error: Option<report::Error>,
    /// Reads under way at the memory port, for the latency plot: cycle by port tag.
    issued: [u64; 256],
}

/// A sink that the checkers of successive machines share.
pub type SharedSink = Rc<RefCell<Sink>>;

impl Sink {
    /// Opens `tlps.csv` and, with `capture`, `trace.pcapng` in a result directory.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn create(dir: &ResultDir, capture: bool) -> Result<SharedSink, report::Error> {
        let capture = if capture {
            let path = dir.partial().join("trace.pcapng");
            let io = |source| report::Error::Io {
                path: path.clone(),
                source,
            };
            let file = BufWriter::new(File::create(&path).map_err(io)?);
            Some(pcapng::Writer::new(file, &TAPS).map_err(io)?)
        } else {
            None
        };
        Ok(Rc::new(RefCell::new(Self {
            tlps: dir.tlps()?,
            capture,
            base: (0, 0),
            last: (0, 0),
            error: None,
            issued: [0; 256],
        })))
    }

    /// The next machine starts: its numbers follow those of the one before.
    pub fn next_machine(&mut self) {
        self.base = self.last;
    }

    /// Writes a row. A failure is kept and ends the job.
    pub fn row(
        &mut self,
        tap: Tap,
        (tlp, cycle): (u64, u64),
        h: &Head,
        payload: &[u8],
        extra: &Extra,
        ok: bool,
    ) {
        if self.error.is_some() {
            return;
        }
        let (tlp, cycle) = (tlp + self.base.0, cycle + self.base.1);
        self.last = (self.last.0.max(tlp), self.last.1.max(cycle));
        let cpl = h.is_cpl();
        let length = if cpl {
            if h.has_data() {
                u32::from(h.len_dw()) * 4
            } else {
                0
            }
        } else if h.is_mem() {
            h.byte_span().1 as u32
        } else {
            u32::from(h.len_dw()) * 4
        };
        let row = TlpRow {
            tlp,
            cycle,
            tap: tap_name(tap),
            kind: kind(h),
            requester: h.requester(),
            completer: cpl.then(|| h.completer()),
            tag: Some(h.tag()),
            tc: h.tc(),
            at: if cpl || !h.is_mem() { None } else { at(h) },
            pasid: h.pasid().map(|p| p.pasid),
            address: extra.address.or_else(|| {
                if cpl {
                    None
                } else if h.is_cfg() {
                    Some(u64::from(h.target().0) << 12 | u64::from(h.register()))
                } else {
                    Some(h.addr().0 + h.byte_span().0)
                }
            }),
            length,
            ro: h.relaxed(),
            ido: h.ido(),
            ns: h.no_snoop(),
            mem_type: extra.attr.map(|a| a.mem_type.name()),
            snoop: extra.attr.map(|a| a.snoop),
            strong_order: extra.attr.map(|a| a.strong_order),
            status: extra
                .status
                .or_else(|| cpl.then(|| status_name(h.status()))),
            verdict: if ok { "ok" } else { "violation" },
        };
        if let Err(e) = self.tlps.push(&row) {
            self.error = Some(e);
        }
        if let Some(c) = &mut self.capture
            && let Err(source) = c.tlp(tap_index(tap) as u32, cycle, h, payload)
        {
            self.error = Some(report::Error::Io {
                path: "trace.pcapng".into(),
                source,
            });
        }
    }

    /// A read left for memory with this port tag.
    pub fn read_issued(&mut self, port_tag: u8, cycle: u64) {
        self.issued[usize::from(port_tag)] = cycle;
    }

    /// The last data of the read came.
    pub fn read_done(&mut self, port_tag: u8, cycle: u64) {
        let latency = cycle.saturating_sub(self.issued[usize::from(port_tag)]);
        self.tlps.stats_mut().latency("memory read", latency);
    }

    /// A TLP waited this long in the translation stage.
    pub fn translation(&mut self, cycles: u64) {
        self.tlps.stats_mut().latency("translation", cycles);
    }

    /// Whether writing failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.error.is_some()
    }

    /// Ends the capture and hands the rows on.
    ///
    /// # Errors
    /// The first failure to write.
    pub fn finish(self) -> Result<TlpWriter, report::Error> {
        if let Some(e) = self.error {
            return Err(e);
        }
        if let Some(c) = self.capture {
            c.finish().map_err(|source| report::Error::Io {
                path: "trace.pcapng".into(),
                source,
            })?;
        }
        Ok(self.tlps)
    }
}

/// What the machines of a job add up to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Checked and failed, by judge, rule and tap.
    pub checks: BTreeMap<(String, String, String), (u64, u64)>,
    /// Violations, as many as are kept.
    pub violations: Vec<ViolationRow>,
    /// All violations.
    pub failed: u64,
    /// TLPs.
    pub tlps: u64,
    /// TLPs at taps.
    pub rows: u64,
    /// Clock cycles.
    pub cycles: u64,
    /// Mapping calls.
    pub map_calls: u64,
}

impl Tally {
    /// Counts a rule.
    pub fn check(&mut self, judge: &str, rule: &str, tap: &str, checked: u64, failed: u64) {
        let key = (judge.to_owned(), rule.to_owned(), tap.to_owned());
        let c = self.checks.entry(key).or_default();
        c.0 += checked;
        c.1 += failed;
    }

    /// Rows of `checks.csv`.
    #[must_use]
    pub fn rows(&self) -> Vec<Check> {
        self.checks
            .iter()
            .map(|((judge, rule, tap), (checked, failed))| Check {
                rule: rule.clone(),
                judge: judge.clone(),
                tap: tap.clone(),
                checked: *checked,
                failed: *failed,
            })
            .collect()
    }
}
