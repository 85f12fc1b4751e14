//! Peer memory without pages and pages of a process: calls that also enter the promise ledger.
//!
//! What is promised here comes from the buffer or from the process, not from the calls that mapped
//! it: a buffer's bytes follow each other whatever was linked where.

use std::collections::BTreeSet;

use tlproof_dma::{
    DeviceId, Dma,
    dmabuf::{AttachmentId, DmaBufError, DmaSgt, Importer, Ioas, PhysVec, VfioDmaBuf},
    hmm::HmmFlags,
    iommu::Prot,
    machine::Machine,
    odp::{OdpError, OdpRegion, UserMemory, XltEntry},
    p2pdma::MapType,
    pages::PAGE_SIZE,
    riscv::RiscvIommu,
};
use tlproof_golden::{MemoryKind, Promise, Route};
use tlproof_pcie::{Direction, DmaAddr, MemType, PhysAddr, config::ConfigSpace};

use super::Testbench;
use crate::endpoint::{Descriptor, Endpoint};

/// Polls of an endpoint before its accesses are said not to end.
const PATIENCE: u32 = 100_000;

/// A driver of an endpoint that uses a DMABUF.
struct EndpointImporter<'a> {
    engine: &'a mut Endpoint,
    at: AttachmentId,
    /// Its mapping, until it gives it back.
    sgt: Option<DmaSgt>,
}

impl EndpointImporter<'_> {
    /// Takes completion records until nothing is outstanding.
    fn drain(&mut self, m: &mut dyn Machine) -> bool {
        for _ in 0..PATIENCE {
            if self.engine.outstanding == 0 {
                return true;
            }
            match self.engine.poll(m) {
                Ok(Some(_)) => {}
                Ok(None) => m.relax(),
                Err(_) => return false,
            }
        }
        false
    }
}

impl Importer<RiscvIommu> for EndpointImporter<'_> {
    /// The driver queues no transfer any more.
    fn invalidate_mappings(
        &mut self,
        _: &mut Dma<RiscvIommu>,
        _: &mut dyn Machine,
        _: &VfioDmaBuf,
    ) {
    }

    /// Transfers end with their records; writes have then left the device, and a read of the
    /// buffer that comes back has pushed them to where they go (PCIe 6.0 §2.4.1).
    fn wait_fences(&mut self, m: &mut dyn Machine) -> bool {
        if !self.drain(m) {
            return false;
        }
        let Some(sgt) = self.sgt.as_ref().filter(|s| s.dir().device_reads()) else {
            return true;
        };
        for s in sgt.segments() {
            let flush = Descriptor::pattern(u16::MAX, false, s.dma, 4, 0);
            if self.engine.submit(m, &flush).is_err() {
                return false;
            }
        }
        self.drain(m)
    }

    fn unmap(&mut self, dma: &mut Dma<RiscvIommu>, m: &mut dyn Machine, buf: &mut VfioDmaBuf) {
        if let Some(sgt) = self.sgt.take() {
            // A mapping that is not this buffer's is kept, and the exporter will say so.
            let _ = buf.unmap(dma, m, self.at, sgt);
        }
    }
}

/// The part of a buffer that begins `skip` bytes in and is `len` bytes long.
fn part(ranges: &[PhysVec], mut skip: u64, mut len: u64) -> Vec<(PhysAddr, u64)> {
    let mut out = Vec::new();
    for r in ranges {
        if skip >= r.len {
            skip -= r.len;
            continue;
        }
        let n = (r.len - skip).min(len);
        if n == 0 {
            break;
        }
        out.push((r.phys.offset(skip), n));
        (skip, len) = (0, len - n);
    }
    out
}

/// Address, length and direction of what a device is given.
type Given = (DmaAddr, u64, Direction);

impl Testbench {
    /// How function `f` reaches the memory BAR of function `peer`.
    pub fn peer_map_type(&mut self, f: usize, peer: usize) -> MapType {
        let (provider, client) = (self.functions[peer].provider, self.functions[f].engine.bdf);
        let cs: &mut dyn ConfigSpace = &mut self.sim;
        self.dma.p2pdma.map_type(cs, provider, client)
    }

    /// Enters peer memory reached by its bus address, for which no mapping call is made.
    pub fn bus_address(&mut self, f: usize, phys: PhysAddr, size: u64) -> DmaAddr {
        let dev = self.functions[f].dev;
        let bdf = self.functions[f].engine.bdf;
        let dma = DmaAddr(self.sim.options().map.to_bus(phys).0);
        let promise = Promise {
            device: bdf,
            dma,
            size,
            segments: vec![(phys, size)],
            direction: Direction::Bidirectional,
            kind: MemoryKind::Mmio,
            expect: MemType::Device,
            snoop: false,
            route: Route::PeerBusAddress,
            via_iommu: false,
            call: format!("bus address of {phys:#x}, size={size}, for {bdf}"),
        };
        self.enter(dev, promise);
        dma
    }

