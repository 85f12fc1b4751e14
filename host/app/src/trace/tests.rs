//! Tests of the trace parser. The bundled traces are the reference for what the kernel prints.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use tlproof_pcie::{Bdf, Direction, DmaAddr, PhysAddr, Range};

use super::*;

/// A small generator of test values (splitmix64).
pub(super) struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Values of all magnitudes, the extremes often.
    pub fn word(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            _ => self.next() >> self.below(64),
        }
    }

    pub fn direction(&mut self) -> Direction {
        [
            Direction::Bidirectional,
            Direction::ToDevice,
            Direction::FromDevice,
        ][self.below(3) as usize]
    }

    pub fn device(&mut self) -> Device {
        match self.below(4) {
            0 => Device::Other(self.word_of("dma.8_f-:")),
            1 => Device::Pci {
                segment: self.next() as u32,
                bdf: Bdf(self.next() as u16),
            },
            _ => Device::pci(Bdf(self.next() as u16)),
        }
    }

    pub fn word_of(&mut self, letters: &str) -> Box<str> {
        let letters: Vec<char> = letters.chars().collect();
        let len = 1 + self.below(12);
        (0..len)
            .map(|_| letters[self.below(letters.len() as u64) as usize])
            .collect()
    }
}

/// The directory of the bundled traces.
fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("traces")
}

/// The lines of a trace in memory.
fn lines(text: &str) -> (Vec<Line>, Option<Error>, Option<String>) {
    read(io::Cursor::new(text.as_bytes().to_vec()))
}

fn read(source: impl Read + 'static) -> (Vec<Line>, Option<Error>, Option<String>) {
    let mut trace = match Trace::from_reader("t.trace", source) {
        Ok(trace) => trace,
        Err(e) => return (Vec::new(), Some(e), None),
    };
    let mut lines = Vec::new();
    let mut error = None;
    for line in &mut trace {
        match line {
            Ok(line) => lines.push(line),
            Err(e) => error = Some(e),
        }
    }
    let truncated = trace.truncated().map(str::to_owned);
    (lines, error, truncated)
}

const UNMAP: &str = "          <idle>-0       [000] d.h1.    13.812810: dma_unmap_phys: \
                     0000:02:00.0 dir=TO_DEVICE dma_addr=ffedc000 size=16384 attrs=MMIO\n";

#[test]
fn a_line_gives_all_its_columns() {
    let (lines, error, truncated) = lines(UNMAP);
    assert!(error.is_none() && truncated.is_none());
    assert_eq!(
        lines,
        [Line {
            number: 1,
            task: "<idle>".into(),
            pid: 0,
            cpu: 0,
            flags: Flags(*b"d.h1."),
            time: 13_812_810,
            event: Event::DmaUnmapPhys {
                dev: Device::pci(Bdf::new(2, 0, 0)),
                dir: Direction::ToDevice,
                dma_addr: DmaAddr(0xffed_c000),
                size: 16384,
                attrs: Attrs::MMIO,
            },
        }]
    );
    assert_eq!(lines[0].flags.context(), Context::HardIrq);
}

#[test]
fn task_names_may_look_like_columns() {
    for task in ["a-1 [0] b", "kworker/u8:1-e", "x: y-3", "-"] {
        let text = UNMAP.replace("<idle>", task);
        let (lines, error, _) = lines(&text);
        assert!(error.is_none(), "{task}: {error:?}");
        assert_eq!(&*lines[0].task, task);
        assert_eq!(lines[0].pid, 0);
    }
}

#[test]
fn every_event_prints_what_it_parses() {
    let mut dice = Dice(1);
    for round in 0..500 {
        let events = Event::samples(&mut dice);
        assert_eq!(events.len(), Event::NAMES.len());
        for (event, name) in events.into_iter().zip(Event::NAMES) {
            assert_eq!(event.name(), *name);
            let line = Line {
                number: round,
                task: dice.word_of("ab:/- "),
                pid: dice.word() as u32,
                cpu: dice.below(300) as u32,
                flags: Flags(*b"dNh2."),
                time: dice.below(1 << 40),
                event,
            };
            let text = line.to_string();
            let again = parse_line(round, text.as_bytes());
            let trimmed = Line {
                task: line.task.trim_start().into(),
                ..line
            };
            assert_eq!(again, Ok(trimmed), "{text}");
        }
    }
}

