//! The text that Telegram gives a page: percent-encoded fields.

use std::collections::BTreeMap;

use super::LaunchError;

/// Telegram's own are below 1,000 bytes.
const MAX_LENGTH: usize = 4_096;
const MAX_FIELDS: usize = 32;

/// Decoded fields, by their keys.
pub(super) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Splits and decodes the text. Every ambiguity is refused: a repeated key, a key of other
    /// characters than Telegram's, and control characters, which separate signed fields.
    pub(super) fn parse(text: &str) -> Result<Self, LaunchError> {
        if text.len() > MAX_LENGTH {
            return Err(LaunchError::Malformed("too long"));
        }
        let mut fields = Self(BTreeMap::new());
        for field in text.split('&') {
            let (key, value) =
                field.split_once('=').ok_or(LaunchError::Malformed("a field without a value"))?;
            fields.insert(key.to_owned(), decode(value)?)?;
        }
        Ok(fields)
    }

    /// Reads the fields of [`Fields::signed_text`] back.
    pub(super) fn of_signed_text(text: &str) -> Result<Self, LaunchError> {
        let mut fields = Self(BTreeMap::new());
        for line in text.split('\n') {
            let (key, value) =
                line.split_once('=').ok_or(LaunchError::Malformed("a field without a value"))?;
            fields.insert(key.to_owned(), value.to_owned())?;
        }
        Ok(fields)
    }

    fn insert(&mut self, key: String, value: String) -> Result<(), LaunchError> {
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if key.is_empty() || !key.bytes().all(is_plain) {
            return Err(LaunchError::Malformed("not a key"));
        }
        if value.chars().any(char::is_control) {
            return Err(LaunchError::Malformed("a control character"));
        }
        if self.0.insert(key, value).is_some() {
            return Err(LaunchError::Malformed("a repeated field"));
        }
        if self.0.len() > MAX_FIELDS {
            return Err(LaunchError::Malformed("too many fields"));
        }
        Ok(())
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// What Telegram signs below the line with the bot: all fields but the two signatures, sorted.
    /// Fields that this version does not know stay in.
    pub(super) fn signed_text(&self) -> String {
        let signed = self.0.iter().filter(|(key, _)| !matches!(key.as_str(), "hash" | "signature"));
        signed.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("\n")
    }
}

/// Decodes as Telegram's own script does: `+` is a space.
fn decode(text: &str) -> Result<String, LaunchError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                high.zip(low)
                    .and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
                    .ok_or(LaunchError::Malformed("a broken percent sign"))?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).map_err(|_bytes| LaunchError::Malformed("not UTF-8"))
}
