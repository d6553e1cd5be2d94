//! What a record states beside its columns, in a canonical text that the chain covers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest;

/// Names and values, for instance the recipient of a payment. No secret and no plaintext contact is
/// among them.
///
/// As text (`FORMAT.md`, "Audit details"): a line `name=value` each, in the order of the names.
/// Equal details have equal texts, and every text that is parsed is the one that is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details(BTreeMap<Cow<'static, str>, String>);

/// The text is not that of any details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected lines `name=value`, ordered by name, without control characters")]
pub struct DetailsFormat;

impl Details {
    /// Adds a value. Control characters in it, line breaks among them, become spaces.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        debug_assert!(is_name(name), "{name}");
        let value = value.to_string().replace(char::is_control, " ");
        self.0.insert(Cow::Borrowed(name), value);
        self
    }

    /// Adds a value, if there is one.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds the SHA-256 of sealed bytes, which identifies them and reveals nothing.
    #[must_use]
    pub fn with_digest(self, name: &'static str, sealed: &[u8]) -> Self {
        self.with(name, hex::encode(sha256(sealed)))
    }

    /// Adds all values of `other`, which replace those with the same name.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns a value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// What is found out during an action, for the record of its outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Details>>);

impl Notes {
    pub(crate) fn add(&self, details: Details) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).merge(details);
    }

    pub(crate) fn take(&self) -> Details {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, value)) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "\n" };
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

impl FromStr for Details {
    type Err = DetailsFormat;

    fn from_str(text: &str) -> Result<Self, DetailsFormat> {
        let mut details = BTreeMap::<Cow<'static, str>, String>::new();
        let lines = if text.is_empty() { None } else { Some(text.split('\n')) };
        for line in lines.into_iter().flatten() {
            let (name, value) = line.split_once('=').ok_or(DetailsFormat)?;
            let is_next = details.last_key_value().is_none_or(|(last, _)| last.as_ref() < name);
            if !is_name(name) || !is_next || value.contains(char::is_control) {
                return Err(DetailsFormat);
            }
            details.insert(Cow::Owned(name.to_owned()), value.to_owned());
        }
        Ok(Self(details))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_text_is_ordered_by_name_and_has_a_line_for_each_value() {
        let details = Details::default()
            .with("to", "0xab")
            .with("chain", 1)
            .with_some("token", None::<&str>)
            .with("reason", "a=b\nto=0xcd\r\u{85}");
        assert_eq!(details.to_string(), "chain=1\nreason=a=b to=0xcd  \nto=0xab");
        assert_eq!(details.to_string().parse(), Ok(details));
        assert_eq!("".parse(), Ok(Details::default()));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["x", "=", "A=1", "a b=1", "a=1\n", "\na=1", "b=1\na=1", "a=1\na=2", "a=\t"] {
            assert_eq!(bad.parse::<Details>(), Err(DetailsFormat), "{bad}");
        }
    }

    /// Texts that are often, but not always, those of details.
    const LINES: &str = "([a-c_]{0,2}=[a-c=\u{0}-\u{20}]{0,2}\n?){0,4}";

    proptest! {
        #[test]
        fn what_is_parsed_is_what_is_written(text in LINES) {
            if let Ok(details) = text.parse::<Details>() {
                prop_assert_eq!(details.to_string(), text);
            }
        }

        #[test]
        fn any_value_is_read_back(one in any::<String>(), other in any::<String>()) {
            let details = Details::default().with("reason", one).with("name", other);
            prop_assert_eq!(details.to_string().parse(), Ok(details));
        }
    }
}
