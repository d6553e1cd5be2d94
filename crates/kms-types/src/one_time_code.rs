//! One-time codes that the server sends by e-mail and the user types.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Eight digits that prove access to a mailbox. A secret: its `Debug` is empty and it has no
/// `Display`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OneTimeCode(Zeroizing<String>);

/// The text is not a code. It does not quote the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a code is 8 digits; a space in the middle does not matter")]
pub struct OneTimeCodeError;

impl OneTimeCode {
    const DIGITS: usize = 8;

    /// Derives a code from 64 bits.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(Zeroizing::new(format!("{:08}", bits % 100_000_000)))
    }

    /// Returns the digits.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for OneTimeCode {
    type Err = OneTimeCodeError;

    fn from_str(text: &str) -> Result<Self, OneTimeCodeError> {
        let digits: String = text.trim().chars().filter(|c| !matches!(c, ' ' | '-')).collect();
        let digits = Zeroizing::new(digits);
        let valid = digits.len() == Self::DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        if valid { Ok(Self(digits)) } else { Err(OneTimeCodeError) }
    }
}

impl TryFrom<String> for OneTimeCode {
    type Error = OneTimeCodeError;

    fn try_from(text: String) -> Result<Self, OneTimeCodeError> {
        Zeroizing::new(text).parse()
    }
}

impl From<OneTimeCode> for String {
    fn from(code: OneTimeCode) -> String {
        code.expose().to_owned()
    }
}

impl fmt::Debug for OneTimeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTimeCode(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_codes_as_people_type_them() {
        for text in ["01234567", " 0123 4567\n", "0123-4567"] {
            assert_eq!(text.parse::<OneTimeCode>().unwrap().expose(), "01234567");
        }
        for bad in ["", "1234567", "123456789", "1234567a", "١٢٣٤٥٦٧٨"] {
            assert!(bad.parse::<OneTimeCode>().is_err(), "{bad}");
        }
        assert_eq!(OneTimeCode::from_bits(u64::MAX).expose(), "09551615");
        assert_eq!(format!("{:?}", OneTimeCode::from_bits(1)), "OneTimeCode(..)");
    }
}
