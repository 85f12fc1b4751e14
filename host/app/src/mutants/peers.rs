//! Directed workloads with peers, lists, large pages and contexts.

use tlproof_dma::{
    Attach, Attrs, SgEntry,
    block::{Bio, QueueLimits, ReqOp, Request},
    dmabuf::ImporterOps,
    iommu::IommuDriver,
    machine::Machine,
    nvme::{Command, Ctrl, Nvme, Source},
    odp::{UserMemory, UserPage},
};
use tlproof_pcie::{
    Direction::{Bidirectional, FromDevice, ToDevice},
    DmaAddr, PhysAddr,
    tree::Acs,
};

use super::workloads::{BUFFER, CLIENT, FAR, NEAR, PAGE, Rig};
use crate::{
    endpoint::Descriptor,
    program::Failure,
    testbench::{Error, Setup, nvme::data_transfer},
};

pub(super) type Found = Result<Vec<Failure>, Error>;

/// Neighbours below the switch reach each other directly.
fn below() -> Setup {
    let mut setup = Setup {
        acs: Acs::SV | Acs::UF,
        ..Setup::default()
    };
    setup.machine.map.bus_offset = 0x1000_0000;
    setup
}

/// Without an IOMMU.
fn direct() -> Setup {
    let mut setup = Setup {
        attach: [Attach::Direct; 3],
        ..Setup::default()
    };
    setup.machine.iommu = false;
    setup.machine.aperture_wb = false;
    setup
}

/// BARs of two devices in a scatterlist, one reached by the switch and one by the bridge.
pub(super) fn scatterlist() -> Found {
    let mut found = Vec::new();
    for (setup, peers) in [(below(), &[NEAR, FAR][..]), (Setup::default(), &[NEAR])] {
        let mut r = Rig::new(setup)?;
        let mut list: Vec<_> = peers
            .iter()
            .map(|f| SgEntry::new(r.bar(*f), PAGE))
            .collect();
        let none = Attrs::empty();
        let mapped = r.b.map_sg(CLIENT, &mut list, FromDevice, none);
        if let Some(n) = r.ok("dma_map_sg", mapped) {
            for segment in &list[..n] {
                r.write(segment.dma_address, 64, 7)?;
            }
            r.b.unmap_sg(CLIENT, &mut list, FromDevice, none);
        }
        found.append(&mut r.finish()?);
    }
    Ok(found)
}

/// A BAR that is mapped by two calls at once.
pub(super) fn mapped_twice() -> Found {
    let mut r = Rig::new(Setup::default())?;
    let bar = r.bar(FAR);
    let mapped = r.b.map_phys(CLIENT, bar, PAGE, FromDevice, Attrs::MMIO);
    let Some(dma) = r.ok("dma_map_phys", mapped) else {
        return r.finish();
    };
    let mut list = [SgEntry::new(bar, PAGE)];
    let none = Attrs::empty();
    let mapped = r.b.map_sg(CLIENT, &mut list, FromDevice, none);
    r.ok("dma_map_sg", mapped);
    r.write(dma, 64, 7)?;
    r.write(list[0].dma_address, 64, 7)?;
    r.b.unmap_sg(CLIENT, &mut list, FromDevice, none);
    r.b.unmap_phys(CLIENT, dma, PAGE, FromDevice, Attrs::MMIO);
    r.finish()
}

/// Two ranges of a BAR in a DMABUF.
pub(super) fn dmabuf() -> Found {
    let mut r = Rig::new(Setup::default())?;
    let buf =
        r.b.export_dmabuf(FAR, &[(0x4000, 0x2000), (0x1000, 0x1000)]);
    let Some(mut buf) = r.ok("export", buf) else {
        return r.finish();
    };
    let dev = r.b.functions[CLIENT].dev;
    let at = buf.attach(Some(dev), ImporterOps::PEER);
    let Some(at) = r.ok("attach", at) else {
        return r.finish();
    };
    let sgt = r.b.map_dmabuf(CLIENT, &mut buf, at, Bidirectional);
    if let Some(sgt) = r.ok("dma_buf_map_attachment", sgt) {
        for s in sgt.segments() {
            r.write(s.dma, s.len, 7)?;
        }
        let unmapped = r.b.unmap_dmabuf(CLIENT, &mut buf, at, sgt);
        r.ok("dma_buf_unmap_attachment", unmapped);
    }
    r.finish()
}

