//! Replays on a machine made of maps: decisions and traffic without hardware.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::Path,
};

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

use super::{
    calls::Replayer,
    compare::{Comparison, Difference},
    machine::{BAR_SIZE, ENDPOINTS, Plan},
    read, run,
    target::Target,
    traffic,
};
use crate::{
    checker::Checker,
    endpoint::{Completion, Descriptor, pattern_bytes},
    testbench::{Error, Setup},
    trace::Capture,
};

const PAGE: u64 = 4096;

/// Main memory and the configuration space of a switch with two endpoints and a root port with one.
struct Ram {
    map: MemoryMap,
    pages: HashMap<u64, Box<[u8; PAGE as usize]>>,
    functions: HashMap<Bdf, Vec<u8>>,
    time: u64,
}

/// The endpoints, in order.
const FUNCTIONS: [Bdf; ENDPOINTS] = [Bdf::new(3, 0, 0), Bdf::new(4, 0, 0), Bdf::new(5, 0, 0)];

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
struct Pages {
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
enum Defect {
    None,
    /// Every other byte written is wrong.
    Data,
    /// Nothing is ever refused.
    Open,
}

/// The machine with its devices, which do their transfers at once.
struct Fake {
    dma: Dma<Pages>,
    m: Ram,
    functions: Vec<(DeviceId, ProviderId)>,
    bars: [PhysAddr; ENDPOINTS],
    done: [VecDeque<Completion>; ENDPOINTS],
    defect: Defect,
    probing: bool,
    /// Transfers that were refused though promised.
    refused: u64,
    /// Probes that were not.
    leaked: u64,
    compared: u64,
    wrong: u64,
    promised: i64,
}

impl Fake {
    fn new(plan: &Plan, profile: Profile, defect: Defect) -> Self {
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

    fn flush(&mut self) {
        self.dma.flush_queues(&mut self.m);
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
        self.done[f].push_back(Completion { id: d.id, status });
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

/// What came of a replay.
struct Replayed {
    fake: Fake,
    plan: Plan,
    counts: super::calls::Counts,
    traffic: traffic::Counts,
    compared: u64,
    differed: u64,
    differences: Vec<Difference>,
    truncated: Option<String>,
}

fn replay(path: &Path, profile: Profile, defect: Defect) -> Replayed {
    let mut capture = Capture::open(path).unwrap();
    let operations = read(&mut capture).unwrap();
    let plan = Plan::new(&capture, &operations).unwrap();
    let mut fake = Fake::new(&plan, profile, defect);
    let blocking = plan.blocking(profile);
    let mut r = Replayer::new(&mut fake, &plan, &operations, (7, blocking));
    assert!(!run(&mut r, &operations, |_| {}).unwrap());
    let (counts, traffic) = (r.counts, r.traffic.counts);
    let comparison: Comparison = std::mem::take(&mut r.comparison);
    Replayed {
        fake,
        counts,
        traffic,
        plan,
        compared: comparison.compared,
        differed: comparison.differed,
        differences: comparison.into_differences(),
        truncated: capture.trace.truncated().map(str::to_owned),
    }
}

/// A capture of two functions behind different root ports, the first with peer memory.
fn capture(dir: &Path, name: &str, iommu: bool, trace: &str) -> std::path::PathBuf {
    let group = if iommu {
        "iommu_group=5 iommu_group_type=DMA"
    } else {
        "iommu_group=- iommu_group_type=-"
    };
    let function = |bus: u8, port: u8, bars: &str| {
        format!(
            "dev 0000:0{bus}:00.0 vendor=0x1b36 device=0x0010 class=0x010802 driver=nvme {group} \
             dma_mask_bits=64 consistent_dma_mask_bits=64 \
             path=pci0000:00/0000:00:0{port}.0/0000:0{bus}:00.0\n{bars}"
        )
    };
    let bar =
        |base: &str, last: &str| format!("  res2 0x00000000{base} 0x00000000{last} 0x14220c\n");
    let pci = function(1, 3, &bar("f0000000", "f3ffffff"))
        + &function(2, 4, &bar("fe600000", "fe603fff"));
    let iomem = "00100000-3ffcffff : System RAM\nc0000000-febfffff : PCI Bus 0000:00\n";
    fs::write(dir.join(format!("{name}.pci")), pci).unwrap();
    fs::write(dir.join(format!("{name}.iomem")), iomem).unwrap();
    let path = dir.join(format!("{name}.trace"));
    let lines: String = trace
        .lines()
        .map(|l| format!("{}\n", l.trim_start()))
        .collect();
    fs::write(&path, lines).unwrap();
    path
}

/// A peer's BAR through the host bridge and a buffer in memory, as the kernel traced them.
const PEER: &str = r#"io-157 [000] ...2. 12.000001: iova_alloc: (f+0x0/0x1) domain=0xff00 size=4096 limit=0xffffffffffffffff dev="0000:02:00.0"
    io-157 [000] ...1. 12.000002: iova_alloc_ret: (a+0x0/0x1 <- f) iova=0xfffff000
    io-157 [000] ...1. 12.000003: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0xfffff000 phys=0xf0069000 size=4096 prot=0x11
    io-157 [000] ..... 12.000004: map: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 paddr=0x00000000f0069000 size=4096
    io-157 [000] ..... 12.000005: dma_map_phys: 0000:02:00.0 dir=TO_DEVICE dma_addr=fffff200 size=512 phys_addr=f0069200 attrs=MMIO
    io-157 [000] ...2. 12.000006: iova_alloc: (f+0x0/0x1) domain=0xff00 size=8192 limit=0xffffffffffffffff dev="0000:02:00.0"
    io-157 [000] ...1. 12.000007: iova_alloc_ret: (a+0x0/0x1 <- f) iova=0xffffc000
    io-157 [000] ...1. 12.000008: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0xffffc000 phys=0x8000000 size=8192 prot=0x6
    io-157 [000] ..... 12.000009: map: IOMMU: iova=0x00000000ffffc000 - 0x00000000ffffe000 paddr=0x0000000008000000 size=8192
    io-157 [000] ..... 12.000010: dma_map_phys: 0000:02:00.0 dir=FROM_DEVICE dma_addr=ffffc100 size=7936 phys_addr=8000100 attrs=
    <idle>-0 [000] d.h1. 12.000011: unmap: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 size=4096 unmapped_size=4096
    <idle>-0 [000] d.h1. 12.000012: cache_tag_flush_range: dmar0 dmar0[0] type iotlb did 8 [0xfffff000-0xffffffff] addr 0xfffff000 mask 0x0
    <idle>-0 [000] d.h1. 12.000013: iova_dofree: (f+0x0/0x1) domain=0xff00 iova=0xfffff000 size=4096
    <idle>-0 [000] d.h1. 12.000014: dma_unmap_phys: 0000:02:00.0 dir=TO_DEVICE dma_addr=fffff200 size=512 attrs=MMIO
    <idle>-0 [000] d.h1. 12.000015: unmap: IOMMU: iova=0x00000000ffffc000 - 0x00000000ffffe000 size=8192 unmapped_size=8192
    <idle>-0 [000] d.h1. 12.000016: cache_tag_flush_range: dmar0 dmar0[0] type iotlb did 8 [0xffffc000-0xffffdfff] addr 0xffffc000 mask 0x1
    <idle>-0 [000] d.h1. 12.000017: iova_dofree: (f+0x0/0x1) domain=0xff00 iova=0xffffc000 size=8192
    <idle>-0 [000] d.h1. 12.000018: dma_unmap_phys: 0000:02:00.0 dir=FROM_DEVICE dma_addr=ffffc100 size=7936 attrs=
"#;

#[test]
fn decisions_of_the_kernel_are_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let path = capture(dir.path(), "peer", true, PEER);
    let r = replay(&path, Profile::Intended, Defect::None);
    assert_eq!((r.counts.mappings, r.counts.replayed), (2, 2));
    assert!(r.compared >= 16, "{}", r.compared);
    assert_eq!(r.differed, 0, "{:?}", r.differences);
    assert!(r.differences.is_empty(), "{:?}", r.differences);
    assert_eq!((r.fake.promised, r.fake.refused, r.fake.leaked), (0, 0, 0));
}

#[test]
fn a_cacheable_mapping_of_a_bar_is_a_difference() {
    let dir = tempfile::tempdir().unwrap();
    let path = capture(dir.path(), "peer", true, PEER);
    let r = replay(&path, Profile::PreSeries, Defect::None);
    assert_eq!(r.differed, 1);
    assert!(
        r.differences[0].reason.contains("BAR for memory"),
        "{:?}",
        r.differences
    );
    let other = capture(
        dir.path(),
        "other",
        true,
        &PEER.replace("prot=0x6", "prot=0x2"),
    );
    let r = replay(&other, Profile::Intended, Defect::None);
    assert_eq!(
        r.differences[0].reason,
        "cacheability of a page-table entry"
    );
}

#[test]
fn a_kernel_without_dma_domains_differs_in_every_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let path = capture(dir.path(), "peer", true, PEER);
    let r = replay(&path, Profile::Linux72, Defect::None);
    assert_eq!(
        (r.differed, r.differences.len()),
        (2, 1),
        "{:?}",
        r.differences
    );
}

#[test]
fn other_addresses_and_refused_calls_are_differences() {
    let dir = tempfile::tempdir().unwrap();
    let moved = PEER.replace(
        "iova=0xffffc000 phys=0x8000000",
        "iova=0xffffc000 phys=0x8001000",
    );
    let r = replay(
        &capture(dir.path(), "a", true, &moved),
        Profile::Intended,
        Defect::None,
    );
    assert_eq!(
        r.differences[0].reason,
        "physical address put into the page table"
    );
    let empty = PEER.replace("size=512", "size=0");
    let r = replay(
        &capture(dir.path(), "b", true, &empty),
        Profile::Intended,
        Defect::None,
    );
    assert!(
        r.differences[0]
            .reason
            .starts_with("the call is refused here: size 0")
    );
    let failed = PEER.replace(
        "dma_addr=fffff200 size=512 phys",
        "dma_addr=ffffffffffffffff size=512 phys",
    );
    let r = replay(
        &capture(dir.path(), "c", true, &failed),
        Profile::Intended,
        Defect::None,
    );
    assert!(
        r.differences
            .iter()
            .any(|d| d.reason.contains("succeeds here"))
    );
}

#[test]
fn a_cut_trace_is_replayed_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let at = PEER.find("<idle>-0 [000] d.h1. 12.000013").unwrap();
    let path = capture(dir.path(), "cut", true, &PEER[..at]);
    // Without its newline the last line may have lost digits.
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.trim_end()).unwrap();
    let r = replay(&path, Profile::Intended, Defect::None);
    assert!(r.truncated.is_some());
    assert_eq!((r.counts.replayed, r.fake.promised), (2, 2));
}

