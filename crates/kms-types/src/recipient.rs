//! The recipient of a payment as people write it. A text of one class is never tried as another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{AddressError, EthAddress, Username, UsernameError};

/// The recipient of a payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Recipient {
    /// `@bob` or `bob`.
    Username(Username),
    /// `0x` and 40 hex digits.
    Address(EthAddress),
}

/// Why a text is not a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// Begins like an address and is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Has a dot, as ENS names do.
    #[error("ENS names are not supported yet; write a @username or an address")]
    Ens,
    /// Not a username.
    #[error(transparent)]
    Username(#[from] UsernameError),
}

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, RecipientError> {
        if text.starts_with("0x") || text.starts_with("0X") {
            return Ok(Self::Address(text.parse()?));
        }
        if text.contains('.') {
            return Err(RecipientError::Ens);
        }
        Ok(Self::Username(text.parse()?))
    }
}

impl TryFrom<String> for Recipient {
    type Error = RecipientError;

    fn try_from(text: String) -> Result<Self, RecipientError> {
        text.parse()
    }
}

impl From<Recipient> for String {
    fn from(recipient: Recipient) -> String {
        recipient.to_string()
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Username(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_address_or_ens_name_is_not_tried_as_a_username() {
        assert!(matches!("@bob".parse(), Ok(Recipient::Username(_))));
        assert!(matches!(
            "0x52908400098527886E0F7030069857D2E4169EE7".parse(),
            Ok(Recipient::Address(_))
        ));
        assert_eq!("0xbob".parse::<Recipient>(), Err(AddressError::Format.into()));
        assert_eq!("0Xbob".parse::<Recipient>(), Err(AddressError::Format.into()));
        assert_eq!("bob.eth".parse::<Recipient>(), Err(RecipientError::Ens));
        assert_eq!("b b".parse::<Recipient>(), Err(UsernameError::Character.into()));
    }
}
