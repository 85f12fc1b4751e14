use std::{cell::RefCell, rc::Rc};

use tlproof_pcie::{
    Bdf,
    Direction::{Bidirectional, FromDevice, ToDevice},
    DmaAddr, MemType, PhysAddr,
    config::{ConfigSpace, command, reg},
};

use super::*;
use crate::{
    Attach, Config, Device, DeviceId, Dma, MapError, Profile, Quirks, Route, debug,
    iommu::{IommuError, Prot},
    machine::Machine,
    p2pdma::HostBridgePolicy,
    testing::{FakeIommu, FakeMachine, Op, bench::topology, memory_bar},
};

const BAR: u64 = 0x4000_0000;
const SIZE: u64 = 0x10_0000;
const BUS: u64 = 0x1000_0000;
const OWNER: Bdf = Bdf::new(3, 0, 0);
const NEAR: Bdf = Bdf::new(4, 0, 0);
const FAR: Bdf = Bdf::new(5, 0, 0);

struct Bench {
    m: FakeMachine,
    dma: Dma<FakeIommu>,
    dev: DeviceId,
}

impl Bench {
    fn with(quirks: Quirks, client: Bdf, attach: Attach) -> Self {
        let mut m = FakeMachine::default();
        topology(&mut m, 0x0001_1ae0);
        m.config_write(OWNER, reg::COMMAND, 2, 6).unwrap();
        m.take();
        let iommu = FakeIommu::new(&m.log);
        let all_errors = debug::Options {
            all_errors: true,
            ..debug::Options::default()
        };
        let config = Config {
            quirks,
            debug: Some(all_errors),
            ..Config::default()
        };
        let mut dma = Dma::new(config, Some(iommu));
        let bars = [memory_bar(2, BAR, SIZE, BAR - BUS)];
        dma.p2pdma.init(OWNER, &bars, false).unwrap();
        let dev = dma.add_device(&mut m, Device::new(client), attach).unwrap();
        Self { m, dma, dev }
    }

    /// Numbers of the reports of dma-debug.
    fn reports(&self) -> Vec<u8> {
        let shown = self.dma.debug().unwrap().log.shown();
        shown.iter().map(|c| c.report.number()).collect()
    }

    fn new(client: Bdf, attach: Attach) -> Self {
        Self::with(Profile::Intended.quirks(), client, attach)
    }

    fn export(&mut self, ranges: &[(u64, u64)]) -> Result<VfioDmaBuf, DmaBufError> {
        VfioDmaBuf::export(&mut self.dma.p2pdma, &mut self.m, OWNER, 2, ranges)
    }

    /// A buffer and an attachment of the client.
    fn attached(&mut self, ranges: &[(u64, u64)]) -> (VfioDmaBuf, AttachmentId) {
        let mut buf = self.export(ranges).unwrap();
        let at = buf.attach(Some(self.dev), ImporterOps::PEER).unwrap();
        (buf, at)
    }

    fn map(&mut self, buf: &mut VfioDmaBuf, at: AttachmentId) -> Result<DmaSgt, DmaBufError> {
        buf.map(&mut self.dma, &mut self.m, at, Bidirectional)
    }
}

const TWO: [(u64, u64); 2] = [(0x1_0000, 0x2000), (0x4000, 0x1000)];

#[test]
fn by_bus_address_without_a_call() {
    let mut b = Bench::new(NEAR, Attach::Strict);
    let (mut buf, at) = b.attached(&TWO);
    let sgt = b.map(&mut buf, at).unwrap();
    let segment = |at: u64, len| DmaSegment {
        dma: DmaAddr(BAR - BUS + at),
        len,
    };
    assert_eq!(
        sgt.segments(),
        [segment(0x1_0000, 0x2000), segment(0x4000, 0x1000)]
    );
    assert!(sgt.is_bus_address());
    buf.unmap(&mut b.dma, &mut b.m, at, sgt).unwrap();
    assert_eq!(b.m.take(), []);
    assert_eq!(b.dma.live().count(), 0);
}

