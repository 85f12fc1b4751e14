//! Memory of a providing function that drivers allocate and find.

use tlproof_pcie::{Bdf, BusAddr, PhysAddr, config::ConfigSpace};

use super::{P2pError, P2pdma};

impl P2pdma {
    /// `pci_alloc_p2pmem`: whole pages of a function's pool. `None` when there is no such run.
    pub fn alloc_p2pmem(&mut self, owner: Bdf, size: u64) -> Option<PhysAddr> {
        self.functions.get_mut(&owner)?.pool.alloc(size)
    }

    /// `pci_free_p2pmem`.
    ///
    /// # Errors
    /// [`P2pError::NotAllocated`] for what [`P2pdma::alloc_p2pmem`] did not give in this size.
    pub fn free_p2pmem(&mut self, owner: Bdf, phys: PhysAddr, size: u64) -> Result<(), P2pError> {
        self.functions
            .get_mut(&owner)
            .ok_or(P2pError::NotInitialised)?
            .pool
            .free(phys, size)
    }

    /// `pci_p2pmem_virt_to_bus`: the bus address of allocated memory.
    #[must_use]
    pub fn p2pmem_to_bus(&self, owner: Bdf, phys: PhysAddr) -> Option<BusAddr> {
        let id = self.functions.get(&owner)?.pool.page(phys, 1)?;
        Some(self.get(id)?.bus_addr_map(phys))
    }

    /// `pci_p2pmem_publish`: lets other drivers find the memory of a function.
    pub fn publish(&mut self, owner: Bdf, publish: bool) {
        if let Some(f) = self.functions.get_mut(&owner) {
            f.published = publish;
        }
    }

    /// `pci_has_p2pmem`.
    #[must_use]
    pub fn has_p2pmem(&self, owner: Bdf) -> bool {
        self.functions.get(&owner).is_some_and(|f| f.published)
    }

    /// `pci_p2pmem_find_many`: the nearest function with published memory that all clients reach.
    /// The kernel draws lots among equals; here the first one wins, so that a run repeats.
    pub fn find_p2pmem(
        &mut self,
        config: &mut dyn ConfigSpace,
        clients: &[Option<Bdf>],
    ) -> Option<Bdf> {
        let published: Vec<Bdf> = self
            .functions
            .iter()
            .filter(|(_, f)| f.published)
            .map(|(bdf, _)| *bdf)
            .collect();
        published
            .into_iter()
            .filter_map(|bdf| Some((self.distance_many(config, bdf, clients)?, bdf)))
            .min()
            .map(|(_, bdf)| bdf)
    }
}
