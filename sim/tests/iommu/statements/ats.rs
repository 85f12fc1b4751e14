//! ATS translation requests, faults and caching: IOMMU §2.6 to §2.10.
