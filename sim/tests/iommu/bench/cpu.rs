//! What a CPU does: registers, the directory, both queues.

use std::collections::HashSet;

use tlproof_golden::iommu::FaultRecord;
use tlproof_pcie::PhysAddr;

use super::*;

impl Bench {
    pub(super) fn accessed(&mut self, write: bool, offset: u32, size: u8, value: u64) -> u64 {
        let high = offset % 8 == 4;
        self.access = Some(Access {
            write,
            addr: offset,
            enables: match (size, high) {
                (8, _) => 0xff,
                (_, true) => 0xf0,
                _ => 0x0f,
            },
            data: if high { value << 32 } else { value },
        });
        self.response = None;
        for _ in 0..PATIENCE {
            self.cycle();
            if let Some(value) = self.response.take() {
                return match (size, high) {
                    (8, _) => value,
                    (_, true) => value >> 32,
                    _ => value & 0xffff_ffff,
                };
            }
        }
        panic!("no response to a register access");
    }

    pub(super) fn raw_read(&mut self, offset: u32, size: u8) -> u64 {
        self.accessed(false, offset, size, 0)
    }

    /// A register write by the CPU.
    pub fn write(&mut self, offset: u32, size: u8, value: u64) {
        self.note(format!("CPU writes register {offset}: {value:#x}"));
        self.judge.register_write(&self.memory, offset, size, value);
        self.accessed(true, offset, size, value);
    }

    /// A register read by the CPU.
    pub fn read(&mut self, offset: u32, size: u8) -> u64 {
        let value = self.raw_read(offset, size);
        self.note(format!("CPU reads register {offset}: {value:#x}"));
        self.judge.register_read(offset, size, value);
        value
    }

    /// Reads a register of 4 bytes until `done`.
    pub fn poll(&mut self, offset: u32, done: impl Fn(u64) -> bool) -> u64 {
        for _ in 0..PATIENCE / 4 {
            let value = self.read(offset, 4);
            if done(value) {
                return value;
            }
        }
        panic!("register {offset} did not change");
    }

    /// Writes `ddtp` and waits until it has taken effect.
    pub fn set_ddtp(&mut self, mode: u64, table: u64) {
        self.write(reg::DDTP, 8, table >> 12 << 10 | mode);
        self.poll(reg::DDTP, |v| v & 1 << 4 == 0);
        // The judge takes the whole register.
        self.read(reg::DDTP, 8);
    }

    /// Puts commands into the queue and hands them over.
    pub fn submit(&mut self, commands: &[[u64; 2]]) {
        for command in commands {
            let at = self.command_queue + 16 * u64::from(self.tail);
            self.store(at, command[0]);
            self.store(at + 8, command[1]);
            self.tail = (self.tail + 1) % CQ_ENTRIES;
        }
        self.write(reg::CQT, 4, self.tail.into());
    }

    /// A fence with a store of its own, which the bench checks when it comes; hand it over at
    /// once.
    pub fn fence(&mut self, global: bool) -> ([u64; 2], u64, u32) {
        self.fence_count += 1;
        let data = 0xf00d_0000 + self.fence_count;
        let addr = self.fence_cells + 8 * u64::from(self.fence_count % 512);
        self.fences.push(Fence {
            addr,
            data,
            before: self.flights.iter().flatten().map(|f| f.number).collect(),
            global,
            drains: self.drains,
        });
        (command::fence(Some((addr, data)), global), addr, data)
    }

    /// Expects the store of a fence made without [`Self::fence`].
    pub fn expect_fence(&mut self, addr: u64, data: u32) {
        self.fences.push(Fence {
            addr,
            data,
            before: HashSet::new(),
            global: false,
            drains: 0,
        });
    }

    /// Whether the CPU sees the store of a fence; tells the judge if so.
    pub fn fence_seen(&mut self, addr: u64, data: u32) -> bool {
        let seen = self.load(addr) as u32 == data;
        if seen {
            self.judge.fence_store_observed(PhysAddr(addr), data);
        }
        seen
    }

    /// Hands over commands and a fence, and waits for the fence.
    pub fn sync(&mut self, commands: &[[u64; 2]]) {
        self.submit(commands);
        self.submit(&[command::fence(None, true)]);
        self.poll_head();
    }

    /// Waits until the command queue is empty.
    pub fn poll_head(&mut self) {
        let tail = u64::from(self.tail);
        self.poll(reg::CQH, |v| v == tail);
    }

    /// Takes the records from the fault queue.
    pub fn take_faults(&mut self) -> Vec<[u64; 4]> {
        let tail = self.read(reg::FQT, 4) as u32;
        let mut records = Vec::new();
        while self.head != tail {
            let at = self.fault_queue + 32 * u64::from(self.head);
            records.push([0, 8, 16, 24].map(|i| self.load(at + i)));
            self.head = (self.head + 1) % FQ_ENTRIES;
        }
        self.write(reg::FQH, 4, self.head.into());
        records
    }

    /// The fault queue must hold what the judge expects, all of it, and nothing else.
    pub fn check_faults(&mut self) -> Vec<FaultRecord> {
        self.settle();
        self.run(4 * self.memory_latency + 40);
        let records = self.take_faults();
        let wrong = self.judge.compare_fault_queue(&records);
        assert!(wrong.is_empty(), "{wrong:#?}");
        let missing = self.judge.missing_fault_records();
        assert!(missing.is_empty(), "{missing:#?}");
        records.iter().map(FaultRecord::decode).collect()
    }
}
