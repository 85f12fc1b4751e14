//! What a benchmark run says.

use std::fmt;

use serde::Serialize;

/// Cycles of a microsecond of simulated time: the machine's clock is 100 MHz.
pub const CYCLES_PER_US: u64 = 100;

/// Latencies of one kind of call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Samples {
    count: u64,
    sum: u128,
    squares: u128,
}

impl Samples {
    pub(super) fn add(&mut self, cycles: u64) {
        let c = u128::from(cycles);
        self.count += 1;
        self.sum += c;
        self.squares += c * c;
    }

    pub(super) fn latency(&self) -> Latency {
        let n = self.count.max(1) as f64;
        let mean = self.sum as f64 / n;
        let variance = (self.squares as f64 / n - mean * mean).max(0.0);
        Latency {
            average_ns: nanos(mean),
            deviation_ns: nanos(variance.sqrt()),
        }
    }
}

fn nanos(cycles: f64) -> u64 {
    (cycles * 1000.0 / CYCLES_PER_US as f64).round() as u64
}

/// Average and standard deviation in nanoseconds of simulated time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Average.
    pub average_ns: u64,
    /// Standard deviation.
    pub deviation_ns: u64,
}

/// The result of a benchmark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `single`, `sg` or `iova`.
    pub mode: String,
    /// Threads, each on a CPU of its own.
    pub threads: u32,
    /// Microseconds of simulated time.
    pub microseconds: u64,
    /// NUMA node.
    pub node: i32,
    /// Direction.
    pub direction: String,
    /// Pages of a mapping, or entries of a list.
    pub granule: u32,
    /// DMA mask.
    pub mask_bits: u32,
    /// A peer's BAR is mapped.
    pub mmio: bool,
    /// Pairs of map and unmap.
    pub loops: u64,
    /// The calls that map.
    pub map: Latency,
    /// The calls that unmap.
    pub unmap: Latency,
    /// Bytes that the device moved.
    pub moved: u64,
    /// Bytes that were compared.
    pub compared: u64,
}

impl fmt::Display for Report {
    /// The lines of the kernel's tool, then what it does not have.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "dma mapping benchmark({}): threads:{} milliseconds:{} node:{} dir:{} {}: {}{}",
            self.mode,
            self.threads,
            self.microseconds as f64 / 1000.0,
            self.node,
            self.direction,
            if self.mode == "single" {
                "granule"
            } else {
                "sg_nents"
            },
            self.granule,
            if self.mmio { " mmio" } else { "" },
        )?;
        for (name, l) in [("map", self.map), ("unmap", self.unmap)] {
            writeln!(
                f,
                "average {name} latency(us):{:.2} standard deviation:{:.2}",
                l.average_ns as f64 / 1000.0,
                l.deviation_ns as f64 / 1000.0
            )?;
        }
        writeln!(
            f,
            "loops:{} moved bytes:{} compared bytes:{}",
            self.loops, self.moved, self.compared
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_and_deviation() {
        let mut s = Samples::default();
        for cycles in [100, 200, 300, 400] {
            s.add(cycles);
        }
        let l = s.latency();
        assert_eq!((l.average_ns, l.deviation_ns), (2500, 1118));
        assert_eq!(Samples::default().latency(), Latency::default());
    }

    #[test]
    fn the_lines_of_the_kernels_tool() {
        let r = Report {
            mode: "sg".to_owned(),
            threads: 2,
            microseconds: 3000,
            node: -1,
            direction: "BIDIRECTIONAL".to_owned(),
            granule: 4,
            loops: 7,
            map: Latency {
                average_ns: 1250,
                deviation_ns: 500,
            },
            ..Report::default()
        };
        assert_eq!(
            r.to_string(),
            "dma mapping benchmark(sg): threads:2 milliseconds:3 node:-1 dir:BIDIRECTIONAL \
             sg_nents: 4\n\
             average map latency(us):1.25 standard deviation:0.50\n\
             average unmap latency(us):0.00 standard deviation:0.00\n\
             loops:7 moved bytes:0 compared bytes:0\n"
        );
    }
}
