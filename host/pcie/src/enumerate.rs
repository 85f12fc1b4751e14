//! Enumeration: bus numbers, address assignment, capabilities (PCIe 6.0 §7.3, PCI-to-PCI Bridge
//! Architecture 1.2).
//!
//! Three passes: discovery depth first, allocation bottom up (how much does each bridge need) and
//! top down (where does it stand), then the registers. Whatever configuration space answers, the
//! passes end: bus numbers only grow and capability lists are cut at the first repeat.

mod allocate;
mod capabilities;

use allocate::Allocator;
use capabilities::{capabilities, read_capabilities};

use crate::{
    Bdf, BusAddr, MemoryMap, PhysAddr,
    config::{AccessError, ConfigSpace, HEADER_MULTI_FUNCTION, acs_cap, command, pcie_cap, reg},
    tree::{Acs, AcsCap, Bar, BarKind, Bridge, Node, Tree, Window},
};

/// How to enumerate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Max_Payload_Size in bytes, 128 to 4096; lowered to what every function supports.
    pub mps: u16,
    /// Max_Read_Request_Size in bytes, 128 to 4096.
    pub mrrs: u16,
    /// ACS services to enable where a function is capable of them.
    pub acs: Acs,
    /// Other services for single functions.
    pub acs_override: Vec<(Bdf, Acs)>,
}

impl Default for Options {
    /// MPS 256, MRRS 512, the ACS services that Linux enables behind an IOMMU.
    fn default() -> Self {
        Self {
            mps: 256,
            mrrs: 512,
            acs: Acs::STANDARD,
            acs_override: Vec::new(),
        }
    }
}

/// Why an enumeration failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnumerateError {
    /// MPS or MRRS is not a power of two from 128 to 4096.
    #[error("{0} bytes is no size that Device Control can hold")]
    InvalidSize(u16),
    /// A function that answered before no longer does.
    #[error("{bdf}: register {reg:#x}: {source}")]
    Access {
        /// The function.
        bdf: Bdf,
        /// The register.
        reg: u16,
        /// What happened.
        source: AccessError,
    },
    /// More buses than bus numbers.
    #[error("{0}: no bus number left for the secondary bus")]
    BusNumbersExhausted(Bdf),
    /// The BARs do not fit.
    #[error("no space in the aperture for {needed:#x} bytes ({kind})")]
    NoApertureSpace {
        /// Bytes that the BARs of this kind need, padding included.
        needed: u64,
        /// `32-bit` or `64-bit prefetchable`.
        kind: &'static str,
    },
    /// A capability list loops or leaves configuration space.
    #[error("{bdf}: malformed capability list at {offset:#x}")]
    MalformedCapabilities {
        /// The function.
        bdf: Bdf,
        /// The offending pointer.
        offset: u16,
    },
    /// A 64-bit BAR without an upper half.
    #[error("{bdf}: malformed BAR {index}")]
    MalformedBar {
        /// The function.
        bdf: Bdf,
        /// The register's index.
        index: u8,
    },
}

type Result<T> = std::result::Result<T, EnumerateError>;

/// Bridge windows are multiples of 1 MiB (PCIe 6.0 §7.5.1.3.8).
const WINDOW_GRANULE: u64 = 1 << 20;

/// Finds all functions below bus 0, gives them bus numbers and addresses, and enables them.
///
/// # Errors
/// See [`EnumerateError`]; the hierarchy is then only partly programmed.
pub fn enumerate(
    cs: &mut (impl ConfigSpace + ?Sized),
    map: &MemoryMap,
    options: &Options,
) -> Result<Tree> {
    let mps = size_field(options.mps)?;
    let mrrs = size_field(options.mrrs)?;
    let mut scan = Scan {
        regs: Regs(cs),
        tree: Tree::default(),
        next_bus: 1,
    };
    scan.bus(0, None)?;
    let Scan {
        regs: mut cs,
        mut tree,
        ..
    } = scan;
    Allocator::new(&mut tree, map).run()?;
    let mps = tree
        .nodes
        .iter()
        .filter_map(|n| n.pcie)
        .map(|p| p.mps_supported)
        .fold(128 << mps, u16::min);
    for node in &mut tree.nodes {
        program(&mut cs, node)?;
        if let Some(pcie) = &mut node.pcie {
            let at = pcie.offset + pcie_cap::DEVICE_CONTROL;
            let old = cs.read(node.bdf, at, 2)?;
            let new = old & !0x70e0 | size_field(mps)? << 5 | mrrs << 12;
            cs.write(node.bdf, at, 2, new)?;
            pcie.mps = mps;
            pcie.mrrs = options.mrrs;
        }
        if let Some(acs) = &mut node.acs {
            let want = options
                .acs_override
                .iter()
                .find(|(bdf, _)| *bdf == node.bdf)
                .map_or(options.acs, |(_, acs)| *acs);
            write_acs(&mut cs, node.bdf, acs, want)?;
        }
        let old = cs.read(node.bdf, reg::COMMAND, 2)?;
        let enable = u32::from(command::MEMORY_SPACE | command::BUS_MASTER);
        cs.write(node.bdf, reg::COMMAND, 2, old | enable)?;
    }
    Ok(tree)
}

