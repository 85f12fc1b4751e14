//! The command queue and the fault queue (IOMMU §4.1, §4.2).

use tlproof_pcie::PhysAddr;

use super::{
    command::Command,
    regs::{
        CQCSR_CMD_ILL, CQCSR_CMD_TO, FQCSR_OF, QUEUE_MF, QUEUE_ON, QUEUE_START, Regs, offset,
        ppn_field, ppn_page,
    },
};
use crate::{
    iommu::IommuError,
    machine::Machine,
    pages::{PAGE_SIZE, PagePool},
};

/// Registers and entry size of a kind of queue.
struct Kind {
    base: u64,
    /// The index that software owns.
    index: u64,
    csr: u64,
    /// The queue's bit in `ipsr`.
    ipsr: u32,
    entry: u64,
}

const COMMANDS: Kind = Kind {
    base: offset::CQB,
    index: offset::CQT,
    csr: offset::CQCSR,
    ipsr: 1,
    entry: 16,
};

const FAULTS: Kind = Kind {
    base: offset::FQB,
    index: offset::FQH,
    csr: offset::FQCSR,
    ipsr: 2,
    entry: 32,
};

/// Finds the size and the place of a queue, and allocates it; returns base and entries.
fn allocate(
    kind: &Kind,
    regs: &Regs,
    m: &mut dyn Machine,
    pool: &mut PagePool,
    log2: u8,
) -> Result<(PhysAddr, u32), IommuError> {
    // Both fields are WARL: the largest size that sticks is the limit, and a page number that
    // does not is memory of the unit itself.
    regs.write64(m, kind.base, 0x1f)?;
    let found = regs.read64(m, kind.base)?;
    let log2 = u64::from(log2.max(1)).min((found & 0x1f) + 1);
    let bytes = kind.entry << log2;
    let base = if ppn_page(found).0 == 0 {
        let order = bytes.div_ceil(PAGE_SIZE).ilog2() as u8;
        pool.alloc(m, order).ok_or(IommuError::NoMemory)?
    } else {
        ppn_page(found)
    };
    let value = ppn_field(base) | (log2 - 1);
    regs.write64(m, kind.base, value)?;
    if regs.read64(m, kind.base)? != value {
        return Err(IommuError::NoDevice);
    }
    Ok((base, 1 << log2))
}

/// Turns a queue on.
fn start(kind: &Kind, regs: &Regs, m: &mut dyn Machine) -> Result<(), IommuError> {
    regs.write32(m, kind.index, 0)?;
    regs.write32(m, kind.csr, QUEUE_START)?;
    let csr = regs.queue(m, kind.csr)?;
    if csr & QUEUE_ON == 0 || csr & QUEUE_MF != 0 {
        return Err(IommuError::Busy);
    }
    regs.write32(m, offset::IPSR, kind.ipsr)
}

/// The command queue.
#[derive(Clone, Debug)]
pub struct CommandQueue {
    regs: Regs,
    base: PhysAddr,
    entries: u32,
    tail: u32,
    /// The head as last read: at least up to here entries are free.
    head: u32,
}

impl CommandQueue {
    /// Allocates a queue of 2^`log2` commands, or of as many as the unit takes.
    ///
    /// # Errors
    /// Out of memory, or the base register does not hold what was written.
    pub fn new(
        regs: Regs,
        m: &mut dyn Machine,
        pool: &mut PagePool,
        log2: u8,
    ) -> Result<Self, IommuError> {
        let (base, entries) = allocate(&COMMANDS, &regs, m, pool, log2)?;
        Ok(Self {
            regs,
            base,
            entries,
            tail: 0,
            head: 0,
        })
    }

    /// Turns the queue on.
    ///
    /// # Errors
    /// It does not come on.
    pub fn start(&self, m: &mut dyn Machine) -> Result<(), IommuError> {
        start(&COMMANDS, &self.regs, m)
    }

