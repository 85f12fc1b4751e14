use tlproof_dma::Profile;
use tlproof_pcie::Direction;

use super::{
    super::{Op, PeerVia, Program, World, generate},
    compare,
};

const INTENDED: (&str, Profile) = ("intended", Profile::Intended);
const PRE_SERIES: (&str, Profile) = ("pre-series", Profile::PreSeries);

/// A write into a peer's BAR through the host bridge.
fn through_bridge() -> Program {
    Program {
        world: World::default(),
        ops: vec![
            Op::MapPeer {
                id: 0,
                dev: 0,
                peer: 2,
                offset: 0x1000,
                size: 0x1000,
                dir: Direction::FromDevice,
                via: PeerVia::Phys,
            },
            Op::Dma {
                id: 0,
                at: 0,
                len: 256,
                write: true,
                relaxed: false,
                fetch: false,
            },
            Op::Unmap { id: 0 },
        ],
    }
}

#[test]
fn a_profile_is_like_itself() {
    let c = compare(&generate(1, 40, Profile::Intended), 1, [INTENDED; 2]).unwrap();
    assert_eq!(c.calls, []);
    assert!(c.steps_with_tlps > 5, "{c}");
    assert!(c.to_string().contains("no call looks different"));
}

#[test]
fn peer_memory_through_the_bridge_was_cacheable() {
    let c = compare(&through_bridge(), 0, [INTENDED, PRE_SERIES]).unwrap();
    assert_eq!(c.calls.len(), 1, "{c}");
    assert!(c.calls[0].op.starts_with("MapPeer"), "{c}");
    let lines = c.calls[0].steps[0].lines.iter();
    let types: Vec<_> = lines.map(|l| (l.seen.memory_type, l.count)).collect();
    let n = types[0].1[0].max(types[0].1[1]);
    assert!(types.contains(&(Some("device"), [n, 0])), "{c}");
    assert!(types.contains(&(Some("write-back"), [0, n])), "{c}");
}