/// `pci_enable_acs`: enables exactly the services of `want` that the port is capable of, and
/// keeps the tree true. Does nothing for a function without the capability.
///
/// # Errors
/// [`EnumerateError::Access`].
pub fn pci_enable_acs(
    cs: &mut (impl ConfigSpace + ?Sized),
    tree: &mut Tree,
    bdf: Bdf,
    want: Acs,
) -> Result<()> {
    let node = tree.nodes.iter_mut().find(|n| n.bdf == bdf);
    match node.and_then(|n| n.acs.as_mut()) {
        Some(acs) => write_acs(&mut Regs(cs), bdf, acs, want),
        None => Ok(()),
    }
}

fn write_acs(
    cs: &mut Regs<'_, impl ConfigSpace + ?Sized>,
    bdf: Bdf,
    acs: &mut AcsCap,
    want: Acs,
) -> Result<()> {
    let control = want & acs.capability;
    cs.write(
        bdf,
        acs.offset + acs_cap::CONTROL,
        2,
        u32::from(control.bits()),
    )?;
    let back = cs.read(bdf, acs.offset + acs_cap::CONTROL, 2)?;
    acs.control = Acs::from_bits_truncate(back as u16);
    Ok(())
}

/// Encoding of MPS and MRRS: 0 is 128 bytes (PCIe 6.0 §7.5.3.4).
fn size_field(bytes: u16) -> Result<u32> {
    if bytes.is_power_of_two() && (128..=4096).contains(&bytes) {
        Ok(bytes.trailing_zeros() - 7)
    } else {
        Err(EnumerateError::InvalidSize(bytes))
    }
}

/// Configuration space of functions that are known to be there.
struct Regs<'a, C: ?Sized>(&'a mut C);

impl<C: ConfigSpace + ?Sized> Regs<'_, C> {
    fn read(&mut self, bdf: Bdf, reg: u16, size: u8) -> Result<u32> {
        self.0
            .config_read(bdf, reg, size)
            .map_err(|source| EnumerateError::Access { bdf, reg, source })
    }

    fn write(&mut self, bdf: Bdf, reg: u16, size: u8, value: u32) -> Result<()> {
        self.0
            .config_write(bdf, reg, size, value)
            .map_err(|source| EnumerateError::Access { bdf, reg, source })
    }
}

struct Scan<'a, C: ?Sized> {
    regs: Regs<'a, C>,
    tree: Tree,
    next_bus: u16,
}

