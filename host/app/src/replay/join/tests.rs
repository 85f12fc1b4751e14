use tlproof_pcie::{DmaAddr, PhysAddr};

use super::*;
use crate::trace::parse_line;

fn join(text: &str) -> Vec<Operation> {
    let mut joiner = Joiner::default();
    for (number, line) in (1..).zip(text.lines()) {
        joiner.push(parse_line(number, line.trim_start().as_bytes()).unwrap());
    }
    joiner.finish()
}

#[test]
fn an_interrupt_inside_a_mapping_call_keeps_its_own_events() {
    let ops = join(
        r#"
        io-157 [000] ...2. 12.000001: iova_alloc: (f+0x0/0x1) domain=0xff00 size=4096 limit=0xffffffffffffffff dev="0000:02:00.0"
        <idle>-0 [000] d.h1. 12.000002: unmap: IOMMU: iova=0x00000000ffffe000 - 0x00000000fffff000 size=4096 unmapped_size=4096
        <idle>-0 [000] d.h1. 12.000003: cache_tag_flush_range: dmar0 dmar0[0] type iotlb did 8 [0xffffe000-0xffffefff] addr 0xffffe000 mask 0x0
        <idle>-0 [000] d.h1. 12.000004: iova_dofree: (f+0x0/0x1) domain=0xff00 iova=0xffffe000 size=4096
        <idle>-0 [000] d.h1. 12.000005: dma_unmap_phys: 0000:02:00.0 dir=TO_DEVICE dma_addr=ffffe010 size=16 attrs=
        io-157 [001] ...1. 12.000006: iova_alloc_ret: (a+0x0/0x1 <- f) iova=4294963200
        io-157 [001] ...1. 12.000007: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0xfffff000 phys=0xf0069000 size=4096 prot=0x11
        io-157 [001] ..... 12.000008: map: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 paddr=0x00000000f0069000 size=4096
        io-157 [001] ..... 12.000009: dma_map_phys: 0000:02:00.0 dir=TO_DEVICE dma_addr=fffff200 size=512 phys_addr=f0069200 attrs=MMIO"#
            .trim_start(),
    );
    assert_eq!(ops.len(), 2);
    // The allocation was over before the interrupt, or it would have got what that freed.
    assert_eq!((ops[0].line, ops[1].line), (2, 4));
    let Call::MapPhys { did, phys, dma, .. } = &ops[0].call else {
        panic!("{:?}", ops[0])
    };
    assert_eq!(*phys, PhysAddr(0xf006_9200));
    assert_eq!(*dma, Some(DmaAddr(0xffff_f200)));
    assert_eq!(did.alloc.unwrap().iova, Some(DmaAddr(0xffff_f000)));
    assert_eq!(did.tables.len(), 1);
    assert_eq!(did.tables[0].prot, Some(0x11));
    let Call::UnmapPhys { did, .. } = &ops[1].call else {
        panic!("{:?}", ops[1])
    };
    assert_eq!(did.tables, [(DmaAddr(0xffff_e000), 4096)]);
    assert_eq!(did.flushed.len(), 1);
}