#[test]
fn remapping_without_unmap_and_peers_need_no_iommu() {
    let dir = tempfile::tempdir().unwrap();
    let line = |i: u64| {
        format!(
            "io-1 [000] ..... 1.{i:06}: dma_map_phys: 0000:02:00.0 dir=FROM_DEVICE \
             dma_addr=8000100 size=300 phys_addr=8000100 attrs=\n\
             io-1 [000] ..... 1.{i:06}: dma_map_phys: 0000:02:00.0 dir=TO_DEVICE \
             dma_addr=f0069000 size=4096 phys_addr=f0069000 attrs=MMIO\n"
        )
    };
    let text: String = (0..200).map(line).collect();
    let r = replay(
        &capture(dir.path(), "direct", false, &text),
        Profile::Intended,
        Defect::None,
    );
    assert_eq!(
        (r.counts.replayed, r.differed),
        (400, 0),
        "{:?}",
        r.differences
    );
    assert!(r.traffic.transfers > 50 && r.fake.compared > 0);
    assert_eq!((r.fake.wrong, r.fake.refused), (0, 0));
    assert_eq!(r.traffic.probes, 0);
    // The same with a device that writes something else.
    let r = replay(
        &capture(dir.path(), "direct", false, &text),
        Profile::Intended,
        Defect::Data,
    );
    assert!(r.fake.wrong > 0);
}

