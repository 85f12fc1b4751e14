//! Any capability file makes machines: every combination of capabilities, and choices at their limits.

use std::fmt::Write;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_golden::iommu::{Capabilities, Iommu, Outcome, offset};
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
