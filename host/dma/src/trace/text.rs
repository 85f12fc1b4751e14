//! What the kernel prints for each event: the `TP_printk` texts of the systems dma, iommu and
//! swiotlb, and the texts of probes on functions that have no tracepoint.
//!
//! A probe's text begins with the place in the code: the function and an offset in it, for a return
//! the caller before. There is no machine code here; offsets are 0 of 0 and callers are `tlproof`.
//! Kernel pointers are made up: equal for equal things, and in the direct map of x86-64 like those
//! of the kernels that recordings come from.

use std::fmt;

use tlproof_pcie::{Bdf, Direction, PhysAddr};

use super::Event;
use crate::iommu::DomainId;

/// Most entries of a list that `dma_map_sg` prints (`DMA_TRACE_MAX_ENTRIES`).
pub const MAX_ENTRIES: usize = 128;

/// `struct page` array of x86-64, and the size of its entries.
const VMEMMAP: u64 = 0xffff_ea00_0000_0000;
const STRUCT_PAGE: u64 = 64;

/// What allocations here ask for; callers can sleep.
const GFP: &str = "GFP_KERNEL";

/// A line's event and its text.
type Put<'a> = &'a mut dyn FnMut(&'static str, fmt::Arguments<'_>);

/// `{0x..,0x..}`, at most so many.
struct Array<I>(I, usize);

impl<I: Iterator<Item = u64> + Clone> fmt::Display for Array<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, x) in self.0.clone().take(self.1).enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{x:#x}")?;
        }
        f.write_str("}")
    }
}

/// The whole of a list.
fn array<T: Copy>(list: &[T], value: fn(T) -> u64) -> impl fmt::Display + '_ {
    Array(list.iter().map(move |x| value(*x)), usize::MAX)
}

/// The part of a list that `dma_map_sg` prints.
fn listed<T: Copy>(list: &[T], value: fn(T) -> u64) -> impl fmt::Display + '_ {
    Array(list.iter().map(move |x| value(*x)), MAX_ENTRIES)
}

/// A device's name.
struct Name(Bdf);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0000:{}", self.0)
    }
}

/// `%p` of the kernel address of a buffer: a hash of 32 bits.
struct Hashed(Option<PhysAddr>);

impl fmt::Display for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(phys) = self.0 else {
            return f.write_str("(null)");
        };
        // The multiplier of splitmix64; any mixture of the bits will do.
        let hash = (phys.0 ^ phys.0 >> 12).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
        write!(f, "{hash:016x}")
    }
}

const fn number(dir: Direction) -> u8 {
    match dir {
        Direction::Bidirectional => 0,
        Direction::ToDevice => 1,
        Direction::FromDevice => 2,
    }
}

/// Address of a `struct dma_iova_state`.
const fn state_at(state: u64) -> u64 {
    0xffff_8880_1000_0000 + state * 0x20
}

/// Address of a `struct iommu_domain`.
const fn domain_at(domain: DomainId) -> u64 {
    0xffff_8880_0a00_0000 + domain.0 as u64 * 0x200
}

/// The place of a probe at the beginning of a function.
struct Entry(&'static str);

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}+0x0/0x0)", self.0)
    }
}

/// The place of a probe at the end of a function.
struct Return(&'static str);

impl fmt::Display for Return {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(tlproof+0x0/0x0 <- {})", self.0)
    }
}

impl Event {
    /// The lines that a kernel's trace has for the event, as name and text: none for what a kernel
    /// does not trace, two where a function is probed at both ends. `provider` gives the address of
    /// the `struct p2pdma_provider` of peer memory.
    pub fn kernel_lines(&self, provider: &dyn Fn(PhysAddr) -> u64, put: Put<'_>) {
        match self {
            Self::IovaTryAlloc { .. }
            | Self::IovaTryAllocRet { .. }
            | Self::IovaLink { .. }
            | Self::IovaLinkRet { .. }
            | Self::IovaSync { .. }
            | Self::IovaSyncRet { .. }
            | Self::IovaUnlink { .. }
            | Self::IovaFree { .. }
            | Self::IovaDestroy { .. }
            | Self::IovaAlloc { .. }
            | Self::IovaDofree { .. } => self.iova_lines(put),
            Self::IommuMap { .. }
            | Self::IommuUnmap { .. }
            | Self::IotlbSync { .. }
            | Self::FlushAll { .. }
            | Self::SwiotlbBounced { .. }
            | Self::SwiotlbMap { .. }
            | Self::SwiotlbUnmap { .. }
            | Self::ArchSyncForDevice { .. }
            | Self::ArchSyncForCpu { .. }
            | Self::P2pState { .. } => self.inner_lines(provider, put),
            _ => self.dma_lines(put),
        }
    }

