//! Both sides of a class-ready TLP port (`rtl/pcie/tlp_pkg.sv`) and the TLPs that go over it.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::VecDeque;

use rand::{Rng, RngExt};
use tlproof_pcie::{
    Bdf, BusAddr, Class, CplStatus, Head,
    tlp::{AddressType, MemRequest, fmt_type},
};

/// What a check yields: the text says what was seen and what was due.
pub type Checked<T = ()> = Result<T, String>;

/// Ends the function with an error unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}

/// True in `p` of a hundred cases.
pub fn percent(rng: &mut impl Rng, p: u32) -> bool {
    rng.random_range(0..100) < p
}

/// Random bytes.
pub fn bytes(rng: &mut impl Rng, n: usize) -> Vec<u8> {
    let mut data = vec![0; n];
    rng.fill_bytes(&mut data);
    data
}

/// Index of a class in ready bits and queues.
pub const POSTED: usize = 0;
/// See [`POSTED`].
pub const NON_POSTED: usize = 1;
/// See [`POSTED`].
pub const COMPLETION: usize = 2;

/// A TLP; the payload is whole DWs.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tlp {
    pub head: Head,
    pub data: Vec<u8>,
}

/// Length in DW and byte enables of a request for `n > 0` bytes at `addr` (PCIe 6.0 §2.2.5).
pub fn enables(addr: u64, n: u64) -> (u16, u8, u8) {
    let lead = addr % 4;
    let len = (lead + n).div_ceil(4);
    let first = 0xf << lead & 0xf;
    let last = 0xf >> (4 * len - lead - n);
    if len == 1 {
        (1, first & last, 0)
    } else {
        (len as u16, first, last)
    }
}

/// A memory request with no attribute set.
pub fn plain(write: bool, addr: u64, (len_dw, first_be, last_be): (u16, u8, u8)) -> MemRequest {
    MemRequest {
        write,
        addr: BusAddr(addr),
        len_dw,
        first_be,
        last_be,
        requester: Bdf(0),
        tag: 0,
        at: AddressType::Untranslated,
        no_snoop: false,
        relaxed: false,
        ido: false,
        tc: 0,
        pasid: None,
    }
}

impl Tlp {
    /// A memory read.
    pub fn read(r: &MemRequest) -> Self {
        Self {
            head: Head::mem(&MemRequest { write: false, ..*r }),
            data: Vec::new(),
        }
    }

    /// A memory write.
    pub fn write(r: &MemRequest, data: Vec<u8>) -> Self {
        assert_eq!(data.len(), 4 * usize::from(r.len_dw), "payload of {r:?}");
        Self {
            head: Head::mem(&MemRequest { write: true, ..*r }),
            data,
        }
    }

    /// A configuration request of Type 0 or 1 (PCIe 6.0 §2.2.7); a write if there is a value.
    pub fn config(type1: bool, target: Bdf, register: u16, be: u8, value: Option<u32>) -> Self {
        let fmt_type = match (value.is_some(), type1) {
            (false, false) => fmt_type::CFGRD0,
            (false, true) => fmt_type::CFGRD1,
            (true, false) => fmt_type::CFGWR0,
            (true, true) => fmt_type::CFGWR1,
        };
        let dw0 = u32::from(fmt_type) << 24 | 1;
        let dw2 = u32::from(target.0) << 16 | u32::from(register & 0xffc);
        Self {
            head: Head {
                hdr: [dw0, u32::from(be), dw2, 0],
                pfx: None,
            },
            data: value.map_or(Vec::new(), |v| v.to_le_bytes().to_vec()),
        }
    }

    /// A completion of `request` whose first byte is at `addr` and with which `left` bytes
    /// remain (PCIe 6.0 §2.2.9).
    pub fn completion(
        request: &Head,
        completer: Bdf,
        status: CplStatus,
        left: u64,
        addr: u64,
        data: Vec<u8>,
    ) -> Self {
        let fmt_type = if data.is_empty() {
            fmt_type::CPL
        } else {
            fmt_type::CPLD
        };
        // Tag 9:8, TC and Attr are the request's.
        let kept = request.hdr[0] & 0x00fc_3000;
        let dw0 = u32::from(fmt_type) << 24 | kept | ((data.len() as u32 / 4) & 0x3ff);
        let dw1 =
            u32::from(completer.0) << 16 | u32::from(status.bits()) << 13 | (left as u32 & 0xfff);
        let dw2 = request.hdr[1] & 0xffff_0000 | request.hdr[1] & 0xff00 | (addr as u32 & 0x7f);
        Self {
            head: Head {
                hdr: [dw0, dw1, dw2, 0],
                pfx: None,
            },
            data,
        }
    }

