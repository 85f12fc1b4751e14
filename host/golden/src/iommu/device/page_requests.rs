//! Page requests: the queue, and the answers that the IOMMU gives itself (IOMMU §2.7, §3.3).

use super::ats::code;
use super::{AtsMessage, Cause, FaultRecord, Iommu, OVERFLOW, PageRequest};
use crate::iommu::{Choices, Request, SystemMemory};

/// Message code of a "Page Request" (PCIe 6.0 §10.4.1).
const MESSAGE_CODE: u64 = 4;
/// `TTYP` of a PCIe message.
const MESSAGE: u8 = 9;

impl<M: SystemMemory> Iommu<M> {
    /// A "Page Request" or "Stop Marker" message of a device.
    pub fn page_request(&mut self, request: &PageRequest) {
        let context = self.translator.locate(&self.memory, request.device_id);
        let prpr = context.is_ok_and(|dc| dc.is_some_and(|dc| dc.prpr()));
        let refusal = match context {
            // In mode Bare there are no messages (IOMMU §5.5).
            Ok(None) => Some((260, code::INVALID_REQUEST, false)),
            Ok(Some(dc)) if !dc.en_pri() => Some((260, code::INVALID_REQUEST, dc.dtf())),
            Ok(Some(_)) => None,
            Err(cause @ 260) => Some((cause, code::INVALID_REQUEST, false)),
            Err(cause) => Some((cause, code::FAILURE, false)),
        };
        let answer = match refusal {
            Some((cause, code, silent)) => {
                if !silent {
                    self.refused(request, cause);
                }
                Some(code)
            }
            None => self.queue_page_request(request),
        };
        if let Some(code) = answer
            && request.last
            && !request.is_stop_marker()
        {
            let with_process = code == code::FAILURE || prpr;
            self.sent.push(AtsMessage::GroupResponse {
                device_id: request.device_id,
                process_id: request.process_id.filter(|_| with_process),
                group: request.group,
                code,
            });
        }
        self.settle();
    }

    fn refused(&mut self, request: &PageRequest, cause: u16) {
        self.record(&FaultRecord {
            cause,
            ttyp: MESSAGE,
            device_id: request.device_id,
            process_id: request.process_id,
            privileged: request.privileged && request.process_id.is_some(),
            iotval: MESSAGE_CODE,
            iotval2: 0,
        });
    }

    /// The code of the answer if the message could not be queued.
    fn queue_page_request(&mut self, request: &PageRequest) -> Option<u8> {
        let caps = self.translator.capabilities;
        let big = self.big_endian();
        let queue = &mut self.queues.page_requests;
        if !queue.is_on() {
            return Some(code::FAILURE);
        }
        let queued = !queue.failed()
            && queue.push(&mut self.memory, &request.record(), big, |at| {
                caps.addressable(at)
            });
        let interrupts = queue.interrupts();
        if queued {
            if interrupts {
                self.raise(Cause::PageRequestQueue);
            }
            return None;
        }
        let queue = &self.queues.page_requests;
        Some(if queue.has(super::MEMORY_FAULT) {
            code::FAILURE
        } else {
            debug_assert!(queue.has(OVERFLOW));
            code::SUCCESS
        })
    }
}

impl FaultRecord {
    /// The record of a fault of `request`, with cause 0.
    pub(super) fn of(request: &Request, choices: &Choices) -> Self {
        Self {
            cause: 0,
            ttyp: request.ttyp as u8,
            device_id: request.device_id,
            process_id: request.process_id,
            privileged: request.supervisor(),
            iotval: request.iova & !choices.unreported_offset(),
            iotval2: 0,
        }
    }
}
