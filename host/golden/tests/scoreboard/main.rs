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
