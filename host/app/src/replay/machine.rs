//! From a capture to a machine: memory map, which endpoint plays which device, bounce pool.

use std::collections::BTreeMap;

use tlproof_dma::{Attach, Device as DmaDevice, Profile, Swiotlb, p2pdma::HostBridgePolicy};
use tlproof_pcie::{Bdf, MemoryMap, PhysAddr, Range, tree::Acs};

use super::{
    Error,
    join::{Call, Operation},
};
use crate::{
    simulation,
    testbench::{ENDPOINT_ID, Setup},
    trace::{Capture, Device, IommuMode, P2pMap, Pci, PciDevice},
};

/// Endpoints of the machine: 0 and 1 below one switch, 2 behind a root port of its own.
pub const ENDPOINTS: usize = 3;

/// Size of an endpoint's memory BAR.
pub const BAR_SIZE: u64 = 1 << 20;

const PAGE: u64 = 4096;

/// Memory for tables and queues, which must not lie in memory that the trace uses.
const TABLES: u64 = 128 << 20;

/// A bounce pool's size when the capture does not name it (the kernel's default).
const POOL: u64 = 64 << 20;

/// `struct page` array of x86-64 without KASLR and the size of its entries
/// (Documentation/arch/x86/x86_64/mm.rst).
const VMEMMAP: u64 = 0xffff_ea00_0000_0000;
const STRUCT_PAGE: u64 = 64;

/// What an endpoint plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// Devices of the capture that it plays.
    pub devices: usize,
    /// How it is attached.
    pub attach: Attach,
    /// Its unaligned buffers are bounced.
    pub untrusted: bool,
    /// It snoops the CPU caches.
    pub coherent: bool,
    /// DMA mask.
    pub mask: u64,
    /// Address bits that bounce slots keep.
    pub min_align_mask: u64,
    /// Longest scatterlist segment.
    pub max_segment_size: u64,
}

impl Default for Role {
    fn default() -> Self {
        Self {
            devices: 0,
            attach: Attach::Direct,
            untrusted: false,
            coherent: true,
            mask: u64::MAX,
            min_align_mask: 0,
            max_segment_size: 0x1_0000,
        }
    }
}

impl Role {
    /// The device structure of the endpoint `bdf` in this role.
    #[must_use]
    pub fn device(&self, bdf: Bdf) -> DmaDevice {
        let mut device = DmaDevice::new(bdf);
        device.dma_mask = Some(self.mask);
        device.untrusted = self.untrusted;
        device.coherent = self.coherent;
        device.min_align_mask = self.min_align_mask;
        device.max_segment_size = self.max_segment_size;
        device
    }

    /// Whether the endpoint has a DMA domain of its own.
    #[must_use]
    pub const fn translated(&self) -> bool {
        matches!(self.attach, Attach::Strict | Attach::Lazy)
    }
}

/// The bounce pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its memory.
    pub range: Range,
    /// Parts with a lock of their own.
    pub areas: usize,
    /// Every streaming mapping is bounced.
    pub force: bool,
}

impl Pool {
    /// The pool as the API wants it.
    pub fn build(&self) -> Option<Swiotlb> {
        Swiotlb::new(self.range.base, self.range.size(), self.areas, self.force)
    }
}

/// What a capture's devices need of a machine.
#[derive(Clone, Debug, Default)]
struct Use {
    maps: u64,
    bounces: u64,
    /// Address bits in which buffers and slots differ.
    moved: u64,
    longest_segment: u64,
    /// Order of first appearance.
    order: usize,
}

/// The machine for a capture.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Endpoint of every device that maps or provides peer memory.
    pub endpoints: BTreeMap<Device, usize>,
    /// What the endpoints play.
    pub roles: [Role; ENDPOINTS],
    /// Address map, with memory for tables added.
    pub map: MemoryMap,
    /// That memory.
    pub tables: Range,
    /// There is an IOMMU.
    pub iommu: bool,
    /// The bounce pool.
    pub pool: Option<Pool>,
    /// ACS services of all ports.
    pub acs: Acs,
    /// What crosses the host bridge.
    pub policy: HostBridgePolicy,
    pci: Pci,
}

