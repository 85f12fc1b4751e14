//! Replays on a machine made of maps.

mod captures;
mod fake;

use std::{fs, path::Path};

use tlproof_dma::Profile;

use super::{
    calls::Replayer,
    compare::{Comparison, Difference},
    machine::Plan,
    read, run, traffic,
};
use crate::{report::Share, trace::Capture};
use fake::{Defect, Fake};

/// What came of a replay.
struct Replayed {
    fake: Fake,
    plan: Plan,
    counts: super::calls::Counts,
    traffic: traffic::Counts,
    compared: u64,
    differed: u64,
    prot: Share,
    attrs: Share,
    iova: Share,
    differences: Vec<Difference>,
    truncated: Option<String>,
}

fn replay(path: &Path, profile: Profile, defect: Defect) -> Replayed {
    let mut capture = Capture::open(path).unwrap();
    let operations = read(&mut capture).unwrap();
    let plan = Plan::new(&capture, &operations).unwrap();
    let mut fake = Fake::new(&plan, profile, defect);
    let blocking = plan.blocking(profile);
    let mut r = Replayer::new(&mut fake, &plan, &operations, (7, blocking));
    assert!(!run(&mut r, &operations, |_| {}).unwrap());
    let (counts, traffic) = (r.counts, r.traffic.counts);
    let comparison: Comparison = std::mem::take(&mut r.comparison);
    Replayed {
        fake,
        counts,
        traffic,
        plan,
        compared: comparison.compared,
        differed: comparison.differed,
        prot: comparison.prot,
        attrs: comparison.attrs,
        iova: comparison.iova,
        differences: comparison.into_differences(),
        truncated: capture.trace.truncated().map(str::to_owned),
    }
}

/// A capture of two functions behind different root ports, the first with peer memory.
fn capture(dir: &Path, name: &str, iommu: bool, trace: &str) -> std::path::PathBuf {
    let group = if iommu {
        "iommu_group=5 iommu_group_type=DMA"
    } else {
        "iommu_group=- iommu_group_type=-"
    };
    let function = |bus: u8, port: u8, bars: &str| {
        format!(
            "dev 0000:0{bus}:00.0 vendor=0x1b36 device=0x0010 class=0x010802 driver=nvme {group} \
             dma_mask_bits=64 consistent_dma_mask_bits=64 \
             path=pci0000:00/0000:00:0{port}.0/0000:0{bus}:00.0\n{bars}"
        )
    };
    let bar =
        |base: &str, last: &str| format!("  res2 0x00000000{base} 0x00000000{last} 0x14220c\n");
    let pci = function(1, 3, &bar("f0000000", "f3ffffff"))
        + &function(2, 4, &bar("fe600000", "fe603fff"));
    let iomem = "00100000-3ffcffff : System RAM\nc0000000-febfffff : PCI Bus 0000:00\n";
    fs::write(dir.join(format!("{name}.pci")), pci).unwrap();
    fs::write(dir.join(format!("{name}.iomem")), iomem).unwrap();
    let path = dir.join(format!("{name}.trace"));
    let lines: String = trace
        .lines()
        .map(|l| format!("{}\n", l.trim_start()))
        .collect();
    fs::write(&path, lines).unwrap();
    path
}

