//! From kind of memory and entry point to address and protection: the rows of the end-to-end
//! table that can be seen above the bus. What they look like on the bus is checked on the
//! simulated machine.

use tlproof_pcie::{Direction::Bidirectional, MemType, PhysAddr};

use super::{HostBridgePolicy, MapState};
use crate::{Quirks, SgEntry, dmabuf::PhysVec, pages::PAGE_SIZE, testing::bench::*};

const NEAR: Bdf = Bdf::new(4, 0, 0);
const FAR: Bdf = Bdf::new(5, 0, 0);
const BUS: u64 = BAR - 0x1000_0000;
const MMIO: Attrs = Attrs::MMIO;

/// The call that a row is about.
#[derive(Clone, Copy, Debug)]
enum Entry {
    MapPhys(Attrs),
    Resource,
    Sg,
    Hmm,
    DmaBuf,
}

/// What the device is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Iova,
    Bus,
    Phys,
    Errno(i32),
}

use Entry::{DmaBuf, Hmm, MapPhys, Resource, Sg};
use Given::{Errno, Iova, Phys};

/// A client, and what stands between it and the peer.
fn machine(client: Device, attach: Attach, policy: HostBridgePolicy, quirks: Quirks) -> Bench {
    let config = Config {
        quirks,
        ..Config::default()
    };
    let mut b = Bench::new(config, client, attach);
    topology(&mut b.m, 0x0001_1ae0);
    b.dma.p2pdma.add(peer(true));
    b.dma.p2pdma.policy = policy;
    b.m.take();
    b
}

fn call(b: &mut Bench, entry: Entry, phys: PhysAddr) -> Result<DmaAddr, i32> {
    let (dev, dir) = (b.dev, Bidirectional);
    let errno = |e: MapError| e.errno();
    match entry {
        MapPhys(attrs) => b
            .dma
            .dma_map_phys(&mut b.m, dev, phys, PAGE_SIZE, dir, attrs)
            .map_err(errno),
        Resource => b
            .dma
            .dma_map_resource(&mut b.m, dev, phys, PAGE_SIZE, dir, NONE)
            .map_err(errno),
        Sg => {
            let mut sg = [SgEntry::new(phys, PAGE_SIZE)];
            let mapped = b.dma.dma_map_sg(&mut b.m, dev, &mut sg, dir, NONE);
            mapped.map(|_| sg[0].dma_address).map_err(errno)
        }
        Hmm => {
            let mut map = b.dma.hmm_dma_map_alloc(dev, 1, PAGE_SIZE).unwrap();
            map.range_fault(0, Some((phys, true, 0))).unwrap();
            b.dma
                .hmm_dma_map_pfn(&mut b.m, &mut map, 0, &mut MapState::default())
                .map_err(|_| -12)
        }
        DmaBuf => {
            let provider = b.dma.p2pdma.find(PhysAddr(BAR)).unwrap();
            let range = PhysVec {
                phys,
                len: PAGE_SIZE,
            };
            b.dma
                .dma_buf_phys_vec_to_sgt(&mut b.m, dev, provider, &[range], dir)
                .map(|sgt| sgt.segments()[0].dma)
                .map_err(|e| e.errno())
        }
    }
}

/// Makes the call; says what was given and with which protection it was mapped.
fn row(b: &mut Bench, entry: Entry, phys: u64) -> (Given, Option<u32>) {
    let given = match call(b, entry, PhysAddr(phys)) {
        Ok(dma) if dma.0 == phys => Phys,
        Ok(dma) if (BAR..RAM).contains(&phys) && dma.0 == phys - BAR + BUS => Given::Bus,
        Ok(_) => Iova,
        Err(e) => Errno(e),
    };
    let prot = b.m.take().iter().find_map(|op| match op {
        Op::Map { prot, .. } => Some(*prot),
        _ => None,
    });
    (given, prot)
}

const LIST: HostBridgePolicy = HostBridgePolicy::AllowList;

