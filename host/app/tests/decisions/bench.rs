//! A row is set up, called, used, undone and compared.

use std::rc::Rc;

use tempfile::TempDir;
use tlproof::{
    checker::Checker,
    endpoint::{Descriptor, pattern_bytes},
    output::{SharedSink, Sink},
    report::ResultDir,
    testbench::{Setup, Testbench},
};
use tlproof_dma::{
    Attach, Attrs, Device, DeviceId, DmaRange, IovaState, MapError, Profile, Quirks, SgEntry,
    Swiotlb, debug,
    dmabuf::{AttachmentId, DmaBufError, DmaSgt, ImporterOps, VfioDmaBuf},
    iommu::Prot,
    machine::Machine,
    odp::{OdpError, OdpRegion, UserMemory, UserPage},
    p2pdma::{HostBridgePolicy, MapType},
    riscv::Mode,
};
use tlproof_pcie::{Bdf, Direction, DmaAddr, PhysAddr, Range, tree::Acs};

use crate::{
    checks::{self, Seen},
    row::{Row, number, parse_attrs},
    walk,
};

/// The bounce pool.
pub const POOL: Range = Range {
    base: PhysAddr(0xe000_0000),
    last: PhysAddr(0xe00f_ffff),
};
/// First byte of main memory, and of a part of it that narrow devices do not reach.
const RAM: u64 = 0x8000_0000;
const HIGH: u64 = 0xe800_0000;
const PAGE: u64 = 4096;
/// Where the pages of a process begin.
const VA: u64 = 0x7f12_3456_7000;
/// The endpoint that is mapped for.
pub const CLIENT: usize = 0;

/// A machine that is up for a row.
pub struct Bench {
    pub b: Testbench,
    pub dev: DeviceId,
    pub bdf: Bdf,
    sink: SharedSink,
    dir: TempDir,
}

/// What a call has made.
pub enum Made {
    Single(DmaAddr),
    Iova(IovaState),
    List(Vec<SgEntry>),
    /// Nothing that is undone by a mapping call.
    Bus(DmaAddr),
    /// Pages of a process that the device has faulted in.
    Pages(DmaAddr, OdpRegion),
    /// An attachment of a DMABUF.
    Buffer(VfioDmaBuf, AttachmentId, DmaSgt),
    Other,
}

impl Made {
    pub fn dma(&self) -> Option<DmaAddr> {
        match self {
            Self::Single(dma) | Self::Bus(dma) | Self::Pages(dma, _) => Some(*dma),
            Self::Buffer(_, _, sgt) => Some(sgt.segments()[0].dma),
            Self::Iova(s) => Some(s.addr()),
            Self::List(l) => Some(l[0].dma_address),
            Self::Other => None,
        }
    }
}

/// Why a call is refused.
#[derive(Debug)]
pub struct Refused {
    /// The error as it is called.
    pub name: String,
    pub errno: i32,
}

impl From<MapError> for Refused {
    fn from(e: MapError) -> Self {
        Self {
            name: format!("{e:?}"),
            errno: e.errno(),
        }
    }
}

impl From<DmaBufError> for Refused {
    fn from(e: DmaBufError) -> Self {
        Self {
            name: format!("{e:?}"),
            errno: e.errno(),
        }
    }
}

impl From<OdpError> for Refused {
    /// `hmm_dma_map_pfn` has no number to return: it fails with `DMA_MAPPING_ERROR`.
    fn from(e: OdpError) -> Self {
        let name = match e {
            OdpError::Hmm(e) => format!("{e:?}"),
            e => format!("{e:?}"),
        };
        Self { name, errno: -12 }
    }
}

/// The profile, and switches by name on top of it.
fn quirks(row: &Row) -> Quirks {
    let profile = match row
        .machine
        .split(' ')
        .find(|w| w.contains("linux") || w.contains("pre-"))
    {
        Some("linux-7.2") => Profile::Linux72,
        Some("pre-series") => Profile::PreSeries,
        _ => Profile::Intended,
    };
    let mut q = profile.quirks();
    for name in row
        .machine
        .split(' ')
        .filter_map(|w| w.strip_prefix("quirk:"))
    {
        match name {
            "sg_p2p_cacheable" => q.sg_p2p_cacheable = true,
            "xen_unmap_syncs_mmio" => q.xen_unmap_syncs_mmio = true,
            other => panic!("quirk {other}"),
        }
    }
    q
}

