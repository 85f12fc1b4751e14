//! The register map, reset, `capabilities`, `fctl` and `ddtp` (IOMMU §5 to §5.5).

mod reset;

use super::fault_queue::Setup;
use super::queue::DEVICE;
use crate::bench::{command, csr, reg};
use crate::rig::{Answer, Context, Message, Request, Rig, Ttyp, Vm};
use crate::tables::{SV39, pte};

const IOVA: u64 = 0x12_3456_7000;
const PAGE: u64 = 0x9_8765_4000;
const ONES: u64 = u64::MAX;
const OFF: u64 = 0;
const BARE: u64 = 1;
/// `ddtp`.
const BUSY: u64 = 1 << 4;
const READ: Request = Request::new(Ttyp::UntransRd, DEVICE, IOVA);

/// Full, flat MSI page tables, the least, the other choices.
fn configurations() -> [Rig; 4] {
    [
        Rig::new(51),
        Rig::msi_flat(51),
        Rig::minimal(51),
        Rig::other(51),
    ]
}

fn capabilities() -> [u64; 4] {
    configurations().map(|mut rig| rig.read(reg::CAPABILITIES, 8))
}

/// `capabilities.version` is the first byte, and of the queues' indexes 1 is one entry, whatever the
/// byte order of what they hold.
#[test]
fn registers_are_little_endian() {
    for mut rig in [Rig::new(51), Rig::other(51)] {
        for be in [0, 1] {
            rig.set_fctl(be);
            assert_eq!(rig.access(false, 0, 0xff, 0) & 0xff, 0x10);
            rig.sync(&[command::iodir(None)]);
            assert_eq!(rig.read(reg::CQT, 4), 2);
            let row = reg::MSI_CFG_TBL;
            rig.access(true, row, 0xff, 0x0011_2233_4455_6674);
            assert_eq!(rig.access(false, row, 0xff, 0), 0x0011_2233_4455_6674);
            assert_eq!(rig.read(row, 4), 0x4455_6674);
            assert_eq!(rig.read(row + 4, 4), 0x0011_2233);
        }
    }
}

/// None has the value of its neighbours, and nothing else reads anything but 0.
#[test]
fn each_register_is_at_its_offset() {
    let mut rig = Rig::new(52);
    rig.set_fctl(2); // wires
    rig.write(92, 4, 0x1ff); // no counter counts
    let mut vm = Vm::new(&mut rig, SV39, 0);
    vm.map_first(&mut rig, IOVA, 0, pte::at(PAGE, pte::ALL));
    // EN_ATS and EN_PRI.
    let ddt = rig.directory(&[DEVICE], Context::of(&vm).tc(6));
    let pages = rig.page();
    rig.write(56, 8, pages >> 12 << 10 | 4);
    rig.write(80, 4, csr::ENABLE);
    rig.write(76, 4, csr::ENABLE | csr::INTERRUPT);
    rig.run(10);
    // Of the commands two have been for the directory. The fifth from now is illegal.
    let commands = rig.next_command() & !0xfff;
    let fence = command::fence(None, false);
    rig.hand_over(&[fence, fence, fence, fence, [0, 0], fence]);
    for _ in 0..3 {
        rig.ask(Request::new(Ttyp::UntransRd, DEVICE + 1, 0));
    }
    for _ in 0..5 {
        rig.message(&Message::Page {
            device_id: DEVICE,
            process_id: None,
            privileged: false,
            exec: false,
            rwl: [true, false, false],
            prgi: 0,
            addr: IOVA,
        });
    }
    rig.run(200);
    let on = csr::ENABLE | csr::ON;
    let faults = rig.fault_queue();
    let tr_req_ctl = u64::from(DEVICE) << 40 | 1 << 3;
    // Software's, in the order of their offsets.
    let mut expected = vec![
        (8, 4, 2),
        (16, 8, ddt >> 12 << 10 | 2),
        (24, 8, commands >> 12 << 10 | 6),
        (36, 4, 8),
        (40, 8, faults >> 12 << 10 | 6),
        (48, 4, 1),
        (56, 8, pages >> 12 << 10 | 4),
        (64, 4, 9),
        (72, 4, on | csr::ILLEGAL),
        (76, 4, on | csr::INTERRUPT),
        (80, 4, on),
        (92, 4, 0x1ff),
        (96, 8, 0x0123_4567_89ab_cdef),
        (600, 8, IOVA),
        (608, 8, tr_req_ctl),
        (624, 4, 0x0abc_0def),
        (760, 8, 0x4321),
    ];
    for i in 0..8 {
        // Of the third counter OF is set.
        let of = u64::from(i == 2) << 63;
        expected.push((104 + 8 * i, 8, 0xc0de_0000_0000_0000 | u64::from(i)));
        expected.push((352 + 8 * i, 8, of | (u64::from(i + 1) * 0x1_0001)));
    }
    for i in 0..16 {
        expected.push((768 + 16 * i, 8, 0x00ad_d000_0000_0000 | u64::from(i) << 2));
        expected.push((776 + 16 * i, 4, 0xda7a_0000 | u64::from(i)));
        expected.push((780 + 16 * i, 4, 1));
    }
    for &(offset, size, value) in &expected {
        // Those that are set up, and whose writes do something.
        if ![8, 16, 24, 36, 40, 56, 72, 76, 80].contains(&offset) {
            rig.write(offset, size, value);
        }
    }
    rig.write(608, 8, tr_req_ctl | 1);
    rig.run(200);
    // What the IOMMU says.
    expected.extend([
        (0, 8, 0x0ff8_efef_cf10),
        (32, 4, 6),
        (52, 4, 3),
        (68, 4, 5),
        (84, 4, 2),
        (88, 4, 1 << 3),
        (616, 8, PAGE >> 12 << 10),
    ]);
    let mut words = vec![0; 1024];
    for (offset, size, value) in expected {
        words[offset as usize / 4] = value & 0xffff_ffff;
        if size == 8 {
            words[offset as usize / 4 + 1] = value >> 32;
        }
    }
    for (offset, word) in (0..).step_by(4).zip(words) {
        assert_eq!(rig.read(offset, 4), word, "{offset}");
    }
}

