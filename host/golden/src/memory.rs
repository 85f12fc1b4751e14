//! Main memory and the CPU caches in front of it.
//!
//! [`CachedMemory`] holds what the machine's DRAM contains and, line by line, what the CPUs hold
//! in write-back caches. An access that snoops sees the newest bytes; one that does not sees DRAM
//! only. A driver that forgets a clean or an invalidate, or an IOMMU that hands out the wrong
//! memory type, therefore corrupts data, as it does on hardware.
//!
//! ```
//! use tlproof_golden::memory::CachedMemory;
//! use tlproof_pcie::{MemoryMap, PhysAddr};
//!
//! let mut memory = CachedMemory::new(&MemoryMap::default());
//! memory.set_caching(true);
//! let buffer = PhysAddr(0x8000_0000);
//! memory.cpu_write(buffer, b"new!")?;
//!
//! let mut seen = [0; 4];
//! memory.device_read(buffer, &mut seen, false)?; // does not snoop: the line is still dirty
//! assert_eq!(&seen, &[0; 4]);
//! memory.clean(buffer, 4);
//! memory.device_read(buffer, &mut seen, false)?;
//! assert_eq!(&seen, b"new!");
//! # Ok::<(), tlproof_golden::memory::AccessFault>(())
//! ```

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use tlproof_pcie::{MemoryMap, PhysAddr, Range};

/// Bytes in a cache line.
pub const LINE: u64 = 64;

const PAGE: u64 = 4096;

/// Lines that the CPU caches hold before the oldest is evicted.
pub const DEFAULT_LINES: usize = 4096;

/// An access to physical addresses at which there is no main memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no main memory at {addr} (+{len} bytes)")]
pub struct AccessFault {
    /// First byte of the access.
    pub addr: PhysAddr,
    /// Bytes in the access.
    pub len: u64,
}

/// The coherent view of main memory that the implicit accesses of an IOMMU have.
pub trait Memory {
    /// Reads `buf.len()` bytes at `addr`.
    ///
    /// # Errors
    /// Not all of the bytes are main memory.
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessFault>;

    /// Reads the eight bytes at `addr` as a little-endian number.
    ///
    /// # Errors
    /// Not all of the bytes are main memory.
    fn read_u64(&self, addr: PhysAddr) -> Result<u64, AccessFault> {
        let mut buf = [0; 8];
        self.read(addr, &mut buf)?;
        Ok(u64::from_le_bytes(buf))
    }
}

type Page = [u8; PAGE as usize];

/// A line that the CPUs hold.
#[derive(Clone)]
struct Line {
    data: [u8; LINE as usize],
    dirty: bool,
    // Tells this allocation of the line from earlier ones in `CachedMemory::order`.
    serial: u64,
}

/// Sparse DRAM, zero where nothing was written, behind a model of the CPU caches.
///
/// All state changes come from the calls, in their order: two runs with the same calls read the
/// same bytes.
pub struct CachedMemory {
    ranges: Vec<Range>,
    pages: FxHashMap<u64, Box<Page>>,
    caching: bool,
    capacity: usize,
    lines: FxHashMap<u64, Line>,
    // Line numbers and serials in the order of allocation; those that `lines` no longer holds are
    // skipped.
    order: VecDeque<(u64, u64)>,
    serial: u64,
}

impl CachedMemory {
    /// Memory with the DRAM ranges of `map`, and with CPU caching off.
    #[must_use]
    pub fn new(map: &MemoryMap) -> Self {
        Self::with_capacity(map, DEFAULT_LINES)
    }

    /// Like [`Self::new`], with CPU caches of `lines` lines (at least one).
    #[must_use]
    pub fn with_capacity(map: &MemoryMap, lines: usize) -> Self {
        Self {
            ranges: map.dram.clone(),
            pages: FxHashMap::default(),
            caching: false,
            capacity: lines.max(1),
            lines: FxHashMap::default(),
            order: VecDeque::new(),
            serial: 0,
        }
    }

    /// Whether CPU accesses allocate lines from now on. Off, they go to DRAM (lines held from
    /// before stay and are kept up to date), which is enough, and faster, for a machine on which
    /// every device access snoops.
    pub fn set_caching(&mut self, on: bool) {
        self.caching = on;
    }

    /// Whether all of the `len` bytes at `addr` are main memory.
    #[must_use]
    pub fn is_dram(&self, addr: PhysAddr, len: u64) -> bool {
        self.ranges.iter().any(|r| r.contains(addr, len))
    }

    /// Lines that the CPU caches hold now.
    #[must_use]
    pub fn cached_lines(&self) -> usize {
        self.lines.len()
    }