    /// The system dma.
    fn dma_lines(&self, put: Put<'_>) {
        match self {
            Self::DmaMapPhys {
                dev,
                phys,
                dma,
                size,
                dir,
                attrs,
            } => put(
                "dma_map_phys",
                format_args!(
                    "{} dir={} dma_addr={:x} size={size} phys_addr={:x} attrs={attrs}",
                    Name(*dev),
                    dir.name(),
                    dma.map_or(u64::MAX, |d| d.0),
                    phys.0
                ),
            ),
            Self::DmaUnmapPhys {
                dev,
                dma,
                size,
                dir,
                attrs,
            } => put(
                "dma_unmap_phys",
                format_args!(
                    "{} dir={} dma_addr={:x} size={size} attrs={attrs}",
                    Name(*dev),
                    dir.name(),
                    dma.0
                ),
            ),
            Self::DmaMapSg {
                dev,
                phys,
                dma,
                sizes,
                dir,
                attrs,
            } => {
                let (nents, ents) = (phys.len(), dma.len());
                put(
                    "dma_map_sg",
                    format_args!(
                        "{} dir={} nents={}/{nents} ents={}/{ents}{} dma_addrs={} sizes={} \
                         phys_addrs={} attrs={attrs}",
                        Name(*dev),
                        dir.name(),
                        nents.min(MAX_ENTRIES),
                        ents.min(MAX_ENTRIES),
                        if nents.max(ents) > MAX_ENTRIES {
                            " [TRUNCATED]"
                        } else {
                            ""
                        },
                        listed(dma, |a| a.0),
                        listed(sizes, |s| s),
                        listed(phys, |a| a.0)
                    ),
                );
            }
            Self::DmaMapSgErr {
                dev,
                phys,
                err,
                dir,
                attrs,
            } => put(
                "dma_map_sg_err",
                // The label is the kernel's.
                format_args!(
                    "{} dir={} dma_addrs={} err={err} attrs={attrs}",
                    Name(*dev),
                    dir.name(),
                    array(phys, |a| a.0)
                ),
            ),
            Self::DmaUnmapSg {
                dev,
                phys,
                dir,
                attrs,
            } => put(
                "dma_unmap_sg",
                format_args!(
                    "{} dir={} phys_addrs={} attrs={attrs}",
                    Name(*dev),
                    dir.name(),
                    array(phys, |a| a.0)
                ),
            ),
            Self::SyncSingleForCpu {
                dev,
                dma,
                size,
                dir,
            }
            | Self::SyncSingleForDevice {
                dev,
                dma,
                size,
                dir,
            } => put(
                match self {
                    Self::SyncSingleForCpu { .. } => "dma_sync_single_for_cpu",
                    _ => "dma_sync_single_for_device",
                },
                format_args!(
                    "{} dir={} dma_addr={:x} size={size}",
                    Name(*dev),
                    dir.name(),
                    dma.0
                ),
            ),
            Self::SyncSgForCpu {
                dev,
                dma,
                sizes,
                dir,
            }
            | Self::SyncSgForDevice {
                dev,
                dma,
                sizes,
                dir,
            } => put(
                match self {
                    Self::SyncSgForCpu { .. } => "dma_sync_sg_for_cpu",
                    _ => "dma_sync_sg_for_device",
                },
                format_args!(
                    "{} dir={} dma_addrs={} sizes={}",
                    Name(*dev),
                    dir.name(),
                    array(dma, |a| a.0),
                    array(sizes, |s| s)
                ),
            ),
            _ => self.alloc_lines(put),
        }
    }

