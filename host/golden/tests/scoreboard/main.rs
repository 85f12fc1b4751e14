//! Synthetic streams of tap events: as they should be, and with one thing wrong.

mod architecture;
mod bench;
mod completions;
mod cpu;
mod following;
mod promises;
mod requests;
mod routing;
mod streams;

use bench::*;
use streams::*;

#[test]
fn violations_are_counted_beyond_those_kept() {
    let mut b = Bench::new();
    let steps = write(0, &request(0, true, BUFFER, 1, 1));
    for _ in 0..1500 {
        b.play(&steps[1..2]);
    }
    assert_eq!(b.sb.violations().len(), 1000);
    assert_eq!(b.sb.stats().violations, 1500);
    assert!(!b.sb.violations()[999].story.is_empty());
    assert!(b.sb.violations()[0].to_string().contains("fabric judge"));
}

/// The TLP where it is wrong, then its way there, then what happened beside it; what the IOMMU
/// reads for itself has no number.
#[test]
fn a_story_begins_with_the_tlp_that_is_wrong() {
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&write(0, &request(0, true, BUFFER + 64, 1, 1)));
    let mut steps = write(0, &request(0, true, BUFFER, 1, 2));
    let mut table = at_memory(&request(0, false, BUFFER, 2, 0));
    table.from_iommu = true;
    steps.insert(2, Step::Mem(table, vec![]));
    memory(&mut steps[5]).addr.0 += 4;
    b.play(&steps);
    let v = &b.sb.violations()[0];
    let story = &v.story;
    assert!(
        story[0].starts_with("TLP 2: MWr 0x80000104") && story[0].contains(" at memory, cycle "),
        "{story:#?}"
    );
    let way: Vec<&String> = story.iter().filter(|l| l.contains("its way")).collect();
    let taps = ["ep0.tx", "rp0.rx", "rp0.translate"];
    assert_eq!(way.len(), taps.len(), "{story:#?}");
    for (line, tap) in way.iter().zip(taps) {
        assert!(line.contains(&format!("TLP 2 at {tap}: MWr 0x80000100")));
    }
    let beside = |text: &str| {
        story
            .iter()
            .any(|l| l.starts_with("around it") && l.contains(text))
    };
    assert!(beside("IOMMU at memory: MRd") && beside("TLP 1 at memory: MWr"));
    assert!(!story.iter().any(|l| l.contains("TLP 0")), "{story:#?}");
}
