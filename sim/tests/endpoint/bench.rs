//! The endpoint with a host at its link.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_pcie::{Bdf, CplStatus, tlp::MemRequest};
use tlproof_sim::{Model, ports::endpoint::Endpoint};

use crate::{
    common::{Beat, COMPLETION, Checked, NON_POSTED, POSTED, Sink, Source, Tlp, bytes, plain},
    descriptor::Descriptor,
    engine::{Dma, LOCAL, Limits},
    host::Request,
};

pub const BAR0: u64 = 0x3_8000_0000;
pub const BAR2: u64 = 0x7f_0000_0000;
/// Messages of MSI-X are the writes from here on.
pub const MSI: u64 = 0xf000_0000_0000_0000;

pub struct Bench {
    model: Model<Endpoint>,
    pub rng: ChaCha8Rng,
    pub source: Source,
    pub sink: Sink,
    pub limits: Limits,
    /// What the local memory holds.
    pub local: Vec<u8>,
    pub waiting: BTreeMap<u16, Request>,
    finished: BTreeMap<u16, Request>,
    pub dma: Dma,
    pub messages: Vec<(u64, u32)>,
    /// Cycles in which the host completes a read, in percent.
    pub answers: u32,
    next_id: u16,
}

impl Bench {
    /// An endpoint after reset.
    pub fn reset(seed: u64) -> Checked<Self> {
        let mut model = Model::<Endpoint>::new().map_err(|e| e.to_string())?;
        for _ in 0..4 {
            model.cycle().map_err(|e| e.to_string())?;
        }
        model.input.set_rst_ni(true);
        let bdf = Bdf(0x0500);
        Ok(Self {
            model,
            rng: ChaCha8Rng::seed_from_u64(seed),
            source: Source::default(),
            sink: Sink::default(),
            limits: Limits {
                bdf,
                mps: 128,
                mrrs: 512,
                bus_master: false,
            },
            local: vec![0; LOCAL],
            waiting: BTreeMap::new(),
            finished: BTreeMap::new(),
            dma: Dma::default(),
            messages: Vec::new(),
            answers: 100,
            next_id: 1,
        })
    }

    /// An endpoint with its BARs and the local memory written, Bus Master Enable set.
    pub fn configured(seed: u64) -> Checked<Self> {
        let mut b = Self::reset(seed)?;
        for (register, value) in [
            (0x10, BAR0 as u32),
            (0x14, (BAR0 >> 32) as u32),
            (0x18, BAR2 as u32),
            (0x1c, (BAR2 >> 32) as u32),
        ] {
            b.config_write(register, value, 0xf)?;
        }
        b.bus_master(true)?;
        for offset in (0..LOCAL as u32).step_by(128) {
            let data = bytes(&mut b.rng, 128);
            b.local_write(offset, data, 0xf, 0xf);
        }
        b.until(100_000, "the local memory is written", |b| {
            b.source.is_empty()
        })?;
        Ok(b)
    }

    /// One cycle.
    pub fn step(&mut self) -> Checked {
        if crate::common::percent(&mut self.rng, self.answers)
            && self.source.waiting(COMPLETION) < 4
        {
            let cpl = self
                .dma
                .answer(&mut self.rng, self.limits.mps, &mut self.local);
            if let Some(cpl) = cpl {
                self.source.send(cpl);
            }
        }
        let offer = self.source.offer(&mut self.rng);
        self.model.input.set_rx_valid_i(offer.is_some());
        if let Some(beat) = offer {
            beat.put(self.model.input.rx_beat_i(), 0);
        }
        self.model
            .input
            .set_tx_ready_i(self.sink.ready(&mut self.rng));
        self.model.cycle().map_err(|e| e.to_string())?;
        let out = &self.model.output;
        self.source.taken(out.rx_ready_o())?;
        let beat = out.tx_valid_o().then(|| Beat::get(out.tx_beat_o(), 0));
        if let Some(tlp) = self.sink.accept(beat)? {
            self.receive(&tlp)
                .map_err(|e| format!("cycle {}: {e}", self.model.cycles()))?;
        }
        Ok(())
    }

    /// Drives a beat as it is.
    pub fn force(&mut self, beat: &Beat) -> Checked {
        beat.put(self.model.input.rx_beat_i(), 0);
        self.model.input.set_rx_valid_i(true);
        self.model.cycle().map_err(|e| e.to_string())
    }

