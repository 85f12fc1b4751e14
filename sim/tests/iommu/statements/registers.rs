//! Registers: IOMMU §5.1 to §5.14 and §5.24 to §5.29.
