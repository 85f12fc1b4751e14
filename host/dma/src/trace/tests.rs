//! The text of every event, and the file around it.

use std::{cell::RefCell, rc::Rc};

use super::*;
use crate::{SgEntry, pages::PagePool, testing::bench::*};

/// The lines of what was recorded, without those of other systems than `wanted`.
fn lines(b: &mut Bench) -> Vec<String> {
    let mut out = Vec::new();
    for event in b.dma.trace.take() {
        event.kernel_lines(&|_| 0xff00, &mut |name, text| {
            out.push(format!("{name}: {text}"));
        });
    }
    out
}

fn only(b: &mut Bench, name: &str) -> Vec<String> {
    let prefix = format!("{name}: ");
    let all = lines(b).into_iter();
    all.filter_map(|l| l.strip_prefix(&prefix).map(str::to_owned))
        .collect()
}

#[test]
fn one_mapping_behind_an_iommu() {
    let mut b = strict(device());
    let a = b.map(RAM + 0x200, 0x400, FromDevice, NONE).unwrap();
    b.unmap(a, 0x400, FromDevice, NONE);
    b.map(BAR, 0x1000, ToDevice, Attrs::MMIO | Attrs::SKIP_CPU_SYNC)
        .unwrap();
    assert_eq!(
        lines(&mut b),
        [
            "iova_alloc: (iommu_dma_alloc_iova+0x0/0x0) domain=0xffff88800a000200 size=4096 \
             limit=0xffffffffffffffff dev=\"0000:01:00.0\"",
            "iova_alloc_ret: (tlproof+0x0/0x0 <- iommu_dma_alloc_iova) iova=0xfffff000",
            "iommu_map_prot: (iommu_map_nosync+0x0/0x0) domain=0xffff88800a000200 \
             iova=0xfffff000 phys=0x80000000 size=4096 prot=0x6",
            "map: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 \
             paddr=0x0000000080000000 size=4096",
            "dma_map_phys: 0000:01:00.0 dir=FROM_DEVICE dma_addr=fffff200 size=1024 \
             phys_addr=80000200 attrs=",
            "unmap: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 size=4096 \
             unmapped_size=4096",
            "iova_dofree: (iommu_dma_free_iova+0x0/0x0) domain=0xffff88800a000200 \
             iova=0xfffff000 size=4096",
            "dma_unmap_phys: 0000:01:00.0 dir=FROM_DEVICE dma_addr=fffff200 size=1024 attrs=",
            "iova_alloc: (iommu_dma_alloc_iova+0x0/0x0) domain=0xffff88800a000200 size=4096 \
             limit=0xffffffffffffffff dev=\"0000:01:00.0\"",
            "iova_alloc_ret: (tlproof+0x0/0x0 <- iommu_dma_alloc_iova) iova=0xfffff000",
            "iommu_map_prot: (iommu_map_nosync+0x0/0x0) domain=0xffff88800a000200 \
             iova=0xfffff000 phys=0x40000000 size=4096 prot=0x11",
            "map: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 \
             paddr=0x0000000040000000 size=4096",
            "dma_map_phys: 0000:01:00.0 dir=TO_DEVICE dma_addr=fffff000 size=4096 \
             phys_addr=40000000 attrs=SKIP_CPU_SYNC|MMIO",
        ]
    );
}

/// M43: a failure is traced with all ones, an early reject is not.
#[test]
fn failures() {
    let mut b = strict(device());
    b.dma.iommu_mut().unwrap().broken = true;
    assert!(b.map(RAM, 64, ToDevice, NONE).is_err());
    let out = lines(&mut b);
    assert!(!out.iter().any(|l| l.starts_with("map: ")), "{out:#?}");
    assert_eq!(
        out.last().unwrap(),
        "dma_map_phys: 0000:01:00.0 dir=TO_DEVICE dma_addr=ffffffffffffffff size=64 \
         phys_addr=80000000 attrs="
    );
    assert!(b.map(RAM, 64, ToDevice, Attrs::CC_SHARED).is_err());
    assert_eq!(lines(&mut b), [""; 0]);
}

