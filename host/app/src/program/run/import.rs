//! Devices in the hands of a user (iommufd).

use tlproof_dma::{
    dmabuf::{DmaBufError, Ioas, VfioDmaBuf},
    iommu::Prot,
};
use tlproof_pcie::{Direction, DmaAddr};

use super::{PAGE, PEER_MEMORY, Runner};
use crate::{endpoint::Descriptor, testbench::Error};

/// Where the user maps the buffer.
const IOVA: u64 = 0x1000_0000;

impl Runner {
    /// Pages of a peer's BAR in an address space that takes a device over for as long.
    pub(super) fn import(
        &mut self,
        (dev, peer): (usize, usize),
        (page, n): (u32, u32),
        dir: Direction,
        revoke: bool,
    ) -> Result<(), Error> {
        let (f, peer) = (self.device(dev), self.device(peer));
        let translated = self.bench.dma.domain_of(self.bench.functions[f].dev);
        if f == peer || translated.is_none() {
            return Ok(());
        }
        // Nobody may be on his way: the device changes hands, and its peer may stop to decode.
        self.rest()?;
        let all = u64::from(PEER_MEMORY) / PAGE;
        let page = u64::from(page) % all;
        let n = u64::from(n).clamp(1, all - page);
        let bdf = self.bench.functions[f].engine.bdf;
        let begun = self.bench.export_dmabuf(peer, &[(page * PAGE, n * PAGE)]);
        let begun = begun.and_then(|buf| {
            let (dma, sim) = (&mut self.bench.dma, &mut self.bench.sim);
            let mut ioas = Ioas::new(dma, sim)?;
            match ioas.attach(dma, sim, bdf) {
                Ok(()) => Ok((buf, ioas)),
                Err(e) => Err(ioas.destroy(dma, sim).map_or_else(|(_, e)| e, |()| e)),
            }
        });
        let (mut buf, mut ioas) = match begun {
            Ok(begun) => begun,
            Err(DmaBufError::NotCoherent) => {
                self.out.refused += 1;
                return Ok(());
            }
            Err(e) => {
                self.fail("import", e.to_string());
                return Ok(());
            }
        };
        if let Err(e) = self.used(f, &mut ioas, &mut buf, dir)? {
            self.fail("import", e.to_string());
        }
        if let Err(e) = self.given_back(f, ioas, buf, revoke)? {
            self.fail("import", e.to_string());
        }
        Ok(())
    }

    /// The buffer is mapped, and the device does all that it may.
    fn used(
        &mut self,
        f: usize,
        ioas: &mut Ioas,
        buf: &mut VfioDmaBuf,
        dir: Direction,
    ) -> Result<Result<(), DmaBufError>, Error> {
        let mut prot = Prot::empty();
        prot.set(Prot::READ, dir.device_reads());
        prot.set(Prot::WRITE, dir.device_writes());
        if let Err(e) = self.bench.map_ioas(f, ioas, buf, IOVA, prot) {
            return Ok(Err(e));
        }
        let len = ioas.area(IOVA).map_or(0, |(_, len)| len) as u32;
        for (write, may) in [(true, dir.device_writes()), (false, dir.device_reads())] {
            if !may {
                continue;
            }
            self.transfer = self.transfer.wrapping_add(1);
            let seed = u32::from(self.transfer) << 8;
            let d = Descriptor::pattern(self.transfer, write, DmaAddr(IOVA), len, seed);
            let done = self.alone(f, &d)?;
            if !done.is_success() {
                self.fail("import", format!("{done:?}"));
            }
        }
        self.bench.sim.settle(100_000)?;
        Ok(Ok(()))
    }

    /// The mapping ends, and the device is the DMA API's again.
    fn given_back(
        &mut self,
        f: usize,
        mut ioas: Ioas,
        mut buf: VfioDmaBuf,
        revoke: bool,
    ) -> Result<Result<(), DmaBufError>, Error> {
        let bdf = self.bench.functions[f].engine.bdf;
        let mut ended = Ok(());
        if revoke {
            ended = self.bench.revoke_ioas(f, &mut ioas, &mut buf, IOVA);
            self.bench.sim.settle(100_000)?;
            ended = ended.and(buf.restore(&mut self.bench.sim));
        }
        let unmapped = self.bench.unmap_ioas(f, &mut ioas, &mut buf, IOVA);
        let (dma, sim) = (&mut self.bench.dma, &mut self.bench.sim);
        let detached = ioas.detach(dma, sim, bdf);
        let destroyed = ioas.destroy(dma, sim).map_err(|(_, e)| e);
        Ok(ended.and(unmapped).and(detached).and(destroyed))
    }
}
