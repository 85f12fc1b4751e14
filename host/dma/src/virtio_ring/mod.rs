//! The split virtqueue of `virtio_ring` (Virtual I/O Device Specification 1.2 §2.7), and who
//! translates its addresses.
//!
//! With `VIRTIO_F_ACCESS_PLATFORM` the device is like any other: the ring is coherent memory, and
//! each buffer is mapped by the page interface, one by one, never as a scatterlist and never as
//! MMIO; a peer's memory is not supported. Without it the mapping API is bypassed, and the device
//! gets physical addresses whatever IOMMU it is behind.

mod layout;
mod map;
mod queue;
#[cfg(test)]
mod tests;

pub use layout::{DescFlags, Layout};
pub use queue::{Buffers, Features, Used, Virtqueue, VirtqueueError};