/// Where a physical address of a capture is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The same address of main memory.
    Memory(PhysAddr),
    /// In the memory BAR of an endpoint.
    Peer(usize, PhysAddr),
    /// Neither main memory nor a BAR: mapped, but not accessed.
    Elsewhere(PhysAddr),
    /// It does not fit into an endpoint's BAR.
    TooLong,
}

impl Plan {
    /// Looks at a capture and its calls.
    ///
    /// # Errors
    /// When the capture's memory map cannot be modelled.
    pub fn new(capture: &Capture, operations: &[Operation]) -> Result<Self, Error> {
        let mut map = capture.memory_map()?;
        if map.dram.len() > 3 {
            return Err(Error::NoRoom(capture.name.clone()));
        }
        let tables = free_range(&map).ok_or_else(|| Error::NoRoom(capture.name.clone()))?;
        let dram = map.dram.clone();
        map.dram.push(tables);
        map.dram.sort_by_key(|r| r.base);

        let uses = uses(operations);
        let peers = peers(&capture.pci, operations);
        let iommu = capture.iommu() != IommuMode::None;
        let endpoints = own(&capture.pci).unwrap_or_else(|| assign(&capture.pci, &uses, &peers));
        let mut roles = [Role::default(); ENDPOINTS];
        // The busiest device of an endpoint decides.
        let mut by_use: Vec<_> = endpoints.iter().collect();
        by_use.sort_by_key(|(d, _)| std::cmp::Reverse(uses.get(d).map_or(0, |u| u.maps)));
        for (device, e) in by_use {
            let role = &mut roles[*e];
            role.devices += 1;
            let used = uses.get(device).cloned().unwrap_or_default();
            role.max_segment_size = role.max_segment_size.max(used.longest_segment);
            if role.devices > 1 {
                continue;
            }
            let mode = device
                .bdf()
                .map_or(capture.iommu(), |b| capture.iommu_of(b));
            role.attach = match mode {
                _ if !iommu => Attach::Direct,
                IommuMode::Strict => Attach::Strict,
                IommuMode::Lazy => Attach::Lazy,
                IommuMode::None => Attach::Identity,
            };
            role.untrusted = role.translated() && used.bounces > 0;
            role.coherent = !capture.info.noncoherent.contains(device);
            role.min_align_mask = if used.bounces > 0 && used.moved & (PAGE - 1) == 0 {
                PAGE - 1
            } else {
                0
            };
            let bits = device
                .bdf()
                .and_then(|b| capture.pci.get(b))
                .map(|d| d.dma_mask_bits);
            role.mask = bits.map_or(u64::MAX, mask);
        }
        for role in roles.iter_mut().filter(|r| r.devices == 0) {
            role.attach = if iommu {
                Attach::Identity
            } else {
                Attach::Direct
            };
        }

        // Ports that redirect make a peer below the same switch a matter of the host bridge.
        let direct = peers
            .iter()
            .any(|(client, provider, map)| *map == P2pMap::BusAddr && client != provider);
        let refused = peers.iter().any(|(_, _, map)| *map == P2pMap::NotSupported);
        Ok(Self {
            endpoints,
            roles,
            tables,
            iommu,
            pool: pool(capture, operations, &dram),
            acs: if direct {
                Acs::SV | Acs::UF
            } else {
                Acs::STANDARD
            },
            policy: if refused {
                HostBridgePolicy::Refuse
            } else {
                HostBridgePolicy::Any
            },
            pci: capture.pci.clone(),
            map,
        })
    }

    /// The testbench's options.
    #[must_use]
    pub fn setup(&self, seed: u64, profile: Profile) -> Setup {
        let mut s = Setup {
            machine: simulation::Options {
                map: self.map.clone(),
                iommu: self.iommu,
                // Without a page table nothing but the aperture says that a BAR is device memory.
                aperture_wb: self.blocking(profile),
                seed,
                ..simulation::Options::default()
            },
            profile,
            attach: self.roles.map(|r| r.attach),
            coherent: self.roles.map(|r| r.coherent),
            acs: self.acs,
            tables: self.tables,
            policy: self.policy,
            ..Setup::default()
        };
        // The records of all probes are looked at once, at the end.
        s.iommu.fault_queue_log2 = 12;
        // A stock kernel refuses a unit with page-based memory types.
        s.iommu.svpbmt = profile != Profile::Linux72;
        s
    }

