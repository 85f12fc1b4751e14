//! The captures that come with the program, on the machine of maps and on the simulated hardware.

use std::{fs, path::Path};

use tlproof_dma::Profile;

use super::{fake::Defect, replay};
use crate::{checker::Checker, testbench::Setup};

/// The captures that come with the program.
#[test]
fn bundled_captures() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    let Ok(files) = fs::read_dir(&dir) else {
        return;
    };
    let mut paths: Vec<_> = files
        .map(|f| f.unwrap().path())
        .filter(|p| p.to_string_lossy().contains(".trace"))
        .collect();
    paths.sort();
    for path in paths {
        let r = replay(&path, Profile::Intended, Defect::None);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        println!(
            "{name}: {:?} {:?} compared {} differed {}, endpoints {:?}",
            r.counts, r.traffic, r.compared, r.differed, r.plan.endpoints
        );
        for d in &r.differences {
            println!("  {:6} {}; {}", d.count, d.reason, d.first);
        }
        assert!(r.counts.replayed * 100 >= r.counts.mappings * 99, "{name}");
        for (what, share) in [("prot", r.prot), ("attrs", r.attrs), ("IOVA", r.iova)] {
            assert_eq!(share.agreed, share.compared, "{name}: {what}");
        }
        assert_eq!(r.prot.compared > 0, r.plan.iommu, "{name}");
        assert_eq!(r.iova.compared > 0, r.plan.iommu, "{name}");
        assert!(r.attrs.compared > 0, "{name}");
        assert_eq!(r.differed, 0, "{name}: {:?}", r.differences);
        assert_eq!(
            (r.fake.wrong, r.fake.refused, r.fake.leaked),
            (0, 0, 0),
            "{name}"
        );
        assert!(r.traffic.transfers > 100 && r.fake.compared > 10, "{name}");
    }
}

/// A bundled capture on the simulated hardware.
fn simulate(name: &str, profile: Profile) -> crate::replay::Outcome {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    let path = dir.join(format!("{name}.trace.gz"));
    let checker = |s: &Setup, blocking: bool| Checker::new(&s.machine, blocking, None, 100);
    let options = crate::replay::Options {
        seed: 1,
        profile,
        waves: None,
        decisions: None,
    };
    crate::replay::replay(&path, &options, checker, |_| {}).unwrap()
}

#[test]
fn the_hardware_keeps_the_promises_of_a_trace() {
    for name in ["nvme-p2p-bridge-iommu", "e1000e-iommu", "net-swiotlb"] {
        let o = simulate(name, Profile::Intended);
        let first = o.bench.sim.checker.violations().first();
        assert_eq!(o.row.failed, 0, "{name}: {first:?}");
        assert_eq!(
            o.row.replayed, o.row.mappings,
            "{name}: {:?}",
            o.row.differences
        );
        assert!(o.row.tlps > o.row.mappings, "{name}: {:?}", o.row);
    }
}

#[test]
fn a_bar_mapped_as_memory_is_seen_on_the_bus() {
    let o = simulate("nvme-p2p-bridge-iommu", Profile::PreSeries);
    assert!(o.row.failed > 0 && o.row.differed > 0, "{:?}", o.row);
    assert!(
        o.row.differences[0].reason.contains("BAR for memory"),
        "{:?}",
        o.row.differences
    );
}
