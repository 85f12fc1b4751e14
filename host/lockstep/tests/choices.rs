//! Each choice that the specification leaves open makes a difference: with one of them made otherwise
//! than the RTL made it, the golden model disagrees with it. What walk events count depends on caches and
//! is a matter of directed tests; what reads of interrupt files in memory answer is the bridge's.

use tlproof_golden::iommu::{Choices, CleanPage, WideAddress, WideMsiMask};
use tlproof_lockstep::{Config, Lockstep};
use tlproof_sim::ports::iommu_formats::IommuFormats;

type Change = fn(&mut Choices);

/// Requests within which each is noticed.
const REQUESTS: u64 = 60_000;

fn noticed(mut config: Config, change: Change) -> bool {
    change(&mut config.choices);
    match Lockstep::<IommuFormats>::new(config, 1) {
        Ok(mut lockstep) => lockstep.run(REQUESTS, |_| {}).is_err(),
        Err(_) => true,
    }
}

fn check(config: fn() -> Config, changes: &[(&str, Change)]) {
    let missed: Vec<_> = changes
        .iter()
        .filter(|(_, change)| !noticed(config(), *change))
        .map(|(name, _)| name)
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn each_choice_is_seen() {
    check(
        Config::other,
        &[
            ("completer_abort", |c| c.completer_abort = 257..=262),
            ("iotval_page_offset", |c| c.iotval_page_offset = true),
            ("iotval2_page_offset", |c| c.iotval2_page_offset = true),
            ("wide_address", |c| {
                c.wide_address = WideAddress::AccessFault
            }),
            ("msi_needs_second_stage", |c| {
                c.msi_needs_second_stage = false
            }),
            ("wide_msi_mask", |c| c.wide_msi_mask = WideMsiMask::Used),
            ("wide_msi_mask", |c| c.wide_msi_mask = WideMsiMask::Masked),
            ("msi_address_clipped", |c| c.msi_address_clipped = true),
            ("wide_pass_through_faults", |c| {
                c.wide_pass_through_faults = true
            }),
            ("qos_id_bits", |c| c.qos_id_bits = (7, 6)),
            ("qos_id_bits", |c| c.qos_id_bits = (8, 5)),
            ("execute_needs_read", |c| c.execute_needs_read = false),
            ("ats_corruption_aborts", |c| c.ats_corruption_aborts = true),
            ("ats_clean_page", |c| {
                c.ats_clean_page = CleanPage::NoAccessIfWritable
            }),
            ("ats_clean_page", |c| c.ats_clean_page = CleanPage::ReadOnly),
            ("ats_access_by_request", |c| c.ats_access_by_request = false),
            ("bare_size_log2", |c| c.bare_size_log2 = 21),
            ("cxl_io_for_pma", |c| c.cxl_io_for_pma = false),
            ("debug_execute_wins", |c| c.debug_execute_wins = true),
            ("debug_superpages", |c| c.debug_superpages = true),
            ("wide_operand_illegal", |c| c.wide_operand_illegal = true),
            ("reset_mode_bare", |c| c.reset_mode_bare = false),
            ("ddt_levels", |c| c.ddt_levels = 3),
            ("fixed_big_endian", |c| c.fixed_big_endian = false),
            ("queue_log2_max", |c| c.queue_log2_max = 10),
            ("interrupt_vectors_log2", |c| c.interrupt_vectors_log2 = 2),
            ("event_counters", |c| c.event_counters = 4),
            ("counter_bits", |c| c.counter_bits = 41),
            ("mrif_big_endian", |c| c.mrif_big_endian = true),
        ],
    );
}

#[test]
fn each_choice_of_the_full_one_is_seen() {
    check(
        Config::full,
        &[
            ("pdt_offset_in_iotval2", |c| c.pdt_offset_in_iotval2 = true),
            ("gxl_writable", |c| c.gxl_writable = false),
            ("fence_data_big_endian", |c| c.fence_data_big_endian = false),
            ("mrif_big_endian", |c| c.mrif_big_endian = false),
        ],
    );
}

#[test]
fn a_cache_that_there_is_not() {
    check(
        Config::base,
        &[("absent_cache_command_illegal", |c| {
            c.absent_cache_command_illegal = true
        })],
    );
    check(
        Config::minimal,
        &[("absent_cache_command_illegal", |c| {
            c.absent_cache_command_illegal = false
        })],
    );
}
