//! How one field of an event reads and prints. Both directions stand together so that they cannot
//! part.

use std::fmt::{self, Formatter};

use tlproof_pcie::{Direction, DmaAddr, PhysAddr};

use super::{
    cursor::{Cursor, Parsed},
    value::{Attrs, Count, Device, P2pMap, Pointer},
};

/// A textual form of `T`.
pub(super) trait Codec<T> {
    /// Reads the value from the front of the text.
    fn parse<'a>(text: &mut Cursor<'a>) -> Parsed<'a, T>;
    /// Prints what `parse` reads.
    fn print(value: &T, f: &mut Formatter<'_>) -> fmt::Result;
    /// Any value, for tests.
    #[cfg(test)]
    fn sample(dice: &mut super::tests::Dice) -> T;
}

/// 64-bit values: plain numbers and the typed addresses.
pub(super) trait Word {
    fn from_u64(value: u64) -> Self;
    fn to_u64(&self) -> u64;
}

impl Word for u64 {
    fn from_u64(value: u64) -> Self {
        value
    }
    fn to_u64(&self) -> u64 {
        *self
    }
}

impl Word for PhysAddr {
    fn from_u64(value: u64) -> Self {
        Self(value)
    }
    fn to_u64(&self) -> u64 {
        self.0
    }
}

impl Word for DmaAddr {
    fn from_u64(value: u64) -> Self {
        Self(value)
    }
    fn to_u64(&self) -> u64 {
        self.0
    }
}

/// Declares a codec: parser, printer and sampler of one type.
macro_rules! codec {
    (
        $(#[$doc:meta])*
        $name:ident $(<$g:ident: $bound:path>)?: $value:ty;
        parse($text:ident) $parse:block
        print($v:ident, $f:ident) $print:block
        sample($dice:ident) $sample:block
    ) => {
        $(#[$doc])*
        pub(super) struct $name;
        codec! { impl $name $(<$g: $bound>)?: $value;
            parse($text) $parse print($v, $f) $print sample($dice) $sample }
    };
    (
        impl $name:ident $(<$g:ident: $bound:path>)?: $value:ty;
        parse($text:ident) $parse:block
        print($v:ident, $f:ident) $print:block
        sample($dice:ident) $sample:block
    ) => {
        impl $(<$g: $bound>)? Codec<$value> for $name {
            fn parse<'a>($text: &mut Cursor<'a>) -> Parsed<'a, $value> $parse
            fn print($v: &$value, $f: &mut Formatter<'_>) -> fmt::Result $print
            #[cfg(test)]
            fn sample($dice: &mut super::tests::Dice) -> $value $sample
        }
    };
}

codec! {
    /// `%llx`.
    Hex<T: Word>: T;
    parse(text) { text.hex().map(T::from_u64) }
    print(v, f) { write!(f, "{:x}", v.to_u64()) }
    sample(dice) { T::from_u64(dice.word()) }
}

codec! {
    /// `0x%lx`.
    Hex0x<T: Word>: T;
    parse(text) { text.hex_0x().map(T::from_u64) }
    print(v, f) { write!(f, "{:#x}", v.to_u64()) }
    sample(dice) { T::from_u64(dice.word()) }
}

codec! {
    /// `0x%016llx`.
    Hex016<T: Word>: T;
    parse(text) { text.hex_0x().map(T::from_u64) }
    print(v, f) { write!(f, "{:#018x}", v.to_u64()) }
    sample(dice) { T::from_u64(dice.word()) }
}

codec! {
    /// A value of a probe: hexadecimal with `0x`, or decimal, as the probe was defined. Prints
    /// hexadecimal.
    ProbeHex<T: Word>: T;
    parse(text) { text.number().map(T::from_u64) }
    print(v, f) { write!(f, "{:#x}", v.to_u64()) }
    sample(dice) { T::from_u64(dice.word()) }
}

codec! {
    /// As `ProbeHex`, but prints decimal: sizes.
    ProbeDec: u64;
    parse(text) { text.number() }
    print(v, f) { write!(f, "{v}") }
    sample(dice) { dice.word() }
}

codec! {
    /// `%zu`.
    Dec: u64;
    parse(text) { text.decimal() }
    print(v, f) { write!(f, "{v}") }
    sample(dice) { dice.word() }
}

codec! {
    /// A number that fits 32 bits, `%u`.
    Small: u32;
    parse(text) { text.decimal_as("a decimal number below 2^32") }
    print(v, f) { write!(f, "{v}") }
    sample(dice) { dice.word() as u32 }
}

codec! {
    /// `0x%04x`.
    Flags16: u32;
    parse(text) {
        let start = *text;
        u32::try_from(text.hex_0x()?).or_else(|_| start.mismatch("flags below 2^32"))
    }
    print(v, f) { write!(f, "{v:#06x}") }
    sample(dice) { dice.word() as u32 }
}

codec! {
    /// `%d`, as return values print.
    Signed: i32;
    parse(text) {
        let start = *text;
        let negative = text.accept("-");
        let magnitude = i64::try_from(text.decimal()?).ok();
        magnitude
            .map(|m| if negative { -m } else { m })
            .and_then(|m| i32::try_from(m).ok())
            .map_or_else(|| start.mismatch("a 32-bit number with sign"), Ok)
    }
    print(v, f) { write!(f, "{v}") }
    sample(dice) { dice.word() as i32 }
}

codec! {
    /// 0 or 1.
    Bit: bool;
    parse(text) {
        let start = *text;
        match text.number()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => start.mismatch("0 or 1"),
        }
    }
    print(v, f) { write!(f, "{}", u8::from(*v)) }
    sample(dice) { dice.below(2) == 1 }
}

codec! {
    /// A device name up to the next space.
    Word1: Device;
    parse(text) { device(text, b" ") }
    print(v, f) { write!(f, "{v}") }
    sample(dice) { dice.device() }
}

codec! {
    /// A device name up to the next `[` or space.
    Bracketed: Device;
    parse(text) { device(text, b"[ ") }
    print(v, f) { write!(f, "{v}") }
    sample(dice) { dice.device() }
}

codec! {
    /// A device name in quotes, as probes print strings.
    Quoted: Device;
    parse(text) {
        text.tag("\"")?;
        let device = device(text, b"\"")?;
        text.tag("\"")?;
        Ok(device)
    }
    print(v, f) { write!(f, "\"{v}\"") }
    sample(dice) { dice.device() }
}

/// A device name up to one of `stops`.
fn device<'a>(text: &mut Cursor<'a>, stops: &[u8]) -> Parsed<'a, Device> {
    match text.until(stops) {
        [] => text.mismatch("a device name"),
        name => Ok(Device::from_name(name)),
    }
}

