use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::Range;

/// A function: registers, and which of their bits can be written.
#[derive(Clone)]
struct Function {
    regs: Vec<u8>,
    writable: Vec<u8>,
}

impl Function {
    fn new(vendor: u16, device: u16, class: u32, header: u8) -> Self {
        let mut f = Self {
            regs: vec![0; 0x1000],
            writable: vec![0; 0x1000],
        };
        f.set(
            reg::VENDOR_ID,
            u32::from(vendor) | u32::from(device) << 16,
            0,
        );
        f.set(reg::CLASS_REVISION, class << 8 | 1, 0);
        f.set(reg::COMMAND, 0, 0x7);
        f.set(0x0c, u32::from(header) << 16, 0);
        f
    }

    fn set(&mut self, at: u16, value: u32, writable: u32) {
        let at = usize::from(at);
        self.regs[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self.writable[at..at + 4].copy_from_slice(&writable.to_le_bytes());
    }

    fn get(&self, at: u16) -> u32 {
        let at = usize::from(at);
        u32::from_le_bytes(self.regs[at..at + 4].try_into().unwrap())
    }

    fn cap_list(mut self) -> Self {
        self.regs[usize::from(reg::STATUS)] |= 0x10;
        self.regs[usize::from(reg::CAPABILITIES)] = 0x40;
        self
    }

    /// PCI Express capability at 0x40, MPS supported 512.
    fn express(mut self, port: u32, next: u32) -> Self {
        self.set(0x40, 0x10 | next << 8 | 2 << 16 | port << 20, 0);
        self.set(0x44, 2, 0);
        self.set(0x48, 0x2000, 0xf0e0);
        self.cap_list()
    }

    fn bar64(mut self, index: u16, size: u64, flags: u32) -> Self {
        let mask = !(size - 1);
        self.set(reg::BAR0 + 4 * index, flags | 4, mask as u32 & !15);
        self.set(reg::BAR0 + 4 * index + 4, 0, (mask >> 32) as u32);
        self
    }

    fn acs(mut self, capability: u32) -> Self {
        self.set(0x100, 0x0001_000d, 0);
        self.set(0x104, capability, 0x7f << 16);
        self
    }

    fn bridge(device: u16, port: u32) -> Self {
        let mut f = Self::new(0x1b36, device, 0x06_0400, 1).express(port, 0);
        f.set(reg::BUS_NUMBERS, 0, 0xff_ffff);
        f.set(reg::MEMORY_WINDOW, 0, 0xfff0_fff0);
        f.set(reg::PREFETCH_WINDOW, 0x0001_0001, 0xfff0_fff0);
        f.set(reg::PREFETCH_BASE_UPPER, 0, !0);
        f.set(reg::PREFETCH_LIMIT_UPPER, 0, !0);
        f
    }

    fn endpoint(memory: u64) -> Self {
        let mut f = Self::new(0x1b36, 0x0e9d, 0x12_0000, 0)
            .express(0, 0x80)
            .bar64(0, 0x4000, 0)
            .bar64(2, memory, 8);
        f.set(0x80, 0x11 | 7 << 16, 0xc000_0000);
        f.set(0x84, 0x2000, 0);
        f.set(0x88, 0x3000, 0);
        f
    }
}

/// Functions by a path of (device, function), routed by the bus numbers that were written.
#[derive(Clone, Default)]
struct Fake {
    functions: HashMap<Vec<(u8, u8)>, Function>,
}

impl Fake {
    fn route(&mut self, bdf: Bdf) -> Option<&mut Function> {
        let mut path = Vec::new();
        let mut bus = 0;
        while bus != bdf.bus() {
            let (next, secondary) = self.functions.iter().find_map(|(p, f)| {
                let numbers = f.get(reg::BUS_NUMBERS);
                let (secondary, subordinate) = ((numbers >> 8) as u8, (numbers >> 16) as u8);
                (p.len() == path.len() + 1
                    && p.starts_with(&path)
                    && f.regs[0x0e] & 0x7f == 1
                    && secondary != 0
                    && (secondary..=subordinate).contains(&bdf.bus()))
                .then(|| (p.clone(), secondary))
            })?;
            path = next;
            bus = secondary;
        }
        path.push((bdf.device(), bdf.function()));
        self.functions.get_mut(&path)
    }

