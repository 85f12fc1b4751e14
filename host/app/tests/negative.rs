//! What must be caught is caught, by the judge that should catch it, with the right field named.

mod bench;

use bench::{assert_found, bench, found, transfer};
use tlproof::{endpoint::Descriptor, testbench::Setup};
use tlproof_dma::{Attrs, machine::Machine};
use tlproof_golden::Judge;
use tlproof_pcie::{Direction, DmaAddr, PhysAddr, tree::Acs};

const BUFFER: PhysAddr = PhysAddr(0x9000_0000);

#[test]
fn a_promised_transfer_is_no_violation() {
    let mut b = bench(&Setup::default());
    let dma = b
        .map_phys(0, BUFFER, 4096, Direction::Bidirectional, Attrs::empty())
        .unwrap();
    transfer(&mut b, 0, &Descriptor::pattern(1, true, dma, 4096, 7));
    transfer(&mut b, 0, &Descriptor::pattern(2, false, dma, 4096, 7));
    b.unmap_phys(0, dma, 4096, Direction::Bidirectional, Attrs::empty());
    b.quiesce().unwrap();
    assert_eq!(found(&b), []);
    assert!(b.sim.checker.tlps() > 30);
}

#[test]
fn writing_outside_the_mapping() {
    let mut b = bench(&Setup::default());
    let dma = b
        .map_phys(0, BUFFER, 4096, Direction::FromDevice, Attrs::empty())
        .unwrap();
    transfer(
        &mut b,
        0,
        &Descriptor::pattern(1, true, DmaAddr(dma.0 - 0x10_0000), 64, 7),
    );
    assert_found(&b, Judge::Promise, "address");
}

#[test]
fn writing_after_unmap() {
    let mut b = bench(&Setup::default());
    let dma = b
        .map_phys(0, BUFFER, 4096, Direction::FromDevice, Attrs::empty())
        .unwrap();
    b.unmap_phys(0, dma, 4096, Direction::FromDevice, Attrs::empty());
    transfer(&mut b, 0, &Descriptor::pattern(1, true, dma, 64, 7));
    assert_found(&b, Judge::Promise, "state");
}

#[test]
fn writing_against_the_direction() {
    let mut b = bench(&Setup::default());
    let dma = b
        .map_phys(0, BUFFER, 4096, Direction::ToDevice, Attrs::empty())
        .unwrap();
    transfer(&mut b, 0, &Descriptor::pattern(1, true, dma, 64, 7));
    assert_found(&b, Judge::Promise, "direction");
}

#[test]
fn another_requester_id() {
    let mut b = bench(&Setup::default());
    let dma = b
        .map_phys(1, BUFFER, 4096, Direction::FromDevice, Attrs::empty())
        .unwrap();
    let mut d = Descriptor::pattern(1, true, dma, 64, 7);
    d.spoof = Some(b.functions[1].engine.bdf);
    transfer(&mut b, 0, &d);
    assert_found(&b, Judge::Promise, "requester");
}

#[test]
fn a_peer_bar_that_was_not_given() {
    let mut b = bench(&Setup::default());
    let peer = b.functions[1].engine.memory;
    let bus = b.sim.options().map.to_bus(peer);
    transfer(
        &mut b,
        0,
        &Descriptor::pattern(1, true, DmaAddr(bus.0), 64, 7),
    );
    assert_found(&b, Judge::Promise, "peer");
}

#[test]
fn a_dropped_invalidation() {
    let mut b = bench(&Setup::default());
    let dma = b
        .map_phys(0, BUFFER, 4096, Direction::FromDevice, Attrs::empty())
        .unwrap();
    // The translation is in the IOTLB.
    transfer(&mut b, 0, &Descriptor::pattern(1, true, dma, 64, 7));
    b.dma.iommu_mut().unwrap().defects.drop_invalidation_once = true;
    b.unmap_phys(0, dma, 4096, Direction::FromDevice, Attrs::empty());
    let bdf = b.functions[0].engine.bdf;
    let rogue = b.sim.checker.expect_rogue(bdf, dma.on_bus(), 64, true);
    transfer(&mut b, 0, &Descriptor::pattern(2, true, dma, 64, 9));
    b.sim.checker.rogue_done(rogue);
    assert_found(&b, Judge::Promise, "permission");
    // By the IOMMU specification the old answer is legal: nothing invalidated it.
    assert!(
        found(&b).iter().all(|(j, _)| *j == Judge::Promise),
        "{:?}",
        found(&b)
    );
}

#[test]
fn a_wrong_memory_type_in_one_entry() {
    let mut b = bench(&Setup::default());
    b.dma.iommu_mut().unwrap().defects.corrupt_pbmt_once = true;
    let dma = b
        .map_phys(0, BUFFER, 4096, Direction::FromDevice, Attrs::empty())
        .unwrap();
    transfer(&mut b, 0, &Descriptor::pattern(1, true, dma, 64, 7));
    assert_found(&b, Judge::Promise, "memory type");
    assert!(
        found(&b).iter().all(|(j, _)| *j == Judge::Promise),
        "{:?}",
        found(&b)
    );
}

#[test]
fn a_missing_cache_clean() {
    let setup = Setup {
        coherent: [false; 3],
        ..Setup::default()
    };
    for (attrs, stale) in [(Attrs::empty(), false), (Attrs::SKIP_CPU_SYNC, true)] {
        let mut b = bench(&setup);
        b.sim.mem_write(BUFFER, &[0x5a; 64]);
        let dma = b
            .map_phys(0, BUFFER, 64, Direction::ToDevice, attrs)
            .unwrap();
        transfer(&mut b, 0, &Descriptor::pattern(1, false, dma, 64, 7));
        let rows = b.sim.checker.memory_violations();
        assert_eq!(!rows.is_empty(), stale, "{rows:?}");
        if let Some(v) = rows.first() {
            assert_eq!((v.judge.as_str(), v.field.as_str()), ("promise", "data"));
        }
        assert_eq!(found(&b), []);
    }
}

#[test]
fn peers_through_the_bridge_are_device_memory_and_cacheable_before_the_series() {
    for (profile, caught) in [
        (tlproof_dma::Profile::Intended, false),
        (tlproof_dma::Profile::PreSeries, true),
    ] {
        let setup = Setup {
            profile,
            acs: Acs::STANDARD,
            ..Setup::default()
        };
        let mut b = bench(&setup);
        let peer = b.functions[2].engine.memory;
        let dma = b
            .map_phys(0, peer, 4096, Direction::FromDevice, Attrs::MMIO)
            .unwrap();
        transfer(&mut b, 0, &Descriptor::pattern(1, true, dma, 256, 7));
        let v = b
            .sim
            .checker
            .violations()
            .iter()
            .find(|v| v.field == "memory type");
        assert_eq!(v.is_some(), caught, "{:?}", found(&b));
        if let Some(v) = v {
            assert_eq!(v.judge, Judge::Promise);
            assert_eq!(
                (v.expected.as_str(), v.got.as_str()),
                ("device", "write-back")
            );
            assert!(
                v.call
                    .as_deref()
                    .is_some_and(|c| c.starts_with("dma_map_phys")),
                "{v:?}"
            );
        }
    }
}
