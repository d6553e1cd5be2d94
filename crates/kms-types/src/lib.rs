//! What the processes of the wallet KMS must agree on: identifiers, the grammars of usernames,
//! addresses and amounts, the requests and responses of the HTTP API, and its error codes.
//!
//! Everything here is parsed once, at the edge, into a type that can only hold a valid value.
//! This crate does no I/O, reads no clock and holds no rule of business: it must never decide
//! anything, only say what can be said.

mod address;
mod amount;
mod asset;
mod contact;
mod error;
mod ids;
mod one_time_code;
#[cfg(feature = "openapi")]
mod openapi;
mod passphrase;
mod password_hash;
mod recipient;
mod telegram_id;
mod text_table;
mod timestamp;
mod username;
pub mod wire;

pub use address::{AddressError, EthAddress};
pub use alloy_primitives::U256;
pub use amount::{Amount, AmountError, QuoteAmount, Units, Wei};
pub use asset::{Asset, Symbol, SymbolError, Token, TokenAmount};
pub use contact::{ContactError, Email, Mobile};
pub use error::{ErrorCode, LimitReached, Problem};
pub use ids::{
    AccountId, AccountRef, EventCursor, IdError, IncomingId, RecoveryId, SckId, TransferId,
};
pub use one_time_code::{OneTimeCode, OneTimeCodeError};
pub use passphrase::Passphrase;
pub use password_hash::{PasswordHash, PasswordHashError};
pub use recipient::{Recipient, RecipientError};
pub use telegram_id::{TelegramId, TelegramIdError};
pub use text_table::UnknownText;
pub use timestamp::Timestamp;
pub use username::{Username, UsernameError};
