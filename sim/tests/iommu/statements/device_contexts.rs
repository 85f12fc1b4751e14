//! Device directories and device contexts: IOMMU §2.1 and §2.2 up to the process directory.
