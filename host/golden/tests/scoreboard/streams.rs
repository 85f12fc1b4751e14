//! Streams of tap events as they should be.

use tlproof_golden::iommu::Status;
use tlproof_golden::{Dest, MemRequest, MemoryKind, Promise, Route, Tap, Translated};
use tlproof_pcie::tlp::{self, AddressType, fmt_type};
use tlproof_pcie::{Bdf, BusAddr, Direction, DmaAddr, Head, MemAttr, MemType, PhysAddr};

use crate::bench::*;

/// A buffer of a page less 0x100 bytes for endpoint `n`.
pub fn dram(n: usize) -> Promise {
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
pub fn peer(n: usize, to: usize, route: Route) -> Promise {
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

pub fn request(n: usize, write: bool, addr: u64, len_dw: u16, tag: u16) -> tlp::MemRequest {
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

pub fn bytes(len_dw: u16, seed: u8) -> Vec<u8> {
    (0..len_dw * 4).map(|i| i as u8 ^ seed).collect()
}

pub fn attr(mem_type: MemType, r: &tlp::MemRequest) -> MemAttr {
    let wb = mem_type == MemType::WriteBack;
    MemAttr {
        mem_type,
        snoop: wb && !r.no_snoop,
        strong_order: mem_type == MemType::Device || (r.write && !r.relaxed),
    }
}

pub fn to(dest: Dest, r: &tlp::MemRequest) -> Translated {
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

pub fn refused() -> Translated {
    Translated {
        status: Status::UnsupportedRequest,
        cause: 256,
        pbmt: 0,
        attr: attr(MemType::WriteBack, &request(0, false, 0, 1, 0)),
        dest: Dest::None,
        spa: PhysAddr(0),
    }
}

pub const fn port_of(n: usize) -> u8 {
    (n == 2) as u8
}

pub fn at_memory(r: &tlp::MemRequest) -> MemRequest {
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
pub fn write(n: usize, r: &tlp::MemRequest) -> Vec<Step> {
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

pub fn completion(
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
pub fn read(n: usize, r: &tlp::MemRequest, chunks: &[u32]) -> Vec<Step> {
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
pub fn refused_read(n: usize, r: &tlp::MemRequest) -> Vec<Step> {
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
pub fn direct(n: usize, peer: usize, r: &tlp::MemRequest) -> Vec<Step> {
    let h = Head::mem(r);
    let data = bytes(r.len_dw, 1);
    vec![
        Step::Tlp(Tap::EpTx(n as u8), h, data.clone()),
        Step::Tlp(Tap::EpRx(peer as u8), h, data),
    ]
}

/// A write from endpoint `n` to a peer through the bridge.
pub fn bridged(n: usize, peer: usize, r: &tlp::MemRequest) -> Vec<Step> {
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

pub fn head(s: &mut Step) -> &mut Head {
    match s {
        Step::Tlp(_, h, _) | Step::Translated(_, h, _) => h,
        _ => panic!("no header"),
    }
}

pub fn translated(s: &mut Step) -> &mut Translated {
    match s {
        Step::Translated(_, _, t) => t,
        _ => panic!("no translation"),
    }
}

pub fn memory(s: &mut Step) -> &mut MemRequest {
    match s {
        Step::Mem(r, _) => r,
        _ => panic!("no memory request"),
    }
}

pub fn payload(s: &mut Step) -> &mut Vec<u8> {
    match s {
        Step::Tlp(_, _, p) | Step::Payload(_, p) | Step::Mem(_, p) => p,
        _ => panic!("no payload"),
    }
}
