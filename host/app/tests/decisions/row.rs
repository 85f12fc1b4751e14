//! The file of rows.

use serde::Deserialize;
use tlproof_dma::Attrs;
use tlproof_pcie::Direction;

use crate::{bench, nvme};

/// One row: what is set up, what is called, and what must come of it. Empty columns state nothing
/// where this is said, else the usual.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// Table and number, with a letter for a variant.
    pub id: String,
    /// Back end and machine.
    pub machine: String,
    /// Parameters of the device.
    pub device: String,
    /// What is done before, in order.
    pub before: String,
    /// The call, with its parameters.
    pub call: String,
    /// The buffer.
    pub target: String,
    /// Bytes.
    pub size: String,
    /// Direction, `*` for all three.
    pub dir: String,
    /// Attributes.
    pub attrs: String,
    /// How it is undone, empty for the counterpart of the call.
    pub unmap: String,
    /// `ok`, an error, or how a peer is reached.
    pub result: String,
    /// The address that comes back.
    pub address: String,
    /// `IOMMU_*` flags of a mapping for both directions.
    pub prot: String,
    /// Leaf in the page table in memory.
    pub pte: String,
    /// Cache operations at map and unmap.
    pub sync: String,
    /// Pieces that are bounced, empty for none.
    pub bounce: String,
    /// What the TLPs of a transfer look like where they end up; `-` without a transfer.
    pub taps: String,
    /// Warnings, `quiet` calls without an event.
    pub warnings: String,
    /// What stays when the mapping is undone, empty for nothing.
    pub after: String,
    /// Violations that the checker must find, empty for none.
    pub caught: String,
    /// Commands of the IOMMU.
    pub commands: String,
    /// Why the row cannot run.
    pub ignored: String,
}

impl Row {
    pub fn directions(&self) -> Vec<Direction> {
        use Direction::{Bidirectional, FromDevice, ToDevice};
        match self.dir.as_str() {
            // A request of a disk moves data one way.
            "*" if self.call.starts_with("nvme") => vec![ToDevice, FromDevice],
            "*" => vec![Bidirectional, ToDevice, FromDevice],
            "BIDI" => vec![Bidirectional],
            "TO" => vec![ToDevice],
            "FROM" | "" => vec![FromDevice],
            other => panic!("{}: direction {other:?}", self.id),
        }
    }

    /// Sets it up, makes the call, and compares.
    pub fn run(&self, dir: Direction) {
        if self.call.starts_with("nvme") {
            nvme::run(self, dir);
        } else {
            bench::run(self, dir);
        }
    }

    pub fn attrs(&self) -> Attrs {
        parse_attrs(&self.attrs)
    }

    pub fn size(&self) -> u64 {
        number(&self.size)
    }

    /// Whether a word stands in the description of the machine.
    pub fn machine(&self, word: &str) -> bool {
        self.machine.split(' ').any(|w| w == word)
    }

    /// Whether a word stands in the description of the device.
    pub fn device(&self, word: &str) -> bool {
        self.device.split(' ').any(|w| w == word)
    }

    /// The column of that name.
    pub fn column(&mut self, name: &str) -> &mut String {
        match name {
            "unmap" => &mut self.unmap,
            "result" => &mut self.result,
            "address" => &mut self.address,
            "prot" => &mut self.prot,
            "pte" => &mut self.pte,
            "sync" => &mut self.sync,
            "bounce" => &mut self.bounce,
            "taps" => &mut self.taps,
            "warnings" => &mut self.warnings,
            "after" => &mut self.after,
            "caught" => &mut self.caught,
            "commands" => &mut self.commands,
            other => panic!("no column {other}"),
        }
    }
}

/// Statements that are wrong, each of which must be noticed.
pub const WRONG: [(&str, &str, &str); 28] = [
    ("A2.1", "result", "E:Overflow"),
    ("A2.9", "result", "ok"),
    ("A2.9", "result", "E:Overflow"),
    ("A4.3", "result", "-EPERM"),
    ("A2.10", "address", "bounce"),
    ("A2.7", "address", "phys"),
    ("A3.1", "address", "0xffffe000"),
    ("A3.1", "prot", "0x03"),
    ("A3.2", "pte", "PMA"),
    ("A8.1", "pte", "0x200000db"),
    ("A3.2", "sync", "1/0"),
    ("A3.9", "sync", "0/1"),
    ("A3.5", "bounce", ""),
    ("A4.4", "bounce", "0+0xe00"),
    ("A7.2", "taps", "memory write-back"),
    ("A7.4", "taps", "memory device"),
    ("A7.4", "address", "bus"),
    ("A7.10", "prot", "0x07"),
    ("A7.12", "result", "-EREMOTEIO"),
    ("A7.5", "taps", "ep1 device"),
    ("A2.5", "warnings", ""),
    ("A1.6", "warnings", ""),
    ("A5.7", "after", ""),
    ("A7.7", "caught", ""),
    ("A9.4", "commands", "0x3002,0"),
    ("A12.1", "address", "PRP1 PRP2"),
    ("A12.9", "unmap", "1 destroy"),
    ("A12.9", "taps", "ep2 write-back"),
];

/// `0x` hexadecimal, decimal, or with the suffix `K` or `M`.
pub fn number(text: &str) -> u64 {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(n) => (n, 10),
        None => match text.strip_suffix('M') {
            Some(n) => (n, 20),
            None => (text, 0),
        },
    };
    let value = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    value.unwrap_or_else(|_| panic!("{text:?} is no number")) << unit
}

pub fn parse_attrs(text: &str) -> Attrs {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

pub fn read() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/decisions.csv");
    csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .flexible(false)
        .from_path(path)
        .and_then(|mut r| r.deserialize().collect())
        .unwrap_or_else(|e| panic!("{path}: {e}"))
}
