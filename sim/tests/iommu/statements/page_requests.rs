//! The page-request queue: IOMMU §3.3.
