//! Requests of the CPUs.

use tlproof_golden::{CpuRequest, Judge, Tap};
use tlproof_pcie::tlp::fmt_type;
use tlproof_pcie::{Bdf, Head};

use crate::bench::*;
use crate::streams::*;

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
