//! What a configuration leaves out of a feature that it has, each alone, and what it chooses: IOMMU
//! §2.1.4, §2.2.4, §3.1.3, §5.3, §8.1.

use super::queue::{ACTIVE, COMMANDS, FAULTS, PAGES};
use crate::bench::{csr, reg};
use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, SV48, SV57, pte, tc};

const DEVICE: u32 = 5;
const PROCESS: u32 = 3;
/// Addresses that RV32 schemes can map, too.
const IOVA: u64 = 0x3456_7000;
const GPA: u64 = 0x2_7654_3000;
const PAGE: u64 = 0x1_8765_4000;

/// Bits of `tc`.
const EN_ATS: u64 = 1 << 1;
const EN_PRI: u64 = 1 << 2;
const T2GPA: u64 = 1 << 3;
const SBE: u64 = 1 << 10;
const SXL: u64 = 1 << 11;
/// Bit of `fctl`.
const GXL: u64 = 1 << 2;
/// The end of memory with PAS 44, and the page before it.
const END: u64 = 1 << 44;
const LAST: u64 = END - 0x1000;
/// The mode of `iosatp` and `iohgatp` that is Sv32 and Sv32x4 with SXL and GXL.
const SV32: u64 = 8;

const READ: Request = Request::new(Ttyp::UntransRd, DEVICE, IOVA);

/// A device whose context the tests choose.
struct Setup {
    rig: Rig,
    vm: Vm,
    ddt: u64,
}

impl Setup {
    /// [`IOVA`] is [`PAGE`], by way of [`GPA`] if there are both stages.
    fn new(mut rig: Rig, first: u64, second: u64) -> Self {
        let big = rig.read(reg::FCTL, 4) & 1 == 1;
        let mut vm = Vm::with(&mut rig, first, second, false, [big; 2]);
        if first != 0 {
            let to = if second == 0 { PAGE } else { GPA };
            vm.map_first(&mut rig, IOVA, 0, pte::at(to, pte::ALL));
        }
        if second != 0 {
            let gpa = if first == 0 { IOVA } else { GPA };
            vm.map_second(&mut rig, gpa, 0, pte::at(PAGE, pte::ALL));
        }
        let ddt = rig.directory(&[DEVICE], Context::default());
        Self { rig, vm, ddt }
    }

    /// With PD8, ATS and the first format of each stage alone.
    fn partial(first: u64, second: u64) -> Self {
        Self::new(Rig::partial(63), first, second)
    }

    /// Big-endian, with PAS 44.
    fn other(first: u64, second: u64) -> Self {
        Self::new(Rig::other(63), first, second)
    }

    fn set(&mut self, context: Context) {
        self.rig.set_context(self.ddt, DEVICE, context);
        self.rig.forget();
    }

    fn translates(&mut self, context: Context, to: u64) {
        self.set(context);
        assert_eq!(self.rig.translate(READ).spa, to, "{context:x?}");
    }

    fn is_misconfigured(&mut self, context: Context) {
        self.set(context);
        self.rig.fault(READ, 259);
    }

    /// The command stops the queue, which goes on with the other in its place.
    fn is_illegal(&mut self, command: [u64; 2], mended: [u64; 2]) {
        let head = self.rig.read(reg::CQH, 4);
        let slot = self.rig.next_command();
        self.rig.hand_over(&[command]);
        self.rig.run(200);
        assert_eq!(self.rig.read(reg::CQH, 4), head, "{command:x?}");
        let status = self.rig.read(reg::CQCSR, 4);
        assert_ne!(status & csr::ILLEGAL, 0, "{command:x?}");
        self.rig.store(slot, mended[0]);
        self.rig.store(slot + 8, mended[1]);
        self.rig.write(reg::CQCSR, 4, csr::ENABLE | csr::ILLEGAL);
        self.rig.submit(&[]);
    }
}

#[test]
fn t2gpa_needs_its_capability() {
    let mut s = Setup::partial(SV39, SV39);
    let context = Context::of(&s.vm).tc(EN_ATS);
    s.translates(context, PAGE);
    s.is_misconfigured(context.tc(T2GPA));
}

