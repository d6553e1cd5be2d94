//! The key that binds an opening of the vault page to the page that opened it.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::hex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;
use zeroize::Zeroizing;

/// 32 random bytes, made by the page and kept in its memory: a secret, which authorizes one
/// purpose for minutes. In JSON and in headers it is 64 lower-case hex digits; `Debug` is empty.
pub struct LaunchKey(Box<Zeroizing<[u8; 32]>>);

/// The text is not a key. It does not quote the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a launch key is 64 lower-case hexadecimal digits")]
pub struct LaunchKeyError;

impl LaunchKey {
    /// Makes a key; `fill` writes random bytes in place.
    pub fn fill(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        fill(&mut bytes);
        Self(bytes)
    }

    /// Makes a key of 244 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self::fill(|bytes| {
            for half in bytes.chunks_exact_mut(16) {
                half.copy_from_slice(Uuid::new_v4().as_bytes());
            }
        })
    }

    /// Returns the key as it is sent.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.expose()))
    }

    /// Returns the secret bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for LaunchKey {
    type Err = LaunchKeyError;

    fn from_str(text: &str) -> Result<Self, LaunchKeyError> {
        if text.len() != 64 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(LaunchKeyError);
        }
        let mut key = Self::fill(|_| ());
        hex::decode_to_slice(text, key.0.as_mut_slice()).map_err(|_secret| LaunchKeyError)?;
        Ok(key)
    }
}

impl fmt::Debug for LaunchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaunchKey(..)")
    }
}

impl Serialize for LaunchKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for LaunchKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_lower_case_digits_are_a_key_and_debug_hides_them() {
        let key = LaunchKey::fill(|bytes| bytes.fill(0xab));
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{}\"", "ab".repeat(32)));
        let read: LaunchKey = serde_json::from_str(&json).unwrap();
        assert_eq!((read.expose(), format!("{read:?}").as_str()), (key.expose(), "LaunchKey(..)"));
        for bad in ["", "ab", &"AB".repeat(32), &"0x".repeat(32), &"ab".repeat(33)] {
            assert_eq!(bad.parse::<LaunchKey>().unwrap_err(), LaunchKeyError, "{bad}");
        }
    }
}