/// The captures that come with the program.
#[test]
fn bundled_captures() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    let Ok(files) = fs::read_dir(&dir) else {
        return;
    };
    let mut paths: Vec<_> = files
        .map(|f| f.unwrap().path())
        .filter(|p| p.to_string_lossy().contains(".trace"))
        .collect();
    paths.sort();
    for path in paths {
        let r = replay(&path, Profile::Intended, Defect::None);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        println!(
            "{name}: {:?} {:?} compared {} differed {}, endpoints {:?}",
            r.counts, r.traffic, r.compared, r.differed, r.plan.endpoints
        );
        for d in &r.differences {
            println!("  {:6} {}; {}", d.count, d.reason, d.first);
        }
        assert!(r.counts.replayed * 100 >= r.counts.mappings * 99, "{name}");
        // Which IOVA is free depends on when the kernel's timer emptied which flush queue.
        let freed: u64 = r
            .differences
            .iter()
            .filter(|d| d.reason.starts_with("IOVA: "))
            .map(|d| d.count)
            .sum();
        assert!(
            (r.differed - freed) * 100 <= r.compared,
            "{name}: {:?}",
            r.differences
        );
        assert_eq!(
            (r.fake.wrong, r.fake.refused, r.fake.leaked),
            (0, 0, 0),
            "{name}"
        );
        assert!(r.traffic.transfers > 100 && r.fake.compared > 10, "{name}");
    }
}

