//! What the lock-step with the golden model cannot see of the choices, as it depends on caches.

use crate::bench::reg;
use crate::rig::{Context, Process, Request, Rig, Ttyp, Vm, pd};
use crate::tables::{SV39, pte, tc};

const IOVA: u64 = 0x12_3456_7000;
const GPA: u64 = 0x6_7654_3000;
const PAGE: u64 = 0x9_8765_4000;
const SBE: u64 = 1 << 10;

/// What `events` count while one request of a process and one of a guest are translated, each by cold
/// tables: two levels of device directory, two of process directory, three of page tables.
fn count(mut rig: Rig, big: bool, events: [u64; 2]) -> [u64; 2] {
    let mut host = Vm::with(&mut rig, SV39, 0, false, [big; 2]);
    host.map_first(&mut rig, IOVA, 0, pte::at(PAGE, pte::ALL));
    let mut guest = Vm::with(&mut rig, 0, SV39, false, [big; 2]);
    guest.map_second(&mut rig, GPA, 0, pte::at(PAGE, pte::ALL));
    let order = if big { SBE } else { 0 };
    let processes = host.table(&mut rig);
    let process = Process::of(&host);
    rig.set_process(&mut host, processes, pd::PD17, 0x123, process, big);
    let of_host = Context {
        fsc: pd::PD17 << 60 | processes >> 12,
        ..Context::of(&host).tc(tc::PDTV | order)
    };
    let table = rig.directory(&[5], of_host);
    rig.set_context(table, 6, Context::of(&guest).tc(order));
    let root = rig.page();
    rig.store_as(root, pte::at(table, 1), big);
    rig.set_ddtp(3, root);
    for (counter, event) in events.into_iter().enumerate() {
        rig.write(reg::IOHPMEVT + 8 * counter as u32, 8, event);
    }
    rig.translate(Request::new(Ttyp::UntransRd, 5, IOVA).of(0x123));
    rig.translate(Request::new(Ttyp::UntransRd, 6, GPA));
    [0, 1].map(|counter| rig.read(reg::IOHPMCTR + 8 * counter, 8))
}

#[test]
fn walk_events() {
    for seed in 0..3 {
        // Device directory, process directory; first and second stage.
        assert_eq!(count(Rig::new(seed), false, [5, 6]), [2, 1]);
        assert_eq!(count(Rig::new(seed), false, [7, 8]), [1, 1]);
        // The same by entries.
        assert_eq!(count(Rig::other(seed), true, [5, 6]), [4, 2]);
        assert_eq!(count(Rig::other(seed), true, [7, 8]), [3, 3]);
    }
}
