//! Rules of single headers (PCIe 6.0 §2.2).

use tlproof_pcie::{
    BusAddr, CplStatus, Head, PhysAddr,
    tlp::{self, AddressType},
};

use crate::flight::{Demand, Transaction};
use crate::scoreboard::MemRequest;

/// One field that is wrong.
#[derive(Debug)]
pub(crate) struct Error {
    pub field: &'static str,
    pub expected: String,
    pub got: String,
    pub clause: String,
}

impl Error {
    pub fn new(
        field: &'static str,
        expected: impl Into<String>,
        got: impl Into<String>,
        clause: impl Into<String>,
    ) -> Self {
        Self {
            field,
            expected: expected.into(),
            got: got.into(),
            clause: clause.into(),
        }
    }
}

/// Device Control of a requester, in bytes.
pub(crate) struct Limits {
    pub max_payload: u64,
    pub max_read: u64,
}

/// A header in a line.
pub(crate) fn describe(h: &Head) -> String {
    let tag = h.tag();
    if h.is_cpl() {
        return format!(
            "Cpl{} {:?} of {} for {} tag {tag:#x}, {} bytes left, lower address {:#x}",
            if h.has_data() { "D" } else { "" },
            h.status(),
            h.completer(),
            h.requester(),
            h.byte_count(),
            h.lower_addr()
        );
    }
    let (first, last) = (h.first_be(), h.last_be());
    let kind = if h.has_data() { "Wr" } else { "Rd" };
    if h.is_cfg() {
        return format!(
            "Cfg{kind} {} register {:#x} from {} tag {tag:#x}, byte enables {first:x}",
            h.target(),
            h.register(),
            h.requester()
        );
    }
    if h.is_mem() {
        return format!(
            "M{kind} {} ({} DW, byte enables {first:x}/{last:x}) from {} tag {tag:#x}",
            h.addr(),
            h.len_dw(),
            h.requester()
        );
    }
    format!("TLP {:#x} from {}", h.fmt_type(), h.requester())
}

/// A memory request as it leaves a device.
pub(crate) fn check_request(h: &Head, limits: &Limits) -> Option<Error> {
    const BE: &str = "PCIe 6.0 §2.2.5";
    let (first, last, dws) = (h.first_be(), h.last_be(), u64::from(h.len_dw()));
    let enables = || format!("{first:04b} first, {last:04b} last");
    if dws == 1 && last != 0 {
        return Some(Error::new(
            "byte enables",
            "no last ones for one DW",
            enables(),
            BE,
        ));
    }
    if dws > 1 && (first == 0 || last == 0) {
        return Some(Error::new("byte enables", "some in both", enables(), BE));
    }
    let quad_word = dws == 2 && h.addr().0.is_multiple_of(8);
    if dws > 1 && !quad_word && !(contiguous_to_top(first) && contiguous_from_bottom(last)) {
        return Some(Error::new("byte enables", "contiguous", enables(), BE));
    }
    if (h.addr().0 & 0xfff) + dws * 4 > 0x1000 {
        return Some(Error::new(
            "4 KiB boundary",
            "not crossed",
            format!("{} bytes at {}", dws * 4, h.addr()),
            "PCIe 6.0 §2.2.7",
        ));
    }
    if h.has_data() && dws * 4 > limits.max_payload {
        return Some(Error::new(
            "max payload size",
            format!("at most {}", limits.max_payload),
            format!("{}", dws * 4),
            "PCIe 6.0 §2.2.2, §7.5.3.4",
        ));
    }
    if !h.has_data() && dws * 4 > limits.max_read {
        return Some(Error::new(
            "max read request size",
            format!("at most {}", limits.max_read),
            format!("{}", dws * 4),
            "PCIe 6.0 §2.2.7, §7.5.3.4",
        ));
    }
    if h.is_4dw() != (h.addr().0 >> 32 != 0) {
        return Some(Error::new(
            "address format",
            "3 DW below 4 GiB, 4 DW above",
            format!("{}", h.addr()),
            "PCIe 6.0 §2.2.4.1",
        ));
    }
    None
}

const fn contiguous_to_top(be: u8) -> bool {
    matches!(be, 0b1111 | 0b1110 | 0b1100 | 0b1000)
}

const fn contiguous_from_bottom(be: u8) -> bool {
    matches!(be, 0b1111 | 0b0111 | 0b0011 | 0b0001)
}

fn identity(h: &Head) -> (u8, u16, u16) {
    // Format bit 0 (the header's size) may change with the address.
    (h.fmt_type() & !0x20, h.requester().0, h.tag())
}