    /// Whether every device is translated, so that accesses without a promise are refused.
    #[must_use]
    pub fn blocking(&self, profile: Profile) -> bool {
        self.iommu
            && !profile.quirks().identity_only
            && self
                .roles
                .iter()
                .filter(|r| r.devices > 0)
                .all(Role::translated)
    }

    /// Finds the place of `size` bytes; `bars` are the endpoints' memory BARs.
    #[must_use]
    pub fn place(&self, bars: &[PhysAddr; ENDPOINTS], phys: PhysAddr, size: u64) -> Place {
        let outside = |r: &&Range| **r != self.tables;
        if self
            .map
            .dram
            .iter()
            .filter(outside)
            .any(|r| r.contains(phys, size))
        {
            return Place::Memory(phys);
        }
        let Some((device, bar)) = self.pci.bar_at(phys, size) else {
            return Place::Elsewhere(phys);
        };
        let Some(e) = self.endpoints.get(&device.name).copied() else {
            return Place::Elsewhere(phys);
        };
        match in_bar(phys.0 - bar.range.base.0, size) {
            Some(offset) => Place::Peer(e, bars[e].offset(offset)),
            None => Place::TooLong,
        }
    }

    /// The peer memory behind a `struct page`, and the device that provides it.
    #[must_use]
    pub fn page(&self, page: u64) -> Option<(PhysAddr, Device)> {
        page_address(&self.pci, page)
    }
}

/// Offset in an endpoint's BAR for an offset in a larger one: the same place in its page.
fn in_bar(offset: u64, size: u64) -> Option<u64> {
    let at = offset % BAR_SIZE;
    if at.checked_add(size)? <= BAR_SIZE {
        return Some(at);
    }
    let in_page = offset % PAGE;
    let pages = in_page.checked_add(size)?.checked_next_multiple_of(PAGE)?;
    Some(BAR_SIZE.checked_sub(pages)? + in_page)
}

fn page_address(pci: &Pci, page: u64) -> Option<(PhysAddr, Device)> {
    let index = page.checked_sub(VMEMMAP)? / STRUCT_PAGE;
    let phys = PhysAddr(index.checked_mul(PAGE)?);
    let (device, _) = pci.bar_at(phys, PAGE)?;
    Some((phys, device.name.clone()))
}

const fn mask(bits: u32) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

/// Room for tables above everything else.
fn free_range(map: &MemoryMap) -> Option<Range> {
    let taken = |r: &Range| {
        map.dram
            .iter()
            .chain([&map.aperture, &map.msi])
            .any(|t| t.base <= r.last && r.base <= t.last)
    };
    (0..64)
        .map(|i| Range::sized(0x10_0000_0000 + (i << 36), TABLES))
        .find(|r| !taken(r))
}

fn uses(operations: &[Operation]) -> BTreeMap<Device, Use> {
    let mut uses: BTreeMap<Device, Use> = BTreeMap::new();
    for o in operations {
        let Some(dev) = o.call.dev() else { continue };
        let order = uses.len();
        let u = uses.entry(dev.clone()).or_insert_with(|| Use {
            order,
            ..Use::default()
        });
        u.maps += u64::from(o.call.maps());
        for b in o.call.mapped().into_iter().flat_map(|d| &d.bounces) {
            u.bounces += 1;
            u.moved |= b.phys.0 ^ b.tlb.0;
        }
        if let Call::MapSg { segments, .. } = &o.call {
            let longest = segments.iter().map(|(_, len)| *len).max().unwrap_or(0);
            u.longest_segment = u.longest_segment.max(longest);
        }
    }
    uses
}

/// Client, provider and decision of every pair that the kernel looked at, and of every mapping of
/// a BAR.
fn peers(pci: &Pci, operations: &[Operation]) -> Vec<(Device, Device, P2pMap)> {
    // The maps have no order of their own; their numbers have.
    let mut found: BTreeMap<(Device, Device, u32), P2pMap> = BTreeMap::new();
    for o in operations {
        let pair = match &o.call {
            Call::P2p { dev, page, map } => {
                page_address(pci, *page).map(|(_, provider)| (dev, provider, *map))
            }
            Call::MapPhys {
                dev, phys, size, ..
            }
            | Call::Link {
                dev, phys, size, ..
            } => pci
                .bar_at(*phys, *size)
                .map(|(d, _)| (dev, d.name.clone(), P2pMap::ThruHostBridge)),
            _ => None,
        };
        if let Some((client, provider, map)) = pair {
            found.insert((client.clone(), provider, map.number()), map);
        }
    }
    found.into_iter().map(|((c, p, _), m)| (c, p, m)).collect()
}

