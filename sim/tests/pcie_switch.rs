//! The switch between its three links: configuration, routing, Access Control Services, ordering.

#[macro_use]
mod common;

use std::collections::VecDeque;

use common::{
    Beat, COMPLETION, Checked, NON_POSTED, POSTED, Sink, Source, Tlp, bytes, percent, plain,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tlproof_pcie::{Bdf, CplStatus, Head};
use tlproof_sim::{Model, ports::pcie_switch::PcieSwitch};

/// Ports: the upstream port, then the downstream ports.
const UP: usize = 0;
const DN: [usize; 2] = [1, 2];

/// Functions of the switch after enumeration.
const UP_FN: Bdf = Bdf(0x0100);
const DN_FN: [Bdf; 2] = [Bdf(0x0200), Bdf(0x0208)];
/// What is below each downstream port.
const BELOW: [Bdf; 2] = [Bdf(0x0300), Bdf(0x0400)];

/// Windows of the downstream ports, 1 MiB each; the upstream port's windows go one further.
const MEM: [u64; 3] = [0x4000_0000, 0x4010_0000, 0x4020_0000];
const PREFETCH: [u64; 3] = [0x10_0000_0000, 0x10_0010_0000, 0x10_0020_0000];
/// Main memory.
const ABOVE: u64 = 0x8000_0000;

/// ACS control bits (PCIe 6.0 §7.7.11.3).
const SV: u32 = 1 << 0;
const RR: u32 = 1 << 2;
const CR: u32 = 1 << 3;
const UF: u32 = 1 << 4;
const EC: u32 = 1 << 5;

struct Bench {
    model: Model<PcieSwitch>,
    rng: ChaCha8Rng,
    sources: [Source; 3],
    sinks: [Sink; 3],
    received: [VecDeque<Tlp>; 3],
}

impl Bench {
    fn reset(seed: u64) -> Checked<Self> {
        let mut model = Model::<PcieSwitch>::new().map_err(|e| e.to_string())?;
        for _ in 0..4 {
            model.cycle().map_err(|e| e.to_string())?;
        }
        model.input.set_rst_ni(true);
        Ok(Self {
            model,
            rng: ChaCha8Rng::seed_from_u64(seed),
            sources: Default::default(),
            sinks: Default::default(),
            received: Default::default(),
        })
    }

    /// Bus numbers, windows, Memory Space and Bus Master Enable as software would set them.
    fn enumerated(seed: u64) -> Checked<Self> {
        let mut b = Self::reset(seed)?;
        b.set(UP_FN, 0x18, 0x04_02_01)?;
        b.set(DN_FN[0], 0x18, 0x03_03_02)?;
        b.set(DN_FN[1], 0x18, 0x04_04_02)?;
        // Limit and base in units of 1 MiB, bits 31:20 and 15:4.
        let window = |first: u64, last: u64| {
            ((last >> 20 & 0xfff) as u32) << 20 | ((first >> 20 & 0xfff) as u32) << 4
        };
        for (function, first, last) in [(UP_FN, 0, 2), (DN_FN[0], 0, 0), (DN_FN[1], 1, 1)] {
            b.set(function, 0x20, window(MEM[first], MEM[last]))?;
            b.set(function, 0x24, window(PREFETCH[first], PREFETCH[last]))?;
            b.set(function, 0x28, (PREFETCH[first] >> 32) as u32)?;
            b.set(function, 0x2c, (PREFETCH[last] >> 32) as u32)?;
            b.set(function, 0x04, 6)?;
        }
        Ok(b)
    }

    fn step(&mut self) -> Checked {
        let (mut valid, mut ready) = (0, 0);
        for p in 0..3 {
            if let Some(beat) = self.sources[p].offer(&mut self.rng) {
                match p {
                    UP => beat.put(self.model.input.up_rx_beat_i(), 0),
                    _ => beat.put(self.model.input.dn_rx_beat_i(), p - 1),
                }
                valid |= 1 << p;
            }
            ready |= self.sinks[p].ready(&mut self.rng) << (3 * p);
        }
        let input = &mut self.model.input;
        input.set_up_rx_valid_i(valid & 1 != 0);
        input.set_dn_rx_valid_i(valid >> 1);
        input.set_up_tx_ready_i(ready & 7);
        input.set_dn_tx_ready_i(ready >> 3);
        self.model.cycle().map_err(|e| e.to_string())?;
        let out = &self.model.output;
        let ready = out.up_rx_ready_o() | out.dn_rx_ready_o() << 3;
        let valid = u32::from(out.up_tx_valid_o()) | out.dn_tx_valid_o() << 1;
        for p in 0..3 {
            self.sources[p].taken(ready >> (3 * p) & 7)?;
            let beat = (valid >> p & 1 != 0).then(|| match p {
                UP => Beat::get(out.up_tx_beat_o(), 0),
                _ => Beat::get(out.dn_tx_beat_o(), p - 1),
            });
            let tlp = self.sinks[p]
                .accept(beat)
                .map_err(|e| format!("cycle {}, port {p}: {e}", self.model.cycles()))?;
            self.received[p].extend(tlp);
        }
        Ok(())
    }

    fn run(&mut self, cycles: u32) -> Checked {
        (0..cycles).try_for_each(|_| self.step())
    }

    /// Nothing in the sources or in the switch.
    fn drain(&mut self) -> Checked {
        for _ in 0..20_000 {
            self.step()?;
            if self.sources.iter().all(Source::is_empty) && !self.model.output.busy_o() {
                return self.run(4);
            }
        }
        Err("the switch does not drain".into())
    }

    /// Sends one TLP and yields all that comes out, with the port.
    fn send(&mut self, port: usize, tlp: Tlp) -> Checked<Vec<(usize, Tlp)>> {
        self.sources[port].send(tlp);
        self.drain()?;
        Ok((0..3)
            .flat_map(|p| {
                self.received[p]
                    .drain(..)
                    .map(move |t| (p, t))
                    .collect::<Vec<_>>()
            })
            .collect())
    }

    /// The completion of a configuration request from above.
    fn config(&mut self, to: Bdf, register: u16, be: u8, value: Option<u32>) -> Checked<Tlp> {
        let mut out = self.send(
            UP,
            Tlp::config(to != UP_FN, to, register, be, value).with_tag(5),
        )?;
        match out.pop() {
            Some((UP, cpl)) if out.is_empty() && cpl.head.is_cpl() && cpl.head.tag() == 5 => {
                Ok(cpl)
            }
            other => Err(format!(
                "access to {to} {register:#x}: {other:x?}, {out:x?}"
            )),
        }
    }

    fn get(&mut self, to: Bdf, register: u16) -> Checked<u32> {
        let cpl = self.config(to, register, 0xf, None)?;
        ensure!(
            cpl.head.status() == CplStatus::Success,
            "{to} {register:#x}: {:x?}",
            cpl.head
        );
        ensure!(
            cpl.head.completer() == to,
            "completer {}",
            cpl.head.completer()
        );
        Ok(cpl.dw(0))
    }

    fn set(&mut self, to: Bdf, register: u16, value: u32) -> Checked {
        let cpl = self.config(to, register, 0xf, Some(value))?;
        ensure!(
            cpl.head.status() == CplStatus::Success,
            "{to} {register:#x}: {:x?}",
            cpl.head
        );
        ensure!(cpl.data.is_empty(), "data with the completion of a write");
        Ok(())
    }

    /// ACS control and egress control vector of downstream port `n`.
    fn acs(&mut self, n: usize, control: u32, vector: u32) -> Checked {
        self.set(DN_FN[n], 0x104, control << 16)?;
        self.set(DN_FN[n], 0x108, vector)
    }

    /// `tlp` comes out of `port` as `due`, and nothing else does.
    fn goes(&mut self, from: usize, tlp: &Tlp, port: usize, due: &Tlp) -> Checked {
        let out = self.send(from, tlp.clone())?;
        ensure!(
            out == [(port, due.clone())],
            "{tlp:x?} from {from}: {out:x?}, not {port} {due:x?}"
        );
        Ok(())
    }

    /// `tlp` passes unchanged to `port`.
    fn passes(&mut self, from: usize, tlp: &Tlp, port: usize) -> Checked {
        self.goes(from, tlp, port, tlp)
    }

    /// `tlp` ends in the switch, which completes it with UR if it is non-posted.
    fn refused(&mut self, from: usize, tlp: &Tlp) -> Checked {
        if tlp.class() != NON_POSTED {
            let out = self.send(from, tlp.clone())?;
            ensure!(
                out.is_empty(),
                "{tlp:x?} from {from}: {out:x?}, not dropped"
            );
            return Ok(());
        }
        self.goes(from, tlp, from, &refusal(from, &tlp.head))
    }
}

/// The completion with UR of a request that came from `port`.
fn refusal(port: usize, request: &Head) -> Tlp {
    let completer = if port == UP { UP_FN } else { DN_FN[port - 1] };
    let (addr, left) = if request.is_mem() {
        let (first, span) = request.byte_span();
        (request.addr().0 + first, span.max(1))
    } else {
        (0, 4)
    };
    Tlp::completion(
        request,
        completer,
        CplStatus::UnsupportedRequest,
        left,
        addr,
        Vec::new(),
    )
}

fn read(addr: u64, requester: Bdf) -> Tlp {
    Tlp::read(&plain(false, addr, (1, 0xf, 0))).with_requester(requester)
}

fn write(addr: u64, requester: Bdf, dws: u16) -> Tlp {
    let data = (0..4 * dws).map(|i| (i * 7) as u8).collect();
    let last = if dws == 1 { 0 } else { 0xf };
    Tlp::write(&plain(true, addr, (dws, 0xf, last)), data).with_requester(requester)
}

fn completion(completer: Bdf, requester: Bdf, relaxed: bool) -> Tlp {
    let mut request = read(0x100, requester);
    request.head.hdr[0] |= u32::from(relaxed) << 13;
    Tlp::completion(
        &request.head,
        completer,
        CplStatus::Success,
        4,
        0,
        vec![1, 2, 3, 4],
    )
}

#[test]
fn enumeration() -> Checked {
    let mut b = Bench::reset(1)?;
    for (register, due) in [
        (0, 0x000d_1b36),
        (8, 0x0604_0000),
        (0x40, 0x0052_0010),
        (0x100, 0),
    ] {
        let value = b.get(UP_FN, register)?;
        ensure!(
            value == due,
            "upstream port {register:#x}: {value:#x}, not {due:#x}"
        );
    }
    // Nothing is below before the bus numbers are written.
    let cpl = b.config(DN_FN[0], 0, 0xf, None)?;
    ensure!(
        cpl.head.status() == CplStatus::UnsupportedRequest,
        "{:x?}",
        cpl.head
    );
    b.set(UP_FN, 0x18, 0x04_02_01)?;
    for (register, due) in [
        (0, 0x000d_1b36),
        (0x40, 0x0062_0010),
        (0x100, 0x0001_000d),
        (0x104, 0x0000_023d),
    ] {
        for function in DN_FN {
            let value = b.get(function, register)?;
            ensure!(
                value == due,
                "{function} {register:#x}: {value:#x}, not {due:#x}"
            );
        }
    }
    let cpl = b.config(Bdf(0x0210), 0, 0xf, None)?;
    ensure!(
        cpl.head.status() == CplStatus::UnsupportedRequest,
        "device 2: {:x?}",
        cpl.head
    );
    ensure!(
        cpl.head.completer() == UP_FN,
        "completer {}",
        cpl.head.completer()
    );
    // A write of single bytes, and the read-only bits of a window.
    b.set(DN_FN[1], 0x24, 0x0010_0010)?;
    ensure!(
        b.get(DN_FN[1], 0x24)? == 0x0011_0011,
        "prefetchable window is 64-bit"
    );
    b.config(DN_FN[1], 0x24, 0b0100, Some(0xffff_ffff))?;
    ensure!(b.get(DN_FN[1], 0x24)? == 0x00f1_0011, "byte enables");
    // A port's own bit of its egress control vector is not there.
    b.set(DN_FN[1], 0x108, 0xffff_ffff)?;
    ensure!(b.get(DN_FN[1], 0x108)? == 1, "egress control vector");
    Ok(())
}

#[test]
fn configuration_requests_below() -> Checked {
    let mut b = Bench::enumerated(2)?;
    for value in [None, Some(0x1234_5678)] {
        // Type 1 becomes Type 0 on the last bus (PCIe 6.0 §7.3.3).
        for n in 0..2 {
            let above = Tlp::config(true, BELOW[n], 0x10, 0xf, value);
            let below = Tlp::config(false, BELOW[n], 0x10, 0xf, value);
            b.goes(UP, &above, DN[n], &below)?;
        }
        // A link has one device; there is no bus 7.
        b.refused(
            UP,
            &Tlp::config(true, Bdf(BELOW[0].0 | 8), 0x10, 0xf, value),
        )?;
        b.refused(UP, &Tlp::config(true, Bdf(0x0700), 0x10, 0xf, value))?;
        b.refused(UP, &Tlp::config(false, Bdf(UP_FN.0 | 1), 0x10, 0xf, value))?;
    }
    // Further down it stays Type 1, inside the upstream port's buses only.
    let further = Tlp::config(true, Bdf(0x0508), 0x10, 0xf, None);
    b.set(DN_FN[1], 0x18, 0x05_04_02)?;
    b.refused(UP, &further)?;
    b.set(UP_FN, 0x18, 0x05_02_01)?;
    b.passes(UP, &further, DN[1])?;
    // Configuration requests go down only.
    b.refused(
        DN[0],
        &Tlp::config(false, UP_FN, 0, 0xf, None).with_requester(BELOW[0]),
    )
}

#[test]
fn memory_requests() -> Checked {
    let mut b = Bench::enumerated(3)?;
    for n in 0..2 {
        let (peer, own) = (1 - n, BELOW[n]);
        for base in [MEM, PREFETCH] {
            for offset in [0, 0xf_fff0] {
                b.passes(UP, &read(base[n] + offset, Bdf(0)), DN[n])?;
                b.passes(UP, &write(base[n] + offset, Bdf(0), 4), DN[n])?;
                b.passes(DN[n], &read(base[peer] + offset, own), DN[peer])?;
                b.passes(DN[n], &write(base[peer] + offset, own, 3), DN[peer])?;
            }
            // In the upstream port's window and in no other: nobody's; in the own one as well.
            for addr in [base[2], base[n]] {
                b.refused(DN[n], &read(addr, own))?;
                b.refused(DN[n], &write(addr, own, 2))?;
            }
            b.refused(UP, &read(base[2], Bdf(0)))?;
            b.refused(UP, &write(base[2], Bdf(0), 2))?;
        }
        b.passes(DN[n], &read(ABOVE, own), UP)?;
        b.passes(DN[n], &write(ABOVE, own, 128), UP)?;
    }
    b.refused(UP, &read(ABOVE, Bdf(0)))?;
    b.refused(UP, &write(ABOVE, Bdf(0), 1))?;

    // Command: Memory Space Enable towards below, Bus Master Enable towards above.
    b.set(DN_FN[0], 0x04, 4)?;
    b.refused(UP, &read(MEM[0], Bdf(0)))?;
    b.passes(UP, &read(MEM[1], Bdf(0)), DN[1])?;
    b.set(DN_FN[0], 0x04, 2)?;
    b.passes(UP, &read(MEM[0], Bdf(0)), DN[0])?;
    b.refused(DN[0], &read(ABOVE, BELOW[0]))?;
    b.refused(DN[0], &write(ABOVE, BELOW[0], 1))?;
    b.set(DN_FN[0], 0x04, 6)?;
    b.set(UP_FN, 0x04, 2)?;
    b.refused(DN[0], &read(ABOVE, BELOW[0]))?;
    b.passes(DN[0], &read(MEM[1], BELOW[0]), DN[1])?;
    b.set(UP_FN, 0x04, 4)?;
    b.refused(UP, &read(MEM[0], Bdf(0)))
}

#[test]
fn completions_and_messages() -> Checked {
    let mut b = Bench::enumerated(4)?;
    for n in 0..2 {
        b.passes(UP, &completion(Bdf(0), BELOW[n], false), DN[n])?;
        b.passes(DN[n], &completion(BELOW[n], Bdf(0), false), UP)?;
        b.passes(DN[n], &completion(BELOW[n], BELOW[1 - n], false), DN[1 - n])?;
        b.refused(DN[n], &completion(BELOW[n], BELOW[n], false))?;
        // Routed to the root, and by ID (PCIe 6.0 Table 2-20).
        b.passes(DN[n], &Tlp::message(0, BELOW[n], 0x20, Bdf(0)), UP)?;
        b.passes(UP, &Tlp::message(2, Bdf(0), 0x7f, BELOW[n]), DN[n])?;
        b.refused(DN[n], &Tlp::message(3, BELOW[n], 0x19, Bdf(0)))?;
    }
    b.refused(UP, &completion(Bdf(0), Bdf(0x0700), false))?;
    b.refused(UP, &Tlp::message(4, Bdf(0), 0x14, Bdf(0)))?;
    let broadcast = Tlp::message(3, Bdf(0), 0x19, Bdf(0));
    let out = b.send(UP, broadcast.clone())?;
    ensure!(
        out == [(DN[0], broadcast.clone()), (DN[1], broadcast)],
        "broadcast: {out:x?}"
    );
    Ok(())
}

#[test]
fn access_control_services() -> Checked {
    let mut b = Bench::enumerated(5)?;
    let own = BELOW[0];
    let from = DN[0];
    let (to_peer, posted_to_peer) = (read(MEM[1], own), write(PREFETCH[1], own, 2));

    // Source Validation: bus numbers from elsewhere (§6.12.1.1).
    b.acs(0, SV, 0)?;
    for wrong in [BELOW[1], Bdf(0), DN_FN[0]] {
        b.refused(from, &read(ABOVE, wrong))?;
        b.refused(from, &write(ABOVE, wrong, 2))?;
        b.refused(from, &write(MEM[1], wrong, 2))?;
    }
    b.passes(from, &read(ABOVE, own), UP)?;
    b.passes(from, &write(ABOVE, own, 2), UP)?;
    b.acs(0, 0, 0)?;
    b.passes(from, &write(ABOVE, BELOW[1], 2), UP)?;

    // Request Redirect, at the port that has it only.
    b.acs(0, RR, 0)?;
    b.passes(from, &to_peer, UP)?;
    b.passes(from, &posted_to_peer, UP)?;
    b.passes(DN[1], &read(MEM[0], BELOW[1]), DN[0])?;
    b.passes(from, &completion(own, BELOW[1], false), DN[1])?;

    // Egress Control alone blocks; with Request Redirect it says what is redirected (§6.12.3).
    for (control, vector, port) in [
        (EC, 0, Some(DN[1])),
        (EC, 2, None),
        (EC | RR, 0, Some(DN[1])),
        (EC | RR, 2, Some(UP)),
    ] {
        b.acs(0, control, vector)?;
        for tlp in [&to_peer, &posted_to_peer] {
            match port {
                Some(port) => b.passes(from, tlp, port)?,
                None => b.refused(from, tlp)?,
            }
        }
    }

    // Completion Redirect spares Relaxed Ordering (§6.12.1.1).
    b.acs(0, CR, 0)?;
    b.passes(from, &completion(own, BELOW[1], false), UP)?;
    b.passes(from, &completion(own, BELOW[1], true), DN[1])?;
    b.passes(from, &to_peer, DN[1])?;

    // Upstream Forwarding: what is for the own side of the link goes up all the same.
    b.acs(0, UF, 0)?;
    b.passes(from, &read(MEM[0], own), UP)
}

#[test]
fn order_of_classes() -> Checked {
    let mut b = Bench::enumerated(6)?;
    // A posted request passes reads that are not taken (PCIe 6.0 §2.4.1, Table 2-41).
    b.sinks[UP].readiness[NON_POSTED] = 0;
    for tag in 0..40 {
        b.sources[DN[0]].send(read(ABOVE, BELOW[0]).with_tag(tag));
    }
    b.run(200)?;
    ensure!(b.received[UP].is_empty(), "a read through a closed door");
    ensure!(
        b.sources[DN[0]].waiting(NON_POSTED) > 0,
        "the buffer took everything"
    );
    b.sources[DN[0]].send(write(ABOVE, BELOW[0], 64));
    b.sources[DN[0]].send(completion(BELOW[0], Bdf(0), false));
    b.run(200)?;
    let classes: Vec<_> = b.received[UP].iter().map(Tlp::class).collect();
    ensure!(
        classes == [POSTED, COMPLETION],
        "{classes:?} passed blocked reads"
    );
    b.sinks[UP].readiness[NON_POSTED] = 100;
    b.drain()?;
    let tags: Vec<_> = b.received[UP]
        .drain(..)
        .skip(2)
        .map(|t| t.head.tag())
        .collect();
    ensure!(
        tags == (0..40).collect::<Vec<_>>(),
        "order of reads: {tags:?}"
    );

    // Neither a read nor a completion passes a posted request.
    b.sinks[UP].readiness[POSTED] = 0;
    b.sources[DN[0]].send(write(ABOVE, BELOW[0], 64));
    b.sources[DN[0]].send(read(ABOVE, BELOW[0]));
    b.sources[DN[0]].send(completion(BELOW[0], Bdf(0), false));
    b.run(200)?;
    ensure!(
        b.received[UP].is_empty(),
        "{:x?} passed a write",
        b.received[UP]
    );
    ensure!(
        b.sources[DN[0]].is_empty(),
        "the switch did not take the read"
    );
    // From the other port there is no order.
    b.sources[DN[1]].send(read(ABOVE, BELOW[1]));
    b.run(200)?;
    ensure!(
        b.received[UP].len() == 1,
        "the other port's read is held up"
    );
    b.sinks[UP].readiness[POSTED] = 100;
    b.drain()?;
    ensure!(b.received[UP].len() == 4, "{} TLPs", b.received[UP].len());
    ensure!(
        b.received[UP][1].class() == POSTED,
        "the write is not first"
    );
    Ok(())
}

/// TLPs in the order they are due, each with the number of posted TLPs that went before it between
/// the same ports.
type Due = VecDeque<(u64, Tlp)>;

/// Where TLPs go in the switch as [`Bench::enumerated`] sets it up, and what is on the way.
struct Fabric {
    /// ACS control and egress control vector of the downstream ports.
    acs: [(u32, u32); 2],
    /// At each port from each port in each class.
    due: [[[Due; 3]; 3]; 3],
    sent_posted: [[u64; 3]; 3],
    seen_posted: [[u64; 3]; 3],
}

impl Fabric {
    fn new(acs: [(u32, u32); 2]) -> Self {
        Self {
            acs,
            due: Default::default(),
            sent_posted: Default::default(),
            seen_posted: Default::default(),
        }
    }

    /// The port whose windows or bus hold the target.
    fn target(head: &Head) -> Option<usize> {
        if head.is_mem() {
            let block = head.addr().0 & !0xf_ffff;
            (0..2)
                .find(|&n| block == MEM[n] || block == PREFETCH[n])
                .map(|n| DN[n])
        } else {
            let bus = if head.is_cpl() {
                head.requester()
            } else {
                head.target()
            }
            .bus();
            (0..2).find(|&n| bus == BELOW[n].bus()).map(|n| DN[n])
        }
    }

    /// The port that a TLP leaves by, `None` if the switch keeps it.
    fn route(&self, from: usize, head: &Head) -> Option<usize> {
        let target = Self::target(head);
        if from == UP {
            return target;
        }
        let (acs, vector) = self.acs[from - 1];
        if !head.is_cpl() && acs & SV != 0 && head.requester().bus() != BELOW[from - 1].bus() {
            return None;
        }
        match target {
            None if head.is_mem() && head.addr().0 & !0xf_ffff == MEM[2] => None,
            None => Some(UP),
            Some(to) if to == from => (acs & UF != 0).then_some(UP),
            Some(to) if head.is_cpl() => Some(if acs & CR != 0 && !head.relaxed() {
                UP
            } else {
                to
            }),
            Some(to) => {
                let marked = vector >> (to - 1) & 1 != 0;
                match (acs & RR != 0, acs & EC != 0) {
                    (false, false) => Some(to),
                    (true, false) => Some(UP),
                    (false, true) => (!marked).then_some(to),
                    (true, true) => Some(if marked { UP } else { to }),
                }
            }
        }
    }

    /// Notes a TLP that is being sent.
    fn send(&mut self, from: usize, tlp: &Tlp) {
        match self.route(from, &tlp.head) {
            Some(to) => {
                let mut due = tlp.clone();
                if due.head.is_cfg() {
                    due.head.hdr[0] &= !(1 << 24);
                }
                let class = tlp.class();
                self.due[to][from][class].push_back((self.sent_posted[to][from], due));
                self.sent_posted[to][from] += u64::from(class == POSTED);
            }
            None if tlp.class() == NON_POSTED => {
                // Its order among the completions from elsewhere is free: a queue of its own.
                self.due[from][from][COMPLETION].push_back((0, refusal(from, &tlp.head)));
            }
            None => {}
        }
    }

    /// A TLP that came out of `port`. Each is marked with where it is from.
    fn receive(&mut self, port: usize, tlp: &Tlp) -> Checked {
        let class = tlp.class();
        let matches = |q: &Due| q.front().is_some_and(|(_, due)| due == tlp);
        let from = (0..3)
            .find(|&s| matches(&self.due[port][s][class]))
            .ok_or_else(|| format!("port {port}: {tlp:x?} is not next from anywhere"))?;
        let Some((before, _)) = self.due[port][from][class].pop_front() else {
            return Ok(());
        };
        ensure!(
            self.seen_posted[port][from] >= before,
            "port {port}: {:x?} passed a posted TLP from {from}",
            tlp.head
        );
        self.seen_posted[port][from] += u64::from(class == POSTED);
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.due.iter().flatten().flatten().all(VecDeque::is_empty)
    }
}

/// A TLP that may come from `port`; `serial` makes it unlike all others.
fn random_tlp(rng: &mut ChaCha8Rng, port: usize, serial: u64) -> Tlp {
    let own = if port == UP { Bdf(0) } else { BELOW[port - 1] };
    let requester = if percent(rng, 10) {
        Bdf(rng.random_range(0..0x500))
    } else {
        own
    };
    let tag = serial as u16 & 0x3ff;
    let block = match rng.random_range(0..6) {
        0 | 1 => ABOVE,
        2 => MEM[0],
        3 => MEM[1],
        4 => PREFETCH[rng.random_range(0..2)],
        _ => MEM[2],
    };
    let dws = rng.random_range(1..=128);
    let last = if dws == 1 { 0 } else { 0xf };
    let addr = block + rng.random_range(0..0xff0) * 256;
    let shape = plain(false, addr, (dws, 0xf, last));
    let mut tlp = match rng.random_range(0..8) {
        0..3 => Tlp::write(&shape, bytes(rng, 4 * usize::from(dws))).with_requester(requester),
        3..6 => Tlp::read(&shape).with_requester(requester),
        6 if port == UP => {
            let value = rng.random::<bool>().then(|| rng.random());
            Tlp::config(true, BELOW[rng.random_range(0..2)], 0x10, 0xf, value)
        }
        _ => {
            let to = [Bdf(0), BELOW[0], BELOW[1]][rng.random_range(0..3)];
            let request = read(addr, to).with_tag(tag).head;
            let data = bytes(rng, 4 * usize::from(dws));
            let left = data.len() as u64;
            return with_attr(
                rng,
                Tlp::completion(&request, own, CplStatus::Success, left, addr, data),
            );
        }
    };
    tlp = tlp.with_tag(tag);
    with_attr(rng, tlp)
}

/// Random Relaxed Ordering and No Snoop; configuration requests have none.
fn with_attr(rng: &mut ChaCha8Rng, mut tlp: Tlp) -> Tlp {
    if !tlp.head.is_cfg() {
        tlp.head.hdr[0] |= rng.random_range(0..4) << 12;
    }
    tlp
}

/// Random traffic among all ports, with the ACS controls in the switch and in the model.
fn traffic(b: &mut Bench, set: [(u32, u32); 2], model: [(u32, u32); 2]) -> Checked {
    for (n, (control, vector)) in set.into_iter().enumerate() {
        b.acs(n, control, vector)?;
    }
    let mut fabric = Fabric::new(model);
    for p in 0..3 {
        b.sources[p].bubbles = b.rng.random_range(0..60);
        for class in 0..3 {
            b.sinks[p].readiness[class] = b.rng.random_range(20..=100);
        }
    }
    let mut serial = 0;
    for _ in 0..4000 {
        for p in 0..3 {
            // Short queues: what is sent and what is due stay near each other.
            let waiting: usize = (0..3).map(|c| b.sources[p].waiting(c)).sum();
            if waiting < 6 && percent(&mut b.rng, 15) {
                let tlp = random_tlp(&mut b.rng, p, serial);
                serial += 1;
                fabric.send(p, &tlp);
                b.sources[p].send(tlp);
            }
        }
        b.step()?;
        for p in 0..3 {
            while let Some(tlp) = b.received[p].pop_front() {
                fabric.receive(p, &tlp)?;
            }
        }
    }
    for p in 0..3 {
        b.sources[p].bubbles = 0;
        b.sinks[p].readiness = [100; 3];
    }
    b.drain()?;
    for p in 0..3 {
        while let Some(tlp) = b.received[p].pop_front() {
            fabric.receive(p, &tlp)?;
        }
    }
    ensure!(fabric.is_empty(), "TLPs were lost");
    ensure!(serial > 500, "only {serial} TLPs: too few to tell");
    Ok(())
}

#[test]
fn random_traffic() -> Checked {
    let mut b = Bench::enumerated(7)?;
    traffic(&mut b, [(0, 0); 2], [(0, 0); 2])?;
    for _ in 0..8 {
        let mut acs = || {
            let control = b.rng.random_range(0..64) & (SV | RR | CR | UF | EC);
            (control, b.rng.random_range(0..4))
        };
        let mut both = [acs(), acs()];
        // A port's own bit does not exist.
        both[0].1 &= !1;
        both[1].1 &= !2;
        traffic(&mut b, both, both)?;
    }
    Ok(())
}

/// The checkers above fail when there is reason to.
mod negative {
    use super::*;

    #[test]
    fn a_route_that_is_not_the_models() -> Checked {
        for (set, model) in [(0, RR), (RR, 0), (CR, 0), (SV, 0), (0, UF)] {
            let mut b = Bench::enumerated(20)?;
            let r = traffic(&mut b, [(set, 0), (0, 0)], [(model, 0), (0, 0)]);
            ensure!(
                r.is_err(),
                "ACS {set:#x} in the switch, {model:#x} in the model: no complaint"
            );
        }
        Ok(())
    }

    #[test]
    fn a_changed_payload_a_lost_tlp_and_a_wrong_order() {
        let (w, r) = (write(ABOVE, BELOW[0], 8), read(ABOVE, BELOW[0]));
        let fabric = || {
            let mut f = Fabric::new([(0, 0); 2]);
            f.send(DN[0], &w);
            f.send(DN[0], &r);
            f
        };
        let mut changed = w.clone();
        changed.data[31] ^= 1;
        assert!(fabric().receive(UP, &changed).is_err(), "payload");
        assert!(
            fabric().receive(UP, &r).is_err(),
            "a read that passed a write"
        );
        assert!(fabric().receive(DN[1], &w).is_err(), "another port");
        let mut f = fabric();
        assert_eq!(
            (f.receive(UP, &w), f.is_empty()),
            (Ok(()), false),
            "a lost read"
        );
        assert_eq!(
            (f.receive(UP, &r), f.is_empty()),
            (Ok(()), true),
            "all there"
        );
    }

    #[test]
    fn a_tlp_that_goes_elsewhere() -> Checked {
        let mut b = Bench::enumerated(21)?;
        let tlp = read(MEM[0], Bdf(0));
        ensure!(b.passes(UP, &tlp, DN[1]).is_err(), "port");
        ensure!(b.refused(UP, &tlp).is_err(), "refusal");
        ensure!(
            b.goes(UP, &tlp, DN[0], &tlp.clone().with_tag(9)).is_err(),
            "content"
        );
        b.passes(UP, &tlp, DN[0])
    }
}
