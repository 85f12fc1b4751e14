//! Which IOMMU is tested and what it chose.

use tlproof_golden::iommu::{Choices, CleanPage, WalkEvents, WideAddress, WideMsiMask};

/// A configuration of the IOMMU in `rtl/iommu`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name on the command line.
    pub name: &'static str,
    /// Value of the strap that selects it.
    pub strap: u32,
    /// What it chose where the specification is open: the fields of the same names in
    /// `rtl/iommu/iommu_pkg.sv`.
    pub choices: Choices,
    /// Cycles after which an ATS invalidation has timed out for certain.
    pub ats_timeout: u32,
}

/// What all configurations have in common.
fn common() -> Choices {
    Choices {
        walk_events: WalkEvents::PerWalk,
        wide_pass_through_faults: true,
        wide_msi_mask: WideMsiMask::Used,
        msi_needs_second_stage: false,
        pdt_offset_in_iotval2: false,
        ats_access_by_request: false,
        ats_clean_page: CleanPage::ReadOnly,
        bare_size_log2: 21,
        cxl_io_for_pma: false,
        debug_execute_wins: true,
        wide_operand_illegal: true,
        absent_cache_command_illegal: true,
        fence_data_big_endian: true,
        interrupt_vectors_log2: 4,
        counter_bits: 64,
        event_counters: 8,
        ..Choices::default()
    }
}

impl Config {
    /// Everything that is implemented (`CfgFull`).
    #[must_use]
    pub fn full() -> Self {
        Self {
            name: "full",
            strap: 2,
            choices: Choices {
                gxl_writable: true,
                ..common()
            },
            ats_timeout: 10_000,
        }
    }

    /// Sv39 alone, interrupts by wire (`CfgMinimal`).
    #[must_use]
    pub fn minimal() -> Self {
        Self {
            name: "minimal",
            strap: 3,
            choices: Choices {
                mrif_big_endian: false,
                ..common()
            },
            ats_timeout: 10_000,
        }
    }

    /// First stage alone, interrupts by message (`CfgBase`).
    #[must_use]
    pub fn base() -> Self {
        Self {
            name: "base",
            strap: 0,
            choices: Choices {
                mrif_big_endian: false,
                absent_cache_command_illegal: false,
                ..common()
            },
            ats_timeout: 10_000,
        }
    }

    /// Everything but END, in a smaller address space, with the other choice wherever there is one
    /// (`CfgOther`).
    #[must_use]
    pub fn other() -> Self {
        Self {
            name: "other",
            strap: 4,
            choices: Choices {
                completer_abort: 257..=263,
                iotval_page_offset: false,
                iotval2_page_offset: false,
                pdt_offset_in_iotval2: true,
                wide_address: WideAddress::Misconfigured,
                gxl_writable: false,
                msi_needs_second_stage: true,
                wide_msi_mask: WideMsiMask::Misconfigured,
                msi_address_clipped: false,
                wide_pass_through_faults: false,
                qos_id_bits: (7, 5),
                execute_needs_read: true,
                ats_corruption_aborts: false,
                ats_clean_page: CleanPage::NoAccess,
                ats_access_by_request: true,
                bare_size_log2: 12,
                cxl_io_for_pma: true,
                debug_execute_wins: false,
                debug_superpages: false,
                walk_events: WalkEvents::PerEntry,
                wide_operand_illegal: false,
                absent_cache_command_illegal: false,
                fence_data_big_endian: false,
                mrif_big_endian: false,
                mrif_read_returns_zero: true,
                reset_mode_bare: true,
                ddt_levels: 2,
                fixed_big_endian: true,
                queue_log2_max: 9,
                interrupt_vectors_log2: 1,
                event_counters: 3,
                counter_bits: 40,
            },
            ats_timeout: 10_000,
        }
    }
}