    /// Ends what [`Testbench::bus_address`] entered.
    pub fn end_bus_address(&mut self, f: usize, dma: DmaAddr, size: u64) {
        let dev = self.functions[f].dev;
        let ending = self.revoke_begin(dev, dma, size);
        for (_, id) in ending {
            self.sim.checker.revoke_end(id);
        }
    }

    /// Exports ranges of the memory BAR of function `owner`.
    ///
    /// # Errors
    /// As the call.
    pub fn export_dmabuf(
        &mut self,
        owner: usize,
        ranges: &[(u64, u64)],
    ) -> Result<VfioDmaBuf, DmaBufError> {
        let bdf = self.functions[owner].engine.bdf;
        VfioDmaBuf::export(&mut self.dma.p2pdma, &mut self.sim, bdf, 2, ranges)
    }

    /// A promise of peer memory to function `f`.
    fn promise_peer(
        &mut self,
        f: usize,
        (dma, size, direction): Given,
        segments: Vec<(PhysAddr, u64)>,
        bus_address: bool,
        call: String,
    ) {
        let dev = self.functions[f].dev;
        let translated = self.dma.domain_of(dev).is_some() && !bus_address;
        let promise = Promise {
            device: self.functions[f].engine.bdf,
            dma,
            size,
            segments,
            direction,
            kind: MemoryKind::Mmio,
            expect: MemType::Device,
            snoop: false,
            route: if bus_address {
                Route::PeerBusAddress
            } else {
                Route::PeerThroughBridge
            },
            via_iommu: translated,
            call,
        };
        self.enter(dev, promise);
    }

    /// `dma_buf_map_attachment` for function `f`, entered in the ledger.
    ///
    /// # Errors
    /// As the call.
    pub fn map_dmabuf(
        &mut self,
        f: usize,
        buf: &mut VfioDmaBuf,
        at: AttachmentId,
        dir: Direction,
    ) -> Result<DmaSgt, DmaBufError> {
        self.calls += 1;
        let sgt = buf.map(&mut self.dma, &mut self.sim, at, dir)?;
        let mut skip = 0;
        for s in sgt.segments() {
            let call = format!(
                "dma_buf_map_attachment({}, {} ranges, dir={}) = {:#x}+{}",
                self.functions[f].engine.bdf,
                sgt.ranges().len(),
                dir.name(),
                s.dma,
                s.len
            );
            let segments = part(buf.ranges(), skip, s.len);
            self.promise_peer(f, (s.dma, s.len, dir), segments, sgt.is_bus_address(), call);
            skip += s.len;
        }
        Ok(sgt)
    }

    /// `dma_buf_unmap_attachment`.
    ///
    /// # Errors
    /// As the call.
    pub fn unmap_dmabuf(
        &mut self,
        f: usize,
        buf: &mut VfioDmaBuf,
        at: AttachmentId,
        sgt: DmaSgt,
    ) -> Result<(), DmaBufError> {
        self.calls += 1;
        let mut ending = Vec::new();
        for s in sgt.segments() {
            ending.extend(self.revoke_begin(self.functions[f].dev, s.dma, s.len));
        }
        let unmapped = buf.unmap(&mut self.dma, &mut self.sim, at, sgt);
        self.revoke_end(ending);
        unmapped
    }

    /// The exporter takes a buffer back that function `f` has mapped.
    ///
    /// # Errors
    /// As the call.
    pub fn revoke_dmabuf(
        &mut self,
        f: usize,
        buf: &mut VfioDmaBuf,
        at: AttachmentId,
        sgt: DmaSgt,
    ) -> Result<(), DmaBufError> {
        let mut ending = Vec::new();
        for s in sgt.segments() {
            ending.extend(self.revoke_begin(self.functions[f].dev, s.dma, s.len));
        }
        let mut importer = EndpointImporter {
            engine: &mut self.functions[f].engine,
            at,
            sgt: Some(sgt),
        };
        let revoked = buf.revoke(&mut self.dma, &mut self.sim, &mut [&mut importer]);
        self.revoke_end(ending);
        revoked
    }

    /// `IOMMU_IOAS_MAP_FILE` for the address space that function `f` is attached to, entered in
    /// the ledger.
    ///
    /// # Errors
    /// As the call.
    pub fn map_ioas(
        &mut self,
        f: usize,
        ioas: &mut Ioas,
        buf: &mut VfioDmaBuf,
        iova: u64,
        prot: Prot,
    ) -> Result<(), DmaBufError> {
        self.calls += 1;
        let len = ioas.map_dmabuf(&mut self.dma, &mut self.sim, buf, iova, prot)?;
        let dir = match (prot.contains(Prot::READ), prot.contains(Prot::WRITE)) {
            (true, false) => Direction::ToDevice,
            (false, true) => Direction::FromDevice,
            _ => Direction::Bidirectional,
        };
        let call = format!(
            "IOMMU_IOAS_MAP_FILE({}, iova={iova:#x}, {len} bytes, {prot:?})",
            self.functions[f].engine.bdf
        );
        let segments = part(buf.ranges(), 0, len);
        self.promise_peer(f, (DmaAddr(iova), len, dir), segments, false, call);
        Ok(())
    }

