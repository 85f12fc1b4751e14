//! How peers reach each other: the rows of the classification table on synthetic topologies, and
//! what a provider is.

use tlproof_pcie::{Bdf, BusAddr, PhysAddr, tree::BarKind};

use super::{host_bridge::LIST, *};
use crate::testing::{FakeMachine, bench::topology, memory_bar};

/// The provider, its neighbour below the switch, and a function below the other root port.
const OWN: Bdf = Bdf::new(3, 0, 0);
const NEAR: Bdf = Bdf::new(4, 0, 0);
const FAR: Bdf = Bdf::new(5, 0, 0);
/// The switch's upstream port and the neighbour's downstream port.
const UPSTREAM: Bdf = Bdf::new(1, 0, 0);
const NEAR_PORT: Bdf = Bdf::new(2, 1, 0);
const OWN_PORT: Bdf = Bdf::new(2, 0, 0);

const BAR: u64 = 0x4000_0000;
const SIZE: u64 = 0x10_0000;

const GOOGLE: u32 = 0x0001_1ae0;
const SAME_ONLY: u32 = 0x3c00_8086;
const LISTED: u32 = 0x2030_8086;
const OTHER: u32 = 0x0001_1b36;

fn bar() -> Bar {
    memory_bar(2, BAR, SIZE, BAR - 0x1000_0000)
}

struct Bench {
    m: FakeMachine,
    p2p: P2pdma,
    id: ProviderId,
}

impl Bench {
    /// The topology with these root ports; the BAR of [`OWN`] is provided.
    fn new(root_port: u32) -> Self {
        let mut m = FakeMachine::default();
        topology(&mut m, root_port);
        let mut p2p = P2pdma::default();
        let id = p2p.add_resource(OWN, &[bar()], 2, 0, 0).unwrap();
        Self { m, p2p, id }
    }

    fn acs(mut self, port: Bdf, control: u16) -> Self {
        self.m.set_acs(port, control);
        self
    }

    /// Type, and the distance where it is reached.
    fn reach(&mut self, client: Bdf) -> (MapType, Option<u32>) {
        let distance = self.p2p.distance_many(&mut self.m, OWN, &[Some(client)]);
        (self.p2p.map_type(&mut self.m, self.id, client), distance)
    }
}

use MapType::{BusAddr as Bus, NotSupported, ThruHostBridge};

#[test]
fn a6_1_same_function() {
    assert_eq!(Bench::new(OTHER).reach(OWN), (Bus, Some(0)));
}

#[test]
fn a6_2_same_switch() {
    assert_eq!(Bench::new(OTHER).reach(NEAR), (Bus, Some(4)));
}

#[test]
fn a6_3_redirect_at_the_clients_port() {
    for bit in [0x04, 0x08, 0x20] {
        let mut b = Bench::new(GOOGLE).acs(NEAR_PORT, bit);
        assert_eq!(b.reach(NEAR), (ThruHostBridge, Some(4)), "{bit:#x}");
    }
    // The provider's side counts as much.
    let mut b = Bench::new(GOOGLE).acs(OWN_PORT, 0x04);
    assert_eq!(b.reach(NEAR), (ThruHostBridge, Some(4)));
}

#[test]
fn a6_4_redirect_and_an_unlisted_bridge() {
    let mut b = Bench::new(OTHER).acs(NEAR_PORT, 0x04);
    assert_eq!(b.reach(NEAR), (NotSupported, None));
}

#[test]
fn a6_5_redirect_at_the_common_upstream_port() {
    let mut b = Bench::new(GOOGLE);
    b.m.add_bridge(UPSTREAM, 0x1234_1234, 5, (2, 4), Some(0x04));
    assert_eq!(b.reach(NEAR), (ThruHostBridge, Some(4)));
    // Above the common port nothing is passed.
    let mut b = Bench::new(OTHER).acs(Bdf::new(0, 2, 0), 0x04);
    assert_eq!(b.reach(NEAR), (Bus, Some(4)));
}

#[test]
fn a6_6_root_ports_of_one_bridge() {
    assert_eq!(Bench::new(SAME_ONLY).reach(FAR), (ThruHostBridge, Some(6)));
}

/// A second host bridge with bus 0x80 as its root bus.
fn two_bridges(first: u32, second: u32) -> (MapType, Option<u32>) {
    let mut b = Bench::new(first);
    b.m.add_bridge(Bdf::new(0x80, 0, 0), second, 4, (0x81, 0x81), None);
    b.m.add_function(Bdf::new(0x81, 0, 0), 0x1234_1234, None);
    b.p2p.root_buses.push(0x80);
    b.reach(Bdf::new(0x81, 0, 0))
}

