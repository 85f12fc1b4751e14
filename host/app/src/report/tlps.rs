//! `tlps.csv`: one row a TLP and tap.
//!
//! Millions of rows, so the text is put together by hand; it is plain CSV (RFC 4180 with `\n`).

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use tlproof_pcie::Bdf;

use super::{Error, Stats};

/// The first line of the file.
const HEADER: &str = "tlp,cycle,tap,kind,requester,completer,tag,tc,at,pasid,address,length,\
                      ro,ido,ns,mem_type,snoop,order,status,verdict\n";

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;

/// A TLP at a tap. What does not apply is `None` and stays empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlpRow<'a> {
    /// Number of the TLP, from 0; the same at every tap it passes.
    pub tlp: u64,
    /// Clock cycle of the last beat.
    pub cycle: u64,
    /// Where it was seen.
    pub tap: &'static str,
    /// Kind: `MRd`, `MWr`, `CplD` ….
    pub kind: &'static str,
    /// Requester ID.
    pub requester: Bdf,
    /// Completer ID, of completions.
    pub completer: Option<Bdf>,
    /// Tag.
    pub tag: Option<u16>,
    /// Traffic class.
    pub tc: u8,
    /// Address type: `untranslated`, `request`, `translated`.
    pub at: Option<&'static str>,
    /// PASID.
    pub pasid: Option<u32>,
    /// Address at this tap.
    pub address: Option<u64>,
    /// Bytes of payload, or asked for.
    pub length: u32,
    /// Relaxed Ordering.
    pub ro: bool,
    /// ID-based Ordering.
    pub ido: bool,
    /// No Snoop.
    pub ns: bool,
    /// Memory type after resolution: `write-back`, `non-cacheable`, `device`.
    pub mem_type: Option<&'static str>,
    /// Whether the access looks into the CPU caches.
    pub snoop: Option<bool>,
    /// Whether it is strongly ordered.
    pub strong_order: Option<bool>,
    /// Completion or translation status.
    pub status: Option<&'static str>,
    /// `ok`, or the rules that failed.
    pub verdict: &'a str,
}

/// Writes `tlps.csv` and counts for the plots.
pub struct TlpWriter<W: Write = File> {
    path: PathBuf,
    out: BufWriter<W>,
    row: Vec<u8>,
    rows: u64,
    stats: Stats,
}

/// Appends a decimal number and a comma.
fn number(row: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    row.extend_from_slice(&digits[at..]);
    row.push(b',');
}

/// The digit of the low four bits.
const fn nibble(value: u64) -> u8 {
    b"0123456789abcdef"[(value & 15) as usize]
}

/// Appends a hexadecimal number with `0x` and a comma.
fn hex(row: &mut Vec<u8>, value: u64) {
    row.extend_from_slice(b"0x");
    let digits = (u64::BITS - (value | 1).leading_zeros()).div_ceil(4);
    row.extend((0..digits).rev().map(|i| nibble(value >> (4 * i))));
    row.push(b',');
}

/// Appends `bb:dd.f` and a comma.
fn bdf(row: &mut Vec<u8>, bdf: Bdf) {
    let (bus, device) = (u64::from(bdf.bus()), u64::from(bdf.device()));
    row.extend_from_slice(&[
        nibble(bus >> 4),
        nibble(bus),
        b':',
        nibble(device >> 4),
        nibble(device),
        b'.',
        b'0' + bdf.function(),
        b',',
    ]);
}

/// Appends a text, quoted if it must be, without a comma.
fn text(row: &mut Vec<u8>, text: &str) {
    if text
        .bytes()
        .any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r'))
    {
        row.push(b'"');
        for b in text.bytes() {
            if b == b'"' {
                row.push(b'"');
            }
            row.push(b);
        }
        row.push(b'"');
    } else {
        row.extend_from_slice(text.as_bytes());
    }
}

/// Appends a value if there is one, and a comma in any case.
fn option<T>(row: &mut Vec<u8>, value: Option<T>, append: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => append(row, value),
        None => row.push(b','),
    }
}

/// Appends a word of the program, which needs no quotes, and a comma.
fn word(row: &mut Vec<u8>, word: &str) {
    text(row, word);
    row.push(b',');
}

/// Appends a bit and a comma.
fn bit(row: &mut Vec<u8>, bit: bool) {
    row.extend_from_slice(if bit { b"1," } else { b"0," });
}

impl<W: Write> TlpWriter<W> {
    /// Writes to `out`; `path` names it in errors.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn new(path: &Path, out: W) -> Result<Self, Error> {
        let mut out = BufWriter::with_capacity(BUFFER, out);
        out.write_all(HEADER.as_bytes())
            .map_err(|e| Error::io(path, e))?;
        Ok(Self {
            path: path.into(),
            out,
            row: Vec::with_capacity(256),
            rows: 0,
            stats: Stats::default(),
        })
    }

    /// Writes a row.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn push(&mut self, tlp: &TlpRow<'_>) -> Result<(), Error> {
        let row = &mut self.row;
        row.clear();
        number(row, tlp.tlp);
        number(row, tlp.cycle);
        word(row, tlp.tap);
        word(row, tlp.kind);
        bdf(row, tlp.requester);
        option(row, tlp.completer, bdf);
        option(row, tlp.tag.map(u64::from), number);
        number(row, tlp.tc.into());
        option(row, tlp.at, word);
        option(row, tlp.pasid.map(u64::from), hex);
        option(row, tlp.address, hex);
        number(row, tlp.length.into());
        bit(row, tlp.ro);
        bit(row, tlp.ido);
        bit(row, tlp.ns);
        option(row, tlp.mem_type, word);
        option(row, tlp.snoop, bit);
        option(row, tlp.strong_order, |row, strong| {
            word(row, if strong { "strong" } else { "weak" });
        });
        option(row, tlp.status, word);
        text(row, tlp.verdict);
        row.push(b'\n');
        self.out
            .write_all(row)
            .map_err(|e| Error::io(&self.path, e))?;
        self.rows += 1;
        self.stats.record(tlp.tap, tlp.kind, tlp.cycle);
        Ok(())
    }

    /// Rows so far.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// The counts, to add latencies to.
    pub const fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// Ends the file. Gives back what it was written to, and the counts.
    ///
    /// # Errors
    ///
    /// If the rest cannot be written.
    pub fn finish(self) -> Result<(W, Stats), Error> {
        let Self {
            path, out, stats, ..
        } = self;
        match out.into_inner() {
            Ok(out) => Ok((out, stats)),
            Err(e) => Err(Error::io(&path, e.into_error())),
        }
    }
}