impl<C: ConfigSpace + ?Sized> Scan<'_, C> {
    fn bus(&mut self, bus: u8, parent: Option<usize>) -> Result<()> {
        let single = parent
            .and_then(|p| self.tree.nodes[p].pcie)
            .is_some_and(|p| p.port.has_link_below());
        for device in 0..if single { 1 } else { 32 } {
            for function in 0..8 {
                let bdf = Bdf::new(bus, device, function);
                let header = self.function(bdf, parent)?;
                // Function 0 is mandatory and says whether there are others.
                if function == 0 && header.is_none_or(|h| h & HEADER_MULTI_FUNCTION == 0) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Adds the function and all below it; returns its Header Type, or `None` if it is absent.
    fn function(&mut self, bdf: Bdf, parent: Option<usize>) -> Result<Option<u8>> {
        let vendor = match self.regs.0.config_read(bdf, reg::VENDOR_ID, 2) {
            Ok(0 | 0xffff) | Err(AccessError::Unsupported) => return Ok(None),
            Ok(v) => v as u16,
            Err(source) => {
                return Err(EnumerateError::Access {
                    bdf,
                    reg: reg::VENDOR_ID,
                    source,
                });
            }
        };
        let cs = &mut self.regs;
        let device = cs.read(bdf, reg::DEVICE_ID, 2)? as u16;
        let class_revision = cs.read(bdf, reg::CLASS_REVISION, 4)?;
        let header = cs.read(bdf, reg::HEADER_TYPE, 1)? as u8;
        // Sizing writes nonsense to the BARs: nothing may decode meanwhile.
        let old = cs.read(bdf, reg::COMMAND, 2)?;
        let off = command::IO_SPACE | command::MEMORY_SPACE | command::BUS_MASTER;
        cs.write(bdf, reg::COMMAND, 2, old & !u32::from(off))?;
        let is_bridge = header & 0x7f == 1;
        let bars = match header & 0x7f {
            0 => size_bars(cs, bdf, 6)?,
            1 => size_bars(cs, bdf, 2)?,
            _ => Vec::new(),
        };
        let mut node = Node {
            bdf,
            vendor,
            device,
            class: class_revision >> 8,
            revision: class_revision as u8,
            bars,
            caps: capabilities(cs, bdf)?,
            ext_caps: Vec::new(),
            pcie: None,
            msix: None,
            acs: None,
            bridge: None,
            parent,
            children: Vec::new(),
        };
        read_capabilities(cs, &mut node)?;
        let index = self.tree.nodes.len();
        self.tree.nodes.push(node);
        if let Some(p) = parent {
            self.tree.nodes[p].children.push(index);
        }
        if is_bridge {
            self.bridge(bdf, index)?;
        }
        Ok(Some(header))
    }

    fn bridge(&mut self, bdf: Bdf, index: usize) -> Result<()> {
        let secondary =
            u8::try_from(self.next_bus).map_err(|_| EnumerateError::BusNumbersExhausted(bdf))?;
        self.next_bus += 1;
        let primary = u32::from(bdf.bus());
        let numbers =
            |subordinate: u8| primary | u32::from(secondary) << 8 | u32::from(subordinate) << 16;
        // Bits 3:0 of a 64-bit window read 1; a missing window reads 0 whatever is written.
        let closed = 0x0000_fff0;
        self.regs.write(bdf, reg::PREFETCH_WINDOW, 4, closed)?;
        let window = self.regs.read(bdf, reg::PREFETCH_WINDOW, 4)?;
        let wide_prefetch = window & 0xfff0 != 0 && window & 15 == 1;
        // Everything above is routed down until the real extent is known.
        self.regs.write(bdf, reg::BUS_NUMBERS, 4, numbers(0xff))?;
        self.bus(secondary, Some(index))?;
        let subordinate = (self.next_bus - 1) as u8;
        self.regs
            .write(bdf, reg::BUS_NUMBERS, 4, numbers(subordinate))?;
        self.tree.nodes[index].bridge = Some(Bridge {
            secondary,
            subordinate,
            wide_prefetch,
            memory: None,
            prefetchable: None,
        });
        Ok(())
    }
}

/// Sizes BARs by writing ones (PCIe 6.0 §7.5.1.2.1).
fn size_bars(
    cs: &mut Regs<'_, impl ConfigSpace + ?Sized>,
    bdf: Bdf,
    count: u8,
) -> Result<Vec<Bar>> {
    let mut bars = Vec::new();
    let mut probe = |at: u16| {
        cs.write(bdf, at, 4, u32::MAX)?;
        let ones = cs.read(bdf, at, 4)?;
        cs.write(bdf, at, 4, 0)?;
        Ok(ones)
    };
    let mut index = 0;
    while index < count {
        let at = reg::BAR0 + 4 * u16::from(index);
        let low = probe(at)?;
        let this = index;
        index += 1;
        if low == 0 {
            continue;
        }
        let (kind, mask) = if low & 1 != 0 {
            (BarKind::Io, u64::from(low & !3))
        } else {
            let wide = low >> 1 & 3 == 2;
            let high = if wide {
                if index == count {
                    return Err(EnumerateError::MalformedBar { bdf, index: this });
                }
                index += 1;
                probe(at + 4)?
            } else {
                0
            };
            let prefetchable = low & 8 != 0;
            (
                BarKind::Memory { wide, prefetchable },
                u64::from(low & !15) | u64::from(high) << 32,
            )
        };
        // The writable bits of a good BAR are all above its lowest one.
        let size = mask & mask.wrapping_neg();
        if size != 0 {
            bars.push(Bar {
                index: this,
                kind,
                size,
                bus: BusAddr(0),
                phys: PhysAddr(0),
            });
        }
    }
    Ok(bars)
}

/// Writes the addresses of a function.
fn program(cs: &mut Regs<'_, impl ConfigSpace + ?Sized>, node: &Node) -> Result<()> {
    let bdf = node.bdf;
    for bar in &node.bars {
        let BarKind::Memory { wide, .. } = bar.kind else {
            continue;
        };
        let at = reg::BAR0 + 4 * u16::from(bar.index);
        cs.write(bdf, at, 4, bar.bus.0 as u32)?;
        if wide {
            cs.write(bdf, at + 4, 4, (bar.bus.0 >> 32) as u32)?;
        }
    }
    let Some(bridge) = node.bridge else {
        return Ok(());
    };
    // A base above the limit closes a window.
    let closed = Window {
        base: BusAddr(0xfff0_0000),
        limit: BusAddr(0x000f_ffff),
    };
    let pair = |w: Window| (w.base.0 >> 16) as u32 & 0xfff0 | w.limit.0 as u32 & 0xfff0_0000;
    cs.write(bdf, reg::IO_WINDOW, 2, 0x00f0)?;
    cs.write(
        bdf,
        reg::MEMORY_WINDOW,
        4,
        pair(bridge.memory.unwrap_or(closed)),
    )?;
    let prefetchable = bridge.prefetchable.unwrap_or(closed);
    cs.write(bdf, reg::PREFETCH_WINDOW, 4, pair(prefetchable))?;
    let upper = |a: BusAddr| (a.0 >> 32) as u32;
    cs.write(bdf, reg::PREFETCH_BASE_UPPER, 4, upper(prefetchable.base))?;
    cs.write(bdf, reg::PREFETCH_LIMIT_UPPER, 4, upper(prefetchable.limit))
}

#[cfg(test)]
mod tests;
