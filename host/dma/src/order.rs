//! The order of what a call does: accesses of the CPU, tables, commands and events in one list.
//!
//! Each list is compared with a snapshot, and the order that is required is asserted beside it, so
//! that a snapshot which is renewed (`INSTA_UPDATE=always`) cannot let a wrong order in.

use std::{cell::RefCell, rc::Rc};

use tlproof_pcie::config::{ConfigSpace, reg};

use crate::{
    Quirks, SgEntry,
    dmabuf::{AttachmentId, DmaSgt, Importer, ImporterOps, VfioDmaBuf},
    iommu::IommuDriver,
    machine::Machine,
    p2pdma::HostBridgePolicy,
    pages::PagePool,
    riscv::{Options, RiscvIommu, fake, regs::offset},
    testing::{
        bench::*,
        memory_bar,
        recorder::{Recorder, TABLES},
    },
};

/// Sv39 and Svpbmt.
const CAPABILITIES: u64 = 1 << 9 | 1 << 15;

struct Order {
    m: Recorder,
    dma: Dma<RiscvIommu>,
    dev: DeviceId,
}

impl Order {
    fn new(quirks: Quirks, device: Device, attach: Attach) -> Self {
        let mut m = Recorder::new(CAPABILITIES);
        topology(&mut m.config, 0x0001_1ae0);
        let options = Options {
            command_queue_log2: 6,
            fault_queue_log2: 5,
            ..Options::default()
        };
        let pool = PagePool::new(TABLES);
        let iommu = RiscvIommu::probe(&mut m, fake::BAR0, pool, &options).unwrap();
        let config = Config {
            quirks,
            ..Config::default()
        };
        let mut dma = Dma::new(config, Some(iommu));
        dma.set_swiotlb(Swiotlb::new(PhysAddr(POOL), 1 << 20, 1, false).unwrap());
        dma.p2pdma.add(peer(true));
        dma.trace.set_enabled(true);
        let lines = Rc::clone(&m.lines);
        dma.trace
            .set_sink(move |r| lines.borrow_mut().push(r.event.to_string()));
        let dev = dma.add_device(&mut m, device, attach).unwrap();
        m.lines.borrow_mut().clear();
        Self { m, dma, dev }
    }

    fn strict(device: Device) -> Self {
        Self::new(Profile::Intended.quirks(), device, Attach::Strict)
    }

    fn map(&mut self, phys: u64, size: u64, dir: Direction, attrs: Attrs) -> DmaAddr {
        self.dma
            .dma_map_phys(&mut self.m, self.dev, PhysAddr(phys), size, dir, attrs)
            .unwrap()
    }

    fn unmap(&mut self, dma: DmaAddr, size: u64, dir: Direction, attrs: Attrs) {
        self.dma
            .dma_unmap_phys(&mut self.m, self.dev, dma, size, dir, attrs);
    }

    fn take(&self) -> Lines {
        Lines(std::mem::take(&mut *self.m.lines.borrow_mut()))
    }
}

/// What one call did.
struct Lines(Vec<String>);

impl Lines {
    /// All lines that start with the first of two follow each other are before all that start with
    /// the next; each is there.
    #[track_caller]
    fn ordered(&self, starts: &[&str]) {
        for pair in starts.windows(2) {
            let last = self.0.iter().rposition(|l| l.starts_with(pair[0]));
            let first = self.0.iter().position(|l| l.starts_with(pair[1]));
            match (last, first) {
                (Some(a), Some(b)) if a < b => {}
                (a, b) => panic!(
                    "{} at {a:?}, {} at {b:?} of {:#?}",
                    pair[0], pair[1], self.0
                ),
            }
        }
    }

    /// Nothing of the kind is there.
    #[track_caller]
    fn without(&self, starts: &[&str]) {
        for start in starts {
            let found = self.0.iter().find(|l| l.starts_with(start));
            assert_eq!(found, None, "in {:#?}", self.0);
        }
    }

    fn text(&self) -> String {
        self.0.join("\n")
    }
}

fn non_coherent() -> Device {
    Device {
        coherent: false,
        ..device()
    }
}

/// Bounced whole, as its buffers are seldom aligned.
fn untrusted() -> Device {
    Device {
        coherent: false,
        untrusted: true,
        min_align_mask: 0xfff,
        ..device()
    }
}

const CPU: [&str; 3] = ["cpu ", "clean", "invalidate"];

#[test]
fn b1_map_of_memory() {
    let mut o = Order::strict(non_coherent());
    o.map(RAM + 0x200, 0x300, Bidirectional, NONE);
    let lines = o.take();
    lines.ordered(&["clean", "iova_alloc", "table", "leaf", "dma_map_phys"]);
    lines.without(&["command", "invalidate", "cpu "]);
    insta::assert_snapshot!("b1_map_of_memory", lines.text());
}

