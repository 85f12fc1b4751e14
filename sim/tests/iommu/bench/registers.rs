//! Registers and commands, as the tests name them.

pub use tlproof_golden::iommu::offset as reg;

/// `cqcsr` and `fqcsr`.
pub mod csr {
    pub const ENABLE: u64 = 1;
    pub const INTERRUPT: u64 = 2;
    pub const MEMORY_FAULT: u64 = 1 << 8;
    pub const OVERFLOW: u64 = 1 << 9;
    pub const TIMEOUT: u64 = 1 << 9;
    pub const ILLEGAL: u64 = 1 << 10;
    pub const ON: u64 = 1 << 16;
}

/// Commands (IOMMU §3.1).
pub mod command {
    /// Command of two doublewords.
    pub type Command = [u64; 2];

    /// IOTINVAL.VMA for an address space or all, and a page or all.
    pub fn iotinval(pscid: Option<u32>, iova: Option<u64>) -> Command {
        let pscv = pscid.map_or(0, |p| 1 << 32 | u64::from(p) << 12);
        let (av, addr) = iova.map_or((0, 0), |a| (1 << 10, a >> 12 << 10));
        [1 | av | pscv, addr]
    }

    /// IODIR.INVAL_DDT for a device or all.
    pub fn iodir(device_id: Option<u32>) -> Command {
        [3 | device_id.map_or(0, |d| 1 << 33 | u64::from(d) << 40), 0]
    }

    /// IOFENCE.C with an optional store, and PR and PW if `global`.
    pub fn fence(store: Option<(u64, u32)>, global: bool) -> Command {
        let pr_pw = if global { 3 << 12 } else { 0 };
        let (av, addr) = store.map_or((0, 0), |(a, d)| (1 << 10 | u64::from(d) << 32, a >> 2));
        [2 | av | pr_pw, addr]
    }
}
