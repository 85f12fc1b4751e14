//! The events of a DMA trace.

use std::fmt;

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::{
    codec::*,
    cursor::{Cursor, Parsed},
    value::{Attrs, Count, Device, P2pMap, Pointer},
};

/// Skips what the kernel puts before a probe's values: `(func+0x4/0x350) `, or for a return
/// `(caller+0x2a4/0x320 <- func) `.
fn skip_place<'a>(text: &mut Cursor<'a>) -> Parsed<'a, ()> {
    text.tag("(")?;
    text.until(b")");
    text.tag(") ")
}

/// Generates the enum, its parser, its printer and its samples from one table. A line is
/// `Variant: "event name" kind { "text before" field: Type as Codec, … }`.
macro_rules! events {
    (
        $(#[$enum_doc:meta])*
        pub enum $enum:ident;
        $(
            $(#[$doc:meta])*
            $variant:ident: $name:literal $kind:ident $($func:literal)? {
                $($before:literal $field:ident: $type:ty as $codec:ident),+ $(,)?
            }
        )+
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $enum {
            $(
                $(#[$doc])*
                #[doc = concat!("\n\nEvent `", $name, "`.")]
                $variant {
                    $(
                        #[doc = concat!("Stands after `", $before, "`.")]
                        $field: $type,
                    )+
                },
            )+
        }

        impl $enum {
            /// The names of all events, as they stand in a trace.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The event's name, as it stands in a trace.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)+
                }
            }

            /// Whether the event comes from a probe rather than a tracepoint: the text of a probe
            /// starts with a place in the code, which is not kept.
            #[must_use]
            pub const fn is_probe(&self) -> bool {
                match self {
                    $(Self::$variant { .. } => events!(@is_probe $kind),)+
                }
            }

            /// The event `name` with this text; `None` if there is no such event.
            pub(super) fn parse<'a>(name: &[u8], mut text: Cursor<'a>) -> Option<Parsed<'a, Self>> {
                let text = &mut text;
                $(
                    if name == $name.as_bytes() {
                        return Some((|| {
                            events!(@skip $kind text);
                            $(
                                text.tag($before)?;
                                let $field = <$codec as Codec<$type>>::parse(text)?;
                            )+
                            text.end()?;
                            Ok(Self::$variant { $($field),+ })
                        })());
                    }
                )+
                None
            }

            /// One of each event, with any values.
            #[cfg(test)]
            pub(super) fn samples(dice: &mut super::tests::Dice) -> Vec<Self> {
                vec![$(
                    Self::$variant {
                        $($field: <$codec as Codec<$type>>::sample(dice)),+
                    },
                )+]
            }
        }

        impl fmt::Display for $enum {
            /// The kernel's text, without the event's name. A probe's place in the code is not
            /// known any more: the name of the probed function alone stands there.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(
                        Self::$variant { $($field),+ } => {
                            events!(@place $kind f $($func)?);
                            $(
                                f.write_str($before)?;
                                <$codec as Codec<$type>>::print($field, f)?;
                            )+
                        }
                    )+
                }
                Ok(())
            }
        }
    };
    (@is_probe tracepoint) => { false };
    (@is_probe $probe:ident) => { true };
    (@skip tracepoint $text:ident) => {};
    (@skip $probe:ident $text:ident) => { skip_place($text)? };
    (@place tracepoint $f:ident) => {};
    (@place probe $f:ident $func:literal) => { $f.write_str(concat!("(", $func, ") "))? };
    (@place returns $f:ident $func:literal) => { $f.write_str(concat!("(<- ", $func, ") "))? };
}

