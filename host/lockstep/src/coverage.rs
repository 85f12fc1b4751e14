//! Functional coverage: which situations a campaign has seen, and which it could.

use std::collections::BTreeMap;

use tlproof_golden::iommu::{
    AtsMessage, Capabilities, Choices, Command, FaultRecord, Outcome, PageRequest, Request,
    Response, Scope,
};

/// A bin: its group, and what in it.
pub type Bin = (&'static str, String);

/// Counts of bins.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<Bin, u64>,
}

/// Names of transaction types, by their encodings in a fault record.
const fn ttyp_name(ttyp: u8) -> &'static str {
    match ttyp {
        0 => "none",
        1 => "untranslated execute",
        2 => "untranslated read",
        3 => "untranslated write",
        5 => "translated execute",
        6 => "translated read",
        7 => "translated write",
        8 => "ATS translation",
        9 => "message",
        _ => "?",
    }
}

const UNTRANSLATED: [u8; 3] = [1, 2, 3];
const TRANSLATED: [u8; 3] = [5, 6, 7];
/// The causes of an access by execute, read and write.
const ACCESS_FAULT: [u16; 3] = [1, 5, 7];
const PAGE_FAULT: [u16; 3] = [12, 13, 15];
const GUEST_PAGE_FAULT: [u16; 3] = [20, 21, 23];

impl Coverage {
    /// Every bin that an IOMMU with these capabilities can reach, at 0. `docs/iommu-lockstep.md` lists
    /// those that it cannot, with the reasons.
    #[must_use]
    pub fn new(caps: &Capabilities, choices: &Choices) -> Self {
        let mut coverage = Self::default();
        coverage.expect_causes(caps);
        coverage.expect_sizes(caps, choices);
        coverage.expect_memory_types(caps);
        coverage.expect_commands(caps);
        if caps.ats {
            for code in ["success", "invalid request", "failure", "none"] {
                coverage.expect("page request answered with", code);
            }
            for bits in ["", "read", "write", "read write"] {
                coverage.expect("ATS completion grants", bits);
            }
            coverage.expect("ATS completion grants", "read execute");
            coverage.expect("ATS completion grants", "read write execute");
            for flag in ["global", "privileged", "untranslated only", "guest address"] {
                if flag != "guest address" || caps.t2gpa {
                    coverage.expect("ATS completion has", flag);
                }
            }
            // W without R is a reserved encoding of a PTE.
            coverage
                .counts
                .remove(&("ATS completion grants", "write".to_owned()));
        }
        coverage
    }

    fn expect(&mut self, group: &'static str, bin: impl Into<String>) {
        self.counts.insert((group, bin.into()), 0);
    }

    fn hit(&mut self, group: &'static str, bin: impl Into<String>) {
        *self.counts.entry((group, bin.into())).or_default() += 1;
    }

    /// All bins with their counts.
    pub fn bins(&self) -> impl Iterator<Item = (&Bin, u64)> {
        self.counts.iter().map(|(bin, count)| (bin, *count))
    }

    /// Bins that could have been reached and were not.
    pub fn missing(&self) -> impl Iterator<Item = &Bin> {
        self.bins()
            .filter(|(_, count)| *count == 0)
            .map(|(bin, _)| bin)
    }

    /// Adds the counts of another campaign.
    pub fn add(&mut self, other: &Self) {
        for (bin, count) in &other.counts {
            *self.counts.entry(bin.clone()).or_default() += count;
        }
    }

    fn expect_cause(&mut self, cause: u16, ttyps: &[u8]) {
        for ttyp in ttyps {
            self.expect(
                "cause by transaction type",
                format!("{cause}, {}", ttyp_name(*ttyp)),
            );
        }
    }

