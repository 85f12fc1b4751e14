use tlproof_pcie::Range;

use super::*;
use crate::riscv::fake::{BAR0, Event, FakeMachine};

const SV39: u64 = 1 << 9;
const SV48: u64 = 1 << 10;
const SVPBMT: u64 = 1 << 15;
const NL: u64 = 1 << 42;
const S: u64 = 1 << 43;
/// Device 8 of the vectors: 00:01.0.
const DEVICE: Bdf = Bdf(8);
const FENCE: [u64; 2] = [0x3002, 0];
const ALL: [u64; 2] = [1, 0];
const DEV8: [u64; 2] = [0x0000_0802_0000_0003, 0];
const PSCID1: [u64; 2] = [0x1_0000_1001, 0];
const RW: Prot = Prot::READ.union(Prot::WRITE).union(Prot::CACHE);

fn pool() -> PagePool {
    PagePool::new(Range::sized(0x8000_0000, 64 << 20))
}

fn probe(m: &mut FakeMachine, options: &Options) -> Result<RiscvIommu, IommuError> {
    RiscvIommu::probe(m, BAR0, pool(), options)
}

/// A unit with [`DEVICE`] in a domain of PSCID 1, the log empty.
fn attached(capabilities: u64) -> (FakeMachine, RiscvIommu, DomainId) {
    let mut m = FakeMachine::new(SV39 | capabilities);
    let mut iommu = probe(&mut m, &Options::default()).unwrap();
    let domain = iommu.domain_alloc(&mut m).unwrap();
    iommu.attach(&mut m, DEVICE, Some(domain)).unwrap();
    m.events.clear();
    (m, iommu, domain)
}

#[test]
fn probe_sequence() {
    let mut m = FakeMachine::new(SV39 | SV48);
    let options = Options {
        msi: Some(MsiTarget {
            addr: PhysAddr(0x2800_0000),
            data: 5,
            vectors: 4,
        }),
        ..Options::default()
    };
    let iommu = probe(&mut m, &options).unwrap();
    assert_eq!((iommu.mode, iommu.ddt_levels()), (Mode::Sv48, 3));
    let page = |at: u64| m.reg(at) >> 10 << 10;
    let (ddtp, cqb, fqb) = (page(0x10), page(0x18), page(0x28));
    let mut expected = Vec::new();
    for n in 0..4 {
        expected.extend([
            Event::Register(0x300 + 16 * n, 0x2800_0000),
            Event::Register(0x308 + 16 * n, 5 + n),
            Event::Register(0x30c + 16 * n, 0),
        ]);
    }
    expected.extend([
        Event::Register(0x2f8, 0x2310),
        Event::Register(0x10, 0),
        Event::Register(0x18, 0x1f),
        Event::Register(0x18, cqb | 12),
        Event::Register(0x28, 0x1f),
        Event::Register(0x28, fqb | 11),
        Event::Register(0x24, 0),
        Event::Register(0x48, 0x103),
        Event::Register(0x54, 1),
        Event::Register(0x30, 0),
        Event::Register(0x4c, 0x103),
        Event::Register(0x54, 2),
        Event::Register(0x10, ddtp | 4),
        Event::Register(0x24, 3),
        Event::Command([3, 0]),
        Event::Command(ALL),
        Event::Command(FENCE),
    ]);
    assert_eq!(m.events, expected);
}

#[test]
fn probe_takes_what_sticks() {
    let mut m = FakeMachine::new(SV39);
    m.max_ddtp_mode = 3;
    m.max_log2sz = 4;
    let iommu = probe(&mut m, &Options::default()).unwrap();
    assert_eq!(iommu.ddt_levels(), 2);
    assert_eq!(m.reg(offset::CQB) & 31, 4);
}

#[test]
fn probe_refuses() {
    let default = Options::default();
    let forced = |n| Options {
        ddt_levels: Some(n),
        ..Options::default()
    };
    let wide = Options {
        address_mode: Some(Mode::Sv57),
        ..Options::default()
    };
    let err = |caps: u64, set: &[(u64, u64)], options: &Options| {
        let mut m = FakeMachine::new(caps);
        for &(at, value) in set {
            m.set_reg(at, value);
        }
        m.max_ddtp_mode = 3;
        probe(&mut m, options).map(|_| ()).unwrap_err()
    };
    // Already translating, busy for ever, big-endian without a choice, wires only, no mode.
    assert_eq!(err(SV39, &[(0x10, 4)], &default), IommuError::Busy);
    assert_eq!(err(SV39, &[(0x10, 16)], &default), IommuError::Busy);
    assert_eq!(err(SV39, &[(8, 1)], &default), IommuError::NoDevice);
    assert_eq!(err(SV39 | 1 << 28, &[], &default), IommuError::NoDevice);
    assert_eq!(err(SV39 | 3 << 28, &[], &default), IommuError::NoDevice);
    assert_eq!(err(0, &[], &default), IommuError::NoDevice);
    assert_eq!(err(SV39, &[], &wide), IommuError::Unsupported);
    assert_eq!(err(SV39, &[], &forced(3)), IommuError::Invalid);
    assert_eq!(err(SV39, &[], &forced(4)), IommuError::Invalid);
    let mut m = FakeMachine::new(SV39);
    let none = RiscvIommu::probe(&mut m, PhysAddr(0x5000_0000), pool(), &default);
    assert!(matches!(none, Err(IommuError::Io(_))));
}

