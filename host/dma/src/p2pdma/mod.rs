//! Peer-to-peer DMA: who provides a BAR, and how another device reaches it.
//!
//! A function becomes a provider with [`P2pdma::init`]. Each of its memory BARs is then one
//! [`Provider`]; without more, its memory has no struct pages and is shared by physical address
//! (DMABUF). [`P2pdma::add_resource`] adds pages, so that it can stand in a scatterlist, and a
//! pool from which they are allocated.

mod distance;
#[cfg(test)]
mod end_to_end;
mod host_bridge;
mod p2pmem;
mod pool;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use tlproof_pcie::{
    Bdf, BusAddr, DmaAddr, PhysAddr, Range,
    config::ConfigSpace,
    tree::{Bar, BarKind},
};

use crate::{
    device::DeviceId, dma::Dma, error::MapError, iommu::IommuDriver, machine::Machine, trace::Event,
};
pub use distance::Reach;
pub use host_bridge::HostBridgePolicy;
use pool::Pool;

/// Names a provider. A name is not given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderId(pub(crate) usize);

/// How a client reaches a provider, `enum pci_p2pdma_map_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MapType {
    /// Not computed yet.
    Unknown = 0,
    /// No peer memory.
    None = 1,
    /// Out of reach.
    NotSupported = 2,
    /// By its bus address; no request passes the host bridge.
    BusAddr = 3,
    /// Through the host bridge.
    ThruHostBridge = 4,
}

/// A BAR that peers may access (`struct p2pdma_provider`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The function that the BAR belongs to.
    pub owner: Bdf,
    /// CPU physical addresses.
    pub range: Range,
    /// Bus address less CPU physical address, modulo 2^64.
    pub bus_offset: u64,
    /// Some of it has struct pages.
    pub pages: bool,
}

impl Provider {
    /// `pci_p2pdma_bus_addr_map`.
    #[must_use]
    pub fn bus_addr_map(&self, phys: PhysAddr) -> BusAddr {
        if mutant!(M16) {
            return BusAddr(phys.0);
        }
        BusAddr(phys.0.wrapping_add(self.bus_offset))
    }
}

/// The provider and type of the segment before (`struct pci_p2pdma_map_state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapState {
    /// Provider of the last peer segment.
    pub provider: Option<ProviderId>,
    /// Its type.
    pub map: Option<MapType>,
}

/// Why a BAR is not provided or its memory not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum P2pError {
    /// The BARs cannot be mapped by the CPU (`non_mappable_bars`; `-EOPNOTSUPP`).
    #[error("the BARs of the function cannot be mapped")]
    NotMappable,
    /// [`P2pdma::init`] was not called (a warning and NULL).
    #[error("the function is not initialised for peer-to-peer DMA")]
    NotInitialised,
    /// No such BAR, or an I/O BAR (NULL, or `-EINVAL` from `pci_p2pdma_add_resource`).
    #[error("BAR {0} is no memory BAR")]
    NotMemory(u8),
    /// The range is not inside the BAR (`-EINVAL`).
    #[error("range outside of the BAR")]
    OutsideBar,
    /// Pages start and end at page boundaries (`-EINVAL`).
    #[error("range is not page aligned")]
    Misaligned,
    /// The range has pages already (`-EBUSY`).
    #[error("the range has pages already")]
    Busy,
    /// Memory given back that was not allocated (BUG in the kernel).
    #[error("{phys}+{size} is not allocated")]
    NotAllocated {
        /// First address.
        phys: PhysAddr,
        /// Bytes.
        size: u64,
    },
    /// The driver leaves while its memory is in use; the kernel waits for the last user.
    #[error("{0} bytes of peer memory are in use")]
    InUse(u64),
}

impl P2pError {
    /// The negative error number; what the kernel answers with NULL or BUG counts as `-EINVAL`.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::NotMappable => -95,
            Self::Busy | Self::InUse(_) => -16,
            _ => -22,
        }
    }
}

/// What is known about a providing function (`struct pci_p2pdma`).
#[derive(Clone, Debug, Default)]
struct Function {
    providers: BTreeMap<u8, ProviderId>,
    /// Types by client, kept until they are computed anew.
    types: HashMap<Bdf, MapType>,
    /// Ranges with struct pages, and what is allocated of them.
    pool: Pool,
    published: bool,
}

/// The providers and what is known about their clients.
#[derive(Clone, Debug)]
pub struct P2pdma {
    /// Rule for what crosses the host bridge.
    pub policy: HostBridgePolicy,
    /// Root buses, one for each host bridge.
    pub root_buses: Vec<u8>,
    /// By [`ProviderId`]; `None` once the function has left.
    providers: Vec<Option<Provider>>,
    functions: BTreeMap<Bdf, Function>,
    /// Buffers exported so far.
    pub(crate) exports: u64,
}

