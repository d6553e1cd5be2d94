//! A tree of settings from several sources, and how it is deserialized.
//!
//! A variable is text, so the type that is asked for decides what the text means: a number, a
//! switch, a list (words, or a TOML array), a table (an inline TOML table). Guessing from the text
//! would turn a password of digits into a number.
//!
//! Errors carry the path of the key, and never a value: a value may be a secret.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Deserialize;
use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use zeroize::Zeroizing;

use crate::error::ConfigError;
use crate::file::{self, FileError};
use crate::secret::Secret;
use crate::source::Source;

pub(crate) type Table = BTreeMap<String, Value>;

#[derive(Clone)]
pub(crate) struct Value {
    source: Source,
    kind: Kind,
    /// The file that holds the text.
    file: Option<String>,
}

#[derive(Clone)]
enum Kind {
    /// Of a variable or a file: its type is the one that is asked for.
    Text(Zeroizing<String>),
    Scalar(toml::Value),
    List(Vec<Value>),
    Table(Table),
}

/// What is wrong, and with which key.
#[derive(Debug)]
pub(crate) struct Error {
    /// Innermost first.
    path: Vec<String>,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Missing,
    Unknown(&'static [&'static str]),
    Expected(String),
    File(String, FileError),
}

impl Value {
    pub(crate) fn text(source: Source, text: String) -> Self {
        Self { source, kind: Kind::Text(Zeroizing::new(text)), file: None }
    }

    pub(crate) fn table(source: Source, table: Table) -> Self {
        Self { source, kind: Kind::Table(table), file: None }
    }

    fn from_toml(source: Source, value: toml::Value) -> Self {
        let kind = match value {
            toml::Value::Table(table) => Kind::Table(from_toml(source, table)),
            toml::Value::Array(list) => {
                Kind::List(list.into_iter().map(|value| Self::from_toml(source, value)).collect())
            }
            scalar => Kind::Scalar(scalar),
        };
        Self { source, kind, file: None }
    }
}

pub(crate) fn from_toml(source: Source, table: toml::Table) -> Table {
    let entries = table.into_iter().map(|(key, value)| (key, Value::from_toml(source, value)));
    entries.collect()
}

/// Sets the key at a path. The value of a source of lower precedence is replaced; one of the same
/// source is a contradiction (a table as a whole, and a key of it).
pub(crate) fn insert(table: &mut Table, path: &[&str], value: Value) -> Result<(), Error> {
    let Some((key, rest)) = path.split_first() else { return Ok(()) };
    let twice = || Error::custom("given twice: as a whole, and by a key below it").within(key);
    let source = value.source;
    let kept = table.get(*key).filter(|old| old.source >= source);
    if rest.is_empty() {
        if kept.is_some() {
            return Err(twice());
        }
        table.insert((*key).to_owned(), value);
        return Ok(());
    }
    let is_table = |value: &Value| matches!(value.kind, Kind::Table(_));
    if kept.is_some_and(|old| !is_table(old)) {
        return Err(twice());
    }
    let entry =
        table.entry((*key).to_owned()).or_insert_with(|| Value::table(source, Table::new()));
    if !is_table(entry) {
        *entry = Value::table(source, Table::new());
    }
    // The table counts as given by this source, which therefore cannot also give it as a whole.
    entry.source = entry.source.max(source);
    match &mut entry.kind {
        Kind::Table(inner) => insert(inner, rest, value).map_err(|error| error.within(key)),
        _ => Err(twice()),
    }
}

