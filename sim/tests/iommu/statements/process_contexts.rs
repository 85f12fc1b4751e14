//! Process directories and process contexts: IOMMU §2.2.
