//! Synthetic streams of tap events: as they should be, and with one thing wrong.

use tlproof_golden::iommu::Status;
use tlproof_golden::memory::CachedMemory;
use tlproof_golden::{
    Config, CpuRequest, Dest, Judge, MemRequest, MemoryKind, Promise, PromiseId, Route, Rule,
    Scoreboard, Tap, Translated,
};
use tlproof_pcie::tlp::{self, AddressType, fmt_type};
use tlproof_pcie::{Bdf, BusAddr, Direction, DmaAddr, Head, MemAttr, MemType, PhysAddr};

const RP: [Bdf; 2] = [Bdf::new(0, 2, 0), Bdf::new(0, 3, 0)];
const UP: Bdf = Bdf::new(1, 0, 0);
const DN: [Bdf; 2] = [Bdf::new(2, 0, 0), Bdf::new(2, 1, 0)];
const EP: [Bdf; 3] = [Bdf::new(3, 0, 0), Bdf::new(4, 0, 0), Bdf::new(5, 0, 0)];
/// BAR 2 of each endpoint.
const BAR: [u64; 3] = [0x5000_0000, 0x5010_0000, 0x5800_0000];
const BUFFER: u64 = 0x8000_0100;

/// ACS Control.
const SV: u32 = 1;
const TB: u32 = 1 << 1;
const RR: u32 = 1 << 2;
const CR: u32 = 1 << 3;
const UF: u32 = 1 << 4;
const EC: u32 = 1 << 5;
const DT: u32 = 1 << 6;

#[derive(Clone)]
enum Step {
    Tlp(Tap, Head, Vec<u8>),
    Payload(u8, Vec<u8>),
    Translated(u8, Head, Translated),
    Mem(MemRequest, Vec<u8>),
    Response(u8, Vec<u8>, bool, bool),
    Cpu(CpuRequest),
    Begin(PromiseId),
    End(PromiseId),
}

struct Bench {
    sb: Scoreboard,
    mem: CachedMemory,
    cycle: u64,
}

impl Bench {
    /// An enumerated machine whose IOMMU passes everything through.
    fn new() -> Self {
        let mut b = Self::with(Config::default());
        b.sb.register_written(&b.mem, 16, 8, 1);
        b.sb.register_read(16, 8, 1);
        b
    }

    /// An enumerated machine whose IOMMU refuses everything.
    fn off() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
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

    fn acs(&mut self, port: Bdf, bits: u32) {
        self.sb.config_written(port, 0x106, 2, bits);
    }

