//! What the specification leaves to an implementation.

use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer};

/// What becomes of an address in a device or process context that is wider than `capabilities.PAS`.
/// One in a non-leaf entry of a directory always fails when it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WideAddress {
    /// The access that uses it faults.
    AccessFault,
    /// The context that holds it is misconfigured.
    Misconfigured,
}

/// What becomes of bits of `msi_addr_mask` and `msi_addr_pattern` beyond the widest guest address
/// that any supported second stage knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WideMsiMask {
    /// They are reserved: the device context is misconfigured.
    Misconfigured,
    /// They are taken for 0.
    Masked,
    /// They take part in the comparison.
    Used,
}

/// What an ATS translation request without No Write gets from a page whose D bit is 0 where hardware
/// does not set it. IOMMU §2.6 denies single permissions; §2.1.3.1 makes a store to such a page a
/// fault, which denies all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CleanPage {
    /// No access, even if the page may not be written.
    NoAccess,
    /// No access if the page may be written; read access otherwise.
    NoAccessIfWritable,
    /// Read access.
    ReadOnly,
}

/// What events 5 to 8 of the performance monitor count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalkEvents {
    /// One for each entry that is loaded.
    PerEntry,
    /// One for each walk, however many entries it loads.
    PerWalk,
}

/// The choices that the specification leaves to an implementation, each with the paragraph that
/// allows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one field per independent choice"
)]
pub struct Choices {
    /// Causes that the bridge answers with CA; it answers all others with UR. IOMMU §7.3
    /// ("Aborting transactions") leaves the status to the bridge, and §7.4 calls CA appropriate
    /// for what detected corruption. ATS translation requests follow IOMMU §2.6 instead.
    #[serde(deserialize_with = "first_and_last")]
    pub completer_abort: RangeInclusive<u16>,
    /// Whether `iotval` holds the offset in the page; the note in IOMMU §3.2 on partitioned IOVAs
    /// allows 0 in its place.
    pub iotval_page_offset: bool,
    /// The same for the guest address in `iotval2`.
    pub iotval2_page_offset: bool,
    /// The offset of an entry in a process directory is added before the second stage, so that
    /// `iotval2` holds it; IOMMU §2.3.2 adds it after.
    pub pdt_offset_in_iotval2: bool,
    /// When addresses beyond `PAS` in a device or process context are found out (IOMMU §2.1.4 and
    /// §2.2.4, notes).
    pub wide_address: WideAddress,
    /// `fctl.GXL` is writable, which makes both values of `DC.tc.SXL` legal (IOMMU §2.1.4, §5.4).
    pub gxl_writable: bool,
    /// A device context with `msiptp.MODE` not Off while `iohgatp.MODE` is Bare is misconfigured.
    /// The setting is reserved and IOMMU §2.1.4 recommends to refuse it; if false, the MSI page
    /// table is used.
    pub msi_needs_second_stage: bool,
    /// Reserved bits of the MSI address mask and pattern (IOMMU §2.1.3.6).
    pub wide_msi_mask: WideMsiMask,
    /// An address from an MSI PTE is clipped to `PAS` bits (AIA §9.5.1); otherwise it faults.
    pub msi_address_clipped: bool,
    /// An address beyond `PAS` that no page table translates is an access fault of the IOMMU
    /// (IOMMU §5.3, `PAS`); otherwise the bridge's attribute check finds it (IOMMU §7.2).
    pub wide_pass_through_faults: bool,
    /// Bits of `RCID` and `MCID` that are supported (IOMMU §2.1.4: wider values are misconfigured).
    pub qos_id_bits: (u8, u8),
    /// A read for execute needs R beside X; the Privileged specification asks for X only.
    pub execute_needs_read: bool,
    /// Status of an ATS translation request that met corruption (causes 268 to 274): CA, or UR.
    /// IOMMU §2.6 does not list these causes.
    pub ats_corruption_aborts: bool,
    /// Access of an ATS translation request to clean pages.
    pub ats_clean_page: CleanPage,
    /// The original access type of an ATS translation request is what it asks for, write before
    /// execute before read; otherwise it is a read. Decides between causes 1, 5 and 7.
    pub ats_access_by_request: bool,
    /// Logarithm of the size that an ATS completion gives where neither stage has a page table.
    pub bare_size_log2: u8,
    /// CXL.io for memory of type PMA, which IOMMU §2.6 leaves unspecified.
    pub cxl_io_for_pma: bool,
    /// A request of the debug interface with both Exe and write is a read for execute; otherwise a
    /// write (IOMMU §5.23).
    pub debug_execute_wins: bool,
    /// `tr_response` gives the size of superpages; otherwise 4 KiB (IOMMU §5.24, note).
    pub debug_superpages: bool,
    /// What events 5 to 8 count (IOMMU §5.21 says "walks").
    pub walk_events: WalkEvents,
    /// Commands with a `DID` or `PID` beyond what the mode or the capabilities support are
    /// illegal; otherwise they do nothing more than others (IOMMU §3.1.3: "must not").
    pub wide_operand_illegal: bool,
    /// IOTINVAL.GVMA without a second stage and MSI page tables, and IODIR.INVAL_PDT without process
    /// directories, are unsupported commands; otherwise they find nothing to invalidate (IOMMU §3.1).
    pub absent_cache_command_illegal: bool,
    /// The store of IOFENCE.C is big-endian with `fctl.BE`, as the command is; otherwise it is
    /// little-endian always (IOMMU §3.1.2 does not say).
    pub fence_data_big_endian: bool,
    /// MSIs in big-endian order are stored to interrupt files (AIA §9.3.2).
    pub mrif_big_endian: bool,
    /// An aligned 32-bit read of a page in MRIF mode returns 0; otherwise it is aborted
    /// (AIA §9.5.2).
    pub mrif_read_returns_zero: bool,
    /// `ddtp.iommu_mode` after reset is Bare; otherwise Off (IOMMU §5.2).
    pub reset_mode_bare: bool,
    /// The largest directory mode that `ddtp` takes: 1 to 3 levels (IOMMU §5.5).
    pub ddt_levels: u8,
    /// Value of `fctl.BE` where `capabilities.END` is 0 (IOMMU §5.3).
    pub fixed_big_endian: bool,
    /// Logarithm of the largest queue, 1 to 32 (IOMMU §5.6, WARL).
    pub queue_log2_max: u8,
    /// Logarithm of the number of interrupt vectors, 0 to 4 (IOMMU §5.27).
    pub interrupt_vectors_log2: u8,
    /// Programmable event counters, 1 to 31 (IOMMU §5.3, `HPM`).
    pub event_counters: u8,
    /// Bits of each event counter and of the cycle counter, 32 to 64 and 32 to 63.
    pub counter_bits: u8,
}