    /// `IOMMU_IOAS_UNMAP` of the address space that function `f` is attached to.
    ///
    /// # Errors
    /// As the call.
    pub fn unmap_ioas(
        &mut self,
        f: usize,
        ioas: &mut Ioas,
        buf: &mut VfioDmaBuf,
        iova: u64,
    ) -> Result<(), DmaBufError> {
        self.calls += 1;
        let len = ioas.area(iova).map_or(0, |(_, len)| len);
        let ending = self.revoke_begin(self.functions[f].dev, DmaAddr(iova), len);
        let unmapped = ioas.unmap_dmabuf(&mut self.dma, &mut self.sim, buf, iova);
        self.revoke_end(ending);
        unmapped
    }

    /// The exporter takes a buffer back that is mapped at `iova` of the address space of `f`.
    ///
    /// # Errors
    /// As the call.
    pub fn revoke_ioas(
        &mut self,
        f: usize,
        ioas: &mut Ioas,
        buf: &mut VfioDmaBuf,
        iova: u64,
    ) -> Result<(), DmaBufError> {
        let len = ioas.area(iova).map_or(0, |(_, len)| len);
        let ending = self.revoke_begin(self.functions[f].dev, DmaAddr(iova), len);
        let revoked = buf.revoke(&mut self.dma, &mut self.sim, &mut [ioas]);
        self.revoke_end(ending);
        revoked
    }

    /// A region of pages of a process for function `f`.
    ///
    /// # Errors
    /// As the call.
    pub fn odp_region(
        &mut self,
        f: usize,
        start: u64,
        pages: usize,
    ) -> Result<OdpRegion, OdpError> {
        let dev = self.functions[f].dev;
        OdpRegion::new(&mut self.dma, dev, start, pages)
    }

    /// A page fault of function `f`: what it can use afterwards is entered in the ledger, page by
    /// page as the process has them.
    ///
    /// # Errors
    /// As the call.
    pub fn odp_fault(
        &mut self,
        f: usize,
        region: &mut OdpRegion,
        user: &UserMemory,
        (va, len): (u64, u64),
        write: bool,
    ) -> Result<Vec<(u64, XltEntry)>, OdpError> {
        self.calls += 1;
        let before: BTreeSet<u64> = region.present().map(|(va, _)| va).collect();
        let ready = region.fault(&mut self.dma, &mut self.sim, user, va, len, write)?;
        for (va, entry) in &ready {
            // A page that was there has its promise already.
            if let Some(page) = user.page(*va).filter(|_| !before.contains(va)) {
                self.promise_page(f, region, (*va, entry.dma), page.phys);
            }
        }
        Ok(ready)
    }

    fn promise_page(
        &mut self,
        f: usize,
        region: &OdpRegion,
        (va, dma): (u64, DmaAddr),
        phys: PhysAddr,
    ) {
        let (dev, bdf): (DeviceId, _) = (self.functions[f].dev, self.functions[f].engine.bdf);
        let call = format!("hmm_dma_map_pfn({bdf}, {phys:#x} for {va:#x}) = {dma:#x}");
        let given = (dma, PAGE_SIZE, Direction::Bidirectional);
        let segments = vec![(phys, PAGE_SIZE)];
        if !self.sim.options().map.is_dram(phys, PAGE_SIZE) {
            let bus = region
                .pfn(va)
                .is_some_and(|p| p.flags().contains(HmmFlags::P2PDMA_BUS));
            self.promise_peer(f, given, segments, bus, call);
            return;
        }
        let promise = Promise {
            device: bdf,
            dma,
            size: PAGE_SIZE,
            segments,
            direction: Direction::Bidirectional,
            kind: MemoryKind::Dram,
            expect: MemType::WriteBack,
            snoop: true,
            route: Route::Memory,
            via_iommu: self.dma.domain_of(dev).is_some(),
            call,
        };
        self.enter(dev, promise);
    }

    /// The kernel moves pages of the process: the device's entries are zapped, its accesses have
    /// ended (the caller has seen to that), the pages are unmapped. Returns how many were mapped.
    ///
    /// # Errors
    /// As the call.
    pub fn odp_invalidate(
        &mut self,
        f: usize,
        region: &mut OdpRegion,
        va: u64,
        len: u64,
    ) -> Result<usize, OdpError> {
        self.calls += 1;
        let dev = self.functions[f].dev;
        let mut ending = Vec::new();
        for entry in region.zap(va, len)? {
            ending.extend(self.revoke_begin(dev, entry.dma, PAGE_SIZE));
        }
        let unmapped = region.unmap(&mut self.dma, &mut self.sim, va, len);
        self.revoke_end(ending);
        unmapped
    }
}