/// The device of a row.
fn device(row: &Row) -> Device {
    let mut d = Device::new(Bdf::new(0, 0, 0));
    for word in row.device.split(' ').filter(|w| !w.is_empty()) {
        let (name, value) = word.split_once('=').unwrap_or((word, "0"));
        let range = |cpu: u64, dma: u64, size| DmaRange {
            cpu_start: PhysAddr(cpu),
            dma_start: DmaAddr(dma),
            size,
        };
        match name {
            "non-coherent" => d.coherent = false,
            "untrusted" => d.untrusted = true,
            "force-bounce" => d.force_bounce = true,
            "no-mask" => d.dma_mask = None,
            "mask" => d.dma_mask = Some((1 << number(value)) - 1),
            "limit" => d.bus_dma_limit = number(value),
            "min-align" => d.min_align_mask = number(value),
            "encrypted" => d.memory_encryption = 1 << number(value),
            "offset" => d.dma_ranges = vec![range(0, number(value), 1 << 40)],
            // All of main memory but the part that is high.
            "ranges" => d.dma_ranges = vec![range(RAM, RAM, HIGH - RAM)],
            other => panic!("{}: device {other}", row.id),
        }
    }
    d
}

impl Bench {
    pub fn new(row: &Row) -> Self {
        let attach = match row.machine.split(' ').next() {
            Some("direct") => Attach::Direct,
            Some("xen") => Attach::Xen,
            Some("identity") => Attach::Identity,
            Some("strict") => Attach::Strict,
            Some("lazy") => Attach::Lazy,
            other => panic!("{}: {other:?}", row.id),
        };
        let device = device(row);
        let mut setup = Setup {
            // The others have no queue that a flush would find.
            attach: match attach {
                Attach::Lazy => [Attach::Lazy, Attach::Strict, Attach::Strict],
                other => [other; 3],
            },
            // One device that does not snoop is enough for the CPU to have caches.
            coherent: [device.coherent, true, false],
            tables: Range::sized(0xf000_0000, 64 << 20),
            quirks: Some(quirks(row)),
            device,
            ..Setup::default()
        };
        setup.machine.iommu = !matches!(attach, Attach::Direct | Attach::Xen);
        // Without a page table in use, nothing but its own attributes tells what the aperture is.
        setup.machine.aperture_wb = attach != Attach::Identity;
        for word in row.machine.split(' ').skip(1) {
            match word {
                "pool" => {
                    setup.swiotlb = Swiotlb::new(POOL.base, POOL.size(), 1, false);
                }
                "kmalloc" => setup.config.kmalloc_minalign = Some(64),
                "forcedac" => setup.config.forcedac = true,
                "debug" => {
                    setup.config.debug = Some(debug::Options {
                        all_errors: true,
                        ..debug::Options::default()
                    });
                }
                "sv39" => setup.iommu.address_mode = Some(Mode::Sv39),
                "no-svpbmt" => setup.iommu.svpbmt = false,
                "no-acs" => setup.acs = Acs::empty(),
                "acs-not-redirect" => setup.acs = Acs::SV | Acs::UF | Acs::TB,
                "refuse" => setup.policy = HostBridgePolicy::Refuse,
                "any" => setup.policy = HostBridgePolicy::Any,
                w if w.contains("linux-") || w.contains("pre-") || w.contains("quirk:") => {}
                other => panic!("{}: machine {other}", row.id),
            }
        }
        let dir = tempfile::tempdir().expect("a directory for the results");
        let results = ResultDir::create(dir.path().join("run")).expect("results can be written");
        let sink = Sink::create(&results, false).expect("results can be written");
        let checker = Checker::new(&setup.machine, true, Some(Rc::clone(&sink)), 100);
        let mut b = Testbench::new(&setup, checker).expect("the machine comes up");
        b.dma.trace.set_enabled(true);
        Self {
            dev: b.functions[CLIENT].dev,
            bdf: b.functions[CLIENT].engine.bdf,
            b,
            sink,
            dir,
        }
    }

    /// The rows of `tlps.csv`; the machine is gone then.
    pub fn tlps(self) -> Vec<checks::Tlp> {
        let Self { b, sink, dir, .. } = self;
        drop(b);
        let sink = Rc::try_unwrap(sink).ok().expect("the checker is gone");
        let writer = sink.into_inner().finish().expect("results can be written");
        writer.finish().expect("results can be written");
        let path = dir.path().join("run.partial/tlps.csv");
        csv::Reader::from_path(path)
            .and_then(|mut r| r.deserialize().collect())
            .expect("tlps.csv can be read")
    }

