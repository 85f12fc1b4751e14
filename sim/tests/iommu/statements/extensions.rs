//! Invalidation of non-leaf entries (NL) and of ranges (S): IOMMU §8.2, §8.3.

use super::spaces::{
    AV, FAR, GUESTS, GVMA, IOVA, OTHER, SPACES, Setup, Space, VMA, gscid, name_a_guest_by_16_bits,
    one_of_each, page, pscid,
};
use crate::bench::reg;
use crate::rig::Rig;
use crate::tables::pte;

const NL: u64 = 1 << 34;
/// In the second doubleword.
const S: u64 = 1 << 9;

/// The range of 2^(X + 1) pages at `addr`.
const fn range(addr: u64, x: u32) -> u64 {
    (addr >> 12 | ((1 << x) - 1)) << 10 | S
}

#[test]
fn nl_is_bit_34_if_capable() {
    for (mut s, kind) in one_of_each() {
        assert_eq!(s.rig.read(reg::CAPABILITIES, 8) >> 42 & 1, 1);
        s.drops_all_levels([kind | AV | 1 << 34, page(IOVA)], |_| true);
        s.drops_leaves([kind | AV, page(IOVA)], |_| true);
    }
    assert_eq!(Rig::minimal(45).read(reg::CAPABILITIES, 8) >> 42 & 1, 0);
}

#[test]
fn vma_without_av_ignores_nl() {
    let mut s = Setup::new(&SPACES, true);
    let of_host = |s: &Space| s.gscid == 0;
    let of_guest = |s: &Space| s.gscid == 7;
    for second in [page(IOVA), page(FAR)] {
        for nl in [0, NL] {
            s.drops_all_levels([VMA | nl, second], of_host);
            s.drops_all_levels([VMA | nl | pscid(5), second], |s| {
                of_host(s) && s.pscid == 5
            });
            s.drops_all_levels([VMA | nl | gscid(7), second], of_guest);
            s.drops_all_levels([VMA | nl | gscid(7) | pscid(5), second], |s| {
                of_guest(s) && s.pscid == 5
            });
        }
    }
}

/// Entries of global mappings too.
#[test]
fn vma_with_nl_of_the_host() {
    let mut s = Setup::new(&SPACES, true);
    let of_host = |s: &Space| s.gscid == 0;
    for global in [false, true] {
        if global {
            s.make_global();
        }
        s.drops_all_levels([VMA | AV | NL, page(IOVA)], of_host);
        s.drops_leaves([VMA | AV, page(IOVA)], of_host);
        s.drops_leaves([VMA | AV | NL, page(FAR)], |_| false);
    }
}

#[test]
fn vma_with_nl_of_one_host_space() {
    let mut s = Setup::new(&SPACES, true);
    let named = |s: &Space| (s.gscid, s.pscid) == (0, 5);
    s.drops_all_levels([VMA | AV | NL | pscid(5), page(IOVA)], named);
    s.drops_leaves([VMA | AV | pscid(5), page(IOVA)], named);
    s.drops_leaves([VMA | AV | NL | pscid(5), page(FAR)], |_| false);
}

/// Entries of global mappings too.
#[test]
fn vma_with_nl_of_one_guest() {
    let mut s = Setup::new(&SPACES, true);
    let named = |s: &Space| s.gscid == 7;
    let kind = VMA | AV | gscid(7);
    for global in [false, true] {
        if global {
            s.make_global();
        }
        s.drops_all_levels([kind | NL, page(IOVA)], named);
        s.drops_leaves([kind, page(IOVA)], named);
        s.drops_leaves([kind | NL, page(FAR)], |_| false);
    }
}

#[test]
fn vma_with_nl_of_one_guest_space() {
    let mut s = Setup::new(&SPACES, true);
    let named = |s: &Space| (s.gscid, s.pscid) == (7, 5);
    let kind = VMA | AV | gscid(7) | pscid(5);
    s.drops_all_levels([kind | NL, page(IOVA)], named);
    s.drops_leaves([kind, page(IOVA)], named);
    s.drops_leaves([kind | NL, page(FAR)], |_| false);
}

#[test]
fn with_nl_a_guest_is_named_by_16_bits() {
    let nl = |kind| [kind | AV | NL, page(IOVA)];
    name_a_guest_by_16_bits(true, 2, &[nl(VMA), nl(VMA | pscid(5))]);
    name_a_guest_by_16_bits(false, 2, &[nl(GVMA)]);
}

#[test]
fn gvma_of_all_guests_ignores_av_and_nl() {
    let mut s = Setup::new(&GUESTS, false);
    for second in [page(IOVA), page(FAR)] {
        for bits in [0, AV, NL, AV | NL] {
            s.drops_all_levels([GVMA | bits, second], |_| true);
        }
    }
    // Of one guest they count.
    s.drops_leaves([GVMA | gscid(7) | AV | NL, page(FAR)], |_| false);
}

