//! The block layer's part of DMA mapping: bios, requests, and the iterators that map a request for
//! a driver, segment by segment or as one IOVA range (`blk-mq-dma`).
//!
//! A driver asks [`Dma::blk_rq_dma_map_iter_start`](crate::Dma::blk_rq_dma_map_iter_start) for the
//! first DMA range and [`Dma::blk_rq_dma_map_iter_next`](crate::Dma::blk_rq_dma_map_iter_next) for
//! the others, and writes each into its command. Data and metadata have an iterator and a
//! [`IovaState`](crate::IovaState) each, so that one may be a peer's memory and the other not.

mod bio;
mod dma;
mod map_iter;
mod request;
mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use bio::{Bio, BioError, BioVec, Pgmap};
pub use dma::{BlkDmaIter, DmaVec, blk_rq_dma_map_coalesce};
pub use map_iter::{BlkMapIter, PhysVec};
pub use request::{QueueLimits, ReqOp, Request, RequestError};
pub use status::BlkStatus;