/// Whether two headers are of the same TLP, some field apart.
pub(crate) fn same_tlp(a: &Head, b: &Head) -> bool {
    identity(a) == identity(b)
}

type Field = (&'static str, fn(&Head) -> u64, &'static str);

const COMMON: [Field; 9] = [
    ("format", |h| u64::from(h.fmt_type()), "PCIe 6.0 §2.2.1"),
    (
        "requester",
        |h| u64::from(h.requester().0),
        "PCIe 6.0 §2.2.6.2",
    ),
    ("tag", |h| u64::from(h.tag()), "PCIe 6.0 §2.2.6.2"),
    ("length", |h| u64::from(h.len_dw()), "PCIe 6.0 §2.2.2"),
    ("traffic class", |h| u64::from(h.tc()), "PCIe 6.0 §2.2.6.6"),
    (
        "attributes",
        |h| u64::from(h.no_snoop()) | u64::from(h.relaxed()) << 1 | u64::from(h.ido()) << 2,
        "PCIe 6.0 §2.2.6.3",
    ),
    ("poison", |h| u64::from(h.poisoned()), "PCIe 6.0 §2.7.2"),
    ("address type", |h| at(h), "PCIe 6.0 §2.2.4.1"),
    (
        "prefix",
        |h| h.pfx.map_or(0, |p| u64::from(p) | 1 << 32),
        "PCIe 6.0 §6.20",
    ),
];

const REQUEST: [Field; 2] = [
    (
        "byte enables",
        |h| u64::from(h.hdr[1] & 0xff),
        "PCIe 6.0 §2.2.5",
    ),
    ("address", |h| address(h), "PCIe 6.0 §2.2.4"),
];

const COMPLETION: [Field; 4] = [
    (
        "completer",
        |h| u64::from(h.completer().0),
        "PCIe 6.0 §2.2.9",
    ),
    (
        "status",
        |h| u64::from(h.hdr[1] >> 13 & 7),
        "PCIe 6.0 §2.2.9",
    ),
    (
        "byte count",
        |h| u64::from(h.byte_count()),
        "PCIe 6.0 §2.2.9",
    ),
    (
        "lower address",
        |h| u64::from(h.lower_addr()),
        "PCIe 6.0 §2.2.9",
    ),
];

const fn at(h: &Head) -> u64 {
    (h.hdr[0] >> 10 & 3) as u64
}

const fn address(h: &Head) -> u64 {
    if h.is_mem() {
        h.addr().0
    } else {
        h.hdr[2] as u64
    }
}

fn fields(h: &Head) -> impl Iterator<Item = &'static Field> {
    let (request, completion): (&[Field], &[Field]) = if h.is_cpl() {
        (&[], &COMPLETION)
    } else {
        (&REQUEST, &[])
    };
    COMMON.iter().chain(request).chain(completion)
}

/// Number of fields that differ.
pub(crate) fn differences(expected: &Head, got: &Head) -> usize {
    fields(expected)
        .filter(|(_, f, _)| f(expected) != f(got))
        .count()
}

/// The first field that differs.
pub(crate) fn difference(expected: &Head, got: &Head) -> Option<Error> {
    if expected == got {
        return None;
    }
    let found = fields(expected).find(|(_, f, _)| f(expected) != f(got));
    Some(match found {
        Some((name, f, clause)) => Error::new(
            name,
            format!("{:#x}", f(expected)),
            format!("{:#x}", f(got)),
            *clause,
        ),
        None => Error::new(
            "reserved bits",
            format!("{:x?}", expected.hdr),
            format!("{:x?}", got.hdr),
            "PCIe 6.0 §2.2",
        ),
    })
}

/// The header with its tag cleared.
pub(crate) fn without_tag(h: &Head) -> Head {
    let mut h = *h;
    h.hdr[0] &= !(1 << 23 | 1 << 19);
    h.hdr[1] &= !0xff00;
    h
}

/// A request of the memory port in the form of a header.
pub(crate) fn of_memory_request(r: &MemRequest) -> Head {
    Head::mem(&tlp::MemRequest {
        write: r.write,
        addr: BusAddr(r.addr.0),
        len_dw: r.len_dw,
        first_be: r.first_be,
        last_be: r.last_be,
        requester: r.requester,
        tag: r.tlp_tag,
        at: AddressType::Untranslated,
        no_snoop: false,
        relaxed: false,
        ido: false,
        tc: 0,
        pasid: None,
    })
}

