//! The machine of a program.

use tlproof_dma::{
    Attach, Config, MapError, Profile, Swiotlb, debug,
    nvme::{Ctrl, Nvme},
    p2pdma::HostBridgePolicy,
    riscv::Mode,
};
use tlproof_pcie::{Bdf, MemoryMap, Range, tree::Acs};

use crate::{
    checker::Checker,
    memory_port::Latency,
    output::SharedSink,
    simulation,
    testbench::{Error, Setup, Testbench},
};

/// Bounce slots.
pub(super) const POOL: Range = Range::sized(0x8800_0000, 4 << 20);

/// Bytes of the longest segment that a device takes: what it is without a driver that says more.
pub(super) const MAX_SEGMENT: u64 = 0x1_0000;

/// Main memory above 4 GiB.
const HIGH: Range = Range::sized(0x2_0000_0000, 256 << 20);

/// How an endpoint is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// A DMA domain, invalidated at every unmap.
    Strict,
    /// A DMA domain with a flush queue.
    Lazy,
    /// The identity domain.
    Identity,
}

/// An endpoint's DMA parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// How it is attached; without an IOMMU all are direct.
    pub attached: Attached,
    /// It snoops the CPU caches.
    pub coherent: bool,
    /// Unaligned buffers are bounced.
    pub untrusted: bool,
    /// Bits of the DMA mask.
    pub mask_bits: u32,
    /// `min_align_mask`.
    pub min_align_mask: u64,
    /// The driver of an NVMe disk has it, which sets a `min_align_mask` and a segment size of its own.
    pub nvme: bool,
    /// Virtqueues have indirect descriptors.
    pub indirect: bool,
}

impl Default for Port {
    fn default() -> Self {
        Self {
            attached: Attached::Strict,
            coherent: true,
            untrusted: false,
            mask_bits: 64,
            min_align_mask: 0,
            nvme: false,
            indirect: true,
        }
    }
}

/// Everything about the machine that a program can choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Which Linux.
    pub profile: Profile,
    /// Seed of latencies and stalls.
    pub seed: u64,
    /// Least and most cycles of a read at the memory port.
    pub latency: (u64, u64),
    /// The memory port refuses a request in one of this many cycles; 0 never.
    pub stall_one_in: u32,
    /// There is an IOMMU.
    pub iommu: bool,
    /// Page-table mode, `None` for the widest.
    pub mode: Option<Mode>,
    /// Levels of the device directory.
    pub ddt_levels: u8,
    /// Base of the PCIe aperture.
    pub aperture: u64,
    /// CPU physical address less bus address in the aperture.
    pub bus_offset: u64,
    /// Ports redirect peer requests to the root complex.
    pub redirect: bool,
    /// The host bridge lets peers through.
    pub bridge: bool,
    /// A bounce pool: `Some(true)` bounces every streaming mapping of untranslated devices.
    pub swiotlb: Option<bool>,
    /// Buffers lie above 4 GiB.
    pub high: bool,
    /// dma-debug looks at every call.
    pub debug: bool,
    /// KMSAN looks at every byte that a device may read.
    pub kmsan: bool,
    /// The endpoints.
    pub ports: [Port; 3],
}

impl Default for World {
    fn default() -> Self {
        Self {
            profile: Profile::Intended,
            seed: 1,
            latency: (8, 40),
            stall_one_in: 0,
            iommu: true,
            mode: None,
            ddt_levels: 3,
            aperture: 0x4000_0000,
            bus_offset: 0,
            redirect: true,
            bridge: true,
            swiotlb: None,
            high: false,
            debug: false,
            kmsan: false,
            ports: Default::default(),
        }
    }
}