/// Every bundled trace parses to its end; what the tracepoints print is what stands in the file.
#[test]
fn bundled_traces_parse_fully() {
    let mut seen = BTreeMap::<&str, usize>::new();
    let mut totals = BTreeMap::new();
    for entry in fs::read_dir(bundled()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "gz") {
            continue;
        }
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(fs::File::open(&path).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        let text: Vec<&str> = text.lines().collect();
        let mut capture = Capture::open(&path).unwrap();
        let mut time = 0;
        for line in &mut capture.trace {
            let line = line.unwrap();
            *seen.entry(line.event.name()).or_default() += 1;
            assert!(line.time >= time);
            time = line.time;
            if !line.event.is_probe() {
                assert_eq!(line.to_string(), text[line.number as usize - 1]);
            }
        }
        assert_eq!(capture.trace.truncated(), None);
        totals.insert(capture.name.clone(), capture.trace.events());
        capture.memory_map().unwrap();
    }
    let expected = [
        ("dmabench-riscv", 61093),
        ("e1000e-iommu", 11966),
        ("net-swiotlb", 28710),
        ("nvme-p2p-bridge-iommu", 19314),
        ("nvme-untrusted-iommu", 31817),
    ];
    assert_eq!(
        totals,
        expected
            .map(|(n, c)| (n.to_owned(), c))
            .into_iter()
            .collect()
    );
    insta::assert_debug_snapshot!(seen);
}

/// What a probe prints, but for the place in the code.
#[test]
fn probes_parse_in_either_base() {
    let hex = "  kworker/u8:0-12      [000] .....     4.916312: iova_alloc_ret: \
               (__iommu_dma_alloc_noncontiguous+0x259/0x450 <- iommu_dma_alloc_iova) \
               iova=0xffffe000\n";
    let decimal = hex.replace("0xffffe000", "4294959104");
    let (from_hex, ..) = lines(hex);
    let (from_decimal, ..) = lines(&decimal);
    assert_eq!(from_hex, from_decimal);
    assert_eq!(
        from_hex[0].event.to_string(),
        "(<- iommu_dma_alloc_iova) iova=0xffffe000"
    );
}

