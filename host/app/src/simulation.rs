//! The simulated machine: the model, the memory behind it, and the checker that sees every tap.
//!
//! One deterministic event loop: [`Simulation::tick`] is one clock cycle. The CPU side runs in zero
//! simulated time except for configuration and MMIO accesses, which wait for their completion.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_dma::machine::Machine;
use tlproof_golden::memory::{CachedMemory, Memory};
use tlproof_pcie::{
    Bdf, DmaAddr, MemoryMap, PhysAddr,
    config::{AccessError, ConfigSpace},
};
use tlproof_sim::{Model, SimError, ports::sim_top::SimTop};

use crate::{
    checker::Checker,
    memory_port::{BEAT_BYTES, BEAT_WORDS, Latency, ReadQueue, Request},
    taps,
};

/// What can be chosen about the machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address map.
    pub map: MemoryMap,
    /// The IOMMU is there and translates.
    pub iommu: bool,
    /// The bridge honours No Snoop.
    pub ns_honour: bool,
    /// The physical memory attributes of the PCIe aperture are those of main memory, so that only
    /// the page table tells device memory from cacheable memory.
    pub aperture_wb: bool,
    /// Latency of reads at the memory port, in cycles.
    pub latency: Latency,
    /// The memory port refuses a request in one of this many cycles; 0 never.
    pub stall_one_in: u32,
    /// Seed of latencies, orders and stalls.
    pub seed: u64,
    /// Waves to write.
    pub waves: Option<Waves>,
}

/// A window of cycles whose waves are written.
#[derive(Clone, Debug)]
pub struct Waves {
    /// The FST file.
    pub path: std::path::PathBuf,
    /// First cycle.
    pub from: u64,
    /// First cycle no longer written.
    pub until: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            map: MemoryMap::default(),
            iommu: true,
            ns_honour: true,
            aperture_wb: true,
            latency: Latency { min: 8, max: 40 },
            stall_one_in: 16,
            seed: 1,
            waves: None,
        }
    }
}

/// Cache maintenance that the CPU has done, in calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Ranges cleaned.
    pub cleans: u64,
    /// Ranges invalidated.
    pub invalidates: u64,
}

impl std::ops::Sub for Maintenance {
    type Output = Self;

    /// What was done since `earlier`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            cleans: self.cleans - earlier.cleans,
            invalidates: self.invalidates - earlier.invalidates,
        }
    }
}

/// An MSI that arrived at the interrupt files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// Address written.
    pub addr: PhysAddr,
    /// Data written.
    pub data: u32,
}

/// A request of the CPU under way.
struct CpuRequest {
    write: bool,
    config: bool,
    addr: u64,
    be: u8,
    data: u64,
    accepted: bool,
}

/// Cycles that a CPU request may take before the simulation is declared stuck; above the
/// completion timeout of the bridge.
const CPU_LIMIT: u64 = 1 << 20;

/// The machine.
pub struct Simulation {
    model: Model<SimTop>,
    /// Main memory with the CPU caches before it.
    pub memory: CachedMemory,
    /// Everything that looks at taps.
    pub checker: Checker,
    /// Cache maintenance so far.
    pub maintenance: Maintenance,
    options: Options,
    reads: ReadQueue,
    rng: ChaCha8Rng,
    stall: bool,
    write: Option<(Request, Vec<u8>)>,
    ep_tx: [taps::Assembly; taps::ENDPOINTS],
    ep_rx: [taps::Assembly; taps::ENDPOINTS],
    cpu: Option<CpuRequest>,
    cpu_response: Option<(u64, u8)>,
    msis: Vec<Msi>,
    iommu_registers: Option<PhysAddr>,
    /// The first failure of the simulation itself; every access fails from then on.
    failure: Option<SimError>,
    quiet_since: u64,
    waves_open: bool,
}