impl World {
    /// The testbench's options.
    #[must_use]
    pub fn setup(&self) -> Setup {
        let attach = |p: &Port| match (self.iommu, p.attached) {
            (false, _) => Attach::Direct,
            (true, Attached::Strict) => Attach::Strict,
            (true, Attached::Lazy) => Attach::Lazy,
            (true, Attached::Identity) => Attach::Identity,
        };
        let [a, b, c] = &self.ports;
        let mut dram = MemoryMap::default().dram;
        dram.push(HIGH);
        let mut s = Setup {
            config: Config {
                debug: self.debug.then(|| debug::Options {
                    all_errors: true,
                    ..debug::Options::default()
                }),
                kmsan: self.kmsan,
                ..Config::default()
            },
            machine: simulation::Options {
                map: MemoryMap {
                    aperture: Range::sized(self.aperture, 0x4000_0000),
                    bus_offset: self.bus_offset,
                    dram,
                    ..MemoryMap::default()
                },
                iommu: self.iommu,
                aperture_wb: self.blocking(),
                latency: Latency {
                    min: self.latency.0,
                    max: self.latency.1.max(self.latency.0 + 1),
                },
                stall_one_in: self.stall_one_in,
                seed: self.seed,
                ..simulation::Options::default()
            },
            profile: self.profile,
            attach: [attach(a), attach(b), attach(c)],
            coherent: [a.coherent, b.coherent, c.coherent],
            untrusted: [a.untrusted, b.untrusted, c.untrusted],
            acs: if self.redirect {
                Acs::STANDARD
            } else {
                Acs::SV | Acs::UF
            },
            policy: if self.bridge {
                HostBridgePolicy::Any
            } else {
                HostBridgePolicy::Refuse
            },
            ..Setup::default()
        };
        s.iommu.address_mode = self.mode;
        s.iommu.ddt_levels = Some(self.ddt_levels);
        // A stock kernel refuses a unit with page-based memory types.
        s.iommu.svpbmt = self.profile != Profile::Linux72;
        s
    }

    /// Whether every endpoint is translated, so that accesses without a promise are refused.
    #[must_use]
    pub fn blocking(&self) -> bool {
        self.iommu
            && !self.profile.quirks().identity_only
            && self.ports.iter().all(|p| p.attached != Attached::Identity)
    }

    /// Brings the machine up.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn bring_up(&self, sink: Option<SharedSink>) -> Result<Testbench, Error> {
        /// Violations that end a program.
        const ENOUGH: usize = 20;
        let setup = self.setup();
        let checker = Checker::new(&setup.machine, self.blocking(), sink, ENOUGH);
        let mut bench = Testbench::new(&setup, checker)?;
        for f in 0..bench.functions.len() {
            self.set_parameters(&mut bench, f)?;
        }
        if let Some(force) = self.swiotlb
            && let Some(pool) = Swiotlb::new(POOL.base, POOL.size(), 2, force)
        {
            bench.dma.set_swiotlb(pool);
        }
        Ok(bench)
    }

    /// What the driver of function `f` says about its device.
    pub(super) fn set_parameters(&self, bench: &mut Testbench, f: usize) -> Result<(), MapError> {
        let (dev, port) = (bench.functions[f].dev, &self.ports[f]);
        self.set_masks(bench, f)?;
        bench.dma.dma_set_min_align_mask(dev, port.min_align_mask)?;
        bench.dma.dma_set_max_seg_size(dev, MAX_SEGMENT)
    }

    /// The addresses that the device of function `f` reaches.
    fn set_masks(&self, bench: &mut Testbench, f: usize) -> Result<(), MapError> {
        let (dev, port) = (bench.functions[f].dev, &self.ports[f]);
        let mask = u64::MAX >> (64 - port.mask_bits.clamp(1, 64));
        bench.dma.dma_set_mask(dev, mask)?;
        bench.dma.dma_set_coherent_mask(dev, mask)
    }

    /// The driver of the NVMe disk at function `f`, if there is one.
    pub(super) fn nvme(&self, bench: &mut Testbench, f: usize) -> Result<Option<Nvme>, MapError> {
        if !self.ports[f].nvme {
            return Ok(None);
        }
        let dev = bench.functions[f].dev;
        let nvme = Nvme::new(&mut bench.dma, dev, Ctrl::default())?;
        self.set_masks(bench, f)?;
        bench.dma.dma_set_max_seg_size(dev, MAX_SEGMENT)?;
        Ok(Some(nvme))
    }

    /// Where buffers lie.
    #[must_use]
    pub const fn buffers(&self) -> Range {
        if self.high {
            HIGH
        } else {
            Range::sized(0x9000_0000, 256 << 20)
        }
    }

    /// Whether the requests of this function are translated.
    pub(super) fn is_translated(&self, bench: &Testbench, bdf: Bdf) -> bool {
        let mut all = bench.functions.iter().zip(&self.ports);
        self.iommu
            && !self.profile.quirks().identity_only
            && all.any(|(f, p)| f.engine.bdf == bdf && p.attached != Attached::Identity)
    }
}
