//! The queues, and what may stand in their registers: for the tests of those and of interrupts.

use crate::bench::{csr, reg};
use crate::rig::{Context, Message, Request, Rig, Ttyp, Vm};

pub const DEVICE: u32 = 5;
const EN_ATS: u64 = 2;
const EN_PRI: u64 = 4;
pub const WSI: u64 = 2;
pub const BUSY: u64 = 1 << 17;
/// Enabled and on, nothing else.
pub const ACTIVE: u64 = csr::ENABLE | csr::ON;
pub const FENCE_DONE: u64 = 1 << 11;
/// IOFENCE.C that does nothing else, and one that sets `fence_w_ip`.
pub const FENCE: [u64; 2] = [2, 0];
pub const WIRED_FENCE: [u64; 2] = [2 | 1 << 11, 0];
/// ATS.INVAL for the device.
pub const INVALIDATE: [u64; 2] = [4 | (DEVICE as u64) << 40, 0];
/// Longer than an ATS.INVAL may take.
pub const TIMEOUT_CYCLES: u64 = 10_000;
pub const ENTRIES: u64 = 128;
/// A message for the page-request queue.
pub const PAGE_REQUEST: Message = Message::Page {
    device_id: DEVICE,
    process_id: None,
    privileged: false,
    exec: false,
    rwl: [true, false, false],
    prgi: 0,
    addr: 0x1000,
};

/// The registers of a queue.
#[derive(Clone, Copy)]
pub struct Queue {
    pub csr: u32,
    pub base: u32,
    /// The index that software moves.
    pub software: u32,
    /// The index that the IOMMU moves.
    own: u32,
    /// Bit of `ipsr`.
    pub pending: u64,
}

pub const COMMANDS: Queue = Queue {
    csr: reg::CQCSR,
    base: reg::CQB,
    software: reg::CQT,
    own: reg::CQH,
    pending: 1,
};
pub const FAULTS: Queue = Queue {
    csr: reg::FQCSR,
    base: reg::FQB,
    software: reg::FQH,
    own: reg::FQT,
    pending: 2,
};
pub const PAGES: Queue = Queue {
    csr: reg::PQCSR,
    base: reg::PQB,
    software: reg::PQH,
    own: reg::PQT,
    pending: 8,
};

impl Queue {
    /// Writes the control register and waits until that has taken effect.
    pub fn set(self, rig: &mut Rig, value: u64) {
        rig.write(self.csr, 4, value);
        while self.status(rig) & BUSY != 0 {}
    }

    pub fn status(self, rig: &mut Rig) -> u64 {
        rig.read(self.csr, 4)
    }

    pub fn index(self, rig: &mut Rig) -> u64 {
        rig.read(self.own, 4)
    }

    /// Page of the queue.
    pub fn memory(self, rig: &mut Rig) -> u64 {
        rig.read(self.base, 8) >> 10 << 12
    }

    /// Off, with everything taken out.
    pub fn stop(self, rig: &mut Rig) {
        self.set(rig, 0);
        rig.write(self.software, 4, 0);
    }

    /// A command, a record or a message, and time for it.
    pub fn feed(self, rig: &mut Rig) {
        match self.csr {
            reg::CQCSR => give(rig, &[FENCE]),
            reg::FQCSR => {
                rig.ask(Request::new(Ttyp::UntransRd, DEVICE + 1, 0));
            }
            _ => rig.message(&PAGE_REQUEST),
        }
        rig.run(300);
    }

    /// Whether anything was accessed in the queue's page since the last request.
    pub fn accessed(self, rig: &mut Rig) -> bool {
        let page = self.memory(rig);
        rig.accesses.iter().any(|a| a.addr & !0xfff == page)
    }
}

