//! What a run found wrong, and how much it looked at.

use std::fmt;

use serde::Serialize;
use tlproof_pcie::Head;

/// A place at which a TLP is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Tap {
    /// Leaving an endpoint.
    EpTx(u8),
    /// Arriving at an endpoint.
    EpRx(u8),
    /// Entering a root port from below.
    RpRx(u8),
    /// Leaving a root port downwards.
    RpTx(u8),
    /// Leaving the translation stage; the root port that it came in by.
    Translate(u8),
    /// The memory port.
    Memory,
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EpTx(n) => write!(f, "ep{n}.tx"),
            Self::EpRx(n) => write!(f, "ep{n}.rx"),
            Self::RpRx(n) => write!(f, "rp{n}.rx"),
            Self::RpTx(n) => write!(f, "rp{n}.tx"),
            Self::Translate(n) => write!(f, "rp{n}.translate"),
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// Number of a TLP in order of first sight; the same at every tap it passes. 0: not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct TlpId(pub u64);

/// Who found the violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Judge {
    /// What a mapping call promised.
    Promise,
    /// What the tables in memory and the attribute rule demand.
    Architecture,
    /// What PCI Express demands of ports, switches and completers.
    Fabric,
}

impl Judge {
    /// The name that reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promise => "promise",
            Self::Architecture => "architecture",
            Self::Fabric => "fabric",
        }
    }
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Clock cycle.
    pub cycle: u64,
    /// Who found it.
    pub judge: Judge,
    /// The rule.
    pub rule: Rule,
    /// Where.
    pub tap: Tap,
    /// The TLP.
    pub tlp: TlpId,
    /// Its header as seen there.
    pub head: Head,
    /// The field that differs.
    pub field: &'static str,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub got: String,
    /// The paragraph that demands it.
    pub clause: String,
    /// The mapping call that made the promise, when one is concerned.
    pub call: Option<String>,
    /// The TLP where it is wrong, its earlier taps, and the events around it; each oldest first.
    pub story: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cycle {}: {} judge, TLP {} at {}: {}: expected {}, got {} ({})",
            self.cycle,
            self.judge.name(),
            self.tlp.0,
            self.tap,
            self.field,
            self.expected,
            self.got,
            self.clause
        )?;
        if let Some(call) = &self.call {
            write!(f, "; promised by {call}")?;
        }
        Ok(())
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident => $judge:ident $name:literal,)*) => {
        /// A rule that is checked; [`Stats::count`] says how often.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        pub enum Rule {
            $($(#[$doc])* $variant,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name that reports use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The judge that checks it.
            #[must_use]
            pub const fn judge(self) -> Judge {
                match self {
                    $(Self::$variant => Judge::$judge,)*
                }
            }
        }
    };
}

rules! {
    /// A device's request lies inside a live promise of its direction, or a declared probe.
    PromiseRequest => Promise "promise-request",
    /// A request carries the Requester ID of the device that sends it.
    PromiseRequester => Promise "promise-requester",
    /// An access lands on the promised bytes.
    PromiseAddress => Promise "promise-address",
    /// An access has the promised memory type and snoops as promised.
    PromiseMemoryType => Promise "promise-memory-type",
    /// An access arrives before the promise has ended.
    PromiseState => Promise "promise-state",
    /// An access takes the promised way.
    PromiseRoute => Promise "promise-route",
    /// What is promised is not refused.
    PromisePermission => Promise "promise-permission",
    /// What nobody promised is refused.
    PromiseBlocked => Promise "promise-blocked",
    /// The data that arrives is the data that left.
    Payload => Promise "payload",
    /// The answer of the IOMMU.
    Translation => Architecture "iommu-translation",
    /// What is refused is in no cache that an IOMMU may have either.
    Exposure => Architecture "iommu-exposure",
    /// The fault queue.
    FaultRecord => Architecture "iommu-fault-record",
    /// Memory type, snoop and order resolved by the bridge.
    Attributes => Architecture "bridge-attributes",
    /// Destination chosen by the bridge.
    Destination => Architecture "bridge-destination",
    /// Header rules of requests.
    RequestHeader => Fabric "request-header",
    /// A TLP takes the way that routing and ACS give it.
    Route => Fabric "route",
    /// A TLP keeps its header.
    Header => Fabric "header",
    /// TLPs of one source keep their order.
    Order => Fabric "order",
    /// Completions answer what was asked.
    Completion => Fabric "completion",
    /// Everything that was sent has arrived.
    Arrival => Fabric "arrival",
}

/// How often a rule was checked, and how often it did not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Checks.
    pub checked: u64,
    /// Violations.
    pub failed: u64,
}

const RULES: usize = Rule::ALL.len();

/// How much was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// TLPs that were followed.
    pub tlps: u64,
    /// Events seen by kind of tap: EpTx, EpRx, RpRx, RpTx, Translate, Memory.
    pub rows: [u64; 6],
    /// Memory requests of the IOMMU itself.
    pub iommu_requests: u64,
    /// Promises made.
    pub promises: u64,
    /// Probes declared.
    pub rogues: u64,
    /// TLPs of probes.
    pub rogue_tlps: u64,
    /// TLPs of probes that arrived where hardware cannot refuse them, because the granule that
    /// they hit is mapped.
    pub granule_reachable: u64,
    /// Violations, stored or not.
    pub violations: u64,
    counts: [Count; RULES],
}

impl Stats {
    pub(crate) fn check(&mut self, rule: Rule) {
        self.counts[rule as usize].checked += 1;
    }

    pub(crate) fn fail(&mut self, rule: Rule) {
        self.violations += 1;
        self.counts[rule as usize].failed += 1;
    }

    pub(crate) fn row(&mut self, tap: Tap) {
        let at = match tap {
            Tap::EpTx(_) => 0,
            Tap::EpRx(_) => 1,
            Tap::RpRx(_) => 2,
            Tap::RpTx(_) => 3,
            Tap::Translate(_) => 4,
            Tap::Memory => 5,
        };
        self.rows[at] += 1;
    }

    /// Events seen at all taps.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.iter().sum()
    }

    /// Every rule with its counts.
    pub fn rules(&self) -> impl Iterator<Item = (Rule, Count)> {
        let counts = self.counts;
        Rule::ALL.iter().map(move |r| (*r, counts[*r as usize]))
    }

    /// How often a rule was checked.
    #[must_use]
    pub const fn count(&self, rule: Rule) -> u64 {
        self.counts[rule as usize].checked
    }

    /// How often a rule did not hold.
    #[must_use]
    pub const fn failures(&self, rule: Rule) -> u64 {
        self.counts[rule as usize].failed
    }
}
