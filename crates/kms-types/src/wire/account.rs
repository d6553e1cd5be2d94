//! Accounts, their passwords, their balance, and names.

use serde::{Deserialize, Serialize};

use crate::{
    AccountId, Email, EthAddress, Mobile, Passphrase, PasswordHash, TelegramId, Timestamp, Token,
    Units, Username, Wei,
};

/// `POST /v1/accounts`: a wallet for a Telegram user. Repeating it with the same password answers
/// with the same account.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// Whose wallet it is.
    pub telegram_id: TelegramId,
    /// `v1.` and 64 hex digits, made by the client from the password.
    pub password_hash: PasswordHash,
    /// The username Telegram showed with the update that led here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Username>,
    /// When Telegram showed it. Without it the name is not bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Timestamp>,
    /// A mobile number, if the user gave one. Stored sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mobile: Option<Mobile>,
    /// An e-mail address, if the user gave one. Stored sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
}

/// Whether an account may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// It may.
    Active,
    /// The operator stopped it: it reads, but nothing is signed.
    Frozen,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

/// An account and its wallet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Account {
    /// The KMS's own id.
    pub id: AccountId,
    /// Whose it is.
    pub telegram_id: TelegramId,
    /// The name that pays into it, if it holds one.
    pub username: Option<Username>,
    /// The wallet's address.
    pub address: EthAddress,
    /// Whether it may act.
    pub state: AccountState,
    /// Since when there is a wallet, in milliseconds since 1970.
    pub created_at: Timestamp,
    /// The mobile number, masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mobile: Option<String>,
    /// The e-mail address, masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Since when it is known that the e-mail address is the account's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_verified_at: Option<Timestamp>,
    /// When the password was last replaced by a recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_at: Option<Timestamp>,
}

/// `PUT /v1/accounts/{account}/password`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The password that works now.
    pub old_password_hash: PasswordHash,
    /// The password that shall work from now on.
    pub new_password_hash: PasswordHash,
}

/// `POST /v1/accounts/{account}/export`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExportKey {
    /// The wallet's password.
    pub password_hash: PasswordHash,
}

/// The answer to [`ExportKey`]: whoever has both texts has the money.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedKey {
    /// The wallet's address.
    pub address: EthAddress,
    /// A file that other wallets import: the JSON of Web3 Secret Storage, version 3.
    pub keystore: String,
    /// What opens the file. Shown this once; best kept apart from it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub passphrase: Passphrase,
}

/// `PUT /v1/accounts/{account}/username`: what an authenticated Telegram update showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SeenUsername {
    /// The username, or none.
    pub username: Option<Username>,
    /// When Telegram made the update, in milliseconds since 1970.
    pub seen_at: Timestamp,
}

/// `GET /v1/accounts/{account}/balance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Balance {
    /// The wallet's address.
    pub address: EthAddress,
    /// The native coin, in wei, at `block`.
    pub wei: Wei,
    /// What signed transfers that are not mined yet may still take from it, in wei.
    pub pending: Wei,
    /// The tokens that are known here, in the order in which they are configured.
    #[serde(default)]
    pub tokens: Vec<TokenBalance>,
    /// The block that was asked.
    pub block: u64,
}

/// How much of a token a wallet has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenBalance {
    /// Which token.
    pub token: Token,
    /// How much, in its smallest unit; nothing, if its contract does not say.
    pub units: Option<Units>,
    /// What signed transfers that are not mined yet may still take from it.
    pub pending: Units,
}

/// `GET /v1/names/{username}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NameRecord {
    /// The name as its holder writes it.
    pub username: Username,
    /// The Telegram user who holds it.
    pub telegram_id: TelegramId,
    /// Where money for the name goes.
    pub address: EthAddress,
    /// Since when the holder has a wallet.
    pub account_since: Timestamp,
    /// When the name came from somebody else, if that is less than 30 days ago.
    pub moved_at: Option<Timestamp>,
}

/// `GET /v1/network`: the chain that money moves on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Network {
    /// What people call it.
    pub name: String,
    /// Its number (EIP-155).
    pub chain_id: u64,
    /// The symbol of its native coin.
    pub symbol: String,
    /// The tokens that can be paid with.
    #[serde(default)]
    pub tokens: Vec<Token>,
    /// A block explorer; a transaction is at `{explorer}/tx/{hash}`.
    pub explorer: Option<String>,
}
