//! Message-signalled interrupts through the whole machine: from the endpoints through the IOMMU to
//! the interrupt files, and those of the IOMMU itself.

use tlproof::{
    checker::Checker,
    endpoint::Descriptor,
    msix::MsiX,
    simulation::Msi,
    testbench::{Setup, Testbench},
};
use tlproof_dma::{Attach, Attrs, machine::Machine, riscv::MsiTarget};
use tlproof_golden::Judge;
use tlproof_pcie::{Bdf, BusAddr, Direction, DmaAddr, PhysAddr};

const BUFFER: PhysAddr = PhysAddr(0x9000_0000);
/// Interrupt file of the endpoints, and of the IOMMU.
const FILE: PhysAddr = PhysAddr(0x2800_0000);
const IOMMU_FILE: PhysAddr = PhysAddr(0x2800_1000);

fn bench(setup: &Setup) -> Testbench {
    let checker = Checker::new(&setup.machine, true, None, 100);
    Testbench::new(setup, checker).expect("the machine comes up")
}

/// MSI-X of endpoint `f`, enabled.
fn msix(b: &mut Testbench, f: usize) -> MsiX {
    let node = b.tree.find(b.functions[f].engine.bdf).expect("enumerated");
    let msix = MsiX::of(node).expect("an endpoint has MSI-X");
    msix.enable(&mut b.sim).unwrap();
    msix
}

/// Endpoint `f` writes 64 bytes to memory and interrupts by `vector`; the MSIs that arrive.
fn interrupt(b: &mut Testbench, f: usize, dma: DmaAddr, vector: u8) -> Vec<Msi> {
    let mut d = Descriptor::pattern(1, true, dma, 64, 7);
    d.irq = Some(vector);
    b.functions[f].engine.submit(&mut b.sim, &d).unwrap();
    let done = (0..1000).any(|_| {
        b.sim.run(100).expect("no assertion fails");
        b.functions[f].engine.poll(&mut b.sim).unwrap().is_some()
    });
    assert!(done, "the transfer ends");
    b.quiesce().expect("the machine comes to rest");
    b.sim.take_msis()
}

fn buffer(b: &mut Testbench, f: usize) -> DmaAddr {
    let phys = BUFFER.offset(4096 * f as u64);
    b.map_phys(f, phys, 4096, Direction::FromDevice, Attrs::empty())
        .unwrap()
}

#[track_caller]
fn assert_clean(b: &Testbench) {
    let v = b.sim.checker.violations();
    assert!(v.is_empty(), "{v:#?}");
}

#[test]
fn every_endpoint_and_vector_through_the_iommu_and_past_it() {
    for attach in [Attach::Strict, Attach::Identity] {
        let mut b = bench(&Setup {
            attach: [attach; 3],
            ..Setup::default()
        });
        for f in 0..3 {
            let dma = buffer(&mut b, f);
            let doorbell = b.map_msi(f, FILE).unwrap();
            let msix = msix(&mut b, f);
            for v in 0..msix.vectors {
                let data = 0x100 * f as u32 + u32::from(v);
                msix.program(&mut b.sim, v, doorbell, data).unwrap();
                let got = interrupt(&mut b, f, dma, v as u8);
                assert_eq!(got, [Msi { addr: FILE, data }]);
            }
        }
        assert_clean(&b);
    }
}

#[test]
fn a_masked_vector_waits() {
    let mut b = bench(&Setup::default());
    let dma = buffer(&mut b, 0);
    let doorbell = b.map_msi(0, FILE).unwrap();
    let msix = msix(&mut b, 0);
    msix.program(&mut b.sim, 5, doorbell, 77).unwrap();
    msix.mask(&mut b.sim, 5, true).unwrap();
    assert_eq!(interrupt(&mut b, 0, dma, 5), []);
    assert_eq!(msix.pending(&mut b.sim), Ok(1 << 5));
    msix.mask(&mut b.sim, 5, false).unwrap();
    b.sim.run(2000).unwrap();
    b.quiesce().unwrap();
    let due = Msi {
        addr: FILE,
        data: 77,
    };
    assert_eq!(b.sim.take_msis(), [due]);
    assert_eq!(msix.pending(&mut b.sim), Ok(0));
    assert_clean(&b);
}