    /// A message with routing `r[2:0]` (PCIe 6.0 Table 2-20), code and target ID.
    pub fn message(routing: u8, requester: Bdf, code: u8, target: Bdf) -> Self {
        let dw1 = u32::from(requester.0) << 16 | u32::from(code);
        let dw2 = u32::from(target.0) << 16;
        let dw0 = (0x30 | u32::from(routing)) << 24;
        Self {
            head: Head {
                hdr: [dw0, dw1, dw2, 0],
                pfx: None,
            },
            data: Vec::new(),
        }
    }

    /// The same request with another tag.
    pub fn with_tag(mut self, tag: u16) -> Self {
        let tag = u32::from(tag);
        let hdr = &mut self.head.hdr;
        hdr[0] = hdr[0] & !0x0088_0000 | (tag >> 9 & 1) << 23 | (tag >> 8 & 1) << 19;
        hdr[1] = hdr[1] & !0xff00 | (tag & 0xff) << 8;
        self
    }

    /// The same request from another requester.
    pub fn with_requester(mut self, requester: Bdf) -> Self {
        self.head.hdr[1] = self.head.hdr[1] & 0xffff | u32::from(requester.0) << 16;
        self
    }

    /// Poisons the payload (PCIe 6.0 §2.7.2).
    pub fn poisoned(mut self) -> Self {
        self.head.hdr[0] |= 1 << 14;
        self
    }

    /// Index of its class.
    pub fn class(&self) -> usize {
        class(&self.head)
    }

    /// Payload DW `i`.
    pub fn dw(&self, i: usize) -> u32 {
        let b = &self.data[4 * i..4 * i + 4];
        u32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }

    fn beats(&self) -> usize {
        self.data.len().div_ceil(Beat::BYTES).max(1)
    }
}

fn class(head: &Head) -> usize {
    match head.class() {
        Class::Posted => POSTED,
        Class::NonPosted => NON_POSTED,
        Class::Completion => COMPLETION,
    }
}

/// One beat, `tlp_pkg::tlp_beat256_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Beat {
    pub sop: bool,
    pub eop: bool,
    pub head: Head,
    pub data: [u8; Self::BYTES],
}

impl Beat {
    /// Width of the packed struct.
    pub const BITS: usize = 256 + 128 + 32 + 3;
    /// Payload bytes.
    pub const BYTES: usize = 32;
    const WORDS: usize = Self::BITS.div_ceil(32);

    /// Writes element `index` of a packed array of beats, of which `port` has the words.
    pub fn put(&self, port: &mut [u32], index: usize) {
        let mut words = [0; Self::WORDS];
        for (word, b) in words.iter_mut().zip(self.data.chunks_exact(4)) {
            *word = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
        words[8..12].copy_from_slice(&self.head.hdr);
        words[12] = self.head.pfx.unwrap_or(0);
        words[13] = u32::from(self.head.pfx.is_some())
            | u32::from(self.eop) << 1
            | u32::from(self.sop) << 2;
        for (i, word) in words.into_iter().enumerate() {
            let width = 32.min(Self::BITS - 32 * i);
            let at = index * Self::BITS + 32 * i;
            let mask = (u64::MAX >> (64 - width)) << (at % 32);
            let field = u64::from(word) << (at % 32);
            for (w, half) in port[at / 32..].iter_mut().zip([0, 32]) {
                *w = *w & !((mask >> half) as u32) | (field >> half) as u32;
            }
        }
    }

    /// Reads element `index` of a packed array of beats.
    pub fn get(port: &[u32], index: usize) -> Self {
        let mut words = [0; Self::WORDS];
        for (i, word) in words.iter_mut().enumerate() {
            let at = index * Self::BITS + 32 * i;
            let low = u64::from(port[at / 32]);
            let high = u64::from(*port.get(at / 32 + 1).unwrap_or(&0));
            *word = ((low | high << 32) >> (at % 32)) as u32;
        }
        let mut beat = Self {
            sop: words[13] >> 2 & 1 != 0,
            eop: words[13] >> 1 & 1 != 0,
            ..Self::default()
        };
        for (b, word) in beat.data.chunks_exact_mut(4).zip(words) {
            b.copy_from_slice(&word.to_le_bytes());
        }
        beat.head.hdr.copy_from_slice(&words[8..12]);
        beat.head.pfx = (words[13] & 1 != 0).then_some(words[12]);
        beat
    }
}

/// The sending side: one queue a class, chosen at random as far as the order of PCIe 6.0 §2.4.1
/// lets: nothing passes a posted request that was queued before it.
#[derive(Default)]
pub struct Source {
    queues: [VecDeque<(u64, Tlp)>; 3],
    posted_in: u64,
    posted_out: u64,
    /// Class and next beat of a TLP of which a beat was taken.
    under_way: Option<(usize, usize)>,
    offered: Option<usize>,
    /// Cycles without a beat, in percent.
    pub bubbles: u32,
}

impl Source {
    /// Queues a TLP.
    pub fn send(&mut self, tlp: Tlp) {
        let class = tlp.class();
        self.queues[class].push_back((self.posted_in, tlp));
        self.posted_in += u64::from(class == POSTED);
    }

