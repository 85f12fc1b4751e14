//! Memory: words, access faults, corrupt data, atomics.

use rand::RngExt;

use super::Rig;
use crate::bench::{get, put};

/// An access of the IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// 0 read, 1 write, 2 compare and set, 3 OR.
    pub op: u64,
    pub addr: u64,
    pub pbmt: u64,
    pub rcid: u64,
    pub mcid: u64,
    /// First doubleword written.
    pub data: u64,
}

/// What a response says instead of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    AccessFault,
    Corrupt,
}

/// A response that is owed.
pub(super) struct Owed {
    addr: u64,
    wait: u32,
    tag: u64,
    error: bool,
    /// One or two beats, and whether they are poisoned.
    beats: Vec<([u64; 4], bool)>,
}

impl Rig {
    pub fn load(&self, addr: u64) -> u64 {
        let word = |at: u64| self.words.get(&(at & !7)).copied().unwrap_or(0);
        if addr.is_multiple_of(8) {
            word(addr)
        } else {
            word(addr) >> 32 | word(addr + 4) << 32
        }
    }

    pub fn store(&mut self, addr: u64, value: u64) {
        assert!(addr.is_multiple_of(8));
        self.words.insert(addr, value);
    }

    pub fn store32(&mut self, addr: u64, value: u32) {
        let shift = 8 * (addr & 4);
        let old = self.load(addr & !7);
        let new = old & !(0xffff_ffff << shift) | u64::from(value) << shift;
        self.store(addr & !7, new);
    }

    pub fn store_as(&mut self, addr: u64, value: u64, big: bool) {
        self.store(addr, if big { value.swap_bytes() } else { value });
    }

    pub fn load_as(&self, addr: u64, big: bool) -> u64 {
        let value = self.load(addr);
        if big { value.swap_bytes() } else { value }
    }

    pub(super) fn drive_memory(&mut self) {
        let input = &mut self.model.input;
        input.set_mem_req_ready_i(!self.unready);
        input.set_mem_rsp_valid_i(false);
        let held = self.held;
        let next = self.owed.iter().position(|o| Some(o.addr) != held);
        let Some(next) = next else {
            return;
        };
        let owed = &mut self.owed[next];
        if owed.wait > 0 {
            owed.wait -= 1;
            return;
        }
        input.set_mem_rsp_valid_i(true);
        let words = input.mem_rsp_i();
        let (data, poison) = owed.beats.remove(0);
        for (i, word) in data.into_iter().enumerate() {
            put(words, 64 * i, 64, word);
        }
        put(words, 256, 4, owed.tag);
        put(words, 260, 1, poison.into());
        put(words, 261, 1, owed.error.into());
        put(words, 262, 1, owed.beats.is_empty().into());
        if owed.beats.is_empty() {
            self.owed.remove(next);
        }
    }

    pub(super) fn take_memory(&mut self) {
        let output = &self.model.output;
        if self.unready || !output.mem_req_valid_o() {
            return;
        }
        let words = output.mem_req_o();
        let (addr, len) = (get(words, 261, 56), 4 * get(words, 256, 5));
        let operand: [u64; 4] = std::array::from_fn(|i| get(words, 64 * i, 64));
        let access = Access {
            op: get(words, 321, 2),
            addr,
            pbmt: get(words, 323, 2),
            mcid: get(words, 325, 12),
            rcid: get(words, 337, 12),
            data: operand[0],
        };
        let tag = get(words, 317, 4);
        assert!(
            addr.is_multiple_of(4) && addr % 64 + len <= 64,
            "{addr:#x} {len}"
        );
        self.accesses.push(access);
        let page = addr & !0xfff;
        let failure = self.atomics.filter(|_| access.op > 1);
        let error = self.broken.contains(&page) || failure == Some(Failure::AccessFault);
        let mut beats = vec![[0; 4]];
        if !error {
            match access.op {
                0 => {
                    beats = (0..len.div_ceil(32))
                        .map(|b| std::array::from_fn(|i| self.load(addr + 32 * b + 8 * i as u64)))
                        .collect();
                }
                1 => {
                    for at in (0..len).step_by(4) {
                        let word = operand[at as usize / 8] >> (8 * (at & 4));
                        self.store32(addr + at, word as u32);
                    }
                }
                _ if failure.is_some() => {}
                op => beats[0][0] = self.atomic(op, addr, len, operand),
            }
        }
        let corrupt = self.corrupt.contains(&page) || failure == Some(Failure::Corrupt);
        let beats = (addr..).step_by(32).zip(beats).map(|(at, data)| {
            let mut doublewords = (at & !7..).step_by(8).take(data.len());
            (
                data,
                corrupt || doublewords.any(|a| self.poisoned.contains(&a)),
            )
        });
        let beats = beats.collect();
        self.owed.push_back(Owed {
            addr,
            wait: self.rng.random_range(0..4),
            tag,
            error,
            beats,
        });
    }

    fn atomic(&mut self, op: u64, addr: u64, len: u64, operand: [u64; 4]) -> u64 {
        assert!(
            matches!(len, 4 | 8) && addr.is_multiple_of(len),
            "{addr:#x} {len}"
        );
        if self.race.is_some_and(|(at, _)| at == addr) {
            let (_, value) = self.race.take().expect("just seen");
            self.store(addr, value);
        }
        let mask = if len == 4 { 0xffff_ffff } else { u64::MAX };
        let old = self.load(addr) & mask;
        let new = match op {
            2 if old == operand[1] => operand[0],
            2 => old,
            _ => old | operand[0],
        };
        if len == 4 {
            self.store32(addr, new as u32);
        } else {
            self.store(addr, new);
        }
        old
    }
}
