//! A JSON Schema of the settings, found by trying values: for tests of the binaries, which keep
//! the published one equal to the code.

#![expect(clippy::indexing_slicing, reason = "a key that a JSON object lacks is added")]

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{ConfigError, load_from};

/// A variable of the example, with its description there.
#[derive(Clone, Debug)]
struct Setting {
    /// From the first section to the key.
    path: Vec<String>,
    variable: String,
    value: String,
    description: String,
}

/// Returns the schema of a TOML file with the settings of `T`.
///
/// `example` is the text of the example, whose comments become descriptions. Each of `sets` has
/// the variables of a valid `T`; a key that is in no other set is required by its own alone.
#[must_use]
pub fn schema<T: DeserializeOwned>(
    prefix: &str,
    example: &str,
    sets: &[Vec<(String, String)>],
) -> Value {
    let mut root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "properties": {},
    });
    for set in sets {
        for (variable, value) in set {
            let path = path_of(prefix, variable);
            let description = describe(example, variable);
            let (variable, value) = (variable.clone(), value.clone());
            let setting = Setting { path, variable, value, description };
            let is_free = is_free::<T>(prefix, set, &setting);
            let sections = (1..setting.path.len()).map(|depth| {
                let section = setting.path.get(..depth).unwrap_or_default();
                is_free_section::<T>(prefix, set, section)
            });
            let sections: Vec<_> = sections.collect();
            let required = (1..=setting.path.len()).map(|depth| {
                let path = setting.path.get(..depth).unwrap_or_default();
                sets.iter().all(|set| requires::<T>(prefix, set, path))
            });
            let required: Vec<_> = required.collect();
            let types = types::<T>(prefix, set, &setting);
            add(&mut root, &setting, types, &required, (&sections, is_free));
        }
    }
    root
}

fn path_of(prefix: &str, variable: &str) -> Vec<String> {
    let key = variable.trim_start_matches(prefix).trim_start_matches("__");
    key.split("__").map(str::to_lowercase).collect()
}

/// The comment above the variable, of which several in a row may have one.
fn describe(example: &str, variable: &str) -> String {
    let is_variable = |line: &str| line.trim_start_matches("# ").starts_with("KMS_");
    let named = |line: &&str| {
        let rest = line.trim_start_matches("# ").strip_prefix(variable);
        rest.is_some_and(|rest| rest.starts_with('=') || rest.starts_with("_FILE="))
    };
    let lines: Vec<_> = example.lines().collect();
    let Some(end) = lines.iter().position(named) else { return String::new() };
    let above = lines.iter().take(end).rev().skip_while(|line| is_variable(line));
    let comment = above.take_while(|line| line.starts_with('#') && !is_variable(line));
    let mut comment: Vec<_> = comment.map(|line| line.trim_start_matches(['#', ' '])).collect();
    comment.reverse();
    comment.join(" ")
}

/// The other variables, and this setting as a value of TOML.
fn with<T: DeserializeOwned>(
    prefix: &str,
    set: &[(String, String)],
    setting: &Setting,
    value: &str,
) -> Result<T, ConfigError> {
    let others = set.iter().filter(|(name, _)| *name != setting.variable);
    let others: Vec<_> = others.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    load_from::<T>(prefix, &format!("{} = {value}", setting.path.join(".")), &others)
}

/// Whether the settings are invalid without this key or section, because it is missing.
fn requires<T: DeserializeOwned>(prefix: &str, set: &[(String, String)], path: &[String]) -> bool {
    let others = set.iter().filter(|(name, _)| !path_of(prefix, name).starts_with(path));
    let others: Vec<_> = others.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let Err(ConfigError::Missing { key }) = load_from::<T>(prefix, "", &others) else {
        return false;
    };
    let missing: Vec<_> = key.split('.').collect();
    missing.len() >= path.len()
        && missing.iter().zip(path).all(|(one, other)| *one == other.as_str())
}

/// Whether the key is free to choose, as the symbol of a token is.
fn is_free<T: DeserializeOwned>(prefix: &str, set: &[(String, String)], setting: &Setting) -> bool {
    let mut other = setting.clone();
    other.path.pop();
    other.path.push("no_such_setting".to_owned());
    with::<T>(prefix, set, &other, &quoted(&setting.value)).is_ok()
}

