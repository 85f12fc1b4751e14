//! Recordings of our own runs, as a kernel leaves them: a trace with the description of its machine
//! beside it, which a replay reads like a capture from a real one.

use std::{
    cell::RefCell,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
    rc::Rc,
};

use tlproof_dma::{Attach, Backend, KernelTrace};
use tlproof_pcie::{
    MemoryMap, Range,
    tree::{BarKind, Node, Tree, Window},
};

use crate::testbench::{ENDPOINT_ID, Function, IOMMU, Setup, Testbench};

/// `IORESOURCE_*` of a memory BAR: memory, aligned to its size; 64 bits wide; prefetchable.
const MEMORY: u64 = 0x4_0200;
const WIDE: u64 = 0x10_0004;
const PREFETCHABLE: u64 = 0x2008;

/// Numbers of a bridge's windows in the sysfs file `resource`.
const MEMORY_WINDOW: u32 = 14;
const PREFETCHABLE_WINDOW: u32 = 15;

/// The events of a machine, from the beginning of the recording.
pub struct Recording(Rc<RefCell<KernelTrace>>);

impl Recording {
    /// Begins to record what the mapping API does.
    pub fn start(bench: &mut Testbench) -> Self {
        let config = bench.dma.config();
        let mut trace = KernelTrace::new(config.cpus, config.cycles_per_ms);
        for function in &bench.functions {
            if let Some(provider) = bench.dma.p2pdma.get(function.provider) {
                trace.provider(provider.range);
            }
        }
        let trace = Rc::new(RefCell::new(trace));
        let sink = Rc::clone(&trace);
        bench
            .dma
            .trace
            .set_sink(move |record| sink.borrow_mut().push(record));
        Self(trace)
    }

    /// Lines so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.borrow().count()
    }

    /// Writes `NAME.trace`, `NAME.iomem`, `NAME.pci` and `NAME.info` into `dir`. `setup` is what the
    /// machine was built from.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(
        &self,
        bench: &Testbench,
        setup: &Setup,
        dir: &Path,
        name: &str,
    ) -> io::Result<()> {
        let file = |extension: &str| dir.join(format!("{name}.{extension}"));
        let map = &setup.machine.map;
        write(&file("trace"), |out| self.0.borrow().write(out))?;
        for (extension, text) in [
            ("iomem", iomem(map, &bench.tree)),
            ("pci", pci(bench, setup)),
            ("info", info(bench, setup)),
        ] {
            write(&file(extension), |out| out.write_all(text.as_bytes()))?;
        }
        Ok(())
    }
}

