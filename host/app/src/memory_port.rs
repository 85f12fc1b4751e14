//! The memory behind the bridge's memory port: latency, order and chunking of read responses.
//!
//! Reads are performed when the port accepts them and answered after a latency drawn from the
//! seed, tags in any order, in chunks that end on 64-byte boundaries: what `rtl/bridge/mem_pkg.sv`
//! allows.

use std::collections::VecDeque;

use rand::{Rng, RngExt};
use tlproof_pcie::{
    Bdf, BusAddr, Head, MemAttr,
    tlp::{AddressType, MemRequest},
};

use crate::bits;

/// Words of a memory-port beat.
pub const BEAT_WORDS: usize = 8;
/// Bytes of a memory-port beat.
pub const BEAT_BYTES: usize = 4 * BEAT_WORDS;

/// A request as it stands on the port (`mem_req_t`).
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Write or read.
    pub write: bool,
    /// An implicit access of the IOMMU, not a device's TLP.
    pub from_iommu: bool,
    /// Physical address of the first DW.
    pub addr: u64,
    /// Length in DW.
    pub len_dw: u16,
    /// First DW byte enables.
    pub first_be: u8,
    /// Last DW byte enables.
    pub last_be: u8,
    /// Requester ID.
    pub requester: u16,
    /// Tag of the TLP.
    pub tlp_tag: u16,
    /// Tag at this port.
    pub tag: u8,
    /// Resolved attributes.
    pub attr: Option<MemAttr>,
}

impl Request {
    /// Decodes `mem_req_t`.
    pub fn decode(w: &[u32]) -> Self {
        let mem_type = tlproof_pcie::MemType::from_bits(bits::get(w, 136, 2) as u32);
        Self {
            write: bits::get(w, 138, 1) != 0,
            from_iommu: bits::get(w, 139, 2) == 1,
            addr: bits::get(w, 25, 56),
            len_dw: bits::get(w, 81, 11) as u16,
            first_be: bits::get(w, 92, 4) as u8,
            last_be: bits::get(w, 96, 4) as u8,
            requester: bits::get(w, 118, 16) as u16,
            tlp_tag: bits::get(w, 108, 10) as u16,
            tag: bits::get(w, 100, 8) as u8,
            attr: mem_type.map(|mem_type| MemAttr {
                mem_type,
                snoop: bits::get(w, 135, 1) != 0,
                strong_order: bits::get(w, 134, 1) != 0,
            }),
        }
    }
}

impl Request {
    /// The request as a TLP header: physical address, no attributes.
    pub fn head(&self) -> Head {
        Head::mem(&MemRequest {
            write: self.write,
            addr: BusAddr(self.addr),
            len_dw: self.len_dw,
            first_be: self.first_be,
            last_be: self.last_be,
            requester: Bdf(self.requester),
            tag: self.tlp_tag,
            at: AddressType::Untranslated,
            no_snoop: false,
            relaxed: false,
            ido: false,
            tc: 0,
            pasid: None,
        })
    }

    /// One bit for each byte that a write enables, or `None` when it enables all.
    pub fn strobe(&self) -> Option<Vec<u8>> {
        if self.first_be == 15 && (self.len_dw == 1 || self.last_be == 15) {
            return None;
        }
        let dws = usize::from(self.len_dw);
        let mut strobe = vec![0xff; dws.div_ceil(2)];
        let mut set = |dw: usize, be: u8| {
            let shift = 4 * (dw % 2);
            strobe[dw / 2] = strobe[dw / 2] & !(15 << shift) | be << shift;
        };
        set(0, self.first_be);
        if dws > 1 {
            set(dws - 1, self.last_be);
        }
        Some(strobe)
    }
}

/// Latency range of reads, in cycles.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
}

struct Read {
    tag: u8,
    due: u64,
    addr: u64,
    data: Vec<u8>,
    sent: usize,
    error: bool,
}

/// One chunk of a response under way.
struct Chunk {
    read: Read,
    from: usize,
    to: usize,
    at: usize,
}

/// Read responses that wait for their time.
pub struct ReadQueue {
    waiting: VecDeque<Read>,
    current: Option<Chunk>,
    latency: Latency,
    max_chunk: usize,
    spare: Vec<Vec<u8>>,
}

