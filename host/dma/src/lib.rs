//! DMA.
