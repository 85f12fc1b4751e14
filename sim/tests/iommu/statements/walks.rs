//! The process to translate an IOVA: IOMMU §2.3 and §2.4.