codec! {
    /// A word without spaces, colons and brackets.
    Ident: Box<str>;
    parse(text) {
        match text.until(b" :[") {
            [] => text.mismatch("a word"),
            word => Ok(String::from_utf8_lossy(word).into()),
        }
    }
    print(v, f) { f.write_str(v) }
    sample(dice) { dice.word_of("abc_0|-") }
}

codec! {
    /// All that is left, perhaps nothing.
    Rest: Box<str>;
    parse(text) { Ok(String::from_utf8_lossy(text.until(b"")).into()) }
    print(v, f) { f.write_str(v) }
    sample(dice) { dice.word_of("aB 0=:-[]") }
}

codec! {
    /// A direction by name.
    DirName: Direction;
    parse(text) {
        let start = *text;
        match text.until(b" ") {
            b"BIDIRECTIONAL" => Ok(Direction::Bidirectional),
            b"TO_DEVICE" => Ok(Direction::ToDevice),
            b"FROM_DEVICE" => Ok(Direction::FromDevice),
            _ => start.mismatch("BIDIRECTIONAL, TO_DEVICE or FROM_DEVICE"),
        }
    }
    print(v, f) { f.write_str(v.name()) }
    sample(dice) { dice.direction() }
}

codec! {
    /// A direction by number.
    DirNumber: Direction;
    parse(text) {
        let start = *text;
        match text.number()? {
            0 => Ok(Direction::Bidirectional),
            1 => Ok(Direction::ToDevice),
            2 => Ok(Direction::FromDevice),
            _ => start.mismatch("a direction: 0, 1 or 2"),
        }
    }
    print(v, f) {
        f.write_str(match v {
            Direction::Bidirectional => "0",
            Direction::ToDevice => "1",
            Direction::FromDevice => "2",
        })
    }
    sample(dice) { dice.direction() }
}

