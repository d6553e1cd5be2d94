//! The password as a client stretched it. A secret as sensitive as the password itself.

use std::fmt;

use alloy_primitives::hex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// The stretched password that a client sends: 32 bytes, and the version of the derivation
/// (`kms-client` documents version 1).
///
/// In JSON it is `v1.` and 64 lower-case hex digits. It serializes, because it is made to be sent;
/// it has no `Display`, and its `Debug` is empty.
pub struct PasswordHash {
    version: u8,
    bytes: Box<Zeroizing<[u8; 32]>>,
}

/// The text is not a password hash. It does not quote the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a password hash is v1. and 64 lower-case hexadecimal digits")]
pub struct PasswordHashError;

impl PasswordHash {
    /// The version of the current derivation.
    pub const VERSION: u8 = 1;

    /// Makes a hash of the current version; `fill` writes the bytes in place.
    pub fn fill(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        fill(&mut bytes);
        Self { version: Self::VERSION, bytes }
    }

    /// Returns the version of the derivation.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Returns the secret bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    fn parse(text: &str) -> Result<Self, PasswordHashError> {
        let digits = text.strip_prefix("v1.").ok_or(PasswordHashError)?;
        if digits.len() != 64 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(PasswordHashError);
        }
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        hex::decode_to_slice(digits, bytes.as_mut_slice()).map_err(|_secret| PasswordHashError)?;
        Ok(Self { version: Self::VERSION, bytes })
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

impl Serialize for PasswordHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = Zeroizing::new(hex::encode(self.expose()));
        serializer.serialize_str(&Zeroizing::new(format!("v1.{}", *digits)))
    }
}

impl<'de> Deserialize<'de> for PasswordHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = PasswordHash;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&PasswordHashError, f)
            }

            /// Does not quote the input, which may be a password sent by mistake.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<PasswordHash, E> {
                PasswordHash::parse(text).map_err(E::custom)
            }

            // serde's default errors for other types quote the value.
            fn visit_u64<E: de::Error>(self, _secret: u64) -> Result<PasswordHash, E> {
                Err(E::custom(PasswordHashError))
            }

            fn visit_i64<E: de::Error>(self, _secret: i64) -> Result<PasswordHash, E> {
                Err(E::custom(PasswordHashError))
            }

            fn visit_f64<E: de::Error>(self, _secret: f64) -> Result<PasswordHash, E> {
                Err(E::custom(PasswordHashError))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_is_hidden_from_debug() {
        let hash = PasswordHash::fill(|bytes| bytes.fill(0xab));
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(json, format!("\"v1.{}\"", "ab".repeat(32)));
        let read: PasswordHash = serde_json::from_str(&json).unwrap();
        assert_eq!(read.expose(), hash.expose());
        assert_eq!(format!("{hash:?}"), "PasswordHash(..)");
    }

    #[test]
    fn refuses_other_forms_without_quoting_them() {
        let upper = format!("v1.{}", "AB".repeat(32));
        let short = format!("v1.{}", "ab".repeat(31));
        for bad in ["hunter2", "v2.00", "", &upper, &short] {
            let error = serde_json::from_str::<PasswordHash>(&format!("\"{bad}\"")).unwrap_err();
            assert!(error.is_data() && !error.to_string().contains("hunter2"), "{error}");
        }
        for number in ["12345678", "-12345678", "12345678.5"] {
            let error = serde_json::from_str::<PasswordHash>(number).unwrap_err();
            assert!(error.is_data() && !error.to_string().contains("12345678"), "{error}");
        }
    }
}