/// Writes a file, to the disk.
fn write(
    path: &Path,
    fill: impl FnOnce(&mut io::BufWriter<fs::File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = io::BufWriter::new(fs::File::create(path)?);
    fill(&mut out)?;
    out.into_inner()?.sync_all()
}

/// `/proc/iomem`: main memory, and the host bridge's window with the BARs in it.
fn iomem(map: &MemoryMap, tree: &Tree) -> String {
    let mut resources: Vec<(Range, String)> = vec![(map.aperture, "PCI Bus 0000:00".into())];
    resources.extend(map.dram.iter().map(|r| (*r, "System RAM".into())));
    resources.sort_by_key(|(r, _)| r.base);
    let mut bars: Vec<(Range, &Node)> = tree
        .nodes
        .iter()
        .flat_map(|n| memory_bars(n).map(move |(_, range, _)| (range, n)))
        .collect();
    bars.sort_by_key(|(r, _)| r.base);
    let mut text = String::new();
    // Into a string nothing fails.
    for (range, name) in resources {
        let _ = writeln!(text, "{:08x}-{:08x} : {name}", range.base.0, range.last.0);
        let inside = |r: &Range| range.contains(r.base, r.size());
        for (bar, node) in bars.iter().filter(|(r, _)| inside(r)) {
            let _ = writeln!(
                text,
                "  {:08x}-{:08x} : 0000:{}",
                bar.base.0, bar.last.0, node.bdf
            );
        }
    }
    text
}

/// Index, addresses and flags of a function's memory BARs.
fn memory_bars(node: &Node) -> impl Iterator<Item = (u8, Range, u64)> {
    node.bars.iter().filter_map(|bar| {
        let BarKind::Memory { wide, prefetchable } = bar.kind else {
            return None;
        };
        let flags =
            MEMORY | if wide { WIDE } else { 0 } | if prefetchable { PREFETCHABLE } else { 0 };
        Some((bar.index, Range::sized(bar.phys.0, bar.size), flags))
    })
}

/// What sysfs says of all functions.
fn pci(bench: &Testbench, setup: &Setup) -> String {
    let mut text = String::new();
    for node in &bench.tree.nodes {
        let function = bench
            .functions
            .iter()
            .enumerate()
            .find(|(_, f)| f.engine.bdf == node.bdf);
        let driver = match function {
            Some(_) => "tlproof",
            None if node.bdf == IOMMU => "riscv-iommu",
            None if node.bridge.is_some() => "pcieport",
            None => "-",
        };
        let kind = function.and_then(|(i, f)| group_type(bench, setup, i, f).map(|k| (i, k)));
        let (group, kind) = kind.map_or(("-".to_owned(), "-"), |(i, k)| (i.to_string(), k));
        let mut above: Vec<_> = (bench.tree.upstream(node.bdf))
            .map(|n| format!("0000:{}/", n.bdf))
            .collect();
        above.reverse();
        let _ = writeln!(
            text,
            "dev 0000:{bdf} vendor={:#06x} device={:#06x} class={:#08x} driver={driver} \
             iommu_group={group} iommu_group_type={kind} dma_mask_bits=64 \
             consistent_dma_mask_bits=64 path=pci0000:00/{}0000:{bdf}",
            node.vendor,
            node.device,
            node.class,
            above.concat(),
            bdf = node.bdf,
        );
        resources(&mut text, node, &setup.machine.map);
        if (node.vendor, node.device) == ENDPOINT_ID
            && let Some(memory) = node.bar(2)
        {
            let size = memory.size;
            let _ = writeln!(text, "  p2pmem size={size} available={size} published=1");
        }
    }
    text
}

/// The lines of the sysfs file `resource` that are not empty.
fn resources(text: &mut String, node: &Node, map: &MemoryMap) {
    let mut line = |index: u32, range: Range, flags: u64| {
        let _ = writeln!(
            text,
            "  res{index} {:#018x} {:#018x} {flags:#018x}",
            range.base.0, range.last.0
        );
    };
    for (index, range, flags) in memory_bars(node) {
        line(u32::from(index), range, flags);
    }
    let Some(bridge) = &node.bridge else { return };
    let phys = |w: &Window| Range {
        base: map.to_phys(w.base),
        last: map.to_phys(w.limit),
    };
    if let Some(window) = &bridge.memory {
        line(MEMORY_WINDOW, phys(window), MEMORY);
    }
    if let Some(window) = &bridge.prefetchable {
        line(
            PREFETCHABLE_WINDOW,
            phys(window),
            MEMORY | WIDE | PREFETCHABLE,
        );
    }
}

/// The type of a function's IOMMU group; `None` without an IOMMU in its way.
fn group_type(
    bench: &Testbench,
    setup: &Setup,
    index: usize,
    function: &Function,
) -> Option<&'static str> {
    match bench.dma.device(function.dev).ok()?.backend() {
        Backend::Identity => Some("identity"),
        Backend::Iommu(_) if setup.attach[index] == Attach::Lazy => Some("DMA-FQ"),
        Backend::Iommu(_) => Some("DMA"),
        _ => None,
    }
}

/// IOMMU groups, and what else a replay has to know.
fn info(bench: &Testbench, setup: &Setup) -> String {
    let mut text = format!("uname: tlproof {} riscv64\n", env!("CARGO_PKG_VERSION"));
    let msi = setup.machine.map.msi;
    let mut lazy = false;
    for (i, function) in bench.functions.iter().enumerate() {
        let bdf = function.engine.bdf;
        if let Some(kind) = group_type(bench, setup, i, function) {
            lazy |= kind == "DMA-FQ";
            let _ = writeln!(text, "iommu_group {i} type={kind} devices=0000:{bdf} ");
            let _ = writeln!(
                text,
                "  reserved {:#018x} {:#018x} msi",
                msi.base.0, msi.last.0
            );
        }
        let coherent = bench.dma.device(function.dev).is_ok_and(|d| d.coherent);
        if !coherent {
            let _ = writeln!(text, "dma_noncoherent 0000:{bdf}");
        }
    }
    let policy = if lazy { "lazy" } else { "strict" };
    let _ = writeln!(
        text,
        "[    0.000000] iommu: DMA domain TLB invalidation policy: {policy} mode"
    );
    text
}

#[cfg(test)]
mod tests;