#[test]
fn a6_7_two_bridges_that_must_be_one() {
    assert_eq!(two_bridges(SAME_ONLY, SAME_ONLY), (NotSupported, None));
    // One such bridge is enough to refuse, and so is one that is not listed.
    assert_eq!(two_bridges(SAME_ONLY, LISTED), (NotSupported, None));
    assert_eq!(two_bridges(LISTED, OTHER), (NotSupported, None));
}

#[test]
fn a6_8_two_listed_bridges() {
    assert_eq!(two_bridges(LISTED, LISTED), (ThruHostBridge, Some(6)));
    assert_eq!(two_bridges(GOOGLE, LISTED), (ThruHostBridge, Some(6)));
}

#[test]
fn a6_9_a_processor_that_connects_all() {
    let mut b = Bench::new(OTHER);
    b.p2p.policy = HostBridgePolicy::Any;
    assert_eq!(b.reach(FAR), (ThruHostBridge, Some(6)));
}

#[test]
fn a6_10_a_client_that_is_no_function() {
    let mut b = Bench::new(GOOGLE);
    assert_eq!(b.p2p.map_type(&mut b.m, b.id, None), NotSupported);
    let clients = [Some(NEAR), None];
    assert_eq!(b.p2p.distance_many(&mut b.m, OWN, &clients), None);
    let (map, fresh) = b
        .p2p
        .state(&mut b.m, &mut MapState::default(), None, PhysAddr(BAR));
    assert_eq!((map, fresh), (NotSupported, true));
}

#[test]
fn a6_11_the_first_device_is_no_root_port() {
    let mut b = Bench::new(GOOGLE);
    b.m.add_function(Bdf::new(0, 1, 0), GOOGLE, None);
    assert_eq!(b.reach(FAR), (NotSupported, None));
    // Device 0, function 0 may be anything.
    b.m.add_function(Bdf::new(0, 0, 0), LISTED, None);
    assert_eq!(b.reach(FAR), (ThruHostBridge, Some(6)));
}

#[test]
fn a6_12_acs_without_redirection() {
    for port in [OWN_PORT, NEAR_PORT] {
        let mut b = Bench::new(OTHER).acs(port, 0x53);
        assert_eq!(b.reach(NEAR), (Bus, Some(4)));
    }
}

#[test]
fn functions_of_one_device() {
    let other = Bdf::new(3, 0, 1);
    let device = |own: Option<u16>, their: Option<u16>| {
        let mut b = Bench::new(OTHER);
        b.m.add_function(OWN, 0x1234_1234, own);
        b.m.set_multifunction(OWN);
        b.m.add_function(other, 0x1234_1234, their);
        b.reach(other)
    };
    assert_eq!(device(None, None), (Bus, Some(2)));
    // ACS of the functions themselves keeps them apart, on either side.
    assert_eq!(device(Some(0x04), None), (NotSupported, None));
    assert_eq!(device(None, Some(0x20)), (NotSupported, None));
    assert_eq!(device(Some(0x53), Some(0x53)), (Bus, Some(2)));
}

#[test]
fn every_entry_of_the_list() {
    for (vendor, device, allowed) in LIST {
        let id = u32::from(device.unwrap_or(0xabcd)) << 16 | u32::from(vendor);
        assert_eq!(Bench::new(id).reach(FAR).0, ThruHostBridge, "{id:#x}");
        let apart = match allowed {
            host_bridge::Allowed::SameBridge => NotSupported,
            host_bridge::Allowed::Listed => ThruHostBridge,
        };
        assert_eq!(two_bridges(id, id).0, apart, "{id:#x}");
        // The vendor alone is not enough, Google's excepted.
        if device.is_some() {
            let other = 0xffee << 16 | u32::from(vendor);
            assert_eq!(Bench::new(other).reach(FAR).0, NotSupported);
        }
    }
}

#[test]
fn types_are_kept_until_the_distance_is_asked_for() {
    let mut b = Bench::new(GOOGLE);
    assert_eq!(b.p2p.map_type(&mut b.m, b.id, NEAR), Bus);
    b.m.set_acs(NEAR_PORT, 0x04);
    assert_eq!(b.p2p.map_type(&mut b.m, b.id, NEAR), Bus);
    // Another client does not matter.
    b.p2p.distance_many(&mut b.m, OWN, &[Some(FAR)]);
    assert_eq!(b.p2p.map_type(&mut b.m, b.id, NEAR), Bus);
    b.p2p.distance_many(&mut b.m, OWN, &[Some(NEAR)]);
    assert_eq!(b.p2p.map_type(&mut b.m, b.id, NEAR), ThruHostBridge);
}

