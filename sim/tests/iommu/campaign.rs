//! Random traffic while the tables change under it.

use std::collections::BTreeMap;

use rand::RngExt;
use tlproof_golden::iommu::{AtsFlags, Outcome, Request, TransactionType};

use crate::bench::{Bench, CQ_ENTRIES, Format, command, reg};
use crate::tables::{Directory, SV39, SV48, SV57, Space, pte, tc};

/// Those that fit 1LVL, then 2LVL, then 3LVL.
const DEVICES: [u32; 7] = [1, 0x10, 0x7f, 0x80, 0x1234, 0x1_0203, 0xff_0001];

/// No main memory there.
const VACANT: u64 = 0x1000_0000;

/// How many requests had which outcome.
#[derive(Default)]
struct Coverage {
    causes: BTreeMap<u16, u32>,
    pages: BTreeMap<(u64, u8), u32>,
    stale: u32,
}

struct Campaign {
    bench: Bench,
    directory: Directory,
    spaces: Vec<Space>,
    pages: Vec<u64>,
    mode: u64,
    /// A directory entry that is broken, and its good value.
    broken: Option<(u64, u64)>,
    fence: Option<(u64, u32)>,
    seen: Coverage,
    submitted: u32,
}

impl Campaign {
    fn new(seed: u64, format: Format) -> Self {
        let mut bench = Bench::with(seed, format);
        let mut directory = Directory::new(&mut bench);
        let spaces: Vec<Space> = [SV39, SV48, SV57, SV39, SV48, SV57]
            .iter()
            .zip(1..)
            .map(|(&mode, pscid)| Space::new(&mut bench, pscid, mode))
            .collect();
        // Canonical in Sv39, twice, in Sv48 only, in Sv57 only.
        let regions = [
            0x0000_0012_4000_0000,
            0xffff_ffff_c000_0000,
            0x0000_7abc_8000_0000,
            0xff12_3456_0000_0000,
        ];
        let offsets = [0, 0x1000, 0x7000, 0x1_0000, 0x20_3000, 0x4060_5000];
        let pages = regions
            .iter()
            .flat_map(|r| offsets.map(|o| r | o))
            .collect();
        for device in DEVICES {
            directory.context(&mut bench, device);
        }
        let mut campaign = Self {
            bench,
            directory,
            spaces,
            pages,
            mode: 4,
            broken: None,
            fence: None,
            seen: Coverage::default(),
            submitted: 0,
        };
        for device in DEVICES {
            campaign.change_context(device, true);
        }
        for _ in 0..120 {
            campaign.change_page();
        }
        campaign.directory.activate(&mut campaign.bench, 3);
        campaign
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.bench.rng.random_ratio(percent, 100)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.bench.rng.random_range(0..from.len())]
    }

    fn request(&mut self) -> Request {
        use TransactionType as T;
        let pages = self.pages.clone();
        let mut iova = self.pick(&pages) | self.bench.rng.random_range(0..4096);
        if self.chance(5) {
            // Elsewhere in a larger page.
            iova ^= self.bench.rng.random::<u64>() & 0x3fff_f000;
        }
        if self.chance(2) {
            iova ^= 1 << self.bench.rng.random_range(30..64);
        }
        let device_id = if self.chance(2) {
            self.bench.rng.random_range(0..1 << 24)
        } else {
            self.pick(&DEVICES)
        };
        let ttyp = match self.bench.rng.random_range(0..100) {
            0..48 => T::UntranslatedRead,
            48..88 => T::UntranslatedWrite,
            88..96 => T::UntranslatedExecute,
            96 => T::TranslatedRead,
            97 => T::TranslatedWrite,
            98 => T::TranslatedExecute,
            _ => T::AtsTranslation,
        };
        let process_id = self
            .chance(4)
            .then(|| self.bench.rng.random_range(0..1 << 20));
        Request {
            ttyp,
            device_id,
            process_id,
            privileged: process_id.is_some() && self.chance(50),
            iova,
            ats: AtsFlags::default(),
        }
    }

    /// A leaf for `level`, mostly a good one.
    fn leaf(&mut self, level: u32) -> u64 {
        let rng = &mut self.bench.rng;
        let mut ppn = if rng.random_bool(0.5) {
            rng.random_range(0x9_0000..0x10_0000)
        } else {
            rng.random::<u64>() >> 20
        };
        if rng.random_ratio(95, 100) {
            ppn &= !((1 << (9 * level)) - 1);
        }
        let mut leaf = ppn << 10 | pte::ALL;
        if rng.random_bool(0.25) {
            let permissions = [pte::R, pte::X, pte::R | pte::W, pte::R | pte::X];
            leaf &= !(pte::R | pte::W | pte::X);
            leaf |= permissions[rng.random_range(0..permissions.len())];
        }
        if rng.random_bool(0.25) {
            leaf |= pte::G;
        }
        // The bits of software.
        leaf |= rng.random_range(0..4) << 8;
        leaf |= rng.random_range(0..3) << pte::PBMT;
        if level == 0 && rng.random_bool(0.3) {
            leaf = leaf & !(0xf << 10) | 8 << 10 | pte::N;
        }
        if rng.random_ratio(15, 100) {
            match rng.random_range(0..10) {
                0 => leaf &= !pte::V,
                1 => leaf = leaf & !(pte::R | pte::X) | pte::W,
                2 => leaf &= !pte::U,
                3 => leaf &= !pte::A,
                4 | 5 => leaf &= !pte::D,
                6 => leaf |= 3 << pte::PBMT,
                7 => leaf |= 1 << rng.random_range(54..61),
                8 => leaf ^= pte::N,
                _ => leaf &= !(pte::R | pte::W | pte::X),
            }
        }
        leaf
    }

    /// Changes a mapping and returns its address space and address.
    fn change_page(&mut self) -> (u32, u64) {
        let (spaces, pages) = (self.spaces.clone(), self.pages.clone());
        let space = self.pick(&spaces);
        let iova = self.pick(&pages);
        let level = match self.bench.rng.random_range(0..100) {
            0..75 => 0,
            75..87 => 1,
            87..94 => 2,
            94..98 => 3,
            _ => 4,
        };
        let level = level.min(space.levels() - 1);
        if level > 0 && self.chance(25) {
            // A pointer with an odd bit.
            let addr = space.entry(&mut self.bench, iova, level, 0);
            let page = self.bench.page();
            let bit = self.pick(&[5, 5, 5, 8, 4, 6, 7, 54, 60, 61, 62, 63]);
            let target = if self.chance(20) { VACANT } else { page };
            self.bench.store(addr, pte::at(target, pte::V | 1 << bit));
        } else {
            let leaf = self.leaf(level);
            space.map(&mut self.bench, iova, level, leaf);
        }
        (space.pscid, iova)
    }

    fn change_context(&mut self, device: u32, good: bool) {
        let spaces = self.spaces.clone();
        let mut context = self.pick(&spaces).context();
        if self.chance(15) {
            context[0] |= tc::DTF;
        }
        if self.chance(10) {
            // For custom use, and ignored while iohgatp is Bare.
            context[0] |= 0xa5 << 24;
            context[1] |= 0x123;
        }
        match self.bench.rng.random_range(0..100) {
            0..8 => context[3] = 0,
            8..13 => {
                context[0] |= tc::PDTV;
                context[3] = 0;
            }
            13..16 if !good => {
                // A PSCID of its own: one address space has one root.
                context[2] = 0xf_ffff << 12;
                context[3] = context[3] >> 60 << 60 | VACANT >> 12;
            }
            16..19 if !good => context[0] &= !tc::V,
            19..32 if !good => {
                let word = self.bench.rng.random_range(0..5);
                match word {
                    0 => {
                        let bits = [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 23, 32, 63];
                        context[0] ^= 1 << self.pick(&bits);
                    }
                    1 => context[1] |= self.pick(&[1, 7, 8, 9, 10, 11, 15]) << 60,
                    2 => context[2] |= 1 << self.pick(&[0, 11, 32, 39, 40, 52, 63]),
                    3 => context[3] |= 1 << self.pick(&[44, 50, 59]),
                    _ => {
                        let mode = self.pick(&[1, 2, 3, 7, 11, 12, 13, 14, 15]);
                        context[3] = context[3] << 4 >> 4 | mode << 60;
                    }
                };
            }
            _ => {}
        }
        self.directory.set(&mut self.bench, device, context);
        if self.bench.format == Format::Extended {
            let msi = self.msi_words(good);
            self.directory.set_msi(&mut self.bench, device, msi);
        }
    }

    /// MSI address translation, mostly off: whatever else the fields hold is ignored then, unless a
    /// reserved bit is set.
    fn msi_words(&mut self, good: bool) -> [u64; 4] {
        let mut words = [0; 4];
        match self.bench.rng.random_range(0..100) {
            0..10 => words[0] = 0x8_0000,
            10..20 => words[1] = (1 << 52) - 1,
            20..30 => words[2] = 0x2_8000,
            30..36 if !good => words[0] = self.pick(&[2, 7, 15]) << 60,
            36..40 if !good => words[0] = 1 << self.pick(&[44, 50, 59]),
            40..44 if !good => words[1] = 1 << self.pick(&[52, 60, 63]),
            44..48 if !good => words[2] = 1 << self.pick(&[52, 60, 63]),
            48..52 if !good => words[3] = 1 << self.pick(&[0, 31, 63]),
            _ => {}
        }
        words
    }

    /// Breaks a non-leaf directory entry, or mends the broken one.
    fn change_directory(&mut self) {
        if let Some((addr, good)) = self.broken.take() {
            self.bench.store(addr, good);
            return;
        }
        let pointers = self.directory.pointers.clone();
        let (addr, good) = self.pick(&pointers);
        let bad = match self.bench.rng.random_range(0..3) {
            0 => good & !1,
            1 => good | 1 << self.pick(&[1, 5, 9, 54, 63]),
            _ => pte::at(VACANT, 1),
        };
        self.bench.store(addr, bad);
        self.broken = Some((addr, good));
    }

    fn change_ddtp(&mut self) {
        // A DID operand must fit the mode that its command meets.
        self.bench.poll_head();
        self.mode = self.pick(&[0, 1, 2, 3, 3, 4, 4, 4, 4]);
        let root = match self.mode {
            0 | 1 => 0,
            mode => self.directory.roots[mode as usize - 2],
        };
        self.bench.set_ddtp(self.mode, root);
        if self.chance(70) {
            self.invalidate(&[command::iodir(None)]);
        }
    }

    /// Hands over commands if there is room, at times with a fence.
    fn invalidate(&mut self, commands: &[command::Command]) {
        let head = self.bench.read(reg::CQH, 4) as u32;
        let used = (self.bench.tail + CQ_ENTRIES - head) % CQ_ENTRIES;
        if used + 8 > CQ_ENTRIES {
            return;
        }
        let mut commands = commands.to_vec();
        match self.bench.rng.random_range(0..4) {
            0 => commands.push(command::fence(None, self.chance_of_global())),
            1 if self.fence.is_none() => {
                let global = self.chance_of_global();
                let (fence, addr, data) = self.bench.fence(global);
                commands.push(fence);
                self.fence = Some((addr, data));
            }
            _ => {}
        }
        self.bench.submit(&commands);
    }

    fn chance_of_global(&mut self) -> bool {
        self.chance(40)
    }

    fn fits(&self, device: u32) -> bool {
        match self.mode {
            2 => device < 1 << self.directory.low_bits(),
            3 => device < 1 << (self.directory.low_bits() + 9),
            _ => true,
        }
    }

    fn step(&mut self) {
        match self.bench.rng.random_range(0..100) {
            0..58 => {
                for _ in 0..self.bench.rng.random_range(1..8) {
                    let request = self.request();
                    self.bench.send(request);
                    self.submitted += 1;
                }
            }
            58..75 => {
                let (pscid, iova) = self.change_page();
                let command = match self.bench.rng.random_range(0..10) {
                    0..5 => command::iotinval(Some(pscid), Some(iova)),
                    5 => command::iotinval(None, Some(iova)),
                    6 => command::iotinval(Some(pscid), None),
                    7 => command::iotinval(None, None),
                    // Not what has changed.
                    8 => command::iotinval(Some(pscid % 6 + 1), Some(iova)),
                    _ => return,
                };
                self.invalidate(&[command]);
            }
            75..82 => {
                let device = self.pick(&DEVICES);
                self.change_context(device, false);
                let named = self.pick(&[Some(device), Some(device), Some(1), None]);
                if self.chance(80) {
                    let named = named.filter(|&d| self.fits(d));
                    self.invalidate(&[command::iodir(named)]);
                }
            }
            82..84 => {
                self.change_directory();
                if self.chance(80) {
                    self.invalidate(&[command::iodir(None)]);
                }
            }
            84 => self.change_ddtp(),
            85..90 => {
                self.bench.read(reg::CQH, 4);
            }
            90..94 => {
                if let Some((addr, data)) = self.fence
                    && self.bench.fence_seen(addr, data)
                {
                    self.fence = None;
                }
            }
            94..98 => self.compare_faults(),
            _ => {
                self.bench
                    .submit(&[command::iotinval(None, None), command::iodir(None)]);
                self.bench.sync(&[]);
            }
        }
        if self.mode < 2 && self.chance(10) {
            self.change_ddtp();
        }
        if self.bench.judge.fault_records().count() > 200 {
            self.compare_faults();
        }
        let cycles = self.bench.rng.random_range(0..40);
        self.bench.run(cycles);
        while self.bench.requests.len() > 64 {
            self.bench.cycle();
        }
        self.count();
    }

    fn compare_faults(&mut self) {
        let records = self.bench.take_faults();
        let wrong = self.bench.judge.compare_fault_queue(&records);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    fn count(&mut self) {
        for answer in std::mem::take(&mut self.bench.answers) {
            let outcome = match answer.verdict {
                Ok(outcome) => outcome,
                Err(mismatch) => {
                    let now = self
                        .bench
                        .judge
                        .translate(&self.bench.memory, &answer.request);
                    self.bench.fail(&format!(
                        "{mismatch}\n{:x?}\n{:x?}\nnow {now:x?}",
                        answer.request, answer.actual
                    ));
                }
            };
            match outcome {
                Outcome::Ok(t) => {
                    *self
                        .seen
                        .pages
                        .entry((t.page_size, t.pbmt as u8))
                        .or_default() += 1;
                }
                Outcome::Fault(fault) => *self.seen.causes.entry(fault.cause()).or_default() += 1,
                Outcome::Completion(c) => panic!("{c:?} without ATS"),
            }
            let now = self
                .bench
                .judge
                .translate(&self.bench.memory, &answer.request);
            self.seen.stale += u32::from(now != outcome);
        }
    }

    fn run(mut self, requests: u32) -> Coverage {
        while self.submitted < requests {
            self.step();
        }
        self.bench.settle();
        self.count();
        self.bench.check_faults();
        self.seen
    }
}

