//! Command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tlproof_lockstep::Config;
use tlproof_pcie::{Direction, MemoryMap, PhysAddr, Range};

use crate::dmabench;

/// Checks DMA mappings TLP by TLP on simulated PCIe and IOMMU hardware.
///
/// Exit status: 0 all promises kept, 1 a violation, 2 bad usage or input.
#[derive(Debug, Parser)]
#[command(name = "tlproof", version, max_term_width = 100)]
pub struct Cli {
    /// What to do; `check` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The main job: replay a bundled kernel trace, then run a random campaign.
    Check(CheckArgs),
    /// Run a seeded random campaign of mappings and DMA.
    Run(RunArgs),
    /// Run random drivers on random machines; a failing one is shrunk and printed as Rust.
    Fuzz(FuzzArgs),
    /// Run one program under two profiles and print the calls that look different on the bus.
    Compare(CompareArgs),
    /// Replay traces captured on Linux, with DMA inside every live mapping.
    Replay(ReplayArgs),
    /// Measure mapping and unmapping as the kernel's dma_map_benchmark does, in simulated time.
    Dmabench(DmabenchArgs),
    /// Run wrong implementations and say which were noticed, and by what.
    Mutants(MutantsArgs),
    /// Print the PCIe tree of the simulated machine after enumeration.
    Tree(TreeArgs),
}

/// Which Linux the mapping API behaves as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileArg {
    /// What the physical-address series sets out to do, everywhere.
    Intended,
    /// Linux 7.2 with its known quirks.
    #[value(name = "linux-7.2")]
    Linux72,
    /// Before the series: P2P through the host bridge mapped as cacheable memory.
    PreSeries,
}

impl ProfileArg {
    /// The API's profile.
    #[must_use]
    pub const fn profile(self) -> tlproof_dma::Profile {
        match self {
            Self::Intended => tlproof_dma::Profile::Intended,
            Self::Linux72 => tlproof_dma::Profile::Linux72,
            Self::PreSeries => tlproof_dma::Profile::PreSeries,
        }
    }

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Linux72 => "linux-7.2",
            Self::PreSeries => "pre-series",
        }
    }
}

/// Options of every job that leaves results.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Which Linux the mapping API behaves as.
    #[arg(long, value_enum, default_value = "intended")]
    pub profile: ProfileArg,
    /// Directory for the results [default: out/<run>]; one that exists is replaced if it holds
    /// results of an earlier run.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write waves.fst: a window around the first violation, or the first cycles if there is none.
    #[arg(long)]
    pub waves: bool,
    /// Write trace.pcapng with every TLP at every tap; the payload where the tap sees it.
    #[arg(long)]
    pub trace: bool,
    /// Print the summary as JSON on standard output.
    #[arg(long)]
    pub json: bool,
}

/// `tlproof check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Seed of the campaign.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a text here would stand in the help")]
    pub common: Common,
}

impl Default for CheckArgs {
    fn default() -> Self {
        Self {
            seed: 1,
            common: Common {
                profile: ProfileArg::Intended,
                out: None,
                waves: false,
                trace: false,
                json: false,
            },
        }
    }
}

/// What `tlproof run` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SuiteArg {
    /// Mappings and DMA on the whole machine.
    Dma,
    /// The IOMMU alone, in lock-step with the golden model.
    Iommu,
}

/// `tlproof mutants`.
#[derive(Clone, Debug, Args)]
pub struct MutantsArgs {
    /// Defects of the IOMMU's RTL (rtl/mutants), each built and run in lock-step with the golden model;
    /// otherwise wrong mapping APIs and drivers, which a build with the feature `mutants` has.
    #[arg(long)]
    pub rtl: bool,
    /// Only these.
    #[arg(long, value_delimiter = ',', value_name = "M1,M2a")]
    pub only: Vec<String>,
    /// Random programs for each at most, before the directed workloads.
    #[arg(long, default_value_t = 40)]
    pub programs: u64,
    /// With --rtl: requests within which each must be noticed.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: u64,
    /// Also write the table as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<std::path::PathBuf>,
}

