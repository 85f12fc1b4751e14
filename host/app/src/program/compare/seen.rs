//! How a TLP looks, without what two runs need not have in common: addresses, tags, cycles.

use serde::Serialize;
use tlproof_golden::Tap;
use tlproof_pcie::{Head, PhysAddr};

use super::super::world::{POOL, World};
use crate::{
    checker::Watched,
    output::{kind, tap_name},
    testbench::Testbench,
};

/// A kind of TLP of an endpoint at a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Seen {
    /// Where.
    pub tap: &'static str,
    /// `MRd`, `MWr`, `Cpl`, `CplD`.
    pub kind: &'static str,
    /// What the address is.
    pub address: Option<&'static str>,
    /// Resolved memory type.
    pub memory_type: Option<&'static str>,
    /// Whether it snoops the CPU caches.
    pub snoop: Option<bool>,
    /// Whether it is strongly ordered.
    pub strong_order: Option<bool>,
    /// Status of a translation or of a completion.
    pub status: Option<&'static str>,
}

impl Seen {
    /// `None` for what does not come from an endpoint's request.
    pub(super) fn new(t: &Watched, bench: &Testbench, world: &World) -> Option<Self> {
        let endpoint = bench
            .functions
            .iter()
            .any(|f| f.engine.bdf == t.head.requester());
        let completion = t.head.is_cpl();
        if !endpoint || !(completion || t.head.is_mem()) {
            return None;
        }
        Some(Self {
            tap: tap_name(t.tap),
            kind: kind(&t.head),
            address: (!completion)
                .then(|| class(t, bench, world))
                .filter(|_| t.status.is_none_or(|s| s == "OK")),
            memory_type: t.attr.map(|a| a.mem_type.name()),
            snoop: t.attr.map(|a| a.snoop),
            strong_order: t.attr.map(|a| a.strong_order),
            status: if completion {
                Some(completion_status(&t.head))
            } else {
                t.status
            },
        })
    }

    pub(super) fn is_completion(&self) -> bool {
        self.kind.starts_with("Cpl")
    }
}

const fn completion_status(head: &Head) -> &'static str {
    use tlproof_pcie::CplStatus;
    match head.status() {
        CplStatus::Success => "SC",
        CplStatus::UnsupportedRequest => "UR",
        CplStatus::CompleterAbort => "CA",
        _ => "other",
    }
}

/// What an address is at its tap.
fn class(t: &Watched, bench: &Testbench, world: &World) -> &'static str {
    let map = &bench.sim.options().map;
    let bus = t.head.addr();
    let phys = match t.tap {
        Tap::Translate(_) => PhysAddr(t.address.unwrap_or(bus.0)),
        Tap::Memory => PhysAddr(bus.0),
        // Below the bridge, what is in its window is a peer; anything else of a translated device
        // is an IOVA.
        _ if map.aperture.contains(map.to_phys(bus), 1) => return "peer's bus address",
        _ if world.is_translated(bench, t.head.requester()) => return "IOVA",
        _ => PhysAddr(bus.0),
    };
    if world.swiotlb.is_some() && POOL.contains(phys, 1) {
        "bounce slot"
    } else if map.is_dram(phys, 1) {
        "main memory"
    } else if map.aperture.contains(phys, 1) {
        "peer"
    } else {
        "nothing"
    }
}
