//! An IOMMU of another make and its capability file, as in `docs/own-iommu.md`; and files that are not
//! its own.

use tlproof_lockstep::{Config, Lockstep};
use tlproof_sim::ports::iommu_standin::IommuStandin;

const FILE: &str = include_str!("../../../sim/tests/standin/standin.toml");

/// What a campaign with this capability file says.
fn campaign(file: &str, requests: u64) -> Result<u64, String> {
    let config = Config::parse("standin.toml", "standin", file).map_err(|e| e.to_string())?;
    let run = |config| {
        let mut lockstep = Lockstep::<IommuStandin>::new(config, 1)?;
        lockstep.run(requests, |_| {})?;
        Ok(lockstep.progress.requests)
    };
    run(config).map_err(|e: tlproof_lockstep::Failure| e.to_string())
}

#[test]
fn agrees_with_the_model_that_its_file_describes() {
    match campaign(FILE, 100_000) {
        Ok(requests) => assert!(requests >= 100_000),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn a_file_that_claims_too_much_or_too_little_is_named() {
    let table = [
        (
            "sv39 = true",
            "sv39 = true\nsv48 = true",
            "sv48 is 1 in the file, 0 in the register",
        ),
        (
            "sv39 = true",
            "sv39 = true\nats = true",
            "ats is 1 in the file, 0 in the register",
        ),
        (
            "sv39 = true",
            "",
            "sv39 is 0 in the file, 1 in the register",
        ),
        (
            "igs = 1",
            "igs = 2",
            "igs is 2 in the file, 1 in the register",
        ),
        (
            "pas = 56",
            "pas = 52",
            "pas is 52 in the file, 56 in the register",
        ),
    ];
    for (line, other, expected) in table {
        let said = campaign(&FILE.replace(line, other), 1).expect_err(other);
        assert_eq!(
            said,
            format!("the capability file standin and the RTL disagree: {expected}")
        );
    }
}

#[test]
fn a_choice_that_it_did_not_make_is_noticed() {
    let more = "ddt_levels = 1\n";
    for (line, other, says) in [
        (
            "wide_pass_through_faults = true",
            "",
            "as an IOMMU with another wide_pass_through_faults answers",
        ),
        (
            "absent_cache_command_illegal = true",
            "",
            "after a random command",
        ),
        (
            more,
            &format!("{more}wide_operand_illegal = true\n"),
            "after a random command",
        ),
        (more, "ddt_levels = 2\n", "register 16 (ddtp) after a mode"),
        (
            "queue_log2_max = 7",
            "queue_log2_max = 8",
            "register 24 (cqb)",
        ),
        (
            "interrupt_vectors_log2 = 0",
            "interrupt_vectors_log2 = 1",
            "register 760 (icvec)",
        ),
        (
            more,
            &format!("{more}execute_needs_read = true\n"),
            "as an IOMMU with another execute_needs_read answers",
        ),
        (
            more,
            &format!("{more}iotval_page_offset = false\n"),
            "memory after",
        ),
        (
            more,
            &format!("{more}bare_size_log2 = 21\n"),
            "size: expected 0x15, got 0xc",
        ),
    ] {
        let said = campaign(&FILE.replace(line, other), 20_000).expect_err(other);
        assert!(said.contains(says), "{line} became {other}: {said}");
    }
}
