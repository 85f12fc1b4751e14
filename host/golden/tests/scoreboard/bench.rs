//! The enumerated machine that synthetic streams are played to.

use tlproof_golden::memory::CachedMemory;
use tlproof_golden::{
    Config, CpuRequest, Judge, MemRequest, Promise, PromiseId, Scoreboard, Tap, Translated,
};
use tlproof_pcie::{Bdf, Head};

pub const RP: [Bdf; 2] = [Bdf::new(0, 2, 0), Bdf::new(0, 3, 0)];
pub const UP: Bdf = Bdf::new(1, 0, 0);
pub const DN: [Bdf; 2] = [Bdf::new(2, 0, 0), Bdf::new(2, 1, 0)];
pub const EP: [Bdf; 3] = [Bdf::new(3, 0, 0), Bdf::new(4, 0, 0), Bdf::new(5, 0, 0)];
/// BAR 2 of each endpoint.
pub const BAR: [u64; 3] = [0x5000_0000, 0x5010_0000, 0x5800_0000];
pub const BUFFER: u64 = 0x8000_0100;

/// ACS Control.
pub const SV: u32 = 1;
pub const TB: u32 = 1 << 1;
pub const RR: u32 = 1 << 2;
pub const CR: u32 = 1 << 3;
pub const UF: u32 = 1 << 4;
pub const EC: u32 = 1 << 5;
pub const DT: u32 = 1 << 6;

#[derive(Clone)]
pub enum Step {
    Tlp(Tap, Head, Vec<u8>),
    Payload(u8, Vec<u8>),
    Translated(u8, Head, Translated),
    Mem(MemRequest, Vec<u8>),
    Response(u8, Vec<u8>, bool, bool),
    Cpu(CpuRequest),
    Begin(PromiseId),
    End(PromiseId),
}

pub struct Bench {
    pub sb: Scoreboard,
    pub mem: CachedMemory,
    pub cycle: u64,
}

impl Bench {
    /// An enumerated machine whose IOMMU passes everything through.
    pub fn new() -> Self {
        let mut b = Self::with(Config::default());
        b.sb.register_written(&b.mem, 16, 8, 1);
        b.sb.register_read(16, 8, 1);
        b
    }

    /// An enumerated machine whose IOMMU refuses everything.
    pub fn off() -> Self {
        Self::with(Config::default())
    }

    pub fn with(config: Config) -> Self {
        let mem = CachedMemory::new(&config.map);
        let mut sb = Scoreboard::new(config);
        let bridges: [(Bdf, u32, u64, u64); 5] = [
            (RP[0], 0x04_01_00, BAR[0], BAR[0] + 0x1f_ffff),
            (RP[1], 0x05_05_00, BAR[2], BAR[2] + 0xf_ffff),
            (UP, 0x04_02_01, BAR[0], BAR[0] + 0x1f_ffff),
            (DN[0], 0x03_03_02, BAR[0], BAR[0] + 0xf_ffff),
            (DN[1], 0x04_04_02, BAR[1], BAR[1] + 0xf_ffff),
        ];
        for (bdf, buses, base, limit) in bridges {
            sb.config_written(bdf, 0x18, 4, buses);
            sb.config_written(bdf, 0x20, 4, 0xfff0);
            let window = (limit >> 16 & 0xfff0) << 16 | base >> 16 & 0xfff0;
            sb.config_written(bdf, 0x24, 4, window as u32);
            sb.config_written(bdf, 0x04, 2, 6);
            sb.config_written(bdf, 0x48, 2, 0x2020);
        }
        for (bdf, bar) in EP.iter().zip(BAR) {
            sb.config_written(*bdf, 0x18, 4, bar as u32 | 0xc);
            sb.config_written(*bdf, 0x1c, 4, 0);
            sb.config_written(*bdf, 0x04, 2, 6);
            sb.config_written(*bdf, 0x48, 2, 0x2020);
        }
        Self { sb, mem, cycle: 0 }
    }

    pub fn acs(&mut self, port: Bdf, bits: u32) {
        self.sb.config_written(port, 0x106, 2, bits);
    }

    pub fn play(&mut self, steps: &[Step]) {
        for s in steps {
            self.cycle += 1;
            let c = self.cycle;
            match s {
                Step::Tlp(tap, h, p) => {
                    self.sb.tlp(&self.mem, c, *tap, h, p);
                }
                Step::Payload(n, p) => self.sb.payload(*n, p),
                Step::Translated(port, h, t) => {
                    self.sb.translated(&self.mem, c, *port, h, t);
                }
                Step::Mem(r, d) => {
                    self.sb.memory_request(c, r, d);
                }
                Step::Response(tag, d, e, l) => self.sb.memory_response(c, *tag, d, *e, *l),
                Step::Cpu(r) => self.sb.cpu_request(c, r),
                Step::Begin(p) => self.sb.revoke_begin(*p),
                Step::End(p) => self.sb.revoke_end(*p),
            }
        }
    }

    /// Judges and fields of everything found, after quiescence.
    pub fn verdict(&mut self) -> Vec<(Judge, &'static str)> {
        self.sb.quiesce(&self.mem, &[]);
        let v = self.sb.violations();
        v.iter().map(|v| (v.judge, v.field)).collect()
    }

    #[track_caller]
    pub fn clean(&mut self) {
        let v = self.verdict();
        assert!(v.is_empty(), "{:#?}", self.sb.violations());
    }

    #[track_caller]
    pub fn only(&mut self, judge: Judge, field: &str) {
        let v = self.verdict();
        assert_eq!(v, [(judge, field)], "{:#?}", self.sb.violations());
    }

    pub fn promise(&mut self, p: Promise) -> PromiseId {
        self.sb.promise(p)
    }
}
