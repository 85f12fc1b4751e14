//! Accesses to registers: halves of those of 8 bytes, and what §5 leaves unspecified.

use crate::bench::reg;
use crate::rig::{Request, Rig, Ttyp};

const A: u64 = 0xaaaa_5555_a5a5_5a5a;

/// Registers of 8 bytes, or two of 4, and the bits that hold what is written.
const WRITABLE: [(u32, u64); 8] = [
    (reg::PQB, 0x003f_ffff_ffff_fc1f),
    (96, u64::MAX),  // iohpmcycles
    (104, u64::MAX), // iohpmctr1
    (352, !0x7fff),  // iohpmevt1 without eventID
    (reg::TR_REQ_IOVA, !0xfff),
    (reg::ICVEC, 0xffff),
    (reg::MSI_CFG_TBL + 0x30, 0x00ff_ffff_ffff_fffc),
    (reg::MSI_CFG_TBL + 0x38, 0x1_ffff_ffff),
];

fn setup() -> Rig {
    let mut rig = Rig::new(22);
    rig.write(reg::IOCOUNTINH, 4, 0xffff_ffff);
    rig
}

/// Every register, eight bytes a time.
fn all(rig: &mut Rig) -> Vec<u64> {
    (0..4096).step_by(8).map(|o| rig.read(o, 8)).collect()
}

#[test]
fn halves_of_registers() {
    let mut rig = setup();
    let low = 0xffff_ffff;
    for (offset, mask) in WRITABLE {
        let a = A & mask;
        let b = !A & mask;
        rig.write(offset, 8, a);
        assert_eq!(rig.read(offset, 8), a, "{offset}");
        assert_eq!(rig.read(offset, 4), a & low, "{offset}");
        assert_eq!(rig.read(offset + 4, 4), a >> 32, "{offset}");
        rig.write(offset, 4, b & low);
        assert_eq!(rig.read(offset, 8), a & !low | b & low, "{offset}");
        rig.write(offset, 8, a);
        rig.write(offset + 4, 4, b >> 32);
        assert_eq!(rig.read(offset, 8), b & !low | a & low, "{offset}");
    }
}

/// The high half of `ddtp` alone does nothing; the low half activates both (IOMMU §5.5).
#[test]
fn halves_of_ddtp() {
    let mut rig = setup();
    let table = 0x8a_5123_4000_u64;
    let value = table >> 12 << 10 | 2;
    rig.write(reg::DDTP + 4, 4, value >> 32);
    assert_eq!(rig.read(reg::DDTP, 4), 0, "not busy, and Off");
    let request = Request::new(Ttyp::UntransRd, 3, 0x1000);
    rig.fault(request, 256);
    rig.write(reg::DDTP, 4, value & 0xffff_ffff);
    while rig.read(reg::DDTP, 4) & 1 << 4 != 0 {}
    assert_eq!(rig.read(reg::DDTP, 8), value);
    rig.fault(request, 258);
    assert_eq!(rig.accesses[0].addr, table + 64 * 3);
}

/// A half changes only with all of its bytes; a read answers all eight, whatever it asks for.
#[test]
fn byte_enables() {
    let mut rig = setup();
    for (offset, mask) in WRITABLE {
        for enables in 0..256 {
            rig.write(offset, 8, A);
            rig.access(true, offset, enables, !A);
            let whole = |half: u32| {
                if enables >> half & 0xf == 0xf {
                    0xffff_ffff
                } else {
                    0
                }
            };
            let written = whole(0) | whole(4) << 32;
            let expected = (A & !written | !A & written) & mask;
            assert_eq!(
                rig.read(offset, 8) & mask,
                expected,
                "{offset} {enables:#x}"
            );
            assert_eq!(rig.access(false, offset, enables, 0) & mask, expected);
        }
    }
}

/// Unaligned accesses and those of other sizes are answered and change nothing.
#[test]
fn unaligned_accesses() {
    let mut rig = setup();
    let before = all(&mut rig);
    for offset in 0..4096 {
        for enables in [0x01, 0x07, 0x18, 0x3c, 0x80, 0xe0] {
            rig.access(true, offset, enables, u64::MAX);
            let value = rig.access(false, offset, enables, 0);
            assert_eq!(value, before[offset as usize / 8], "{offset} {enables:#x}");
        }
    }
    assert_eq!(all(&mut rig), before);
    assert_eq!(rig.records(), []);
}