#[test]
fn lists() {
    let mut b = strict(device());
    let mut sg = [(RAM, 0x1000), (RAM + 0x4000, 0x800)].map(|(p, l)| SgEntry::new(PhysAddr(p), l));
    let n = b
        .dma
        .dma_map_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE)
        .unwrap();
    assert_eq!(n, 1);
    b.dma.dma_unmap_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE);
    let out = lines(&mut b);
    assert!(
        out.contains(
            &"dma_map_sg: 0000:01:00.0 dir=TO_DEVICE nents=2/2 ents=1/1 dma_addrs={0xffffe000} \
          sizes={0x1800} phys_addrs={0x80000000,0x80004000} attrs="
                .to_owned()
        )
    );
    assert!(
        out.contains(
            &"dma_unmap_sg: 0000:01:00.0 dir=TO_DEVICE phys_addrs={0x80000000,0x80004000} attrs="
                .to_owned()
        )
    );
    b.dma.iommu_mut().unwrap().broken = true;
    let failed = b.dma.dma_map_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE);
    assert!(failed.is_err());
    assert_eq!(
        only(&mut b, "dma_map_sg_err"),
        ["0000:01:00.0 dir=TO_DEVICE dma_addrs={0x80000000,0x80004000} err=-12 attrs="]
    );
}

/// `dma_map_sg` shows 128 entries at most and says so; the other lists are whole.
#[test]
fn long_lists_are_cut() {
    for (len, cut) in [(128, false), (129, true)] {
        let mut b = Bench::new(Config::default(), device(), Attach::Direct);
        let mut sg: Vec<_> = (0..len)
            .map(|i| SgEntry::new(PhysAddr(RAM + i * 0x2000), 64))
            .collect();
        b.dma
            .dma_map_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE)
            .unwrap();
        b.dma.dma_unmap_sg(&mut b.m, b.dev, &mut sg, ToDevice, NONE);
        let out = lines(&mut b);
        let counts = format!(" nents=128/{len} ents=128/{len}");
        assert!(out[0].contains(&counts), "{}", out[0]);
        assert_eq!(
            out[0].contains(&format!("{counts} [TRUNCATED] dma_addrs={{")),
            cut
        );
        // Three arrays with 127 commas each, and one whole.
        assert_eq!(out[0].matches(',').count(), 3 * 127);
        assert_eq!(out[1].matches(',').count(), len as usize - 1);
    }
}

#[test]
fn syncs() {
    let nc = Device {
        coherent: false,
        ..device()
    };
    let mut b = Bench::new(Config::default(), nc, Attach::Direct);
    let a = DmaAddr(b.map(RAM, 64, FromDevice, NONE).unwrap());
    let mut sg = [SgEntry::new(PhysAddr(RAM + 0x1000), 32)];
    let (m, dev) = (&mut b.m, b.dev);
    b.dma.dma_map_sg(m, dev, &mut sg, FromDevice, NONE).unwrap();
    b.dma.trace.take();
    b.dma.dma_sync_single_for_cpu(m, dev, a, 54, FromDevice);
    b.dma.dma_sync_single_for_device(m, dev, a, 54, FromDevice);
    b.dma.dma_sync_sg_for_cpu(m, dev, &sg, FromDevice);
    b.dma.dma_sync_sg_for_device(m, dev, &sg, FromDevice);
    let single = "0000:01:00.0 dir=FROM_DEVICE dma_addr=80000000 size=54";
    let list = "0000:01:00.0 dir=FROM_DEVICE dma_addrs={0x80001000} sizes={0x20}";
    assert_eq!(
        lines(&mut b),
        [
            format!("dma_sync_single_for_cpu: {single}"),
            format!("dma_sync_single_for_device: {single}"),
            format!("dma_sync_sg_for_cpu: {list}"),
            format!("dma_sync_sg_for_device: {list}"),
        ]
    );
}

