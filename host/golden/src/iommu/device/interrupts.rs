//! Pending interrupts, and the messages or wires that they drive (IOMMU §5.18, §5.28, §5.29).

/// Causes: bits of `ipsr`, fields of `icvec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    CommandQueue = 0,
    FaultQueue = 1,
    Monitor = 2,
    PageRequestQueue = 3,
}

/// An entry of `msi_cfg_tbl`.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
    /// A message waits for the mask to be cleared.
    pending: bool,
}

/// A store of four bytes.
pub(super) type Message = (u64, u32);

#[derive(Clone, Debug)]
pub(super) struct Interrupts {
    /// `capabilities.IGS` is not WSI.
    messages: bool,
    /// Interrupt vectors; a power of two up to 16.
    vectors: usize,
    /// `ipsr`.
    pub pending: u32,
    /// `icvec`.
    pub icvec: u32,
    table: [Entry; 16],
}

impl Interrupts {
    pub fn new(messages: bool, vectors_log2: u8) -> Self {
        Self {
            messages,
            vectors: 1 << vectors_log2.min(4),
            pending: 0,
            icvec: 0,
            table: [Entry::default(); 16],
        }
    }

    pub fn write_icvec(&mut self, value: u32) {
        self.icvec = value & (0x1111 * (self.vectors as u32 - 1));
    }

    const fn vector(&self, cause: u32) -> usize {
        (self.icvec >> (4 * cause) & 0xf) as usize
    }

    /// Sets a bit of `ipsr`. The result is the message that its rise causes, unless wires are in
    /// use.
    pub fn raise(&mut self, cause: Cause, wires: bool) -> Option<Message> {
        let bit = 1 << cause as u32;
        if self.pending & bit != 0 {
            return None;
        }
        self.pending |= bit;
        let vector = self.vector(cause as u32);
        let entry = &mut self.table[vector];
        if wires || !self.messages {
            None
        } else if entry.masked {
            entry.pending = true;
            None
        } else {
            Some((entry.address, entry.data))
        }
    }

    /// Levels of the wires.
    pub fn wires(&self) -> u16 {
        (0..4)
            .filter(|cause| self.pending >> cause & 1 == 1)
            .fold(0, |wires, cause| wires | 1 << self.vector(cause))
    }

    /// Four bytes of the table at this offset in it.
    pub fn read(&self, offset: u32) -> u32 {
        let entry = self.table[(offset as usize / 16) & 15];
        match offset & 0xc {
            0 => entry.address as u32,
            4 => (entry.address >> 32) as u32,
            8 => entry.data,
            _ => entry.masked.into(),
        }
    }

    /// The result is a message that was held back until now.
    pub fn write(&mut self, offset: u32, value: u32) -> Option<Message> {
        let index = (offset as usize / 16) & 15;
        if !self.messages || index >= self.vectors {
            return None;
        }
        let entry = &mut self.table[index];
        match offset & 0xc {
            0 => entry.address = entry.address >> 32 << 32 | u64::from(value & !3),
            4 => {
                entry.address = entry.address & 0xffff_ffff | u64::from(value & 0xff_ffff) << 32;
            }
            8 => entry.data = value,
            _ => {
                entry.masked = value & 1 == 1;
                if !entry.masked && entry.pending {
                    entry.pending = false;
                    return Some((entry.address, entry.data));
                }
            }
        }
        None
    }
}
