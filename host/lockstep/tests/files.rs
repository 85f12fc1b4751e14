//! Any capability file makes machines: every combination of capabilities, and choices at their limits.

use std::fmt::Write;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_golden::iommu::{Capabilities, Choices, Iommu, Outcome, offset};
use tlproof_lockstep::Config;
use tlproof_lockstep::memory::{BASE, SystemRam};
use tlproof_lockstep::world::World;

/// A file with about a third of all capabilities.
fn file(rng: &mut ChaCha8Rng) -> String {
    let mut text = "[capabilities]\n".to_owned();
    for (name, _, width) in Capabilities::FIELDS {
        let _ = match name {
            "version" | "custom" => Ok(()),
            "pas" => writeln!(text, "pas = {}", rng.random_range(32..=56)),
            _ if width == 1 => writeln!(text, "{name} = {}", rng.random_ratio(1, 3)),
            _ => writeln!(text, "{name} = {}", rng.random_range(0..=2)),
        };
    }
    text += "[choices]\n";
    for (name, values) in [
        ("gxl_writable", ["false", "true"]),
        ("fixed_big_endian", ["false", "true"]),
        ("ddt_levels", ["1", "3"]),
        ("queue_log2_max", ["1", "32"]),
        ("interrupt_vectors_log2", ["0", "4"]),
        ("event_counters", ["1", "31"]),
        ("counter_bits", ["32", "64"]),
        ("qos_id_bits", ["[0, 12]", "[12, 0]"]),
    ] {
        let _ = writeln!(text, "{name} = {}", values[rng.random_range(0..2)]);
    }
    text
}

#[test]
fn any_file_makes_machines() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut files, mut translated) = (0, 0);
    while files < 300 {
        // Those that contradict themselves are refused.
        let Ok(config) = Config::parse("a file", "any", &file(&mut rng)) else {
            continue;
        };
        files += 1;
        let (caps, choices) = (config.capabilities, config.choices);
        let mut iommu = Iommu::new(caps, choices.clone(), SystemRam::default());
        let ram = &mut iommu.memory.ram;
        let mut world = World::new(rng.random(), caps, &choices, ram, BASE + 0x4000);
        iommu.write(offset::FCTL, 4, world.fctl.into());
        assert_eq!(iommu.read(offset::FCTL, 4), world.fctl.into(), "{caps:?}");
        iommu.write(offset::DDTP, 8, world.ddtp);
        assert_eq!(iommu.read(offset::DDTP, 8), world.ddtp, "{choices:?}");
        for _ in 0..10 {
            world.change(&mut iommu.memory.ram);
            for _ in 0..20 {
                let request = world.request();
                translated +=
                    u32::from(matches!(iommu.translate(&request).outcome, Outcome::Ok(_)));
            }
        }
    }
    assert!(translated > 5_000, "{translated}");
}

const DOCUMENTATION: &str = include_str!("../../../docs/own-iommu.md");

/// Cells of the rows of the table under a heading.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = DOCUMENTATION.split_once(heading).expect("the heading");
    let section = section.split("\n#").next().unwrap_or(section);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = |row: &'static str| row.trim_matches('|').split(" | ").map(str::trim).collect();
    rows.map(cells).collect()
}

/// What stands between backticks.
fn keys(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_capability_is_documented() {
    let rows = table("### `[capabilities]`");
    let documented: Vec<&str> = rows.iter().flat_map(|row| keys(row[0])).collect();
    for (name, ..) in Capabilities::FIELDS {
        assert!(documented.contains(&name), "{name}");
    }
    assert_eq!(
        documented.len(),
        Capabilities::FIELDS.len(),
        "{documented:?}"
    );
}

/// All choices, with the values that they have if they are absent.
#[test]
fn every_choice_is_documented() {
    let mut file = "[capabilities]\npas = 56\n[choices]\n".to_owned();
    for row in table("### `[choices]`") {
        let absent = row[2].trim_matches('`');
        for key in keys(row[0]) {
            let _ = writeln!(file, "{key} = {absent}");
        }
    }
    let config = Config::parse("docs/own-iommu.md", "documented", &file);
    let config = config.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.choices, Choices::default());
    let library = include_str!("../../../docs/golden-iommu.md");
    let shown = format!("{:?}", Choices::default());
    let names: Vec<&str> = shown
        .split([' ', '{'])
        .filter_map(|word| word.strip_suffix(':'))
        .collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        assert!(file.contains(&format!("\n{name} = ")), "{name}");
        assert!(library.contains(&format!("`{name}`")), "{name}");
    }
}
