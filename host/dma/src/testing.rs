//! A machine and an IOMMU in memory, for tests. Both write down what they are asked for, in one
//! list, so that the order of things can be checked.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use tlproof_pcie::{
    Bdf, BusAddr, MemoryMap, PhysAddr,
    config::{AccessError, ConfigSpace},
    tree::{Bar, BarKind},
};

use crate::{
    iommu::{DomainId, Gather, IommuDriver, IommuError, Prot},
    machine::Machine,
};

pub mod bench;
pub mod recorder;

const LINE: u64 = 64;
const PAGE: u64 = 4096;

/// What was done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Clean(u64, u64),
    Invalidate(u64, u64),
    CpuWrite(u64, u64),
    MmioRead(u64),
    MmioWrite(u64),
    Map {
        iova: u64,
        phys: u64,
        size: u64,
        prot: u32,
    },
    Unmap {
        iova: u64,
        size: u64,
    },
    Sync,
    FlushAll,
    ConfigWrite(Bdf, u16, u32),
}

pub type Log = Rc<RefCell<Vec<Op>>>;

/// Memory with a write-back cache in front, and a configuration space.
#[derive(Default)]
pub struct FakeMachine {
    map: MemoryMap,
    memory: BTreeMap<u64, [u8; LINE as usize]>,
    cache: BTreeMap<u64, ([u8; LINE as usize], bool)>,
    functions: BTreeMap<Bdf, Vec<u8>>,
    pub time: u64,
    pub log: Log,
}

/// The cache lines of a range, which ends where addresses do.
fn lines(addr: PhysAddr, len: u64) -> std::ops::RangeInclusive<u64> {
    let last = len.checked_sub(1).map(|n| addr.0.saturating_add(n));
    last.map_or(std::ops::RangeInclusive::new(1, 0), |last| {
        addr.0 / LINE..=last / LINE
    })
}

impl FakeMachine {
    pub fn take(&self) -> Vec<Op> {
        std::mem::take(&mut self.log.borrow_mut())
    }

    /// A device's read that does not look into the cache.
    pub fn device_read(&self, phys: u64, len: u64) -> Vec<u8> {
        (phys..phys + len)
            .map(|a| {
                self.memory
                    .get(&(a / LINE))
                    .map_or(0, |l| l[(a % LINE) as usize])
            })
            .collect()
    }

    /// A device's write that does not look into the cache.
    pub fn device_write(&mut self, phys: u64, data: &[u8]) {
        for (a, b) in (phys..).zip(data) {
            self.memory.entry(a / LINE).or_insert([0; LINE as usize])[(a % LINE) as usize] = *b;
        }
    }

    pub fn cpu_read(&mut self, phys: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        self.mem_read(PhysAddr(phys), &mut buf);
        buf
    }

    fn line(&mut self, line: u64) -> &mut ([u8; LINE as usize], bool) {
        let fresh = self
            .memory
            .get(&line)
            .copied()
            .unwrap_or([0; LINE as usize]);
        self.cache.entry(line).or_insert((fresh, false))
    }

    /// A function with an ID and, when given, an ACS control register.
    pub fn add_function(&mut self, bdf: Bdf, id: u32, acs: Option<u16>) {
        let mut c = vec![0; 4096];
        c[..4].copy_from_slice(&id.to_le_bytes());
        // A capability in front of ACS, so that the list is walked.
        c[0x100..0x104].copy_from_slice(&0x1401_0001u32.to_le_bytes());
        if let Some(control) = acs {
            c[0x140..0x144].copy_from_slice(&0x0001_000du32.to_le_bytes());
            c[0x146..0x148].copy_from_slice(&control.to_le_bytes());
        }
        self.functions.insert(bdf, c);
    }

