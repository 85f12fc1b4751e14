//! Peer memory and paged memory on the simulated machine: DMABUF, its revocation, HMM; what keeps
//! its promises is no violation, and each mistake is caught.

mod bench;

use bench::{assert_found, bench, found, transfer};
use tlproof::{
    endpoint::{Descriptor, pattern_bytes},
    testbench::{Setup, Testbench},
};
use tlproof_dma::{
    Profile, Quirks,
    dmabuf::{AttachmentId, DmaBufError, DmaSgt, ImporterOps, Ioas, VfioDmaBuf},
    hmm::HmmDefects,
    iommu::Prot,
    machine::Machine,
    odp::{UserMemory, UserPage},
};
use tlproof_golden::Judge;
use tlproof_pcie::{
    CplStatus,
    Direction::{Bidirectional, ToDevice},
    DmaAddr, PhysAddr,
    tree::Acs,
};

/// Two ranges of a BAR, the second in front of the first.
const RANGES: [(u64, u64); 2] = [(0x4000, 0x2000), (0x1000, 0x1000)];

/// Endpoints 0 and 1 are below one switch, endpoint 2 below another root port.
const CLIENT: usize = 0;
const NEAR: usize = 1;
const FAR: usize = 2;

/// No redirection: neighbours below the switch reach each other directly.
fn direct() -> Setup {
    Setup {
        acs: Acs::SV,
        ..Setup::default()
    }
}

/// A buffer of `owner` that the client has mapped in both directions.
fn mapped(
    b: &mut Testbench,
    owner: usize,
    ranges: &[(u64, u64)],
) -> (VfioDmaBuf, AttachmentId, DmaSgt) {
    let mut buf = b.export_dmabuf(owner, ranges).unwrap();
    let dev = b.functions[CLIENT].dev;
    let at = buf.attach(Some(dev), ImporterOps::PEER).unwrap();
    let sgt = b.map_dmabuf(CLIENT, &mut buf, at, Bidirectional).unwrap();
    (buf, at, sgt)
}

/// The client writes every segment and reads it again.
fn use_all(b: &mut Testbench, sgt: &DmaSgt, seed: u32) {
    for s in sgt.segments() {
        for write in [true, false] {
            let d = Descriptor::pattern(1, write, s.dma, s.len as u32, seed);
            let done = transfer(b, CLIENT, &d);
            assert_eq!(done.status, Some(CplStatus::Success));
        }
    }
}

/// Compares what the CPU finds in the BAR with what the client wrote.
fn compare(b: &mut Testbench, owner: usize, sgt: &DmaSgt, seed: u32) {
    let bar = b.functions[owner].engine.memory;
    let mut want: Vec<u8> = Vec::new();
    for s in sgt.segments() {
        let mut bytes = vec![0; s.len as usize];
        pattern_bytes(s.dma, seed, &mut bytes);
        want.extend(bytes);
    }
    let mut at = 0;
    for (offset, len) in RANGES {
        for i in [0, len / 2, len - 8] {
            let got = b.sim.mmio_read(bar.offset(offset + i), 8).unwrap();
            let from = (at + i) as usize;
            assert_eq!(
                got.to_le_bytes(),
                want[from..from + 8],
                "{offset:#x}+{i:#x}"
            );
        }
        at += len;
    }
}

/// A probe of an address that nobody has given the client: a read and a write.
fn probe(b: &mut Testbench, dma: DmaAddr) {
    for write in [false, true] {
        let bdf = b.functions[CLIENT].engine.bdf;
        let rogue = b.sim.checker.expect_rogue(bdf, dma.on_bus(), 64, write);
        let done = transfer(b, CLIENT, &Descriptor::pattern(9, write, dma, 64, 9));
        if !write {
            assert_ne!(done.status, Some(CplStatus::Success), "{dma}");
        }
        b.sim.checker.rogue_done(rogue);
    }
}

#[test]
fn a_dmabuf_through_the_bridge() {
    for (owner, offset) in [(FAR, 0), (NEAR, 0), (FAR, 0x1000_0000)] {
        let mut setup = Setup::default();
        setup.machine.map.bus_offset = offset;
        let mut b = bench(&setup);
        let (mut buf, at, sgt) = mapped(&mut b, owner, &RANGES);
        assert!(!sgt.is_bus_address());
        // One range of IOVA for both ranges of the BAR.
        assert_eq!(sgt.segments().len(), 1);
        use_all(&mut b, &sgt, 7);
        compare(&mut b, owner, &sgt, 7);
        let dma = sgt.segments()[0].dma;
        b.unmap_dmabuf(CLIENT, &mut buf, at, sgt).unwrap();
        probe(&mut b, dma);
        assert_eq!(found(&b), []);
    }
}