/// What a response beat says beside its words.
pub struct Beat {
    /// `mem_rsp_t`.
    pub words: [u32; 9],
    /// Tag answered.
    pub tag: u8,
}

impl ReadQueue {
    /// A queue with the given latency; chunks are at most `max_chunk` bytes, a multiple of 64.
    pub fn new(latency: Latency, max_chunk: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            current: None,
            latency,
            max_chunk,
            spare: Vec::new(),
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none()
    }

    /// A buffer of `len` zero bytes for [`ReadQueue::push`].
    pub fn buffer(&mut self, len: usize) -> Vec<u8> {
        let mut b = self.spare.pop().unwrap_or_default();
        b.clear();
        b.resize(len, 0);
        b
    }

    /// Takes a buffer back.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < 64 {
            self.spare.push(buffer);
        }
    }

    /// Queues the answer to a read accepted in cycle `now`: its data, or `None` for an access
    /// fault.
    pub fn push(&mut self, now: u64, rng: &mut impl Rng, r: &Request, data: Option<Vec<u8>>) {
        let due = now + rng.random_range(self.latency.min..=self.latency.max);
        let error = data.is_none();
        self.waiting.push_back(Read {
            tag: r.tag,
            due,
            addr: r.addr,
            data: data.unwrap_or_default(),
            sent: 0,
            error,
        });
    }

    /// The beat to offer in cycle `now`, if any. Call [`ReadQueue::accepted`] when it was taken.
    pub fn offer(&mut self, now: u64, rng: &mut impl Rng) -> Option<Beat> {
        if self.current.is_none() {
            // Any read whose time has come may go next, not just the oldest.
            let ready = self.waiting.iter().take(8).filter(|r| r.due <= now).count();
            if ready == 0 {
                return None;
            }
            let pick = rng.random_range(0..ready);
            let index = self
                .waiting
                .iter()
                .enumerate()
                .filter(|(_, r)| r.due <= now)
                .map(|(i, _)| i)
                .nth(pick)?;
            let read = self.waiting.remove(index)?;
            let from = read.sent;
            let left = read.data.len() - from;
            // The chunk ends on a 64-byte boundary or with the read.
            let to_line = 64 - (read.addr as usize + from) % 64;
            let lines = rng.random_range(0..=self.max_chunk / 64 - 1);
            let to = from + left.min((to_line + 64 * lines).min(self.max_chunk));
            self.current = Some(Chunk {
                read,
                from,
                to,
                at: from,
            });
        }
        let c = self.current.as_ref()?;
        let end = c.to.min(c.at + BEAT_BYTES);
        let mut words = [0u32; 9];
        for (w, b) in words.iter_mut().zip(c.read.data[c.at..end].chunks(4)) {
            let mut word = [0; 4];
            word[..b.len()].copy_from_slice(b);
            *w = u32::from_le_bytes(word);
        }
        let eop = end == c.to;
        let last = c.to == c.read.data.len();
        let len_dw = ((c.to - c.from) / 4) as u32;
        words[8] = len_dw
            | u32::from(c.read.tag) << 11
            | u32::from(c.read.error) << 20
            | u32::from(last) << 21
            | u32::from(eop) << 22
            | u32::from(c.at == c.from) << 23;
        Some(Beat {
            words,
            tag: c.read.tag,
        })
    }

    /// The offered beat was taken. Returns the tag, the bytes of its chunk, whether it was an
    /// error and whether it was the read's last chunk, once the chunk is complete.
    pub fn accepted(&mut self, mut done: impl FnMut(u8, &[u8], bool, bool)) {
        let Some(mut c) = self.current.take() else {
            return;
        };
        c.at = c.to.min(c.at + BEAT_BYTES);
        if c.at < c.to {
            self.current = Some(c);
            return;
        }
        let last = c.to == c.read.data.len();
        done(c.read.tag, &c.read.data[c.from..c.to], c.read.error, last);
        if last {
            self.recycle(c.read.data);
        } else {
            c.read.sent = c.to;
            // Chunks of one read stay in address order; other reads may come between.
            self.waiting.push_front(c.read);
        }
    }
}
