//! The defects of the RTL that `tlproof mutants --rtl` builds are still ones of this RTL.

use std::process::Command;

use tlproof::rtl_mutants::defects;

#[test]
fn each_applies_and_says_what_is_wrong() {
    let all = defects().expect("the folder is there");
    assert!(all.len() >= 40);
    for defect in all {
        let (file, changed) = defect.apply().unwrap_or_else(|e| panic!("{e}"));
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let source = std::fs::read_to_string(format!("{path}/{}", file.display()));
        assert_ne!(source.expect("RTL"), changed, "{}", defect.name);
        assert!(
            defect.what.ends_with('.'),
            "{}: {}",
            defect.name,
            defect.what
        );
    }
}

#[test]
fn a_name_that_there_is_not() {
    let output = Command::new(env!("CARGO_BIN_EXE_tlproof"))
        .args(["mutants", "--rtl", "--only", "no-such-defect"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("rtl/mutants has no no-such-defect"), "{said}");
}
