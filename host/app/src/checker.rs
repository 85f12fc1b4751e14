//! The scoreboard with what the harness adds: rows for the results, and the comparison of what a
//! device reads with what the CPU wrote.

use tlproof_golden::{
    Promise, PromiseId, RogueId, Scoreboard, Tap, Violation,
    iommu::Status,
    memory::CachedMemory,
    scoreboard::{Config, CpuRequest, Dest, MemRequest, Translated},
};
use tlproof_pcie::{Bdf, BusAddr, DmaAddr, Head, MemAttr, MemType, PhysAddr};

use crate::{
    memory_port::Request,
    output::{Extra, SharedSink, Tally, tap_name},
    report::ViolationRow,
    simulation::Options,
    taps::Translation,
};

/// A declared probe.
pub type Rogue = RogueId;

/// `capabilities` of the IOMMU in `sim_top`: version 1.0, Sv39, Sv48, Sv57, Svpbmt, 56-bit
/// physical addresses.
pub const CAPABILITIES: u64 = 56 << 32 | 1 << 15 | 1 << 11 | 1 << 10 | 1 << 9 | 0x10;

/// A TLP at a tap, as a watcher sees it.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// Where.
    pub tap: Tap,
    /// The TLP.
    pub head: Head,
    /// Address, where the header's is not the one at this tap.
    pub address: Option<u64>,
    /// Resolved attributes.
    pub attr: Option<MemAttr>,
    /// Translation status.
    pub status: Option<&'static str>,
}

/// A comparison outside the scoreboard.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    checked: u64,
    failed: u64,
}

/// Everything that looks at taps.
pub struct Checker {
    board: Scoreboard,
    sink: Option<SharedSink>,
    /// Violations found by the harness itself.
    own: Vec<ViolationRow>,
    stale: Count,
    memory: Count,
    /// A campaign stops after this many violations.
    enough: usize,
    /// TLPs since the last look, while somebody watches.
    watched: Option<Vec<Watched>>,
    /// Cycles in which the oldest TLPs entered each root port, for the latency plot.
    entered: [std::collections::VecDeque<(u32, u64)>; 2],
    /// TLPs of the reads at the memory port, by port tag.
    reads: [u64; 256],
}

impl Checker {
    /// A checker for the machine with these options. Rows go to `sink`; `enough` violations end
    /// a campaign.
    #[must_use]
    pub fn new(options: &Options, blocking: bool, sink: Option<SharedSink>, enough: usize) -> Self {
        if let Some(s) = &sink {
            s.borrow_mut().next_machine();
        }
        let config = Config {
            map: options.map.clone(),
            iommu: options.iommu,
            ns_honour: options.ns_honour,
            // Without translation the attributes of the aperture are all there is.
            aperture_wb: options.aperture_wb && options.iommu,
            capabilities: CAPABILITIES,
            blocking,
            ..Config::default()
        };
        Self {
            board: Scoreboard::new(config),
            sink,
            own: Vec::new(),
            stale: Count::default(),
            memory: Count::default(),
            enough,
            watched: None,
            entered: Default::default(),
            reads: [0; 256],
        }
    }

    /// The scoreboard.
    #[must_use]
    pub fn board(&self) -> &Scoreboard {
        &self.board
    }

    /// TLPs so far.
    #[must_use]
    pub fn tlps(&self) -> u64 {
        self.board.stats().tlps
    }

