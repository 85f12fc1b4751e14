//! The functions that an enumeration found, and how they hang together.

use std::fmt;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::{Bdf, BusAddr, PhysAddr};

bitflags! {
    /// Bits of the ACS Capability and Control registers (PCIe 6.0 §7.7.11).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Acs: u16 {
        /// Source Validation.
        const SV = 1 << 0;
        /// Translation Blocking.
        const TB = 1 << 1;
        /// P2P Request Redirect.
        const RR = 1 << 2;
        /// P2P Completion Redirect.
        const CR = 1 << 3;
        /// Upstream Forwarding.
        const UF = 1 << 4;
        /// P2P Egress Control.
        const EC = 1 << 5;
        /// Direct Translated P2P.
        const DT = 1 << 6;
    }
}

impl Acs {
    /// What Linux enables where the port is capable of it (`pci_std_enable_acs`).
    pub const STANDARD: Self = Self::SV.union(Self::RR).union(Self::CR).union(Self::UF);
}

/// An implemented Base Address Register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// Index of the (lower) register, 0 to 5.
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Bytes, a power of two.
    pub size: u64,
    /// Address in TLPs; 0 for an I/O BAR, which is never assigned.
    pub bus: BusAddr,
    /// Address as the CPUs see it; 0 for an I/O BAR.
    pub phys: PhysAddr,
}

/// What a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BarKind {
    /// I/O space.
    Io,
    /// Memory space.
    Memory {
        /// A 64-bit register pair.
        wide: bool,
        /// Reads have no side effects and writes may merge.
        prefetchable: bool,
    },
}

/// An open bridge window, both ends inclusive, in bus addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// First byte, a multiple of 1 MiB.
    pub base: BusAddr,
    /// Last byte.
    pub limit: BusAddr,
}

impl Window {
    /// Whether the `len` bytes at `addr` are inside (`len` 0 counts as 1).
    #[must_use]
    pub fn contains(&self, addr: BusAddr, len: u64) -> bool {
        addr >= self.base
            && addr
                .checked_add(len.max(1) - 1)
                .is_some_and(|last| last <= self.limit)
    }
}

/// What only a type 1 header has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Bus directly below.
    pub secondary: u8,
    /// Highest bus below.
    pub subordinate: u8,
    /// The prefetchable window exists and holds 64-bit addresses.
    pub wide_prefetch: bool,
    /// Non-prefetchable window, below 4 GiB.
    pub memory: Option<Window>,
    /// 64-bit prefetchable window.
    pub prefetchable: Option<Window>,
}

/// Device/Port Type of the PCI Express capability (PCIe 6.0 §7.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortType {
    /// PCI Express Endpoint, also a legacy one.
    Endpoint,
    /// Root Port.
    RootPort,
    /// Upstream Port of a switch.
    Upstream,
    /// Downstream Port of a switch.
    Downstream,
    /// Root Complex Integrated Endpoint.
    Integrated,
    /// Any other encoding.
    Other(u8),
}

impl PortType {
    /// Decodes the four-bit field.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            0 | 1 => Self::Endpoint,
            4 => Self::RootPort,
            5 => Self::Upstream,
            6 => Self::Downstream,
            9 => Self::Integrated,
            other => Self::Other(other),
        }
    }

    /// A port with a link below it, on which only device 0 can answer (PCIe 6.0 §7.3.1).
    #[must_use]
    pub const fn has_link_below(self) -> bool {
        matches!(self, Self::RootPort | Self::Downstream)
    }
}

/// The PCI Express capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcieCap {
    /// Offset in configuration space.
    pub offset: u16,
    /// Device/Port Type.
    pub port: PortType,
    /// Largest Max_Payload_Size, in bytes.
    pub mps_supported: u16,
    /// Max_Payload_Size as set, in bytes.
    pub mps: u16,
    /// Max_Read_Request_Size as set, in bytes.
    pub mrrs: u16,
}

/// Where the MSI-X structures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsiX {
    /// Offset of the capability.
    pub offset: u16,
    /// Number of vectors, 1 to 2048.
    pub vectors: u16,
    /// BAR index and offset of the table.
    pub table: (u8, u32),
    /// BAR index and offset of the Pending Bit Array.
    pub pba: (u8, u32),
}

