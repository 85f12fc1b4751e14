//! The switch between three links, enumerated.

use std::collections::VecDeque;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tlproof_pcie::{Bdf, CplStatus, Head};
use tlproof_sim::{Model, ports::pcie_switch::PcieSwitch};

use crate::common::{Beat, Checked, NON_POSTED, Sink, Source, Tlp, plain};

/// Ports: the upstream port, then the downstream ports.
pub const UP: usize = 0;
pub const DN: [usize; 2] = [1, 2];

/// Functions of the switch after enumeration.
pub const UP_FN: Bdf = Bdf(0x0100);
pub const DN_FN: [Bdf; 2] = [Bdf(0x0200), Bdf(0x0208)];
/// What is below each downstream port.
pub const BELOW: [Bdf; 2] = [Bdf(0x0300), Bdf(0x0400)];

/// Windows of the downstream ports, 1 MiB each; the upstream port's windows go one further.
pub const MEM: [u64; 3] = [0x4000_0000, 0x4010_0000, 0x4020_0000];
pub const PREFETCH: [u64; 3] = [0x10_0000_0000, 0x10_0010_0000, 0x10_0020_0000];
/// Main memory.
pub const ABOVE: u64 = 0x8000_0000;

/// ACS control bits (PCIe 6.0 §7.7.11.3).
pub const SV: u32 = 1 << 0;
pub const RR: u32 = 1 << 2;
pub const CR: u32 = 1 << 3;
pub const UF: u32 = 1 << 4;
pub const EC: u32 = 1 << 5;

/// Secondary Status: Signaled Target Abort, in the register at 0x1c.
const TARGET_ABORT: u32 = 1 << 27;

pub struct Bench {
    pub model: Model<PcieSwitch>,
    pub rng: ChaCha8Rng,
    pub sources: [Source; 3],
    pub sinks: [Sink; 3],
    pub received: [VecDeque<Tlp>; 3],
}

impl Bench {
    pub fn reset(seed: u64) -> Checked<Self> {
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
    pub fn enumerated(seed: u64) -> Checked<Self> {
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

    pub fn step(&mut self) -> Checked {
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

    pub fn run(&mut self, cycles: u32) -> Checked {
        (0..cycles).try_for_each(|_| self.step())
    }

    /// Nothing in the sources or in the switch.
    pub fn drain(&mut self) -> Checked {
        for _ in 0..20_000 {
            self.step()?;
            if self.sources.iter().all(Source::is_empty) && !self.model.output.busy_o() {
                return self.run(4);
            }
        }
        Err("the switch does not drain".into())
    }

    /// Sends one TLP and yields all that comes out, with the port.
    pub fn send(&mut self, port: usize, tlp: Tlp) -> Checked<Vec<(usize, Tlp)>> {
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
    pub fn config(&mut self, to: Bdf, register: u16, be: u8, value: Option<u32>) -> Checked<Tlp> {
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

    pub fn get(&mut self, to: Bdf, register: u16) -> Checked<u32> {
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

    pub fn set(&mut self, to: Bdf, register: u16, value: u32) -> Checked {
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
    pub fn acs(&mut self, n: usize, control: u32, vector: u32) -> Checked {
        self.set(DN_FN[n], 0x104, control << 16)?;
        self.set(DN_FN[n], 0x108, vector)
    }

    /// `tlp` comes out of `port` as `due`, and nothing else does.
    pub fn goes(&mut self, from: usize, tlp: &Tlp, port: usize, due: &Tlp) -> Checked {
        let out = self.send(from, tlp.clone())?;
        ensure!(
            out == [(port, due.clone())],
            "{tlp:x?} from {from}: {out:x?}, not {port} {due:x?}"
        );
        Ok(())
    }

    /// `tlp` passes unchanged to `port`.
    pub fn passes(&mut self, from: usize, tlp: &Tlp, port: usize) -> Checked {
        self.goes(from, tlp, port, tlp)
    }

    /// `tlp` ends in the switch, which completes it with UR if it is non-posted.
    pub fn refused(&mut self, from: usize, tlp: &Tlp) -> Checked {
        self.ends(from, tlp, CplStatus::UnsupportedRequest)
    }

    /// `tlp` violates ACS at `from`: CA if it is non-posted, and Signaled Target Abort in Secondary
    /// Status until software clears it (PCIe 6.0 §6.12.4, §7.5.1.3.7).
    pub fn violates(&mut self, from: usize, tlp: &Tlp) -> Checked {
        let function = DN_FN[from - 1];
        let status = self.get(function, 0x1c)?;
        ensure!(status == 0, "Secondary Status before: {status:#x}");
        self.ends(from, tlp, CplStatus::CompleterAbort)?;
        let status = self.get(function, 0x1c)?;
        ensure!(status == TARGET_ABORT, "Secondary Status: {status:#x}");
        self.set(function, 0x1c, !TARGET_ABORT)?;
        let status = self.get(function, 0x1c)?;
        ensure!(status == TARGET_ABORT, "written 0: {status:#x}");
        self.set(function, 0x1c, TARGET_ABORT)
    }

    fn ends(&mut self, from: usize, tlp: &Tlp, status: CplStatus) -> Checked {
        if tlp.class() != NON_POSTED {
            let out = self.send(from, tlp.clone())?;
            ensure!(
                out.is_empty(),
                "{tlp:x?} from {from}: {out:x?}, not dropped"
            );
            return Ok(());
        }
        self.goes(from, tlp, from, &refusal(from, &tlp.head, status))
    }
}

/// The completion with `status` of a request that came from `port`.
pub fn refusal(port: usize, request: &Head, status: CplStatus) -> Tlp {
    let completer = if port == UP { UP_FN } else { DN_FN[port - 1] };
    let (addr, left) = if request.is_mem() {
        let (first, span) = request.byte_span();
        (request.addr().0 + first, span.max(1))
    } else {
        (0, 4)
    };
    Tlp::completion(request, completer, status, left, addr, Vec::new())
}

pub fn read(addr: u64, requester: Bdf) -> Tlp {
    Tlp::read(&plain(false, addr, (1, 0xf, 0))).with_requester(requester)
}

pub fn write(addr: u64, requester: Bdf, dws: u16) -> Tlp {
    let data = (0..4 * dws).map(|i| (i * 7) as u8).collect();
    let last = if dws == 1 { 0 } else { 0xf };
    Tlp::write(&plain(true, addr, (dws, 0xf, last)), data).with_requester(requester)
}

pub fn completion(completer: Bdf, requester: Bdf, relaxed: bool) -> Tlp {
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
