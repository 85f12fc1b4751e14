//! Directed workloads: what the random programs do not reach, and drivers that misbehave.
//!
//! Each runs clean when no mutant is armed.

use tlproof_dma::{
    Attach, Attrs, Config, MapError, Route, Swiotlb, debug,
    machine::Machine,
    mutants::{Mutant, armed},
    p2pdma::{HostBridgePolicy, MapType},
};
use tlproof_pcie::{
    Direction::{Bidirectional, FromDevice, ToDevice},
    DmaAddr, PhysAddr,
};

use super::{Workload, looked_at, peers};
use crate::{
    checker::Checker,
    endpoint::{Descriptor, pattern_bytes},
    program::Failure,
    testbench::{Error, Setup, Testbench},
};

pub(super) const PAGE: u64 = 4096;
pub(super) const BUFFER: PhysAddr = PhysAddr(0x9000_0000);
const POOL: PhysAddr = PhysAddr(0x8800_0000);

/// Endpoints 0 and 1 are below one switch, endpoint 2 below another root port.
pub(super) const CLIENT: usize = 0;
pub(super) const NEAR: usize = 1;
pub(super) const FAR: usize = 2;

pub(super) fn all() -> Vec<Workload> {
    type Run = fn() -> peers::Found;
    let list: [(&str, Run); 16] = [
        ("peer through the bridge", peer),
        ("peer of a bounced device", bounced_peer),
        ("bounced memory", bounced),
        ("calls that are refused", refused),
        ("DMA ranges", ranges),
        ("two-step calls", two_step),
        ("scatterlist of peers", peers::scatterlist),
        ("BAR mapped twice", peers::mapped_twice),
        ("DMABUF of two ranges", peers::dmabuf),
        ("pages of a process", peers::paged),
        ("nvme requests", peers::nvme),
        ("large mappings", peers::large),
        ("page tables", peers::tables),
        ("lazy mode", peers::lazy),
        ("device context", peers::context),
        ("write under way at unmap", peers::late_write),
    ];
    list.into_iter()
        .map(|(name, run)| Workload {
            name: name.to_owned(),
            run: Box::new(run),
            clean: None,
        })
        .collect()
}

/// A machine, and what is wrong on it.
pub(super) struct Rig {
    pub b: Testbench,
    found: Vec<Failure>,
}

impl Rig {
    pub fn new(setup: Setup) -> Result<Self, Error> {
        const ENOUGH: usize = 50;
        let setup = Setup {
            config: Config {
                debug: Some(debug::Options::default()),
                kmsan: false,
                ..setup.config
            },
            ..setup
        };
        let blocking = setup.machine.iommu;
        let mut b = Testbench::new(&setup, Checker::new(&setup.machine, blocking, None, ENOUGH))?;
        b.dma.trace.set_enabled(true);
        Ok(Self {
            b,
            found: Vec::new(),
        })
    }

    pub fn fail(&mut self, field: &str, text: String) {
        self.found.push(Failure {
            judge: "driver".to_owned(),
            field: field.to_owned(),
            tlp: 0,
            text,
        });
    }

    pub fn expect(&mut self, field: &str, right: bool) {
        if !right {
            self.fail(field, String::new());
        }
    }

    /// A refusal where none is expected.
    pub fn ok<T>(&mut self, call: &str, result: Result<T, impl std::fmt::Display>) -> Option<T> {
        result
            .inspect_err(|e| self.fail("refused", format!("{call}: {e}")))
            .ok()
    }

    /// Lets the client run one transfer to its end.
    pub fn transfer(&mut self, d: &Descriptor) -> Result<(), Error> {
        let b = &mut self.b;
        b.functions[CLIENT].engine.submit(&mut b.sim, d)?;
        for _ in 0..4000 {
            b.sim.run(64)?;
            if b.functions[CLIENT].engine.poll(&mut b.sim)?.is_some() {
                b.sim.settle(100_000)?;
                return Ok(());
            }
        }
        Err(Error::Machine("the transfer does not end".to_owned()))
    }

    pub fn write(&mut self, dma: DmaAddr, len: u64, seed: u32) -> Result<(), Error> {
        self.transfer(&Descriptor::pattern(1, true, dma, len as u32, seed))
    }

