//! What the host knows: the reads it waits for, the descriptors it gave, and what each TLP of the
//! endpoint must therefore look like.

use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, RngExt};
use tlproof_pcie::{
    Bdf, BusAddr, CplStatus, Head,
    tlp::{AddressType, MemRequest, Pasid},
};

use crate::common::{Checked, Tlp, enables, plain};

/// Bytes of the local memory.
pub const LOCAL: usize = 1 << 20;
/// Read Completion Boundary.
const RCB: u64 = 64;
/// Completer ID of main memory.
const HOST: Bdf = Bdf(0);

/// A non-posted request of the host.
pub struct Request {
    pub head: Head,
    /// Bytes of the DWs asked for, `None` where a later write may have been seen or not.
    pub expected: Vec<Option<u8>>,
    pub data: Vec<u8>,
    pub status: Option<CplStatus>,
    bytes: u64,
}

impl Request {
    pub fn new(head: Head, expected: Vec<Option<u8>>) -> Self {
        Self {
            head,
            expected,
            data: Vec::new(),
            status: None,
            bytes: 0,
        }
    }

    /// A completion of this request; sets `status` with the last.
    pub fn accept(&mut self, cpl: &Tlp, completer: Bdf, mps: usize) -> Checked {
        let (h, r) = (&cpl.head, &self.head);
        ensure!(
            h.requester() == r.requester(),
            "requester {}",
            h.requester()
        );
        ensure!(
            h.completer() == completer,
            "completer {}, not {completer}",
            h.completer()
        );
        let copied = |h: &Head| h.hdr[0] & 0x0074_3000;
        ensure!(copied(h) == copied(r), "TC or Attr of {h:x?} for {r:x?}");
        ensure!(
            h.hdr[0] & 0xcc00 == 0 && h.pfx.is_none(),
            "TD, EP, AT or prefix: {h:x?}"
        );
        let (first, span) = r.byte_span();
        let read = r.is_mem_read();
        let total = if read { span.max(1) } else { 4 };
        let left = total - self.bytes;
        let addr = if read {
            r.addr().0 + first + self.bytes
        } else {
            0
        };
        ensure!(
            u64::from(h.byte_count()) == left,
            "byte count {}, not {left}",
            h.byte_count()
        );
        ensure!(
            u64::from(h.lower_addr()) == addr % 128,
            "lower address of {h:x?}, not {addr:#x}"
        );
        if h.status() != CplStatus::Success || !h.has_data() {
            let reads = !r.has_data();
            ensure!(
                !h.has_data() && h.hdr[0] & 0x3ff == 0,
                "data with a status: {h:x?}"
            );
            ensure!(
                h.status() != CplStatus::Success || !reads,
                "read without data: {h:x?}"
            );
            self.status = Some(h.status());
            return Ok(());
        }
        ensure!(cpl.data.len() <= mps, "{} bytes, MPS {mps}", cpl.data.len());
        let lead = addr % 4;
        let n = left.min(cpl.data.len() as u64 - lead);
        if n == left {
            let dws = (lead + n).div_ceil(4);
            ensure!(
                u64::from(h.len_dw()) == dws,
                "length {}, not {dws}",
                h.len_dw()
            );
            self.status = Some(CplStatus::Success);
        } else {
            ensure!(
                (addr + n).is_multiple_of(RCB),
                "ends at {:#x}, off the RCB",
                addr + n
            );
        }
        self.bytes += n;
        self.data.extend_from_slice(&cpl.data);
        Ok(())
    }

    /// The data are those expected.
    pub fn verify(&self) -> Checked {
        ensure!(
            self.status == Some(CplStatus::Success),
            "{:x?}: {:?}",
            self.head,
            self.status
        );
        let (first, span) = self.head.byte_span();
        for i in first as usize..(first + span) as usize {
            let (seen, due) = (self.data.get(i).copied(), self.expected[i]);
            ensure!(
                due.is_none() || seen == due,
                "byte {i} at {:#x}: {seen:x?}, not {due:x?}",
                self.head.addr()
            );
        }
        Ok(())
    }
}

/// A descriptor of the DMA engine (`docs/endpoint.md`).
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub addr: u64,
    pub len: u32,
    pub offset: u32,
    pub write: bool,
    pub pattern: bool,
    pub at: AddressType,
    pub no_snoop: bool,
    pub relaxed: bool,
    pub ido: bool,
    pub tc: u8,
    pub pasid: Option<Pasid>,
    pub requester: Option<Bdf>,
    pub irq: Option<u8>,
    pub seed: u32,
    /// How the host completes its reads.
    pub answer: CplStatus,
}

