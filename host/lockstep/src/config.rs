//! Which IOMMU is tested: what it has and what it chose, from a capability file (`docs/own-iommu.md`).

use std::{fmt::Display, fs, io, ops::RangeInclusive, path::PathBuf};

use serde::Deserialize;
use tlproof_golden::iommu::{Capabilities, Choices};

use crate::memory::{BASE, SIZE};

/// Configurations of the IOMMU in `rtl/iommu`: names on the command line, and their files.
const OURS: [(&str, &str); 4] = [
    ("full", include_str!("../configs/full.toml")),
    ("minimal", include_str!("../configs/minimal.toml")),
    ("base", include_str!("../configs/base.toml")),
    ("other", include_str!("../configs/other.toml")),
];

/// An IOMMU.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name.
    pub name: String,
    /// Value of the strap `config_i`, where the top has several.
    pub strap: u32,
    /// What it has.
    pub capabilities: Capabilities,
    /// What it chose where the specification is open.
    pub choices: Choices,
    /// Cycles after which an ATS invalidation has timed out for certain; without, all devices answer.
    pub ats_timeout: Option<u32>,
}

/// Why a capability file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {error}; a configuration is full, minimal, base, other or a capability file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not what a capability file is.
    #[error("{name}: {text}")]
    Syntax {
        /// The file.
        name: String,
        /// What is wrong and where.
        text: String,
    },
    /// It contradicts itself, or says what cannot be.
    #[error("{name}: {text}")]
    Contradiction {
        /// The file.
        name: String,
        /// What.
        text: String,
    },
}

/// A capability file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    #[serde(default)]
    strap: u32,
    ats_timeout: Option<u32>,
    capabilities: Capabilities,
    #[serde(default)]
    choices: Choices,
}

impl Config {
    /// One of ours by its name, or that of a capability file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(name_or_path: &str) -> Result<Self, ConfigError> {
        if let Some((name, text)) = OURS.into_iter().find(|ours| ours.0 == name_or_path) {
            return Self::parse(name, name, text);
        }
        let path = PathBuf::from(name_or_path);
        let stem = path.file_stem().unwrap_or_default();
        let name = stem.to_string_lossy().into_owned();
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(name_or_path, &name, &text),
            Err(error) => Err(ConfigError::Read { path, error }),
        }
    }

    /// From the text of a capability file, with its name for errors, and one for the IOMMU where the file
    /// gives none.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`], [`ConfigError::Contradiction`].
    pub fn parse(file: &str, name: &str, text: &str) -> Result<Self, ConfigError> {
        let parsed: File = toml::from_str(text).map_err(|e| ConfigError::Syntax {
            name: file.to_owned(),
            text: e.to_string(),
        })?;
        if let Some(text) = contradiction(&parsed.capabilities, &parsed.choices) {
            return Err(ConfigError::Contradiction {
                name: file.to_owned(),
                text,
            });
        }
        Ok(Self {
            name: parsed.name.unwrap_or_else(|| name.to_owned()),
            strap: parsed.strap,
            capabilities: parsed.capabilities,
            choices: parsed.choices,
            ats_timeout: parsed.ats_timeout,
        })
    }

    fn ours(name: &str) -> Self {
        Self::load(name).expect("our own files are read by a test")
    }

    /// Everything that is implemented (`CfgFull`).
    #[must_use]
    pub fn full() -> Self {
        Self::ours("full")
    }

    /// Sv39 alone, interrupts by wire (`CfgMinimal`).
    #[must_use]
    pub fn minimal() -> Self {
        Self::ours("minimal")
    }

    /// First stage alone, interrupts by message (`CfgBase`).
    #[must_use]
    pub fn base() -> Self {
        Self::ours("base")
    }

    /// Everything but END, in a smaller address space, with the other choice wherever there is one
    /// (`CfgOther`).
    #[must_use]
    pub fn other() -> Self {
        Self::ours("other")
    }
}

/// What a capability needs beside it (IOMMU §5.3; Privileged, Sv48 and Sv57).
const NEEDS: [(&str, &str); 6] = [
    ("sv48", "sv39"),
    ("sv57", "sv48"),
    ("sv48x4", "sv39x4"),
    ("sv57x4", "sv48x4"),
    ("msi_mrif", "msi_flat"),
    ("t2gpa", "ats"),
];

