//! Makes a failing program short (delta debugging): steps are left out in ever smaller groups, then
//! numbers are made small and the machine plain, as long as it fails in the same way.

use super::{Op, Program, run::run, world::World};

/// Runs at most.
const BUDGET: usize = 400;

/// A program that is as short as was found and for which `fails` still holds. `progress` is called
/// with the number of runs and the length so far.
pub fn shrink(
    program: &Program,
    fails: impl Fn(&Program) -> bool,
    mut progress: impl FnMut(usize, usize),
) -> Program {
    let mut s = Shrinker {
        best: program.clone(),
        fails,
        runs: 0,
    };
    loop {
        let before = s.best.clone();
        s.steps(&mut progress);
        s.world();
        s.numbers();
        if s.best == before || s.runs >= BUDGET {
            return s.best;
        }
    }
}

/// Whether a program fails with this judge and field.
#[must_use]
pub fn fails_with(program: &Program, judge: &str, field: &str) -> bool {
    run(program, None).is_ok_and(|o| {
        o.failures
            .iter()
            .any(|f| f.judge == judge && f.field == field)
    })
}

struct Shrinker<F> {
    best: Program,
    fails: F,
    runs: usize,
}

impl<F: Fn(&Program) -> bool> Shrinker<F> {
    fn try_it(&mut self, candidate: Program) -> bool {
        if candidate == self.best || self.runs >= BUDGET {
            return false;
        }
        self.runs += 1;
        let fails = (self.fails)(&candidate);
        if fails {
            self.best = candidate;
        }
        fails
    }

    fn steps(&mut self, progress: &mut impl FnMut(usize, usize)) {
        let mut group = self.best.ops.len().div_ceil(2).max(1);
        loop {
            // From the end: what comes after the failure goes first.
            let mut end = self.best.ops.len();
            while end > 0 {
                let start = end.saturating_sub(group);
                let mut candidate = self.best.clone();
                candidate.ops.drain(start..end);
                self.try_it(candidate);
                progress(self.runs, self.best.ops.len());
                end = start.min(self.best.ops.len());
            }
            if group == 1 {
                return;
            }
            group = group.div_ceil(2);
        }
    }

    fn world(&mut self) {
        let plain = World {
            profile: self.best.world.profile,
            seed: self.best.world.seed,
            ..World::default()
        };
        let parts: [fn(&mut World, &World); 14] = [
            |w, p| w.latency = p.latency,
            |w, p| w.stall_one_in = p.stall_one_in,
            |w, p| w.iommu = p.iommu,
            |w, p| w.mode = p.mode,
            |w, p| w.ddt_levels = p.ddt_levels,
            |w, p| w.bus_offset = p.bus_offset,
            |w, p| w.redirect = p.redirect,
            |w, p| w.swiotlb = p.swiotlb,
            |w, p| w.high = p.high,
            |w, p| w.debug = p.debug,
            |w, p| w.kmsan = p.kmsan,
            |w, p| w.ports[0] = p.ports[0].clone(),
            |w, p| w.ports[1] = p.ports[1].clone(),
            |w, p| w.ports[2] = p.ports[2].clone(),
        ];
        for part in parts {
            let mut candidate = self.best.clone();
            part(&mut candidate.world, &plain);
            self.try_it(candidate);
        }
    }

    fn numbers(&mut self) {
        for i in 0..self.best.ops.len() {
            while let Some(op) = smaller(&self.best.ops[i]) {
                let mut candidate = self.best.clone();
                candidate.ops[i] = op;
                if !self.try_it(candidate) {
                    break;
                }
            }
        }
    }
}

/// A step that does less.
fn smaller(op: &Op) -> Option<Op> {
    let mut op = op.clone();
    let changed = match &mut op {
        Op::Map { offset, size, .. } => halve(size, 1) | zero(offset),
        Op::MapSg { sizes, .. } => shorten(sizes),
        Op::MapIova { offset, sizes, .. } => shorten(sizes) | zero(offset),
        Op::MapPeer { offset, size, .. } => halve(size, 4) | zero(offset),
        Op::Request {
            offset,
            sizes,
            metadata,
            bios,
            ..
        } => shorten(sizes) | zero(offset) | zero(metadata) | halve(bios, 1),
        Op::Virtio { out, input, .. } => {
            out.pop().is_some() && !(out.is_empty() && input.is_empty()) || shorten(input)
        }
        Op::Dmabuf { ranges, .. } => fewer(ranges),
        Op::Import {
            pages: (page, n), ..
        } => zero(page) | halve(n, 1),
        Op::Odp { pages, peer, .. } => peer.take().is_some() | halve(pages, 1),
        Op::Migrate { page, .. } => zero(page),
        Op::Ring { size, .. } | Op::Pages { size, .. } => halve(size, 1),
        Op::Dma {
            at,
            len,
            relaxed,
            fetch,
            ..
        } => halve(len, 1) | zero(at) | std::mem::take(relaxed) | std::mem::take(fetch),
        Op::Wait { cycles } => halve(cycles, 1),
        _ => false,
    };
    changed.then_some(op)
}

fn halve(n: &mut u32, least: u32) -> bool {
    let before = *n;
    *n = (*n / 2).max(least);
    *n != before
}

fn zero(n: &mut u32) -> bool {
    std::mem::take(n) != 0
}

fn fewer(ranges: &mut Vec<(u32, u32)>) -> bool {
    if ranges.len() > 1 {
        ranges.pop();
        return true;
    }
    ranges
        .first_mut()
        .is_some_and(|(page, n)| zero(page) | halve(n, 1))
}

fn shorten(sizes: &mut Vec<u32>) -> bool {
    if sizes.len() > 1 {
        sizes.pop();
        return true;
    }
    sizes.first_mut().is_some_and(|s| halve(s, 1))
}