impl Descriptor {
    pub fn plain(write: bool, addr: u64, len: u32, offset: u32) -> Self {
        Self {
            addr,
            len,
            offset,
            write,
            pattern: false,
            at: AddressType::Untranslated,
            no_snoop: false,
            relaxed: false,
            ido: false,
            tc: 0,
            pasid: None,
            requester: None,
            irq: None,
            seed: 0,
            answer: CplStatus::Success,
        }
    }

    /// DESC_CTRL.
    pub fn ctrl(&self) -> u64 {
        let at = match self.at {
            AddressType::Untranslated => 0,
            AddressType::TranslationRequest => 1,
            AddressType::Translated => 2,
            AddressType::Reserved => 3,
        };
        let pasid = self.pasid.map_or(0, |p| {
            1 << 7
                | u64::from(p.privileged) << 8
                | u64::from(p.execute) << 9
                | u64::from(p.pasid) << 32
        });
        u64::from(self.write)
            | u64::from(self.pattern) << 1
            | at << 2
            | u64::from(self.no_snoop) << 4
            | u64::from(self.relaxed) << 5
            | u64::from(self.ido) << 6
            | pasid
            | u64::from(self.requester.is_some()) << 10
            | self.irq.map_or(0, |v| 1 << 11 | u64::from(v) << 12)
            | u64::from(self.tc) << 16
    }

    /// DESC_AUX.
    pub fn aux(&self) -> u64 {
        u64::from(self.requester.map_or(0, |r| r.0)) | u64::from(self.seed) << 32
    }
}

/// The pattern generator's byte at `addr`.
pub fn pattern(addr: u64, seed: u32) -> u8 {
    let mut x = (addr >> 2) as u32 ^ seed;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    x.to_le_bytes()[(addr % 4) as usize]
}