    /// A bridge: port type of the PCI Express capability, secondary and subordinate bus.
    pub fn add_bridge(&mut self, bdf: Bdf, id: u32, port: u8, buses: (u8, u8), acs: Option<u16>) {
        self.add_function(bdf, id, acs);
        let c = self.functions.get_mut(&bdf).unwrap();
        c[0x06] = 0x10;
        c[0x0e] = 1;
        c[0x18] = bdf.bus();
        c[0x19] = buses.0;
        c[0x1a] = buses.1;
        c[0x34] = 0x50;
        c[0x50] = 0x01;
        c[0x51] = 0x60;
        c[0x60] = 0x10;
        c[0x62] = port << 4 | 2;
    }

    /// Functions beyond 0 are looked for.
    pub fn set_multifunction(&mut self, bdf: Bdf) {
        self.functions.get_mut(&bdf).unwrap()[0x0e] |= 0x80;
    }

    pub fn set_acs(&mut self, bdf: Bdf, control: u16) {
        self.functions.get_mut(&bdf).unwrap()[0x146..0x148].copy_from_slice(&control.to_le_bytes());
    }
}

impl ConfigSpace for FakeMachine {
    fn config_read(&mut self, bdf: Bdf, reg: u16, size: u8) -> Result<u32, AccessError> {
        let c = self.functions.get(&bdf).ok_or(AccessError::Unsupported)?;
        let at = usize::from(reg);
        Ok(c[at..at + usize::from(size)]
            .iter()
            .rev()
            .fold(0, |v, b| v << 8 | u32::from(*b)))
    }

    fn config_write(
        &mut self,
        bdf: Bdf,
        reg: u16,
        size: u8,
        value: u32,
    ) -> Result<(), AccessError> {
        let c = self
            .functions
            .get_mut(&bdf)
            .ok_or(AccessError::Unsupported)?;
        let at = usize::from(reg);
        c[at..at + usize::from(size)].copy_from_slice(&value.to_le_bytes()[..usize::from(size)]);
        self.log.borrow_mut().push(Op::ConfigWrite(bdf, reg, value));
        Ok(())
    }
}

impl Machine for FakeMachine {
    fn memory_map(&self) -> &MemoryMap {
        &self.map
    }

    fn mmio_read(&mut self, addr: PhysAddr, _: u8) -> Result<u64, AccessError> {
        self.log.borrow_mut().push(Op::MmioRead(addr.0));
        Ok(0xa5)
    }

    fn mmio_write(&mut self, addr: PhysAddr, _: u8, _: u64) -> Result<(), AccessError> {
        self.log.borrow_mut().push(Op::MmioWrite(addr.0));
        Ok(())
    }

    fn mem_read(&mut self, addr: PhysAddr, buf: &mut [u8]) {
        for (a, b) in (addr.0..).zip(buf) {
            *b = self.line(a / LINE).0[(a % LINE) as usize];
        }
    }

    fn mem_write(&mut self, addr: PhysAddr, data: &[u8]) {
        self.log
            .borrow_mut()
            .push(Op::CpuWrite(addr.0, data.len() as u64));
        for (a, b) in (addr.0..).zip(data) {
            let line = self.line(a / LINE);
            line.0[(a % LINE) as usize] = *b;
            line.1 = true;
        }
    }

    fn cache_clean(&mut self, addr: PhysAddr, len: u64) {
        self.log.borrow_mut().push(Op::Clean(addr.0, len));
        let range = lines(addr, len);
        for (line, (data, dirty)) in self
            .cache
            .range_mut(addr.0 / LINE..)
            .take_while(|(l, _)| range.contains(l))
        {
            if std::mem::take(dirty) {
                self.memory.insert(*line, *data);
            }
        }
    }

    fn cache_invalidate(&mut self, addr: PhysAddr, len: u64) {
        self.log.borrow_mut().push(Op::Invalidate(addr.0, len));
        self.cache
            .retain(|line, _| !lines(addr, len).contains(line));
    }

    fn relax(&mut self) {
        self.time += 1;
    }

    fn now(&self) -> u64 {
        self.time
    }
}