/// Replaces every `key_file` by `key` with the content of the file, less the newline at its end.
fn read_files(mut table: Table) -> Result<Table, Error> {
    let names =
        table.keys().filter_map(|key| Some((key.clone(), key.strip_suffix("_file")?.into())));
    let names: Vec<(String, String)> = names.collect();
    for (key, stem) in names {
        let Some(file) = table.remove(&key) else { continue };
        match table.get(&stem) {
            Some(direct) if direct.source > file.source => continue,
            Some(direct) if direct.source == file.source => {
                let problem = format!("expected this or {stem}, not both");
                return Err(Error::custom(problem).within(&key));
            }
            _ => {}
        }
        let source = file.source;
        let path: String =
            serde::Deserialize::deserialize(file).map_err(|e: Error| e.within(&key))?;
        let kind = match file::read_value(path.as_ref()) {
            Ok(text) => Kind::Text(text),
            Err(problem) => {
                return Err(Error { path: vec![key], problem: Problem::File(path, problem) });
            }
        };
        table.insert(stem, Value { source, kind, file: Some(path) });
    }
    Ok(table)
}

/// Parses the text of a variable as a TOML value.
fn inline(source: Source, text: &str, expected: &str) -> Result<Kind, Error> {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"));
    let wrong = || Error::custom(expected);
    let mut table = parsed.map_err(|_secret| wrong())?;
    match (table.remove("value"), table.is_empty()) {
        (Some(value), true) => Ok(Value::from_toml(source, value).kind),
        _ => Err(wrong()),
    }
}

/// The key that chooses between the variants of an enum.
const PROVIDER: &str = "provider";

const SHARED: &str = "other users can read the TOML file with this secret; run `chmod 600` on it";
const EXPECTED_NUMBER: &str = "expected a whole number in the range of this setting";
const EXPECTED_LIST: &str = "expected words with white space between them, or a TOML array";
const EXPECTED_TABLE: &str = "expected a table, in one variable as { key = \"value\" }";

