//! Decoding of what `sim_top` brings out: packed structs as words.

use tlproof_pcie::{Head, MemAttr, MemType, MemoryMap};

use crate::bits;

/// Endpoints of `sim_top`.
pub const ENDPOINTS: usize = 3;
/// Root ports of `sim_top`.
pub const ROOT_PORTS: usize = 2;
/// Width of `tlp_head_t`.
pub const HEAD_BITS: usize = 161;
/// Width of `tlp_beat256_t`: data, head, eop, sop.
const BEAT_BITS: usize = 256 + HEAD_BITS + 2;
const DATA_WORDS: usize = 8;
/// Width of `pma_region_t`.
const PMA_BITS: usize = 114;

/// A TLP being gathered from its beats.
#[derive(Default)]
pub struct Assembly {
    /// Header and prefix, valid from the first beat on.
    pub head: Head,
    payload: Vec<u8>,
}

impl Assembly {
    /// Adds the beat of lane `index` of a packed array of beats. Returns whether it was the first
    /// and the last of its TLP.
    pub fn push(&mut self, beats: &[u32], index: usize) -> (bool, bool) {
        let base = index * BEAT_BITS;
        let eop = bits::get(beats, base + BEAT_BITS - 2, 1) != 0;
        let sop = bits::get(beats, base + BEAT_BITS - 1, 1) != 0;
        if sop {
            self.head = head(beats, base + 256);
            self.payload.clear();
        }
        if self.head.has_data() {
            let mut data = [0; DATA_WORDS];
            bits::copy(beats, base, &mut data);
            for w in data {
                self.payload.extend_from_slice(&w.to_le_bytes());
            }
        }
        (sop, eop)
    }

    /// The payload, whole DWs.
    pub fn payload(&self) -> &[u8] {
        let len = if self.head.has_data() {
            usize::from(self.head.len_dw()) * 4
        } else {
            0
        };
        &self.payload[..len.min(self.payload.len())]
    }
}

/// Decodes `tlp_head_t` at bit `lsb`.
pub fn head(words: &[u32], lsb: usize) -> Head {
    let mut w = [0; 5];
    bits::copy(words, lsb, &mut w);
    let pfx = (bits::get(words, lsb + 160, 1) != 0).then_some(w[4]);
    Head {
        hdr: [w[0], w[1], w[2], w[3]],
        pfx,
    }
}

/// A request as it leaves the translation stage (`tr_tap_t`).
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    /// Root port it came from.
    pub port: u8,
    /// The request as it came.
    pub head: Head,
    /// 0 translated, 1 UR, 2 CA (`tr_status_e`).
    pub status: u8,
    /// CAUSE of the fault.
    pub cause: u16,
    /// Page-based memory type.
    pub pbmt: u8,
    /// Resolved attributes; `None` for an encoding that does not exist.
    pub attr: Option<MemAttr>,
    /// Where it goes: 0 nowhere, 1 memory, 2 and 3 root port 0 and 1.
    pub dest: u8,
    /// System physical address.
    pub spa: u64,
}

/// Fills the PMA table (`pma_region_t [7:0]`).
pub fn set_pma(words: &mut [u32], map: &MemoryMap) {
    words.fill(0);
    let regions = map
        .dram
        .iter()
        .map(|r| (1, *r))
        .chain([(2, map.msi), (3, map.aperture)])
        .take(8);
    for (i, (kind, range)) in regions.enumerate() {
        let at = i * PMA_BITS;
        bits::set(words, at, 56, range.base.0);
        bits::set(words, at + 56, 56, range.last.0);
        bits::set(words, at + 112, 2, kind);
    }
}

/// Decodes `tr_tap_t`.
pub fn translation(words: &[u32]) -> Translation {
    let field = |lsb, width| bits::get(words, HEAD_BITS + lsb, width);
    let attr = MemType::from_bits(field(60, 2) as u32).map(|mem_type| MemAttr {
        mem_type,
        snoop: field(59, 1) != 0,
        strong_order: field(58, 1) != 0,
    });
    Translation {
        head: head(words, 0),
        spa: field(0, 56),
        dest: field(56, 2) as u8,
        attr,
        pbmt: field(62, 2) as u8,
        cause: field(64, 12) as u16,
        status: field(76, 2) as u8,
        port: field(78, 1) as u8,
    }
}
