//! The fault queue: IOMMU §3.2.
