//! PCIe.
