//! Access Control Services in the whole machine: what they block is answered with Completer Abort
//! (PCIe 6.0 §6.12.4), and the fabric judge agrees.

use tlproof::{
    checker::Checker,
    endpoint::Descriptor,
    testbench::{Setup, Testbench},
};
use tlproof_pcie::{Bdf, BusAddr, CplStatus, DmaAddr, config::ConfigSpace, tree::Acs};

/// The downstream port above endpoint 0 and the root port above endpoint 2.
const DOWNSTREAM: Bdf = Bdf::new(2, 0, 0);
const ROOT_PORT: Bdf = Bdf::new(0, 3, 0);
const ACS_CONTROL: u16 = 0x106;
const EGRESS_VECTOR: u16 = 0x108;
/// Signaled Target Abort of Secondary Status.
const SECONDARY_STATUS: u16 = 0x1e;
const TARGET_ABORT: u32 = 1 << 11;

fn bench() -> Testbench {
    let setup = Setup::default();
    let checker = Checker::new(&setup.machine, true, None, 100);
    Testbench::new(&setup, checker).expect("the machine comes up")
}

/// The status that a probe of endpoint `f` completes with; nothing may be found wrong.
#[track_caller]
fn probe(b: &mut Testbench, f: usize, addr: u64, spoof: Option<Bdf>) -> Option<CplStatus> {
    let requester = spoof.unwrap_or(b.functions[f].engine.bdf);
    let mut d = Descriptor::pattern(1, false, DmaAddr(addr), 64, 7);
    d.spoof = spoof;
    let rogue = b
        .sim
        .checker
        .expect_rogue(requester, BusAddr(addr), 64, false);
    b.functions[f].engine.submit(&mut b.sim, &d).unwrap();
    // Longer than the endpoint's completion timeout.
    let record = (0..1000)
        .find_map(|_| {
            b.sim.run(2_000).expect("no assertion fails");
            b.functions[f].engine.poll(&mut b.sim).unwrap()
        })
        .expect("the transfer ends");
    b.quiesce().expect("the machine comes to rest");
    b.sim.checker.rogue_done(rogue);
    assert!(
        b.sim.checker.violations().is_empty(),
        "{:#?}",
        b.sim.checker.violations()
    );
    record.status
}

/// Signaled Target Abort of a port, cleared afterwards.
fn target_abort(b: &mut Testbench, port: Bdf) -> bool {
    let status = b.sim.config_read(port, SECONDARY_STATUS, 2).unwrap();
    b.sim
        .config_write(port, SECONDARY_STATUS, 2, TARGET_ABORT)
        .unwrap();
    assert_eq!(b.sim.config_read(port, SECONDARY_STATUS, 2), Ok(0));
    status & TARGET_ABORT != 0
}

fn set_acs(b: &mut Testbench, port: Bdf, bits: Acs, vector: u32) {
    b.sim
        .config_write(port, ACS_CONTROL, 2, bits.bits().into())
        .unwrap();
    b.sim.config_write(port, EGRESS_VECTOR, 4, vector).unwrap();
}

#[test]
fn source_validation_at_the_switch_and_at_a_root_port() {
    let mut b = bench();
    let nowhere = 0x1000_0000;
    // The answer names the false requester. At the switch's port it goes back down the link that the
    // request came by; the root port's goes to the requester that it names, which knows nothing of
    // it (PCIe 6.0 §2.3.2), so that the reader waits in vain. The fabric judge demands its status.
    let ways = [
        (0, 1, DOWNSTREAM, Some(CplStatus::CompleterAbort), None),
        (2, 0, ROOT_PORT, None, Some(0)),
    ];
    for (f, other, port, expected, stranger) in ways {
        let spoof = Some(b.functions[other].engine.bdf);
        let stray = |b: &mut Testbench| {
            let engine = &b.functions[stranger.unwrap_or(f)].engine;
            engine.malformed(&mut b.sim).unwrap()
        };
        let before = stray(&mut b);
        assert_eq!(probe(&mut b, f, nowhere, spoof), expected, "endpoint {f}");
        let strays = u32::from(stranger.is_some());
        assert_eq!(stray(&mut b), before + strays, "endpoint {f}");
        assert!(target_abort(&mut b, port), "{port}");
        // With its own ID the request is as wrong, but no violation of ACS.
        let status = probe(&mut b, f, nowhere, None);
        assert_eq!(status, Some(CplStatus::UnsupportedRequest), "endpoint {f}");
        assert!(!target_abort(&mut b, port), "{port}");
    }
}

#[test]
fn egress_control_between_the_ports_of_the_switch() {
    let mut b = bench();
    let map = b.sim.options().map.clone();
    let bars = [0, 1, 2].map(|f| map.to_bus(b.functions[f].engine.memory).0);
    set_acs(&mut b, DOWNSTREAM, Acs::SV | Acs::EC, 1 << 1);
    let status = probe(&mut b, 0, bars[1], None);
    assert_eq!(status, Some(CplStatus::CompleterAbort));
    assert!(target_abort(&mut b, DOWNSTREAM));
    // With Request Redirect the vector redirects: the IOMMU refuses what nobody mapped.
    set_acs(&mut b, DOWNSTREAM, Acs::SV | Acs::EC | Acs::RR, 1 << 1);
    let status = probe(&mut b, 0, bars[1], None);
    assert_eq!(status, Some(CplStatus::UnsupportedRequest));
    assert!(!target_abort(&mut b, DOWNSTREAM));
}