    /// A load by a CPU. With caching on, the lines it touches are held from then on, and may
    /// become stale when a device writes them without snooping.
    ///
    /// # Errors
    /// Not all of the bytes are main memory.
    pub fn cpu_read(&mut self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessFault> {
        self.check(addr, buf.len())?;
        if self.caching {
            for number in line_numbers(addr, buf.len() as u64) {
                self.fill(number);
            }
        }
        self.read_coherent(addr, buf);
        Ok(())
    }

    /// A store by a CPU. With caching on it stays in a dirty line.
    ///
    /// # Errors
    /// Not all of the bytes are main memory; then nothing is written.
    pub fn cpu_write(&mut self, addr: PhysAddr, data: &[u8]) -> Result<(), AccessFault> {
        self.check(addr, data.len())?;
        if !self.caching && self.lines.is_empty() {
            self.dram_write(addr, data);
            return Ok(());
        }
        for (at, part) in chunks(addr, data.len(), LINE) {
            let number = at.0 / LINE;
            let data = &data[part];
            if self.caching {
                self.fill(number);
            }
            if let Some(line) = self.lines.get_mut(&number) {
                let start = at.offset_in(LINE) as usize;
                line.data[start..start + data.len()].copy_from_slice(data);
                line.dirty |= self.caching;
            }
            if !self.caching {
                self.dram_write(at, data);
            }
        }
        Ok(())
    }

    /// Writes dirty lines that overlap the range back to DRAM and keeps them, clean.
    pub fn clean(&mut self, addr: PhysAddr, len: u64) {
        for number in self.held(addr, len) {
            if let Some(line) = self.lines.get_mut(&number).filter(|l| l.dirty) {
                line.dirty = false;
                let data = line.data;
                self.dram_write(PhysAddr(number * LINE), &data);
            }
        }
    }

    /// Drops the lines that overlap the range without writing them back: what was dirty is lost.
    pub fn invalidate(&mut self, addr: PhysAddr, len: u64) {
        for number in self.held(addr, len) {
            self.lines.remove(&number);
        }
    }

    /// A read by a device. With `snoop` it sees the lines that the CPUs hold, else DRAM only.
    ///
    /// # Errors
    /// Not all of the bytes are main memory.
    pub fn device_read(
        &self,
        addr: PhysAddr,
        buf: &mut [u8],
        snoop: bool,
    ) -> Result<(), AccessFault> {
        self.check(addr, buf.len())?;
        if snoop {
            self.read_coherent(addr, buf);
        } else {
            self.dram_read(addr, buf);
        }
        Ok(())
    }

    /// A write by a device. With `snoop` the lines that the CPUs hold are updated too, else they
    /// stay, stale.
    ///
    /// `strobe` has one bit per byte of `data`, bit 0 of its first byte for the first; bytes whose
    /// bit is 0 (or missing) are not written. `None` writes all.
    ///
    /// # Errors
    /// Not all of the bytes are main memory; then nothing is written.
    pub fn device_write(
        &mut self,
        addr: PhysAddr,
        data: &[u8],
        strobe: Option<&[u8]>,
        snoop: bool,
    ) -> Result<(), AccessFault> {
        self.check(addr, data.len())?;
        let Some(strobe) = strobe else {
            self.device_store(addr, data, snoop);
            return Ok(());
        };
        let enabled = |i: usize| strobe.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1);
        let mut start = 0;
        while start < data.len() {
            let value = enabled(start);
            let run = (start..data.len())
                .take_while(|&i| enabled(i) == value)
                .count();
            if value {
                self.device_store(addr.offset(start as u64), &data[start..start + run], snoop);
            }
            start += run;
        }
        Ok(())
    }

    fn device_store(&mut self, addr: PhysAddr, data: &[u8], snoop: bool) {
        self.dram_write(addr, data);
        if !snoop || self.lines.is_empty() {
            return;
        }
        for (at, part) in chunks(addr, data.len(), LINE) {
            if let Some(line) = self.lines.get_mut(&(at.0 / LINE)) {
                let start = at.offset_in(LINE) as usize;
                line.data[start..start + part.len()].copy_from_slice(&data[part]);
            }
        }
    }

    fn check(&self, addr: PhysAddr, len: usize) -> Result<(), AccessFault> {
        let len = len as u64;
        if self.is_dram(addr, len) {
            Ok(())
        } else {
            Err(AccessFault { addr, len })
        }
    }

    fn dram_read(&self, addr: PhysAddr, buf: &mut [u8]) {
        for (at, part) in chunks(addr, buf.len(), PAGE) {
            let buf = &mut buf[part];
            match self.pages.get(&(at.0 / PAGE)) {
                Some(page) => {
                    let start = at.offset_in(PAGE) as usize;
                    buf.copy_from_slice(&page[start..start + buf.len()]);
                }
                None => buf.fill(0),
            }
        }
    }