fn outside<T: PartialOrd + Display>(
    name: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Option<String> {
    (!range.contains(&value)).then(|| {
        format!(
            "{name} = {value}: it must be {} to {}",
            range.start(),
            range.end()
        )
    })
}

fn contradiction(capabilities: &Capabilities, choices: &Choices) -> Option<String> {
    let has = |name| capabilities.fields().any(|(n, v)| n == name && v != 0);
    let mut needs = NEEDS.into_iter();
    if let Some((name, other)) = needs.find(|&(name, other)| has(name) && !has(other)) {
        return Some(format!("capabilities: {name} without {other}"));
    }
    if capabilities.pas < (BASE + SIZE as u64).ilog2() as u8 + 1 {
        let text = format!(
            "capabilities: pas = {}: the memory of the lock-step ends at {:#x}",
            capabilities.pas,
            BASE + SIZE as u64
        );
        return Some(text);
    }
    let (rcid, mcid) = choices.qos_id_bits;
    let abort = &choices.completer_abort;
    [
        outside("capabilities: pas", capabilities.pas, 0..=56),
        outside("capabilities: igs", capabilities.igs, 0..=2),
        outside(
            "choices: the last of completer_abort",
            *abort.end(),
            *abort.start()..=0xfff,
        ),
        outside("choices: qos_id_bits of RCID", rcid, 0..=12),
        outside("choices: qos_id_bits of MCID", mcid, 0..=12),
        outside("choices: bare_size_log2", choices.bare_size_log2, 12..=63),
        outside("choices: ddt_levels", choices.ddt_levels, 1..=3),
        outside("choices: queue_log2_max", choices.queue_log2_max, 1..=32),
        outside(
            "choices: interrupt_vectors_log2",
            choices.interrupt_vectors_log2,
            0..=4,
        ),
        outside("choices: event_counters", choices.event_counters, 1..=31),
        outside("choices: counter_bits", choices.counter_bits, 32..=64),
    ]
    .into_iter()
    .flatten()
    .next()
}

/// The fields in which the register of the device under test is not what the file says.
#[must_use]
pub fn disagreements(file: &Capabilities, register: u64) -> Vec<String> {
    let register = Capabilities::decode(register);
    let pairs = file.fields().zip(register.fields());
    pairs
        .filter(|(file, register)| file != register)
        .map(|((name, file), (_, register))| {
            format!("{name} is {file} in the file, {register} in the register")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        match Config::parse("my.toml", "my", text) {
            Ok(config) => panic!("{config:?}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn ours_are_read() {
        for (name, _) in OURS {
            assert_eq!(Config::load(name).expect(name).name, name);
        }
    }

    #[test]
    fn the_least() {
        let config = Config::parse("my.toml", "my", "[capabilities]\npas = 40\n").expect("a file");
        assert_eq!(config.capabilities.bits, 40 << 32 | 0x10);
        assert_eq!(config.choices, Choices::default());
        assert_eq!((config.name.as_str(), config.strap), ("my", 0));
    }

    #[test]
    fn errors_say_what_and_where() {
        let table = [
            ("", "missing field `capabilities`"),
            (
                "[capabilities]\npas = 56\nsv49 = true",
                "unknown field `sv49`",
            ),
            ("[capabilities]\npas = 56\nsv49 = true", "line 3"),
            ("[capabilities]\nsv39 = 1", "expected a boolean"),
            (
                "[capabilities]\npas = 99",
                "pas = 99: it has 6 bits, at most 63",
            ),
            (
                "[capabilities]\npas = 31",
                "the memory of the lock-step ends at",
            ),
            ("[capabilities]\npas = 57", "pas = 57: it must be 0 to 56"),
            (
                "[capabilities]\npas = 56\nigs = 3",
                "igs = 3: it must be 0 to 2",
            ),
            (
                "[capabilities]\npas = 56\nsv48 = true",
                "capabilities: sv48 without sv39",
            ),
            (
                "[capabilities]\npas = 56\nt2gpa = true",
                "t2gpa without ats",
            ),
            (
                "[capabilities]\npas = 56\n[choices]\nddt_levels = 4",
                "ddt_levels = 4: it must be 1 to 3",
            ),
            (
                "[capabilities]\npas = 56\n[choices]\nwide = 4",
                "unknown field `wide`",
            ),
            (
                "[capabilities]\npas = 56\n[choices]\nwide_address = \"no\"",
                "expected `access_fault` or `misconfigured`",
            ),
            (
                "[capabilities]\npas = 56\n[choices]\ncompleter_abort = [270, 260]",
                "the last of completer_abort = 260: it must be 270 to 4095",
            ),
            ("strap = \"a\"", "line 1"),
        ];
        for (text, expected) in table {
            let said = error(text);
            assert!(said.contains(expected), "{text}:\n{said}");
            assert!(said.starts_with("my.toml: "), "{said}");
        }
        let said = Config::load("nothing.toml")
            .expect_err("no file")
            .to_string();
        assert!(said.starts_with("nothing.toml: "), "{said}");
        assert!(said.contains("full, minimal, base, other or a capability file"));
    }

    #[test]
    fn disagreements_are_named() {
        let file = Capabilities::decode(56 << 32 | 1 << 10 | 1 << 9 | 0x10);
        assert_eq!(
            disagreements(&file, 50 << 32 | 1 << 9 | 0x10),
            [
                "sv48 is 1 in the file, 0 in the register",
                "pas is 56 in the file, 50 in the register"
            ]
        );
    }
}