    /// Where the buffer of the row is.
    pub fn target(&self, row: &Row) -> PhysAddr {
        let (base, offset) = row.target.split_once('+').unwrap_or((&row.target, "0"));
        let base = match base {
            "ram" => PhysAddr(RAM),
            "high" => PhysAddr(HIGH),
            "peer" => self.b.functions[2].engine.memory,
            "near" => self.b.functions[1].engine.memory,
            "own" => self.b.functions[0].engine.memory,
            other => panic!("{}: target {other}", row.id),
        };
        base.offset(number(offset))
    }

    /// Makes the call of the row.
    pub fn call(&mut self, row: &Row, dir: Direction) -> Result<Made, Refused> {
        let (phys, attrs) = (self.target(row), row.attrs());
        let (dev, b) = (self.dev, &mut self.b);
        let mut words = row.call.split(' ');
        let name = words.next().unwrap_or_default();
        let word = |key: &str| {
            let mut words = row.call.split(' ');
            words.find_map(|w| w.strip_prefix(key).and_then(|w| w.strip_prefix('=')))
        };
        let (sim, dma) = (&mut b.sim, &mut b.dma);
        match name {
            "map_phys" => dma
                .dma_map_phys(sim, dev, phys, row.size(), dir, attrs)
                .map(Made::Single)
                .map_err(Into::into),
            "map_page" => dma
                .dma_map_page(sim, dev, phys, row.size(), dir, attrs)
                .map(Made::Single)
                .map_err(Into::into),
            "map_resource" => dma
                .dma_map_resource(sim, dev, phys, row.size(), dir, attrs)
                .map(Made::Single)
                .map_err(Into::into),
            "map_sg" => {
                let mut list = vec![SgEntry::new(phys, row.size())];
                dma.dma_map_sg(sim, dev, &mut list, dir, attrs)?;
                Ok(Made::List(list))
            }
            "iova_link" => {
                let first = PhysAddr(word("first").map_or(phys.offset_in(4096), number));
                let mut state = dma
                    .dma_iova_try_alloc(dev, first, 0x8000)
                    .ok_or(MapError::NoIova)?;
                let offset = word("offset").map_or(0, number);
                let size = row.size();
                dma.dma_iova_link(sim, dev, &mut state, phys, offset, size, dir, attrs)?;
                // The call that the row is about is the second.
                if let Some(second) = word("second") {
                    let (attrs, at) = second.split_once('@').expect("attributes@offset+size");
                    let (offset, size) = at.split_once('+').expect("attributes@offset+size");
                    let (offset, size) = (number(offset), number(size));
                    let attrs = parse_attrs(attrs);
                    let page = phys.align_down(4096).offset(0x10_0000);
                    dma.dma_iova_link(sim, dev, &mut state, page, offset, size, dir, attrs)?;
                }
                dma.dma_iova_sync(dev, &state, 0, size)?;
                Ok(Made::Iova(state))
            }
            "bus_address" => {
                let map =
                    b.peer_map_type(CLIENT, if row.target.starts_with("near") { 1 } else { 2 });
                assert_eq!(map, MapType::BusAddr, "{}", row.id);
                Ok(Made::Bus(b.bus_address(CLIENT, phys, row.size())))
            }
            "hmm" => {
                let pages = row.size().div_ceil(PAGE);
                let mut user = UserMemory::default();
                for i in 0..pages {
                    let page = UserPage {
                        phys: phys.offset(i * PAGE),
                        writable: true,
                    };
                    user.insert(VA + i * PAGE, page);
                }
                let mut region = b.odp_region(CLIENT, VA, pages as usize)?;
                let all = (VA, pages * PAGE);
                let ready = b.odp_fault(CLIENT, &mut region, &user, all, true)?;
                Ok(Made::Pages(ready[0].1.dma, region))
            }
            "dmabuf" => {
                let owner = if row.target.starts_with("near") { 1 } else { 2 };
                let offset = phys.0 - b.functions[owner].engine.memory.0;
                let mut buf = b.export_dmabuf(owner, &[(offset, row.size())])?;
                let at = buf.attach(Some(dev), ImporterOps::PEER)?;
                let sgt = b.map_dmabuf(CLIENT, &mut buf, at, dir)?;
                Ok(Made::Buffer(buf, at, sgt))
            }
            "iommu_map" => {
                let domain = dma.domain_of(dev).expect("a DMA domain");
                let prot = Prot::from_bits_truncate(number(&row.prot) as u32);
                let iova = DmaAddr(word("iova").map_or(0xffff_0000, number));
                let iommu = dma.iommu_mut().expect("an IOMMU");
                tlproof_dma::iommu::IommuDriver::map(
                    iommu,
                    sim,
                    domain,
                    iova.0,
                    phys,
                    row.size(),
                    prot,
                )
                .map_err(MapError::from)?;
                Ok(Made::Bus(iova))
            }
            // Commands of the IOMMU for a device of any ID, which need not exist.
            "attach" => {
                let bdf = Bdf(word("did").map_or(8, number) as u16);
                let attach = match word("to") {
                    Some("identity") => Attach::Identity,
                    _ => Attach::Strict,
                };
                dma.add_device(sim, Device::new(bdf), attach)?;
                Ok(Made::Other)
            }
            "probe" | "none" => Ok(Made::Other),
            other => panic!("{}: call {other}", row.id),
        }
    }

