//! What software and devices do, on both sides.

use rand::RngExt;
use tlproof_golden::iommu::{self as golden, Request, TransactionType};

use super::{CQ, ENABLE, FENCE_CELLS, FQ, Lockstep, Result, reg};
use crate::bench::Fence;
use crate::layout::MessageIn;
use crate::ports::IommuTop;
use crate::world::Command;

impl<T: IommuTop> Lockstep<T> {
    /// One change and what devices do after it.
    pub(super) fn epoch(&mut self) -> Result<()> {
        let commands = self.world.change(&mut self.iommu.memory.ram);
        self.publish();
        self.submit(&commands)?;
        self.checkpoint("commands")?;
        let count = self.rng.random_range(1..120);
        self.translate(count)?;
        for _ in 0..self.rng.random_range(0..6) {
            match self.rng.random_range(0..10) {
                0..4 => {
                    for _ in 0..self.rng.random_range(1..6) {
                        self.page_request()?;
                    }
                }
                4..6 => self.debug()?,
                6..8 => self.random_command()?,
                8 => self.ats_commands()?,
                _ => self.software()?,
            }
        }
        Ok(())
    }

    /// Requests as fast as they go.
    pub(super) fn translate(&mut self, count: usize) -> Result<()> {
        let requests: Vec<Request> = (0..count).map(|_| self.legal_request()).collect();
        let fence = if self.chance(30) {
            Some(self.prepare_fence(count)?)
        } else {
            None
        };
        let answers = self.bench.translate_around(&requests, fence);
        let answers = self.dut(answers)?;
        if let Some(fence) = fence {
            let (offset, tail) = fence.tail;
            self.iommu.write(offset, 4, tail);
        }
        let mut writes = Vec::new();
        for (request, answer) in requests.iter().zip(&answers) {
            let response = self.iommu.translate(request);
            self.check(request, &response, answer)?;
            self.coverage.request(request, &response, answer.is_gpa);
            if answer.is_mrif && request.ttyp.is_write() && request.iova & 3 == 0 {
                writes.push((*request, *answer, response));
            }
        }
        self.progress.requests += count as u64;
        self.checkpoint("translations")?;
        for (request, answer, response) in writes.into_iter().take(6) {
            // At times too large, or in the byte order of the other register.
            let identity = match self.rng.random_range(0..8) {
                0 => self.rng.random(),
                1 => self.rng.random_range(2048..4096u32),
                _ => self.rng.random_range(0..2048u32),
            };
            let big = request.iova & 4 != 0;
            let data = if big != self.chance(10) {
                identity.swap_bytes()
            } else {
                identity
            };
            let done = self.bench.write_interrupt_file(&request, &answer, data);
            self.dut(done)?;
            self.iommu.write_interrupt_file(&request, &response, data);
            self.progress.interrupt_files += 1;
            self.checkpoint("a write into an interrupt file")?;
        }
        self.drain_queues()
    }

    pub(super) fn legal_request(&mut self) -> Request {
        let request = self.world.request();
        if self.iommu.capabilities().ats || request.ttyp != TransactionType::AtsTranslation {
            return request;
        }
        Request {
            ttyp: TransactionType::UntranslatedRead,
            ats: tlproof_golden::iommu::AtsFlags::default(),
            ..request
        }
    }

    /// Puts commands into the queue, in as many goes as it takes, with a fence at the end.
    pub(super) fn submit(&mut self, commands: &[Command]) -> Result<()> {
        let fence = self.fence();
        let entries = 1u64 << self.queue_log2[0];
        let all: Vec<Command> = commands.iter().copied().chain([fence]).collect();
        for part in all.chunks(entries as usize - 1) {
            self.hand_over(part)?;
            let tail = self.iommu.read(reg::CQT, 4);
            let done = self.bench.poll(reg::CQH, |head| head == tail);
            self.dut(done)?;
        }
        Ok(())
    }

    /// A fence with a store.
    pub(super) fn fence(&mut self) -> Command {
        let data = u64::from(self.rng.random::<u32>());
        let cell = FENCE_CELLS + 4 * self.rng.random_range(0..1024);
        let order = self.rng.random_range(0..4u64) << 12;
        [2 | 1 << 10 | order | data << 32, cell >> 2]
    }

    /// Writes a fence into the queue; `cqt` is written while `count` requests are under way.
    fn prepare_fence(&mut self, count: usize) -> Result<Fence> {
        let words = self.fence();
        let tail = self.put_commands(&[words]);
        Ok(Fence {
            behind: self.rng.random_range(0..count),
            tail: (reg::CQT, tail),
            cell: words[1] << 2,
            global: words[0] & 3 << 12 != 0,
        })
    }