#[test]
fn b2_map_of_device_memory() {
    let mut o = Order::strict(non_coherent());
    o.map(BAR, 0x1000, Bidirectional, Attrs::MMIO);
    let lines = o.take();
    lines.ordered(&["iova_alloc", "table", "leaf", "dma_map_phys"]);
    lines.without(&CPU);
    insta::assert_snapshot!("b2_map_of_device_memory", lines.text());
}

#[test]
fn b3_unmap_of_a_bounced_buffer() {
    let mut o = Order::strict(untrusted());
    let a = o.map(RAM + 0x200, 0x300, FromDevice, NONE);
    o.take();
    o.unmap(a, 0x300, FromDevice, NONE);
    let lines = o.take();
    lines.ordered(&[
        "invalidate",
        "clear",
        "command",
        "iotlb_sync",
        "iova_dofree",
        "swiotlb_unmap",
        "cpu read 0x90000200",
        "cpu write 0x80000200",
        "dma_unmap_phys",
    ]);
    insta::assert_snapshot!("b3_unmap_of_a_bounced_buffer", lines.text());
}

#[test]
fn b4_unmap_of_device_memory() {
    let mut o = Order::strict(non_coherent());
    let a = o.map(BAR, 0x1000, FromDevice, Attrs::MMIO);
    o.take();
    o.unmap(a, 0x1000, FromDevice, Attrs::MMIO);
    let lines = o.take();
    lines.ordered(&[
        "clear",
        "command",
        "iotlb_sync",
        "iova_dofree",
        "dma_unmap_phys",
    ]);
    lines.without(&CPU);
    insta::assert_snapshot!("b4_unmap_of_device_memory", lines.text());
}

#[test]
fn b5_unmap_with_a_flush_queue() {
    let trusted = Device {
        coherent: false,
        ..device()
    };
    let mut o = Order::new(Profile::Intended.quirks(), trusted, Attach::Lazy);
    let a = o.map(RAM, 0x1000, FromDevice, NONE);
    o.take();
    o.unmap(a, 0x1000, FromDevice, NONE);
    let lines = o.take();
    lines.ordered(&["invalidate", "clear", "dma_unmap_phys"]);
    lines.without(&["command", "iotlb_sync", "flush_iotlb_all"]);
    insta::assert_snapshot!("b5_unmap_with_a_flush_queue", lines.text());
    // Not reused before the flush.
    assert_eq!(o.map(RAM, 0x1000, FromDevice, NONE).0, a.0 - 0x1000);
    o.take();
    o.dma.flush_queues(&mut o.m);
    let lines = o.take();
    lines.ordered(&["command", "flush_iotlb_all"]);
    insta::assert_snapshot!("b5_flush", lines.text());
    assert_eq!(o.map(RAM, 0x1000, FromDevice, NONE), a);
}

/// Two ranges linked, and destroyed.
fn two_steps(quirks: Quirks, device: Device, phys: u64) -> (Lines, Lines) {
    let mut o = Order::new(quirks, device, Attach::Strict);
    let first = PhysAddr(phys % 4096);
    let mut s = o.dma.dma_iova_try_alloc(o.dev, first, 0x3000).unwrap();
    let head = 0x1000 - phys % 4096;
    for (at, size) in [(0, head), (head, 0x1000)] {
        let at_phys = PhysAddr(phys + at);
        o.dma
            .dma_iova_link(&mut o.m, o.dev, &mut s, at_phys, at, size, FromDevice, NONE)
            .unwrap();
    }
    let mapped = head + 0x1000;
    o.dma.dma_iova_sync(o.dev, &s, 0, mapped).unwrap();
    let up = o.take();
    o.dma
        .dma_iova_destroy(&mut o.m, o.dev, &mut s, mapped, FromDevice, NONE);
    (up, o.take())
}

#[test]
fn b6_two_steps() {
    let (up, down) = two_steps(Profile::Intended.quirks(), non_coherent(), RAM);
    up.ordered(&[
        "iova_try_alloc",
        "clean 0x80000000",
        "clean 0x80001000",
        "iova_sync",
    ]);
    up.ordered(&["leaf", "iova_sync"]);
    up.ordered(&[
        "clean 0x80000000",
        "map: IOMMU: iova=0x00000000ffffc000",
        "clean 0x80001000",
    ]);
    up.without(&["command"]);
    insta::assert_snapshot!("b6_link", up.text());
    down.ordered(&[
        "iova_destroy",
        "invalidate",
        "clear",
        "command",
        "iotlb_sync",
        "iova_dofree",
    ]);
    insta::assert_snapshot!("b6_destroy", down.text());
}