/// The ACS extended capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcsCap {
    /// Offset in configuration space.
    pub offset: u16,
    /// What the port can do.
    pub capability: Acs,
    /// What is enabled.
    pub control: Acs,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Address.
    pub bdf: Bdf,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class Code: base class in bits 23:16, sub-class 15:8, interface 7:0.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// Implemented BARs, ascending.
    pub bars: Vec<Bar>,
    /// ID and offset of each capability, in list order.
    pub caps: Vec<(u8, u16)>,
    /// ID and offset of each extended capability, in list order.
    pub ext_caps: Vec<(u16, u16)>,
    /// PCI Express capability.
    pub pcie: Option<PcieCap>,
    /// MSI-X capability.
    pub msix: Option<MsiX>,
    /// ACS capability.
    pub acs: Option<AcsCap>,
    /// Present for a type 1 header.
    pub bridge: Option<Bridge>,
    /// Index of the bridge above in [`Tree::nodes`].
    pub parent: Option<usize>,
    /// Indices of the functions on the secondary bus.
    pub children: Vec<usize>,
}

impl Node {
    /// The BAR whose lower register is `index`.
    #[must_use]
    pub fn bar(&self, index: u8) -> Option<&Bar> {
        self.bars.iter().find(|b| b.index == index)
    }

    /// CPU address of the MSI-X table.
    #[must_use]
    pub fn msix_table(&self) -> Option<PhysAddr> {
        let (bar, offset) = self.msix?.table;
        Some(self.bar(bar)?.phys.offset(u64::from(offset)))
    }
}

/// All functions, each after the bridge above it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The functions in order of discovery (depth first).
    pub nodes: Vec<Node>,
}

impl Tree {
    /// The function at `bdf`.
    #[must_use]
    pub fn find(&self, bdf: Bdf) -> Option<&Node> {
        self.nodes.iter().find(|n| n.bdf == bdf)
    }

    /// Functions with this vendor and device ID.
    pub fn find_id(&self, vendor: u16, device: u16) -> impl Iterator<Item = &Node> {
        self.nodes
            .iter()
            .filter(move |n| n.vendor == vendor && n.device == device)
    }

    /// PCI Express Endpoints: functions at the end of a link.
    pub fn endpoints(&self) -> impl Iterator<Item = &Node> {
        self.nodes
            .iter()
            .filter(|n| n.bridge.is_none() && n.pcie.is_some_and(|p| p.port == PortType::Endpoint))
    }

    /// The bridges above `bdf`, the nearest first.
    pub fn upstream(&self, bdf: Bdf) -> impl Iterator<Item = &Node> {
        let first = self.find(bdf).and_then(|n| n.parent);
        std::iter::successors(first.and_then(|i| self.nodes.get(i)), |n| {
            n.parent.and_then(|i| self.nodes.get(i))
        })
    }

    /// The function and BAR that hold the `len` bytes at bus address `addr`.
    #[must_use]
    pub fn bar_at(&self, addr: BusAddr, len: u64) -> Option<(&Node, &Bar)> {
        self.nodes.iter().find_map(|n| {
            let bar = n.bars.iter().find(|b| {
                matches!(b.kind, BarKind::Memory { .. })
                    && addr
                        .0
                        .checked_sub(b.bus.0)
                        .and_then(|o| o.checked_add(len.max(1)))
                        .is_some_and(|end| end <= b.size)
            })?;
            Some((n, bar))
        })
    }

    /// The tree drawn as `lspci -tv` draws it.
    #[must_use]
    pub fn diagram(&self) -> String {
        let mut out = String::from("-[0000:00]\n");
        let roots: Vec<usize> = (0..self.nodes.len())
            .filter(|&i| self.nodes[i].parent.is_none())
            .collect();
        self.draw(&roots, &mut vec![], &mut out);
        out
    }

    fn draw(&self, level: &[usize], rails: &mut Vec<bool>, out: &mut String) {
        for (k, &i) in level.iter().enumerate() {
            let last = k + 1 == level.len();
            out.push(' ');
            for &rail in rails.iter() {
                out.push_str(if rail { "|  " } else { "   " });
            }
            let node = &self.nodes[i];
            let buses = node.bridge.map_or(String::new(), |b| {
                if b.secondary == b.subordinate {
                    format!("-[{:02x}]", b.secondary)
                } else {
                    format!("-[{:02x}-{:02x}]", b.secondary, b.subordinate)
                }
            });
            out.push_str(&format!(
                "{}-{:02x}.{}{}  {} {:04x}:{:04x}\n",
                if last { '\\' } else { '+' },
                node.bdf.device(),
                node.bdf.function(),
                buses,
                class_name(node.class),
                node.vendor,
                node.device,
            ));
            rails.push(!last);
            self.draw(&node.children, rails, out);
            rails.pop();
        }
    }
}

