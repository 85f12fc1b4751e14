//! A device that was removed is blocked, whatever it still knows.

use tlproof::{
    checker::Checker,
    endpoint::Descriptor,
    testbench::{Setup, Testbench},
};
use tlproof_dma::{Attach, Attrs, machine::Machine};
use tlproof_pcie::{Direction, DmaAddr, PhysAddr, tlp::CplStatus};

const BUFFER: PhysAddr = PhysAddr(0x9000_0000);

fn access(b: &mut Testbench, write: bool, dma: DmaAddr) -> Option<CplStatus> {
    let f = &mut b.functions[0].engine;
    f.submit(&mut b.sim, &Descriptor::pattern(1, write, dma, 64, 7))
        .unwrap();
    for _ in 0..1000 {
        b.sim.run(100).unwrap();
        if let Some(done) = b.functions[0].engine.poll(&mut b.sim).unwrap() {
            b.sim.settle(100_000).unwrap();
            return done.status;
        }
    }
    panic!("the transfer does not end");
}

#[test]
fn a_removed_device_is_blocked() {
    for attach in [Attach::Strict, Attach::Lazy, Attach::Identity] {
        let mut setup = Setup {
            attach: [attach, Attach::Strict, Attach::Strict],
            ..Setup::default()
        };
        setup.machine.aperture_wb = attach != Attach::Identity;
        let checker = Checker::new(&setup.machine, true, None, 100);
        let mut b = Testbench::new(&setup, checker).unwrap();
        let (dir, none) = (Direction::Bidirectional, Attrs::empty());
        let dma = b.map_phys(0, BUFFER, 4096, dir, none).unwrap();
        // What the IOMMU keeps in its caches goes too.
        assert_eq!(access(&mut b, true, dma), Some(CplStatus::Success));
        assert_eq!(access(&mut b, false, dma), Some(CplStatus::Success));
        let (device, left) = b.unplug(0).unwrap();
        assert_eq!(left, 1);
        let mut memory = [0; 64];
        b.sim.mem_write(BUFFER, &[0x5a; 64]);
        for write in [true, false] {
            let bdf = b.functions[0].engine.bdf;
            let rogue = b.sim.checker.expect_rogue(bdf, dma.on_bus(), 64, write);
            let status = access(&mut b, write, dma);
            assert!(write || status != Some(CplStatus::Success), "{attach:?}");
            b.sim.checker.rogue_done(rogue);
        }
        b.sim.mem_read(BUFFER, &mut memory);
        assert_eq!(memory, [0x5a; 64], "{attach:?}");

        b.plug(0, device, attach).unwrap();
        let dma = b.map_phys(0, BUFFER, 4096, dir, none).unwrap();
        assert_eq!(access(&mut b, true, dma), Some(CplStatus::Success));
        b.unmap_phys(0, dma, 4096, dir, none);
        b.quiesce().unwrap();
        assert_eq!(b.sim.checker.violation_rows().len(), 0, "{attach:?}");
    }
}
