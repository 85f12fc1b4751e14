mod device;

use device::DeviceSide;
use tlproof_pcie::{Direction, PhysAddr};

use super::*;
use crate::{
    Attach, Attrs, Device, Event, MapError,
    block::{
        DmaVec, PhysVec,
        testing::{BAR, Bench, FAR, RAM},
    },
    testing::Op,
};

const PLATFORM: Features = Features {
    access_platform: true,
    indirect_desc: false,
};
const LEGACY: Features = Features {
    access_platform: false,
    indirect_desc: false,
};

fn indirect(features: Features) -> Features {
    Features {
        indirect_desc: true,
        ..features
    }
}

fn bench(coherent: bool) -> Bench {
    let device = Device {
        coherent,
        ..Device::new(FAR)
    };
    Bench::new(device, Attach::Strict)
}

fn queue(b: &mut Bench, num: u16, features: Features) -> Virtqueue {
    let layout = Layout::new(num).unwrap();
    Virtqueue::new(&mut b.dma, &mut b.m, b.dev, layout, features).unwrap()
}

fn vecs(list: &[(u64, u32)]) -> Vec<PhysVec> {
    let vec = |(phys, len): &(u64, u32)| PhysVec {
        paddr: PhysAddr(*phys),
        len: *len,
    };
    list.iter().map(vec).collect()
}

/// Requests and their answers, over the end of the ring and of its indices' slots.
#[test]
fn buffers_go_to_the_device_and_come_back() {
    for (features, coherent) in [
        (PLATFORM, true),
        (PLATFORM, false),
        (indirect(PLATFORM), true),
        (indirect(PLATFORM), false),
        // Without the platform's addresses only a device that snoops is legal, and no IOMMU.
        (LEGACY, true),
        (indirect(LEGACY), true),
    ] {
        let device = Device {
            coherent,
            ..Device::new(FAR)
        };
        let attach = if features.access_platform {
            Attach::Strict
        } else {
            Attach::Identity
        };
        let mut b = Bench::new(device, attach);
        let mut q = queue(&mut b, 8, features);
        let mut dev = DeviceSide::new(&q, 8);
        for round in 0..20_u64 {
            let at = RAM + round * 0x1_0000;
            let request = [round as u8 ^ 0x5a; 24];
            crate::machine::Machine::mem_write(&mut b.m, PhysAddr(at + 8), &request);
            let out = vecs(&[(at + 8, 16), (at + 24, 8)]);
            let input = vecs(&[(at + 0x1000, 64), (at + 0x2000, 64)]);
            let buffers = Buffers::Memory {
                out: &out,
                input: &input,
            };
            q.add(&mut b.dma, &mut b.m, buffers, round).unwrap();
            let used = if features.indirect_desc { 1 } else { 4 };
            assert_eq!(q.num_free(), 8 - used);
            let got = dev.serve(&mut b, &[round as u8; 100]).unwrap();
            assert_eq!(got, request);
            let done = q.get_buf(&mut b.dma, &mut b.m).unwrap();
            assert_eq!(
                done,
                Some(Used {
                    token: round,
                    len: 100
                })
            );
            assert_eq!(b.m.cpu_read(at + 0x1000, 64), [round as u8; 64]);
            assert_eq!(b.m.cpu_read(at + 0x2000, 36), [round as u8; 36]);
            assert_eq!(q.num_free(), 8);
            assert_eq!(q.get_buf(&mut b.dma, &mut b.m), Ok(None));
        }
        q.delete(&mut b.dma, &mut b.m);
        b.assert_clean();
    }
}

