//! A machine made of maps: decisions and traffic without hardware.

use std::collections::{HashMap, VecDeque};

use tlproof_dma::{
    Config, DeviceId, Dma, Profile,
    iommu::{DomainId, Gather, IommuDriver, IommuError, Prot},
    machine::Machine,
    p2pdma::{Provider, ProviderId},
};
use tlproof_pcie::{
    Bdf, CplStatus, DmaAddr, MemoryMap, PhysAddr, Range,
    config::{AccessError, ConfigSpace},
    tree::Acs,
};

use crate::{
    endpoint::{Completion, Descriptor, pattern_bytes},
    replay::{
        machine::{BAR_SIZE, ENDPOINTS, Plan},
        target::Target,
    },
    testbench::Error,
};

const PAGE: u64 = 4096;

/// Main memory and the configuration space of a switch with two endpoints and a root port with one.
pub(super) struct Ram {
    map: MemoryMap,
    pages: HashMap<u64, Box<[u8; PAGE as usize]>>,
    functions: HashMap<Bdf, Vec<u8>>,
    time: u64,
}

/// The endpoints, in order.
pub(super) const FUNCTIONS: [Bdf; ENDPOINTS] =
    [Bdf::new(3, 0, 0), Bdf::new(4, 0, 0), Bdf::new(5, 0, 0)];

impl Ram {
    fn new(map: MemoryMap, acs: Acs) -> Self {
        let mut m = Self {
            map,
            pages: HashMap::new(),
            functions: HashMap::new(),
            time: 0,
        };
        m.bridge(Bdf::new(0, 2, 0), 4, (1, 4), acs);
        m.bridge(Bdf::new(1, 0, 0), 5, (2, 4), Acs::empty());
        m.bridge(Bdf::new(2, 0, 0), 6, (3, 3), acs);
        m.bridge(Bdf::new(2, 1, 0), 6, (4, 4), acs);
        m.bridge(Bdf::new(0, 3, 0), 4, (5, 5), acs);
        for bdf in FUNCTIONS {
            m.function(bdf);
        }
        m
    }

    fn function(&mut self, bdf: Bdf) -> &mut Vec<u8> {
        let mut c = vec![0; 4096];
        c[..4].copy_from_slice(&0x0e9d_1b36u32.to_le_bytes());
        self.functions.entry(bdf).or_insert(c)
    }

    fn bridge(&mut self, bdf: Bdf, port: u8, (secondary, subordinate): (u8, u8), acs: Acs) {
        let c = self.function(bdf);
        c[0x06] = 0x10;
        c[0x0e] = 1;
        c[0x19] = secondary;
        c[0x1a] = subordinate;
        c[0x34] = 0x60;
        c[0x60] = 0x10;
        c[0x62] = port << 4 | 2;
        c[0x100..0x104].copy_from_slice(&0x0001_000du32.to_le_bytes());
        c[0x106..0x108].copy_from_slice(&acs.bits().to_le_bytes());
    }

    /// What is left of the page from `addr` on.
    fn tail(&mut self, addr: u64) -> &mut [u8] {
        let page = self
            .pages
            .entry(addr / PAGE)
            .or_insert_with(|| Box::new([0; PAGE as usize]));
        &mut page[(addr % PAGE) as usize..]
    }
}

impl ConfigSpace for Ram {
    fn config_read(&mut self, bdf: Bdf, reg: u16, size: u8) -> Result<u32, AccessError> {
        let c = self.functions.get(&bdf).ok_or(AccessError::Unsupported)?;
        let at = usize::from(reg);
        let bytes = &c[at..at + usize::from(size)];
        Ok(bytes.iter().rev().fold(0, |v, b| v << 8 | u32::from(*b)))
    }

    fn config_write(&mut self, _: Bdf, _: u16, _: u8, _: u32) -> Result<(), AccessError> {
        Err(AccessError::Unsupported)
    }
}

impl Machine for Ram {
    fn memory_map(&self) -> &MemoryMap {
        &self.map
    }

    fn mmio_read(&mut self, _: PhysAddr, _: u8) -> Result<u64, AccessError> {
        Err(AccessError::Unsupported)
    }

    fn mmio_write(&mut self, _: PhysAddr, _: u8, _: u64) -> Result<(), AccessError> {
        Err(AccessError::Unsupported)
    }

    fn mem_read(&mut self, addr: PhysAddr, mut buf: &mut [u8]) {
        let mut at = addr.0;
        while !buf.is_empty() {
            let tail = self.tail(at);
            let n = tail.len().min(buf.len());
            buf[..n].copy_from_slice(&tail[..n]);
            buf = &mut buf[n..];
            at += n as u64;
        }
    }

    fn mem_write(&mut self, addr: PhysAddr, mut data: &[u8]) {
        let mut at = addr.0;
        while !data.is_empty() {
            let tail = self.tail(at);
            let n = tail.len().min(data.len());
            tail[..n].copy_from_slice(&data[..n]);
            data = &data[n..];
            at += n as u64;
        }
    }