    fn play(&mut self, steps: &[Step]) {
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
    fn verdict(&mut self) -> Vec<(Judge, &'static str)> {
        self.sb.quiesce(&self.mem, &[]);
        let v = self.sb.violations();
        v.iter().map(|v| (v.judge, v.field)).collect()
    }

    #[track_caller]
    fn clean(&mut self) {
        let v = self.verdict();
        assert!(v.is_empty(), "{:#?}", self.sb.violations());
    }

    #[track_caller]
    fn only(&mut self, judge: Judge, field: &str) {
        let v = self.verdict();
        assert_eq!(v, [(judge, field)], "{:#?}", self.sb.violations());
    }

    fn promise(&mut self, p: Promise) -> PromiseId {
        self.sb.promise(p)
    }
}

/// A buffer of a page less 0x100 bytes for endpoint `n`.
fn dram(n: usize) -> Promise {
    Promise {
        device: EP[n],
        dma: DmaAddr(BUFFER),
        size: 0xf00,
        segments: vec![(PhysAddr(BUFFER), 0xf00)],
        direction: Direction::Bidirectional,
        kind: MemoryKind::Dram,
        expect: MemType::WriteBack,
        snoop: true,
        route: Route::Memory,
        via_iommu: true,
        call: "dma_map_phys(buffer)".to_owned(),
    }
}

/// BAR 2 of endpoint `to` for endpoint `n`.
fn peer(n: usize, to: usize, route: Route) -> Promise {
    Promise {
        dma: DmaAddr(BAR[to]),
        size: 0x1000,
        segments: vec![(PhysAddr(BAR[to]), 0x1000)],
        kind: MemoryKind::Mmio,
        expect: MemType::Device,
        snoop: false,
        route,
        call: "dma_map_phys(BAR)".to_owned(),
        ..dram(n)
    }
}

fn request(n: usize, write: bool, addr: u64, len_dw: u16, tag: u16) -> tlp::MemRequest {
    tlp::MemRequest {
        write,
        addr: BusAddr(addr),
        len_dw,
        first_be: 15,
        last_be: if len_dw > 1 { 15 } else { 0 },
        requester: EP[n],
        tag,
        at: AddressType::Untranslated,
        no_snoop: false,
        relaxed: false,
        ido: false,
        tc: 0,
        pasid: None,
    }
}

fn bytes(len_dw: u16, seed: u8) -> Vec<u8> {
    (0..len_dw * 4).map(|i| i as u8 ^ seed).collect()
}

fn attr(mem_type: MemType, r: &tlp::MemRequest) -> MemAttr {
    let wb = mem_type == MemType::WriteBack;
    MemAttr {
        mem_type,
        snoop: wb && !r.no_snoop,
        strong_order: mem_type == MemType::Device || (r.write && !r.relaxed),
    }
}

fn to(dest: Dest, r: &tlp::MemRequest) -> Translated {
    let mem_type = match dest {
        Dest::Memory => MemType::WriteBack,
        _ => MemType::Device,
    };
    Translated {
        status: Status::Ok,
        cause: 0,
        pbmt: 0,
        attr: attr(mem_type, r),
        dest,
        spa: PhysAddr(r.addr.0),
    }
}

fn refused() -> Translated {
    Translated {
        status: Status::UnsupportedRequest,
        cause: 256,
        pbmt: 0,
        attr: attr(MemType::WriteBack, &request(0, false, 0, 1, 0)),
        dest: Dest::None,
        spa: PhysAddr(0),
    }
}

const fn port_of(n: usize) -> u8 {
    (n == 2) as u8
}

fn at_memory(r: &tlp::MemRequest) -> MemRequest {
    MemRequest {
        write: r.write,
        from_iommu: false,
        addr: PhysAddr(r.addr.0),
        len_dw: r.len_dw,
        first_be: r.first_be,
        last_be: r.last_be,
        requester: r.requester,
        tlp_tag: r.tag,
        port_tag: 7,
        attr: attr(MemType::WriteBack, r),
    }
}

/// A write of main memory: endpoint, root port, translation, payload, memory port.
fn write(n: usize, r: &tlp::MemRequest) -> Vec<Step> {
    let h = Head::mem(r);
    let data = bytes(r.len_dw, r.tag as u8);
    vec![
        Step::Tlp(Tap::EpTx(n as u8), h, vec![]),
        Step::Tlp(Tap::RpRx(port_of(n)), h, vec![]),
        Step::Translated(port_of(n), h, to(Dest::Memory, r)),
        Step::Payload(n as u8, data.clone()),
        Step::Mem(at_memory(r), data),
    ]
}

fn completion(
    completer: Bdf,
    request: &Head,
    status: u32,
    (sent, len, total): (u32, u32, u32),
) -> Head {
    let start = request.addr().0 as u32 + request.byte_span().0 as u32 + sent;
    let lower = start & 0x7f;
    let dws = if status == 0 {
        ((start & 3) + len).div_ceil(4)
    } else {
        0
    };
    let fmt = if dws == 0 {
        fmt_type::CPL
    } else {
        fmt_type::CPLD
    };
    let left = total - sent;
    Head {
        hdr: [
            u32::from(fmt) << 24 | request.hdr[0] & 0x00fc_3000 | dws,
            u32::from(completer.0) << 16 | status << 13 | left & 0xfff,
            u32::from(request.requester().0) << 16 | u32::from(request.tag() & 0xff) << 8 | lower,
            0,
        ],
        pfx: None,
    }
}

/// A read of main memory, answered in chunks of these lengths in bytes.
fn read(n: usize, r: &tlp::MemRequest, chunks: &[u32]) -> Vec<Step> {
    let h = Head::mem(r);
    let data = bytes(r.len_dw, 0x5a);
    let (skip, total) = h.byte_span();
    let mut steps = vec![
        Step::Tlp(Tap::EpTx(n as u8), h, vec![]),
        Step::Tlp(Tap::RpRx(port_of(n)), h, vec![]),
        Step::Translated(port_of(n), h, to(Dest::Memory, r)),
        Step::Mem(at_memory(r), vec![]),
        Step::Response(7, data.clone(), false, true),
    ];
    let mut sent = 0;
    for len in chunks {
        let c = completion(Bdf(0), &h, 0, (sent, *len, total as u32));
        let from = (skip as usize + sent as usize) & !3;
        let payload = data[from..from + usize::from(c.len_dw()) * 4].to_vec();
        steps.push(Step::Tlp(Tap::RpTx(port_of(n)), c, vec![]));
        steps.push(Step::Tlp(Tap::EpRx(n as u8), c, payload));
        sent += len;
    }
    steps
}

/// A read that is refused by the bridge.
fn refused_read(n: usize, r: &tlp::MemRequest) -> Vec<Step> {
    let h = Head::mem(r);
    let c = completion(Bdf(0), &h, 1, (0, 0, 4));
    vec![
        Step::Tlp(Tap::EpTx(n as u8), h, vec![]),
        Step::Tlp(Tap::RpRx(port_of(n)), h, vec![]),
        Step::Translated(port_of(n), h, refused()),
        Step::Tlp(Tap::RpTx(port_of(n)), c, vec![]),
        Step::Tlp(Tap::EpRx(n as u8), c, vec![]),
    ]
}

/// A write from endpoint `n` straight to a peer.
fn direct(n: usize, peer: usize, r: &tlp::MemRequest) -> Vec<Step> {
    let h = Head::mem(r);
    let data = bytes(r.len_dw, 1);
    vec![
        Step::Tlp(Tap::EpTx(n as u8), h, data.clone()),
        Step::Tlp(Tap::EpRx(peer as u8), h, data),
    ]
}

/// A write from endpoint `n` to a peer through the bridge.
fn bridged(n: usize, peer: usize, r: &tlp::MemRequest) -> Vec<Step> {
    let h = Head::mem(r);
    let data = bytes(r.len_dw, 1);
    let down = port_of(peer);
    vec![
        Step::Tlp(Tap::EpTx(n as u8), h, data.clone()),
        Step::Tlp(Tap::RpRx(port_of(n)), h, vec![]),
        Step::Translated(port_of(n), h, to(Dest::Peer(down), r)),
        Step::Tlp(Tap::RpTx(down), h, vec![]),
        Step::Tlp(Tap::EpRx(peer as u8), h, data),
    ]
}

fn head(s: &mut Step) -> &mut Head {
    match s {
        Step::Tlp(_, h, _) | Step::Translated(_, h, _) => h,
        _ => panic!("no header"),
    }
}

fn translated(s: &mut Step) -> &mut Translated {
    match s {
        Step::Translated(_, _, t) => t,
        _ => panic!("no translation"),
    }
}

fn memory(s: &mut Step) -> &mut MemRequest {
    match s {
        Step::Mem(r, _) => r,
        _ => panic!("no memory request"),
    }
}

fn payload(s: &mut Step) -> &mut Vec<u8> {
    match s {
        Step::Tlp(_, _, p) | Step::Payload(_, p) | Step::Mem(_, p) => p,
        _ => panic!("no payload"),
    }
}

// Everything as it should be.

#[test]
fn reads_and_writes_of_every_endpoint_are_followed() {
    for n in 0..3 {
        let mut b = Bench::new();
        b.promise(dram(n));
        b.play(&write(n, &request(n, true, BUFFER, 8, 1)));
        b.play(&read(
            n,
            &request(n, false, BUFFER + 4, 32, 2),
            &[60, 64, 4],
        ));
        b.clean();
        let s = b.sb.stats();
        assert_eq!(s.tlps, 5);
        assert_eq!(s.rows, [2, 3, 2, 3, 2, 2]);
        for rule in [
            Rule::PromiseRequest,
            Rule::PromiseRequester,
            Rule::PromiseAddress,
            Rule::PromiseMemoryType,
            Rule::PromiseState,
            Rule::PromiseRoute,
            Rule::Payload,
            Rule::Translation,
            Rule::Attributes,
            Rule::Destination,
            Rule::RequestHeader,
            Rule::Route,
            Rule::Header,
            Rule::Order,
            Rule::Completion,
            Rule::Arrival,
        ] {
            assert!(s.count(rule) > 0, "{}", rule.name());
            assert_eq!(s.failures(rule), 0);
        }
    }
}

#[test]
fn partial_byte_enables_and_zero_length_reads() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut r = request(0, true, BUFFER, 1, 1);
    r.first_be = 0b0110;
    let mut steps = write(0, &r);
    // A byte that is not enabled carries nothing.
    payload(&mut steps[4])[0] ^= 0xff;
    b.play(&steps);
    let mut r = request(0, false, BUFFER, 3, 2);
    (r.first_be, r.last_be) = (0b1000, 0b0011);
    b.play(&read(0, &r, &[7]));
    let mut r = request(0, false, BUFFER, 1, 3);
    r.first_be = 0;
    let h = Head::mem(&r);
    let c = completion(Bdf(0), &h, 0, (0, 1, 1));
    let mut steps = read(0, &r, &[]);
    steps.push(Step::Tlp(Tap::RpTx(0), c, vec![]));
    steps.push(Step::Tlp(Tap::EpRx(0), c, vec![9; 4]));
    b.play(&steps);
    b.clean();
}