#[test]
fn links_and_their_bounce_slots() {
    let ops = join(
        r#"
        io-1 [000] ...2. 1.000001: iova_try_alloc: (f+0x4/0x120) dev="0000:02:00.0" state=0xf0 phys=0x97e8400 size=7168
        io-1 [000] ...2. 1.000002: iova_alloc: (f+0x0/0x1) domain=0xff00 size=8192 limit=0xffffffff dev="0000:02:00.0"
        io-1 [000] ...2. 1.000003: iova_alloc_ret: (a+0x0/0x1 <- f) iova=0xffff0000
        io-1 [000] ...1. 1.000004: iova_try_alloc_ret: (a+0x0/0x1 <- f) dev="0000:02:00.0" state=0xf0 ret=1 iova=0xffff0400 isize=0x1c00
        io-1 [000] ...2. 1.000005: iova_link: (f+0x4/0x350) dev="0000:02:00.0" state=0xf0 iova=0xffff0400 phys=0x97e8400 offset=0x0 size=7168 dir=2 attrs=0x0
        io-1 [000] ...1. 1.000006: swiotlb_map: (a+0x0/0x1 <- f) dev="0000:02:00.0" phys=0x97e8400 size=3072 tlb=0x3abbd400
        io-1 [000] ...1. 1.000007: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0xffff0000 phys=0x3abbd000 size=4096 prot=0x6
        io-1 [000] ...1. 1.000008: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0xffff1000 phys=0x97e9000 size=4096 prot=0x6
        io-1 [000] ...1. 1.000009: iova_link_ret: (a+0x0/0x1 <- f) state=0xf0 ret=0
        io-1 [000] d.h2. 1.000010: iova_destroy: (f+0x4/0x30) dev="0000:02:00.0" state=0xf0 iova=0xffff0400 isize=0x8000000000001c00 mapped_len=7168 dir=2 attrs=0x0
        io-1 [000] d.h2. 1.000011: swiotlb_unmap: (f+0x4/0x60) dev="0000:02:00.0" tlb=0x3abbd400 size=3072 dir=2
        io-1 [000] d.h2. 1.000012: unmap: IOMMU: iova=0x00000000ffff0000 - 0x00000000ffff2000 size=8192 unmapped_size=8192
        io-1 [000] d.h2. 1.000013: iova_dofree: (f+0x0/0x1) domain=0xff00 iova=0xffff0000 size=8192"#
            .trim_start(),
    );
    let lines: Vec<_> = ops.iter().map(|o| o.line).collect();
    assert_eq!(lines, [3, 5, 13]);
    let Call::Link { did, .. } = &ops[1].call else {
        panic!("{:?}", ops[1])
    };
    assert_eq!((did.tables.len(), did.bounces.len()), (2, 1));
    let Call::Destroy { did, bounced, .. } = &ops[2].call else {
        panic!("{:?}", ops[2])
    };
    assert!(bounced);
    assert_eq!(did.bounces, [3072]);
}

#[test]
fn lists_and_coherent_memory_are_traced_before_they_are_freed() {
    let free = |start: &str| {
        format!(
            "ip-2 [001] ..... 1.000002: unmap: IOMMU: iova=0x00000000{start}000 - 0x00000000{start}fff size=4096 unmapped_size=4096\n\
             ip-2 [001] ..... 1.000003: iova_dofree: (f+0x0/0x1) domain=0xff00 iova=0x{start}000 size=4096\n"
        )
    };
    let ops = join(
        &(String::from(
            "ip-2 [001] ..... 1.000001: dma_unmap_sg: 0000:01:00.0 dir=TO_DEVICE phys_addrs={0x1000} attrs=\n",
        ) + &free("fffff")
            + "ip-2 [001] ..... 1.000004: dma_free: 0000:01:00.0 dir=BIDIRECTIONAL dma_addr=ffffe000 size=64 virt_addr=000000006c544591 attrs=\n"
            + &free("ffffe")
            + "ip-2 [001] ..... 1.000007: dma_free: 0000:01:00.0 dir=BIDIRECTIONAL dma_addr=80aa000 size=8192 virt_addr=000000006c544591 attrs="),
    );
    let lines: Vec<_> = ops.iter().map(|o| o.line).collect();
    assert_eq!(lines, [3, 6, 7]);
    let iova = |o: &Operation| match &o.call {
        Call::UnmapSg { did, .. } | Call::Free { did, .. } => did.tables.first().map(|t| t.0.0),
        _ => panic!("{o:?}"),
    };
    let iovas: Vec<_> = ops.iter().map(iova).collect();
    assert_eq!(iovas, [Some(0xffff_f000), Some(0xffff_e000), None]);
}

#[test]
fn an_identity_mapping_belongs_to_no_driver_and_a_cut_call_is_left_out() {
    let ops = join(
        r#"
        init-1 [001] ..... 1.000001: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0x0 phys=0x0 size=16777216 prot=0x3
        init-1 [001] ..... 1.000002: map: IOMMU: iova=0x0000000000000000 - 0x0000000001000000 paddr=0x0000000000000000 size=16777216
        init-1 [001] ..... 1.000003: iova_alloc: (f+0x0/0x1) domain=0xff00 size=4096 limit=0xffffffff dev="0000:01:00.0""#
            .trim_start(),
    );
    assert_eq!(ops.len(), 1);
    assert!(matches!(ops[0].call, Call::Skip { .. }));
}

