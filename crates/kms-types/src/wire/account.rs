//! Accounts, their passwords, their balance, and names.

use serde::{Deserialize, Serialize};

use crate::{
    AccountId, Email, EthAddress, Mobile, Passphrase, PasswordHash, TelegramId, Timestamp, Token,
    Units, Username, Usernames, Wei,
};

/// `POST /v1/accounts`: creates a wallet for a Telegram user. A repeat with the same password
/// returns the same account.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// The owner.
    pub telegram_id: TelegramId,
    /// The password, as the client stretched it: `v1.` and 64 hex digits.
    pub password_hash: PasswordHash,
    /// The usernames that Telegram showed with the update that led here.
    #[serde(default, skip_serializing_if = "Usernames::is_empty")]
    pub usernames: Usernames,
    /// When Telegram showed them. Required to bind the usernames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Timestamp>,
    /// A mobile number (E.164). Stored encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mobile: Option<Mobile>,
    /// An e-mail address. Stored encrypted.
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
    /// Its owner froze it: it can be read, but nothing is signed for it. The owner lifts that with
    /// the password, after a wait.
    FrozenByOwner,
    /// An operator froze it, and only an operator lifts that.
    Frozen,
    /// A state of a newer server.
    #[serde(other)]
    Unknown,
}

/// An account and its wallet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Account {
    /// The server's id of the account.
    pub id: AccountId,
    /// The owner.
    pub telegram_id: TelegramId,
    /// The username that payments to the wallet can name, if the owner holds one: of several, the
    /// one that Telegram shows first.
    pub username: Option<Username>,
    /// The wallet's address.
    pub address: EthAddress,
    /// Whether it may act.
    pub state: AccountState,
    /// When the owner's freeze is lifted, if the owner requested that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfreezes_at: Option<Timestamp>,
    /// Whether its owner acts on the vault page alone: no bearer token may do what needs a password
    /// or a recovery.
    #[serde(default)]
    pub page_only: bool,
    /// When that ends, if the owner requested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves_page_at: Option<Timestamp>,
    /// When the wallet was created.
    pub created_at: Timestamp,
    /// The bearer token that made the wallet; absent if its owner did on the vault page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The mobile number, masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mobile: Option<String>,
    /// The e-mail address, masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// When the e-mail address was confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_verified_at: Option<Timestamp>,
    /// When the password was last replaced by a recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_at: Option<Timestamp>,
}

/// `PUT /v1/accounts/{account}/password`: replaces the password.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The current password.
    pub old_password_hash: PasswordHash,
    /// The new password.
    pub new_password_hash: PasswordHash,
}

/// `POST /v1/accounts/{account}/unfreeze`: requests that the owner's freeze is lifted after a wait.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Unfreeze {
    /// The wallet's password.
    pub password_hash: PasswordHash,
}

/// `POST /app/v1/leave-page`: requests that bearer tokens may act for the account again, after a
/// wait.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LeavePage {
    /// The wallet's password.
    pub password_hash: PasswordHash,
}

/// `POST /v1/accounts/{account}/export`: exports the wallet's key.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExportKey {
    /// The wallet's password.
    pub password_hash: PasswordHash,
}

/// The response to [`ExportKey`]. Both texts together give full control of the wallet.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExportedKey {
    /// The wallet's address.
    pub address: EthAddress,
    /// A file that other wallets import: Web3 Secret Storage, version 3, as JSON.
    pub keystore: String,
    /// The passphrase of the file. It is returned once and stored nowhere; keep it apart from the
    /// file.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub passphrase: Passphrase,
}

/// `PUT /v1/accounts/{account}/usernames`: all usernames that an authenticated Telegram update
/// showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SeenUsernames {
    /// The usernames: the user holds no other. Empty if the user has none.
    pub usernames: Usernames,
    /// The time of the update.
    pub seen_at: Timestamp,
}

/// `GET /v1/accounts/{account}/balance`: the wallet's balances, by chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Balances {
    /// The wallet's address, which is the same on all chains.
    pub address: EthAddress,
    /// The chains, in the order of `GET /v1/networks`.
    pub chains: Vec<ChainBalance>,
}

impl Balances {
    /// Returns the balance on a chain, if an endpoint of it answered.
    #[must_use]
    pub fn on(&self, chain_id: u64) -> Option<&Balance> {
        self.chains.iter().find(|it| it.chain_id == chain_id)?.balance.as_ref()
    }
}

/// The wallet's balance on one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChainBalance {
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The balance; `null` while no endpoint of the chain is available.
    pub balance: Option<Balance>,
}

/// The balance of a wallet on a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Balance {
    /// The native coin, in wei, at `block`.
    pub wei: Wei,
    /// The most that signed transfers that are not mined may still spend of it, in wei.
    pub pending: Wei,
    /// The configured tokens, in their order.
    #[serde(default)]
    pub tokens: Vec<TokenBalance>,
    /// The number of the block that the balances were read at.
    pub block: u64,
}

/// The balance of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenBalance {
    /// The token.
    pub token: Token,
    /// The balance in the token's smallest unit; `null` if its contract does not return one.
    pub units: Option<Units>,
    /// The most that signed transfers that are not mined may still spend of it, in the same unit.
    pub pending: Units,
}

/// `GET /v1/names/{username}`: the holder of a username.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NameRecord {
    /// The username as its holder writes it.
    pub username: Username,
    /// The Telegram user who holds it.
    pub telegram_id: TelegramId,
    /// The address that payments to the username go to.
    pub address: EthAddress,
    /// When the holder's wallet was created.
    pub account_since: Timestamp,
    /// When the username was reassigned from another user, if that is less than 30 days ago.
    pub reassigned_at: Option<Timestamp>,
    /// When Telegram signed last that this user has the username; absent if only a bearer token
    /// reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved_at: Option<Timestamp>,
    /// From when payments can name it, if it was reassigned less than a day ago and is not proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payable_from: Option<Timestamp>,
}

/// `GET /v1/networks`: the chains and their tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Networks {
    /// The chains, at least one.
    pub networks: Vec<Network>,
}

/// A chain and its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Network {
    /// Its short name, as users type it.
    pub short_name: String,
    /// Its name for people.
    pub name: String,
    /// Its id (EIP-155).
    pub chain_id: u64,
    /// The symbol of its native coin.
    pub symbol: String,
    /// The configured tokens.
    #[serde(default)]
    pub tokens: Vec<Token>,
    /// The URL of a block explorer; a transaction is at `{explorer}/tx/{hash}`.
    pub explorer: Option<String>,
}
