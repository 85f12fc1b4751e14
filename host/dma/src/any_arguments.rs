//! Whatever a driver passes: a result, an error or a warning, never a panic. Built without
//! optimisation this also finds sums that overflow.

use proptest::prelude::*;

use crate::{IovaState, SgEntry, pages::PagePool, testing::bench::*};

/// Addresses, sizes and masks at the ends of what there is.
fn number() -> impl Strategy<Value = u64> {
    let edge = prop::sample::select(vec![
        0,
        1,
        0x7ff,
        0x1000,
        0x1_0001,
        RAM,
        RAM + 0x123,
        BAR,
        POOL + 0x800,
        1 << 32,
        (1 << 32) - 1,
        1 << 63,
        u64::MAX - 0xfff,
        u64::MAX,
    ]);
    let near = (edge.clone(), -2i64..3).prop_map(|(n, d)| n.wrapping_add_signed(d));
    prop_oneof![3 => edge, 2 => near, 1 => any::<u64>(), 2 => 0..0x4000u64]
}

#[derive(Clone, Debug)]
struct Call {
    which: usize,
    numbers: [u64; 4],
    dir: Direction,
    attrs: Attrs,
}

fn call() -> impl Strategy<Value = Call> {
    let dir = prop::sample::select(vec![ToDevice, FromDevice, Bidirectional]);
    let attrs = any::<u32>()
        .prop_map(|b| Attrs::from_bits_truncate(u64::from(b).try_into().unwrap_or_default()));
    let attrs = prop_oneof![Just(NONE), Just(Attrs::MMIO), attrs];
    (
        0..CALLS,
        [number(), number(), number(), number()],
        dir,
        attrs,
    )
        .prop_map(|(which, numbers, dir, attrs)| Call {
            which,
            numbers,
            dir,
            attrs,
        })
}

/// Kinds of calls.
const CALLS: usize = 17;

fn make(b: &mut Bench, state: &mut IovaState, call: &Call) {
    let Call {
        which,
        numbers: [p, n, q, k],
        dir,
        attrs,
    } = call.clone();
    let (dma, m, dev) = (&mut b.dma, &mut b.m, b.dev);
    let (phys, at) = (PhysAddr(p), DmaAddr(q));
    match which {
        0 => drop(dma.dma_map_phys(m, dev, phys, n, dir, attrs)),
        1 => dma.dma_unmap_phys(m, dev, at, n, dir, attrs),
        2 => drop(dma.dma_map_page(m, dev, phys, n, dir, attrs)),
        3 => drop(dma.dma_map_resource(m, dev, phys, n, dir, attrs)),
        4 => dma.dma_unmap_resource(m, dev, at, n, dir, attrs),
        5 => {
            dma.dma_sync_single_for_cpu(m, dev, at, n, dir);
            dma.dma_sync_single_for_device(m, dev, at, n, dir);
        }
        6 => {
            let mut list = [SgEntry::new(phys, n), SgEntry::new(PhysAddr(q), k)];
            let _ = dma.dma_map_sg(m, dev, &mut list, dir, attrs);
            dma.dma_sync_sg_for_cpu(m, dev, &list, dir);
            dma.dma_unmap_sg(m, dev, &mut list, dir, attrs);
        }
        7 => {
            if let Some(new) = dma.dma_iova_try_alloc(dev, phys, n) {
                dma.dma_iova_free(dev, state);
                *state = new;
            }
        }
        8 => drop(dma.dma_iova_link(m, dev, state, phys, q, n, dir, attrs)),
        9 => drop(dma.dma_iova_sync(dev, state, q, n)),
        10 => dma.dma_iova_unlink(m, dev, state, q, n, dir, attrs),
        11 => dma.dma_iova_destroy(m, dev, state, n, dir, attrs),
        12 => {
            if let Ok(memory) = dma.dma_alloc_attrs(m, dev, n, attrs) {
                let _ = memory.write(m, q, &[1, 2, 3]);
                dma.dma_free_attrs(m, dev, memory, attrs);
            }
        }
        13 => {
            if let Ok(pages) = dma.dma_alloc_pages(m, dev, n, dir) {
                dma.dma_free_pages(m, dev, pages);
            }
            if let Ok(memory) = dma.dma_alloc_noncontiguous(m, dev, n, dir, attrs) {
                dma.dma_free_noncontiguous(m, dev, memory);
            }
        }
        14 => {
            let _ = dma.dma_set_mask(dev, p);
            let _ = dma.dma_set_coherent_mask(dev, q);
        }
        15 => {
            let _ = dma.dma_set_min_align_mask(dev, p);
            let _ = dma.dma_set_max_seg_size(dev, n);
            let _ = (dma.dma_max_mapping_size(dev), dma.dma_opt_mapping_size(dev));
        }
        _ => {
            m.time = m.time.saturating_add(n);
            dma.tick(m);
            let _ = dma.describe(dev, at);
        }
    }
}

proptest! {
    #[test]
    fn no_call_panics(
        attach in prop::sample::select(vec![
            Attach::Direct, Attach::Identity, Attach::Strict, Attach::Lazy, Attach::Xen,
        ]),
        coherent: bool,
        untrusted: bool,
        pool: bool,
        checked: bool,
        calls in prop::collection::vec(call(), 1..16),
    ) {
        let config = Config {
            debug: checked.then(crate::debug::Options::default),
            kmsan: checked,
            ..Config::default()
        };
        let device = Device { coherent, untrusted, ..device() };
        let mut b = Bench::new(config, device, attach);
        b.dma.set_pages(Box::new(PagePool::new(Range::sized(0xa000_0000, 1 << 16))));
        if pool {
            b = b.pool(false);
        }
        let mut state = IovaState::default();
        for call in &calls {
            make(&mut b, &mut state, call);
        }
    }
}
