//! A machine with its drivers: bring-up, and mapping calls that also enter the promise ledger.

mod entered;
mod hotplug;
mod iova;
pub mod nvme;
mod pages;
mod peers;
pub mod virtio;

use std::collections::BTreeMap;

use tlproof_dma::{
    Api, Attach, Attrs, Coherent, Config, Device, DeviceId, Dma, MapError, Mapping, Profile,
    Quirks, SgEntry, Swiotlb,
    iommu::IommuError,
    p2pdma::{HostBridgePolicy, P2pError, ProviderId},
    pages::PagePool,
    riscv::{self, RiscvIommu},
};
use tlproof_golden::{MemoryKind, Promise, PromiseId, Route};
use tlproof_pcie::{
    Bdf, Direction, DmaAddr, MemType, PhysAddr, Range,
    config::AccessError,
    enumerate::{self, EnumerateError, enumerate},
    tree::{Acs, Tree},
};
use tlproof_sim::SimError;

use crate::{
    checker::Checker,
    endpoint::Endpoint,
    simulation::{self, Simulation},
};

/// The function of the IOMMU on bus 0.
pub const IOMMU: Bdf = Bdf::new(0, 1, 0);

/// Vendor and device ID of the endpoints.
pub const ENDPOINT_ID: (u16, u16) = (0x1b36, 0x0e9d);