    pub fn read(&mut self, dma: DmaAddr, len: u64) -> Result<(), Error> {
        self.transfer(&Descriptor::pattern(1, false, dma, len as u32, 0))
    }

    /// An access that nothing allows.
    pub fn rogue(&mut self, dma: DmaAddr, write: bool) -> Result<(), Error> {
        let bdf = self.b.functions[CLIENT].engine.bdf;
        let checker = &mut self.b.sim.checker;
        let rogue = checker.expect_rogue(bdf, dma.on_bus(), 64, write);
        self.transfer(&Descriptor::pattern(9, write, dma, 64, 9))?;
        self.b.sim.checker.rogue_done(rogue);
        Ok(())
    }

    /// Compares memory with what the device wrote to `dma`.
    pub fn compare(&mut self, phys: PhysAddr, dma: DmaAddr, len: u64, seed: u32) {
        let (mut want, mut got) = (vec![0; len as usize], vec![0; len as usize]);
        pattern_bytes(dma, seed, &mut want);
        self.b.sim.mem_read(phys, &mut got);
        self.b.sim.compare_memory(dma, &want, &got);
    }

    pub fn bar(&self, f: usize) -> PhysAddr {
        self.b.functions[f].engine.memory
    }

    /// Brings the machine to rest and collects everything.
    pub fn finish(mut self) -> Result<Vec<Failure>, Error> {
        self.b.quiesce()?;
        let live = self.b.dma.live().count();
        if live != 0 {
            self.fail("leak", format!("{live} mappings are left"));
        }
        let slots = self.b.dma.swiotlb().map_or(0, |s| s.used());
        if slots != 0 {
            self.fail("leak", format!("{slots} bounce slots are left"));
        }
        let rows = self.b.sim.checker.violation_rows();
        let mut all: Vec<_> = rows.iter().map(Failure::from).collect();
        all.append(&mut self.found);
        if let Some(debug) = self.b.dma.debug() {
            let left = debug.dump().count();
            if left != 0 {
                all.push(Failure {
                    judge: "dma-debug".to_owned(),
                    field: "leak".to_owned(),
                    tlp: 0,
                    text: format!("{left} entries are left"),
                });
            }
        }
        all.extend(looked_at(self.b));
        Ok(all)
    }
}

/// A BAR through the host bridge by `dma_map_phys`; drivers that unmap it wrongly.
fn peer() -> Result<Vec<Failure>, Error> {
    let mut r = Rig::new(Setup {
        coherent: [false; 3],
        ..Setup::default()
    })?;
    let bar = r.bar(FAR);
    let size = 2 * PAGE;
    let mapped = r.b.map_phys(CLIENT, bar, size, Bidirectional, Attrs::MMIO);
    if let Some(dma) = r.ok("dma_map_phys", mapped) {
        r.write(dma, size, 7)?;
        r.read(dma, size)?;
        if armed(Mutant::M13) {
            let dev = r.b.functions[CLIENT].dev;
            let ending = r.b.revoke_begin(dev, dma, size);
            let (api, sim) = (&mut r.b.dma, &mut r.b.sim);
            api.dma_unmap_page(sim, dev, dma, size, Bidirectional, Attrs::MMIO);
            r.b.revoke_end(ending);
        } else {
            let attrs = if armed(Mutant::M11) {
                Attrs::empty()
            } else {
                Attrs::MMIO
            };
            let size = if armed(Mutant::M14) { PAGE } else { size };
            r.b.unmap_phys(CLIENT, dma, size, Bidirectional, attrs);
        }
    }
    r.finish()
}

/// A BAR, not aligned, for a device whose unaligned memory is bounced.
fn bounced_peer() -> Result<Vec<Failure>, Error> {
    let mut r = Rig::new(Setup {
        untrusted: [true; 3],
        swiotlb: Swiotlb::new(POOL, 4 << 20, 2, false),
        ..Setup::default()
    })?;
    let (bar, size) = (r.bar(FAR).offset(0x100), 0x200);
    let mapped = r.b.map_phys(CLIENT, bar, size, FromDevice, Attrs::MMIO);
    if let Some(dma) = r.ok("dma_map_phys", mapped) {
        r.write(dma, size, 7)?;
        r.b.unmap_phys(CLIENT, dma, size, FromDevice, Attrs::MMIO);
    }
    r.finish()
}

