use proptest::prelude::*;

use super::*;

fn request() -> impl Strategy<Value = MemRequest> {
    let at = prop::sample::select(vec![
        AddressType::Untranslated,
        AddressType::TranslationRequest,
        AddressType::Translated,
        AddressType::Reserved,
    ]);
    let pasid = prop::option::of((0..1_u32 << 20, any::<bool>(), any::<bool>()).prop_map(
        |(pasid, privileged, execute)| Pasid {
            pasid,
            privileged,
            execute,
        },
    ));
    let addr = prop_oneof![any::<u64>(), (0..1_u64 << 32)].prop_map(|a| BusAddr(a & !3));
    let fields = (1..=1024_u16, 0..16_u8, 0..16_u8, 0..1024_u16, 0..8_u8);
    (
        any::<[bool; 4]>(),
        addr,
        fields,
        any::<u16>().prop_map(Bdf),
        at,
        pasid,
    )
        .prop_map(
            |(
                [write, no_snoop, relaxed, ido],
                addr,
                (len_dw, first_be, last_be, tag, tc),
                requester,
                at,
                pasid,
            )| MemRequest {
                write,
                addr,
                len_dw,
                first_be,
                last_be,
                requester,
                tag,
                at,
                no_snoop,
                relaxed,
                ido,
                tc,
                pasid,
            },
        )
}

fn decode(h: &Head) -> MemRequest {
    MemRequest {
        write: h.is_mem_write(),
        addr: h.addr(),
        len_dw: h.len_dw(),
        first_be: h.first_be(),
        last_be: h.last_be(),
        requester: h.requester(),
        tag: h.tag(),
        at: h.at(),
        no_snoop: h.no_snoop(),
        relaxed: h.relaxed(),
        ido: h.ido(),
        tc: h.tc(),
        pasid: h.pasid(),
    }
}

/// First and last enabled byte, found byte by byte.
fn span(len_dw: u16, first_be: u8, last_be: u8) -> Option<(u64, u64)> {
    let enabled = (0..u64::from(len_dw) * 4).filter(|byte| {
        let (dw, lane) = (byte / 4, byte % 4);
        if dw == 0 {
            first_be >> lane & 1 != 0
        } else if dw + 1 == u64::from(len_dw) {
            last_be >> lane & 1 != 0
        } else {
            true
        }
    });
    let bytes: Vec<u64> = enabled.collect();
    Some((*bytes.first()?, *bytes.last()?))
}

proptest! {
    #[test]
    fn requests_come_back(r in request()) {
        let h = Head::mem(&r);
        prop_assert_eq!(decode(&h), r);
        prop_assert_eq!(h.is_4dw(), r.addr.0 >> 32 != 0);
        prop_assert_eq!(h.class(), if r.write { Class::Posted } else { Class::NonPosted });
        prop_assert!(h.is_mem() && !h.is_cpl() && !h.is_cfg() && !h.is_msg() && !h.poisoned());
    }

    #[test]
    fn with_addr_changes_the_address_alone(r in request(), to in any::<u64>(), high: bool) {
        let addr = BusAddr(if high { to } else { to >> 32 } & !3);
        let moved = Head::mem(&r).with_addr(addr);
        prop_assert_eq!(moved, Head::mem(&MemRequest { addr, ..r }));
    }

    /// For the byte enables that PCIe 6.0 §2.2.5 allows: one DW has no last enables, more
    /// have both.
    #[test]
    fn byte_span_covers_the_enabled_bytes(r in request(), single: bool, first in 0..16_u8, ends in (1..16_u8, 1..16_u8)) {
        let (len_dw, first_be, last_be) = if single {
            (1, first, 0)
        } else {
            (r.len_dw.max(2), ends.0, ends.1)
        };
        let h = Head::mem(&MemRequest { len_dw, first_be, last_be, ..r });
        let expected = span(len_dw, first_be, last_be).map_or((0, 0), |(a, b)| (a, b - a + 1));
        prop_assert_eq!(h.byte_span(), expected);
    }

    /// No header makes a decoder panic.
    #[test]
    fn any_header_decodes(hdr: [u32; 4], pfx: Option<u32>) {
        let h = Head { hdr, pfx };
        let _ = (decode(&h), h.byte_span(), h.class(), h.status(), h.byte_count());
        let _ = (h.target(), h.register(), h.completer(), h.lower_addr());
    }

    #[test]
    fn completion_status_comes_back(bits in 0..8_u8) {
        prop_assert_eq!(CplStatus::from_bits(bits).bits(), bits);
    }
}

fn plain() -> MemRequest {
    MemRequest {
        write: false,
        addr: BusAddr(0x8000_1000),
        len_dw: 1,
        first_be: 15,
        last_be: 0,
        requester: Bdf::new(3, 0, 0),
        tag: 0,
        at: AddressType::Untranslated,
        no_snoop: false,
        relaxed: false,
        ido: false,
        tc: 0,
        pasid: None,
    }
}

/// Written out by hand from the figures of PCIe 6.0 §2.2.
#[test]
fn golden_requests() {
    let h = Head::mem(&plain());
    assert_eq!(h.hdr, [0x0000_0001, 0x0300_000f, 0x8000_1000, 0]);
    assert_eq!(h.fmt_type(), fmt_type::MRD32);
    let h = Head::mem(&MemRequest {
        write: true,
        addr: BusAddr(0x12_3456_7898),
        len_dw: 1024,
        first_be: 8,
        last_be: 3,
        tag: 0x3a5,
        at: AddressType::Translated,
        no_snoop: true,
        relaxed: true,
        ido: true,
        tc: 5,
        pasid: Some(Pasid {
            pasid: 0xa_bcde,
            privileged: true,
            execute: false,
        }),
        ..plain()
    });
    assert_eq!(h.hdr, [0x60dc_3800, 0x0300_a538, 0x0000_0012, 0x3456_7898]);
    assert_eq!(h.pfx, Some(0x918a_bcde));
    assert_eq!(h.fmt_type(), fmt_type::MWR64);
    assert_eq!(h.byte_span(), (3, 4096 - 3 - 2));
}

#[test]
fn golden_completion_and_configuration() {
    let cpl = Head {
        hdr: [0x4a00_0010, 0x0100_0044, 0x0300_2a04, 0],
        pfx: None,
    };
    assert!(cpl.is_cpl() && cpl.has_data() && cpl.class() == Class::Completion);
    assert_eq!(cpl.fmt_type(), fmt_type::CPLD);
    assert_eq!((cpl.completer(), cpl.requester()), (Bdf(0x100), Bdf(0x300)));
    assert_eq!(
        (cpl.tag(), cpl.byte_count(), cpl.lower_addr()),
        (0x2a, 0x44, 4)
    );
    assert_eq!(cpl.status(), CplStatus::Success);
    let abort = Head {
        hdr: [0x0a00_0000, 0x0100_8004, 0x0300_2a00, 0],
        pfx: None,
    };
    assert_eq!(abort.status(), CplStatus::CompleterAbort);
    assert_eq!(abort.fmt_type(), fmt_type::CPL);
    let cfg = Head {
        hdr: [0x0500_0001, 0x0000_000f, 0x0308_0104, 0],
        pfx: None,
    };
    assert!(cfg.is_cfg() && cfg.class() == Class::NonPosted);
    assert_eq!(cfg.fmt_type(), fmt_type::CFGRD1);
    assert_eq!((cfg.target(), cfg.register()), (Bdf::new(3, 1, 0), 0x104));
}