    fn at(mut self, path: &[(u8, u8)], f: Function) -> Self {
        self.functions.insert(path.to_vec(), f);
        self
    }
}

impl ConfigSpace for Fake {
    fn config_read(
        &mut self,
        bdf: Bdf,
        at: u16,
        size: u8,
    ) -> std::result::Result<u32, AccessError> {
        assert!(matches!(size, 1 | 2 | 4) && at.is_multiple_of(u16::from(size)) && at < 0x1000);
        let f = self.route(bdf).ok_or(AccessError::Unsupported)?;
        let word = f.get(at & !3) >> (8 * (at & 3));
        Ok(if size == 4 {
            word
        } else {
            word & ((1 << (8 * size)) - 1)
        })
    }

    fn config_write(
        &mut self,
        bdf: Bdf,
        at: u16,
        size: u8,
        value: u32,
    ) -> std::result::Result<(), AccessError> {
        assert!(matches!(size, 1 | 2 | 4) && at.is_multiple_of(u16::from(size)) && at < 0x1000);
        let f = self.route(bdf).ok_or(AccessError::Unsupported)?;
        for i in 0..usize::from(size) {
            let (at, byte) = (usize::from(at) + i, (value >> (8 * i)) as u8);
            f.regs[at] = f.regs[at] & !f.writable[at] | byte & f.writable[at];
        }
        Ok(())
    }
}

/// The topology of `docs/rtl-ports.md`.
fn topology(memory: u64) -> Fake {
    let iommu = Function::new(0x1efd, 8, 0x08_0600, 0)
        .express(9, 0)
        .bar64(0, 0x1000, 0);
    let root = |acs| Function::bridge(0x000c, 4).acs(acs);
    Fake::default()
        .at(&[(0, 0)], Function::new(0x1ae0, 1, 0x06_0000, 0))
        .at(&[(1, 0)], iommu)
        .at(&[(2, 0)], root(0x0d))
        .at(&[(3, 0)], root(0x0d))
        .at(&[(2, 0), (0, 0)], Function::bridge(0x000d, 5))
        .at(
            &[(2, 0), (0, 0), (0, 0)],
            Function::bridge(0x000d, 6).acs(0x7f),
        )
        .at(
            &[(2, 0), (0, 0), (1, 0)],
            Function::bridge(0x000d, 6).acs(0x7f),
        )
        .at(
            &[(2, 0), (0, 0), (0, 0), (0, 0)],
            Function::endpoint(memory),
        )
        .at(
            &[(2, 0), (0, 0), (1, 0), (0, 0)],
            Function::endpoint(memory),
        )
        .at(&[(3, 0), (0, 0)], Function::endpoint(memory))
}

/// Every BAR is aligned, inside the aperture, inside the windows above it, and alone.
fn check(tree: &Tree, map: &MemoryMap) {
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for node in &tree.nodes {
        for bar in &node.bars {
            let BarKind::Memory { wide, .. } = bar.kind else {
                continue;
            };
            assert_eq!(bar.bus.0 % bar.size, 0);
            assert!(map.aperture.contains(bar.phys, bar.size), "{node}");
            assert_eq!(map.to_bus(bar.phys), bar.bus);
            assert!(wide || bar.bus.0 + bar.size <= 1 << 32);
            for bridge in tree.upstream(node.bdf).map(|n| n.bridge.unwrap()) {
                assert!(
                    [bridge.memory, bridge.prefetchable]
                        .iter()
                        .flatten()
                        .any(|w| w.contains(bar.bus, bar.size)),
                    "{node}"
                );
            }
            taken.push((bar.bus.0, bar.size));
        }
        let Some(bridge) = node.bridge else { continue };
        for w in [bridge.memory, bridge.prefetchable].iter().flatten() {
            assert_eq!(w.base.0 % WINDOW_GRANULE, 0);
            assert_eq!((w.limit.0 + 1) % WINDOW_GRANULE, 0);
        }
        assert!(bridge.memory.is_none_or(|w| w.limit.0 < 1 << 32));
        for &c in &node.children {
            assert_eq!(tree.nodes[c].bdf.bus(), bridge.secondary);
        }
    }
    taken.sort_unstable();
    assert!(taken.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
}

#[test]
fn listing() {
    let map = MemoryMap::default();
    let tree = enumerate(&mut topology(1 << 20), &map, &Options::default()).unwrap();
    check(&tree, &map);
    insta::assert_snapshot!(tree.diagram());
    insta::assert_snapshot!(tree.to_string());
}

#[test]
fn registers_hold_what_the_tree_says() {
    let map = MemoryMap {
        aperture: Range::sized(0x60_4000_0000, 0x2_0000_0000),
        bus_offset: 0x60_0000_0000,
        ..MemoryMap::default()
    };
    let mut cs = topology(4 << 30 >> 2);
    let options = Options {
        mps: 4096,
        mrrs: 1024,
        acs_override: vec![(Bdf::new(2, 1, 0), Acs::SV)],
        ..Options::default()
    };
    let mut tree = enumerate(&mut cs, &map, &options).unwrap();
    check(&tree, &map);
    assert_eq!(tree.endpoints().count(), 3);
    for node in &tree.nodes {
        for bar in &node.bars {
            let at = reg::BAR0 + 4 * u16::from(bar.index);
            let low = cs.config_read(node.bdf, at, 4).unwrap();
            let high = cs.config_read(node.bdf, at + 4, 4).unwrap();
            assert_eq!(u64::from(low & !15) | u64::from(high) << 32, bar.bus.0);
            assert_eq!(tree.bar_at(bar.bus, bar.size).unwrap().0.bdf, node.bdf);
        }
        assert_eq!(cs.config_read(node.bdf, reg::COMMAND, 2), Ok(6));
        if let Some(p) = node.pcie {
            assert_eq!((p.mps, p.mrrs), (512, 1024));
            let control = cs.config_read(node.bdf, p.offset + 8, 2).unwrap();
            assert_eq!(control & 0x70e0, 3 << 12 | 2 << 5);
        }
        if let Some(b) = node.bridge {
            let word = cs.config_read(node.bdf, reg::PREFETCH_WINDOW, 4).unwrap();
            let base_upper = cs
                .config_read(node.bdf, reg::PREFETCH_BASE_UPPER, 4)
                .unwrap();
            let limit_upper = cs
                .config_read(node.bdf, reg::PREFETCH_LIMIT_UPPER, 4)
                .unwrap();
            let w = b.prefetchable.unwrap();
            assert_eq!(
                w.base.0,
                u64::from(base_upper) << 32 | u64::from(word & 0xfff0) << 16
            );
            assert_eq!(
                w.limit.0,
                u64::from(limit_upper) << 32 | u64::from(word & 0xfff0_0000) | 0xf_ffff
            );
        }
    }
    let port = |tree: &Tree, bdf| tree.find(bdf).unwrap().acs.unwrap().control;
    assert_eq!(port(&tree, Bdf::new(2, 0, 0)), Acs::STANDARD);
    assert_eq!(port(&tree, Bdf::new(2, 1, 0)), Acs::SV);
    // The root port has no Upstream Forwarding to enable.
    assert_eq!(
        port(&tree, Bdf::new(0, 2, 0)),
        Acs::from_bits_truncate(0x0d)
    );
    pci_enable_acs(&mut cs, &mut tree, Bdf::new(2, 0, 0), Acs::empty()).unwrap();
    assert_eq!(port(&tree, Bdf::new(2, 0, 0)), Acs::empty());
    assert_eq!(cs.config_read(Bdf::new(2, 0, 0), 0x106, 2), Ok(0));
    let up: Vec<_> = tree.upstream(Bdf::new(4, 0, 0)).map(|n| n.bdf).collect();
    assert_eq!(
        up,
        [Bdf::new(2, 1, 0), Bdf::new(1, 0, 0), Bdf::new(0, 2, 0)]
    );
}

#[test]
fn impossible_topologies_are_errors() {
    let map = MemoryMap::default();
    assert!(matches!(
        enumerate(&mut topology(1 << 30), &map, &Options::default()),
        Err(EnumerateError::NoApertureSpace { .. })
    ));
    let high = MemoryMap {
        aperture: Range::sized(0x60_4000_0000, 0x2_0000_0000),
        ..MemoryMap::default()
    };
    assert!(matches!(
        enumerate(&mut topology(1 << 20), &high, &Options::default()),
        Err(EnumerateError::NoApertureSpace { kind: "32-bit", .. })
    ));
    let odd = Options {
        mps: 300,
        ..Options::default()
    };
    assert_eq!(
        enumerate(&mut topology(1 << 20), &map, &odd),
        Err(EnumerateError::InvalidSize(300))
    );
}

#[test]
fn looping_capability_list_is_an_error() {
    let mut f = Function::endpoint(1 << 20);
    f.set(0x80, 0x11 | 0x40 << 8, 0);
    let mut cs = Fake::default().at(&[(0, 0)], f);
    assert_eq!(
        enumerate(&mut cs, &MemoryMap::default(), &Options::default()),
        Err(EnumerateError::MalformedCapabilities {
            bdf: Bdf::new(0, 0, 0),
            offset: 0x40
        })
    );
}

/// Every function of every bus is a bridge.
#[test]
fn bus_numbers_run_out() {
    struct Endless;
    impl ConfigSpace for Endless {
        fn config_read(&mut self, _: Bdf, at: u16, _: u8) -> std::result::Result<u32, AccessError> {
            Ok(match at {
                reg::VENDOR_ID => 0x1b36,
                reg::HEADER_TYPE => 0x81,
                _ => 0,
            })
        }
        fn config_write(
            &mut self,
            _: Bdf,
            _: u16,
            _: u8,
            _: u32,
        ) -> std::result::Result<(), AccessError> {
            Ok(())
        }
    }
    assert!(matches!(
        enumerate(&mut Endless, &MemoryMap::default(), &Options::default()),
        Err(EnumerateError::BusNumbersExhausted(_))
    ));
}

/// Answers anything, differently each time.
struct Garbage(u64);

impl ConfigSpace for Garbage {
    fn config_read(
        &mut self,
        bdf: Bdf,
        at: u16,
        size: u8,
    ) -> std::result::Result<u32, AccessError> {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(u64::from(bdf.0) << 16 | u64::from(at) | 1);
        let value = (self.0 >> 24) as u32;
        // Most slots are empty, as otherwise nothing but bus numbers is tested.
        if at == reg::VENDOR_ID && !value.is_multiple_of(24) {
            return Err(AccessError::Unsupported);
        }
        Ok(if size == 4 {
            value
        } else {
            value & ((1 << (8 * size)) - 1)
        })
    }

    fn config_write(
        &mut self,
        _: Bdf,
        _: u16,
        _: u8,
        _: u32,
    ) -> std::result::Result<(), AccessError> {
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_ends(seed: u64, first: u64, last: u64, bus_offset: u64) {
        let map = MemoryMap {
            aperture: Range { base: crate::PhysAddr(first.min(last)), last: crate::PhysAddr(first.max(last)) },
            bus_offset,
            ..MemoryMap::default()
        };
        let _ = enumerate(&mut Garbage(seed), &map, &Options::default());
    }

    /// One function with random registers on an otherwise sound tree.
    #[test]
    fn corrupted_function_ends(victim in 0..10_usize, noise in prop::collection::vec((0..0x400_u16, any::<u32>(), any::<u32>()), 1..64)) {
        let mut cs = topology(1 << 20);
        let mut paths: Vec<_> = cs.functions.keys().cloned().collect();
        paths.sort();
        let f = cs.functions.get_mut(&paths[victim]).unwrap();
        for (at, value, writable) in noise {
            f.set(at * 4, value, writable);
        }
        let map = MemoryMap::default();
        if let Ok(tree) = enumerate(&mut cs, &map, &Options::default()) {
            check(&tree, &map);
        }
    }

    #[test]
    fn any_sizes_that_fit_are_placed_well(sizes in prop::collection::vec(12..30_u32, 3)) {
        let mut cs = topology(1 << 20);
        let mut paths: Vec<_> = cs.functions.keys().filter(|p| p.len() > 1).cloned().collect();
        paths.sort();
        let endpoints = paths.iter().filter(|p| cs.functions[*p].regs[0x0e] == 0).cloned().collect::<Vec<_>>();
        for (path, size) in endpoints.iter().zip(&sizes) {
            cs.functions.insert(path.clone(), Function::endpoint(1 << size));
        }
        let map = MemoryMap::default();
        match enumerate(&mut cs, &map, &Options::default()) {
            Ok(tree) => check(&tree, &map),
            Err(e) => prop_assert!(matches!(e, EnumerateError::NoApertureSpace { .. }), "{}", e),
        }
    }
}