/// Puts commands into the queue.
pub fn give(rig: &mut Rig, commands: &[[u64; 2]]) {
    let memory = COMMANDS.memory(rig);
    let mut tail = rig.read(reg::CQT, 4);
    let big = rig.read(reg::FCTL, 4) & 1 == 1;
    for [first, second] in commands {
        rig.store_as(memory + 16 * tail, *first, big);
        rig.store_as(memory + 16 * tail + 8, *second, big);
        tail = (tail + 1) % ENTRIES;
    }
    rig.write(reg::CQT, 4, tail);
}

/// What a bit of a queue's register says.
#[derive(Clone, Copy, Debug)]
pub enum Condition {
    /// `fence_w_ip`
    Fence,
    /// `cmd_ill`
    Illegal,
    /// `cmd_to`
    Timeout,
    /// `cqmf`
    CommandFault,
    /// `fqof`
    FaultOverflow,
    /// `fqmf`
    FaultFault,
    /// `pqof`
    PageOverflow,
    /// `pqmf`
    PageFault,
}

impl Condition {
    pub const ALL: [Self; 8] = [
        Self::Fence,
        Self::Illegal,
        Self::Timeout,
        Self::CommandFault,
        Self::FaultOverflow,
        Self::FaultFault,
        Self::PageOverflow,
        Self::PageFault,
    ];

    pub fn queue(self) -> Queue {
        match self {
            Self::Fence | Self::Illegal | Self::Timeout | Self::CommandFault => COMMANDS,
            Self::FaultOverflow | Self::FaultFault => FAULTS,
            Self::PageOverflow | Self::PageFault => PAGES,
        }
    }

    pub fn bit(self) -> u64 {
        match self {
            Self::Fence => FENCE_DONE,
            Self::Illegal => csr::ILLEGAL,
            Self::Timeout => csr::TIMEOUT,
            Self::FaultOverflow | Self::PageOverflow => csr::OVERFLOW,
            Self::CommandFault | Self::FaultFault | Self::PageFault => csr::MEMORY_FAULT,
        }
    }

    /// All queues on; with wires if the condition needs them.
    pub fn setup(self) -> Rig {
        setup(matches!(self, Self::Fence))
    }

    /// Makes the bit 1. Once it is cleared nothing sets it again.
    pub fn provoke(self, rig: &mut Rig) {
        let queue = self.queue();
        let memory = queue.memory(rig);
        match self {
            Self::Fence => give(rig, &[WIRED_FENCE]),
            Self::Illegal => give(rig, &[[0, 0]]),
            Self::Timeout => {
                give(rig, &[INVALIDATE, FENCE]);
                rig.run(TIMEOUT_CYCLES);
            }
            Self::CommandFault | Self::FaultFault | Self::PageFault => {
                rig.broken.insert(memory);
                queue.feed(rig);
                rig.broken.clear();
            }
            Self::FaultOverflow | Self::PageOverflow => {
                let full = (queue.index(rig) + 1) % ENTRIES;
                rig.write(queue.software, 4, full);
                queue.feed(rig);
            }
        }
        rig.run(300);
        if matches!(self, Self::Illegal) {
            let head = queue.index(rig);
            rig.store(memory + 16 * head, FENCE[0]);
        }
    }
}

/// The queues are on, page requests of the device are for the queue.
pub fn setup(wires: bool) -> Rig {
    let mut rig = Rig::new(31);
    if wires {
        // fctl must not be written while a queue is on (IOMMU §5.4).
        for queue in [COMMANDS, FAULTS] {
            queue.stop(&mut rig);
        }
        rig.write(reg::FCTL, 4, WSI);
        for queue in [COMMANDS, FAULTS] {
            queue.set(&mut rig, csr::ENABLE);
        }
    }
    let vm = Vm::new(&mut rig, 0, 0);
    rig.directory(&[DEVICE], Context::of(&vm).tc(EN_ATS | EN_PRI));
    let page = rig.page();
    let size = u64::from(ENTRIES.ilog2() - 1);
    rig.write(reg::PQB, 8, page >> 12 << 10 | size);
    PAGES.set(&mut rig, csr::ENABLE);
    rig
}
