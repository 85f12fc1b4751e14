//! What a replay runs on: the mapping API of a machine with its promise ledger, and the devices
//! that use the mappings.

use tlproof_dma::{
    DeviceId, Dma, Mapping, iommu::IommuDriver, machine::Machine, p2pdma::ProviderId,
    riscv::RiscvIommu,
};
use tlproof_golden::PromiseId;
use tlproof_pcie::{Bdf, DmaAddr, PhysAddr};

use super::machine::Plan;
use crate::{
    checker::Rogue,
    endpoint::{Completion, Descriptor},
    testbench::{Error, Testbench},
};

/// A machine with three endpoints, named by their number.
pub trait Target {
    /// The IOMMU's driver.
    type Iommu: IommuDriver;
    /// A promise that is being ended.
    type Ending;
    /// A declared probe.
    type Probe: Copy;

    /// The mapping API and the machine that its calls run on.
    fn parts(&mut self) -> (&mut Dma<Self::Iommu>, &mut dyn Machine);
    /// Requester ID of an endpoint.
    fn bdf(&self, f: usize) -> Bdf;
    /// Its device structure.
    fn dev(&self, f: usize) -> DeviceId;
    /// Its memory BAR.
    fn bar(&self, f: usize) -> PhysAddr;
    /// That BAR as peer memory.
    fn provider(&self, f: usize) -> ProviderId;
    /// A mapping call is made.
    fn called(&mut self);

    /// Enters the mapping at `dma` in the ledger.
    fn promise(&mut self, f: usize, dma: DmaAddr, call: String);
    /// The mapping is about to end.
    fn revoke_begin(&mut self, f: usize, dma: DmaAddr, size: u64) -> Self::Ending;
    /// The call that ends it has returned.
    fn revoke_end(&mut self, ending: Self::Ending);
    /// Enters peer memory reached by its bus address.
    fn bus_address(&mut self, f: usize, phys: PhysAddr, size: u64) -> DmaAddr;
    /// Ends that.
    fn end_bus_address(&mut self, f: usize, dma: DmaAddr, size: u64);
    /// The timer of the flush queue of an endpoint's domain has run out.
    fn flush_begin(&mut self, f: usize);
    /// It invalidates and frees what waited.
    fn flush_end(&mut self, f: usize);
    /// Lets the API's timers run.
    fn timers(&mut self);

    /// Transfers that an endpoint has not completed.
    fn outstanding(&self, f: usize) -> usize;
    /// Queues a transfer.
    ///
    /// # Errors
    /// When the device does not answer.
    fn submit(&mut self, f: usize, d: &Descriptor) -> Result<(), Error>;
    /// Takes the oldest completion record.
    ///
    /// # Errors
    /// When the device does not answer.
    fn poll(&mut self, f: usize) -> Result<Option<Completion>, Error>;
    /// Lets time pass.
    ///
    /// # Errors
    /// When the machine fails.
    fn run(&mut self, cycles: u64) -> Result<(), Error>;
    /// Lets what is under way arrive.
    ///
    /// # Errors
    /// When the machine fails.
    fn settle(&mut self) -> Result<(), Error>;
    /// Declares an access that must be refused.
    fn expect_rogue(&mut self, f: usize, addr: DmaAddr, len: u64, write: bool) -> Self::Probe;
    /// It is over.
    fn rogue_done(&mut self, probe: Self::Probe);
    /// The CPU looks at what a device wrote.
    fn compare(&mut self, dma: DmaAddr, want: &[u8], got: &[u8]);
    /// Whether so much failed that the rest is pointless.
    fn stop(&self) -> bool;
}

/// Attaches the endpoints as the capture's devices are attached, and gives the API its bounce pool.
///
/// # Errors
/// The IOMMU driver refuses.
pub fn attach(bench: &mut Testbench, plan: &Plan) -> Result<(), Error> {
    for (f, role) in (0..bench.functions.len()).zip(&plan.roles) {
        bench.unplug(f)?;
        let device = role.device(bench.functions[f].engine.bdf);
        bench.plug(f, device, role.attach)?;
    }
    if let Some(pool) = plan.pool.and_then(|p| p.build()) {
        bench.dma.set_swiotlb(pool);
    }
    Ok(())
}

impl Target for Testbench {
    type Iommu = RiscvIommu;
    type Ending = Vec<(Option<Mapping>, PromiseId)>;
    type Probe = Rogue;

    fn parts(&mut self) -> (&mut Dma<RiscvIommu>, &mut dyn Machine) {
        (&mut self.dma, &mut self.sim)
    }

    fn bdf(&self, f: usize) -> Bdf {
        self.functions[f].engine.bdf
    }

    fn dev(&self, f: usize) -> DeviceId {
        self.functions[f].dev
    }

    fn bar(&self, f: usize) -> PhysAddr {
        self.functions[f].engine.memory
    }

    fn provider(&self, f: usize) -> ProviderId {
        self.functions[f].provider
    }

    fn called(&mut self) {
        self.calls += 1;
    }

    fn promise(&mut self, f: usize, dma: DmaAddr, call: String) {
        let dev = self.functions[f].dev;
        Self::promise(self, dev, dma, call);
    }

    fn revoke_begin(&mut self, f: usize, dma: DmaAddr, size: u64) -> Self::Ending {
        let dev = self.functions[f].dev;
        Self::revoke_begin(self, dev, dma, size)
    }

    fn revoke_end(&mut self, ending: Self::Ending) {
        Self::revoke_end(self, ending);
    }

    fn bus_address(&mut self, f: usize, phys: PhysAddr, size: u64) -> DmaAddr {
        Self::bus_address(self, f, phys, size)
    }

    fn end_bus_address(&mut self, f: usize, dma: DmaAddr, size: u64) {
        Self::end_bus_address(self, f, dma, size);
    }

    fn flush_begin(&mut self, f: usize) {
        self.dma.flush_begin(self.functions[f].dev);
    }

    fn flush_end(&mut self, f: usize) {
        Self::flush_end(self, f);
    }

    fn timers(&mut self) {
        Self::timers(self);
    }

    fn outstanding(&self, f: usize) -> usize {
        self.functions[f].engine.outstanding
    }

    fn submit(&mut self, f: usize, d: &Descriptor) -> Result<(), Error> {
        Ok(self.functions[f].engine.submit(&mut self.sim, d)?)
    }

    fn poll(&mut self, f: usize) -> Result<Option<Completion>, Error> {
        Ok(self.functions[f].engine.poll(&mut self.sim)?)
    }

    fn run(&mut self, cycles: u64) -> Result<(), Error> {
        Ok(self.sim.run(cycles)?)
    }

    fn settle(&mut self) -> Result<(), Error> {
        const LIMIT: u64 = 4096;
        self.sim.settle(LIMIT)?;
        Ok(())
    }

    fn expect_rogue(&mut self, f: usize, addr: DmaAddr, len: u64, write: bool) -> Rogue {
        let bdf = self.functions[f].engine.bdf;
        self.sim
            .checker
            .expect_rogue(bdf, addr.on_bus(), len, write)
    }

    fn rogue_done(&mut self, probe: Rogue) {
        self.sim.checker.rogue_done(probe);
    }

    fn compare(&mut self, dma: DmaAddr, want: &[u8], got: &[u8]) {
        self.sim.compare_memory(dma, want, got);
    }

    fn stop(&self) -> bool {
        self.sim.checker.failed_enough() || self.sim.waves_written()
    }
}
