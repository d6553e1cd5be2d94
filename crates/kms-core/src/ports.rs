//! What custody needs of the world: traits that `kms-store` implements. One method is one whole
//! transaction, so that no caller composes half of one.

use async_trait::async_trait;
use kms_types::wire::{AccountState, RecoveryStep};
use kms_types::{AccountId, AccountRef, RecoveryId, SckId, Timestamp};

use crate::account::{Account, ContactChange, EmailChange, NewAccount, Wallet, WalletSwap};
use crate::audit::AuditRecord;
use crate::master_key::MasterKeyId;
use crate::recovery::Recovery;
use crate::server_keys::ServerKeyId;

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It does not answer, or not in time. Whether it wrote is unknown.
    #[error("the {store} database does not answer")]
    Unavailable {
        /// Which one.
        store: &'static str,
        /// What its driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row holds what this program never writes.
    #[error("the {table} row of {key} can not be read: {reason}")]
    Corrupt {
        /// In which table.
        table: &'static str,
        /// Which row.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A row's MAC is not the one that this program wrote: somebody else changed it.
    #[error("the {table} row of {key} was changed from outside")]
    Tampered {
        /// In which table.
        table: &'static str,
        /// Which row.
        key: String,
    },
    /// A row's MAC was made with a version of the row key that is not configured.
    #[error(
        "version {version} of the row key is not configured; the {table} row of {key} needs it"
    )]
    NoRowKey {
        /// In which table.
        table: &'static str,
        /// Which row.
        key: String,
        /// Which version.
        version: ServerKeyId,
    },
}

/// Accounts and wallets.
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// The account, with the name its holder has now.
    async fn account(&self, account: AccountRef) -> Result<Option<Account>, StoreError>;

    /// Writes account, wallet, name and the event `AccountCreated`, or nothing and `false` if the
    /// Telegram user has an account.
    async fn create_account(&self, new: NewAccount) -> Result<bool, StoreError>;

    /// Replaces the wallet and writes the event; for a recovery also its completion, and forgets all
    /// attempts at the old password. Or nothing and `false` if the wallet's version is not the one
    /// to be replaced, or the recovery moved on.
    async fn swap_wallet(&self, swap: WalletSwap) -> Result<bool, StoreError>;

    /// Replaces the wallet by the same under another SCK, as long as it is under `replaces`; or
    /// nothing and `false`. The version and the owner's view stay: no event is written.
    async fn reseal_wallet(
        &self,
        account: AccountId,
        replaces: SckId,
        wallet: Wallet,
        at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Sets whether the account may act, or `false` if there is no such account.
    async fn set_state(&self, account: AccountId, state: AccountState) -> Result<bool, StoreError>;

    /// Asks for another e-mail address, in the place of one that was asked for before, and writes
    /// the event `EmailChangeRequested`.
    async fn ask_email(&self, change: EmailChange) -> Result<(), StoreError>;

    /// The e-mail address that was asked for.
    async fn asked_email(&self, account: AccountId) -> Result<Option<EmailChange>, StoreError>;

    /// Counts one more try of a code, or `false` if `change` is not what stands there any more.
    async fn count_email_try(&self, change: EmailChange) -> Result<bool, StoreError>;

    /// Writes the event `KeyExported`.
    async fn tell_export(&self, account: AccountId, at: Timestamp) -> Result<(), StoreError>;

    /// Gives the account a contact, or `false` if there is no such account.
    async fn set_contact(
        &self,
        account: AccountId,
        change: ContactChange,
        at: Timestamp,
    ) -> Result<bool, StoreError>;
}

/// Recoveries.
#[async_trait]
pub trait RecoveryStore: Send + Sync {
    /// Writes a new one and the event, or nothing and `false` if the account has one that has not
    /// ended, or the id is taken.
    async fn insert_recovery(&self, recovery: Recovery) -> Result<bool, StoreError>;

    /// One of them.
    async fn recovery(&self, id: RecoveryId) -> Result<Option<Recovery>, StoreError>;

    /// The one of the account that is not written as ended.
    async fn open_recovery(&self, account: AccountId) -> Result<Option<Recovery>, StoreError>;

    /// Puts the step in the place of the one before, with the event that tells of `step`, if any;
    /// or nothing and `false` if the one before is not there any more.
    async fn update_recovery(
        &self,
        recovery: Recovery,
        step: Option<RecoveryStep>,
        at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Those that time has made something else of than is written, as many as `limit`. One that
    /// can not be read keeps no other from being found.
    async fn due_recoveries(&self, now: Timestamp, limit: u32)
    -> Result<Vec<Recovery>, StoreError>;
}

/// An SCK as the key database holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedSck {
    /// Random.
    pub id: SckId,
    /// Whose.
    pub account: AccountId,
    /// Which KMS key opens it.
    pub master_key: MasterKeyId,
    /// `FORMAT.md`, "Wrapped SCK".
    pub bytes: Vec<u8>,
}

/// The key database: wrapped SCKs and nothing else.
#[async_trait]
pub trait SckStore: Send + Sync {
    /// Writes it, so that a majority of replicas keeps it. An id is put once.
    async fn put_sck(&self, sck: WrappedSck) -> Result<(), StoreError>;

    /// Writes `new` in the place of `old`, in one write that a majority of replicas keeps; or
    /// nothing and `false` if what stands there is not `old`. Both have one id.
    async fn replace_sck(&self, old: &WrappedSck, new: WrappedSck) -> Result<bool, StoreError>;

    /// Removes it; it may be gone already.
    async fn remove_sck(&self, id: SckId) -> Result<(), StoreError>;

    /// Reads it.
    async fn sck(&self, id: SckId) -> Result<Option<WrappedSck>, StoreError>;
}

/// The audit table.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Appends the record. When this returns, it is committed.
    async fn append(&self, record: AuditRecord) -> Result<(), StoreError>;

    /// Appends the record of a request that was refused before a key was touched, unless one of
    /// the same account, action and outcome was appended within the last minute: a flood must not
    /// fill the table.
    async fn append_refusal(&self, record: AuditRecord) -> Result<(), StoreError>;
}

/// Whether a password may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It may, and the attempt was counted.
    Counted,
    /// Not before this time.
    LockedUntil(Timestamp),
}

/// The limit on guesses. An attempt is counted before the password is tried, so that many at
/// once can not pass.
#[async_trait]
pub trait PasswordGate: Send + Sync {
    /// Counts an attempt, unless the account is locked at `now`. From the fifth attempt that was
    /// not cleared, each one locks: 15 minutes, doubling up to 24 hours.
    async fn count_attempt(
        &self,
        account: AccountId,
        now: Timestamp,
    ) -> Result<Attempt, StoreError>;

    /// The attempt that was counted last was not tried after all: it counts no more, nor does a
    /// lock that it brought.
    async fn give_back_attempt(&self, account: AccountId) -> Result<(), StoreError>;

    /// A right password: forgets all attempts, and cancels the recovery that is open, whose id it
    /// answers. A recovery forgets attempts in [`AccountStore::swap_wallet`].
    async fn accept(
        &self,
        account: AccountId,
        now: Timestamp,
    ) -> Result<Option<RecoveryId>, StoreError>;
}
