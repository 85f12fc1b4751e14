//! Device and process contexts: fields and configuration checks (IOMMU §2.1, §2.2).

use super::{Capabilities, Choices, Qos, WideAddress, WideMsiMask};

const PPN: u64 = (1 << 44) - 1;

/// `iosatp.MODE`, `pdtp.MODE` and their relatives stand in bits 63:60.
const fn mode(field: u64) -> u64 {
    field >> 60
}

/// Physical address of the table that a `PPN` field in bits 43:0 names.
pub(super) const fn root(field: u64) -> u64 {
    (field & PPN) << 12
}

/// A device context as read from memory, in the order of its doublewords. Without MSI_FLAT the
/// last four are 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceContext {
    pub tc: u64,
    pub iohgatp: u64,
    pub ta: u64,
    pub fsc: u64,
    pub msi: [u64; 4],
}

impl DeviceContext {
    pub const fn new(words: &[u64; 8]) -> Self {
        let [tc, iohgatp, ta, fsc, m0, m1, m2, m3] = *words;
        Self {
            tc,
            iohgatp,
            ta,
            fsc,
            msi: [m0, m1, m2, m3],
        }
    }

    const fn tc_bit(&self, n: u32) -> bool {
        self.tc >> n & 1 == 1
    }

    pub const fn v(&self) -> bool {
        self.tc_bit(0)
    }
    pub const fn en_ats(&self) -> bool {
        self.tc_bit(1)
    }
    pub const fn en_pri(&self) -> bool {
        self.tc_bit(2)
    }
    pub const fn t2gpa(&self) -> bool {
        self.tc_bit(3)
    }
    pub const fn dtf(&self) -> bool {
        self.tc_bit(4)
    }
    pub const fn pdtv(&self) -> bool {
        self.tc_bit(5)
    }
    pub const fn prpr(&self) -> bool {
        self.tc_bit(6)
    }
    pub const fn gade(&self) -> bool {
        self.tc_bit(7)
    }
    pub const fn sade(&self) -> bool {
        self.tc_bit(8)
    }
    pub const fn dpe(&self) -> bool {
        self.tc_bit(9)
    }
    pub const fn sbe(&self) -> bool {
        self.tc_bit(10)
    }
    pub const fn sxl(&self) -> bool {
        self.tc_bit(11)
    }
    pub const fn pscid(&self) -> u32 {
        (self.ta >> 12 & 0xf_ffff) as u32
    }
    pub const fn fsc_mode(&self) -> u64 {
        mode(self.fsc)
    }
    pub const fn iohgatp_mode(&self) -> u64 {
        mode(self.iohgatp)
    }
    pub const fn msiptp_mode(&self) -> u64 {
        mode(self.msi[0])
    }
    pub const fn gscid(&self) -> u32 {
        (self.iohgatp >> 44 & 0xffff) as u32
    }
    /// `GSCID`, if the second stage is not Bare.
    pub fn active_gscid(&self) -> Option<u32> {
        (self.iohgatp_mode() != 0).then(|| self.gscid())
    }
    /// `RCID` and `MCID`.
    pub const fn qos(&self) -> Qos {
        Qos {
            rcid: (self.ta >> 40 & 0xfff) as u16,
            mcid: (self.ta >> 52) as u16,
        }
    }

    /// Whether a guest address is in a page of a virtual interrupt file (IOMMU §2.1.3.6), and if
    /// not, the logarithm of the largest block around it that holds no such page.
    pub fn interrupt_page(
        &self,
        caps: &Capabilities,
        choices: &Choices,
        gpa: u64,
    ) -> Result<u64, u32> {
        let known = match choices.wide_msi_mask {
            WideMsiMask::Masked => caps.msi_mask_bits(),
            _ => u64::MAX,
        };
        let (mask, pattern) = (self.msi[1] & known, self.msi[2] & known);
        // Bits that must agree and do not; without one above a block, the block holds a match.
        match ((gpa >> 12) ^ pattern) & !mask {
            0 => Ok(extract(gpa >> 12, mask)),
            differ => Err(12 + differ.ilog2()),
        }
    }

