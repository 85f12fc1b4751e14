use tlproof_pcie::Direction;

use super::*;

pub(super) fn options() -> Options {
    Options {
        seed: 1,
        profile: Profile::Intended,
        threads: 1,
        microseconds: 100,
        node: -1,
        mask_bits: 32,
        dir: Direction::Bidirectional,
        delay_ns: 2000,
        granule: 1,
        mode: Mode::Single,
        mmio: false,
        lazy: false,
        moves: false,
        verify: false,
        access_cycles: 4,
        waves: None,
    }
}

/// Runs a benchmark that keeps all promises.
#[track_caller]
fn good(options: Options) -> Report {
    let (report, failed) = run(options);
    assert_eq!(failed, 0);
    assert!(report.loops > 0 && report.map.average_ns > 0);
    report
}

fn run(options: Options) -> (Report, u64) {
    let checker = |s: &Setup| Checker::new(&s.machine, true, None, 100);
    let mut b = Benchmark::new(options, checker).unwrap();
    let report = b.run(|_| {}).unwrap();
    (report, b.bench().sim.checker.failed())
}

#[test]
fn the_same_again_says_the_same() {
    let o = Options {
        threads: 3,
        granule: 2,
        ..options()
    };
    assert_eq!(good(o.clone()), good(o));
}

#[test]
fn every_mode_moves_and_verifies_in_memory_and_in_a_peer() {
    for mode in [Mode::Single, Mode::Sg, Mode::Iova] {
        for mmio in [false, true] {
            let r = good(Options {
                threads: 2,
                granule: 2,
                mode,
                mmio,
                moves: true,
                verify: true,
                ..options()
            });
            assert_eq!(r.moved, r.loops * 2 * 2 * PAGE, "{mode:?} {mmio}");
            assert_eq!(r.compared, r.moved, "{mode:?} {mmio}");
        }
    }
}

#[test]
fn a_direction_decides_what_is_moved() {
    for dir in [Direction::ToDevice, Direction::FromDevice] {
        let r = good(Options {
            dir,
            moves: true,
            verify: true,
            ..options()
        });
        assert_eq!(r.moved, r.loops * PAGE);
        assert_eq!(r.compared, r.moved);
    }
}

#[test]
fn deferred_invalidation_makes_unmapping_cheap() {
    let strict = good(options());
    let lazy = good(Options {
        lazy: true,
        ..options()
    });
    assert!(lazy.unmap.average_ns < strict.unmap.average_ns);
}

#[test]
fn a_bar_mapped_as_memory_is_seen_when_data_moves() {
    let (_, failed) = run(Options {
        profile: Profile::PreSeries,
        mmio: true,
        moves: true,
        ..options()
    });
    assert!(failed > 0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let big = Options {
        granule: 1024,
        threads: 1024,
        ..options()
    };
    assert!(big.check().unwrap_err().contains("4096 MiB"));
    let bar = Options {
        granule: 257,
        mmio: true,
        ..options()
    };
    assert!(bar.check().unwrap_err().contains("256 pages"));
    assert!(options().check().is_ok());
    // A page-sized hole of IOVA space cannot take a mapping of 4 MiB.
    let narrow = Options {
        mask_bits: 20,
        granule: 1024,
        ..options()
    };
    let checker = |s: &Setup| Checker::new(&s.machine, true, None, 100);
    let mut b = Benchmark::new(narrow, checker).unwrap();
    assert!(matches!(b.run(|_| {}), Err(Error::Map(_))));
}
