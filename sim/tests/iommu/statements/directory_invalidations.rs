//! IODIR.INVAL_DDT and IODIR.INVAL_PDT: IOMMU §3.1.3.
//!
//! An IOMMU may forget more than a command names. This one forgets no more, which shows that it was
//! held.

use super::caching::{entries, store_context};
use super::commands::is_illegal;
use crate::bench::command;
use crate::rig::{Context, Message, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

/// In different tables but for the root.
const DEVICES: [u32; 2] = [0x9a_bcd5, 0x12_3456];
const PROCESSES: [u32; 2] = [0xa_63c5, 0x1_0203];
const IOVA: u64 = 0x12_3456_7000;
const PAGE: u64 = 0x9_8765_4000;
const GPA: u64 = 0x6_7654_3000;

const INVAL_DDT: u64 = 3;
const INVAL_PDT: u64 = 3 | 1 << 7;
const DV: u64 = 1 << 33;

const fn did(device: u32) -> u64 {
    (device as u64) << 40
}
const fn pid(process: u32) -> u64 {
    (process as u64) << 12
}

/// A process of a device, by their places in [`DEVICES`] and [`PROCESSES`].
type Place = (usize, usize);
const PLACES: [Place; 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

/// Two devices with two processes each, all in the same space.
struct Setup {
    rig: Rig,
    vm: Vm,
    devices: u64,
    /// Process directories of the devices.
    processes: [u64; 2],
}

impl Setup {
    fn new(second: u64) -> Self {
        let mut rig = Rig::new(71);
        let mut vm = Vm::new(&mut rig, SV39, second);
        let leaf = if second == 0 { PAGE } else { GPA };
        vm.map_first(&mut rig, IOVA, 0, pte::at(leaf, pte::ALL));
        if second != 0 {
            vm.map_second(&mut rig, GPA, 0, pte::at(PAGE, pte::ALL));
        }
        let devices = rig.page();
        let processes = DEVICES.map(|device| {
            let root = vm.table(&mut rig);
            let process = Process::of(&vm);
            for id in PROCESSES {
                rig.set_process(&mut vm, root, pd::PD20, id, process, false);
            }
            let context = Context {
                fsc: pd::PD20 << 60 | root >> 12,
                ..Context::of(&vm).tc(tc::PDTV)
            };
            let [.., at] = entries(&mut rig, devices, device);
            store_context(&mut rig, at, context);
            root
        });
        rig.set_ddtp(4, devices);
        Self {
            rig,
            vm,
            devices,
            processes,
        }
    }

    /// Addresses of the entries of the device, from the root to the context.
    fn device(&mut self, device: usize) -> [u64; 3] {
        entries(&mut self.rig, self.devices, DEVICES[device])
    }

    /// The same of a process.
    fn process(&self, (device, process): Place) -> [u64; 3] {
        let id = u64::from(PROCESSES[process]);
        let mut table = self.processes[device];
        let [first, second] = [id >> 17, id >> 8 & 0x1ff].map(|index| {
            let at = self.vm.physical(table + 8 * index);
            table = self.rig.load(at) >> 10 << 12;
            at
        });
        [first, second, self.vm.physical(table + 16 * (id & 0xff))]
    }

    /// Whether it is seen after the command that an entry of the place is not valid any more.
    fn sees(&mut self, (device, process): Place, at: u64, cause: u64, command: [u64; 2]) -> bool {
        let request = Request::new(Ttyp::UntransRd, DEVICES[device], IOVA).of(PROCESSES[process]);
        self.rig.forget();
        assert_eq!(self.rig.translate(request).spa, PAGE);
        let valid = self.rig.load(at);
        assert_eq!(valid & 1, 1);
        self.rig.store(at, valid & !1);
        self.rig.sync(&[command]);
        let seen = self.rig.ask(request).cause;
        assert!([0, cause].contains(&seen), "{seen}");
        self.rig.records();
        self.rig.store(at, valid);
        seen == cause
    }

    /// Of the devices that are named, and of no other, the entries of the device directory go.
    fn drops_devices(&mut self, command: [u64; 2], levels: &[usize], named: [bool; 2]) {
        for place in PLACES {
            let entries = self.device(place.0);
            for &level in levels {
                let seen = self.sees(place, entries[level], 258, command);
                assert_eq!(seen, named[place.0], "{command:x?}: {place:?}, {level}");
            }
        }
    }

    /// The same of processes and the process directories.
    fn drops_processes(
        &mut self,
        command: [u64; 2],
        levels: &[usize],
        named: impl Fn(Place) -> bool,
    ) {
        for place in PLACES {
            let entries = self.process(place);
            for &level in levels {
                let seen = self.sees(place, entries[level], 266, command);
                assert_eq!(seen, named(place), "{command:x?}: {place:?}, {level}");
            }
        }
    }
}

const ALL_LEVELS: [usize; 3] = [0, 1, 2];
const CONTEXTS: [usize; 1] = [2];

#[test]
fn dv_must_be_1_for_inval_pdt() {
    let mut rig = Rig::new(72);
    for operands in [0, pid(5), did(5), did(5) | pid(5)] {
        assert!(is_illegal(&mut rig, [INVAL_PDT | operands, 0]));
        assert!(!is_illegal(&mut rig, [INVAL_PDT | DV | operands, 0]));
    }
}

/// With contexts of 64 bytes the levels have 6, 9 and 9 bits, with 32 bytes 7, 9 and 8.
#[test]
fn a_did_wider_than_the_mode_supports_is_illegal() {
    for (mut rig, functions, widths) in [
        (Rig::new(73), &[INVAL_DDT, INVAL_PDT][..], [6, 15, 24]),
        (Rig::minimal(73), &[INVAL_DDT][..], [7, 16, 24]),
    ] {
        for (mode, width) in (2..).zip(widths) {
            let table = rig.page();
            rig.set_ddtp(mode, table);
            for function in functions {
                for bit in 0..24 {
                    let command = [function | DV | did(1 << bit), 0];
                    let illegal = is_illegal(&mut rig, command);
                    assert_eq!(illegal, bit >= width, "mode {mode}, {bit}");
                }
            }
        }
    }
}

#[test]
fn inval_ddt_without_dv_drops_both_directories() {
    for second in [0, SV39] {
        let mut s = Setup::new(second);
        s.drops_devices([INVAL_DDT, 0], &ALL_LEVELS, [true; 2]);
        s.drops_processes([INVAL_DDT, 0], &ALL_LEVELS, |_| true);
    }
}

/// Also if it is wider than the mode supports.
#[test]
fn inval_ddt_without_dv_ignores_did() {
    let mut s = Setup::new(0);
    for device in [DEVICES[0], DEVICES[1], 0xff_ffff] {
        let command = INVAL_DDT | did(device);
        s.drops_devices([command, 0], &CONTEXTS, [true; 2]);
        s.drops_processes([command, 0], &CONTEXTS, |_| true);
    }
    s.drops_devices([INVAL_DDT | DV | did(0xff_ffff), 0], &CONTEXTS, [false; 2]);
    let table = s.rig.page();
    s.rig.set_ddtp(2, table);
    for (dv, illegal) in [(0, false), (DV, true)] {
        let command = [INVAL_DDT | dv | did(0xff_ffff), 0];
        assert_eq!(is_illegal(&mut s.rig, command), illegal);
    }
}

#[test]
fn inval_ddt_with_dv_drops_the_context_of_the_device() {
    let mut s = Setup::new(0);
    for (i, device) in DEVICES.into_iter().enumerate() {
        let command = [INVAL_DDT | DV | did(device), 0];
        s.drops_devices(command, &CONTEXTS, [i == 0, i == 1]);
    }
}

#[test]
fn inval_ddt_with_dv_drops_all_processes_of_the_device() {
    for second in [0, SV39] {
        let mut s = Setup::new(second);
        for (i, device) in DEVICES.into_iter().enumerate() {
            let command = [INVAL_DDT | DV | did(device), 0];
            s.drops_processes(command, &ALL_LEVELS, |place| place.0 == i);
        }
    }
}

#[test]
fn pid_is_reserved_for_inval_ddt() {
    let mut rig = Rig::new(74);
    for bit in 0..20 {
        let operands = DV | did(5) | pid(1 << bit);
        assert!(is_illegal(&mut rig, [INVAL_DDT | operands, 0]));
        assert!(is_illegal(&mut rig, [INVAL_DDT | pid(1 << bit), 0]));
        assert!(!is_illegal(&mut rig, [INVAL_PDT | operands, 0]));
    }
}

#[test]
fn inval_pdt_drops_the_context_of_a_process_of_a_device() {
    for second in [0, SV39] {
        let mut s = Setup::new(second);
        for named in PLACES {
            let ids = did(DEVICES[named.0]) | pid(PROCESSES[named.1]);
            s.drops_processes([INVAL_PDT | DV | ids, 0], &CONTEXTS, |place| place == named);
        }
    }
}

/// A process context that was read before the command: it is not held after it, and a fence waits for
/// the request that uses it (§3.1.2).
#[test]
fn a_process_context_read_before_is_not_held() {
    for second in [0, SV39] {
        let mut s = Setup::new(second);
        let [.., at] = s.process((0, 0));
        let request = Request::new(Ttyp::UntransRd, DEVICES[0], IOVA).of(PROCESSES[0]);
        let valid = s.rig.load(at);
        let flag = s.rig.page();
        let named = DV | did(DEVICES[0]);
        for operands in [
            INVAL_PDT | named | pid(PROCESSES[0]),
            INVAL_DDT | named,
            INVAL_DDT,
        ] {
            s.rig.store(flag, 0);
            s.rig.forget();
            s.rig.held = Some(at);
            s.rig.begin(request);
            s.rig.run(500);
            assert_eq!(s.rig.accesses.last().map(|a| a.addr), Some(at));
            s.rig.store(at, valid & !1);
            let fence = command::fence(Some((flag, 1)), false);
            s.rig.hand_over(&[[operands, 0], fence]);
            s.rig.run(500);
            assert_eq!((s.rig.answered(), s.rig.load(flag)), (false, 0));
            s.rig.held = None;
            assert_eq!(s.rig.finish().spa, PAGE);
            s.rig.run(200);
            assert_eq!(s.rig.load(flag), 1);
            s.rig.fault(request, 266);
            s.rig.store(at, valid);
        }
    }
}

/// The same of a device context that is read for a message.
#[test]
fn a_context_read_for_a_message_is_not_held() {
    let mut s = Setup::new(0);
    let [.., at] = s.device(0);
    let request = Request::new(Ttyp::UntransRd, DEVICES[0], IOVA).of(PROCESSES[0]);
    let message = Message::Page {
        device_id: DEVICES[0],
        process_id: None,
        privileged: false,
        exec: false,
        rwl: [true, false, false],
        prgi: 0,
        addr: IOVA,
    };
    let valid = s.rig.load(at);
    for operands in [INVAL_DDT | DV | did(DEVICES[0]), INVAL_DDT] {
        s.rig.forget();
        s.rig.held = Some(at);
        s.rig.message(&message);
        s.rig.run(300);
        assert_eq!(s.rig.accesses.last().map(|a| a.addr), Some(at));
        s.rig.store(at, valid & !1);
        s.rig.submit(&[[operands, 0]]);
        s.rig.held = None;
        s.rig.sync(&[]);
        // There is no PRI.
        let causes: Vec<u64> = s.rig.records().iter().map(|r| r.cause).collect();
        assert_eq!(causes, [260]);
        s.rig.fault(request, 258);
        s.rig.store(at, valid);
    }
}

#[test]
fn iotinval_leaves_the_directories_alone() {
    let mut s = Setup::new(SV39);
    let guest = 1 << 33 | 7 << 44;
    let process = 1 << 32 | 9 << 12;
    for command in [
        1,
        1 | process,
        1 | guest,
        1 | guest | process,
        1 | 1 << 7,
        1 | 1 << 7 | guest,
    ] {
        s.drops_devices([command, 0], &CONTEXTS, [false; 2]);
        s.drops_processes([command, 0], &CONTEXTS, |_| false);
    }
}
