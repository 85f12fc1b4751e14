//! A trace together with the machine on which it was recorded.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tlproof_pcie::{Bdf, MemoryMap, PhysAddr, Range};

use super::{Error, Info, IoMem, Pci, Trace, pci::GroupType};

/// How a machine translates DMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IommuMode {
    /// Not at all.
    None,
    /// Invalidated at unmap.
    Strict,
    /// Invalidated from a flush queue.
    Lazy,
}

/// The MSI window of x86 (Intel SDM vol. 3, 11.11.1).
const X86_MSI: Range = Range {
    base: PhysAddr(0xfee0_0000),
    last: PhysAddr(0xfeef_ffff),
};

/// A trace and what stands beside it.
pub struct Capture {
    /// `NAME` of `NAME.trace`.
    pub name: String,
    /// The trace, at its start.
    pub trace: Trace,
    /// `NAME.iomem`.
    pub iomem: IoMem,
    /// `NAME.pci`.
    pub pci: Pci,
    /// `NAME.info`; empty if there is none.
    pub info: Info,
    stem: PathBuf,
}

/// The path without `.trace` or `.trace.gz`.
fn stem(path: &Path) -> PathBuf {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let file = file.strip_suffix(".gz").unwrap_or(&file);
    let file = file.strip_suffix(".trace").unwrap_or(file);
    path.with_file_name(file)
}

/// The path with an extension after all that its name has.
fn beside(stem: &Path, extension: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Reads a sidecar; `None` if there is none.
fn sidecar(path: &Path) -> Result<Option<String>, Error> {
    match fs::read(path) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}

impl Capture {
    /// Opens a trace and reads its sidecars.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or does not parse, or if `.iomem` or `.pci` is missing: where main
    /// memory ends and whose BAR an address belongs to cannot be guessed from a trace.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let trace = Trace::open(path)?;
        let stem = stem(path);
        let required = |extension| {
            let path = beside(&stem, extension);
            match sidecar(&path)? {
                Some(text) => Ok((path, text)),
                None => Err(Error::MissingSidecar { path }),
            }
        };
        let (iomem_path, iomem) = required("iomem")?;
        let (pci_path, pci) = required("pci")?;
        let info_path = beside(&stem, "info");
        let info = sidecar(&info_path)?.unwrap_or_default();
        Ok(Self {
            name: stem
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            trace,
            iomem: IoMem::parse(&iomem_path, &iomem)?,
            pci: Pci::parse(&pci_path, &pci)?,
            info: Info::parse(&info_path, &info)?,
            stem,
        })
    }

    /// How DMA of one function is translated.
    #[must_use]
    pub fn iommu_of(&self, bdf: Bdf) -> IommuMode {
        match self.pci.get(bdf).and_then(|d| d.group_type) {
            Some(GroupType::Dma | GroupType::Blocked) => IommuMode::Strict,
            Some(GroupType::DmaFq) => IommuMode::Lazy,
            Some(GroupType::Identity) | None => IommuMode::None,
        }
    }

    /// How DMA is translated in general: lazily if any group is, else strictly if any is
    /// translated at all.
    #[must_use]
    pub fn iommu(&self) -> IommuMode {
        let modes = || self.pci.devices.iter().map(|d| self.iommu_of(d.bdf));
        if modes().any(|m| m == IommuMode::Lazy) {
            IommuMode::Lazy
        } else if modes().any(|m| m == IommuMode::Strict) {
            IommuMode::Strict
        } else {
            IommuMode::None
        }
    }

    /// The map of the machine: its main memory, the host bridge window that holds most BARs of
    /// devices with a driver, and its MSI region (without one, a usual place that is free). Bus
    /// addresses are CPU addresses.
    ///
    /// # Errors
    ///
    /// If there are more than four ranges of main memory, or no window holds a BAR.
    pub fn memory_map(&self) -> Result<MemoryMap, Error> {
        let machine = |reason: String| Error::Machine {
            path: beside(&self.stem, "iomem"),
            reason,
        };
        let dram = self.iomem.dram();
        if dram.len() > 4 {
            return Err(machine(format!(
                "{} ranges of main memory, 4 can be modelled",
                dram.len()
            )));
        }
        let listed = |reason: &str| Error::Machine {
            path: beside(&self.stem, "pci"),
            reason: reason.to_owned(),
        };
        if self.pci.devices.is_empty() {
            return Err(listed("lists no PCI function"));
        }
        let mut driven = self.pci.devices.iter().filter(|d| d.driver.is_some());
        if !driven.any(|d| d.memory_bars().next().is_some()) {
            return Err(listed("lists no function with a driver and a memory BAR"));
        }
        let bars_in = |window: &Range| {
            let devices = self.pci.devices.iter().filter(|d| d.driver.is_some());
            devices
                .flat_map(|d| d.memory_bars())
                .filter(|b| window.contains(b.range.base, b.range.size()))
                .count()
        };
        let aperture = (self.iomem.windows().into_iter())
            .filter(|window| bars_in(window) > 0)
            .max_by_key(bars_in)
            .ok_or_else(|| machine("no PCI window holds the BAR of a device".into()))?;
        let free = |msi: &Range| {
            !(dram.iter().chain([&aperture])).any(|r| r.base <= msi.last && msi.base <= r.last)
        };
        let msi = (self.info.msi().into_iter())
            .chain([MemoryMap::default().msi, X86_MSI])
            .find(free)
            .ok_or_else(|| machine("no room for the interrupt files".into()))?;
        Ok(MemoryMap {
            dram,
            aperture,
            bus_offset: 0,
            msi,
        })
    }
}