    /// Allocations of the system dma.
    fn alloc_lines(&self, put: Put<'_>) {
        match self {
            Self::DmaAlloc {
                dev,
                phys,
                dma,
                size,
                dir,
                attrs,
            }
            | Self::DmaAllocPages {
                dev,
                phys,
                dma,
                size,
                dir,
                attrs,
            } => put(
                match self {
                    Self::DmaAlloc { .. } => "dma_alloc",
                    _ => "dma_alloc_pages",
                },
                format_args!(
                    "{} dir={} dma_addr={:x} size={size} virt_addr={} flags={GFP} attrs={attrs}",
                    Name(*dev),
                    dir.name(),
                    dma.map_or(0, |d| d.0),
                    Hashed(*phys)
                ),
            ),
            Self::DmaAllocSgtErr {
                dev,
                size,
                dir,
                attrs,
            } => put(
                "dma_alloc_sgt_err",
                format_args!(
                    "{} dir={} dma_addr=0 size={size} virt_addr={} flags={GFP} attrs={attrs}",
                    Name(*dev),
                    dir.name(),
                    Hashed(None)
                ),
            ),
            Self::DmaAllocSgt {
                dev,
                phys,
                dma,
                size,
                dir,
                attrs,
            } => put(
                "dma_alloc_sgt",
                format_args!(
                    "{} dir={} dma_addr={:x} size={size} phys_addrs={} flags={GFP} attrs={attrs}",
                    Name(*dev),
                    dir.name(),
                    dma.0,
                    array(phys, |a| a.0)
                ),
            ),
            Self::DmaFree {
                dev,
                phys,
                dma,
                size,
                dir,
                attrs,
            }
            | Self::DmaFreePages {
                dev,
                phys,
                dma,
                size,
                dir,
                attrs,
            } => put(
                match self {
                    Self::DmaFree { .. } => "dma_free",
                    _ => "dma_free_pages",
                },
                format_args!(
                    "{} dir={} dma_addr={:x} size={size} virt_addr={} attrs={attrs}",
                    Name(*dev),
                    dir.name(),
                    dma.0,
                    Hashed(Some(*phys))
                ),
            ),
            Self::DmaFreeSgt {
                dev,
                phys,
                dma,
                size,
                dir,
            } => put(
                "dma_free_sgt",
                format_args!(
                    "{} dir={} dma_addr={:x} size={size} phys_addrs={}",
                    Name(*dev),
                    dir.name(),
                    dma.0,
                    array(phys, |a| a.0)
                ),
            ),
            _ => {}
        }
    }

