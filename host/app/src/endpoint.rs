//! Driver of the endpoint's DMA engine (`docs/endpoint.md`).

mod lists;

pub use lists::{ListError, SglDescriptor, SglKind};
use tlproof_dma::machine::Machine;
use tlproof_pcie::{Bdf, CplStatus, DmaAddr, PhysAddr, config::AccessError, tlp::Pasid};

mod reg {
    pub const STATUS: u64 = 0x010;
    pub const COUNTS: u64 = 0x018;
    pub const DESC_ADDR: u64 = 0x100;
    pub const DESC_LEN: u64 = 0x108;
    pub const DESC_CTRL: u64 = 0x110;
    pub const DESC_AUX: u64 = 0x118;
    pub const DOORBELL: u64 = 0x120;
    pub const COMPLETION: u64 = 0x128;
    pub const DESC_ADDR2: u64 = 0x130;
}

/// Descriptors that the engine's queue holds.
pub const QUEUE_DEPTH: usize = 32;

/// Largest transfer of one descriptor in bytes.
pub const MAX_LENGTH: u64 = 4 << 20;

/// How a descriptor's address leads to its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is that of the data, which are contiguous.
    Contiguous,
    /// It is PRP entry 1 (NVM Express 1.4 §4.3), pages have 4 KiB.
    Prp {
        /// PRP entry 2.
        second: DmaAddr,
    },
    /// It is that of an SGL descriptor (NVM Express 1.4 §4.4).
    Sgl {
        /// What the SGL descriptor is.
        kind: SglKind,
        /// Its length field.
        len: u32,
    },
}

/// One transfer of the DMA engine.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Names the transfer in its completion record.
    pub id: u16,
    /// The device writes memory (`true`) or reads it.
    pub write: bool,
    /// Where the device aims: at the data or, as `mode` says, at a list.
    pub addr: DmaAddr,
    /// What `addr` means.
    pub mode: Mode,
    /// Length in bytes, 1 to [`MAX_LENGTH`].
    pub len: u32,
    /// Offset in the device's local memory; the low two bits equal those of the data's address,
    /// which with a list are 0.
    pub local: u32,
    /// Writes take their payload from the pattern generator with this seed, reads drop theirs.
    pub pattern: Option<u32>,
    /// No Snoop attribute.
    pub no_snoop: bool,
    /// Relaxed Ordering attribute.
    pub relaxed: bool,
    /// ID-based Ordering attribute.
    pub ido: bool,
    /// Address Type field, 0 to 3.
    pub at: u8,
    /// Traffic Class.
    pub tc: u8,
    /// PASID prefix.
    pub pasid: Option<Pasid>,
    /// Requester ID to lie with.
    pub spoof: Option<Bdf>,
    /// MSI-X vector to interrupt by when complete, 0 to 7.
    pub irq: Option<u8>,
}

impl Descriptor {
    /// A transfer with plain attributes from or to the pattern generator.
    #[must_use]
    pub fn pattern(id: u16, write: bool, addr: DmaAddr, len: u32, seed: u32) -> Self {
        Self {
            pattern: Some(seed),
            ..Self::contiguous(id, write, addr, len, addr.0 as u32 & 3)
        }
    }

    /// A transfer with plain attributes between contiguous memory and the device's local memory
    /// at offset `local`.
    #[must_use]
    pub fn contiguous(id: u16, write: bool, addr: DmaAddr, len: u32, local: u32) -> Self {
        Self::new(id, write, (addr, Mode::Contiguous), len, local)
    }

    /// A transfer with plain attributes between the memory that two PRP entries lead to and the
    /// device's local memory at offset `local`.
    #[must_use]
    pub fn prp(id: u16, write: bool, prp: [DmaAddr; 2], len: u32, local: u32) -> Self {
        let [first, second] = prp;
        Self::new(id, write, (first, Mode::Prp { second }), len, local)
    }

    /// A transfer with plain attributes between the memory that an SGL descriptor leads to and
    /// the device's local memory at offset `local`.
    #[must_use]
    pub fn sgl(id: u16, write: bool, sgl: SglDescriptor, len: u32, local: u32) -> Self {
        let mode = Mode::Sgl {
            kind: sgl.kind,
            len: sgl.len,
        };
        Self::new(id, write, (sgl.addr, mode), len, local)
    }

    fn new(id: u16, write: bool, (addr, mode): (DmaAddr, Mode), len: u32, local: u32) -> Self {
        Self {
            id,
            write,
            addr,
            mode,
            len,
            local,
            pattern: None,
            no_snoop: false,
            relaxed: false,
            ido: false,
            at: 0,
            tc: 0,
            pasid: None,
            spoof: None,
            irq: None,
        }
    }

    /// DESC_ADDR2.
    fn addr2(&self) -> u64 {
        match self.mode {
            Mode::Contiguous => 0,
            Mode::Prp { second } => second.0,
            Mode::Sgl { kind, len } => SglDescriptor::new(kind, self.addr, len).to_words()[1],
        }
    }