/// A peer's page among the pages of a process.
pub(super) fn paged() -> Found {
    const VA: u64 = 0x7f12_3456_7000;
    let mut r = Rig::new(Setup::default())?;
    let mut user = UserMemory::default();
    for (i, phys) in [BUFFER, r.bar(FAR).offset(0x3000)].into_iter().enumerate() {
        let writable = true;
        user.insert(VA + i as u64 * PAGE, UserPage { phys, writable });
    }
    let region = r.b.odp_region(CLIENT, VA, 4);
    let Some(mut region) = r.ok("region", region) else {
        return r.finish();
    };
    let ready =
        r.b.odp_fault(CLIENT, &mut region, &user, (VA, 2 * PAGE), true);
    for (_, entry) in r.ok("fault", ready).unwrap_or_default() {
        r.write(entry.dma, 64, 7)?;
    }
    let unmapped = r.b.odp_invalidate(CLIENT, &mut region, VA, 2 * PAGE);
    r.ok("invalidate", unmapped);
    let released = region.release(&mut r.b.dma, &mut r.b.sim);
    r.ok("release", released);
    r.finish()
}

/// Requests of `nvme-pci`: a chained PRP list, a short one, an SGL, and metadata of a peer.
pub(super) fn nvme() -> Found {
    let pages = |n: u64| -> Vec<(u64, u32)> {
        let page = |i| (BUFFER.0 + 2 * PAGE * i, 4096);
        (0..n).map(page).collect()
    };
    let gaps = (0..5).map(|i| (BUFFER.0 + 2 * PAGE * i + 0x104, 0x600));
    let prp = Ctrl {
        sgls: false,
        ..Ctrl::default()
    };
    let mut found = Vec::new();
    for (setup, ctrl, vecs, meta) in [
        (direct(), prp, pages(515), false),
        (direct(), prp, pages(3), false),
        (direct(), Ctrl::default(), gaps.collect(), false),
        (Setup::default(), Ctrl::default(), pages(2), true),
    ] {
        let mut r = Rig::new(setup)?;
        let dev = r.b.functions[CLIENT].dev;
        let mut driver = Nvme::new(&mut r.b.dma, dev, ctrl)?;
        let Some(req) = request(&mut r, &vecs, meta) else {
            return r.finish();
        };
        let prepared =
            r.b.nvme_prep(CLIENT, &mut driver, Source::IO, &req, Command::new(2, 1, 1));
        if let Some(request) = r.ok("nvme_prep_rq", prepared.map_err(|e| format!("{e:?}"))) {
            let d = Descriptor {
                pattern: Some(5),
                ..data_transfer(&request.iod.cmd, true, req.payload_bytes(), 0)
            };
            r.transfer(&d)?;
            if let Some(d) =
                r.b.metadata_transfer(&request, true, req.integrity_bytes(), 0)
            {
                r.transfer(&d)?;
            }
            r.b.nvme_unmap(CLIENT, &mut driver, &req, request);
            if !meta {
                // Without an IOMMU the pattern is that of the physical address.
                for (phys, len) in vecs {
                    r.compare(PhysAddr(phys), DmaAddr(phys), len.into(), 5);
                }
            }
        }
        r.b.nvme_remove(CLIENT, driver);
        found.append(&mut r.finish()?);
    }
    Ok(found)
}

fn request(r: &mut Rig, vecs: &[(u64, u32)], meta: bool) -> Option<Request> {
    let vec = |phys: u64, len| r.b.dma.bio_vec(&r.b.sim, PhysAddr(phys), len).ok();
    let data: Option<Vec<_>> = vecs.iter().map(|(phys, len)| vec(*phys, *len)).collect();
    let integrity = vec(r.bar(FAR).0 + 0x100, 64)?;
    let mut bio = Bio::new(data?).ok()?;
    if meta {
        bio.add_integrity(integrity).ok()?;
    }
    Request::new(ReqOp::Read, vec![bio], &QueueLimits::default()).ok()
}

/// Large mappings: of large pages, of 64 KiB, and of pages where memory is aligned to nothing more.
pub(super) fn large() -> Found {
    let mut r = Rig::new(Setup::default())?;
    let none = Attrs::empty();
    for (phys, size) in [
        (BUFFER, 4 << 20),
        (BUFFER.offset(PAGE), 4 << 20),
        (BUFFER, 64 << 10),
        (BUFFER.offset(3 * PAGE), 256 << 10),
    ] {
        let mapped = r.b.map_phys(CLIENT, phys, size, FromDevice, none);
        let Some(dma) = r.ok("dma_map_phys", mapped) else {
            continue;
        };
        for at in [0, 5 * PAGE, size / 2, size - PAGE] {
            r.write(dma.offset(at), 256, 7)?;
        }
        r.b.unmap_phys(CLIENT, dma, size, FromDevice, none);
        r.rogue(dma, true)?;
        r.rogue(dma.offset(size - PAGE), true)?;
    }
    r.finish()
}