/// Whether the name of this section is free to choose, as the short name of a chain is: then there
/// can be the same section under another name.
fn is_free_section<T: DeserializeOwned>(
    prefix: &str,
    set: &[(String, String)],
    section: &[String],
) -> bool {
    let Some((_, above)) = section.split_last() else { return false };
    let another = set.iter().filter_map(|(variable, value)| {
        let path = path_of(prefix, variable);
        let below = path.strip_prefix(section)?;
        let name = ["no_such_setting".to_owned()];
        let path = [above, &name, below].concat().join("__").to_uppercase();
        Some((format!("{prefix}__{path}"), value.clone()))
    });
    let both: Vec<_> = set.iter().cloned().chain(another).collect();
    let both: Vec<_> = both.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    load_from::<T>(prefix, "", &both).is_ok()
}

/// The types of JSON that the value of the example may have.
fn types<T: DeserializeOwned>(prefix: &str, set: &[(String, String)], setting: &Setting) -> Value {
    let text = &setting.value;
    let list = |word: fn(&str) -> String| {
        let words: Vec<_> = text.split_whitespace().map(word).collect();
        format!("[{}]", words.join(", "))
    };
    let candidates = [text.clone(), quoted(text), list(str::to_owned), list(quoted)];
    let accepted = candidates.iter().find(|value| with::<T>(prefix, set, setting, value).is_ok());
    let table = accepted.and_then(|text| format!("value = {text}").parse::<toml::Table>().ok());
    let value = table.and_then(|mut table| table.remove("value"));
    value.map_or(json!({ "type": "string" }), |value| shape(&value))
}

/// As a string of TOML, whose escapes are those of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The schema of values like this one.
fn shape(value: &toml::Value) -> Value {
    match value {
        toml::Value::Integer(_) => json!({ "type": "integer" }),
        toml::Value::Float(_) => json!({ "type": "number" }),
        toml::Value::Boolean(_) => json!({ "type": "boolean" }),
        toml::Value::String(_) | toml::Value::Datetime(_) => json!({ "type": "string" }),
        toml::Value::Array(items) => {
            let items = items.first().map_or(json!({}), shape);
            json!({ "type": "array", "items": items })
        }
        toml::Value::Table(table) => {
            let properties: Map<_, _> =
                table.iter().map(|(key, value)| (key.clone(), shape(value))).collect();
            json!({ "type": "object", "properties": properties })
        }
    }
}

/// Adds a setting to the section that it is in.
fn add(
    root: &mut Value,
    setting: &Setting,
    types: Value,
    required: &[bool],
    (free_sections, is_free): (&[bool], bool),
) {
    let Some((key, sections)) = setting.path.split_last() else { return };
    let mut section = root;
    for ((name, is_required), is_free) in sections.iter().zip(required).zip(free_sections) {
        if *is_required && !is_free {
            require(section, json!({ "required": [name] }));
        }
        let below = match is_free {
            true => &mut section["additionalProperties"],
            false => &mut section["properties"][name],
        };
        if !below.is_object() {
            *below = json!({ "type": "object", "additionalProperties": false, "properties": {} });
        }
        section = below;
    }
    let mut described = types;
    described["description"] = setting.description.as_str().into();
    if is_free {
        section["additionalProperties"] = described;
        return;
    }
    section["properties"][key] = described;
    let file = format!("{key}_file");
    let what = format!("The path of a file that holds `{key}`.");
    section["properties"][&file] = json!({ "type": "string", "description": what });
    if required.last() == Some(&true) {
        require(section, json!({ "anyOf": [{ "required": [key] }, { "required": [file] }] }));
    }
}

/// Adds a condition to a section, once.
fn require(section: &mut Value, condition: Value) {
    if section["allOf"].is_null() {
        section["allOf"] = json!([]);
    }
    if let Some(all) = section["allOf"].as_array_mut()
        && !all.contains(&condition)
    {
        all.push(condition);
    }
}
