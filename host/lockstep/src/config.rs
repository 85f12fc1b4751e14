//! Which IOMMU is tested and what it chose.

use tlproof_golden::iommu::{Choices, CleanPage, WideMsiMask};

/// A configuration of the IOMMU in `rtl/iommu`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name on the command line.
    pub name: &'static str,
    /// Value of the strap that selects it.
    pub strap: u32,
    /// What it chose where the specification is open: the table in `rtl/iommu/README.md`.
    pub choices: Choices,
    /// Cycles after which an ATS invalidation has timed out for certain.
    pub ats_timeout: u32,
}

/// What all configurations have in common.
fn common() -> Choices {
    Choices {
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
                event_counters: 8,
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
                ..common()
            },
            ats_timeout: 10_000,
        }
    }
}
