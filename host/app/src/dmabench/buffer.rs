//! The memory of a thread.

use tlproof_dma::machine::Machine;
use tlproof_pcie::{PhysAddr, config::AccessError};

use super::{BUFFERS, Mode, Options, PAGE};
use crate::simulation::Simulation;

/// What the kernel's benchmark fills its buffers with.
const FILL: u8 = 0x66;

/// Pages in main memory or in a peer's BAR.
pub(super) struct Buffer {
    /// Pages in the order in which the device sees them.
    pub pages: Vec<PhysAddr>,
    mmio: bool,
}

impl Buffer {
    /// Bytes of main memory for all threads. Pages that are mapped one by one are no neighbours.
    pub fn memory(mode: Mode, threads: u32, granule: u32) -> u64 {
        let spread = if mode == Mode::Single { 1 } else { 2 };
        u64::from(threads) * u64::from(granule) * spread * PAGE
    }

    /// The memory of thread `thread`.
    pub fn new(options: &Options, thread: u32, bar: PhysAddr) -> Self {
        let (n, thread) = (u64::from(options.granule), u64::from(thread));
        let threads = u64::from(options.threads);
        let page = |i: u64| {
            if options.mmio {
                return bar.offset((thread * n + i) * PAGE);
            }
            let at = match options.mode {
                Mode::Single => thread * n + i,
                _ => 2 * (i * threads + thread),
            };
            BUFFERS.base.offset(at * PAGE)
        };
        Self {
            pages: (0..n).map(page).collect(),
            mmio: options.mmio,
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// As the kernel's benchmark does before it maps.
    pub fn fill(&self, sim: &mut Simulation) {
        if !self.mmio {
            for page in &self.pages {
                sim.mem_write(*page, &[FILL; PAGE as usize]);
            }
        }
    }

    /// The CPU writes contents that differ from byte to byte and from round to round.
    pub fn write(&self, sim: &mut Simulation, round: u64) -> Result<(), AccessError> {
        for (i, page) in self.pages.iter().enumerate() {
            let mut bytes = vec![0; PAGE as usize];
            contents(i as u64 * PAGE, round, &mut bytes);
            if !self.mmio {
                sim.mem_write(*page, &bytes);
                continue;
            }
            for (at, word) in (0..).step_by(8).zip(bytes.as_chunks::<8>().0) {
                sim.mmio_write(page.offset(at), 8, u64::from_le_bytes(*word))?;
            }
        }
        Ok(())
    }

    /// The CPU reads `len` bytes from `offset` on.
    pub fn read(
        &self,
        sim: &mut Simulation,
        offset: u64,
        len: u64,
    ) -> Result<Vec<u8>, AccessError> {
        let mut bytes = vec![0; len as usize];
        let mut at = 0;
        while at < len {
            let from = offset + at;
            let n = (PAGE - from % PAGE).min(len - at);
            let phys = self.pages[(from / PAGE) as usize].offset(from % PAGE);
            let part = &mut bytes[at as usize..(at + n) as usize];
            if self.mmio {
                device_read(sim, phys, part)?;
            } else {
                sim.mem_read(phys, part);
            }
            at += n;
        }
        Ok(bytes)
    }
}

/// Reads device memory at a multiple of 8.
pub(super) fn device_read(
    sim: &mut Simulation,
    from: PhysAddr,
    buf: &mut [u8],
) -> Result<(), AccessError> {
    for (at, part) in (0..).step_by(8).zip(buf.chunks_mut(8)) {
        let word = sim.mmio_read(from.offset(at), 8)?.to_le_bytes();
        part.copy_from_slice(&word[..part.len()]);
    }
    Ok(())
}

/// What [`Buffer::write`] puts at `offset`.
pub(super) fn contents(offset: u64, round: u64, buf: &mut [u8]) {
    for (i, b) in buf.iter_mut().enumerate() {
        let at = offset + i as u64;
        let x = (at >> 3 ^ round << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        *b = (x ^ x >> 29).to_le_bytes()[at as usize & 7];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_threads_share_a_page_and_list_entries_are_no_neighbours() {
        for mode in [Mode::Single, Mode::Sg, Mode::Iova] {
            let options = Options {
                threads: 3,
                granule: 5,
                mode,
                ..super::super::tests::options()
            };
            let mut seen = BTreeSet::new();
            for t in 0..3 {
                let b = Buffer::new(&options, t, PhysAddr(0));
                for (i, p) in b.pages.iter().enumerate() {
                    assert!(seen.insert(*p) && BUFFERS.contains(*p, PAGE));
                    if mode != Mode::Single && i > 0 {
                        assert!(b.pages[i - 1].offset(PAGE) != *p);
                    }
                }
            }
            let last = seen.last().unwrap().offset(PAGE).0 - BUFFERS.base.0;
            assert!(last <= Buffer::memory(mode, 3, 5));
        }
    }
}
