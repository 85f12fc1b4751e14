//! Requests of `nvme-pci` on the simulated machine: the endpoint follows the lists that the driver
//! wrote, and mistakes in them are caught.

use tlproof::{
    checker::Checker,
    endpoint::{Completion, Descriptor, ListError, pattern_bytes},
    testbench::{
        Setup, Testbench,
        nvme::{NvmeRequest, data_transfer},
    },
};
use tlproof_dma::{
    Attach,
    block::{Bio, QueueLimits, ReqOp, Request},
    machine::Machine,
    nvme::{Command, Ctrl, DataPointer, Defects, IodFlags, Nvme, Queue, SglType, Source},
};
use tlproof_golden::Judge;
use tlproof_pcie::{DmaAddr, PhysAddr, tree::Acs};

const PAGE: u64 = 4096;
/// Where data comes from, and where it goes in the end.
const FROM: u64 = 0x9000_0000;
const TO: u64 = 0x9800_0000;

/// Endpoints 0 and 1 are below one switch, endpoint 2 below another root port.
const CLIENT: usize = 0;
const NEAR: usize = 1;
const FAR: usize = 2;

type Vecs = Vec<(u64, u32)>;

/// `n` pages that are no neighbours.
fn pages(base: u64, n: u64) -> Vecs {
    (0..n).map(|i| (base + 2 * PAGE * i, 4096)).collect()
}

/// Vectors that begin and end inside their pages.
fn gaps(base: u64, n: u64) -> Vecs {
    let vec = |i| (base + 2 * PAGE * i + 0x104, 0x600);
    (0..n).map(vec).collect()
}

fn bytes_of(vecs: &[(u64, u32)]) -> u32 {
    vecs.iter().map(|v| v.1).sum()
}

fn some_bytes(seed: u64, n: u32) -> Vec<u8> {
    let byte = |i: u64| ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (0..u64::from(n)).map(byte).collect()
}

/// A machine, and a driver of endpoint 0.
struct Rig {
    b: Testbench,
    nvme: Nvme,
}

impl Rig {
    fn new(setup: &Setup, ctrl: Ctrl) -> Self {
        let checker = Checker::new(&setup.machine, true, None, 100);
        let mut b = Testbench::new(setup, checker).expect("the machine comes up");
        let dev = b.functions[CLIENT].dev;
        let nvme = Nvme::new(&mut b.dma, dev, ctrl).unwrap();
        Self { b, nvme }
    }

    /// Behind an IOMMU.
    fn translated(ctrl: Ctrl) -> Self {
        Self::new(&Setup::default(), ctrl)
    }

    /// Without one; the aperture's attributes tell what is device memory.
    fn direct(ctrl: Ctrl) -> Self {
        let mut setup = Setup {
            attach: [Attach::Direct; 3],
            ..Setup::default()
        };
        setup.machine.iommu = false;
        setup.machine.aperture_wb = false;
        Self::new(&setup, ctrl)
    }

    fn peer(&self, f: usize) -> u64 {
        self.b.functions[f].engine.memory.0
    }

    fn bio(&self, data: &[(u64, u32)], meta: &[(u64, u32)]) -> Bio {
        let vec = |(phys, len): &(u64, u32)| {
            let vec = self.b.dma.bio_vec(&self.b.sim, PhysAddr(*phys), *len);
            vec.expect("pages")
        };
        let mut bio = Bio::new(data.iter().map(vec)).unwrap();
        for v in meta {
            bio.add_integrity(vec(v)).unwrap();
        }
        bio
    }

    fn request(&self, op: ReqOp, data: &[(u64, u32)], meta: &[(u64, u32)]) -> Request {
        let limits = self.nvme.limits(&self.b.dma, Queue::Io);
        Request::new(op, vec![self.bio(data, meta)], &limits).unwrap()
    }

    fn prep(&mut self, req: &Request) -> NvmeRequest {
        let cmd = Command::new(if req.op() == ReqOp::Read { 2 } else { 1 }, 1, 1);
        self.b
            .nvme_prep(CLIENT, &mut self.nvme, Source::IO, req, cmd)
            .unwrap()
    }