/// Whether both are below one bridge.
fn share_bridge(pci: &Pci, a: &Device, b: &Device) -> bool {
    let above = |d: &Device| d.bdf().and_then(|b| pci.get(b)).map(|d| d.above.clone());
    match (above(a), above(b)) {
        (Some(a), Some(b)) => a.iter().any(|bridge| b.contains(bridge)),
        _ => false,
    }
}

/// The endpoints of a recording of this very machine play themselves.
fn own(pci: &Pci) -> Option<BTreeMap<Device, usize>> {
    let own: Vec<_> = (pci.devices.iter())
        .filter(|d| (d.vendor, d.device) == ENDPOINT_ID)
        .collect();
    let itself = |(i, d): (usize, &&PciDevice)| (d.name.clone(), i);
    (own.len() == ENDPOINTS).then(|| own.iter().enumerate().map(itself).collect())
}

/// Gives every device an endpoint: peers as they are placed in the capture, then one endpoint for
/// each of the busiest devices. What is left shares the last endpoint.
fn assign(
    pci: &Pci,
    uses: &BTreeMap<Device, Use>,
    peers: &[(Device, Device, P2pMap)],
) -> BTreeMap<Device, usize> {
    let mut given = BTreeMap::new();
    for (client, provider, _) in peers {
        if client == provider || given.contains_key(client) || given.contains_key(provider) {
            continue;
        }
        let taken = |e: usize, given: &BTreeMap<Device, usize>| given.values().any(|g| *g == e);
        let (p, c) = if share_bridge(pci, client, provider) {
            (0, 1)
        } else {
            (2, 0)
        };
        if !taken(p, &given) && !taken(c, &given) {
            given.insert(provider.clone(), p);
            given.insert(client.clone(), c);
        }
    }
    // Those that only provide peer memory come last.
    let only_peers = peers
        .iter()
        .flat_map(|(c, p, _)| [c, p])
        .map(|d| (d, 0, usize::MAX));
    let mut rest: Vec<_> = uses
        .iter()
        .map(|(d, u)| (d, u.maps, u.order))
        .chain(only_peers)
        .collect();
    rest.sort_by_key(|(_, maps, order)| (std::cmp::Reverse(*maps), *order));
    for (device, ..) in rest {
        if given.contains_key(device) {
            continue;
        }
        let load = |e: &usize| {
            let here = || given.iter().filter(|(_, g)| *g == e);
            let maps: u64 = here().map(|(d, _)| uses.get(d).map_or(0, |u| u.maps)).sum();
            // What is shared already may be shared by more.
            (here().count() == 1, maps)
        };
        let free = (0..ENDPOINTS).find(|e| !given.values().any(|g| g == e));
        let e = free
            .or_else(|| (0..ENDPOINTS).min_by_key(load))
            .unwrap_or(0);
        given.insert(device.clone(), e);
    }
    given
}

