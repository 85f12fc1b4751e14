//! The whole IOMMU as software and devices see it: registers, queues, commands, page requests,
//! interrupts, performance monitor, debug interface, around a [`Translator`].

mod ats;
mod debug;
mod interrupts;
mod monitor;
mod page_requests;
mod queue;
mod registers;

pub use ats::{AtsMessage, PageRequest};

use super::{
    AtsTarget, Capabilities, Choices, Command, Fault, FaultRecord, MrifEffect, MrifRequest,
    Outcome, Request, Response, SystemMemory, TransactionType, Translation, Translator, WalkEvents,
};
use ats::Invalidations;
use debug::Debug;
use interrupts::{Cause, Interrupts, Message};
use monitor::{Event, Ids, Monitor};
use queue::{MEMORY_FAULT, OVERFLOW, Queue};

/// `cqcsr.cmd_to`, `.cmd_ill`, `.fence_w_ip`.
const TIMEOUT: u32 = 1 << 9;
const ILLEGAL: u32 = 1 << 10;
const FENCE_INTERRUPT: u32 = 1 << 11;

#[derive(Clone, Debug)]
struct Queues {
    commands: Queue,
    faults: Queue,
    page_requests: Queue,
}

/// An IOMMU without caches, every step of which ends at once: what a device under test must agree
/// with whenever software has waited for it, and has invalidated what it changed.
///
/// Stores of the IOMMU (records, completed fences, its own MSIs, A and D bits, interrupt files) go
/// to the memory. Invalidations have nothing to forget; [`Judge`](super::Judge) knows what a cache
/// may still hold.
///
/// ```
/// use tlproof_golden::iommu::{Capabilities, Choices, FlatMemory, Iommu, Outcome, Request};
///
/// let memory = FlatMemory::new(0x8000_0000, 1 << 20);
/// let capabilities = Capabilities::decode(56 << 32 | 1 << 9 | 0x10);
/// let mut iommu = Iommu::new(capabilities, Choices::default(), memory);
/// // A fault queue of 4 records at 0x8000_1000, on, with interrupts.
/// iommu.write(40, 8, 0x8000_1000 >> 12 << 10 | 1);
/// iommu.write(76, 4, 3);
/// iommu.write(768, 8, 0x8000_2000); // where vector 0 is signalled
///
/// // ddtp.iommu_mode is Off: cause 256, and the record says so.
/// let response = iommu.translate(&Request::untranslated(5, 0x1000, false));
/// assert!(matches!(response.outcome, Outcome::Fault(f) if f.cause() == 256));
/// assert_eq!(iommu.read(52, 4), 1); // fqt
/// assert_eq!(iommu.memory.get(0x8000_1000) & 0xfff, 256);
/// assert_eq!(iommu.read(84, 4), 1 << 1); // ipsr.fip
/// ```
#[derive(Clone, Debug)]
pub struct Iommu<M> {
    /// The memory system.
    pub memory: M,
    translator: Translator,
    queues: Queues,
    interrupts: Interrupts,
    monitor: Monitor,
    debug: Debug,
    invalidations: Invalidations,
    sent: Vec<AtsMessage>,
}

impl<M: SystemMemory> Iommu<M> {
    /// Out of reset. Registers whose reset value is unspecified are 0.
    #[must_use]
    pub fn new(capabilities: Capabilities, choices: Choices, memory: M) -> Self {
        let log2_max = choices.queue_log2_max;
        let counters = if capabilities.hpm {
            choices.event_counters.into()
        } else {
            0
        };
        let mut iommu = Self {
            memory,
            queues: Queues {
                commands: Queue::new(
                    16,
                    MEMORY_FAULT | TIMEOUT | ILLEGAL | FENCE_INTERRUPT,
                    log2_max,
                ),
                faults: Queue::new(32, MEMORY_FAULT | OVERFLOW, log2_max),
                page_requests: Queue::new(16, MEMORY_FAULT | OVERFLOW, log2_max),
            },
            interrupts: Interrupts::new(capabilities.igs != 1, choices.interrupt_vectors_log2),
            monitor: Monitor::new(counters, choices.counter_bits),
            debug: Debug::default(),
            invalidations: Invalidations::default(),
            sent: Vec::new(),
            translator: Translator::new(capabilities, choices),
        };
        iommu.translator.ddtp = iommu.translator.choices.reset_mode_bare.into();
        iommu.translator.fctl = iommu.legal_fctl(0);
        iommu
    }