/// One call for each entry, with the direction of each; never a scatterlist, never MMIO.
#[test]
fn with_access_platform_every_entry_is_mapped() {
    let mut b = bench(true);
    let mut q = queue(&mut b, 4, PLATFORM);
    b.m.take();
    b.dma.trace.take();
    let (out, input) = (vecs(&[(RAM, 16)]), vecs(&[(RAM + 0x1000, 64), (BAR, 64)]));
    let buffers = Buffers::Memory {
        out: &out,
        input: &input,
    };
    q.add(&mut b.dma, &mut b.m, buffers, 1).unwrap();
    // A peer's memory is mapped as if it was main memory: the driver must not pass it.
    assert_eq!(b.prots(), [(4096, 0x05), (4096, 0x06), (4096, 0x06)]);
    let calls = |b: &mut Bench| {
        let calls = b.dma.trace.take().into_iter().filter_map(|e| match e {
            Event::DmaMapPhys { dir, attrs, .. } => Some((true, dir, attrs)),
            Event::DmaUnmapPhys { dir, attrs, .. } => Some((false, dir, attrs)),
            Event::DmaMapSg { .. } => panic!("a scatterlist"),
            _ => None,
        });
        calls.collect::<Vec<_>>()
    };
    let (to, from, none) = (Direction::ToDevice, Direction::FromDevice, Attrs::empty());
    assert_eq!(
        calls(&mut b),
        [(true, to, none), (true, from, none), (true, from, none)]
    );
    assert_eq!(q.detach_unused_buf(&mut b.dma, &mut b.m), Some(1));
    assert_eq!(
        calls(&mut b),
        [(false, to, none), (false, from, none), (false, from, none)]
    );
    // The lines of the buffer are the driver's business: said at map, not at unmap.
    let one = vecs(&[(RAM + 0x40, 64)]);
    q.add(&mut b.dma, &mut b.m, Buffers::CacheClean(&one), 2)
        .unwrap();
    assert_eq!(q.detach_unused_buf(&mut b.dma, &mut b.m), Some(2));
    assert_eq!(
        calls(&mut b),
        [
            (true, from, Attrs::DEBUGGING_IGNORE_CACHELINES),
            (false, from, none)
        ]
    );
    assert_eq!(q.detach_unused_buf(&mut b.dma, &mut b.m), None);
    q.delete(&mut b.dma, &mut b.m);
    b.assert_clean();
}

/// Without it the mapping API hears of nothing, and behind an IOMMU the device finds nothing.
#[test]
fn without_access_platform_the_api_is_bypassed() {
    let mut b = bench(true);
    let mut q = queue(&mut b, 4, indirect(LEGACY));
    let (out, input) = (vecs(&[(RAM, 16)]), vecs(&[(RAM + 0x1000, 64)]));
    let buffers = Buffers::Memory {
        out: &out,
        input: &input,
    };
    q.add(&mut b.dma, &mut b.m, buffers, 1).unwrap();
    assert_eq!(b.dma.trace.take(), []);
    assert_eq!(b.dma.live().count(), 0);
    let mut dev = DeviceSide::new(&q, 4);
    assert_eq!(dev.serve(&mut b, &[]), Err("IOMMU fault"));
    q.delete(&mut b.dma, &mut b.m);
    assert_eq!(b.dma.trace.take(), []);
    b.assert_clean();
}

