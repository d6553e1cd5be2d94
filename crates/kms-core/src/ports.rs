//! The traits through which custody reaches databases; `kms-store` implements them. One method is
//! one whole transaction, so that no caller has to compose part of one.

use async_trait::async_trait;
use kms_types::{AccountId, AccountRef, RecoveryId, RecoveryStep, SckId, Timestamp};
use sha2::{Digest, Sha256};

use crate::account::{
    Account, ContactChange, EmailChange, Inserted, NewAccount, Wallet, WalletSwap,
};
use crate::audit::{Action, AuditRecord, Details};
use crate::freeze::FreezeChange;
use crate::master_key::MasterKeyId;
use crate::page_only::PageChange;
use crate::recovery::Recovery;
use crate::rescue::DamagedAccount;
use crate::server_keys::ServerKeyId;

/// Why a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is unreachable or too slow. Whether it wrote is unknown.
    #[error("the {store} database is unavailable")]
    Unavailable {
        /// Which database.
        store: &'static str,
        /// The driver's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row holds a value that this program never writes.
    #[error("the {table} row of {key} is malformed: {reason}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: String,
        /// What is malformed.
        reason: String,
    },
    /// A row's MAC does not match: the row was modified by another program, or is damaged.
    #[error("the {table} row of {key} failed its integrity check")]
    Tampered {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: String,
    },
    /// A row's MAC was made with a retired version of the row key: the row was restored from an old
    /// copy, or forged with a leaked key.
    #[error("the {table} row of {key} is under version {version} of the row key, which is retired")]
    RetiredRowKey {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: String,
        /// The retired version.
        version: ServerKeyId,
    },
    /// A row's MAC was made with a version of the row-MAC key that is not configured.
    #[error(
        "version {version} of the row-MAC key is not configured; the {table} row of {key} needs it"
    )]
    NoRowKey {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: String,
        /// The missing version.
        version: ServerKeyId,
    },
}

/// Accounts and wallets.
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// Returns the account with its owner's current username.
    async fn account(&self, account: AccountRef) -> Result<Option<Account>, StoreError>;

    /// Inserts account, wallet, names and the event `AccountCreated`. Returns `None`, having
    /// written nothing, if the Telegram user has an account.
    async fn create_account(&self, new: NewAccount) -> Result<Option<Inserted>, StoreError>;

    /// Replaces the wallet and writes the event; for a recovery it also completes the recovery and
    /// clears the failed password attempts. Returns `false`, having written nothing, if the
    /// account does not [allow](Account::allows) it at the replaced version, or the recovery is no
    /// longer at the step before.
    async fn swap_wallet(&self, swap: WalletSwap) -> Result<bool, StoreError>;

    /// Replaces the wallet by the same key sealed under another SCK, if it is still sealed under
    /// `replaces`; else returns `false`. The version stays, and no event is written.
    async fn reseal_wallet(
        &self,
        account: AccountId,
        replaces: SckId,
        wallet: Wallet,
    ) -> Result<bool, StoreError>;

    /// Replaces the hash of the wrapped SCK, if the wallet is still sealed under this SCK and has
    /// the hash `replaces`; else returns `false`. The version stays, and no event is written.
    async fn record_wrapped_sck(
        &self,
        account: AccountId,
        sck: SckId,
        replaces: [u8; 32],
        hash: [u8; 32],
    ) -> Result<bool, StoreError>;

    /// Sets or removes a contact. Returns `false`, having written nothing, if the account does not
    /// [allow](Account::allows) it at this version of the wallet.
    async fn set_contact(
        &self,
        account: AccountId,
        wallet_version: i64,
        change: ContactChange,
        at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// [Applies](PageChange::apply) the change to the account and writes its event. Returns the
    /// account, which did not change if the change was not allowed; `None` if there is none.
    async fn change_page(
        &self,
        account: AccountId,
        change: PageChange,
        at: Timestamp,
    ) -> Result<Option<Account>, StoreError>;

    /// Returns up to `limit` accounts that leave the page at `now`. A row that cannot be read does
    /// not keep others from being returned.
    async fn due_page_leaves(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<AccountId>, StoreError>;
}

/// Requested changes of e-mail addresses, at most one per account.
#[async_trait]
pub trait EmailChangeStore: Send + Sync {
    /// Stores the request in place of an earlier one, and writes the event `EmailChangeRequested`.
    /// Returns `false`, having written nothing, if the account does not [allow](Account::allows) it
    /// at this version of the wallet.
    async fn request_email_change(
        &self,
        change: EmailChange,
        wallet_version: i64,
    ) -> Result<bool, StoreError>;

    /// Returns the pending request.
    async fn email_change(&self, account: AccountId) -> Result<Option<EmailChange>, StoreError>;

    /// Counts one more attempt at the code. Returns `false` if `change` is no longer what is
    /// stored.
    async fn count_email_code_attempt(&self, change: EmailChange) -> Result<bool, StoreError>;
}

/// The account after a change of its freeze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreezeWritten {
    /// The account, which did not change if the change was not allowed.
    pub account: Account,
    /// The open recovery that the owner's freeze cancelled.
    pub cancelled_recovery: Option<RecoveryId>,
}