#[test]
fn through_the_bridge_in_one_iova_range() {
    let mut b = Bench::new(FAR, Attach::Strict);
    let (mut buf, at) = b.attached(&TWO);
    let sgt = buf.map(&mut b.dma, &mut b.m, at, FromDevice).unwrap();
    let [one] = sgt.segments() else {
        panic!("{sgt:?}")
    };
    assert_eq!(one.len, 0x3000);
    let start = one.dma.0;
    assert_eq!(
        b.m.take(),
        [
            Op::Map {
                iova: start,
                phys: BAR + 0x1_0000,
                size: 0x2000,
                prot: 0x12
            },
            Op::Map {
                iova: start + 0x2000,
                phys: BAR + 0x4000,
                size: 0x1000,
                prot: 0x12
            },
        ]
    );
    let promise = b.dma.describe(b.dev, DmaAddr(start + 0x2000)).unwrap();
    assert_eq!(
        (promise.route, promise.expected.mem_type),
        (Route::ThroughBridge, MemType::Device)
    );
    buf.unmap(&mut b.dma, &mut b.m, at, sgt).unwrap();
    assert!(b.dma.iommu().unwrap().pages.is_empty());
    assert_eq!(b.dma.live().count(), 0);
    assert!(b.dma.warnings().is_empty());
}

#[test]
fn through_the_bridge_range_by_range() {
    let mut b = Bench::new(FAR, Attach::Identity);
    let (mut buf, at) = b.attached(&TWO);
    let sgt = b.map(&mut buf, at).unwrap();
    let dma: Vec<u64> = sgt.segments().iter().map(|s| s.dma.0).collect();
    assert_eq!(dma, [BAR + 0x1_0000, BAR + 0x4000]);
    assert_eq!(b.dma.live().count(), 2);
    buf.unmap(&mut b.dma, &mut b.m, at, sgt).unwrap();
    assert_eq!(b.dma.live().count(), 0);
    assert!(b.dma.warnings().is_empty());
}

#[test]
fn out_of_reach() {
    let mut b = Bench::new(FAR, Attach::Strict);
    b.dma.p2pdma.policy = HostBridgePolicy::Refuse;
    let (mut buf, at) = b.attached(&TWO);
    let e = b.map(&mut buf, at).unwrap_err();
    assert_eq!((e, e.errno()), (DmaBufError::NotReachable, -22));
    // A device that is no PCI function neither.
    let mut b = Bench::new(FAR, Attach::Strict);
    let platform = Device {
        pci: false,
        ..Device::new(FAR)
    };
    b.dma.remove_device(&mut b.m, b.dev).unwrap();
    b.dev = b
        .dma
        .add_device(&mut b.m, platform, Attach::Strict)
        .unwrap();
    let (mut buf, at) = b.attached(&TWO);
    assert_eq!(b.map(&mut buf, at), Err(DmaBufError::NotReachable));
}

/// M30: every link at offset 0. One range works; the second does not fit over the first, and
/// nothing stays behind.
#[test]
fn links_at_offset_zero() {
    let quirks = Quirks {
        dmabuf_links_at_zero: true,
        ..Quirks::default()
    };
    assert!(Profile::Linux72.quirks().dmabuf_links_at_zero);
    let mut b = Bench::with(quirks, FAR, Attach::Strict);
    let (mut buf, at) = b.attached(&TWO[..1]);
    let sgt = b.map(&mut buf, at).unwrap();
    buf.unmap(&mut b.dma, &mut b.m, at, sgt).unwrap();
    let (mut buf, at) = b.attached(&TWO);
    let e = b.map(&mut buf, at).unwrap_err();
    assert_eq!(e, DmaBufError::Map(MapError::Iommu(IommuError::InUse)));
    assert_eq!(e.errno(), -98);
    assert!(b.dma.iommu().unwrap().pages.is_empty());
    assert_eq!(b.dma.live().count(), 0);
    assert_eq!(buf.mappings(), 0);
}

/// The unwinding without IOVA: what was mapped, and with the quirk also what was not.
#[test]
fn unwinding_without_iova() {
    for (all, reports) in [(false, &[][..]), (true, &[4, 4])] {
        let quirks = Quirks {
            dmabuf_unwinds_all_entries: all,
            ..Quirks::default()
        };
        let mut b = Bench::with(quirks, FAR, Attach::Direct);
        // The second range is beyond what the bus carries; the third is never tried.
        let narrow = Device {
            bus_dma_limit: BAR + 0x7fff,
            ..Device::new(FAR)
        };
        b.dma.remove_device(&mut b.m, b.dev).unwrap();
        b.dev = b.dma.add_device(&mut b.m, narrow, Attach::Direct).unwrap();
        let ranges = [(0, 0x1000), (0x8000, 0x1000), (0x4000, 0x1000)];
        let (mut buf, at) = b.attached(&ranges);
        let e = b.map(&mut buf, at).unwrap_err();
        assert!(matches!(e, DmaBufError::Map(MapError::Overflow { .. })));
        assert_eq!(b.dma.live().count(), 0);
        assert_eq!(b.reports(), reports);
    }
}

