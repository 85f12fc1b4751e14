//! What must be equal: each answer, and with nothing under way registers, memory, messages and wires.

use tlproof_golden::iommu::{Request, Response};

use super::{Lockstep, Result, reg};
use crate::compare::compare;
use crate::layout::Answer;
use crate::memory::Watched;
use crate::ports::IommuTop;
use crate::suspects::suspects;

impl<T: IommuTop> Lockstep<T> {
    pub(super) fn check(
        &self,
        request: &Request,
        response: &Response,
        answer: &Answer,
    ) -> Result<()> {
        let choices = &self.config.choices;
        let differences = compare(
            request,
            response,
            answer,
            choices.bare_size_log2,
            self.world.shares_tables(),
        );
        if differences.is_empty() {
            return Ok(());
        }
        let fields: Vec<String> = differences
            .iter()
            .map(|d| format!("{}: expected {}, got {}", d.field, d.expected, d.got))
            .collect();
        let watched = Watched::new(&self.iommu.memory);
        self.iommu.translator().lookup(&watched, request);
        let walk: Vec<String> = watched
            .into_loads()
            .into_iter()
            .map(|(at, value)| match value {
                Ok(value) => format!("{at:#x}: {value:#x}"),
                Err(fault) => format!("{at:#x}: {fault}"),
            })
            .collect();
        let translator = self.iommu.translator();
        let suspects = suspects(translator, &self.iommu.memory, request, answer);
        let hint = if suspects.is_empty() {
            String::new()
        } else {
            format!("\nas an IOMMU {} answers", suspects.join(", or "))
        };
        Err(self.mismatch(format!(
            "{}{hint}\n{request:x?}\nexpected {response:x?}\ngot {answer:x?}\nwalk of the tables now: {}",
            fields.join("; "),
            walk.join("; ")
        )))
    }

    /// Nothing is under way: registers, memory, messages and wires must agree.
    pub(super) fn checkpoint(&mut self, after: &str) -> Result<()> {
        let settled = self.bench.settle();
        self.dut(settled)?;
        self.compare_messages(after)?;
        self.compare_registers(after)?;
        self.compare_memory(after)
    }

    pub(super) fn compare_messages(&mut self, after: &str) -> Result<()> {
        let expected = self.iommu.take_messages();
        let got = self.bench.take_messages();
        if expected != got {
            return Err(self.mismatch(format!(
                "messages after {after}: expected {expected:x?}, got {got:x?}"
            )));
        }
        // Rises of a cause that come together may become one message.
        let mut expected = std::mem::take(&mut self.iommu.memory.messages);
        let mut got = std::mem::take(&mut self.bench.memory.messages);
        let (wanted, sent) = (expected.len(), got.len());
        for list in [&mut expected, &mut got] {
            list.sort_unstable();
            list.dedup();
        }
        if expected != got || sent > wanted {
            return Err(self.mismatch(format!(
                "MSIs after {after}: expected {expected:x?}, got {got:x?} ({sent} for {wanted})"
            )));
        }
        let (expected, got) = (self.iommu.wires(), self.bench.wires());
        if expected != got {
            return Err(self.mismatch(format!(
                "wires after {after}: expected {expected:#x}, got {got:#x}"
            )));
        }
        Ok(())
    }

    pub(super) fn compare_registers(&mut self, after: &str) -> Result<()> {
        let registers = (reg::FCTL..reg::IOHPMCYCLES)
            .step_by(4)
            .chain([reg::QOSID, reg::ICVEC]);
        for offset in registers {
            self.compare_register(after, offset)?;
        }
        if self.iommu.capabilities().hpm {
            for counter in 0..u32::from(self.config.choices.event_counters) {
                let selector = self.iommu.read(reg::IOHPMEVT + 8 * counter, 8);
                // How often an IOMMU misses and walks is its own affair.
                if matches!(selector & 0x7fff, 0..=3) {
                    for half in [0, 4] {
                        self.compare_register(after, reg::IOHPMCTR + 8 * counter + half)?;
                        self.compare_register(after, reg::IOHPMEVT + 8 * counter + half)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Every register but the cycle counter.
    pub(super) fn compare_all(&mut self, after: &str) -> Result<()> {
        for offset in (0..4096).step_by(4) {
            if offset & !7 != reg::IOHPMCYCLES {
                self.compare_register(after, offset)?;
            }
        }
        Ok(())
    }

    pub(super) fn compare_register(&mut self, after: &str, offset: u32) -> Result<()> {
        let got = self.bench.read(offset, 4);
        let got = self.dut(got)?;
        let expected = self.iommu.read(offset, 4);
        if got == expected {
            return Ok(());
        }
        Err(self.mismatch(format!(
            "register {offset} ({}) after {after}: expected {expected:#x}, got {got:#x}",
            reg::name(offset)
        )))
    }

    pub(super) fn compare_memory(&mut self, after: &str) -> Result<()> {
        if self.bench.memory.ram == self.iommu.memory.ram {
            return Ok(());
        }
        let differences: Vec<String> = self
            .iommu
            .memory
            .ram
            .differences(&self.bench.memory.ram)
            .map(|(at, expected, got)| format!("{at:#x}: {expected:#x}, got {got:#x}"))
            .collect();
        let text = differences.join("; ");
        Err(self.mismatch(format!("memory after {after}: expected {text}")))
    }
}