/// A peer's BAR through the host bridge and a buffer in memory, as the kernel traced them.
const PEER: &str = r#"io-157 [000] ...2. 12.000001: iova_alloc: (f+0x0/0x1) domain=0xff00 size=4096 limit=0xffffffffffffffff dev="0000:02:00.0"
    io-157 [000] ...1. 12.000002: iova_alloc_ret: (a+0x0/0x1 <- f) iova=0xfffff000
    io-157 [000] ...1. 12.000003: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0xfffff000 phys=0xf0069000 size=4096 prot=0x11
    io-157 [000] ..... 12.000004: map: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 paddr=0x00000000f0069000 size=4096
    io-157 [000] ..... 12.000005: dma_map_phys: 0000:02:00.0 dir=TO_DEVICE dma_addr=fffff200 size=512 phys_addr=f0069200 attrs=MMIO
    io-157 [000] ...2. 12.000006: iova_alloc: (f+0x0/0x1) domain=0xff00 size=8192 limit=0xffffffffffffffff dev="0000:02:00.0"
    io-157 [000] ...1. 12.000007: iova_alloc_ret: (a+0x0/0x1 <- f) iova=0xffffc000
    io-157 [000] ...1. 12.000008: iommu_map_prot: (f+0x4/0x310) domain=0xff00 iova=0xffffc000 phys=0x8000000 size=8192 prot=0x6
    io-157 [000] ..... 12.000009: map: IOMMU: iova=0x00000000ffffc000 - 0x00000000ffffe000 paddr=0x0000000008000000 size=8192
    io-157 [000] ..... 12.000010: dma_map_phys: 0000:02:00.0 dir=FROM_DEVICE dma_addr=ffffc100 size=7936 phys_addr=8000100 attrs=
    <idle>-0 [000] d.h1. 12.000011: unmap: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 size=4096 unmapped_size=4096
    <idle>-0 [000] d.h1. 12.000012: cache_tag_flush_range: dmar0 dmar0[0] type iotlb did 8 [0xfffff000-0xffffffff] addr 0xfffff000 mask 0x0
    <idle>-0 [000] d.h1. 12.000013: iova_dofree: (f+0x0/0x1) domain=0xff00 iova=0xfffff000 size=4096
    <idle>-0 [000] d.h1. 12.000014: dma_unmap_phys: 0000:02:00.0 dir=TO_DEVICE dma_addr=fffff200 size=512 attrs=MMIO
    <idle>-0 [000] d.h1. 12.000015: unmap: IOMMU: iova=0x00000000ffffc000 - 0x00000000ffffe000 size=8192 unmapped_size=8192
    <idle>-0 [000] d.h1. 12.000016: cache_tag_flush_range: dmar0 dmar0[0] type iotlb did 8 [0xffffc000-0xffffdfff] addr 0xffffc000 mask 0x1
    <idle>-0 [000] d.h1. 12.000017: iova_dofree: (f+0x0/0x1) domain=0xff00 iova=0xffffc000 size=8192
    <idle>-0 [000] d.h1. 12.000018: dma_unmap_phys: 0000:02:00.0 dir=FROM_DEVICE dma_addr=ffffc100 size=7936 attrs=
"#;

#[test]
fn decisions_of_the_kernel_are_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let path = capture(dir.path(), "peer", true, PEER);
    let r = replay(&path, Profile::Intended, Defect::None);
    assert_eq!((r.counts.mappings, r.counts.replayed), (2, 2));
    assert!(r.compared >= 16, "{}", r.compared);
    assert_eq!(r.differed, 0, "{:?}", r.differences);
    assert!(r.differences.is_empty(), "{:?}", r.differences);
    assert_eq!((r.fake.promised, r.fake.refused, r.fake.leaked), (0, 0, 0));
}

#[test]
fn a_cacheable_mapping_of_a_bar_is_a_difference() {
    let dir = tempfile::tempdir().unwrap();
    let path = capture(dir.path(), "peer", true, PEER);
    let r = replay(&path, Profile::PreSeries, Defect::None);
    assert_eq!(r.differed, 1);
    assert!(
        r.differences[0].reason.contains("BAR for memory"),
        "{:?}",
        r.differences
    );
    let other = capture(
        dir.path(),
        "other",
        true,
        &PEER.replace("prot=0x6", "prot=0x2"),
    );
    let r = replay(&other, Profile::Intended, Defect::None);
    assert_eq!(
        r.differences[0].reason,
        "cacheability of a page-table entry"
    );
}

#[test]
fn a_kernel_without_dma_domains_differs_in_every_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let path = capture(dir.path(), "peer", true, PEER);
    let r = replay(&path, Profile::Linux72, Defect::None);
    assert_eq!(
        (r.differed, r.differences.len()),
        (2, 1),
        "{:?}",
        r.differences
    );
}

#[test]
fn other_addresses_and_refused_calls_are_differences() {
    let dir = tempfile::tempdir().unwrap();
    let moved = PEER.replace(
        "iova=0xffffc000 phys=0x8000000",
        "iova=0xffffc000 phys=0x8001000",
    );
    let r = replay(
        &capture(dir.path(), "a", true, &moved),
        Profile::Intended,
        Defect::None,
    );
    assert_eq!(
        r.differences[0].reason,
        "physical address put into the page table"
    );
    let failed = PEER.replace(
        "dma_addr=fffff200 size=512 phys",
        "dma_addr=ffffffffffffffff size=512 phys",
    );
    let r = replay(
        &capture(dir.path(), "c", true, &failed),
        Profile::Intended,
        Defect::None,
    );
    assert!(
        r.differences
            .iter()
            .any(|d| d.reason.contains("succeeds here"))
    );
}