#[test]
fn a_wrong_address_is_caught() {
    let mut b = bench(&Setup::default());
    let dma = buffer(&mut b, 0);
    let doorbell = b.map_msi(0, FILE).unwrap();
    let msix = msix(&mut b, 0);
    // Nothing is mapped there; then: the physical address past the IOMMU.
    for wrong in [DmaAddr(doorbell.0 - 0x10_0000), DmaAddr(FILE.0)] {
        let before = b.sim.checker.violations().len();
        msix.program(&mut b.sim, 0, wrong, 1).unwrap();
        assert_eq!(interrupt(&mut b, 0, dma, 0), []);
        let v = &b.sim.checker.violations()[before..];
        assert!(
            v.iter()
                .any(|v| v.judge == Judge::Promise && v.field == "address"),
            "{v:#?}"
        );
    }
}

#[test]
fn a_read_of_the_doorbell_is_caught() {
    let mut b = bench(&Setup::default());
    let doorbell = b.map_msi(0, FILE).unwrap();
    let d = Descriptor::pattern(1, false, doorbell, 4, 7);
    b.functions[0].engine.submit(&mut b.sim, &d).unwrap();
    b.sim.run(5000).unwrap();
    b.quiesce().unwrap();
    let v = b.sim.checker.violations();
    assert!(
        v.iter()
            .any(|v| v.judge == Judge::Promise && v.field == "direction"),
        "{v:#?}"
    );
}

/// A machine whose IOMMU sends its four vectors to a file of its own.
fn with_iommu_interrupts() -> Testbench {
    let mut setup = Setup::default();
    setup.iommu.msi = Some(MsiTarget {
        addr: IOMMU_FILE,
        data: 0x80,
        vectors: 4,
    });
    bench(&setup)
}

#[test]
fn a_fault_record_interrupts() {
    let mut b = with_iommu_interrupts();
    let addr = 0x1000_0000;
    let bdf = b.functions[0].engine.bdf;
    let rogue = b.sim.checker.expect_rogue(bdf, BusAddr(addr), 64, true);
    let d = Descriptor::pattern(1, true, DmaAddr(addr), 64, 7);
    b.functions[0].engine.submit(&mut b.sim, &d).unwrap();
    b.sim.run(5000).unwrap();
    b.quiesce().unwrap();
    b.sim.checker.rogue_done(rogue);
    // Cause 1, the fault queue, has vector 1.
    let due = Msi {
        addr: IOMMU_FILE,
        data: 0x81,
    };
    assert_eq!(b.sim.take_msis(), [due]);
    assert_clean(&b);
}

#[test]
fn an_illegal_command_interrupts() {
    let mut b = with_iommu_interrupts();
    let node = b.tree.find(Bdf::new(0, 1, 0)).expect("the IOMMU");
    let regs = node.bar(0).expect("its registers").phys;
    let cqb = b.sim.mmio_read(regs.offset(0x18), 8).unwrap();
    let tail = b.sim.mmio_read(regs.offset(0x24), 4).unwrap();
    let base = PhysAddr((cqb >> 10 & ((1 << 44) - 1)) << 12);
    // Opcode 7fh is reserved (IOMMU §4.1).
    b.sim.mem_write(base.offset(16 * tail), &[0x7f; 16]);
    let entries = 2 << (cqb & 31);
    b.sim
        .mmio_write(regs.offset(0x24), 4, (tail + 1) % entries)
        .unwrap();
    b.sim.run(5000).unwrap();
    // Cause 0, the command queue, has vector 0.
    let due = Msi {
        addr: IOMMU_FILE,
        data: 0x80,
    };
    assert_eq!(b.sim.take_msis(), [due]);
    assert_clean(&b);
}
