//! Flush queues: whose is emptied, why, and since when.

use std::collections::{HashMap, VecDeque};

use super::{
    call::{Call, FlushPart},
    pending::At,
};
use crate::trace::{Device, Line};

/// Identifier of the first DMA domain; VT-d's driver keeps those below it.
const FIRST_DOMAIN: u32 = 2;

/// Microseconds that a timer takes, at most, from counting a flush as begun to the event of its
/// invalidation. What another CPU queues in between has to wait for the next flush.
const BEGUN_BEFORE: u64 = 100;

/// What the trace has said about domains, and its latest lines.
#[derive(Default)]
pub(super) struct Flushes {
    groups: HashMap<Device, u32>,
    /// Group and devices of every domain in the order of their identifiers: a group gets its
    /// domain when its first device is attached.
    domains: Vec<(Option<u32>, Vec<Device>)>,
    /// Number, time and CPU of the lines of the last microseconds.
    recent: VecDeque<(u64, u64, u32)>,
}

impl Flushes {
    /// Looks at a line before it is joined.
    pub(super) fn see(&mut self, line: &Line) {
        let old = line.time.saturating_sub(BEGUN_BEFORE);
        while self.recent.front().is_some_and(|(_, time, _)| *time < old) {
            self.recent.pop_front();
        }
        self.recent.push_back((line.number, line.time, line.cpu));
    }

    pub(super) fn grouped(&mut self, dev: Device, group: u32) {
        self.groups.insert(dev, group);
    }

    pub(super) fn attached(&mut self, dev: Device) {
        let group = self.groups.get(&dev).copied();
        let known = |d: &&mut (Option<u32>, Vec<Device>)| group.is_some() && d.0 == group;
        match self.domains.iter_mut().find(known) {
            Some((_, devices)) => devices.push(dev),
            None => self.domains.push((group, vec![dev])),
        }
    }

    /// The calls that an invalidation of all of a domain stands for. `unmapping` says that the
    /// event before, in the same context, was part of an unmap: its ring was full then, otherwise
    /// it was the timer.
    pub(super) fn calls(
        &self,
        here: At,
        domain: u32,
        unmapping: bool,
    ) -> impl Iterator<Item = (At, Call)> {
        let devices = domain
            .checked_sub(FIRST_DOMAIN)
            .and_then(|i| self.domains.get(i as usize))
            .map_or(Vec::new(), |(_, devices)| devices.clone());
        let call = |part| Call::Flush {
            devices: devices.clone(),
            part,
        };
        let calls = if unmapping {
            [Some((here, call(FlushPart::Full))), None]
        } else {
            // The first of the lines of other CPUs since this CPU's last line.
            let others = |l: &&(u64, u64, u32)| l.2 as usize != here.cpu;
            let before_this = |l: &&(u64, u64, u32)| l.0 < here.line();
            let lines = self.recent.iter().rev().filter(before_this);
            let first = lines.take_while(others).last();
            let line = first.map_or(here.line(), |l| l.0);
            [
                Some((At::before(line, here.cpu), call(FlushPart::Begin))),
                Some((here, call(FlushPart::End))),
            ]
        };
        calls.into_iter().flatten()
    }
}