/// Also after a write, which changes nothing else.
#[test]
fn reserved_offsets_read_0() {
    let mut rig = Rig::new(52);
    rig.write(reg::IOCOUNTINH, 4, ONES);
    let all = |rig: &mut Rig| {
        let words = (0..4096).step_by(8).map(|offset| rig.read(offset, 8));
        words.collect::<Vec<u64>>()
    };
    let before = all(&mut rig);
    for offset in [12].into_iter().chain(628..760).chain(1024..4096) {
        if offset % 4 == 0 {
            rig.write(offset, 4, 0xffff_ffff);
            assert_eq!(rig.read(offset, 4), 0, "{offset}");
        }
        if offset % 8 == 0 {
            rig.write(offset, 8, ONES);
            assert_eq!(rig.read(offset, 8), 0, "{offset}");
        }
    }
    assert_eq!(all(&mut rig), before);
}

/// By bit and name: in which of the configurations.
const CAPABILITIES: [(u32, &str, [bool; 4]); 25] = {
    const ALL: [bool; 4] = [true; 4];
    const NOT_MINIMAL: [bool; 4] = [true, true, false, true];
    const MANY: [bool; 4] = [true, false, false, true];
    const FULL: [bool; 4] = [true, false, false, false];
    [
        (8, "Sv32", MANY),
        (9, "Sv39", ALL),
        (10, "Sv48", NOT_MINIMAL),
        (11, "Sv57", NOT_MINIMAL),
        (14, "Svrsw60t59b", MANY),
        (15, "Svpbmt", NOT_MINIMAL),
        (16, "Sv32x4", MANY),
        (17, "Sv39x4", MANY),
        (18, "Sv48x4", FULL),
        (19, "Sv57x4", FULL),
        (21, "AMO_MRIF", MANY),
        (22, "MSI_FLAT", NOT_MINIMAL),
        (23, "MSI_MRIF", MANY),
        (24, "AMO_HWAD", MANY),
        (25, "ATS", MANY),
        (26, "T2GPA", MANY),
        (27, "END", FULL),
        (30, "HPM", MANY),
        (31, "DBG", MANY),
        (38, "PD8", MANY),
        (39, "PD17", MANY),
        (40, "PD20", FULL),
        (41, "QOSID", MANY),
        (42, "NL", MANY),
        (43, "S", MANY),
    ]
};

#[test]
fn each_capability_is_in_its_bit() {
    let values = capabilities();
    for (bit, name, there) in CAPABILITIES {
        assert_eq!(values.map(|v| v >> bit & 1 == 1), there, "{name}");
    }
    assert_eq!(values.map(|v| v >> 32 & 0x3f), [56, 56, 56, 44], "PAS");
    // Some of those that the others have together or not at all.
    let parts = ["Sv39", "Sv39x4", "MSI_FLAT", "ATS", "PD8"];
    let value = Rig::partial(51).read(reg::CAPABILITIES, 8);
    for (bit, name, _) in CAPABILITIES {
        assert_eq!(value >> bit & 1 == 1, parts.contains(&name), "{name}");
    }
}

#[test]
fn sv48_comes_with_sv39_and_sv57_with_sv48() {
    let schemes = capabilities().map(|v| [9, 10, 11].map(|bit| v >> bit & 1 == 1));
    assert_eq!(schemes.map(|[_, sv48, _]| sv48), [true, true, false, true]);
    for [sv39, sv48, sv57] in schemes {
        assert!(sv39 || !sv48);
        assert!(sv48 || !sv57);
    }
}