    /// Undoes what was made, as the row says.
    fn unmap(&mut self, row: &Row, dir: Direction, made: Made) {
        let word = |key: &str| {
            let mut words = row.unmap.split(' ');
            words.find_map(|w| w.strip_prefix(key).and_then(|w| w.strip_prefix('=')))
        };
        let attrs = word("attrs").map_or(row.attrs(), |a| {
            parse_attrs(if a == "none" { "" } else { a })
        });
        let size = word("size").map_or(row.size(), number);
        let dev = self.dev;
        let (sim, dma) = (&mut self.b.sim, &mut self.b.dma);
        let how = row.unmap.split(' ').next().unwrap_or_default();
        match made {
            Made::Single(addr) if how == "page" => {
                dma.dma_unmap_page(sim, dev, addr, size, dir, attrs);
            }
            Made::Single(addr) if how == "sg" => {
                // A list that was mapped as something else.
                let mut list = [SgEntry::new(PhysAddr(RAM), size)];
                list[0].dma_address = addr;
                list[0].dma_length = size;
                dma.dma_unmap_sg(sim, dev, &mut list, dir, attrs);
            }
            Made::Single(addr) if row.call.starts_with("map_resource") => {
                dma.dma_unmap_resource(sim, dev, addr, size, dir, attrs);
            }
            Made::Single(addr) => dma.dma_unmap_phys(sim, dev, addr, size, dir, attrs),
            Made::Iova(mut state) => {
                dma.dma_iova_destroy(sim, dev, &mut state, size, dir, attrs);
            }
            Made::List(mut list) => dma.dma_unmap_sg(sim, dev, &mut list, dir, attrs),
            Made::Bus(addr) => self.b.end_bus_address(CLIENT, addr, size),
            Made::Pages(_, mut region) => {
                let n = self.b.odp_invalidate(CLIENT, &mut region, VA, size);
                assert_eq!(n.map(|n| n as u64), Ok(size / PAGE), "{}", row.id);
                let released = region.release(&mut self.b.dma, &mut self.b.sim);
                assert_eq!(released, Ok(()), "{}", row.id);
            }
            Made::Buffer(mut buf, at, sgt) => {
                let unmapped = self.b.unmap_dmabuf(CLIENT, &mut buf, at, sgt);
                assert_eq!(unmapped.and(buf.detach(at)), Ok(()), "{}", row.id);
            }
            Made::Other => {}
        }
        if how == "flush" {
            self.b.flush();
        }
    }

    /// Runs one transfer to its end.
    pub fn transfer(&mut self, d: &Descriptor) {
        let f = &mut self.b.functions[CLIENT].engine;
        f.submit(&mut self.b.sim, d).expect("the device answers");
        for _ in 0..1000 {
            self.b.sim.run(100).expect("no assertion fails");
            let f = &mut self.b.functions[CLIENT].engine;
            if f.poll(&mut self.b.sim)
                .expect("the device answers")
                .is_some()
            {
                self.b.quiesce().expect("the machine comes to rest");
                return;
            }
        }
        panic!("the transfer does not end");
    }
}

/// Bytes that a row lets the device move at once.
const MOST: u64 = 0x2400;
const SEED: u32 = 0x5eed;

