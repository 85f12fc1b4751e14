//! Bus, device and function numbers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Bus, device, function: the 16-bit Requester ID (PCIe 6.0 §2.2.6.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bdf(pub u16);

impl Bdf {
    /// Puts the three numbers together; device is 0 to 31, function 0 to 7.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | ((device & 31) as u16) << 3 | (function & 7) as u16)
    }

    /// Bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device number.
    #[must_use]
    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 31
    }

    /// Function number.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.0 as u8 & 7
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:02x}:{:02x}.{}",
            self.bus(),
            self.device(),
            self.function()
        )
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A string that is not `bb:dd.f` or `dddd:bb:dd.f`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a device address like 01:00.0 or 0000:01:00.0")]
pub struct ParseBdfError(String);

impl FromStr for Bdf {
    type Err = ParseBdfError;

    /// Accepts `bb:dd.f` and, with segment 0, `0000:bb:dd.f`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let err = || ParseBdfError(s.to_owned());
        let rest = s.strip_prefix("0000:").unwrap_or(s);
        let (bus, rest) = rest.split_once(':').ok_or_else(err)?;
        let (device, function) = rest.split_once('.').ok_or_else(err)?;
        let bus = u8::from_str_radix(bus, 16).map_err(|_| err())?;
        let device = u8::from_str_radix(device, 16).map_err(|_| err())?;
        let function = u8::from_str_radix(function, 16).map_err(|_| err())?;
        if device > 31 || function > 7 {
            return Err(err());
        }
        Ok(Self::new(bus, device, function))
    }
}