/// A TLP in the form in which the memory port shows it.
pub(crate) fn at_memory(h: &Head, phys: PhysAddr) -> Head {
    Head::mem(&tlp::MemRequest {
        write: h.has_data(),
        addr: BusAddr(phys.0),
        len_dw: h.len_dw(),
        first_be: h.first_be(),
        last_be: h.last_be(),
        requester: h.requester(),
        tag: h.tag(),
        at: AddressType::Untranslated,
        no_snoop: false,
        relaxed: false,
        ido: false,
        tc: 0,
        pasid: None,
    })
}

/// Which payload bytes a request enables.
pub(crate) fn enabled_bytes(h: &Head) -> impl Fn(usize) -> bool + use<> {
    let end = usize::from(h.len_dw()) * 4;
    let (first, last) = (h.first_be(), h.last_be());
    let all = h.is_cpl();
    move |i| {
        if all || i >= end {
            true
        } else if i < 4 {
            first >> i & 1 != 0
        } else if i + 4 >= end {
            last >> (i % 4) & 1 != 0
        } else {
            true
        }
    }
}

/// Bytes of the request that a completion answers.
pub(crate) fn completion_bytes(request: &Head, h: &Head) -> u32 {
    if h.status() != CplStatus::Success || !h.has_data() {
        return 0;
    }
    if request.is_cfg() {
        return 4;
    }
    let room = (u32::from(h.len_dw()) * 4).saturating_sub(u32::from(h.lower_addr() & 3));
    room.min(u32::from(h.byte_count()))
}

/// Read Completion Boundary of the machine in bytes.
const RCB: u64 = 64;

/// A completion against the request that it answers (PCIe 6.0 §2.2.9, §2.3.1.1).
pub(crate) fn check_completion(t: &Transaction, h: &Head, max_payload: u64) -> Option<Error> {
    const CPL: &str = "PCIe 6.0 §2.2.9";
    let r = &t.head;
    let attr = |h: &Head| (h.tc(), h.no_snoop(), h.relaxed(), h.ido());
    if attr(r) != attr(h) {
        return Some(Error::new(
            "attributes",
            format!("{:?}", attr(r)),
            format!("{:?}", attr(h)),
            CPL,
        ));
    }
    let status = h.status();
    let right = match t.demand {
        Demand::Any => true,
        Demand::Success => status == CplStatus::Success,
        Demand::Status(s) => status == s,
        Demand::Fault => matches!(
            status,
            CplStatus::UnsupportedRequest | CplStatus::CompleterAbort
        ),
    };
    if !right {
        let expected = match t.demand {
            Demand::Status(s) => format!("{s:?}"),
            Demand::Fault => "UnsupportedRequest or CompleterAbort".to_owned(),
            _ => format!("{:?}", CplStatus::Success),
        };
        return Some(Error::new("status", expected, format!("{status:?}"), CPL));
    }
    let wants_data = status == CplStatus::Success && t.total != 0;
    if h.has_data() != wants_data {
        let say = |d| if d { "data" } else { "no data" };
        return Some(Error::new(
            "format",
            say(wants_data),
            say(h.has_data()),
            CPL,
        ));
    }
    if !wants_data {
        return None;
    }
    let left = t.total.saturating_sub(t.sent);
    if r.is_cfg() {
        let right = h.len_dw() == 1 && h.byte_count() == 4;
        return (!right).then(|| {
            let got = format!("{} DW, {} bytes", h.len_dw(), h.byte_count());
            Error::new("length", "1 DW, 4 bytes", got, CPL)
        });
    }
    if u32::from(h.byte_count()) != left {
        let got = h.byte_count().to_string();
        return Some(Error::new("byte count", left.to_string(), got, CPL));
    }
    let start = r.addr().0 + r.byte_span().0 + u64::from(t.sent);
    let lower = start & 0x7f;
    if u64::from(h.lower_addr()) != lower {
        let got = format!("{:#x}", h.lower_addr());
        return Some(Error::new("lower address", format!("{lower:#x}"), got, CPL));
    }
    let len = u64::from(h.len_dw()) * 4;
    let most = ((start & 3) + u64::from(left)).div_ceil(4) * 4;
    if len > most || len > max_payload {
        let expected = format!("at most {}", most.min(max_payload));
        return Some(Error::new(
            "length",
            expected,
            len.to_string(),
            "PCIe 6.0 §2.2.2",
        ));
    }
    let end = (start & !3) + len;
    if len < most && !end.is_multiple_of(RCB) {
        return Some(Error::new(
            "completion boundary",
            format!("a multiple of {RCB}"),
            format!("{end:#x}"),
            "PCIe 6.0 §2.3.1.1",
        ));
    }
    None
}