    /// Runs one transfer of the device to its end.
    fn transfer(&mut self, d: &Descriptor) -> Completion {
        let b = &mut self.b;
        let engine = &mut b.functions[CLIENT].engine;
        engine.submit(&mut b.sim, d).expect("the device answers");
        for _ in 0..20_000 {
            b.sim.run(100).expect("no assertion fails");
            let engine = &mut b.functions[CLIENT].engine;
            if let Some(c) = engine.poll(&mut b.sim).expect("the device answers") {
                return c;
            }
        }
        panic!("the transfer does not end");
    }

    /// Maps a request, lets the device do it between the memory and its own at `local`, and unmaps
    /// it. Returns what the driver noted.
    fn io(&mut self, op: ReqOp, data: &[(u64, u32)], local: u32) -> (IodFlags, DataPointer) {
        self.io_with_meta(op, data, &[], local)
    }

    fn io_with_meta(
        &mut self,
        op: ReqOp,
        data: &[(u64, u32)],
        meta: &[(u64, u32)],
        local: u32,
    ) -> (IodFlags, DataPointer) {
        let req = self.request(op, data, meta);
        let r = self.prep(&req);
        let noted = (r.iod.flags(), r.iod.cmd.dptr);
        let write = op == ReqOp::Read;
        let len = req.payload_bytes();
        let done = self.transfer(&data_transfer(&r.iod.cmd, write, len, local));
        assert!(done.is_success(), "{done:?}");
        let len = req.integrity_bytes();
        let at = local + req.payload_bytes();
        if let Some(d) = self.b.metadata_transfer(&r, write, len, at) {
            let done = self.transfer(&d);
            assert!(done.is_success(), "{done:?}");
        }
        // A posted write has left the device; it has to arrive before the buffer is given back.
        self.b.sim.settle(1_000_000).unwrap();
        self.b.nvme_unmap(CLIENT, &mut self.nvme, &req, r);
        noted
    }

    fn fill(&mut self, vecs: &[(u64, u32)], seed: u64) -> Vec<u8> {
        let data = some_bytes(seed, bytes_of(vecs));
        let mut rest = &data[..];
        for (phys, len) in vecs {
            let (now, later) = rest.split_at(*len as usize);
            self.b.sim.mem_write(PhysAddr(*phys), now);
            rest = later;
        }
        data
    }

    fn contents(&mut self, vecs: &[(u64, u32)]) -> Vec<u8> {
        let mut all = Vec::new();
        for (phys, len) in vecs {
            let mut buf = vec![0; *len as usize];
            self.b.sim.mem_read(PhysAddr(*phys), &mut buf);
            all.extend(buf);
        }
        all
    }

    fn found(&self) -> Vec<(Judge, &'static str)> {
        let all = self.b.sim.checker.violations();
        all.iter().map(|v| (v.judge, v.field)).collect()
    }