#[test]
fn what_does_not_parse_is_named_with_its_line() {
    let cases = [
        ("dir=TO_DEVICE", "dir=UPWARD"),
        ("dma_addr=ffedc000", "dma_addr=xfedc000"),
        ("dma_addr=ffedc000", "dma_addr=1ffffffffffffffff"),
        ("size=16384", "size=0x4000"),
        ("size=16384", "size="),
        (" attrs=MMIO", ""),
        ("attrs=MMIO", "attrs=MMIO|"),
        ("attrs=MMIO", "attrs=MIO"),
        ("attrs=MMIO", "attrs=MMIO phys_addr=1"),
        ("0000:02:00.0 ", " "),
        ("dma_unmap_phys:", "dma_unmap_page:"),
        ("[000]", "[0x0]"),
        ("13.812810", "13.8128"),
        ("d.h1.", "d.h1"),
        ("<idle>-0", "<idle>"),
    ];
    let mut shown = String::new();
    for (good, bad) in cases {
        let text = format!("# tracer: nop\n{UNMAP}{}", UNMAP.replace(good, bad));
        assert_ne!(text, format!("# tracer: nop\n{UNMAP}{UNMAP}"));
        let (lines, error, truncated) = lines(&text);
        assert_eq!((lines.len(), truncated), (1, None));
        shown += &format!("{}\n", error.expect(bad));
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn lost_events_are_an_error() {
    let (_, error, _) = lines(&format!("{UNMAP}CPU:1 [LOST 123 EVENTS]\n{UNMAP}"));
    assert!(matches!(
        error,
        Some(Error::Line {
            number: 2,
            source: LineError::Lost(_),
            ..
        })
    ));
    let header = "# entries-in-buffer/entries-written: 1/5   #P:2\n";
    let (_, error, _) = lines(&format!("{header}{UNMAP}"));
    assert!(matches!(
        error,
        Some(Error::Overwritten {
            kept: 1,
            written: 5,
            ..
        })
    ));
}

#[test]
fn an_empty_trace_is_an_error() {
    for text in ["", "# tracer: nop\n", "\n", "init-1 [001"] {
        let (lines, error, _) = lines(text);
        assert!(lines.is_empty());
        assert!(matches!(error, Some(Error::Empty { .. })), "{text:?}");
    }
}

#[test]
fn a_cut_trace_gives_what_is_there() {
    let (got, error, truncated) = lines(&format!("{UNMAP}{}", &UNMAP[..90]));
    assert!(error.is_none());
    assert_eq!(got.len(), 1);
    assert_eq!(truncated.as_deref(), Some("line 2 has no newline"));

    let header = "# entries-in-buffer/entries-written: 3/3   #P:2\n";
    let (got, error, truncated) = lines(&format!("{header}{UNMAP}{UNMAP}"));
    assert!(error.is_none());
    assert_eq!(got.len(), 2);
    assert_eq!(
        truncated.as_deref(),
        Some("the header announces 3 events, the file holds 2")
    );
}

#[test]
fn a_cut_gzip_stream_gives_what_is_there() {
    let whole = fs::read(bundled().join("e1000e-iommu.trace.gz")).unwrap();
    let (got, error, truncated) = read(io::Cursor::new(whole[..whole.len() / 2].to_vec()));
    assert!(error.is_none(), "{error:?}");
    assert!(got.len() > 4000);
    assert!(truncated.unwrap().starts_with("the compressed data end"));

    let mut corrupt = whole;
    let middle = corrupt.len() / 2;
    corrupt[middle..middle + 64].fill(0xff);
    let (_, error, truncated) = read(io::Cursor::new(corrupt));
    assert!(error.is_some() && truncated.is_none());
}

#[test]
fn an_unreadable_trace_is_named() {
    let error = Trace::open("no/such.trace").err().unwrap();
    assert!(error.to_string().starts_with("no/such.trace: "));
}

#[test]
fn sidecars_describe_the_machine() {
    let capture = Capture::open(bundled().join("nvme-p2p-bridge-iommu.trace.gz")).unwrap();
    assert_eq!(capture.name, "nvme-p2p-bridge-iommu");
    assert_eq!(capture.iommu(), IommuMode::Strict);
    let provider = capture.pci.get(Bdf::new(1, 0, 0)).unwrap();
    assert_eq!(provider.driver.as_deref(), Some("nvme"));
    assert_eq!(provider.parent(), Some(Bdf::new(0, 3, 0)));
    assert!(provider.p2pmem.is_some_and(|m| m.size == 64 << 20));
    let (owner, bar) = capture.pci.bar_at(PhysAddr(0xf019_9000), 4096).unwrap();
    assert_eq!((owner.bdf, bar.index), (provider.bdf, 2));
    assert!(bar.is_prefetchable());
    assert_eq!(
        capture.info.msi(),
        Some(Range::sized(0xfee0_0000, 0x10_0000))
    );
    assert_eq!(capture.info.lazy, Some(false));
    insta::assert_debug_snapshot!(capture.memory_map().unwrap());

    let bounce = Capture::open(bundled().join("net-swiotlb.trace.gz")).unwrap();
    assert_eq!(bounce.iommu(), IommuMode::None);
    assert!(bounce.info.swiotlb_force);
    assert_eq!(bounce.info.swiotlb_slabs, Some(32768));
    let map = bounce.memory_map().unwrap();
    assert!(map.dram.iter().all(|d| d.last < map.msi.base));

    let lazy = Capture::open(bundled().join("e1000e-iommu.trace.gz")).unwrap();
    assert_eq!(lazy.iommu(), IommuMode::Lazy);
    let riscv = Capture::open(bundled().join("dmabench-riscv.trace.gz")).unwrap();
    assert_eq!(riscv.iommu_of(Bdf::new(0, 2, 0)), IommuMode::Strict);
    assert_eq!(
        riscv.memory_map().unwrap().aperture,
        Range::sized(0x4000_0000, 0x4000_0000)
    );
}

#[test]
fn sidecars_that_do_not_parse_are_named_with_their_line() {
    let path = Path::new("x.pci");
    let good = "dev 0000:01:00.0 vendor=0x1b36 device=0x0010 class=0x010802 driver=nvme \
                iommu_group=- iommu_group_type=- dma_mask_bits=64 consistent_dma_mask_bits=64 \
                path=pci0000:00/0000:00:03.0/0000:01:00.0\n";
    assert!(Pci::parse(path, good).is_ok());
    let mut shown = String::new();
    for bad in [
        good.replace("vendor=0x1b36", "vendor=0x11b36"),
        good.replace("0000:01:00.0 vendor", "0000:01:40.0 vendor"),
        good.replace("0000:01:00.0\n", "0000:01:00.1\n"),
        good.replace("type=-", "type=FQ"),
        format!("{good}  res0 0x2000 0x1fff 0x200\n"),
        format!("{good}  res0 0x2000 0x2fff\n"),
        "  res0 0x2000 0x2fff 0x200\n".to_owned(),
    ] {
        shown += &format!("{}\n", Pci::parse(path, &bad).unwrap_err());
    }
    let path = Path::new("x.iomem");
    for bad in [
        "00000000-00000fff : Reserved\n",
        "00001000-0009fbff System RAM\n",
        "2000-1fff : System RAM\n",
        "00000000-00000000 : Reserved\n00000000-00000000 : System RAM\n",
        "",
    ] {
        shown += &format!("{}\n", IoMem::parse(path, bad).unwrap_err());
    }
    let path = Path::new("x.info");
    for bad in [
        "  reserved 0xfee00000 0xfeefffff msi\n",
        "iommu_group 1 type=SVA devices=\n",
        "[ 0.1] iommu: DMA domain TLB invalidation policy: eager mode\n",
    ] {
        shown += &format!("{}\n", Info::parse(path, bad).unwrap_err());
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn the_kernel_log_names_the_bounce_buffer() {
    let log = "[    0.0] software IO TLB: mapped [mem 0x0000000036400000-0x000000003a3fffff] \
               (64MB)\n";
    let info = Info::parse(Path::new("x.info"), log).unwrap();
    assert_eq!(info.swiotlb_pool, Some(Range::sized(0x3640_0000, 64 << 20)));
}

#[test]
fn a_missing_sidecar_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.b.trace");
    fs::write(&path, UNMAP).unwrap();
    let missing = |path: &Path| match Capture::open(path) {
        Err(Error::MissingSidecar { path }) => path,
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("opened"),
    };
    assert_eq!(missing(&path), dir.path().join("a.b.iomem"));
    fs::write(dir.path().join("a.b.iomem"), "1000-1fff : System RAM\n").unwrap();
    assert_eq!(missing(&path), dir.path().join("a.b.pci"));
    fs::write(dir.path().join("a.b.pci"), "").unwrap();
    let capture = Capture::open(&path).unwrap();
    assert_eq!(capture.info, Info::default());
    assert!(matches!(capture.memory_map(), Err(Error::Machine { .. })));
}

#[test]
fn a_range_that_no_call_can_have_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.trace");
    for (size, phys, says) in [
        ("0", "1000", "x.trace:2: event dma_map_phys: the size is 0"),
        ("18446744073709551615", "1000", "end above 2^64"),
        ("4097", "fffffffffffff000", "end above 2^64"),
    ] {
        let line = |size: &str, phys: &str| {
            format!(
                "task-1 [000] ..... 1.000000: dma_map_phys: 0000:01:00.0 dir=TO_DEVICE \
                 dma_addr=1000 size={size} phys_addr={phys} attrs=\n"
            )
        };
        // The largest range that there is.
        let good = line("4096", "fffffffffffff000");
        std::fs::write(&path, good + &line(size, phys)).unwrap();
        let mut trace = Trace::open(&path).unwrap();
        assert!(trace.next().unwrap().is_ok());
        let error = trace.next().unwrap().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