#[test]
fn pd17_and_pd20_need_their_capabilities() {
    let mut s = Setup::partial(SV39, 0);
    let root = s.vm.table(&mut s.rig);
    let process = Process::of(&s.vm);
    s.rig
        .set_process(&mut s.vm, root, pd::PD8, 0, process, false);
    // DPE: the process is 0.
    let context = |mode: u64| Context {
        tc: tc::V | tc::PDTV | 1 << 9,
        fsc: mode << 60 | root >> 12,
        ..Context::default()
    };
    s.translates(context(pd::PD8), PAGE);
    for mode in [pd::PD17, pd::PD20] {
        s.is_misconfigured(context(mode));
    }
    // PD20 where there is PD17.
    let mut s = Setup::other(0, 0);
    let empty = s.rig.page();
    for (mode, cause) in [(pd::PD17, 266), (pd::PD20, 259)] {
        s.set(Context {
            tc: tc::V | tc::PDTV | 1 << 9 | SBE,
            fsc: mode << 60 | empty >> 12,
            ..Context::default()
        });
        assert_eq!(s.rig.ask(READ).cause, cause);
    }
}

#[test]
fn sv48_and_sv57_need_their_capabilities() {
    let mut s = Setup::partial(SV39, 0);
    let context = Context::of(&s.vm);
    s.translates(context, PAGE);
    for mode in [SV48, SV57] {
        s.is_misconfigured(Context {
            fsc: mode << 60 | context.fsc & !(0xf << 60),
            ..context
        });
    }
}

#[test]
fn sv48x4_and_sv57x4_need_their_capabilities() {
    for mut s in [Setup::partial(0, SV39), Setup::other(0, SV39)] {
        let sbe = (s.rig.read(reg::FCTL, 4) & 1) * SBE;
        let context = Context::of(&s.vm).tc(sbe);
        s.translates(context, PAGE);
        for mode in [SV48, SV57] {
            s.is_misconfigured(Context {
                iohgatp: mode << 60 | context.iohgatp & !(0xf << 60),
                ..context
            });
        }
    }
}

#[test]
fn sv32_needs_its_capability() {
    let mut s = Setup::partial(0, 0);
    let context = Context {
        tc: tc::V | SXL,
        ..Context::default()
    };
    s.translates(context, IOVA);
    let table = s.rig.page();
    s.is_misconfigured(Context {
        fsc: SV32 << 60 | table >> 12,
        ..context
    });
}

#[test]
fn sv32x4_needs_its_capability() {
    let mut rig = Rig::partial(63);
    rig.set_fctl(GXL);
    assert_eq!(rig.read(reg::FCTL, 4) & GXL, GXL);
    let mut s = Setup::new(rig, 0, 0);
    let context = Context {
        tc: tc::V | SXL,
        ..Context::default()
    };
    s.translates(context, IOVA);
    let table = s.rig.pages(4);
    s.is_misconfigured(Context {
        iohgatp: SV32 << 60 | table >> 12,
        ..context
    });
}

/// Of a process context: cause 267.
#[test]
fn schemes_of_a_process_need_their_capabilities() {
    let mut s = Setup::partial(SV39, 0);
    let root = s.vm.table(&mut s.rig);
    let good = Process::of(&s.vm);
    for (bits, mode, expected) in [
        (0, SV39, Ok(PAGE)),
        (0, SV48, Err(267)),
        (0, SV57, Err(267)),
        (SXL, 0, Ok(IOVA)),
        (SXL, SV32, Err(267)),
    ] {
        let process = Process {
            fsc: mode << 60 | good.fsc & !(0xf << 60),
            ..good
        };
        s.rig
            .set_process(&mut s.vm, root, pd::PD8, PROCESS, process, false);
        s.set(Context {
            tc: tc::V | tc::PDTV | bits,
            fsc: pd::PD8 << 60 | root >> 12,
            ..Context::default()
        });
        let request = READ.of(PROCESS);
        match expected {
            Ok(page) => assert_eq!(s.rig.translate(request).spa, page),
            Err(cause) => {
                s.rig.fault(request, cause);
            }
        }
    }
}