/// 6.3: Linux gives bounce slots back while the device still reaches them.
#[test]
fn b6_slots_are_given_back_behind_the_fence_or_as_in_linux() {
    let bounced = RAM + 0x200;
    let (_, down) = two_steps(Profile::Intended.quirks(), untrusted(), bounced);
    down.ordered(&[
        "invalidate",
        "clear",
        "iotlb_sync",
        "swiotlb_unmap",
        "cpu write",
    ]);
    let quirks = Quirks {
        unlink_releases_slots_first: true,
        ..Quirks::default()
    };
    let (_, down) = two_steps(quirks, untrusted(), bounced);
    down.ordered(&[
        "invalidate",
        "swiotlb_unmap",
        "cpu write",
        "clear",
        "iotlb_sync",
    ]);
}

/// Memory and a peer through the host bridge in one list.
fn list(quirks: Quirks) -> (Lines, Lines) {
    let far = Device {
        coherent: false,
        ..Device::new(Bdf::new(5, 0, 0))
    };
    let mut o = Order::new(quirks, far, Attach::Strict);
    o.dma.p2pdma.policy = HostBridgePolicy::Any;
    let mut sg = [
        SgEntry::new(PhysAddr(RAM), 0x1000),
        SgEntry::new(PhysAddr(BAR), 0x1000),
    ];
    o.dma
        .dma_map_sg(&mut o.m, o.dev, &mut sg, FromDevice, NONE)
        .unwrap();
    let up = o.take();
    o.dma
        .dma_unmap_sg(&mut o.m, o.dev, &mut sg, FromDevice, NONE);
    (up, o.take())
}

#[test]
fn b7_list() {
    let (up, down) = list(Profile::Intended.quirks());
    up.ordered(&[
        "clean",
        "p2p_state",
        "iova_alloc",
        "table",
        "leaf",
        "dma_map_sg",
    ]);
    up.without(&["clean 0x40000000", "command"]);
    insta::assert_snapshot!("b7_map_sg", up.text());
    down.ordered(&[
        "dma_unmap_sg",
        "invalidate",
        "clear",
        "command",
        "iotlb_sync",
        "iova_dofree",
    ]);
    down.without(&["invalidate 0x40000000"]);
    insta::assert_snapshot!("b7_unmap_sg", down.text());
    // F4: Linux does not ask for peers before, and cleans device memory.
    let quirks = Quirks {
        sg_p2p_cacheable: true,
        ..Quirks::default()
    };
    let (up, down) = list(quirks);
    up.ordered(&[
        "clean 0x80000000",
        "clean 0x40000000",
        "p2p_state",
        "iova_alloc",
    ]);
    down.ordered(&["dma_unmap_sg", "invalidate 0x40000000", "clear"]);
}

#[test]
fn b8_bounce_without_translation() {
    let forced = Device {
        force_bounce: true,
        coherent: false,
        ..device()
    };
    let mut o = Order::new(Profile::Intended.quirks(), forced, Attach::Direct);
    let a = o.map(RAM, 0x300, FromDevice, NONE);
    let lines = o.take();
    lines.ordered(&[
        "swiotlb_bounced",
        "swiotlb_map",
        "cpu read 0x80000000",
        "cpu write 0x90000000",
        "clean 0x90000000",
        "dma_map_phys",
    ]);
    insta::assert_snapshot!("b8_map", lines.text());
    o.unmap(a, 0x300, FromDevice, NONE);
    let lines = o.take();
    lines.ordered(&[
        "invalidate 0x90000000",
        "cpu read 0x90000000",
        "cpu write 0x80000000",
        "dma_unmap_phys",
    ]);
    insta::assert_snapshot!("b8_unmap", lines.text());
    // The device read it only, or the driver wants nothing back: no copy.
    for (dir, attrs) in [(ToDevice, NONE), (FromDevice, Attrs::SKIP_CPU_SYNC)] {
        let a = o.map(RAM, 0x300, dir, NONE);
        o.take();
        o.unmap(a, 0x300, dir, attrs);
        o.take().without(&["cpu "]);
    }
    // A coherent device has its syncs done from the first bounce on.
    let coherent = Device {
        force_bounce: true,
        ..device()
    };
    let mut o = Order::new(Profile::Intended.quirks(), coherent, Attach::Direct);
    assert!(!o.dma.device(o.dev).unwrap().need_sync());
    o.map(RAM, 0x300, FromDevice, NONE);
    assert!(o.dma.device(o.dev).unwrap().need_sync());
}