macro_rules! numbers {
    ($($method:ident $visit:ident $number:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match &self.kind {
                Kind::Text(text) => match text.parse::<$number>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_secret) => Err(Error::custom(EXPECTED_NUMBER)),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind {
            Kind::Text(_) => self.deserialize_string(visitor),
            Kind::List(list) => visitor.visit_seq(Items(list.into_iter().enumerate())),
            Kind::Table(table) => visitor.visit_map(Entries::new(read_files(table)?)),
            Kind::Scalar(toml::Value::String(text)) => visitor.visit_string(text),
            Kind::Scalar(toml::Value::Integer(number)) => visitor.visit_i64(number),
            Kind::Scalar(toml::Value::Boolean(is)) => visitor.visit_bool(is),
            Kind::Scalar(toml::Value::Float(number)) => visitor.visit_f64(number),
            Kind::Scalar(_) => Err(Error::custom("expected no date or time")),
        }
    }

    numbers! {
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.kind {
            Kind::Text(text) => match text.as_str() {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                _ => Err(Error::custom("expected true or false")),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind {
            Kind::Text(mut text) => visitor.visit_string(std::mem::take(&mut *text)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        // A text is a variable, or comes from a file of its own.
        let is_text = matches!(self.kind, Kind::Text(_));
        if name == Secret::NAME && self.source == Source::SharedToml && !is_text {
            return Err(Error::custom(SHARED));
        }
        if let (Kind::Text(text), Some(file), Secret::NAME) = (&self.kind, &self.file, name) {
            let parts = [text.as_str(), file].map(|part| Self::text(self.source, part.to_owned()));
            return visitor.visit_seq(Items(Vec::from(parts).into_iter().enumerate()));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        if let Kind::Text(text) = &self.kind {
            let source = self.source;
            self.kind = if text.trim_start().starts_with('[') {
                inline(source, text, EXPECTED_LIST)?
            } else {
                let words = text.split_whitespace();
                Kind::List(words.map(|word| Self::text(source, word.to_owned())).collect())
            };
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        if let Kind::Text(text) = &self.kind {
            self.kind = inline(self.source, text, EXPECTED_TABLE)?;
        }
        match self.kind {
            Kind::Table(_) => self.deserialize_any(visitor),
            _ => Err(Error::custom(EXPECTED_TABLE)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    /// A table is the variant that its key `provider` names, or the first one.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let source = self.source;
        match self.kind {
            Kind::Text(text) if text.starts_with('{') => {
                let kind = inline(source, &text, EXPECTED_TABLE)?;
                Self { source, kind, file: None }.deserialize_enum(name, variants, visitor)
            }
            Kind::Text(mut text) => {
                visitor.visit_enum(std::mem::take(&mut *text).into_deserializer())
            }
            Kind::Scalar(toml::Value::String(text)) => visitor.visit_enum(text.into_deserializer()),
            Kind::Table(mut table) => {
                let provider = match table.remove(PROVIDER) {
                    Some(name) => String::deserialize(name).map_err(|e| e.within(PROVIDER))?,
                    None => variants.first().copied().unwrap_or_default().to_owned(),
                };
                visitor.visit_enum(Variant { provider, rest: Self::table(source, table) })
            }
            _ => Err(Error::custom("expected a word")),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A table that is a variant of an enum.
struct Variant {
    provider: String,
    rest: Value,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = Value;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Value), Error> {
        let name: StringDeserializer<Error> = self.provider.into_deserializer();
        Ok((seed.deserialize(name).map_err(|error| error.within(PROVIDER))?, self.rest))
    }
}

impl<'de> VariantAccess<'de> for Value {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Deserialize::deserialize(self)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }
}

struct Items(std::iter::Enumerate<std::vec::IntoIter<Value>>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((index, value)) = self.0.next() else { return Ok(None) };
        seed.deserialize(value).map(Some).map_err(|error| error.within(&format!("[{index}]")))
    }
}

struct Entries {
    entries: std::collections::btree_map::IntoIter<String, Value>,
    value: Option<(String, Value)>,
}

impl Entries {
    fn new(table: Table) -> Self {
        Self { entries: table.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some((key.clone(), value));
        let key: StringDeserializer<Error> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let (key, value) = self.value.take().ok_or_else(|| Error::custom("expected a value"))?;
        seed.deserialize(value).map_err(|error| error.within(&key))
    }
}

impl Error {
    fn custom(expected: impl Display) -> Self {
        Self { path: Vec::new(), problem: Problem::Expected(expected.to_string()) }
    }

    fn within(mut self, key: &str) -> Self {
        self.path.push(key.to_owned());
        self
    }
}

impl serde::de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self::custom(message)
    }

    fn invalid_type(_secret: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let is_number = |word: &str| {
            let digits = word.trim_start_matches(['u', 'i']);
            digits.len() < word.len() && (digits == "size" || digits.parse::<u8>().is_ok())
        };
        if expected.split(' ').any(is_number) {
            Self::custom(EXPECTED_NUMBER)
        } else if expected.starts_with("struct ") {
            Self::custom(EXPECTED_TABLE)
        } else {
            Self::custom(format_args!("expected {expected}"))
        }
    }

    fn invalid_value(secret: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(secret, expected)
    }

    fn unknown_variant(_secret: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("expected {}", expected.join(" or ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self { path: vec![field.to_owned()], problem: Problem::Unknown(expected) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { path: vec![field.to_owned()], problem: Problem::Missing }
    }
}

impl std::error::Error for Error {}

impl Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the configuration cannot be used")
    }
}

impl From<Error> for ConfigError {
    fn from(error: Error) -> Self {
        let path = error.path.into_iter().rev();
        let key = path.reduce(|path, key| match key.starts_with('[') {
            true => path + &key,
            false => path + "." + &key,
        });
        let key = key.unwrap_or_else(|| "the configuration".to_owned());
        match error.problem {
            Problem::Missing => Self::Missing { key },
            Problem::Unknown(expected) => Self::Unknown { key, expected },
            Problem::Expected(expected) => Self::Value { key, expected },
            Problem::File(path, problem) => Self::ValueFile { key, path, problem },
        }
    }
}