#[test]
fn a_dmabuf_by_bus_address() {
    for offset in [0, 0x1000_0000] {
        let mut setup = direct();
        setup.machine.map.bus_offset = offset;
        let mut b = bench(&setup);
        let (mut buf, at, sgt) = mapped(&mut b, NEAR, &RANGES);
        assert!(sgt.is_bus_address());
        let bar = b.functions[NEAR].engine.memory.0 - offset;
        let dma: Vec<u64> = sgt.segments().iter().map(|s| s.dma.0).collect();
        assert_eq!(dma, [bar + 0x4000, bar + 0x1000]);
        use_all(&mut b, &sgt, 7);
        compare(&mut b, NEAR, &sgt, 7);
        b.unmap_dmabuf(CLIENT, &mut buf, at, sgt).unwrap();
        assert_eq!(found(&b), []);
    }
}

/// Transfers are under way when the exporter takes the memory back; afterwards nothing gets there,
/// by either way, and the function does not decode. Then it is given back.
#[test]
fn revocation_and_an_access_afterwards() {
    for (setup, owner) in [(Setup::default(), FAR), (direct(), NEAR)] {
        let mut b = bench(&setup);
        let (mut buf, at, sgt) = mapped(&mut b, owner, &RANGES);
        let dma = sgt.segments()[0].dma;
        for id in 0..4 {
            let d = Descriptor::pattern(id, id % 2 == 0, dma, 0x2000, 3);
            let engine = &mut b.functions[CLIENT].engine;
            engine.submit(&mut b.sim, &d).unwrap();
        }
        b.revoke_dmabuf(CLIENT, &mut buf, at, sgt).unwrap();
        assert_eq!(b.functions[CLIENT].engine.outstanding, 0);
        assert_eq!(b.dma.live().count(), 0);
        let again = b.map_dmabuf(CLIENT, &mut buf, at, Bidirectional);
        assert_eq!(again.err(), Some(DmaBufError::Revoked));
        probe(&mut b, dma);
        assert_eq!(found(&b), []);

        buf.restore(&mut b.sim).unwrap();
        let sgt = b.map_dmabuf(CLIENT, &mut buf, at, Bidirectional).unwrap();
        use_all(&mut b, &sgt, 5);
        compare(&mut b, owner, &sgt, 5);
        b.unmap_dmabuf(CLIENT, &mut buf, at, sgt).unwrap();
        assert_eq!(found(&b), []);
    }
}

/// The mapping survives in the IOTLB, or there was none, and the BAR still decodes: the access
/// arrives.
#[test]
fn an_access_that_survives_its_buffer() {
    for (setup, owner) in [(Setup::default(), FAR), (direct(), NEAR)] {
        let mut b = bench(&setup);
        let (mut buf, at, sgt) = mapped(&mut b, owner, &RANGES[..1]);
        let dma = sgt.segments()[0].dma;
        use_all(&mut b, &sgt, 7);
        b.dma.iommu_mut().unwrap().defects.drop_invalidation_once = true;
        b.unmap_dmabuf(CLIENT, &mut buf, at, sgt).unwrap();
        let bdf = b.functions[CLIENT].engine.bdf;
        b.sim.checker.expect_rogue(bdf, dma.on_bus(), 64, true);
        transfer(&mut b, CLIENT, &Descriptor::pattern(9, true, dma, 64, 9));
        assert_found(&b, Judge::Promise, "permission");
    }
}

/// M30: every link at offset 0. The page table refuses the second range; where it would not, the
/// client's accesses go to the wrong bytes of the BAR or nowhere.
#[test]
fn a_second_range_linked_over_the_first() {
    let setup = Setup {
        quirks: Some(Quirks {
            dmabuf_links_at_zero: true,
            ..Quirks::default()
        }),
        ..Setup::default()
    };
    assert!(Profile::Linux72.quirks().dmabuf_links_at_zero);
    let mut b = bench(&setup);
    let mut buf = b.export_dmabuf(FAR, &RANGES).unwrap();
    let dev = b.functions[CLIENT].dev;
    let at = buf.attach(Some(dev), ImporterOps::PEER).unwrap();
    let refused = b.map_dmabuf(CLIENT, &mut buf, at, Bidirectional);
    assert_eq!(refused.unwrap_err().errno(), -98);
    assert_eq!(found(&b), []);

    b.dma.iommu_mut().unwrap().defects.overwrite = true;
    let sgt = b.map_dmabuf(CLIENT, &mut buf, at, Bidirectional).unwrap();
    let dma = sgt.segments()[0].dma;
    transfer(&mut b, CLIENT, &Descriptor::pattern(1, true, dma, 64, 7));
    assert_found(&b, Judge::Promise, "address");
    assert!(found(&b).iter().all(|(j, _)| *j == Judge::Promise));
}