events! {
    /// One event of a trace. Fields that recur: `dev` the device, `dir` the direction, `dma_addr`
    /// and `iova` addresses as the device sees them, `phys` CPU physical addresses, `size` bytes,
    /// `state` the address of a `struct dma_iova_state` (the key of a two-step mapping while it
    /// lives), `domain` the address of an IOMMU domain.
    pub enum Event;

    /// A physical range was mapped (after the fact). `dma_addr` all ones is a failure.
    DmaMapPhys: "dma_map_phys" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addr=" dma_addr: DmaAddr as Hex, " size=" size: u64 as Dec,
        " phys_addr=" phys: PhysAddr as Hex, " attrs=" attrs: Attrs as AttrNames,
    }
    /// A mapping made by `dma_map_phys` is gone (after the fact).
    DmaUnmapPhys: "dma_unmap_phys" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addr=" dma_addr: DmaAddr as Hex, " size=" size: u64 as Dec,
        " attrs=" attrs: Attrs as AttrNames,
    }
    /// A scatterlist was mapped. `dma_addrs` and `sizes` are the entries after merging, `phys`
    /// those before.
    DmaMapSg: "dma_map_sg" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " nents=" nents: Count as Fraction, " ents=" ents: Count as Fraction,
        "" truncated: bool as Truncated,
        " dma_addrs=" dma_addrs: Vec<DmaAddr> as List, " sizes=" sizes: Vec<u64> as List,
        " phys_addrs=" phys: Vec<PhysAddr> as List, " attrs=" attrs: Attrs as AttrNames,
    }
    /// A scatterlist could not be mapped. The kernel prints its physical addresses under the
    /// label `dma_addrs`.
    DmaMapSgErr: "dma_map_sg_err" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addrs=" phys: Vec<PhysAddr> as List, " err=" err: i32 as Signed,
        " attrs=" attrs: Attrs as AttrNames,
    }
    /// A scatterlist was unmapped, named by its physical addresses.
    DmaUnmapSg: "dma_unmap_sg" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " phys_addrs=" phys: Vec<PhysAddr> as List, " attrs=" attrs: Attrs as AttrNames,
    }
    /// A coherent buffer was allocated; `dma_addr` 0 is a failure. `size` is the caller's, not
    /// rounded to pages.
    DmaAlloc: "dma_alloc" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addr=" dma_addr: DmaAddr as Hex, " size=" size: u64 as Dec,
        " virt_addr=" virt: Pointer as PtrText, " flags=" flags: Box<str> as Ident,
        " attrs=" attrs: Attrs as AttrNames,
    }
    /// As `dma_alloc`, by `dma_alloc_pages`.
    DmaAllocPages: "dma_alloc_pages" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addr=" dma_addr: DmaAddr as Hex, " size=" size: u64 as Dec,
        " virt_addr=" virt: Pointer as PtrText, " flags=" flags: Box<str> as Ident,
        " attrs=" attrs: Attrs as AttrNames,
    }
    /// A non-contiguous buffer was allocated.
    DmaAllocSgt: "dma_alloc_sgt" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addr=" dma_addr: DmaAddr as Hex, " size=" size: u64 as Dec,
        " phys_addrs=" phys: Vec<PhysAddr> as List, " flags=" flags: Box<str> as Ident,
        " attrs=" attrs: Attrs as AttrNames,
    }
    /// A non-contiguous buffer could not be allocated.
    DmaAllocSgtErr: "dma_alloc_sgt_err" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addr=" dma_addr: DmaAddr as Hex, " size=" size: u64 as Dec,
        " virt_addr=" virt: Pointer as PtrText, " flags=" flags: Box<str> as Ident,
        " attrs=" attrs: Attrs as AttrNames,
    }
    /// A coherent buffer was freed.
    DmaFree: "dma_free" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addr=" dma_addr: DmaAddr as Hex, " size=" size: u64 as Dec,
        " virt_addr=" virt: Pointer as PtrText, " attrs=" attrs: Attrs as AttrNames,
    }
    /// As `dma_free`, by `dma_free_pages`.
    DmaFreePages: "dma_free_pages" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addr=" dma_addr: DmaAddr as Hex, " size=" size: u64 as Dec,
        " virt_addr=" virt: Pointer as PtrText, " attrs=" attrs: Attrs as AttrNames,
    }
    /// A non-contiguous buffer was freed.
    DmaFreeSgt: "dma_free_sgt" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addr=" dma_addr: DmaAddr as Hex, " size=" size: u64 as Dec,
        " phys_addrs=" phys: Vec<PhysAddr> as List,
    }
    /// Part of a mapping goes to the CPU.
    DmaSyncSingleForCpu: "dma_sync_single_for_cpu" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addr=" dma_addr: DmaAddr as Hex, " size=" size: u64 as Dec,
    }
    /// Part of a mapping goes back to the device.
    DmaSyncSingleForDevice: "dma_sync_single_for_device" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addr=" dma_addr: DmaAddr as Hex, " size=" size: u64 as Dec,
    }
    /// A scatterlist goes to the CPU.
    DmaSyncSgForCpu: "dma_sync_sg_for_cpu" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addrs=" dma_addrs: Vec<DmaAddr> as List, " sizes=" sizes: Vec<u64> as List,
    }
    /// A scatterlist goes back to the device.
    DmaSyncSgForDevice: "dma_sync_sg_for_device" tracepoint {
        "" dev: Device as Word1, " dir=" dir: Direction as DirName,
        " dma_addrs=" dma_addrs: Vec<DmaAddr> as List, " sizes=" sizes: Vec<u64> as List,
    }
    /// A two-step mapping is asked for.
    IovaTryAlloc: "iova_try_alloc" probe "dma_iova_try_alloc" {
        "dev=" dev: Device as Quoted, " state=" state: u64 as ProbeHex,
        " phys=" phys: PhysAddr as ProbeHex, " size=" size: u64 as ProbeDec,
    }
    /// Whether there is one. `iova` includes the offset of `phys` in its page; bit 63 of `isize`
    /// says that a part bounces.
    IovaTryAllocRet: "iova_try_alloc_ret" returns "dma_iova_try_alloc" {
        "dev=" dev: Device as Quoted, " state=" state: u64 as ProbeHex, " ret=" ret: bool as Bit,
        " iova=" iova: DmaAddr as ProbeHex, " isize=" isize: u64 as ProbeHex,
    }
    /// A range is linked into a two-step mapping.
    IovaLink: "iova_link" probe "dma_iova_link" {
        "dev=" dev: Device as Quoted, " state=" state: u64 as ProbeHex,
        " iova=" iova: DmaAddr as ProbeHex, " phys=" phys: PhysAddr as ProbeHex,
        " offset=" offset: u64 as ProbeHex, " size=" size: u64 as ProbeDec,
        " dir=" dir: Direction as DirNumber, " attrs=" attrs: Attrs as AttrBits,
    }
    /// 0 or a negative error number.
    IovaLinkRet: "iova_link_ret" returns "dma_iova_link" {
        "state=" state: u64 as ProbeHex, " ret=" ret: i32 as Signed,
    }
    /// A two-step mapping becomes usable.
    IovaSync: "iova_sync" probe "dma_iova_sync" {
        "dev=" dev: Device as Quoted, " state=" state: u64 as ProbeHex,
        " iova=" iova: DmaAddr as ProbeHex, " offset=" offset: u64 as ProbeHex,
        " size=" size: u64 as ProbeDec,
    }
    /// 0 or a negative error number, of the last `iova_sync` of the same task.
    IovaSyncRet: "iova_sync_ret" returns "dma_iova_sync" {
        "ret=" ret: i32 as Signed,
    }
    /// Part of a two-step mapping goes.
    IovaUnlink: "iova_unlink" probe "dma_iova_unlink" {
        "dev=" dev: Device as Quoted, " state=" state: u64 as ProbeHex,
        " iova=" iova: DmaAddr as ProbeHex, " offset=" offset: u64 as ProbeHex,
        " size=" size: u64 as ProbeDec, " dir=" dir: Direction as DirNumber,
        " attrs=" attrs: Attrs as AttrBits,
    }
    /// The IOVA range of a two-step mapping is given back.
    IovaFree: "iova_free" probe "dma_iova_free" {
        "dev=" dev: Device as Quoted, " state=" state: u64 as ProbeHex,
        " iova=" iova: DmaAddr as ProbeHex, " isize=" isize: u64 as ProbeHex,
    }
    /// Unlink and free of a whole two-step mapping.
    IovaDestroy: "iova_destroy" probe "dma_iova_destroy" {
        "dev=" dev: Device as Quoted, " state=" state: u64 as ProbeHex,
        " iova=" iova: DmaAddr as ProbeHex, " isize=" isize: u64 as ProbeHex,
        " mapped_len=" mapped_len: u64 as ProbeDec, " dir=" dir: Direction as DirNumber,
        " attrs=" attrs: Attrs as AttrBits,
    }
    /// An IOVA range is asked for: ties a device to its domain.
    IovaAlloc: "iova_alloc" probe "iommu_dma_alloc_iova" {
        "domain=" domain: u64 as ProbeHex, " size=" size: u64 as ProbeDec,
        " limit=" limit: u64 as ProbeHex, " dev=" dev: Device as Quoted,
    }
    /// The range; 0 is a failure.
    IovaAllocRet: "iova_alloc_ret" returns "iommu_dma_alloc_iova" {
        "iova=" iova: DmaAddr as ProbeHex,
    }
    /// An IOVA range is given back (lazily: to the flush queue).
    IovaDofree: "iova_dofree" probe "iommu_dma_free_iova" {
        "domain=" domain: u64 as ProbeHex, " iova=" iova: DmaAddr as ProbeHex,
        " size=" size: u64 as ProbeDec,
    }
    /// A range is put into an IOMMU page table; `prot` holds `IOMMU_READ` (1), `WRITE` (2),
    /// `CACHE` (4), `NOEXEC` (8), `MMIO` (0x10), `PRIV` (0x20).
    IommuMapProt: "iommu_map_prot" probe "iommu_map_nosync" {
        "domain=" domain: u64 as ProbeHex, " iova=" iova: DmaAddr as ProbeHex,
        " phys=" phys: PhysAddr as ProbeHex, " size=" size: u64 as ProbeDec,
        " prot=" prot: u64 as ProbeHex,
    }
    /// A range was put into an IOMMU page table; `end` is exclusive.
    Map: "map" tracepoint {
        "IOMMU: iova=" iova: DmaAddr as Hex016, " - " end: DmaAddr as Hex016,
        " paddr=" phys: PhysAddr as Hex016, " size=" size: u64 as Dec,
    }
    /// A range was taken out of an IOMMU page table; `end` is exclusive.
    Unmap: "unmap" tracepoint {
        "IOMMU: iova=" iova: DmaAddr as Hex016, " - " end: DmaAddr as Hex016,
        " size=" size: u64 as Dec, " unmapped_size=" unmapped: u64 as Dec,
    }
    /// VT-d: an invalidation after unmapping; `mask` is the binary logarithm of the pages.
    CacheTagFlushRange: "cache_tag_flush_range" tracepoint {
        "" iommu: Box<str> as Ident, " " dev: Device as Bracketed, "[" pasid: u32 as Small,
        "] type " kind: Box<str> as Ident, " did " domain_id: u32 as Small,
        " [" start: DmaAddr as Hex0x, "-" last: DmaAddr as Hex0x, "] addr " addr: u64 as Hex0x,
        " mask " mask: u64 as Hex0x,
    }
    /// VT-d: an invalidation after mapping, done only with caching mode.
    CacheTagFlushRangeNp: "cache_tag_flush_range_np" tracepoint {
        "" iommu: Box<str> as Ident, " " dev: Device as Bracketed, "[" pasid: u32 as Small,
        "] type " kind: Box<str> as Ident, " did " domain_id: u32 as Small,
        " [" start: DmaAddr as Hex0x, "-" last: DmaAddr as Hex0x, "] addr " addr: u64 as Hex0x,
        " mask " mask: u64 as Hex0x,
    }
    /// VT-d: a descriptor of the invalidation queue.
    QiSubmit: "qi_submit" tracepoint {
        "" kind: Box<str> as Ident, " " iommu: Box<str> as Ident,
        ": " descriptor: [u64; 4] as Qwords,
    }
    /// A buffer bounces; `phys` is the original.
    SwiotlbBounced: "swiotlb_bounced" tracepoint {
        "dev_name: " dev: Device as Word1, " dma_mask=" dma_mask: u64 as Hex,
        " dev_addr=" phys: PhysAddr as Hex, " size=" size: u64 as Dec, " " force: bool as Force,
    }
    /// Where it bounces: `tlb` is the slot; all ones is a failure.
    SwiotlbMap: "swiotlb_map" returns "swiotlb_tbl_map_single" {
        "dev=" dev: Device as Quoted, " phys=" phys: PhysAddr as ProbeHex,
        " size=" size: u64 as ProbeDec, " tlb=" tlb: PhysAddr as ProbeHex,
    }
    /// A slot is given back.
    SwiotlbUnmap: "swiotlb_unmap" probe "__swiotlb_tbl_unmap_single" {
        "dev=" dev: Device as Quoted, " tlb=" tlb: PhysAddr as ProbeHex,
        " size=" size: u64 as ProbeDec, " dir=" dir: Direction as DirNumber,
    }
    /// How peer memory is to be reached. `page` is a `struct page` address, `mem` the provider's
    /// `struct p2pdma_provider`.
    P2pState: "p2p_state" returns "__pci_p2pdma_update_state" {
        "dev=" dev: Device as Quoted, " page=" page: u64 as ProbeHex,
        " mem=" mem: u64 as ProbeHex, " map=" map: P2pMap as P2pNumber,
    }
    /// A device joins an IOMMU group.
    AddDeviceToGroup: "add_device_to_group" tracepoint {
        "IOMMU: groupID=" group: u32 as Small, " device=" dev: Device as Word1,
    }
    /// A device leaves an IOMMU group.
    RemoveDeviceFromGroup: "remove_device_from_group" tracepoint {
        "IOMMU: groupID=" group: u32 as Small, " device=" dev: Device as Word1,
    }
    /// A device is attached to an IOMMU domain.
    AttachDeviceToDomain: "attach_device_to_domain" tracepoint {
        "IOMMU: device=" dev: Device as Word1,
    }
    /// An IOMMU reports a fault.
    IoPageFault: "io_page_fault" tracepoint {
        "IOMMU:" driver: Box<str> as Ident, " " dev: Device as Word1,
        " iova=" iova: DmaAddr as Hex016, " flags=" flags: u32 as Flags16,
    }
    /// Text written to `trace_marker`, such as `MARK setup`.
    TracingMarkWrite: "tracing_mark_write" tracepoint {
        "" text: Box<str> as Rest,
    }
}

impl Event {
    /// Physical address and size of the range that a mapping call was made for.
    const fn mapped(&self) -> Option<(PhysAddr, u64)> {
        match *self {
            Self::DmaMapPhys { phys, size, .. }
            | Self::IovaTryAlloc { phys, size, .. }
            | Self::IovaLink { phys, size, .. }
            | Self::Map { phys, size, .. } => Some((phys, size)),
            _ => None,
        }
    }

    /// Why no call can have been made for this range, if so: it is empty or wraps around.
    pub(super) fn impossible(&self) -> Option<String> {
        let (phys, size) = self.mapped()?;
        if size == 0 {
            return Some("the size is 0".to_owned());
        }
        let fits = phys.0.checked_add(size - 1).is_some();
        (!fits).then(|| format!("{size} bytes at {phys} end above 2^64"))
    }
}