#[test]
fn entries_are_no_longer_than_32_bits() {
    for (by_entry, reports) in [(false, &[][..]), (true, &[5, 4, 4])] {
        let quirks = Quirks {
            dmabuf_unmaps_by_entry: by_entry,
            ..Quirks::default()
        };
        let mut b = Bench::with(quirks, FAR, Attach::Direct);
        let bars = [memory_bar(0, 1 << 40, 1 << 34, 1 << 41)];
        b.dma.p2pdma.init(NEAR, &bars, false).unwrap();
        let id = b.dma.p2pdma.provider(NEAR, 0).unwrap();
        let range = PhysVec {
            phys: PhysAddr(1 << 40),
            len: 1 << 33,
        };
        let sgt = b
            .dma
            .dma_buf_phys_vec_to_sgt(&mut b.m, b.dev, id, &[range], ToDevice)
            .unwrap();
        let lens: Vec<u64> = sgt.segments().iter().map(|s| s.len).collect();
        assert_eq!(lens, [0xffff_f000, 0xffff_f000, 0x2000]);
        assert_eq!(sgt.segments()[2].dma.0, (1 << 40) + 2 * 0xffff_f000);
        b.dma.dma_buf_free_sgt(&mut b.m, b.dev, sgt);
        assert_eq!(b.reports(), reports);
    }
}

#[test]
fn what_is_not_exported_or_attached() {
    let mut b = Bench::new(FAR, Attach::Strict);
    for ranges in [
        &[][..],
        &[(0, 0)],
        &[(0x800, 0x1000)],
        &[(0, 0x1800)],
        &[(SIZE, 0x1000)],
        &[(0x1000, SIZE)],
        &[(0, 0x1000), (!0xfff, 0x1000)],
    ] {
        assert_eq!(b.export(ranges).err(), Some(DmaBufError::Range));
    }
    let other = VfioDmaBuf::export(&mut b.dma.p2pdma, &mut b.m, NEAR, 2, &TWO);
    assert!(matches!(other, Err(DmaBufError::P2p(_))));
    let mut buf = b.export(&TWO).unwrap();
    for (allow_peer2peer, revocable) in [(false, true), (true, false)] {
        let ops = ImporterOps {
            allow_peer2peer,
            revocable,
        };
        let e = buf.attach(Some(b.dev), ops).unwrap_err();
        assert_eq!(e.errno(), -95);
    }
    let at = buf.attach(Some(b.dev), ImporterOps::PEER).unwrap();
    // An attachment of another buffer is none of this one.
    let (mut second, foreign) = b.attached(&TWO);
    assert_eq!(b.map(&mut buf, foreign), Err(DmaBufError::NoAttachment));
    let sgt = b.map(&mut second, foreign).unwrap();
    assert_eq!(second.detach(foreign), Err(DmaBufError::StillMapped(1)));
    second.unmap(&mut b.dma, &mut b.m, foreign, sgt).unwrap();
    second.detach(foreign).unwrap();
    assert_eq!(b.map(&mut second, foreign), Err(DmaBufError::NoAttachment));
    buf.detach(at).unwrap();
    // A function that decodes no memory exports what nobody can use.
    b.m.config_write(OWNER, reg::COMMAND, 2, 4).unwrap();
    let mut dark = b.export(&TWO).unwrap();
    assert!(dark.is_revoked());
    let e = dark.attach(Some(b.dev), ImporterOps::PEER).unwrap_err();
    assert_eq!((e, e.errno()), (DmaBufError::Revoked, -19));
}

/// An importer that writes down when it is called.
struct Driver {
    at: AttachmentId,
    sgt: Option<DmaSgt>,
    /// Accesses never end.
    stuck: bool,
    /// Mappings are kept.
    keeps: bool,
    calls: Rc<RefCell<Vec<&'static str>>>,
}

