//! Requests of `nvme-pci`, entered in the ledger mapping by mapping.

use tlproof_dma::{
    block::{BlkStatus, PhysVec, Request},
    nvme::{Command, DataPointer, Iod, IodFlags, MetadataPointer, Nvme, Source},
};
use tlproof_pcie::DmaAddr;

use super::Testbench;
use crate::endpoint::{Descriptor, SglDescriptor, SglKind};

/// A request in the hands of the device.
pub struct NvmeRequest {
    /// What the driver noted of it.
    pub iod: Iod,
    promised: Vec<(DmaAddr, u64)>,
}

impl NvmeRequest {
    /// Where the device finds the bytes of the data, then those of the metadata, in their order.
    #[must_use]
    pub fn spans(&self) -> &[(DmaAddr, u64)] {
        &self.promised
    }
}

impl Testbench {
    /// `nvme_prep_rq`: every mapping that it makes is entered, and the descriptor pages that it adds
    /// to the driver's pools.
    ///
    /// # Errors
    /// As the call.
    pub fn nvme_prep(
        &mut self,
        f: usize,
        nvme: &mut Nvme,
        source: Source,
        req: &Request,
        cmd: Command,
    ) -> Result<NvmeRequest, BlkStatus> {
        self.calls += 1;
        let mark = self.dma.trace.mark();
        let iod = nvme.prep_rq(&mut self.dma, &mut self.sim, source, req, cmd);
        let events = self.dma.trace.since(mark);
        let mapped = self.enter_mapped(f, "nvme_prep_rq", &events, iod.is_ok());
        let iod = iod?;
        // No call is made for what is reached by its bus address.
        let mut promised = Vec::new();
        if iod.flags().contains(IodFlags::DATA_P2P) {
            self.enter_bus(f, req.segments(), &mut promised);
        }
        promised.extend(mapped);
        if iod.flags().contains(IodFlags::META_P2P) {
            self.enter_bus(f, req.integrity_segments(), &mut promised);
        }
        Ok(NvmeRequest { iod, promised })
    }

    /// `nvme_pci_unmap_rq`: the promises end when it returns, or with the flush in lazy mode.
    pub fn nvme_unmap(&mut self, f: usize, nvme: &mut Nvme, req: &Request, r: NvmeRequest) {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let mut ending = Vec::new();
        for (dma, size) in &r.promised {
            ending.extend(self.revoke_begin(dev, *dma, *size));
        }
        nvme.unmap_rq(&mut self.dma, &mut self.sim, req, r.iod);
        for (dma, size) in r.promised {
            self.dma.dma_unmap_not_needed(dev, dma, size, req.dma_dir());
        }
        self.revoke_end(ending);
    }

    fn enter_bus(
        &mut self,
        f: usize,
        segments: impl Iterator<Item = PhysVec>,
        promised: &mut Vec<(DmaAddr, u64)>,
    ) {
        for s in segments {
            let dma = self.bus_address(f, s.paddr, s.len.into());
            promised.push((dma, s.len.into()));
        }
    }

    /// The transfer of a request's metadata, as [`data_transfer`]; `None` for one without.
    pub fn metadata_transfer(
        &mut self,
        r: &NvmeRequest,
        write: bool,
        len: u32,
        local: u32,
    ) -> Option<Descriptor> {
        let cid = r.iod.cmd.cid;
        match r.iod.cmd.mptr {
            MetadataPointer::None => None,
            MetadataPointer::Buffer(addr) => {
                Some(Descriptor::contiguous(cid, write, addr, len, local))
            }
            MetadataPointer::Segment(addr) => {
                // The engine is told whether this one descriptor is data or leads to a list.
                let mut first = [0; SglDescriptor::SIZE as usize];
                let block = r.iod.meta_descriptor()?;
                block.read(&mut self.sim, 0, &mut first).ok()?;
                let kind = match first[15] >> 4 {
                    0 => SglKind::LastSegment,
                    _ => SglKind::Segment,
                };
                let sgl = SglDescriptor::new(kind, addr, SglDescriptor::SIZE as u32);
                Some(Descriptor::sgl(cid, write, sgl, len, local))
            }
        }
    }

    /// Gives the driver's descriptor pools back.
    pub fn nvme_remove(&mut self, f: usize, nvme: Nvme) {
        let dev = self.functions[f].dev;
        let mut ending = Vec::new();
        for page in nvme.pool_pages() {
            ending.extend(self.revoke_begin(dev, page.dma, page.size));
        }
        nvme.remove(&mut self.dma, &mut self.sim);
        self.revoke_end(ending);
    }
}

/// What a controller makes of a command: the transfer of `len` bytes of data between the memory that
/// DPTR leads to and its local memory at `local`.
#[must_use]
pub fn data_transfer(cmd: &Command, write: bool, len: u32, local: u32) -> Descriptor {
    match cmd.dptr {
        DataPointer::Prp { prp1, prp2 } => {
            Descriptor::prp(cmd.cid, write, [prp1, prp2], len, local)
        }
        DataPointer::Sgl(d) => {
            let kind = match d.kind {
                tlproof_dma::nvme::SglType::Data => SglKind::DataBlock,
                tlproof_dma::nvme::SglType::Segment => SglKind::Segment,
                tlproof_dma::nvme::SglType::LastSegment => SglKind::LastSegment,
            };
            let sgl = SglDescriptor::new(kind, d.addr, d.length);
            Descriptor::sgl(cmd.cid, write, sgl, len, local)
        }
    }
}