/// The sanitizer hears of every buffer, by the mapping API or by hand; not of premapped ones.
#[test]
fn uninitialised_memory() {
    for (features, reports) in [(PLATFORM, 1), (LEGACY, 1), (indirect(LEGACY), 1)] {
        let mut b = bench(true);
        b.dma.kmsan = Some(Box::default());
        b.dma.kmsan_poison(PhysAddr(RAM + 8), 4);
        b.dma.kmsan_poison(PhysAddr(RAM + 0x1000), 64);
        let mut q = queue(&mut b, 4, features);
        let input = vecs(&[(RAM + 0x1000, 64)]);
        let buffers = Buffers::Memory {
            out: &[],
            input: &input,
        };
        q.add(&mut b.dma, &mut b.m, buffers, 1).unwrap();
        let out = vecs(&[(RAM, 8), (RAM + 0x1000, 64)]);
        let buffers = Buffers::Memory {
            out: &out,
            input: &[],
        };
        q.add(&mut b.dma, &mut b.m, buffers, 2).unwrap();
        let count = |b: &Bench| b.dma.kmsan().unwrap().count();
        assert_eq!(count(&b), 0);
        let v = DmaVec {
            addr: tlproof_pcie::DmaAddr(RAM),
            len: 16,
        };
        let buffers = Buffers::Premapped {
            out: &[v],
            input: &[],
        };
        q.add(&mut b.dma, &mut b.m, buffers, 3).unwrap();
        assert_eq!(count(&b), 0);
        while q.detach_unused_buf(&mut b.dma, &mut b.m).is_some() {}
        let out = vecs(&[(RAM, 16)]);
        let buffers = Buffers::Memory {
            out: &out,
            input: &[],
        };
        q.add(&mut b.dma, &mut b.m, buffers, 4).unwrap();
        assert_eq!(count(&b), reports);
        q.delete(&mut b.dma, &mut b.m);
    }
}

#[test]
fn premapped_buffers_are_left_alone() {
    for features in [PLATFORM, indirect(PLATFORM)] {
        let mut b = bench(true);
        let mut q = queue(&mut b, 4, features);
        let mut dev = DeviceSide::new(&q, 4);
        let mut map = |phys, dir| {
            let (dma, m) = (&mut b.dma, &mut b.m);
            let addr = dma
                .dma_map_phys(m, b.dev, PhysAddr(phys), 64, dir, Attrs::empty())
                .unwrap();
            DmaVec { addr, len: 64 }
        };
        let (out, input) = (
            map(RAM, Direction::ToDevice),
            map(RAM + 0x1000, Direction::FromDevice),
        );
        let before: Vec<_> = b.dma.live().cloned().collect();
        let buffers = Buffers::Premapped {
            out: &[out],
            input: &[input],
        };
        q.add(&mut b.dma, &mut b.m, buffers, 9).unwrap();
        // A table is the queue's own.
        let more = usize::from(features.indirect_desc);
        assert_eq!(b.dma.live().count(), before.len() + more);
        dev.serve(&mut b, &[7; 64]).unwrap();
        let used = q.get_buf(&mut b.dma, &mut b.m).unwrap();
        assert_eq!(used, Some(Used { token: 9, len: 64 }));
        assert_eq!(b.dma.live().cloned().collect::<Vec<_>>(), before);
        assert_eq!(b.m.cpu_read(RAM + 0x1000, 64), [7; 64]);
        for (v, dir) in [(out, Direction::ToDevice), (input, Direction::FromDevice)] {
            let (dma, m) = (&mut b.dma, &mut b.m);
            dma.dma_unmap_phys(m, b.dev, v.addr, 64, dir, Attrs::empty());
        }
        q.delete(&mut b.dma, &mut b.m);
        b.assert_clean();
    }
}

#[test]
fn what_does_not_fit() {
    let mut b = bench(true);
    let mut q = queue(&mut b, 4, PLATFORM);
    let none = Buffers::CacheClean(&[]);
    assert_eq!(
        q.add(&mut b.dma, &mut b.m, none, 0),
        Err(VirtqueueError::Empty)
    );
    let three = vecs(&[(RAM, 16), (RAM + 0x1000, 16), (RAM + 0x2000, 16)]);
    let buffers = Buffers::Memory {
        out: &three,
        input: &[],
    };
    q.add(&mut b.dma, &mut b.m, buffers, 1).unwrap();
    assert_eq!(
        q.add(&mut b.dma, &mut b.m, buffers, 2),
        Err(VirtqueueError::Full(1))
    );
    let live = b.dma.live().count();
    b.dma.iommu_mut().unwrap().broken = true;
    assert!(matches!(
        q.add(&mut b.dma, &mut b.m, Buffers::CacheClean(&three[..1]), 2),
        Err(VirtqueueError::Map(MapError::Iommu(_)))
    ));
    b.dma.iommu_mut().unwrap().broken = false;
    assert_eq!((b.dma.live().count(), q.num_free()), (live, 1));
    q.delete(&mut b.dma, &mut b.m);
    // A table of its own, but not longer than the queue.
    let mut q = queue(&mut b, 2, indirect(PLATFORM));
    assert_eq!(
        q.add(&mut b.dma, &mut b.m, buffers, 2),
        Err(VirtqueueError::Full(2))
    );
    q.delete(&mut b.dma, &mut b.m);
    b.assert_clean();
    for (num, ok) in [(0, false), (3, false), (1, true), (1 << 15, true)] {
        assert_eq!(Layout::new(num).is_some(), ok, "{num}");
    }
}