    pub(super) fn hand_over(&mut self, commands: &[Command]) -> Result<()> {
        let tail = self.put_commands(commands);
        self.write(reg::CQT, 4, tail)
    }

    /// Writes commands into the queue; the result is the value for `cqt`.
    fn put_commands(&mut self, commands: &[Command]) -> u64 {
        let big = self.world.fctl & 1 == 1;
        let entries = 1u64 << self.queue_log2[0];
        let mut tail = self.iommu.read(reg::CQT, 4);
        let translator = self.iommu.translator();
        let (caps, choices) = (&translator.capabilities, &translator.choices);
        for words in commands {
            let (fctl, ddtp) = (translator.fctl, translator.ddtp);
            let command = golden::Command::decode(*words, caps, choices, fctl, ddtp);
            self.coverage.command(&command, *words);
        }
        for words in commands {
            for (i, word) in words.iter().enumerate() {
                let at = CQ + 16 * tail + 8 * i as u64;
                let word = if big { word.swap_bytes() } else { *word };
                self.iommu.memory.ram.set(at, word);
                self.bench.memory.ram.set(at, word);
            }
            tail = (tail + 1) % entries;
        }
        self.progress.commands += commands.len() as u64;
        tail
    }

    /// One command of any kind, legal or not, and what software does if the queue stops.
    pub(super) fn random_command(&mut self) -> Result<()> {
        let mut word = match self.rng.random_range(0..10) {
            0..4 => 1 | self.rng.random_range(0..2) << 7 | self.rng.random::<u64>() & !0x3ff,
            4..6 => 2 | self.rng.random_range(0..4) << 12 | self.rng.random_range(0..2) << 11,
            6..8 => 3 | self.rng.random_range(0..2) << 7 | self.rng.random::<u64>() & !0x3ff,
            _ => self.rng.random::<u64>() & !0x7f | self.rng.random_range(0..8),
        };
        let mut second = self.rng.random::<u64>();
        if self.chance(80) {
            // Reserved bits are 0.
            let (w, s) = match word & 0x3ff {
                0x01 => (
                    0xffff_f7ff_ffff_ffff & !(0x1ff << 35 | 0xf << 60),
                    !(0x1ff | 3 << 62),
                ),
                0x81 => (
                    0xffff_f7fe_ffff_f7ff & !(0x1ff << 35 | 0xf << 60),
                    !(0x1ff | 3 << 62),
                ),
                2 => (0xffff_ffff_0000_3bff, 0),
                3 => (0xffff_ff02_0000_03ff, 0),
                0x83 => (0xffff_ff02_ffff_f3ff, 0),
                _ => (u64::MAX, 0),
            };
            word &= w;
            second &= s;
        }
        if self.chance(30) {
            // One bit that may be reserved.
            match self.rng.random_range(0..128) {
                bit @ 0..64 => word ^= 1 << bit,
                bit => second ^= 1 << (bit - 64),
            }
        }
        if word & 0x7f == 4 {
            // Those send messages.
            word &= !0x7f;
        }
        if word & 0x7f == 2 {
            // A store only to where nothing is.
            word &= !(1 << 10);
            if self.chance(20) {
                word |= 1 << 10;
                second = 1 << self.rng.random_range(54..62);
            }
        }
        self.hand_over(&[[word, second]])?;
        let settled = self.bench.settle();
        self.dut(settled)?;
        self.checkpoint("a random command")?;
        self.recover_commands()
    }

    /// If the queue has stopped, makes it go on behind the command that stopped it.
    pub(super) fn recover_commands(&mut self) -> Result<()> {
        let csr = self.iommu.read(reg::CQCSR, 4);
        if csr & 0x700 != 0 {
            let big = self.world.fctl & 1 == 1;
            let at = CQ + 16 * self.iommu.read(reg::CQH, 4);
            let word: u64 = if big { 1u64.swap_bytes() } else { 1 };
            for (at, word) in [(at, word), (at + 8, 0)] {
                self.iommu.memory.ram.set(at, word);
                self.bench.memory.ram.set(at, word);
            }
        }
        self.write_csr(reg::CQCSR, csr & 3 | 0xf00)?;
        self.checkpoint("recovery of the command queue")
    }