impl Default for P2pdma {
    fn default() -> Self {
        Self {
            policy: HostBridgePolicy::default(),
            root_buses: vec![0],
            providers: Vec::new(),
            functions: BTreeMap::new(),
            exports: 0,
        }
    }
}

impl P2pdma {
    /// `pcim_p2pdma_init`: each memory BAR of a function becomes a provider, without pages. A
    /// second call changes nothing.
    ///
    /// # Errors
    /// [`P2pError::NotMappable`] with `non_mappable_bars`.
    pub fn init(
        &mut self,
        owner: Bdf,
        bars: &[Bar],
        non_mappable_bars: bool,
    ) -> Result<(), P2pError> {
        if non_mappable_bars {
            return Err(P2pError::NotMappable);
        }
        if self.functions.contains_key(&owner) {
            return Ok(());
        }
        let mut providers = BTreeMap::new();
        for bar in bars {
            if !matches!(bar.kind, BarKind::Memory { .. }) || bar.size == 0 {
                continue;
            }
            let Some(last) = bar.phys.checked_add(bar.size - 1) else {
                continue;
            };
            providers.insert(bar.index, ProviderId(self.providers.len()));
            self.providers.push(Some(Provider {
                owner,
                range: Range {
                    base: bar.phys,
                    last,
                },
                bus_offset: bar.bus.0.wrapping_sub(bar.phys.0),
                pages: false,
            }));
        }
        let function = Function {
            providers,
            ..Function::default()
        };
        self.functions.insert(owner, function);
        Ok(())
    }

    /// Adds a provider that is known by its addresses and not by a BAR of a function here; with
    /// pages, all of it gets them that is not taken.
    pub fn add(&mut self, provider: Provider) -> ProviderId {
        let id = ProviderId(self.providers.len());
        let function = self.functions.entry(provider.owner).or_default();
        let free = (0..=u8::MAX).find(|i| !function.providers.contains_key(i));
        function.providers.extend(free.map(|i| (i, id)));
        let (base, size) = (provider.range.base, provider.range.size());
        let pages = provider.pages && function.pool.add(base, size, id).is_ok();
        self.providers.push(Some(Provider { pages, ..provider }));
        id
    }

    /// What the end of a driver undoes. All users must have been revoked before.
    ///
    /// # Errors
    /// [`P2pError::InUse`] while memory of its pool is allocated; nothing is undone then.
    pub fn remove(&mut self, owner: Bdf) -> Result<(), P2pError> {
        let Some(function) = self.functions.get(&owner) else {
            return Ok(());
        };
        match function.pool.used() {
            0 => {}
            used => return Err(P2pError::InUse(used)),
        }
        for id in function.providers.values() {
            self.providers[id.0] = None;
        }
        self.functions.remove(&owner);
        Ok(())
    }

    /// `pcim_p2pdma_provider`: the provider of a BAR.
    ///
    /// # Errors
    /// Not initialised, or no memory BAR; the kernel returns NULL.
    pub fn provider(&self, owner: Bdf, bar: u8) -> Result<ProviderId, P2pError> {
        self.functions
            .get(&owner)
            .ok_or(P2pError::NotInitialised)?
            .providers
            .get(&bar)
            .copied()
            .ok_or(P2pError::NotMemory(bar))
    }

    /// `pci_p2pdma_add_resource`: gives `size` bytes at `offset` of a BAR struct pages and puts
    /// them into the function's pool. Size 0 means up to the end of the BAR. Initialises the
    /// function if need be.
    ///
    /// # Errors
    /// See [`P2pError`].
    pub fn add_resource(
        &mut self,
        owner: Bdf,
        bars: &[Bar],
        bar: u8,
        size: u64,
        offset: u64,
    ) -> Result<ProviderId, P2pError> {
        let resource = bars
            .iter()
            .find(|b| b.index == bar && matches!(b.kind, BarKind::Memory { .. }))
            .ok_or(P2pError::NotMemory(bar))?;
        if offset >= resource.size {
            return Err(P2pError::OutsideBar);
        }
        let size = if size == 0 {
            resource.size - offset
        } else {
            size
        };
        if size > resource.size - offset {
            return Err(P2pError::OutsideBar);
        }
        self.init(owner, bars, false)?;
        let id = self.provider(owner, bar)?;
        let provider = *self.get(id).ok_or(P2pError::NotInitialised)?;
        let start = provider.range.base.offset(offset);
        let function = self
            .functions
            .get_mut(&owner)
            .ok_or(P2pError::NotInitialised)?;
        function.pool.add(start, size, id)?;
        if let Some(p) = &mut self.providers[id.0] {
            p.pages = true;
        }
        Ok(id)
    }