    /// The first of the configuration checks that the context fails, as the paragraph that
    /// demands it. `fctl` is the value of that register.
    pub fn misconfigured(
        &self,
        caps: &Capabilities,
        choices: &Choices,
        fctl: u32,
    ) -> Option<&'static str> {
        let be = fctl & 1 == 1;
        let gxl = fctl >> 2 & 1 == 1;
        let checks = [
            (self.reserved(caps), "IOMMU §2.1.4 item 1"),
            (
                !caps.ats && (self.en_ats() || self.en_pri() || self.prpr()),
                "IOMMU §2.1.4 item 2",
            ),
            (!self.en_ats() && self.t2gpa(), "IOMMU §2.1.4 item 3"),
            (!self.en_ats() && self.en_pri(), "IOMMU §2.1.4 item 4"),
            (!self.en_pri() && self.prpr(), "IOMMU §2.1.4 item 5"),
            (!caps.t2gpa && self.t2gpa(), "IOMMU §2.1.4 item 6"),
            (
                self.t2gpa() && self.iohgatp_mode() == 0,
                "IOMMU §2.1.4 item 7",
            ),
            (
                self.pdtv() && !self.pdtp_supported(caps),
                "IOMMU §2.1.4 item 8",
            ),
            (
                !self.pdtv() && !self.iosatp_encoding(),
                "IOMMU §2.1.4 item 9",
            ),
            (
                !self.pdtv() && !self.sxl() && !self.iosatp_supported(caps),
                "IOMMU §2.1.4 item 10",
            ),
            (
                !self.pdtv() && self.sxl() && self.fsc_mode() == 8 && !caps.sv32,
                "IOMMU §2.1.4 item 11",
            ),
            (!self.pdtv() && self.dpe(), "IOMMU §2.1.4 item 12"),
            (!self.iohgatp_encoding(gxl), "IOMMU §2.1.4 item 13"),
            (
                !gxl && !self.iohgatp_supported(caps),
                "IOMMU §2.1.4 item 14",
            ),
            (
                gxl && self.iohgatp_mode() == 8 && !caps.sv32x4,
                "IOMMU §2.1.4 item 15",
            ),
            (
                caps.msi_flat && self.msiptp_mode() > 1,
                "IOMMU §2.1.4 item 16",
            ),
            (
                self.iohgatp_mode() != 0 && self.iohgatp & 3 != 0,
                "IOMMU §2.1.4 item 17",
            ),
            (
                !caps.amo_hwad && (self.sade() || self.gade()),
                "IOMMU §2.1.4 item 18",
            ),
            (!caps.end && be != self.sbe(), "IOMMU §2.1.4 item 19"),
            (
                if gxl {
                    !self.sxl()
                } else {
                    self.sxl() && !choices.gxl_writable
                },
                "IOMMU §2.1.4 item 20",
            ),
            (
                caps.qosid && self.qos_too_wide(choices.qos_id_bits),
                "IOMMU §2.1.4 item 22",
            ),
            (
                choices.msi_needs_second_stage
                    && caps.msi_flat
                    && self.iohgatp_mode() == 0
                    && self.msiptp_mode() != 0,
                "IOMMU §2.1.4 (MSI page table without second stage)",
            ),
            (
                choices.wide_msi_mask == WideMsiMask::Misconfigured
                    && caps.msi_flat
                    && (self.msi[1] | self.msi[2]) & !caps.msi_mask_bits() != 0,
                "IOMMU §2.1.3.6 (width of guest addresses)",
            ),
            (
                choices.wide_address == WideAddress::Misconfigured && self.too_wide(caps),
                "IOMMU §2.1.4 note (address width)",
            ),
        ];
        checks
            .into_iter()
            .find_map(|(bad, clause)| bad.then_some(clause))
    }

    /// Reserved bits; the reserved encodings have checks of their own. Bits 31:24 of `tc` are for
    /// custom use.
    fn reserved(&self, caps: &Capabilities) -> bool {
        const TC: u64 = !0xff00_0fff;
        const TA: u64 = 0xff_0000_0fff;
        const QOS: u64 = 0xffff_ff00_0000_0000;
        const POINTER: u64 = 0xffff << 44;
        let ta = if caps.qosid { TA } else { TA | QOS };
        let msi = caps.msi_flat && {
            let [msiptp, mask, pattern, last] = self.msi;
            msiptp & POINTER != 0 || (mask | pattern) >> 52 != 0 || last != 0
        };
        self.tc & TC != 0 || self.ta & ta != 0 || self.fsc & POINTER != 0 || msi
    }

    const fn pdtp_supported(&self, caps: &Capabilities) -> bool {
        match self.fsc_mode() {
            0 => true,
            1 => caps.pd8,
            2 => caps.pd17,
            3 => caps.pd20,
            _ => false,
        }
    }

    /// Encodings 14 and 15 are for custom use; an IOMMU that knows no custom mode treats them as
    /// unsupported, which item 10 catches.
    const fn iosatp_encoding(&self) -> bool {
        if self.sxl() {
            matches!(self.fsc_mode(), 0 | 8)
        } else {
            matches!(self.fsc_mode(), 0 | 8..=10 | 14 | 15)
        }
    }

    const fn iosatp_supported(&self, caps: &Capabilities) -> bool {
        first_stage_supported(self.fsc_mode(), caps)
    }

    const fn iohgatp_encoding(&self, gxl: bool) -> bool {
        match self.iohgatp_mode() {
            0 | 8 => true,
            9 | 10 => !gxl,
            _ => false,
        }
    }

    const fn iohgatp_supported(&self, caps: &Capabilities) -> bool {
        match self.iohgatp_mode() {
            0 => true,
            8 => caps.sv39x4,
            9 => caps.sv48x4,
            10 => caps.sv57x4,
            _ => false,
        }
    }

    const fn qos_too_wide(&self, (rcid_bits, mcid_bits): (u8, u8)) -> bool {
        let rcid = self.ta >> 40 & 0xfff;
        let mcid = self.ta >> 52;
        rcid >> rcid_bits != 0 || mcid >> mcid_bits != 0
    }

    fn too_wide(&self, caps: &Capabilities) -> bool {
        let second_stage = self.iohgatp_mode() != 0;
        // With a second stage the first-stage pointers are guest addresses.
        (second_stage && !caps.addressable(root(self.iohgatp)))
            || (!second_stage && self.fsc_mode() != 0 && !caps.addressable(root(self.fsc)))
            || (self.msiptp_mode() != 0 && !caps.addressable(root(self.msi[0])))
    }
}

