//! Lengths of the buffers of a scatterlist.

use tlproof_pcie::{DmaAddr, PhysAddr};

use super::{PAGE, call::TableMap};

/// Lengths of the buffers of a scatterlist, which the event does not have when entries were merged:
/// from the segments and from where each entry begins in IOVA. `None` when they do not fit.
pub fn sg_lengths(
    phys: &[PhysAddr],
    segments: &[(DmaAddr, u64)],
    tables: &[TableMap],
) -> Option<Vec<u64>> {
    if phys.len() == segments.len() {
        return Some(segments.iter().map(|(_, len)| *len).collect());
    }
    // First IOVA of every entry's first page: entries follow each other inside of a run, and runs
    // follow each other in IOVA.
    let mut starts: Vec<u64> = Vec::with_capacity(phys.len());
    let mut runs = tables.iter().peekable();
    let mut run = *runs.next()?;
    for (i, phys) in phys.iter().enumerate() {
        let page = phys.align_down(PAGE).0;
        let next_run = runs.peek().is_some_and(|r| r.phys.0 == page);
        let follows = starts.last().is_none_or(|last| {
            let at = page.wrapping_sub(run.phys.0);
            at < run.size && run.iova.0 + at > *last
        });
        if i > 0 && (next_run || !follows) {
            run = *runs.next()?;
        }
        let at = page.checked_sub(run.phys.0).filter(|at| *at < run.size)?;
        starts.push(run.iova.0 + at + phys.offset_in(PAGE));
    }
    let end_of = |start: u64| {
        segments
            .iter()
            .find(|(dma, len)| start >= dma.0 && start - dma.0 < *len)
            .map(|(dma, len)| dma.0 + len)
    };
    let mut lengths = Vec::with_capacity(starts.len());
    for (i, start) in starts.iter().enumerate() {
        let end = end_of(*start)?;
        // An entry in the middle of a segment ends where the next one begins.
        let end = starts.get(i + 1).map_or(end, |next| end.min(*next));
        lengths.push(end.checked_sub(*start).filter(|len| *len > 0)?);
    }
    Some(lengths)
}
