//! Which reports are shown.

use std::fmt;

use tlproof_pcie::Bdf;

use crate::device::Device;

use super::{Options, Report};

/// A report as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The device.
    pub device: Bdf,
    /// Its driver, empty without one.
    pub driver: String,
    /// What is wrong.
    pub report: Report,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = match self.driver.as_str() {
            // Without a driver the kernel names the bus.
            "" => "pci",
            name => name,
        };
        write!(f, "DMA-API: {driver} 0000:{}: {}", self.device, self.report)
    }
}

/// The files of debugfs `dma-api/` that are about reports, and what was shown.
#[derive(Clone, Debug)]
pub struct Log {
    /// `num_errors`: reports that will still be shown.
    pub num_errors: u64,
    /// `all_errors`: all are shown.
    pub all_errors: bool,
    /// `driver_filter`: only for devices of this driver.
    pub driver_filter: Option<String>,
    /// `error_count`: all reports, shown or not.
    pub error_count: u64,
    shown: Vec<Complaint>,
}

impl Log {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            num_errors: options.num_errors,
            all_errors: options.all_errors,
            driver_filter: options.driver_filter.clone(),
            error_count: 0,
            shown: Vec::new(),
        }
    }

    /// What was shown, oldest first.
    #[must_use]
    pub fn shown(&self) -> &[Complaint] {
        &self.shown
    }

    /// `err_printk`. A report that the filter holds back still uses up one of `num_errors`.
    pub(super) fn report(&mut self, device: &Device, report: Report) {
        self.error_count += 1;
        let passes = self
            .driver_filter
            .as_ref()
            .is_none_or(|driver| *driver == device.driver);
        if passes && (self.all_errors || self.num_errors > 0) {
            self.shown.push(Complaint {
                device: device.bdf,
                driver: device.driver.clone(),
                report,
            });
        }
        if !self.all_errors {
            self.num_errors = self.num_errors.saturating_sub(1);
        }
    }
}
