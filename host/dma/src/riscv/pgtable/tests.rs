use std::collections::BTreeMap;

use proptest::prelude::*;
use tlproof_pcie::Range;

use super::*;
use crate::riscv::fake::FakeMachine;

const PLAIN: u64 = V | R | W | X | U | A | D;

fn setup(mode: Mode) -> (FakeMachine, PagePool, PageTable) {
    let mut m = FakeMachine::new(0);
    let mut pool = PagePool::new(Range::sized(0x1_0000_0000, 64 << 20));
    let table = PageTable::new(&mut m, &mut pool, mode).unwrap();
    (m, pool, table)
}

#[test]
fn leaves() {
    for (prot, plain, typed) in [
        (0x07, 0x2000_00df, 0x2000_00df),
        (0x05, 0x2000_005b, 0x2000_005b),
        (0x06, 0x2000_00df, 0x2000_00df),
        (0x03, 0x2000_00df, 0x2000_0000_2000_00df),
        (0x13, 0x2000_00df, 0x4000_0000_2000_00df),
        (0x11, 0x2000_005b, 0x4000_0000_2000_005b),
        (0x1a, 0x2000_00d7, 0x4000_0000_2000_00d7),
    ] {
        let prot = Prot::from_bits_truncate(prot);
        let page = ppn_field(PhysAddr(0x8000_0000));
        assert_eq!(page | leaf_bits(prot, false).unwrap(), plain, "{prot:?}");
        assert_eq!(page | leaf_bits(prot, true).unwrap(), typed, "{prot:?}");
    }
    assert_eq!(leaf_bits(Prot::NOEXEC, true), Err(IommuError::Unsupported));
}

#[test]
fn a_64k_page_fills_16_slots() {
    let (mut m, mut pool, t) = setup(Mode::Sv39);
    let g = &mut Gather::default();
    let to = PhysAddr(0x8000_0000);
    t.map(&mut m, &mut pool, 0x1_0000, to, 0x1_0000, PLAIN, g)
        .unwrap();
    for i in 0..16 {
        let leaf = t.lookup(&mut m, 0x1_0000 + i * 0x1000 + 5).unwrap();
        assert_eq!(leaf.entry, 0x8000_0000_2000_20df);
        assert_eq!(leaf.phys.0, 0x8000_0000 + i * 0x1000 + 5);
    }
    // It goes as a whole, from its start only.
    assert_eq!(t.unmap(&mut m, 0x1_1000, 0x1000, g), 0);
    assert_eq!(t.unmap(&mut m, 0x1_0000, 0x1000, g), 0x1_0000);
    assert_eq!(g.range, Some((0x1_0000, 0x1_ffff)));
    assert_eq!(t.lookup(&mut m, 0x1_f000), None);
}

#[test]
fn the_largest_page_that_fits_is_taken() {
    for (mode, top) in [(Mode::Sv39, 30), (Mode::Sv48, 39), (Mode::Sv57, 48)] {
        let (mut m, mut pool, t) = setup(mode);
        let size = 1 << top;
        assert_eq!(t.page_sizes().ilog2(), top);
        t.map(
            &mut m,
            &mut pool,
            size,
            PhysAddr(size),
            size,
            PLAIN,
            &mut Gather::default(),
        )
        .unwrap();
        // One entry in the root: no other table.
        assert_eq!(pool.used_bytes(), PAGE_SIZE);
        assert_eq!(t.lookup(&mut m, 2 * size - 1).unwrap().phys.0, 2 * size - 1);
    }
}

#[test]
fn refusals() {
    let (mut m, mut pool, t) = setup(Mode::Sv39);
    let mut map = |iova, phys, size| {
        t.map(
            &mut m,
            &mut pool,
            iova,
            PhysAddr(phys),
            size,
            PLAIN,
            &mut Gather::default(),
        )
    };
    assert_eq!(map(0, 0, 0), Err(IommuError::Invalid));
    assert_eq!(map(0, 0x800, 0x1000), Err(IommuError::Misaligned));
    assert_eq!(map(1 << 38, 0, 0x1000), Err(IommuError::Range));
    assert_eq!(map((1 << 38) - 0x1000, 0, 0x2000), Err(IommuError::Range));
    assert_eq!(map(0, 1 << 56, 0x1000), Err(IommuError::Range));
    assert_eq!(map(!0xfff, 0, 0x1000), Err(IommuError::Range));
    assert_eq!(map(0x5000, 0x5000, 0x1000), Ok(()));
    assert_eq!(map(0x3000, 0x3000, 0x4000), Err(IommuError::InUse));
    // Unwound, and the first mapping stands.
    assert_eq!(map(0x3000, 0x3000, 0x2000), Ok(()));
    assert_eq!(t.lookup(&mut m, 0x5000).unwrap().phys.0, 0x5000);
}