    /// A provider by its ID; `None` once its function has left.
    #[must_use]
    pub fn get(&self, id: ProviderId) -> Option<&Provider> {
        self.providers.get(id.0)?.as_ref()
    }

    /// The provider whose BAR holds a physical address, with or without a page there.
    #[must_use]
    pub fn find(&self, phys: PhysAddr) -> Option<ProviderId> {
        self.providers
            .iter()
            .position(|p| p.is_some_and(|p| p.range.contains(phys, 1)))
            .map(ProviderId)
    }

    /// The provider of struct pages (`is_pci_p2pdma_page` and their page map): all `len` bytes at
    /// `phys` must be of one resource.
    #[must_use]
    pub fn page_provider(&self, phys: PhysAddr, len: u64) -> Option<ProviderId> {
        let id = self.find(phys)?;
        let owner = self.get(id)?.owner;
        self.functions.get(&owner)?.pool.page(phys, len)
    }

    /// `pci_p2pdma_map_type`: computed at first use and kept; a later change of an ACS register
    /// is not seen before [`P2pdma::distance_many`] is called again. A client that is no PCI
    /// function is `None`.
    pub fn map_type(
        &mut self,
        config: &mut dyn ConfigSpace,
        provider: ProviderId,
        client: impl Into<Option<Bdf>>,
    ) -> MapType {
        let Some(owner) = self.get(provider).map(|p| p.owner) else {
            return MapType::NotSupported;
        };
        let Some(client) = client.into() else {
            return MapType::NotSupported;
        };
        let known = self.functions.get(&owner).map(|f| f.types.get(&client));
        match known {
            None => MapType::NotSupported,
            Some(Some(map)) => *map,
            Some(None) => self.map_type_and_distance(config, owner, client).map,
        }
    }

    /// `pci_p2pdma_distance_many`: hops between a providing function and all clients together.
    /// `None` without clients, or when one of them does not reach it. What was known about the
    /// pairs that it looks at is replaced.
    pub fn distance_many(
        &mut self,
        config: &mut dyn ConfigSpace,
        provider: Bdf,
        clients: &[Option<Bdf>],
    ) -> Option<u32> {
        let mut total = None;
        let mut reached = true;
        for client in clients {
            let reach = self.map_type_and_distance(config, provider, (*client)?);
            reached &= reach.map != MapType::NotSupported;
            total = Some(total.unwrap_or(0) + reach.distance);
        }
        total.filter(|_| reached)
    }

    /// `calc_map_type_and_dist`: walks the topology as it stands and keeps the result.
    fn map_type_and_distance(
        &mut self,
        config: &mut dyn ConfigSpace,
        owner: Bdf,
        client: Bdf,
    ) -> Reach {
        let mut reach = self.reach(config, owner, client);
        if mutant!(M17) && reach.map == MapType::ThruHostBridge {
            reach.map = MapType::BusAddr;
        }
        if let Some(f) = self.functions.get_mut(&owner) {
            f.types.insert(client, reach.map);
        }
        reach
    }

    /// `pci_p2pdma_state`: the type for a segment; the state is recomputed when the provider is
    /// another one, and left alone by what is no peer's page. The second value says that it was
    /// recomputed.
    pub fn state(
        &mut self,
        config: &mut dyn ConfigSpace,
        state: &mut MapState,
        client: impl Into<Option<Bdf>>,
        phys: PhysAddr,
    ) -> (MapType, bool) {
        let Some(id) = self.page_provider(phys, 1) else {
            return (MapType::None, false);
        };
        match state.map {
            Some(map) if state.provider == Some(id) || mutant!(M18) => (map, false),
            _ => {
                let map = self.map_type(config, id, client);
                *state = MapState {
                    provider: Some(id),
                    map: Some(map),
                };
                (map, true)
            }
        }
    }
}

impl<I: IommuDriver> Dma<I> {
    /// [`P2pdma::state`] for a device, with its event.
    pub(crate) fn pci_p2pdma_state(
        &mut self,
        m: &mut dyn Machine,
        state: &mut MapState,
        dev: DeviceId,
        phys: PhysAddr,
    ) -> Result<MapType, MapError> {
        let d = self.device(dev)?;
        let (bdf, client) = (d.bdf, d.pci_function());
        let (map, fresh) = self.p2pdma.state(m, state, client, phys);
        if fresh {
            self.trace.emit(|| Event::P2pState {
                dev: bdf,
                phys,
                map,
            });
        }
        Ok(map)
    }
}

/// The bus address as what a driver gives to its device.
#[must_use]
pub const fn bus_as_dma(bus: BusAddr) -> DmaAddr {
    DmaAddr(bus.0)
}
