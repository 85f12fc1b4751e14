//! Capability lists (PCIe 6.0 §7.5.3, §7.6.3).

use super::{EnumerateError, Regs, Result};
use crate::{
    Bdf,
    config::{
        ConfigSpace, STATUS_CAPABILITIES_LIST, acs_cap, cap_id, ext_cap_id, msix_cap, pcie_cap, reg,
    },
    tree::{Acs, AcsCap, MsiX, Node, PcieCap, PortType},
};

pub(super) fn capabilities(
    cs: &mut Regs<'_, impl ConfigSpace + ?Sized>,
    bdf: Bdf,
) -> Result<Vec<(u8, u16)>> {
    let mut list: Vec<(u8, u16)> = Vec::new();
    if cs.read(bdf, reg::STATUS, 2)? as u16 & STATUS_CAPABILITIES_LIST == 0 {
        return Ok(list);
    }
    let mut at = cs.read(bdf, reg::CAPABILITIES, 1)? as u16 & 0xfc;
    while at != 0 {
        if at < 0x40 || list.iter().any(|&(_, o)| o == at) {
            return Err(EnumerateError::MalformedCapabilities { bdf, offset: at });
        }
        let header = cs.read(bdf, at, 2)?;
        list.push((header as u8, at));
        at = (header >> 8) as u16 & 0xfc;
    }
    Ok(list)
}

fn extended_capabilities(
    cs: &mut Regs<'_, impl ConfigSpace + ?Sized>,
    bdf: Bdf,
) -> Result<Vec<(u16, u16)>> {
    let mut list: Vec<(u16, u16)> = Vec::new();
    let mut at = reg::EXTENDED_CAPABILITIES;
    while at != 0 {
        if at < 0x100 || list.iter().any(|&(_, o)| o == at) {
            return Err(EnumerateError::MalformedCapabilities { bdf, offset: at });
        }
        let header = cs.read(bdf, at, 4)?;
        if header == 0 || header == u32::MAX {
            break;
        }
        list.push((header as u16, at));
        at = (header >> 20) as u16 & 0xffc;
    }
    Ok(list)
}

pub(super) fn read_capabilities(
    cs: &mut Regs<'_, impl ConfigSpace + ?Sized>,
    node: &mut Node,
) -> Result<()> {
    let bdf = node.bdf;
    // A structure that does not fit before the end of its space is as bad as a wild pointer.
    let fits = |offset: u16, len: u16, end: u16| {
        if offset + len <= end {
            Ok(offset)
        } else {
            Err(EnumerateError::MalformedCapabilities { bdf, offset })
        }
    };
    let find = |id: u8| node.caps.iter().find(|c| c.0 == id).map(|c| c.1);
    if let Some(offset) = find(cap_id::PCI_EXPRESS) {
        let offset = fits(offset, 0x14, 0x100)?;
        let kind = cs.read(bdf, offset + pcie_cap::CAPABILITIES, 2)? >> 4 & 15;
        let caps = cs.read(bdf, offset + pcie_cap::DEVICE_CAPABILITIES, 4)?;
        let control = cs.read(bdf, offset + pcie_cap::DEVICE_CONTROL, 2)?;
        node.pcie = Some(PcieCap {
            offset,
            port: PortType::from_bits(kind as u8),
            // Encodings 6 and 7 are reserved.
            mps_supported: 128 << (caps & 7).min(5),
            mps: 128 << (control >> 5 & 7).min(5),
            mrrs: 128 << (control >> 12 & 7).min(5),
        });
    }
    if let Some(offset) = find(cap_id::MSI_X) {
        let offset = fits(offset, 12, 0x100)?;
        let control = cs.read(bdf, offset + msix_cap::CONTROL, 2)?;
        let mut place = |at| -> Result<(u8, u32)> {
            let v = cs.read(bdf, offset + at, 4)?;
            Ok(((v & 7) as u8, v & !7))
        };
        node.msix = Some(MsiX {
            offset,
            vectors: (control & 0x7ff) as u16 + 1,
            table: place(msix_cap::TABLE)?,
            pba: place(msix_cap::PBA)?,
        });
    }
    if node.pcie.is_some() {
        node.ext_caps = extended_capabilities(cs, bdf)?;
        if let Some(&(_, offset)) = node.ext_caps.iter().find(|c| c.0 == ext_cap_id::ACS) {
            let offset = fits(offset, 8, 0x1000)?;
            let flags = |v: u32| Acs::from_bits_truncate(v as u16);
            node.acs = Some(AcsCap {
                offset,
                capability: flags(cs.read(bdf, offset + acs_cap::CAPABILITY, 2)?),
                control: flags(cs.read(bdf, offset + acs_cap::CONTROL, 2)?),
            });
        }
    }
    Ok(())
}