/// An IOMMU whose tables are a map of pages.
pub struct FakeIommu {
    pub pages: BTreeMap<(u32, u64), (u64, Prot)>,
    pub last: u64,
    /// Every map fails.
    pub broken: bool,
    /// Blocking a device fails.
    pub stuck: bool,
    /// Domains that were freed.
    pub freed: Vec<DomainId>,
    /// Devices that were blocked.
    pub blocked: Vec<Bdf>,
    domains: u32,
    log: Log,
}

impl FakeIommu {
    pub fn new(log: &Log) -> Self {
        Self {
            pages: BTreeMap::new(),
            last: (1 << 47) - 1,
            broken: false,
            stuck: false,
            freed: Vec::new(),
            blocked: Vec::new(),
            domains: 0,
            log: Rc::clone(log),
        }
    }
}

impl IommuDriver for FakeIommu {
    fn page_sizes(&self, _: DomainId) -> u64 {
        PAGE | 1 << 21
    }

    fn aperture(&self, _: DomainId) -> (u64, u64) {
        (0, self.last)
    }

    fn domain_alloc(&mut self, _: &mut dyn Machine) -> Result<DomainId, IommuError> {
        self.domains += 1;
        Ok(DomainId(self.domains))
    }

    fn domain_free(&mut self, _: &mut dyn Machine, domain: DomainId) {
        self.freed.push(domain);
    }

    fn attach(
        &mut self,
        _: &mut dyn Machine,
        _: Bdf,
        _: Option<DomainId>,
    ) -> Result<(), IommuError> {
        Ok(())
    }

    fn block(&mut self, _: &mut dyn Machine, device: Bdf) -> Result<(), IommuError> {
        if self.stuck {
            return Err(IommuError::Timeout("fence"));
        }
        self.blocked.push(device);
        Ok(())
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
        if self.broken {
            return Err(IommuError::NoMemory);
        }
        if !(iova | phys.0 | size).is_multiple_of(PAGE) {
            return Err(IommuError::Misaligned);
        }
        let pages = iova / PAGE..(iova + size) / PAGE;
        if pages
            .clone()
            .any(|p| self.pages.contains_key(&(domain.0, p)))
        {
            return Err(IommuError::InUse);
        }
        for (i, page) in pages.enumerate() {
            self.pages
                .insert((domain.0, page), (phys.0 + i as u64 * PAGE, prot));
        }
        self.log.borrow_mut().push(Op::Map {
            iova,
            phys: phys.0,
            size,
            prot: prot.bits(),
        });
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
        self.log.borrow_mut().push(Op::Unmap { iova, size });
        let last = iova.saturating_add(size - 1);
        gather.range = Some((iova, last));
        (iova / PAGE..=last / PAGE)
            .take_while(|p| self.pages.remove(&(domain.0, *p)).is_some())
            .count() as u64
            * PAGE
    }

    fn iotlb_sync(
        &mut self,
        _: &mut dyn Machine,
        _: DomainId,
        _: Gather,
    ) -> Result<(), IommuError> {
        self.log.borrow_mut().push(Op::Sync);
        Ok(())
    }

    fn flush_all(&mut self, _: &mut dyn Machine, _: DomainId) -> Result<(), IommuError> {
        self.log.borrow_mut().push(Op::FlushAll);
        Ok(())
    }

    fn iova_to_phys(&self, _: &mut dyn Machine, domain: DomainId, iova: u64) -> Option<PhysAddr> {
        self.pages
            .get(&(domain.0, iova / PAGE))
            .map(|(phys, _)| PhysAddr(phys + iova % PAGE))
    }

    fn leaf_entry(&self, _: &mut dyn Machine, _: DomainId, _: u64) -> Option<u64> {
        None
    }
}

/// A 64-bit memory BAR.
pub const fn memory_bar(index: u8, phys: u64, size: u64, bus: u64) -> Bar {
    Bar {
        index,
        kind: BarKind::Memory {
            wide: true,
            prefetchable: true,
        },
        size,
        bus: BusAddr(bus),
        phys: PhysAddr(phys),
    }
}