/// Frozen accounts.
#[async_trait]
pub trait FreezeStore: Send + Sync {
    /// [Applies](FreezeChange::apply) the change to the account and writes its event; for a freeze
    /// of the owner it also cancels the open recovery. `None` if there is no such account.
    async fn change_freeze(
        &self,
        account: AccountId,
        change: FreezeChange,
        at: Timestamp,
    ) -> Result<Option<FreezeWritten>, StoreError>;

    /// Returns up to `limit` accounts whose freeze is to be lifted at `now`. A row that cannot be
    /// read does not keep others from being returned.
    async fn due_unfreezes(&self, now: Timestamp, limit: u32)
    -> Result<Vec<AccountId>, StoreError>;
}

/// Accounts whose rows fail their integrity check.
#[async_trait]
pub trait RescueStore: Send + Sync {
    /// Returns the account as it is stored, whatever its MAC, and the tables in which a row of it
    /// fails its check.
    async fn damaged_account(
        &self,
        account: AccountRef,
    ) -> Result<Option<DamagedAccount>, StoreError>;

    /// Writes the account, its wallet and the event `AccountFrozen`, ends its recoveries and its
    /// requested change of the e-mail address, and deletes its other rows that fail their check.
    /// Returns `false`, having written nothing, if the account is no longer as it was `stored`.
    async fn rescue_account(
        &self,
        stored: &DamagedAccount,
        rescued: Account,
        at: Timestamp,
    ) -> Result<bool, StoreError>;
}

/// Notices of exported keys.
#[async_trait]
pub trait ExportLog: Send + Sync {
    /// Writes the event `KeyExported`. Returns `false`, having written nothing, if the account does
    /// not [allow](Account::allows) it at this version of the wallet.
    async fn record_export(
        &self,
        account: AccountId,
        wallet_version: i64,
        at: Timestamp,
    ) -> Result<bool, StoreError>;
}

/// Recoveries.
#[async_trait]
pub trait RecoveryStore: Send + Sync {
    /// Inserts a recovery and its event. Returns `false`, having written nothing, if the account
    /// has one that has not ended, or the id is taken.
    async fn insert_recovery(&self, recovery: Recovery) -> Result<bool, StoreError>;

    /// Returns a recovery by its id.
    async fn recovery(&self, id: RecoveryId) -> Result<Option<Recovery>, StoreError>;

    /// Returns the account's recovery that is not stored as ended.
    async fn open_recovery(&self, account: AccountId) -> Result<Option<Recovery>, StoreError>;

    /// Replaces the stored step before `recovery` by `recovery`, and writes the event of `step`, if
    /// any. Returns `false`, having written nothing, if another step is stored.
    async fn update_recovery(
        &self,
        recovery: Recovery,
        step: Option<RecoveryStep>,
        at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Returns up to `limit` recoveries whose stage has changed by time alone since it was stored.
    /// A row that cannot be read does not keep others from being returned.
    async fn due_recoveries(&self, now: Timestamp, limit: u32)
    -> Result<Vec<Recovery>, StoreError>;
}

/// An SCK as the key database holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedSck {
    /// Its random id.
    pub id: SckId,
    /// The account that it belongs to.
    pub account: AccountId,
    /// The KMS key that unwraps it.
    pub master_key: MasterKeyId,
    /// The ciphertext (`FORMAT.md`, "Wrapped SCK").
    pub bytes: Vec<u8>,
}