    /// All violations so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.board.stats().violations + self.own.len() as u64
    }

    /// Keeps every TLP from now on for [`Checker::take_watched`].
    pub fn watch(&mut self) {
        self.watched = Some(Vec::new());
    }

    /// The TLPs since the last call.
    pub fn take_watched(&mut self) -> Vec<Watched> {
        self.watched
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Whether a campaign should stop: enough violations, or results cannot be written.
    #[must_use]
    pub fn failed_enough(&self) -> bool {
        self.failed() >= self.enough as u64
            || self.sink.as_ref().is_some_and(|s| s.borrow().failed())
    }

    /// Cycle of the first violation.
    #[must_use]
    pub fn first_violation(&self) -> Option<u64> {
        let own = self.own.first().map(|v| v.cycle);
        let board = self.board.violations().first().map(|v| v.cycle);
        own.into_iter().chain(board).min()
    }

    /// Violations of the scoreboard.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        self.board.violations()
    }

    /// Violations found by comparing memory.
    #[must_use]
    pub fn memory_violations(&self) -> &[ViolationRow] {
        &self.own
    }

    /// All violations as the results show them.
    #[must_use]
    pub fn violation_rows(&self) -> Vec<ViolationRow> {
        let board = self.board.violations().iter().map(violation_row);
        board.chain(self.own.iter().cloned()).collect()
    }

    /// Adds what was found to a tally.
    pub fn tally(&self, t: &mut Tally, cycles: u64, map_calls: u64) {
        let stats = self.board.stats();
        for (rule, count) in stats.rules() {
            t.check(
                rule.judge().name(),
                rule.name(),
                "all",
                count.checked,
                count.failed,
            );
        }
        t.check(
            "promise",
            "stale read",
            "memory",
            self.stale.checked,
            self.stale.failed,
        );
        t.check(
            "promise",
            "memory after unmap",
            "cpu",
            self.memory.checked,
            self.memory.failed,
        );
        t.violations.extend(self.violation_rows());
        t.failed += self.failed();
        t.tlps += stats.tlps;
        t.rows += stats.rows();
        t.cycles += cycles;
        t.map_calls += map_calls;
    }

    fn row(
        &mut self,
        before: u64,
        tap: Tap,
        id: (u64, u64),
        head: &Head,
        payload: &[u8],
        extra: &Extra,
    ) {
        if let Some(watched) = &mut self.watched {
            watched.push(Watched {
                tap,
                head: *head,
                address: extra.address,
                attr: extra.attr,
                status: extra.status,
            });
        }
        if let Some(s) = &self.sink {
            let ok = self.board.stats().violations == before;
            s.borrow_mut().row(tap, id, head, payload, extra, ok);
        }
    }

    fn tlp(&mut self, mem: &CachedMemory, cycle: u64, tap: Tap, head: &Head, payload: &[u8]) {
        let before = self.board.stats().violations;
        let id = self.board.tlp(mem, cycle, tap, head, payload);
        self.row(before, tap, (id.0, cycle), head, payload, &Extra::default());
    }

    /// A TLP begins to leave endpoint `n`.
    pub fn ep_tx(&mut self, mem: &CachedMemory, cycle: u64, n: u8, head: &Head) {
        self.tlp(mem, cycle, Tap::EpTx(n), head, &[]);
    }

    /// The last beat of that TLP has left.
    pub fn ep_tx_payload(&mut self, n: u8, payload: &[u8]) {
        self.board.payload(n, payload);
    }

    /// A TLP has arrived at endpoint `n`.
    pub fn ep_rx(&mut self, mem: &CachedMemory, cycle: u64, n: u8, head: &Head, payload: &[u8]) {
        self.tlp(mem, cycle, Tap::EpRx(n), head, payload);
    }

    /// A TLP enters root port `n`.
    pub fn rp_rx(&mut self, mem: &CachedMemory, cycle: u64, n: u8, head: &Head) {
        if head.is_mem()
            && self.sink.is_some()
            && let Some(q) = self.entered.get_mut(usize::from(n))
        {
            q.push_back((head.hdr[1], cycle));
        }
        self.tlp(mem, cycle, Tap::RpRx(n), head, &[]);
    }

    /// A TLP leaves root port `n` downwards.
    pub fn rp_tx(&mut self, mem: &CachedMemory, cycle: u64, n: u8, head: &Head) {
        self.tlp(mem, cycle, Tap::RpTx(n), head, &[]);
    }

    /// A request leaves the translation stage.
    pub fn translated(&mut self, mem: &CachedMemory, cycle: u64, t: &Translation) {
        let status = match t.status {
            0 => Status::Ok,
            1 => Status::UnsupportedRequest,
            _ => Status::CompleterAbort,
        };
        // An encoding that does not exist cannot be what is expected.
        let attr = t.attr.unwrap_or(MemAttr {
            mem_type: MemType::Device,
            snoop: true,
            strong_order: false,
        });
        let actual = Translated {
            status,
            cause: t.cause,
            pbmt: t.pbmt,
            attr,
            dest: match t.dest {
                0 => Dest::None,
                1 => Dest::Memory,
                n => Dest::Peer(n - 2),
            },
            spa: PhysAddr(t.spa),
        };
        let before = self.board.stats().violations;
        let id = self.board.translated(mem, cycle, t.port, &t.head, &actual);
        let extra = Extra {
            address: (t.status == 0).then_some(t.spa),
            attr: (t.dest != 0).then_some(attr),
            status: Some(["OK", "UR", "CA", "?"][usize::from(t.status & 3)]),
        };
        self.row(
            before,
            Tap::Translate(t.port),
            (id.0, cycle),
            &t.head,
            &[],
            &extra,
        );
        if let (Some(sink), Some(q)) = (&self.sink, self.entered.get_mut(usize::from(t.port)))
            && let Some(at) = q.iter().position(|e| e.0 == t.head.hdr[1])
            && let Some((_, since)) = q.remove(at)
        {
            sink.borrow_mut().translation(cycle - since);
        }
    }

    /// A request was accepted at the memory port.
    pub fn memory_request(&mut self, cycle: u64, r: &Request, data: &[u8]) {
        let attr = r.attr.unwrap_or(MemAttr {
            mem_type: MemType::Device,
            snoop: true,
            strong_order: false,
        });
        let request = MemRequest {
            write: r.write,
            from_iommu: r.from_iommu,
            addr: PhysAddr(r.addr),
            len_dw: r.len_dw,
            first_be: r.first_be,
            last_be: r.last_be,
            requester: Bdf(r.requester),
            tlp_tag: r.tlp_tag,
            port_tag: r.tag,
            attr,
        };
        let before = self.board.stats().violations;
        let id = self.board.memory_request(cycle, &request, data);
        if !r.write {
            self.reads[usize::from(r.tag)] = id.0;
        }
        if let Some(sink) = &self.sink
            && !r.write
        {
            sink.borrow_mut().read_issued(r.tag, cycle);
        }
        if !r.from_iommu {
            let head = r.head();
            let extra = Extra {
                attr: Some(attr),
                ..Extra::default()
            };
            self.row(before, Tap::Memory, (id.0, cycle), &head, data, &extra);
        }
    }

    /// Memory answered part of a read.
    pub fn memory_response(&mut self, cycle: u64, tag: u8, data: &[u8], error: bool, last: bool) {
        self.board.memory_response(cycle, tag, data, error, last);
        if let Some(sink) = &self.sink
            && last
        {
            sink.borrow_mut().read_done(tag, cycle);
        }
    }

    /// A device's read of main memory returned `data`: it must be what the CPU has written, or a
    /// cache clean is missing or the access does not snoop where it must.
    pub fn device_read(&mut self, mem: &CachedMemory, cycle: u64, r: &Request, data: &[u8]) {
        if r.from_iommu {
            return;
        }
        self.stale.checked += 1;
        let mut coherent = [0; 4096];
        let coherent = &mut coherent[..data.len().min(4096)];
        let addr = PhysAddr(r.addr);
        if mem.read_written(addr, coherent).is_ok() && coherent != &data[..coherent.len()] {
            let at = coherent
                .iter()
                .zip(data)
                .position(|(a, b)| a != b)
                .unwrap_or(0);
            self.stale.failed += 1;
            let tlp = self.reads[usize::from(r.tag)];
            self.own.push(ViolationRow {
                tlp,
                cycle,
                tap: tap_name(Tap::Memory).to_owned(),
                rule: "stale read".to_owned(),
                judge: "promise".to_owned(),
                field: "data".to_owned(),
                expected: format!(
                    "{:#04x} at {:#x}, as the CPU wrote it",
                    coherent[at],
                    addr.offset(at as u64)
                ),
                got: format!("{:#04x}", data[at]),
                clause:
                    "DMA API: a buffer is clean in memory while the device owns it, unless the \
                         device snoops"
                        .to_owned(),
                story: vec![format!(
                    "TLP {tlp}: MRd {addr} ({} DW) from {} tag {:#x} at {}, attributes {:?}",
                    r.len_dw,
                    Bdf(r.requester),
                    r.tlp_tag,
                    tap_name(Tap::Memory),
                    r.attr
                )],
            });
        }
    }

    /// The CPU looks at what a device wrote, after the mapping ended.
    pub fn compare_memory(&mut self, cycle: u64, dma: DmaAddr, want: &[u8], got: &[u8]) {
        self.memory.checked += 1;
        let Some(at) = want.iter().zip(got).position(|(a, b)| a != b) else {
            return;
        };
        self.memory.failed += 1;
        self.own.push(ViolationRow {
            cycle,
            tap: "cpu".to_owned(),
            rule: "memory after unmap".to_owned(),
            judge: "promise".to_owned(),
            field: "data".to_owned(),
            expected: format!(
                "{:#04x}, as the device wrote it to {:#x}",
                want[at],
                dma.offset(at as u64)
            ),
            got: format!("{:#04x}", got[at]),
            clause: "DMA API: after unmap the CPU owns the buffer and sees what the device wrote"
                .to_owned(),
            ..ViolationRow::default()
        });
    }

    /// A CPU request is about to be made.
    pub fn cpu_request(
        &mut self,
        cycle: u64,
        config: bool,
        write: bool,
        addr: u64,
        be: u8,
        data: u64,
    ) {
        self.board.cpu_request(
            cycle,
            &CpuRequest {
                write,
                config,
                addr,
                be,
                data,
            },
        );
    }

    /// A configuration write has completed.
    pub fn config_written(&mut self, bdf: Bdf, reg: u16, size: u8, value: u32) {
        self.board.config_written(bdf, reg, size, value);
    }

    /// The CPU is about to write an IOMMU register.
    pub fn register_written(&mut self, mem: &CachedMemory, offset: u16, size: u8, value: u64) {
        self.board.register_written(mem, offset, size, value);
    }

    /// The CPU has read an IOMMU register.
    pub fn register_read(&mut self, offset: u16, size: u8, value: u64) {
        self.board.register_read(offset, size, value);
    }

    /// A word of main memory is about to change.
    pub fn memory_changed(&mut self, addr: PhysAddr, old: u64) {
        self.board.memory_changed(addr, old);
    }

    /// A mapping was made.
    pub fn promise(&mut self, p: Promise) -> PromiseId {
        self.board.promise(p)
    }

    /// Its unmap call begins.
    pub fn revoke_begin(&mut self, id: PromiseId) {
        self.board.revoke_begin(id);
    }

    /// It has ended.
    pub fn revoke_end(&mut self, id: PromiseId) {
        self.board.revoke_end(id);
    }

    /// Declares a probe.
    pub fn expect_rogue(&mut self, device: Bdf, addr: BusAddr, len: u64, write: bool) -> Rogue {
        self.board.expect_rogue(device, addr, len, write)
    }

    /// The probe is over.
    pub fn rogue_done(&mut self, rogue: Rogue) {
        self.board.rogue_done(rogue);
    }

    /// Nothing is under way any more.
    pub fn quiesce(&mut self, mem: &CachedMemory, faults: &[[u64; 4]]) {
        self.board.quiesce(mem, faults);
    }
}

fn violation_row(v: &Violation) -> ViolationRow {
    let mut story = v.story.clone();
    if let Some(call) = &v.call {
        story.insert(story.len().min(1), format!("mapping: {call}"));
    }
    ViolationRow {
        tlp: v.tlp.0,
        cycle: v.cycle,
        tap: tap_name(v.tap).to_owned(),
        rule: v.rule.name().to_owned(),
        judge: v.judge.name().to_owned(),
        field: v.field.to_owned(),
        expected: v.expected.clone(),
        got: v.got.clone(),
        clause: v.clause.clone(),
        story,
    }
}