/// The bounce pool of the capture: where its kernel log says, or around the slots that it used.
fn pool(capture: &Capture, operations: &[Operation], dram: &[Range]) -> Option<Pool> {
    let mut slots: Option<(u64, u64)> = None;
    for b in operations
        .iter()
        .filter_map(|o| o.call.mapped())
        .flat_map(|d| &d.bounces)
    {
        let (first, end) = (b.tlb.0, b.tlb.0.saturating_add(b.size));
        let (lo, hi) = slots.unwrap_or((first, end));
        slots = Some((lo.min(first), hi.max(end)));
    }
    let holds = |r: &Range| {
        dram.iter().any(|d| d.contains(r.base, r.size()))
            && slots.is_none_or(|(lo, hi)| r.base.0 <= lo && hi - 1 <= r.last.0)
    };
    let named = capture.info.swiotlb_pool.filter(holds);
    let around = || {
        let (lo, hi) = slots?;
        let memory = dram.iter().find(|d| d.contains(PhysAddr(lo), hi - lo))?;
        // Pools begin at a multiple of their alignment, 2 MiB is usual.
        let base = (lo & !((2 << 20) - 1)).max(memory.base.0.next_multiple_of(PAGE));
        let end = (memory.last.0 + 1).min((base + POOL).max(hi.next_multiple_of(2 << 20)));
        Some(Range::sized(base, end - base))
    };
    let range = named.or_else(around)?;
    let cpus = operations.iter().map(|o| o.cpu + 1).max().unwrap_or(1);
    Some(Pool {
        range,
        areas: cpus.next_power_of_two(),
        force: capture.info.swiotlb_force,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn pci(text: &str) -> Pci {
        Pci::parse(Path::new("t.pci"), text).unwrap()
    }

    fn function(name: &str, above: &str, bar: &str) -> String {
        format!(
            "dev {name} vendor=0x1b36 device=0x0010 class=0x010802 driver=nvme iommu_group=1 \
             iommu_group_type=DMA dma_mask_bits=64 consistent_dma_mask_bits=64 \
             path=pci0000:00/{above}{name}\n{bar}"
        )
    }

    fn device(bus: u8) -> Device {
        Device::pci(Bdf::new(bus, 0, 0))
    }

    fn used(maps: u64, order: usize) -> Use {
        Use {
            maps,
            order,
            ..Use::default()
        }
    }

    const BAR2: &str = "  res2 0x00000000f0000000 0x00000000f3ffffff 0x000000000014220c\n";

    #[test]
    fn a_place_in_a_bar_keeps_its_page_offset_and_fits() {
        assert_eq!(in_bar(0x123_4567, 0x100), Some(0x3_4567));
        assert_eq!(in_bar(0x1f_f200, 0x2000), Some(0xf_d200));
        assert_eq!(in_bar(0, BAR_SIZE), Some(0));
        assert_eq!(in_bar(0x10, BAR_SIZE), None);
        assert_eq!(in_bar(0, BAR_SIZE + 1), None);
    }

    #[test]
    fn peers_below_a_switch_stay_below_a_switch() {
        let port = "0000:00:03.0/0000:01:00.0/";
        let pci = pci(&format!(
            "{}{}",
            function("0000:03:00.0", &format!("{port}0000:02:00.0/"), BAR2),
            function("0000:04:00.0", &format!("{port}0000:02:01.0/"), "")
        ));
        let uses = [(device(3), used(5, 0)), (device(4), used(100, 1))].into();
        let peers = [
            (device(3), device(3), P2pMap::BusAddr),
            (device(4), device(3), P2pMap::BusAddr),
        ];
        let given = assign(&pci, &uses, &peers);
        assert_eq!(given, [(device(3), 0), (device(4), 1)].into());
    }

    #[test]
    fn peers_behind_different_root_ports_do_not_share_the_switch() {
        let pci = pci(&format!(
            "{}{}",
            function("0000:01:00.0", "0000:00:03.0/", BAR2),
            function("0000:02:00.0", "0000:00:04.0/", "")
        ));
        let uses = [(device(1), used(500, 0)), (device(2), used(100, 1))].into();
        let peers = [(device(2), device(1), P2pMap::ThruHostBridge)];
        let given = assign(&pci, &uses, &peers);
        assert_eq!(given, [(device(1), 2), (device(2), 0)].into());
    }

    #[test]
    fn the_busiest_devices_have_an_endpoint_to_themselves() {
        let uses = [
            (device(1), used(6, 0)),
            (device(2), used(700, 1)),
            (device(3), used(9, 2)),
            (device(4), used(2700, 3)),
        ]
        .into();
        let given = assign(&pci(""), &uses, &[]);
        let alone = |d: u8| given.values().filter(|e| **e == given[&device(d)]).count() == 1;
        assert!(alone(4) && alone(2) && !alone(3) && !alone(1));
    }

    #[test]
    fn peer_pages_are_found_by_their_struct_page() {
        let pci = pci(&function("0000:01:00.0", "0000:00:03.0/", BAR2));
        // (0xf0199000 >> 12) * 64 above the array's start.
        let found = page_address(&pci, 0xffff_ea00_03c0_6640);
        assert_eq!(found, Some((PhysAddr(0xf019_9000), device(1))));
        assert_eq!(page_address(&pci, 0xffff_8880_0000_0000), None);
        assert_eq!(page_address(&pci, VMEMMAP), None);
    }
}
