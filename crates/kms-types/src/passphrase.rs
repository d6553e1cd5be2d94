//! The passphrase of an exported key file.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// The passphrase of an exported key: shown once, stored nowhere. Zeroized on drop.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Returns the text to show.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<Zeroizing<String>> for Passphrase {
    fn from(text: Zeroizing<String>) -> Self {
        Self(text)
    }
}

impl Serialize for Passphrase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Passphrase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serializes_and_is_hidden_from_debug() {
        let passphrase: Passphrase = serde_json::from_str("\"7xkq2\"").unwrap();
        assert_eq!(passphrase.expose(), "7xkq2");
        assert_eq!(serde_json::to_string(&passphrase).unwrap(), "\"7xkq2\"");
        assert_eq!(format!("{passphrase:?}"), "Passphrase(..)");
    }
}