/// M16: the CPU's address in place of the bus address. M17: a bus address where ACS redirects.
#[test]
fn a_wrong_bus_address() {
    let mut setup = direct();
    setup.machine.map.bus_offset = 0x1000_0000;
    let mut b = bench(&setup);
    let (_, _, sgt) = mapped(&mut b, NEAR, &RANGES[..1]);
    let phys = DmaAddr(sgt.ranges()[0].phys.0);
    transfer(&mut b, CLIENT, &Descriptor::pattern(1, true, phys, 64, 7));
    assert!(found(&b).iter().any(|(j, _)| *j == Judge::Promise));

    let mut b = bench(&Setup::default());
    let peer = b.functions[NEAR].engine.memory;
    let dma = b.bus_address(CLIENT, peer, 4096);
    transfer(&mut b, CLIENT, &Descriptor::pattern(1, true, dma, 64, 7));
    assert_found(&b, Judge::Promise, "route");
}

/// A user's address space: the exporter's BAR with the user's permission, until it is taken back.
#[test]
fn a_dmabuf_in_an_address_space() {
    const IOVA: u64 = 0x1000_0000;
    let mut b = bench(&Setup::default());
    let mut ioas = Ioas::new(&mut b.dma, &mut b.sim).unwrap();
    let bdf = b.functions[CLIENT].engine.bdf;
    ioas.attach(&mut b.dma, &mut b.sim, bdf).unwrap();
    let mut both = b.export_dmabuf(FAR, &RANGES[..1]).unwrap();
    let mut read = b.export_dmabuf(FAR, &RANGES[1..]).unwrap();
    let all = Prot::READ | Prot::WRITE;
    b.map_ioas(CLIENT, &mut ioas, &mut both, IOVA, all).unwrap();
    let next = IOVA + 0x10_0000;
    b.map_ioas(CLIENT, &mut ioas, &mut read, next, Prot::READ)
        .unwrap();
    for (at, len, writes) in [(IOVA, 0x2000, &[true, false][..]), (next, 0x1000, &[false])] {
        for write in writes {
            let d = Descriptor::pattern(1, *write, DmaAddr(at), len, 7);
            assert_eq!(
                transfer(&mut b, CLIENT, &d).status,
                Some(CplStatus::Success)
            );
        }
    }
    // What may only be read is not written.
    let rogue = b
        .sim
        .checker
        .expect_rogue(bdf, DmaAddr(next).on_bus(), 64, true);
    let d = Descriptor::pattern(2, true, DmaAddr(next), 64, 7);
    transfer(&mut b, CLIENT, &d);
    b.sim.checker.rogue_done(rogue);
    b.revoke_ioas(CLIENT, &mut ioas, &mut both, IOVA).unwrap();
    probe(&mut b, DmaAddr(IOVA));
    assert_eq!(found(&b), []);
}

const VA: u64 = 0x7f12_3456_7000;
const DRAM: u64 = 0x9000_0000;

/// A process with two pages of memory, a page of a peer and another page of memory.
fn process(b: &Testbench, peer: usize) -> UserMemory {
    let mut user = UserMemory::default();
    let bar = b.functions[peer].engine.memory;
    for (i, phys) in [
        PhysAddr(DRAM),
        PhysAddr(DRAM + 0x5000),
        bar.offset(0x3000),
        PhysAddr(DRAM + 0x2000),
    ]
    .into_iter()
    .enumerate()
    {
        let page = UserPage {
            phys,
            writable: true,
        };
        user.insert(VA + i as u64 * 4096, page);
    }
    user
}