/// A page table goes with a range and comes back for another one.
pub(super) fn tables() -> Found {
    const SIZE: u64 = 2 << 20;
    let mut r = Rig::new(Setup::default())?;
    let (dev, none) = (r.b.functions[CLIENT].dev, Attrs::empty());
    // Aligned to pages only, so that every page has its entry.
    let phys = [BUFFER.offset(PAGE), BUFFER.offset(PAGE + 2 * SIZE)];
    let states = phys.map(|p| r.b.dma.dma_iova_try_alloc(dev, p, SIZE));
    let [Some(mut first), Some(mut second)] = states else {
        r.fail("no IOVA", String::new());
        return r.finish();
    };
    let whole = [(0, SIZE)];
    let linked =
        r.b.iova_link(CLIENT, &mut first, phys[0], 0, SIZE, (ToDevice, none));
    r.ok("dma_iova_link", linked);
    r.b.iova_promise(CLIENT, &first, &whole, none);
    let dma = first.addr();
    r.read(dma, 64)?;
    // Against its direction.
    r.rogue(dma, true)?;
    r.b.iova_unlink_free(CLIENT, &mut first, &whole, (ToDevice, none));
    let linked =
        r.b.iova_link(CLIENT, &mut second, phys[1], 0, SIZE, (ToDevice, none));
    r.ok("dma_iova_link", linked);
    r.b.iova_promise(CLIENT, &second, &whole, none);
    r.rogue(dma.offset(5 * PAGE), false)?;
    r.b.iova_destroy(CLIENT, &mut second, &whole, SIZE, (ToDevice, none));
    r.finish()
}

/// In lazy mode a range that was unmapped waits for the flush: until then the unit may still
/// translate it to where it was.
pub(super) fn lazy() -> Found {
    let mut r = Rig::new(Setup {
        attach: [Attach::Lazy; 3],
        ..Setup::default()
    })?;
    let none = Attrs::empty();
    for page in 0..4 {
        let phys = BUFFER.offset(page * PAGE);
        let mapped = r.b.map_phys(CLIENT, phys, PAGE, FromDevice, none);
        let Some(dma) = r.ok("dma_map_phys", mapped) else {
            continue;
        };
        let seed = 7 + page as u32;
        r.write(dma, 256, seed)?;
        r.compare(phys, dma, 256, seed);
        r.b.unmap_phys(CLIENT, dma, PAGE, FromDevice, none);
    }
    r.b.flush();
    r.finish()
}

/// A device is blocked while its mapping stays, and let in again.
pub(super) fn context() -> Found {
    let mut r = Rig::new(Setup::default())?;
    let (dev, bdf) = (r.b.functions[CLIENT].dev, r.b.functions[CLIENT].engine.bdf);
    let none = Attrs::empty();
    let mapped = r.b.map_phys(CLIENT, BUFFER, PAGE, FromDevice, none);
    let (Some(dma), Some(domain)) = (r.ok("dma_map_phys", mapped), r.b.dma.domain_of(dev)) else {
        return r.finish();
    };
    r.write(dma, 64, 7)?;
    let ending = r.b.revoke_begin(dev, dma, PAGE);
    if let Some(iommu) = r.b.dma.iommu_mut() {
        iommu.block(&mut r.b.sim, bdf)?;
    }
    for (_, id) in ending {
        r.b.sim.checker.revoke_end(id);
    }
    r.rogue(dma, true)?;
    if let Some(iommu) = r.b.dma.iommu_mut() {
        iommu.attach(&mut r.b.sim, bdf, Some(domain))?;
    }
    r.b.unmap_phys(CLIENT, dma, PAGE, FromDevice, none);
    r.finish()
}

/// A device writes while its buffer is unmapped; the CPU has the page afterwards.
pub(super) fn late_write() -> Found {
    const SIZE: u64 = 64 << 10;
    let mut found = Vec::new();
    for wait in [400, 700, 1000, 1300] {
        let mut r = Rig::new(Setup::default())?;
        let none = Attrs::empty();
        let mapped = r.b.map_phys(CLIENT, BUFFER, SIZE, FromDevice, none);
        let Some(dma) = r.ok("dma_map_phys", mapped) else {
            return r.finish();
        };
        r.write(dma, 64, 3)?;
        let b = &mut r.b;
        let d = Descriptor::pattern(1, true, dma, SIZE as u32, 7);
        b.functions[CLIENT].engine.submit(&mut b.sim, &d)?;
        b.sim.run(wait)?;
        b.unmap_phys(CLIENT, dma, SIZE, FromDevice, none);
        b.sim.mem_write(BUFFER, &vec![0x11; SIZE as usize]);
        b.sim.settle(1_000_000)?;
        let mut seen = vec![0; SIZE as usize];
        b.sim.mem_read(BUFFER, &mut seen);
        r.expect("late write", seen.iter().all(|b| *b == 0x11));
        found.append(&mut r.finish()?);
    }
    Ok(found)
}
