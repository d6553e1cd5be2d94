//! Accounts and wallets as stores keep them: no field of these is a secret in clear.

use kms_types::{AccountId, EthAddress, SckId, TelegramId, Timestamp, Username, text_table};

use crate::kdf::{KdfParams, Salt};
use crate::recovery::Recovery;
use crate::server_keys::ServerKeyId;

/// Whether an account may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountState {
    /// It may.
    Active,
    /// The operator froze it: it can be read, but nothing is signed for it.
    Frozen,
}

text_table! {
    AccountState {
        Active = "active",
        Frozen = "frozen",
    }
}

/// An account with its wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The KMS's own id.
    pub id: AccountId,
    /// Whose it is.
    pub telegram_id: TelegramId,
    /// The name its holder has now. Set by name observations, not with the account.
    pub username: Option<Username>,
    /// Whether it may act.
    pub state: AccountState,
    /// A mobile number, sealed.
    pub mobile: Option<Vec<u8>>,
    /// An e-mail address, sealed.
    pub email: Option<Vec<u8>>,
    /// Since when it is known that the address is the account's; `None` while nobody confirmed it.
    pub email_verified_at: Option<Timestamp>,
    /// When the password was last replaced by a recovery.
    pub recovered_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The key it holds.
    pub wallet: Wallet,
}

/// A wallet: a private key sealed under a password, and everything needed to open it but that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wallet {
    /// The address. It never changes.
    pub address: EthAddress,
    /// The public key, compressed (SEC 1, 33 bytes).
    pub public_key: [u8; 33],
    /// The private key, sealed (`FORMAT.md`, "Sealed private key").
    pub sealed_key: Vec<u8>,
    /// How the password hash is stretched.
    pub kdf: KdfParams,
    /// With what salt.
    pub salt: Salt,
    /// Which recipe the client made the password hash by.
    pub password_version: u8,
    /// Which pepper went into the SCK.
    pub pepper_id: ServerKeyId,
    /// The SCK's commitment: tells a wrong password from a damaged row.
    pub commitment: [u8; 32],
    /// The SCK's wrapped copy in the key database.
    pub sck_id: SckId,
    /// Counts the wallet's changes, from 1. Every change names the version it replaces.
    pub version: i64,
}

/// A username as Telegram showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenName {
    /// The name, or none.
    pub username: Option<Username>,
    /// When Telegram made the update.
    pub seen_at: Timestamp,
}

/// What one transaction writes when a wallet is made.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// The account and its wallet; its `username` is `None`.
    pub account: Account,
    /// The name it was seen with. Claimed by the rules of names in the same transaction.
    pub name: Option<SeenName>,
}

/// What one transaction writes when a wallet gets a new password.
#[derive(Clone, Debug)]
pub struct WalletSwap {
    /// Whose wallet.
    pub account: AccountId,
    /// The version it replaces; the new wallet's version is one higher.
    pub replaces: i64,
    /// The wallet from now on.
    pub wallet: Wallet,
    /// Why.
    pub reason: SwapReason,
    /// When.
    pub at: Timestamp,
}

/// Why a wallet gets a new password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapReason {
    /// Its owner knew the old one. Writes the event `PasswordChanged`.
    PasswordChange,
    /// Its owner had forgotten it. Puts this step, the completion, in the place of the one before,
    /// and notes when on the account.
    Recovery(Recovery),
}

/// An e-mail address that was asked for and is not confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailChange {
    /// Whose it would be.
    pub account: AccountId,
    /// The address, sealed.
    pub email: Vec<u8>,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// How often a code was tried.
    pub tries: u8,
}

/// A contact that an account gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContactChange {
    /// A mobile number, sealed; or none.
    Mobile(Option<Vec<u8>>),
    /// An e-mail address, sealed, that is known to be the account's from now on; or none. Ends the
    /// change that waits, and writes the event `EmailChanged`.
    Email(Option<Vec<u8>>),
}
