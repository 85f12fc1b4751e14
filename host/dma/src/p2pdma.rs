//! Peer-to-peer DMA: who provides a BAR, and how another device reaches it.

use std::collections::HashMap;

use tlproof_pcie::{Bdf, BusAddr, DmaAddr, PhysAddr, Range, config::ConfigSpace};

use crate::{
    device::DeviceId, dma::Dma, error::MapError, iommu::IommuDriver, machine::Machine, trace::Event,
};

/// `PCI_ACS_RR | PCI_ACS_CR | PCI_ACS_EC`: a port with one of them may send a request upstream
/// that it could have routed to a peer (PCIe 6.0 §6.12.1).
const ACS_REDIRECT: u32 = 0x04 | 0x08 | 0x20;

/// Extended capability ID of Access Control Services.
const EXT_CAP_ACS: u32 = 0x000d;

/// Capability ID of the PCI Express capability, its device/port type of a root port.
const CAP_PCIE: u32 = 0x10;
const TYPE_ROOT_PORT: u32 = 4;

/// Names a provider.
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

/// Which pairs of root ports the host bridge connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostBridgePolicy {
    /// The first device of the root bus is on the kernel's list.
    #[default]
    AllowList,
    /// All, as on AMD processors from family 17h on.
    Any,
    /// None.
    Refuse,
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
    /// The BAR has struct pages and can stand in a scatterlist.
    pub pages: bool,
}

impl Provider {
    /// `pci_p2pdma_bus_addr_map`.
    #[must_use]
    pub const fn bus_addr_map(&self, phys: PhysAddr) -> BusAddr {
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

/// Type and distance in hops between two functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// How the client reaches the provider.
    pub map: MapType,
    /// Hops up from one and down to the other.
    pub distance: u32,
}

/// The providers and what is known about their clients.
#[derive(Clone, Debug)]
pub struct P2pdma {
    /// Rule for what crosses the host bridge.
    pub policy: HostBridgePolicy,
    /// Root buses, one for each host bridge.
    pub root_buses: Vec<u8>,
    providers: Vec<Provider>,
    types: HashMap<(Bdf, Bdf), MapType>,
}

impl Default for P2pdma {
    fn default() -> Self {
        Self {
            policy: HostBridgePolicy::default(),
            root_buses: vec![0],
            providers: Vec::new(),
            types: HashMap::new(),
        }
    }
}

impl P2pdma {
    /// Adds a provider (`pcim_p2pdma_provider`, or `pci_p2pdma_add_resource` with pages).
    pub fn add(&mut self, provider: Provider) -> ProviderId {
        self.providers.push(provider);
        ProviderId(self.providers.len() - 1)
    }

    /// A provider by its ID.
    #[must_use]
    pub fn get(&self, id: ProviderId) -> Option<&Provider> {
        self.providers.get(id.0)
    }

    /// The provider of a physical address.
    #[must_use]
    pub fn find(&self, phys: PhysAddr) -> Option<ProviderId> {
        self.providers
            .iter()
            .position(|p| p.range.contains(phys, 1))
            .map(ProviderId)
    }

    /// `pci_p2pdma_map_type`: computed at first use and kept; a later change of an ACS register
    /// is not seen before [`P2pdma::distance`] is called again.
    pub fn map_type(
        &mut self,
        config: &mut dyn ConfigSpace,
        provider: ProviderId,
        client: Bdf,
    ) -> MapType {
        let Some(owner) = self.get(provider).map(|p| p.owner) else {
            return MapType::NotSupported;
        };
        match self.types.get(&(owner, client)) {
            Some(map) => *map,
            None => self
                .distance(config, provider, client)
                .map_or(MapType::NotSupported, |r| r.map),
        }
    }

    /// `calc_map_type_and_dist`: walks the topology as it stands and keeps the result.
    /// `None` when there is no such provider.
    pub fn distance(
        &mut self,
        config: &mut dyn ConfigSpace,
        provider: ProviderId,
        client: Bdf,
    ) -> Option<Reach> {
        let owner = self.get(provider)?.owner;
        let reach = self.reach(config, owner, client);
        self.types.insert((owner, client), reach.map);
        Some(reach)
    }