impl Importer<FakeIommu> for Driver {
    fn invalidate_mappings(
        &mut self,
        _: &mut Dma<FakeIommu>,
        _: &mut dyn Machine,
        buf: &VfioDmaBuf,
    ) {
        assert!(buf.is_revoked());
        self.calls.borrow_mut().push("invalidate");
    }

    fn wait_fences(&mut self, _: &mut dyn Machine) -> bool {
        self.calls.borrow_mut().push("wait");
        !self.stuck
    }

    fn unmap(&mut self, dma: &mut Dma<FakeIommu>, m: &mut dyn Machine, buf: &mut VfioDmaBuf) {
        self.calls.borrow_mut().push("unmap");
        if !self.keeps
            && let Some(sgt) = self.sgt.take()
        {
            buf.unmap(dma, m, self.at, sgt).unwrap();
        }
    }
}

fn two_drivers(b: &mut Bench, buf: &mut VfioDmaBuf) -> [Driver; 2] {
    let calls = Rc::default();
    std::array::from_fn(|_| {
        let at = buf.attach(Some(b.dev), ImporterOps::PEER).unwrap();
        let sgt = Some(b.map(buf, at).unwrap());
        Driver {
            at,
            sgt,
            stuck: false,
            keeps: false,
            calls: Rc::clone(&calls),
        }
    })
}

/// B10: revoked, importers invalidated, fences waited for, mappings destroyed, BAR disabled.
#[test]
fn revocation_in_order() {
    let mut b = Bench::new(FAR, Attach::Strict);
    let mut buf = b.export(&TWO).unwrap();
    let [mut x, mut y] = two_drivers(&mut b, &mut buf);
    let calls = Rc::clone(&x.calls);
    b.m.take();
    buf.revoke(&mut b.dma, &mut b.m, &mut [&mut x, &mut y])
        .unwrap();
    assert_eq!(
        calls.borrow()[..],
        ["invalidate", "invalidate", "wait", "wait", "unmap", "unmap"]
    );
    let ops = b.m.take();
    assert!(
        matches!(
            ops[..],
            [
                Op::Unmap { size: 0x3000, .. },
                Op::Sync,
                Op::Unmap { size: 0x3000, .. },
                Op::Sync,
                Op::ConfigWrite(OWNER, reg::COMMAND, 4),
            ]
        ),
        "{ops:?}"
    );
    assert_eq!(b.dma.live().count(), 0);
    assert_eq!(b.map(&mut buf, x.at), Err(DmaBufError::Revoked));
    // Importers map anew when it is over.
    buf.restore(&mut b.m).unwrap();
    let sgt = b.map(&mut buf, x.at).unwrap();
    buf.unmap(&mut b.dma, &mut b.m, x.at, sgt).unwrap();
}

/// While an importer holds on, the BAR is not switched off under it.
#[test]
fn revocation_waits_for_importers() {
    for (stuck, keeps, want) in [
        (true, false, DmaBufError::Fence),
        (false, true, DmaBufError::StillMapped(1)),
    ] {
        let mut b = Bench::new(FAR, Attach::Strict);
        let mut buf = b.export(&TWO).unwrap();
        let [mut x, mut y] = two_drivers(&mut b, &mut buf);
        (y.stuck, y.keeps) = (stuck, keeps);
        let revoked = buf.revoke(&mut b.dma, &mut b.m, &mut [&mut x, &mut y]);
        assert_eq!(revoked, Err(want));
        assert!(buf.is_revoked());
        let command_register = b.m.config_read(OWNER, reg::COMMAND, 2).unwrap();
        assert_ne!(command_register & u32::from(command::MEMORY_SPACE), 0);
    }
}

