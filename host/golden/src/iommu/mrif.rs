//! Accesses to pages of memory-resident interrupt files (AIA §9.5.2).

use super::{Capabilities, Choices, MemoryFault, Mrif, SystemMemory};

/// What a device does in such a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MrifRequest<'a> {
    /// Reads this many bytes.
    Read(usize),
    /// Writes these bytes.
    Write(&'a [u8]),
    /// Anything else: an atomic operation.
    Other,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MrifEffect {
    /// The interrupt is pending, and the notice was sent.
    Recorded {
        /// Address of the doubleword with the pending bit.
        pending: u64,
        /// The bit.
        mask: u64,
        /// Address and data of the notice, a store of four bytes in little-endian order.
        notice: (u64, u32),
    },
    /// A write that is accepted and has no effect.
    Discarded,
    /// A read that returns 0.
    Zero,
    /// Aborted as unsupported.
    Aborted,
    /// The file could not be changed: cause 264 or 271.
    Fault(u16),
    /// The interrupt is pending, and the store of the notice to this address failed: cause 273.
    NoticeFault(u64),
}

impl Mrif {
    /// Carries out an access to guest address `gpa`, which an MSI PTE in MRIF mode covers.
    pub fn access<M: SystemMemory>(
        &self,
        memory: &mut M,
        capabilities: &Capabilities,
        choices: &Choices,
        gpa: u64,
        request: MrifRequest,
    ) -> MrifEffect {
        let data = match request {
            _ if gpa & 3 != 0 => return MrifEffect::Aborted,
            MrifRequest::Read(4) if choices.mrif_read_returns_zero => return MrifEffect::Zero,
            MrifRequest::Write(&[a, b, c, d]) => [a, b, c, d],
            _ => return MrifEffect::Aborted,
        };
        let big = gpa & 4 != 0;
        let identity = if big {
            u32::from_be_bytes(data)
        } else {
            u32::from_le_bytes(data)
        };
        if gpa & 0xff8 != 0 || identity >> 11 != 0 || big && !choices.mrif_big_endian {
            return MrifEffect::Discarded;
        }
        let pending = self.address.0 + u64::from(identity / 64) * 16;
        let mask = 1 << (identity % 64);
        let set = if !capabilities.addressable(pending) {
            Err(MemoryFault::Access)
        } else if capabilities.amo_mrif {
            memory.or(pending, mask).map(drop)
        } else {
            memory
                .load(pending)
                .and_then(|old| memory.store(pending, &(old | mask).to_le_bytes()))
        };
        match set {
            Err(MemoryFault::Access) => return MrifEffect::Fault(264),
            Err(MemoryFault::Poison) => return MrifEffect::Fault(271),
            Ok(()) => {}
        }
        // The enable bit does not matter: there always is a notice.
        let notice = (self.notice_address.0, u32::from(self.notice_id));
        let sent = capabilities.addressable(notice.0)
            && memory.store(notice.0, &notice.1.to_le_bytes()).is_ok();
        if sent {
            MrifEffect::Recorded {
                pending,
                mask,
                notice,
            }
        } else {
            MrifEffect::NoticeFault(notice.0)
        }
    }
}
