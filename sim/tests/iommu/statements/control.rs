//! Control and status registers of the queues, interrupts and counters: IOMMU §5.15 to §5.23.
