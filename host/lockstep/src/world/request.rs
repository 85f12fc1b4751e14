//! Requests of devices, most of which run into something.

use rand::RngExt;
use tlproof_golden::iommu::{AtsFlags, PageRequest, Request, TransactionType};

use super::{Device, World};

impl World {
    /// A request.
    pub fn request(&mut self) -> Request {
        use TransactionType as T;
        let ttyp = match self.rng.random_range(0..100) {
            0..36 => T::UntranslatedRead,
            36..64 => T::UntranslatedWrite,
            64..73 => T::UntranslatedExecute,
            73..87 => T::AtsTranslation,
            87..92 => T::TranslatedRead,
            92..97 => T::TranslatedWrite,
            _ => T::TranslatedExecute,
        };
        let device = self.random_device();
        let process_id = self.random_process(device.as_ref());
        let iova = self.random_address(device.as_ref(), process_id, ttyp.is_translated());
        let ats = ttyp == T::AtsTranslation;
        Request {
            ttyp,
            device_id: self.random_id(device.as_ref()),
            process_id,
            privileged: process_id.is_some() && self.chance(40),
            iova,
            ats: AtsFlags {
                no_write: ats && self.chance(50),
                execute: ats && process_id.is_some() && self.chance(40),
                // The bridge clears CXL.io for other devices.
                cxl: true,
            },
        }
    }

    /// A message of a device.
    pub fn page_request(&mut self) -> PageRequest {
        let device = self.random_device();
        let process_id = self.random_process(device.as_ref());
        let [read, write, last] = self.rng.random();
        PageRequest {
            device_id: self.random_id(device.as_ref()),
            process_id,
            privileged: process_id.is_some() && self.chance(50),
            execute: process_id.is_some() && self.chance(50),
            read,
            write,
            last,
            group: self.rng.random_range(0..512),
            address: self.rng.random::<u64>() & !0xfff,
        }
    }

    /// A device of the machine or any.
    pub fn device_id(&mut self) -> u32 {
        let device = self.random_device();
        self.random_id(device.as_ref())
    }

    fn random_device(&mut self) -> Option<Device> {
        if self.devices.is_empty() || self.chance(2) {
            return None;
        }
        let index = self.rng.random_range(0..self.devices.len());
        Some(self.devices[index].clone())
    }

    fn random_id(&mut self, device: Option<&Device>) -> u32 {
        match device {
            Some(device) => device.id,
            None => self.rng.random_range(0..1 << 24),
        }
    }

    fn random_process(&mut self, device: Option<&Device>) -> Option<u32> {
        let known: Vec<u32> =
            device.map_or_else(Vec::new, |d| d.processes.iter().map(|p| p.id).collect());
        let (often, wild) = if known.is_empty() { (4, 100) } else { (70, 6) };
        if !self.chance(often) {
            return None;
        }
        if self.chance(wild) {
            let bits = self.pick(&[8, 17, 20]).unwrap_or(20);
            return Some(self.rng.random_range(0..1 << bits));
        }
        self.pick(&known)
    }

    fn random_address(
        &mut self,
        device: Option<&Device>,
        process_id: Option<u32>,
        translated: bool,
    ) -> u64 {
        let random: u64 = self.rng.random();
        let Some(device) = device else {
            return random;
        };
        let space = match process_id {
            _ if translated => None,
            None if device.processes.is_empty() => device.space,
            id => {
                let id = id.unwrap_or(0);
                let process = device.processes.iter().find(|p| p.id == id);
                process.and_then(|p| p.space)
            }
        };
        let mut targets = match (space, device.vm) {
            (Some(space), _) => self.spaces[space].targets.clone(),
            (None, Some(vm)) => self.vms[vm].targets.clone(),
            (None, None) => vec![random >> 8, random >> 30],
        };
        if let (None, Some(files)) = (space, device.interrupts) {
            let page = files.pattern | self.rng.random::<u64>() & files.mask;
            targets.push(page << 12);
            // The window of the guest's tables is a good target too.
            targets.push(page << 12 ^ 1 << 20);
            if self.chance(20) {
                return page << 12 | random & 4;
            }
        }
        let mut address = self.pick(&targets).unwrap_or(random >> 20);
        match self.rng.random_range(0..100) {
            0..80 => {}
            80..90 => address ^= random & 0x1f_f000,
            90..96 => address ^= random & 0x3fff_f000,
            96..98 => address ^= 1 << self.rng.random_range(30..64),
            // Sign bits that are not those of the scheme.
            _ => address ^= u64::MAX << self.pick(&[32, 39, 47, 48, 57]).unwrap_or(48),
        }
        let offset = if self.chance(30) {
            random & 0xff8
        } else {
            random & 0xfff
        };
        // Interrupt identities are written at the start of a page.
        let often = if device.interrupts.is_some() { 40 } else { 5 };
        let offset = if self.chance(often) {
            random & 4
        } else {
            offset
        };
        address & !0xfff | offset
    }
}
