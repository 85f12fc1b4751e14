//! Objects of a program: what drivers hold between map and unmap.

use tlproof_dma::{
    Attrs, Coherent, IovaState, SgEntry,
    block::Request,
    dmabuf::{AttachmentId, DmaSgt, VfioDmaBuf},
    noncoherent::{Noncontiguous, Pages},
    odp::{OdpRegion, UserMemory},
};
use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use crate::testbench::nvme::NvmeRequest;

/// Bytes that follow each other for the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub dma: DmaAddr,
    pub len: u64,
}

/// How an object was made, as far as its end must know.
pub(super) enum Kind {
    Phys {
        attrs: Attrs,
    },
    Sg {
        list: Vec<SgEntry>,
        attrs: Attrs,
    },
    Iova {
        state: IovaState,
        links: Vec<(u64, u64)>,
        attrs: Attrs,
        destroy: bool,
    },
    Resource,
    Bus,
    Ring(Coherent),
    Pages(Pages),
    Noncontiguous(Noncontiguous),
    Dmabuf {
        buf: VfioDmaBuf,
        at: AttachmentId,
        sgt: DmaSgt,
    },
    Request {
        request: Request,
        prepared: Box<NvmeRequest>,
    },
    Odp {
        region: OdpRegion,
        user: UserMemory,
    },
}

impl Kind {
    /// Whether the memory is the API's: what it holds is looked at before it is given back.
    pub const fn is_allocated(&self) -> bool {
        matches!(
            self,
            Self::Ring(_) | Self::Pages(_) | Self::Noncontiguous(_)
        )
    }
}

/// A transfer that the device has not completed.
pub(super) struct UnderWay {
    pub transfer: u16,
    pub at: u64,
    pub len: u64,
    /// Offset in the device's memory at which it keeps what it reads.
    pub fetch: Option<u32>,
}

/// Something mapped.
pub(super) struct Object {
    pub dev: usize,
    pub dir: Direction,
    pub kind: Kind,
    pub spans: Vec<Span>,
    /// Main memory behind the spans, in their order; empty for peers.
    pub runs: Vec<(PhysAddr, u64)>,
    /// Pages to give back.
    pub pages: Vec<(PhysAddr, usize)>,
    /// What main memory holds after all transfers, a byte of the runs each.
    pub model: Vec<u8>,
    pub under_way: Vec<UnderWay>,
}

impl Object {
    /// Memory of a peer, at which the CPU does not look.
    pub const fn of_peer(dev: usize, dir: Direction, kind: Kind, spans: Vec<Span>) -> Self {
        Self {
            dev,
            dir,
            kind,
            spans,
            runs: Vec::new(),
            pages: Vec::new(),
            model: Vec::new(),
            under_way: Vec::new(),
        }
    }

    pub fn size(&self) -> u64 {
        self.spans.iter().map(|s| s.len).sum()
    }

    /// The device's address of byte `at` and how many bytes follow it without a gap.
    pub fn locate(&self, mut at: u64) -> Option<(DmaAddr, u64)> {
        for s in &self.spans {
            if at < s.len {
                return Some((s.dma.offset(at), s.len - at));
            }
            at -= s.len;
        }
        None
    }

    /// Whether the CPU may look at it and change it while it is mapped.
    pub const fn touchable(&self) -> bool {
        matches!(
            self.kind,
            Kind::Phys { .. }
                | Kind::Sg { .. }
                | Kind::Ring(_)
                | Kind::Pages(_)
                | Kind::Noncontiguous(_)
        )
    }
}