/// IGS, PAS and the version have more than a bit.
#[test]
fn reserved_bits_of_capabilities_are_0() {
    let known = CAPABILITIES
        .iter()
        .fold(0, |bits, (bit, ..)| bits | 1 << bit);
    for value in capabilities() {
        assert_eq!(value & !(known | 0xff | 3 << 28 | 0x3f << 32), 0);
    }
}

#[test]
fn igs_is_not_reserved() {
    // Both, by message, by wire.
    assert_eq!(capabilities().map(|v| v >> 28 & 3), [2, 0, 1, 0]);
}

#[test]
fn with_hpm_there_are_two_counters_of_32_bits_at_least() {
    for mut rig in configurations() {
        let hpm = rig.read(reg::CAPABILITIES, 8) >> 30 & 1 == 1;
        rig.write(reg::IOCOUNTINH, 4, ONES);
        for counter in [reg::IOHPMCYCLES, reg::IOHPMCTR] {
            for bit in 0..32 {
                rig.write(counter, 8, 1 << bit);
                let expected = if hpm { 1 << bit } else { 0 };
                assert_eq!(rig.read(counter, 8), expected);
            }
        }
    }
}

/// BE, WSI and GXL as far as they can be chosen; the others of BE and WSI are what there is.
#[test]
fn fctl_reads_nothing_but_its_fields() {
    for (mut rig, [zero, ones]) in
        configurations()
            .into_iter()
            .zip([[0, 7], [0, 0], [2, 2], [1, 1]])
    {
        for _ in 0..2 {
            rig.set_fctl(ONES);
            assert_eq!(rig.read(reg::FCTL, 4), ones);
            rig.set_fctl(0);
            assert_eq!(rig.read(reg::FCTL, 4), zero);
        }
    }
}

/// Off refuses a request, Bare passes it, and a directory is read where its levels say, if the ID of the
/// device is not too long for them.
#[test]
fn off_bare_and_levels_are_supported() {
    // By the length of the device's ID: with one level, with two, with three.
    let devices = [0x25, 0x1234, 0x12_3456];
    // Bits of an index into the last table.
    for (mut rig, low, levels) in [
        (Rig::new(53), 6, 3),
        (Rig::msi_flat(53), 6, 3),
        (Rig::minimal(53), 7, 3),
        (Rig::other(53), 6, 2),
    ] {
        let root = rig.page();
        for before in [OFF, BARE] {
            for (i, device) in devices.into_iter().enumerate() {
                let request = Request::new(Ttyp::UntransRd, device, IOVA);
                rig.set_ddtp(OFF, root);
                assert_eq!(rig.ask(request).cause, 256);
                rig.run(100);
                rig.set_ddtp(BARE, root);
                assert_eq!(rig.translate(request).spa, IOVA);
                assert_eq!(rig.accesses, []);
                for level in 0..levels {
                    rig.set_ddtp(before, root);
                    rig.set_ddtp(level + 2, root);
                    assert_eq!(rig.read(reg::DDTP, 8), root >> 12 << 10 | (level + 2));
                    let answer = rig.ask(request);
                    rig.run(100);
                    if i as u64 > level {
                        assert_eq!(answer.cause, 260, "{device:#x} {level}");
                        continue;
                    }
                    assert_eq!(answer.cause, 258, "{device:#x} {level}");
                    let device = u64::from(device);
                    let offset = match level {
                        0 => device << (12 - low),
                        1 => device >> low << 3,
                        _ => device >> (low + 9) << 3,
                    };
                    assert_eq!(rig.accesses[0].addr, root + offset);
                }
            }
        }
    }
}

/// Each of its bits, at each number of levels.
#[test]
fn ppn_is_the_root_of_the_directory() {
    let mut rig = Rig::new(53);
    let last: u64 = ((1 << 44) - 1) << 12;
    for root in (12..56).flat_map(|bit| [1 << bit, last ^ 1 << bit]) {
        for mode in [2, 3, 4] {
            rig.set_ddtp(OFF, root);
            rig.set_ddtp(mode, root);
            rig.fault(READ, 258);
            let index = if mode == 2 { DEVICE } else { 0 };
            assert_eq!(rig.accesses[0].addr, root + 64 * u64::from(index));
        }
    }
}

