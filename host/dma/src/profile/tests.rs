//! Each switch changes what it says. Those that are not here have their test beside the code that
//! asks for them (`sg`, `iova_state`, `xen`, `mapping`, `order`).

use super::*;
use crate::{
    Attach, Config, Device, Dma, MapError,
    iommu::IommuError,
    pages::PagePool,
    riscv::{Options, RiscvIommu, fake},
    testing::{
        bench::{Bdf, Bench, device},
        recorder::{Recorder, TABLES},
    },
};

#[test]
fn nothing_is_switched_on_by_intention() {
    assert_eq!(Profile::Intended.quirks(), Quirks::default());
    assert_ne!(Profile::Linux72.quirks(), Quirks::default());
}

/// The domain is refused with the memory types, and made without them.
#[test]
fn svpbmt_refused() {
    const SV39: u64 = 1 << 9;
    const SVPBMT: u64 = 1 << 15;
    let attach = |capabilities, svpbmt_refused| {
        let mut m = Recorder::new(capabilities);
        let options = Options {
            svpbmt_refused,
            ..Options::default()
        };
        let pool = PagePool::new(TABLES);
        let iommu = RiscvIommu::probe(&mut m, fake::BAR0, pool, &options).unwrap();
        let mut dma = Dma::new(Config::default(), Some(iommu));
        let device = Device::new(Bdf::new(1, 0, 0));
        dma.add_device(&mut m, device, Attach::Strict).map(|_| ())
    };
    let refused = MapError::Iommu(IommuError::Unsupported);
    assert_eq!(attach(SV39 | SVPBMT, true), Err(refused));
    assert_eq!(refused.errno(), -95);
    assert_eq!(attach(SV39 | SVPBMT, false), Ok(()));
    assert_eq!(attach(SV39, true), Ok(()));
}

#[test]
fn identity_only() {
    for (identity_only, translated) in [(false, true), (true, false)] {
        let config = Config {
            quirks: Quirks {
                identity_only,
                ..Quirks::default()
            },
            ..Config::default()
        };
        for attach in [Attach::Strict, Attach::Lazy] {
            let b = Bench::new(config.clone(), device(), attach);
            assert_eq!(b.dma.domain_of(b.dev).is_some(), translated);
        }
    }
}
