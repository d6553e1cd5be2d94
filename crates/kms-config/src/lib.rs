//! How the binaries are configured: defaults, then a TOML file, then the environment, into typed
//! fields. Each binary has one `config.rs` that calls [`load`]; nothing else reads the environment.
//!
//! A key that ends in `_file` is the path of a file that holds the value of the key without it, as
//! Docker and ECS hand out secrets. An environment variable is the prefix, `__` and the key, with
//! `__` between levels: `KMS_SERVER__DATABASE__URL`.
//!
//! Before it reads a secret, each binary calls [`turn_core_dumps_off`].
//!
//! This crate must never show a value in an error: a value may be a secret.

mod core_dumps;
mod secret;

use std::path::Path;
use std::str::FromStr;

use config::builder::DefaultState;
use config::{Config, ConfigBuilder, Environment, File, FileFormat, Map, Value, ValueKind};
use serde::de::DeserializeOwned;

pub use core_dumps::turn_core_dumps_off;
pub use secret::Secret;

/// Why a configuration can not be used. Names the key, never a value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The sources could not be read, or a key is missing or unknown.
    #[error("the configuration can not be read")]
    Read(#[from] config::ConfigError),
    /// A value is not what its key needs.
    #[error("{key}: {expected}")]
    Value {
        /// Which.
        key: String,
        /// What it should be.
        expected: String,
    },
    /// A `_file` key names a file that can not be read.
    #[error("{key}: the file {path} can not be read: {source}")]
    SecretFile {
        /// Which.
        key: String,
        /// The path it names.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl ConfigError {
    /// A value that its key can not have.
    #[must_use]
    pub fn expected(key: &str, expected: &str) -> Self {
        Self::Value { key: key.to_owned(), expected: expected.to_owned() }
    }
}

/// Reads `.env` if it is there, then the file if one is given, then the environment.
///
/// # Errors
/// When a key is missing, unknown or has a value of the wrong shape.
pub fn load<T: DeserializeOwned>(
    prefix: &str,
    defaults: &[(&str, &str)],
    file: Option<&Path>,
) -> Result<T, ConfigError> {
    // A missing .env is the usual case.
    let _ = dotenvy::dotenv();
    let mut builder = with_defaults(defaults)?;
    if let Some(path) = file {
        builder = builder.add_source(File::from(path).format(FileFormat::Toml));
    }
    read(builder.add_source(environment(prefix)))
}

/// As [`load`], from a text and variables that are given: for tests.
///
/// # Errors
/// As [`load`].
pub fn load_from<T: DeserializeOwned>(
    prefix: &str,
    defaults: &[(&str, &str)],
    toml: &str,
    variables: &[(&str, &str)],
) -> Result<T, ConfigError> {
    let variables = variables.iter().map(|(key, value)| ((*key).into(), (*value).into()));
    let environment = environment(prefix).source(Some(variables.collect()));
    let builder = with_defaults(defaults)?;
    read(builder.add_source(File::from_str(toml, FileFormat::Toml)).add_source(environment))
}

/// Parses a value, and names its key if it can not be used.
///
/// # Errors
/// When the text is not a `T`.
pub fn parse<T: FromStr>(key: &str, text: &str) -> Result<T, ConfigError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| ConfigError::expected(key, &error.to_string()))
}

fn with_defaults(defaults: &[(&str, &str)]) -> Result<ConfigBuilder<DefaultState>, ConfigError> {
    defaults
        .iter()
        .try_fold(Config::builder(), |builder, (key, value)| Ok(builder.set_default(*key, *value)?))
}

/// As crate `config` calls it.
const ENVIRONMENT: &str = "the environment";

fn environment(prefix: &str) -> Environment {
    Environment::with_prefix(prefix).prefix_separator("__").separator("__").ignore_empty(true)
}

fn read<T: DeserializeOwned>(builder: ConfigBuilder<DefaultState>) -> Result<T, ConfigError> {
    let mut root = builder.build()?.cache;
    if let ValueKind::Table(table) = &mut root.kind {
        read_files("", table)?;
    }
    Ok(root.try_deserialize()?)
}

/// Replaces every `key_file` by `key` with the file's content, less the newline at its end.
fn read_files(prefix: &str, table: &mut Map<String, Value>) -> Result<(), ConfigError> {
    let mut found = Vec::new();
    for (key, value) in table.iter_mut() {
        let full = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match &mut value.kind {
            ValueKind::Table(inner) => read_files(&full, inner)?,
            ValueKind::String(path) => {
                if let Some(stem) = key.strip_suffix("_file") {
                    found.push((full, key.clone(), stem.to_owned(), path.clone()));
                }
            }
            _ => {}
        }
    }
    for (full, key, stem, path) in found {
        let source = |key: &str| table.get(key).map(|value| value.origin() == Some(ENVIRONMENT));
        match (source(&stem), source(&key)) {
            // As everywhere: the environment wins over the file.
            (Some(true), Some(false)) => {
                table.remove(&key);
                continue;
            }
            (None, _) | (Some(false), Some(true)) => {}
            _ => {
                let expected = format!("give it, or {stem}, but not both");
                return Err(ConfigError::Value { key: full, expected });
            }
        }
        let content = std::fs::read_to_string(&path).map_err(|source| ConfigError::SecretFile {
            key: full,
            path,
            source,
        })?;
        table.remove(&key);
        table.insert(stem, Value::from(content.trim_end_matches(['\r', '\n'])));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Settings {
        token: String,
    }

    fn token(toml: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let settings = load_from::<Settings>("T", &[], toml, variables);
        settings.map(|settings| settings.token).map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_wins_however_the_value_is_given() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from a file\n").unwrap();
        let path = file.path().to_str().unwrap();
        let (in_toml, in_variable) = (format!("token_file = \"{path}\""), ("T__TOKEN_FILE", path));
        let direct = ("T__TOKEN", "direct");
        assert_eq!(token(&in_toml, &[]).unwrap(), "from a file");
        assert_eq!(token(&in_toml, &[direct]).unwrap(), "direct");
        assert_eq!(token("token = \"in the TOML\"", &[in_variable]).unwrap(), "from a file");
        let both = token("", &[direct, in_variable]).unwrap_err();
        assert_eq!(both, "token_file: give it, or token, but not both");
        assert!(token("", &[("T__TOKEN_FILE", "/nowhere")]).unwrap_err().contains("/nowhere"));
    }
}