#[test]
fn completions_of_two_reads_may_interleave_and_reads_may_be_answered_in_any_order() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let first = read(0, &request(0, false, BUFFER, 32, 1), &[64, 64]);
    let mut second = read(0, &request(0, false, BUFFER + 0x200, 16, 2), &[64]);
    memory(&mut second[3]).port_tag = 8;
    if let Step::Response(tag, ..) = &mut second[4] {
        *tag = 8;
    }
    b.play(&first[..4]);
    b.play(&second[..4]);
    b.play(&second[4..]);
    b.play(&first[4..]);
    b.clean();
}

// The promise judge.

#[test]
fn outside_the_mapping() {
    for (addr, len) in [(BUFFER - 4, 2), (BUFFER + 0xefc, 2), (0x9000_0000, 1)] {
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut r = request(0, true, addr, len, 1);
        if addr & 0xfff == 0xffc {
            // Do not cross 4 KiB as well.
            r = request(0, true, BUFFER + 0xefc + 4, 1, 1);
        }
        b.play(&write(0, &r));
        b.only(Judge::Promise, "address");
    }
}

#[test]
fn one_disabled_byte_decides() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut r = request(0, true, BUFFER - 4, 2, 1);
    r.first_be = 0b1000;
    b.play(&write(0, &r));
    b.only(Judge::Promise, "address");
    let mut b = Bench::new();
    let mut p = dram(0);
    (p.dma, p.segments[0].0) = (DmaAddr(BUFFER - 1), PhysAddr(BUFFER - 1));
    b.promise(p);
    b.play(&write(0, &r));
    b.clean();
}

#[test]
fn wrong_direction() {
    for (direction, is_write) in [(Direction::ToDevice, true), (Direction::FromDevice, false)] {
        let mut b = Bench::new();
        b.promise(Promise {
            direction,
            ..dram(0)
        });
        let r = request(0, is_write, BUFFER, 1, 1);
        let steps = if is_write {
            write(0, &r)
        } else {
            read(0, &r, &[4])
        };
        b.play(&steps);
        b.only(Judge::Promise, "direction");
        assert_eq!(b.sb.stats().failures(Rule::PromiseRequest), 1);
    }
}

#[test]
fn after_unmap() {
    let mut b = Bench::new();
    let p = b.promise(dram(0));
    b.play(&[Step::Begin(p), Step::End(p)]);
    b.play(&write(0, &request(0, true, BUFFER, 1, 1)));
    b.only(Judge::Promise, "state");
    assert_eq!(
        b.sb.violations()[0].call.as_deref(),
        Some("dma_map_phys(buffer)")
    );
}

#[test]
fn unmap_while_a_tlp_is_under_way() {
    let steps = write(0, &request(0, true, BUFFER, 1, 1));
    // Between the beginning and the end of unmap it may arrive.
    let mut b = Bench::new();
    let p = b.promise(dram(0));
    b.play(&steps[..2]);
    b.play(&[Step::Begin(p)]);
    b.play(&steps[2..]);
    b.play(&[Step::End(p)]);
    b.clean();
    // After the end it may not.
    let mut b = Bench::new();
    let p = b.promise(dram(0));
    b.play(&steps[..4]);
    b.play(&[Step::Begin(p), Step::End(p)]);
    b.play(&steps[4..]);
    b.only(Judge::Promise, "state");
}

#[test]
fn refused_during_unmap_or_while_mapped() {
    let steps = refused_read(0, &request(0, false, BUFFER, 1, 1));
    let mut b = Bench::off();
    let p = b.promise(dram(0));
    b.play(&steps[..1]);
    b.play(&[Step::Begin(p)]);
    b.play(&steps[1..]);
    b.clean();
    let mut b = Bench::off();
    b.promise(dram(0));
    b.play(&steps);
    b.only(Judge::Promise, "permission");
}

#[test]
fn somebody_elses_requester_id() {
    let mut b = Bench::new();
    b.promise(dram(0));
    b.promise(dram(1));
    let mut r = request(0, true, BUFFER, 1, 1);
    r.requester = EP[1];
    b.play(&write(0, &r));
    b.only(Judge::Promise, "requester");
}

#[test]
fn lands_elsewhere() {
    // The mapping promised another page; the tables lead here.
    let mut b = Bench::new();
    let mut p = dram(0);
    p.segments[0].0 = PhysAddr(0x8800_0100);
    b.promise(p);
    b.play(&write(0, &request(0, true, BUFFER, 1, 1)));
    b.only(Judge::Promise, "address");
}

#[test]
fn only_the_last_byte_lands_elsewhere() {
    let mut b = Bench::new();
    let mut p = dram(0);
    p.segments = vec![(PhysAddr(BUFFER), 8), (PhysAddr(0x9000_0000), 0xef8)];
    b.promise(p);
    b.play(&write(0, &request(0, true, BUFFER, 2, 1)));
    b.play(&write(0, &request(0, true, BUFFER, 4, 1)));
    b.only(Judge::Promise, "address");
}

#[test]
fn memory_type_and_snoop() {
    let mut b = Bench::new();
    b.promise(Promise {
        expect: MemType::NonCacheable,
        snoop: false,
        ..dram(0)
    });
    b.play(&write(0, &request(0, true, BUFFER, 1, 1)));
    b.only(Judge::Promise, "memory type");

    let mut b = Bench::new();
    b.promise(Promise {
        snoop: false,
        ..dram(0)
    });
    b.play(&write(0, &request(0, true, BUFFER, 1, 1)));
    b.only(Judge::Promise, "snoop");

    // No Snoop is honoured.
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut r = request(0, true, BUFFER, 1, 1);
    r.no_snoop = true;
    b.play(&write(0, &r));
    b.clean();
}

#[test]
fn peer_mapped_cacheable() {
    let mut b = Bench::new();
    let p = peer(0, 2, Route::PeerThroughBridge);
    b.promise(Promise {
        expect: MemType::WriteBack,
        ..p
    });
    b.play(&bridged(0, 2, &request(0, true, BAR[2], 4, 1)));
    b.only(Judge::Promise, "memory type");
}

