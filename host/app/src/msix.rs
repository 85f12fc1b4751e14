//! MSI-X of an endpoint as its driver programs it (PCIe 6.0 §6.1.4, §7.7.2).

use tlproof_dma::machine::Machine;
use tlproof_pcie::{
    Bdf, DmaAddr, PhysAddr,
    config::{AccessError, ConfigSpace, msix_cap},
    tree::Node,
};

const ENABLE: u32 = 1 << 15;
/// Bytes of a table entry: address, data, vector control.
const ENTRY: u64 = 16;
const DATA: u64 = 8;
const VECTOR_CONTROL: u64 = 12;

/// The MSI-X structures of one function.
#[derive(Clone, Copy, Debug)]
pub struct MsiX {
    bdf: Bdf,
    control: u16,
    table: PhysAddr,
    pending: PhysAddr,
    /// Entries of the table.
    pub vectors: u16,
}

impl MsiX {
    /// The structures of an enumerated function; `None` if it has none or their BAR is missing.
    #[must_use]
    pub fn of(node: &Node) -> Option<Self> {
        let cap = node.msix?;
        let place = |(bar, offset): (u8, u32)| Some(node.bar(bar)?.phys.offset(offset.into()));
        Some(Self {
            bdf: node.bdf,
            control: cap.offset + msix_cap::CONTROL,
            table: place(cap.table)?,
            pending: place(cap.pba)?,
            vectors: cap.vectors,
        })
    }

    /// Sets MSI-X Enable and clears Function Mask.
    ///
    /// # Errors
    /// When the function does not answer.
    pub fn enable(&self, cs: &mut dyn ConfigSpace) -> Result<(), AccessError> {
        cs.config_write(self.bdf, self.control, 2, ENABLE)
    }

    /// Programs and unmasks vector `n`.
    ///
    /// # Errors
    /// When the function does not answer.
    pub fn program(
        &self,
        m: &mut dyn Machine,
        n: u16,
        addr: DmaAddr,
        data: u32,
    ) -> Result<(), AccessError> {
        self.mask(m, n, true)?;
        m.mmio_write(self.entry(n), 8, addr.0)?;
        m.mmio_write(self.entry(n).offset(DATA), 4, data.into())?;
        self.mask(m, n, false)
    }

    /// Masks or unmasks vector `n`.
    ///
    /// # Errors
    /// When the function does not answer.
    pub fn mask(&self, m: &mut dyn Machine, n: u16, masked: bool) -> Result<(), AccessError> {
        m.mmio_write(self.entry(n).offset(VECTOR_CONTROL), 4, masked.into())
    }

    /// Pending bits of the first 64 vectors.
    ///
    /// # Errors
    /// When the function does not answer.
    pub fn pending(&self, m: &mut dyn Machine) -> Result<u64, AccessError> {
        m.mmio_read(self.pending, 8)
    }

    fn entry(&self, n: u16) -> PhysAddr {
        self.table.offset(ENTRY * u64::from(n))
    }
}