#[test]
fn pages_of_a_process_on_demand() {
    for (setup, peer) in [(Setup::default(), FAR), (direct(), NEAR)] {
        let mut b = bench(&setup);
        let mut user = process(&b, peer);
        let mut region = b.odp_region(CLIENT, VA, 16).unwrap();
        let whole = (VA, 4 * 4096);
        let ready = b
            .odp_fault(CLIENT, &mut region, &user, whole, true)
            .unwrap();
        assert_eq!(ready.len(), 4);
        for (va, entry) in &ready {
            let page = user.page(*va).unwrap().phys;
            let mut want = [0; 8];
            pattern_bytes(entry.dma, 7, &mut want);
            for write in [true, false] {
                let d = Descriptor::pattern(1, write, entry.dma, 4096, 7);
                let done = transfer(&mut b, CLIENT, &d);
                assert_eq!(done.status, Some(CplStatus::Success));
            }
            let got = if b.sim.options().map.is_dram(page, 8) {
                let mut got = [0; 8];
                b.sim.mem_read(page, &mut got);
                got
            } else {
                b.sim.mmio_read(page, 8).unwrap().to_le_bytes()
            };
            assert_eq!(got, want, "{va:#x}");
        }
        // A second fault renews and maps nothing anew.
        let again = b
            .odp_fault(CLIENT, &mut region, &user, whole, true)
            .unwrap();
        assert_eq!(again, ready);

        // The kernel moves the second page; the device faults and finds the new one.
        let moved = VA + 4096;
        let old = region.xlt(moved).unwrap().dma;
        assert_eq!(b.odp_invalidate(CLIENT, &mut region, moved, 1), Ok(1));
        assert_eq!(region.xlt(moved), None);
        probe(&mut b, old);
        let page = UserPage {
            phys: PhysAddr(DRAM + 0x9000),
            writable: true,
        };
        user.insert(moved, page);
        let new = b
            .odp_fault(CLIENT, &mut region, &user, (moved, 1), true)
            .unwrap()[0]
            .1;
        transfer(
            &mut b,
            CLIENT,
            &Descriptor::pattern(2, true, new.dma, 4096, 8),
        );
        assert_eq!(b.odp_invalidate(CLIENT, &mut region, VA, 16 * 4096), Ok(4));
        assert_eq!(b.dma.live().count(), 0);
        region.release(&mut b.dma, &mut b.sim).unwrap();
        b.quiesce().unwrap();
        assert_eq!(found(&b), []);
        assert!(b.dma.warnings().is_empty());
    }
}

/// M41: a peer's page that is not marked is mapped as memory; an entry that stays marked as mapped
/// hands out the address of the page before.
#[test]
fn flags_of_an_entry_that_are_wrong() {
    let defects = [
        HmmDefects {
            p2pdma_not_carried: true,
            ..HmmDefects::default()
        },
        HmmDefects {
            mapped_kept_on_unmap: true,
            ..HmmDefects::default()
        },
    ];
    for (defects, field) in defects.into_iter().zip(["memory type", "permission"]) {
        let mut b = bench(&Setup::default());
        let mut user = process(&b, FAR);
        let mut region = b.odp_region(CLIENT, VA, 4).unwrap();
        region.map_mut().defects = defects;
        let peer = VA + 2 * 4096;
        b.odp_fault(CLIENT, &mut region, &user, (peer, 1), true)
            .unwrap();
        if defects.mapped_kept_on_unmap {
            b.odp_invalidate(CLIENT, &mut region, peer, 1).unwrap();
            let page = UserPage {
                phys: PhysAddr(DRAM),
                writable: true,
            };
            user.insert(peer, page);
            b.odp_fault(CLIENT, &mut region, &user, (peer, 1), true)
                .unwrap();
        }
        let dma = region.xlt(peer).unwrap().dma;
        transfer(&mut b, CLIENT, &Descriptor::pattern(1, true, dma, 64, 7));
        assert_found(&b, Judge::Promise, field);
        assert!(found(&b).iter().all(|(j, _)| *j == Judge::Promise));
    }
}

/// What a device may only read it may not write, whatever the page table of the IOMMU can say.
#[test]
fn a_dmabuf_to_read_from() {
    let mut b = bench(&Setup::default());
    let mut buf = b.export_dmabuf(FAR, &RANGES[..1]).unwrap();
    let dev = b.functions[CLIENT].dev;
    let at = buf.attach(Some(dev), ImporterOps::PEER).unwrap();
    let sgt = b.map_dmabuf(CLIENT, &mut buf, at, ToDevice).unwrap();
    let dma = sgt.segments()[0].dma;
    transfer(
        &mut b,
        CLIENT,
        &Descriptor::pattern(1, false, dma, 0x2000, 7),
    );
    assert_eq!(found(&b), []);
    transfer(&mut b, CLIENT, &Descriptor::pattern(2, true, dma, 64, 7));
    assert_found(&b, Judge::Promise, "direction");
}