    /// Nothing is left and no promise was broken.
    fn finish(mut self) {
        assert_eq!(self.nvme.descriptors_used(), 0);
        self.b.nvme_remove(CLIENT, self.nvme);
        self.b.quiesce().unwrap();
        assert!(self.b.sim.checker.violations().is_empty());
        assert!(self.b.sim.checker.memory_violations().is_empty());
        let warnings: Vec<_> = self.b.dma.warnings().iter().collect();
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}

fn prp_only() -> Ctrl {
    Ctrl {
        sgls: false,
        ..Ctrl::default()
    }
}

/// From memory into the device and back to other memory, described in the same way.
#[track_caller]
fn there_and_back(
    rig: &mut Rig,
    from: &[(u64, u32)],
    to: &[(u64, u32)],
) -> (IodFlags, DataPointer) {
    let data = rig.fill(from, 7);
    let first = rig.io(ReqOp::Write, from, 0);
    let second = rig.io(ReqOp::Read, to, 0);
    assert_eq!(first.0, second.0);
    assert!(rig.contents(to) == data, "other data");
    second
}

#[test]
fn memory_as_one_iova_range() {
    let mut rig = Rig::translated(Ctrl::default());
    let (flags, dptr) = there_and_back(&mut rig, &pages(FROM, 32), &pages(TO, 32));
    assert_eq!(flags, IodFlags::empty());
    assert!(
        matches!(dptr, DataPointer::Sgl(d) if d.kind == SglType::Data && d.length == 128 << 10)
    );
    rig.finish();
}

#[test]
fn memory_as_one_iova_range_in_a_prp_list() {
    let mut rig = Rig::translated(prp_only());
    let (flags, dptr) = there_and_back(&mut rig, &pages(FROM, 32), &pages(TO, 32));
    assert_eq!(flags, IodFlags::SMALL_DESCRIPTOR);
    assert!(matches!(dptr, DataPointer::Prp { .. }));
    rig.finish();
}

#[test]
fn memory_segment_by_segment_behind_an_iommu() {
    let mut rig = Rig::translated(Ctrl::default());
    let (flags, dptr) = there_and_back(&mut rig, &gaps(FROM, 20), &gaps(TO, 20));
    assert_eq!(flags, IodFlags::empty());
    assert!(matches!(dptr, DataPointer::Sgl(d) if d.kind == SglType::LastSegment));
    let (flags, _) = there_and_back(&mut rig, &gaps(FROM, 2), &gaps(TO, 2));
    assert_eq!(flags, IodFlags::SMALL_DESCRIPTOR);
    rig.finish();
}

#[test]
fn memory_segment_by_segment_without_an_iommu() {
    let mut rig = Rig::direct(Ctrl::default());
    // The average of 4 KiB is below the threshold.
    let (flags, dptr) = there_and_back(&mut rig, &pages(FROM, 32), &pages(TO, 32));
    assert_eq!(flags, IodFlags::SMALL_DESCRIPTOR);
    assert!(matches!(dptr, DataPointer::Prp { .. }));
    let (flags, dptr) = there_and_back(&mut rig, &gaps(FROM, 3), &gaps(TO, 3));
    assert_eq!(flags, IodFlags::SMALL_DESCRIPTOR);
    assert!(matches!(dptr, DataPointer::Sgl(_)));
    rig.finish();
}

#[test]
fn single_segments() {
    for sgls in [true, false] {
        let ctrl = Ctrl {
            sgls,
            ..Ctrl::default()
        };
        let mut rig = Rig::translated(ctrl);
        for (offset, len) in [
            (0, 4096),
            (0, 8192),
            (0x200, 0x1e00),
            (0x200, 8192),
            (0xffc, 8),
        ] {
            let (from, to) = ([(FROM + offset, len)], [(TO + offset, len)]);
            there_and_back(&mut rig, &from, &to);
        }
        rig.finish();
    }
}

/// A device that does not snoop reads the lists as well as the data.
#[test]
fn without_coherence() {
    for ctrl in [Ctrl::default(), prp_only()] {
        let setup = Setup {
            coherent: [false; 3],
            ..Setup::default()
        };
        let mut rig = Rig::new(&setup, ctrl);
        there_and_back(&mut rig, &pages(FROM, 5), &pages(TO, 5));
        if ctrl.sgls {
            there_and_back(&mut rig, &gaps(FROM, 5), &gaps(TO, 5));
        }
        rig.finish();
    }
}

/// Memory, device, a peer's BAR, device, memory.
#[track_caller]
fn by_a_peer(rig: &mut Rig, from: &[(u64, u32)], bar: &[(u64, u32)], flags: IodFlags) {
    let to: Vecs = from.iter().map(|(a, n)| (a - FROM + TO, *n)).collect();
    let data = rig.fill(from, 9);
    rig.io(ReqOp::Write, from, 0);
    let (first, _) = rig.io(ReqOp::Read, bar, 0);
    let (second, _) = rig.io(ReqOp::Write, bar, 0x8_0000);
    rig.io(ReqOp::Read, &to, 0x8_0000);
    assert!(first.contains(flags) && second.contains(flags), "{first:?}");
    assert!(rig.contents(&to) == data, "other data");
}

#[test]
fn a_peer_through_the_bridge_behind_an_iommu() {
    for ctrl in [Ctrl::default(), prp_only()] {
        let mut rig = Rig::translated(ctrl);
        let bar = pages(rig.peer(FAR) + 0x1_0000, 6);
        by_a_peer(&mut rig, &pages(FROM, 6), &bar, IodFlags::DATA_MMIO);
        if ctrl.sgls {
            let bar = gaps(rig.peer(FAR) + 0x1_0000, 6);
            by_a_peer(&mut rig, &gaps(FROM, 6), &bar, IodFlags::DATA_MMIO);
        }
        rig.finish();
    }
}

#[test]
fn a_peer_through_the_bridge_without_an_iommu() {
    let mut rig = Rig::direct(Ctrl::default());
    let bar = pages(rig.peer(FAR) + 0x1_0000, 6);
    by_a_peer(&mut rig, &pages(FROM, 6), &bar, IodFlags::DATA_MMIO);
    let bar = gaps(rig.peer(FAR) + 0x1_0000, 6);
    by_a_peer(&mut rig, &gaps(FROM, 6), &bar, IodFlags::DATA_MMIO);
    rig.finish();
}

#[test]
fn a_peer_by_its_bus_address() {
    for offset in [0, 0x1000_0000] {
        let mut setup = Setup {
            acs: Acs::SV,
            ..Setup::default()
        };
        setup.machine.map.bus_offset = offset;
        let mut rig = Rig::new(&setup, Ctrl::default());
        let bar = pages(rig.peer(NEAR) + 0x1_0000, 6);
        by_a_peer(&mut rig, &pages(FROM, 6), &bar, IodFlags::DATA_P2P);
        let bar = gaps(rig.peer(NEAR) + 0x1_0000, 6);
        by_a_peer(&mut rig, &gaps(FROM, 6), &bar, IodFlags::DATA_P2P);
        rig.finish();
    }
}

/// The metadata's way is its own, and so is its list.
#[test]
fn metadata() {
    let mut rig = Rig::translated(Ctrl::default());
    let (near_meta, far_meta) = (rig.peer(NEAR) + 0x100, rig.peer(FAR) + 0x100);
    let memory = (FROM + 0x100_0000, TO + 0x100_0000);
    let data_bar = pages(rig.peer(FAR) + 0x1_0000, 2);
    let meta = rig.fill(&[(memory.0, 64)], 3);
    for (data, bar_meta, flags) in [
        (pages(FROM, 2), far_meta, IodFlags::META_MMIO),
        // With redirection a neighbour is reached through the bridge too.
        (pages(FROM, 2), near_meta, IodFlags::META_MMIO),
        (
            data_bar,
            far_meta,
            IodFlags::META_MMIO | IodFlags::DATA_MMIO,
        ),
    ] {
        rig.io_with_meta(ReqOp::Write, &pages(FROM, 2), &[(memory.0, 64)], 0);
        let (noted, _) = rig.io_with_meta(ReqOp::Read, &data, &[(bar_meta, 64)], 0);
        assert_eq!(noted & (IodFlags::META_MMIO | IodFlags::DATA_MMIO), flags);
        rig.io_with_meta(ReqOp::Write, &data, &[(bar_meta, 64)], 0x4000);
        rig.io_with_meta(ReqOp::Read, &pages(TO, 2), &[(memory.1, 64)], 0x4000);
        assert_eq!(rig.contents(&[(memory.1, 64)]), meta);
        rig.b.sim.mem_write(PhysAddr(memory.1), &[0; 64]);
    }
    // Pieces that an SGL lists.
    let list = |base: u64| -> Vecs { (0..5).map(|i| (base + i * 64, 8)).collect() };
    let meta = rig.fill(&list(memory.0), 4);
    rig.io_with_meta(ReqOp::Write, &pages(FROM, 2), &list(memory.0), 0);
    rig.io_with_meta(ReqOp::Read, &pages(TO, 2), &list(memory.1), 0);
    assert_eq!(rig.contents(&list(memory.1)), meta);
    rig.finish();
}

/// Lets the device write a request of `vecs` with a mistake of the driver; whether the data is
/// there afterwards, and how the device ended.
fn read_with(rig: &mut Rig, vecs: &[(u64, u32)], mistake: fn(&mut Defects)) -> (bool, Completion) {
    let limits = QueueLimits::default();
    let req = Request::new(ReqOp::Read, vec![rig.bio(vecs, &[])], &limits).unwrap();
    mistake(&mut rig.nvme.defects);
    let r = rig.prep(&req);
    let d = Descriptor {
        pattern: Some(5),
        ..data_transfer(&r.iod.cmd, true, req.payload_bytes(), 0)
    };
    let done = rig.transfer(&d);
    rig.b.quiesce().unwrap();
    // Without an IOMMU the pattern is that of the physical address.
    let good = vecs.iter().all(|(phys, len)| {
        let mut want = vec![0; *len as usize];
        pattern_bytes(DmaAddr(*phys), 5, &mut want);
        let mut got = vec![0; *len as usize];
        rig.b.sim.mem_read(PhysAddr(*phys), &mut got);
        got == want
    });
    rig.b.nvme_unmap(CLIENT, &mut rig.nvme, &req, r);
    (good, done)
}

/// M40: the entry that a chained list page displaces.
#[test]
fn a_chained_list() {
    // 514 pages behind the first: 511 entries, the next page, and 3 entries.
    let vecs = pages(FROM, 515);
    let mut rig = Rig::direct(prp_only());
    let (good, done) = read_with(&mut rig, &vecs, |_| ());
    assert!(good && done.is_success(), "{done:?}");
    rig.finish();

    let mut rig = Rig::direct(prp_only());
    let (good, _) = read_with(&mut rig, &vecs, |d| d.chain_entry_lost = true);
    // The list is an entry short, so the device takes what lies behind it for one.
    assert!(!good);
    let found = rig.found();
    assert!(found.contains(&(Judge::Promise, "address")), "{found:?}");
}

/// M40: PRP2 as data where it has to be a list.
#[test]
fn a_page_taken_for_a_list() {
    let mut rig = Rig::direct(prp_only());
    let vecs = pages(FROM, 3);
    let (good, _) = read_with(&mut rig, &vecs, |d| d.prp2_is_data = true);
    assert!(!good);
    // The device reads what it may only write.
    let found = rig.found();
    assert!(found.contains(&(Judge::Promise, "direction")), "{found:?}");
    // What lies there is no entry of a list.
    let mut rig = Rig::direct(prp_only());
    rig.fill(&vecs, 1);
    let (_, done) = read_with(&mut rig, &vecs, |d| d.prp2_is_data = true);
    assert_eq!(done.list, Some(ListError::PrpOffset));
}

/// M40: PRP2 as a list where it has to be data. The list may be written, so only the data shows it.
#[test]
fn a_list_taken_for_a_page() {
    let vecs = pages(FROM, 2);
    for (mistake, right) in [
        ((|_| ()) as fn(&mut Defects), true),
        (|d| d.prp2_is_list = true, false),
    ] {
        let mut rig = Rig::direct(prp_only());
        let (good, done) = read_with(&mut rig, &vecs, mistake);
        assert!(done.is_success());
        assert_eq!(good, right);
    }
}

/// M19: metadata of a peer, mapped as the data is.
#[test]
fn metadata_mapped_as_the_data() {
    for mistake in [false, true] {
        let mut rig = Rig::translated(Ctrl::default());
        rig.nvme.defects.meta_as_data = mistake;
        let meta = rig.peer(FAR) + 0x100;
        let req = rig.request(ReqOp::Read, &pages(FROM, 2), &[(meta, 64)]);
        let r = rig.prep(&req);
        let d = rig.b.metadata_transfer(&r, true, 64, 0).unwrap();
        assert!(rig.transfer(&d).is_success());
        rig.b.quiesce().unwrap();
        let found = rig.found();
        assert_eq!(
            found.contains(&(Judge::Promise, "memory type")),
            mistake,
            "{found:?}"
        );
        rig.b.nvme_unmap(CLIENT, &mut rig.nvme, &req, r);
    }
}