#[test]
fn gvma_without_av_ignores_nl() {
    let mut s = Setup::new(&GUESTS, false);
    for second in [page(IOVA), page(FAR)] {
        for nl in [0, NL] {
            s.drops_all_levels([GVMA | gscid(7) | nl, second], |s| s.gscid == 7);
        }
    }
}

#[test]
fn s_is_bit_73_if_capable() {
    for (mut s, kind) in one_of_each() {
        assert_eq!(s.rig.read(reg::CAPABILITIES, 8) >> 43 & 1, 1);
        // ADDR is the fourth page of eight.
        let pages = [0, 3, 7].map(|n| 0x5_0000 + (n << 12));
        let addr = page(pages[1]);
        assert_eq!(s.seen(0, &pages, [kind | AV, addr | 1 << 9]), pages);
        assert_eq!(s.seen(0, &pages, [kind | AV, addr]), [pages[1]]);
    }
    assert_eq!(Rig::minimal(45).read(reg::CAPABILITIES, 8) >> 43 & 1, 0);
}

#[test]
fn gvma_of_all_guests_ignores_av_and_s() {
    let mut s = Setup::new(&GUESTS, false);
    for second in [page(FAR), range(FAR, 0), range(FAR, 1)] {
        for av in [0, AV] {
            s.drops_all_levels([GVMA | av, second], |_| true);
        }
    }
    s.drops_leaves([GVMA | gscid(7) | AV, range(FAR, 1)], |_| false);
}

#[test]
fn without_av_s_is_ignored() {
    for (mut s, kind) in one_of_each() {
        for second in [page(FAR), range(FAR, 0), range(FAR, 1)] {
            s.drops_all_levels([kind, second], |_| true);
            s.drops_leaves([kind | AV, second], |_| false);
        }
    }
}

/// The first and the last page of the range, and the pages beside them.
fn range_of(x: u32) {
    for (mut s, kind) in one_of_each() {
        let size = 0x2000 << x;
        let [before, first, last, after] = [size - 0x1000, size, 2 * size - 0x1000, 2 * size];
        let pages = [before, first, last, after];
        let seen = s.seen(0, &pages, [kind | AV, range(first, x)]);
        assert_eq!(seen, [first, last], "X {x}");
    }
}

#[test]
fn the_lowest_0_of_addr_says_the_size() {
    for x in 1..42 {
        range_of(x);
    }
}

#[test]
fn the_smallest_range_has_8_kib() {
    range_of(0);
}

#[test]
fn the_largest_range_is_everything() {
    let addr = (1 << 51) - 1;
    let low = [0x1000, IOVA, FAR, 1 << 55];
    // The highest addresses: negative ones of Sv57, 59 bits of Sv57x4.
    for ((mut s, kind), high) in one_of_each().into_iter().zip([!0xfff, (1 << 59) - 0x1000]) {
        let pages = [&low[..], &[high]].concat();
        assert_eq!(s.seen(0, &pages, [kind | AV, addr << 10 | S]), pages);
        assert_eq!(s.seen(0, &low, [kind | AV, addr << 10]), []);
    }
}

/// 64 KiB by NAPOT and 2 MiB, held by its first address; the range has its last 8 KiB, then those of
/// the pages beside it.
#[test]
fn a_range_in_a_large_page_names_all_of_it() {
    const BEFORE: u64 = 1 << 54;
    for level in [0, 1] {
        for (mut s, kind) in one_of_each() {
            let (size, entries) = [(1 << 16, 16), (1 << 21, 1)][level as usize];
            let first = IOVA & !(size - 1);
            let entry = s.entry(0, first, level);
            let set = |rig: &mut Rig, to| {
                let leaf = match level {
                    0 => pte::at(to + size / 2, pte::ALL | pte::N),
                    _ => pte::at(to, pte::ALL),
                };
                for i in 0..entries {
                    rig.store(entry + 8 * i, leaf);
                }
            };
            for nl in [0, NL] {
                set(&mut s.rig, BEFORE);
                s.rig.forget();
                assert_eq!(s.translate(0, first), BEFORE);
                set(&mut s.rig, OTHER);
                for (after, expected) in [(0, BEFORE), (2 * size, BEFORE), (size, OTHER)] {
                    let named = range(first + after - 0x2000, 0);
                    s.rig.sync(&[[kind | AV | nl, named]]);
                    assert_eq!(s.translate(0, first), expected, "{level} {after:#x}");
                }
            }
        }
    }
}
