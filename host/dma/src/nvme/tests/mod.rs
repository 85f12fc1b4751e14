mod controller;
mod defects;
mod metadata;
mod random;
mod table;

use super::*;
use crate::{
    Attach, Attrs, Device, Event,
    block::{
        Bio, ReqOp,
        testing::{BAR, BAR_BUS, Bench, FAR, NEAR, RAM},
    },
    testing::Op,
};

/// A driver on a fake machine.
struct Rig {
    b: Bench,
    nvme: Nvme,
}

impl Rig {
    fn new(device: Device, attach: Attach, ctrl: Ctrl) -> Self {
        let mut b = Bench::new(device, attach);
        let nvme = Nvme::new(&mut b.dma, b.dev, ctrl).unwrap();
        Self { b, nvme }
    }

    fn strict(bdf: tlproof_pcie::Bdf) -> Self {
        Self::new(Device::new(bdf), Attach::Strict, Ctrl::default())
    }

    fn request(&self, queue: Queue, op: ReqOp, vecs: &[(u64, u32)]) -> Request {
        let limits = self.nvme.limits(&self.b.dma, queue);
        Request::new(op, vec![self.b.bio(vecs)], &limits).unwrap()
    }

    fn prep(&mut self, source: Source, req: &Request) -> Result<Iod, BlkStatus> {
        let (dma, m) = (&mut self.b.dma, &mut self.b.m);
        let cmd = Command::new(2, 1, 1);
        self.nvme.prep_rq(dma, m, source, req, cmd)
    }

    fn unmap(&mut self, req: &Request, iod: Iod) {
        self.nvme.unmap_rq(&mut self.b.dma, &mut self.b.m, req, iod);
    }

    /// What the controller would access for the data.
    fn reached(&mut self, req: &Request, iod: &Iod) -> Result<Vec<u64>, controller::Fault> {
        let cmd = iod.cmd.to_bytes();
        let pieces = controller::data(&mut self.b, &cmd, req.payload_bytes())?;
        controller::reached(&mut self.b, &pieces)
    }

    /// What the controller would access for the metadata.
    fn meta_reached(&mut self, req: &Request, iod: &Iod) -> Result<Vec<u64>, controller::Fault> {
        let cmd = iod.cmd.to_bytes();
        let pieces = controller::metadata(&mut self.b, &cmd, req.integrity_bytes())?;
        controller::reached(&mut self.b, &pieces)
    }

    /// Everything is given back and nothing was wrong.
    fn finish(self) {
        let mut b = self.b;
        assert_eq!(self.nvme.descriptors_used(), 0);
        self.nvme.remove(&mut b.dma, &mut b.m);
        b.assert_clean();
    }
}

/// The addresses of the bytes of vectors.
fn bytes(vecs: impl IntoIterator<Item = (u64, u32)>) -> Vec<u64> {
    let ranges = vecs.into_iter().map(|(a, n)| a..a + u64::from(n));
    ranges.flatten().collect()
}

fn pages(base: u64, count: u64, step: u64) -> Vec<(u64, u32)> {
    (0..count).map(|i| (base + i * step, 4096)).collect()
}