/// What main memory holds.
pub fn memory(addr: u64) -> u8 {
    (addr.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// What the endpoint's configuration allows it.
#[derive(Clone, Copy)]
pub struct Limits {
    pub bdf: Bdf,
    pub mps: usize,
    pub mrrs: usize,
    pub bus_master: bool,
}

/// A descriptor as far as its requests were seen.
pub struct Progress {
    pub descriptor: Descriptor,
    /// Bytes requested.
    pub requested: u32,
    /// Reads without their last completion.
    pub open: u32,
    /// Worst status.
    pub status: u8,
    pub recorded: bool,
}

impl Progress {
    fn all_requested(&self) -> bool {
        self.requested == self.descriptor.len
    }
}

/// A read in flight.
pub struct Read {
    pub head: Head,
    pub id: u16,
    pub addr: u64,
    pub left: u64,
}

/// The DMA engine as the host sees it.
#[derive(Default)]
pub struct Dma {
    pub descriptors: BTreeMap<u16, Progress>,
    writes: VecDeque<u16>,
    reads: VecDeque<u16>,
    write_tag: u8,
    pub pending: BTreeMap<u16, Read>,
    pub peak: usize,
}

impl Dma {
    pub fn push(&mut self, id: u16, descriptor: Descriptor) {
        let progress = Progress {
            descriptor,
            requested: 0,
            open: 0,
            status: 0,
            recorded: false,
        };
        self.descriptors.insert(id, progress);
        if descriptor.write {
            &mut self.writes
        } else {
            &mut self.reads
        }
        .push_back(id);
    }

    /// Bytes that the descriptor has requested.
    pub fn requested(&self, id: u16) -> u32 {
        self.descriptors.get(&id).map_or(0, |p| p.requested)
    }

    /// A request of the endpoint: must be the next of its direction.
    pub fn accept(&mut self, tlp: &Tlp, limits: &Limits, local: &[u8]) -> Checked {
        let h = &tlp.head;
        ensure!(h.is_mem(), "no request of the DMA engine: {h:x?}");
        ensure!(
            limits.bus_master,
            "request without Bus Master Enable: {h:x?}"
        );
        let queue = if h.has_data() {
            &mut self.writes
        } else {
            &mut self.reads
        };
        while queue
            .front()
            .is_some_and(|id| self.descriptors[id].all_requested())
        {
            queue.pop_front();
        }
        let id = *queue
            .front()
            .ok_or_else(|| format!("no descriptor asks for {h:x?}"))?;
        let progress = self.descriptors.get_mut(&id).ok_or("unknown descriptor")?;
        let d = progress.descriptor;

        let addr = d.addr + u64::from(progress.requested);
        let left = u64::from(d.len - progress.requested);
        let (_, n) = h.byte_span();
        let limit = if d.write { limits.mps } else { limits.mrrs } as u64;
        ensure!(n > 0 && n <= left, "{n} bytes of {left} left");
        ensure!(
            u64::from(h.len_dw()) * 4 <= limit,
            "{} DW, limit {limit}",
            h.len_dw()
        );
        ensure!(
            addr % 4096 + n <= 4096,
            "{n} bytes at {addr:#x} cross 4 KiB"
        );
        ensure!(
            n == left || (addr + n).is_multiple_of(limit),
            "split at {:#x}",
            addr + n
        );
        let due = Head::mem(&MemRequest {
            addr: BusAddr(addr),
            requester: d.requester.unwrap_or(limits.bdf),
            tag: if d.write {
                u16::from(self.write_tag)
            } else {
                h.tag()
            },
            at: d.at,
            no_snoop: d.no_snoop,
            relaxed: d.relaxed,
            ido: d.ido,
            tc: d.tc,
            pasid: d.pasid,
            ..plain(d.write, addr, enables(addr, n))
        });
        ensure!(
            *h == due,
            "descriptor {id} at {addr:#x}: {h:x?}, not {due:x?}"
        );

        if d.write {
            self.write_tag = self.write_tag.wrapping_add(1);
            for i in 0..n {
                let seen = tlp.data[(addr % 4 + i) as usize];
                let at = u64::from(d.offset) + u64::from(progress.requested) + i;
                let due = if d.pattern {
                    pattern(addr + i, d.seed)
                } else {
                    local[at as usize % LOCAL]
                };
                ensure!(
                    seen == due,
                    "descriptor {id} byte at {:#x}: {seen:#x}, not {due:#x}",
                    addr + i
                );
            }
        } else {
            ensure!(h.tag() < 64, "tag {}", h.tag());
            progress.open += 1;
            let read = Read {
                head: *h,
                id,
                addr,
                left: n,
            };
            ensure!(
                self.pending.insert(h.tag(), read).is_none(),
                "tag {} in use",
                h.tag()
            );
            self.peak = self.peak.max(self.pending.len());
        }
        progress.requested += n as u32;
        Ok(())
    }

    /// A completion of any read in flight, of any length that PCIe 6.0 §2.3.1.1 lets. What it
    /// carries goes into `local`.
    pub fn answer(&mut self, rng: &mut impl Rng, mps: usize, local: &mut [u8]) -> Option<Tlp> {
        let nth = rng.random_range(0..self.pending.len().max(1));
        let (&tag, read) = self.pending.iter_mut().nth(nth)?;
        let progress = self.descriptors.get_mut(&read.id)?;
        let d = progress.descriptor;
        let mut n = read.left;
        let mut status = d.answer;
        let size = rng.random_range(1..=mps as u64 / RCB) * RCB;
        let whole = read.addr % 4 + read.left <= size;
        if !whole || rng.random() {
            let end = ((read.addr + size) & !(RCB - 1)).max(read.addr / RCB * RCB + RCB);
            n = n.min(end - read.addr);
        }
        // A part may succeed before the failure.
        if n < read.left && status != CplStatus::Success && rng.random() {
            status = CplStatus::Success;
        }
        let tlp = if status == CplStatus::Success {
            let lead = read.addr % 4;
            let mut data: Vec<u8> = (0..(lead + n).div_ceil(4) * 4)
                .map(|_| rng.random())
                .collect();
            for i in 0..n {
                let byte = memory(read.addr + i);
                data[(lead + i) as usize] = byte;
                if !d.pattern {
                    let at = u64::from(d.offset) + (read.addr - d.addr) + i;
                    local[at as usize % LOCAL] = byte;
                }
            }
            Tlp::completion(&read.head, HOST, status, read.left, read.addr, data)
        } else {
            n = read.left;
            let code = if status == CplStatus::CompleterAbort {
                4
            } else {
                1
            };
            progress.status = progress.status.max(code);
            Tlp::completion(&read.head, HOST, status, read.left, read.addr, Vec::new())
        };
        read.addr += n;
        read.left -= n;
        if read.left == 0 {
            progress.open -= 1;
            self.pending.remove(&tag);
        }
        Some(tlp)
    }

    /// A completion record.
    pub fn record(&mut self, value: u64) -> Checked<u16> {
        let (id, status) = (value as u16, (value >> 16 & 7) as u8);
        ensure!(
            value & !(1 << 63 | 0x7_ffff) == 0,
            "reserved bits of record {value:#x}"
        );
        let p = self
            .descriptors
            .get_mut(&id)
            .ok_or_else(|| format!("record {value:#x}"))?;
        ensure!(!p.recorded, "second record of {id}");
        ensure!(
            p.all_requested() && p.open == 0,
            "record of {id} before its end"
        );
        ensure!(
            status == p.status,
            "descriptor {id}: status {status}, not {}",
            p.status
        );
        p.recorded = true;
        Ok(id)
    }

    /// Forgets descriptors that have their record.
    pub fn forget(&mut self) {
        let kept = |id: &u16, all: &BTreeMap<u16, Progress>| !all[id].recorded;
        self.writes.retain(|id| kept(id, &self.descriptors));
        self.reads.retain(|id| kept(id, &self.descriptors));
        self.descriptors.retain(|_, p| !p.recorded);
    }
}
