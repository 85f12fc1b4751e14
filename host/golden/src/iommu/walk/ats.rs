//! Completions of ATS translation requests (IOMMU §2.6).

use super::{Done, Tables, Walk};
use crate::iommu::{Choices, Completion, Pbmt, Permissions, Status};

/// Causes that make a Success completion without access.
pub(super) const fn is_success(cause: u16) -> bool {
    matches!(cause, 12 | 13 | 15 | 20 | 21 | 23 | 262 | 266)
}

/// The status for the other causes.
pub(super) const fn status(cause: u16, choices: &Choices) -> Status {
    match cause {
        256..=260 => Status::UnsupportedRequest,
        268..=274 if !choices.ats_corruption_aborts => Status::UnsupportedRequest,
        _ => Status::CompleterAbort,
    }
}

impl<T: Tables> Walk<'_, T> {
    pub(super) fn no_access(&self, cause: u16) -> Completion {
        Completion {
            address: 0,
            size: 4096,
            permissions: Permissions::NONE,
            privileged: self.request.supervisor(),
            global: false,
            untranslated_only: false,
            cxl_io: false,
            denied: Some(cause),
            qos: self.qos(),
        }
    }

    pub(super) fn completion(&self, done: &Done) -> Completion {
        let t = &done.translation;
        let t2gpa = self.dc.is_some_and(|dc| dc.t2gpa());
        let untranslated_only = t.mrif.is_some();
        let permissions = if untranslated_only {
            // Whatever the first stage says: the device has to ask with each access.
            Permissions {
                execute: false,
                ..Permissions::ALL
            }
        } else {
            Permissions {
                read: t.permissions.read,
                write: t.permissions.write,
                execute: t.permissions.execute && t.permissions.read && self.request.ats.execute,
            }
        };
        let bare = u32::from(self.choices.bare_size_log2).clamp(12, 63);
        let bits = done.bits.unwrap_or(bare.min(done.hole));
        let address = match (t2gpa, t.mrif) {
            (true, _) => t.gpa,
            // The range stays what the device asked for; it gets no translated address.
            (false, Some(_)) => self.request.iova,
            (false, None) => t.spa.0,
        };
        let io = t.is_msi
            || t2gpa
            || if t.pbmt == Pbmt::Pma {
                self.choices.cxl_io_for_pma
            } else {
                true
            };
        Completion {
            address: address >> bits << bits,
            size: 1 << bits,
            permissions,
            privileged: self.request.supervisor(),
            global: done.global && self.request.process_id.is_some() && !t.is_msi,
            untranslated_only,
            cxl_io: self.request.ats.cxl && io,
            denied: None,
            qos: t.qos,
        }
    }
}