    /// ATS commands, and devices that answer or do not.
    pub(super) fn ats_commands(&mut self) -> Result<()> {
        if !self.iommu.capabilities().ats {
            return Ok(());
        }
        let count = self
            .rng
            .random_range(1..=((1 << self.queue_log2[0]) - 2).clamp(1, 3));
        let timeout = self.config.ats_timeout;
        let mut commands = Vec::new();
        let mut invalidated = Vec::new();
        for _ in 0..count {
            let device = u64::from(self.world.device_id());
            // Operands that are not valid are ignored.
            let mut word = 4 | (device & 0xffff) << 40;
            word |= self.rng.random_range(0..1u64 << 20) << 12;
            word |= u64::from(self.rng.random::<bool>()) << 32;
            if self.chance(50) || device >> 16 != 0 {
                word |= 1 << 33 | (device >> 16) << 56;
            } else {
                word |= self.rng.random_range(0..1u64 << 8) << 56;
            }
            if self.chance(40) {
                let group = self.rng.random_range(0..512u64);
                let code = self.rng.random_range(0..16u64);
                commands.push([word | 1 << 7, group << 32 | code << 44]);
                continue;
            }
            let segment = if word >> 33 & 1 == 1 { word >> 56 } else { 0 };
            let device_id = (segment << 16 | word >> 40 & 0xffff) as u32;
            // Without ATS the device completes nothing, and a timeout takes long.
            if self.iommu.supports_ats(device_id) || (timeout.is_some() && self.chance(5)) {
                invalidated.push(device_id);
                commands.push([word, self.rng.random::<u64>() & !0x7fe]);
            }
        }
        if commands.is_empty() {
            return Ok(());
        }
        self.hand_over(&commands)?;
        self.checkpoint("ATS commands")?;
        let fence = self.fence();
        self.hand_over(&[fence])?;
        self.checkpoint("a fence behind ATS commands")?;
        let unsupported = |&device_id: &u32| !self.iommu.supports_ats(device_id);
        let late = invalidated.iter().any(unsupported);
        let silent = timeout.is_some() && self.chance(3);
        if !silent {
            for (tag, device_id) in invalidated.into_iter().enumerate() {
                let count = self.rng.random_range(0..8u8);
                let needed = if count == 0 { 8 } else { count };
                let tags = 1 << tag;
                for _ in 0..needed {
                    if self.chance(20) {
                        // Another device has nothing to complete, be it one with ATS.
                        let known = self.world.device_id();
                        let other = device_id ^ 1 << self.rng.random_range(0..24);
                        let other = if self.chance(70) { known } else { other };
                        if other != device_id {
                            self.complete(other, tags, count)?;
                        }
                    }
                    self.complete(device_id, tags, count)?;
                    if self.chance(20) {
                        self.checkpoint("an Invalidate Completion")?;
                    }
                }
            }
        }
        if let Some(cycles) = timeout.filter(|_| silent || late) {
            let run = self.bench.run(cycles);
            self.dut(run)?;
            self.iommu.expire_invalidations();
        }
        self.checkpoint("ATS commands and their fence")?;
        self.recover_commands()
    }

    /// An Invalidate Completion.
    fn complete(&mut self, device_id: u32, tags: u32, count: u8) -> Result<()> {
        let message = MessageIn::Completion {
            device_id,
            tags,
            count,
        };
        let done = self.bench.message(&message);
        self.dut(done)?;
        self.iommu.invalidate_completion(device_id, tags, count);
        Ok(())
    }

    pub(super) fn page_request(&mut self) -> Result<()> {
        if !self.iommu.capabilities().ats {
            return Ok(());
        }
        let request = self.world.page_request();
        let done = self.bench.message(&MessageIn::PageRequest(request));
        self.dut(done)?;
        self.iommu.page_request(&request);
        self.coverage.page_request(&request, self.iommu.messages());
        self.progress.page_requests += 1;
        self.checkpoint(&format!("{request:x?}"))
    }

    pub(super) fn debug(&mut self) -> Result<()> {
        if !self.iommu.capabilities().dbg {
            return Ok(());
        }
        let request = self.world.request();
        let mut control = u64::from(request.device_id) << 40 | 1;
        control |= self.rng.random_range(0..8) << 1;
        if let Some(process_id) = request.process_id {
            control |= 1 << 32 | u64::from(process_id) << 12;
        }
        self.write(reg::TR_REQ_IOVA, 8, request.iova)?;
        self.write(reg::TR_REQ_CTL, 8, control)?;
        let done = self.bench.poll(reg::TR_REQ_CTL, |v| v & 1 == 0);
        self.dut(done)?;
        let got = self.bench.read(reg::TR_RESPONSE, 8);
        let got = self.dut(got)?;
        let expected = self.iommu.read(reg::TR_RESPONSE, 8);
        if !self.same_response(&request, expected, got) {
            return Err(self.mismatch(format!(
                "tr_response: expected {expected:#x}, got {got:#x}; tr_req_ctl {control:#x}, \
                 tr_req_iova {:#x}",
                request.iova
            )));
        }
        self.progress.debug += 1;
        self.checkpoint("a debug translation")
    }