/// The mode stays what it was, for requests too.
#[test]
fn a_reserved_mode_is_not_taken() {
    for (mut rig, first) in [
        (Rig::new(54), 5),
        (Rig::minimal(54), 5),
        (Rig::other(54), 4),
    ] {
        let root = rig.page();
        for mode in first..16 {
            for (before, cause) in [(OFF, 256), (BARE, 0)] {
                rig.set_ddtp(OFF, root);
                rig.set_ddtp(before, root);
                rig.set_ddtp(mode, root);
                assert_eq!(rig.read(reg::DDTP, 8), root >> 12 << 10 | before);
                assert_eq!(rig.ask(READ).cause, cause, "{mode}");
            }
        }
    }
}

/// A request whose device context is held back.
fn under_way() -> Setup {
    let mut s = Setup::new(0);
    s.rig.held = Some(s.ddt + 64 * u64::from(DEVICE));
    s.rig.begin(Setup::request(Ttyp::UntransRd, IOVA));
    s.rig.run(100);
    s
}

fn busy(rig: &mut Rig) -> bool {
    rig.read(reg::DDTP, 8) & BUSY != 0
}

#[test]
fn ddtp_is_busy_until_the_operation_has_ended() {
    for size in [4, 8] {
        let mut s = under_way();
        let ddtp = s.ddt >> 12 << 10 | OFF;
        assert!(!busy(&mut s.rig), "no write");
        s.rig.write(reg::DDTP, size, ddtp & ONES >> (64 - 8 * size));
        for _ in 0..20 {
            assert_eq!(s.rig.read(reg::DDTP, 8), ddtp | BUSY);
            s.rig.run(50);
        }
        s.rig.held = None;
        s.rig.run(500);
        assert_eq!(s.rig.read(reg::DDTP, 8), ddtp);
    }
}

/// What was under way has been answered, and the new mode is in effect.
#[test]
fn with_busy_0_the_operation_has_ended() {
    for wait in 0..30 {
        let mut s = under_way();
        s.rig.write(reg::DDTP, 8, s.ddt >> 12 << 10 | OFF);
        s.rig.run(wait);
        assert!(busy(&mut s.rig) && !s.rig.answered());
        s.rig.held = None;
        while busy(&mut s.rig) {}
        assert!(s.rig.answered());
        s.rig.finish();
        assert_eq!(s.rig.ask(READ).cause, 256);
    }
}

#[test]
fn reserved_bits_of_ddtp_read_0() {
    let mut rig = Rig::new(55);
    let ppn = ((1 << 44) - 1) << 10;
    for mode in 0..5 {
        rig.set_ddtp(OFF, 0);
        rig.write(reg::DDTP, 8, !0xf | mode);
        rig.run(100);
        assert_eq!(rig.read(reg::DDTP, 8), ppn | mode);
    }
}

/// It is translated, or aborted as one that comes with mode Off; one that comes later is aborted.
#[test]
fn a_change_to_off_lets_requests_under_way_end() {
    let by_old_mode = |answer: &Answer| (answer.status, answer.cause, answer.spa) == (0, 0, PAGE);
    let aborted = |answer: &Answer| answer.status != 0 && answer.cause == 256;
    let accesses = {
        let mut s = Setup::new(0);
        assert!(by_old_mode(
            &s.rig.ask(Setup::request(Ttyp::UntransRd, IOVA))
        ));
        s.rig.accesses.clone()
    };
    assert!(accesses.len() > 10, "directories and both stages");
    for held in accesses.iter().map(|access| access.addr) {
        let mut s = Setup::new(0);
        let request = Setup::request(Ttyp::UntransRd, IOVA);
        s.rig.held = Some(held);
        s.rig.begin(request);
        s.rig.run(300);
        s.rig.write(reg::DDTP, 8, s.ddt >> 12 << 10 | OFF);
        s.rig.run(100);
        assert!(!s.rig.answered());
        s.rig.held = None;
        let answer = s.rig.finish();
        assert!(by_old_mode(&answer) || aborted(&answer), "{answer:x?}");
        while busy(&mut s.rig) {}
        assert!(aborted(&s.rig.ask(request)));
    }
}

/// To every mode, and to Off too: it has not taken effect until the bridge has made visible what was
/// translated before it.
#[test]
fn a_change_of_the_mode_waits_for_the_bridge() {
    for mode in [OFF, BARE, 2, 3, 4] {
        let mut rig = Rig::new(54);
        let root = rig.page();
        rig.set_ddtp(BARE, root);
        rig.translate(READ);
        rig.undrained = true;
        rig.write(reg::DDTP, 8, root >> 12 << 10 | mode);
        for _ in 0..20 {
            rig.run(50);
            assert_eq!(rig.read(reg::DDTP, 4) & BUSY, BUSY, "{mode}");
        }
        rig.undrained = false;
        rig.run(50);
        assert_eq!(rig.read(reg::DDTP, 8), root >> 12 << 10 | mode);
        assert_eq!(rig.ask(READ).cause == 256, mode == OFF);
    }
}
