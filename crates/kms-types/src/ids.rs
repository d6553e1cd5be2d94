//! Identifiers, each a type of its own so that they cannot be mixed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::TelegramId;

/// The text is not an identifier of the kind that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct IdError {
    expected: &'static str,
}

// UUIDs of version 7 begin with the time, so that rows of about the same time are on the same pages
// of an index.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        uuid_id!($(#[$doc])* $name = Uuid::now_v7());
    };
    ($(#[$doc:meta])* $name:ident = $new:expr) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// Makes an id that no other has.
            #[must_use]
            pub fn random() -> Self {
                Self($new)
            }

            /// Returns the 16 bytes, in the order of RFC 9562.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Makes an id of its 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Parses hyphenated lower-case text only, so that an id has one spelling.
            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = IdError { expected: "a UUID in lower case with hyphens" };
                let id = Uuid::try_parse(text).map_err(|_cause| error)?;
                if id.hyphenated().to_string() == text { Ok(Self(id)) } else { Err(error) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

uuid_id!(
    /// The id of an account. Chosen by the server.
    AccountId
);
uuid_id!(
    /// The id of a transfer. Chosen by the client with the quote, so that repeats are recognized.
    TransferId
);
uuid_id!(
    /// The id of a request to sign a transfer again at higher prices. Chosen by the client.
    ReplacementId
);
uuid_id!(
    /// The id of an external deposit. Chosen by the server.
    DepositId
);
uuid_id!(
    /// The id of a recovery. Chosen by the client.
    RecoveryId
);
uuid_id!(
    /// The id of a wrapped symmetric cryptographic key (SCK), a wallet's key-encryption key.
    /// Random (UUID version 4): the key database does not know when a wallet was made.
    SckId = Uuid::new_v4()
);

/// How a request names an account: by its id, or by `telegram:` and the owner's Telegram user id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AccountRef {
    /// The account with this id.
    Id(AccountId),
    /// The account of this Telegram user.
    Telegram(TelegramId),
}

impl FromStr for AccountRef {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = IdError { expected: "an account's UUID, or telegram: and a Telegram user id" };
        match text.strip_prefix("telegram:") {
            Some(id) => id.parse().map(Self::Telegram).map_err(|_cause| error),
            None => text.parse().map(Self::Id).map_err(|_cause| error),
        }
    }
}

impl TryFrom<String> for AccountRef {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<AccountRef> for String {
    fn from(account: AccountRef) -> String {
        account.to_string()
    }
}

impl From<AccountId> for AccountRef {
    fn from(id: AccountId) -> Self {
        Self::Id(id)
    }
}

impl From<TelegramId> for AccountRef {
    fn from(id: TelegramId) -> Self {
        Self::Telegram(id)
    }
}

impl fmt::Display for AccountRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Telegram(id) => write!(f, "telegram:{id}"),
        }
    }
}

/// A position in the stream of events, in commit order: `transaction-sequence`. The start is `0-0`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct EventCursor {
    /// The database transaction that wrote the event; 0 where the sequence is commit order.
    pub transaction: i64,
    /// The number of the event.
    pub sequence: i64,
}

impl FromStr for EventCursor {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = IdError { expected: "a cursor that an earlier page returned" };
        let (transaction, sequence) = text.split_once('-').ok_or(error)?;
        let number = |digits: &str| match digits.parse::<i64>() {
            Ok(number) if number >= 0 && number.to_string() == digits => Ok(number),
            _ => Err(error),
        };
        Ok(Self { transaction: number(transaction)?, sequence: number(sequence)? })
    }
}

impl TryFrom<String> for EventCursor {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<EventCursor> for String {
    fn from(cursor: EventCursor) -> String {
        cursor.to_string()
    }
}

impl fmt::Display for EventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.transaction, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = AccountId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().to_uppercase().parse::<AccountId>().is_err());
        assert!(id.to_string().replace('-', "").parse::<AccountId>().is_err());
        assert!(format!("{{{id}}}").parse::<AccountId>().is_err());
    }

    #[test]
    fn an_account_has_two_kinds_of_id() {
        let id = AccountId::random();
        assert_eq!(id.to_string().parse(), Ok(AccountRef::Id(id)));
        let telegram = TelegramId::try_from(42).unwrap();
        assert_eq!("telegram:42".parse(), Ok(AccountRef::Telegram(telegram)));
        assert_eq!(AccountRef::Telegram(telegram).to_string(), "telegram:42");
        for bad in ["telegram:", "telegram:0", "telegram:-1", "42", "Telegram:42", "telegram: 42"] {
            assert!(bad.parse::<AccountRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_is_two_numbers() {
        let cursor = EventCursor { transaction: 12, sequence: 3 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "-", "1", "1-", "-1-2", "1-02", "1-2-3", "a-b"] {
            assert!(bad.parse::<EventCursor>().is_err(), "{bad}");
        }
    }
}
