//! PRP lists and scatter gather lists as the specification has them followed (NVM Express 1.4
//! §4.3, §4.4): what a descriptor must move, what it may read of its list, and how it ends.

use std::collections::BTreeMap;

use tlproof_pcie::CplStatus;

use crate::{
    descriptor::{Descriptor, Pointer, memory},
    engine::LOCAL,
};

/// Generic command status (NVM Express 1.4 §4.6.1.2.1).
pub mod code {
    pub const DATA_TRANSFER_ERROR: u8 = 0x04;
    pub const SGL_SEGMENT: u8 = 0x0d;
    pub const SGL_NUMBER: u8 = 0x0e;
    pub const SGL_LENGTH: u8 = 0x0f;
    pub const SGL_TYPE: u8 = 0x11;
    pub const PRP_OFFSET: u8 = 0x13;
    pub const SGL_GRANULARITY: u8 = 0x1e;
}

/// Bytes of a memory page.
pub const PAGE: u64 = 4096;
/// A read of a list stays within a block of this size.
const BLOCK: u64 = 128;
/// Descriptors of a list that the engine follows.
pub const MAX_DESCRIPTORS: usize = 8192;

/// Memory that holds lists, by quad-word; the rest holds data.
pub type Memory = BTreeMap<u64, u64>;

/// The quad-word that main memory holds.
fn word(lists: &Memory, addr: u64) -> u64 {
    lists.get(&addr).copied().unwrap_or_else(|| {
        let bytes: [u8; 8] = std::array::from_fn(|i| memory(addr + i as u64));
        u64::from_le_bytes(bytes)
    })
}

/// The byte that main memory holds.
pub fn byte(lists: &Memory, addr: u64) -> u8 {
    word(lists, addr & !7).to_le_bytes()[addr as usize % 8]
}

/// A contiguous part of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub addr: u64,
    pub len: u64,
    /// In local memory.
    pub offset: u64,
}

/// What becomes of a descriptor.
#[derive(Debug, Default)]
pub struct Walk {
    /// What is moved.
    pub extents: Vec<Extent>,
    /// Reads of the list, address and bytes, in order.
    pub reads: Vec<(u64, u64)>,
    /// So many of them are needed; the others may have been sent ahead.
    pub needed: usize,
    /// Status of the list read that failed.
    pub status: u8,
    /// Why the list ended the descriptor.
    pub code: u8,
}

/// Follows the descriptor's list.
pub fn walk(memory: &Memory, d: &Descriptor) -> Walk {
    let mut walker = Walker {
        memory,
        fails: d.list_answer,
        walk: Walk::default(),
        left: u64::from(d.len),
        offset: u64::from(d.offset),
    };
    let end = match d.pointer {
        Pointer::Contiguous => walker.data(d.addr, u64::from(d.len)),
        Pointer::Prp(second) => walker.prp(d.addr, second),
        Pointer::Sgl(high) => walker.sgl(d.addr, high, d.write),
    };
    walker.walk.code = end.err().unwrap_or(0);
    walker.walk
}

struct Walker<'a> {
    memory: &'a Memory,
    fails: Option<(usize, CplStatus)>,
    walk: Walk,
    left: u64,
    offset: u64,
}

