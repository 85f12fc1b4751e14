//! The architecture judge.

use tlproof_golden::{Config, Dest, Judge, MemoryKind, Promise};
use tlproof_pcie::{BusAddr, DmaAddr, MemAttr, MemType, PhysAddr};

use crate::bench::*;
use crate::streams::*;

#[test]
fn the_iommu_must_answer_by_the_tables() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut steps = write(0, &request(0, true, BUFFER, 1, 1));
    translated(&mut steps[2]).spa.0 += 0x1000;
    memory(&mut steps[4]).addr.0 += 0x1000;
    b.play(&steps);
    let v = b.verdict();
    assert_eq!(
        v,
        [
            (Judge::Architecture, "address"),
            (Judge::Promise, "address")
        ]
    );

    let mut b = Bench::off();
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    let mut steps = refused_read(0, &request(0, false, BUFFER, 1, 1));
    translated(&mut steps[2]).cause = 257;
    b.play(&steps);
    b.only(Judge::Architecture, "cause");
}

#[test]
fn no_iommu_is_the_identity() {
    let config = || Config {
        iommu: false,
        blocking: false,
        ..Config::default()
    };
    let mut b = Bench::with(config());
    b.promise(dram(0));
    let mut steps = write(0, &request(0, true, BUFFER, 1, 1));
    b.play(&steps);
    b.clean();
    translated(&mut steps[2]).spa.0 += 0x1000;
    memory(&mut steps[4]).addr.0 += 0x1000;
    b.play(&steps);
    let v = b.verdict();
    assert_eq!(
        v,
        [
            (Judge::Architecture, "address"),
            (Judge::Promise, "address")
        ]
    );
}

#[test]
fn attributes_by_the_rule() {
    type Tamper = fn(&mut MemAttr);
    let cases: [(Tamper, &str); 3] = [
        (|a| a.mem_type = MemType::NonCacheable, "memory type"),
        (|a| a.snoop = false, "snoop"),
        (|a| a.strong_order = false, "order attribute"),
    ];
    for (tamper, field) in cases {
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut steps = write(0, &request(0, true, BUFFER, 1, 1));
        tamper(&mut translated(&mut steps[2]).attr);
        b.play(&steps[..3]);
        assert_eq!(b.sb.violations()[0].judge, Judge::Architecture);
        assert_eq!(b.sb.violations()[0].field, field);
        assert_eq!(b.sb.violations().len(), 1);

        // Right at the translation, wrong at the port.
        let mut b = Bench::new();
        b.promise(dram(0));
        let mut steps = write(0, &request(0, true, BUFFER, 1, 1));
        tamper(&mut memory(&mut steps[4]).attr);
        b.play(&steps);
        let v = b.verdict();
        assert_eq!(v[0], (Judge::Architecture, field));
    }
}

#[test]
fn destination_by_the_memory_map() {
    let mut b = Bench::new();
    b.promise(dram(0));
    let mut steps = write(0, &request(0, true, BUFFER, 1, 1));
    translated(&mut steps[2]).dest = Dest::None;
    b.play(&steps[..4]);
    let v = b.verdict();
    assert_eq!(v[0], (Judge::Architecture, "destination"));

    // A vacant address is refused.
    let mut b = Bench::new();
    b.sb.expect_rogue(EP[0], BusAddr(0x1000), 4, true);
    let mut steps = write(0, &request(0, true, 0x1000, 1, 1));
    translated(&mut steps[2]).dest = Dest::None;
    b.play(&steps[..4]);
    b.clean();

    // The interrupt files are behind the memory port.
    let mut b = Bench::new();
    b.promise(Promise {
        dma: DmaAddr(0x2800_0000),
        segments: vec![(PhysAddr(0x2800_0000), 0xf00)],
        expect: MemType::Device,
        kind: MemoryKind::Mmio,
        snoop: false,
        ..dram(0)
    });
    let r = request(0, true, 0x2800_0000, 1, 1);
    let mut steps = write(0, &r);
    translated(&mut steps[2]).attr = attr(MemType::Device, &r);
    memory(&mut steps[4]).attr = attr(MemType::Device, &r);
    b.play(&steps);
    b.clean();
}

#[test]
fn a_fault_must_leave_its_record() {
    let mut b = Bench::off();
    b.sb.register_written(&b.mem, 76, 4, 1); // fqcsr.fqen
    b.sb.register_read(76, 4, 1 << 16 | 1);
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
    b.play(&refused_read(0, &request(0, false, BUFFER, 1, 1)));
    let record = [256 | 2 << 34 | u64::from(EP[0].0) << 40, 0, BUFFER, 0];
    b.sb.quiesce(&b.mem, &[record]);
    assert_eq!(b.sb.violations(), []);
    b.play(&refused_read(0, &request(0, false, BUFFER + 0x100, 1, 1)));
    b.sb.expect_rogue(EP[0], BusAddr(BUFFER + 0x100), 4, false);
    b.sb.quiesce(&b.mem, &[]);
    let fields: Vec<_> =
        b.sb.violations()
            .iter()
            .map(|v| (v.judge, v.field))
            .collect();
    assert!(
        fields.contains(&(Judge::Architecture, "fault record")),
        "{fields:?}"
    );
}

#[test]
fn accesses_of_the_iommu_are_coherent() {
    let mut r = at_memory(&request(0, false, BUFFER, 2, 0));
    r.from_iommu = true;
    let mut b = Bench::new();
    b.play(&[
        Step::Mem(r, vec![]),
        Step::Response(7, vec![0; 8], false, true),
    ]);
    b.clean();
    r.attr.snoop = false;
    b.play(&[Step::Mem(r, vec![])]);
    b.only(Judge::Architecture, "snoop");
}

#[test]
fn what_a_cache_may_still_hold_is_exposed() {
    for settled in [false, true] {
        let mut b = Bench::new();
        b.sb.register_written(&b.mem, 16, 8, 0); // ddtp: Off
        if settled {
            b.sb.register_read(16, 8, 0);
        }
        b.sb.expect_rogue(EP[0], BusAddr(BUFFER), 4, false);
        b.play(&refused_read(0, &request(0, false, BUFFER, 1, 1)));
        if settled {
            b.clean();
        } else {
            b.only(Judge::Architecture, "invalidation");
        }
    }
}