    /// Probes of the two-step API and of the IOVA allocator.
    fn iova_lines(&self, put: Put<'_>) {
        match self {
            Self::IovaTryAlloc {
                dev,
                state,
                phys,
                size,
            } => put(
                "iova_try_alloc",
                format_args!(
                    "{} dev=\"{}\" state={:#x} phys={phys:#x} size={size}",
                    Entry("dma_iova_try_alloc"),
                    Name(*dev),
                    state_at(*state)
                ),
            ),
            Self::IovaTryAllocRet {
                dev,
                state,
                iova,
                isize,
            } => put(
                "iova_try_alloc_ret",
                format_args!(
                    "{} dev=\"{}\" state={:#x} ret={} iova={:#x} isize={isize:#x}",
                    Return("dma_iova_try_alloc"),
                    Name(*dev),
                    state_at(*state),
                    u8::from(iova.is_some()),
                    iova.map_or(0, |a| a.0)
                ),
            ),
            Self::IovaLink {
                dev,
                state,
                iova,
                phys,
                offset,
                size,
                dir,
                attrs,
            } => put(
                "iova_link",
                format_args!(
                    "{} dev=\"{}\" state={:#x} iova={iova:#x} phys={phys:#x} offset={offset:#x} \
                     size={size} dir={} attrs={:#x}",
                    Entry("dma_iova_link"),
                    Name(*dev),
                    state_at(*state),
                    number(*dir),
                    attrs.bits()
                ),
            ),
            Self::IovaLinkRet { state, ret } => put(
                "iova_link_ret",
                format_args!(
                    "{} state={:#x} ret={ret}",
                    Return("dma_iova_link"),
                    state_at(*state)
                ),
            ),
            Self::IovaSync {
                dev,
                state,
                iova,
                offset,
                size,
            } => put(
                "iova_sync",
                format_args!(
                    "{} dev=\"{}\" state={:#x} iova={iova:#x} offset={offset:#x} size={size}",
                    Entry("dma_iova_sync"),
                    Name(*dev),
                    state_at(*state)
                ),
            ),
            Self::IovaSyncRet { ret } => put(
                "iova_sync_ret",
                format_args!("{} ret={ret}", Return("dma_iova_sync")),
            ),
            Self::IovaUnlink {
                dev,
                state,
                iova,
                offset,
                size,
                dir,
                attrs,
            } => put(
                "iova_unlink",
                format_args!(
                    "{} dev=\"{}\" state={:#x} iova={iova:#x} offset={offset:#x} size={size} \
                     dir={} attrs={:#x}",
                    Entry("dma_iova_unlink"),
                    Name(*dev),
                    state_at(*state),
                    number(*dir),
                    attrs.bits()
                ),
            ),
            Self::IovaFree {
                dev,
                state,
                iova,
                isize,
            } => put(
                "iova_free",
                format_args!(
                    "{} dev=\"{}\" state={:#x} iova={iova:#x} isize={isize:#x}",
                    Entry("dma_iova_free"),
                    Name(*dev),
                    state_at(*state)
                ),
            ),
            Self::IovaDestroy {
                dev,
                state,
                iova,
                isize,
                mapped_len,
                dir,
                attrs,
            } => put(
                "iova_destroy",
                format_args!(
                    "{} dev=\"{}\" state={:#x} iova={iova:#x} isize={isize:#x} \
                     mapped_len={mapped_len} dir={} attrs={:#x}",
                    Entry("dma_iova_destroy"),
                    Name(*dev),
                    state_at(*state),
                    number(*dir),
                    attrs.bits()
                ),
            ),
            Self::IovaAlloc {
                domain,
                dev,
                size,
                limit,
                iova,
            } => {
                put(
                    "iova_alloc",
                    format_args!(
                        "{} domain={:#x} size={size} limit={limit:#x} dev=\"{}\"",
                        Entry("iommu_dma_alloc_iova"),
                        domain_at(*domain),
                        Name(*dev)
                    ),
                );
                put(
                    "iova_alloc_ret",
                    format_args!(
                        "{} iova={:#x}",
                        Return("iommu_dma_alloc_iova"),
                        iova.unwrap_or(0)
                    ),
                );
            }
            Self::IovaDofree { domain, iova, size } => put(
                "iova_dofree",
                format_args!(
                    "{} domain={:#x} iova={iova:#x} size={size}",
                    Entry("iommu_dma_free_iova"),
                    domain_at(*domain)
                ),
            ),
            _ => {}
        }
    }