/// Name of a class code, as far as the testbench meets it.
#[must_use]
pub const fn class_name(class: u32) -> &'static str {
    match class >> 8 {
        0x0106 => "SATA controller",
        0x0108 => "Non-Volatile memory controller",
        0x0200 => "Ethernet controller",
        0x0600 => "Host bridge",
        0x0604 => "PCI bridge",
        0x0806 => "IOMMU",
        0x1200 => "Processing accelerators",
        _ => "Device",
    }
}

fn size(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        30.. => format!("{}G", bytes >> 30),
        20.. => format!("{}M", bytes >> 20),
        10.. => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}

fn acs(flags: Acs) -> String {
    [
        ("SrcValid", Acs::SV),
        ("TransBlk", Acs::TB),
        ("ReqRedir", Acs::RR),
        ("CmpltRedir", Acs::CR),
        ("UpstreamFwd", Acs::UF),
        ("EgressCtrl", Acs::EC),
        ("DirectTrans", Acs::DT),
    ]
    .iter()
    .map(|(n, f)| format!("{n}{}", if flags.contains(*f) { '+' } else { '-' }))
    .collect::<Vec<_>>()
    .join(" ")
}

impl fmt::Display for Tree {
    /// A listing in the manner of `lspci -v`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, node) in self.nodes.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{node}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {} [{:04x}]: {:04x}:{:04x} (rev {:02x})",
            self.bdf,
            class_name(self.class),
            self.class >> 8,
            self.vendor,
            self.device,
            self.revision,
        )?;
        for bar in &self.bars {
            match bar.kind {
                BarKind::Io => writeln!(
                    f,
                    "    BAR{}: I/O ports, unassigned [size={}]",
                    bar.index, bar.size
                )?,
                BarKind::Memory { wide, prefetchable } => writeln!(
                    f,
                    "    BAR{}: Memory at {:#x} ({}-bit, {}prefetchable) [size={}] [bus {:#x}]",
                    bar.index,
                    bar.phys,
                    if wide { 64 } else { 32 },
                    if prefetchable { "" } else { "non-" },
                    size(bar.size),
                    bar.bus,
                )?,
            }
        }
        if let Some(b) = self.bridge {
            writeln!(
                f,
                "    Bus: primary={:02x}, secondary={:02x}, subordinate={:02x}",
                self.bdf.bus(),
                b.secondary,
                b.subordinate
            )?;
            for (name, window) in [
                ("Memory behind bridge", b.memory),
                ("Prefetchable memory behind bridge", b.prefetchable),
            ] {
                match window {
                    None => writeln!(f, "    {name}: [disabled]")?,
                    Some(w) => writeln!(
                        f,
                        "    {name}: {:#x}-{:#x} [size={}]",
                        w.base,
                        w.limit,
                        size(w.limit.0 - w.base.0 + 1)
                    )?,
                }
            }
        }
        if let Some(p) = self.pcie {
            writeln!(
                f,
                "    Capabilities: [{:02x}] Express {:?}, MaxPayload {} of {} bytes, MaxReadReq {} bytes",
                p.offset, p.port, p.mps, p.mps_supported, p.mrrs
            )?;
        }
        if let Some(m) = self.msix {
            writeln!(
                f,
                "    Capabilities: [{:02x}] MSI-X: Count={} Table: BAR={} offset={:08x} PBA: BAR={} offset={:08x}",
                m.offset, m.vectors, m.table.0, m.table.1, m.pba.0, m.pba.1
            )?;
        }
        if let Some(a) = self.acs {
            writeln!(
                f,
                "    Capabilities: [{:03x}] Access Control Services\n        ACSCap: {}\n        ACSCtl: {}",
                a.offset,
                acs(a.capability),
                acs(a.control),
            )?;
        }
        for &(id, offset) in &self.caps {
            if self.pcie.is_none_or(|p| p.offset != offset)
                && self.msix.is_none_or(|m| m.offset != offset)
            {
                writeln!(f, "    Capabilities: [{offset:02x}] id {id:#04x}")?;
            }
        }
        for &(id, offset) in &self.ext_caps {
            if self.acs.is_none_or(|a| a.offset != offset) {
                writeln!(f, "    Capabilities: [{offset:03x}] extended id {id:#06x}")?;
            }
        }
        Ok(())
    }
}