/// Runs a row.
pub fn run(row: &Row, dir: Direction) {
    let mut bench = Bench::new(row);
    before(&mut bench, row);
    let target = bench.target(row);
    let dram = bench.b.sim.options().map.is_dram(target, 1);
    if dram {
        let fill: Vec<u8> = (0..MOST).map(|i| (i % 251) as u8).collect();
        bench.b.sim.mem_write(target, &fill);
    }
    if bench.b.dma.swiotlb().is_some() {
        bench.b.sim.mem_write(POOL.base, &[0xee; 0x4000]);
        bench.b.sim.cache_clean(POOL.base, 0x4000);
    }
    // With SKIP_CPU_SYNC the driver does the maintenance itself.
    let own_maintenance =
        row.device("non-coherent") && row.attrs().contains(Attrs::SKIP_CPU_SYNC) && dram;
    if own_maintenance {
        bench.b.sim.cache_clean(target, MOST);
    }
    bench.b.dma.trace.take();
    let queue = row
        .machine(bench_iommu(row))
        .then(|| walk::register(&mut bench.b.sim, walk::CQT, 4));
    let mut seen = Seen::new(target, queue);
    let from = bench.b.sim.maintenance;
    let result = bench.call(row, dir);
    seen.map_ops = bench.b.sim.maintenance - from;
    seen.map_events = bench.b.dma.trace.take();

    let result = match result {
        Ok(made) => {
            checks::mapped(&mut bench, row, dir, &made, &seen);
            let len = row.size().min(MOST);
            let used = row.taps != "-" && made.dma().is_some();
            let promises = promise(&mut bench, row, &made);
            if used {
                let dma = made.dma().expect("an address");
                for (id, write) in [(1, false), (2, true)] {
                    if if write {
                        dir.device_writes()
                    } else {
                        dir.device_reads()
                    } {
                        bench.transfer(&Descriptor::pattern(id, write, dma, len as u32, SEED));
                    }
                }
                seen.dma = Some((dma, len));
            }
            let mut ending = Vec::new();
            for (dma, size) in promises {
                ending.extend(bench.b.revoke_begin(bench.dev, dma, size));
            }
            bench.b.dma.trace.take();
            let from = bench.b.sim.maintenance;
            let addr = made.dma();
            bench.unmap(row, dir, made);
            seen.unmap_ops = bench.b.sim.maintenance - from;
            seen.unmap_events = bench.b.dma.trace.take();
            bench.b.revoke_end(ending);
            if own_maintenance {
                bench.b.sim.cache_invalidate(target, MOST);
            }
            if used && dram && dir.device_writes() {
                let mut want = vec![0; len as usize];
                let dma = addr.expect("an address");
                pattern_bytes(dma, SEED, &mut want);
                let mut got = want.clone();
                bench.b.sim.mem_read(target, &mut got);
                bench.b.sim.compare_memory(dma, &want, &got);
            }
            checks::undone(&mut bench, row, addr, dir);
            Ok(())
        }
        Err(e) => Err(e),
    };
    checks::result(row, result.as_ref().err());
    checks::calls(&mut bench, row, dir, result.is_ok(), &seen);
    bench.b.quiesce().expect("the machine comes to rest");
    checks::caught(&bench, row);
    let (map, bdf) = (bench.b.sim.options().map.clone(), bench.bdf);
    let tlps = bench.tlps();
    checks::taps(row, &map, bdf, &seen, &tlps);
}

/// The word of a machine whose IOMMU has a command queue, as the row has it.
fn bench_iommu(row: &Row) -> &str {
    match row.machine.split(' ').next() {
        Some(w @ ("strict" | "lazy" | "identity")) => w,
        _ => "nothing",
    }
}

/// What is mapped and unmapped before: `map SIZE`, `unmap` of the last one, `flush`.
fn before(bench: &mut Bench, row: &Row) {
    let mut live = Vec::new();
    let (dir, attrs) = (Direction::FromDevice, Attrs::empty());
    for step in row
        .before
        .split(';')
        .map(str::trim)
        .filter(|s| !s.is_empty())
    {
        let (sim, dma) = (&mut bench.b.sim, &mut bench.b.dma);
        match step.split_once(' ') {
            Some(("map", size)) => {
                let (size, phys) = (number(size), PhysAddr(RAM + 0x100_0000));
                let at = dma.dma_map_phys(sim, bench.dev, phys, size, dir, attrs);
                live.push((at.expect("mapped before"), size));
            }
            None if step == "unmap" => {
                let (at, size) = live.pop().expect("something to unmap");
                dma.dma_unmap_phys(sim, bench.dev, at, size, dir, attrs);
            }
            _ => panic!("{}: {step}", row.id),
        }
    }
}

/// Enters what the call promised; gives back what was entered.
fn promise(bench: &mut Bench, row: &Row, made: &Made) -> Vec<(DmaAddr, u64)> {
    // Those have entered theirs.
    if matches!(
        made,
        Made::Bus(_) | Made::Pages(..) | Made::Buffer(..) | Made::Other
    ) {
        return Vec::new();
    }
    let live: Vec<_> = bench
        .b
        .dma
        .live()
        .filter(|m| m.device == bench.bdf)
        .map(|m| (m.dma, m.size))
        .collect();
    for (dma, _) in &live {
        bench
            .b
            .promise(bench.dev, *dma, format!("{} ({})", row.call, row.id));
    }
    live
}
