//! The translation-request interface (IOMMU §4, §5.24 to §5.26).

use super::Iommu;
use crate::iommu::{
    AtsFlags, Outcome, Request, Response, SystemMemory, TransactionType, Translation,
};

/// Its registers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Debug {
    iova: u64,
    control: u64,
    response: u64,
}

impl Debug {
    pub const fn read(&self, offset: u32) -> u64 {
        match offset & !7 {
            0 => self.iova,
            8 => self.control,
            _ => self.response,
        }
    }

    /// Tells whether a translation is asked for.
    pub fn write(&mut self, offset: u32, value: u32) -> bool {
        let shift = 8 * (offset & 4);
        let put = |old: u64| old & !(0xffff_ffff << shift) | u64::from(value) << shift;
        match offset & !7 {
            0 => self.iova = put(self.iova) & !0xfff,
            8 => {
                self.control = put(self.control) & 0xffff_ff01_ffff_f00f;
                return self.control & 1 == 1;
            }
            _ => {}
        }
        false
    }

    fn request(&self, execute_wins: bool) -> Request {
        let bit = |n: u32| self.control >> n & 1 == 1;
        let (execute, write) = (bit(2), !bit(3));
        let ttyp = match (execute, write) {
            (true, true) if !execute_wins => TransactionType::UntranslatedWrite,
            (true, _) => TransactionType::UntranslatedExecute,
            (false, true) => TransactionType::UntranslatedWrite,
            (false, false) => TransactionType::UntranslatedRead,
        };
        Request {
            ttyp,
            device_id: (self.control >> 40) as u32,
            process_id: bit(32).then_some((self.control >> 12) as u32 & 0xf_ffff),
            privileged: bit(1) && bit(32),
            iova: self.iova,
            ats: AtsFlags::default(),
        }
    }
}

impl<M: SystemMemory> Iommu<M> {
    pub(super) fn debug_translate(&mut self) {
        let request = self
            .debug
            .request(self.translator.choices.debug_execute_wins);
        let response = self.translate_with(&request, true);
        self.debug.response = match response.outcome {
            Outcome::Ok(t) => self.debug_response(&response, &t),
            _ => 1,
        };
        self.debug.control &= !1;
    }

    fn debug_response(&self, response: &Response, t: &Translation) -> u64 {
        let choices = &self.translator.choices;
        let size = if choices.debug_superpages {
            response.size(t, choices.bare_size_log2)
        } else {
            4096
        };
        let (s, low) = if size > 4096 {
            (1, size / 2 - 4096)
        } else {
            (0, 0)
        };
        let page = t.spa.0 & !(size - 1) & ((1 << 56) - 1) | low;
        (page >> 12) << 10 | s << 9 | (t.pbmt as u64) << 7
    }
}