impl WrappedSck {
    /// Returns the hash that the wallet's row holds (`FORMAT.md`, "Wrapped SCK").
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let digest = Sha256::new_with_prefix(self.master_key.to_string());
        digest.chain_update([0]).chain_update(&self.bytes).finalize().into()
    }
}

/// The key database: wrapped SCKs and nothing else.
#[async_trait]
pub trait SckStore: Send + Sync {
    /// Inserts the SCK, acknowledged by a majority of replicas. An id is inserted once.
    async fn put_sck(&self, sck: WrappedSck) -> Result<(), StoreError>;

    /// Replaces `old` by `new`, which has the same id, in one write that a majority of replicas
    /// acknowledges. Returns `false`, having written nothing, if `old` is not what is stored.
    async fn replace_sck(&self, old: &WrappedSck, new: WrappedSck) -> Result<bool, StoreError>;

    /// Removes the SCK, if it is there.
    async fn remove_sck(&self, id: SckId) -> Result<(), StoreError>;

    /// Returns the SCK.
    async fn sck(&self, id: SckId) -> Result<Option<WrappedSck>, StoreError>;
}

/// What the audit holds of an account. The table is only appended to, so this shows what an old
/// copy of a row, or a deleted one, hides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditedAccount {
    /// The newest revision of the account that was recorded; 0 if none was.
    pub revision: i64,
    /// When wrong passwords were tried, the latest first.
    pub guesses: Vec<Timestamp>,
}

/// The audit table.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Appends the record, committed when this returns. An outcome `ok` of one of
    /// [`CHANGES_OF_ACCOUNTS`](crate::audit::CHANGES_OF_ACCOUNTS) states the account's revision.
    async fn append(&self, record: AuditRecord) -> Result<(), StoreError>;

    /// Appends the record of a request that was refused before a key was used, unless one with the
    /// same account, action and outcome was appended within the last minute: a flood of refusals
    /// must not fill the table.
    async fn append_refusal(&self, record: AuditRecord) -> Result<(), StoreError>;

    /// Counts the outcomes with this code of these actions, each on its own subject. The table is
    /// only appended to, so this shows what an old copy of another row hides.
    async fn count_outcomes(
        &self,
        actions: &[Action],
        outcome: &'static str,
    ) -> Result<usize, StoreError>;

    /// Returns what the newest outcome `ok` of this action on its subject states.
    async fn newest_details(&self, action: Action) -> Result<Option<Details>, StoreError>;

    /// Returns what the audit holds of the account, with up to `at_most` wrong passwords since
    /// `since`.
    async fn audited_account(
        &self,
        account: AccountId,
        since: Timestamp,
        at_most: usize,
    ) -> Result<AuditedAccount, StoreError>;
}

/// Whether a password may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordGateDecision {
    /// The password may be tried; the attempt was counted.
    Counted,
    /// The account is locked until this time.
    LockedUntil(Timestamp),
}

/// The limit on password guesses. An attempt is counted before the password is tried, so that
/// concurrent guesses cannot exceed the limit.
#[async_trait]
pub trait PasswordGate: Send + Sync {
    /// Counts an attempt, unless the account is locked at `now`. The fifth attempt that was not
    /// cleared locks the account for 15 minutes; each further one doubles the time, up to 24 hours.
    /// A lockout that ends later than any that starts now was stored while a clock was ahead, and
    /// does not count.
    async fn count_attempt(
        &self,
        account: AccountId,
        now: Timestamp,
    ) -> Result<PasswordGateDecision, StoreError>;

    /// Counts an attempt to cancel a recovery of a locked account. Returns `false` if there were
    /// three within a day. Locks nothing.
    async fn count_attempt_while_locked(&self, account: AccountId) -> Result<bool, StoreError>;

    /// Refunds the last counted attempt, which was not tried after all, with the lock it caused.
    async fn refund_attempt(&self, account: AccountId) -> Result<(), StoreError>;

    /// Clears all attempts after a correct password, and cancels the account's open recovery, whose
    /// id it returns. A recovery clears the attempts in [`AccountStore::swap_wallet`].
    async fn accept(
        &self,
        account: AccountId,
        now: Timestamp,
    ) -> Result<Option<RecoveryId>, StoreError>;
}
