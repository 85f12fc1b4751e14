//! Counts for the plots, gathered while rows are written.

/// Cycles in one point of the throughput plot.
pub const THROUGHPUT_BUCKET: u64 = 10_000;

/// Values counted by their binary logarithm: bucket 0 holds 0, bucket n holds 2^(n-1) to 2^n - 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Counts; no empty bucket at the end.
    pub buckets: Vec<u64>,
    /// Number of values.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The largest.
    pub max: u64,
}

impl Histogram {
    /// Adds one value.
    pub fn record(&mut self, value: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
    }

    /// The first value of a bucket; past the last one, the largest value.
    #[must_use]
    pub const fn lower(bucket: usize) -> u64 {
        match bucket {
            0 => 0,
            1..=64 => 1 << (bucket - 1),
            _ => u64::MAX,
        }
    }
}

/// What passed one tap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapStats {
    /// Name of the tap.
    pub tap: &'static str,
    /// TLPs in each stretch of [`THROUGHPUT_BUCKET`] cycles.
    pub throughput: Vec<u64>,
    /// TLPs by kind, in the order in which the kinds were first seen.
    pub kinds: Vec<(&'static str, u64)>,
}

/// Counts of a whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// By tap, in the order in which the taps were first seen.
    pub taps: Vec<TapStats>,
    /// Latencies in cycles by name (`translation`, `read` …).
    pub latencies: Vec<(&'static str, Histogram)>,
}

/// The entry of `key`, made if there is none. The lists have a handful of entries.
fn entry<T>(list: &mut Vec<T>, is: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> &mut T {
    let at = list.iter().position(is).unwrap_or_else(|| {
        list.push(make());
        list.len() - 1
    });
    &mut list[at]
}

impl Stats {
    /// Counts a TLP at a tap.
    pub fn record(&mut self, tap: &'static str, kind: &'static str, cycle: u64) {
        let stats = entry(
            &mut self.taps,
            |t| t.tap == tap,
            || TapStats {
                tap,
                ..TapStats::default()
            },
        );
        entry(&mut stats.kinds, |k| k.0 == kind, || (kind, 0)).1 += 1;
        let bucket = (cycle / THROUGHPUT_BUCKET) as usize;
        if stats.throughput.len() <= bucket {
            stats.throughput.resize(bucket + 1, 0);
        }
        stats.throughput[bucket] += 1;
    }

    /// Counts a latency.
    pub fn latency(&mut self, name: &'static str, cycles: u64) {
        entry(
            &mut self.latencies,
            |l| l.0 == name,
            || (name, Histogram::default()),
        )
        .1
        .record(cycles);
    }
}