#[test]
fn probes_are_refused_or_found() {
    let r = request(0, false, 0x9000_0000, 1, 1);
    let mut b = Bench::off();
    let id = b.sb.expect_rogue(EP[0], BusAddr(0x9000_0000), 4, false);
    b.play(&refused_read(0, &r));
    b.sb.rogue_done(id);
    b.clean();
    assert_eq!(b.sb.stats().rogue_tlps, 1);

    let mut b = Bench::new();
    b.sb.expect_rogue(EP[0], BusAddr(0x9000_0000), 4, false);
    b.play(&read(0, &r, &[4]));
    b.only(Judge::Promise, "permission");

    // On a machine that does not block, nothing is demanded.
    let mut b = Bench::with(Config {
        blocking: false,
        iommu: false,
        ..Config::default()
    });
    b.sb.expect_rogue(EP[0], BusAddr(0x9000_0000), 4, false);
    b.play(&read(0, &r, &[4]));
    b.clean();
}

#[test]
fn probes_of_a_mapped_granule_may_get_through() {
    let below = request(0, true, BUFFER - 4, 1, 1);
    let mut b = Bench::new();
    b.promise(dram(0));
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER - 4), 4, true);
    b.play(&write(0, &below));
    b.clean();
    assert_eq!(b.sb.stats().granule_reachable, 1);

    // Only as the direction permits.
    let mut b = Bench::new();
    b.promise(Promise {
        direction: Direction::ToDevice,
        ..dram(0)
    });
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER - 4), 4, true);
    b.play(&write(0, &below));
    b.only(Judge::Promise, "permission");

    // W implies R in a RISC-V page-table entry.
    let mut b = Bench::new();
    b.promise(Promise {
        direction: Direction::FromDevice,
        ..dram(0)
    });
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    b.play(&read(0, &request(0, false, BUFFER, 1, 1), &[4]));
    b.clean();
}

#[test]
fn corrupted_payload() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut steps = write(0, &request(0, true, BUFFER, 8, 1));
    payload(&mut steps[4])[17] ^= 1;
    b.play(&steps);
    b.only(Judge::Promise, "payload");

    let mut b = Bench::new();
    b.promise(dram(0));
    let mut steps = read(0, &request(0, false, BUFFER, 32, 1), &[64, 64]);
    payload(&mut steps[8])[3] ^= 1;
    b.play(&steps);
    b.only(Judge::Promise, "payload");

    let mut b = Bench::new();
    b.promise(peer(0, 1, Route::PeerBusAddress));
    let mut steps = direct(0, 1, &request(0, true, BAR[1], 4, 1));
    payload(&mut steps[1])[0] ^= 1;
    b.play(&steps);
    b.only(Judge::Promise, "payload");
}

// The architecture judge.

#[test]
fn the_iommu_must_answer_by_the_tables() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut steps = write(0, &request(0, true, BUFFER, 1, 1));
    translated(&mut steps[2]).spa.0 += 0x1000;
    memory(&mut steps[4]).addr.0 += 0x1000;
    b.play(&steps);
    let v = b.verdict();
    assert_eq!(
        v,
        [
            (Judge::Architecture, "address"),
            (Judge::Promise, "address")
        ]
    );

    let mut b = Bench::off();
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    let mut steps = refused_read(0, &request(0, false, BUFFER, 1, 1));
    translated(&mut steps[2]).cause = 257;
    b.play(&steps);
    b.only(Judge::Architecture, "cause");
}

#[test]
fn no_iommu_is_the_identity() {
    let config = || Config {
        iommu: false,
        blocking: false,
        ..Config::default()
    };
    let mut b = Bench::with(config());
    b.promise(dram(0));
    let mut steps = write(0, &request(0, true, BUFFER, 1, 1));
    b.play(&steps);
    b.clean();
    translated(&mut steps[2]).spa.0 += 0x1000;
    memory(&mut steps[4]).addr.0 += 0x1000;
    b.play(&steps);
    let v = b.verdict();
    assert_eq!(
        v,
        [
            (Judge::Architecture, "address"),
            (Judge::Promise, "address")
        ]
    );
}

#[test]
fn attributes_by_the_rule() {
    type Tamper = fn(&mut MemAttr);
    let cases: [(Tamper, &str); 3] = [
        (|a| a.mem_type = MemType::NonCacheable, "memory type"),
        (|a| a.snoop = false, "snoop"),
        (|a| a.strong_order = false, "order attribute"),
    ];
    for (tamper, field) in cases {
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut steps = write(0, &request(0, true, BUFFER, 1, 1));
        tamper(&mut translated(&mut steps[2]).attr);
        b.play(&steps[..3]);
        assert_eq!(b.sb.violations()[0].judge, Judge::Architecture);
        assert_eq!(b.sb.violations()[0].field, field);
        assert_eq!(b.sb.violations().len(), 1);

        // Right at the translation, wrong at the port.
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut steps = write(0, &request(0, true, BUFFER, 1, 1));
        tamper(&mut memory(&mut steps[4]).attr);
        b.play(&steps);
        let v = b.verdict();
        assert_eq!(v[0], (Judge::Architecture, field));
    }
}

#[test]
fn destination_by_the_memory_map() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut steps = write(0, &request(0, true, BUFFER, 1, 1));
    translated(&mut steps[2]).dest = Dest::None;
    b.play(&steps[..4]);
    let v = b.verdict();
    assert_eq!(v[0], (Judge::Architecture, "destination"));

    // A vacant address is refused.
    let mut b = Bench::new();
    b.sb.expect_rogue(EP[0], BusAddr(0x1000), 4, true);
    let mut steps = write(0, &request(0, true, 0x1000, 1, 1));
    translated(&mut steps[2]).dest = Dest::None;
    b.play(&steps[..4]);
    b.clean();

    // The interrupt files are behind the memory port.
    let mut b = Bench::new();
    b.promise(Promise {
        dma: DmaAddr(0x2800_0000),
        segments: vec![(PhysAddr(0x2800_0000), 0xf00)],
        expect: MemType::Device,
        kind: MemoryKind::Mmio,
        snoop: false,
        ..dram(0)
    });
    let r = request(0, true, 0x2800_0000, 1, 1);
    let mut steps = write(0, &r);
    translated(&mut steps[2]).attr = attr(MemType::Device, &r);
    memory(&mut steps[4]).attr = attr(MemType::Device, &r);
    b.play(&steps);
    b.clean();
}