#[test]
fn allocations() {
    let mut b = Bench::new(Config::default(), device(), Attach::Direct);
    let (m, dev) = (&mut b.m, b.dev);
    b.dma
        .set_pages(Box::new(PagePool::new(Range::sized(RAM, 0x4000))));
    let c = b.dma.dma_alloc_attrs(m, dev, 6726, Attrs::NO_WARN).unwrap();
    b.dma.dma_free_attrs(m, dev, c, Attrs::NO_WARN);
    let p = b.dma.dma_alloc_pages(m, dev, 100, ToDevice).unwrap();
    b.dma.dma_free_pages(m, dev, p);
    let s = b
        .dma
        .dma_alloc_noncontiguous(m, dev, 0x2000, FromDevice, NONE)
        .unwrap();
    b.dma.dma_free_noncontiguous(m, dev, s);
    let failed = b.dma.dma_alloc_pages(m, dev, 1 << 20, ToDevice);
    assert!(failed.is_err());
    let failed = b
        .dma
        .dma_alloc_noncontiguous(m, dev, 1 << 20, ToDevice, NONE);
    assert!(failed.is_err());
    let out = lines(&mut b);
    // All of it was at the same address, of which the hash is the same.
    let hash = out[0]
        .split_once("virt_addr=")
        .map(|(_, rest)| rest[..16].to_owned())
        .unwrap();
    assert!(hash.starts_with("00000000") && hash[8..] != hash[..8]);
    assert_eq!(
        out,
        [
            format!(
                "dma_alloc: 0000:01:00.0 dir=BIDIRECTIONAL dma_addr=80000000 size=6726 \
                 virt_addr={hash} flags=GFP_KERNEL attrs=NO_WARN"
            ),
            format!(
                "dma_free: 0000:01:00.0 dir=BIDIRECTIONAL dma_addr=80000000 size=6726 \
                 virt_addr={hash} attrs=NO_WARN"
            ),
            format!(
                "dma_alloc_pages: 0000:01:00.0 dir=TO_DEVICE dma_addr=80000000 size=100 \
                 virt_addr={hash} flags=GFP_KERNEL attrs="
            ),
            format!(
                "dma_free_pages: 0000:01:00.0 dir=TO_DEVICE dma_addr=80000000 size=100 \
                 virt_addr={hash} attrs="
            ),
            "dma_alloc_sgt: 0000:01:00.0 dir=FROM_DEVICE dma_addr=80000000 size=8192 \
             phys_addrs={0x80000000} flags=GFP_KERNEL attrs="
                .to_owned(),
            "dma_free_sgt: 0000:01:00.0 dir=FROM_DEVICE dma_addr=80000000 size=8192 \
             phys_addrs={0x80000000}"
                .to_owned(),
            "dma_alloc_pages: 0000:01:00.0 dir=TO_DEVICE dma_addr=0 size=1048576 \
             virt_addr=(null) flags=GFP_KERNEL attrs="
                .to_owned(),
            "dma_alloc_sgt_err: 0000:01:00.0 dir=TO_DEVICE dma_addr=0 size=1048576 \
             virt_addr=(null) flags=GFP_KERNEL attrs="
                .to_owned(),
        ]
    );
}