#[test]
fn random_requests_under_changing_tables() {
    for format in [Format::Base, Format::Extended] {
        random_requests(format);
    }
}

fn random_requests(format: Format) {
    let Coverage {
        causes,
        pages,
        stale,
    } = Campaign::new(1, format).run(20_000);
    println!("{format:?}: causes {causes:?}, pages {pages:x?}, stale {stale}");
    for cause in [1, 5, 7, 12, 13, 15, 256, 257, 258, 259, 260] {
        assert!(causes.contains_key(&cause), "no fault {cause}");
    }
    for size in [12, 16, 21, 30, 39, 48] {
        let seen = pages.keys().any(|&(s, _)| s == 1 << size);
        assert!(seen, "no page of 2^{size} bytes");
    }
    for pbmt in 0..3 {
        assert!(pages.contains_key(&(4096, pbmt)), "no PBMT {pbmt}");
    }
    assert!(stale > 0, "no answer from a cache that was out of date");
}

/// More tables and orders of events; `IOMMU_SEEDS` sets how many.
#[test]
fn many_seeds() {
    let count = std::env::var("IOMMU_SEEDS").ok();
    let count = count.and_then(|n| n.parse().ok()).unwrap_or(16);
    for seed in 100..100 + count {
        let format = [Format::Base, Format::Extended][seed as usize % 2];
        println!("seed {seed}, {format:?}");
        let mut campaign = Campaign::new(seed, format);
        campaign.bench.memory_latency = [0, 3, 20, 100][seed as usize % 4];
        campaign.bench.drain_latency = [0, 10, 300][seed as usize % 3];
        campaign.run(3_000);
    }
}