impl Walker<'_> {
    fn skip(&mut self, len: u64) {
        self.left -= len;
        self.offset = (self.offset + len) % LOCAL as u64;
    }

    fn data(&mut self, addr: u64, len: u64) -> Result<(), u8> {
        if len > 0 {
            let offset = self.offset;
            self.walk.extents.push(Extent { addr, len, offset });
            self.skip(len);
        }
        Ok(())
    }

    /// A stretch of the list is read.
    fn stretch(&mut self, addr: u64, len: u64) {
        let mut at = addr;
        while at < addr + len {
            let end = (at / BLOCK * BLOCK + BLOCK).min(addr + len);
            self.walk.reads.push((at, end - at));
            at = end;
        }
    }

    /// A quad-word of the list.
    fn word(&mut self, addr: u64) -> Result<u64, u8> {
        let covers = |&(at, n): &(u64, u64)| at <= addr && addr < at + n;
        // A list may come to the same memory again: the last read is meant.
        let nth = self.walk.reads.iter().rposition(covers).unwrap_or(0);
        self.walk.needed = self.walk.needed.max(nth + 1);
        if let Some((failing, status)) = self.fails
            && failing == nth
        {
            self.walk.status = status.bits();
            return Err(code::DATA_TRANSFER_ERROR);
        }
        Ok(word(self.memory, addr))
    }

    fn prp(&mut self, first: u64, second: u64) -> Result<(), u8> {
        let on_page = self.left.min(PAGE - first % PAGE);
        let rest = self.left - on_page;
        let second_is_wrong = match rest {
            0 => false,
            1..=PAGE => !second.is_multiple_of(PAGE),
            _ => !second.is_multiple_of(8),
        };
        if !first.is_multiple_of(4) || second_is_wrong {
            return Err(code::PRP_OFFSET);
        }
        self.data(first, on_page)?;
        if rest <= PAGE {
            return self.data(second, rest);
        }
        let mut list = second;
        while self.left > 0 {
            let pages = self.left.div_ceil(PAGE);
            let slots = (PAGE - list % PAGE) / 8;
            let mut next = None;
            self.stretch(list, 8 * pages.min(slots));
            for at in (list..).step_by(8).take(pages.min(slots) as usize) {
                let entry = self.word(at)?;
                if entry % PAGE != 0 {
                    return Err(code::PRP_OFFSET);
                }
                if pages > slots && (at + 8) % PAGE == 0 {
                    next = Some(entry);
                } else {
                    self.data(entry, self.left.min(PAGE))?;
                }
            }
            list = next.unwrap_or(list);
        }
        Ok(())
    }

    fn sgl(&mut self, low: u64, high: u64, write: bool) -> Result<(), u8> {
        let mut count = 1;
        // The descriptor of the command is a segment of its own.
        let mut next = self.descriptor((low, high), write, Place::Command)?;
        while let Some((addr, len, is_last)) = next.take() {
            self.stretch(addr, len);
            for at in (addr..addr + len).step_by(16) {
                let sgl = (self.word(at)?, self.word(at + 8)?);
                count += 1;
                if count > MAX_DESCRIPTORS {
                    return Err(code::SGL_NUMBER);
                }
                let place = match (is_last, at + 16 == addr + len) {
                    (true, _) => Place::LastSegment,
                    (false, true) => Place::SegmentEnd,
                    (false, false) => Place::Segment,
                };
                next = self.descriptor(sgl, write, place)?;
            }
        }
        if self.left > 0 {
            return Err(code::SGL_LENGTH);
        }
        Ok(())
    }

    /// One descriptor; yields address and length of the segment that it points at, and whether
    /// that is the last.
    fn descriptor(
        &mut self,
        (low, high): (u64, u64),
        write: bool,
        place: Place,
    ) -> Result<Option<(u64, u64, bool)>, u8> {
        let len = high & 0xffff_ffff;
        match (high >> 56, place) {
            (0x20 | 0x30, Place::LastSegment) => Err(code::SGL_SEGMENT),
            (0x20 | 0x30, Place::Segment) => Err(code::SGL_NUMBER),
            (0x20 | 0x30, _) if len == 0 || len % 16 != 0 || low % 8 != 0 => Err(code::SGL_SEGMENT),
            (kind @ (0x20 | 0x30), _) => Ok(Some((low, len, kind == 0x30))),
            (0x00 | 0x10, Place::SegmentEnd) => Err(code::SGL_SEGMENT),
            // A bit bucket takes nothing from a source.
            (0x10, _) if !write => Ok(None),
            (kind @ (0x00 | 0x10), _) => {
                let is_data = kind == 0;
                if len % 4 != 0 || is_data && len > 0 && low % 4 != 0 {
                    return Err(code::SGL_GRANULARITY);
                }
                if len > self.left {
                    return Err(code::SGL_LENGTH);
                }
                if is_data {
                    self.data(low, len)?;
                } else {
                    self.skip(len);
                }
                Ok(None)
            }
            _ => Err(code::SGL_TYPE),
        }
    }
}

/// Where a descriptor stands.
#[derive(Clone, Copy)]
enum Place {
    Command,
    Segment,
    SegmentEnd,
    LastSegment,
}