#[test]
fn b9_attach() {
    let mut o = Order::strict(device());
    let bdf = o.dma.device(o.dev).unwrap().bdf;
    let iommu = o.dma.iommu_mut().unwrap();
    let other = iommu.domain_alloc(&mut o.m).unwrap();
    // Three levels of directory, of 8, 9 and 7 bits of the device ID.
    let table = |m: &mut Recorder, at: u64| (m.unit.read_u64(PhysAddr(at)) >> 10) << 12;
    let root = (o.m.unit.reg(offset::DDTP) >> 10) << 12;
    let id = u64::from(bdf.0);
    let middle = table(&mut o.m, root + (id >> 16) * 8);
    let leaf = table(&mut o.m, middle + (id >> 7 & 511) * 8);
    o.m.contexts = Some(leaf >> 12);
    o.m.lines.borrow_mut().clear();
    iommu.attach(&mut o.m, bdf, Some(other)).unwrap();
    let lines = o.take();
    insta::assert_snapshot!("b9_attach", lines.text());
    // Invalid, then invalidated; written, valid last; invalidated; at last the old domain.
    let tc = leaf + (id & 127) * 32;
    let want = [
        format!("context {tc:#x} = 0x0"),
        "command 0x1000200000003,0x0".into(),
        "command 0x100001001,0x0".into(),
        "command 0x3002,0x0".into(),
        format!("context {:#x} = ", tc + 24),
        format!("context {:#x} = 0x2000", tc + 16),
        format!("context {tc:#x} = 0x1"),
        "command 0x1000200000003,0x0".into(),
        "command 0x100002001,0x0".into(),
        "command 0x3002,0x0".into(),
        "command 0x100001001,0x0".into(),
        "command 0x3002,0x0".into(),
    ];
    assert_eq!(lines.0.len(), want.len(), "{:#?}", lines.0);
    for (line, want) in lines.0.iter().zip(want) {
        assert!(line.starts_with(&want), "{line}, not {want}");
    }
}

/// The driver of a device that uses a DMABUF.
struct Driver {
    at: AttachmentId,
    sgt: Option<DmaSgt>,
    lines: Rc<RefCell<Vec<String>>>,
}

impl Importer<RiscvIommu> for Driver {
    fn invalidate_mappings(
        &mut self,
        _: &mut Dma<RiscvIommu>,
        _: &mut dyn Machine,
        buf: &VfioDmaBuf,
    ) {
        let line = format!("importer invalidated, revoked={}", buf.is_revoked());
        self.lines.borrow_mut().push(line);
    }

    fn wait_fences(&mut self, _: &mut dyn Machine) -> bool {
        self.lines.borrow_mut().push("fences waited for".into());
        true
    }

    fn unmap(&mut self, dma: &mut Dma<RiscvIommu>, m: &mut dyn Machine, buf: &mut VfioDmaBuf) {
        if let Some(sgt) = self.sgt.take() {
            buf.unmap(dma, m, self.at, sgt).unwrap();
        }
    }
}

#[test]
fn b10_revoke() {
    let mut o = Order::strict(device());
    let owner = Bdf::new(4, 0, 0);
    let bars = [memory_bar(2, BAR + 0x40_0000, 0x10_0000, BAR + 0x40_0000)];
    o.dma.p2pdma.init(owner, &bars, false).unwrap();
    o.dma.p2pdma.policy = HostBridgePolicy::Any;
    o.dev = o
        .dma
        .add_device(&mut o.m, Device::new(Bdf::new(5, 0, 0)), Attach::Strict)
        .unwrap();
    o.m.config_write(owner, reg::COMMAND, 2, 6).unwrap();
    let ranges = [(0x1000, 0x2000)];
    let mut buf = VfioDmaBuf::export(&mut o.dma.p2pdma, &mut o.m, owner, 2, &ranges).unwrap();
    let at = buf.attach(Some(o.dev), ImporterOps::PEER).unwrap();
    let sgt = Some(buf.map(&mut o.dma, &mut o.m, at, Bidirectional).unwrap());
    o.take();
    let lines = Rc::clone(&o.m.lines);
    let mut driver = Driver { at, sgt, lines };
    buf.revoke(&mut o.dma, &mut o.m, &mut [&mut driver])
        .unwrap();
    let lines = o.take();
    lines.ordered(&[
        "importer invalidated, revoked=true",
        "fences waited for",
        "clear",
        "command",
        "iova_dofree",
        "config 04:00.0 0x4",
    ]);
    lines.without(&CPU);
    insta::assert_snapshot!("b10_revoke", lines.text());
}

/// The assertion itself can fail.
#[test]
#[should_panic(expected = "clear at Some(1), command at Some(0)")]
fn wrong_order_is_noticed() {
    Lines(vec!["command".into(), "clear".into()]).ordered(&["clear", "command"]);
}

#[test]
#[should_panic(expected = "clean at None")]
fn what_is_not_there_is_noticed() {
    Lines(vec!["leaf".into()]).ordered(&["clean", "leaf"]);
}