#[test]
fn attach_commands() {
    let mut m = FakeMachine::new(SV39);
    let mut iommu = probe(&mut m, &Options::default()).unwrap();
    assert_eq!(m.take_commands(), [[3, 0], ALL, FENCE]);
    iommu.attach(&mut m, DEVICE, None).unwrap();
    assert_eq!(m.take_commands(), [DEV8, ALL, FENCE]);
    iommu.block(&mut m, DEVICE).unwrap();
    assert_eq!(m.take_commands(), [DEV8, ALL, FENCE, DEV8, ALL, FENCE]);
    let domain = iommu.domain_alloc(&mut m).unwrap();
    iommu.attach(&mut m, DEVICE, Some(domain)).unwrap();
    assert_eq!(m.take_commands(), [DEV8, PSCID1, FENCE]);
    // Out of the domain: its translations go when its last device does.
    let other = iommu.domain_alloc(&mut m).unwrap();
    iommu.attach(&mut m, DEVICE, Some(other)).unwrap();
    let pscid2 = [0x1_0000_2001, 0];
    assert_eq!(
        m.take_commands(),
        [DEV8, PSCID1, FENCE, DEV8, pscid2, FENCE, PSCID1, FENCE]
    );
    iommu.domain_free(&mut m, domain);
    assert_eq!(
        iommu.domain_alloc(&mut m).map(|d| iommu.pscid(d)),
        Ok(Some(1))
    );
    // In use: stays.
    iommu.domain_free(&mut m, other);
    assert_eq!(iommu.pscid(other), Some(2));
}

/// Invalid context, commands, fence; then the new fields with `tc` last, commands, fence.
#[test]
fn attach_order() {
    let (mut m, mut iommu, _) = attached(0);
    let other = iommu.domain_alloc(&mut m).unwrap();
    let iosatp = iommu.domains[&other].table.iosatp();
    let slot = |events: &[Event]| match events[0] {
        Event::Write(at, 0) => at,
        e => panic!("{e:?}"),
    };
    m.log_memory = true;
    iommu.attach(&mut m, DEVICE, Some(other)).unwrap();
    let events: Vec<_> = m
        .events
        .iter()
        .copied()
        .filter(|e| !matches!(e, Event::Register(..)))
        .collect();
    let dc = slot(&events);
    assert_eq!(
        events,
        [
            Event::Write(dc, 0),
            Event::Command(DEV8),
            Event::Command(PSCID1),
            Event::Command(FENCE),
            Event::Write(dc + 24, iosatp),
            Event::Write(dc + 16, 2 << 12),
            Event::Write(dc, 1),
            Event::Command(DEV8),
            Event::Command([0x1_0000_2001, 0]),
            Event::Command(FENCE),
            Event::Command(PSCID1),
            Event::Command(FENCE),
        ]
    );
}

fn unmap(
    m: &mut FakeMachine,
    iommu: &mut RiscvIommu,
    domain: DomainId,
    iova: u64,
    phys: u64,
    size: u64,
) -> Vec<[u64; 2]> {
    iommu
        .map(m, domain, iova, PhysAddr(phys), size, RW)
        .unwrap();
    assert_eq!(
        m.take_commands(),
        [] as [[u64; 2]; 0],
        "mapping needs no command"
    );
    let mut gather = Gather::default();
    assert_eq!(iommu.unmap(m, domain, iova, size, &mut gather), size);
    assert_eq!(m.take_commands(), [] as [[u64; 2]; 0]);
    iommu.iotlb_sync(m, domain, gather).unwrap();
    m.take_commands()
}

