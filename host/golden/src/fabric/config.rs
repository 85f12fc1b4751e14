//! Shadow of a configuration space, as far as routing reads it.

/// What routing reads of a function's configuration space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    pub space: [u32; WORDS],
}

/// Registers up to 0x110: header, PCI Express capability at 0x40, ACS at 0x100.
const WORDS: usize = 0x110 / 4;
const COMMAND: usize = 1;
const BUSES: usize = 0x18 / 4;
const DEVICE_CONTROL: usize = 0x48 / 4;
const ACS_CONTROL: usize = 0x104 / 4;
pub(super) const EGRESS_VECTOR: usize = 0x108 / 4;

/// ACS Control bits (PCIe 6.0 §7.7.11.3).
pub(super) mod acs {
    pub const SOURCE_VALIDATION: u32 = 1;
    pub const TRANSLATION_BLOCKING: u32 = 1 << 1;
    pub const REQUEST_REDIRECT: u32 = 1 << 2;
    pub const COMPLETION_REDIRECT: u32 = 1 << 3;
    pub const UPSTREAM_FORWARDING: u32 = 1 << 4;
    pub const EGRESS_CONTROL: u32 = 1 << 5;
    pub const DIRECT_TRANSLATED: u32 = 1 << 6;
}

impl Default for Config {
    fn default() -> Self {
        let mut space = [0; WORDS];
        // MRRS resets to 512 bytes (PCIe 6.0 §7.5.3.4).
        space[DEVICE_CONTROL] = 2 << 12;
        Self { space }
    }
}

impl Config {
    pub fn write(&mut self, reg: u16, size: u8, value: u32) {
        let Some(word) = self.space.get_mut(usize::from(reg) / 4) else {
            return;
        };
        let mask = if size >= 4 {
            u32::MAX
        } else {
            (1u32 << (8 * size)) - 1
        };
        let shift = 8 * u32::from(reg & 3);
        *word = *word & !(mask << shift) | (value & mask) << shift;
    }

    pub const fn memory_space(&self) -> bool {
        self.space[COMMAND] & 2 != 0
    }

    pub const fn bus_master(&self) -> bool {
        self.space[COMMAND] & 4 != 0
    }

    pub const fn secondary(&self) -> u8 {
        (self.space[BUSES] >> 8) as u8
    }

    /// Whether a bus is below this bridge; none is before enumeration.
    pub const fn holds_bus(&self, bus: u8) -> bool {
        let subordinate = (self.space[BUSES] >> 16) as u8;
        self.secondary() != 0 && bus >= self.secondary() && bus <= subordinate
    }

    /// Whether an enabled window holds the address (PCIe 6.0 §7.5.1.3.8 to 12).
    pub fn window(&self, addr: u64) -> bool {
        if !self.memory_space() {
            return false;
        }
        let m = self.space[0x20 / 4];
        let base = u64::from(m & 0xfff0) << 16;
        let limit = u64::from(m & 0xfff0_0000) | 0xf_ffff;
        if addr >= base && addr <= limit {
            return true;
        }
        let p = self.space[0x24 / 4];
        let base = u64::from(self.space[0x28 / 4]) << 32 | u64::from(p & 0xfff0) << 16;
        let limit = u64::from(self.space[0x2c / 4]) << 32 | u64::from(p & 0xfff0_0000) | 0xf_ffff;
        addr >= base && addr <= limit
    }

    pub fn bar(&self, index: usize, size: u64, addr: u64) -> bool {
        let low = u64::from(self.space[0x10 / 4 + index]);
        let base = (u64::from(self.space[0x10 / 4 + index + 1]) << 32 | low) & !(size - 1);
        self.memory_space() && addr & !(size - 1) == base
    }

    pub const fn acs(&self, bit: u32) -> bool {
        self.space[ACS_CONTROL] >> 16 & bit != 0
    }

    pub const fn max_payload(&self) -> u64 {
        128 << (self.space[DEVICE_CONTROL] >> 5 & 7)
    }

    pub const fn max_read(&self) -> u64 {
        128 << (self.space[DEVICE_CONTROL] >> 12 & 7)
    }
}