#[test]
fn distances_add_up() {
    let mut b = Bench::new(GOOGLE);
    let all = [Some(OWN), Some(NEAR), Some(FAR)];
    assert_eq!(b.p2p.distance_many(&mut b.m, OWN, &all), Some(10));
    assert_eq!(b.p2p.distance_many(&mut b.m, OWN, &[]), None);
}

#[test]
fn the_state_asks_once_for_each_provider() {
    let mut b = Bench::new(GOOGLE);
    let second = memory_bar(4, BAR + 0x20_0000, SIZE, 0x1_4020_0000);
    let bars = [bar(), second];
    let far = b.p2p.add_resource(FAR, &bars, 4, 0, 0).unwrap();
    let mut state = MapState::default();
    let mut ask = |b: &mut Bench, phys| {
        let found = b.p2p.state(&mut b.m, &mut state, NEAR, PhysAddr(phys));
        (found, state.provider)
    };
    // Memory leaves the state alone.
    assert_eq!(ask(&mut b, 0x8000_0000), ((MapType::None, false), None));
    assert_eq!(ask(&mut b, BAR), ((Bus, true), Some(b.id)));
    assert_eq!(
        ask(&mut b, 0x8000_0000),
        ((MapType::None, false), Some(b.id))
    );
    assert_eq!(ask(&mut b, BAR + 0x1000), ((Bus, false), Some(b.id)));
    // Another BAR has another offset and another type.
    let there = BAR + 0x20_0000;
    assert_eq!(ask(&mut b, there), ((ThruHostBridge, true), Some(far)));
    let offset = |id| b.p2p.get(id).map(|p| p.bus_addr_map(p.range.base));
    assert_eq!(offset(b.id), Some(BusAddr(BAR - 0x1000_0000)));
    assert_eq!(offset(far), Some(BusAddr(0x1_4020_0000)));
}

#[test]
fn a_provider_for_each_memory_bar() {
    let mut p2p = P2pdma::default();
    let io = Bar {
        kind: BarKind::Io,
        ..memory_bar(1, 0, 0x100, 0)
    };
    let bars = [memory_bar(0, BAR + SIZE, 0x4000, 0x100), io, bar()];
    assert_eq!(p2p.provider(OWN, 2), Err(P2pError::NotInitialised));
    let refused = p2p.init(OWN, &bars, true);
    assert_eq!(refused, Err(P2pError::NotMappable));
    assert_eq!(P2pError::NotMappable.errno(), -95);
    p2p.init(OWN, &bars, false).unwrap();
    let id = p2p.provider(OWN, 2).unwrap();
    assert_eq!(p2p.provider(OWN, 1), Err(P2pError::NotMemory(1)));
    assert_eq!(p2p.provider(OWN, 6), Err(P2pError::NotMemory(6)));
    assert_ne!(p2p.provider(OWN, 0), Ok(id));
    // A second time changes nothing.
    p2p.init(OWN, &[], false).unwrap();
    assert_eq!(p2p.provider(OWN, 2), Ok(id));
    // Without pages it can be found, and not stand in a scatterlist.
    assert_eq!(p2p.find(PhysAddr(BAR)), Some(id));
    assert_eq!(p2p.page_provider(PhysAddr(BAR), 1), None);
    // When the driver leaves, the name means nothing any more.
    p2p.remove(OWN).unwrap();
    assert_eq!(p2p.get(id), None);
    let mut m = FakeMachine::default();
    topology(&mut m, GOOGLE);
    assert_eq!(p2p.map_type(&mut m, id, NEAR), NotSupported);
    p2p.init(OWN, &bars, false).unwrap();
    assert_ne!(p2p.provider(OWN, 2), Ok(id));
}

