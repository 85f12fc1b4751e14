//! TLPs as a pcapng capture: one interface a tap, link type `DLT_PCI_EXP` (125), one packet a TLP
//! with its prefix, header and payload in link order. Time stamps are clock cycles, written as
//! nanoseconds. A tap that sees headers only gives packets whose payload was not captured: the
//! original length counts it, the captured length does not.

use std::io::{self, Write};

use tlproof_pcie::Head;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const LINK_PCI_EXP: u16 = 125;
const OPT_END: u16 = 0;
const OPT_IF_NAME: u16 = 2;
const OPT_IF_TSRESOL: u16 = 9;

/// A capture being written.
pub struct Writer<W: Write> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Starts a capture with one interface for each name.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn new(out: W, interfaces: &[&str]) -> io::Result<Self> {
        let mut w = Self {
            out,
            block: Vec::new(),
        };
        w.block.extend(0x1a2b_3c4du32.to_le_bytes());
        w.block.extend(1u16.to_le_bytes());
        w.block.extend(0u16.to_le_bytes());
        w.block.extend(u64::MAX.to_le_bytes());
        w.flush_block(SECTION_HEADER)?;
        for name in interfaces {
            w.block.extend(LINK_PCI_EXP.to_le_bytes());
            w.block.extend(0u16.to_le_bytes());
            w.block.extend(0u32.to_le_bytes());
            w.option(OPT_IF_NAME, name.as_bytes());
            // Time stamps count 10^-9 seconds.
            w.option(OPT_IF_TSRESOL, &[9]);
            w.option(OPT_END, &[]);
            w.flush_block(INTERFACE)?;
        }
        Ok(w)
    }

    /// Writes one TLP seen in `cycle` at interface number `interface`, with as much of its payload
    /// as was seen there.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn tlp(
        &mut self,
        interface: u32,
        cycle: u64,
        head: &Head,
        payload: &[u8],
    ) -> io::Result<()> {
        let dws = if head.is_4dw() { 4 } else { 3 };
        let header = (usize::from(head.pfx.is_some()) + dws) * 4;
        let carried = if head.has_data() {
            usize::from(head.len_dw()) * 4
        } else {
            0
        };
        let captured = header + payload.len();
        let original = header + carried.max(payload.len());
        for v in [
            interface,
            (cycle >> 32) as u32,
            cycle as u32,
            captured as u32,
            original as u32,
        ] {
            self.block.extend(v.to_le_bytes());
        }
        for dw in head.pfx.iter().chain(&head.hdr[..dws]) {
            self.block.extend(dw.to_be_bytes());
        }
        self.block.extend_from_slice(payload);
        self.flush_block(ENHANCED_PACKET)
    }

    /// Flushes and returns the writer.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.block.extend(code.to_le_bytes());
        self.block.extend((value.len() as u16).to_le_bytes());
        self.block.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn flush_block(&mut self, kind: u32) -> io::Result<()> {
        self.pad();
        let total = (self.block.len() + 12) as u32;
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&total.to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&total.to_le_bytes())?;
        self.block.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the blocks: kinds, and that both lengths of each agree.
    fn blocks(mut b: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |b: &[u8], at: usize| u32::from_le_bytes(b[at..at + 4].try_into().unwrap());
        let mut v = Vec::new();
        while !b.is_empty() {
            let total = word(b, 4) as usize;
            assert_eq!(total % 4, 0);
            assert_eq!(word(b, total - 4) as usize, total);
            v.push((word(b, 0), b[8..total - 4].to_vec()));
            b = &b[total..];
        }
        v
    }

    #[test]
    fn blocks_are_well_formed() {
        let mut w = Writer::new(Vec::new(), &["ep0 tx", "rp0 rx"]).unwrap();
        let head = Head {
            hdr: [0x4000_0001, 0x0100_000f, 0x8000_0000, 0],
            pfx: Some(0x9100_0001),
        };
        w.tlp(1, 0x1_0000_0002, &head, &[1, 2, 3, 4]).unwrap();
        let b = blocks(&w.finish().unwrap());
        let kinds: Vec<u32> = b.iter().map(|(k, _)| *k).collect();
        assert_eq!(
            kinds,
            [SECTION_HEADER, INTERFACE, INTERFACE, ENHANCED_PACKET]
        );
        let packet = &b[3].1;
        assert_eq!(packet[..12], [1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(packet[12], 20);
        assert_eq!(packet[20..28], [0x91, 0, 0, 1, 0x40, 0, 0, 1]);
        assert_eq!(packet[36..40], [1, 2, 3, 4]);
    }

    /// A tap that sees only headers: the TLP is as long as it is, and cut after its header.
    #[test]
    fn a_payload_that_was_not_seen_was_not_captured() {
        let mut w = Writer::new(Vec::new(), &["rp0.rx"]).unwrap();
        let write = Head {
            hdr: [0x4000_0040, 0x0100_00ff, 0x8000_0000, 0],
            pfx: None,
        };
        let read = Head {
            hdr: [0x0000_0040, 0x0100_00ff, 0x8000_0000, 0],
            pfx: None,
        };
        w.tlp(0, 1, &write, &[]).unwrap();
        w.tlp(0, 2, &read, &[]).unwrap();
        let lengths: Vec<[u32; 2]> = blocks(&w.finish().unwrap())[2..]
            .iter()
            .map(|(_, b)| [12, 16].map(|at| u32::from_le_bytes(b[at..at + 4].try_into().unwrap())))
            .collect();
        assert_eq!(lengths, [[12, 12 + 256], [12, 12]]);
    }
}
