//! Access to configuration space.

use crate::Bdf;

/// How a configuration or MMIO access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Nobody claimed the request, or it completed with Unsupported Request.
    #[error("unsupported request")]
    Unsupported,
    /// The completer aborted.
    #[error("completer abort")]
    Abort,
    /// No completion arrived in time.
    #[error("completion timeout")]
    Timeout,
}

/// Configuration space as a CPU reaches it. Registers are byte offsets, 0 to 0xfff; a `size` is
/// 1, 2 or 4 bytes and the access is naturally aligned.
pub trait ConfigSpace {
    /// Reads `size` bytes at `reg` of function `bdf`, zero extended.
    ///
    /// # Errors
    /// [`AccessError::Unsupported`] when no such function answers.
    fn config_read(&mut self, bdf: Bdf, reg: u16, size: u8) -> Result<u32, AccessError>;

    /// Writes the low `size` bytes of `value` at `reg` of function `bdf`.
    ///
    /// # Errors
    /// As [`ConfigSpace::config_read`].
    fn config_write(&mut self, bdf: Bdf, reg: u16, size: u8, value: u32)
    -> Result<(), AccessError>;
}