#[test]
fn providers_known_by_their_addresses() {
    let mut p2p = P2pdma::default();
    let provider = |at, pages| Provider {
        owner: OWN,
        range: Range::sized(at, SIZE),
        bus_offset: 0,
        pages,
    };
    let first = p2p.add(provider(BAR, true));
    let second = p2p.add(provider(BAR + SIZE, false));
    assert_eq!(p2p.page_provider(PhysAddr(BAR), SIZE), Some(first));
    assert_eq!(p2p.page_provider(PhysAddr(BAR + SIZE), 1), None);
    assert_eq!(p2p.find(PhysAddr(BAR + SIZE)), Some(second));
    // The same pages are not given twice.
    let third = p2p.add(provider(BAR, true));
    assert!(!p2p.get(third).unwrap().pages);
    p2p.remove(OWN).unwrap();
    assert_eq!(p2p.find(PhysAddr(BAR)), None);
}

#[test]
fn resources() {
    let mut p2p = P2pdma::default();
    let bars = [bar()];
    let mut add = |bar, size, offset| p2p.add_resource(OWN, &bars, bar, size, offset).err();
    assert_eq!(add(0, 0, 0), Some(P2pError::NotMemory(0)));
    assert_eq!(add(2, 0, SIZE), Some(P2pError::OutsideBar));
    assert_eq!(add(2, SIZE, 0x1000), Some(P2pError::OutsideBar));
    assert_eq!(add(2, u64::MAX, 0x1000), Some(P2pError::OutsideBar));
    assert_eq!(add(2, 0x800, 0), Some(P2pError::Misaligned));
    assert_eq!(add(2, 0x2000, 0x1000), None);
    assert_eq!(add(2, 0x1000, 0x2000), Some(P2pError::Busy));
    assert_eq!(p2p.page_provider(PhysAddr(BAR), 1), None);
    assert!(p2p.page_provider(PhysAddr(BAR + 0x2fff), 1).is_some());
    assert_eq!(p2p.page_provider(PhysAddr(BAR + 0x3000), 1), None);
    assert_eq!(p2p.page_provider(PhysAddr(BAR + 0x2000), 0x1001), None);
    assert_eq!(p2p.page_provider(PhysAddr(BAR + 0x2000), u64::MAX), None);
}

#[test]
fn peer_memory_is_allocated_by_the_page() {
    let mut p2p = P2pdma::default();
    assert_eq!(p2p.alloc_p2pmem(OWN, 4096), None);
    p2p.add_resource(OWN, &[bar()], 2, 0x4000, 0x1000).unwrap();
    let a = p2p.alloc_p2pmem(OWN, 1).unwrap();
    let b = p2p.alloc_p2pmem(OWN, 0x2000).unwrap();
    assert_eq!((a, b), (PhysAddr(BAR + 0x1000), PhysAddr(BAR + 0x2000)));
    assert_eq!(
        p2p.p2pmem_to_bus(OWN, b),
        Some(BusAddr(BAR + 0x2000 - 0x1000_0000))
    );
    assert_eq!(p2p.alloc_p2pmem(OWN, 0x2000), None);
    assert_eq!(p2p.remove(OWN), Err(P2pError::InUse(0x3000)));
    let wrong = P2pError::NotAllocated { phys: b, size: 1 };
    assert_eq!(p2p.free_p2pmem(OWN, b, 1), Err(wrong));
    p2p.free_p2pmem(OWN, a, 1).unwrap();
    // The hole is used, what does not fit goes behind.
    assert_eq!(p2p.alloc_p2pmem(OWN, 4096), Some(a));
    assert_eq!(p2p.alloc_p2pmem(OWN, 4096), Some(PhysAddr(BAR + 0x4000)));
    assert_eq!(p2p.alloc_p2pmem(OWN, u64::MAX), None);
}

#[test]
fn published_memory_is_found_by_distance() {
    let mut b = Bench::new(GOOGLE);
    b.p2p
        .add_resource(
            FAR,
            &[memory_bar(0, 0x5000_0000, SIZE, 0x5000_0000)],
            0,
            0,
            0,
        )
        .unwrap();
    let find = |b: &mut Bench, clients: &[Option<Bdf>]| b.p2p.find_p2pmem(&mut b.m, clients);
    assert_eq!(find(&mut b, &[Some(NEAR)]), None);
    b.p2p.publish(FAR, true);
    assert!(b.p2p.has_p2pmem(FAR));
    assert_eq!(find(&mut b, &[Some(NEAR)]), Some(FAR));
    b.p2p.publish(OWN, true);
    assert_eq!(find(&mut b, &[Some(NEAR)]), Some(OWN));
    assert_eq!(find(&mut b, &[Some(NEAR), None]), None);
    b.p2p.publish(OWN, false);
    b.p2p.policy = HostBridgePolicy::Refuse;
    assert_eq!(find(&mut b, &[Some(NEAR)]), None);
}
