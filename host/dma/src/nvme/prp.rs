//! Physical region pages (NVM Express Base Specification 2.0 §4.3.1).

use tlproof_pcie::DmaAddr;

use super::CTRL_PAGE;
use crate::block::DmaVec;

/// Entries of a list page.
pub const LIST_ENTRIES: usize = CTRL_PAGE as usize / 8;

/// One address for every controller page of a transfer. `None` when a vector begins or ends
/// inside a page in the middle of it.
pub fn entries(vecs: &[DmaVec]) -> Option<Vec<DmaAddr>> {
    let mut left: u64 = vecs.iter().map(|v| u64::from(v.len)).sum();
    let mut entries = Vec::new();
    for v in vecs {
        let (mut addr, mut len) = (v.addr, u64::from(v.len));
        while len > 0 {
            let offset = addr.offset_in(CTRL_PAGE);
            let step = left.min(CTRL_PAGE - offset);
            if len < step || (offset != 0 && !entries.is_empty()) {
                return None;
            }
            entries.push(addr);
            addr = addr.offset(step);
            len -= step;
            left -= step;
        }
    }
    Some(entries)
}

/// Spreads entries over list pages: the last slot of a page that another one follows is for that
/// one's address, so the entry that would be there is the first of the next page.
pub fn lists(mut entries: &[DmaAddr]) -> Vec<&[DmaAddr]> {
    let mut lists = Vec::new();
    while entries.len() > LIST_ENTRIES {
        let (page, rest) = entries.split_at(LIST_ENTRIES - 1);
        lists.push(page);
        entries = rest;
    }
    lists.push(entries);
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vecs(list: &[(u64, u32)]) -> Vec<DmaVec> {
        let vec = |(addr, len): &(u64, u32)| DmaVec {
            addr: DmaAddr(*addr),
            len: *len,
        };
        list.iter().map(vec).collect()
    }

    fn of(list: &[(u64, u32)]) -> Option<Vec<u64>> {
        Some(entries(&vecs(list))?.into_iter().map(|a| a.0).collect())
    }

    #[test]
    fn one_entry_a_page() {
        assert_eq!(of(&[(0x1000, 1)]), Some(vec![0x1000]));
        assert_eq!(of(&[(0x1ffc, 8)]), Some(vec![0x1ffc, 0x2000]));
        assert_eq!(of(&[(0x1200, 0x2000)]), Some(vec![0x1200, 0x2000, 0x3000]));
        assert_eq!(
            of(&[(0x1200, 0xe00), (0x8000, 0x1000), (0x5000, 4)]),
            Some(vec![0x1200, 0x8000, 0x5000])
        );
    }

    #[test]
    fn gaps_cannot_be_described() {
        assert_eq!(of(&[(0x1000, 0x200), (0x8000, 0x1000)]), None);
        assert_eq!(of(&[(0x1000, 0x1000), (0x8200, 0x1000)]), None);
        assert_eq!(of(&[(0x1000, 0x1000), (0x8000, 0x800), (0x9000, 4)]), None);
        // Not even where the lengths would fit.
        assert_eq!(of(&[(0x1000, 0x1000), (0x8200, 0x200)]), None);
    }

    #[test]
    fn chained_pages() {
        let all: Vec<_> = (0..2048).map(DmaAddr).collect();
        let sizes = |n: usize| -> Vec<usize> { lists(&all[..n]).iter().map(|l| l.len()).collect() };
        assert_eq!(sizes(2), [2]);
        assert_eq!(sizes(512), [512]);
        assert_eq!(sizes(513), [511, 2]);
        assert_eq!(sizes(1023), [511, 512]);
        assert_eq!(sizes(1024), [511, 511, 2]);
        // 8 MiB that begin inside a page: five, which is what a request has room for.
        assert_eq!(sizes(2048), [511, 511, 511, 511, 4]);
        assert_eq!(lists(&all).concat(), all);
    }
}