    fn ctrl(&self) -> u64 {
        let mut c = u64::from(self.write)
            | u64::from(self.pattern.is_some()) << 1
            | u64::from(self.at & 3) << 2
            | u64::from(self.no_snoop) << 4
            | u64::from(self.relaxed) << 5
            | u64::from(self.ido) << 6
            | u64::from(self.spoof.is_some()) << 10
            | u64::from(self.tc & 7) << 16
            | match self.mode {
                Mode::Contiguous => 0,
                Mode::Prp { .. } => 1 << 20,
                Mode::Sgl { .. } => 2 << 20,
            };
        if let Some(v) = self.irq {
            c |= 1 << 11 | u64::from(v & 7) << 12;
        }
        if let Some(p) = self.pasid {
            c |= 1 << 7
                | u64::from(p.privileged) << 8
                | u64::from(p.execute) << 9
                | u64::from(p.pasid & 0xf_ffff) << 32;
        }
        c
    }
}

/// End of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The descriptor's name.
    pub id: u16,
    /// Worst status of its completions; `None` for a completion timeout.
    pub status: Option<CplStatus>,
    /// Why its list ended it early; with [`ListError::DataTransfer`], `status` is that of the
    /// list's read.
    pub list: Option<ListError>,
}

impl Completion {
    /// Whether everything was transferred.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status == Some(CplStatus::Success) && self.list.is_none()
    }
}

/// Bytes that the pattern generator writes at `[addr, addr + buf.len())` with `seed`.
pub fn pattern_bytes(addr: DmaAddr, seed: u32, buf: &mut [u8]) {
    for (i, b) in buf.iter_mut().enumerate() {
        let a = addr.0.wrapping_add(i as u64);
        let mut x = (a >> 2) as u32 ^ seed;
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        *b = x.to_le_bytes()[a as usize & 3];
    }
}

/// One endpoint as its driver sees it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The function.
    pub bdf: Bdf,
    regs: PhysAddr,
    /// CPU physical address of its memory BAR.
    pub memory: PhysAddr,
    /// Transfers queued and not yet seen complete.
    pub outstanding: usize,
}

impl Endpoint {
    /// The endpoint whose BAR0 and BAR2 are at these physical addresses.
    #[must_use]
    pub fn new(bdf: Bdf, regs: PhysAddr, memory: PhysAddr) -> Self {
        Self {
            bdf,
            regs,
            memory,
            outstanding: 0,
        }
    }

    /// Queues a transfer.
    ///
    /// # Errors
    /// When the device does not answer.
    pub fn submit(&mut self, m: &mut dyn Machine, d: &Descriptor) -> Result<(), AccessError> {
        let r = self.regs;
        m.mmio_write(r.offset(reg::DESC_ADDR), 8, d.addr.0)?;
        if d.mode != Mode::Contiguous {
            m.mmio_write(r.offset(reg::DESC_ADDR2), 8, d.addr2())?;
        }
        let len = u64::from(d.len) | u64::from(d.local) << 32;
        m.mmio_write(r.offset(reg::DESC_LEN), 8, len)?;
        m.mmio_write(r.offset(reg::DESC_CTRL), 8, d.ctrl())?;
        let spoof = d.spoof.map_or(0, |b| u64::from(b.0));
        let seed = u64::from(d.pattern.unwrap_or(0));
        m.mmio_write(r.offset(reg::DESC_AUX), 8, spoof | seed << 32)?;
        m.mmio_write(r.offset(reg::DOORBELL), 8, u64::from(d.id))?;
        self.outstanding += 1;
        Ok(())
    }

    /// Takes the oldest completion record, if there is one.
    ///
    /// # Errors
    /// When the device does not answer.
    pub fn poll(&mut self, m: &mut dyn Machine) -> Result<Option<Completion>, AccessError> {
        let v = m.mmio_read(self.regs.offset(reg::COMPLETION), 8)?;
        if v >> 63 == 0 {
            return Ok(None);
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        let status = match (v >> 16 & 7) as u8 {
            7 => None,
            s => Some(CplStatus::from_bits(s)),
        };
        Ok(Some(Completion {
            id: v as u16,
            status,
            list: ListError::from_code((v >> 24) as u8),
        }))
    }

    /// Completions that the device received and could not use.
    ///
    /// # Errors
    /// When the device does not answer.
    pub fn malformed(&self, m: &mut dyn Machine) -> Result<u32, AccessError> {
        Ok((m.mmio_read(self.regs.offset(reg::COUNTS), 8)? >> 32) as u32)
    }

    /// Whether the engine has nothing to do.
    ///
    /// # Errors
    /// When the device does not answer.
    pub fn idle(&self, m: &mut dyn Machine) -> Result<bool, AccessError> {
        Ok(m.mmio_read(self.regs.offset(reg::STATUS), 8)? >> 31 & 1 != 0)
    }
}
