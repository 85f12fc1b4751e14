//! Which host bridges carry requests from one root port to another.

use tlproof_pcie::{Bdf, config::ConfigSpace};

use super::distance::{functions, port_type};

/// Device/port type of a root port (PCIe 6.0 §7.5.3.2).
const TYPE_ROOT_PORT: u32 = 4;

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

/// What an entry of the list allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Peers below the same host bridge only.
    SameBridge,
    /// Peers below any listed host bridge.
    Listed,
}

const INTEL: u16 = 0x8086;
const GOOGLE: u16 = 0x1ae0;

/// `pci_p2pdma_whitelist`: vendor, device (`None` for any) and what it allows.
pub(super) const LIST: [(u16, Option<u16>, Allowed); 21] = [
    // Xeon E5, E7 v3 and the Core i7 of their time.
    (INTEL, Some(0x3c00), Allowed::SameBridge),
    (INTEL, Some(0x3c01), Allowed::SameBridge),
    (INTEL, Some(0x2f00), Allowed::SameBridge),
    (INTEL, Some(0x2f01), Allowed::SameBridge),
    // Skylake-E and later servers.
    (INTEL, Some(0x2030), Allowed::Listed),
    (INTEL, Some(0x2031), Allowed::Listed),
    (INTEL, Some(0x2032), Allowed::Listed),
    (INTEL, Some(0x2033), Allowed::Listed),
    (INTEL, Some(0x2020), Allowed::Listed),
    (INTEL, Some(0x09a2), Allowed::Listed),
    // Accelerators that are the first device of a root bus: DSA, IAX, IAA.
    (INTEL, Some(0x0b25), Allowed::Listed),
    (INTEL, Some(0x0cfe), Allowed::Listed),
    (INTEL, Some(0x11fb), Allowed::Listed),
    (INTEL, Some(0x1212), Allowed::Listed),
    (INTEL, Some(0x1216), Allowed::Listed),
    // QAT 4xxx, 401xx, 402xx, 420xx and 6xxx.
    (INTEL, Some(0x4940), Allowed::Listed),
    (INTEL, Some(0x4942), Allowed::Listed),
    (INTEL, Some(0x4944), Allowed::Listed),
    (INTEL, Some(0x4946), Allowed::Listed),
    (INTEL, Some(0x4948), Allowed::Listed),
    (GOOGLE, None, Allowed::Listed),
];

/// What the list says about the host bridge of a root bus: the first device of the bus tells, if
/// it is device 0, function 0 or a root port.
fn entry(config: &mut dyn ConfigSpace, root_bus: u8) -> Option<Allowed> {
    let first = functions(config, root_bus).first().copied()?;
    if first != Bdf::new(root_bus, 0, 0) && port_type(config, first) != Some(TYPE_ROOT_PORT) {
        return None;
    }
    let id = config.config_read(first, 0, 4).ok()?;
    let (vendor, device) = (id as u16, (id >> 16) as u16);
    LIST.iter()
        .find(|(v, d, _)| *v == vendor && d.is_none_or(|d| d == device))
        .map(|(_, _, allowed)| *allowed)
}

/// `host_bridge_whitelist`: one bridge must be listed, two must both be listed without the
/// condition that they are one.
pub(super) fn listed(config: &mut dyn ConfigSpace, a: u8, b: u8) -> bool {
    if a == b {
        return entry(config, a).is_some();
    }
    [a, b]
        .into_iter()
        .all(|bus| entry(config, bus) == Some(Allowed::Listed))
}
