//! `blk_status_t`.

use crate::error::MapError;

/// How a request ends (`BLK_STS_*`), with the kernel's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum BlkStatus {
    /// `BLK_STS_NOTSUPP`: the operation is not supported.
    #[error("operation not supported")]
    NotSupp = 1,
    /// `BLK_STS_TIMEOUT`.
    #[error("timeout")]
    Timeout = 2,
    /// `BLK_STS_TARGET`: the target cannot be reached.
    #[error("critical target")]
    Target = 5,
    /// `BLK_STS_RESOURCE`: memory, IOVA or a bounce slot ran out; another attempt may succeed.
    #[error("kernel resource")]
    Resource = 9,
    /// `BLK_STS_IOERR`: anything else.
    #[error("I/O")]
    IoErr = 10,
    /// `BLK_STS_INVAL`: the request makes no sense for this device.
    #[error("invalid")]
    Inval = 19,
}

impl From<MapError> for BlkStatus {
    /// `errno_to_blk_status`.
    fn from(e: MapError) -> Self {
        match e.errno() {
            -12 => Self::Resource,
            -22 => Self::Inval,
            -95 => Self::NotSupp,
            -110 => Self::Timeout,
            -121 => Self::Target,
            _ => Self::IoErr,
        }
    }
}