#[test]
fn lengths_of_merged_entries() {
    let t = |iova: u64, phys: u64, size| TableMap {
        iova: DmaAddr(iova),
        phys: PhysAddr(phys),
        size,
        prot: Some(7),
    };
    let p = |list: &[u64]| list.iter().map(|p| PhysAddr(*p)).collect::<Vec<_>>();
    // Three entries, the first two adjacent, made one segment.
    let lengths = sg_lengths(
        &p(&[0x1800, 0x2000, 0x9000]),
        &[(DmaAddr(0xf_0800), 0x800 + 0x1000 + 0x234)],
        &[t(0xf_0000, 0x1000, 0x2000), t(0xf_2000, 0x9000, 0x1000)],
    );
    assert_eq!(lengths, Some(vec![0x800, 0x1000, 0x234]));
    // An entry that ends inside a page ends its segment.
    let lengths = sg_lengths(
        &p(&[0x1000, 0x5000, 0x6000]),
        &[(DmaAddr(0xf_0000), 0x100), (DmaAddr(0xf_1000), 0x1200)],
        &[t(0xf_0000, 0x1000, 0x1000), t(0xf_1000, 0x5000, 0x2000)],
    );
    assert_eq!(lengths, Some(vec![0x100, 0x1000, 0x200]));
    assert_eq!(
        sg_lengths(&p(&[0x1000, 0x9000]), &[(DmaAddr(0), 1)], &[]),
        None
    );
}

/// What stands where, in short.
fn order(ops: &[Operation]) -> Vec<(u64, usize, String)> {
    let short = |o: &Operation| match &o.call {
        Call::MapPhys { dma, .. } => format!("map {:x}", dma.unwrap().0),
        Call::UnmapPhys { dma, .. } => format!("unmap {:x}", dma.0),
        Call::Flush { devices, part } => {
            let names: Vec<_> = devices.iter().map(ToString::to_string).collect();
            format!("{part:?} {}", names.join(" "))
        }
        other => panic!("{other:?}"),
    };
    ops.iter().map(|o| (o.line, o.cpu, short(o))).collect()
}

const ATTACHED: &str = "\
init-1 [000] ..... 1.000000: add_device_to_group: IOMMU: groupID=0 device=0000:00:1f.0
init-1 [000] ..... 1.000000: add_device_to_group: IOMMU: groupID=0 device=0000:00:1f.2
init-1 [000] ..... 1.000000: add_device_to_group: IOMMU: groupID=1 device=0000:01:00.0
init-1 [000] ..... 1.000000: attach_device_to_domain: IOMMU: device=0000:00:1f.0
init-1 [000] ..... 1.000000: attach_device_to_domain: IOMMU: device=0000:00:1f.2
init-1 [000] ..... 1.000000: attach_device_to_domain: IOMMU: device=0000:01:00.0
";

fn unmap(context: &str, time: &str, iova: &str) -> String {
    format!(
        "{context} {time}1: unmap: IOMMU: iova=0x00000000{iova}000 - 0x00000000{iova}fff size=4096 unmapped_size=4096\n\
         {context} {time}2: iova_dofree: (f+0x0/0x1) domain=0xff00 iova=0x{iova}000 size=4096\n"
    )
}

fn unmapped(context: &str, time: &str, iova: &str) -> String {
    format!(
        "{context} {time}9: dma_unmap_phys: 0000:01:00.0 dir=TO_DEVICE dma_addr={iova}000 size=64 attrs=\n"
    )
}

fn flush(context: &str, time: &str, domain: u32) -> String {
    format!(
        "{context} {time}: cache_tag_flush_range: dmar0 dmar0[0] type iotlb did {domain} \
         [0x0-0xffffffffffffffff] addr 0x0 mask 0x34\n"
    )
}

