//! Devices that leave, with and without mappings.

use super::*;
use crate::{debug, iommu::DomainId, testing::bench::*};

fn iommu(b: &mut Bench) -> &mut FakeIommu {
    b.dma.iommu_mut().unwrap()
}

#[test]
fn what_a_driver_leaves() {
    for attach in [Attach::Direct, Attach::Strict, Attach::Lazy] {
        let config = Config {
            debug: Some(debug::Options::default()),
            ..Config::default()
        };
        let mut b = Bench::new(config, device(), attach);
        let kept = b.map(RAM, 0x2000, ToDevice, NONE).unwrap();
        let gone = b.map(RAM + 0x4000, 64, ToDevice, NONE).unwrap();
        b.unmap(gone, 64, ToDevice, NONE);
        let left = b.dma.remove_device(&mut b.m, b.dev).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].dma, left[0].size), (DmaAddr(kept), 0x2000));
        assert_eq!((b.dma.live().count(), b.dma.draining().len()), (0, 0));
        let log = &b.dma.debug().unwrap().log;
        let numbers: Vec<_> = log.shown().iter().map(|c| c.report.number()).collect();
        assert_eq!(numbers, [2]);
        let (blocked, freed) = match attach {
            Attach::Direct => (0, 0),
            _ => (1, 1),
        };
        assert_eq!(iommu(&mut b).blocked.len(), blocked);
        assert_eq!(iommu(&mut b).freed.len(), freed);
    }
}

#[test]
fn a_driver_that_leaves_nothing() {
    let config = Config {
        debug: Some(debug::Options::default()),
        ..Config::default()
    };
    let mut b = Bench::new(config, device(), Attach::Strict);
    let a = b.map(RAM, 64, ToDevice, NONE).unwrap();
    b.unmap(a, 64, ToDevice, NONE);
    assert_eq!(b.dma.remove_device(&mut b.m, b.dev), Ok(vec![]));
    assert!(b.dma.debug().unwrap().log.shown().is_empty());
}

/// The ID of a device that is gone is one of no device, for ever.
#[test]
fn nothing_is_mapped_for_it_any_more() {
    let mut b = strict(device());
    let old = b.dev;
    b.dma.remove_device(&mut b.m, old).unwrap();
    assert_eq!(b.map(RAM, 64, ToDevice, NONE), Err(MapError::NoDevice));
    b.unmap(0xffff_f000, 64, ToDevice, NONE);
    b.dma
        .dma_sync_single_for_cpu(&mut b.m, old, DmaAddr(0xffff_f000), 64, ToDevice);
    assert_eq!(b.dma.warnings().count(WarningKind::NoDevice), 2);
    let again = b.dma.remove_device(&mut b.m, old);
    assert_eq!(again.map_err(|e| e.errno()), Err(-19));
    let with = b.dma.add_device(&mut b.m, device(), Attach::With(old));
    assert_eq!(with, Err(MapError::NoDevice));
    assert_eq!(b.dma.find_device(device().bdf), None);

    // It comes back: the first IOVA is free again in a domain of its own.
    let domain = DomainId(1);
    assert_eq!(iommu(&mut b).freed, [domain]);
    b.dev = b
        .dma
        .add_device(&mut b.m, device(), Attach::Strict)
        .unwrap();
    assert_ne!(b.dev, old);
    assert_ne!(b.dma.domain_of(b.dev), Some(domain));
    assert_eq!(b.dma.domains.len(), 1);
    assert_eq!(b.map(RAM, 64, ToDevice, NONE), Ok(0xffff_f000));
    let twice = b.dma.add_device(&mut b.m, device(), Attach::Strict);
    assert_eq!(twice.map_err(|e| e.errno()), Err(-17));
}

/// The domain of a group is there until its last device leaves, with what the others have mapped
/// and with what the first has left.
#[test]
fn the_last_device_takes_the_domain_along() {
    let mut b = strict(device());
    let other = Device::new(Bdf::new(2, 0, 0));
    let with = Attach::With(b.dev);
    let other = b.dma.add_device(&mut b.m, other, with).unwrap();
    let left = b.map(RAM, 64, ToDevice, NONE).unwrap();
    b.dma.remove_device(&mut b.m, b.dev).unwrap();
    assert!(iommu(&mut b).freed.is_empty());
    b.dev = other;
    let a = b.map(RAM + 0x1000, 64, ToDevice, NONE).unwrap();
    assert_ne!(a, left);
    assert_eq!(b.dma.remove_device(&mut b.m, other).unwrap().len(), 1);
    assert_eq!(iommu(&mut b).freed, [DomainId(1)]);
}

/// What waits for a flush is over with the domain, and no flush is sent to one that is gone.
#[test]
fn a_flush_queue_goes_with_its_domain() {
    let mut b = Bench::new(Config::default(), device(), Attach::Lazy);
    let a = b.map(RAM, 64, ToDevice, NONE).unwrap();
    b.unmap(a, 64, ToDevice, NONE);
    assert_eq!((b.dma.queued(), b.dma.draining().len()), (1, 1));
    b.dma.remove_device(&mut b.m, b.dev).unwrap();
    assert_eq!((b.dma.queued(), b.dma.draining().len()), (0, 0));
    b.m.log.borrow_mut().clear();
    b.dma.flush_queues(&mut b.m);
    assert!(b.m.log.borrow().is_empty());
}

/// An IOMMU that does not block keeps the device, so that nothing is freed that it may reach.
#[test]
fn a_device_that_cannot_be_blocked_stays() {
    let mut b = strict(device());
    let a = b.map(RAM, 64, ToDevice, NONE).unwrap();
    iommu(&mut b).stuck = true;
    let error = b.dma.remove_device(&mut b.m, b.dev).unwrap_err();
    assert_eq!(error.errno(), -110);
    assert!(iommu(&mut b).freed.is_empty());
    assert!(b.dma.describe(b.dev, DmaAddr(a)).is_some());
    iommu(&mut b).stuck = false;
    assert_eq!(b.dma.remove_device(&mut b.m, b.dev).unwrap().len(), 1);
}