/// `tlproof run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// What to run.
    #[arg(long, value_enum, default_value = "dma")]
    pub suite: SuiteArg,
    /// Suite iommu: translation requests.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: u64,
    /// Suite iommu: which IOMMU: full, minimal, base, other, or a capability file (docs/own-iommu.md).
    #[arg(long, default_value = "full", value_parser = Config::load, value_name = "NAME|FILE.toml")]
    pub config: Config,
    /// Seed: the same seed gives the same TLPs and the same result files.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Begin nothing new after this many TLPs; what is under way ends, so that there are some more.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub tlps: u64,
    /// Write the mapping calls as a kernel's trace, with the files that `replay` wants beside it.
    #[arg(long)]
    pub kernel_trace: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a text here would stand in the help")]
    pub machine: MachineArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a text here would stand in the help")]
    pub common: Common,
}

/// `tlproof fuzz`.
#[derive(Clone, Debug, Args)]
pub struct FuzzArgs {
    /// Seed of the first program; the following ones count up.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Programs to run; each has a machine of its own.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub programs: u64,
    /// Steps of a program.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub steps: u32,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a text here would stand in the help")]
    pub common: Common,
}

/// `tlproof compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// Which Linux; given twice.
    #[arg(long, value_enum, required = true)]
    pub profile: Vec<ProfileArg>,
    /// Seed of the program.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Steps of the program.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub steps: u32,
    /// Print the comparison as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `tlproof replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Traces, NAME.trace or NAME.trace.gz, with NAME.iomem and NAME.pci beside each.
    #[arg(required = true, value_name = "TRACE")]
    pub traces: Vec<PathBuf>,
    /// Seed of the DMA inside the mappings.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a text here would stand in the help")]
    pub common: Common,
}

/// How `tlproof dmabench` maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Contiguous pages by dma_map_phys.
    #[value(alias = "0")]
    Single,
    /// A list with an entry a page by dma_map_sg.
    #[value(alias = "1")]
    Sg,
    /// The two-step interface, dma_iova_*, with a link a page.
    Iova,
}

/// `tlproof dmabench`: letters and ranges are those of the kernel's tool.
#[derive(Clone, Debug, Args)]
pub struct DmabenchArgs {
    /// Threads, each on a CPU of its own.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Length in milliseconds of simulated time (the kernel's tool: in seconds).
    #[arg(short = 's', long, default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=300))]
    pub milliseconds: u32,
    /// NUMA node: -1 for any, or 0, the only one.
    #[arg(short, long, default_value_t = -1, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-1..=0))]
    pub node: i32,
    /// Bits of the DMA mask.
    #[arg(short = 'b', long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(20..=64))]
    pub mask_bits: u32,
    /// Direction: 0 both ways, 1 to the device, 2 from the device.
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub direction: u8,
    /// Nanoseconds between map and unmap, for a transfer.
    #[arg(short = 'x', long, default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub delay: u32,
    /// Pages of a mapping, or entries of a list.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub granule: u32,
    /// Single mappings (0), scatterlists (1), or the two-step interface.
    #[arg(short, long, value_enum, default_value = "single")]
    pub mode: ModeArg,
    /// Map the memory BAR of a peer behind the host bridge instead of main memory.
    #[arg(long)]
    pub mmio: bool,
    /// Defer invalidations to a flush queue.
    #[arg(long)]
    pub lazy: bool,
    /// The device moves the data in every mapping.
    #[arg(long = "move")]
    pub moves: bool,
    /// Compare what was moved.
    #[arg(long, requires = "moves")]
    pub verify: bool,
    /// Cycles of a CPU access to a line of memory; 0 for a CPU that only waits for devices.
    #[arg(long, value_name = "CYCLES", default_value_t = 4,
          value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub access_cycles: u64,
    /// Seed of the machine's latencies.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a text here would stand in the help")]
    pub common: Common,
}

impl DmabenchArgs {
    /// What the benchmark is to do.
    ///
    /// # Errors
    /// When the machine does not have that much memory.
    pub fn options(&self) -> Result<dmabench::Options, String> {
        let options = dmabench::Options {
            seed: self.seed,
            profile: self.common.profile.profile(),
            threads: self.threads,
            microseconds: u64::from(self.milliseconds) * 1000,
            node: self.node,
            mask_bits: self.mask_bits,
            dir: match self.direction {
                0 => Direction::Bidirectional,
                1 => Direction::ToDevice,
                _ => Direction::FromDevice,
            },
            delay_ns: self.delay,
            granule: self.granule,
            mode: match self.mode {
                ModeArg::Single => dmabench::Mode::Single,
                ModeArg::Sg => dmabench::Mode::Sg,
                ModeArg::Iova => dmabench::Mode::Iova,
            },
            mmio: self.mmio,
            lazy: self.lazy,
            moves: self.moves,
            verify: self.verify,
            access_cycles: self.access_cycles,
            waves: None,
        };
        options.check()?;
        Ok(options)
    }