#[test]
fn a_fault_must_leave_its_record() {
    let mut b = Bench::off();
    b.sb.register_written(&b.mem, 76, 4, 1); // fqcsr.fqen
    b.sb.register_read(76, 4, 1 << 16 | 1);
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    b.play(&refused_read(0, &request(0, false, BUFFER, 1, 1)));
    let record = [256 | 2 << 34 | u64::from(EP[0].0) << 40, 0, BUFFER, 0];
    b.sb.quiesce(&b.mem, &[record]);
    assert_eq!(b.sb.violations(), []);
    b.play(&refused_read(0, &request(0, false, BUFFER + 0x100, 1, 1)));
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER + 0x100), 4, false);
    b.sb.quiesce(&b.mem, &[]);
    let fields: Vec<_> =
        b.sb.violations()
            .iter()
            .map(|v| (v.judge, v.field))
            .collect();
    assert!(
        fields.contains(&(Judge::Architecture, "fault record")),
        "{fields:?}"
    );
}

#[test]
fn accesses_of_the_iommu_are_coherent() {
    let mut r = at_memory(&request(0, false, BUFFER, 2, 0));
    r.from_iommu = true;
    let mut b = Bench::new();
    b.play(&[
        Step::Mem(r, vec![]),
        Step::Response(7, vec![0; 8], false, true),
    ]);
    b.clean();
    r.attr.snoop = false;
    b.play(&[Step::Mem(r, vec![])]);
    b.only(Judge::Architecture, "snoop");
}

// The fabric judge: requests.

#[test]
fn header_rules() {
    type Tamper = fn(&mut tlp::MemRequest);
    let cases: [(Tamper, &str); 8] = [
        (|r| r.last_be = 1, "byte enables"),
        (|r| (r.len_dw, r.last_be) = (2, 0), "byte enables"),
        (
            |r| (r.len_dw, r.first_be, r.last_be) = (3, 0b1010, 15),
            "byte enables",
        ),
        (
            |r| (r.len_dw, r.first_be, r.last_be) = (3, 15, 0b1110),
            "byte enables",
        ),
        (
            |r| {
                (r.len_dw, r.last_be) = (2, 15);
                r.addr.0 = BUFFER + 4;
                r.first_be = 0b0111;
            },
            "byte enables",
        ),
        (|r| (r.len_dw, r.last_be) = (65, 15), "max payload size"),
        (
            |r| {
                (r.write, r.len_dw, r.last_be) = (false, 129, 15);
            },
            "max read request size",
        ),
        (
            |r| {
                r.addr.0 = 0x8000_0ffc;
                (r.len_dw, r.last_be) = (2, 15);
            },
            "4 KiB boundary",
        ),
    ];
    for (tamper, field) in cases {
        let mut b = Bench::new();
        b.promise(Promise {
            size: 0x2000,
            segments: vec![(PhysAddr(BUFFER), 0x2000)],
            ..dram(0)
        });
        let mut r = request(0, true, BUFFER, 1, 1);
        tamper(&mut r);
        let h = Head::mem(&r);
        b.play(&[Step::Tlp(Tap::EpTx(0), h, vec![])]);
        let v: Vec<_> =
            b.sb.violations()
                .iter()
                .map(|v| (v.judge, v.field))
                .collect();
        assert_eq!(v, [(Judge::Fabric, field)]);
    }
    // Holes are legal in an aligned quad word.
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut r = request(0, true, BUFFER, 2, 1);
    (r.first_be, r.last_be) = (0b1010, 0b0101);
    b.play(&write(0, &r));
    b.clean();
}

#[test]
fn four_dw_header_below_four_gib() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut h = Head::mem(&request(0, true, BUFFER, 1, 1));
    h.hdr[0] |= 1 << 29;
    (h.hdr[2], h.hdr[3]) = (0, BUFFER as u32);
    b.play(&[Step::Tlp(Tap::EpTx(0), h, vec![])]);
    assert_eq!(b.sb.violations()[0].field, "address format");
}

#[test]
fn tag_in_use() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let steps = read(0, &request(0, false, BUFFER, 1, 1), &[4]);
    b.play(&steps[..1]);
    b.play(&steps[..1]);
    assert_eq!(b.sb.violations()[0].field, "tag");
    assert_eq!(b.sb.violations().len(), 1);
}

#[test]
fn headers_are_kept() {
    type Tamper = fn(&mut Head);
    let cases: [(Tamper, &str); 8] = [
        (|h| h.hdr[1] ^= 1 << 16, "requester"),
        (|h| h.hdr[1] ^= 1 << 8, "tag"),
        (|h| h.hdr[0] ^= 2, "length"),
        (|h| h.hdr[0] ^= 1 << 12, "attributes"),
        (|h| h.hdr[0] ^= 1 << 20, "traffic class"),
        (|h| h.hdr[1] ^= 1, "byte enables"),
        (|h| h.hdr[2] ^= 0x100, "address"),
        (|h| h.pfx = Some(0x9100_0001), "prefix"),
    ];
    for (tamper, field) in cases {
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut steps = write(0, &request(0, true, BUFFER, 4, 1));
        tamper(head(&mut steps[1]));
        b.play(&steps[..2]);
        let v: Vec<_> =
            b.sb.violations()
                .iter()
                .map(|v| (v.judge, v.field))
                .collect();
        assert_eq!(v, [(Judge::Fabric, field)]);
    }
}

#[test]
fn memory_port_shows_the_tlp() {
    type Tamper = fn(&mut MemRequest);
    let cases: [(Tamper, &str); 4] = [
        (|r| r.len_dw = 3, "length"),
        (|r| r.first_be = 7, "byte enables"),
        (|r| r.requester = EP[1], "requester"),
        (|r| r.tlp_tag = 9, "tag"),
    ];
    for (tamper, field) in cases {
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut steps = write(0, &request(0, true, BUFFER, 4, 1));
        tamper(memory(&mut steps[4]));
        b.play(&steps);
        b.only(Judge::Fabric, field);
    }
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut steps = write(0, &request(0, true, BUFFER, 4, 1));
    memory(&mut steps[4]).addr.0 += 8;
    b.play(&steps);
    let v = b.verdict();
    assert_eq!(v, [(Judge::Fabric, "address"), (Judge::Promise, "address")]);
}

#[test]
fn nothing_is_lost_doubled_or_invented() {
    let steps = write(0, &request(0, true, BUFFER, 4, 1));
    for kept in 1..4 {
        let mut b = Bench::new();
        b.promise(dram(0));
        b.play(&steps[..kept]);
        b.only(Judge::Fabric, "arrival");
    }
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&steps);
    b.play(&steps[4..]);
    b.only(Judge::Fabric, "arrival");

    let mut b = Bench::new();
    b.play(&steps[1..2]);
    b.only(Judge::Fabric, "arrival");
}

