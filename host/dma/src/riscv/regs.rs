//! Registers (IOMMU §6).

use bitflags::bitflags;
use tlproof_pcie::PhysAddr;

use crate::{iommu::IommuError, machine::Machine};

/// Register offsets.
pub mod offset {
    /// Capabilities, 64 bits.
    pub const CAPABILITIES: u64 = 0;
    /// Features control, 32 bits.
    pub const FCTL: u64 = 8;
    /// Device directory table pointer, 64 bits.
    pub const DDTP: u64 = 0x10;
    /// Command queue base, 64 bits.
    pub const CQB: u64 = 0x18;
    /// Command queue head, 32 bits.
    pub const CQH: u64 = 0x20;
    /// Command queue tail, 32 bits.
    pub const CQT: u64 = 0x24;
    /// Fault queue base, 64 bits.
    pub const FQB: u64 = 0x28;
    /// Fault queue head, 32 bits.
    pub const FQH: u64 = 0x30;
    /// Fault queue tail, 32 bits.
    pub const FQT: u64 = 0x34;
    /// Command queue control and status, 32 bits.
    pub const CQCSR: u64 = 0x48;
    /// Fault queue control and status, 32 bits.
    pub const FQCSR: u64 = 0x4c;
    /// Page request queue control and status, 32 bits.
    pub const PQCSR: u64 = 0x50;
    /// Interrupt pending status, 32 bits.
    pub const IPSR: u64 = 0x54;
    /// Interrupt cause to vector, 64 bits.
    pub const ICVEC: u64 = 0x2f8;
    /// MSI configuration table: 16 bytes a vector.
    pub const MSI_CFG_TBL: u64 = 0x300;
}

bitflags! {
    /// The bits of `capabilities` that the driver looks at (IOMMU §6.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Capabilities: u64 {
        /// First-stage Sv39.
        const SV39 = 1 << 9;
        /// First-stage Sv48.
        const SV48 = 1 << 10;
        /// First-stage Sv57.
        const SV57 = 1 << 11;
        /// Page-based memory types.
        const SVPBMT = 1 << 15;
        /// Extended, 64-byte device contexts.
        const MSI_FLAT = 1 << 22;
        /// Endianness can be chosen.
        const END = 1 << 27;
        /// Invalidation of non-leaf entries.
        const NL = 1 << 42;
        /// Invalidation of a range.
        const S = 1 << 43;
        const _ = !0;
    }
}

impl Capabilities {
    /// Interrupt Generation Support: 0 MSI, 1 wire, 2 both.
    #[must_use]
    pub const fn igs(self) -> u64 {
        self.bits() >> 28 & 3
    }

    /// Physical address bits.
    #[must_use]
    pub const fn pas(self) -> u32 {
        (self.bits() >> 32 & 0x3f) as u32
    }
}

/// `fctl`: big-endian structures.
pub const FCTL_BE: u32 = 1 << 0;
/// `fctl`: wire-signalled interrupts.
pub const FCTL_WSI: u32 = 1 << 1;
/// `ddtp`: a change is under way.
pub const DDTP_BUSY: u64 = 1 << 4;
/// A queue's control register: enable and interrupt enable, with the memory fault cleared.
pub const QUEUE_START: u32 = 0x103;
/// A queue's control register: memory fault.
pub const QUEUE_MF: u32 = 1 << 8;
/// A queue's control register: the queue is on.
pub const QUEUE_ON: u32 = 1 << 16;
/// A queue's control register: a change is under way.
pub const QUEUE_BUSY: u32 = 1 << 17;
/// `cqcsr`: a command timed out.
pub const CQCSR_CMD_TO: u32 = 1 << 9;
/// `cqcsr`: illegal command.
pub const CQCSR_CMD_ILL: u32 = 1 << 10;
/// `fqcsr`: overflow.
pub const FQCSR_OF: u32 = 1 << 9;

/// Page number at bits 53:10, as `ddtp`, the queue bases, DDT entries and PTEs hold it.
#[must_use]
pub const fn ppn_field(page: PhysAddr) -> u64 {
    page.0 >> 12 << 10
}

/// The page whose number stands at bits 53:10.
#[must_use]
pub const fn ppn_page(value: u64) -> PhysAddr {
    PhysAddr((value >> 10 & ((1 << 44) - 1)) << 12)
}

/// The register page.
#[derive(Clone, Copy, Debug)]
pub struct Regs {
    /// CPU address of the page.
    pub base: PhysAddr,
    /// Cycles after which polling gives up.
    pub timeout: u64,
}

const FAILED: IommuError = IommuError::Io("register access failed");

impl Regs {
    /// Reads 64 bits.
    ///
    /// # Errors
    /// The unit did not answer.
    pub fn read64(&self, m: &mut dyn Machine, at: u64) -> Result<u64, IommuError> {
        m.mmio_read(self.base.offset(at), 8).map_err(|_| FAILED)
    }

    /// Writes 64 bits.
    ///
    /// # Errors
    /// As [`Regs::read64`].
    pub fn write64(&self, m: &mut dyn Machine, at: u64, value: u64) -> Result<(), IommuError> {
        m.mmio_write(self.base.offset(at), 8, value)
            .map_err(|_| FAILED)
    }

    /// Reads 32 bits.
    ///
    /// # Errors
    /// As [`Regs::read64`].
    pub fn read32(&self, m: &mut dyn Machine, at: u64) -> Result<u32, IommuError> {
        let value = m.mmio_read(self.base.offset(at), 4).map_err(|_| FAILED)?;
        Ok(value as u32)
    }

    /// Writes 32 bits.
    ///
    /// # Errors
    /// As [`Regs::read64`].
    pub fn write32(&self, m: &mut dyn Machine, at: u64, value: u32) -> Result<(), IommuError> {
        m.mmio_write(self.base.offset(at), 4, u64::from(value))
            .map_err(|_| FAILED)
    }

    /// Calls `step` until it gives a value; `what` names the wait in the error.
    ///
    /// # Errors
    /// [`IommuError::Timeout`], or what `step` fails with.
    pub fn poll<T>(
        &self,
        m: &mut dyn Machine,
        what: &'static str,
        mut step: impl FnMut(&mut dyn Machine) -> Result<Option<T>, IommuError>,
    ) -> Result<T, IommuError> {
        let start = m.now();
        loop {
            if let Some(done) = step(m)? {
                return Ok(done);
            }
            if m.now() - start > self.timeout {
                return Err(IommuError::Timeout(what));
            }
            m.relax();
        }
    }

    /// Waits until `ddtp` is not busy and returns it.
    ///
    /// # Errors
    /// As [`Regs::poll`].
    pub fn ddtp(&self, m: &mut dyn Machine) -> Result<u64, IommuError> {
        self.poll(m, "ddtp.busy", |m| {
            let ddtp = self.read64(m, offset::DDTP)?;
            Ok((ddtp & DDTP_BUSY == 0).then_some(ddtp))
        })
    }

    /// Waits until the queue with control register `csr` is not busy and returns the register.
    ///
    /// # Errors
    /// As [`Regs::poll`].
    pub fn queue(&self, m: &mut dyn Machine, csr: u64) -> Result<u32, IommuError> {
        self.poll(m, "queue busy", |m| {
            let value = self.read32(m, csr)?;
            Ok((value & QUEUE_BUSY == 0).then_some(value))
        })
    }
}