/// Unaligned memory of an untrusted device that is not coherent.
fn bounced() -> Result<Vec<Failure>, Error> {
    let mut r = Rig::new(Setup {
        coherent: [false; 3],
        untrusted: [true; 3],
        swiotlb: Swiotlb::new(POOL, 4 << 20, 2, false),
        ..Setup::default()
    })?;
    // What others left in the pool and around the buffer.
    r.b.sim.mem_write(POOL, &vec![0xaa; 1 << 20]);
    r.b.sim.mem_write(BUFFER, &[0x55; PAGE as usize]);
    let (phys, size, none) = (BUFFER.offset(0x100), 0x200, Attrs::empty());
    let mapped = r.b.map_phys(CLIENT, phys, size, Bidirectional, none);
    let Some(dma) = r.ok("dma_map_phys", mapped) else {
        return r.finish();
    };
    // The neighbours that the device sees: those of its own page.
    let dev = r.b.functions[CLIENT].dev;
    if let Some(target) = r.b.dma.describe(dev, dma).map(|m| m.segments[0].target) {
        let end = target.offset(size);
        let mut seen = vec![0; (PAGE - end.offset_in(PAGE)) as usize];
        r.b.sim.mem_read(end, &mut seen);
        r.expect("neighbours", seen.iter().all(|b| *b == 0));
    }
    r.read(dma, size)?;
    let (api, sim) = (&mut r.b.dma, &mut r.b.sim);
    api.dma_sync_single_for_cpu(sim, dev, dma, size, Bidirectional);
    sim.mem_write(phys, &[0x33; 0x200]);
    api.dma_sync_single_for_device(sim, dev, dma, size, Bidirectional);
    r.read(dma, size)?;
    r.write(dma, size, 7)?;
    let attrs = if armed(Mutant::M12) {
        Attrs::MMIO
    } else {
        none
    };
    r.b.unmap_phys(CLIENT, dma, size, Bidirectional, attrs);
    r.compare(phys, dma, size, 7);
    r.finish()
}

/// What must be refused, with the right error and the right events.
fn refused() -> Result<Vec<Failure>, Error> {
    let mut setup = Setup {
        attach: [Attach::Direct; 3],
        swiotlb: Swiotlb::new(POOL, 4 << 20, 2, false),
        coherent: [true, false, true],
        ..Setup::default()
    };
    setup.machine.iommu = false;
    setup.machine.aperture_wb = false;
    setup.device.force_bounce = true;
    let mut r = Rig::new(setup)?;
    let bar = r.bar(FAR);
    let events = |r: &mut Rig| r.b.dma.trace.take().len();

    let mapped = r.b.map_phys(CLIENT, bar, PAGE, FromDevice, Attrs::MMIO);
    r.expect(
        "device memory where all is bounced",
        mapped == Err(MapError::MmioForceBounce),
    );
    let traced = events(&mut r);
    r.expect("event of a failure", traced == 1);
    let attrs = Attrs::REQUIRE_COHERENT;
    let mapped = r.b.map_phys(CLIENT, BUFFER, 64, FromDevice, attrs);
    r.expect("bounced", mapped == Err(MapError::WouldBounce));
    events(&mut r);
    let mapped = r.b.map_phys(NEAR, BUFFER, 64, FromDevice, attrs);
    r.expect("coherent", mapped == Err(MapError::NotCoherent));
    let traced = events(&mut r);
    r.expect("event of an early reject", traced == 0);

    let mut setup = Setup {
        attach: [Attach::Direct; 3],
        ..Setup::default()
    };
    setup.machine.iommu = false;
    setup.machine.aperture_wb = false;
    // The aperture is above.
    setup.device.dma_mask = Some(u64::from(u32::MAX));
    setup.device.bus_dma_limit = 0x3fff_ffff;
    let mut other = Rig::new(setup)?;
    let bar = other.bar(FAR);
    let mapped = other.b.map_phys(CLIENT, bar, PAGE, FromDevice, Attrs::MMIO);
    r.expect(
        "out of reach",
        matches!(mapped, Err(MapError::Overflow { .. })),
    );

    // A driver that does not ask whether it reaches the peer, which no bridge lets through.
    let mut other = Rig::new(Setup {
        policy: HostBridgePolicy::Refuse,
        ..Setup::default()
    })?;
    let bar = other.bar(FAR);
    let reached = other.b.peer_map_type(CLIENT, FAR) == MapType::ThruHostBridge;
    if reached || armed(Mutant::M15) {
        let mapped = other.b.map_resource(CLIENT, bar, PAGE, FromDevice);
        if let Some(dma) = other.ok("dma_map_resource", mapped) {
            let through = other.b.dma.describe(other.b.functions[CLIENT].dev, dma);
            let through = through.is_some_and(|m| m.route == Route::ThroughBridge);
            other.expect("reach of a peer", reached || !through);
            other.write(dma, 64, 7)?;
            other.b.unmap_resource(CLIENT, dma, PAGE, FromDevice);
        }
    }
    r.found.append(&mut other.finish()?);
    r.finish()
}

