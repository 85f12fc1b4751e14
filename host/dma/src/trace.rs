//! Events of the DMA API and of what it calls, with the fields of the kernel's trace events.

use std::{cell::RefCell, fmt, rc::Rc};

use tlproof_pcie::{Bdf, Direction, DmaAddr, PhysAddr};

use crate::{
    attrs::Attrs,
    iommu::{DomainId, Prot},
    p2pdma::MapType,
};

/// One event. Order and fields are those of the kernel's tracepoints and of the functions that a
/// probe would catch, so that a replay can be compared line by line.
///
/// `dev` is the Requester ID; addresses and sizes are in bytes; `phys` is a CPU physical address,
/// `dma` what the device sees, `iova` an address of a `domain`, `tlb` a bounce slot; `ret` and `err`
/// are 0 or a negative error number.
#[expect(missing_docs, reason = "the fields are described together")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `dma:dma_map_phys`, also when the mapping failed (`dma` is `None`).
    DmaMapPhys {
        dev: Bdf,
        phys: PhysAddr,
        dma: Option<DmaAddr>,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_unmap_phys`.
    DmaUnmapPhys {
        dev: Bdf,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_map_sg`: all physical addresses, the merged segments.
    DmaMapSg {
        dev: Bdf,
        phys: Vec<PhysAddr>,
        dma: Vec<DmaAddr>,
        sizes: Vec<u64>,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_map_sg_err`.
    DmaMapSgErr {
        dev: Bdf,
        phys: Vec<PhysAddr>,
        err: i32,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_unmap_sg`.
    DmaUnmapSg {
        dev: Bdf,
        phys: Vec<PhysAddr>,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma:dma_alloc`; `dma` is `None` when it failed.
    DmaAlloc {
        dev: Bdf,
        phys: Option<PhysAddr>,
        dma: Option<DmaAddr>,
        size: u64,
        attrs: Attrs,
    },
    /// `dma:dma_free`.
    DmaFree {
        dev: Bdf,
        dma: DmaAddr,
        size: u64,
        attrs: Attrs,
    },
    /// `dma:dma_sync_single_for_cpu`.
    SyncSingleForCpu {
        dev: Bdf,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    },
    /// `dma:dma_sync_single_for_device`.
    SyncSingleForDevice {
        dev: Bdf,
        dma: DmaAddr,
        size: u64,
        dir: Direction,
    },
    /// `dma:dma_sync_sg_for_cpu`.
    SyncSgForCpu {
        dev: Bdf,
        dma: Vec<DmaAddr>,
        sizes: Vec<u64>,
        dir: Direction,
    },
    /// `dma:dma_sync_sg_for_device`.
    SyncSgForDevice {
        dev: Bdf,
        dma: Vec<DmaAddr>,
        sizes: Vec<u64>,
        dir: Direction,
    },
    /// `dma_iova_try_alloc` and its result (`iova` is `None` for false).
    IovaTryAlloc {
        dev: Bdf,
        phys: PhysAddr,
        size: u64,
        iova: Option<DmaAddr>,
    },
    /// `dma_iova_link` and its return value, after the maps that it does.
    IovaLink {
        dev: Bdf,
        iova: DmaAddr,
        phys: PhysAddr,
        offset: u64,
        size: u64,
        dir: Direction,
        attrs: Attrs,
        ret: i32,
    },
    /// `dma_iova_sync`.
    IovaSync {
        dev: Bdf,
        iova: DmaAddr,
        offset: u64,
        size: u64,
        ret: i32,
    },
    /// `dma_iova_unlink`.
    IovaUnlink {
        dev: Bdf,
        iova: DmaAddr,
        offset: u64,
        size: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `dma_iova_free`.
    IovaFree { dev: Bdf, iova: DmaAddr },
    /// `dma_iova_destroy`, before what it undoes; bit 63 of `isize` says that a part was bounced.
    IovaDestroy {
        dev: Bdf,
        iova: DmaAddr,
        isize: u64,
        mapped_len: u64,
        dir: Direction,
        attrs: Attrs,
    },
    /// `iommu_dma_alloc_iova` and its result.
    IovaAlloc {
        domain: DomainId,
        dev: Bdf,
        size: u64,
        limit: u64,
        iova: Option<u64>,
    },
    /// `iommu_dma_free_iova`: given back; with a flush queue reusable after the next flush.
    IovaDofree {
        domain: DomainId,
        iova: u64,
        size: u64,
    },
    /// `iommu:map` with the protection; `ok` is false when the driver refused.
    IommuMap {
        domain: DomainId,
        iova: u64,
        phys: PhysAddr,
        size: u64,
        prot: Prot,
        ok: bool,
    },
    /// `iommu:unmap`.
    IommuUnmap {
        domain: DomainId,
        iova: u64,
        size: u64,
        unmapped: u64,
    },
    /// An invalidation of a range (both ends inclusive) and its fence are complete.
    IotlbSync {
        domain: DomainId,
        range: Option<(u64, u64)>,
    },
    /// An invalidation of the whole domain and its fence are complete.
    FlushAll { domain: DomainId },
    /// `swiotlb:swiotlb_bounced`; `phys` is the original buffer.
    SwiotlbBounced {
        dev: Bdf,
        dma_mask: u64,
        phys: PhysAddr,
        size: u64,
        force: bool,
    },
    /// `swiotlb_tbl_map_single` and the slot that it found.
    SwiotlbMap {
        dev: Bdf,
        phys: PhysAddr,
        size: u64,
        tlb: PhysAddr,
    },
    /// `__swiotlb_tbl_unmap_single`.
    SwiotlbUnmap {
        dev: Bdf,
        tlb: PhysAddr,
        size: u64,
        dir: Direction,
    },
    /// `arch_sync_dma_for_device`.
    ArchSyncForDevice {
        phys: PhysAddr,
        size: u64,
        dir: Direction,
    },
    /// `arch_sync_dma_for_cpu`.
    ArchSyncForCpu {
        phys: PhysAddr,
        size: u64,
        dir: Direction,
    },
    /// `pci_p2pdma_state` found a segment of another provider than the one before.
    P2pState {
        dev: Bdf,
        phys: PhysAddr,
        map: MapType,
    },
}

/// `{0x..,0x..}` as the scatterlist events print it.
struct Hex<I>(I);

impl<I: Iterator<Item = u64> + Clone> fmt::Display for Hex<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, x) in self.0.clone().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{x:#x}")?;
        }
        f.write_str("}")
    }
}

const fn number(dir: Direction) -> u8 {
    match dir {
        Direction::Bidirectional => 0,
        Direction::ToDevice => 1,
        Direction::FromDevice => 2,
    }
}

fn all_ones(dma: Option<DmaAddr>) -> u64 {
    dma.map_or(u64::MAX, |d| d.0)
}

impl fmt::Display for Event {
    /// `name: text`, the text as the kernel prints it where it has such an event.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DmaMapPhys {
                dev,
                phys,
                dma,
                size,
                dir,
                attrs,
            } => write!(
                f,
                "dma_map_phys: 0000:{dev} dir={} dma_addr={:x} size={size} phys_addr={:x} attrs={attrs}",
                dir.name(),
                all_ones(*dma),
                phys.0
            ),
            Self::DmaUnmapPhys {
                dev,
                dma,
                size,
                dir,
                attrs,
            } => write!(
                f,
                "dma_unmap_phys: 0000:{dev} dir={} dma_addr={:x} size={size} attrs={attrs}",
                dir.name(),
                dma.0
            ),
            Self::DmaMapSg {
                dev,
                phys,
                dma,
                sizes,
                dir,
                attrs,
            } => write!(
                f,
                "dma_map_sg: 0000:{dev} dir={} nents={n}/{n} ents={e}/{e} dma_addrs={} sizes={} phys_addrs={} attrs={attrs}",
                dir.name(),
                Hex(dma.iter().map(|a| a.0)),
                Hex(sizes.iter().copied()),
                Hex(phys.iter().map(|a| a.0)),
                n = phys.len(),
                e = dma.len()
            ),
            Self::DmaMapSgErr {
                dev,
                phys,
                err,
                dir,
                attrs,
            } => write!(
                f,
                "dma_map_sg_err: 0000:{dev} dir={} dma_addrs={} err={err} attrs={attrs}",
                dir.name(),
                Hex(phys.iter().map(|a| a.0))
            ),
            Self::DmaUnmapSg {
                dev,
                phys,
                dir,
                attrs,
            } => write!(
                f,
                "dma_unmap_sg: 0000:{dev} dir={} phys_addrs={} attrs={attrs}",
                dir.name(),
                Hex(phys.iter().map(|a| a.0))
            ),
            Self::DmaAlloc {
                dev,
                dma,
                size,
                attrs,
                ..
            } => write!(
                f,
                "dma_alloc: 0000:{dev} dir=BIDIRECTIONAL dma_addr={:x} size={size} attrs={attrs}",
                dma.map_or(0, |d| d.0)
            ),
            Self::DmaFree {
                dev,
                dma,
                size,
                attrs,
            } => write!(
                f,
                "dma_free: 0000:{dev} dir=BIDIRECTIONAL dma_addr={:x} size={size} attrs={attrs}",
                dma.0
            ),
            Self::SyncSingleForCpu {
                dev,
                dma,
                size,
                dir,
            } => write!(
                f,
                "dma_sync_single_for_cpu: 0000:{dev} dir={} dma_addr={:x} size={size}",
                dir.name(),
                dma.0
            ),
            Self::SyncSingleForDevice {
                dev,
                dma,
                size,
                dir,
            } => write!(
                f,
                "dma_sync_single_for_device: 0000:{dev} dir={} dma_addr={:x} size={size}",
                dir.name(),
                dma.0
            ),
            Self::SyncSgForCpu {
                dev,
                dma,
                sizes,
                dir,
            } => write!(
                f,
                "dma_sync_sg_for_cpu: 0000:{dev} dir={} dma_addrs={} sizes={}",
                dir.name(),
                Hex(dma.iter().map(|a| a.0)),
                Hex(sizes.iter().copied())
            ),
            Self::SyncSgForDevice {
                dev,
                dma,
                sizes,
                dir,
            } => write!(
                f,
                "dma_sync_sg_for_device: 0000:{dev} dir={} dma_addrs={} sizes={}",
                dir.name(),
                Hex(dma.iter().map(|a| a.0)),
                Hex(sizes.iter().copied())
            ),
            Self::IovaTryAlloc {
                dev,
                phys,
                size,
                iova,
            } => write!(
                f,
                "iova_try_alloc: dev=\"0000:{dev}\" phys={phys:#x} size={size} ret={} iova={:#x}",
                u8::from(iova.is_some()),
                iova.map_or(0, |a| a.0)
            ),
            Self::IovaLink {
                dev,
                iova,
                phys,
                offset,
                size,
                dir,
                attrs,
                ret,
            } => write!(
                f,
                "iova_link: dev=\"0000:{dev}\" iova={iova:#x} phys={phys:#x} offset={offset:#x} size={size} dir={} attrs={:#x} ret={ret}",
                number(*dir),
                attrs.bits()
            ),
            Self::IovaSync {
                dev,
                iova,
                offset,
                size,
                ret,
            } => write!(
                f,
                "iova_sync: dev=\"0000:{dev}\" iova={iova:#x} offset={offset:#x} size={size} ret={ret}"
            ),
            Self::IovaUnlink {
                dev,
                iova,
                offset,
                size,
                dir,
                attrs,
            } => write!(
                f,
                "iova_unlink: dev=\"0000:{dev}\" iova={iova:#x} offset={offset:#x} size={size} dir={} attrs={:#x}",
                number(*dir),
                attrs.bits()
            ),
            Self::IovaFree { dev, iova } => {
                write!(f, "iova_free: dev=\"0000:{dev}\" iova={iova:#x}")
            }
            Self::IovaDestroy {
                dev,
                iova,
                isize,
                mapped_len,
                dir,
                attrs,
            } => write!(
                f,
                "iova_destroy: dev=\"0000:{dev}\" iova={iova:#x} isize={isize:#x} mapped_len={mapped_len} dir={} attrs={:#x}",
                number(*dir),
                attrs.bits()
            ),
            Self::IovaAlloc {
                domain,
                dev,
                size,
                limit,
                iova,
            } => write!(
                f,
                "iova_alloc: domain={} size={size} limit={limit:#x} dev=\"0000:{dev}\" iova={:#x}",
                domain.0,
                iova.unwrap_or(0)
            ),
            Self::IovaDofree { domain, iova, size } => {
                write!(
                    f,
                    "iova_dofree: domain={} iova={iova:#x} size={size}",
                    domain.0
                )
            }
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
            Self::IotlbSync { domain, range } => match range {
                Some((first, last)) => {
                    write!(f, "iotlb_sync: domain={} [{first:#x}-{last:#x}]", domain.0)
                }
                None => write!(f, "iotlb_sync: domain={} []", domain.0),
            },
            Self::FlushAll { domain } => write!(f, "flush_iotlb_all: domain={}", domain.0),
            Self::SwiotlbBounced {
                dev,
                dma_mask,
                phys,
                size,
                force,
            } => write!(
                f,
                "swiotlb_bounced: dev_name: 0000:{dev} dma_mask={dma_mask:x} dev_addr={:x} size={size} {}",
                phys.0,
                if *force { "FORCE" } else { "NORMAL" }
            ),
            Self::SwiotlbMap {
                dev,
                phys,
                size,
                tlb,
            } => write!(
                f,
                "swiotlb_map: dev=\"0000:{dev}\" phys={phys:#x} size={size} tlb={}",
                tlb.0
            ),
            Self::SwiotlbUnmap {
                dev,
                tlb,
                size,
                dir,
            } => write!(
                f,
                "swiotlb_unmap: dev=\"0000:{dev}\" tlb={tlb:#x} size={size} dir={}",
                number(*dir)
            ),
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
            Self::P2pState { dev, phys, map } => {
                write!(
                    f,
                    "p2p_state: dev=\"0000:{dev}\" phys={phys:#x} map={}",
                    *map as u8
                )
            }
        }
    }
}

/// Where events go: nowhere until somebody switches it on.
#[derive(Debug, Default)]
pub struct Trace {
    on: bool,
    events: Vec<Event>,
    shared: Option<Rc<RefCell<Vec<String>>>>,
}

impl Trace {
    /// Starts or stops to record.
    pub fn set_enabled(&mut self, on: bool) {
        self.on = on;
    }

    /// Also writes a line for each event into a list that others write to, so that it shows what
    /// happened in between.
    pub fn share(&mut self, lines: Rc<RefCell<Vec<String>>>) {
        self.shared = Some(lines);
    }

    /// Hands over what was recorded since the last call.
    pub fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Records the event that `event` makes, if recording is on.
    pub(crate) fn emit(&mut self, event: impl FnOnce() -> Event) {
        if self.on {
            let event = event();
            if let Some(lines) = &self.shared {
                lines.borrow_mut().push(event.to_string());
            }
            self.events.push(event);
        }
    }
}