    /// What it implements.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.translator.capabilities
    }

    /// The translation process with the registers as they are.
    #[must_use]
    pub const fn translator(&self) -> &Translator {
        &self.translator
    }

    /// A request of a device. A fault is recorded.
    pub fn translate(&mut self, request: &Request) -> Response {
        self.translate_with(request, false)
    }

    /// A write of four bytes to a page in MRIF mode, to which the request was translated. Faults are
    /// recorded.
    pub fn write_interrupt_file(
        &mut self,
        request: &Request,
        response: &Response,
        data: u32,
    ) -> MrifEffect {
        let Outcome::Ok(Translation {
            gpa,
            mrif: Some(mrif),
            ..
        }) = &response.outcome
        else {
            return MrifEffect::Aborted;
        };
        let effect = mrif.access(
            &mut self.memory,
            &self.translator.capabilities,
            &self.translator.choices,
            *gpa,
            MrifRequest::Write(&data.to_le_bytes()),
        );
        match effect {
            MrifEffect::Fault(cause) if !response.dtf => self.record(&FaultRecord {
                cause,
                ..FaultRecord::of(request, &self.translator.choices)
            }),
            MrifEffect::NoticeFault(address) => self.message_fault(address),
            _ => {}
        }
        effect
    }

    /// PCIe messages since the last [`Self::take_messages`], in order.
    #[must_use]
    pub fn messages(&self) -> &[AtsMessage] {
        &self.sent
    }

    /// PCIe messages since the last call, in order.
    pub fn take_messages(&mut self) -> Vec<AtsMessage> {
        std::mem::take(&mut self.sent)
    }

    /// An "Invalidate Completion" message of a device: its ITag Vector and Completion Count. Without
    /// [`Self::supports_ats`] it is an unsupported request, which completes nothing (IOMMU §2.1.3.1).
    pub fn invalidate_completion(&mut self, device_id: u32, tags: u32, count: u8) {
        if self.supports_ats(device_id) {
            self.invalidations.complete(device_id, tags, count);
        }
        self.settle();
    }

    /// Whether the device has a context, and `EN_ATS` in it.
    #[must_use]
    pub fn supports_ats(&self, device_id: u32) -> bool {
        let context = self.translator.locate(&self.memory, device_id);
        context.is_ok_and(|dc| dc.is_some_and(|dc| dc.en_ats()))
    }

    /// All invalidations that devices have not completed time out.
    pub fn expire_invalidations(&mut self) {
        self.invalidations.expire();
        self.settle();
    }

    /// Clock cycles pass, for `iohpmcycles` alone.
    pub fn advance(&mut self, cycles: u64) {
        if self.translator.capabilities.hpm && self.monitor.advance(cycles) {
            self.raise(Cause::Monitor);
        }
    }

    /// Whether wires signal interrupts.
    const fn uses_wires(&self) -> bool {
        self.translator.fctl >> 1 & 1 == 1
    }

    /// Levels of the wires, bit n that of vector n; 0 while messages are in use (IOMMU §5.18).
    #[must_use]
    pub fn wires(&self) -> u16 {
        if self.uses_wires() {
            self.interrupts.wires()
        } else {
            0
        }
    }

    const fn big_endian(&self) -> bool {
        self.translator.fctl & 1 == 1
    }

    fn translate_with(&mut self, request: &Request, debug: bool) -> Response {
        let mut response = self.translator.translate(&mut self.memory, request);
        if debug && let Outcome::Ok(Translation { mrif: Some(_), .. }) = response.outcome {
            // IOMMU §4: the process stops.
            response.outcome = Outcome::Fault(Fault {
                record: FaultRecord {
                    cause: 260,
                    ..FaultRecord::of(request, &self.translator.choices)
                },
                reported: !response.dtf,
                status: super::Status::UnsupportedRequest,
                clause: "IOMMU §4",
            });
        }
        self.count(request, &response);
        if let Outcome::Fault(fault) = &response.outcome
            && fault.reported
        {
            self.record(&fault.record);
        }
        response
    }

    fn count(&mut self, request: &Request, response: &Response) {
        if !self.translator.capabilities.hpm {
            return;
        }
        let ids = Ids {
            device_id: request.device_id,
            process_id: request.process_id,
            gscid: response.gscid,
            pscid: response.pscid,
        };
        let kind = match request.ttyp {
            TransactionType::AtsTranslation => Event::AtsTranslation,
            t if t.is_translated() => Event::Translated,
            _ => Event::Untranslated,
        };
        let loads = &response.loads;
        let walks = |entries: u32| match self.translator.choices.walk_events {
            WalkEvents::PerEntry => entries,
            WalkEvents::PerWalk => entries.min(1),
        };
        let second = match self.translator.choices.walk_events {
            WalkEvents::PerEntry => loads.second_stage,
            WalkEvents::PerWalk => loads.second_stage_walks,
        };
        let events = [
            (kind, 1),
            (Event::TlbMiss, 1),
            (Event::DeviceDirectory, walks(loads.device_directory)),
            (Event::ProcessDirectory, walks(loads.process_directory)),
            (Event::FirstStage, walks(loads.first_stage)),
            (Event::SecondStage, second),
        ];
        let mut overflow = false;
        for (event, times) in events {
            if times > 0 {
                overflow |= self.monitor.count(event, times, &ids);
            }
        }
        if overflow {
            self.raise(Cause::Monitor);
        }
    }

    /// Queues a fault record (IOMMU §3.2).
    fn record(&mut self, record: &FaultRecord) {
        let queue = &mut self.queues.faults;
        if !queue.is_on() || queue.failed() {
            return;
        }
        let caps = self.translator.capabilities;
        let big = self.translator.fctl & 1 == 1;
        let produced = queue.push(&mut self.memory, &record.encode(), big, |at| {
            caps.addressable(at)
        });
        if produced && queue.interrupts() {
            self.raise(Cause::FaultQueue);
        }
        self.levels();
    }

    /// An MSI of the IOMMU itself could not be stored (IOMMU §5.29).
    fn message_fault(&mut self, address: u64) {
        self.record(&FaultRecord {
            cause: 273,
            ttyp: 0,
            device_id: 0,
            process_id: None,
            privileged: false,
            iotval: address,
            iotval2: 0,
        });
    }

    fn raise(&mut self, cause: Cause) {
        if let Some(message) = self.interrupts.raise(cause, self.uses_wires()) {
            self.send(message);
        }
    }

    fn send(&mut self, (address, data): Message) {
        let stored = self.translator.capabilities.addressable(address)
            && self.memory.store(address, &data.to_le_bytes()).is_ok();
        if !stored {
            self.message_fault(address);
        }
    }

    /// Raises what a condition that persists demands (IOMMU §5.18).
    fn levels(&mut self) {
        let queues = [
            (&self.queues.commands, Cause::CommandQueue),
            (&self.queues.faults, Cause::FaultQueue),
            (&self.queues.page_requests, Cause::PageRequestQueue),
        ];
        let due =
            queues.map(|(queue, cause)| (queue.failed() && queue.interrupts()).then_some(cause));
        for cause in due.into_iter().flatten() {
            self.raise(cause);
        }
    }

    /// Does all that can be done now.
    fn settle(&mut self) {
        self.run_commands();
        self.levels();
    }

    fn run_commands(&mut self) {
        loop {
            let queue = &self.queues.commands;
            let stopped = queue.has(MEMORY_FAULT | TIMEOUT | ILLEGAL);
            if !queue.is_on() || stopped || queue.is_empty() {
                return;
            }
            match self.command() {
                Step::Done => self.queues.commands.advance(),
                Step::Wait => return,
                Step::Stop(error) => self.queues.commands.set(error),
            }
        }
    }

    /// Executes the command at the head (IOMMU §3.1).
    fn command(&mut self) -> Step {
        let at = self.queues.commands.address();
        let caps = self.translator.capabilities;
        let fetched = if caps.addressable(at) {
            super::translator::read::<2>(&self.memory, at).ok()
        } else {
            None
        };
        let Some(words) = fetched else {
            return Step::Stop(MEMORY_FAULT);
        };
        let words = words.map(|w| if self.big_endian() { w.swap_bytes() } else { w });
        let Translator {
            capabilities,
            choices,
            ddtp,
            fctl,
            ..
        } = &self.translator;
        match Command::decode(words, capabilities, choices, *fctl, *ddtp) {
            Command::Illegal => Step::Stop(ILLEGAL),
            Command::Invalidate(_) => Step::Done,
            Command::Fence {
                store, interrupt, ..
            } => self.fence(store, interrupt),
            Command::AtsInvalidate(target) => {
                let device_id = destination(&target);
                let Some(tag) = self.invalidations.begin(device_id) else {
                    return Step::Wait;
                };
                self.sent.push(AtsMessage::Invalidate {
                    device_id,
                    process_id: target.process_id,
                    tag,
                    body: target.payload,
                });
                Step::Done
            }
            Command::AtsGroupResponse(target) => {
                self.sent.push(AtsMessage::GroupResponse {
                    device_id: destination(&target),
                    process_id: target.process_id,
                    group: (target.payload >> 32 & 0x1ff) as u16,
                    code: (target.payload >> 44 & 0xf) as u8,
                });
                Step::Done
            }
        }
    }

    /// IOFENCE.C (IOMMU §3.1.2).
    fn fence(&mut self, store: Option<(u64, u32)>, interrupt: bool) -> Step {
        if self.invalidations.any() {
            return Step::Wait;
        }
        if std::mem::take(&mut self.invalidations.timed_out) {
            return Step::Stop(TIMEOUT);
        }
        if let Some((address, data)) = store {
            let swapped = self.big_endian() && self.translator.choices.fence_data_big_endian;
            let data = if swapped { data.swap_bytes() } else { data };
            let stored = self.translator.capabilities.addressable(address)
                && self.memory.store(address, &data.to_le_bytes()).is_ok();
            if !stored {
                return Step::Stop(MEMORY_FAULT);
            }
        }
        if interrupt {
            self.queues.commands.set(FENCE_INTERRUPT);
        }
        Step::Done
    }
}

/// How far a command has come.
enum Step {
    Done,
    Wait,
    Stop(u32),
}

/// The function that an ATS command names; without a segment that of segment 0.
fn destination(target: &AtsTarget) -> u32 {
    u32::from(target.segment.unwrap_or(0)) << 16 | u32::from(target.requester_id)
}