#[test]
fn tables_inside_the_range_go_with_it() {
    let (mut m, mut pool, t) = setup(Mode::Sv39);
    let g = &mut Gather::default();
    // Not aligned to 2 MiB physically: 512 small entries.
    let to = PhysAddr(0x8000_1000);
    t.map(&mut m, &mut pool, 2 << 20, to, 2 << 20, PLAIN, g)
        .unwrap();
    assert_eq!(pool.used_bytes(), 3 * PAGE_SIZE);
    assert_eq!(t.unmap(&mut m, 2 << 20, 2 << 20, g), 2 << 20);
    assert_eq!((g.freelist.len(), g.leaf_levels, g.table_levels), (1, 1, 2));
}

#[test]
fn an_empty_table_makes_way_for_a_large_page() {
    let (mut m, mut pool, t) = setup(Mode::Sv39);
    let g = &mut Gather::default();
    let to = PhysAddr(0x8000_0000);
    t.map(&mut m, &mut pool, 0, to, 0x1000, PLAIN, g).unwrap();
    assert_eq!(
        t.map(&mut m, &mut pool, 0, to, 2 << 20, PLAIN, g),
        Err(IommuError::InUse)
    );
    t.unmap(&mut m, 0, 0x1000, g);
    let g = &mut Gather::default();
    t.map(&mut m, &mut pool, 0, to, 2 << 20, PLAIN, g).unwrap();
    assert_eq!((g.freelist.len(), g.table_levels), (1, 2));
    assert_eq!(g.range, Some((0, (2 << 20) - 1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Against a map of single pages, with the size of the leaf that each page is part of.
    #[test]
    fn behaves_as_a_map_of_pages(
        mode in prop::sample::select(vec![Mode::Sv39, Mode::Sv48, Mode::Sv57]),
        steps in prop::collection::vec(
            (any::<bool>(), 0..1600_u64, 1..700_u64, prop::sample::select(vec![0, 1, 16, 512])),
            1..24,
        ),
    ) {
        let (mut m, mut pool, t) = setup(mode);
        let empty = pool.used_bytes();
        // Page -> (physical page, first page of its leaf, pages of its leaf).
        let mut model: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
        for (map, page, count, skew) in steps {
            let mut g = Gather::default();
            if map {
                let to = page + 0x8_0000 + skew;
                let got = t.map(&mut m, &mut pool, page << 12, PhysAddr(to << 12), count << 12, PLAIN, &mut g);
                if model.range(page..page + count).next().is_some() {
                    prop_assert_eq!(got, Err(IommuError::InUse));
                } else {
                    prop_assert_eq!(got, Ok(()));
                    let mut done = 0;
                    while done < count {
                        let (at, dst) = (page + done, to + done);
                        let leaf = [512, 16, 1].into_iter().find(|s| {
                            (at | dst) % s == 0 && *s <= count - done
                        }).unwrap();
                        for i in 0..leaf {
                            model.insert(at + i, (dst + i, at, leaf));
                        }
                        done += leaf;
                    }
                }
            } else {
                let got = t.unmap(&mut m, page << 12, count << 12, &mut g) >> 12;
                let mut at = page;
                while at < page + count {
                    match model.get(&at) {
                        Some(&(_, first, leaf)) if first == at => {
                            for i in 0..leaf {
                                model.remove(&(at + i));
                            }
                            at += leaf;
                        }
                        _ => break,
                    }
                }
                prop_assert_eq!(got, at - page);
                if got > 0 {
                    prop_assert_eq!(g.range, Some((page << 12, (at << 12) - 1)));
                }
            }
            for table in g.freelist {
                pool.free(table);
            }
            // Prime, so that the steps meet every position of a leaf.
            for page in (0..2400).step_by(7) {
                let got = t.lookup(&mut m, page << 12).map(|l| l.phys.0 >> 12);
                prop_assert_eq!(got, model.get(&page).map(|e| e.0), "page {:#x}", page);
            }
        }
        t.free(&mut m, &mut pool);
        prop_assert_eq!(pool.used_bytes(), empty - PAGE_SIZE);
    }
}
