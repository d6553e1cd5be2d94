//! Bearer tokens: the one that a caller holds, and the hash that the database keeps, are two
//! types.

use std::fmt;
use std::str::FromStr;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

const PREFIX: &str = "kms_";

/// A token as its caller sends it: `kms_` and 64 hex digits. Shown once, when it is made.
pub struct BearerToken(Zeroizing<String>);

/// The text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is kms_ and 64 lower-case hexadecimal digits")]
pub struct BearerTokenError;

impl BearerToken {
    /// A new random token.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn random() -> Result<Self, ring::error::Unspecified> {
        let mut bytes = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(bytes.as_mut_slice())?;
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 64));
        text.push_str(PREFIX);
        for byte in bytes.iter() {
            text.push_str(&format!("{byte:02x}"));
        }
        Ok(Self(text))
    }

    /// The text to hand to its caller.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256: 256 random bits need no slow hash.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, self.0.as_bytes()).as_ref());
        hash
    }
}

impl FromStr for BearerToken {
    type Err = BearerTokenError;

    fn from_str(text: &str) -> Result<Self, BearerTokenError> {
        let digits = text.strip_prefix(PREFIX).ok_or(BearerTokenError)?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digits.len() == 64 && digits.bytes().all(hex) {
            Ok(Self(Zeroizing::new(text.to_owned())))
        } else {
            Err(BearerTokenError)
        }
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_parse_and_hide() {
        let token = BearerToken::random().unwrap();
        assert_eq!(token.expose().parse::<BearerToken>().unwrap().hash(), token.hash());
        assert_eq!(format!("{token:?}"), "BearerToken(..)");
        for bad in ["", "kms_", &token.expose()[..67], &token.expose().to_uppercase()] {
            assert_eq!(bad.parse::<BearerToken>().unwrap_err(), BearerTokenError);
        }
    }
}
