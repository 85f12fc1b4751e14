//! Bringing the unit up: what it offers, interrupts, the directory (IOMMU §6.2).

use tlproof_pcie::PhysAddr;

use super::{DDTP_BARE, MsiTarget};
use crate::{
    iommu::IommuError,
    machine::Machine,
    pages::{PAGE_SIZE, PagePool},
    riscv::{
        pgtable::Mode,
        regs::{Capabilities, FCTL_BE, Regs, offset, ppn_field, ppn_page},
    },
};

pub(super) fn pick_mode(
    capabilities: Capabilities,
    wanted: Option<Mode>,
) -> Result<Mode, IommuError> {
    let offered = [
        (Mode::Sv57, Capabilities::SV57),
        (Mode::Sv48, Capabilities::SV48),
        (Mode::Sv39, Capabilities::SV39),
    ];
    offered
        .into_iter()
        .find(|&(mode, bit)| capabilities.contains(bit) && wanted.is_none_or(|w| w == mode))
        .map(|(mode, _)| mode)
        .ok_or(if wanted.is_some() {
            IommuError::Unsupported
        } else {
            IommuError::NoDevice
        })
}

pub(super) fn little_endian(
    regs: &Regs,
    m: &mut dyn Machine,
    capabilities: Capabilities,
) -> Result<(), IommuError> {
    let fctl = regs.read32(m, offset::FCTL)?;
    if fctl & FCTL_BE == 0 {
        return Ok(());
    }
    if capabilities.contains(Capabilities::END) {
        regs.write32(m, offset::FCTL, fctl & !FCTL_BE)?;
        if regs.read32(m, offset::FCTL)? & FCTL_BE == 0 {
            return Ok(());
        }
    }
    Err(IommuError::NoDevice)
}

/// Spreads the causes over the vectors (IOMMU §6.23) and fills the MSI table.
pub(super) fn interrupts(
    regs: &Regs,
    m: &mut dyn Machine,
    target: Option<MsiTarget>,
) -> Result<(), IommuError> {
    let vectors = u64::from(target.map_or(1, |t| t.vectors));
    if !(1..=4).contains(&vectors) {
        return Err(IommuError::Invalid);
    }
    for n in 0..vectors {
        let row = offset::MSI_CFG_TBL + 16 * n;
        match target {
            Some(t) => {
                regs.write64(m, row, t.addr.0)?;
                regs.write32(m, row + 8, t.data.wrapping_add(n as u32))?;
                regs.write32(m, row + 12, 0)?;
            }
            None => regs.write32(m, row + 12, 1)?,
        }
    }
    let causes = [0, 1, 3, 2];
    let icvec = causes
        .iter()
        .enumerate()
        .fold(0, |v, (i, &cause)| v | (cause % vectors) << (4 * i));
    regs.write64(m, offset::ICVEC, icvec)?;
    let back = regs.read64(m, offset::ICVEC)?;
    if (0..4).any(|i| back >> (4 * i) & 15 >= vectors) {
        return Err(IommuError::Invalid);
    }
    Ok(())
}

pub(super) fn directory_root(
    regs: &Regs,
    m: &mut dyn Machine,
    pool: &mut PagePool,
) -> Result<PhysAddr, IommuError> {
    let ddtp = regs.ddtp(m)?;
    // A page number that cannot be cleared is a table inside the unit.
    regs.write64(m, offset::DDTP, ddtp & 15)?;
    let fixed = ppn_page(regs.ddtp(m)?);
    if fixed.0 == 0 {
        return pool.alloc(m, 0).ok_or(IommuError::NoMemory);
    }
    for at in (0..PAGE_SIZE).step_by(8) {
        m.mmio_write(fixed.offset(at), 8, 0)
            .map_err(|_| IommuError::Io("directory access failed"))?;
    }
    Ok(fixed)
}

/// Turns translation on with the most levels that stick; returns their number.
pub(super) fn enable(
    regs: &Regs,
    m: &mut dyn Machine,
    root: PhysAddr,
    forced: Option<u8>,
) -> Result<u8, IommuError> {
    let levels = match forced {
        None => 3,
        Some(n @ 1..=3) => n,
        Some(_) => return Err(IommuError::Invalid),
    };
    let last = forced.unwrap_or(1);
    for levels in (last..=levels).rev() {
        let mode = u64::from(levels) + 1;
        regs.write64(m, offset::DDTP, ppn_field(root) | mode)?;
        match regs.ddtp(m)? & 15 {
            back if back == mode => return Ok(levels),
            0 | DDTP_BARE => {}
            _ => break,
        }
    }
    Err(IommuError::Invalid)
}