    fn expect_causes(&mut self, caps: &Capabilities) {
        let ats: &[u8] = if caps.ats { &[8] } else { &[] };
        let all = [&UNTRANSLATED[..], &TRANSLATED[..], ats].concat();
        for cause in 256..=260 {
            self.expect_cause(cause, &all);
        }
        self.expect_cause(268, &all);
        let processes = caps.pd8 || caps.pd17 || caps.pd20;
        let untranslated = [&UNTRANSLATED[..], ats].concat();
        // With T2GPA a translated request has a guest address, which the second stage and the MSI page
        // table translate.
        let guest = caps.t2gpa && caps.second_stage();
        let second = if guest {
            all.clone()
        } else {
            untranslated.clone()
        };
        self.expect_cause(274, &second);
        for (i, (&u, &t)) in UNTRANSLATED.iter().zip(&TRANSLATED).enumerate() {
            self.expect_cause(ACCESS_FAULT[i], &[u]);
            self.expect_cause(PAGE_FAULT[i], &[u]);
            if guest {
                self.expect_cause(ACCESS_FAULT[i], &[t]);
            }
            if caps.second_stage() {
                self.expect_cause(GUEST_PAGE_FAULT[i], &[u]);
                if guest {
                    self.expect_cause(GUEST_PAGE_FAULT[i], &[t]);
                }
            }
        }
        self.expect_cause(5, ats);
        if caps.msi_flat {
            for cause in [261, 263, 270] {
                self.expect_cause(cause, &second);
            }
            let requests: Vec<u8> = second.iter().copied().filter(|t| *t != 8).collect();
            self.expect_cause(262, &requests);
            if caps.msi_mrif {
                self.expect_cause(264, &[3]);
                self.expect_cause(271, &[3]);
                self.expect_cause(273, &[0]);
            }
        }
        if processes {
            for cause in [265, 267, 269] {
                self.expect_cause(cause, &untranslated);
            }
            self.expect_cause(266, &UNTRANSLATED);
        }
        if caps.ats {
            for cause in 256..=260 {
                self.expect_cause(cause, &[9]);
            }
            self.expect_cause(268, &[9]);
            let mut denied = vec![13];
            if caps.second_stage() {
                denied.push(21);
            }
            if caps.msi_flat {
                denied.push(262);
            }
            if processes {
                denied.push(266);
            }
            for cause in denied {
                self.expect("ATS request denied by", cause.to_string());
            }
        }
    }

    fn expect_sizes(&mut self, caps: &Capabilities, choices: &Choices) {
        let mut first = vec!["bare".to_owned()];
        let wide = [
            (12, caps.sv39),
            (16, caps.sv39),
            (21, caps.sv39),
            (30, caps.sv39),
        ]
        .into_iter()
        .chain([(39, caps.sv48), (48, caps.sv57)]);
        first.extend(wide.filter(|s| s.1).map(|s| s.0.to_string()));
        let wide = [
            (12, caps.sv39x4),
            (16, caps.sv39x4),
            (21, caps.sv39x4),
            (30, caps.sv39x4),
            (39, caps.sv48x4),
            (48, caps.sv57x4),
        ];
        let mut second = vec!["bare".to_owned()];
        second.extend(wide.iter().filter(|s| s.1).map(|s| s.0.to_string()));
        for a in &first {
            for b in &second {
                self.expect_size(a, b);
            }
        }
        if caps.sv32 && choices.gxl_writable {
            for a in ["12", "22"] {
                for b in &second {
                    self.expect_size(a, b);
                }
                if caps.sv32x4 {
                    for b in ["12", "22"] {
                        self.expect_size(a, b);
                    }
                }
            }
        }
        if caps.sv32x4 && choices.gxl_writable {
            for b in ["12", "22"] {
                self.expect_size("bare", b);
            }
        }
    }

    fn expect_size(&mut self, first: &str, second: &str) {
        self.expect("page sizes of both stages", format!("{first} on {second}"));
    }

