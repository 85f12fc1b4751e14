//! Golden model of tlproof: two judges that know nothing of each other look at every TLP.

pub mod iommu;
pub mod memory;