/// IODIR.INVAL_PDT; with PD8 it has 8 bits.
#[test]
fn a_pid_wider_than_supported_is_illegal() {
    let mut s = Setup::partial(0, 0);
    let inval_pdt = |pid: u64| {
        [
            3 | 1 << 7 | pid << 12 | 1 << 33 | u64::from(DEVICE) << 40,
            0,
        ]
    };
    s.rig.submit(&[inval_pdt(0), inval_pdt(0xff)]);
    for bit in 8..20 {
        s.is_illegal(inval_pdt(1 << bit | 3), inval_pdt(3));
    }
}

/// Bits 34 and 73, of IOTINVAL.VMA and of GVMA, whether an address is named or not.
#[test]
fn nl_and_s_need_their_capabilities() {
    let mut s = Setup::partial(0, 0);
    let addr = IOVA >> 12 << 10;
    for kind in [1, 1 | 1 << 7 | 1 << 33] {
        for av in [0, 1 << 10] {
            let good = [kind | av, addr];
            s.rig.submit(&[good]);
            s.is_illegal([kind | av | 1 << 34, addr], good);
            s.is_illegal([kind | av, addr | 1 << 9], good);
        }
    }
}

/// It is big-endian, and nothing else.
#[test]
fn sbe_is_that_of_fctl_without_end() {
    let mut s = Setup::other(0, 0);
    assert_eq!(s.rig.read(reg::FCTL, 4) & 1, 1);
    let context = Context {
        tc: tc::V,
        ..Context::default()
    };
    s.translates(context.tc(SBE), IOVA);
    s.is_misconfigured(context);
    let mut s = Setup::other(SV39, SV39);
    let context = Context::of(&s.vm);
    s.translates(context.tc(SBE), PAGE);
    s.is_misconfigured(context);
}

/// Sv32 is there, and nothing is translated.
#[test]
fn sxl_needs_a_writable_gxl() {
    let mut s = Setup::other(0, 0);
    s.rig.set_fctl(GXL | 1);
    assert_eq!(s.rig.read(reg::FCTL, 4) & GXL, 0);
    let context = Context {
        tc: tc::V | SBE,
        ..Context::default()
    };
    s.translates(context, IOVA);
    s.is_misconfigured(context.tc(SXL));
}

/// Seven bits of RCID, five of MCID.
#[test]
fn qos_ids_wider_than_supported_are_misconfigured() {
    let mut s = Setup::other(SV39, 0);
    let context = Context::of(&s.vm).tc(SBE);
    for bit in 40..64 {
        let wide = Context {
            ta: context.ta | 1 << bit,
            ..context
        };
        if matches!(bit, 40..47 | 52..57) {
            s.translates(wide, PAGE);
        } else {
            s.is_misconfigured(wide);
        }
    }
}

/// Beyond PAS, that is from bit 32 of a PPN on. What is not in use does not matter.
#[test]
fn addresses_in_a_context_are_checked_where_it_is_located() {
    let mut s = Setup::other(SV39, SV39);
    let both = Context::of(&s.vm).tc(SBE);
    let bare = Context {
        tc: both.tc,
        ..Context::default()
    };
    let table = s.rig.page() >> 12;
    for bit in 28..44 {
        let wide = bit >= 32;
        let ppn = 1 << bit;
        // The cause of an empty table, where it is not misconfigured.
        let mut expect = |context: Context, cause: u64| {
            s.set(context);
            let expected = if wide { 259 } else { cause };
            assert_eq!(s.rig.ask(READ).cause, expected, "{context:x?}");
        };
        expect(
            Context {
                iohgatp: SV39 << 60 | ppn,
                ..bare
            },
            21,
        );
        expect(
            Context {
                fsc: SV39 << 60 | ppn,
                ..bare
            },
            13,
        );
        expect(
            Context {
                msi: [1 << 60 | ppn, 0, table],
                ..both
            },
            0,
        );
        // Guest addresses have other limits.
        s.set(Context {
            fsc: SV39 << 60 | ppn,
            ..both
        });
        assert_ne!(s.rig.ask(READ).cause, 259);
        s.translates(
            Context {
                iohgatp: ppn,
                ..bare
            },
            IOVA,
        );
        s.translates(Context { fsc: ppn, ..bare }, IOVA);
        s.translates(
            Context {
                msi: [ppn, 0, 0],
                ..both
            },
            PAGE,
        );
    }
}

