//! What else is known of a capture: IOMMU groups with their reserved regions, and the few lines
//! of the kernel log that matter.
//!
//! The file is for people first: besides the lines below it may hold anything.
//!
//! ```text
//! iommu dmar0 version=1:0
//! iommu_group 5 type=DMA devices=0000:01:00.0
//!   reserved 0x00000000fee00000 0x00000000feefffff msi
//! dma_noncoherent 0000:01:00.0
//! swiotlb: 32768 slabs, used 0, hiwater 631
//! [    2.8] iommu: DMA domain TLB invalidation policy: strict mode
//! [    0.0] software IO TLB: mapped [mem 0x36400000-0x3a3fffff] (64MB)
//! [    0.0] Kernel command line: … swiotlb=force …
//! ```

use std::path::Path;

use tlproof_pcie::{PhysAddr, Range};

use super::{
    Error,
    cursor::{Cursor, Parsed},
    each_line,
    pci::GroupType,
    value::Device,
};

/// A region of IOVA space that must not be mapped over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The addresses.
    pub range: Range,
    /// The kernel's word for it: `direct`, `reserved`, `msi`.
    pub kind: String,
}

/// An IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub id: u32,
    /// Its default domain.
    pub kind: GroupType,
    /// Its devices.
    pub devices: Vec<Device>,
    /// Its reserved regions.
    pub reserved: Vec<Reserved>,
}

/// The parsed part of a `.info` file. All of it may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Names of the IOMMUs.
    pub iommus: Vec<String>,
    /// IOMMU groups.
    pub groups: Vec<Group>,
    /// Devices that do not snoop the CPU caches (without `dma-coherent` in the device tree).
    pub noncoherent: Vec<Device>,
    /// Whether the kernel's policy is to invalidate from a flush queue.
    pub lazy: Option<bool>,
    /// `swiotlb=force` on the kernel's command line.
    pub swiotlb_force: bool,
    /// Slots of 2 KiB in the bounce buffer.
    pub swiotlb_slabs: Option<u64>,
    /// The bounce buffer, if the kernel's log names it.
    pub swiotlb_pool: Option<Range>,
}

/// `first-last` or `first last`, both with `0x`.
fn range<'a>(text: &mut Cursor<'a>, between: &'static str) -> Parsed<'a, Range> {
    let base = text.hex_0x()?;
    text.tag(between)?;
    let start = *text;
    let last = text.hex_0x()?;
    if last < base {
        return start.mismatch("a last address not below the first");
    }
    Ok(Range {
        base: PhysAddr(base),
        last: PhysAddr(last),
    })
}

/// ` N type=T devices=A B `.
fn group<'a>(text: &mut Cursor<'a>) -> Parsed<'a, Group> {
    let id = text.decimal_as("a group number")?;
    text.tag(" type=")?;
    let kind = GroupType::parse(text)?;
    text.tag(" devices=")?;
    let devices = text
        .0
        .split(|b| *b == b' ')
        .filter(|name| !name.is_empty())
        .map(Device::from_name)
        .collect();
    Ok(Group {
        id,
        kind,
        devices,
        reserved: Vec::new(),
    })
}

impl Info {
    /// Parses the text; `path` names it in errors.
    ///
    /// # Errors
    ///
    /// If a line of a known kind does not parse.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let mut info = Self::default();
        each_line(path, text, |line| info.line(line))?;
        Ok(info)
    }

    fn line<'a>(&mut self, line: &'a str) -> Parsed<'a, ()> {
        let mut text = Cursor(line.as_bytes());
        if text.accept("iommu ") {
            let name = String::from_utf8_lossy(text.until(b" ")).into_owned();
            if !self.iommus.contains(&name) {
                self.iommus.push(name);
            }
        } else if text.accept("iommu_group ") {
            self.groups.push(group(&mut text)?);
        } else if text.accept("  reserved ") {
            let range = range(&mut text, " ")?;
            text.tag(" ")?;
            let kind = String::from_utf8_lossy(text.0).into_owned();
            let Some(group) = self.groups.last_mut() else {
                return text.mismatch("an `iommu_group` line before its reserved regions");
            };
            group.reserved.push(Reserved { range, kind });
        } else if text.accept("dma_noncoherent ") {
            self.noncoherent.push(Device::from_name(text.0));
        } else if text.accept("swiotlb: ") {
            // Without a bounce buffer the numbers are missing.
            self.swiotlb_slabs = text.decimal().ok();
        } else if line.starts_with('[') {
            self.log(line)?;
        }
        Ok(())
    }

    /// A line of the kernel's log.
    fn log<'a>(&mut self, line: &'a str) -> Parsed<'a, ()> {
        let after = |marker: &str| line.split_once(marker).map(|(_, rest)| rest);
        if let Some(policy) = after("iommu: DMA domain TLB invalidation policy: ") {
            self.lazy = match policy.split(' ').next() {
                Some("lazy") => Some(true),
                Some("strict") => Some(false),
                _ => return Cursor(policy.as_bytes()).mismatch("strict or lazy"),
            };
        } else if let Some(pool) = after("software IO TLB: mapped [mem ") {
            self.swiotlb_pool = Some(range(&mut Cursor(pool.as_bytes()), "-")?);
        } else if let Some(options) = after("ommand line: ") {
            self.swiotlb_force |= options.split(' ').any(|option| {
                option
                    .strip_prefix("swiotlb=")
                    .is_some_and(|v| v.split(',').any(|word| word == "force"))
            });
        }
        Ok(())
    }

    /// The region for MSIs, if all groups that have one agree.
    #[must_use]
    pub fn msi(&self) -> Option<Range> {
        let mut regions = self
            .groups
            .iter()
            .flat_map(|g| &g.reserved)
            .filter(|r| r.kind == "msi")
            .map(|r| r.range);
        let first = regions.next()?;
        regions.all(|r| r == first).then_some(first)
    }
}