#[test]
fn a_timer_flushes_one_domain_and_begins_before_its_event() {
    let (task, idle) = ("io-1 [001] .....", "<idle>-0 [000] d.s2.");
    // Line 8 is too old; 10 is inside of the time that the timer takes.
    let text = String::from(ATTACHED)
        + &unmap(task, "2.00000", "ffffe")
        + &unmapped(task, "2.00000", "ffffe")
        + &unmap(task, "2.00020", "ffffd")
        + &unmapped(task, "2.00020", "ffffd")
        + &flush(idle, "2.000250", 3);
    assert_eq!(
        order(&join(&text)),
        [
            (8, 1, "unmap ffffe000".to_owned()),
            (10, 0, "Begin 0000:01:00.0".to_owned()),
            (11, 1, "unmap ffffd000".to_owned()),
            (13, 0, "End 0000:01:00.0".to_owned()),
        ]
    );
    // On the same CPU it cannot have begun before the CPU's last line.
    let text = text.replace("[000] d.s2.", "[001] d.s2.");
    let ops = order(&join(&text));
    assert_eq!(ops[2], (13, 1, "Begin 0000:01:00.0".to_owned()));
    // Devices of a group share a domain; an unknown domain may be anybody's.
    let ops = order(&join(&text.replace("did 3", "did 2")));
    assert_eq!(ops[3].2, "End 0000:00:1f.0 0000:00:1f.2");
    let ops = order(&join(&text.replace("did 3", "did 77")));
    assert_eq!(ops[3].2, "End ");
}

#[test]
fn a_flush_inside_an_unmap_is_a_full_ring() {
    let task = "io-1 [001] d.s2.";
    let text = String::from(ATTACHED)
        + &unmap(task, "2.00000", "ffffe")
        + &flush(task, "2.000004", 3)
        + &unmapped(task, "2.00000", "ffffe");
    let ops = order(&join(&text));
    assert_eq!(
        ops,
        [
            (8, 1, "unmap ffffe000".to_owned()),
            (9, 1, "Full 0000:01:00.0".to_owned()),
        ]
    );
}

#[test]
fn an_allocation_happens_late_unless_it_is_interrupted_and_on_the_cpu_where_it_began() {
    let map = |cpu: u8, other: &str| {
        format!(
            r#"io-1 [001] ..... 2.000001: iova_alloc: (f+0x0/0x1) domain=0xff00 size=4096 limit=0xffffffffffffffff dev="0000:01:00.0"
{other}io-1 [00{cpu}] ..... 2.000020: iova_alloc_ret: (a+0x0/0x1 <- f) iova=0xfffff000
io-1 [00{cpu}] ..... 2.000030: dma_map_phys: 0000:01:00.0 dir=TO_DEVICE dma_addr=fffff000 size=64 phys_addr=9000000 attrs="#
        )
    };
    let free =
        |context: &str| unmap(context, "2.00001", "ffffe") + &unmapped(context, "2.00001", "ffffe");
    // Another CPU's call is before it.
    let ops = order(&join(&map(1, &free("nc-2 [000] d.s2."))));
    assert_eq!(ops[0].2, "unmap ffffe000");
    assert_eq!(ops[1], (5, 1, "map fffff000".to_owned()));
    // What runs on its CPU in between is after it, also when the task goes on elsewhere.
    let ops = order(&join(&map(0, &free("<idle>-0 [001] d.h2."))));
    assert_eq!(ops[0], (2, 1, "map fffff000".to_owned()));
    assert_eq!(ops[1].2, "unmap ffffe000");
}

#[test]
fn lost_probes_leave_calls_where_the_rest_of_them_is() {
    let text = r#"io-1 [001] ..... 2.000001: iova_alloc_ret: (a+0x0/0x1 <- f) iova=0xfffff000
io-1 [001] ..... 2.000002: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0xfffff000 phys=0x9000000 size=4096 prot=0x5
nc-2 [000] ..... 2.000003: unmap: IOMMU: iova=0x00000000ffffe000 - 0x00000000fffff000 size=4096 unmapped_size=4096
io-1 [001] ..... 2.000004: dma_map_phys: 0000:01:00.0 dir=TO_DEVICE dma_addr=fffff000 size=64 phys_addr=9000000 attrs=
nc-2 [000] ..... 2.000005: dma_unmap_phys: 0000:01:00.0 dir=TO_DEVICE dma_addr=ffffe000 size=64 attrs="#;
    let ops = order(&join(text));
    assert_eq!(ops[0], (1, 1, "map fffff000".to_owned()));
    assert_eq!(ops[1], (3, 0, "unmap ffffe000".to_owned()));
}
