//! A configuration file as keys and values: YAML, so JSON works too. Every error names file, key, value and remedy.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use serde_yaml_ng::{Mapping, Value};

/// A configuration file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is there and cannot be read.
    #[error("read {path}: {why}; make it a file that root can read, or remove it")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: String,
    },
    /// Not YAML, or not keys with values.
    #[error("read {path}: {why}; see docs/configuration.md for every key")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's reason, with line and column.
        why: String,
    },
    /// A key that does not exist.
    #[error(
        "read {path}: unknown key `{key}`; did you mean `{nearest}`? See docs/configuration.md for every key"
    )]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The known key that looks most like it.
        nearest: &'static str,
    },
    /// A value that is of the wrong kind, or that contradicts another one or the node.
    #[error("read {path}: {key}: `{value}` {why}; {remedy}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The value, or the one element of a list that is wrong.
        value: String,
        /// What is wrong.
        why: String,
        /// What to do.
        remedy: String,
    },
}

/// Reads `path`; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    let failed = |why: String| ConfigError::Read {
        path: path.to_owned(),
        why,
    };
    match fs::metadata(path) {
        // A pipe would keep the loader waiting.
        Ok(metadata) if !metadata.is_file() => Err(failed("it is no ordinary file".into())),
        Ok(_) => fs::read_to_string(path)
            .map(Some)
            .map_err(|error| failed(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// The keys of one file. A key without a value counts as absent.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    path: &'a Path,
    entries: Vec<(String, Value)>,
}

impl<'a> Document<'a> {
    /// Parses `text`; `path` is for messages. An empty text has no keys.
    pub(crate) fn parse(path: &'a Path, text: &str) -> Result<Self, ConfigError> {
        let syntax = |why: String| ConfigError::Syntax {
            path: path.to_owned(),
            why,
        };
        let mapping: Option<Mapping> =
            serde_yaml_ng::from_str(text).map_err(|error| syntax(error.to_string()))?;
        let mut entries = Vec::new();
        for (key, value) in mapping.unwrap_or_default() {
            let Value::String(key) = key else {
                return Err(syntax(format!("the key `{}` is no word", show(&key))));
            };
            if !value.is_null() {
                entries.push((key, value));
            }
        }
        Ok(Self { path, entries })
    }

    /// Its keys with their values.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(|(key, value)| Entry {
            path: self.path,
            key,
            value,
        })
    }
}

/// One key with its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    path: &'a Path,
    /// The key as written.
    pub(crate) key: &'a str,
    value: &'a Value,
}

impl<'a> Entry<'a> {
    /// An error about this key.
    pub(crate) fn refuse(&self, value: &str, why: &str, remedy: &str) -> ConfigError {
        refuse(self.path, self.key, value, why, remedy)
    }

    /// The key is none of ours; `known` are.
    pub(crate) fn unknown(&self, known: &[&'static str]) -> ConfigError {
        ConfigError::UnknownKey {
            path: self.path.to_owned(),
            key: self.key.to_owned(),
            nearest: nearest(self.key, known),
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| {
            let value = show(self.value);
            self.refuse(&value, "is neither true nor false", "write true or false")
        })
    }

    /// A whole number within `range`.
    pub(crate) fn number(&self, range: RangeInclusive<u32>) -> Result<u32, ConfigError> {
        let number = self
            .value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let why = format!(
                    "is not a whole number from {} to {}",
                    range.start(),
                    range.end()
                );
                self.refuse(
                    &show(self.value),
                    &why,
                    "write one in this range, without quotes",
                )
            })
    }

    /// A text; `example` is for the message.
    pub(crate) fn text(&self, what: &str, example: &str) -> Result<&'a str, ConfigError> {
        self.value.as_str().ok_or_else(|| {
            let why = format!("is not {what}");
            self.refuse(&show(self.value), &why, &format!("write {example}"))
        })
    }

    /// Aligned IPv4 prefixes.
    pub(crate) fn prefixes(&self) -> Result<Vec<Ipv4Net>, ConfigError> {
        let mut prefixes = Vec::new();
        for text in self.texts()? {
            let prefix: Ipv4Net = text
                .parse()
                .map_err(|_why| self.no_prefix(text, "an IPv4"))?;
            if prefix.trunc() != prefix {
                return Err(self.unaligned(text, &prefix.trunc()));
            }
            prefixes.push(prefix);
        }
        Ok(prefixes)
    }

    /// Aligned prefixes of either family.
    pub(crate) fn prefixes_of_both_families(&self) -> Result<Vec<IpNet>, ConfigError> {
        let mut prefixes = Vec::new();
        for text in self.texts()? {
            let prefix: IpNet = text.parse().map_err(|_why| self.no_prefix(text, "a"))?;
            if prefix.trunc() != prefix {
                return Err(self.unaligned(text, &prefix.trunc()));
            }
            prefixes.push(prefix);
        }
        Ok(prefixes)
    }

    fn no_prefix(&self, text: &str, kind: &str) -> ConfigError {
        let why = format!("is not {kind} prefix");
        self.refuse(text, &why, "write one such as 10.0.0.0/16")
    }

    fn unaligned(&self, text: &str, aligned: &dyn std::fmt::Display) -> ConfigError {
        let why = "has bits set behind its prefix length";
        self.refuse(text, why, &format!("write {aligned}"))
    }

    fn texts(&self) -> Result<Vec<&'a str>, ConfigError> {
        let remedy = "write one such as [10.0.0.0/16]";
        let Value::Sequence(values) = self.value else {
            return Err(self.refuse(&show(self.value), "is not a list of prefixes", remedy));
        };
        let texts = values.iter().map(|value| {
            let no_text = || self.refuse(&show(value), "is not a prefix", remedy);
            value.as_str().ok_or_else(no_text)
        });
        texts.collect()
    }
}

/// An error about the value of a key.
pub(crate) fn refuse(path: &Path, key: &str, value: &str, why: &str, remedy: &str) -> ConfigError {
    ConfigError::Value {
        path: path.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
        why: why.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// The known key that looks most like `key`.
pub(crate) fn nearest(key: &str, known: &[&'static str]) -> &'static str {
    netconf::nearest(key, known.iter().copied()).map_or("", |(nearest, _)| nearest)
}

/// A value in one short line.
fn show(value: &Value) -> String {
    let text = serde_yaml_ng::to_string(value).unwrap_or_default();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