/// Beyond PAS the first stage's root is misconfigured with cause 267, if it is in use and not a guest
/// address.
#[test]
fn addresses_in_a_process_context_are_checked_where_it_is_located() {
    for second in [0, SV39] {
        let mut s = Setup::other(SV39, second);
        let root = s.vm.table(&mut s.rig);
        let good = Process::of(&s.vm);
        let context = Context {
            fsc: pd::PD8 << 60 | root >> 12,
            ..Context::of(&s.vm).tc(tc::PDTV | SBE)
        };
        for bit in 28..44 {
            // Nothing is there; guest addresses have 41 bits.
            let cause = match (second, bit) {
                (0, 32..) => 267,
                (0, _) => 13,
                _ => 21,
            };
            for (fsc, cause) in [(good.fsc | 1 << bit, cause), (1 << bit, 0)] {
                let process = Process { fsc, ..good };
                s.rig
                    .set_process(&mut s.vm, root, pd::PD8, PROCESS, process, true);
                s.set(context);
                let iova = if fsc >> 60 == 0 { GPA } else { IOVA };
                let request = Request::new(Ttyp::UntransRd, DEVICE, iova);
                assert_eq!(s.rig.ask(request.of(PROCESS)).cause, cause, "{bit}");
            }
        }
    }
}

/// The address in a non-leaf entry is of no context: what would be read there cannot be (IOMMU §2.3.1,
/// §2.3.2).
#[test]
fn directories_reach_up_to_pas() {
    const TWO_LEVELS: u64 = 3;
    let mut s = Setup::other(SV39, 0);
    let (root, processes) = (s.rig.page(), s.vm.table(&mut s.rig));
    s.rig.store_as(root, pte::at(s.ddt, 1), true);
    s.rig.set_ddtp(TWO_LEVELS, root);
    let process = Process::of(&s.vm);
    s.rig
        .set_process(&mut s.vm, processes, pd::PD17, PROCESS, process, true);
    s.set(Context {
        fsc: pd::PD17 << 60 | processes >> 12,
        ..Context::of(&s.vm).tc(tc::PDTV | SBE)
    });
    let request = READ.of(PROCESS);
    for (pointer, cause) in [(root, 257), (processes, 265)] {
        assert_eq!(s.rig.translate(request).spa, PAGE);
        let good = s.rig.load_as(pointer, true);
        for bit in 44..56 {
            s.rig.store_as(pointer, good | pte::at(1 << bit, 0), true);
            s.rig.forget();
            s.rig.fault(request, cause);
            assert!(s.rig.accesses.iter().all(|a| a.addr < END), "{bit}");
        }
        s.rig.store_as(pointer, good, true);
        s.rig.forget();
    }
}

/// An address with a bit beyond PAS in the entry is an access fault by type, and nothing is
/// accessed there. The last page is as any other.
fn reaches_up_to_pas(s: &mut Setup, entry: u64) {
    let good = s.rig.load_as(entry, true);
    for bit in 44..56 {
        s.rig.store_as(entry, good | pte::at(1 << bit, 0), true);
        s.rig.forget();
        for (ttyp, cause) in [
            (Ttyp::UntransRx, 1),
            (Ttyp::UntransRd, 5),
            (Ttyp::UntransWr, 7),
        ] {
            s.rig.fault(Request::new(ttyp, DEVICE, IOVA), cause);
            assert!(s.rig.accesses.iter().all(|a| a.addr < END), "{bit}");
        }
    }
    let page = good >> 10 << 12;
    for at in (0..0x1000).step_by(8) {
        let word = s.rig.load(page + at);
        s.rig.store(LAST + at, word);
    }
    s.rig.store_as(entry, pte::at(LAST, good & 0x3ff), true);
    s.rig.forget();
    let to = if page == PAGE { LAST } else { PAGE };
    assert_eq!(s.rig.translate(READ).spa, to);
    s.rig.store_as(entry, good, true);
}

