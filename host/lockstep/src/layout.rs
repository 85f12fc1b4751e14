//! The packed structs at the ports of an IOMMU: `rtl/iommu/iommu_pkg.sv`, described in
//! `docs/rtl-ports.md`.

use tlproof_golden::iommu::{AtsMessage, PageRequest, Request};

/// Bits `lsb` and up of a packed struct; at most 64.
#[must_use]
pub fn get(words: &[u32], lsb: usize, width: usize) -> u64 {
    let word = |i: usize| u128::from(words.get(i).copied().unwrap_or(0));
    let first = lsb / 32;
    let bits = word(first) | word(first + 1) << 32 | word(first + 2) << 64;
    (bits >> (lsb % 32)) as u64 & (u64::MAX >> (64 - width))
}

/// Sets them; bits of `value` beyond the width are dropped.
pub fn put(words: &mut [u32], lsb: usize, width: usize, value: u64) {
    let mask = u128::from(u64::MAX >> (64 - width)) << (lsb % 32);
    let value = u128::from(value) << (lsb % 32) & mask;
    for (i, word) in words.iter_mut().skip(lsb / 32).take(3).enumerate() {
        let shift = 32 * i;
        *word = *word & !((mask >> shift) as u32) | (value >> shift) as u32;
    }
}

/// `tr_req_t`.
pub fn drive_request(words: &mut [u32], tag: u64, request: &Request) {
    put_request(words, 0, tag, request);
}

fn put_request(words: &mut [u32], at: usize, tag: u64, request: &Request) {
    put(words, at, 5, tag);
    put(words, at + 5, 64, request.iova);
    put(words, at + 69, 1, request.privileged.into());
    put(words, at + 70, 20, request.process_id.unwrap_or(0).into());
    put(words, at + 90, 1, request.process_id.is_some().into());
    put(words, at + 91, 24, request.device_id.into());
    put(words, at + 115, 6, request.ttyp as u64);
    put(words, at + 121, 1, request.ats.execute.into());
    put(words, at + 122, 1, request.ats.no_write.into());
}

/// Fields of a Translation Completion (PCIe 6.0 §10.2.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one field per bit")]
pub struct Ats {
    /// R.
    pub read: bool,
    /// W.
    pub write: bool,
    /// Exe.
    pub execute: bool,
    /// U.
    pub untranslated_only: bool,
    /// N.
    pub no_snoop: bool,
    /// Global.
    pub global: bool,
    /// Priv.
    pub privileged: bool,
    /// CXL.io.
    pub cxl_io: bool,
}

/// `tr_rsp_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one field per bit")]
pub struct Answer {
    /// Tag of the request.
    pub tag: u64,
    /// 0 done, 1 UR, 2 CA.
    pub status: u64,
    /// Cause of the fault, or 0.
    pub cause: u64,
    /// Memory type.
    pub pbmt: u64,
    /// Address, with the upper bits of a guest address.
    pub address: u64,
    /// Logarithm of the bytes of the translation.
    pub size_log2: u64,
    /// The address is a guest's.
    pub is_gpa: bool,
    /// From an MSI page table.
    pub is_msi: bool,
    /// Into a memory-resident interrupt file.
    pub is_mrif: bool,
    /// Faults of the write into that file are not to be reported.
    pub dtf: bool,
    /// Address of the file.
    pub mrif: u64,
    /// Address of its notice.
    pub notice: u64,
    /// Data of its notice.
    pub notice_id: u64,
    /// RCID.
    pub rcid: u64,
    /// MCID.
    pub mcid: u64,
    /// Of a translation request.
    pub ats: Ats,
}

impl Answer {
    /// From the words of the port.
    #[must_use]
    pub fn decode(w: &[u32]) -> Self {
        let bit = |at| get(w, at, 1) == 1;
        Self {
            address: get(w, 0, 56) | get(w, 188, 8) << 56,
            pbmt: get(w, 56, 2),
            cause: get(w, 58, 12),
            status: get(w, 70, 2),
            tag: get(w, 72, 5),
            notice_id: get(w, 77, 11),
            notice: get(w, 88, 44) << 12,
            mrif: get(w, 132, 47) << 9,
            dtf: bit(179),
            is_mrif: bit(180),
            is_msi: bit(181),
            size_log2: get(w, 182, 6),
            is_gpa: bit(196),
            ats: Ats {
                cxl_io: bit(197),
                privileged: bit(198),
                global: bit(199),
                no_snoop: bit(200),
                untranslated_only: bit(201),
                execute: bit(202),
                write: bit(203),
                read: bit(204),
            },
            mcid: get(w, 205, 12),
            rcid: get(w, 217, 12),
        }
    }
}