    /// `pci_p2pdma_state`: the type for a segment; the state is recomputed when the provider is
    /// another one. The second value says that it was.
    pub fn state(
        &mut self,
        config: &mut dyn ConfigSpace,
        state: &mut MapState,
        client: Bdf,
        phys: PhysAddr,
    ) -> (MapType, bool) {
        let Some(id) = self.find(phys).filter(|id| self.providers[id.0].pages) else {
            return (MapType::None, false);
        };
        match state.map {
            Some(map) if state.provider == Some(id) => (map, false),
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

    fn reach(&self, config: &mut dyn ConfigSpace, owner: Bdf, client: Bdf) -> Reach {
        let (Some(a), Some(b)) = (self.chain(config, owner), self.chain(config, client)) else {
            return Reach {
                map: MapType::NotSupported,
                distance: 0,
            };
        };
        let common = a
            .iter()
            .position(|x| b.contains(x))
            .map(|i| (i, b.iter().position(|y| *y == a[i]).unwrap_or(0)));
        if let Some((up, down)) = common {
            let mut redirected = false;
            for port in a[..=up].iter().chain(&b[..down]) {
                redirected |= acs_redirects(config, *port);
            }
            let distance = (up + down) as u32;
            if !redirected {
                return Reach {
                    map: MapType::BusAddr,
                    distance,
                };
            }
            return Reach {
                map: self.across(config, owner, client),
                distance,
            };
        }
        Reach {
            map: self.across(config, owner, client),
            distance: (a.len() + b.len()) as u32,
        }
    }

    /// The function and every bridge above it, up to the root port.
    fn chain(&self, config: &mut dyn ConfigSpace, bdf: Bdf) -> Option<Vec<Bdf>> {
        let mut chain = Vec::new();
        let mut bus = self.root_bus(config, bdf)?;
        while bus != bdf.bus() {
            let (bridge, secondary) = bridges(config, bus)
                .into_iter()
                .find(|(_, sec, sub)| (*sec..=*sub).contains(&bdf.bus()))
                .map(|(b, sec, _)| (b, sec))?;
            // A secondary bus that is not further down would be a loop.
            if secondary <= bus {
                return None;
            }
            chain.push(bridge);
            bus = secondary;
        }
        config.config_read(bdf, 0, 4).ok().filter(present)?;
        chain.push(bdf);
        chain.reverse();
        Some(chain)
    }

    fn root_bus(&self, config: &mut dyn ConfigSpace, bdf: Bdf) -> Option<u8> {
        self.root_buses.iter().copied().find(|root| {
            *root == bdf.bus()
                || bridges(config, *root)
                    .iter()
                    .any(|(_, sec, sub)| (*sec..=*sub).contains(&bdf.bus()))
        })
    }

    /// What the host bridge makes of a request between the two.
    fn across(&self, config: &mut dyn ConfigSpace, owner: Bdf, client: Bdf) -> MapType {
        let allowed = match self.policy {
            HostBridgePolicy::Any => true,
            HostBridgePolicy::Refuse => false,
            HostBridgePolicy::AllowList => {
                match (self.root_bus(config, owner), self.root_bus(config, client)) {
                    (Some(a), Some(b)) if a == b => listed(config, a, true),
                    (Some(a), Some(b)) => listed(config, a, false) && listed(config, b, false),
                    _ => false,
                }
            }
        };
        if allowed {
            MapType::ThruHostBridge
        } else {
            MapType::NotSupported
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
        let client = self.device(dev)?.bdf;
        let (map, fresh) = self.p2pdma.state(m, state, client, phys);
        if fresh {
            self.trace.emit(|| Event::P2pState {
                dev: client,
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

const fn present(id: &u32) -> bool {
    *id & 0xffff != 0xffff
}

/// The bridges of a bus with their secondary and subordinate bus numbers.
fn bridges(config: &mut dyn ConfigSpace, bus: u8) -> Vec<(Bdf, u8, u8)> {
    functions(config, bus)
        .into_iter()
        .filter_map(|bdf| {
            let header = config.config_read(bdf, 0x0e, 1).ok()?;
            if header & 0x7f != 1 {
                return None;
            }
            let secondary = config.config_read(bdf, 0x19, 1).ok()? as u8;
            let subordinate = config.config_read(bdf, 0x1a, 1).ok()? as u8;
            Some((bdf, secondary, subordinate))
        })
        .collect()
}

/// The functions of a bus in ascending order.
fn functions(config: &mut dyn ConfigSpace, bus: u8) -> Vec<Bdf> {
    let mut found = Vec::new();
    for device in 0..32 {
        let zero = Bdf::new(bus, device, 0);
        if !config.config_read(zero, 0, 4).is_ok_and(|id| present(&id)) {
            continue;
        }
        found.push(zero);
        let multi = config
            .config_read(zero, 0x0e, 1)
            .is_ok_and(|h| h & 0x80 != 0);
        if multi {
            found.extend(
                (1..8)
                    .map(|f| Bdf::new(bus, device, f))
                    .filter(|bdf| config.config_read(*bdf, 0, 4).is_ok_and(|id| present(&id))),
            );
        }
    }
    found
}

/// Whether a function has an ACS control register with a redirect bit set.
fn acs_redirects(config: &mut dyn ConfigSpace, bdf: Bdf) -> bool {
    find_ext_capability(config, bdf, EXT_CAP_ACS)
        .and_then(|cap| config.config_read(bdf, cap + 6, 2).ok())
        .is_some_and(|control| control & ACS_REDIRECT != 0)
}

/// Walks the extended capabilities (PCIe 6.0 §7.6.3).
fn find_ext_capability(config: &mut dyn ConfigSpace, bdf: Bdf, id: u32) -> Option<u16> {
    let mut at = 0x100;
    // No more capabilities fit; a longer list is a loop.
    for _ in 0..(0x1000 - 0x100) / 8 {
        let header = config.config_read(bdf, at, 4).ok()?;
        if header == 0 || header == u32::MAX {
            return None;
        }
        if header & 0xffff == id {
            return Some(at);
        }
        at = (header >> 20) as u16 & 0xffc;
        if at < 0x100 {
            return None;
        }
    }
    None
}

/// Device/port type of the PCI Express capability.
fn port_type(config: &mut dyn ConfigSpace, bdf: Bdf) -> Option<u32> {
    if config.config_read(bdf, 0x06, 2).ok()? & 0x10 == 0 {
        return None;
    }
    let mut at = config.config_read(bdf, 0x34, 1).ok()? as u16 & 0xfc;
    for _ in 0..48 {
        if at < 0x40 {
            return None;
        }
        let header = config.config_read(bdf, at, 2).ok()?;
        if header & 0xff == CAP_PCIE {
            let flags = config.config_read(bdf, at + 2, 2).ok()?;
            return Some(flags >> 4 & 0xf);
        }
        at = (header >> 8) as u16 & 0xfc;
    }
    None
}

/// Whether the host bridge of a root bus is on the list: the first device of the bus tells, if it
/// is device 0 or a root port.
fn listed(config: &mut dyn ConfigSpace, root_bus: u8, same_bridge: bool) -> bool {
    let Some(first) = functions(config, root_bus).first().copied() else {
        return false;
    };
    if first != Bdf::new(root_bus, 0, 0) && port_type(config, first) != Some(TYPE_ROOT_PORT) {
        return false;
    }
    let Ok(id) = config.config_read(first, 0, 4) else {
        return false;
    };
    match (id & 0xffff, id >> 16) {
        (0x1ae0, _) => true,
        (0x8086, 0x3c00 | 0x3c01 | 0x2f00 | 0x2f01) => same_bridge,
        (0x8086, 0x2020 | 0x2030..=0x2033 | 0x09a2) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
