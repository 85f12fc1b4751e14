//! Which Linux the API behaves like.

/// A named set of [`Quirks`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// What the physical-address series sets out to do, on every path.
    #[default]
    Intended,
    /// Linux 7.2 with the behaviour that it really has.
    Linux72,
    /// Before the series.
    PreSeries,
}

/// Deviations from the intended behaviour, one switch each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// `dma_map_sg` maps a peer BAR reached through the host bridge with the caller's attributes,
    /// that is `IOMMU_CACHE`, cache maintenance and possibly a bounce slot, instead of MMIO.
    pub sg_p2p_cacheable: bool,
    /// `dma_map_phys` and `dma_iova_link` ignore `DMA_ATTR_MMIO`, and so do their counterparts:
    /// a peer BAR is mapped `IOMMU_CACHE` and unmapped as RAM. `dma_map_resource` is not affected.
    pub mmio_ignored: bool,
    /// The driver asks for Svpbmt and the page-table code refuses it: no paging domain can be
    /// allocated on an IOMMU with capabilities.Svpbmt (`-EOPNOTSUPP`).
    pub svpbmt_refused: bool,
    /// The IOMMU never gets a DMA domain; every device stays in the identity domain, because
    /// `CONFIG_IOMMU_DMA` is not built on RISC-V.
    pub identity_only: bool,
    /// `dma_iova_destroy` gives back as much IOVA as was mapped, not as much as was allocated.
    pub destroy_frees_mapped_len: bool,
    /// Unlink copies bounced pieces back and releases their slots before the translation is
    /// removed, so that the device can write into a slot of somebody else for a moment.
    pub unlink_releases_slots_first: bool,
    /// Under Xen, unmapping device memory of a non-coherent device invalidates cache lines of it:
    /// the unmap does not look for MMIO.
    pub xen_unmap_syncs_mmio: bool,
    /// `dma_buf_phys_vec_to_sgt` links every range of a buffer at offset 0 of its IOVA, so that a
    /// buffer of two ranges cannot be mapped through an IOMMU.
    pub dmabuf_links_at_zero: bool,
    /// Where `dma_buf_phys_vec_to_sgt` maps range by range and one fails, it unmaps all entries of
    /// the table, also those that were never mapped.
    pub dmabuf_unwinds_all_entries: bool,
    /// `dma_buf_free_sgt` unmaps entry by entry what was mapped range by range, which differs for
    /// a range that is longer than an entry.
    pub dmabuf_unmaps_by_entry: bool,
    /// The driver of the RISC-V IOMMU does not report `IOMMU_CAP_CACHE_COHERENCY`: VFIO and
    /// iommufd refuse the devices behind it (`-EINVAL`).
    pub no_coherency_capability: bool,
}

impl Profile {
    /// The switches of this profile.
    #[must_use]
    pub const fn quirks(self) -> Quirks {
        match self {
            Self::Intended => Quirks {
                sg_p2p_cacheable: false,
                mmio_ignored: false,
                svpbmt_refused: false,
                identity_only: false,
                destroy_frees_mapped_len: false,
                unlink_releases_slots_first: false,
                xen_unmap_syncs_mmio: false,
                dmabuf_links_at_zero: false,
                dmabuf_unwinds_all_entries: false,
                dmabuf_unmaps_by_entry: false,
                no_coherency_capability: false,
            },
            Self::Linux72 => Quirks {
                sg_p2p_cacheable: true,
                mmio_ignored: false,
                svpbmt_refused: true,
                identity_only: true,
                destroy_frees_mapped_len: true,
                unlink_releases_slots_first: true,
                xen_unmap_syncs_mmio: true,
                dmabuf_links_at_zero: true,
                dmabuf_unwinds_all_entries: true,
                dmabuf_unmaps_by_entry: true,
                no_coherency_capability: true,
            },
            // The page-table code of that time is taken to write Svpbmt, or nothing could be seen
            // of the cacheable mapping on the bus.
            Self::PreSeries => Quirks {
                sg_p2p_cacheable: true,
                mmio_ignored: true,
                svpbmt_refused: false,
                identity_only: false,
                destroy_frees_mapped_len: true,
                unlink_releases_slots_first: true,
                xen_unmap_syncs_mmio: false,
                // Page-less peer memory came with the series.
                dmabuf_links_at_zero: false,
                dmabuf_unwinds_all_entries: false,
                dmabuf_unmaps_by_entry: false,
                no_coherency_capability: true,
            },
        }
    }
}

impl From<Profile> for Quirks {
    fn from(profile: Profile) -> Self {
        profile.quirks()
    }
}

#[cfg(test)]
mod tests;