impl Simulation {
    /// Builds the machine and takes it out of reset.
    ///
    /// # Errors
    /// When the model fails during reset.
    pub fn new(options: Options, checker: Checker) -> Result<Self, SimError> {
        let mut model = Model::<SimTop>::new()?;
        taps::set_pma(model.input.pma_i(), &options.map);
        model.input.set_bus_offset_i(options.map.bus_offset);
        model.input.set_ns_honour_i(options.ns_honour);
        model
            .input
            .set_aperture_wb_i(options.aperture_wb && options.iommu);
        model.input.set_iommu_enable_i(options.iommu);
        model.input.set_rst_ni(false);
        for _ in 0..8 {
            model.cycle()?;
        }
        model.input.set_rst_ni(true);
        model.cycle()?;
        Ok(Self {
            model,
            memory: CachedMemory::new(&options.map),
            checker,
            maintenance: Maintenance::default(),
            reads: ReadQueue::new(options.latency, 256),
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            stall: false,
            write: None,
            ep_tx: Default::default(),
            ep_rx: Default::default(),
            cpu: None,
            cpu_response: None,
            msis: Vec::new(),
            iommu_registers: None,
            failure: None,
            quiet_since: 0,
            waves_open: false,
            options,
        })
    }

    /// The options it was built with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Clock cycles so far.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.model.cycles()
    }

    /// Opens and closes the waves at the ends of their window.
    fn waves(&mut self) -> Result<(), SimError> {
        let Some(w) = &self.options.waves else {
            return Ok(());
        };
        let now = self.model.cycles();
        if now >= w.until {
            self.model.trace_close();
            self.options.waves = None;
        } else if now >= w.from && !self.waves_open {
            self.waves_open = true;
            self.model.trace_open(&w.path)?;
        }
        Ok(())
    }

    /// Whether the window of the waves is past, or there is none.
    #[must_use]
    pub fn waves_done(&self) -> bool {
        self.options.waves.is_none()
    }

    /// Whether there was a window of waves, and it is past.
    #[must_use]
    pub fn waves_written(&self) -> bool {
        self.waves_open && self.waves_done()
    }

    /// Ends the waves.
    pub fn close_waves(&mut self) {
        self.options.waves = None;
        self.model.trace_close();
    }

    /// MSIs that arrived since the last call.
    pub fn take_msis(&mut self) -> Vec<Msi> {
        std::mem::take(&mut self.msis)
    }

    /// Tells the checker's IOMMU model where the CPU sees the IOMMU's registers.
    pub fn set_iommu_registers(&mut self, base: PhysAddr) {
        self.iommu_registers = Some(base);
    }

    /// Why the simulation failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<&SimError> {
        self.failure.as_ref()
    }

    /// Runs one clock cycle.
    ///
    /// # Errors
    /// When an assertion of the RTL fails, now or earlier.
    pub fn tick(&mut self) -> Result<(), SimError> {
        if let Some(e) = &self.failure {
            return Err(e.clone());
        }
        self.waves()?;
        let offered = self.drive();
        if let Err(e) = self.model.cycle() {
            self.failure = Some(e.clone());
            return Err(e);
        }
        self.sample(offered);
        Ok(())
    }

    /// Runs `cycles` clock cycles, staying in the model while nothing happens.
    ///
    /// # Errors
    /// As [`Simulation::tick`].
    pub fn run(&mut self, cycles: u64) -> Result<(), SimError> {
        let end = self.cycles() + cycles;
        while self.cycles() < end {
            let busy = self.model.output.activity_o() || !self.reads.is_empty();
            if busy || self.cpu.is_some() || self.options.waves.is_some() {
                self.tick()?;
                continue;
            }
            if let Some(e) = &self.failure {
                return Err(e.clone());
            }
            self.drive();
            match self.model.run_idle(end - self.cycles()) {
                Ok(_) => self.sample(false),
                Err(e) => {
                    self.failure = Some(e.clone());
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Runs until nothing has been under way for some time, at most `limit` cycles. Returns
    /// whether it got quiet.
    ///
    /// # Errors
    /// As [`Simulation::tick`].
    pub fn settle(&mut self, limit: u64) -> Result<bool, SimError> {
        const QUIET: u64 = 64;
        let end = self.cycles() + limit;
        while self.cycles() < end {
            self.tick()?;
            if self.cycles() - self.quiet_since >= QUIET {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Drives the inputs of the next cycle; returns whether a read response is offered.
    fn drive(&mut self) -> bool {
        let now = self.model.cycles();
        let input = &mut self.model.input;
        self.stall = self.options.stall_one_in != 0
            && self.rng.random_range(0..self.options.stall_one_in) == 0;
        input.set_mem_req_ready_i(!self.stall);
        let offer = self.reads.offer(now, &mut self.rng);
        input.set_mem_rsp_valid_i(offer.is_some());
        if let Some(beat) = &offer {
            *input.mem_rsp_i() = beat.words;
        }
        match &self.cpu {
            Some(c) if !c.accepted => {
                input.set_cpu_req_valid_i(true);
                input.set_cpu_req_write_i(c.write);
                input.set_cpu_req_cfg_i(c.config);
                input.set_cpu_req_addr_i(c.addr);
                input.set_cpu_req_be_i(u32::from(c.be));
                input.set_cpu_req_wdata_i(c.data);
            }
            _ => input.set_cpu_req_valid_i(false),
        }
        offer.is_some()
    }

    /// Looks at everything that happened in the last cycle, sources before destinations.
    fn sample(&mut self, offered: bool) {
        let cycle = self.model.cycles();
        let out = &self.model.output;
        if out.activity_o() || offered {
            self.quiet_since = cycle;
        }
        if out.cpu_rsp_valid_o() {
            self.cpu_response = Some((out.cpu_rsp_rdata_o(), out.cpu_rsp_status_o() as u8));
        }
        if let Some(c) = &mut self.cpu
            && out.cpu_req_ready_o()
        {
            c.accepted = true;
        }
        if offered && out.mem_rsp_ready_o() {
            let checker = &mut self.checker;
            self.reads.accepted(|tag, data, error, last| {
                checker.memory_response(cycle, tag, data, error, last);
            });
        }

        let fires = out.ep_tx_fire_o();
        if fires != 0 {
            for (i, a) in self.ep_tx.iter_mut().enumerate() {
                if fires >> i & 1 != 0 {
                    let (sop, eop) = a.push(out.ep_tx_beat_o(), i);
                    if sop {
                        self.checker.ep_tx(&self.memory, cycle, i as u8, &a.head);
                    }
                    if eop {
                        self.checker.ep_tx_payload(i as u8, a.payload());
                    }
                }
            }
        }
        let fires = out.rp_rx_fire_o();
        if fires != 0 {
            for i in 0..taps::ROOT_PORTS {
                if fires >> i & 1 != 0 {
                    let head = taps::head(out.rp_rx_head_o(), i * taps::HEAD_BITS);
                    self.checker.rp_rx(&self.memory, cycle, i as u8, &head);
                }
            }
        }
        if out.tr_fire_o() {
            let t = taps::translation(out.tr_o());
            self.checker.translated(&self.memory, cycle, &t);
        }
        if out.mem_req_valid_o() && !self.stall {
            self.memory_beat(cycle);
        }
        let out = &self.model.output;
        let fires = out.rp_tx_fire_o();
        if fires != 0 {
            for i in 0..taps::ROOT_PORTS {
                if fires >> i & 1 != 0 {
                    let head = taps::head(out.rp_tx_head_o(), i * taps::HEAD_BITS);
                    self.checker.rp_tx(&self.memory, cycle, i as u8, &head);
                }
            }
        }
        let fires = out.ep_rx_fire_o();
        if fires != 0 {
            for (i, a) in self.ep_rx.iter_mut().enumerate() {
                if fires >> i & 1 != 0 && a.push(out.ep_rx_beat_o(), i).1 {
                    self.checker
                        .ep_rx(&self.memory, cycle, i as u8, &a.head, a.payload());
                }
            }
        }
    }

    /// A beat was taken at the memory port.
    fn memory_beat(&mut self, cycle: u64) {
        let out = &self.model.output;
        if out.mem_req_sop_o() {
            let request = Request::decode(out.mem_req_o());
            if !request.write {
                self.memory_read(cycle, &request);
                return;
            }
            self.write = Some((request, self.reads.buffer(0)));
        }
        let Some((request, data)) = &mut self.write else {
            return;
        };
        let words: &[u32; BEAT_WORDS] = out.mem_req_wdata_o();
        let left = usize::from(request.len_dw) * 4 - data.len();
        for w in &words[..left.min(BEAT_BYTES).div_ceil(4)] {
            data.extend_from_slice(&w.to_le_bytes());
        }
        if out.mem_req_eop_o()
            && let Some((request, data)) = self.write.take()
        {
            self.checker.memory_request(cycle, &request, &data);
            self.memory_write(&request, &data);
            self.reads.recycle(data);
        }
    }

    fn memory_read(&mut self, cycle: u64, request: &Request) {
        self.checker.memory_request(cycle, request, &[]);
        let len = usize::from(request.len_dw) * 4;
        let addr = PhysAddr(request.addr);
        let snoop = request.attr.is_some_and(|a| a.snoop);
        let data = self.options.map.is_dram(addr, len as u64).then(|| {
            let mut b = self.reads.buffer(len);
            // Inside DRAM there are no faults.
            let _ = self.memory.device_read(addr, &mut b, snoop);
            b
        });
        if let Some(data) = &data {
            self.checker.device_read(&self.memory, cycle, request, data);
        }
        self.reads.push(cycle, &mut self.rng, request, data);
    }

    fn memory_write(&mut self, request: &Request, data: &[u8]) {
        let addr = PhysAddr(request.addr);
        if self.options.map.msi.contains(addr, data.len() as u64) {
            if data.len() == 4 {
                let data = u32::from_le_bytes([data[0], data[1], data[2], data[3]]);
                self.msis.push(Msi { addr, data });
            }
            return;
        }
        if !self.options.map.is_dram(addr, data.len() as u64) {
            return;
        }
        let snoop = request.attr.is_some_and(|a| a.snoop);
        let strobe = request.strobe();
        if request.from_iommu {
            self.iommu_write(addr, data);
        }
        // Inside DRAM there are no faults.
        let _ = self
            .memory
            .device_write(addr, data, strobe.as_deref(), snoop);
    }

    /// The architecture judge keeps the history of words that the IOMMU may read.
    fn iommu_write(&mut self, addr: PhysAddr, data: &[u8]) {
        let first = addr.align_down(8);
        for at in (0..addr.0 + data.len() as u64 - first.0).step_by(8) {
            let word = first.offset(at);
            if let Ok(old) = self.memory.read_u64(word) {
                self.checker.memory_changed(word, old);
            }
        }
    }

    /// Compares what the CPU sees with what a device wrote.
    pub fn compare_memory(&mut self, dma: DmaAddr, want: &[u8], got: &[u8]) {
        self.checker
            .compare_memory(self.model.cycles(), dma, want, got);
    }

    /// Tells the checker that nothing is under way; `faults` is what the fault queue held.
    pub fn quiesce(&mut self, faults: &[[u64; 4]]) {
        self.checker.quiesce(&self.memory, faults);
    }

    /// Performs a CPU request and waits for its response.
    fn cpu_access(&mut self, request: CpuRequest) -> Result<u64, AccessError> {
        self.checker.cpu_request(
            self.model.cycles(),
            request.config,
            request.write,
            request.addr,
            request.be,
            request.data,
        );
        self.cpu = Some(request);
        self.cpu_response = None;
        let end = self.model.cycles() + CPU_LIMIT;
        loop {
            if self.tick().is_err() {
                return Err(AccessError::Timeout);
            }
            if let Some((data, status)) = self.cpu_response.take() {
                self.cpu = None;
                return match status {
                    0 => Ok(data),
                    1 => Err(AccessError::Unsupported),
                    2 => Err(AccessError::Abort),
                    _ => Err(AccessError::Timeout),
                };
            }
            if self.model.cycles() >= end {
                let message = "the CPU port did not answer".to_owned();
                self.failure = Some(SimError {
                    cycle: self.model.cycles(),
                    message,
                });
            }
        }
    }

    fn iommu_offset(&self, addr: PhysAddr) -> Option<u16> {
        let base = self.iommu_registers?;
        addr.0
            .checked_sub(base.0)
            .filter(|o| *o < 0x1000)
            .map(|o| o as u16)
    }
}

/// Lanes of `size` bytes at `addr` within the 8 bytes around it.
fn lanes(addr: u64, size: u8) -> (u8, u32) {
    let at = (addr & 7) as u32;
    ((((1u16 << size) - 1) << at) as u8, 8 * at)
}

fn mask(size: u8) -> u64 {
    if size >= 8 {
        u64::MAX
    } else {
        (1 << (8 * u32::from(size))) - 1
    }
}

impl ConfigSpace for Simulation {
    fn config_read(&mut self, bdf: Bdf, reg: u16, size: u8) -> Result<u32, AccessError> {
        let addr = u64::from(bdf.0) << 12 | u64::from(reg & 0xfff);
        let (be, shift) = lanes(addr, size);
        let request = CpuRequest {
            write: false,
            config: true,
            addr,
            be,
            data: 0,
            accepted: false,
        };
        let v = self.cpu_access(request)?;
        Ok((v >> shift & mask(size)) as u32)
    }

    fn config_write(
        &mut self,
        bdf: Bdf,
        reg: u16,
        size: u8,
        value: u32,
    ) -> Result<(), AccessError> {
        let addr = u64::from(bdf.0) << 12 | u64::from(reg & 0xfff);
        let (be, shift) = lanes(addr, size);
        let data = u64::from(value) << shift;
        self.cpu_access(CpuRequest {
            write: true,
            config: true,
            addr,
            be,
            data,
            accepted: false,
        })?;
        self.checker.config_written(bdf, reg, size, value);
        Ok(())
    }
}

impl Machine for Simulation {
    fn memory_map(&self) -> &MemoryMap {
        &self.options.map
    }

    fn mmio_read(&mut self, addr: PhysAddr, size: u8) -> Result<u64, AccessError> {
        let (be, shift) = lanes(addr.0, size);
        let request = CpuRequest {
            write: false,
            config: false,
            addr: addr.0,
            be,
            data: 0,
            accepted: false,
        };
        let v = self.cpu_access(request)? >> shift & mask(size);
        if let Some(offset) = self.iommu_offset(addr) {
            self.checker.register_read(offset, size, v);
        }
        Ok(v)
    }

    fn mmio_write(&mut self, addr: PhysAddr, size: u8, value: u64) -> Result<(), AccessError> {
        let (be, shift) = lanes(addr.0, size);
        // The model learns of a register write before the hardware acts on it.
        if let Some(offset) = self.iommu_offset(addr) {
            self.checker
                .register_written(&self.memory, offset, size, value & mask(size));
        }
        let request = CpuRequest {
            write: true,
            config: false,
            addr: addr.0,
            be,
            data: value << shift,
            accepted: false,
        };
        self.cpu_access(request).map(|_| ())
    }

    fn mem_read(&mut self, addr: PhysAddr, buf: &mut [u8]) {
        if self.memory.cpu_read(addr, buf).is_err() {
            buf.fill(0xff);
        }
    }

    fn mem_write(&mut self, addr: PhysAddr, data: &[u8]) {
        // Outside DRAM nothing takes it.
        let _ = self.memory.cpu_write(addr, data);
    }

    fn write_u64(&mut self, addr: PhysAddr, value: u64) {
        let old = self.read_u64(addr);
        if old != value {
            self.checker.memory_changed(addr, old);
            self.mem_write(addr, &value.to_le_bytes());
        }
    }

    fn cache_clean(&mut self, addr: PhysAddr, len: u64) {
        self.maintenance.cleans += 1;
        self.memory.clean(addr, len);
    }

    fn cache_invalidate(&mut self, addr: PhysAddr, len: u64) {
        self.maintenance.invalidates += 1;
        self.memory.invalidate(addr, len);
    }

    fn relax(&mut self) {
        // A failure shows at the next access.
        let _ = self.run(16);
    }

    fn now(&self) -> u64 {
        self.model.cycles()
    }
}
