//! The PCI functions of a machine, as sysfs shows them.
//!
//! A function is a line `dev ssss:bb:dd.f vendor=0x… device=0x… class=0x… driver=NAME
//! iommu_group=N iommu_group_type=TYPE dma_mask_bits=N consistent_dma_mask_bits=N path=…` with `-`
//! for what does not exist, followed by its lines of the file `resource` (`  resN first last
//! flags`) and, for a provider of peer memory, `  p2pmem size=N available=N published=N`.

use std::path::Path;

use tlproof_pcie::{Bdf, PhysAddr, Range};

use super::{
    Error,
    cursor::{Cursor, Parsed},
    each_line,
    value::Device,
};

/// How an IOMMU group's default domain works (`/sys/kernel/iommu_groups/N/type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupType {
    /// `DMA`: translated, invalidated at unmap.
    Dma,
    /// `DMA-FQ`: translated, invalidated later from a flush queue.
    DmaFq,
    /// `identity`: not translated.
    Identity,
    /// `blocked`: no access.
    Blocked,
}

impl GroupType {
    /// From the kernel's name.
    pub(super) fn parse<'a>(text: &mut Cursor<'a>) -> Parsed<'a, Self> {
        let start = *text;
        match text.until(b" ") {
            b"DMA" => Ok(Self::Dma),
            b"DMA-FQ" => Ok(Self::DmaFq),
            b"identity" => Ok(Self::Identity),
            b"blocked" => Ok(Self::Blocked),
            _ => start.mismatch("DMA, DMA-FQ, identity or blocked"),
        }
    }
}

/// A line of the sysfs file `resource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// 0 to 5 the BARs, 6 the expansion ROM, 7 to 12 those of virtual functions, 13 and on the
    /// windows of a bridge.
    pub index: u32,
    /// CPU physical addresses (or I/O ports).
    pub range: Range,
    /// `IORESOURCE_*` bits.
    pub flags: u64,
}

impl Bar {
    /// Memory, not I/O ports (`IORESOURCE_MEM`).
    #[must_use]
    pub const fn is_memory(&self) -> bool {
        self.flags & 0x200 != 0
    }

    /// `IORESOURCE_PREFETCH`.
    #[must_use]
    pub const fn is_prefetchable(&self) -> bool {
        self.flags & 0x2000 != 0
    }
}

/// Memory that a function offers to its peers (sysfs `p2pmem`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P2pMem {
    /// Bytes.
    pub size: u64,
    /// Bytes not allocated when the file was read.
    pub available: u64,
    /// Whether other drivers may find it.
    pub published: bool,
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciDevice {
    /// Its name.
    pub name: Device,
    /// Its place.
    pub bdf: Bdf,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code with subclass and interface, 24 bits.
    pub class: u32,
    /// The bound driver.
    pub driver: Option<String>,
    /// IOMMU group.
    pub group: Option<u32>,
    /// Type of that group.
    pub group_type: Option<GroupType>,
    /// Bits of the streaming DMA mask.
    pub dma_mask_bits: u32,
    /// Bits of the coherent DMA mask.
    pub coherent_mask_bits: u32,
    /// The bridges above it, from the root down.
    pub above: Vec<Bdf>,
    /// Its BARs and windows.
    pub bars: Vec<Bar>,
    /// Its peer memory.
    pub p2pmem: Option<P2pMem>,
}

impl PciDevice {
    /// The bridge directly above; `None` on a root bus.
    #[must_use]
    pub fn parent(&self) -> Option<Bdf> {
        self.above.last().copied()
    }

    /// A PCI-to-PCI bridge, that is a root port or a switch port (class 06 04).
    #[must_use]
    pub const fn is_bridge(&self) -> bool {
        self.class >> 8 == 0x0604
    }

    /// The memory BARs proper, without windows.
    pub fn memory_bars(&self) -> impl Iterator<Item = &Bar> {
        self.bars.iter().filter(|b| b.index < 6 && b.is_memory())
    }
}

/// All PCI functions of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pci {
    /// In file order.
    pub devices: Vec<PciDevice>,
}

/// A number that `-` stands in for when there is none.
fn optional<'a, T>(
    text: &mut Cursor<'a>,
    parse: impl FnOnce(&mut Cursor<'a>) -> Parsed<'a, T>,
) -> Parsed<'a, Option<T>> {
    if text.0 == b"-" || text.0.starts_with(b"- ") {
        text.tag("-")?;
        return Ok(None);
    }
    parse(text).map(Some)
}

