//! How the binaries are configured: a TOML file, or a variable that holds one, then `.env` of the
//! current directory, then the environment, into typed structs with their own defaults. Each binary
//! has one `config` module that calls [`load`]; nothing else reads the environment.
//!
//! - A variable is the prefix, `__` and the key, with `__` between levels:
//!   `KMS_SERVER__DATABASE__URL` is `database.url`. An empty one counts as not set.
//! - A list is written as words with white space between them, or as a TOML array; a table as an
//!   inline TOML table: `KMS_SERVER__CHAINS__ETHEREUM__TOKENS=[{ symbol = "USDC", … }]`.
//! - A secret is not read from a TOML file that other users can read.
//! - A key with `_file` at its end is the path of a file that holds the value of the key without
//!   it. Such a file must be private, unless it holds certificates or public keys only.
//! - `.env` has a grammar of its own, in which `$`, quotes and spaces are literal: see
//!   [`parse_env_file`].
//!
//! Before it reads a secret, each binary calls [`turn_core_dumps_off`].
//!
//! No error of this crate shows a value: a value may be a secret.

mod core_dumps;
mod database_url;
mod env_file;
mod error;
mod example;
mod file;
mod schema;
mod secret;
mod source;
mod text;
mod url;
mod value;

use std::ffi::OsString;
use std::path::Path;

use serde::de::DeserializeOwned;

use self::source::Source;
use self::value::{Table, Value};

pub use core_dumps::turn_core_dumps_off;
pub use database_url::{is_private_mongodb, is_private_postgres};
pub use env_file::parse_env_file;
pub use error::ConfigError;
pub use example::{example_variables, undocumented};
pub use file::FileError;
pub use schema::schema;
pub use secret::Secret;
pub use text::{duration, duration_or_none, duration_or_zero, secret, text};
pub use url::{ServiceUrl, UrlError, has_userinfo, is_https_or_loopback, is_loopback, parse_url};

/// Reads the TOML file if one is given or the variable `…_CONFIG_TOML` if it is set, `.env` of the
/// current directory if there is one, and the environment.
///
/// # Errors
/// When a file cannot be read or parsed, or a key is missing, unknown or has a value that it cannot
/// have.
pub fn load<T: DeserializeOwned>(prefix: &str, file: Option<&Path>) -> Result<T, ConfigError> {
    let mut table = whole_table(prefix, file)?;
    let environment = environment(prefix)?;
    // A variable of the environment replaces the same one of the file, even by nothing.
    let mut env_file = env_file::read(Path::new(".env"), prefix)?;
    env_file.retain(|(name, _)| environment.iter().all(|(other, _)| other != name));
    insert_all(&mut table, prefix, Source::EnvFile, env_file)?;
    insert_all(&mut table, prefix, Source::Environment, environment)?;
    if table.is_empty() {
        return Err(ConfigError::Nothing { prefix: prefix.to_owned() });
    }
    deserialize(table)
}

/// Reads a TOML text and variables, as [`load`] does: for tests.
///
/// # Errors
/// As [`load`].
pub fn load_from<T: DeserializeOwned>(
    prefix: &str,
    toml: &str,
    variables: &[(&str, &str)],
) -> Result<T, ConfigError> {
    let mut table = parse_toml(Source::Toml, "TOML", toml)?;
    let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    insert_all(&mut table, prefix, Source::Environment, variables.collect())?;
    deserialize(table)
}

fn deserialize<T: DeserializeOwned>(table: Table) -> Result<T, ConfigError> {
    Ok(T::deserialize(Value::table(Source::Toml, table))?)
}

/// The settings of the TOML file, or of the variable that holds one where there are no files.
fn whole_table(prefix: &str, file: Option<&Path>) -> Result<Table, ConfigError> {
    let name = format!("{prefix}_CONFIG_TOML");
    let text = std::env::var_os(&name).filter(|text| !text.is_empty());
    match (file, text) {
        (None, None) => Ok(Table::new()),
        (Some(path), None) => read_toml(path),
        (None, Some(text)) => parse_toml(Source::Toml, &name, &utf8(&name, text)?),
        (Some(_), Some(_)) => Err(ConfigError::expected(&name, "expected no --config beside it")),
    }
}

fn utf8(name: &str, text: OsString) -> Result<String, ConfigError> {
    text.into_string().map_err(|_secret| ConfigError::expected(name, "expected UTF-8"))
}

fn read_toml(path: &Path) -> Result<Table, ConfigError> {
    let shown = path.display().to_string();
    match file::read_settings(path) {
        Ok((text, source)) => parse_toml(source, &shown, &text),
        Err(problem) => Err(ConfigError::File { path: shown, problem }),
    }
}

fn parse_toml(source: Source, path: &str, text: &str) -> Result<Table, ConfigError> {
    let table = toml::from_str::<toml::Table>(text).map_err(|error| {
        // The error's own text quotes the line, and a line may hold a secret.
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).map_or(1, |before| before.matches('\n').count() + 1);
        let problem = "expected TOML: key = \"value\" or [section]".to_owned();
        ConfigError::Syntax { path: path.to_owned(), line, problem }
    })?;
    Ok(value::from_toml(source, table))
}

/// The variables of this process that begin with `prefix` and `__`.
fn environment(prefix: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        if !name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("__")) {
            continue;
        }
        let value = utf8(&name, value)?;
        variables.push((name, value));
    }
    Ok(variables)
}

fn insert_all(
    table: &mut Table,
    prefix: &str,
    source: Source,
    mut variables: Vec<(String, String)>,
) -> Result<(), ConfigError> {
    variables.sort_unstable();
    for (name, text) in variables {
        let key = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix("__"));
        let Some(key) = key.filter(|_| !text.is_empty()) else { continue };
        let key = key.to_lowercase();
        let path: Vec<_> = key.split("__").collect();
        value::insert(table, &path, Value::text(source, text))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