/// Device memory is reached by its CPU address, whatever memory is reached by.
fn ranges() -> Result<Vec<Failure>, Error> {
    let mut setup = Setup {
        attach: [Attach::Direct; 3],
        ..Setup::default()
    };
    setup.machine.iommu = false;
    setup.machine.aperture_wb = false;
    setup.device.memory_encryption = 1 << 47;
    let mut r = Rig::new(setup)?;
    let bar = r.bar(FAR);
    let mapped = r.b.map_phys(CLIENT, bar, PAGE, FromDevice, Attrs::MMIO);
    if let Some(dma) = r.ok("dma_map_phys", mapped) {
        r.write(dma, 64, 7)?;
        r.b.unmap_phys(CLIENT, dma, PAGE, FromDevice, Attrs::MMIO);
    }
    r.finish()
}

/// IOVA of the two-step calls.
fn two_step() -> Result<Vec<Failure>, Error> {
    let mut r = Rig::new(Setup {
        untrusted: [true, false, false],
        swiotlb: Swiotlb::new(POOL, 4 << 20, 2, false),
        ..Setup::default()
    })?;
    let (dev, none) = (r.b.functions[CLIENT].dev, Attrs::empty());
    r.b.dma.dma_set_min_align_mask(dev, PAGE - 1)?;
    for destroy in [true, false] {
        let Some(mut state) = r.b.dma.dma_iova_try_alloc(dev, BUFFER, 2 * PAGE + 64) else {
            r.fail("no IOVA", String::new());
            continue;
        };
        let links = [(0, PAGE), (PAGE, PAGE + 64)];
        for (at, size) in links {
            let phys = BUFFER.offset(4 * at);
            let linked =
                r.b.iova_link(CLIENT, &mut state, phys, at, size, (ToDevice, none));
            r.ok("dma_iova_link", linked);
        }
        let synced = r.b.dma.dma_iova_sync(dev, &state, 0, 2 * PAGE + 64);
        r.ok("dma_iova_sync", synced);
        r.b.iova_promise(CLIENT, &state, &links[..1], none);
        r.read(state.addr(), PAGE)?;
        if destroy {
            let size = 2 * PAGE + 64;
            r.b.iova_destroy(CLIENT, &mut state, &links[..1], size, (ToDevice, none));
        } else {
            r.b.iova_unlink_free(CLIENT, &mut state, &links, (ToDevice, none));
        }
    }
    let Some(mut state) = r.b.dma.dma_iova_try_alloc(dev, BUFFER, 4 * PAGE) else {
        return r.finish();
    };
    let head = BUFFER.offset(0x100);
    let linked =
        r.b.iova_link(CLIENT, &mut state, head, PAGE, PAGE, (ToDevice, none));
    r.expect("head inside", linked == Err(MapError::HeadOffset));
    r.b.dma.dma_iova_free(dev, &mut state);
    r.finish()
}
