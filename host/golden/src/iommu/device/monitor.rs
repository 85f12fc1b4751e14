//! The hardware performance monitor (IOMMU §5.19 to §5.23).

/// Standard events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Untranslated = 1,
    Translated = 2,
    AtsTranslation = 3,
    TlbMiss = 4,
    DeviceDirectory = 5,
    ProcessDirectory = 6,
    FirstStage = 7,
    SecondStage = 8,
}

/// What a filter can look at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ids {
    pub device_id: u32,
    pub process_id: Option<u32>,
    pub gscid: Option<u32>,
    pub pscid: Option<u32>,
}

const OVERFLOW: u64 = 1 << 63;

#[derive(Clone, Debug)]
pub(super) struct Monitor {
    bits: u32,
    /// `iocountinh`.
    pub inhibit: u32,
    cycles: u64,
    counters: Vec<u64>,
    selectors: Vec<u64>,
}

impl Monitor {
    /// Without counters if there is no monitor.
    pub fn new(counters: usize, bits: u8) -> Self {
        Self {
            bits: u32::from(bits.clamp(32, 64)),
            inhibit: 0,
            cycles: 0,
            counters: vec![0; counters.min(31)],
            selectors: vec![0; counters.min(31)],
        }
    }

    const fn mask(&self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    /// Bits of `iocountinh`.
    fn present(&self) -> u32 {
        (1 << (self.counters.len() + 1)) - 1
    }

    /// `iocountovf`.
    pub fn overflows(&self) -> u32 {
        let selectors = self.selectors.iter().enumerate();
        selectors.fold((self.cycles >> 63) as u32, |bits, (i, s)| {
            bits | ((s >> 63) as u32) << (i + 1)
        })
    }

    /// A register of the monitor by its offset from `iohpmcycles`, and where its value is.
    fn register(&self, offset: u32) -> Option<u64> {
        let index = offset as usize / 8;
        match index {
            0 => Some(self.cycles),
            1..=31 => self.counters.get(index - 1).copied(),
            32..=62 => self.selectors.get(index - 32).copied(),
            _ => None,
        }
    }

    /// Four bytes at `offset` from `iohpmcycles`.
    pub fn read(&self, offset: u32) -> u32 {
        let value = self.register(offset & !7).unwrap_or(0);
        (value >> (8 * (offset & 4))) as u32
    }

    pub fn write(&mut self, offset: u32, value: u32) {
        let Some(old) = self.register(offset & !7) else {
            return;
        };
        let shift = 8 * (offset & 4);
        let new = old & !(0xffff_ffff << shift) | u64::from(value) << shift;
        let mask = self.mask();
        let index = offset as usize / 8;
        match index {
            0 => self.cycles = new & (mask & !OVERFLOW | OVERFLOW),
            1..=31 => self.counters[index - 1] = new & mask,
            _ => {
                // An event that there is not reads as 0.
                let event = new & 0x7fff;
                let legal = if event > 8 { new & !0x7fff } else { new };
                self.selectors[index - 32] = legal;
            }
        }
    }

    pub fn write_inhibit(&mut self, value: u32) {
        self.inhibit = value & self.present();
    }

    /// Clock cycles have passed. Tells whether there is a new overflow.
    pub fn advance(&mut self, cycles: u64) -> bool {
        if self.inhibit & 1 == 1 {
            return false;
        }
        let mask = self.mask() & !OVERFLOW;
        let count = self.cycles & mask;
        let wraps = mask - count < cycles;
        let overflow = self.cycles & OVERFLOW;
        self.cycles = count.wrapping_add(cycles) & mask | overflow;
        if wraps {
            self.cycles |= OVERFLOW;
        }
        wraps && overflow == 0
    }

    /// An event happened `times`. Tells whether a counter has newly overflowed.
    pub fn count(&mut self, event: Event, times: u32, ids: &Ids) -> bool {
        let mask = self.mask();
        let mut new = false;
        for (i, selector) in self.selectors.iter_mut().enumerate() {
            if self.inhibit >> (i + 1) & 1 == 1 || !matches(*selector, event, ids) {
                continue;
            }
            let counter = &mut self.counters[i];
            let wraps = mask - *counter < u64::from(times);
            *counter = counter.wrapping_add(times.into()) & mask;
            if wraps {
                new |= *selector & OVERFLOW == 0;
                *selector |= OVERFLOW;
            }
        }
        new
    }
}

/// Whether a counter with this selector counts the event.
fn matches(selector: u64, event: Event, ids: &Ids) -> bool {
    let bit = |n: u32| selector >> n & 1 == 1;
    if selector & 0x7fff != event as u64 {
        return false;
    }
    let by_context = bit(62);
    if by_context
        && !matches!(
            event,
            Event::TlbMiss | Event::FirstStage | Event::SecondStage
        )
    {
        return false;
    }
    let (wide, narrow) = if by_context {
        (ids.gscid, ids.pscid)
    } else {
        (Some(ids.device_id), ids.process_id)
    };
    let wanted = (selector >> 36) as u32 & 0xff_ffff;
    // All bits up to the lowest that is 0 (IOMMU §5.23, DMASK).
    let ignored = if bit(15) {
        wanted ^ wanted.wrapping_add(1)
    } else {
        0
    };
    let first = !bit(61) || wide.is_some_and(|id| (id ^ wanted) & !ignored & 0xff_ffff == 0);
    let second = !bit(60) || narrow == Some((selector >> 16) as u32 & 0xf_ffff);
    first && second
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids {
        device_id: 0x12_3407,
        process_id: Some(5),
        gscid: Some(9),
        pscid: None,
    };

    fn selector(event: u64, bits: u64, wide: u64, narrow: u64) -> u64 {
        event | bits | wide << 36 | narrow << 16
    }

    #[test]
    fn filters() {
        const PV: u64 = 1 << 60;
        const DV: u64 = 1 << 61;
        const IDT: u64 = 1 << 62;
        const DMASK: u64 = 1 << 15;
        for (word, event, counts) in [
            (selector(1, 0, 0, 0), Event::Untranslated, true),
            (selector(1, 0, 0, 0), Event::Translated, false),
            (selector(1, PV, 0, 5), Event::Untranslated, true),
            (selector(1, PV, 0, 6), Event::Untranslated, false),
            (selector(1, DV, 0x12_3407, 0), Event::Untranslated, true),
            (selector(1, DV, 0x12_3406, 0), Event::Untranslated, false),
            (
                selector(1, DV | DMASK, 0x12_3403, 0),
                Event::Untranslated,
                true,
            ),
            (
                selector(1, DV | DMASK, 0x12_3401, 0),
                Event::Untranslated,
                false,
            ),
            (selector(1, IDT, 0, 0), Event::Untranslated, false),
            (selector(7, IDT | DV, 9, 0), Event::FirstStage, true),
            (selector(7, IDT | DV, 8, 0), Event::FirstStage, false),
            (selector(7, IDT | PV, 0, 0), Event::FirstStage, false),
        ] {
            assert_eq!(matches(word, event, &IDS), counts, "{word:#x} {event:?}");
        }
    }

    #[test]
    fn overflow_is_new_once() {
        let mut monitor = Monitor::new(2, 32);
        monitor.write(8, u32::MAX);
        monitor.write(256, 1);
        assert!(monitor.count(Event::Untranslated, 1, &IDS));
        assert_eq!(monitor.read(8), 0);
        assert_eq!(monitor.overflows(), 2);
        monitor.write(8, u32::MAX);
        assert!(!monitor.count(Event::Untranslated, 1, &IDS));
        monitor.write_inhibit(u32::MAX);
        assert_eq!(monitor.inhibit, 7);
        assert!(!monitor.count(Event::Untranslated, 1, &IDS));
        assert_eq!(monitor.read(8), 0);
    }
}
