//! `/proc/iomem`: the physical address space of a machine.

use std::path::Path;

use tlproof_pcie::{PhysAddr, Range};

use super::{
    Error,
    cursor::{Cursor, Parsed},
    each_line,
};

/// One line of `/proc/iomem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// 0 at the top level; a resource lies in the last one above it with a smaller depth.
    pub depth: usize,
    /// The addresses.
    pub range: Range,
    /// The kernel's name for it.
    pub name: String,
}

/// The lines of `/proc/iomem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoMem {
    /// In file order, which is by address.
    pub resources: Vec<Resource>,
}

/// `  first-last : name`.
fn resource<'a>(line: &'a str) -> Parsed<'a, Resource> {
    let mut text = Cursor(line.as_bytes());
    text.spaces();
    let indent = line.len() - text.0.len();
    let base = text.hex()?;
    text.tag("-")?;
    let start = text;
    let last = text.hex()?;
    if last < base {
        return start.mismatch("a last address not below the first");
    }
    text.tag(" : ")?;
    Ok(Resource {
        depth: indent / 2,
        range: Range {
            base: PhysAddr(base),
            last: PhysAddr(last),
        },
        name: String::from_utf8_lossy(text.0).into_owned(),
    })
}

impl IoMem {
    /// Parses the text; `path` names it in errors.
    ///
    /// # Errors
    ///
    /// If a line does not parse, if there is no main memory, or if all addresses are zero, as they
    /// are for anyone but root.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let mut resources = Vec::new();
        each_line(path, text, |line| {
            resources.push(resource(line)?);
            Ok(())
        })?;
        let machine = |reason: &str| {
            Err(Error::Machine {
                path: path.into(),
                reason: reason.into(),
            })
        };
        if resources.len() > 1 && resources.iter().all(|r| r.range.last == PhysAddr(0)) {
            return machine("all addresses are zero: read /proc/iomem as root");
        }
        let map = Self { resources };
        if map.dram().is_empty() {
            return machine("no `System RAM`");
        }
        Ok(map)
    }

    /// Main memory: top-level `System RAM`, ascending, adjacent ranges joined. A reserved range
    /// that the kernel nests in main memory is main memory too.
    #[must_use]
    pub fn dram(&self) -> Vec<Range> {
        let mut dram: Vec<Range> = Vec::new();
        for r in self.top().filter(|r| r.name == "System RAM") {
            match dram.last_mut() {
                Some(before) if before.last.checked_add(1) == Some(r.range.base) => {
                    before.last = r.range.last;
                }
                _ => dram.push(r.range),
            }
        }
        dram
    }

    /// The windows of host bridges, as ACPI (`PCI Bus ssss:bb`) or a device tree (`pci@address`,
    /// `pcie@address`) names them.
    #[must_use]
    pub fn windows(&self) -> Vec<Range> {
        self.top()
            .filter(|r| {
                ["PCI Bus ", "pci@", "pcie@"]
                    .iter()
                    .any(|name| r.name.starts_with(name))
            })
            .map(|r| r.range)
            .collect()
    }

    fn top(&self) -> impl Iterator<Item = &Resource> {
        self.resources.iter().filter(|r| r.depth == 0)
    }
}
