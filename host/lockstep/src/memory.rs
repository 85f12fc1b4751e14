//! Main memory and the place where MSIs go, with faults where the generator wants them. Each side has
//! one of its own; both begin alike.

use tlproof_golden::iommu::{FlatMemory, Injected, MemoryFault, SystemMemory};

use crate::layout::{Beat, MemoryOp, MemoryRequest};

/// First byte of main memory.
pub const BASE: u64 = 0x8000_0000;
/// Bytes of main memory.
pub const SIZE: usize = 2 << 20;
/// Where MSIs are stored: 64 KiB.
pub const MESSAGES: u64 = 0x2800_0000;
const MESSAGES_END: u64 = MESSAGES + (1 << 16);

/// Whether `address` is in main memory.
pub(crate) const fn in_ram(address: u64) -> bool {
    address >= BASE && address < BASE + SIZE as u64
}

/// A memory system.
#[derive(Clone, Debug)]
pub struct SystemRam {
    /// Main memory.
    pub ram: FlatMemory,
    /// Stores of four bytes into the place of MSIs, in order.
    pub messages: Vec<(u64, u32)>,
}

impl Default for SystemRam {
    fn default() -> Self {
        Self {
            ram: FlatMemory::new(BASE, SIZE),
            messages: Vec::new(),
        }
    }
}

impl SystemRam {
    /// Answers accesses to the doubleword at `address` with a fault.
    pub fn inject(&mut self, address: u64, fault: Injected) {
        self.ram.inject(address, fault);
    }

    /// Carries out what the device under test asks for; the beats of the answer.
    pub fn serve(&mut self, request: &MemoryRequest) -> Vec<Beat> {
        let address = request.address;
        match request.op {
            MemoryOp::Read => self.read(address, request.length),
            MemoryOp::Write => {
                let bytes: Vec<u8> = request.data.iter().flat_map(|w| w.to_le_bytes()).collect();
                let length = (request.length as usize).min(bytes.len());
                vec![status(self.store(address, &bytes[..length]).map(|()| 0))]
            }
            op => vec![status(self.atomic(op, request))],
        }
    }

    fn read(&self, address: u64, length: u64) -> Vec<Beat> {
        let mut beats = Vec::with_capacity(2);
        let mut refused = false;
        for at in (address & !7..address + length).step_by(32) {
            let mut beat = Beat::default();
            for (i, word) in beat.data.iter_mut().enumerate() {
                let from = at + 8 * i as u64;
                if from >= address + length {
                    break;
                }
                match self.load(from) {
                    Ok(value) => *word = value,
                    // Refusal of a part refuses the whole; poison is of its beat.
                    Err(MemoryFault::Access) => refused = true,
                    Err(MemoryFault::Poison) => beat.poison = true,
                }
            }
            beats.push(beat);
        }
        if address % 8 == 4 {
            // Lane 0 holds the first byte that was asked for.
            for beat in &mut beats {
                for i in 0..4 {
                    let next = beat.data.get(i + 1).copied().unwrap_or(0);
                    beat.data[i] = beat.data[i] >> 32 | next << 32;
                }
            }
        }
        if refused {
            return vec![status(Err(MemoryFault::Access))];
        }
        beats
    }

    fn atomic(&mut self, op: MemoryOp, request: &MemoryRequest) -> Result<u64, MemoryFault> {
        let [operand, compare, ..] = request.data;
        let at = request.address & !7;
        let old = self.load(at)?;
        let (shift, mask) = if request.length == 4 {
            (8 * (request.address & 4), 0xffff_ffff)
        } else {
            (0, u64::MAX)
        };
        let field = old >> shift & mask;
        let new = match op {
            MemoryOp::CompareAndSet if field != compare & mask => return self.unchanged(at, field),
            MemoryOp::CompareAndSet => operand,
            _ => field | operand,
        };
        let word = old & !(mask << shift) | (new & mask) << shift;
        self.store(at, &word.to_le_bytes())?;
        Ok(field)
    }

    /// A comparison that fails stores nothing, and still needs the right to.
    fn unchanged(&mut self, at: u64, field: u64) -> Result<u64, MemoryFault> {
        let word = self.load(at)?;
        self.store(at, &word.to_le_bytes())?;
        Ok(field)
    }
}

fn status(result: Result<u64, MemoryFault>) -> Beat {
    let mut beat = Beat::default();
    match result {
        Ok(value) => beat.data[0] = value,
        Err(MemoryFault::Access) => beat.error = true,
        Err(MemoryFault::Poison) => beat.poison = true,
    }
    beat
}

impl SystemMemory for SystemRam {
    fn load(&self, addr: u64) -> Result<u64, MemoryFault> {
        self.ram.load(addr)
    }

    fn store(&mut self, addr: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        if (MESSAGES..MESSAGES_END).contains(&addr) {
            let [a, b, c, d] = bytes else {
                return Err(MemoryFault::Access);
            };
            self.messages
                .push((addr, u32::from_le_bytes([*a, *b, *c, *d])));
            return Ok(());
        }
        self.ram.store(addr, bytes)
    }

    fn compare_and_set(&mut self, addr: u64, old: u64, new: u64) -> Result<bool, MemoryFault> {
        self.ram.compare_and_set(addr, old, new)
    }
}

/// Memory that remembers what is loaded.
#[derive(Debug)]
pub struct Watched<'a> {
    memory: &'a SystemRam,
    loads: std::cell::RefCell<Vec<(u64, Result<u64, MemoryFault>)>>,
}

impl<'a> Watched<'a> {
    /// Over `memory`.
    #[must_use]
    pub const fn new(memory: &'a SystemRam) -> Self {
        Self {
            memory,
            loads: std::cell::RefCell::new(Vec::new()),
        }
    }

    /// Address and value of each load so far.
    #[must_use]
    pub fn into_loads(self) -> Vec<(u64, Result<u64, MemoryFault>)> {
        self.loads.into_inner()
    }
}

impl SystemMemory for Watched<'_> {
    fn load(&self, addr: u64) -> Result<u64, MemoryFault> {
        let value = self.memory.load(addr);
        self.loads.borrow_mut().push((addr, value));
        value
    }

    fn store(&mut self, _: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Ok(())
    }
}
