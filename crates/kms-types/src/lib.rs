//! The types that the processes of the wallet KMS share: identifiers, the grammars of usernames,
//! addresses and amounts, the requests and responses of the HTTP API, and its error codes.
//!
//! Input is parsed once, at the edge, into a type that holds valid values only. This crate does no
//! I/O, reads no clock and holds no business rule.
//!
//! ```
//! use kms_types::{Amount, EthAddress, Units};
//!
//! let amount: Amount = "0.5".parse()?;
//! assert_eq!(Units(amount.to_units(6)?).to_string(), "500000");
//! assert!("1,000".parse::<Amount>().is_err());
//!
//! // A mistyped digit breaks the checksum of EIP-55.
//! assert!("0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed".parse::<EthAddress>().is_err());
//! # Ok::<(), kms_types::AmountError>(())
//! ```

mod address;
mod amount;
mod asset;
mod contact;
mod error;
mod event;
mod ids;
mod launch;
mod one_time_code;
#[cfg(feature = "openapi")]
mod openapi;
mod other_chain;
mod page;
mod passphrase;
mod password_hash;
mod recipient;
mod telegram_id;
mod text_table;
mod timestamp;
mod trace_id;
mod typed_amount;
mod typed_recipient;
mod username;
mod usernames;
mod visible;
pub mod wire;

pub use address::{AddressError, EthAddress};
pub use alloy_primitives::U256;
pub use amount::{Amount, AmountError, QuoteAmount, Units, Wei};
pub use asset::{Asset, AssetId, AssetIdError, Symbol, SymbolError, Token, TokenAmount};
pub use contact::{ContactError, Email, Mobile};
pub use error::{ErrorCode, LimitReached, Problem};
pub use event::{
    AccountEvent, DepositEvent, EventKind, EventStream, RecoveryStep, Remedy, SecurityEvent,
    TransferEvent,
};
pub use ids::{
    AccountId, AccountRef, DepositId, EventCursor, IdError, RecoveryId, ReplacementId, SckId,
    TransferId,
};
pub use launch::{LaunchKey, LaunchKeyError};
pub use one_time_code::{OneTimeCode, OneTimeCodeError};
pub use page::{AppLink, AppLinkError, Purpose, PurposeError};
pub use passphrase::Passphrase;
pub use password_hash::{PasswordHash, PasswordHashError};
pub use recipient::{Recipient, RecipientError};
pub use telegram_id::{TelegramId, TelegramIdError};
pub use text_table::UnknownText;
pub use timestamp::{Timestamp, TimestampError};
pub use trace_id::{TraceId, TraceIdError};
pub use typed_amount::TypedAmount;
pub use typed_recipient::{TypedRecipient, TypedRecipientError};
pub use username::{Username, UsernameError};
pub use usernames::{NameOrigin, TooManyUsernames, Usernames};
pub use visible::visible;