    /// Sends `commands` and a fence, and waits until the unit is past the fence.
    ///
    /// # Errors
    /// The unit reports an error or does not get there in time.
    pub fn run(&mut self, m: &mut dyn Machine, commands: &[Command]) -> Result<(), IommuError> {
        for &command in commands.iter().chain([&Command::fence()]) {
            self.push(m, command)?;
        }
        self.publish(m)?;
        if mutant!(M31) {
            return Ok(());
        }
        let tail = self.tail;
        self.wait(m, "IOFENCE.C", |head| head == tail)
    }

    fn push(&mut self, m: &mut dyn Machine, command: Command) -> Result<(), IommuError> {
        let next = (self.tail + 1) % self.entries;
        if next == self.head {
            self.publish(m)?;
            self.wait(m, "room in the command queue", |head| head != next)?;
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&command.0[0].to_le_bytes());
        bytes[8..].copy_from_slice(&command.0[1].to_le_bytes());
        m.mem_write(self.base.offset(u64::from(self.tail) * 16), &bytes);
        self.tail = next;
        Ok(())
    }

    fn publish(&self, m: &mut dyn Machine) -> Result<(), IommuError> {
        self.regs.write32(m, offset::CQT, self.tail)
    }

    fn wait(
        &mut self,
        m: &mut dyn Machine,
        what: &'static str,
        done: impl Fn(u32) -> bool,
    ) -> Result<(), IommuError> {
        let regs = self.regs;
        self.head = regs.poll(m, what, |m| {
            let head = regs.read32(m, offset::CQH)?;
            if done(head) {
                return Ok(Some(head));
            }
            match regs.read32(m, offset::CQCSR)? {
                csr if csr & QUEUE_MF != 0 => Err(IommuError::Io("command queue memory fault")),
                csr if csr & CQCSR_CMD_ILL != 0 => Err(IommuError::Io("illegal command")),
                csr if csr & CQCSR_CMD_TO != 0 => Err(IommuError::Timeout("command")),
                _ => Ok(None),
            }
        })?;
        Ok(())
    }
}

/// The fault queue.
#[derive(Clone, Debug)]
pub struct FaultQueue {
    regs: Regs,
    base: PhysAddr,
    entries: u32,
    head: u32,
}

impl FaultQueue {
    /// Allocates a queue of 2^`log2` records, or of as many as the unit takes.
    ///
    /// # Errors
    /// As [`CommandQueue::new`].
    pub fn new(
        regs: Regs,
        m: &mut dyn Machine,
        pool: &mut PagePool,
        log2: u8,
    ) -> Result<Self, IommuError> {
        let (base, entries) = allocate(&FAULTS, &regs, m, pool, log2)?;
        Ok(Self {
            regs,
            base,
            entries,
            head: 0,
        })
    }

    /// Turns the queue on.
    ///
    /// # Errors
    /// It does not come on.
    pub fn start(&self, m: &mut dyn Machine) -> Result<(), IommuError> {
        start(&FAULTS, &self.regs, m)
    }

    /// Takes the waiting records, and says whether any were lost before.
    ///
    /// # Errors
    /// The unit did not answer.
    pub fn drain(&mut self, m: &mut dyn Machine) -> Result<(Vec<[u64; 4]>, bool), IommuError> {
        // Before the tail is read: a record that comes later raises the interrupt again.
        self.regs.write32(m, offset::IPSR, FAULTS.ipsr)?;
        let tail = self.regs.read32(m, offset::FQT)? % self.entries;
        let mut records = Vec::new();
        while self.head != tail {
            let at = self.base.offset(u64::from(self.head) * 32);
            records.push(std::array::from_fn(|i| m.read_u64(at.offset(8 * i as u64))));
            self.head = (self.head + 1) % self.entries;
        }
        if !records.is_empty() {
            self.regs.write32(m, offset::FQH, self.head)?;
        }
        let csr = self.regs.read32(m, offset::FQCSR)?;
        let lost = csr & (QUEUE_MF | FQCSR_OF) != 0;
        if lost {
            self.regs.write32(m, offset::FQCSR, csr)?;
        }
        Ok((records, lost))
    }
}
