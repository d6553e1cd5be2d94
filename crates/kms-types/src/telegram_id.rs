//! The number by which Telegram identifies a user. Names and payments are bound to it alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A Telegram user id: positive, below 2^52, as the Bot API promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct TelegramId(i64);

/// The number is not a Telegram user id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a Telegram user id is a whole number from 1 to 2^52 - 1")]
pub struct TelegramIdError;

impl TelegramId {
    /// The greatest id: 2^52 - 1.
    pub const MAX: i64 = (1 << 52) - 1;

    /// The id as the signed number that Telegram and the databases use.
    #[must_use]
    pub fn as_i64(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for TelegramId {
    type Error = TelegramIdError;

    fn try_from(id: i64) -> Result<Self, TelegramIdError> {
        if (1..=Self::MAX).contains(&id) { Ok(Self(id)) } else { Err(TelegramIdError) }
    }
}

impl From<TelegramId> for i64 {
    fn from(id: TelegramId) -> i64 {
        id.0
    }
}

impl FromStr for TelegramId {
    type Err = TelegramIdError;

    /// Parses digits without sign, space or leading zero.
    fn from_str(text: &str) -> Result<Self, TelegramIdError> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        match text.parse::<i64>() {
            Ok(id) if canonical => id.try_into(),
            _ => Err(TelegramIdError),
        }
    }
}

impl fmt::Display for TelegramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_user_ids_only() {
        for bad in [0, -1, 1 << 52, i64::MIN, i64::MAX] {
            assert_eq!(TelegramId::try_from(bad), Err(TelegramIdError), "{bad}");
        }
        for bad in ["", "0", "01", "+1", "-1", " 1", "1 ", "1_0", "99999999999999999999"] {
            assert_eq!(bad.parse::<TelegramId>(), Err(TelegramIdError), "{bad:?}");
        }
        assert_eq!("4503599627370495".parse::<TelegramId>().unwrap().as_i64(), (1 << 52) - 1);
        assert!(serde_json::from_str::<TelegramId>("-5").is_err());
    }
}