    fn cache_clean(&mut self, _: PhysAddr, _: u64) {}
    fn cache_invalidate(&mut self, _: PhysAddr, _: u64) {}

    fn relax(&mut self) {
        self.time += 1;
    }

    fn now(&self) -> u64 {
        self.time
    }
}

/// An IOMMU whose tables are a map of pages.
#[derive(Default)]
pub(super) struct Pages {
    pages: HashMap<(u32, u64), (u64, Prot)>,
    attached: HashMap<Bdf, DomainId>,
    domains: u32,
}

impl IommuDriver for Pages {
    fn page_sizes(&self, _: DomainId) -> u64 {
        PAGE | 2 << 20
    }

    fn aperture(&self, _: DomainId) -> (u64, u64) {
        (0, (1 << 47) - 1)
    }

    fn domain_alloc(&mut self, _: &mut dyn Machine) -> Result<DomainId, IommuError> {
        self.domains += 1;
        Ok(DomainId(self.domains))
    }

    fn domain_free(&mut self, _: &mut dyn Machine, _: DomainId) {}

    fn attach(
        &mut self,
        _: &mut dyn Machine,
        device: Bdf,
        domain: Option<DomainId>,
    ) -> Result<(), IommuError> {
        match domain {
            Some(d) => self.attached.insert(device, d),
            None => self.attached.remove(&device),
        };
        Ok(())
    }

    fn block(&mut self, _: &mut dyn Machine, _: Bdf) -> Result<(), IommuError> {
        Err(IommuError::Unsupported)
    }

    fn map(
        &mut self,
        _: &mut dyn Machine,
        domain: DomainId,
        iova: u64,
        phys: PhysAddr,
        size: u64,
        prot: Prot,
    ) -> Result<(), IommuError> {
        if (iova | phys.0 | size) & (PAGE - 1) != 0 {
            return Err(IommuError::Misaligned);
        }
        for at in (0..size).step_by(PAGE as usize) {
            let old = self
                .pages
                .insert((domain.0, iova + at), (phys.0 + at, prot));
            if old.is_some() {
                return Err(IommuError::InUse);
            }
        }
        Ok(())
    }

    fn unmap(
        &mut self,
        _: &mut dyn Machine,
        domain: DomainId,
        iova: u64,
        size: u64,
        gather: &mut Gather,
    ) -> u64 {
        let mut n = 0;
        for at in (0..size).step_by(PAGE as usize) {
            n += u64::from(self.pages.remove(&(domain.0, iova + at)).is_some()) * PAGE;
        }
        let (first, last) = gather.range.unwrap_or((iova, iova));
        gather.range = Some((first.min(iova), last.max(iova + size - 1)));
        n
    }

    fn iotlb_sync(
        &mut self,
        _: &mut dyn Machine,
        _: DomainId,
        _: Gather,
    ) -> Result<(), IommuError> {
        Ok(())
    }

    fn flush_all(&mut self, _: &mut dyn Machine, _: DomainId) -> Result<(), IommuError> {
        Ok(())
    }

    fn iova_to_phys(&self, _: &mut dyn Machine, domain: DomainId, iova: u64) -> Option<PhysAddr> {
        let (phys, _) = self.pages.get(&(domain.0, iova & !(PAGE - 1)))?;
        Some(PhysAddr(phys + iova % PAGE))
    }

    fn leaf_entry(&self, _: &mut dyn Machine, _: DomainId, _: u64) -> Option<u64> {
        None
    }
}

/// What is wrong with the devices.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    None,
    /// Every other byte written is wrong.
    Data,
    /// Nothing is ever refused.
    Open,
}

/// The machine with its devices, which do their transfers at once.
pub(super) struct Fake {
    dma: Dma<Pages>,
    m: Ram,
    functions: Vec<(DeviceId, ProviderId)>,
    bars: [PhysAddr; ENDPOINTS],
    done: [VecDeque<Completion>; ENDPOINTS],
    defect: Defect,
    probing: bool,
    /// Transfers that were refused though promised.
    pub(super) refused: u64,
    /// Probes that were not.
    pub(super) leaked: u64,
    pub(super) compared: u64,
    pub(super) wrong: u64,
    pub(super) promised: i64,
}

impl Fake {
    pub(super) fn new(plan: &Plan, profile: Profile, defect: Defect) -> Self {
        let aperture = plan.map.aperture;
        let mut m = Ram::new(plan.map.clone(), plan.acs);
        let config = Config::new(profile).reserve_window(aperture, 0);
        let mut dma = Dma::new(config, plan.iommu.then(Pages::default));
        dma.p2pdma.policy = plan.policy;
        let base = aperture.base.0.next_multiple_of(BAR_SIZE);
        let bars = std::array::from_fn(|i| PhysAddr(base + BAR_SIZE * i as u64));
        let mut functions = Vec::new();
        for (i, bdf) in FUNCTIONS.into_iter().enumerate() {
            let role = plan.roles[i];
            let dev = dma
                .add_device(&mut m, role.device(bdf), role.attach)
                .unwrap();
            let provider = dma.p2pdma.add(Provider {
                owner: bdf,
                range: Range::sized(bars[i].0, BAR_SIZE),
                bus_offset: 0,
                pages: true,
            });
            functions.push((dev, provider));
        }
        if let Some(pool) = plan.pool.and_then(|p| p.build()) {
            dma.set_swiotlb(pool);
        }
        Self {
            dma,
            m,
            functions,
            bars,
            done: Default::default(),
            defect,
            probing: false,
            refused: 0,
            leaked: 0,
            compared: 0,
            wrong: 0,
            promised: 0,
        }
    }