/// The bits of `x` under the mask, packed at the low end (IOMMU §2.3.3 step 5).
fn extract(x: u64, mut mask: u64) -> u64 {
    let (mut result, mut at) = (0, 0);
    while mask != 0 {
        result |= (x >> mask.trailing_zeros() & 1) << at;
        mask &= mask - 1;
        at += 1;
    }
    result
}

/// A process context as read from memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessContext {
    ta: u64,
    pub fsc: u64,
}

impl ProcessContext {
    pub const fn new(&[ta, fsc]: &[u64; 2]) -> Self {
        Self { ta, fsc }
    }

    pub const fn v(&self) -> bool {
        self.ta & 1 == 1
    }
    pub const fn ens(&self) -> bool {
        self.ta >> 1 & 1 == 1
    }
    pub const fn sum(&self) -> bool {
        self.ta >> 2 & 1 == 1
    }
    pub const fn pscid(&self) -> u32 {
        (self.ta >> 12 & 0xf_ffff) as u32
    }

    /// The first of the configuration checks that the context fails (IOMMU §2.2.4).
    pub fn misconfigured(
        &self,
        dc: &DeviceContext,
        caps: &Capabilities,
        choices: &Choices,
    ) -> Option<&'static str> {
        let mode = mode(self.fsc);
        let known = if dc.sxl() {
            matches!(mode, 0 | 8)
        } else {
            matches!(mode, 0 | 8..=10 | 14 | 15)
        };
        if self.ta & 0xffff_ffff_0000_0ff8 != 0 || self.fsc & (0xffff << 44) != 0 {
            Some("IOMMU §2.2.4 item 1")
        } else if !known {
            Some("IOMMU §2.2.4 item 2")
        } else if !dc.sxl() && !first_stage_supported(mode, caps) {
            Some("IOMMU §2.2.4 item 3")
        } else if dc.sxl() && mode == 8 && !caps.sv32 {
            Some("IOMMU §2.2.4 item 4")
        } else if choices.wide_address == WideAddress::Misconfigured
            && dc.iohgatp_mode() == 0
            && mode != 0
            && !caps.addressable(root(self.fsc))
        {
            Some("IOMMU §2.2.4 note (address width)")
        } else {
            None
        }
    }
}

const fn first_stage_supported(mode: u64, caps: &Capabilities) -> bool {
    match mode {
        0 => true,
        8 => caps.sv39,
        9 => caps.sv48,
        10 => caps.sv57,
        _ => false,
    }
}