/// Bounced head and tail: bit 63, slots, and a state of its own for each transaction.
#[test]
fn two_step_mappings() {
    let d = Device {
        untrusted: true,
        min_align_mask: 0xfff,
        ..device()
    };
    let mut b = Bench::new(Config::default(), d, Attach::Strict).pool(false);
    let (m, dev, phys) = (&mut b.m, b.dev, PhysAddr(RAM + 0x400));
    let mut s = b.dma.dma_iova_try_alloc(dev, phys, 0x400).unwrap();
    b.dma
        .dma_iova_link(m, dev, &mut s, phys, 0, 0x400, FromDevice, NONE)
        .unwrap();
    b.dma.dma_iova_sync(dev, &s, 0, 0x400).unwrap();
    b.dma
        .dma_iova_destroy(m, dev, &mut s, 0x400, FromDevice, NONE);
    let mut s = b.dma.dma_iova_try_alloc(dev, PhysAddr(0), 0x2000).unwrap();
    let failed = b
        .dma
        .dma_iova_link(m, dev, &mut s, phys, 0x1000, 64, ToDevice, Attrs::MMIO);
    assert!(failed.is_err());
    b.dma
        .dma_iova_unlink(m, dev, &s, 0, 0x1000, ToDevice, Attrs::MMIO);
    b.dma.dma_iova_free(dev, &mut s);
    let mut other = Bench::new(Config::default(), device(), Attach::Direct);
    assert_eq!(other.dma.dma_iova_try_alloc(other.dev, phys, 64), None);
    let dev_state = "dev=\"0000:01:00.0\" state=0xffff888010000020";
    let out: Vec<_> = lines(&mut b)
        .into_iter()
        .filter(|l| l.starts_with("iova_") && !l.starts_with("iova_alloc"))
        .collect();
    assert_eq!(
        out[..7],
        [
            format!(
                "iova_try_alloc: (dma_iova_try_alloc+0x0/0x0) {dev_state} phys=0x80000400 size=1024"
            ),
            format!(
                "iova_try_alloc_ret: (tlproof+0x0/0x0 <- dma_iova_try_alloc) {dev_state} ret=1 \
                 iova=0xfffff400 isize=0x400"
            ),
            format!(
                "iova_link: (dma_iova_link+0x0/0x0) {dev_state} iova=0xfffff400 phys=0x80000400 \
                 offset=0x0 size=1024 dir=2 attrs=0x0"
            ),
            "iova_link_ret: (tlproof+0x0/0x0 <- dma_iova_link) state=0xffff888010000020 ret=0"
                .to_owned(),
            format!(
                "iova_sync: (dma_iova_sync+0x0/0x0) {dev_state} iova=0xfffff400 offset=0x0 size=1024"
            ),
            "iova_sync_ret: (tlproof+0x0/0x0 <- dma_iova_sync) ret=0".to_owned(),
            format!(
                "iova_destroy: (dma_iova_destroy+0x0/0x0) {dev_state} iova=0xfffff400 \
                 isize=0x8000000000000400 mapped_len=1024 dir=2 attrs=0x0"
            ),
        ]
    );
    let next = "state=0xffff888010000040";
    let names: Vec<_> = out[7..]
        .iter()
        .filter(|l| l.contains(next))
        .map(|l| l.split_once(':').unwrap().0)
        .collect();
    assert_eq!(
        names,
        [
            "iova_try_alloc",
            "iova_try_alloc_ret",
            "iova_link",
            "iova_link_ret",
            "iova_unlink",
            "iova_free"
        ]
    );
    assert!(out.iter().any(|l| l.ends_with(&format!("{next} ret=-5"))));
    assert!(
        out.iter()
            .any(|l| l.contains("iova_unlink: (dma_iova_unlink+0x0/0x0)")
                && l.ends_with("offset=0x0 size=4096 dir=1 attrs=0x400"))
    );
    assert!(out.iter().any(|l| l.contains(&format!(
        "iova_free: (dma_iova_free+0x0/0x0) dev=\"0000:01:00.0\" {next} "
    )) && l.ends_with(" isize=0x2000")));
    assert_eq!(
        only(&mut other, "iova_try_alloc_ret"),
        [format!(
            "(tlproof+0x0/0x0 <- dma_iova_try_alloc) {dev_state} ret=0 iova=0x0 isize=0x0"
        )]
    );
}

#[test]
fn bounce_slots() {
    for (force, word) in [(true, "FORCE"), (false, "NORMAL")] {
        let d = Device {
            dma_mask: Some(if force { u64::MAX } else { 0x9fff_ffff }),
            ..device()
        };
        let phys = if force { RAM } else { 0xa000_0000 };
        let mask = d.dma_mask.unwrap();
        let mut b = Bench::new(Config::default(), d, Attach::Direct).pool(force);
        let a = b.map(phys, 8, ToDevice, NONE).unwrap();
        b.unmap(a, 8, ToDevice, NONE);
        assert_eq!(
            lines(&mut b),
            [
                format!(
                    "swiotlb_bounced: dev_name: 0000:01:00.0 dma_mask={mask:x} \
                     dev_addr={phys:x} size=8 {word}"
                ),
                format!(
                    "swiotlb_map: (tlproof+0x0/0x0 <- swiotlb_tbl_map_single) \
                     dev=\"0000:01:00.0\" phys={phys:#x} size=8 tlb={a:#x}"
                ),
                format!(
                    "dma_map_phys: 0000:01:00.0 dir=TO_DEVICE dma_addr={a:x} size=8 \
                     phys_addr={phys:x} attrs="
                ),
                format!(
                    "swiotlb_unmap: (__swiotlb_tbl_unmap_single+0x0/0x0) \
                     dev=\"0000:01:00.0\" tlb={a:#x} size=8 dir=1"
                ),
                format!("dma_unmap_phys: 0000:01:00.0 dir=TO_DEVICE dma_addr={a:x} size=8 attrs="),
            ]
        );
    }
}

