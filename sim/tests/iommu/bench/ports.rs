//! The ports: requests and answers, memory with its latency.

use rand::RngExt;
use tlproof_golden::iommu::{Actual, Status};
use tlproof_golden::memory::Memory;
use tlproof_pcie::{MemoryMap, PhysAddr};

use super::*;

impl Bench {
    pub(super) fn drive_request(&mut self) {
        if self.offered.is_none() && !self.requests.is_empty() && self.rng.random_bool(0.7) {
            let free: Vec<usize> = (0..TAGS).filter(|&t| self.flights[t].is_none()).collect();
            if !free.is_empty() {
                let tag = free[self.rng.random_range(0..free.len())];
                let request = self.requests.pop_front().expect("not empty");
                self.offered = Some((request, tag as u8));
            }
        }
        let input = &mut self.model.input;
        input.set_tr_req_valid_i(self.offered.is_some());
        if let Some((request, tag)) = self.offered {
            let words = input.tr_req_i();
            put(words, 0, 5, tag.into());
            put(words, 5, 64, request.iova);
            put(words, 69, 1, request.privileged.into());
            put(words, 70, 20, request.process_id.unwrap_or(0).into());
            put(words, 90, 1, request.process_id.is_some().into());
            put(words, 91, 24, request.device_id.into());
            put(words, 115, 6, request.ttyp as u64);
        }
    }

    pub(super) fn take_request(&mut self) {
        if !self.model.output.tr_req_ready_o() {
            return;
        }
        if let Some((request, tag)) = self.offered.take() {
            self.note(format!("request {tag}: {request:x?}"));
            self.flights[usize::from(tag)] = Some(Flight {
                request,
                since: self.judge.stamp(),
                number: self.accepted,
            });
            self.accepted += 1;
        }
    }

    pub(super) fn take_answer(&mut self) {
        let words = self.model.output.tr_rsp_o();
        let tag = get(words, 72, 5) as usize;
        let status = match get(words, 70, 2) {
            0 => Status::Ok,
            1 => Status::UnsupportedRequest,
            2 => Status::CompleterAbort,
            other => panic!("status {other}"),
        };
        let actual = Actual {
            status,
            cause: get(words, 58, 12) as u16,
            spa: PhysAddr(get(words, 0, 56)),
            pbmt: get(words, 56, 2) as u8,
        };
        assert_eq!(
            status == Status::Ok,
            actual.cause == 0,
            "a cause if and only if the request is aborted: {actual:x?}"
        );
        let flight = self.flights[tag].take().expect("a request with this tag");
        assert_eq!(
            flight.number, self.answered,
            "answers in the order of requests"
        );
        self.answered += 1;
        self.note(format!("answer {tag}: {actual:x?}"));
        let Flight { request, since, .. } = flight;
        let verdict = self.judge.check(&self.memory, &request, since, &actual);
        self.answers.push(Answer {
            request,
            since,
            actual,
            verdict,
        });
    }

    pub(super) fn drive_memory(&mut self) {
        let due: Vec<usize> = (0..self.owed.len())
            .filter(|&i| self.owed[i].due <= self.now && Some(self.owed[i].addr) != self.held)
            .collect();
        let input = &mut self.model.input;
        input.set_mem_rsp_valid_i(!due.is_empty());
        if !due.is_empty() {
            let pick = due[self.rng.random_range(0..due.len())];
            let owed = &mut self.owed[pick];
            let beat = owed.beats.pop_front().expect("a beat that is owed");
            let last = owed.beats.is_empty();
            let words = input.mem_rsp_i();
            for (i, data) in beat.data.iter().enumerate() {
                put(words, 64 * i, 64, *data);
            }
            put(words, 256, 4, owed.tag);
            put(words, 260, 1, beat.poison.into());
            put(words, 261, 1, beat.error.into());
            put(words, 262, 1, last.into());
            if last {
                self.owed.swap_remove(pick);
            } else {
                owed.due = self.now + 1 + self.rng.random_range(0..=self.memory_latency);
            }
        }
        self.memory_ready = self.rng.random_bool(0.7);
        input.set_mem_req_ready_i(self.memory_ready);
    }