/// A DMA mask that the buffer is beyond: the kernel of the trace mapped it, our API refuses.
#[test]
fn a_call_that_is_refused_here_is_a_difference() {
    let dir = tempfile::tempdir().unwrap();
    let line = "io-1 [000] ..... 1.000001: dma_map_phys: 0000:02:00.0 dir=FROM_DEVICE \
                dma_addr=8000100 size=300 phys_addr=8000100 attrs=\n";
    let path = capture(dir.path(), "mask", false, line);
    let pci = path.with_extension("pci");
    let text = fs::read_to_string(&pci).unwrap();
    fs::write(&pci, text.replace(" dma_mask_bits=64", " dma_mask_bits=24")).unwrap();
    let r = replay(&path, Profile::Intended, Defect::None);
    assert_eq!(
        (r.counts.mappings, r.counts.replayed, r.differed),
        (1, 0, 1)
    );
    assert!(
        r.differences[0].reason.contains("the call is refused here"),
        "{:?}",
        r.differences
    );
}

#[test]
fn a_list_without_functions_is_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = capture(dir.path(), "empty", true, PEER);
    let pci = path.with_extension("pci");
    let text = fs::read_to_string(&pci).unwrap();
    for (text, reason) in [
        (String::new(), "empty.pci: lists no PCI function"),
        (
            text.replace("  res2", "  res13"),
            "empty.pci: lists no function with a driver and a memory BAR",
        ),
    ] {
        fs::write(&pci, text).unwrap();
        let e = Capture::open(&path).unwrap().memory_map().unwrap_err();
        assert!(e.to_string().ends_with(reason), "{e}");
    }
}

#[test]
fn a_cut_trace_is_replayed_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let at = PEER.find("<idle>-0 [000] d.h1. 12.000013").unwrap();
    let path = capture(dir.path(), "cut", true, &PEER[..at]);
    // Without its newline the last line may have lost digits.
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.trim_end()).unwrap();
    let r = replay(&path, Profile::Intended, Defect::None);
    assert!(r.truncated.is_some());
    assert_eq!((r.counts.replayed, r.fake.promised), (2, 2));
}

#[test]
fn remapping_without_unmap_and_peers_need_no_iommu() {
    let dir = tempfile::tempdir().unwrap();
    let line = |i: u64| {
        format!(
            "io-1 [000] ..... 1.{i:06}: dma_map_phys: 0000:02:00.0 dir=FROM_DEVICE \
             dma_addr=8000100 size=300 phys_addr=8000100 attrs=\n\
             io-1 [000] ..... 1.{i:06}: dma_map_phys: 0000:02:00.0 dir=TO_DEVICE \
             dma_addr=f0069000 size=4096 phys_addr=f0069000 attrs=MMIO\n"
        )
    };
    let text: String = (0..200).map(line).collect();
    let r = replay(
        &capture(dir.path(), "direct", false, &text),
        Profile::Intended,
        Defect::None,
    );
    assert_eq!(
        (r.counts.replayed, r.differed),
        (400, 0),
        "{:?}",
        r.differences
    );
    assert!(r.traffic.transfers > 50 && r.fake.compared > 0);
    assert_eq!((r.fake.wrong, r.fake.refused), (0, 0));
    assert_eq!(r.traffic.probes, 0);
    // The same with a device that writes something else.
    let r = replay(
        &capture(dir.path(), "direct", false, &text),
        Profile::Intended,
        Defect::Data,
    );
    assert!(r.fake.wrong > 0);
}

#[test]
fn an_open_iommu_is_found_by_probes() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..40).map(|_| PEER).collect();
    let path = capture(dir.path(), "probes", true, &text);
    let good = replay(&path, Profile::Intended, Defect::None);
    assert!(good.traffic.probes > 0);
    assert_eq!((good.fake.leaked, good.fake.wrong), (0, 0));
    let open = replay(&path, Profile::Intended, Defect::Open);
    assert!(open.fake.leaked > 0);
}