    /// What software does between: masks, vectors, pending bits, queues.
    pub(super) fn software(&mut self) -> Result<()> {
        match self.rng.random_range(0..5) {
            0 => {
                let value = self.rng.random_range(0..16);
                self.write(reg::IPSR, 4, value)?;
            }
            1 => {
                // Messages that the mask comes before would be held back.
                let settled = self.bench.settle();
                self.dut(settled)?;
                let vector = self.rng.random_range(0..16);
                let masked = self.rng.random_range(0..2);
                self.write(reg::MSI_CFG_TBL + 16 * vector + 12, 4, masked)?;
            }
            2 => {
                let csr = [reg::FQCSR, reg::PQCSR][self.rng.random_range(0..2)];
                let value = self.rng.random_range(0..4u64) | self.rng.random_range(0..4u64) << 8;
                self.write_csr(csr, value | ENABLE)?;
            }
            3 => {
                let inhibited = u64::from(self.rng.random::<u32>());
                self.write(reg::IOCOUNTINH, 4, inhibited)?;
            }
            _ => {
                let value = u64::from(self.rng.random::<u32>());
                let index = [reg::FQH, reg::PQH][self.rng.random_range(0..2)];
                self.write(index, 4, value)?;
            }
        }
        self.checkpoint("a register write")
    }

    /// Records of messages and of writes into interrupt files.
    pub(super) fn look_at_records(&mut self) {
        let big = self.world.fctl & 1 == 1;
        let entries = 1u64 << self.queue_log2[1];
        let (mut head, tail) = (self.iommu.read(reg::FQH, 4), self.iommu.read(reg::FQT, 4));
        // A queue that is off has the tail of an earlier one.
        while head != tail && tail < entries {
            let words = [0, 8, 16, 24].map(|i| {
                let word = self.iommu.memory.ram.get(FQ + 32 * head + i);
                if big { word.swap_bytes() } else { word }
            });
            self.coverage.record(&golden::FaultRecord::decode(&words));
            head = (head + 1) % entries;
        }
    }

    /// Software takes what is in the queues, and at times clears errors.
    pub(super) fn drain_queues(&mut self) -> Result<()> {
        self.look_at_records();
        for (head, tail, csr) in [
            (reg::FQH, reg::FQT, reg::FQCSR),
            (reg::PQH, reg::PQT, reg::PQCSR),
        ] {
            if self.chance(60) {
                let tail = self.iommu.read(tail, 4);
                self.write(head, 4, tail)?;
                let value = self.iommu.read(csr, 4);
                self.write_csr(csr, value & 3 | 0x300)?;
            }
        }
        if self.chance(60) {
            self.write(reg::IPSR, 4, 0xf)?;
        }
        Ok(())
    }

    /// Whether two values of `tr_response` say the same. With a fault the other fields are
    /// unspecified. Beside interrupt files a part of the range may be reported (IOMMU §5.26).
    fn same_response(&self, request: &Request, expected: u64, got: u64) -> bool {
        if (expected | got) & 1 == 1 {
            return expected & got & 1 == 1;
        }
        let types = [
            TransactionType::UntranslatedRead,
            TransactionType::UntranslatedWrite,
            TransactionType::UntranslatedExecute,
        ];
        // As whatever it was made: another one may not be permitted.
        let kinds = types.into_iter().flat_map(|t| [(t, false), (t, true)]);
        let beside_interrupt_files = kinds.into_iter().any(|(ttyp, privileged)| {
            let request = Request {
                ttyp,
                privileged,
                ..*request
            };
            let translator = self.iommu.translator();
            let response = translator.lookup(&self.iommu.memory, &request);
            response.beside_interrupt_files
        });
        if !beside_interrupt_files {
            return expected == got;
        }
        let range = |value: u64| {
            let ppn = value >> 10 & ((1 << 44) - 1);
            let pages = if value >> 9 & 1 == 1 {
                2u64 << ppn.trailing_ones()
            } else {
                1
            };
            (ppn & !(pages - 1), pages)
        };
        let ((first, pages), (got_first, got_pages)) = (range(expected), range(got));
        let rest = !(0x3ff << 44 | ((1 << 44) - 1) << 10 | 1 << 9);
        expected & rest == got & rest
            && got_first >= first
            && got_first + got_pages <= first + pages
    }
}
