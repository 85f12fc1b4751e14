//! The way between two functions: hops, ACS redirection, host bridges.

use tlproof_pcie::{Bdf, config::ConfigSpace};

use super::{HostBridgePolicy, MapType, P2pdma, host_bridge::listed};

/// `PCI_ACS_RR | PCI_ACS_CR | PCI_ACS_EC`: a port with one of them may send a request upstream
/// that it could have routed to a peer (PCIe 6.0 §6.12.1).
const ACS_REDIRECT: u32 = 0x04 | 0x08 | 0x20;

/// Extended capability ID of Access Control Services.
const EXT_CAP_ACS: u32 = 0x000d;

/// Capability ID of the PCI Express capability.
const CAP_PCIE: u32 = 0x10;

/// Type and distance in hops between two functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// How the client reaches the provider.
    pub map: MapType,
    /// Hops up from one and down to the other.
    pub distance: u32,
}

impl P2pdma {
    /// Walks up from the provider until a bridge of the client's is met, or the function itself.
    /// Every port on both ways counts, the common one and the functions too: a multifunction
    /// device may have ACS of its own.
    pub(super) fn reach(&self, config: &mut dyn ConfigSpace, owner: Bdf, client: Bdf) -> Reach {
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
                    (Some(a), Some(b)) => listed(config, a, b),
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
pub(super) fn functions(config: &mut dyn ConfigSpace, bus: u8) -> Vec<Bdf> {
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
pub(super) fn port_type(config: &mut dyn ConfigSpace, bdf: Bdf) -> Option<u32> {
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