/// `mrif_req_t`: a write of `data` that was answered with `answer`.
pub fn drive_mrif(words: &mut [u32], request: &Request, answer: &Answer, data: u32) {
    put(words, 0, 32, data.into());
    put(words, 32, 11, answer.notice_id);
    put(words, 43, 44, answer.notice >> 12);
    put(words, 87, 47, answer.mrif >> 9);
    put(words, 134, 12, answer.mcid);
    put(words, 146, 12, answer.rcid);
    put(words, 158, 1, answer.dtf.into());
    put_request(words, 159, 0, request);
}

/// A message for the IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageIn {
    /// "Page Request" or "Stop Marker".
    PageRequest(PageRequest),
    /// "Invalidate Completion".
    Completion {
        /// Of this function.
        device_id: u32,
        /// ITag Vector.
        tags: u32,
        /// Completion Count, 0 means 8.
        count: u8,
    },
}

/// `msg_in_t`.
pub fn drive_message(words: &mut [u32], message: &MessageIn) {
    words.fill(0);
    match *message {
        MessageIn::PageRequest(request) => {
            put(words, 35, 52, request.address >> 12);
            put(words, 87, 9, request.group.into());
            let bits = [
                request.last,
                request.write,
                request.read,
                request.execute,
                request.privileged,
            ];
            for (i, bit) in bits.into_iter().enumerate() {
                put(words, 96 + i, 1, bit.into());
            }
            put(words, 101, 20, request.process_id.unwrap_or(0).into());
            put(words, 121, 1, request.process_id.is_some().into());
            put(words, 122, 24, request.device_id.into());
        }
        MessageIn::Completion {
            device_id,
            tags,
            count,
        } => {
            put(words, 0, 3, count.into());
            put(words, 3, 32, tags.into());
            put(words, 122, 24, device_id.into());
            put(words, 146, 1, 1);
        }
    }
}

/// `msg_out_t`.
#[must_use]
pub fn decode_message(w: &[u32]) -> AtsMessage {
    let device_id = get(w, 103, 24) as u32;
    let process_id = (get(w, 102, 1) == 1).then_some(get(w, 82, 20) as u32);
    if get(w, 127, 1) == 1 {
        AtsMessage::GroupResponse {
            device_id,
            process_id,
            group: get(w, 4, 9) as u16,
            code: get(w, 0, 4) as u8,
        }
    } else {
        AtsMessage::Invalidate {
            device_id,
            process_id,
            tag: get(w, 77, 5) as u8,
            body: get(w, 13, 64),
        }
    }
}

/// What a memory request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOp {
    /// Reads up to 64 bytes.
    Read,
    /// Writes up to 32 bytes.
    Write,
    /// Atomic compare and set.
    CompareAndSet,
    /// Atomic OR.
    Or,
}

/// `iommu_mem_req_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRequest {
    /// What it does.
    pub op: MemoryOp,
    /// Tag.
    pub tag: u64,
    /// Byte address, a multiple of 4.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// Data, or the operands of an atomic.
    pub data: [u64; 4],
}

impl MemoryRequest {
    /// From the words of the port.
    #[must_use]
    pub fn decode(w: &[u32]) -> Self {
        Self {
            op: match get(w, 321, 2) {
                0 => MemoryOp::Read,
                1 => MemoryOp::Write,
                2 => MemoryOp::CompareAndSet,
                _ => MemoryOp::Or,
            },
            tag: get(w, 317, 4),
            address: get(w, 261, 56),
            length: 4 * get(w, 256, 5),
            data: std::array::from_fn(|i| get(w, 64 * i, 64)),
        }
    }
}

/// One beat of `iommu_mem_rsp_t`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beat {
    /// Data.
    pub data: [u64; 4],
    /// Access fault.
    pub error: bool,
    /// Corrupt data.
    pub poison: bool,
}

impl Beat {
    /// To the words of the port.
    pub fn drive(&self, words: &mut [u32], tag: u64, last: bool) {
        for (i, word) in self.data.iter().enumerate() {
            put(words, 64 * i, 64, *word);
        }
        put(words, 256, 4, tag);
        put(words, 260, 1, self.poison.into());
        put(words, 261, 1, self.error.into());
        put(words, 262, 1, last.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_across_words() {
        let mut words = [u32::MAX; 4];
        put(&mut words, 27, 64, 0x0123_4567_89ab_cdef);
        assert_eq!(get(&words, 27, 64), 0x0123_4567_89ab_cdef);
        assert_eq!(get(&words, 0, 27), (1 << 27) - 1);
        assert_eq!(get(&words, 91, 37), (1 << 37) - 1);
        put(&mut words, 127, 1, 0);
        assert_eq!(words[3], 0x7fff_ffff);
    }
}