    /// TLPs of the class that have not wholly left.
    pub fn waiting(&self, class: usize) -> usize {
        self.queues[class].len()
    }

    /// Whether everything has left.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// The beat of this cycle. What has no meaning in it is random.
    pub fn offer(&mut self, rng: &mut impl Rng) -> Option<Beat> {
        self.offered = None;
        if percent(rng, self.bubbles) {
            return None;
        }
        let (class, index) = match self.under_way {
            Some(place) => place,
            None => {
                let start = rng.random_range(0..3);
                let class = (0..3).map(|i| (start + i) % 3).find(|&c| {
                    self.queues[c]
                        .front()
                        .is_some_and(|(p, _)| c == POSTED || *p <= self.posted_out)
                })?;
                (class, 0)
            }
        };
        self.offered = Some(class);
        let (_, tlp) = self.queues[class].front()?;
        let mut beat = Beat {
            sop: index == 0,
            eop: index + 1 == tlp.beats(),
            ..Beat::default()
        };
        rng.fill_bytes(&mut beat.data);
        let rest = &tlp.data[(index * Beat::BYTES).min(tlp.data.len())..];
        let n = rest.len().min(Beat::BYTES);
        beat.data[..n].copy_from_slice(&rest[..n]);
        beat.head = if beat.sop {
            tlp.head
        } else {
            Head {
                hdr: rng.random(),
                pfx: Some(rng.random()),
            }
        };
        Some(beat)
    }

    /// The ready bits that stood beside the beat offered.
    pub fn taken(&mut self, ready: u32) -> Checked {
        let Some(class) = self.offered.take() else {
            return Ok(());
        };
        if ready >> class & 1 == 0 {
            ensure!(
                self.under_way.is_none(),
                "ready of class {class} fell within a TLP"
            );
            return Ok(());
        }
        let next = self.under_way.map_or(0, |(_, i)| i) + 1;
        let last = self.queues[class]
            .front()
            .is_none_or(|(_, t)| next == t.beats());
        if last {
            self.queues[class].pop_front();
            self.posted_out += u64::from(class == POSTED);
        }
        self.under_way = (!last).then_some((class, next));
        Ok(())
    }
}

/// The receiving side: drops the ready of each class at random, except within a TLP.
pub struct Sink {
    under_way: Option<Tlp>,
    ready: u32,
    /// Cycles with ready, in percent, for each class.
    pub readiness: [u32; 3],
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            under_way: None,
            ready: 0,
            readiness: [100; 3],
        }
    }
}

impl Sink {
    /// The ready bits of this cycle.
    pub fn ready(&mut self, rng: &mut impl Rng) -> u32 {
        let within = self.under_way.as_ref().map(Tlp::class);
        self.ready = 0;
        for class in 0..3 {
            let up = percent(rng, self.readiness[class]) || within == Some(class);
            self.ready |= u32::from(up) << class;
        }
        self.ready
    }

    /// The beat that was valid in this cycle. Yields a TLP with its last beat.
    pub fn accept(&mut self, beat: Option<Beat>) -> Checked<Option<Tlp>> {
        let Some(beat) = beat else { return Ok(None) };
        ensure!(
            beat.sop == self.under_way.is_none(),
            "sop is {} within or without",
            beat.sop
        );
        let class = class(self.under_way.as_ref().map_or(&beat.head, |t| &t.head));
        if self.ready >> class & 1 == 0 {
            return Ok(None);
        }
        let mut tlp = self.under_way.take().unwrap_or(Tlp {
            head: beat.head,
            data: Vec::new(),
        });
        let length = if tlp.head.has_data() {
            4 * usize::from(tlp.head.len_dw())
        } else {
            0
        };
        let n = (length - tlp.data.len()).min(Beat::BYTES);
        tlp.data.extend_from_slice(&beat.data[..n]);
        ensure!(
            beat.eop == (tlp.data.len() == length),
            "eop is {} at byte {} of {length}: {:x?}",
            beat.eop,
            tlp.data.len(),
            tlp.head
        );
        if beat.eop {
            return Ok(Some(tlp));
        }
        self.under_way = Some(tlp);
        Ok(None)
    }
}
