//! How peers reach each other.

use super::*;
use crate::testing::bench::*;

/// A6: how peers reach each other.
#[test]
fn p2p_table() {
    const LISTED: u32 = 0x0001_1ae0;
    const SAME_ONLY: u32 = 0x3c00_8086;
    const OTHER: u32 = 0x0001_1b36;
    let (own, near, far) = (Bdf::new(3, 0, 0), Bdf::new(4, 0, 0), Bdf::new(5, 0, 0));
    let (dsp, usp_root) = (Bdf::new(2, 1, 0), Bdf::new(0, 2, 0));
    use HostBridgePolicy::{AllowList, Any};
    use MapType::{BusAddr, NotSupported, ThruHostBridge};
    for (id, client, acs, bridge, policy, want, distance) in [
        ("A6.1", own, None, OTHER, AllowList, BusAddr, 0),
        ("A6.2", near, None, OTHER, AllowList, BusAddr, 4),
        (
            "A6.3",
            near,
            Some((dsp, 0x04)),
            LISTED,
            AllowList,
            ThruHostBridge,
            4,
        ),
        (
            "A6.3",
            near,
            Some((dsp, 0x08)),
            LISTED,
            AllowList,
            ThruHostBridge,
            4,
        ),
        (
            "A6.3",
            near,
            Some((dsp, 0x20)),
            LISTED,
            AllowList,
            ThruHostBridge,
            4,
        ),
        (
            "A6.4",
            near,
            Some((dsp, 0x04)),
            OTHER,
            AllowList,
            NotSupported,
            4,
        ),
        ("A6.6", far, None, SAME_ONLY, AllowList, ThruHostBridge, 6),
        ("A6.9", far, None, OTHER, Any, ThruHostBridge, 6),
        ("A6.11", far, None, OTHER, AllowList, NotSupported, 6),
        (
            "A6.12",
            near,
            Some((dsp, 0x53)),
            OTHER,
            AllowList,
            BusAddr,
            4,
        ),
        (
            "above",
            near,
            Some((usp_root, 0x04)),
            OTHER,
            AllowList,
            BusAddr,
            4,
        ),
    ] {
        let mut b = Bench::new(Config::default(), device(), Attach::Direct);
        topology(&mut b.m, bridge);
        if let Some((port, control)) = acs {
            b.m.set_acs(port, control);
        }
        b.dma.p2pdma.policy = policy;
        let p = b.dma.p2pdma.add(peer(true));
        let reach = b.dma.p2pdma.distance(&mut b.m, p, client).unwrap();
        assert_eq!((reach.map, reach.distance), (want, distance), "{id}");
        // The type is kept until the distance is asked for again.
        b.m.set_acs(dsp, 0x04);
        assert_eq!(b.dma.p2pdma.map_type(&mut b.m, p, client), want, "{id}");
    }
    // A6.5: redirect on the common upstream port only.
    let mut m = FakeMachine::default();
    topology(&mut m, LISTED);
    m.add_bridge(Bdf::new(1, 0, 0), 0x1234_1234, 5, (2, 4), Some(0x04));
    let mut p2p = crate::p2pdma::P2pdma::default();
    let p = p2p.add(peer(true));
    assert_eq!(p2p.map_type(&mut m, p, near), ThruHostBridge);
    // A6.7, A6.8: two host bridges.
    for (bridge, want) in [(SAME_ONLY, NotSupported), (0x2030_8086, ThruHostBridge)] {
        let mut m = FakeMachine::default();
        topology(&mut m, bridge);
        m.add_bridge(Bdf::new(0x80, 0, 0), bridge, 4, (0x81, 0x81), None);
        m.add_function(Bdf::new(0x81, 0, 0), 0x1234_1234, None);
        let mut p2p = crate::p2pdma::P2pdma::default();
        p2p.root_buses.push(0x80);
        let p = p2p.add(peer(true));
        assert_eq!(p2p.map_type(&mut m, p, Bdf::new(0x81, 0, 0)), want);
    }
    // The first device of the root bus is neither 00.0 nor a root port.
    let mut m = FakeMachine::default();
    topology(&mut m, LISTED);
    m.add_function(Bdf::new(0, 1, 0), LISTED, None);
    let mut p2p = crate::p2pdma::P2pdma::default();
    let p = p2p.add(peer(true));
    assert_eq!(p2p.map_type(&mut m, p, far), NotSupported);
}
