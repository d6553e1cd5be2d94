//! API tokens: the secret that a caller sends and the hash that is stored are two types, so that a
//! plaintext token cannot be stored by mistake.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::random;

const PREFIX: &str = "kms_";
const BYTES: usize = 32;

/// A token in plaintext: `kms_` and 64 lower-case hex digits. Shown once, when it is created;
/// zeroized on drop.
pub struct PlainToken(Zeroizing<String>);

/// The SHA-256 of a token, as it is stored. Compared in constant time.
#[derive(Clone, Copy)]
pub struct HashedToken([u8; 32]);

/// The text is not the hash of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the 64 hexadecimal digits that `kms-server token generate` prints")]
pub struct HashedTokenError;

/// The text is not a token. It says nothing about the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is kms_ and 64 lower-case hexadecimal digits")]
pub struct PlainTokenError;

impl PlainToken {
    /// Generates a token from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; BYTES]);
        random::fill(bytes.as_mut_slice());
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 2 * BYTES));
        text.push_str(PREFIX);
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
        Self(text)
    }

    /// The text to hand to the caller.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Hashes the token. 256 random bits need no slow hash.
    #[must_use]
    pub fn hash(&self) -> HashedToken {
        HashedToken(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl FromStr for PlainToken {
    type Err = PlainTokenError;

    fn from_str(text: &str) -> Result<Self, PlainTokenError> {
        let digits = text.strip_prefix(PREFIX).ok_or(PlainTokenError)?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digits.len() == 2 * BYTES && digits.bytes().all(hex) {
            Ok(Self(Zeroizing::new(text.to_owned())))
        } else {
            Err(PlainTokenError)
        }
    }
}

impl fmt::Debug for PlainToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainToken(..)")
    }
}

impl HashedToken {
    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for HashedToken {
    type Err = HashedTokenError;

    fn from_str(text: &str) -> Result<Self, HashedTokenError> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_text| HashedTokenError)?;
        Ok(Self(hash))
    }
}

impl From<[u8; 32]> for HashedToken {
    fn from(stored: [u8; 32]) -> Self {
        Self(stored)
    }
}

impl PartialEq for HashedToken {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for HashedToken {}

impl Hash for HashedToken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for HashedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashedToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_is_hidden_from_debug() {
        let token = PlainToken::generate();
        let again: PlainToken = token.expose().parse().unwrap();
        assert_eq!(again.hash(), token.hash());
        assert_ne!(PlainToken::generate().hash(), token.hash());
        assert_eq!(format!("{token:?} {:?}", token.hash()), "PlainToken(..) HashedToken(..)");
    }

    #[test]
    fn the_hash_is_sha256_of_the_text() {
        let token: PlainToken = format!("kms_{}", "0".repeat(64)).parse().unwrap();
        let expected = "64160c6d7d7ebc21cd25f9b01b8697de";
        let text = hex::encode(token.hash().as_bytes());
        assert_eq!(&text[..32], expected);
        assert_eq!(text.parse(), Ok(token.hash()));
        for bad in ["", "64160c", &text[1..], token.expose()] {
            assert_eq!(bad.parse::<HashedToken>(), Err(HashedTokenError), "{bad}");
        }
    }

    #[test]
    fn only_64_lower_case_hex_digits_after_the_prefix_are_a_token() {
        let token = PlainToken::generate();
        let text = token.expose();
        let (short, upper) = (&text[..67], text.to_uppercase());
        let (long, other) = (format!("{text}0"), text.replace("kms_", "kmS_"));
        for bad in ["", "kms_", short, &*upper, &*long, &*other] {
            assert_eq!(bad.parse::<PlainToken>().unwrap_err(), PlainTokenError);
        }
    }
}