    fn receive(&mut self, tlp: &Tlp) -> Checked {
        let h = &tlp.head;
        if h.is_cpl() {
            let tag = h.tag();
            let r = self
                .waiting
                .get_mut(&tag)
                .ok_or_else(|| format!("nobody asked: {h:x?}"))?;
            r.accept(tlp, self.limits.bdf, self.limits.mps)?;
            if r.status.is_some()
                && let Some(r) = self.waiting.remove(&tag)
            {
                if r.expected.is_empty() {
                    self.finished.insert(tag, r);
                } else {
                    r.verify()?;
                }
            }
        } else if h.is_mem_write() && h.addr().0 >= MSI {
            ensure!(self.limits.bus_master, "message without Bus Master Enable");
            let due = plain(true, h.addr().0, (1, 0xf, 0));
            let due = Tlp::write(&due, tlp.data.clone()).with_requester(self.limits.bdf);
            ensure!(*h == due.head, "message {h:x?}");
            self.messages.push((h.addr().0, tlp.dw(0)));
        } else {
            self.dma.accept(tlp, &self.limits, &self.local)?;
        }
        Ok(())
    }

    pub fn run(&mut self, cycles: u32) -> Checked {
        (0..cycles).try_for_each(|_| self.step())
    }

    /// Runs until something holds.
    pub fn until(&mut self, max: u32, what: &str, holds: impl Fn(&Self) -> bool) -> Checked {
        for _ in 0..max {
            if holds(self) {
                return Ok(());
            }
            self.step()?;
        }
        Err(format!("not after {max} cycles: {what}"))
    }

    /// Sends a non-posted request under a free tag.
    pub fn request(&mut self, tlp: Tlp, expected: Vec<Option<u8>>) -> u16 {
        let tag = loop {
            let tag = self.rng.random_range(0..1024);
            if !self.waiting.contains_key(&tag) && !self.finished.contains_key(&tag) {
                break tag;
            }
        };
        let tlp = tlp.with_tag(tag);
        self.waiting.insert(tag, Request::new(tlp.head, expected));
        self.source.send(tlp);
        tag
    }

    /// Sends a non-posted request and waits for its end.
    pub fn ask(&mut self, tlp: Tlp) -> Checked<Request> {
        let tag = self.request(tlp, Vec::new());
        self.until(20_000, "the completion of a request", |b| {
            b.finished.contains_key(&tag)
        })?;
        self.finished.remove(&tag).ok_or_else(|| "lost".into())
    }

    /// Status that a request completes with.
    pub fn status(&mut self, tlp: Tlp) -> Checked<CplStatus> {
        self.ask(tlp)?.status.ok_or_else(|| "no status".into())
    }

    pub fn config_read(&mut self, register: u16) -> Checked<u32> {
        let r = self.ask(Tlp::config(false, self.limits.bdf, register, 0xf, None))?;
        ensure!(r.data.len() == 4, "read of {register:#x}: {:?}", r.status);
        Ok(u32::from_le_bytes([
            r.data[0], r.data[1], r.data[2], r.data[3],
        ]))
    }

    pub fn config_write(&mut self, register: u16, value: u32, be: u8) -> Checked {
        let tlp = Tlp::config(false, self.limits.bdf, register, be, Some(value));
        let status = self.status(tlp)?;
        ensure!(
            status == CplStatus::Success,
            "write of {register:#x}: {status:?}"
        );
        Ok(())
    }

    /// Memory Space Enable, and Bus Master Enable as told.
    pub fn bus_master(&mut self, on: bool) -> Checked {
        self.limits.bus_master |= on;
        self.config_write(0x04, 2 | u32::from(on) << 2, 0xf)?;
        self.limits.bus_master = on;
        Ok(())
    }

    /// Max_Payload_Size and Max_Read_Request_Size, 128 bytes shifted left.
    pub fn sizes(&mut self, mps: u32, mrrs: u32) -> Checked {
        self.config_write(0x48, 0x0910 | mps << 5 | mrrs << 12, 0xf)?;
        self.limits.mps = 128 << mps;
        self.limits.mrrs = 128 << mrrs;
        Ok(())
    }

    /// Other rates of ready, bubbles and answers.
    pub fn rates(&mut self) {
        const RATES: [u32; 5] = [100, 100, 70, 30, 10];
        for class in 0..3 {
            self.sink.readiness[class] = RATES[self.rng.random_range(0..5)];
        }
        self.source.bubbles = 100 - RATES[self.rng.random_range(0..4)];
        self.answers = RATES[self.rng.random_range(1..5)];
    }

    /// Everything at once.
    pub fn full_rate(&mut self) {
        self.sink.readiness = [100; 3];
        self.source.bubbles = 0;
        self.answers = 100;
    }

    /// Writes a register of BAR0, 4 or 8 bytes.
    pub fn set(&mut self, offset: u64, data: &[u8]) {
        let shape = if data.len() == 8 {
            (2, 0xf, 0xf)
        } else {
            (1, 0xf, 0)
        };
        self.source.send(Tlp::write(
            &plain(true, BAR0 + offset, shape),
            data.to_vec(),
        ));
    }