#[test]
fn order_of_posted_requests() {
    let first = write(0, &request(0, true, BUFFER, 1, 1));
    let second = |relaxed| {
        let mut r = request(0, true, BUFFER + 0x40, 1, 2);
        r.relaxed = relaxed;
        write(0, &r)
    };
    for relaxed in [false, true] {
        let mut b = Bench::new();
        b.promise(dram(0));
        let second = second(relaxed);
        b.play(&first[..1]);
        b.play(&[Step::Payload(0, bytes(1, 1))]);
        b.play(&second);
        b.play(&first[1..3]);
        b.play(&first[4..]);
        if relaxed {
            b.clean();
        } else {
            let v = b.verdict();
            assert_eq!(v, [(Judge::Fabric, "order"); 2]);
        }
    }
}

#[test]
fn reads_do_not_pass_writes() {
    let first = write(0, &request(0, true, BUFFER, 1, 1));
    let second = read(0, &request(0, false, BUFFER, 1, 2), &[4]);
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&first[..2]);
    b.play(&[Step::Payload(0, bytes(1, 1))]);
    b.play(&second);
    b.play(&first[2..3]);
    b.play(&first[4..]);
    b.only(Judge::Fabric, "order");
    // Writes may pass reads.
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&second[..1]);
    b.play(&first);
    b.play(&second[1..]);
    b.clean();
}

// The fabric judge: routing and ACS.

#[test]
fn peers_below_the_switch() {
    let r = request(0, true, BAR[1], 4, 1);
    let mut b = Bench::new();
    b.promise(peer(0, 1, Route::PeerBusAddress));
    b.play(&direct(0, 1, &r));
    b.clean();

    let mut b = Bench::new();
    b.acs(DN[0], RR);
    b.promise(peer(0, 1, Route::PeerThroughBridge));
    b.play(&bridged(0, 1, &r));
    b.clean();

    // A switch that ignores the redirect, and one that redirects unasked.
    let mut b = Bench::new();
    b.acs(DN[0], RR);
    b.sb.expect_rogue(EP[0], BusAddr(BAR[1]), 16, true);
    b.play(&direct(0, 1, &r));
    let v = b.verdict();
    assert_eq!(
        v,
        [(Judge::Fabric, "route"), (Judge::Promise, "permission")]
    );

    let mut b = Bench::new();
    b.promise(peer(0, 1, Route::PeerBusAddress));
    b.play(&bridged(0, 1, &r)[..2]);
    assert_eq!(b.sb.violations().len(), 1);
    assert_eq!(b.sb.violations()[0].field, "route");
}

#[test]
fn a_promised_route_is_taken() {
    let r = request(0, true, BAR[1], 4, 1);
    let mut b = Bench::new();
    b.acs(DN[0], RR);
    b.promise(peer(0, 1, Route::PeerBusAddress));
    b.play(&bridged(0, 1, &r));
    let v = b.verdict();
    assert!(
        v.iter().all(|v| *v == (Judge::Promise, "route")) && !v.is_empty(),
        "{v:?}"
    );
}

#[test]
fn peers_through_the_bridge() {
    for (from, to_peer) in [(0, 2), (2, 1)] {
        let mut b = Bench::new();
        b.promise(peer(from, to_peer, Route::PeerThroughBridge));
        b.play(&bridged(
            from,
            to_peer,
            &request(from, true, BAR[to_peer], 4, 1),
        ));
        b.clean();
    }
}

/// Endpoint 0 reads from endpoint 1 below the switch; the completion takes `way`.
fn peer_read(relaxed: bool, redirected: bool) -> Vec<Step> {
    let mut r = request(0, false, BAR[1], 4, 1);
    r.relaxed = relaxed;
    let h = Head::mem(&r);
    let c = completion(EP[1], &h, 0, (0, 16, 16));
    let data = bytes(4, 3);
    let mut steps = vec![
        Step::Tlp(Tap::EpTx(0), h, vec![]),
        Step::Tlp(Tap::EpRx(1), h, vec![]),
        Step::Tlp(Tap::EpTx(1), c, data.clone()),
    ];
    if redirected {
        steps.push(Step::Tlp(Tap::RpRx(0), c, vec![]));
        steps.push(Step::Tlp(Tap::RpTx(0), c, vec![]));
    }
    steps.push(Step::Tlp(Tap::EpRx(0), c, data));
    steps
}

#[test]
fn completion_redirect_is_for_completions_without_relaxed_ordering() {
    for (cr, relaxed, redirected) in [(0, false, false), (CR, false, true), (CR, true, false)] {
        let mut b = Bench::new();
        b.acs(DN[1], cr);
        b.promise(peer(0, 1, Route::PeerBusAddress));
        b.play(&peer_read(relaxed, redirected));
        b.clean();
        let mut b = Bench::new();
        b.acs(DN[1], cr);
        b.promise(peer(0, 1, Route::PeerBusAddress));
        b.play(&peer_read(relaxed, !redirected)[..4]);
        let v: Vec<_> =
            b.sb.violations()
                .iter()
                .map(|v| (v.judge, v.field))
                .collect();
        assert_eq!(v, [(Judge::Fabric, "route")]);
    }
}

#[test]
fn a_peer_completion_keeps_its_data() {
    let mut b = Bench::new();
    b.promise(peer(0, 1, Route::PeerBusAddress));
    let mut steps = peer_read(false, false);
    payload(&mut steps[3])[5] ^= 1;
    b.play(&steps);
    b.only(Judge::Promise, "payload");
}

/// A read of endpoint 0 that the switch refuses with `status`.
fn switch_refuses(r: &tlp::MemRequest, status: u32) -> Vec<Step> {
    let h = Head::mem(r);
    let c = completion(DN[0], &h, status, (0, 0, 4));
    vec![
        Step::Tlp(Tap::EpTx(0), h, vec![]),
        Step::Tlp(Tap::EpRx(0), c, vec![]),
    ]
}

#[test]
fn source_validation() {
    let mut r = request(0, false, BUFFER, 1, 1);
    r.requester = Bdf::new(3, 1, 0);
    // Another function of the bus passes.
    let mut b = Bench::off();
    b.acs(DN[0], SV);
    b.sb.expect_rogue(r.requester, BusAddr(BUFFER), 4, false);
    b.play(&refused_read(0, &r)[..3]);
    assert_eq!(b.sb.violations(), []);
    // Another bus does not.
    let mut r = request(0, true, BUFFER, 1, 1);
    r.requester = EP[1];
    let mut b = Bench::off();
    b.acs(DN[0], SV);
    b.sb.expect_rogue(EP[1], BusAddr(BUFFER), 4, true);
    let steps = write(0, &r);
    b.play(&steps[..1]);
    b.clean();
    b.play(&steps[..2]);
    b.only(Judge::Fabric, "route");
    assert!(b.sb.violations()[0].clause.contains("Source Validation"));
}