#[test]
fn unmap_commands() {
    let (mut m, mut iommu, domain) = attached(0);
    let page = [[0x1_0000_1401, 0x3fff_fc00], FENCE];
    assert_eq!(
        unmap(&mut m, &mut iommu, domain, 0xffff_f000, 0x9000_0000, 0x1000),
        page
    );
    let pages: Vec<_> = (0xf_fff0..=0xf_ffff_u64)
        .map(|pfn| [0x1_0000_1401, pfn << 10])
        .chain([FENCE])
        .collect();
    for phys in [0x9000_0000, 0x9000_1000] {
        assert_eq!(
            unmap(&mut m, &mut iommu, domain, 0xffff_0000, phys, 0x1_0000),
            pages
        );
    }
    // A table of small entries goes: everything, as the unit lacks NL.
    assert_eq!(
        unmap(
            &mut m,
            &mut iommu,
            domain,
            0x20_0000,
            0x9000_1000,
            0x20_0000
        ),
        [PSCID1, FENCE]
    );
    // One large entry.
    assert_eq!(
        unmap(
            &mut m,
            &mut iommu,
            domain,
            0x20_0000,
            0x9000_0000,
            0x20_0000
        ),
        [[0x1_0000_1401, 0x8_0000], FENCE]
    );
    iommu.flush_all(&mut m, domain).unwrap();
    assert_eq!(m.take_commands(), [PSCID1, FENCE]);
    iommu.iotlb_sync(&mut m, domain, Gather::default()).unwrap();
    assert_eq!(m.take_commands(), [] as [[u64; 2]; 0]);
}

#[test]
fn unmap_commands_with_ranges_and_non_leaf() {
    let (mut m, mut iommu, domain) = attached(S | NL);
    assert_eq!(
        unmap(&mut m, &mut iommu, domain, 0xffff_f000, 0x9000_0000, 0x1000),
        [[0x1_0000_1401, 0x3fff_fc00], FENCE]
    );
    assert_eq!(
        unmap(
            &mut m,
            &mut iommu,
            domain,
            0xffff_0000,
            0x9000_0000,
            0x1_0000
        ),
        [[0x1_0000_1401, 0x3fff_de00], FENCE]
    );
    let table = unmap(
        &mut m,
        &mut iommu,
        domain,
        0x20_0000,
        0x9000_1000,
        0x20_0000,
    );
    assert_eq!(
        table,
        [[0x5_0000_1401, (0x200 | 0xff) << 10 | 0x200], FENCE]
    );
}

#[test]
fn too_many_pages_are_one_flush() {
    let (mut m, mut iommu, domain) = attached(0);
    // Across a table boundary, so that no table is covered: 513 pages.
    let commands = unmap(
        &mut m,
        &mut iommu,
        domain,
        0x10_0000,
        0x9000_1000,
        513 << 12,
    );
    assert_eq!(commands, [PSCID1, FENCE]);
}

#[test]
fn freed_tables_come_back_after_the_fence() {
    let (mut m, mut iommu, domain) = attached(0);
    let before = iommu.pool.used_bytes();
    let to = PhysAddr(0x9000_1000);
    iommu.map(&mut m, domain, 2 << 20, to, 2 << 20, RW).unwrap();
    let mut gather = Gather::default();
    iommu.unmap(&mut m, domain, 2 << 20, 2 << 20, &mut gather);
    let tables = PAGE_SIZE * 2;
    assert_eq!(iommu.pool.used_bytes(), before + tables);
    iommu.iotlb_sync(&mut m, domain, gather).unwrap();
    assert_eq!(iommu.pool.used_bytes(), before + tables - PAGE_SIZE);
}

#[test]
fn a_small_queue_wraps() {
    let mut m = FakeMachine::new(SV39);
    let options = Options {
        command_queue_log2: 1,
        fault_queue_log2: 1,
        ..Options::default()
    };
    let mut iommu = probe(&mut m, &options).unwrap();
    let domain = iommu.domain_alloc(&mut m).unwrap();
    iommu.attach(&mut m, DEVICE, Some(domain)).unwrap();
    m.take_commands();
    let commands = unmap(&mut m, &mut iommu, domain, 0x1_0000, 0x9000_0000, 0x1_0000);
    assert_eq!(commands.len(), 17);
}

#[test]
fn errors_of_the_unit_are_reported() {
    let (mut m, mut iommu, domain) = attached(0);
    m.illegal_opcode = Some(1);
    assert_eq!(
        iommu.flush_all(&mut m, domain),
        Err(IommuError::Io("illegal command"))
    );
    let (mut m, mut iommu, domain) = attached(0);
    m.stuck = true;
    assert_eq!(
        iommu.flush_all(&mut m, domain),
        Err(IommuError::Timeout("IOFENCE.C"))
    );
    for (bit, error) in [
        (8, IommuError::Io("command queue memory fault")),
        (9, IommuError::Timeout("command")),
    ] {
        let (mut m, mut iommu, domain) = attached(0);
        m.set_reg(offset::CQCSR, m.reg(offset::CQCSR) | 1 << bit);
        assert_eq!(iommu.flush_all(&mut m, domain), Err(error));
    }
}

