//! PCIe messages of ATS and PRI, and the invalidations that devices have still to complete
//! (IOMMU §2.7, §3.1.4).

/// A "Page Request" or "Stop Marker" message (PCIe 6.0 §10.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct PageRequest {
    /// 24-bit `device_id`: segment and Requester ID.
    pub device_id: u32,
    /// PASID, if there is one.
    pub process_id: Option<u32>,
    /// Privileged Mode Requested, of the PASID prefix.
    pub privileged: bool,
    /// Execute Requested, of the PASID prefix.
    pub execute: bool,
    /// R.
    pub read: bool,
    /// W.
    pub write: bool,
    /// L: the last of its group.
    pub last: bool,
    /// Page Request Group Index, 9 bits.
    pub group: u16,
    /// Page address; the low 12 bits are not looked at.
    pub address: u64,
}

impl PageRequest {
    /// Whether this is a Stop Marker: it asks for nothing and wants no answer.
    #[must_use]
    pub const fn is_stop_marker(&self) -> bool {
        self.last && !self.read && !self.write
    }

    /// The two doublewords of its record (IOMMU §3.3).
    #[must_use]
    pub fn record(&self) -> [u64; 2] {
        let mut word = u64::from(self.device_id & 0xff_ffff) << 40;
        if let Some(process_id) = self.process_id {
            word |= u64::from(process_id & 0xf_ffff) << 12
                | 1 << 32
                | u64::from(self.privileged) << 33
                | u64::from(self.execute) << 34;
        }
        let payload = u64::from(self.read)
            | u64::from(self.write) << 1
            | u64::from(self.last) << 2
            | u64::from(self.group & 0x1ff) << 3
            | self.address & !0xfff;
        [word, payload]
    }
}

/// A PCIe message of the IOMMU for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AtsMessage {
    /// "Invalidate Request".
    Invalidate {
        /// Destination.
        device_id: u32,
        /// PASID, if there is one.
        process_id: Option<u32>,
        /// ITag.
        tag: u8,
        /// Message body.
        body: u64,
    },
    /// "Page Request Group Response".
    GroupResponse {
        /// Destination.
        device_id: u32,
        /// PASID, if there is one.
        process_id: Option<u32>,
        /// Page Request Group Index.
        group: u16,
        /// Response code.
        code: u8,
    },
}

/// Response codes (PCIe 6.0 §10.4.2.1).
pub(super) mod code {
    pub const SUCCESS: u8 = 0;
    pub const INVALID_REQUEST: u8 = 1;
    pub const FAILURE: u8 = 0xf;
}

/// An "Invalidate Request" without all of its completions.
#[derive(Clone, Copy, Debug)]
struct Open {
    device_id: u32,
    received: u8,
}

/// The 32 ITags.
#[derive(Clone, Debug, Default)]
pub(super) struct Invalidations {
    open: [Option<Open>; 32],
    /// One has timed out since the last fence that said so.
    pub timed_out: bool,
}

impl Invalidations {
    /// The lowest free tag, now in use.
    pub fn begin(&mut self, device_id: u32) -> Option<u8> {
        let tag = self.open.iter().position(Option::is_none)?;
        self.open[tag] = Some(Open {
            device_id,
            received: 0,
        });
        Some(tag as u8)
    }

    pub fn any(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// An "Invalidate Completion" with its ITag Vector and Completion Count, of which 0 means 8.
    pub fn complete(&mut self, device_id: u32, tags: u32, count: u8) {
        let wanted = if count & 7 == 0 { 8 } else { count & 7 };
        for (tag, slot) in self.open.iter_mut().enumerate() {
            if tags >> tag & 1 == 0 {
                continue;
            }
            if let Some(open) = slot
                && open.device_id == device_id
            {
                open.received += 1;
                if open.received >= wanted {
                    *slot = None;
                }
            }
        }
    }

    pub fn expire(&mut self) {
        self.timed_out |= self.any();
        self.open = [None; 32];
    }
}