    /// The physical address of one byte, if the device gets there.
    fn translate(&self, f: usize, addr: u64, write: bool) -> Option<u64> {
        let Some(iommu) = self.dma.iommu() else {
            return Some(addr);
        };
        let Some(domain) = iommu.attached.get(&FUNCTIONS[f]) else {
            return Some(addr);
        };
        if self
            .bars
            .iter()
            .any(|b| addr >= b.0 && addr - b.0 < BAR_SIZE)
        {
            return Some(addr);
        }
        let (phys, prot) = iommu.pages.get(&(domain.0, addr & !(PAGE - 1)))?;
        let want = if write { Prot::WRITE } else { Prot::READ };
        prot.contains(want).then_some(phys + addr % PAGE)
    }
}

impl Target for Fake {
    type Iommu = Pages;
    type Ending = ();
    type Probe = ();

    fn parts(&mut self) -> (&mut Dma<Pages>, &mut dyn Machine) {
        (&mut self.dma, &mut self.m)
    }

    fn bdf(&self, f: usize) -> Bdf {
        FUNCTIONS[f]
    }

    fn dev(&self, f: usize) -> DeviceId {
        self.functions[f].0
    }

    fn bar(&self, f: usize) -> PhysAddr {
        self.bars[f]
    }

    fn provider(&self, f: usize) -> ProviderId {
        self.functions[f].1
    }

    fn called(&mut self) {}

    fn promise(&mut self, f: usize, dma: DmaAddr, _: String) {
        assert!(self.dma.describe(self.dev(f), dma).is_some());
        self.promised += 1;
    }

    fn revoke_begin(&mut self, f: usize, dma: DmaAddr, size: u64) {
        let live = self.dma.describe(self.dev(f), dma);
        assert!(live.is_some_and(|m| m.contains(dma)), "{dma} + {size}");
        self.promised -= 1;
    }

    fn revoke_end(&mut self, (): ()) {}

    fn bus_address(&mut self, _: usize, phys: PhysAddr, _: u64) -> DmaAddr {
        DmaAddr(phys.0)
    }

    fn end_bus_address(&mut self, _: usize, _: DmaAddr, _: u64) {}

    fn flush_begin(&mut self, f: usize) {
        let dev = self.dev(f);
        self.dma.flush_begin(dev);
    }

    fn flush_end(&mut self, f: usize) {
        let dev = self.dev(f);
        self.dma.flush_end(&mut self.m, dev);
    }

    fn timers(&mut self) {
        self.dma.tick(&mut self.m);
    }

    fn outstanding(&self, f: usize) -> usize {
        self.done[f].len()
    }

    fn submit(&mut self, f: usize, d: &Descriptor) -> Result<(), Error> {
        let mut bytes = vec![0; d.len as usize];
        pattern_bytes(d.addr, d.pattern.unwrap_or(0), &mut bytes);
        let mut ok = true;
        for (addr, b) in (d.addr.0..).zip(bytes) {
            match self.translate(f, addr, d.write) {
                Some(phys) if d.write => {
                    let wrong = self.defect == Defect::Data && addr % 2 == 0;
                    self.m.tail(phys)[0] = if wrong { !b } else { b };
                }
                Some(_) => {}
                None => ok = self.defect == Defect::Open,
            }
        }
        match (self.probing, ok) {
            (true, true) => self.leaked += 1,
            (false, false) => self.refused += 1,
            _ => {}
        }
        let status = Some(if ok {
            CplStatus::Success
        } else {
            CplStatus::UnsupportedRequest
        });
        self.done[f].push_back(Completion {
            id: d.id,
            status,
            list: None,
        });
        Ok(())
    }

    fn poll(&mut self, f: usize) -> Result<Option<Completion>, Error> {
        Ok(self.done[f].pop_front())
    }

    fn run(&mut self, cycles: u64) -> Result<(), Error> {
        self.m.time += cycles;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn expect_rogue(&mut self, _: usize, _: DmaAddr, _: u64, _: bool) {
        self.probing = true;
    }

    fn rogue_done(&mut self, (): ()) {
        self.probing = false;
    }

    fn compare(&mut self, _: DmaAddr, want: &[u8], got: &[u8]) {
        self.compared += 1;
        self.wrong += u64::from(want != got);
    }

    fn stop(&self) -> bool {
        false
    }
}