/// Why a machine does not come up or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The simulation itself failed.
    #[error(transparent)]
    Sim(#[from] SimError),
    /// The hierarchy cannot be enumerated.
    #[error("enumeration: {0}")]
    Enumerate(#[from] EnumerateError),
    /// The IOMMU driver failed.
    #[error("IOMMU driver: {0}")]
    Iommu(#[from] IommuError),
    /// A mapping call failed that must not.
    #[error("mapping call: {0}")]
    Map(#[from] MapError),
    /// A BAR cannot be shared with peers.
    #[error("peer-to-peer: {0}")]
    P2p(#[from] P2pError),
    /// A device does not answer.
    #[error("device access: {0}")]
    Access(#[from] AccessError),
    /// The hardware is not what the testbench expects.
    #[error("{0}")]
    Machine(String),
}

/// How devices are attached and what the IOMMU driver does.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The machine.
    pub machine: simulation::Options,
    /// Which Linux.
    pub profile: Profile,
    /// Switches in place of the profile's.
    pub quirks: Option<Quirks>,
    /// The mapping API, but for the switches.
    pub config: Config,
    /// Parameters of the endpoints' devices, but for identity and coherence.
    pub device: Device,
    /// The bounce pool.
    pub swiotlb: Option<Swiotlb>,
    /// How each endpoint is attached.
    pub attach: [Attach; 3],
    /// Whether each endpoint's DMA is coherent.
    pub coherent: [bool; 3],
    /// Whether unaligned buffers of each endpoint are bounced.
    pub untrusted: [bool; 3],
    /// ACS services of all ports.
    pub acs: Acs,
    /// IOMMU driver options.
    pub iommu: riscv::Options,
    /// Pages for tables, queues and coherent memory.
    pub tables: Range,
    /// What crosses the host bridge.
    pub policy: HostBridgePolicy,
    /// CPUs that calls are made on.
    pub cpus: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            machine: simulation::Options::default(),
            profile: Profile::Intended,
            quirks: None,
            config: Config::default(),
            device: Device::new(Bdf::new(0, 0, 0)),
            swiotlb: None,
            attach: [Attach::Strict; 3],
            coherent: [true; 3],
            untrusted: [false; 3],
            acs: Acs::STANDARD,
            iommu: riscv::Options {
                command_queue_log2: 6,
                fault_queue_log2: 8,
                ..riscv::Options::default()
            },
            tables: Range::sized(0x8000_0000, 64 << 20),
            policy: HostBridgePolicy::AllowList,
            cpus: 2,
        }
    }
}

impl Setup {
    /// The switches in force.
    #[must_use]
    pub fn quirks(&self) -> Quirks {
        self.quirks.unwrap_or(self.profile.quirks())
    }
}

/// An endpoint with its device structure.
pub struct Function {
    /// The DMA engine's driver.
    pub engine: Endpoint,
    /// The device of the mapping API.
    pub dev: DeviceId,
    /// Its memory BAR as a provider of peer memory.
    pub provider: ProviderId,
}

/// A machine that is up.
pub struct Testbench {
    /// The hardware.
    pub sim: Simulation,
    /// The mapping API.
    pub dma: Dma<RiscvIommu>,
    /// The endpoints, in the order of their taps.
    pub functions: Vec<Function>,
    /// The hierarchy.
    pub tree: Tree,
    promises: BTreeMap<(DeviceId, u64, u64), Vec<PromiseId>>,
    /// Promises whose invalidation is still queued: they end with the flush.
    draining: Vec<(Mapping, PromiseId)>,
    /// Mapping calls made.
    pub calls: u64,
}

/// Enumerates the hierarchy of a new machine.
///
/// # Errors
/// See [`Error`].
pub fn bring_up_tree(sim: &mut Simulation, acs: Acs) -> Result<Tree, Error> {
    let map = sim.options().map.clone();
    let options = enumerate::Options {
        acs,
        ..enumerate::Options::default()
    };
    let tree = enumerate(sim, &map, &options);
    if let Some(e) = sim.failure() {
        return Err(e.clone().into());
    }
    Ok(tree?)
}

impl Testbench {
    /// Builds the machine and brings everything up.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(setup: &Setup, checker: Checker) -> Result<Self, Error> {
        let mut sim = Simulation::new(setup.machine.clone(), checker)?;
        sim.memory.set_caching(setup.coherent.contains(&false));
        let tree = bring_up_tree(&mut sim, setup.acs)?;
        let map = setup.machine.map.clone();
        // Half of the pages for the IOMMU's tables and queues, half for coherent memory.
        let half = setup.tables.size() / 2;
        let tables = Range::sized(setup.tables.base.0, half);
        let coherent = Range::sized(setup.tables.base.0 + half, half);

        let iommu = if setup.machine.iommu {
            let node = tree
                .find(IOMMU)
                .ok_or_else(|| Error::Machine("no IOMMU at 00:01.0".to_owned()))?;
            let bar = node
                .bar(0)
                .ok_or_else(|| Error::Machine("the IOMMU has no BAR".into()))?;
            sim.set_iommu_registers(bar.phys);
            let pool = PagePool::new(tables);
            let options = riscv::Options {
                svpbmt_refused: setup.quirks().svpbmt_refused,
                ..setup.iommu.clone()
            };
            Some(RiscvIommu::probe(&mut sim, bar.phys, pool, &options)?)
        } else {
            None
        };
        let config = Config {
            quirks: setup.quirks(),
            cpus: setup.cpus,
            ..setup.config.clone()
        };
        let mut dma = Dma::new(config.reserve_window(map.aperture, map.bus_offset), iommu);
        if let Some(pool) = &setup.swiotlb {
            dma.set_swiotlb(pool.clone());
        }
        dma.p2pdma.policy = setup.policy;
        dma.set_pages(Box::new(PagePool::new(coherent)));

        let mut functions = Vec::new();
        let nodes: Vec<_> = tree
            .find_id(ENDPOINT_ID.0, ENDPOINT_ID.1)
            .cloned()
            .collect();
        for (i, node) in nodes.iter().enumerate() {
            let (Some(regs), Some(memory)) = (node.bar(0), node.bar(2)) else {
                return Err(Error::Machine(format!(
                    "{}: BAR 0 or 2 is missing",
                    node.bdf
                )));
            };
            let mut device = setup.device.clone();
            device.bdf = node.bdf;
            device.coherent = setup.coherent[i];
            device.untrusted |= setup.untrusted[i];
            let dev = dma.add_device(&mut sim, device, setup.attach[i])?;
            let provider = dma.p2pdma.add_resource(node.bdf, &node.bars, 2, 0, 0)?;
            let engine = Endpoint::new(node.bdf, regs.phys, memory.phys);
            functions.push(Function {
                engine,
                dev,
                provider,
            });
        }
        if functions.len() != 3 {
            return Err(Error::Machine(format!(
                "{} endpoints found instead of 3",
                functions.len()
            )));
        }
        Ok(Self {
            sim,
            dma,
            functions,
            tree,
            promises: BTreeMap::new(),
            draining: Vec::new(),
            calls: 0,
        })
    }

    /// `dma_map_phys`, entered in the ledger.
    ///
    /// # Errors
    /// As the call.
    pub fn map_phys(
        &mut self,
        f: usize,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    ) -> Result<DmaAddr, MapError> {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let dma = self
            .dma
            .dma_map_phys(&mut self.sim, dev, phys, size, dir, attrs)?;
        let call = format!(
            "dma_map_phys({}, phys={phys:#x}, size={size}, dir={}, attrs={attrs}) = {dma:#x}",
            self.functions[f].engine.bdf,
            dir.name()
        );
        self.promise(dev, dma, call);
        Ok(dma)
    }

    /// `dma_unmap_phys`; the promise ends when it returns, or with the flush in lazy mode.
    pub fn unmap_phys(&mut self, f: usize, dma: DmaAddr, size: u64, dir: Direction, attrs: Attrs) {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let ending = self.revoke_begin(dev, dma, size);
        self.dma
            .dma_unmap_phys(&mut self.sim, dev, dma, size, dir, attrs);
        self.revoke_end(ending);
    }

    /// `dma_map_resource`, entered in the ledger.
    ///
    /// # Errors
    /// As the call.
    pub fn map_resource(
        &mut self,
        f: usize,
        phys: PhysAddr,
        size: u64,
        dir: Direction,
    ) -> Result<DmaAddr, MapError> {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let none = Attrs::empty();
        let dma = self
            .dma
            .dma_map_resource(&mut self.sim, dev, phys, size, dir, none)?;
        let call = format!(
            "dma_map_resource({}, phys={phys:#x}, size={size}, dir={}) = {dma:#x}",
            self.functions[f].engine.bdf,
            dir.name()
        );
        self.promise(dev, dma, call);
        Ok(dma)
    }

    /// `dma_unmap_resource`.
    pub fn unmap_resource(&mut self, f: usize, dma: DmaAddr, size: u64, dir: Direction) {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let ending = self.revoke_begin(dev, dma, size);
        let none = Attrs::empty();
        self.dma
            .dma_unmap_resource(&mut self.sim, dev, dma, size, dir, none);
        self.revoke_end(ending);
    }

    /// `dma_alloc_coherent`, entered in the ledger.
    ///
    /// # Errors
    /// As the call.
    pub fn alloc_coherent(&mut self, f: usize, size: u64) -> Result<Coherent, MapError> {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let memory = self.dma.dma_alloc_coherent(&mut self.sim, dev, size)?;
        let call = format!(
            "dma_alloc_coherent({}, size={size}) = {:#x}",
            self.functions[f].engine.bdf, memory.dma
        );
        self.promise(dev, memory.dma, call);
        Ok(memory)
    }

    /// `dma_free_coherent`.
    pub fn free_coherent(&mut self, f: usize, memory: Coherent) {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let ending = self.revoke_begin(dev, memory.dma, memory.size);
        self.dma
            .dma_free_attrs(&mut self.sim, dev, memory, Attrs::empty());
        self.revoke_end(ending);
    }

    /// Maps the page of an interrupt file for the messages of function `f`: write only, as device
    /// memory, for as long as the device is there. Returns the address for its MSI-X table.
    ///
    /// # Errors
    /// As `dma_map_phys`.
    pub fn map_msi(&mut self, f: usize, file: PhysAddr) -> Result<DmaAddr, MapError> {
        const PAGE: u64 = 4096;
        let (dev, bdf) = (self.functions[f].dev, self.functions[f].engine.bdf);
        let within = file.0 % PAGE;
        let page = PhysAddr(file.0 - within);
        self.calls += 1;
        let dma = self.dma.dma_map_phys(
            &mut self.sim,
            dev,
            page,
            PAGE,
            Direction::FromDevice,
            Attrs::MMIO,
        )?;
        let via_iommu = self
            .dma
            .describe(dev, dma)
            .is_some_and(|m| m.domain.is_some());
        // The file is behind the memory port, not behind a root port.
        let doorbell = Promise {
            device: bdf,
            dma,
            size: PAGE,
            segments: vec![(page, PAGE)],
            direction: Direction::FromDevice,
            kind: MemoryKind::Mmio,
            expect: MemType::Device,
            snoop: false,
            route: Route::Memory,
            via_iommu,
            call: format!("MSI doorbell of {bdf}: {page:#x} at {dma:#x}"),
        };
        self.enter(dev, doorbell);
        Ok(dma.offset(within))
    }

    /// `dma_map_sg`, entered in the ledger; returns the number of segments.
    ///
    /// # Errors
    /// As the call.
    pub fn map_sg(
        &mut self,
        f: usize,
        list: &mut [SgEntry],
        dir: Direction,
        attrs: Attrs,
    ) -> Result<usize, MapError> {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let n = self.dma.dma_map_sg(&mut self.sim, dev, list, dir, attrs)?;
        for (i, s) in list[..n].iter().enumerate() {
            let call = format!(
                "dma_map_sg({}, {} entries, dir={}, attrs={attrs}), segment {i}: {:#x}+{}",
                self.functions[f].engine.bdf,
                list.len(),
                dir.name(),
                s.dma_address,
                s.dma_length
            );
            self.promise(dev, s.dma_address, call);
        }
        Ok(n)
    }

    /// `dma_unmap_sg`.
    pub fn unmap_sg(&mut self, f: usize, list: &mut [SgEntry], dir: Direction, attrs: Attrs) {
        let dev = self.functions[f].dev;
        self.calls += 1;
        let segments: Vec<_> = list
            .iter()
            .filter(|s| s.dma_length != 0)
            .map(|s| (s.dma_address, s.dma_length))
            .collect();
        let mut ending = Vec::new();
        for (dma, size) in segments {
            ending.extend(self.revoke_begin(dev, dma, size));
        }
        self.dma.dma_unmap_sg(&mut self.sim, dev, list, dir, attrs);
        self.revoke_end(ending);
    }

    /// Enters the mapping that a call has just made.
    pub fn promise(&mut self, dev: DeviceId, dma: DmaAddr, call: String) {
        let Some(m) = self.dma.describe(dev, dma) else {
            return;
        };
        let promise = Promise {
            device: m.device,
            dma: m.dma,
            size: m.size,
            segments: m.segments.iter().map(|s| (s.target, s.len)).collect(),
            direction: m.dir,
            kind: match m.route {
                tlproof_dma::Route::Memory => MemoryKind::Dram,
                _ => MemoryKind::Mmio,
            },
            expect: m.expected.mem_type,
            // Where the promise leaves it open, the bridge snoops what is cacheable.
            snoop: m.expected.snoop.unwrap_or(true),
            route: match m.route {
                tlproof_dma::Route::Memory => Route::Memory,
                tlproof_dma::Route::ThroughBridge => Route::PeerThroughBridge,
                tlproof_dma::Route::BusAddress => Route::PeerBusAddress,
            },
            via_iommu: m.domain.is_some(),
            call,
        };
        self.enter(dev, promise);
    }

    /// Enters a promise as it is given, whatever call was to make it.
    pub fn enter(&mut self, dev: DeviceId, promise: Promise) {
        let key = (dev, promise.dma.0, promise.size);
        let id = self.sim.checker.promise(promise);
        self.promises.entry(key).or_default().push(id);
    }

    /// Marks the promise at `dma` as ending.
    pub fn revoke_begin(
        &mut self,
        dev: DeviceId,
        dma: DmaAddr,
        size: u64,
    ) -> Vec<(Option<Mapping>, PromiseId)> {
        let key = (dev, dma.0, size);
        let Some(ids) = self.promises.get_mut(&key) else {
            return Vec::new();
        };
        let id = ids.remove(0);
        if ids.is_empty() {
            self.promises.remove(&key);
        }
        self.sim.checker.revoke_begin(id);
        vec![(self.dma.describe(dev, dma), id)]
    }

    /// Ends promises whose unmap call has returned, unless their invalidation is queued.
    pub fn revoke_end(&mut self, ending: Vec<(Option<Mapping>, PromiseId)>) {
        for (mapping, id) in ending {
            match mapping {
                Some(m) if m.api != Api::Coherent && self.dma.draining().contains(&m) => {
                    self.draining.push((m, id));
                }
                _ => self.sim.checker.revoke_end(id),
            }
        }
    }

    /// Lets the API's timers run and ends the promises that a flush has completed.
    pub fn timers(&mut self) {
        self.dma.tick(&mut self.sim);
        self.end_drained();
    }

    /// Flushes all queues of lazy mode.
    pub fn flush(&mut self) {
        self.dma.flush_queues(&mut self.sim);
        self.end_drained();
    }

    /// Ends the flush that [`Dma::flush_begin`] began for the domain of function `f`.
    pub fn flush_end(&mut self, f: usize) {
        self.dma.flush_end(&mut self.sim, self.functions[f].dev);
        self.end_drained();
    }

    fn end_drained(&mut self) {
        if self.draining.is_empty() {
            return;
        }
        let waiting = self.dma.draining();
        let checker = &mut self.sim.checker;
        self.draining.retain(|(m, id)| {
            let keep = waiting.contains(m);
            if !keep {
                checker.revoke_end(*id);
            }
            keep
        });
    }

    /// Brings everything to rest and lets the checker look for what is missing.
    ///
    /// # Errors
    /// When the simulation fails.
    pub fn quiesce(&mut self) -> Result<(), Error> {
        self.flush();
        if !self.sim.settle(4_000_000)? {
            return Err(Error::Machine(
                "the machine does not come to rest: a TLP or a walk is stuck".to_owned(),
            ));
        }
        let faults = match self.dma.iommu_mut() {
            Some(iommu) => iommu.fault_records(&mut self.sim)?,
            None => Vec::new(),
        };
        self.sim.quiesce(&faults);
        Ok(())
    }
}