    fn expect_memory_types(&mut self, caps: &Capabilities) {
        let types: &[u64] = if caps.svpbmt { &[0, 1, 2] } else { &[0] };
        for a in types {
            self.expect("memory types of both stages", format!("{a} on bare"));
            if caps.second_stage() {
                self.expect("memory types of both stages", format!("bare on {a}"));
                for b in types {
                    self.expect("memory types of both stages", format!("{a} on {b}"));
                }
            }
        }
    }

    fn expect_commands(&mut self, caps: &Capabilities) {
        let group = "command";
        let flags = |names: &[(&'static str, bool)]| {
            let names: Vec<&str> = names.iter().filter(|n| n.1).map(|n| n.0).collect();
            (0..1usize << names.len())
                .map(|set| {
                    let set = names.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
                    set.map(|(_, name)| format!(" {name}")).collect::<String>()
                })
                .collect::<Vec<String>>()
        };
        for set in flags(&[("GV", true), ("PSCV", true), ("AV", true)]) {
            self.expect(group, format!("IOTINVAL.VMA{set}"));
        }
        for set in flags(&[("NL", caps.nl)]) {
            self.expect(group, format!("IOTINVAL.VMA with address{set}"));
        }
        if caps.second_stage() || caps.msi_flat {
            for set in ["", " GV", " GV AV"] {
                self.expect(group, format!("IOTINVAL.GVMA{set}"));
            }
            for set in flags(&[("NL", caps.nl)]) {
                self.expect(group, format!("IOTINVAL.GVMA with address{set}"));
            }
        }
        if caps.s {
            self.expect(group, "IOTINVAL.VMA range");
            self.expect(group, "IOTINVAL.GVMA range");
        }
        for set in flags(&[("AV", true), ("PR", true), ("PW", true)]) {
            self.expect(group, format!("IOFENCE.C{set}"));
        }
        if caps.igs != 0 {
            self.expect(group, "IOFENCE.C WSI");
        }
        self.expect(group, "IODIR.INVAL_DDT");
        self.expect(group, "IODIR.INVAL_DDT DV");
        if caps.pd8 || caps.pd17 || caps.pd20 {
            self.expect(group, "IODIR.INVAL_PDT");
        }
        if caps.ats {
            for set in flags(&[("PV", true), ("DSV", true)]) {
                self.expect(group, format!("ATS.INVAL{set}"));
                self.expect(group, format!("ATS.PRGR{set}"));
            }
        }
        self.expect(group, "illegal");
    }

    /// A request and what became of it.
    pub fn request(&mut self, request: &Request, response: &Response, guest_address: bool) {
        match &response.outcome {
            Outcome::Fault(fault) => self.cause(fault.cause(), request.ttyp as u8),
            Outcome::Completion(c) => {
                if let Some(cause) = c.denied {
                    self.hit("ATS request denied by", cause.to_string());
                }
                let p = c.permissions;
                let bits = [(p.read, "read"), (p.write, "write"), (p.execute, "execute")];
                let bits: Vec<&str> = bits.iter().filter(|b| b.0).map(|b| b.1).collect();
                self.hit("ATS completion grants", bits.join(" "));
                for (flag, name) in [
                    (c.global, "global"),
                    (c.privileged, "privileged"),
                    (c.untranslated_only, "untranslated only"),
                    (guest_address && c.denied.is_none(), "guest address"),
                ] {
                    if flag {
                        self.hit("ATS completion has", name);
                    }
                }
            }
            Outcome::Ok(t) => {
                if t.is_msi || request.ttyp.is_translated() && response.second_leaf.is_none() {
                    return;
                }
                self.leaves(response);
            }
        }
    }

    fn leaves(&mut self, response: &Response) {
        let (first, second) = (response.first_leaf, response.second_leaf);
        let size = |leaf: Option<tlproof_golden::iommu::StageLeaf>| {
            leaf.map_or("bare".to_owned(), |l| l.size_log2.to_string())
        };
        let sizes = format!("{} on {}", size(first), size(second));
        self.hit("page sizes of both stages", sizes);
        if first.is_some() || second.is_some() {
            let pbmt = |leaf: Option<tlproof_golden::iommu::StageLeaf>| {
                leaf.map_or("bare".to_owned(), |l| l.pbmt.to_string())
            };
            let types = format!("{} on {}", pbmt(first), pbmt(second));
            self.hit("memory types of both stages", types);
        }
    }

    fn cause(&mut self, cause: u16, ttyp: u8) {
        let bin = format!("{cause}, {}", ttyp_name(ttyp));
        self.hit("cause by transaction type", bin);
    }

    /// A record of a fault that was no answer to a request.
    pub fn record(&mut self, record: &FaultRecord) {
        if matches!(record.ttyp, 0 | 9) || matches!(record.cause, 264 | 271) {
            self.cause(record.cause, record.ttyp);
        }
    }

    /// A page request and the messages that it caused.
    pub fn page_request(&mut self, _: &PageRequest, sent: &[AtsMessage]) {
        let code = sent.iter().find_map(|m| match m {
            AtsMessage::GroupResponse { code, .. } => Some(*code),
            AtsMessage::Invalidate { .. } => None,
        });
        let name = match code {
            Some(0) => "success",
            Some(1) => "invalid request",
            Some(_) => "failure",
            None => "none",
        };
        self.hit("page request answered with", name);
    }

    /// A command that was executed, from its words.
    pub fn command(&mut self, command: &Command, words: [u64; 2]) {
        let group = "command";
        let bit = |word: usize, n: u32| words[word] >> n & 1 == 1;
        let set = |flags: &[(&str, bool)]| {
            let flags = flags.iter().filter(|f| f.1);
            flags.map(|f| format!(" {}", f.0)).collect::<String>()
        };
        let address = bit(0, 10);
        match command {
            Command::Invalidate(Scope::FirstStage { .. }) => {
                let flags = [("GV", bit(0, 33)), ("PSCV", bit(0, 32)), ("AV", address)];
                self.hit(group, format!("IOTINVAL.VMA{}", set(&flags)));
                if address {
                    let nl = set(&[("NL", bit(0, 34))]);
                    self.hit(group, format!("IOTINVAL.VMA with address{nl}"));
                    if bit(1, 9) {
                        self.hit(group, "IOTINVAL.VMA range");
                    }
                }
            }
            Command::Invalidate(Scope::SecondStage { .. }) => {
                let guest = bit(0, 33);
                let flags = [("GV", guest), ("AV", guest && address)];
                self.hit(group, format!("IOTINVAL.GVMA{}", set(&flags)));
                if guest && address {
                    let nl = set(&[("NL", bit(0, 34))]);
                    self.hit(group, format!("IOTINVAL.GVMA with address{nl}"));
                    if bit(1, 9) {
                        self.hit(group, "IOTINVAL.GVMA range");
                    }
                }
            }
            Command::Invalidate(Scope::Directory(device)) => {
                let dv = set(&[("DV", device.is_some())]);
                self.hit(group, format!("IODIR.INVAL_DDT{dv}"));
            }
            Command::Invalidate(Scope::Process { .. }) => self.hit(group, "IODIR.INVAL_PDT"),
            Command::Fence { interrupt, .. } => {
                let flags = [("AV", address), ("PR", bit(0, 12)), ("PW", bit(0, 13))];
                self.hit(group, format!("IOFENCE.C{}", set(&flags)));
                if *interrupt {
                    self.hit(group, "IOFENCE.C WSI");
                }
            }
            Command::AtsInvalidate(t) => {
                let flags = [("PV", t.process_id.is_some()), ("DSV", t.segment.is_some())];
                self.hit(group, format!("ATS.INVAL{}", set(&flags)));
            }
            Command::AtsGroupResponse(t) => {
                let flags = [("PV", t.process_id.is_some()), ("DSV", t.segment.is_some())];
                self.hit(group, format!("ATS.PRGR{}", set(&flags)));
            }
            Command::Illegal => self.hit(group, "illegal"),
        }
    }
}