    fn dram_write(&mut self, addr: PhysAddr, data: &[u8]) {
        for (at, part) in chunks(addr, data.len(), PAGE) {
            let page = self
                .pages
                .entry(at.0 / PAGE)
                .or_insert_with(|| Box::new([0; PAGE as usize]));
            let start = at.offset_in(PAGE) as usize;
            page[start..start + part.len()].copy_from_slice(&data[part]);
        }
    }

    fn read_coherent(&self, addr: PhysAddr, buf: &mut [u8]) {
        self.dram_read(addr, buf);
        if self.lines.is_empty() {
            return;
        }
        for (at, part) in chunks(addr, buf.len(), LINE) {
            if let Some(line) = self.lines.get(&(at.0 / LINE)) {
                let start = at.offset_in(LINE) as usize;
                let len = part.len();
                buf[part].copy_from_slice(&line.data[start..start + len]);
            }
        }
    }

    /// Allocates a line from DRAM unless it is held, and evicts the oldest when the caches are
    /// full.
    fn fill(&mut self, number: u64) {
        if self.lines.contains_key(&number) {
            return;
        }
        while self.lines.len() >= self.capacity {
            let Some((victim, serial)) = self.order.pop_front() else {
                break;
            };
            if self.lines.get(&victim).is_none_or(|l| l.serial != serial) {
                continue;
            }
            if let Some(line) = self.lines.remove(&victim).filter(|l| l.dirty) {
                self.dram_write(PhysAddr(victim * LINE), &line.data);
            }
        }
        // Numbers of invalidated lines would pile up in a program that only maps and unmaps.
        if self.order.len() >= 2 * self.capacity {
            let lines = &self.lines;
            self.order
                .retain(|(n, serial)| lines.get(n).is_some_and(|l| l.serial == *serial));
        }
        let mut data = [0; LINE as usize];
        self.dram_read(PhysAddr(number * LINE), &mut data);
        let (dirty, serial) = (false, self.serial);
        self.lines.insert(
            number,
            Line {
                data,
                dirty,
                serial,
            },
        );
        self.order.push_back((number, serial));
        self.serial += 1;
    }

    /// Numbers of the held lines that overlap the range, ascending.
    fn held(&self, addr: PhysAddr, len: u64) -> Vec<u64> {
        let numbers = line_numbers(addr, len);
        if numbers.end - numbers.start <= self.lines.len() as u64 {
            numbers.filter(|n| self.lines.contains_key(n)).collect()
        } else {
            let mut held: Vec<u64> = self
                .lines
                .keys()
                .copied()
                .filter(|n| numbers.contains(n))
                .collect();
            held.sort_unstable();
            held
        }
    }
}

impl CachedMemory {
    /// What was written last: DRAM under the dirty lines of the CPUs. A clean line that a device
    /// has overtaken does not count.
    ///
    /// # Errors
    /// Not all of the bytes are main memory.
    pub fn read_written(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessFault> {
        self.device_read(addr, buf, false)?;
        let last = addr.0 + buf.len() as u64;
        for number in addr.0 / LINE..last.div_ceil(LINE) {
            let Some(line) = self.lines.get(&number).filter(|l| l.dirty) else {
                continue;
            };
            let (from, to) = ((number * LINE).max(addr.0), ((number + 1) * LINE).min(last));
            buf[(from - addr.0) as usize..(to - addr.0) as usize]
                .copy_from_slice(&line.data[(from % LINE) as usize..][..(to - from) as usize]);
        }
        Ok(())
    }
}

impl Memory for CachedMemory {
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessFault> {
        self.device_read(addr, buf, true)
    }

    fn read_u64(&self, addr: PhysAddr) -> Result<u64, AccessFault> {
        if addr.offset_in(8) != 0 || !self.lines.is_empty() {
            let mut buf = [0; 8];
            self.read(addr, &mut buf)?;
            return Ok(u64::from_le_bytes(buf));
        }
        self.check(addr, 8)?;
        let start = addr.offset_in(PAGE) as usize;
        Ok(self.pages.get(&(addr.0 / PAGE)).map_or(0, |page| {
            let mut word = [0; 8];
            word.copy_from_slice(&page[start..start + 8]);
            u64::from_le_bytes(word)
        }))
    }
}

/// Numbers of the lines that `len` bytes at `addr` touch.
fn line_numbers(addr: PhysAddr, len: u64) -> std::ops::Range<u64> {
    let first = addr.0 / LINE;
    if len == 0 {
        return first..first;
    }
    first..addr.0.saturating_add(len - 1) / LINE + 1
}

/// Cuts `len` bytes at `addr` at multiples of `step`: the address and the index range of each
/// piece.
fn chunks(
    addr: PhysAddr,
    len: usize,
    step: u64,
) -> impl Iterator<Item = (PhysAddr, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = addr.offset(done as u64);
        let room = (step - at.offset_in(step)) as usize;
        let part = done..len.min(done + room);
        done = part.end;
        Some((at, part))
    })
}

#[cfg(test)]
mod tests;