#[test]
fn fault_records_are_drained() {
    let mut m = FakeMachine::new(SV39);
    let options = Options {
        fault_queue_log2: 2,
        ..Options::default()
    };
    let mut iommu = probe(&mut m, &options).unwrap();
    for round in 0..3 {
        let records: Vec<_> = (0..3).map(|i| [258, 0, round, i]).collect();
        records.iter().for_each(|&r| m.fault(r));
        assert_eq!(iommu.fault_records(&mut m), Ok(records));
        assert_eq!(m.reg(offset::FQH), m.reg(offset::FQT));
    }
    assert!(!iommu.faults_lost());
    m.set_reg(offset::FQCSR, m.reg(offset::FQCSR) | 1 << 9);
    assert_eq!(iommu.fault_records(&mut m), Ok(vec![]));
    assert!(iommu.faults_lost());
    assert_eq!(m.reg(offset::FQCSR), 0x1_0003);
}

#[test]
fn mappings() {
    let (mut m, mut iommu, domain) = attached(SVPBMT);
    let mmio = Prot::READ | Prot::WRITE | Prot::MMIO;
    let to = PhysAddr(0x8000_0000);
    iommu.map(&mut m, domain, 0x1000, to, 0x1000, mmio).unwrap();
    assert_eq!(
        iommu.leaf_entry(&mut m, domain, 0x1008),
        Some(0x4000_0000_2000_00df)
    );
    assert_eq!(
        iommu.iova_to_phys(&mut m, domain, 0x1008),
        Some(PhysAddr(0x8000_0008))
    );
    assert_eq!(iommu.iova_to_phys(&mut m, domain, 0x2000), None);
    assert_eq!(
        iommu.map(&mut m, domain, 0x3000, to, 0x1000, Prot::MMIO),
        Err(IommuError::Invalid)
    );
    assert_eq!(iommu.aperture(domain), (0, (1 << 38) - 1));
    assert_eq!(iommu.page_sizes(domain), 0x4021_1000);
    // An undone mapping may have been cached meanwhile.
    m.events.clear();
    let two = iommu.map(&mut m, domain, 0, to, 0x2000, mmio);
    assert_eq!(two, Err(IommuError::InUse));
    assert_eq!(m.take_commands(), [[0x1_0000_1401, 0], FENCE]);
}

#[test]
fn defects_are_committed_once() {
    let (mut m, mut iommu, domain) = attached(SVPBMT);
    let mut entry = |prot, defect| {
        iommu.defects.corrupt_pbmt_once = defect;
        let to = PhysAddr(0x8000_0000);
        iommu.map(&mut m, domain, 0x1000, to, 0x1000, prot).unwrap();
        let entry = iommu.leaf_entry(&mut m, domain, 0x1000).unwrap();
        iommu.unmap(&mut m, domain, 0x1000, 0x1000, &mut Gather::default());
        assert!(!iommu.defects.corrupt_pbmt_once);
        entry >> 61
    };
    for (prot, good, bad) in [
        (RW, 0, 2),
        (Prot::WRITE, 1, 0),
        (Prot::WRITE | Prot::MMIO, 2, 0),
    ] {
        assert_eq!((entry(prot, false), entry(prot, true)), (good, bad));
    }
    iommu.defects.drop_invalidation_once = true;
    m.events.clear();
    let dropped = unmap(&mut m, &mut iommu, domain, 0x5000, 0x9000_0000, 0x1000);
    assert_eq!(dropped, [FENCE]);
    let sent = unmap(&mut m, &mut iommu, domain, 0x5000, 0x9000_0000, 0x1000);
    assert_eq!(sent.len(), 2);
}

#[test]
fn shutdown_and_remove() {
    let (mut m, mut iommu, _) = attached(0);
    iommu.shutdown(&mut m).unwrap();
    assert_eq!(m.reg(offset::DDTP), 1);
    assert_eq!(m.reg(offset::CQCSR) & 1, 0);
    let (mut m, mut iommu, _) = attached(0);
    iommu.remove(&mut m).unwrap();
    assert_eq!(m.reg(offset::DDTP), 0);
    assert_eq!(m.take_commands(), [[3, 0], ALL, FENCE]);
    assert_eq!(m.reg(offset::FQCSR) & 1, 0);
}