/// `=0x…` of a known width in bits.
fn id<'a, T: TryFrom<u64>>(
    text: &mut Cursor<'a>,
    tag: &'static str,
    expected: &'static str,
) -> Parsed<'a, T> {
    text.tag(tag)?;
    let start = *text;
    T::try_from(text.hex_0x()?).or_else(|_| start.mismatch(expected))
}

/// A `dev` line.
fn device<'a>(line: &'a str) -> Parsed<'a, PciDevice> {
    let mut text = Cursor(line.as_bytes());
    text.tag("dev ")?;
    let start = text;
    let name = Device::from_name(text.until(b" "));
    let Some(bdf) = name.bdf() else {
        return start.mismatch("a PCI function of segment 0, 0000:bb:dd.f");
    };
    let vendor = id(&mut text, " vendor=", "16 bits")?;
    let device = id(&mut text, " device=", "16 bits")?;
    let class = id(&mut text, " class=", "24 bits")?;
    text.tag(" driver=")?;
    let driver = optional(&mut text, |text| {
        Ok(String::from_utf8_lossy(text.until(b" ")).into_owned())
    })?;
    text.tag(" iommu_group=")?;
    let group = optional(&mut text, |text| text.decimal_as("a group number"))?;
    text.tag(" iommu_group_type=")?;
    let group_type = optional(&mut text, GroupType::parse)?;
    text.tag(" dma_mask_bits=")?;
    let dma_mask_bits = text.decimal_as("a number of bits")?;
    text.tag(" consistent_dma_mask_bits=")?;
    let coherent_mask_bits = text.decimal_as("a number of bits")?;
    text.tag(" path=")?;
    // Whatever stands before the root bus (`platform/soc/…`, `pci0000:00`) is no function.
    let mut above: Vec<Bdf> = text
        .0
        .split(|b| *b == b'/')
        .filter_map(|part| Device::from_name(part).bdf())
        .collect();
    if above.pop() != Some(bdf) {
        return text.mismatch("a path that ends in the function itself");
    }
    Ok(PciDevice {
        name,
        bdf,
        vendor,
        device,
        class,
        driver,
        group,
        group_type,
        dma_mask_bits,
        coherent_mask_bits,
        above,
        bars: Vec::new(),
        p2pmem: None,
    })
}

/// A `resN` line, after its indent.
fn bar<'a>(text: &mut Cursor<'a>) -> Parsed<'a, Bar> {
    text.tag("res")?;
    let index = text.decimal_as("a resource number")?;
    text.tag(" ")?;
    let base = text.hex_0x()?;
    text.tag(" ")?;
    let start = *text;
    let last = text.hex_0x()?;
    if last < base {
        return start.mismatch("a last address not below the first");
    }
    text.tag(" ")?;
    let flags = text.hex_0x()?;
    Ok(Bar {
        index,
        range: Range {
            base: PhysAddr(base),
            last: PhysAddr(last),
        },
        flags,
    })
}

/// A `p2pmem` line, after its indent.
fn p2pmem<'a>(text: &mut Cursor<'a>) -> Parsed<'a, P2pMem> {
    text.tag("p2pmem size=")?;
    let size = text.decimal()?;
    text.tag(" available=")?;
    let available = text.decimal()?;
    text.tag(" published=")?;
    Ok(P2pMem {
        size,
        available,
        published: text.decimal()? != 0,
    })
}

impl Pci {
    /// Parses the text; `path` names it in errors.
    ///
    /// # Errors
    ///
    /// If a line does not parse.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let mut devices: Vec<PciDevice> = Vec::new();
        each_line(path, text, |line| {
            let mut text = Cursor(line.as_bytes());
            if !text.accept("  ") {
                devices.push(device(line)?);
                return Ok(());
            }
            let Some(device) = devices.last_mut() else {
                return text.mismatch("a `dev` line before its resources");
            };
            if text.0.starts_with(b"p2pmem") {
                device.p2pmem = Some(p2pmem(&mut text)?);
            } else {
                device.bars.push(bar(&mut text)?);
            }
            text.end()
        })?;
        Ok(Self { devices })
    }

    /// One function.
    #[must_use]
    pub fn get(&self, bdf: Bdf) -> Option<&PciDevice> {
        self.devices.iter().find(|d| d.bdf == bdf)
    }

    /// The function and BAR that hold all of the `len` bytes at `addr`.
    #[must_use]
    pub fn bar_at(&self, addr: PhysAddr, len: u64) -> Option<(&PciDevice, &Bar)> {
        self.devices.iter().find_map(|d| {
            d.memory_bars()
                .find(|b| b.range.contains(addr, len))
                .map(|b| (d, b))
        })
    }
}
