//! Every report with a driver that provokes it and one that comes close and does not; what the
//! tracker changes; the rules by which an entry is found.

mod control;
mod map;
mod sync;
mod unmap;

use crate::{
    SgEntry,
    debug::{Area, DmaDebug, EntryType, MapErr, Options, Report},
    pages::PagePool,
    testing::bench::*,
};

fn all() -> Options {
    Options {
        all_errors: true,
        ..Options::default()
    }
}

fn nvme() -> Device {
    Device {
        driver: "nvme".into(),
        ..device()
    }
}

fn bench(debug: Option<Options>, device: Device, attach: Attach) -> Bench {
    let config = Config {
        debug,
        ..Config::default()
    };
    let mut b = Bench::new(config, device, attach);
    let pages = PagePool::new(Range::sized(RAM, 0x10_0000));
    b.dma.set_pages(Box::new(pages));
    b
}

fn direct() -> Bench {
    bench(Some(all()), nvme(), Attach::Direct)
}

fn translated() -> Bench {
    bench(Some(all()), nvme(), Attach::Strict)
}

impl Bench {
    fn mapped(&mut self, phys: u64, size: u64, dir: Direction, attrs: Attrs) -> u64 {
        self.map(phys, size, dir, attrs).unwrap()
    }

    fn raw(&mut self, phys: u64) -> DmaAddr {
        let (m, dev) = (&mut self.m, self.dev);
        self.dma
            .dma_map_phys_raw(m, dev, PhysAddr(phys), 64, ToDevice, NONE)
    }

    fn map_sg(&mut self, dir: Direction, buffers: &[(u64, u64)]) -> Vec<SgEntry> {
        let mut sg: Vec<_> = (buffers.iter())
            .map(|(p, len)| SgEntry::new(PhysAddr(*p), *len))
            .collect();
        let (m, dev) = (&mut self.m, self.dev);
        self.dma.dma_map_sg(m, dev, &mut sg, dir, NONE).unwrap();
        sg
    }

    fn unmap_sg(&mut self, sg: &mut [SgEntry], dir: Direction) {
        let (m, dev) = (&mut self.m, self.dev);
        self.dma.dma_unmap_sg(m, dev, sg, dir, NONE);
    }

    fn for_cpu(&mut self, dma: u64, size: u64, dir: Direction) {
        let (m, dev) = (&mut self.m, self.dev);
        self.dma
            .dma_sync_single_for_cpu(m, dev, DmaAddr(dma), size, dir);
    }

    fn for_device(&mut self, dma: u64, size: u64, dir: Direction) {
        let (m, dev) = (&mut self.m, self.dev);
        self.dma
            .dma_sync_single_for_device(m, dev, DmaAddr(dma), size, dir);
    }

    fn debug(&self) -> &DmaDebug {
        self.dma.debug().unwrap()
    }

    fn reports(&self) -> Vec<Report> {
        let shown = self.debug().log.shown().iter();
        shown.map(|c| c.report.clone()).collect()
    }

    /// Numbers of the reports so far, in order.
    #[track_caller]
    fn expect(&self, numbers: &[u8]) {
        let reports = self.reports();
        let got: Vec<_> = reports.iter().map(Report::number).collect();
        assert_eq!(got, numbers, "{reports:#?}");
    }
}