#[test]
fn an_open_iommu_is_found_by_probes() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..40).map(|_| PEER).collect();
    let path = capture(dir.path(), "probes", true, &text);
    let good = replay(&path, Profile::Intended, Defect::None);
    assert!(good.traffic.probes > 0);
    assert_eq!((good.fake.leaked, good.fake.wrong), (0, 0));
    let open = replay(&path, Profile::Intended, Defect::Open);
    assert!(open.fake.leaked > 0);
}

/// A bundled capture on the simulated hardware.
fn simulate(name: &str, profile: Profile) -> super::Outcome {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    let path = dir.join(format!("{name}.trace.gz"));
    let checker = |s: &Setup, blocking: bool| Checker::new(&s.machine, blocking, None, 100);
    super::replay(&path, 1, profile, checker, |_| {}).unwrap()
}

#[test]
fn the_hardware_keeps_the_promises_of_a_trace() {
    for name in ["nvme-p2p-bridge-iommu", "e1000e-iommu", "net-swiotlb"] {
        let o = simulate(name, Profile::Intended);
        let first = o.bench.sim.checker.violations().first();
        assert_eq!(o.row.failed, 0, "{name}: {first:?}");
        assert_eq!(
            o.row.replayed, o.row.mappings,
            "{name}: {:?}",
            o.differences
        );
        assert!(o.row.tlps > o.row.mappings, "{name}: {:?}", o.row);
    }
}

#[test]
fn a_bar_mapped_as_memory_is_seen_on_the_bus() {
    let o = simulate("nvme-p2p-bridge-iommu", Profile::PreSeries);
    assert!(o.row.failed > 0 && o.row.differed > 0, "{:?}", o.row);
    assert!(
        o.differences[0].reason.contains("BAR for memory"),
        "{:?}",
        o.differences
    );
}
