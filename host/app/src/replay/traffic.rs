//! What the devices do with the mappings: transfers inside of them, and declared probes where
//! nothing is promised.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::target::Target;
use crate::{
    endpoint::{Descriptor, QUEUE_DEPTH, pattern_bytes},
    testbench::Error,
};

const PAGE: u64 = 4096;

/// Usual and longest transfer in bytes.
const USUAL: u64 = 512;
const LONGEST: u64 = 16 << 10;

/// Probes of a replay: their records must fit into the fault queue.
const PROBES: u64 = 1500;

/// Cycles between two looks at completion records.
const POLL: u64 = 48;

/// Polls after which a transfer is taken for lost.
const PATIENCE: u32 = 100_000;

/// Physical runs, in the order in which the device sees them.
pub type Runs = Vec<(PhysAddr, u64)>;

/// Names the mapping that a transfer is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Job(pub u64);

/// Bytes that follow each other for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First address.
    pub dma: DmaAddr,
    /// Bytes.
    pub len: u64,
}

/// A transfer that is to be made once the buffer is mapped.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// First byte of the buffer.
    at: u64,
    len: u64,
    write: bool,
    seed: u32,
}

struct UnderWay<P> {
    function: usize,
    id: u16,
    job: Option<Job>,
    probe: Option<P>,
    span: Span,
    runs: Runs,
}

/// What a device wrote and the CPU has not yet looked at.
struct Written {
    job: Job,
    dma: DmaAddr,
    seed: u32,
    runs: Runs,
    bounced: bool,
}

/// What was done, for the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transfers inside of mappings.
    pub transfers: u64,
    /// Declared probes.
    pub probes: u64,
    /// Times that the CPU compared what a device wrote.
    pub compared: u64,
}

/// The devices' side of a replay.
pub struct Traffic<P> {
    rng: ChaCha8Rng,
    next_id: u16,
    under_way: Vec<UnderWay<P>>,
    written: Vec<Written>,
    /// What was done.
    pub counts: Counts,
}

/// The part `[at, at + len)` of runs.
fn slice(runs: &[(PhysAddr, u64)], mut at: u64, mut len: u64) -> Runs {
    let mut part = Vec::new();
    for (phys, size) in runs {
        if at >= *size {
            at -= size;
            continue;
        }
        let n = (size - at).min(len);
        if n == 0 {
            break;
        }
        part.push((phys.offset(at), n));
        len -= n;
        at = 0;
    }
    part
}

fn overlap(a: &[(PhysAddr, u64)], b: &[(PhysAddr, u64)]) -> bool {
    a.iter().any(|(p, n)| {
        b.iter()
            .any(|(q, m)| p.0 < q.0.saturating_add(*m) && q.0 < p.0.saturating_add(*n))
    })
}