    /// Writes eight bytes.
    pub fn set64(&mut self, offset: u64, value: u64) {
        self.set(offset, &value.to_le_bytes());
    }

    /// Writes four bytes.
    pub fn set32(&mut self, offset: u64, value: u32) {
        self.set(offset, &value.to_le_bytes());
    }

    /// Reads eight bytes of BAR0, with random Attr and TC.
    pub fn get64(&mut self, offset: u64) -> Checked<u64> {
        let r = MemRequest {
            no_snoop: self.rng.random(),
            relaxed: self.rng.random(),
            ido: self.rng.random(),
            tc: self.rng.random_range(0..8),
            ..plain(false, BAR0 + offset, (2, 0xf, 0xf))
        };
        let r = self.ask(Tlp::read(&r))?;
        let data = r
            .data
            .try_into()
            .map_err(|_| format!("{offset:#x}: {:?}", r.status))?;
        Ok(u64::from_le_bytes(data))
    }

    /// Reads four bytes of BAR0.
    pub fn get32(&mut self, offset: u64) -> Checked<u32> {
        let r = self.ask(Tlp::read(&plain(false, BAR0 + offset, (1, 0xf, 0))))?;
        let data = r
            .data
            .try_into()
            .map_err(|_| format!("{offset:#x}: {:?}", r.status))?;
        Ok(u32::from_le_bytes(data))
    }

    /// Writes the local memory through BAR2. Reads under way may see it or not.
    pub fn local_write(&mut self, offset: u32, data: Vec<u8>, first_be: u8, last_be: u8) {
        let dws = data.len() / 4;
        for (i, &byte) in data.iter().enumerate() {
            let be = match i / 4 {
                0 => first_be,
                n if n == dws - 1 => last_be,
                _ => 0xf,
            };
            if be >> (i % 4) & 1 == 0 {
                continue;
            }
            let at = offset as usize + i;
            self.local[at] = byte;
            for r in self.waiting.values_mut() {
                let index = (BAR2 + at as u64).checked_sub(r.head.addr().0);
                if let Some(e) = index.and_then(|i| r.expected.get_mut(i as usize)) {
                    *e = None;
                }
            }
        }
        let r = plain(
            true,
            BAR2 + u64::from(offset),
            (dws as u16, first_be, last_be),
        );
        self.source.send(Tlp::write(&r, data));
    }

    /// Reads the local memory through BAR2; the answer is checked as it comes.
    pub fn local_read(&mut self, offset: u32, len_dw: u16, first_be: u8, last_be: u8) -> u16 {
        let at = offset as usize;
        let expected = self.local[at..at + 4 * usize::from(len_dw)]
            .iter()
            .copied()
            .map(Some)
            .collect();
        let r = MemRequest {
            relaxed: self.rng.random(),
            tc: self.rng.random_range(0..8),
            ..plain(false, BAR2 + u64::from(offset), (len_dw, first_be, last_be))
        };
        self.request(Tlp::read(&r), expected)
    }

    /// Reads and checks a part of the local memory.
    pub fn check_local(&mut self, offset: u32, len: u32) -> Checked {
        let end = (offset + len).next_multiple_of(4);
        let mut at = offset & !3;
        while at < end {
            let n = (end - at).min(4096 - at % 4096);
            let len_dw = (n / 4) as u16;
            self.local_read(at, len_dw, 0xf, if len_dw == 1 { 0 } else { 0xf });
            self.until(20_000, "room for a read", |b| b.waiting.len() < 20)?;
            at += n;
        }
        self.until(100_000, "the reads end", |b| b.waiting.is_empty())
    }

    /// Rings the doorbell for a descriptor.
    pub fn push(&mut self, d: Descriptor) -> u16 {
        let id = self.next_id;
        self.next_id += 1;
        self.set64(0x100, d.addr);
        self.set64(0x130, d.addr2());
        self.set64(0x108, u64::from(d.len) | u64::from(d.offset) << 32);
        self.set64(0x110, d.ctrl());
        self.set64(0x118, d.aux());
        self.dma.push(id, d);
        self.set32(0x120, u32::from(id));
        id
    }

    /// Polls for a completion record and checks it.
    pub fn record(&mut self) -> Checked<u16> {
        let raw = self.raw_record()?;
        self.dma.record(raw)
    }

    /// Polls for a completion record.
    pub fn raw_record(&mut self) -> Checked<u64> {
        for _ in 0..20_000 {
            let value = self.get64(0x128)?;
            if value >> 63 != 0 {
                return Ok(value);
            }
        }
        Err("no completion record".into())
    }

    /// All posted requests and completions have left.
    pub fn drained(&mut self) -> Checked {
        self.until(50_000, "the host's queues drain", |b| {
            b.source.waiting(POSTED) + b.source.waiting(NON_POSTED) + b.source.waiting(COMPLETION)
                == 0
        })
    }
}
