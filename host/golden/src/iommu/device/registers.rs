//! The register map (IOMMU §5). Registers are little-endian. Of an access of 8 bytes the high half
//! comes first.

use super::{FENCE_INTERRUPT, Iommu, Queues};
use crate::iommu::SystemMemory;

/// Ends of ranges of registers.
mod at {
    pub use crate::iommu::offset::*;
    pub const DDTP_HIGH: u32 = DDTP + 4;
    pub const QUEUES_END: u32 = CQCSR - 1;
    pub const IOHPM_END: u32 = TR_REQ_IOVA - 1;
    pub const TR_END: u32 = QOSID - 1;
    pub const MSI_CFG_TBL_END: u32 = 1023;
}

/// Offsets of the four-byte words of an access in the order in which they are made. Other sizes and
/// alignments are unspecified; they touch nothing here.
fn words(offset: u32, size: u8) -> impl Iterator<Item = (u32, u32)> {
    let count = match size {
        4 | 8 if offset.is_multiple_of(u32::from(size)) => u32::from(size) / 4,
        _ => 0,
    };
    (0..count)
        .rev()
        .map(move |i| (offset.wrapping_add(4 * i), 32 * i))
}

impl<M: SystemMemory> Iommu<M> {
    /// A read of 4 or 8 bytes at a multiple of that.
    #[must_use]
    pub fn read(&self, offset: u32, size: u8) -> u64 {
        words(offset, size).fold(0, |value, (at, shift)| {
            value | u64::from(self.read_word(at)) << shift
        })
    }

    /// A write of 4 or 8 bytes at a multiple of that. What it sets going has ended on return.
    pub fn write(&mut self, offset: u32, size: u8, value: u64) {
        for (at, shift) in words(offset, size) {
            self.write_word(at, (value >> shift) as u32);
        }
        self.settle();
    }

    fn read_word(&self, offset: u32) -> u32 {
        let half = |value: u64| (value >> (8 * (offset & 4))) as u32;
        let caps = &self.translator.capabilities;
        match offset {
            0 | 4 => half(caps.bits),
            at::FCTL => self.translator.fctl,
            at::DDTP | at::DDTP_HIGH => half(self.translator.ddtp),
            at::CQB..=at::QUEUES_END => match self.queues.locate(offset) {
                _ if offset >= at::PQB && !caps.ats => 0,
                (queue, 0 | 4) => half(queue.base),
                // The command queue has its head first, the others their own.
                (queue, 8) if offset == at::CQH => queue.hardware,
                (queue, _) if offset == at::CQT => queue.software,
                (queue, 8) => queue.software,
                (queue, _) => queue.hardware,
            },
            at::CQCSR => self.queues.commands.csr(),
            at::FQCSR => self.queues.faults.csr(),
            at::PQCSR if caps.ats => self.queues.page_requests.csr(),
            at::IPSR => self.interrupts.pending,
            at::IOCOUNTOVF if caps.hpm => self.monitor.overflows(),
            at::IOCOUNTINH if caps.hpm => self.monitor.inhibit,
            at::IOHPMCYCLES..=at::IOHPM_END if caps.hpm => {
                self.monitor.read(offset - at::IOHPMCYCLES)
            }
            at::TR_REQ_IOVA..=at::TR_END if caps.dbg => {
                half(self.debug.read(offset - at::TR_REQ_IOVA))
            }
            at::QOSID if caps.qosid => self.translator.qosid,
            at::ICVEC => self.interrupts.icvec,
            at::MSI_CFG_TBL..=at::MSI_CFG_TBL_END => self.interrupts.read(offset - at::MSI_CFG_TBL),
            _ => 0,
        }
    }

    fn write_word(&mut self, offset: u32, value: u32) {
        let caps = self.translator.capabilities;
        match offset {
            at::FCTL => {
                self.translator.fctl = self.legal_fctl(value);
                // fence_w_ip is reserved without WSI (IOMMU §5.15).
                if !self.uses_wires() {
                    self.queues.commands.clear(FENCE_INTERRUPT);
                }
            }
            at::DDTP => {
                let mode = value & 0xf;
                let legal = mode <= 1 + u32::from(self.translator.choices.ddt_levels.clamp(1, 3));
                let old = self.translator.ddtp;
                // A reserved mode leaves the old one (WARL).
                let mode = if legal { mode.into() } else { old & 0xf };
                self.translator.ddtp = old >> 32 << 32 | u64::from(value & 0xffff_fc00) | mode;
            }
            at::DDTP_HIGH => {
                let low = self.translator.ddtp & 0xffff_ffff;
                self.translator.ddtp = u64::from(value & 0x3f_ffff) << 32 | low;
            }
            at::PQB..=at::QUEUES_END if !caps.ats => {}
            at::CQB..=at::QUEUES_END => match self.queues.locate_mut(offset) {
                (queue, half @ (0 | 4)) => queue.write_base(half == 4, value),
                (queue, 8) if offset != at::CQH => queue.write_index(value),
                (queue, 12) if offset == at::CQT => queue.write_index(value),
                _ => {}
            },
            at::CQCSR => self.queues.commands.write_csr(value),
            at::FQCSR => self.queues.faults.write_csr(value),
            at::PQCSR if caps.ats => self.queues.page_requests.write_csr(value),
            at::IPSR => self.interrupts.pending &= !value,
            at::IOCOUNTINH if caps.hpm => self.monitor.write_inhibit(value),
            at::IOHPMCYCLES..=at::IOHPM_END if caps.hpm => {
                self.monitor.write(offset - at::IOHPMCYCLES, value);
            }
            at::TR_REQ_IOVA..=at::TR_END if caps.dbg => {
                let go = self.debug.write(offset - at::TR_REQ_IOVA, value);
                if go {
                    self.debug_translate();
                }
            }
            at::QOSID if caps.qosid => {
                let (rcid, mcid) = self.translator.choices.qos_id_bits;
                let mask = |bits: u8| (1u32 << bits.min(12)) - 1;
                self.translator.qosid = value & (mask(rcid) | mask(mcid) << 16);
            }
            at::ICVEC => self.interrupts.write_icvec(value),
            at::MSI_CFG_TBL..=at::MSI_CFG_TBL_END => {
                if let Some(message) = self.interrupts.write(offset - at::MSI_CFG_TBL, value) {
                    self.send(message);
                }
            }
            _ => {}
        }
    }

    /// `fctl` with the bits that cannot be chosen as they are (IOMMU §5.4).
    pub(super) fn legal_fctl(&self, value: u32) -> u32 {
        let (caps, choices) = (&self.translator.capabilities, &self.translator.choices);
        let big = if caps.end {
            value & 1
        } else {
            choices.fixed_big_endian.into()
        };
        let wires = match caps.igs {
            1 => 1,
            2 => value >> 1 & 1,
            _ => 0,
        };
        let gxl = value >> 2 & u32::from(choices.gxl_writable);
        big | wires << 1 | gxl << 2
    }
}

impl Queues {
    /// The queue whose registers hold `offset`, and the offset in them.
    fn locate(&self, offset: u32) -> (&super::Queue, u32) {
        let offset = offset - at::CQB;
        let queue = match offset / 16 {
            0 => &self.commands,
            1 => &self.faults,
            _ => &self.page_requests,
        };
        (queue, offset % 16)
    }

    fn locate_mut(&mut self, offset: u32) -> (&mut super::Queue, u32) {
        let offset = offset - at::CQB;
        let queue = match offset / 16 {
            0 => &mut self.commands,
            1 => &mut self.faults,
            _ => &mut self.page_requests,
        };
        (queue, offset % 16)
    }
}
