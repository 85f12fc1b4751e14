//! The command queue: IOMMU §3.1.
