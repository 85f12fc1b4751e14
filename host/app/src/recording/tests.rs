use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use tlproof_dma::{Attrs, Profile, SgEntry, p2pdma::HostBridgePolicy};
use tlproof_pcie::{Direction, MemoryMap, PhysAddr};

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

/// Every event of the mapping API, as the parser reads it and prints it again.
#[test]
fn every_event_of_the_api_reads_back() {
    let dir = Dir::new("every-event");
    let setup = Setup {
        coherent: [false; 3],
        policy: HostBridgePolicy::Refuse,
        ..Setup::default()
    };
    let checker = Checker::new(&setup.machine, true, None, 1);
    let mut bench = Testbench::new(&setup, checker).unwrap();
    let recording = Recording::start(&mut bench);
    let peer = bench.functions[2].engine.memory;
    let dev = bench.functions[0].dev;
    let (dma, m) = (&mut bench.dma, &mut bench.sim);
    let (both, none) = (Direction::Bidirectional, Attrs::empty());
    let ram = PhysAddr(0x9000_0000);

    let attrs = Attrs::SKIP_CPU_SYNC | Attrs::PRIVILEGED | Attrs::WEAK_ORDERING;
    let a = dma.dma_map_phys(m, dev, ram, 4096, both, attrs).unwrap();
    dma.dma_sync_single_for_cpu(m, dev, a, 4096, both);
    dma.dma_sync_single_for_device(m, dev, a, 4096, both);
    dma.dma_unmap_phys(m, dev, a, 4096, both, attrs);
    let mut list = [ram.offset(0x4000), ram.offset(0x8000)].map(|phys| SgEntry::new(phys, 0x1000));
    dma.dma_map_sg(m, dev, &mut list, both, none).unwrap();
    dma.dma_sync_sg_for_cpu(m, dev, &list, both);
    dma.dma_sync_sg_for_device(m, dev, &list, both);
    dma.dma_unmap_sg(m, dev, &mut list, both, none);
    let mut list = [SgEntry::new(peer, 4096)];
    dma.dma_map_sg(m, dev, &mut list, both, none).unwrap_err();
    let memory = dma.dma_alloc_coherent(m, dev, 8192).unwrap();
    dma.dma_free_attrs(m, dev, memory, none);
    let pages = dma.dma_alloc_pages(m, dev, 8192, both).unwrap();
    dma.dma_free_pages(m, dev, pages);
    let scattered = dma.dma_alloc_noncontiguous(m, dev, 0x3000, both, none);
    dma.dma_free_noncontiguous(m, dev, scattered.unwrap());
    dma.dma_alloc_noncontiguous(m, dev, 1 << 40, both, none)
        .unwrap_err();

    recording.write(&bench, &setup, &dir.0, "run").unwrap();
    let path = dir.0.join("run.trace");
    let text = fs::read_to_string(&path).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    let parsed = Capture::open(&path).unwrap().trace;
    let mut names = BTreeSet::new();
    for (line, parsed) in lines.zip(parsed) {
        let event = parsed.unwrap().event;
        if !event.is_probe() {
            let want = format!(" {}: {event}", event.name());
            assert!(line.ends_with(&want), "{line}\n{want}");
        }
        names.insert(event.name());
    }
    let of_the_api = Event::NAMES.iter().filter(|n| n.starts_with("dma_"));
    let missing: Vec<_> = of_the_api.filter(|n| !names.contains(**n)).collect();
    assert_eq!(missing, [&""; 0]);
}