    /// What happens below the calls: the systems iommu and swiotlb, and probes.
    fn inner_lines(&self, provider: &dyn Fn(PhysAddr) -> u64, put: Put<'_>) {
        match self {
            Self::IommuMap {
                domain,
                iova,
                phys,
                size,
                prot,
                ok,
            } => {
                put(
                    "iommu_map_prot",
                    format_args!(
                        "{} domain={:#x} iova={iova:#x} phys={phys:#x} size={size} prot={:#x}",
                        Entry("iommu_map_nosync"),
                        domain_at(*domain),
                        prot.bits()
                    ),
                );
                if *ok {
                    put(
                        "map",
                        format_args!(
                            "IOMMU: iova={iova:#018x} - {:#018x} paddr={:#018x} size={size}",
                            iova.wrapping_add(*size),
                            phys.0
                        ),
                    );
                }
            }
            Self::IommuUnmap {
                domain: _,
                iova,
                size,
                unmapped,
            } => put(
                "unmap",
                format_args!(
                    "IOMMU: iova={iova:#018x} - {:#018x} size={size} unmapped_size={unmapped}",
                    iova.wrapping_add(*size)
                ),
            ),
            Self::SwiotlbBounced {
                dev,
                dma_mask,
                phys,
                size,
                force,
            } => put(
                "swiotlb_bounced",
                format_args!(
                    "dev_name: {} dma_mask={dma_mask:x} dev_addr={:x} size={size} {}",
                    Name(*dev),
                    phys.0,
                    if *force { "FORCE" } else { "NORMAL" }
                ),
            ),
            Self::SwiotlbMap {
                dev,
                phys,
                size,
                tlb,
            } => put(
                "swiotlb_map",
                format_args!(
                    "{} dev=\"{}\" phys={phys:#x} size={size} tlb={tlb:#x}",
                    Return("swiotlb_tbl_map_single"),
                    Name(*dev)
                ),
            ),
            Self::SwiotlbUnmap {
                dev,
                tlb,
                size,
                dir,
            } => put(
                "swiotlb_unmap",
                format_args!(
                    "{} dev=\"{}\" tlb={tlb:#x} size={size} dir={}",
                    Entry("__swiotlb_tbl_unmap_single"),
                    Name(*dev),
                    number(*dir)
                ),
            ),
            Self::P2pState { dev, phys, map } => put(
                "p2p_state",
                format_args!(
                    "{} dev=\"{}\" page={:#x} mem={:#x} map={}",
                    Return("__pci_p2pdma_update_state"),
                    Name(*dev),
                    VMEMMAP.wrapping_add((phys.0 >> 12) * STRUCT_PAGE),
                    provider(*phys),
                    *map as u8
                ),
            ),
            // The RISC-V driver has no tracepoint of its invalidations, and nothing traces cache
            // maintenance.
            _ => {}
        }
    }
}

impl fmt::Display for Event {
    /// One line in the style of the kernel's, with names of our own for domains, and for what a
    /// kernel does not trace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IotlbSync { domain, range } => match range {
                Some((first, last)) => {
                    write!(f, "iotlb_sync: domain={} [{first:#x}-{last:#x}]", domain.0)
                }
                None => write!(f, "iotlb_sync: domain={} []", domain.0),
            },
            Self::FlushAll { domain } => write!(f, "flush_iotlb_all: domain={}", domain.0),
            Self::ArchSyncForDevice { phys, size, dir } => write!(
                f,
                "arch_sync_dma_for_device: phys={phys:#x} size={size} dir={}",
                number(*dir)
            ),
            Self::ArchSyncForCpu { phys, size, dir } => write!(
                f,
                "arch_sync_dma_for_cpu: phys={phys:#x} size={size} dir={}",
                number(*dir)
            ),
            Self::IovaAlloc {
                domain,
                dev,
                size,
                limit,
                iova,
            } => write!(
                f,
                "iova_alloc: domain={} size={size} limit={limit:#x} dev=\"{}\" iova={:#x}",
                domain.0,
                Name(*dev),
                iova.unwrap_or(0)
            ),
            Self::IovaDofree { domain, iova, size } => write!(
                f,
                "iova_dofree: domain={} iova={iova:#x} size={size}",
                domain.0
            ),
            Self::IommuMap {
                domain,
                iova,
                phys,
                size,
                prot,
                ok,
            } => write!(
                f,
                "map: IOMMU: iova={iova:#018x} - {:#018x} paddr={:#018x} size={size} prot={:#x} domain={}{}",
                iova.wrapping_add(*size),
                phys.0,
                prot.bits(),
                domain.0,
                if *ok { "" } else { " failed" }
            ),
            Self::IommuUnmap {
                domain,
                iova,
                size,
                unmapped,
            } => write!(
                f,
                "unmap: IOMMU: iova={iova:#018x} - {:#018x} size={size} unmapped_size={unmapped} domain={}",
                iova.wrapping_add(*size),
                domain.0
            ),
            Self::P2pState { dev, phys, map } => write!(
                f,
                "p2p_state: dev=\"{}\" phys={phys:#x} map={}",
                Name(*dev),
                *map as u8
            ),
            _ => {
                let mut result = Ok(());
                self.kernel_lines(&|_| 0, &mut |name, text| {
                    let text = text.to_string();
                    // Without the place of a probe.
                    let text = match text.strip_prefix('(').and_then(|t| t.split_once(") ")) {
                        Some((_, values)) => values,
                        None => &text,
                    };
                    result = result.and_then(|()| write!(f, "{name}: {text}"));
                });
                result
            }
        }
    }
}