/// A range as a list of both ends.
fn first_and_last<'de, D: Deserializer<'de>>(from: D) -> Result<RangeInclusive<u16>, D::Error> {
    <[u16; 2]>::deserialize(from).map(|[first, last]| first..=last)
}

impl Choices {
    /// Bits of an IOVA that `iotval` does not hold.
    pub(super) const fn unreported_offset(&self) -> u64 {
        if self.iotval_page_offset { 0 } else { 0xfff }
    }
}

impl Default for Choices {
    /// What the text recommends or says by itself, and otherwise what reports most.
    fn default() -> Self {
        Self {
            completer_abort: 268..=274,
            iotval_page_offset: true,
            iotval2_page_offset: true,
            pdt_offset_in_iotval2: true,
            wide_address: WideAddress::AccessFault,
            gxl_writable: false,
            msi_needs_second_stage: true,
            wide_msi_mask: WideMsiMask::Misconfigured,
            msi_address_clipped: true,
            wide_pass_through_faults: false,
            qos_id_bits: (12, 12),
            execute_needs_read: false,
            ats_corruption_aborts: true,
            ats_clean_page: CleanPage::NoAccessIfWritable,
            ats_access_by_request: true,
            bare_size_log2: 12,
            cxl_io_for_pma: false,
            debug_execute_wins: false,
            debug_superpages: true,
            walk_events: WalkEvents::PerEntry,
            wide_operand_illegal: false,
            absent_cache_command_illegal: false,
            fence_data_big_endian: false,
            mrif_big_endian: true,
            mrif_read_returns_zero: true,
            reset_mode_bare: false,
            ddt_levels: 3,
            fixed_big_endian: false,
            queue_log2_max: 32,
            interrupt_vectors_log2: 4,
            event_counters: 31,
            counter_bits: 63,
        }
    }
}