/// Leaves and pointers of both stages; of the second those of a table of the first, too.
#[test]
fn page_tables_reach_up_to_pas() {
    let mut s = Setup::other(SV39, 0);
    s.set(Context::of(&s.vm).tc(SBE));
    for level in 0..3 {
        let entry = s.vm.first_entry(&mut s.rig, IOVA, level);
        let entry = s.vm.physical(entry);
        reaches_up_to_pas(&mut s, entry);
    }
    let mut s = Setup::other(SV39, SV39);
    s.set(Context::of(&s.vm).tc(SBE));
    let table = s.vm.first_entry(&mut s.rig, IOVA, 0);
    for gpa in [GPA, table] {
        for level in 0..3 {
            let entry = s.vm.second_entry(&mut s.rig, gpa, level);
            reaches_up_to_pas(&mut s, entry);
        }
    }
}

#[test]
fn queues_reach_up_to_pas() {
    let mut s = Setup::other(0, 0);
    s.set(Context {
        tc: tc::V | SBE | EN_ATS | EN_PRI,
        ..Context::default()
    });
    for queue in [COMMANDS, FAULTS, PAGES] {
        let wide = (44..56).map(|bit| LAST | 1 << bit);
        for base in [LAST].into_iter().chain(wide) {
            queue.stop(&mut s.rig);
            s.rig.write(queue.base, 8, base >> 12 << 10 | 1);
            queue.set(&mut s.rig, csr::ENABLE);
            s.rig.accesses.clear();
            queue.feed(&mut s.rig);
            let good = base == LAST;
            let error = if good { 0 } else { csr::MEMORY_FAULT };
            assert_eq!(queue.status(&mut s.rig), ACTIVE | error, "{base:#x}");
            assert_eq!(queue.index(&mut s.rig), good.into());
            let accessed = s.rig.accesses.iter().any(|a| a.addr >= LAST);
            assert_eq!(accessed, good);
        }
    }
}

/// The other choices begin in Bare, with traffic of RCID 0 and MCID 0.
#[test]
fn qos_ids_after_a_reset_to_bare_are_0() {
    let mut rig = Rig::other(63);
    rig.write(reg::QOSID, 4, 0x000f_001f);
    assert_eq!(rig.read(reg::QOSID, 4), 0x000f_001f);
    rig.reset();
    assert_eq!(rig.read(reg::DDTP, 8) & 0xf, 1, "Bare");
    assert_eq!(rig.read(reg::QOSID, 4), 0);
    let answer = rig.translate(READ);
    assert_eq!((answer.spa, answer.rcid, answer.mcid), (IOVA, 0, 0));
}

/// Of page requests, of the performance monitor, of the debug interface, of QoS IDs and of messages:
/// each is there with what it belongs to, whatever else is not.
#[test]
fn optional_registers_need_their_own_capability() {
    let registers: [&[u32]; 5] = [
        &[reg::PQB, reg::PQH, reg::PQCSR],
        &[
            reg::IOCOUNTINH,
            reg::IOHPMCYCLES,
            reg::IOHPMCTR,
            reg::IOHPMEVT,
        ],
        &[reg::TR_REQ_IOVA],
        &[reg::QOSID],
        &[reg::MSI_CFG_TBL, reg::MSI_CFG_TBL + 8],
    ];
    for (mut rig, there) in [
        (Rig::new(64), [true; 5]),
        (Rig::partial(64), [true, false, false, false, false]),
        (Rig::msi_flat(64), [false, false, false, false, true]),
    ] {
        for (registers, there) in registers.into_iter().zip(there) {
            for &offset in registers {
                // A bit of each of them.
                let value = match offset {
                    reg::TR_REQ_IOVA | reg::MSI_CFG_TBL => 1 << 12,
                    reg::PQCSR => csr::INTERRUPT,
                    _ => 1,
                };
                rig.write(offset, 4, value);
                let expected = if there { value } else { 0 };
                assert_eq!(rig.read(offset, 4), expected, "{offset}");
            }
        }
    }
}
