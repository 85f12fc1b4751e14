//! A comparison as text.

use std::fmt;

use super::{Comparison, Seen};

const fn yes_no(b: bool) -> &'static str {
    if b { "yes" } else { "no" }
}

fn flag(b: Option<bool>) -> &'static str {
    b.map_or("-", yes_no)
}

fn row(
    f: &mut fmt::Formatter<'_>,
    [tap, kind, address, memory_type]: [&str; 4],
    [snoop, order, status]: [&str; 3],
    [a, b]: [&str; 2],
    widths: [usize; 2],
) -> fmt::Result {
    let [wa, wb] = widths;
    let line = format!(
        "    {tap:<13}  {kind:<4}  {address:<18}  {memory_type:<13}  {snoop:<5}  {order:<6}  \
         {status:<6}  {a:>wa$}  {b:>wb$}"
    );
    writeln!(f, "{}", line.trim_end())
}

fn words(s: &Seen) -> ([&str; 4], [&str; 3]) {
    (
        [
            s.tap,
            s.kind,
            s.address.unwrap_or("-"),
            s.memory_type.unwrap_or("-"),
        ],
        [flag(s.snoop), flag(s.strong_order), s.status.unwrap_or("-")],
    )
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = &self.profiles;
        writeln!(
            f,
            "seed {}, {} steps, {} of them with TLPs; calls refused: {} under {a}, {} under {b}",
            self.seed, self.steps, self.steps_with_tlps, self.refused[0], self.refused[1]
        )?;
        match self.calls.len() {
            0 => return writeln!(f, "no call looks different on the bus under {a} and {b}"),
            1 => writeln!(f, "1 call looks different on the bus")?,
            n => writeln!(f, "{n} calls look different on the bus")?,
        }
        let widths = [a.len(), b.len()];
        for call in &self.calls {
            writeln!(f, "\n{}: {}", call.step, call.op)?;
            for step in &call.steps {
                if step.step != call.step {
                    writeln!(f, "  {}: {}", step.step, step.op)?;
                }
                row(
                    f,
                    ["tap", "kind", "address", "memory type"],
                    ["snoop", "strong", "status"],
                    [a, b],
                    widths,
                )?;
                for line in &step.lines {
                    let (left, right) = words(&line.seen);
                    let [x, y] = line.count.map(|n| n.to_string());
                    row(f, left, right, [&x, &y], widths)?;
                }
            }
        }
        Ok(())
    }
}
