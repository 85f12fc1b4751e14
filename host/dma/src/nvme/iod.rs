//! What a request holds while the controller has it.

use bitflags::bitflags;

use super::Command;
use crate::{block::DmaVec, dma_pool::PoolBlock, iova_state::IovaState, p2pdma::MapType};

bitflags! {
    /// What has to be undone, and how (`enum nvme_iod_flags`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct IodFlags: u8 {
        /// The command was aborted.
        const ABORTED = 1 << 0;
        /// The list is a small descriptor.
        const SMALL_DESCRIPTOR = 1 << 1;
        /// The data was mapped without an iterator.
        const SINGLE_SEGMENT = 1 << 2;
        /// The data is peer memory by bus address.
        const DATA_P2P = 1 << 3;
        /// The metadata is peer memory by bus address.
        const META_P2P = 1 << 4;
        /// The data is peer memory through the host bridge.
        const DATA_MMIO = 1 << 5;
        /// The metadata is peer memory through the host bridge.
        const META_MMIO = 1 << 6;
        /// The metadata was mapped without an iterator.
        const SINGLE_META_SEGMENT = 1 << 7;
    }
}

impl IodFlags {
    /// What says how the data is reached.
    pub(super) const DATA: Self = Self::DATA_P2P.union(Self::DATA_MMIO);
    /// What says how the metadata is reached.
    pub(super) const META: Self = Self::META_P2P.union(Self::META_MMIO);

    /// The flags of data and metadata that are reached like this.
    pub(super) const fn of(map: MapType) -> Self {
        match map {
            MapType::BusAddr => Self::DATA_P2P.union(Self::META_P2P),
            MapType::ThruHostBridge => Self::DATA_MMIO.union(Self::META_MMIO),
            _ => Self::empty(),
        }
    }

    /// How what `side` stands for is reached.
    pub(super) const fn map_type(self, side: Self) -> MapType {
        let set = self.intersection(side);
        if set.intersects(Self::of(MapType::BusAddr)) {
            MapType::BusAddr
        } else if set.intersects(Self::of(MapType::ThruHostBridge)) {
            MapType::ThruHostBridge
        } else {
            MapType::None
        }
    }
}

/// What a request holds while the controller has it (`struct nvme_iod`). It must go through
/// [`Nvme::unmap_rq`](super::Nvme::unmap_rq).
#[derive(Debug)]
#[must_use]
pub struct Iod {
    /// The command, its pointers filled in.
    pub cmd: Command,
    pub(super) flags: IodFlags,
    pub(super) total_len: u32,
    pub(super) dma_state: IovaState,
    /// The segments, kept where the list does not tell their lengths.
    pub(super) dma_vecs: Vec<DmaVec>,
    pub(super) descriptors: Vec<PoolBlock>,
    pub(super) meta_total_len: u32,
    pub(super) meta_dma_state: IovaState,
    pub(super) meta_descriptor: Option<PoolBlock>,
}

impl Iod {
    pub(super) fn new(cmd: Command) -> Self {
        Self {
            cmd,
            flags: IodFlags::empty(),
            total_len: 0,
            dma_state: IovaState::default(),
            dma_vecs: Vec::new(),
            descriptors: Vec::new(),
            meta_total_len: 0,
            meta_dma_state: IovaState::default(),
            meta_descriptor: None,
        }
    }

    /// What has to be undone.
    #[must_use]
    pub const fn flags(&self) -> IodFlags {
        self.flags
    }

    /// Bytes of data that are mapped.
    #[must_use]
    pub const fn total_len(&self) -> u32 {
        self.total_len
    }

    /// The list pages of the data, in their order.
    #[must_use]
    pub fn descriptors(&self) -> &[PoolBlock] {
        &self.descriptors
    }

    /// The SGL of the metadata.
    #[must_use]
    pub const fn meta_descriptor(&self) -> Option<&PoolBlock> {
        self.meta_descriptor.as_ref()
    }

    /// The segments that were kept for the unmap.
    #[must_use]
    pub fn dma_vecs(&self) -> &[DmaVec] {
        &self.dma_vecs
    }

    /// The IOVA range of the data, if it has one.
    #[must_use]
    pub const fn dma_state(&self) -> &IovaState {
        &self.dma_state
    }
}
