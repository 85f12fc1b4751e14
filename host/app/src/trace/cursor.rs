//! The smallest set of parsers that trace text needs, over bytes that are consumed from the front.

/// What was expected where the text went another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mismatch<'a> {
    /// What should stand there: the text itself, or a description.
    pub expected: &'static str,
    /// Whether `expected` is the text itself.
    pub literal: bool,
    /// The rest of the text from there on.
    pub rest: &'a [u8],
}

impl Mismatch<'_> {
    /// `expected` for a message.
    pub fn expected(&self) -> String {
        if self.literal {
            format!("`{}`", self.expected)
        } else {
            self.expected.to_owned()
        }
    }
}

/// Result of one parser.
pub(super) type Parsed<'a, T> = Result<T, Mismatch<'a>>;

/// The text that is still to be parsed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// The error at this place.
    pub fn mismatch<T>(self, expected: &'static str) -> Parsed<'a, T> {
        Err(Mismatch {
            expected,
            literal: false,
            rest: self.0,
        })
    }

    /// Exactly this text.
    pub fn tag(&mut self, text: &'static str) -> Parsed<'a, ()> {
        match self.0.strip_prefix(text.as_bytes()) {
            Some(rest) => {
                self.0 = rest;
                Ok(())
            }
            None => Err(Mismatch {
                expected: text,
                literal: true,
                rest: self.0,
            }),
        }
    }

    /// Whether this text stands here; consumed if so.
    pub fn accept(&mut self, text: &str) -> bool {
        match self.0.strip_prefix(text.as_bytes()) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// Any number of spaces, none included.
    pub fn spaces(&mut self) {
        let n = self.0.iter().take_while(|&&b| b == b' ').count();
        self.0 = &self.0[n..];
    }

    /// The bytes up to, not including, the first of `stops`, or to the end.
    pub fn until(&mut self, stops: &[u8]) -> &'a [u8] {
        let n = self
            .0
            .iter()
            .position(|b| stops.contains(b))
            .unwrap_or(self.0.len());
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        head
    }

    /// Digits of a radix up to 16, lower case, at least one, below 2^64.
    fn digits(&mut self, radix: u64, expected: &'static str) -> Parsed<'a, u64> {
        let start = *self;
        let mut value = 0_u64;
        let mut n = 0;
        for &byte in self.0 {
            let digit = match byte {
                b'0'..=b'9' => u64::from(byte - b'0'),
                b'a'..=b'f' => u64::from(byte - b'a') + 10,
                _ => break,
            };
            if digit >= radix {
                break;
            }
            let Some(next) = value.checked_mul(radix).and_then(|v| v.checked_add(digit)) else {
                return start.mismatch(expected);
            };
            value = next;
            n += 1;
        }
        if n == 0 {
            return start.mismatch(expected);
        }
        self.0 = &self.0[n..];
        Ok(value)
    }

    /// A decimal number.
    pub fn decimal(&mut self) -> Parsed<'a, u64> {
        self.digits(10, "a decimal number below 2^64")
    }

    /// A decimal number that fits a narrower type.
    pub fn decimal_as<T: TryFrom<u64>>(&mut self, expected: &'static str) -> Parsed<'a, T> {
        let start = *self;
        match T::try_from(self.decimal()?) {
            Ok(value) => Ok(value),
            Err(_) => start.mismatch(expected),
        }
    }

    /// A hexadecimal number without prefix.
    pub fn hex(&mut self) -> Parsed<'a, u64> {
        self.digits(16, "a hexadecimal number below 2^64")
    }

    /// A hexadecimal number with the prefix `0x`.
    pub fn hex_0x(&mut self) -> Parsed<'a, u64> {
        let start = *self;
        if !self.accept("0x") {
            return start.mismatch("a hexadecimal number with 0x");
        }
        self.hex()
    }

    /// A number with the prefix `0x`, or a decimal one: probes of one name print either, depending
    /// on the type with which they were defined.
    pub fn number(&mut self) -> Parsed<'a, u64> {
        if self.0.starts_with(b"0x") {
            self.hex_0x()
        } else {
            self.decimal()
        }
    }

    /// Nothing may be left.
    pub fn end(self) -> Parsed<'a, ()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            self.mismatch("the end of the line")
        }
    }
}
