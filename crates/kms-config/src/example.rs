//! Keeps an example `.env` equal to the settings: for tests of the binaries.

use serde::de::DeserializeOwned;

use crate::{ConfigError, load_from, parse_env_file};

/// A name that is no setting.
const UNKNOWN: &str = "NO_SUCH_SETTING";

/// Reads all variables of an example, including those that are commented out.
///
/// # Errors
/// When a line is not one of a `.env` file.
pub fn example_variables(prefix: &str, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let commented = format!("# {prefix}__");
    let lines = text.lines().map(|line| match line.starts_with(&commented) {
        true => line.trim_start_matches("# "),
        false => line,
    });
    parse_env_file("example", &lines.collect::<Vec<_>>().join("\n"), prefix)
}

/// Lists the settings of `T` that have no variable among these, which must give a valid `T`.
#[must_use]
pub fn undocumented<T: DeserializeOwned>(prefix: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let mut missing = Vec::new();
    let mut sections = vec![prefix.to_owned()];
    while let Some(section) = sections.pop() {
        for key in keys_of::<T>(prefix, &section, variables) {
            let name = format!("{section}__{}", key.to_uppercase());
            let below = format!("{name}__");
            if variables.iter().any(|(known, _)| *known == name) {
                continue;
            }
            match variables.iter().any(|(known, _)| known.starts_with(&below)) {
                true => sections.push(name),
                false => missing.push(name),
            }
        }
    }
    missing
}

/// The keys that a section lists when it is given an unknown one; none of a map with free keys.
fn keys_of<T: DeserializeOwned>(
    prefix: &str,
    section: &str,
    variables: &[(&str, &str)],
) -> &'static [&'static str] {
    let unknown = format!("{section}__{UNKNOWN}");
    let variables: Vec<_> = variables.iter().copied().chain([(&*unknown, "1")]).collect();
    match load_from::<T>(prefix, "", &variables) {
        Err(ConfigError::Unknown { expected, .. }) => expected,
        _ => &[],
    }
}