#[test]
fn peers() {
    let mut b = strict(device());
    let phys = PhysAddr(0xf019_9200);
    b.dma.trace.emit(|| Event::P2pState {
        dev: Bdf::new(2, 0, 0),
        phys,
        map: MapType::ThruHostBridge,
    });
    assert_eq!(
        only(&mut b, "p2p_state"),
        [
            "(tlproof+0x0/0x0 <- __pci_p2pdma_update_state) dev=\"0000:02:00.0\" \
          page=0xffffea0003c06640 mem=0xff00 map=4"
        ]
    );
}

/// What a kernel does not trace has no line, and is printed all the same.
#[test]
fn without_a_line() {
    let domain = DomainId(1);
    for (event, text) in [
        (
            Event::IotlbSync {
                domain,
                range: Some((0x1000, 0x1fff)),
            },
            "iotlb_sync: domain=1 [0x1000-0x1fff]",
        ),
        (Event::FlushAll { domain }, "flush_iotlb_all: domain=1"),
        (
            Event::ArchSyncForCpu {
                phys: PhysAddr(RAM),
                size: 64,
                dir: FromDevice,
            },
            "arch_sync_dma_for_cpu: phys=0x80000000 size=64 dir=2",
        ),
    ] {
        let mut count = 0;
        event.kernel_lines(&|_| 0, &mut |_, _| count += 1);
        assert_eq!((count, event.to_string().as_str()), (0, text));
    }
    // One line an event, where a kernel has two, and without a probe's place.
    let map = Event::IommuMap {
        domain,
        iova: 0,
        phys: PhysAddr(0),
        size: 4096,
        prot: Prot::READ,
        ok: false,
    };
    assert_eq!(
        map.to_string(),
        "map: IOMMU: iova=0x0000000000000000 - 0x0000000000001000 paddr=0x0000000000000000 \
         size=4096 prot=0x1 domain=1 failed"
    );
    let sync = Event::IovaSyncRet { ret: -22 };
    assert_eq!(sync.to_string(), "iova_sync_ret: ret=-22");
}

#[test]
fn a_file() {
    let mut b = strict(device());
    let trace = Rc::new(RefCell::new(KernelTrace::new(2, 100_000)));
    trace.borrow_mut().provider(Range::sized(BAR, 0x1000));
    let sink = Rc::clone(&trace);
    b.dma
        .trace
        .set_sink(move |record| sink.borrow_mut().push(record));
    b.dma.trace.set_enabled(false);
    b.m.time = 4_930_329 * 100;
    let a = b.map(RAM, 4096, FromDevice, NONE).unwrap();
    b.m.time += 250;
    b.dma.set_cpu(1);
    b.unmap(a, 4096, FromDevice, NONE);
    assert!(b.dma.trace.take().is_empty());
    let mut file = Vec::new();
    trace.borrow().write(&mut file).unwrap();
    let file = String::from_utf8(file).unwrap();
    assert!(
        file.starts_with("# tracer: nop\n#\n# entries-in-buffer/entries-written: 8/8   #P:2\n#\n")
    );
    assert_eq!(trace.borrow().count(), 8);
    let lines: Vec<_> = file.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(lines.len(), 8);
    assert!(lines[4].starts_with(
        "         tlproof-1       [000] .....     4.930329: dma_map_phys: 0000:01:00.0 dir="
    ));
    assert!(lines[7].starts_with(
        "         tlproof-1       [001] .....     4.930331: dma_unmap_phys: 0000:01:00.0 dir="
    ));
}

/// What is looked at aside is still there for who records, and for nobody else.
#[test]
fn events_since_a_mark() {
    for on in [true, false] {
        let mut b = strict(device());
        b.dma.trace.set_enabled(on);
        b.map(RAM, 64, ToDevice, NONE).unwrap();
        let before = b.dma.trace.take();
        assert_eq!(before.is_empty(), !on);
        b.map(RAM, 128, ToDevice, NONE).unwrap();
        let mark = b.dma.trace.mark();
        b.map(RAM, 256, ToDevice, NONE).unwrap();
        let sizes = |events: &[Event]| -> Vec<u64> {
            let size = |e: &Event| match e {
                Event::DmaMapPhys { size, .. } => Some(*size),
                _ => None,
            };
            events.iter().filter_map(size).collect()
        };
        assert_eq!(sizes(&b.dma.trace.since(mark)), [256]);
        b.map(RAM, 512, ToDevice, NONE).unwrap();
        let kept: &[u64] = if on { &[128, 256, 512] } else { &[] };
        assert_eq!(sizes(&b.dma.trace.take()), kept);
    }
}