#[test]
fn imported_into_an_address_space() {
    const IOVA: u64 = 0x1000_0000;
    let mut b = Bench::new(FAR, Attach::Strict);
    let mut ioas = Ioas::new(&mut b.dma, &mut b.m).unwrap();
    ioas.attach(&mut b.dma, &mut b.m, FAR).unwrap();
    let mut one = b.export(&TWO[..1]).unwrap();
    let mut two = b.export(&TWO).unwrap();
    let mut import = |b: &mut Bench, buf: &mut VfioDmaBuf, iova, prot| {
        ioas.map_dmabuf(&mut b.dma, &mut b.m, buf, iova, prot)
    };
    // The user's permission, device memory, never cacheable.
    for (at, prot, want) in [
        (0, Prot::READ, 0x11),
        (0x1_0000, Prot::READ | Prot::WRITE, 0x13),
        (0x2_0000, Prot::WRITE, 0x12),
    ] {
        b.m.take();
        assert_eq!(import(&mut b, &mut one, IOVA + at, prot), Ok(0x2000));
        assert_eq!(
            b.m.take(),
            [Op::Map {
                iova: IOVA + at,
                phys: BAR + 0x1_0000,
                size: 0x2000,
                prot: want
            }]
        );
    }
    let bad = [Prot::empty(), Prot::READ | Prot::CACHE, Prot::MMIO];
    for prot in bad {
        let e = import(&mut b, &mut one, IOVA + 0x4_0000, prot);
        assert_eq!(e, Err(DmaBufError::Protection));
    }
    let several = import(&mut b, &mut two, IOVA + 0x4_0000, Prot::READ).unwrap_err();
    assert_eq!((several, several.errno()), (DmaBufError::Unsupported, -95));
    let taken = import(&mut b, &mut one, IOVA, Prot::READ);
    assert_eq!(taken, Err(DmaBufError::Iommu(IommuError::InUse)));
    assert_eq!((one.mappings(), two.mappings()), (3, 0));

    ioas.unmap_dmabuf(&mut b.dma, &mut b.m, &mut one, IOVA)
        .unwrap();
    assert_eq!(ioas.area(IOVA), None);
    // Revoking another buffer changes nothing here.
    b.m.take();
    two.revoke(&mut b.dma, &mut b.m, &mut [&mut ioas]).unwrap();
    assert!(matches!(b.m.take()[..], [Op::ConfigWrite(..)]));
    assert!(ioas.area(IOVA + 0x1_0000).is_some());
    two.restore(&mut b.m).unwrap();
    one.revoke(&mut b.dma, &mut b.m, &mut [&mut ioas]).unwrap();
    assert!(b.dma.iommu().unwrap().pages.is_empty());
    assert_eq!((ioas.area(IOVA + 0x1_0000), one.mappings()), (None, 0));
    let refused = ioas.map_dmabuf(&mut b.dma, &mut b.m, &mut one, IOVA, Prot::READ);
    assert_eq!(refused, Err(DmaBufError::Revoked));
    let Err((mut ioas, busy)) = ioas.destroy(&mut b.dma, &mut b.m) else {
        panic!("an address space in use was destroyed");
    };
    assert_eq!((busy, busy.errno()), (DmaBufError::Busy, -16));
    for at in [0x1_0000, 0x2_0000] {
        ioas.unmap_dmabuf(&mut b.dma, &mut b.m, &mut one, IOVA + at)
            .unwrap();
    }
    let again = ioas.unmap_dmabuf(&mut b.dma, &mut b.m, &mut one, IOVA);
    assert_eq!(again, Err(DmaBufError::NoAttachment));
    let Err((mut ioas, DmaBufError::Busy)) = ioas.destroy(&mut b.dma, &mut b.m) else {
        panic!("an address space with a function was destroyed");
    };
    ioas.detach(&mut b.dma, &mut b.m, FAR).unwrap();
    let again = ioas.detach(&mut b.dma, &mut b.m, FAR);
    assert_eq!(again, Err(DmaBufError::NoAttachment));
    assert!(ioas.destroy(&mut b.dma, &mut b.m).is_ok());
    assert_eq!(b.dma.iommu().unwrap().freed.len(), 1);
}

/// VFIO asks the IOMMU for coherency, and the RISC-V driver of Linux 7.2 does not answer.
#[test]
fn an_iommu_without_the_coherency_capability() {
    let quirks = Quirks {
        no_coherency_capability: true,
        ..Quirks::default()
    };
    let mut b = Bench::with(quirks, FAR, Attach::Strict);
    let mut ioas = Ioas::new(&mut b.dma, &mut b.m).unwrap();
    let e = ioas.attach(&mut b.dma, &mut b.m, FAR).unwrap_err();
    assert_eq!((e, e.errno()), (DmaBufError::NotCoherent, -22));
}
