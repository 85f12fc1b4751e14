//! The device directory table (IOMMU §3.1).

use tlproof_pcie::PhysAddr;

use super::regs::{ppn_field, ppn_page};
use crate::{iommu::IommuError, machine::Machine, pages::PagePool};

const VALID: u64 = 1;

/// What the driver puts into a device context; every other field is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// `tc.V`.
    pub valid: bool,
    /// Process soft-context ID, in `ta`.
    pub pscid: u32,
    /// First-stage context: `iosatp`.
    pub fsc: u64,
}

/// Address of a device context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(PhysAddr);

impl Slot {
    /// Reads the context.
    #[must_use]
    pub fn read(self, m: &mut dyn Machine) -> Context {
        Context {
            valid: m.read_u64(self.0) & VALID != 0,
            pscid: (m.read_u64(self.0.offset(16)) >> 12) as u32 & 0xf_ffff,
            fsc: m.read_u64(self.0.offset(24)),
        }
    }

    /// Clears `tc.V` and nothing else, so that a context in use never changes under it.
    pub fn invalidate(self, m: &mut dyn Machine) {
        m.write_u64(self.0, 0);
    }

    /// Writes a context that is not valid; `tc` last.
    pub fn write(self, m: &mut dyn Machine, context: Context) {
        if mutant!(M35b) {
            m.write_u64(self.0, if context.valid { VALID } else { 0 });
        }
        m.write_u64(self.0.offset(24), context.fsc);
        m.write_u64(self.0.offset(16), u64::from(context.pscid) << 12);
        m.write_u64(self.0, if context.valid { VALID } else { 0 });
    }
}

/// The directory.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Root page.
    pub root: PhysAddr,
    /// Levels: 1, 2 or 3.
    pub levels: u8,
    /// Device contexts have 64 bytes (capabilities.MSI_FLAT).
    pub extended: bool,
}

impl Directory {
    /// Width of the index into level `level`, 0 being the leaf (IOMMU §3.1.1).
    fn split(&self, device_id: u32, level: u8) -> u64 {
        let (leaf, top) = if self.extended { (6, 15) } else { (7, 16) };
        u64::from(match level {
            0 => device_id & ((1 << leaf) - 1),
            1 => device_id >> leaf & 0x1ff,
            _ => device_id >> top,
        })
    }

    /// The context of a device, with the tables on the way to it.
    ///
    /// # Errors
    /// The device ID is too wide for the levels, or no memory.
    pub fn slot(
        &self,
        m: &mut dyn Machine,
        pool: &mut PagePool,
        device_id: u32,
    ) -> Result<Slot, IommuError> {
        if (self.levels..3).any(|level| self.split(device_id, level) != 0) {
            return Err(IommuError::Range);
        }
        let mut table = self.root;
        for level in (1..self.levels).rev() {
            let at = table.offset(self.split(device_id, level) * 8);
            let entry = m.read_u64(at);
            table = if entry & VALID != 0 {
                ppn_page(entry)
            } else {
                let page = pool.alloc(m, 0).ok_or(IommuError::NoMemory)?;
                m.write_u64(at, ppn_field(page) | VALID);
                page
            };
        }
        let bytes = if self.extended { 64 } else { 32 };
        Ok(Slot(table.offset(self.split(device_id, 0) * bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::riscv::fake::FakeMachine;
    use tlproof_pcie::Range;

    #[test]
    fn slots_follow_the_split_of_the_device_id() {
        for (extended, levels, id, leaf) in [
            (false, 1, 0x7f, 0x7f * 32),
            (true, 1, 0x3f, 0x3f * 64),
            (false, 2, 0xfffe, 0x7e * 32),
            (true, 3, 0xffff, 0x3f * 64),
            (false, 3, 0xff_ffff, 0x7f * 32),
        ] {
            let mut m = FakeMachine::new(0);
            let mut pool = PagePool::new(Range::sized(0x8000_0000, 0x10_0000));
            let root = pool.alloc(&mut m, 0).unwrap();
            let d = Directory {
                root,
                levels,
                extended,
            };
            let slot = d.slot(&mut m, &mut pool, id).unwrap();
            assert_eq!(slot.0.0 & 0xfff, leaf);
            assert_eq!(pool.used_bytes(), 4096 * u64::from(levels));
            assert_eq!(d.slot(&mut m, &mut pool, id), Ok(slot));
        }
    }

    #[test]
    fn too_wide_an_id_is_refused() {
        let mut m = FakeMachine::new(0);
        let mut pool = PagePool::new(Range::sized(0x8000_0000, 0x10_0000));
        for (extended, levels, id) in [
            (false, 1, 0x80),
            (true, 1, 0x40),
            (true, 2, 0x8000),
            (false, 2, 0x1_0000),
        ] {
            let d = Directory {
                root: PhysAddr(0x8000_0000),
                levels,
                extended,
            };
            assert_eq!(d.slot(&mut m, &mut pool, id), Err(IommuError::Range));
        }
    }
}