codec! {
    /// Attributes by name, joined by `|`; nothing for none.
    AttrNames: Attrs;
    parse(text) {
        let mut attrs = 0;
        loop {
            let start = *text;
            match text.until(b" |") {
                [] if attrs == 0 && !text.0.starts_with(b"|") => break,
                [b'0', b'x', ..] => {
                    *text = start;
                    attrs |= text.hex_0x()?;
                }
                name => match Attrs::named(name) {
                    Some(bit) => attrs |= bit,
                    None => return start.mismatch("the name of a DMA attribute"),
                },
            }
            if !text.accept("|") {
                break;
            }
        }
        Ok(Attrs(attrs))
    }
    print(v, f) { write!(f, "{v}") }
    sample(dice) { Attrs(dice.word() & 0xffff) }
}

codec! {
    /// Attributes as a number.
    AttrBits: Attrs;
    parse(text) { text.number().map(Attrs) }
    print(v, f) { write!(f, "{:#x}", v.0) }
    sample(dice) { Attrs(dice.word()) }
}

codec! {
    /// `%p`.
    PtrText: Pointer;
    parse(text) {
        if text.accept("(null)") {
            Ok(Pointer::Null)
        } else if text.accept("(____ptrval____)") {
            Ok(Pointer::Unhashed)
        } else {
            text.hex().map(Pointer::Hashed)
        }
    }
    print(v, f) { write!(f, "{v}") }
    sample(dice) {
        match dice.below(4) {
            0 => Pointer::Null,
            1 => Pointer::Unhashed,
            _ => Pointer::Hashed(dice.word()),
        }
    }
}

codec! {
    /// `listed/full`.
    Fraction: Count;
    parse(text) {
        let listed = Small::parse(text)?;
        text.tag("/")?;
        Ok(Count { listed, full: Small::parse(text)? })
    }
    print(v, f) { write!(f, "{}/{}", v.listed, v.full) }
    sample(dice) { Count { listed: dice.below(128) as u32, full: dice.word() as u32 } }
}

codec! {
    /// ` [TRUNCATED]` or nothing.
    Truncated: bool;
    parse(text) { Ok(text.accept(" [TRUNCATED]")) }
    print(v, f) { f.write_str(if *v { " [TRUNCATED]" } else { "" }) }
    sample(dice) { dice.below(2) == 1 }
}

codec! {
    /// `FORCE` or `NORMAL`.
    Force: bool;
    parse(text) {
        if text.accept("FORCE") {
            Ok(true)
        } else if text.accept("NORMAL") {
            Ok(false)
        } else {
            text.mismatch("FORCE or NORMAL")
        }
    }
    print(v, f) { f.write_str(if *v { "FORCE" } else { "NORMAL" }) }
    sample(dice) { dice.below(2) == 1 }
}

codec! {
    /// `{0x1,0x2}`.
    List<T: Word>: Vec<T>;
    parse(text) {
        text.tag("{")?;
        // Most lists have one entry; the longest have 128.
        let commas = text.0.iter().take_while(|&&b| b != b'}').filter(|&&b| b == b',').count();
        let mut list = Vec::with_capacity(commas + 1);
        if text.accept("}") {
            return Ok(list);
        }
        loop {
            list.push(T::from_u64(text.hex_0x()?));
            if !text.accept(",") {
                break;
            }
        }
        text.tag("}")?;
        Ok(list)
    }
    print(v, f) {
        f.write_str("{")?;
        for (i, item) in v.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{:#x}", item.to_u64())?;
        }
        f.write_str("}")
    }
    sample(dice) { (0..dice.below(4)).map(|_| T::from_u64(dice.word())).collect() }
}

codec! {
    /// Four quadwords with spaces between.
    Qwords: [u64; 4];
    parse(text) {
        let mut words = [0; 4];
        for (i, word) in words.iter_mut().enumerate() {
            if i > 0 {
                text.tag(" ")?;
            }
            *word = text.hex_0x()?;
        }
        Ok(words)
    }
    print(v, f) { write!(f, "{:#x} {:#x} {:#x} {:#x}", v[0], v[1], v[2], v[3]) }
    sample(dice) { std::array::from_fn(|_| dice.word()) }
}

codec! {
    /// A peer-to-peer decision by number.
    P2pNumber: P2pMap;
    parse(text) {
        let start = *text;
        P2pMap::from_number(text.number()?)
            .map_or_else(|| start.mismatch("a pci_p2pdma_map_type: 0 to 4"), Ok)
    }
    print(v, f) { write!(f, "{}", v.number()) }
    sample(dice) { P2pMap::from_number(dice.below(5)).unwrap_or(P2pMap::Unknown) }
}