    pub(super) fn take_memory_request(&mut self) {
        let output = &self.model.output;
        if !output.mem_req_valid_o() || !self.memory_ready {
            return;
        }
        let words = output.mem_req_o();
        let tag = get(words, 317, 4);
        let addr = get(words, 261, 56);
        let len = 4 * get(words, 256, 5) as usize;
        let write = match get(words, 321, 2) {
            0 => false,
            1 => true,
            other => panic!("atomic operation {other} without AMO_HWAD and AMO_MRIF"),
        };
        let mut data = [0; 4];
        for (i, word) in data.iter_mut().enumerate() {
            *word = get(words, 64 * i, 64);
        }
        let longest = if write { 32 } else { 64 };
        assert!((4..=longest).contains(&len), "length {len}");
        assert!(
            addr.is_multiple_of(4) && addr % 64 + len as u64 <= 64,
            "{addr:#x} {len}"
        );
        assert!(
            self.owed.iter().all(|o| o.tag != tag),
            "one at a time a tag"
        );
        let beats = if write {
            self.note(format!("memory write {tag}: {addr:#x} {data:x?}"));
            let error = self.write_memory(tag, addr, &data, len);
            VecDeque::from([Beat {
                data,
                error,
                poison: false,
            }])
        } else {
            self.read_memory(tag, addr, len)
        };
        let due = self.now + self.rng.random_range(0..=self.memory_latency);
        self.owed.push(Owed {
            due,
            addr,
            tag,
            beats,
        });
    }

    /// The beats that answer a read; an access fault may show on any of them.
    fn read_memory(&mut self, tag: u64, addr: u64, len: usize) -> VecDeque<Beat> {
        let mut bytes = [0; 64];
        let error = self.memory.read(PhysAddr(addr), &mut bytes[..len]).is_err();
        let mut words = [0; 8];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            *word = u64::from_le_bytes(chunk.try_into().expect("8 bytes"));
        }
        if let Some(forged) = self.forged.get(&addr) {
            words[..2].copy_from_slice(forged);
        }
        self.note(format!("memory read {tag}: {addr:#x} {words:x?}"));
        let count = len.div_ceil(32);
        let faulty = self.rng.random_range(0..count);
        (0..count)
            .map(|i| {
                let at = addr + 32 * i as u64;
                let mut doublewords = (at..at + 32.min(len as u64)).step_by(8);
                Beat {
                    data: words[4 * i..4 * i + 4].try_into().expect("4 words"),
                    error: error && i == faulty,
                    poison: doublewords.any(|a| self.poisoned.contains(&a)),
                }
            })
            .collect()
    }

    /// A store of the IOMMU. Returns whether it met an access fault.
    pub(super) fn write_memory(
        &mut self,
        tag: u64,
        addr: u64,
        data: &[u64; 4],
        len: usize,
    ) -> bool {
        if tag == TAG_CQ {
            self.fence_stored(addr, data[0] as u32);
        }
        if MemoryMap::default()
            .msi
            .contains(PhysAddr(addr), len as u64)
        {
            assert_eq!(len, 4, "messages have 4 bytes");
            self.messages.push((addr, data[0] as u32));
            return false;
        }
        if !self.memory.is_dram(PhysAddr(addr), len as u64) {
            return true;
        }
        for word in (addr & !7..addr + len as u64).step_by(8) {
            self.judge.memory_changed(PhysAddr(word), self.load(word));
        }
        let bytes: Vec<u8> = data.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.memory
            .device_write(PhysAddr(addr), &bytes[..len], None, true)
            .is_err()
    }

    /// IOMMU §3.1.2: nothing that was accepted before the fence is under way any more, and if the
    /// fence asked for it, the bridge was drained.
    pub(super) fn fence_stored(&mut self, addr: u64, data: u32) {
        let at = self
            .fences
            .iter()
            .position(|f| (f.addr, f.data) == (addr, data));
        let fence = self
            .fences
            .swap_remove(at.expect("a fence with this store"));
        let passed = self
            .flights
            .iter()
            .flatten()
            .find(|f| fence.before.contains(&f.number));
        if let Some(flight) = passed {
            panic!("the fence has passed {:x?}", flight.request);
        }
        assert!(
            !fence.global || self.drains > fence.drains,
            "a fence with PR or PW without a drain"
        );
    }
}