    /// The options as they are typed.
    #[must_use]
    pub fn command(&self) -> String {
        let mode = match self.mode {
            ModeArg::Single => "single",
            ModeArg::Sg => "sg",
            ModeArg::Iova => "iova",
        };
        let mut s = format!(
            "tlproof dmabench -t {} -s {} -n {} -b {} -d {} -x {} -g {} -m {mode}",
            self.threads,
            self.milliseconds,
            self.node,
            self.mask_bits,
            self.direction,
            self.delay,
            self.granule
        );
        let flags = [
            (self.mmio, "mmio"),
            (self.lazy, "lazy"),
            (self.moves, "move"),
            (self.verify, "verify"),
        ];
        for (_, name) in flags.iter().filter(|f| f.0) {
            s += &format!(" --{name}");
        }
        s + &format!(
            " --access-cycles {} --seed {} --profile {}",
            self.access_cycles,
            self.seed,
            self.common.profile.name()
        )
    }
}

/// `tlproof tree`.
#[derive(Clone, Debug, Args)]
pub struct TreeArgs {
    /// List registers and capabilities of every function.
    #[arg(short, long)]
    pub verbose: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a text here would stand in the help")]
    pub machine: MachineArgs,
}

/// The simulated machine.
#[derive(Clone, Debug, Args)]
pub struct MachineArgs {
    /// PCIe MMIO aperture as the CPUs see it, BASE+SIZE.
    #[arg(long, value_name = "BASE+SIZE", default_value = "0x40000000+0x40000000",
          value_parser = parse_range)]
    pub aperture: Range,
    /// CPU physical address minus bus address inside the aperture.
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = parse_number)]
    pub bus_offset: u64,
}

impl MachineArgs {
    /// The memory map with these options.
    ///
    /// # Errors
    /// When the aperture overlaps main memory or the interrupt files, is not a multiple of 1 MiB,
    /// or lies below the bus offset.
    pub fn memory_map(&self) -> Result<MemoryMap, String> {
        let map = MemoryMap {
            aperture: self.aperture,
            bus_offset: self.bus_offset,
            ..MemoryMap::default()
        };
        let overlaps = |r: &Range| r.base <= map.aperture.last && map.aperture.base <= r.last;
        if map.dram.iter().any(overlaps) || overlaps(&map.msi) {
            return Err(format!(
                "the aperture {:#x} to {:#x} overlaps main memory ({:#x} to {:#x}) or the \
                 interrupt files ({:#x} to {:#x}): choose another --aperture",
                map.aperture.base,
                map.aperture.last,
                map.dram[0].base,
                map.dram[0].last,
                map.msi.base,
                map.msi.last
            ));
        }
        if !map.aperture.base.0.is_multiple_of(1 << 20)
            || !map.aperture.size().is_multiple_of(1 << 20)
        {
            return Err("--aperture must start and end on a multiple of 1 MiB (0x100000)".into());
        }
        if !map.bus_offset.is_multiple_of(1 << 20) || map.bus_offset > map.aperture.base.0 {
            return Err(
                "--bus-offset must be a multiple of 1 MiB and not above the aperture".into(),
            );
        }
        Ok(map)
    }
}

fn parse_number(s: &str) -> Result<u64, String> {
    let clean = s.replace('_', "");
    match clean.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => clean.parse(),
    }
    .map_err(|e| format!("`{s}`: {e}"))
}

fn parse_range(s: &str) -> Result<Range, String> {
    let (base, size) = s.split_once('+').ok_or("expected BASE+SIZE")?;
    let (base, size) = (parse_number(base)?, parse_number(size)?);
    if size == 0 {
        return Err("the size is 0".into());
    }
    let last = base.checked_add(size - 1).filter(|l| *l < 1 << 56);
    let last = last.ok_or("the range ends above the 56-bit physical address space")?;
    Ok(Range {
        base: PhysAddr(base),
        last: PhysAddr(last),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn ranges() {
        assert_eq!(
            parse_range("0x1000+0x10").unwrap(),
            Range::sized(0x1000, 0x10)
        );
        for bad in [
            "",
            "1",
            "0x1000+0",
            "0xffffffffffffffff+2",
            "0x100000000000000+1",
            "z+1",
        ] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }
}
