use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use tlproof_dma::Profile;
use tlproof_pcie::MemoryMap;

use super::*;
use crate::{
    campaign::{self, Campaign},
    checker::Checker,
    replay,
    trace::{Capture, Device, Event, IommuMode},
};

/// A directory that goes when the test ends.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tlproof-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn campaign(seed: u64, dir: &Path) -> Setup {
    let options = campaign::Options {
        seed,
        tlps: 12_000,
        profile: Profile::Intended,
        map: MemoryMap::default(),
        waves: None,
    };
    let checker = |s: &Setup| Checker::new(&s.machine, true, None, 1);
    let mut c = Campaign::new(options.clone(), checker).unwrap();
    let recording = Recording::start(&mut c.bench);
    c.run(|_| ()).unwrap();
    assert_eq!(c.bench.sim.checker.failed(), 0);
    let setup = campaign::setup(&options);
    recording.write(&c.bench, &setup, dir, "run").unwrap();
    setup
}

/// The calls of a trace, with domains numbered as they appear: a replay attaches its devices a
/// second time. What the block layer asks about a peer is no call: a replay has the answer from the
/// trace.
fn events(path: &Path) -> Vec<Event> {
    let capture = Capture::open(path).unwrap();
    let mut domains = Vec::new();
    let mut events: Vec<_> = capture.trace.map(|line| line.unwrap().event).collect();
    events.retain(|e| !matches!(e, Event::P2pState { .. }));
    for event in &mut events {
        if let Event::IovaAlloc { domain, .. }
        | Event::IovaDofree { domain, .. }
        | Event::IommuMapProt { domain, .. } = event
        {
            if !domains.contains(domain) {
                domains.push(*domain);
            }
            *domain = domains.iter().position(|d| d == domain).unwrap() as u64;
        }
    }
    events
}

/// Recorded, replayed and recorded again: the same calls with the same decisions, event by event.
/// One seed has devices that do not snoop.
#[test]
fn a_replay_repeats_the_recording() {
    let mut noncoherent = 0;
    let mut names = BTreeSet::new();
    for seed in [1, 5] {
        let dir = Dir::new(&format!("recording-{seed}"));
        let setup = campaign(seed, &dir.0);
        noncoherent += setup.coherent.iter().filter(|c| !**c).count();
        let first = dir.0.join("run.trace");
        let again = Rc::new(RefCell::new(None));
        let keep = Rc::clone(&again);
        let checker = |s: &Setup, blocking: bool| Checker::new(&s.machine, blocking, None, 1);
        let outcome = replay::replay_with(
            &first,
            &replay::Options {
                seed,
                profile: Profile::Intended,
                waves: None,
                decisions: None,
            },
            checker,
            |bench| *keep.borrow_mut() = Some(Recording::start(bench)),
            |_| (),
        )
        .unwrap();
        assert_eq!(outcome.row.failed, 0);
        assert_eq!(outcome.row.replayed, outcome.row.mappings);
        assert_eq!(outcome.row.differed, 0, "{:?}", outcome.row.differences);
        assert!(outcome.row.compared > 100);

        let recording = again.borrow_mut().take().unwrap();
        recording
            .write(&outcome.bench, &setup, &dir.0, "again")
            .unwrap();
        let (a, b) = (events(&first), events(&dir.0.join("again.trace")));
        names.extend(a.iter().map(Event::name));
        let at = a.iter().zip(&b).position(|(a, b)| a != b);
        assert_eq!(at.map(|i| (&a[i], &b[i])), None, "event {at:?}");
        assert_eq!(a.len(), b.len());
    }
    assert!(noncoherent > 0, "no seed with a device that does not snoop");
    for name in [
        "dma_map_phys",
        "dma_unmap_phys",
        "dma_map_sg",
        "dma_unmap_sg",
        "dma_alloc",
        "dma_free",
        "iova_link",
        "iova_destroy",
        "iommu_map_prot",
    ] {
        assert!(names.contains(name), "{name}");
    }
}

/// The files beside the trace say what the machine was.
#[test]
fn the_machine_is_described() {
    let dir = Dir::new("machine");
    let setup = campaign(1, &dir.0);
    let capture = Capture::open(dir.0.join("run.trace")).unwrap();
    assert_eq!(capture.iommu(), IommuMode::Strict);
    assert_eq!(capture.memory_map().unwrap(), setup.machine.map);
    assert_eq!(capture.info.lazy, Some(false));
    let own: Vec<_> = (capture.pci.devices.iter())
        .filter(|d| (d.vendor, d.device) == ENDPOINT_ID)
        .collect();
    assert_eq!(own.len(), 3);
    for (d, coherent) in own.iter().zip(setup.coherent) {
        assert_eq!(d.p2pmem.unwrap().size, 1 << 20);
        assert_eq!(d.memory_bars().count(), 2);
        assert!(d.parent().is_some());
        let noncoherent = capture.info.noncoherent.contains(&Device::pci(d.bdf));
        assert_eq!(noncoherent, !coherent);
    }
    // Two below one switch, one below another root port.
    assert_eq!(own[0].above[0], own[1].above[0]);
    assert_ne!(own[0].above[0], own[2].above[0]);
}