#[test]
fn translation_blocking_and_direct_translated() {
    let mut r = request(0, false, BAR[1], 1, 1);
    r.at = AddressType::Translated;
    let setup = |bits| {
        let mut b = Bench::new();
        b.acs(DN[0], bits);
        b.promise(peer(0, 1, Route::PeerBusAddress));
        b
    };
    let mut b = setup(TB);
    b.sb.expect_rogue(EP[0], BusAddr(BAR[1]), 4, false);
    b.play(&switch_refuses(&r, 4));
    let v = b.verdict();
    // The mapping is live, so the promise judge has a word too.
    assert_eq!(v, [(Judge::Promise, "route")]);
    let mut b = setup(TB);
    b.play(&switch_refuses(&r, 1));
    let v = b.verdict();
    assert_eq!(v, [(Judge::Promise, "route"), (Judge::Fabric, "status")]);
    let mut b = setup(RR | DT);
    let h = Head::mem(&r);
    let c = completion(EP[1], &h, 0, (0, 4, 4));
    b.play(&[
        Step::Tlp(Tap::EpTx(0), h, vec![]),
        Step::Tlp(Tap::EpRx(1), h, vec![]),
        Step::Tlp(Tap::EpTx(1), c, vec![1; 4]),
        Step::Tlp(Tap::EpRx(0), c, vec![1; 4]),
    ]);
    b.clean();
}

#[test]
fn egress_control() {
    let r = request(0, true, BAR[1], 1, 1);
    // (ACS, vector) -> blocked, redirected, direct.
    for (bits, vector, way) in [
        (EC, 0, 'd'),
        (EC, 2, 'b'),
        (EC | RR, 0, 'd'),
        (EC | RR, 2, 'r'),
        (RR, 2, 'r'),
    ] {
        let mut b = Bench::off();
        b.acs(DN[0], bits);
        b.sb.config_written(DN[0], 0x108, 4, vector);
        b.sb.expect_rogue(EP[0], BusAddr(BAR[1]), 4, true);
        match way {
            'd' => {
                b.play(&direct(0, 1, &r));
                b.only(Judge::Promise, "permission");
            }
            'b' => {
                b.play(&direct(0, 1, &r)[..1]);
                b.clean();
                b.play(&direct(0, 1, &r));
                b.only(Judge::Fabric, "route");
            }
            _ => {
                let mut steps = bridged(0, 1, &r);
                *translated(&mut steps[2]) = refused();
                b.play(&steps[..3]);
                b.clean();
            }
        }
    }
}

#[test]
fn upstream_forwarding_and_windows() {
    // Its own window.
    let r = request(0, false, BAR[0], 1, 1);
    let mut b = Bench::off();
    b.sb.expect_rogue(EP[0], BusAddr(BAR[0]), 4, false);
    b.play(&switch_refuses(&r, 1));
    b.clean();
    let mut b = Bench::off();
    b.acs(DN[0], UF);
    b.sb.expect_rogue(EP[0], BusAddr(BAR[0]), 4, false);
    b.play(&refused_read(0, &r));
    b.clean();
    // Memory space of the peer's port disabled: nobody's.
    let r = request(0, false, BAR[1], 1, 1);
    let mut b = Bench::off();
    b.sb.config_written(DN[1], 4, 2, 4);
    b.sb.expect_rogue(EP[0], BusAddr(BAR[1]), 4, false);
    b.play(&switch_refuses(&r, 1));
    b.clean();
    // Bus mastering disabled at the port.
    let r = request(0, false, BUFFER, 1, 1);
    let mut b = Bench::off();
    b.sb.config_written(DN[0], 4, 2, 2);
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    b.play(&switch_refuses(&r, 1));
    b.clean();
    let mut b = Bench::off();
    b.sb.config_written(DN[0], 4, 2, 2);
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    b.play(&refused_read(0, &r)[..2]);
    assert_eq!(b.sb.violations()[0].field, "route");
}

// The fabric judge: completions.

#[test]
fn completions_answer_the_request() {
    type Tamper = fn(&mut Head);
    let cases: [(Tamper, &str); 8] = [
        (|h| h.hdr[1] ^= 1, "byte count"),
        (|h| h.hdr[2] ^= 4, "lower address"),
        (|h| h.hdr[1] |= 1 << 13, "status"),
        (|h| h.hdr[1] |= 9 << 24, "completer"),
        (|h| h.hdr[0] ^= 1 << 13, "attributes"),
        (|h| h.hdr[0] = h.hdr[0] & !0x3ff | 8, "completion boundary"),
        (|h| h.hdr[0] = h.hdr[0] & !0x3ff | 40, "length"),
        (|h| h.hdr[2] ^= 1 << 8, "arrival"),
    ];
    for (tamper, field) in cases {
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut steps = read(0, &request(0, false, BUFFER, 32, 1), &[64, 64]);
        tamper(head(&mut steps[5]));
        b.play(&steps[..6]);
        let v: Vec<_> =
            b.sb.violations()
                .iter()
                .map(|v| (v.judge, v.field))
                .collect();
        assert_eq!(v, [(Judge::Fabric, field)]);
    }
}

#[test]
fn every_byte_comes_once() {
    let steps = read(0, &request(0, false, BUFFER, 32, 1), &[64, 64]);
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&steps[..7]);
    b.only(Judge::Fabric, "completion");

    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&steps);
    b.play(&steps[7..8]);
    b.only(Judge::Fabric, "arrival");

    // Seen at the root port, lost below it.
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&steps[..8]);
    b.only(Judge::Fabric, "arrival");

    // The second half first.
    let mut b = Bench::new();
    b.promise(dram(0));
    b.play(&steps[..6]);
    b.play(&steps[7..]);
    b.play(&steps[6..7]);
    let v = b.verdict();
    assert!(v.contains(&(Judge::Fabric, "order")), "{v:?}");
}

#[test]
fn access_faults_behind_the_memory_port() {
    let r = request(0, false, BUFFER, 16, 1);
    let h = Head::mem(&r);
    for (status, right) in [(1, true), (4, true), (0, false)] {
        let mut b = Bench::new();
        b.promise(dram(0));
        b.play(&read(0, &r, &[])[..4]);
        b.play(&[Step::Response(7, vec![], true, true)]);
        let c = completion(Bdf(0), &h, status, (0, 64, 64));
        b.play(&[Step::Tlp(Tap::RpTx(0), c, vec![])]);
        let fields: Vec<_> = b.sb.violations().iter().map(|v| v.field).collect();
        assert_eq!(fields, if right { vec![] } else { vec!["status"] });
    }
}

