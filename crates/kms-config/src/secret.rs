//! Configured text that must not be shown.

use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::file::{self, FileError};

/// A password, a token or a URL that holds one. Zeroized when dropped; `Debug` shows nothing.
///
/// It is not read from a TOML file that other users can read.
#[derive(Clone)]
pub struct Secret {
    text: Zeroizing<String>,
    /// The file that holds it, if its key ended in `_file`.
    file: Option<PathBuf>,
}

impl Secret {
    /// The name by which the deserializer of settings recognizes a secret.
    pub(crate) const NAME: &str = "Secret";

    /// Returns the text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Reads it again, if it came from a file of its own; otherwise returns the same text.
    ///
    /// # Errors
    /// When the file cannot be read, or others can read it meanwhile.
    pub fn reread(&self) -> Result<Self, FileError> {
        let Some(path) = &self.file else { return Ok(self.clone()) };
        Ok(Self { text: file::read_value(path)?, file: self.file.clone() })
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self { text: Zeroizing::new(text), file: None }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(Self::NAME, SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Secret, D::Error> {
        String::deserialize(inner).map(Secret::from)
    }

    /// The text, and the path of the file that it was read from.
    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Secret, A::Error> {
        let missing = || A::Error::custom("expected a text");
        let text: String = parts.next_element()?.ok_or_else(missing)?;
        let file: String = parts.next_element()?.ok_or_else(missing)?;
        Ok(Secret { text: Zeroizing::new(text), file: Some(file.into()) })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::from("hunter2".to_owned())), "Secret(..)");
    }
}