#[test]
fn a7_memory() {
    let new = |coherent, attach| {
        let client = Device {
            coherent,
            ..Device::new(FAR)
        };
        machine(client, attach, LIST, Quirks::default())
    };
    let map = MapPhys(NONE);
    let mut b = new(true, Attach::Strict);
    assert_eq!(row(&mut b, map, RAM), (Iova, Some(0x07)), "A7.1");
    let mut b = new(false, Attach::Strict);
    assert_eq!(row(&mut b, map, RAM), (Iova, Some(0x03)), "A7.2");
    for attach in [Attach::Direct, Attach::Identity] {
        assert_eq!(row(&mut new(true, attach), map, RAM), (Phys, None), "A7.3");
    }
    // A7.17: memory passed off as MMIO.
    let mut b = new(true, Attach::Strict);
    assert_eq!(row(&mut b, MapPhys(MMIO), RAM), (Iova, Some(0x13)));
}

#[test]
fn a7_peers() {
    const REFUSE: HostBridgePolicy = HostBridgePolicy::Refuse;
    let (strict, direct) = (Attach::Strict, Attach::Direct);
    for (id, entry, client, attach, policy, want) in [
        ("A7.4", Hmm, FAR, strict, LIST, (Iova, Some(0x13))),
        ("A7.5", Hmm, NEAR, strict, LIST, (Given::Bus, None)),
        ("A7.5", Hmm, NEAR, direct, LIST, (Given::Bus, None)),
        ("A7.6", Hmm, FAR, direct, LIST, (Phys, None)),
        ("A7.8", Sg, NEAR, strict, LIST, (Given::Bus, None)),
        ("A7.9", Sg, FAR, strict, REFUSE, (Errno(-121), None)),
        ("A7.9", Sg, FAR, direct, REFUSE, (Errno(-121), None)),
        ("A7.10", DmaBuf, FAR, strict, LIST, (Iova, Some(0x13))),
        ("A7.11", DmaBuf, NEAR, strict, LIST, (Given::Bus, None)),
        ("A7.11", DmaBuf, NEAR, direct, LIST, (Given::Bus, None)),
        ("A7.12", DmaBuf, FAR, strict, REFUSE, (Errno(-22), None)),
        ("A7.12", DmaBuf, FAR, direct, REFUSE, (Errno(-22), None)),
        // M15: a resource is mapped whatever the peer-to-peer rules say.
        ("A7.13", Resource, FAR, strict, REFUSE, (Iova, Some(0x13))),
        ("A7.13", Resource, NEAR, strict, LIST, (Iova, Some(0x13))),
        ("A7.14", Resource, FAR, direct, REFUSE, (Phys, None)),
        // A mistake of the caller: nothing says that it is a peer's.
        (
            "A7.16",
            MapPhys(NONE),
            FAR,
            strict,
            LIST,
            (Iova, Some(0x07)),
        ),
    ] {
        let mut b = machine(Device::new(client), attach, policy, Quirks::default());
        assert_eq!(row(&mut b, entry, BAR + 0x3000), want, "{id}");
    }
}

#[test]
fn a7_7_scatterlists_through_the_bridge() {
    for (sg_p2p_cacheable, prot) in [(false, 0x13), (true, 0x07)] {
        let quirks = Quirks {
            sg_p2p_cacheable,
            ..Quirks::default()
        };
        let mut b = machine(Device::new(FAR), Attach::Strict, LIST, quirks);
        let at = PhysAddr(BAR);
        assert_eq!(row(&mut b, Sg, at.0), (Iova, Some(prot)));
        // The promise is the same whatever the profile makes of it.
        let promise = b.dma.live().next().unwrap();
        assert_eq!(promise.expected.mem_type, MemType::Device);
    }
}

#[test]
fn a7_15_a_resource_that_would_be_bounced() {
    let client = Device {
        force_bounce: true,
        ..Device::new(FAR)
    };
    let mut b = machine(client, Attach::Direct, LIST, Quirks::default()).pool(false);
    assert_eq!(row(&mut b, Resource, BAR), (Errno(-12), None));
}

#[test]
fn a7_18_stock_riscv_stays_in_the_identity_domain() {
    let quirks = Profile::Linux72.quirks();
    let mut b = machine(Device::new(FAR), Attach::Strict, LIST, quirks);
    assert_eq!(b.dma.domain_of(b.dev), None);
    for (entry, phys) in [(MapPhys(NONE), RAM), (MapPhys(MMIO), BAR), (Hmm, BAR)] {
        assert_eq!(row(&mut b, entry, phys), (Phys, None));
    }
}