impl<P: Copy> Traffic<P> {
    /// Traffic that the seed decides.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            next_id: 0,
            under_way: Vec::new(),
            written: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Rolls a die.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_range(0..n) == 0
    }

    /// A random bit.
    pub fn coin(&mut self) -> bool {
        self.rng.random_bool(0.5)
    }

    /// A random page number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.rng.random_range(0..n)
    }

    /// Where and how a buffer of `size` bytes will be used.
    pub fn wish(&mut self, size: u64, dir: Direction) -> Option<Wish> {
        if size == 0 {
            return None;
        }
        let longest = if self.one_in(16) { LONGEST } else { USUAL };
        let at = if self.coin() {
            0
        } else {
            self.rng.random_range(0..size)
        };
        let most = longest.min(size - at);
        let len = if self.one_in(3) {
            most
        } else {
            self.rng.random_range(1..=most)
        };
        let write = match dir {
            Direction::ToDevice => false,
            Direction::FromDevice => true,
            Direction::Bidirectional => self.coin(),
        };
        let seed = self.rng.random();
        Some(Wish {
            at,
            len,
            write,
            seed,
        })
    }

    /// The CPU fills what a device will read, before the buffer is mapped. Without runs the buffer
    /// is a peer's.
    ///
    /// # Errors
    /// When the machine fails.
    pub fn prepare<T: Target<Probe = P>>(
        &mut self,
        t: &mut T,
        runs: &[(PhysAddr, u64)],
        wish: Option<Wish>,
    ) -> Result<(), Error> {
        let Some(wish) = wish else { return Ok(()) };
        let part = slice(runs, wish.at, wish.len);
        self.settle(t, &part)?;
        if !wish.write {
            self.overwritten(&part, None);
            for (phys, len) in part {
                let mut bytes = vec![0; len as usize];
                self.rng.fill_bytes(&mut bytes);
                t.parts().1.mem_write(phys, &bytes);
            }
        }
        Ok(())
    }

    /// Starts a transfer in a mapped buffer.
    ///
    /// # Errors
    /// When the machine fails.
    pub fn start<T: Target<Probe = P>>(
        &mut self,
        t: &mut T,
        (f, job): (usize, Job),
        spans: &[Span],
        runs: &[(PhysAddr, u64)],
        wish: Option<Wish>,
        bounced: bool,
    ) -> Result<(), Error> {
        let Some(wish) = wish else { return Ok(()) };
        let mut at = wish.at;
        let mut found = None;
        for span in spans {
            if at < span.len {
                found = Some((span.dma.offset(at), wish.len.min(span.len - at)));
                break;
            }
            at -= span.len;
        }
        let Some((dma, len)) = found else {
            return Ok(());
        };
        let part = slice(runs, wish.at, len);
        if wish.write {
            self.overwritten(&part, None);
        }
        while t.outstanding(f) >= QUEUE_DEPTH / 2 {
            self.step(t)?;
        }
        let id = self.id();
        let mut d = Descriptor::pattern(id, wish.write, dma, len as u32, wish.seed);
        d.relaxed = self.rng.random_bool(0.2);
        d.ido = self.rng.random_bool(0.2);
        t.submit(f, &d)?;
        self.counts.transfers += 1;
        if wish.write && !part.is_empty() {
            self.written.push(Written {
                job,
                dma,
                seed: wish.seed,
                runs: part.clone(),
                bounced,
            });
        }
        self.under_way.push(UnderWay {
            function: f,
            id,
            job: Some(job),
            probe: None,
            span: Span { dma, len },
            runs: part,
        });
        Ok(())
    }

    fn id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// Lets some time pass and takes completion records.
    fn step<T: Target<Probe = P>>(&mut self, t: &mut T) -> Result<(), Error> {
        t.run(POLL)?;
        for f in 0..super::machine::ENDPOINTS {
            while t.outstanding(f) > 0 {
                let Some(record) = t.poll(f)? else { break };
                let at = self
                    .under_way
                    .iter()
                    .position(|u| u.function == f && u.id == record.id);
                if let Some(at) = at
                    && let Some(probe) = self.under_way.swap_remove(at).probe
                {
                    t.rogue_done(probe);
                }
            }
        }
        Ok(())
    }

    fn wait<T: Target<Probe = P>>(
        &mut self,
        t: &mut T,
        is: impl Fn(&UnderWay<P>) -> bool,
    ) -> Result<(), Error> {
        let mut patience = PATIENCE;
        while self.under_way.iter().any(&is) {
            self.step(t)?;
            patience -= 1;
            if patience == 0 {
                return Err(Error::Machine("a transfer does not complete".to_owned()));
            }
        }
        Ok(())
    }

    /// Waits for all transfers that touch these bytes.
    ///
    /// # Errors
    /// When the machine fails.
    pub fn settle<T: Target<Probe = P>>(
        &mut self,
        t: &mut T,
        runs: &[(PhysAddr, u64)],
    ) -> Result<(), Error> {
        self.wait(t, |u| overlap(&u.runs, runs))
    }

    /// Waits for the transfers of a mapping.
    ///
    /// # Errors
    /// When the machine fails.
    pub fn complete<T: Target<Probe = P>>(&mut self, t: &mut T, job: Job) -> Result<(), Error> {
        self.wait(t, |u| u.job == Some(job))
    }

    /// Waits for the transfers of a mapping that is about to end, and for those of other mappings
    /// of the device to the same addresses: who looks at the bus cannot tell which one they use.
    ///
    /// # Errors
    /// When the machine fails.
    pub fn leave<T: Target<Probe = P>>(
        &mut self,
        t: &mut T,
        (f, job): (usize, Job),
        spans: &[Span],
    ) -> Result<(), Error> {
        let near = |u: &UnderWay<P>| {
            u.function == f
                && spans.iter().any(|s| {
                    s.dma.0 < u.span.dma.0.saturating_add(u.span.len)
                        && u.span.dma.0 < s.dma.0.saturating_add(s.len)
                })
        };
        self.wait(t, |u| u.job == Some(job) || near(u))
    }

    /// Lets the transfers go on for a while, now and then.
    ///
    /// # Errors
    /// When the machine fails.
    pub fn breathe<T: Target<Probe = P>>(&mut self, t: &mut T) -> Result<(), Error> {
        if !self.under_way.is_empty() && self.one_in(4) {
            let cycles = self.rng.random_range(8..64);
            t.run(cycles)?;
        }
        Ok(())
    }

    /// These bytes get other contents: what devices wrote there before cannot be found any more.
    pub fn overwritten(&mut self, runs: &[(PhysAddr, u64)], except: Option<Job>) {
        self.written
            .retain(|w| Some(w.job) == except || !overlap(&w.runs, runs));
    }

    /// The CPU looks at what the device wrote into a mapping; only at the bytes at `[dma, dma +
    /// size)` if they are given.
    pub fn look<T: Target>(&mut self, t: &mut T, job: Job, within: Option<(DmaAddr, u64)>) {
        let inside = |w: &Written| {
            let len: u64 = w.runs.iter().map(|(_, n)| n).sum();
            within.is_none_or(|(dma, size)| {
                w.dma.0.checked_sub(dma.0).is_some_and(|o| o + len <= size)
            })
        };
        let done: Vec<_> = self
            .written
            .extract_if(.., |w| w.job == job && inside(w))
            .collect();
        for w in done {
            self.compare(t, &w);
        }
    }

    /// The CPU will not see what the device wrote into a mapping.
    pub fn forget(&mut self, job: Job) {
        self.written.retain(|w| w.job != job);
    }

    fn compare<T: Target>(&mut self, t: &mut T, w: &Written) {
        let len: u64 = w.runs.iter().map(|(_, n)| n).sum();
        let mut want = vec![0; len as usize];
        pattern_bytes(w.dma, w.seed, &mut want);
        let mut got = vec![0; len as usize];
        let mut at = 0;
        for (phys, n) in &w.runs {
            let n = *n as usize;
            t.parts().1.mem_read(*phys, &mut got[at..at + n]);
            at += n;
        }
        self.counts.compared += 1;
        t.compare(w.dma, &want, &got);
    }

    /// Ends everything: waits for all transfers, and looks at what went straight to memory.
    ///
    /// # Errors
    /// When the machine fails.
    pub fn finish<T: Target<Probe = P>>(&mut self, t: &mut T) -> Result<(), Error> {
        self.wait(t, |_| true)?;
        for w in std::mem::take(&mut self.written) {
            if !w.bounced {
                self.compare(t, &w);
            }
        }
        Ok(())
    }

    /// A device tries what it was not promised, within a page, and waits for the answer.
    ///
    /// # Errors
    /// When the machine fails.
    pub fn probe<T: Target<Probe = P>>(
        &mut self,
        t: &mut T,
        f: usize,
        addr: DmaAddr,
        len: u64,
        write: bool,
    ) -> Result<(), Error> {
        if self.counts.probes >= PROBES {
            return Ok(());
        }
        self.counts.probes += 1;
        let len = len.clamp(1, 64).min(PAGE - addr.offset_in(PAGE));
        while t.outstanding(f) >= QUEUE_DEPTH / 2 {
            self.step(t)?;
        }
        let id = self.id();
        let d = Descriptor::pattern(id, write, addr, len as u32, self.rng.random());
        let probe = t.expect_rogue(f, addr, len, write);
        t.submit(f, &d)?;
        self.under_way.push(UnderWay {
            function: f,
            id,
            job: None,
            probe: Some(probe),
            span: Span { dma: addr, len },
            runs: Vec::new(),
        });
        // The address may be mapped again by the next call.
        self.wait(t, |u| u.function == f && u.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_runs() {
        let runs = [(PhysAddr(0x1000), 16), (PhysAddr(0x3000), 8)];
        assert_eq!(slice(&runs, 0, 16), [(PhysAddr(0x1000), 16)]);
        assert_eq!(
            slice(&runs, 12, 8),
            [(PhysAddr(0x100c), 4), (PhysAddr(0x3000), 4)]
        );
        assert_eq!(slice(&runs, 16, 100), [(PhysAddr(0x3000), 8)]);
        assert_eq!(slice(&runs, 24, 1), []);
        assert_eq!(slice(&[], 0, 1), []);
    }

    #[test]
    fn overlaps_by_the_byte() {
        let a = [(PhysAddr(0x1000), 16)];
        assert!(overlap(&a, &[(PhysAddr(0x100f), 1)]));
        assert!(!overlap(&a, &[(PhysAddr(0x1010), 1)]));
        assert!(!overlap(&a, &[(PhysAddr(0xff0), 16)]));
    }

    #[test]
    fn wishes_stay_inside_and_follow_the_direction() {
        let mut t = Traffic::<()>::new(1);
        let mut seen = 0;
        for size in 1..2000 {
            if let Some(w) = t.wish(size, Direction::ToDevice) {
                seen += 1;
                assert!(w.at + w.len <= size && w.len > 0 && !w.write);
            }
            if let Some(w) = t.wish(size, Direction::FromDevice) {
                assert!(w.write);
            }
        }
        assert_eq!(seen, 1999);
    }
}