#[test]
fn a_refusal_has_the_status_of_the_iommu() {
    let mut b = Bench::off();
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    let mut steps = refused_read(0, &request(0, false, BUFFER, 1, 1));
    for s in &mut steps[3..] {
        head(s).hdr[1] ^= 5 << 13;
    }
    b.play(&steps);
    b.only(Judge::Fabric, "status");
}

// CPUs.

fn cfg(write: bool, bdf: Bdf, reg: u64, type1: bool, tag: u32) -> (Step, Head) {
    let r = CpuRequest {
        write,
        config: true,
        addr: u64::from(bdf.0) << 12 | reg,
        be: if reg & 4 == 0 { 0x0f } else { 0xf0 },
        data: 0x1122_3344_5566_7788,
    };
    let fmt = match (write, type1) {
        (false, false) => fmt_type::CFGRD0,
        (false, true) => fmt_type::CFGRD1,
        (true, false) => fmt_type::CFGWR0,
        (true, true) => fmt_type::CFGWR1,
    };
    let hdr = [
        u32::from(fmt) << 24 | 1,
        tag << 8 | 0xf,
        u32::from(bdf.0) << 16 | reg as u32 & 0xffc,
        0,
    ];
    (Step::Cpu(r), Head { hdr, pfx: None })
}

fn cfg_completion(request: &Head, completer: Bdf, data: bool) -> Head {
    let fmt = if data { fmt_type::CPLD } else { fmt_type::CPL };
    Head {
        hdr: [
            u32::from(fmt) << 24 | u32::from(data),
            u32::from(completer.0) << 16 | 4,
            request.hdr[1] & 0xff00,
            0,
        ],
        pfx: None,
    }
}

#[test]
fn configuration_requests() {
    let mut b = Bench::new();
    // An endpoint below the switch: Type 1 until its bus.
    let (cpu, h) = cfg(true, EP[1], 4, true, 5);
    let mut type0 = h;
    type0.hdr[0] &= !(1 << 24);
    let c = cfg_completion(&h, EP[1], false);
    let steps = [
        cpu,
        Step::Tlp(Tap::RpTx(0), h, vec![]),
        Step::Tlp(Tap::EpRx(1), type0, vec![0x44, 0x33, 0x22, 0x11]),
        Step::Tlp(Tap::EpTx(1), c, vec![]),
        Step::Tlp(Tap::RpRx(0), c, vec![]),
    ];
    b.play(&steps);
    // A port of the switch: nobody else sees it.
    let (cpu, h) = cfg(false, DN[1], 0x18, true, 6);
    let c = cfg_completion(&h, DN[1], true);
    b.play(&[
        cpu,
        Step::Tlp(Tap::RpTx(0), h, vec![]),
        Step::Tlp(Tap::RpRx(0), c, vec![]),
    ]);
    // The link's own bus: Type 0.
    let (cpu, h) = cfg(false, EP[2], 0, false, 7);
    let c = cfg_completion(&h, EP[2], true);
    b.play(&[
        cpu,
        Step::Tlp(Tap::RpTx(1), h, vec![]),
        Step::Tlp(Tap::EpRx(2), h, vec![]),
        Step::Tlp(Tap::EpTx(2), c, vec![0; 4]),
        Step::Tlp(Tap::RpRx(1), c, vec![]),
    ]);
    b.clean();
    // Not converted.
    let mut wrong = steps.clone();
    *head(&mut wrong[2]) = h;
    b.play(&wrong[..3]);
    assert_eq!(b.sb.violations()[0].judge, Judge::Fabric);
    // Never sent.
    let mut b = Bench::new();
    b.play(&steps[..1]);
    b.only(Judge::Fabric, "arrival");
    // Never asked.
    let mut b = Bench::new();
    b.play(&steps[1..2]);
    b.only(Judge::Fabric, "arrival");
    // Wrong data, wrong register.
    let mut b = Bench::new();
    let mut wrong = steps.clone();
    payload(&mut wrong[2])[0] = 0;
    b.play(&wrong);
    b.only(Judge::Promise, "payload");
    let mut b = Bench::new();
    let mut wrong = steps;
    for s in &mut wrong[1..3] {
        head(s).hdr[2] ^= 8;
    }
    b.play(&wrong);
    b.only(Judge::Fabric, "address");
}

#[test]
fn mmio_of_the_cpu() {
    let cpu = |write, addr, be| {
        Step::Cpu(CpuRequest {
            write,
            config: false,
            addr,
            be,
            data: 0x1122_3344_5566_7788,
        })
    };
    let mut r = request(0, true, BAR[1] + 0x10, 2, 9);
    r.requester = Bdf(0);
    let h = Head::mem(&r);
    let data = 0x1122_3344_5566_7788u64.to_le_bytes().to_vec();
    let mut b = Bench::new();
    b.play(&[
        cpu(true, BAR[1] + 0x10, 0xff),
        Step::Tlp(Tap::RpTx(0), h, vec![]),
        Step::Tlp(Tap::EpRx(1), h, data),
    ]);
    // The upper half.
    let mut r = request(0, false, BAR[2] + 4, 1, 10);
    r.requester = Bdf(0);
    let h = Head::mem(&r);
    let c = completion(EP[2], &h, 0, (0, 4, 4));
    b.play(&[
        cpu(false, BAR[2] + 4, 0xf0),
        Step::Tlp(Tap::RpTx(1), h, vec![]),
        Step::Tlp(Tap::EpRx(2), h, vec![]),
        Step::Tlp(Tap::EpTx(2), c, vec![0; 4]),
        Step::Tlp(Tap::RpRx(1), c, vec![]),
    ]);
    // Nobody's window: no TLP.
    b.play(&[cpu(false, 0x7000_0000, 0xf)]);
    b.clean();
}

// Limits.

#[test]
fn violations_are_counted_beyond_those_kept() {
    let mut b = Bench::new();
    let steps = write(0, &request(0, true, BUFFER, 1, 1));
    for _ in 0..1500 {
        b.play(&steps[1..2]);
    }
    assert_eq!(b.sb.violations().len(), 1000);
    assert_eq!(b.sb.stats().violations, 1500);
    assert!(!b.sb.violations()[999].story.is_empty());
    assert!(b.sb.violations()[0].to_string().contains("fabric judge"));
}
