//! Where TLPs go in the switch as [`Bench::enumerated`] sets it up, and in which order.

use std::collections::VecDeque;

use tlproof_pcie::{CplStatus, Head};

use crate::bench::*;
use crate::common::{COMPLETION, Checked, NON_POSTED, POSTED, Tlp};

/// TLPs in the order they are due, each with the number of posted TLPs that went before it between
/// the same ports.
pub type Due = VecDeque<(u64, Tlp)>;

/// Where TLPs go in the switch as [`Bench::enumerated`] sets it up, and what is on the way.
pub struct Fabric {
    /// ACS control and egress control vector of the downstream ports.
    acs: [(u32, u32); 2],
    /// At each port from each port in each class.
    due: [[[Due; 3]; 3]; 3],
    sent_posted: [[u64; 3]; 3],
    seen_posted: [[u64; 3]; 3],
}

impl Fabric {
    pub fn new(acs: [(u32, u32); 2]) -> Self {
        Self {
            acs,
            due: Default::default(),
            sent_posted: Default::default(),
            seen_posted: Default::default(),
        }
    }

    /// The port whose windows or bus hold the target.
    pub fn target(head: &Head) -> Option<usize> {
        if head.is_mem() {
            let block = head.addr().0 & !0xf_ffff;
            (0..2)
                .find(|&n| block == MEM[n] || block == PREFETCH[n])
                .map(|n| DN[n])
        } else {
            let bus = if head.is_cpl() {
                head.requester()
            } else {
                head.target()
            }
            .bus();
            (0..2).find(|&n| bus == BELOW[n].bus()).map(|n| DN[n])
        }
    }

    /// The port that a TLP leaves by, or the status of a request that the switch keeps.
    pub fn route(&self, from: usize, head: &Head) -> Result<usize, CplStatus> {
        const NOBODYS: CplStatus = CplStatus::UnsupportedRequest;
        const VIOLATION: CplStatus = CplStatus::CompleterAbort;
        let target = Self::target(head);
        if from == UP {
            return target.ok_or(NOBODYS);
        }
        let (acs, vector) = self.acs[from - 1];
        if !head.is_cpl() && acs & SV != 0 && head.requester().bus() != BELOW[from - 1].bus() {
            return Err(VIOLATION);
        }
        match target {
            None if head.is_mem() && head.addr().0 & !0xf_ffff == MEM[2] => Err(NOBODYS),
            None => Ok(UP),
            Some(to) if to == from => (acs & UF != 0).then_some(UP).ok_or(NOBODYS),
            Some(_) if head.is_cpl() && acs & CR != 0 && !head.relaxed() => Ok(UP),
            Some(to) if head.is_cpl() => Ok(to),
            Some(to) => {
                let marked = vector >> (to - 1) & 1 != 0;
                match (acs & RR != 0, acs & EC != 0) {
                    (false, true) if marked => Err(VIOLATION),
                    (true, false) => Ok(UP),
                    (true, true) if marked => Ok(UP),
                    _ => Ok(to),
                }
            }
        }
    }

    /// Notes a TLP that is being sent.
    pub fn send(&mut self, from: usize, tlp: &Tlp) {
        match self.route(from, &tlp.head) {
            Ok(to) => {
                let mut due = tlp.clone();
                if due.head.is_cfg() {
                    due.head.hdr[0] &= !(1 << 24);
                }
                let class = tlp.class();
                self.due[to][from][class].push_back((self.sent_posted[to][from], due));
                self.sent_posted[to][from] += u64::from(class == POSTED);
            }
            Err(status) if tlp.class() == NON_POSTED => {
                // Its order among the completions from elsewhere is free: a queue of its own.
                self.due[from][from][COMPLETION].push_back((0, refusal(from, &tlp.head, status)));
            }
            Err(_) => {}
        }
    }

    /// A TLP that came out of `port`. Each is marked with where it is from.
    pub fn receive(&mut self, port: usize, tlp: &Tlp) -> Checked {
        let class = tlp.class();
        let matches = |q: &Due| q.front().is_some_and(|(_, due)| due == tlp);
        let from = (0..3)
            .find(|&s| matches(&self.due[port][s][class]))
            .ok_or_else(|| format!("port {port}: {tlp:x?} is not next from anywhere"))?;
        let Some((before, _)) = self.due[port][from][class].pop_front() else {
            return Ok(());
        };
        ensure!(
            self.seen_posted[port][from] >= before,
            "port {port}: {:x?} passed a posted TLP from {from}",
            tlp.head
        );
        self.seen_posted[port][from] += u64::from(class == POSTED);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.due.iter().flatten().flatten().all(VecDeque::is_empty)
    }
}
