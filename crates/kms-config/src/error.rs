//! Why a configuration cannot be used.

use crate::file::FileError;

/// Why a configuration cannot be used. Names the key or the line, and never shows a value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A configuration file cannot be read.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        problem: FileError,
    },
    /// A line of a configuration file cannot be parsed.
    #[error("{path}, line {line}: {problem}")]
    Syntax {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing is configured at all: the program was started in another directory.
    #[error(
        "nothing is configured: there is no .env in this directory, no --config, no variable that \
         begins with {prefix}__, and no {prefix}_CONFIG_TOML"
    )]
    Nothing {
        /// The prefix of the variables.
        prefix: String,
    },
    /// A required key is missing.
    #[error("{key}: missing")]
    Missing {
        /// The full key.
        key: String,
    },
    /// A key is not a setting.
    #[error("{key}: unknown; expected one of {}", .expected.join(", "))]
    Unknown {
        /// The full key.
        key: String,
        /// The keys that exist at its level.
        expected: &'static [&'static str],
    },
    /// A value is not what its key requires.
    #[error("{key}: {expected}")]
    Value {
        /// The full key.
        key: String,
        /// What it should be.
        expected: String,
    },
    /// The file that a `_file` key names cannot be used.
    #[error("{key}: {path}: {problem}")]
    ValueFile {
        /// The full key.
        key: String,
        /// The file.
        path: String,
        /// Why not.
        problem: FileError,
    },
}

impl ConfigError {
    /// The key that is at fault, if it is one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Missing { key }
            | Self::Unknown { key, .. }
            | Self::Value { key, .. }
            | Self::ValueFile { key, .. } => Some(key),
            Self::File { .. } | Self::Syntax { .. } | Self::Nothing { .. } => None,
        }
    }

    /// A value that its key cannot have.
    #[must_use]
    pub fn expected(key: &str, expected: &str) -> Self {
        Self::Value { key: key.to_owned(), expected: expected.to_owned() }
    }
}