/// The second of three buffers cannot be mapped, or the table has no page.
#[test]
fn a_chain_is_added_as_a_whole() {
    let mut b = bench(true);
    let mut q = queue(&mut b, 8, PLATFORM);
    let bad = vecs(&[(RAM, 16), (RAM + 0x1000, 0), (RAM + 0x2000, 16)]);
    let buffers = Buffers::Memory {
        out: &bad,
        input: &[],
    };
    let e = q.add(&mut b.dma, &mut b.m, buffers, 1);
    assert_eq!(e, Err(VirtqueueError::Map(MapError::ZeroSize)));
    assert_eq!(q.num_free(), 8);
    q.delete(&mut b.dma, &mut b.m);
    let mut q = queue(&mut b, 8, indirect(PLATFORM));
    let empty = crate::pages::PagePool::new(tlproof_pcie::Range::sized(0xf800_0001, 1));
    let pages = b.dma.pages.replace(Box::new(empty));
    let good = vecs(&[(RAM, 16), (RAM + 0x2000, 16)]);
    let buffers = Buffers::Memory {
        out: &good,
        input: &[],
    };
    let e = q.add(&mut b.dma, &mut b.m, buffers, 1);
    assert_eq!(e, Err(VirtqueueError::Map(MapError::NoMemory)));
    b.dma.pages = pages;
    q.delete(&mut b.dma, &mut b.m);
    b.assert_clean();
}

/// A device that returns what it was not given.
#[test]
fn a_bad_head_breaks_the_queue() {
    for id in [1, 4, u32::MAX] {
        let mut b = bench(true);
        let mut q = queue(&mut b, 4, PLATFORM);
        let mut dev = DeviceSide::new(&q, 4);
        let one = vecs(&[(RAM, 16)]);
        q.add(&mut b.dma, &mut b.m, Buffers::CacheClean(&one), 5)
            .unwrap();
        dev.return_used(&mut b, id, 0);
        let got = q.get_buf(&mut b.dma, &mut b.m);
        assert_eq!(got, Err(VirtqueueError::BadId(id)));
        let again = q.get_buf(&mut b.dma, &mut b.m);
        assert_eq!(again, Err(VirtqueueError::Broken));
        let add = q.add(&mut b.dma, &mut b.m, Buffers::CacheClean(&one), 6);
        assert_eq!(add, Err(VirtqueueError::Broken));
        // What the device had is taken back all the same.
        q.delete(&mut b.dma, &mut b.m);
        b.assert_clean();
    }
}

#[test]
fn notifications() {
    let mut b = bench(false);
    let q = queue(&mut b, 4, PLATFORM);
    assert!(q.kick_prepare(&mut b.m));
    let dev = DeviceSide::new(&q, 4);
    dev.set_no_notify(&mut b);
    assert!(!q.kick_prepare(&mut b.m));
    b.m.take();
    q.delete(&mut b.dma, &mut b.m);
    assert!(b.m.take().iter().any(|op| matches!(op, Op::Unmap { .. })));
}
