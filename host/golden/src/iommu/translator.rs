//! Translation as a pure function of registers and memory, without caches.

use super::context::DeviceContext;
use super::walk::{Entry, Space, Tables, Walker};
use super::{Capabilities, Choices, MemoryFault, Request, Response, SystemMemory};

/// What a translation depends on beside memory.
///
/// ```
/// use tlproof_golden::iommu::{
///     Capabilities, Choices, FlatMemory, Outcome, Request, Translator,
/// };
///
/// let mut memory = FlatMemory::new(0x8000_0000, 1 << 20);
/// // A directory of one level; device 5 has an Sv39 table with one page of 1 GiB.
/// let (directory, table) = (0x8000_1000, 0x8000_2000);
/// memory.set(directory + 5 * 32, 1);
/// memory.set(directory + 5 * 32 + 24, 8 << 60 | table >> 12);
/// memory.set(table + 3 * 8, 0x4000_0000 >> 12 << 10 | 0xd7); // V R W U A D
///
/// let mut iommu = Translator::new(Capabilities::decode(56 << 32 | 1 << 9), Choices::default());
/// iommu.ddtp = directory >> 12 << 10 | 2;
/// let response = iommu.lookup(&memory, &Request::untranslated(5, 0xc012_3456, true));
/// let Outcome::Ok(t) = response.outcome else { panic!("{response:?}") };
/// assert_eq!((t.spa.0, t.page_size), (0x4012_3456, 1 << 30));
/// ```
#[derive(Clone, Debug)]
pub struct Translator {
    /// What the IOMMU implements.
    pub capabilities: Capabilities,
    /// What it chose.
    pub choices: Choices,
    /// Value of `ddtp`.
    pub ddtp: u64,
    /// Value of `fctl`.
    pub fctl: u32,
    /// Value of `iommu_qosid`.
    pub qosid: u32,
}

impl Translator {
    /// With all registers 0: everything is refused until [`Self::ddtp`] is set.
    #[must_use]
    pub const fn new(capabilities: Capabilities, choices: Choices) -> Self {
        Self {
            capabilities,
            choices,
            ddtp: 0,
            fctl: 0,
            qosid: 0,
        }
    }

    pub(super) fn walker(&self) -> Walker<'_> {
        Walker {
            caps: &self.capabilities,
            choices: &self.choices,
            fctl: self.fctl,
            qosid: self.qosid,
        }
    }

    /// Translates a request by memory as it is, and updates A and D bits there.
    pub fn translate<M: SystemMemory>(&self, memory: &mut M, request: &Request) -> Response {
        let mut tables = Live {
            memory,
            ddtp: self.ddtp,
        };
        self.walker().translate(&mut tables, request)
    }

    /// The context of a device, or none in mode Bare.
    ///
    /// # Errors
    /// The cause for which there is none.
    pub(super) fn locate<M: SystemMemory>(
        &self,
        memory: &M,
        device_id: u32,
    ) -> Result<Option<DeviceContext>, u16> {
        let request = Request::untranslated(device_id, 0, false);
        self.walker()
            .device_context(&mut Overlay::new(memory, self.ddtp), &request)
    }

    /// The same, without a change of memory: [`Response::updates`] tells what it would be.
    pub fn lookup<M: SystemMemory>(&self, memory: &M, request: &Request) -> Response {
        self.walker()
            .translate(&mut Overlay::new(memory, self.ddtp), request)
    }
}

pub(super) fn read<const N: usize>(
    memory: &impl SystemMemory,
    addr: u64,
) -> Result<[u64; N], MemoryFault> {
    let mut words = [0; N];
    let mut poisoned = false;
    for (word, at) in words.iter_mut().zip((addr..).step_by(8)) {
        match memory.load(at) {
            Ok(value) => *word = value,
            // The access is one: refused as a whole before there is data.
            Err(MemoryFault::Access) => return Err(MemoryFault::Access),
            Err(MemoryFault::Poison) => poisoned = true,
        }
    }
    if poisoned {
        return Err(MemoryFault::Poison);
    }
    Ok(words)
}

/// Memory that the walk changes.
struct Live<'a, M> {
    memory: &'a mut M,
    ddtp: u64,
}

impl<M: SystemMemory> Tables for Live<'_, M> {
    fn ddtp(&mut self, _: &Request) -> u64 {
        self.ddtp
    }

    fn entry<const N: usize>(&mut self, _: Entry, addr: u64) -> Result<[u64; N], MemoryFault> {
        read(self.memory, addr)
    }

    fn update(&mut self, addr: u64, old: u64, new: u64) -> Result<bool, MemoryFault> {
        self.memory.compare_and_set(addr, old, new)
    }

    fn first_stage(&mut self, _: Space, fsc: u64) -> u64 {
        fsc
    }

    fn second_stage(&mut self, iohgatp: u64) -> u64 {
        iohgatp
    }
}

/// Memory as it is, with the changes of one walk on top.
pub(super) struct Overlay<'a, M> {
    memory: &'a M,
    ddtp: u64,
    written: Vec<(u64, u64)>,
}

impl<'a, M> Overlay<'a, M> {
    pub const fn new(memory: &'a M, ddtp: u64) -> Self {
        Self {
            memory,
            ddtp,
            written: Vec::new(),
        }
    }
}

impl<M: SystemMemory> Tables for Overlay<'_, M> {
    fn ddtp(&mut self, _: &Request) -> u64 {
        self.ddtp
    }

    fn entry<const N: usize>(&mut self, _: Entry, addr: u64) -> Result<[u64; N], MemoryFault> {
        let mut words = read(self.memory, addr)?;
        for (at, value) in &self.written {
            let word = at
                .checked_sub(addr)
                .and_then(|offset| words.get_mut((offset / 8) as usize));
            if let Some(word) = word {
                *word = *value;
            }
        }
        Ok(words)
    }

    fn update(&mut self, addr: u64, _: u64, new: u64) -> Result<bool, MemoryFault> {
        self.written.push((addr, new));
        Ok(true)
    }

    fn first_stage(&mut self, _: Space, fsc: u64) -> u64 {
        fsc
    }

    fn second_stage(&mut self, iohgatp: u64) -> u64 {
        iohgatp
    }
}
